//! The one session with the printer's broker.
//!
//! `connect` is its beginning, `live` what follows; this file decodes packets, checks times and
//! decides what is sent next.
//!
//! # On the wire
//!
//! ```text
//!   proxy                                  printer
//!     │── CONNECT clean, keepalive 30 ───────►│
//!     │◄─ CONNACK ────────────────────────────│  up to five seconds on a cold P1S
//!     │── SUBSCRIBE device/<serial>/report ──►│  that topic alone: P1 and A1 close the connection over
//!     │◄─ SUBACK ─────────────────────────────│  any other
//!     │── get_version, pushall ──────────────►│
//!     │◄─ reports ────────────────────────────│
//!     │── requests, byte for byte, QoS 1 ────►│  in order, without waiting for a PUBACK: the broker of
//!     │                                       │  P1 is slow with them, and clients that wait stall
//! ```
//!
//! # When it is given up
//!
//! A printer that parses a job may be silent for 135 seconds, and a connection made meanwhile makes
//! it abort the job ([`protocol`](crate::protocol#mqtt)): so silence alone ends the session only after
//! [`SILENCE_TIMEOUT`]. A printer that is gone is noticed by TCP long before.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time to CONNACK, and to SUBACK | [`ANSWER_TIMEOUT`] | the connection is closed and dialled again |
//! | a report | the inbox, `BOARD.mqtt.large.size` | skipped, counted and logged; the state is stale unless the report's beginning shows that it is an answer |
//! | requests without PUBACK | [`IN_FLIGHT`], [`PUBACK_TIMEOUT`] | no longer waited for |

mod connect;
mod live;

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::Topics;
use super::address::Content;
use super::queue::RequestQueue;
use super::report;
use super::wire::{self, ConnectCode, Packet, PacketId, PacketType, WireError};
use crate::auth::AccessCode;
use crate::cause::Cause;
use crate::clock::Instant;
use crate::memory::KIB;
use crate::memory::budget::LINE;
use crate::session::{Consumed, Output, Session};
use live::{InFlight, PUSH_ALL, Sending};

/// How long the printer may take to answer CONNECT, and SUBSCRIBE. A cold P1S takes up to five
/// seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The keepalive announced, and the longest time in which nothing is sent. The P1 series closes a
/// connection after one and a half times what was announced.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Without a report for this long, the printer is asked for its full state once.
const NUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Without a report for this long, the printer is called silent: it was asked for its full state, and had the time to answer.
pub const QUIET_TIMEOUT: Duration =
    Duration::from_secs(NUDGE_TIMEOUT.as_secs() + ANSWER_TIMEOUT.as_secs() + 5);
const _: () = assert!(QUIET_TIMEOUT.as_secs() < SILENCE_TIMEOUT.as_secs());

/// Without a report for this long, the connection is closed: longer than the 135 seconds that a P1P
/// may take to parse a job.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(150);

/// Requests whose PUBACK is waited for.
pub const IN_FLIGHT: usize = 32;

/// How long the PUBACK of a request is waited for.
pub const PUBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes at the beginning of an oversized report that are looked at. A report that they do not tell counts as
/// one of the state.
const PEEK: usize = 4 * KIB;
const _: () = assert!(PEEK <= super::REPORT_INBOX);

/// The longest packet that is written in one piece, in bytes: CONNECT, or a request of the proxy's own.
const HEAD: usize = 192;
const _: () = assert!(HEAD >= 5 + 2 + super::TOPIC + 2 + PUSH_ALL.len());

/// What the printer's session reports to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// The subscription is confirmed; requests are accepted.
    Live,
    /// A report.
    Report {
        /// The payload, byte for byte.
        payload: &'i [u8],
    },
    /// A report larger than any frame; it was skipped.
    Oversized {
        /// Bytes in the packet.
        bytes: usize,
        /// What the report is, as far as its beginning shows.
        content: Content,
    },
}

/// Why the session with the printer has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The printer refused CONNECT. Codes 4 and 5 mean that the access code is wrong.
    Refused(ConnectCode),
    /// The printer refused the subscription.
    SubscriptionRefused,
    /// The printer did not answer CONNECT or SUBSCRIBE within [`ANSWER_TIMEOUT`].
    NoAnswer,
    /// No report for [`SILENCE_TIMEOUT`].
    Silent,
    /// A packet that violates MQTT 3.1.1.
    Malformed(WireError),
    /// A packet that only a client sends, or an answer to nothing.
    OutOfOrder,
    /// The program ends.
    ShuttingDown,
}

impl Error {
    /// Whether the printer refuses the access code.
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
            Self::Refused(_) if self.is_wrong_code() => Cause::WRONG_CODE.fmt(f),
            Self::Refused(code) => {
                write!(f, "the printer's broker refuses the connection (CONNACK {})", code as u8)
            }
            Self::SubscriptionRefused => Cause::SUBSCRIPTION.fmt(f),
            Self::NoAnswer => Cause::NO_CONNACK.with(ANSWER_TIMEOUT.as_secs()).fmt(f),
            Self::Silent => {
                write!(f, "no report from the printer for {} s", SILENCE_TIMEOUT.as_secs())
            }
            Self::Malformed(error) => write!(f, "malformed packet from the printer: {error}"),
            Self::OutOfOrder => f.write_str("unexpected packet type from the printer"),
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

/// How far the session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// CONNECT has no answer yet.
    Connecting,
    /// SUBSCRIBE has no answer yet.
    Subscribing,
    /// Reports and requests are exchanged.
    Live,
}

/// The session with the printer.
pub struct Upstream {
    queue: Rc<RequestQueue>,
    topics: Rc<Topics>,
    code: Rc<AccessCode>,
    phase: Phase,
    /// CONNECT or SUBSCRIBE still has to be sent.
    due: bool,
    /// DISCONNECT has been sent, or the session has failed.
    over: bool,
    /// Deadline of the answer that the phase waits for.
    until: Instant,
    last_sent: Instant,
    nudged: bool,
    /// Bytes of an oversized report still to be skipped.
    skipping: usize,
    next_id: u16,
    /// A QoS 1 report to acknowledge. Printers send QoS 0; nothing is read while one waits.
    to_acknowledge: Option<PacketId>,
    sending: Option<Sending>,
    in_flight: heapless::Deque<InFlight, IN_FLIGHT>,
}

const _: () = assert!(
    size_of::<RequestQueue>() + size_of::<Upstream>() <= LINE,
    "the request queue and the printer's session are larger than their budget"
);

impl Upstream {
    /// A session over a connection that was just made.
    pub fn new(
        queue: Rc<RequestQueue>,
        topics: Rc<Topics>,
        code: Rc<AccessCode>,
        now: Instant,
    ) -> Self {
        Self {
            queue,
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

    /// How far the session has come.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The next packet identifier: 1 to 65535, and around.
    fn packet_id(&mut self) -> Option<PacketId> {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id)
    }

    /// Notes that a report came.
    fn set_reported(&mut self, now: Instant) {
        self.queue.set_reported(now);
        self.nudged = false;
    }

    /// Writes what the session itself has to send. Returns the number of bytes, or `None` if nothing is
    /// due.
    fn write_own_due(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.queue.is_leaving() {
            self.over = true;
            return wire::disconnect(out);
        }
        if self.due {
            return self.write_login(out);
        }
        if let Some(id) = self.to_acknowledge.take() {
            return wire::puback(out, id);
        }
        if self.phase == Phase::Live { self.write_question(now, out) } else { None }
    }

    fn handle_packet<'i>(
        &mut self,
        now: Instant,
        packet: &Packet<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        match *packet {
            Packet::ConnAck { .. } | Packet::SubAck(_) => self.handle_login_answer(now, packet),
            Packet::Publish(ref publish) => Ok(self.handle_publish(now, publish)),
            Packet::PubAck(id) => {
                self.handle_puback(id);
                Ok(None)
            }
            Packet::PingResp | Packet::UnsubAck(_) => Ok(None),
            Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect => Err(Error::OutOfOrder),
        }
    }

    fn decode<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
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
            let Some(content) = self.peek(input, header.body_at(), bytes) else {
                return Ok((0, None));
            };
            self.skipping = bytes;
            self.set_reported(now);
            return Ok((0, Some(Event::Oversized { bytes, content })));
        }
        let Some(body) = input.get(header.body_at()..bytes) else { return Ok((0, None)) };
        let packet = wire::packet(header, body)?;
        Ok((bytes, self.handle_packet(now, &packet)?))
    }

    /// What an oversized report is, by the beginning of its packet. `None` asks for more bytes.
    fn peek(&self, input: &[u8], body_at: usize, bytes: usize) -> Option<Content> {
        let topic = &self.topics.report;
        let payload_at = body_at + 2 + topic.len();
        if let Some(got) = input.get(body_at + 2..payload_at)
            && got != topic.as_bytes()
        {
            return Some(Content::Answer);
        }
        // Printers send QoS 0; a packet identifier before the payload makes it undecided.
        let seen = report::peek(input.get(payload_at..).unwrap_or_default());
        seen.or_else(|| (input.len() >= PEEK.min(bytes)).then_some(Content::State))
    }

    fn check_times(&mut self, now: Instant) -> Result<(), Error> {
        if self.phase != Phase::Live {
            return if self.until <= now { Err(Error::NoAnswer) } else { Ok(()) };
        }
        self.forget_old(now);
        let quiet = now.since(self.queue.last_report());
        if quiet >= SILENCE_TIMEOUT {
            return Err(Error::Silent);
        }
        if quiet >= NUDGE_TIMEOUT && !self.nudged {
            self.nudged = true;
            self.queue.ask_state();
        }
        Ok(())
    }
}

impl Session for Upstream {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
        // After a failure no further request is sent: a request that was not sent can be sent again.
        self.decode(now, input).inspect_err(|_error| self.over = true)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.check_times(now).inspect_err(|_error| self.over = true)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Live {
            return Some(self.until);
        }
        let quiet =
            self.queue.last_report() + if self.nudged { SILENCE_TIMEOUT } else { NUDGE_TIMEOUT };
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
pub(super) mod tests {
    use super::*;
    use crate::memory::KIB;
    use crate::memory::pool::{Pool, Shape};
    use crate::memory::slots::Slots;
    use crate::mqtt::queue::{Request, STALE_TIMEOUT};
    use crate::mqtt::slot::{Ack, Slot};
    use crate::peer::Peer;
    use alloc::vec::Vec;

    pub(in crate::mqtt) const CONNACK: &[u8] = b"\x20\x02\x00\x00";
    pub(in crate::mqtt) const SUBACK: &[u8] = b"\x90\x03\x00\x01\x00";

    /// A session with its queue and one client's slot.
    pub(in crate::mqtt) fn session() -> (Upstream, Rc<RequestQueue>, Rc<Slot>) {
        let slot = Slot::new();
        let queue = Rc::new(RequestQueue::new(Slots::new(1, |_| Rc::clone(&slot))));
        let code = Rc::new(AccessCode::new(b"12345678").unwrap());
        let topics = Rc::new(Topics::new("01P00A", 1));
        (Upstream::new(Rc::clone(&queue), topics, code, Instant::START), queue, slot)
    }

    pub(in crate::mqtt) fn live() -> (Upstream, Rc<RequestQueue>, Rc<Slot>) {
        let (mut upstream, queue, slot) = session();
        written(&mut upstream, Instant::START);
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        written(&mut upstream, Instant::START);
        let live = upstream.handle_input(Instant::START, SUBACK);
        assert_eq!(live, Ok((SUBACK.len(), Some(Event::Live))));
        written(&mut upstream, Instant::START);
        (upstream, queue, slot)
    }

    /// All that the session sends now.
    pub(in crate::mqtt) fn written(upstream: &mut Upstream, now: Instant) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = alloc::vec![0; KIB];
        while let Output::Written(len) = upstream.poll_output(now, &mut out) {
            all.extend_from_slice(&out[..len]);
        }
        all
    }

    /// Puts a client's request into the queue.
    pub(in crate::mqtt) fn put(queue: &RequestQueue, slot: &Rc<Slot>, payload: &[u8], id: u16) {
        let pool = Pool::new(Shape { count: 1, size: 64 }, Shape { count: 1, size: 8 * KIB });
        let payload = pool.store(&[payload]).unwrap();
        let pending_ack = slot.owe(Ack::PubAck(PacketId::new(id).unwrap())).unwrap();
        assert!(queue.put(Request { payload, pending_ack, mark: u64::from(id) }).is_ok());
    }

    pub(in crate::mqtt) fn occupied(slot: &Slot) {
        crate::mqtt::slot::taken_by(slot, Peer::unknown());
        slot.wait(1);
        slot.admit();
    }

    #[test]
    fn an_oversized_report_is_skipped_however_it_is_split() {
        let len = crate::mqtt::REPORT_INBOX + 1;
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
                    Some(Event::Oversized { bytes, content }) => {
                        assert_eq!((bytes, content), (end, Content::Answer), "another topic");
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
    fn a_silent_printer_is_pinged_asked_once_and_given_up() {
        let (mut upstream, queue, _slot) = live();
        let mut asked = 0;
        let mut pings = 0;
        loop {
            let now = upstream.poll_timeout().unwrap();
            match upstream.handle_timeout(now) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!((error, now), (Error::Silent, Instant::at(SILENCE_TIMEOUT)));
                    break;
                }
            }
            assert_eq!(queue.is_fresh(now), now < Instant::at(STALE_TIMEOUT), "{now:?}");
            let sent = written(&mut upstream, now);
            pings += usize::from(sent == [0xc0, 0]);
            asked += usize::from(sent.ends_with(PUSH_ALL));
        }
        assert_eq!((asked, pings), (1, 3));
    }

    #[test]
    fn a_failed_session_sends_no_further_request() {
        let (mut upstream, queue, slot) = live();
        occupied(&slot);
        put(&queue, &slot, b"{}", 7);
        let failed = upstream.handle_input(Instant::START, b"\xff\x00");
        assert!(matches!(failed, Err(Error::Malformed(_))));
        let mut out = [0; KIB];
        let end = upstream.poll_output(Instant::START, &mut out);
        assert_eq!(end, Output::End(Error::ShuttingDown));
        assert!(queue.take().is_some(), "its sender is to learn that it was not sent");
    }

    #[test]
    fn leaving_sends_disconnect_and_nothing_after_it() {
        let (mut upstream, queue, slot) = live();
        occupied(&slot);
        queue.leave();
        put(&queue, &slot, b"{}", 7);
        let mut out = [0; KIB];
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Written(2));
        assert_eq!(out[..2], [0xe0, 0]);
        let end = upstream.poll_output(Instant::START, &mut out);
        assert_eq!(end, Output::End(Error::ShuttingDown));
    }
}
