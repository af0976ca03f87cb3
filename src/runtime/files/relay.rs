//! Relay: bytes between a client and the printer, not decrypted.
//!
//! Some clients accept only the printer's own certificate: the slicer's plug-in pins it
//! ([protocol](crate::protocol#ftps), [file tunnel](crate::protocol#file-tunnel)). The relay limits how many connections
//! the printer gets, keeps idle sessions alive, and passes on how a connection ended.
//!
//! ```text
//!   client ─ acceptor ─ whole ClientHello ─ queue ─ dial ─► one buffer each way ◄─► printer
//! ```
//!
//! **The relay cannot check the access code**; only the printer can. What protects the printer: the acceptor (few pre-auth
//! slots, some for each origin), the queue, and a login that has to be completed within [`LOGIN_TIMEOUT`]. Whether it is
//! complete is judged by the number of TLS records of application data in both directions
//! ([`records`]).
//!
//! | | client's FTP sessions | port 990 | port 6000 |
//! |---|---|---|---|
//! | A1, P1 | share the printer's one session, in proxy mode | the proxy's certificate | the chamber camera |
//! | X1, H2, P2 | one each, four at most, in relay mode | the printer's certificate | the file tunnel |
//!
//! # How a connection ends
//!
//! A FIN is passed on as a FIN, and the other direction stays open. Everything else (a reset, a timeout, the end of this
//! program) is passed on as a reset, so that a truncated file is never taken for a complete one.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | sessions | as many as the printer has | wait in the queue, first come, first served |
//! | sessions of one [`Origin`] | all but one, if there are several | other origins overtake it in the queue |
//! | queued, or without a whole ClientHello | `BOARD.pre_auth` | wait at the [acceptor](crate::runtime::accept) |
//! | time until the ClientHello is complete | [`HELLO_TIMEOUT`] | closed; the printer is not dialled |
//! | time to log in | [`LOGIN_TIMEOUT`] | both connections are reset |
//! | a peer that takes none of the data waiting for it | [`STALL_TIMEOUT`] | both are reset |
//! | silence after one direction has ended | [`HALF_CLOSED_TIMEOUT`] | both are reset |
//! | silence of a session after its login | none; TCP keepalive finds dead peers | |
//!
//! # Why not `splice`
//!
//! Measured over loopback on a busy x86-64 machine, in CPU seconds for 10⁹ bytes (median of five): a
//! copy through 16 KiB 0.57, through 32 KiB 0.37; `splice` through a pipe of 64 KiB 0.56, of 256 KiB
//! 0.33, of 1 MiB 0.24. It is clearly cheaper than 32 KiB of ours only with a MiB of the kernel's for
//! each direction. Of bytes that come a segment at a time, 5 MB/s, it makes no less work: 12.0 through
//! 64 KiB against 11.2 for the copy (median of three). No Raspberry Pi was measured.

#[cfg(test)]
mod tests;

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::net::IpAddr;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::records::{self, Hello, Records};
use crate::board::BOARD;
use crate::counts::{self, Count};
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget;
use crate::memory::pool::RC_COUNTS;
use crate::memory::slots::Occupant;
use crate::peer::{Origin, Peer};
use crate::rejections;
use crate::runtime::Clock;
use crate::runtime::accept::Acceptor;
use crate::runtime::dial::{DialError, reach};
use crate::runtime::host::Host;
use crate::runtime::net::{Connection, Net};
use crate::runtime::pacing::{limit_unread_of, limit_unsent};
use crate::runtime::stream::tune_relay;
use crate::service::{self, Visitor};

/// Time from the TCP connection to a whole ClientHello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from the connection to the printer to the end of the login.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which a client has to have sent a command for its data connections to be accepted.
pub const RECENT: Duration = Duration::from_secs(60);

/// Time in which a peer has to take some of the data waiting for it.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time of silence after which a connection of which one direction has ended is reset. A printer takes up to 300 s to
/// write a file that it has received to its card ([protocol](crate::protocol#ftps)).
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(330);

/// Time of silence after which a data connection is reset.
pub const FILE_SILENCE_TIMEOUT: Duration = HALF_CLOSED_TIMEOUT;

/// Most sessions of one relay.
pub const MAX_SESSIONS: usize = 16;

/// Most tasks of one relay.
const MAX_WORKERS: usize = MAX_SESSIONS + BOARD.pre_auth;

/// How many TLS records of application data a login takes in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// From the client.
    pub up: u32,
    /// From the printer.
    pub down: u32,
}

impl Counts {
    /// A login at the FTP server: USER and PASS, with 220, 331 and 230.
    pub const FTP: Self = Self { up: 2, down: 3 };

    /// The first command after it, and its reply: one that names a data port, at the earliest.
    const FTP_COMMAND: Self = Self { up: 3, down: 4 };

    /// A login at the file tunnel, and its answer.
    pub const TUNNEL: Self = Self { up: 1, down: 1 };

    const NONE: Self = Self { up: 0, down: 0 };

    const fn reaches(self, other: Self) -> bool {
        self.up >= other.up && self.down >= other.down
    }
}

/// One session, as long as it is relayed.
#[derive(Clone, Copy, Debug)]
struct Active {
    /// Its ticket in the queue.
    ticket: u32,
    /// The client, and when its session began.
    occupant: Occupant,
    counts: Counts,
    /// When the client sent its last record.
    active_at: crate::clock::Instant,
}

/// One of the printer's ports, and the clients that are relayed to it.
pub struct Relay {
    service: &'static str,
    host: Rc<Host>,
    port: u16,
    sessions: usize,
    per_origin: usize,
    hello_timeout: Duration,
    /// Buffers of the free sessions.
    buffers: RefCell<heapless::Vec<Buffers, MAX_SESSIONS>>,
    /// The sessions that are relayed.
    active: RefCell<heapless::Vec<Active, MAX_SESSIONS>>,
    /// Tickets and addresses of the clients that wait for a session, in the order they came.
    queue: RefCell<heapless::Deque<(u32, IpAddr), MAX_WORKERS>>,
    tickets: Cell<u32>,
    /// The queue or the sessions have changed.
    changed: Notify,
    /// Why the printer was unreachable last.
    trouble: Cell<Option<DialError>>,
    trouble_log: RateLimit,
    full_log: RateLimit,
    login: Counts,
    /// Whether the program ends.
    is_ending: Cell<bool>,
}

const _: () =
    assert!(size_of::<Relay>() + RC_COUNTS <= budget::RELAY, "a relay is larger than its budget");
const _: () = assert!(
    budget::RELAY_SESSIONS <= MAX_SESSIONS && budget::TUNNELS <= MAX_SESSIONS,
    "a relay has room for all its sessions"
);

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection was relayed.
    Relayed(Report),
    /// The client's ClientHello was not complete within [`HELLO_TIMEOUT`], or is not TLS.
    Silent,
    /// The client disconnected before a session was free, or while the printer was being dialled.
    Left,
    /// The printer is unreachable.
    Unreachable(DialError),
}

impl Relay {
    /// The relay to `port` of the printer at `host`, for at most `sessions` clients at once, with `buffer` bytes in each
    /// direction for each of them. All memory is allocated here.
    ///
    /// A client has to complete a `login` within [`LOGIN_TIMEOUT`]. The number of sessions is at least one and at most
    /// [`MAX_SESSIONS`].
    pub fn new(
        service: &'static str,
        host: Rc<Host>,
        port: u16,
        sessions: usize,
        buffer: usize,
        login: Counts,
    ) -> Rc<Self> {
        let sessions = sessions.clamp(1, MAX_SESSIONS);
        Rc::new(Self {
            service,
            host,
            port,
            sessions,
            per_origin: sessions.saturating_sub(1).max(1),
            hello_timeout: HELLO_TIMEOUT,
            buffers: RefCell::new((0..sessions).map(|_| Buffers::new(buffer)).collect()),
            active: RefCell::default(),
            queue: RefCell::default(),
            tickets: Cell::new(0),
            changed: Notify::new(),
            trouble: Cell::new(None),
            trouble_log: RateLimit::default(),
            full_log: RateLimit::default(),
            login,
            is_ending: Cell::new(false),
        })
    }

    /// The printer's address.
    pub const fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// Sessions of an origin.
    pub fn connections_of(&self, origin: Origin) -> usize {
        let active = self.active.borrow();
        active.iter().filter(|active| active.occupant.peer.origin() == origin).count()
    }

    /// Sessions that are relayed.
    pub fn connections(&self) -> usize {
        self.active.borrow().len()
    }

    /// Shows the clients whose sessions are relayed.
    pub fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, active) in self.active.borrow().iter().enumerate() {
            let occupant = active.occupant;
            visitor.connection(&service::Connection { index, occupant, id: "", lost: 0 });
        }
    }

    /// Ends every session, and begins no other: the connections of both ends are reset, since the relay can send
    /// nothing within their TLS.
    pub fn disconnect_all(&self) {
        self.is_ending.set(true);
        self.changed.notify_waiters();
    }

    /// Writes the line of the operator's status: the number of sessions, and whose they are.
    ///
    /// # Errors
    ///
    /// `out` fails.
    pub fn write_status(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: {}", self.service, Relayed(&self.active.borrow()))
    }

    /// Completes when the program ends.
    async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_ending.get() {
                return;
            }
            changed.await;
        }
    }

    /// Whether `address` has a session of which the printer has answered a command after the login, and whose client
    /// sent something within the last minute. The address has to be the same, not only its origin: an IPv6 /64 is a
    /// whole network, whose other machines have not logged in.
    pub fn has_recent_login(&self, address: IpAddr, now: crate::clock::Instant) -> bool {
        self.active.borrow().iter().any(|active| {
            active.occupant.peer.address == address
                && active.counts.reaches(Counts::FTP_COMMAND)
                && now.since(active.active_at) <= RECENT
        })
    }

    /// Records what was counted of a session.
    fn update(&self, ticket: u32, counts: Counts, now: crate::clock::Instant) {
        let mut active = self.active.borrow_mut();
        if let Some(active) = active.iter_mut().find(|active| active.ticket == ticket) {
            if active.counts.up != counts.up {
                active.active_at = now;
            }
            active.counts = counts;
        }
    }

    /// Tasks that have to run [`work`](Self::work): one for each session and one for each pre-auth slot, so that silent
    /// and queued clients do not keep a session free.
    pub const fn workers(&self) -> usize {
        self.sessions + BOARD.pre_auth
    }

    /// Serves one client after another: the body of one of a fixed set of tasks.
    pub async fn work<N: Net>(self: Rc<Self>, net: N, acceptor: Rc<Acceptor<N>>, clock: Clock) {
        loop {
            let (socket, pending) = acceptor.next(&clock).await;
            let step_in = || pending.release();
            let outcome = tokio::select! {
                biased;
                () = self.ended() => continue,
                outcome = self.serve(&net, socket, pending.peer, step_in, &clock) => outcome,
            };
            if outcome == Outcome::Silent {
                pending.note_handshake_failure(clock.now(), None);
            }
        }
    }

    /// Relays one client: waits for its ClientHello, for a session (then `turn` is called), and for the printer, and then
    /// copies until the connection ends. Logs the outcome, except [`Outcome::Silent`].
    pub async fn serve<N: Net>(
        &self,
        net: &N,
        mut socket: N::Connection,
        peer: Peer,
        turn: impl FnOnce(),
        clock: &Clock,
    ) -> Outcome {
        // Files of the tunnel come on this connection.
        if tune_relay(&socket).is_err() || limit_unread_of(&socket).is_err() {
            return Outcome::Left;
        }
        match timeout(self.hello_timeout, socket.peek(whole_hello)).await {
            Ok(Ok(Some(Hello::Complete))) => {}
            Ok(Ok(Some(Hello::Invalid | Hello::Partial))) | Err(_) => return Outcome::Silent,
            Ok(Ok(None) | Err(_)) => return Outcome::Left,
        }
        let session = tokio::select! {
            biased;
            () = socket.closed() => None,
            session = self.session(peer, clock) => session,
        };
        let Some(mut session) = session else {
            log::debug!("{peer}: client disconnected: before a session was free");
            return Outcome::Left;
        };
        turn();
        let dialled = tokio::select! {
            biased;
            () = socket.closed() => {
                log::debug!("{peer}: client disconnected: before the printer answered");
                return Outcome::Left;
            }
            dialled = dial(net, &self.host, self.port) => dialled,
        };
        let mut printer = match dialled {
            Ok(printer) => printer,
            Err(error) => {
                self.log_unreachable(error, clock);
                return Outcome::Unreachable(error);
            }
        };
        self.trouble.set(None);
        let (ticket, buffers) = (session.ticket, &mut session.buffers);
        let watch = |counts| self.update(ticket, counts, clock.now());
        let limits = Limits { silence: None, login: self.login, service: self.service };
        let report = carry(&mut socket, &mut printer, peer, buffers, limits, watch, clock).await;
        // The printer's connection is closed before the next session begins.
        drop(printer);
        Outcome::Relayed(report)
    }

    /// The next free session: first come, first served, except origins that have as many as one may have.
    async fn session(&self, peer: Peer, clock: &Clock) -> Option<Session<'_>> {
        let queued = QueueGuard::enter(self, peer)?;
        let mut waits = false;
        loop {
            let changed = self.changed.notified();
            if let Some(session) = queued.session(clock.now()) {
                return Some(session);
            }
            if !core::mem::replace(&mut waits, true)
                && let Some(times) = self.full_log.check(clock.now())
            {
                let full = Full { active: &self.active.borrow(), times };
                log::info!("{peer}: {full}");
            }
            changed.await;
        }
    }

    /// Logs that the printer is unreachable: at once if the reason is new, else rate-limited.
    fn log_unreachable(&self, error: DialError, clock: &Clock) {
        if self.trouble.replace(Some(error)) != Some(error) {
            self.trouble_log.forget();
        }
        let service = self.service;
        match self.trouble_log.check(clock.now()) {
            Some(times) => journal::note(
                Kind::PrinterLost,
                format_args!("{service}: client rejected: {error}{}", Seen(times)),
            ),
            None => journal::tally(Kind::PrinterLost),
        }
    }
}

/// Log line: all sessions are in use, and by which addresses.
struct Full<'a> {
    active: &'a [Active],
    times: u32,
}

impl fmt::Display for Full<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting: all sessions are in use by {}", Addresses(self.active))?;
        Seen(self.times).fmt(f)
    }
}

/// Whose sessions these are.
struct Addresses<'a>(&'a [Active]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Active { occupant, .. }) in self.0.iter().enumerate() {
            let before = if at == 0 { "" } else { ", " };
            write!(f, "{before}{}", occupant.peer.address)?;
        }
        Ok(())
    }
}

/// The sessions in the operator's status.
struct Relayed<'a>(&'a [Active]);

impl fmt::Display for Relayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections relayed", self.0.len())?;
        if !self.0.is_empty() {
            write!(f, ": {}", Addresses(self.0))?;
        }
        Ok(())
    }
}

/// The log line of a client that waits, and the line of the operator's status.
#[cfg(test)]
pub(super) fn samples(peer: Peer) -> [alloc::string::String; 2] {
    let (counts, active_at) = (Counts::NONE, crate::clock::Instant::START);
    let occupant = Occupant { peer, since: active_at };
    let active = [Active { ticket: 1, occupant, counts, active_at }; 2];
    [
        alloc::format!("{peer}: {}", Full { active: &active, times: 3 }),
        alloc::format!("{}: {}", peer.service, Relayed(&active)),
    ]
}

/// End of a rate-limited log line: how often the event was seen since the last one, if more than once.
pub(super) struct Seen(pub(super) u32);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..=1 => Ok(()),
            times => write!(f, " (seen {times} times)"),
        }
    }
}

/// Judges the first bytes of a client, unless more have to come.
fn whole_hello(bytes: &[u8]) -> Option<Hello> {
    Some(records::hello(bytes)).filter(|hello| *hello != Hello::Partial)
}

/// A client in the queue; dropping this takes it out of the queue.
struct QueueGuard<'r> {
    relay: &'r Relay,
    ticket: u32,
    peer: Peer,
}

impl<'r> QueueGuard<'r> {
    /// Appends a client to the queue. `None`: there are more clients than tasks, which cannot be.
    fn enter(relay: &'r Relay, peer: Peer) -> Option<Self> {
        let ticket = relay.tickets.get().wrapping_add(1);
        relay.tickets.set(ticket);
        relay.queue.borrow_mut().push_back((ticket, peer.address)).ok()?;
        Some(Self { relay, ticket, peer })
    }

    /// A session, if one is free and it is this client's turn.
    fn session(&self, now: crate::clock::Instant) -> Option<Session<'r>> {
        let relay = self.relay;
        let may = |address| relay.connections_of(Origin::of(address)) < relay.per_origin;
        let first = relay.queue.borrow().iter().find(|(_, address)| may(*address)).copied();
        let (first, _) = first?;
        if first != self.ticket {
            return None;
        }
        let buffers = relay.buffers.borrow_mut().pop()?;
        let occupant = Occupant { peer: self.peer, since: now };
        let active = Active { ticket: first, occupant, counts: Counts::NONE, active_at: now };
        // Cannot fail: there are no more sessions than buffers.
        let _fits = relay.active.borrow_mut().push(active);
        Some(Session { relay, ticket: first, buffers })
    }
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        self.relay.queue.borrow_mut().retain(|(ticket, _)| *ticket != self.ticket);
        self.relay.changed.notify_waiters();
    }
}

/// One of the printer's sessions; dropping it frees the session.
struct Session<'r> {
    relay: &'r Relay,
    ticket: u32,
    buffers: Buffers,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.relay.active.borrow_mut().retain(|active| active.ticket != self.ticket);
        let none = Buffers { up: Vec::new(), down: Vec::new() };
        let buffers = core::mem::replace(&mut self.buffers, none);
        // Cannot fail: it was taken from there.
        let _fits = self.relay.buffers.borrow_mut().push(buffers);
        self.relay.changed.notify_waiters();
    }
}

/// A connection to the printer, with the options of a relayed one.
///
/// # Errors
///
/// The printer is unreachable.
pub async fn dial<N: Net>(net: &N, host: &Rc<Host>, port: u16) -> Result<N::Connection, DialError> {
    let socket = reach(net, host, port).await?;
    // An error means that the connection is lost already; the next read or write reports it.
    let _lost = tune_relay(&socket);
    let _lost = limit_unsent(&socket);
    Ok(socket)
}

/// Relays between two sockets and logs the outcome. Dropping the sockets then passes on how the connection ended.
pub async fn carry(
    client: &mut impl Connection,
    printer: &mut impl Connection,
    peer: Peer,
    buffers: &mut Buffers,
    limits: Limits,
    watch: impl Fn(Counts),
    clock: &Clock,
) -> Report {
    let began = clock.now();
    let is_logged_in = Cell::new(Counts::NONE.reaches(limits.login));
    let watch = |counts: Counts| {
        is_logged_in.set(counts.reaches(limits.login));
        watch(counts);
    };
    let report = relay(client, printer, buffers, limits, watch).await;
    if report.end == End::Finished {
        client.set_reset_on_drop(false);
        printer.set_reset_on_drop(false);
    }
    let Report { up, down, end } = report;
    let lasted = clock.now().since(began);
    let (seconds, tenths) = (lasted.as_secs(), lasted.subsec_millis() / 100);
    let line = format_args!("{peer}: {end} ({up} bytes up, {down} down in {seconds}.{tenths} s)");
    if is_logged_in.get() {
        log::log!(target: "pandaproxy", end.kind().level(), "{line}");
    } else {
        // Any machine can make such connections at any rate.
        rejections::note(clock.now(), end.kind(), peer.address, line);
    }
    report
}

/// The buffers of one relayed connection, one for each direction.
pub struct Buffers {
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Buffers {
    /// Room for `bytes` in each direction.
    pub fn new(bytes: usize) -> Self {
        Self { up: vec![0; bytes], down: vec![0; bytes] }
    }
}

/// One end of a relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that connected to the proxy.
    Client,
    /// The one that the proxy connected to.
    Printer,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client",
            Self::Printer => "the printer",
        })
    }
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both ends have closed, and all data have been passed on.
    Finished,
    /// The connection to one end was lost.
    Lost(Side, io::ErrorKind),
    /// One end took no data for [`STALL_TIMEOUT`].
    Stalled(Side),
    /// One end had closed, and this one neither closed nor sent anything for [`HALF_CLOSED_TIMEOUT`].
    LeftOpen(Side),
    /// Neither end sent anything for this time.
    Silent(Duration),
    /// The login was not complete within [`LOGIN_TIMEOUT`].
    NoLogin,
}

impl End {
    const fn kind(self) -> Kind {
        match self {
            Self::Finished | Self::Lost(..) => Kind::Left,
            Self::Stalled(_) => Kind::Stuck,
            Self::LeftOpen(_) | Self::Silent(_) | Self::NoLogin => Kind::Silent,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("client disconnected"),
            Self::Lost(Side::Client, kind) => {
                write!(f, "client disconnected: connection lost: {kind}")
            }
            Self::Lost(Side::Printer, kind) => write!(f, "printer connection lost: {kind}"),
            Self::Stalled(side) => {
                write!(f, "connection reset: {side} took no data for {} s", STALL_TIMEOUT.as_secs())
            }
            Self::LeftOpen(side) => write!(
                f,
                "connection reset: {side} sent nothing for {} s after a FIN",
                HALF_CLOSED_TIMEOUT.as_secs()
            ),
            Self::Silent(time) => write!(f, "connection reset: no data for {} s", time.as_secs()),
            Self::NoLogin => {
                write!(f, "client disconnected: no login within {} s", LOGIN_TIMEOUT.as_secs())
            }
        }
    }
}

/// What a relayed connection carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes sent to the printer.
    pub up: u64,
    /// Bytes sent to the client.
    pub down: u64,
    /// Why it ended.
    pub end: End,
}

/// Time limits of a relayed connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time of silence after which the connection is reset while both directions are open. `None`: never.
    pub silence: Option<Duration>,
    /// The records that have to be counted within [`LOGIN_TIMEOUT`].
    pub login: Counts,
    /// The service whose bytes they are.
    pub service: &'static str,
}

impl Limits {
    /// Limits of a data connection.
    pub const DATA: Self =
        Self { silence: Some(FILE_SILENCE_TIMEOUT), login: Counts::NONE, service: "ftp" };
}

/// Copies data in both directions until both ends have closed, or a limit is exceeded. `watch` gets the records that were
/// counted.
///
/// Nothing is closed here: after any end but [`End::Finished`] the caller resets both.
pub async fn relay<C, P>(
    client: &mut C,
    printer: &mut P,
    buffers: &mut Buffers,
    limits: Limits,
    watch: impl Fn(Counts),
) -> Report
where
    C: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut up = Direction::new(&mut buffers.up, now);
    let mut down = Direction::new(&mut buffers.down, now);
    let mut counts = Counts::NONE;
    let mut alarm = pin!(sleep_until(now + STALL_TIMEOUT));
    let end = poll_fn(|cx| {
        let before = (up.read, up.moved, down.read, down.moved);
        let moved_up = up.poll(cx, (client, Side::Client), (printer, Side::Printer));
        let count = |count, now: u64, before| counts::add(limits.service, count, now - before);
        count(Count::FromClient, up.read, before.0);
        count(Count::ToPrinter, up.moved, before.1);
        if let Poll::Ready(Err(end)) = moved_up {
            return Poll::Ready(end);
        }
        let moved_down = down.poll(cx, (printer, Side::Printer), (client, Side::Client));
        count(Count::FromPrinter, down.read, before.2);
        count(Count::ToClient, down.moved, before.3);
        let counted = Counts { up: up.records.application(), down: down.records.application() };
        if core::mem::replace(&mut counts, counted) != counted {
            watch(counted);
        }
        let login = (!counted.reaches(limits.login)).then_some((now + LOGIN_TIMEOUT, End::NoLogin));
        match (moved_up, moved_down) {
            (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(End::Finished),
            (_, _) => {
                let next = deadline(&up, &down, limits.silence, login);
                poll_deadline(cx, alarm.as_mut(), next)
            }
        }
    })
    .await;
    Report { up: up.moved, down: down.moved, end }
}

/// The next deadline, and the end that it is.
fn deadline(
    up: &Direction<'_>,
    down: &Direction<'_>,
    silence: Option<Duration>,
    login: Option<(Instant, End)>,
) -> Option<(Instant, End)> {
    let stalled = |direction: &Direction<'_>, side| {
        (!direction.is_empty()).then_some((direction.moved_at + STALL_TIMEOUT, End::Stalled(side)))
    };
    let moved_at = up.moved_at.max(down.moved_at);
    let silent = match (up.ended, down.ended) {
        (true, _) => Some((moved_at + HALF_CLOSED_TIMEOUT, End::LeftOpen(Side::Printer))),
        (_, true) => Some((moved_at + HALF_CLOSED_TIMEOUT, End::LeftOpen(Side::Client))),
        (false, false) => silence.map(|long| (moved_at + long, End::Silent(long))),
    };
    let all = [stalled(up, Side::Printer), stalled(down, Side::Client), silent, login];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Completes at the deadline. The deadline moves with every byte; the alarm is set anew only when it was too early.
fn poll_deadline(
    cx: &mut Context<'_>,
    mut alarm: Pin<&mut Sleep>,
    deadline: Option<(Instant, End)>,
) -> Poll<End> {
    let Some((at, end)) = deadline else { return Poll::Pending };
    if at < alarm.deadline() {
        alarm.as_mut().reset(at);
    }
    loop {
        ready!(alarm.as_mut().poll(cx));
        if at <= Instant::now() {
            return Poll::Ready(end);
        }
        alarm.as_mut().reset(at);
    }
}

/// One direction of a relayed connection.
struct Direction<'b> {
    buffer: &'b mut [u8],
    /// `buffer[start..end]` waits to be sent.
    start: usize,
    end: usize,
    /// The sender has closed.
    closed: bool,
    /// The receiver has got the FIN.
    ended: bool,
    /// Bytes received, and sent.
    read: u64,
    moved: u64,
    moved_at: Instant,
    records: Records,
}

impl<'b> Direction<'b> {
    const fn new(buffer: &'b mut [u8], now: Instant) -> Self {
        Self {
            buffer,
            start: 0,
            end: 0,
            closed: false,
            ended: false,
            read: 0,
            moved: 0,
            moved_at: now,
            records: Records::new(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Copies until an end has to be waited for; ready once this direction has ended.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        (from, sender): (&mut R, Side),
        (to, receiver): (&mut W, Side),
    ) -> Poll<Result<(), End>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let lost = |side| move |error: io::Error| End::Lost(side, error.kind());
        while !self.ended {
            let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
            if !waiting.is_empty() {
                let sent = ready!(Pin::new(&mut *to).poll_write(cx, waiting));
                match sent.map_err(lost(receiver))? {
                    0 => return Poll::Ready(Err(End::Lost(receiver, io::ErrorKind::WriteZero))),
                    sent => {
                        self.start += sent;
                        self.moved = self.moved.saturating_add(sent as u64);
                    }
                }
                self.moved_at = Instant::now();
            } else if self.closed {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(lost(receiver))?;
                self.ended = true;
            } else {
                let mut read = ReadBuf::new(self.buffer);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut read)).map_err(lost(sender))?;
                self.records.take(read.filled());
                (self.start, self.end) = (0, read.filled().len());
                self.read = self.read.saturating_add(self.end as u64);
                self.closed = self.end == 0;
                self.moved_at = Instant::now();
            }
        }
        Poll::Ready(Ok(()))
    }
}
