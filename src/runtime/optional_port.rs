//! A port that is closed while the printer has no such port, as it is at the printer: programs that look for open ports
//! would take the proxy for another model.
//!
//! Clients that are connected when the port is closed stay connected.

use core::convert::Infallible;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use super::Clock;
use super::accept::Acceptor;
use super::net::{Listener, Net};
use super::pacing::{RECEIVE_BUFFER, limit_unread};
use crate::journal::{self, Kind};

/// Time between two attempts to bind a port that another program has.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// A port of the proxy's that is opened and closed while it runs.
pub struct OptionalPort<N: Net> {
    net: N,
    service: &'static str,
    at: SocketAddr,
    listener: Option<N::Listener>,
    /// Whether the kernel receives little before the proxy has read it.
    limits_unread: bool,
    clock: Clock,
}

impl<N: Net> OptionalPort<N> {
    /// The port `at`, which is open if there is a listener.
    pub const fn new(
        net: N,
        service: &'static str,
        at: SocketAddr,
        listener: Option<N::Listener>,
        clock: Clock,
    ) -> Self {
        Self { net, service, at, listener, limits_unread: false, clock }
    }

    /// Limits what the kernel receives on its connections before the proxy has read it.
    pub fn limit_unread(mut self) -> Self {
        self.limits_unread = true;
        if let Some(listener) = &self.listener {
            // A listener with larger buffers serves as well.
            let _larger = limit_unread(listener, RECEIVE_BUFFER);
        }
        self
    }

    /// Accepts connections, for ever. A closed port is opened first: if another program has it, that is logged once, and
    /// tried again every [`RETRY_INTERVAL`].
    pub async fn accept(&mut self, acceptor: &Acceptor<N>) -> Infallible {
        let listener = match &mut self.listener {
            Some(listener) => listener,
            closed @ None => {
                let opened = open(&self.net, self.service, self.at, &self.clock).await;
                if self.limits_unread {
                    let _larger = limit_unread(&opened, RECEIVE_BUFFER);
                }
                closed.insert(opened)
            }
        };
        loop {
            acceptor.listen(listener, &self.clock).await;
        }
    }

    /// Closes the port, and the connections that no worker has taken yet. `cause` is logged if it was open.
    pub fn close(&mut self, acceptor: &Acceptor<N>, cause: &str) {
        acceptor.clear_queue();
        if let Some(listener) = self.listener.take() {
            // A port that the system chose is kept.
            self.at = listener.local_addr().unwrap_or(self.at);
            let (service, port) = (self.service, self.at.port());
            journal::note(Kind::CameraFound, format_args!("{}", Closed { service, port, cause }));
        }
    }

    /// The port is another service's from now on, at another address if one is given.
    pub fn move_to(&mut self, service: &'static str, at: Option<SocketAddr>) {
        self.service = service;
        if let Some(at) = at.filter(|at| at.port() != self.at.port()) {
            self.at = at;
            self.listener = None;
        }
    }
}

/// Binds a port that the printer turned out to have, as soon as no other program has it.
async fn open<N: Net>(
    net: &N,
    service: &'static str,
    at: SocketAddr,
    clock: &Clock,
) -> N::Listener {
    let mut is_logged = false;
    loop {
        match net.bind(at) {
            Ok(listener) => {
                let port = listener.local_addr().unwrap_or(at).port();
                journal::note(Kind::CameraFound, format_args!("{}", Opened { service, port }));
                return listener;
            }
            Err(error) => {
                if !is_logged {
                    log::warn!("{}", NotOpened { service, port: at.port(), error });
                    is_logged = true;
                }
                clock.reach(clock.now() + RETRY_INTERVAL).await;
            }
        }
    }
}

/// The log line of a port that is closed.
pub(super) struct Closed<'a> {
    pub(super) service: &'static str,
    pub(super) port: u16,
    pub(super) cause: &'a str,
}

impl fmt::Display for Closed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, cause } = self;
        write!(f, "{service}: port {port} closed: {cause}")
    }
}

struct Opened {
    service: &'static str,
    port: u16,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port } = self;
        write!(f, "{service}: port {port} opened: the printer has it")
    }
}

struct NotOpened {
    service: &'static str,
    port: u16,
    error: io::Error,
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, error } = self;
        let seconds = RETRY_INTERVAL.as_secs();
        write!(f, "{service}: cannot bind port {port}: {error}; trying again every {seconds} s")
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let error = io::ErrorKind::AddrInUse.into();
    alloc::vec![
        Closed { service: "rtsp", port: 322, cause: super::services::rtsp::NO_CAMERA }.to_string(),
        Closed { service: "chamber", port: 6000, cause: super::services::port_6000::NOTHING }
            .to_string(),
        Opened { service: "rtsp", port: 322 }.to_string(),
        NotOpened { service: "rtsp", port: 322, error }.to_string(),
    ]
}
