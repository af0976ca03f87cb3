//! The composition root: makes the services, runs them, and ends them in order.
//!
//! [`Proxy::start`] binds every port, loads the keys, and starts the tasks of each service in
//! [`services`], the one list of them. `main` adds the command line, signals and the log; a test adds a
//! simulated network.
//!
//! # Tasks
//!
//! All tasks are made at the start and live until the end.
//!
//! | task | how many |
//! |---|---|
//! | worker: takes one accepted connection after another, through TLS, to its session | one a slot |
//! | worker of a relay: takes one accepted connection after another to the printer | one for each session of the relay and each pre-auth slot |
//! | acceptor | one a service, and one for the data ports of a relay |
//! | maintainer of a connection to the printer | one a service; for files one for each of the printer's sessions |
//! | file mover | one for each of the printer's sessions; in a relay one for each transfer |
//! | housekeeping | one |
//!
//! # The end
//!
//! Listeners are closed, clients are disconnected, and the printer's connections are closed, all within
//! three seconds; see [`shut_down`].

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand_core::{OsRng, RngCore};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinHandle;

use super::accept::{Acceptor, warn_if_absent};
use super::dial::{BackOff, Dialler};
use super::files;
use super::files::relay_ports::Openings;
use super::net::{Listener, Net};
use super::service::{Declaration, Service};
use super::services::{chamber, mqtt, rtsp};
use super::shutdown::shut_down;
use super::worker::{Serves, Worker};
use super::{Clock, supervisor};
use crate::auth::Limiter;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::{Config, FtpMode, PrinterAddr, Recording};
use crate::journal::{self, Kind};
use crate::memory::{KIB, MIB, budget, heap};
use crate::printer::status::Status;
use crate::state_dir::Pins;
use crate::tls::{Identity, Policy, ServerConfig, Subject, Trust};
use crate::trace;

/// Bytes of the file of `--printer-ca`, at most: a dozen certificates.
const MAX_AUTHORITIES: u64 = 64 * 1024;

/// How often the deadlines of the services are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// The services, in the order in which they are started and shut down: the one list of them.
pub fn services<N: Net>() -> [Declaration<N>; 5] {
    [
        mqtt::declaration(),
        chamber::declaration(),
        rtsp::declaration(),
        files::ftp_declaration(),
        files::tunnel_declaration(),
    ]
}

/// The runtime of the one thread.
///
/// # Errors
///
/// The operating system does not provide what every program needs.
pub fn runtime() -> Result<LocalRuntime, StartError> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_io_events_per_tick(64)
        // Used by the resolver alone, and only for a printer given by name.
        .max_blocking_threads(1)
        .thread_stack_size(budget::RESOLVER / 2)
        .thread_keep_alive(Duration::from_secs(1))
        .build_local(LocalOptions::default())
        .map_err(StartError::Runtime)
}

/// What a proxy takes from its surroundings, beside the network.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The clock.
    pub clock: Clock,
    /// A random number: identifiers and the jitter of retries are made from it.
    pub seed: u64,
    /// Where the certificates come from. Called after all ports are bound: making keys takes minutes on
    /// a slow board.
    pub credentials: fn(&Config) -> Result<Credentials, StartError>,
}

impl Context {
    /// The real clock, the system's random numbers, and the certificates of the state directory.
    pub fn real() -> Self {
        Self { clock: Clock::start(), seed: OsRng.next_u64(), credentials: Credentials::load }
    }
}

/// The proxy's certificates for its clients, and what it verifies the printer's certificate by.
#[derive(Clone)]
pub struct Credentials {
    /// For all services but files.
    pub tls: Arc<ServerConfig>,
    /// For files in proxy mode: TLS 1.2, whose data connections resume the control connection's session.
    pub files_tls: Option<Arc<ServerConfig>>,
    /// What the printer's certificate has to be.
    pub trust: Trust,
}

impl Credentials {
    /// Loads keys and certificates from the state directory, and makes those that are missing.
    ///
    /// # Errors
    ///
    /// The state directory or `--printer-ca` cannot be used.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let trust = trust(config)?;
        supervisor::starting();
        let identity = identity(config)?;
        let tls = identity.server_config(BOARD.suites, budget::SESSIONS);
        let is_proxy = config.services.ftp && matches!(config.ftp.mode, FtpMode::Proxy { .. });
        let files_tls = is_proxy
            .then(|| identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS))
            .transpose()
            .map_err(|error| StartError::Identity(config.state_dir.clone(), error))?;
        Ok(Self { tls, files_tls, trust })
    }
}

/// A running proxy. Its tasks run on the runtime that it was started on.
pub struct Proxy {
    services: Vec<Rc<dyn Service>>,
    acceptors: Vec<JoinHandle<()>>,
    maintainers: Vec<JoinHandle<()>>,
    status: Rc<Status>,
    heap_limit: usize,
}

impl Proxy {
    /// Starts the services that `config` enables, on `net`.
    ///
    /// # Errors
    ///
    /// A port cannot be bound, or a file cannot be used. Nothing is left running.
    pub fn start<N: Net>(context: &Context, config: &Config, net: &N) -> Result<Self, StartError> {
        Self::start_these(context, config, net, &services())
    }

    /// The same with another list of services.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_these<N: Net>(
        context: &Context,
        config: &Config,
        net: &N,
        declarations: &[Declaration<N>],
    ) -> Result<Self, StartError> {
        // First, so that a port in use is reported at once and not after minutes of making keys.
        let mut bound = Vec::with_capacity(declarations.len());
        for declaration in declarations {
            bound.push(Bound::new(declaration, config, net)?);
        }
        warn_if_absent(config.bind);
        record(config, &context.clock)?;
        let mut root = Root {
            config,
            net: net.clone(),
            clock: context.clock,
            status: Rc::new(
                Status::new(&config.serial, config.port_6000).named(config.name.as_ref()),
            ),
            credentials: (context.credentials)(config)?,
            limiter: Rc::default(),
            seed: context.seed,
            retries: 0,
            bound: Bound::NONE,
            services: Vec::new(),
            acceptors: Vec::new(),
            maintainers: Vec::new(),
        };
        let mut started = Vec::new();
        for (declaration, bound) in declarations.iter().zip(bound) {
            if (declaration.is_enabled)(config) {
                if let (Some(at), Some(listening)) = (bound.at, declaration.listening(config)) {
                    let clients = listening.clients;
                    started.push(ListeningOn { service: declaration.name, at, clients });
                }
                root.bound = bound;
                let service = (declaration.start)(&mut root)?;
                root.services.push(service);
            }
        }
        journal::note(Kind::Started, format_args!("{}", Banner { config }));
        for line in started {
            journal::note(Kind::Started, format_args!("{line}"));
        }
        let housekeeping = Housekeeping { services: root.services.clone() };
        root.spawn(housekeeping.work(context.clock));
        let Root { status, services, acceptors, maintainers, .. } = root;
        Ok(Self { services, acceptors, maintainers, status, heap_limit: heap_limit(config) })
    }

    /// A running service by its type.
    pub fn service<S: Service>(&self) -> Option<Rc<S>> {
        find(&self.services)
    }

    /// What is known about the printer.
    pub const fn status(&self) -> &Rc<Status> {
        &self.status
    }

    /// Writes what an operator asks for with SIGUSR1: recent events, each service, the heap.
    ///
    /// # Errors
    ///
    /// `out` fails.
    pub fn write_status(&self, out: &mut impl Write) -> fmt::Result {
        journal::write_to(out)?;
        for service in &self.services {
            service.write_status(out)?;
        }
        write_heap(out, self.heap_limit)
    }

    /// Closes the listeners, disconnects the clients, and then closes the connections to the printer:
    /// within three seconds.
    pub async fn stop(self) {
        for acceptor in self.acceptors {
            acceptor.abort();
        }
        shut_down(&self.services, self.maintainers).await;
        trace::stop();
    }
}

/// A service by its type.
fn find<S: Service>(services: &[Rc<dyn Service>]) -> Option<Rc<S>> {
    services.iter().find_map(|service| {
        let service: Rc<dyn Any> = Rc::clone(service) as Rc<dyn Any>;
        service.downcast().ok()
    })
}

/// The ports of one service, bound before anything is started.
struct Bound<N: Net> {
    listener: Option<N::Listener>,
    at: Option<SocketAddr>,
    data_ports: Option<Openings<N>>,
}

impl<N: Net> Bound<N> {
    const NONE: Self = Self { listener: None, at: None, data_ports: None };

    fn new(declaration: &Declaration<N>, config: &Config, net: &N) -> Result<Self, StartError> {
        let Some(listening) = declaration.listening(config) else { return Ok(Self::NONE) };
        let port = listening.port;
        let listener = net
            .bind(SocketAddr::new(config.bind, port))
            .map_err(|error| StartError::Bind { port, error })?;
        let at = listener.local_addr().map_err(StartError::Runtime)?;
        let data_ports = match listening.data_ports {
            [] => None,
            ranges => {
                let bound = Openings::bind(net, config.bind, ranges);
                Some(bound.map_err(StartError::DataPorts)?)
            }
        };
        Ok(Self { listener: Some(listener), at: Some(at), data_ports })
    }
}

/// What a service starts its tasks with.
pub struct Root<'a, N: Net> {
    /// The configuration.
    pub config: &'a Config,
    /// The network.
    pub net: N,
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
    services: Vec<Rc<dyn Service>>,
    retries: u32,
    bound: Bound<N>,
    acceptors: Vec<JoinHandle<()>>,
    maintainers: Vec<JoinHandle<()>>,
}

impl<N: Net> Root<'_, N> {
    /// Starts a task that lives until the program ends. The build fails if it is larger than its line in
    /// the memory budget.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, task: F) -> JoinHandle<()> {
        spawn(&self.net, task)
    }

    /// A service that has been started before, by its type.
    pub fn service<S: Service>(&self) -> Option<Rc<S>> {
        find(&self.services)
    }

    /// The service's port, if it has one.
    pub const fn take_listener(&mut self) -> Option<N::Listener> {
        self.bound.listener.take()
    }

    /// Starts the task that maintains a connection to the printer. It ends by itself once its service is
    /// [shut down](Service::shut_down), and the program waits for that.
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

    /// Serves clients over TCP without TLS on the service's port, `slots` at once.
    pub fn serve_plain<S: Serves + Clone + 'static>(
        &mut self,
        name: &'static str,
        service: &S,
        slots: usize,
    ) {
        self.accept(name, slots, |root, acceptor| {
            root.spawn(root.worker(acceptor, service).work_plain());
        });
    }

    /// Accepts connections on the service's port for `workers` tasks, each of which `start` starts.
    pub fn accept(
        &mut self,
        name: &'static str,
        workers: usize,
        start: impl Fn(&Self, Rc<Acceptor<N>>),
    ) {
        let Some(listener) = self.bound.listener.take() else { return };
        let acceptor = Acceptor::new(name, Rc::clone(&self.limiter));
        for _ in 0..workers {
            start(self, Rc::clone(&acceptor));
        }
        self.accept_by(accept_all(acceptor, listener, self.clock));
    }

    /// Starts a task that accepts connections: it is ended first when the program ends.
    pub fn accept_by<F: Future<Output = ()> + 'static>(&mut self, task: F) {
        let task = self.spawn(task);
        self.acceptors.push(task);
    }

    /// The service's data ports, if it has any.
    pub const fn take_data_ports(&mut self) -> Option<Openings<N>> {
        self.bound.data_ports.take()
    }

    /// Connects to the printer's `port`, with TLS sessions of its own.
    pub fn dialler(&self, port: u16) -> Dialler<N> {
        let trust = self.credentials.trust.with_own_sessions();
        self.dialler_with(port, trust)
    }

    /// Connects to the printer's `port`, with the TLS sessions of `trust`.
    pub fn dialler_with(&self, port: u16, trust: Trust) -> Dialler<N> {
        Dialler::new(self.net.clone(), self.config.printer.clone(), port, trust)
    }

    /// A back-off whose jitter is another one each time.
    pub const fn back_off(&mut self) -> BackOff {
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

/// The first line of a started proxy.
struct Banner<'a> {
    config: &'a Config,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, board) = (env!("PANDAPROXY_VERSION"), BOARD.name);
        let Config { serial, printer, .. } = self.config;
        let tenths = heap_limit(self.config) * 10 / MIB;
        write!(
            f,
            "PandaProxy {version} (board {board}, at most {}.{} MiB): printer {serial} at {printer}",
            tenths / 10,
            tenths % 10
        )
    }
}

/// One line for each service below it.
struct ListeningOn {
    service: &'static str,
    at: SocketAddr,
    clients: usize,
}

impl fmt::Display for ListeningOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, at, clients } = self;
        write!(f, "{service:<8} listening on {at}, up to {clients} clients")
    }
}

/// Starts a task. The build fails if it is larger than its line in the memory budget.
pub(super) fn spawn<N: Net, F: Future<Output = ()> + 'static>(net: &N, task: F) -> JoinHandle<()> {
    const {
        assert!(size_of::<F>() <= budget::TASK, "a task is larger than its line in the budget");
    }
    net.spawn(task)
}

/// The task that accepts a service's connections.
async fn accept_all<N: Net>(acceptor: Rc<Acceptor<N>>, listener: N::Listener, clock: Clock) {
    acceptor.listen(&listener, &clock).await;
}

/// What is done once a second.
struct Housekeeping {
    services: Vec<Rc<dyn Service>>,
}

impl Housekeeping {
    async fn work(self, clock: Clock) {
        let watchdog = supervisor::watchdog();
        let mut alive_at = Instant::START;
        loop {
            let now = clock.now();
            self.tick(now);
            if let Some(every) = watchdog
                && alive_at <= now
            {
                supervisor::alive();
                alive_at = now + every;
            }
            tokio::time::sleep(HOUSEKEEPING_INTERVAL).await;
        }
    }

    fn tick(&self, now: Instant) {
        journal::set_now(now);
        for service in &self.services {
            service.handle_timeout(now);
        }
        trace::handle_timeout(now);
    }
}

/// Begins to record, if it was asked for.
fn record(config: &Config, clock: &Clock) -> Result<(), StartError> {
    let Some(Recording { dir, mib, must }) = &config.record else { return Ok(()) };
    let size = u64::from(*mib) * MIB as u64;
    let (code, serial) = (config.code.reveal(), config.serial.as_bytes());
    match trace::start(dir, size, code, serial, clock.now()) {
        Ok(()) => {}
        Err(error) if *must => return Err(StartError::Record(error)),
        Err(error) => {
            journal::note(
                Kind::NotRecorded,
                format_args!("{error}; the proxy runs without a recording"),
            );
            return Ok(());
        }
    }
    journal::note(
        Kind::Started,
        format_args!("recording the last {mib} MiB in {}/pandaproxy-*.pcapng", dir.display()),
    );
    log::info!(
        "recording: the access code, the serial number and addresses are redacted; file names, print names, \
         pictures and names chosen by users are not: check the files before you share them"
    );
    let relays = config.services.ftp && matches!(config.ftp.mode, FtpMode::Relay { .. });
    if relays || (config.services.ftp && config.has_tunnel()) {
        log::info!(
            "recording: relayed connections are left out, since only client and printer can decrypt them"
        );
    }
    Ok(())
}

/// What this proxy shows to its clients.
fn identity(config: &Config) -> Result<Identity, StartError> {
    let mut addresses = heapless::Vec::<IpAddr, 4>::new();
    let advertised = config.advertise.map(IpAddr::V4);
    let specific = Some(config.bind).filter(|bind| !bind.is_unspecified());
    for address in [advertised, specific, towards(&config.printer)].into_iter().flatten() {
        if !addresses.contains(&address) {
            // It fits: there are three at most.
            let _fits = addresses.push(address);
        }
    }
    let subject = Subject { serial: &config.serial, addresses: &addresses };
    Identity::load_or_make(&config.state_dir, &subject, SystemTime::now())
        .map_err(|error| StartError::Identity(config.state_dir.clone(), error))
}

/// What this proxy accepts from the printer.
fn trust(config: &Config) -> Result<Trust, StartError> {
    let policy = if config.insecure_printer { Policy::Insecure } else { Policy::Verify };
    let given = match &config.printer_ca {
        Some(path) => Some(read_authorities(path)?),
        None => None,
    };
    let pins = Pins::in_dir(&config.state_dir);
    Trust::new(&config.serial, policy, given.as_deref(), pins, SystemTime::now)
        .map_err(StartError::Trust)
}

/// Reads the file of `--printer-ca`.
fn read_authorities(path: &Path) -> Result<Vec<u8>, StartError> {
    let unreadable = |error| StartError::PrinterCa { path: PathBuf::from(path), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut pem = Vec::new();
    file.take(MAX_AUTHORITIES + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > MAX_AUTHORITIES {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(pem)
}

/// Our address on the way to the printer: the one clients of its network reach us at. For a printer
/// given by name it is the one on the way out.
fn towards(printer: &PrinterAddr) -> Option<IpAddr> {
    let printer = match printer {
        PrinterAddr::Ip(address) => *address,
        // An address reserved for documentation (RFC 5737), which no host has.
        PrinterAddr::Name(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let any: IpAddr = match printer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a datagram socket sends nothing; it only chooses the way. The port is any.
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect((printer, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The heap limit in bytes.
const fn heap_limit(config: &Config) -> usize {
    if config.record.is_some() { budget::TOTAL_RECORDING } else { budget::TOTAL }
}

/// One line: what is held now, the most there ever was, and the limit.
fn write_heap(out: &mut impl Write, heap_limit: usize) -> fmt::Result {
    writeln!(
        out,
        "heap: held {} KiB, peak {} KiB, limit {} KiB",
        heap::held().div_ceil(KIB),
        heap::peak().div_ceil(KIB),
        heap_limit.div_ceil(KIB)
    )
}

/// Why the program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The operating system does not provide what every program needs.
    Runtime(io::Error),
    /// A port cannot be bound.
    Bind {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// None of the printer's data ports can be bound.
    DataPorts(io::Error),
    /// The proxy's certificates cannot be loaded from the state directory, or made there.
    Identity(PathBuf, crate::tls::IdentityError),
    /// The file of `--printer-ca` cannot be read.
    PrinterCa {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The certificates of `--printer-ca` cannot be used.
    Trust(crate::tls::TrustError),
    /// The recording cannot be started.
    Record(trace::StartError),
}

impl StartError {
    /// Whether a setting has an invalid value.
    pub const fn is_bad_value(&self) -> bool {
        match self {
            Self::PrinterCa { .. } | Self::Trust(_) => true,
            Self::Runtime(_)
            | Self::Bind { .. }
            | Self::DataPorts(_)
            | Self::Identity(..)
            | Self::Record(_) => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
            Self::Bind { port, error } if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "cannot bind port {port}: permission denied; ports below 1024 need \
                     CAP_NET_BIND_SERVICE: start as a service that has it, or choose another port with \
                     --port"
                )
            }
            Self::Bind { port, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot bind port {port}: in use by another program; end it, or choose another port with \
                 --port"
            ),
            Self::Bind { port, error } => write!(f, "cannot bind port {port}: {error}"),
            Self::DataPorts(error) => write!(
                f,
                "cannot bind any of the printer's data ports: {error}; end the program that has them, or \
                 choose --ftp-mode proxy"
            ),
            Self::Identity(dir, error) => write!(f, "state directory {}: {error}", dir.display()),
            Self::PrinterCa { path, error } => {
                write!(f, "--printer-ca {}: {error}", path.display())
            }
            Self::Trust(error) => write!(f, "--printer-ca: {error}"),
            Self::Record(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}

/// Each message of the composition root once.
#[cfg(test)]
pub(crate) fn samples() -> Vec<alloc::string::String> {
    use alloc::string::ToString;
    let kinds = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::AddrInUse,
        io::ErrorKind::AddrNotAvailable,
    ];
    let listening =
        ListeningOn { service: "mqtt", at: (Ipv4Addr::UNSPECIFIED, 8883).into(), clients: 10 };
    let path = PathBuf::from("ca.pem");
    let mut samples: Vec<_> = kinds
        .map(|kind| StartError::Bind { port: 990, error: kind.into() }.to_string())
        .into_iter()
        .collect();
    samples.extend([
        listening.to_string(),
        StartError::Runtime(io::ErrorKind::OutOfMemory.into()).to_string(),
        StartError::DataPorts(io::ErrorKind::AddrInUse.into()).to_string(),
        StartError::PrinterCa { path, error: io::ErrorKind::NotFound.into() }.to_string(),
    ]);
    samples
}
