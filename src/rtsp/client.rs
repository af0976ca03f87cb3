//! A player's session: its requests and their answers. What it is sent while playing is in
//! [`playback`](super::playback).
//!
//! ```text
//!   OPTIONS ─► DESCRIBE ─► 401 ─► DESCRIBE with the code ─► SETUP, for each track ─► PLAY ─► packets
//!                                     │ held until the camera has described its stream
//! ```
//!
//! Only OPTIONS is answered without the access code, as printers do.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time to show the code | [`LOGIN_TIMEOUT`], in [`MAX_TALK`] bytes | disconnected |
//! | wrong codes on one connection | [`MAX_WRONG`](crate::auth::MAX_WRONG) | 403, disconnected |
//! | a request | an inbox of `RTSP_INBOX` bytes | 400, disconnected |
//! | a URL | [`MAX_URL`] bytes | 414 |
//! | a player's own packets (RTCP) | skipped, whatever their length | |
//! | time until the camera has described its stream | [`DESCRIBED_TIMEOUT`] | 503 with the reason |
//! | silence of a player that does not play | [`SESSION_TIMEOUT`] | disconnected |
//! | time to take one write of a picture | that of [`runtime::drive`](crate::runtime::drive) | disconnected |

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::answer::{Answer, SESSION_TIMEOUT, Status};
use super::digest::{Nonce, Verdict, judge};
use super::playback::Playback;
use super::slot::{Dismissal, Flow, Slot, SlotState};
use super::stream::{StreamInfo, StreamStatus};
use super::wire::{self, Channels, FRAME_HEAD, Message, Method, Piece, Text, Transport};
use crate::auth::{AccessCode, Guess, LoginError, WrongCodes};
use crate::board::BOARD;
use crate::cause::Cause;
use crate::clock::Instant;
use crate::journal::Kind;
use crate::memory::budget::RTSP_INBOX;
use crate::memory::slots::Slot as _;
use crate::pictures::Pictures;
use crate::session::{ClientError, Consumed, Output, Session};

/// Time to show the access code, from the end of the TLS handshake.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a player may send before it has shown the access code.
pub const MAX_TALK: usize = 8 * 1024;

/// How long DESCRIBE is held until the camera has described its stream.
pub const DESCRIBED_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes in the longest URL of a player's.
pub const MAX_URL: usize = 256;

/// Bytes in the longest body of a request. Bodies are ignored.
const MAX_BODY: usize = 512;

/// The proxy's end of a player's connection.
pub struct Player {
    slot: Rc<Slot>,
    stream_info: Rc<StreamInfo>,
    code: Rc<AccessCode>,
    nonce: Nonce,
    /// The name of its session (RFC 2326 §12.37).
    session: heapless::String<8>,
    login: Login,
    /// When the player last sent something.
    heard: Instant,
    /// Bytes of the player's packet that are still to be skipped.
    skip: usize,
    /// The answer to the last request, until it is written.
    answer: Option<Answer>,
    cseq: Option<u32>,
    /// Until when the player's DESCRIBE is held.
    waits: Option<Instant>,
    /// The URL of the player's DESCRIBE.
    base: heapless::String<MAX_URL>,
    playback: Playback,
}

/// Whether the player has shown the access code.
enum Login {
    /// Not yet.
    Due {
        /// When the connection ends.
        until: Instant,
        /// Bytes that the player has sent.
        received: usize,
        /// Wrong access codes that it has shown.
        wrong: WrongCodes,
        /// Whether its origin is locked out.
        is_locked_out: bool,
    },
    Done,
}

/// What a player's session reports to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether the player has just shown the access code.
    pub admitted: bool,
    /// What the player asks for.
    pub command: Command,
    /// A wrong access code that the player has shown, and after which it may stay.
    pub guess: Option<Guess>,
}

/// What a player asks the hub for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    Nothing,
    /// The description of the stream.
    Describe,
    /// Pictures.
    Play,
    /// No pictures.
    Pause,
}

impl Player {
    /// A session whose access code is due at `until`. `nonce` and `session` are the connection's own.
    pub fn new(
        slot: Rc<Slot>,
        stream_info: Rc<StreamInfo>,
        code: Rc<AccessCode>,
        nonce: Nonce,
        session: heapless::String<8>,
        (now, until): (Instant, Instant),
    ) -> Self {
        let playback = Playback::new(Rc::clone(&slot), Rc::clone(&stream_info));
        Self {
            slot,
            stream_info,
            code,
            nonce,
            session,
            login: Login::Due {
                until,
                received: 0,
                wrong: WrongCodes::new(),
                is_locked_out: false,
            },
            heard: now,
            skip: 0,
            answer: None,
            cseq: None,
            waits: None,
            base: heapless::String::new(),
            playback,
        }
    }

    /// Pictures that the player was sent and lost.
    pub fn pictures(&self) -> &Pictures {
        &self.slot.pictures
    }

    /// Has the login refused, since the player's origin is locked out.
    pub const fn refuse_login(&mut self) {
        if let Login::Due { is_locked_out, .. } = &mut self.login {
            *is_locked_out = true;
        }
    }

    /// Wrong access codes that the player has shown; none once it has shown the right one.
    pub fn wrong_codes(&self) -> &[Guess] {
        match &self.login {
            Login::Due { wrong, .. } => wrong,
            Login::Done => &[],
        }
    }

    /// Checks the request's access code. Returns whether the player has just shown the right one.
    fn authorise(&mut self, method: Method, message: &Message<'_>) -> Result<bool, Refused> {
        let Login::Due { wrong, is_locked_out, .. } = &mut self.login else { return Ok(false) };
        if method == Method::Options {
            return Ok(false);
        }
        if *is_locked_out {
            return Err(Refused::End(Answer::Plain(Status::LOCKED_OUT), Error::LockedOut));
        }
        if method == Method::Other {
            // Its digest cannot be checked: it is made of a method's name that is unknown here.
            return Err(Refused::Answer(Answer::Plain(Status::NOT_IMPLEMENTED)));
        }
        let Some(authorization) = message.field("Authorization") else {
            return Err(Refused::Answer(Answer::Challenge { stale: false }));
        };
        match judge(authorization, method.name(), &self.code, &self.nonce) {
            Verdict::Right => {
                self.login = Login::Done;
                Ok(true)
            }
            Verdict::Stale => Err(Refused::Answer(Answer::Challenge { stale: true })),
            Verdict::Unusable => Err(Refused::Answer(Answer::Challenge { stale: false })),
            Verdict::Wrong => {
                // The same method and credentials are the same code: the nonce is the origin's.
                // Cannot fail: a full list ends the connection.
                let guess = Guess::of((method.name(), authorization));
                let _fits = wrong.push(guess);
                if wrong.is_full() {
                    Err(Refused::End(Answer::Plain(Status::FORBIDDEN), Error::WrongCode))
                } else {
                    Err(Refused::Guess(guess))
                }
            }
        }
    }

    fn request(&mut self, now: Instant, message: &Message<'_>) -> Result<Option<Event>, Error> {
        let Some((method, url)) = message.request() else {
            // A response: there was no request.
            return Ok(None);
        };
        self.cseq = message.cseq();
        if self.cseq.is_none() {
            self.answer = Some(Answer::Plain(Status::BAD_REQUEST));
            return Ok(None);
        }
        let admitted = match self.authorise(method, message) {
            Ok(admitted) => admitted,
            Err(Refused::Answer(answer)) => {
                self.answer = Some(answer);
                return Ok(None);
            }
            Err(Refused::Guess(guess)) => {
                self.answer = Some(Answer::Challenge { stale: false });
                let (admitted, command) = (false, Command::Nothing);
                return Ok(Some(Event { admitted, command, guess: Some(guess) }));
            }
            Err(Refused::End(answer, error)) => {
                self.answer = Some(answer);
                return Err(error);
            }
        };
        let command = match self.carry_out(now, method, url, message) {
            Ok(command) => command,
            Err(status) => {
                self.answer = Some(Answer::Plain(status));
                Command::Nothing
            }
        };
        let event = Event { admitted, command, guess: None };
        Ok((admitted || command != Command::Nothing).then_some(event))
    }

    /// Carries a request out, or returns the status that refuses it.
    fn carry_out(
        &mut self,
        now: Instant,
        method: Method,
        url: &str,
        message: &Message<'_>,
    ) -> Result<Command, Status> {
        if let Some(agent) = message.field("User-Agent") {
            self.slot.occupancy().label().set(agent);
        }
        let named = message.field("Session").map(|its| its.split(';').next().unwrap_or_default());
        if named.is_some_and(|named| named.trim() != self.session) {
            return Err(Status::SESSION_NOT_FOUND);
        }
        match method {
            Method::Options => self.answer = Some(Answer::Options),
            Method::Describe => {
                self.base =
                    url.trim_end_matches('/').try_into().map_err(|_| Status::URL_TOO_LONG)?;
                self.waits = Some(now + DESCRIBED_TIMEOUT);
                return Ok(Command::Describe);
            }
            Method::Setup => self.set_up(url, message)?,
            Method::Play => {
                if !self.playback.is_set_up() {
                    return Err(Status::NOT_IN_THIS_STATE);
                }
                self.answer = Some(Answer::Playing);
                if self.slot.flow() == Flow::Still {
                    return Ok(Command::Play);
                }
            }
            Method::Pause => {
                if !self.playback.is_set_up() {
                    return Err(Status::NOT_IN_THIS_STATE);
                }
                self.playback.stop();
                self.answer = Some(Answer::Plain(Status::OK));
                return Ok(Command::Pause);
            }
            Method::Teardown => {
                self.playback.stop();
                self.playback.tear_down();
                self.answer = Some(Answer::Plain(Status::OK));
                return Ok(Command::Pause);
            }
            // Without a parameter it keeps the session alive; no parameter is known.
            Method::GetParameter | Method::SetParameter => {
                let status =
                    if message.body.is_empty() { Status::OK } else { Status::NO_PARAMETER };
                self.answer = Some(Answer::Plain(status));
            }
            Method::Other => return Err(Status::NOT_IMPLEMENTED),
        }
        Ok(Command::Nothing)
    }

    fn set_up(&mut self, url: &str, message: &Message<'_>) -> Result<(), Status> {
        if self.slot.flow() != Flow::Still {
            return Err(Status::NOT_IN_THIS_STATE);
        }
        let description = self.stream_info.description();
        if description.tracks().is_empty() {
            return Err(refusal(self.stream_info.stream_status()));
        }
        let Some(track) = description.track_of(url) else {
            return Err(Status::NO_SUCH_TRACK);
        };
        let channels = match Transport::parse(message.field("Transport").unwrap_or_default()) {
            Transport::Interleaved(channels) => channels,
            Transport::AnyChannels => {
                let rtp = u8::try_from(track * 2).unwrap_or_default();
                Channels { rtp, rtcp: rtp + 1 }
            }
            Transport::Other => return Err(Status::TRANSPORT),
        };
        if !self.playback.set_up(track, channels) {
            return Err(Status::BAD_REQUEST);
        }
        self.slot.set_described();
        self.answer = Some(Answer::SetUp { channels, source: self.stream_info.source(track) });
        Ok(())
    }

    /// Writes the answer to the last request, if it is known by now. Returns its bytes.
    fn write_answer(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.waits.is_some() {
            let stream_status = self.stream_info.stream_status();
            let answer = match stream_status {
                StreamStatus::Ready => Answer::Described,
                StreamStatus::Elsewhere => Answer::Plain(refusal(stream_status)),
                StreamStatus::Open
                | StreamStatus::Off
                | StreamStatus::Away
                | StreamStatus::WrongCode => return None,
            };
            self.answer = Some(answer);
            self.waits = None;
        }
        let answer = self.answer.take()?;
        if answer == Answer::Described {
            self.slot.set_described();
        }
        let mut text = Text::new(out);
        // Cannot fail: an outbox holds the longest answer.
        self.write(&mut text, answer).ok()?;
        Some(text.len)
    }

    fn write(&self, out: &mut Text<'_>, answer: Answer) -> fmt::Result {
        answer.write_head(out, self.cseq, &self.nonce, &self.session)?;
        match answer {
            Answer::Described => {
                let description = self.stream_info.description();
                write!(
                    out,
                    "Content-Base: {}/\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{}",
                    self.base,
                    description.text().len(),
                    description.text()
                )
            }
            Answer::Playing => {
                self.playback.write_rtp_info(&self.base, out)?;
                out.write_str("\r\n")
            }
            Answer::Options
            | Answer::Challenge { .. }
            | Answer::SetUp { .. }
            | Answer::Plain(_) => out.write_str("\r\n"),
        }
    }
}

/// Why a request is not carried out.
enum Refused {
    Answer(Answer),
    /// For a wrong access code: the player may try once more.
    Guess(Guess),
    End(Answer, Error),
}

/// The status for a player while there is no stream.
const fn refusal(stream_status: StreamStatus) -> Status {
    match stream_status {
        StreamStatus::Elsewhere => Status::OTHER_CAMERA,
        StreamStatus::Off => Status::LIVE_VIEW_OFF,
        StreamStatus::WrongCode => Status::PRINTER_REFUSES,
        StreamStatus::Open | StreamStatus::Away | StreamStatus::Ready => Status::NO_ANSWER,
    }
}

impl Session for Player {
    type Event<'i> = Event;
    type Error = Error;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Consumed<Event, Error> {
        if self.answer.is_some() || self.waits.is_some() {
            // Requests are answered one after the other.
            return Ok((0, None));
        }
        let (taken, event) = if self.skip > 0 {
            let passed = self.skip.min(input.len());
            self.skip -= passed;
            (passed, None)
        } else {
            match wire::next(input, RTSP_INBOX - FRAME_HEAD, MAX_BODY) {
                Ok((taken, Piece::Message(message))) => (taken, self.request(now, &message)?),
                Ok((taken, Piece::Oversized { len, .. })) => {
                    self.skip = len;
                    (taken, None)
                }
                Ok((taken, Piece::More | Piece::Blank | Piece::Packet { .. })) => (taken, None),
                Err(fault) => {
                    self.cseq = None;
                    self.answer = Some(Answer::Plain(match fault {
                        wire::Fault::Version => Status::VERSION,
                        wire::Fault::NotRtsp
                        | wire::Fault::HeadTooLong
                        | wire::Fault::BodyTooLong
                        | wire::Fault::Malformed => Status::BAD_REQUEST,
                    }));
                    return Err(Error::Fault(fault));
                }
            }
        };
        if taken > 0 {
            self.heard = now;
        }
        if let Login::Due { received, .. } = &mut self.login {
            *received += taken;
            if *received > MAX_TALK {
                return Err(Error::NoCode);
            }
        }
        Ok((taken, event))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let Login::Due { until, .. } = self.login {
            return if until <= now { Err(Error::Silent) } else { Ok(()) };
        }
        match self.waits {
            Some(until) if until <= now => {
                self.waits = None;
                self.heard = now;
                self.answer = Some(Answer::Plain(refusal(self.stream_info.stream_status())));
                Ok(())
            }
            Some(_) => Ok(()),
            None if self.slot.flow() == Flow::Still && now.since(self.heard) >= SESSION_TIMEOUT => {
                Err(Error::Idle)
            }
            None => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match (&self.login, self.waits) {
            (Login::Due { until, .. }, _) => Some(*until),
            (Login::Done, Some(until)) => Some(until),
            (Login::Done, None) => match self.slot.flow() {
                Flow::Still => Some(self.heard + SESSION_TIMEOUT),
                Flow::Waits { .. } => self.playback.report_at(),
                Flow::Flows => None,
            },
        }
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if let SlotState::Dismissed(why) = self.slot.state() {
            let waits = self.waits.take().is_some();
            if self.answer.take().is_some() || waits {
                self.answer = Some(Answer::Plain(match why {
                    Dismissal::Full => Status::FULL,
                    Dismissal::Stopping | Dismissal::Changed => Status::NO_ANSWER,
                }));
            } else {
                return Output::End(Error::Dismissed(why));
            }
        }
        if let Some(len) = self.write_answer(out) {
            return Output::Written(len);
        }
        match self.playback.write(now, out) {
            0 => Output::Idle,
            len => Output::Written(len),
        }
    }
}

/// Why a player's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input is not RTSP.
    Fault(wire::Fault),
    /// The access code was wrong twice.
    WrongCode,
    /// The player's origin is locked out after wrong access codes.
    LockedOut,
    /// The access code was not shown within [`LOGIN_TIMEOUT`].
    Silent,
    /// [`MAX_TALK`] bytes arrived without the access code.
    NoCode,
    /// The player does not play, and has sent nothing for [`SESSION_TIMEOUT`].
    Idle,
    /// The hub dismissed the player.
    Dismissed(Dismissal),
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::WrongCode => Kind::WrongCode,
            Self::Silent | Self::Idle => Kind::Silent,
            Self::Fault(wire::Fault::HeadTooLong | wire::Fault::BodyTooLong)
            | Self::LockedOut
            | Self::Dismissed(Dismissal::Full) => Kind::Refused,
            Self::Fault(wire::Fault::NotRtsp | wire::Fault::Version | wire::Fault::Malformed)
            | Self::NoCode => Kind::Malformed,
            Self::Dismissed(Dismissal::Stopping | Dismissal::Changed) => Kind::Left,
        }
    }

    /// The codes that a player sent are counted by its session.
    fn login_error(self) -> Option<LoginError> {
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::WrongCode => f.write_str(Cause::CLIENT_CODE.text),
            Self::LockedOut => LoginError::LockedOut.fmt(f),
            Self::Silent => write!(f, "no login within {} s", LOGIN_TIMEOUT.as_secs()),
            Self::NoCode => write!(f, "no access code within {MAX_TALK} bytes"),
            Self::Idle => {
                write!(f, "idle for {} s without playing", SESSION_TIMEOUT.as_secs())
            }
            Self::Dismissed(Dismissal::Stopping) => f.write_str("shutting down"),
            Self::Dismissed(Dismissal::Full) => {
                write!(f, "all {} slots are in use (BOARD.clients.rtsp)", BOARD.clients.rtsp)
            }
            Self::Dismissed(Dismissal::Changed) => {
                f.write_str("the camera's stream has changed; the player has to connect again")
            }
        }
    }
}

impl core::error::Error for Error {}
