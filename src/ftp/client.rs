//! One client's control connection: a slicer, a file manager, home automation.
//!
//! # On the wire
//!
//! ```text
//!   client                         proxy
//!     │◄─ 220 ────────────────────────│  TLS stands before the first byte
//!     │── USER bblp, PASS code ──────►│  within fifteen seconds, TLS included
//!     │◄─ 331, 230 ───────────────────│  the code is checked here; 530 and closed if it is wrong
//!     │── PBSZ, PROT, TYPE, EPSV … ──►│  answered here; the printer hears of it when it matters
//!     │── STOR, LIST, CWD … ─────────►│  waits for a session of the printer's, however long
//!     │◄─ the printer's answer ───────│
//! ```
//!
//! While a command waits or runs, further lines are not read, but for ABOR and STAT without a path.
//! QUIT waits as well: it means "when that is done" (RFC 959 §4.1.1), and whoever does not want to wait
//! closes the connection. Nothing is sent in between: a preliminary reply before the outcome is known
//! would be taken for the beginning of the transfer.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | time to log in | [`LOGIN_TIMEOUT`] | 421 and closed |
//! | a line | [`LINE`](super::wire::LINE) bytes | 500 and closed |
//! | lines sent ahead of an answer | [`FTP_INBOX`] bytes | 500 and closed |
//! | time without a command | [`IDLE_TIMEOUT`] | 421 and closed |
//! | time in the queue | [`QUEUE_TIMEOUT`](super::hub::QUEUE_TIMEOUT) | 450 |
//! | a data port that is not used | [`PASSIVE_PORT_TIMEOUT`](super::slot::PASSIVE_PORT_TIMEOUT) | closed; 425 to a command that waits for it |

use alloc::rc::Rc;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use super::hub::Hub;
use super::slot::{CommandKind, PassivePort, Prot, Slot, SlotState, Stage, Transfer, Type};
use super::wire::{self, Command, Fault, Taken, Verb};
use crate::auth::{AccessCode, USER};
use crate::clock::Instant;
use crate::memory::budget::FTP_INBOX;
use crate::session::{Blame, Output, Session};

/// How long a client may hold its place and ask for nothing: as long as printers let it (vsFTPd's
/// default; PROTOCOL §5.1). Waiting for an answer is not idleness.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a connection may take to show the code, TLS included. A person types it into some clients
/// before they connect, not after.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client's session asks of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The code was right.
    Admitted,
    /// It wants a data port; [`Client::passive`] tells it which.
    Passive {
        /// In the words of EPSV, else in those of PASV.
        extended: bool,
    },
}

/// Why a client's conversation has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It said QUIT.
    Left,
    /// The printer's session was lost in the middle of a reply.
    Torn,
    /// It did not log in within [`LOGIN_TIMEOUT`].
    Silent,
    /// It asked for nothing for [`IDLE_TIMEOUT`].
    Idle,
    /// A line without end.
    TooLong,
    /// [`FTP_INBOX`] bytes behind a command that has not been answered.
    Ahead,
    /// Another user than `bblp`.
    WrongUser,
    /// Another code than the printer's.
    WrongCode,
    /// All slots are taken.
    NoSlot,
    /// This program ends.
    ShuttingDown,
}

impl Error {
    /// Who caused it.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Left | Self::Idle | Self::ShuttingDown => Blame::Nobody,
            Self::Torn => Blame::Network,
            Self::Silent | Self::TooLong | Self::Ahead | Self::WrongUser | Self::WrongCode => {
                Blame::Peer
            }
            Self::NoSlot => Blame::Board,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::Torn => f.write_str("half of the printer's reply was lost"),
            Self::Silent => write!(f, "did not log in within {} s", LOGIN_TIMEOUT.as_secs()),
            Self::Idle => write!(f, "asked for nothing for {} s", IDLE_TIMEOUT.as_secs()),
            Self::Ahead => write!(f, "sent {FTP_INBOX} bytes ahead of an answer"),
            Self::TooLong => write!(f, "sent a line of more than {} bytes", wire::LINE),
            Self::WrongUser => write!(f, "logs in as somebody else than {USER}"),
            Self::WrongCode => f.write_str("wrong access code"),
            Self::NoSlot => write!(f, "refused: {} clients are here already", super::CLIENTS),
            Self::ShuttingDown => f.write_str("shutting down"),
        }
    }
}

impl core::error::Error for Error {}

enum State {
    /// Not logged in; whether the user it named is ours.
    Outside {
        until: Instant,
        user: Option<bool>,
    },
    Inside,
}

/// One client's session.
pub struct Client {
    hub: Rc<Hub>,
    slot: Rc<Slot>,
    code: Rc<AccessCode>,
    /// The address that the client is told for its data.
    reached: IpAddr,
    state: State,
    /// When it last asked for something, or was answered; before that, when it has to have logged in.
    active_at: Instant,
    /// It has said EPSV ALL.
    extended_only: bool,
    /// The one complaint about its lines that is logged.
    complained: bool,
    /// It has been told that this program ends.
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
        slot.say(format_args!("220 PandaProxy: the printer's files"));
        let state = State::Outside { until, user: None };
        Self {
            hub,
            slot,
            code,
            reached,
            state,
            active_at: until,
            extended_only: false,
            complained: false,
            dismissed: false,
        }
    }

    /// The data port it asked for: which, or that there is none.
    pub fn passive(&mut self, now: Instant, extended: bool, port: Option<u16>) {
        let Some(port) = port else {
            self.slot.close_gate();
            self.slot.say(format_args!("425 All data ports are in use: try again later"));
            return;
        };
        self.slot.open_passive_port(now);
        let mut text = heapless::String::<64>::new();
        // Both fit.
        let _fits = match (extended, self.reached.to_canonical()) {
            (false, IpAddr::V4(address)) => wire::write_227(&mut text, address, port),
            (true, _) | (false, IpAddr::V6(_)) => wire::write_229(&mut text, port),
        };
        self.slot.say(format_args!("{text}"));
    }

    /// Says one line; the runtime has nothing to do with it.
    fn say(&self, line: &str) -> Option<Event> {
        self.slot.say(format_args!("{line}"));
        None
    }

    /// Says why a line is refused; the first one of a client is logged.
    fn complain(&mut self, fault: Fault) {
        let code = if fault == Fault::Verb { 500 } else { 501 };
        self.slot.say(format_args!("{code} Not understood: {fault}"));
        if !self.complained
            && let Some(peer) = self.slot.peer()
        {
            self.complained = true;
            let kind = crate::journal::Kind::Malformed;
            crate::journal::note(kind, format_args!("{peer}: sends {fault}"));
        }
    }

    /// A line while nothing is under way.
    fn handle(&mut self, now: Instant, command: &Command<'_>) -> Result<Option<Event>, Error> {
        let outside = matches!(self.state, State::Outside { .. });
        // PBSZ and PROT may come first (RFC 4217 §12), and mean nobody but this client.
        let admission = matches!(
            command.verb,
            Verb::Quit
                | Verb::User
                | Verb::Pass
                | Verb::Auth
                | Verb::Noop
                | Verb::Pbsz
                | Verb::Prot
        );
        if outside && !admission {
            self.say("530 Log in first, with USER and PASS");
            return Ok(None);
        }
        let argument = command.argument;
        let command_kind = match command.verb {
            Verb::Quit => {
                self.say("221 Goodbye");
                return Err(Error::Left);
            }
            Verb::User => return Ok(self.handle_user(argument)),
            Verb::Pass => return self.handle_pass(argument),
            Verb::Pasv => return Ok(self.handle_pasv()),
            Verb::Epsv => return Ok(self.handle_epsv(argument)),
            Verb::Auth => return Ok(self.say("503 This connection is under TLS already")),
            Verb::Noop => return Ok(self.say("200 OK")),
            Verb::Type => return Ok(self.handle_type(argument)),
            Verb::Mode => return Ok(self.one_of(argument, b"S", "504 Stream mode only: MODE S")),
            Verb::Stru => return Ok(self.one_of(argument, b"F", "504 No structure: STRU F")),
            Verb::Pbsz => return Ok(self.say("200 PBSZ=0")),
            Verb::Prot => return Ok(self.handle_prot(argument)),
            Verb::Opts => return Ok(self.handle_opts(argument)),
            Verb::Port => {
                return Ok(self.say("502 Active mode is not served: use passive mode"));
            }
            Verb::Unserved => return Ok(self.say("502 Not served")),
            Verb::Abor => return Ok(self.say("226 Nothing to abort")),
            // The session may have another client's RNFR pending.
            Verb::Rnto if self.slot.renaming.borrow().is_empty() => {
                return Ok(self.say("503 RNFR comes first"));
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
            State::Outside { user, .. } => {
                *user = Some(name == USER.as_bytes());
                self.say("331 And the access code?")
            }
            State::Inside => self.say("503 Logged in already"),
        }
    }

    fn handle_pass(&mut self, code: &[u8]) -> Result<Option<Event>, Error> {
        let State::Outside { user, .. } = self.state else {
            return Ok(self.say("503 Logged in already"));
        };
        let Some(user) = user else {
            return Ok(self.say("503 USER comes first"));
        };
        if !user {
            self.slot.say(format_args!("530 The user is {USER}"));
            return Err(Error::WrongUser);
        }
        if !self.code.admits(code) {
            self.say("530 Wrong access code: it is on the printer's screen");
            return Err(Error::WrongCode);
        }
        if !self.hub.admit(&self.slot) {
            self.say("421 Too many clients");
            return Err(Error::NoSlot);
        }
        self.state = State::Inside;
        self.say("230 Logged in");
        Ok(Some(Event::Admitted))
    }

    fn handle_type(&self, argument: &[u8]) -> Option<Event> {
        let kind = match argument.trim_ascii() {
            [b'I' | b'i'] | [b'L' | b'l', b' ', b'8'] => Type::Image,
            [b'A' | b'a'] | [b'A' | b'a', b' ', b'N' | b'n'] => Type::Ascii,
            _ => return self.say("504 TYPE I or TYPE A"),
        };
        self.slot.kind.set(kind);
        self.say("200 OK")
    }

    fn handle_prot(&self, argument: &[u8]) -> Option<Event> {
        let prot = match argument.trim_ascii() {
            [b'P' | b'p'] => Prot::Private,
            [b'C' | b'c'] => Prot::Clear,
            _ => return self.say("536 PROT P or PROT C"),
        };
        self.slot.prot.set(prot);
        self.say("200 OK")
    }

    fn handle_opts(&self, argument: &[u8]) -> Option<Event> {
        // Anything else would stay set for the next client of the printer's session.
        let utf8 = argument.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"UTF8"));
        self.say(if utf8 { "200 Names are passed on as they are" } else { "501 No such option" })
    }

    fn one_of(&self, argument: &[u8], only: &[u8], otherwise: &str) -> Option<Event> {
        let fits = argument.trim_ascii().eq_ignore_ascii_case(only);
        self.say(if fits { "200 OK" } else { otherwise })
    }

    fn handle_pasv(&self) -> Option<Event> {
        if self.extended_only {
            return self.say("501 EPSV ALL was said: use EPSV");
        }
        if self.reached.to_canonical().is_ipv6() {
            return self.say("501 PASV has no words for IPv6: use EPSV");
        }
        Some(Event::Passive { extended: false })
    }

    fn handle_epsv(&mut self, argument: &[u8]) -> Option<Event> {
        let family = if self.reached.to_canonical().is_ipv6() { b"2" } else { b"1" };
        match argument.trim_ascii() {
            all if all.eq_ignore_ascii_case(b"ALL") => {
                self.extended_only = true;
                self.say("200 OK")
            }
            [] => Some(Event::Passive { extended: true }),
            asked if asked == family => Some(Event::Passive { extended: true }),
            b"1" | b"2" => {
                let only = family.escape_ascii();
                self.slot.say(format_args!("522 Network protocol not supported, use ({only})"));
                None
            }
            _ => self.say("501 EPSV, EPSV 1, EPSV 2 or EPSV ALL"),
        }
    }

    /// Leaves what was said behind a command unread until that is done. Nobody reads on once the inbox
    /// is full, and so nobody would see that the client has gone.
    fn leave_waiting(&self, input: &[u8]) -> Result<(usize, Option<Event>), Error> {
        if input.len() < FTP_INBOX {
            return Ok((0, None));
        }
        self.say("500 Too much was said ahead of an answer");
        Err(Error::Ahead)
    }

    /// A line while a command is under way. Whether it was taken.
    fn handle_meanwhile(&self, command: &Command<'_>, stage: Stage) -> bool {
        if self.slot.is_mid_reply() {
            return false;
        }
        match (command.verb, stage) {
            (Verb::Abor, _) => {
                self.hub.drop_task(&self.slot);
                self.say("426 Given up");
                self.say("226 Aborted");
                true
            }
            (Verb::Stat, Stage::Running { printer_session }) if command.argument.is_empty() => {
                let moved = self
                    .hub
                    .printer_session(printer_session)
                    .map_or(0, |printer_session| printer_session.moved());
                self.slot.say(format_args!("211 {moved} bytes moved so far"));
                true
            }
            (Verb::Stat, Stage::Queued { .. }) if command.argument.is_empty() => {
                self.say("211 Waiting: the printer's FTP session is in use");
                true
            }
            (Verb::Stat, Stage::Connecting { .. }) if command.argument.is_empty() => {
                self.say("211 Waiting for the data connection");
                true
            }
            _ => false,
        }
    }
}

impl Session for Client {
    type Event<'i> = Event;
    type Error = Error;

    fn handle_input(
        &mut self,
        now: Instant,
        input: &[u8],
    ) -> Result<(usize, Option<Event>), Error> {
        // One answer at a time: whoever does not take them is not read.
        if !self.slot.is_quiet() {
            return Ok((0, None));
        }
        let task = self.slot.task();
        let (text, len) = match wire::line(input) {
            Taken::Partial => return Ok((0, None)),
            Taken::TooLong if task.is_some() => return self.leave_waiting(input),
            Taken::TooLong => {
                self.slot.say(format_args!("500 A line has at most {} bytes", wire::LINE));
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
                self.complain(fault);
                Ok((len, None))
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let State::Outside { until, .. } = self.state
            && until <= now
        {
            self.say("421 Too slow to log in");
            return Err(Error::Silent);
        }
        match self.slot.task() {
            Some(task) => match task.stage {
                Stage::Connecting { until } if until <= now => {
                    let line = format_args!("425 Nobody connected to the data port");
                    self.hub.conclude(&self.slot, task.number, line);
                }
                Stage::Queued { until } if until <= now => {
                    let line =
                        format_args!("450 The printer's FTP session was in use all the time");
                    self.hub.conclude(&self.slot, task.number, line);
                }
                Stage::Connecting { .. } | Stage::Queued { .. } | Stage::Running { .. } => {}
            },
            None if self.active_at + IDLE_TIMEOUT <= now => {
                self.slot
                    .say(format_args!("421 Nothing was asked for {} s", IDLE_TIMEOUT.as_secs()));
                return Err(Error::Idle);
            }
            None => match self.slot.passive_port() {
                PassivePort::Open { until } | PassivePort::Connected { until } if until <= now => {
                    self.slot.close_gate();
                }
                PassivePort::Open { .. } | PassivePort::Connected { .. } | PassivePort::Closed => {}
            },
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if let State::Outside { until, .. } = self.state {
            return Some(until);
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
        if self.slot.standing() == SlotState::Dismissed {
            if self.slot.task().is_some() {
                self.hub.drop_task(&self.slot);
                self.say("426 Given up");
            }
            if core::mem::replace(&mut self.dismissed, true) {
                return Output::End(Error::ShuttingDown);
            }
            self.say("421 Shutting down");
            return Output::Written(self.slot.take(out));
        }
        match self.slot.take(out) {
            0 if self.slot.is_torn() => Output::End(Error::Torn),
            0 => Output::Idle,
            len => {
                self.active_at = now;
                self.hub.drained(&self.slot);
                Output::Written(len)
            }
        }
    }
}
