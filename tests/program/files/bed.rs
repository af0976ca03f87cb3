//! A printer with a file server, the real program before it, and files to move.

use core::cell::RefCell;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local};

use super::clients::Target;
use super::vsftpd::Vsftpd;
use crate::clients::ports;
use crate::clients::proxy::{CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::ftp::{Family, FileServer, sha256};

/// The printer's file server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A simulated P1S: one session.
    P1s,
    /// A simulated X1C, which behaves like vsFTPd.
    X1c,
    /// A real vsFTPd with an X1C's certificate.
    Vsftpd,
}

/// The program's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The program terminates TLS.
    Proxy,
    /// The printer terminates TLS.
    Relay,
}

/// The program's address in relay mode: it listens on the printer's data ports.
const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Length and SHA-256 of a file.
pub(crate) type Sum = (u64, [u8; 32]);

pub(crate) struct Bed {
    mode: Mode,
    serial: &'static str,
    /// The printer's address.
    at: SocketAddr,
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
    serving: JoinHandle<()>,
}

/// The printer's file server.
#[derive(Clone)]
pub(crate) enum Server {
    Simulated(FileServer),
    Real(Rc<RefCell<Vsftpd>>),
}

impl Kind {
    /// Whether this machine has no such server. The test is recorded as [skipped](skips).
    pub(crate) fn is_missing(self) -> bool {
        let lacks = if self == Self::Vsftpd { Vsftpd::lacks() } else { None };
        let Some(lacks) = lacks else { return false };
        skips::lacks(lacks)
    }

    const fn model(self) -> Model {
        match self {
            Self::P1s => Model::P1S,
            Self::X1c | Self::Vsftpd => Model::X1C,
        }
    }
}

impl Bed {
    pub(crate) async fn new(kind: Kind, mode: Mode) -> Self {
        let dir = StateDir::new();
        let ports = (mode == Mode::Relay).then(|| ports::block(&[HOME, RELAY]));
        let simulated = |family| {
            let server = FileServer::new(family).code(CODE);
            Server::Simulated(match &ports {
                Some(ports) => server.data_ports(ports.clone()),
                None => server,
            })
        };
        let server = match kind {
            Kind::P1s => simulated(Family::Esp32),
            Kind::X1c => simulated(Family::Vsftpd),
            Kind::Vsftpd => {
                let folder = dir.file("printer");
                fs::create_dir_all(&folder).unwrap();
                let server = Vsftpd::new(&folder, CODE, ports.clone()).unwrap();
                Server::Real(Rc::new(RefCell::new(server)))
            }
        };
        let (at, serving) = server.switch_on(SocketAddr::from((HOME, 0)), kind.model()).await;
        let (mode_is, bind, ports) = match &ports {
            None => ("proxy", HOME, "0".to_owned()),
            Some(ports) => ("relay", RELAY, format!("{}-{}", ports.start(), ports.end())),
        };
        let serial = kind.model().serial();
        let mut command = command(["--services", "ftp", "--port", "ftp=0,tunnel=0,chamber=0"]);
        command.args(["-p", "127.0.0.1", "-s", serial, "--bind", &bind.to_string()]);
        command.args(["--ftp-mode", mode_is, "--ftp-data-ports", &ports]);
        command.args(["--printer-ca", PRINTER_CA]).arg("--state-dir").arg(dir.path());
        command.env("ACCESS_CODE", CODE);
        command.arg("--printer-port").arg(format!("ftp={}", at.port()));
        let proxy = Proxy::start_serving("ftp", command, dir).await;
        Self { mode, serial, at, proxy, server, serving }
    }

    /// The program, with the certificate that a client has to expect.
    pub(crate) fn target(&self) -> Target {
        let dir = &self.proxy.dir;
        let (authority, name) = match self.mode {
            Mode::Proxy => (dir.file("ca.pem"), None),
            Mode::Relay => (PathBuf::from(PRINTER_CA), Some(self.serial)),
        };
        Target { address: self.proxy.address, authority, name, home: dir.path().to_owned() }
    }

    /// The printer itself, without the program.
    pub(crate) fn direct(&self) -> Target {
        Target {
            address: self.at,
            authority: PathBuf::from(PRINTER_CA),
            name: Some(self.serial),
            home: self.proxy.dir.path().to_owned(),
        }
    }

    /// Makes a file of so many bytes for the clients. Returns its path and its sum.
    pub(crate) fn given(&self, name: &str, len: usize) -> (PathBuf, Sum) {
        let path = self.proxy.dir.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = bytes(len);
        fs::write(&path, &bytes).unwrap();
        (path, (len as u64, sha256(&bytes)))
    }

    /// A path for a file that a client downloads.
    pub(crate) fn taken(&self, name: &str) -> PathBuf {
        let path = self.proxy.dir.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The logs of the proxy and of the printer.
    pub(crate) fn log(&self) -> String {
        let printer = match &self.server {
            Server::Simulated(server) => format!("{:?}", server.seen()),
            Server::Real(server) => server.borrow().log(),
        };
        self.proxy.program.log() + &printer
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    async fn switch_on(&self, at: SocketAddr, model: Model) -> (SocketAddr, JoinHandle<()>) {
        match self {
            Self::Simulated(server) => {
                let (at, serving) = server.listen_tls(at, model).await.unwrap();
                (at, spawn_local(serving))
            }
            Self::Real(server) => {
                let listener = TcpListener::bind(at).await.unwrap();
                let (at, server) = (listener.local_addr().unwrap(), Rc::clone(server));
                let serving = async move {
                    while let Ok((connection, _)) = listener.accept().await {
                        let connection = connection.into_std().unwrap();
                        server.borrow_mut().serve(connection).unwrap();
                    }
                };
                (at, spawn_local(serving))
            }
        }
    }

    /// Length and hash of a file on the printer.
    pub(crate) fn sum(&self, path: &str) -> Option<Sum> {
        match self {
            Self::Simulated(server) => server.file(path).map(|stored| (stored.len, stored.hash)),
            Self::Real(server) => Some(sum(&server.borrow().file(path))),
        }
    }

    /// Puts a file on the printer. Returns its sum.
    pub(crate) fn put(&self, path: &str, len: usize) -> Sum {
        let bytes = bytes(len);
        match self {
            Self::Simulated(server) => server.put(path, &bytes),
            Self::Real(server) => fs::write(server.borrow().file(path), &bytes).unwrap(),
        }
        (len as u64, sha256(&bytes))
    }

    /// Ends all connections without a reply. The next session is served.
    pub(crate) fn kill(&self) {
        match self {
            Self::Simulated(server) => server.die(Duration::ZERO),
            Self::Real(server) => server.borrow_mut().kill_all(),
        }
    }
}

/// Length and hash of a file on disk, which has to exist.
pub(crate) fn sum(path: &std::path::Path) -> Sum {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (bytes.len() as u64, sha256(&bytes))
}

/// Bytes that do not repeat soon, and differ for each length.
fn bytes(len: usize) -> Vec<u8> {
    let mut word = len as u64 | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((word ^ (word >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
