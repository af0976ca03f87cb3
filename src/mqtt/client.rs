//! The session of one MQTT client: a slicer, a dashboard, a phone.
//!
//! # On the wire
//!
//! MQTT 3.1 and 3.1.1. A client of MQTT 5 gets the MQTT 5 CONNACK "unsupported protocol version", so
//! that it can fall back. The session is always a new one: session present is 0, and nothing is kept
//! for a client that has disconnected.
//!
//! ```text
//!   client                         proxy
//!     │── CONNECT ───────────────────►│  within ten seconds, at most 4 KiB, user `bblp` and the code
//!     │◄─ CONNACK 0 ──────────────────│  held for up to five seconds while the printer is away,
//!     │                               │  then closed; 5 is for wrong credentials only
//!     │── SUBSCRIBE device/+/report ─►│
//!     │◄─ SUBACK, then the full state │
//!     │── PUBLISH …/request (QoS 1) ─►│  acknowledged when it was sent to the printer
//!     │◄─ PUBLISH …/report (QoS 0) ───│  reports as the printer sent them
//! ```
//!
//! Reports have the QoS the printer gave them, which is 0 (MQTT 3.1.1 §3.8.4: the minimum of that and
//! what was granted). A filter that covers the requests of others is granted QoS 0, with which they are delivered. A will is accepted and never published: printers close the connection over
//! requests that they do not know. The keepalive is not enforced: slicers announce one and then send no
//! PINGREQ; TCP keepalive finds dead clients. Two clients with one identifier are both served, as a printer
//! does, until no slot is free: then the older connection is closed.
//!
//! # While the printer is unreachable
//!
//! A CONNECT is held for [`HOLD_TIMEOUT`], then the connection is closed, with TLS's close_notify and without a CONNACK:
//!
//! | client | CONNACK 3 | CONNACK 5 | closed before CONNACK, with close_notify | held for longer than 10 s |
//! |---|---|---|---|---|
//! | OrcaSlicer with open-bamboo-networking | deselects the printer, modal error | as a wrong code | tries again each second, quietly | gives up |
//! | Home Assistant (ha-bambulab, paho) | tries again | stops for good | tries again, after 1 to 30 s | its set-up fails |
//! | bambuddy, OctoEverywhere (paho) | try again | report a wrong code | try again | try again |
//! | libmosquitto | `mosquitto_sub` ends | ends | tries again; without close_notify its loop ends for good | tries again |
//!
//! A client whose address is locked out after wrong access codes gets CONNACK 5 if its code is one of those. With any
//! other code, right or wrong, the connection is closed in the same way: what is right must not be guessed meanwhile,
//! and a client that has the right code tries again until the lockout ends.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time to CONNECT | [`CONNECT_TIMEOUT`] | closed |
//! | a CONNECT | [`MAX_CONNECT`] | closed |
//! | any other packet | `BOARD.mqtt.inbox` | closed |
//! | filters of a client | [`FILTERS`] of [`FILTER`] bytes | SUBACK 0x80 for each further one |
//! | filters of a packet | [`FILTERS_PER_PACKET`] | closed |
//! | requests not yet acknowledged | [`MAX_DEBTS`](super::slot::MAX_DEBTS) | not read further until one is |
//! | QoS 2 requests not released | [`UNRELEASED`] | closed |
//! | time to receive one report | [`REPORT_TIMEOUT`] | closed, since it occupies a frame that others need |
//! | reports it is behind | `BOARD.mqtt.ring` | they are dropped and the full state follows |
//! | requests of others it is behind | [`REQUESTS`](super::slot::REQUESTS) | further ones are dropped, and their number is logged |

mod subscriptions;

use alloc::rc::Rc;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::Topics;
use super::address::{Content, Patches, Replacements, Rewriting};
pub use super::disconnect::{
    CONNECT_TIMEOUT, Error, FILTERS_PER_PACKET, REPORT_TIMEOUT, UNRELEASED,
};
use super::queue::RequestQueue;
use super::slot::{Ack, Item, Slot, SlotState};
use super::topic;
use super::wire::{
    self, Connect, ConnectCode, Header, Packet, PacketId, PacketType, Protocol, Publish, Qos,
    Subscribe, SubscribeCode, UNSUPPORTED_PROTOCOL_VERSION, Unsubscribe,
};
use crate::auth::{AccessCode, LoginError, Refusal};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::KIB;
use crate::memory::pool::Frame;
use crate::memory::ring::Ring;
use crate::memory::slots::Slot as _;
use crate::session::{Consumed, Output, Session};
use subscriptions::Subscriptions;
pub use subscriptions::{FILTER, FILTERS};

/// How long a CONNACK is held while the printer is away.
///
/// Home Assistant's set-up gives up after ten seconds; a printer's own slow CONNACK takes up to five.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest CONNECT, in bytes: identifier, will, user and code.
pub const MAX_CONNECT: usize = 4 * KIB;

/// The session's own answers that wait to be sent; at the bound the client is not read.
const ANSWERS: usize = 4;

/// Packet ids of QoS 1 requests that were acknowledged last: a resend of one of them is
/// acknowledged, not forwarded.
const RECENT: usize = 2 * super::slot::MAX_DEBTS;

/// The longest packet written in one piece, in bytes: a SUBACK, or a report's head.
const HEAD: usize = 5 + 2 + FILTER + 2;
const _: () = assert!(HEAD >= 5 + 2 + FILTERS_PER_PACKET, "a SUBACK fits as well");

/// What a client's session reports to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// The credentials are right. The hub answers by way of the [`Slot`].
    Connected {
        /// The client identifier.
        id: &'i str,
    },
    /// A subscription covers the reports: the client is to get the full state.
    Subscribed,
    /// A message.
    Published {
        /// The topic.
        topic: &'i str,
        /// The payload, byte for byte.
        payload: &'i [u8],
        /// The acknowledgement that the client waits for.
        ack: Ack,
        /// Whether DUP is set: the client may have sent this before.
        duplicate: bool,
    },
}

/// One client's session.
pub struct Client {
    code: Rc<AccessCode>,
    topics: Rc<Topics>,
    slot: Rc<Slot>,
    queue: Rc<RequestQueue>,
    /// Whether the next packet is a PUBLISH for which the request queue had no room.
    waits_for_room: bool,
    /// The address that replaces the printer's in reports.
    advertised: Replacements,
    state: State,
    /// Set if the client's origin is locked out.
    refusal: Option<Refusal>,
    subscriptions: Subscriptions,
    answers: Ring<Answer, ANSWERS>,
    /// Requests whose acknowledgement is outstanding. They fit: no more are accepted.
    unacknowledged: heapless::Vec<PacketId, { super::slot::MAX_DEBTS }>,
    recent: heapless::HistoryBuf<PacketId, RECENT>,
    unreleased: heapless::Vec<PacketId, UNRELEASED>,
    sending: Option<Sending>,
}

enum State {
    /// Before CONNECT.
    Opening { until: Instant },
    /// The hub has not decided yet.
    Waiting { until: Instant },
    /// Logged in.
    Open,
    /// A last answer is sent, then the connection ends.
    Closing,
}

/// A packet of the session's own.
enum Answer {
    ConnAck(ConnectCode),
    ConnAckV5,
    SubAck(PacketId, heapless::Vec<SubscribeCode, FILTERS_PER_PACKET>),
    UnsubAck(PacketId),
    PubAck(PacketId),
    PubRec(PacketId),
    PubComp(PacketId),
    PingResp,
}

/// A report that is being sent.
struct Sending {
    report: Frame<Patches>,
    by: Replacements,
    rewriting: Rewriting,
    /// Bytes still to be written.
    left: usize,
    since: Instant,
}

impl Client {
    /// A session for the pending client in `slot`, which has to send CONNECT by `until`. Its requests go to `queue`.
    pub fn new(
        slot: Rc<Slot>,
        queue: Rc<RequestQueue>,
        code: Rc<AccessCode>,
        topics: Rc<Topics>,
        advertised: Option<Ipv4Addr>,
        until: Instant,
    ) -> Self {
        Self {
            code,
            slot,
            queue,
            waits_for_room: false,
            advertised: advertised.map_or_else(Replacements::default, |address| {
                Replacements::address(address, topics.rtsps_port)
            }),
            topics,
            state: State::Opening { until },
            refusal: None,
            subscriptions: Subscriptions::default(),
            answers: Ring::new(),
            unacknowledged: heapless::Vec::new(),
            recent: heapless::HistoryBuf::new(),
            unreleased: heapless::Vec::new(),
            sending: None,
        }
    }

    /// Has the login refused, since the client's origin is locked out.
    pub const fn refuse_login(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// The client's slot.
    pub const fn slot(&self) -> &Rc<Slot> {
        &self.slot
    }

    /// Whether the client may be read.
    pub fn is_attentive(&self) -> bool {
        match self.state {
            State::Opening { .. } => true,
            State::Waiting { .. } | State::Closing => false,
            State::Open => {
                !self.answers.is_full()
                    && self.slot.has_credit()
                    && (!self.waits_for_room || self.queue.has_room_for(&self.slot))
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        // Cannot fail: nothing is read while the answers are full.
        let _fits = self.answers.push(answer);
    }

    /// Ends the session with a CONNACK that gives the reason.
    fn refuse(&mut self, answer: Answer, why: Error) -> Error {
        self.answer(answer);
        self.state = State::Closing;
        why
    }

    fn handle_connect<'i>(
        &mut self,
        now: Instant,
        connect: &Connect<'i>,
    ) -> Result<Event<'i>, Error> {
        match connect.protocol {
            Protocol::V3_1 | Protocol::V3_1_1 => {}
            Protocol::V5 => {
                return Err(self.refuse(Answer::ConnAckV5, Error::Protocol { level: 5 }));
            }
            Protocol::Other(level) => {
                let answer = Answer::ConnAck(ConnectCode::UnacceptableProtocol);
                return Err(self.refuse(answer, Error::Protocol { level }));
            }
        }
        if connect.client_id.is_empty() && !connect.clean {
            let answer = Answer::ConnAck(ConnectCode::IdentifierRejected);
            return Err(self.refuse(answer, Error::NoIdentifier));
        }
        let answer = Answer::ConnAck(ConnectCode::NotAuthorized);
        let user = connect.user_name.unwrap_or_default();
        let password = connect.password.unwrap_or_default();
        let checked = match self.refusal {
            None => self.code.check(user.as_bytes(), password),
            Some(refusal) => Err(refusal.error(user.as_bytes(), password)),
        };
        if let Err(error) = checked {
            if error == LoginError::LockedOut {
                // Closed without CONNACK: see "While the printer is unreachable".
                return Err(Error::Login(error));
            }
            return Err(self.refuse(answer, Error::Login(error)));
        }
        self.state = State::Waiting { until: now + HOLD_TIMEOUT };
        Ok(Event::Connected { id: connect.client_id })
    }

    fn handle_publish<'i>(&mut self, publish: &Publish<'i>) -> Result<Option<Event<'i>>, Error> {
        if let Some(id) = publish.id.filter(|_| publish.dup)
            && self.unacknowledged.contains(&id)
        {
            // The first one is under way: one acknowledgement is sent for both.
            return Ok(None);
        }
        let ack = match (publish.qos, publish.id) {
            (Qos::AtMostOnce, _) | (_, None) => Ack::None,
            (Qos::AtLeastOnce, Some(id)) => {
                if publish.dup && self.recent.oldest_ordered().any(|recent| *recent == id) {
                    self.answer(Answer::PubAck(id));
                    return Ok(None);
                }
                Ack::PubAck(id)
            }
            (Qos::ExactlyOnce, Some(id)) => {
                if self.unreleased.contains(&id) {
                    self.answer(Answer::PubRec(id));
                    return Ok(None);
                }
                self.unreleased.push(id).map_err(|_full| Error::TooManyUnreleased)?;
                Ack::PubRec(id)
            }
        };
        if let Some(id) = publish.id {
            let _fits = self.unacknowledged.push(id);
        }
        Ok(Some(Event::Published {
            topic: publish.topic,
            payload: publish.payload,
            ack,
            duplicate: publish.dup,
        }))
    }

    fn handle_subscribe<'i>(
        &mut self,
        subscribe: &Subscribe<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        let mut codes = heapless::Vec::new();
        let mut covers = false;
        for (filter, qos) in subscribe.filters() {
            if !topic::is_valid_filter(filter) {
                return Err(Error::BadFilter);
            }
            let covers_reports = subscriptions::covers_reports(filter, &self.topics);
            let covers_requests = subscriptions::covers_requests(filter, &self.topics);
            if covers_requests && !covers_reports && !self.topics.shows_requests {
                return Err(Error::RequestTopic);
            }
            let held =
                !self.topics.is_of_other(filter) && self.subscriptions.add(filter, &self.topics);
            covers |= held && covers_reports;
            let code = if !held {
                SubscribeCode::Refused
            } else if covers_requests && self.topics.shows_requests {
                // Requests are published with QoS 1, and delivered with QoS 0.
                SubscribeCode::Granted(Qos::AtMostOnce)
            } else {
                SubscribeCode::Granted(qos)
            };
            codes.push(code).map_err(|_full| Error::TooManyFilters)?;
        }
        self.answer(Answer::SubAck(subscribe.id, codes));
        self.note_subscriptions();
        Ok(covers.then_some(Event::Subscribed))
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        for filter in unsubscribe.filters() {
            self.subscriptions.remove(filter, &self.topics);
        }
        self.answer(Answer::UnsubAck(unsubscribe.id));
        self.note_subscriptions();
    }

    /// Tells the hub what the client is to be sent.
    fn note_subscriptions(&self) {
        self.slot.set_reads(self.subscriptions.has_reports());
        self.slot.set_listens(self.subscriptions.has_requests());
    }

    /// Writes the next packet besides reports. Returns the number of bytes, or `None` if there is none.
    fn write_answer(&mut self, out: &mut [u8]) -> Option<usize> {
        if let Some(answer) = self.answers.pop() {
            return match answer {
                Answer::ConnAck(code) => wire::connack(out, false, code),
                Answer::ConnAckV5 => wire::connack_v5(out, UNSUPPORTED_PROTOCOL_VERSION),
                Answer::SubAck(id, codes) => wire::suback(out, id, codes.iter().copied()),
                Answer::UnsubAck(id) => wire::unsuback(out, id),
                Answer::PubAck(id) => wire::puback(out, id),
                Answer::PubRec(id) => wire::pubrec(out, id),
                Answer::PubComp(id) => wire::pubcomp(out, id),
                Answer::PingResp => wire::pingresp(out),
            };
        }
        match self.slot.take_ack()? {
            Ack::None => Some(0),
            Ack::PubAck(id) => {
                self.recent.write(id);
                self.unacknowledged.retain(|waiting| *waiting != id);
                wire::puback(out, id)
            }
            Ack::PubRec(id) => {
                self.unacknowledged.retain(|waiting| *waiting != id);
                wire::pubrec(out, id)
            }
        }
    }

    /// Writes the head of the next report or request. Returns the number of bytes, or `None` if there is none.
    fn write_head(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let Item { report, sequence } = self.slot.take()?;
        let topic = match report.tag().content() {
            Content::State | Content::Answer => self.subscriptions.report_topic(&self.topics)?,
            Content::Request => self.subscriptions.request_topic(&self.topics)?,
        };
        let mut by = self.advertised.clone();
        if let Some(sequence) = sequence {
            by = by.with_sequence_id(sequence);
        }
        let left = report.tag().rewritten_len(report.len(), &by);
        let head = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            id: None,
            payload: &[],
        };
        let written = wire::publish_head(out, &head, left)?;
        self.sending = Some(Sending { report, by, rewriting: Rewriting::new(), left, since: now });
        Some(written)
    }

    /// Writes more of the report that is being sent.
    fn write_payload(&mut self, out: &mut [u8]) -> usize {
        let Some(sending) = &mut self.sending else { return 0 };
        let Sending { report, by, rewriting, left, since: _ } = sending;
        let written = rewriting.write(report, report.tag(), by, out);
        *left = left.saturating_sub(written);
        if *left == 0 {
            self.sending = None;
        }
        written
    }
}

impl Session for Client {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
        if !self.is_attentive() {
            return Ok((0, None));
        }
        let Some(header) = wire::header(input)? else { return Ok((0, None)) };
        let opening = matches!(self.state, State::Opening { .. });
        if opening && header.kind() != PacketType::Connect {
            return Err(Error::NotConnect);
        }
        let bound = if opening { MAX_CONNECT } else { BOARD.mqtt.inbox };
        let announced = header.total();
        if announced > bound {
            return Err(Error::TooLong { announced, bound });
        }
        self.waits_for_room = !opening
            && header.kind() == PacketType::Publish
            && !self.queue.has_room_for(&self.slot);
        if self.waits_for_room {
            return Ok((0, None));
        }
        let Some(body) = body(input, &header) else { return Ok((0, None)) };

        let event = match wire::packet(header, body)? {
            Packet::Connect(connect) if opening => Some(self.handle_connect(now, &connect)?),
            Packet::Publish(publish) => self.handle_publish(&publish)?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe)?,
            Packet::Unsubscribe(unsubscribe) => {
                self.handle_unsubscribe(&unsubscribe);
                None
            }
            Packet::PubRel(id) => {
                self.unreleased.retain(|unreleased| *unreleased != id);
                self.answer(Answer::PubComp(id));
                None
            }
            Packet::PingReq => {
                self.answer(Answer::PingResp);
                None
            }
            Packet::Disconnect => return Err(Error::Left),
            // Nothing was sent that these could acknowledge; they are ignored.
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => None,
            Packet::Connect(_)
            | Packet::ConnAck { .. }
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => return Err(Error::OutOfOrder),
        };
        Ok((announced, event))
    }

    fn reads(&self) -> bool {
        self.is_attentive() && !self.slot.is_dismissed()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        match self.state {
            State::Opening { until } if until <= now => Err(Error::Silent),
            State::Waiting { until } if until <= now => {
                // Closed without CONNACK: see "While the printer is unreachable".
                Err(Error::PrinterAway)
            }
            State::Opening { .. } | State::Waiting { .. } | State::Open | State::Closing => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Opening { until } | State::Waiting { until } => Some(until),
            State::Open | State::Closing => None,
        }
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if self.sending.as_ref().is_some_and(|sending| now.since(sending.since) >= REPORT_TIMEOUT) {
            return Output::End(Error::TooSlow);
        }
        let state = self.slot.state();
        if let State::Waiting { .. } = self.state {
            match state {
                SlotState::Active if self.slot.is_admitted() => {
                    self.state = State::Open;
                    self.answer(Answer::ConnAck(ConnectCode::Accepted));
                }
                SlotState::Dismissed(why) => {
                    let answer = Answer::ConnAck(ConnectCode::ServerUnavailable);
                    let _why = self.refuse(answer, why);
                }
                SlotState::Vacant | SlotState::PreAuth | SlotState::Active => {}
            }
        }

        let mut written = 0;
        // A packet is begun only where its head fits.
        while let Some(room) = out.get_mut(written..).filter(|room| room.len() >= HEAD) {
            if self.sending.is_some() {
                written += self.write_payload(room);
            } else if let Some(len) = self.write_answer(room) {
                written += len;
            } else if let SlotState::Dismissed(_) = state {
                break;
            } else if let Some(len) = self.write_head(now, room) {
                written += len;
            } else {
                break;
            }
        }
        match state {
            _ if written > 0 => Output::Written(written),
            SlotState::Dismissed(why) => Output::End(why),
            SlotState::Vacant | SlotState::PreAuth | SlotState::Active => Output::Idle,
        }
    }
}

/// The packet's body, once all of it is there.
fn body<'i>(input: &'i [u8], header: &Header) -> Option<&'i [u8]> {
    input.get(header.body_at()..header.total())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};
    use crate::memory::slots::Slots;
    use crate::mqtt::slot::taken_by;
    use crate::peer::Peer;
    use alloc::vec::Vec;

    const CODE: &[u8] = b"12345678";
    const UNTIL: Instant = Instant::at(CONNECT_TIMEOUT);

    fn client() -> Client {
        let slot = Slot::new();
        taken_by(&slot, Peer::unknown());
        let code = Rc::new(AccessCode::new(CODE).unwrap());
        let queue = Rc::new(RequestQueue::new(Slots::new(1, |_| Rc::clone(&slot))));
        Client::new(slot, queue, code, Rc::new(Topics::new("01P00A", 1)), None, UNTIL)
    }

    /// A CONNECT by hand: clean, user `bblp`, the code, identifier `me`.
    const CONNECT: &[u8] =
        b"\x10\x1e\x00\x04MQTT\x04\xc2\x00\x05\x00\x02me\x00\x04bblp\x00\x0812345678";
    const REPORTS: &[u8] = b"\x82\x14\x00\x07\x00\x0fdevice/+/report\x00";

    /// A client in conversation that gets the reports.
    fn reader() -> Client {
        let mut client = client();
        client.handle_input(Instant::START, CONNECT).unwrap();
        client.slot.wait(1);
        client.slot.admit();
        assert_eq!(output(&mut client), [0x20, 2, 0, 0]);
        let subscribed = client.handle_input(Instant::START, REPORTS);
        assert_eq!(subscribed, Ok((REPORTS.len(), Some(Event::Subscribed))));
        assert_eq!(output(&mut client), [0x90, 3, 0, 7, 0]);
        client
    }

    /// All output that is due now.
    fn output(client: &mut Client) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = [0; 512];
        while let Output::Written(len) = client.poll_output(Instant::START, &mut out) {
            all.extend_from_slice(&out[..len]);
        }
        all
    }

    #[test]
    fn connect_may_be_split_anywhere() {
        for split in 0..CONNECT.len() {
            let mut client = client();
            let early = client.handle_input(Instant::START, &CONNECT[..split]);
            assert_eq!(early, Ok((0, None)), "split at {split}");
            let whole = client.handle_input(Instant::START, CONNECT);
            let connected = Some(Event::Connected { id: "me" });
            assert_eq!(whole, Ok((CONNECT.len(), connected)), "split at {split}");
        }
    }

    #[test]
    fn packets_behind_connect_wait_until_the_hub_has_decided() {
        let mut client = client();
        let pipelined = [CONNECT, REPORTS].concat();
        let (taken, _) = client.handle_input(Instant::START, &pipelined).unwrap();
        assert_eq!(client.handle_input(Instant::START, &pipelined[taken..]), Ok((0, None)));
        assert!(output(&mut client).is_empty());
        client.slot.wait(1);
        client.slot.admit();
        assert_eq!(output(&mut client), [0x20, 2, 0, 0]);
        let (taken, event) = client.handle_input(Instant::START, &pipelined[taken..]).unwrap();
        assert_eq!((taken, event), (REPORTS.len(), Some(Event::Subscribed)));
    }

    #[test]
    fn a_publish_is_understood_wherever_it_is_split() {
        let publish = b"\x32\x1b\x00\x15device/01P00A/request\x00\x09{}";
        for split in 0..publish.len() {
            let mut client = reader();
            let early = client.handle_input(Instant::START, &publish[..split]);
            assert_eq!(early, Ok((0, None)), "split at {split}");
            let (taken, event) = client.handle_input(Instant::START, publish).unwrap();
            assert_eq!(taken, publish.len(), "split at {split}");
            let Some(Event::Published { topic, payload, ack, duplicate }) = event else {
                panic!("{event:?}, split at {split}")
            };
            assert_eq!((topic, payload, duplicate), ("device/01P00A/request", &b"{}"[..], false));
            assert!(matches!(ack, Ack::PubAck(id) if id.get() == 9));
        }
    }

    #[test]
    fn a_report_comes_out_whole_whatever_the_size_of_the_outbox() {
        let pool =
            Pool::<Patches>::new(Shape { count: 4, size: 64 }, Shape { count: 3, size: 2048 });
        let payload: Vec<u8> = (0..1500u16).map(|n| b'a' + (n % 26) as u8).collect();
        let mut expected = b"\x30\xf2\x0b\x00\x14device/01P00A/report".to_vec();
        expected.extend_from_slice(&payload);
        for room in HEAD..HEAD + 200 {
            let mut client = reader();
            assert!(client.slot.put(pool.store(&[&payload]).unwrap()));
            let mut out = alloc::vec![0; room];
            let mut all = Vec::new();
            while let Output::Written(len) = client.poll_output(Instant::START, &mut out) {
                all.extend_from_slice(&out[..len]);
            }
            assert_eq!(all, expected, "outbox of {room}");
        }
    }

    #[test]
    fn a_report_may_take_half_a_minute_and_not_longer() {
        let pool =
            Pool::<Patches>::new(Shape { count: 4, size: 64 }, Shape { count: 3, size: 2048 });
        let mut client = reader();
        assert!(client.slot.put(pool.store(&[&[b'x'; 2000]]).unwrap()));
        let mut out = [0; HEAD];
        let almost = Instant::at(REPORT_TIMEOUT - Duration::from_millis(1));
        assert!(matches!(client.poll_output(Instant::START, &mut out), Output::Written(_)));
        assert!(matches!(client.poll_output(almost, &mut out), Output::Written(_)));
        let late = client.poll_output(Instant::at(REPORT_TIMEOUT), &mut out);
        assert_eq!(late, Output::End(Error::TooSlow));
    }

    #[test]
    fn a_silent_connection_is_closed_at_its_deadline() {
        let mut client = client();
        assert_eq!(client.poll_timeout(), Some(UNTIL));
        let almost = Instant::at(CONNECT_TIMEOUT - Duration::from_millis(1));
        assert_eq!(client.handle_timeout(almost), Ok(()));
        assert_eq!(client.handle_timeout(UNTIL), Err(Error::Silent));
    }

    #[test]
    fn a_packet_too_long_is_refused_by_its_header_alone() {
        let mut stranger = client();
        let refused = stranger.handle_input(Instant::START, b"\x10\xff\xff\xff\x7f");
        let announced = 268_435_455 + 5;
        assert_eq!(refused, Err(Error::TooLong { announced, bound: MAX_CONNECT }));
        let mut known = reader();
        let refused = known.handle_input(Instant::START, b"\x30\xff\xff\xff\x7f");
        assert_eq!(refused, Err(Error::TooLong { announced, bound: BOARD.mqtt.inbox }));
    }

    #[test]
    fn a_filter_too_many_and_one_too_long_are_refused_one_by_one() {
        let mut client = reader();
        let subscribe = |filter: &str| {
            let mut packet = alloc::vec![0x82, 0, 0, 1];
            packet.extend_from_slice(&(filter.len() as u16).to_be_bytes());
            packet.extend_from_slice(filter.as_bytes());
            packet.push(1);
            packet[1] = (packet.len() - 2) as u8;
            packet
        };
        client.handle_input(Instant::START, &subscribe(&"x".repeat(FILTER + 1))).unwrap();
        assert_eq!(output(&mut client), [0x90, 3, 0, 1, 0x80]);
        for number in 2..=FILTERS {
            client.handle_input(Instant::START, &subscribe(&alloc::format!("f{number}"))).unwrap();
            assert_eq!(output(&mut client), [0x90, 3, 0, 1, 1]);
        }
        client.handle_input(Instant::START, &subscribe("one/more")).unwrap();
        assert_eq!(output(&mut client), [0x90, 3, 0, 1, 0x80]);
        client.handle_input(Instant::START, &subscribe("f2")).unwrap();
        assert_eq!(output(&mut client), [0x90, 3, 0, 1, 1], "one it has already");
    }

    #[test]
    fn nothing_is_read_while_answers_wait_to_be_sent() {
        let mut client = reader();
        for _ in 0..ANSWERS {
            assert_eq!(client.handle_input(Instant::START, b"\xc0\x00"), Ok((2, None)));
        }
        assert_eq!(client.handle_input(Instant::START, b"\xc0\x00"), Ok((0, None)));
        assert_eq!(output(&mut client), b"\xd0\x00".repeat(ANSWERS));
        assert_eq!(client.handle_input(Instant::START, b"\xc0\x00"), Ok((2, None)));
    }
}
