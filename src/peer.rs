//! The other end of a connection: its name in log lines, and its origin, by which limits are counted.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

    /// The origin that the peer's address belongs to.
    pub fn origin(&self) -> Origin {
        Origin::of(self.address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.service, self.number, self.address)
    }
}

/// What one host can choose its addresses from: an IPv4 address, however it is written, or an IPv6 /64
/// (RFC 4291 §2.5.4). Every limit on what one client may take is counted by origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin that `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    #[test]
    fn an_origin_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_ne!(origin("::ffff:10.0.0.1"), origin("::ffff:10.0.0.2"));
        assert_eq!(origin("2001:db8:0:1::1"), origin("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
    }
}
