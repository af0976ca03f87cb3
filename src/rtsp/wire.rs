//! RTSP 1.0 on the wire: text messages, and packets interleaved with them (RFC 2326).
//!
//! ```text
//!   DESCRIBE rtsps://…/streaming/live/1 RTSP/1.0 ⏎ CSeq: 2 ⏎ ⏎        a message: head, and a body
//!   $ channel length length packet…                                     an interleaved packet (§10.12)
//! ```
//!
//! Both sides of the proxy parse with [`next`], which takes one piece off the front of the input and copies
//! nothing.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a head, first line and headers | [`MAX_HEAD`] bytes | [`Fault::HeadTooLong`] |
//! | a body | the caller's | [`Fault::BodyTooLong`] |
//! | a packet | the caller's | [`Piece::Oversized`], to be skipped |

#[cfg(test)]
mod tests;

use core::fmt::{self, Write};

/// Bytes in the longest head: a first line with its URL, and a dozen headers.
pub const MAX_HEAD: usize = 3072;

/// Bytes before the packet in an interleaved frame: `$`, the channel, and the length.
pub const FRAME_HEAD: usize = 4;

/// The first byte of an interleaved frame.
pub const DOLLAR: u8 = b'$';

/// The first piece of a peer's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'i> {
    /// No whole piece has arrived yet.
    More,
    /// A byte of an empty line between messages, which some players send.
    Blank,
    /// An interleaved packet.
    Packet {
        /// Its channel.
        channel: u8,
        /// Its bytes.
        bytes: &'i [u8],
    },
    /// The head of an interleaved frame whose packet exceeds the caller's bound.
    Oversized {
        /// Its channel.
        channel: u8,
        /// Bytes in the packet, which follow.
        len: usize,
    },
    /// A message.
    Message(Message<'i>),
}

/// A request or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'i> {
    /// The first line, without its end.
    pub line: &'i str,
    /// The headers, each with its line end.
    fields: &'i str,
    /// The body, of `Content-Length` bytes.
    pub body: &'i [u8],
}

/// Why input is not RTSP. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first byte or the first line is not RTSP.
    NotRtsp,
    /// The first line names another version than 1.0.
    Version,
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// `Content-Length` exceeds the caller's bound.
    BodyTooLong,
    /// A header has no colon, a length is not a number, or a head is not text.
    Malformed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRtsp => "not RTSP",
            Self::Version => "unsupported RTSP version",
            Self::HeadTooLong => "message head too long",
            Self::BodyTooLong => "message body too long",
            Self::Malformed => "malformed message head",
        })
    }
}

impl core::error::Error for Fault {}

/// Takes one piece off the front of `input`. Returns its bytes, and the piece.
///
/// Packets of up to `max_packet` bytes and bodies of up to `max_body` are returned whole.
///
/// # Errors
///
/// The input is not RTSP; the connection cannot go on.
pub fn next(input: &[u8], max_packet: usize, max_body: usize) -> Result<(usize, Piece<'_>), Fault> {
    match input.first() {
        None => Ok((0, Piece::More)),
        Some(&DOLLAR) => Ok(packet(input, max_packet)),
        Some(b'\r' | b'\n') => Ok((1, Piece::Blank)),
        Some(b'A'..=b'Z') => message(input, max_body),
        Some(_) => Err(Fault::NotRtsp),
    }
}

fn packet(input: &[u8], most: usize) -> (usize, Piece<'_>) {
    let Some((&[_, channel, high, low], rest)) = input.split_first_chunk::<FRAME_HEAD>() else {
        return (0, Piece::More);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > most {
        return (FRAME_HEAD, Piece::Oversized { channel, len });
    }
    match rest.get(..len) {
        Some(bytes) => (FRAME_HEAD + len, Piece::Packet { channel, bytes }),
        None => (0, Piece::More),
    }
}

fn message(input: &[u8], max_body: usize) -> Result<(usize, Piece<'_>), Fault> {
    let seen = input.get(..MAX_HEAD).unwrap_or(input);
    let Some(line_end) = seen.iter().position(|byte| *byte == b'\n') else {
        return unfinished(seen);
    };
    let line = text(seen.get(..line_end).unwrap_or_default())?.trim_end_matches('\r');
    check(line)?;
    let after = line_end + 1;
    let Some(fields_len) = fields_len(seen.get(after..).unwrap_or_default()) else {
        return unfinished(seen);
    };
    let fields = text(seen.get(after..after + fields_len).unwrap_or_default())?;
    let mut body_len = 0;
    for field in fields.lines() {
        let (name, value) = field.split_once(':').ok_or(Fault::Malformed)?;
        if name.trim_end().eq_ignore_ascii_case("Content-Length") {
            body_len = value.trim().parse().map_err(|_| Fault::Malformed)?;
        }
    }
    if body_len > max_body {
        return Err(Fault::BodyTooLong);
    }
    // The empty line: one byte, or two.
    let blank = after + fields_len;
    let blank_len = if seen.get(blank) == Some(&b'\r') { 2 } else { 1 };
    let body_at = blank + blank_len;
    match input.get(body_at..body_at + body_len) {
        Some(body) => Ok((body_at + body_len, Piece::Message(Message { line, fields, body }))),
        None => Ok((0, Piece::More)),
    }
}

/// [`Piece::More`] for a head whose end has not arrived, if it may still arrive.
const fn unfinished(seen: &[u8]) -> Result<(usize, Piece<'_>), Fault> {
    if seen.len() == MAX_HEAD { Err(Fault::HeadTooLong) } else { Ok((0, Piece::More)) }
}

/// Bytes in the headers, up to the empty line that ends them; `None` if that has not arrived.
fn fields_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return Some(at);
        }
        at += rest.iter().position(|byte| *byte == b'\n')? + 1;
    }
}

/// The bytes as text, if it has no control characters but tabs and line ends. A CR must be part of a line end:
/// it would end a line where the text is sent on.
fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let mut behind = bytes.iter().skip(1);
    for byte in bytes {
        let next = behind.next();
        let is_fine = match byte {
            b'\r' => matches!(next, Some(b'\r' | b'\n') | None),
            b'\n' | b'\t' => true,
            _ => !byte.is_ascii_control(),
        };
        if !is_fine {
            return Err(Fault::Malformed);
        }
    }
    core::str::from_utf8(bytes).map_err(|_| Fault::Malformed)
}

/// Checks that a first line is a request's or a response's, of version 1.0.
fn check(line: &str) -> Result<(), Fault> {
    if line.starts_with("RTSP/1.0 ") || line.ends_with(" RTSP/1.0") {
        return Ok(());
    }
    let version = line.rsplit(' ').next().unwrap_or_default();
    let other = line.starts_with("RTSP/") || version.starts_with("RTSP/");
    Err(if other { Fault::Version } else { Fault::NotRtsp })
}

impl<'i> Message<'i> {
    /// The value of the first header of this name; case does not matter.
    pub fn field(&self, name: &str) -> Option<&'i str> {
        self.fields_named(name).next()
    }

    /// The values of all headers of this name, in order.
    pub fn fields_named(&self, name: &str) -> impl Iterator<Item = &'i str> {
        self.fields
            .lines()
            .filter_map(|field| field.split_once(':'))
            .filter(move |(its, _)| its.trim_end().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The value of CSeq (RFC 2326 §12.17), if it is a number.
    pub fn cseq(&self) -> Option<u32> {
        self.field("CSeq")?.parse().ok()
    }

    /// A request's method and URL; `None` if it is a response.
    pub fn request(&self) -> Option<(Method, &'i str)> {
        let rest = self.line.strip_suffix(" RTSP/1.0")?;
        let (method, url) = rest.split_once(' ')?;
        Some((Method::of(method), url.trim()))
    }

    /// A response's status code; `None` for a request, or without a code.
    pub fn status(&self) -> Option<u16> {
        self.line.strip_prefix("RTSP/1.0 ")?.get(..3)?.parse().ok()
    }
}

/// A request's method (RFC 2326 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks for the methods that are served.
    Options,
    /// Asks for the description of the stream.
    Describe,
    /// Sets a track up, with a transport.
    Setup,
    /// Begins or continues to play.
    Play,
    /// Pauses.
    Pause,
    /// Asks for a parameter; without one, keeps the session alive.
    GetParameter,
    /// Sets a parameter.
    SetParameter,
    /// Ends the session.
    Teardown,
    /// Another method.
    Other,
}

impl Method {
    /// The methods that players may use, by their names.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("OPTIONS", Self::Options),
        ("DESCRIBE", Self::Describe),
        ("SETUP", Self::Setup),
        ("PLAY", Self::Play),
        ("PAUSE", Self::Pause),
        ("GET_PARAMETER", Self::GetParameter),
        ("SET_PARAMETER", Self::SetParameter),
        ("TEARDOWN", Self::Teardown),
    ];

    fn of(name: &str) -> Self {
        let known = Self::NAMES.iter().find(|(its, _)| *its == name);
        known.map_or(Self::Other, |(_, method)| *method)
    }

    /// The method's name on the wire; empty for [`Method::Other`].
    pub fn name(self) -> &'static str {
        let known = Self::NAMES.iter().find(|(_, method)| *method == self);
        known.map_or("", |(name, _)| name)
    }
}

/// A transport in a `Transport` header (RFC 2326 §12.39).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved, on these channels.
    Interleaved(Channels),
    /// Interleaved, on channels of the server's choice.
    AnyChannels,
    /// UDP, or another transport that is not supported.
    Other,
}

/// The interleaved channels of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// The channel of its RTP packets.
    pub rtp: u8,
    /// The channel of its RTCP packets.
    pub rtcp: u8,
}

impl Transport {
    /// Parses a header with one or more transports, best first: the first interleaved one, if there is one.
    pub fn parse(value: &str) -> Self {
        let ways = value.split(',').map(str::trim);
        ways.map(Self::parse_one).find(|way| *way != Self::Other).unwrap_or(Self::Other)
    }

    fn parse_one(way: &str) -> Self {
        let mut parts = way.split(';').map(str::trim);
        if !parts.next().is_some_and(|spec| spec.eq_ignore_ascii_case("RTP/AVP/TCP")) {
            return Self::Other;
        }
        let named = parts.find_map(|part| part.strip_prefix("interleaved="));
        let Some(named) = named else { return Self::AnyChannels };
        let (rtp, rtcp) = named.split_once('-').unwrap_or((named, ""));
        let Ok(rtp) = rtp.trim().parse::<u8>() else { return Self::Other };
        match rtcp.trim().parse().ok().or(rtp.checked_add(1)) {
            Some(rtcp) if rtcp != rtp => Self::Interleaved(Channels { rtp, rtcp }),
            Some(_) | None => Self::Other,
        }
    }
}

/// Writes `packet` as an interleaved frame (RFC 2326 §10.12). Returns the frame's bytes; 0 if `out` has no room
/// for it.
pub fn write_frame(channel: u8, packet: &[u8], out: &mut [u8]) -> usize {
    let end = FRAME_HEAD + packet.len();
    let room = out.get_mut(..end).and_then(|room| room.split_first_chunk_mut::<FRAME_HEAD>());
    let Some((head, body)) = room else { return 0 };
    let [high, low] = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes();
    *head = [DOLLAR, channel, high, low];
    body.copy_from_slice(packet);
    end
}

/// Writes text into a buffer, and fails when there is no room.
pub struct Text<'o> {
    room: &'o mut [u8],
    /// Bytes written so far.
    pub len: usize,
}

impl<'o> Text<'o> {
    /// An empty text.
    pub const fn new(room: &'o mut [u8]) -> Self {
        Self { room, len: 0 }
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.room.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
