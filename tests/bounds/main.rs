//! What this program holds, in the worst states that its peers can bring it to.
//!
//! Everything here is measured by the [heap](pandaproxy::memory::heap) and compared with the
//! [budget](pandaproxy::memory::budget). Each test that measures is run in a process of its own. The figures are printed:
//! `cargo test --test bounds -- --nocapture`.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "it is test code, and a mistake in it should stop the test"
)]

#[path = "../support/clients/anybody.rs"]
mod anybody;
#[path = "../support/clients/mod.rs"]
mod clients;
#[path = "../support/lan/mod.rs"]
mod lan;

#[path = "attackers.rs"]
mod attackers;
#[path = "bed.rs"]
mod bed;
mod bind;
#[path = "chamber.rs"]
mod chamber;
#[path = "crowd.rs"]
mod crowd;
#[path = "day.rs"]
mod day;
#[path = "files.rs"]
mod files;
#[path = "full.rs"]
mod full;
mod http;
#[path = "rtsp.rs"]
mod rtsp;
#[path = "share.rs"]
mod share;
#[path = "siege.rs"]
mod siege;
#[path = "sums.rs"]
mod sums;
#[path = "tls.rs"]
mod tls;
