//! The file services with every place taken by the worst clients there are, over real sockets: the
//! proxy with TLS on all sides, the relay and the tunnel with both directions of everything full.

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use pandaproxy::board::BOARD;
use pandaproxy::config::{Config, PrinterAddr};
use pandaproxy::ftp::Service;
use pandaproxy::ftp::printer_session::{PrinterSession, SlotState};
use pandaproxy::memory::budget::{
    self, ALTERNATIVES, DATA_PORTS, FILERS, FTP_INBOX, LINES, Line, RELAY_COMMANDS, RELAY_FILES,
    RELAY_SESSIONS, TRANSFERS, TUNNELS,
};
use pandaproxy::memory::heap;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::accept::Acceptor;
use pandaproxy::runtime::data_ports::DataPorts;
use pandaproxy::runtime::files::relay::{Counts, Relay};
use pandaproxy::runtime::files::relay_ports::Transfers;
use pandaproxy::runtime::launch::{self, Context, Credentials, services};
use pandaproxy::runtime::net::{Net, Sockets};
use pandaproxy::state_dir::Pins;
use pandaproxy::tls::{
    ConnectError, HandshakeError, Identity, Policy, ServerConfig, Subject, Trust,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, JoinSet, spawn_local, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clients::proxy::{HOME, StateDir};
use crate::lan::weather::aside;
use crate::lan::{CODE, root};
use crate::share::{Share, alone};
use printer::ftp::{Family, FileServer};
use printer::{CA, Model};

/// How long anything may take here. Only what hangs takes that long.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long nothing has moved when nothing will any more.
const STILL: Duration = Duration::from_millis(200);

/// More than anything here holds.
static FLOOD: [u8; 64 * 1024] = flood_of_records();

/// TLS records of application data, 27 bytes in each: a relay counts them.
const fn flood_of_records() -> [u8; 64 * 1024] {
    let mut flood = [7; 64 * 1024];
    let mut at = 0;
    while at < flood.len() {
        (flood[at], flood[at + 1], flood[at + 2], flood[at + 3], flood[at + 4]) = (23, 3, 3, 0, 27);
        at += 32;
    }
    flood
}

/// The shortest ClientHello: a relay waits for a whole one.
const HELLO: &[u8] = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00";

/// In real time, with sockets.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(150), test).await }).unwrap()
}

async fn until(is: impl Fn() -> bool) {
    let met = async {
        while !is() {
            yield_now().await;
        }
    };
    timeout(PATIENCE, met).await.expect("it comes to that");
}

/// Writes until it is not taken any more, or the other end has gone.
async fn fill(to: &mut (impl AsyncWrite + Unpin)) {
    while let Ok(Ok(1..)) = timeout(STILL, to.write(&FLOOD)).await {}
}

/// The same with each of many at once.
async fn fill_all(streams: Vec<TcpStream>) -> Vec<TcpStream> {
    let mut filling = JoinSet::new();
    for mut stream in streams {
        filling.spawn_local(async move {
            fill(&mut stream).await;
            stream
        });
    }
    filling.join_all().await
}

/// What this process holds once nothing is given back any more: tokio gives a socket's part back by
/// itself, whoever had it.
async fn at_rest() -> usize {
    loop {
        let held = heap::held();
        let changes = async {
            while heap::held() == held {
                yield_now().await;
            }
        };
        if timeout(STILL, changes).await.is_err() {
            return held;
        }
    }
}

fn sum(lines: &[Line]) -> usize {
    lines.iter().map(|line| line.count * line.each).sum()
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

// ---- proxy mode ---------------------------------------------------------------------------------

/// What the lines of proxy mode allow, with what TLS keeps and takes for a moment.
fn proxy_lines() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("ftp "));
    let lines: usize = lines.map(|line| line.count * line.each).sum();
    lines + budget::FILE_SESSIONS * budget::RESUMPTION + budget::TLS_FLASH
}

/// Real sockets, on ports that the system chooses, with the heap of the proxy's tasks counted.
#[derive(Clone)]
struct Counted {
    share: Share,
    /// The port that was bound first: the service's.
    bound: Rc<Cell<Option<SocketAddr>>>,
}

impl Net for Counted {
    type Connection = TcpStream;
    type Listener = TcpListener;
    type Datagrams = <Sockets as Net>::Datagrams;
    type ClientStream = <Sockets as Net>::ClientStream;
    type PrinterStream = <Sockets as Net>::PrinterStream;

    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = Sockets.bind(SocketAddr::new(address.ip(), 0))?;
        self.bound.set(self.bound.get().or(listener.local_addr().ok()));
        Ok(listener)
    }

    fn bind_datagrams(&self, _: u16) -> io::Result<Self::Datagrams> {
        Sockets.bind_datagrams(0)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        Sockets.connect(address).await
    }

    async fn resolve(&self, _: &str, port: u16) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((HOME, port)))
    }

    async fn accept_tls(
        &self,
        tls: &Arc<ServerConfig>,
        connection: TcpStream,
    ) -> Result<Self::ClientStream, HandshakeError> {
        Sockets.accept_tls(tls, connection).await
    }

    async fn connect_tls(
        &self,
        trust: &Trust,
        connection: TcpStream,
    ) -> Result<Self::PrinterStream, ConnectError> {
        Sockets.connect_tls(trust, connection).await
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        // The memory of a task is in a line of its own in the budget.
        aside(|| spawn_local(self.share.of(task)))
    }
}

thread_local! {
    /// What the proxy of this thread is started with.
    static CREDENTIALS: RefCell<Option<Credentials>> = const { RefCell::new(None) };
}

/// The service as `runtime::launch` starts it, whose own heap is known.
struct Proxy {
    service: Rc<Service>,
    share: Share,
    at: SocketAddr,
    tls: TlsConnector,
    _dir: Rc<StateDir>,
}

impl Proxy {
    async fn before(server: &FileServer, model: Model) -> Self {
        let any = SocketAddr::from((HOME, 0));
        let (printer, serving) = server.listen_tls(any, model).await.unwrap();
        spawn_local(serving);
        let (dir, share) = (StateDir::new(), Share::default());
        let subject = Subject { serial: model.serial(), addresses: &[IpAddr::V4(HOME)] };
        let identity = Identity::load_or_make(dir.path(), &subject, SystemTime::now()).unwrap();
        let files = identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS).unwrap();
        let pins = Pins::in_dir(dir.path());
        let trust = Trust::new(model.serial(), Policy::Verify, Some(CA), pins, SystemTime::now);
        CREDENTIALS.set(Some(Credentials {
            tls: identity.server_config(BOARD.suites, budget::SESSIONS),
            files_tls: Some(files),
            trust: trust.unwrap(),
        }));
        let credentials = |_: &Config| Ok(CREDENTIALS.with_borrow(|made| made.clone().unwrap()));
        let context = Context { clock: Clock::start(), seed: 1, credentials };
        let printer_port = format!("--printer-port=ftp={}", printer.port());
        let more = ["--services=ftp", "--ftp-mode=proxy", "--bind=127.0.0.1", &printer_port];
        let config = root::config(model.serial(), CODE, &more);
        let net = Counted { share: share.clone(), bound: Rc::default() };
        let list = services();
        let proxy =
            share.during(|| launch::Proxy::start_these(&context, &config, &net, &list).unwrap());
        let (service, at) = (proxy.service::<Service>().unwrap(), net.bound.get().unwrap());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(identity.ca_pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Self { service, share, at, tls, _dir: dir }
    }

    async fn tls_over(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        self.tls.connect(ServerName::from(IpAddr::V4(HOME)), stream).await.unwrap()
    }

    /// A client that has not logged in.
    async fn stranger(&self, from: Ipv4Addr) -> Control {
        let stream = connect(from, self.at).await.unwrap();
        let mut control = Control(BufReader::new(self.tls_over(stream).await));
        assert!(control.reply().await.starts_with("220 "));
        control
    }

    async fn client(&self) -> Control {
        let mut control = self.stranger(HOME).await;
        assert!(control.asks("USER bblp").await.starts_with("331 "));
        assert!(control.asks(&format!("PASS {CODE}")).await.starts_with("230 "));
        assert!(control.asks("TYPE I").await.starts_with("200 "));
        assert!(control.asks("PROT P").await.starts_with("200 "));
        control
    }

    /// A data connection, and the command for it, which the printer has begun to do.
    async fn begins(&self, control: &mut Control, line: &str) -> TlsStream<TcpStream> {
        let data = control.data().await;
        assert!(control.asks(line).await.starts_with("150 "), "{line}");
        self.tls_over(data).await
    }

    async fn uploads(&self, control: &mut Control, name: &str, bytes: &[u8]) {
        let mut data = self.begins(control, &format!("STOR {name}")).await;
        data.write_all(bytes).await.unwrap();
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
    }

    async fn downloads(&self, control: &mut Control, line: &str) -> usize {
        let mut data = self.begins(control, line).await;
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
        bytes.len()
    }

    fn is_idle(&self) -> bool {
        let idle = |printer_session: &Rc<PrinterSession>| {
            matches!(printer_session.standing(), SlotState::Idle | SlotState::Off)
        };
        self.service.connections() == 0 && self.service.printer_sessions().iter().all(idle)
    }
}

/// A control connection, a line at a time.
struct Control(BufReader<TlsStream<TcpStream>>);

impl Control {
    async fn says(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn reply(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await;
        read.expect("an answer within its time").unwrap();
        line
    }

    async fn asks(&mut self, line: &str) -> String {
        self.says(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    async fn data(&mut self) -> TcpStream {
        let said = self.asks("EPSV").await;
        let port: Option<u16> = said.split('|').nth(3).and_then(|port| port.parse().ok());
        connect(HOME, SocketAddr::from((HOME, port.unwrap()))).await.unwrap()
    }
}

#[test]
fn all_ftp_slots_taken_by_the_worst_clients_fit_the_budget() {
    let _alone = alone();
    run(async {
        let server = FileServer::new(Family::Vsftpd).code(CODE);
        server.put_pattern("/large.mp4", 100_000_000, 1);
        let proxy = Proxy::before(&server, Model::X1C).await;
        let mut there = Vec::new();
        let mut data = Vec::new();
        // One that takes nothing of what it has asked for, up to where nothing moves any more.
        let mut reader = proxy.client().await;
        data.push(proxy.begins(&mut reader, "RETR large.mp4").await);
        there.push(reader);
        loop {
            let given = server.look(|seen| seen.given);
            if !server.until(STILL, |seen| seen.given > given).await {
                break;
            }
        }
        assert!(server.look(|seen| seen.given) > 100_000);
        // One that gives more than the printer takes.
        let slow = server.clone().rate(50_000);
        let mut writer = proxy.client().await;
        let mut upload = proxy.begins(&mut writer, "STOR large.3mf").await;
        fill(&mut upload).await;
        data.push(upload);
        there.push(writer);
        // Those who wait, their data and almost too much of what they want next already here.
        let mut early = Vec::new();
        while there.len() < BOARD.clients.ftp {
            let mut waits = proxy.client().await;
            let mut data = waits.data().await;
            fill(&mut data).await;
            early.push(data);
            waits.says(b"STOR next.3mf\r\n").await;
            let mut ahead = b"NOOP\r\n".repeat(FTP_INBOX);
            ahead.truncate(FTP_INBOX - 1);
            waits.says(&ahead).await;
            there.push(waits);
        }
        // The pre-auth slots: a line of which one byte is missing.
        for number in 0..BOARD.pre_auth {
            let from = machine(u8::try_from(number).unwrap());
            let mut knocks = proxy.stranger(from).await;
            knocks.says(&[b'x'; 1023]).await;
            there.push(knocks);
        }
        assert_eq!(
            (proxy.service.connections(), proxy.service.clients()),
            (FILERS, BOARD.clients.ftp)
        );
        assert!(
            proxy
                .service
                .printer_sessions()
                .iter()
                .all(|printer_session| printer_session.standing() == SlotState::Busy)
        );
        let (now, peak) = (proxy.share.now(), proxy.share.peak());
        println!(
            "files, all {FILERS} places: {now} bytes, at most {peak}; {} allowed",
            proxy_lines()
        );
        assert!(peak <= proxy_lines());
        // More than it would be if nobody were there.
        assert!(now > FILERS * (budget::FTP_SLOT + FTP_INBOX + budget::FTP_OUTBOX));

        drop((there, data, early));
        until(|| proxy.is_idle()).await;
        let _fast = slow.rate(0);
        let mut next = proxy.client().await;
        proxy.uploads(&mut next, "next.3mf", b"what comes next").await;
        let stored = server.file("/next.3mf").unwrap();
        assert_eq!(stored.content.as_deref(), Some(&b"what comes next"[..]));
    });
}

#[test]
fn what_files_hold_is_the_same_after_each_of_many_transfers() {
    let _alone = alone();
    run(async {
        let server = FileServer::new(Family::Esp32).code(CODE);
        server.put_pattern("/large.mp4", 300_000, 1);
        let proxy = Proxy::before(&server, Model::P1S).await;
        let mut held = [0; 5];
        for held in &mut held {
            // More connections than TLS sessions are kept, so that the first round fills their store.
            for _ in 0..budget::FILE_SESSIONS {
                let mut control = proxy.client().await;
                proxy.uploads(&mut control, "plate.3mf", &FLOOD).await;
                assert_eq!(proxy.downloads(&mut control, "RETR large.mp4").await, 300_000);
                assert!(proxy.downloads(&mut control, "LIST").await > 0);
                assert!(control.asks("QUIT").await.starts_with("221 "));
                assert_eq!(control.reply().await, "");
            }
            until(|| proxy.is_idle()).await;
            // But for what the simulated printer remembers.
            let commands = server.look(|seen| {
                let bytes: usize = seen.commands.iter().map(String::capacity).sum();
                bytes + seen.commands.capacity() * size_of::<String>()
            });
            *held = at_rest().await - commands;
        }
        println!(
            "held after each {} connections with three transfers: {held:?}",
            budget::FILE_SESSIONS
        );
        assert!(held[4].abs_diff(held[3]) <= 256, "{held:?}");
        assert!(proxy.share.peak() <= proxy_lines());
    });
}

// ---- relay mode and the tunnel ------------------------------------------------------------------

/// A printer's port that takes nothing and says more than anybody takes.
fn flood(listener: TcpListener) {
    spawn_local(async move {
        let mut there = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            there.push(spawn_local(async move { while stream.write_all(&FLOOD).await.is_ok() {} }));
            there.retain(|task| !task.is_finished());
        }
    });
}

/// A relay with its acceptor, whose own heap is known.
struct Bed {
    relay: Rc<Relay>,
    share: Share,
    at: SocketAddr,
    clock: Clock,
}

impl Bed {
    fn new(name: &'static str, sessions: usize, buffer: usize) -> Self {
        let any = SocketAddr::from((HOME, 0));
        let (printer, ours) = (Sockets.bind(any).unwrap(), Sockets.bind(any).unwrap());
        let (clock, share) = (Clock::start(), Share::default());
        let (at, port) = (ours.local_addr().unwrap(), printer.local_addr().unwrap().port());
        flood(printer);
        let (relay, acceptor) = share.during(|| {
            let relay =
                Relay::new(name, PrinterAddr::Ip(HOME.into()), port, sessions, buffer, Counts::FTP);
            (relay, Acceptor::new(name, Rc::default()))
        });
        for _ in 0..relay.workers() {
            spawn_local(share.of(Rc::clone(&relay).work(Sockets, Rc::clone(&acceptor), clock)));
        }
        spawn_local(share.of(async move { acceptor.listen(&ours, &clock).await }));
        Self { relay, share, at, clock }
    }

    /// As many as have sessions, none of which takes or gives any more, and a line behind them that is
    /// full up to the waiting room.
    async fn crowd(&self, sessions: usize) -> Vec<TcpStream> {
        let mut first = Vec::new();
        for number in 0..sessions {
            // One address may not have all of them.
            first.push(self.client(machine(u8::from(number == 0))).await);
        }
        let mut there = fill_all(first).await;
        let mut others = Vec::new();
        for number in 0..BOARD.pre_auth + budget::ACCEPT_QUEUE + 8 {
            let from = machine(2 + u8::try_from(number % 8).unwrap());
            // Whoever finds no room is closed.
            others.push(self.client(from).await);
        }
        there.append(&mut fill_all(others).await);
        let has = |number| self.relay.connections_of(machine(number).into());
        assert_eq!((has(0), has(1)), (sessions - 1, 1), "all sessions are taken");
        there
    }

    /// A connection that has sent its ClientHello.
    async fn client(&self, from: Ipv4Addr) -> TcpStream {
        let mut stream = connect(from, self.at).await.unwrap();
        // A full acceptor closes it.
        let _closed = stream.write_all(HELLO).await;
        stream
    }

    /// Somebody new hears the printer, once all others have gone.
    async fn next_is_relayed(&self) {
        let mut next = self.client(machine(20)).await;
        let mut heard = [0; 1000];
        timeout(PATIENCE, next.read_exact(&mut heard)).await.expect("it is its turn").unwrap();
        assert_eq!(heard, FLOOD[..1000]);
        drop(next);
        until(|| self.relay.connections_of(machine(20).into()) == 0).await;
    }
}

const fn machine(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, 1 + number)
}

/// What stands in for other lines, with the waiting room before it.
fn alternative(when: &str) -> usize {
    let found = ALTERNATIVES.iter().find(|alternative| alternative.when == when).unwrap();
    let of: Vec<Line> =
        LINES.iter().filter(|line| line.what.starts_with(found.of)).copied().collect();
    assert!(sum(found.lines) <= sum(&of), "it is held in place of {}", found.of);
    sum(found.lines) + budget::ACCEPT_QUEUE * budget::ARRIVAL
}

#[test]
fn a_full_relay_with_a_full_queue_fits_the_budget() {
    let _alone = alone();
    run(async {
        let allowed = alternative("files are relayed");
        let bed = Bed::new("ftp", RELAY_SESSIONS, RELAY_COMMANDS);
        let any = SocketAddr::from((HOME, 0));
        let data = Sockets.bind(any).unwrap();
        let port = data.local_addr().unwrap().port();
        flood(data);
        let (transfers, openings, ports) = bed.share.during(|| {
            let mut listeners = Vec::with_capacity(DATA_PORTS);
            listeners.extend((0..DATA_PORTS).map(|_| (Sockets.bind(any).unwrap(), port)));
            let ports = [0, DATA_PORTS - 1].map(|at| listeners[at].0.local_addr().unwrap());
            (Transfers::new(Sockets, Rc::clone(&bed.relay)), DataPorts::over(listeners), ports)
        });
        spawn_local(bed.share.of(Rc::clone(&transfers).listen(openings, bed.clock)));
        for _ in 0..TRANSFERS {
            spawn_local(bed.share.of(Rc::clone(&transfers).work(bed.clock)));
        }
        let mut held = [0; 3];
        for (round, held) in held.iter_mut().enumerate() {
            let there = bed.crowd(RELAY_SESSIONS).await;
            let mut moving = Vec::new();
            // Two for each control connection: as many as are carried, and as many waiting.
            for number in 0..2 * RELAY_SESSIONS + 2 {
                let from = machine(u8::from(number < 2));
                moving.push(connect(from, ports[number % 2]).await.unwrap());
            }
            let moving = fill_all(moving).await;
            let (now, peak) = (bed.share.now(), bed.share.peak());
            // What tokio gives back by itself is not taken off: the first round is the exact one.
            if round == 0 {
                println!("relay, all full: {now} bytes, at most {peak}; {allowed} allowed");
            }
            assert!(peak <= allowed);
            assert!(now > RELAY_SESSIONS * 2 * RELAY_COMMANDS + TRANSFERS * 2 * RELAY_FILES);
            drop((there, moving));
            bed.next_is_relayed().await;
            *held = at_rest().await;
        }
        println!("held when they had gone: {held:?}");
        assert!(held[1].abs_diff(held[2]) <= 256, "{held:?}");
    });
}

#[test]
fn a_full_tunnel_with_a_full_queue_fits_the_budget() {
    let _alone = alone();
    run(async {
        let allowed = alternative("port 6000 is a file tunnel");
        let bed = Bed::new("tunnel", TUNNELS, RELAY_FILES);
        let mut held = [0; 3];
        for (round, held) in held.iter_mut().enumerate() {
            let there = bed.crowd(TUNNELS).await;
            let (now, peak) = (bed.share.now(), bed.share.peak());
            // What tokio gives back by itself is not taken off: the first round is the exact one.
            if round == 0 {
                println!("tunnel, all full: {now} bytes, at most {peak}; {allowed} allowed");
            }
            assert!(peak <= allowed);
            assert!(now > TUNNELS * 2 * RELAY_FILES);
            drop(there);
            bed.next_is_relayed().await;
            *held = at_rest().await;
        }
        println!("held when they had gone: {held:?}");
        assert!(held[1].abs_diff(held[2]) <= 256, "{held:?}");
    });
}
