//! Memory of the file services with every slot taken, over real sockets: proxy mode with TLS on all sides, relay mode
//! and the file tunnel with the buffers of both directions full.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use pandaproxy::board::BOARD;
use pandaproxy::config::Config;
use pandaproxy::ftp::Service;
use pandaproxy::ftp::printer_session::{PrinterSession, SlotState};
use pandaproxy::memory::budget::{
    self, ALTERNATIVES, DATA_PORTS, FILERS, FTP_INBOX, LINES, Line, RELAY_COMMANDS, RELAY_FILES,
    RELAY_SESSIONS, TRANSFERS, TUNNELS,
};
use pandaproxy::memory::heap;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::launch::{self, Context, Credentials, services};
use pandaproxy::runtime::net::{Net, Sockets};
use pandaproxy::service::Service as _;
use pandaproxy::state_dir::Pins;
use pandaproxy::tls::{
    ConnectError, Directories, HandshakeError, Identity, Policy, ServerConfig, Subject, Trust,
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
use crate::share::{Share, ran_apart};
use printer::ftp::{Family, FileServer};
use printer::{CA, Model};

/// Deadline of each step, for a test that would wait for ever otherwise.
const STEP_TIMEOUT: Duration = Duration::from_secs(40);

/// Time without progress after which all buffers count as full.
const SETTLED: Duration = Duration::from_millis(200);

/// More bytes than all buffers of one connection hold.
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

/// Runs a test in real time, with sockets.
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
    timeout(STEP_TIMEOUT, met).await.expect("the condition holds in time");
}

/// Writes until nothing more is accepted, or the connection is lost.
async fn fill(to: &mut (impl AsyncWrite + Unpin)) {
    while let Ok(Ok(1..)) = timeout(SETTLED, to.write(&FLOOD)).await {}
}

/// Does the same with each of `streams`, at once.
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

/// Bytes that this process holds once its heap does not change any more: tokio frees its part of a socket some time after
/// the socket is dropped.
async fn held_at_rest() -> usize {
    loop {
        let held = heap::held();
        let changes = async {
            while heap::held() == held {
                yield_now().await;
            }
        };
        if timeout(SETTLED, changes).await.is_err() {
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

/// Bytes that the budget has for proxy mode, with the TLS sessions that are kept and the memory of one handshake.
fn proxy_lines() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("ftp "));
    let lines: usize = lines.map(|line| line.count * line.each).sum();
    lines + budget::FILE_SESSIONS * budget::RESUMPTION + budget::TLS_FLASH
}

/// The printer's address: another one than the proxy's, or the proxy would refuse to connect to itself.
const PRINTER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Data ports of the printer in relay mode.
const PRINTER_DATA_PORTS: RangeInclusive<u16> = 50_000..=50_000 + DATA_PORTS as u16 - 1;

/// Real sockets on ports that the system chooses, with the heap of the proxy's tasks counted.
#[derive(Clone)]
struct Counted {
    share: Share,
    /// The first listeners: the service's port, then the data ports of a relay.
    bound: Rc<RefCell<heapless::Vec<SocketAddr, { DATA_PORTS + 1 }>>>,
    /// The listener for each of the printer's data ports.
    data: u16,
}

impl Counted {
    fn new(share: &Share, data: u16) -> Self {
        Self { share: share.clone(), bound: Rc::default(), data }
    }

    /// The address of the service's listener.
    fn service(&self) -> SocketAddr {
        self.bound.borrow()[0]
    }
}

impl Net for Counted {
    type Connection = TcpStream;
    type Listener = TcpListener;
    type Datagrams = <Sockets as Net>::Datagrams;
    type ClientStream = <Sockets as Net>::ClientStream;
    type PrinterStream = <Sockets as Net>::PrinterStream;

    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = Sockets.bind(SocketAddr::new(address.ip(), 0))?;
        // Later listeners are data ports in proxy mode, which clients get in replies to EPSV.
        let _first = self.bound.borrow_mut().push(listener.local_addr()?);
        Ok(listener)
    }

    fn bind_datagrams(&self, _: u16) -> io::Result<Self::Datagrams> {
        Sockets.bind_datagrams(0)
    }

    async fn connect(&self, mut address: SocketAddr) -> io::Result<TcpStream> {
        if PRINTER_DATA_PORTS.contains(&address.port()) {
            address.set_port(self.data);
        }
        Sockets.connect(address).await
    }

    async fn resolve(&self, _: &str, port: u16) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((PRINTER, port)))
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
        // The budget has a line of its own for the memory of a task.
        aside(|| spawn_local(self.share.of(task)))
    }
}

thread_local! {
    /// The certificates of this thread's proxy.
    static CREDENTIALS: RefCell<Option<Credentials>> = const { RefCell::new(None) };
}

/// Proxy mode as `runtime::launch` starts it, with its heap counted.
struct Proxy {
    service: Rc<Service>,
    share: Share,
    at: SocketAddr,
    tls: TlsConnector,
    _dir: Rc<StateDir>,
}

impl Proxy {
    async fn before(server: &FileServer, model: Model) -> Self {
        let any = SocketAddr::from((PRINTER, 0));
        let (printer, serving) = server.listen_tls(any, model).await.unwrap();
        spawn_local(serving);
        let (dir, share) = (StateDir::new(), Share::default());
        let subject =
            Subject { serial: model.serial(), addresses: &[IpAddr::V4(HOME)], hosts: &[] };
        let dirs = Directories::one(dir.path());
        let identity = Identity::load_or_make(dirs, &subject, SystemTime::now()).unwrap();
        let files = identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS).unwrap();
        let pins = Pins::in_dir(dir.path());
        let trust = Trust::new(model.serial(), Policy::Verify, Some(CA), pins, SystemTime::now);
        CREDENTIALS.set(Some(Credentials {
            tls: identity.server_config(BOARD.suites, budget::SESSIONS),
            files_tls: Some(files),
            trust: trust.unwrap(),
            ca: launch::Authority::of(&identity),
        }));
        let credentials = |_: &Config| Ok(CREDENTIALS.with_borrow(|made| made.clone().unwrap()));
        let context = Context { clock: Clock::start(), seed: 1, credentials };
        let printer_port = format!("--printer-port=ftp={}", printer.port());
        let more = ["--services=ftp", "--ftp-mode=proxy", "--bind=127.0.0.1", &printer_port];
        let config = root::config(model.serial(), CODE, &more);
        let net = Counted::new(&share, 0);
        let list = services();
        let proxy =
            share.during(|| launch::Proxy::start_these(&context, &config, &net, &list).unwrap());
        let (service, at) = (proxy.service::<Service>().unwrap(), net.service());
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

    /// A client before its login.
    async fn unknown_client(&self, from: Ipv4Addr) -> Control {
        let stream = connect(from, self.at).await.unwrap();
        let mut control = Control(BufReader::new(self.tls_over(stream).await));
        assert!(control.reply().await.starts_with("220 "));
        control
    }

    async fn client(&self) -> Control {
        let mut control = self.unknown_client(HOME).await;
        assert!(control.command("USER bblp").await.starts_with("331 "));
        assert!(control.command(&format!("PASS {CODE}")).await.starts_with("230 "));
        assert!(control.command("TYPE I").await.starts_with("200 "));
        assert!(control.command("PROT P").await.starts_with("200 "));
        control
    }

    /// Opens a data connection and sends the command for it. Returns once the printer has begun the transfer.
    async fn begin(&self, control: &mut Control, line: &str) -> TlsStream<TcpStream> {
        let data = control.data().await;
        assert!(control.command(line).await.starts_with("150 "), "{line}");
        self.tls_over(data).await
    }

    async fn upload(&self, control: &mut Control, name: &str, bytes: &[u8]) {
        let mut data = self.begin(control, &format!("STOR {name}")).await;
        data.write_all(bytes).await.unwrap();
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
    }

    async fn download(&self, control: &mut Control, line: &str) -> usize {
        let mut data = self.begin(control, line).await;
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes).await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
        bytes.len()
    }

    fn is_idle(&self) -> bool {
        let idle = |printer_session: &Rc<PrinterSession>| {
            matches!(printer_session.state(), SlotState::Idle | SlotState::Off)
        };
        self.service.connections() == 0 && self.service.printer_sessions().iter().all(idle)
    }
}

/// A client's control connection, read line by line.
struct Control(BufReader<TlsStream<TcpStream>>);

impl Control {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn reply(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(STEP_TIMEOUT, self.0.read_line(&mut line)).await;
        read.expect("a reply in time").unwrap();
        line
    }

    async fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    async fn data(&mut self) -> TcpStream {
        let reply = self.command("EPSV").await;
        let port: Option<u16> = reply.split('|').nth(3).and_then(|port| port.parse().ok());
        connect(HOME, SocketAddr::from((HOME, port.unwrap()))).await.unwrap()
    }
}

#[test]
fn all_ftp_slots_in_use_fit_the_budget() {
    if ran_apart() {
        return;
    }
    run(async {
        let server = FileServer::new(Family::Vsftpd).code(CODE);
        server.put_pattern("/large.mp4", 100_000_000, 1);
        let proxy = Proxy::before(&server, Model::X1C).await;
        let mut clients = Vec::new();
        let mut data = Vec::new();
        // A client that reads nothing of its download, until all buffers are full.
        let mut reader = proxy.client().await;
        data.push(proxy.begin(&mut reader, "RETR large.mp4").await);
        clients.push(reader);
        loop {
            let given = server.look(|seen| seen.given);
            if !server.until(SETTLED, |seen| seen.given > given).await {
                break;
            }
        }
        assert!(server.look(|seen| seen.given) > 100_000);
        // A client that sends more than the printer takes.
        let slow = server.clone().rate(50_000);
        let mut writer = proxy.client().await;
        let mut upload = proxy.begin(&mut writer, "STOR large.3mf").await;
        fill(&mut upload).await;
        data.push(upload);
        clients.push(writer);
        // Clients whose commands are queued, with their data and as many further lines as are accepted.
        let mut early = Vec::new();
        while clients.len() < BOARD.clients.ftp {
            let mut waiting = proxy.client().await;
            let mut data = waiting.data().await;
            fill(&mut data).await;
            early.push(data);
            waiting.send(b"STOR next.3mf\r\n").await;
            let mut ahead = b"NOOP\r\n".repeat(FTP_INBOX);
            ahead.truncate(FTP_INBOX - 1);
            waiting.send(&ahead).await;
            clients.push(waiting);
        }
        // The pre-auth slots: an incomplete line each.
        for number in 0..BOARD.pre_auth {
            let from = machine(u8::try_from(number).unwrap());
            let mut pending = proxy.unknown_client(from).await;
            pending.send(&[b'x'; 1023]).await;
            clients.push(pending);
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
                .all(|printer_session| printer_session.state() == SlotState::Busy)
        );
        let (now, peak) = (proxy.share.now(), proxy.share.peak());
        println!("ftp, all {FILERS} slots: {now} bytes, at most {peak}; {} allowed", proxy_lines());
        assert!(peak <= proxy_lines());
        // More than without clients.
        assert!(now > FILERS * (budget::FTP_SLOT + FTP_INBOX + budget::FTP_OUTBOX));

        drop((clients, data, early));
        until(|| proxy.is_idle()).await;
        let _fast = slow.rate(0);
        let mut next = proxy.client().await;
        proxy.upload(&mut next, "next.3mf", b"what comes next").await;
        let stored = server.file("/next.3mf").unwrap();
        assert_eq!(stored.content.as_deref(), Some(&b"what comes next"[..]));
    });
}

#[test]
fn the_heap_is_the_same_after_each_of_many_transfers() {
    if ran_apart() {
        return;
    }
    run(async {
        let server = FileServer::new(Family::Esp32).code(CODE);
        server.put_pattern("/large.mp4", 300_000, 1);
        let proxy = Proxy::before(&server, Model::P1S).await;
        let mut held = [0; 5];
        for held in &mut held {
            // More connections than TLS sessions are kept, so that the first round fills their store.
            for _ in 0..budget::FILE_SESSIONS {
                let mut control = proxy.client().await;
                proxy.upload(&mut control, "plate.3mf", &FLOOD).await;
                assert_eq!(proxy.download(&mut control, "RETR large.mp4").await, 300_000);
                assert!(proxy.download(&mut control, "LIST").await > 0);
                assert!(control.command("QUIT").await.starts_with("221 "));
                assert_eq!(control.reply().await, "");
            }
            until(|| proxy.is_idle()).await;
            // Without the commands that the simulated printer remembers.
            let commands = server.look(|seen| {
                let bytes: usize = seen.commands.iter().map(String::capacity).sum();
                bytes + seen.commands.capacity() * size_of::<String>()
            });
            *held = held_at_rest().await - commands;
        }
        println!(
            "held after each {} connections with three transfers: {held:?}",
            budget::FILE_SESSIONS
        );
        assert!(is_level(&held), "{held:?}");
        assert!(proxy.share.peak() <= proxy_lines());
    });
}

// ---- relay mode and the tunnel ------------------------------------------------------------------

/// A printer's port that reads nothing and sends more than is read.
fn flood(listener: TcpListener) -> u16 {
    let port = listener.local_addr().unwrap().port();
    socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    spawn_local(async move {
        let mut connections = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let sending = async move { while stream.write_all(&FLOOD).await.is_ok() {} };
            connections.push(spawn_local(sending));
            connections.retain(|task| !task.is_finished());
        }
    });
    port
}

/// A relay as `runtime::launch` starts it before a printer that floods, with its heap counted.
struct Bed {
    proxy: launch::Proxy,
    net: Counted,
    share: Share,
}

impl Bed {
    /// This service of the list alone.
    fn new(name: &str) -> Self {
        let any = SocketAddr::from((PRINTER, 0));
        let control = flood(Sockets.bind(any).unwrap());
        let data = flood(Sockets.bind(any).unwrap());
        let printer_ports = format!("--printer-port=ftp={control},tunnel={control}");
        let (first, last) = (PRINTER_DATA_PORTS.start(), PRINTER_DATA_PORTS.end());
        let data_ports = format!("--ftp-data-ports={first}-{last}");
        let more = ["--services=ftp", "--bind=127.0.0.1", &printer_ports, &data_ports];
        let config = root::config(Model::X1C.serial(), CODE, &more);
        // The certificates of the simulated proxies are made before the heap is counted.
        let (context, _made) = (root::context(), root::tls_client());
        let share = Share::default();
        let net = Counted::new(&share, data);
        let mut list = Vec::from(services());
        list.retain(|service| service.name == name);
        let start = || launch::Proxy::start_these(&context, &config, &net, &list).unwrap();
        let proxy = share.during(start);
        Self { proxy, net, share }
    }

    /// Sessions of `address`, as the proxy's status has them.
    fn sessions_of(&self, address: Ipv4Addr) -> usize {
        let addresses = self.addresses();
        addresses.split(", ").filter(|one| one.parse() == Ok(address)).count()
    }

    /// The addresses of all sessions.
    fn addresses(&self) -> String {
        let mut status = String::new();
        self.proxy.write_status(&mut status).unwrap();
        let relayed = status.lines().find_map(|line| line.split_once(" connections relayed"));
        let (_, addresses) = relayed.expect("the relay writes its status");
        addresses.trim_start_matches(": ").to_owned()
    }

    /// Takes all sessions, with full buffers in both directions, and fills the pre-auth slots and the accept queue.
    async fn fill(&self, sessions: usize) -> Vec<TcpStream> {
        let mut first = Vec::new();
        for number in 0..sessions {
            // One address may not have all of them.
            first.push(self.client(machine(u8::from(number == 0))).await);
        }
        let sessions_of = |number| self.sessions_of(machine(number));
        until(|| (sessions_of(0), sessions_of(1)) == (sessions - 1, 1)).await;
        let mut clients = fill_all(first).await;
        let mut others = Vec::new();
        for number in 0..BOARD.pre_auth + budget::ACCEPT_QUEUE + 8 {
            let from = machine(2 + u8::try_from(number % 8).unwrap());
            // The last ones are closed.
            others.push(self.client(from).await);
        }
        clients.append(&mut fill_all(others).await);
        let used = self.addresses();
        assert_eq!((sessions_of(0), sessions_of(1)), (sessions - 1, 1), "in use: {used}");
        clients
    }

    /// A connection that has sent its ClientHello.
    async fn client(&self, from: Ipv4Addr) -> TcpStream {
        let mut stream = connect(from, self.net.service()).await.unwrap();
        // A full acceptor closes it.
        let _closed = stream.write_all(HELLO).await;
        stream
    }

    /// Checks that a new client is relayed, once all others have disconnected.
    async fn check_next(&self) {
        let mut next = self.client(machine(20)).await;
        let mut received = [0; 1000];
        let read = timeout(STEP_TIMEOUT, next.read_exact(&mut received)).await;
        read.expect("a session is free").unwrap();
        assert_eq!(received, FLOOD[..1000]);
        drop(next);
        // Not of this client alone: a session of the last round would have a place in the next one.
        until(|| self.addresses().is_empty()).await;
    }
}

const fn machine(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, 1 + number)
}

/// Bytes that the budget has for an alternative, with the accept queue before it. Without what clients download, which these
/// tests have none of.
fn alternative(when: &str) -> usize {
    let found = ALTERNATIVES.iter().find(|alternative| alternative.when == when).unwrap();
    let of: Vec<Line> =
        LINES.iter().filter(|line| line.what.starts_with(found.of)).copied().collect();
    assert!(sum(found.lines) <= sum(&of), "it is held in place of {}", found.of);
    let is_used = |line: &&Line| !line.what.ends_with("authorities to download");
    let used: Vec<Line> = found.lines.iter().filter(is_used).copied().collect();
    assert_eq!(used.len() + 1, found.lines.len());
    sum(&used) + budget::ACCEPT_QUEUE * budget::ARRIVAL
}

/// Whether two successive rounds behind the first hold the same. tokio's list of released sockets may grow in one of
/// them; memory that is lost grows in each.
fn is_level(held: &[usize]) -> bool {
    held.windows(2).skip(1).any(|pair| pair[0].abs_diff(pair[1]) <= 256)
}

#[test]
fn a_full_relay_with_a_full_queue_fits_the_budget() {
    if ran_apart() {
        return;
    }
    run(async {
        let allowed = alternative("files are relayed");
        let bed = Bed::new("ftp");
        let ports = [1, DATA_PORTS].map(|at| bed.net.bound.borrow()[at]);
        let mut held = [0; 5];
        for (round, held) in held.iter_mut().enumerate() {
            let clients = bed.fill(RELAY_SESSIONS).await;
            let mut transfers = Vec::new();
            // Two for each control connection: as many as are carried, and as many that wait.
            for number in 0..2 * RELAY_SESSIONS + 2 {
                let from = machine(u8::from(number < 2));
                transfers.push(connect(from, ports[number % 2]).await.unwrap());
            }
            let transfers = fill_all(transfers).await;
            let (now, peak) = (bed.share.now(), bed.share.peak());
            // Memory that tokio frees later is not counted as freed: the first round is the exact one.
            if round == 0 {
                println!("relay, all full: {now} bytes, at most {peak}; {allowed} allowed");
            }
            assert!(peak <= allowed);
            assert!(now > RELAY_SESSIONS * 2 * RELAY_COMMANDS + TRANSFERS * 2 * RELAY_FILES);
            drop((clients, transfers));
            bed.check_next().await;
            *held = held_at_rest().await;
        }
        println!("held when all clients had disconnected: {held:?}");
        assert!(is_level(&held), "{held:?}");
    });
}

#[test]
fn a_full_tunnel_with_a_full_queue_fits_the_budget() {
    if ran_apart() {
        return;
    }
    run(async {
        let allowed = alternative("port 6000 is a file tunnel");
        let bed = Bed::new("tunnel");
        let mut held = [0; 5];
        for (round, held) in held.iter_mut().enumerate() {
            let clients = bed.fill(TUNNELS).await;
            let (now, peak) = (bed.share.now(), bed.share.peak());
            // Memory that tokio frees later is not counted as freed: the first round is the exact one.
            if round == 0 {
                println!("tunnel, all full: {now} bytes, at most {peak}; {allowed} allowed");
            }
            assert!(peak <= allowed);
            assert!(now > TUNNELS * 2 * RELAY_FILES);
            drop(clients);
            bed.check_next().await;
            *held = held_at_rest().await;
        }
        println!("held when all clients had disconnected: {held:?}");
        assert!(is_level(&held), "{held:?}");
    });
}

/// The client's send buffer is as small as it can be, and so is the printer's receive buffer.
#[test]
fn a_client_of_the_tunnel_is_less_than_64_kib_ahead() {
    if ran_apart() {
        return;
    }
    run(async {
        let bed = Bed::new("tunnel");
        let mut client = bed.client(machine(0)).await;
        socket2::SockRef::from(&client).set_send_buffer_size(4096).unwrap();
        until(|| bed.sessions_of(machine(0)) == 1).await;
        let mut sent = 0;
        while let Ok(written) = timeout(SETTLED, client.write(&FLOOD[..1024])).await {
            sent += written.unwrap();
            assert!(sent < 10_000_000, "nothing limits it");
        }
        println!("{sent} bytes ahead of a printer that reads nothing");
        assert!(sent <= 64 * 1024, "{sent}");
    });
}
