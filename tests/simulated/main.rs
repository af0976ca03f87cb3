//! The services between simulated ends: the real client, hub and upstream code, in memory and in virtual time.

#[path = "../support/clients/mod.rs"]
mod clients;
#[path = "../support/lan/mod.rs"]
mod lan;
#[path = "../printer/mod.rs"]
mod printer;

mod chamber;
mod failures;
mod mqtt;
#[path = "../replay/mod.rs"]
mod replay;
mod rtsp;
