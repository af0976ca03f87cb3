//! Frames of `detect`, and the JSON in them ([`protocol`](crate::protocol#detect)).
//!
//! ```text
//! A5 A5 | total length, 16 bits, little-endian | JSON | A7 A7
//! → {"login":{"command":"detect","sequence_id":"20000"}}
//! ← {"login":{"command":"detect","sequence_id":"20000","id":"<serial>","model":"N1","name":"3DP-030-488",
//!    "version":"01.07.02.00","bind":"free","connect":"lan","dev_cap":1}}
//! ```
//!
//! A `sequence_id` is a string or an integer, and is answered as it was sent.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a frame | [`MAX_FRAME`] | [`Fault::Length`] |
//! | objects and arrays in it | [`MAX_NESTED`] | [`Fault::Nested`] |
//! | a `sequence_id` as it is written | [`MAX_ID`] | [`Fault::Json`] |

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json_core::str::{EscapedStr, EscapedStringFragment};

/// Longest frame, in bytes. A request for account binding, the longest that is known, has some 600.
pub const MAX_FRAME: usize = 1024;

/// Bytes of a frame around its JSON.
pub const FRAMING: usize = 6;

/// Objects and arrays in a message, at most; answers have two. Brackets in strings count as well: serde-json-core
/// calls itself once a level, and passes over values that are no JSON, so that only a count of all is a bound.
pub const MAX_NESTED: usize = 32;

/// Longest `sequence_id` as it is written, in bytes.
pub const MAX_ID: usize = 32;

/// Bytes before the length.
const HEAD: [u8; 2] = [0xa5; 2];

/// Bytes behind the JSON.
const TAIL: [u8; 2] = [0xa7; 2];

/// What a TLS connection begins with: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes do not begin like a frame.
    Head,
    /// The bytes begin like a TLS connection.
    Tls,
    /// The length is shorter than the framing, or longer than [`MAX_FRAME`].
    Length(u16),
    /// The frame does not end where its length says.
    Tail,
    /// The content is not JSON of the form that is needed.
    Json,
    /// The content has more objects and arrays than [`MAX_NESTED`].
    Nested,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("not a frame of detect"),
            Self::Tls => f.write_str("TLS on the port without TLS"),
            Self::Length(len) => {
                write!(f, "frame length {len}; {FRAMING} to {MAX_FRAME} bytes are accepted")
            }
            Self::Tail => f.write_str("frame does not end where its length says"),
            Self::Json => f.write_str("frame holds no valid message"),
            Self::Nested => write!(f, "JSON with more than {MAX_NESTED} objects and arrays"),
        }
    }
}

impl core::error::Error for Fault {}

/// The JSON in the frame at the front of `input`. `None` while it is incomplete.
///
/// # Errors
///
/// There is no frame at the front of `input`.
pub fn frame(input: &[u8]) -> Result<Option<&[u8]>, Fault> {
    if input.first() == Some(&TLS_HANDSHAKE) {
        return Err(Fault::Tls);
    }
    if input.iter().zip(HEAD).any(|(got, wanted)| *got != wanted) {
        return Err(Fault::Head);
    }
    let Some((_, [low, high])) = input
        .split_first_chunk::<2>()
        .and_then(|(head, rest)| rest.first_chunk::<2>().map(|len| (head, *len)))
    else {
        return Ok(None);
    };
    let said = u16::from_le_bytes([low, high]);
    let len = usize::from(said);
    if !(FRAMING..=MAX_FRAME).contains(&len) {
        return Err(Fault::Length(said));
    }
    let Some(whole) = input.get(..len) else { return Ok(None) };
    let json = whole.get(HEAD.len() + 2..).and_then(|rest| rest.strip_suffix(&TAIL));
    json.map(Some).ok_or(Fault::Tail)
}

/// Writes `message` into `out` as a frame, and returns its length. `None` if it does not fit.
fn write_frame(message: &impl Serialize, out: &mut [u8]) -> Option<usize> {
    let most = out.len().min(MAX_FRAME);
    let out = out.get_mut(..most)?;
    let json = out.get_mut(HEAD.len() + 2..most.checked_sub(TAIL.len())?)?;
    let len = serde_json_core::to_slice(message, json).ok()? + FRAMING;
    out.get_mut(..2)?.copy_from_slice(&HEAD);
    out.get_mut(2..4)?.copy_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
    out.get_mut(len - TAIL.len()..len)?.copy_from_slice(&TAIL);
    Some(len)
}

/// What is in a frame: one message.
#[derive(Deserialize, Serialize)]
struct Envelope<M> {
    login: M,
}

/// Reads the message of a frame.
fn parse<'a, M: Deserialize<'a>>(json: &'a [u8]) -> Result<M, Fault> {
    if json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() > MAX_NESTED {
        return Err(Fault::Nested);
    }
    // OrcaSlicer on Linux ends its JSON with a NUL.
    let end = json.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = json.get(..end).unwrap_or_default();
    let (envelope, _) =
        serde_json_core::from_slice::<Envelope<M>>(text).map_err(|_| Fault::Json)?;
    Ok(envelope.login)
}

/// The identifier of a request, which its answer repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceId {
    /// A string as it is written, without its quotes.
    Text(heapless::String<MAX_ID>),
    /// An integer.
    Number(i64),
}

impl SequenceId {
    /// `None` for a string that is too long, or is none that can be repeated.
    fn text(text: EscapedStr<'_>) -> Option<Self> {
        let is_valid = text.fragments().all(|fragment| fragment.is_ok());
        let is_visible = !text.0.contains(char::is_control);
        heapless::String::try_from(text.0).ok().filter(|_| is_valid && is_visible).map(Self::Text)
    }
}

impl Default for SequenceId {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Serialize for SequenceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => EscapedStr(text).serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Which printer this is.
    Detect,
    /// To bind the printer to an account.
    Login,
    /// Anything else.
    Other,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub command: Command,
    /// What the answer repeats.
    pub sequence_id: SequenceId,
}

/// A request with an identifier of one of its two types.
#[derive(Deserialize)]
#[serde(bound(deserialize = "I: Deserialize<'de>"))]
struct Asked<'a, I> {
    command: &'a str,
    sequence_id: Option<I>,
}

impl Request {
    /// Reads the JSON of a frame.
    ///
    /// # Errors
    ///
    /// The JSON is not a request.
    pub fn parse(json: &[u8]) -> Result<Self, Fault> {
        let of = |command: &str, sequence_id| Self {
            command: match command {
                "detect" => Command::Detect,
                "login" => Command::Login,
                _ => Command::Other,
            },
            sequence_id,
        };
        match parse::<Asked<'_, i64>>(json) {
            Ok(asked) => {
                let id = asked.sequence_id.map_or_else(SequenceId::default, SequenceId::Number);
                Ok(of(asked.command, id))
            }
            Err(Fault::Json) => {
                let asked = parse::<Asked<'_, EscapedStr<'_>>>(json)?;
                let id = match asked.sequence_id {
                    Some(id) => SequenceId::text(id).ok_or(Fault::Json)?,
                    None => SequenceId::default(),
                };
                Ok(of(asked.command, id))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Writes the frame of a request for `detect` into `out`. `None` if it does not fit.
    pub fn write_detect(out: &mut [u8]) -> Option<usize> {
        #[derive(Serialize)]
        struct Detect {
            command: &'static str,
            sequence_id: &'static str,
        }
        write_frame(&Envelope { login: Detect { command: "detect", sequence_id: "20000" } }, out)
    }
}

/// The answer to `detect`: a printer that is bound to no account and serves the LAN.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The request's.
    pub sequence_id: &'a SequenceId,
    /// The printer's serial number.
    pub id: &'a str,
    /// Its model's code.
    pub model: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The version of its firmware.
    pub version: &'a str,
}

impl Reply<'_> {
    /// Writes the frame into `out`. `None` if it does not fit.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        #[derive(Serialize)]
        struct Detected<'a> {
            command: &'static str,
            sequence_id: &'a SequenceId,
            id: &'a str,
            model: &'a str,
            name: &'a str,
            version: &'a str,
            bind: &'static str,
            connect: &'static str,
            dev_cap: u8,
        }
        let Self { sequence_id, id, model, name, version } = *self;
        let login = Detected {
            command: "detect",
            sequence_id,
            id,
            model,
            name,
            version,
            bind: "free",
            connect: "lan",
            dev_cap: 1,
        };
        write_frame(&Envelope { login }, out)
    }
}

/// Writes the frame of the answer to a request for account binding into `out`: it failed, in the words of a P1 in LAN
/// mode. `None` if it does not fit.
pub fn write_refusal(sequence_id: &SequenceId, out: &mut [u8]) -> Option<usize> {
    #[derive(Serialize)]
    struct Refused<'a> {
        command: &'static str,
        sequence_id: &'a SequenceId,
        session_id: i8,
        status: &'static str,
        reason: &'static str,
    }
    let login = Refused {
        command: "login_report",
        sequence_id,
        session_id: -1,
        status: "FAILURE",
        reason: r#"{"devmsg":"LAN-ONLY enabled","err_code":83902489}"#,
    };
    write_frame(&Envelope { login }, out)
}

/// A printer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The printer's serial number, model, name and version.
    Detected(Detected<'a>),
    /// The printer refuses to answer.
    Refused,
    /// Anything else.
    Other,
}

/// Contents of a printer's answer. A member that is missing is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detected<'a> {
    /// Its serial number.
    pub id: Text<'a>,
    /// Its model's code.
    pub model: Text<'a>,
    /// Its name.
    pub name: Text<'a>,
    /// The version of its firmware.
    pub version: Text<'a>,
    /// `free` or `occupied`.
    pub bind: Text<'a>,
    /// `lan` or `cloud`.
    pub connect: Text<'a>,
}

/// A string as it is written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(EscapedStr<'a>);

impl Text<'_> {
    /// The string that is meant. `None` if it is longer than `N` bytes, or damaged.
    pub fn meant<const N: usize>(self) -> Option<heapless::String<N>> {
        let mut text = heapless::String::new();
        for fragment in self.0.fragments() {
            match fragment.ok()? {
                EscapedStringFragment::NotEscaped(part) => text.push_str(part).ok()?,
                EscapedStringFragment::Escaped(c) => text.push(c).ok()?,
            }
        }
        Some(text)
    }
}

impl<'a> Answer<'a> {
    /// Reads the JSON of a frame.
    ///
    /// # Errors
    ///
    /// The JSON is not an answer.
    pub fn parse(json: &'a [u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Said<'a> {
            command: &'a str,
            #[serde(borrow)]
            id: Option<EscapedStr<'a>>,
            model: Option<EscapedStr<'a>>,
            name: Option<EscapedStr<'a>>,
            version: Option<EscapedStr<'a>>,
            bind: Option<EscapedStr<'a>>,
            connect: Option<EscapedStr<'a>>,
        }
        let said = parse::<Said<'a>>(json)?;
        let text = |text: Option<EscapedStr<'a>>| Text(text.unwrap_or_default());
        Ok(match said.command {
            "detect" => Self::Detected(Detected {
                id: text(said.id),
                model: text(said.model),
                name: text(said.name),
                version: text(said.version),
                bind: text(said.bind),
                connect: text(said.connect),
            }),
            "login_report" => Self::Refused,
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A frame as captured from an A1 mini, with the length that it states.
    const CAPTURED: &[u8] =
        b"\xa5\xa5\x3a\x00{\"login\":{\"command\":\"detect\",\"sequence_id\":\"20004\"}}\xa7\xa7";

    fn framed(json: &[u8]) -> Vec<u8> {
        let len = u16::try_from(json.len() + FRAMING).unwrap();
        [&HEAD[..], &len.to_le_bytes(), json, &TAIL].concat()
    }

    fn id(text: &str) -> SequenceId {
        SequenceId::Text(text.try_into().unwrap())
    }

    fn asked(json: &str) -> Result<Request, Fault> {
        let bytes = framed(json.as_bytes());
        Request::parse(frame(&bytes).unwrap().unwrap())
    }

    #[test]
    fn a_captured_request_is_read_once_it_is_complete() {
        assert_eq!(CAPTURED.len(), 0x3a);
        for cut in 0..CAPTURED.len() {
            assert_eq!(frame(&CAPTURED[..cut]), Ok(None), "cut at {cut}");
        }
        for more in [&b""[..], CAPTURED, b"\0"] {
            let json = frame(&[CAPTURED, more].concat()).map(|json| json.map(<[u8]>::to_vec));
            let request = Request::parse(&json.unwrap().unwrap()).unwrap();
            assert_eq!(request, Request { command: Command::Detect, sequence_id: id("20004") });
        }
        let mut own = [0; MAX_FRAME];
        let len = Request::write_detect(&mut own).unwrap();
        let own = Request::parse(frame(&own[..len]).unwrap().unwrap()).unwrap();
        assert_eq!(own.command, Command::Detect);
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused_as_early_as_possible() {
        for (bytes, fault) in [
            (&b"\x16\x03\x01"[..], Fault::Tls),
            (b"GET / HTTP/1.1\r\n", Fault::Head),
            (b"\0", Fault::Head),
            (b"\xa5\xa7", Fault::Head),
            (b"\xa5\xa5\0\0", Fault::Length(0)),
            (b"\xa5\xa5\x05\0", Fault::Length(5)),
            (b"\xa5\xa5\x01\x04", Fault::Length(1025)),
            (b"\xa5\xa5\xff\xff", Fault::Length(u16::MAX)),
            (b"\xa5\xa5\x06\0\xa7\xa6", Fault::Tail),
            (b"\xa5\xa5\x08\0{}\xa7\xa6", Fault::Tail),
            // The length is shorter than the JSON.
            (b"\xa5\xa5\x10\0{\"login\":{}}\xa7\xa7", Fault::Tail),
        ] {
            assert_eq!(frame(bytes), Err(fault), "{}", bytes.escape_ascii());
            let earlier = &bytes[..bytes.len() - 1];
            let before = frame(earlier);
            let is_early = before == Ok(None) || before == Err(fault);
            assert!(is_early, "{}", earlier.escape_ascii());
        }
        assert_eq!(frame(&framed(&[b' '; MAX_FRAME - FRAMING])).map(|it| it.is_some()), Ok(true));
    }

    #[test]
    fn a_sequence_id_is_answered_as_it_was_sent() {
        for written in ["\"20000\"", "3021", "-1", "\"\"", r#""a\"b\u00fc""#, "\"\u{fc}\""] {
            let json = format!(r#"{{"login":{{"sequence_id":{written},"command":"detect"}}}}"#);
            let request = asked(&json).unwrap();
            let reply = Reply {
                sequence_id: &request.sequence_id,
                id: "01P00A3C1200417",
                model: "C12",
                name: "the \"good\" \\ printer\n",
                version: "01.09.01.00",
            };
            let mut out = [0; MAX_FRAME];
            let len = reply.write(&mut out).unwrap();
            let json = frame(&out[..len]).unwrap().unwrap();
            let text = core::str::from_utf8(json).unwrap();
            assert!(text.contains(&format!("\"sequence_id\":{written},")), "{text}");
            let seen: serde_json::Value = serde_json::from_slice(json).unwrap();
            assert_eq!(seen["login"]["name"], "the \"good\" \\ printer\n");
            let Ok(Answer::Detected(told)) = Answer::parse(json) else { panic!("{text}") };
            assert_eq!(&*told.name.meant::<64>().unwrap(), "the \"good\" \\ printer\n");
            assert_eq!(&*told.bind.meant::<8>().unwrap(), "free");
            let len = write_refusal(&request.sequence_id, &mut out).unwrap();
            let json = frame(&out[..len]).unwrap().unwrap();
            assert_eq!(Answer::parse(json), Ok(Answer::Refused));
            let seen: serde_json::Value = serde_json::from_slice(json).unwrap();
            assert_eq!(seen["login"]["status"], "FAILURE");
        }
        let without = asked(r#"{"login":{"command":"detect"}}"#).unwrap();
        assert_eq!(without.sequence_id, SequenceId::Number(0));
    }

    #[test]
    fn other_commands_and_categories_are_told_apart() {
        let command = |json: &str| asked(json).map(|request| request.command);
        let login = r#"{"login":{"command":"login","sequence_id":"1","iot":{"emqx":"x","a":[1]}}}"#;
        assert_eq!(command(login), Ok(Command::Login));
        for other in ["", "det\\u0065ct", "DETECT", "reboot"] {
            let json = format!(r#"{{"login":{{"command":"{other}"}}}}"#);
            assert_eq!(command(&json), Ok(Command::Other), "{other}");
        }
        for bad in [
            "",
            "{}",
            "[]",
            "\0",
            "null",
            r#"{"login":[]}"#,
            r#"{"login":{}}"#,
            r#"{"login":{"command":1}}"#,
            r#"{"login":{"command":"detect"}}x"#,
            r#"{"login":{"command":"detect"}"#,
            r#"{"login":{"command":"detect","sequence_id":1.5}}"#,
            r#"{"login":{"command":"detect","sequence_id":[]}}"#,
            r#"{"login":{"command":"detect","sequence_id":99999999999999999999}}"#,
            r#"{"login":{"command":"detect","sequence_id":"\q"}}"#,
            r#"{"login":{"command":"detect","command":"login"}}"#,
            r#"{"print":{"command":"detect"}}"#,
            "{\"login\":{\"command\":\"detect\",\"sequence_id\":\"a\nb\"}}",
        ] {
            assert_eq!(command(bad), Err(Fault::Json), "{bad}");
        }
        let id = |len| format!(r#"{{"login":{{"command":"detect","sequence_id":"{len}"}}}}"#);
        assert_eq!(command(&id("1".repeat(MAX_ID))), Ok(Command::Detect));
        assert_eq!(command(&id("1".repeat(MAX_ID + 1))), Err(Fault::Json));
        // OrcaSlicer on Linux.
        assert_eq!(command("{\"login\":{\"command\":\"detect\"}}\0"), Ok(Command::Detect));
    }

    #[test]
    fn nesting_never_reaches_the_parser_that_recurses() {
        let deep = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"login":{{"command":"detect","x":{open}{close}}}}}"#)
        };
        assert!(asked(&deep(MAX_NESTED - 2)).is_ok());
        assert_eq!(asked(&deep(MAX_NESTED - 1)), Err(Fault::Nested));
        assert_eq!(asked(&deep(450)), Err(Fault::Nested));
        // serde-json-core takes `a"` for a value, so that what looks like a string here is none.
        let hidden = format!(r#"{{"login":{{"x":a","y":{}}}}}"#, "[".repeat(900));
        assert_eq!(asked(&hidden), Err(Fault::Nested));
    }

    #[test]
    fn what_a_printer_leaves_out_is_empty() {
        let told = br#"{"login":{"command":"detect","id":"X","dev_cap":1,"sequence_id":3021}}"#;
        let Ok(Answer::Detected(told)) = Answer::parse(told) else { panic!() };
        assert_eq!(&*told.id.meant::<4>().unwrap(), "X");
        for left_out in [told.model, told.name, told.version, told.bind, told.connect] {
            assert!(left_out.meant::<4>().unwrap().is_empty());
        }
        let long = br#"{"login":{"command":"detect","name":"12345","id":"\ud800"}}"#;
        let Ok(Answer::Detected(told)) = Answer::parse(long) else { panic!() };
        assert_eq!(told.name.meant::<4>(), None);
        assert_eq!(told.id.meant::<64>(), None, "half a pair is no character");
        let other = br#"{"login":{"command":"wait_auth"}}"#;
        assert_eq!(Answer::parse(other), Ok(Answer::Other));
        assert_eq!(Answer::parse(b"[]"), Err(Fault::Json));
    }

    #[test]
    fn a_frame_longer_than_can_be_read_is_not_written() {
        let name = [b'x'; MAX_FRAME];
        let name = core::str::from_utf8(&name).unwrap();
        let sequence_id = &SequenceId::default();
        let reply = Reply { sequence_id, id: "", model: "", name, version: "" };
        assert_eq!(reply.write(&mut [0; 4 * MAX_FRAME]), None);
    }

    #[test]
    fn an_answer_that_does_not_fit_is_not_written() {
        let reply = Reply { sequence_id: &id("1"), id: "X", model: "C12", name: "", version: "01" };
        let mut out = [0; MAX_FRAME];
        let len = reply.write(&mut out).unwrap();
        assert_eq!(reply.write(&mut out[..len]), Some(len));
        for short in 0..len {
            assert_eq!(reply.write(&mut out[..short]), None, "{short}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn damaged_messages_never_panic(
            at in 0..CAPTURED.len(), byte in any::<u8>(), tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut damaged = [CAPTURED, &tail].concat();
            damaged[at] = byte;
            if let Ok(Some(json)) = frame(&damaged) {
                _ = Request::parse(json);
                _ = Answer::parse(json);
            }
        }
    }
}
