//! MQTT: the printer's state and its orders, TLS on port 8883.
//!
//! A Bambu Lab printer's broker takes one to four connections and then starves them. Here any number
//! of clients that the board affords share one.
//!
//! ```text
//!   slicer ──┐                      ┌──────────┐
//!   phone ───┼── client ── slot ── hub ── queue ── upstream ── printer
//!   home ────┘     ▲        │       │
//!                  └─ reports, acks ┘
//! ```
//!
//! A request goes up by value: from the client's inbox into a frame, through the queue's ring, out to
//! the printer. A report is stored once, in a frame, and each client's ring holds references to it.
//! Nobody upstream ever waits for a client.

pub mod address;
pub mod client;
pub mod disconnect;
pub mod hub;
pub mod json;
pub mod queue;
pub mod report;
pub mod request;
pub mod slot;
pub mod state;
pub mod topic;
pub mod upstream;
pub mod wire;

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt::Write;
use core::net::Ipv4Addr;

use crate::auth::AccessCode;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget::{self, SLOTS};
use crate::peer::Peer;
use crate::session::Handler;
use client::Client;
use hub::Hub;
use queue::RequestQueue;
use slot::Slot;
use upstream::Upstream;

/// Bytes in a serial number.
pub const SERIAL: usize = 32;

/// Bytes in a topic of the printer's own: `device/<serial>/request`.
pub const TOPIC: usize = 7 + SERIAL + 8;

/// Bytes of the printer's that may wait to be understood: its largest report, and the report's head.
pub const REPORT_INBOX: usize = BOARD.mqtt.large.size + TOPIC + 16;
const _: () = assert!(REPORT_INBOX <= budget::REPORT_INBOX, "the printer's inbox is too large");

/// What this printer's topics are called, and what we call ourselves there.
#[derive(Debug)]
pub struct Topics {
    /// The printer's serial number.
    pub serial: heapless::String<SERIAL>,
    /// `device/<serial>/report`.
    pub report: heapless::String<TOPIC>,
    /// `device/<serial>/request`.
    pub request: heapless::String<TOPIC>,
    /// Our client identifier: one that no other client of the printer has.
    pub client_id: heapless::String<{ TOPIC + 8 }>,
}

impl Topics {
    /// The names for a serial number of at most [`SERIAL`] bytes; `instance` tells this program from
    /// another one before the same printer.
    pub fn new(serial: &str, instance: u16) -> Self {
        let mut topics = Self {
            serial: heapless::String::new(),
            report: heapless::String::new(),
            request: heapless::String::new(),
            client_id: heapless::String::new(),
        };
        // All of them fit: that is what their capacities are made of.
        let _fits = topics.serial.push_str(serial);
        let _fits = write!(topics.report, "device/{serial}/report");
        let _fits = write!(topics.request, "device/{serial}/request");
        let _fits = write!(topics.client_id, "pandaproxy-{serial}-{instance:04x}");
        topics
    }
}

/// The service: what its clients and its upstream share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Rc<[Rc<Slot>]>,
    queue: Rc<RequestQueue>,
    topics: Rc<Topics>,
    code: Rc<AccessCode>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Topics>() + size_of::<AccessCode>() <= budget::HUB,
    "the hub is larger than its queue"
);

impl Service {
    /// A service without clients, whose printer is away.
    pub fn new(topics: Topics, code: AccessCode, now: Instant) -> Rc<Self> {
        let topics = Rc::new(topics);
        let slots: Rc<[Rc<Slot>]> = (0..SLOTS).map(|_| Slot::new()).collect();
        let queue = Rc::new(RequestQueue::new(Rc::clone(&slots)));
        let hub = Hub::new(Rc::clone(&topics), Rc::clone(&slots), Rc::clone(&queue), now);
        Rc::new(Self { hub: RefCell::new(hub), slots, queue, topics, code: Rc::new(code) })
    }

    /// A session for `peer`, and its place at the hub. Reports name `advertised` in place of the
    /// printer's address, if it is given. `admitted` is called once it has shown the right code.
    /// `None` if all slots are taken.
    pub fn client<F: Fn()>(
        self: &Rc<Self>,
        now: Instant,
        until: Instant,
        peer: Peer,
        advertised: Option<Ipv4Addr>,
        admitted: F,
    ) -> Option<(Client, SlotGuard<F>)> {
        let slot = self.slots.iter().find(|slot| slot.standing() == slot::SlotState::Vacant)?;
        slot.pending(now, peer);
        let client = Client::new(
            Rc::clone(slot),
            Rc::clone(&self.code),
            Rc::clone(&self.topics),
            advertised,
            until,
        );
        Some((client, SlotGuard { service: Rc::clone(self), slot: Rc::clone(slot), admitted }))
    }

    /// A session with the printer over a connection that was just made.
    pub fn upstream(self: &Rc<Self>, now: Instant) -> (Upstream, Link) {
        let upstream = Upstream::new(
            Rc::clone(&self.queue),
            Rc::clone(&self.topics),
            Rc::clone(&self.code),
            now,
        );
        (upstream, Link { service: Rc::clone(self) })
    }

    /// The conversation with the printer is over, or could not begin.
    pub fn lost(&self, now: Instant) {
        self.hub.borrow_mut().lost(now);
    }

    /// Looks after what only time tells; to be called about once a second.
    pub fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    /// Tells every client to go.
    pub fn dismiss_all(&self) {
        self.hub.borrow_mut().dismiss_all();
    }

    /// Connections that are being served, whether they showed the code or not.
    pub fn connections(&self) -> usize {
        let vacant = |slot: &&Rc<Slot>| slot.standing() != slot::SlotState::Vacant;
        self.slots.iter().filter(vacant).count()
    }

    /// Ends the conversation with the printer, in order, and begins no other.
    pub fn leave(&self) {
        self.queue.leave();
    }

    /// Whether the conversation with the printer is to end.
    pub fn is_leaving(&self) -> bool {
        self.queue.is_leaving()
    }

    /// Completes once the conversation with the printer is to end.
    pub async fn left(&self) {
        while !self.queue.is_leaving() {
            self.queue.notified().await;
        }
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.hub.borrow().clients()
    }

    /// Whether the printer has said that live view of its RTSPS camera is off.
    pub fn says_live_view_off(&self) -> bool {
        self.hub.borrow().says_live_view_off()
    }

    /// Whether the printer takes requests.
    pub fn is_live(&self) -> bool {
        self.queue.is_live()
    }
}

/// A client's place at the hub. Dropping it leaves the slot to somebody else.
pub struct SlotGuard<F: Fn()> {
    service: Rc<Service>,
    slot: Rc<Slot>,
    admitted: F,
}

impl<F: Fn()> Handler<Client> for SlotGuard<F> {
    fn admits(&self, client: &Client) -> bool {
        client.is_attentive() && !self.slot.is_dismissed() && self.service.queue.has_room()
    }

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

impl<F: Fn()> Drop for SlotGuard<F> {
    fn drop(&mut self) {
        self.slot.vacate();
    }
}

/// The upstream's link to the hub.
pub struct Link {
    service: Rc<Service>,
}

impl Handler<Upstream> for Link {
    fn admits(&self, _upstream: &Upstream) -> bool {
        true
    }

    fn handle_event(
        &self,
        now: Instant,
        _upstream: &mut Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        let mut hub = self.service.hub.borrow_mut();
        match event {
            upstream::Event::Live => hub.live(now),
            upstream::Event::Report { payload } => hub.report(now, payload),
            upstream::Event::Oversized { bytes } => hub.oversized(now, bytes),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.service.queue.notified().await;
    }
}
