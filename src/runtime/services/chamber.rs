//! The chamber camera: what a worker does with a viewer, and one conversation with the camera.
//!
//! The connection is dialled by [`camera`](super::camera), which also decides which camera the printer has.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::board::BOARD;
use crate::chamber::client::{self, LOGIN_TIMEOUT};
use crate::chamber::upstream::{self, Purpose};
use crate::chamber::{Service, ViewerLink};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::printer::camera::{AtChamber, CameraKind};
use crate::printer::status::{Login, Status};
use crate::runtime::Clock;
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::service::{Declaration, Listening};
use crate::runtime::services::camera::Detector;
use crate::runtime::stream::Stream;
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::session::Handler;
use crate::trace::Protocol;

impl ServesSessions for Rc<Service> {
    const PROTOCOL: Protocol = Protocol::Chamber;
    const TIMEOUT: Duration = LOGIN_TIMEOUT;

    type Session = client::Viewer;
    type Link<'a> = ViewerLink<&'a dyn Fn()>;

    fn buffers() -> Buffers {
        Buffers::new(budget::CHAMBER_INBOX, budget::CHAMBER_OUTBOX)
    }

    fn open<'a>(
        &'a self,
        accepted_client: &AcceptedClient<'a>,
        _clock: &'a Clock,
    ) -> Option<(client::Viewer, Self::Link<'a>)> {
        let AcceptedClient { until, refusal, admitted, .. } = *accepted_client;
        let (mut viewer, link) = self.viewer(until, admitted)?;
        if refusal.is_some() {
            viewer.refuse_login();
        }
        Some((viewer, link))
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    fn details(
        _session: &client::Viewer,
        link: &Self::Link<'_>,
        _end: SessionEnd<Self>,
    ) -> impl fmt::Display {
        let (sent, lost) = link.sent_and_lost();
        Details { sent, lost }
    }
}

/// What follows the cause in the log line of a viewer's end.
struct Details {
    /// Pictures that were sent to the viewer.
    sent: u32,
    /// Pictures that were dropped because the viewer was too slow.
    lost: u32,
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost } = self;
        write!(f, " ({sent} pictures sent, {lost} dropped)")
    }
}

/// The service in the list of services. It finds out which camera the printer has, for both camera
/// services, and does so without a port of its own where the printer has a file tunnel on port 6000.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "chamber",
        is_enabled: |config| config.services.has_camera(),
        listens: |config| {
            let has_tunnel = config.services.ftp && config.has_tunnel();
            let listening = Listening::tls(config.ports.chamber, BOARD.clients.chamber);
            (config.services.chamber && !has_tunnel).then_some(listening)
        },
        start: |root| {
            let config = root.config;
            let service = Service::new(config.code.clone());
            let tunnel = super::port_6000::serve(root, Some(Rc::clone(&service)));
            root.add_service(tunnel);
            let detector = Detector::new(root, Rc::clone(&service));
            root.keep_connected("camera", detector);
            Ok(service)
        },
    }
}

/// Converses with the camera over `stream` until that ends and is closed: how it ended, and what that says
/// about port 6000.
pub(super) async fn converse<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    status: &Status,
    purpose: Purpose,
    mut stream: Stream<T>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> (End<upstream::Error>, AtChamber) {
    let (mut upstream, link) = service.upstream(purpose, clock.now());
    let watched = Watched { link, status };
    let end = drive(&mut upstream, &watched, &mut stream, buffers, clock).await;
    stream.close().await;
    let seen = match end {
        _ if upstream.has_answered() => AtChamber::Picture,
        End::Session(upstream::Error::Silent) => AtChamber::Silence,
        End::Session(upstream::Error::Tunnel) => AtChamber::Tunnel,
        End::Closed => AtChamber::Refused,
        End::Session(
            upstream::Error::NotWanted
            | upstream::Error::Leaving
            | upstream::Error::Found
            | upstream::Error::BadLength(_),
        )
        | End::Stream(_) => AtChamber::Unknown,
    };
    (end, seen)
}

/// The upstream's link to the hub; the first picture also says that the printer has this camera.
struct Watched<'a> {
    link: crate::chamber::Link,
    status: &'a Status,
}

impl Handler<upstream::Upstream> for Watched<'_> {
    fn admits(&self, upstream: &upstream::Upstream) -> bool {
        self.link.admits(upstream)
    }

    fn handle_event(
        &self,
        now: Instant,
        upstream: &mut upstream::Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        if matches!(event, upstream::Event::Begin(_)) {
            self.status.log_in(Login::Chamber, now);
            if self.status.note_camera(CameraKind::Chamber) {
                journal::note(Kind::CameraFound, format_args!("camera: {}", CameraKind::Chamber));
            }
        }
        self.link.handle_event(now, upstream, event)
    }

    async fn woken(&self) {
        self.link.woken().await;
    }
}
