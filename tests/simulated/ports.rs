//! Camera ports that the printer does not have are closed at the proxy as well, and ports of detect that another program
//! has are done without.

use core::net::{IpAddr, Ipv4Addr};

use pandaproxy::runtime::launch::Proxy;
use pandaproxy::runtime::optional_port::RETRY_INTERVAL;
use printer::Model;
use printer::camera::{Camera, login};
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;
use tokio::io::{AsyncWriteExt, duplex};

use crate::lan::chamber::{At, Port, Viewer};
use crate::lan::net::SimNet;
use crate::lan::{self, CODE, WIRE, journal_says, ms, pass, root, secs};

const UNKNOWN: &str = "99900A000000001";

/// A printer's two camera ports, and the proxy before them.
struct Bed {
    net: SimNet,
    chamber: Port,
    rtsp: Port,
}

impl Bed {
    fn new(chamber: At, rtsp: At) -> Self {
        let (net, chamber, rtsp) = (SimNet::new(), Port::new(chamber), Port::new(rtsp));
        net.put(6000, chamber.clone());
        net.put(322, rtsp.clone());
        Self { net, chamber, rtsp }
    }

    fn start(&self, serial: &str, services: &str) -> Proxy {
        root::start(&self.net, serial, CODE, &["--services", services])
    }

    /// The camera ports that are open.
    fn open(&self) -> Vec<u16> {
        self.net.open().into_iter().filter(|port| [322, 6000].contains(port)).collect()
    }

    /// Puts another camera into the printer, which is then probed again.
    fn replace(&self, proxy: &Proxy, chamber: At, rtsp: At) {
        self.chamber.now(chamber);
        self.rtsp.now(rtsp);
        proxy.status().camera().look_again();
    }
}

fn camera() -> At {
    At::Camera(Camera::new().code(CODE).every(ms(500)))
}

#[test]
fn the_model_decides_from_the_start_which_ports_are_open() {
    for (model, services, open) in [
        (Model::P1S, "camera,ftp", &[6000][..]),
        (Model::A1Mini, "camera", &[6000]),
        (Model::X1C, "camera,ftp", &[322, 6000]),
        (Model::X1C, "camera", &[322]),
        (Model::H2D, "chamber", &[]),
    ] {
        lan::run(async {
            let bed = Bed::new(At::Off, At::Off);
            let proxy = bed.start(model.serial(), services);
            assert_eq!(bed.open(), open, "{model:?} {services}");
            pass(secs(60)).await;
            assert_eq!(bed.open(), open, "{model:?} {services}");
            assert!(!open.is_empty() || journal_says("closed: the printer's model"));
            proxy.stop().await;
            assert!(bed.open().is_empty());
        });
    }
}

#[test]
fn an_unknown_model_has_a_port_closed_once_probed() {
    for (chamber, rtsp, services, open, line) in [
        (camera(), At::Closed, "camera,ftp", 6000, "rtsp: port 322 closed: the printer has no"),
        (At::Closed, At::Rtsp(Rtsp::new()), "camera,ftp", 322, "chamber: port 6000 closed: "),
        (At::Tunnel(Tunnel::new()), At::Rtsp(Rtsp::new()), "camera", 322, "chamber: port 6000"),
    ] {
        lan::run(async {
            let bed = Bed::new(chamber.clone(), rtsp.clone());
            let proxy = bed.start(UNKNOWN, services);
            assert_eq!(bed.open(), [322, 6000], "not known yet");
            pass(secs(60)).await;
            assert_eq!(bed.open(), [open]);
            assert!(journal_says(line), "{line}");
            proxy.stop().await;
        });
    }
}

#[test]
fn a_closed_port_opens_when_the_probe_finds_its_camera() {
    lan::run(async {
        let bed = Bed::new(camera(), At::Closed);
        let proxy = bed.start(UNKNOWN, "camera");
        pass(secs(60)).await;
        assert_eq!(bed.open(), [6000]);
        bed.replace(&proxy, At::Closed, At::Rtsp(Rtsp::new()));
        pass(secs(60)).await;
        assert_eq!(bed.open(), [322]);
        assert!(journal_says("rtsp: port 322 opened: the printer has it"));
        bed.replace(&proxy, camera(), At::Closed);
        pass(secs(60)).await;
        assert_eq!(bed.open(), [6000]);
        let (mut stream, far) = duplex(WIRE);
        assert!(bed.net.arrive(6000, IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), far));
        stream.write_all(&login(CODE)).await.unwrap();
        assert!(Viewer { stream }.picture().await.is_some(), "and is served");
        proxy.stop().await;
    });
}

#[test]
fn a_port_taken_meanwhile_is_bound_once_it_is_free() {
    lan::run(async {
        let bed = Bed::new(camera(), At::Closed);
        let proxy = bed.start(UNKNOWN, "camera");
        pass(secs(60)).await;
        bed.net.take(322);
        bed.replace(&proxy, At::Closed, At::Rtsp(Rtsp::new()));
        pass(secs(300)).await;
        assert_eq!(bed.open(), [0; 0], "another program has it");
        bed.net.free(322);
        pass(RETRY_INTERVAL).await;
        assert_eq!(bed.open(), [322]);
        proxy.stop().await;
    });
}

/// Grafana and AdGuard Home use port 3000 as well.
#[test]
fn a_port_of_detect_in_use_is_done_without() {
    for port in [3000, 3002] {
        lan::run(async {
            let net = SimNet::new();
            net.take(port);
            let more = ["--services=mqtt,detect"];
            let proxy = root::start(&net, Model::P1S.serial(), CODE, &more);
            let other = if port == 3000 { 3002 } else { 3000 };
            assert_eq!(net.open(), [other, 8883], "the others are served");
            let line = format!("port {port} is in use by another program: slicers that ask there");
            assert!(journal_says(&line));
            // The journal, which has it for ever, begins its lines with a date.
            let names_it = || {
                let mut status = String::new();
                proxy.write_status(&mut status).unwrap();
                status.lines().any(|said| said.starts_with("detect") && said.contains(&line))
            };
            assert!(names_it());
            pass(secs(3600)).await;
            assert_eq!(net.open(), [other, 8883], "the other program still has it");
            net.free(port);
            pass(RETRY_INTERVAL).await;
            assert!(net.open().contains(&port));
            assert!(journal_says(&format!("port {port} opened: no other program has it any more")));
            assert!(!names_it());
            proxy.stop().await;
            assert_eq!(net.open(), [0; 0]);
        });
    }
}

#[test]
fn both_ports_of_detect_in_use_leave_the_main_services() {
    lan::run(async {
        let net = SimNet::new();
        net.take(3000);
        net.take(3002);
        let more = ["--services=mqtt,camera,ftp,detect,ssdp"];
        let proxy = root::start(&net, Model::P1S.serial(), CODE, &more);
        assert_eq!(net.open(), [990, 6000, 8883]);
        proxy.stop().await;
    });
}
