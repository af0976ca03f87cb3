//! Where a service listens, and how clients reach it there.

use core::ops::RangeInclusive;

/// How clients reach a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with TLS, which the proxy terminates.
    Tls,
    /// TCP whose bytes the service reads as they are: plain text, or the printer's own TLS.
    Plain,
    /// Datagrams (UDP), by a port that other programs may share. Without it the service runs nevertheless.
    Datagram,
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening<'c> {
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// How clients reach it there.
    pub transport: Transport,
    /// Clients served at once; none where there are no connections.
    pub clients: usize,
    /// Further ports, of which those that cannot be bound are left out: the printer's data ports in a
    /// relay, or further ones for datagrams.
    pub data_ports: &'c [RangeInclusive<u16>],
}

impl Listening<'_> {
    /// With TLS on `port`, for so many clients.
    pub const fn tls(port: u16, clients: usize) -> Self {
        Self { port, transport: Transport::Tls, clients, data_ports: &[] }
    }
}
