//! The runtime's clock.

use crate::clock::Instant;

/// Monotonic clock that counts [`Instant`]s from its start. Under tokio's paused time it is virtual.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        Instant::at(self.start.elapsed())
    }

    /// Completes at `at`; at once if `at` is past.
    pub async fn reach(&self, at: Instant) {
        tokio::time::sleep_until(self.start + at.elapsed()).await;
    }
}
