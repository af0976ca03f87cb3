//! The network that the proxy runs on: real sockets ([`Sockets`]), or a simulated network in the tests.
//!
//! [`launch`](super::launch) makes every listener, every accepted connection and every connection to the
//! printer through one [`Net`], so a test runs the whole proxy in memory and in virtual time.
//! A simulated network may leave TLS out: the types of a secured connection are its own.

use alloc::sync::Arc;
use core::any::Any;
use core::future::poll_fn;
use core::net::{Ipv4Addr, SocketAddr};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, spawn_local};

use super::datagram::{self, Datagrams};
use crate::memory::budget;
use crate::segment::Segments;
use crate::tls::{
    ClientStream, ConnectError, HandshakeError, ServerConfig, ServerStream, Trust, accept, connect,
};

/// Bytes that [`Connection::peek`] looks at.
pub const PEEKED: usize = 4096;

/// Connections that the kernel completes and keeps before the proxy has accepted them.
const BACKLOG: u32 = 128;

/// Makes listeners and connections, and runs the proxy's tasks.
pub trait Net: Clone + 'static {
    /// A TCP connection.
    type Connection: Connection;
    /// A listening TCP port.
    type Listener: Listener<Connection = Self::Connection>;
    /// A UDP port.
    type Datagrams: Datagrams;
    /// A connection with a client after the TLS handshake.
    type ClientStream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// A connection with the printer after the TLS handshake.
    type PrinterStream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Binds a TCP port and listens on it. An address that this machine does not have yet is no error:
    /// after a power cut a board is up before its network is, and listens there as soon as it has it.
    ///
    /// # Errors
    ///
    /// The port cannot be bound.
    fn bind(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Binds a UDP port of all addresses of this machine, and shares it with other programs.
    ///
    /// # Errors
    ///
    /// Another program has the port and does not share it.
    fn bind_datagrams(&self, port: u16) -> io::Result<Self::Datagrams>;

    /// The networks that this machine has an address in now, without the loopback network. A simulated network may have
    /// none.
    fn segments(&self) -> Segments {
        Segments::new()
    }

    /// The address from which this machine would send to `to` now.
    fn source_towards(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        let _ = to;
        None
    }

    /// Whether this is a container with a network of its own behind a bridge, which broadcasts do not leave.
    fn is_bridged(&self) -> bool {
        false
    }

    /// Connects to `address`, without a deadline of its own.
    ///
    /// # Errors
    ///
    /// The connection is refused, or the peer does not answer.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Connection>>;

    /// The first IPv4 address of `name`, or its first address if it has no IPv4 address; without a
    /// deadline of its own.
    ///
    /// # Errors
    ///
    /// The name has no address.
    fn resolve(&self, name: &str, port: u16) -> impl Future<Output = io::Result<SocketAddr>>;

    /// The TLS handshake with a client.
    ///
    /// # Errors
    ///
    /// The handshake failed.
    fn accept_tls(
        &self,
        tls: &Arc<ServerConfig>,
        connection: Self::Connection,
    ) -> impl Future<Output = Result<Self::ClientStream, HandshakeError>>;

    /// The TLS handshake with the printer, whose certificate is verified as `trust` says.
    ///
    /// # Errors
    ///
    /// The handshake failed, or the certificate is not trusted.
    fn connect_tls(
        &self,
        trust: &Trust,
        connection: Self::Connection,
    ) -> impl Future<Output = Result<Self::PrinterStream, ConnectError>>;

    /// Starts a task on this thread. A simulated network may count what the task allocates.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        spawn_local(task)
    }

    /// Called with what the service returns when a client's session has ended. A simulated network may keep it.
    fn session_ended(&self, end: &dyn Any) {
        let _ = end;
    }
}

/// Starts a task. The build fails if it is larger than its line in the memory budget.
pub(super) fn spawn<N: Net, F: Future<Output = ()> + 'static>(net: &N, task: F) -> JoinHandle<()> {
    const {
        assert!(size_of::<F>() <= budget::TASK, "a task is larger than its line in the budget");
    }
    net.spawn(task)
}

/// A listening TCP port.
pub trait Listener: 'static {
    /// A connection that it accepts.
    type Connection: Connection;

    /// The next connection, and the peer's address.
    ///
    /// # Errors
    ///
    /// The connection could not be accepted.
    fn poll_accept(&self, cx: &mut Context<'_>)
    -> Poll<io::Result<(Self::Connection, SocketAddr)>>;

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The operating system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The socket, for its options; a simulated listener has none.
    fn socket(&self) -> Option<SockRef<'_>> {
        None
    }

    /// The next connection, and the peer's address.
    ///
    /// # Errors
    ///
    /// The connection could not be accepted.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Connection, SocketAddr)>> {
        poll_fn(|cx| self.poll_accept(cx))
    }
}

/// A TCP connection, before TLS.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Its own address.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn peer_addr(&self) -> io::Result<SocketAddr>;

    /// The socket, for its options; a simulated connection has none.
    fn socket(&self) -> Option<SockRef<'_>>;

    /// Whether dropping the connection resets it (RST) or closes it in order (FIN).
    fn set_reset_on_drop(&self, resets: bool);

    /// Ready once `judge` gives a result for the bytes that the peer has sent so far, [`PEEKED`] at most, which stay
    /// unread. `None`: the peer closed before.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn poll_judge<T>(
        &self,
        cx: &mut Context<'_>,
        judge: &impl Fn(&[u8]) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>>;

    /// The same as a future.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn peek<T>(
        &self,
        judge: impl Fn(&[u8]) -> Option<T>,
    ) -> impl Future<Output = io::Result<Option<T>>> {
        poll_fn(move |cx| self.poll_judge(cx, &judge))
    }

    /// Completes once the peer has closed its side, or the connection is lost. What it sent before stays
    /// unread.
    fn closed(&self) -> impl Future<Output = ()>;
}

/// Real sockets, with TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

impl Net for Sockets {
    type Connection = TcpStream;
    type Listener = TcpListener;
    type Datagrams = UdpSocket;
    type ClientStream = ServerStream<TcpStream>;
    type PrinterStream = ClientStream<TcpStream>;

    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart does not have to wait for the previous process' connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let options = SockRef::from(&socket);
                match address {
                    SocketAddr::V4(_) => options.set_freebind_v4(true)?,
                    SocketAddr::V6(_) => options.set_freebind_v6(true)?,
                }
                socket.bind(address)?;
            }
            bound => bound?,
        }
        socket.listen(BACKLOG)
    }

    fn bind_datagrams(&self, port: u16) -> io::Result<UdpSocket> {
        datagram::bind(port)
    }

    fn segments(&self) -> Segments {
        datagram::segments()
    }

    fn source_towards(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        datagram::source_towards(to)
    }

    fn is_bridged(&self) -> bool {
        datagram::is_bridged()
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<SocketAddr> {
        // The one place that needs a second thread: the system's resolver blocks.
        let found = tokio::net::lookup_host((name, port)).await?;
        // Printers speak IPv4; an IPv6 address of that name is a router's own entry.
        let found: heapless::Vec<SocketAddr, 8> = found.take(8).collect();
        let address = found.iter().find(|found| found.is_ipv4()).or(found.first());
        address.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn accept_tls(
        &self,
        tls: &Arc<ServerConfig>,
        connection: TcpStream,
    ) -> Result<ServerStream<TcpStream>, HandshakeError> {
        accept(tls, connection).await
    }

    async fn connect_tls(
        &self,
        trust: &Trust,
        connection: TcpStream,
    ) -> Result<ClientStream<TcpStream>, ConnectError> {
        connect(trust, connection).await
    }
}

impl Listener for TcpListener {
    type Connection = TcpStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (connection, from) = ready!(Self::poll_accept(self, cx))?;
        Poll::Ready(Ok((connection, from)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(self))
    }
}

impl Connection for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Self::peer_addr(self)
    }

    fn socket(&self) -> Option<SockRef<'_>> {
        Some(SockRef::from(self))
    }

    fn set_reset_on_drop(&self, resets: bool) {
        // An option that cannot be set belongs to a connection that is lost.
        let _lost = SockRef::from(self).set_linger(resets.then_some(Duration::ZERO));
    }

    fn poll_judge<T>(
        &self,
        cx: &mut Context<'_>,
        judge: &impl Fn(&[u8]) -> Option<T>,
    ) -> Poll<io::Result<Option<T>>> {
        let mut before = None;
        loop {
            // On the stack, not in the task.
            let mut bytes = [0; PEEKED];
            let mut bytes = ReadBuf::new(&mut bytes);
            let count = ready!(self.poll_peek(cx, &mut bytes))?;
            let judged = judge(bytes.filled());
            // A connection that remains readable without another byte has been closed by the peer.
            if judged.is_some() || count == 0 || before == Some(count) {
                return Poll::Ready(Ok(judged));
            }
            before = Some(count);
            // Clears the readiness, so that the next turn waits for more bytes.
            let _waits = self.try_io(Interest::READABLE, || {
                Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
            });
        }
    }

    async fn closed(&self) {
        // Not "readable", which a connection is as soon as the peer has sent something.
        let _closed = self.ready(Interest::PRIORITY | Interest::ERROR).await;
    }
}
