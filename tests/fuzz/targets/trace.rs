//! The recorder: it writes no secret, however the bytes are divided and whatever is around them.

use core::net::{IpAddr, Ipv4Addr};

use pandaproxy::chamber::wire as chamber;
use pandaproxy::ftp::wire as ftp;
use pandaproxy::mqtt::wire as mqtt;
use pandaproxy::rtsp::digest::parameter;
use pandaproxy::rtsp::wire as rtsp;
use pandaproxy::trace::conversation::{Conversation, From};
use pandaproxy::trace::login::Login;
use pandaproxy::trace::redact::{Scanner, Secrets, Work, unknown};
use pandaproxy::trace::{Party, Protocol};

/// Secrets that must not be in a recording, unlike anything that the recorder writes itself.
const CODE: &[u8] = b"7Kq2xW9p";
const SERIAL: &[u8] = b"01P00A3C1200417";

/// Bytes of the largest piece in the recorder's queue.
const PIECE: usize = 4096;

fn secrets() -> Secrets {
    Secrets::new(CODE, SERIAL).expect("a code and a serial number that can be told apart")
}

fn has_secret(bytes: &[u8]) -> bool {
    [CODE, SERIAL].iter().any(|secret| bytes.windows(secret.len()).any(|seen| seen == *secret))
}

/// One direction, redacted in pieces of `piece` bytes.
fn redacted(data: &[u8], is_ftp: bool, piece: usize) -> Vec<u8> {
    let (mut secrets, mut scanner, mut work) = (secrets(), Scanner::new(is_ftp), Work::new(PIECE));
    let mut out = Vec::new();
    for piece in data.chunks(piece) {
        let len = scanner.scan(&mut secrets, piece, false, &mut work, |byte, _| byte);
        out.extend_from_slice(work.released(len));
    }
    let len = scanner.scan(&mut secrets, &[], true, &mut work, |byte, _| byte);
    out.extend_from_slice(work.released(len));
    out
}

/// Redaction keeps every length and leaves no secret, in one piece, in many and byte by byte.
pub(crate) fn redact(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    for piece in [PIECE, usize::from(flags >> 1) + 1, 1] {
        let out = redacted(data, flags & 1 != 0, piece);
        assert_eq!(out.len(), data.len(), "in pieces of {piece}");
        assert!(!has_secret(&out), "a secret is left in pieces of {piece}");
    }
}

/// A connection of any protocol, with its login: no secret is recorded.
pub(crate) fn login(data: &[u8]) {
    let [flags, cut, data @ ..] = data else { return };
    let protocol =
        [Protocol::Mqtt, Protocol::Chamber, Protocol::Rtsp, Protocol::Ftp][usize::from(flags & 3)];
    let (mut out, mut secrets, mut work) = (Vec::new(), secrets(), Work::new(PIECE));
    let party = Party::Client(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let begun = Conversation::begin(&mut out, &mut secrets, (protocol, party), 1, 0);
    let mut talk = begun.expect("memory takes everything");
    for (number, piece) in (1..).zip(data.chunks(usize::from(*cut) + 1)) {
        let from = if flags & 4 != 0 && number % 2 == 0 { From::Server } else { From::Client };
        let lost = u64::from(flags & 8 != 0 && number % 5 == 0);
        talk.send_piece((&mut out, &mut secrets, &mut work), from, number, lost, piece)
            .expect("memory takes everything");
    }
    talk.end((&mut out, &mut secrets, &mut work), From::Client, 9, 0)
        .expect("memory takes everything");
    assert!(!has_secret(&out), "{protocol:?}: a secret is recorded");
}

/// Credentials that the services' own parsers find are redacted, right or wrong.
pub(crate) fn password(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let new = [Login::mqtt, Login::chamber, Login::rtsp, Login::ftp][usize::from(flags & 3)];
    let mut login = new();
    let out: Vec<u8> = data.iter().map(|byte| login.next(*byte, false)).collect();
    let is_hidden = |what: &str, part: &[u8]| {
        if part.is_empty() {
            // The decoded credentials may not be a part of the data.
            return;
        }
        let at = part.as_ptr() as usize - data.as_ptr() as usize;
        for (byte, seen) in part.iter().zip(&out[at..]) {
            // Basic and Digest have replacements of their own.
            let is_other = flags & 3 == 2 && matches!(seen, b'A' | b'0' | b'=');
            let is_any = matches!(byte, b' ' | b'\t' | b'\r');
            assert!(is_other || is_any || *seen == unknown(*byte), "{what} is recorded");
        }
    };
    match flags & 3 {
        0 => {
            if let Ok(Some(header)) = mqtt::header(data)
                && let Ok(mqtt::Packet::Connect(connect)) =
                    mqtt::packet(header, &data[header.body_at()..])
                && let Some(password) = connect.password
            {
                is_hidden("the password of CONNECT", password);
            }
        }
        1 => {
            if let Some(bytes) = data.first_chunk() {
                let login = chamber::Login::parse(bytes);
                login.iter().for_each(|login| is_hidden("the camera's code", login.code));
            }
        }
        2 => {
            let mut rest = data;
            while let Ok((len @ 1.., piece)) = rtsp::next(rest, 1024, 1024) {
                if let rtsp::Piece::Message(message) = piece {
                    message.fields_named("Authorization").for_each(|value| {
                        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
                        if scheme.eq_ignore_ascii_case("Basic") {
                            is_hidden("Basic", rest.trim().as_bytes());
                        } else if scheme.eq_ignore_ascii_case("Digest")
                            && let Some(response) = parameter(rest, "response")
                            && response.bytes().all(|byte| byte.is_ascii_hexdigit())
                        {
                            is_hidden("a digest", response.as_bytes());
                        }
                    });
                }
                rest = &rest[len..];
            }
        }
        _ => {
            let mut rest = data;
            while let ftp::Taken::Line(line, len) = ftp::line(rest) {
                if let Ok(command) = ftp::command(line)
                    && (command.verb == ftp::Verb::Pass
                        || command.line.to_ascii_uppercase().starts_with(b"ACCT "))
                {
                    is_hidden("the password of FTP", command.argument);
                }
                rest = &rest[len..];
            }
        }
    }
}
