//! What FTP clients share, and by which rules: the service's one policy file.
//!
//! A printer has one FTP session to give, or two. No client holds one: each command that needs the
//! printer takes a ticket, gets a session for as long as that command lasts, and gives it back. What
//! a client has set (directory, type, protection, restart offset) is kept in its [`Seat`], and the
//! session is brought into line before each command. So a client that browses and then thinks for an
//! hour keeps nobody waiting.
//!
//! # Who goes first
//!
//! Uploads before everything else, and among equals whoever asked first. A stream of uploads without
//! a pause would keep listings waiting; nobody prints that fast, and a client that has waited for
//! [`QUEUE_WITHIN`] is told so. Two uploads never run at the same time, even where the printer has two
//! sessions: printers mix them up (PROTOCOL §5.4).
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | clients | [`CLIENTS`], and those at the door | 421 |
//! | commands waiting | one a client | its further lines are not read |
//! | time in the queue | [`QUEUE_WITHIN`] | 450 |
//! | answers a client has not taken | [`OUT`](super::slot::OUT) bytes | its printer session is not read further |
//! | a directory's path | [`PATH`](super::PATH) bytes | 550 |

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use super::CLIENTS;
use super::printer_session::{Desk, Job, Standing as DeskStanding};
use super::slot::{Errand, GATE_WITHIN, Gate, Seat, Stage, Standing, Task};
use crate::clock::Instant;
use crate::session::Peer;

/// How long a command waits for the printer's session.
pub const QUEUE_WITHIN: Duration = Duration::from_secs(30 * 60);

/// How long a second session is not asked for after the printer would not give it.
const ALONE: Duration = Duration::from_secs(300);

/// Characters kept of the reason why the printer is away.
const REASON: usize = 200;

/// What all clients share.
pub struct Hub {
    seats: Box<[Rc<Seat>]>,
    desks: Box<[Rc<Desk>]>,
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
    /// A hub for `seats` connections, and as many sessions of the printer's as `sessions`.
    pub fn new(seats: usize, sessions: usize) -> Self {
        Self {
            seats: (0..seats).map(Seat::new).collect(),
            desks: (0..sessions.max(1)).map(Desk::new).collect(),
            numbers: Cell::new(0),
            leaving: Cell::new(false),
            extended: Cell::new(true),
            away: RefCell::new(None),
            alone: Cell::new(None),
        }
    }

    /// A seat for somebody at the door.
    pub fn knock(&self, peer: Peer) -> Option<Rc<Seat>> {
        let vacant = |seat: &&Rc<Seat>| seat.standing() == Standing::Vacant;
        let seat = self.seats.iter().find(vacant)?;
        seat.forget();
        seat.peer.set(Some(peer));
        seat.standing.set(Standing::Knocking);
        Some(Rc::clone(seat))
    }

    /// The code was right. Whether there is room for one more client.
    pub fn admit(&self, seat: &Seat) -> bool {
        if self.clients() >= CLIENTS {
            return false;
        }
        seat.standing.set(Standing::Seated);
        true
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.seats.iter().filter(|seat| seat.standing() == Standing::Seated).count()
    }

    /// Connections that are being served.
    pub fn connections(&self) -> usize {
        self.seats.iter().filter(|seat| seat.standing() != Standing::Vacant).count()
    }

    /// Whoever sat here has gone; what was under way for it is given up.
    pub fn vacate(&self, seat: &Seat) {
        self.drop_task(seat);
        seat.forget();
        seat.standing.set(Standing::Vacant);
    }

    /// Tells every client to go.
    pub fn dismiss_all(&self) {
        for seat in self.seats.iter().filter(|seat| seat.standing() != Standing::Vacant) {
            seat.standing.set(Standing::Dismissed);
            seat.ring();
        }
    }

    /// Ends the sessions with the printer, and begins no other.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.desks.iter().for_each(|desk| desk.ring());
    }

    /// Whether the sessions with the printer are to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The sessions with the printer.
    pub fn desks(&self) -> &[Rc<Desk>] {
        &self.desks
    }

    /// One of them.
    pub fn desk(&self, index: usize) -> Option<&Rc<Desk>> {
        self.desks.get(index)
    }

    /// One of the seats.
    pub fn seat(&self, index: usize) -> Option<&Rc<Seat>> {
        self.seats.get(index)
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
        seat: &Seat,
        errand: Errand,
        line: &[u8],
        argument_at: usize,
    ) {
        let stage = match (errand, seat.gate()) {
            (Errand::Transfer(_), Gate::Closed) => {
                seat.say(format_args!("425 Use PASV or EPSV first"));
                return;
            }
            (Errand::Transfer(_), Gate::Open { until }) => Stage::Connecting { until },
            (_, _) => Stage::Queued { until: now + QUEUE_WITHIN },
        };
        let mut kept = seat.line.borrow_mut();
        kept.clear();
        // It fits: a longer line is none.
        let _fits = kept.extend_from_slice(line);
        drop(kept);
        seat.argument_at.set(argument_at);
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        seat.task.set(Some(Task { number, errand, stage, tried: false }));
        self.look_around(now);
    }

    /// A client has connected to its data port.
    pub fn connected(&self, now: Instant, seat: &Seat) {
        if seat.gate() == Gate::Closed {
            return;
        }
        seat.gate.set(Gate::Connected { until: now + GATE_WITHIN });
        if let Some(task @ Task { stage: Stage::Connecting { .. }, .. }) = seat.task() {
            let stage = Stage::Queued { until: now + QUEUE_WITHIN };
            seat.task.set(Some(Task { stage, ..task }));
        }
        self.look_around(now);
        seat.ring();
    }

    /// Wakes whoever can do something about those who wait.
    fn look_around(&self, now: Instant) {
        self.turn_away(now);
        self.desks.iter().for_each(|desk| desk.ring());
    }

    /// Tells those who wait that the printer is away, if that was found out just now.
    fn turn_away(&self, now: Instant) {
        let away = self.away.borrow();
        let Some((reason, _)) = away.as_ref().filter(|(_, until)| now < *until) else { return };
        if self.desks.iter().any(|desk| desk.is_live()) {
            return;
        }
        for seat in &self.seats {
            if let Some(Task { number, stage: Stage::Queued { .. }, .. }) = seat.task() {
                self.conclude(seat, number, format_args!("450 {reason}"));
            }
        }
    }

    /// Whether a session should be made for `desk` now.
    pub fn is_wanted(&self, now: Instant, desk: usize) -> bool {
        let away = self.away.borrow().as_ref().is_some_and(|(_, until)| now < *until);
        let alone = self.alone.get().is_some_and(|until| now < until);
        let others = || self.desks.iter().filter(|other| other.index() != desk);
        let any_live = others().any(|other| other.is_live());
        let ready = others()
            .any(|other| matches!(other.standing(), DeskStanding::Idle | DeskStanding::Dialling));
        !(ready || (alone && any_live) || (away && !any_live)) && self.next(desk).is_some()
    }

    /// Who gets the session of `desk` next.
    fn next(&self, desk: usize) -> Option<(&Rc<Seat>, Task)> {
        let uploads = self.desks.iter().any(|other| {
            other.index() != desk && other.job().is_some_and(|job| job.errand.is_upload())
        });
        self.seats
            .iter()
            .filter_map(|seat| Some((seat, seat.task()?)))
            .filter(|(_, task)| matches!(task.stage, Stage::Queued { .. }))
            .filter(|(_, task)| !(uploads && task.errand.is_upload()))
            .min_by_key(|(_, task)| (!task.errand.is_upload(), task.number))
    }

    /// Gives the session of `desk` to whoever is next. Whether there is somebody.
    pub(super) fn assign(&self, now: Instant, desk: &Desk) -> bool {
        let Some((seat, task)) = self.next(desk.index()) else { return false };
        let Some(peer) = seat.peer() else { return false };
        let stage = Stage::Running { desk: desk.index() };
        seat.task.set(Some(Task { stage, ..task }));
        let job = Job { seat: seat.index, number: task.number, errand: task.errand, peer };
        desk.begin(now, job, &seat.line.borrow(), seat.argument_at.get());
        // Whoever is next may have been left to this session, and is now the business of another.
        let others = self.desks.iter().filter(|other| other.index() != desk.index());
        others.for_each(|other| other.ring());
        true
    }

    /// The seat that `job` is done for, while somebody there still wants it.
    pub(super) fn client_of(&self, job: &Job) -> Option<&Rc<Seat>> {
        self.seats
            .get(job.seat)
            .filter(|seat| seat.task().is_some_and(|task| task.number == job.number))
    }

    /// Whether the client of `job` can take one more line.
    pub(super) fn has_room(&self, job: &Job) -> bool {
        self.client_of(job).is_none_or(|seat| seat.has_room())
    }

    /// Passes a line of the printer's on.
    pub(super) fn forward(&self, job: &Job, line: &[u8]) {
        if let Some(seat) = self.client_of(job) {
            seat.forward(line);
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
        let Some(seat) = self.client_of(job) else { return };
        match line {
            Some(line) => seat.forward(line),
            None => seat.say(said),
        }
        if let Some(task) = seat.task() {
            self.settle(seat, task);
        }
    }

    /// A client's command is done without the printer.
    pub fn conclude(&self, seat: &Seat, number: u32, line: fmt::Arguments<'_>) {
        if let Some(task) = seat.task().filter(|task| task.number == number) {
            seat.say(line);
            self.settle(seat, task);
        }
    }

    /// A client's command is done. A data connection over which nothing was moved stays, until it is
    /// replaced or its time is up: a client that saw it break would not look at the answer
    /// (curl starts TLS on it as soon as its command is out).
    fn settle(&self, seat: &Seat, task: Task) {
        seat.task.set(None);
        seat.tear_if_mid_reply();
        if task.errand.transfer().is_some() {
            seat.restart.set(None);
            seat.announced.set(None);
            if self.has_opened(task) {
                seat.close_gate();
            }
        }
        seat.ring();
    }

    /// Whether data are moved for a command, or were.
    fn has_opened(&self, task: Task) -> bool {
        match task.stage {
            Stage::Running { desk } => self.desks.get(desk).is_some_and(|desk| desk.has_opened()),
            Stage::Connecting { .. } | Stage::Queued { .. } => false,
        }
    }

    /// Gives up what is under way for a client. Whether there was something.
    pub fn drop_task(&self, seat: &Seat) -> bool {
        let Some(task) = seat.task() else { return false };
        self.settle(seat, task);
        if task.errand.transfer().is_some() {
            seat.close_gate();
        }
        if let Stage::Running { desk } = task.stage
            && let Some(desk) = self.desks.get(desk)
        {
            desk.ring();
        }
        true
    }

    /// The client has taken what it had to hear: the session that speaks to it may go on.
    pub fn drained(&self, seat: &Seat) {
        if let Some(Task { stage: Stage::Running { desk }, .. }) = seat.task()
            && let Some(desk) = self.desks.get(desk)
        {
            desk.ring();
        }
    }

    /// A session stands.
    pub(super) fn live(&self) {
        *self.away.borrow_mut() = None;
    }

    /// The session of `desk` is over, or could not begin: `why`. The next is tried no sooner than
    /// after `wait`.
    pub fn lost(&self, now: Instant, desk: usize, why: &dyn fmt::Display, wait: Duration) {
        let Some(desk) = self.desks.get(desk) else { return };
        let was_live = desk.is_live();
        self.give_back(now, desk, why);
        desk.is_off();
        if !was_live {
            if self.desks.iter().any(|desk| desk.is_live()) {
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

    /// Whoever had the session of `desk` learns what became of its command.
    fn give_back(&self, now: Instant, desk: &Desk, why: &dyn fmt::Display) {
        let Some(job) = desk.job() else { return };
        if let Some(seat) = self.client_of(&job)
            && let Some(task) = seat.task()
        {
            if !desk.has_asked() && !task.tried {
                // Nothing was asked of the printer yet: the session had been gone for a while.
                let stage = Stage::Queued { until: now + QUEUE_WITHIN };
                seat.task.set(Some(Task { stage, tried: true, ..task }));
                seat.ring();
            } else if desk.has_opened() {
                seat.say(format_args!("426 The printer's connection was lost: {why}"));
                self.settle(seat, task);
            } else {
                seat.say(format_args!("451 The printer's connection was lost: {why}"));
                self.settle(seat, task);
            }
        }
        desk.end(now, Err(format_args!("{why}")));
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
