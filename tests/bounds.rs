//! What this program holds, in the worst states that its peers can bring it to.
//!
//! Everything here is measured by the [heap](pandaproxy::memory::heap) and compared with the
//! [budget](pandaproxy::memory::budget). The figures are printed:
//! `cargo test --test bounds -- --nocapture`.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod clients;
mod lan;
mod printer;

#[path = "bounds/attackers.rs"]
mod attackers;
#[path = "bounds/bed.rs"]
mod bed;
#[path = "bounds/chamber.rs"]
mod chamber;
#[path = "bounds/crowd.rs"]
mod crowd;
#[path = "bounds/day.rs"]
mod day;
#[path = "bounds/files.rs"]
mod files;
#[path = "bounds/full.rs"]
mod full;
#[path = "bounds/rtsp.rs"]
mod rtsp;
#[path = "bounds/share.rs"]
mod share;
#[path = "bounds/siege.rs"]
mod siege;
#[path = "bounds/sums.rs"]
mod sums;
#[path = "bounds/tls.rs"]
mod tls;
