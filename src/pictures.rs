//! How many pictures one viewer of a camera was sent and lost.

use core::cell::Cell;
use core::fmt;

/// Pictures of one connection. Displayed as in the log line of its end.
#[derive(Default)]
pub struct Pictures {
    sent: Cell<u32>,
    lost: Cell<u32>,
}

impl Pictures {
    /// Pictures that were sent.
    pub const fn sent(&self) -> u32 {
        self.sent.get()
    }

    /// Pictures that were dropped because the viewer reads too slowly.
    pub const fn lost(&self) -> u32 {
        self.lost.get()
    }

    /// Counts a picture that was sent.
    pub fn send(&self) {
        self.sent.set(self.sent().saturating_add(1));
    }

    /// Counts pictures that were dropped.
    pub fn lose(&self, pictures: u32) {
        self.lost.set(self.lost().saturating_add(pictures));
    }

    /// Begins to count for another connection.
    pub fn reset(&self) {
        self.sent.set(0);
        self.lost.set(0);
    }
}

impl fmt::Display for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " ({} pictures sent, {} dropped)", self.sent(), self.lost())
    }
}
