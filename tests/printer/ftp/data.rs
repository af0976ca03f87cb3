//! Data connections: their port, their TLS, and the bytes, at the pace of the disk.

use core::mem::MaybeUninit;
use core::net::IpAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::store::{Incoming, Stored};
use super::{DATA_TIMEOUT, Family, Inner, PASSIVE_TIMEOUT, PROMPTLY, Quirk};

/// A port that waits for its one connection.
pub(super) enum Passive {
    Tcp(TcpListener),
    Memory(u16, mpsc::Receiver<Box<dyn Io>>),
}

/// A connection for data, before or in TLS.
pub(super) enum Data {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Memory(Box<dyn Io>),
}

/// The reply when there is no data connection.
pub(super) type Refused = &'static str;

impl Passive {
    /// The one connection.
    pub(super) async fn accept(
        &mut self,
        inner: &Inner,
        client: Option<IpAddr>,
    ) -> Result<Data, Refused> {
        const NOT_CONNECTED: Refused = "425 Failed to establish connection.";
        let data = match self {
            Self::Memory(_, door) => {
                let accepted = timeout(PASSIVE_TIMEOUT, door.recv()).await;
                Data::Memory(accepted.ok().flatten().ok_or(NOT_CONNECTED)?)
            }
            Self::Tcp(listener) => {
                let accepted = timeout(PASSIVE_TIMEOUT, listener.accept()).await;
                let (stream, from) =
                    accepted.map_err(|_| NOT_CONNECTED)?.map_err(|_| NOT_CONNECTED)?;
                if inner.family == Family::Vsftpd && Some(from.ip()) != client {
                    inner.count(|seen| seen.unwanted += 1);
                    return Err("425 Security: Bad IP connecting.");
                }
                Data::Clear(stream)
            }
        };
        inner.count(|seen| seen.data += 1);
        Ok(data)
    }
}

impl Data {
    /// Whether the client has sent anything.
    pub(super) fn has_spoken(&self) -> bool {
        match self {
            Self::Clear(stream) => {
                let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
                matches!(peeked, Ok(1..))
            }
            Self::Tls(_) | Self::Memory(_) => false,
        }
    }

    /// TLS over it. In memory there is none.
    pub(super) async fn shaken(
        self,
        inner: &Inner,
        config: &Arc<ServerConfig>,
    ) -> Result<Self, Refused> {
        let Self::Clear(stream) = self else { return Ok(self) };
        let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        let failed = match inner.family {
            Family::Esp32 => "426 TLS failed.",
            Family::Vsftpd => "522 SSL connection failed.",
        };
        let stream = timeout(PROMPTLY, accepting).await.map_err(|_| failed)?.map_err(|_| failed)?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        inner.count(|seen| {
            if resumed {
                seen.resumed += 1;
            } else {
                seen.not_resumed += 1;
            }
        });
        if inner.family == Family::Vsftpd && !resumed {
            return Err("522 SSL connection failed: session reuse required");
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Ends it as this printer does: in TLS, without a word.
    async fn end(&mut self, close_notify: bool) -> io::Result<()> {
        self.flush().await?;
        match self {
            Self::Tls(stream) if close_notify => stream.shutdown().await,
            Self::Tls(stream) => stream.get_mut().0.shutdown().await,
            Self::Clear(stream) => stream.shutdown().await,
            Self::Memory(stream) => stream.shutdown().await,
        }
    }

    fn as_stream(self: Pin<&mut Self>) -> Pin<&mut dyn Io> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
            Self::Memory(stream) => Pin::new(stream.as_mut()),
        }
    }
}

/// Any stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl AsyncRead for Data {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.as_stream().poll_read(context, into)
    }
}

impl AsyncWrite for Data {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_stream().poll_write(context, from)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_stream().poll_shutdown(context)
    }
}

/// What became of a transfer.
pub(super) enum Outcome {
    /// All went well.
    Done,
    /// The command is answered with this.
    Failed(&'static str),
    /// The command is not answered, and the session continues.
    Unanswered,
    /// The session is over.
    Over,
}

/// What is sent.
pub(super) enum Source {
    Listing(Vec<u8>),
    File(Stored, u64),
}

/// A file that is kept, whatever becomes of its upload.
pub(super) struct Upload<'a> {
    inner: &'a Inner,
    path: String,
    incoming: Option<Incoming>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(inner: &'a Inner, path: String, incoming: Incoming) -> Self {
        inner.count(|seen| {
            seen.uploads += 1;
            seen.uploads_ever += 1;
            seen.most_uploads = seen.most_uploads.max(seen.uploads);
        });
        Self { inner, path, incoming: Some(incoming) }
    }

    /// Receives bytes up to the end of the connection.
    pub(super) async fn receive(mut self, mut data: Data, quirk: Option<Quirk>) -> Outcome {
        const LOST: Outcome = Outcome::Failed("426 Failure reading network stream.");
        let inner = self.inner;
        let Some(incoming) = &mut self.incoming else { return LOST };
        let mut pace = Pace::new(inner);
        let mut piece = vec![0; pace.piece()];
        let mut done: u64 = 0;
        loop {
            match quirk {
                Some(Quirk::CutsControl(at)) if done >= at => return Outcome::Over,
                Some(Quirk::CutsData(at)) if done >= at => return LOST,
                Some(Quirk::Stalls(at)) if done >= at => core::future::pending().await,
                Some(Quirk::NoSpace(at)) if done >= at => return FULL,
                _ => {}
            }
            let read = match timeout(DATA_TIMEOUT, data.read(&mut piece)).await {
                Ok(Ok(read)) => read,
                // A client may end without close_notify, as FTP clients do.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Ok(Err(_)) | Err(_) => return LOST,
            };
            if read == 0 {
                break;
            }
            let kept = match quirk {
                Some(Quirk::Truncates(at)) => read.min(at.saturating_sub(done) as usize),
                _ => read,
            };
            if incoming.len() + kept as u64 > inner.space.get() {
                return FULL;
            }
            incoming.push(&piece[..kept]);
            done += read as u64;
            inner.count(|seen| seen.taken += read as u64);
            pace.after(read).await;
        }
        let _ended = data.end(inner.close_notify.get()).await;
        drop(data);
        drop(self);
        tokio::time::sleep(inner.late.get()).await;
        match quirk {
            Some(Quirk::FailsThoughComplete | Quirk::Truncates(_)) => LOST,
            Some(Quirk::NeverFinal) => Outcome::Unanswered,
            _ => Outcome::Done,
        }
    }
}

const FULL: Outcome = Outcome::Failed("552 No space left.");

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            // The folder may be gone meanwhile, and the file with it.
            let _kept = self.inner.store.borrow_mut().put(&self.path, incoming.finish());
        }
        self.inner.count(|seen| seen.uploads -= 1);
    }
}

/// Sends all of it.
pub(super) async fn send(
    inner: &Inner,
    mut data: Data,
    source: Source,
    quirk: Option<Quirk>,
) -> Outcome {
    const LOST: Outcome = Outcome::Failed("426 Failure writing network stream.");
    let mut pace = Pace::new(inner);
    let mut piece = vec![0; pace.piece()];
    let mut done: u64 = 0;
    loop {
        match quirk {
            Some(Quirk::CutsData(at)) if done >= at => return LOST,
            Some(Quirk::Stalls(at)) if done >= at => core::future::pending().await,
            _ => {}
        }
        let read = match &source {
            Source::Listing(listing) => {
                let left = &listing[usize::try_from(done).unwrap()..];
                let len = left.len().min(piece.len());
                piece[..len].copy_from_slice(&left[..len]);
                len
            }
            Source::File(stored, from) => match stored.read(from + done, &mut piece) {
                Ok(read) => read,
                Err(_) => return Outcome::Failed("451 Failure reading local file."),
            },
        };
        if read == 0 {
            break;
        }
        match timeout(DATA_TIMEOUT, data.write_all(&piece[..read])).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return LOST,
        }
        done += read as u64;
        inner.count(|seen| seen.given += read as u64);
        pace.after(read).await;
    }
    match timeout(DATA_TIMEOUT, data.end(inner.close_notify.get())).await {
        Ok(Ok(())) if matches!(quirk, Some(Quirk::NeverFinal)) => Outcome::Unanswered,
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(_)) | Err(_) => LOST,
    }
}

/// The speed of the disk.
struct Pace {
    rate: u64,
    next: Instant,
}

impl Pace {
    fn new(inner: &Inner) -> Self {
        Self { rate: inner.rate.get(), next: Instant::now() }
    }

    /// How much to take at once, in bytes: a twentieth of a second's worth.
    fn piece(&self) -> usize {
        match self.rate {
            0 => PIECE,
            rate => usize::try_from(rate / 20).unwrap_or(PIECE).clamp(512, PIECE),
        }
    }

    /// Waits as long as the disk takes for this many bytes.
    async fn after(&mut self, bytes: usize) {
        if self.rate > 0 {
            let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            self.next = self.next.max(Instant::now()) + takes;
            sleep_until(self.next).await;
        }
    }
}

/// Taken or given at once, in bytes, by a fast disk.
const PIECE: usize = 32 * 1024;
