//! What a slicer does for a print job, with the real program and TLS: the file tunnel on port 6000 if the printer has one, a
//! probe file and the job by FTPS, and `project_file` by MQTT.

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use skips::is_missing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::clients::ports;
use crate::clients::programs::{PATIENCE, Program};
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use printer::camera::Camera;
use printer::ftp::{Family, FileServer};
use printer::tunnel::{self, Tunnel};
use printer::{Model, Printer};

/// The printer's address.
const PRINTER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The request that begins a print.
const REQUEST: &[u8] =
    br#"{"print": {"command": "project_file", "sequence_id": "20001", "url": "ftp://job.3mf"}}"#;

/// A printer with its services, and the program before it.
struct Bed {
    model: Model,
    printer: Printer,
    files: FileServer,
    tunnel: Tunnel,
    proxy: Proxy,
}

impl Bed {
    async fn new(model: Model) -> Self {
        let is_linux = model == Model::X1C;
        let family = if is_linux { Family::Vsftpd } else { Family::Esp32 };
        let any = SocketAddr::from((PRINTER, 0));
        let data_ports = ports::block(&[HOME, PRINTER]);
        let printer = Printer::new(model).code(CODE);
        let (mqtt, serving) = printer.listen_tls(any).await.unwrap();
        spawn_local(serving);
        let files = FileServer::new(family).code(CODE).data_ports(data_ports.clone());
        let (ftp, serving) = files.listen_tls(any, model).await.unwrap();
        spawn_local(serving);
        let tunnel = Tunnel::new().code(CODE).echoing(false);
        let at_6000 = if is_linux {
            let (at, serving) = tunnel.listen_tls(any, model).await.unwrap();
            spawn_local(serving);
            at
        } else {
            let (at, serving) = Camera::new().code(CODE).listen_tls(any, model).await.unwrap();
            spawn_local(serving);
            at
        };
        let dir = StateDir::new();
        let mut command = command(["--services", "mqtt,camera,ftp", "--bind", "127.0.0.1"]);
        command.args(["--port", "mqtt=0,chamber=0,rtsp=0,ftp=0,tunnel=0"]);
        command.args(["-p", "127.0.0.2", "-a", CODE, "-s", model.serial()]);
        command.args(["--printer-ca", PRINTER_CA]).arg("--state-dir").arg(dir.path());
        let [mqtt, ftp, port] = [mqtt, ftp, at_6000].map(|at| at.port());
        command.arg("--printer-port");
        command.arg(format!("mqtt={mqtt},ftp={ftp},chamber={port},tunnel={port}"));
        if is_linux {
            let (first, last) = (data_ports.start(), data_ports.end());
            command.arg(format!("--ftp-data-ports={first}-{last}"));
        } else {
            command.arg("--ftp-data-ports=0");
        }
        let proxy = Proxy::start_serving("mqtt", command, dir).await;
        proxy.live().await;
        Self { model, printer, files, tunnel, proxy }
    }

    /// Where this service listens.
    async fn address(&self, service: &str) -> SocketAddr {
        let line = self.proxy.program.line(&format!("{service:<8} listening on ")).await;
        let (_, rest) = line.split_once(" on ").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    }

    /// Stores a file by FTPS in a session of its own, with this authority. The certificate names `host`.
    async fn store(&self, ca: &Path, host: &str, name: &str, bytes: &[u8]) {
        let port = self.address("ftp").await.port();
        let (given, login) = (self.proxy.dir.file(name), self.proxy.dir.file("curl"));
        fs::write(&given, bytes).unwrap();
        fs::write(&login, format!("user = \"bblp:{CODE}\"\n")).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "60", "--cacert"]).arg(ca).arg("-K").arg(login);
        curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]).arg("-T").arg(given);
        curl.arg(format!("ftps://{host}:{port}/{name}"));
        let (status, output) = Program::start(&mut curl).ended().await;
        assert_eq!(status, Some(0), "{name}: {}", output.err);
        let stored = self.files.file(&format!("/{name}")).expect("the printer has the file");
        assert_eq!(stored.hash, printer::ftp::sha256(bytes), "{name}");
    }

    /// Has the printer print the job.
    async fn print(&self) {
        let mut slicer = self.proxy.reader(HOME, "slicer").await;
        slicer.publish(&self.printer.request_topic(), REQUEST, 0, 0).await;
        let is_there = |printer: &Printer| {
            printer.requests().iter().any(|received| received.payload == REQUEST)
        };
        assert!(self.printer.until(PATIENCE, is_there).await, "the printer gets the request");
    }

    /// Begins a session of the tunnel, with the printer's own certificate.
    async fn open_tunnel(&self) -> Program {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", PRINTER_CA]);
        openssl.args(["-verify_hostname", self.model.serial()]);
        openssl.args(["-connect", &self.address("tunnel").await.to_string()]);
        let mut slicer = Program::start(&mut openssl);
        slicer.stdin().write_all(&tunnel::login(CODE)).unwrap();
        slicer.stdin().flush().unwrap();
        slicer
    }
}

fn job() -> Vec<u8> {
    (0..300_000_usize).map(|at| (at * at / 251 % 256) as u8).collect()
}

#[test]
fn a_print_job_reaches_a_p1s_in_proxy_mode() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Model::P1S).await;
        // The slicer tries the tunnel; the chamber camera has the port.
        let tcp = TcpStream::connect(bed.address("chamber").await).await.unwrap();
        let mut tunnel = bed.proxy.tls_over(tcp).await.unwrap();
        tunnel.write_all(&tunnel::login(CODE)).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, tunnel.read_to_end(&mut answer)).await;
        assert!(ended.is_ok_and(|ended| ended.is_ok()), "refused, and closed in order");
        let ca = bed.proxy.dir.file("ca.pem");
        bed.store(&ca, "127.0.0.1", "verify_job", b"check").await;
        bed.store(&ca, "127.0.0.1", "job.gcode.3mf", &job()).await;
        bed.print().await;
        assert_eq!(bed.files.look(|seen| seen.most_open), 1, "the printer has one session");
    });
}

#[test]
fn a_print_job_reaches_an_x1c_in_relay_mode() {
    if is_missing("curl") || is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Model::X1C).await;
        // A printer that prints from its own storage gets the job through the tunnel.
        let mut slicer = bed.open_tunnel().await;
        assert!(bed.tunnel.until(PATIENCE, |tunnel| tunnel.logins() == 1).await);
        let job = job();
        slicer.stdin().write_all(&job).unwrap();
        slicer.stdin().flush().unwrap();
        let len = job.len() as u64;
        assert!(bed.tunnel.until(PATIENCE, |tunnel| tunnel.received() == len).await);
        drop(slicer);
        assert!(bed.tunnel.until(PATIENCE, |tunnel| tunnel.uploads().len() == 1).await);
        assert_eq!(bed.tunnel.uploads(), [tunnel::Upload::of(&job)]);
        // Others get the job by FTPS, after the probe file.
        let ca = Path::new(PRINTER_CA);
        bed.store(ca, bed.model.serial(), "verify_job", b"check").await;
        bed.store(ca, bed.model.serial(), "job.gcode.3mf", &job).await;
        bed.print().await;
    });
}
