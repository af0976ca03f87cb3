//! Redaction of credentials in logins, right or wrong ones, one byte at a time.
//!
//! | protocol | what is redacted |
//! |---|---|
//! | MQTT 3.1, 3.1.1, 5 | the password of CONNECT, and another user than `bblp` |
//! | FTP | what follows a word that ends with `PASS` or `ACCT`, bytes of telnet left out, and another user than `bblp` |
//! | RTSP | the credentials of `Authorization`: of Digest the `response`, from which a code of eight digits can be found by trying, and another user than `bblp` |
//! | chamber camera | the second half of the login's 80 bytes, and another user than `bblp` |
//!
//! The printer's access code has been redacted before and keeps its replacement, so that a recording shows
//! whether a login had the right code.

use super::redact::unknown;

/// Bytes that are redacted after a gap, in which a login may have begun.
pub const AFTER_HOLE: u16 = 256;

const USER: &[u8] = b"bblp";

/// The state of the direction in which clients log in.
pub struct Login {
    protocol: Protocol,
    after_hole: u16,
}

enum Protocol {
    None,
    Mqtt(Connect),
    Ftp(Command),
    Rtsp(Header),
    Chamber(u8),
}

impl Login {
    /// A direction without logins.
    pub const fn none() -> Self {
        Self::of(Protocol::None)
    }

    /// An MQTT client.
    pub const fn mqtt() -> Self {
        Self::of(Protocol::Mqtt(Connect::new()))
    }

    /// An FTP client.
    pub const fn ftp() -> Self {
        Self::of(Protocol::Ftp(Command::new()))
    }

    /// An RTSP client.
    pub const fn rtsp() -> Self {
        Self::of(Protocol::Rtsp(Header::new()))
    }

    /// A client of the chamber camera.
    pub const fn chamber() -> Self {
        Self::of(Protocol::Chamber(0))
    }

    const fn of(protocol: Protocol) -> Self {
        Self { protocol, after_hole: 0 }
    }

    /// Bytes were dropped here.
    pub fn misses(&mut self) {
        self.after_hole = AFTER_HOLE;
        match &mut self.protocol {
            Protocol::None => {}
            Protocol::Mqtt(connect) => connect.step = Step::Over,
            Protocol::Ftp(command) => command.is = Is::Secret,
            Protocol::Rtsp(header) => header.is = In::Secret,
            Protocol::Chamber(at) => *at = LOGIN,
        }
    }

    /// The byte to write for `byte`, which has been `redacted` already or not.
    pub fn next(&mut self, byte: u8, redacted: bool) -> u8 {
        let kept = match &mut self.protocol {
            Protocol::None => Keep::Yes,
            Protocol::Mqtt(connect) => connect.next(byte),
            Protocol::Ftp(command) => command.next(byte),
            Protocol::Rtsp(header) => header.next(byte),
            Protocol::Chamber(at) => chamber(at),
        };
        if self.after_hole > 0 {
            self.after_hole -= 1;
            return unknown(byte);
        }
        match kept {
            Keep::Yes => byte,
            Keep::User(at) if USER.get(at) == Some(&byte) => byte,
            Keep::User(_) | Keep::No if redacted => byte,
            Keep::User(_) | Keep::No => unknown(byte),
            Keep::Base64 if redacted || byte == b'=' => byte,
            Keep::Base64 => b'A',
            Keep::Hex if byte.is_ascii_hexdigit() => b'0',
            Keep::Hex => byte,
        }
    }
}

/// Whether a byte is kept.
enum Keep {
    Yes,
    No,
    /// Kept if it equals the byte of `bblp` at this place.
    User(usize),
    /// Base64 of unknown content: replaced so that it decodes to zeros, wherever it ends.
    Base64,
    /// A hexadecimal digest: replaced by zeros.
    Hex,
}

/// Bytes of the chamber camera's login.
const LOGIN: u8 = 80;

fn chamber(at: &mut u8) -> Keep {
    let kept = match *at {
        16..48 => Keep::User(usize::from(*at) - 16),
        48..LOGIN => Keep::No,
        _ => Keep::Yes,
    };
    *at = (*at).saturating_add(1).min(LOGIN);
    kept
}

/// The fields of CONNECT (MQTT 3.1.1 §3.1, MQTT 5 §3.1).
struct Connect {
    step: Step,
    /// Bytes of this field that were seen.
    seen: usize,
    /// The number that a field begins with, and then the bytes of it that are left.
    left: usize,
    flags: u8,
    level: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Kind,
    Remaining,
    Name,
    Level,
    Flags,
    KeepAlive,
    Properties,
    Id,
    WillProperties,
    WillTopic,
    Will,
    User,
    Password,
    Over,
}

impl Connect {
    const fn new() -> Self {
        Self { step: Step::Kind, seen: 0, left: 0, flags: 0, level: 0 }
    }

    fn next(&mut self, byte: u8) -> Keep {
        let at = self.seen;
        self.seen += 1;
        match self.step {
            Step::Kind if byte >> 4 == 1 => self.go(Step::Remaining),
            Step::Kind => self.go(Step::Over),
            Step::Remaining => {
                if byte & 0x80 == 0 || at == 3 {
                    self.go(Step::Name);
                }
            }
            Step::Level => {
                // The highest bit is a bridge's.
                self.level = byte & 0x7f;
                self.go(Step::Flags);
            }
            Step::Flags => {
                self.flags = byte;
                self.go(Step::KeepAlive);
            }
            Step::KeepAlive => {
                if at == 1 {
                    self.go(if self.level >= 5 { Step::Properties } else { Step::Id });
                }
            }
            Step::Properties | Step::WillProperties => self.properties(at, byte),
            Step::Name | Step::Id | Step::WillTopic | Step::Will | Step::User | Step::Password => {
                return self.text(at, byte);
            }
            Step::Over => self.seen = 0,
        }
        Keep::Yes
    }

    /// A field of which the first two bytes say how long it is.
    fn text(&mut self, at: usize, byte: u8) -> Keep {
        let step = self.step;
        if at < 2 {
            self.left = self.left << 8 | usize::from(byte);
        } else {
            self.left -= 1;
        }
        if at >= 1 && self.left == 0 {
            self.go(self.behind(step));
        }
        match at.checked_sub(2) {
            Some(at) if step == Step::User => Keep::User(at),
            Some(_) if step == Step::Password => Keep::No,
            Some(_) | None => Keep::Yes,
        }
    }

    /// A field that begins with its length as a variable byte integer, of seven bits a byte.
    fn properties(&mut self, at: usize, byte: u8) {
        // The high bit of a length's byte says that one more follows. This bit in `left`: the length is incomplete.
        const LENGTH: usize = 1 << 30;
        if at == 0 {
            self.left = LENGTH;
        }
        if self.left >= LENGTH {
            self.left |= usize::from(byte & 0x7f) << (7 * at.min(3));
            if byte & 0x80 == 0 || at >= 3 {
                self.left &= LENGTH - 1;
            }
        } else {
            self.left -= 1;
        }
        if self.left == 0 {
            self.go(self.behind(self.step));
        }
    }

    fn go(&mut self, step: Step) {
        (self.step, self.seen, self.left) = (step, 0, 0);
    }

    /// The field behind this one, according to the flags.
    fn behind(&self, step: Step) -> Step {
        let has = |bit: u8| self.flags & bit != 0;
        let will = if self.level >= 5 { Step::WillProperties } else { Step::WillTopic };
        match step {
            Step::Name => Step::Level,
            Step::Properties => Step::Id,
            Step::Id if has(4) => will,
            Step::WillProperties => Step::WillTopic,
            Step::WillTopic => Step::Will,
            Step::Id | Step::Will if has(0x80) => Step::User,
            Step::Id | Step::Will | Step::User if has(0x40) => Step::Password,
            Step::Id | Step::Will | Step::User | Step::Password | Step::Over => Step::Over,
            // Their fields have one length, and go on by themselves.
            Step::Kind | Step::Remaining | Step::Level | Step::Flags | Step::KeepAlive => step,
        }
    }
}

/// Telnet's "interpret as command", which may stand anywhere in a line of FTP.
const IAC: u8 = 0xff;

/// A line of FTP. Bytes other than letters may stand before, in and behind its word: how servers read bytes of telnet,
/// control characters and a CR without LF differs, and a password must be found in each of these ways.
struct Command {
    /// The last letters of the line's word.
    word: [u8; 4],
    is: Is,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Word,
    Plain,
    User(usize),
    Secret,
}

impl Command {
    const fn new() -> Self {
        Self { word: [0; 4], is: Is::Word }
    }

    fn next(&mut self, byte: u8) -> Keep {
        match self.is {
            _ if byte == b'\n' => *self = Self::new(),
            Is::Word if byte.is_ascii_alphabetic() => {
                let [_, second, third, fourth] = self.word;
                self.word = [second, third, fourth, byte.to_ascii_uppercase()];
            }
            Is::Word => {
                self.is = match &self.word {
                    b"PASS" | b"ACCT" => Is::Secret,
                    b"USER" => Is::User(0),
                    [.., 0] => Is::Word,
                    _ if byte == b' ' => Is::Plain,
                    _ => Is::Word,
                };
                if byte == b'\r' && self.is == Is::Word {
                    *self = Self::new();
                } else if self.is == Is::Secret && !matches!(byte, b' ' | b'\t') {
                    return Keep::No;
                }
            }
            Is::Plain if matches!(byte, IAC | b'\r') => *self = Self::new(),
            Is::Plain => {}
            Is::User(at) => {
                self.is = Is::User(at + 1);
                return Keep::User(at);
            }
            Is::Secret => return Keep::No,
        }
        Keep::Yes
    }
}

/// A line of RTSP.
struct Header {
    /// The name of the header, of the scheme, or of a parameter: its last letters.
    word: heapless::Deque<u8, 16>,
    is: In,
    /// The line before was of a header with credentials, and this one may go on with it.
    folds: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Start,
    Name,
    Plain,
    Scheme(u8),
    Basic,
    Digest,
    /// A value that does not matter.
    Value(Quotes),
    User(usize, Quotes),
    Response(Quotes),
    Secret,
}

/// Whether a value is in quotes: only if it begins with one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// The value has not begun.
    Before,
    Within,
    None,
}

impl Header {
    const fn new() -> Self {
        Self { word: heapless::Deque::new(), is: In::Start, folds: false }
    }

    fn says(&self, word: &[u8]) -> bool {
        self.word.iter().eq(word)
    }

    fn ends_with(&self, name: &[u8]) -> bool {
        let tail = self.word.iter().rev();
        name.len() <= self.word.len() && tail.zip(name.iter().rev()).all(|(a, b)| a == b)
    }

    /// Blanks of any kind, of which some may stand behind a name, are left out.
    fn push(&mut self, byte: u8) {
        if !byte.is_ascii_graphic() {
            return;
        }
        if self.word.is_full() {
            let _oldest = self.word.pop_front();
        }
        // Cannot fail: the first character was just removed.
        let _room = self.word.push_back(byte.to_ascii_lowercase());
    }

    fn next(&mut self, byte: u8) -> Keep {
        if byte == b'\n' {
            let folds = !matches!(self.is, In::Start | In::Name | In::Plain);
            // Everything on the continuation of a folded line is a secret.
            *self = Self { folds, ..Self::new() };
            return Keep::Yes;
        }
        match self.is {
            In::Start if self.folds && matches!(byte, b' ' | b'\t') => self.is = In::Secret,
            In::Start | In::Name => self.name(byte),
            In::Plain => {}
            In::Scheme(at) => return self.scheme(at, byte),
            In::Basic if matches!(byte, b' ' | b'\t' | b'\r') => {}
            In::Basic => return Keep::Base64,
            In::Digest => self.parameter(byte),
            In::Value(_) | In::User(..) | In::Response(_) => return self.value(byte),
            In::Secret => return Keep::No,
        }
        Keep::Yes
    }

    fn name(&mut self, byte: u8) {
        self.is = In::Name;
        if byte != b':' {
            return self.push(byte);
        }
        let is_login = self.ends_with(b"authorization");
        self.is = if is_login { In::Scheme(0) } else { In::Plain };
        self.word.clear();
    }

    /// `Basic` and `Digest` are written as they are. Anything else is a secret from where it differs.
    fn scheme(&mut self, at: u8, byte: u8) -> Keep {
        if matches!(byte, b' ' | b'\t' | b'\r') {
            self.is = match at {
                0 => In::Scheme(0),
                _ if self.says(b"basic") => In::Basic,
                _ if self.says(b"digest") => In::Digest,
                _ => In::Secret,
            };
            if self.is != In::Scheme(0) {
                self.word.clear();
            }
            return Keep::Yes;
        }
        let lower = byte.to_ascii_lowercase();
        let fits = |name: &[u8]| name.get(usize::from(at)) == Some(&lower);
        let begins = |name: &[u8]| self.word.iter().zip(name).all(|(a, b)| a == b) && fits(name);
        if begins(b"basic") || begins(b"digest") {
            self.push(byte);
            self.is = In::Scheme(at + 1);
            return Keep::Yes;
        }
        self.is = In::Secret;
        Keep::No
    }

    fn parameter(&mut self, byte: u8) {
        match byte {
            b'=' => {
                self.is = if self.ends_with(b"response") {
                    In::Response(Quotes::Before)
                } else if self.ends_with(b"username") {
                    In::User(0, Quotes::Before)
                } else {
                    In::Value(Quotes::Before)
                };
                self.word.clear();
            }
            b',' => self.word.clear(),
            _ => self.push(byte),
        }
    }

    fn value(&mut self, byte: u8) -> Keep {
        let (In::Value(quotes) | In::User(_, quotes) | In::Response(quotes)) = &mut self.is else {
            return Keep::Yes;
        };
        match (*quotes, byte) {
            (Quotes::Before, b' ' | b'\t') => return Keep::Yes,
            (Quotes::Before, b'"') => {
                *quotes = Quotes::Within;
                return Keep::Yes;
            }
            (Quotes::Within, b'"') | (Quotes::Before | Quotes::None, b',') => {
                self.is = In::Digest;
                return Keep::Yes;
            }
            (Quotes::Before, _) => *quotes = Quotes::None,
            (Quotes::Within | Quotes::None, _) => {}
        }
        if let In::User(at, _) = &mut self.is {
            *at += 1;
            return Keep::User(*at - 1);
        }
        if matches!(self.is, In::Response(_)) { Keep::Hex } else { Keep::Yes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A login may have begun in the gap, so that a line of its own is no reason to keep what is in it.
    #[test]
    fn so_many_bytes_are_redacted_after_a_gap_and_no_more() {
        for mut login in [Login::mqtt(), Login::chamber(), Login::rtsp(), Login::ftp()] {
            login.misses();
            let redacted = [b"7\n".as_slice(), &[b'7'; AFTER_HOLE as usize - 3], b"\n"].concat();
            for byte in redacted {
                assert_eq!(login.next(byte, false), unknown(byte));
            }
            for byte in *b"NOOP 7\r\n" {
                assert_eq!(login.next(byte, false), byte);
            }
        }
    }

    /// The same bytes behind the first byte of CONNECT are redacted.
    #[test]
    fn an_mqtt_client_that_sends_no_connect_has_no_login() {
        let packet = b"\x30\x19\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x04bblp\x00\x0277";
        let written = |first: u8| {
            let mut login = Login::mqtt();
            let mut next = |at, byte| login.next(if at == 0 { first } else { byte }, false);
            packet.iter().enumerate().map(|(at, byte)| next(at, *byte)).collect::<Vec<u8>>()
        };
        assert_eq!(written(packet[0]), packet);
        assert!(written(0x10).ends_with(b"99"));
    }
}
