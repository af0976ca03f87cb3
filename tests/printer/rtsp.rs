//! Port 322 of X1, X2, P2 and H2 (PROTOCOL §4), as far as somebody needs who asks whether it is there.
//!
//! OPTIONS is answered without a password, DESCRIBE with 401, anything else with 405, as live555 does
//! it. With live view off it closes as soon as TLS stands.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | connections | [`STREAMS_MOST`] | closed |
//! | TLS | [`HANDSHAKE_WITHIN`](super::HANDSHAKE_WITHIN) | closed |
//! | a request, its body included | [`REQUEST_MOST`] bytes, [`REQUEST_WITHIN`] | closed |
//! | a write without progress | [`WRITE_WITHIN`] | closed |

use core::cell::Cell;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::model::Model;
use super::tls::Shown;
use super::{STREAMS_MOST, WRITE_WITHIN, listener, witnessed};

/// What a request may have, in bytes.
pub(crate) const REQUEST_MOST: usize = 4096;

/// The time for the next request (§4: live555 gives a session 65 seconds).
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(65);

/// A handle on a simulated RTSP server. Clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Rtsp {
    server: Rc<Server>,
}

struct Server {
    live_view: Cell<bool>,
    open: Cell<usize>,
    ever: Cell<u64>,
    requests: Cell<u64>,
    changed: Notify,
}

impl Rtsp {
    /// A server with live view on.
    pub(crate) fn new() -> Self {
        Self {
            server: Rc::new(Server {
                live_view: Cell::new(true),
                open: Cell::new(0),
                ever: Cell::new(0),
                requests: Cell::new(0),
                changed: Notify::new(),
            }),
        }
    }

    /// Whether live view is on. May be called again while it runs, for connections that come after.
    pub(crate) fn live_view(self, on: bool) -> Self {
        self.server.live_view.set(on);
        self
    }

    /// Serves one connection over any stream, from accept to its end.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let server = &*self.server;
        if server.open.get() >= STREAMS_MOST {
            return;
        }
        let _counted = Counted::new(server);
        if server.live_view.get() {
            let _ = server.converse(stream).await; // however it ends, it has ended
        }
    }

    /// Listens for TLS, with the certificate of a model. Where, and what has to be polled (in a
    /// `LocalSet` or `LocalRuntime`) to serve it.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub(crate) async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let rtsp = self.clone();
        listener::listen_tls(address, Shown::own(model).config(model)?, move |stream| {
            let rtsp = rtsp.clone();
            async move { rtsp.serve(stream).await }
        })
        .await
    }

    /// Connections that are past TLS and not over yet.
    pub(crate) fn open(&self) -> usize {
        self.server.open.get()
    }

    /// How many there ever were.
    pub(crate) fn ever(&self) -> u64 {
        self.server.ever.get()
    }

    /// Requests it has answered.
    pub(crate) fn requests(&self) -> u64 {
        self.server.requests.get()
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub(crate) async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.server.changed, within, || seen(self)).await
    }
}

impl Server {
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<()> {
        let mut inbox = Vec::with_capacity(REQUEST_MOST);
        loop {
            let request = timeout(REQUEST_WITHIN, received(&mut stream, &mut inbox)).await??;
            let Some(answer) = request.as_deref().and_then(answer) else { return Ok(()) };
            timeout(WRITE_WITHIN, stream.write_all(answer.as_bytes())).await??;
            timeout(WRITE_WITHIN, stream.flush()).await??;
            self.requests.set(self.requests.get() + 1);
            self.changed.notify_waiters();
        }
    }
}

/// The next request's head; nothing at the end, or past the bound. Bodies are not expected.
async fn received<R>(from: &mut R, inbox: &mut Vec<u8>) -> io::Result<Option<String>>
where
    R: AsyncRead + Unpin,
{
    loop {
        if let Some(end) = inbox.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = inbox.drain(..end + 4).collect();
            return Ok(String::from_utf8(head).ok());
        }
        let mut piece = [0; 512];
        let room = piece.len().min(REQUEST_MOST - inbox.len());
        let len = if room == 0 { 0 } else { from.read(&mut piece[..room]).await? };
        if len == 0 {
            return Ok(None);
        }
        inbox.extend_from_slice(&piece[..len]);
    }
}

/// What a request is answered; nothing if it is none.
fn answer(request: &str) -> Option<String> {
    let mut lines = request.lines();
    let mut words = lines.next()?.split(' ');
    let method = words.next()?;
    if words.nth(1) != Some("RTSP/1.0") {
        return None;
    }
    let number = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("cseq").then(|| value.trim())
    })?;
    let number: u32 = number.parse().ok()?;
    let (status, header) = match method {
        "OPTIONS" => ("200 OK", PUBLIC),
        "DESCRIBE" => ("401 Unauthorized", DIGEST),
        _ => ("405 Method Not Allowed", ALLOW),
    };
    Some(format!("RTSP/1.0 {status}\r\nCSeq: {number}\r\n{header}\r\n\r\n"))
}

const PUBLIC: &str = "Public: OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, GET_PARAMETER";
const ALLOW: &str = "Allow: OPTIONS, DESCRIBE";
const DIGEST: &str = "WWW-Authenticate: Digest realm=\"LIVE555 Streaming Media\", \
                      nonce=\"9f3c1d5b7a2e4c6880b1d2e3f4a5b6c7\"";

/// A connection, as long as it is open.
struct Counted<'s>(&'s Server);

impl<'s> Counted<'s> {
    fn new(server: &'s Server) -> Self {
        server.open.set(server.open.get() + 1);
        server.ever.set(server.ever.get() + 1);
        server.changed.notify_waiters();
        Self(server)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.changed.notify_waiters();
    }
}
