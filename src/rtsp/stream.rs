//! What there is to be shown, or why there is nothing: what the hub lets its players and its upstream
//! see.

use core::cell::{Cell, Ref, RefCell};

use super::sdp::{Description, TRACKS};

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
}
