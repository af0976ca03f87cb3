//! Relay mode: the real program between real clients and a simulated printer's own TLS.
//!
//! A relay listens on the printer's own data ports, so the printer is at [`PRINTER`], another address
//! of loopback, where the same numbers are free.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use skips::is_missing;

use crate::clients::ports;
use crate::clients::programs::{PATIENCE, Program};
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::ftp::{Family, FileServer, OverLimit, sha256};
use printer::tunnel::{self, Tunnel};

/// The printer's address.
const PRINTER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Another machine, without a session.
const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Guards: X1C's plug-in stops at an FTPS certificate that is not the printer's.
#[test]
fn relayed_clients_use_the_printers_own_tls() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let bed = Bed::of(Model::X1C, Family::Vsftpd).await;
        bed.proxy.program.line("relay mode (clients see the printer's certificate here").await;
        for (name, len) in [("zero.3mf", 0), ("one.3mf", 1), ("plate.3mf", 3_000_000)] {
            let given = bed.file(name, len);
            let (status, log) = bed.curl(&["-T", given.to_str().unwrap()], "").await;
            assert_eq!(status, Some(0), "{name}: {log}");
            let stored = bed.server.file(&format!("/{name}")).expect("it has arrived");
            assert_eq!(stored.hash, sha256(&fs::read(&given).unwrap()), "{name}");
            let back = bed.proxy.dir.file("back");
            let (status, log) = bed.curl(&["-o", back.to_str().unwrap()], name).await;
            assert_eq!(status, Some(0), "{name}: {log}");
            assert_eq!(fs::read(&back).unwrap(), fs::read(&given).unwrap(), "{name}");
        }
        let (status, listed) = bed.curl(&["-l"], "").await;
        assert!(status == Some(0) && listed.contains("plate.3mf"), "{listed}");
        assert_eq!(bed.server.look(|seen| seen.not_resumed), 0, "vsFTPd would not have it");
        assert!(bed.server.look(|seen| seen.resumed) >= 7);

        // A client that trusts only the proxy's authority rejects the printer's certificate.
        let own = bed.proxy.dir.file("ca.pem");
        let (status, log) = bed.curl_trusting(own.to_str().unwrap(), CODE, &["-l"], "").await;
        assert_eq!(status, Some(60), "{log}");
    });
}

#[test]
fn the_printer_checks_the_code_and_the_log_never_has_it() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let bed = Bed::of(Model::X1C, Family::Vsftpd).await;
        let (status, log) = bed.curl_trusting(PRINTER_CA, "87654321", &["-l"], "").await;
        assert_eq!(status, Some(67), "curl says that the login was refused: {log}");
        assert_eq!(bed.server.look(|seen| seen.wrong_codes), 1);
        let log = bed.proxy.program.log();
        assert!(!log.contains("87654321") && !log.contains(CODE), "{log}");
    });
}

#[test]
fn three_clients_take_turns_at_one_printer_session() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let server = FileServer::new(Family::Esp32).sessions(1, OverLimit::Closes);
        let bed = Bed::before(server.rate(400_000), Model::P1S, &["--ftp-mode", "relay"]).await;
        bed.proxy.program.line("set by --ftp-mode").await;
        let names = ["a.3mf", "b.3mf", "c.3mf"];
        let given = names.map(|name| bed.file(name, 200_000));
        let [a, b, c] = given.each_ref().map(|file| file.to_str().unwrap());
        let (one, two, three) = (["-T", a], ["-T", b], ["-T", c]);
        let ended = tokio::join!(bed.curl(&one, ""), bed.curl(&two, ""), bed.curl(&three, ""));
        for (status, log) in [ended.0, ended.1, ended.2] {
            assert_eq!(status, Some(0), "{log}");
        }
        for (name, given) in names.iter().zip(&given) {
            let stored = bed.server.file(&format!("/{name}")).expect("it has arrived");
            assert_eq!(stored.hash, sha256(&fs::read(given).unwrap()), "{name}");
        }
        let seen = bed.server.seen();
        assert_eq!((seen.most_open, seen.over), (1, 0), "the printer never sees a second one");
    });
}

#[test]
fn another_address_is_refused_at_relayed_data_ports() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let server = FileServer::new(Family::Vsftpd).rate(1_000_000);
        let bed = Bed::before(server, Model::X1C, &[]).await;
        let given = bed.file("plate.3mf", 2_000_000);
        let upload = ["-T", given.to_str().unwrap()];
        let uploading = bed.curl(&upload, "");
        let visiting = async {
            assert!(bed.server.until(PATIENCE, |seen| seen.taken > 100_000).await);
            for port in bed.ports.clone() {
                let mut stream = connect(AWAY, SocketAddr::from((HOME, port))).await;
                assert!(is_closed(&mut stream).await, "port {port}");
            }
        };
        let ((status, log), ()) = tokio::join!(uploading, visiting);
        assert_eq!(status, Some(0), "{log}");
        let stored = bed.server.file("/plate.3mf").expect("it has arrived");
        assert_eq!(stored.hash, sha256(&fs::read(&given).unwrap()));
        assert_eq!(bed.server.look(|seen| (seen.data, seen.unwanted)), (1, 0));
        let line = bed.proxy.program.line("127.0.0.3 connected to data port").await;
        assert!(line.contains("without being logged in"), "{line}");
    });
}

#[test]
fn a_data_port_in_use_is_skipped_and_logged() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let ports = ports::block(&[HOME, PRINTER]);
        // The last, so that the printer names the others first.
        let taken = TcpListener::bind((HOME, *ports.end())).unwrap();
        let server = FileServer::new(Family::Vsftpd);
        let bed = Bed::with_ports(server, Model::X1C, &[], ports.clone()).await;
        let words = format!("cannot listen on data ports {}: address in use", ports.end());
        bed.proxy.program.line(&words).await;
        let given = bed.file("plate.3mf", 100_000);
        let (status, log) = bed.curl(&["-T", given.to_str().unwrap()], "").await;
        assert_eq!(status, Some(0), "{log}");
        drop(taken);
    });
}

#[test]
fn uploads_work_again_when_the_printer_is_back() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let mut bed = Bed::of(Model::X1C, Family::Vsftpd).await;
        let at = bed.at;
        bed.serving.abort();
        // Its listener is gone once its task is.
        assert!((&mut bed.serving).await.unwrap_err().is_cancelled());
        let given = bed.file("plate.3mf", 100_000);
        let upload = ["-T", given.to_str().unwrap()];
        let (status, log) = bed.curl(&upload, "").await;
        assert!(matches!(status, Some(35 | 56)), "{status:?}: {log}");
        let port = at.port();
        bed.proxy
            .program
            .line(&format!("ftp: client rejected: the printer's port {port} is closed"))
            .await;
        let (_, serving) = bed.server.listen_tls(at, Model::X1C).await.unwrap();
        bed.serving = spawn_local(serving);
        let (status, log) = bed.curl(&upload, "").await;
        assert_eq!(status, Some(0), "{log}");
    });
}

#[test]
fn a_killed_client_frees_its_session_for_the_next() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let server = FileServer::new(Family::Esp32).sessions(1, OverLimit::Waits).rate(200_000);
        let bed = Bed::before(server, Model::P1S, &["--ftp-mode=relay"]).await;
        let given = bed.file("plate.3mf", 2_000_000);
        let killed = bed.start_curl(PRINTER_CA, CODE, &["-T", given.to_str().unwrap()], "");
        assert!(bed.server.until(PATIENCE, |seen| seen.taken > 100_000).await);
        let small = bed.file("small.3mf", 50_000);
        let upload = ["-T", small.to_str().unwrap()];
        let waiting = bed.curl(&upload, "");
        let killing = async {
            killed.signal("KILL");
        };
        let ((status, log), ()) = tokio::join!(waiting, killing);
        assert_eq!(status, Some(0), "{log}");
        assert_eq!(bed.server.file("/small.3mf").expect("it has arrived").len, 50_000);
    });
}

/// Guards: port 6000 is not forwarded for X1, H2 and P2.
#[test]
fn a_file_tunnel_is_relayed_on_port_6000() {
    if is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let tunnel = Tunnel::new().code("87654321");
        let at = SocketAddr::from((PRINTER, 0));
        let (at, serving) = tunnel.listen_tls(at, Model::H2D).await.unwrap();
        let _serving = spawn_local(serving);
        let dir = StateDir::new();
        // With the camera's service as well: it does not get this printer's port 6000.
        let mut command =
            command(["--services", "ftp,camera", "--port", "ftp=0,tunnel=0,chamber=0,rtsp=0"]);
        command.args(["-p", "127.0.0.2", "-a", CODE, "-s", Model::H2D.serial()]);
        command.args(["--bind", "127.0.0.1", "--printer-ca", PRINTER_CA]);
        let ports = ports::block(&[HOME, PRINTER]);
        command.args(["--ftp-data-ports", &format!("{}-{}", ports.start(), ports.end())]);
        command.arg("--state-dir").arg(dir.path());
        command.arg("--printer-port").arg(format!("tunnel={}", at.port()));
        let proxy = Proxy::start_serving("tunnel", command, dir).await;
        assert_eq!(proxy.program.lines_with("chamber  listening on "), 0);

        // As many as a slicer opens, at once.
        let upload = bytes(300_000);
        let mut slicers = Vec::new();
        for _ in 0..4 {
            let mut openssl = Command::new("openssl");
            openssl.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", PRINTER_CA]);
            openssl.args(["-verify_hostname", Model::H2D.serial()]);
            openssl.args(["-connect", &proxy.address.to_string()]);
            let mut slicer = Program::start(&mut openssl);
            slicer.stdin().write_all(&tunnel::login("87654321")).unwrap();
            slicer.stdin().flush().unwrap();
            slicers.push(slicer);
        }
        assert!(tunnel.until(PATIENCE, |tunnel| tunnel.logins() == 4).await);
        for slicer in &mut slicers {
            // Pieces that fit the pipes between both ends.
            for (n, piece) in upload.chunks(20_000).enumerate() {
                slicer.stdin().write_all(piece).unwrap();
                slicer.stdin().flush().unwrap();
                let back = 20 + upload.len().min((n + 1) * 20_000);
                assert!(slicer.until(PATIENCE, |said| said.out.len() == back).await);
            }
            assert!(slicer.said().out[20..] == upload[..], "what came back is what was sent");
        }
        drop(slicers);
        assert!(tunnel.until(PATIENCE, |tunnel| tunnel.uploads().len() == 4).await);
        assert_eq!(tunnel.uploads(), vec![tunnel::Upload::of(&upload); 4]);
    });
}

/// Issue 15: the page has what `pandaproxy ca` prints, for machines without a shell.
#[test]
fn the_page_has_the_authorities_of_a_relayed_printer() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let (dir, serial) = (StateDir::new(), Model::X1C.serial());
        let ports = ports::block(&[HOME, PRINTER]);
        let authorities = async || {
            let mut command = command(["--services", "ftp,http", "--bind", "127.0.0.1"]);
            command.args(["--port", "ftp=0,tunnel=0,chamber=0,rtsp=0,http=0"]);
            command.args(["-p", "127.0.0.2", "-a", CODE, "-s", serial, "--printer-ca", PRINTER_CA]);
            command.args(["--ftp-data-ports", &format!("{}-{}", ports.start(), ports.end())]);
            command.arg("--state-dir").arg(dir.path());
            let proxy = Proxy::start_serving("http", command, Rc::clone(&dir)).await;
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--fail", "--max-time", "20"]);
            curl.arg(format!("http://{}/ca.pem", proxy.address));
            let (status, said) = Program::start(&mut curl).ended().await;
            assert_eq!(status, Some(0), "{}", said.err);
            String::from_utf8(said.out).unwrap()
        };
        let count = |text: &str| text.matches("-----BEGIN CERTIFICATE-----").count();
        let given = fs::read_to_string(PRINTER_CA).unwrap();
        // Not seen yet: its own, three of devices with their root, and what was given.
        let text = authorities().await;
        assert!(text.starts_with(fs::read_to_string(dir.file("ca.pem")).unwrap().trim()), "{text}");
        assert_eq!(count(&text), 1 + 4 + count(&given), "{text}");
        // Seen: what vouches for this one.
        let seen = Path::new(PRINTER_CA).with_file_name("x1c.pem");
        fs::copy(seen, dir.file(&format!("{serial}.chain"))).unwrap();
        let text = authorities().await;
        assert_eq!(count(&text), 2, "{text}");
        assert!(!text.contains(serial), "everybody may read it");
    });
}

#[test]
fn the_ftp_mode_and_its_reason_are_logged_at_start() {
    proxy::run(async {
        for (serial, more, words) in [
            (
                "01P00A000000001",
                &[][..],
                "ftp: proxy mode (clients share the printer's sessions), the default for P1S",
            ),
            (
                "00M00A000000001",
                &["--ftp-mode=proxy"],
                "ftp: proxy mode (clients share the \
              printer's sessions), set by --ftp-mode",
            ),
            ("99900A000000001", &[], "because the serial number is of an unknown model"),
            ("99900A000000001", &[], "port 6000 is the chamber camera's"),
        ] {
            let dir = StateDir::new();
            let mut command =
                command(["--services", "ftp", "--port", "ftp=0,tunnel=0,chamber=0,rtsp=0"]);
            command.args(["-p", "127.0.0.2", "-a", CODE, "-s", serial, "--bind", "127.0.0.1"]);
            command.args(["--printer-ca", PRINTER_CA]).args(more);
            command.arg("--state-dir").arg(dir.path());
            let proxy = Proxy::start_serving("ftp", command, dir).await;
            proxy.program.line(words).await;
        }
    });
}

/// A printer's file server, and the program before it.
struct Bed {
    server: FileServer,
    serial: &'static str,
    /// Where the printer's control port is.
    at: SocketAddr,
    /// Its data ports, and the program's.
    ports: RangeInclusive<u16>,
    proxy: Proxy,
    serving: JoinHandle<()>,
    /// How many times curl was started.
    curls: Cell<u32>,
}

impl Bed {
    /// A printer of this model, and the mode that follows from it.
    async fn of(model: Model, family: Family) -> Self {
        Self::before(FileServer::new(family), model, &[]).await
    }

    async fn before(server: FileServer, model: Model, more: &[&str]) -> Self {
        Self::with_ports(server, model, more, ports::block(&[HOME, PRINTER])).await
    }

    async fn with_ports(
        server: FileServer,
        model: Model,
        more: &[&str],
        ports: RangeInclusive<u16>,
    ) -> Self {
        let server = server.code(CODE).data_ports(ports.clone());
        // A port of this test's own: one test switches the printer off and on again.
        let control = SocketAddr::from((PRINTER, *ports::block(&[PRINTER]).start()));
        let (at, serving) = server.listen_tls(control, model).await.unwrap();
        let serving = spawn_local(serving);
        let dir = StateDir::new();
        let mut command =
            command(["--services", "ftp", "--port", "ftp=0,tunnel=0,chamber=0,rtsp=0"]);
        command.args(["-p", "127.0.0.2", "-a", CODE, "-s", model.serial(), "--bind", "127.0.0.1"]);
        command.args(["--ftp-data-ports", &format!("{}-{}", ports.start(), ports.end())]);
        command.arg("--state-dir").arg(dir.path()).args(more);
        command.arg("--printer-port").arg(format!("ftp={}", at.port()));
        let proxy = Proxy::start_serving("ftp", command, dir).await;
        Self { server, serial: model.serial(), at, ports, proxy, serving, curls: Cell::new(0) }
    }

    /// A file of so many bytes.
    fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.proxy.dir.file(name);
        fs::write(&path, bytes(len)).unwrap();
        path
    }

    /// curl's exit code and output. It accepts only the printer's certificate.
    async fn curl(&self, more: &[&str], path: &str) -> (Option<i32>, String) {
        self.curl_trusting(PRINTER_CA, CODE, more, path).await
    }

    async fn curl_trusting(
        &self,
        ca: &str,
        code: &str,
        more: &[&str],
        path: &str,
    ) -> (Option<i32>, String) {
        let (status, said) = self.start_curl(ca, code, more, path).ended().await;
        (status, String::from_utf8_lossy(&said.out).into_owned() + &said.err)
    }

    fn start_curl(&self, ca: &str, code: &str, more: &[&str], path: &str) -> Program {
        let (serial, port) = (self.serial, self.proxy.address.port());
        let mut curl = Command::new("curl");
        // A file for each: writing one again empties it first, and a curl that reads it at that moment logs in
        // without a name, which the printer answers with 530.
        let number = self.curls.replace(self.curls.get() + 1);
        let own = self.proxy.dir.file(&format!("curl-{number}"));
        fs::write(&own, format!("user = \"bblp:{code}\"\n")).unwrap();
        curl.args(["-sS", "--max-time", "60", "--cacert", ca, "-K"]).arg(own).args(more);
        curl.args(["--resolve", &format!("{serial}:{port}:127.0.0.1")]);
        curl.arg(format!("ftps://{serial}:{port}/{path}"));
        Program::start(&mut curl)
    }
}

/// So many bytes that do not repeat soon.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * at / 251 % 256) as u8).collect()
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether it is closed without a byte.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(Duration::from_secs(10), stream.read(&mut [0; 64])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}
