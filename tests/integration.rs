//! The services as their clients see them.
//!
//! `mqtt`, `failures` and `replay` run the real client, hub and upstream between simulated ends, in memory and
//! in virtual time. `loopback`, `cli`, `health`, `ftp`, `files`, `record` and `rtsp` run the real program as a child,
//! with real clients, in real time and over loopback.

mod camera;
mod chamber;
mod cli;
mod clients;
mod failures;
mod files;
mod ftp;
mod health;
mod lan;
mod loopback;
mod mqtt;
mod printer;
mod record;
mod relay;
mod replay;
mod rtsp;
mod stream;
