//! What one of the printer's sessions, the hub and whoever moves the data have between them.
//!
//! ```text
//!              job                       order: connect, move, drop
//!     hub ───────────► printer session ◄── upstream ─────────────────────────► mover
//!                                   ▲                                 │
//!                                   └──────── news: connected, moved ─┘
//! ```
//!
//! The mover is a task of the runtime: it knows sockets, this knows who moves what for whom, how far
//! it is, and says so in the log.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use super::slot::{CommandKind, Prot, Transfer};
use super::wire::{LINE, Shown};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::notify::Notify;
use crate::peer::Peer;

/// How a session with the printer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// There is none.
    Off,
    /// It is being made.
    Dialling,
    /// It stands and has nothing to do.
    Idle,
    /// It stands and does a [`Job`].
    Busy,
}

/// What a session with the printer does for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// For whom: the index of a slot.
    pub slot: usize,
    /// The command's ticket, so that the next client in that slot is told from this one.
    pub number: u32,
    /// What it wants.
    pub command_kind: CommandKind,
    /// Who that is, for the log.
    pub peer: Peer,
}

/// How often a transfer's progress is said, at most.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What the mover is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Connect to this port of the printer.
    Connect {
        /// The port.
        port: u16,
    },
    /// Move data between that connection and the one of a client.
    Move(Move),
    /// Let go of both, so that neither can take what came for the whole.
    Drop,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The client's slot.
    pub slot: usize,
    /// To the printer, or from it.
    pub upload: bool,
    /// Whether both connections are under TLS.
    pub prot: Prot,
}

/// What the mover has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The printer's data port has answered.
    Connected,
    /// It has not.
    Unreachable,
    /// All there was has been moved, and the receiver knows that it is all.
    Moved,
    /// It did not come to that.
    Failed(Failure),
}

/// Why data were not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client has gone, its data connection broke, or it said ABOR.
    Client,
    /// The client's data connection would not speak TLS.
    ClientTls,
    /// The printer's data connection broke.
    Printer,
    /// The printer's data connection would not speak TLS.
    PrinterTls,
    /// Not one byte for a minute.
    Stalled,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client has gone or given up",
            Self::ClientTls => "the client's data connection does not speak TLS",
            Self::Printer => "the printer's data connection broke",
            Self::PrinterTls => "the printer's data connection does not speak TLS with us",
            Self::Stalled => "not one byte was moved for 60 s",
        })
    }
}

/// One of the printer's sessions.
pub struct PrinterSession {
    index: usize,
    standing: Cell<SlotState>,
    job: Cell<Option<Job>>,
    /// The client's line; a client that leaves takes its own with it.
    line: RefCell<heapless::Vec<u8, LINE>>,
    argument_at: Cell<usize>,
    /// Whether the command itself has been sent to the printer.
    asked: Cell<bool>,
    /// Whether the printer has begun the transfer.
    opened: Cell<bool>,
    began: Cell<Instant>,
    moved: Cell<u64>,
    size: Cell<Option<u64>>,
    tenths: Cell<u64>,
    said: Cell<Instant>,
    order: Cell<Option<Order>>,
    news: Cell<Option<News>>,
    notify: Notify,
    mover_notify: Notify,
    keeper_notify: Notify,
}

impl PrinterSession {
    pub(super) fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            standing: Cell::new(SlotState::Off),
            job: Cell::new(None),
            line: RefCell::new(heapless::Vec::new()),
            argument_at: Cell::new(0),
            asked: Cell::new(false),
            opened: Cell::new(false),
            began: Cell::new(Instant::START),
            moved: Cell::new(0),
            size: Cell::new(None),
            tenths: Cell::new(0),
            said: Cell::new(Instant::START),
            order: Cell::new(None),
            news: Cell::new(None),
            notify: Notify::default(),
            mover_notify: Notify::default(),
            keeper_notify: Notify::default(),
        })
    }

    /// Which one it is, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How it stands.
    pub fn standing(&self) -> SlotState {
        self.standing.get()
    }

    /// Whether the printer answers here.
    pub fn is_live(&self) -> bool {
        matches!(self.standing.get(), SlotState::Idle | SlotState::Busy)
    }

    /// A session is being made.
    pub fn is_dialling(&self) {
        self.standing.set(SlotState::Dialling);
    }

    /// The session stands and has nothing to do.
    pub(super) fn is_idle(&self) {
        self.standing.set(SlotState::Idle);
    }

    /// There is no session.
    pub(super) fn is_off(&self) {
        self.standing.set(SlotState::Off);
        self.job.set(None);
        self.tell(Order::Drop);
    }

    /// What it does.
    pub fn job(&self) -> Option<Job> {
        self.job.get()
    }

    /// Takes a job.
    pub(super) fn begin(&self, now: Instant, job: Job, line: &[u8], argument_at: usize) {
        let mut kept = self.line.borrow_mut();
        kept.clear();
        // It fits: both hold the longest line.
        let _fits = kept.extend_from_slice(line);
        drop(kept);
        self.argument_at.set(argument_at);
        self.asked.set(false);
        self.opened.set(false);
        self.began.set(now);
        self.moved.set(0);
        self.size.set(None);
        self.tenths.set(0);
        self.job.set(Some(job));
        self.standing.set(SlotState::Busy);
    }

    /// The command itself goes to the printer.
    pub(super) fn asks(&self) {
        self.asked.set(true);
    }

    /// Whether it has gone.
    pub fn has_asked(&self) -> bool {
        self.asked.get()
    }

    /// The printer has begun the transfer, of `size` bytes if that is known.
    pub(super) fn opens(&self, now: Instant, size: Option<u64>) {
        self.opened.set(true);
        self.began.set(now);
        self.said.set(now);
        self.size.set(size.filter(|size| *size > 0));
        let Some((job, transfer)) = self.transfer() else { return };
        self.with_argument(|name| {
            let (peer, doing) = (job.peer, transfer.doing());
            match self.size.get() {
                Some(size) => log::info!("{peer}: {doing} \"{}\", {size} bytes", Shown(name)),
                None => log::info!("{peer}: {doing} \"{}\"", Shown(name)),
            }
        });
    }

    /// Whether the printer has begun the transfer.
    pub fn has_opened(&self) -> bool {
        self.opened.get()
    }

    fn transfer(&self) -> Option<(Job, Transfer)> {
        let job = self.job.get()?;
        Some((job, job.command_kind.transfer()?))
    }

    /// `bytes` more have been moved; each tenth is said where the size is known, once a second at most.
    pub fn progresses(&self, now: Instant, bytes: usize) {
        let moved = self.moved.get().saturating_add(bytes as u64);
        self.moved.set(moved);
        let Some(size) = self.size.get() else { return };
        let tenths = moved.saturating_mul(10) / size;
        let too_soon = now.since(self.said.get()) < SAY_EVERY;
        if tenths <= self.tenths.get() || tenths >= 10 || too_soon {
            return;
        }
        self.tenths.set(tenths);
        self.said.set(now);
        let Some((job, transfer)) = self.transfer() else { return };
        let (peer, doing) = (job.peer, transfer.doing());
        let pace = Pace { bytes: moved, within: now.since(self.began.get()) };
        self.with_argument(|name| {
            log::info!("{peer}: {doing} \"{}\": {}0 %, {pace}", Shown(name), tenths);
        });
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.moved.get()
    }

    /// The job is done; a transfer that was begun is said to have worked, or why not.
    pub(super) fn end(&self, now: Instant, how: Result<(), fmt::Arguments<'_>>) {
        if let Some((job, transfer)) = self.transfer() {
            let (peer, doing) = (job.peer, transfer.doing());
            let pace = Pace { bytes: self.moved.get(), within: now.since(self.began.get()) };
            self.with_argument(|name| {
                let name = Shown(name);
                match how {
                    Err(why) if !self.opened.get() => journal::note(
                        Kind::TransferFailed,
                        format_args!("{peer}: {doing} \"{name}\": not begun: {why}"),
                    ),
                    Ok(()) => journal::note(
                        Kind::Transferred,
                        format_args!("{peer}: {doing} \"{name}\": done, {pace}"),
                    ),
                    Err(why) => journal::note(
                        Kind::TransferFailed,
                        format_args!("{peer}: {doing} \"{name}\": failed, {pace}: {why}"),
                    ),
                }
            });
        }
        self.opened.set(false);
        self.asked.set(false);
        self.job.set(None);
        if self.standing.get() == SlotState::Busy {
            self.standing.set(SlotState::Idle);
        }
    }

    /// The client's line.
    pub(super) fn with_line<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(&self.line.borrow())
    }

    /// What the client's command is about.
    pub(super) fn with_argument<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(self.line.borrow().get(self.argument_at.get()..).unwrap_or_default())
    }

    /// The argument as a hash.
    pub(super) fn argument_hash(&self) -> u64 {
        self.with_argument(hash)
    }

    /// Gives the mover an order. A new one takes the place of one that was not taken.
    pub(super) fn tell(&self, order: Order) {
        self.news.set(None);
        self.order.set(Some(order));
        self.mover_notify.notify();
    }

    /// The mover takes its order, when there is one.
    pub async fn order(&self) -> Order {
        loop {
            if let Some(order) = self.order.take() {
                return order;
            }
            self.mover_notify.notified().await;
        }
    }

    /// Completes when the mover has to let go of what it is at; the order stays where it is.
    pub async fn interrupted(&self) {
        loop {
            if let Some(order) = self.order.take() {
                self.order.set(Some(order));
                return;
            }
            self.mover_notify.notified().await;
        }
    }

    /// The mover has something to say.
    pub fn report(&self, news: News) {
        self.news.set(Some(news));
        self.notify.notify();
    }

    /// What the mover had to say.
    pub(super) fn news(&self) -> Option<News> {
        self.news.take()
    }

    /// Rings the bells of whoever keeps this session, and of the session itself.
    pub fn notify(&self) {
        self.notify.notify();
        self.keeper_notify.notify();
    }

    /// Completes when there is something for the session.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Completes when a session may be wanted.
    pub async fn keeper_rung(&self) {
        self.keeper_notify.notified().await;
    }
}

/// So many bytes in so much time.
struct Pace {
    bytes: u64,
    within: Duration,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.within.as_millis().max(1);
        let tenths = millis / 100;
        write!(f, "{} bytes in {}.{} s", self.bytes, tenths / 10, tenths % 10)?;
        // kB/s are bytes a millisecond.
        let kilo = u128::from(self.bytes) / millis;
        if kilo >= 10_000 {
            write!(f, " ({}.{} MB/s)", kilo / 1000, kilo / 100 % 10)
        } else {
            write!(f, " ({kilo} kB/s)")
        }
    }
}

/// A hash that tells names apart (FNV-1a); nobody gains by a collision but a wrong percentage.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_pace_is_said_in_the_unit_that_suits_it() {
        let pace = |bytes, millis| Pace { bytes, within: Duration::from_millis(millis) };
        assert_eq!(format!("{}", pace(1_000_000, 13_333)), "1000000 bytes in 13.3 s (75 kB/s)");
        assert_eq!(
            format!("{}", pace(100_000_000, 1_000)),
            "100000000 bytes in 1.0 s (100.0 MB/s)"
        );
        assert_eq!(format!("{}", pace(0, 0)), "0 bytes in 0.0 s (0 kB/s)");
    }

    #[test]
    fn a_new_order_takes_the_place_of_one_that_was_not_taken_and_old_news_are_forgotten() {
        let printer_session = PrinterSession::new(0);
        printer_session.tell(Order::Connect { port: 1 });
        printer_session.report(News::Connected);
        printer_session.tell(Order::Drop);
        assert_eq!(printer_session.order.take(), Some(Order::Drop));
        assert_eq!(printer_session.news(), None);
    }
}
