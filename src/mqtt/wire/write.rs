//! Encoding: packets into a caller's buffer.
//!
//! Each function returns how many bytes at the front of `out` are the packet, or `None` if it does not
//! fit there, or in MQTT at all (a string above 65535 bytes, a packet above [`MAX_REMAINING`]).
//! Whether a string may stand where it is put is the caller's to know: what came out of
//! [`packet`](super::packet) may go back in.

use super::{
    CLEAN, ConnectCode, DUP, MAX_REMAINING, MQTT_3_1_1, PASSWORD, PacketId, PacketType, Publish,
    Qos, RETAIN, SESSION_PRESENT, SubscribeCode, USER_NAME,
};

/// A client's CONNECT (§3.1): MQTT 3.1.1, a clean session, no will.
///
/// `keep_alive` is in seconds, 0 for none.
pub fn connect(
    out: &mut [u8],
    keep_alive: u16,
    client_id: &str,
    user_name: &str,
    password: &[u8],
) -> Option<usize> {
    let (name, level) = MQTT_3_1_1;
    let strings = [name.as_bytes(), client_id.as_bytes(), user_name.as_bytes(), password];
    let len = strings.iter().fold(4, |sum: usize, text| sum.saturating_add(2 + text.len()));
    Packet::begin(out, PacketType::Connect, len)?
        .string(name.as_bytes())?
        .bytes(&[level, USER_NAME | PASSWORD | CLEAN])?
        .bytes(&keep_alive.to_be_bytes())?
        .string(client_id.as_bytes())?
        .string(user_name.as_bytes())?
        .string(password)?
        .end()
}

/// CONNACK (§3.2). With any other code than `Accepted`, session present is written as 0.
pub fn connack(out: &mut [u8], session_present: bool, code: ConnectCode) -> Option<usize> {
    let known = session_present && code == ConnectCode::Accepted;
    let flags = if known { SESSION_PRESENT } else { 0 };
    Packet::begin(out, PacketType::ConnAck, 2)?.bytes(&[flags, code as u8])?.end()
}

/// The CONNACK of MQTT 5 (MQTT 5 §3.2), without properties, for a client that speaks nothing else:
/// `reason` is [`UNSUPPORTED_PROTOCOL_VERSION`](super::UNSUPPORTED_PROTOCOL_VERSION).
pub fn connack_v5(out: &mut [u8], reason: u8) -> Option<usize> {
    Packet::begin(out, PacketType::ConnAck, 3)?.bytes(&[0, reason, 0])?.end()
}

/// PUBLISH (§3.3), whole. `None` also if it contradicts itself: DUP or an identifier at QoS 0, or no
/// identifier above it.
pub fn publish(out: &mut [u8], publish: &Publish<'_>) -> Option<usize> {
    let head = publish_head(out, publish, publish.payload.len())?;
    let payload = out.get_mut(head..)?.get_mut(..publish.payload.len())?;
    payload.copy_from_slice(publish.payload);
    Some(head + publish.payload.len())
}

/// A PUBLISH up to its payload, of which the caller sends `payload_len` bytes behind it;
/// `publish.payload` is ignored. `None` in the same cases as [`publish`].
pub fn publish_head(out: &mut [u8], publish: &Publish<'_>, payload_len: usize) -> Option<usize> {
    let unanswered = publish.qos == Qos::AtMostOnce;
    if publish.id.is_some() == unanswered || (publish.dup && unanswered) {
        return None;
    }
    let dup = if publish.dup { DUP } else { 0 };
    let retain = if publish.retain { RETAIN } else { 0 };
    let flags = dup | ((publish.qos as u8) << 1) | retain;
    let len = 2 + publish.topic.len() + if unanswered { 0 } else { 2 };
    let head = Packet::begin_part(out, PacketType::Publish, flags, len, payload_len)?
        .string(publish.topic.as_bytes())?;
    match publish.id {
        Some(id) => head.id(id)?.end(),
        None => head.end(),
    }
}

/// PUBACK (§3.4).
pub fn puback(out: &mut [u8], id: PacketId) -> Option<usize> {
    answer(out, PacketType::PubAck, id)
}

/// PUBREC (§3.5).
pub fn pubrec(out: &mut [u8], id: PacketId) -> Option<usize> {
    answer(out, PacketType::PubRec, id)
}

/// PUBREL (§3.6).
pub fn pubrel(out: &mut [u8], id: PacketId) -> Option<usize> {
    answer(out, PacketType::PubRel, id)
}

/// PUBCOMP (§3.7).
pub fn pubcomp(out: &mut [u8], id: PacketId) -> Option<usize> {
    answer(out, PacketType::PubComp, id)
}

/// SUBSCRIBE (§3.8). `None` also without a filter.
pub fn subscribe(out: &mut [u8], id: PacketId, filters: &[(&str, Qos)]) -> Option<usize> {
    if filters.is_empty() {
        return None;
    }
    let len =
        filters.iter().fold(2, |sum: usize, (filter, _)| sum.saturating_add(3 + filter.len()));
    let mut packet = Packet::begin(out, PacketType::Subscribe, len)?.id(id)?;
    for (filter, qos) in filters {
        packet = packet.string(filter.as_bytes())?.bytes(&[*qos as u8])?;
    }
    packet.end()
}

/// SUBACK (§3.9): one code for each filter of the SUBSCRIBE, in its order. `None` also without a
/// code, or if there are not as many as `codes` announces.
pub fn suback(
    out: &mut [u8],
    id: PacketId,
    codes: impl ExactSizeIterator<Item = SubscribeCode>,
) -> Option<usize> {
    if codes.len() == 0 {
        return None;
    }
    let len = codes.len().saturating_add(2);
    let mut packet = Packet::begin(out, PacketType::SubAck, len)?.id(id)?;
    for code in codes {
        packet = packet.bytes(&[code.number()])?;
    }
    packet.end()
}

/// UNSUBSCRIBE (§3.10). `None` also without a filter.
pub fn unsubscribe(out: &mut [u8], id: PacketId, filters: &[&str]) -> Option<usize> {
    if filters.is_empty() {
        return None;
    }
    let len = filters.iter().fold(2, |sum: usize, filter| sum.saturating_add(2 + filter.len()));
    let mut packet = Packet::begin(out, PacketType::Unsubscribe, len)?.id(id)?;
    for filter in filters {
        packet = packet.string(filter.as_bytes())?;
    }
    packet.end()
}

/// UNSUBACK (§3.11).
pub fn unsuback(out: &mut [u8], id: PacketId) -> Option<usize> {
    answer(out, PacketType::UnsubAck, id)
}

/// PINGREQ (§3.12).
pub fn pingreq(out: &mut [u8]) -> Option<usize> {
    Packet::begin(out, PacketType::PingReq, 0)?.end()
}

/// PINGRESP (§3.13).
pub fn pingresp(out: &mut [u8]) -> Option<usize> {
    Packet::begin(out, PacketType::PingResp, 0)?.end()
}

/// DISCONNECT (§3.14).
pub fn disconnect(out: &mut [u8]) -> Option<usize> {
    Packet::begin(out, PacketType::Disconnect, 0)?.end()
}

fn answer(out: &mut [u8], kind: PacketType, id: PacketId) -> Option<usize> {
    Packet::begin(out, kind, 2)?.id(id)?.end()
}

/// A packet being written.
struct Packet<'o> {
    /// What is still to be written of it: a body that is not as long as its header announces does not
    /// get past [`end`](Self::end).
    room: &'o mut [u8],
    /// Bytes written once `room` is empty.
    len: usize,
}

impl<'o> Packet<'o> {
    fn begin(out: &'o mut [u8], kind: PacketType, len: usize) -> Option<Self> {
        Self::begin_part(out, kind, kind.flags(), len, 0)
    }

    /// Writes a header for a body of `len` bytes here and `behind` bytes that the caller adds.
    fn begin_part(
        out: &'o mut [u8],
        kind: PacketType,
        flags: u8,
        len: usize,
        behind: usize,
    ) -> Option<Self> {
        let remaining = u32::try_from(len.checked_add(behind)?).ok()?;
        let lengths = match remaining {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            0x4000..0x20_0000 => 3,
            0x20_0000..=MAX_REMAINING => 4,
            _ => return None,
        };
        let len = len.checked_add(1 + lengths)?;
        let mut packet = Self { room: out.get_mut(..len)?, len };
        packet = packet.bytes(&[((kind as u8) << 4) | flags])?;
        for at in 0..lengths {
            let more = if at + 1 < lengths { 0x80 } else { 0 };
            packet = packet.bytes(&[(remaining >> (7 * at)) as u8 & 0x7F | more])?;
        }
        Some(packet)
    }

    fn bytes(self, bytes: &[u8]) -> Option<Self> {
        let (here, room) = self.room.split_at_mut_checked(bytes.len())?;
        here.copy_from_slice(bytes);
        Some(Self { room, len: self.len })
    }

    fn id(self, id: PacketId) -> Option<Self> {
        self.bytes(&id.get().to_be_bytes())
    }

    fn string(self, text: &[u8]) -> Option<Self> {
        let len = u16::try_from(text.len()).ok()?;
        self.bytes(&len.to_be_bytes())?.bytes(text)
    }

    fn end(self) -> Option<usize> {
        self.room.is_empty().then_some(self.len)
    }
}
