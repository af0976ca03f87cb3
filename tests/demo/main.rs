//! `cargo run --release --example demo`: two simulated printers, the proxy before each of them, and clients.
//!
//! A P1S has MQTT clients and camera viewers that come and go, and an uploader; an X1C has RTSPS players. Everything is on
//! loopback and on unprivileged ports, and files are written below the system's directory for temporary files only. On a
//! terminal one status block is redrawn, and the commands that join in stay above it; elsewhere a line a second is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a demonstration that cannot go on should say so and stop"
)]

#[path = "../support/clients/mod.rs"]
mod clients;

use core::cell::{Cell, RefCell};
use core::fmt::Write as _;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use pandaproxy::config::{Config, Intent};
use pandaproxy::memory::{KIB, heap};
use pandaproxy::runtime::launch::{self, Context, Proxy};
use pandaproxy::runtime::net::Sockets;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use clients::mqtt::Client;
use clients::rtsp::{self, Heard};
use printer::camera::{Camera, login};
use printer::ftp::{Family, FileServer};
use printer::jpeg::picture_number;
use printer::{Model, Printer, Rtsp};

const CODE: &str = "12345678";
/// MQTT clients at once.
const CLIENTS: usize = 6;
/// Viewers of the chamber camera at once.
const VIEWERS: usize = 3;
/// Players of the RTSPS camera.
const PLAYERS: usize = 2;
/// Bytes of each uploaded file.
const FILE: usize = 3 << 20;
/// Bytes that the printer's memory card takes in a second.
const CARD: u64 = 400_000;

/// Two simulated printers, the proxy before each of them, and clients, on loopback
#[derive(Parser)]
struct Args {
    /// End after so many seconds; without it, on Ctrl-C
    #[arg(long)]
    seconds: Option<u64>,
    /// Port of the proxy for MQTT clients
    #[arg(long, default_value_t = 18883)]
    port: u16,
    /// Port of the proxy for viewers of the chamber camera
    #[arg(long, default_value_t = 16000)]
    camera_port: u16,
    /// Port of the proxy for FTP clients
    #[arg(long, default_value_t = 10990)]
    ftp_port: u16,
    /// Port of the second proxy for players of the RTSPS camera
    #[arg(long, default_value_t = 10322)]
    rtsp_port: u16,
    /// Port of the simulated P1S; 0 is any free port
    #[arg(long, default_value_t = 0)]
    printer_port: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let state = State::new();
    runtime.block_on(demonstrate(&args, &state))
}

/// A directory for both proxies' certificates, removed in the end.
struct State(PathBuf);

impl State {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("pandaproxy-demo-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("x1c")).expect("a directory for temporary files");
        Self(dir)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's directory for temporary files.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// The simulated printers' services.
struct Printers {
    mqtt: Printer,
    chamber: Camera,
    files: FileServer,
    rtsp: Rtsp,
}

async fn demonstrate(args: &Args, state: &State) -> ExitCode {
    let printers = Printers {
        mqtt: Printer::new(Model::P1S).code(CODE),
        chamber: Camera::new().code(CODE).every(Duration::from_millis(200)),
        files: FileServer::new(Family::Esp32).code(CODE).rate(CARD),
        rtsp: Rtsp::new().code(CODE),
    };
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (mqtt, serving) = printers.mqtt.listen_tls(at(args.printer_port)).await.expect("a port");
    spawn_local(serving);
    let (chamber, serving) = printers.chamber.listen_tls(at(0), Model::P1S).await.expect("a port");
    spawn_local(serving);
    let (files, serving) = printers.files.listen_tls(at(0), Model::P1S).await.expect("a port");
    spawn_local(serving);
    let (rtsp, serving) = printers.rtsp.listen_tls(at(0), Model::X1C).await.expect("a port");
    spawn_local(serving);

    let Args { port, camera_port, ftp_port, rtsp_port, .. } = *args;
    let (ca, ca_x1c) = (state.0.join("ca.pem"), state.0.join("x1c/ca.pem"));
    start_proxy(
        Model::P1S,
        "mqtt,chamber,ftp",
        &format!("mqtt={port},chamber={camera_port},ftp={ftp_port}"),
        &format!("mqtt={},chamber={},ftp={},rtsp=1", mqtt.port(), chamber.port(), files.port()),
        &state.0,
    );
    start_proxy(
        Model::X1C,
        "rtsp",
        &format!("rtsp={rtsp_port}"),
        &format!("rtsp={},chamber=1", rtsp.port()),
        &state.0.join("x1c"),
    );
    let connectors = (reachable(port, &ca).await, reachable(rtsp_port, &ca_x1c).await);
    let (Some(p1s), Some(x1c)) = connectors else {
        eprintln!(
            "the proxy does not answer; are ports {port}, {camera_port}, {ftp_port}, {rtsp_port} free?"
        );
        return ExitCode::FAILURE;
    };

    let ca = ca.display();
    println!(
        "A simulated P1S accepts four MQTT connections, one camera viewer and one upload.\n\
         The proxy before it listens on 127.0.0.1. Join in from another terminal:\n\n\
         mosquitto_sub -h 127.0.0.1 -p {port} -u bblp -P {CODE} \\\n  \
         -t 'device/+/report' --cafile {ca}\n\n\
         ACCESS_CODE={CODE} cargo run --release --example viewer -- \\\n  \
         127.0.0.1:{camera_port} --output /tmp/picture.jpg \\\n  --ca {ca}\n\n\
         ffplay -rtsp_transport tcp \\\n  \
         rtsps://bblp:{CODE}@127.0.0.1:{rtsp_port}/streaming/live/1\n\n\
         End with Ctrl-C.\n"
    );
    come_and_go(args, &printers, &p1s, &x1c).await
}

/// Starts the proxy as its command line would, on a thread of its own.
fn start_proxy(model: Model, services: &str, ports: &str, printer_ports: &str, state: &Path) {
    let authority = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem"));
    let line = [
        "pandaproxy".into(),
        "--printer-ip=127.0.0.1".into(),
        format!("--serial-number={}", model.serial()),
        "--bind=127.0.0.1".into(),
        format!("--services={services}"),
        format!("--port={ports}"),
        format!("--printer-port={printer_ports}"),
        "--ftp-mode=proxy".into(),
        "--ftp-data-ports=0".into(),
        format!("--printer-ca={}", authority.display()),
        format!("--state-dir={}", state.display()),
    ];
    let code = |name: &str| (name == "ACCESS_CODE").then(|| CODE.into());
    let intent = Config::from_args(line.map(Into::into), code).expect("valid settings");
    let Intent::Serve(config) = intent else { panic!("it says to serve") };
    std::thread::spawn(move || {
        let served = launch::runtime().and_then(|runtime| {
            runtime.block_on(async {
                let _proxy = Proxy::start(&Context::real(), &config, &Sockets)?;
                // Until the process ends.
                core::future::pending().await
            })
        });
        let Err::<core::convert::Infallible, _>(error) = served;
        eprintln!("the proxy: {error}");
    });
}

/// Waits until the proxy answers, and trusts its CA as a user would.
async fn reachable(port: u16, ca: &Path) -> Option<TlsConnector> {
    // The proxy makes its keys first, which takes a moment.
    for _ in 0..600 {
        if ca.exists() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).ok()?).ok()?;
            let config =
                ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            return Some(TlsConnector::from(Arc::new(config)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// The status: a block that is redrawn on a terminal, a line a second elsewhere.
struct Screen {
    is_terminal: bool,
    drawn: usize,
}

impl Screen {
    fn show(&mut self, seconds: u64, rows: &[(&str, String)]) {
        let mut text = String::new();
        if self.is_terminal {
            if self.drawn > 0 {
                write!(text, "\x1b[{}A\x1b[J", self.drawn).unwrap();
            }
            for (name, row) in rows {
                writeln!(text, "{name:<10}{row}").unwrap();
            }
            self.drawn = rows.len();
        } else {
            for (name, row) in rows {
                writeln!(text, "{seconds:3} s  {name:<10}{row}").unwrap();
            }
        }
        // A reader that is gone ends the demonstration no earlier.
        let _written = io::stdout().write_all(text.as_bytes());
    }
}

async fn come_and_go(
    args: &Args,
    printers: &Printers,
    p1s: &TlsConnector,
    x1c: &TlsConnector,
) -> ExitCode {
    let started = Instant::now();
    let mut screen = Screen { is_terminal: io::stdout().is_terminal(), drawn: 0 };
    let mut clients: Vec<Task> = Vec::new();
    let mut viewers: Vec<Task> = Vec::new();
    let mut players: Vec<Task> = Vec::new();
    let upload = Rc::new(Upload::default());
    spawn_local(keep_uploading(args.ftp_port, p1s.clone(), Rc::clone(&upload)));
    let (mut joined, mut pictures, mut packets) = (0, 0, 0);
    let mut interrupted = core::pin::pin!(tokio::signal::ctrl_c());
    loop {
        // One more a second; when all are there, the oldest leaves.
        leave(&mut clients, CLIENTS);
        joined += 1;
        match join(args.port, p1s, joined).await {
            Ok(client) => clients.push(client),
            Err(error) => eprintln!("client {joined} cannot join: {error}"),
        }
        leave(&mut viewers, VIEWERS);
        match view(args.camera_port, p1s).await {
            Ok(viewer) => viewers.push(viewer),
            Err(error) => eprintln!("a viewer cannot join: {error}"),
        }
        if players.len() < PLAYERS {
            match play(args.rtsp_port, x1c).await {
                Ok(player) => players.push(player),
                Err(error) => eprintln!("a player cannot join: {error}"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = &mut interrupted => break,
        }
        let sum = |tasks: &[Task]| tasks.iter().map(|task| task.count.get()).sum::<u64>();
        let (seen, heard) = (sum(&viewers), sum(&players));
        let lost: u64 = viewers.iter().map(|viewer| viewer.lost.get()).sum();
        screen.show(
            started.elapsed().as_secs(),
            &[
                (
                    "MQTT",
                    format!(
                        "{} clients, {} reports delivered; the printer has {} connection",
                        clients.len(),
                        sum(&clients),
                        printers.mqtt.open()
                    ),
                ),
                (
                    "camera",
                    format!(
                        "{} viewers, {} pictures, {lost} dropped; the camera has {} connection",
                        viewers.len(),
                        seen.saturating_sub(pictures),
                        printers.chamber.open()
                    ),
                ),
                (
                    "RTSPS",
                    format!(
                        "{} players, {} packets a second; the X1C has {} connection",
                        players.len(),
                        heard.saturating_sub(packets),
                        printers.rtsp.open()
                    ),
                ),
                ("upload", upload.status()),
                (
                    "proxy",
                    format!(
                        "{} KiB of heap with printers and clients, after {} s",
                        heap::held() / KIB,
                        started.elapsed().as_secs()
                    ),
                ),
            ],
        );
        // Viewers that leave take their counts with them.
        pictures = sum(&viewers[usize::from(viewers.len() == VIEWERS)..]);
        packets = heard;
        if args.seconds.is_some_and(|seconds| started.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    let has_all = |tasks: &[Task]| tasks.iter().rev().skip(1).all(|task| task.count.get() > 0);
    let delivered = has_all(&clients) && has_all(&viewers) && has_all(&players);
    let most = [printers.mqtt.most_open(), printers.chamber.most_open(), printers.rtsp.most_open()];
    if most == [1; 3] && delivered && upload.sent.get() > 0 {
        println!("No service of the printers had more than one connection at a time.");
        ExitCode::SUCCESS
    } else {
        eprintln!(
            "connections at once: {most:?}; everything delivered: {delivered}; {}",
            upload.status()
        );
        ExitCode::FAILURE
    }
}

/// A client that counts what it gets.
struct Task {
    count: Rc<Cell<u64>>,
    lost: Rc<Cell<u64>>,
    task: tokio::task::JoinHandle<()>,
}

/// Makes room for one more.
fn leave(tasks: &mut Vec<Task>, most: usize) {
    if tasks.len() == most {
        tasks.remove(0).task.abort();
    }
}

async fn dial(port: u16, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let proxy = ServerName::from(core::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    connector.connect(proxy, socket).await
}

async fn join(port: u16, connector: &TlsConnector, number: usize) -> io::Result<Task> {
    let stream = dial(port, connector).await?;
    let mut client =
        Client::subscribed(stream, &format!("client {number}"), "device/+/report").await;
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let task = spawn_local(async move {
        while client.next().await.is_some() {
            counted.set(counted.get() + 1);
        }
    });
    Ok(Task { count, lost: Rc::default(), task })
}

async fn view(port: u16, connector: &TlsConnector) -> io::Result<Task> {
    let mut stream = dial(port, connector).await?;
    stream.write_all(&login(CODE)).await?;
    stream.flush().await?;
    let (count, lost): (Rc<Cell<u64>>, Rc<Cell<u64>>) = Default::default();
    let (counted, missed) = (Rc::clone(&count), Rc::clone(&lost));
    let task = spawn_local(async move {
        let mut last = None;
        while let Ok(picture) = picture(&mut stream).await {
            counted.set(counted.get() + 1);
            let number = picture_number(&picture);
            if let (Some(last), Some(number)) = (last, number) {
                missed.set(missed.get() + u64::from(number - last - 1));
            }
            last = number;
        }
    });
    Ok(Task { count, lost, task })
}

async fn picture(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let len = u32::from_le_bytes(head[..4].try_into().unwrap());
    let mut picture = vec![0; usize::try_from(len.min(1 << 20)).unwrap()];
    stream.read_exact(&mut picture).await?;
    Ok(picture)
}

async fn play(port: u16, connector: &TlsConnector) -> io::Result<Task> {
    let stream = dial(port, connector).await?;
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let task = spawn_local(async move {
        let mut player = rtsp::Client::over(stream).knowing(rtsp::Scheme::Md5, CODE);
        player.play(&format!("rtsps://127.0.0.1:{port}/streaming/live/1")).await;
        while !matches!(player.next().await, Heard::End) {
            counted.set(counted.get() + 1);
        }
    });
    Ok(Task { count, lost: Rc::default(), task })
}

/// How far the uploads are.
#[derive(Default)]
struct Upload {
    done: Cell<u64>,
    sent: Cell<usize>,
    error: RefCell<Option<String>>,
}

impl Upload {
    fn status(&self) -> String {
        let (done, sent) = (self.done.get(), self.sent.get() / 1024);
        match &*self.error.borrow() {
            Some(error) => format!("{done} files stored; then: {error}"),
            None => format!("{done} files stored; the next: {sent} of {} KiB", FILE / 1024),
        }
    }
}

/// Uploads one file after the other.
async fn keep_uploading(port: u16, connector: TlsConnector, upload: Rc<Upload>) {
    loop {
        if let Err(error) = Box::pin(store(port, &connector, &upload)).await {
            *upload.error.borrow_mut() = Some(error.to_string());
            return;
        }
        upload.done.set(upload.done.get() + 1);
    }
}

/// Stores one file, as a slicer does.
async fn store(port: u16, connector: &TlsConnector, upload: &Upload) -> io::Result<()> {
    let mut control = BufReader::new(dial(port, connector).await?);
    reply(&mut control, "220").await?;
    for (command, code) in [
        ("USER bblp".to_owned(), "331"),
        (format!("PASS {CODE}"), "230"),
        ("PBSZ 0".to_owned(), "200"),
        ("PROT P".to_owned(), "200"),
        ("TYPE I".to_owned(), "200"),
    ] {
        tell(&mut control, &command, code).await?;
    }
    let passive = tell(&mut control, "EPSV", "229").await?;
    let data_port = passive.split('|').nth(3).and_then(|port| port.parse().ok());
    let data_port: u16 = data_port.ok_or_else(|| io::Error::other(passive))?;
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, data_port)).await?;
    let name = format!("STOR plate_{}.gcode.3mf", upload.done.get() + 1);
    tell(&mut control, &name, "150").await?;
    let proxy = ServerName::from(core::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut data = connector.connect(proxy, socket).await?;
    let piece = [b'G'; 16 * 1024];
    upload.sent.set(0);
    while upload.sent.get() < FILE {
        data.write_all(&piece).await?;
        upload.sent.set(upload.sent.get() + piece.len());
    }
    data.shutdown().await?;
    drop(data);
    reply(&mut control, "226").await?;
    tell(&mut control, "QUIT", "221").await?;
    Ok(())
}

async fn tell(
    control: &mut BufReader<TlsStream<TcpStream>>,
    command: &str,
    code: &str,
) -> io::Result<String> {
    control.write_all(format!("{command}\r\n").as_bytes()).await?;
    control.flush().await?;
    reply(control, code).await
}

async fn reply(control: &mut BufReader<TlsStream<TcpStream>>, code: &str) -> io::Result<String> {
    let mut line = String::new();
    control.read_line(&mut line).await?;
    let line = line.trim_end();
    if line.starts_with(code) {
        Ok(line.to_owned())
    } else {
        Err(io::Error::other(line.to_owned()))
    }
}
