//! The proxy as `runtime::launch` starts it, on a simulated network over wires of the
//! [net](crate::lan::weather), with the heap of each service counted by itself.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::memory::budget::LINES;
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::launch::{StartError, services};
use pandaproxy::runtime::root::Root;
use pandaproxy::runtime::service::Service;
use pandaproxy::{chamber, ftp, mqtt, rtsp};
use printer::Model;
use printer::ftp::FileServer;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::lan::net::SimNet;
use crate::lan::root;
use crate::lan::weather::{Line, Net, Wire, aside};
use crate::share::Share;

/// How long a printer that is off is dialled.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The ports of the proxy's services, which are those of the printer.
pub(crate) const MQTT: u16 = 8883;
pub(crate) const CHAMBER: u16 = 6000;
pub(crate) const RTSP: u16 = 322;
pub(crate) const FTP: u16 = 990;
pub(crate) const DETECT: u16 = 3000;

/// The first of the ports for data of FTP clients.
const DATA_PORTS: u16 = 50_000;

/// What the budget allows a [share](SHARES), TLS apart: there is none here.
pub(crate) fn allowed(share: &str) -> usize {
    if share == "cameras" {
        return allowed("chamber ") + allowed("rtsp ");
    }
    let own = LINES.iter().filter(|line| line.what.starts_with(share));
    own.filter(|line| !line.what.ends_with("TLS")).map(|line| line.count * line.each).sum()
}

/// The shares by which the proxy's heap is counted: one for each service, with both cameras in one, and one
/// for the tasks of no service.
pub(crate) const SHARES: [&str; 5] = ["mqtt ", "cameras", "ftp ", "runtime", "detect"];

/// Index in [`SHARES`] of memory that belongs to no service.
const RUNTIME: usize = 3;

/// The index in [`SHARES`] of each service's share, in the order of [`services`].
const SHARE_OF: [usize; 7] = [0, 1, 1, 2, 2, 4, 4];

thread_local! {
    /// The shares of the run on this thread.
    static COUNTED: RefCell<[Share; SHARES.len()]> = RefCell::default();
    /// The share of the task that is running, or of the service that is being started.
    static CURRENT: Cell<usize> = const { Cell::new(RUNTIME) };
}

/// Counts in this share what `act` allocates and frees, and what the tasks do that it starts.
fn counted<T>(share: usize, act: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(share);
    let its = COUNTED.with_borrow(|shares| shares[share].clone());
    let result = its.during(act);
    CURRENT.set(before);
    result
}

/// Starts the service at `AT` in the list of services, and counts its memory in its share.
fn start<const AT: usize>(root: &mut Root<'_, SimNet>) -> Result<Rc<dyn Service>, StartError> {
    let start = services::<SimNet>()[AT].start;
    counted(SHARE_OF[AT], || start(root))
}

/// A started proxy.
pub(crate) struct Proxy {
    pub(crate) mqtt: Rc<mqtt::Service>,
    pub(crate) chamber: Rc<chamber::Service>,
    pub(crate) rtsp: Rc<rtsp::Service>,
    pub(crate) ftp: Option<Rc<ftp::Service>>,
    pub(crate) shares: [Share; SHARES.len()],
    net: SimNet,
}

impl Proxy {
    /// Starts the proxy before a printer of this model on `net`, with or without files.
    pub(crate) fn start(net: &SimNet, model: Model, has_files: bool) -> Self {
        let shares = COUNTED.with_borrow_mut(|shares| {
            *shares = Default::default();
            shares.clone()
        });
        net.spawning(|mut task| {
            let share = CURRENT.get();
            spawn_local(core::future::poll_fn(move |cx| counted(share, || task.as_mut().poll(cx))))
        });
        let mut list = Vec::from(services());
        let starts =
            [start::<0>, start::<1>, start::<2>, start::<3>, start::<4>, start::<5>, start::<6>];
        for (declaration, start) in list.iter_mut().zip(starts) {
            declaration.start = start;
        }
        let last = usize::from(DATA_PORTS) + BOARD.clients.ftp;
        let data_ports = format!("--ftp-data-ports={DATA_PORTS}-{last}");
        // What clients are sent is compared with the printer's to the byte.
        let all = ["--services=mqtt,camera,ftp,detect", "--keep-printer-address", &data_ports];
        let more = if has_files { &all[..] } else { &["--services=mqtt,camera,detect", all[1]] };
        let proxy = root::these(net, list, model.serial(), more)();
        Self {
            mqtt: proxy.service().unwrap(),
            chamber: proxy.service().unwrap(),
            rtsp: proxy.service().unwrap(),
            ftp: proxy.service(),
            shares,
            net: net.clone(),
        }
    }

    /// Connects a client of an address of its own to a port of the proxy; its address.
    pub(crate) fn arrive(&self, port: u16, wire: Wire) -> IpAddr {
        let from = self.net.next_client();
        assert!(self.net.arrive(port, from, wire), "port {port} is open");
        from
    }

    /// The ports for data of FTP clients that are open.
    pub(crate) fn data_ports(&self) -> usize {
        self.net.open().iter().filter(|port| **port >= DATA_PORTS).count()
    }
}

/// The state of a printer's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Open,
    /// Closed.
    Closed,
    /// The printer is off.
    Off,
}

type Serve = Rc<dyn Fn(Wire)>;
type Tapped = Rc<dyn Fn(Wire) -> Wire>;

/// A port of the printer, and the network between.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) what: &'static str,
    net: Net,
    line: Rc<Line>,
    at: Rc<Cell<At>>,
    room: usize,
    serve: Serve,
    tapped: Tapped,
}

impl Port {
    /// A port whose connections `serve` handles.
    pub(crate) fn new(
        what: &'static str,
        net: &Net,
        line: &Rc<Line>,
        room: usize,
        serve: impl Fn(Wire) + 'static,
    ) -> Self {
        let (net, line, at) = (net.clone(), Rc::clone(line), Rc::new(Cell::new(At::Open)));
        Self { what, net, line, at, room, serve: Rc::new(serve), tapped: Rc::new(|wire| wire) }
    }

    /// The same, with an observer of all bytes.
    pub(crate) fn tapped(mut self, tap: impl Fn(Wire) -> Wire + 'static) -> Self {
        self.tapped = Rc::new(tap);
        self
    }

    pub(crate) fn is(&self, at: At) {
        self.at.set(at);
    }
}

/// Waits as TCP does until bytes pass; returns whether they do.
async fn reached(line: &Line, is_off: impl Fn() -> bool) -> bool {
    let until = Instant::now() + DIAL_TIMEOUT;
    while is_off() || line.out_until().is_some() {
        if Instant::now() >= until {
            return false;
        }
        sleep(Duration::from_millis(500)).await;
    }
    true
}

impl Dial for Port {
    type Stream = Wire;

    async fn dial(&mut self) -> Result<Wire, DialError> {
        if !reached(&self.line, || self.at.get() == At::Off).await {
            return Err(DialError::Off);
        }
        if self.at.get() == At::Closed {
            return Err(DialError::PortClosed { port: 0 });
        }
        Ok(aside(|| {
            let (near, far) = self.net.wire(self.what, &self.line, self.room);
            (self.serve)(far);
            (self.tapped)(near)
        }))
    }
}

/// The network to the data ports of a printer's file server.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) net: Net,
    pub(crate) line: Rc<Line>,
    pub(crate) server: FileServer,
}

impl Store {
    pub(crate) async fn reach(self, port: u16) -> Option<Wire> {
        if !reached(&self.line, || false).await {
            return None;
        }
        aside(|| {
            let (near, far) = self.net.wire("ftp: data of the printer", &self.line, 16 * 1024);
            self.server.take(port, far).then_some(near)
        })
    }
}
