//! The MQTT service's tasks: what a worker does with a client, and who keeps the printer's connection.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::board::BOARD;
use crate::journal::{self, Kind};
use crate::mqtt::client::{self, CONNECT_TIMEOUT};
use crate::mqtt::upstream::{self, Phase};
use crate::mqtt::{REPORT_INBOX, Service};
use crate::runtime::Clock;
use crate::runtime::dial::{BackOff, Dial, DialError, Losses};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stream::{Stream, StreamError};
use crate::runtime::worker::{AcceptedClient, Serves};
use crate::session::Blame;
use crate::trace::{Party, Protocol};

/// How long a conversation with the printer has to last before the next is dialled without back-off.
const SETTLED: Duration = Duration::from_secs(30);

impl Serves for Rc<Service> {
    const TIMEOUT: Duration = CONNECT_TIMEOUT;

    fn buffers() -> Buffers {
        Buffers::new(BOARD.mqtt.inbox, BOARD.mqtt.outbox)
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> usize {
        let end = serve_client(self, stream, accepted_client, buffers, clock).await;
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

/// Serves one client over a stream that is ready for MQTT, until it ends, and says why it did.
pub async fn serve_client<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    stream: T,
    accepted_client: AcceptedClient<'_>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> End<client::Error> {
    let party = Party::Client(accepted_client.peer.address);
    let mut stream = Stream::new(stream, Protocol::Mqtt, party, clock);
    let AcceptedClient { peer, reached, until, admitted } = accepted_client;
    let slot = service.client(clock.now(), until, peer, reached, admitted);
    let Some((mut client, place)) = slot else {
        // There are as many slots as workers.
        return End::Session(client::Error::NoSlot);
    };
    let end = drive(&mut client, &place, &mut stream, buffers, clock).await;
    journal::note(kind_of(&end), format_args!("{peer}: {end}"));
    drop(place);
    stream.close().await;
    end
}

/// How the journal counts the end of a client's conversation.
const fn kind_of(end: &End<client::Error>) -> Kind {
    match end {
        End::Session(client::Error::WrongCode | client::Error::WrongUser) => Kind::WrongCode,
        End::Session(client::Error::TooLong { .. }) => Kind::TooLong,
        End::Session(client::Error::Silent) => Kind::Silent,
        End::Session(client::Error::TooSlow) => Kind::Stuck,
        End::Session(
            client::Error::RequestRefused | client::Error::RequestLost | client::Error::Undecided,
        ) => Kind::RequestRefused,
        End::Session(error) => match error.blame() {
            Blame::Nobody | Blame::Network => Kind::Left,
            Blame::Peer => Kind::Malformed,
            Blame::Board => Kind::Refused,
        },
        End::Stream(StreamError::Stalled) => Kind::Stuck,
        End::Closed | End::Stream(StreamError::Lost(_)) => Kind::Left,
    }
}

/// Why there is no conversation with the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>, Phase),
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
            Self::Ended(End::Closed, Phase::Connecting) => f.write_str(
                "the printer ends the connection before it answers: other programs may hold all \
                 its connections",
            ),
            Self::Ended(End::Closed, Phase::Subscribing) => f.write_str(
                "the printer ends the connection over our subscription: is this its serial number?",
            ),
            Self::Ended(End::Closed, Phase::Live) => {
                f.write_str("the printer ended the connection")
            }
            Self::Ended(End::Session(error), _) => error.fmt(f),
            Self::Ended(End::Stream(error), _) => write!(f, "the printer: {error}"),
        }
    }
}

/// Keeps one conversation with the printer, and never two: each is closed completely before the next
/// is dialled.
pub async fn maintain_upstream<D: Dial>(
    service: Rc<Service>,
    mut dialler: D,
    clock: Clock,
    back_off: BackOff,
) {
    let mut buffers = Buffers::new(REPORT_INBOX, BOARD.mqtt.outbox);
    let mut losses = Losses::new("mqtt", back_off);
    while !service.is_leaving() {
        let began = clock.now();
        let loss = converse(&service, &mut dialler, &clock, &mut buffers).await;
        service.lost(clock.now());
        if service.is_leaving() {
            return;
        }
        // A conversation that ends as soon as it has begun is no reason to begin the next one sooner.
        if matches!(loss, Loss::Ended(_, Phase::Live)) && clock.now().since(began) >= SETTLED {
            losses.forget();
        }
        let wait = losses.note(loss, loss.is_lasting(), loss.kind());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = service.left() => {}
        }
    }
}

async fn converse<D: Dial>(
    service: &Rc<Service>,
    dialler: &mut D,
    clock: &Clock,
    buffers: &mut Buffers,
) -> Loss {
    let stream = match dialler.dial().await {
        Ok(stream) => stream,
        Err(error) => return Loss::Dial(error),
    };
    let mut stream = Stream::new(stream, Protocol::Mqtt, Party::Printer, clock);
    let (mut upstream, link) = service.upstream(clock.now());
    let end = drive(&mut upstream, &link, &mut stream, buffers, clock).await;
    stream.close().await;
    Loss::Ended(end, upstream.phase())
}
