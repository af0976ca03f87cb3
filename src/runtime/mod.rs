//! Sockets, timers and tasks. Only this folder uses tokio.
//!
//! Everything runs on one thread. All tasks are spawned at the start and run until the end; a connection is served
//! by a worker task that waits for one.

pub mod accept;
pub mod check;
mod clock;
pub mod credentials;
pub mod data_ports;
pub mod datagram;
pub mod dial;
pub mod dial_error;
pub mod drive;
pub mod files;
pub mod host;
pub mod launch;
pub mod listening;
pub mod machine;
pub mod net;
pub mod optional_port;
pub mod pacing;
pub mod reconnect;
pub mod root;
pub mod service;
pub mod services;
pub mod shutdown;
pub mod start_error;
pub mod stream;
pub mod supervisor;
#[cfg(test)]
mod test_runtime;
pub mod worker;

pub use clock::Clock;
