//! Messages and packets, split everywhere, and what is none.

use super::*;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

const PACKET: usize = 16;
const BODY: usize = 32;

fn whole(bytes: &[u8]) -> (usize, Piece<'_>) {
    next(bytes, PACKET, BODY).unwrap()
}

fn message(bytes: &[u8]) -> Message<'_> {
    let (taken, piece) = whole(bytes);
    let Piece::Message(message) = piece else { panic!("{piece:?}") };
    assert_eq!(taken, bytes.len());
    message
}

#[test]
fn a_message_is_parsed_when_its_last_byte_has_come() {
    let bytes = b"SET_PARAMETER rtsps://h/1 RTSP/1.0\r\nCSeq: 7\r\ncontent-length: 5\r\n\r\na: b\n";
    for split in 0..bytes.len() {
        assert_eq!(whole(&bytes[..split]), (0, Piece::More), "split at {split}");
    }
    let message = message(bytes);
    assert_eq!(message.request(), Some((Method::SetParameter, "rtsps://h/1")));
    assert_eq!((message.cseq(), message.status()), (Some(7), None));
    assert_eq!(message.body, b"a: b\n");
}

#[test]
fn a_response_has_a_status_and_fields_of_one_name_stay_in_order() {
    let bytes = b"RTSP/1.0 401 Unauthorized\nCSeq: 2\nWWW-Authenticate: Digest a\nwww-authenticate: Basic b\n\n";
    let message = message(bytes);
    assert_eq!((message.status(), message.request()), (Some(401), None));
    let challenges: Vec<_> = message.fields_named("WWW-Authenticate").collect();
    assert_eq!(challenges, ["Digest a", "Basic b"]);
}

#[test]
fn a_packet_is_parsed_when_its_last_byte_has_come() {
    let bytes = b"$\x02\0\x05hello, and more";
    for split in 0..9 {
        assert_eq!(whole(&bytes[..split]), (0, Piece::More), "split at {split}");
    }
    assert_eq!(whole(bytes), (9, Piece::Packet { channel: 2, bytes: b"hello" }));
    assert_eq!(whole(b"$\0\0\0"), (4, Piece::Packet { channel: 0, bytes: b"" }));
}

#[test]
fn a_packet_is_too_long_by_its_head_alone() {
    assert_eq!(whole(b"$\x01\xff\xff"), (4, Piece::Oversized { channel: 1, len: 65535 }));
    assert_eq!(whole(b"$\x01\0\x11"), (4, Piece::Oversized { channel: 1, len: 17 }));
}

#[test]
fn empty_lines_between_messages_are_passed_over() {
    assert_eq!(whole(b"\r\nOPTIONS"), (1, Piece::Blank));
    assert_eq!(whole(b"\nOPTIONS"), (1, Piece::Blank));
}

#[test]
fn a_head_or_body_beyond_its_bound_is_an_error() {
    let line = b"OPTIONS * RTSP/1.0\r\n";
    let fill =
        |len: usize| [&line[..], b"X:", &b"x".repeat(len - line.len() - 6), b"\r\n\r\n"].concat();
    assert_eq!(whole(&fill(MAX_HEAD)).0, MAX_HEAD);
    assert_eq!(next(&fill(MAX_HEAD + 1), PACKET, BODY), Err(Fault::HeadTooLong));
    assert_eq!(next(&[b'A'; MAX_HEAD], PACKET, BODY), Err(Fault::HeadTooLong));
    let body = |len: usize| format!("RTSP/1.0 200 OK\r\nContent-Length: {len}\r\n\r\n");
    assert_eq!(whole(body(BODY).as_bytes()), (0, Piece::More));
    assert_eq!(next(body(BODY + 1).as_bytes(), PACKET, BODY), Err(Fault::BodyTooLong));
}

#[test]
fn input_that_is_not_rtsp_differs_from_another_version() {
    let table: [(&[u8], Fault); 11] = [
        (b"\x16\x03\x01\x02\0\x01", Fault::NotRtsp),
        (b"get / HTTP/1.1\r\n\r\n", Fault::NotRtsp),
        (b"GET / HTTP/1.1\r\n\r\n", Fault::NotRtsp),
        (b"OPTIONS * RTSP/2.0\r\n\r\n", Fault::Version),
        (b"RTSP/2.0 200 OK\r\n\r\n", Fault::Version),
        (b"OPTIONS * RTSP/1.0\r\nno colon\r\n\r\n", Fault::Malformed),
        (b"OPTIONS * RTSP/1.0\r\nContent-Length: -1\r\n\r\n", Fault::Malformed),
        (b"OPTIONS *\0 RTSP/1.0\r\n\r\n", Fault::Malformed),
        (b"OPTIONS \xff RTSP/1.0\r\n\r\n", Fault::Malformed),
        (b"OPTIONS *\rX: y RTSP/1.0\r\n\r\n", Fault::Malformed),
        (b"OPTIONS * RTSP/1.0\r\nSession: 1\rX: y\r\n\r\n", Fault::Malformed),
    ];
    for (bytes, fault) in table {
        assert_eq!(next(bytes, PACKET, BODY), Err(fault), "{}", bytes.escape_ascii());
    }
}

#[test]
fn transports_are_looked_through_for_one_that_is_interleaved() {
    let table = [
        (
            "RTP/AVP/TCP;unicast;interleaved=0-1",
            Transport::Interleaved(Channels { rtp: 0, rtcp: 1 }),
        ),
        ("RTP/AVP/TCP;interleaved=6-9", Transport::Interleaved(Channels { rtp: 6, rtcp: 9 })),
        ("rtp/avp/tcp;interleaved=4", Transport::Interleaved(Channels { rtp: 4, rtcp: 5 })),
        ("RTP/AVP/TCP;unicast", Transport::AnyChannels),
        ("RTP/AVP;unicast;client_port=5000-5001", Transport::Other),
        (
            "RTP/AVP/UDP;unicast, RTP/AVP/TCP;interleaved=2-3",
            Transport::Interleaved(Channels { rtp: 2, rtcp: 3 }),
        ),
        ("RTP/AVP/TCP;interleaved=3-3", Transport::Other),
        ("RTP/AVP/TCP;interleaved=255", Transport::Other),
        ("RTP/AVP/TCP;interleaved=256-257", Transport::Other),
        ("", Transport::Other),
    ];
    for (value, transport) in table {
        assert_eq!(Transport::parse(value), transport, "{value}");
    }
}

/// Pieces of a conversation, whole, cut short and made up.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let message =
        ("(OPTIONS|PLAY|GET|RTSP/1.0) [ -~]{0,20}( RTSP/1.0| RTSP/2.0|)", field(), 0..40_usize)
            .prop_map(|(line, fields, body)| {
                let head = format!("{line}\r\n{fields}Content-Length: {body}\r\n\r\n");
                [head.into_bytes(), b"b".repeat(body)].concat()
            });
    let packet = (any::<u8>(), 0..40_u16, 0..40_usize).prop_map(|(channel, len, bytes)| {
        let [high, low] = len.to_be_bytes();
        [&[DOLLAR, channel, high, low][..], &b"p".repeat(bytes)].concat()
    });
    prop_oneof![
        message,
        packet,
        Just(b"\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

fn field() -> impl Strategy<Value = String> {
    let fields = proptest::collection::vec("[A-Za-z-]{1,8} ?: ?[ -~]{0,12}(\r\n|\n)", 0..4);
    fields.prop_map(|fields| fields.concat())
}

/// All that stands in `bytes` when they come in pieces of `step`: each as it looks, until there is a fault,
/// and how many bytes are left.
fn read_in(bytes: &[u8], step: usize) -> (Vec<String>, usize) {
    let (mut seen, mut at, mut come) = (Vec::new(), 0, 0);
    loop {
        match next(&bytes[at..come], PACKET, BODY) {
            Ok((0, Piece::More)) if come == bytes.len() => return (seen, come - at),
            Ok((0, Piece::More)) => come = bytes.len().min(come + step),
            Ok((0, piece)) => panic!("{piece:?} of no bytes"),
            Ok((taken, piece)) => {
                seen.push(format!("{piece:?}"));
                at += taken;
                assert!(at <= come, "more is taken than there was");
            }
            Err(fault) => {
                seen.push(format!("{fault:?}"));
                return (seen, 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_input_parses_the_same_in_one_piece_and_by_byte(
        pieces in proptest::collection::vec(piece(), 0..6),
        step in 1..9_usize,
    ) {
        let bytes = pieces.concat();
        let whole = read_in(&bytes, usize::MAX / 2);
        prop_assert_eq!(&whole, &read_in(&bytes, 1));
        prop_assert_eq!(&whole, &read_in(&bytes, step));
    }

    #[test]
    fn no_field_or_transport_whatever_does_any_harm(value in "\\PC{0,80}", line in "[ -~]{0,40}") {
        let _any = Transport::parse(&value);
        let _any = Transport::parse(&format!("RTP/AVP/TCP;interleaved={line}"));
        let bytes = format!("PLAY {line} RTSP/1.0\r\nCSeq: {line}\r\nX: {line}\r\n\r\n");
        if let Ok((_, Piece::Message(message))) = next(bytes.as_bytes(), PACKET, BODY) {
            let _any = (message.request(), message.status(), message.cseq(), message.field("x"));
        }
    }
}
