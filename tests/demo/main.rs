//! `cargo run --release --example demo`: a simulated printer, the proxy before it, and clients that
//! come and go.
//!
//! Everything is on loopback and on unprivileged ports. It prints a `mosquitto_sub` line that joins in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a demonstration that cannot go on should say so and stop"
)]

#[path = "../support/clients/mod.rs"]
mod clients;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use pandaproxy::config::{Config, Intent};
use pandaproxy::memory::{KIB, budget, heap};
use pandaproxy::runtime::launch::{self, Context, Proxy};
use pandaproxy::runtime::net::Sockets;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use clients::mqtt::Client;
use printer::camera::{Camera, login};
use printer::jpeg::picture_number;
use printer::{Model, Printer};

const CODE: &str = "12345678";
/// Clients that the demonstration brings itself.
const CLIENTS: usize = 6;
/// Viewers that it brings itself, at most.
const VIEWERS: usize = 3;

/// A simulated printer and the proxy before it, on loopback.
#[derive(Parser)]
struct Args {
    /// End after so many seconds; without it, on Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where the proxy listens.
    #[arg(long, default_value_t = 18883)]
    port: u16,
    /// Where the proxy listens for viewers of the camera.
    #[arg(long, default_value_t = 16000)]
    camera_port: u16,
    /// Where the simulated printer listens; 0 is any free port.
    #[arg(long, default_value_t = 0)]
    printer_port: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(demonstrate(&args))
}

async fn demonstrate(args: &Args) -> ExitCode {
    let printer = Printer::new(Model::P1S).code(CODE);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, args.printer_port));
    let (printer_at, serving) = printer.listen_tls(at).await.expect("a port for the printer");
    spawn_local(serving);
    let camera = Camera::new().code(CODE).every(Duration::from_millis(200));
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (camera_at, filming) =
        camera.listen_tls(anywhere, Model::P1S).await.expect("a port for the camera");
    spawn_local(filming);

    let state = std::env::temp_dir().join(format!("pandaproxy-demo-{}", std::process::id()));
    start_proxy(args, &printer, printer_at.port(), camera_at.port(), &state);
    let ca = state.join("ca.pem");
    let Some(connector) = reachable(args.port, &ca).await else {
        let (mqtt, chamber) = (args.port, args.camera_port);
        eprintln!("the proxy did not come up; are ports {mqtt} and {chamber} free?");
        return ExitCode::FAILURE;
    };

    println!(
        "\nA simulated P1S listens on {printer_at} and takes four connections; its camera, on\n\
         {camera_at}, takes one. The proxy before them listens on 127.0.0.1:{} and :{}. Join in with:\n\n  \
         mosquitto_sub -h 127.0.0.1 -p {} -u bblp -P {CODE} --cafile {ca} -t 'device/+/report' -v\n\n  \
         ACCESS_CODE={CODE} cargo run --example viewer -- 127.0.0.1:{} --ca {ca}\n",
        args.port,
        args.camera_port,
        args.port,
        args.camera_port,
        ca = ca.display()
    );
    let outcome = come_and_go(args, &printer, &camera, &connector).await;
    let _gone = std::fs::remove_dir_all(&state);
    outcome
}

/// Starts the proxy as its command line would, on a thread of its own.
fn start_proxy(args: &Args, printer: &Printer, printer_port: u16, camera_port: u16, state: &Path) {
    let authority = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem"));
    let line = [
        "pandaproxy".into(),
        "--printer-ip=127.0.0.1".into(),
        format!("--serial-number={}", printer.serial()),
        "--bind=127.0.0.1".into(),
        "--services=mqtt,camera".into(),
        format!("--port=mqtt={},chamber={},rtsp=0", args.port, args.camera_port),
        format!("--printer-port=mqtt={printer_port},chamber={camera_port}"),
        format!("--printer-ca={}", authority.display()),
        format!("--state-dir={}", state.display()),
    ];
    let code = |name: &str| (name == "ACCESS_CODE").then(|| CODE.into());
    let intent = Config::from_args(line.map(Into::into), code).expect("a good command line");
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
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
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

async fn come_and_go(
    args: &Args,
    printer: &Printer,
    camera: &Camera,
    connector: &TlsConnector,
) -> ExitCode {
    let started = Instant::now();
    let mut clients: Vec<Reader> = Vec::new();
    let mut viewers: Vec<Viewer> = Vec::new();
    let mut shown = 0;
    let mut next = 0usize;
    let mut interrupted = core::pin::pin!(tokio::signal::ctrl_c());
    loop {
        // One more each second up to six, then the oldest leaves.
        if clients.len() == CLIENTS {
            let oldest = clients.remove(0);
            println!("      {} leaves after {} reports", oldest.name, oldest.reports.get());
            oldest.task.abort();
        }
        next += 1;
        match join(args.port, connector, next).await {
            Ok(reader) => clients.push(reader),
            Err(error) => eprintln!("      client {next} could not join: {error}"),
        }
        if viewers.len() == VIEWERS {
            viewers.remove(0).task.abort();
        }
        match view(args.camera_port, connector).await {
            Ok(viewer) => viewers.push(viewer),
            Err(error) => eprintln!("      a viewer could not join: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = &mut interrupted => break,
        }
        let reports: u64 = clients.iter().map(|client| client.reports.get()).sum();
        println!(
            "{:4}s {} clients here, {reports:4} reports delivered to them; the printer sees {} \
             connection; heap {} KiB of {}",
            started.elapsed().as_secs(),
            clients.len(),
            printer.open(),
            heap::held() / KIB,
            budget::TOTAL / KIB,
        );
        let now: u64 = viewers.iter().map(|viewer| viewer.pictures.get()).sum();
        let lost: u64 = viewers.iter().map(|viewer| viewer.lost.get()).sum();
        println!(
            "      {} viewers, {} pictures a second together, {lost} dropped; the camera sees {} \
             connection",
            viewers.len(),
            now.saturating_sub(shown),
            camera.open(),
        );
        // Those who leave take their pictures along.
        shown = viewers.iter().skip(usize::from(viewers.len() == VIEWERS)).map(Viewer::seen).sum();
        if args.seconds.is_some_and(|seconds| started.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    let delivered = clients.iter().all(|client| client.reports.get() > 0 || client.is_new(next));
    // The newest may not have had the time.
    let watched = viewers.iter().rev().skip(1).all(|viewer| viewer.pictures.get() > 0);
    if printer.most_open() == 1 && camera.most_open() == 1 && delivered && watched {
        println!("Neither the printer nor its camera ever saw more than one connection.");
        ExitCode::SUCCESS
    } else {
        let (printer, camera) = (printer.most_open(), camera.most_open());
        eprintln!(
            "the printer saw {printer} connections, the camera {camera}, or a client got nothing"
        );
        ExitCode::FAILURE
    }
}

struct Viewer {
    pictures: Rc<core::cell::Cell<u64>>,
    lost: Rc<core::cell::Cell<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl Viewer {
    fn seen(&self) -> u64 {
        self.pictures.get()
    }
}

async fn view(port: u16, connector: &TlsConnector) -> std::io::Result<Viewer> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let proxy = ServerName::from(core::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut stream: TlsStream<TcpStream> = connector.connect(proxy, socket).await?;
    stream.write_all(&login(CODE)).await?;
    stream.flush().await?;
    let (pictures, lost): (Rc<core::cell::Cell<u64>>, Rc<core::cell::Cell<u64>>) =
        Default::default();
    let (seen, missed) = (Rc::clone(&pictures), Rc::clone(&lost));
    let task = spawn_local(async move {
        let mut last = None;
        // Until the proxy ends it, or its place is wanted for the next.
        while let Ok(picture) = picture(&mut stream).await {
            seen.set(seen.get() + 1);
            let number = picture_number(&picture);
            if let (Some(last), Some(number)) = (last, number) {
                missed.set(missed.get() + u64::from(number - last - 1));
            }
            last = number;
        }
    });
    Ok(Viewer { pictures, lost, task })
}

async fn picture(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let len = u32::from_le_bytes(head[..4].try_into().unwrap());
    let mut picture = vec![0; usize::try_from(len.min(1 << 20)).unwrap()];
    stream.read_exact(&mut picture).await?;
    Ok(picture)
}

struct Reader {
    name: String,
    number: usize,
    reports: Rc<core::cell::Cell<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    /// Whether it has only just come.
    fn is_new(&self, newest: usize) -> bool {
        self.number == newest
    }
}

async fn join(port: u16, connector: &TlsConnector, number: usize) -> std::io::Result<Reader> {
    let name = format!("client {number}");
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let proxy = ServerName::from(core::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let stream: TlsStream<TcpStream> = connector.connect(proxy, socket).await?;
    let mut client = Client::subscribed(stream, &name, "device/+/report").await;
    println!("      {name} joins");
    let reports = Rc::new(core::cell::Cell::new(0));
    let counted = Rc::clone(&reports);
    let task = spawn_local(async move {
        while client.next().await.is_some() {
            counted.set(counted.get() + 1);
        }
    });
    Ok(Reader { name, number, reports, task })
}
