//! One connection to the printer: name, TCP, TLS, each with a timeout.
//!
//! Starting with the printer off is normal, and so is a printer that comes back under another address. Each
//! error names its remedy.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use tokio::time::timeout;

use super::net::{Connection, Net, Sockets};
pub use super::reconnect::BackOff;
use super::stream;
use crate::config::PrinterAddr;
use crate::tls::{ConnectError, Refusal, Trust};
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

/// One port of the printer, over TLS.
pub struct Dialler<N: Net = Sockets> {
    net: N,
    host: PrinterAddr,
    port: u16,
    trust: Trust,
}

impl<N: Net> Dialler<N> {
    /// Connects to `port` of the printer at `host`, whose certificate is verified as `trust` says.
    pub const fn new(net: N, host: PrinterAddr, port: u16, trust: Trust) -> Self {
        Self { net, host, port, trust }
    }

    /// A TCP connection to the printer, made ready for the printer's protocols.
    ///
    /// # Errors
    ///
    /// Those of [`reach`].
    pub async fn connect(&self) -> Result<N::Connection, DialError> {
        let connection = reach(&self.net, &self.host, self.port).await?;
        // Options that cannot be set belong to a lost connection, which the TLS handshake reports.
        let _lost = stream::tune_upstream(&connection);
        Ok(connection)
    }

    /// The TLS handshake over such a connection.
    ///
    /// # Errors
    ///
    /// The handshake failed or took longer than 15 s, or the certificate is not trusted.
    pub async fn secure(&self, connection: N::Connection) -> Result<N::PrinterStream, DialError> {
        match timeout(HANDSHAKE_TIMEOUT, self.net.connect_tls(&self.trust, connection)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(ConnectError::Refused(refusal))) => Err(DialError::Refused(refusal)),
            Ok(Err(error)) => Err(DialError::Handshake(error)),
            Err(_elapsed) => Err(DialError::NoHandshake),
        }
    }
}

impl<N: Net> Dial for Dialler<N> {
    type Stream = N::PrinterStream;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let connection = self.connect().await?;
        self.secure(connection).await
    }
}

/// A TCP connection to `port` of the printer at `host`. A name is resolved again each time, since the
/// printer may have another address than before.
///
/// # Errors
///
/// The name has no address, the printer does not answer within 10 s, or its port is closed.
pub async fn reach<N: Net>(
    net: &N,
    host: &PrinterAddr,
    port: u16,
) -> Result<N::Connection, DialError> {
    let address = address(net, host, port).await?;
    match timeout(CONNECT_TIMEOUT, net.connect(address)).await {
        Ok(Ok(connection)) => {
            trace::knows(address.ip());
            if let Ok(own) = connection.local_addr() {
                trace::knows(own.ip());
            }
            Ok(connection)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(DialError::PortClosed { port })
        }
        Ok(Err(_)) | Err(_) => Err(DialError::Off),
    }
}

/// The printer's address now.
async fn address<N: Net>(net: &N, host: &PrinterAddr, port: u16) -> Result<SocketAddr, DialError> {
    match host {
        PrinterAddr::Ip(address) => Ok(SocketAddr::new(*address, port)),
        PrinterAddr::Name(name) => match timeout(RESOLVE_TIMEOUT, net.resolve(name, port)).await {
            Ok(Ok(address)) => Ok(address),
            Ok(Err(_)) | Err(_) => Err(DialError::NoSuchName),
        },
    }
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
