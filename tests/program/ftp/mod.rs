//! The real program before a simulated printer's FTPS server, over real TLS on loopback, with curl and
//! Python's ftplib as clients.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod hostile;

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use tokio::task::{JoinHandle, spawn_local};

use skips::is_missing;

use crate::clients::ports;
use crate::clients::programs::Program;
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::ftp::{Family, FileServer, Quirk};

/// Guards: an upload without a byte races the data connection's TLS.
#[test]
fn curl_moves_files_through_a_printer_with_one_session() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::P1S, Family::Esp32).await;
        for (name, len) in [("zero.3mf", 0), ("one.3mf", 1), ("ü with spaces.3mf", 300_000)] {
            let given = files.file(name, len);
            let (status, log) = files.curl(&["-T", given.to_str().unwrap()], "").await;
            assert_eq!(status, Some(0), "{name}: {log}");
            let stored = files.server.file(&format!("/{name}")).expect("it has arrived");
            assert_eq!(stored.len, len as u64, "{name}");
            let back = files.proxy.dir.file("back");
            let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let (status, log) = files.curl(&["-o", back.to_str().unwrap()], &encoded).await;
            assert_eq!(status, Some(0), "{name}: {log}");
            assert_eq!(fs::read(&back).unwrap(), fs::read(&given).unwrap(), "{name}");
        }
        let (status, listed) = files.curl(&["-l"], "").await;
        assert_eq!(status, Some(0), "{listed}");
        assert!(listed.contains("one.3mf") && listed.contains("with spaces.3mf"), "{listed}");
        assert_eq!(files.server.look(|seen| seen.most_open), 1);
    });
}

/// Guards: bambuddy#1401: TLS 1.3 cuts FTPS data short.
#[test]
fn curl_uploads_to_a_printer_that_requires_tls_resumption() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::X1C, Family::Vsftpd).await;
        let given = files.file("plate.3mf", 500_000);
        let (status, log) = files.curl(&["-T", given.to_str().unwrap()], "").await;
        assert_eq!(status, Some(0), "{log}");
        assert_eq!(files.server.file("/plate.3mf").expect("it has arrived").len, 500_000);
    });
}

#[test]
fn three_uploads_at_once_through_one_session_all_arrive() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::A1Mini, Family::Esp32).await;
        let names = ["a.3mf", "b.3mf", "c.3mf"];
        let given = names.map(|name| files.file(name, 200_000));
        let [a, b, c] = given.each_ref().map(|file| file.to_str().unwrap());
        let (one, two, three) = (["-T", a], ["-T", b], ["-T", c]);
        let ended =
            tokio::join!(files.curl(&one, ""), files.curl(&two, ""), files.curl(&three, ""));
        for (status, log) in [ended.0, ended.1, ended.2] {
            assert_eq!(status, Some(0), "{log}");
        }
        for name in names {
            assert_eq!(
                files.server.file(&format!("/{name}")).expect("it has arrived").len,
                200_000
            );
        }
        assert_eq!(files.server.look(|seen| seen.most_open), 1, "the printer sees one session");
    });
}

#[test]
fn a_wrong_code_is_refused_without_the_printer() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::P1S, Family::Esp32).await;
        let (status, log) = files.curl_as("87654321", &["-l"], "").await;
        assert_eq!(status, Some(67), "curl says that the login was refused: {log}");
        assert_eq!(files.server.look(|seen| seen.ever), 0);
        let log = files.proxy.program.log();
        assert!(!log.contains("87654321") && !log.contains(CODE), "{log}");
    });
}

#[test]
fn a_printer_lost_in_mid_upload_fails_only_that_upload() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::P1S, Family::Esp32).await;
        let server = files.server.clone().rate(200_000);
        let given = files.file("plate.3mf", 2_000_000);
        let upload = ["-T", given.to_str().unwrap()];
        let uploading = files.curl(&upload, "");
        let killing = async {
            let begun = |seen: &printer::ftp::Seen| seen.uploads > 0;
            assert!(server.until(Duration::from_secs(30), begun).await);
            server.die(Duration::from_millis(200));
        };
        let ((status, log), ()) = tokio::join!(uploading, killing);
        assert_ne!(status, Some(0), "never a false 226: {log}");
        server.revive();
        let server = server.rate(100_000_000);
        let mut done = false;
        // The proxy waits a while between attempts to reach a printer that was gone.
        for _ in 0..20 {
            let (status, _) = files.curl(&["-T", given.to_str().unwrap()], "").await;
            done = status == Some(0);
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(done, "{}", files.proxy.program.log());
        assert_eq!(server.file("/plate.3mf").expect("it has arrived").len, 2_000_000);
    });
}

#[test]
fn the_log_names_transfers_their_progress_and_outcome() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::new(Model::P1S, Family::Esp32).await;
        let given = files.file("plate.3mf", 10_000);
        let (status, log) = files.curl(&["-T", given.to_str().unwrap()], "").await;
        assert_eq!(status, Some(0), "{log}");
        let program = &files.proxy.program;
        program.line("(127.0.0.1): upload \"plate.3mf\": done, 10000 bytes in ").await;

        // curl asks for the size, so the proxy knows it; progress is logged once a second at most.
        files.server.put_pattern("/large.mp4", 2_000_000, 1);
        let _slow = files.server.clone().rate(600_000);
        let back = files.proxy.dir.file("back");
        let (status, log) = files.curl(&["-o", back.to_str().unwrap()], "large.mp4").await;
        assert_eq!(status, Some(0), "{log}");
        program.line("download \"large.mp4\": started, 2000000 bytes").await;
        let step = program.line("0 %, ").await;
        assert!(step.contains("download \"large.mp4\": ") && step.contains("kB/s)"), "{step}");
        assert!(program.lines_with("0 %, ") < 10);
        program.line("download \"large.mp4\": done, 2000000 bytes in ").await;

        let (status, _) = files.curl(&["-o", back.to_str().unwrap(), "-sS"], "none").await;
        assert_ne!(status, Some(0));
        files.server.turn(Some(Quirk::NoSpace(0)));
        let (status, _) = files.curl(&["-T", given.to_str().unwrap()], "").await;
        assert_ne!(status, Some(0));
        let line = program.line("upload \"plate.3mf\": failed: ").await;
        assert!(line.contains("552 No space left"), "{line}");
    });
}

#[test]
fn data_connections_use_the_given_ports() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let ports = ports::block(&[HOME]);
        let given = format!("{}-{}", ports.start(), ports.end());
        let files = Files::with_ports(Model::P1S, Family::Esp32, &given).await;
        let file = files.file("plate.3mf", 100_000);
        for more in [&["-v"][..], &["-v", "--disable-epsv"]] {
            let upload = [more, &["-T", file.to_str().unwrap()]].concat();
            let (status, log) = files.curl(&upload, "").await;
            assert_eq!(status, Some(0), "{log}");
            let port = passive_port(&log);
            assert!(port.is_some_and(|port| ports.contains(&port)), "{port:?} of {given}: {log}");
        }
    });
}

/// The port in the reply to EPSV or PASV that curl printed.
fn passive_port(log: &str) -> Option<u16> {
    let extended =
        log.split_once("(|||").and_then(|(_, rest)| rest.split('|').next()?.parse().ok());
    extended.or_else(|| {
        let (_, reply) = log.split_once("< 227 ")?;
        let (numbers, _) = reply.split_once('(')?.1.split_once(')')?;
        let mut bytes = numbers.rsplit(',').map(|byte| byte.trim().parse::<u16>());
        let low = bytes.next()?.ok()?;
        Some(bytes.next()?.ok()? * 256 + low)
    })
}

/// Guards: a redirected port 990 sends data to another printer.
#[test]
fn two_printers_behind_one_address_keep_their_files_apart() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let one = Files::new(Model::P1S, Family::Esp32).await;
        let two = Files::new(Model::A1Mini, Family::Esp32).await;
        assert_eq!(one.proxy.address.ip(), two.proxy.address.ip());
        let given = [one.file("one.3mf", 200_000), two.file("two.3mf", 100_000)];
        let [first, second] = given.each_ref().map(|file| ["-T", file.to_str().unwrap()]);
        let ended = tokio::join!(one.curl(&first, ""), two.curl(&second, ""));
        for (status, log) in [ended.0, ended.1] {
            assert_eq!(status, Some(0), "{log}");
        }
        let sizes = |files: &Files| {
            ["/one.3mf", "/two.3mf"].map(|path| files.server.file(path).map(|stored| stored.len))
        };
        assert_eq!(sizes(&one), [Some(200_000), None]);
        assert_eq!(sizes(&two), [None, Some(100_000)]);
    });
}

/// A printer's file server, and the program before it.
struct Files {
    server: FileServer,
    proxy: Proxy,
    _serving: JoinHandle<()>,
}

impl Files {
    async fn new(model: Model, family: Family) -> Self {
        Self::with_ports(model, family, "0").await
    }

    async fn with_ports(model: Model, family: Family, data_ports: &str) -> Self {
        let server = FileServer::new(family).code(CODE);
        let (at, serving) = server.listen_tls(SocketAddr::from((HOME, 0)), model).await.unwrap();
        let serving = spawn_local(serving);
        let dir: Rc<StateDir> = StateDir::new();
        let mut command =
            command(["--services", "ftp", "--port", "ftp=0,tunnel=0", "--ftp-mode", "proxy"]);
        command.args(["-p", "127.0.0.1", "-a", CODE, "-s", model.serial(), "--bind", "127.0.0.1"]);
        command.args(["--printer-ca", PRINTER_CA, "--ftp-data-ports", data_ports]);
        command.arg("--state-dir").arg(dir.path());
        command.arg("--printer-port").arg(format!("ftp={}", at.port()));
        let proxy = Proxy::start_serving("ftp", command, dir).await;
        Self { server, proxy, _serving: serving }
    }

    /// A file of so many bytes that do not repeat soon.
    fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.proxy.dir.file(name);
        let bytes: Vec<u8> = (0..len).map(|at| (at * at / 251 % 256) as u8).collect();
        fs::write(&path, bytes).unwrap();
        path
    }

    async fn curl(&self, more: &[&str], path: &str) -> (Option<i32>, String) {
        self.curl_as(CODE, more, path).await
    }

    /// How curl ended, and what it printed.
    async fn curl_as(&self, code: &str, more: &[&str], path: &str) -> (Option<i32>, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "--cacert"]).arg(self.proxy.dir.file("ca.pem"));
        curl.args(["-K", "-"]).args(more);
        curl.arg(format!("ftps://{}/{path}", self.proxy.address));
        let mut curl = Program::start(&mut curl);
        curl.tell(&format!("user = \"bblp:{code}\""));
        let (status, said) = curl.ended().await;
        (status, String::from_utf8_lossy(&said.out).into_owned() + &said.err)
    }
}
