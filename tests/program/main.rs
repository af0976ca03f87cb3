//! The real program as a child process, with real clients, over loopback and in real time.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

#[path = "../support/clients/mod.rs"]
mod clients;
#[path = "../replay/recording.rs"]
#[allow(dead_code, reason = "replaying needs more of a recording than counting what is in it")]
mod recording;

mod admission;
mod bind;
mod chamber;
mod check;
mod cli;
mod files;
mod ftp;
mod health;
mod home_assistant;
mod http;
mod log;
mod media;
mod mqtt;
mod print_job;
mod readme;
mod record;
mod relay;
mod rtsp;
mod slicer;
mod ssdp;
mod state;
mod update;
