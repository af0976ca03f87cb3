//! Whatever touches a socket or a timer. Nothing outside this folder uses tokio.
//!
//! Everything runs on one thread. A task is made at the start and lives until the end; a connection
//! is served by a task that was waiting for one.

pub mod accept;
mod clock;
pub mod dial;
pub mod drive;
pub mod files;
pub mod launch;
pub mod net;
pub mod reconnect;
pub mod service;
pub mod services;
pub mod shutdown;
pub mod stream;
pub mod supervisor;
pub mod worker;

pub use clock::Clock;
