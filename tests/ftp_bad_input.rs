//! What no FTP client should do, to the real program in proxy mode: an answer or an end, a line in the
//! log, and the next upload works.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;

use rustls::ProtocolVersion;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::clients::programs::PATIENCE;
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use crate::printer::Model;
use crate::printer::ftp::{Family, FileServer, sha256};

/// Another machine on loopback.
const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Connections that never say anything.
const CROWD: usize = 1000;

#[test]
fn bad_lines_are_answered_and_one_without_end_is_closed_and_said() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        for (line, code) in [
            (&b"NOOP\0\r\n"[..], "501"),
            (b"NOOP\rQUIT\r\n", "501"),
            (b"\r\n", "500"),
            (b"\x16\x03\x01\r\n", "500"),
        ] {
            client.send(line).await;
            let said = client.answer().await;
            assert!(said.starts_with(code), "{line:?}: {said}");
        }
        client.send(&vec![b'x'; 64 * 1024]).await;
        assert!(client.answer().await.starts_with("500"));
        assert!(client.is_closed().await);
        bed.proxy.program.line("sent a line of more than 1024 bytes").await;
        bed.next_upload_works().await;
    });
}

#[test]
fn paths_go_to_the_printer_as_they_are_and_to_no_file_here() {
    proxy::run(async {
        let bed = Bed::new().await;
        let here = bed.proxy.dir.path().to_str().unwrap().to_owned();
        let stolen = format!("{here}/rsa.key");
        let mut client = bed.logged_in().await;
        let lines = [
            format!("SIZE {stolen}"),
            "SIZE ../../../../etc/passwd".to_owned(),
            "SIZE /cache/../../../etc/passwd".to_owned(),
            "SIZE C:\\config.sys".to_owned(),
            "SIZE %2e%2e/%00".to_owned(),
            "SIZE ~root/ $(id) `id` ; | \" '".to_owned(),
            format!("RNFR {stolen}"),
            format!("DELE {stolen}"),
        ];
        for line in &lines {
            let said = client.say(line).await;
            assert!(said.starts_with('5'), "{line}: {said}");
        }
        let seen = bed.server.seen();
        for line in &lines {
            assert!(seen.commands.contains(line), "{line}: {:?}", seen.commands);
        }
        assert!(fs::metadata(&stolen).is_ok(), "it is still there");
        let planted = format!("{here}/planted");
        let port = client.epsv().await;
        let _data = connect(HOME, port).await;
        let said = client.say(&format!("STOR {planted}")).await;
        assert!(said.starts_with("553"), "the printer has no such folder: {said}");
        assert!(fs::metadata(&planted).is_err(), "nothing was written here");
        bed.next_upload_works().await;
    });
}

#[test]
fn a_data_port_is_for_the_address_of_its_client_alone() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        let port = client.epsv().await;
        let mut stranger = connect(AWAY, port).await;
        assert!(is_closed(&mut stranger).await);
        bed.proxy.program.line("127.0.0.3 connected to the data port of 127.0.0.1").await;
        let data = connect(HOME, port).await;
        client.send(b"STOR own.3mf\r\n").await;
        client.finish_upload(data, b"own").await;
        assert_eq!(bed.server.file("/own.3mf").unwrap().len, 3);
        bed.next_upload_works().await;
    });
}

#[test]
fn a_second_data_connection_finds_nobody_and_the_first_goes_on() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        let port = client.epsv().await;
        let first = connect(HOME, port).await;
        client.send(b"STOR two.3mf\r\n").await;
        // Once the first is accepted, nobody listens any more.
        assert!(client.answer().await.starts_with("150"));
        let to = SocketAddr::from((HOME, port));
        let refused = TcpStream::connect(to).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        client.finish_upload_after_150(first, b"first").await;
        assert_eq!(bed.server.file("/two.3mf").unwrap().len, 5);
        bed.next_upload_works().await;
    });
}

#[test]
fn data_that_come_before_the_command_wait_for_it() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        assert!(client.say("PROT C").await.starts_with("200"));
        let port = client.epsv().await;
        let mut data = connect(HOME, port).await;
        data.write_all(b"too early").await.unwrap();
        data.shutdown().await.unwrap();
        assert!(client.say("STOR early.3mf").await.starts_with("150"));
        assert!(client.answer().await.starts_with("226"));
        let stored = bed.server.file("/early.3mf").unwrap();
        assert_eq!(stored.hash, sha256(b"too early"));
        assert_eq!(bed.server.look(|seen| seen.early), 0, "the printer was not spoken to early");
        bed.next_upload_works().await;
    });
}

#[test]
fn a_stor_behind_another_one_waits_and_finds_no_data_connection_of_its_own() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        let port = client.epsv().await;
        let data = connect(HOME, port).await;
        client.send(b"STOR one.3mf\r\nSTOR other.3mf\r\n").await;
        client.finish_upload(data, b"one").await;
        assert!(client.answer().await.starts_with("425"));
        assert_eq!(bed.server.names("/").iter().filter(|name| *name == "other.3mf").count(), 0);
        assert_eq!(bed.server.look(|seen| seen.most_uploads), 1);
        bed.next_upload_works().await;
    });
}

#[test]
fn abor_is_answered_at_each_step_and_the_session_is_free_again() {
    proxy::run(async {
        let bed = Bed::new().await;
        for step in 0..4 {
            let mut client = bed.logged_in().await;
            let mut data = None;
            if step > 0 {
                let port = client.epsv().await;
                if step > 1 {
                    data = Some(connect(HOME, port).await);
                }
            }
            if step > 2 {
                assert!(client.say("STOR aborted.3mf").await.starts_with("150"));
                let mut said = client.say("ABOR").await;
                assert!(said.starts_with("426"), "step {step}: {said}");
                said = client.answer().await;
                assert!(said.starts_with("226"), "step {step}: {said}");
            } else {
                let said = client.say("ABOR").await;
                assert!(said.starts_with("226"), "step {step}: {said}");
            }
            bed.next_upload_works().await;
            assert!(client.say("NOOP").await.starts_with("200"), "step {step}");
            drop(data);
        }
    });
}

#[test]
fn protection_may_change_in_mid_session_even_behind_the_data_connection() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut client = bed.logged_in().await;
        client.stor("private.3mf", b"private").await;
        let port = client.epsv().await;
        let mut data = connect(HOME, port).await;
        assert!(client.say("PROT C").await.starts_with("200"));
        assert!(client.say("STOR clear.3mf").await.starts_with("150"));
        data.write_all(b"clear").await.unwrap();
        data.shutdown().await.unwrap();
        assert!(client.answer().await.starts_with("226"));
        assert!(client.say("PROT S").await.starts_with("536"));
        assert!(client.say("PROT P").await.starts_with("200"));
        client.stor("again.3mf", b"again").await;
        for (path, bytes) in
            [("/private.3mf", &b"private"[..]), ("/clear.3mf", b"clear"), ("/again.3mf", b"again")]
        {
            assert_eq!(bed.server.file(path).unwrap().hash, sha256(bytes), "{path}");
        }
        bed.next_upload_works().await;
    });
}

#[test]
fn plain_ftp_on_the_tls_port_is_closed_and_said() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut plain = bed.proxy.tcp_from(HOME).await.unwrap();
        plain.write_all(b"USER bblp\r\n").await.unwrap();
        assert!(is_closed(&mut plain).await);
        bed.proxy.program.line("ftp 1 (127.0.0.1): ").await;
        bed.next_upload_works().await;
    });
}

#[test]
fn a_thousand_who_never_log_in_keep_nobody_else_out() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut held = Vec::new();
        for _ in 0..CROWD {
            held.push(connect_to(AWAY, bed.proxy.address).await);
            // The first have what places there are, and keep them; the others are closed at once.
            if held.len() > 100 {
                held.drain(50..);
            }
        }
        bed.proxy.program.line("connections wait already").await;
        bed.next_upload_works().await;
        assert_eq!(bed.server.look(|seen| seen.most_open), 1);
        drop(held);
    });
}

/// A printer with one session, and the program before it.
struct Bed {
    server: FileServer,
    proxy: Proxy,
    _serving: JoinHandle<()>,
}

impl Bed {
    async fn new() -> Self {
        let server = FileServer::new(Family::Esp32).code(CODE);
        let at = SocketAddr::from((HOME, 0));
        let (at, serving) = server.listen_tls(at, Model::P1S).await.unwrap();
        let dir = StateDir::new();
        let mut command = command(["--services", "ftp", "--port", "ftp=0", "-p", "127.0.0.1"]);
        command.args(["-a", CODE, "-s", Model::P1S.serial(), "--bind", "127.0.0.1"]);
        command.args(["--printer-ca", PRINTER_CA, "--ftp-data-ports", "0", "--state-dir"]);
        command.arg(dir.path()).arg("--printer-port").arg(format!("ftp={}", at.port()));
        let proxy = Proxy::start_serving("ftp", command, dir).await;
        Self { server, proxy, _serving: spawn_local(serving) }
    }

    /// A client that moves bytes as they are, privately.
    async fn logged_in(&self) -> Control<'_> {
        let stream = self.proxy.tls_from(HOME).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        let mut control = Control { bed: self, stream: BufReader::new(stream) };
        assert!(control.answer().await.starts_with("220"));
        for (line, code) in [
            ("USER bblp", "331"),
            (&*format!("PASS {CODE}"), "230"),
            ("PBSZ 0", "200"),
            ("PROT P", "200"),
            ("TYPE I", "200"),
        ] {
            let said = control.say(line).await;
            assert!(said.starts_with(code), "{said}");
        }
        control
    }

    /// Somebody else uploads a file, and it arrives.
    async fn next_upload_works(&self) {
        let mut client = self.logged_in().await;
        client.stor("next.3mf", b"the next upload").await;
        let stored = self.server.file("/next.3mf").expect("it has arrived");
        assert_eq!(stored.hash, sha256(b"the next upload"));
        assert!(client.say("DELE next.3mf").await.starts_with("250"));
        assert!(client.say("QUIT").await.starts_with("221"));
    }
}

/// A control connection.
struct Control<'b> {
    bed: &'b Bed,
    stream: BufReader<TlsStream<TcpStream>>,
}

impl Control<'_> {
    async fn send(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.get_mut().write_all(bytes).await?;
            self.stream.get_mut().flush().await
        };
        timeout(PATIENCE, sending).await.expect("it is taken").unwrap();
    }

    /// The next line.
    async fn answer(&mut self) -> String {
        let mut line = String::new();
        let mut bounded = (&mut self.stream).take(4096);
        timeout(PATIENCE, bounded.read_line(&mut line)).await.expect("an answer").unwrap();
        line
    }

    async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.answer().await
    }

    async fn is_closed(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read(&mut [0; 64])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }

    async fn epsv(&mut self) -> u16 {
        let said = self.say("EPSV").await;
        let port = said.split("|||").nth(1).and_then(|rest| rest.split('|').next());
        port.and_then(|port| port.parse().ok()).unwrap_or_else(|| unreachable!("{said}"))
    }

    async fn stor(&mut self, name: &str, bytes: &[u8]) {
        let port = self.epsv().await;
        let data = connect(HOME, port).await;
        self.send(format!("STOR {name}\r\n").as_bytes()).await;
        self.finish_upload(data, bytes).await;
    }

    async fn finish_upload(&mut self, data: TcpStream, bytes: &[u8]) {
        let said = self.answer().await;
        assert!(said.starts_with("150"), "{said}");
        self.finish_upload_after_150(data, bytes).await;
    }

    async fn finish_upload_after_150(&mut self, data: TcpStream, bytes: &[u8]) {
        let mut data = self.bed.proxy.tls_over(data).await.unwrap();
        data.write_all(bytes).await.unwrap();
        data.shutdown().await.unwrap();
        let said = self.answer().await;
        assert!(said.starts_with("226"), "{said}");
    }
}

async fn connect(from: Ipv4Addr, port: u16) -> TcpStream {
    connect_to(from, SocketAddr::from((HOME, port))).await
}

async fn connect_to(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether it is closed, whatever is said before.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut some = [0; 256];
    let closed = async { while matches!(stream.read(&mut some).await, Ok(1..)) {} };
    timeout(Duration::from_secs(20), closed).await.is_ok()
}
