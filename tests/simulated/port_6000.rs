//! Port 6000 in virtual time: the chamber camera's or the file tunnel's, by what the printer has there.

use core::net::{IpAddr, Ipv4Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tokio::time::timeout;

use crate::lan::chamber::{At, Port, Viewer};
use crate::lan::net::SimNet;
use crate::lan::{self, CODE, WIRE, journal_says, ms, pass, root, secs};
use printer::camera::{self, Camera};
use printer::rtsp::Rtsp;
use printer::tunnel::{self, Tunnel};

const UNKNOWN: &str = "99900A000000001";
const X1C: &str = "00M00A000000001";

/// The network of a printer with this on its port 6000.
fn network(at: At) -> SimNet {
    let net = SimNet::new();
    net.put(6000, Port::new(at));
    net.put(322, Port::new(At::Rtsp(Rtsp::new())));
    net
}

/// A client's end of a new connection to the proxy's port 6000.
fn connect(net: &SimNet) -> DuplexStream {
    let (near, far) = duplex(WIRE);
    assert!(net.arrive(6000, IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), far), "the port is open");
    near
}

async fn log_in_to_tunnel(net: &SimNet) -> DuplexStream {
    let mut slicer = connect(net);
    // The tunnel's server reads the login whole.
    slicer.write_all(&tunnel::login(CODE)).await.unwrap();
    pass(secs(5)).await;
    slicer
}

async fn is_closed(stream: &mut DuplexStream) -> bool {
    loop {
        match timeout(secs(1), stream.read(&mut [0; 256])).await {
            Ok(Ok(1..)) => {}
            read => return read.is_ok(),
        }
    }
}

#[test]
fn a_tunnel_is_relayed_though_the_serial_is_unknown() {
    lan::run(async {
        let tunnel = Tunnel::new().code(CODE);
        let net = network(At::Tunnel(tunnel.clone()));
        let proxy = root::start(&net, UNKNOWN, CODE, &["--services=camera,ftp"]);
        pass(secs(60)).await;
        let mut slicer = log_in_to_tunnel(&net).await;
        assert_eq!(tunnel.logins(), 1);
        assert!(journal_says("the printer has the file tunnel on port 6000"));
        let mut status = String::new();
        proxy.write_status(&mut status).unwrap();
        assert!(status.contains("tunnel: 1 connections relayed: 10.9.0.1\n"), "{status}");
        proxy.stop().await;
        pass(ms(1)).await;
        assert!(is_closed(&mut slicer).await, "its client is disconnected");
        assert!(net.open().is_empty(), "the port is closed with the others");
    });
}

#[test]
fn pictures_on_port_6000_are_shown_though_the_serial_is_an_x1s() {
    lan::run(async {
        let net = network(At::Camera(Camera::new().code(CODE).every(ms(500))));
        let proxy = root::start(&net, X1C, CODE, &["--services=camera,ftp"]);
        pass(secs(60)).await;
        let mut stream = connect(&net);
        stream.write_all(&camera::login(CODE)).await.unwrap();
        assert!(Viewer { stream }.picture().await.is_some());
        proxy.stop().await;
    });
}

#[test]
fn the_setting_decides_what_port_6000_is() {
    lan::run(async {
        for (setting, logins) in [("--port-6000=chamber", 0), ("--port-6000=tunnel", 1)] {
            let tunnel = Tunnel::new().code(CODE);
            let net = network(At::Tunnel(tunnel.clone()));
            let proxy = root::start(&net, X1C, CODE, &["--services=camera,ftp", setting]);
            pass(secs(60)).await;
            let _slicer = log_in_to_tunnel(&net).await;
            assert_eq!(tunnel.logins(), logins, "{setting}");
            proxy.stop().await;
        }
    });
}
