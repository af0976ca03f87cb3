//! What FTP clients share, and by which rules: the service's one policy file.
//!
//! A printer has one FTP session to give, or two. No client holds one: each command that needs the
//! printer takes a ticket, gets a session for as long as that command lasts, and gives it back. What
//! a client has set (directory, type, protection, restart offset) is kept in its [`Slot`], and the
//! session is brought into line before each command. So a client that browses and then thinks for an
//! hour keeps nobody waiting.
//!
//! # Who goes first
//!
//! Uploads before everything else, and among equals whoever asked first. A stream of uploads without
//! a pause would keep listings waiting; nobody prints that fast, and a client that has waited for
//! [`QUEUE_TIMEOUT`] is told so. Two uploads never run at the same time, even where the printer has two
//! sessions: printers mix them up (PROTOCOL §5.4).
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | clients | [`CLIENTS`], and those at the acceptor | 421 |
//! | commands waiting | one a client | its further lines are not read |
//! | time in the queue | [`QUEUE_TIMEOUT`] | 450 |
//! | answers a client has not taken | [`OUT`](super::slot::OUT) bytes | its printer session is not read further |
//! | a directory's path | [`PATH`](super::PATH) bytes | 550 |

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use super::CLIENTS;
use super::printer_session::{Job, PrinterSession, SlotState as SessionState};
use super::slot::{CommandKind, PASSIVE_PORT_TIMEOUT, PassivePort, Slot, SlotState, Stage, Task};
use crate::clock::Instant;
use crate::peer::Peer;

/// How long a command waits for the printer's session.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How long a second session is not asked for after the printer would not give it.
const ALONE: Duration = Duration::from_secs(300);

/// Characters kept of the reason why the printer is away.
const REASON: usize = 200;

/// What all clients share.
pub struct Hub {
    slots: Box<[Rc<Slot>]>,
    printer_sessions: Box<[Rc<PrinterSession>]>,
    numbers: Cell<u32>,
    leaving: Cell<bool>,
    /// Whether the printer knows EPSV, as far as is known.
    extended: Cell<bool>,
    /// Until when the printer is not tried again, and why.
    away: RefCell<Option<(heapless::String<REASON>, Instant)>>,
    /// Until when only one session is asked for.
    alone: Cell<Option<Instant>>,
}

impl Hub {
    /// A hub for `slots` connections, and as many sessions of the printer's as `sessions`.
    pub fn new(slots: usize, sessions: usize) -> Self {
        Self {
            slots: (0..slots).map(Slot::new).collect(),
            printer_sessions: (0..sessions.max(1)).map(PrinterSession::new).collect(),
            numbers: Cell::new(0),
            leaving: Cell::new(false),
            extended: Cell::new(true),
            away: RefCell::new(None),
            alone: Cell::new(None),
        }
    }

    /// A slot for somebody at the acceptor.
    pub fn pending(&self, peer: Peer) -> Option<Rc<Slot>> {
        let vacant = |slot: &&Rc<Slot>| slot.standing() == SlotState::Vacant;
        let slot = self.slots.iter().find(vacant)?;
        slot.forget();
        slot.peer.set(Some(peer));
        slot.standing.set(SlotState::Knocking);
        Some(Rc::clone(slot))
    }

    /// The code was right. Whether there is room for one more client.
    pub fn admit(&self, slot: &Slot) -> bool {
        if self.clients() >= CLIENTS {
            return false;
        }
        slot.standing.set(SlotState::Occupied);
        true
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() == SlotState::Occupied).count()
    }

    /// Connections that are being served.
    pub fn connections(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() != SlotState::Vacant).count()
    }

    /// Whoever sat here has gone; what was under way for it is given up.
    pub fn vacate(&self, slot: &Slot) {
        self.drop_task(slot);
        slot.forget();
        slot.standing.set(SlotState::Vacant);
    }

    /// Tells every client to go.
    pub fn dismiss_all(&self) {
        for slot in self.slots.iter().filter(|slot| slot.standing() != SlotState::Vacant) {
            slot.standing.set(SlotState::Dismissed);
            slot.notify();
        }
    }

    /// Ends the sessions with the printer, and begins no other.
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

    /// Whether the printer knows EPSV, as far as is known.
    pub fn is_extended(&self) -> bool {
        self.extended.get()
    }

    /// The printer does not know EPSV.
    pub(super) fn not_extended(&self) {
        self.extended.set(false);
    }

    /// A client has a command that needs the printer.
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
                slot.say(format_args!("425 Use PASV or EPSV first"));
                return;
            }
            (CommandKind::Transfer(_), PassivePort::Open { until }) => Stage::Connecting { until },
            (_, _) => Stage::Queued { until: now + QUEUE_TIMEOUT },
        };
        let mut kept = slot.line.borrow_mut();
        kept.clear();
        // It fits: a longer line is none.
        let _fits = kept.extend_from_slice(line);
        drop(kept);
        slot.argument_at.set(argument_at);
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        slot.task.set(Some(Task { number, command_kind, stage, tried: false }));
        self.look_around(now);
    }

    /// A client has connected to its data port.
    pub fn connected(&self, now: Instant, slot: &Slot) {
        if slot.passive_port() == PassivePort::Closed {
            return;
        }
        slot.passive_port.set(PassivePort::Connected { until: now + PASSIVE_PORT_TIMEOUT });
        if let Some(task @ Task { stage: Stage::Connecting { .. }, .. }) = slot.task() {
            let stage = Stage::Queued { until: now + QUEUE_TIMEOUT };
            slot.task.set(Some(Task { stage, ..task }));
        }
        self.look_around(now);
        slot.notify();
    }

    /// Wakes whoever can do something about those who wait.
    fn look_around(&self, now: Instant) {
        self.turn_away(now);
        self.printer_sessions.iter().for_each(|printer_session| printer_session.notify());
    }

    /// Tells those who wait that the printer is away, if that was found out just now.
    fn turn_away(&self, now: Instant) {
        let away = self.away.borrow();
        let Some((reason, _)) = away.as_ref().filter(|(_, until)| now < *until) else { return };
        if self.printer_sessions.iter().any(|printer_session| printer_session.is_live()) {
            return;
        }
        for slot in &self.slots {
            if let Some(Task { number, stage: Stage::Queued { .. }, .. }) = slot.task() {
                self.conclude(slot, number, format_args!("450 {reason}"));
            }
        }
    }

    /// Whether a session should be made for `printer_session` now.
    pub fn is_wanted(&self, now: Instant, printer_session: usize) -> bool {
        let away = self.away.borrow().as_ref().is_some_and(|(_, until)| now < *until);
        let alone = self.alone.get().is_some_and(|until| now < until);
        let others =
            || self.printer_sessions.iter().filter(|other| other.index() != printer_session);
        let any_live = others().any(|other| other.is_live());
        let ready = others()
            .any(|other| matches!(other.standing(), SessionState::Idle | SessionState::Dialling));
        !(ready || (alone && any_live) || (away && !any_live))
            && self.next(printer_session).is_some()
    }

    /// Who gets the session of `printer_session` next.
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

    /// Gives the session of `printer_session` to whoever is next. Whether there is somebody.
    pub(super) fn assign(&self, now: Instant, printer_session: &PrinterSession) -> bool {
        let Some((slot, task)) = self.next(printer_session.index()) else { return false };
        let Some(peer) = slot.peer() else { return false };
        let stage = Stage::Running { printer_session: printer_session.index() };
        slot.task.set(Some(Task { stage, ..task }));
        let job =
            Job { slot: slot.index, number: task.number, command_kind: task.command_kind, peer };
        printer_session.begin(now, job, &slot.line.borrow(), slot.argument_at.get());
        // Whoever is next may have been left to this session, and is now the business of another.
        let others =
            self.printer_sessions.iter().filter(|other| other.index() != printer_session.index());
        others.for_each(|other| other.notify());
        true
    }

    /// The slot that `job` is done for, while somebody there still wants it.
    pub(super) fn client_of(&self, job: &Job) -> Option<&Rc<Slot>> {
        self.slots
            .get(job.slot)
            .filter(|slot| slot.task().is_some_and(|task| task.number == job.number))
    }

    /// Whether the client of `job` can take one more line.
    pub(super) fn has_room(&self, job: &Job) -> bool {
        self.client_of(job).is_none_or(|slot| slot.has_room())
    }

    /// Passes a line of the printer's on.
    pub(super) fn forward(&self, job: &Job, line: &[u8]) {
        if let Some(slot) = self.client_of(job) {
            slot.forward(line);
        }
    }

    /// Passes the last line of the printer's on: the command is done.
    pub(super) fn conclude_with(&self, job: &Job, line: &[u8]) {
        self.conclude_job(job, format_args!(""), Some(line));
    }

    /// The command is done, and this is how.
    pub(super) fn conclude_saying(&self, job: &Job, line: fmt::Arguments<'_>) {
        self.conclude_job(job, line, None);
    }

    fn conclude_job(&self, job: &Job, said: fmt::Arguments<'_>, line: Option<&[u8]>) {
        let Some(slot) = self.client_of(job) else { return };
        match line {
            Some(line) => slot.forward(line),
            None => slot.say(said),
        }
        if let Some(task) = slot.task() {
            self.settle(slot, task);
        }
    }

    /// A client's command is done without the printer.
    pub fn conclude(&self, slot: &Slot, number: u32, line: fmt::Arguments<'_>) {
        if let Some(task) = slot.task().filter(|task| task.number == number) {
            slot.say(line);
            self.settle(slot, task);
        }
    }

    /// A client's command is done. A data connection over which nothing was moved stays, until it is
    /// replaced or its time is up: a client that saw it break would not look at the answer
    /// (curl starts TLS on it as soon as its command is out).
    fn settle(&self, slot: &Slot, task: Task) {
        slot.task.set(None);
        slot.tear_if_mid_reply();
        if task.command_kind.transfer().is_some() {
            slot.restart.set(None);
            slot.announced.set(None);
            if self.has_opened(task) {
                slot.close_gate();
            }
        }
        slot.notify();
    }

    /// Whether data are moved for a command, or were.
    fn has_opened(&self, task: Task) -> bool {
        match task.stage {
            Stage::Running { printer_session } => self
                .printer_sessions
                .get(printer_session)
                .is_some_and(|printer_session| printer_session.has_opened()),
            Stage::Connecting { .. } | Stage::Queued { .. } => false,
        }
    }

    /// Gives up what is under way for a client. Whether there was something.
    pub fn drop_task(&self, slot: &Slot) -> bool {
        let Some(task) = slot.task() else { return false };
        self.settle(slot, task);
        if task.command_kind.transfer().is_some() {
            slot.close_gate();
        }
        if let Stage::Running { printer_session } = task.stage
            && let Some(printer_session) = self.printer_sessions.get(printer_session)
        {
            printer_session.notify();
        }
        true
    }

    /// The client has taken what it had to hear: the session that speaks to it may go on.
    pub fn drained(&self, slot: &Slot) {
        if let Some(Task { stage: Stage::Running { printer_session }, .. }) = slot.task()
            && let Some(printer_session) = self.printer_sessions.get(printer_session)
        {
            printer_session.notify();
        }
    }

    /// A session stands.
    pub(super) fn live(&self) {
        *self.away.borrow_mut() = None;
    }

    /// The session of `printer_session` is over, or could not begin: `why`. The next is tried no sooner than
    /// after `wait`.
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
        printer_session.is_off();
        if !was_live {
            if self.printer_sessions.iter().any(|printer_session| printer_session.is_live()) {
                self.alone.set(Some(now + ALONE));
            } else {
                let mut reason = heapless::String::new();
                // What does not fit is cut; a log has it in full.
                let _fits = write!(Sentence(&mut reason, true), "{why}");
                *self.away.borrow_mut() = Some((reason, now + wait));
            }
        }
        self.look_around(now);
    }

    /// Whoever had the session of `printer_session` learns what became of its command.
    fn give_back(&self, now: Instant, printer_session: &PrinterSession, why: &dyn fmt::Display) {
        let Some(job) = printer_session.job() else { return };
        if let Some(slot) = self.client_of(&job)
            && let Some(task) = slot.task()
        {
            if !printer_session.has_asked() && !task.tried {
                // Nothing was asked of the printer yet: the session had been gone for a while.
                let stage = Stage::Queued { until: now + QUEUE_TIMEOUT };
                slot.task.set(Some(Task { stage, tried: true, ..task }));
                slot.notify();
            } else if printer_session.has_opened() {
                slot.say(format_args!("426 The printer's connection was lost: {why}"));
                self.settle(slot, task);
            } else {
                slot.say(format_args!("451 The printer's connection was lost: {why}"));
                self.settle(slot, task);
            }
        }
        printer_session.end(now, Err(format_args!("{why}")));
    }
}

/// Begins with a capital letter, as a reply's text does, and stays within one line.
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
