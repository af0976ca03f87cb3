//! Port 6000: served for viewers of the chamber camera, or relayed to the printer's file tunnel, whichever the
//! [printer's status](crate::printer::status::Status::has_tunnel) names.
//!
//! The status may change while the proxy runs: a printer whose serial number is of no known model shows what
//! it has there when the camera is probed. The tasks of one role are then ended before those of the other are
//! started, so the memory of both is never held at once. Where the printer has neither, the port is closed.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::net::SocketAddr;

use tokio::task::JoinHandle;

use super::relayed::Relayed;
use crate::auth::Limiter;
use crate::chamber;
use crate::journal::{self, Kind};
use crate::memory::budget::{self, RELAY_FILES};
use crate::printer::status::Status;
use crate::runtime::Clock;
use crate::runtime::accept::Acceptor;
use crate::runtime::files::relay::{Counts, Relay};
use crate::runtime::host::Host;
use crate::runtime::net::{Net, spawn};
use crate::runtime::optional_port::OptionalPort;
use crate::runtime::root::Root;
use crate::runtime::worker::Worker;
use crate::tls::ServerConfig;

/// Serves the port that the service in `root` has bound. `camera` is `None` where no cameras are served; files
/// that are not served have no tunnel. Returns the tunnel's relay as a service, which is idle while the port is the camera's.
pub fn serve<N: Net>(root: &mut Root<'_, N>, camera: Option<Rc<chamber::Service>>) -> Rc<Relayed> {
    let relayed = Relayed::new("tunnel");
    let config = root.config;
    let Some(port) = root.take_port("chamber") else { return relayed };
    // Files of the tunnel come on its connections.
    let port = port.limit_unread();
    let (ports, bind) = (&config.ports, config.bind);
    let roles = Roles {
        net: root.net.clone(),
        // A port that the system chose is kept.
        other: (ports.chamber != ports.tunnel)
            .then(|| [SocketAddr::new(bind, ports.chamber), SocketAddr::new(bind, ports.tunnel)]),
        status: Rc::clone(&root.status),
        limiter: Rc::clone(&root.limiter),
        clock: root.clock,
        camera,
        tls: Arc::clone(&root.credentials.tls),
        tunnel: config.services.ftp.then(|| (Rc::clone(&root.host), config.printer_ports.tunnel)),
        relayed: Rc::clone(&relayed),
    };
    root.accept_by(roles.work(port));
    relayed
}

/// Why the port is closed.
pub(in crate::runtime) const NOTHING: &str =
    "the printer has no chamber camera there, and no file tunnel is served";

/// What the port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Camera,
    Tunnel,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Camera => "chamber",
            Self::Tunnel => "tunnel",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self {
            Self::Camera => "the chamber camera",
            Self::Tunnel => "the file tunnel",
        };
        write!(f, "{}: the printer has {found} on port 6000", self.name())
    }
}

/// What each role of the port needs.
struct Roles<N: Net> {
    net: N,
    /// Where the camera and the tunnel are served, if that is not the same.
    other: Option<[SocketAddr; 2]>,
    status: Rc<Status>,
    limiter: Rc<RefCell<Limiter>>,
    clock: Clock,
    camera: Option<Rc<chamber::Service>>,
    tls: Arc<ServerConfig>,
    /// The printer's address and the port there.
    tunnel: Option<(Rc<Host>, u16)>,
    relayed: Rc<Relayed>,
}

/// The tasks of one role. They go on when the port is closed: the program ends them in order.
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Ends the tasks, and waits until what they held is free.
    async fn end(self) {
        for task in self.0 {
            task.abort();
            // An aborted task is no failure.
            let _aborted = task.await;
        }
    }
}

impl<N: Net> Roles<N> {
    /// Serves one role after the other, until the program ends.
    async fn work(self, mut port: OptionalPort<N>) {
        let mut before = self.role();
        loop {
            let Some(role) = self.role() else {
                self.until_changed(None).await;
                continue;
            };
            if before.is_some_and(|before| before != role) {
                journal::note(Kind::CameraFound, format_args!("{role}; served from now on"));
            }
            before = Some(role);
            let (acceptor, tasks) = match role {
                Role::Camera => self.start_camera(),
                Role::Tunnel => self.start_tunnel(),
            };
            let at = self.other.map(|[chamber, tunnel]| match role {
                Role::Camera => chamber,
                Role::Tunnel => tunnel,
            });
            port.move_to(role.name(), at);
            tokio::select! {
                never = port.accept(&acceptor) => match never {},
                () = self.until_changed(Some(role)) => {}
            }
            self.relayed.set(None);
            tasks.end().await;
            if self.role().is_none() {
                port.close(&acceptor, NOTHING);
            }
        }
    }

    /// What the port is now. `None`: the printer has nothing there that is served.
    fn role(&self) -> Option<Role> {
        if self.tunnel.is_some() && (self.camera.is_none() || self.status.has_tunnel()) {
            Some(Role::Tunnel)
        } else if self.camera.is_some() && self.status.has_chamber() != Some(false) {
            Some(Role::Camera)
        } else {
            None
        }
    }

    async fn until_changed(&self, role: Option<Role>) {
        while self.role() == role {
            self.status.changed().await;
        }
    }

    fn start_camera(&self) -> (Rc<Acceptor<N>>, Tasks) {
        let acceptor = Acceptor::new("chamber", Rc::clone(&self.limiter));
        let mut tasks = Vec::new();
        if let Some(service) = &self.camera {
            tasks.reserve_exact(budget::VIEWERS);
            for _ in 0..budget::VIEWERS {
                let worker = Worker {
                    net: self.net.clone(),
                    acceptor: Rc::clone(&acceptor),
                    service: Rc::clone(service),
                    // No viewer is sent an address.
                    advertise: None,
                    rewrites: false,
                    clock: self.clock,
                };
                tasks.push(spawn(&self.net, worker.work_tls(Arc::clone(&self.tls))));
            }
        }
        (acceptor, Tasks(tasks))
    }

    fn start_tunnel(&self) -> (Rc<Acceptor<N>>, Tasks) {
        let acceptor = Acceptor::new("tunnel", Rc::clone(&self.limiter));
        let mut tasks = Vec::new();
        if let Some((printer, port)) = &self.tunnel {
            let relay = Relay::new(
                "tunnel",
                Rc::clone(printer),
                *port,
                budget::TUNNELS,
                RELAY_FILES,
                Counts::TUNNEL,
            );
            self.relayed.set(Some(Rc::clone(&relay)));
            tasks.reserve_exact(relay.workers());
            for _ in 0..relay.workers() {
                let work =
                    Rc::clone(&relay).work(self.net.clone(), Rc::clone(&acceptor), self.clock);
                tasks.push(spawn(&self.net, work));
            }
        }
        (acceptor, Tasks(tasks))
    }
}
