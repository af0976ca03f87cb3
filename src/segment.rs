//! A network that this machine has an address in, as datagrams see it: everything that a broadcast reaches.

use core::fmt;
use core::net::Ipv4Addr;

/// Networks that are told apart at once: a board has one or two, a container host a few more.
pub const MAX_SEGMENTS: usize = 8;

/// The networks of this machine.
pub type Segments = heapless::Vec<Segment, MAX_SEGMENTS>;

/// A network that this machine has an address in. `Display` is `192.168.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    address: Ipv4Addr,
    mask: u32,
}

impl Segment {
    /// The network with the prefix length `prefix` in which this machine has `address`. Longer prefixes than 30 have no
    /// broadcast address.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let zeros = 32_u32.checked_sub(prefix.into()).filter(|zeros| (2..32).contains(zeros))?;
        Some(Self { address, mask: u32::MAX << zeros })
    }

    /// This machine's address in it.
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The same network, in which this machine is reached at another of its addresses.
    pub const fn at(self, address: Ipv4Addr) -> Self {
        Self { address, ..self }
    }

    /// The address of the network itself.
    pub const fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask)
    }

    /// The address at which a datagram reaches every machine in it.
    pub const fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask)
    }

    /// Whether `address` is in it.
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.address.to_bits() & self.mask
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.mask.count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_segment_knows_its_ends() {
        let segment = Segment::new(Ipv4Addr::new(192, 168, 1, 77), 26).unwrap();
        assert_eq!(segment.to_string(), "192.168.1.64/26");
        assert_eq!(segment.broadcast(), Ipv4Addr::new(192, 168, 1, 127));
        for (last, is_in) in [(63, false), (64, true), (127, true), (128, false)] {
            assert_eq!(segment.contains(Ipv4Addr::new(192, 168, 1, last)), is_in, "{last}");
        }
    }

    #[test]
    fn a_network_without_broadcast_is_no_segment() {
        for prefix in [0, 31, 32, 33, 255] {
            assert_eq!(Segment::new(Ipv4Addr::LOCALHOST, prefix), None, "{prefix}");
        }
    }
}
