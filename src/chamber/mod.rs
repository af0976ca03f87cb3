//! The chamber camera of A1, A2L and P1: JPEG pictures over TLS on port 6000.
//!
//! The printer serves one or two viewers and leaves further ones waiting. Here up to `BOARD.clients.chamber`
//! viewers share one connection to the camera, which is opened for the first viewer and closed after the last.
//! The wire format is in [`protocol`](crate::protocol#chamber-camera).
//!
//! ```text
//!   viewer ── client ── slot ◄── hub ◄── upstream ◄── camera
//!                        ring of references   one frame for each picture
//! ```
//!
//! # Behaviour
//!
//! | a viewer | the proxy |
//! |---|---|
//! | logs in as at the printer (80 bytes) | sends the last picture at once if it is younger than ten seconds, then every new one, each head in a TLS record of its own |
//! | shows a wrong code, or sends anything but a login | closes without a byte, as the printer does; a file tunnel's login at its 16th byte |
//! | reads too slowly | drops all but the newest picture; other viewers do not wait |
//! | watches while the printer restarts | keeps the connection, and sends pictures again when there are any |
//! | is the last to leave | closes the connection to the camera after five seconds |
//! | connects although the printer is an X1, H2 or P2 | refuses the connection, or is the file tunnel; before the model is known closes after the login, and the log names the printer's camera |
//! | is one more than `BOARD.clients.chamber` | closes after the login |
//! | is a viewer by HTTP ([`Service::watch`]) | counts as one |
//!
//! A picture longer than `BOARD.chamber.picture` bytes, or one that is not a whole JPEG, is skipped, counted and
//! logged.

pub mod client;
pub mod hub;
pub mod slot;
pub mod upstream;
pub mod wire;

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use crate::auth::AccessCode;
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget::{self, VIEWERS};
use crate::memory::slots::{Occupant, Slot as _, SlotGuard, Slots};
use crate::notify::Demand;
use crate::printer::camera::CameraKind;
use crate::printer::status::{Login, Status};
use crate::service::{self, Bound, Connection, Visitor};
use crate::session::Handler;
use client::Viewer;
use hub::{Counts, Hub, MAX_PICTURE_AGE};
use slot::{Dismissal, Slot, SlotState};
use upstream::{Purpose, Upstream};

/// The service: what its viewers' sessions and the connection to the camera share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Slots<Slot>,
    demand: Rc<Demand>,
    code: Rc<AccessCode>,
    status: Rc<Status>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Demand>() + size_of::<AccessCode>() <= budget::CHAMBER_HUB,
    "the chamber hub is larger than its budget line"
);
const _: () = assert!(wire::LOGIN <= budget::CHAMBER_INBOX, "an inbox holds a login");
const _: () = assert!(wire::HEAD <= budget::CHAMBER_OUTBOX, "an outbox holds a head");
const _: () = assert!(wire::LOGIN <= budget::CAMERA_OUTBOX, "the upstream's outbox holds a login");

impl Service {
    /// A service without viewers.
    pub fn new(code: AccessCode, status: Rc<Status>) -> Rc<Self> {
        let slots = Slots::new(VIEWERS, |_| Slot::new());
        let demand = Rc::new(Demand::default());
        let hub = Hub::new(slots.clone(), Rc::clone(&demand));
        Rc::new(Self { hub: RefCell::new(hub), slots, demand, code: Rc::new(code), status })
    }

    /// A session for a connection whose login is due at `until`, and its slot. `admitted` is called after the
    /// login. `None` if no slot is free.
    pub fn viewer<F: Fn()>(
        self: &Rc<Self>,
        until: Instant,
        admitted: F,
    ) -> Option<(Viewer, ViewerLink<F>)> {
        let slot = self.slots.take()?;
        let viewer = Viewer::new(Rc::clone(&slot), Rc::clone(&self.code), until);
        Some((viewer, ViewerLink { service: Rc::clone(self), slot, admitted }))
    }

    /// A slot for a viewer that has shown the access code to another service, which sends it the pictures. It gets the
    /// last picture at once if that is younger than `fresh`. The slot's state says whether it may stay. `None` if no
    /// slot is free.
    pub fn watch(&self, now: Instant, fresh: Duration) -> Option<SlotGuard<Slot>> {
        let slot = self.slots.take()?;
        self.hub.borrow_mut().join(now, &slot, fresh);
        Some(slot)
    }

    /// A session with the camera for a connection that was just made.
    pub fn upstream(&self, purpose: Purpose, now: Instant) -> Upstream {
        Upstream::new(Rc::clone(&self.demand), Rc::clone(&self.code), purpose, now)
    }

    /// The connection to the camera has ended, or could not be made.
    pub fn lost(&self) {
        self.hub.borrow_mut().lost();
    }

    /// Sets whether the printer is known to have no chamber camera. If so, viewers are closed after their login.
    pub fn set_elsewhere(&self, elsewhere: bool) {
        self.hub.borrow_mut().set_elsewhere(elsewhere);
    }

    /// Whether the connection to the camera is wanted.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Viewers that are logged in.
    pub fn viewers(&self) -> usize {
        self.hub.borrow().viewers()
    }

    /// Pictures since the start.
    pub fn counts(&self) -> Counts {
        self.hub.borrow().counts()
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "chamber"
    }

    fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    fn connections(&self) -> usize {
        self.slots.connections()
    }

    fn is_wanted(&self) -> Option<bool> {
        Some(self.demand.is_wanted())
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, slot, occupant) in self.slots.occupants() {
            let lost = slot.pictures.lost();
            slot.occupancy().label().with(|id| {
                visitor.connection(&Connection { index, occupant, id, lost });
            });
        }
    }

    fn bounds(&self, show: &mut dyn FnMut(Bound)) {
        let used = self.hub.borrow().frames();
        show(Bound { what: "pictures", used, limit: budget::PICTURES.count });
    }

    fn disconnect_all(&self) {
        self.hub.borrow_mut().dismiss_all(Dismissal::Stopping);
    }

    fn shut_down(&self) {
        self.demand.leave();
    }
}

/// A viewer's slot in use. Dropping it frees the slot.
pub struct ViewerLink<F: Fn()> {
    service: Rc<Service>,
    slot: SlotGuard<Slot>,
    admitted: F,
}

impl<F: Fn()> ViewerLink<F> {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.slot.occupancy().occupant()
    }
}

impl<F: Fn()> Handler<Viewer> for ViewerLink<F> {
    fn handle_event(
        &self,
        now: Instant,
        _viewer: &mut Viewer,
        event: client::Event,
    ) -> Result<(), client::Error> {
        let client::Event::LoggedIn = event;
        self.service.hub.borrow_mut().join(now, &self.slot, MAX_PICTURE_AGE);
        if self.slot.state() == SlotState::Active {
            (self.admitted)();
        }
        Ok(())
    }

    async fn woken(&self) {
        self.slot.notified().await;
    }
}

/// The handler of the camera's events. The first picture also says that the printer has this camera.
impl Handler<Upstream> for Rc<Service> {
    fn handle_event(
        &self,
        now: Instant,
        _upstream: &mut Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        let mut hub = self.hub.borrow_mut();
        match event {
            upstream::Event::Begin(len) => {
                self.status.log_in(Login::Chamber, now);
                if self.status.note_camera(CameraKind::Chamber) {
                    let camera = CameraKind::Chamber;
                    journal::note(Kind::CameraFound, format_args!("camera: {camera}"));
                }
                hub.begin(now, len);
            }
            upstream::Event::Bytes(bytes) => hub.bytes(now, bytes),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.demand.notified().await;
    }
}

/// Each message of the service once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use crate::auth::LoginError;
    use alloc::string::ToString;
    use client::Error as Client;
    use upstream::Error as Printer;
    use wire::{Damage, LoginFault};

    let skipped = |damage, times| hub::Skipped { len: 176_512, damage, times }.to_string();
    let clients = [
        Client::NoLogin(LoginFault::Tunnel),
        Client::NoLogin(LoginFault::Words),
        Client::NoLogin(LoginFault::Padding),
        Client::Login(LoginError::WrongUser),
        Client::Login(LoginError::WrongCode(crate::auth::Guess::of(b"87654321"))),
        Client::Silent,
        Client::UnexpectedData,
        Client::Dismissed(Dismissal::Elsewhere),
        Client::Dismissed(Dismissal::Stopping),
    ];
    let printers = [
        Printer::NotWanted,
        Printer::Leaving,
        Printer::Found,
        Printer::Tunnel,
        Printer::Silent,
        Printer::BadLength(17_000_000),
    ];
    let mut all = alloc::vec![
        skipped(None, 1),
        skipped(None, 3),
        skipped(Some(Damage::Empty), 1),
        skipped(Some(Damage::NoStart), 2),
        skipped(Some(Damage::NoEnd), 1),
    ];
    all.extend(clients.iter().map(ToString::to_string));
    all.extend(printers.iter().map(ToString::to_string));
    all
}
