//! The real clock.

use crate::clock::Instant;

/// The real clock, read as [`Instant`]s. Virtual under a test's paused time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Instant {
        Instant::at(self.start.elapsed())
    }

    /// Completes when it is `at`, or later.
    pub async fn reach(&self, at: Instant) {
        tokio::time::sleep_until(self.start + at.elapsed()).await;
    }
}
