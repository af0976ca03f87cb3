//! Detect with real sockets, real TLS, and a client in Python that shares nothing with the proxy.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use skips::is_missing;

use crate::clients::programs::{PATIENCE, Program};
use crate::clients::proxy::{self, CODE, HOME, Proxy, StateDir, command, switch_on, usual};
use printer::{Detect, Model, Printer, detect};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/detect.py");

const SERIAL: &str = Model::P1S.serial();

/// A P1S that tells what it is, and the program before it.
struct Bed {
    printer: Printer,
    detect: Detect,
    proxy: Proxy,
    plain: SocketAddr,
    tls: SocketAddr,
    _serving: [JoinHandle<()>; 2],
}

impl Bed {
    async fn new() -> Self {
        let any = SocketAddr::from((HOME, 0));
        let printer = Printer::new(Model::P1S).code(CODE);
        let (mqtt, serving) = switch_on(&printer, any).await;
        let detect = Detect::new(Model::P1S).telling("name", "Grüner \"Drucker\"");
        let (at, telling) = detect.listen(any).await.unwrap();
        let dir = StateDir::new();
        let mut args = usual(&printer, mqtt, &dir);
        let more = ["--services=mqtt,detect", "--port=detect=0,detect-tls=0"].map(str::to_owned);
        args.extend(more);
        args.push(format!("--printer-port=mqtt={},detect={}", mqtt.port(), at.port()));
        // Each of these options is given once.
        let args = without(args, &["--services", "--printer-port"]);
        let proxy = Proxy::start(command(args), dir).await;
        let mut ports = [any; 2];
        for (at, name) in ports.iter_mut().zip(["detect", "detect-tls"]) {
            let line = proxy.program.line(&format!("{name:<8} listening on ")).await;
            let (_, rest) = line.split_once(" listening on ").unwrap();
            *at = rest.split(',').next().unwrap().parse().unwrap();
        }
        let [plain, tls] = ports;
        let _serving = [serving, spawn_local(telling)];
        Self { printer, detect, proxy, plain, tls, _serving }
    }

    /// The answer that the client in Python gets, and what it printed before.
    async fn ask(&self, at: SocketAddr) -> (Value, String) {
        let mut client = Command::new("python3");
        client.arg(CLIENT).arg(at.ip().to_string()).arg(at.port().to_string());
        if at == self.tls {
            client.arg(self.proxy.dir.file("ca.pem"));
        }
        let (status, said) = Program::start(&mut client).ended().await;
        assert_eq!(status, Some(0), "{}", said.err);
        let out = String::from_utf8(said.out).unwrap();
        let (before, answer) = out.trim_end().rsplit_once('\n').unwrap_or(("", out.trim_end()));
        (serde_json::from_str(answer).unwrap(), before.to_owned())
    }
}

/// Drops the first of two values of an option with a word of its own for its value.
fn without(args: Vec<String>, options: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut args = args.into_iter();
    while let Some(word) = args.next() {
        if options.contains(&word.as_str()) {
            let _value = args.next();
        } else {
            kept.push(word);
        }
    }
    kept
}

#[test]
fn a_python_client_is_told_which_printer_this_is() {
    if is_missing("python3") {
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        bed.proxy.program.line("the printer is \"Grüner \\\"Drucker\\\"\", model C12").await;
        for at in [bed.plain, bed.tls] {
            let (answer, before) = bed.ask(at).await;
            let expected = serde_json::json!({
                "command": "detect", "sequence_id": "20123", "id": SERIAL, "model": "C12",
                "name": "Grüner \"Drucker\"", "version": "01.07.02.00", "bind": "free",
                "connect": "lan", "dev_cap": 1,
            });
            assert_eq!(answer, expected);
            assert_eq!(before, if at == bed.tls { SERIAL } else { "" }, "the certificate's name");
        }
        assert_eq!(bed.detect.ever(), 1, "the printer was asked once, by the proxy");
    });
}

#[test]
fn detect_survives_bad_clients_and_a_flood() {
    /// Far more than slots and accept queue.
    const FLOOD: u8 = 200;
    proxy::run(async {
        let bed = Bed::new().await;
        bed.proxy.live().await;
        let mut reader = bed.proxy.reader(HOME, "reader").await;
        let hello = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00".to_vec();
        let question = detect::framed(br#"{"login":{"command":"detect"}}"#);
        for (at, bytes) in [(bed.plain, &hello), (bed.tls, &question)] {
            for _ in 0..20 {
                let mut stream = TcpStream::connect(at).await.unwrap();
                stream.write_all(bytes).await.unwrap();
                let mut answer = Vec::new();
                let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
                // A reset is an end as well.
                let _end = read.expect("it is closed");
                assert!(!answer.starts_with(b"\xa5\xa5"), "{}", answer.escape_ascii());
            }
        }
        let mut there = Vec::new();
        for n in 0..FLOOD {
            let from = Ipv4Addr::new(127, 0, 7, 1 + n % 250);
            for at in [bed.plain, bed.tls] {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((from, 0).into()).unwrap();
                if let Ok(Ok(mut stream)) = timeout(PATIENCE, socket.connect(at)).await {
                    let _sent = stream.write_all(&question[..5]).await;
                    there.push(stream);
                }
            }
        }
        let mark = br#"{"print":{"command":"test","result":"success"}}"#;
        assert_eq!(bed.printer.report(mark), 1);
        reader.report_where(|report| report == mark).await;
        drop(there);
        // As soon as those before it have had their five seconds.
        let answered = async {
            loop {
                let mut stream = TcpStream::connect(bed.plain).await.unwrap();
                let _sent = stream.write_all(&question).await;
                let mut answer = Vec::new();
                let _read = stream.read_to_end(&mut answer).await;
                if answer.starts_with(b"\xa5\xa5") {
                    return;
                }
                tokio::time::sleep(core::time::Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, answered).await.expect("detect works after the flood");
        let log = bed.proxy.program.log();
        let lines = log.lines().filter(|line| line.contains("detect")).count();
        assert!(lines < 100, "{lines} lines:\n{log}");
        bed.proxy.check_memory();
    });
}
