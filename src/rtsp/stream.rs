//! The state of the stream, which the hub writes and players read.

use core::cell::{Cell, Ref, RefCell};

use super::rtp::SenderReport;
use super::sdp::{Description, TRACKS};
use crate::clock::Instant;

/// Whether there is a stream, or why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamStatus {
    /// Unknown yet: the camera is being looked for.
    #[default]
    Open,
    /// The camera has described its stream.
    Ready,
    /// The printer has a chamber camera.
    Elsewhere,
    /// The printer has an RTSPS camera, and live view is off.
    Off,
    /// The printer does not answer, or not with a stream.
    Away,
    /// The printer refuses the proxy's access code.
    WrongCode,
}

/// The stream's status, description, sources and clocks.
#[derive(Default)]
pub struct StreamInfo {
    description: RefCell<Description>,
    stream_status: Cell<StreamStatus>,
    sources: [u32; TRACKS],
    /// The camera's last sender report of each track, in players' time, and when it arrived.
    reports: [Cell<Option<(SenderReport, Instant)>>; TRACKS],
}

impl StreamInfo {
    /// No stream yet. `sources` are the SSRCs of its tracks, as players see them.
    pub fn new(sources: [u32; TRACKS]) -> Self {
        Self { sources, ..Self::default() }
    }

    /// The stream's status.
    pub fn stream_status(&self) -> StreamStatus {
        self.stream_status.get()
    }

    /// Sets the status, and returns whether it has changed.
    pub fn set_status(&self, stream_status: StreamStatus) -> bool {
        self.stream_status.replace(stream_status) != stream_status
    }

    /// What the camera described last. The borrow must end before the next event.
    pub fn description(&self) -> Ref<'_, Description> {
        self.description.borrow()
    }

    /// Keeps a new description.
    pub fn describe(&self, description: Description) {
        *self.description.borrow_mut() = description;
    }

    /// The SSRC of a track's packets, as players see it; it never changes.
    pub fn source(&self, track: usize) -> u32 {
        self.sources.get(track).copied().unwrap_or_default()
    }

    /// Keeps the camera's last sender report of a track, its timestamp in players' time.
    pub fn set_report(&self, track: usize, report: SenderReport, now: Instant) {
        if let Some(kept) = self.reports.get(track) {
            kept.set(Some((report, now)));
        }
    }

    /// A sender report of a track for this moment: the camera's last one, its clock and timestamp moved on by
    /// the time since. All zero, which stands for an unknown clock (RFC 3550 §6.4.1), before the first one.
    pub fn report(&self, track: usize, now: Instant) -> SenderReport {
        let Some((report, at)) = self.reports.get(track).and_then(Cell::get) else {
            return SenderReport::default();
        };
        let description = self.description.borrow();
        let rate = description.tracks().get(track).map_or(0, |track| track.rate);
        report.after(now.since(at), rate)
    }
}
