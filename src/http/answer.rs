//! Answers: status, head and content.

use core::fmt::{self, Write};

use super::document::Document;
use super::page::{Cursor, Room};

/// What the page may load: its own style and script, by their SHA-256, and what is served here. Other pages may show it in a
/// frame, as dashboards do: there is nothing to click that changes anything.
const CSP: &str = "Content-Security-Policy: default-src 'none'; img-src 'self' data:; media-src 'self'; \
                   connect-src 'self'; base-uri 'none'; form-action 'none'; \
                   style-src 'sha256-LYdVBKnJyxAv5Jd2mFv9RdH1gk9mMRRISA/9E7j7004='; \
                   script-src 'sha256-yi4ALrNIZKmIVx3eA6cF9o0h0S8tdO7yAMQ4dQL1gP8='\r\n";

/// A status (RFC 9110 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 401: the access code is to be shown.
    Unauthorized,
    /// 403: the request comes from another site's page.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    RequestTimeout,
    /// 413: the request has a body.
    ContentTooLarge,
    /// 414.
    UriTooLong,
    /// 421: the `Host` is not this machine.
    Misdirected,
    /// 429: the client's origin is locked out.
    TooManyRequests,
    /// 431.
    HeadTooLarge,
    /// 501.
    NotImplemented,
    /// 503.
    Unavailable,
    /// 505.
    VersionNotSupported,
}

impl Status {
    /// Its number and its reason phrase.
    pub const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::UriTooLong => "414 URI Too Long",
            Self::Misdirected => "421 Misdirected Request",
            Self::TooManyRequests => "429 Too Many Requests",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::Unavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// Headers that belong to it.
    const fn fields(self) -> &'static str {
        match self {
            Self::Unauthorized => {
                "WWW-Authenticate: Basic realm=\"PandaProxy: bblp and the access code\", charset=\"UTF-8\"\r\n"
            }
            Self::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            Self::TooManyRequests => "Retry-After: 60\r\n",
            Self::Unavailable => "Retry-After: 5\r\n",
            Self::Ok
            | Self::BadRequest
            | Self::Forbidden
            | Self::NotFound
            | Self::RequestTimeout
            | Self::ContentTooLarge
            | Self::UriTooLong
            | Self::Misdirected
            | Self::HeadTooLarge
            | Self::NotImplemented
            | Self::VersionNotSupported => "",
        }
    }
}

/// A file that is part of the program.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: &'static str,
    /// Its type.
    pub content_type: &'static str,
    /// Its content, as it is sent.
    pub bytes: &'static [u8],
    /// Whether it is compressed (`Content-Encoding: deflate`). A client that cannot decompress it gets it all the same.
    pub is_deflated: bool,
}

/// What an answer contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A line of text.
    Line(&'static str),
    /// Whether the proxy is ready, and why not.
    Readiness,
    /// The authority's certificate and what stands behind it, from this byte on.
    Authority(usize),
    /// A file, from this byte on.
    File(&'static File, usize),
    /// A document, from there on.
    Document(Document, Cursor),
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The content.
    pub content: Content,
    /// Whether the head alone is asked for.
    pub is_head: bool,
    /// Whether the client knows chunks (HTTP/1.1).
    pub is_1_1: bool,
    /// Whether the connection stays open after it.
    pub keeps_alive: bool,
    /// Whether the head has been sent.
    pub has_begun: bool,
}

/// The head of an answer.
pub struct Head {
    /// The status.
    pub status: Status,
    /// The type of the content.
    pub content_type: &'static str,
    /// Whether it is compressed.
    pub is_deflated: bool,
    /// Its bytes; `None`: not known before the end.
    pub len: Option<usize>,
    /// Whether it is sent in chunks.
    pub is_chunked: bool,
    /// Whether the connection stays open.
    pub keeps_alive: bool,
    /// Whether the client speaks HTTP/1.1, in which connections stay open unless it is said; in 1.0 they are closed.
    pub is_1_1: bool,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, content_type, is_deflated, len, is_chunked, keeps_alive, is_1_1 } = self;
        write!(f, "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\n", status.line())?;
        if let Some(len) = len {
            write!(f, "Content-Length: {len}\r\n")?;
        }
        if *is_deflated {
            f.write_str("Content-Encoding: deflate\r\n")?;
        }
        if *is_chunked {
            f.write_str("Transfer-Encoding: chunked\r\n")?;
        }
        f.write_str(
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n",
        )?;
        if content_type.starts_with("text/html") {
            f.write_str(CSP)?;
        }
        if len.is_none() && !is_chunked {
            // Content without end: nginx as a reverse proxy is not to collect it.
            f.write_str("X-Accel-Buffering: no\r\n")?;
        }
        f.write_str(status.fields())?;
        f.write_str(match (keeps_alive, is_1_1) {
            (true, true) => "",
            (true, false) => "Connection: keep-alive\r\n",
            (false, _) => "Connection: close\r\n",
        })?;
        f.write_str("\r\n")
    }
}

/// Writes text into the beginning of `out`, and returns its length; it is cut where `out` ends.
pub fn write(out: &mut [u8], text: fmt::Arguments<'_>) -> usize {
    let mut room = Room { out, len: 0 };
    // Heads fit: see the assertion about the outbox.
    let _cut = room.write_fmt(text);
    room.len
}

#[cfg(test)]
mod tests {
    use super::CSP;
    use alloc::format;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::digest::{SHA256, digest};

    #[test]
    fn the_policy_allows_the_pages_own_style_and_script() {
        let page = include_str!("page.html");
        for element in ["style", "script"] {
            let (_, rest) = page.split_once(&format!("<{element}>")).unwrap();
            let (text, _) = rest.split_once(&format!("</{element}>")).unwrap();
            let sum = STANDARD.encode(digest(&SHA256, text.as_bytes()));
            let source = format!("{element}-src 'sha256-{sum}'");
            assert!(CSP.contains(&source), "the page has changed; the policy is to say {source}");
        }
    }
}
