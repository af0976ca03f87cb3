//! What a picture costs over HTTP: `BOARD=generic-x86_64 cargo bench --bench http`.
//!
//! ```text
//!   a camera ── pandaproxy, /stream.mjpg ──┐
//!                                          ├── 1, 4, 16, 32 viewers, 15 pictures a second each
//!   the same JPEGs as files ── nginx ──────┘
//! ```
//!
//! The camera and the viewers are in this process, on a thread each. `nginx` serves the camera's pictures as files, by
//! `sendfile`, in one process without a log; its viewers ask for one after the other on a connection that stays open.
//! That is less than the proxy does, which also receives, decrypts and frames each picture.
//!
//! # What is measured
//!
//! - CPU: what the scheduler has charged the program with in the middle of a row, over the bytes of the
//!   pictures that viewers got meanwhile.
//! - Lost: pictures that the proxy's viewers did not get, as gaps in the numbers.
//! - Memory: the most the process ever had (`VmHWM`), and the most the proxy's heap ever held. What a viewer takes is the
//!   difference of two rows over that of their viewers.
//!
//! It takes about two minutes and judges nothing: a machine may be slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot go on should say so and stop"
)]

#[path = "../harness.rs"]
mod harness;
#[path = "../mqtt/process.rs"]
mod process;

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pandaproxy::board::BOARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use printer::Model;
use printer::camera::Camera;
use printer::jpeg::picture_number;
use process::ports::Refusing;
use process::{Process, free_port};

const CODE: &str = "12345678";
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");

/// Between two pictures.
const FRAME: Duration = Duration::from_micros(66_667);
/// The camera's pictures that nginx serves.
const FILES: u32 = 8;
/// Before a row is looked at, and how long.
const WARM: Duration = Duration::from_millis(1500);
const LOOK: Duration = Duration::from_secs(8);
/// How long starting and joining may take.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What is before the viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Proxy,
    Nginx,
}

#[derive(Default)]
struct Seen {
    /// Viewers that have a picture.
    joined: AtomicU64,
    bytes: AtomicU64,
    pictures: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

fn main() -> ExitCode {
    harness::run("http", measure)
}

fn measure(folder: &Path) -> io::Result<()> {
    let most = BOARD.clients.chamber.min(BOARD.clients.http);
    println!("\n| viewers | way | s/GB | MB | pictures | lost | heap | resident |");
    println!("|---:|---|---:|---:|---:|---:|---:|---:|");
    for viewers in [1, 4, 16, 32].map(|viewers: usize| viewers.min(most)) {
        for way in [Way::Proxy, Way::Nginx] {
            println!("{}", run(way, viewers, folder)?);
        }
    }
    Ok(())
}

/// A row of the table.
fn run(way: Way, viewers: usize, folder: &Path) -> io::Result<String> {
    let port = free_port();
    let process = match way {
        Way::Proxy => {
            let no_rtsp = Refusing::new();
            let to = format!("chamber={},rtsp={}", film()?.port(), no_rtsp.port());
            let at = format!("chamber=0,http={port}");
            Process::proxy(Model::P1S.serial(), "camera,http", &to, &at, folder)?
        }
        Way::Nginx => nginx(port, folder)?,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let end = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            return Err(io::Error::other(process.said()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen = Arc::new(Seen::default());
    let watched = Arc::clone(&seen);
    let watching = std::thread::spawn(move || watch(way, address, viewers, &watched));
    while seen.joined.load(Relaxed) < viewers as u64 {
        if Instant::now() > end + START_TIMEOUT {
            return Err(io::Error::other(process.said()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(WARM);
    let figures =
        || (process.cpu(), [&seen.bytes, &seen.pictures, &seen.lost].map(|all| all.load(Relaxed)));
    let before = figures();
    std::thread::sleep(LOOK);
    let after = figures();
    let heap = match way {
        Way::Proxy => {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(process.heap_peak())
        }
        Way::Nginx => None,
    };
    let heap = heap.map_or("–".to_owned(), |heap| format!("{heap} KiB"));
    let resident = process.resident().most;
    seen.over.store(true, Relaxed);
    drop(process);
    let _ended = watching.join();
    let [bytes, pictures, lost] = core::array::from_fn(|at| after.1[at] - before.1[at]);
    let (spent, megabytes) = ((after.0 - before.0).as_secs_f64(), bytes as f64 / 1e6);
    let per_gb = spent / megabytes * 1e3;
    let name = if way == Way::Proxy { "pandaproxy" } else { "nginx" };
    Ok(format!(
        "| {viewers} | {name} | {per_gb:.2} | {megabytes:.1} | {pictures} | {lost} | {heap} | {resident} KiB |"
    ))
}

/// A camera on a thread of its own, for as long as the process lives; where it is.
fn film() -> io::Result<SocketAddr> {
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let camera = Camera::new().code(CODE).every(FRAME);
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let (at, filming) = camera.listen_tls(anywhere, Model::P1S).await.unwrap();
            say.send(at).unwrap();
            filming.await;
        });
    });
    hear.recv().map_err(io::Error::other)
}

/// `nginx` before the camera's pictures as files.
fn nginx(port: u16, folder: &Path) -> io::Result<Process> {
    let camera = Camera::new();
    for number in 0..FILES {
        fs::write(folder.join(format!("{number}.jpg")), &*camera.picture(number))?;
    }
    let given = folder.join("nginx.conf");
    let text = format!(
        "daemon off;\n\
         master_process off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr warn;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
           access_log off;\n\
           sendfile on;\n\
           tcp_nodelay on;\n\
           keepalive_requests 1000000;\n\
           types {{ image/jpeg jpg; }}\n\
           server {{ listen 127.0.0.1:{port}; root {folder}; }}\n\
         }}\n",
        folder = folder.display(),
    );
    fs::write(&given, text)?;
    // Where Debian has it.
    let debians = "/usr/sbin/nginx";
    let mut command = Command::new(if Path::new(debians).exists() { debians } else { "nginx" });
    command.arg("-p").arg(folder).arg("-c").arg(&given).args(["-e", "stderr"]);
    Process::start(&mut command, folder.join("nginx.log"))
}

/// The viewers, on a thread of their own.
fn watch(way: Way, address: SocketAddr, viewers: usize, seen: &Arc<Seen>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        for _ in 0..viewers {
            let seen = Arc::clone(seen);
            spawn_local(async move {
                // A viewer that is closed at the end of its row has done its part.
                let _closed = match way {
                    Way::Proxy => view_stream(address, &seen).await,
                    Way::Nginx => view_files(address, &seen).await,
                };
            });
        }
        while !seen.over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

type Stream = BufReader<tokio::net::TcpStream>;

/// Reads a head, and returns the length that it names.
async fn length(stream: &mut Stream) -> io::Result<usize> {
    let (mut len, mut line) = (0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(text) = line.strip_prefix("Content-Length: ") {
            len = text.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            return Ok(len);
        }
    }
}

async fn join(address: SocketAddr) -> io::Result<Stream> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}

fn note(seen: &Seen, picture: &[u8]) {
    seen.bytes.fetch_add(picture.len() as u64, Relaxed);
    seen.pictures.fetch_add(1, Relaxed);
}

async fn view_stream(address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let mut stream = join(address).await?;
    let login = STANDARD.encode(format!("bblp:{CODE}"));
    let request = format!(
        "GET /stream.mjpg HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\n\r\n"
    );
    stream.get_mut().write_all(request.as_bytes()).await?;
    length(&mut stream).await?;
    let (mut picture, mut last) = (Vec::new(), None);
    loop {
        picture.resize(length(&mut stream).await?, 0);
        stream.read_exact(&mut picture).await?;
        // The line end behind the picture.
        stream.read_u16().await?;
        note(seen, &picture);
        let number = u64::from(picture_number(&picture).ok_or(io::ErrorKind::InvalidData)?);
        match last.replace(number) {
            Some(last) => drop(seen.lost.fetch_add(number.saturating_sub(last + 1), Relaxed)),
            None => drop(seen.joined.fetch_add(1, Relaxed)),
        }
    }
}

async fn view_files(address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let mut stream = join(address).await?;
    let mut picture = Vec::new();
    let mut every = tokio::time::interval(FRAME);
    for number in 0_u32.. {
        every.tick().await;
        let request = format!("GET /{}.jpg HTTP/1.1\r\nHost: {address}\r\n\r\n", number % FILES);
        stream.get_mut().write_all(request.as_bytes()).await?;
        picture.resize(length(&mut stream).await?, 0);
        stream.read_exact(&mut picture).await?;
        note(seen, &picture);
        if number == 0 {
            seen.joined.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}
