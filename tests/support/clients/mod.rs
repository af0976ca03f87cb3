//! Clients that share no codec with the proxy.
#![allow(dead_code, reason = "not every test binary uses every client")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

pub(crate) mod mqtt;
pub(crate) mod ports;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod rtsp;
