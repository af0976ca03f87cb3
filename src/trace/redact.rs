//! Redaction of access codes, serial numbers and addresses of this network in recordings, in each form in which
//! they occur. [`login`](super::login) redacts other credentials in logins.
//!
//! Redacted data keeps its length and character class, so that all lengths in the protocols stay true: a digit
//! becomes a digit, an address an address, Base64 stays Base64.
//!
//! | what | where it is found | what stands there then |
//! |---|---|---|
//! | access code | as it is; in JSON; percent-encoded; in Base64, at each offset | `1`, `x`, `X`, `*` |
//! | serial number | as it is, in either case; in Base64 | its first three characters, then `0`, `X` |
//! | another serial number, an AMS's say | behind `"sn":` | the same |
//! | IPv4 address of the printer, of a client, of this machine, or in a private range | `a.b.c.d`; with commas in FTP | another, of the same length |
//! | the same as a number, as the printer has it: little-endian | a decimal of at least 7 digits, or behind `"ip":` | another number |
//! | IPv6 address of one of them | as it is | each of its digits is `d` |
//! | what stands before the `@` of a URL | behind `://`; user `bblp` stays | `9`, `z`, `Z`, `*` |
//! | another access code, a new one | behind `"access_code":` | the same |
//! | certificates and keys | in PEM, of which lines may cut anything in two | `A` |
//!
//! A secret may be divided between two pieces. So a [`Scanner`] holds back what may be the beginning of a secret,
//! [`HELD`] bytes at most, until the next piece of the same direction, or its end.
//!
//! A replacement and the bytes beside it may together be a secret again: a serial number's replacement ends with the
//! digit that a serial number begins with. So a last step looks at each byte before it is released: where it completes
//! the code or the serial number in one of their forms, those bytes become a character that is part of none of them
//! (`*` as a rule). So no form of either is released, even if a step before has written one.

use alloc::vec::Vec;
use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr};

/// Bytes held back at most: more than the longest secret.
pub const HELD: usize = 160;

/// Bytes of the shortest access code and serial number that can be redacted without redacting unrelated data.
pub const SHORTEST: usize = 6;

/// Characters of a serial number that name the model, and are kept.
const MODEL: usize = 3;

/// Characters of another serial number that are redacted at most.
const MAX_SERIAL: usize = 32;

/// Characters of another access code that are redacted at most.
const MAX_CODE: usize = 64;

/// Where PEM begins and ends (RFC 7468 §2), and the rest of either line.
const PEM_BEGINS: &[u8] = b"-----BEGIN ";
const PEM_ENDS: &[u8] = b"-----END ";
const PEM_LINE: &[u8] = b"-----";

/// Characters of a PEM label at most.
const MAX_PEM_LABEL: usize = 40;

/// Characters before the `@` of a URL that are redacted at most.
const MAX_USERINFO: usize = 128;

/// Addresses that are remembered; when exceeded, the oldest is forgotten.
const ADDRESSES: usize = 64;

/// Bytes of the longest form of a code or serial number but one: a code of 32 characters, percent-encoded, has 96.
const LOOK_BACK: usize = 95;

/// Bytes of a secret's beginning before a gap that are redacted; a shorter beginning reveals nothing.
const TELLING: usize = 3;

/// The secrets that are redacted.
pub struct Secrets {
    patterns: Vec<Pattern>,
    addresses: Addresses,
    /// Whether something that is looked for may begin with this byte.
    begins: [bool; 256],
    /// Whether a form of the code or of the serial number may end with this byte.
    ends: [bool; 256],
    /// A byte that is part of no form of the code and of the serial number.
    blank: u8,
}

impl Secrets {
    /// Takes the code and the serial number, as the printer has them. `None` if one of them is shorter
    /// than [`SHORTEST`].
    pub fn new(code: &[u8], serial: &[u8]) -> Option<Self> {
        if code.len() < SHORTEST || serial.len() < SHORTEST {
            return None;
        }
        let is_own = |into: &[u8; 4]| code.iter().all(|byte| stand_in(*byte, into) == *byte);
        let into = if is_own(b"1xX*") { b"2yY+" } else { b"1xX*" };
        let redacted: Vec<u8> = code.iter().map(|byte| stand_in(*byte, into)).collect();
        let mut patterns = Vec::new();
        let login = |code: &[u8]| [b"bblp:", code].concat();
        patterns.push(Pattern::base64(0, &login(code), &login(&redacted)));
        patterns.push(Pattern::bytes(code, &redacted));
        patterns.extend(Pattern::json(code, into));
        patterns.extend(Pattern::percent(code, into));
        let own: Vec<u8> = serial_stand_in(serial, b"0XX");
        let other = if own == serial { serial_stand_in(serial, b"1YY") } else { own };
        patterns.push(Pattern::letters(serial, &other));
        for before in 0..3 {
            patterns.push(Pattern::base64(before, code, &redacted));
            patterns.push(Pattern::base64(before, serial, &other));
        }
        let mut begins = [false; 256];
        for (byte, begins) in (0..=u8::MAX).zip(&mut begins) {
            *begins = byte.is_ascii_digit()
                || matches!(byte, b'"' | b':')
                || patterns.iter().any(|pattern| pattern.begins_with(byte));
        }
        let mut ends = [false; 256];
        for (byte, ends) in (0..=u8::MAX).zip(&mut ends) {
            *ends = patterns.iter().any(|pattern| pattern.ends_with(byte));
        }
        let is_in_none = |byte: &u8| !patterns.iter().any(|pattern| pattern.has(*byte));
        // Both consist of visible characters, and this is none.
        const DELETE: u8 = 0x7f;
        let blank = [b'*'].into_iter().chain(b'!'..DELETE).find(is_in_none).unwrap_or(DELETE);
        Some(Self { patterns, addresses: Addresses::default(), begins, ends, blank })
    }

    /// If `bytes`, which follow those `before`, end with the code or the serial number, overwrites it.
    /// The overwriting byte is part of no secret, so this cannot create another one.
    fn blank_secret(&self, before: &[u8], bytes: &mut [u8]) {
        let last = bytes.last().copied().unwrap_or_default();
        if !self.ends.get(usize::from(last)).copied().unwrap_or_default() {
            return;
        }
        let found = self.patterns.iter().filter(|pattern| pattern.is_end_of(before, bytes));
        let len = found.map(|pattern| pattern.0.len()).max().unwrap_or_default();
        bytes.iter_mut().rev().take(len).for_each(|byte| *byte = self.blank);
    }

    /// Adds an address that is to be redacted; returns its number, 1 to 250.
    pub fn address(&mut self, address: IpAddr) -> u8 {
        let address = address.to_canonical();
        let number = self.addresses.number(address);
        let first = self.addresses.texts().find_map(|text| text.bytes().next());
        if let (IpAddr::V6(_), Some(first)) = (address, first)
            && let Some(begins) = self.begins.get_mut(usize::from(first))
        {
            *begins = true;
        }
        number
    }

    /// Redacts the secret that `data`, behind the byte `before`, begins with. `over`: nothing follows.
    fn look(&mut self, data: &mut [u8], before: u8, ftp: bool, over: bool) -> Look {
        let mut wants = false;
        for pattern in &self.patterns {
            match pattern.find(data) {
                Found::Whole => return Look::Redacted(pattern.redact(data)),
                Found::Beginning if !over => wants = true,
                // The rest is not recorded; the beginning of a secret is redacted all the same.
                Found::Beginning if data.len() >= TELLING => {
                    data.iter_mut().for_each(|byte| *byte = unknown(*byte));
                    return Look::Redacted(data.len());
                }
                Found::Beginning | Found::Nothing => {}
            }
        }
        let first = data.first().copied().unwrap_or_default();
        let other = match first {
            b'0'..=b'9' if !before.is_ascii_digit() => self.look_at_number(data, ftp, over),
            b'"' => self.look_at_key(data, over),
            b':' => look_at_url(data, over),
            _ => Look::Nothing,
        };
        match self.look_at_v6(data, over) {
            Look::Nothing => {}
            Look::Wants => wants = true,
            redacted @ (Look::Redacted(_) | Look::Kept(_)) => return redacted,
        }
        if other == Look::Nothing && wants { Look::Wants } else { other }
    }

    fn look_at_number(&mut self, data: &mut [u8], ftp: bool, over: bool) -> Look {
        let mut wants = false;
        for separator in [b'.', b','].iter().take(1 + usize::from(ftp)) {
            match quad(data, *separator, over) {
                Quad::No => {}
                Quad::Wants => wants = true,
                Quad::Is { octets, lens } => {
                    let address = Ipv4Addr::from(octets);
                    if self.addresses.has(address.into()) || is_private(address) {
                        let other = other_v4(lens, octets, self.address(address.into()));
                        return Look::Redacted(write_quad(data, other, *separator));
                    }
                }
            }
        }
        let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == data.len() && digits <= 10 && !over {
            return Look::Wants;
        }
        if (7..=10).contains(&digits)
            && let Some(address) = little_endian(data.get(..digits).unwrap_or_default())
            && self.addresses.has(address.into())
        {
            let number = self.address(address.into());
            return Look::Redacted(write_number(data, digits, number));
        }
        if wants { Look::Wants } else { Look::Nothing }
    }

    /// Redacts the values of `"ip":`, an address of any interface of the printer; `"sn":`, a serial number;
    /// `"access_code":`, the present or a new access code.
    fn look_at_key(&mut self, data: &mut [u8], over: bool) -> Look {
        let keys: [&[u8]; 3] = [b"\"ip\"", b"\"sn\"", b"\"access_code\""];
        match keys.map(|key| value_of(data, key, over)) {
            [Ok(at), _, _] => self.look_at_ip(data, at, over),
            [_, Ok(at), _] => look_at_serial(data, at, over),
            [_, _, Ok(at)] => self.look_at_code(data, at, over),
            values if values.contains(&Err(Look::Wants)) => Look::Wants,
            _ => Look::Nothing,
        }
    }

    fn look_at_code(&self, data: &mut [u8], at: usize, over: bool) -> Look {
        let (_, value) = data.split_at_mut(at.min(data.len()));
        let [b'"', code @ ..] = value else { return Look::Nothing };
        let len = code.iter().take(MAX_CODE).take_while(|byte| **byte != b'"').count();
        if len == code.len() && len < MAX_CODE && !over {
            return Look::Wants;
        }
        let code = code.get_mut(..len).unwrap_or_default();
        // A number that only begins with the printer's is another.
        let is_own = |own: &&Pattern| own.0.len() == len && matches!(own.find(code), Found::Whole);
        match self.patterns.iter().find(is_own) {
            Some(own) => _ = own.redact(code),
            None => code.iter_mut().for_each(|byte| *byte = unknown(*byte)),
        }
        Look::Redacted(at + 1 + len)
    }

    fn look_at_ip(&mut self, data: &mut [u8], at: usize, over: bool) -> Look {
        let (_, value) = data.split_at_mut(at.min(data.len()));
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == value.len() && !over {
            return Look::Wants;
        }
        match little_endian(value.get(..digits).unwrap_or_default()) {
            Some(address) if !address.is_unspecified() => {
                let number = self.address(address.into());
                Look::Redacted(at + write_number(value, digits, number))
            }
            Some(_) | None => Look::Nothing,
        }
    }

    fn look_at_v6(&self, data: &mut [u8], over: bool) -> Look {
        for text in self.addresses.texts() {
            match after(data, text.as_bytes()) {
                Ok(_) => {
                    let address = data.get_mut(..text.len()).unwrap_or_default();
                    for digit in address.iter_mut().filter(|byte| byte.is_ascii_hexdigit()) {
                        *digit = b'd';
                    }
                    return Look::Redacted(text.len());
                }
                Err(false) if !over => return Look::Wants,
                Err(_) => {}
            }
        }
        Look::Nothing
    }
}

/// The state of one direction of a connection: bytes that are held back, and what the last byte was part of.
pub struct Scanner {
    held: heapless::Vec<u8, HELD>,
    before: u8,
    ftp: bool,
    /// Within a PEM.
    pem: bool,
    /// The last bytes that were released.
    released: heapless::Vec<u8, LOOK_BACK, u8>,
}

/// Buffers for a piece and the bytes held back before it, allocated once.
pub struct Work {
    bytes: Vec<u8>,
    /// Whether the byte was redacted.
    marks: Vec<bool>,
}

impl Work {
    /// Room for pieces of `piece` bytes.
    pub fn new(piece: usize) -> Self {
        let most = HELD + piece;
        Self { bytes: Vec::with_capacity(most), marks: Vec::with_capacity(most) }
    }

    /// The first `len` bytes.
    pub fn released(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or_default()
    }
}

impl Scanner {
    /// For a direction of FTP commands and replies, or of anything else.
    pub const fn new(ftp: bool) -> Self {
        Self {
            held: heapless::Vec::new(),
            before: 0,
            ftp,
            pem: false,
            released: heapless::Vec::new(),
        }
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Redacts the bytes held back and `piece`, in `work`. Returns how many bytes of it can be written: all of them
    /// with `over`, when a gap or the end follows. `rewrite` is given each of these, and whether it was redacted, and
    /// returns the byte to write.
    pub fn scan(
        &mut self,
        secrets: &mut Secrets,
        piece: &[u8],
        over: bool,
        work: &mut Work,
        mut rewrite: impl FnMut(u8, bool) -> u8,
    ) -> usize {
        let Work { bytes, marks } = work;
        bytes.clear();
        bytes.extend_from_slice(&self.held);
        bytes.extend_from_slice(piece);
        marks.clear();
        marks.resize(bytes.len(), false);
        let mut at = 0;
        let mut before = self.before;
        while let Some(first) = bytes.get(at).copied() {
            let begins = secrets.begins.get(usize::from(first)).copied().unwrap_or_default();
            let rest = bytes.get_mut(at..).unwrap_or_default();
            let left = rest.len();
            let look = match self.look_at_pem(rest, before, over) {
                Look::Nothing if begins => secrets.look(rest, before, self.ftp, over),
                look @ (Look::Nothing | Look::Wants | Look::Redacted(_) | Look::Kept(_)) => look,
            };
            let len = match look {
                Look::Nothing => 1,
                Look::Wants if left > HELD => 1,
                Look::Wants => break,
                Look::Redacted(len) => {
                    marks.iter_mut().skip(at).take(len).for_each(|mark| *mark = true);
                    len.max(1)
                }
                Look::Kept(len) => len.max(1),
            };
            at += len;
            before = bytes.get(at - 1).copied().unwrap_or_default();
        }
        self.before = before;
        let rest = bytes.get(at..).unwrap_or_default();
        self.held.clear();
        // Cannot fail: more is never held back.
        let _fits = self.held.extend_from_slice(rest);
        for (end, mark) in (1..=at).zip(marks.iter()) {
            let bytes = bytes.get_mut(..end).unwrap_or_default();
            if let Some(last) = bytes.last_mut() {
                *last = rewrite(*last, *mark);
            }
            secrets.blank_secret(&self.released, bytes);
        }
        self.remember(bytes.get(..at).unwrap_or_default());
        at
    }

    /// Keeps the last bytes that were released.
    fn remember(&mut self, released: &[u8]) {
        let (_, new) = released.split_at(released.len().saturating_sub(LOOK_BACK));
        let kept = self.released.len().min(LOOK_BACK - new.len());
        let forgotten = self.released.len() - kept;
        self.released.rotate_left(forgotten);
        self.released.truncate(kept);
        // Cannot fail: as many as that were forgotten.
        let _fits = self.released.extend_from_slice(new);
    }

    /// Redacts the Base64 inside PEM. PEM ends at its end line, or at the end of the JSON string.
    fn look_at_pem(&mut self, data: &mut [u8], before: u8, over: bool) -> Look {
        let Some(first) = data.first().copied() else { return Look::Nothing };
        if first == b'-' {
            let edge = if self.pem { PEM_ENDS } else { PEM_BEGINS };
            let label = match after(data, edge) {
                Ok(label) => label,
                Err(false) if !over => return Look::Wants,
                Err(_) => return Look::Nothing,
            };
            // A label stays as it is, unless it is a secret.
            let is_label = |byte: &&u8| byte.is_ascii_uppercase() || **byte == b' ';
            let len = label.iter().take(MAX_PEM_LABEL).take_while(is_label).count();
            return match after(label.get(len..).unwrap_or_default(), PEM_LINE) {
                Ok(_) => {
                    self.pem = !self.pem;
                    Look::Kept(edge.len() + len + PEM_LINE.len())
                }
                Err(false) if !over => Look::Wants,
                Err(_) => Look::Nothing,
            };
        }
        if !self.pem {
            return Look::Nothing;
        }
        self.pem = first != b'"';
        // In JSON a line ends with two characters.
        if before != b'\\' && sextet(first).is_some() {
            data.iter_mut().take(1).for_each(|byte| *byte = b'A');
            return Look::Redacted(1);
        }
        Look::Nothing
    }
}

/// The replacement for a byte of unknown meaning, of the same character class.
pub fn unknown(byte: u8) -> u8 {
    match byte {
        0 | b'\r' | b'\n' => byte,
        _ => stand_in(byte, b"9zZ*"),
    }
}

fn stand_in(byte: u8, [digit, lower, upper, other]: &[u8; 4]) -> u8 {
    match byte {
        b'0'..=b'9' => *digit,
        b'a'..=b'z' => *lower,
        b'A'..=b'Z' => *upper,
        _ => *other,
    }
}

fn serial_stand_in(serial: &[u8], [digit, lower, upper]: &[u8; 3]) -> Vec<u8> {
    let (model, rest) = serial.split_at(MODEL.min(serial.len()));
    let rest = rest.iter().map(|byte| stand_in(*byte, &[*digit, *lower, *upper, b'*']));
    model.iter().copied().chain(rest).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Nothing,
    /// The bytes that follow have to be known first.
    Wants,
    /// This many bytes were redacted or kept.
    Redacted(usize),
    /// This many bytes are kept without being searched.
    Kept(usize),
}

enum Found {
    Nothing,
    Beginning,
    Whole,
}

/// A string to search for, character by character, and its replacement.
struct Pattern(Vec<Element>);

#[derive(Clone, Copy)]
enum Element {
    Byte {
        is: u8,
        into: u8,
    },
    /// A letter in either case; the replacement keeps the case.
    Letter {
        upper: u8,
        into: u8,
    },
    /// Some bits of a character of Base64.
    Bits {
        mask: u8,
        is: u8,
        into: u8,
    },
}

impl Element {
    /// The replacement for `byte`, if this character is searched for.
    fn redact(self, byte: u8) -> Option<u8> {
        match self {
            Self::Byte { is, into } => (byte == is).then_some(into),
            Self::Letter { upper, into } if byte == upper => Some(into),
            Self::Letter { upper, into } => {
                (byte.to_ascii_uppercase() == upper).then_some(into.to_ascii_lowercase())
            }
            Self::Bits { mask, is, into } => {
                let bits = sextet(byte)?;
                // A character that is kept stays in its alphabet, of the two.
                let other = (bits & !mask) | into;
                let same = if other == bits { byte } else { letter(other) };
                (bits & mask == is).then_some(same)
            }
        }
    }
}

impl Pattern {
    fn bytes(from: &[u8], into: &[u8]) -> Self {
        Self(
            from.iter()
                .zip(into)
                .map(|(is, into)| Element::Byte { is: *is, into: *into })
                .collect(),
        )
    }

    fn letters(from: &[u8], into: &[u8]) -> Self {
        let each = from.iter().zip(into);
        Self(each.map(|(is, into)| Element::Letter { upper: *is, into: *into }).collect())
    }

    /// In JSON, where characters have to or may be escaped.
    fn json(from: &[u8], into: &[u8; 4]) -> Option<Self> {
        let is_escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | b'/');
        let mut elements = Vec::new();
        for byte in from {
            let other = stand_in(*byte, into);
            if is_escaped(byte) {
                elements.push(Element::Byte { is: b'\\', into: other });
            }
            elements.push(Element::Byte { is: *byte, into: other });
        }
        from.iter().any(is_escaped).then_some(Self(elements))
    }

    /// In a URL, where characters have to be percent-encoded.
    fn percent(from: &[u8], into: &[u8; 4]) -> Option<Self> {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or_default();
        let mut elements = Vec::new();
        for byte in from {
            let other = stand_in(*byte, into);
            if is_plain(byte) {
                elements.push(Element::Byte { is: *byte, into: other });
                continue;
            }
            elements.push(Element::Byte { is: b'%', into: b'%' });
            for (is, into) in [(byte >> 4, other >> 4), (byte & 15, other & 15)] {
                elements.push(Element::Letter { upper: hex(is), into: hex(into) });
            }
        }
        (!from.iter().all(is_plain)).then_some(Self(elements))
    }

    /// In Base64 behind this many unknown bytes. The characters at its ends hold bits of
    /// the bytes beside it, which are kept.
    fn base64(before: usize, from: &[u8], into: &[u8]) -> Self {
        let (first, last) = (8 * before, 8 * (before + from.len()));
        let bit = |bytes: &[u8], at: usize| {
            let byte = at.checked_sub(first).and_then(|at| bytes.get(at / 8)).copied()?;
            Some(byte >> (7 - at % 8) & 1)
        };
        let element = |character: usize| {
            let (mut mask, mut is, mut other) = (0, 0, 0);
            for at in 6 * character..6 * character + 6 {
                let known = bit(from, at);
                mask = mask << 1 | u8::from(known.is_some());
                is = is << 1 | known.unwrap_or_default();
                other = other << 1 | bit(into, at).unwrap_or_default();
            }
            Element::Bits { mask, is, into: other }
        };
        Self((first / 6..last.div_ceil(6)).map(element).collect())
    }

    fn begins_with(&self, byte: u8) -> bool {
        self.0.first().is_some_and(|first| first.redact(byte).is_some())
    }

    fn ends_with(&self, byte: u8) -> bool {
        self.0.last().is_some_and(|last| last.redact(byte).is_some())
    }

    fn has(&self, byte: u8) -> bool {
        self.0.iter().any(|element| element.redact(byte).is_some())
    }

    /// Whether `bytes`, which follow those `before`, end with this form.
    fn is_end_of(&self, before: &[u8], bytes: &[u8]) -> bool {
        let mut backwards = bytes.iter().rev().chain(before.iter().rev());
        let is_same = |element: &Element| {
            backwards.next().is_some_and(|byte| element.redact(*byte).is_some())
        };
        self.0.iter().rev().all(is_same)
    }

    fn find(&self, data: &[u8]) -> Found {
        let same =
            self.0.iter().zip(data).take_while(|(element, byte)| element.redact(**byte).is_some());
        match same.count() {
            len if len == self.0.len() => Found::Whole,
            len if len == data.len() => Found::Beginning,
            _ => Found::Nothing,
        }
    }

    fn redact(&self, data: &mut [u8]) -> usize {
        for (element, byte) in self.0.iter().zip(data) {
            *byte = element.redact(*byte).unwrap_or(*byte);
        }
        self.0.len()
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        for element in &mut self.0 {
            *element = Element::Byte { is: 0, into: 0 };
        }
    }
}

/// The value of a character of Base64, in either alphabet.
const fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

const fn letter(sextet: u8) -> u8 {
    match sextet {
        0..26 => b'A' + sextet,
        26..52 => b'a' + sextet - 26,
        52..62 => b'0' + sextet - 52,
        62 => b'+',
        _ => b'/',
    }
}

/// The rest of `data` behind `beginning`. On failure: whether it is certain that `data` does not begin so.
fn after<'a>(data: &'a [u8], beginning: &[u8]) -> Result<&'a [u8], bool> {
    match data.strip_prefix(beginning) {
        Some(rest) => Ok(rest),
        None => Err(!beginning.starts_with(data)),
    }
}

/// Where the value behind this key begins.
fn value_of(data: &[u8], key: &[u8], over: bool) -> Result<usize, Look> {
    let wants = if over { Look::Nothing } else { Look::Wants };
    let mut rest = match after(data, key) {
        Ok(rest) => rest,
        Err(whole) => return Err(if whole { Look::Nothing } else { wants }),
    };
    let mut seen_colon = false;
    loop {
        match rest {
            [] => return Err(wants),
            [b' ' | b'\t' | b'\r' | b'\n', others @ ..] => rest = others,
            [b':', others @ ..] if !seen_colon => {
                seen_colon = true;
                rest = others;
            }
            _ if seen_colon => return Ok(data.len() - rest.len()),
            _ => return Err(Look::Nothing),
        }
    }
}

/// A serial number in quotes keeps its first characters.
fn look_at_serial(data: &mut [u8], at: usize, over: bool) -> Look {
    let (_, value) = data.split_at_mut(at.min(data.len()));
    let [b'"', serial @ ..] = value else { return Look::Nothing };
    let len =
        serial.iter().take(MAX_SERIAL).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    if len == serial.len() && len < MAX_SERIAL && !over {
        return Look::Wants;
    }
    for byte in serial.iter_mut().take(len).skip(MODEL) {
        *byte = stand_in(*byte, b"0XX*");
    }
    Look::Redacted(at + 1 + len)
}

/// Redacts credentials in a URL, `://user:code@`. A known code has been redacted before.
fn look_at_url(data: &mut [u8], over: bool) -> Look {
    const BEGINNING: &[u8] = b"://";
    let rest = match after(data, BEGINNING) {
        Ok(rest) => rest,
        Err(whole) => return if whole || over { Look::Nothing } else { Look::Wants },
    };
    let ends = |byte: &u8| !byte.is_ascii_graphic() || b"@/\"'<>\\".contains(byte);
    let len = rest.iter().take(MAX_USERINFO).take_while(|byte| !ends(byte)).count();
    match rest.get(len) {
        Some(b'@') => {
            let inside = data.get_mut(BEGINNING.len()..BEGINNING.len() + len).unwrap_or_default();
            let colon = inside.iter().position(|byte| *byte == b':').unwrap_or(inside.len());
            let (user, password) = inside.split_at_mut(colon);
            // The only user name of printers is no secret.
            let user = if user == b"bblp" { &mut [] } else { user };
            for byte in user.iter_mut().chain(password.iter_mut().skip(1)) {
                *byte = unknown(*byte);
            }
            Look::Redacted(BEGINNING.len() + len)
        }
        None if !over && len < MAX_USERINFO => Look::Wants,
        Some(_) | None => Look::Nothing,
    }
}

enum Quad {
    No,
    Wants,
    Is { octets: [u8; 4], lens: [usize; 4] },
}

/// Four numbers separated as in an address. `over`: nothing follows `data`.
fn quad(data: &[u8], separator: u8, over: bool) -> Quad {
    let (mut octets, mut lens) = ([0; 4], [0; 4]);
    let mut rest = data;
    for (at, (octet, len)) in octets.iter_mut().zip(&mut lens).enumerate() {
        *len = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, others) = rest.split_at(*len);
        if others.is_empty() && *len < 4 && !over {
            return Quad::Wants;
        }
        let is_padded = *len > 1 && digits.first() == Some(&b'0');
        let value = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let Some(value) = value.filter(|_| !is_padded) else { return Quad::No };
        *octet = value;
        rest = others;
        if at < 3 {
            match rest {
                [first, others @ ..] if *first == separator => rest = others,
                _ => return Quad::No,
            }
        }
    }
    Quad::Is { octets, lens }
}

const fn is_private(address: Ipv4Addr) -> bool {
    // RFC 6598: the range for carrier-grade NAT.
    let shared = matches!(address.octets(), [100, 64..128, _, _]);
    address.is_private() || address.is_link_local() || shared
}

/// An address whose numbers have this many digits, other than `but`.
fn other_v4([a, b, c, d]: [usize; 4], but: [u8; 4], number: u8) -> [u8; 4] {
    let first = match (a, b) {
        (1, _) => 9,
        (2, _) => 10,
        (_, 2) => 172,
        (_, _) => 192,
    };
    let second = [0, 20, 168].get(b.saturating_sub(1)).copied().unwrap_or_default();
    let third = [9, 99, 199].get(c.saturating_sub(1)).copied().unwrap_or_default();
    let fourth = match d {
        1 => number % 10,
        2 => 90 + number % 10,
        _ => 200 + number % 50,
    };
    let other = [first, second, third, fourth];
    if other == but { [first, second, third - 1, fourth] } else { other }
}

fn write_quad(data: &mut [u8], octets: [u8; 4], separator: u8) -> usize {
    let mut text = heapless::String::<15>::new();
    let [a, b, c, d] = octets;
    let by = char::from(separator);
    // Cannot fail: an address is no longer than that.
    let _fits = write!(text, "{a}{by}{b}{by}{c}{by}{d}");
    for (place, byte) in data.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    text.len()
}

/// An address as the printer writes it in JSON: a little-endian number.
fn little_endian(digits: &[u8]) -> Option<Ipv4Addr> {
    let number: u32 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Ipv4Addr::from(number.to_le_bytes()))
}

fn write_number(data: &mut [u8], digits: usize, number: u8) -> usize {
    for (at, place) in data.iter_mut().take(digits).enumerate() {
        *place = if at + 1 == digits { b'0' + number % 10 } else { b'1' };
    }
    digits
}

/// The addresses that were met.
#[derive(Default)]
struct Addresses {
    known: heapless::Deque<(IpAddr, u8, heapless::String<40>), ADDRESSES>,
    next: u8,
}

impl Addresses {
    fn has(&self, address: IpAddr) -> bool {
        self.known.iter().any(|(known, ..)| *known == address)
    }

    /// Its number, which is never 0.
    fn number(&mut self, address: IpAddr) -> u8 {
        if let Some((_, number, _)) = self.known.iter().find(|(known, ..)| *known == address) {
            return *number;
        }
        if self.known.is_full() {
            let _oldest = self.known.pop_front();
        }
        self.next = self.next % 250 + 1;
        let mut text = heapless::String::new();
        if let IpAddr::V6(address) = address
            && !address.is_loopback()
            && !address.is_unspecified()
        {
            // Cannot fail: no address is longer than that.
            let _fits = write!(text, "{address}");
        }
        // Cannot fail: the oldest was just removed.
        let _room = self.known.push_back((address, self.next, text));
        self.next
    }

    /// The IPv6 addresses as they are written, the newest first.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.known.iter().rev().map(|(.., text)| text.as_str()).filter(|text| !text.is_empty())
    }
}
