//! One session with the printer's FTP server.
//!
//! # On the wire
//!
//! ```text
//!   proxy                                  printer
//!     │◄─ 220 ────────────────────────────────│  one line or several
//!     │── USER bblp, PASS code, PBSZ 0, PWD ─►│  each line in one write: a P1S takes a half for a whole
//!     │── TYPE, PROT, CWD ───────────────────►│  what the client has set and the session has not
//!     │── EPSV, else PASV ───────────────────►│  the address in the answer is not looked at
//!     │   a TCP connection to that port       │
//!     │── REST n ────────────────────────────►│  if the client said so
//!     │── STOR name ─────────────────────────►│
//!     │◄─ 150 ────────────────────────────────│  only now TLS on the data connection
//!     │   the data                            │
//!     │◄─ 226 ────────────────────────────────│  up to five minutes after the last byte
//! ```
//!
//! One job at a time, from the [`PrinterSession`]. What a job needs is compared with what the session is set to,
//! and one command after another makes them equal; then the client's own line goes, as it came.
//!
//! # Who is told what
//!
//! A client hears 226 only after the printer's, and only if all data had been moved before it. A 426
//! after an upload may be a lie (PROTOCOL §5.4): SIZE decides. A session that is lost gives its
//! client 426 or 451, unless nothing had been asked yet: then the job waits for the next session.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | an answer to login or to a setting | [`ANSWER_TIMEOUT`] | the session ends |
//! | an answer to a client's command | [`COMMAND_TIMEOUT`] | the session ends |
//! | the outcome of an upload | [`STORED_TIMEOUT`] | the session ends |
//! | the outcome of what was given up | [`ABORTED_TIMEOUT`] | the session ends |
//! | time without a job | [`IDLE`] | QUIT |
//! | a reply's line | [`LINE`] bytes | the rest of it is skipped |
//! | a reply | [`REPLY_LINES`] lines | the session ends |

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::PATH;
use super::features::Features;
use super::hub::Hub;
use super::printer_session::{Failure, Job, Move, News, Order, PrinterSession};
use super::slot::{CommandKind, Prot, Slot, Transfer, Type};
use super::wire::{self, LINE, Part, Replies, Taken};
use crate::auth::{AccessCode, USER};
use crate::clock::Instant;
use crate::session::{Blame, Output, Session};

/// How long the printer may take to answer login, and what sets its session up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to answer a client's command: deleting a large file from a slow card, say.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// How long it may take to say what became of an upload: cards are flushed for up to 300 s.
pub const STORED_TIMEOUT: Duration = Duration::from_secs(360);

/// How long it may take to say what became of a transfer that was given up.
pub const ABORTED_TIMEOUT: Duration = Duration::from_secs(30);

/// How long its data port may take to answer, with what the runtime allows itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a session without a job is kept.
pub const IDLE: Duration = Duration::from_secs(20);

/// How long the answer to QUIT may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines in the longest reply: a STAT of a crowded directory.
pub const REPLY_LINES: u32 = 4096;

/// Why the conversation with the printer has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It greeted us with another code than 220.
    Busy(u16),
    /// It refuses the access code.
    WrongCode(u16),
    /// It did not answer in time.
    NoAnswer,
    /// What it says is no FTP reply, or has no place here.
    OutOfOrder,
    /// It ends the session (421).
    Ended,
    /// There was nothing to do any more.
    Rested,
}

impl Error {
    /// Who caused it.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Rested => Blame::Nobody,
            Self::NoAnswer | Self::Ended => Blame::Network,
            Self::Busy(_) | Self::WrongCode(_) | Self::OutOfOrder => Blame::Peer,
        }
    }

    /// Whether the printer refuses our access code.
    pub const fn is_wrong_code(self) -> bool {
        matches!(self, Self::WrongCode(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(code) => write!(
                f,
                "the printer's FTP server gives no session ({code}): other programs may hold them all"
            ),
            Self::WrongCode(code) => write!(
                f,
                "the printer refuses the access code ({code}): compare it with the one on the \
                 printer's screen (it changes when LAN mode is switched)"
            ),
            Self::NoAnswer => f.write_str("the printer's FTP server does not answer"),
            Self::OutOfOrder => {
                f.write_str("the printer's FTP server says something that has no place here")
            }
            Self::Ended => f.write_str("the printer's FTP server ended the session (421)"),
            Self::Rested => f.write_str("nothing to do any more"),
        }
    }
}

impl core::error::Error for Error {}

/// What is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    User,
    Pass,
    Pbsz,
    Pwd,
    Type(Type),
    Prot(Prot),
    Directory,
    Epsv,
    Pasv,
    Restart(u64),
    Renaming,
    Line,
    Size,
    Quit,
}

/// What an answer is awaited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    User,
    Pass,
    Pbsz,
    Home,
    Idle,
    /// A setting for the job.
    Setting(Say),
    Passive,
    /// The mover connects to the printer's data port.
    Connecting,
    /// The client's line.
    Asked,
    /// Data are moved.
    Moving,
    /// Data have been moved; the printer has not said so.
    Outcome,
    /// PWD, after a change of directory.
    Where,
    /// SIZE, after a 426.
    Sizing,
    /// The transfer has been given up; the client of the job, if it is still there, is told why.
    Aborting(Failure),
    Quitting,
}

/// Where the session is in the printer's directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where it began.
    Home,
    /// `here` says where.
    Known,
    /// Nobody knows.
    Unknown,
}

/// A session with the printer.
pub struct Upstream {
    hub: Rc<Hub>,
    printer_session: Rc<PrinterSession>,
    code: Rc<AccessCode>,
    state: State,
    until: Option<Instant>,
    say: Option<Say>,
    replies: Replies,
    lines: u32,
    /// The rest of a line that was too long is on its way.
    skipping: bool,
    /// It stood; from then on its end is not a reason to wait before the next.
    settled: bool,
    kind: Option<Type>,
    prot: Option<Prot>,
    place: Place,
    here: heapless::Vec<u8, PATH>,
    home: heapless::Vec<u8, PATH>,
    /// Somebody's REST is pending.
    restarts: bool,
    /// What of the job's settings is done: the data connection, REST, RNFR, and a TYPE that the
    /// printer does not know for a listing.
    connected: bool,
    restarted: bool,
    renamed: bool,
    typed: bool,
    offset: u64,
    /// A last line that is kept back until it may be passed on.
    held: heapless::Vec<u8, LINE>,
    features: Features,
}

impl Upstream {
    pub(super) fn new(
        hub: Rc<Hub>,
        printer_session: Rc<PrinterSession>,
        code: Rc<AccessCode>,
        now: Instant,
    ) -> Self {
        Self {
            hub,
            printer_session,
            code,
            state: State::Greeting,
            until: Some(now + ANSWER_TIMEOUT),
            say: None,
            replies: Replies::default(),
            lines: 0,
            skipping: false,
            settled: false,
            kind: None,
            prot: None,
            place: Place::Home,
            here: heapless::Vec::new(),
            home: heapless::Vec::new(),
            restarts: false,
            connected: false,
            restarted: false,
            renamed: false,
            typed: false,
            offset: 0,
            held: heapless::Vec::new(),
            features: Features::default(),
        }
    }

    /// Whether it was logged in.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether what the printer says may be read: its lines go straight to a client.
    pub fn is_attentive(&self) -> bool {
        match (self.state, self.printer_session.job()) {
            (State::Asked, Some(job)) => self.hub.has_room(&job),
            _ => true,
        }
    }

    fn send(&mut self, now: Instant, state: State, say: Say, within: Duration) {
        self.state = state;
        self.say = Some(say);
        self.until = Some(now + within);
    }

    fn set(&mut self, now: Instant, say: Say) {
        self.send(now, State::Setting(say), say, ANSWER_TIMEOUT);
    }

    fn slot(&self) -> Option<&Rc<Slot>> {
        self.hub.client_of(&self.printer_session.job()?)
    }

    /// The job is done: the next one, or rest.
    fn rest(&mut self, now: Instant, how: Result<(), fmt::Arguments<'_>>) {
        self.printer_session.end(now, how);
        self.idle(now);
    }

    fn idle(&mut self, now: Instant) {
        self.state = State::Idle;
        self.say = None;
        self.until = Some(now + IDLE);
        self.connected = false;
        self.restarted = false;
        self.renamed = false;
        self.typed = false;
        self.offset = 0;
        self.held.clear();
        self.features = Features::default();
        self.printer_session.is_idle();
    }

    fn is_transfer(&self) -> bool {
        self.printer_session.job().is_some_and(|job| job.command_kind.transfer().is_some())
    }

    /// Takes the next job, if there is one.
    fn look_for_work(&mut self, now: Instant) {
        if self.hub.is_leaving() {
            self.send(now, State::Quitting, Say::Quit, GOODBYE_TIMEOUT);
        } else if self.hub.assign(now, &self.printer_session) {
            self.advance(now);
        }
    }

    /// The next step of a job: a setting that differs, or the client's line.
    fn advance(&mut self, now: Instant) {
        let Some(job) = self.printer_session.job() else { return self.idle(now) };
        let Some(slot) = self.hub.client_of(&job).cloned() else {
            self.let_go();
            return self.rest(now, Err(format_args!("{}", Failure::Client)));
        };
        let transfer = job.command_kind.transfer();
        let typed = transfer.is_some() || job.command_kind == CommandKind::Size;
        if typed && !self.typed && self.kind != Some(slot.kind.get()) {
            return self.set(now, Say::Type(slot.kind.get()));
        }
        if !self.is_anywhere(&job) && !self.is_in(&slot) {
            return self.set(now, Say::Directory);
        }
        if let Some(transfer) = transfer {
            if self.prot != Some(slot.prot.get()) {
                return self.set(now, Say::Prot(slot.prot.get()));
            }
            if !self.connected {
                let say = if self.hub.is_extended() { Say::Epsv } else { Say::Pasv };
                return self.send(now, State::Passive, say, ANSWER_TIMEOUT);
            }
            let offset = match transfer {
                Transfer::Retrieve | Transfer::Store | Transfer::Append => slot.restart.get(),
                Transfer::StoreUnique | Transfer::List => None,
            };
            if !self.restarted && (offset.is_some() || self.restarts) {
                self.offset = offset.unwrap_or(0);
                return self.set(now, Say::Restart(self.offset));
            }
        }
        if job.command_kind == CommandKind::RenameTo && !self.renamed {
            return self.set(now, Say::Renaming);
        }
        self.send(now, State::Asked, Say::Line, COMMAND_TIMEOUT);
    }

    /// Whether a command means the same in every directory. One that leads out of a directory that is
    /// gone must not lead through it.
    fn is_anywhere(&self, job: &Job) -> bool {
        let absolute = || self.printer_session.with_argument(|path| path.starts_with(b"/"));
        job.command_kind == CommandKind::Features
            || (job.command_kind == CommandKind::ChangeDirectory && absolute())
    }

    /// Whether the session is in the client's directory.
    fn is_in(&self, slot: &Slot) -> bool {
        let wanted = slot.directory.borrow();
        match self.place {
            Place::Unknown => false,
            Place::Home => wanted.is_empty() || *wanted == self.home,
            Place::Known if wanted.is_empty() => self.here == self.home,
            Place::Known => *wanted == self.here,
        }
    }

    /// The mover lets go of the printer's data connection, if it has one.
    fn let_go(&self) {
        self.printer_session.tell(Order::Drop);
    }

    /// The job is done, and this line of the printer's says how.
    fn conclude(&mut self, now: Instant, line: &[u8]) {
        if let Some(job) = self.printer_session.job() {
            self.hub.conclude_with(&job, line);
        }
        match line {
            [b'1'..=b'3', ..] => self.rest(now, Ok(())),
            _ => self.rest(now, Err(format_args!("the printer says {}", wire::Shown(line)))),
        }
    }

    /// The job is done, and this is how.
    fn conclude_saying(&mut self, now: Instant, why: fmt::Arguments<'_>) {
        if let Some(job) = self.printer_session.job() {
            self.hub.conclude_saying(&job, why);
        }
        self.rest(now, Err(why));
    }

    /// The line kept back is passed on.
    fn conclude_with_held(&mut self, now: Instant) {
        let held = core::mem::take(&mut self.held);
        self.conclude(now, &held);
    }

    fn hold(&mut self, line: &[u8]) {
        self.held.clear();
        // It fits: a longer line was cut.
        let _fits = self.held.extend_from_slice(line.get(..LINE).unwrap_or(line));
    }

    /// What the mover says.
    fn handle_news(&mut self, now: Instant) {
        let Some(news) = self.printer_session.news() else { return };
        match (self.state, news) {
            (State::Connecting, News::Connected) => {
                self.connected = true;
                self.advance(now);
            }
            (State::Connecting, News::Unreachable) => {
                self.conclude_saying(
                    now,
                    format_args!("425 The printer's data port does not answer"),
                );
            }
            (State::Moving, News::Moved) if !self.held.is_empty() => self.conclude_with_held(now),
            (State::Moving, News::Moved) => {
                let upload =
                    self.printer_session.job().is_some_and(|job| job.command_kind.is_upload());
                let within = if upload { STORED_TIMEOUT } else { COMMAND_TIMEOUT };
                self.state = State::Outcome;
                self.until = Some(now + within);
            }
            (State::Moving, News::Failed(why)) => self.abort(now, why),
            // Of a transfer that is over.
            (_, News::Connected | News::Unreachable | News::Moved | News::Failed(_)) => {}
        }
    }

    /// The transfer is given up. What the printer says about its own end of it is worth waiting for.
    fn abort(&mut self, now: Instant, why: Failure) {
        self.let_go();
        if self.held.is_empty() {
            self.state = State::Aborting(why);
            self.until = Some(now + ABORTED_TIMEOUT);
            if why != Failure::Printer {
                self.tell_client(now, why);
            }
        } else {
            // It has said something already, which is not true.
            self.conclude_saying(now, format_args!("426 Transfer failed: {why}"));
        }
    }

    /// The client learns now that its transfer failed; the session is not free yet.
    fn tell_client(&self, _now: Instant, why: Failure) {
        if let Some(job) = self.printer_session.job() {
            self.hub.conclude_saying(&job, format_args!("426 Transfer failed: {why}"));
        }
    }

    /// Looks whether somebody still wants what is under way.
    fn look_for_client(&mut self, now: Instant) {
        let Some(job) = self.printer_session.job() else { return };
        if self.hub.client_of(&job).is_some() {
            return;
        }
        match self.state {
            State::Connecting => {
                self.let_go();
                self.rest(now, Err(format_args!("{}", Failure::Client)));
            }
            State::Moving if !self.held.is_empty() => {
                self.let_go();
                self.rest(now, Err(format_args!("{}", Failure::Client)));
            }
            State::Moving => self.abort(now, Failure::Client),
            State::Asked if self.say.take().is_some() => {
                self.let_go();
                self.rest(now, Err(format_args!("{}", Failure::Client)));
            }
            State::Asked if job.command_kind.transfer().is_some() => {
                self.abort(now, Failure::Client);
            }
            // The answer that is awaited comes soon, and then `advance` looks.
            State::Greeting
            | State::User
            | State::Pass
            | State::Pbsz
            | State::Home
            | State::Idle
            | State::Setting(_)
            | State::Passive
            | State::Asked
            | State::Outcome
            | State::Where
            | State::Sizing
            | State::Aborting(_)
            | State::Quitting => {}
        }
    }

    /// One line of a reply.
    fn handle_line(&mut self, now: Instant, line: &[u8]) -> Result<(), Error> {
        let Some(part) = self.replies.take(line) else { return Err(Error::OutOfOrder) };
        match part {
            Part::More(code) => {
                self.lines += 1;
                if self.lines > REPLY_LINES {
                    return Err(Error::OutOfOrder);
                }
                if self.state == State::Asked {
                    self.pass_on(code, line);
                }
                Ok(())
            }
            Part::Last(code) => {
                self.lines = 0;
                self.handle_reply(now, code, line)
            }
        }
    }

    /// A line of a reply that goes straight to the client.
    fn pass_on(&mut self, code: u16, line: &[u8]) {
        let Some(job) = self.printer_session.job() else { return };
        // It says that it is done before it has said that it begins: see `begin`.
        if job.command_kind.transfer().is_some() && matches!(code, 200..=299) {
            return;
        }
        let features = job.command_kind == CommandKind::Features && code == 211;
        if !features || self.features.admits(line) {
            self.hub.forward(&job, line);
        }
        self.features.begun |= features;
    }

    /// The last line of a reply.
    fn handle_reply(&mut self, now: Instant, code: u16, line: &[u8]) -> Result<(), Error> {
        let good = matches!(code, 200..=299);
        match self.state {
            State::Greeting if code == 220 => {
                self.send(now, State::User, Say::User, ANSWER_TIMEOUT);
            }
            State::Greeting if code < 200 => {}
            State::Greeting => return Err(Error::Busy(code)),
            State::User if code == 331 || code == 332 => {
                self.send(now, State::Pass, Say::Pass, ANSWER_TIMEOUT);
            }
            State::User | State::Pass if good => {
                self.send(now, State::Pbsz, Say::Pbsz, ANSWER_TIMEOUT);
            }
            State::User | State::Pass if matches!(code, 430 | 530) => {
                return Err(Error::WrongCode(code));
            }
            // Whatever it is, it is not the code: too many sessions, or trouble of the printer's own.
            State::User | State::Pass => return Err(Error::Busy(code)),
            // A printer that does not want it will say so about PROT.
            State::Pbsz => self.send(now, State::Home, Say::Pwd, ANSWER_TIMEOUT),
            State::Home => {
                if !(good && wire::quoted(line, &mut self.home)) {
                    self.home.clear();
                    let _fits = self.home.push(b'/');
                }
                self.settled = true;
                self.hub.live();
                self.idle(now);
            }
            State::Idle if code == 421 => return Err(Error::Ended),
            State::Idle => return Err(Error::OutOfOrder),
            State::Setting(_) | State::Passive | State::Where | State::Sizing
                if is_of_a_transfer(code) =>
            {
                return Err(Error::OutOfOrder);
            }
            State::Asked if is_of_a_transfer(code) && !self.is_transfer() => {
                return Err(Error::OutOfOrder);
            }
            State::Setting(say) => self.handle_setting(now, say, code, line),
            State::Passive => self.handle_passive(now, code, line),
            // The printer gives its data port up before anybody has come.
            State::Connecting => {
                self.let_go();
                self.conclude(now, line);
            }
            State::Asked => self.handle_answer(now, code, line),
            State::Moving => self.handle_early_outcome(now, code, line),
            State::Outcome => self.handle_outcome(now, code, line),
            State::Where => {
                self.handle_where(code, line);
                self.conclude_with_held(now);
            }
            State::Sizing => self.handle_sizing(now, code, line),
            State::Aborting(_) if code < 200 => {}
            // What the printer says is nearer to the cause than what was seen of it here.
            State::Aborting(Failure::Printer) if !good => self.conclude(now, line),
            State::Aborting(why) => {
                self.conclude_saying(now, format_args!("426 Transfer failed: {why}"));
            }
            State::Quitting => return Err(Error::Rested),
        }
        Ok(())
    }

    fn handle_setting(&mut self, now: Instant, say: Say, code: u16, line: &[u8]) {
        let good = matches!(code, 200..=399);
        let listing = self.printer_session.job().and_then(|job| job.command_kind.transfer())
            == Some(Transfer::List);
        match say {
            Say::Type(kind) if good => self.kind = Some(kind),
            // A listing is text in any case.
            Say::Type(_) if listing => self.typed = true,
            Say::Prot(prot) if good => self.prot = Some(prot),
            Say::Directory if good => match self.slot().map(|slot| slot.directory.borrow().clone())
            {
                Some(directory) if !directory.is_empty() => {
                    self.here = directory;
                    self.place = Place::Known;
                }
                Some(_) => self.place = Place::Home,
                None => self.place = Place::Unknown,
            },
            Say::Restart(_) if good => {
                self.restarted = true;
                self.restarts = true;
            }
            Say::Renaming if good => self.renamed = true,
            Say::User
            | Say::Pass
            | Say::Pbsz
            | Say::Pwd
            | Say::Type(_)
            | Say::Prot(_)
            | Say::Directory
            | Say::Epsv
            | Say::Pasv
            | Say::Restart(_)
            | Say::Renaming
            | Say::Line
            | Say::Size
            | Say::Quit => {
                self.let_go();
                return self.conclude(now, line);
            }
        }
        self.advance(now);
    }

    fn handle_passive(&mut self, now: Instant, code: u16, line: &[u8]) {
        if let Some(port) = wire::passive_port(code, line) {
            if self.slot().is_none() {
                return self.advance(now);
            }
            self.state = State::Connecting;
            self.until = Some(now + CONNECT_TIMEOUT);
            return self.printer_session.tell(Order::Connect { port });
        }
        if self.hub.is_extended() && matches!(code, 229 | 500..=599) {
            self.hub.not_extended();
            return self.advance(now);
        }
        match code {
            400..=599 => self.conclude(now, line),
            _ => self.conclude_saying(now, format_args!("425 The printer names no data port")),
        }
    }

    /// The printer's answer to the client's own line.
    fn handle_answer(&mut self, now: Instant, code: u16, line: &[u8]) {
        let Some(job) = self.printer_session.job() else { return self.idle(now) };
        let good = matches!(code, 200..=299);
        if let Some(transfer) = job.command_kind.transfer() {
            return match code {
                100..=299 => self.begin(now, &job, transfer, code, line),
                _ => {
                    self.restarts = false;
                    self.let_go();
                    self.conclude(now, line);
                }
            };
        }
        if code < 200 {
            return self.hub.forward(&job, line);
        }
        let slot = self.hub.client_of(&job).cloned();
        match job.command_kind {
            CommandKind::ChangeDirectory if good => {
                self.hold(line);
                self.place = Place::Unknown;
                return self.send(now, State::Where, Say::Pwd, ANSWER_TIMEOUT);
            }
            CommandKind::Restart if code == 350 => {
                let offset = self
                    .printer_session
                    .with_argument(|argument| wire::number(argument.trim_ascii()));
                self.restarts = true;
                if let Some(slot) = slot {
                    slot.restart.set(offset);
                }
            }
            CommandKind::RenameFrom => {
                if let Some(slot) = slot {
                    let mut renaming = slot.renaming.borrow_mut();
                    renaming.clear();
                    if code == 350 {
                        // It fits: it is shorter than the line it came in.
                        self.printer_session
                            .with_line(|line| renaming.extend_from_slice(line).ok());
                    }
                }
            }
            CommandKind::RenameTo => {
                if let Some(slot) = slot {
                    slot.renaming.borrow_mut().clear();
                }
            }
            CommandKind::Size => {
                let size = wire::size_in(code, line).filter(|_| code == 213);
                if let Some(slot) = slot {
                    slot.sized.set(size.map(|size| (self.printer_session.argument_hash(), size)));
                }
            }
            CommandKind::Allocate => {
                let size = self.printer_session.with_argument(|argument| {
                    wire::number(argument.split(|byte| *byte == b' ').next().unwrap_or_default())
                });
                if let Some(slot) = slot {
                    slot.announced.set(size);
                }
            }
            CommandKind::Features if code == 211 => {
                if !self.features.begun {
                    self.hub.forward(&job, b"211-Features:");
                }
                let missing = self.features.missing();
                for feature in missing.into_iter().flatten() {
                    self.hub.forward(&job, feature);
                }
            }
            CommandKind::Plain
            | CommandKind::Features
            | CommandKind::ChangeDirectory
            | CommandKind::Restart
            | CommandKind::Transfer(_) => {}
        }
        self.conclude(now, line);
    }

    /// The printer begins the transfer.
    fn begin(&mut self, now: Instant, job: &Job, transfer: Transfer, code: u16, line: &[u8]) {
        self.restarts = false;
        let Some(slot) = self.hub.client_of(job).cloned() else {
            return self.abort(now, Failure::Client);
        };
        let size = match transfer {
            Transfer::Retrieve => wire::size_in(code, line).or_else(|| {
                let (name, size) = slot.sized.get()?;
                (name == self.printer_session.argument_hash())
                    .then(|| size.saturating_sub(self.offset))
            }),
            Transfer::Store | Transfer::Append => slot.announced.get(),
            Transfer::StoreUnique | Transfer::List => None,
        };
        self.printer_session.opens(now, size);
        if code < 200 {
            self.hub.forward(job, line);
        } else {
            // It says that it is done before it has said that it begins.
            self.hub.forward(job, b"150 Opening the data connection");
            self.hold(line);
        }
        let upload = transfer.is_upload();
        let prot = slot.prot.get();
        self.printer_session.tell(Order::Move(Move { slot: job.slot, upload, prot }));
        self.state = State::Moving;
        // The mover has a clock of its own.
        self.until = None;
    }

    /// The printer says what became of the data while they are still being moved.
    fn handle_early_outcome(&mut self, now: Instant, code: u16, line: &[u8]) {
        match code {
            // It begins only now: what was said before was about another one.
            100..=199 => self.held.clear(),
            200..=299 => self.hold(line),
            _ => {
                self.let_go();
                self.conclude(now, line);
            }
        }
    }

    fn handle_outcome(&mut self, now: Instant, code: u16, line: &[u8]) {
        match code {
            100..=199 => {}
            426 if self.may_ask_size() => {
                self.hold(line);
                self.send(now, State::Sizing, Say::Size, ANSWER_TIMEOUT);
            }
            _ => self.conclude(now, line),
        }
    }

    /// Whether SIZE can tell whether an upload is complete: its name and its beginning are known, and
    /// bytes are counted as they are.
    fn may_ask_size(&self) -> bool {
        let store = Some(CommandKind::Transfer(Transfer::Store));
        self.printer_session.job().map(|job| job.command_kind) == store
            && self.kind == Some(Type::Image)
    }

    fn handle_sizing(&mut self, now: Instant, code: u16, line: &[u8]) {
        let expected = self.offset.saturating_add(self.printer_session.moved());
        if code == 213 && wire::size_in(code, line) == Some(expected) {
            if let Some(job) = self.printer_session.job() {
                let peer = job.peer;
                log::info!("{peer}: the printer said 426, but its file has all {expected} bytes");
            }
            self.conclude(now, b"226 Transfer complete: the printer has the whole file");
        } else {
            self.conclude_with_held(now);
        }
    }

    /// Where a change of directory has led.
    fn handle_where(&mut self, code: u16, line: &[u8]) {
        let known = code == 257 && wire::quoted(line, &mut self.here);
        if known {
            self.place = Place::Known;
            if let Some(slot) = self.slot() {
                slot.directory.borrow_mut().clone_from(&self.here);
            }
        } else {
            self.hold(b"550 The printer does not say which directory this is");
        }
    }

    /// Writes the next line: a whole one, in one piece.
    fn write(&mut self, say: Say, out: &mut [u8]) -> usize {
        let mut line = Piece { out, len: 0 };
        match say {
            Say::User => {
                line.put(b"USER ");
                line.put(USER.as_bytes());
            }
            Say::Pass => {
                line.put(b"PASS ");
                line.put(self.code.reveal());
            }
            Say::Pbsz => line.put(b"PBSZ 0"),
            Say::Pwd => line.put(b"PWD"),
            Say::Type(Type::Ascii) => line.put(b"TYPE A"),
            Say::Type(Type::Image) => line.put(b"TYPE I"),
            Say::Prot(Prot::Clear) => line.put(b"PROT C"),
            Say::Prot(Prot::Private) => line.put(b"PROT P"),
            Say::Directory => {
                line.put(b"CWD ");
                let slot = self.printer_session.job().and_then(|job| self.hub.client_of(&job));
                match slot.map(|slot| slot.directory.borrow()) {
                    Some(directory) if !directory.is_empty() => line.put(&directory),
                    Some(_) | None => line.put(&self.home),
                }
            }
            Say::Epsv => line.put(b"EPSV"),
            Say::Pasv => line.put(b"PASV"),
            Say::Restart(offset) => {
                line.put(b"REST ");
                let mut digits = heapless::String::<20>::new();
                // It fits: no number of 64 bits has more.
                let _fits = fmt::write(&mut digits, format_args!("{offset}"));
                line.put(digits.as_bytes());
            }
            Say::Renaming => {
                if let Some(slot) = self.slot() {
                    line.put(&slot.renaming.borrow());
                }
            }
            Say::Line => {
                self.printer_session.asks();
                self.printer_session.with_line(|text| line.put(text));
            }
            Say::Size => {
                line.put(b"SIZE ");
                self.printer_session.with_argument(|name| line.put(name));
            }
            Say::Quit => line.put(b"QUIT"),
        }
        line.put(b"\r\n");
        line.len
    }
}

impl Session for Upstream {
    type Event<'i> = ();
    type Error = Error;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Result<(usize, Option<()>), Error> {
        if !self.is_attentive() {
            return Ok((0, None));
        }
        self.handle_news(now);
        let (text, len) = match wire::line(input) {
            Taken::Partial => return Ok((0, None)),
            Taken::Line(text, len) => (text, len),
            // It is cut where our own line end still fits.
            Taken::TooLong => {
                let skipped = core::mem::replace(&mut self.skipping, true);
                let text = input.get(..LINE - 2).unwrap_or(input);
                if !skipped {
                    self.handle_line(now, text)?;
                }
                return Ok((LINE.min(input.len()), None));
            }
        };
        if !core::mem::take(&mut self.skipping) {
            self.handle_line(now, text)?;
        }
        Ok((len, None))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.until.is_none_or(|until| now < until) {
            return Ok(());
        }
        match self.state {
            State::Idle => self.send(now, State::Quitting, Say::Quit, GOODBYE_TIMEOUT),
            State::Connecting => {
                self.let_go();
                self.conclude_saying(
                    now,
                    format_args!("425 The printer's data port does not answer"),
                );
            }
            State::Quitting => return Err(Error::Rested),
            State::Aborting(why) => {
                self.tell_client(now, why);
                return Err(Error::NoAnswer);
            }
            State::Greeting
            | State::User
            | State::Pass
            | State::Pbsz
            | State::Home
            | State::Setting(_)
            | State::Passive
            | State::Asked
            | State::Moving
            | State::Outcome
            | State::Where
            | State::Sizing => return Err(Error::NoAnswer),
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        self.handle_news(now);
        self.look_for_client(now);
        if self.state == State::Idle {
            self.look_for_work(now);
        }
        match self.say.take() {
            Some(say) => Output::Written(self.write(say, out)),
            None => Output::Idle,
        }
    }
}

/// Whether a reply of this code is about data, and so never the answer to anything else: the session
/// would be one answer behind from then on.
const fn is_of_a_transfer(code: u16) -> bool {
    matches!(code, 125 | 150 | 225 | 226 | 426)
}

/// The front of an outbox. One holds the longest line.
struct Piece<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Piece<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.out.get_mut(self.len..).unwrap_or_default();
        let fits = bytes.len().min(room.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..fits), bytes.get(..fits)) {
            room.copy_from_slice(bytes);
            self.len += fits;
        }
    }
}
