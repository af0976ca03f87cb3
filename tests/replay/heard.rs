//! What each end received in a replay, as lines that can be compared: time, message, length, and the beginning
//! of its SHA-256.

use core::fmt::Write;
use core::time::Duration;

use printer::ftp::sha256;

/// Maximum bytes that one end may receive in a replay.
const MOST: usize = 8 << 20;

/// What one end received, and when.
#[derive(Default)]
pub(crate) struct Heard {
    bytes: Vec<u8>,
    /// Received up to this byte at this time.
    times: Vec<(usize, Duration)>,
    /// When and how the connection ended.
    ended: Option<(Duration, &'static str)>,
}

impl Heard {
    pub(crate) fn takes(&mut self, bytes: &[u8], at: Duration) {
        self.bytes.extend_from_slice(bytes);
        assert!(self.bytes.len() <= MOST, "a replay that does not end");
        self.times.push((self.bytes.len(), at));
    }

    pub(crate) fn ends(&mut self, how: &'static str, at: Duration) {
        self.ended = Some((at, how));
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One line for each message that it received.
    pub(crate) fn lines(&self, port: u16, is_printers: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let (len, what) = match (port, is_printers) {
                (1883, _) => packet(&self.bytes[at..]),
                (6000, false) => picture(&self.bytes[at..]),
                (554, _) => message(&self.bytes[at..]),
                (21, _) => reply(&self.bytes[at..]),
                (_, _) => (self.bytes.len() - at, "bytes".to_owned()),
            };
            let end = (at + len).min(self.bytes.len());
            lines.push(self.line(at, end, &what));
            at = end;
        }
        if let Some((at, how)) = self.ended {
            lines.push(format!("{} {how}", ms(at)));
        }
        lines
    }

    fn line(&self, from: usize, to: usize, what: &str) -> String {
        let time = self.times.iter().find(|(end, _)| *end >= to).unwrap().1;
        format!("{} {what} ({})", ms(time), summary(&self.bytes[from..to]))
    }
}

fn ms(time: Duration) -> String {
    format!("{:>6} ms", time.as_millis())
}

/// Length and the beginning of the hash.
fn summary(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes, ", bytes.len());
    for byte in &sha256(&without_chance(bytes))[..6] {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// Replaces the random values of RTSP by constants.
fn without_chance(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for mark in [&b"nonce=\""[..], b"\r\nSession: "] {
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(mark.len()).position(|seen| seen == mark) {
            at += found + mark.len();
            for byte in bytes[at..].iter_mut().take_while(|byte| byte.is_ascii_alphanumeric()) {
                *byte = b'.';
            }
        }
    }
    bytes
}

/// An MQTT packet.
fn packet(bytes: &[u8]) -> (usize, String) {
    const KINDS: [&str; 16] = [
        "0",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    let (mut len, mut at) = (0, 1);
    while let Some(byte) = bytes.get(at) {
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let kind = bytes[0] >> 4;
    let mut what = KINDS[usize::from(kind)].to_owned();
    let body = bytes.get(at..at + len).unwrap_or_default();
    match kind {
        2 | 9 => write!(what, " {}", body[body.len() - 1]).unwrap(),
        3 => {
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8_lossy(&body[2..2 + topic]).into_owned();
            write!(what, " to {topic}").unwrap();
        }
        _ => {}
    }
    (at + len, what)
}

/// A line of FTP.
fn reply(bytes: &[u8]) -> (usize, String) {
    let len = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    (len, String::from_utf8_lossy(&bytes[..len]).trim_end().to_owned())
}

/// A picture of the chamber camera's with its head.
fn picture(bytes: &[u8]) -> (usize, String) {
    let len = bytes.first_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len) as usize);
    (16 + len, "picture".to_owned())
}

/// A message of RTSP, or all packets up to the next message.
fn message(bytes: &[u8]) -> (usize, String) {
    let mut at = 0;
    let mut packets = 0;
    while bytes.get(at) == Some(&b'$') && at + 4 <= bytes.len() {
        at += 4 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        packets += 1;
    }
    if packets > 0 {
        return (at, format!("{packets} packets"));
    }
    let head =
        bytes.windows(4).position(|seen| seen == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let body = text
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (head + body.unwrap_or(0_usize), text.lines().next().unwrap_or_default().to_owned())
}
