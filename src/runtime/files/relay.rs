//! Bytes between a client and the printer, as they are: nothing is decrypted, nothing understood.
//!
//! Some printers have to be met with their own certificate, end to end: the slicer's plug-in insists
//! on it (PROTOCOL §5.5, §6.2). What is left to do here is what TCP itself does not: a printer is not
//! offered more connections than it takes, nobody is cut who is merely idle, and an end is an end on
//! both sides, of the same kind.
//!
//! ```text
//!   client ─ acceptor ─ says something ─ waits in line ─ dial ─► one buffer each way ◄─► printer
//! ```
//!
//! **There is no login here.** Only the printer can check the access code, and how long it lets
//! somebody wait before showing one is its affair too. What protects it is the acceptor (few places, some
//! for each address), that whoever says nothing never reaches it, and the line.
//!
//! # An end is passed on as what it is
//!
//! A FIN becomes a FIN, and the other direction goes on. Everything else, a reset, a stall, the end of
//! this program, becomes a reset: to a peer that reads a file until its end, a FIN in place of a reset
//! would make half a file a whole one.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | relayed at once | the sessions that the printer has | wait in line, first come, first served |
//! | of those, from one address | all but one, if there are several | others overtake it in the line |
//! | in line, or silent so far | `BOARD.pre_auth` | wait at the [acceptor](crate::runtime::accept) |
//! | silence before the first byte | [`SPEAKS_TIMEOUT`] | closed, and the printer never hears of it |
//! | a peer that takes nothing of what waits for it | [`STALL`] | both are reset |
//! | silence after one direction has ended | [`HALF_CLOSED`] | both are reset |
//! | silence of a connection that has taken no end | none; TCP keepalive finds the dead | |
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

use crate::board::BOARD;
use crate::config::PrinterAddr;
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget;
use crate::peer::Peer;
use crate::runtime::Clock;
use crate::runtime::accept::Acceptor;
use crate::runtime::dial::{DialError, reach};
use crate::runtime::net::{Connection, Net};
use crate::runtime::stream::tune_relay;

/// How long a client may take to say its first byte. In TLS the client speaks first, and at once.
pub const SPEAKS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of what waits for it.
pub const STALL: Duration = Duration::from_secs(60);

/// How long a connection of which one direction has ended may be silent. A printer may take 300 s to
/// bring a file that it has received to its card (PROTOCOL §5.4).
pub const HALF_CLOSED: Duration = Duration::from_secs(330);

/// How long a connection that carries one file may be silent: it is in use or it is forgotten.
pub const FILE_SILENCE: Duration = HALF_CLOSED;

/// The most sessions one relay may have.
pub const MAX_SESSIONS: usize = 16;

/// The most tasks that can serve one relay.
const MAX_WORKERS: usize = MAX_SESSIONS + BOARD.pre_auth;

/// One of the printer's ports, and who is being relayed to it.
pub struct Relay {
    service: &'static str,
    host: PrinterAddr,
    port: u16,
    sessions: usize,
    per_address: usize,
    speaks_within: Duration,
    /// Those of sessions that are free.
    buffers: RefCell<heapless::Vec<Buffers, MAX_SESSIONS>>,
    /// Who has a session, once for each.
    there: RefCell<heapless::Vec<IpAddr, MAX_SESSIONS>>,
    /// Who waits for one, in the order they came.
    line: RefCell<heapless::Deque<(u32, IpAddr), MAX_WORKERS>>,
    tickets: Cell<u32>,
    /// The line or the sessions have changed.
    moved: Notify,
    /// What was last in the way to the printer, and how often.
    trouble: Cell<Option<DialError>>,
    troubles: RateLimit,
}

/// What an `Rc` keeps beside its content: two counts.
pub(super) const COUNTS: usize = 2 * size_of::<usize>();
const _: () =
    assert!(size_of::<Relay>() + COUNTS <= budget::RELAY, "a relay is larger than its line");
const _: () = assert!(
    budget::RELAY_SESSIONS <= MAX_SESSIONS && budget::TUNNELS <= MAX_SESSIONS,
    "a relay has room for all its sessions"
);

/// What became of somebody who came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They were relayed.
    Relayed(Report),
    /// They said nothing for [`SPEAKS_TIMEOUT`].
    Silent,
    /// They left before there was a session, or while the printer was being dialled.
    Left,
    /// There is no way to the printer.
    Unreachable(DialError),
}

impl Relay {
    /// The relay to `port` of the printer at `host`, for at most `sessions` clients at once, with
    /// `buffer` bytes each way for each of them. All memory is taken here.
    ///
    /// There is always one session, and never more than [`MAX_SESSIONS`].
    pub fn new(
        service: &'static str,
        host: PrinterAddr,
        port: u16,
        sessions: usize,
        buffer: usize,
    ) -> Rc<Self> {
        let sessions = sessions.clamp(1, MAX_SESSIONS);
        Rc::new(Self {
            service,
            host,
            port,
            sessions,
            per_address: sessions.saturating_sub(1).max(1),
            speaks_within: SPEAKS_TIMEOUT,
            buffers: RefCell::new((0..sessions).map(|_| Buffers::new(buffer)).collect()),
            there: RefCell::default(),
            line: RefCell::default(),
            tickets: Cell::new(0),
            moved: Notify::new(),
            trouble: Cell::new(None),
            troubles: RateLimit::default(),
        })
    }

    /// Where the printer is.
    pub const fn host(&self) -> &PrinterAddr {
        &self.host
    }

    /// How many connections of `address` are being relayed.
    pub fn connections_of(&self, address: IpAddr) -> usize {
        self.there.borrow().iter().filter(|there| **there == address).count()
    }

    /// How many tasks are to [`work`](Self::work): one for each session and one for each place on the
    /// pre-auth slots, so that whoever is silent or in line keeps nobody out who could be served.
    pub const fn workers(&self) -> usize {
        self.sessions + BOARD.pre_auth
    }

    /// Serves one client after another: the body of one of a fixed set of tasks.
    pub async fn work<N: Net>(self: Rc<Self>, net: N, acceptor: Rc<Acceptor<N>>, clock: Clock) {
        loop {
            let (socket, pending) = acceptor.next(&clock).await;
            let step_in = || pending.step_in();
            if self.serve(&net, socket, pending.peer, step_in, &clock).await == Outcome::Silent {
                pending.turned_away(clock.now(), None);
            }
        }
    }

    /// Relays one client: waits for its first byte, for its turn, which is told by `turn`, and for the
    /// printer, and then for as long as both like. Says in the log what came of it, silence apart.
    pub async fn serve<N: Net>(
        &self,
        net: &N,
        mut socket: N::Connection,
        peer: Peer,
        turn: impl FnOnce(),
        clock: &Clock,
    ) -> Outcome {
        if tune_relay(&socket).is_err() {
            return Outcome::Left;
        }
        // A socket counts as readable until somebody has tried.
        match timeout(self.speaks_within, socket.peek()).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Outcome::Left,
            Err(_elapsed) => return Outcome::Silent,
        }
        let session = tokio::select! {
            biased;
            () = socket.closed() => None,
            session = self.session(peer) => session,
        };
        let Some(mut session) = session else {
            log::debug!("{peer}: left before its turn");
            return Outcome::Left;
        };
        turn();
        let dialled = tokio::select! {
            biased;
            () = socket.closed() => {
                log::debug!("{peer}: left before the printer answered");
                return Outcome::Left;
            }
            dialled = dial(net, &self.host, self.port) => dialled,
        };
        let mut printer = match dialled {
            Ok(printer) => printer,
            Err(error) => {
                self.is_in_trouble(error, clock);
                return Outcome::Unreachable(error);
            }
        };
        self.trouble.set(None);
        let buffers = &mut session.buffers;
        let report = carry(&mut socket, &mut printer, peer, buffers, None, clock).await;
        // The printer's side first: its session is over before the next one begins.
        drop(printer);
        Outcome::Relayed(report)
    }

    /// The next session that is free, first come, first served, past those whose address has as many
    /// as it may have.
    async fn session(&self, peer: Peer) -> Option<Session<'_>> {
        let place = Place::take(self, peer.address)?;
        let mut said = false;
        loop {
            let moved = self.moved.notified();
            if let Some(session) = place.session() {
                return Some(session);
            }
            if !core::mem::replace(&mut said, true) {
                log::debug!("{peer}: waits for one of the printer's {} sessions", self.sessions);
            }
            moved.await;
        }
    }

    /// Says that the printer cannot be reached: at once if that is news, seldom if it is not.
    fn is_in_trouble(&self, error: DialError, clock: &Clock) {
        if self.trouble.replace(Some(error)) != Some(error) {
            self.troubles.forget();
        }
        let service = self.service;
        match self.troubles.check(clock.now()) {
            Some(times) => journal::note(
                Kind::PrinterLost,
                format_args!("{service}: {error}; turned away for it: {times}"),
            ),
            None => journal::tally(Kind::PrinterLost),
        }
    }
}

/// A place in the line, for as long as this lives.
struct Place<'r> {
    relay: &'r Relay,
    ticket: u32,
}

impl<'r> Place<'r> {
    /// The last place; none if there are more than there can be workers.
    fn take(relay: &'r Relay, address: IpAddr) -> Option<Self> {
        let ticket = relay.tickets.get().wrapping_add(1);
        relay.tickets.set(ticket);
        relay.line.borrow_mut().push_back((ticket, address)).ok()?;
        Some(Self { relay, ticket })
    }

    /// A session, if it is this one's turn.
    fn session(&self) -> Option<Session<'r>> {
        let relay = self.relay;
        let may = |address| relay.connections_of(address) < relay.per_address;
        let first = relay.line.borrow().iter().find(|(_, address)| may(*address)).copied();
        let (first, address) = first?;
        if first != self.ticket {
            return None;
        }
        let buffers = relay.buffers.borrow_mut().pop()?;
        // It fits: there are no more than there are buffers.
        let _fits = relay.there.borrow_mut().push(address);
        Some(Session { relay, address, buffers })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.relay.line.borrow_mut().retain(|(ticket, _)| *ticket != self.ticket);
        self.relay.moved.notify_waiters();
    }
}

/// One of the printer's sessions, for as long as this lives.
struct Session<'r> {
    relay: &'r Relay,
    address: IpAddr,
    buffers: Buffers,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut there = self.relay.there.borrow_mut();
        if let Some(at) = there.iter().position(|there| *there == self.address) {
            there.swap_remove(at);
        }
        let none = Buffers { up: Vec::new(), down: Vec::new() };
        let buffers = core::mem::replace(&mut self.buffers, none);
        // It fits: it was taken from there.
        let _fits = self.relay.buffers.borrow_mut().push(buffers);
        self.relay.moved.notify_waiters();
    }
}

/// A connection to the printer that is fit to be relayed.
///
/// # Errors
///
/// There is no way to the printer.
pub async fn dial<N: Net>(
    net: &N,
    host: &PrinterAddr,
    port: u16,
) -> Result<N::Connection, DialError> {
    let socket = reach(net, host, port).await?;
    // A socket that cannot be tuned is a connection that is gone; the relay will see it.
    let _gone = tune_relay(&socket);
    Ok(socket)
}

/// Relays between two sockets, says in the log what came of it, and leaves both so that dropping them
/// passes on how it ended.
pub async fn carry(
    client: &mut impl Connection,
    printer: &mut impl Connection,
    peer: Peer,
    buffers: &mut Buffers,
    silence: Option<Duration>,
    clock: &Clock,
) -> Report {
    let began = clock.now();
    let report = relay(client, printer, buffers, silence).await;
    if report.end == End::Finished {
        client.set_reset_on_drop(false);
        printer.set_reset_on_drop(false);
    }
    let Report { up, down, end } = report;
    let lasted = clock.now().since(began);
    log::log!(
        target: "pandaproxy",
        end.kind().level(),
        "{peer}: {up} bytes to the printer, {down} from it in {}.{} s: {end}",
        lasted.as_secs(),
        lasted.subsec_millis() / 100,
    );
    report
}

/// What is on its way between two peers, in both directions.
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

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever came to us.
    Client,
    /// Whom we went to.
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
    /// Both have closed, and all they said has been passed on.
    Finished,
    /// The connection to one of them broke.
    Lost(Side, io::ErrorKind),
    /// One of them took nothing for [`STALL`].
    Stalled(Side),
    /// One of them had closed, and this one neither closed nor said anything for [`HALF_CLOSED`].
    LeftOpen(Side),
    /// Nobody said anything for as long as the connection allows.
    Silent(Duration),
}

impl End {
    const fn kind(self) -> Kind {
        match self {
            Self::Finished | Self::Lost(..) => Kind::Left,
            Self::Stalled(_) => Kind::Stuck,
            Self::LeftOpen(_) | Self::Silent(_) => Kind::Silent,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("closed by both"),
            Self::Lost(side, kind) => write!(f, "{side}: connection lost: {kind}"),
            Self::Stalled(side) => write!(f, "{side} took nothing for {} s", STALL.as_secs()),
            Self::LeftOpen(side) => write!(
                f,
                "{side} neither closed nor said anything for {} s after the other had closed",
                HALF_CLOSED.as_secs()
            ),
            Self::Silent(long) => write!(f, "nobody said anything for {} s", long.as_secs()),
        }
    }
}

/// What a relay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes that the printer was sent.
    pub up: u64,
    /// Bytes that the client was sent.
    pub down: u64,
    /// Why it ended.
    pub end: End,
}

/// Passes on what either says to the other until both have closed, or it cannot go on.
///
/// Nothing is closed here: after any end but [`End::Finished`] the caller resets both. `silence` is
/// how long neither may say anything while both directions are open, if that is bounded.
pub async fn relay<C, P>(
    client: &mut C,
    printer: &mut P,
    buffers: &mut Buffers,
    silence: Option<Duration>,
) -> Report
where
    C: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
{
    let now = Instant::now();
    let mut up = Direction::new(&mut buffers.up, now);
    let mut down = Direction::new(&mut buffers.down, now);
    let mut alarm = pin!(sleep_until(now + STALL));
    let end = poll_fn(|cx| {
        let moved_up = up.poll(cx, (client, Side::Client), (printer, Side::Printer));
        if let Poll::Ready(Err(end)) = moved_up {
            return Poll::Ready(end);
        }
        let moved_down = down.poll(cx, (printer, Side::Printer), (client, Side::Client));
        match (moved_up, moved_down) {
            (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(End::Finished),
            (_, _) => poll_deadline(cx, alarm.as_mut(), deadline(&up, &down, silence)),
        }
    })
    .await;
    Report { up: up.moved, down: down.moved, end }
}

/// When it would be enough, and of what.
fn deadline(
    up: &Direction<'_>,
    down: &Direction<'_>,
    silence: Option<Duration>,
) -> Option<(Instant, End)> {
    let stalled = |direction: &Direction<'_>, side| {
        (!direction.is_empty()).then_some((direction.moved_at + STALL, End::Stalled(side)))
    };
    let moved_at = up.moved_at.max(down.moved_at);
    let silent = match (up.ended, down.ended) {
        (true, _) => Some((moved_at + HALF_CLOSED, End::LeftOpen(Side::Printer))),
        (_, true) => Some((moved_at + HALF_CLOSED, End::LeftOpen(Side::Client))),
        (false, false) => silence.map(|long| (moved_at + long, End::Silent(long))),
    };
    let all = [stalled(up, Side::Printer), stalled(down, Side::Client), silent];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Completes at the deadline. It moves with every byte, the alarm only when it has rung too soon.
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

/// What one says and the other hears.
struct Direction<'b> {
    buffer: &'b mut [u8],
    /// `buffer[start..end]` waits to be sent.
    start: usize,
    end: usize,
    /// There is no more to come.
    closed: bool,
    /// There is no more to send, and the other knows.
    ended: bool,
    moved: u64,
    moved_at: Instant,
}

impl<'b> Direction<'b> {
    const fn new(buffer: &'b mut [u8], now: Instant) -> Self {
        Self { buffer, start: 0, end: 0, closed: false, ended: false, moved: 0, moved_at: now }
    }

    const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Goes on for as long as neither has to be waited for; ready once this direction has ended.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        (from, speaker): (&mut R, Side),
        (to, listener): (&mut W, Side),
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
                match sent.map_err(lost(listener))? {
                    0 => return Poll::Ready(Err(End::Lost(listener, io::ErrorKind::WriteZero))),
                    sent => {
                        self.start += sent;
                        self.moved = self.moved.saturating_add(sent as u64);
                    }
                }
                self.moved_at = Instant::now();
            } else if self.closed {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(lost(listener))?;
                self.ended = true;
            } else {
                let mut heard = ReadBuf::new(self.buffer);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut heard)).map_err(lost(speaker))?;
                (self.start, self.end) = (0, heard.filled().len());
                self.closed = self.end == 0;
                self.moved_at = Instant::now();
            }
        }
        Poll::Ready(Ok(()))
    }
}
