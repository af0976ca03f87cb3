//! The file service's tasks: what a worker does with a client, and who keeps the printer's sessions.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::cause::Cause;
use crate::clock::Instant;
use crate::ftp::client::{self, LOGIN_TIMEOUT};
use crate::ftp::printer_session::PrinterSession;
use crate::ftp::upstream;
use crate::ftp::{ClientLink, ClientRuntime, Service};
use crate::journal::Kind;
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::printer::status::Login;
use crate::runtime::Clock;
use crate::runtime::dial::{Dial, DialError, Dialler};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::files::passive::PassivePorts;
use crate::runtime::net::{Connection, Net, Sockets};
use crate::runtime::reconnect::{Ended, Pace, PrinterConnection, PrinterPort};
use crate::runtime::stream::{Stream, tune_silent};
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::session::Handler;
use crate::trace::Protocol;

/// The service, and the data ports of its clients.
pub struct Files<N: Net = Sockets> {
    /// What clients and the printer's sessions share.
    pub service: Rc<Service>,
    /// Towards clients.
    pub passive_ports: Rc<PassivePorts<N>>,
}

impl<N: Net> Clone for Files<N> {
    fn clone(&self) -> Self {
        Self { service: Rc::clone(&self.service), passive_ports: Rc::clone(&self.passive_ports) }
    }
}

impl<N: Net> ServesSessions for Files<N> {
    const PROTOCOL: Protocol = Protocol::Ftp;
    const TIMEOUT: Duration = LOGIN_TIMEOUT;
    const ALWAYS_SENDS_ADDRESS: bool = true;

    type Session = client::Client;
    type Link<'a> = ClientConnection<'a, N>;

    fn buffers() -> Buffers {
        Buffers::new(budget::FTP_INBOX, budget::FTP_OUTBOX)
    }

    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Self::Session, Self::Link<'a>)> {
        let AcceptedClient { peer, reached, until, refusal, admitted, clock, .. } = client;
        let link = self.service.pending(peer)?;
        let slot = link.slot().index();
        let reached = reached.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4);
        let client = match refusal {
            None => link.client(reached, until),
            Some(_) => link.refused_client(reached, clock.now()),
        };
        let data_port = DataPort { passive_ports: &self.passive_ports, slot };
        Some((client, ClientConnection { link, data_port, address: peer.address, clock, admitted }))
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.link.occupant()
    }

    async fn run<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        client: &mut client::Client,
        connection: &Self::Link<'_>,
        stream: &mut Stream<T>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> SessionEnd<Self> {
        let ClientConnection { link, data_port, address, .. } = connection;
        tokio::select! {
            biased;
            end = drive(client, connection, stream, buffers, clock) => end,
            never = data_port.passive_ports.tend(link, *address, clock) => match never {},
        }
    }
}

/// A client's slot and data port. The slot is freed before the data port is closed.
pub struct ClientConnection<'a, N: Net> {
    link: ClientLink,
    data_port: DataPort<'a, N>,
    /// The client's address, from which alone data connections are accepted.
    address: IpAddr,
    clock: &'a Clock,
    admitted: &'a dyn Fn(),
}

/// The data port of a slot. Dropping it closes the port, if it is open, and its connection.
struct DataPort<'a, N: Net> {
    passive_ports: &'a PassivePorts<N>,
    slot: usize,
}

impl<N: Net> Drop for DataPort<'_, N> {
    fn drop(&mut self) {
        self.passive_ports.close(self.slot);
    }
}

impl<N: Net> ClientRuntime for &ClientConnection<'_, N> {
    fn admitted(&self) {
        (self.admitted)();
    }

    fn open_passive_port(&self) -> Option<u16> {
        let DataPort { passive_ports, slot } = self.data_port;
        passive_ports.open(slot, self.clock)
    }
}

impl<N: Net> Handler<client::Client> for ClientConnection<'_, N> {
    fn handle_event(
        &self,
        now: Instant,
        client: &mut client::Client,
        event: client::Event,
    ) -> Result<(), client::Error> {
        self.link.handler(self).handle_event(now, client, event)
    }

    async fn woken(&self) {
        self.link.handler(self).woken().await;
    }
}

/// Why a session with the printer ended, or could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Dial(DialError),
    /// Before the printer had accepted the login.
    Early(End<upstream::Error>),
    /// After that.
    Settled(End<upstream::Error>),
}

impl Loss {
    const fn pace(self) -> Pace {
        match self {
            Self::Dial(error) if error.is_lasting() => Pace::Slow,
            Self::Early(End::Session(error)) if error.is_wrong_code() => Pace::Slow,
            Self::Dial(_) | Self::Early(_) => Pace::Soon,
            Self::Settled(_) => Pace::AtOnce,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Dial(DialError::Refused(_)) => Kind::PrinterUntrusted,
            Self::Early(End::Session(error)) | Self::Settled(End::Session(error))
                if error.is_wrong_code() =>
            {
                Kind::PrinterRefused
            }
            Self::Dial(_) | Self::Early(_) | Self::Settled(_) => Kind::PrinterLost,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self {
            Self::Dial(error) => return error.fmt(f),
            Self::Early(End::Closed) => {
                return write!(f, "printer connection lost: {}", Cause::SLOTS_FULL);
            }
            Self::Early(end) | Self::Settled(end) => end,
        };
        f.write_str("printer connection lost: ")?;
        match end {
            End::Closed => f.write_str("closed by the printer"),
            End::Session(error) => error.fmt(f),
            End::Stream(error) => error.fmt(f),
        }
    }
}

/// A [`Dialler`] that remembers the printer's address, for the data connections.
pub struct AddressTrackingDialler<N: Net = Sockets> {
    /// Connects to the printer's control port.
    pub dialler: Dialler<N>,
    /// The printer's address in the last connection.
    pub at: Rc<Cell<Option<IpAddr>>>,
}

impl<N: Net> Dial for AddressTrackingDialler<N> {
    type Stream = N::PrinterStream;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let connection = self.dialler.connect().await?;
        // An option that cannot be set belongs to a lost connection, which the TLS handshake reports.
        let _lost = tune_silent(&connection);
        let at = connection.peer_addr().ok().map(|address| address.ip());
        let stream = self.dialler.secure(connection).await?;
        self.at.set(at);
        Ok(stream)
    }
}

/// One session with the printer's FTP server, while a client needs it.
pub(super) struct Session<D> {
    service: Rc<Service>,
    printer_session: Rc<PrinterSession>,
    port: PrinterPort<D>,
    buffers: Buffers,
}

impl<D: Dial> Session<D> {
    pub(super) fn new(
        service: Rc<Service>,
        printer_session: Rc<PrinterSession>,
        port: PrinterPort<D>,
    ) -> Self {
        Self { service, printer_session, port, buffers: <Files as ServesSessions>::buffers() }
    }
}

impl<D: Dial> PrinterConnection for Session<D> {
    type Loss = Loss;

    async fn wanted(&mut self) -> bool {
        let clock = self.port.clock;
        self.service.wanted(|| clock.now(), &self.printer_session).await;
        !self.service.is_leaving()
    }

    async fn converse(&mut self) -> Ended<Loss> {
        let lost = |loss, has_worked| Ended::Lost { loss, has_worked };
        self.printer_session.set_dialling();
        let mut stream = match self.port.dial().await {
            Ok(stream) => stream,
            Err(error) => return lost(Loss::Dial(error), false),
        };
        let PrinterPort { status, clock, .. } = &self.port;
        let session = self.service.upstream(clock.now(), self.printer_session.index());
        let Some((mut upstream, link)) = session else {
            return lost(Loss::Early(End::Closed), false);
        };
        let end = drive(&mut upstream, &link, &mut stream, &mut self.buffers, clock).await;
        let is_settled = upstream.is_logged_in();
        match end {
            End::Session(error) if error.is_wrong_code() => {
                status.refuse(Login::Ftp, clock.now());
            }
            // The connection has ended: the code was right, and it is not logged in any more.
            _ if is_settled => {
                status.log_in(Login::Ftp, clock.now());
                status.log_out(Login::Ftp);
            }
            End::Session(_) | End::Closed | End::Stream(_) => {}
        }
        drop(upstream);
        stream.close().await;
        if end == End::Session(upstream::Error::IdleTimeout) {
            Ended::InOrder
        } else if is_settled {
            lost(Loss::Settled(end), true)
        } else {
            lost(Loss::Early(end), false)
        }
    }

    fn verdict(&self, loss: Loss) -> (Pace, Kind) {
        (loss.pace(), loss.kind())
    }

    /// Has the hub refuse commands for `wait`: the next one after that has the printer dialled.
    async fn rest(&mut self, loss: Option<Loss>, wait: Duration) {
        let now = self.port.clock.now();
        match loss {
            Some(loss) => self.service.lost(now, &self.printer_session, &loss, wait),
            None => {
                self.service.lost(now, &self.printer_session, &upstream::Error::IdleTimeout, wait);
            }
        }
    }
}
