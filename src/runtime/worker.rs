//! Workers: each takes one accepted connection after another, makes the TLS handshake and lets its service serve
//! the client.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::{Acceptor, PendingClient};
use super::drive::{Buffers, End};
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
    /// The client's name in the log.
    pub peer: Peer,
    /// The proxy's address as the client sees it; `None` if the service may not send it to the client.
    pub reached: Option<Ipv4Addr>,
    /// Deadline of the client's login.
    pub until: Instant,
    /// Called once the client has logged in: frees its pre-auth slot.
    pub admitted: &'a dyn Fn(),
}

/// What a worker needs of its service.
pub trait Serves {
    /// Time from the connection to the end of the client's login.
    const TIMEOUT: Duration;

    /// Whether clients are sent the proxy's address even with `--keep-printer-address`.
    const TELLS: bool = false;

    /// Allocates the buffers of one worker.
    fn buffers() -> Buffers;

    /// How a client's connection ended.
    type End: 'static;

    /// The wrong access codes that a client sent whose connection ended like `end`.
    fn wrong_codes(end: &Self::End) -> WrongCodes;

    /// Serves an accepted client until its connection ends.
    fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> impl Future<Output = Self::End>;
}

/// The end of a client's connection, displayed as its log line:
/// `mqtt 3 (192.168.1.7): client disconnected: write timed out after 5 s`.
pub(super) struct ClientEnd<'a, E> {
    /// The client.
    pub(super) peer: Peer,
    /// How the journal counts it. A client that a limit of this board kept out ([`Kind::Refused`]) was rejected.
    pub(super) kind: Kind,
    /// How the connection ended.
    pub(super) end: &'a End<E>,
    /// What follows the cause: figures in brackets, for example.
    pub(super) details: fmt::Arguments<'a>,
}

impl<E: fmt::Display> ClientEnd<'_, E> {
    /// Logs the end. Before the login, lines of the same kind are rate-limited.
    pub(super) fn note(&self, now: Instant, is_logged_in: bool) {
        if is_logged_in {
            journal::note(self.kind, format_args!("{self}"));
        } else {
            rejections::note(now, self.kind, self.peer.address, format_args!("{self}"));
        }
    }
}

impl<E: fmt::Display> fmt::Display for ClientEnd<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, kind, end, details } = self;
        let event = if *kind == Kind::Refused { "rejected" } else { "disconnected" };
        write!(f, "{peer}: client {event}")?;
        match end {
            End::Closed => {}
            End::Session(error) => write!(f, ": {error}")?,
            End::Stream(error) => write!(f, ": {error}")?,
        }
        f.write_fmt(*details)
    }
}

/// Log lines of the end of a connection, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use super::stream::StreamError;

    let line = |kind, end: End<&str>, details| {
        let (sent, dropped) = details;
        let details = format_args!(" ({sent} pictures sent, {dropped} dropped)");
        alloc::format!("{}", ClientEnd { peer: Peer::unknown(), kind, end: &end, details })
    };
    alloc::vec![
        line(Kind::Left, End::Closed, (12, 3)),
        line(Kind::Stuck, End::Stream(StreamError::Stalled), (12, 3)),
        line(Kind::WrongCode, End::Session("wrong access code"), (0, 0)),
        line(Kind::Refused, End::Session("all 16 slots are in use"), (0, 0)),
    ]
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
                    pending.note_handshake_failure(self.clock.now(), None);
                    continue;
                }
            };
            match handshake {
                Ok(stream) => self.serve(stream, pending, accepted, &mut buffers).await,
                Err(error) => pending.note_handshake_failure(self.clock.now(), Some(error)),
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

    /// Sets the options of a new connection. `None` if the connection is lost already.
    fn accept(&self, connection: &N::Connection) -> Option<Accepted> {
        let until = self.clock.now() + S::TIMEOUT;
        let reached = self.reached(connection);
        if let Ok(own) = connection.local_addr() {
            trace::knows(own.ip());
        }
        stream::tune(connection).ok()?;
        Some(Accepted { until, reached })
    }

    /// The proxy's address as the client of this connection sees it; `None` if the client is not sent one.
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
            journal::note(Kind::Admitted, format_args!("{peer}: client connected"));
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

/// The deadline and address of a new connection.
struct Accepted {
    /// Deadline of the client's login.
    until: Instant,
    /// The proxy's address as the client sees it.
    reached: Option<Ipv4Addr>,
}
