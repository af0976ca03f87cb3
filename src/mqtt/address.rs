//! Rewrites the printer's address in reports.
//!
//! Slicers and Home Assistant take the address of the camera and of the file server from the reports
//! ([`protocol`](crate::protocol#reports)), and would bypass the proxy if it stayed the printer's. [`Patches`]
//! are the places to change, found once for each report; [`Rewriting`] applies them while the report is
//! copied into one client's outbox, piece by piece. All other bytes stay as the printer formatted them.
//!
//! # On the wire
//!
//! | where | form | replaced by |
//! |---|---|---|
//! | `print.net.info[].ip`, unless 0 | IPv4 as one decimal number, first octet lowest: 192.168.0.3 is 50374848 | the same form |
//! | `print.ipcam.rtsp_url`, if `rtsp://` or `rtsps://` | the host behind the user, and the port if there is one | the address, and the RTSPS port of this proxy unless both are 322 |
//! | `info.sequence_id` of a stored `get_version` answer | a JSON string or integer | the caller's identifier |
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | places in one report | [`MAX_PATCHES`] | left as they are, counted by [`Patches::missed`] |
//! | a sequence id | [`SEQUENCE_ID`] bytes as written | [`SequenceId::new`] refuses it |

use core::fmt::Write;
use core::net::Ipv4Addr;
use core::ops::Range;

use crate::mqtt::json::{Cursor, Error, Kind, Value};

/// Most places in one report that are changed. Printers have two interfaces and one camera.
pub const MAX_PATCHES: usize = 8;

/// Longest sequence id that is carried over, as written and with its quotes. The longest in use are
/// a dozen digits.
pub const SEQUENCE_ID: usize = 40;

/// The decimal digits of a `u32`.
const INTEGER: usize = 10;
/// `255.255.255.255`
const DOTTED: usize = 15;
/// `:65535`
const PORT: usize = 6;

/// The port of RTSPS that a URL without a port means.
pub const RTSPS: u16 = 322;

/// Bytes of a report that are replaced for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Offset of its first byte in the report.
    pub at: u32,
    /// Bytes that are replaced.
    pub len: u16,
    /// By what they are replaced.
    pub what: What,
}

/// What stands at a [`Patch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An IPv4 address as a number.
    Ip,
    /// The host of a URL that has no port, which means 322.
    UrlHost,
    /// The host and the port of a URL.
    UrlHostPort,
    /// The sequence id of an answer, as a JSON token.
    SequenceId,
}

/// What a stored message is, for a client that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// A report of the printer's state: the full state replaces it, so it may be dropped.
    #[default]
    State,
    /// Any other report, such as an answer to a request: nothing replaces it.
    Answer,
    /// A client's request, for others that subscribed to the request topic. It is dropped before an answer is.
    Request,
}

/// What is known about a stored message: its content, and the places in it that are replaced, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patches {
    /// Invariant: ascending, and no two overlap.
    places: heapless::Vec<Patch, MAX_PATCHES, u8>,
    missed: u16,
    content: Content,
}

impl Patches {
    /// No place at all.
    pub const NONE: Self =
        Self { places: heapless::Vec::new(), missed: 0, content: Content::State };

    /// The same places in a message of this content.
    #[must_use]
    pub fn of(self, content: Content) -> Self {
        Self { content, ..self }
    }

    /// What the message is.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// The places, first to last.
    pub fn as_slice(&self) -> &[Patch] {
        &self.places
    }

    /// The number of places beyond [`MAX_PATCHES`]. They keep what the printer wrote.
    pub const fn missed(&self) -> u16 {
        self.missed
    }

    /// How many bytes a report of `len` bytes has once it is rewritten.
    pub fn rewritten_len(&self, len: usize, by: &Replacements) -> usize {
        self.places.iter().fold(len, |len, patch| match by.text(patch.what) {
            Some(text) => len.saturating_sub(usize::from(patch.len)) + text.len(),
            None => len,
        })
    }

    /// Notes a place that lies behind all noted so far.
    pub(super) fn note(&mut self, value: Value<'_>, what: What) {
        let (Ok(at), Ok(len)) = (u32::try_from(value.at), u16::try_from(value.text.len())) else {
            return self.miss();
        };
        if self.places.push(Patch { at, len, what }).is_err() {
            self.miss();
        }
    }

    /// Walks the value of `print.net`.
    pub(super) fn find_in_net(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        if cursor.kind()? != Kind::Object {
            return cursor.pass().map(drop);
        }
        cursor.enter_object()?;
        while let Some(key) = cursor.key()? {
            if key.text != b"info" || cursor.kind()? != Kind::Array {
                cursor.pass()?;
                continue;
            }
            cursor.enter_array()?;
            while cursor.element()? {
                self.find_in_interface(cursor)?;
            }
        }
        Ok(())
    }

    /// Walks an element of `print.net.info`.
    fn find_in_interface(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        if cursor.kind()? != Kind::Object {
            return cursor.pass().map(drop);
        }
        cursor.enter_object()?;
        while let Some(key) = cursor.key()? {
            let value = cursor.pass()?;
            if key.text == b"ip" && is_address(value.text) {
                self.note(value, What::Ip);
            }
        }
        Ok(())
    }

    /// Walks the value of `print.ipcam`. Returns whether live view is on, if `rtsp_url` is there.
    pub(super) fn find_in_ipcam(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<bool>, Error> {
        let mut live_view = None;
        if cursor.kind()? != Kind::Object {
            return cursor.pass().map(|_| live_view);
        }
        cursor.enter_object()?;
        while let Some(key) = cursor.key()? {
            let value = cursor.pass()?;
            if key.text != b"rtsp_url" {
                continue;
            }
            live_view = value.string().map(|url| url != b"disable");
            let Some(url) = value.string() else { continue };
            if let Some(host) = url_host(url) {
                let port = port_len(url.get(host.end..).unwrap_or_default());
                let what = if port > 0 { What::UrlHostPort } else { What::UrlHost };
                let text = url.get(host.start..host.end + port).unwrap_or_default();
                self.note(Value { at: value.at + 1 + host.start, text }, what);
            }
        }
        Ok(live_view)
    }

    fn miss(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }
}

/// The texts that replace the printer's, rendered once for each client.
#[derive(Clone, Debug, Default)]
pub struct Replacements {
    number: heapless::Vec<u8, INTEGER, u8>,
    dotted: heapless::Vec<u8, DOTTED, u8>,
    /// `dotted` with the RTSPS port.
    with_port: heapless::Vec<u8, { DOTTED + PORT }, u8>,
    port: u16,
    sequence_id: Option<SequenceId>,
}

impl Replacements {
    /// Replaces the printer's address by `address`, at which the client reaches this proxy, and the camera's port
    /// by `port`, at which this proxy serves RTSPS.
    ///
    /// With the unspecified address nothing is replaced.
    pub fn address(address: Ipv4Addr, port: u16) -> Self {
        let mut by = Self { port, ..Self::default() };
        if !address.is_unspecified() {
            // None can fail: each room holds the longest address.
            _ = write!(by.number, "{}", u32::from_le_bytes(address.octets()));
            _ = write!(by.dotted, "{address}");
            _ = write!(by.with_port, "{address}:{port}");
        }
        by
    }

    /// Replaces the sequence id, too.
    #[must_use]
    pub fn with_sequence_id(self, sequence_id: SequenceId) -> Self {
        Self { sequence_id: Some(sequence_id), ..self }
    }

    /// The text that replaces `what`; `None` leaves it unchanged.
    fn text(&self, what: What) -> Option<&[u8]> {
        match what {
            What::Ip => Some(self.number.as_slice()).filter(|text| !text.is_empty()),
            What::UrlHost if self.port == RTSPS => {
                Some(self.dotted.as_slice()).filter(|text| !text.is_empty())
            }
            What::UrlHost | What::UrlHostPort => {
                Some(self.with_port.as_slice()).filter(|text| !text.is_empty())
            }
            What::SequenceId => self.sequence_id.as_ref().map(|id| id.0.as_slice()),
        }
    }
}

/// A sequence id as its sender wrote it: a JSON string with its quotes, or an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceId(heapless::Vec<u8, SEQUENCE_ID, u8>);

impl SequenceId {
    /// The id that `token` is. `None` if it is no string and no integer, or too long.
    pub fn new(token: &[u8]) -> Option<Self> {
        let value = Cursor::new(token).pass().ok()?;
        let whole = value.text.len() == token.len();
        let plain =
            core::str::from_utf8(token).is_ok_and(|token| !token.contains(char::is_control));
        let id = value.string().is_some() || value.is_integer();
        if whole && plain && id { heapless::Vec::from_slice(token).ok().map(Self) } else { None }
    }

    /// The token as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How far one client's copy of one report has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewriting {
    /// The next byte of the report to copy.
    at: usize,
    /// The next place.
    place: usize,
    /// How much of that place's replacement is written.
    written: usize,
}

impl Rewriting {
    /// At the beginning of a report.
    pub const fn new() -> Self {
        Self { at: 0, place: 0, written: 0 }
    }

    /// Writes the next bytes into `out` and returns how many: all of `out`, or the rest.
    ///
    /// All three of `report`, `patches` and `by` are the same from the first call to the last;
    /// [`Patches::rewritten_len`] bytes come out.
    pub fn write(
        &mut self,
        report: &[u8],
        patches: &Patches,
        by: &Replacements,
        out: &mut [u8],
    ) -> usize {
        let mut room = out;
        let mut written = 0;
        loop {
            let patch = patches.places.get(self.place);
            let next = patch.map_or(report.len(), |patch| patch.at as usize);
            let until = next.min(report.len());
            let copied = copy(report.get(self.at..until).unwrap_or_default(), &mut room);
            self.at += copied;
            written += copied;
            let Some(patch) = patch else { return written };
            if self.at < next {
                return written;
            }
            if let Some(text) = by.text(patch.what) {
                let copied = copy(text.get(self.written..).unwrap_or_default(), &mut room);
                self.written += copied;
                written += copied;
                if self.written < text.len() {
                    return written;
                }
                self.at += usize::from(patch.len);
            }
            self.written = 0;
            self.place += 1;
        }
    }
}

/// Copies what fits, and leaves in `room` what is left of it.
fn copy(from: &[u8], room: &mut &mut [u8]) -> usize {
    let len = from.len().min(room.len());
    if let (Some(from), Some((to, rest))) =
        (from.get(..len), core::mem::take(room).split_at_mut_checked(len))
    {
        to.copy_from_slice(from);
        *room = rest;
    }
    len
}

/// Whether `token` is an IPv4 address as a number, and not 0, which is an unused interface.
fn is_address(token: &[u8]) -> bool {
    let number = core::str::from_utf8(token).ok().and_then(|token| token.parse::<u32>().ok());
    number.is_some_and(|number| number != 0)
}

/// Where the host is in `url`, which is what stands between the quotes of a JSON string: behind
/// `rtsp://` or `rtsps://` and a user, before a port, path or query (RFC 3986 §3.2).
///
/// A slash may be escaped. A host that needs an escape itself is no host we know.
fn url_host(url: &[u8]) -> Option<Range<usize>> {
    let scheme = url.iter().position(|&byte| byte == b':')?;
    let name = url.get(..scheme)?;
    if !name.eq_ignore_ascii_case(b"rtsp") && !name.eq_ignore_ascii_case(b"rtsps") {
        return None;
    }
    let slashes = url.get(scheme + 1..)?;
    let rest = slash(slash(slashes)?)?;
    let start = url.len() - rest.len();
    let authority = rest.get(..authority_len(rest))?;
    let host_at = authority.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1);
    let host = authority.get(host_at..)?;
    let len = match host {
        [b'[', inside @ ..] => inside.iter().position(|&byte| byte == b']')? + 2,
        _ => host.iter().position(|&byte| byte == b':').unwrap_or(host.len()),
    };
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    let known = len > 0 && host.get(..len)?.iter().all(plain);
    known.then_some(start + host_at..start + host_at + len)
}

/// Bytes of a colon and the digits behind it, at the beginning of `text`.
fn port_len(text: &[u8]) -> usize {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.strip_prefix(b":").map_or(0, |port| 1 + digits(port))
}

/// What is behind a slash, escaped or not.
fn slash(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"\\/").or_else(|| text.strip_prefix(b"/"))
}

fn authority_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'/' | b'?' | b'#' => break,
            b'\\' if text.get(at + 1) == Some(&b'/') => break,
            b'\\' => 2,
            _ => 1,
        };
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::report::{Kind as Report, classify};
    use alloc::vec::Vec;
    use alloc::{format, string::String};
    use proptest::prelude::*;
    use serde_json::{Value as Oracle, json};

    const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 255, 133);

    fn rewritten(report: &[u8], by: &Replacements, piece: usize) -> Vec<u8> {
        let patches = classify(report).patches;
        let mut rewriting = Rewriting::new();
        let mut all = Vec::new();
        loop {
            let mut out = alloc::vec![0xAA; piece];
            let written = rewriting.write(report, &patches, by, &mut out);
            assert!(out[written..].iter().all(|&byte| byte == 0xAA));
            all.extend(&out[..written]);
            if written < piece {
                assert_eq!(rewriting.write(report, &patches, by, &mut out), 0);
                assert_eq!(all.len(), patches.rewritten_len(report.len(), by));
                return all;
            }
        }
    }

    fn at_once(report: &[u8]) -> String {
        let by = Replacements::address(HERE, RTSPS);
        let whole = rewritten(report, &by, 100_000);
        for piece in 1..report.len() + 20 {
            assert_eq!(rewritten(report, &by, piece), whole, "in pieces of {piece}");
        }
        String::from_utf8(whole).unwrap()
    }

    fn url_report(url: &str) -> String {
        format!(r#"{{"print":{{"ipcam":{{"rtsp_url":"{url}"}}}}}}"#)
    }

    /// Guards: bambuddy#757, bambuddy#1429: the printer's address leaks as an integer in
    /// net.info.
    #[test]
    fn every_address_but_zero_becomes_ours_and_nothing_else_changes() {
        let report = br#"{"print": {"net": {"conf": 16, "info": [
            {"ip": 50374848, "mask": 16777215}, {"ip":0,"mask":0}, {"ip" : 4294967295}]},
            "ip": 50374848, "device": {"net": {"info": [{"ip": 50374848}]}}}}"#;
        let expected = br#"{"print": {"net": {"conf": 16, "info": [
            {"ip": 2248124608, "mask": 16777215}, {"ip":0,"mask":0}, {"ip" : 2248124608}]},
            "ip": 50374848, "device": {"net": {"info": [{"ip": 50374848}]}}}}"#;
        assert_eq!(at_once(report).as_bytes(), expected);
    }

    #[test]
    fn an_address_is_a_number_with_its_first_octet_lowest() {
        let number =
            |address| Replacements::address(address, RTSPS).text(What::Ip).unwrap().to_vec();
        assert_eq!(number(Ipv4Addr::new(192, 168, 0, 3)), b"50374848");
        assert_eq!(number(HERE), b"2248124608");
        assert_eq!(number(Ipv4Addr::BROADCAST), b"4294967295");
        assert_eq!(
            Replacements::address(Ipv4Addr::BROADCAST, RTSPS).text(What::UrlHost).unwrap(),
            b"255.255.255.255"
        );
    }

    /// Guards: it leaks as the host of rtsp_url.
    #[test]
    fn only_the_host_of_the_camera_changes() {
        for (before, after) in [
            (
                "rtsps://10.0.0.7:322/streaming/live/1",
                "rtsps://192.168.255.133:322/streaming/live/1",
            ),
            ("rtsp://10.0.0.7", "rtsp://192.168.255.133"),
            ("RTSPS://printer.lan/", "RTSPS://192.168.255.133/"),
            (
                "rtsps://bblp:co:de@10.0.0.7:322/x@y:1",
                "rtsps://bblp:co:de@192.168.255.133:322/x@y:1",
            ),
            ("rtsps://a@b@10.0.0.7/1", "rtsps://a@b@192.168.255.133/1"),
            ("rtsps:\\/\\/10.0.0.7:322\\/1", "rtsps:\\/\\/192.168.255.133:322\\/1"),
            ("rtsps:\\/\\/b:\\\"@10.0.0.7\\/1", "rtsps:\\/\\/b:\\\"@192.168.255.133\\/1"),
            ("rtsps://[fe80::1]:322/1", "rtsps://192.168.255.133:322/1"),
            ("rtsp://10.0.0.7?q", "rtsp://192.168.255.133?q"),
        ] {
            assert_eq!(at_once(url_report(before).as_bytes()), url_report(after));
        }
    }

    /// Where ports below 1024 are not allowed the proxy serves RTSPS on another one.
    #[test]
    fn the_cameras_port_becomes_the_proxys() {
        let by = |port| Replacements::address(Ipv4Addr::new(10, 0, 0, 9), port);
        for (url, port, expected) in [
            (
                "rtsps://192.168.7.9:322/streaming/live/1",
                10322,
                "rtsps://10.0.0.9:10322/streaming/live/1",
            ),
            (
                "rtsps://192.168.7.9:322/streaming/live/1",
                322,
                "rtsps://10.0.0.9:322/streaming/live/1",
            ),
            (
                "rtsps://192.168.7.9/streaming/live/1",
                10322,
                "rtsps://10.0.0.9:10322/streaming/live/1",
            ),
            ("rtsps://192.168.7.9/streaming/live/1", 322, "rtsps://10.0.0.9/streaming/live/1"),
            ("rtsps://u:p@192.168.7.9:6322/1", 322, "rtsps://u:p@10.0.0.9:322/1"),
        ] {
            let report = |url: &str| {
                format!(r#"{{"print":{{"command":"push_status","ipcam":{{"rtsp_url":"{url}"}}}}}}"#)
            };
            let text = report(url);
            let patches = classify(text.as_bytes()).patches;
            let by = by(port);
            let mut out = alloc::vec![0; patches.rewritten_len(text.len(), &by)];
            let len = Rewriting::new().write(text.as_bytes(), &patches, &by, &mut out);
            assert_eq!(core::str::from_utf8(&out[..len]), Ok(report(expected).as_str()));
        }
    }

    #[test]
    fn what_is_no_camera_url_is_left_alone() {
        for url in [
            "disable",
            "",
            "**REDACTED**",
            "http://10.0.0.7/",
            "rtsps:/10.0.0.7",
            "rtsps://",
            "rtsp:",
            "rtsps:///path",
            "rtsps://:322/",
            "rtsps://user@/",
            "rtsps://[fe80::1/",
            "rtsps://10\\u002e0.0.7/",
            "rtsps://\\\\",
            "://",
        ] {
            let report = url_report(url);
            assert_eq!(classify(report.as_bytes()).patches.as_slice(), [], "{url}");
            assert_eq!(at_once(report.as_bytes()), report);
        }
    }

    #[test]
    fn what_is_no_address_is_left_alone() {
        for ip in ["0", "-1", "1.5", "1e3", "4294967296", "\"50374848\"", "null", "[1]", "{}"] {
            let report = format!(r#"{{"print":{{"net":{{"info":[{{"ip":{ip}}}]}}}}}}"#);
            assert_eq!(classify(report.as_bytes()).patches.as_slice(), [], "{ip}");
        }
        for net in ["null", "[]", "{\"info\":{}}", "{\"info\":[1,[],\"ip\"]}", "1"] {
            let report = format!(r#"{{"print":{{"net":{net},"ipcam":{net}}}}}"#);
            assert_eq!(classify(report.as_bytes()).patches.as_slice(), [], "{net}");
        }
    }

    /// Guards: 0.0.0.0 stands in reports.
    #[test]
    fn an_unspecified_address_is_never_advertised() {
        let report = url_report("rtsps://10.0.0.7:322/");
        let by = Replacements::address(Ipv4Addr::UNSPECIFIED, RTSPS);
        assert_eq!(rewritten(report.as_bytes(), &by, 7), report.as_bytes());
    }

    #[test]
    fn a_signed_report_is_left_alone() {
        for (before, after) in [(r#""header":{},"#, ""), ("", r#","header":{}"#)] {
            let report =
                format!(r#"{{{before}"print":{{"net":{{"info":[{{"ip":50374848}}]}}}}{after}}}"#);
            assert_eq!(at_once(report.as_bytes()), report);
        }
    }

    #[test]
    fn addresses_in_an_ack_are_rewritten_too() {
        let ack = br#"{"print":{"command":"x","result":"success","net":{"info":[{"ip":9}]}}}"#;
        assert_eq!(classify(ack).kind, Report::Ack);
        assert!(at_once(ack).contains(r#"{"ip":2248124608}"#));
    }

    #[test]
    fn places_past_the_bound_are_left_and_counted() {
        let interfaces = alloc::vec![r#"{"ip":7}"#; MAX_PATCHES + 3].join(",");
        let report = format!(r#"{{"print":{{"net":{{"info":[{interfaces}]}}}}}}"#);
        let patches = classify(report.as_bytes()).patches;
        assert_eq!((patches.as_slice().len(), patches.missed()), (MAX_PATCHES, 3));
        let text = at_once(report.as_bytes());
        assert_eq!(text.matches("2248124608").count(), MAX_PATCHES);
        assert_eq!(text.matches(r#"{"ip":7}"#).count(), 3);
    }

    #[test]
    fn a_stored_answer_carries_the_clients_sequence_id() {
        let answer =
            br#"{"info":{"command":"get_version","sequence_id":"0","module":[{"sn":"X"}]}}"#;
        for id in ["\"20001\"", "7", "\"\""] {
            let id_of = SequenceId::new(id.as_bytes()).unwrap();
            let by = Replacements::address(HERE, RTSPS).with_sequence_id(id_of);
            let expected = String::from_utf8(answer.to_vec()).unwrap().replace("\"0\"", id);
            for piece in 1..answer.len() + 10 {
                assert_eq!(rewritten(answer, &by, piece), expected.as_bytes());
            }
        }
        assert_eq!(rewritten(answer, &Replacements::default(), 9), answer);
        for unfit in ["", " 1", "1 ", "1.0", "true", "\"a\"\"", "\"\n\"", "{}"] {
            assert_eq!(SequenceId::new(unfit.as_bytes()), None, "{unfit}");
        }
        assert!(SequenceId::new(&[b'1'; SEQUENCE_ID]).is_some());
        assert!(SequenceId::new(&[b'1'; SEQUENCE_ID + 1]).is_none());
    }

    #[test]
    fn an_outbox_without_room_loses_nothing() {
        let report = url_report("rtsps://10.0.0.7:322/");
        let patches = classify(report.as_bytes()).patches;
        let mut rewriting = Rewriting::new();
        let by = Replacements::address(HERE, RTSPS);
        assert_eq!(rewriting.write(report.as_bytes(), &patches, &by, &mut []), 0);
        assert_eq!(rewriting, Rewriting::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Guards: a rewritten report has another length than its head says.
        #[test]
        fn a_rewritten_report_differs_in_the_addresses_only(
            ips in prop::collection::vec(prop_oneof![Just(0u32), any::<u32>()], 0..MAX_PATCHES),
            user in "([a-z]{1,4}(:[a-z0-9]{1,8})?@)?", port in "(:[0-9]{1,5})?", path in "(/[a-z0-9]{0,6}){0,3}",
            to in any::<u32>().prop_filter("specified", |to| *to != 0),
            text in any::<String>(),
            pretty in any::<bool>(),
            piece in 1usize..64,
        ) {
            let to = Ipv4Addr::from(to);
            let report = |number: &dyn Fn(u32) -> u32, host: &str, port: &str| {
                let info: Vec<Oracle> =
                    ips.iter().map(|&ip| json!({"ip": number(ip), "mask": 1, "x": &text})).collect();
                let url = format!("rtsps://{user}{host}{port}{path}");
                json!({"print": {"command": "push_status", "t": &text,
                    "net": {"conf": 0, "info": info}, "ipcam": {"a": 1, "rtsp_url": url}}})
            };
            let before = report(&|ip| ip, "10.0.0.7", &port);
            let after = report(
                &|ip| if ip == 0 { 0 } else { u32::from_le_bytes(to.octets()) },
                &format!("{to}"),
                if port.is_empty() { "" } else { ":322" },
            );
            let write = |json| if pretty { serde_json::to_vec_pretty(json) } else { serde_json::to_vec(json) };
            let out = rewritten(&write(&before).unwrap(), &Replacements::address(to, RTSPS), piece);
            // Equal to the byte, and so equal as JSON.
            prop_assert_eq!(out, write(&after).unwrap());
        }

        #[test]
        fn patches_of_another_report_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80), piece in 1usize..20,
        ) {
            let other = classify(url_report("rtsps://10.0.0.7:322/").as_bytes()).patches;
            let mut rewriting = Rewriting::new();
            let by = Replacements::address(HERE, RTSPS);
            let mut all = Vec::<u8>::new();
            for _ in 0..bytes.len() + 20 {
                let mut out = alloc::vec![0; piece];
                let written = rewriting.write(&bytes, &other, &by, &mut out);
                all.extend(&out[..written]);
            }
            if bytes.len() < other.as_slice()[0].at as usize {
                prop_assert_eq!(all, bytes);
            }
        }
    }
}
