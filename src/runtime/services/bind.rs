//! Detect: what a worker does with a client, and who asks the printer.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use crate::bind::client::{self, REQUEST_TIMEOUT};
use crate::bind::{CLIENTS, ClientLink, Service, upstream};
use crate::journal::Kind;
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::runtime::Clock;
use crate::runtime::dial::{DialError, Dialler};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::reconnect::{Ended, Pace, PrinterConnection};
use crate::runtime::service::{Declaration, Listening, Transport};
use crate::runtime::stream::Stream;
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::trace::{Party, Protocol};

/// Names of the service on its two ports.
const PLAIN: &str = "detect";
const TLS: &str = "detect-tls";

/// What it means that another program has one of the ports: Grafana and AdGuard Home use 3000 as well.
const WITHOUT: &str = "slicers that ask there do not find the printer";

impl ServesSessions for Rc<Service> {
    const PROTOCOL: Protocol = Protocol::Detect;
    const TIMEOUT: Duration = REQUEST_TIMEOUT;

    type Session = client::Client;
    type Link<'a> = ClientLink;

    fn buffers() -> Buffers {
        Buffers::new(budget::DETECT_INBOX, budget::DETECT_OUTBOX)
    }

    /// There is no login: a client is never admitted, and holds its pre-auth slot to the end.
    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(client::Client, ClientLink)> {
        self.client(client.until, client.is_own)
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    /// The health check runs on this machine.
    fn kind(session: &client::Client, end: SessionEnd<Self>) -> Kind {
        match end {
            End::Session(client::Error::Answered) | End::Closed if session.is_own() => {
                Kind::Checked
            }
            End::Session(_) | End::Closed | End::Stream(_) => end.kind(),
        }
    }
}

/// Detect without TLS in the list of services. It also asks the printer what it is.
pub fn plain_declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: PLAIN,
        without: Some(WITHOUT),
        is_enabled: |config| config.services.detect,
        listens: |config| {
            Some(Listening {
                port: config.ports.detect,
                transport: Transport::Plain,
                clients: CLIENTS,
                data_ports: &[],
            })
        },
        start: |root| {
            let config = root.config;
            let service = Service::new(PLAIN, &config.serial, Rc::clone(&root.status));
            root.serve_plain(PLAIN, &service, CLIENTS);
            let dialler = root.dialler(config.printer_ports.detect);
            let (its, clock) = (Rc::clone(&service), root.clock);
            let buffers = Buffers::new(budget::DETECT_INBOX, budget::DETECT_OUTBOX);
            root.keep_connected(PLAIN, Question { service: its, dialler, clock, buffers });
            Ok(service)
        },
    }
}

/// Detect over TLS in the list of services.
pub fn tls_declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: TLS,
        without: Some(WITHOUT),
        is_enabled: |config| config.services.detect,
        listens: |config| Some(Listening::tls(config.ports.detect_tls, CLIENTS)),
        start: |root| {
            let service = Service::new(TLS, &root.config.serial, Rc::clone(&root.status));
            let tls = Arc::clone(&root.credentials.tls);
            root.serve_tls(TLS, &service, CLIENTS, &tls);
            Ok(service)
        },
    }
}

/// Why the printer did not tell what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the printer does not tell its name: ")?;
        match self {
            Self::Dial(DialError::PortClosed { port }) => write!(f, "port {port} is closed")?,
            Self::Dial(_) => f.write_str("no connection")?,
            Self::Ended(End::Closed) => f.write_str("closed by the printer")?,
            Self::Ended(End::Session(error)) => error.fmt(f)?,
            Self::Ended(End::Stream(error)) => error.fmt(f)?,
        }
        f.write_str("; --name sets the one that slicers show")
    }
}

/// The question to the printer what it is, whenever its [service](Service::wanted) wants to know that.
struct Question<N: Net> {
    service: Rc<Service>,
    dialler: Dialler<N>,
    clock: Clock,
    buffers: Buffers,
}

impl<N: Net> Question<N> {
    async fn ask(&mut self) -> Loss {
        // The printer's other services report whether it is reachable: a firewall may drop packets to this port alone.
        let stream = match self.dialler.connect().await {
            Ok(stream) => stream,
            Err(error) => return Loss::Dial(error),
        };
        let Self { service, clock, buffers, .. } = self;
        let mut stream = Stream::new(stream, Protocol::Detect, Party::Printer, clock);
        let mut upstream = upstream::Upstream::new(clock.now());
        let end = drive(&mut upstream, service, &mut stream, buffers, clock).await;
        stream.close().await;
        Loss::Ended(end)
    }
}

impl<N: Net> PrinterConnection for Question<N> {
    type Loss = Loss;

    async fn wanted(&mut self) -> bool {
        self.service.wanted().await
    }

    async fn converse(&mut self) -> Ended<Loss> {
        let service = Rc::clone(&self.service);
        let loss = tokio::select! {
            loss = self.ask() => loss,
            () = service.left() => return Ended::InOrder,
        };
        service.asked(self.clock.now());
        match loss {
            Loss::Ended(End::Session(upstream::Error::Learnt)) => Ended::InOrder,
            Loss::Dial(_) | Loss::Ended(_) => Ended::Lost { loss, has_worked: false },
        }
    }

    fn verdict(&self, _loss: Loss) -> (Pace, Kind) {
        // The service says when to ask again.
        (Pace::AtOnce, Kind::Detected)
    }

    async fn rest(&mut self, _loss: Option<Loss>, _wait: Duration) {}
}

/// Log lines of the question to the printer, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use crate::runtime::stream::StreamError;

    [
        Loss::Dial(DialError::PortClosed { port: 3000 }),
        Loss::Dial(DialError::Off),
        Loss::Ended(End::Closed),
        Loss::Ended(End::Session(upstream::Error::Refused)),
        Loss::Ended(End::Stream(StreamError::Stalled(Duration::from_secs(5)))),
    ]
    .map(|loss| alloc::format!("{PLAIN}: {loss}"))
    .into()
}
