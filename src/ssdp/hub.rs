//! What is done about each datagram, and when the printer is announced: pure, in times that it is given.
//!
//! A slicer takes the address of a printer from the datagrams that it hears ([`protocol`](crate::protocol#discovery)).
//! Where it hears the printer as well, this program's address lasts until the printer's next announcement. So there are
//! two kinds of announcements: regular ones with an interface of their own, which make a slicer that hears this program
//! first ignore the printer's, and answers with an empty interface at once after each of the printer's, whose address
//! every slicer takes. Where datagrams are lost, an announcement of the printer's may reach a slicer and not this program:
//! beside the printer a regular one is followed by one with an empty interface as well.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | networks and named addresses | [`MAX_SEGMENTS`], [`MAX_ADDRESSES`] | the others are left out |
//! | regular announcements | one in [`INTERVAL`] | |
//! | answers to the printer's announcements | [`ANSWERS`] in [`ANSWERS_INTERVAL`] | the next follows when it may |
//! | replies to searches of one address | one in [`SEARCH_INTERVAL`] | the search is ignored |
//! | replies to all searches | [`MAX_SEARCHERS`] in [`SEARCH_INTERVAL`] | the search is ignored |
//! | datagrams that wait to be sent | [`MAX_OUTPUT`] | the newest is lost |
//! | log lines | one for each event, and origin where there is one, in 30 s | counted |

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use super::claims::Claims;
use super::wire::{self, Announcement, Form, Message, Text};
use super::{MAX_ADDRESSES, PORT, Plan};
use crate::cause::Cause;
use crate::clock::Instant;
use crate::journal::{self, Kind, RateLimit};
use crate::printer::status::{Announced, Code, Status};
use crate::rejections;
use crate::segment::{MAX_SEGMENTS, Segment, Segments};

/// The time between two regular announcements: no longer than the printer's own.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Answers to the printer's announcements within [`ANSWERS_INTERVAL`].
pub const ANSWERS: usize = 2;

/// See [`ANSWERS`].
pub const ANSWERS_INTERVAL: Duration = Duration::from_secs(1);

/// How long after one of the printer's announcements the regular ones are followed by an answer.
pub const BESIDE_FOR: Duration = Duration::from_secs(60);

/// When an answer is repeated: broadcasts are lost in Wi-Fi, and an access point may deliver the printer's late.
pub const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The time between two replies to searches of one address.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// Addresses whose searches are replied to within [`SEARCH_INTERVAL`].
pub const MAX_SEARCHERS: usize = 8;

/// Datagrams that wait to be sent: one for each destination, and replies.
pub const MAX_OUTPUT: usize = MAX_SEGMENTS + MAX_ADDRESSES + MAX_SEARCHERS;

/// How long the first announcement waits for the printer's firmware version.
pub const VERSION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a printer has to be unreachable for its announcements to end.
pub const GONE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the printer has to be unreachable before other addresses are tried.
pub const LOST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the announcement of a printer in cloud mode counts.
pub const CLOUD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long this machine has to be without a network before that is logged: a board is up before its network is.
pub const NO_NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the hub looks at the printer's status.
const TICK: Duration = Duration::from_secs(1);

/// The interface in this program's regular announcements: no printer has it.
const INTERFACE: &str = "panda0";

/// A firmware version while none is known.
const NO_VERSION: &str = "00.00.00.00";

/// Bytes kept of `Devseclink` and `DevCap`.
type Short = heapless::String<16>;

/// A datagram to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub to: SocketAddrV4,
    /// From which of this program's ports.
    pub from: u16,
    form: Form,
    has_interface: bool,
}

/// What came of trying an address at which the printer is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The machine there is the printer.
    Verified,
    /// The machine there has another certificate.
    Refused,
    /// Nothing answers there.
    Silent,
}

/// The service's state.
pub struct Hub {
    serial: heapless::String<32>,
    plan: Plan,
    began: Instant,
    segments: Segments,
    output: heapless::Deque<Output, MAX_OUTPUT>,
    /// Whether the printer is being announced.
    is_announced: bool,
    next: Instant,
    next_tick: Instant,
    unreachable_since: Option<Instant>,
    lost_since: Option<Instant>,
    /// Since when there is no network to announce the printer in, and whether that was logged.
    no_network: Option<(Instant, bool)>,
    /// When the last answers were sent, the newest first.
    answers: [Option<Instant>; ANSWERS],
    /// When the printer was last heard on the port that slicers listen on.
    heard_beside: Option<Instant>,
    answer_at: Option<Instant>,
    repeat_at: Option<Instant>,
    /// Networks in which the printer was last heard in cloud mode, and until when that counts.
    cloud: heapless::Vec<(Ipv4Addr, Instant), MAX_SEGMENTS>,
    searchers: heapless::Vec<(Ipv4Addr, Instant), MAX_SEARCHERS>,
    claims: Claims,
    security: Short,
    capabilities: Short,
    other_proxy: RateLimit,
    elsewhere: RateLimit,
}

const _: () = assert!(
    size_of::<Hub>() <= crate::memory::budget::DISCOVERY - 2 * crate::memory::KIB,
    "the hub of discovery is larger than its line in the budget"
);

impl Hub {
    /// A hub that has heard nothing yet.
    pub fn new(now: Instant, serial: &heapless::String<32>, plan: Plan) -> Self {
        Self {
            serial: serial.clone(),
            plan,
            began: now,
            segments: Segments::new(),
            output: heapless::Deque::new(),
            is_announced: false,
            next: now,
            next_tick: now,
            unreachable_since: None,
            lost_since: None,
            no_network: None,
            answers: [None; ANSWERS],
            heard_beside: None,
            answer_at: None,
            repeat_at: None,
            cloud: heapless::Vec::new(),
            searchers: heapless::Vec::new(),
            claims: Claims::default(),
            // What every printer that was seen announces.
            security: Short::try_from("secure").unwrap_or_default(),
            capabilities: Short::try_from("1").unwrap_or_default(),
            other_proxy: RateLimit::new(),
            elsewhere: RateLimit::new(),
        }
    }

    /// This machine is in these networks now.
    pub fn set_segments(&mut self, segments: Segments) {
        // Networks that this machine has left make room for new ones.
        self.cloud.retain(|(known, _)| segments.iter().any(|segment| segment.network() == *known));
        self.segments = segments;
    }

    /// The address at which clients in the network of `to` reach this machine. `None`: the kernel knows.
    pub fn own_towards(&self, to: Ipv4Addr) -> Option<Ipv4Addr> {
        let near = || self.segment_of(to).map(|segment| segment.address());
        self.plan.advertise.or(self.plan.bind).or_else(near)
    }

    fn segment_of(&self, address: Ipv4Addr) -> Option<Segment> {
        self.segments.iter().find(|segment| segment.contains(address)).copied()
    }

    /// Whether `address` is this machine's.
    fn is_own(&self, address: Ipv4Addr) -> bool {
        let given = [self.plan.advertise, self.plan.bind];
        given.contains(&Some(address)) || self.segments.iter().any(|at| at.address() == address)
    }

    /// Takes a datagram, received on `port` into a buffer of [`wire::MAX_DATAGRAM`] bytes.
    pub fn receive(
        &mut self,
        now: Instant,
        status: &Status,
        port: u16,
        datagram: &[u8],
        from: SocketAddrV4,
    ) {
        match wire::parse(datagram) {
            Ok(Message::Alive(heard)) if heard.serial == self.serial => {
                self.hear(now, status, port, &heard, *from.ip());
            }
            Ok(Message::Search) => self.reply(now, port, from),
            Ok(Message::Alive(_) | Message::Bye(_) | Message::Other) => {}
            Err(fault) => {
                let ip = IpAddr::V4(*from.ip());
                let line = Line::Malformed { from: *from.ip(), fault };
                rejections::note(now, Kind::Malformed, ip, format_args!("{line}"));
            }
        }
    }

    /// The printer is announced.
    fn hear(
        &mut self,
        now: Instant,
        status: &Status,
        port: u16,
        heard: &Announcement<'_>,
        from: Ipv4Addr,
    ) {
        let Some(location) = heard.location.filter(|at| is_host(*at)) else { return };
        if self.is_own(location) {
            // This program's own, which came back, or a copy of it.
            return;
        }
        if heard.is_proxys() {
            if let Some(times) = self.other_proxy.check(now) {
                log_times(Kind::DiscoveryConflict, &Line::OtherProxy { location, from }, times);
            }
            return;
        }
        self.note_cloud(now, heard, from);
        let known = self.known(status);
        if known.is_none_or(|known| known == location) {
            self.learn(now, status, heard, location);
        }
        if known != Some(location)
            && self.claims.add(now, location)
            && known.is_some()
            && let Some(times) = self.elsewhere.check(now)
        {
            log_times(Kind::Discovery, &Line::Elsewhere { location, from }, times);
        }
        // Slicers listen on this port alone.
        if port == PORT && self.is_announced {
            self.heard_beside = Some(now);
            self.answer_at = Some(self.next_answer(now));
        }
    }

    /// The address that this program has for the printer, if it has one.
    fn known(&self, status: &Status) -> Option<Ipv4Addr> {
        let connected = match status.address() {
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(_)) | None => None,
        };
        status.followed().or(connected).or(self.plan.printer)
    }

    /// When the next answer may be sent.
    fn next_answer(&self, now: Instant) -> Instant {
        let [.., last] = self.answers;
        last.map_or(now, |last| now.max(last + ANSWERS_INTERVAL))
    }

    /// Takes what the printer says about itself.
    fn learn(
        &mut self,
        now: Instant,
        status: &Status,
        heard: &Announcement<'_>,
        location: Ipv4Addr,
    ) {
        let is_cloud = match heard.connect {
            "cloud" => Some(true),
            "lan" => Some(false),
            _ => None,
        };
        let is_bound = match heard.bind {
            "occupied" => Some(true),
            "free" => Some(false),
            _ => None,
        };
        let before = status.announced();
        let (Announcement { signal, .. }, at) = (*heard, now);
        status.set_announced(Announced { location, signal, is_cloud, is_bound, at });
        status.set_name(heard.name);
        status.set_model_code(heard.model);
        // `get_version` goes before it.
        if status.version().is_empty() && !heard.version.is_empty() {
            status.set_version(heard.version);
        }
        for (kept, value) in
            [(&mut self.security, heard.security), (&mut self.capabilities, heard.capabilities)]
        {
            if let Ok(value) = Short::try_from(value)
                && !value.is_empty()
            {
                *kept = value;
            }
        }
        if before.is_none() {
            let line = Line::Heard { location, is_cloud: is_cloud == Some(true) };
            journal::note(Kind::Discovery, format_args!("{line}"));
        }
    }

    /// A printer in cloud mode is not announced where slicers hear that it is.
    fn note_cloud(&mut self, now: Instant, heard: &Announcement<'_>, from: Ipv4Addr) {
        let Some(segment) = self.segment_of(from) else { return };
        let network = segment.network();
        let known = self.cloud.iter().position(|(known, _)| *known == network);
        match (heard.connect == "cloud", known) {
            (true, Some(at)) => {
                let is_past = self.cloud.get(at).is_some_and(|(_, until)| *until <= now);
                if is_past && self.plan.is_on() {
                    log_times(Kind::DiscoveryConflict, &Line::Cloud { segment }, 1);
                }
                if let Some((_, until)) = self.cloud.get_mut(at) {
                    *until = now + CLOUD_TIMEOUT;
                }
            }
            (true, None) => {
                // Cannot fail: there are no more networks.
                let _fits = self.cloud.push((network, now + CLOUD_TIMEOUT));
                if self.plan.is_on() {
                    log_times(Kind::DiscoveryConflict, &Line::Cloud { segment }, 1);
                }
            }
            (false, Some(at)) => drop(self.cloud.swap_remove(at)),
            (false, None) => {}
        }
    }

    /// Whether the printer is heard in cloud mode in the network of `to`.
    fn is_cloud(&self, now: Instant, to: Ipv4Addr) -> bool {
        let Some(segment) = self.segment_of(to) else { return false };
        let network = segment.network();
        self.cloud.iter().any(|(known, until)| *known == network && now < *until)
    }

    /// Replies to a search.
    fn reply(&mut self, now: Instant, port: u16, from: SocketAddrV4) {
        let ip = *from.ip();
        let is_answered = self.is_announced && is_near(ip) && !self.is_cloud(now, ip);
        if !is_answered || from.port() == 0 {
            return;
        }
        self.searchers.retain(|(_, at)| now.since(*at) < SEARCH_INTERVAL);
        let is_known = self.searchers.iter().any(|(known, _)| *known == ip);
        if is_known || self.searchers.push((ip, now)).is_err() {
            return;
        }
        let output = Output { to: from, from: port, form: Form::Answer, has_interface: true };
        let _full = self.output.push_back(output);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn deadline(&self) -> Instant {
        let due = [self.answer_at, self.repeat_at];
        due.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Announces what is due.
    pub fn handle_timeout(&mut self, now: Instant, status: &Status) {
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.tick(now, status);
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.answer_at) {
            (self.answer_at, self.repeat_at) = (None, Some(now + REPEAT_INTERVAL));
            self.answer(now);
        } else if is_due(self.repeat_at) {
            self.repeat_at = None;
            // A repeat that comes too soon is left out.
            if self.next_answer(now) <= now {
                self.answer(now);
            }
        }
    }

    /// Takes slicers back from the printer.
    fn answer(&mut self, now: Instant) {
        if self.is_announced {
            let [newest, ..] = self.answers;
            self.answers = [Some(now), newest];
            self.queue(now, Form::Notify, false);
        }
    }

    fn tick(&mut self, now: Instant, status: &Status) {
        let since = |since: Option<Instant>, holds: bool| holds.then(|| since.unwrap_or(now));
        let is_unreachable = status.is_reachable() == Some(false);
        self.unreachable_since = since(self.unreachable_since, is_unreachable);
        self.lost_since = since(self.lost_since, status.is_lost());
        let obstacle = self.obstacle(now, status);
        if obstacle != Some(Obstacle::NoNetwork) {
            self.no_network = None;
        }
        match (self.is_announced, obstacle) {
            (false, None) => {
                (self.is_announced, self.next) = (true, now);
                journal::note(Kind::Discovery, format_args!("{}", Line::Announced(self, now)));
            }
            (true, Some(why)) => {
                self.queue(now, Form::Bye, true);
                self.is_announced = false;
                self.no_network = Some((now, true));
                if why != Obstacle::Off {
                    journal::note(Kind::Discovery, format_args!("{}", Line::NotAnnounced(why)));
                }
            }
            (false, Some(Obstacle::NoNetwork)) => {
                let (since, is_logged) = self.no_network.get_or_insert((now, false));
                if !*is_logged && now.since(*since) >= NO_NETWORK_TIMEOUT {
                    *is_logged = true;
                    let line = Line::NoNetwork(self.plan.bind);
                    journal::note(Kind::Discovery, format_args!("{line}"));
                }
            }
            (false, Some(_)) | (true, None) => {}
        }
        if self.is_announced && self.next <= now {
            self.next = now + INTERVAL;
            self.queue(now, Form::Notify, true);
            if self.is_beside_the_printer(now) {
                // One of the printer's announcements may have been lost on its way here, but not to the slicer.
                let _sooner = self.repeat_at.get_or_insert(now + REPEAT_INTERVAL);
            }
        }
    }

    /// Whether the printer was heard lately, so that slicers may hear it as well.
    fn is_beside_the_printer(&self, now: Instant) -> bool {
        self.heard_beside.is_some_and(|heard| now.since(heard) < BESIDE_FOR)
    }

    /// Why the printer is not to be announced now.
    fn obstacle(&self, now: Instant, status: &Status) -> Option<Obstacle> {
        if !self.plan.is_on() {
            return Some(Obstacle::Off);
        }
        if matches!(status.code(), Code::Refused { .. }) && !status.is_logged_in() {
            return Some(Obstacle::WrongCode);
        }
        let is_patient = now.since(self.began) >= VERSION_TIMEOUT;
        let is_here = match (status.is_reachable(), self.unreachable_since) {
            // One attempt that fails does not end the announcements.
            (Some(false), Some(since)) => self.is_announced && now.since(since) < GONE_TIMEOUT,
            (Some(false), None) => false,
            (Some(true), _) => self.is_announced || is_patient || !status.version().is_empty(),
            // No service has dialled it: it may be there.
            (None, _) => is_patient,
        };
        match (is_here, self.destinations().next()) {
            (false, _) => Some(Obstacle::Gone),
            (true, None) => Some(Obstacle::NoNetwork),
            (true, Some(_)) => None,
        }
    }

    /// Puts a datagram to each destination into the queue.
    fn queue(&mut self, now: Instant, form: Form, has_interface: bool) {
        let destinations: heapless::Vec<Ipv4Addr, { MAX_SEGMENTS + MAX_ADDRESSES }> =
            self.destinations().filter(|to| !self.is_cloud(now, *to)).collect();
        for to in destinations {
            let to = SocketAddrV4::new(to, PORT);
            let _full = self.output.push_back(Output { to, from: PORT, form, has_interface });
        }
    }

    /// Where the printer is announced: the networks that clients reach this program in, and the named addresses.
    fn destinations(&self) -> impl Iterator<Item = Ipv4Addr> {
        let bind = self.plan.bind;
        let is_served = move |segment: &&Segment| bind.is_none_or(|bind| segment.contains(bind));
        let segments =
            self.segments.iter().filter(move |segment| self.plan.broadcast && is_served(segment));
        let broadcasts = segments.map(Segment::broadcast);
        broadcasts.chain(self.plan.addresses.iter().copied()).take(MAX_SEGMENTS + MAX_ADDRESSES)
    }

    /// The next datagram to be sent.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Writes a datagram, for clients that reach this machine at `own`.
    ///
    /// # Errors
    ///
    /// The datagram is too long.
    pub fn write(
        &self,
        status: &Status,
        output: Output,
        own: Ipv4Addr,
        out: &mut Text,
    ) -> fmt::Result {
        let (name, model, version) = (status.name(), status.model_code(), status.version());
        let announcement = Announcement {
            serial: &self.serial,
            location: Some(own),
            server: "",
            model: &model,
            name: &name,
            signal: status.announced().and_then(|announced| announced.signal),
            connect: "lan",
            bind: "free",
            security: &self.security,
            interface: if output.has_interface { INTERFACE } else { "" },
            version: if version.is_empty() { NO_VERSION } else { &version },
            capabilities: &self.capabilities,
        };
        wire::write(output.form, &announcement, out)
    }

    /// Tells slicers that the printer is not available here any more: the program ends.
    pub fn leave(&mut self, now: Instant) {
        if core::mem::replace(&mut self.is_announced, false) {
            self.output.clear();
            self.queue(now, Form::Bye, true);
        }
    }

    /// Whether the printer is being announced.
    pub const fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// An address that may be the printer's, to be tried now: only while the printer is not reached at the known one.
    pub fn candidate(&mut self, now: Instant) -> Option<Ipv4Addr> {
        let is_lost = self.lost_since.is_some_and(|since| now.since(since) >= LOST_TIMEOUT);
        if is_lost { self.claims.candidate(now) } else { None }
    }

    /// What came of trying `address`.
    pub fn tried(&mut self, now: Instant, status: &Status, address: Ipv4Addr, tried: Tried) {
        match tried {
            Tried::Verified => {
                let line = Line::Followed { address };
                journal::note(Kind::Discovery, format_args!("{line}"));
                status.follow(address);
                self.lost_since = None;
            }
            Tried::Refused => {
                self.claims.reject(now, address, true);
                let line = Line::Impostor { address };
                rejections::note(
                    now,
                    Kind::DiscoveryConflict,
                    IpAddr::V4(address),
                    format_args!("{line}"),
                );
            }
            Tried::Silent => self.claims.reject(now, address, false),
        }
    }
}

/// Why the printer is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// By the settings, or because the network does not allow it.
    Off,
    /// The printer refuses the access code.
    WrongCode,
    /// The printer is unreachable.
    Gone,
    /// There is nothing to announce it to.
    NoNetwork,
}

/// Whether a machine can have this address.
const fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

/// Whether `address` is of a local network, so that a reply does not leave for the internet.
fn is_near(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // Shared addresses (RFC 6598), which VPNs use.
    let is_shared = first == 100 && (64..128).contains(&second);
    address.is_private() || address.is_link_local() || address.is_loopback() || is_shared
}

fn log_times(kind: Kind, line: &Line<'_>, times: u32) {
    match times {
        1 => journal::note(kind, format_args!("{line}")),
        _ => journal::note(kind, format_args!("{line} (seen {times} times)")),
    }
}

/// A log line of this service.
enum Line<'a> {
    Heard { location: Ipv4Addr, is_cloud: bool },
    Elsewhere { location: Ipv4Addr, from: Ipv4Addr },
    OtherProxy { location: Ipv4Addr, from: Ipv4Addr },
    Cloud { segment: Segment },
    Malformed { from: Ipv4Addr, fault: wire::Fault },
    Announced(&'a Hub, Instant),
    NotAnnounced(Obstacle),
    NoNetwork(Option<Ipv4Addr>),
    Followed { address: Ipv4Addr },
    Impostor { address: Ipv4Addr },
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssdp: ")?;
        match self {
            Self::Heard { location, is_cloud } => {
                let mode = if *is_cloud { "cloud" } else { "LAN" };
                write!(f, "printer announces itself at {location}, in {mode} mode")
            }
            Self::Elsewhere { location, from } => write!(
                f,
                "printer announced at {location} by {from}; used only if it does not answer at its known \
                 address and has its certificate there"
            ),
            Self::OtherProxy { location, from } => {
                Cause::OTHER_PROXY.with(format_args!("{location} ({from})")).fmt(f)
            }
            Self::Cloud { segment } => write!(
                f,
                "printer is in cloud mode; not announced on {segment}; switch on LAN Only Mode at the printer"
            ),
            Self::Malformed { from, fault } => write!(f, "{from}: datagram ignored: {fault}"),
            Self::Announced(hub, now) => {
                let (mut before, heard) = ("printer announced to", |to: &_| !hub.is_cloud(*now, *to));
                for to in hub.destinations().filter(heard) {
                    write!(f, "{before} {to}")?;
                    before = ",";
                }
                match before {
                    "," => Ok(()),
                    _ => f.write_str("printer announced once it is in LAN Only Mode"),
                }
            }
            Self::NotAnnounced(why) => {
                f.write_str("printer not announced any more: ")?;
                f.write_str(match why {
                    Obstacle::Off => "switched off",
                    Obstacle::WrongCode => "the printer refuses the access code",
                    Obstacle::Gone => "the printer is unreachable",
                    Obstacle::NoNetwork => "this machine has left its network",
                })
            }
            Self::NoNetwork(Some(bind)) => write!(
                f,
                "printer not announced: this machine is in no network with the address {bind}; correct BIND_ADDRESS"
            ),
            Self::NoNetwork(None) => f.write_str(
                "printer not announced: this machine is in no network with broadcasts; connect it, or name \
                 addresses with --announce",
            ),
            Self::Followed { address } => write!(
                f,
                "printer found at {address}, with its certificate; this address is used until it fails"
            ),
            Self::Impostor { address } => write!(
                f,
                "{address} is announced as the printer and does not have its certificate; address not used"
            ),
        }
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let (location, from) = (Ipv4Addr::new(192, 168, 100, 123), Ipv4Addr::new(192, 168, 100, 124));
    let mut hub = Hub::new(Instant::START, &heapless::String::new(), Plan::broadcast());
    let segment = Segment::new(location, 24);
    hub.set_segments(segment.into_iter().collect());
    let mut samples: alloc::vec::Vec<_> = [
        Line::Heard { location, is_cloud: true },
        Line::Elsewhere { location, from },
        Line::OtherProxy { location, from },
        Line::Malformed { from, fault: wire::Fault::TooLong },
        Line::Malformed { from, fault: wire::Fault::NotHttp },
        Line::Announced(&hub, Instant::START),
        Line::NoNetwork(None),
        Line::NoNetwork(Some(location)),
        Line::NotAnnounced(Obstacle::NoNetwork),
        Line::NotAnnounced(Obstacle::Gone),
        Line::NotAnnounced(Obstacle::WrongCode),
        Line::Followed { address: location },
        Line::Impostor { address: location },
    ]
    .map(|line| line.to_string())
    .into();
    samples.extend(segment.map(|segment| Line::Cloud { segment }.to_string()));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that moves from network to network does not fill the list of networks.
    #[test]
    fn cloud_mode_is_noted_in_each_new_network() {
        let now = Instant::START;
        let mut hub = Hub::new(now, &heapless::String::new(), Plan::broadcast());
        let heard = Announcement { connect: "cloud", ..Announcement::default() };
        for number in 0..2 * MAX_SEGMENTS as u8 {
            let own = Ipv4Addr::new(10, 0, number, 1);
            hub.set_segments(Segment::new(own, 24).into_iter().collect());
            hub.note_cloud(now, &heard, Ipv4Addr::new(10, 0, number, 9));
            assert!(hub.is_cloud(now, own), "network {number}");
        }
    }
}
