//! A port that is closed while the printer has no such port, as it is at the printer: programs that look for open ports
//! would take the proxy for another model. And a port that the proxy does without while another program has it.
//!
//! Clients that are connected when the port is closed stay connected.

use alloc::rc::Rc;
use core::cell::Cell;
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
    /// For a port that another program had at the start.
    in_use: Option<Rc<PortInUse>>,
    clock: Clock,
}

/// A port of which the proxy does without while another program has it.
#[derive(Debug)]
pub struct PortInUse {
    service: &'static str,
    port: u16,
    /// What that means.
    without: &'static str,
    is_open: Cell<bool>,
}

impl PortInUse {
    /// Port `port` of a service, which another program has.
    pub const fn new(service: &'static str, port: u16, without: &'static str) -> Self {
        Self { service, port, without, is_open: Cell::new(false) }
    }

    /// Whether the other program has freed it, and the service listens there.
    pub const fn is_open(&self) -> bool {
        self.is_open.get()
    }
}

/// As in the log, while another program has it.
impl fmt::Display for PortInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, without, .. } = self;
        let seconds = RETRY_INTERVAL.as_secs();
        write!(
            f,
            "{service}: port {port} is in use by another program: {without}; give that program another port, or \
             leave detect out of --services; tried again every {seconds} s"
        )
    }
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
        Self { net, service, at, listener, limits_unread: false, in_use: None, clock }
    }

    /// A port that another program has, which has been logged.
    pub fn in_use(net: N, at: SocketAddr, port: Rc<PortInUse>, clock: Clock) -> Self {
        let service = port.service;
        let in_use = Some(port);
        Self { net, service, at, listener: None, limits_unread: false, in_use, clock }
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
                let opened = match &self.in_use {
                    None => open(&self.net, self.service, self.at, &self.clock).await,
                    Some(port) => open_later(&self.net, port, self.at, &self.clock).await,
                };
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
            let line = Changed { service, port, is_open: false, cause };
            journal::note(Kind::CameraFound, format_args!("{line}"));
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
                let line = Changed { service, port, is_open: true, cause: FOUND };
                journal::note(Kind::CameraFound, format_args!("{line}"));
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

/// Binds a port as soon as the other program has freed it.
async fn open_later<N: Net>(
    net: &N,
    port: &PortInUse,
    at: SocketAddr,
    clock: &Clock,
) -> N::Listener {
    loop {
        clock.reach(clock.now() + RETRY_INTERVAL).await;
        if let Ok(listener) = net.bind(at) {
            port.is_open.set(true);
            let PortInUse { service, port, .. } = *port;
            let line = Changed { service, port, is_open: true, cause: FREED };
            journal::note(Kind::Started, format_args!("{line}"));
            return listener;
        }
    }
}

/// The log line of a port that is opened or closed while the program runs.
struct Changed<'a> {
    service: &'static str,
    port: u16,
    is_open: bool,
    cause: &'a str,
}

impl fmt::Display for Changed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, is_open, cause } = self;
        let event = if *is_open { "opened" } else { "closed" };
        write!(f, "{service}: port {port} {event}: {cause}")
    }
}

/// Why a port is opened that was closed.
const FOUND: &str = "the printer has it";
const FREED: &str = "no other program has it any more";

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
    let changed =
        |service, port, is_open, cause| Changed { service, port, is_open, cause }.to_string();
    alloc::vec![
        changed("rtsp", 322, false, super::services::rtsp::NO_CAMERA),
        changed("chamber", 6000, false, super::services::port_6000::NOTHING),
        changed("rtsp", 322, true, FOUND),
        changed("detect", 3000, true, FREED),
        PortInUse::new("detect-tls", 3002, "slicers that ask there do not find the printer")
            .to_string(),
        NotOpened { service: "rtsp", port: 322, error }.to_string(),
    ]
}
