//! One session with the printer's FTP server: a control connection.
//!
//! # On the wire
//!
//! ```text
//!   proxy                                  printer
//!     │◄─ 220 ────────────────────────────────│  one line or several
//!     │── USER bblp, PASS code, PBSZ 0, PWD ─►│  one line per write: a P1S treats a part of a line as a line
//!     │── TYPE, PROT, CWD ───────────────────►│  settings in which client and session differ
//!     │── EPSV, else PASV ───────────────────►│  only the port in the reply is used
//!     │   a TCP connection to that port       │
//!     │── REST n ────────────────────────────►│  if the client sent REST
//!     │── STOR name ─────────────────────────►│
//!     │◄─ 150 ────────────────────────────────│  TLS on the data connection starts after it
//!     │   the data                            │
//!     │◄─ 226 ────────────────────────────────│  up to five minutes after the last byte
//! ```
//!
//! The session carries out one [`Job`](super::printer_session::Job) at a time. `preparing` sends the settings that the
//! job needs and then the client's own line, unchanged; `moving` begins the transfer and watches it; `outcome` decides
//! what the client is answered. What is learned goes to the hub as an [`Event`].
//!
//! # Replies to the client
//!
//! A client gets 226 only after the printer's 226, and only if all data had been copied before. A 426 after an upload
//! may be wrong ([protocol](crate::protocol#ftps)): SIZE decides. When a session is lost, its client gets 426 or 451,
//! unless the command had not been sent to the printer yet: then the job waits for the next session.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | reply to login or to a setting | [`ANSWER_TIMEOUT`] | the session ends |
//! | reply to a client's command | [`COMMAND_TIMEOUT`] | the session ends |
//! | final reply to an upload | [`STORED_TIMEOUT`] | the session ends |
//! | final reply to an aborted transfer | [`ABORTED_TIMEOUT`] | the session ends |
//! | time without a job | [`IDLE_TIMEOUT`] | QUIT |
//! | a reply's line | [`LINE`] bytes | the rest of the line is skipped |
//! | a reply | [`MAX_REPLY_LINES`] lines | the session ends |

mod moving;
mod outcome;
mod preparing;

use alloc::rc::Rc;
use core::convert::Infallible;
use core::fmt;
use core::time::Duration;

use super::PATH;
use super::event::Event;
use super::features::Features;
use super::hub::Hub;
use super::printer_session::{DataCommand, DataEvent, PrinterSession, TransferError};
use super::slot::{Prot, Slot, Type};
use super::wire::{self, LINE, Part, Replies, Taken};
use crate::auth::{AccessCode, USER};
use crate::cause::Cause;
use crate::clock::Instant;
use crate::session::{Consumed, Output, Session};

/// Time the printer has to reply to login and to settings.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Time the printer has to reply to a client's command, for example to delete a large file on a slow card.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// Time the printer has for the final reply to an upload: flushing a card takes up to 300 s.
pub const STORED_TIMEOUT: Duration = Duration::from_secs(360);

/// Time the printer has for the final reply to an aborted transfer.
pub const ABORTED_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which the data connection to the printer has to be made; the runtime's own limit is shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which a session without a job is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Time the printer has to reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines in the longest reply: STAT of a directory with thousands of files.
pub const MAX_REPLY_LINES: u32 = 4096;

/// Why the session with the printer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The greeting or the reply to the login has this code: the printer has no session to give.
    Busy(u16),
    /// The printer refuses the access code, with this reply code.
    WrongCode(u16),
    /// A reply did not come in time.
    NoAnswer,
    /// A line is not an FTP reply, or no reply was due.
    UnexpectedReply,
    /// The printer closes the session (421).
    ServiceClosing,
    /// There was no job for [`IDLE_TIMEOUT`], or this program ends.
    IdleTimeout,
}

#[cfg(test)]
impl Error {
    pub(super) const ALL: [Self; 6] = [
        Self::Busy(421),
        Self::WrongCode(530),
        Self::NoAnswer,
        Self::UnexpectedReply,
        Self::ServiceClosing,
        Self::IdleTimeout,
    ];
}

impl Error {
    /// Whether the printer refuses our access code.
    pub const fn is_wrong_code(self) -> bool {
        matches!(self, Self::WrongCode(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(code) => {
                write!(
                    f,
                    "the printer's FTP server is busy ({code}); do other programs use its sessions?"
                )
            }
            Self::WrongCode(_) => Cause::WRONG_CODE.fmt(f),
            Self::NoAnswer => f.write_str("the printer's FTP server does not answer"),
            Self::UnexpectedReply => f.write_str("unexpected reply of the printer's FTP server"),
            Self::ServiceClosing => {
                f.write_str("the printer's FTP server closed the session (421)")
            }
            Self::IdleTimeout => f.write_str("idle timeout"),
        }
    }
}

impl core::error::Error for Error {}

/// The line that is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    User,
    Pass,
    Pbsz,
    Pwd,
    Type(Type),
    Prot(Prot),
    /// CWD to the client's directory.
    Directory,
    Epsv,
    Pasv,
    Restart(u64),
    /// The client's RNFR line.
    Renaming,
    /// The client's own line.
    Command,
    Size,
    Quit,
}

/// What the session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The reply to the TCP connection: 220.
    Greeting,
    /// The reply to USER.
    User,
    /// The reply to PASS.
    Pass,
    /// The reply to PBSZ.
    Pbsz,
    /// The reply to PWD after the login.
    Home,
    /// A job.
    Idle,
    /// The reply to a setting for the job.
    Setting(Outgoing),
    /// The reply to EPSV or PASV.
    Passive,
    /// The data connection to the printer.
    Connecting,
    /// The reply to the client's line.
    Command,
    /// The end of the data.
    Moving,
    /// The final reply, after all data have been copied.
    Outcome,
    /// The reply to PWD after a change of directory.
    Directory,
    /// The reply to SIZE after a 426.
    Sizing,
    /// The final reply to an aborted transfer.
    Aborting(TransferError),
    /// The reply to QUIT.
    Quitting,
}

/// The session's working directory at the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkingDirectory {
    /// The directory of the login.
    Home,
    /// The one in `here`.
    Known,
    /// Unknown: PWD failed.
    Unknown,
}

/// A session with the printer.
pub struct Upstream {
    hub: Rc<Hub>,
    printer_session: Rc<PrinterSession>,
    code: Rc<AccessCode>,
    state: State,
    /// The current time at the last call.
    now: Instant,
    until: Option<Instant>,
    outgoing: Option<Outgoing>,
    replies: Replies,
    lines: u32,
    /// The rest of a line that was too long is skipped.
    skipping: bool,
    /// Whether the login succeeded; from then on the end of the session is no reason to wait before the next.
    logged_in: bool,
    /// TYPE and PROT of the session. `None`: not set yet.
    kind: Option<Type>,
    prot: Option<Prot>,
    directory: WorkingDirectory,
    here: heapless::Vec<u8, PATH>,
    home: heapless::Vec<u8, PATH>,
    /// A REST is pending at the printer: some client's.
    restart_pending: bool,
    job: Steps,
    /// A final reply that is kept until the client may get it.
    held: heapless::Vec<u8, LINE>,
    features: Features,
    pace: moving::Pace,
}

/// Which steps of the current job are done.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    /// The data connection to the printer is made.
    connected: bool,
    /// REST was accepted.
    restarted: bool,
    /// RNFR was accepted.
    renamed: bool,
    /// The printer refused TYPE for a listing, which works without.
    typed: bool,
    /// The offset of the REST.
    offset: u64,
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
            now,
            until: Some(now + ANSWER_TIMEOUT),
            outgoing: None,
            replies: Replies::default(),
            lines: 0,
            skipping: false,
            logged_in: false,
            kind: None,
            prot: None,
            directory: WorkingDirectory::Home,
            here: heapless::Vec::new(),
            home: heapless::Vec::new(),
            restart_pending: false,
            job: Steps::default(),
            held: heapless::Vec::new(),
            features: Features::default(),
            pace: moving::Pace::default(),
        }
    }

    /// Whether the login succeeded.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in
    }

    /// Reports to the hub what became of the current job or of its client's settings.
    fn emit(&self, event: Event<'_>) {
        if let Some(job) = self.printer_session.job() {
            self.hub.apply(&job, event);
        }
    }

    fn send(&mut self, now: Instant, state: State, outgoing: Outgoing, within: Duration) {
        self.state = state;
        self.outgoing = Some(outgoing);
        self.until = Some(now + within);
    }

    /// The slot of the current job's client. `None`: there is no job, or the client has disconnected.
    fn slot(&self) -> Option<&Rc<Slot>> {
        self.hub.client_of(&self.printer_session.job()?)
    }

    /// Ends the job and waits for the next.
    fn finish(&mut self, now: Instant, result: Result<(), fmt::Arguments<'_>>) {
        self.printer_session.end(now, result);
        self.set_idle(now);
    }

    fn set_idle(&mut self, now: Instant) {
        self.state = State::Idle;
        self.outgoing = None;
        self.until = Some(now + IDLE_TIMEOUT);
        self.job = Steps::default();
        self.held.clear();
        self.features = Features::default();
        self.printer_session.set_idle();
    }

    fn is_transfer(&self) -> bool {
        self.printer_session.job().is_some_and(|job| job.command_kind.transfer().is_some())
    }

    /// Closes the data connections, so that neither end takes a part of the data for the whole.
    fn close_data(&self) {
        self.printer_session.send_command(DataCommand::Close);
    }

    fn hold(&mut self, line: &[u8]) {
        self.held.clear();
        // Cannot fail: a longer line was cut.
        let _fits = self.held.extend_from_slice(line.get(..LINE).unwrap_or(line));
    }

    /// Handles what the data connection's task reported.
    fn handle_data_event(&mut self, now: Instant) {
        let Some(event) = self.printer_session.take_event() else { return };
        match (self.state, event) {
            (State::Connecting, DataEvent::Connected) => {
                self.job.connected = true;
                self.advance(now);
            }
            (State::Connecting, DataEvent::Unreachable) => self.answer_unreachable(now),
            (State::Moving, DataEvent::Copied) => self.handle_copied(now),
            (State::Moving, DataEvent::Failed(error)) => self.abort(now, error),
            // About a transfer that is over.
            (
                _,
                DataEvent::Connected
                | DataEvent::Unreachable
                | DataEvent::Copied
                | DataEvent::Failed(_),
            ) => {}
        }
    }

    fn answer_unreachable(&mut self, now: Instant) {
        self.answer(now, format_args!("425 The printer's data port does not answer"));
    }

    /// Ends or aborts the job if its client has disconnected.
    fn check_client(&mut self, now: Instant) {
        let Some(job) = self.printer_session.job() else { return };
        if self.hub.client_of(&job).is_some() {
            return;
        }
        match self.state {
            State::Connecting => self.finish_without_client(now),
            State::Moving if !self.held.is_empty() => self.finish_without_client(now),
            State::Moving => self.abort(now, TransferError::Client),
            State::Command if self.outgoing.take().is_some() => self.finish_without_client(now),
            State::Command if job.command_kind.transfer().is_some() => {
                self.abort(now, TransferError::Client);
            }
            // The reply that is awaited comes soon; `advance` checks again then.
            State::Greeting
            | State::User
            | State::Pass
            | State::Pbsz
            | State::Home
            | State::Idle
            | State::Setting(_)
            | State::Passive
            | State::Command
            | State::Outcome
            | State::Directory
            | State::Sizing
            | State::Aborting(_)
            | State::Quitting => {}
        }
    }

    fn finish_without_client(&mut self, now: Instant) {
        self.close_data();
        self.finish(now, Err(format_args!("{}", TransferError::Client)));
    }

    /// One line of a reply.
    fn handle_line(&mut self, now: Instant, line: &[u8]) -> Result<(), Error> {
        let Some(part) = self.replies.take(line) else { return Err(Error::UnexpectedReply) };
        match part {
            Part::More(code) => {
                self.lines += 1;
                if self.lines > MAX_REPLY_LINES {
                    return Err(Error::UnexpectedReply);
                }
                if self.state == State::Command {
                    self.forward(code, line);
                }
                Ok(())
            }
            Part::Last(code) => {
                self.lines = 0;
                self.handle_reply(now, code, line)
            }
        }
    }

    /// The last line of a reply.
    fn handle_reply(&mut self, now: Instant, code: u16, line: &[u8]) -> Result<(), Error> {
        match self.state {
            State::Greeting | State::User | State::Pass | State::Pbsz | State::Home => {
                return self.handle_login(now, code, line);
            }
            State::Idle if code == 421 => return Err(Error::ServiceClosing),
            State::Idle => return Err(Error::UnexpectedReply),
            State::Setting(_) | State::Passive | State::Directory | State::Sizing
                if is_of_a_transfer(code) =>
            {
                return Err(Error::UnexpectedReply);
            }
            State::Command if is_of_a_transfer(code) && !self.is_transfer() => {
                return Err(Error::UnexpectedReply);
            }
            State::Setting(setting) => self.handle_setting(now, setting, code, line),
            State::Passive => self.handle_passive(now, code, line),
            // The printer closes its data port before the connection to it is made.
            State::Connecting => {
                self.close_data();
                self.conclude(now, line);
            }
            State::Command => self.handle_answer(now, code, line),
            State::Moving => self.handle_early_outcome(now, code, line),
            State::Outcome => self.handle_outcome(now, code, line),
            State::Directory => {
                self.handle_directory(code, line);
                self.conclude_with_held(now);
            }
            State::Sizing => self.handle_sizing(now, code, line),
            State::Aborting(error) => self.handle_aborted(now, error, code, line),
            State::Quitting => return Err(Error::IdleTimeout),
        }
        Ok(())
    }

    /// A reply between the TCP connection and the end of the login.
    fn handle_login(&mut self, now: Instant, code: u16, line: &[u8]) -> Result<(), Error> {
        match (self.state, code) {
            (State::Greeting, ..200) => {}
            (State::Greeting, 220) => self.send(now, State::User, Outgoing::User, ANSWER_TIMEOUT),
            (State::User, 331 | 332) => {
                self.send(now, State::Pass, Outgoing::Pass, ANSWER_TIMEOUT);
            }
            (State::User | State::Pass, 200..=299) => {
                self.send(now, State::Pbsz, Outgoing::Pbsz, ANSWER_TIMEOUT);
            }
            (State::User | State::Pass, 430 | 530) => return Err(Error::WrongCode(code)),
            // A printer that refuses PBSZ refuses PROT as well, and that reply reaches a client.
            (State::Pbsz, _) => self.send(now, State::Home, Outgoing::Pwd, ANSWER_TIMEOUT),
            (State::Home, _) => {
                if !(matches!(code, 200..=299) && wire::quoted(line, &mut self.home)) {
                    self.home.clear();
                    let _fits = self.home.push(b'/');
                }
                self.logged_in = true;
                self.hub.set_reachable();
                self.set_idle(now);
            }
            // Another code is not about the access code: too many sessions, or a fault of the printer's.
            (_, _) => return Err(Error::Busy(code)),
        }
        Ok(())
    }

    /// Writes the next line, whole and in one piece.
    fn write(&self, outgoing: Outgoing, out: &mut [u8]) -> usize {
        let mut line = Writer { out, len: 0 };
        match outgoing {
            Outgoing::User => {
                line.put(b"USER ");
                line.put(USER.as_bytes());
            }
            Outgoing::Pass => {
                line.put(b"PASS ");
                line.put(self.code.reveal());
            }
            Outgoing::Pbsz => line.put(b"PBSZ 0"),
            Outgoing::Pwd => line.put(b"PWD"),
            Outgoing::Type(Type::Ascii) => line.put(b"TYPE A"),
            Outgoing::Type(Type::Image) => line.put(b"TYPE I"),
            Outgoing::Prot(Prot::Clear) => line.put(b"PROT C"),
            Outgoing::Prot(Prot::Private) => line.put(b"PROT P"),
            Outgoing::Directory => {
                line.put(b"CWD ");
                match self.slot().map(|slot| slot.directory.borrow()) {
                    Some(directory) if !directory.is_empty() => line.put(&directory),
                    Some(_) | None => line.put(&self.home),
                }
            }
            Outgoing::Epsv => line.put(b"EPSV"),
            Outgoing::Pasv => line.put(b"PASV"),
            Outgoing::Restart(offset) => {
                line.put(b"REST ");
                let mut digits = heapless::String::<20>::new();
                // Cannot fail: a number of 64 bits has at most 20 digits.
                let _fits = fmt::write(&mut digits, format_args!("{offset}"));
                line.put(digits.as_bytes());
            }
            Outgoing::Renaming => {
                if let Some(slot) = self.slot() {
                    line.put(&slot.renaming.borrow());
                }
            }
            Outgoing::Command => {
                self.printer_session.set_sent();
                self.printer_session.with_line(|text| line.put(text));
            }
            Outgoing::Size => {
                line.put(b"SIZE ");
                self.printer_session.with_argument(|name| line.put(name));
            }
            Outgoing::Quit => line.put(b"QUIT"),
        }
        line.put(b"\r\n");
        line.len
    }
}

impl Session for Upstream {
    /// None: see [`event`](super::event).
    type Event<'i> = Infallible;
    type Error = Error;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Consumed<Infallible, Error> {
        self.now = now;
        if !self.reads() {
            return Ok((0, None));
        }
        self.handle_data_event(now);
        let (text, len) = match wire::line(input) {
            Taken::Partial => return Ok((0, None)),
            Taken::Line(text, len) => (text, len),
            // The line is cut to leave room for our own CRLF.
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

    /// Lines that go straight to a client need room in its slot.
    fn reads(&self) -> bool {
        match (self.state, self.printer_session.job()) {
            (State::Command, Some(job)) => self.hub.has_room(&job),
            _ => true,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.now = now;
        if self.until.is_none_or(|until| now < until) {
            return Ok(());
        }
        match self.state {
            State::Idle => self.send(now, State::Quitting, Outgoing::Quit, QUIT_TIMEOUT),
            State::Connecting => {
                self.close_data();
                self.answer_unreachable(now);
            }
            State::Moving => self.check_pace(now),
            State::Quitting => return Err(Error::IdleTimeout),
            State::Aborting(error) => {
                self.answer_aborted(error);
                return Err(Error::NoAnswer);
            }
            State::Greeting
            | State::User
            | State::Pass
            | State::Pbsz
            | State::Home
            | State::Setting(_)
            | State::Passive
            | State::Command
            | State::Outcome
            | State::Directory
            | State::Sizing => return Err(Error::NoAnswer),
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        self.now = now;
        self.handle_data_event(now);
        self.check_client(now);
        if self.state == State::Idle {
            self.start_next(now);
        }
        match self.outgoing.take() {
            Some(outgoing) => Output::Written(self.write(outgoing, out)),
            None => Output::Idle,
        }
    }
}

impl Drop for Upstream {
    /// A transfer that is cut off by the end of the program has its last log line as well.
    fn drop(&mut self) {
        if self.hub.is_leaving() {
            let why = format_args!("shutting down before the printer confirmed it");
            self.printer_session.end(self.now, Err(why));
        }
    }
}

/// Whether a reply of this code is about a data transfer, and so never the reply to another command: if it were
/// taken for one, each further reply would be matched with the wrong command.
const fn is_of_a_transfer(code: u16) -> bool {
    matches!(code, 125 | 150 | 225 | 226 | 426)
}

/// Writes to the front of an outbox, which has room for the longest line.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.out.get_mut(self.len..).unwrap_or_default();
        let fits = bytes.len().min(room.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..fits), bytes.get(..fits)) {
            room.copy_from_slice(bytes);
            self.len += fits;
        }
    }
}
