//! The simulated file server before clients of a few lines and before curl: that it has the ways of its
//! family, in memory and virtual time, or over real TLS.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, version};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
};
use tokio::net::TcpStream;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::anybody::Anybody;
use super::tls::{missing, over_sockets};
use super::{CODE, secs, simulated};
use printer::Model;
use printer::ftp::{Family, FileServer, IDLE_TIMEOUT, OverLimit, Pattern, Quirk, sha256};

/// A control connection.
struct Session<S> {
    control: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn over(stream: S) -> Self {
        Self { control: BufReader::new(stream) }
    }

    /// In one write, so in one TLS record.
    async fn say(&mut self, text: &str) {
        self.control.write_all(text.as_bytes()).await.unwrap();
        self.control.flush().await.unwrap();
    }

    /// The next line; empty when the server has closed.
    async fn hear(&mut self) -> String {
        let mut line = String::new();
        // A connection may end without close_notify.
        let _ended = self.control.read_line(&mut line).await;
        line.trim_end().to_owned()
    }

    /// What is answered to a line: its code.
    async fn ask(&mut self, line: &str) -> String {
        self.say(&format!("{line}\r\n")).await;
        let mut last = self.hear().await;
        // A reply of many lines ends with its code and a blank.
        let code = last.get(..3).unwrap_or_default().to_owned();
        if last.get(3..4) == Some("-") {
            while !last.starts_with(&format!("{code} ")) {
                last = self.hear().await;
            }
        }
        code
    }

    async fn log_in(&mut self) {
        assert!(self.hear().await.starts_with("220"));
        assert_eq!(self.ask("USER bblp").await, "331");
        assert_eq!(self.ask(&format!("PASS {CODE}")).await, "230");
        assert_eq!(self.ask("PBSZ 0").await, "200");
        assert_eq!(self.ask("PROT P").await, "200");
    }

    /// The port of a 227 or 229, and all that was answered.
    async fn passive(&mut self, verb: &str) -> (u16, String) {
        self.say(&format!("{verb}\r\n")).await;
        let line = self.hear().await;
        let numbers: Vec<u16> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        let port = match numbers[..] {
            [227, _, _, _, _, high, low] => high << 8 | low,
            [229, port] => port,
            _ => panic!("{line}"),
        };
        (port, line)
    }
}

/// Logged in, in memory.
async fn in_memory(server: &FileServer) -> Session<DuplexStream> {
    let mut session = Session::over(server.connect());
    session.log_in().await;
    session
}

/// A server that listens, and what its clients need for TLS.
struct Listening {
    server: FileServer,
    at: SocketAddr,
    tls: TlsConnector,
}

impl Listening {
    async fn new(model: Model, family: Family) -> Self {
        let server = FileServer::new(family);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (at, serving) = server.listen_tls(at, model).await.unwrap();
        spawn_local(serving);
        Self { server, at, tls: TlsConnector::from(config(true)) }
    }

    async fn session(&self) -> Session<TlsStream<TcpStream>> {
        let mut session = Session::over(self.shaken(self.at.port()).await);
        session.log_in().await;
        session
    }

    /// TLS with one of its ports.
    async fn shaken(&self, port: u16) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect((self.at.ip(), port)).await.unwrap();
        self.tls.connect(ServerName::from(self.at.ip()), socket).await.unwrap()
    }
}

/// TLS 1.2 with anybody; sessions are resumed, or never.
fn config(resumes: bool) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

// ---- sessions ------------------------------------------------------------------------------------

#[test]
fn an_esp32_starts_no_tls_for_a_second_session() {
    over_sockets(async || {
        let printer = Listening::new(Model::P1S, Family::Esp32).await;
        let first = printer.session().await;
        let mut second = Box::pin(printer.session());
        let waits = tokio::select! {
            _ = &mut second => false,
            held = printer.server.until(secs(20), |seen| seen.held == 1) => held,
        };
        assert!(waits, "it is held");
        assert_eq!(printer.server.look(|seen| (seen.open, seen.ever)), (1, 1));
        drop(first);
        let _served = second.await;
        assert_eq!(printer.server.look(|seen| (seen.most_open, seen.ever)), (1, 2));
    });
}

#[test]
fn over_the_limit_is_held_closed_or_told_421() {
    simulated(async || {
        let server = FileServer::new(Family::Vsftpd);
        let mut sessions = Vec::new();
        for _ in 0..8 {
            sessions.push(in_memory(&server).await);
        }
        let mut ninth = Session::over(server.connect());
        assert!(ninth.hear().await.starts_with("421"));
        assert_eq!(ninth.hear().await, "", "and its end");

        let server = FileServer::new(Family::Esp32).sessions(1, OverLimit::Closes);
        let _first = in_memory(&server).await;
        assert_eq!(Session::over(server.connect()).hear().await, "");
    });
}

#[test]
fn a_silent_session_ends_after_five_minutes_without_a_word() {
    simulated(async || {
        for family in [Family::Esp32, Family::Vsftpd] {
            let server = FileServer::new(family);
            let mut session = in_memory(&server).await;
            let began = Instant::now();
            assert_eq!(session.hear().await, "");
            assert_eq!(began.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
        }
    });
}

#[test]
fn a_wrong_code_is_refused_and_nothing_is_done_without_one() {
    simulated(async || {
        for family in [Family::Esp32, Family::Vsftpd] {
            let mut session = Session::over(FileServer::new(family).connect());
            session.hear().await;
            assert_eq!(session.ask("LIST").await, "530");
            assert_eq!(session.ask("USER bblp").await, "331");
            assert_eq!(session.ask("PASS 87654321").await, "530");
            assert_eq!(session.ask("USER root").await, "331");
            assert_eq!(session.ask(&format!("PASS {CODE}")).await, "530");
            assert_eq!(session.ask("PWD").await, "530");
        }
    });
}

// ---- commands ------------------------------------------------------------------------------------

#[test]
fn an_esp32_takes_half_a_line_for_a_command() {
    over_sockets(async || {
        let printer = Listening::new(Model::P1S, Family::Esp32).await;
        let mut session = Session::over(printer.shaken(printer.at.port()).await);
        session.hear().await;
        assert_eq!(session.ask("USER bblp").await, "331");
        session.say("PASS ").await;
        assert!(session.hear().await.starts_with("332"));
        assert_eq!(session.ask(CODE).await, "530", "the other half is no login");
        drop(session);

        let mut session = printer.session().await;
        session.say("PW").await;
        assert!(session.hear().await.starts_with("502"));
        session.say("D\r\n").await;
        assert!(session.hear().await.starts_with("502"));
        session.say("PWD\r\nNOOP\r\n").await;
        assert!(session.hear().await.starts_with("257"));
        assert_eq!(session.ask("SYST").await, "215", "what came behind PWD is lost");
        assert_eq!(printer.server.look(|seen| (seen.split, seen.pipelined)), (2, 1));

        let printer = Listening::new(Model::X1C, Family::Vsftpd).await;
        let mut session = printer.session().await;
        session.say("PW").await;
        session.say("D\r\nNOOP\r\n").await;
        assert!(session.hear().await.starts_with("257"));
        assert!(session.hear().await.starts_with("200"));
    });
}

#[test]
fn an_esp32_knows_neither_feat_nor_rest_and_vsftpd_does() {
    simulated(async || {
        let unknown = ["FEAT", "REST 5", "STAT", "MLSD", "APPE a", "EPSV", "OPTS UTF8 ON"];
        let mut esp32 = in_memory(&FileServer::new(Family::Esp32)).await;
        for verb in unknown {
            assert_eq!(esp32.ask(verb).await, "502", "{verb}");
        }
        assert_eq!(esp32.ask("AVBL").await, "213");
        let mut vsftpd = in_memory(&FileServer::new(Family::Vsftpd)).await;
        for (verb, code) in
            [("FEAT", "211"), ("REST 5", "350"), ("STAT", "211"), ("OPTS UTF8 ON", "200")]
        {
            assert_eq!(vsftpd.ask(verb).await, code, "{verb}");
        }
        assert_eq!(vsftpd.ask("MLSD").await, "500");
    });
}

#[test]
fn an_esp32_tells_a_useless_address_and_vsftpd_a_port_by_epsv() {
    over_sockets(async || {
        let printer = Listening::new(Model::P1S, Family::Esp32).await;
        let (port, line) = printer.session().await.passive("PASV").await;
        assert!(line.contains("(0,0,0,0,"), "{line}");
        assert_ne!(port, 0);

        let printer = Listening::new(Model::X1C, Family::Vsftpd).await;
        let mut session = printer.session().await;
        let (port, line) = session.passive("EPSV").await;
        assert!(line.contains(&format!("(|||{port}|)")), "{line}");
        let (_, line) = session.passive("PASV").await;
        assert!(line.contains("(127,0,0,1,"), "{line}");
    });
}

// ---- data ------------------------------------------------------------------------------------------

#[test]
fn an_esp32_serves_data_connections_without_resumption() {
    over_sockets(async || {
        let printer = Listening::new(Model::P1S, Family::Esp32).await;
        printer.server.put("/a.3mf", b"plate");
        let mut session = printer.session().await;
        for _ in 0..2 {
            let (port, _) = session.passive("PASV").await;
            let socket = TcpStream::connect((printer.at.ip(), port)).await.unwrap();
            assert_eq!(session.ask("RETR a.3mf").await, "150");
            let name = ServerName::from(printer.at.ip());
            let mut data = printer.tls.connect(name, socket).await.unwrap();
            assert_eq!(data.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            let mut given = Vec::new();
            // It ends without close_notify.
            let ended = data.read_to_end(&mut given).await.unwrap_err();
            assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof);
            assert_eq!(given, b"plate");
            assert!(session.hear().await.starts_with("226"));
        }
        assert_eq!(printer.server.look(|seen| (seen.resumed, seen.not_resumed)), (0, 2));
    });
}

#[test]
fn vsftpd_answers_522_without_resumption() {
    over_sockets(async || {
        let printer = Listening::new(Model::X1C, Family::Vsftpd).await;
        printer.server.put("/a.3mf", b"plate");
        let mut session = printer.session().await;
        let name = ServerName::from(printer.at.ip());
        for (resumes, answer) in [(true, "226"), (false, "522")] {
            let (port, _) = session.passive("EPSV").await;
            let socket = TcpStream::connect((printer.at.ip(), port)).await.unwrap();
            assert_eq!(session.ask("RETR a.3mf").await, "150");
            let tls = if resumes { printer.tls.clone() } else { TlsConnector::from(config(false)) };
            let mut data = tls.connect(name.clone(), socket).await.unwrap();
            let mut given = Vec::new();
            let _ended = data.read_to_end(&mut given).await;
            assert_eq!(given == b"plate", resumes);
            assert!(session.hear().await.starts_with(answer));
        }
        assert_eq!(printer.server.look(|seen| (seen.resumed, seen.not_resumed)), (1, 1));

        // Of another control connection's session it knows nothing.
        let elsewhere = TlsConnector::from(config(true));
        let socket = TcpStream::connect(printer.at).await.unwrap();
        let _other = elsewhere.connect(name.clone(), socket).await.unwrap();
        let (port, _) = session.passive("EPSV").await;
        let socket = TcpStream::connect((printer.at.ip(), port)).await.unwrap();
        assert_eq!(session.ask("RETR a.3mf").await, "150");
        let _data = elsewhere.connect(name, socket).await.unwrap();
        assert!(session.hear().await.starts_with("522"));
        assert_eq!(session.ask("PROT C").await, "200");
        let _port = session.passive("EPSV").await;
        assert_eq!(session.ask("RETR a.3mf").await, "522", "never in clear");
    });
}

#[test]
fn tls_on_a_data_connection_begins_after_150_and_not_before() {
    for (model, family, verb) in
        [(Model::P1S, Family::Esp32, "PASV"), (Model::X1C, Family::Vsftpd, "EPSV")]
    {
        over_sockets(async || {
            let printer = Listening::new(model, family).await;
            let mut session = printer.session().await;
            let (port, _) = session.passive(verb).await;
            let mut hasty = Box::pin(printer.shaken(port));
            let answered = tokio::select! {
                biased;
                _ = &mut hasty => "TLS".to_owned(),
                code = session.ask("NOOP") => code,
            };
            assert_eq!(answered, "200", "TLS waits, commands do not");
            let asked = session.ask("STOR a.3mf");
            let (code, mut data) = tokio::join!(asked, hasty);
            assert_eq!(code, "150");
            data.write_all(b"plate").await.unwrap();
            data.shutdown().await.unwrap();
            assert!(session.hear().await.starts_with("226"));
            assert_eq!(printer.server.look(|seen| seen.early), 1);
            assert_eq!(printer.server.file("/a.3mf").unwrap().hash, sha256(b"plate"));
        });
    }
}

#[test]
fn a_port_takes_one_connection_once() {
    over_sockets(async || {
        let printer = Listening::new(Model::P1S, Family::Esp32).await;
        printer.server.put("/a.3mf", b"plate");
        let mut session = printer.session().await;
        assert_eq!(session.ask("RETR a.3mf").await, "425", "PASV comes first");
        let (port, _) = session.passive("PASV").await;
        assert_eq!(session.ask("PROT C").await, "200");
        let mut data = TcpStream::connect((printer.at.ip(), port)).await.unwrap();
        assert_eq!(session.ask("RETR a.3mf").await, "150");
        let mut given = String::new();
        data.read_to_string(&mut given).await.unwrap();
        assert_eq!(given, "plate", "in clear, as it was asked");
        assert!(session.hear().await.starts_with("226"));
        assert!(TcpStream::connect((printer.at.ip(), port)).await.is_err());
    });
}

#[test]
fn an_upload_is_answered_226_as_late_as_it_was_told() {
    simulated(async || {
        let server = FileServer::new(Family::Esp32).late(secs(300));
        let mut session = in_memory(&server).await;
        let (port, _) = session.passive("PASV").await;
        let mut data = server.dial(port).unwrap();
        assert_eq!(session.ask("STOR a.3mf").await, "150");
        data.write_all(b"plate").await.unwrap();
        data.shutdown().await.unwrap();
        let mut end = Vec::new();
        data.read_to_end(&mut end).await.unwrap();
        let over = Instant::now();
        assert!(server.file("/a.3mf").is_some(), "the file is there already");
        assert!(session.hear().await.starts_with("226"));
        assert_eq!(over.elapsed(), secs(300));
    });
}

#[test]
fn a_slow_disk_takes_and_gives_at_its_pace() {
    const LEN: usize = 1_000_000;
    simulated(async || {
        let server = FileServer::new(Family::Esp32).rate(100_000);
        let mut session = in_memory(&server).await;
        let pattern = Pattern::new(7);
        let (port, _) = session.passive("PASV").await;
        let mut data = server.dial(port).unwrap();
        let began = Instant::now();
        assert_eq!(session.ask("STOR a.3mf").await, "150");
        data.write_all(&pattern.bytes(LEN)).await.unwrap();
        data.shutdown().await.unwrap();
        assert!(session.hear().await.starts_with("226"));
        assert!(began.elapsed().abs_diff(secs(10)) < Duration::from_millis(100));
        assert_eq!(server.file("/a.3mf").unwrap().hash, pattern.hash(LEN as u64));

        let (port, _) = session.passive("PASV").await;
        let mut data = server.dial(port).unwrap();
        let began = Instant::now();
        assert_eq!(session.ask("RETR a.3mf").await, "150");
        let mut given = Vec::new();
        data.read_to_end(&mut given).await.unwrap();
        assert!(began.elapsed().abs_diff(secs(10)) < Duration::from_millis(100));
        assert_eq!(sha256(&given), pattern.hash(LEN as u64));
    });
}

#[test]
fn its_vices_are_as_they_are_called() {
    for (quirk, answer, left) in [
        (Quirk::CutsData(40_000), "426", Some(40_000..100_000)),
        (Quirk::FailsThoughComplete, "426", Some(100_000..100_001)),
        (Quirk::Truncates(40_000), "426", Some(40_000..40_001)),
        (Quirk::NoSpace(40_000), "552", Some(40_000..100_000)),
        (Quirk::BadName, "553", None),
        (Quirk::Locked, "550", None),
        (Quirk::RefusesData, "425", None),
        (Quirk::CutsControl(40_000), "", Some(40_000..100_000)),
    ] {
        simulated(async || {
            let server = FileServer::new(Family::Esp32);
            server.turn_for(quirk, 1);
            let mut session = in_memory(&server).await;
            let (port, _) = session.passive("PASV").await;
            let mut data = server.dial(port).unwrap();
            let begun = session.ask("STOR a.3mf").await;
            let ended = if begun == "150" {
                // It may close before it has all.
                let _taken = data.write_all(&vec![0; 100_000]).await;
                let _taken = data.shutdown().await;
                session.hear().await
            } else {
                begun
            };
            assert!(
                ended.starts_with(answer) && ended.is_empty() == answer.is_empty(),
                "{quirk:?}: {ended}"
            );
            let len = server.file("/a.3mf").map(|stored| stored.len);
            match (len, &left) {
                (Some(len), Some(left)) => assert!(left.contains(&len), "{quirk:?}: {len}"),
                (len, left) => assert_eq!(len.is_some(), left.is_some(), "{quirk:?}"),
            }
        });
    }
}

#[test]
fn a_dead_printer_drops_all_connections_for_its_time() {
    simulated(async || {
        let server = FileServer::new(Family::Esp32);
        let mut session = in_memory(&server).await;
        server.die(secs(10));
        assert_eq!(session.hear().await, "");
        assert_eq!(Session::over(server.connect()).hear().await, "");
        tokio::time::sleep(secs(11)).await;
        let _served = in_memory(&server).await;
        assert_eq!(server.look(|seen| (seen.while_dead, seen.open)), (1, 1));
    });
}

// ---- another's client ------------------------------------------------------------------------------

#[test]
fn curl_without_session_reuse_works_with_an_esp32_only() {
    if missing(&["curl"]) {
        return;
    }
    over_sockets(async || {
        for (model, family) in [(Model::P1S, Family::Esp32), (Model::X1C, Family::Vsftpd)] {
            let printer = Listening::new(model, family).await;
            printer.server.put("/there.3mf", b"there");
            let got = curl(&printer, "there.3mf", "").await;
            assert_eq!((got.status.code(), &*got.stdout), (Some(0), &b"there"[..]), "{got:?}");
            let listed = curl(&printer, "", "list-only").await;
            assert!(String::from_utf8_lossy(&listed.stdout).contains("there.3mf"), "{listed:?}");
            let anew = curl(&printer, "there.3mf", "no-sessionid").await;
            assert_eq!(anew.status.success(), family == Family::Esp32, "{anew:?}");
            assert_eq!(printer.server.look(|seen| (seen.split, seen.pipelined)), (0, 0));
        }
    });
}

async fn curl(printer: &Listening, path: &str, more: &str) -> Output {
    let given = format!(
        "url = \"ftps://{}/{path}\"\nuser = \"bblp:{CODE}\"\ninsecure\nsilent\nmax-time = 60\n{more}\n",
        printer.at
    );
    let curl = spawn_blocking(move || {
        let mut curl = Command::new("curl");
        curl.args(["-K", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        curl.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        curl.wait_with_output().unwrap()
    });
    timeout(secs(90), curl).await.unwrap().unwrap()
}
