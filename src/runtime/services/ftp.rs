//! The file service's tasks: what a worker does with a client, and who keeps the printer's sessions.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::ftp::client::{self, LOGIN_TIMEOUT};
use crate::ftp::printer_session::PrinterSession;
use crate::ftp::upstream;
use crate::ftp::{Front, Service};
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::runtime::Clock;
use crate::runtime::dial::{BackOff, Dial, DialError, Dialler};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::files::passive::{Listen, PassivePorts};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stream::{Stream, StreamError, tune_silent};
use crate::runtime::worker::{AcceptedClient, Serves};
use crate::session::Blame;
use crate::tls::ClientStream;
use crate::trace::{Party, Protocol};

/// The longest wait after a failure that may pass by itself: somebody is waiting to send a print.
const LONGEST: Duration = Duration::from_secs(10);

/// The service, and the data ports of its clients.
pub struct Files<L: Listen = TcpListener> {
    /// What clients and the printer's sessions share.
    pub service: Rc<Service>,
    /// Towards clients.
    pub passive_ports: Rc<PassivePorts<L>>,
}

impl<L: Listen> Clone for Files<L> {
    fn clone(&self) -> Self {
        Self { service: Rc::clone(&self.service), passive_ports: Rc::clone(&self.passive_ports) }
    }
}

impl<L: Listen> Serves for Files<L> {
    const TIMEOUT: Duration = LOGIN_TIMEOUT;
    const TELLS: bool = true;

    fn buffers() -> Buffers {
        Buffers::new(budget::FTP_INBOX, budget::FTP_OUTBOX)
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> usize {
        let end = serve_caller(self, stream, accepted_client, buffers, clock).await;
        usize::from(end == End::Session(client::Error::WrongCode))
    }
}

impl Shutdown for Service {
    fn dismiss_all(&self) {
        self.dismiss_all();
    }

    fn connections(&self) -> usize {
        self.connections()
    }

    fn leave(&self) {
        self.leave();
    }
}

/// Serves one client over a stream that is ready for the greeting, until it ends, and says why it did.
pub async fn serve_caller<T: AsyncRead + AsyncWrite + Unpin, L: Listen>(
    files: &Files<L>,
    stream: T,
    accepted_client: AcceptedClient<'_>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> End<client::Error> {
    let party = Party::Client(accepted_client.peer.address);
    let mut stream = Stream::new(stream, Protocol::Ftp, party, clock);
    let Files { service, passive_ports } = files;
    let AcceptedClient { peer, reached, until, admitted } = accepted_client;
    let Some(place) = service.pending(peer) else {
        // There are as many slots as workers.
        return End::Session(client::Error::NoSlot);
    };
    let slot = place.slot().index();
    let reached = reached.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4);
    let mut client = place.client(reached, until);
    let host = place.attended(Reception { passive_ports, slot, clock, admitted });
    let end = tokio::select! {
        biased;
        end = drive(&mut client, &host, &mut stream, buffers, clock) => end,
        never = passive_ports.tend(&place, peer.address, clock) => match never {},
    };
    journal::note(kind_of(&end), format_args!("{peer}: {end}"));
    drop(client);
    drop(place);
    passive_ports.close(slot);
    stream.close().await;
    end
}

/// What is done for one client here.
struct Reception<'a, L: Listen> {
    passive_ports: &'a PassivePorts<L>,
    slot: usize,
    clock: &'a Clock,
    admitted: &'a dyn Fn(),
}

impl<L: Listen> Front for Reception<'_, L> {
    fn admitted(&self) {
        (self.admitted)();
    }

    fn open_passive_port(&self) -> Option<u16> {
        self.passive_ports.open(self.slot, self.clock)
    }
}

/// How the journal counts the end of a client's conversation.
const fn kind_of(end: &End<client::Error>) -> Kind {
    match end {
        End::Session(client::Error::WrongCode | client::Error::WrongUser) => Kind::WrongCode,
        End::Session(client::Error::Silent) => Kind::Silent,
        End::Session(client::Error::TooLong) => Kind::TooLong,
        End::Session(error) => match error.blame() {
            Blame::Nobody | Blame::Network => Kind::Left,
            Blame::Peer => Kind::Malformed,
            Blame::Board => Kind::Refused,
        },
        End::Stream(StreamError::Stalled) => Kind::Stuck,
        End::Closed | End::Stream(StreamError::Lost(_)) => Kind::Left,
    }
}

/// Why there is no session with the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>, bool),
}

impl Loss {
    const fn is_lasting(self) -> bool {
        match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Ended(End::Session(error), _) => error.is_wrong_code(),
            Self::Ended(End::Closed | End::Stream(_), _) => false,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Dial(DialError::Refused(_)) => Kind::PrinterUntrusted,
            Self::Ended(End::Session(error), _) if error.is_wrong_code() => Kind::PrinterRefused,
            Self::Dial(_) | Self::Ended(..) => Kind::PrinterLost,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Ended(End::Closed, false) => f.write_str(
                "the printer ends the connection before it answers: other programs may hold all \
                 its FTP sessions",
            ),
            Self::Ended(End::Closed, true) => f.write_str("the printer ended the connection"),
            Self::Ended(End::Session(error), _) => error.fmt(f),
            Self::Ended(End::Stream(error), _) => write!(f, "the printer: {error}"),
        }
    }
}

/// A [`Dialler`] that remembers where it found the printer, for the data connections.
pub struct AddressTrackingDialler {
    /// The way to the printer's control port.
    pub dialler: Dialler,
    /// Where the last connection went.
    pub at: Rc<Cell<Option<IpAddr>>>,
}

impl Dial for AddressTrackingDialler {
    type Stream = ClientStream<TcpStream>;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let stream = self.dialler.dial().await?;
        // A socket that cannot be tuned is a connection that is gone.
        let _gone = tune_silent(stream.below());
        self.at.set(stream.below().peer_addr().ok().map(|address| address.ip()));
        Ok(stream)
    }
}

/// Keeps one session with the printer while it is wanted, and never two: each is closed completely
/// before the next is dialled.
pub async fn maintain_session<D: Dial>(
    service: Rc<Service>,
    printer_session: Rc<PrinterSession>,
    mut dialler: D,
    clock: Clock,
    mut back_off: BackOff,
) {
    let mut buffers = <Files as Serves>::buffers();
    let mut said = None;
    loop {
        service.wanted(|| clock.now(), &printer_session).await;
        if service.is_leaving() {
            return;
        }
        let loss = converse(&service, &printer_session, &mut dialler, &clock, &mut buffers).await;
        let wait = match loss {
            Loss::Ended(End::Session(upstream::Error::Rested), _) => {
                back_off.reset();
                said = None;
                Duration::ZERO
            }
            Loss::Ended(_, true) => {
                back_off.reset();
                journal::note(loss.kind(), format_args!("ftp: {loss}"));
                Duration::ZERO
            }
            Loss::Ended(_, false) | Loss::Dial(_) => {
                let wait = back_off.wait(loss.is_lasting());
                if said.replace(loss) != Some(loss) {
                    journal::note(loss.kind(), format_args!("ftp: {loss}"));
                }
                if loss.is_lasting() { wait } else { wait.min(LONGEST) }
            }
        };
        service.lost(clock.now(), &printer_session, &loss, wait);
    }
}

async fn converse<D: Dial>(
    service: &Rc<Service>,
    printer_session: &PrinterSession,
    dialler: &mut D,
    clock: &Clock,
    buffers: &mut Buffers,
) -> Loss {
    printer_session.is_dialling();
    let stream = match dialler.dial().await {
        Ok(stream) => stream,
        Err(error) => return Loss::Dial(error),
    };
    let mut stream = Stream::new(stream, Protocol::Ftp, Party::Printer, clock);
    let Some((mut upstream, link)) = service.upstream(clock.now(), printer_session.index()) else {
        return Loss::Ended(End::Closed, false);
    };
    let end = drive(&mut upstream, &link, &mut stream, buffers, clock).await;
    let settled = upstream.is_settled();
    drop(upstream);
    stream.close().await;
    Loss::Ended(end, settled)
}
