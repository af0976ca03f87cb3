//! What the composition root knows of a service: how it is declared, and how it is run.
//!
//! A service is added by one line in [`launch::services`](super::launch::services). Its [`Declaration`]
//! says where it listens and how it is started; a started service is a [`Service`].

use alloc::rc::Rc;
use core::ops::RangeInclusive;

use super::net::{Net, Sockets};
use super::root::Root;
use super::start_error::StartError;
use crate::config::Config;
pub use crate::service::Service;

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

/// A service as the list of services has it.
pub struct Declaration<N: Net = Sockets> {
    /// Its name in the log, in the health check and in the settings.
    pub name: &'static str,
    /// Whether this configuration has it started.
    pub is_enabled: fn(&Config) -> bool,
    /// Where it listens with this configuration. A service may run without a port of its own.
    pub listens: for<'c> fn(&'c Config) -> Option<Listening<'c>>,
    /// Starts its tasks. Its port is bound by then.
    pub start: Start<N>,
}

/// Starts a service.
pub type Start<N> = fn(&mut Root<'_, N>) -> Result<Rc<dyn Service>, StartError>;

impl<N: Net> Declaration<N> {
    /// Where it listens with this configuration, if the configuration enables it.
    pub fn listening<'c>(&self, config: &'c Config) -> Option<Listening<'c>> {
        (self.is_enabled)(config).then(|| (self.listens)(config)).flatten()
    }
}
