//! What a watched minute costs: `BOARD=generic-x86_64 cargo bench --bench rtsp`.
//!
//! ```text
//!                        ┌── pandaproxy (one session) ──────────┐
//!   a camera, 4 Mbit/s ──┼── nginx, stream (one for each player) ├── 1, 4, 8, 16 players
//!                        └──────────────────────────────────────┘
//! ```
//!
//! The camera is the simulated one, TLS 1.2 as the printers have it; it and the [players](players) are in
//! this process, on a thread each. `nginx` ends TLS and opens it again, with the certificate and the key
//! of the proxy, in one process without a log. Players speak TLS 1.3 with AES-128-GCM to all.
//!
//! # What is measured
//!
//! - CPU: what the scheduler has charged the program with in the middle of a row, over the bytes that
//!   players got meanwhile.
//! - Latency: from when the camera makes a picture into packets until a player has the last of them. What
//!   a program adds is the difference to players that watch the camera itself.
//! - Lost: pictures that players did not get, by the numbers that the camera writes into them, and gaps
//!   in RTP sequence numbers.
//! - Memory: the most the process ever had (`VmHWM`), and the most the proxy's heap ever held.
//!
//! It takes about three minutes and judges nothing: a machine may be slow. The last lines say which aims
//! this run has met.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot go on should say so and stop"
)]

#[path = "../../support/clients/anybody.rs"]
mod anybody;
#[path = "../harness.rs"]
mod harness;
mod players;
#[path = "../mqtt/process.rs"]
mod process;
#[path = "../../support/clients/rtsp.rs"]
#[allow(dead_code, reason = "a player needs a part of it")]
mod rtsp;

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use players::Seen;
use printer::rtsp::{Media, Rtsp};
use printer::{Model, Tunnel};
use process::{Process, free_port};

const CODE: &str = "12345678";
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");
const MODEL: Model = Model::X1C;

/// Players at once.
const COUNTS: [usize; 4] = [1, 4, 8, 16];
/// Pictures a second, in a group, and the bytes of its key and of the others: 4 Mbit/s.
const RATE: u32 = 30;
const GROUP: usize = 60;
const KEY: usize = 100_000;
const OTHER: usize = 15_254;
/// Before a row is looked at, and how long.
const WARM: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(10);
/// How long starting and joining may take.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What the proxy may have in memory, in KiB.
const RESIDENT_AIM: u64 = 8 * 1024;

/// Before everything; stamps count from here.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is between the camera and its players.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Proxy,
    Nginx,
}

/// What has been seen of a way with so many players.
struct Row {
    way: Way,
    players: usize,
    /// Seconds of CPU for a GB.
    per_gb: Option<f64>,
    megabytes: f64,
    pictures: u64,
    lost: u64,
    gaps: u64,
    /// Half, and 99 of 100, in microseconds.
    latency: (u64, u64),
    heap: Option<u64>,
    resident: Option<u64>,
}

fn main() -> ExitCode {
    LazyLock::force(&BEGAN);
    harness::run("rtsp", measure)
}

fn measure(folder: &Path) -> io::Result<()> {
    let most = pandaproxy::board::BOARD.clients.rtsp;
    if most < COUNTS[COUNTS.len() - 1] {
        let name = pandaproxy::board::BOARD.name;
        return Err(io::Error::other(format!(
            "board {name} takes {most} players: run it with BOARD=generic-x86_64"
        )));
    }
    println!(
        "\n| players | way | s/GB | MB | p50 | p99 | pictures | lost | gaps | heap | resident |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut rows = Vec::new();
    for players in COUNTS {
        for way in [Way::Direct, Way::Proxy, Way::Nginx] {
            let row = run(way, players, folder)?;
            println!("{row}");
            rows.push(row);
        }
    }
    aims(&rows);
    Ok(())
}

fn run(way: Way, players: usize, folder: &Path) -> io::Result<Row> {
    let (camera, tunnel) = film()?;
    // It writes the certificate that nginx shows as well.
    let proxy = proxy(camera.port(), tunnel.port(), folder)?;
    let (address, process) = match way {
        Way::Direct => (camera, None),
        Way::Proxy => (listening(&proxy)?, Some(proxy)),
        Way::Nginx => {
            listening(&proxy)?;
            drop(proxy);
            let (address, nginx) = nginx(camera, folder)?;
            (address, Some(nginx))
        }
    };
    let seen = Arc::new(Seen::default());
    let watched = Arc::clone(&seen);
    let watching = std::thread::spawn(move || players::watch(address, players, &watched));
    let end = Instant::now() + START_TIMEOUT;
    while seen.joined.load(Relaxed) < players {
        if Instant::now() > end || watching.is_finished() {
            let said = process.as_ref().map(Process::said).unwrap_or_default();
            return Err(io::Error::other(format!("{way:?}: not all of {players} play\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(WARM);
    let figures = || {
        let spent = process.as_ref().map(Process::cpu);
        (spent, [&seen.bytes, &seen.pictures, &seen.lost, &seen.gaps].map(|all| all.load(Relaxed)))
    };
    seen.noting.store(true, Relaxed);
    let before = figures();
    std::thread::sleep(LOOK);
    let after = figures();
    seen.noting.store(false, Relaxed);
    let heap = match (&process, way) {
        (Some(proxy), Way::Proxy) => {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(proxy.heap_peak())
        }
        _ => None,
    };
    let resident = process.as_ref().map(|process| process.resident().most);
    seen.over.store(true, Relaxed);
    if watching.join().is_err() {
        return Err(io::Error::other(format!("{way:?}: a player has failed")));
    }
    drop(process);
    let [bytes, pictures, lost, gaps] = core::array::from_fn(|at| after.1[at] - before.1[at]);
    let mut noted = core::mem::take(&mut *seen.noted.lock().unwrap());
    noted.sort_unstable();
    let at = |part: usize| noted.get(noted.len() * part / 100).copied().unwrap_or(0);
    let spent = after.0.zip(before.0).map(|(after, before)| after - before);
    Ok(Row {
        way,
        players,
        per_gb: spent.map(|spent| spent.as_secs_f64() / (bytes as f64 / 1e9)),
        megabytes: bytes as f64 / 1e6,
        pictures,
        lost,
        gaps,
        latency: (at(50), at(99)),
        heap,
        resident,
    })
}

/// A camera on a thread of its own, for as long as the process lives; where it and its tunnel are.
fn film() -> io::Result<(SocketAddr, SocketAddr)> {
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let camera = Rtsp::new()
                .code(CODE)
                .sessions(COUNTS[COUNTS.len() - 1] + 1)
                .showing(Media::made(RATE, GROUP, KEY, OTHER))
                .stamping(players::stamp);
            let (at, filming) = camera.listen_tls(anywhere, MODEL).await.unwrap();
            let tunnel = Tunnel::new().code(CODE);
            let (tunnel_at, tunnelling) = tunnel.listen_tls(anywhere, MODEL).await.unwrap();
            spawn_local(tunnelling);
            say.send((at, tunnel_at)).unwrap();
            filming.await;
        });
    });
    hear.recv().map_err(io::Error::other)
}

fn proxy(camera: u16, tunnel: u16, folder: &Path) -> io::Result<Process> {
    let to = format!("chamber={tunnel},rtsp={camera}");
    Process::proxy(MODEL.serial(), "camera", &to, "chamber=0", folder)
}

/// Where the proxy serves its players, once it does and has found the camera.
fn listening(proxy: &Process) -> io::Result<SocketAddr> {
    let end = Instant::now() + START_TIMEOUT;
    while Instant::now() < end {
        let said = proxy.said();
        if let Some((_, rest)) = said.split_once("rtsp     listening")
            && said.contains("the printer has an RTSPS camera")
            && let Some((_, address)) = rest.split_once(" on ")
            && let Some(address) = address.split([',', '\n', ' ']).next()
        {
            return address.parse().map_err(io::Error::other);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other(proxy.said()))
}

/// `nginx` before the camera, with what the proxy shows.
fn nginx(camera: SocketAddr, folder: &Path) -> io::Result<(SocketAddr, Process)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let given = folder.join("nginx.conf");
    let text = format!(
        "load_module {MODULE};\n\
         daemon off;\n\
         master_process off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections 256; }}\n\
         stream {{\n\
           ssl_certificate {folder}/ecdsa.pem;\n\
           ssl_certificate_key {folder}/ecdsa.key;\n\
           ssl_protocols TLSv1.3;\n\
           ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n\
           tcp_nodelay on;\n\
           proxy_ssl on;\n\
           proxy_ssl_verify off;\n\
           proxy_ssl_protocols TLSv1.2;\n\
           server {{ listen {address} ssl; proxy_pass {camera}; }}\n\
         }}\n",
        folder = folder.display(),
    );
    fs::write(&given, text)?;
    let known = if Path::new(NGINX).exists() { NGINX } else { "nginx" };
    let mut command = Command::new(known);
    command.arg("-p").arg(folder).arg("-c").arg(&given).args(["-e", "stderr"]);
    let nginx = Process::start(&mut command, folder.join("nginx.log"))?;
    let end = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            return Err(io::Error::other(nginx.said()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((address, nginx))
}

/// Where Debian has them.
const NGINX: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Says which aims were met.
fn aims(rows: &[Row]) {
    let find = |way, players| rows.iter().find(|row| row.way == way && row.players == players);
    let word = |met: bool| if met { "met" } else { "not met" };
    println!();
    for players in COUNTS {
        let [Some(direct), Some(proxy), Some(nginx)] =
            [Way::Direct, Way::Proxy, Way::Nginx].map(|way| find(way, players))
        else {
            continue;
        };
        let added = |row: &Row| (row.latency.0 as f64 - direct.latency.0 as f64) / 1000.0;
        if let (Some(ours), Some(theirs)) = (proxy.per_gb, nginx.per_gb) {
            println!(
                "{players} players: {ours:.2} s/GB beside nginx's {theirs:.2}, less: {}; {:+.2} ms \
                 beside {:+.2} ms added to the half of all pictures.",
                word(ours < theirs),
                added(proxy),
                added(nginx)
            );
        }
    }
    let own = || rows.iter().filter(|row| row.way == Way::Proxy);
    let resident = own().filter_map(|row| row.resident).max().unwrap_or_default();
    println!(
        "Peak resident {resident} KiB, below {RESIDENT_AIM}: {}.",
        word(resident < RESIDENT_AIM)
    );
    let lost: u64 = own().map(|row| row.lost + row.gaps).sum();
    println!("Pictures and packets lost: {lost}, none: {}.", word(lost == 0));
}

impl core::fmt::Display for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kib = |figure: Option<u64>| figure.map_or("–".to_owned(), |kib| format!("{kib} KiB"));
        write!(
            f,
            "| {} | {} | {} | {:.1} | {:.2} ms | {:.2} ms | {} | {} | {} | {} | {} |",
            self.players,
            match self.way {
                Way::Direct => "direct",
                Way::Proxy => "pandaproxy",
                Way::Nginx => "nginx",
            },
            self.per_gb.map_or("–".to_owned(), |cost| format!("{cost:.2}")),
            self.megabytes,
            self.latency.0 as f64 / 1000.0,
            self.latency.1 as f64 / 1000.0,
            self.pictures,
            self.lost,
            self.gaps,
            kib(self.heap),
            kib(self.resident),
        )
    }
}
