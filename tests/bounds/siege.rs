//! The real program over real TLS with every place of every service taken by the worst clients there are,
//! and a crowd at each acceptor, while one good client of each service goes on being served.
//!
//! It is a short one, of three seconds for each of two models; CI has twenty. `SIEGE_SECONDS=600 cargo test --test
//! bounds siege -- --nocapture` takes ten minutes for each; `BOARD` says for which board, and `PANDAPROXY_BIN` may name a build of the program
//! for that board that is not for debugging. Each prints a row of the table in the README.

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::memory::budget::{
    ACCEPT_QUEUE, BROWSERS, DETECT_CLIENTS, FILERS, FTP_SESSIONS, PLAYERS, SERVICES, SLOTS, TOTAL,
    VIEWERS,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::attackers::{self, Attacks};
use crate::clients::mqtt::PUBLISH;
use crate::clients::proxy::{CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on};
use crate::clients::rtsp::{Client as Player, Scheme};
use crate::share::ran_apart;
use printer::camera::{Camera, login};
use printer::ftp::{Family, FileServer};
use printer::rtsp::Rtsp;
use printer::{Model, Printer, Tunnel};

/// Seconds of a run, unless the environment sets another number.
const SECONDS: u64 = 3;

/// Memory beside the budget and the file's own pages: stacks, the allocator's, the C library's.
const OUTSIDE: usize = 2 << 20;

/// How long anything may take on a machine that is busy. Only what hangs takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Files that are open beside connections: standard ones, what tokio waits on, signals, a log.
const OTHER_FILES: usize = 16;

/// The most files that may be open: everybody served, everybody at the acceptors, the printer's side, data
/// connections with their ports, listeners.
const FILES: usize = SLOTS
    + VIEWERS
    + PLAYERS
    + FILERS
    + 2 * DETECT_CLIENTS
    + BROWSERS
    + SERVICES * (ACCEPT_QUEUE + 1)
    + SERVICES
    + 3 * FTP_SESSIONS
    + 2 * FILERS
    + OTHER_FILES;

/// A service, by the word that the program's log has for it.
const SERVICE: [&str; 7] = ["mqtt", "chamber", "rtsp", "ftp", "detect", "detect-tls", "http"];

#[test]
fn a_siege_of_a_p1s_stays_within_bounds() {
    besiege(Model::P1S);
}

#[test]
fn a_siege_of_an_x1c_stays_within_bounds() {
    besiege(Model::X1C);
}

fn besiege(model: Model) {
    if ran_apart() {
        return;
    }
    let seconds = std::env::var("SIEGE_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(siege(model, Duration::from_secs(seconds.unwrap_or(SECONDS))));
}

/// The proxy, and where its services are.
pub(crate) struct Town {
    pub(crate) proxy: Proxy,
    pub(crate) at: [SocketAddr; 7],
    pub(crate) request_topic: String,
}

impl Town {
    /// A connection from this machine of the neighbourhood.
    pub(crate) async fn tcp(&self, from: Ipv4Addr, service: usize) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(SocketAddr::from((from, 0))).ok()?;
        timeout(PATIENCE, socket.connect(self.at[service])).await.ok()?.ok()
    }

    /// The same with TLS.
    pub(crate) async fn tls(&self, from: Ipv4Addr, service: usize) -> Option<TlsStream<TcpStream>> {
        let tcp = self.tcp(from, service).await?;
        timeout(PATIENCE, self.proxy.tls_over(tcp)).await.ok()?.ok()
    }

    fn heap(&self, before: usize) -> Option<(usize, usize)> {
        let log = self.proxy.program.log();
        let line = log.lines().filter(|line| line.starts_with("heap: held")).nth(before)?;
        let mut figures = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        let mut next = || figures.next()?.parse().ok();
        Some((next()?, next()?))
    }

    /// What its heap holds, and the most it ever held, in KiB.
    async fn asked_heap(&self) -> (usize, usize) {
        let before = self.proxy.program.lines_with("heap: held");
        self.proxy.program.signal("USR1");
        self.proxy.program.lines("heap: held", before + 1).await;
        self.heap(before).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.proxy.program.id())).unwrap().count()
    }
}

/// The proxy's last log lines, which explain a failure.
impl Drop for Town {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.proxy.program.log();
            let from = log.lines().count().saturating_sub(40);
            log.lines().skip(from).for_each(|line| println!("{line}"));
        }
    }
}

async fn siege(model: Model, time: Duration) {
    let printer = Printer::new(model).code(CODE).deltas_every(Duration::from_secs(1));
    let any = SocketAddr::from((HOME, 0));
    let (mqtt, _serving) = switch_on(&printer, any).await;
    let camera = Camera::new().code(CODE).every(Duration::from_millis(200));
    let rtsp = Rtsp::new().code(CODE);
    let shows_pictures = model == Model::P1S;
    // A closed port, for the camera that this printer does not have.
    let unused = TcpSocket::new_v4().unwrap();
    unused.bind(any).unwrap();
    let closed = unused.local_addr().unwrap();
    let (chamber_at, rtsp_at) = if shows_pictures {
        let (at, watching) = camera.listen_tls(any, model).await.unwrap();
        spawn_local(watching);
        (at, closed)
    } else {
        let (at, playing) = rtsp.listen_tls(any, model).await.unwrap();
        spawn_local(playing);
        let (tunnel, digging) = Tunnel::new().code(CODE).listen_tls(any, model).await.unwrap();
        spawn_local(digging);
        (tunnel, at)
    };
    let family = if shows_pictures { Family::Esp32 } else { Family::Vsftpd };
    let files = FileServer::new(family).code(CODE);
    files.put("/a.3mf", &[7; 30_000]);
    let (ftp, serving) = files.listen_tls(any, model).await.unwrap();
    spawn_local(serving);

    let dir = StateDir::new();
    let mut command =
        command(["--services", "mqtt,camera,ftp,detect,http", "-p", "127.0.0.1", "-a", CODE]);
    command.args(["-s", printer.serial(), "--bind", "127.0.0.1", "--printer-ca", PRINTER_CA]);
    // Files are not relayed: that holds the most.
    command.args(["--ftp-mode=proxy", "--port", "mqtt=0,chamber=0,tunnel=0,rtsp=0,ftp=0"]);
    command.args(["--port", "detect=0,detect-tls=0,http=0"]);
    command.arg("--state-dir").arg(dir.path()).arg("--printer-port");
    let ports = [mqtt, chamber_at, rtsp_at, ftp].map(|at| at.port());
    command
        .arg(format!("mqtt={},chamber={},rtsp={},ftp={}", ports[0], ports[1], ports[2], ports[3]))
        .arg(format!("--printer-port=detect={}", closed.port()));
    let proxy = Proxy::start(command, dir).await;
    proxy.live().await;
    let mut at = [any; 7];
    for (at, service) in at.iter_mut().zip(SERVICE) {
        // An X1C has a file tunnel where others have the chamber camera.
        let name = match service {
            "chamber" if !shows_pictures => "tunnel",
            // Closed, as at the printer: its attackers go to the chamber camera.
            "rtsp" if shows_pictures => "chamber",
            _ => service,
        };
        let line = proxy.program.line(&format!("{name:<8} listening on ")).await;
        *at = line.split_once(" on ").unwrap().1.split(',').next().unwrap().parse().unwrap();
    }
    let town = Rc::new(Town { proxy, at, request_topic: printer.request_topic() });

    let good = Rc::new(Good::default());
    spawn_local(reads(Rc::clone(&town), Rc::clone(&good)));
    if shows_pictures {
        spawn_local(watches(Rc::clone(&town), Rc::clone(&good)));
    } else {
        spawn_local(plays(Rc::clone(&town), Rc::clone(&good)));
    }
    spawn_local(lists(Rc::clone(&town), Rc::clone(&good)));
    let camera_is = if shows_pictures { 1 } else { 2 };
    good.has_grown([0; 4], camera_is).await;
    let idle = town.proxy.program.memory("VmRSS:");

    // Twice: caches for clients that return, such as TLS sessions, are filled in the first round.
    let mut seen = Seen::default();
    let attacks = Rc::new(Attacks::default());
    let mut held = [0; 2];
    for (held, tenths) in held.iter_mut().zip([2, 8]) {
        let mut there = JoinSet::new();
        attackers::all(&town, &attacks, &mut there);
        attacks.have_taken_all(if shows_pictures { &[0, 1, 3] } else { &[0, 2, 3] }).await;
        for _ in 0..tenths {
            let before = good.counts();
            let end = Instant::now() + time / 10;
            while Instant::now() < end {
                sleep(Duration::from_millis(100)).await;
                seen.look(&town);
            }
            // However busy it is, a well-behaved client is served.
            good.has_grown(before, camera_is).await;
        }
        there.shutdown().await;
        *held = at_rest(&town).await;
    }

    let (_, heap) = town.asked_heap().await;
    let [peak, code] = ["VmHWM:", "RssFile:"].map(|figure| town.proxy.program.memory(figure));
    println!("{} before a {model:?} for {} s: {attacks}", BOARD.name, time.as_secs());
    println!("served meanwhile: {:?}; held when all had gone: {held:?} KiB", good.counts());
    println!(
        "| `{}` | {model:?} | {} s | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} of {FILES} |",
        BOARD.name,
        time.as_secs(),
        mib(TOTAL),
        mib(heap * 1024),
        mib(idle),
        mib(peak),
        mib(code),
        seen.files,
    );
    assert!(heap * 1024 <= TOTAL, "the heap held {heap} KiB");
    assert!(peak <= code + BOARD.memory + OUTSIDE, "{peak} bytes were resident");
    assert!(seen.files <= FILES, "{} files were open", seen.files);
    assert!(held[1] <= held[0] + 16, "{held:?} KiB: something was kept");
    assert!(attackers::is_detected(&town).await, "detect answers again");
    assert!(attackers::is_alive(&town).await, "HTTP answers again");
    let log = town.proxy.program.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(printer.most_open(), 1, "the printer has one connection");
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// What is held once everybody else has gone and nothing is given back any more, in KiB.
async fn at_rest(town: &Town) -> usize {
    let mut before = usize::MAX;
    loop {
        // As long as an FTP client's data port, and the printer's FTP session, may outlive their use.
        sleep(Duration::from_secs(5)).await;
        let (held, _) = town.asked_heap().await;
        if held >= before {
            return before;
        }
        before = held;
    }
}

/// The most there ever was.
#[derive(Default)]
struct Seen {
    files: usize,
}

impl Seen {
    fn look(&mut self, town: &Town) {
        self.files = self.files.max(town.files());
    }
}

/// What the good clients have got so far: reports, pictures, pictures of a player, answers about files.
#[derive(Default)]
struct Good([Cell<u64>; 4]);

impl Good {
    fn got(&self, service: usize) {
        self.0[service].set(self.0[service].get() + 1);
    }

    fn counts(&self) -> [u64; 4] {
        self.0.each_ref().map(Cell::get)
    }

    /// Each of them gets something more; of the cameras there is one.
    async fn has_grown(&self, before: [u64; 4], camera: usize) {
        for service in [0, camera, 3] {
            let grows = async {
                while self.0[service].get() <= before[service] {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let served = timeout(PATIENCE, grows).await;
            assert!(served.is_ok(), "the good client of {} is not served", SERVICE[service]);
        }
    }
}

async fn reads(town: Rc<Town>, good: Rc<Good>) {
    let mut client = town.proxy.reader(HOME, "good").await;
    loop {
        let packet = client.next().await.expect("the proxy keeps the connection");
        if packet.kind() == PUBLISH {
            good.got(0);
        }
    }
}

async fn watches(town: Rc<Town>, good: Rc<Good>) {
    let mut stream = town.tls(HOME, 1).await.expect("it is let in");
    stream.write_all(&login(CODE)).await.unwrap();
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.expect("the proxy keeps the connection");
        let mut picture = vec![0; u32::from_le_bytes(head[..4].try_into().unwrap()) as usize];
        stream.read_exact(&mut picture).await.expect("a whole picture");
        assert!(picture.starts_with(&[0xff, 0xd8]) && picture.ends_with(&[0xff, 0xd9]));
        good.got(1);
    }
}

async fn plays(town: Rc<Town>, good: Rc<Good>) {
    let mut player = Player::over(town.tls(HOME, 2).await.expect("it is let in"));
    player = player.knowing(Scheme::Md5Qop, CODE);
    let uri = format!("rtsps://{}/streaming/live/1", town.at[2]);
    assert_eq!(player.describe(&uri).await.status, 200);
    assert_eq!(player.setup("0-1").await.status, 200);
    assert_eq!(player.play(&uri).await.status, 200);
    loop {
        player.frame().await;
        good.got(2);
    }
}

async fn lists(town: Rc<Town>, good: Rc<Good>) {
    let stream = town.tls(HOME, 3).await.expect("it is let in");
    let mut stream = BufReader::new(stream);
    let user = "USER bblp".to_owned();
    for line in [user, format!("PASS {CODE}"), "SIZE /a.3mf".to_owned()] {
        let told = ask(&mut stream, &line).await;
        assert!(told.starts_with('2') || told.starts_with('3'), "{line}: {told}");
    }
    loop {
        let told = ask(&mut stream, "NOOP").await;
        assert!(told.starts_with('2'), "{told}");
        good.got(3);
        sleep(Duration::from_millis(200)).await;
    }
}

/// A line, and the last line of the answer to it, or of the greeting.
async fn ask(stream: &mut BufReader<TlsStream<TcpStream>>, line: &str) -> String {
    stream
        .write_all(format!("{line}\r\n").as_bytes())
        .await
        .expect("the proxy keeps the connection");
    stream.flush().await.unwrap();
    loop {
        let mut told = String::new();
        let len = stream.read_line(&mut told).await.expect("the proxy keeps the connection");
        assert!(len > 0, "the proxy keeps the connection");
        if told.as_bytes().get(3) == Some(&b' ') && !told.starts_with("220 ") {
            return told;
        }
    }
}

/// The `number`th machine of those that attack `service` in this `way`.
pub(crate) fn machine(service: usize, way: usize, number: usize) -> Ipv4Addr {
    let small = |number: usize| u8::try_from(number).unwrap();
    Ipv4Addr::new(127, 1 + small(service), 1 + small(way), 1 + small(number))
}
