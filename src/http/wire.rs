//! HTTP/1.1 requests on the wire (RFC 9112), parsed by `httparse`.
//!
//! ```text
//!   GET /status?token=… HTTP/1.1 ⏎ Host: printer.local:8080 ⏎ Authorization: Basic … ⏎ ⏎
//! ```
//!
//! A request has a head and no body. [`next`] takes one off the front of the input and copies nothing.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a head, first line and headers | [`MAX_HEAD`] bytes | [`Fault::HeadTooLong`], or [`Fault::TargetTooLong`] within the first line |
//! | its headers | [`MAX_HEADERS`] | [`Fault::HeadTooLong`] |
//! | path and query | [`MAX_TARGET`] bytes | [`Fault::TargetTooLong`] |
//! | a body | none is accepted | [`Fault::Body`] |

use core::fmt;

use httparse::{EMPTY_HEADER, Error, Header};

/// Bytes in the longest head: browsers send up to 700, with cookies of other programs on the same machine more.
pub const MAX_HEAD: usize = 2048;

/// Headers in one request.
pub const MAX_HEADERS: usize = 32;

/// Bytes in the longest path with its query.
pub const MAX_TARGET: usize = 512;

/// What a client without TLS sends first when it speaks HTTP/2 at once (RFC 9113 §3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0";

/// The first bytes of a ClientHello: a handshake record of any TLS version.
const TLS: &[u8] = &[0x16, 0x03];

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'i> {
    /// Whether the answer's head alone is asked for.
    pub is_head: bool,
    /// The path, which begins with `/`.
    pub path: &'i str,
    /// What stands behind the `?`.
    pub query: &'i str,
    /// The `Host`.
    pub host: Option<&'i str>,
    /// The `Origin`.
    pub origin: Option<&'i str>,
    /// The `Authorization`.
    pub authorization: Option<&'i str>,
    /// The `User-Agent`.
    pub agent: Option<&'i str>,
    /// Whether the version is 1.1, not 1.0.
    pub is_1_1: bool,
    /// Whether the client expects the connection to stay open.
    pub keeps_alive: bool,
    /// Whether a browser says that a page of another site causes the request (Fetch Metadata). Browsers say so over
    /// HTTPS, and to this machine itself.
    pub is_from_elsewhere: bool,
    /// Whether a browser says that it leads to a page of its own or a frame, for which it may ask its user for a code.
    pub navigates: bool,
}

/// Why a request is not answered as it asks. The connection ends: what follows may be a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A ClientHello: the client expects HTTPS.
    Tls,
    /// The preface of HTTP/2.
    Http2,
    /// Another version than 1.0 and 1.1.
    Version,
    /// Neither a request line nor headers, a `Host` that is missing or given twice.
    Malformed,
    /// The head is longer than [`MAX_HEAD`].
    HeadTooLong,
    /// The path is longer than [`MAX_TARGET`].
    TargetTooLong,
    /// The method is known, and changes something.
    Method,
    /// The method is unknown.
    UnknownMethod,
    /// The request has a body.
    Body,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS on the port without TLS; the address begins with http://",
            Self::Http2 => "HTTP/2 without TLS; only HTTP/1.1 is spoken here",
            Self::Version => "unsupported HTTP version",
            Self::Malformed => "malformed request",
            Self::HeadTooLong => "request head too long",
            Self::TargetTooLong => "request path too long",
            Self::Method => "method not allowed; only GET and HEAD are",
            Self::UnknownMethod => "unknown method",
            Self::Body => "request with a body",
        })
    }
}

impl core::error::Error for Fault {}

/// Takes a request off the front of `input`. Returns its bytes, and the request; `None` if it has not arrived whole.
///
/// # Errors
///
/// [`Fault`].
pub fn next(input: &[u8]) -> Result<Option<(usize, Request<'_>)>, Fault> {
    let seen = input.get(..MAX_HEAD).unwrap_or(input);
    if begins_like(seen, TLS) {
        return if seen.len() < TLS.len() { Ok(None) } else { Err(Fault::Tls) };
    }
    if begins_like(seen, HTTP_2) && seen.len() > 3 {
        return if seen.len() < HTTP_2.len() { Ok(None) } else { Err(Fault::Http2) };
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let len = match parsed.parse(seen) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if seen.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) if seen.contains(&b'\n') => return Err(Fault::HeadTooLong),
        Ok(httparse::Status::Partial) => return Err(Fault::TargetTooLong),
        Err(Error::TooManyHeaders) => return Err(Fault::HeadTooLong),
        Err(Error::Version) => return Err(Fault::Version),
        Err(
            Error::HeaderName | Error::HeaderValue | Error::NewLine | Error::Status | Error::Token,
        ) => return Err(Fault::Malformed),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Fault::Malformed);
    };
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" | "CONNECT" => {
            return Err(Fault::Method);
        }
        _ => return Err(Fault::UnknownMethod),
    };
    if target.len() > MAX_TARGET {
        return Err(Fault::TargetTooLong);
    }
    let fields = Fields(parsed.headers);
    if fields.has_body() {
        return Err(Fault::Body);
    }
    let is_1_1 = minor == 1;
    let (named, target) = split_absolute(target);
    let host = named.or(fields.one("Host")?);
    if !target.starts_with('/') || (is_1_1 && host.is_none()) {
        return Err(Fault::Malformed);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let connection = fields.one("Connection").unwrap_or_default().unwrap_or_default();
    let names = |word| connection.split(',').any(|it| it.trim().eq_ignore_ascii_case(word));
    Ok(Some((
        len,
        Request {
            is_head,
            path,
            query,
            host,
            origin: fields.one("Origin")?,
            authorization: fields.one("Authorization")?,
            agent: fields.one("User-Agent").unwrap_or_default(),
            is_1_1,
            keeps_alive: if is_1_1 { !names("close") } else { names("keep-alive") },
            is_from_elsewhere: matches!(
                fields.one("Sec-Fetch-Site")?,
                Some("cross-site" | "same-site")
            ),
            navigates: fields.one("Sec-Fetch-Mode")? == Some("navigate"),
        },
    )))
}

/// Whether one of the two is the beginning of the other.
fn begins_like(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

/// Host and path of a target that is a whole URL, as it is sent to a proxy.
fn split_absolute(target: &str) -> (Option<&str>, &str) {
    let Some(rest) = target.strip_prefix("http://") else { return (None, target) };
    let at = rest.find('/').unwrap_or(rest.len());
    match rest.split_at_checked(at) {
        Some((host, "")) => (Some(host), "/"),
        Some((host, path)) => (Some(host), path),
        None => (None, target),
    }
}

/// The headers of a request.
struct Fields<'h, 'i>(&'h [Header<'i>]);

impl<'i> Fields<'_, 'i> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'i [u8]> {
        let fields = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value)
    }

    /// The only header of this name. Two of them, and one that is no text, are malformed.
    fn one(&self, name: &str) -> Result<Option<&'i str>, Fault> {
        let mut all = self.all(name);
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(Fault::Malformed);
        }
        core::str::from_utf8(value).map(Some).map_err(|_| Fault::Malformed)
    }

    fn has_body(&self) -> bool {
        let has_length = self.all("Content-Length").any(|len| len != b"0");
        has_length || self.all("Transfer-Encoding").next().is_some()
    }
}

/// The value of a parameter in a query, as it stands there.
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (its, value) = pair.split_once('=')?;
        (its == name).then_some(value)
    })
}

/// A host without its port: `printer.local`, `192.168.1.9`, `[fd00::1]`. What stands between an address and its port is kept.
pub fn without_port(host: &str) -> &str {
    let address = host.find(']').map_or(0, |bracket| bracket + 1);
    match host.get(address..).and_then(|rest| rest.find(':')) {
        Some(colon) => host.get(..address + colon).unwrap_or(host),
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn request(text: &str) -> Result<Request<'_>, Fault> {
        let (len, request) = next(text.as_bytes())?.expect("it is whole");
        assert_eq!(len, text.len());
        Ok(request)
    }

    #[test]
    fn a_browsers_request_is_read() {
        let request = request(
            "GET /status?token=a.b&x=1 HTTP/1.1\r\nHost: pi.local:8080\r\nUser-Agent: Mozilla/5.0\r\n\
             Authorization: Basic eDp5\r\nConnection: keep-alive\r\n\r\n",
        )
        .unwrap();
        assert_eq!((request.path, parameter(request.query, "token")), ("/status", Some("a.b")));
        assert_eq!(
            (request.host, request.authorization),
            (Some("pi.local:8080"), Some("Basic eDp5"))
        );
        assert!(request.keeps_alive && request.is_1_1 && !request.is_head);
        assert_eq!(parameter(request.query, "t"), None);
    }

    #[test]
    fn connections_stay_open_as_each_version_has_it() {
        for (text, keeps) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(request(text).unwrap().keeps_alive, keeps, "{text}");
        }
    }

    #[test]
    fn what_is_no_request_has_its_fault() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(MAX_TARGET));
        let endless = format!("GET /{}", "x".repeat(MAX_HEAD));
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS));
        for (text, fault) in [
            ("\x16\x03", Fault::Tls),
            (str::from_utf8(HTTP_2).unwrap(), Fault::Http2),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Http2),
            ("GET / HTTP/2.0\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Fault::Malformed),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Malformed),
            ("GET /\r\n\r\n", Fault::Malformed),
            ("\0\0\0\0", Fault::Malformed),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Fault::Malformed),
            (&long, Fault::TargetTooLong),
            (&endless, Fault::TargetTooLong),
            (&head, Fault::HeadTooLong),
            (&many, Fault::HeadTooLong),
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Method),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Method),
            ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::UnknownMethod),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", Fault::Body),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Body),
        ] {
            assert_eq!(next(text.as_bytes()).map(|it| it.is_some()), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn the_longest_path_is_read() {
        let path = format!("/{}", "x".repeat(MAX_TARGET - 1));
        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(request(&text).unwrap().path, path);
    }

    #[test]
    fn a_request_may_arrive_byte_by_byte() {
        let text = "GET http://pi:8080/a?b HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(next(&text.as_bytes()[..len]), Ok(None), "{len}");
        }
        let request = request(text).unwrap();
        assert_eq!((request.host, request.path, request.query), (Some("pi:8080"), "/a", "b"));
        for begin in [&b""[..], b"PRI * HT", b"\x16"] {
            assert_eq!(next(begin), Ok(None));
        }
    }

    #[test]
    fn a_host_is_read_without_its_port() {
        for (host, name) in [
            ("a:8080", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a", "a"),
            ("[::1].b:80", "[::1].b"),
            ("[::1].b", "[::1].b"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
