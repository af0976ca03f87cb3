//! The simulated network that the proxy is started on: ports of the proxy that clients connect to, and
//! ports of the printer, in memory, in virtual time and without TLS.
//!
//! What is behind a port of the printer is a [`Dial`]; a client's connection is either a plain pipe or a
//! [wire](super::weather::Wire) with weather.

use core::any::Any;
use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::net::{self, Connection, Listener};
use pandaproxy::runtime::worker::Served;
use pandaproxy::segment::Segments;
use pandaproxy::tls::{ConnectError, HandshakeError, Refusal, ServerConfig, Trust};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, spawn_local};

use super::PROXY;
use super::datagram::{self, Air};
use super::weather::{Wire, aside};

/// The printer's address.
pub(crate) const PRINTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 4));

/// Connections that a port keeps until they are accepted.
const BACKLOG: usize = 128;

/// One end of a connection in memory.
pub(crate) enum End {
    Pipe(DuplexStream),
    Wire(Wire),
}

impl From<DuplexStream> for End {
    fn from(pipe: DuplexStream) -> Self {
        Self::Pipe(pipe)
    }
}

impl From<Wire> for End {
    fn from(wire: Wire) -> Self {
        Self::Wire(wire)
    }
}

/// The proxy's end of a connection.
pub(crate) struct Stream {
    end: End,
    local: SocketAddr,
    peer: SocketAddr,
}

type Pinned<T> = Pin<Box<dyn Future<Output = T>>>;
type Dialled = Rc<dyn Fn() -> Outside<Result<End, DialError>>>;
type Data = Rc<dyn Fn(u16) -> Outside<Option<End>>>;
type Resolved = Rc<dyn Fn() -> Outside<Option<IpAddr>>>;
type Ended = Rc<dyn Fn(&dyn Any)>;
type Spawn = Rc<dyn Fn(Pinned<()>) -> JoinHandle<()>>;

/// A future of the network whose memory is not the proxy's, although a task of the proxy polls and drops it.
struct Outside<T>(Option<Pinned<T>>);

impl<T> Outside<T> {
    fn new(make: impl FnOnce() -> Pinned<T>) -> Self {
        Self(Some(aside(make)))
    }
}

impl<T> Future for Outside<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let future = self.0.as_mut().expect("it is there until it is dropped");
        aside(|| future.as_mut().poll(cx))
    }
}

impl<T> Drop for Outside<T> {
    fn drop(&mut self) {
        aside(|| drop(self.0.take()));
    }
}

/// The network. A clone is the same network.
#[derive(Clone)]
pub(crate) struct SimNet(Rc<Inner>);

#[derive(Default)]
struct Inner {
    ports: RefCell<BTreeMap<u16, Rc<Arrivals>>>,
    taken: RefCell<Vec<u16>>,
    printer: RefCell<BTreeMap<u16, Dialled>>,
    data: RefCell<Option<Data>>,
    resolved: RefCell<Option<Resolved>>,
    spawn: RefCell<Option<Spawn>>,
    ended: RefCell<Option<Ended>>,
    clients: Cell<u32>,
    air: Rc<Air>,
    /// Where the printer is, if it is at one address alone.
    at: Cell<Option<IpAddr>>,
    /// Machines with another certificate than the printer's.
    strangers: RefCell<Vec<IpAddr>>,
    bridged: Cell<bool>,
    /// Why the printer's certificate is refused.
    refusal: Cell<Option<Refusal>>,
}

#[derive(Default)]
struct Arrivals {
    waiting: RefCell<VecDeque<(Stream, SocketAddr)>>,
    acceptor: Cell<Option<Waker>>,
}

impl SimNet {
    /// A network without a printer.
    pub(crate) fn new() -> Self {
        let net = Self(Rc::default());
        net.0.air.set_proxy(&[PROXY]);
        net
    }

    /// Has the printer answer at this address alone.
    pub(crate) fn move_printer(&self, to: IpAddr) {
        self.0.at.set(Some(to));
    }

    /// Puts a machine there that answers on the printer's ports and has another certificate.
    pub(crate) fn put_stranger(&self, at: IpAddr) {
        self.0.strangers.borrow_mut().push(at);
    }

    /// Has the proxy be in a container with a network of its own.
    pub(crate) fn set_bridged(&self) {
        self.0.bridged.set(true);
    }

    /// Has the printer's certificate refused.
    pub(crate) fn refuse_certificate(&self, refusal: Refusal) {
        self.0.refusal.set(Some(refusal));
    }

    /// Its datagrams.
    pub(crate) fn air(&self) -> &Rc<Air> {
        &self.0.air
    }

    /// Puts something behind a port of the printer.
    pub(crate) fn put<D>(&self, port: u16, dial: D)
    where
        D: Dial<Stream: Into<End>> + Clone + 'static,
    {
        let dialled = move || {
            Outside::new(|| {
                let mut dial = dial.clone();
                Box::pin(async move { dial.dial().await.map(Into::into) })
            })
        };
        self.0.printer.borrow_mut().insert(port, Rc::new(dialled));
    }

    /// Serves the printer's other ports: those of its data connections.
    pub(crate) fn put_data<F, E>(&self, data: impl Fn(u16) -> F + 'static)
    where
        F: Future<Output = Option<E>> + 'static,
        E: Into<End>,
    {
        let data = move |port| {
            Outside::new(|| {
                let data = data(port);
                Box::pin(async move { data.await.map(Into::into) })
            })
        };
        *self.0.data.borrow_mut() = Some(Rc::new(data));
    }

    /// Has the printer's name resolved so; otherwise it is [`PRINTER`]'s at once.
    pub(crate) fn resolving<F>(&self, resolve: impl Fn() -> F + 'static)
    where
        F: Future<Output = Option<IpAddr>> + 'static,
    {
        let resolved = move || Outside::new(|| Box::pin(resolve()));
        *self.0.resolved.borrow_mut() = Some(Rc::new(resolved));
    }

    /// Has another program take a port of the proxy's.
    pub(crate) fn take(&self, port: u16) {
        self.0.taken.borrow_mut().push(port);
    }

    /// Has the other program free that port again.
    pub(crate) fn free(&self, port: u16) {
        self.0.taken.borrow_mut().retain(|taken| *taken != port);
    }

    /// Has the proxy's tasks started so.
    pub(crate) fn spawning(&self, spawn: impl Fn(Pinned<()>) -> JoinHandle<()> + 'static) {
        *self.0.spawn.borrow_mut() = Some(Rc::new(spawn));
    }

    /// Keeps how clients' sessions end, the last 4096 of them.
    pub(crate) fn keep_ends<E: 'static, T: 'static>(
        &self,
        kept_of: fn(&Served<E>) -> T,
    ) -> Rc<RefCell<Vec<T>>> {
        let ends = Rc::<RefCell<Vec<T>>>::default();
        let kept = Rc::clone(&ends);
        *self.0.ended.borrow_mut() = Some(Rc::new(move |end: &dyn Any| {
            let mut kept = kept.borrow_mut();
            if kept.len() < 4096 {
                kept.extend(end.downcast_ref().map(kept_of));
            }
        }));
        ends
    }

    /// Connects a client to a port of the proxy: `end` is the proxy's. Whether the port is open.
    pub(crate) fn arrive(&self, port: u16, from: IpAddr, end: impl Into<End>) -> bool {
        self.arrive_at(PROXY.into(), port, from, end)
    }

    /// The same for a client that reaches the proxy at this address.
    pub(crate) fn arrive_at(
        &self,
        proxy: IpAddr,
        port: u16,
        from: IpAddr,
        end: impl Into<End>,
    ) -> bool {
        let arrivals = self.0.ports.borrow().get(&port).cloned();
        let Some(arrivals) = arrivals else { return false };
        aside(|| {
            let peer = SocketAddr::new(from, 40_000);
            let local = SocketAddr::new(proxy, port);
            let mut waiting = arrivals.waiting.borrow_mut();
            if waiting.len() < BACKLOG {
                waiting.push_back((Stream { end: end.into(), local, peer }, peer));
            }
        });
        if let Some(acceptor) = arrivals.acceptor.take() {
            acceptor.wake();
        }
        true
    }

    /// The address of another client: 250 of them in turn.
    pub(crate) fn next_client(&self) -> IpAddr {
        let number = self.0.clients.get();
        self.0.clients.set((number + 1) % 250);
        IpAddr::from([10, 9, 0, 1 + number as u8])
    }

    /// The proxy's ports that are open.
    pub(crate) fn open(&self) -> Vec<u16> {
        self.0.ports.borrow().keys().copied().collect()
    }
}

impl net::Net for SimNet {
    type Connection = Stream;
    type Listener = Port;
    type Datagrams = datagram::Bound;
    type ClientStream = Stream;
    type PrinterStream = Stream;

    fn bind(&self, address: SocketAddr) -> io::Result<Port> {
        aside(|| {
            let mut ports = self.0.ports.borrow_mut();
            let is_free =
                |port: &u16| !ports.contains_key(port) && !self.0.taken.borrow().contains(port);
            let port = match address.port() {
                0 => (49_152..=u16::MAX).find(is_free),
                port => Some(port).filter(is_free),
            };
            let Some(port) = port else { return Err(io::ErrorKind::AddrInUse.into()) };
            let arrivals = Rc::<Arrivals>::default();
            ports.insert(port, Rc::clone(&arrivals));
            Ok(Port { address: SocketAddr::new(address.ip(), port), arrivals, net: self.clone() })
        })
    }

    fn bind_datagrams(&self, port: u16) -> io::Result<datagram::Bound> {
        aside(|| self.0.air.proxys(port))
    }

    fn segments(&self) -> Segments {
        aside(|| self.0.air.segments())
    }

    fn source_towards(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        self.0.air.source_towards(to)
    }

    fn is_bridged(&self) -> bool {
        self.0.bridged.get()
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let (port, inner) = (address.port(), &self.0);
        let is_stranger = inner.strangers.borrow().contains(&address.ip());
        if !is_stranger && inner.at.get().is_some_and(|at| at != address.ip()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let dialled = inner.printer.borrow().get(&port).cloned();
        let end = match dialled {
            Some(dialled) => match dialled().await {
                Ok(end) => Some(end),
                Err(DialError::PortClosed { .. }) => None,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
            None => {
                let data = inner.data.borrow().clone();
                match data {
                    Some(data) => data(port).await,
                    None => None,
                }
            }
        };
        let end = end.ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(Stream { end, local: SocketAddr::new(PROXY.into(), 40_000), peer: address })
    }

    async fn resolve(&self, _: &str, port: u16) -> io::Result<SocketAddr> {
        let resolved = self.0.resolved.borrow().clone();
        let found = match resolved {
            Some(resolved) => resolved().await,
            None => Some(PRINTER),
        };
        found.map(|found| SocketAddr::new(found, port)).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn accept_tls(
        &self,
        _: &Arc<ServerConfig>,
        connection: Stream,
    ) -> Result<Stream, HandshakeError> {
        Ok(connection)
    }

    async fn connect_tls(&self, _: &Trust, connection: Stream) -> Result<Stream, ConnectError> {
        if let Some(refusal) = self.0.refusal.get() {
            return Err(ConnectError::Refused(refusal));
        }
        match self.0.strangers.borrow().contains(&connection.peer.ip()) {
            true => Err(ConnectError::Refused(Refusal::UnknownIssuer)),
            false => Ok(connection),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        let spawn = self.0.spawn.borrow().clone();
        match spawn {
            // The memory of a task is in a line of its own in the budget.
            Some(spawn) => aside(|| spawn(Box::pin(task))),
            None => spawn_local(task),
        }
    }

    fn session_ended(&self, end: &dyn Any) {
        let ended = self.0.ended.borrow().clone();
        if let Some(ended) = ended {
            aside(|| ended(end));
        }
    }
}

/// A port of the proxy's.
pub(crate) struct Port {
    address: SocketAddr,
    arrivals: Rc<Arrivals>,
    net: SimNet,
}

impl Listener for Port {
    type Connection = Stream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        if let Some(came) = aside(|| self.arrivals.waiting.borrow_mut().pop_front()) {
            return Poll::Ready(Ok(came));
        }
        self.arrivals.acceptor.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The spare one is dropped, as it is made, by the task that holds the port.
        let (own, spare) = (&mut self.arrivals, Rc::default());
        aside(|| {
            drop(self.net.0.ports.borrow_mut().remove(&self.address.port()));
            drop(core::mem::replace(own, spare));
        });
    }
}

impl Connection for Stream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        None
    }

    fn set_reset_on_drop(&self, resets: bool) {
        if let End::Wire(wire) = &self.end {
            wire.set_reset_on_drop(resets);
        }
    }

    fn poll_judge<T>(
        &self,
        _: &mut Context<'_>,
        judge: &impl Fn(&[u8]) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>> {
        // There is no TLS in the simulation: the shortest ClientHello serves for any.
        Poll::Ready(Ok(judge(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")))
    }

    async fn closed(&self) {
        core::future::pending::<()>().await;
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            End::Pipe(pipe) => Pin::new(pipe).poll_read(cx, into),
            End::Wire(wire) => Pin::new(wire).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().end {
            End::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            End::Wire(wire) => Pin::new(wire).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            End::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
            End::Wire(wire) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            End::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
            End::Wire(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}
