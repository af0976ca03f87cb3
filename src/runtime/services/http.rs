//! The HTTP service's tasks: what a worker does with a client, and which services it shows.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::WrongCodes;
use crate::board::BOARD;
use crate::http::access::Access;
use crate::http::client::{Client, Error, MediaRequest, REQUEST_TIMEOUT};
use crate::http::media::{self, CameraSlot, Cameras, Refusal};
use crate::http::{CLIENTS, ClientLink, Facts, Listed, Service};
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::runtime::Clock;
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::machine;
use crate::runtime::net::Net;
use crate::runtime::root::{Listens, Root, heap_limit};
use crate::runtime::service::{Declaration, Listening, Transport};
use crate::runtime::stream::Stream;
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::session::{NoEvents, Wake};
use crate::trace::Protocol;

/// The name of the service.
const NAME: &str = "http";

/// The service, and what it takes pictures from.
#[derive(Clone)]
pub struct Pages {
    service: Rc<Service>,
    cameras: Cameras,
}

impl ServesSessions for Pages {
    const PROTOCOL: Protocol = Protocol::Http;
    const TIMEOUT: Duration = REQUEST_TIMEOUT;
    const ALWAYS_SENDS_ADDRESS: bool = true;
    const IS_BRIEF: bool = true;

    type Session = Client;
    type Link<'a> = ClientLink<'a>;

    fn buffers() -> Buffers {
        Buffers::new(budget::HTTP_INBOX, budget::HTTP_OUTBOX)
    }

    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Client, ClientLink<'a>)> {
        let AcceptedClient { until, reached, admitted, released, guessed, .. } = client;
        self.service.client(until, reached, admitted, released, guessed)
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    /// Has pictures sent where the session leaves its connection for them, and goes on with it if there are none.
    async fn run<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        client: &mut Client,
        link: &Self::Link<'_>,
        stream: &mut Stream<T>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> SessionEnd<Self> {
        loop {
            let end = drive(client, link, stream, buffers, clock).await;
            let asked = match (end, client.error()) {
                (End::Session(Error::Media(asked)), _) => asked,
                // The client has read why, and closed.
                (End::Closed, Some(error)) => return End::Session(error),
                (end, _) => return end,
            };
            match send_pictures(&self.cameras, asked, link, stream, buffers, clock).await {
                Ok(end) => return end,
                Err((status, line)) => client.answer_media(status, line),
            }
        }
    }

    fn wrong_codes(client: &Client, _end: SessionEnd<Self>) -> WrongCodes {
        client.wrong_codes()
    }
}

/// Sends pictures over the connection until it ends.
///
/// # Errors
///
/// There are none: what the client is answered, before anything was sent.
async fn send_pictures<T: AsyncRead + AsyncWrite + Unpin>(
    cameras: &Cameras,
    asked: MediaRequest,
    client: &ClientLink<'_>,
    stream: &mut Stream<T>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Result<End<Error>, Refusal> {
    let (mut session, slot) = cameras.watch(clock.now(), asked, client.slot())?;
    let watching = NoEvents(Watching { slot, client });
    match drive(&mut session, &watching, stream, buffers, clock).await {
        End::Session(media::Error::Refused(why)) => Err(why),
        End::Session(error) => Ok(End::Session(Error::MediaEnded(error))),
        End::Closed => Ok(End::Closed),
        End::Stream(error) => Ok(End::Stream(error)),
    }
}

/// A client that is sent pictures, with its two slots.
struct Watching<'a, 'l> {
    slot: CameraSlot,
    client: &'a ClientLink<'l>,
}

impl Wake for Watching<'_, '_> {
    async fn notified(&self) {
        tokio::select! {
            () = self.slot.notified() => {}
            () = self.client.stopped() => {}
        }
    }
}

/// The service in the list of services, of which it is the last one.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: NAME,
        without: None,
        is_enabled: |config| config.services.http,
        listens: |config| {
            Some(Listening {
                port: config.ports.http,
                transport: Transport::Plain,
                clients: BOARD.clients.http,
                data_ports: &[],
            })
        },
        start: |root| {
            let service = Service::new(facts(root), Rc::clone(&root.status));
            let services = &root.config.services;
            let cameras = Cameras {
                chamber: root.service().filter(|_| services.chamber),
                rtsp: root.service().filter(|_| services.rtsp),
                printer: Rc::clone(&root.status),
            };
            root.serve_plain(NAME, &Pages { service: Rc::clone(&service), cameras }, CLIENTS);
            service.list(listed(root, &service));
            Ok(service)
        },
    }
}

fn facts<N: Net>(root: &Root<'_, N>) -> Facts {
    let config = root.config;
    let own = machine::host_names().into_iter();
    let given = config.advertise_names.iter().map(|name| String::from(name.as_str()));
    Facts {
        access: Access {
            code: config.code.clone(),
            view: config.http.view_code.clone(),
            token: config.http.token.clone(),
        },
        hosts: own.chain(given).collect(),
        serial: config.serial.clone(),
        notice: config.http.notice.clone().unwrap_or_default(),
        machine_port: config.http.machine_port,
        ca_pem: Arc::clone(&root.credentials.ca.pem),
        ca_sha256: root.credentials.ca.sha256,
        heap_limit: heap_limit(config),
        limiter: Rc::clone(&root.limiter),
    }
}

/// The services, of which all but this one have been started.
fn listed<N: Net>(root: &Root<'_, N>, own: &Rc<Service>) -> Vec<Listed> {
    let show = |listens: &Listens| {
        let Listens { name, port, transport, clients } = *listens;
        // A service that was started in place of another one of its name stands behind it.
        let started = root.services().iter().rev().find(|service| service.name() == name);
        let service: Rc<dyn crate::service::Service> = match started {
            Some(service) => Rc::clone(service),
            None if name == NAME => Rc::clone(own) as _,
            None => return None,
        };
        // The chamber camera's connection finds out which camera there is.
        let upstream = root.upstream(if name == "chamber" { "camera" } else { name });
        let transport = match transport {
            Transport::Tls => "tls",
            Transport::Plain => "plain",
            Transport::Datagram => "udp",
        };
        Some(Listed { name, port, transport, limit: clients, service, upstream })
    };
    root.listening.iter().filter_map(show).collect()
}
