//! What a client sends: requests, answers to the camera's requests, and interleaved frames.

use super::MAX_REQUEST;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Request(Request),
    /// The status of an answer.
    Answer(u16),
    Interleaved(u8, Vec<u8>),
}

/// A request, its body read and forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) uri: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, whatever the case of its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Its number, if it has one.
    pub(super) fn number(&self) -> Option<u32> {
        self.header("cseq")?.parse().ok()
    }
}

/// What came is none of these, or too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Received bytes that are not parsed yet, at most [`MAX_REQUEST`].
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// How much may be added.
    pub(super) fn room(&self) -> usize {
        MAX_REQUEST - self.bytes.len()
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The first whole message, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Malformed> {
        if let [b'$', channel, high, low, rest @ ..] = &self.bytes[..] {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            if len + 4 > MAX_REQUEST {
                return Err(Malformed);
            }
            let Some(frame) = rest.get(..len) else { return Ok(None) };
            let message = Message::Interleaved(*channel, frame.to_vec());
            self.bytes.drain(..len + 4);
            return Ok(Some(message));
        }
        if self.bytes.first() == Some(&b'$') {
            return Ok(None);
        }
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            return if self.room() == 0 { Err(Malformed) } else { Ok(None) };
        };
        let head = String::from_utf8(self.bytes[..end].to_vec()).map_err(|_| Malformed)?;
        let (message, body) = parse(&head).ok_or(Malformed)?;
        let whole = end + 4 + body;
        if whole > MAX_REQUEST {
            return Err(Malformed);
        }
        if self.bytes.len() < whole {
            return Ok(None);
        }
        self.bytes.drain(..whole);
        Ok(Some(message))
    }
}

/// A parsed head, and the length of the body that follows it.
fn parse(head: &str) -> Option<(Message, usize)> {
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next()?.splitn(3, ' ').collect();
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
    let message = match words[..] {
        ["RTSP/1.0", status, _] | ["RTSP/1.0", status] => Message::Answer(status.parse().ok()?),
        [method, uri, "RTSP/1.0"] if !method.is_empty() && !uri.is_empty() => {
            Message::Request(Request { method: method.to_owned(), uri: uri.to_owned(), headers })
        }
        _ => return None,
    };
    Some((message, body))
}
