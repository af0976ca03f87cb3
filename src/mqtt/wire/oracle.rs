//! The codec against another one, `mqtt-protocol-core`, which knows 3.1.1 only.
//!
//! Each reads what the other writes, and finds the same in it. For packets that no implementation writes, the
//! two may disagree about whether they are valid, but only where [`lenient`] and [`beyond`] give the reason;
//! where both accept a packet, they find the same in it.

use super::*;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use mqtt_protocol_core::mqtt::packet::v3_1_1 as other;
use mqtt_protocol_core::mqtt::packet::{
    DecodeResult, Qos as OtherQos, SubEntry, SubOpts, VariableByteInteger,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReturnCode as OtherCode, SubackReturnCode as OtherGrant,
};
use proptest::collection::vec as several;
use proptest::option::of as maybe;
use proptest::prelude::*;

/// The content of a packet, independent of the codec that parsed it.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Connect {
        clean: bool,
        keep_alive: u16,
        client_id: String,
        /// Topic, payload, QoS, retain.
        will: Option<(String, Vec<u8>, u8, bool)>,
        user_name: Option<String>,
        password: Option<Vec<u8>>,
    },
    ConnAck {
        session_present: bool,
        code: u8,
    },
    Publish {
        dup: bool,
        qos: u8,
        retain: bool,
        topic: String,
        id: Option<u16>,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP and UNSUBACK, by their type.
    Answer(u8, u16),
    Subscribe(u16, Vec<(String, u8)>),
    SubAck(u16, Vec<u8>),
    Unsubscribe(u16, Vec<String>),
    /// PINGREQ, PINGRESP and DISCONNECT, by their type.
    Bare(u8),
}

fn ours(bytes: &[u8]) -> Result<Said, WireError> {
    let header = header(bytes)?.expect("a whole header");
    let kind = header.kind() as u8;
    Ok(match packet(header, &bytes[header.body_at()..])? {
        Packet::Connect(connect) => Said::Connect {
            clean: connect.clean,
            keep_alive: connect.keep_alive,
            client_id: connect.client_id.to_string(),
            will: connect.will.map(|will| {
                (will.topic.to_string(), will.payload.to_vec(), will.qos as u8, will.retain)
            }),
            user_name: connect.user_name.map(String::from),
            password: connect.password.map(Vec::from),
        },
        Packet::ConnAck { session_present, code } => {
            Said::ConnAck { session_present, code: code as u8 }
        }
        Packet::Publish(publish) => Said::Publish {
            dup: publish.dup,
            qos: publish.qos as u8,
            retain: publish.retain,
            topic: publish.topic.to_string(),
            id: publish.id.map(PacketId::get),
            payload: publish.payload.to_vec(),
        },
        Packet::PubAck(id)
        | Packet::PubRec(id)
        | Packet::PubRel(id)
        | Packet::PubComp(id)
        | Packet::UnsubAck(id) => Said::Answer(kind, id.get()),
        Packet::Subscribe(subscribe) => Said::Subscribe(
            subscribe.id.get(),
            subscribe.filters().map(|(filter, qos)| (filter.to_string(), qos as u8)).collect(),
        ),
        Packet::SubAck(suback) => {
            Said::SubAck(suback.id.get(), suback.codes().map(SubscribeCode::number).collect())
        }
        Packet::Unsubscribe(unsubscribe) => Said::Unsubscribe(
            unsubscribe.id.get(),
            unsubscribe.filters().map(String::from).collect(),
        ),
        Packet::PingReq | Packet::PingResp | Packet::Disconnect => Said::Bare(kind),
    })
}

/// The other codec reads bodies only: its caller takes the header apart. `None` is its refusal.
fn theirs(kind: u8, flags: u8, body: &[u8]) -> Option<Said> {
    Some(match kind {
        1 => {
            let (connect, _) = other::Connect::parse(body).ok()?;
            Said::Connect {
                clean: connect.clean_session(),
                keep_alive: connect.keep_alive(),
                client_id: connect.client_id().to_string(),
                will: connect.will_topic().map(|topic| {
                    let payload = connect.will_payload().unwrap_or_default().to_vec();
                    let qos = connect.will_qos() as u8;
                    (topic.to_string(), payload, qos, connect.will_retain())
                }),
                user_name: connect.user_name().map(String::from),
                password: connect.password().map(Vec::from),
            }
        }
        2 => {
            let (connack, _) = other::Connack::parse(body).ok()?;
            Said::ConnAck {
                session_present: connack.session_present(),
                code: connack.return_code() as u8,
            }
        }
        3 => {
            let (publish, _) = other::Publish::parse(flags, Arc::from(body)).ok()?;
            Said::Publish {
                dup: publish.dup(),
                qos: publish.qos() as u8,
                retain: publish.retain(),
                topic: publish.topic_name().to_string(),
                id: publish.packet_id(),
                payload: publish.payload().as_slice().to_vec(),
            }
        }
        4 => Said::Answer(kind, other::Puback::parse(body).ok()?.0.packet_id()),
        5 => Said::Answer(kind, other::Pubrec::parse(body).ok()?.0.packet_id()),
        6 => Said::Answer(kind, other::Pubrel::parse(body).ok()?.0.packet_id()),
        7 => Said::Answer(kind, other::Pubcomp::parse(body).ok()?.0.packet_id()),
        8 => {
            let (subscribe, _) = other::Subscribe::parse(body).ok()?;
            let entry =
                |entry: &SubEntry| (entry.topic_filter().to_string(), entry.sub_opts().qos() as u8);
            Said::Subscribe(subscribe.packet_id(), subscribe.entries().iter().map(entry).collect())
        }
        9 => {
            let (suback, _) = other::Suback::parse(body).ok()?;
            let codes = suback.return_codes().into_iter().map(|code| code as u8).collect();
            Said::SubAck(suback.packet_id(), codes)
        }
        10 => {
            let (unsubscribe, _) = other::Unsubscribe::parse(body).ok()?;
            let filters = unsubscribe.entries().iter().map(|filter| filter.as_str().to_string());
            Said::Unsubscribe(unsubscribe.packet_id(), filters.collect())
        }
        11 => Said::Answer(kind, other::Unsuback::parse(body).ok()?.0.packet_id()),
        12 => other::Pingreq::parse(body).map(|_| Said::Bare(kind)).ok()?,
        13 => other::Pingresp::parse(body).map(|_| Said::Bare(kind)).ok()?,
        14 => other::Disconnect::parse(body).map(|_| Said::Bare(kind)).ok()?,
        _ => return None,
    })
}

/// Why the other codec may accept what we refuse for this fault; `None` if it may not.
fn lenient(kind: u8, fault: Fault) -> Option<&'static str> {
    match (kind, fault) {
        (_, Fault::Flags) | (3, Fault::Dup) => Some("it is not shown the header, nor checks DUP"),
        (1 | 2 | 4..=7 | 11..=14, Fault::Trailing) => {
            Some("it stops behind the last field, or takes a reason code of MQTT 5")
        }
        (3 | 8..=11, Fault::PacketId) => Some("it checks identifiers in the answers only"),
        (1 | 3 | 8 | 10, Fault::Nul) => Some("it checks strings for UTF-8 only"),
        (1 | 3, Fault::EmptyTopic | Fault::WildcardInTopic) => Some("it takes any topic"),
        (8 | 10, Fault::EmptyFilter) => Some("it takes any filter"),
        (1, Fault::Qos | Fault::ReservedBits | Fault::WillFlags) => {
            Some("it looks at the flags of a CONNECT one by one")
        }
        (2, Fault::ReservedBits) => Some("it ignores these bits"),
        (8, Fault::ReservedBits) => Some("it takes the options of MQTT 5"),
        (_, _) => None,
    }
}

/// Whether the other codec may refuse what we accept: it knows no version but 3.1.1, and no bridges.
fn beyond(bytes: &[u8]) -> bool {
    let header = header(bytes).unwrap().unwrap();
    match packet(header, &bytes[header.body_at()..]).unwrap() {
        // The level is behind the name's six bytes.
        Packet::Connect(connect) => {
            connect.protocol != Protocol::V3_1_1 || bytes[header.body_at() + 6] != MQTT_3_1_1.1
        }
        Packet::ConnAck { .. }
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect => false,
    }
}

/// Puts a first byte and a remaining length before a body.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(VariableByteInteger::from_u32(body.len() as u32).unwrap().as_bytes());
    bytes.extend(body);
    bytes
}

/// What we wrote, as the other codec reads it.
fn read_by_them(bytes: &[u8]) -> Option<Said> {
    let DecodeResult::Ok(remaining, lengths) = VariableByteInteger::decode_stream(&bytes[1..])
    else {
        return None;
    };
    let body = &bytes[1 + lengths..];
    assert_eq!(body.len(), remaining.to_u32() as usize, "{bytes:02x?}");
    theirs(bytes[0] >> 4, bytes[0] & 0x0F, body)
}

/// Our encoder for what is said; `None` for what only the other codec writes: a CONNECT that is not
/// ours.
fn write_ours(said: &Said) -> Option<Vec<u8>> {
    let mut out = vec![0; 4096];
    let id = |id: u16| PacketId::new(id).unwrap();
    let qos = |number| Qos::of(number).unwrap();
    let len = match said {
        Said::Connect {
            clean: true,
            keep_alive,
            client_id,
            will: None,
            user_name: Some(user_name),
            password: Some(password),
        } => connect(&mut out, *keep_alive, client_id, user_name, password),
        Said::Connect { .. } => return None,
        Said::ConnAck { session_present, code } => {
            connack(&mut out, *session_present, ConnectCode::of(*code).unwrap())
        }
        Said::Publish { dup, qos: number, retain, topic, id: name, payload } => {
            let sent = Publish {
                dup: *dup,
                qos: qos(*number),
                retain: *retain,
                topic,
                id: name.map(id),
                payload,
            };
            publish(&mut out, &sent)
        }
        Said::Answer(kind, name) => {
            let answer = [puback, pubrec, pubrel, pubcomp];
            answer.get(usize::from(*kind) - 4).unwrap_or(&(unsuback as _))(&mut out, id(*name))
        }
        Said::Subscribe(name, filters) => {
            let filters: Vec<_> = filters.iter().map(|(f, q)| (f.as_str(), qos(*q))).collect();
            subscribe(&mut out, id(*name), &filters)
        }
        Said::SubAck(name, codes) => {
            let codes = codes.iter().map(|code| SubscribeCode::of(*code).unwrap());
            suback(&mut out, id(*name), codes)
        }
        Said::Unsubscribe(name, filters) => {
            let filters: Vec<_> = filters.iter().map(String::as_str).collect();
            unsubscribe(&mut out, id(*name), &filters)
        }
        Said::Bare(12) => pingreq(&mut out),
        Said::Bare(13) => pingresp(&mut out),
        Said::Bare(_) => disconnect(&mut out),
    };
    out.truncate(len.unwrap());
    Some(out)
}

/// The other codec's encoder for what is said.
fn write_theirs(said: &Said) -> Vec<u8> {
    let qos = |number| OtherQos::try_from(number).unwrap();
    match said {
        Said::Connect { clean, keep_alive, client_id, will, user_name, password } => {
            let mut connect = other::Connect::builder()
                .clean_session(*clean)
                .keep_alive(*keep_alive)
                .client_id(client_id)
                .unwrap();
            if let Some((topic, payload, number, retain)) = will {
                let will = connect.will_message(topic, payload.clone(), qos(*number), *retain);
                connect = will.unwrap();
            }
            if let Some(user_name) = user_name {
                connect = connect.user_name(user_name).unwrap();
            }
            if let Some(password) = password {
                connect = connect.password(password.clone()).unwrap();
            }
            connect.build().unwrap().to_continuous_buffer()
        }
        Said::ConnAck { session_present, code } => other::Connack::builder()
            .session_present(*session_present)
            .return_code(OtherCode::try_from(*code).unwrap())
            .build()
            .unwrap()
            .to_continuous_buffer(),
        Said::Publish { dup, qos: number, retain, topic, id, payload } => {
            let mut publish = other::Publish::builder()
                .topic_name(topic)
                .unwrap()
                .qos(qos(*number))
                .dup(*dup)
                .retain(*retain)
                .payload(payload.clone());
            if let Some(id) = id {
                publish = publish.packet_id(*id);
            }
            publish.build().unwrap().to_continuous_buffer()
        }
        Said::Answer(kind, id) => match kind {
            4 => other::Puback::builder().packet_id(*id).build().unwrap().to_continuous_buffer(),
            5 => other::Pubrec::builder().packet_id(*id).build().unwrap().to_continuous_buffer(),
            6 => other::Pubrel::builder().packet_id(*id).build().unwrap().to_continuous_buffer(),
            7 => other::Pubcomp::builder().packet_id(*id).build().unwrap().to_continuous_buffer(),
            _ => other::Unsuback::builder().packet_id(*id).build().unwrap().to_continuous_buffer(),
        },
        Said::Subscribe(id, filters) => {
            let entry = |(filter, number): &(String, u8)| {
                SubEntry::new(filter, SubOpts::new().set_qos(qos(*number))).unwrap()
            };
            let subscribe = other::Subscribe::builder()
                .packet_id(*id)
                .entries(filters.iter().map(entry).collect::<Vec<_>>());
            subscribe.build().unwrap().to_continuous_buffer()
        }
        Said::SubAck(id, codes) => {
            let codes = codes.iter().map(|code| OtherGrant::try_from(*code).unwrap()).collect();
            let suback = other::Suback::builder().packet_id(*id).return_codes(codes);
            suback.build().unwrap().to_continuous_buffer()
        }
        Said::Unsubscribe(id, filters) => {
            let unsubscribe = other::Unsubscribe::builder().packet_id(*id).entries(filters);
            unsubscribe.unwrap().build().unwrap().to_continuous_buffer()
        }
        Said::Bare(12) => other::Pingreq::new().to_continuous_buffer(),
        Said::Bare(13) => other::Pingresp::new().to_continuous_buffer(),
        Said::Bare(_) => other::Disconnect::new().to_continuous_buffer(),
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/ $äЖ☃𝄞]{0,40}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/ $äЖ☃𝄞]{1,40}"
}

fn filter() -> impl Strategy<Value = String> {
    "[a-z/+#ä]{1,200}"
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    several(any::<u8>(), 0..most)
}

fn id() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

/// Everything that 3.1.1 can say, in short.
fn said() -> impl Strategy<Value = Said> {
    let will = maybe((topic(), bytes(30), 0..3u8, any::<bool>()));
    let login = maybe((text(), maybe(bytes(20))));
    let connect = (any::<bool>(), any::<u16>(), text(), will, login).prop_map(
        |(clean, keep_alive, client_id, will, login)| {
            let (user_name, password) = login.unzip();
            let password = password.flatten();
            Said::Connect { clean, keep_alive, client_id, will, user_name, password }
        },
    );
    let proxy = (any::<u16>(), text(), text(), bytes(20)).prop_map(
        |(keep_alive, client_id, user_name, password)| Said::Connect {
            clean: true,
            keep_alive,
            client_id,
            will: None,
            user_name: Some(user_name),
            password: Some(password),
        },
    );
    let connack = prop_oneof![
        any::<bool>().prop_map(|session_present| Said::ConnAck { session_present, code: 0 }),
        (1..6u8).prop_map(|code| Said::ConnAck { session_present: false, code }),
    ];
    let publish = (any::<bool>(), 0..3u8, any::<bool>(), topic(), id(), bytes(300)).prop_map(
        |(dup, qos, retain, topic, id, payload)| Said::Publish {
            dup: dup && qos > 0,
            qos,
            retain,
            topic,
            id: (qos > 0).then_some(id),
            payload,
        },
    );
    let code = prop_oneof![0..3u8, Just(0x80)];
    prop_oneof![
        connect,
        proxy,
        connack,
        publish,
        (prop_oneof![4..8u8, Just(11)], id()).prop_map(|(kind, id)| Said::Answer(kind, id)),
        (id(), several((filter(), 0..3u8), 1..6)).prop_map(|(id, list)| Said::Subscribe(id, list)),
        (id(), several(code, 1..6)).prop_map(|(id, codes)| Said::SubAck(id, codes)),
        (id(), several(filter(), 1..6)).prop_map(|(id, list)| Said::Unsubscribe(id, list)),
        (12..15u8).prop_map(Said::Bare),
    ]
}

/// Both codecs on one packet: ours on all of it, the other on its body, whatever we say of the header.
fn compare(first: u8, body: &[u8]) -> Result<(), TestCaseError> {
    let kind = first >> 4;
    let bytes = framed(first, body);
    match (ours(&bytes), theirs(kind, first & 0x0F, body)) {
        (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
        (Err(_), None) => {}
        (Ok(ours), None) => prop_assert!(beyond(&bytes), "only we accept {ours:?}"),
        (Err(error), Some(theirs)) => {
            prop_assert!(lenient(kind, error.fault).is_some(), "{error}, they read {theirs:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn what_we_write_they_read(said in said()) {
        let Some(bytes) = write_ours(&said) else { return Ok(()) };
        prop_assert_eq!(read_by_them(&bytes), Some(said.clone()));
        prop_assert_eq!(ours(&bytes), Ok(said.clone()));
        prop_assert_eq!(bytes, write_theirs(&said));
    }

    #[test]
    fn what_they_write_we_read(said in said()) {
        let bytes = write_theirs(&said);
        prop_assert_eq!(ours(&bytes), Ok(said));
    }

    /// Packets with a few bytes changed, removed or added, under a header that agrees.
    #[test]
    fn damaged_packets_decode_alike_or_differ_for_a_known_reason(
        said in said(),
        changes in several((any::<prop::sample::Index>(), damage()), 1..4),
        first in maybe(any::<u8>()),
    ) {
        let whole = write_theirs(&said);
        let mut body = whole[header(&whole).unwrap().unwrap().body_at()..].to_vec();
        for (place, damage) in changes {
            let at = place.index(body.len() + 1);
            match damage {
                Damage::Change(byte) => body.iter_mut().skip(at).take(1).for_each(|b| *b = byte),
                Damage::Flip(bit) => body.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << bit),
                Damage::Insert(byte) => body.insert(at, byte),
                Damage::Cut => body.truncate(at),
            }
        }
        compare(first.unwrap_or(whole[0]), &body)?;
    }

    /// Bodies of nothing in particular under every type, with lengths that often hold.
    #[test]
    fn any_bodies_decode_alike_or_differ_for_a_known_reason(
        kind in 0..16u8,
        odd in maybe(0..16u8),
        body in several(prop_oneof![3 => Just(0u8), 3 => 0..5u8, 1 => any::<u8>()], 0..24),
        connect: bool,
    ) {
        let usual = PacketType::of(kind).map_or(0, PacketType::flags);
        let mut whole = if connect { b"\x00\x04MQTT\x04".to_vec() } else { vec![] };
        whole.extend(&body);
        compare((kind << 4) | odd.unwrap_or(usual), &whole)?;
    }

    #[test]
    fn a_remaining_length_means_the_same_to_both(bytes in several(any::<u8>(), 0..6)) {
        let theirs = match VariableByteInteger::decode_stream(&bytes) {
            DecodeResult::Ok(remaining, len) => Ok(Some((remaining.to_u32() as usize, len))),
            DecodeResult::Incomplete => Ok(None),
            DecodeResult::Err(_) => Err(Fault::Length),
        };
        let mut packet = vec![0x30];
        packet.extend(&bytes);
        let ours = header(&packet).map_err(|error| error.fault);
        let ours = ours.map(|header| header.map(|it| (it.remaining(), it.body_at() - 1)));
        prop_assert_eq!(ours, theirs);
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Change(u8),
    Flip(u8),
    Insert(u8),
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<u8>().prop_map(Damage::Change),
        (0..8u8).prop_map(Damage::Flip),
        prop_oneof![Just(0), any::<u8>()].prop_map(Damage::Insert),
        Just(Damage::Cut),
    ]
}
