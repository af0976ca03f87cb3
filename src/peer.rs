//! The other end of a connection, as log lines name it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

/// Who is at the other end: how log lines name a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which service.
    pub service: &'static str,
    /// Which conversation of it, counted from the start.
    pub number: u32,
    /// From where.
    pub address: IpAddr,
}

impl Peer {
    /// Nobody in particular: for tests.
    pub const fn unknown() -> Self {
        Self { service: "mqtt", number: 0, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.service, self.number, self.address)
    }
}
