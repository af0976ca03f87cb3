//! The MQTT service's tasks: what a worker does with a client, and who keeps the printer's connection.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use crate::board::BOARD;
use crate::cause::Cause;
use crate::journal::Kind;
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::mqtt::client::{self, CONNECT_TIMEOUT};
use crate::mqtt::upstream::{self, Phase};
use crate::mqtt::{ClientLink, REPORT_INBOX, Service, Topics};
use crate::printer::status::Login;
use crate::runtime::dial::{Dial, DialError};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::reconnect::{Ended, Pace, PrinterConnection, PrinterPort};
use crate::runtime::service::{Declaration, Listening};
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::trace::Protocol;

/// How long a conversation with the printer has to last before the next is dialled without back-off.
const SETTLED: Duration = Duration::from_secs(30);

impl ServesSessions for Rc<Service> {
    const PROTOCOL: Protocol = Protocol::Mqtt;
    const TIMEOUT: Duration = CONNECT_TIMEOUT;

    type Session = client::Client;
    type Link<'a> = ClientLink<&'a dyn Fn()>;

    fn buffers() -> Buffers {
        Buffers::new(BOARD.mqtt.inbox, BOARD.mqtt.outbox)
    }

    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Self::Session, Self::Link<'a>)> {
        let AcceptedClient { peer, reached, until, refusal, admitted, clock, .. } = client;
        let (mut client, link) = self.client(clock.now(), until, peer, reached, admitted)?;
        if let Some(refusal) = refusal {
            client.refuse_login(refusal);
        }
        Some((client, link))
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    fn details(client: &client::Client, _end: SessionEnd<Self>) -> impl fmt::Display {
        Dropped { requests: client.slot().dropped_requests() }
    }
}

/// What follows the cause in the log line of a client's end.
struct Dropped {
    /// Requests of others that the client did not get because it reads too slowly.
    requests: u32,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.requests {
            0 => Ok(()),
            requests => write!(f, " ({requests} requests of other clients dropped)"),
        }
    }
}

/// The service in the list of services.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "mqtt",
        without: None,
        is_enabled: |config| config.services.mqtt,
        listens: |config| Some(Listening::tls(config.ports.mqtt, BOARD.clients.mqtt)),
        start: |root| {
            let config = root.config;
            let topics = Topics::new(&config.serial, (root.seed >> 48) as u16)
                .with_rtsps_port(config.ports.rtsp);
            let topics = if config.strict_serial { topics.of_own_serial_only() } else { topics };
            let (code, status) = (config.code.clone(), Rc::clone(&root.status));
            let service = Service::new(topics, code, status, root.clock.now());
            let tls = Arc::clone(&root.credentials.tls);
            root.serve_tls("mqtt", &service, budget::SLOTS, &tls);
            let dialler = root.dialler(config.printer_ports.mqtt).with_limited_unsent();
            let port = root.printer_port_by(Protocol::Mqtt, dialler);
            let buffers = Buffers::new(REPORT_INBOX, BOARD.mqtt.outbox);
            let broker = Broker { service: Rc::clone(&service), port, buffers };
            root.keep_connected("mqtt", broker);
            Ok(service)
        },
    }
}

/// Why there is no connection to the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>, Phase),
}

impl Loss {
    const fn pace(self) -> Pace {
        let is_lasting = match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Ended(End::Session(error), _) => error.is_wrong_code(),
            Self::Ended(End::Closed | End::Stream(_), _) => false,
        };
        if is_lasting { Pace::Slow } else { Pace::Usual }
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
        let end = match self {
            Self::Dial(error) => return error.fmt(f),
            Self::Ended(end, phase) => (end, phase),
        };
        f.write_str("printer connection lost: ")?;
        match end {
            (End::Closed, Phase::Connecting) => Cause::SLOTS_FULL.fmt(f),
            (End::Closed, Phase::Subscribing) => Cause::SUBSCRIPTION.fmt(f),
            (End::Closed, Phase::Live) => f.write_str("closed by the printer"),
            (End::Session(error), _) => error.fmt(f),
            (End::Stream(error), _) => error.fmt(f),
        }
    }
}

/// The one connection to the printer's broker.
struct Broker<D> {
    service: Rc<Service>,
    port: PrinterPort<D>,
    buffers: Buffers,
}

impl<D: Dial> Broker<D> {
    async fn dial(&mut self) -> Loss {
        let mut stream = match self.port.dial().await {
            Ok(stream) => stream,
            Err(error) => return Loss::Dial(error),
        };
        let PrinterPort { status, clock, .. } = &self.port;
        let mut upstream = self.service.upstream(clock.now());
        let end = drive(&mut upstream, &self.service, &mut stream, &mut self.buffers, clock).await;
        match end {
            End::Session(error) if error.is_wrong_code() => {
                status.refuse(Login::Mqtt, clock.now());
            }
            End::Session(_) | End::Closed | End::Stream(_) => status.log_out(Login::Mqtt),
        }
        stream.close().await;
        Loss::Ended(end, upstream.phase())
    }
}

impl<D: Dial> PrinterConnection for Broker<D> {
    type Loss = Loss;

    async fn wanted(&mut self) -> bool {
        !self.service.is_leaving()
    }

    async fn converse(&mut self) -> Ended<Loss> {
        let began = self.port.clock.now();
        let loss = self.dial().await;
        let now = self.port.clock.now();
        self.service.lost(now);
        if self.service.is_leaving() {
            return Ended::InOrder;
        }
        let has_worked = matches!(loss, Loss::Ended(_, Phase::Live)) && now.since(began) >= SETTLED;
        Ended::Lost { loss, has_worked }
    }

    fn verdict(&self, loss: Loss) -> (Pace, Kind) {
        (loss.pace(), loss.kind())
    }

    async fn rest(&mut self, _loss: Option<Loss>, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.service.left() => {}
        }
    }
}
