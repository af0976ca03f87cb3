//! FTPS: the printer's files, implicit TLS on port 990.
//!
//! A Bambu Lab printer gives one FTP session, or a few, and each of its clients would like to hold one
//! for as long as it runs. Here each command gets a session for as long as it lasts, and whoever sends
//! a print goes first.
//!
//! ```text
//!   slicer ──┐                      ┌──────────────────────┐
//!   files ───┼── client ── slot ── hub ── printer session ── upstream ── printer, control connection
//!   home ────┘                              │
//!      │                                  mover                      (a task of the runtime)
//!      └────────── data connection ─────────┴──── data connection ── printer
//! ```
//!
//! Control lines pass through here whole. Data never do: the mover copies them between the two data
//! connections through one fixed buffer, in one direction, as fast as the slower end takes them.
//! Nothing is stored.

pub mod client;
pub mod event;
mod features;
pub mod hub;
pub mod printer_session;
pub mod slot;
pub mod upstream;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

use alloc::rc::Rc;
use core::convert::Infallible;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::auth::AccessCode;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget;
use crate::peer::Peer;
use crate::session::Handler;
use client::Client;
use hub::Hub;
use printer_session::PrinterSession;
use slot::{OUT, Slot};
use upstream::Upstream;
use wire::LINE;

/// Clients at once.
pub const CLIENTS: usize = BOARD.clients.ftp;

/// Connections served at once: clients, and those that have not shown the code yet.
pub const SLOTS: usize = budget::FILERS;

/// Sessions of the printer's that are used at once, at most.
pub const SESSIONS: usize = budget::FTP_SESSIONS;

/// Bytes in the longest path of a directory.
pub const PATH: usize = 512;

const _: () = assert!(budget::FTP_INBOX >= 2 * LINE, "a line, and what comes behind it");
const _: () = assert!(budget::FTP_OUTBOX >= OUT, "all that a client has to hear leaves at once");

/// What an `Rc` keeps beside its content: two counts.
const COUNTS: usize = 2 * size_of::<usize>();
const _: () =
    assert!(size_of::<Slot>() + COUNTS <= budget::FTP_SLOT, "a seat is larger than its line");
const _: () = assert!(
    size_of::<PrinterSession>() + COUNTS <= budget::FTP_PRINTER_SESSION,
    "a desk is larger than its line"
);

/// The service: what its clients and the printer's sessions share.
pub struct Service {
    hub: Rc<Hub>,
    code: Rc<AccessCode>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Hub>() + size_of::<AccessCode>() <= budget::FTP_HUB,
    "the hub is larger than its line"
);

/// What the runtime does for one client.
pub trait Front {
    /// The right code was shown.
    fn admitted(&self);

    /// Opens a data port: which, or `None` if all are in use.
    fn open_passive_port(&self) -> Option<u16>;
}

impl Service {
    /// A service without clients, before a printer that gives `sessions`, of which [`SESSIONS`] are used at most.
    pub fn new(code: AccessCode, sessions: usize) -> Rc<Self> {
        Rc::new(Self { hub: Rc::new(Hub::new(SLOTS, sessions.min(SESSIONS))), code: Rc::new(code) })
    }

    /// A slot for `peer`. `None` if all are taken.
    pub fn pending(self: &Rc<Self>, peer: Peer) -> Option<Place> {
        let slot = self.hub.pending(peer)?;
        Some(Place { service: Rc::clone(self), slot })
    }

    /// A session with the printer over a connection that was just made.
    pub fn upstream(&self, now: Instant, printer_session: usize) -> Option<(Upstream, Link)> {
        let printer_session = self.hub.printer_session(printer_session)?;
        printer_session.set_dialling();
        let code = Rc::clone(&self.code);
        let upstream = Upstream::new(Rc::clone(&self.hub), Rc::clone(printer_session), code, now);
        Some((upstream, Link { printer_session: Rc::clone(printer_session) }))
    }

    /// The printer's sessions.
    pub fn printer_sessions(&self) -> &[Rc<PrinterSession>] {
        self.hub.printer_sessions()
    }

    /// Completes when a session should be made for `printer_session`, or none any more.
    pub async fn wanted(&self, clock: impl Fn() -> Instant, printer_session: &PrinterSession) {
        while !self.hub.is_leaving() && !self.hub.is_wanted(clock(), printer_session.index()) {
            printer_session.keeper_notified().await;
        }
    }

    /// The session of `printer_session` is over, or could not begin: `why`. Clients are told so for `wait`.
    pub fn lost(
        &self,
        now: Instant,
        printer_session: &PrinterSession,
        why: &dyn fmt::Display,
        wait: Duration,
    ) {
        self.hub.lost(now, printer_session.index(), why, wait);
    }

    /// Tells every client to go.
    pub fn dismiss_all(&self) {
        self.hub.dismiss_all();
    }

    /// Connections that are being served, whether they showed the code or not.
    pub fn connections(&self) -> usize {
        self.hub.connections()
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.hub.clients()
    }

    /// Ends the sessions with the printer, in order, and begins no other.
    pub fn leave(&self) {
        self.hub.leave();
    }

    /// Whether the sessions with the printer are to end.
    pub fn is_leaving(&self) -> bool {
        self.hub.is_leaving()
    }
}

/// A client's place at the hub. Dropping it leaves the slot to somebody else.
pub struct Place {
    service: Rc<Service>,
    slot: Rc<Slot>,
}

impl Place {
    /// The slot: its index is that of the data port.
    pub fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// The session for this place. The client is told `reached` for its data.
    pub fn client(&self, reached: IpAddr, until: Instant) -> Client {
        let hub = Rc::clone(&self.service.hub);
        Client::new(hub, Rc::clone(&self.slot), Rc::clone(&self.service.code), reached, until)
    }

    /// The client has connected to its data port.
    pub fn connected(&self, now: Instant) {
        self.service.hub.connected(now, &self.slot);
    }

    /// What the client's session talks to: its place, and what the runtime does for it.
    pub fn attended<F: Front>(&self, front: F) -> Attended<'_, F> {
        Attended { place: self, front }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.hub.vacate(&self.slot);
    }
}

/// A client's place, with what the runtime does for it.
pub struct Attended<'p, F> {
    place: &'p Place,
    front: F,
}

impl<F: Front> Handler<Client> for Attended<'_, F> {
    fn admits(&self, _client: &Client) -> bool {
        true
    }

    fn handle_event(
        &self,
        now: Instant,
        client: &mut Client,
        event: client::Event,
    ) -> Result<(), client::Error> {
        match event {
            client::Event::Admitted => self.front.admitted(),
            client::Event::Passive { extended } => {
                client.passive(now, extended, self.front.open_passive_port());
            }
        }
        Ok(())
    }

    async fn woken(&self) {
        self.place.slot.notified().await;
    }
}

/// The upstream's link to its printer session.
pub struct Link {
    printer_session: Rc<PrinterSession>,
}

impl Handler<Upstream> for Link {
    fn admits(&self, upstream: &Upstream) -> bool {
        upstream.is_ready_to_read()
    }

    fn handle_event(
        &self,
        _now: Instant,
        _upstream: &mut Upstream,
        event: Infallible,
    ) -> Result<(), upstream::Error> {
        match event {}
    }

    async fn woken(&self) {
        self.printer_session.notified().await;
    }
}
