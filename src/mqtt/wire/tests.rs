//! The codec against packets written by hand, cut anywhere, and against arbitrary bytes.

use super::*;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// Reads the one packet at the front of `bytes`.
fn read(bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    let header = header(bytes)?.expect("a whole header");
    packet(header, &bytes[header.body_at()..])
}

fn fault(bytes: &[u8]) -> (u32, Fault) {
    let error = read(bytes).expect_err("a malformed packet");
    (error.at, error.fault)
}

/// What an encoder writes into plenty of room.
fn written(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut out = vec![0xEE; 8192];
    let len = write(&mut out).expect("room enough");
    assert!(out[len..].iter().all(|byte| *byte == 0xEE), "written behind the packet");
    out.truncate(len);
    out
}

const FULL_CONNECT: &[u8] = b"\x10\x26\x00\x04MQTT\x04\xF6\x00\x3C\x00\x02id\x00\x01w\x00\x03bye\
    \x00\x04bblp\x00\x0812345678";

const WILL: Will<'static> =
    Will { topic: "w", payload: b"bye", qos: Qos::ExactlyOnce, retain: true };

const V5_CONNECT: &[u8] = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x03abc";

/// One packet of every type and form, by hand, and its meaning. Lists are checked elsewhere.
fn samples() -> Vec<(&'static [u8], Packet<'static>)> {
    let plain = Connect { clean: true, keep_alive: 5, ..Connect::unread(Protocol::V3_1_1) };
    let full = Connect {
        protocol: Protocol::V3_1_1,
        clean: true,
        keep_alive: 60,
        client_id: "id",
        will: Some(WILL),
        user_name: Some("bblp"),
        password: Some(b"12345678"),
    };
    let old = Connect { protocol: Protocol::V3_1, client_id: "a", clean: false, ..plain };
    let report = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "d/r",
        id: None,
        payload: b"{}",
    };
    let again = Publish {
        dup: true,
        qos: Qos::AtLeastOnce,
        retain: true,
        id: Some(id(0x0102)),
        payload: b"",
        ..report
    };
    let twice = Publish { qos: Qos::ExactlyOnce, id: Some(id(0xFFFF)), ..report };
    vec![
        (b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x05\x00\x00", Packet::Connect(plain)),
        (FULL_CONNECT, Packet::Connect(full)),
        (b"\x10\x0F\x00\x06MQIsdp\x03\x00\x00\x05\x00\x01a", Packet::Connect(old)),
        (V5_CONNECT, Packet::Connect(Connect::unread(Protocol::V5))),
        (b"\x10\x07\x00\x04MQTT\x86", Packet::Connect(Connect::unread(Protocol::Other(0x86)))),
        (b"\x10\x07\x00\x04MQTT\x85", Packet::Connect(Connect::unread(Protocol::Other(0x85)))),
        (b"\x10\x0C\x00\x04MQTT\x84\x02\x00\x05\x00\x00", Packet::Connect(plain)),
        (b"\x10\x0F\x00\x06MQIsdp\x83\x00\x00\x05\x00\x01a", Packet::Connect(old)),
        (
            b"\x20\x02\x00\x00",
            Packet::ConnAck { session_present: false, code: ConnectCode::Accepted },
        ),
        (
            b"\x20\x02\x01\x00",
            Packet::ConnAck { session_present: true, code: ConnectCode::Accepted },
        ),
        (
            b"\x20\x02\x00\x05",
            Packet::ConnAck { session_present: false, code: ConnectCode::NotAuthorized },
        ),
        (b"\x30\x07\x00\x03d/r{}", Packet::Publish(report)),
        (b"\x3B\x07\x00\x03d/r\x01\x02", Packet::Publish(again)),
        (b"\x34\x09\x00\x03d/r\xFF\xFF{}", Packet::Publish(twice)),
        (b"\x40\x02\x00\x01", Packet::PubAck(id(1))),
        (b"\x50\x02\x00\x02", Packet::PubRec(id(2))),
        (b"\x62\x02\x00\x03", Packet::PubRel(id(3))),
        (b"\x70\x02\x00\x04", Packet::PubComp(id(4))),
        (b"\x82\x0C\x00\x0A\x00\x03a/b\x01\x00\x01#\x02", subscribe_sample()),
        (b"\x90\x05\x00\x0A\x00\x02\x80", suback_sample()),
        (b"\xA2\x0A\x00\x0A\x00\x03a/b\x00\x01#", unsubscribe_sample()),
        (b"\xB0\x02\x00\x0A", Packet::UnsubAck(id(10))),
        (b"\xC0\x00", Packet::PingReq),
        (b"\xD0\x00", Packet::PingResp),
        (b"\xE0\x00", Packet::Disconnect),
    ]
}

fn subscribe_sample() -> Packet<'static> {
    let fields = Fields { rest: b"\x00\x03a/b\x01\x00\x01#\x02", at: 0 };
    Packet::Subscribe(Subscribe { id: id(10), filters: Subscriptions { fields, left: 2 } })
}

fn suback_sample() -> Packet<'static> {
    Packet::SubAck(SubAck { id: id(10), codes: b"\x00\x02\x80" })
}

fn unsubscribe_sample() -> Packet<'static> {
    let fields = Fields { rest: b"\x00\x03a/b\x00\x01#", at: 0 };
    Packet::Unsubscribe(Unsubscribe { id: id(10), filters: Filters { fields, left: 2 } })
}

#[test]
fn every_packet_type_decodes_to_what_was_encoded_by_hand() {
    for (bytes, expected) in samples() {
        assert_eq!(read(bytes), Ok(expected), "{bytes:02x?}");
        assert_eq!(header(bytes).unwrap().unwrap().total(), bytes.len());
    }
}

#[test]
fn lists_are_read_in_their_order_and_know_their_length() {
    let Packet::Subscribe(subscribe) = subscribe_sample() else { unreachable!() };
    assert_eq!(subscribe.filters().len(), 2);
    let filters: Vec<_> = subscribe.filters().collect();
    assert_eq!(filters, [("a/b", Qos::AtLeastOnce), ("#", Qos::ExactlyOnce)]);

    let Packet::Unsubscribe(unsubscribe) = unsubscribe_sample() else { unreachable!() };
    assert_eq!(unsubscribe.filters().len(), 2);
    assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), ["a/b", "#"]);

    let Packet::SubAck(suback) = suback_sample() else { unreachable!() };
    let granted = SubscribeCode::Granted;
    let codes = [granted(Qos::AtMostOnce), granted(Qos::ExactlyOnce), SubscribeCode::Refused];
    assert_eq!(suback.codes().collect::<Vec<_>>(), codes);
}

#[test]
fn a_header_needs_all_its_bytes_and_none_of_the_body() {
    for (bytes, _) in samples() {
        let whole = header(bytes).unwrap().unwrap();
        for split in 0..=bytes.len() {
            let expected = if split < whole.body_at() { None } else { Some(whole) };
            assert_eq!(header(&bytes[..split]), Ok(expected), "{bytes:02x?} cut at {split}");
        }
    }
}

#[test]
fn a_packet_cut_anywhere_is_truncated_there() {
    for (bytes, _) in samples() {
        let header = header(bytes).unwrap().unwrap();
        for split in header.body_at()..bytes.len() {
            let error = WireError { at: split as u32, fault: Fault::Truncated };
            assert_eq!(packet(header, &bytes[header.body_at()..split]), Err(error));
        }
    }
}

/// The same cuts with a header that agrees with them: the fields themselves must notice.
#[test]
fn a_packet_whose_header_cuts_it_short_is_refused_by_its_fields() {
    for (bytes, whole) in samples() {
        for len in 2..bytes.len() {
            let mut short = bytes[..len].to_vec();
            short[1] = (len - 2) as u8;
            match read(&short) {
                Err(WireError { at, .. }) => assert!(at <= len as u32, "{short:02x?}"),
                // These end where anything may end.
                Ok(Packet::Publish(publish)) => {
                    let Packet::Publish(whole) = whole else { unreachable!() };
                    assert!(whole.payload.starts_with(publish.payload));
                    assert_eq!(publish.topic, whole.topic);
                }
                Ok(Packet::Subscribe(list)) => assert_eq!(list.filters().len(), 1),
                Ok(Packet::Unsubscribe(list)) => assert_eq!(list.filters().len(), 1),
                Ok(Packet::SubAck(list)) => assert!(list.codes().count() < 3),
                Ok(Packet::Connect(connect)) => assert_eq!(connect.protocol, Protocol::V5),
                Ok(other) => panic!("{other:?} of {short:02x?}"),
            }
        }
    }
}

#[test]
fn a_packet_longer_than_its_fields_is_refused_where_they_end() {
    for (bytes, packet) in samples() {
        let mut long = bytes.to_vec();
        long.push(0);
        long[1] += 1;
        match packet {
            Packet::Publish(_) => assert!(read(&long).is_ok()),
            Packet::SubAck(_) => assert!(read(&long).is_ok()),
            Packet::Connect(Connect { protocol: Protocol::V5 | Protocol::Other(_), .. }) => {
                assert!(read(&long).is_ok());
            }
            Packet::Subscribe(_) | Packet::Unsubscribe(_) => {
                assert_eq!(fault(&long), (bytes.len() as u32, Fault::Truncated));
            }
            Packet::Connect(_)
            | Packet::ConnAck { .. }
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Disconnect => {
                assert_eq!(fault(&long), (bytes.len() as u32, Fault::Trailing), "{long:02x?}");
            }
        }
    }
}

// Bugs that other MQTT codecs have or had.

#[test]
fn a_subscribe_without_its_last_qos_is_refused() {
    assert_eq!(fault(b"\x82\x07\x00\x0A\x00\x03a/b"), (9, Fault::Truncated));
    assert_eq!(fault(b"\x82\x0C\x00\x0A\x00\x03a/b\x00\x00\x02cd"), (14, Fault::Truncated));
}

#[test]
fn a_filter_of_300_bytes_is_a_filter() {
    let long = "a".repeat(300);
    let bytes = written(|out| subscribe(out, id(1), &[(&long, Qos::AtMostOnce)]));
    assert_eq!(bytes[..7], [0x82, 0xB1, 0x02, 0x00, 0x01, 0x01, 0x2C]);
    let Ok(Packet::Subscribe(subscribe)) = read(&bytes) else { panic!("{bytes:02x?}") };
    assert_eq!(subscribe.filters().collect::<Vec<_>>(), [(long.as_str(), Qos::AtMostOnce)]);
}

#[test]
fn nothing_is_read_from_the_packet_behind() {
    // The topic, the identifier, the QoS would all be there, were this one packet.
    for two in [
        &b"\x30\x04\x00\x06ab\xC0\x00\xC0\x00"[..],
        b"\x82\x06\x00\x01\x00\x02ab\x00\x00\x00",
        b"\x40\x01\x00\x01\x00",
        b"\x10\x0A\x00\x04MQTT\x04\x02\x00\x05\x00\x00",
    ] {
        assert_eq!(read(two).unwrap_err().fault, Fault::Truncated, "{two:02x?}");
    }
    for (bytes, expected) in samples() {
        let mut two = bytes.to_vec();
        two.extend_from_slice(b"\x30\x07\x00\x03d/r{}");
        assert_eq!(read(&two), Ok(expected), "{two:02x?}");
    }
}

/// Nothing is allocated: no file of this module imports from `alloc`.
#[test]
fn eight_bytes_that_claim_256_mib_cost_nothing() {
    let bytes = b"\x30\xFF\xFF\xFF\x7F\x00\x03a";
    for split in 0..5 {
        assert_eq!(header(&bytes[..split]), Ok(None));
    }
    let header = header(&bytes[..5]).unwrap().unwrap();
    assert_eq!(header.total(), 268_435_460);
    let error = WireError { at: 8, fault: Fault::Truncated };
    assert_eq!(packet(header, &bytes[5..]), Err(error));
    let sources = [
        include_str!("../wire.rs"),
        include_str!("fault.rs"),
        include_str!("fields.rs"),
        include_str!("write.rs"),
    ];
    for source in sources {
        for path in ["alloc::", "std::", "crate::"] {
            assert!(!source.contains(path), "{path}");
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused_at_once() {
    for number in [0x00, 0x0F, 0xF0, 0xFF] {
        let error = WireError { at: 0, fault: Fault::Type(number >> 4) };
        assert_eq!(header(&[number]), Err(error));
    }
    for first in 0x10..0xF0u8 {
        let (kind, flags) = (PacketType::of(first >> 4).unwrap(), first & 0x0F);
        let verdict = header(&[first]);
        let expected = match (kind, flags) {
            (PacketType::Publish, 0b0110 | 0b0111 | 0b1110 | 0b1111) => Err(Fault::Qos),
            (PacketType::Publish, 0b1000 | 0b1001) => Err(Fault::Dup),
            (PacketType::Publish, _) => Ok(None),
            (PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe, 2) => Ok(None),
            (PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe, _) => {
                Err(Fault::Flags)
            }
            (_, 0) => Ok(None),
            (_, _) => Err(Fault::Flags),
        };
        assert_eq!(verdict, expected.map_err(|fault| WireError { at: 0, fault }), "{first:02x}");
    }
}

#[test]
fn a_remaining_length_has_one_to_four_bytes() {
    let remaining = |bytes: &[u8]| header(bytes).map(|header| header.map(Header::remaining));
    for (bytes, expected) in [
        (&b"\x30\x00"[..], 0),
        (b"\x30\x7F", 127),
        (b"\x30\x80\x01", 128),
        (b"\x30\xFF\x7F", 16_383),
        (b"\x30\x80\x80\x01", 16_384),
        (b"\x30\xFF\xFF\x7F", 2_097_151),
        (b"\x30\x80\x80\x80\x01", 2_097_152),
        (b"\x30\xFF\xFF\xFF\x7F", MAX_REMAINING as usize),
        // Longer than it need be, which 3.1.1 does not forbid.
        (b"\x30\x80\x80\x80\x00", 0),
        (b"\x30\x82\x00", 2),
    ] {
        assert_eq!(remaining(bytes), Ok(Some(expected)), "{bytes:02x?}");
    }
    let error = WireError { at: 4, fault: Fault::Length };
    assert_eq!(remaining(b"\x30\x80\x80\x80"), Ok(None));
    assert_eq!(remaining(b"\x30\x80\x80\x80\x80"), Err(error));
    assert_eq!(remaining(b"\x30\xFF\xFF\xFF\xFF\x7F"), Err(error));
}

#[test]
fn faults_are_named_and_found() {
    for (bytes, at, expected) in [
        // CONNECT
        (&b"\x10\x0C\x00\x04MQTX\x04\x02\x00\x05\x00\x00"[..], 2, Fault::ProtocolName),
        (b"\x10\x02\x00\x00", 2, Fault::ProtocolName),
        (b"\x10\x07\x00\x04MQTT\x03", 8, Fault::ProtocolMismatch(3)),
        (b"\x10\x09\x00\x06MQIsdp\x04", 10, Fault::ProtocolMismatch(4)),
        (b"\x10\x09\x00\x06MQIsdp\x05", 10, Fault::ProtocolMismatch(5)),
        (b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x05\x00\x00", 9, Fault::ReservedBits),
        (b"\x10\x0C\x00\x04MQTT\x04\x0A\x00\x05\x00\x00", 9, Fault::WillFlags),
        (b"\x10\x0C\x00\x04MQTT\x04\x22\x00\x05\x00\x00", 9, Fault::WillFlags),
        (b"\x10\x0C\x00\x04MQTT\x04\x1E\x00\x05\x00\x00", 9, Fault::Qos),
        (b"\x10\x0C\x00\x04MQTT\x04\x42\x00\x05\x00\x00", 9, Fault::PasswordAlone),
        (b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x05\x00\x02\xC3\x28", 14, Fault::Utf8),
        (b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x05\x00\x02a\x00", 15, Fault::Nul),
        (b"\x10\x10\x00\x04MQTT\x04\x06\x00\x05\x00\x00\x00\x00\x00\x00", 14, Fault::EmptyTopic),
        (
            b"\x10\x11\x00\x04MQTT\x04\x06\x00\x05\x00\x00\x00\x01#\x00\x00",
            16,
            Fault::WildcardInTopic,
        ),
        // CONNACK
        (b"\x20\x02\x02\x00", 2, Fault::ReservedBits),
        (b"\x20\x02\x00\x06", 3, Fault::Code(6)),
        (b"\x20\x03\x00\x84\x00", 3, Fault::Code(0x84)),
        // PUBLISH
        (b"\x30\x02\x00\x00", 2, Fault::EmptyTopic),
        (b"\x30\x05\x00\x03a/+", 6, Fault::WildcardInTopic),
        (b"\x30\x05\x00\x03#/b", 4, Fault::WildcardInTopic),
        (b"\x30\x05\x00\x03a\x00b", 5, Fault::Nul),
        (b"\x30\x05\x00\x03a\xED\xA0", 5, Fault::Utf8),
        (b"\x32\x05\x00\x01a\x00\x00", 5, Fault::PacketId),
        (b"\x32\x03\x00\x01a", 5, Fault::Truncated),
        // The answers
        (b"\x40\x02\x00\x00", 2, Fault::PacketId),
        (b"\x50\x02\x00\x00", 2, Fault::PacketId),
        (b"\x62\x02\x00\x00", 2, Fault::PacketId),
        (b"\x70\x02\x00\x00", 2, Fault::PacketId),
        (b"\xB0\x02\x00\x00", 2, Fault::PacketId),
        // SUBSCRIBE, SUBACK, UNSUBSCRIBE
        (b"\x82\x02\x00\x01", 4, Fault::NoFilters),
        (b"\x82\x06\x00\x00\x00\x01a\x00", 2, Fault::PacketId),
        (b"\x82\x05\x00\x01\x00\x00\x00", 4, Fault::EmptyFilter),
        (b"\x82\x06\x00\x01\x00\x01a\x03", 7, Fault::Qos),
        (b"\x82\x06\x00\x01\x00\x01a\x04", 7, Fault::ReservedBits),
        (b"\x82\x06\x00\x01\x00\x01a\x80", 7, Fault::ReservedBits),
        (b"\x82\x06\x00\x01\x00\x01\x00\x00", 6, Fault::Nul),
        (b"\x90\x02\x00\x01", 4, Fault::NoCodes),
        (b"\x90\x04\x00\x01\x01\x03", 5, Fault::Code(3)),
        (b"\x90\x03\x00\x00\x00", 2, Fault::PacketId),
        (b"\xA2\x02\x00\x01", 4, Fault::NoFilters),
        (b"\xA2\x04\x00\x01\x00\x00", 4, Fault::EmptyFilter),
        (b"\xA2\x05\x00\x00\x00\x01a", 2, Fault::PacketId),
        (b"\xC0\x01\x00", 2, Fault::Trailing),
    ] {
        assert_eq!(fault(bytes), (at, expected), "{bytes:02x?}");
    }
}

#[test]
fn what_is_written_is_what_was_written_by_hand() {
    let code = b"12345678";
    let connect = written(|out| connect(out, 60, "id", "bblp", code));
    assert_eq!(
        connect,
        b"\x10\x1E\x00\x04MQTT\x04\xC2\x00\x3C\x00\x02id\x00\x04bblp\x00\x0812345678"
    );
    let refused = ConnectCode::UnacceptableProtocol;
    assert_eq!(written(|out| connack(out, true, ConnectCode::Accepted)), b"\x20\x02\x01\x00");
    assert_eq!(written(|out| connack(out, false, ConnectCode::Accepted)), b"\x20\x02\x00\x00");
    assert_eq!(written(|out| connack(out, true, refused)), b"\x20\x02\x00\x01");
    let v5 = written(|out| connack_v5(out, UNSUPPORTED_PROTOCOL_VERSION));
    assert_eq!(v5, b"\x20\x03\x00\x84\x00");
    let filters = [("a/b", Qos::AtLeastOnce), ("#", Qos::ExactlyOnce)];
    let codes = [SubscribeCode::Granted(Qos::ExactlyOnce), SubscribeCode::Refused];
    assert_eq!(
        written(|out| subscribe(out, id(10), &filters)),
        b"\x82\x0C\x00\x0A\x00\x03a/b\x01\x00\x01#\x02",
    );
    assert_eq!(written(|out| suback(out, id(10), codes.into_iter())), b"\x90\x04\x00\x0A\x02\x80");
    assert_eq!(
        written(|out| unsubscribe(out, id(10), &["a/b", "#"])),
        b"\xA2\x0A\x00\x0A\x00\x03a/b\x00\x01#",
    );
    assert_eq!(written(|out| puback(out, id(1))), b"\x40\x02\x00\x01");
    assert_eq!(written(|out| pubrec(out, id(2))), b"\x50\x02\x00\x02");
    assert_eq!(written(|out| pubrel(out, id(3))), b"\x62\x02\x00\x03");
    assert_eq!(written(|out| pubcomp(out, id(4))), b"\x70\x02\x00\x04");
    assert_eq!(written(|out| unsuback(out, id(0xABCD))), b"\xB0\x02\xAB\xCD");
    assert_eq!(written(pingreq), b"\xC0\x00");
    assert_eq!(written(pingresp), b"\xD0\x00");
    assert_eq!(written(disconnect), b"\xE0\x00");
    for (bytes, packet) in samples() {
        let Packet::Publish(sample) = packet else { continue };
        assert_eq!(written(|out| publish(out, &sample)), bytes);
        let head = written(|out| publish_head(out, &sample, sample.payload.len()));
        assert_eq!(head, bytes[..bytes.len() - sample.payload.len()]);
    }
}

/// A SUBACK is written straight from the filters it answers.
#[test]
fn a_subscribe_is_answered_filter_by_filter() {
    let Packet::Subscribe(subscribe) = subscribe_sample() else { unreachable!() };
    let codes = subscribe.filters().map(|(filter, qos)| {
        if filter == "#" { SubscribeCode::Refused } else { SubscribeCode::Granted(qos) }
    });
    assert_eq!(written(|out| suback(out, subscribe.id, codes)), b"\x90\x04\x00\x0A\x01\x80");
}

#[test]
fn a_packet_is_written_exactly_if_it_fits() {
    type Write = fn(&mut [u8]) -> Option<usize>;
    let report = |out: &mut [u8]| publish(out, &REPORT);
    let writers: [Write; 15] = [
        |out| connect(out, 60, "id", "bblp", b"12345678"),
        |out| connack(out, false, ConnectCode::Accepted),
        |out| connack_v5(out, UNSUPPORTED_PROTOCOL_VERSION),
        report,
        |out| publish_head(out, &REPORT, 1000),
        |out| puback(out, id(1)),
        |out| pubrec(out, id(1)),
        |out| pubrel(out, id(1)),
        |out| pubcomp(out, id(1)),
        |out| subscribe(out, id(1), &[("a", Qos::AtMostOnce), ("b/c", Qos::AtMostOnce)]),
        |out| suback(out, id(1), [SubscribeCode::Refused; 2].into_iter()),
        |out| unsubscribe(out, id(1), &["a", "b/c"]),
        |out| unsuback(out, id(1)),
        pingreq,
        disconnect,
    ];
    for write in writers {
        let whole = written(write);
        for room in 0..whole.len() {
            assert_eq!(write(&mut vec![0; room]), None, "{whole:02x?} in {room}");
        }
        let mut out = vec![0; whole.len()];
        assert_eq!(write(&mut out), Some(whole.len()));
        assert_eq!(out, whole);
    }
}

const REPORT: Publish<'static> = Publish {
    dup: false,
    qos: Qos::AtLeastOnce,
    retain: false,
    topic: "device/01S00C/report",
    id: PacketId::new(7),
    payload: b"{\"print\":{}}",
};

#[test]
fn what_mqtt_cannot_say_is_not_written() {
    let mut room = vec![0; 70_000];
    let long = "a".repeat(65_536);
    assert_eq!(connect(&mut room, 0, &long, "", b""), None);
    assert_eq!(connect(&mut room, 0, "", "", long.as_bytes()), None);
    assert_eq!(subscribe(&mut room, id(1), &[(&long, Qos::AtMostOnce)]), None);
    assert_eq!(subscribe(&mut room, id(1), &[]), None);
    assert_eq!(unsubscribe(&mut room, id(1), &[&long]), None);
    assert_eq!(unsubscribe(&mut room, id(1), &[]), None);
    assert_eq!(suback(&mut room, id(1), [].into_iter()), None);
    assert_eq!(publish(&mut room, &Publish { topic: &long, ..REPORT }), None);
    assert!(publish(&mut room, &Publish { topic: &long[1..], ..REPORT }).is_some());

    assert_eq!(publish(&mut room, &Publish { id: None, ..REPORT }), None);
    assert_eq!(publish(&mut room, &Publish { qos: Qos::AtMostOnce, ..REPORT }), None);
    let unanswered = Publish { qos: Qos::AtMostOnce, id: None, ..REPORT };
    assert!(publish(&mut room, &unanswered).is_some());
    assert_eq!(publish(&mut room, &Publish { dup: true, ..unanswered }), None);

    let most = MAX_REMAINING as usize - 4 - REPORT.topic.len();
    let head = publish_head(&mut room, &REPORT, most).unwrap();
    let header = header(&room).unwrap().unwrap();
    assert_eq!(header.total(), head + most);
    assert_eq!(publish_head(&mut room, &REPORT, most + 1), None);
    assert_eq!(publish_head(&mut room, &REPORT, usize::MAX), None);
}

#[test]
fn a_remaining_length_is_written_in_as_few_bytes_as_it_takes() {
    let fields = REPORT.topic.len() + 4;
    for (remaining, lengths) in [
        (127, 1),
        (128, 2),
        (16_383, 2),
        (16_384, 3),
        (2_097_151, 3),
        (2_097_152, 4),
        (MAX_REMAINING as usize, 4),
    ] {
        let head = written(|out| publish_head(out, &REPORT, remaining - fields));
        let header = header(&head).unwrap().unwrap();
        assert_eq!((header.remaining(), header.body_at()), (remaining, 1 + lengths));
        assert_eq!(head.len(), header.body_at() + fields);
    }
}

/// A list of codes that is not as long as it announces.
struct Liar(usize, usize);

impl Iterator for Liar {
    type Item = SubscribeCode;

    fn next(&mut self) -> Option<SubscribeCode> {
        self.1 = self.1.checked_sub(1)?;
        Some(SubscribeCode::Refused)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

impl ExactSizeIterator for Liar {}

#[test]
fn a_suback_has_the_length_in_its_header() {
    for (announced, given) in [(2, 1), (2, 3), (1, 0), (usize::MAX, 1)] {
        assert_eq!(suback(&mut [0; 32], id(1), Liar(announced, given)), None);
    }
    assert_eq!(suback(&mut [0; 32], id(1), Liar(2, 2)), Some(6));
}

#[test]
fn no_debug_shows_a_password_or_a_payload() {
    let shown = |bytes| format!("{:?}", read(bytes).unwrap());
    let connect = shown(FULL_CONNECT);
    assert!(connect.contains("bblp") && connect.contains("***"), "{connect}");
    assert!(!connect.contains("12345678") && !connect.contains("bye"), "{connect}");
    assert!(!connect.contains("49, 50"), "{connect}");
    let publish = shown(b"\x30\x0B\x00\x01acode42zz");
    assert!(publish.contains("8 bytes") && !publish.contains("code42"), "{publish}");
    let list = shown(b"\x82\x0C\x00\x0A\x00\x03a/b\x01\x00\x01#\x02");
    assert_eq!(list, "Subscribe(Subscribe(10, [(\"a/b\", AtLeastOnce), (\"#\", ExactlyOnce)]))");
    let codes = shown(b"\x90\x05\x00\x0A\x00\x02\x80");
    assert_eq!(codes, "SubAck(SubAck(10, [Granted(AtMostOnce), Granted(ExactlyOnce), Refused]))");
}

#[test]
fn an_error_reads_as_the_end_of_a_sentence() {
    let said: Vec<String> = [&b"\xF0"[..], b"\x31\xFF\xFF\xFF\xFF", b"\x36"]
        .iter()
        .map(|bytes| header(bytes).unwrap_err().to_string())
        .collect();
    assert_eq!(
        said,
        [
            "unexpected packet type 15 at byte 0",
            "remaining length of more than four bytes at byte 4",
            "qos 3 at byte 0",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::with_cases(256)
    })]

    /// Any first byte, any lengths, any body: a packet or an error inside it, and no panic.
    #[test]
    fn arbitrary_bytes_are_a_packet_or_an_error_inside_it(
        first: u8,
        lengths in prop::collection::vec(any::<u8>(), 0..5),
        body in prop::collection::vec(prop_oneof![Just(0u8), 0..8u8, any::<u8>()], 0..64),
        fitting: bool,
    ) {
        let mut bytes = vec![first];
        if fitting { bytes.push(body.len() as u8) } else { bytes.extend(&lengths) }
        bytes.extend(&body);
        let Ok(Some(header)) = header(&bytes) else { return Ok(()) };
        let body = &bytes[header.body_at()..];
        match packet(header, body) {
            Ok(packet) => {
                let _ = format!("{packet:?}");
                if let Packet::Subscribe(subscribe) = packet {
                    prop_assert_eq!(subscribe.filters().count(), subscribe.filters().len());
                }
                if let Packet::Unsubscribe(unsubscribe) = packet {
                    prop_assert_eq!(unsubscribe.filters().count(), unsubscribe.filters().len());
                }
                if let Packet::SubAck(suback) = packet {
                    prop_assert_eq!(suback.codes().count(), suback.codes.len());
                }
            }
            Err(error) => prop_assert!(error.at as usize <= header.total(), "{error}"),
        }
    }
}
