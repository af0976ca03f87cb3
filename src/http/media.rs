//! The camera's pictures for one client: a JPEG, JPEGs one after the other, or H.264 in fragmented MP4.
//!
//! A client takes a slot of the camera's service, as a viewer on port 6000 or a player on port 322 does, and counts as one:
//! it wakes the camera, it gets what the others get, and it can delay nobody. Nothing is decoded: a camera's
//! pictures are sent in the form that it sends them in.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | viewers and players | those of the camera's service | 503 |
//! | time until the first picture | [`FIRST_TIMEOUT`] | 503 |
//! | a picture that waits for a client | the newest alone; in MP4 as many as for a player | older ones are lost |
//! | what a client sends meanwhile | [`MAX_EXCESS`] bytes | closed |
//! | time to take a piece, or a picture | that of [`runtime::drive`](crate::runtime::drive) | closed |
//!
//! Clients tried (`tests/program/media.rs`, `tests/browser`): curl 7.88, FFmpeg 5.1.9, whose pictures from MP4 equal those of
//! the recording bit by bit, GStreamer 1.22.0, aiohttp 3.8.4 as Home Assistant uses it,
//! Chromium 156, Firefox 153 ESR and WebKitGTK 2.50.6.

use alloc::rc::Rc;
use core::convert::Infallible;
use core::fmt;
use core::time::Duration;

use super::answer::{Head, Status, write};
use super::client::{MAX_EXCESS, Media, MediaRequest};
use super::slot::{Slot, SlotState};
use crate::chamber;
use crate::clock::Instant;
use crate::memory::budget::HTTP_OUTBOX;
use crate::memory::pool::Frame;
use crate::memory::slots::{Occupant, Slot as _, SlotGuard};
use crate::printer::status::Status as Printer;
use crate::rtsp;
use crate::rtsp::mp4::{MIN_OUTBOX, Mp4, Readiness, Unusable};
use crate::rtsp::stream::StreamStatus;
use crate::session::{Consumed, Output, Session};

/// How old the last picture may be to be sent at once.
pub const FRESH: Duration = Duration::from_secs(5);

/// How long the first picture may take. A camera that sleeps needs a few seconds.
pub const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

/// What stands between two pictures. It follows each at once: a reader that does not go by lengths shows a picture once it
/// has read this.
const BETWEEN: &str = "\r\n--frame\r\n";

/// The type of a stream of pictures.
const MULTIPART: &str = "multipart/x-mixed-replace; boundary=frame";

const _: () = assert!(512 + MIN_OUTBOX <= HTTP_OUTBOX, "an outbox is too small for MP4");

/// The cameras' services, as far as they are served.
#[derive(Clone)]
pub struct Cameras {
    /// JPEG.
    pub chamber: Option<Rc<chamber::Service>>,
    /// H.264.
    pub rtsp: Option<Rc<rtsp::Service>>,
    /// Which of them the printer has.
    pub printer: Rc<Printer>,
}

/// Why there are no pictures, as the client is answered.
pub type Refusal = (Status, &'static str);

const NO_CAMERA: Refusal = (Status::NotFound, "the proxy serves no camera; see --services\n");
const NO_JPEG: Refusal = (
    Status::NotImplemented,
    "this printer's camera sends H.264, not JPEG; use /stream.mp4, or rtsps:// on port 322\n",
);
const NO_H264: Refusal = (
    Status::NotImplemented,
    "this printer's camera sends JPEG, not H.264; use /stream.mjpg or /snapshot.jpg\n",
);
const FULL: Refusal =
    (Status::Unavailable, "all places at the camera are taken; close another viewer\n");
const STOPPING: Refusal = (Status::Unavailable, "the proxy is shutting down\n");
const LATE: Refusal =
    (Status::Unavailable, "the camera has sent no picture in 15 s; is the printer on?\n");
const LIVE_VIEW_OFF: Refusal =
    (Status::Unavailable, "live view is off; switch on LAN live view at the printer\n");
const PRINTER_REFUSES: Refusal =
    (Status::Unavailable, "the printer refuses the proxy's access code\n");
const CHANGED: Refusal = (Status::Unavailable, "the camera's stream has changed; try again\n");

/// Each answer to a client that gets no pictures.
#[cfg(test)]
pub(super) const REFUSALS: [Refusal; 10] = [
    NO_CAMERA,
    NO_JPEG,
    NO_H264,
    FULL,
    STOPPING,
    LATE,
    LIVE_VIEW_OFF,
    PRINTER_REFUSES,
    CHANGED,
    (Status::NotImplemented, words(Unusable::ParameterSets)),
];

impl Cameras {
    /// Takes a slot for a client that asks for pictures. `client` is its slot of this service.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn watch(
        &self,
        now: Instant,
        asked: MediaRequest,
        client: &Rc<Slot>,
    ) -> Result<(MediaSession, CameraSlot), Refusal> {
        let (source, slot) = match asked.media {
            Media::Snapshot | Media::Mjpeg => {
                let is_elsewhere = self.printer.has_chamber() == Some(false);
                let chamber = match &self.chamber {
                    Some(chamber) if !is_elsewhere => chamber,
                    Some(_) => return Err(NO_JPEG),
                    None if self.rtsp.is_some() => return Err(NO_JPEG),
                    None => return Err(NO_CAMERA),
                };
                let slot = chamber.watch(now, FRESH).ok_or(FULL)?;
                let is_stream = asked.media == Media::Mjpeg;
                (Source::Jpeg(Rc::clone(&slot), is_stream), CameraSlot::Chamber(slot))
            }
            Media::Mp4 => {
                let is_elsewhere = self.printer.has_rtsps() == Some(false);
                let rtsp = match &self.rtsp {
                    Some(rtsp) if !is_elsewhere => rtsp,
                    Some(_) => return Err(NO_H264),
                    None if self.chamber.is_some() => return Err(NO_H264),
                    None => return Err(NO_CAMERA),
                };
                let (slot, mp4) = rtsp.watch().ok_or(FULL)?;
                (Source::Mp4(Rc::clone(&slot), mp4), CameraSlot::Rtsp(slot))
            }
        };
        let occupant = client.occupancy().occupant().get();
        slot.set_occupant(occupant.map(|occupant| Occupant { since: now, ..occupant }));
        client.occupancy().label().with(|name| slot.set_name(name));
        let client = Rc::clone(client);
        let (until, is_head) = (now + FIRST_TIMEOUT, asked.is_head);
        Ok((MediaSession { client, source, is_head, until, step: Step::Begin, excess: 0 }, slot))
    }
}

/// A slot of a camera's service. Dropping it frees the slot.
pub enum CameraSlot {
    /// A viewer's.
    Chamber(SlotGuard<chamber::slot::Slot>),
    /// A player's.
    Rtsp(SlotGuard<rtsp::slot::Slot>),
}

impl CameraSlot {
    /// Completes when the session is to look for a picture, or at the slot's state.
    pub async fn notified(&self) {
        match self {
            Self::Chamber(slot) => slot.notified().await,
            Self::Rtsp(slot) => slot.notified().await,
        }
    }

    fn set_name(&self, name: &str) {
        match self {
            Self::Chamber(slot) => slot.occupancy().label().set(name),
            Self::Rtsp(slot) => slot.occupancy().label().set(name),
        }
    }

    fn set_occupant(&self, occupant: Option<Occupant>) {
        match self {
            Self::Chamber(slot) => slot.occupancy().occupant().set(occupant),
            Self::Rtsp(slot) => slot.occupancy().occupant().set(occupant),
        }
    }
}

/// A client's session while it is sent pictures.
pub struct MediaSession {
    client: Rc<Slot>,
    source: Source,
    /// Whether the head alone is asked for.
    is_head: bool,
    /// When the first picture is due.
    until: Instant,
    step: Step,
    /// Bytes received meanwhile.
    excess: usize,
}

#[allow(clippy::large_enum_variant, reason = "there is one for a connection, in memory of its own")]
enum Source {
    /// Whether more than one picture is asked for.
    Jpeg(Rc<chamber::slot::Slot>, bool),
    Mp4(Rc<rtsp::slot::Slot>, Mp4),
}

enum Step {
    /// Nothing has been sent.
    Begin,
    /// No JPEG is being sent.
    Waits,
    /// What precedes this JPEG was sent.
    Headed(Frame),
    /// This JPEG is being sent.
    Shown(Frame),
    /// All that was asked for has been sent.
    Over,
}

impl MediaSession {
    /// Why the camera's service has the client leave, if it does.
    fn dismissal(&self) -> Option<Refusal> {
        match &self.source {
            Source::Jpeg(slot, _) => {
                let chamber::slot::SlotState::Dismissed(why) = slot.state() else { return None };
                Some(match why {
                    chamber::slot::Dismissal::Stopping => STOPPING,
                    chamber::slot::Dismissal::Full => FULL,
                    chamber::slot::Dismissal::Elsewhere => NO_JPEG,
                })
            }
            Source::Mp4(slot, _) => {
                let rtsp::slot::SlotState::Dismissed(why) = slot.state() else { return None };
                Some(match why {
                    rtsp::slot::Dismissal::Stopping => STOPPING,
                    rtsp::slot::Dismissal::Full => FULL,
                    rtsp::slot::Dismissal::Changed => CHANGED,
                })
            }
        }
    }

    /// Ends the session: with an answer, if nothing has been sent.
    const fn end(&self, why: Refusal) -> Error {
        if self.has_begun() { Error::Ended(why.1) } else { Error::Refused(why) }
    }

    const fn has_begun(&self) -> bool {
        !matches!(self.step, Step::Begin)
    }

    /// Writes the head of the answer.
    fn write_head(out: &mut [u8], content_type: &'static str, len: Option<usize>) -> usize {
        let head = Head {
            status: Status::Ok,
            content_type,
            is_deflated: false,
            len,
            is_chunked: false,
            keeps_alive: false,
            is_1_1: true,
        };
        write(out, format_args!("{head}"))
    }

    /// The next piece of JPEGs. `step` is the one before it.
    fn poll_jpeg(
        &mut self,
        step: Step,
        slot: &chamber::slot::Slot,
        is_stream: bool,
        out: &mut [u8],
    ) -> Output<Error> {
        match step {
            Step::Headed(_) if self.is_head => {
                self.step = Step::Over;
                return Output::End(Error::Sent);
            }
            Step::Headed(picture) => {
                self.step = Step::Shown(picture);
                return Output::Shared;
            }
            Step::Shown(_) => {
                slot.pictures.send();
                if !is_stream {
                    self.step = Step::Over;
                    return Output::End(Error::Sent);
                }
                self.step = Step::Waits;
                return Output::Written(write(out, format_args!("{BETWEEN}")));
            }
            Step::Over => return Output::End(Error::Sent),
            Step::Begin | Step::Waits => {}
        }
        // The newest one that waits.
        let Some(picture) = core::iter::from_fn(|| slot.next()).last() else {
            self.step = step;
            return Output::Idle;
        };
        let mut len = 0;
        if let Step::Begin = step {
            len = if is_stream {
                Self::write_head(out, MULTIPART, None)
            } else {
                Self::write_head(out, "image/jpeg", Some(picture.len()))
            };
        }
        if is_stream && !self.is_head {
            let room = out.get_mut(len..).unwrap_or_default();
            let first = if let Step::Begin = step { "--frame\r\n" } else { "" };
            let bytes = picture.len();
            len += write(
                room,
                format_args!("{first}Content-Type: image/jpeg\r\nContent-Length: {bytes}\r\n\r\n"),
            );
        }
        self.step = Step::Headed(picture);
        Output::Written(len)
    }

    /// The next piece of MP4.
    fn poll_mp4(&mut self, out: &mut [u8]) -> Output<Error> {
        let Source::Mp4(_, mp4) = &mut self.source else { return Output::Idle };
        let mut len = 0;
        if let Step::Begin = self.step {
            match mp4.readiness() {
                Readiness::Waits => return Output::Idle,
                Readiness::Unusable(why) => {
                    return Output::End(Error::Refused((Status::NotImplemented, words(why))));
                }
                Readiness::Ready => {}
            }
            len = Self::write_head(out, "video/mp4", None);
            self.step = if self.is_head { Step::Over } else { Step::Waits };
        }
        if let Step::Over = self.step {
            return if len > 0 { Output::Written(len) } else { Output::End(Error::Sent) };
        }
        match mp4.write(out.get_mut(len..).unwrap_or_default()) {
            Ok(more) if len + more > 0 => Output::Written(len + more),
            Ok(_) => Output::Idle,
            Err(_) if len > 0 => Output::Written(len),
            Err(_) => Output::End(Error::Ended(CHANGED.1)),
        }
    }
}

/// Why a stream cannot be sent as MP4.
const fn words(why: Unusable) -> &'static str {
    match why {
        Unusable::Codec => "the camera does not send H.264; use rtsps:// on port 322\n",
        Unusable::ParameterSets => {
            "the camera's H.264 has no usable parameter sets; use rtsps:// on port 322\n"
        }
    }
}

impl Session for MediaSession {
    type Event<'i> = Infallible;
    type Error = Error;

    fn handle_input(&mut self, _now: Instant, input: &[u8]) -> Consumed<Infallible, Error> {
        self.excess = self.excess.saturating_add(input.len());
        if self.excess > MAX_EXCESS { Err(Error::UnexpectedData) } else { Ok((input.len(), None)) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.has_begun() || now < self.until {
            return Ok(());
        }
        // A picture that comes at the same time is not begun.
        self.step = Step::Over;
        Err(Error::Refused(match &self.source {
            Source::Mp4(_, mp4) => match mp4.stream_status() {
                StreamStatus::Off => LIVE_VIEW_OFF,
                StreamStatus::Elsewhere => NO_H264,
                StreamStatus::WrongCode => PRINTER_REFUSES,
                StreamStatus::Open | StreamStatus::Ready | StreamStatus::Away => LATE,
            },
            Source::Jpeg(..) => LATE,
        }))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!self.has_begun()).then_some(self.until)
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Error> {
        if let SlotState::Dismissed(_) = self.client.state() {
            return Output::End(self.end(STOPPING));
        }
        if let Some(why) = self.dismissal() {
            return Output::End(self.end(why));
        }
        match &self.source {
            Source::Jpeg(slot, is_stream) => {
                let (slot, is_stream) = (Rc::clone(slot), *is_stream);
                let step = core::mem::replace(&mut self.step, Step::Over);
                self.poll_jpeg(step, &slot, is_stream, out)
            }
            Source::Mp4(..) => self.poll_mp4(out),
        }
    }

    fn shared(&self) -> &[u8] {
        match &self.step {
            Step::Shown(picture) => picture,
            Step::Begin | Step::Waits | Step::Headed(_) | Step::Over => &[],
        }
    }
}

/// Why no more pictures are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing has been sent: the client is answered so.
    Refused(Refusal),
    /// All that was asked for has been sent.
    Sent,
    /// The client sent more than [`MAX_EXCESS`] bytes.
    UnexpectedData,
    /// The camera's service ended it in the middle, for this reason.
    Ended(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused((_, why)) | Self::Ended(why) => f.write_str(why.trim_end()),
            Self::Sent => f.write_str("picture sent"),
            Self::UnexpectedData => f.write_str("unexpected data after the request"),
        }
    }
}

impl core::error::Error for Error {}
