//! MQTT 3.1.1 as a broker reads and writes it, byte by byte, for the simulated printer only.
//!
//! It is written from the standard and shares nothing with the proxy's own codec, so that a mistake
//! made in one is met by the other. Section numbers (§) here are those of the OASIS MQTT 3.1.1 text.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a packet | [`MAX_PACKET`] | [`Malformed`], as soon as its length is read |
//! | filters in one SUBSCRIBE | [`MAX_FILTERS`] | [`Malformed`] |

use core::fmt;

/// The largest packet, fixed header included, that is read or written.
pub const MAX_PACKET: usize = 1024 * 1024;

/// The most filters that one SUBSCRIBE or UNSUBSCRIBE may carry.
pub(crate) const MAX_FILTERS: usize = 32;

/// A packet from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Connect(Connect<'a>),
    Publish(Publish<'a>),
    /// Answers a QoS 1 publication of ours. There are none, so its packet id means nothing.
    Puback,
    Subscribe {
        id: u16,
        /// Each filter with the QoS asked for.
        filters: Vec<(&'a str, u8)>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<&'a str>,
    },
    Pingreq,
    Disconnect,
}

/// CONNECT (§3.1).
#[derive(PartialEq, Eq)]
pub(super) struct Connect<'a> {
    pub(super) protocol: &'a str,
    pub(super) level: u8,
    pub(super) clean_session: bool,
    pub(super) will: bool,
    /// In seconds; zero turns it off.
    pub(super) keep_alive: u16,
    pub(super) client_id: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a [u8]>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connect({}, {}, {:?}, …)", self.protocol, self.level, self.client_id)
    }
}

/// PUBLISH (§3.3).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: &'a str,
    /// Only with QoS 1 and 2.
    pub(super) id: Option<u16>,
    pub(super) payload: &'a [u8],
}

/// Bytes that are no packet a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How long the packet at the front of `input` is in all, once its header is complete.
///
/// # Errors
///
/// Its length takes more than four bytes, or is more than [`MAX_PACKET`].
pub(super) fn length(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut rest = 0_usize;
    for (place, byte) in input.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let whole = 2 + place + rest;
            return if whole > MAX_PACKET { Err(Malformed) } else { Ok(Some(whole)) };
        }
    }
    if input.len() >= 5 { Err(Malformed) } else { Ok(None) }
}

/// Parses one whole packet of the length that [`length`] returned.
pub(super) fn parse(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (&first, rest) = packet.split_first().ok_or(Malformed)?;
    let digits = rest.iter().position(|byte| byte & 0x80 == 0).ok_or(Malformed)? + 1;
    let mut body = Body(rest.get(digits..).ok_or(Malformed)?);
    let understood = match (first >> 4, first & 0x0f) {
        (1, 0) => Packet::Connect(connect(&mut body)?),
        (3, flags) => Packet::Publish(publish(flags, &mut body)?),
        (4, 0) => {
            body.number()?;
            Packet::Puback
        }
        (8, 2) => Packet::Subscribe { id: body.id()?, filters: filters(&mut body, subscription)? },
        (10, 2) => Packet::Unsubscribe { id: body.id()?, filters: filters(&mut body, Body::text)? },
        (12, 0) => Packet::Pingreq,
        (14, 0) => Packet::Disconnect,
        _ => return Err(Malformed),
    };
    if body.0.is_empty() { Ok(understood) } else { Err(Malformed) }
}

/// CONNACK with this return code (§3.2); there is never a session to go on with.
pub(super) fn connack(code: u8) -> Vec<u8> {
    vec![0x20, 2, 0, code]
}

/// SUBACK with one granted QoS for each filter.
pub(super) fn suback(id: u16, granted: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend_from_slice(granted);
    framed(0x90, &body)
}

/// UNSUBACK.
pub(super) fn unsuback(id: u16) -> Vec<u8> {
    framed(0xb0, &id.to_be_bytes())
}

/// PUBACK.
pub(super) fn puback(id: u16) -> Vec<u8> {
    framed(0x40, &id.to_be_bytes())
}

/// PINGRESP.
pub(super) fn pingresp() -> Vec<u8> {
    framed(0xd0, &[])
}

/// PUBLISH with QoS 0, not retained.
pub(super) fn publication(topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(topic.len()).expect("a topic of ours is short");
    let mut body = Vec::with_capacity(2 + topic.len() + payload.len());
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(payload);
    framed(0x30, &body)
}

/// Whether a filter takes a topic, `+` and `#` included (§4.7).
pub(super) fn takes(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(5 + body.len());
    packet.push(first);
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest & 0x7f).expect("seven bits");
        rest >>= 7;
        packet.push(if rest == 0 { digit } else { digit | 0x80 });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn connect<'a>(body: &mut Body<'a>) -> Result<Connect<'a>, Malformed> {
    let protocol = body.text()?;
    let level = body.byte()?;
    let flags = body.byte()?;
    let keep_alive = body.number()?;
    let client_id = body.text()?;
    let will = flags & 0x04 != 0;
    if flags & 0x01 != 0 {
        return Err(Malformed); // §3.1.2.3: reserved
    }
    if will {
        body.text()?;
        body.string()?;
    }
    Ok(Connect {
        protocol,
        level,
        clean_session: flags & 0x02 != 0,
        will,
        keep_alive,
        client_id,
        user: if flags & 0x80 == 0 { None } else { Some(body.text()?) },
        password: if flags & 0x40 == 0 { None } else { Some(body.string()?) },
    })
}

fn publish<'a>(flags: u8, body: &mut Body<'a>) -> Result<Publish<'a>, Malformed> {
    let qos = flags >> 1 & 3;
    let dup = flags & 8 != 0;
    let topic = body.text()?;
    if qos == 3 || (dup && qos == 0) || topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(Malformed);
    }
    Ok(Publish {
        dup,
        qos,
        retain: flags & 1 != 0,
        topic,
        id: if qos == 0 { None } else { Some(body.id()?) },
        payload: core::mem::take(&mut body.0),
    })
}

fn subscription<'a>(body: &mut Body<'a>) -> Result<(&'a str, u8), Malformed> {
    let filter = body.text()?;
    let qos = body.byte()?;
    if qos > 2 { Err(Malformed) } else { Ok((filter, qos)) }
}

/// All the filters of a packet; one at least (§3.8.3).
fn filters<'a, T>(
    body: &mut Body<'a>,
    one: impl Fn(&mut Body<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut filters = vec![one(body)?];
    while !body.0.is_empty() {
        if filters.len() == MAX_FILTERS {
            return Err(Malformed);
        }
        filters.push(one(body)?);
    }
    Ok(filters)
}

/// What is left of a packet's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A packet id: never zero (§2.3.1).
    fn id(&mut self) -> Result<u16, Malformed> {
        match self.number()? {
            0 => Err(Malformed),
            id => Ok(id),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.number()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.string()?).map_err(|_| Malformed)
    }
}
