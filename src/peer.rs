//! The other end of a connection, as log lines name it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

/// The other end of a connection, as log lines name it: `mqtt 3 (192.168.1.7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The service's name.
    pub service: &'static str,
    /// The connection's number, counted from the start of the program.
    pub number: u32,
    /// The peer's address.
    pub address: IpAddr,
}

impl Peer {
    /// A peer for tests.
    pub const fn unknown() -> Self {
        Self { service: "mqtt", number: 0, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.service, self.number, self.address)
    }
}
