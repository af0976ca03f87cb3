//! Clients that do not behave, over real sockets. Each test ends with an upload that works.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;

use pandaproxy::board::BOARD;
use pandaproxy::memory::budget::ACCEPT_QUEUE;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use skips::is_missing;

use super::Files;
use crate::clients::programs::PATIENCE;
use crate::clients::proxy::{self, CODE, HOME};
use printer::Model;
use printer::ftp::Family;

/// Another machine, and more of them.
const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const fn machine(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// A control connection, a line at a time.
struct Caller(BufReader<TlsStream<TcpStream>>);

impl Caller {
    /// One that has been greeted.
    async fn greeted(files: &Files, from: Ipv4Addr) -> Self {
        let mut caller = Self(BufReader::new(files.proxy.tls_from(from).await.unwrap()));
        assert!(caller.reply().await.starts_with("220 "));
        caller
    }

    /// One that has logged in, from home, and moves bytes as they are.
    async fn inside(files: &Files) -> Self {
        let mut caller = Self::greeted(files, HOME).await;
        assert!(caller.log_in().await.starts_with("230 "));
        assert!(caller.asks("TYPE I").await.starts_with("200 "));
        caller
    }

    async fn log_in(&mut self) -> String {
        assert!(self.asks("USER bblp").await.starts_with("331 "));
        self.asks(&format!("PASS {CODE}")).await
    }

    async fn says(&mut self, line: &str) {
        let line = format!("{line}\r\n");
        self.0.write_all(line.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next line, without its end; empty once it is closed.
    async fn reply(&mut self) -> String {
        let mut line = Vec::new();
        let reading = async {
            while let Ok(byte) = self.0.read_u8().await {
                match byte {
                    b'\n' => break,
                    b'\r' => {}
                    byte if line.len() < 1024 => line.push(byte),
                    _ => panic!("a line without end"),
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("an answer within its time");
        String::from_utf8(line).unwrap()
    }

    async fn asks(&mut self, line: &str) -> String {
        self.says(line).await;
        self.reply().await
    }

    /// A data port.
    async fn port(&mut self) -> u16 {
        let said = self.asks("EPSV").await;
        let port = said.split("(|||").nth(1).and_then(|rest| rest.strip_suffix("|)"));
        port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    }

    /// A data connection to a port of its own.
    async fn data(&mut self) -> TcpStream {
        TcpStream::connect((HOME, self.port().await)).await.unwrap()
    }
}

/// Whether this end is closed by the other without a byte.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

impl Files {
    async fn p1s() -> Self {
        Self::new(Model::P1S, Family::Esp32).await
    }

    /// The next client can upload a file, and the printer has no other session.
    async fn next_upload_works(&self) {
        let mut caller = Caller::inside(self).await;
        self.uploads(&mut caller, b"what comes next").await;
        let idle = self.server.until(PATIENCE, |seen| seen.transfers == 0).await;
        assert!(idle, "{:?}", self.server.seen());
        assert_eq!(self.server.look(|seen| (seen.most_open, seen.most_transfers)), (1, 1));
    }

    /// Uploads a file without TLS on the data.
    async fn uploads(&self, caller: &mut Caller, bytes: &[u8]) {
        let mut data = caller.data().await;
        let said = caller.asks("STOR next.3mf").await;
        assert!(said.starts_with("150 "), "{said}\n{}", self.proxy.program.log());
        data.write_all(bytes).await.unwrap();
        data.shutdown().await.unwrap();
        let said = caller.reply().await;
        assert!(said.starts_with("226 "), "{said}\n{}", self.proxy.program.log());
        let stored = self.server.file("/next.3mf").expect("it has arrived");
        assert_eq!(stored.content.as_deref(), Some(bytes));
    }
}

#[test]
fn plain_ftp_on_the_tls_port_is_closed_and_logged() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut plain = files.proxy.tcp_from(AWAY).await.unwrap();
        plain.write_all(b"USER bblp\r\nPASS 12345678\r\n").await.unwrap();
        let mut said = Vec::new();
        // Bytes that are not FTP; then the connection is closed.
        let _reset = timeout(PATIENCE, plain.read_to_end(&mut said)).await.expect("it is closed");
        assert!(!said.starts_with(b"220") && !said.starts_with(b"331"), "{said:?}");
        let line = files.proxy.program.line("127.0.0.2").await;
        assert!(
            line.contains("ftp ") && line.contains("client rejected: not a TLS connection"),
            "{line}"
        );
        files.next_upload_works().await;
    });
}

#[test]
fn malformed_lines_are_answered_or_closed_and_logged() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut bad = Caller::inside(&files).await;
        assert!(bad.asks("STOR a\0b").await.starts_with("501 "));
        assert!(bad.asks("STOR a\rDELE b").await.starts_with("501 "));
        assert!(bad.asks("\u{16}\u{3}").await.starts_with("500 "));
        files.proxy.program.line("malformed command: line with a NUL").await;
        // The connection may be closed before all bytes are written, and the reply lost.
        let _closed = bad.0.write_all(&vec![b'x'; 65_536]).await;
        while !bad.reply().await.is_empty() {}
        files.proxy.program.line("line longer than 1024 bytes").await;
        files.next_upload_works().await;
    });
}

#[test]
fn another_address_cannot_use_a_clients_data_port() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut caller = Caller::inside(&files).await;
        let port = caller.port().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((AWAY, 0).into()).unwrap();
        let mut stranger = socket.connect((HOME, port).into()).await.unwrap();
        stranger.write_all(b"a print of mine").await.unwrap();
        assert!(is_closed(&mut stranger).await);
        let words = "data connection from 127.0.0.2 rejected: another address";
        files.proxy.program.line(words).await;

        let mut data = TcpStream::connect((HOME, port)).await.unwrap();
        assert!(caller.asks("STOR plate.3mf").await.starts_with("150 "));
        data.write_all(b"a print of its own").await.unwrap();
        data.shutdown().await.unwrap();
        assert!(caller.reply().await.starts_with("226 "));
        let stored = files.server.file("/plate.3mf").unwrap();
        assert_eq!(stored.content.as_deref(), Some(&b"a print of its own"[..]));
        assert_eq!(files.proxy.program.lines_with(words), 1);
        files.next_upload_works().await;
    });
}

/// Guards: bambuddy#58: two data connections for one PASV.
#[test]
fn one_data_port_takes_one_data_connection() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut caller = Caller::inside(&files).await;
        let port = caller.port().await;
        let mut first = TcpStream::connect((HOME, port)).await.unwrap();
        let second = TcpStream::connect((HOME, port)).await;
        assert!(caller.asks("STOR plate.3mf").await.starts_with("150 "));
        // The kernel may have taken it before the port was closed.
        if let Ok(mut second) = second {
            let _closed = second.write_all(b"two").await;
            assert!(is_closed(&mut second).await);
        }
        assert!(TcpStream::connect((HOME, port)).await.is_err(), "the port is closed");
        first.write_all(b"one").await.unwrap();
        first.shutdown().await.unwrap();
        assert!(caller.reply().await.starts_with("226 "));
        let stored = files.server.file("/plate.3mf").unwrap();
        assert_eq!(stored.content.as_deref(), Some(&b"one"[..]));
        assert_eq!(files.server.look(|seen| seen.data), 1);
        files.next_upload_works().await;
    });
}

#[test]
fn data_sent_before_the_command_arrive_whole() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut caller = Caller::inside(&files).await;
        let mut data = caller.data().await;
        data.write_all(b"early").await.unwrap();
        data.shutdown().await.unwrap();
        assert!(caller.asks("STOR early.3mf").await.starts_with("150 "));
        assert!(caller.reply().await.starts_with("226 "));
        let stored = files.server.file("/early.3mf").unwrap();
        assert_eq!(stored.content.as_deref(), Some(&b"early"[..]));

        // The same with its ClientHello first, which goes unanswered until there is a command.
        assert!(caller.asks("PROT P").await.starts_with("200 "));
        let data = caller.data().await;
        let (sends, stored) = tokio::join!(
            async {
                let mut data = files.proxy.tls_over(data).await.unwrap();
                data.write_all(b"private").await.unwrap();
                data.shutdown().await.unwrap();
            },
            async {
                assert!(caller.asks("STOR private.3mf").await.starts_with("150 "));
                assert!(caller.reply().await.starts_with("226 "));
                files.server.file("/private.3mf").unwrap()
            },
        );
        let () = sends;
        assert_eq!(stored.content.as_deref(), Some(&b"private"[..]));
        // And back to data without TLS, in the same session of the printer's.
        assert!(caller.asks("PROT C").await.starts_with("200 "));
        files.uploads(&mut caller, b"clear again").await;
        let said = files.server.seen().commands;
        let prot: Vec<_> = said.iter().filter(|line| line.starts_with("PROT")).collect();
        assert_eq!(prot, ["PROT C", "PROT P", "PROT C"], "{said:?}");
        files.next_upload_works().await;
    });
}

#[test]
fn an_abort_in_mid_upload_is_answered_and_frees_the_printer() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut caller = Caller::inside(&files).await;
        let mut data = caller.data().await;
        assert!(caller.asks("STOR plate.3mf").await.starts_with("150 "));
        data.write_all(&vec![7; 100_000]).await.unwrap();
        assert!(files.server.until(PATIENCE, |seen| seen.taken > 0).await);
        assert!(caller.asks("ABOR").await.starts_with("426 "));
        assert!(caller.reply().await.starts_with("226 "));
        assert!(is_closed(&mut data).await);
        assert!(caller.asks("NOOP").await.starts_with("200 "));
        files.proxy.program.line("failed: ").await;
        files.next_upload_works().await;
    });
}

#[test]
fn a_client_lost_in_mid_upload_frees_the_printer() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut caller = Caller::inside(&files).await;
        let mut data = caller.data().await;
        assert!(caller.asks("STOR plate.3mf").await.starts_with("150 "));
        data.write_all(&vec![7; 100_000]).await.unwrap();
        assert!(files.server.until(PATIENCE, |seen| seen.taken > 0).await);
        // Like a killed program: both connections end without close_notify.
        drop((data, caller));
        let line = files.proxy.program.line("upload \"plate.3mf\": failed: ").await;
        assert!(line.contains("the client disconnected"), "{line}");
        assert_eq!(files.server.look(|seen| seen.completed), 0);
        files.next_upload_works().await;
    });
}

#[test]
fn a_path_with_dots_reaches_only_the_printer() {
    proxy::run(async {
        let files = Files::p1s().await;
        // From here on the state directory holds all it ever will: a pin comes with the printer.
        files.next_upload_works().await;
        let mut caller = Caller::inside(&files).await;
        let own = files.proxy.dir.path().to_str().unwrap().to_owned();
        let list = || {
            let names = fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        let before = list();
        for path in [format!("{own}/evil"), format!("../../../../../../../..{own}/evil")] {
            let mut data = caller.data().await;
            data.write_all(b"evil").await.unwrap();
            data.shutdown().await.unwrap();
            let said = caller.asks(&format!("STOR {path}")).await;
            if said.starts_with("150 ") {
                caller.reply().await;
            }
            let asked = files.server.seen().commands;
            assert!(asked.contains(&format!("STOR {path}")), "as it is: {asked:?}");
            let said = caller.asks(&format!("DELE {own}/ca.pem")).await;
            assert!(said.starts_with("550 "), "the printer has no such file: {said}");
        }
        assert_eq!(list(), before, "nothing came, nothing went");
        files.next_upload_works().await;
    });
}

#[test]
fn a_thousand_silent_connections_cost_only_their_address() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            // The oldest are closed: no more than 50 are open at once.
            idle.clear();
            for _ in 0..50 {
                idle.push(files.proxy.tcp_from(AWAY).await.unwrap());
            }
        }
        files.next_upload_works().await;
        // All but those on the pre-auth slots and in the waiting room have been closed.
        let mut open = 0;
        for stream in &mut idle {
            let read = timeout(Duration::from_millis(1), stream.read(&mut [0])).await;
            open += usize::from(read.is_err());
        }
        assert!(open <= BOARD.pre_auth_per_address + ACCEPT_QUEUE, "{open}");
        files.proxy.program.line("accept queue are in use").await;
    });
}

#[test]
fn a_locked_out_curl_hears_421_with_the_reason() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let files = Files::p1s().await;
        for n in 0..5 {
            let mut caller = Caller::greeted(&files, HOME).await;
            assert!(caller.asks("USER bblp").await.starts_with("331 "));
            assert!(caller.asks(&format!("PASS 7Kq2xW1{n}")).await.starts_with("530 "));
        }
        let (status, log) = files.curl(&["-v", "-l"], "").await;
        assert_eq!(status, Some(28), "curl calls any 421 a timeout: {log}");
        assert!(log.contains("421 Locked out"), "{log}");
        files.proxy.program.line("client rejected: locked out after wrong access codes").await;
    });
}

#[test]
fn idle_clients_take_no_session_of_the_printers() {
    proxy::run(async {
        let files = Files::p1s().await;
        let mut there = Vec::new();
        let most = u8::try_from(BOARD.clients.ftp).unwrap();
        for number in 1..=most {
            let mut caller = Caller::greeted(&files, machine(number)).await;
            assert!(caller.log_in().await.starts_with("230 "));
            there.push(caller);
        }
        let mut late = Caller::greeted(&files, machine(most + 1)).await;
        assert!(late.log_in().await.starts_with("421 "));
        let end = timeout(PATIENCE, late.0.read(&mut [0])).await.expect("closed in time");
        assert_eq!(end.expect("closed by close_notify"), 0);
        files.proxy.program.line(&format!("client rejected: all {most} slots are in use")).await;
        assert_eq!(files.server.look(|seen| seen.ever), 0, "the printer never heard of them");
        let mut one = there.pop().unwrap();
        assert!(one.asks("QUIT").await.starts_with("221 "));
        assert_eq!(one.reply().await, "");
        files.next_upload_works().await;
    });
}
