//! The proxy's data ports towards FTP clients, in memory: each client's connection is a wire of the
//! [net](super::weather).

use core::cell::RefCell;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use pandaproxy::runtime::files::passive::Listen;

use super::weather::{Line, Net, Wire, aside};

thread_local! {
    /// Data ports of the proxy's that are open.
    static GATES: RefCell<BTreeMap<u16, Rc<Arrivals>>> = const { RefCell::new(BTreeMap::new()) };
}

#[derive(Default)]
struct Arrivals {
    wire: RefCell<Option<(Wire, IpAddr)>>,
    waits: RefCell<Option<Waker>>,
}

/// A data port towards clients.
pub(crate) struct PassivePort {
    port: u16,
    arrivals: Rc<Arrivals>,
}

impl Listen for PassivePort {
    type Wire = Wire;

    fn open(address: SocketAddr) -> io::Result<Self> {
        let port = address.port();
        aside(|| {
            GATES.with_borrow_mut(|passive_ports| {
                if passive_ports.contains_key(&port) {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                let arrivals = Rc::<Arrivals>::default();
                passive_ports.insert(port, Rc::clone(&arrivals));
                Ok(Self { port, arrivals })
            })
        })
    }

    fn port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Wire, IpAddr)>> {
        if let Some(came) = self.arrivals.wire.take() {
            return Poll::Ready(Ok(came));
        }
        self.arrivals.waits.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for PassivePort {
    fn drop(&mut self) {
        let (own, spare) = (&mut self.arrivals, Rc::default());
        aside(|| {
            let arrivals = core::mem::replace(own, spare);
            GATES.with_borrow_mut(|passive_ports| drop(passive_ports.remove(&self.port)));
            drop(arrivals);
        });
    }
}

/// A client connects to a data port. `None`: nobody listens there.
pub(crate) fn enter(port: u16, net: &Net, line: &Rc<Line>, from: IpAddr) -> Option<Wire> {
    GATES.with_borrow(|passive_ports| {
        let arrivals = passive_ports.get(&port)?;
        let (near, far) = net.wire("ftp: data of a client", line, 16 * 1024);
        *arrivals.wire.borrow_mut() = Some((near, from));
        if let Some(waits) = arrivals.waits.take() {
            waits.wake();
        }
        Some(far)
    })
}

/// Data ports that are open.
pub(crate) fn passive_ports() -> usize {
    GATES.with_borrow(BTreeMap::len)
}

/// Nothing of an earlier run is left.
pub(crate) fn forget_gates() {
    GATES.with_borrow_mut(BTreeMap::clear);
}
