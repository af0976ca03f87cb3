//! The conversation with the camera: one session, for as long as anybody watches.
//!
//! ```text
//!   OPTIONS ─► DESCRIBE ─► 401 ─► DESCRIBE ─► SETUP, for each track ─► PLAY ─► packets … ─► TEARDOWN
//!                                                     a receiver report every two seconds
//!                                                     GET_PARAMETER every fifteen
//! ```
//!
//! Cameras end a session that they hear nothing of: live555 after 65 s, an X1C has been seen to fall
//! silent after ten without receiver reports (PROTOCOL §4).
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | an answer | [`ANSWER_TIMEOUT`] | the connection is given up and made anew |
//! | silence while playing | [`MAX_SILENT`] | as well |
//! | a description | [`MAX_BODY`] bytes | as well |
//! | a packet | [`MAX_PACKET`] bytes | passed over, and its picture with it |

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::digest::Challenge;
use super::hub::MAX_PACKET;
use super::rtp::{Packet, RECEIVER_REPORT, ReceiverReport, SenderReport};
use super::sdp::{self, TRACKS, Url, write_control};
use super::stream::StreamInfo;
use super::wire::{self, Channels, FRAME_HEAD, Message, Method, Piece, Text, Transport};
use crate::auth::AccessCode;
use crate::clock::Instant;
use crate::memory::budget::STREAM_INBOX;
use crate::notify::Demand;
use crate::session::{Output, Session};

/// How long an answer may take. An X1C out of TLS places accepts and never answers.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long there may be no packet. After a cold start a P2S needs more than twenty seconds for its first
/// key frame (PROTOCOL §4).
pub const MAX_SILENT: Duration = Duration::from_secs(30);

/// Bytes in the longest description.
pub const MAX_BODY: usize = 4096;

/// How often the camera is told what came.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// How often it is told that we are still there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// How long the answer to TEARDOWN is waited for.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes in the longest name of a session.
const MAX_SESSION: usize = 64;

/// What the printer calls what it shows; other paths are unknown to H2C (PROTOCOL §4).
pub const PATH: &str = "/streaming/live/1";

const _: () = assert!(wire::MAX_HEAD + MAX_BODY <= STREAM_INBOX, "an inbox holds a description");
const _: () = assert!(MAX_PACKET + FRAME_HEAD <= STREAM_INBOX, "an inbox holds a packet");

/// Our end of the conversation.
pub struct Upstream {
    demand: Rc<Demand>,
    offer: Rc<StreamInfo>,
    code: Rc<AccessCode>,
    /// The whole, as we call it.
    url: Url,
    /// What its tracks are called behind.
    base: Url,
    /// Our own source, in reports, and what makes our answers differ.
    ssrc: u32,
    step: Step,
    /// Whether the request of this step is on its way, and until when it has to be answered.
    asked: Option<Instant>,
    cseq: u32,
    challenge: Option<Challenge>,
    /// How often its nonce was used.
    answered: u32,
    /// Whether the request on its way shows the code.
    shown: bool,
    /// Whether a nonce was called stale in this step already.
    renewed: bool,
    session: heapless::String<MAX_SESSION>,
    /// Whether GET_PARAMETER is known there.
    has_parameters: bool,
    tracks: [Heard; TRACKS],
    /// Bytes of a packet that are still to be passed over.
    skip: usize,
    /// A request of the printer's that has to be answered: its number, and whether with 200.
    asks: Option<(u32, bool)>,
    /// When a packet came last.
    heard: Instant,
    report_at: Instant,
    alive_at: Instant,
    /// It has failed: nothing more is asked.
    has_failed: bool,
}

/// What has been heard of a track.
#[derive(Clone, Copy, Default)]
struct Heard {
    channels: Option<Channels>,
    source: u32,
    highest: u32,
    /// [`SenderReport::short_ntp`], and when that came.
    report: Option<(u32, Instant)>,
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

/// What the hub learns from the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// It describes what it shows.
    Described(&'i [u8]),
    /// It takes our code, and will show it.
    Playing,
    /// A packet of a track.
    Packet {
        /// Which track.
        track: usize,
        /// The packet.
        bytes: &'i [u8],
    },
    /// What it says about a track (RTCP).
    Control {
        /// Which track.
        track: usize,
        /// The packet.
        bytes: &'i [u8],
    },
    /// A packet that is too long is passed over.
    Oversized {
        /// Which track.
        track: usize,
        /// Its bytes.
        len: usize,
    },
}

impl Upstream {
    /// A conversation that begins now, about what is at `url`. `ssrc` is any number.
    pub fn new(
        demand: Rc<Demand>,
        offer: Rc<StreamInfo>,
        code: Rc<AccessCode>,
        url: Url,
        ssrc: u32,
        now: Instant,
    ) -> Self {
        Self {
            demand,
            offer,
            code,
            base: url.clone(),
            url,
            ssrc,
            step: Step::Options,
            asked: None,
            cseq: 0,
            challenge: None,
            answered: 0,
            shown: false,
            renewed: false,
            session: heapless::String::new(),
            has_parameters: false,
            tracks: [Heard::default(); TRACKS],
            skip: 0,
            asks: None,
            heard: now,
            report_at: now,
            alive_at: now,
            has_failed: false,
        }
    }

    /// Ends the conversation: a session is left with TEARDOWN, and nothing else is asked.
    pub fn give_up(&mut self) {
        self.has_failed = true;
    }

    /// Whether the camera has answered anything at all.
    pub fn has_answered(&self) -> bool {
        self.step != Step::Options
    }

    /// Whether the camera was told that we leave it.
    pub const fn is_leaving(&self) -> bool {
        matches!(self.step, Step::Teardown(Error::NotWanted | Error::Leaving))
    }

    /// Which track a channel is of, and whether it is its RTCP.
    fn of(&self, channel: u8) -> Option<(usize, bool)> {
        let of = |(track, heard): (usize, &Heard)| {
            let channels = heard.channels?;
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
        // Of a channel that was not set up nobody wants anything.
        let (track, is_control) = self.of(channel)?;
        let heard = self.tracks.get_mut(track)?;
        if is_control {
            if let Some(report) = SenderReport::parse(bytes) {
                heard.report = Some((report.short_ntp(), now));
            }
            return Some(Event::Control { track, bytes });
        }
        // Reports alone are silence: nobody can be shown them.
        self.heard = now;
        if let Some(packet) = Packet::parse(bytes) {
            heard.count(&packet);
        }
        Some(Event::Packet { track, bytes })
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
            self.asks = message.cseq().map(|cseq| (cseq, is_harmless));
            return Ok(None);
        };
        if self.asked.is_none() || message.cseq().is_some_and(|cseq| cseq != self.cseq) {
            // An answer to something that is not waited for any more.
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
            self.session = name.try_into().map_err(|_| Error::Odd)?;
        }
        self.renewed = false;
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
                    self.base = base.try_into().map_err(|_| Error::Odd)?;
                }
                self.step = Step::SetUp(0);
                Ok(Some(Event::Described(message.body)))
            }
            Step::SetUp(track) => {
                let transport = Transport::parse(message.field("Transport").unwrap_or_default());
                let channels = match transport {
                    Transport::Interleaved(channels) => channels,
                    Transport::AnyChannels => asked_for(track),
                    Transport::Other => return Err(Error::Odd),
                };
                if let Some(heard) = self.tracks.get_mut(track) {
                    heard.channels = Some(channels);
                }
                let more = track + 1 < self.offer.description().tracks().len();
                self.step = if more { Step::SetUp(track + 1) } else { Step::Play };
                Ok(None)
            }
            Step::Play => {
                self.step = Step::Playing;
                self.heard = now;
                self.report_at = now + REPORT_EVERY;
                self.alive_at = now + ALIVE_EVERY;
                Ok(Some(Event::Playing))
            }
            Step::Playing => Ok(None),
            Step::Teardown(why) => Err(why),
        }
    }

    /// It wants to know who we are.
    fn challenged(&mut self, message: &Message<'_>) -> Result<(), Error> {
        let Some(challenge) = Challenge::best_of(message.fields_named("WWW-Authenticate")) else {
            return Err(Error::NoWay);
        };
        // A nonce that has just been given out is not stale: it is another way of refusing.
        if self.shown && (self.renewed || !challenge.is_stale()) {
            return Err(Error::WrongCode);
        }
        self.renewed = self.shown;
        self.challenge = Some(challenge);
        self.answered = 0;
        Ok(())
    }

    /// It does not want to do what we asked for.
    fn refused(&mut self, status: u16) -> Result<(), Error> {
        match self.step {
            // It is still there, whatever it thinks of the question.
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

    /// Why the conversation should end, if it should.
    fn has_to_end(&self) -> Option<Error> {
        if self.demand.is_leaving() {
            Some(Error::Leaving)
        } else if self.demand.is_wanted() {
            None
        } else {
            Some(Error::NotWanted)
        }
    }

    /// Writes the request of this step.
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
                let description = self.offer.description();
                let control = description.tracks().get(track).map_or("", |track| &track.control);
                write_control(&mut url, &self.base, control)?;
            }
            Step::Play | Step::Playing | Step::Teardown(_) => url.write_str(&self.base)?,
        }
        self.cseq += 1;
        let mut text = Text::new(out);
        write!(text, "{} {url} RTSP/1.0\r\nCSeq: {}\r\n", method.name(), self.cseq)?;
        text.write_str("User-Agent: pandaproxy\r\n")?;
        self.shown = false;
        if let Some(challenge) = &self.challenge {
            self.answered += 1;
            let mut ours = heapless::String::<8>::new();
            write!(ours, "{:08x}", self.ssrc)?;
            let count = (self.answered, ours.as_str());
            challenge.write_answer(&mut text, &self.code, method.name(), &url, count)?;
            self.shown = true;
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
            if matches!(self.step, Step::Teardown(_)) { GOODBYE_TIMEOUT } else { ANSWER_TIMEOUT };
        self.asked = Some(now + within);
        Ok(text.len)
    }

    /// Writes what came of each track.
    fn report(&self, now: Instant, out: &mut [u8]) -> usize {
        let mut len = 0;
        for heard in &self.tracks {
            let (Some(channels), true) = (heard.channels, heard.source != 0) else { continue };
            let report = heard.report(now, self.ssrc).bytes();
            let Some(room) = out.get_mut(len..len + FRAME_HEAD + report.len()) else { break };
            let Some((head, body)) = room.split_first_chunk_mut::<FRAME_HEAD>() else { break };
            let [high, low] = (RECEIVER_REPORT as u16).to_be_bytes();
            *head = [wire::DOLLAR, channels.rtcp, high, low];
            body.copy_from_slice(&report);
            len += FRAME_HEAD + report.len();
        }
        len
    }
}

/// The channels that we ask for.
fn asked_for(track: usize) -> Channels {
    let rtp = u8::try_from(track * 2).unwrap_or_default();
    Channels { rtp, rtcp: rtp + 1 }
}

impl Heard {
    fn count(&mut self, packet: &Packet<'_>) {
        let before = self.highest as u16;
        let ahead = packet.sequence.wrapping_sub(before);
        if self.source != packet.ssrc {
            self.highest = u32::from(packet.sequence);
            self.source = packet.ssrc;
        } else if ahead < u16::MAX / 2 {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
        }
    }

    fn report(&self, now: Instant, ssrc: u32) -> ReceiverReport {
        let since = self.report.map_or(0, |(_, at)| {
            let fractions = now.since(at).as_micros() * 65_536 / 1_000_000;
            u32::try_from(fractions).unwrap_or(u32::MAX)
        });
        let last_report = self.report.map_or(0, |(ntp, _)| ntp);
        ReceiverReport { ssrc, of: self.source, highest: self.highest, last_report, since }
    }
}

impl Upstream {
    fn take<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Event<'i>>), Error> {
        if self.skip > 0 {
            let passed = self.skip.min(input.len());
            self.skip -= passed;
            return Ok((passed, None));
        }
        if self.asks.is_some() {
            // One after the other.
            return Ok((0, None));
        }
        let (taken, piece) = wire::next(input, MAX_PACKET, MAX_BODY).map_err(Error::Fault)?;
        let event = match piece {
            Piece::More | Piece::Blank => None,
            Piece::Packet { channel, bytes } => self.packet(now, channel, bytes),
            Piece::Oversized { channel, len } => {
                self.skip = len;
                let of = self.of(channel).filter(|(_, is_control)| !is_control);
                of.map(|(track, _)| Event::Oversized { track, len })
            }
            Piece::Message(message) => self.message(now, &message)?,
        };
        Ok((taken, event))
    }

    fn look(&self, now: Instant) -> Result<(), Error> {
        if self.asked.is_some_and(|until| until <= now) {
            return Err(match self.step {
                Step::Teardown(why) => why,
                Step::Options | Step::Describe | Step::SetUp(_) | Step::Play | Step::Playing => {
                    Error::NoAnswer
                }
            });
        }
        if self.step == Step::Playing && now.since(self.heard) >= MAX_SILENT {
            return Err(Error::Silent);
        }
        Ok(())
    }
}

impl Session for Upstream {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Event<'i>>), Error> {
        self.take(now, input).inspect_err(|_| self.has_failed = true)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.look(now).inspect_err(|_| self.has_failed = true)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.step != Step::Playing {
            return self.asked;
        }
        let own = [self.report_at, self.heard + MAX_SILENT, self.asked.unwrap_or(self.alive_at)];
        own.into_iter().min()
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if self.has_failed {
            // Its last words; whether they are heard is not waited for.
            if self.session.is_empty() || matches!(self.step, Step::Teardown(_)) {
                return Output::Idle;
            }
            self.step = Step::Teardown(Error::Leaving);
            return self.ask(now, out).map_or(Output::Idle, Output::Written);
        }
        if let Some((cseq, is_harmless)) = self.asks.take() {
            let mut text = Text::new(out);
            let status = if is_harmless { "200 OK" } else { "501 Not Implemented" };
            return match write!(text, "RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n\r\n") {
                Ok(()) => Output::Written(text.len),
                Err(fmt::Error) => Output::End(Error::Odd),
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
            self.alive_at = now + ALIVE_EVERY;
            return match self.ask(now, out) {
                Ok(len) => Output::Written(len),
                Err(fmt::Error) => Output::End(Error::Odd),
            };
        }
        if self.step == Step::Playing && self.report_at <= now {
            self.report_at = now + REPORT_EVERY;
            return match self.report(now, out) {
                0 => Output::Idle,
                len => Output::Written(len),
            };
        }
        Output::Idle
    }
}

/// Why the conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody watches any more.
    NotWanted,
    /// The program ends.
    Leaving,
    /// What it says is nothing that could be gone on from.
    Fault(wire::Fault),
    /// What it answers does not fit what was asked.
    Odd,
    /// What it describes is of no use.
    Description(sdp::Fault),
    /// It asks for something other than Digest and Basic.
    NoWay,
    /// It does not take our code.
    WrongCode,
    /// It refuses with this status.
    Refused(u16),
    /// It did not answer within [`ANSWER_TIMEOUT`].
    NoAnswer,
    /// No packet came for [`MAX_SILENT`].
    Silent,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("nobody watches any more"),
            Self::Leaving => f.write_str("the proxy ends"),
            Self::Fault(fault) => write!(f, "the camera says {fault}"),
            Self::Odd => f.write_str("the camera's answer does not fit what it was asked"),
            Self::Description(fault) => write!(f, "the camera's description is of no use: {fault}"),
            Self::NoWay => f.write_str("the camera wants neither Digest nor Basic"),
            Self::WrongCode => f.write_str(
                "the camera refuses the access code: compare it with the one on the printer's screen \
                 (it changes when LAN mode is switched)",
            ),
            Self::Refused(status) => write!(
                f,
                "the camera refuses ({status}): another program may be watching, or it is broken"
            ),
            Self::NoAnswer => write!(
                f,
                "the camera does not answer within {} s: other programs may hold its connections; \
                 close them or restart the printer",
                ANSWER_TIMEOUT.as_secs()
            ),
            Self::Silent => {
                write!(f, "the camera shows nothing for {} s", MAX_SILENT.as_secs())
            }
        }
    }
}

impl core::error::Error for Error {}
