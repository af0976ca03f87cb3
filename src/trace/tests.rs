//! Redaction of secrets in each form, divided into pieces in each way; other bytes stay unchanged.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::conversation::{Conversation, From};
use super::redact::Work;
use super::*;

const CODE: &str = "12345678";
const SERIAL: &str = "01P00A1B2C3D4E5";
const PRINTER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// The payloads recorded of a direction in which these pieces were sent.
fn written(code: &str, protocol: Protocol, from: From, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut secrets = Secrets::new(code.as_bytes(), SERIAL.as_bytes()).unwrap();
    secrets.address(PRINTER);
    secrets.address("fd12:3456::9".parse().unwrap());
    let mut work = Work::new(PIECE);
    let who = (protocol, Party::Client(CLIENT));
    let mut talk = Conversation::begin(&mut out, &mut secrets, who, 1, 5).unwrap();
    for piece in pieces {
        talk.send_piece((&mut out, &mut secrets, &mut work), from, 7, 0, piece).unwrap();
    }
    talk.end((&mut out, &mut secrets, &mut work), From::Client, 9, 0).unwrap();
    payloads(&out, protocol, from)
}

/// The payloads of one direction, one after another.
fn payloads(file: &[u8], protocol: Protocol, from: From) -> Vec<u8> {
    let word = |at: usize| {
        u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize
    };
    let (mut at, mut sent) = (0, Vec::new());
    while at < file.len() {
        if word(at) == 6 {
            let packet = &file[at + 28..at + 28 + word(at + 20)];
            let to = u16::from_be_bytes([packet[22], packet[23]]);
            if (to == protocol.port()) == (from == From::Client) {
                sent.extend_from_slice(&packet[40..]);
            }
        }
        at += word(at + 4);
    }
    sent
}

/// Asserts the recorded bytes, for each division into two pieces, and byte by byte.
#[track_caller]
fn is_written(protocol: Protocol, from: From, sent: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
    let (sent, expected) = (sent.as_ref(), expected.as_ref());
    assert_eq!(sent.len(), expected.len(), "lengths stay");
    let same = |pieces: &[&[u8]], how: &str| {
        let found = written(CODE, protocol, from, pieces);
        assert!(
            found == expected,
            "{how}:\n{}\nand not\n{}",
            found.escape_ascii(),
            expected.escape_ascii()
        );
    };
    for at in 0..=sent.len() {
        let (first, second) = sent.split_at(at);
        same(&[first, second], &format!("cut at {at}"));
    }
    let bytes: Vec<&[u8]> = sent.chunks(1).collect();
    same(&bytes, "byte by byte");
}

fn base64(sent: impl AsRef<[u8]>) -> String {
    STANDARD.encode(sent)
}

#[test]
fn the_code_is_redacted_as_text_and_in_json() {
    for (sent, expected) in [
        ("12345678", "11111111"),
        ("112345678x", "111111111x"),
        ("{\"code\": 12345678}", "{\"code\": 11111111}"),
        ("12345671234567812", "12345671111111112"),
        ("1234567", "9999999"),
        ("1234568 12345679", "1234568 12345679"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
}

/// No form of the code and of the serial number, divided in each way.
#[track_caller]
fn no_secret_is_left(code: &str, protocol: Protocol, sent: &str) {
    let is_left = |found: &[u8]| {
        let has = |secret: &str| found.windows(secret.len()).any(|seen| seen == secret.as_bytes());
        has(code) || has(SERIAL)
    };
    for at in 0..=sent.len() {
        let (first, second) = sent.as_bytes().split_at(at);
        let found = written(code, protocol, From::Client, &[first, second]);
        assert_eq!(found.len(), sent.len(), "lengths stay");
        assert!(!is_left(&found), "{sent:?}, cut at {at}: {}", found.escape_ascii());
    }
    let bytes: Vec<&[u8]> = sent.as_bytes().chunks(1).collect();
    let found = written(code, protocol, From::Client, &bytes);
    assert!(!is_left(&found), "{sent:?}, byte by byte: {}", found.escape_ascii());
}

#[test]
fn a_replacement_completes_no_secret() {
    // The replacement of the first ends as the second begins.
    let serial = "01P00A1B2C3D4E0";
    let twice = format!("{serial}{}", &serial[1..]);
    let mut secrets = Secrets::new(CODE.as_bytes(), serial.as_bytes()).unwrap();
    let mut scanner = redact::Scanner::new(false);
    let mut work = Work::new(PIECE);
    let len = scanner.scan(&mut secrets, twice.as_bytes(), true, &mut work, |byte, _| byte);
    assert_eq!(work.released(len).escape_ascii().to_string(), format!("01P00X0X0X0X0X{:*<15}", ""));
    // A code that begins with the replacement of digits, and one that ends with it.
    no_secret_is_left("11111112", Protocol::Mqtt, "1111111111111122 11111112");
    no_secret_is_left("21111111", Protocol::Mqtt, "222111111121111111");
    // An AMS's serial number of which ours is the end, and an address before ours.
    let long = format!("{{\"sn\":\"{:0>31}{SERIAL}\"}}", "");
    no_secret_is_left(CODE, Protocol::Mqtt, &long);
    for ip in 1..=40 {
        let sent = format!("\"ip\":{}{}", 1_000_000_000 + ip, &SERIAL[1..]);
        no_secret_is_left(CODE, Protocol::Mqtt, &sent);
    }
    // A wrong password becomes nines, of which this code consists.
    no_secret_is_left("99999999", Protocol::Ftp, "PASS 12345678\r\n");
}

#[test]
fn a_code_is_redacted_in_the_label_of_a_pem() {
    no_secret_is_left("ABCDEFGH", Protocol::Mqtt, "-----BEGIN ABCDEFGH-----\n");
    no_secret_is_left("----- A-", Protocol::Mqtt, "-----BEGIN B----- A-----END X-----");
}

#[test]
fn the_longest_code_and_serial_number_are_redacted() {
    let code = "\"#$%&/()=?{[]}+*^!<>|;,:@'\"#$%&/";
    let percent: String = code.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let into = written(code, Protocol::Mqtt, From::Server, &[percent.as_bytes()]);
    assert!(into.len() == percent.len() && into != percent.as_bytes());
    for sent in [code.to_string(), format!("x{code}{code}"), percent] {
        no_secret_is_left(code, Protocol::Mqtt, &sent);
    }
}

/// A printer answers `system.get_access_code` with the code, which may be a new one.
#[test]
fn another_access_code_is_redacted_in_the_printers_answer() {
    for (sent, expected) in [
        ("{\"access_code\":\"aB34-678\",\"x\":1}", "{\"access_code\":\"zZ99*999\",\"x\":1}"),
        ("{\"access_code\":\"12345678ab\"}", "{\"access_code\":\"99999999zz\"}"),
        ("{\"access_code\" : \"12345678\"}", "{\"access_code\" : \"11111111\"}"),
        ("{\"access_code\":\"\",\"access_code\":3}", "{\"access_code\":\"\",\"access_code\":3}"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
}

/// A printer's certificate names its serial number, and a line may end in the middle of it.
#[test]
fn a_certificate_is_redacted_whatever_its_line_ends() {
    let line = "MIIBszCCAVqgAwIB/+Zx";
    let pem = |line: &str, end: &str| {
        let (begin, over) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        format!("{begin}{end}{line}{end}{line}=={end}{over}{end}")
    };
    let redacted = "A".repeat(line.len());
    for end in ["\n", "\r\n", "\\n"] {
        let sent = format!("{{\"cert\":\"{}\",\"a\":\"bc-d\"}}", pem(line, end));
        let expected = format!("{{\"cert\":\"{}\",\"a\":\"bc-d\"}}", pem(&redacted, end));
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
    // One that is cut off ends with its string.
    let cut = "{\"cert\":\"-----BEGIN X-----\\nMIIB\",\"a\":\"bcd\"}";
    is_written(Protocol::Mqtt, From::Server, cut, cut.replace("MIIB", "AAAA"));
    is_written(Protocol::Mqtt, From::Server, "-- ----- a-b -----BEGIN", "-- ----- a-b -----BEGIN");
}

#[test]
fn a_code_is_redacted_escaped_in_json_and_in_urls() {
    let code = "a/B\"c:%1";
    let redacted = |sent: &str| {
        let whole = written(code, Protocol::Mqtt, From::Server, &[sent.as_bytes()]);
        for at in 0..sent.len() {
            let (first, second) = sent.as_bytes().split_at(at);
            assert_eq!(written(code, Protocol::Mqtt, From::Server, &[first, second]), whole);
        }
        String::from_utf8(whole).unwrap()
    };
    assert_eq!(redacted("<a/B\"c:%1>"), "<x*X*x**1>");
    assert_eq!(redacted(r#""a\/B\"c:%1""#), r#""x**X**x**1""#);
    assert_eq!(redacted("=a%2FB%22c%3a%251&"), "=x%2AX%2Ax%2a%2A1&");
    // A code that consists of the usual replacement gets another one.
    assert_eq!(written("111111", Protocol::Mqtt, From::Server, &[b"111111"]), b"222222");
}

#[test]
fn a_code_in_base64_is_redacted_at_each_offset() {
    for before in ["", "a", "ab", "abc", "bblp:", "x:bblp:"] {
        for behind in ["", "z", "zz", "zzz"] {
            let plain = |code: &str| format!("{before}{code}{behind}");
            let (sent, expected) = (base64(plain(CODE)), base64(plain("11111111")));
            is_written(Protocol::Rtsp, From::Server, &sent, &expected);
            let url = URL_SAFE_NO_PAD.encode(plain(CODE));
            is_written(
                Protocol::Mqtt,
                From::Server,
                url,
                URL_SAFE_NO_PAD.encode(plain("11111111")),
            );
            let serial = base64(plain(SERIAL));
            let expected = base64(plain("01P00X0X0X0X0X0"));
            is_written(Protocol::Mqtt, From::Server, serial, expected);
        }
    }
}

#[test]
fn the_serial_number_keeps_its_model() {
    is_written(
        Protocol::Mqtt,
        From::Client,
        "device/01P00A1B2C3D4E5/report 01p00a1b2c3d4e5 01P00A1B2C3D4E6",
        "device/01P00X0X0X0X0X0/report 01p00x0x0x0x0x0 01P00A1B2C3D4E6",
    );
}

#[test]
fn other_serial_numbers_keep_their_model() {
    for (sent, expected) in [
        (
            "{\"name\":\"ams/0\",\"sn\":\"00600A4B1234567\"}",
            "{\"name\":\"ams/0\",\"sn\":\"00600X0X0000000\"}",
        ),
        ("\"sn\" : \"Ab1c2\",\"sn\":\"\",\"sn\":17", "\"sn\" : \"Ab1X0\",\"sn\":\"\",\"sn\":17"),
        ("\"sn\":\"00600A4B12", "\"sn\":\"00600X0X00"),
        ("\"sna\":\"abcdef\" \"s", "\"sna\":\"abcdef\" \"s"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
}

#[test]
fn addresses_become_others_of_the_same_length() {
    for (sent, expected) in [
        // The printer's address, and all in private ranges.
        ("ip 203.0.113.77.", "ip 192.0.199.91."),
        ("192.168.1.50:80", "192.168.9.94:80"),
        ("10.0.0.1", "10.0.9.4"),
        ("172.16.12.200", "172.20.99.204"),
        ("100.64.0.1 169.254.1.1", "172.20.9.4 192.168.9.5"),
        ("fd12:3456::9 fd12:3456::a", "dddd:dddd::d fd12:3456::a"),
        // Public addresses, and text that is no address.
        ("8.8.8.8 1.2.3", "8.8.8.8 1.2.3"),
        ("01.09.00.00 10.00.0.1", "01.09.00.00 10.00.0.1"),
        ("192.168.1.256 1192.168.1.5", "192.168.1.256 1192.168.1.5"),
        ("203,0,113,77", "203,0,113,77"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
    is_written(
        Protocol::Ftp,
        From::Server,
        "227 Entering Passive Mode (203,0,113,77,8,12)\r\n",
        "227 Entering Passive Mode (192,0,199,91,8,12)\r\n",
    );
    is_written(
        Protocol::Ftp,
        From::Client,
        "EPRT |1|198.51.100.7|6275|\r\nPORT 198,51,100,7,1,2\r\n",
        "EPRT |1|172.20.199.3|6275|\r\nPORT 172,20,199,3,1,2\r\n",
    );
}

#[test]
fn addresses_are_found_as_the_printer_writes_them_in_json() {
    let [known, other] = [PRINTER, "192.168.1.50".parse().unwrap()].map(|address| match address {
        IpAddr::V4(address) => u32::from_le_bytes(address.octets()),
        IpAddr::V6(_) => 0,
    });
    assert_eq!((known, other), (1_299_251_403, 838_969_536));
    for (sent, expected) in [
        ("{\"x\":1299251403}", "{\"x\":1111111111}"),
        ("[1299251403]", "[1111111111]"),
        ("\"ip\":838969536,", "\"ip\":111111114,"),
        ("\"ip\" :\r\n 838969536}", "\"ip\" :\r\n 111111114}"),
        ("\"ip\":0,\"mask\":16777215", "\"ip\":0,\"mask\":16777215"),
        ("838969536 12992514030", "838969536 12992514030"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
}

#[test]
fn credentials_in_urls_are_redacted() {
    for (sent, expected) in [
        ("rtsps://bblp:12345678@x/", "rtsps://bblp:99999999@x/"),
        ("https://me:Wrong-1@203.0.113.77/a@b", "https://zz:Zzzzz*9@192.0.199.91/a@b"),
        ("rtsps://Wrong-1:bblp@x/", "rtsps://Zzzzz*9:zzzz@x/"),
        ("https://token99@x", "https://zzzzz99@x"),
        ("http://x/a:b@c ://", "http://x/a:b@c ://"),
    ] {
        is_written(Protocol::Mqtt, From::Server, sent, expected);
    }
    let long = format!("http://{}@x", "a".repeat(300));
    is_written(Protocol::Mqtt, From::Server, &long, &long);
}

/// A CONNECT packet.
fn connect(level: u8, user: Option<&str>, password: Option<&str>, will: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let text = |body: &mut Vec<u8>, text: &str| {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    };
    text(&mut body, "MQTT");
    let flags = [(user.is_some(), 0x80), (password.is_some(), 0x40), (will, 4)];
    let flags: u8 = flags.iter().map(|(is, bit)| u8::from(*is) * bit).sum();
    body.extend_from_slice(&[level, flags | 2, 0, 60]);
    let properties = |body: &mut Vec<u8>| {
        if level == 5 {
            body.push(5);
            body.extend_from_slice(&[0x11, 0, 0, 0, 9]);
        }
    };
    properties(&mut body);
    text(&mut body, "id");
    if will {
        properties(&mut body);
        text(&mut body, "topic");
        text(&mut body, "will, not password");
    }
    for field in [user, password].into_iter().flatten() {
        text(&mut body, field);
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet.extend_from_slice(b"\x82\x05hello");
    packet
}

#[test]
fn mqtt_credentials_are_redacted_right_or_wrong() {
    // The last is that of a mosquitto bridge.
    for level in [3, 4, 5, 0x84] {
        for will in [false, true] {
            let packet = |user, password| connect(level, user, password, will);
            for (sent, expected) in [
                ((Some("bblp"), Some(CODE)), (Some("bblp"), Some("11111111"))),
                ((Some("bblp"), Some("x")), (Some("bblp"), Some("z"))),
                ((Some("bblp"), Some("Wrong#87654321")), (Some("bblp"), Some("Zzzzz*99999999"))),
                ((Some("me"), Some("")), (Some("zz"), Some(""))),
                ((Some("bblp"), None), (Some("bblp"), None)),
                ((None, None), (None, None)),
            ] {
                let (sent, expected) = (packet(sent.0, sent.1), packet(expected.0, expected.1));
                is_written(Protocol::Mqtt, From::Client, sent, expected);
            }
        }
    }
}

#[test]
fn ftp_credentials_are_redacted_right_or_wrong() {
    for (sent, expected) in [
        ("USER bblp\r\nPASS 12345678\r\n", "USER bblp\r\nPASS 11111111\r\n"),
        ("user root\r\npass Wrong 1\r\nPWD\r\n", "user zzzz\r\npass Zzzzz*9\r\nPWD\r\n"),
        (" PASS x\nACCT y\nPASSWORD z\nPASS", " PASS z\nACCT z\nPASSWORD z\nPASS"),
        ("STOR PASS 1\r\n", "STOR PASS 1\r\n"),
    ] {
        is_written(Protocol::Ftp, From::Client, sent, expected);
    }
}

/// Servers differ in what they ignore in a line: telnet's commands, control characters, a CR without LF.
#[test]
fn telnet_bytes_hide_no_ftp_credentials() {
    for before in [
        &b"\xff\xf4\xff\xf2"[..],
        b"\xff\xff",
        b"\xff\xfb\x01\xff\xfd\x03",
        b"\xff\xfa\x18 a b\xff\xf0",
        b"NOOP\xff\xf1 \xff\xf4",
        b"NOOP\r",
        b"STOR a\r",
        b"STOR \xff\xf4",
        b"\0\x0b ",
    ] {
        for (sent, expected) in [
            ("PASS Wrong 1\r\n", "PASS Zzzzz*9\r\n"),
            ("acct\tWrong\n", "acct\tZzzzz\n"),
            ("USER root\r\n", "USER zzzz\r\n"),
        ] {
            let line = |text: &str| [before, text.as_bytes()].concat();
            is_written(Protocol::Ftp, From::Client, line(sent), line(expected));
        }
    }
    let (sent, expected) = (b"PA\xff\xf4SS\xff\xf1Wrong\n", b"PA\xff\xf4SS**Zzzzz\n");
    is_written(Protocol::Ftp, From::Client, sent, expected);
}

#[test]
fn chamber_camera_credentials_are_redacted_right_or_wrong() {
    for (user, code, shown) in [
        ("bblp", CODE, "11111111"),
        ("bblp", "87654321", "99999999"),
        ("root", "12345678x", "11111111z"),
    ] {
        let login = |user: &str, code: &str| {
            let mut login = vec![0x40, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            for text in [user, code] {
                login.extend_from_slice(text.as_bytes());
                login.resize(login.len().next_multiple_of(16) + 16, 0);
            }
            login.extend_from_slice(b"more");
            login
        };
        let seen = if user == "bblp" { "bblp" } else { "zzzz" };
        assert_eq!(login(user, code).len(), 84);
        is_written(Protocol::Chamber, From::Client, login(user, code), login(seen, shown));
    }
}

#[test]
fn rtsp_credentials_are_redacted_right_or_wrong() {
    let request = |credentials: &str| {
        format!("DESCRIBE rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n{credentials}\r\nA: b\r\n\r\n")
    };
    let basic = |login: &str| format!("Authorization: Basic {}", base64(login));
    let digest = |user: &str, response: &str| {
        format!(
            "AUTHORIZATION: Digest username=\"{user}\", realm=\"a, response=b\", nonce=\"deadbeef\", \
             response=\"{response}\", uri=\"/\""
        )
    };
    for (sent, expected) in [
        (basic("bblp:12345678"), basic("bblp:11111111")),
        (basic("bblp:87654321"), "Authorization: Basic AAAAAAAAAAAAAAAAAA==".to_string()),
        (basic("me:x"), "Authorization: Basic AAAAAA==".to_string()),
        (basic("me:xyz"), "Authorization: Basic AAAAAAAA".to_string()),
        (digest("bblp", "0123456789abcdef"), digest("bblp", "0000000000000000")),
        (digest("root", "FFFF"), digest("zzzz", "0000")),
        (
            "Proxy-Authorization: digest response=12ab,uri=/".to_string(),
            "Proxy-Authorization: digest response=0000,uri=/".to_string(),
        ),
        ("Authorization: Bearer abc".to_string(), "Authorization: Bzzzzz*zzz".to_string()),
        ("Authorization: Basic\r\n YWJj".to_string(), "Authorization: Basic\r\n ZZZz".to_string()),
        ("Authorisation: Basic YWJj".to_string(), "Authorisation: Basic YWJj".to_string()),
        ("Authorization \t: Basic YWJj".to_string(), "Authorization \t: Basic AAAA".to_string()),
        (
            "Authorization: Digest nonce=a\"b,response = \"12ab\", x=\"y\"response=34".to_string(),
            "Authorization: Digest nonce=a\"b,response = \"0000\", x=\"y\"response=00".to_string(),
        ),
    ] {
        is_written(Protocol::Rtsp, From::Client, request(&sent), request(&expected));
    }
}

#[test]
fn parts_of_secrets_beside_a_gap_are_redacted() {
    for protocol in [Protocol::Mqtt, Protocol::Ftp, Protocol::Rtsp, Protocol::Chamber] {
        for at in TELLING..CODE.len() {
            let mut out = Vec::new();
            let mut secrets = Secrets::new(CODE.as_bytes(), SERIAL.as_bytes()).unwrap();
            let mut work = Work::new(PIECE);
            let who = (protocol, Party::Client(CLIENT));
            let mut talk = Conversation::begin(&mut out, &mut secrets, who, 1, 5).unwrap();
            let (before, behind) = CODE.split_at(at);
            let from = From::Client;
            for (lost, piece) in [(0, before), (5, behind)] {
                let piece = format!("{piece:->0$}", 40 * usize::from(lost == 0));
                talk.send_piece(
                    (&mut out, &mut secrets, &mut work),
                    from,
                    7,
                    lost,
                    piece.as_bytes(),
                )
                .unwrap();
            }
            talk.end((&mut out, &mut secrets, &mut work), from, 9, 0).unwrap();
            let sent = payloads(&out, protocol, from);
            let sent = String::from_utf8(sent).unwrap();
            assert!(!sent.contains(&before[..TELLING]) && !sent.contains(behind), "{sent}");
            let comment = "5 bytes before this are missing";
            assert!(out.windows(comment.len()).any(|seen| seen == comment.as_bytes()));
        }
    }
}

const TELLING: usize = 3;

#[test]
fn other_bytes_are_recorded_unchanged() {
    // A pseudo-random picture, and each value of a byte.
    let mut state = 7_u32;
    let noise: Vec<u8> = (0..4096)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for protocol in [Protocol::Rtsp, Protocol::FtpData { port: 2024 }] {
        let pieces: Vec<&[u8]> = noise.chunks(37).collect();
        assert!(written(CODE, protocol, From::Server, &pieces) == noise);
        // The digits would hold the code.
        let all: Vec<u8> = (0..=255).rev().collect();
        assert!(written(CODE, protocol, From::Client, &[&all]) == all);
    }
}

#[test]
fn a_short_code_prevents_a_recording() {
    assert!(Secrets::new(b"12345", SERIAL.as_bytes()).is_none());
    assert!(Secrets::new(CODE.as_bytes(), b"01P00").is_none());
}

#[test]
fn without_a_recording_there_is_no_tap() {
    assert!(begin(Protocol::Mqtt, Party::Printer, Instant::START).is_none());
    redact_address(CLIENT);
    handle_timeout(Instant::START);
    stop();
}

// ---- bounds ------------------------------------------------------------------------------------

/// A directory for one test, removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("pandaproxy-{name}-{}", std::process::id())))
    }

    fn start(&self) {
        let (code, serial) = (CODE.as_bytes(), SERIAL.as_bytes());
        start(&self.0, 64 << 20, code, serial, Instant::START).unwrap();
    }

    /// All files, one after another.
    fn read(&self) -> Vec<u8> {
        let mut names: Vec<_> =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().flat_map(|name| std::fs::read(name).unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until the writer has emptied the queue.
fn drained(tap: &Tap) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !tap.recorder.queue.is_empty() {
        assert!(std::time::Instant::now() < end, "the writer writes nothing");
        std::thread::yield_now();
    }
}

/// The numbers before these words.
fn numbers_before(file: &[u8], words: &str) -> Vec<u64> {
    let text = String::from_utf8_lossy(file);
    let pieces: Vec<&str> = text.split(words).collect();
    let last_number = |piece: &&str| {
        let digits = piece.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap()
    };
    pieces.iter().take(pieces.len() - 1).map(last_number).collect()
}

#[test]
fn bytes_beyond_a_protocols_limit_are_left_out_and_counted() {
    let data = Protocol::FtpData { port: 2024 };
    for (protocol, most) in [(Protocol::Chamber, MAX_MEDIA), (data, MAX_FILE)] {
        let dir = Dir::new(&format!("left-out-{}", protocol.port()));
        dir.start();
        let mut tap = begin(protocol, Party::Client(CLIENT), Instant::START).unwrap();
        let piece = [b'-'; 4096];
        for _ in 0..most / 4096 + 3 {
            tap.sent(&piece, Instant::START);
            drained(&tap);
        }
        drop(tap);
        stop();
        let file = dir.read();
        assert_eq!(payloads(&file, protocol, From::Server).len() as u64, most);
        assert_eq!(numbers_before(&file, " bytes before this were left out"), [3 * 4096]);
    }
}

#[test]
fn bytes_beyond_the_queue_are_dropped_and_counted() {
    let dir = Dir::new("dropped");
    dir.start();
    let missed = journal::count(Kind::NotRecorded);
    let mut tap = begin(Protocol::Mqtt, Party::Printer, Instant::START).unwrap();
    let piece = vec![b'-'; 1 << 20];
    for _ in 0..16 {
        tap.received(&piece, Instant::START);
    }
    let lost = tap.recorder.lost.get();
    assert!(lost > 0, "nothing has written 16 MiB in no time");
    let start = Instant::START;
    handle_timeout(start + LOSS_INTERVAL);
    handle_timeout(start + LOSS_INTERVAL);
    assert_eq!(journal::count(Kind::NotRecorded), missed + 1, "the log says it once");
    // The next record that fits says how many bytes are missing.
    drained(&tap);
    tap.received(b"next", start);
    drop(tap);
    stop();
    let file = dir.read();
    let written = payloads(&file, Protocol::Mqtt, From::Server).len() as u64;
    let missing: u64 = numbers_before(&file, " bytes before this are missing").iter().sum();
    assert_eq!((missing, written), (lost, (16 << 20) + 4 - lost));
}

#[test]
fn the_number_of_recorded_connections_is_bounded() {
    let dir = Dir::new("conversations");
    dir.start();
    let new = || begin(Protocol::Mqtt, Party::Client(CLIENT), Instant::START);
    let mut taps: Vec<Tap> = (0..RECORDED).map(|_| new().unwrap()).collect();
    assert!(new().is_none());
    taps.pop();
    taps.push(new().unwrap());
    drop(taps);
    stop();
    let text = dir.read();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(text.matches("a client and the proxy").count(), RECORDED + 1);
    assert!(new().is_none(), "it is over");
}

#[test]
fn a_forgotten_address_is_redacted_if_it_is_private() {
    let mut secrets = Secrets::new(CODE.as_bytes(), SERIAL.as_bytes()).unwrap();
    let address = |number: u8| IpAddr::V4(Ipv4Addr::new(203, 0, 113, number));
    let first = secrets.address(address(0));
    for number in 1..=100 {
        assert_ne!(secrets.address(address(number)), 0);
    }
    assert_ne!(secrets.address(address(0)), first, "it has been forgotten");
    for number in 0..=255 {
        let private = secrets.address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)));
        assert!((1..=250).contains(&private));
    }
}
