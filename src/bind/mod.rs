//! Detect: which printer this is, on port 3000 without TLS and on port 3002 with it.
//!
//! Slicers ask when a printer is added by its address, and at start for each printer that they have saved. No access
//! code is asked for: the protocol has none, and the printer tells every client the same. Here the proxy answers for
//! the printer ([`protocol`](crate::protocol#detect)).
//!
//! ```text
//!   client ── client ──► Status ◄── upstream ── printer (port 3000)
//!      ▲        │          ▲
//!      └─ reply ┘          └── mqtt (get_version), announcements, --name, the table of models
//! ```
//!
//! # Behaviour
//!
//! | a client | the proxy |
//! |---|---|
//! | asks for `detect` | answers with serial number, model code, name and version, as `free` and `lan`, and closes |
//! | asks for account binding (`login`) | answers that it failed, and closes; the printer is not asked |
//! | sends another command | does not answer, as the printer, and closes after five seconds |
//! | sends anything else, or TLS on port 3000 | closes |
//! | sends several requests | answers the first |
//!
//! The answer is always `free` and `lan`: a slicer accepts no other, and a printer that this proxy is connected to may be
//! `occupied` by it.
//!
//! # The printer
//!
//! While its name or its version is not known, and when it is reachable again, since it may have been renamed meanwhile,
//! the proxy asks the printer in the same way, [`SETTLED`] after it became reachable and at most once in
//! [`RETRY_INTERVAL`]. A P1 in LAN mode refuses to answer.

pub mod client;
pub mod upstream;
pub mod wire;

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::memory::slots::{
    Occupancy, Occupant, Slot as _, SlotGuard, Slots, Stopping, assert_fits,
};
use crate::notify::Demand;
use crate::printer::status::{MAX_CODE, MAX_NAME, MAX_VERSION, Status};
use crate::service::{self, Connection, Visitor};
use crate::session::{Handler, NoEvents};
use client::Client;
use upstream::Upstream;
use wire::{Answer, Command, Detected, MAX_FRAME, Reply, Request};

/// Connections served at once on each of the two ports.
pub const CLIENTS: usize = budget::DETECT_CLIENTS;

/// How long the printer has to be reachable before it is asked. It is busy just after its start.
pub const SETTLED: Duration = Duration::from_secs(10);

/// How long no service has to have dialled the printer before it is asked: none may be enabled that does.
pub const UNKNOWN: Duration = Duration::from_secs(30);

/// Time between two questions to the printer.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(3600);

/// What a client is told while the version is not known.
const NO_VERSION: &str = "00.00.00.00";

/// Bytes of the serial number, as in the settings.
const MAX_SERIAL: usize = 32;

/// What the service and one client's session share. No client is ever active: there is no login.
pub type Slot = Occupancy<Stopping>;

/// The service on one of the ports.
pub struct Service {
    name: &'static str,
    serial: heapless::String<MAX_SERIAL>,
    status: Rc<Status>,
    slots: Slots<Slot>,
    /// Whether the printer is to be asked.
    demand: Demand,
    /// Since when the printer has been reachable, or not been dialled.
    since: Cell<(Option<bool>, Instant)>,
    /// When the printer may be asked again.
    next: Cell<Instant>,
    /// Whether the printer was unreachable since it was last asked.
    is_back: Cell<bool>,
}

const _: () = assert!(
    size_of::<Service>() + crate::memory::pool::RC_COUNTS <= budget::DETECT_SERVICE,
    "the service is larger than its budget line"
);
const _: () = assert_fits::<Slot>(budget::DETECT_SLOT);
const _: () = assert!(MAX_FRAME <= budget::DETECT_INBOX, "an inbox holds a request");
const _: () = assert!(
    // An escaped byte takes six.
    512 + MAX_NAME * 6 <= budget::DETECT_OUTBOX,
    "an outbox holds an answer"
);

impl Service {
    /// A service without clients, for the printer with this serial number. `name` is its name in the log.
    pub fn new(name: &'static str, serial: &str, status: Rc<Status>) -> Rc<Self> {
        Rc::new(Self {
            name,
            // Cannot fail: settings have no longer one.
            serial: serial.try_into().unwrap_or_default(),
            status,
            slots: Slots::new(CLIENTS, |_| Rc::default()),
            demand: Demand::default(),
            since: Cell::new((None, Instant::START)),
            next: Cell::new(Instant::START),
            is_back: Cell::new(false),
        })
    }

    /// A session for a connection whose request is due at `until`, and its slot. `is_own`: the client runs on this
    /// machine. `None` if no slot is free.
    pub fn client(self: &Rc<Self>, until: Instant, is_own: bool) -> Option<(Client, ClientLink)> {
        let slot = self.slots.take()?;
        let client = Client::new(Rc::clone(&slot), Rc::clone(self), until, is_own);
        Some((client, NoEvents(slot)))
    }

    /// Writes the answer to `request` into `out`: its length, and how the session ends.
    fn answer(&self, request: &Request, out: &mut [u8]) -> (usize, client::Error) {
        let Self { serial, status, .. } = self;
        let sequence_id = &request.sequence_id;
        let (written, end) = match request.command {
            Command::Detect => {
                let (model, name, version) = (status.model_code(), status.name(), status.version());
                let version = if version.is_empty() { NO_VERSION } else { &version };
                let reply = Reply { sequence_id, id: serial, model: &model, name: &name, version };
                (reply.write(out), client::Error::Answered)
            }
            Command::Login => (wire::write_refusal(sequence_id, out), client::Error::Binding),
            Command::Other => (None, client::Error::Unknown),
        };
        // Cannot fail: see the assertion about the outbox.
        (written.unwrap_or_default(), end)
    }

    /// Completes with true when the printer is to be asked, with false when the proxy shuts down.
    pub async fn wanted(&self) -> bool {
        while !self.demand.is_leaving() {
            if self.demand.is_wanted() {
                return true;
            }
            self.demand.notified().await;
        }
        false
    }

    /// Completes when the proxy shuts down.
    pub async fn left(&self) {
        while !self.demand.is_leaving() {
            self.demand.notified().await;
        }
    }

    /// The printer was asked, with or without an answer.
    pub fn asked(&self, now: Instant) {
        self.next.set(now + RETRY_INTERVAL);
        self.is_back.set(false);
        self.demand.want(false);
    }

    /// Takes what the printer tells.
    fn learn(&self, told: &Detected<'_>) -> upstream::Error {
        if told.id.meant::<MAX_SERIAL>().is_none_or(|id| id != self.serial) {
            return upstream::Error::OtherPrinter;
        }
        let Self { status, name: service, .. } = self;
        // What is too long is left out.
        let (code, version) = (told.model.meant::<MAX_CODE>(), told.version.meant::<MAX_VERSION>());
        status.set_name(&told.name.meant::<MAX_NAME>().unwrap_or_default());
        status.set_model_code(&code.unwrap_or_default());
        status.set_version(&version.unwrap_or_default());
        let learnt = Learnt {
            service,
            name: &status.name(),
            model: &status.model_code(),
            version: &status.version(),
            is_bound: told.bind.meant::<8>().is_some_and(|bind| bind == "occupied"),
        };
        journal::note(Kind::Detected, format_args!("{learnt}"));
        if told.connect.meant::<8>().is_some_and(|connect| connect == "cloud") {
            journal::note(Kind::Detected, format_args!("{}", InCloudMode { service }));
        }
        upstream::Error::Learnt
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handle_timeout(&self, now: Instant) {
        let Self { status, since, next, is_back, .. } = self;
        let is_reachable = status.is_reachable();
        if since.get().0 != is_reachable {
            if since.get().0 == Some(false) {
                is_back.set(true);
            }
            since.set((is_reachable, now));
        }
        let there_for = now.since(since.get().1);
        let is_there = match is_reachable {
            Some(true) => there_for >= SETTLED,
            Some(false) => false,
            None => there_for >= UNKNOWN,
        };
        let is_needed = status.is_name_guessed()
            || status.version().is_empty()
            || (is_back.get() && !status.is_name_given());
        self.demand.want(is_needed && is_there && next.get() <= now);
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, _, occupant) in self.slots.all_occupants() {
            visitor.connection(&Connection { index, occupant, id: "", lost: 0 });
        }
    }

    fn connections(&self) -> usize {
        self.slots.connections()
    }

    fn disconnect_all(&self) {
        for slot in self.slots.iter() {
            slot.occupancy().dismiss(Stopping);
        }
    }

    fn shut_down(&self) {
        self.demand.leave();
    }
}

/// What the printer told, displayed as in the log.
struct Learnt<'a> {
    service: &'static str,
    name: &'a str,
    model: &'a str,
    version: &'a str,
    is_bound: bool,
}

impl fmt::Display for Learnt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, name, model, version, is_bound } = self;
        let bound = if *is_bound { ", bound to an account" } else { "" };
        write!(f, "{service}: the printer is {name:?}, model {model}, firmware {version}{bound}")
    }
}

/// The printer serves its maker's cloud, displayed as in the log.
struct InCloudMode {
    service: &'static str,
}

impl fmt::Display for InCloudMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service } = self;
        write!(
            f,
            "{service}: the printer is in cloud mode; slicers may not print through the proxy: switch on LAN Only \
             Mode at the printer"
        )
    }
}

/// A client's slot in use. Dropping it frees the slot.
pub type ClientLink = NoEvents<SlotGuard<Slot>>;

impl ClientLink {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.0.occupancy().occupant()
    }
}

/// The handler of the printer's answer.
impl Handler<Upstream> for Rc<Service> {
    fn handle_event(
        &self,
        _now: Instant,
        _upstream: &mut Upstream,
        event: Answer<'_>,
    ) -> Result<(), upstream::Error> {
        Err(match event {
            Answer::Detected(told) => self.learn(&told),
            Answer::Refused => upstream::Error::Refused,
            Answer::Other => upstream::Error::Unexpected,
        })
    }

    async fn woken(&self) {
        core::future::pending::<()>().await;
    }
}

/// Each message of the service once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    use client::Error as Client;
    use upstream::Error as Printer;
    use wire::Fault;

    let faults =
        [Fault::Head, Fault::Tls, Fault::Length(4), Fault::Tail, Fault::Json, Fault::Nested];
    let clients = [
        Client::Answered,
        Client::Binding,
        Client::Unknown,
        Client::Silent,
        Client::UnexpectedData,
        Client::Stopping,
    ];
    let printers = [
        Printer::Learnt,
        Printer::Refused,
        Printer::OtherPrinter,
        Printer::Unexpected,
        Printer::Malformed(Fault::Head),
        Printer::Silent,
        Printer::Leaving,
    ];
    let service = "detect";
    let learnt = |is_bound| Learnt {
        service,
        name: "3DP-01P-417",
        model: "C12",
        version: "01.09.01.00",
        is_bound,
    };
    let mut all = alloc::vec![
        learnt(false).to_string(),
        learnt(true).to_string(),
        InCloudMode { service }.to_string()
    ];
    all.extend(faults.map(|fault| Client::Malformed(fault).to_string()));
    all.extend(clients.map(|error| error.to_string()));
    all.extend(printers.map(|error| error.to_string()));
    all
}
