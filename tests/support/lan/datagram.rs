//! Datagrams on the simulated network: broadcast segments of 256 addresses, and machines in them.
//!
//! A broadcast and a datagram to a group stay in the sender's segment; one to a machine is routed. The sender's own
//! sockets receive its broadcasts as well, as they do on Linux. The proxy is a machine with an address in one segment
//! or more; a test makes the others.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | datagrams that wait in a socket | [`WAITING`] | the newest is dropped |

use core::cell::{Cell, RefCell};
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

use pandaproxy::runtime::datagram::Datagrams;
use pandaproxy::segment::{Segment, Segments};

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::weather::aside;

/// Datagrams that a socket keeps until they are received.
const WAITING: usize = 256;

/// The segment of an address.
const fn segment(address: Ipv4Addr) -> u32 {
    address.to_bits() >> 8
}

/// All machines, and how many datagrams were sent.
#[derive(Default)]
pub(crate) struct Air {
    sockets: RefCell<Vec<Weak<Socket>>>,
    /// The proxy's addresses, one in each of its segments.
    proxy: RefCell<Vec<Ipv4Addr>>,
    /// UDP ports that another program on the proxy's machine has, and does not share.
    taken: RefCell<Vec<u16>>,
    /// How long a datagram is on its way.
    delay: Cell<Duration>,
    /// Of a hundred datagrams, how many are lost.
    loss: Cell<u64>,
    random: Cell<u64>,
    has_no_way_out: Cell<bool>,
    sent: RefCell<u64>,
}

impl Air {
    /// Gives the proxy these addresses.
    pub(crate) fn set_proxy(&self, addresses: &[Ipv4Addr]) {
        *self.proxy.borrow_mut() = addresses.to_vec();
    }

    /// Has another program take a UDP port of the proxy's machine for itself.
    pub(crate) fn take(&self, port: u16) {
        self.taken.borrow_mut().push(port);
    }

    /// Has the other program free its ports again.
    pub(crate) fn free(&self) {
        self.taken.borrow_mut().clear();
    }

    /// Has so many of a hundred datagrams be lost at each of their receivers, by this seed.
    pub(crate) fn set_loss(&self, percent: u64, seed: u64) {
        self.loss.set(percent);
        self.random.set(seed | 1);
    }

    /// Whether a datagram is lost (xorshift64).
    fn loses(&self) -> bool {
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        random % 100 < self.loss.get()
    }

    /// Has every datagram take this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay.set(delay);
    }

    /// Datagrams that the proxy has sent so far.
    pub(crate) fn sent(&self) -> u64 {
        *self.sent.borrow()
    }

    pub(super) fn segments(&self) -> Segments {
        let proxy = self.proxy.borrow();
        proxy.iter().filter_map(|address| Segment::new(*address, 24)).collect()
    }

    /// Whether the proxy has a way to machines of other networks.
    pub(crate) fn set_way_out(&self, has_way_out: bool) {
        self.has_no_way_out.set(!has_way_out);
    }

    /// The proxy's address in the segment of `to`, else its first if there is a way out.
    pub(super) fn source_towards(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        let proxy = self.proxy.borrow();
        let near = proxy.iter().find(|address| segment(**address) == segment(to));
        near.or(proxy.first().filter(|_| !self.has_no_way_out.get())).copied()
    }

    /// A socket of the proxy's.
    pub(super) fn proxys(self: &Rc<Self>, port: u16) -> io::Result<Bound> {
        if self.taken.borrow().contains(&port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(self.bind(None, port))
    }

    /// A socket of the machine with this address.
    pub(crate) fn host(self: &Rc<Self>, address: Ipv4Addr, port: u16) -> Bound {
        self.bind(Some(address), port)
    }

    fn bind(self: &Rc<Self>, address: Option<Ipv4Addr>, port: u16) -> Bound {
        let socket = Rc::new(Socket { address, port, ..Socket::default() });
        self.sockets.borrow_mut().push(Rc::downgrade(&socket));
        Bound { socket, air: Rc::clone(self) }
    }

    /// Sends from a machine with these addresses.
    fn send(&self, own: &[Ipv4Addr], port: u16, bytes: &[u8], to: SocketAddrV4) -> io::Result<()> {
        let ip = *to.ip();
        let is_everywhere = ip.is_broadcast() || ip.is_multicast();
        let near = own.iter().copied().find(|own| segment(*own) == segment(ip));
        let is_broadcast = near.is_some() && ip.octets()[3] == 255;
        let Some(from) = near.or(own.first().copied()) else {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        };
        self.sockets.borrow_mut().retain(|socket| socket.strong_count() > 0);
        let sockets: Vec<Rc<Socket>> =
            self.sockets.borrow().iter().filter_map(Weak::upgrade).collect();
        let mut found = false;
        for socket in sockets.iter().filter(|socket| socket.port == to.port()) {
            let addresses = self.addresses_of(socket);
            let is_near = addresses.iter().any(|address| segment(*address) == segment(from));
            let is_joined = || {
                socket
                    .groups
                    .borrow()
                    .iter()
                    .any(|(group, at)| *group == ip && segment(*at) == segment(from))
            };
            let reaches = if ip.is_multicast() {
                is_near && is_joined()
            } else if is_broadcast || is_everywhere {
                is_near
            } else {
                addresses.contains(&ip) && !core::mem::replace(&mut found, true)
            };
            // A socket hears its own machine without loss.
            if reaches && (addresses.contains(&from) || !self.loses()) {
                let (socket, bytes) = (Rc::downgrade(socket), bytes.to_vec());
                let (from, delay) = (SocketAddrV4::new(from, port), self.delay.get());
                let arrive = move || {
                    if let Some(socket) = socket.upgrade() {
                        socket.arrive(bytes, from);
                    }
                };
                if delay.is_zero() {
                    arrive();
                } else {
                    spawn_local(async move {
                        sleep(delay).await;
                        arrive();
                    });
                }
            }
        }
        Ok(())
    }

    fn addresses_of(&self, socket: &Socket) -> Vec<Ipv4Addr> {
        socket.address.map_or_else(|| self.proxy.borrow().clone(), |address| vec![address])
    }
}

/// A bound port.
#[derive(Default)]
struct Socket {
    /// Of the machine; `None` is the proxy's.
    address: Option<Ipv4Addr>,
    port: u16,
    groups: RefCell<Vec<(Ipv4Addr, Ipv4Addr)>>,
    waiting: RefCell<VecDeque<(Vec<u8>, SocketAddrV4)>>,
    receiver: RefCell<Option<Waker>>,
}

impl Socket {
    fn arrive(&self, bytes: Vec<u8>, from: SocketAddrV4) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < WAITING {
            waiting.push_back((bytes, from));
        }
        if let Some(receiver) = self.receiver.borrow_mut().take() {
            receiver.wake();
        }
    }
}

/// A handle on a bound port, which is closed with it.
pub(crate) struct Bound {
    socket: Rc<Socket>,
    air: Rc<Air>,
}

impl Bound {
    /// The next datagram, and where it came from.
    pub(crate) async fn next(&self) -> (Vec<u8>, SocketAddrV4) {
        let mut bytes = vec![0; 65_536];
        match self.receive(&mut bytes).await {
            Ok((len, SocketAddr::V4(from))) => (bytes[..len].to_vec(), from),
            other => panic!("{other:?}"),
        }
    }

    /// What has arrived by now.
    pub(crate) fn arrived(&self) -> Vec<Vec<u8>> {
        self.socket.waiting.borrow_mut().drain(..).map(|(bytes, _)| bytes).collect()
    }
}

impl Datagrams for Bound {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        aside(|| {
            let Some((bytes, from)) = self.socket.waiting.borrow_mut().pop_front() else {
                *self.socket.receiver.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let len = bytes.len().min(into.len());
            into[..len].copy_from_slice(&bytes[..len]);
            Poll::Ready(Ok((len, from.into())))
        })
    }

    fn send(&self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
        aside(|| {
            let own = self.air.addresses_of(&self.socket);
            if self.socket.address.is_none() {
                *self.air.sent.borrow_mut() += 1;
            }
            self.air.send(&own, self.socket.port, datagram, to)
        })
    }

    fn join(&self, group: Ipv4Addr, at: Ipv4Addr) -> io::Result<()> {
        aside(|| {
            let mut groups = self.socket.groups.borrow_mut();
            if groups.contains(&(group, at)) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            groups.push((group, at));
            Ok(())
        })
    }
}
