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
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::SocketAddr;
use core::time::Duration;
use std::time::SystemTime;

use rand_core::{OsRng, RngCore};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinHandle;

use super::accept::warn_if_absent;
pub use super::credentials::{Authority, Credentials, read_authorities};
use super::host::Host;
use super::net::Net;
use super::optional_port::PortInUse;
use super::root::{Bound, Listens, Root, find, heap_limit};
use super::service::{Declaration, Listening, Service};
use super::services::{bind, chamber, files, http, mqtt, rtsp, ssdp};
use super::shutdown::shut_down;
pub use super::start_error::StartError;
use super::{Clock, supervisor};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::{Config, FtpMode, Recording};
use crate::journal::{self, Kind};
use crate::memory::{KIB, MIB, budget, heap};
use crate::printer::status::Status;
use crate::trace;

/// How often the deadlines of the services are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// The services, in the order in which they are started and shut down: the one list of them.
pub fn services<N: Net>() -> [Declaration<N>; 9] {
    [
        mqtt::declaration(),
        chamber::declaration(),
        rtsp::declaration(),
        files::ftp_declaration(),
        files::tunnel_declaration(),
        bind::plain_declaration(),
        bind::tls_declaration(),
        ssdp::declaration(),
        // The last one: it shows the others.
        http::declaration(),
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

/// A running proxy. Its tasks run on the runtime that it was started on.
pub struct Proxy {
    services: Vec<Rc<dyn Service>>,
    acceptors: Vec<JoinHandle<()>>,
    maintainers: Vec<JoinHandle<()>>,
    status: Rc<Status>,
    /// Ports that other programs had at the start.
    in_use: Vec<Rc<PortInUse>>,
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
        journal::set_now(context.clock.now(), SystemTime::now());
        // First, so that a port in use is reported at once and not after minutes of making keys.
        let mut bound = Vec::with_capacity(declarations.len());
        for declaration in declarations {
            bound.push(match declaration.listening(config) {
                Some(listening) => {
                    Bound::new(declaration.name, declaration.without, &listening, config, net)?
                }
                None => Bound::NONE,
            });
        }
        let listening = declarations.iter().zip(&bound).filter_map(|(declaration, bound)| {
            if bound.in_use.is_some() {
                return None;
            }
            let Listening { transport, clients, .. } = declaration.listening(config)?;
            Some(Listens { name: declaration.name, port: bound.at?.port(), transport, clients })
        });
        let listening = listening.collect();
        warn_if_absent(config.bind);
        record(config, &context.clock)?;
        let status = Status::new(&config.serial, config.port_6000).named(config.name.as_ref());
        let status = Rc::new(status);
        let mut root = Root {
            config,
            net: net.clone(),
            host: Host::new(config, &status),
            clock: context.clock,
            status,
            credentials: (context.credentials)(config)?,
            limiter: Rc::default(),
            seed: context.seed,
            retries: 0,
            bound: Bound::NONE,
            listening,
            services: Vec::new(),
            upstreams: Vec::new(),
            acceptors: Vec::new(),
            maintainers: Vec::new(),
        };
        let (mut started, mut in_use) = (Vec::new(), Vec::new());
        for (declaration, bound) in declarations.iter().zip(bound) {
            if (declaration.is_enabled)(config) {
                if let Some(port) = &bound.in_use {
                    in_use.push(Rc::clone(port));
                } else if let (Some(at), Some(listening)) =
                    (bound.at, declaration.listening(config))
                {
                    let clients = listening.clients;
                    let is_open = config.is_open(declaration.name) != Some(false);
                    started.push(ListeningOn { service: declaration.name, at, clients, is_open });
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
        for port in &in_use {
            journal::note(Kind::PortInUse, format_args!("{port}"));
        }
        let housekeeping = Housekeeping { services: root.services.clone() };
        root.spawn(housekeeping.work(context.clock));
        let Root { status, services, acceptors, maintainers, .. } = root;
        let heap_limit = heap_limit(config);
        Ok(Self { services, acceptors, maintainers, status, in_use, heap_limit })
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
        for port in self.in_use.iter().filter(|port| !port.is_open()) {
            writeln!(out, "{port}")?;
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
    is_open: bool,
}

impl fmt::Display for ListeningOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, at, clients, is_open } = self;
        match clients {
            _ if !is_open => write!(
                f,
                "{service:<8} port {} closed: the printer's model has no such port",
                at.port()
            ),
            0 => write!(f, "{service:<8} listening on {at} (UDP)"),
            _ => write!(f, "{service:<8} listening on {at}, up to {clients} clients"),
        }
    }
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
        journal::set_now(now, SystemTime::now());
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

/// Each message of the composition root once.
#[cfg(test)]
pub(crate) fn samples() -> Vec<alloc::string::String> {
    use alloc::string::ToString;
    let at = (core::net::Ipv4Addr::UNSPECIFIED, 8883).into();
    let mut samples = super::start_error::samples();
    samples.extend(super::root::samples());
    samples.push(ListeningOn { service: "mqtt", at, clients: 10, is_open: true }.to_string());
    samples.push(ListeningOn { service: "ssdp", at, clients: 0, is_open: true }.to_string());
    samples.push(ListeningOn { service: "rtsp", at, clients: 6, is_open: false }.to_string());
    samples
}
