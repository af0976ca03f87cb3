//! The one conversation with the printer's broker.
//!
//! # On the wire
//!
//! ```text
//!   proxy                                  printer
//!     │── CONNECT clean, keepalive 30 ───────►│
//!     │◄─ CONNACK ────────────────────────────│  up to five seconds on a cold P1S
//!     │── SUBSCRIBE device/<serial>/report ──►│  that topic alone: P1 and A1 end the connection over
//!     │◄─ SUBACK ─────────────────────────────│  any other
//!     │── get_version, pushall ──────────────►│
//!     │◄─ reports ────────────────────────────│
//!     │── requests, byte for byte, QoS 1 ────►│  in order, without waiting for a PUBACK: the broker of
//!     │                                       │  P1 is slow with them and stalls whoever waits
//! ```
//!
//! # When it is given up
//!
//! A printer that parses a job may say nothing for 135 seconds, and a connection made meanwhile makes
//! it abort the job (PROTOCOL pitfall 23): so silence alone ends the conversation only after
//! [`SILENCE`]. A printer that is gone is noticed by TCP long before.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | time to CONNACK, and to SUBACK | [`ANSWER_TIMEOUT`] | given up, dialled again |
//! | a report | the inbox, `BOARD.mqtt.large.size` | skipped, counted, said |
//! | requests on their way | `BOARD.mqtt.requests` | their senders are not read further |
//! | requests without PUBACK | [`IN_FLIGHT`], [`UNACKNOWLEDGED`] | no longer watched |

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use super::Topics;
use super::address::Patches;
use super::slot::{PendingAck, Slot};
use super::wire::{
    self, ConnectCode, Packet, PacketId, PacketType, Publish, Qos, SubscribeCode, WireError,
};
use crate::auth::{AccessCode, USER};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget::LINE;
use crate::memory::pool::Frame;
use crate::memory::ring::{Full, Ring};
use crate::notify::Notify;
use crate::session::{Blame, Output, Session};

/// How long the printer may take to answer CONNECT, and SUBSCRIBE. A cold P1S takes up to five
/// seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The keepalive announced, and the longest we are silent. The P1 series reaps after one and a half
/// times what was announced.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Without a report for this long, what is known of the printer is no longer taken for its state:
/// even an idle A1 reports every two seconds.
pub const STALE: Duration = Duration::from_secs(30);

/// Without a report for this long, the printer is asked for its full state once.
const NUDGE: Duration = Duration::from_secs(60);

/// Without a report for this long, the conversation is given up: longer than the 135 seconds a P1P
/// may take to parse a job.
pub const SILENCE: Duration = Duration::from_secs(150);

/// Requests without PUBACK that are watched.
pub const IN_FLIGHT: usize = 32;

/// How long a request without PUBACK is watched.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// How long a request is remembered: a client that resends does so when it is back, and packet
/// identifiers come around.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Requests remembered, so that a client's resend over a new connection is not done twice.
const RECENT: usize = 32;

/// The longest packet that is written in one piece: CONNECT, or a request of our own.
const HEAD: usize = 192;
const _: () = assert!(HEAD >= 5 + 2 + super::TOPIC + 2 + PUSH_ALL.len());

const GET_VERSION: &[u8] = br#"{"info":{"sequence_id":"0","command":"get_version"}}"#;
const PUSH_ALL: &[u8] =
    br#"{"pushing":{"sequence_id":"0","command":"pushall","version":1,"push_target":1}}"#;

/// What the hub and the printer's session have between them.
pub struct RequestQueue {
    /// Who may be waiting for room.
    slots: Rc<[Rc<Slot>]>,
    /// Who is woken first when there is room again.
    first: Cell<usize>,
    live: Cell<bool>,
    leaving: Cell<bool>,
    requests: RefCell<Ring<Request, { BOARD.mqtt.requests }>>,
    wants_state: Cell<bool>,
    wants_version: Cell<bool>,
    last_report: Cell<Option<Instant>>,
    /// The request that [`take`](Self::take) gave out and that has not left in full.
    carrying: Cell<Option<u64>>,
    /// The last requests that have left in full.
    sent: RefCell<heapless::HistoryBuf<(u64, Instant), RECENT>>,
    notify: Notify,
}

/// A request on its way to the printer.
pub struct Request {
    /// The payload, byte for byte.
    pub payload: Frame<Patches>,
    /// Who is to learn what became of it.
    pub pending_ack: PendingAck,
    /// What it is recognised by when its sender sends it again.
    pub mark: u64,
}

impl RequestQueue {
    /// A line that is down, for the clients in `slots`.
    pub fn new(slots: Rc<[Rc<Slot>]>) -> Self {
        Self {
            slots,
            first: Cell::new(0),
            live: Cell::new(false),
            leaving: Cell::new(false),
            requests: RefCell::new(Ring::new()),
            wants_state: Cell::new(false),
            wants_version: Cell::new(false),
            last_report: Cell::new(None),
            carrying: Cell::new(None),
            sent: RefCell::new(heapless::HistoryBuf::new()),
            notify: Notify::default(),
        }
    }

    /// Whether the printer's broker takes requests.
    pub fn is_live(&self) -> bool {
        self.live.get()
    }

    /// Ends the conversation: DISCONNECT next, and nothing after it.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.notify.notify();
    }

    /// Whether the conversation is to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether the printer has reported lately enough for its state to be known.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.live.get() && self.last_report.get().is_some_and(|last| now.since(last) < STALE)
    }

    /// Whether one more request fits.
    pub fn has_room(&self) -> bool {
        !self.requests.borrow().is_full()
    }

    /// Puts a request behind the others.
    ///
    /// # Errors
    ///
    /// There is no room; here is the request back.
    pub(super) fn put(&self, request: Request) -> Result<(), Full<Request>> {
        self.requests.borrow_mut().push(request)?;
        self.notify.notify();
        Ok(())
    }

    /// Takes the oldest request. Whoever could not be read for want of room is read again.
    fn take(&self) -> Option<Request> {
        let was_full = !self.has_room();
        let request = self.requests.borrow_mut().pop();
        self.carrying.set(request.as_ref().map(|request| request.mark));
        if was_full {
            // Whoever is woken first takes the room: by turns, or a busy one would starve the others.
            let first = self.first.get();
            self.first.set((first + 1) % self.slots.len().max(1));
            let (before, after) = self.slots.split_at_checked(first).unwrap_or_default();
            after.iter().chain(before).for_each(|slot| slot.notify());
        }
        request
    }

    /// Whether a request of this mark is on its way.
    pub(super) fn is_carrying(&self, mark: u64) -> bool {
        self.carrying.get() == Some(mark)
            || self.requests.borrow().iter().any(|request| request.mark == mark)
    }

    /// Whether a request of this mark has left within [`REMEMBERED`].
    pub(super) fn has_sent(&self, now: Instant, mark: u64) -> bool {
        let is = |(sent, at): &(u64, Instant)| *sent == mark && now.since(*at) < REMEMBERED;
        self.sent.borrow().oldest_ordered().any(is)
    }

    /// The request that was taken last has left in full.
    fn carried(&self, now: Instant) {
        if let Some(mark) = self.carrying.take() {
            self.sent.borrow_mut().write((mark, now));
        }
    }

    /// Asks the printer for its full state.
    pub(super) fn ask_state(&self) {
        self.wants_state.set(true);
        self.notify.notify();
    }

    /// Asks the printer for its versions.
    pub(super) fn ask_version(&self) {
        self.wants_version.set(true);
        self.notify.notify();
    }

    /// The conversation is over. Requests that did not leave are lost, and their senders learn it.
    pub(super) fn lost(&self) {
        self.live.set(false);
        self.wants_state.set(false);
        self.wants_version.set(false);
        self.last_report.set(None);
        self.carrying.set(None);
        // Whether these were done nobody knows any more: who sends one again gets it done.
        self.sent.borrow_mut().clear();
        self.requests.borrow_mut().clear();
        // Whoever could not be read for want of room is read, and refused.
        self.slots.iter().for_each(|slot| slot.notify());
    }

    /// Completes when there is something for the printer.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

/// What the printer's session tells the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// The subscription stands; requests are taken.
    Live,
    /// A report.
    Report {
        /// The payload, byte for byte.
        payload: &'i [u8],
    },
    /// A report larger than any frame; it was not kept.
    Oversized {
        /// Bytes in the packet.
        bytes: usize,
    },
}

/// Why the conversation with the printer has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It refused our CONNECT. Codes 4 and 5 mean the access code is wrong.
    Refused(ConnectCode),
    /// It refused our subscription.
    SubscriptionRefused,
    /// It did not answer CONNECT or SUBSCRIBE within [`ANSWER_TIMEOUT`].
    NoAnswer,
    /// No report for [`SILENCE`].
    Silent,
    /// A packet that contradicts itself or the standard.
    Malformed(WireError),
    /// A packet that only a client sends, or an answer to nothing.
    OutOfOrder,
    /// This program ends.
    ShuttingDown,
}

impl Error {
    /// Who caused it.
    pub const fn blame(self) -> Blame {
        match self {
            Self::ShuttingDown => Blame::Nobody,
            Self::NoAnswer | Self::Silent => Blame::Network,
            Self::Refused(_)
            | Self::SubscriptionRefused
            | Self::Malformed(_)
            | Self::OutOfOrder => Blame::Peer,
        }
    }

    /// Whether the printer refuses our access code.
    pub const fn is_wrong_code(self) -> bool {
        matches!(
            self,
            Self::Refused(ConnectCode::BadUserNameOrPassword | ConnectCode::NotAuthorized)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Refused(_) if self.is_wrong_code() => f.write_str(
                "the printer refuses the access code: compare it with the one on the printer's \
                 screen (it changes when LAN mode is switched)",
            ),
            Self::Refused(code) => {
                write!(f, "the printer's broker refuses us with CONNACK {}", code as u8)
            }
            Self::SubscriptionRefused => f.write_str(
                "the printer's broker refuses our subscription: is this its serial number?",
            ),
            Self::NoAnswer => write!(
                f,
                "the printer's broker did not answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            ),
            Self::Silent => {
                write!(f, "the printer reported nothing for {} s", SILENCE.as_secs())
            }
            Self::Malformed(error) => write!(f, "malformed packet from the printer: {error}"),
            Self::OutOfOrder => f.write_str("a packet from the printer that has no place here"),
            Self::ShuttingDown => f.write_str("shutting down"),
        }
    }
}

impl core::error::Error for Error {}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}

/// How far a conversation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// CONNECT has no answer yet.
    Connecting,
    /// SUBSCRIBE has no answer yet.
    Subscribing,
    /// Reports and requests flow.
    Live,
}

/// The printer's session.
pub struct Upstream {
    line: Rc<RequestQueue>,
    topics: Rc<Topics>,
    code: Rc<AccessCode>,
    phase: Phase,
    /// CONNECT or SUBSCRIBE still has to be sent.
    due: bool,
    /// DISCONNECT has been sent, or the conversation has failed.
    over: bool,
    /// When the answer that the phase waits for has to be here.
    until: Instant,
    last_sent: Instant,
    nudged: bool,
    /// Bytes of an oversized report still to be passed over.
    skipping: usize,
    next_id: u16,
    /// A QoS 1 report to acknowledge. Printers send QoS 0; nothing is read while one waits.
    to_acknowledge: Option<PacketId>,
    sending: Option<Sending>,
    in_flight: heapless::Deque<InFlight, IN_FLIGHT>,
}

const _: () = assert!(
    size_of::<RequestQueue>() + size_of::<Upstream>() <= LINE,
    "what is on its way to the printer is larger than its line"
);

struct Sending {
    request: Request,
    id: PacketId,
    written: usize,
}

struct InFlight {
    id: PacketId,
    pending_ack: PendingAck,
    since: Instant,
}

impl Upstream {
    /// A session over a connection that was just made.
    pub fn new(
        line: Rc<RequestQueue>,
        topics: Rc<Topics>,
        code: Rc<AccessCode>,
        now: Instant,
    ) -> Self {
        Self {
            line,
            topics,
            code,
            phase: Phase::Connecting,
            due: true,
            over: false,
            until: now + ANSWER_TIMEOUT,
            last_sent: now,
            nudged: false,
            skipping: 0,
            next_id: 0,
            to_acknowledge: None,
            sending: None,
            in_flight: heapless::Deque::new(),
        }
    }

    /// How far the conversation came.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The next packet identifier: 1 to 65535, and around.
    fn packet_id(&mut self) -> Option<PacketId> {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id)
    }

    fn last_report(&self) -> Instant {
        self.line.last_report.get().unwrap_or(Instant::START)
    }

    /// The printer has reported something.
    fn heard(&mut self, now: Instant) {
        self.line.last_report.set(Some(now));
        self.nudged = false;
    }

    /// Watches for the printer's PUBACK to a request that has left.
    fn watch(&mut self, now: Instant, id: PacketId, mut pending_ack: PendingAck) {
        pending_ack.sent();
        self.line.carried(now);
        if self.in_flight.is_full()
            && let Some(oldest) = self.in_flight.pop_front()
        {
            oldest.pending_ack.settle();
        }
        // It fits: there is room for one now.
        let _fits = self.in_flight.push_back(InFlight { id, pending_ack, since: now });
    }

    /// No longer watches for a PUBACK that does not come.
    fn forget_old(&mut self, now: Instant) {
        while self.in_flight.front().is_some_and(|oldest| now.since(oldest.since) >= UNACKNOWLEDGED)
        {
            if let Some(oldest) = self.in_flight.pop_front() {
                oldest.pending_ack.settle();
            }
        }
    }

    fn handle_puback(&mut self, id: PacketId) {
        // Acknowledgements come in the order of the requests (MQTT 3.1.1 §4.6), so this is the first
        // or close to it.
        for _ in 0..self.in_flight.len() {
            let Some(oldest) = self.in_flight.pop_front() else { return };
            if oldest.id == id {
                oldest.pending_ack.settle();
            } else {
                let _fits = self.in_flight.push_back(oldest);
            }
        }
    }

    /// Writes a request of our own.
    fn write_own(&mut self, out: &mut [u8], payload: &[u8]) -> Option<usize> {
        let id = self.packet_id()?;
        wire::publish(out, &self.request(id, payload))
    }

    /// A message to the printer's request topic.
    fn request<'a>(&'a self, id: PacketId, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: &self.topics.request,
            id: Some(id),
            payload,
        }
    }

    /// Writes what the conversation itself requires. How much, or `None` if there is nothing.
    fn write_own_due(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.line.is_leaving() {
            self.over = true;
            return wire::disconnect(out);
        }
        if self.due {
            self.due = false;
            return match self.phase {
                Phase::Connecting => {
                    let keep_alive = u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
                    let id = &self.topics.client_id;
                    wire::connect(out, keep_alive, id, USER, self.code.reveal())
                }
                Phase::Subscribing => {
                    let id = self.packet_id()?;
                    wire::subscribe(out, id, &[(&self.topics.report, Qos::AtMostOnce)])
                }
                Phase::Live => None,
            };
        }
        if let Some(id) = self.to_acknowledge.take() {
            return wire::puback(out, id);
        }
        if self.phase != Phase::Live {
            return None;
        }
        if self.line.wants_version.replace(false) {
            return self.write_own(out, GET_VERSION);
        }
        if self.line.wants_state.replace(false) {
            return self.write_own(out, PUSH_ALL);
        }
        if now.since(self.last_sent) >= KEEP_ALIVE {
            return wire::pingreq(out);
        }
        None
    }

    /// Begins the next request. How much was written, or `None` if there is none.
    fn begin_request(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.phase != Phase::Live {
            return None;
        }
        let request = self.line.take()?;
        let id = self.packet_id()?;
        let head = wire::publish_head(out, &self.request(id, &[]), request.payload.len())?;
        self.sending = Some(Sending { request, id, written: 0 });
        Some(head)
    }

    /// Goes on with the request that is on its way. How much was written.
    fn write_request(&mut self, out: &mut [u8]) -> usize {
        let Some(sending) = &mut self.sending else { return 0 };
        let rest = sending.request.payload.get(sending.written..).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        sending.written += len;
        len
    }

    /// Hands over the request that has been written in full: called when its bytes have been sent.
    fn finish_request(&mut self, now: Instant) {
        let all = |sending: &mut Sending| sending.written == sending.request.payload.len();
        if let Some(sending) = self.sending.take_if(all) {
            self.watch(now, sending.id, sending.request.pending_ack);
        }
    }

    fn handle_answer<'i>(
        &mut self,
        now: Instant,
        packet: &Packet<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        // Before it was asked, nothing is an answer.
        let asked = (!self.due).then_some(self.phase);
        match *packet {
            Packet::ConnAck { code: ConnectCode::Accepted, .. }
                if asked == Some(Phase::Connecting) =>
            {
                self.phase = Phase::Subscribing;
                self.due = true;
                self.until = now + ANSWER_TIMEOUT;
                Ok(None)
            }
            Packet::ConnAck { code, .. } if asked == Some(Phase::Connecting) => {
                Err(Error::Refused(code))
            }
            Packet::SubAck(ref suback) if asked == Some(Phase::Subscribing) => {
                if suback.codes().any(|code| code == SubscribeCode::Refused) {
                    return Err(Error::SubscriptionRefused);
                }
                self.phase = Phase::Live;
                self.line.live.set(true);
                self.line.last_report.set(Some(now));
                self.line.wants_version.set(true);
                self.line.wants_state.set(true);
                Ok(Some(Event::Live))
            }
            Packet::Publish(ref publish) => {
                if publish.qos == Qos::AtLeastOnce {
                    self.to_acknowledge = publish.id;
                }
                if publish.topic != self.topics.report.as_str() {
                    return Ok(None);
                }
                self.heard(now);
                Ok(Some(Event::Report { payload: publish.payload }))
            }
            Packet::PubAck(id) => {
                self.handle_puback(id);
                Ok(None)
            }
            Packet::PingResp | Packet::UnsubAck(_) => Ok(None),
            Packet::ConnAck { .. }
            | Packet::SubAck(_)
            | Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect => Err(Error::OutOfOrder),
        }
    }

    fn understand<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Event<'i>>), Error> {
        if self.skipping > 0 {
            let skipped = self.skipping.min(input.len());
            self.skipping -= skipped;
            return Ok((skipped, None));
        }
        if self.to_acknowledge.is_some() {
            return Ok((0, None));
        }
        let Some(header) = wire::header(input)? else { return Ok((0, None)) };
        let bytes = header.total();
        if bytes > super::REPORT_INBOX {
            if header.kind() != PacketType::Publish {
                return Err(Error::OutOfOrder);
            }
            self.skipping = bytes;
            self.heard(now);
            return Ok((0, Some(Event::Oversized { bytes })));
        }
        let Some(body) = input.get(header.body_at()..bytes) else { return Ok((0, None)) };
        let packet = wire::packet(header, body)?;
        Ok((bytes, self.handle_answer(now, &packet)?))
    }

    fn look_at_the_time(&mut self, now: Instant) -> Result<(), Error> {
        if self.phase != Phase::Live {
            return if self.until <= now { Err(Error::NoAnswer) } else { Ok(()) };
        }
        self.forget_old(now);
        let quiet = now.since(self.last_report());
        if quiet >= SILENCE {
            return Err(Error::Silent);
        }
        if quiet >= NUDGE && !self.nudged {
            self.nudged = true;
            self.line.wants_state.set(true);
        }
        Ok(())
    }
}

impl Session for Upstream {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Event<'i>>), Error> {
        // Once it has failed nothing more is begun: a request that is not sent can be sent again.
        self.understand(now, input).inspect_err(|_error| self.over = true)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.look_at_the_time(now).inspect_err(|_error| self.over = true)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Live {
            return Some(self.until);
        }
        let quiet = self.last_report() + if self.nudged { SILENCE } else { NUDGE };
        let ping = self.last_sent + KEEP_ALIVE;
        Some(quiet.min(ping))
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        self.finish_request(now);
        if self.over {
            return Output::End(Error::ShuttingDown);
        }
        let mut written = 0;
        while let Some(room) = out.get_mut(written..).filter(|room| room.len() > HEAD) {
            if self.sending.is_some() {
                let more = self.write_request(room);
                written += more;
                // The request counts as sent at the next call, when these bytes have left.
                break;
            }
            if let Some(len) = self.write_own_due(now, room) {
                written += len;
                self.last_sent = now;
                if self.over {
                    break;
                }
            } else if let Some(len) = self.begin_request(room) {
                written += len;
                self.last_sent = now;
            } else {
                break;
            }
        }
        if written > 0 { Output::Written(written) } else { Output::Idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::KIB;
    use crate::memory::pool::{Pool, Shape};
    use crate::mqtt::slot::{Ack, SlotState};
    use crate::peer::Peer;
    use alloc::vec::Vec;

    const CONNACK: &[u8] = b"\x20\x02\x00\x00";
    const SUBACK: &[u8] = b"\x90\x03\x00\x01\x00";

    /// A session with its line and one client's slot.
    fn session() -> (Upstream, Rc<RequestQueue>, Rc<Slot>) {
        let slot = Slot::new();
        let line = Rc::new(RequestQueue::new([Rc::clone(&slot)].into()));
        let code = Rc::new(AccessCode::new(b"12345678").unwrap());
        let topics = Rc::new(Topics::new("01P00A", 1));
        (Upstream::new(Rc::clone(&line), topics, code, Instant::START), line, slot)
    }

    fn live() -> (Upstream, Rc<RequestQueue>, Rc<Slot>) {
        let (mut upstream, line, slot) = session();
        said(&mut upstream, Instant::START);
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        said(&mut upstream, Instant::START);
        let live = upstream.handle_input(Instant::START, SUBACK);
        assert_eq!(live, Ok((SUBACK.len(), Some(Event::Live))));
        said(&mut upstream, Instant::START);
        (upstream, line, slot)
    }

    /// All it has to say now.
    fn said(upstream: &mut Upstream, now: Instant) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = alloc::vec![0; KIB];
        while let Output::Written(len) = upstream.poll_output(now, &mut out) {
            all.extend_from_slice(&out[..len]);
        }
        all
    }

    /// A client's request, put into the line.
    fn put(line: &RequestQueue, slot: &Rc<Slot>, payload: &[u8], id: u16) {
        let pool = Pool::new(Shape { count: 1, size: 64 }, Shape { count: 1, size: 8 * KIB });
        let payload = pool.store(&[payload]).unwrap();
        let pending_ack = slot.owe(Ack::PubAck(PacketId::new(id).unwrap())).unwrap();
        assert!(line.put(Request { payload, pending_ack, mark: u64::from(id) }).is_ok());
    }

    fn occupied(slot: &Slot) {
        slot.pending(Instant::START, Peer::unknown());
        slot.wait(1);
        slot.admit();
    }

    #[test]
    fn the_printer_hears_connect_then_one_subscription_then_two_questions() {
        let (mut upstream, line, _slot) = session();
        let hello = said(&mut upstream, Instant::START);
        assert_eq!(hello[..12], *b"\x10\x32\x00\x04MQTT\x04\xc2\x00\x1e");
        assert!(hello.ends_with(b"\x00\x04bblp\x00\x0812345678"));
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        let subscribe = said(&mut upstream, Instant::START);
        assert_eq!(subscribe, b"\x82\x19\x00\x01\x00\x14device/01P00A/report\x00");
        assert!(!line.is_live());
        upstream.handle_input(Instant::START, SUBACK).unwrap();
        assert!(line.is_live());
        let questions = said(&mut upstream, Instant::START);
        let find = |what: &[u8]| questions.windows(what.len()).position(|at| at == what);
        assert!(find(GET_VERSION).unwrap() < find(PUSH_ALL).unwrap());
    }

    #[test]
    fn answers_are_understood_wherever_they_are_split() {
        let whole = [CONNACK, SUBACK].concat();
        for split in 0..CONNACK.len() {
            let (mut upstream, ..) = session();
            said(&mut upstream, Instant::START);
            assert_eq!(upstream.handle_input(Instant::START, &whole[..split]), Ok((0, None)));
            assert_eq!(upstream.handle_input(Instant::START, &whole), Ok((CONNACK.len(), None)));
            assert_eq!(upstream.phase(), Phase::Subscribing, "split at {split}");
        }
    }

    #[test]
    fn an_answer_to_what_was_not_asked_yet_ends_the_conversation() {
        let (mut upstream, ..) = session();
        assert!(upstream.handle_input(Instant::START, CONNACK).is_err(), "CONNECT has not left");
        let (mut upstream, line, _slot) = session();
        said(&mut upstream, Instant::START);
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        assert!(upstream.handle_input(Instant::START, SUBACK).is_err(), "SUBSCRIBE has not left");
        assert!(!line.is_live());
    }

    #[test]
    fn a_wrong_code_is_told_apart_from_a_busy_broker() {
        for (code, wrong) in [(4, true), (5, true), (3, false), (1, false)] {
            let (mut upstream, ..) = session();
            said(&mut upstream, Instant::START);
            let connack = [0x20, 2, 0, code];
            let refused = upstream.handle_input(Instant::START, &connack);
            let Err(error @ Error::Refused(_)) = refused else { panic!("{refused:?}") };
            assert_eq!(error.is_wrong_code(), wrong, "{code}");
        }
    }

    #[test]
    fn a_request_is_acknowledged_once_its_bytes_have_left_and_not_before() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        put(&line, &slot, &[b'x'; 3000], 7);
        let mut out = [0; KIB];
        let mut pieces = 0;
        let mut payload = 0;
        while let Output::Written(len) = upstream.poll_output(Instant::START, &mut out) {
            assert_eq!(slot.take_ack(), None, "after {pieces} pieces");
            payload += out[..len].iter().filter(|byte| **byte == b'x').count();
            pieces += 1;
        }
        assert_eq!((pieces, payload), (3, 3000));
        assert_eq!(slot.take_ack(), Some(Ack::PubAck(PacketId::new(7).unwrap())));
    }

    #[test]
    fn a_request_the_printer_never_acknowledged_is_lost_with_its_connection_and_its_sender_told() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        put(&line, &slot, b"{}", 7);
        said(&mut upstream, Instant::START);
        drop(upstream);
        let lost = crate::mqtt::client::Error::RequestLost;
        assert_eq!(slot.standing(), SlotState::Dismissed(lost));
    }

    #[test]
    fn a_request_the_printer_acknowledged_is_nobodys_worry_any_more() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        put(&line, &slot, b"{}", 7);
        said(&mut upstream, Instant::START);
        // Packet ids so far: SUBSCRIBE 1, get_version 2, pushall 3.
        upstream.handle_input(Instant::START, b"\x40\x02\x00\x04").unwrap();
        drop(upstream);
        assert_eq!(slot.standing(), SlotState::Occupied);
    }

    #[test]
    fn a_printer_that_never_acknowledges_is_watched_for_a_minute_and_not_longer() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        put(&line, &slot, b"{}", 7);
        said(&mut upstream, Instant::START);
        line.last_report.set(Some(Instant::at(UNACKNOWLEDGED)));
        upstream.handle_timeout(Instant::at(UNACKNOWLEDGED)).unwrap();
        drop(upstream);
        assert_eq!(slot.standing(), SlotState::Occupied);
    }

    #[test]
    fn an_oversized_report_is_passed_over_wherever_it_is_split_and_the_next_one_is_heard() {
        let len = super::super::REPORT_INBOX + 1;
        let mut stream = alloc::vec![0x30];
        stream.extend([
            (len & 0x7f) as u8 | 0x80,
            (len >> 7 & 0x7f) as u8 | 0x80,
            (len >> 14) as u8,
        ]);
        stream.resize(stream.len() + len, b'x');
        let end = stream.len();
        stream.extend(b"\x30\x18\x00\x14device/01P00A/report{}");
        for step in [1000, 4096, 16384, stream.len()] {
            let (mut upstream, ..) = live();
            let mut at = 0;
            let mut reports = 0;
            let mut oversized = 0;
            while at < stream.len() {
                let piece = &stream[at..(at + step).min(stream.len())];
                let (taken, event) = upstream.handle_input(Instant::START, piece).unwrap();
                match event {
                    Some(Event::Report { payload }) => {
                        assert_eq!(payload, b"{}");
                        reports += 1;
                    }
                    Some(Event::Oversized { bytes }) => {
                        assert_eq!(bytes, end);
                        oversized += 1;
                    }
                    Some(Event::Live) | None => {}
                }
                at += taken;
            }
            assert_eq!((reports, oversized), (1, 1), "in steps of {step}");
        }
    }

    #[test]
    fn a_quiet_printer_is_pinged_then_asked_once_then_given_up() {
        let (mut upstream, line, _slot) = live();
        let mut asked = 0;
        let mut pings = 0;
        loop {
            let now = upstream.poll_timeout().unwrap();
            match upstream.handle_timeout(now) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!((error, now), (Error::Silent, Instant::at(SILENCE)));
                    break;
                }
            }
            assert_eq!(line.is_fresh(now), now < Instant::at(STALE), "{now:?}");
            let said = said(&mut upstream, now);
            pings += usize::from(said == [0xc0, 0]);
            asked += usize::from(said.ends_with(PUSH_ALL));
        }
        assert_eq!((asked, pings), (1, 3));
    }

    #[test]
    fn a_conversation_that_has_failed_begins_no_request() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        put(&line, &slot, b"{}", 7);
        let failed = upstream.handle_input(Instant::START, b"\xff\x00");
        assert!(matches!(failed, Err(Error::Malformed(_))));
        let mut out = [0; KIB];
        let end = upstream.poll_output(Instant::START, &mut out);
        assert_eq!(end, Output::End(Error::ShuttingDown));
        assert!(!line.requests.borrow().is_empty(), "its sender learns that it was not sent");
    }

    #[test]
    fn whoever_waits_for_room_is_woken_by_turns() {
        let slots: Rc<[Rc<Slot>]> = (0..3).map(|_| Slot::new()).collect();
        let line = RequestQueue::new(Rc::clone(&slots));
        let mut first = Vec::new();
        for _ in 0..4 {
            for id in 1.. {
                if !line.has_room() {
                    break;
                }
                occupied(&slots[0]);
                put(&line, &slots[0], b"{}", id);
            }
            first.push(line.first.get());
            drop(line.take());
        }
        assert_eq!(first, [0, 1, 2, 0]);
    }

    #[test]
    fn leaving_says_disconnect_and_nothing_after_it() {
        let (mut upstream, line, slot) = live();
        occupied(&slot);
        line.leave();
        put(&line, &slot, b"{}", 7);
        let mut out = [0; KIB];
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Written(2));
        assert_eq!(out[..2], [0xe0, 0]);
        let end = upstream.poll_output(Instant::START, &mut out);
        assert_eq!(end, Output::End(Error::ShuttingDown));
    }
}
