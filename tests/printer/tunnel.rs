//! The file tunnel that X1, H2 and P2 have on port 6000 (`src/protocol.md`, file-tunnel), as far as its login.
//!
//! A camera's login gets 24 bytes that no camera sends, and an end; a tunnel's login an
//! acknowledgement, and then what was sent comes back. Any other connection is closed without a reply.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections | [`MAX_STREAMS`] | closed |
//! | TLS, then the login | [`HANDSHAKE_TIMEOUT`](super::HANDSHAKE_TIMEOUT), [`LOGIN_TIMEOUT`] | closed |
//! | a client's silence | [`IDLE_TIMEOUT`] | closed |
//! | a write without progress | [`WRITE_TIMEOUT`] | closed |
//! | uploads remembered | [`KEPT`](super::KEPT) | the oldest is forgotten |

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::camera::{LOGIN, LOGIN_TIMEOUT};
use super::ledger::remember;
use super::model::Model;
use super::tls::Shown;
use super::{IDLE_TIMEOUT, MAX_STREAMS, WRITE_TIMEOUT, listener, witnessed};

/// A handle on a simulated file tunnel. Clones are handles on the same one.
#[derive(Clone)]
pub struct Tunnel {
    pipe: Rc<Pipe>,
}

struct Pipe {
    code: RefCell<String>,
    echoes: Cell<bool>,
    open: Cell<usize>,
    ever: Cell<u64>,
    camera_logins: Cell<u64>,
    logins: Cell<u64>,
    received: Cell<u64>,
    uploads: RefCell<VecDeque<Upload>>,
    changed: Notify,
}

/// What one connection sent behind its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl Upload {
    /// What is remembered of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(bytes);
        Self::finished(bytes.len() as u64, hash)
    }

    fn finished(bytes: u64, hash: Context) -> Self {
        Self { bytes, sha256: hash.finish().as_ref().try_into().unwrap() }
    }
}

/// The 32 bytes with which a client of the tunnel begins; the code has at most 8.
pub fn login(code: &str) -> [u8; 32] {
    let mut login = [0; 32];
    login[..16].copy_from_slice(&message(16, ASKED, 0));
    login[16..20].copy_from_slice(b"bblp");
    login[24..24 + code.len()].copy_from_slice(code.as_bytes());
    login
}

impl Tunnel {
    /// A tunnel with the code `12345678` that sends back what it gets.
    pub fn new() -> Self {
        Self {
            pipe: Rc::new(Pipe {
                code: RefCell::new("12345678".to_owned()),
                echoes: Cell::new(true),
                open: Cell::new(0),
                ever: Cell::new(0),
                camera_logins: Cell::new(0),
                logins: Cell::new(0),
                received: Cell::new(0),
                uploads: RefCell::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// The access code, of at most 8 bytes.
    pub fn code(self, code: &str) -> Self {
        assert!(code.len() <= 8, "a code of {} bytes", code.len());
        *self.pipe.code.borrow_mut() = code.to_owned();
        self
    }

    /// Whether it sends back what it gets, or only counts it.
    pub fn echoing(self, echoes: bool) -> Self {
        self.pipe.echoes.set(echoes);
        self
    }

    /// Serves one connection over any stream, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let pipe = &*self.pipe;
        if pipe.open.get() < MAX_STREAMS {
            let _counted = Counted::new(pipe);
            let _ = pipe.converse(stream).await; // its end is not an error of the printer's
        }
    }

    /// Listens for TLS, with the certificate of a model. Where, and what has to be polled (in a
    /// `LocalSet` or `LocalRuntime`) to serve it.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let tunnel = self.clone();
        listener::listen_tls(address, Shown::own(model).config(model)?, move |stream| {
            let tunnel = tunnel.clone();
            async move { tunnel.serve(stream).await }
        })
        .await
    }

    /// Connections that are past TLS and not over yet.
    pub fn open(&self) -> usize {
        self.pipe.open.get()
    }

    /// How many there ever were.
    pub fn ever(&self) -> u64 {
        self.pipe.ever.get()
    }

    /// Of those, the ones that took it for a camera.
    pub fn camera_logins(&self) -> u64 {
        self.pipe.camera_logins.get()
    }

    /// Of those, the ones that logged in rightly.
    pub fn logins(&self) -> u64 {
        self.pipe.logins.get()
    }

    /// Bytes that came behind logins, on all connections, so far.
    pub fn received(&self) -> u64 {
        self.pipe.received.get()
    }

    /// What came behind logins, of connections that are over, oldest first. The last [`KEPT`](super::KEPT).
    pub fn uploads(&self) -> Vec<Upload> {
        self.pipe.uploads.borrow().iter().copied().collect()
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.pipe.changed, within, || seen(self)).await
    }
}

impl Pipe {
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<()> {
        let mut login = [0; LOGIN];
        timeout(LOGIN_TIMEOUT, stream.read_exact(&mut login[..16])).await??;
        if login[..8] == message(0x40, 0x3000, 0)[..8] {
            timeout(LOGIN_TIMEOUT, stream.read_exact(&mut login[16..])).await??;
            add(&self.camera_logins, 1);
            self.changed.notify_waiters();
            say(&mut stream, &[&message(8, REFUSED, 0)[..], &[0; 8]].concat()).await?;
            return Ok(());
        }
        let expected = self::login(&self.code.borrow());
        if login[..8] != expected[..8] {
            return Ok(());
        }
        timeout(LOGIN_TIMEOUT, stream.read_exact(&mut login[16..32])).await??;
        if login[16..32] != expected[16..] {
            return Ok(());
        }
        add(&self.logins, 1);
        self.changed.notify_waiters();
        let sequence = u32::from_le_bytes(login[8..12].try_into().unwrap());
        say(&mut stream, &message(4, GRANTED, sequence)).await?;
        say(&mut stream, &[0; 4]).await?;

        let (mut hash, mut bytes) = (Context::new(&SHA256), 0);
        let relayed = self.relay(&mut stream, &mut hash, &mut bytes).await;
        remember(&mut self.uploads.borrow_mut(), Upload::finished(bytes, hash));
        relayed
    }

    async fn relay<S>(&self, stream: &mut S, hash: &mut Context, bytes: &mut u64) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut piece = vec![0; 16 * 1024];
        loop {
            let len = timeout(IDLE_TIMEOUT, stream.read(&mut piece)).await??;
            if len == 0 {
                return Ok(());
            }
            hash.update(&piece[..len]);
            *bytes += len as u64;
            add(&self.received, len as u64);
            self.changed.notify_waiters();
            if self.echoes.get() {
                say(stream, &piece[..len]).await?;
            }
        }
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

/// Writes what begins and ends a record.
async fn say<S: AsyncWrite + Unpin>(to: &mut S, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = timeout(WRITE_TIMEOUT, to.write(rest)).await??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
    }
    timeout(WRITE_TIMEOUT, to.flush()).await?
}

/// The header of a message.
fn message(payload: u32, magic: u32, sequence: u32) -> [u8; 16] {
    let mut message = [0; 16];
    message[0..4].copy_from_slice(&payload.to_le_bytes());
    message[4..8].copy_from_slice(&magic.to_le_bytes());
    message[8..12].copy_from_slice(&sequence.to_le_bytes());
    message
}

/// A client's login.
const ASKED: u32 = 0x0101_013f;

/// It is.
const GRANTED: u32 = 0x0001_013f;

/// What a camera's login is answered with.
const REFUSED: u32 = 0x0003_013f;

/// A connection, as long as it is open.
struct Counted<'p>(&'p Pipe);

impl<'p> Counted<'p> {
    fn new(pipe: &'p Pipe) -> Self {
        pipe.open.set(pipe.open.get() + 1);
        add(&pipe.ever, 1);
        pipe.changed.notify_waiters();
        Self(pipe)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.changed.notify_waiters();
    }
}
