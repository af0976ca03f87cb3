//! A tokio stream as an `embedded-io-async` one, with a deadline on every write. What it reads and writes
//! is in the clear, so that this is where it is recorded.
//!
//! A peer that takes nothing for [`STALL`] is stuck: a sleeping laptop, a phone out of range, a
//! viewer that never reads. Reading has no deadline here: a client may be silent for as long as it
//! likes, and TCP keepalive finds the dead.

use core::fmt;
use core::time::Duration;
use std::io;

use embedded_io_async::{Error, ErrorKind, ErrorType, Read, Write};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Clock;
use super::net::Connection;
use crate::trace::{self, Party, Protocol, Tap};

/// How long a write may make no progress.
pub const STALL: Duration = Duration::from_secs(5);

/// How long a goodbye (`close_notify`, FIN) may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the kernel keeps for a peer that has not read it yet, in bytes.
///
/// Small, so that a slow reader is noticed here, where it can be resynchronised, and not after
/// minutes of stale reports in the kernel's memory.
const SEND_BUFFER: usize = 32 * 1024;

/// A stream whose writes cannot hang.
pub struct Stream<T> {
    inner: T,
    tap: Option<Tap>,
    clock: Clock,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// Puts the deadline on a stream to a client of this service, or to the printer's.
    pub fn new(inner: T, protocol: Protocol, party: Party, clock: &Clock) -> Self {
        Self { inner, tap: trace::begin(protocol, party, clock.now()), clock: *clock }
    }

    /// Says goodbye in the protocol's way, waiting at most two seconds for it.
    pub async fn close(&mut self) {
        // A peer that is gone cannot be told so; either way the stream is dropped next.
        let _told = timeout(FAREWELL, self.inner.shutdown()).await;
    }
}

/// Why a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Nothing could be sent for [`STALL`].
    Stalled,
    /// The connection broke.
    Lost(io::ErrorKind),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled => write!(f, "took nothing for {} s", STALL.as_secs()),
            Self::Lost(kind) => write!(f, "connection lost: {kind}"),
        }
    }
}

impl core::error::Error for StreamError {}

impl Error for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Stalled => ErrorKind::TimedOut,
            Self::Lost(_) => ErrorKind::Other,
        }
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.kind())
    }
}

impl<T> ErrorType for Stream<T> {
    type Error = StreamError;
}

impl<T: AsyncRead + AsyncWrite + Unpin> Read for Stream<T> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, StreamError> {
        let len = self.inner.read(buf).await?;
        if let Some(tap) = &mut self.tap {
            tap.heard(buf.get(..len).unwrap_or_default(), self.clock.now());
        }
        Ok(len)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for Stream<T> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, StreamError> {
        match timeout(STALL, self.inner.write(buf)).await {
            // `write_all` takes it for granted that nothing written is an error.
            Ok(Ok(0)) => Err(StreamError::Lost(io::ErrorKind::WriteZero)),
            Ok(written) => {
                let len = written?;
                if let Some(tap) = &mut self.tap {
                    tap.said(buf.get(..len).unwrap_or_default(), self.clock.now());
                }
                Ok(len)
            }
            Err(_elapsed) => Err(StreamError::Stalled),
        }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        match timeout(STALL, self.inner.flush()).await {
            Ok(flushed) => Ok(flushed?),
            Err(_elapsed) => Err(StreamError::Stalled),
        }
    }
}

/// Makes a socket fit for a proxied client: no Nagle, the dead found within two minutes, and a
/// kernel buffer that does not hide a slow reader.
///
/// # Errors
///
/// The peer may be gone already.
pub fn tune(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Keepalive does not look at a peer to whom something is on its way, and to a reader it always is.
    socket.set_tcp_user_timeout(Some(FOUND_DEAD_TIMEOUT))?;
    keep_alive(&socket)
}

/// Makes a socket fit for the printer: no Nagle, the dead found within two minutes, and within half
/// a minute when something is on its way to them. A busy printer may be silent for much longer, but
/// its TCP still answers.
///
/// # Errors
///
/// The printer may be gone already.
pub fn tune_upstream(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    keep_alive(&socket)
}

/// Makes a [tuned](tune_upstream) socket fit for a connection that is silent for minutes while work is
/// done: FTP's control connection during an upload.
///
/// In Linux a user timeout takes the place of the number of keepalive probes: with 30 s, the first
/// probe that is lost on a busy wireless network would be the end, and the upload's.
///
/// # Errors
///
/// The printer may be gone already.
pub fn tune_silent(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_user_timeout(Some(FOUND_DEAD_TIMEOUT))
}

/// What the kernel keeps for one end of a relay that has not taken it yet, in bytes; it takes twice
/// that for its own books.
///
/// A printer takes 75 kB/s at worst: what waits here is there within four seconds after the client
/// believes that all is sent, well before it gives up on the printer's answer.
const RELAY_SEND_BUFFER: usize = 128 * 1024;

/// Makes a client's FTP data connection ready: no Nagle.
///
/// # Errors
///
/// The connection may be lost already.
pub fn tune_data(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)
}

/// Makes either end of a relay fit for it: no Nagle, the dead found within two minutes, and a reset in
/// place of a FIN until `end_in_order`: whoever gets half a file, even because this program is
/// killed, learns that it is half a file.
///
/// # Errors
///
/// The peer may be gone already.
pub fn tune_relay(connection: &impl Connection) -> io::Result<()> {
    connection.set_reset_on_drop(true);
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(RELAY_SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(FOUND_DEAD_TIMEOUT))?;
    keep_alive(&socket)
}

/// How long a peer may be silent before it is asked whether it is there.
const ASKED_AFTER: Duration = Duration::from_secs(60);

/// How often it is asked then, until it answers.
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// How many questions it may leave unanswered.
const ASKED_TIMES: u32 = 4;

/// How long a peer may answer none of them.
const FOUND_DEAD_TIMEOUT: Duration = Duration::from_secs(120);
const _: () = assert!(
    FOUND_DEAD_TIMEOUT.as_secs()
        >= ASKED_AFTER.as_secs() + ASKED_EVERY.as_secs() * ASKED_TIMES as u64,
    "a peer is given up before it has missed as many questions as it may"
);

fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(ASKED_AFTER)
        .with_interval(ASKED_EVERY)
        .with_retries(ASKED_TIMES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::Builder;

    #[test]
    fn a_lost_keepalive_probe_does_not_end_an_upload() {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tune_upstream(&socket).unwrap();
            tune_silent(&socket).unwrap();
            let socket = SockRef::from(&socket);
            let asked_last = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap()
                    * socket.tcp_keepalive_retries().unwrap();
            assert!(socket.tcp_user_timeout().unwrap() >= Some(asked_last));
        });
    }
}
