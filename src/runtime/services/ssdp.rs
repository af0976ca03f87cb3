//! The tasks of discovery: one receives and sends datagrams, one looks for the printer where it may have gone.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | datagrams that are read | [`MAX_READ`] in [`READ_INTERVAL`] | the others wait in the sockets, whose buffers are bounded |
//! | an address that is tried | the timeouts of [`dial`](crate::runtime::dial) | it does not count |

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::clock::Instant;
use crate::config::PrinterAddr;
use crate::journal::{self, Kind};
use crate::printer::status::Status;
use crate::runtime::Clock;
use crate::runtime::datagram::Datagrams as _;
use crate::runtime::dial::{Dial, DialError, Dialler};
use crate::runtime::host::Host;
use crate::runtime::net::Net;
use crate::runtime::root::Datagrams;
use crate::runtime::service::{Declaration, Listening, Transport};
use crate::ssdp::hub::{Hub, Output, Tried};
use crate::ssdp::wire::{MAX_DATAGRAM, Text};
use crate::ssdp::{GROUP, OTHER_PORT, PORT, Plan, Service};
use crate::tls::Trust;

/// Datagrams that are read in [`READ_INTERVAL`]: five times as many as 34 printers send.
pub const MAX_READ: usize = 32;

/// See [`MAX_READ`].
pub const READ_INTERVAL: Duration = Duration::from_millis(100);

/// How often this machine's networks are looked at: a board is up before its network is.
const NETWORKS_INTERVAL: Duration = Duration::from_secs(10);

/// The pause after a socket reported an error.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How often it is looked at whether there is an address to try.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection that has shown the printer's certificate takes to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The further port, as a service declares it.
const FURTHER: &[RangeInclusive<u16>] = &[OTHER_PORT..=OTHER_PORT];

/// The service in the list of services.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "ssdp",
        without: None,
        is_enabled: |config| config.services.ssdp,
        listens: |_| {
            Some(Listening {
                port: PORT,
                transport: Transport::Datagram,
                clients: 0,
                data_ports: FURTHER,
            })
        },
        start: |root| {
            let config = root.config;
            let (plan, obstacle) = Plan::of(config, root.net.is_bridged());
            if let Some(obstacle) = obstacle {
                log::info!("{obstacle}");
            }
            let service = Rc::new(Service::default());
            let hub = Hub::new(root.clock.now(), &config.serial, plan);
            let hub = Rc::new(RefCell::new(hub));
            let announcer = Announcer {
                net: root.net.clone(),
                sockets: root.take_datagrams(),
                service: Rc::clone(&service),
                hub: Rc::clone(&hub),
                status: Rc::clone(&root.status),
                clock: root.clock,
            };
            root.maintain(announcer.work());
            // Without verification there is no telling whether a machine is the printer.
            if let Some(trust) = root.credentials.trust.without_first_use() {
                let follower = Follower {
                    net: root.net.clone(),
                    port: config.printer_ports.mqtt,
                    trust,
                    service: Rc::clone(&service),
                    hub,
                    status: Rc::clone(&root.status),
                    clock: root.clock,
                };
                root.maintain(follower.work());
            }
            Ok(service)
        },
    }
}

/// Receives and sends datagrams.
struct Announcer<N: Net> {
    net: N,
    sockets: Datagrams<N>,
    service: Rc<Service>,
    hub: Rc<RefCell<Hub>>,
    status: Rc<Status>,
    clock: Clock,
}

/// What the task has waited for.
enum Event {
    Received { port: u16, received: io::Result<(usize, SocketAddr)> },
    Timeout,
    Leaving,
}

impl<N: Net> Announcer<N> {
    async fn work(mut self) {
        if self.sockets.is_empty() {
            // No port is shared with this program: it announces from another one.
            let any = self.net.bind_datagrams(0).ok();
            let _fits = any.and_then(|any| self.sockets.push((0, any)).ok());
        }
        let mut datagram = [0; MAX_DATAGRAM];
        let mut networks_at = Instant::START;
        let (mut interval_began, mut read) = (Instant::START, 0);
        loop {
            let now = self.clock.now();
            if networks_at <= now {
                networks_at = now + NETWORKS_INTERVAL;
                self.bind_missing();
                self.look_at_networks();
            }
            self.hub.borrow_mut().handle_timeout(now, &self.status);
            self.send();
            if now.since(interval_began) >= READ_INTERVAL {
                (interval_began, read) = (now, 0);
            }
            match self.next(&mut datagram, read < MAX_READ, interval_began).await {
                Event::Received { port, received: Ok((len, SocketAddr::V4(from))) } => {
                    read += 1;
                    let datagram = datagram.get(..len).unwrap_or_default();
                    let now = self.clock.now();
                    self.hub.borrow_mut().receive(now, &self.status, port, datagram, from);
                }
                Event::Received { received: Ok((_, SocketAddr::V6(_))), .. } | Event::Timeout => {}
                // A datagram of before was refused; others may be received.
                Event::Received { received: Err(_), .. } => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Event::Leaving => break,
            }
        }
        self.hub.borrow_mut().leave(self.clock.now());
        self.send();
    }

    /// Waits for a datagram if it `may_read`, for what the hub has to do, and for the end.
    async fn next(&self, into: &mut [u8], may_read: bool, interval_began: Instant) -> Event {
        let deadline = self.hub.borrow().deadline();
        let deadline =
            if may_read { deadline } else { deadline.min(interval_began + READ_INTERVAL) };
        let received = core::future::poll_fn(|cx| {
            for (port, socket) in self.sockets.iter().filter(|_| may_read) {
                if let core::task::Poll::Ready(received) = socket.poll_receive(cx, into) {
                    return core::task::Poll::Ready((*port, received));
                }
            }
            core::task::Poll::Pending
        });
        tokio::select! {
            biased;
            () = self.service.until_leaving() => Event::Leaving,
            () = self.clock.reach(deadline) => Event::Timeout,
            (port, received) = received => Event::Received { port, received },
        }
    }

    /// Binds the ports that another program did not share before.
    fn bind_missing(&mut self) {
        for port in [PORT, OTHER_PORT] {
            if self.sockets.iter().any(|(bound, _)| *bound == port) {
                continue;
            }
            if let Ok(socket) = self.net.bind_datagrams(port) {
                self.sockets.retain(|(bound, _)| *bound != 0);
                // It fits: there is room for both.
                let _fits = self.sockets.push((port, socket));
                journal::note(Kind::Started, format_args!("{}", Shared { port }));
            }
        }
    }

    /// Takes note of this machine's networks, and joins the group in each.
    fn look_at_networks(&self) {
        let segments = self.net.segments();
        for (_, socket) in &self.sockets {
            for segment in &segments {
                // Refused where it has been joined before.
                let _joined = socket.join(GROUP, segment.address());
            }
        }
        self.hub.borrow_mut().set_segments(segments);
    }

    /// Sends what the hub has to say.
    fn send(&self) {
        let mut text = Text::new();
        loop {
            let mut hub = self.hub.borrow_mut();
            let Some(output) = hub.poll_output() else { break };
            let to = *output.to.ip();
            let own = hub.own_towards(to).or_else(|| self.net.source_towards(to));
            if own.is_some_and(|own| hub.write(&self.status, output, own, &mut text).is_ok()) {
                self.send_from(output, &text);
            }
        }
        self.service.set_announced(self.hub.borrow().is_announced());
    }

    /// Sends from the port that slicers and printers know, or from another one where that is not shared.
    fn send_from(&self, output: Output, text: &Text) {
        let known = self.sockets.iter().find(|(port, _)| *port == output.from);
        let Some((_, socket)) = known.or(self.sockets.first()) else { return };
        if let Err(error) = socket.send(text.as_bytes(), output.to) {
            // A network that is down; the next announcement may leave.
            log::debug!("ssdp: cannot send to {}: {error}", output.to);
        }
    }
}

/// The log line about a port that could not be bound at the start.
struct Shared {
    port: u16,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssdp: UDP port {} opened: other programs share it now", self.port)
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    alloc::vec![Shared { port: PORT }.to_string()]
}

/// Looks for the printer where it is announced, while it is not reached at its known address.
struct Follower<N: Net> {
    net: N,
    port: u16,
    trust: Trust,
    service: Rc<Service>,
    hub: Rc<RefCell<Hub>>,
    status: Rc<Status>,
    clock: Clock,
}

impl<N: Net> Follower<N> {
    async fn work(self) {
        loop {
            tokio::select! {
                biased;
                () = self.service.until_follower_leaves() => return,
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            }
            let now = self.clock.now();
            let candidate = self.hub.borrow_mut().candidate(now);
            let Some(address) = candidate else { continue };
            let tried = tokio::select! {
                biased;
                () = self.service.until_follower_leaves() => return,
                tried = self.try_address(address) => tried,
            };
            self.hub.borrow_mut().tried(self.clock.now(), &self.status, address, tried);
        }
    }

    /// Whether the machine at `address` has the printer's certificate. Nothing is sent to it after the handshake, so it
    /// does not learn the access code.
    async fn try_address(&self, address: Ipv4Addr) -> Tried {
        let host = Host::of(PrinterAddr::Ip(IpAddr::V4(address)));
        let trust = self.trust.with_own_sessions();
        match Dialler::new(self.net.clone(), host, self.port, trust).dial().await {
            Ok(mut printer) => {
                // Closed in order, or an A1 keeps its place. An end that does not come is no matter.
                let _late = timeout(CLOSE_TIMEOUT, printer.shutdown()).await;
                Tried::Verified
            }
            Err(DialError::Refused(_)) => Tried::Refused,
            Err(_) => Tried::Silent,
        }
    }
}
