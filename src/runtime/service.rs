//! What the composition root knows of a service: how it is declared, and how it is run.
//!
//! A service is added by one line in [`launch::services`](super::launch::services). Its [`Declaration`]
//! says where it listens and how it is started; a started service is a [`Service`].

use alloc::rc::Rc;

pub use super::listening::{Listening, Transport};
use super::net::{Net, Sockets};
use super::root::Root;
use super::start_error::StartError;
use crate::config::Config;
pub use crate::service::Service;

/// A service as the list of services has it.
pub struct Declaration<N: Net = Sockets> {
    /// Its name in the log, in the health check and in the settings.
    pub name: &'static str,
    /// What it means that another program has its port. `None`: the program does not start without it.
    pub without: Option<&'static str>,
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
