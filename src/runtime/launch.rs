//! The tasks of this program: made at the start, alive until the end.
//!
//! | task | how many |
//! |---|---|
//! | a worker: takes whoever is called from the acceptor, through TLS, to its session | one a slot |
//! | a worker of a relay: takes whoever is called from the acceptor to the printer | one a session of it, and one a place on the pre-auth slots |
//! | the listener | one a service, and one for the data ports of a relay |
//! | the keeper of the printer's connection | one a service; for files one a session of the printer's |
//! | the mover of files | one a session of the printer's; in a relay one a transfer |
//! | housekeeping | one |
//!
//! The end is in order: listeners close, clients are told, the printer hears DISCONNECT; what is not
//! done within three seconds is dropped.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand_core::{OsRng, RngCore};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_local};

use super::accept::{Acceptor, bind, say_if_absent};
use super::dial::{BackOff, Dialler};
use super::files;
use super::services::camera::maintain_camera;
use super::services::mqtt::maintain_upstream;
use super::services::rtsp::maintain_stream;
use super::shutdown::{Shutdown, shut_down};
use super::worker::{Serves, Worker};
use super::{Clock, supervisor};
use crate::auth::Limiter;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::{Config, FtpMode, PrinterAddr, Recording};
use crate::journal::{self, Kind};
use crate::logger;
use crate::memory::{KIB, MIB, budget, heap};
use crate::mqtt::Topics;
use crate::printer::camera::CameraProbe;
use crate::state_dir::Pins;
use crate::tls::{Identity, Policy, ServerConfig, Subject, Trust};
use crate::{chamber, mqtt, rtsp, trace};

/// Bytes of `--printer-ca` that are read: a dozen certificates.
const MAX_AUTHORITIES: u64 = 64 * 1024;

/// Who keeps a connection with the printer: one a service, and one for each FTP session.
pub(super) const KEEPERS: usize = budget::SERVICES - 1 + budget::FTP_SESSIONS;

/// Listeners: one a service, and one for the data ports of a relay.
pub(super) const LISTENING: usize = budget::SERVICES + 1;

/// How often housekeeping looks around.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
///
/// # Errors
///
/// The program cannot start; the error says what to do about it.
pub fn serve(config: &Config) -> Result<(), StartError> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_io_events_per_tick(64)
        // Used by the resolver alone, and only for a printer given by name.
        .max_blocking_threads(1)
        .thread_stack_size(budget::RESOLVER / 2)
        .thread_keep_alive(Duration::from_secs(1))
        .build_local(LocalOptions::default())
        .map_err(StartError::Runtime)?;
    runtime.block_on(run(config))
}

async fn run(config: &Config) -> Result<(), StartError> {
    let clock = Clock::start();
    // First, so that a port that is taken is said at once and not after minutes of making keys.
    let wanted = config.services;
    let mqtt_at = wanted.mqtt.then(|| listener(config, config.ports.mqtt)).transpose()?;
    let files = files::Ports::bind(config)?;
    let has_chamber = wanted.camera && !files.has_tunnel();
    let chamber_at = has_chamber.then(|| listener(config, config.ports.chamber)).transpose()?;
    let rtsp_at = wanted.camera.then(|| listener(config, config.ports.rtsp)).transpose()?;
    say_if_absent(config.bind);
    record(config, &clock)?;
    let trust = trust(config)?;
    supervisor::starting();
    let identity = identity(config)?;
    let tls = identity.server_config(BOARD.suites, budget::SESSIONS);

    // Not before the keys are made: until then a signal ends the program as it always does.
    let mut ended = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let mut asked = signal(SignalKind::user_defined1()).map_err(StartError::Runtime)?;

    let seed = OsRng.next_u32();
    let context = Context { config, clock, limiter: Rc::default(), trust };
    let camera = Rc::new(CameraProbe::new());

    let topics = Topics::new(&config.serial, (seed >> 16) as u16);
    let mqtt = mqtt::Service::new(topics, config.code.clone(), clock.now());
    let chamber = chamber::Service::new(config.code.clone());
    let mut listening = heapless::Vec::<JoinHandle<()>, LISTENING>::new();
    let mut keepers = heapless::Vec::<JoinHandle<()>, KEEPERS>::new();

    if let Some((listener, bound)) = mqtt_at {
        let opened = context.open("mqtt", listener, &tls, &mqtt, budget::SLOTS);
        let dialler = context.dialler(config.printer_ports.mqtt);
        let keeper = maintain_upstream(Rc::clone(&mqtt), dialler, clock, BackOff::new(seed));
        // They fit: there is one of each for each service.
        let _fits = (listening.push(opened), keepers.push(task(keeper)));
        context.say_started("mqtt", bound, BOARD.clients.mqtt);
    }
    if let Some((listener, bound)) = chamber_at {
        let opened = context.open("chamber", listener, &tls, &chamber, budget::VIEWERS);
        let _fits = listening.push(opened);
        context.say_started("chamber", bound, BOARD.clients.chamber);
    }
    let chance = u64::from(seed) << 32 | u64::from(OsRng.next_u32());
    let rtsp = rtsp::Service::new(config.code.clone(), rtsp_url(config), chance);
    if let Some((listener, bound)) = rtsp_at {
        let opened = context.open("rtsp", listener, &tls, &rtsp, budget::PLAYERS);
        let dialler = context.dialler(config.printer_ports.rtsp);
        let back_off = BackOff::new(seed.rotate_left(24));
        let keeper =
            maintain_stream(Rc::clone(&rtsp), Rc::clone(&camera), dialler, clock, back_off);
        let _fits = (listening.push(opened), keepers.push(task(keeper)));
        context.say_started("rtsp", bound, BOARD.clients.rtsp);
    }
    if wanted.camera {
        let dialler = context.dialler(config.printer_ports.chamber);
        let rtsp = context.dialler(config.printer_ports.rtsp);
        let (service, camera) = (Rc::clone(&chamber), Rc::clone(&camera));
        let back_off = BackOff::new(seed.rotate_left(8));
        let keeper = maintain_camera(service, camera, dialler, rtsp, clock, back_off);
        let _fits = keepers.push(task(keeper));
    }
    let mut running = files::Running { listening: &mut listening, keepers: &mut keepers };
    let files = files.open(&context, &identity, seed, &mut running)?;
    task(housekeep(Rc::clone(&mqtt), Rc::clone(&chamber), Rc::clone(&rtsp), camera, clock));
    supervisor::ready();

    loop {
        tokio::select! {
            _ = ended.recv() => break,
            _ = interrupted.recv() => break,
            _ = asked.recv() => tell_journal(config),
        }
    }

    journal::note(Kind::Stopping, format_args!("stopping"));
    supervisor::stopping();
    for listening in listening {
        listening.abort();
    }
    let mut services = heapless::Vec::<&dyn Shutdown, { budget::SERVICES }>::new();
    // They fit: there is one of each.
    let _fits = services.extend_from_slice(&[&*mqtt, &*chamber, &*rtsp]);
    if let Some(files) = &files {
        let _fits = services.push(&**files);
    }
    shut_down(&services, keepers).await;
    trace::stop();
    Ok(())
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
            journal::note(Kind::NotRecorded, format_args!("{error}; the service goes on without"));
            return Ok(());
        }
    }
    journal::note(
        Kind::Started,
        format_args!("recording the last {mib} MiB in {}/pandaproxy-*.pcapng", dir.display()),
    );
    log::info!(
        "recording: the access code, the serial number and addresses are redacted. File names, print names, \
         pictures and what users chose themselves are not: look at the files (wireshark, tshark -r) before \
         you share them"
    );
    let relays = config.services.ftp && matches!(config.ftp.mode, FtpMode::Relay { .. });
    if relays || (config.services.ftp && config.has_tunnel()) {
        log::info!("recording: what is relayed has the printer's own TLS and cannot be recorded");
    }
    Ok(())
}

/// Where the RTSPS camera is, as it is to be asked for.
fn rtsp_url(config: &Config) -> rtsp::sdp::Url {
    let mut url = rtsp::sdp::Url::new();
    let (host, port, path) = (&config.printer, config.printer_ports.rtsp, rtsp::upstream::PATH);
    let written = match host {
        PrinterAddr::Ip(IpAddr::V6(ip)) => write!(url, "rtsps://[{ip}]:{port}{path}"),
        PrinterAddr::Ip(IpAddr::V4(ip)) => write!(url, "rtsps://{ip}:{port}{path}"),
        // A printer does not look at what it is called, and a long name might not fit.
        PrinterAddr::Name(_) => write!(url, "rtsps://printer:{port}{path}"),
    };
    // It fits: an address is no longer than that.
    let _fits = written;
    url
}

/// A listener, and where it listens.
pub(super) fn listener(
    config: &Config,
    port: u16,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = bind(SocketAddr::new(config.bind, port))
        .map_err(|error| StartError::Bind { port, error })?;
    let bound = listener.local_addr().map_err(StartError::Runtime)?;
    Ok((listener, bound))
}

/// What all services have in common.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Clock,
    pub(super) limiter: Rc<RefCell<Limiter>>,
    pub(super) trust: Trust,
}

impl Context<'_> {
    /// One line a service, once its port can be connected to.
    pub(super) fn say_started(&self, service: &str, bound: SocketAddr, clients: usize) {
        journal::note(
            Kind::Started,
            format_args!(
                "pandaproxy {} ({}): {service} for {} on {bound}, up to {clients} clients in {} KiB",
                env!("PANDAPROXY_VERSION"),
                BOARD.name,
                self.config.serial,
                heap_limit(self.config) / KIB
            ),
        );
    }

    /// The way to the printer's `port`. Its TLS sessions are its own.
    fn dialler(&self, port: u16) -> Dialler {
        Dialler::new(self.config.printer.clone(), port, self.trust.with_own_sessions())
    }

    /// Opens a service: its acceptor, and as many workers as it has slots.
    pub(super) fn open<S: Serves + Clone + 'static>(
        &self,
        name: &'static str,
        listener: TcpListener,
        tls: &Arc<ServerConfig>,
        service: &S,
        slots: usize,
    ) -> JoinHandle<()> {
        let acceptor = Acceptor::new(name, Rc::clone(&self.limiter));
        for _ in 0..slots {
            let worker = Worker {
                acceptor: Rc::clone(&acceptor),
                service: service.clone(),
                tls: Arc::clone(tls),
                advertise: self.config.advertise,
                rewrites: !self.config.keep_printer_address,
                clock: self.clock,
            };
            task(worker.work());
        }
        task(listen(acceptor, listener, self.clock))
    }
}

/// Starts a task; the build fails if it takes more than its line in the budget.
pub(super) fn task<F: Future<Output = ()> + 'static>(future: F) -> JoinHandle<()> {
    const { assert!(size_of::<F>() <= budget::TASK, "a task is larger than its line in the budget") };
    spawn_local(future)
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
        .map_err(StartError::Identity)
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
    file.take(MAX_AUTHORITIES).read_to_end(&mut pem).map_err(unreadable)?;
    Ok(pem)
}

/// Our address on the way to the printer: the one clients of its network reach us at. For a printer
/// given by name it is the one on the way out.
fn towards(printer: &PrinterAddr) -> Option<IpAddr> {
    let printer = match printer {
        PrinterAddr::Ip(address) => *address,
        // An address that is nobody's (RFC 5737).
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

/// The task of a listener.
pub(super) async fn listen(acceptor: Rc<Acceptor>, listener: TcpListener, clock: Clock) {
    acceptor.listen(&listener, &clock).await;
}

async fn housekeep(
    mqtt: Rc<mqtt::Service>,
    chamber: Rc<chamber::Service>,
    rtsp: Rc<rtsp::Service>,
    camera: Rc<CameraProbe>,
    clock: Clock,
) {
    let watchdog = supervisor::watchdog();
    let mut alive_at = Instant::START;
    let mut was_live = false;
    loop {
        let now = clock.now();
        journal::set_now(now);
        mqtt.handle_timeout(now);
        chamber.handle_timeout(now);
        rtsp.handle_timeout(now);
        trace::handle_timeout(now);
        camera.is_said_off(mqtt.says_live_view_off());
        // A printer that has come back may have another camera, or have it switched on.
        let is_live = mqtt.is_live();
        if is_live && !was_live {
            camera.look_again();
        }
        was_live = is_live;
        if let Some(every) = watchdog
            && alive_at <= now
        {
            supervisor::alive();
            alive_at = now + every;
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Prints the journal and what the heap holds, on SIGUSR1.
fn tell_journal(config: &Config) {
    let mut out = logger::Raw::new();
    // The log takes any text.
    let _written =
        journal::write_to(&mut out).and_then(|()| write_heap(&mut out, heap_limit(config)));
}

/// The most this program may hold.
const fn heap_limit(config: &Config) -> usize {
    if config.record.is_some() { budget::TOTAL_RECORDING } else { budget::TOTAL }
}

/// One line: what is held now, the most there ever was, and where the lid is.
fn write_heap(out: &mut impl Write, heap_limit: usize) -> fmt::Result {
    writeln!(
        out,
        "heap: held {} KiB, peak {} KiB, lid {} KiB",
        heap::held().div_ceil(KIB),
        heap::peak().div_ceil(KIB),
        heap_limit.div_ceil(KIB)
    )
}

/// Why the program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The operating system does not give what every program needs.
    Runtime(io::Error),
    /// A port cannot be had.
    Bind {
        /// Which.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// None of the printer's data ports can be had.
    DataPorts(io::Error),
    /// There is no certificate to show.
    Identity(crate::tls::IdentityError),
    /// The file of `--printer-ca` cannot be read.
    PrinterCa {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to judge the printer by.
    Trust(crate::tls::TrustError),
    /// Nothing can be recorded.
    Record(trace::StartError),
}

impl StartError {
    /// Whether a value that the user gave is no good.
    pub const fn is_bad_value(&self) -> bool {
        match self {
            Self::PrinterCa { .. } | Self::Trust(_) => true,
            Self::Runtime(_)
            | Self::Bind { .. }
            | Self::DataPorts(_)
            | Self::Identity(_)
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
                    "port {port} needs the right to bind ports below 1024 (CAP_NET_BIND_SERVICE): \
                     start as a service that has it, or choose another with --port"
                )
            }
            Self::Bind { port, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "port {port} is taken by another program: end it, or choose another with --port"
            ),
            Self::Bind { port, error } => write!(f, "port {port} cannot be had: {error}"),
            Self::DataPorts(error) => write!(
                f,
                "none of the printer's data ports can be had ({error}): end what holds them, or \
                 choose --ftp-mode proxy"
            ),
            Self::Identity(error) => error.fmt(f),
            Self::PrinterCa { path, error } => {
                write!(f, "--printer-ca {}: {error}", path.display())
            }
            Self::Trust(error) => write!(f, "--printer-ca: {error}"),
            Self::Record(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}
