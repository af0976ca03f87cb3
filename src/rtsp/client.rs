//! A player: it asks what there is, sets up tracks, and is shown them.
//!
//! ```text
//!   OPTIONS ─► DESCRIBE ─► 401 ─► DESCRIBE with the code ─► SETUP, for each track ─► PLAY ─► packets
//!                                     │ held until the camera has said what it shows
//! ```
//!
//! Only OPTIONS is answered before the code was shown, as printers do it. Packets leave in the channels
//! that the player chose, and numbered without a gap where it lost pictures by being slow.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | time to show the code | [`LOGIN_TIMEOUT`], in [`MAX_TALK`] bytes | closed |
//! | wrong codes on one connection | [`MAX_WRONG`] | 403, closed |
//! | a request | an inbox of `RTSP_INBOX` bytes | 400, closed |
//! | a URL | [`MAX_URL`] bytes | 414 |
//! | a player's own packets (RTCP) | passed over, whatever their length | |
//! | time until the camera has described itself | [`DESCRIBED_TIMEOUT`] | 503 with the reason |
//! | silence of a player that does not play | [`SESSION_TIMEOUT`] | closed |
//! | time to take a piece of a picture | [`runtime::drive`](crate::runtime::drive)'s | closed |

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::answer::{Answer, SESSION_TIMEOUT, Status};
use super::digest::{Nonce, Verdict, judge};
use super::playback::Playback;
use super::slot::{Dismissal, Flow, Slot, SlotState};
use super::stream::{StreamInfo, StreamStatus};
use super::wire::{self, Channels, FRAME_HEAD, Message, Method, Piece, Text, Transport};
use crate::auth::AccessCode;
use crate::clock::Instant;
use crate::memory::budget::RTSP_INBOX;
use crate::session::{Blame, Output, Session};

/// How long a player may take to show the code, from the connection on.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a player may say before it has shown the code, in bytes.
pub const MAX_TALK: usize = 8 * 1024;

/// Wrong codes on one connection: the second one ends it.
pub const MAX_WRONG: usize = 2;

/// How long DESCRIBE waits for the camera.
pub const DESCRIBED_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes in the longest URL a player may use.
pub const MAX_URL: usize = 256;

/// Bytes in the longest body a request may have. None of them is needed.
const MAX_BODY: usize = 512;

/// One player's end of the conversation.
pub struct Player {
    slot: Rc<Slot>,
    offer: Rc<StreamInfo>,
    code: Rc<AccessCode>,
    nonce: Nonce,
    /// The name of its session (RFC 2326 §12.37).
    session: heapless::String<8>,
    login: Login,
    /// When it said something last.
    heard: Instant,
    /// Bytes of a packet of its that are still to be passed over.
    skip: usize,
    /// What its last request is answered with.
    answer: Option<Answer>,
    cseq: Option<u32>,
    /// Until when its DESCRIBE waits for the camera.
    waits: Option<Instant>,
    /// What it called the whole, in DESCRIBE.
    base: heapless::String<MAX_URL>,
    playback: Playback,
}

/// Whether it has shown the code.
enum Login {
    /// Until then it has to, in so many bytes.
    Due {
        until: Instant,
        said: usize,
        wrong: usize,
    },
    Done,
}

/// What the hub learns from a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// It has just shown the right code.
    pub admitted: bool,
    /// What it wants now.
    pub wish: Wish,
}

/// What a player wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing that the hub could do.
    Nothing,
    /// That the camera describes itself.
    Describe,
    /// Pictures.
    Play,
    /// No pictures.
    Pause,
}

impl Player {
    /// A player who has to show the code until then. `nonce` and `session` are its own.
    pub fn new(
        slot: Rc<Slot>,
        offer: Rc<StreamInfo>,
        code: Rc<AccessCode>,
        nonce: Nonce,
        session: heapless::String<8>,
        (now, until): (Instant, Instant),
    ) -> Self {
        let playback = Playback::new(Rc::clone(&slot), Rc::clone(&offer));
        Self {
            slot,
            offer,
            code,
            nonce,
            session,
            login: Login::Due { until, said: 0, wrong: 0 },
            heard: now,
            skip: 0,
            answer: None,
            cseq: None,
            waits: None,
            base: heapless::String::new(),
            playback,
        }
    }

    /// Wrong codes that it has shown.
    pub const fn wrong_codes(&self) -> usize {
        match self.login {
            Login::Due { wrong, .. } => wrong,
            Login::Done => 0,
        }
    }

    /// Whether it is asked who it is, and what it may be told if it is not known.
    fn authorise(&mut self, method: Method, message: &Message<'_>) -> Result<bool, Refused> {
        let Login::Due { wrong, .. } = &mut self.login else { return Ok(false) };
        if method == Method::Options {
            return Ok(false);
        }
        if method == Method::Other {
            // Nothing that could be judged: its digest is of a name that is not known here.
            return Err(Refused::Answer(Answer::Plain(Status::NOT_IMPLEMENTED)));
        }
        let Some(shown) = message.field("Authorization") else {
            return Err(Refused::Answer(Answer::Challenge { stale: false }));
        };
        match judge(shown, method.name(), &self.code, &self.nonce) {
            Verdict::Right => {
                self.login = Login::Done;
                Ok(true)
            }
            Verdict::Stale => Err(Refused::Answer(Answer::Challenge { stale: true })),
            Verdict::Unusable => Err(Refused::Answer(Answer::Challenge { stale: false })),
            Verdict::Wrong => {
                *wrong += 1;
                if *wrong < MAX_WRONG {
                    Err(Refused::Answer(Answer::Challenge { stale: false }))
                } else {
                    Err(Refused::End(Answer::Plain(Status::FORBIDDEN), Error::WrongCode))
                }
            }
        }
    }

    fn request(&mut self, now: Instant, message: &Message<'_>) -> Result<Option<Event>, Error> {
        let Some((method, url)) = message.request() else {
            // An answer to nothing.
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
            Err(Refused::End(answer, error)) => {
                self.answer = Some(answer);
                return Err(error);
            }
        };
        let wish = match self.ask(now, method, url, message) {
            Ok(wish) => wish,
            Err(status) => {
                self.answer = Some(Answer::Plain(status));
                Wish::Nothing
            }
        };
        Ok((admitted || wish != Wish::Nothing).then_some(Event { admitted, wish }))
    }

    /// Does what is asked for, or says why not.
    fn ask(
        &mut self,
        now: Instant,
        method: Method,
        url: &str,
        message: &Message<'_>,
    ) -> Result<Wish, Status> {
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
                return Ok(Wish::Describe);
            }
            Method::Setup => self.set_up(url, message)?,
            Method::Play => {
                if !self.playback.is_set_up() {
                    return Err(Status::NOT_IN_THIS_STATE);
                }
                self.answer = Some(Answer::Playing);
                if self.slot.flow() == Flow::Still {
                    return Ok(Wish::Play);
                }
            }
            Method::Pause => {
                if !self.playback.is_set_up() {
                    return Err(Status::NOT_IN_THIS_STATE);
                }
                self.playback.stop();
                self.answer = Some(Answer::Plain(Status::OK));
                return Ok(Wish::Pause);
            }
            Method::Teardown => {
                self.playback.stop();
                self.playback.tear_down();
                self.answer = Some(Answer::Plain(Status::OK));
                return Ok(Wish::Pause);
            }
            // Without a parameter it says that the player is still there; none is known here.
            Method::GetParameter | Method::SetParameter => {
                let status =
                    if message.body.is_empty() { Status::OK } else { Status::NO_PARAMETER };
                self.answer = Some(Answer::Plain(status));
            }
            Method::Other => return Err(Status::NOT_IMPLEMENTED),
        }
        Ok(Wish::Nothing)
    }

    fn set_up(&mut self, url: &str, message: &Message<'_>) -> Result<(), Status> {
        if self.slot.flow() != Flow::Still {
            return Err(Status::NOT_IN_THIS_STATE);
        }
        let description = self.offer.description();
        if description.tracks().is_empty() {
            return Err(refusal(self.offer.stream_status()));
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
        self.slot.tell();
        self.answer = Some(Answer::SetUp { channels, source: self.offer.source(track) });
        Ok(())
    }

    /// Writes the answer to the last request, if there is one now.
    fn write_answer(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.waits.is_some() {
            let stream_status = self.offer.stream_status();
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
            self.slot.tell();
        }
        let mut text = Text::new(out);
        // An outbox holds the longest answer there is.
        self.write(&mut text, answer).ok()?;
        Some(text.len)
    }

    fn write(&self, out: &mut Text<'_>, answer: Answer) -> fmt::Result {
        answer.write_head(out, self.cseq, &self.nonce, &self.session)?;
        match answer {
            Answer::Described => {
                let description = self.offer.description();
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

/// Why a request goes no further.
enum Refused {
    Answer(Answer),
    End(Answer, Error),
}

/// What a player is told that cannot be shown anything.
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

    fn handle_input(
        &mut self,
        now: Instant,
        input: &[u8],
    ) -> Result<(usize, Option<Event>), Error> {
        if self.answer.is_some() || self.waits.is_some() {
            // One after the other.
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
        if let Login::Due { said, .. } = &mut self.login {
            *said += taken;
            if *said > MAX_TALK {
                return Err(Error::Talks);
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
                self.answer = Some(Answer::Plain(refusal(self.offer.stream_status())));
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
        if let SlotState::Dismissed(why) = self.slot.standing() {
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

/// Why a player has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// What it says is nothing that could be gone on from.
    Fault(wire::Fault),
    /// Its code is wrong.
    WrongCode,
    /// It did not show the code in time.
    Silent,
    /// It says too much without showing the code.
    Talks,
    /// It does not play, and has said nothing for [`SESSION_TIMEOUT`].
    Idle,
    /// There is no slot.
    NoSlot,
    /// The hub says so.
    Dismissed(Dismissal),
}

impl Error {
    /// Whose doing it is.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Fault(wire::Fault::HeadTooLong | wire::Fault::BodyTooLong)
            | Self::NoSlot
            | Self::Dismissed(Dismissal::Full) => Blame::Board,
            Self::Fault(wire::Fault::NotRtsp | wire::Fault::Version | wire::Fault::Malformed)
            | Self::WrongCode
            | Self::Talks => Blame::Peer,
            Self::Silent => Blame::Network,
            Self::Idle | Self::Dismissed(Dismissal::Stopping | Dismissal::Changed) => Blame::Nobody,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "says {fault}"),
            Self::WrongCode => f.write_str("wrong access code"),
            Self::Silent => {
                write!(f, "did not show the access code within {} s", LOGIN_TIMEOUT.as_secs())
            }
            Self::Talks => write!(f, "{MAX_TALK} bytes without the access code"),
            Self::Idle => {
                write!(f, "neither played nor said anything for {} s", SESSION_TIMEOUT.as_secs())
            }
            Self::NoSlot => f.write_str("no seat is free"),
            Self::Dismissed(Dismissal::Stopping) => f.write_str("the proxy ends"),
            Self::Dismissed(Dismissal::Full) => {
                f.write_str("all players' places are taken (BOARD.clients.rtsp)")
            }
            Self::Dismissed(Dismissal::Changed) => {
                f.write_str("the camera shows something else than it was told")
            }
        }
    }
}

impl core::error::Error for Error {}
