//! A simulated printer: the MQTT side of a P1S, A1 mini, X1C or H2D, their manners and their quirks.
//! Beside it stand its [chamber camera](Camera) and what other models have in its place: the
//! [file tunnel](Tunnel) on the same port, and [`Rtsp`]; and what tells [which printer](Detect) it is. Each is a handle of its own, with its bounds.
//!
//! Tests, the demo and benchmarks put it where a real printer would stand. It writes its own bytes
//! and shares no code with the proxy, so that a misunderstanding cannot cancel itself out. What it
//! does and does not do follows observations of real printers, which `src/protocol.md` collects.
//!
//! ```ignore
//! let printer = Printer::new(Model::P1S).code("12345678").connection_limit(2);
//! // Over any stream, under virtual time if you like:
//! let (near, far) = tokio::io::duplex(4096);
//! tokio::task::spawn_local({ let printer = printer.clone(); async move { printer.serve(far).await } });
//! // Over TLS, as the real ones do it:
//! let (address, serving) = printer.listen_tls((Ipv4Addr::LOCALHOST, 0).into()).await?;
//! tokio::task::spawn_local(serving);
//! // And while it runs:
//! printer.turn(Quirk::Zombie, true);
//! assert!(printer.until(secs(5), |printer| printer.pushalls() == 1).await);
//! ```
//!
//! # What it needs
//!
//! A tokio `current_thread` runtime with time. [`Printer::serve`] spawns nothing and so runs anywhere
//! in it; what [`Printer::listen_tls`] returns spawns a local task for each connection and must be
//! polled inside a `LocalSet` or a `LocalRuntime`. All time is tokio's, so paused time works with
//! in-memory streams; over sockets, do not pause it. One seed gives one run of values.
//!
//! # Whom it sends what
//!
//! A report goes to every subscriber, as with a broker, never with more than QoS 0.
//! A slow subscriber delays no other: each has a queue, and is dropped when it overflows.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections | [`Printer::connection_limit`] | refused as [`Refusal`] says |
//! | connections ignored or in TLS | [`MAX_STREAMS`] | closed |
//! | a packet, either way | 1 MiB | the connection is dropped; our own: a panic |
//! | waiting for one subscriber | [`MAX_QUEUE`] packets, [`MAX_QUEUE_BYTES`] | it is dropped |
//! | filters of one connection | 32 | SUBACK 0x80 |
//! | TLS, then CONNECT | [`HANDSHAKE_TIMEOUT`], [`CONNECT_TIMEOUT`] | dropped |
//! | a write without progress | [`WRITE_TIMEOUT`] | dropped |
//! | a client's silence | [`IDLE_TIMEOUT`] | dropped |
//! | a connection held unanswered | [`MAX_HELD`] | closed |
//! | requests, filters, hellos, endings remembered | [`KEPT`] each | the oldest is forgotten |
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::len_without_is_empty,
    clippy::new_without_default,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod broker;
pub mod camera;
pub mod detect;
pub mod ftp;
pub mod jpeg;
mod ledger;
mod listener;
mod machine;
mod model;
mod packet;
mod reports;
pub mod rtsp;
mod slot;
pub mod ssdp;
pub mod stated;
pub mod tls;
pub mod tunnel;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

pub use self::{
    camera::{Camera, OverLimit},
    detect::Detect,
    jpeg::picture_number,
    ledger::{Ending, Event, Hello, KEPT, Request},
    model::{Model, Quirk, Refusal},
    packet::MAX_PACKET,
    rtsp::Rtsp,
    slot::{MAX_QUEUE, MAX_QUEUE_BYTES},
    tls::{CA, DEVICE_CA, STRANGER_CA},
    tunnel::{Tunnel, Upload},
};

use self::ledger::Ledger;
use self::machine::{Admission, Machine, Occupied};

/// Connections that are ignored, in their handshake or being served by one listener at once.
pub const MAX_STREAMS: usize = 64;

/// The time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// The time for CONNECT after it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a client may take none of what we write.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may be silent. Long, since printers do not disconnect Orca, which is idle for hours.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a connection that is [ignored](Refusal::Ignores) is held.
pub const MAX_HELD: Duration = Duration::from_secs(600);

/// Duration of a reboot that a client asked for (printers: one to two minutes).
pub const REBOOT_TAKES: Duration = Duration::from_secs(90);

/// A handle on a simulated printer. Clones are handles on the same one.
#[derive(Clone)]
pub struct Printer {
    machine: Rc<Machine>,
}

/// Construction. Each of these may be called again while it runs, through a clone.
impl Printer {
    /// A printer with its model's manners and the code `12345678`, in the middle of a print.
    pub fn new(model: Model) -> Self {
        Self { machine: Rc::new(Machine::new(model)) }
    }

    /// The access code. It is compared byte for byte.
    pub fn code(self, code: &str) -> Self {
        *self.machine.code.borrow_mut() = code.to_owned();
        self
    }

    /// How many connections it has room for, from accept on.
    pub fn connection_limit(self, limit: usize) -> Self {
        self.machine.limit.set(limit);
        self
    }

    /// What becomes of connections over the limit and during a reboot. Default: closed.
    pub fn refusing(self, refusal: Refusal) -> Self {
        self.machine.refusal.set(refusal);
        self
    }

    /// Sends a delta (an X1C: its full state) this often while anybody is connected.
    pub fn deltas_every(self, period: Duration) -> Self {
        self.machine.push_every(period);
        self
    }

    /// Sends nothing unasked; [`delta`](Self::delta) and answers remain.
    pub fn quiet(self) -> Self {
        self.deltas_every(Duration::ZERO)
    }

    /// Whether its JSON is indented by four spaces or compact.
    pub fn indented(self, indented: bool) -> Self {
        self.machine.indented.set(indented);
        self
    }

    /// Pads its full states to about this many bytes, at most 1 MB.
    pub fn state_bytes(self, bytes: usize) -> Self {
        self.machine.bytes.set(bytes.min(MAX_STATE));
        self
    }

    /// Waits this long before every CONNACK (up to five seconds on a cold P1S).
    pub fn slow_connack(self, delay: Duration) -> Self {
        self.machine.connack_after.set(delay);
        self
    }

    /// The CONNACK return code for a wrong user or code: 5 by default, 4 on some printers.
    pub fn wrong_code_answer(self, code: u8) -> Self {
        self.machine.wrong_code_answer.set(code);
        self
    }

    /// The address in its reports. Default: 192.168.1.50.
    pub fn address(self, address: Ipv4Addr) -> Self {
        self.machine.state.borrow_mut().wear_address(address);
        self
    }

    /// Another seed of the measurements. Resets the state, so call it before `address`.
    pub fn seed(self, seed: u64) -> Self {
        self.machine.reseed(seed);
        self
    }

    /// One more quirk.
    pub fn with(self, quirk: Quirk) -> Self {
        self.turn(quirk, true);
        self
    }

    /// One quirk fewer, of those its model has.
    pub fn without(self, quirk: Quirk) -> Self {
        self.turn(quirk, false);
        self
    }

    /// Shows the certificate of another model, and so another serial. For listeners opened after.
    pub fn certificate_of(self, model: Model) -> Self {
        self.machine.show(|shown| shown.model = model);
        self
    }

    /// Shows the right serial signed by the [wrong authority](STRANGER_CA), whose name is the right
    /// one. For listeners opened after.
    pub fn stranger(self) -> Self {
        self.machine.show(|shown| shown.stranger = true);
        self
    }

    /// Sends its leaf without the authority that signed it. For listeners opened afterwards.
    pub fn leaf_only(self) -> Self {
        self.machine.show(|shown| shown.leaf_only = true);
        self
    }

    /// Calls `observer` with each event, as it happens.
    pub fn narrate(self, listener: impl Fn(&Event<'_>) + 'static) -> Self {
        *self.machine.listener.borrow_mut() = Some(Rc::new(listener));
        self
    }
}

/// What it can be made to do.
impl Printer {
    /// Takes up a quirk, or gives it up.
    pub fn turn(&self, quirk: Quirk, on: bool) {
        self.machine.turn(quirk, on);
    }

    /// Publishes this payload to all subscribers; how many there are. Not while half-open.
    pub fn report(&self, payload: &[u8]) -> usize {
        self.machine.report(payload)
    }

    /// Publishes one delta (an X1C: its full state) now; to how many.
    pub fn delta(&self) -> usize {
        self.machine.push()
    }

    /// Publishes its full state now, unasked; to how many.
    pub fn full(&self) -> usize {
        self.machine.push_full(self.machine.bytes.get())
    }

    /// Publishes its full state padded to about this many bytes, at most 1 MB, once; to how many.
    pub fn large(&self, bytes: usize) -> usize {
        self.machine.push_full(bytes.min(MAX_STATE))
    }

    /// Sends these bytes on every connection between two packets, for example [`GARBAGE`].
    pub fn raw(&self, bytes: &[u8]) {
        self.machine.raw(bytes);
    }

    /// Sends every subscriber the first half of a report and closes.
    pub fn cut(&self) {
        self.machine.cut();
    }

    /// Drops all connections without a word and refuses new ones for so long.
    pub fn reboot(&self, down_for: Duration) {
        self.machine.reboot(down_for);
    }
}

/// No packet of MQTT 3.1.1: a whole one, but of type 15, which is reserved.
pub const GARBAGE: &[u8] = b"\xff\x10no packet at all";

/// What a full state can be padded to, in bytes: a packet less its topic and some air.
const MAX_STATE: usize = MAX_PACKET - 4096;

/// Running it.
impl Printer {
    /// Serves one connection over any stream, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        match self.machine.admit() {
            Admission::Admitted(occupied) => self.converse(occupied, stream).await,
            Admission::Refused(refusal) => self.refuse(refusal, stream).await,
        }
    }

    /// Listens for TLS. Where, and what has to be polled (in a `LocalSet` or `LocalRuntime`) to serve
    /// it; dropping that closes the listener and drops all its connections.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let acceptor = TlsAcceptor::from(self.machine.shown.get().config(self.model())?);
        let printer = self.clone();
        listener::listen(address, move |stream| {
            let (printer, acceptor) = (printer.clone(), acceptor.clone());
            async move { printer.serve_tls(stream, &acceptor).await }
        })
        .await
    }

    async fn serve_tls(&self, stream: TcpStream, acceptor: &TlsAcceptor) {
        let occupied = match self.machine.admit() {
            Admission::Admitted(occupied) => occupied,
            Admission::Refused(refusal) => return self.refuse(refusal, stream).await,
        };
        let handshake = async {
            self.machine.awake(&occupied.slot).await;
            timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
        };
        let shaken = select! {
            shaken = handshake => shaken,
            ending = occupied.slot.dropped() => return occupied.end(ending),
        };
        match shaken {
            Ok(Ok(stream)) => self.converse(occupied, stream).await,
            Ok(Err(_)) | Err(_) => occupied.end(Ending::Handshake),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, occupied: Occupied, stream: S) {
        let ending = broker::converse(&self.machine, &occupied.slot, stream).await;
        occupied.end(ending);
    }

    async fn refuse<S: AsyncRead + Unpin>(&self, refusal: Refusal, mut stream: S) {
        let Some(_held) = self.machine.hold(refusal) else { return };
        let until = Instant::now() + MAX_HELD;
        let mut unread = [0; 256];
        loop {
            select! {
                read = stream.read(&mut unread) => if matches!(read, Ok(0) | Err(_)) { return },
                () = self.machine.rebooted.notified() => return,
                () = sleep_until(until) => return,
            }
        }
    }
}

/// What can be seen of it.
impl Printer {
    /// Its model.
    pub fn model(&self) -> Model {
        self.machine.model
    }

    /// Its serial number.
    pub fn serial(&self) -> &'static str {
        self.machine.model.serial()
    }

    /// Where it publishes.
    pub fn report_topic(&self) -> String {
        self.machine.report_topic.clone()
    }

    /// Where it listens.
    pub fn request_topic(&self) -> String {
        self.machine.request_topic.clone()
    }

    /// Connections it has accepted and not refused, that are not over yet.
    pub fn open(&self) -> usize {
        self.machine.open()
    }

    /// Of those, the ones that its own reports go to.
    pub fn subscribers(&self) -> usize {
        self.machine.subscribers()
    }

    /// Connections it ever accepted and did not refuse.
    pub fn ever(&self) -> u64 {
        self.look(|ledger| ledger.ever)
    }

    /// The most of them open at one time.
    pub fn most_open(&self) -> usize {
        self.look(|ledger| ledger.most)
    }

    /// Connections it refused: over the limit, or while it rebooted.
    pub fn refused(&self) -> u64 {
        self.look(|ledger| ledger.refused)
    }

    /// The fields of the CONNECT packets, oldest first, without passwords. The last [`KEPT`].
    pub fn hellos(&self) -> Vec<Hello> {
        self.look(|ledger| ledger.hellos.iter().cloned().collect())
    }

    /// Every request received, whatever became of it, oldest first. The last [`KEPT`].
    pub fn requests(&self) -> Vec<Request> {
        self.look(|ledger| ledger.requests.iter().cloned().collect())
    }

    /// How many requests it ever received.
    pub fn requests_ever(&self) -> u64 {
        self.look(|ledger| ledger.requests_ever)
    }

    /// How many of them were `pushall`.
    pub fn pushalls(&self) -> u64 {
        self.look(|ledger| ledger.pushalls)
    }

    /// How many of them were `get_version`.
    pub fn get_versions(&self) -> u64 {
        self.look(|ledger| ledger.get_versions)
    }

    /// Every filter asked for, granted or not, oldest first. The last [`KEPT`].
    pub fn subscriptions(&self) -> Vec<String> {
        self.look(|ledger| ledger.subscriptions.iter().cloned().collect())
    }

    /// Reports that were sent to at least one client; each counts once.
    pub fn reports(&self) -> u64 {
        self.look(|ledger| ledger.reports)
    }

    /// The last full state that was sent to at least one client, byte for byte.
    pub fn last_full(&self) -> Option<Rc<[u8]>> {
        self.look(|ledger| ledger.last_full.clone())
    }

    /// How connections ended, oldest first. The last [`KEPT`].
    pub fn endings(&self) -> Vec<Ending> {
        self.look(|ledger| ledger.endings.iter().copied().collect())
    }

    /// Connections that a DISCONNECT ended.
    pub fn orderly(&self) -> u64 {
        self.look(|ledger| ledger.orderly)
    }

    /// Connections that anything else ended, on either side.
    pub fn disorderly(&self) -> u64 {
        self.look(|ledger| ledger.disorderly)
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.machine.changed, within, || seen(self)).await
    }

    fn look<T>(&self, at: impl FnOnce(&Ledger) -> T) -> T {
        at(&self.machine.ledger.borrow())
    }
}

/// Waits until `seen` returns true, asking again after each change. False after this time.
async fn witnessed(changed: &Notify, within: Duration, seen: impl Fn() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        let mut changed = core::pin::pin!(changed.notified());
        changed.as_mut().enable(); // before looking, or a change between would be missed
        if seen() {
            return true;
        }
        if timeout_at(end, changed).await.is_err() {
            return seen();
        }
    }
}
