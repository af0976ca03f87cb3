//! Data ports towards FTP clients in proxy mode: of a small fixed range, opened by PASV and EPSV.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | ports | the range of `--ftp-data-ports` | 425 |
//! | open ports of a client | one | the next replaces it |
//! | connections to a port | one, from the address of the control connection | closed |
//! | time | [`PASSIVE_PORT_TIMEOUT`](crate::ftp::slot::PASSIVE_PORT_TIMEOUT) | closed |

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::task::Poll;
use core::time::Duration;

use super::relay::Seen;
use crate::ftp::slot::PassivePort as State;
use crate::ftp::{ClientLink, SLOTS};
use crate::journal::{self, Kind, RateLimit};
use crate::runtime::Clock;
use crate::runtime::net::{Listener, Net, Sockets};
use crate::runtime::pacing::limit_unread;
use crate::runtime::stream::tune_data;

/// Pause after a failure to accept.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The data ports of all clients.
pub struct PassivePorts<N: Net = Sockets> {
    net: N,
    passive_ports: Box<[PassivePort<N>]>,
    address: IpAddr,
    ports: RangeInclusive<u16>,
    receive_buffer: usize,
    /// The port that is tried first: the one after the last, so that a port is reused as late as possible.
    next: Cell<u16>,
    in_use_log: RateLimit,
    other_address_log: RateLimit,
}

struct PassivePort<N: Net> {
    /// Owned here alone, so that the port is free as soon as this is dropped.
    listener: RefCell<Option<N::Listener>>,
    stream: RefCell<Option<N::Connection>>,
}

impl<N: Net> PassivePorts<N> {
    /// The data ports of the range `ports` at `address`; none is open yet. `receive_buffer` is that of their connections, in
    /// bytes.
    pub fn new(
        net: N,
        address: IpAddr,
        ports: RangeInclusive<u16>,
        receive_buffer: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            net,
            passive_ports: (0..SLOTS).map(|_| PassivePort::new()).collect(),
            address,
            receive_buffer,
            next: Cell::new(*ports.start()),
            ports,
            in_use_log: RateLimit::default(),
            other_address_log: RateLimit::default(),
        })
    }

    /// Opens a port for a slot and closes the one it had. `None`: all are in use.
    pub fn open(&self, slot: usize, clock: &Clock) -> Option<u16> {
        let passive_port = self.passive_ports.get(slot)?;
        passive_port.close();
        let after = self.next.get()..=*self.ports.end();
        let before = *self.ports.start()..self.next.get();
        for port in after.chain(before) {
            match self.net.bind(SocketAddr::new(self.address, port)) {
                Ok(listener) => {
                    let last = port == *self.ports.end();
                    self.next.set(if last { *self.ports.start() } else { port + 1 });
                    let bound = listener.local_addr().ok()?.port();
                    // A listener with larger buffers serves as well.
                    let _larger = limit_unread(&listener, self.receive_buffer);
                    passive_port.listener.replace(Some(listener));
                    return Some(bound);
                }
                Err(error) if !self.is_own(port) => {
                    if let Some(times) = self.in_use_log.check(clock.now()) {
                        log::info!(
                            "ftp: cannot listen on data port {port}: {error}{}",
                            Seen(times)
                        );
                    }
                }
                Err(_) => {}
            }
        }
        journal::note(
            Kind::Refused,
            format_args!(
                "ftp: all data ports {}-{} are in use; choose a larger range with --ftp-data-ports",
                self.ports.start(),
                self.ports.end()
            ),
        );
        None
    }

    /// Whether a client of this proxy has that port.
    fn is_own(&self, port: u16) -> bool {
        self.passive_ports.iter().any(|passive_port| {
            let listener = passive_port.listener.borrow();
            let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
            bound.is_some_and(|bound| bound.port() == port)
        })
    }

    /// The client's connection to its data port.
    pub(super) fn take(&self, slot: usize) -> Option<N::Connection> {
        self.passive_ports.get(slot)?.stream.take()
    }

    /// Closes a slot's port and its connection.
    pub fn close(&self, slot: usize) {
        if let Some(passive_port) = self.passive_ports.get(slot) {
            passive_port.close();
        }
    }

    /// Accepts the connection to one client's port, from its own address only, and closes the port when it is not needed any
    /// more.
    pub async fn tend(&self, link: &ClientLink, peer: IpAddr, clock: &Clock) -> Infallible {
        let Some(passive_port) = self.passive_ports.get(link.slot().index()) else {
            return core::future::pending().await;
        };
        loop {
            if link.slot().passive_port() == State::Closed {
                passive_port.close();
            }
            let accepted = poll_fn(|cx| match &*passive_port.listener.borrow() {
                Some(listener) => listener.poll_accept(cx),
                None => Poll::Pending,
            });
            let accepted = tokio::select! {
                biased;
                () = link.slot().passive_port_notified() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, from)) if from.ip().to_canonical() == peer => {
                    // An option that cannot be set belongs to a lost connection.
                    let _lost = tune_data(&stream);
                    passive_port.close();
                    passive_port.stream.replace(Some(stream));
                    link.connected(clock.now());
                }
                Ok((_, from)) => {
                    let from = from.ip().to_canonical();
                    if let Some(times) = self.other_address_log.check(clock.now()) {
                        journal::note(
                            Kind::Refused,
                            format_args!(
                                "{peer}: data connection from {from} rejected: another address{}",
                                Seen(times)
                            ),
                        );
                    }
                }
                Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
            }
        }
    }
}

impl<N: Net> PassivePort<N> {
    const fn new() -> Self {
        Self { listener: RefCell::new(None), stream: RefCell::new(None) }
    }

    fn close(&self) {
        self.listener.take();
        self.stream.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AccessCode;
    use crate::ftp::Service;
    use crate::peer::Peer;
    use crate::runtime::pacing::RECEIVE_BUFFER;
    use crate::tls::{ConnectError, HandshakeError, ServerConfig, Trust};
    use alloc::sync::Arc;
    use core::net::Ipv4Addr;
    use core::pin::pin;
    use core::task::{Context, Waker};
    use std::io;
    use tokio::net::{TcpStream, UdpSocket};

    /// A network with one port.
    #[derive(Clone, Default)]
    struct OnePort(Rc<Cell<bool>>);

    /// The port while it is bound.
    struct Bound(Rc<Cell<bool>>);

    impl Net for OnePort {
        type Connection = TcpStream;
        type Listener = Bound;
        type Datagrams = UdpSocket;
        type ClientStream = TcpStream;
        type PrinterStream = TcpStream;

        fn bind(&self, _: SocketAddr) -> io::Result<Bound> {
            match self.0.replace(true) {
                false => Ok(Bound(Rc::clone(&self.0))),
                true => Err(io::ErrorKind::AddrInUse.into()),
            }
        }

        fn bind_datagrams(&self, _: u16) -> io::Result<UdpSocket> {
            Err(io::ErrorKind::AddrInUse.into())
        }

        async fn connect(&self, _: SocketAddr) -> io::Result<TcpStream> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        async fn resolve(&self, _: &str, _: u16) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::NotFound.into())
        }

        async fn accept_tls(
            &self,
            _: &Arc<ServerConfig>,
            connection: TcpStream,
        ) -> Result<TcpStream, HandshakeError> {
            Ok(connection)
        }

        async fn connect_tls(
            &self,
            _: &Trust,
            connection: TcpStream,
        ) -> Result<TcpStream, ConnectError> {
            Ok(connection)
        }
    }

    impl Listener for Bound {
        type Connection = TcpStream;

        fn poll_accept(&self, _: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 2024)))
        }
    }

    impl Drop for Bound {
        fn drop(&mut self) {
            self.0.set(false);
        }
    }

    #[test]
    fn the_only_data_port_can_be_opened_again() {
        let service = Service::new(AccessCode::new(b"12345678").unwrap(), 1);
        let link = service.pending(Peer::unknown()).unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let passive_ports =
            PassivePorts::new(OnePort::default(), address, 2024..=2024, RECEIVE_BUFFER);
        let clock = Clock::start();
        let mut tending = pin!(passive_ports.tend(&link, address, &clock));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert_eq!(passive_ports.open(link.slot().index(), &clock), Some(2024));
            link.slot().open_passive_port(clock.now());
            assert!(tending.as_mut().poll(&mut cx).is_pending());
        }
    }
}
