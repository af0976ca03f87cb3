//! What a worker of each service does with a client, and who maintains the service's connections to the printer.

pub mod bind;
pub mod camera;
pub mod chamber;
pub mod files;
pub mod ftp;
pub mod http;
pub mod mqtt;
pub mod port_6000;
pub mod relayed;
pub mod rtsp;
pub mod ssdp;
