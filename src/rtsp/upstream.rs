//! The session with the camera: one, while a player wants the stream.
//!
//! ```text
//!   OPTIONS ─► DESCRIBE ─► 401 ─► DESCRIBE ─► SETUP, for each track ─► PLAY ─► packets … ─► TEARDOWN
//!                                                     a receiver report every two seconds
//!                                                     GET_PARAMETER every fifteen
//! ```
//!
//! The camera ends a session without requests and receiver reports: live555 after 65 s, an X1C after about ten
//! ([`protocol`](crate::protocol#rtsps-camera)).
//!
//! RTP, RTCP and SDP are parsed here, once, and go to the hub as [`Event`]s.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | an answer | [`ANSWER_TIMEOUT`] | the connection is closed and made anew |
//! | silence while playing | [`SILENCE_TIMEOUT`] | the connection is closed and made anew |
//! | a description | [`MAX_BODY`] bytes | the connection is closed and made anew |
//! | a packet | [`MAX_PACKET`] bytes | skipped, and its picture with it |

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::digest::Challenge;
use super::hub::MAX_PACKET;
use super::reception::Reception;
use super::rtp::{Content, Packet, SenderReport};
use super::sdp::{self, Description, TRACKS, Url, write_control};
use super::wire::{self, Channels, FRAME_HEAD, Message, Method, Piece, Text, Transport};
use crate::auth::AccessCode;
use crate::cause::Cause;
use crate::clock::Instant;
use crate::memory::budget::STREAM_INBOX;
use crate::notify::Demand;
use crate::session::{Consumed, Output, Session};

/// How long an answer may take. An X1C out of TLS connections accepts one more and never answers.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no RTP packet may arrive. After a start a P2S needs more than twenty seconds for its first key frame
/// ([`protocol`](crate::protocol#rtsps-camera)).
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes in the longest description.
pub const MAX_BODY: usize = 4096;

/// Interval of receiver reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Interval of GET_PARAMETER, or OPTIONS, which keeps the session alive.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How long the answer to TEARDOWN may take.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes in the longest session identifier.
const MAX_SESSION: usize = 64;

/// The path of the printer's stream. An H2C knows no other.
pub const PATH: &str = "/streaming/live/1";

const _: () = assert!(wire::MAX_HEAD + MAX_BODY <= STREAM_INBOX, "an inbox holds a description");
const _: () = assert!(MAX_PACKET + FRAME_HEAD <= STREAM_INBOX, "an inbox holds a packet");

/// The proxy's end of the session with the camera.
pub struct Upstream {
    demand: Rc<Demand>,
    code: Rc<AccessCode>,
    /// The URL of the stream, for OPTIONS and DESCRIBE.
    url: Url,
    /// What tracks' URLs are relative to (RFC 2326 §C.1.1): the answer's `Content-Base`, or `url`.
    base: Url,
    /// What the camera described.
    description: Description,
    /// The SSRC of our reports, and our part of Digest answers with `qop`.
    ssrc: u32,
    step: Step,
    /// When the request on its way has to be answered; `None` if none is on its way.
    asked: Option<Instant>,
    cseq: u32,
    challenge: Option<Challenge>,
    /// Requests that used the challenge's nonce.
    nonce_count: u32,
    /// Whether the request on its way shows the access code.
    has_shown_code: bool,
    /// Whether a nonce was called stale in this step already.
    is_renewed: bool,
    session: heapless::String<MAX_SESSION>,
    /// Whether the camera knows GET_PARAMETER.
    has_parameters: bool,
    tracks: [Reception; TRACKS],
    /// Bytes of an oversized packet that are still to be skipped.
    skip: usize,
    /// A request of the camera's to be answered: its CSeq, and whether with 200.
    to_answer: Option<(u32, bool)>,
    /// When the last RTP packet arrived.
    heard: Instant,
    report_at: Instant,
    alive_at: Instant,
    /// The session has failed: only TEARDOWN may still be sent.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Options,
    Describe,
    SetUp(usize),
    Play,
    Playing,
    Teardown(Error),
}

/// What has arrived from the camera, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// The camera has described its stream: [`Upstream::description`].
    Described,
    /// The camera has accepted the access code and begins to play.
    Playing,
    /// An RTP packet.
    Packet {
        /// Its track's index in the description.
        track: usize,
        /// The packet.
        packet: Packet<'i>,
        /// The kinds of NAL units in it.
        content: Content,
    },
    /// A sender report.
    Report {
        /// Its track's index in the description.
        track: usize,
        /// The report.
        report: SenderReport,
    },
    /// A packet that is not RTP of version 2, or shorter than its head says. It is skipped.
    Damaged {
        /// Its bytes.
        len: usize,
    },
    /// A packet longer than [`MAX_PACKET`]. It is skipped.
    Oversized {
        /// Its track's index in the description.
        track: usize,
        /// Its bytes.
        len: usize,
    },
}

impl Upstream {
    /// A session with the camera at `url` that begins now. `ssrc` is any number.
    pub fn new(
        demand: Rc<Demand>,
        code: Rc<AccessCode>,
        url: Url,
        ssrc: u32,
        now: Instant,
    ) -> Self {
        Self {
            demand,
            code,
            base: url.clone(),
            url,
            description: Description::default(),
            ssrc,
            step: Step::Options,
            asked: None,
            cseq: 0,
            challenge: None,
            nonce_count: 0,
            has_shown_code: false,
            is_renewed: false,
            session: heapless::String::new(),
            has_parameters: false,
            tracks: [Reception::default(); TRACKS],
            skip: 0,
            to_answer: None,
            heard: now,
            report_at: now,
            alive_at: now,
            has_failed: false,
        }
    }

    /// What the camera has described; empty before [`Event::Described`].
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Whether the camera has answered a request.
    pub fn has_answered(&self) -> bool {
        self.step != Step::Options
    }

    /// Whether TEARDOWN was sent because the camera is not wanted any more.
    pub const fn is_leaving(&self) -> bool {
        matches!(self.step, Step::Teardown(Error::NotWanted | Error::Leaving))
    }

    /// The track of a channel, and whether the channel carries its RTCP. `None`: it was not set up.
    fn track_of(&self, channel: u8) -> Option<(usize, bool)> {
        let of = |(track, reception): (usize, &Reception)| {
            let channels = reception.channels?;
            if channel == channels.rtp {
                Some((track, false))
            } else if channel == channels.rtcp {
                Some((track, true))
            } else {
                None
            }
        };
        self.tracks.iter().enumerate().find_map(of)
    }

    fn packet<'i>(&mut self, now: Instant, channel: u8, bytes: &'i [u8]) -> Option<Event<'i>> {
        let (track, is_control) = self.track_of(channel)?;
        let reception = self.tracks.get_mut(track)?;
        if is_control {
            let report = SenderReport::parse(bytes)?;
            reception.note_report(&report, now);
            return Some(Event::Report { track, report });
        }
        // Sender reports alone count as silence: there is nothing to show.
        self.heard = now;
        let Some(packet) = Packet::parse(bytes) else {
            return Some(Event::Damaged { len: bytes.len() });
        };
        reception.count(&packet);
        let codec = self.description.tracks().get(track)?.codec;
        Some(Event::Packet { track, packet, content: Content::of(codec, packet.payload) })
    }

    fn message<'i>(
        &mut self,
        now: Instant,
        message: &Message<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        let Some(status) = message.status() else {
            let known = message.request().map_or(Method::Other, |(method, _)| method);
            let is_harmless =
                matches!(known, Method::Options | Method::GetParameter | Method::SetParameter);
            self.to_answer = message.cseq().map(|cseq| (cseq, is_harmless));
            return Ok(None);
        };
        if self.asked.is_none() || message.cseq().is_some_and(|cseq| cseq != self.cseq) {
            // An answer that is not waited for any more.
            return Ok(None);
        }
        self.asked = None;
        match status {
            200..=299 => self.granted(now, message),
            401 => self.challenged(message).map(|()| None),
            _ => self.refused(status).map(|()| None),
        }
    }

    fn granted<'i>(
        &mut self,
        now: Instant,
        message: &Message<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        if let Some(session) = message.field("Session") {
            let name = session.split(';').next().unwrap_or_default().trim();
            self.session = name.try_into().map_err(|_| Error::UnexpectedResponse)?;
        }
        self.is_renewed = false;
        match self.step {
            Step::Options => {
                let public = message.field("Public").unwrap_or_default();
                self.has_parameters = public.contains(Method::GetParameter.name());
                self.step = Step::Describe;
                Ok(None)
            }
            Step::Describe => {
                let base = message.field("Content-Base").or(message.field("Content-Location"));
                if let Some(base) = base {
                    self.base = base.try_into().map_err(|_| Error::UnexpectedResponse)?;
                }
                self.description = Description::parse(message.body).map_err(Error::Description)?;
                self.step = Step::SetUp(0);
                Ok(Some(Event::Described))
            }
            Step::SetUp(track) => {
                let transport = Transport::parse(message.field("Transport").unwrap_or_default());
                let channels = match transport {
                    Transport::Interleaved(channels) => channels,
                    Transport::AnyChannels => asked_for(track),
                    Transport::Other => return Err(Error::UnexpectedResponse),
                };
                if let Some(reception) = self.tracks.get_mut(track) {
                    reception.channels = Some(channels);
                }
                let more = track + 1 < self.description.tracks().len();
                self.step = if more { Step::SetUp(track + 1) } else { Step::Play };
                Ok(None)
            }
            Step::Play => {
                self.step = Step::Playing;
                self.heard = now;
                self.report_at = now + REPORT_INTERVAL;
                self.alive_at = now + KEEP_ALIVE_INTERVAL;
                Ok(Some(Event::Playing))
            }
            Step::Playing => Ok(None),
            Step::Teardown(why) => Err(why),
        }
    }

    /// The camera asks for the access code.
    fn challenged(&mut self, message: &Message<'_>) -> Result<(), Error> {
        let Some(challenge) = Challenge::best_of(message.fields_named("WWW-Authenticate")) else {
            return Err(Error::NoWay);
        };
        // A second stale nonce in a row is a refusal: the first was just given out.
        if self.has_shown_code && (self.is_renewed || !challenge.is_stale()) {
            return Err(Error::WrongCode);
        }
        self.is_renewed = self.has_shown_code;
        self.challenge = Some(challenge);
        self.nonce_count = 0;
        Ok(())
    }

    /// The camera refuses a request.
    fn refused(&mut self, status: u16) -> Result<(), Error> {
        match self.step {
            // The session goes on; only the request is unknown.
            Step::Playing if status != 454 => {
                self.has_parameters = false;
                Ok(())
            }
            Step::Teardown(why) => Err(why),
            Step::Options | Step::Describe | Step::SetUp(_) | Step::Play | Step::Playing => {
                Err(Error::Refused(status))
            }
        }
    }

    /// Why the session should end, if it should.
    fn has_to_end(&self) -> Option<Error> {
        if self.demand.is_leaving() {
            Some(Error::Leaving)
        } else if self.demand.is_wanted() {
            None
        } else {
            Some(Error::NotWanted)
        }
    }

    /// Writes the request of the current step. Returns its bytes.
    fn ask(&mut self, now: Instant, out: &mut [u8]) -> Result<usize, fmt::Error> {
        let mut url = Url::new();
        let method = match self.step {
            Step::Options => Method::Options,
            Step::Describe => Method::Describe,
            Step::SetUp(_) => Method::Setup,
            Step::Play => Method::Play,
            Step::Playing if self.has_parameters => Method::GetParameter,
            Step::Playing => Method::Options,
            Step::Teardown(_) => Method::Teardown,
        };
        match self.step {
            Step::Options | Step::Describe => url.write_str(&self.url)?,
            Step::SetUp(track) => {
                let tracks = self.description.tracks();
                let control = tracks.get(track).map_or("", |track| &track.control);
                write_control(&mut url, &self.base, control)?;
            }
            Step::Play | Step::Playing | Step::Teardown(_) => url.write_str(&self.base)?,
        }
        self.cseq += 1;
        let mut text = Text::new(out);
        write!(text, "{} {url} RTSP/1.0\r\nCSeq: {}\r\n", method.name(), self.cseq)?;
        text.write_str("User-Agent: pandaproxy\r\n")?;
        self.has_shown_code = false;
        if let Some(challenge) = &self.challenge {
            self.nonce_count += 1;
            let mut ours = heapless::String::<8>::new();
            write!(ours, "{:08x}", self.ssrc)?;
            let count = (self.nonce_count, ours.as_str());
            challenge.write_answer(&mut text, &self.code, method.name(), &url, count)?;
            self.has_shown_code = true;
        }
        if !self.session.is_empty() {
            write!(text, "Session: {}\r\n", self.session)?;
        }
        match self.step {
            Step::Describe => text.write_str("Accept: application/sdp\r\n")?,
            Step::SetUp(track) => {
                let Channels { rtp, rtcp } = asked_for(track);
                write!(text, "Transport: RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}\r\n")?;
            }
            Step::Play => text.write_str("Range: npt=0.000-\r\n")?,
            Step::Options | Step::Playing | Step::Teardown(_) => {}
        }
        text.write_str("\r\n")?;
        let within =
            if matches!(self.step, Step::Teardown(_)) { TEARDOWN_TIMEOUT } else { ANSWER_TIMEOUT };
        self.asked = Some(now + within);
        Ok(text.len)
    }

    /// Writes a receiver report of each track, and returns their bytes.
    fn write_reports(&self, now: Instant, out: &mut [u8]) -> usize {
        self.tracks.iter().fold(0, |len, reception| {
            let room = out.get_mut(len..).unwrap_or_default();
            len + reception.write_report(now, self.ssrc, room)
        })
    }
}

/// The channels that the proxy asks for.
fn asked_for(track: usize) -> Channels {
    let rtp = u8::try_from(track * 2).unwrap_or_default();
    Channels { rtp, rtcp: rtp + 1 }
}

impl Upstream {
    fn take<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
        if self.skip > 0 {
            let passed = self.skip.min(input.len());
            self.skip -= passed;
            return Ok((passed, None));
        }
        if self.to_answer.is_some() {
            // The camera's requests are answered one after the other.
            return Ok((0, None));
        }
        let (taken, piece) = wire::next(input, MAX_PACKET, MAX_BODY).map_err(Error::Fault)?;
        let event = match piece {
            Piece::More | Piece::Blank => None,
            Piece::Packet { channel, bytes } => self.packet(now, channel, bytes),
            Piece::Oversized { channel, len } => {
                self.skip = len;
                let track = self.track_of(channel).filter(|(_, is_control)| !is_control);
                track.map(|(track, _)| Event::Oversized { track, len })
            }
            Piece::Message(message) => self.message(now, &message)?,
        };
        Ok((taken, event))
    }

    fn check_timeouts(&self, now: Instant) -> Result<(), Error> {
        if self.asked.is_some_and(|until| until <= now) {
            return Err(match self.step {
                Step::Teardown(why) => why,
                Step::Options | Step::Describe | Step::SetUp(_) | Step::Play | Step::Playing => {
                    Error::NoAnswer
                }
            });
        }
        if self.step == Step::Playing && now.since(self.heard) >= SILENCE_TIMEOUT {
            return Err(Error::Silent);
        }
        Ok(())
    }
}

impl Session for Upstream {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
        self.take(now, input).inspect_err(|_| self.has_failed = true)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.check_timeouts(now).inspect_err(|_| self.has_failed = true)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.step != Step::Playing {
            return self.asked;
        }
        let own =
            [self.report_at, self.heard + SILENCE_TIMEOUT, self.asked.unwrap_or(self.alive_at)];
        own.into_iter().min()
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if self.has_failed {
            // TEARDOWN is sent, and its answer is not waited for.
            if self.session.is_empty() || matches!(self.step, Step::Teardown(_)) {
                return Output::Idle;
            }
            self.step = Step::Teardown(Error::Leaving);
            return self.ask(now, out).map_or(Output::Idle, Output::Written);
        }
        if let Some((cseq, is_harmless)) = self.to_answer.take() {
            let mut text = Text::new(out);
            let status = if is_harmless { "200 OK" } else { "501 Not Implemented" };
            return match write!(text, "RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n\r\n") {
                Ok(()) => Output::Written(text.len),
                Err(fmt::Error) => Output::End(Error::UnexpectedResponse),
            };
        }
        if let Some(why) = self.has_to_end()
            && !matches!(self.step, Step::Teardown(_))
        {
            if self.session.is_empty() {
                return Output::End(why);
            }
            self.step = Step::Teardown(why);
            self.asked = None;
        }
        let is_due = match self.step {
            Step::Playing => self.asked.is_none() && self.alive_at <= now,
            Step::Options | Step::Describe | Step::SetUp(_) | Step::Play | Step::Teardown(_) => {
                self.asked.is_none()
            }
        };
        if is_due {
            self.alive_at = now + KEEP_ALIVE_INTERVAL;
            return match self.ask(now, out) {
                Ok(len) => Output::Written(len),
                Err(fmt::Error) => Output::End(Error::UnexpectedResponse),
            };
        }
        if self.step == Step::Playing && self.report_at <= now {
            self.report_at = now + REPORT_INTERVAL;
            return match self.write_reports(now, out) {
                0 => Output::Idle,
                len => Output::Written(len),
            };
        }
        Output::Idle
    }
}

/// Why the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No player is left.
    NotWanted,
    /// The proxy is shutting down.
    Leaving,
    /// The input is not RTSP.
    Fault(wire::Fault),
    /// An answer does not fit its request.
    UnexpectedResponse,
    /// The description cannot be used.
    Description(sdp::Fault),
    /// The camera asks for neither Digest nor Basic.
    NoWay,
    /// The camera refuses the access code.
    WrongCode,
    /// The camera refuses a request with this status.
    Refused(u16),
    /// The camera did not answer within [`ANSWER_TIMEOUT`].
    NoAnswer,
    /// No RTP packet arrived for [`SILENCE_TIMEOUT`].
    Silent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("no player is left"),
            Self::Leaving => f.write_str("shutting down"),
            Self::Fault(fault) => write!(f, "invalid response: {fault}"),
            Self::UnexpectedResponse => f.write_str("unexpected RTSP response"),
            Self::Description(fault) => write!(f, "unusable stream description: {fault}"),
            Self::NoWay => f.write_str("unsupported authentication scheme"),
            Self::WrongCode => Cause::WRONG_CODE.fmt(f),
            Self::Refused(status) => write!(
                f,
                "the camera refuses with status {status}; is another program watching, or is the \
                 camera broken?"
            ),
            Self::NoAnswer => write!(
                f,
                "the camera does not answer within {} s; close other programs that use it, or \
                 restart the printer",
                ANSWER_TIMEOUT.as_secs()
            ),
            Self::Silent => {
                write!(f, "the camera sends no packet for {} s", SILENCE_TIMEOUT.as_secs())
            }
        }
    }
}

impl core::error::Error for Error {}
