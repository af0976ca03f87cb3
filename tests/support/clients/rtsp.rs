//! An RTSP client that sends what a test asks for, right or wrong, and shares no codec with the proxy.
//!
//! The client reads responses, requests and interleaved frames as they come, each within [`TIMEOUT`], and puts
//! what came in RTP packets together again.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a head, or a body | [`MAX_HEAD`] bytes | a panic |
//! | frames set aside while a response is awaited | [`MAX_ASIDE`] | a panic |
//! | anything to come | [`TIMEOUT`] | a panic |

use core::time::Duration;
use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use printer::rtsp::digest::md5;

/// How long anything may take to come.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest head and the longest body, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Frames that may come before a response.
const MAX_ASIDE: usize = 20_000;

/// The user of every printer.
const USER: &str = "bblp";

/// Something that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Response(Response),
    /// A request of the server's: its first line.
    Request(String),
    Frame(Frame),
    /// The end of the stream, in order or not.
    End,
}

/// An interleaved frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) channel: u8,
    pub(crate) bytes: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// The values of all headers of this name.
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.as_str())
    }

    /// The session's id, without its timeout.
    pub(crate) fn session(&self) -> Option<&str> {
        self.header("session").map(|value| value.split(';').next().unwrap().trim())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }
}

/// How a client proves that it knows the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// RFC 2069: no `qop`.
    Md5,
    /// RFC 7616 with `qop=auth`, if the server offers it.
    Md5Qop,
    Sha256,
    Basic,
}

/// A client over any stream.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    inbox: Vec<u8>,
    aside: VecDeque<Heard>,
    number: u32,
    /// Header lines of every request, behind CSeq.
    pub(crate) headers: String,
    known: Option<(Scheme, String)>,
    challenge: Option<String>,
    pub(crate) session: Option<String>,
    /// Of the track, as SETUP wants it.
    pub(crate) track: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client that has sent nothing yet.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            aside: VecDeque::new(),
            number: 0,
            headers: String::new(),
            known: None,
            challenge: None,
            session: None,
            track: String::new(),
        }
    }

    /// Answers challenges with this code from now on.
    pub(crate) fn knowing(mut self, scheme: Scheme, code: &str) -> Self {
        self.known = Some((scheme, code.to_owned()));
        self
    }

    /// Puts these bytes on the wire.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(TIMEOUT, sent).await.expect("it takes what it is sent").expect("it is still there");
    }

    /// The same, to a peer that may have disconnected; returns whether it was written.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        matches!(timeout(TIMEOUT, sent).await, Ok(Ok(())))
    }

    /// A request's bytes, with the next number.
    pub(crate) fn written(&mut self, method: &str, uri: &str, headers: &str) -> Vec<u8> {
        self.number += 1;
        let mut text = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n", self.number);
        if let Some(session) = &self.session {
            text.push_str(&format!("Session: {session}\r\n"));
        }
        if let Some((scheme, code)) = &self.known {
            match (&self.challenge, scheme) {
                (Some(challenge), _) => {
                    text.push_str(&proof(*scheme, challenge, code, method, uri));
                }
                (None, Scheme::Basic) => text.push_str(&basic(code)),
                (None, Scheme::Md5 | Scheme::Md5Qop | Scheme::Sha256) => {}
            }
        }
        text.push_str(&self.headers);
        text.push_str(headers);
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// Asks once, and answers no challenge.
    pub(crate) async fn ask(&mut self, method: &str, uri: &str, headers: &str) -> Response {
        let bytes = self.written(method, uri, headers);
        self.send(&bytes).await;
        self.response().await
    }

    /// Asks; if that is answered by a challenge, once more.
    pub(crate) async fn request(&mut self, method: &str, uri: &str, headers: &str) -> Response {
        let response = self.ask(method, uri, headers).await;
        if response.status != 401 || self.known.is_none() {
            return response;
        }
        let scheme = self.known.as_ref().unwrap().0;
        let offers = response.headers("www-authenticate");
        let Some(challenge) = offers.into_iter().find(|offer| fits(scheme, offer)) else {
            return response;
        };
        self.challenge = Some(challenge.to_owned());
        self.ask(method, uri, headers).await
    }

    /// DESCRIBE; the track is remembered.
    pub(crate) async fn describe(&mut self, uri: &str) -> Response {
        let response = self.request("DESCRIBE", uri, "Accept: application/sdp\r\n").await;
        self.takes_track(&response, uri);
        response
    }

    /// Remembers the track that a description names.
    pub(crate) fn takes_track(&mut self, response: &Response, uri: &str) {
        let base = response.header("content-base").unwrap_or(uri).trim_end_matches('/').to_owned();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let track = text
            .split("m=video")
            .nth(1)
            .and_then(|media| media.lines().find_map(|line| line.strip_prefix("a=control:")));
        self.track = match track {
            Some(whole) if whole.contains("://") => whole.to_owned(),
            Some(part) => format!("{base}/{part}"),
            None => base,
        };
    }

    /// SETUP of the described track on these channels; the session is remembered.
    pub(crate) async fn setup(&mut self, channels: &str) -> Response {
        let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={channels}\r\n");
        let track = self.track.clone();
        let response = self.request("SETUP", &track, &transport).await;
        self.session = response.session().map(str::to_owned);
        response
    }

    /// DESCRIBE, SETUP on channels 0 and 1, PLAY, all answered 200.
    pub(crate) async fn play(&mut self, uri: &str) -> Response {
        let described = self.describe(uri).await;
        assert_eq!(described.status, 200, "DESCRIBE: {described:?}");
        let set_up = self.setup("0-1").await;
        assert_eq!(set_up.status, 200, "SETUP: {set_up:?}");
        let played = self.request("PLAY", uri, "Range: npt=0.000-\r\n").await;
        assert_eq!(played.status, 200, "PLAY: {played:?}");
        played
    }

    /// The next response. What comes before it is set aside.
    pub(crate) async fn response(&mut self) -> Response {
        loop {
            match self.read().await {
                Heard::Response(response) => return response,
                Heard::End => panic!("it has closed instead of answering"),
                other @ (Heard::Request(_) | Heard::Frame(_)) => {
                    assert!(self.aside.len() < MAX_ASIDE, "nothing but frames");
                    self.aside.push_back(other);
                }
            }
        }
    }

    /// What comes next, or came before a response.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.aside.pop_front() {
            Some(heard) => heard,
            None => self.read().await,
        }
    }

    /// What comes next, if anything does within this time. What has come in part is not lost.
    pub(crate) async fn next_within(&mut self, within: Duration) -> Option<Heard> {
        timeout(within, self.next()).await.ok()
    }

    /// The next interleaved frame. Requests of the server's are passed over.
    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            match self.next().await {
                Heard::Frame(frame) => return frame,
                Heard::Request(_) => {}
                other @ (Heard::Response(_) | Heard::End) => panic!("{other:?}, no frame"),
            }
        }
    }

    /// Reads until the stream ends; what came.
    pub(crate) async fn rest(&mut self) -> Vec<Heard> {
        let mut rest = Vec::new();
        loop {
            match self.next().await {
                Heard::End => return rest,
                heard @ (Heard::Response(_) | Heard::Request(_) | Heard::Frame(_)) => {
                    assert!(rest.len() < MAX_ASIDE, "it does not end");
                    rest.push(heard);
                }
            }
        }
    }

    async fn read(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.parsed() {
                return heard;
            }
            let mut piece = vec![0; 16 * 1024];
            let read = timeout(TIMEOUT, self.stream.read(&mut piece)).await;
            match read.expect("something within a minute") {
                Ok(0) | Err(_) => {
                    assert!(self.inbox.len() <= 4 * MAX_HEAD, "half a message is that long");
                    return Heard::End;
                }
                Ok(len) => self.inbox.extend_from_slice(&piece[..len]),
            }
        }
    }

    /// Takes bytes that came some other way than over the stream.
    pub(crate) fn demand(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }

    /// What has come in whole, if anything has.
    pub(crate) fn parsed(&mut self) -> Option<Heard> {
        if self.inbox.first() == Some(&b'$') {
            let [_, channel, high, low] = *self.inbox.first_chunk()?;
            let end = 4 + usize::from(u16::from_be_bytes([high, low]));
            let bytes = self.inbox.get(4..end)?.to_vec();
            self.inbox.drain(..end);
            return Some(Heard::Frame(Frame { channel, bytes }));
        }
        let Some(end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") else {
            assert!(self.inbox.len() <= MAX_HEAD, "a head without an end");
            return None;
        };
        let head = String::from_utf8(self.inbox[..end].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("a header {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        assert!(length <= MAX_HEAD, "a body of {length} bytes");
        let body = self.inbox.get(end + 4..end + 4 + length)?.to_vec();
        self.inbox.drain(..end + 4 + length);
        let Some(status) = first.strip_prefix("RTSP/1.0 ") else {
            return Some(Heard::Request(first));
        };
        let (status, reason) = status.split_once(' ').unwrap_or((status, ""));
        Some(Heard::Response(Response {
            status: status.parse().unwrap(),
            reason: reason.to_owned(),
            headers,
            body,
        }))
    }
}

// ---- authentication ----------------------------------------------------------------------------

fn fits(scheme: Scheme, offer: &str) -> bool {
    let sha256 = offer.contains("SHA-256");
    match scheme {
        Scheme::Basic => offer.starts_with("Basic "),
        Scheme::Sha256 => offer.starts_with("Digest ") && sha256,
        Scheme::Md5 | Scheme::Md5Qop => offer.starts_with("Digest ") && !sha256,
    }
}

/// An Authorization header that answers a challenge.
fn proof(scheme: Scheme, challenge: &str, code: &str, method: &str, uri: &str) -> String {
    let field = |name: &str| {
        let at = challenge.find(&format!("{name}=\""))? + name.len() + 2;
        challenge[at..].split('"').next()
    };
    let hash = match scheme {
        Scheme::Basic => return basic(code),
        Scheme::Sha256 => sha256,
        Scheme::Md5 | Scheme::Md5Qop => md5,
    };
    let (realm, nonce) = (field("realm").unwrap(), field("nonce").unwrap());
    let known = hash(&format!("{USER}:{realm}:{code}"));
    let asked = hash(&format!("{method}:{uri}"));
    let qop = scheme != Scheme::Md5 && field("qop").is_some();
    let (response, more) = if qop {
        let mixed = format!("{known}:{nonce}:00000001:0a4f113b:auth:{asked}");
        (hash(&mixed), ", qop=auth, nc=00000001, cnonce=\"0a4f113b\"")
    } else {
        (hash(&format!("{known}:{nonce}:{asked}")), "")
    };
    let algorithm = if scheme == Scheme::Sha256 { ", algorithm=SHA-256" } else { "" };
    let opaque = field("opaque").map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
    format!(
        "Authorization: Digest username=\"{USER}\", realm=\"{realm}\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\"{algorithm}{more}{opaque}\r\n"
    )
}

/// A recorded request with what a server expects of it now, as it has said in `heard`: its last nonce and
/// session, and the Digest of a code that was redacted.
pub(crate) fn answered(request: &[u8], heard: &[u8], code: &str) -> Vec<u8> {
    let (mut text, heard) =
        (String::from_utf8_lossy(request).into_owned(), String::from_utf8_lossy(heard));
    let session = |text: &str| {
        let rest = &text[text.rfind("\r\nSession: ")? + 11..];
        rest.split(['\r', ';']).next().map(str::to_owned)
    };
    if let (Some(old), Some(new)) = (session(&text), session(&heard)) {
        text = text.replace(&format!("\r\nSession: {old}"), &format!("\r\nSession: {new}"));
    } else if !text.contains("Digest ") {
        // Binary, it may be.
        return request.to_vec();
    }
    let value = |text: &str, name: &str| {
        let at = text.rfind(&format!(" {name}=\""))? + name.len() + 3;
        text[at..].split('"').next().map(str::to_owned)
    };
    let shown = (value(&text, "response"), value(&text, "uri"), value(&text, "nonce"));
    let (Some(redacted), Some(uri), Some(old)) = shown else { return text.into() };
    let (realm, nonce) = (value(&text, "realm").unwrap(), value(&heard, "nonce").unwrap());
    let scheme = if redacted.len() == 64 { Scheme::Sha256 } else { Scheme::Md5 };
    let challenge = format!("Digest realm=\"{realm}\", nonce=\"{nonce}\"");
    let method = text.split(' ').next().unwrap();
    let proof = proof(scheme, &challenge, code, method, &uri);
    let response = value(&proof, "response").unwrap();
    let with = |text: &str, name: &str, old: &str, new: &str| {
        text.replace(&format!(" {name}=\"{old}\""), &format!(" {name}=\"{new}\""))
    };
    with(&with(&text, "nonce", &old, &nonce), "response", &redacted, &response).into()
}

fn sha256(text: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn basic(code: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in format!("{USER}:{code}").as_bytes().chunks(3) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let bits = u32::from_be_bytes(word) as usize;
        for place in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= three.len() { letter } else { '=' });
        }
    }
    format!("Authorization: Basic {text}\r\n")
}

// ---- RTP ---------------------------------------------------------------------------------------

/// One RTP packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rtp {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
}

impl Rtp {
    /// The header of a packet without contributing sources, extensions and padding.
    pub(crate) fn of(packet: &[u8]) -> Self {
        assert_eq!(packet[0], 0x80, "an RTP header of the plain kind");
        let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
        Self {
            sequence: u16::from_be_bytes([packet[2], packet[3]]),
            timestamp: word(4),
            ssrc: word(8),
            marker: packet[1] & 0x80 != 0,
            payload_type: packet[1] & 0x7f,
        }
    }
}

/// One picture, put together again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) nals: Vec<Vec<u8>>,
    /// Of its first packet, and of its last.
    pub(crate) sequence: (u16, u16),
}

/// Puts H.264 pictures together out of RTP packets, and panics over a torn one.
#[derive(Default)]
pub(crate) struct Assembly {
    picture: Option<Picture>,
    fragment: Option<Vec<u8>>,
    last: Option<u16>,
}

impl Assembly {
    /// Takes the next packet of a track; the picture that it completes. Every packet has to follow the
    /// one before it.
    pub(crate) fn take(&mut self, packet: &[u8]) -> Option<Picture> {
        let rtp = Rtp::of(packet);
        if let Some(last) = self.last.replace(rtp.sequence) {
            assert_eq!(rtp.sequence, last.wrapping_add(1), "one packet after another");
        }
        let picture = self.picture.get_or_insert_with(|| Picture {
            timestamp: rtp.timestamp,
            ssrc: rtp.ssrc,
            nals: Vec::new(),
            sequence: (rtp.sequence, rtp.sequence),
        });
        assert_eq!((rtp.timestamp, rtp.ssrc), (picture.timestamp, picture.ssrc), "one picture");
        picture.sequence.1 = rtp.sequence;
        let payload = &packet[12..];
        match payload[0] & 0x1f {
            28 => {
                let (edges, kind) = (payload[1] & 0xc0, payload[1] & 0x1f);
                if edges & 0x80 != 0 {
                    assert!(self.fragment.is_none(), "a unit begins within another");
                    self.fragment = Some(vec![payload[0] & 0xe0 | kind]);
                }
                let mut fragment = self.fragment.take().expect("the beginning of a unit");
                fragment.extend(&payload[2..]);
                if edges & 0x40 != 0 {
                    picture.nals.push(fragment);
                } else {
                    self.fragment = Some(fragment);
                }
            }
            24 => {
                let mut rest = &payload[1..];
                while let [high, low, more @ ..] = rest {
                    let len = usize::from(u16::from_be_bytes([*high, *low]));
                    picture.nals.push(more[..len].to_vec());
                    rest = &more[len..];
                }
            }
            1..=23 => picture.nals.push(payload.to_vec()),
            other => panic!("a payload of type {other}"),
        }
        if !rtp.marker {
            return None;
        }
        assert!(self.fragment.is_none(), "a picture ends within a unit");
        self.picture.take()
    }
}

impl Picture {
    /// Whether decoding may begin with it: the parameter sets, then an IDR slice.
    pub(crate) fn is_key(&self) -> bool {
        self.nals.iter().any(|nal| nal[0] & 0x1f == 5)
    }

    /// Its slices, without parameter sets.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        let slices = self.nals.iter().filter(|nal| matches!(nal[0] & 0x1f, 1..=5));
        slices.map(Vec::as_slice).collect()
    }
}

/// An empty receiver report, or one about a stream of which this was the highest sequence number.
pub(crate) fn receiver_report(about: Option<(u32, u32)>) -> Vec<u8> {
    let Some((ssrc, highest)) = about else { return vec![0x80, 201, 0, 1, 1, 2, 3, 4] };
    let mut report = vec![0x81, 201, 0, 7, 1, 2, 3, 4];
    let words = [ssrc, 0, highest, 0, 0, 0];
    report.extend(words.iter().flat_map(|word: &u32| word.to_be_bytes()));
    report
}

/// An interleaved frame's bytes.
pub(crate) fn framed(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[b'$', channel, high, low], bytes].concat()
}
