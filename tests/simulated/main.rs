//! The services between simulated ends: the real client, hub and upstream code, in memory and in virtual time.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

#[path = "../support/clients/mod.rs"]
mod clients;
#[path = "../support/lan/mod.rs"]
mod lan;

mod admission;
mod bind;
mod chamber;
mod check;
mod echo;
mod failures;
mod ftp;
mod http;
mod mqtt;
mod name;
mod port_6000;
mod ports;
mod print_job;
#[path = "../replay/mod.rs"]
mod replay;
mod root;
mod rtsp;
mod ssdp;
