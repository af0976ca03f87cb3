//! The proxy as `runtime::launch` makes it, over wires of the [net](crate::lan::weather) and without TLS:
//! as many workers as there are slots, each with its buffers, and a keeper for each of the printer's
//! ports.

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use pandaproxy::memory::budget::LINES;
use pandaproxy::peer::Peer;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::worker::{AcceptedClient, Serves};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::lan::weather::{Line, Net, Wire, aside};
use crate::share::Share;
use printer::ftp::FileServer;

/// Where all clients come from.
pub(crate) const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

/// How long somebody who is not there is called.
const CALLED_FOR: Duration = Duration::from_secs(10);

/// Connections that may wait for a worker.
const ACCEPT_QUEUE: usize = 64;

/// What the budget allows one service, or both cameras', TLS apart: there is none here.
pub(crate) fn allowed(service: &str) -> usize {
    if service == "cameras" {
        return allowed("chamber ") + allowed("rtsp ");
    }
    let own = LINES.iter().filter(|line| line.what.starts_with(service));
    own.filter(|line| !line.what.ends_with("TLS")).map(|line| line.count * line.each).sum()
}

/// Whoever waits for a worker.
pub(crate) struct Acceptor {
    waiting: RefCell<VecDeque<Wire>>,
    came: Notify,
}

impl Acceptor {
    /// A acceptor with so many workers behind it.
    pub(crate) fn of<S: Serves + Clone + 'static>(
        name: &'static str,
        service: &S,
        workers: usize,
        clock: Clock,
        share: &Share,
    ) -> Rc<Self> {
        let waiting = RefCell::new(VecDeque::with_capacity(ACCEPT_QUEUE));
        let acceptor = Rc::new(Self { waiting, came: Notify::new() });
        for number in 1..=workers {
            let (service, acceptor) = (service.clone(), Rc::clone(&acceptor));
            let number = u32::try_from(number).unwrap();
            let peer = Peer { service: name, number, address: HOME };
            spawn_local(share.of(async move {
                let mut buffers = S::buffers();
                loop {
                    let wire = acceptor.next().await;
                    let until = clock.now() + S::TIMEOUT;
                    let reached = S::TELLS.then_some(crate::lan::PROXY);
                    let accepted_client = AcceptedClient { peer, reached, until, admitted: &|| {} };
                    let _wrong = service.serve(wire, accepted_client, &mut buffers, &clock).await;
                }
            }));
        }
        acceptor
    }

    pub(crate) fn put(&self, wire: Wire) {
        let mut waiting = self.waiting.borrow_mut();
        // The kernel has no more room for them either.
        if waiting.len() < ACCEPT_QUEUE {
            waiting.push_back(wire);
            self.came.notify_one();
        }
    }

    async fn next(&self) -> Wire {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            if let Some(next) = next {
                return next;
            }
            self.came.notified().await;
        }
    }
}

/// How a port of the printer's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Open,
    /// Nobody listens.
    Closed,
    /// The printer is off.
    Off,
}

type Serve = Rc<dyn Fn(Wire)>;
type Tapped = Rc<dyn Fn(Wire) -> Wire>;

/// A port of the printer's, and the way there.
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
    /// A port behind which connections are served so.
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

    /// The same with somebody who sees everything.
    pub(crate) fn tapped(mut self, tap: impl Fn(Wire) -> Wire + 'static) -> Self {
        self.tapped = Rc::new(tap);
        self
    }

    pub(crate) fn is(&self, at: At) {
        self.at.set(at);
    }
}

/// Waits as TCP does until something may pass; whether it may.
async fn reached(line: &Line, is_off: impl Fn() -> bool) -> bool {
    let until = Instant::now() + CALLED_FOR;
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

/// The way to the data ports of a printer's file server.
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
