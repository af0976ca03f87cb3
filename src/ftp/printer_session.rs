//! One of the printer's sessions, as the hub, its upstream and its data task share it.
//!
//! ```text
//!            job                         data command: connect, copy, close
//!   hub ───────────► printer session ◄── upstream ────────────────────────────► data task
//!                                          ▲                                        │
//!                                          └── data event: connected, copied … ─────┘
//! ```
//!
//! The data task belongs to the runtime and knows sockets
//! ([`DataTask`](crate::runtime::files::transfer::DataTask)). The session knows whose data are copied and how far the
//! transfer is, and logs it.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use super::slot::{CommandKind, Prot, Transfer};
use super::wire::LINE;
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::notify::Notify;
use crate::peer::Peer;

/// How a session with the printer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// There is no connection.
    Off,
    /// The connection is being made.
    Dialling,
    /// The session is connected and has no job.
    Idle,
    /// The session carries out a [`Job`].
    Busy,
}

/// A client's command, as one of the printer's sessions carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Index of the client's slot.
    pub slot: usize,
    /// The command's number, which tells it from the next command in that slot.
    pub number: u32,
    /// What kind of command it is.
    pub command_kind: CommandKind,
    /// The client, for the log.
    pub peer: Peer,
}

/// Least time between two log lines about a transfer's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What the data task has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCommand {
    /// Connect to this port of the printer.
    Connect {
        /// The port.
        port: u16,
    },
    /// DataCopy data between that connection and the one of a client.
    Copy(DataCopy),
    /// Reset both connections, so that neither end takes a part of the data for the whole.
    Close,
}

/// The two ends of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataCopy {
    /// The client's slot.
    pub slot: usize,
    /// Whether data go to the printer; else they come from it.
    pub upload: bool,
    /// Whether both connections use TLS.
    pub prot: Prot,
}

/// What the data task reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// The connection to the printer's data port is made.
    Connected,
    /// The printer's data port does not answer.
    Unreachable,
    /// All data have been copied, and the receiver's connection was ended in order.
    Copied,
    /// Not all data were copied.
    Failed(TransferError),
}

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// The client disconnected, its data connection was lost, or it sent ABOR.
    Client,
    /// The TLS handshake on the client's data connection failed.
    ClientTls,
    /// The printer's data connection was lost.
    Printer,
    /// The TLS handshake on the printer's data connection failed.
    PrinterTls,
    /// Nothing was moved for 60 s.
    Stalled,
    /// Less than 1 kB/s for two minutes, while an upload waited.
    TooSlow,
}

#[cfg(test)]
impl TransferError {
    pub(super) const ALL: [Self; 6] = [
        Self::Client,
        Self::ClientTls,
        Self::Printer,
        Self::PrinterTls,
        Self::Stalled,
        Self::TooSlow,
    ];
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client disconnected or aborted",
            Self::ClientTls => "TLS handshake with the client failed",
            Self::Printer => "the printer's data connection was lost",
            Self::PrinterTls => "TLS handshake with the printer failed",
            Self::Stalled => "no data for 60 s",
            Self::TooSlow => "below 1 kB/s for 2 minutes while an upload waited",
        })
    }
}

/// One of the printer's sessions.
pub struct PrinterSession {
    index: usize,
    state: Cell<SlotState>,
    job: Cell<Option<Job>>,
    /// The client's line: a copy, since the slot may be freed before the job ends.
    line: RefCell<heapless::Vec<u8, LINE>>,
    argument_at: Cell<usize>,
    /// Whether the client's line has been sent to the printer.
    sent: Cell<bool>,
    /// Whether the printer has begun the transfer.
    started: Cell<bool>,
    began: Cell<Instant>,
    moved: Cell<u64>,
    size: Cell<Option<u64>>,
    tenths: Cell<u64>,
    logged_at: Cell<Instant>,
    command: Cell<Option<DataCommand>>,
    event: Cell<Option<DataEvent>>,
    notify: Notify,
    data_notify: Notify,
    keeper_notify: Notify,
}

impl PrinterSession {
    pub(super) fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            state: Cell::new(SlotState::Off),
            job: Cell::new(None),
            line: RefCell::new(heapless::Vec::new()),
            argument_at: Cell::new(0),
            sent: Cell::new(false),
            started: Cell::new(false),
            began: Cell::new(Instant::START),
            moved: Cell::new(0),
            size: Cell::new(None),
            tenths: Cell::new(0),
            logged_at: Cell::new(Instant::START),
            command: Cell::new(None),
            event: Cell::new(None),
            notify: Notify::default(),
            data_notify: Notify::default(),
            keeper_notify: Notify::default(),
        })
    }

    /// Its index, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its state.
    pub fn state(&self) -> SlotState {
        self.state.get()
    }

    /// Whether it is connected.
    pub fn is_live(&self) -> bool {
        matches!(self.state.get(), SlotState::Idle | SlotState::Busy)
    }

    /// The connection is being made.
    pub fn set_dialling(&self) {
        self.state.set(SlotState::Dialling);
    }

    /// The session is connected and has no job.
    pub(super) fn set_idle(&self) {
        self.state.set(SlotState::Idle);
    }

    /// The session has ended: its job and its data connections end with it.
    pub(super) fn set_off(&self) {
        self.state.set(SlotState::Off);
        self.job.set(None);
        self.send_command(DataCommand::Close);
    }

    /// Its job.
    pub fn job(&self) -> Option<Job> {
        self.job.get()
    }

    /// Begins a job.
    pub(super) fn begin(&self, now: Instant, job: Job, line: &[u8], argument_at: usize) {
        let mut kept = self.line.borrow_mut();
        kept.clear();
        // Cannot fail: both hold the longest line.
        let _fits = kept.extend_from_slice(line);
        drop(kept);
        self.argument_at.set(argument_at);
        self.sent.set(false);
        self.started.set(false);
        self.began.set(now);
        self.moved.set(0);
        self.size.set(None);
        self.tenths.set(0);
        self.job.set(Some(job));
        self.state.set(SlotState::Busy);
    }

    /// The client's line is being sent to the printer.
    pub(super) fn set_sent(&self) {
        self.sent.set(true);
    }

    /// Whether the client's line has been sent to the printer.
    pub fn has_sent(&self) -> bool {
        self.sent.get()
    }

    /// The printer has begun the transfer, of `size` bytes if that is known.
    pub(super) fn set_started(&self, now: Instant, size: Option<u64>) {
        self.started.set(true);
        self.began.set(now);
        self.logged_at.set(now);
        self.size.set(size.filter(|size| *size > 0));
        let Some((job, transfer)) = self.transfer() else { return };
        self.with_argument(|name| {
            let (peer, name) = (job.peer, transfer.of(name));
            match self.size.get() {
                Some(size) => log::info!("{peer}: {name}: started, {size} bytes"),
                None => log::info!("{peer}: {name}: started"),
            }
        });
    }

    /// Whether the printer has begun the transfer.
    pub fn has_started(&self) -> bool {
        self.started.get()
    }

    fn transfer(&self) -> Option<(Job, Transfer)> {
        let job = self.job.get()?;
        Some((job, job.command_kind.transfer()?))
    }

    /// `bytes` more have been copied. If the size is known each tenth of it is logged, at most once per second.
    pub fn add_progress(&self, now: Instant, bytes: usize) {
        let moved = self.moved.get().saturating_add(bytes as u64);
        self.moved.set(moved);
        let Some(size) = self.size.get() else { return };
        let tenths = moved.saturating_mul(10) / size;
        let too_soon = now.since(self.logged_at.get()) < PROGRESS_INTERVAL;
        if tenths <= self.tenths.get() || tenths >= 10 || too_soon {
            return;
        }
        self.tenths.set(tenths);
        self.logged_at.set(now);
        let Some((job, transfer)) = self.transfer() else { return };
        let peer = job.peer;
        let pace = Pace { bytes: moved, within: now.since(self.began.get()) };
        self.with_argument(|name| log::info!("{peer}: {}: {tenths}0 %, {pace}", transfer.of(name)));
    }

    /// When the job or its transfer began.
    pub fn began(&self) -> Instant {
        self.began.get()
    }

    /// Bytes copied so far.
    pub fn bytes(&self) -> u64 {
        self.moved.get()
    }

    /// Bytes of the whole transfer, if they are known.
    pub fn size(&self) -> Option<u64> {
        self.size.get()
    }

    /// Ends the job and logs the outcome of a transfer.
    pub(super) fn end(&self, now: Instant, result: Result<(), fmt::Arguments<'_>>) {
        if let Some((job, transfer)) = self.transfer() {
            let peer = job.peer;
            let pace = Pace { bytes: self.moved.get(), within: now.since(self.began.get()) };
            self.with_argument(|name| {
                let name = transfer.of(name);
                match result {
                    Err(why) if !self.started.get() => journal::note(
                        Kind::TransferFailed,
                        format_args!("{peer}: {name}: refused: {why}"),
                    ),
                    Ok(()) => journal::note(
                        Kind::Transferred,
                        format_args!("{peer}: {name}: done, {pace}"),
                    ),
                    Err(why) => journal::note(
                        Kind::TransferFailed,
                        format_args!("{peer}: {name}: failed: {why}; {pace}"),
                    ),
                }
            });
        }
        self.started.set(false);
        self.sent.set(false);
        self.job.set(None);
        if self.state.get() == SlotState::Busy {
            self.state.set(SlotState::Idle);
        }
    }

    /// The client's line.
    pub(super) fn with_line<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(&self.line.borrow())
    }

    /// The argument of the client's command.
    pub(super) fn with_argument<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(self.line.borrow().get(self.argument_at.get()..).unwrap_or_default())
    }

    /// The argument as a hash.
    pub(super) fn argument_hash(&self) -> u64 {
        self.with_argument(hash)
    }

    /// Gives the data task a command; it replaces one that was not taken, and discards the last event.
    pub(super) fn send_command(&self, command: DataCommand) {
        self.event.set(None);
        self.command.set(Some(command));
        self.data_notify.notify();
    }

    /// The data task's next command.
    pub async fn next_command(&self) -> DataCommand {
        loop {
            if let Some(command) = self.command.take() {
                return command;
            }
            self.data_notify.notified().await;
        }
    }

    /// Completes when there is another command for the data task; does not take it.
    pub async fn interrupted(&self) {
        loop {
            if let Some(command) = self.command.take() {
                self.command.set(Some(command));
                return;
            }
            self.data_notify.notified().await;
        }
    }

    /// The data task reports an event.
    pub fn report(&self, event: DataEvent) {
        self.event.set(Some(event));
        self.notify.notify();
    }

    /// The data task's last event.
    pub(super) fn take_event(&self) -> Option<DataEvent> {
        self.event.take()
    }

    /// Wakes the session and the task that keeps it connected.
    pub fn notify(&self) {
        self.notify.notify();
        self.keeper_notify.notify();
    }

    /// Completes when the session was woken.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Completes when the task that keeps the session connected was woken.
    pub async fn keeper_notified(&self) {
        self.keeper_notify.notified().await;
    }
}

/// Bytes, time and rate of a transfer, for the log.
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

/// FNV-1a, to compare file names. A collision only makes a logged percentage wrong.
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
    fn rates_are_shown_in_kilobytes_or_megabytes() {
        let pace = |bytes, millis| Pace { bytes, within: Duration::from_millis(millis) };
        assert_eq!(format!("{}", pace(1_000_000, 13_333)), "1000000 bytes in 13.3 s (75 kB/s)");
        assert_eq!(
            format!("{}", pace(100_000_000, 1_000)),
            "100000000 bytes in 1.0 s (100.0 MB/s)"
        );
        assert_eq!(format!("{}", pace(0, 0)), "0 bytes in 0.0 s (0 kB/s)");
    }

    #[test]
    fn a_new_data_command_replaces_the_last_and_its_event() {
        let printer_session = PrinterSession::new(0);
        printer_session.send_command(DataCommand::Connect { port: 1 });
        printer_session.report(DataEvent::Connected);
        printer_session.send_command(DataCommand::Close);
        assert_eq!(printer_session.command.take(), Some(DataCommand::Close));
        assert_eq!(printer_session.take_event(), None);
    }
}
