//! What a slicer does before and for a print job, in virtual time: the file tunnel on port 6000, a probe file and the job
//! by FTP, and `project_file` by MQTT. Where something is missing, each port answers at once or is closed.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::runtime::launch::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::clients::mqtt::{CLOSED, Client, Hello};
use crate::clients::rtsp::{Client as RtspClient, Scheme};
use crate::ftp::Control;
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::rtsp::URL;
use crate::lan::{self, CODE, WIRE, ms, pass, root, secs};
use printer::camera::Camera;
use printer::ftp::{Family, FileServer};
use printer::rtsp::Rtsp;
use printer::tunnel::{self, Tunnel};
use printer::{Model, Printer};

/// Time in which a port that has no service for a slicer has to refuse it. The slicer shows a dialog meanwhile.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The ports that a slicer uses for a job, and the cameras.
const PORTS: [u16; 4] = [8883, 990, 6000, 322];

/// A printer with all its services, and the proxy before it.
struct Bed {
    net: SimNet,
    proxy: Proxy,
    printer: Printer,
    files: FileServer,
    tunnel: Tunnel,
    ports: Vec<Port>,
}

impl Bed {
    async fn new(model: Model) -> Self {
        let has_tunnel = model == Model::X1C;
        let (net, printer, tunnel) = (SimNet::new(), Printer::new(model), Tunnel::new());
        let family = if has_tunnel { Family::Vsftpd } else { Family::Esp32 };
        let files = FileServer::new(family).code(CODE);
        let (mqtt, control, data) = (printer.clone(), files.clone(), files.clone());
        let at_6000 = if has_tunnel {
            At::Tunnel(tunnel.clone())
        } else {
            At::Camera(Camera::new().code(CODE).every(ms(500)))
        };
        let at_322 = if has_tunnel { At::Rtsp(Rtsp::new().code(CODE)) } else { At::Closed };
        let ports: Vec<_> = [
            At::Script(Rc::new(move |stream| {
                let printer = mqtt.clone();
                spawn_local(async move { printer.serve(stream).await });
            })),
            At::Script(Rc::new(move |stream| {
                let files = control.clone();
                spawn_local(async move { files.serve(stream).await });
            })),
            at_6000,
            at_322,
        ]
        .into_iter()
        .map(Port::new)
        .collect();
        for (number, port) in PORTS.iter().zip(&ports) {
            net.put(*number, port.clone());
        }
        net.put_data(move |port| core::future::ready(data.dial(port)));
        let more = ["--services=mqtt,camera,ftp", "--ftp-mode=proxy"];
        let proxy = root::start(&net, model.serial(), CODE, &more);
        pass(secs(10)).await;
        Self { net, proxy, printer, files, tunnel, ports }
    }

    /// Replaces the servers at the printer's ports.
    fn turn(&self, at: &At) {
        for port in &self.ports {
            port.now(at.clone());
        }
        self.printer.cut();
    }

    fn connect(&self, port: u16) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        let slicer = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
        assert!(self.net.arrive(port, slicer, far), "port {port} is open");
        near
    }

    /// Stores a file in a session of its own. Returns the final reply.
    async fn store(&self, name: &str, bytes: &[u8]) -> String {
        let mut control = Control::log_in(self.connect(990)).await;
        let port = control.data_port().await;
        let mut data = self.connect(port);
        let reply = control.command(&format!("STOR {name}")).await;
        if !reply.starts_with("150 ") {
            return reply;
        }
        data.write_all(bytes).await.unwrap();
        data.shutdown().await.unwrap();
        let reply = control.reply().await;
        assert!(control.command("QUIT").await.starts_with("221 "));
        reply
    }
}

/// Waits until the other end closes.
async fn until_closed(stream: &mut DuplexStream) {
    while timeout(secs(300), stream.read(&mut [0; 256])).await.expect("an end").unwrap_or(0) > 0 {}
}

#[test]
fn a_print_job_reaches_a_printer_without_a_file_tunnel() {
    for model in [Model::P1S, Model::A1Mini] {
        lan::run(async {
            let bed = Bed::new(model).await;
            let since = Instant::now();
            // The slicer tries the tunnel first. The port is the chamber camera's.
            let mut tunnel = bed.connect(6000);
            tunnel.write_all(&tunnel::login(CODE)).await.unwrap();
            until_closed(&mut tunnel).await;
            assert!(since.elapsed() < AT_ONCE, "the tunnel's login took {:?}", since.elapsed());
            // Then it stores a probe file, and the job in a new session.
            let job = b"a sliced plate ".repeat(10_000);
            for (name, bytes) in [("verify_job", &b"check"[..]), ("plate.gcode.3mf", &job)] {
                let reply = bed.store(name, bytes).await;
                assert!(reply.starts_with("226 "), "{name}: {reply}");
                let stored = bed.files.file(&format!("/{name}")).expect("the printer has the file");
                assert_eq!(stored.content.as_deref(), Some(bytes), "{name}");
            }
            let request = br#"{"print": {"command": "project_file", "sequence_id": "20001"}}"#;
            let mut mqtt = Client::connected(bed.connect(8883), "slicer").await;
            mqtt.publish(&bed.printer.request_topic(), request, 0, 0).await;
            let is_there = |printer: &Printer| {
                printer.requests().iter().any(|received| received.payload == request)
            };
            assert!(bed.printer.until(secs(5), is_there).await, "the printer gets the request");
            bed.proxy.stop().await;
        });
    }
}

#[test]
fn each_port_answers_at_once_while_the_printer_is_away() {
    for model in [Model::P1S, Model::X1C] {
        for at in [At::Off, At::Closed] {
            lan::run(async {
                let bed = Bed::new(model).await;
                bed.turn(&at);
                for wait in [0, 5, 60] {
                    pass(secs(wait)).await;
                    check_all_ports(&bed, model).await;
                }
                bed.proxy.stop().await;
            });
        }
    }
}

async fn check_all_ports(bed: &Bed, model: Model) {
    let since = Instant::now();
    let mut tunnel = bed.connect(6000);
    tunnel.write_all(&tunnel::login(CODE)).await.unwrap();
    until_closed(&mut tunnel).await;
    assert!(since.elapsed() < AT_ONCE, "6000: {:?}", since.elapsed());

    let since = Instant::now();
    let reply = bed.store("verify_job", b"check").await;
    assert!(reply.starts_with("451 "), "{reply}");
    assert!(since.elapsed() < AT_ONCE, "990: {:?}", since.elapsed());

    if model == Model::P1S {
        let (_near, far) = duplex(WIRE);
        let slicer = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
        assert!(!bed.net.arrive(322, slicer, far), "322 is closed, as the printer's");
    } else {
        // A player's DESCRIBE may wait 15 s for the camera; the port itself answers.
        let since = Instant::now();
        let mut player = RtspClient::over(bed.connect(322)).knowing(Scheme::Md5, CODE);
        assert_eq!(player.request("OPTIONS", URL, "").await.status, 200);
        assert!(since.elapsed() < AT_ONCE, "322: {:?}", since.elapsed());
        assert_eq!(player.describe(URL).await.status, 503);
        assert!(since.elapsed() <= secs(15), "322: {:?}", since.elapsed());
    }

    // MQTT is held for a moment, in which the printer may return, and then closed without a CONNACK, which a slicer
    // would show in a dialog.
    let since = Instant::now();
    let mut mqtt = Client::over(bed.connect(8883));
    assert_eq!(mqtt.connect(&Hello::default()).await, CLOSED);
    assert!(since.elapsed() <= secs(5), "8883: {:?}", since.elapsed());
}

#[test]
fn a_tunnel_that_the_printer_refuses_is_closed_at_once() {
    lan::run(async {
        let bed = Bed::new(Model::X1C).await;
        let since = Instant::now();
        let mut slicer = bed.connect(6000);
        slicer.write_all(&tunnel::login("87654321")).await.unwrap();
        until_closed(&mut slicer).await;
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        assert_eq!(bed.tunnel.logins(), 0);
        bed.proxy.stop().await;
    });
}

#[test]
fn ports_that_no_service_has_are_closed() {
    lan::run(async {
        for model in [Model::P1S, Model::X1C] {
            let bed = Bed::new(model).await;
            let open = bed.net.open();
            assert!(open.contains(&8883), "{open:?}");
            // Slicers were seen to try plain FTP, plain RTSP, plain MQTT, and 40024.
            for port in [21, 554, 1883, 40_024] {
                assert!(!open.contains(&port), "{model:?}: port {port}");
            }
            bed.proxy.stop().await;
        }
    });
}
