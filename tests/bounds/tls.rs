//! What rustls holds for one connection, in every state that a peer can bring it to.
//!
//! Real connections of ours over a wire that allocates nothing, against peers that do as they like.

use core::cell::RefCell;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use pandaproxy::board::BOARD;
use pandaproxy::memory::budget;
use pandaproxy::state_dir::Pins;
use pandaproxy::state_dir::pins::fingerprint;
use pandaproxy::tls::{self, Policy, Trust};
use ring::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ServerConfig,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::anybody::Anybody;
use crate::lan;
use crate::share::{Share, ran_apart};
use printer::{CA, DEVICE_CA, Model};

/// Bytes in the largest record, without its header.
const RECORD: usize = 16 * 1024;
/// Content types (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Bytes that a wire holds in each direction: less than a flight of a handshake.
const WIRE: usize = 1024;
/// More than one connection accepts before it is sent.
static SPEECH: [u8; 2 * RECORD] = [b'x'; 2 * RECORD];

/// What was seen of one end.
#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, usize, usize)>,
}

impl Table {
    fn note(&mut self, state: &'static str, end: &End) {
        self.rows.push((state, end.share.now(), end.share.peak()));
        end.share.forget_peak();
    }

    fn print(&self, title: &str) {
        println!("\n| {title} | held, bytes | at most meanwhile |\n|---|---:|---:|");
        for (state, now, peak) in &self.rows {
            println!("| {state} | {now} | {peak} |");
        }
    }

    fn assert_within_budget(&self) {
        for (state, now, peak) in &self.rows {
            assert!(*now <= budget::TLS, "{state}: {now} bytes are held");
            let flash = budget::TLS + budget::TLS_FLASH;
            assert!(*peak <= flash, "{state}: {peak} bytes are held for a moment");
        }
    }
}

#[test]
fn no_client_can_make_tls_hold_more_than_its_line() {
    if ran_apart() {
        return;
    }
    let mut table = Table::default();
    lan::run(async {
        let ecdsa = shows(&[&ecdsa()], &[&TLS13, &TLS12]);
        let rsa = shows(&[&rsa()], &[&TLS13, &TLS12]);

        let client = Server::greet(&mut table, "handshake, TLS 1.3, P-256", &ecdsa, &TLS13).await;
        client.be_slow(&mut table).await;
        let client = Server::greet(&mut table, "handshake, TLS 1.2, P-256", &ecdsa, &TLS12).await;
        client.be_slow(&mut table).await;
        let client = Server::greet(&mut table, "handshake, TLS 1.3, RSA", &rsa, &TLS13).await;
        client.be_slow(&mut table).await;
        let client = Server::greet(&mut table, "handshake, TLS 1.2, RSA", &rsa, &TLS12).await;
        client.be_slow(&mut table).await;

        // Before the login.
        let long = [&[1, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
        for (state, bytes, piece) in [
            ("a ClientHello said to have 64 KiB, in large records", fragments(&long, RECORD), 999),
            ("the same in records of one byte", fragments(&long, 1), 999),
            ("the same, one byte at a time", fragments(&long, 4096), 1),
            ("a record of 4096 empty messages", fragments(&[0; RECORD], RECORD), RECORD),
            ("the same at the end of a message of 48 KiB", fragments(&crowned(), RECORD), RECORD),
            ("messages without end, three bytes a record", fragments(&[1; 9999], 3), 4096),
            ("garbage", SPEECH.to_vec(), 999),
        ] {
            let (end, mut wire) = End::serve(&ecdsa);
            for piece in bytes.chunks(piece) {
                if wire.write_all(piece).await.is_err() {
                    break;
                }
            }
            settle().await;
            table.note(state, &end);
        }

        // By a client that was accepted.
        let client = Server::greet(&mut table, "handshake", &ecdsa, &TLS13).await;
        client.whisper(&mut table).await;
        let client = Server::greet(&mut table, "handshake", &ecdsa, &TLS13).await;
        let long = [&[24, 0, 0xff, 0xff][..], &[0; 0xf000]].concat();
        client.seal(&mut table, "a handshake message of 64 KiB after the handshake", &long).await;
        let client = Server::greet(&mut table, "handshake", &ecdsa, &TLS13).await;
        client.seal(&mut table, "a record of empty messages after it", &[0; RECORD]).await;
        let client = Server::greet(&mut table, "handshake", &ecdsa, &TLS13).await;
        client.seal(&mut table, "the same at the end of a message of 48 KiB", &crowned()).await;
    });
    table.print("towards clients");
    table.assert_within_budget();
}

#[test]
fn no_printer_can_make_tls_hold_more_than_its_line() {
    if ran_apart() {
        return;
    }
    let mut table = Table::default();
    lan::run(async {
        let none = std::env::temp_dir().join("pandaproxy-has-no-pins");
        let trust = |serial: &str| {
            Trust::new(serial, Policy::Verify, Some(CA), Pins::in_dir(&none), SystemTime::now)
                .unwrap()
        };
        for (model, first, again) in [
            (Model::P1S, "handshake, RSA-2048", "handshake, P1S again"),
            (Model::H2D, "handshake, RSA-4096, with an intermediate", "handshake, session resumed"),
        ] {
            // A pin that is there is not written by a thread, whose own memory would be counted as the connection's.
            let shown = fingerprint(&printers(model).cert[0]);
            Pins::in_dir(&none).replace(model.serial(), shown).unwrap();
            let trust = trust(model.serial());
            let config = shows(&[&printers(model)], &[&TLS12]);
            for state in [first, again] {
                let (end, wire) = End::dial(&trust);
                let (wire, mut printer) =
                    TlsAcceptor::from(Arc::clone(&config)).accept(wire).await.unwrap().into_inner();
                settle().await;
                table.note(state, &end);
                let mut bytes = Vec::new();
                io::Write::write_all(&mut printer.writer(), &SPEECH[..RECORD]).unwrap();
                printer.write_tls(&mut bytes).unwrap();
                be_slow(&mut table, end, wire, &bytes).await;
            }
        }
        let long = [&[2, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
        for (state, bytes) in [
            ("a ServerHello said to have 64 KiB", fragments(&long, RECORD)),
            ("a record of 4096 empty messages", fragments(&[0; RECORD], RECORD)),
            ("the same at the end of a message of 48 KiB", fragments(&crowned(), RECORD)),
        ] {
            let (end, mut wire) = End::dial(&trust(Model::P1S.serial()));
            let _gone = wire.write_all(&bytes).await;
            settle().await;
            table.note(state, &end);
        }
    });
    table.print("towards the printer");
    table.assert_within_budget();
}

#[test]
fn a_session_that_is_kept_takes_no_more_than_its_line() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        for version in [&TLS13, &TLS12] {
            let config = shows(&[&ecdsa()], &[version]);
            let mut kept = 0;
            for number in 0..=8 {
                let mut table = Table::default();
                let client = Server::greet(&mut table, "", &config, version).await;
                // Ours must not be the last reference to the wire, or its memory would count as freed.
                let _ways = (Rc::clone(&client.wire.incoming), Rc::clone(&client.wire.outgoing));
                drop(client.wire);
                let share = client.end.share.clone();
                client.end.task.await.unwrap();
                // The first one also pays for what all have in common.
                if number > 0 {
                    kept = kept.max(share.now());
                }
            }
            println!("a session kept: {kept} bytes");
            assert!(kept > 0);
            assert!(kept <= budget::RESUMPTION);
        }
    });
}

#[test]
fn certificates_and_configurations_stay_within_their_line() {
    if ran_apart() {
        return;
    }
    let share = Share::default();
    let none = std::env::temp_dir().join("pandaproxy-has-no-pins");
    let _kept = share.during(|| {
        // Both certificates that clients are shown, and both orders of suites, as the identity has them.
        let towards_clients = [ecdsa(), rsa()].map(|key| shows(&[&key], &[&TLS13, &TLS12]));
        let trust = Trust::new(
            "01P00A3C1200417",
            Policy::Verify,
            Some(CA),
            Pins::in_dir(&none),
            SystemTime::now,
        );
        (towards_clients, trust.unwrap())
    });
    println!("credentials: {} bytes, {} while they are made", share.now(), share.peak());
    assert!(share.peak() <= budget::CREDENTIALS + budget::SESSIONS * budget::RESUMPTION);
}

/// Runs all tasks until none is ready; the clock does not advance.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Half a record arrives; then 16 KiB are sent that are not read.
async fn be_slow(table: &mut Table, end: End, mut wire: Wire, record: &[u8]) {
    table.note("idle", &end);
    wire.write_all(&record[..record.len() / 2]).await.unwrap();
    settle().await;
    table.note("half a record of 16 KiB has come", &end);
    wire.write_all(&record[record.len() / 2..record.len() - 1]).await.unwrap();
    settle().await;
    table.note("all of it but a byte", &end);
    end.speak.notify_one();
    settle().await;
    table.note("and as much as may waits to be sent", &end);
}

/// Our end of a connection.
struct End {
    share: Share,
    /// Has the session write more than is accepted at once.
    speak: Rc<Notify>,
    task: JoinHandle<()>,
}

impl End {
    /// Ours is the server.
    fn serve(config: &Arc<ServerConfig>) -> (Self, Wire) {
        let (near, far) = Wire::pair();
        let config = Arc::clone(config);
        let speak = Rc::new(Notify::new());
        let hears = Rc::clone(&speak);
        let share = Share::default();
        let task = spawn_local(share.of(async move {
            if let Ok(stream) = tls::accept(&config, far).await {
                converse(stream, &hears).await;
            }
        }));
        (Self { share, speak, task }, near)
    }

    /// Ours is the client.
    fn dial(trust: &Trust) -> (Self, Wire) {
        let (near, far) = Wire::pair();
        let trust = trust.clone();
        let speak = Rc::new(Notify::new());
        let hears = Rc::clone(&speak);
        let share = Share::default();
        let task = spawn_local(share.of(async move {
            if let Ok(stream) = tls::connect(&trust, far).await {
                converse(stream, &hears).await;
            }
        }));
        (Self { share, speak, task }, near)
    }
}

/// Reads as a session does; on request writes instead, without reading.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, speak: &Notify) {
    let mut room = [0; 1024];
    loop {
        tokio::select! {
            biased;
            () = speak.notified() => {
                let _gone = stream.write_all(&SPEECH).await;
            }
            read = stream.read(&mut room) => if matches!(read, Ok(0) | Err(_)) {
                return;
            },
        }
    }
}

/// A server of ours, seen from a client that has shaken hands with it.
struct Server {
    end: End,
    wire: Wire,
    client: ClientConnection,
}

impl Server {
    async fn greet(
        table: &mut Table,
        state: &'static str,
        config: &Arc<ServerConfig>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let (end, wire) = End::serve(config);
        let name = ServerName::try_from("printer").unwrap();
        let connector = TlsConnector::from(believes_anything(version));
        let (wire, client) = connector.connect(name, wire).await.unwrap().into_inner();
        settle().await;
        table.note(state, &end);
        Self { end, wire, client }
    }

    async fn be_slow(mut self, table: &mut Table) {
        let mut record = Vec::new();
        io::Write::write_all(&mut self.client.writer(), &SPEECH[..RECORD]).unwrap();
        self.client.write_tls(&mut record).unwrap();
        be_slow(table, self.end, self.wire, &record).await;
    }

    /// 10 MB, a byte a record.
    async fn whisper(mut self, table: &mut Table) {
        let mut bytes = Vec::new();
        let mut sent = 0;
        while sent < 10_000_000 {
            bytes.clear();
            for _ in 0..1000 {
                io::Write::write_all(&mut self.client.writer(), b"x").unwrap();
                self.client.write_tls(&mut bytes).unwrap();
            }
            self.wire.write_all(&bytes).await.unwrap();
            sent += bytes.len();
        }
        settle().await;
        table.note("10 MB in records of one byte", &self.end);
    }

    /// Sends application data that no client sends, with its own keys; then nothing of ours is read.
    async fn seal(mut self, table: &mut Table, state: &'static str, message: &[u8]) {
        let secrets = self.client.dangerous_extract_secrets().unwrap();
        let (mut number, secrets) = secrets.tx;
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { .. } | _ => {
                panic!("a board takes one of these first")
            }
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        for fragment in message.chunks(RECORD) {
            let mut nonce = [0; 12];
            nonce.copy_from_slice(iv.as_ref());
            for (byte, more) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
                *byte ^= more;
            }
            number += 1;
            let mut body = [fragment, &[HANDSHAKE]].concat();
            let len = u16::try_from(body.len() + 16).unwrap().to_be_bytes();
            let head = [APPLICATION_DATA, 3, 3, len[0], len[1]];
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(nonce, Aad::from(head), &mut body).unwrap();
            if self.wire.write_all(&[&head[..], &body].concat()).await.is_err() {
                break;
            }
        }
        settle().await;
        table.note(state, &self.end);
        self.end.speak.notify_one();
        settle().await;
        table.note("and as much as may waits to be sent", &self.end);
    }
}

/// A message that ends with the first byte of its fourth record; the rest of that are empty messages.
fn crowned() -> Vec<u8> {
    const BODY: usize = 3 * RECORD - 3;
    let mut bytes = vec![0; 4 * RECORD - 64];
    bytes[1..4].copy_from_slice(&u32::try_from(BODY).unwrap().to_be_bytes()[1..]);
    bytes
}

/// Handshake bytes, in plaintext records of so many.
fn fragments(message: &[u8], each: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in message.chunks(each) {
        bytes.extend([HANDSHAKE, 3, 1]);
        bytes.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        bytes.extend(fragment);
    }
    bytes
}

/// As `tls::identity` configures it.
fn shows(
    keys: &[&Arc<CertifiedKey>],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(tls::provider(BOARD.suites))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::clone(keys[0]))));
    config.session_storage = ServerSessionMemoryCache::new(budget::SESSIONS);
    config.send_tls13_tickets = 1;
    config.ignore_client_order = true;
    Arc::new(config)
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A certificate with a P-256 key, and another above it.
fn ecdsa() -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(["printer".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    certified(vec![made.cert.der().clone(), made.cert.der().clone()], &key)
}

/// A certificate with an RSA-2048 key, and its authority.
fn rsa() -> Arc<CertifiedKey> {
    let [leaf, ca] = [&include_bytes!("../printer/pki/p1s.pem")[..], CA].map(certificate);
    certified(vec![leaf, ca], &key(include_bytes!("../printer/pki/p1s.key")))
}

/// What a printer shows.
fn printers(model: Model) -> Arc<CertifiedKey> {
    match model {
        Model::H2D => {
            let leaf = certificate(include_bytes!("../printer/pki/h2d.pem"));
            let above = certificate(DEVICE_CA);
            certified(vec![leaf, above], &key(include_bytes!("../printer/pki/h2d.key")))
        }
        Model::P1S | Model::A1Mini | Model::X1C => {
            let leaf = certificate(include_bytes!("../printer/pki/p1s.pem"));
            certified(vec![leaf], &key(include_bytes!("../printer/pki/p1s.key")))
        }
    }
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

fn key(pem: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem).unwrap()
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Arc<CertifiedKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

/// A client that accepts any certificate, and gives its session keys.
fn believes_anything(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(tls::provider(BOARD.suites))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// One end of a wire that holds [`WIRE`] bytes in each direction and takes no memory while in use.
struct Wire {
    incoming: Rc<RefCell<Way>>,
    outgoing: Rc<RefCell<Way>>,
}

/// One direction of a wire.
struct Way {
    bytes: VecDeque<u8>,
    cut: bool,
    /// The tasks that wait at either end: never both at once.
    waker: Option<Waker>,
}

impl Wire {
    fn pair() -> (Self, Self) {
        let way = || {
            let bytes = VecDeque::with_capacity(WIRE);
            Rc::new(RefCell::new(Way { bytes, cut: false, waker: None }))
        };
        let (up, down) = (way(), way());
        let near = Self { incoming: Rc::clone(&down), outgoing: Rc::clone(&up) };
        (near, Self { incoming: up, outgoing: down })
    }
}

impl Way {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for way in [&self.incoming, &self.outgoing] {
            let mut way = way.borrow_mut();
            way.cut = true;
            way.wake();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut way = self.incoming.borrow_mut();
        if way.bytes.is_empty() && !way.cut {
            way.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = way.bytes.as_slices().0.len().min(room.remaining());
        room.put_slice(&way.bytes.as_slices().0[..len]);
        way.bytes.drain(..len);
        way.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut way = self.outgoing.borrow_mut();
        if way.cut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(WIRE - way.bytes.len());
        if len == 0 {
            way.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        way.bytes.extend(&bytes[..len]);
        way.wake();
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.outgoing.borrow_mut();
        way.cut = true;
        way.wake();
        Poll::Ready(Ok(()))
    }
}
