//! A client that goes the whole way of a slicer, in a network of its own: it hears the announcement, detects, connects MQTT,
//! prints by the tunnel and by FTPS, and watches the camera. It trusts `printer.cer` alone, as `trust.sh` leaves it.
//!
//! This needs root, `ip` and `python3`. The printer is this test binary again, started in a namespace of its own by the
//! test that is ignored otherwise.

use core::fmt::Write as _;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use printer::ftp::{Family, FileServer};
use printer::ssdp::{Announcements, Announcer};
use printer::tunnel::Tunnel;
use printer::{Camera, Detect, Event, Model, Printer, Rtsp};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::ssdp::{Lan, on, own_role, role, runtime, shared};
use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, PRINTER_CA, StateDir, command};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/slicer.py");

const TRUST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/boards/slicer/trust.sh");

/// What the slicer is shipped with: no authority of the printer's.
const STOCK: &str = include_str!("../printer/pki/stranger-ca.pem");

/// The address of the machine that the proxy runs on.
const PROXY: &str = "10.77.0.3";

#[test]
#[ignore = "the printer's role, which the tests below start on another machine"]
fn the_printer_of_a_slicer() {
    let Some(role) = own_role() else { return };
    let (model, address) = role.split_once(' ').unwrap();
    let address: Ipv4Addr = address.parse().unwrap();
    let (model, of, family) = match model {
        "p1s" => (Model::P1S, Announcer::P1S, Family::Esp32),
        _ => (Model::H2D, Announcer::H2D, Family::Vsftpd),
    };
    let at = |port| SocketAddr::from((address, port));
    runtime().block_on(async {
        let printer = Printer::new(model).code(CODE).address(address).narrate(|event| {
            if let Event::Requested(request) = event {
                eprintln!("requested {}", request.payload.escape_ascii());
            }
        });
        let (_, serving) = printer.listen_tls(at(8883)).await.unwrap();
        spawn_local(serving);
        let files = FileServer::new(family).code(CODE).data_ports(50_000..=50_100);
        let (_, serving) = files.listen_tls(at(990), model).await.unwrap();
        spawn_local(serving);
        let detect = Detect::new(model).telling("name", "Workshop");
        let (_, serving) = detect.listen(at(3000)).await.unwrap();
        spawn_local(serving);
        let tunnel = Tunnel::new().code(CODE).echoing(false);
        if model == Model::P1S {
            let camera = Camera::new().code(CODE).every(Duration::from_millis(200));
            let (_, serving) = camera.listen_tls(at(6000), model).await.unwrap();
            spawn_local(serving);
        } else {
            let (_, serving) = tunnel.listen_tls(at(6000), model).await.unwrap();
            spawn_local(serving);
            let (_, serving) = Rtsp::new().code(CODE).listen_tls(at(322), model).await.unwrap();
            spawn_local(serving);
        }
        let socket = shared(SocketAddrV4::new(address, of.source_port()));
        let announcements = Announcements::new(of, printer.serial(), address);
        spawn_local(announcements.run(move |text, to| drop(socket.send_to(text, to))));
        eprintln!("printer {} at {address}", printer.serial());
        let mut said = Vec::new();
        loop {
            let mut lines: Vec<String> = tunnel
                .uploads()
                .iter()
                .filter(|upload| upload.bytes > 0)
                .map(|upload| format!("tunnel {}", hex(&upload.sha256)))
                .collect();
            for name in files.names("/") {
                if let Some(stored) = files.file(&format!("/{name}")) {
                    lines.push(format!("stored {name} {}", hex(&stored.hash)));
                }
            }
            for line in lines.into_iter().filter(|line| !said.contains(line)).collect::<Vec<_>>() {
                eprintln!("{line}");
                said.push(line);
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A printer, the proxy and a slicer, each on a machine of its own.
struct Bed {
    _lan: Lan,
    printer: Program,
    proxy: Program,
    /// The settings of the proxy.
    args: Vec<String>,
    pc: String,
    serial: &'static str,
    dir: std::rc::Rc<StateDir>,
}

impl Bed {
    /// `None` where this machine does not allow it.
    async fn new(model: &str) -> Option<Self> {
        if ["ip", "python3", "openssl"].into_iter().any(skips::is_missing) {
            return None;
        }
        let Some(mut lan) = Lan::new() else {
            skips::cannot("make network namespaces and a bridge (root)");
            return None;
        };
        let (printers, proxys, pc) = (lan.machine(2), lan.machine(3), lan.machine(5));
        let at = "10.77.0.2";
        let printer = role(&printers, "slicer::the_printer_of_a_slicer", &format!("{model} {at}"));
        printer.line("printer ").await;
        let serial = if model == "p1s" { Model::P1S.serial() } else { Model::H2D.serial() };
        let dir = StateDir::new();
        let state = dir.path().to_str().unwrap();
        let args = ["-p", at, "-a", CODE, "-s", serial, "--state-dir", state];
        let more = ["--printer-ca", PRINTER_CA, "--announce", "broadcast"];
        let args: Vec<String> = args.iter().chain(&more).map(|word| (*word).to_owned()).collect();
        let proxy = Program::start(&mut on(&proxys, &command(&args)));
        proxy.line("the printer is connected").await;
        Some(Self { _lan: lan, printer, proxy, args, pc, serial, dir })
    }

    /// What `pandaproxy ca` prints.
    async fn ca(&self) -> String {
        let mut ca = command(&self.args);
        let (status, said) = Program::start(ca.arg("ca")).ended().await;
        assert_eq!(status, Some(0), "{}", said.err);
        String::from_utf8(said.out).unwrap()
    }

    /// The slicer's bundle after `trust.sh` with these certificates.
    async fn bundle(&self, ca: &str) -> PathBuf {
        let (given, bundle) = (self.dir.file("given.pem"), self.dir.file("printer.cer"));
        fs::write(&given, ca).unwrap();
        fs::write(&bundle, STOCK.trim_end()).unwrap();
        let mut trust = Command::new(TRUST);
        let (status, said) =
            Program::start(trust.arg(given).arg("--bundle").arg(&bundle)).ended().await;
        assert_eq!(status, Some(0), "{}{}", String::from_utf8_lossy(&said.out), said.err);
        bundle
    }

    /// Goes the slicer's way, to its end.
    async fn go(&self, bundle: &Path, job: &[u8]) -> (Option<i32>, Said) {
        let file = self.dir.file("job");
        fs::write(&file, job).unwrap();
        let mut client = Command::new("python3");
        client.arg(CLIENT).arg(self.serial).arg(bundle).arg(file).arg(PROXY);
        let mut client = Program::start(&mut on(&self.pc, &client));
        writeln!(client.stdin(), "{CODE}").unwrap();
        client.ended().await
    }

    /// The printer has got this.
    async fn got(&self, line: &str) {
        let seen = |said: &Said| said.err.contains(line);
        assert!(self.printer.until(PATIENCE, seen).await, "no {line}:\n{}", self.printer.log());
    }
}

fn job() -> Vec<u8> {
    (0..300_000_usize).map(|at| (at * at / 251 % 256) as u8).collect()
}

/// The whole way in proxy mode: all certificates are the proxy's.
#[test]
fn a_slicer_goes_the_whole_way_with_a_p1s() {
    proxy::run(async {
        let Some(bed) = Bed::new("p1s").await else { return };
        let ca = bed.ca().await;
        assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 1, "nothing is relayed");
        let bundle = bed.bundle(&ca).await;
        let (status, said) = bed.go(&bundle, &job()).await;
        let out = String::from_utf8(said.out).unwrap();
        assert_eq!(status, Some(0), "{out}{}\n{}", said.err, bed.proxy.log());
        assert!(out.contains("detected C12 Workshop") && out.contains("picture "), "{out}");
        bed.got(&format!("stored verify_job {}", hex(&printer::ftp::sha256(b"check")))).await;
        bed.got(&format!("stored job.gcode.3mf {}", hex(&printer::ftp::sha256(&job())))).await;
        bed.got("project_file").await;
    });
}

/// The whole way in relay mode: 990 and 6000 show the printer's certificate, whose authority no slicer knows.
#[test]
fn a_slicer_goes_the_whole_way_with_an_h2d() {
    proxy::run(async {
        let Some(bed) = Bed::new("h2d").await else { return };
        let chain = bed.dir.file(&format!("{}.chain", bed.serial));
        while !chain.exists() {
            sleep(Duration::from_millis(10)).await;
        }
        let ca = bed.ca().await;
        assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 3, "{ca}");
        // Without the printer's authorities the way ends at the tunnel.
        let (ours, _) = ca.split_once('#').unwrap();
        let bundle = bed.bundle(ours).await;
        let (status, said) = bed.go(&bundle, &job()).await;
        assert_eq!(status, Some(1));
        assert!(
            said.err.contains("port 6000: ") && said.err.contains("verify failed"),
            "{}",
            said.err
        );
        let bundle = bed.bundle(&ca).await;
        let text = fs::read_to_string(&bundle).unwrap();
        let mark = format!("# PandaProxy: printer {}: Simulated Device CA", bed.serial);
        assert!(text.lines().any(|line| line == mark), "{text}");
        let (status, said) = bed.go(&bundle, &job()).await;
        let out = String::from_utf8(said.out).unwrap();
        assert_eq!(status, Some(0), "{out}{}\n{}", said.err, bed.proxy.log());
        assert!(out.contains("detected O1D Workshop") && out.contains("stream "), "{out}");
        let sum = hex(&printer::ftp::sha256(&job()));
        bed.got(&format!("tunnel {sum}")).await;
        bed.got(&format!("stored verify_job {}", hex(&printer::ftp::sha256(b"check")))).await;
        bed.got(&format!("stored job.gcode.3mf {sum}")).await;
        bed.got("project_file").await;
    });
}
