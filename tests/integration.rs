//! The services as their clients see them.
//!
//! `mqtt` and `failures` run the real client, hub and upstream between simulated ends, in memory and
//! in virtual time. `loopback` and `cli` run the real program as a child, with real clients, in real
//! time and over loopback.

mod camera;
mod chamber;
mod cli;
mod clients;
mod failures;
mod ftp;
mod lan;
mod loopback;
mod mqtt;
mod printer;
mod relay;
mod stream;
