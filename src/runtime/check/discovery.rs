//! Who announces the printer in this machine's networks: itself, this machine's service, or another proxy.

use alloc::format;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::task::Poll;

use tokio::time::{Instant, timeout_at};

use super::local::Machine;
use super::{LISTEN_TIME, Run};
use crate::cause::Cause;
use crate::check::Finding;
use crate::runtime::datagram::Datagrams as _;
use crate::runtime::net::Net;
use crate::ssdp::wire::{MAX_DATAGRAM, Message, parse};
use crate::ssdp::{GROUP, OTHER_PORT, PORT};

/// The ports on which announcements are received, since the check began.
pub(super) struct Ears<N: Net> {
    sockets: heapless::Vec<N::Datagrams, 2>,
    since: Instant,
}

impl<N: Net> Ears<N> {
    pub(super) fn open(net: &N) -> Self {
        let mut sockets = heapless::Vec::new();
        for port in [PORT, OTHER_PORT] {
            // Without a port that another program does not share, less is heard.
            let Ok(socket) = net.bind_datagrams(port) else { continue };
            for segment in net.segments() {
                // Refused where it has been joined before.
                let _joined = socket.join(GROUP, segment.address());
            }
            // There is room for both.
            let _fits = sockets.push(socket);
        }
        Self { sockets, since: Instant::now() }
    }

    /// The next datagram's length, and where it came from.
    async fn next(&self, into: &mut [u8]) -> (usize, SocketAddr) {
        poll_fn(|cx| {
            for socket in &self.sockets {
                if let Poll::Ready(Ok(received)) = socket.poll_receive(cx, into) {
                    return Poll::Ready(received);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Who has announced the printer.
#[derive(Default)]
struct Heard {
    printer: Option<Ipv4Addr>,
    is_cloud: bool,
    /// Whether this machine's service has.
    own: bool,
    other: Option<Ipv4Addr>,
}

impl<N: Net, M: Machine> Run<'_, N, M> {
    /// Who announces this serial number here.
    pub(super) async fn discovery(&mut self, ears: Ears<N>) -> Finding {
        let mut heard = Heard::default();
        self.listen(&ears, ears.since + LISTEN_TIME, &mut heard).await;
        let configured = self.printer_address();
        let is_near = |at| self.is_near(IpAddr::V4(at));
        if heard.printer.is_none() && configured.is_some_and(is_near) {
            self.listen(&ears, Instant::now() + self.within(LISTEN_TIME), &mut heard).await;
        }
        let Heard { printer, is_cloud, own, other } = heard;
        if let Some(other) = other {
            return Finding::warning(&Cause::OTHER_PROXY.with(other));
        }
        let by = if own { ", and this machine's service announces it" } else { "" };
        match printer {
            Some(at) if configured.is_some_and(|configured| configured != at) => {
                Finding::warning(&Cause::ANNOUNCED_ELSEWHERE.with(at))
            }
            Some(_) if is_cloud => Finding::warning(&Cause::CLOUD_MODE.with("")),
            Some(at) => Finding::good(format!("the printer announces itself at {at}{by}")),
            None if configured.is_some_and(is_near) => {
                let unheard = Finding::warning(&Cause::UNHEARD.with(""));
                Finding { text: format!("{}{by}", unheard.text), ..unheard }
            }
            None if configured.is_none() => {
                Finding::skipped(format!("the printer's address is not known{by}"))
            }
            None => Finding::good(format!(
                "the printer is in another network, whose announcements do not arrive here{by}"
            )),
        }
    }

    async fn listen(&self, ears: &Ears<N>, until: Instant, heard: &mut Heard) {
        let mut datagram = [0; MAX_DATAGRAM];
        while let Ok((len, from)) = timeout_at(until, ears.next(&mut datagram)).await {
            let Ok(Message::Alive(said)) = parse(datagram.get(..len).unwrap_or_default()) else {
                continue;
            };
            if said.serial != self.check.config.serial {
                continue;
            }
            let from = match from.ip() {
                IpAddr::V4(from) => from,
                IpAddr::V6(_) => continue,
            };
            let at = said.location.unwrap_or(from);
            if self.check.machine.has_address(IpAddr::V4(from)) {
                heard.own = true;
            } else if said.is_proxys() {
                heard.other = Some(at);
            } else {
                heard.printer = Some(at);
                heard.is_cloud = said.connect == "cloud";
            }
        }
    }
}
