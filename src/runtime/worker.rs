//! Workers: each takes whoever is called from the acceptor, through TLS, to the service, one after
//! another.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::accept::{Acceptor, PendingClient};
use super::drive::Buffers;
use super::{Clock, stream};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::peer::Peer;
use crate::tls::{ServerConfig, accept};
use crate::trace;

/// Somebody who stands before a service, TLS behind them.
pub struct AcceptedClient<'a> {
    /// Who it is.
    pub peer: Peer,
    /// Where they believe the printer to be, if they are to be told so.
    pub reached: Option<Ipv4Addr>,
    /// Until when they have to show the code.
    pub until: Instant,
    /// To be called once they have shown it.
    pub admitted: &'a dyn Fn(),
}

/// A service, as its workers see it.
pub trait Serves {
    /// How long a accepted client has, from the first byte on, to show the code.
    const TIMEOUT: Duration;

    /// Whether its accepted clients have to be told an address in any case.
    const TELLS: bool = false;

    /// What one worker needs to have in hand.
    fn buffers() -> Buffers;

    /// Serves a accepted client until it ends; how many wrong codes it showed.
    fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> impl Future<Output = usize>;
}

/// Serves one client after another.
pub(super) struct Worker<S> {
    pub(super) acceptor: Rc<Acceptor>,
    pub(super) service: S,
    pub(super) tls: Arc<ServerConfig>,
    /// The address that clients are told in place of the one they reached.
    pub(super) advertise: Option<Ipv4Addr>,
    /// Whether clients are told any address at all.
    pub(super) rewrites: bool,
    pub(super) clock: Clock,
}

impl<S: Serves> Worker<S> {
    pub(super) async fn work(self) {
        let mut buffers = S::buffers();
        loop {
            let (socket, pending) = self.acceptor.next(&self.clock).await;
            self.serve(socket, pending, &mut buffers).await;
        }
    }

    /// Where clients of this socket believe the printer to be, if they are to be told so.
    fn reached(&self, socket: &TcpStream) -> Option<Ipv4Addr> {
        if !(self.rewrites || S::TELLS) {
            return None;
        }
        self.advertise.or_else(|| match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => address.to_ipv4_mapped(),
        })
    }

    async fn serve(&self, socket: TcpStream, pending: PendingClient, buffers: &mut Buffers) {
        let until = self.clock.now() + S::TIMEOUT;
        let peer = pending.peer;
        let reached = self.reached(&socket);
        if let Ok(own) = socket.local_addr() {
            trace::knows(own.ip());
        }
        if stream::tune(&socket).is_err() {
            // Gone before anything was said.
            return;
        }
        let accepted = tokio::select! {
            accepted = accept(&self.tls, socket) => accepted,
            () = self.clock.reach(until) => {
                pending.turned_away(self.clock.now(), None);
                return;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                pending.turned_away(self.clock.now(), Some(error));
                return;
            }
        };
        let admitted = || {
            journal::note(Kind::Admitted, format_args!("{peer}: admitted"));
            pending.pass();
        };
        let accepted_client = AcceptedClient { peer, reached, until, admitted: &admitted };
        for _ in 0..self.service.serve(stream, accepted_client, buffers, &self.clock).await {
            pending.wrong_code(self.clock.now());
        }
    }
}
