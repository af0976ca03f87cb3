//! What only the composition root does: it starts the services that are listed and enabled, has them share
//! what is known about the printer, and ends them in order.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use pandaproxy::memory::budget::{ALTERNATIVES, LINES};
use pandaproxy::printer::camera::CameraKind;
use pandaproxy::runtime::launch::{Proxy, StartError, services};
use pandaproxy::runtime::net::Sockets;
use pandaproxy::runtime::service::Transport;
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;
use printer::{Model, Printer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::clients::mqtt::Client as MqttClient;
use crate::clients::rtsp::{Client as RtspClient, Scheme};
use crate::echo::{self, Echo};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::{config, context, start};
use crate::lan::rtsp::{Player, URL, camera};
use crate::lan::{self, CODE, WIRE, journal_says, ms, pass, secs};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

/// An X1C with live view on, and the proxy before it with all its services.
struct Bed {
    net: SimNet,
    proxy: Proxy,
    printer: Printer,
    camera: Rtsp,
    /// The printer's port 6000.
    tunnel: Port,
    /// The printer's port 322.
    rtsp: Port,
}

impl Bed {
    fn new() -> Self {
        let (net, printer, camera) = (SimNet::new(), Printer::new(Model::X1C).quiet(), camera());
        let (tunnel, rtsp) =
            (Port::new(At::Tunnel(Tunnel::new())), Port::new(At::Rtsp(camera.clone())));
        net.put(8883, Port::new(At::Script(serving(&printer))));
        net.put(6000, tunnel.clone());
        net.put(322, rtsp.clone());
        let proxy = start(&net, printer.serial(), CODE, &["--services=mqtt,camera"]);
        Self { net, proxy, printer, camera, tunnel, rtsp }
    }

    fn connect(&self, port: u16) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(port, CLIENT, far), "port {port} is open");
        near
    }

    /// Has the printer report whether live view is on.
    fn report_live_view(&self, url: &str) {
        let report = format!(
            r#"{{"print":{{"command":"push_status","msg":1,"ipcam":{{"rtsp_url":"{url}"}}}}}}"#
        );
        assert_eq!(self.printer.report(report.as_bytes()), 1, "the proxy gets it");
    }
}

fn serving(printer: &Printer) -> Rc<dyn Fn(DuplexStream)> {
    let printer = printer.clone();
    Rc::new(move |stream| {
        let printer = printer.clone();
        spawn_local(async move { printer.serve(stream).await });
    })
}

#[test]
fn live_view_off_in_a_report_stops_the_rtsp_dial() {
    lan::run(async {
        let bed = Bed::new();
        pass(secs(10)).await;
        assert_eq!(bed.proxy.status().camera().kind(), CameraKind::Rtsp);
        bed.report_live_view("disable");
        pass(secs(5)).await;
        assert_eq!(bed.proxy.status().camera().kind(), CameraKind::RtspOff);
        let mut client = RtspClient::over(bed.connect(322)).knowing(Scheme::Md5, CODE);
        let refused = client.describe(URL).await;
        assert_eq!(refused.status, 503);
        assert!(refused.reason.contains("Live View"), "{}", refused.reason);
        assert_eq!(bed.camera.setups(), 0, "the camera is not asked for a stream");
        bed.report_live_view("rtsps://10.1.2.4:322/streaming/live/1");
        let since = Instant::now();
        while client.describe(URL).await.status != 200 {
            assert!(since.elapsed() < secs(75), "it is not dialled again");
        }
        client.setup("0-1").await;
        client.request("PLAY", URL, "").await;
        Player::of(client).number(&bed.camera).await;
    });
}

#[test]
fn a_printer_that_returns_is_probed_again() {
    lan::run(async {
        let bed = Bed::new();
        pass(secs(10)).await;
        let (chamber, rtsp) = (bed.tunnel.dialled(), bed.rtsp.dialled());
        pass(secs(3600)).await;
        assert_eq!((bed.tunnel.dialled(), bed.rtsp.dialled()), (chamber, rtsp), "once is enough");
        bed.printer.reboot(secs(20));
        pass(secs(120)).await;
        assert!(bed.printer.subscribers() > 0, "the proxy is back");
        assert!(bed.tunnel.dialled() > chamber && bed.rtsp.dialled() > rtsp);
    });
}

#[test]
fn a_port_in_use_ends_the_start() {
    for port in [8883, 322, 990, 6000] {
        lan::run(async {
            // A P1S has no port 322, and so the proxy does not bind it.
            let model = if port == 322 { Model::X1C } else { Model::P1S };
            let net = SimNet::new();
            net.take(port);
            let config = config(model.serial(), CODE, &["--services=mqtt,camera,ftp,detect"]);
            let error = Proxy::start(&context(), &config, &net).err().expect("it does not start");
            assert!(matches!(error, StartError::Bind { port: at, .. } if at == port), "{error}");
            assert!(error.to_string().contains(&format!("port {port}:")), "{error}");
            assert!(!error.is_bad_value());
            assert!(net.open().is_empty(), "nothing is left listening");
        });
    }
}

#[test]
fn shutdown_disconnects_clients_before_the_printer() {
    lan::run(async {
        let bed = Bed::new();
        pass(secs(5)).await;
        let mut client = MqttClient::subscribed(bed.connect(8883), "reader", "#").await;
        let order = Rc::new(RefCell::new(Vec::new()));
        let (clients, printers, printer) =
            (Rc::clone(&order), Rc::clone(&order), bed.printer.clone());
        spawn_local(async move {
            assert!(client.is_closed().await);
            clients.borrow_mut().push("client");
        });
        spawn_local(async move {
            while printer.open() > 0 {
                pass(ms(1)).await;
            }
            printers.borrow_mut().push("printer");
        });
        pass(secs(1)).await;
        let since = Instant::now();
        let net = bed.net.clone();
        bed.proxy.stop().await;
        assert!(since.elapsed() < secs(3), "{:?}", since.elapsed());
        assert!(net.open().is_empty(), "listeners are closed");
        pass(secs(1)).await;
        assert_eq!(*order.borrow(), ["client", "printer"]);
        assert_eq!((bed.printer.orderly(), bed.printer.disorderly()), (1, 0));
    });
}

#[test]
fn a_service_is_added_by_its_folder_and_one_line() {
    lan::run(async {
        let net = SimNet::new();
        let config = config(Model::P1S.serial(), CODE, &["--services=mqtt"]);
        let mut list = Vec::from(services());
        list.push(echo::declaration());
        let proxy = Proxy::start_these(&context(), &config, &net, &list).unwrap();
        let (mut near, far) = duplex(WIRE);
        assert!(net.arrive(echo::PORT, CLIENT, far));
        near.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        near.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        pass(secs(10)).await;
        let service = proxy.service::<Echo>().unwrap();
        assert!((10..=11).contains(&service.ticks.get()), "{}", service.ticks.get());
        assert!(journal_says("echo"), "the log names its port");
        let mut status = String::new();
        proxy.write_status(&mut status).unwrap();
        assert!(status.contains("echo: 1 connections"), "{status}");
        proxy.stop().await;
        assert_eq!(near.read(&mut back).await.unwrap(), 0, "its client is disconnected");
    });
}

// ---- what follows from the list of services --------------------------------------------------------

/// Configurations of each kind of printer, with the services of each.
fn configurations() -> Vec<(&'static str, &'static str)> {
    let serials = [Model::P1S, Model::X1C, Model::H2D, Model::A1Mini].map(Model::serial);
    let services = ["mqtt", "camera", "ftp", "detect", "camera,ftp", "mqtt,camera,ftp,detect"];
    serials.iter().flat_map(|serial| services.map(|services| (*serial, services))).collect()
}

#[test]
fn the_health_check_asks_the_ports_of_the_listed_services() {
    for (serial, wanted) in configurations() {
        let config = config(serial, CODE, &["--services", wanted]);
        let mut asked: Vec<u16> = config.listening().map(|(_, port)| port).collect();
        let list = services::<Sockets>();
        // A datagram without an answer says nothing about a service.
        let ports = list.iter().filter_map(|service| service.listening(&config));
        let ports = ports.filter(|listening| listening.transport != Transport::Datagram);
        let mut served: Vec<u16> = ports.map(|listening| listening.port).collect();
        asked.sort_unstable();
        served.sort_unstable();
        assert_eq!(asked, served, "{serial} {wanted}");
    }
}

#[test]
fn every_service_has_budget_lines_and_a_documented_port() {
    let mut seen = 0;
    let read = |file: &str| {
        std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let (readme, example) = (read("README.md"), read(".env.example"));
    for (serial, wanted) in configurations() {
        let config = config(serial, CODE, &["--services", wanted]);
        for service in services::<Sockets>() {
            let Some(listening) = service.listening(&config) else { continue };
            seen += 1;
            let name = match listening.transport {
                Transport::Plain if service.name == "ftp" => "relay ",
                Transport::Tls | Transport::Plain | Transport::Datagram => service.name,
            };
            let alternatives = ALTERNATIVES.iter().flat_map(|alternative| alternative.lines);
            let mut lines = LINES.iter().chain(alternatives);
            assert!(
                lines.any(|line| line.what.starts_with(name) && line.count >= listening.clients),
                "{name} has no line for {} clients",
                listening.clients
            );
            let port = listening.port.to_string();
            assert!(readme.contains(&port), "README names port {port} of {}", service.name);
            assert!(example.contains(service.name) || service.name == "tunnel", "{}", service.name);
        }
    }
    assert!(seen > 30, "{seen} listeners");
}
