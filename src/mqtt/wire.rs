//! MQTT packets as they are on the wire: version 3.1.1, and 3.1 as far as 3.1.1 allows.
//!
//! # On the wire
//!
//! ```text
//!   byte 0        bytes 1..=4                  "remaining length" bytes
//!   type │ flags  remaining length (7 bits     fields: numbers are big-endian, strings and
//!   4 bits each   a byte, least first)         passwords have two bytes of length before them
//! ```
//!
//! # What it promises
//!
//! A packet is read in two steps. [`header`] needs at most five bytes and returns how long the packet
//! is, so a caller refuses one that is too long before any of it has come. [`packet`] then borrows
//! the fields from the caller's buffer; nothing is copied and nothing is allocated. What it returns
//! is valid as a whole: strings are UTF-8 without U+0000, lists have been walked to their ends, and
//! no byte is left over. No byte behind the packet's own end is ever looked at.
//!
//! The functions that write a packet, from [`connect`] to [`disconnect`], fill the front of a
//! buffer and say how many bytes they wrote. `None` means that the packet does not fit; what is in
//! the buffer then is of no use.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | remaining length | 4 bytes, [`MAX_REMAINING`] | [`Fault::Length`] |
//! | a string or password | 65535 bytes, and the packet's end | [`Fault::Truncated`] |
//! | a list of filters or codes | the packet's end | [`Fault::Truncated`] |
//! | the packet as a whole | the caller's, by [`Header::total`] | the caller's |
//!
//! # What it leaves to its caller
//!
//! Which packet may come when; whether a filter's wildcards stand where they may (its answer is a
//! SUBACK, not an end); which client identifiers are welcome.
//!
//! Of 3.1 that is the CONNECT with its own name and level. Two liberties that 3.1.1 took back are
//! refused: DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE, and a CONNECT that ends before the user name
//! its flags announce.
//!
//! Section numbers below are those of MQTT 3.1.1, OASIS Standard, 2014.

use core::fmt;
use core::num::NonZeroU16;

mod fault;
mod fields;
mod write;

pub use fault::{Fault, WireError};
use fields::Fields;
pub use write::{
    connack, connack_v5, connect, disconnect, pingreq, pingresp, puback, pubcomp, publish,
    publish_head, pubrec, pubrel, suback, subscribe, unsuback, unsubscribe,
};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Bytes in the shortest packet, which is also the shortest header (§2.2).
pub const MIN_HEADER: usize = 2;
/// Bytes in the longest header: the type and four bytes of remaining length (§2.2.3).
pub const MAX_HEADER: usize = 5;
/// The largest remaining length that four bytes can say (§2.2.3).
pub const MAX_REMAINING: u32 = 268_435_455;
/// The name and level with which a 3.1 CONNECT begins (MQTT 3.1 §3.1).
pub const MQTT_3_1: (&str, u8) = ("MQIsdp", 3);
/// The name and level with which a 3.1.1 CONNECT begins (§3.1.2).
pub const MQTT_3_1_1: (&str, u8) = ("MQTT", 4);
/// The bit that a mosquitto bridge sets in the level of its first CONNECT, so that a broker does not send it its own
/// messages; no client of the proxy gets its own messages. A bridge that is refused connects again without the bit, ten
/// seconds later.
pub const BRIDGE: u8 = 0x80;
/// The level of MQTT 5, under the name of 3.1.1 (MQTT 5 §3.1.2.2).
pub const LEVEL_5: u8 = 5;
/// The MQTT 5 reason code "unsupported protocol version" (MQTT 5 §3.2.2.2).
pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;

/// What a packet is (§2.2.1). The discriminant is the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    /// A client's request to connect.
    Connect = 1,
    /// The server's answer to CONNECT.
    ConnAck = 2,
    /// A message on a topic.
    Publish = 3,
    /// Acknowledges a message of QoS 1.
    PubAck = 4,
    /// Acknowledges a message of QoS 2: first answer.
    PubRec = 5,
    /// The sender's answer to PUBREC.
    PubRel = 6,
    /// The answer to PUBREL, which completes the exchange.
    PubComp = 7,
    /// A client subscribes to topics.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    SubAck = 9,
    /// A client ends subscriptions.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// A client checks whether the connection is alive.
    PingReq = 12,
    /// The server's answer to PINGREQ.
    PingResp = 13,
    /// A client ends the connection in order.
    Disconnect = 14,
}

/// The fixed header of a packet (§2.2), checked as far as it goes without the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: PacketType,
    flags: u8,
    /// Invariant: at most [`MAX_REMAINING`].
    remaining: u32,
    /// Invariant: [`MIN_HEADER`] to [`MAX_HEADER`].
    body_at: u8,
}

impl Header {
    /// What the packet is.
    pub const fn kind(self) -> PacketType {
        self.kind
    }

    /// The low four bits of the first byte.
    pub const fn flags(self) -> u8 {
        self.flags
    }

    /// Bytes behind the header.
    pub const fn remaining(self) -> usize {
        self.remaining as usize
    }

    /// Bytes in the header itself, behind which the body begins.
    pub const fn body_at(self) -> usize {
        self.body_at as usize
    }

    /// Bytes in the whole packet, to be compared with what the caller can hold.
    pub const fn total(self) -> usize {
        self.body_at() + self.remaining()
    }
}

/// Reads the header at the front of `input`; `None` asks for more bytes.
///
/// # Errors
///
/// [`Fault::Type`], [`Fault::Flags`], [`Fault::Qos`] and [`Fault::Dup`] at the first byte,
/// [`Fault::Length`] at the fifth.
pub fn header(input: &[u8]) -> Result<Option<Header>, WireError> {
    let Some((&first, lengths)) = input.split_first() else { return Ok(None) };
    let (number, flags) = (first >> 4, first & 0x0F);
    let kind = PacketType::of(number).ok_or(WireError { at: 0, fault: Fault::Type(number) })?;
    check_flags(kind, flags).map_err(|fault| WireError { at: 0, fault })?;
    let mut remaining = 0;
    for (before, &byte) in (0u8..).zip(lengths.iter().take(MAX_HEADER - 1)) {
        remaining |= u32::from(byte & 0x7F) << (7 * before);
        if byte & 0x80 == 0 {
            return Ok(Some(Header { kind, flags, remaining, body_at: before + 2 }));
        }
    }
    if input.len() < MAX_HEADER {
        return Ok(None);
    }
    Err(WireError { at: MAX_HEADER as u32 - 1, fault: Fault::Length })
}

/// Reads the packet that `header` announced from `body`, the bytes behind it.
///
/// `body` may go on behind the packet; that part is not looked at.
///
/// # Errors
///
/// [`Fault::Truncated`] when `body` is shorter than announced or than its own fields say, and
/// every other [`Fault`] that a body can have.
pub fn packet(header: Header, body: &[u8]) -> Result<Packet<'_>, WireError> {
    let Some(body) = body.get(..header.remaining()) else {
        return Err(WireError {
            at: (header.body_at() + body.len()) as u32,
            fault: Fault::Truncated,
        });
    };
    let mut fields = Fields { rest: body, at: u32::from(header.body_at) };
    let packet = match header.kind {
        PacketType::Connect => Packet::Connect(fields.connect()?),
        PacketType::ConnAck => {
            let (session_present, code) = fields.connack()?;
            Packet::ConnAck { session_present, code }
        }
        PacketType::Publish => Packet::Publish(fields.publish(header.flags)?),
        PacketType::PubAck => Packet::PubAck(fields.id()?),
        PacketType::PubRec => Packet::PubRec(fields.id()?),
        PacketType::PubRel => Packet::PubRel(fields.id()?),
        PacketType::PubComp => Packet::PubComp(fields.id()?),
        PacketType::Subscribe => Packet::Subscribe(fields.subscribe()?),
        PacketType::SubAck => Packet::SubAck(fields.suback()?),
        PacketType::Unsubscribe => Packet::Unsubscribe(fields.unsubscribe()?),
        PacketType::UnsubAck => Packet::UnsubAck(fields.id()?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect,
    };
    if fields.rest.is_empty() { Ok(packet) } else { Err(fields.fault(Fault::Trailing)) }
}

/// A packet, borrowed from the buffer it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// §3.1
    Connect(Connect<'a>),
    /// §3.2
    ConnAck {
        /// Whether the server remembers an earlier session of this client.
        session_present: bool,
        /// Whether the client is accepted.
        code: ConnectCode,
    },
    /// §3.3
    Publish(Publish<'a>),
    /// §3.4
    PubAck(PacketId),
    /// §3.5
    PubRec(PacketId),
    /// §3.6
    PubRel(PacketId),
    /// §3.7
    PubComp(PacketId),
    /// §3.8
    Subscribe(Subscribe<'a>),
    /// §3.9
    SubAck(SubAck<'a>),
    /// §3.10
    Unsubscribe(Unsubscribe<'a>),
    /// §3.11
    UnsubAck(PacketId),
    /// §3.12
    PingReq,
    /// §3.13
    PingResp,
    /// §3.14
    Disconnect,
}

/// A client's request to connect (§3.1).
///
/// Of [`Protocol::V5`] and [`Protocol::Other`] nothing but the protocol is read: the other fields
/// are then empty, whatever the packet contains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The protocol version of the client.
    pub protocol: Protocol,
    /// Whether the server shall forget earlier sessions of this client.
    pub clean: bool,
    /// The longest silence between two packets of this client, in seconds; 0 for any.
    pub keep_alive: u16,
    /// The client identifier. Empty if the server is to choose one, which needs `clean` (§3.1.3.1).
    pub client_id: &'a str,
    /// A message to publish if the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password: any bytes. Never present without a user name.
    pub password: Option<&'a [u8]>,
}

/// The protocol version of a CONNECT, by protocol name and level (§3.1.2.1, §3.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1: `MQIsdp`, 3.
    V3_1,
    /// MQTT 3.1.1: `MQTT`, 4.
    V3_1_1,
    /// MQTT 5: `MQTT`, 5. [`connack_v5`] answers it.
    V5,
    /// A known name with a level that belongs to no version.
    Other(u8),
}

/// A message to publish if a client's connection ends without DISCONNECT (§3.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic to publish to.
    pub topic: &'a str,
    /// The payload: any bytes.
    pub payload: &'a [u8],
    /// The quality of service.
    pub qos: Qos,
    /// Whether the message is to be kept for later subscribers.
    pub retain: bool,
}

/// The answer to CONNECT (§3.2.2.3). The discriminant is the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnectCode {
    /// The connection is accepted.
    Accepted = 0,
    /// The server does not support the client's protocol version.
    UnacceptableProtocol = 1,
    /// The server does not allow the client identifier.
    IdentifierRejected = 2,
    /// The service is not available.
    ServerUnavailable = 3,
    /// User name or password are malformed. Printers send it for a wrong access code.
    BadUserNameOrPassword = 4,
    /// The client is not authorised. Printers send it for a wrong access code, and Home Assistant does not
    /// try again after it.
    NotAuthorized = 5,
}

/// A message on a topic (§3.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether the message may have been sent before. Never set at QoS 0.
    pub dup: bool,
    /// The quality of service.
    pub qos: Qos,
    /// Whether the message is kept for later subscribers, or was.
    pub retain: bool,
    /// The topic: not empty, without wildcards.
    pub topic: &'a str,
    /// The packet identifier. Present at QoS 1 and 2, and only there.
    pub id: Option<PacketId>,
    /// Any bytes.
    pub payload: &'a [u8],
}

/// How a message is delivered (§4.3). The discriminant is the number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// Once or not at all; there is no answer.
    AtMostOnce = 0,
    /// Answered by PUBACK.
    AtLeastOnce = 1,
    /// Answered by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

/// What ties an answer to its question (§2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

/// A client asks for messages (§3.8): one filter or more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// What its SUBACK must say.
    pub id: PacketId,
    filters: Subscriptions<'a>,
}

impl<'a> Subscribe<'a> {
    /// The topic filters, not empty, and the QoS asked for each.
    pub const fn filters(&self) -> Subscriptions<'a> {
        self.filters
    }
}

/// The server's answer to a SUBSCRIBE (§3.9): one code for each filter, in its order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet identifier of the SUBSCRIBE.
    pub id: PacketId,
    /// Invariant: each is a [`SubscribeCode`].
    codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// What became of each filter.
    pub fn codes(&self) -> impl Iterator<Item = SubscribeCode> + Clone + use<'a> {
        self.codes.iter().filter_map(|&code| SubscribeCode::of(code))
    }
}

/// What became of one filter of a SUBSCRIBE (§3.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeCode {
    /// Its messages will come with this QoS at most.
    Granted(Qos),
    /// 0x80: they will not come.
    Refused,
}

/// A client wants no more of some messages (§3.10): one filter or more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// What its UNSUBACK must say.
    pub id: PacketId,
    filters: Filters<'a>,
}

impl<'a> Unsubscribe<'a> {
    /// The topic filters, not empty.
    pub const fn filters(&self) -> Filters<'a> {
        self.filters
    }
}

/// The filters of a [`Subscribe`], in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    /// Invariant: as many well-formed entries as `left` counts, and nothing else. Nothing can be wrong
    /// with them any more, so their place in the packet is not kept.
    fields: Fields<'a>,
    left: usize,
}

impl<'a> Iterator for Subscriptions<'a> {
    type Item = (&'a str, Qos);

    fn next(&mut self) -> Option<Self::Item> {
        let subscription = self.fields.subscription().ok()?;
        self.left = self.left.saturating_sub(1);
        Some(subscription)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Subscriptions<'_> {}

/// The filters of an [`Unsubscribe`], in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    /// Invariant: as many well-formed entries as `left` counts, and nothing else. Nothing can be wrong
    /// with them any more, so their place in the packet is not kept.
    fields: Fields<'a>,
    left: usize,
}

impl<'a> Iterator for Filters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.fields.filter().ok()?;
        self.left = self.left.saturating_sub(1);
        Some(filter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Filters<'_> {}

impl PacketId {
    /// The identifier on the wire; 0 is none.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// As on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl PacketType {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            _ => return None,
        })
    }

    /// The flags that every packet of this type has; those of a PUBLISH vary (§2.2.2).
    const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect => 0,
        }
    }
}

impl Qos {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => return None,
        })
    }
}

impl ConnectCode {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Accepted,
            1 => Self::UnacceptableProtocol,
            2 => Self::IdentifierRejected,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

impl SubscribeCode {
    const REFUSED: u8 = 0x80;

    const fn of(number: u8) -> Option<Self> {
        match (Qos::of(number), number) {
            (Some(qos), _) => Some(Self::Granted(qos)),
            (None, Self::REFUSED) => Some(Self::Refused),
            (None, _) => None,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Granted(qos) => qos as u8,
            Self::Refused => Self::REFUSED,
        }
    }
}

// Flags of a PUBLISH (§3.3.1).
const DUP: u8 = 0b1000;
const QOS: u8 = 0b0110;
const RETAIN: u8 = 0b0001;

// Flags of a CONNECT (§3.1.2.3).
const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// The one flag of a CONNACK (§3.2.2.2).
const SESSION_PRESENT: u8 = 1;

fn check_flags(kind: PacketType, flags: u8) -> Result<(), Fault> {
    if kind != PacketType::Publish {
        return if flags == kind.flags() { Ok(()) } else { Err(Fault::Flags) };
    }
    match flags & QOS {
        QOS => Err(Fault::Qos),
        0 if flags & DUP != 0 => Err(Fault::Dup),
        _ => Ok(()),
    }
}

// What is shown of a packet: never a password, and of payloads, which may tell one, the length.

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_some() { "***" } else { "none" };
        f.debug_struct("Connect")
            .field("protocol", &self.protocol)
            .field("clean", &self.clean)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &format_args!("{password}"))
            .finish()
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscribe({}, {:?})", self.id.get(), self.filters)
    }
}

impl fmt::Debug for Unsubscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unsubscribe({}, {:?})", self.id.get(), self.filters)
    }
}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl fmt::Debug for SubAck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubAck({}, ", self.id.get())?;
        f.debug_list().entries(self.codes()).finish()?;
        f.write_str(")")
    }
}
