//! The chamber camera of A1 and P1: JPEG pictures over TLS on port 6000 ([`protocol`](crate::protocol#chamber-camera)).
//!
//! Such a printer serves one or two viewers and leaves the others waiting. Here as many viewers as the board allows
//! share one connection to the camera. It is opened for the first viewer and closed after the last.
//!
//! ```text
//!   viewer ── client ── slot ◄── hub ◄── upstream ◄── camera
//!                        ring of references   one frame a picture
//! ```
//!
//! # Behaviour
//!
//! | a viewer | the proxy |
//! |---|---|
//! | logs in as at the printer (80 bytes) | sends the last picture at once if it is younger than ten seconds, then every new one; each head is in a TLS record of its own |
//! | shows a wrong code, or sends anything but a login | closes the connection without a byte, as the printer does |
//! | reads too slowly | drops pictures and sends the newest; other viewers are unaffected |
//! | watches while the printer restarts | keeps the connection; pictures continue when the printer is back |
//! | is the last to leave | closes the connection to the camera five seconds later |
//! | connects to an X1, H2 or P2 here | closes the connection; that printer's port 6000 is the [file tunnel](crate::protocol#file-tunnel) |

pub mod client;
pub mod hub;
pub mod slot;
pub mod upstream;
pub mod wire;

use alloc::rc::Rc;
use core::cell::RefCell;

use crate::auth::AccessCode;
use crate::clock::Instant;
use crate::memory::budget::{self, VIEWERS};
use crate::notify::Demand;
use crate::session::Handler;
use client::Viewer;
use hub::{Counts, Hub};
use slot::{Dismissal, Slot, SlotState};
use upstream::{Purpose, Upstream};

/// The service: what its viewers and its upstream share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Rc<[Rc<Slot>]>,
    demand: Rc<Demand>,
    code: Rc<AccessCode>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Demand>() + size_of::<AccessCode>() <= budget::CHAMBER_HUB,
    "the chamber hub is larger than its line"
);
const _: () = assert!(wire::LOGIN <= budget::CHAMBER_INBOX, "an inbox holds a login");
const _: () = assert!(wire::HEAD <= budget::CHAMBER_OUTBOX, "an outbox holds a head");
const _: () = assert!(wire::LOGIN <= budget::CAMERA_OUTBOX, "the upstream's holds a login");

impl Service {
    /// A service without viewers.
    pub fn new(code: AccessCode) -> Rc<Self> {
        let slots: Rc<[Rc<Slot>]> = (0..VIEWERS).map(|_| Slot::new()).collect();
        let demand = Rc::new(Demand::default());
        let hub = Hub::new(Rc::clone(&slots), Rc::clone(&demand));
        Rc::new(Self { hub: RefCell::new(hub), slots, demand, code: Rc::new(code) })
    }

    /// A session for somebody who has to log in until then, and their place at the hub. `admitted` is
    /// called once they have. `None` if all slots are taken.
    pub fn viewer<F: Fn()>(
        self: &Rc<Self>,
        until: Instant,
        admitted: F,
    ) -> Option<(Viewer, Place<F>)> {
        let slot = self.slots.iter().find(|slot| slot.standing() == SlotState::Vacant)?;
        slot.pending();
        let viewer = Viewer::new(Rc::clone(slot), Rc::clone(&self.code), until);
        Some((viewer, Place { service: Rc::clone(self), slot: Rc::clone(slot), admitted }))
    }

    /// A session with the camera over a connection that was just made.
    pub fn upstream(self: &Rc<Self>, purpose: Purpose, now: Instant) -> (Upstream, Link) {
        let (demand, code) = (Rc::clone(&self.demand), Rc::clone(&self.code));
        (Upstream::new(demand, code, purpose, now), Link { service: Rc::clone(self) })
    }

    /// The conversation with the camera is over, or could not begin.
    pub fn lost(&self) {
        self.hub.borrow_mut().lost();
    }

    /// Looks after what only time tells; to be called about once a second.
    pub fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    /// Tells every viewer to go.
    pub fn dismiss_all(&self) {
        self.hub.borrow_mut().dismiss_all(Dismissal::Stopping);
    }

    /// This printer's camera is known to be elsewhere, or not any more: then nobody is let in here.
    pub fn elsewhere(&self, elsewhere: bool) {
        self.hub.borrow_mut().elsewhere(elsewhere);
    }

    /// Connections that are being served, whether they logged in or not.
    pub fn connections(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() != SlotState::Vacant).count()
    }

    /// Whether the camera is to be watched.
    pub fn is_wanted(&self) -> bool {
        self.demand.is_wanted()
    }

    /// Ends the conversation with the camera, and begins no other.
    pub fn leave(&self) {
        self.demand.leave();
    }

    /// Whether the program ends.
    pub fn is_leaving(&self) -> bool {
        self.demand.is_leaving()
    }

    /// Completes when the camera is wanted, or not any more, or the program ends.
    pub async fn changed(&self) {
        self.demand.notified().await;
    }

    /// Viewers that logged in.
    pub fn viewers(&self) -> usize {
        self.hub.borrow().viewers()
    }

    /// How many pictures there ever were.
    pub fn counts(&self) -> Counts {
        self.hub.borrow().counts()
    }
}

/// A viewer's place at the hub. Dropping it leaves the slot to somebody else.
pub struct Place<F: Fn()> {
    service: Rc<Service>,
    slot: Rc<Slot>,
    admitted: F,
}

impl<F: Fn()> Place<F> {
    /// Pictures that were sent, and pictures that were lost on the way.
    pub fn sent_and_lost(&self) -> (u32, u32) {
        (self.slot.sent(), self.slot.lost())
    }
}

impl<F: Fn()> Drop for Place<F> {
    fn drop(&mut self) {
        self.slot.vacate();
    }
}

impl<F: Fn()> Handler<Viewer> for Place<F> {
    fn admits(&self, _viewer: &Viewer) -> bool {
        true
    }

    fn handle_event(
        &self,
        now: Instant,
        _viewer: &mut Viewer,
        event: client::Event,
    ) -> Result<(), client::Error> {
        let client::Event::LoggedIn = event;
        self.service.hub.borrow_mut().join(now, &self.slot);
        if self.slot.standing() == SlotState::Taken {
            (self.admitted)();
        }
        Ok(())
    }

    async fn woken(&self) {
        self.slot.notified().await;
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
            upstream::Event::Begin(len) => hub.begin(now, len),
            upstream::Event::Bytes(bytes) => hub.bytes(now, bytes),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.service.demand.notified().await;
    }
}
