//! Workers: each takes one accepted connection after another, through TLS, to its service.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::{Acceptor, PendingClient};
use super::drive::Buffers;
use super::net::{Connection, Net};
use super::{Clock, stream};
use crate::auth::WrongCodes;
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::peer::Peer;
use crate::rejections;
use crate::tls::ServerConfig;
use crate::trace;

/// A client whose connection is ready for the service's protocol.
pub struct AcceptedClient<'a> {
    /// Its name in the log.
    pub peer: Peer,
    /// The address at which it finds the proxy, if the service may tell it.
    pub reached: Option<Ipv4Addr>,
    /// When it has to have shown the access code.
    pub until: Instant,
    /// To be called once it has shown the access code.
    pub admitted: &'a dyn Fn(),
}

/// A service, as its workers see it.
pub trait Serves {
    /// How long a client has, from the connection on, to show the access code.
    const TIMEOUT: Duration;

    /// Whether its clients are told the proxy's address even with `--keep-printer-address`.
    const TELLS: bool = false;

    /// The buffers of one worker.
    fn buffers() -> Buffers;

    /// How a client's session ends.
    type End: 'static;

    /// The wrong access codes that a client showed whose session ended so.
    fn wrong_codes(end: &Self::End) -> WrongCodes;

    /// Serves an accepted client until its session ends.
    fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> impl Future<Output = Self::End>;
}

/// Logs the end of a client's connection. Before a login each reason is logged once in a while only.
pub(super) fn note_end(
    now: Instant,
    is_logged_in: bool,
    kind: Kind,
    peer: Peer,
    what: fmt::Arguments<'_>,
) {
    if is_logged_in {
        journal::note(kind, what);
    } else {
        rejections::note(now, kind, peer.address, what);
    }
}

/// Serves one client after another.
pub(super) struct Worker<S, N: Net> {
    pub(super) net: N,
    pub(super) acceptor: Rc<Acceptor<N>>,
    pub(super) service: S,
    /// The address that clients are given in place of the one they connected to.
    pub(super) advertise: Option<Ipv4Addr>,
    /// Whether the proxy's address replaces the printer's in what clients are sent.
    pub(super) rewrites: bool,
    pub(super) clock: Clock,
}

impl<S: Serves, N: Net> Worker<S, N> {
    /// Serves clients over TLS, for ever.
    pub(super) async fn work_tls(self, tls: Arc<ServerConfig>) {
        let mut buffers = S::buffers();
        loop {
            let (connection, pending) = self.acceptor.next(&self.clock).await;
            let Some(accepted) = self.accept(&connection) else { continue };
            let handshake = tokio::select! {
                handshake = self.net.accept_tls(&tls, connection) => handshake,
                () = self.clock.reach(accepted.until) => {
                    pending.turned_away(self.clock.now(), None);
                    continue;
                }
            };
            match handshake {
                Ok(stream) => self.serve(stream, pending, accepted, &mut buffers).await,
                Err(error) => pending.turned_away(self.clock.now(), Some(error)),
            }
        }
    }

    /// Serves clients over TCP without TLS, for ever.
    pub(super) async fn work_plain(self) {
        let mut buffers = S::buffers();
        loop {
            let (connection, pending) = self.acceptor.next(&self.clock).await;
            let Some(accepted) = self.accept(&connection) else { continue };
            self.serve(connection, pending, accepted, &mut buffers).await;
        }
    }

    /// Sets the options of a new connection. `None`: it is lost already.
    fn accept(&self, connection: &N::Connection) -> Option<Accepted> {
        let until = self.clock.now() + S::TIMEOUT;
        let reached = self.reached(connection);
        if let Ok(own) = connection.local_addr() {
            trace::knows(own.ip());
        }
        stream::tune(connection).ok()?;
        Some(Accepted { until, reached })
    }

    /// The address at which clients of this connection find the proxy, if they are to be given one.
    fn reached(&self, connection: &N::Connection) -> Option<Ipv4Addr> {
        if !(self.rewrites || S::TELLS) {
            return None;
        }
        self.advertise.or_else(|| match connection.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => address.to_ipv4_mapped(),
        })
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        pending: PendingClient<N>,
        Accepted { until, reached }: Accepted,
        buffers: &mut Buffers,
    ) {
        let peer = pending.peer;
        let admitted = || {
            journal::note(Kind::Admitted, format_args!("{peer}: admitted"));
            pending.pass();
        };
        let accepted_client = AcceptedClient { peer, reached, until, admitted: &admitted };
        let end = self.service.serve(stream, accepted_client, buffers, &self.clock).await;
        self.net.session_ended(&end);
        match S::wrong_codes(&end) {
            WrongCodes::None => {}
            WrongCodes::One(guess) => pending.count_wrong_code(self.clock.now(), Some(guess)),
            WrongCodes::Digests(count) => {
                for _ in 0..count {
                    pending.count_wrong_code(self.clock.now(), None);
                }
            }
        }
    }
}

/// A new connection's terms.
struct Accepted {
    /// When it has to have shown the access code.
    until: Instant,
    /// The address at which the client finds the proxy.
    reached: Option<Ipv4Addr>,
}
