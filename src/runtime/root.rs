//! What the services are started with: the surroundings of the proxy, each service's ports, and the tasks so far.
//!
//! [`launch`](super::launch) makes the one [`Root`] and ends the tasks; services know only this module of the two.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};
use std::io;

use tokio::task::JoinHandle;

use super::Clock;
use super::accept::Acceptor;
use super::credentials::Credentials;
use super::data_ports::DataPorts;
use super::dial::{Dial, Dialler};
use super::host::Host;
use super::listening::{Listening, Transport};
use super::net::{Listener, Net, spawn};
use super::optional_port::{OptionalPort, PortInUse};
use super::reconnect::{BackOff, PrinterConnection, PrinterPort, keep_connected};
use super::start_error::StartError;
use super::worker::{Serves, Worker};
use crate::auth::Limiter;
use crate::config::Config;
use crate::memory::budget;
use crate::printer::status::Status;
use crate::printer::upstream::Upstream;
use crate::service::Service;
use crate::tls::{ServerConfig, Trust};
use crate::trace::Protocol;

/// A service by its type.
pub(super) fn find<S: Service>(services: &[Rc<dyn Service>]) -> Option<Rc<S>> {
    services.iter().find_map(|service| {
        let service: Rc<dyn Any> = Rc::clone(service) as Rc<dyn Any>;
        service.downcast().ok()
    })
}

/// The heap limit in bytes.
pub(super) const fn heap_limit(config: &Config) -> usize {
    if config.record.is_some() { budget::TOTAL_RECORDING } else { budget::TOTAL }
}

/// The ports of one service, bound before anything is started.
pub(super) struct Bound<N: Net> {
    listener: Option<N::Listener>,
    datagrams: Datagrams<N>,
    pub(super) at: Option<SocketAddr>,
    /// If another program has the port, and the service runs without it.
    pub(super) in_use: Option<Rc<PortInUse>>,
    data_ports: Option<DataPorts<N>>,
}

/// UDP ports of one service, with their numbers.
pub type Datagrams<N> = heapless::Vec<(u16, <N as Net>::Datagrams), MAX_DATAGRAM_PORTS>;

/// UDP ports of one service, at most.
pub const MAX_DATAGRAM_PORTS: usize = 2;

impl<N: Net> Bound<N> {
    pub(super) const NONE: Self = Self {
        listener: None,
        datagrams: Datagrams::<N>::new(),
        at: None,
        in_use: None,
        data_ports: None,
    };

    /// Binds the ports of the service `name`. `without` says what it means that another program has its port.
    pub(super) fn new(
        name: &'static str,
        without: Option<&'static str>,
        listening: &Listening<'_>,
        config: &Config,
        net: &N,
    ) -> Result<Self, StartError> {
        let port = listening.port;
        if listening.transport == Transport::Datagram {
            return Ok(Self::datagrams(name, listening, net));
        }
        let at = SocketAddr::new(config.bind_of(name), port);
        if config.is_open(name) == Some(false) {
            return Ok(Self { at: Some(at), ..Self::NONE });
        }
        let listener = match (net.bind(at), without) {
            (Ok(listener), _) => listener,
            (Err(error), Some(without)) if error.kind() == io::ErrorKind::AddrInUse => {
                let in_use = Rc::new(PortInUse::new(name, port, without));
                return Ok(Self { at: Some(at), in_use: Some(in_use), ..Self::NONE });
            }
            (Err(error), _) => return Err(StartError::Bind { port, error }),
        };
        let at = listener.local_addr().map_err(StartError::Runtime)?;
        let data_ports = match listening.data_ports {
            [] => None,
            ranges => {
                let bound = DataPorts::bind(net, config.bind, ranges);
                Some(bound.map_err(StartError::DataPorts)?)
            }
        };
        Ok(Self { listener: Some(listener), at: Some(at), data_ports, ..Self::NONE })
    }

    /// The ports of a service of datagrams. It does without those that another program does not share.
    fn datagrams(name: &'static str, listening: &Listening<'_>, net: &N) -> Self {
        let mut datagrams = Datagrams::<N>::new();
        let further = listening.data_ports.iter().cloned().flatten();
        for port in core::iter::once(listening.port).chain(further).take(MAX_DATAGRAM_PORTS) {
            match net.bind_datagrams(port) {
                // Cannot fail: no more are taken.
                Ok(bound) => drop(datagrams.push((port, bound))),
                Err(error) => log::warn!("{}", NotShared { name, port, error }),
            }
        }
        let first = datagrams.first().map(|(port, _)| *port);
        let at = first.map(|port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        Self { datagrams, at, ..Self::NONE }
    }
}

/// A port for datagrams that another program does not share.
struct NotShared {
    name: &'static str,
    port: u16,
    error: io::Error,
}

impl fmt::Display for NotShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, error } = self;
        write!(
            f,
            "{name}: cannot bind UDP port {port}: {error}; nothing is received there until it can be bound"
        )
    }
}

/// Where a service listens, once its port is bound.
#[derive(Clone, Copy, Debug)]
pub struct Listens {
    /// Its name.
    pub name: &'static str,
    /// Its port.
    pub port: u16,
    /// How clients reach it there.
    pub transport: Transport,
    /// Clients served at once.
    pub clients: usize,
}

/// What a service starts its tasks with.
pub struct Root<'a, N: Net> {
    /// The configuration.
    pub config: &'a Config,
    /// The network.
    pub net: N,
    /// Where the printer is.
    pub host: Rc<Host>,
    /// The clock.
    pub clock: Clock,
    /// What is known about the printer.
    pub status: Rc<Status>,
    /// The proxy's certificates, and what the printer's has to be.
    pub credentials: Credentials,
    /// A random number.
    pub seed: u64,
    /// Counts wrong access codes by address, for all services.
    pub limiter: Rc<RefCell<Limiter>>,
    /// Where each service listens.
    pub listening: Vec<Listens>,
    pub(super) services: Vec<Rc<dyn Service>>,
    /// How each connection to the printer fares, by its name.
    pub(super) upstreams: Vec<(&'static str, Rc<Upstream>)>,
    pub(super) retries: u32,
    pub(super) bound: Bound<N>,
    pub(super) acceptors: Vec<JoinHandle<()>>,
    pub(super) maintainers: Vec<JoinHandle<()>>,
}

impl<N: Net> Root<'_, N> {
    /// Starts a task that lives until the program ends. The build fails if it is larger than its line in
    /// the memory budget.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, task: F) -> JoinHandle<()> {
        spawn(&self.net, task)
    }

    /// The same for a task of a client without TLS, which has a smaller line.
    fn spawn_plain<F: Future<Output = ()> + 'static>(&self, task: F) {
        const {
            assert!(
                size_of::<F>() <= budget::PLAIN_TASK,
                "a task without TLS is larger than its line in the budget"
            );
        }
        self.net.spawn(task);
    }

    /// A service that has been started before, by its type.
    pub fn service<S: Service>(&self) -> Option<Rc<S>> {
        find(&self.services)
    }

    /// The service's UDP ports, with their numbers: those that could be bound.
    pub fn take_datagrams(&mut self) -> Datagrams<N> {
        core::mem::take(&mut self.bound.datagrams)
    }

    /// Runs a further service beside the one that is being started.
    pub fn add_service(&mut self, service: Rc<dyn Service>) {
        self.services.push(service);
    }

    /// The service's port, which is open or closed; `None` if it has none.
    pub fn take_port(&mut self, name: &'static str) -> Option<OptionalPort<N>> {
        let at = self.bound.at?;
        let listener = self.bound.listener.take();
        Some(OptionalPort::new(self.net.clone(), name, at, listener, self.clock))
    }

    /// Starts the task that maintains a connection to the printer, or something else that ends in order. It ends by
    /// itself once its service is [shut down](Service::shut_down), and the program waits for that.
    pub fn maintain<F: Future<Output = ()> + 'static>(&mut self, task: F) {
        let task = self.spawn(task);
        self.maintainers.push(task);
    }

    /// Serves clients over TLS on the service's port, `slots` at once.
    pub fn serve_tls<S: Serves + Clone + 'static>(
        &mut self,
        name: &'static str,
        service: &S,
        slots: usize,
        tls: &Arc<ServerConfig>,
    ) {
        self.accept(name, slots, |root, acceptor| {
            root.spawn(root.worker(acceptor, service).work_tls(Arc::clone(tls)));
        });
    }

    /// Serves clients over TLS, `slots` at once, whose connections the acceptor gives.
    pub fn tls_workers<S: Serves + Clone + 'static>(
        &self,
        name: &'static str,
        service: &S,
        slots: usize,
    ) -> Rc<Acceptor<N>> {
        let acceptor = Acceptor::new(name, Rc::clone(&self.limiter));
        for _ in 0..slots {
            let worker = self.worker(Rc::clone(&acceptor), service);
            self.spawn(worker.work_tls(Arc::clone(&self.credentials.tls)));
        }
        acceptor
    }

    /// Serves clients over TCP without TLS on the service's port, `slots` at once.
    pub fn serve_plain<S: Serves + Clone + 'static>(
        &mut self,
        name: &'static str,
        service: &S,
        slots: usize,
    ) {
        let acceptor = Acceptor::without_tls(name, Rc::clone(&self.limiter));
        self.accept_with(acceptor, slots, |root, acceptor| {
            root.spawn_plain(root.worker(acceptor, service).work_plain());
        });
    }

    /// Accepts connections of TLS clients on the service's port for `workers` tasks, each of which `start` starts.
    pub fn accept(
        &mut self,
        name: &'static str,
        workers: usize,
        start: impl Fn(&Self, Rc<Acceptor<N>>),
    ) {
        self.accept_with(Acceptor::new(name, Rc::clone(&self.limiter)), workers, start);
    }

    fn accept_with(
        &mut self,
        acceptor: Rc<Acceptor<N>>,
        workers: usize,
        start: impl Fn(&Self, Rc<Acceptor<N>>),
    ) {
        let (listener, in_use) = (self.bound.listener.take(), self.bound.in_use.take());
        if listener.is_none() && in_use.is_none() {
            return;
        }
        acceptor.limit_slots(workers);
        for _ in 0..workers {
            start(self, Rc::clone(&acceptor));
        }
        match (listener, in_use, self.bound.at) {
            (Some(listener), ..) => self.accept_by(accept_all(acceptor, listener, self.clock)),
            (None, Some(in_use), Some(at)) => {
                let port = OptionalPort::in_use(self.net.clone(), at, in_use, self.clock);
                self.accept_by(accept_later(acceptor, port));
            }
            (None, ..) => {}
        }
    }

    /// Starts a task that accepts connections: it is ended first when the program ends.
    pub fn accept_by<F: Future<Output = ()> + 'static>(&mut self, task: F) {
        let task = self.spawn(task);
        self.acceptors.push(task);
    }

    /// The service's data ports, if it has any.
    pub const fn take_data_ports(&mut self) -> Option<DataPorts<N>> {
        self.bound.data_ports.take()
    }

    /// Connects to the printer's `port`, with TLS sessions of its own.
    pub fn dialler(&self, port: u16) -> Dialler<N> {
        let trust = self.credentials.trust.with_own_sessions();
        self.dialler_with(port, trust)
    }

    /// The printer's `port`, where `protocol` is spoken.
    pub fn printer_port(&self, protocol: Protocol, port: u16) -> PrinterPort<Dialler<N>> {
        self.printer_port_by(protocol, self.dialler(port))
    }

    /// The printer's port that `dialler` connects to.
    pub fn printer_port_by<D: Dial>(&self, protocol: Protocol, dialler: D) -> PrinterPort<D> {
        PrinterPort { dialler, protocol, status: Rc::clone(&self.status), clock: self.clock }
    }

    /// Keeps up a connection to the printer; `name` names it in the log.
    pub fn keep_connected(
        &mut self,
        name: &'static str,
        connection: impl PrinterConnection + 'static,
    ) {
        let back_off = self.back_off();
        let upstream = self.upstream(name).unwrap_or_default();
        self.upstreams.push((name, Rc::clone(&upstream)));
        self.maintain(keep_connected(name, connection, back_off, upstream));
    }

    /// How the connection to the printer of this name fares; `None` if there is none. Connections of one name share it.
    pub fn upstream(&self, name: &str) -> Option<Rc<Upstream>> {
        let (_, upstream) = self.upstreams.iter().find(|(its, _)| *its == name)?;
        Some(Rc::clone(upstream))
    }

    /// The services that have been started, in their order.
    pub fn services(&self) -> &[Rc<dyn Service>] {
        &self.services
    }

    /// Connects to the printer's `port`, with the TLS sessions of `trust`.
    pub fn dialler_with(&self, port: u16, trust: Trust) -> Dialler<N> {
        Dialler::new(self.net.clone(), Rc::clone(&self.host), port, trust)
    }

    /// A back-off whose jitter is another one each time.
    const fn back_off(&mut self) -> BackOff {
        self.retries += 8;
        BackOff::new((self.seed as u32).rotate_left(self.retries))
    }

    fn worker<S: Serves + Clone>(&self, acceptor: Rc<Acceptor<N>>, service: &S) -> Worker<S, N> {
        Worker {
            net: self.net.clone(),
            acceptor,
            service: service.clone(),
            advertise: self.config.advertise,
            rewrites: !self.config.keep_printer_address,
            clock: self.clock,
        }
    }
}

/// The task that accepts a service's connections.
async fn accept_all<N: Net>(acceptor: Rc<Acceptor<N>>, listener: N::Listener, clock: Clock) {
    acceptor.listen(&listener, &clock).await;
}

/// The same for a port that another program has.
async fn accept_later<N: Net>(acceptor: Rc<Acceptor<N>>, mut port: OptionalPort<N>) {
    match port.accept(&acceptor).await {}
}

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> Vec<alloc::string::String> {
    use alloc::string::ToString;
    let error = io::ErrorKind::AddrInUse.into();
    alloc::vec![NotShared { name: "ssdp", port: 2021, error }.to_string()]
}
