//! One client's control connection.
//!
//! # On the wire
//!
//! ```text
//!   client                         proxy
//!     │◄─ 220 ────────────────────────│  after the TLS handshake (implicit TLS)
//!     │── USER bblp, PASS code ──────►│  within 15 s of the TCP connection
//!     │◄─ 331, 230 ───────────────────│  the proxy checks the code; 530 and closed if it is wrong
//!     │── PBSZ, PROT, TYPE, EPSV … ──►│  answered here; the printer gets them when a command needs them
//!     │── STOR, LIST, CWD … ─────────►│  queued until one of the printer's sessions is free
//!     │◄─ the printer's reply ────────│
//! ```
//!
//! While a command is queued or runs, only ABOR and STAT without an argument are read; further lines wait, QUIT
//! included: it takes effect when the transfer is finished (RFC 959 section 4.1.1). Nothing is sent in between: a
//! preliminary reply before the outcome is known would be taken for the beginning of the transfer.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time to log in | [`LOGIN_TIMEOUT`] | 421 and closed |
//! | a line | [`LINE`](super::wire::LINE) bytes | 500 and closed |
//! | lines sent before the reply to the command before them | [`FTP_INBOX`] bytes | 500 and closed |
//! | time without a command | [`IDLE_TIMEOUT`] | 421 and closed |
//! | time in the queue | [`QUEUE_TIMEOUT`] | 451 |
//! | an unused data port | [`PASSIVE_PORT_TIMEOUT`](super::slot::PASSIVE_PORT_TIMEOUT) | closed; 425 to a command that waits for its connection |

use alloc::rc::Rc;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use super::hub::{Hub, QUEUE_TIMEOUT};
use super::slot::{CommandKind, PassivePort, Prot, Slot, SlotState, Stage, Transfer, Type};
use super::wire::{self, Command, Fault, Taken, Verb};
use crate::auth::{AccessCode, Guess, LoginError, USER};
use crate::cause::Cause;
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget::FTP_INBOX;
use crate::memory::slots::Slot as _;
use crate::rejections;
use crate::session::{ClientError, Consumed, Output, Session};

/// Time without a command after which a client is disconnected: vsFTPd's default, so printers do the same
/// ([protocol](crate::protocol#ftps)). A command that is queued or runs does not count as idleness.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Time from the TCP connection to a successful login. Clients ask their users for the code before they connect.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client's session needs from the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client logged in.
    Admitted,
    /// The client needs a data port; [`Client::passive`] answers it.
    Passive {
        /// Whether the command was EPSV; else it was PASV.
        extended: bool,
    },
}

/// Why a client is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The client sent QUIT.
    Quit,
    /// The printer's session was lost in the middle of a reply of several lines.
    Truncated,
    /// No login within [`LOGIN_TIMEOUT`].
    Silent,
    /// No command for [`IDLE_TIMEOUT`].
    Idle,
    /// A line is longer than [`LINE`](super::wire::LINE) bytes.
    TooLong,
    /// The client sent [`FTP_INBOX`] bytes before the reply to its command.
    PipelineOverflow,
    /// The user name or the access code is wrong.
    Login(LoginError),
    /// There are [`CLIENTS`](super::CLIENTS) clients already.
    NoSlot,
    /// The proxy shuts down.
    ShuttingDown,
}

#[cfg(test)]
impl Error {
    pub(super) const ALL: [Self; 11] = [
        Self::Quit,
        Self::Truncated,
        Self::Silent,
        Self::Idle,
        Self::TooLong,
        Self::PipelineOverflow,
        Self::Login(LoginError::WrongUser),
        Self::Login(LoginError::WrongCode(Guess::ANY)),
        Self::Login(LoginError::LockedOut),
        Self::NoSlot,
        Self::ShuttingDown,
    ];
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::Login(LoginError::LockedOut) => Kind::Refused,
            Self::Login(_) => Kind::WrongCode,
            Self::Silent => Kind::Silent,
            Self::TooLong => Kind::TooLong,
            Self::Quit | Self::Idle | Self::ShuttingDown | Self::Truncated => Kind::Left,
            Self::PipelineOverflow => Kind::Malformed,
            Self::NoSlot => Kind::Refused,
        }
    }

    fn login_error(self) -> Option<LoginError> {
        if let Self::Login(error) = self { Some(error) } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("QUIT received"),
            Self::Truncated => f.write_str("printer connection lost in mid-reply"),
            Self::Silent => {
                write!(f, "no login within {} s", LOGIN_TIMEOUT.as_secs())
            }
            Self::Idle => {
                write!(f, "no command for {} s", IDLE_TIMEOUT.as_secs())
            }
            Self::PipelineOverflow => {
                write!(f, "more than {FTP_INBOX} bytes of pipelined commands")
            }
            Self::TooLong => {
                write!(f, "line longer than {} bytes", wire::LINE)
            }
            Self::Login(error) => error.fmt(f),
            Self::NoSlot => write!(f, "{:#}", Cause::CLIENT_SLOTS.with(super::CLIENTS)),
            Self::ShuttingDown => f.write_str("shutting down"),
        }
    }
}

impl core::error::Error for Error {}

enum State {
    /// Not logged in; whether the user name was right, if one was given.
    LoggedOut {
        until: Instant,
        user: Option<bool>,
    },
    /// The client's origin is locked out: the session ends behind its 421.
    Refused,
    LoggedIn,
}

/// One client's session.
pub struct Client {
    hub: Rc<Hub>,
    slot: Rc<Slot>,
    code: Rc<AccessCode>,
    /// The address of the data ports, as PASV names it: the one that the client connected to.
    reached: IpAddr,
    state: State,
    /// Time of the last command or reply; before the login, the deadline of the login.
    active_at: Instant,
    /// The client sent EPSV ALL: PASV is refused (RFC 2428 section 4).
    extended_only: bool,
    /// Whether a malformed line was logged: one per client.
    malformed_logged: bool,
    /// Whether the 421 of the shutdown was sent.
    dismissed: bool,
}

impl Client {
    pub(super) fn new(
        hub: Rc<Hub>,
        slot: Rc<Slot>,
        code: Rc<AccessCode>,
        reached: IpAddr,
        until: Instant,
    ) -> Self {
        slot.reply(format_args!("220 PandaProxy FTP"));
        Self::with(hub, slot, code, reached, (State::LoggedOut { until, user: None }, until))
    }

    /// A session that refuses the client, since its origin is locked out.
    pub(super) fn refused(
        hub: Rc<Hub>,
        slot: Rc<Slot>,
        code: Rc<AccessCode>,
        reached: IpAddr,
        now: Instant,
    ) -> Self {
        slot.reply(format_args!("421 Locked out after wrong access codes, try again in a minute"));
        Self::with(hub, slot, code, reached, (State::Refused, now))
    }

    const fn with(
        hub: Rc<Hub>,
        slot: Rc<Slot>,
        code: Rc<AccessCode>,
        reached: IpAddr,
        (state, active_at): (State, Instant),
    ) -> Self {
        Self {
            hub,
            slot,
            code,
            reached,
            state,
            active_at,
            extended_only: false,
            malformed_logged: false,
            dismissed: false,
        }
    }

    /// Answers PASV or EPSV with the data port. `None`: all are in use.
    pub fn passive(&mut self, now: Instant, extended: bool, port: Option<u16>) {
        let Some(port) = port else {
            self.slot.close_passive_port();
            self.slot.reply(format_args!("425 All data ports are in use, try again later"));
            return;
        };
        self.slot.open_passive_port(now);
        let mut text = heapless::String::<64>::new();
        // Both fit.
        let _fits = match (extended, self.reached.to_canonical()) {
            (false, IpAddr::V4(address)) => wire::write_227(&mut text, address, port),
            (true, _) | (false, IpAddr::V6(_)) => wire::write_229(&mut text, port),
        };
        self.slot.reply(format_args!("{text}"));
    }

    /// Sends one line; no event for the runtime.
    fn reply(&self, line: &str) -> Option<Event> {
        self.slot.reply(format_args!("{line}"));
        None
    }

    /// Refuses a malformed line; the first one of a client is logged. Before the login, such lines are rate-limited.
    fn refuse_malformed(&mut self, now: Instant, fault: Fault) {
        let code = if fault == Fault::Verb { 500 } else { 501 };
        self.slot.reply(format_args!("{code} Malformed command: {fault}"));
        if !self.malformed_logged
            && let Some(peer) = self.slot.peer()
        {
            self.malformed_logged = true;
            let line = format_args!("{peer}: malformed command: {fault}");
            match self.state {
                State::LoggedIn => journal::note(Kind::Malformed, line),
                State::LoggedOut { .. } | State::Refused => {
                    rejections::note(now, Kind::Malformed, peer.address, line);
                }
            }
        }
    }

    /// A command while no other is queued or runs.
    fn handle(&mut self, now: Instant, command: &Command<'_>) -> Result<Option<Event>, Error> {
        let logged_out = !matches!(self.state, State::LoggedIn);
        // PBSZ and PROT may come before USER (RFC 4217 section 12).
        let before_login = matches!(
            command.verb,
            Verb::Quit
                | Verb::User
                | Verb::Pass
                | Verb::Auth
                | Verb::Noop
                | Verb::Pbsz
                | Verb::Prot
        );
        if logged_out && !before_login {
            self.reply("530 Not logged in: send USER and PASS");
            return Ok(None);
        }
        let argument = command.argument;
        let command_kind = match command.verb {
            Verb::Quit => {
                self.reply("221 Goodbye");
                return Err(Error::Quit);
            }
            Verb::User => return Ok(self.handle_user(argument)),
            Verb::Pass => return self.handle_pass(argument),
            Verb::Pasv => return Ok(self.handle_pasv()),
            Verb::Epsv => return Ok(self.handle_epsv(argument)),
            Verb::Auth => return Ok(self.reply("503 TLS is already in use")),
            Verb::Noop => return Ok(self.reply("200 OK")),
            Verb::Type => return Ok(self.handle_type(argument)),
            Verb::Mode => return Ok(self.one_of(argument, b"S", "504 Only MODE S is supported")),
            Verb::Stru => return Ok(self.one_of(argument, b"F", "504 Only STRU F is supported")),
            Verb::Pbsz => return Ok(self.reply("200 PBSZ=0")),
            Verb::Prot => return Ok(self.handle_prot(argument)),
            Verb::Opts => return Ok(self.handle_opts(argument)),
            Verb::Port => {
                return Ok(self.reply("502 Active mode is not supported, use PASV or EPSV"));
            }
            Verb::Unserved => return Ok(self.reply("502 Command not supported")),
            Verb::Abor => return Ok(self.reply("226 No transfer to abort")),
            // Another client's RNFR may be pending at the printer.
            Verb::Rnto if self.slot.renaming.borrow().is_empty() => {
                return Ok(self.reply("503 Send RNFR first"));
            }
            Verb::Rnto => CommandKind::RenameTo,
            Verb::Rnfr => CommandKind::RenameFrom,
            Verb::Rest => CommandKind::Restart,
            Verb::Cwd | Verb::Cdup => CommandKind::ChangeDirectory,
            Verb::Allo => CommandKind::Allocate,
            Verb::Size => CommandKind::Size,
            Verb::Feat => CommandKind::Features,
            Verb::List | Verb::Nlst | Verb::Mlsd => CommandKind::Transfer(Transfer::List),
            Verb::Retr => CommandKind::Transfer(Transfer::Retrieve),
            Verb::Stor => CommandKind::Transfer(Transfer::Store),
            Verb::Stou => CommandKind::Transfer(Transfer::StoreUnique),
            Verb::Appe => CommandKind::Transfer(Transfer::Append),
            Verb::Stat | Verb::Other => CommandKind::Plain,
        };
        let argument_at = command.line.len() - argument.len();
        self.hub.submit(now, &self.slot, command_kind, command.line, argument_at);
        Ok(None)
    }

    fn handle_user(&mut self, name: &[u8]) -> Option<Event> {
        match &mut self.state {
            State::LoggedOut { user, .. } => {
                *user = Some(name == USER.as_bytes());
                self.reply("331 Password required")
            }
            State::LoggedIn | State::Refused => self.reply("503 Already logged in"),
        }
    }

    fn handle_pass(&mut self, code: &[u8]) -> Result<Option<Event>, Error> {
        let State::LoggedOut { user, .. } = self.state else {
            return Ok(self.reply("503 Already logged in"));
        };
        let Some(user) = user else {
            return Ok(self.reply("503 Send USER first"));
        };
        if !user {
            self.slot.reply(format_args!("530 Wrong user name: use {USER}"));
            return Err(Error::Login(LoginError::WrongUser));
        }
        if !self.code.admits(code) {
            self.reply("530 Wrong access code: see the printer's screen");
            return Err(Error::Login(LoginError::WrongCode(Guess::of(code))));
        }
        if !self.hub.admit(&self.slot) {
            self.reply("421 Too many clients");
            return Err(Error::NoSlot);
        }
        self.state = State::LoggedIn;
        self.reply("230 Logged in");
        Ok(Some(Event::Admitted))
    }

    fn handle_type(&self, argument: &[u8]) -> Option<Event> {
        let kind = match argument.trim_ascii() {
            [b'I' | b'i'] | [b'L' | b'l', b' ', b'8'] => Type::Image,
            [b'A' | b'a'] | [b'A' | b'a', b' ', b'N' | b'n'] => Type::Ascii,
            _ => return self.reply("504 Only TYPE I and TYPE A are supported"),
        };
        self.slot.kind.set(kind);
        self.reply("200 OK")
    }

    fn handle_prot(&self, argument: &[u8]) -> Option<Event> {
        let prot = match argument.trim_ascii() {
            [b'P' | b'p'] => Prot::Private,
            [b'C' | b'c'] => Prot::Clear,
            _ => return self.reply("536 Only PROT P and PROT C are supported"),
        };
        self.slot.prot.set(prot);
        self.reply("200 OK")
    }

    fn handle_opts(&self, argument: &[u8]) -> Option<Event> {
        // Another option would stay set at the printer for the next client.
        let utf8 = argument.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"UTF8"));
        self.reply(if utf8 {
            "200 File names are passed on unchanged"
        } else {
            "501 Option not supported"
        })
    }

    fn one_of(&self, argument: &[u8], only: &[u8], otherwise: &str) -> Option<Event> {
        let fits = argument.trim_ascii().eq_ignore_ascii_case(only);
        self.reply(if fits { "200 OK" } else { otherwise })
    }

    fn handle_pasv(&self) -> Option<Event> {
        if self.extended_only {
            return self.reply("501 Not allowed after EPSV ALL, use EPSV");
        }
        if self.reached.to_canonical().is_ipv6() {
            return self.reply("501 PASV does not support IPv6, use EPSV");
        }
        Some(Event::Passive { extended: false })
    }

    fn handle_epsv(&mut self, argument: &[u8]) -> Option<Event> {
        let family = if self.reached.to_canonical().is_ipv6() { b"2" } else { b"1" };
        match argument.trim_ascii() {
            all if all.eq_ignore_ascii_case(b"ALL") => {
                self.extended_only = true;
                self.reply("200 OK")
            }
            [] => Some(Event::Passive { extended: true }),
            asked if asked == family => Some(Event::Passive { extended: true }),
            b"1" | b"2" => {
                let only = family.escape_ascii();
                self.slot.reply(format_args!("522 Network protocol not supported, use ({only})"));
                None
            }
            _ => self.reply("501 Only EPSV, EPSV 1, EPSV 2 and EPSV ALL are supported"),
        }
    }

    /// Leaves the lines behind a running command unread. When the inbox is full the client is disconnected: the
    /// connection would not be read any more, so its end would not be noticed.
    fn leave_waiting(&self, input: &[u8]) -> Consumed<Event, Error> {
        if input.len() < FTP_INBOX {
            return Ok((0, None));
        }
        self.reply("500 Too many pipelined commands");
        Err(Error::PipelineOverflow)
    }

    /// A command while another is queued or runs. Whether it was handled.
    fn handle_meanwhile(&self, command: &Command<'_>, stage: Stage) -> bool {
        if self.slot.is_mid_reply() {
            return false;
        }
        match (command.verb, stage) {
            (Verb::Abor, _) => {
                self.hub.drop_task(&self.slot);
                self.reply("426 Transfer aborted");
                self.reply("226 Abort successful");
                true
            }
            (Verb::Stat, Stage::Running { printer_session }) if command.argument.is_empty() => {
                let moved = self
                    .hub
                    .printer_session(printer_session)
                    .map_or(0, |printer_session| printer_session.bytes());
                self.slot.reply(format_args!("211 {moved} bytes transferred"));
                true
            }
            (Verb::Stat, Stage::Queued { .. }) if command.argument.is_empty() => {
                match self.hub.wait_of(&self.slot) {
                    Some(wait) => self.slot.reply(format_args!("211 Queued: {wait}")),
                    None => self.slot.reply(format_args!("211 Queued: connecting to the printer")),
                }
                true
            }
            (Verb::Stat, Stage::Connecting { .. }) if command.argument.is_empty() => {
                self.reply("211 Waiting for the data connection");
                true
            }
            _ => false,
        }
    }
}

impl Session for Client {
    type Event<'i> = Event;
    type Error = Error;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Consumed<Event, Error> {
        // One reply at a time: a client that does not take its replies is not read.
        if !self.slot.is_quiet() {
            return Ok((0, None));
        }
        let task = self.slot.task();
        let (text, len) = match wire::line(input) {
            Taken::Partial => return Ok((0, None)),
            Taken::TooLong if task.is_some() => return self.leave_waiting(input),
            Taken::TooLong => {
                self.slot.reply(format_args!("500 Line longer than {} bytes", wire::LINE));
                return Err(Error::TooLong);
            }
            Taken::Line(text, len) => (text, len),
        };
        let command = wire::command(text);
        if let Some(task) = task {
            return match command {
                Ok(command) if self.handle_meanwhile(&command, task.stage) => Ok((len, None)),
                Ok(_) | Err(_) => self.leave_waiting(input),
            };
        }
        self.active_at = now;
        match command {
            Ok(command) => Ok((len, self.handle(now, &command)?)),
            Err(fault) => {
                self.refuse_malformed(now, fault);
                Ok((len, None))
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let State::LoggedOut { until, .. } = self.state
            && until <= now
        {
            self.reply("421 Login timeout");
            return Err(Error::Silent);
        }
        if let State::Refused = self.state {
            return Err(Error::Login(LoginError::LockedOut));
        }
        match self.slot.task() {
            Some(task) => match task.stage {
                Stage::Connecting { until } if until <= now => {
                    let line = format_args!("425 No connection to the data port");
                    self.hub.conclude(&self.slot, task.number, line);
                }
                Stage::Queued { until } if until <= now => {
                    let waited = QUEUE_TIMEOUT.as_secs() / 60;
                    let reason =
                        format_args!("No free FTP session of the printer in {waited} minutes");
                    self.hub.refuse(&self.slot, task.number, reason);
                }
                Stage::Connecting { .. } | Stage::Queued { .. } | Stage::Running { .. } => {}
            },
            None if self.active_at + IDLE_TIMEOUT <= now => {
                self.slot.reply(format_args!("421 No command for {} s", IDLE_TIMEOUT.as_secs()));
                return Err(Error::Idle);
            }
            None => match self.slot.passive_port() {
                PassivePort::Open { until } | PassivePort::Connected { until } if until <= now => {
                    self.slot.close_passive_port();
                }
                PassivePort::Open { .. } | PassivePort::Connected { .. } | PassivePort::Closed => {}
            },
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::LoggedOut { until, .. } => return Some(until),
            State::Refused => return Some(self.active_at),
            State::LoggedIn => {}
        }
        match self.slot.task() {
            Some(task) => match task.stage {
                Stage::Connecting { until } | Stage::Queued { until } => Some(until),
                Stage::Running { .. } => None,
            },
            None => {
                let idle = self.active_at + IDLE_TIMEOUT;
                Some(match self.slot.passive_port() {
                    PassivePort::Open { until } | PassivePort::Connected { until } => {
                        until.min(idle)
                    }
                    PassivePort::Closed => idle,
                })
            }
        }
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if self.slot.state() == SlotState::Dismissed(()) {
            if self.slot.task().is_some() {
                self.hub.drop_task(&self.slot);
                self.reply("426 Transfer aborted");
            }
            if core::mem::replace(&mut self.dismissed, true) {
                return Output::End(Error::ShuttingDown);
            }
            self.reply("421 Shutting down");
            return Output::Written(self.slot.take(out));
        }
        match self.slot.take(out) {
            0 if self.slot.is_torn() => Output::End(Error::Truncated),
            0 => Output::Idle,
            len => {
                self.active_at = now;
                self.hub.drained(&self.slot);
                Output::Written(len)
            }
        }
    }
}
