//! What there is to be shown, or why there is nothing: what the hub lets its players and its upstream
//! see.

use core::cell::{Cell, Ref, RefCell};

use super::rtp::SenderReport;
use super::sdp::{Description, TRACKS};
use crate::clock::Instant;

/// What a player may expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamStatus {
    /// It is not known yet; somebody is finding out.
    #[default]
    Open,
    /// The camera shows what it described.
    Ready,
    /// The printer has another camera.
    Elsewhere,
    /// The printer has one, and live view is off.
    Off,
    /// The printer does not answer, or not with anything that could be shown.
    Away,
    /// The printer does not take our access code.
    WrongCode,
}

/// What there is to be shown.
#[derive(Default)]
pub struct StreamInfo {
    description: RefCell<Description>,
    stream_status: Cell<StreamStatus>,
    sources: [u32; TRACKS],
    /// The camera's last sender report of each track, in players' time, and when it arrived.
    reports: [Cell<Option<(SenderReport, Instant)>>; TRACKS],
}

impl StreamInfo {
    /// Nothing yet, from these sources.
    pub fn new(sources: [u32; TRACKS]) -> Self {
        Self { sources, ..Self::default() }
    }

    /// What a player may expect.
    pub fn stream_status(&self) -> StreamStatus {
        self.stream_status.get()
    }

    /// It may expect something else now; whether that is so.
    pub fn set_outlook(&self, stream_status: StreamStatus) -> bool {
        self.stream_status.replace(stream_status) != stream_status
    }

    /// What the camera described last. Not to be held on to.
    pub fn description(&self) -> Ref<'_, Description> {
        self.description.borrow()
    }

    /// The camera has described this.
    pub fn describe(&self, description: Description) {
        *self.description.borrow_mut() = description;
    }

    /// The source (SSRC) of a track's packets, as players see it: always the same.
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
