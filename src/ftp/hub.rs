//! What FTP clients share: the printer's sessions, and the order in which commands get one.
//!
//! A printer has one FTP session, or two. No client holds one: each command that needs the printer waits in a queue,
//! gets a session for as long as it lasts, and gives the session back. What a client has set (directory, type,
//! protection, restart offset) is kept in its [`Slot`], and the session is set accordingly before each command. A client
//! that browses and then is idle for an hour delays no other client.
//!
//! # Order
//!
//! Uploads go first; among equals the older command goes first. An uninterrupted stream of uploads would delay listings;
//! a command that has waited for [`QUEUE_TIMEOUT`] is refused. Two uploads never run at the same time, even if the
//! printer has two sessions: printers mix them up ([protocol](crate::protocol#ftps)). A transfer that is very slow is
//! aborted while an upload waits ([`upstream`](super::upstream)).
//!
//! # Events
//!
//! The upstream reports what it learns from the printer as [`Event`]s; only `Hub::apply` changes slots accordingly.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | clients | [`CLIENTS`], and pre-auth connections | 421 |
//! | waiting commands | one per client | further lines of the client are not read |
//! | time in the queue | [`QUEUE_TIMEOUT`] | 451 |
//! | replies that a client has not taken | [`OUT`](super::slot::OUT) bytes | its printer session is not read |
//! | a directory's path | [`PATH`](super::PATH) bytes | 550 |

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use super::CLIENTS;
use super::event::Event;
use super::printer_session::{Job, PrinterSession, SlotState as SessionState};
use super::slot::{CommandKind, PASSIVE_PORT_TIMEOUT, PassivePort, Slot, Stage, Task};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::slots::{Slot as _, SlotGuard, Slots};
use crate::peer::Peer;
use crate::service::{Awaited, Connection, Transfer as Shown, Visitor, Waiting};

/// Time that a command waits for one of the printer's sessions.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Time after which a second session is tried again when the printer refused it.
const SECOND_SESSION_RETRY_INTERVAL: Duration = Duration::from_secs(300);

/// Bytes kept of the reason why the printer is unreachable.
const REASON: usize = 200;

/// What all clients share.
pub struct Hub {
    slots: Slots<Slot>,
    printer_sessions: Box<[Rc<PrinterSession>]>,
    numbers: Cell<u32>,
    leaving: Cell<bool>,
    /// Whether EPSV is used: true until the printer refuses it.
    extended: Cell<bool>,
    /// Why the printer is unreachable, and when it is tried again.
    away: RefCell<Option<(heapless::String<REASON>, Instant)>>,
    /// Time until which only one session is used.
    alone: Cell<Option<Instant>>,
}

impl Hub {
    /// A hub for `slots` connections, and as many sessions of the printer's as `sessions`.
    pub fn new(slots: usize, sessions: usize) -> Self {
        Self {
            slots: Slots::new(slots, Slot::new),
            printer_sessions: (0..sessions.max(1)).map(PrinterSession::new).collect(),
            numbers: Cell::new(0),
            leaving: Cell::new(false),
            extended: Cell::new(true),
            away: RefCell::new(None),
            alone: Cell::new(None),
        }
    }

    /// A slot for a connection before its login. `None`: all are taken.
    pub fn pending(&self, peer: Peer) -> Option<SlotGuard<Slot>> {
        let slot = self.slots.take()?;
        slot.peer.set(Some(peer));
        Some(slot)
    }

    /// Makes a connection that showed the right code a client. `false`: there are [`CLIENTS`] already.
    pub fn admit(&self, slot: &Slot) -> bool {
        if self.clients() >= CLIENTS {
            return false;
        }
        slot.occupancy().activate();
        true
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.slots.active()
    }

    /// Connections that are being served.
    pub fn connections(&self) -> usize {
        self.slots.connections()
    }

    /// Shows the clients and their transfers.
    pub fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, slot, occupant) in self.slots.occupants() {
            visitor.connection(&Connection { index, occupant, id: "", lost: 0 });
            let Some(task) = slot.task() else { continue };
            let wait = self.waiting(slot, task);
            let transfer = task.command_kind.transfer();
            if transfer.is_none() && wait.is_none() {
                // A command is over at once where it need not wait.
                continue;
            }
            let moving = self.printer_sessions.iter().find(|session| {
                let job = session.job();
                session.has_started()
                    && job.is_some_and(|job| (job.slot, job.number) == (index, task.number))
            });
            let mut show = |name: &[u8]| {
                visitor.transfer(&Shown {
                    index,
                    client: occupant.peer.number,
                    kind: task.command_kind.word(),
                    name: core::str::from_utf8(name).unwrap_or_default(),
                    bytes: moving.map_or(0, |session| session.bytes()),
                    size: moving.and_then(|session| session.size()),
                    is_moving: moving.is_some(),
                    since: match (moving, task.stage) {
                        (Some(session), _) => Some(session.began()),
                        (None, Stage::Queued { until }) => {
                            Some(Instant::at(until.elapsed().saturating_sub(QUEUE_TIMEOUT)))
                        }
                        (None, Stage::Connecting { .. } | Stage::Running { .. }) => None,
                    },
                    wait,
                });
            };
            match transfer {
                Some(_) => slot.with_argument(show),
                None => show(&slot.line.borrow()),
            }
        }
    }

    /// What a client's command waits for.
    fn waiting(&self, slot: &Slot, task: Task) -> Option<Waiting> {
        let (position, waits_for) = match task.stage {
            Stage::Connecting { .. } => (None, Awaited::DataConnection),
            Stage::Running { .. } => return None,
            Stage::Queued { .. } => match self.wait_of(slot) {
                None => (Some(1), Awaited::Printer),
                Some(Wait { before, job: None }) => (Some(before + 1), Awaited::Printer),
                Some(Wait { before, job: Some(Job { peer, command_kind, .. }) }) => {
                    let (what, client) = (command_kind.word(), peer.number);
                    (Some(before + 1), Awaited::Client { what, client })
                }
            },
        };
        Some(Waiting { position, waits_for })
    }

    /// Commands in the queue.
    pub fn queued(&self) -> usize {
        let tasks = self.slots.iter().filter_map(|slot| slot.task());
        tasks.filter(|task| matches!(task.stage, Stage::Queued { .. })).count()
    }

    /// Disconnects every client.
    pub fn dismiss_all(&self) {
        for slot in self.slots.iter() {
            slot.occupancy().dismiss(());
        }
    }

    /// Ends the sessions with the printer; no other is begun.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.printer_sessions.iter().for_each(|printer_session| printer_session.notify());
    }

    /// Whether the sessions with the printer are to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The sessions with the printer.
    pub fn printer_sessions(&self) -> &[Rc<PrinterSession>] {
        &self.printer_sessions
    }

    /// One of them.
    pub fn printer_session(&self, index: usize) -> Option<&Rc<PrinterSession>> {
        self.printer_sessions.get(index)
    }

    /// One of the slots.
    pub fn slot(&self, index: usize) -> Option<&Rc<Slot>> {
        self.slots.get(index)
    }

    /// Whether EPSV is used: true until the printer refuses it.
    pub fn is_extended(&self) -> bool {
        self.extended.get()
    }

    /// PASV is used from now on, since the printer does not know EPSV.
    pub(super) fn set_not_extended(&self) {
        self.extended.set(false);
    }

    /// Queues a client's command that needs the printer, or refuses it.
    pub fn submit(
        &self,
        now: Instant,
        slot: &Slot,
        command_kind: CommandKind,
        line: &[u8],
        argument_at: usize,
    ) {
        let stage = match (command_kind, slot.passive_port()) {
            (CommandKind::Transfer(_), PassivePort::Closed) => {
                slot.reply(format_args!("425 Use PASV or EPSV first"));
                return;
            }
            (CommandKind::Transfer(_), PassivePort::Open { until }) => Stage::Connecting { until },
            (_, _) => Stage::Queued { until: now + QUEUE_TIMEOUT },
        };
        let mut kept = slot.line.borrow_mut();
        kept.clear();
        // Cannot fail: a longer line is not a command.
        let _fits = kept.extend_from_slice(line);
        drop(kept);
        slot.argument_at.set(argument_at);
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        slot.task.set(Some(Task { number, command_kind, stage, tried: false }));
        self.serve_queue(now);
        self.log_wait(slot);
    }

    /// The client has connected to its data port.
    pub fn connected(&self, now: Instant, slot: &Slot) {
        if slot.passive_port() == PassivePort::Closed {
            return;
        }
        slot.passive_port.set(PassivePort::Connected { until: now + PASSIVE_PORT_TIMEOUT });
        let mut is_queued = false;
        if let Some(task @ Task { stage: Stage::Connecting { .. }, .. }) = slot.task() {
            let stage = Stage::Queued { until: now + QUEUE_TIMEOUT };
            slot.task.set(Some(Task { stage, ..task }));
            is_queued = true;
        }
        self.serve_queue(now);
        if is_queued {
            self.log_wait(slot);
        }
        slot.notify();
    }

    /// What a queued command waits for. `None`: it is not queued, or a session is free or being made.
    pub fn wait_of(&self, slot: &Slot) -> Option<Wait> {
        let Task { number, command_kind, stage: Stage::Queued { .. }, .. } = slot.task()? else {
            return None;
        };
        let is_before = |other: &Slot| {
            other.task().is_some_and(|task| {
                matches!(task.stage, Stage::Queued { .. })
                    && (!task.command_kind.is_upload(), task.number)
                        < (!command_kind.is_upload(), number)
            })
        };
        let before = self.slots.iter().filter(|other| is_before(other)).count();
        let can_take =
            |session: &&Rc<PrinterSession>| !session.is_live() || session.job().is_none();
        let is_second_upload = command_kind.is_upload() && self.uploading().is_some();
        if before == 0
            && !is_second_upload
            && self.printer_sessions.iter().any(|one| can_take(&one))
        {
            return None;
        }
        let job = self
            .uploading()
            .or_else(|| self.printer_sessions.iter().find_map(|session| session.job()));
        Some(Wait { before, job })
    }

    /// The job of the session that uploads.
    fn uploading(&self) -> Option<Job> {
        let jobs = self.printer_sessions.iter().filter_map(|session| session.job());
        jobs.into_iter().find(|job| job.command_kind.is_upload())
    }

    /// Logs that a transfer has to wait, and for what.
    fn log_wait(&self, slot: &Slot) {
        let Some(peer) = slot.peer() else { return };
        let Some(transfer) = slot.task().and_then(|task| task.command_kind.transfer()) else {
            return;
        };
        if let Some(wait) = self.wait_of(slot) {
            slot.with_argument(|name| log::info!("{peer}: {}: {wait}", transfer.of(name)));
        }
    }

    /// Whether an upload waits for a session.
    pub(super) fn has_waiting_upload(&self) -> bool {
        self.slots
            .iter()
            .filter_map(|slot| slot.task())
            .any(|task| task.command_kind.is_upload() && matches!(task.stage, Stage::Queued { .. }))
    }

    /// Refuses queued commands if the printer is unreachable, else wakes the sessions that may take them.
    fn serve_queue(&self, now: Instant) {
        self.refuse_queued(now);
        self.printer_sessions.iter().for_each(|printer_session| printer_session.notify());
    }

    /// Refuses queued commands if the printer was found unreachable just now. The reply is 451: libcurl takes a 450
    /// to LIST for an empty directory.
    fn refuse_queued(&self, now: Instant) {
        let away = self.away.borrow();
        let Some((reason, _)) = away.as_ref().filter(|(_, until)| now < *until) else { return };
        if self.printer_sessions.iter().any(|printer_session| printer_session.is_live()) {
            return;
        }
        for slot in self.slots.iter() {
            if let Some(Task { number, stage: Stage::Queued { .. }, .. }) = slot.task() {
                self.refuse(slot, number, format_args!("{reason}"));
            }
        }
    }

    /// Refuses a queued command with 451 and logs a refused transfer.
    pub(super) fn refuse(&self, slot: &Slot, number: u32, reason: fmt::Arguments<'_>) {
        let Some(task) = slot.task().filter(|task| task.number == number) else { return };
        if let (Some(peer), Some(transfer)) = (slot.peer(), task.command_kind.transfer()) {
            slot.with_argument(|name| {
                journal::note(
                    Kind::TransferFailed,
                    format_args!(
                        "{peer}: {}: refused: {}",
                        transfer.of(name),
                        Uncapitalised(reason)
                    ),
                );
            });
        }
        slot.reply(format_args!("451 {reason}"));
        self.settle(slot, task);
    }

    /// Whether a session should be made for `printer_session` now.
    pub fn is_wanted(&self, now: Instant, printer_session: usize) -> bool {
        let away = self.away.borrow().as_ref().is_some_and(|(_, until)| now < *until);
        let alone = self.alone.get().is_some_and(|until| now < until);
        let others =
            || self.printer_sessions.iter().filter(|other| other.index() != printer_session);
        let any_live = others().any(|other| other.is_live());
        let ready = others()
            .any(|other| matches!(other.state(), SessionState::Idle | SessionState::Dialling));
        !(ready || (alone && any_live) || (away && !any_live))
            && self.next(printer_session).is_some()
    }

    /// The command that gets the session of `printer_session` next.
    fn next(&self, printer_session: usize) -> Option<(&Rc<Slot>, Task)> {
        let uploads = self.printer_sessions.iter().any(|other| {
            other.index() != printer_session
                && other.job().is_some_and(|job| job.command_kind.is_upload())
        });
        self.slots
            .iter()
            .filter_map(|slot| Some((slot, slot.task()?)))
            .filter(|(_, task)| matches!(task.stage, Stage::Queued { .. }))
            .filter(|(_, task)| !(uploads && task.command_kind.is_upload()))
            .min_by_key(|(_, task)| (!task.command_kind.is_upload(), task.number))
    }

    /// Gives the session of `printer_session` to the next command in the queue. Whether there is one.
    pub(super) fn assign(&self, now: Instant, printer_session: &PrinterSession) -> bool {
        let Some((slot, task)) = self.next(printer_session.index()) else { return false };
        let Some(peer) = slot.peer() else { return false };
        let stage = Stage::Running { printer_session: printer_session.index() };
        slot.task.set(Some(Task { stage, ..task }));
        let job =
            Job { slot: slot.index, number: task.number, command_kind: task.command_kind, peer };
        printer_session.begin(now, job, &slot.line.borrow(), slot.argument_at.get());
        // The command behind this one may have been left to this session, and may go to another one now.
        let others =
            self.printer_sessions.iter().filter(|other| other.index() != printer_session.index());
        others.for_each(|other| other.notify());
        true
    }

    /// The slot whose command `job` carries out. `None`: its client has disconnected or gave the command up.
    pub(super) fn client_of(&self, job: &Job) -> Option<&Rc<Slot>> {
        self.slots
            .get(job.slot)
            .filter(|slot| slot.task().is_some_and(|task| task.number == job.number))
    }

    /// Whether the slot of `job` has room for one more line. If the client has disconnected, its replies are dropped.
    pub(super) fn has_room(&self, job: &Job) -> bool {
        self.client_of(job).is_none_or(|slot| slot.has_room())
    }

    /// Applies what the upstream learned about `job` to its client's slot. If the client has disconnected or gave the command
    /// up, nothing changes.
    pub(super) fn apply(&self, job: &Job, event: Event<'_>) {
        let Some(slot) = self.client_of(job) else { return };
        match event {
            Event::Line(line) => slot.forward(line),
            Event::Reply(line) => {
                slot.forward(line);
                self.settle_task(slot);
            }
            Event::Answer(reply) => {
                slot.reply(reply);
                self.settle_task(slot);
            }
            Event::Directory(path) => {
                let mut directory = slot.directory.borrow_mut();
                directory.clear();
                // Cannot fail: the upstream keeps paths of the same length.
                let _fits = directory.extend_from_slice(path);
            }
            Event::RestartOffset(offset) => slot.restart.set(offset),
            Event::Renaming(line) => {
                let mut renaming = slot.renaming.borrow_mut();
                renaming.clear();
                // Cannot fail: it is as long as the longest line.
                let _fits = renaming.extend_from_slice(line);
            }
            Event::Size { name, size } => slot.sized.set(size.map(|size| (name, size))),
            Event::Announced(size) => slot.announced.set(size),
        }
    }

    fn settle_task(&self, slot: &Slot) {
        if let Some(task) = slot.task() {
            self.settle(slot, task);
        }
    }

    /// Finishes a client's command without the printer.
    pub fn conclude(&self, slot: &Slot, number: u32, line: fmt::Arguments<'_>) {
        if let Some(task) = slot.task().filter(|task| task.number == number) {
            slot.reply(line);
            self.settle(slot, task);
        }
    }

    /// A client's command is finished; its reply, if there is one, has woken the client's session. A data connection over which nothing was moved stays open until it is replaced
    /// or times out: curl starts TLS on it as soon as its command is sent, and would report that failure instead of
    /// reading the reply.
    fn settle(&self, slot: &Slot, task: Task) {
        slot.task.set(None);
        slot.tear_if_mid_reply();
        if task.command_kind.transfer().is_some() {
            slot.restart.set(None);
            slot.announced.set(None);
            if self.has_started(task) {
                slot.close_passive_port();
            }
        }
    }

    /// Whether the printer has begun the transfer of a command.
    fn has_started(&self, task: Task) -> bool {
        match task.stage {
            Stage::Running { printer_session } => self
                .printer_sessions
                .get(printer_session)
                .is_some_and(|printer_session| printer_session.has_started()),
            Stage::Connecting { .. } | Stage::Queued { .. } => false,
        }
    }

    /// Gives a client's command up. Whether there was one.
    pub fn drop_task(&self, slot: &Slot) -> bool {
        let Some(task) = slot.task() else { return false };
        self.settle(slot, task);
        if task.command_kind.transfer().is_some() {
            slot.close_passive_port();
        }
        if let Stage::Running { printer_session } = task.stage
            && let Some(printer_session) = self.printer_sessions.get(printer_session)
        {
            printer_session.notify();
        }
        true
    }

    /// The client has taken its replies: its printer session may be read again.
    pub fn drained(&self, slot: &Slot) {
        if let Some(Task { stage: Stage::Running { printer_session }, .. }) = slot.task()
            && let Some(printer_session) = self.printer_sessions.get(printer_session)
        {
            printer_session.notify();
        }
    }

    /// A session is logged in.
    pub(super) fn set_reachable(&self) {
        *self.away.borrow_mut() = None;
    }

    /// The session of `printer_session` ended, or could not begin, because of `why`. The next is tried after `wait` at
    /// the earliest.
    pub fn lost(
        &self,
        now: Instant,
        printer_session: usize,
        why: &dyn fmt::Display,
        wait: Duration,
    ) {
        let Some(printer_session) = self.printer_sessions.get(printer_session) else { return };
        let was_live = printer_session.is_live();
        self.give_back(now, printer_session, why);
        printer_session.set_off();
        if !was_live {
            if self.printer_sessions.iter().any(|printer_session| printer_session.is_live()) {
                self.alone.set(Some(now + SECOND_SESSION_RETRY_INTERVAL));
            } else {
                let mut reason = heapless::String::new();
                // A longer reason is cut; the log has all of it.
                let _fits = write!(Sentence(&mut reason, true), "{why}");
                *self.away.borrow_mut() = Some((reason, now + wait));
            }
        }
        self.serve_queue(now);
    }

    /// Answers the client whose command the lost session carried out, or queues the command again if it had not been
    /// sent to the printer.
    fn give_back(&self, now: Instant, printer_session: &PrinterSession, why: &dyn fmt::Display) {
        let Some(job) = printer_session.job() else { return };
        if let Some(slot) = self.client_of(&job)
            && let Some(task) = slot.task()
        {
            if !printer_session.has_sent() && !task.tried {
                // The session had been closed by the printer while it was idle.
                let stage = Stage::Queued { until: now + QUEUE_TIMEOUT };
                slot.task.set(Some(Task { stage, tried: true, ..task }));
                slot.notify();
            } else if printer_session.has_started() {
                slot.reply(format_args!("426 The printer's connection was lost: {why}"));
                self.settle(slot, task);
            } else {
                slot.reply(format_args!("451 The printer's connection was lost: {why}"));
                self.settle(slot, task);
            }
        }
        printer_session.end(now, Err(format_args!("{why}")));
    }
}

/// What a queued command waits for: log line and reply to STAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Commands that are before it in the queue.
    pub before: usize,
    /// What the printer's session does now.
    pub job: Option<Job>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("waiting for the printer's FTP session")?;
        if let Some(Job { peer, command_kind, .. }) = self.job {
            let doing = command_kind.word();
            write!(
                f,
                ", used by {peer} for {} {doing}",
                if doing == "upload" { "an" } else { "a" }
            )?;
        }
        match self.before {
            0 => Ok(()),
            before => write!(f, "; {before} before it in the queue"),
        }
    }
}

/// Text for the log: without the capital letter that a reply begins with.
struct Uncapitalised<'a>(fmt::Arguments<'a>);

impl fmt::Display for Uncapitalised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct First<'a, 'f>(&'a mut fmt::Formatter<'f>, bool);
        impl Write for First<'_, '_> {
            fn write_str(&mut self, piece: &str) -> fmt::Result {
                let mut chars = piece.chars();
                match chars.next() {
                    Some(first) if core::mem::take(&mut self.1) => {
                        self.0.write_char(first.to_ascii_lowercase())?;
                        self.0.write_str(chars.as_str())
                    }
                    _ => self.0.write_str(piece),
                }
            }
        }
        First(f, true).write_fmt(self.0)
    }
}

/// A reply's text: begins with a capital letter and is one line.
struct Sentence<'a>(&'a mut heapless::String<REASON>, bool);

impl Write for Sentence<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for c in piece.chars() {
            let c = if self.1 { c.to_ascii_uppercase() } else { c };
            self.1 = false;
            self.0.push(if c.is_control() { ' ' } else { c }).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}
