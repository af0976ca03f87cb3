//! One connection to the printer: name, TCP, TLS, each with a timeout.
//!
//! Starting with the printer off is normal, and so is a printer that comes back under another address. Each
//! error names its remedy.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub use super::reconnect::BackOff;
use super::stream;
use crate::config::PrinterAddr;
use crate::tls::{ClientStream, ConnectError, Refusal, Trust, connect};
use crate::trace;

/// How long the printer's name may take to be found.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TCP may take to the printer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TLS may take. A P1S needs 1.4 seconds for it when it has nothing else to do.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes connections to one printer.
pub trait Dial {
    /// A connection.
    type Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin;

    /// Makes one.
    fn dial(&mut self) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// A printer at an address, over TLS.
pub struct Dialler {
    host: PrinterAddr,
    port: u16,
    trust: Trust,
}

impl Dialler {
    /// The way to `host`, which is believed as `trust` says.
    pub const fn new(host: PrinterAddr, port: u16, trust: Trust) -> Self {
        Self { host, port, trust }
    }
}

impl Dial for Dialler {
    type Stream = ClientStream<TcpStream>;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let socket = reach(&self.host, self.port).await?;
        // A socket that cannot be tuned is a connection that is gone; TLS will say so.
        let _gone = stream::tune_upstream(&socket);
        match timeout(HANDSHAKE_TIMEOUT, connect(&self.trust, socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(ConnectError::Refused(refusal))) => Err(DialError::Refused(refusal)),
            Ok(Err(error)) => Err(DialError::Handshake(error)),
            Err(_elapsed) => Err(DialError::NoHandshake),
        }
    }
}

/// A bare connection to `port` of the printer at `host`, which may have got another address since the
/// last one.
///
/// # Errors
///
/// The name is not known, nobody answers within ten seconds, or not on this port.
pub async fn reach(host: &PrinterAddr, port: u16) -> Result<TcpStream, DialError> {
    let address = address(host, port).await?;
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => {
            trace::knows(address.ip());
            if let Ok(own) = socket.local_addr() {
                trace::knows(own.ip());
            }
            Ok(socket)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(DialError::PortClosed { port })
        }
        Ok(Err(_)) | Err(_) => Err(DialError::Off),
    }
}

/// The printer's address now.
async fn address(host: &PrinterAddr, port: u16) -> Result<SocketAddr, DialError> {
    let name = match host {
        PrinterAddr::Ip(address) => return Ok(SocketAddr::new(*address, port)),
        PrinterAddr::Name(name) => name.as_str(),
    };
    // The one place that needs a second thread: the system's resolver knows no other way.
    let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let Ok(Ok(found)) = found else { return Err(DialError::NoSuchName) };
    // Printers speak IPv4; another address of that name is a router's idea.
    let found: heapless::Vec<SocketAddr, 8> = found.take(8).collect();
    let address = found.iter().find(|found| found.is_ipv4()).or(found.first());
    address.copied().ok_or(DialError::NoSuchName)
}

/// Why there is no connection to the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The name stands for no address.
    NoSuchName,
    /// Nobody answers there.
    Off,
    /// Somebody is there, but not on this port.
    PortClosed {
        /// The port.
        port: u16,
    },
    /// TCP works, TLS does not answer.
    NoHandshake,
    /// TLS failed.
    Handshake(ConnectError),
    /// The certificate is not accepted.
    Refused(Refusal),
}

impl DialError {
    /// Whether trying again soon cannot help: somebody has to do something.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::NoSuchName
            | Self::Off
            | Self::PortClosed { .. }
            | Self::NoHandshake
            | Self::Handshake(_) => false,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => {
                f.write_str("the printer's name is unknown; give its address instead")
            }
            Self::Off => f.write_str(
                "the printer does not answer; is it switched on, and is this its address?",
            ),
            Self::PortClosed { port } => write!(
                f,
                "the printer's port {port} is closed; it is still starting, or LAN mode is off"
            ),
            Self::NoHandshake => f.write_str(
                "the printer does not answer the TLS handshake; other programs may hold all its \
                 connections: close them or restart the printer",
            ),
            Self::Handshake(error) => write!(f, "TLS handshake with the printer failed: {error}"),
            Self::Refused(refusal) => write!(f, "the printer's certificate is rejected: {refusal}"),
        }
    }
}

impl core::error::Error for DialError {}
