//! FTPS: the printer's files, implicit TLS on port 990, in proxy mode.
//!
//! A Bambu Lab printer has one FTP session, or a few, and each of its clients holds one for as long as it runs. In proxy
//! mode clients share them: each command gets one of the printer's sessions for as long as it lasts, and uploads go first.
//! Relay mode is another service: [`relay`](crate::runtime::files::relay).
//!
//! ```text
//!   slicer ──┐                      ┌──────────────────────┐
//!   files ───┼── client ── slot ── hub ── printer session ── upstream ── printer, control connection
//!   home ────┘                              │
//!      │                                data task                    (a task of the runtime)
//!      └────────── data connection ─────────┴──── data connection ── printer
//! ```
//!
//! Control lines are kept whole. Data are never kept: the data task copies them between the two data connections through
//! one fixed buffer, in one direction, as fast as the slower end takes them. No file is stored.
//!
//! # Behaviour
//!
//! | a client | what happens |
//! |---|---|
//! | sends USER, PASS, TYPE, PBSZ, PROT, PASV, EPSV, OPTS UTF8, NOOP | answered here; data ports are 2024 to 2043 (`--ftp-data-ports`), each for one connection from the client's address within 60 s |
//! | sends STOR, RETR, LIST or another command | waits until a session is free: uploads first, then in the order of the commands. Directory, TYPE and PROT are set again for it; paths are passed on unchanged |
//! | waits longer than its own timeout | it disconnects, and leaves the queue. libcurl, and so slicers, wait 120 s for a reply by default: an upload behind a longer one has to be sent again |
//! | finishes an upload | the printer's own 226 is the client's reply, up to five minutes after the last byte |
//! | aborts, or the printer's connection is lost | 426 or 451 with the reason, never 226; the session is free for the next command |
//! | sends a command while the printer is unreachable | 451 with the reason |
//! | sends ABOR while a command is queued or runs | 426 and 226; the transfer is aborted at the printer as well |
//! | sends STAT while a command is queued or runs | 211 with the bytes transferred, or what it waits for |
//! | changes PROT | it applies to the next transfer, on both data connections |
//! | sends PORT or EPRT | 502: passive mode only |
//! | is idle | it holds no session of the printer's; after five minutes 421, as from printers |
//!
//! # Clients that were tried
//!
//! `tests/program/files` runs these clients with files of 0 bytes, 1 byte and 300 kB and names with spaces and UTF-8, and
//! compares SHA-256 at both ends. *P1S* and *X1C* are simulated; vsFTPd 3.0.3 is a real server that requires TLS session
//! resumption on data connections and has a printer's certificate.
//!
//! | client | P1S, proxy | X1C, proxy | vsFTPd, proxy | X1C, relay | vsFTPd, relay |
//! |---|---|---|---|---|---|
//! | curl 7.88.1: upload, download, list | yes | yes | yes | yes | yes |
//! | curl `-C -` in both directions | no: the printer has no REST, and curl gets its 502 | yes | yes | yes | yes |
//! | lftp 4.9.2: upload, download, list, mirror in both directions | yes | yes | yes | yes | yes |
//! | Python 3.11 `ftplib` with TLS session resumption | yes | yes | yes | all data arrive, then `ftplib` reports a missing close_notify, as without the proxy | yes |
//! | Python 3.11 `ftplib` without | yes | yes | yes | refused by the printer (522), as without the proxy | refused (522) |
//! | 100 MB | upload | | download | upload | download |
//! | server killed in mid-upload | the client gets an error, the next upload works | | the same | | the same |

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
use core::cell::Cell;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::auth::AccessCode;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget;
use crate::memory::pool::RC_COUNTS;
use crate::memory::slots::{self, Occupant, Slot as _, SlotGuard};
use crate::peer::Peer;
use crate::service::{self, Visitor};
use crate::session::{Handler, NoEvents, Wake};
use client::Client;
use hub::Hub;
use printer_session::PrinterSession;
use slot::{OUT, Slot};
use upstream::Upstream;
use wire::LINE;

/// Most clients.
pub const CLIENTS: usize = BOARD.clients.ftp;

/// Most connections: clients, and those before their login.
pub const SLOTS: usize = budget::FILERS;

/// Most sessions of the printer's that are used.
pub const SESSIONS: usize = budget::FTP_SESSIONS;

/// Bytes in the longest path of a directory.
pub const PATH: usize = 512;

const _: () =
    assert!(budget::FTP_INBOX >= 2 * LINE, "room for one line and the beginning of the next");
const _: () = assert!(budget::FTP_OUTBOX >= OUT, "all replies of a slot fit the outbox");

const _: () = slots::assert_fits::<Slot>(budget::FTP_SLOT);
const _: () = assert!(
    size_of::<PrinterSession>() + RC_COUNTS <= budget::FTP_PRINTER_SESSION,
    "a printer session is larger than its budget"
);

/// The service: what its clients and the printer's sessions share.
pub struct Service {
    hub: Rc<Hub>,
    code: Rc<AccessCode>,
}

const _: () = assert!(
    size_of::<Service>() + size_of::<Hub>() + size_of::<AccessCode>() <= budget::FTP_HUB,
    "the hub is larger than its budget"
);

/// What a client's session needs from the runtime.
pub trait ClientRuntime {
    /// The client logged in.
    fn admitted(&self);

    /// Opens a data port and gives its number. `None`: all are in use.
    fn open_passive_port(&self) -> Option<u16>;
}

impl Service {
    /// A service without clients, for a printer with so many FTP `sessions`; at most [`SESSIONS`] are used.
    pub fn new(code: AccessCode, sessions: usize) -> Rc<Self> {
        Rc::new(Self { hub: Rc::new(Hub::new(SLOTS, sessions.min(SESSIONS))), code: Rc::new(code) })
    }

    /// A slot for `peer`. `None`: all are taken.
    pub fn pending(self: &Rc<Self>, peer: Peer) -> Option<ClientLink> {
        let slot = self.hub.pending(peer)?;
        Some(ClientLink { service: Rc::clone(self), slot })
    }

    /// A session with the printer, over a new connection. `None`: there is no printer session of that index.
    pub fn upstream(&self, now: Instant, printer_session: usize) -> Option<(Upstream, Link)> {
        let printer_session = self.hub.printer_session(printer_session)?;
        printer_session.set_dialling();
        let code = Rc::clone(&self.code);
        let upstream = Upstream::new(Rc::clone(&self.hub), Rc::clone(printer_session), code, now);
        Some((upstream, NoEvents(Rc::clone(printer_session))))
    }

    /// The printer's sessions.
    pub fn printer_sessions(&self) -> &[Rc<PrinterSession>] {
        self.hub.printer_sessions()
    }

    /// Completes when a session should be made for `printer_session`, or when the program ends.
    pub async fn wanted(&self, clock: impl Fn() -> Instant, printer_session: &PrinterSession) {
        while !self.hub.is_leaving() && !self.hub.is_wanted(clock(), printer_session.index()) {
            printer_session.keeper_notified().await;
        }
    }

    /// The session of `printer_session` ended, or could not begin, because of `why`. Clients get this reason as a 451 until
    /// `wait` is over.
    pub fn lost(
        &self,
        now: Instant,
        printer_session: &PrinterSession,
        why: &dyn fmt::Display,
        wait: Duration,
    ) {
        self.hub.lost(now, printer_session.index(), why, wait);
    }

    /// Clients that are logged in.
    pub fn clients(&self) -> usize {
        self.hub.clients()
    }

    /// Whether the sessions with the printer are to end.
    pub fn is_leaving(&self) -> bool {
        self.hub.is_leaving()
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "ftp"
    }

    fn connections(&self) -> usize {
        self.hub.connections()
    }

    fn is_connected(&self) -> Option<bool> {
        Some(self.printer_sessions().iter().any(|session| session.is_live()))
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        self.hub.describe(visitor);
    }

    fn queue(&self) -> Option<(usize, usize)> {
        Some((self.hub.queued(), CLIENTS))
    }

    fn disconnect_all(&self) {
        self.hub.dismiss_all();
    }

    fn shut_down(&self) {
        self.hub.leave();
    }
}

/// A client's slot; dropping it frees the slot.
pub struct ClientLink {
    service: Rc<Service>,
    slot: SlotGuard<Slot>,
}

impl ClientLink {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.slot.occupancy().occupant()
    }

    /// The slot; its index is that of the data port.
    pub fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// The client's session. PASV names the address `reached`; the client has to log in before `until`.
    pub fn client(&self, reached: IpAddr, until: Instant) -> Client {
        let hub = Rc::clone(&self.service.hub);
        Client::new(hub, Rc::clone(&self.slot), Rc::clone(&self.service.code), reached, until)
    }

    /// The session of a client whose origin is locked out: it is refused.
    pub fn refused_client(&self, reached: IpAddr, now: Instant) -> Client {
        let hub = Rc::clone(&self.service.hub);
        Client::refused(hub, Rc::clone(&self.slot), Rc::clone(&self.service.code), reached, now)
    }

    /// The client has connected to its data port.
    pub fn connected(&self, now: Instant) {
        self.service.hub.connected(now, &self.slot);
    }

    /// The handler of the client's session.
    pub fn handler<F: ClientRuntime>(&self, runtime: F) -> ClientHandler<'_, F> {
        ClientHandler { link: self, runtime }
    }
}

impl Drop for ClientLink {
    fn drop(&mut self) {
        self.service.hub.drop_task(&self.slot);
    }
}

/// Handler of a client's session: its slot, and what the runtime does for it.
pub struct ClientHandler<'p, F> {
    link: &'p ClientLink,
    runtime: F,
}

impl<F: ClientRuntime> Handler<Client> for ClientHandler<'_, F> {
    fn handle_event(
        &self,
        now: Instant,
        client: &mut Client,
        event: client::Event,
    ) -> Result<(), client::Error> {
        match event {
            client::Event::Admitted => self.runtime.admitted(),
            client::Event::Passive { extended } => {
                client.passive(now, extended, self.runtime.open_passive_port());
            }
        }
        Ok(())
    }

    async fn woken(&self) {
        self.link.slot.notified().await;
    }
}

/// The handler of a session with the printer.
pub type Link = NoEvents<Rc<PrinterSession>>;

impl Wake for Rc<PrinterSession> {
    fn notified(&self) -> impl Future<Output = ()> {
        PrinterSession::notified(self)
    }
}

/// Each message of the service once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::format;
    use printer_session::{Job, TransferError};
    use slot::{CommandKind, Transfer};

    let peer = Peer::unknown();
    let name = Transfer::Store.of(b"plate 1.3mf");
    let mut samples = alloc::vec::Vec::new();
    for error in client::Error::ALL {
        samples.push(format!("{peer}: {error}"));
    }
    for error in upstream::Error::ALL {
        samples.push(format!("ftp: printer connection lost: {error}; retrying in 8 s"));
        samples.push(format!("{peer}: {name}: refused: {error}"));
    }
    for error in TransferError::ALL {
        samples.push(format!("{peer}: {name}: failed: {error}; 1000 bytes in 0.1 s (10 kB/s)"));
    }
    for fault in [wire::Fault::Verb, wire::Fault::Nul, wire::Fault::BareCr] {
        samples.push(format!("{peer}: malformed command: {fault}"));
    }
    let command_kind = CommandKind::Transfer(Transfer::Store);
    let job = Some(Job { slot: 0, number: 1, command_kind, peer });
    for wait in [hub::Wait { before: 0, job }, hub::Wait { before: 2, job }] {
        samples.push(format!("{peer}: {}: {wait}", Transfer::List.of(b"")));
    }
    samples.push(format!("{peer}: {name}: started, 1000 bytes"));
    samples.push(format!("{peer}: {name}: done, 1000 bytes in 0.1 s (10 kB/s)"));
    samples
}
