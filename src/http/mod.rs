//! A status page, camera pictures, health and metrics over HTTP/1.1, on port 8080 without TLS.
//!
//! The service is off unless `--services` names `http`. It shows, and changes nothing: only GET and HEAD are answered.
//!
//! ```text
//!   client ── client ──► answer ──► page ◄── document ◄── Status, journal, heap, Service::describe of each service
//!      ▲        │                              (JSON, text, metrics)
//!      └─ head, file, document, pictures ◄─────┘
//! ```
//!
//! `httparse` reads the heads, and the session that answers is our own, as at every other service. With the same twelve routes
//! beside one another (musl, `opt-level = "z"`, LTO, 2 KiB of input a connection), `httparse` added 4 KiB to a program of 525 KiB, and
//! `picoserve` 0.20 84 KiB; a connection's task has 1.2 KiB with the one, 5.0 KiB with the other. `picoserve` also reads and
//! writes the socket itself, which no [`Session`](crate::session::Session) does; may write a content several
//! times, which has to be the same each time (its README); sends no reason phrases; and needs Rust 1.93.
//!
//! # Paths
//!
//! | path | needs | content |
//! |---|---|---|
//! | `/livez` | nothing | `alive`: the proxy's loop turns |
//! | `/readyz` | nothing | 200 while MQTT is logged in at the printer, else 503 and the cause, without addresses and serial numbers |
//! | `/` and the files of the page | nothing | no data; the page is compressed (deflate) whatever the client accepts, so curl needs `--compressed` |
//! | `/ca.pem`, `/trust.sh`, `/trust.ps1` | nothing | the authority with what vouches for a relayed printer's certificate, and the scripts that have a slicer trust them |
//! | `/status` | a code | all that the page shows, as below |
//! | `/status.txt` | a code | the same for people: `pandaproxy status` prints it |
//! | `/metrics` | a code | for Prometheus |
//! | `/snapshot.jpg` | a code | a picture of at most five seconds ago, else the next one; wakes the camera |
//! | `/stream.mjpg` | a code | JPEGs one after the other, the newest first where a client is slow |
//! | `/stream.mp4` | a code | X1, H2, P2: H.264 in fragmented MP4, from a key frame on |
//! | `/snapshot`, `/stream`, `/?action=…`, `/webcam/?action=…` | a code | the same under the names of µStreamer and mjpg-streamer |
//!
//! What a code is: [`access`].
//!
//! # The JSON of `/status`
//!
//! Names stay as they are; there may be more of them one day. `boards/STATUS.md` has them for users. Times are in seconds or in the form of RFC 3339, in UTC;
//! what is not known is `null`. There is no code in it.
//!
//! | name | |
//! |---|---|
//! | `version`, `board` | of this build |
//! | `uptime_s`, `time` | since the start; now |
//! | `ready`, `not_ready` | as `/readyz`; why not, as text and in full |
//! | `printer` | `serial`, `model`, `model_code`, `name`, `address`, `reachable`, `code` (`accepted`, `refused`, `unknown`), `certificate` (`accepted`, `rejected`, `unknown`), `firmware`, `developer_mode`, `live_view`, `wifi_signal_dbm`, `camera` (`chamber`, `rtsp`, `none`, `unknown`), `cloud`, `last_report_age_s` |
//! | `proxy` | `address` as this client sees it, `hostname`, `ca_sha256`, and of a memory card `machine_port`, where it takes updates, and `notice`, what is wrong with it |
//! | `services` | for each: `name`, `port`, `transport` (`tls`, `plain`, `udp`), `open`, `clients`, `limit`, `upstream` (`connected`, `idle`, `connecting`, `failing`), `reason`, and `connections`: `number`, `address`, `id`, `since_s`, `lost` |
//! | `transfers` | `service`, `client` (its number), `kind` (`upload`, `download`, `listing`, `command`: one without data, which waits), `name` (of a command its line), `bytes`, `size` (in bytes, as the client or the printer has told it), `state` (`moving`, `waiting`), `since_s`, and of one that waits `waits_for`, in words, and `position` in the queue (1 is the next one; `null` while it waits for its client) |
//! | `memory` | `heap_bytes`, `heap_peak_bytes`, `heap_limit_bytes` |
//! | `events` | the last ones, newest first: `time`, `text` |
//!
//! # Pages of other sites
//!
//! A browser sends a request of any page anywhere, and a name that another site's owner has chosen may resolve to this
//! machine (DNS rebinding). So a request is answered only if its `Host` is an address, `localhost`, one of this machine's
//! names or one of `--advertise-name`, and its `Origin`, if there is one, is such a host as well.

pub mod access;
pub mod agent;
pub mod answer;
pub mod client;
pub mod document;
pub mod media;
pub mod page;
pub mod slot;
pub mod wire;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;

use crate::auth::{Guess, LOCKOUT_TIMEOUT, Limiter, Lockout, Refusal, WRONG_CODES};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::MAX_NOTICE;
use crate::counts;
use crate::journal::{self, Kind};
use crate::memory::slots::{Occupant, Slot as _, SlotGuard, Slots};
use crate::memory::{KIB, budget};
use crate::peer::Peer;
use crate::printer::status::{Login, Status};
use crate::printer::upstream::Upstream;
use crate::service::{self, Connection, Visitor};
use crate::session::Handler;
use access::{Access, Shown};
use answer::File;
use client::{Client, Event};
use slot::{Dismissal, Slot};

/// Connections served at once: clients that have shown a code, and those that have not.
pub const CLIENTS: usize = budget::BROWSERS;

/// The page, which has no data in it: `page.html`, compressed by `boards/build.rs`.
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.html.deflate"));

const _: () = assert!(PAGE.len() <= 16 * KIB, "the page is small");

/// Files that are served without a code.
pub const FILES: &[File] = &[
    File { path: "/", content_type: "text/html; charset=utf-8", bytes: PAGE, is_deflated: true },
    File {
        path: "/trust.sh",
        content_type: "text/x-shellscript",
        bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/boards/slicer/trust.sh")),
        is_deflated: false,
    },
    File {
        path: "/trust.ps1",
        content_type: "text/plain; charset=utf-8",
        bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/boards/slicer/trust.ps1")),
        is_deflated: false,
    },
];

const _: () = assert!(wire::MAX_HEAD <= budget::HTTP_INBOX, "an inbox holds a request's head");
const _: () = assert!(counts::SIZE <= budget::COUNTS, "the counts are larger than their line");
const _: () = assert!(
    // A head with the longest headers, and a line of text.
    1024 + 512 <= budget::HTTP_OUTBOX,
    "an outbox holds a head and a short content"
);
const _: () = assert!(
    // With each character of the notice escaped, and what is beside it in its item.
    1024 + 2 * MAX_NOTICE <= budget::HTTP_OUTBOX,
    "an outbox holds a memory card's notice"
);

/// A service as it is shown.
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// Its port; 0 if it has none.
    pub port: u16,
    /// `tls`, `plain` or `udp`.
    pub transport: &'static str,
    /// Clients at most.
    pub limit: usize,
    /// The service itself.
    pub service: Rc<dyn service::Service>,
    /// How its connection to the printer fares, if it has one.
    pub upstream: Option<Rc<Upstream>>,
}

impl Listed {
    /// Clients that it shows.
    fn clients(&self) -> usize {
        document::clients_of(self)
    }

    /// Whether its port is open.
    fn is_open(&self, status: &Status) -> bool {
        match self.name {
            "rtsp" => status.has_rtsps() != Some(false),
            "chamber" => status.has_chamber() != Some(false),
            _ => true,
        }
    }
}

/// What the service is made of.
pub struct Service {
    slots: Slots<Slot>,
    access: Access,
    /// This machine's names, the host name first, and those of `--advertise-name`.
    hosts: Vec<String>,
    serial: heapless::String<32>,
    notice: String,
    machine_port: Option<NonZeroU16>,
    status: Rc<Status>,
    ca_pem: Arc<str>,
    ca_sha256: [u8; 32],
    heap_limit: usize,
    /// Wrong codes of all services, among them those that [`access`] counts by themselves.
    limiter: Rc<RefCell<Limiter>>,
    /// The services, this one among them. Empty before all have been started, and again after the end.
    listed: RefCell<Vec<Listed>>,
}

/// What a [`Service`] shows that does not change.
pub struct Facts {
    /// What its clients have to show.
    pub access: Access,
    /// This machine's names, the host name first.
    pub hosts: Vec<String>,
    /// The printer's serial number.
    pub serial: heapless::String<32>,
    /// What is wrong with the memory card that the proxy runs from; empty if nothing. At most [`MAX_NOTICE`] bytes.
    pub notice: String,
    /// TCP port of a page about this machine, to which the status page links.
    pub machine_port: Option<NonZeroU16>,
    /// What `/ca.pem` has: the authority's certificate, and behind it what vouches for a relayed printer's.
    pub ca_pem: Arc<str>,
    /// SHA-256 of the authority's certificate.
    pub ca_sha256: [u8; 32],
    /// Bytes of heap at most.
    pub heap_limit: usize,
    /// The limiter of all services.
    pub limiter: Rc<RefCell<Limiter>>,
}

impl Service {
    /// A service without clients.
    pub fn new(facts: Facts, status: Rc<Status>) -> Rc<Self> {
        let Facts {
            access,
            hosts,
            serial,
            notice,
            machine_port,
            ca_pem,
            ca_sha256,
            heap_limit,
            limiter,
        } = facts;
        Rc::new(Self {
            slots: Slots::new(CLIENTS, |_| Slot::new()),
            access,
            hosts,
            serial,
            notice,
            machine_port,
            status,
            ca_pem,
            ca_sha256,
            heap_limit,
            limiter,
            listed: RefCell::default(),
        })
    }

    /// Shows these services from now on.
    pub fn list(&self, listed: Vec<Listed>) {
        self.listed.replace(listed);
    }

    /// A session for a connection whose first request is due at `until`, and its slot. `admitted` is called once the client
    /// has shown the access code, `released` once it has shown something else that is accepted, `guessed` with each wrong
    /// code. `None` if no slot is free.
    pub fn client<'a>(
        self: &Rc<Self>,
        until: Instant,
        reached: Option<Ipv4Addr>,
        admitted: &'a dyn Fn(),
        released: &'a dyn Fn(),
        guessed: &'a dyn Fn(Guess),
    ) -> Option<(Client, ClientLink<'a>)> {
        let slot = self.slots.take()?;
        let client = Client::new(Rc::clone(&slot), Rc::clone(self), until, reached);
        Some((client, ClientLink { service: Rc::clone(self), slot, admitted, released, guessed }))
    }

    /// What `/ca.pem` has. openssl may write a certificate as text before it, which is of no use to clients.
    fn authority(&self) -> &str {
        let begin = self.ca_pem.find("-----BEGIN ").unwrap_or_default();
        self.ca_pem.get(begin..).unwrap_or_default()
    }

    /// Whether MQTT is logged in at the printer.
    pub fn is_ready(&self) -> bool {
        self.status.is_logged_in_to(Login::Mqtt)
    }

    /// The refusal of what is counted at this place, if the client's origin is locked out there.
    fn refusal(&self, now: Instant, place: &'static str, peer: Peer) -> Option<Refusal> {
        self.limiter.borrow_mut().refusal(now, place, peer.origin())
    }

    /// Counts a wrong code at this place.
    fn count(&self, now: Instant, place: &'static str, peer: Peer, guess: Option<Guess>) {
        let Some(guess) = guess else { return };
        let counted = self.limiter.borrow_mut().count_wrong_code(now, place, peer.origin(), guess);
        match counted {
            Lockout::Counted(_) => {}
            Lockout::JustLocked => {
                journal::note(Kind::LockedOut, format_args!("{}", LockedOut { peer, place }));
            }
        }
    }

    /// Disconnects the client that has asked for nothing for the longest time. Whether there is one. Browsers keep their
    /// connections, and connect again without a word.
    fn dismiss_idle(&self) -> bool {
        let active = self.slots.iter().filter(|slot| slot.occupancy().is_active());
        let idle = active.filter_map(|slot| Some((slot.idle_since.get()?, slot)));
        let longest = idle.min_by_key(|(since, _)| *since);
        longest.inspect(|(_, slot)| slot.occupancy().dismiss(Dismissal::Idle)).is_some()
    }

    /// Whether a request may name this host.
    fn is_own_host(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return true };
        let name = wire::without_port(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_address = match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
            None => name.parse::<IpAddr>().is_ok(),
        };
        is_address
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| name.eq_ignore_ascii_case(own))
    }

    /// Whether a request may come from a page of this origin.
    fn is_own_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| self.is_own_host(Some(host)))
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "http"
    }

    fn connections(&self) -> usize {
        self.slots.connections()
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, slot, occupant) in self.slots.occupants() {
            slot.occupancy().label().with(|id| {
                visitor.connection(&Connection { index, occupant, id, lost: 0 });
            });
        }
    }

    fn disconnect_all(&self) {
        for slot in self.slots.iter() {
            slot.occupancy().dismiss(Dismissal::Stopping);
        }
    }

    fn shut_down(&self) {
        // One of them is this service.
        self.listed.take();
    }
}

/// An address was locked out at a place of its own, displayed as in the log.
struct LockedOut {
    peer: Peer,
    place: &'static str,
}

impl fmt::Display for LockedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self { peer, place }, seconds) = (self, LOCKOUT_TIMEOUT.as_secs());
        let what = match *place {
            access::URL => "tokens in URLs",
            _ => "requests from other sites",
        };
        write!(f, "{peer}: {what} refused for {seconds} s after {WRONG_CODES} wrong ones")
    }
}

/// A client's slot. Dropping it frees the slot.
pub struct ClientLink<'a> {
    service: Rc<Service>,
    slot: SlotGuard<Slot>,
    admitted: &'a dyn Fn(),
    released: &'a dyn Fn(),
    guessed: &'a dyn Fn(Guess),
}

impl ClientLink<'_> {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.slot.occupancy().occupant()
    }

    /// The slot.
    pub fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// Completes when the proxy shuts down.
    pub async fn stopped(&self) {
        while !matches!(self.slot.state(), slot::SlotState::Dismissed(_)) {
            self.slot.notified().await;
        }
    }
}

impl Handler<Client> for ClientLink<'_> {
    fn handle_event(
        &self,
        _now: Instant,
        client: &mut Client,
        event: Event,
    ) -> Result<(), client::Error> {
        let shown = match event {
            Event::Shown(shown) => shown,
            Event::Guessed(guess) => {
                (self.guessed)(guess);
                return Ok(());
            }
        };
        if self.service.slots.active() >= BOARD.clients.http && !self.service.dismiss_idle() {
            client.refuse_full();
            return Ok(());
        }
        self.slot.occupancy().activate();
        match shown {
            Shown::Code => (self.admitted)(),
            Shown::View => (self.released)(),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.slot.notified().await;
    }
}

/// Each message of this service once.
#[cfg(test)]
pub(crate) fn samples() -> Vec<String> {
    use alloc::string::ToString;
    use client::Error;
    use wire::Fault;

    let faults = [
        Fault::Tls,
        Fault::Http2,
        Fault::Version,
        Fault::Malformed,
        Fault::HeadTooLong,
        Fault::TargetTooLong,
        Fault::Method,
        Fault::UnknownMethod,
        Fault::Body,
    ];
    let others = [
        Error::Answered,
        Error::Idle,
        Error::Silent,
        Error::WrongCode,
        Error::WrongToken,
        Error::Elsewhere,
        Error::ForeignHost,
        Error::ForeignOrigin,
        Error::Full,
        Error::Stopping,
        Error::MediaEnded(media::Error::Sent),
        Error::MediaEnded(media::Error::UnexpectedData),
    ];
    let refusals =
        media::REFUSALS.map(|why| Error::MediaEnded(media::Error::Refused(why)).to_string());
    let faults = faults.map(|fault| Error::Fault(fault).to_string());
    let others = others.map(|error| error.to_string());
    let peer = Peer { service: "http", ..Peer::unknown() };
    let lockouts = [access::URL, access::ELSEWHERE];
    let lockouts = lockouts.map(|place| LockedOut { peer, place }.to_string());
    let faults = faults.into_iter().chain(lockouts);
    faults.chain(others).chain(refusals).collect()
}

#[cfg(test)]
mod tests;
