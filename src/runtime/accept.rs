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
use crate::session::Blame;
use crate::tls::HandshakeError;

/// The pause after accepting failed, as it does without free file descriptors.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Rejections are logged at most this often for each service; those in between are counted.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Warns if this machine does not have the address that the proxy is to listen on.
pub fn say_if_absent(address: IpAddr) {
    let absent = |error: io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    if UdpSocket::bind((address, 0)).is_err_and(absent) {
        log::warn!(
            "this machine does not have the address {address} (--bind) yet; clients are served once it has"
        );
    }
}

/// A service's acceptor.
pub struct Acceptor<N: Net = Sockets> {
    service: &'static str,
    limiter: Rc<RefCell<Limiter>>,
    waiting: RefCell<Ring<(N::Connection, IpAddr), ACCEPT_QUEUE>>,
    /// The addresses of the connections that hold pre-auth slots.
    pre_auth: RefCell<heapless::Vec<IpAddr, { BOARD.pre_auth }>>,
    opened: Notify,
    numbers: Cell<u32>,
    unsaid: Cell<u32>,
    said: Cell<Option<Instant>>,
}

/// A connection that holds a pre-auth slot, until it is dropped, [`pass`](Self::pass) or
/// [`step_in`](Self::step_in).
pub struct PendingClient<N: Net = Sockets> {
    acceptor: Rc<Acceptor<N>>,
    /// The client's name in the log.
    pub peer: Peer,
    /// Whether it comes from this machine.
    own: bool,
    inside: Cell<bool>,
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
            unsaid: Cell::new(0),
            said: Cell::new(None),
        })
    }

    /// Accepts connections for ever.
    pub async fn listen(&self, listener: &N::Listener, clock: &Clock) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.arrive(clock.now(), stream, from.ip().to_canonical()),
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.refuse(clock.now(), format_args!("cannot accept: {error}"));
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn arrive(&self, now: Instant, stream: N::Connection, address: IpAddr) {
        if self.limiter.borrow_mut().is_refused(now, self.service, address) {
            self.refuse(
                now,
                format_args!("{address}: client rejected: locked out after wrong access codes"),
            );
            return;
        }
        let turned_away = self.queue_up(stream, address);
        if let Some(away) = turned_away {
            self.refuse(
                now,
                format_args!(
                    "{away}: client rejected: all {ACCEPT_QUEUE} places in the accept queue are in use"
                ),
            );
        }
        if turned_away != Some(address) {
            // The worker that came back last: its memory is warm, and others' stays untouched.
            self.opened.notify_last();
        }
    }

    /// Puts a connection into the accept queue. In a full queue the address with most connections loses its
    /// last one to an address with fewer. Returns the address whose connection was closed, if one was.
    fn queue_up(&self, stream: N::Connection, address: IpAddr) -> Option<IpAddr> {
        let mut waiting = self.waiting.borrow_mut();
        let Err(Full(newcomer)) = waiting.push((stream, address)) else { return None };
        let of = |address: IpAddr| waiting.iter().filter(|(_, from)| *from == address).count();
        let crowd = waiting.iter().map(|(_, from)| *from).max_by_key(|from| of(*from))?;
        let last = of(crowd);
        if last <= of(address) + 1 {
            return Some(address);
        }
        let mut seen = 0;
        // Once around, so that the order stays as it was.
        for _ in 0..waiting.len() {
            let Some(one) = waiting.pop() else { break };
            seen += usize::from(one.1 == crowd);
            if one.1 != crowd || seen != last {
                // It fits: it was just taken from there.
                let _fits = waiting.push(one);
            }
        }
        // It fits: one has gone.
        let _fits = waiting.push(newcomer);
        Some(crowd)
    }

    /// Logs that a connection was rejected, at most once in [`SAY_EVERY`].
    fn refuse(&self, now: Instant, why: core::fmt::Arguments<'_>) {
        if self.said.get().is_some_and(|said| now.since(said) < SAY_EVERY) {
            self.unsaid.set(self.unsaid.get().saturating_add(1));
            journal::tally(Kind::Refused);
            return;
        }
        self.said.set(Some(now));
        let service = self.service;
        match self.unsaid.replace(0) {
            0 => journal::note(Kind::Refused, format_args!("{service}: {why}")),
            more => journal::note(
                Kind::Refused,
                format_args!("{service}: {why} (seen {} times)", more.saturating_add(1)),
            ),
        }
    }

    /// The next connection that gets a pre-auth slot.
    pub async fn next(self: &Rc<Self>, clock: &Clock) -> (N::Connection, PendingClient<N>) {
        loop {
            if let Some((stream, address)) = self.call(clock.now()) {
                let number = self.numbers.get().wrapping_add(1);
                self.numbers.set(number);
                let peer = Peer { service: self.service, number, address };
                let own = stream.local_addr().is_ok_and(|at| at.ip().to_canonical() == address);
                let pending = PendingClient {
                    acceptor: Rc::clone(self),
                    peer,
                    own,
                    inside: Cell::new(false),
                };
                return (stream, pending);
            }
            self.opened.notified().await;
        }
    }

    /// Takes the first connection from the accept queue whose address may have a pre-auth slot. Connections
    /// whose address has been locked out meanwhile are closed.
    fn call(&self, now: Instant) -> Option<(N::Connection, IpAddr)> {
        let mut waiting = self.waiting.borrow_mut();
        let mut pre_auth = self.pre_auth.borrow_mut();
        let mut called = None;
        // Once around, so that the order stays as it was.
        for _ in 0..waiting.len() {
            let Some((stream, address)) = waiting.pop() else { break };
            if self.limiter.borrow_mut().is_refused(now, self.service, address) {
                journal::tally(Kind::Refused);
                continue;
            }
            let held = pre_auth.iter().filter(|held| **held == address).count();
            if called.is_none()
                && held < BOARD.pre_auth_per_address
                && pre_auth.push(address).is_ok()
            {
                called = Some((stream, address));
            } else {
                // It fits: it was just taken from there.
                let _fits = waiting.push((stream, address));
            }
        }
        called
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
    /// The client showed the right access code: its pre-auth slot is free again.
    pub fn pass(&self) {
        if !self.inside.get() {
            self.acceptor.limiter.borrow_mut().forget_wrong_codes(self.peer.address);
            self.step_in();
        }
    }

    /// The connection is served without an access code, as in a relay: its pre-auth slot is free again.
    pub fn step_in(&self) {
        if !self.inside.replace(true) {
            self.acceptor.free_slot(self.peer.address);
        }
    }

    /// Logs that the TLS handshake failed, for this reason, or timed out. A connection from this machine that
    /// closes during the handshake is a health check (`pandaproxy health`): logged at debug level.
    pub fn turned_away(&self, now: Instant, reason: Option<HandshakeError>) {
        let kind = match reason.map(HandshakeError::blame) {
            None => Kind::Silent,
            Some(Blame::Peer | Blame::Board) => Kind::Malformed,
            Some(Blame::Nobody | Blame::Network) => Kind::Left,
        };
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
            Some(why) => rejections::note(now, kind, peer.address, format_args!("{peer}: {why}")),
        }
    }

    /// Counts a wrong code; one without a [`Guess`] cannot be told from others.
    pub fn count_wrong_code(&self, now: Instant, guess: Option<Guess>) {
        let Peer { service, address, .. } = self.peer;
        let mut limiter = self.acceptor.limiter.borrow_mut();
        match limiter.count_wrong_code(now, service, address, guess) {
            Lockout::Counted(_) => {}
            Lockout::JustLocked => journal::note(
                Kind::LockedOut,
                format_args!(
                    "{}: {address}: locked out for {} s after {WRONG_CODES} wrong access codes",
                    self.peer.service,
                    REFUSED_FOR.as_secs()
                ),
            ),
        }
    }
}

impl<N: Net> Drop for PendingClient<N> {
    fn drop(&mut self) {
        self.step_in();
    }
}

/// Whether accepting failed because the peer had closed the connection already.
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

    /// How many of one address stand on the pre-auth slots at most, and how many in all.
    const EACH: usize = BOARD.pre_auth_per_address;
    const ALL: usize = BOARD.pre_auth;

    /// The two ends of a real connection.
    type Ends = (TcpStream, TcpStream);

    /// A acceptor, and real connections to it from as many addresses as the loopback network has.
    struct Street {
        acceptor: Rc<Acceptor>,
        listener: TcpListener,
    }

    impl Street {
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

        /// Somebody from 127.0.0.`from` comes to the acceptor; their end of the connection.
        async fn arrival(&self, from: u8) -> TcpStream {
            self.arrival_at(Instant::START, from).await
        }

        async fn arrival_at(&self, now: Instant, from: u8) -> TcpStream {
            let (near, far) = self.connection(from).await;
            self.acceptor.arrive(now, far, host(from));
            near
        }

        /// Whoever is called at once.
        fn called(&self) -> Option<(TcpStream, PendingClient)> {
            let clock = Clock::start();
            let next = pin!(self.acceptor.next(&clock));
            match next.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(called) => Some(called),
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
            let street = Street::new();
            let mut clients = Vec::new();
            for _ in 0..ALL {
                clients.push(street.arrival(2).await);
            }
            let held: Vec<_> = (0..EACH).map(|_| street.called().unwrap()).collect();
            assert!(street.called().is_none());
            clients.push(street.arrival(3).await);
            let (_stream, pending) = street.called().unwrap();
            assert_eq!(pending.peer.address, host(3), "it came last and is called first");
            assert_eq!(pending.peer.number as usize, held.len() + 1);
        });
    }

    #[test]
    fn queued_connections_get_slots_in_order_of_arrival() {
        run(async {
            let street = Street::new();
            let mut clients = Vec::new();
            let mut held = Vec::new();
            for _ in 0..EACH {
                clients.push(street.arrival(2).await);
                held.push(street.called().unwrap());
            }
            // Two of the full address, and two of another behind them.
            let mut ports = Vec::new();
            for from in [2, 2, 3, 3] {
                let client = street.arrival(from).await;
                ports.push(client.local_addr().unwrap().port());
                clients.push(client);
            }
            let port = |called: &(TcpStream, PendingClient)| called.0.peer_addr().unwrap().port();
            for _ in EACH..ALL {
                let called = street.called().unwrap();
                assert_eq!(port(&called), ports.remove(2));
                held.push(called);
            }
            assert!(street.called().is_none(), "the doorstep is full");
            drop(held);
            let rest: Vec<_> = core::iter::from_fn(|| street.called()).collect();
            assert_eq!(rest.iter().map(port).collect::<Vec<_>>(), ports);
        });
    }

    #[test]
    fn a_connection_that_a_full_queue_rejects_is_counted() {
        run(async {
            let street = Street::new();
            let mut clients = Vec::new();
            for from in 0..ACCEPT_QUEUE {
                clients.push(street.arrival(10 + from as u8).await);
            }
            assert_eq!(journal::count(Kind::Refused), 0);
            let mut refused = street.arrival(2).await;
            assert!(is_closed(&mut refused).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            assert_eq!(street.acceptor.waiting.borrow().len(), ACCEPT_QUEUE);
        });
    }

    #[test]
    fn a_full_queue_evicts_from_the_address_with_most_entries() {
        run(async {
            let street = Street::new();
            let mut crowd = Vec::new();
            for _ in 0..ACCEPT_QUEUE {
                crowd.push(street.arrival(2).await);
            }
            let mut refused = street.arrival(2).await;
            assert!(is_closed(&mut refused).await, "one more of the crowd");
            let _other = street.arrival(3).await;
            assert!(is_closed(crowd.last_mut().unwrap()).await, "the crowd's last");
            assert_eq!(journal::count(Kind::Refused), 2);
            let held: Vec<_> = core::iter::from_fn(|| street.called()).collect();
            let from: Vec<IpAddr> = held.iter().map(|(_, pending)| pending.peer.address).collect();
            assert_eq!(from[..EACH], [host(2); EACH], "in the order they came");
            assert_eq!(from[EACH..], [host(3)]);
        });
    }

    #[test]
    fn a_freed_pre_auth_slot_goes_to_the_next_connection() {
        run(async {
            let street = Street::new();
            let mut clients = Vec::new();
            for _ in 0..EACH + 2 {
                clients.push(street.arrival(2).await);
            }
            let mut held: Vec<_> = (0..EACH).map(|_| street.called().unwrap()).collect();
            for let_go in [PendingClient::pass as fn(&PendingClient), |_| {}] {
                let acceptor = Rc::clone(&street.acceptor);
                let next = spawn_local(async move { acceptor.next(&Clock::start()).await });
                tokio::task::yield_now().await;
                assert!(!next.is_finished());
                let (stream, pending) = held.remove(0);
                let_go(&pending);
                if pending.inside.get() {
                    // It has gone in, and its leaving later frees no second place.
                    held.push(next.await.unwrap());
                    drop((stream, pending));
                    assert_eq!(street.acceptor.pre_auth.borrow().len(), EACH);
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
            let street = Street::new();
            let _client = street.arrival(2).await;
            let (_stream, pending) = street.called().unwrap();
            for _ in 0..WRONG_CODES {
                pending.count_wrong_code(Instant::START, None);
            }
            assert_eq!(journal::count(Kind::LockedOut), 1);
            let mut locked_out = street.arrival(2).await;
            assert!(is_closed(&mut locked_out).await);
            let _other = street.arrival(3).await;
            assert_eq!(street.called().unwrap().1.peer.address, host(3));
            let _later = street.arrival_at(Instant::at(REFUSED_FOR), 2).await;
            assert_eq!(street.called().unwrap().1.peer.address, host(2));
        });
    }

    #[test]
    fn rejections_are_logged_once_in_ten_seconds() {
        run(async {
            let street = Street::new();
            let mut clients = Vec::new();
            for from in 0..ACCEPT_QUEUE {
                clients.push(street.arrival(10 + from as u8).await);
            }
            let almost = Instant::at(SAY_EVERY - Duration::from_millis(1));
            for now in [Instant::START, Instant::START, almost] {
                clients.push(street.arrival_at(now, 2).await);
            }
            assert_eq!(journal_lines("accept queue are in use"), 1);
            clients.push(street.arrival_at(Instant::at(SAY_EVERY), 2).await);
            assert_eq!(journal_lines("accept queue are in use"), 2);
            assert_eq!(journal_lines("(seen 3 times)"), 1);
            assert_eq!(journal::count(Kind::Refused), 4);
        });
    }

    #[test]
    fn a_listener_passes_on_connections_with_their_address() {
        run(async {
            let street = Street::new();
            let to = street.listener.local_addr().unwrap();
            let Street { acceptor, listener } = street;
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
