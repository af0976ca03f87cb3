//! The chamber camera's part of the in-memory network: the proxy's real viewers, hub and upstream
//! between servers at the printer's ports 6000 and 322, and simulated viewers.

use core::cell::Cell;
use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::chamber::Service;
use pandaproxy::chamber::client::Error;
use pandaproxy::printer::status::Status;
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::drive::End;
use pandaproxy::runtime::launch;
use pandaproxy::runtime::worker::Served;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::net::SimNet;
use super::{CODE, WIRE, root};
use printer::Model;
use printer::camera::{Camera, login};
use printer::detect::Detect;
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;

/// What serves a connection that was just made, by a task of its own.
pub(crate) type Script = Rc<dyn Fn(DuplexStream)>;

/// The server at one of the printer's ports.
#[derive(Clone)]
pub(crate) enum At {
    /// The printer is off.
    Off,
    /// Closed.
    Closed,
    Camera(Camera),
    Tunnel(Tunnel),
    Rtsp(Rtsp),
    Detect(Detect),
    Script(Script),
}

/// A port whose occupant may change, and how often it was dialled.
#[derive(Clone)]
pub(crate) struct Port {
    at: Rc<RefCell<At>>,
    dialled: Rc<Cell<u32>>,
}

impl Port {
    pub(crate) fn new(at: At) -> Self {
        Self { at: Rc::new(RefCell::new(at)), dialled: Rc::default() }
    }

    pub(crate) fn now(&self, at: At) {
        *self.at.borrow_mut() = at;
    }

    pub(crate) fn dialled(&self) -> u32 {
        self.dialled.get()
    }
}

impl Dial for Port {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        self.dialled.set(self.dialled.get() + 1);
        let at = self.at.borrow().clone();
        let (near, far) = duplex(WIRE);
        match at {
            At::Off => return Err(DialError::Off),
            At::Closed => return Err(DialError::PortClosed { port: 6000 }),
            At::Camera(camera) => drop(spawn_local(async move { camera.serve(far).await })),
            At::Tunnel(tunnel) => drop(spawn_local(async move { tunnel.serve(far).await })),
            At::Rtsp(rtsp) => drop(spawn_local(async move { rtsp.serve(far).await })),
            At::Detect(detect) => drop(spawn_local(async move { detect.serve(far).await })),
            At::Script(script) => script(far),
        }
        Ok(near)
    }
}

/// A proxy before a printer's two camera ports.
pub(crate) struct Studio {
    pub(crate) service: Rc<Service>,
    pub(crate) status: Rc<Status>,
    proxy: launch::Proxy,
    net: SimNet,
    next: Cell<u32>,
    /// How the last viewers ended.
    pub(crate) ends: Rc<RefCell<Vec<End<Error>>>>,
}

impl Studio {
    /// A proxy before a camera; 322 is closed.
    pub(crate) fn before(camera: &Camera) -> Self {
        Self::at(&Port::new(At::Camera(camera.clone())), &Port::new(At::Closed))
    }

    /// A proxy before these two ports.
    pub(crate) fn at(chamber: &Port, rtsp: &Port) -> Self {
        let net = SimNet::new();
        net.put(6000, chamber.clone());
        net.put(322, rtsp.clone());
        let ends = net.keep_ends(|served: &Served<Error>| served.end);
        let proxy = root::start(&net, Model::P1S.serial(), CODE, &["--services=camera"]);
        let (service, status) = (proxy.service().unwrap(), Rc::clone(proxy.status()));
        Self { service, status, proxy, net, next: Cell::new(1), ends }
    }

    /// A stream to the proxy, served by a worker of its own.
    pub(crate) fn stream(&self, wire: usize) -> DuplexStream {
        let (near, far) = duplex(wire);
        let number = self.next.replace(self.next.get() + 1);
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(number % 250).unwrap()));
        assert!(self.net.arrive(6000, address, far), "the port is open");
        near
    }

    /// A viewer that has logged in.
    pub(crate) async fn viewer(&self) -> Viewer {
        self.viewer_over(WIRE).await
    }

    /// The same over a wire that holds `bytes`.
    pub(crate) async fn viewer_over(&self, bytes: usize) -> Viewer {
        let mut stream = self.stream(bytes);
        stream.write_all(&login(CODE)).await.unwrap();
        Viewer { stream }
    }

    /// Ends it as a signal would.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// A viewer that reads pictures, an hour at most for each.
pub(crate) struct Viewer {
    pub(crate) stream: DuplexStream,
}

impl Viewer {
    /// The next picture, or `None` when the stream ends.
    pub(crate) async fn picture(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut head = [0; 16];
            self.stream.read_exact(&mut head).await.ok()?;
            assert_eq!(head[4..], *b"\0\0\0\0\x01\0\0\0\0\0\0\0", "as the printer writes it");
            let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
            assert!(len <= 1 << 20, "a picture of {len} bytes");
            let mut picture = vec![0; len];
            self.stream.read_exact(&mut picture).await.ok()?;
            Some(picture)
        };
        timeout(Duration::from_secs(3600), read).await.expect("something within the hour")
    }

    /// Whether no picture comes within this time. One that has begun to come is not taken back.
    pub(crate) async fn sees_nothing(&mut self, within: Duration) -> bool {
        let mut byte = [0; 1];
        timeout(within, self.stream.read(&mut byte)).await.is_err()
    }
}
