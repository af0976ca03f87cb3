//! `pandaproxy health` with real programs: a proxy that serves, and other programs on its ports.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::thread;

use crate::clients::ports::Refusing;
use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{
    self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, usual,
};
use printer::camera::Camera;
use printer::{Model, Printer};
use skips::is_missing;
use tokio::task::spawn_local;

#[test]
fn health_checks_succeed_repeatedly_and_are_logged_at_debug() {
    /// More than the wrong codes that lock an address out, and more than the pre-auth slots.
    const TIMES: usize = 8;
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let mut args = usual(&printer, address, &dir);
        args.extend(["-v", "--enable-all"].map(str::to_owned));
        args.extend(
            ["--port", "chamber=0,rtsp=0,ftp=0,detect=0,detect-tls=0", "--ftp-data-ports", "0"]
                .map(str::to_owned),
        );
        // Closed ports: the printer's camera and files add no log lines.
        args.extend(["--printer-port", "chamber=9,rtsp=9,ftp=9,detect=9"].map(str::to_owned));
        let proxy = Proxy::start(command(args), Rc::clone(&dir)).await;
        proxy.live().await;
        let services = started(&proxy.program);
        assert!(services.len() > 4, "{services:?}");
        let ports: Vec<_> = services.iter().map(|(name, port)| format!("{name}={port}")).collect();
        let named: Vec<_> =
            services.iter().map(|(name, port)| format!("{name} on {port}")).collect();

        for _ in 0..TIMES {
            let (code, output) = health(&["--port", &ports.join(",")], &dir).await;
            assert_eq!(code, Some(0), "{}", output.err);
            assert_eq!(
                String::from_utf8(output.out).unwrap(),
                format!("healthy: {}\n", named.join(", "))
            );
            assert_eq!(output.err, "");
        }

        proxy.program.lines("(health check)", TIMES * services.len()).await;
        // Detect has no TLS on one of its ports, and is asked there.
        let asked = "client disconnected: request for detect answered (health check)";
        assert_eq!(proxy.program.lines_with(asked), TIMES);
        let mut reader = proxy.reader(HOME, "reader").await;
        reader.report().await;
        // Another thread of this test reads the program's output.
        proxy.program.line(": client connected").await;
        let log = proxy.program.log();
        let lines = log.lines().filter(|line| !line.starts_with("DEBUG"));
        let of_clients = |line: &&str| line.contains("(127.0.0.1)");
        assert_eq!(lines.filter(of_clients).count(), 1, "the reader's alone: {log}");
        drop(reader);
    });
}

#[test]
fn another_program_on_the_port_is_named_in_one_line() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S);
        let nowhere = SocketAddr::from((HOME, 9));
        let dir = StateDir::new();
        let own = Proxy::start(command(usual(&printer, nowhere, &dir)), Rc::clone(&dir)).await;
        let elsewhere = StateDir::new();
        let other =
            Proxy::start(command(usual(&printer, nowhere, &elsewhere)), Rc::clone(&elsewhere))
                .await;

        // Two printers' proxies with one authority.
        let beside = StateDir::new();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(dir.file(file), beside.file(file)).unwrap();
        }
        let args = usual(&Printer::new(Model::X1C), nowhere, &beside);
        let shared = Proxy::start(command(args), Rc::clone(&beside)).await;

        let refusing = Refusing::new();
        let closed_port = refusing.port();
        // Connections wait in its backlog and are never accepted.
        let mute = listener();
        let no_tls = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let gone = answers(b"");
        let empty = StateDir::new();
        for (dir, port, words) in [
            (&dir, closed_port, "port is closed"),
            (&dir, other.address.port(), "certificate not signed by ca.pem"),
            (&dir, shared.address.port(), "certificate of another printer's proxy"),
            (&dir, port(&mute), "no answer to the TLS handshake in time"),
            (&dir, no_tls, "TLS handshake failed"),
            (&dir, gone, "connection closed during the TLS handshake"),
            (&dir, 0, "port is 0"),
            (&empty, own.address.port(), "no ca.pem"),
        ] {
            let (code, output) =
                health(&["--services=mqtt", "--port", &format!("mqtt={port}")], dir).await;
            assert_eq!(code, Some(1), "{words}: {}", output.err);
            assert!(output.out.is_empty(), "{words}");
            assert_eq!(output.err.lines().count(), 1, "{words}: {}", output.err);
            let begin = format!("pandaproxy health: mqtt on 127.0.0.1:{port}: ");
            assert!(
                output.err.starts_with(&begin) && output.err.contains(words),
                "{words}: {}",
                output.err
            );
        }

        // Another program, or another printer's proxy, has port 3000.
        let http = answers(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let other =
            answers(b"\xa5\xa5\x2c\0{\"login\":{\"command\":\"detect\",\"id\":\"\"}}\xa7\xa7");
        for detect in [http, other, answers(b"")] {
            let ports = format!("detect={detect}");
            let (code, output) = health(&["--services=detect", "--port", &ports], &dir).await;
            assert_eq!(code, Some(1));
            let said = format!("detect on 127.0.0.1:{detect}: does not answer as this printer");
            assert!(output.err.contains(&said), "{}", output.err);
        }

        // MQTT answers, the camera's port does not.
        let ports = format!("mqtt={},chamber={closed_port}", own.address.port());
        let (code, output) = health(&["--services=mqtt,camera", "--port", &ports], &dir).await;
        assert_eq!(code, Some(1));
        assert!(
            output.err.contains("chamber on 127.0.0.1") && output.err.contains("port is closed")
        );
    });
}

/// Grafana and AdGuard Home have port 3000.
#[test]
fn a_port_of_detect_in_use_is_named_and_taken_once_free() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let grafana = listener();
        let detect = port(&grafana);
        let mut args = usual(&printer, address, &dir);
        args.extend([format!("--port=detect={detect},detect-tls=0"), "--enable-all".to_owned()]);
        args.extend(["--port=chamber=0,rtsp=0,ftp=0", "--ftp-data-ports=0"].map(str::to_owned));
        args.push("--printer-port=chamber=9,rtsp=9,ftp=9,detect=9".to_owned());
        let proxy = Proxy::start(command(args), Rc::clone(&dir)).await;
        let line = format!("detect: port {detect} is in use by another program: slicers that ask");
        let line = proxy.program.line(&line).await;
        assert!(line.starts_with("WARN") && line.contains("give that program another port"));
        proxy.live().await;
        let ports = format!("mqtt={},detect={detect}", proxy.address.port());
        let tls = started(&proxy.program).into_iter().find(|(name, _)| name == "detect-tls");
        let ports = format!("{ports},detect-tls={}", tls.unwrap().1);
        let more = ["--services=mqtt,detect", "--port", &ports];
        thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut client, _) = grafana.accept().unwrap();
            let _asked = client.read(&mut [0; 4096]).unwrap();
            client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            // It ends with its answer.
        });
        let (code, output) = health(&more, &dir).await;
        let said = String::from_utf8(output.out).unwrap();
        assert_eq!(code, Some(0), "{}", output.err);
        let without = format!(
            "; without detect on {detect}: does not answer as this printer; is another program"
        );
        assert!(said.contains(&without) && said.contains("detect-tls on "), "{said}");
        proxy.program.signal("USR1");
        proxy.program.lines(&format!("detect: port {detect} is in use"), 2).await;
        proxy.program.line(&format!("detect: port {detect} opened: no other program has it")).await;
        let (code, output) = health(&more, &dir).await;
        let said = String::from_utf8(output.out).unwrap();
        assert!(code == Some(0) && !said.contains("without"), "{said}");
    });
}

#[test]
fn an_invalid_setting_is_named_without_the_access_code() {
    proxy::run(async {
        let dir = StateDir::new();
        let (code, output) = health(&["--services=web"], &dir).await;
        assert_eq!(code, Some(2), "{}", output.err);
        assert!(
            output.err.contains("--services") && output.err.lines().count() == 1,
            "{}",
            output.err
        );
        assert!(!output.err.contains(CODE), "{}", output.err);
    });
}

#[test]
fn a_port_that_the_printer_lacks_is_closed_and_healthy() {
    if is_missing("curl") || is_missing("ffprobe") {
        return;
    }
    proxy::run(async {
        const UNKNOWN: &str = "99900A000000001";
        let camera = Camera::new().code(CODE);
        let (at, serving) = camera.listen_tls((HOME, 0).into(), Model::P1S).await.unwrap();
        let _serving = spawn_local(serving);
        let closed = Refusing::new();
        let dir = StateDir::new();
        let mut command = command(["-p", "127.0.0.1", "-s", UNKNOWN, "-b", "127.0.0.1"]);
        command.env("ACCESS_CODE", CODE).args(["--services=camera", "--insecure-printer"]);
        command.args(["--port", "chamber=0,rtsp=0"]).arg("--state-dir").arg(dir.path());
        command.arg("--printer-port").arg(format!("chamber={},rtsp={}", at.port(), closed.port()));
        let proxy = Proxy::start_serving("rtsp", command, Rc::clone(&dir)).await;
        let services = started(&proxy.program);
        let [(_, chamber), (_, rtsp)] = services[..] else { panic!("{services:?}") };
        proxy.program.line(&format!("rtsp: port {rtsp} closed: the printer has no RTSPS")).await;

        let mut curl = Command::new("curl");
        let (code, _) =
            Program::start(curl.args(["-sk", &format!("https://127.0.0.1:{rtsp}")])).ended().await;
        assert_eq!(code, Some(7), "curl is refused");
        let mut ffprobe = Command::new("ffprobe");
        let url = format!("rtsps://127.0.0.1:{rtsp}/streaming/live/1");
        let (code, said) = Program::start(ffprobe.args(["-v", "error", &url])).ended().await;
        assert_ne!(code, Some(0));
        assert!(said.err.contains("Connection refused"), "{}", said.err);

        let ports = format!("chamber={chamber},rtsp={rtsp}");
        let more = ["--services=camera", "--port", &ports];
        let (code, output) = health_of(UNKNOWN, &more, &dir).await;
        assert_eq!(code, Some(0), "{}", output.err);
        assert_eq!(
            String::from_utf8(output.out).unwrap(),
            format!("healthy: chamber on {chamber}\n")
        );
        // A P1S has no port 322, by its model.
        let (code, _) = health(&more, &dir).await;
        assert_eq!(code, Some(0));
        // Nothing answers.
        let ports = format!("chamber={rtsp},rtsp={rtsp}");
        let more = ["--services=chamber", "--port", &ports];
        assert_eq!(health_of(UNKNOWN, &more, &dir).await.0, Some(1));
    });
}

/// Two ports that accept connections and stay silent take no time from the port that is asked after them, which is slow.
#[test]
fn ports_that_stall_take_no_time_from_others() {
    proxy::run(async {
        let (detect, detect_tls) = (listener(), listener());
        let http = answers_after(Duration::from_secs(2), b"HTTP/1.1 200 OK\r\n\r\nalive\n");
        let ports =
            format!("detect={},detect-tls={},http={http}", port(&detect), port(&detect_tls));
        let (code, output) =
            health(&["--services", "detect,http", "--port", &ports], &StateDir::new()).await;
        assert_eq!(code, Some(0), "{}", output.err);
        let said = String::from_utf8(output.out).unwrap();
        assert!(said.starts_with(&format!("healthy: http on {http}; without detect")), "{said}");
    });
}

/// Runs `pandaproxy health` with these options: its exit code and its output.
async fn health(more: &[&str], dir: &StateDir) -> (Option<i32>, Said) {
    health_of(Model::P1S.serial(), more, dir).await
}

async fn health_of(serial: &str, more: &[&str], dir: &StateDir) -> (Option<i32>, Said) {
    let mut command = command(["-p", "127.0.0.1", "-s", serial, "-b", "127.0.0.1"]);
    command.env("ACCESS_CODE", CODE).args(["--printer-ca", PRINTER_CA]);
    command.args(more).arg("--state-dir").arg(dir.path()).arg("health");
    Program::start(&mut command).ended().await
}

/// The services in a program's log, and their ports.
fn started(program: &Program) -> Vec<(String, u16)> {
    let log = program.log();
    let service = |line: &str| {
        let (before, at) = line.split_once(" listening on ")?;
        let name = before.split_whitespace().last()?;
        let at: SocketAddr = at.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), at.port()))
    };
    log.lines().filter(|line| line.contains("up to")).filter_map(service).collect()
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// A port whose first client gets `words` after its ClientHello, and is closed.
fn answers(words: &'static [u8]) -> u16 {
    answers_after(Duration::ZERO, words)
}

/// The same after a while.
fn answers_after(delay: Duration, words: &'static [u8]) -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = listener();
    let port = port(&listener);
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // All of a ClientHello, or closing would be a reset.
        let mut hello = [0; 4096];
        let _read = client.read(&mut hello).unwrap();
        thread::sleep(delay);
        // A client may have given up.
        let _sent = client.write_all(words);
    });
    port
}
