//! Admission control: a listener, an accept queue and pre-auth slots for each service.
//!
//! A connection that has not shown the access code yet holds one of the service's pre-auth slots, for no
//! longer than the service's login timeout. One [`Origin`] may hold only some of them. A connection without a
//! slot waits in the accept queue.
//!
//! # Many connections at once
//!
//! - A connection gets a slot only once its ClientHello is complete. Until then it is *silent*.
//! - In a full accept queue the oldest silent connection is closed: one of the origin that has most of them. Without
//!   a silent one, the origin with most connections loses its last one to an origin with fewer.
//! - While a connection waits for a slot, a TLS handshake or a login that has taken [`PROGRESS_TIMEOUT`] loses its slot.
//! - An origin from which a client has logged in lately ([`KNOWN_TIMEOUT`](crate::auth::KNOWN_TIMEOUT)) gets a slot before
//!   others, and loses its connections after them.
//!
//! So clients that never log in cost a few sockets, and other clients wait for them for a few seconds at most.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections without the code | `BOARD.pre_auth`, or as many as the service has workers | wait in the accept queue |
//! | of those, from one origin | `BOARD.pre_auth_per_address`, or all but one | wait in the accept queue |
//! | accept queue | [`ACCEPT_QUEUE`] | a connection is closed, as above |
//! | silence in the accept queue | [`HELLO_TIMEOUT`] | the connection is closed |
//! | wrong codes from an origin | [`auth`](crate::auth) | logins from the origin are refused for a while |

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::cmp::Reverse;
use core::fmt;
use core::future::poll_fn;
use core::net::IpAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;

use tokio::sync::Notify;

use super::Clock;
use super::files::records::{self, Hello};
use super::net::{Connection, Listener, Net, Sockets};
use crate::auth::{Admission, Guess, LOCKOUT_TIMEOUT, Limiter, Lockout, Refusal, WRONG_CODES};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::counts::{self, Count};
use crate::journal::{self, Kind};
use crate::memory::budget::{ACCEPT_QUEUE, LIMITER};
use crate::memory::pool::RC_COUNTS;
use crate::memory::ring::{Full, Ring};
use crate::peer::{Origin, Peer};
use crate::rejections;
use crate::tls::HandshakeError;

/// The pause after accepting failed, as it does without free file descriptors.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Time in which a queued connection has to send a complete ClientHello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which a TLS handshake, and then the login, has to be complete while another connection waits for the slot.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(
    size_of::<RefCell<Limiter>>() + RC_COUNTS <= LIMITER,
    "the limiter is larger than its line in the budget"
);

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
    /// Whether clients begin with a ClientHello.
    has_tls: bool,
    /// The accept queue: connections without a slot, oldest first.
    queue: RefCell<Ring<Arrival<N::Connection>, ACCEPT_QUEUE>>,
    /// Pre-auth slots.
    slots: Cell<usize>,
    /// The connections that hold pre-auth slots.
    pre_auth: RefCell<heapless::Vec<PreAuth, { BOARD.pre_auth }>>,
    /// Notified when a queued connection may get a slot, or a pre-auth slot is free.
    opened: Notify,
    /// Notified when a pre-auth slot was freed, or may be taken away later.
    changed: Notify,
    /// Notified when a pre-auth slot was taken away.
    displaced: Notify,
    /// Number of the last client.
    numbers: Cell<u32>,
    /// Rejections since the last one that was logged.
    unlogged: Cell<u32>,
    /// Time of the last rejection that was logged.
    logged: Cell<Option<Instant>>,
}

/// A connection in the accept queue.
struct Arrival<C> {
    stream: C,
    peer: Peer,
    since: Instant,
    /// Whether its ClientHello is complete.
    is_ready: bool,
}

/// A connection that holds a pre-auth slot.
struct PreAuth {
    /// The number of the connection.
    number: u32,
    origin: Origin,
    /// When its TLS handshake or its login began. `None`: it keeps the slot however long it takes.
    since: Option<Instant>,
    /// Whether it has to give up its slot.
    is_displaced: bool,
}

/// Why a connection was closed before it got a pre-auth slot, displayed as in the log.
#[derive(Debug)]
enum Rejection {
    /// Its origin is locked out and has been answered as often as it may be.
    LockedOut,
    /// The accept queue is full.
    QueueFull(IpAddr),
    /// The operating system reported an error.
    Accept(io::Error),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockedOut => f.write_str("client rejected: locked out after wrong access codes"),
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
        let seconds = LOCKOUT_TIMEOUT.as_secs();
        write!(
            f,
            "{service}: {address}: locked out for {seconds} s after {WRONG_CODES} wrong access codes"
        )
    }
}

/// A client lost its pre-auth slot to another connection, displayed as in the log.
struct Displaced(Peer);

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self(peer), seconds) = (self, PROGRESS_TIMEOUT.as_secs());
        write!(f, "{peer}: client rejected: no login within {seconds} s while others wait")
    }
}

/// Log lines of admission control, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;

    let address = IpAddr::from([192, 168, 1, 7]);
    let mut lines: alloc::vec::Vec<_> = [
        Rejection::LockedOut,
        Rejection::QueueFull(address),
        Rejection::Accept(io::ErrorKind::OutOfMemory.into()),
    ]
    .map(|rejection| alloc::format!("mqtt: {rejection}"))
    .into();
    lines.push(LockedOut { service: "mqtt", address }.to_string());
    lines.push(Displaced(Peer::unknown()).to_string());
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
    /// Whether the client has logged in.
    is_logged_in: Cell<bool>,
    clock: Clock,
}

impl<N: Net> Acceptor<N> {
    /// The acceptor of a service whose clients begin with a TLS ClientHello. Services share the limiter: a login at one
    /// counts at all.
    pub fn new(service: &'static str, limiter: Rc<RefCell<Limiter>>) -> Rc<Self> {
        Self::with(service, limiter, true)
    }

    /// The acceptor of a service without TLS. Its clients get slots without having sent anything.
    pub fn without_tls(service: &'static str, limiter: Rc<RefCell<Limiter>>) -> Rc<Self> {
        Self::with(service, limiter, false)
    }

    fn with(service: &'static str, limiter: Rc<RefCell<Limiter>>, has_tls: bool) -> Rc<Self> {
        let acceptor = Rc::new(Self {
            service,
            limiter,
            has_tls,
            queue: RefCell::new(Ring::new()),
            slots: Cell::new(BOARD.pre_auth),
            pre_auth: RefCell::new(heapless::Vec::new()),
            opened: Notify::new(),
            changed: Notify::new(),
            displaced: Notify::new(),
            numbers: Cell::new(0),
            unlogged: Cell::new(0),
            logged: Cell::new(None),
        });
        acceptor.count();
        acceptor
    }

    /// Limits the pre-auth slots to the service's workers. A service without a login has no others, and one origin must
    /// not hold all of them.
    pub fn limit_slots(&self, workers: usize) {
        self.slots.set(BOARD.pre_auth.min(workers));
        self.count();
    }

    /// Counts the connections that have not logged in.
    fn count(&self) {
        let (pending, waiting) = (self.pre_auth.borrow().len(), self.queue.borrow().len());
        counts::set(self.service, Count::Pending, pending);
        counts::set(self.service, Count::PendingLimit, self.slots.get());
        counts::set(self.service, Count::Waiting, waiting);
    }

    /// Whether no pre-auth slot is free.
    fn is_full(&self, pre_auth: &[PreAuth]) -> bool {
        pre_auth.len() >= self.slots.get()
    }

    /// Whether an origin has as many pre-auth slots as one may have.
    fn has_all(&self, pre_auth: &[PreAuth], origin: Origin) -> bool {
        let held = pre_auth.iter().filter(|holder| holder.origin == origin).count();
        let all_but_one = self.slots.get().saturating_sub(1).max(1);
        held >= BOARD.pre_auth_per_address.min(all_but_one)
    }

    /// Accepts connections into the accept queue and enforces its time limits, for ever.
    pub async fn listen(&self, listener: &N::Listener, clock: &Clock) {
        loop {
            let deadline = self.handle_timeout(clock.now());
            let reached = async {
                match deadline {
                    Some(deadline) => clock.reach(deadline).await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        self.arrive(clock.now(), stream, from.ip().to_canonical());
                    }
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(error) => {
                        self.reject(clock.now(), &Rejection::Accept(error));
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                },
                () = poll_fn(|cx| self.poll_hellos(cx, clock)) => {}
                () = self.changed.notified() => {}
                () = reached => {}
            }
        }
    }

    fn arrive(&self, now: Instant, stream: N::Connection, address: IpAddr) {
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        let peer = Peer { service: self.service, number, address };
        let admission = self.limiter.borrow_mut().admission(now, self.service, peer.origin());
        if admission == Admission::Closed {
            let why = Rejection::LockedOut;
            counts::add(self.service, Count::LockedOut, 1);
            rejections::note(now, Kind::Refused, address, format_args!("{peer}: {why}"));
            return;
        }
        let closed = self.enqueue(Arrival { stream, peer, since: now, is_ready: !self.has_tls });
        self.count();
        if let Some(Peer { address, .. }) = closed {
            self.reject(now, &Rejection::QueueFull(address));
        }
        if !self.has_tls {
            // The worker that became idle last: its buffers are in use already, others' remain untouched.
            self.opened.notify_last();
        }
    }

    /// Puts a connection into the accept queue. In a full queue a connection is closed, which may be the new one.
    /// Returns its peer.
    fn enqueue(&self, arrival: Arrival<N::Connection>) -> Option<Peer> {
        let now = arrival.since;
        let mut queue = self.queue.borrow_mut();
        let Err(Full(newcomer)) = queue.push(arrival) else { return None };
        let Some(victim) = self.victim(now, &queue, newcomer.peer.origin()) else {
            return Some(newcomer.peer);
        };
        let closed = remove(&mut queue, victim).map(|closed| closed.peer);
        // Cannot fail: one connection was removed.
        let _fits = queue.push(newcomer);
        closed
    }

    /// The place of the connection in a full queue that is closed in favour of one from the origin `newcomer`.
    fn victim(
        &self,
        now: Instant,
        queue: &Ring<Arrival<N::Connection>, ACCEPT_QUEUE>,
        newcomer: Origin,
    ) -> Option<usize> {
        let limiter = self.limiter.borrow();
        let is_known = |origin| limiter.is_known(now, origin);
        let favours = |origin| is_known(newcomer) || !is_known(origin);
        let count = |origin, silent: bool| {
            let its = queue.iter().filter(|other| other.peer.origin() == origin);
            its.filter(|other| !(silent && other.is_ready)).count()
        };
        let silent = queue.iter().enumerate().filter(|(_, arrival)| !arrival.is_ready);
        let oldest = silent.min_by_key(|(at, arrival)| {
            let origin = arrival.peer.origin();
            (is_known(origin), Reverse(count(origin, true)), *at)
        });
        if let Some((at, arrival)) = oldest {
            return favours(arrival.peer.origin()).then_some(at);
        }
        let last = queue.iter().enumerate().max_by_key(|(at, arrival)| {
            let origin = arrival.peer.origin();
            (!is_known(origin), count(origin, false), *at)
        });
        let (at, arrival) = last?;
        let origin = arrival.peer.origin();
        let is_favoured = is_known(newcomer) && !is_known(origin);
        let has_fewer = count(newcomer, false) + 1 < count(origin, false);
        (is_favoured || (has_fewer && favours(origin))).then_some(at)
    }

    /// Looks at what silent connections have sent. Ready if one has sent its ClientHello, or was closed.
    fn poll_hellos(&self, cx: &mut Context<'_>, clock: &Clock) -> Poll<()> {
        let mut is_changed = false;
        self.queue.borrow_mut().retain(|mut arrival| {
            if arrival.is_ready {
                return Some(arrival);
            }
            let failed = match arrival.stream.poll_judge(cx, &judge_hello) {
                Poll::Pending => return Some(arrival),
                Poll::Ready(Ok(Some(()))) => {
                    is_changed = true;
                    arrival.is_ready = true;
                    self.opened.notify_last();
                    return Some(arrival);
                }
                Poll::Ready(Ok(None)) => HandshakeError::Left,
                Poll::Ready(Err(error)) => HandshakeError::Io(error.kind()),
            };
            is_changed = true;
            let own = is_own(&arrival.stream, arrival.peer);
            note_handshake_failure(clock.now(), arrival.peer, own, Some(failed));
            None
        });
        self.count();
        if is_changed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Closes connections that have been silent for too long, and takes a slot away if it is time to. Returns the next
    /// deadline.
    fn handle_timeout(&self, now: Instant) -> Option<Instant> {
        let mut deadline: Option<Instant> = None;
        self.queue.borrow_mut().retain(|arrival| {
            let due = arrival.since + HELLO_TIMEOUT;
            if arrival.is_ready {
                return Some(arrival);
            }
            if due <= now {
                let own = is_own(&arrival.stream, arrival.peer);
                note_handshake_failure(now, arrival.peer, own, None);
                return None;
            }
            deadline = Some(deadline.map_or(due, |deadline| deadline.min(due)));
            Some(arrival)
        });
        self.count();
        deadline.into_iter().chain(self.displace(now)).min()
    }

    /// Takes one pre-auth slot away if a queued connection needs it and its holder has had it for long enough. Returns
    /// when the next one may be taken away.
    fn displace(&self, now: Instant) -> Option<Instant> {
        let (queue, limiter) = (self.queue.borrow(), self.limiter.borrow());
        let mut pre_auth = self.pre_auth.borrow_mut();
        if pre_auth.iter().any(|holder| holder.is_displaced) {
            // A displaced connection's slot becomes free when its task runs.
            return None;
        }
        let mut deadline: Option<Instant> = None;
        for arrival in queue.iter().filter(|arrival| arrival.is_ready) {
            let origin = arrival.peer.origin();
            let has_all = self.has_all(&pre_auth, origin);
            if !has_all && !self.is_full(&pre_auth) {
                continue;
            }
            let holders = pre_auth.iter_mut().filter(|holder| !has_all || holder.origin == origin);
            let holder = holders
                .filter_map(|holder| Some((holder.since?, holder)))
                .min_by_key(|(since, holder)| (limiter.is_known(now, holder.origin), *since));
            let Some((since, holder)) = holder else { continue };
            let due = since + PROGRESS_TIMEOUT;
            if due <= now {
                holder.is_displaced = true;
                self.displaced.notify_waiters();
                return None;
            }
            deadline = Some(deadline.map_or(due, |deadline| deadline.min(due)));
        }
        deadline
    }

    /// Logs that a connection was rejected, at most once in [`LOG_INTERVAL`].
    fn reject(&self, now: Instant, why: &Rejection) {
        counts::add(self.service, Count::Full, 1);
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

    /// Closes the connections in the accept queue: the port is closed.
    pub fn clear_queue(&self) {
        self.queue.borrow_mut().clear();
        self.count();
    }

    /// Waits for the next connection that gets a pre-auth slot.
    pub async fn next(self: &Rc<Self>, clock: &Clock) -> (N::Connection, PendingClient<N>) {
        loop {
            if let Some((stream, peer)) = self.dequeue(clock.now()) {
                self.count();
                let pending = PendingClient {
                    acceptor: Rc::clone(self),
                    peer,
                    own: is_own(&stream, peer),
                    is_released: Cell::new(false),
                    is_logged_in: Cell::new(false),
                    clock: *clock,
                };
                return (stream, pending);
            }
            self.opened.notified().await;
        }
    }

    /// Takes the first connection from the accept queue that is ready and whose origin may have a pre-auth slot; those
    /// of origins that logged in lately go first.
    fn dequeue(&self, now: Instant) -> Option<(N::Connection, Peer)> {
        let mut queue = self.queue.borrow_mut();
        let mut pre_auth = self.pre_auth.borrow_mut();
        if self.is_full(&pre_auth) {
            return None;
        }
        let limiter = self.limiter.borrow();
        let ready = queue.iter().enumerate().filter(|(_, arrival)| {
            arrival.is_ready && !self.has_all(&pre_auth, arrival.peer.origin())
        });
        let first =
            ready.min_by_key(|(at, arrival)| (!limiter.is_known(now, arrival.peer.origin()), *at));
        let (at, _) = first?;
        let Arrival { stream, peer, .. } = remove(&mut queue, at)?;
        let Peer { number, .. } = peer;
        let holder = PreAuth { number, origin: peer.origin(), since: None, is_displaced: false };
        // Cannot fail: the slots are not full.
        let _fits = pre_auth.push(holder);
        Some((stream, peer))
    }

    fn free_slot(&self, number: u32) {
        let mut pre_auth = self.pre_auth.borrow_mut();
        if let Some(at) = pre_auth.iter().position(|holder| holder.number == number) {
            pre_auth.swap_remove(at);
        }
        drop(pre_auth);
        self.count();
        self.opened.notify_last();
        self.changed.notify_one();
    }
}

/// Counts a connection that ended without a login, if it was refused.
pub(super) fn count_refusal(service: &str, kind: Kind, is_locked_out: bool) {
    let refused = if is_locked_out { Count::LockedOut } else { Count::Full };
    let counts = [
        (Kind::Refused, refused),
        (Kind::WrongCode, Count::WrongCode),
        (Kind::Silent, Count::Silent),
        (Kind::Malformed, Count::Invalid),
        (Kind::TooLong, Count::Invalid),
    ];
    if let Some((_, count)) = counts.into_iter().find(|(its, _)| *its == kind) {
        counts::add(service, count, 1);
    }
}

/// Takes the connection at this place out of the queue.
fn remove<C>(queue: &mut Ring<Arrival<C>, ACCEPT_QUEUE>, place: usize) -> Option<Arrival<C>> {
    let (mut at, mut removed) = (0, None);
    queue.retain(|arrival| {
        at += 1;
        if at - 1 == place {
            removed = Some(arrival);
            return None;
        }
        Some(arrival)
    });
    removed
}

/// Judges the first bytes of a client: done once its ClientHello is complete. What is not TLS is left to the handshake.
fn judge_hello(bytes: &[u8]) -> Option<()> {
    // No byte has come if the client closed.
    (!bytes.is_empty() && records::hello(bytes) != Hello::Partial).then_some(())
}

/// Whether a connection comes from this machine.
fn is_own(stream: &impl Connection, peer: Peer) -> bool {
    stream.local_addr().is_ok_and(|at| at.ip().to_canonical() == peer.address)
}

/// Logs that a TLS handshake failed with `reason`, or timed out (`None`). A connection from this machine that
/// closes during the handshake is a health check (`pandaproxy health`): logged at debug level.
fn note_handshake_failure(now: Instant, peer: Peer, own: bool, reason: Option<HandshakeError>) {
    let kind = reason.map_or(Kind::Silent, HandshakeError::kind);
    count_refusal(peer.service, kind, false);
    if own && reason == Some(HandshakeError::Left) {
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

impl<N: Net> PendingClient<N> {
    /// The client has logged in: frees its pre-auth slot, forgets its origin's wrong codes and remembers its origin.
    /// At a service whose clients are [brief](super::worker::Serves::IS_BRIEF), wrong codes at others are not forgotten.
    pub fn pass(&self, is_brief: bool) {
        if !self.is_logged_in.replace(true) {
            let (now, Peer { service, .. }, origin) =
                (self.clock.now(), self.peer, self.peer.origin());
            let mut limiter = self.acceptor.limiter.borrow_mut();
            if is_brief {
                limiter.log_in_briefly(now, service, origin);
            } else {
                limiter.log_in(now, origin);
            }
            drop(limiter);
            self.release();
        }
    }

    /// Whether the connection comes from this machine.
    pub const fn is_own(&self) -> bool {
        self.own
    }

    /// Whether the client has logged in.
    pub const fn is_logged_in(&self) -> bool {
        self.is_logged_in.get()
    }

    /// Frees the pre-auth slot of a client that is served without an access code, as in a relay.
    pub fn release(&self) {
        if !self.is_released.replace(true) {
            self.acceptor.free_slot(self.peer.number);
        }
    }

    /// The TLS handshake or the login begins now: after [`PROGRESS_TIMEOUT`] the slot may be [taken
    /// away](Self::displaced).
    pub fn begin(&self) {
        let mut pre_auth = self.acceptor.pre_auth.borrow_mut();
        if let Some(holder) = pre_auth.iter_mut().find(|holder| holder.number == self.peer.number) {
            holder.since = Some(self.clock.now());
            self.acceptor.changed.notify_one();
        }
    }

    /// Completes when another connection needs the pre-auth slot.
    pub async fn displaced(&self) {
        loop {
            let notified = self.acceptor.displaced.notified();
            let is_displaced =
                |holder: &PreAuth| holder.number == self.peer.number && holder.is_displaced;
            if self.acceptor.pre_auth.borrow().iter().any(is_displaced) {
                return;
            }
            notified.await;
        }
    }

    /// Logs that the client lost its slot to another connection.
    pub fn note_displaced(&self) {
        let peer = self.peer;
        count_refusal(peer.service, Kind::Silent, false);
        rejections::note(
            self.clock.now(),
            Kind::Silent,
            peer.address,
            format_args!("{}", Displaced(peer)),
        );
    }

    /// The refusal of the client's login, if its origin is locked out now.
    pub fn refusal(&self) -> Option<Refusal> {
        let Peer { service, .. } = self.peer;
        self.acceptor.limiter.borrow_mut().refusal(self.clock.now(), service, self.peer.origin())
    }

    /// Logs that the TLS handshake failed with `reason`, or timed out (`None`).
    pub fn note_handshake_failure(&self, now: Instant, reason: Option<HandshakeError>) {
        note_handshake_failure(now, self.peer, self.own, reason);
    }

    /// Counts a wrong access code. The same one counts once.
    pub fn count_wrong_code(&self, now: Instant, guess: Guess) {
        let Peer { service, address, .. } = self.peer;
        let mut limiter = self.acceptor.limiter.borrow_mut();
        match limiter.count_wrong_code(now, service, self.peer.origin(), guess) {
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
        if self.is_logged_in.get() {
            // Its origin is remembered from now on.
            self.acceptor.limiter.borrow_mut().remember(self.clock.now(), self.peer.origin());
        }
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
    use crate::auth::{MAX_KNOWN, MAX_REFUSALS};
    use crate::runtime::files::records::tests::client_hello;
    use crate::runtime::test_runtime::over_sockets;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use core::pin::pin;
    use core::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::task::spawn_local;

    /// Pre-auth slots of one origin, and of all.
    const EACH: usize = BOARD.pre_auth_per_address;
    const ALL: usize = BOARD.pre_auth;

    /// The two ends of a real connection.
    type Ends = (TcpStream, TcpStream);

    /// An acceptor, and real connections to it from any address of the loopback network.
    struct Bed {
        acceptor: Rc<Acceptor>,
        listener: TcpListener,
        clock: Clock,
    }

    impl Bed {
        /// The clients have nothing to send before they get a slot.
        fn new() -> Self {
            Self::of(Acceptor::without_tls("mqtt", Rc::default()))
        }

        fn with_tls() -> Self {
            Self::of(Acceptor::new("mqtt", Rc::default()))
        }

        fn of(acceptor: Rc<Acceptor>) -> Self {
            let listener = Sockets.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
            Self { acceptor, listener, clock: Clock::start() }
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

        /// A connection whose client has this address, and stays silent.
        async fn arrival_of(&self, address: IpAddr) -> TcpStream {
            let (near, far) = self.connection(2).await;
            self.acceptor.arrive(Instant::START, far, address);
            near
        }

        /// A connection whose ClientHello is complete.
        async fn greeting(&self, from: u8) -> TcpStream {
            let mut near = self.arrival(from).await;
            self.greet(&mut near).await;
            near
        }

        /// Connections from each of these addresses, in this order.
        async fn arrivals(&self, hosts: impl IntoIterator<Item = u8>) -> Vec<TcpStream> {
            let mut clients = Vec::new();
            for from in hosts {
                clients.push(self.arrival(from).await);
            }
            clients
        }

        /// The same, each of which has its ClientHello complete before the next.
        async fn greetings(&self, hosts: impl IntoIterator<Item = u8>) -> Vec<TcpStream> {
            let mut clients = Vec::new();
            for from in hosts {
                clients.push(self.greeting(from).await);
            }
            clients
        }

        async fn greet(&self, near: &mut TcpStream) {
            let silent =
                || self.acceptor.queue.borrow().iter().filter(|arrival| !arrival.is_ready).count();
            let before = silent();
            near.write_all(&client_hello(b'x')).await.unwrap();
            while silent() >= before {
                poll_fn(|cx| self.acceptor.poll_hellos(cx, &self.clock)).await;
            }
        }

        /// Whether `pending` has lost its slot when the time limits are enforced at `now`.
        fn is_displaced(&self, pending: &PendingClient, now: Duration) -> bool {
            let _deadline = self.acceptor.handle_timeout(Instant::at(now));
            let displaced = pin!(pending.displaced());
            displaced.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        }

        /// The connection that gets a slot now, without waiting.
        fn dequeued(&self) -> Option<(TcpStream, PendingClient)> {
            let next = pin!(self.acceptor.next(&self.clock));
            match next.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(dequeued) => Some(dequeued),
                Poll::Pending => None,
            }
        }
    }

    const fn host(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    /// As many addresses as the accept queue has entries, beginning with 127.0.0.10.
    fn crowd() -> impl Iterator<Item = u8> {
        (10..).take(ACCEPT_QUEUE)
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
    fn one_origin_cannot_take_all_pre_auth_slots() {
        over_sockets(async {
            let bed = Bed::new();
            let mut clients = bed.arrivals([2; ALL]).await;
            let held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            assert!(bed.dequeued().is_none());
            clients.push(bed.arrival(3).await);
            let (_stream, pending) = bed.dequeued().unwrap();
            assert_eq!(pending.peer.address, host(3), "queued last, served first");
            assert_eq!(pending.peer.number as usize, clients.len());
            drop(held);
        });
    }

    /// Detect has four workers, and a large board more pre-auth slots than that for one origin.
    #[test]
    fn one_origin_cannot_take_all_workers() {
        over_sockets(async {
            let bed = Bed::new();
            bed.acceptor.limit_slots(2);
            let mut clients = bed.arrivals([2; 2]).await;
            let held = bed.dequeued().unwrap();
            assert!(bed.dequeued().is_none(), "one worker is left to others");
            clients.push(bed.arrival(3).await);
            let other = bed.dequeued().unwrap();
            assert_eq!(other.1.peer.address, host(3));
            clients.push(bed.arrival(4).await);
            assert!(bed.dequeued().is_none(), "no worker is free");
            drop(held);
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(2), "in order of arrival");
            bed.acceptor.limit_slots(usize::MAX);
            assert!(bed.acceptor.slots.get() == ALL);
        });
    }

    #[test]
    fn queued_connections_get_slots_in_order_of_arrival() {
        over_sockets(async {
            let bed = Bed::new();
            let _clients = bed.arrivals([2; EACH]).await;
            let mut held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            // Two of the full address, and two of another behind them.
            let waiting = bed.arrivals([2, 2, 3, 3]).await;
            let port_of = |client: &TcpStream| client.local_addr().unwrap().port();
            let mut ports: Vec<u16> = waiting.iter().map(port_of).collect();
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
        over_sockets(async {
            let bed = Bed::new();
            let _clients = bed.arrivals(crowd()).await;
            assert_eq!(journal::count(Kind::Refused), 0);
            let mut refused = bed.arrival(2).await;
            assert!(is_closed(&mut refused).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            assert_eq!(bed.acceptor.queue.borrow().len(), ACCEPT_QUEUE);
        });
    }

    #[test]
    fn a_full_queue_evicts_from_the_origin_with_most_entries() {
        over_sockets(async {
            let bed = Bed::new();
            let mut clients = bed.arrivals([2; ACCEPT_QUEUE]).await;
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
        over_sockets(async {
            let bed = Bed::new();
            let _clients = bed.arrivals([2; EACH + 2]).await;
            let mut held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            for free in [(|pending| pending.pass(false)) as fn(&PendingClient), |_| {}] {
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
    fn a_locked_out_origin_is_refused_a_few_times_then_closed() {
        over_sockets(async {
            let bed = Bed::new();
            let _client = bed.arrival(2).await;
            let (_stream, pending) = bed.dequeued().unwrap();
            assert_eq!(pending.refusal(), None);
            for code in 0..WRONG_CODES {
                pending.count_wrong_code(Instant::START, Guess::of(code));
            }
            assert_eq!(journal::count(Kind::LockedOut), 1);
            for _ in 0..MAX_REFUSALS {
                let _locked_out = bed.arrival(2).await;
                assert!(bed.dequeued().unwrap().1.refusal().is_some());
            }
            let mut locked_out = bed.arrival(2).await;
            assert!(is_closed(&mut locked_out).await);
            let _other = bed.arrival(3).await;
            let (_stream, other) = bed.dequeued().unwrap();
            assert_eq!((other.peer.address, other.refusal()), (host(3), None));
            let _later = bed.arrival_at(Instant::at(LOCKOUT_TIMEOUT), 2).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(2));
        });
    }

    #[test]
    fn a_connection_without_a_whole_hello_gets_no_slot() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let hello = client_hello(b'x');
            let mut client = bed.arrival(2).await;
            client.write_all(&hello[..hello.len() - 1]).await.unwrap();
            let half = poll_fn(|cx| bed.acceptor.poll_hellos(cx, &bed.clock));
            assert!(tokio::time::timeout(Duration::from_millis(50), half).await.is_err());
            assert!(bed.dequeued().is_none());
            client.write_all(&hello[hello.len() - 1..]).await.unwrap();
            poll_fn(|cx| bed.acceptor.poll_hellos(cx, &bed.clock)).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(2));
        });
    }

    #[test]
    fn what_is_not_tls_is_left_to_the_handshake() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let mut client = bed.arrival(2).await;
            client.write_all(b"GET / HTTP/1.0\r\n").await.unwrap();
            poll_fn(|cx| bed.acceptor.poll_hellos(cx, &bed.clock)).await;
            assert!(bed.dequeued().is_some());
        });
    }

    #[test]
    fn a_client_that_closes_after_half_a_hello_leaves_the_queue() {
        over_sockets(async {
            let bed = Bed::with_tls();
            for bytes in [&b""[..], &client_hello(b'x')[..9]] {
                let mut client = bed.arrival(2).await;
                client.write_all(bytes).await.unwrap();
                drop(client);
                poll_fn(|cx| bed.acceptor.poll_hellos(cx, &bed.clock)).await;
                assert!(bed.acceptor.queue.borrow().is_empty());
            }
        });
    }

    #[test]
    fn a_silent_connection_is_closed_at_its_timeout() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let mut client = bed.arrival(2).await;
            let due = Instant::at(HELLO_TIMEOUT);
            let almost = Instant::at(HELLO_TIMEOUT - Duration::from_millis(1));
            assert_eq!(bed.acceptor.handle_timeout(almost), Some(due));
            assert_eq!(bed.acceptor.queue.borrow().len(), 1);
            assert_eq!(bed.acceptor.handle_timeout(due), None);
            assert!(is_closed(&mut client).await);
            assert_eq!(journal_lines("TLS handshake timed out"), 1);
        });
    }

    #[test]
    fn a_full_queue_closes_the_oldest_silent_connection() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let _ready = bed.greeting(9).await;
            let mut silent = bed.arrivals(crowd().skip(1)).await;
            for _ in 0..2 {
                let mut newest = bed.arrival(3).await;
                bed.greet(&mut newest).await;
                assert!(is_closed(&mut silent.remove(0)).await);
                assert_eq!(bed.acceptor.queue.borrow().len(), ACCEPT_QUEUE);
            }
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(9));
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(3));
        });
    }

    #[test]
    fn silent_connections_of_a_crowd_go_before_those_of_others() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let mut lone = bed.arrival(3).await;
            let mut silent = bed.arrivals([2; 100]).await;
            assert!(is_closed(&mut silent[0]).await);
            bed.greet(&mut lone).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(3));
        });
    }

    #[test]
    fn a_hundred_silent_connections_do_not_stop_their_own_address() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let _silent = bed.arrivals([2; 100]).await;
            for _ in 0..EACH {
                let client = bed.greeting(2).await;
                let (stream, _pending) = bed.dequeued().unwrap();
                assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
            }
        });
    }

    #[test]
    fn a_stalled_handshake_loses_its_slot_to_a_waiting_client() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let mut clients = bed.greetings([2; EACH]).await;
            let mut held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            held.iter().for_each(|(_, pending)| pending.begin());
            let late = PROGRESS_TIMEOUT + Duration::from_secs(3600);
            assert!(!bed.is_displaced(&held[0].1, late), "no other client waits");
            clients.push(bed.greeting(3).await);
            assert!(!bed.is_displaced(&held[0].1, late), "another slot is free");
            drop(bed.dequeued().unwrap());
            clients.push(bed.greeting(2).await);
            let early = PROGRESS_TIMEOUT - Duration::from_secs(1);
            assert!(!bed.is_displaced(&held[0].1, early));
            assert!(bed.acceptor.handle_timeout(Instant::at(early)).is_some(), "it is due later");
            assert!(bed.is_displaced(&held[0].1, late), "the oldest");
            assert!(!bed.is_displaced(&held[1].1, late), "one is enough");
            drop(held.remove(0));
            held.push(bed.dequeued().unwrap());
            assert!(bed.dequeued().is_none());
        });
    }

    #[test]
    fn a_relayed_or_logged_in_client_keeps_its_place() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let mut clients = bed.greetings([2; EACH + 1]).await;
            let mut held: Vec<_> = (0..EACH).map(|_| bed.dequeued().unwrap()).collect();
            let late = PROGRESS_TIMEOUT + Duration::from_secs(3600);
            assert!(!bed.is_displaced(&held[0].1, late), "it waits for the printer");
            held[0].1.begin();
            held[0].1.pass(false);
            held[1].1.begin();
            assert!(!bed.is_displaced(&held[1].1, late), "there is a slot");
            held.push(bed.dequeued().unwrap());
            clients.push(bed.greeting(2).await);
            assert!(bed.is_displaced(&held[1].1, late));
            assert!(!bed.is_displaced(&held[0].1, late));
        });
    }

    #[test]
    fn an_origin_that_logged_in_lately_gets_a_slot_first() {
        over_sockets(async {
            let bed = Bed::with_tls();
            let limiter = Rc::clone(&bed.acceptor.limiter);
            limiter.borrow_mut().log_in(Instant::START, Origin::of(host(7)));
            let _clients = bed.greetings([2, 2, 7]).await;
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(7));
            assert_eq!(bed.dequeued().unwrap().1.peer.address, host(2));
        });
    }

    #[test]
    fn an_origin_that_logged_in_lately_is_closed_last() {
        over_sockets(async {
            for bed in [Bed::new(), Bed::with_tls()] {
                let limiter = Rc::clone(&bed.acceptor.limiter);
                limiter.borrow_mut().log_in(Instant::START, Origin::of(host(7)));
                let _known = bed.arrivals([7; ACCEPT_QUEUE / 2]).await;
                let _others = bed.arrivals(crowd().take(ACCEPT_QUEUE / 2)).await;
                let mut newcomers = Vec::new();
                for from in 0..ACCEPT_QUEUE / 2 {
                    newcomers.push(bed.arrival(100 + from as u8).await);
                    newcomers.push(bed.arrival(7).await);
                }
                let queue = bed.acceptor.queue.borrow();
                let its = queue.iter().filter(|arrival| arrival.peer.address == host(7));
                assert_eq!((its.count(), queue.len()), (ACCEPT_QUEUE, ACCEPT_QUEUE));
            }
        });
    }

    #[test]
    fn an_origin_that_logged_in_lately_is_not_closed_for_others() {
        over_sockets(async {
            for bed in [Bed::new(), Bed::with_tls()] {
                bed.acceptor.limiter.borrow_mut().log_in(Instant::START, Origin::of(host(7)));
                let _known = bed.arrivals([7; ACCEPT_QUEUE]).await;
                let _newcomer = bed.arrival(2).await;
                let queue = bed.acceptor.queue.borrow();
                assert!(queue.iter().all(|arrival| arrival.peer.address == host(7)));
            }
        });
    }

    #[test]
    fn an_origin_that_logged_in_lately_loses_its_slot_last() {
        over_sockets(async {
            let bed = Bed::with_tls();
            bed.acceptor.limiter.borrow_mut().log_in(Instant::START, Origin::of(host(7)));
            let (mut clients, mut held) = (Vec::new(), Vec::new());
            for from in core::iter::once(7).chain(crowd()).take(ALL) {
                clients.push(bed.greeting(from).await);
                held.push(bed.dequeued().unwrap());
                held.last().unwrap().1.begin();
            }
            clients.push(bed.greeting(2).await);
            let late = PROGRESS_TIMEOUT + Duration::from_secs(3600);
            assert!(!bed.is_displaced(&held[0].1, late), "its slot is the oldest");
            assert!(bed.is_displaced(&held[1].1, late), "the oldest of the others");
        });
    }

    #[test]
    fn an_origin_is_remembered_from_the_end_of_its_connection() {
        over_sockets(async {
            let bed = Bed::new();
            let limiter = Rc::clone(&bed.acceptor.limiter);
            let is_known = || limiter.borrow().is_known(Instant::START, Origin::of(host(2)));
            let _client = bed.arrival(2).await;
            let (_stream, pending) = bed.dequeued().unwrap();
            pending.pass(false);
            for n in 0..MAX_KNOWN as u8 {
                limiter.borrow_mut().log_in(Instant::START, Origin::of([10, 0, 0, n].into()));
            }
            assert!(!is_known(), "others have logged in since");
            drop(pending);
            assert!(is_known());
        });
    }

    #[test]
    fn an_ipv6_network_has_the_slots_of_one_address() {
        over_sockets(async {
            let bed = Bed::new();
            let mut clients = Vec::new();
            for host in 0..ALL as u16 {
                let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host).into();
                clients.push(bed.arrival_of(address).await);
            }
            let held: Vec<_> = core::iter::from_fn(|| bed.dequeued()).collect();
            assert_eq!(held.len(), EACH);
            let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into();
            clients.push(bed.arrival_of(mapped).await);
            assert_eq!(bed.dequeued().unwrap().1.peer.origin(), Origin::of([10, 0, 0, 1].into()));
        });
    }

    #[test]
    fn rejections_are_logged_once_in_ten_seconds() {
        over_sockets(async {
            let bed = Bed::new();
            let mut clients = bed.arrivals(crowd()).await;
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
        over_sockets(async {
            let bed = Bed::new();
            let to = bed.listener.local_addr().unwrap();
            let Bed { acceptor, listener, .. } = bed;
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
