//! MQTT: the printer's state and its commands, over TLS on port 8883.
//!
//! A Bambu Lab printer's broker serves one to four connections, and further ones starve each other. Here
//! all clients, up to `BOARD.clients.mqtt`, share one connection to the printer.
//!
//! ```text
//!   slicer ──┐                      ┌───────────┐
//!   phone ───┼── client ── slot ── hub ── queue ── upstream ── printer
//!   home ────┘     ▲        │       │
//!                  └─ reports, acks ┘
//! ```
//!
//! A request is moved: from the client's inbox into a frame, through the queue, out to the printer. A report
//! is stored once, in a frame, and each client's ring holds references to it. The connection to the printer
//! never waits for a client.
//!
//! # Behaviour
//!
//! | a client | the proxy |
//! |---|---|
//! | subscribes to `device/<serial>/report` (or `+`, `#`) | sends the printer's full state at once, merged from its reports, then every report, byte for byte |
//! | subscribes to `device/<serial>/request` (X1, P2S, X2D, H2) | sends each request of another client once it was forwarded, byte for byte, with QoS 0; a client that reads too slowly loses requests, never answers for them |
//! | subscribes to `device/<serial>/request` (A1, P1) | closes the connection, as the printer does; a wider filter that covers the reports as well gets the reports alone |
//! | asks for `pushall` | answers with the cached state; the printer is asked for clients at most once in five minutes (P1, A1) or three seconds (others); within five seconds while no current state is known, and again by the proxy itself until a state comes |
//! | asks for `get_version` | answers from the cache under the client's own `sequence_id`; the printer is asked again at most once a minute, and within seconds while its answer is incomplete |
//! | sends `pushing.stop` | acknowledges it and does not forward it: it would end the reports of all clients |
//! | publishes anything else to `device/<serial>/request` | forwards it byte for byte with QoS 1, the requests of one client in order, and those of several in turn; PUBACK (or PUBREC) is sent when the printer's connection has accepted it |
//! | publishes while the printer is unreachable, or the printer's connection is lost with a request under way | closes the client's connection, so that the client knows that the command may not have arrived; nothing is queued for later |
//! | connects while the printer is unreachable | holds CONNACK for five seconds, then closes the connection without one; never answers *not authorised* |
//! | reads too slowly | drops reports of the state, and sends the full state when the client reads again; answers are not dropped: when they no longer fit, the client is disconnected; other clients do not wait |
//! | is idle without PINGREQ | keeps the connection; TCP keepalive finds dead clients within two minutes |
//! | uses the client identifier of another client | serves both, as a printer does, until no slot is free; then the older connection is closed |
//! | speaks MQTT 5 | answers *unsupported protocol version*, so that the client can fall back to 3.1.1 |

pub mod address;
pub mod client;
pub mod disconnect;
pub mod hub;
pub mod json;
mod log;
pub mod queue;
pub mod report;
pub mod request;
pub mod slot;
pub mod state;
pub mod topic;
pub mod upstream;
pub mod version;
pub mod wire;

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::Write;
use core::net::Ipv4Addr;

use crate::auth::AccessCode;
use crate::board::{BOARD, Mqtt};
use crate::clock::Instant;
use crate::memory::budget::{self, SLOTS};
use crate::memory::slots::{Occupant, Slot as _, SlotGuard, Slots};
use crate::peer::Peer;
use crate::printer::model::Model;
use crate::printer::status::{Login, Status};
use crate::service::{self, Bound, Connection, Visitor};
use crate::session::Handler;
use client::Client;
use hub::Hub;
use queue::RequestQueue;
use slot::Slot;
use topic::Leaf;
use upstream::Upstream;
use version::firmware;

/// Bytes in a serial number.
pub const SERIAL: usize = 32;

/// Bytes in a topic of the printer's own: `device/<serial>/request`.
pub const TOPIC: usize = 7 + SERIAL + 8;

/// Bytes of the printer's session's inbox: the largest report, and the head of its packet.
pub const REPORT_INBOX: usize = BOARD.mqtt.large.size + TOPIC + 16;
const _: () = assert!(REPORT_INBOX <= budget::REPORT_INBOX, "the printer's inbox is too large");

/// The names of this printer's topics, and our client identifier.
#[derive(Debug)]
pub struct Topics {
    /// The printer's serial number.
    pub serial: heapless::String<SERIAL>,
    /// `device/<serial>/report`.
    pub report: heapless::String<TOPIC>,
    /// `device/<serial>/request`.
    pub request: heapless::String<TOPIC>,
    /// Our client identifier, different from that of any other client of the printer.
    pub client_id: heapless::String<{ TOPIC + 8 }>,
    /// The port at which this proxy serves the RTSPS camera, for the camera's URL in reports.
    pub rtsps_port: u16,
    /// Whether a client that subscribes to the request topic gets the requests of others. If not, its connection
    /// is closed. Either is what the printer does; an unknown model counts as one of the newer ones.
    pub shows_requests: bool,
    /// Whether topics of other serial numbers are served as well: a program may have stored the number of an earlier
    /// printer at this address, and does not notice.
    pub serves_other_serials: bool,
}

impl Topics {
    /// The names for a serial number of at most [`SERIAL`] bytes; `instance` distinguishes this program from
    /// another proxy of the same printer.
    pub fn new(serial: &str, instance: u16) -> Self {
        let mut topics = Self {
            serial: heapless::String::new(),
            report: heapless::String::new(),
            request: heapless::String::new(),
            client_id: heapless::String::new(),
            rtsps_port: address::RTSPS,
            shows_requests: Model::of_serial(serial).is_none_or(|model| model.shows_requests),
            serves_other_serials: true,
        };
        // All of them fit: their capacities are computed from `SERIAL`.
        let _fits = topics.serial.push_str(serial);
        let _fits = write!(topics.report, "device/{serial}/report");
        let _fits = write!(topics.request, "device/{serial}/request");
        let _fits = write!(topics.client_id, "pandaproxy-{serial}-{instance:04x}");
        topics
    }

    /// The same names where this proxy serves the RTSPS camera on `port`.
    #[must_use]
    pub fn with_rtsps_port(self, port: u16) -> Self {
        Self { rtsps_port: port, ..self }
    }

    /// The same names, with topics of other serial numbers refused: where several proxies share a machine, a client with
    /// another printer's serial number has the wrong address, and must not control this printer.
    #[must_use]
    pub fn of_own_serial_only(self) -> Self {
        Self { serves_other_serials: false, ..self }
    }

    /// The kind of a topic or filter that means this printer: of its own serial number, or of another that is
    /// served.
    fn leaf_of(&self, topic: &str) -> Option<Leaf> {
        if self.is_of_other(topic) { None } else { topic::device_of(topic).map(|(_, leaf)| leaf) }
    }

    /// Whether a topic or filter is of another serial number, which is not served.
    fn is_of_other(&self, topic: &str) -> bool {
        !self.serves_other_serials
            && topic::device_of(topic).is_some_and(|(serial, _)| serial != self.serial)
    }
}

/// The service: what its clients and its connection to the printer share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Slots<Slot>,
    queue: Rc<RequestQueue>,
    topics: Rc<Topics>,
    code: Rc<AccessCode>,
    status: Rc<Status>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Topics>() + size_of::<AccessCode>() <= budget::HUB,
    "the hub is larger than its budget"
);

impl Service {
    /// A service without clients, whose printer is unreachable.
    pub fn new(topics: Topics, code: AccessCode, status: Rc<Status>, now: Instant) -> Rc<Self> {
        let topics = Rc::new(topics);
        let slots = Slots::new(SLOTS, |_| Slot::new());
        let queue = Rc::new(RequestQueue::new(slots.clone()));
        let hub = Hub::new(Rc::clone(&topics), slots.clone(), Rc::clone(&queue), now);
        let (hub, code) = (RefCell::new(hub), Rc::new(code));
        Rc::new(Self { hub, slots, queue, topics, code, status })
    }

    /// A session for `peer`, and the guard of its slot. Reports contain `advertised` instead of the
    /// printer's address, if it is given. `admitted` is called once the client has logged in.
    /// `None` if all slots are in use.
    pub fn client<F: Fn()>(
        self: &Rc<Self>,
        now: Instant,
        until: Instant,
        peer: Peer,
        advertised: Option<Ipv4Addr>,
        admitted: F,
    ) -> Option<(Client, ClientLink<F>)> {
        let slot = self.slots.take()?;
        slot.set_client(now, peer);
        let client = Client::new(
            Rc::clone(&slot),
            Rc::clone(&self.queue),
            Rc::clone(&self.code),
            Rc::clone(&self.topics),
            advertised,
            until,
        );
        Some((client, ClientLink { service: Rc::clone(self), slot, admitted }))
    }

    /// A session with the printer over a connection that was just made.
    pub fn upstream(&self, now: Instant) -> Upstream {
        let (queue, topics) = (Rc::clone(&self.queue), Rc::clone(&self.topics));
        Upstream::new(queue, topics, Rc::clone(&self.code), now)
    }

    /// The connection to the printer is lost, or could not be made.
    pub fn lost(&self, now: Instant) {
        self.hub.borrow_mut().lost(now);
    }

    /// Whether the connection to the printer is to end.
    pub fn is_leaving(&self) -> bool {
        self.queue.is_leaving()
    }

    /// Completes once the connection to the printer is to end.
    pub async fn left(&self) {
        while !self.queue.is_leaving() {
            self.queue.notified().await;
        }
    }

    /// Clients that have logged in.
    pub fn clients(&self) -> usize {
        self.hub.borrow().clients()
    }

    /// Whether the printer accepts requests.
    pub fn is_live(&self) -> bool {
        self.queue.is_live()
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    fn connections(&self) -> usize {
        self.slots.connections()
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, slot, occupant) in self.slots.occupants() {
            let lost = slot.dropped_reports().saturating_add(slot.dropped_requests());
            slot.occupancy().label().with(|id| {
                visitor.connection(&Connection { index, occupant, id, lost });
            });
        }
    }

    fn bounds(&self, show: &mut dyn FnMut(Bound)) {
        let (small, large) = self.hub.borrow().frames();
        let Mqtt { small: smalls, large: larges, requests, .. } = BOARD.mqtt;
        show(Bound { what: "small frames", used: small, limit: smalls.count });
        show(Bound { what: "large frames", used: large, limit: larges.count });
        show(Bound { what: "requests", used: self.queue.waiting(), limit: requests });
    }

    fn disconnect_all(&self) {
        self.hub.borrow_mut().dismiss_all();
    }

    fn shut_down(&self) {
        self.queue.leave();
    }
}

/// A client's slot at the hub. Releases the slot when dropped.
pub struct ClientLink<F: Fn()> {
    service: Rc<Service>,
    slot: SlotGuard<Slot>,
    admitted: F,
}

impl<F: Fn()> ClientLink<F> {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.slot.occupancy().occupant()
    }
}

impl<F: Fn()> Handler<Client> for ClientLink<F> {
    fn handle_event(
        &self,
        now: Instant,
        _client: &mut Client,
        event: client::Event<'_>,
    ) -> Result<(), client::Error> {
        let mut hub = self.service.hub.borrow_mut();
        match event {
            client::Event::Connected { id } => {
                hub.join(&self.slot, id);
                if self.slot.is_taken() {
                    (self.admitted)();
                }
                Ok(())
            }
            client::Event::Subscribed => {
                hub.subscribed(now, &self.slot);
                Ok(())
            }
            client::Event::Published { topic, payload, ack, duplicate } => {
                hub.request(now, &self.slot, topic, payload, ack, duplicate)
            }
        }
    }

    async fn woken(&self) {
        self.slot.notified().await;
    }
}

/// The handler of the printer's events, which also keeps the printer's status.
impl Handler<Upstream> for Rc<Service> {
    /// Several reports may come in one read, and the ring of a client that reads at once must not fill up
    /// meanwhile.
    fn lets_others_run(&self) -> bool {
        true
    }

    fn handle_event(
        &self,
        now: Instant,
        _upstream: &mut Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        let mut hub = self.hub.borrow_mut();
        match event {
            upstream::Event::Live => {
                self.status.log_in(Login::Mqtt, now);
                // A printer that has come back may have another camera, or its camera switched on.
                self.status.camera().look_again();
                hub.live(now);
            }
            upstream::Event::Report { payload } => {
                self.status.note_report(now);
                if let Some(version) = firmware(payload) {
                    self.status.set_version(version);
                }
                hub.report(now, payload);
            }
            upstream::Event::Oversized { bytes, content } => {
                self.status.note_report(now);
                hub.oversized(now, bytes, content);
            }
        }
        self.status.set_live_view_off(hub.says_live_view_off());
        self.status.set_mode_and_signal(hub.mode_and_signal());
        Ok(())
    }

    async fn woken(&self) {
        self.queue.notified().await;
    }
}

#[cfg(test)]
pub(crate) use log::samples;
