//! The real program, as a child on a port that the system picks, and clients that trust its CA.
//!
//! Loopback is 127.0.0.0/8: a client bound to another of its addresses is another machine to it.
#![allow(
    clippy::option_env_unwrap,
    reason = "the demo is built with this file too, without the program, and never calls it"
)]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use pandaproxy::board::BOARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinHandle, spawn_local};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::mqtt::Client;
use super::programs::Program;
use printer::Printer;

/// The code of printer and proxy: unlike anything that a log may hold by chance.
pub(crate) const CODE: &str = "7Kq2xW9p";

/// The authority of the simulated printers.
pub(crate) const PRINTER_CA: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");

/// The default address of clients.
pub(crate) const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Names the command that the program is run with, if it cannot be run by itself.
const RUNNER: &str = "PANDAPROXY_RUNNER";

/// How long a test may take. Only one that hangs takes that long.
const TEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Runs a test in real time.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime
        .block_on(async { tokio::time::timeout(TEST_TIMEOUT, test).await })
        .expect("the test ends within its time")
}

/// Switches a simulated printer on; it is served until the handle is aborted.
pub(crate) async fn switch_on(printer: &Printer, at: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let (address, serving) = printer.listen_tls(at).await.unwrap();
    (address, spawn_local(serving))
}

/// A state directory of its own, removed in the end. Its RSA key is a test key: making one takes a
/// debug build on a busy machine half a minute.
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new() -> Rc<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = option_env!("CARGO_TARGET_TMPDIR").expect("an integration test");
        let dir = Path::new(temporary).join(format!("state-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("rsa.key"), include_str!("../../printer/pki/x1c.key")).unwrap();
        Rc::new(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // What cannot be removed lies in the build's own folder.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// The program with these arguments, an empty environment and a clean end.
///
/// `PANDAPROXY_BIN` names a build of it for another processor, and `PANDAPROXY_RUNNER` the command that
/// runs such a build: `qemu-arm-static -cpu arm1176`.
pub(crate) fn command(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let program = env::var_os("PANDAPROXY_BIN").unwrap_or_else(|| {
        option_env!("CARGO_BIN_EXE_pandaproxy").expect("an integration test").into()
    });
    let runner = env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = match words.next() {
        None => Command::new(program),
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(program);
            command
        }
    };
    command.env_clear().args(args);
    command
}

/// The arguments for a printer at `address`, but for the code, the serial and the port to listen on.
pub(crate) fn towards(address: SocketAddr, dir: &StateDir) -> Vec<String> {
    let dir = dir.path().to_str().unwrap();
    [
        "--printer-ip",
        &address.ip().to_string(),
        "--printer-port",
        &format!("mqtt={}", address.port()),
        "--printer-ca",
        PRINTER_CA,
        "--state-dir",
        dir,
        "--bind",
        "127.0.0.1",
        "--services",
        "mqtt",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The usual arguments.
pub(crate) fn usual(printer: &Printer, address: SocketAddr, dir: &StateDir) -> Vec<String> {
    let mut args = towards(address, dir);
    let more = ["-a", CODE, "-s", printer.serial(), "--port", "mqtt=0"];
    args.extend(more.map(str::to_owned));
    args
}

/// A proxy that serves.
pub(crate) struct Proxy {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    pub(crate) dir: Rc<StateDir>,
    tls: TlsConnector,
}

impl Proxy {
    /// Starts one before the printer at `address`, with more arguments than the usual ones.
    pub(crate) async fn before(printer: &Printer, address: SocketAddr, more: &[&str]) -> Self {
        let dir = StateDir::new();
        let mut command = command(usual(printer, address, &dir));
        command.args(more);
        Self::start(command, dir).await
    }

    /// Starts one, and waits until it listens.
    pub(crate) async fn start(command: Command, dir: Rc<StateDir>) -> Self {
        Self::start_serving("mqtt", command, dir).await
    }

    /// Starts one, and waits until it listens for clients of this service.
    pub(crate) async fn start_serving(
        service: &str,
        mut command: Command,
        dir: Rc<StateDir>,
    ) -> Self {
        let program = Program::start(&mut command);
        let line = program.line(&format!("{service:<8} listening on ")).await;
        let (_, rest) = line.split_once(" on ").unwrap();
        let address = rest.split(',').next().unwrap().parse().unwrap();
        let tls = trusting(&dir.file("ca.pem"));
        Self { program, address, dir, tls }
    }

    /// Waits until it has the printer, and the printer its subscription.
    pub(crate) async fn live(&self) {
        self.program.line("the printer is connected").await;
    }

    /// Asserts that the program's memory is within its budget. Skipped in an emulator, whose own memory is not
    /// known.
    pub(crate) fn check_memory(&self) {
        // Memory beside the budget: stacks, the allocator's, the C library's.
        const OUTSIDE: usize = 2 << 20;
        if env::var_os(RUNNER).is_some() {
            return;
        }
        let [peak, code] = ["VmHWM:", "RssFile:"].map(|figure| self.program.memory(figure));
        println!("peak {} KiB, {} KiB of it the file's own pages", peak >> 10, code >> 10);
        assert!(peak <= code + BOARD.memory + OUTSIDE, "it holds {peak} bytes");
    }

    /// A connection from one of loopback's addresses.
    pub(crate) async fn tcp_from(&self, from: Ipv4Addr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        socket.connect(self.address).await
    }

    /// The same with TLS; the proxy's certificate is verified.
    pub(crate) async fn tls_from(&self, from: Ipv4Addr) -> io::Result<TlsStream<TcpStream>> {
        self.tls_over(self.tcp_from(from).await?).await
    }

    /// TLS over a connection.
    pub(crate) async fn tls_over(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.tls.connect(ServerName::from(self.address.ip()), tcp).await
    }

    /// A client that was let in and reads the reports.
    pub(crate) async fn reader(&self, from: Ipv4Addr, id: &str) -> Client<TlsStream<TcpStream>> {
        let stream = self.tls_from(from).await.unwrap();
        let mut client = Client::over(stream);
        let hello = super::mqtt::Hello {
            id,
            password: Some(CODE.as_bytes()),
            ..super::mqtt::Hello::default()
        };
        assert_eq!(client.connect(&hello).await, 0, "{id} is let in");
        assert_eq!(client.subscribe(&[("device/+/report", 0)]).await, [0]);
        client
    }
}

/// Whatever a test was about: the code is never logged.
impl Drop for Proxy {
    fn drop(&mut self) {
        let told = self.program.log().contains(CODE);
        assert!(!told || std::thread::panicking(), "the log has the access code");
    }
}

/// Clients that trust only the authority in this file.
pub(crate) fn trusting(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
