//! Whatever touches a socket or a timer. Nothing outside this folder uses tokio.
//!
//! Everything runs on one thread. A task is made at the start and lives until the end; a connection
//! is served by a task that was waiting for one.

pub mod chamber;
pub mod data_ports;
pub mod dial;
pub mod drive;
pub mod farewell;
mod files;
pub mod ftp;
pub mod gates;
pub mod listen;
pub mod mqtt;
pub mod relay;
pub mod rtsp;
pub mod run;
pub mod stream;
pub mod supervisor;
pub mod transfer;
pub mod work;

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
