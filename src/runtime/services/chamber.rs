//! The chamber camera: what a worker does with a viewer. [`camera`](super::camera) keeps the camera's connection.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use crate::board::BOARD;
use crate::chamber::client::{self, LOGIN_TIMEOUT};
use crate::chamber::{Service, ViewerLink};
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::runtime::drive::Buffers;
use crate::runtime::net::Net;
use crate::runtime::service::{Declaration, Listening};
use crate::runtime::services::camera::Detector;
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::trace::Protocol;

impl ServesSessions for Rc<Service> {
    const PROTOCOL: Protocol = Protocol::Chamber;
    const TIMEOUT: Duration = LOGIN_TIMEOUT;

    type Session = client::Viewer;
    type Link<'a> = ViewerLink<&'a dyn Fn()>;

    fn buffers() -> Buffers {
        Buffers::new(budget::CHAMBER_INBOX, budget::CHAMBER_OUTBOX)
    }

    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Self::Session, Self::Link<'a>)> {
        let (mut viewer, link) = self.viewer(client.until, client.admitted)?;
        if client.refusal.is_some() {
            viewer.refuse_login();
        }
        Some((viewer, link))
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    fn details(viewer: &client::Viewer, _end: SessionEnd<Self>) -> impl fmt::Display {
        viewer.pictures()
    }
}

/// The service in the list of services. It finds out which camera the printer has, for both camera
/// services, and does so without a port of its own where the printer has a file tunnel on port 6000.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "chamber",
        without: None,
        is_enabled: |config| config.services.has_camera(),
        listens: |config| {
            let has_tunnel = config.services.ftp && config.has_tunnel();
            let listening = Listening::tls(config.ports.chamber, BOARD.clients.chamber);
            (config.services.chamber && !has_tunnel).then_some(listening)
        },
        start: |root| {
            let config = root.config;
            let service = Service::new(config.code.clone(), Rc::clone(&root.status));
            let tunnel = super::port_6000::serve(root, Some(Rc::clone(&service)));
            root.add_service(tunnel);
            let detector = Detector::new(root, Rc::clone(&service));
            root.keep_connected("camera", detector);
            Ok(service)
        },
    }
}
