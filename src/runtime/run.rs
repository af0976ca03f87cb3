//! The tasks of this program: made at the start, alive until the end.
//!
//! | task | how many |
//! |---|---|
//! | a worker: takes whoever is called from the door, through TLS, to its session | one a seat |
//! | the listener | one a service |
//! | the keeper of the printer's connection | one a service |
//! | housekeeping | one |
//!
//! The end is in order: listeners close, clients are told, the printer hears DISCONNECT; what is not
//! done within three seconds is dropped.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand_core::{OsRng, RngCore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::dial::{BackOff, Dial, DialError, Dialler};
use super::drive::{Buffers, End, drive};
use super::listen::{Door, Knock, bind};
use super::stream::{self, Stream, StreamError};
use super::{Clock, supervisor};
use crate::auth::Limiter;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::{Config, Host};
use crate::journal::{self, Kind};
use crate::memory::{KIB, budget, heap};
use crate::mqtt::client::{self, CONNECT_WITHIN};
use crate::mqtt::upstream::{self, Phase};
use crate::mqtt::{REPORT_INBOX, Service, Topics};
use crate::session::{Blame, Peer};
use crate::tls::{Identity, Pins, Policy, ServerConfig, Subject, Trust, accept};

/// How long the end may take for clients; one that takes nothing is not waited for.
const CLIENTS_FAREWELL: Duration = Duration::from_secs(2);

/// How long it may then take for the printer.
const PRINTER_FAREWELL: Duration = Duration::from_secs(1);

/// How long a conversation with the printer has to last before the next is dialled without back-off.
const SETTLED: Duration = Duration::from_secs(30);

/// Bytes of `--printer-ca` that are read: a dozen certificates.
const AUTHORITIES_MOST: u64 = 64 * 1024;

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
    let port = config.ports.mqtt;
    let listener = bind(SocketAddr::new(config.bind, port))
        .map_err(|error| StartError::Bind { port, error })?;
    let bound = listener.local_addr().map_err(StartError::Runtime)?;
    let trust = trust(config)?;
    supervisor::starting();
    let tls = identity(config)?;

    // Not before the keys are made: until then a signal ends the program as it always does.
    let mut ended = signal(SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let mut asked = signal(SignalKind::user_defined1()).map_err(StartError::Runtime)?;

    let seed = OsRng.next_u32();
    let topics = Topics::new(&config.serial, (seed >> 16) as u16);
    let service = Service::new(topics, config.code.clone(), clock.now());
    let door = Door::new("mqtt", Rc::new(RefCell::new(Limiter::new())));

    for _ in 0..budget::SEATS {
        let worker = Worker {
            door: Rc::clone(&door),
            service: Rc::clone(&service),
            tls: Arc::clone(&tls),
            advertise: config.advertise,
            rewrites: !config.keep_printer_address,
            clock,
        };
        task(worker.work());
    }
    let dialler = Dialler::new(config.printer.clone(), config.printer_ports.mqtt, trust);
    let keeper = task(keep_upstream(Rc::clone(&service), dialler, clock, BackOff::new(seed)));
    let listening = task(listen(door, listener, clock));
    task(housekeep(Rc::clone(&service), clock));

    journal::note(
        Kind::Started,
        format_args!(
            "pandaproxy {} ({}): mqtt for {} on {bound}, up to {} clients in {} KiB",
            env!("PANDAPROXY_VERSION"),
            BOARD.name,
            config.serial,
            BOARD.clients.mqtt,
            budget::TOTAL / 1024
        ),
    );
    supervisor::ready();

    loop {
        tokio::select! {
            _ = ended.recv() => break,
            _ = interrupted.recv() => break,
            _ = asked.recv() => tell_journal(),
        }
    }

    journal::note(Kind::Stopping, format_args!("stopping"));
    supervisor::stopping();
    listening.abort();
    take_leave(&service, keeper).await;
    Ok(())
}

/// Ends in order: clients are closed, then the printer hears DISCONNECT from its `keeper`.
pub async fn take_leave(service: &Service, keeper: JoinHandle<()>) {
    service.dismiss_all();
    let gone = async {
        while service.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The printer hears of it last: until then a request that is under way still gets there. Whoever
    // does not take leave in time is left.
    let _late = timeout(CLIENTS_FAREWELL, gone).await;
    service.leave();
    let _late = timeout(PRINTER_FAREWELL, keeper).await;
}

/// Starts a task; the build fails if it takes more than its line in the budget.
fn task<F: Future<Output = ()> + 'static>(future: F) -> JoinHandle<()> {
    const { assert!(size_of::<F>() <= budget::TASK, "a task is larger than its line in the budget") };
    spawn_local(future)
}

/// What this proxy shows to its clients.
fn identity(config: &Config) -> Result<Arc<ServerConfig>, StartError> {
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
    let identity = Identity::load_or_make(&config.state_dir, &subject, SystemTime::now())
        .map_err(StartError::Identity)?;
    Ok(identity.server_config(BOARD.suites, budget::SESSIONS))
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
    file.take(AUTHORITIES_MOST).read_to_end(&mut pem).map_err(unreadable)?;
    Ok(pem)
}

/// Our address on the way to the printer: the one clients of its network reach us at. For a printer
/// given by name it is the one on the way out.
fn towards(printer: &Host) -> Option<IpAddr> {
    let printer = match printer {
        Host::Ip(address) => *address,
        // An address that is nobody's (RFC 5737).
        Host::Name(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
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

async fn listen(door: Rc<Door>, listener: tokio::net::TcpListener, clock: Clock) {
    door.listen(&listener, &clock).await;
}

async fn housekeep(service: Rc<Service>, clock: Clock) {
    let watchdog = supervisor::watchdog();
    let mut alive_at = Instant::START;
    loop {
        let now = clock.now();
        journal::now_is(now);
        service.handle_timeout(now);
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
fn tell_journal() {
    // A log that cannot be written to is nothing that could be logged.
    let _written = journal::write_to(&mut Stderr).and_then(|()| write_heap(&mut Stderr));
}

/// One line: what is held now, the most there ever was, and where the lid is.
fn write_heap(out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(
        out,
        "heap: held {} KiB, peak {} KiB, lid {} KiB",
        heap::held().div_ceil(KIB),
        heap::peak().div_ceil(KIB),
        budget::TOTAL.div_ceil(KIB)
    )
}

/// Standard error, unbuffered: it allocates nothing.
pub struct Stderr;

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::Write::write_all(&mut io::stderr(), text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// Serves one client after another.
struct Worker {
    door: Rc<Door>,
    service: Rc<Service>,
    tls: Arc<ServerConfig>,
    advertise: Option<Ipv4Addr>,
    /// Whether reports name the address that a client reached in place of the printer's.
    rewrites: bool,
    clock: Clock,
}

impl Worker {
    async fn work(self) {
        let mut buffers = Buffers::new(BOARD.mqtt.inbox, BOARD.mqtt.outbox);
        loop {
            let (socket, knock) = self.door.next(&self.clock).await;
            self.serve(socket, knock, &mut buffers).await;
        }
    }

    /// Where clients of this socket believe the printer to be, if they are to be told so.
    fn reached(&self, socket: &TcpStream) -> Option<Ipv4Addr> {
        if !self.rewrites {
            return None;
        }
        self.advertise.or_else(|| match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => address.to_ipv4_mapped(),
        })
    }

    async fn serve(&self, socket: TcpStream, knock: Knock, buffers: &mut Buffers) {
        let until = self.clock.now() + CONNECT_WITHIN;
        let peer = knock.peer;
        let reached = self.reached(&socket);
        if stream::tune(&socket).is_err() {
            // Gone before anything was said.
            return;
        }
        let accepted = tokio::select! {
            accepted = accept(&self.tls, socket) => accepted,
            () = self.clock.reach(until) => {
                knock.turned_away(self.clock.now(), None);
                return;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                knock.turned_away(self.clock.now(), Some(error));
                return;
            }
        };
        let admitted = || {
            journal::note(Kind::Admitted, format_args!("{peer}: admitted"));
            knock.pass();
        };
        let end = serve_client(
            &self.service,
            stream,
            peer,
            reached,
            until,
            admitted,
            buffers,
            &self.clock,
        )
        .await;
        if end == End::Session(client::Error::WrongCode) {
            knock.wrong_code(self.clock.now());
        }
    }
}

/// Serves one client over a stream that is ready for MQTT, until it ends, and says why it did.
#[allow(clippy::too_many_arguments, reason = "each of them differs from client to client")]
pub async fn serve_client<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    stream: T,
    peer: Peer,
    reached: Option<Ipv4Addr>,
    until: Instant,
    admitted: impl Fn(),
    buffers: &mut Buffers,
    clock: &Clock,
) -> End<client::Error> {
    let mut stream = Stream::new(stream);
    let seat = service.client(clock.now(), until, peer, reached, admitted);
    let Some((mut client, place)) = seat else {
        // There are as many seats as workers.
        return End::Session(client::Error::NoSeat);
    };
    let end = drive(&mut client, &place, &mut stream, buffers, clock).await;
    journal::note(kind_of(&end), format_args!("{peer}: {end}"));
    drop(place);
    stream.close().await;
    end
}

/// How the journal counts the end of a client's conversation.
const fn kind_of(end: &End<client::Error>) -> Kind {
    match end {
        End::Session(client::Error::WrongCode | client::Error::WrongUser) => Kind::WrongCode,
        End::Session(client::Error::TooLong { .. }) => Kind::TooLong,
        End::Session(client::Error::Silent) => Kind::Silent,
        End::Session(client::Error::TooSlow) => Kind::Stuck,
        End::Session(
            client::Error::RequestRefused | client::Error::RequestLost | client::Error::Undecided,
        ) => Kind::RequestRefused,
        End::Session(error) => match error.blame() {
            Blame::Nobody | Blame::Network => Kind::Left,
            Blame::Peer => Kind::Malformed,
            Blame::Board => Kind::Refused,
        },
        End::Stream(StreamError::Stalled) => Kind::Stuck,
        End::Closed | End::Stream(StreamError::Lost(_)) => Kind::Left,
    }
}

/// Why there is no conversation with the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>, Phase),
}

impl Loss {
    const fn is_lasting(self) -> bool {
        match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Ended(End::Session(error), _) => error.is_wrong_code(),
            Self::Ended(End::Closed | End::Stream(_), _) => false,
        }
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
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Ended(End::Closed, Phase::Connecting) => f.write_str(
                "the printer ends the connection before it answers: other programs may hold all \
                 its connections",
            ),
            Self::Ended(End::Closed, Phase::Subscribing) => f.write_str(
                "the printer ends the connection over our subscription: is this its serial number?",
            ),
            Self::Ended(End::Closed, Phase::Live) => {
                f.write_str("the printer ended the connection")
            }
            Self::Ended(End::Session(error), _) => error.fmt(f),
            Self::Ended(End::Stream(error), _) => write!(f, "the printer: {error}"),
        }
    }
}

/// Keeps one conversation with the printer, and never two: each is closed completely before the next
/// is dialled.
pub async fn keep_upstream<D: Dial>(
    service: Rc<Service>,
    mut dialler: D,
    clock: Clock,
    mut back_off: BackOff,
) {
    let mut buffers = Buffers::new(REPORT_INBOX, BOARD.mqtt.outbox);
    let mut said = None;
    while !service.is_leaving() {
        let began = clock.now();
        let loss = converse(&service, &mut dialler, &clock, &mut buffers).await;
        service.lost(clock.now());
        if service.is_leaving() {
            return;
        }
        // A conversation that ends as soon as it has begun is no reason to begin the next one sooner.
        if matches!(loss, Loss::Ended(_, Phase::Live)) && clock.now().since(began) >= SETTLED {
            back_off.reset();
            said = None;
        }
        let wait = back_off.wait(loss.is_lasting());
        if said.replace(loss) == Some(loss) {
            log::debug!("mqtt: {loss}; again in {} s", wait.as_secs());
        } else {
            journal::note(loss.kind(), format_args!("mqtt: {loss}; trying again"));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = service.left() => {}
        }
    }
}

async fn converse<D: Dial>(
    service: &Rc<Service>,
    dialler: &mut D,
    clock: &Clock,
    buffers: &mut Buffers,
) -> Loss {
    let stream = match dialler.dial().await {
        Ok(stream) => stream,
        Err(error) => return Loss::Dial(error),
    };
    let mut stream = Stream::new(stream);
    let (mut upstream, link) = service.upstream(clock.now());
    let end = drive(&mut upstream, &link, &mut stream, buffers, clock).await;
    stream.close().await;
    Loss::Ended(end, upstream.phase())
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
}

impl StartError {
    /// Whether a value that the user gave is no good.
    pub const fn is_bad_value(&self) -> bool {
        match self {
            Self::PrinterCa { .. } | Self::Trust(_) => true,
            Self::Runtime(_) | Self::Bind { .. } | Self::Identity(_) => false,
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
            Self::Identity(error) => error.fmt(f),
            Self::PrinterCa { path, error } => {
                write!(f, "--printer-ca {}: {error}", path.display())
            }
            Self::Trust(error) => write!(f, "--printer-ca: {error}"),
        }
    }
}

impl core::error::Error for StartError {}
