//! Admission control: a listener, an accept queue and pre-auth slots for each service.
//!
//! A connection that has not shown the access code yet holds one of the service's pre-auth slots, for no
//! longer than the service's login timeout. One address may hold only some of them. A connection without a
//! slot waits in the accept queue. When the queue is full, the new connection is closed; if another address
//! has more connections in the queue, that address' last one is closed in its place. So clients that never
//! log in cost a few sockets, and only their own address.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections without the code | `BOARD.pre_auth` | wait in the accept queue |
//! | of those, from one address | `BOARD.pre_auth_per_address` | wait in the accept queue |
//! | accept queue | [`ACCEPT_QUEUE`] | the connection is closed, or the last one of the address with most of them |
//! | wrong codes from an address | [`auth`](crate::auth) | the address is locked out for a while |

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::net::UdpSocket;

use tokio::sync::Notify;

use super::Clock;
use super::net::{Connection, Listener, Net, Sockets};
use crate::auth::{Guess, Limiter, Lockout, REFUSED_FOR, WRONG_CODES};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget::ACCEPT_QUEUE;
use crate::memory::ring::{Full, Ring};
use crate::peer::Peer;
use crate::rejections;
use crate::tls::HandshakeError;

/// The pause after accepting failed, as it does without free file descriptors.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Rejections of one service are logged at most once in this time; those in between are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Warns if this machine does not have the address that the proxy is to listen on.
pub fn warn_if_absent(address: IpAddr) {
    let absent = |error: io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    if UdpSocket::bind((address, 0)).is_err_and(absent) {
        log::warn!(
            "this machine does not have the address {address} (--bind) yet; clients are served once it does"
        );
    }
}

/// Admission control of one service.
pub struct Acceptor<N: Net = Sockets> {
    service: &'static str,
    limiter: Rc<RefCell<Limiter>>,
    /// The accept queue: connections without a slot, with their addresses.
    waiting: RefCell<Ring<(N::Connection, IpAddr), ACCEPT_QUEUE>>,
    /// The addresses of the connections that hold pre-auth slots.
    pre_auth: RefCell<heapless::Vec<IpAddr, { BOARD.pre_auth }>>,
    /// Notified when a connection was queued, or a pre-auth slot is free.
    opened: Notify,
    /// Number of the last client.
    numbers: Cell<u32>,
    /// Rejections since the last one that was logged.
    unlogged: Cell<u32>,
    /// Time of the last rejection that was logged.
    logged: Cell<Option<Instant>>,
}

/// Why a connection was closed before it got a pre-auth slot, displayed as in the log.
#[derive(Debug)]
enum Rejection {
    /// Its address sent wrong access codes.
    LockedOut(IpAddr),
    /// The accept queue is full.
    QueueFull(IpAddr),
    /// The operating system reported an error.
    Accept(io::Error),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockedOut(address) => {
                write!(f, "{address}: client rejected: locked out after wrong access codes")
            }
            Self::QueueFull(address) => write!(
                f,
                "{address}: client rejected: all {ACCEPT_QUEUE} places in the accept queue are in use"
            ),
            Self::Accept(error) => write!(f, "cannot accept connections: {error}"),
        }
    }
}

/// An address was locked out, displayed as in the log.
struct LockedOut {
    service: &'static str,
    address: IpAddr,
}

impl fmt::Display for LockedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, address } = self;
        let seconds = REFUSED_FOR.as_secs();
        write!(
            f,
            "{service}: {address}: locked out for {seconds} s after {WRONG_CODES} wrong access codes"
        )
    }
}

/// Log lines of admission control, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;

    let address = IpAddr::from([192, 168, 1, 7]);
    let mut lines: alloc::vec::Vec<_> = [
        Rejection::LockedOut(address),
        Rejection::QueueFull(address),
        Rejection::Accept(io::ErrorKind::OutOfMemory.into()),
    ]
    .map(|rejection| alloc::format!("mqtt: {rejection}"))
    .into();
    lines.push(LockedOut { service: "mqtt", address }.to_string());
    lines
}

/// A connection that holds a pre-auth slot, until it is dropped,
/// [logged in](Self::pass) or [released](Self::release).
pub struct PendingClient<N: Net = Sockets> {
    acceptor: Rc<Acceptor<N>>,
    /// The client's name in the log.
    pub peer: Peer,
    /// Whether the connection comes from this machine.
    own: bool,
    /// Whether the pre-auth slot is free again.
    is_released: Cell<bool>,
}

impl<N: Net> Acceptor<N> {
    /// The acceptor of a service. Services share the limiter, so wrong codes count for all of them.
    pub fn new(service: &'static str, limiter: Rc<RefCell<Limiter>>) -> Rc<Self> {
        Rc::new(Self {
            service,
            limiter,
            waiting: RefCell::new(Ring::new()),
            pre_auth: RefCell::new(heapless::Vec::new()),
            opened: Notify::new(),
            numbers: Cell::new(0),
            unlogged: Cell::new(0),
            logged: Cell::new(None),
        })
    }

    /// Accepts connections into the accept queue, for ever.
    pub async fn listen(&self, listener: &N::Listener, clock: &Clock) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.arrive(clock.now(), stream, from.ip().to_canonical()),
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.reject(clock.now(), &Rejection::Accept(error));
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn arrive(&self, now: Instant, stream: N::Connection, address: IpAddr) {
        if self.limiter.borrow_mut().is_refused(now, self.service, address) {
            self.reject(now, &Rejection::LockedOut(address));
            return;
        }
        let closed = self.queue_up(stream, address);
        if let Some(from) = closed {
            self.reject(now, &Rejection::QueueFull(from));
        }
        if closed != Some(address) {
            // The worker that became idle last: its buffers are in use already, others' remain untouched.
            self.opened.notify_last();
        }
    }

    /// Puts a connection into the accept queue. In a full queue the address with most connections loses its
    /// last one to an address with fewer. Returns the address whose connection was closed, if one was.
    fn queue_up(&self, stream: N::Connection, address: IpAddr) -> Option<IpAddr> {
        let mut waiting = self.waiting.borrow_mut();
        let Err(Full(newcomer)) = waiting.push((stream, address)) else { return None };
        let of = |address: IpAddr| waiting.iter().filter(|(_, from)| *from == address).count();
        let largest = waiting.iter().map(|(_, from)| *from).max_by_key(|from| of(*from))?;
        let last = of(largest);
        if last <= of(address) + 1 {
            return Some(address);
        }
        let mut seen = 0;
        waiting.retain(|connection| {
            seen += usize::from(connection.1 == largest);
            (connection.1 != largest || seen != last).then_some(connection)
        });
        // It fits: one connection was removed.
        let _fits = waiting.push(newcomer);
        Some(largest)
    }

    /// Logs that a connection was rejected, at most once in [`LOG_INTERVAL`].
    fn reject(&self, now: Instant, why: &Rejection) {
        if self.logged.get().is_some_and(|logged| now.since(logged) < LOG_INTERVAL) {
            self.unlogged.set(self.unlogged.get().saturating_add(1));
            journal::tally(Kind::Refused);
            return;
        }
        self.logged.set(Some(now));
        let service = self.service;
        match self.unlogged.replace(0) {
            0 => journal::note(Kind::Refused, format_args!("{service}: {why}")),
            more => journal::note(
                Kind::Refused,
                format_args!("{service}: {why} (seen {} times)", more.saturating_add(1)),
            ),
        }
    }

    /// Waits for the next connection that gets a pre-auth slot.
    pub async fn next(self: &Rc<Self>, clock: &Clock) -> (N::Connection, PendingClient<N>) {
        loop {
            if let Some((stream, address)) = self.dequeue(clock.now()) {
                let number = self.numbers.get().wrapping_add(1);
                self.numbers.set(number);
                let peer = Peer { service: self.service, number, address };
                let own = stream.local_addr().is_ok_and(|at| at.ip().to_canonical() == address);
                let pending = PendingClient {
                    acceptor: Rc::clone(self),
                    peer,
                    own,
                    is_released: Cell::new(false),
                };
                return (stream, pending);
            }
            self.opened.notified().await;
        }
    }

    /// Takes the first connection from the accept queue whose address may have a pre-auth slot. Closes connections
    /// whose address was locked out after they were queued.
    fn dequeue(&self, now: Instant) -> Option<(N::Connection, IpAddr)> {
        let mut waiting = self.waiting.borrow_mut();
        let mut pre_auth = self.pre_auth.borrow_mut();
        let mut next = None;
        waiting.retain(|(stream, address)| {
            if self.limiter.borrow_mut().is_refused(now, self.service, address) {
                journal::tally(Kind::Refused);
                return None;
            }
            let held = pre_auth.iter().filter(|held| **held == address).count();
            if next.is_none() && held < BOARD.pre_auth_per_address && pre_auth.push(address).is_ok()
            {
                next = Some((stream, address));
                return None;
            }
            Some((stream, address))
        });
        next
    }

    fn free_slot(&self, address: IpAddr) {
        let mut pre_auth = self.pre_auth.borrow_mut();
        if let Some(at) = pre_auth.iter().position(|held| *held == address) {
            pre_auth.swap_remove(at);
        }
        self.opened.notify_last();
    }
}

impl<N: Net> PendingClient<N> {
    /// The client has logged in: frees its pre-auth slot and forgets its address' wrong codes.
    pub fn pass(&self) {
        if !self.is_released.get() {
            self.acceptor.limiter.borrow_mut().forget_wrong_codes(self.peer.address);
            self.release();
        }
    }

    /// Whether the connection comes from this machine.
    pub const fn is_own(&self) -> bool {
        self.own
    }

    /// Frees the pre-auth slot of a client that is served without an access code, as in a relay.
    pub fn release(&self) {
        if !self.is_released.replace(true) {
            self.acceptor.free_slot(self.peer.address);
        }
    }

    /// Logs that the TLS handshake failed with `reason`, or timed out (`None`). A connection from this machine that
    /// closes during the handshake is a health check (`pandaproxy health`): logged at debug level.
    pub fn note_handshake_failure(&self, now: Instant, reason: Option<HandshakeError>) {
        let kind = reason.map_or(Kind::Silent, HandshakeError::kind);
        let peer = self.peer;
        if self.own && reason == Some(HandshakeError::Left) {
            log::debug!("{peer}: closed during the TLS handshake (health check)");
            return journal::tally(kind);
        }
        match reason {
            None => rejections::note(
                now,
                kind,
                peer.address,
                format_args!("{peer}: client rejected: TLS handshake timed out"),
            ),
            Some(why) => {
                let event = if matches!(kind, Kind::Left) { "disconnected" } else { "rejected" };
                let line = format_args!("{peer}: client {event}: {why}");
                rejections::note(now, kind, peer.address, line);
            }
        }
    }

    /// Counts a wrong access code. The same one counts once.
    pub fn count_wrong_code(&self, now: Instant, guess: Guess) {
        let Peer { service, address, .. } = self.peer;
        let mut limiter = self.acceptor.limiter.borrow_mut();
        match limiter.count_wrong_code(now, service, address, guess) {
            Lockout::Counted(_) => {}
            Lockout::JustLocked => {
                journal::note(Kind::LockedOut, format_args!("{}", LockedOut { service, address }));
            }
        }
    }
}

impl<N: Net> Drop for PendingClient<N> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether accepting failed because the peer had closed the connection.
pub(super) fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, SocketAddr};
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    /// Pre-auth slots of one address, and of all.
    const EACH: usize = BOARD.pre_auth_per_address;
    const ALL: usize = BOARD.pre_auth;

    /// The two ends of a real connection.
    type Ends = (TcpStream, TcpStream);

    /// An acceptor, and real connections to it from any address of the loopback network.
    struct Bed {
        acceptor: Rc<Acceptor>,
        listener: TcpListener,
    }

    impl Bed {
        fn new() -> Self {
            let acceptor = Acceptor::new("mqtt", Rc::new(RefCell::new(Limiter::new())));
            let listener = Sockets.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
            Self { acceptor, listener }
        }

        async fn connection(&self, from: u8) -> Ends {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(host(from), 0)).unwrap();
            let to = self.listener.local_addr().unwrap();
            let (near, far) = tokio::join!(socket.connect(to), self.listener.accept());
            (near.unwrap(), far.unwrap().0)
        }

        /// Connects to the acceptor from 127.0.0.`from`, and returns the client's end.
        async fn arrival(&self, from: u8) -> TcpStream {
            self.arrival_at(Instant::START, from).await
        }

        async fn arrival_at(&self, now: Instant, from: u8) -> TcpStream {
            let (near, far) = self.connection(from).await;
            self.acceptor.arrive(now, far, host(from));
            near
        }

        /// The connection that gets a slot now, without waiting.
        fn dequeued(&self) -> Option<(TcpStream, PendingClient)> {
            let clock = Clock::start();
            let next = pin!(self.acceptor.next(&clock));
            match next.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(dequeued) => Some(dequeued),
                Poll::Pending => None,
            }
        }
    }

    const fn host(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test)
    }

    /// Whether the other end has been closed; waits for it.
    async fn is_closed(near: &mut TcpStream) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(5), near.read(&mut byte));
        matches!(read.await, Ok(Ok(0) | Err(_)))
    }

    /// Lines of the journal with these words.
    fn journal_lines(words: &str) -> usize {
        let mut text = String::new();
        journal::write_to(&mut text).unwrap();
        text.lines().filter(|line| line.contains(words)).count()
    }

    #[test]
    fn one_address_cannot_take_all_pre_auth_slots() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for _ in 0..ALL {
                clients.push(bed.arrival(2).await);
            }
            let held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            assert!(bed.dequeued().is_none());
            clients.push(bed.arrival(3).await);
            let (_stream, pending) = bed.dequeued().unwrap();
            assert_eq!(pending.peer.address, host(3), "queued last, served first");
            assert_eq!(pending.peer.number as usize, held.len() + 1);
        });
    }

    #[test]
    fn queued_connections_get_slots_in_order_of_arrival() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            let mut held = Vec::new();
            for _ in 0..EACH {
                clients.push(bed.arrival(2).await);
                held.push(bed.dequeued().unwrap());
            }
            // Two of the full address, and two of another behind them.
            let mut ports = Vec::new();
            for from in [2, 2, 3, 3] {
                let client = bed.arrival(from).await;
                ports.push(client.local_addr().unwrap().port());
                clients.push(client);
            }
            let port =
                |dequeued: &(TcpStream, PendingClient)| dequeued.0.peer_addr().unwrap().port();
            for _ in EACH..ALL {
                let dequeued = bed.dequeued().unwrap();
                assert_eq!(port(&dequeued), ports.remove(2));
                held.push(dequeued);
            }
            assert!(bed.dequeued().is_none(), "all pre-auth slots are in use");
            drop(held);
            let rest: Vec<_> = core::iter::from_fn(|| bed.dequeued()).collect();
            assert_eq!(rest.iter().map(port).collect::<Vec<_>>(), ports);
        });
    }

    #[test]
    fn a_connection_that_a_full_queue_rejects_is_counted() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for from in 0..ACCEPT_QUEUE {
                clients.push(bed.arrival(10 + from as u8).await);
            }
            assert_eq!(journal::count(Kind::Refused), 0);
            let mut refused = bed.arrival(2).await;
            assert!(is_closed(&mut refused).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            assert_eq!(bed.acceptor.waiting.borrow().len(), ACCEPT_QUEUE);
        });
    }

    #[test]
    fn a_full_queue_evicts_from_the_address_with_most_entries() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for _ in 0..ACCEPT_QUEUE {
                clients.push(bed.arrival(2).await);
            }
            let mut refused = bed.arrival(2).await;
            assert!(is_closed(&mut refused).await, "one more of the same address");
            let _other = bed.arrival(3).await;
            assert!(is_closed(clients.last_mut().unwrap()).await, "the last one of that address");
            assert_eq!(journal::count(Kind::Refused), 2);
            let held: Vec<_> = core::iter::from_fn(|| bed.dequeued()).collect();
            let from: Vec<IpAddr> = held.iter().map(|(_, pending)| pending.peer.address).collect();
            assert_eq!(from[..EACH], [host(2); EACH], "in order of arrival");
            assert_eq!(from[EACH..], [host(3)]);
        });
    }

    #[test]
    fn a_freed_pre_auth_slot_goes_to_the_next_connection() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for _ in 0..EACH + 2 {
                clients.push(bed.arrival(2).await);
            }
            let mut held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            for free in [PendingClient::pass as fn(&PendingClient), |_| {}] {
                let acceptor = Rc::clone(&bed.acceptor);
                let next = spawn_local(async move { acceptor.next(&Clock::start()).await });
                tokio::task::yield_now().await;
                assert!(!next.is_finished());
                let (stream, pending) = held.remove(0);
                free(&pending);
                if pending.is_released.get() {
                    // Its slot is free already: dropping the connection later frees no second one.
                    held.push(next.await.unwrap());
                    drop((stream, pending));
                    assert_eq!(bed.acceptor.pre_auth.borrow().len(), EACH);
                } else {
                    drop((stream, pending));
                    held.push(next.await.unwrap());
                }
            }
        });
    }

    #[test]
    fn a_locked_out_address_is_closed_and_others_are_served() {
        run(async {
            let bed = Bed::new();
            let _client = bed.arrival(2).await;
            let (_stream, pending) = bed.dequeued().unwrap();
            for code in 0..WRONG_CODES {
                pending.count_wrong_code(Instant::START, Guess::of(code));
            }
            assert_eq!(journal::count(Kind::LockedOut), 1);
            let mut locked_out = bed.arrival(2).await;
            assert!(is_closed(&mut locked_out).await);
            let _other = bed.arrival(3).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(3));
            let _later = bed.arrival_at(Instant::at(REFUSED_FOR), 2).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(2));
        });
    }

    #[test]
    fn rejections_are_logged_once_in_ten_seconds() {
        run(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for from in 0..ACCEPT_QUEUE {
                clients.push(bed.arrival(10 + from as u8).await);
            }
            let almost = Instant::at(LOG_INTERVAL - Duration::from_millis(1));
            for now in [Instant::START, Instant::START, almost] {
                clients.push(bed.arrival_at(now, 2).await);
            }
            assert_eq!(journal_lines("accept queue are in use"), 1);
            clients.push(bed.arrival_at(Instant::at(LOG_INTERVAL), 2).await);
            assert_eq!(journal_lines("accept queue are in use"), 2);
            assert_eq!(journal_lines("(seen 3 times)"), 1);
            assert_eq!(journal::count(Kind::Refused), 4);
        });
    }

    #[test]
    fn a_listener_passes_on_connections_with_their_address() {
        run(async {
            let bed = Bed::new();
            let to = bed.listener.local_addr().unwrap();
            let Bed { acceptor, listener } = bed;
            let listens = Rc::clone(&acceptor);
            let listening =
                spawn_local(async move { listens.listen(&listener, &Clock::start()).await });
            for number in 1..=3 {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::new(host(number), 0)).unwrap();
                let near = socket.connect(to).await.unwrap();
                let (stream, pending) = acceptor.next(&Clock::start()).await;
                assert_eq!(stream.peer_addr().unwrap(), near.local_addr().unwrap());
                let number = u32::from(number);
                let address = host(number as u8);
                assert_eq!(pending.peer, Peer { service: "mqtt", number, address });
            }
            listening.abort();
        });
    }
}
