//! A tokio stream as an `embedded-io-async` stream, with a timeout for every write, and the socket options of all
//! connections. Bytes are counted ([`counts`]) and recorded ([`trace`]) here, because here they are not encrypted.
//!
//! A connection whose write makes no progress for [`WRITE_TIMEOUT`] is closed: a sleeping laptop, a phone out of
//! range, a viewer that never reads. Reads have no timeout here: a client may be silent for any time its protocol
//! allows, and TCP keepalive finds peers that are gone.

use core::fmt;
use core::time::Duration;
use std::io;

use embedded_io_async::{Error, ErrorKind, ErrorType, Read, Write};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Clock;
use super::net::Connection;
use crate::counts::{self, Count};
use crate::trace::{self, Party, Protocol, Tap};

/// Time after which a write without progress fails.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The same towards the printer: one that reads slowly, or stops for a while, is alive. A connection that is made anew
/// may abort its job ([`protocol`](crate::protocol#mqtt)).
pub const PRINTER_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which an orderly close (TLS `close_notify`, FIN) has to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The kernel's send buffer of a client's connection, in bytes.
///
/// The buffer is small, so that a slow client is noticed by its full ring, where it can be resynchronised, rather than
/// served minutes of stale reports from the kernel's memory.
const SEND_BUFFER: usize = 32 * 1024;

/// A stream whose writes fail after [`WRITE_TIMEOUT`] without progress, or [`PRINTER_WRITE_TIMEOUT`].
pub struct Stream<T> {
    inner: T,
    write_timeout: Duration,
    tap: Option<Tap>,
    clock: Clock,
    /// The service whose traffic it is, and how what is received and sent is counted.
    service: &'static str,
    counts: [Count; 2],
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// Wraps a stream to `party`, and records it as `protocol` if recording is on.
    pub fn new(inner: T, protocol: Protocol, party: Party, clock: &Clock) -> Self {
        let (write_timeout, counts) = match party {
            Party::Client(_) => (WRITE_TIMEOUT, [Count::FromClient, Count::ToClient]),
            Party::Printer => (PRINTER_WRITE_TIMEOUT, [Count::FromPrinter, Count::ToPrinter]),
        };
        Self {
            inner,
            write_timeout,
            tap: trace::begin(protocol, party, clock.now()),
            clock: *clock,
            service: protocol.service(),
            counts,
        }
    }

    /// Counts the bytes as those of this service.
    pub const fn of(mut self, service: &'static str) -> Self {
        self.service = service;
        self
    }

    /// Closes the stream in order (TLS `close_notify`, FIN), within two seconds.
    pub async fn close(&mut self) {
        // Errors change nothing: the stream is dropped next.
        let _closed = timeout(CLOSE_TIMEOUT, self.inner.shutdown()).await;
    }
}

/// Why a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// A write made no progress for this time ([`WRITE_TIMEOUT`]), or one piece of output was not sent within it
    /// ([`drive`](super::drive)).
    Stalled(Duration),
    /// The operating system or TLS reported an error.
    Lost(io::ErrorKind),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled(time) => write!(f, "write timed out after {} s", time.as_secs()),
            Self::Lost(kind) => write!(f, "connection lost: {kind}"),
        }
    }
}

impl core::error::Error for StreamError {}

impl Error for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Stalled(_) => ErrorKind::TimedOut,
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
        let [received, _] = self.counts;
        counts::add(self.service, received, len as u64);
        if let Some(tap) = &mut self.tap {
            tap.received(buf.get(..len).unwrap_or_default(), self.clock.now());
        }
        Ok(len)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for Stream<T> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, StreamError> {
        match timeout(self.write_timeout, self.inner.write(buf)).await {
            // `write_all` would panic if `write` returned `Ok(0)`.
            Ok(Ok(0)) => Err(StreamError::Lost(io::ErrorKind::WriteZero)),
            Ok(written) => {
                let len = written?;
                let [_, sent] = self.counts;
                counts::add(self.service, sent, len as u64);
                if let Some(tap) = &mut self.tap {
                    tap.sent(buf.get(..len).unwrap_or_default(), self.clock.now());
                }
                Ok(len)
            }
            Err(_elapsed) => Err(StreamError::Stalled(self.write_timeout)),
        }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        match timeout(self.write_timeout, self.inner.flush()).await {
            Ok(flushed) => Ok(flushed?),
            Err(_elapsed) => Err(StreamError::Stalled(self.write_timeout)),
        }
    }
}

/// Sets the options of a client's socket: `TCP_NODELAY`, keepalive that finds a peer that is gone within two
/// minutes, and a send buffer of 32 KiB.
///
/// # Errors
///
/// The connection is lost already.
pub fn tune(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Keepalive does not probe while data are unacknowledged, which is always so for a client that reads reports.
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    keep_alive(&socket)
}

/// Sets the options of a socket to the printer: `TCP_NODELAY`, keepalive that finds a printer that is gone within
/// two minutes, and a user timeout of 30 s for unacknowledged data. The program of a busy printer may be silent
/// for longer, but its TCP still acknowledges.
///
/// # Errors
///
/// The connection is lost already.
pub fn tune_upstream(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    keep_alive(&socket)
}

/// Raises the user timeout of a socket set up by [`tune_upstream`] to two minutes, for a connection that is silent
/// for minutes: FTP's control connection during an upload.
///
/// In Linux a user timeout replaces the number of keepalive probes: with 30 s, one probe lost on a busy wireless
/// network would end the connection, and the upload with it.
///
/// # Errors
///
/// The connection is lost already.
pub fn tune_silent(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// The kernel's send buffer for either end of a relay, in bytes. Linux doubles it for its own bookkeeping.
///
/// The slowest printer receives 75 kB/s: the buffer is empty within four seconds after the client has sent its
/// last byte, well before the client gives up waiting for the printer's reply.
const RELAY_SEND_BUFFER: usize = 128 * 1024;

/// Sets the options of a client's FTP data connection: `TCP_NODELAY`.
///
/// # Errors
///
/// The connection is lost already.
pub fn tune_data(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)
}

/// Sets the options of either end of a relay: `TCP_NODELAY`, keepalive that finds a peer that is gone within two
/// minutes, and a reset in place of a FIN until the transfer has ended in order: a receiver of half a file, even
/// because this program was killed, sees that the file is not complete.
///
/// # Errors
///
/// The connection is lost already.
pub fn tune_relay(connection: &impl Connection) -> io::Result<()> {
    connection.set_reset_on_drop(true);
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(RELAY_SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    keep_alive(&socket)
}

/// Time without traffic after which the kernel sends the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Time between two keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Keepalive probes that may remain unanswered.
const KEEPALIVE_PROBES: u32 = 4;

/// Time for which data or probes may remain unacknowledged (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(120);
const _: () = assert!(
    USER_TIMEOUT.as_secs()
        >= KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_PROBES as u64,
    "the user timeout ends before the last keepalive probe"
);

fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Messages of failed streams, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    [StreamError::Stalled(WRITE_TIMEOUT), StreamError::Lost(io::ErrorKind::ConnectionReset)]
        .map(|error| alloc::format!("mqtt 3 (192.168.1.7): client disconnected: {error}"))
        .into()
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
            let last_probe = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap()
                    * socket.tcp_keepalive_retries().unwrap();
            assert!(socket.tcp_user_timeout().unwrap() >= Some(last_probe));
        });
    }
}
