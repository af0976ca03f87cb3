//! The stages of `pandaproxy check`, over a network and a clock.
//!
//! Where the service runs, it has the printer's connections: its status is asked, and the printer is not connected to.
//! Else the printer is connected to as the services do, by their own sessions: one connection to each port at a time,
//! closed in order. Nothing is written: no certificate is made and none is pinned.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the whole check | [`TIMEOUT`] | the stages that are left have that time between them, a second each at least |
//! | a port of the printer | [`CONNECT_TIMEOUT`] | reported as filtered |
//! | a report, a picture, a reply of the file server | [`ANSWER_TIMEOUT`] | reported |
//! | discovery | [`LISTEN_TIME`], twice | what was heard by then is reported |

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write as _};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::time::SystemTime;

use tokio::time::{Instant, timeout};

use super::Clock;
use super::dial::{DialError, Dialler};
use super::drive::{Buffers, End, drive};
use super::host::Host;
use super::net::Net;
use super::stream::Stream;
use crate::board::BOARD;
use crate::cause::Cause;
use crate::check::status::Status as ServiceStatus;
use crate::check::{Checked, Finding, Outcome, Stage, Verdict};
use crate::config::{Config, Notice, PrinterAddr};
use crate::mqtt::queue::RequestQueue;
use crate::mqtt::report::{Kind, classify};
use crate::mqtt::upstream as mqtt;
use crate::mqtt::version::firmware;
use crate::mqtt::{REPORT_INBOX, Topics};
use crate::printer::model::Model;
use crate::printer::status::{MAX_VERSION, Status};
use crate::segment::Segment;
use crate::session::Handler;
use crate::state_dir::pins::Fingerprint;
use crate::tls::Trust;
use crate::trace::{Party, Protocol};

mod camera;
mod discovery;
mod disk;
mod files;
pub mod local;

use discovery::Ears;
use local::{Machine, NoStatus, PortState};

/// Time for the whole check.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a TCP connection to one of the printer's ports.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a report, a picture, or a reply of the file server.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which a printer that announces itself was heard: it does so every five seconds.
pub const LISTEN_TIME: Duration = Duration::from_secs(6);

/// What is checked, and with what.
pub struct Check<'a, N: Net, M: Machine> {
    /// The configuration.
    pub config: &'a Config,
    /// The network.
    pub net: &'a N,
    /// The clock.
    pub clock: Clock,
    /// What the printer's certificate has to be.
    pub trust: Trust,
    /// This machine.
    pub machine: &'a M,
    /// A random number, for identifiers.
    pub seed: u64,
}

/// What is shown while the check runs.
pub trait Progress {
    /// A stage begins.
    fn begin(&mut self, stage: Stage);

    /// A stage has ended.
    fn end(&mut self, checked: &Checked);
}

/// The run of a check.
struct Run<'a, N: Net, M: Machine> {
    check: &'a Check<'a, N, M>,
    progress: &'a mut dyn Progress,
    until: Instant,
    outcome: Outcome,
    host: Rc<Host>,
    status: Rc<Status>,
    /// The printer's address.
    at: Option<IpAddr>,
    /// Whether the printer has accepted the access code.
    is_accepted: bool,
}

/// A connection to the printer, after TLS.
type Secured<N> = Stream<<N as Net>::PrinterStream>;

impl<N: Net, M: Machine> Check<'_, N, M> {
    /// Runs all stages, for [`TIMEOUT`] at most.
    pub async fn run(&self, progress: &mut dyn Progress) -> Outcome {
        let config = self.config;
        let status = Rc::new(Status::new(&config.serial, config.port_6000));
        let host = Host::new(config, &status);
        let until = Instant::now() + TIMEOUT;
        let outcome = Outcome::default();
        let (at, is_accepted) = (None, false);
        let mut run = Run { check: self, progress, until, outcome, host, status, at, is_accepted };
        // Heard while the other stages run.
        let ears = Ears::open(self.net);
        run.stage(Stage::Settings, async |run| settings(run.check.config)).await;
        let is_running = self.machine.is_running();
        run.stage(Stage::Ports, async |run| run.ports()).await;
        if is_running {
            let status = self.machine.status();
            for stage in Stage::AT_PRINTER {
                match &status {
                    Ok(status) => {
                        let finding = ServiceStatus::new(status).finding(stage);
                        run.stage(stage, async |_| finding).await;
                    }
                    Err(why) if stage == Stage::Printer => {
                        run.stage(stage, async |_| not_asked(why)).await;
                    }
                    Err(_) => run.left_out(stage, Stage::Printer).await,
                }
            }
        } else {
            run.at_printer().await;
        }
        run.stage(Stage::Clients, async |run| run.clients(is_running)).await;
        run.stage(Stage::Discovery, async |run| run.discovery(ears).await).await;
        run.stage(Stage::Resources, async |run| run.check.machine.resources(run.check.config))
            .await;
        run.outcome
    }
}

/// The printer is not connected to, since the service is.
fn not_asked(why: &NoStatus) -> Finding {
    const NOT_ASKED: &str = "the printer is not asked a second time";
    let finding = match why {
        NoStatus::Off => Finding::failed(&Cause::STATUS_OFF.with("")),
        NoStatus::Hidden(port) => {
            Finding::failed(&Cause::HIDDEN.with(port)).behind(format!("{NOT_ASKED}: "))
        }
        NoStatus::Failed(why) => Finding::message(Cause::STATUS_OFF, why)
            .behind(format!("{NOT_ASKED}, and the service's status is not known: ")),
    };
    Finding { verdict: Verdict::Unknown, ..finding }
}

/// Another program has a port.
fn taken(cause: Cause, service: &str, port: u16, holder: &dyn fmt::Display) -> Finding {
    let taken = cause.with(port);
    // The service runs without some of its ports.
    let taken = match crate::health::is_optional(service) {
        true => Finding::warning(&taken),
        false => Finding::failed(&taken),
    };
    Finding { text: format!("{} ({service}): {holder}", taken.text), ..taken }
}

/// The settings, which have been read.
fn settings(config: &Config) -> Finding {
    let Config { serial, printer, .. } = config;
    let model = Model::of_serial(serial);
    let name = model.map_or("unknown model", |model| model.name);
    let mut finding = Finding::good(format!("printer {serial} ({name}) at {printer}"));
    for notice in &config.notices {
        let remark = match notice {
            Notice::SerialRaised => continue,
            Notice::SerialLength(len) => Finding::warning(&Cause::SERIAL_SHAPE.with(len)),
            Notice::CodeLength(len) => Finding::warning(&Cause::CODE_SHAPE.with(len)),
        };
        finding = finding.or_worse(remark);
    }
    if model.is_none() {
        let prefix: String = serial.chars().take(3).collect();
        finding = finding.or_worse(Finding::warning(&Cause::MODEL_UNKNOWN.with(prefix)));
    }
    if let Err(error) = config.check_printer() {
        finding = finding.or_worse(Finding::message(Cause::ITSELF, error));
    }
    finding
}

impl<N: Net, M: Machine> Run<'_, N, M> {
    /// Runs one stage, and shows it.
    async fn stage(
        &mut self,
        stage: Stage,
        check: impl AsyncFnOnce(&mut Self) -> Finding,
    ) -> Verdict {
        self.progress.begin(stage);
        let finding = check(self).await;
        let finding = self.outcome.without_repetition(finding);
        let checked = Checked { stage, finding };
        self.progress.end(&checked);
        let verdict = checked.finding.verdict;
        // There is room for each stage once.
        let _fits = self.outcome.stages.push(checked);
        verdict
    }

    /// So much time, or what is left of the whole check's.
    fn within(&self, time: Duration) -> Duration {
        const LEAST: Duration = Duration::from_secs(1);
        self.until.saturating_duration_since(Instant::now()).clamp(LEAST, time)
    }

    /// Whether this machine has an address in the network of `address`.
    fn is_near(&self, address: IpAddr) -> bool {
        let segments = self.check.net.segments();
        matches!(address, IpAddr::V4(at) if segments.iter().any(|segment| segment.contains(at)))
    }

    /// The printer's address, as it was found or is configured.
    fn printer_address(&self) -> Option<Ipv4Addr> {
        let configured = match self.check.config.printer {
            PrinterAddr::Ip(at) => Some(at),
            PrinterAddr::Name(_) => None,
        };
        match self.at.or(configured) {
            Some(IpAddr::V4(at)) => Some(at),
            Some(IpAddr::V6(_)) | None => None,
        }
    }

    fn now(&self) -> crate::clock::Instant {
        self.check.clock.now()
    }

    /// This machine's addresses and ports.
    fn ports(&self) -> Finding {
        let Check { config, machine, net, .. } = self.check;
        let mut free = String::new();
        let mut own = String::new();
        let mut finding: Option<Finding> = None;
        let mut note = |other: Finding| {
            finding = Some(match finding.take() {
                Some(before) => before.or_worse(other),
                None => other,
            });
        };
        for (service, port) in config.listening() {
            if config.is_open(service) == Some(false) || port == 0 {
                continue;
            }
            let list = match machine.port(config, service, port) {
                PortState::Free => &mut free,
                PortState::Own => &mut own,
                PortState::Taken(holder) => {
                    note(taken(Cause::PORT_TAKEN, service, port, &holder));
                    continue;
                }
                PortState::OfOther(pid) => {
                    note(taken(Cause::ONE_ADDRESS, service, port, &format_args!("pid {pid}")));
                    continue;
                }
                PortState::Privileged => {
                    note(Finding::warning(&Cause::PORT_PRIVILEGE.with(port)));
                    continue;
                }
                PortState::Hidden => {
                    let hidden = Finding::warning(&Cause::HIDDEN.with(port));
                    note(Finding { text: format!("{} ({service})", hidden.text), ..hidden });
                    continue;
                }
            };
            let comma = if list.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _written = write!(list, "{comma}{service} {port}");
        }
        if !config.bind.is_unspecified() && !machine.has_address(config.bind) {
            note(Finding::warning(&Cause::NO_ADDRESS.with(config.bind)));
        }
        if net.is_bridged() && config.advertise.is_none() {
            note(Finding::warning(&Cause::BRIDGED.with("")));
        }
        finding.unwrap_or_else(|| match (own.is_empty(), free.is_empty()) {
            (true, true) => Finding::skipped("no service listens for clients"),
            (true, _) => Finding::good(format!("free: {free}")),
            (false, true) => Finding::good(format!("held by the running service: {own}")),
            (false, false) => {
                Finding::good(format!("held by the running service: {own}; free: {free}"))
            }
        })
    }

    /// The stages that connect to the printer. What depends on one that failed is left out.
    async fn at_printer(&mut self) {
        let mut broker = None;
        let printer = self.stage(Stage::Printer, async |run| run.printer(&mut broker).await).await;
        let mut stream = None;
        match broker {
            Some(connection) => {
                let shown = async |run: &mut Self| run.certificate(connection, &mut stream).await;
                self.stage(Stage::Certificate, shown).await;
            }
            None => self.left_out(Stage::Certificate, Stage::Printer).await,
        }
        match stream {
            Some(stream) => self.login(stream).await,
            None => {
                let failed =
                    if printer == Verdict::Failed { Stage::Printer } else { Stage::Certificate };
                self.left_out(Stage::Login, failed).await;
                self.left_out(Stage::Report, failed).await;
            }
        }
        // A device that is not the printer does not learn the access code, and a printer that refuses it once is not
        // asked again: some lock an address out.
        let is_refused = |stage, anchors: &[&str]| {
            self.outcome.of(stage).and_then(|it| it.anchor).is_some_and(|it| anchors.contains(&it))
        };
        let verdict = |stage| self.outcome.of(stage).map(|finding| finding.verdict);
        let is_gone = [Cause::PRINTER_OFF, Cause::UNREACHABLE, Cause::NO_SUCH_NAME, Cause::ITSELF];
        let stop = if is_refused(Stage::Printer, &is_gone.map(|cause| cause.anchor)) {
            Some(Stage::Printer)
        } else if verdict(Stage::Certificate) == Some(Verdict::Failed)
            && !is_refused(Stage::Certificate, &[Cause::NO_HANDSHAKE.anchor])
        {
            Some(Stage::Certificate)
        } else if is_refused(Stage::Login, &[Cause::WRONG_CODE.anchor]) {
            Some(Stage::Login)
        } else {
            None
        };
        let services = self.check.config.services;
        match stop {
            Some(stop) => {
                self.left_out(Stage::Camera, stop).await;
                self.left_out(Stage::Files, stop).await;
            }
            None => {
                let camera = async |run: &mut Self| match services.has_camera() {
                    true => run.camera().await,
                    false => Finding::skipped("not served"),
                };
                self.stage(Stage::Camera, camera).await;
                let files = async |run: &mut Self| match services.ftp {
                    true => run.files().await,
                    false => Finding::skipped("not served"),
                };
                self.stage(Stage::Files, files).await;
            }
        }
    }

    async fn left_out(&mut self, stage: Stage, why: Stage) {
        let finding = Finding::skipped(format!("see {} {}", why.number(), why.name()));
        self.stage(stage, async |_| finding).await;
    }

    /// The printer's name, address and ports. The connection to its broker is kept for the next stage.
    async fn printer(&mut self, broker: &mut Option<N::Connection>) -> Finding {
        let Check { config, net, .. } = self.check;
        let ports = &config.printer_ports;
        let at = match self.host.address(*net, ports.mqtt).await {
            Ok(at) => at.ip(),
            Err(error) => return refused(error),
        };
        self.at = Some(at);
        let has_camera = config.services.has_camera();
        let has_6000 = has_camera && self.status.has_chamber() != Some(false)
            || config.services.ftp && config.has_tunnel();
        let has_322 = has_camera && self.status.has_rtsps() != Some(false);
        let limit = self.within(CONNECT_TIMEOUT);
        let reach = async |is_used: bool, port: u16| match is_used {
            true => Some((port, reach(*net, SocketAddr::new(at, port), limit).await)),
            false => None,
        };
        let (first, second, third, fourth) = tokio::join!(
            reach(true, ports.mqtt),
            reach(has_6000, ports.chamber),
            reach(has_322, ports.rtsp),
            reach(config.services.ftp, ports.ftp),
        );
        let is_used = |state: &Option<(u16, Reached<N>)>| state.is_some();
        let states = [first, second, third, fourth];
        let count = states.iter().filter(|state| is_used(state)).count();
        let mut text = format!("{at}:");
        let (mut silent, mut unreachable, mut fault) = (0, 0, None);
        for (index, (port, state)) in states
            .into_iter()
            .enumerate()
            .filter_map(|(index, state)| state.map(|state| (index, state)))
        {
            // A camera's port that is closed is judged with the camera.
            let is_camera = matches!(index, 1 | 2);
            let comma = if text.ends_with(':') { "" } else { "," };
            let word = match state {
                Reached::Open(connection) => {
                    if index == 0 {
                        *broker = Some(connection);
                    }
                    "open"
                }
                Reached::Closed => {
                    if !is_camera {
                        fault = fault.or(Some(Cause::PORT_CLOSED.with(port)));
                    }
                    "closed"
                }
                Reached::Filtered => {
                    silent += 1;
                    if !is_camera {
                        fault = fault.or(Some(Cause::PORT_FILTERED.with(port)));
                    }
                    "filtered"
                }
                Reached::Absent => {
                    silent += 1;
                    "without a host"
                }
                Reached::Unreachable => {
                    unreachable += 1;
                    "unreachable"
                }
            };
            let name = PORT_NAMES.get(index).unwrap_or(&"");
            let _written = write!(text, "{comma} {name} {port} {word}");
        }
        let finding = if unreachable == count && !self.is_near(at) {
            Finding::failed(&Cause::UNREACHABLE.with(""))
        } else if silent + unreachable == count {
            Finding::failed(&Cause::PRINTER_OFF.with(""))
        } else if let Some(fault) = fault {
            Finding::failed(&fault)
        } else {
            return Finding::good(text);
        };
        Finding { text: format!("{} ({text})", finding.text), ..finding }
    }

    /// The certificate of the printer's broker.
    async fn certificate(
        &mut self,
        connection: N::Connection,
        stream: &mut Option<Secured<N>>,
    ) -> Finding {
        let Check { config, trust, machine, clock, .. } = self.check;
        let dialler = self.dialler(config.printer_ports.mqtt);
        match dialler.secure(connection).await {
            Ok(secured) => {
                *stream = Some(Stream::new(secured, Protocol::Mqtt, Party::Printer, clock));
            }
            Err(error) => return refused(error),
        }
        let serial = &config.serial;
        if config.insecure_printer {
            Finding::warning(&Cause::INSECURE.with(""))
        } else if trust.has_trusted_first_use() {
            Finding::warning(&Cause::FIRST_USE.with("")).behind(format!("issued to {serial}, "))
        } else if !is_set(machine.time()) {
            Finding::warning(&Cause::CLOCK.with("")).behind(format!("issued to {serial}; "))
        } else {
            Finding::good(format!("issued to {serial}, by a known authority"))
        }
    }

    /// The login at the printer's broker, and what it reports.
    async fn login(&mut self, mut stream: Secured<N>) {
        let Check { config, clock, seed, .. } = self.check;
        self.progress.begin(Stage::Login);
        let began = self.now();
        let queue = Rc::new(RequestQueue::without_clients());
        let topics = Rc::new(Topics::new(&config.serial, (*seed >> 48) as u16));
        let code = Rc::new(config.code.clone());
        let mut upstream = mqtt::Upstream::new(Rc::clone(&queue), topics, code, began);
        let reports = Reports {
            queue,
            clock: *clock,
            until: Cell::new(began + self.within(2 * ANSWER_TIMEOUT)),
            wait: self.within(ANSWER_TIMEOUT),
            facts: RefCell::default(),
        };
        let mut buffers = Buffers::new(REPORT_INBOX, BOARD.mqtt.outbox);
        let end = drive(&mut upstream, &reports, &mut stream, &mut buffers, clock).await;
        stream.close().await;
        let facts = reports.facts.into_inner();
        self.is_accepted = facts.live_at.is_some();
        let login = match facts.live_at {
            Some(_) => Finding::good("the printer's broker accepts the access code"),
            None => not_logged_in(end, upstream.phase()),
        };
        let is_in = login.verdict == Verdict::Good;
        self.stage(Stage::Login, async |_| login).await;
        if is_in {
            self.stage(Stage::Report, async |_| facts.finding()).await;
        } else {
            self.left_out(Stage::Report, Stage::Login).await;
        }
    }

    /// How clients reach this machine.
    fn clients(&self, is_running: bool) -> Finding {
        let Check { config, machine, net, .. } = self.check;
        let specific = Some(config.bind).filter(|bind| !bind.is_unspecified());
        let given = config.advertise.map(IpAddr::V4).or(specific);
        // The one on the way to the printer, on the way out (to an address that is reserved for documentation, RFC 5737),
        // or in a network that there is no way out of.
        let to_printer = || net.source_towards(self.printer_address()?);
        let out = || net.source_towards(Ipv4Addr::new(192, 0, 2, 1));
        let of_network = || net.segments().first().map(Segment::address);
        let near = || to_printer().or_else(out).or_else(of_network).map(IpAddr::V4);
        let Some(own) = given.or_else(near) else {
            return Finding::failed(&Cause::NO_OWN_ADDRESS.with(""));
        };
        let ca = machine.authority(config);
        let authority = Authority { sha256: ca.as_ref(), is_running };
        if !is_running {
            return Finding::good(format!("{own}, {authority}"));
        }
        match machine.answers_at(config, own) {
            Some(Ok(())) => Finding::good(format!("reached at {own}, {authority}")),
            Some(Err(true)) => Finding::failed(&Cause::NOT_OURS.with(own)),
            Some(Err(false)) => Finding::failed(&Cause::NOT_REACHED.with(own)),
            None => Finding::good(format!("{own}, {authority}")),
        }
    }
}

/// The authority of this proxy's certificates, in words.
struct Authority<'a> {
    sha256: Option<&'a Fingerprint>,
    is_running: bool,
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(sha256) = self.sha256 else {
            return f.write_str(match self.is_running {
                true => "authority not readable by this user",
                false => "no authority yet: it is made at the first start",
            });
        };
        f.write_str("authority's SHA-256 ")?;
        for (at, byte) in sha256.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// The names of the ports that are connected to. Port 6000 is the file tunnel of printers with RTSPS.
const PORT_NAMES: [&str; 4] = ["mqtt", "chamber", "rtsp", "ftp"];

/// What came of connecting to a port.
enum Reached<N: Net> {
    Open(N::Connection),
    Closed,
    /// No answer: a firewall drops packets, or the printer is off and in another network.
    Filtered,
    /// No device in this network has the address.
    Absent,
    /// This machine has no way to the address.
    Unreachable,
}

async fn reach<N: Net>(net: &N, at: SocketAddr, limit: Duration) -> Reached<N> {
    match timeout(limit, net.connect(at)).await {
        Ok(Ok(connection)) => Reached::Open(connection),
        Ok(Err(error)) => {
            let is = |kind| error.kind() == kind;
            if is(io::ErrorKind::ConnectionRefused) || is(io::ErrorKind::ConnectionReset) {
                Reached::Closed
            } else if is(io::ErrorKind::NetworkUnreachable) {
                Reached::Unreachable
            } else if is(io::ErrorKind::HostUnreachable) {
                Reached::Absent
            } else {
                Reached::Filtered
            }
        }
        Err(_elapsed) => Reached::Filtered,
    }
}

/// Why there is no connection after TCP.
fn refused(error: DialError) -> Finding {
    Finding::message(error.cause(), error)
}

/// The same for one port of a printer that has answered at another: it is not off.
fn refused_at(port: u16, error: DialError) -> Finding {
    if matches!(error, DialError::Off) {
        return Finding::failed(&Cause::PORT_FILTERED.with(port));
    }
    refused(error)
}

/// Whether a clock has been set since the board was started.
fn is_set(time: SystemTime) -> bool {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() >= crate::tls::chain::FLOOR.unsigned_abs()
}

impl<N: Net, M: Machine> Run<'_, N, M> {
    /// Connects to one of the printer's ports, with the TLS sessions of its own.
    fn dialler(&self, port: u16) -> Dialler<N> {
        let trust = self.check.trust.with_own_sessions();
        Dialler::new(self.check.net.clone(), Rc::clone(&self.host), port, trust)
    }
}

/// Why the broker did not let this program in.
fn not_logged_in(end: End<mqtt::Error>, phase: mqtt::Phase) -> Finding {
    use mqtt::{Error, Phase};
    match (end, phase) {
        (End::Session(error), _) if error.is_wrong_code() => {
            Finding::failed(&Cause::WRONG_CODE.with(""))
        }
        (End::Session(Error::SubscriptionRefused) | End::Closed, Phase::Subscribing) => {
            Finding::failed(&Cause::SUBSCRIPTION.with(""))
        }
        (End::Session(Error::NoAnswer | Error::ShuttingDown), _) => {
            Finding::failed(&Cause::NO_CONNACK.with(ANSWER_TIMEOUT.as_secs()))
        }
        (End::Closed, _) | (End::Stream(_), Phase::Connecting) => {
            Finding::failed(&Cause::SLOTS_FULL.with(""))
        }
        (End::Session(error), _) => Finding::message(Cause::BROKER, error),
        (End::Stream(error), _) => Finding::message(Cause::BROKER, error),
    }
}

/// What the broker has reported.
#[derive(Default)]
struct Facts {
    live_at: Option<crate::clock::Instant>,
    /// Time from the login to the first report.
    first: Option<Duration>,
    version: heapless::String<MAX_VERSION>,
    developer_mode: Option<bool>,
    live_view: Option<bool>,
    has_full: bool,
}

impl Facts {
    fn finding(&self) -> Finding {
        let Some(first) = self.first else {
            return Finding::failed(&Cause::NO_REPORT.with(ANSWER_TIMEOUT.as_secs()));
        };
        let firmware = if self.version.is_empty() { "unknown" } else { &self.version };
        let (seconds, tenths) = (first.as_secs(), first.subsec_millis() / 100);
        let mut found = format!("first report after {seconds}.{tenths} s, firmware {firmware}");
        for (words, state) in
            [("Developer Mode", self.developer_mode), ("live view", self.live_view)]
        {
            if let Some(is_on) = state {
                let _written = write!(found, ", {words} {}", if is_on { "on" } else { "off" });
            }
        }
        let cause = match self.developer_mode {
            Some(false) => Cause::DEVELOPER_MODE,
            Some(true) | None => return Finding::good(found),
        };
        Finding { text: found, ..Finding::warning(&cause.with("")) }
    }

    /// Whether everything that is asked for is known.
    fn is_complete(&self) -> bool {
        self.has_full && !self.version.is_empty()
    }
}

/// The handler of the broker's events.
struct Reports {
    queue: Rc<RequestQueue>,
    clock: Clock,
    /// When the session is ended.
    until: Cell<crate::clock::Instant>,
    /// How long reports are waited for.
    wait: Duration,
    facts: RefCell<Facts>,
}

impl Handler<mqtt::Upstream> for Reports {
    fn handle_event(
        &self,
        now: crate::clock::Instant,
        _upstream: &mut mqtt::Upstream,
        event: mqtt::Event<'_>,
    ) -> Result<(), mqtt::Error> {
        let mut facts = self.facts.borrow_mut();
        let live_at = *facts.live_at.get_or_insert(now);
        match event {
            mqtt::Event::Live => self.until.set(self.until.get().min(now + self.wait)),
            mqtt::Event::Report { .. } | mqtt::Event::Oversized { .. } => {
                facts.first.get_or_insert(now.since(live_at));
            }
        }
        if let mqtt::Event::Report { payload } = event {
            let report = classify(payload);
            facts.has_full |= report.kind == Kind::Full;
            facts.live_view = report.live_view.or(facts.live_view);
            facts.developer_mode = report.developer_mode.or(facts.developer_mode);
            if let Some(version) = firmware(payload).and_then(|version| version.try_into().ok()) {
                facts.version = version;
            }
        }
        if facts.is_complete() {
            self.queue.leave();
        }
        Ok(())
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.queue.notified() => {}
            () = self.clock.reach(self.until.get()) => self.queue.leave(),
        }
    }
}
