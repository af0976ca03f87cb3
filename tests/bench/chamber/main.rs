//! What a picture costs: `BOARD=generic-x86_64 cargo bench --bench chamber`.
//!
//! ```text
//!   a camera ── pandaproxy ── 1, 4, 16, 32 viewers, and 4 that never read
//! ```
//!
//! The camera and the viewers are in this process, on two threads of their own; the proxy is the real
//! binary, started anew for each row. Pictures are real 1280×720 JPEGs of 42 to 118 KB. The camera
//! writes when it took each into the picture's own comment, and the viewer reads it there.
//!
//! # What is measured
//!
//! - CPU: what the scheduler has charged the proxy with in the middle of a row, over the bytes of the
//!   pictures that were delivered meanwhile.
//! - Encryption alone: the same records (a head of 16 bytes in its own, the picture in pieces of at most
//!   `tls::UNSENT`) sealed by rustls with the suite the viewers have, into nothing, in this process.
//! - Latency: from before the camera writes a picture until a viewer has all of it.
//! - Lost: pictures that viewers who read at once did not get, as gaps in the numbers.
//! - Memory: the most the process ever had (`VmHWM`), and the most its heap ever held.
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
#[path = "../mqtt/process.rs"]
mod process;

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use pandaproxy::tls::UNSENT;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use anybody::Anybody;
use printer::Model;
use printer::camera::{Camera, header, login};
use printer::tls::Shown;
use process::ports::Refusing;
use process::{Process, free_port};

const CODE: &str = "12345678";
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");

/// Viewers that never read, in the rows that have them.
const STALLED: usize = 4;
/// Before a row is looked at, and how long.
const WARM: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_secs(5);
/// How long starting and joining may take.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Latencies noted in a row; past it no more are.
const MAX_NOTED: usize = 100_000;
/// Where in a picture its comment's 18 bytes are.
const STAMP: core::ops::Range<usize> = 24..42;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Clone, Copy)]
struct Load {
    viewers: usize,
    /// Between two pictures; zero is as fast as the proxy takes them.
    every: Duration,
    stalled: bool,
}

#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    pictures: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
    noting: AtomicBool,
    noted: Mutex<Vec<u64>>,
}

struct Row {
    load: Load,
    per_gb: f64,
    pictures: u64,
    lost: u64,
    latency: (u64, u64),
    heap: u64,
    resident: u64,
}

fn main() -> ExitCode {
    LazyLock::force(&BEGAN);
    harness::run("chamber", measure)
}

fn measure(folder: &Path) -> io::Result<()> {
    let pictures = pictures();
    let frame = Duration::from_micros(66_667);
    let counts = [1, 4, 16, 32].map(|n| n.min(pandaproxy::board::BOARD.clients.chamber));
    println!(
        "\n| viewers | pace | stalled | s/GB | alone | times | above | p50 | p99 | pictures | lost | heap | resident |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut rows = Vec::new();
    let mut alones = Vec::new();
    for every in [frame, Duration::ZERO] {
        for viewers in counts {
            for stalled in [false, true] {
                // Some places are the stalled ones', so that no viewer finds none.
                let most = pandaproxy::board::BOARD.clients.chamber;
                let viewers = if stalled { viewers.min(most - STALLED) } else { viewers };
                // DataDialler each row, so that both have the same weather.
                let alone = encryption_alone(&pictures)?;
                let row = run(Load { viewers, every, stalled }, &pictures, folder)?;
                println!(
                    "| {} | {} | {} | {:.2} | {alone:.2} | {:.2} | {:.2} | {:.1} ms | {:.1} ms | {} | {} | {} KiB | {} KiB |",
                    row.load.viewers,
                    if every.is_zero() { "flat out" } else { "15 fps" },
                    if stalled { STALLED } else { 0 },
                    row.per_gb,
                    row.per_gb / alone,
                    row.per_gb - alone,
                    row.latency.0 as f64 / 1000.0,
                    row.latency.1 as f64 / 1000.0,
                    row.pictures,
                    row.lost,
                    row.heap,
                    row.resident,
                );
                alones.push(alone);
                rows.push(row);
            }
        }
    }
    let worst = |of: &dyn Fn(&Row) -> u64| rows.iter().map(of).max().unwrap_or_default();
    println!("\nPeak resident {} KiB, aim 8192.", worst(&|row| row.resident));
    let lost = rows.iter().filter(|row| !row.load.every.is_zero()).map(|row| row.lost).sum::<u64>();
    println!("Lost at 15 fps by viewers that keep up: {lost}, aim 0.");
    for (row, alone) in rows.iter().zip(alones) {
        if row.load.every.is_zero() && row.load.viewers >= 28 {
            let above = row.per_gb - alone;
            println!(
                "Flat out at {}: {above:.2} s/GB above encryption, aim 0.45.",
                row.load.viewers
            );
        }
    }
    Ok(())
}

fn run(load: Load, pictures: &[Vec<u8>], folder: &Path) -> io::Result<Row> {
    let seen = Arc::new(Seen::default());
    let camera = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let camera_port = camera.local_addr()?.port();
    let shown: Vec<Vec<u8>> = pictures.to_vec();
    let told = Arc::clone(&seen);
    std::thread::spawn(move || film(&camera, &shown, load.every, &told));

    let port = free_port();
    let no_rtsp = Refusing::new();
    let to = format!("chamber={camera_port},rtsp={}", no_rtsp.port());
    let at = format!("chamber={port}");
    let proxy = Process::proxy(Model::P1S.serial(), "camera", &to, &at, folder)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let end = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            return Err(io::Error::other(proxy.said()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let watched = Arc::clone(&seen);
    let watching = std::thread::spawn(move || watch(address, load, &watched));
    while seen.pictures.load(Relaxed) < load.viewers as u64 {
        if Instant::now() > end + START_TIMEOUT {
            return Err(io::Error::other(proxy.said()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(WARM);
    let figures = || {
        let bytes = seen.bytes.load(Relaxed);
        (proxy.cpu(), bytes, seen.pictures.load(Relaxed), seen.lost.load(Relaxed))
    };
    seen.noting.store(true, Relaxed);
    let before = figures();
    std::thread::sleep(LOOK);
    let after = figures();
    seen.noting.store(false, Relaxed);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let heap = runtime.block_on(proxy.heap_peak()).unwrap_or_default();
    let resident = proxy.resident().most;
    seen.over.store(true, Relaxed);
    drop(proxy);
    let _ended = watching.join();
    let mut noted = core::mem::take(&mut *seen.noted.lock().unwrap());
    noted.sort_unstable();
    let at = |part: f64| noted.get((noted.len() as f64 * part) as usize).copied().unwrap_or(0);
    let gigabytes = (after.1 - before.1) as f64 / 1e9;
    Ok(Row {
        load,
        per_gb: (after.0 - before.0).as_secs_f64() / gigabytes,
        pictures: after.2 - before.2,
        lost: after.3 - before.3,
        latency: (at(0.5), at(0.99)),
        heap,
        resident,
    })
}

/// The simulated camera's pictures, one of each kind.
fn pictures() -> Vec<Vec<u8>> {
    let camera = Camera::new();
    (0..8).map(|number| camera.picture(number).to_vec()).collect()
}

/// A camera for one viewer after another, on a thread of its own.
fn film(listener: &TcpListener, pictures: &[Vec<u8>], every: Duration, seen: &Seen) {
    let config = Shown::own(Model::P1S).config(Model::P1S).unwrap();
    let mut number = 0u64;
    while !seen.over.load(Relaxed) {
        let Ok((socket, _)) = listener.accept() else { return };
        socket.set_nodelay(true).unwrap();
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let mut given = [0; 80];
        if stream.read_exact(&mut given).is_err() || given != login(CODE) {
            continue;
        }
        let mut next = Instant::now();
        while !seen.over.load(Relaxed) {
            let mut picture = pictures[number as usize % pictures.len()].clone();
            let stamp = format!("{:08}{:010}", number % 100_000_000, BEGAN.elapsed().as_micros());
            picture[STAMP].copy_from_slice(stamp.as_bytes());
            number += 1;
            let head = header(u32::try_from(picture.len()).unwrap());
            let sent = stream.write_all(&head).and_then(|()| stream.flush());
            if sent.and_then(|()| stream.write_all(&picture)).and_then(|()| stream.flush()).is_err()
            {
                break;
            }
            next += every;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// The viewers, on a thread of their own.
fn watch(address: SocketAddr, load: Load, seen: &Arc<Seen>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let tls = TlsConnector::from(viewers_tls());
        for _ in 0..load.viewers {
            let (tls, seen) = (tls.clone(), Arc::clone(seen));
            spawn_local(async move {
                // A viewer that is closed at the end of its row has done its part.
                let _closed = view(&tls, address, &seen).await;
            });
        }
        if load.stalled {
            for _ in 0..STALLED {
                let (tls, seen) = (tls.clone(), Arc::clone(seen));
                spawn_local(async move {
                    while !seen.over.load(Relaxed) {
                        let Ok(_held) = join(&tls, address).await else { return };
                        // The proxy closes it after five seconds; then the next one comes.
                        tokio::time::sleep(Duration::from_secs(6)).await;
                    }
                });
            }
        }
        while !seen.over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

type Watched = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn join(tls: &TlsConnector, address: SocketAddr) -> io::Result<Watched> {
    let socket = tokio::net::TcpStream::connect(address).await?;
    let mut stream = tls.connect(ServerName::from(address.ip()), socket).await?;
    stream.write_all(&login(CODE)).await?;
    stream.flush().await?;
    Ok(stream)
}

async fn view(tls: &TlsConnector, address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let mut stream = join(tls, address).await?;
    let mut picture = Vec::new();
    let mut last = None;
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head).await?;
        picture.resize(u32::from_le_bytes(head[..4].try_into().unwrap()) as usize, 0);
        stream.read_exact(&mut picture).await?;
        let stamp = core::str::from_utf8(&picture[STAMP]).unwrap();
        let (number, taken): (u64, u64) =
            (stamp[..8].parse().unwrap(), stamp[8..].parse().unwrap());
        let now = u64::try_from(BEGAN.elapsed().as_micros()).unwrap();
        if let Some(last) = last.replace(number) {
            seen.lost.fetch_add(number - last - 1, Relaxed);
        }
        seen.bytes.fetch_add(picture.len() as u64, Relaxed);
        seen.pictures.fetch_add(1, Relaxed);
        if seen.noting.load(Relaxed) {
            let mut noted = seen.noted.lock().unwrap();
            if noted.len() < MAX_NOTED {
                noted.push(now.saturating_sub(taken));
            }
        }
    }
}

/// Seconds for a GB of pictures, sealed as the proxy seals them and sent nowhere.
fn encryption_alone(pictures: &[Vec<u8>]) -> io::Result<f64> {
    const BYTES: usize = 400 << 20;
    let config = server_tls().map_err(io::Error::other)?;
    let mut server = ServerConnection::new(config).map_err(io::Error::other)?;
    let name = ServerName::from(core::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut client = ClientConnection::new(viewers_tls(), name).map_err(io::Error::other)?;
    let mut wire = Vec::with_capacity(64 * 1024);
    while server.is_handshaking() || client.is_handshaking() {
        wire.clear();
        client.write_tls(&mut wire)?;
        server.read_tls(&mut &wire[..])?;
        server.process_new_packets().map_err(io::Error::other)?;
        wire.clear();
        server.write_tls(&mut wire)?;
        client.read_tls(&mut &wire[..])?;
        client.process_new_packets().map_err(io::Error::other)?;
    }
    let spent = || -> io::Result<u64> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        text.split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .ok_or(io::ErrorKind::Other.into())
    };
    let before = spent()?;
    let mut sealed = 0;
    for picture in pictures.iter().cycle() {
        let head = header(u32::try_from(picture.len()).unwrap());
        for piece in core::iter::once(&head[..]).chain(picture.chunks(UNSENT)) {
            server.writer().write_all(piece)?;
            while server.wants_write() {
                wire.clear();
                server.write_tls(&mut wire)?;
            }
        }
        sealed += picture.len();
        if sealed >= BYTES {
            break;
        }
    }
    Ok((spent()? - before) as f64 / sealed as f64)
}

/// The server of the reference: any certificate will do, it is not verified.
fn server_tls() -> Result<Arc<rustls::ServerConfig>, Box<dyn core::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config))
}

/// TLS 1.3 with AES-128-GCM, which is what a board with AES instructions chooses.
fn viewers_tls() -> Arc<ClientConfig> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Arc::new(config)
}
