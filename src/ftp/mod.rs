//! FTPS: the printer's files, implicit TLS on port 990.
//!
//! A Bambu Lab printer gives one FTP session, or a few, and each of its clients would like to hold one
//! for as long as it runs. Here each command gets a session for as long as it lasts, and whoever sends
//! a print goes first.
//!
//! ```text
//!   slicer ──┐                      ┌──────────────────────┐
//!   files ───┼── client ── seat ── hub ── desk ── upstream ── printer, control connection
//!   home ────┘                              │
//!      │                                  mover                      (a task of the runtime)
//!      └────────── data connection ─────────┴──── data connection ── printer
//! ```
//!
//! Control lines pass through here whole. Data never do: the mover copies them between the two data
//! connections through one fixed buffer, in one direction, as fast as the slower end takes them.
//! Nothing is stored.

pub mod client;
mod features;
pub mod hub;
pub mod printer_session;
pub mod slot;
pub mod upstream;
pub mod wire;

#[cfg(test)]
mod tests;

use alloc::rc::Rc;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::auth::AccessCode;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget;
use crate::session::{Host, Peer};
use client::Client;
use hub::Hub;
use printer_session::Desk;
use slot::{OUT, Seat};
use upstream::Upstream;
use wire::LINE;

/// Clients at once.
pub const CLIENTS: usize = BOARD.clients.ftp;

/// Connections served at once: clients, and those that have not shown the code yet.
pub const SEATS: usize = budget::FILERS;

/// Sessions of the printer's that are used at once, at most.
pub const SESSIONS: usize = budget::FTP_SESSIONS;

/// Bytes in the longest path of a directory.
pub const PATH: usize = 512;

const _: () = assert!(budget::FTP_INBOX >= 2 * LINE, "a line, and what comes behind it");
const _: () = assert!(budget::FTP_OUTBOX >= OUT, "all that a client has to hear leaves at once");

/// What an `Rc` keeps beside its content: two counts.
const COUNTS: usize = 2 * size_of::<usize>();
const _: () =
    assert!(size_of::<Seat>() + COUNTS <= budget::FTP_SEAT, "a seat is larger than its line");
const _: () =
    assert!(size_of::<Desk>() + COUNTS <= budget::FTP_DESK, "a desk is larger than its line");

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
    fn open_gate(&self) -> Option<u16>;
}

impl Service {
    /// A service without clients, before a printer that gives `sessions`, of which [`SESSIONS`] are used at most.
    pub fn new(code: AccessCode, sessions: usize) -> Rc<Self> {
        Rc::new(Self { hub: Rc::new(Hub::new(SEATS, sessions.min(SESSIONS))), code: Rc::new(code) })
    }

    /// A seat for `peer`. `None` if all are taken.
    pub fn knock(self: &Rc<Self>, peer: Peer) -> Option<Place> {
        let seat = self.hub.knock(peer)?;
        Some(Place { service: Rc::clone(self), seat })
    }

    /// A session with the printer over a connection that was just made.
    pub fn upstream(&self, now: Instant, desk: usize) -> Option<(Upstream, Link)> {
        let desk = self.hub.desk(desk)?;
        desk.is_dialling();
        let code = Rc::clone(&self.code);
        let upstream = Upstream::new(Rc::clone(&self.hub), Rc::clone(desk), code, now);
        Some((upstream, Link { desk: Rc::clone(desk) }))
    }

    /// The printer's sessions.
    pub fn desks(&self) -> &[Rc<Desk>] {
        self.hub.desks()
    }

    /// Completes when a session should be made for `desk`, or none any more.
    pub async fn wanted(&self, clock: impl Fn() -> Instant, desk: &Desk) {
        while !self.hub.is_leaving() && !self.hub.is_wanted(clock(), desk.index()) {
            desk.keeper_rung().await;
        }
    }

    /// The session of `desk` is over, or could not begin: `why`. Clients are told so for `wait`.
    pub fn lost(&self, now: Instant, desk: &Desk, why: &dyn fmt::Display, wait: Duration) {
        self.hub.lost(now, desk.index(), why, wait);
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

/// A client's place at the hub. Dropping it leaves the seat to somebody else.
pub struct Place {
    service: Rc<Service>,
    seat: Rc<Seat>,
}

impl Place {
    /// The seat: its index is that of the data port.
    pub fn seat(&self) -> &Rc<Seat> {
        &self.seat
    }

    /// The session for this place. The client is told `reached` for its data.
    pub fn client(&self, reached: IpAddr, until: Instant) -> Client {
        let hub = Rc::clone(&self.service.hub);
        Client::new(hub, Rc::clone(&self.seat), Rc::clone(&self.service.code), reached, until)
    }

    /// The client has connected to its data port.
    pub fn connected(&self, now: Instant) {
        self.service.hub.connected(now, &self.seat);
    }

    /// What the client's session talks to: its place, and what the runtime does for it.
    pub fn attended<F: Front>(&self, front: F) -> Attended<'_, F> {
        Attended { place: self, front }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.service.hub.vacate(&self.seat);
    }
}

/// A client's place, with what the runtime does for it.
pub struct Attended<'p, F> {
    place: &'p Place,
    front: F,
}

impl<F: Front> Host<Client> for Attended<'_, F> {
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
                client.passive(now, extended, self.front.open_gate());
            }
        }
        Ok(())
    }

    async fn woken(&self) {
        self.place.seat.rung().await;
    }
}

/// The upstream's link to its desk.
pub struct Link {
    desk: Rc<Desk>,
}

impl Host<Upstream> for Link {
    fn admits(&self, upstream: &Upstream) -> bool {
        upstream.is_attentive()
    }

    fn handle_event(
        &self,
        _now: Instant,
        _upstream: &mut Upstream,
        (): (),
    ) -> Result<(), upstream::Error> {
        Ok(())
    }

    async fn woken(&self) {
        self.desk.rung().await;
    }
}
