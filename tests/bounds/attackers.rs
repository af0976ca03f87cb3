//! The attacking clients of a [siege](crate::siege): each repeats one kind of misbehaviour until the siege ends.

use core::cell::Cell;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::io::Write as _;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use pandaproxy::board::BOARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clients::mqtt::{Hello, hello_bytes, packet, publish_bytes};
use skips::is_missing;

use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{CODE, HOME};
use crate::clients::rtsp::basic;
use crate::siege::{PATIENCE, Town, machine};
use printer::camera::login;
use printer::detect::framed;

/// Pause of an attacker between two attempts.
const BREATH: Duration = Duration::from_millis(50);

/// Time for which an attacker keeps a connection that the proxy does not close.
const HOLDS: Duration = Duration::from_secs(20);

const MQTT: usize = 0;
const CHAMBER: usize = 1;
const RTSP: usize = 2;
const FTP: usize = 3;
const DETECT: usize = 4;
const DETECT_TLS: usize = 5;
const HTTP: usize = 6;

/// Misbehaviour before the login: it needs no access code.
const AT_THE_DOOR: [&str; 8] = [
    "half a ClientHello",
    "half a handshake",
    "ClientHello in records of a byte",
    "64 KiB of handshake but its end",
    "handshake, and silent",
    "wrong code",
    "garbage",
    "handshake, and gone",
];

/// Index from which attackers reconnect as fast as they can; those before it keep their connections as long as
/// possible.
const FLOODS: usize = 6;

/// Misbehaviour after the login: it takes a client's slot.
const INSIDE: [&str; 5] = [
    "a record but its end",
    "a byte a second",
    "records of a byte",
    "never reads",
    "talks and never reads",
];

/// Time for which attackers keep pre-auth slots. Then those that reconnect get them, and disconnected clients can log
/// in again.
const TURN: Duration = Duration::from_secs(6);

/// How often each kind of misbehaviour was done, and how many renegotiations were refused.
#[derive(Default)]
pub(crate) struct Attacks {
    acceptors: [Cell<u64>; AT_THE_DOOR.len()],
    inside: [Cell<u64>; INSIDE.len()],
    renegotiations: Cell<u64>,
    /// Clients of each service that are logged in, and the most there were.
    within: [Cell<usize>; 4],
    most_within: [Cell<usize>; 4],
}

/// Client slots of each service.
const PLACES: [usize; 4] =
    [BOARD.clients.mqtt, BOARD.clients.chamber, BOARD.clients.rtsp, BOARD.clients.ftp];

impl Attacks {
    /// Waits until all slots but one of these services were in use at once.
    pub(crate) async fn have_taken_all(&self, services: &[usize]) {
        for service in services {
            let taken = async {
                while self.most_within[*service].get() + 1 < PLACES[*service] {
                    sleep(BREATH).await;
                }
            };
            let inside = &self.most_within[*service];
            assert!(timeout(PATIENCE, taken).await.is_ok(), "{} of {service}", inside.get());
        }
    }
}

/// A client that is logged in.
struct Within<'a>(&'a Attacks, usize);

impl<'a> Within<'a> {
    fn new(attacks: &'a Attacks, service: usize) -> Self {
        let [now, most] = [&attacks.within[service], &attacks.most_within[service]];
        now.set(now.get() + 1);
        most.set(most.get().max(now.get()));
        Self(attacks, service)
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        let now = &self.0.within[self.1];
        now.set(now.get() - 1);
    }
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl fmt::Display for Attacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in AT_THE_DOOR.iter().zip(&self.acceptors) {
            write!(f, "{what} {}, ", count.get())?;
        }
        for (what, count) in INSIDE.iter().zip(&self.inside) {
            write!(f, "{what} {}, ", count.get())?;
        }
        write!(f, "renegotiation {}", self.renegotiations.get())
    }
}

/// All attackers: logged-in ones for all slots but one, and a few of each kind before the login of each service. On the
/// plain ports of detect and of HTTP a ClientHello is garbage.
pub(crate) fn all(town: &Rc<Town>, attacks: &Rc<Attacks>, there: &mut JoinSet<()>) {
    // Detect has no login, and no attacker has one at HTTP.
    for (service, clients) in PLACES.into_iter().chain([0, 0, 0]).enumerate() {
        for way in 0..AT_THE_DOOR.len() {
            for number in 0..2 {
                let (town, attacks) = (Rc::clone(town), Rc::clone(attacks));
                let from = machine(service, way, number);
                there.spawn_local(async move {
                    if way < FLOODS {
                        sleep(TURN).await;
                    }
                    loop {
                        let turn = async {
                            loop {
                                count(&attacks.acceptors[way]);
                                before_login(&town, from, service, way).await;
                                sleep(BREATH).await;
                            }
                        };
                        let _over = timeout(TURN, turn).await;
                        sleep(TURN).await;
                    }
                });
            }
        }
        // The good one has a place, too.
        for number in 1..clients {
            let (town, attacks) = (Rc::clone(town), Rc::clone(attacks));
            let way = number % INSIDE.len();
            let from = machine(service, AT_THE_DOOR.len() + way, number);
            there.spawn_local(async move {
                loop {
                    count(&attacks.inside[way]);
                    let _gone = inside(&town, &attacks, from, service, way).await;
                    sleep(BREATH).await;
                }
            });
        }
        if service != DETECT && service != HTTP && !is_missing("openssl") {
            let (town, attacks) = (Rc::clone(town), Rc::clone(attacks));
            there.spawn_local(async move {
                loop {
                    renegotiate(&town, service).await;
                    count(&attacks.renegotiations);
                    sleep(BREATH).await;
                }
            });
        }
    }
}

async fn before_login(town: &Town, from: Ipv4Addr, service: usize, way: usize) {
    let hello = client_hello();
    match AT_THE_DOOR[way] {
        "half a ClientHello" => pending(town, from, service, &hello[..hello.len() / 2]).await,
        "half a handshake" => pending(town, from, service, &hello).await,
        "ClientHello in records of a byte" => {
            // The first five bytes are the record header: type 22, a version, and the length.
            pending(town, from, service, &fragments(&hello[5..], 1)).await;
        }
        "64 KiB of handshake but its end" => {
            let mut message = vec![0; 64 * 1024];
            message[..4].copy_from_slice(&[1, 0, 0xff, 0xff]);
            pending(town, from, service, &fragments(&message[..64 * 1024 - 8], 16 * 1024)).await;
        }
        "garbage" => pending(town, from, service, &[0x5a; 4096]).await,
        "handshake, and silent" if service == HTTP => {
            pending(town, from, service, b"GET / HTTP/1.1\r\nX: ").await;
        }
        "wrong code" if service == HTTP => {
            pending(town, from, service, &first_words(service, from, "00000000")).await;
        }
        "handshake, and gone" => drop(town.tls(from, service).await),
        "handshake, and silent" => {
            if let Some(stream) = town.tls(from, service).await {
                wait_for_the_end(stream.into_inner().0).await;
            }
        }
        _ => {
            // Five a minute and a machine would be too many.
            let stream = town.tls(from, service).await;
            if let Some(mut stream) = stream {
                let _gone = stream.write_all(&first_words(service, from, "00000000")).await;
                wait_for_the_end(stream.into_inner().0).await;
            }
            sleep(HOLDS).await;
        }
    }
}

/// Sends `bytes`, and keeps the connection until it is closed.
async fn pending(town: &Town, from: Ipv4Addr, service: usize, bytes: &[u8]) {
    let Some(mut tcp) = town.tcp(from, service).await else { return };
    let said = timeout(HOLDS, tcp.write_all(bytes)).await;
    if matches!(said, Ok(Ok(()))) {
        wait_for_the_end(tcp).await;
    }
}

async fn wait_for_the_end(mut tcp: TcpStream) {
    let mut room = [0; 1024];
    let over = async { while tcp.read(&mut room).await.is_ok_and(|len| len > 0) {} };
    let _patience = timeout(HOLDS, over).await;
}

/// Logs in, requests data, and misbehaves from then on.
async fn inside(
    town: &Town,
    attacks: &Attacks,
    from: Ipv4Addr,
    service: usize,
    way: usize,
) -> Option<()> {
    let mut stream = town.tls(from, service).await?;
    stream.write_all(&first_words(service, from, CODE)).await.ok()?;
    stream.flush().await.ok()?;
    timeout(HOLDS, stream.read_u8()).await.ok()?.ok()?;
    let _within = Within::new(attacks, service);
    match INSIDE[way] {
        "never reads" => sleep(HOLDS).await,
        "a record but its end" => {
            let (mut tcp, mut tls) = stream.into_inner();
            tls.writer().write_all(&[0; 16 * 1024]).ok()?;
            let mut record = Vec::new();
            tls.write_tls(&mut record).ok()?;
            tcp.write_all(&record[..record.len() - 1]).await.ok()?;
            sleep(HOLDS).await;
        }
        "a byte a second" => {
            let (mut tcp, _) = stream.into_inner();
            let mut room = [0];
            for _ in 0..60 {
                if tcp.read(&mut room).await.ok()? == 0 {
                    return None;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        "records of a byte" => {
            for byte in long_words(town, service) {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
            }
            wait_for_the_end(stream.into_inner().0).await;
        }
        _ => loop {
            stream.write_all(&short_words(town, service)).await.ok()?;
            sleep(Duration::from_millis(5)).await;
        },
    }
    Some(())
}

/// A login in one piece.
fn first_words(service: usize, from: Ipv4Addr, code: &str) -> Vec<u8> {
    match service {
        MQTT => {
            let (id, password) = (&*from.to_string(), Some(code.as_bytes()));
            let mut words = hello_bytes(&Hello { id, password, ..Hello::default() });
            words.extend(packet(0x82, b"\x00\x01\x00\x01#\x00"));
            words
        }
        CHAMBER => login(code).to_vec(),
        RTSP => {
            let basic = basic(code);
            let request = |number: u8, what: &str, more: &str| {
                format!("{what} RTSP/1.0\r\nCSeq: {number}\r\n{basic}{more}\r\n")
            };
            let track = "SETUP rtsps://h/streaming/live/1/track1";
            let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
            [
                request(1, "DESCRIBE rtsps://h/streaming/live/1", ""),
                request(2, track, transport),
                request(3, "PLAY rtsps://h/streaming/live/1", ""),
            ]
            .concat()
            .into_bytes()
        }
        DETECT | DETECT_TLS => framed(br#"{"login":{"command":"detect"}}"#),
        HTTP => {
            let basic = basic(code);
            format!("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n{basic}\r\n").into_bytes()
        }
        FTP => format!("USER bblp\r\nPASS {code}\r\nTYPE I\r\n").into_bytes(),
        _ => Vec::new(),
    }
}

/// The largest message a client may send.
fn long_words(town: &Town, service: usize) -> Vec<u8> {
    match service {
        MQTT => publish_bytes(&town.request_topic, &vec![b' '; BOARD.mqtt.inbox - 200], 0, 0),
        CHAMBER => vec![0; 4000],
        RTSP => {
            format!("OPTIONS * RTSP/1.0\r\nCSeq: 9\r\nX: {}\r\n\r\n", "x".repeat(2900)).into_bytes()
        }
        _ => format!("CWD {}\r\n", "x".repeat(1000)).into_bytes(),
    }
}

/// A message that requests an answer.
fn short_words(town: &Town, service: usize) -> Vec<u8> {
    match service {
        MQTT => {
            let payload = br#"{"info":{"sequence_id":"1","command":"get_version"}}"#;
            publish_bytes(&town.request_topic, payload, 0x02, 1)
        }
        CHAMBER => vec![0; 16],
        RTSP => b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n".to_vec(),
        _ => b"EPSV\r\nNOOP\r\nSYST\r\n".to_vec(),
    }
}

/// Whether HTTP answers.
pub(crate) async fn is_alive(town: &Town) -> bool {
    let Some(mut stream) = town.tcp(HOME, HTTP).await else { return false };
    let _sent = stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await;
    let mut answer = Vec::new();
    let _read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// Whether detect answers on both ports.
pub(crate) async fn is_detected(town: &Town) -> bool {
    let question = first_words(DETECT, HOME, "");
    let mut plain = [0; 2];
    let Some(mut stream) = town.tcp(HOME, DETECT).await else { return false };
    let _sent = stream.write_all(&question).await;
    let _read = timeout(PATIENCE, stream.read_exact(&mut plain)).await;
    let mut tls = [0; 2];
    let Some(mut stream) = town.tls(HOME, DETECT_TLS).await else { return false };
    let _sent = stream.write_all(&question).await;
    let _read = timeout(PATIENCE, stream.read_exact(&mut tls)).await;
    plain == [0xa5; 2] && tls == [0xa5; 2]
}

/// TLS 1.2 by OpenSSL, which renegotiates as soon as the first handshake is complete.
async fn renegotiate(town: &Town, service: usize) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect"]);
    let from = machine(service, AT_THE_DOOR.len() + INSIDE.len(), 0);
    command.arg(town.at[service].to_string()).args(["-bind", &format!("{from}:0")]);
    let mut client = Program::start(&mut command);
    let has = |said: &Said, words: &[u8]| said.out.windows(words.len()).any(|part| part == words);
    if client.until(HOLDS, |said| has(said, b"Verify return code")).await {
        // It may have been sent away.
        let _gone = client.stdin().write_all(b"R\n");
        client.until(Duration::from_secs(2), |said| said.err.contains("renegotiation")).await;
    }
}

/// A ClientHello in one record.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::from(core::net::IpAddr::V4(HOME));
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A handshake message in plaintext records of so many bytes.
fn fragments(message: &[u8], each: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in message.chunks(each) {
        bytes.extend([22, 3, 1]);
        bytes.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        bytes.extend(fragment);
    }
    bytes
}
