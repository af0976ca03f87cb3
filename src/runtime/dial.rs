//! One connection to the printer: its [address](super::host), TCP and TLS, each with a timeout.
//!
//! The printer may be off when the proxy starts, and may return with another address. Each error names its remedy.

use alloc::rc::Rc;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::io;

use tokio::time::{sleep, timeout};

use super::host::Host;
use super::net::{Connection, Net, Sockets};
use super::{pacing, stream};
use crate::tls::{ConnectError, Refusal, Trust};
use crate::trace;

/// Timeout of the TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of the TLS handshake. An idle P1S takes 1.4 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time in which the printer's certificate has to be pinned, where it is trusted on first use.
const PIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which it is looked at meanwhile: it is written once in a printer's life.
const PIN_INTERVAL: Duration = Duration::from_millis(20);

/// Makes connections to one printer.
pub trait Dial {
    /// A connection.
    type Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin;

    /// Makes one connection.
    ///
    /// # Errors
    ///
    /// The printer could not be reached, or its certificate is not trusted.
    fn dial(&mut self) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// Makes TLS connections to one port of the printer.
pub struct Dialler<N: Net = Sockets> {
    net: N,
    host: Rc<Host>,
    port: u16,
    trust: Trust,
    /// Whether the kernel keeps little of what the printer has not acknowledged.
    limits_unsent: bool,
}

impl<N: Net> Dialler<N> {
    /// Connects to `port` of the printer at `host`, whose certificate is verified as `trust` says.
    pub const fn new(net: N, host: Rc<Host>, port: u16, trust: Trust) -> Self {
        Self { net, host, port, trust, limits_unsent: false }
    }

    /// The same, with little in the kernel between this program and the printer: what is sent last does not wait
    /// behind seconds of what was sent before.
    #[must_use]
    pub fn with_limited_unsent(self) -> Self {
        Self { limits_unsent: true, ..self }
    }

    /// Makes a TCP connection to the printer and sets its options ([`stream::tune_upstream`]).
    ///
    /// # Errors
    ///
    /// Errors of [`reach`].
    pub async fn connect(&self) -> Result<N::Connection, DialError> {
        let connection = reach(&self.net, &self.host, self.port).await?;
        // Options can only fail on a lost connection, which the TLS handshake then reports.
        let _lost = stream::tune_upstream(&connection);
        if self.limits_unsent {
            let _lost = pacing::limit_unsent(&connection);
        }
        Ok(connection)
    }

    /// Makes the TLS handshake over `connection`, which [`connect`](Self::connect) returned.
    ///
    /// # Errors
    ///
    /// The handshake failed or took longer than 15 s, or the certificate is not trusted. One that is trusted on first
    /// use has to be pinned within 10 s.
    pub async fn secure(&self, connection: N::Connection) -> Result<N::PrinterStream, DialError> {
        self.trust.refresh_pin();
        // Without it the handshake compares with what is known.
        let _known = self.pinned().await;
        match timeout(HANDSHAKE_TIMEOUT, self.net.connect_tls(&self.trust, connection)).await {
            Ok(Ok(stream)) => self.pinned().await.map(|()| stream).map_err(DialError::Refused),
            Ok(Err(ConnectError::Refused(refusal))) => Err(DialError::Refused(refusal)),
            Ok(Err(error)) => Err(DialError::Handshake(error)),
            Err(_elapsed) => Err(DialError::NoHandshake),
        }
    }

    /// Completes when nothing is being written or read about the printer's pin.
    async fn pinned(&self) -> Result<(), Refusal> {
        let settled = async {
            loop {
                if let Some(settled) = self.trust.pinned() {
                    return settled;
                }
                sleep(PIN_INTERVAL).await;
            }
        };
        timeout(PIN_TIMEOUT, settled).await.unwrap_or(Err(Refusal::NotPinned))
    }
}

impl<N: Net> Dial for Dialler<N> {
    type Stream = N::PrinterStream;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let connection = self.connect().await?;
        self.secure(connection).await
    }
}

/// Makes a TCP connection to `port` of the printer at `host`.
///
/// # Errors
///
/// Errors of [`Host::address`]; the printer does not answer within 10 s, or its port is closed.
pub async fn reach<N: Net>(
    net: &N,
    host: &Rc<Host>,
    port: u16,
) -> Result<N::Connection, DialError> {
    let address = host.address(net, port).await?;
    match timeout(CONNECT_TIMEOUT, net.connect(address)).await {
        Ok(Ok(connection)) => {
            host.set_reached(address.ip());
            trace::redact_address(address.ip());
            if let Ok(own) = connection.local_addr() {
                trace::redact_address(own.ip());
            }
            Ok(connection)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(DialError::PortClosed { port })
        }
        Ok(Err(_)) | Err(_) => {
            host.set_unreached(address.ip());
            Err(DialError::Off)
        }
    }
}

/// Why there is no connection to the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The printer's name could not be resolved.
    NoSuchName,
    /// The printer's address is one at which this program itself listens.
    Itself(IpAddr),
    /// No TCP answer within 10 s, or the network is unreachable.
    Off,
    /// The machine at the address refuses connections to this port.
    PortClosed {
        /// The port's number.
        port: u16,
    },
    /// TCP is connected, but the TLS handshake did not complete within 15 s.
    NoHandshake,
    /// The TLS handshake failed.
    Handshake(ConnectError),
    /// The certificate is not accepted.
    Refused(Refusal),
}

impl DialError {
    /// Whether a retry cannot help before the user changes something, so that retries are slow.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Refused(_) | Self::Itself(_) => true,
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
                f.write_str("the printer's name cannot be resolved; give its address instead")
            }
            Self::Itself(address) => write!(
                f,
                "the printer's address {address} is this machine: the proxy would connect to itself; give the \
                 printer's own address"
            ),
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
            Self::Handshake(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Refused(refusal) => write!(f, "the printer's certificate is rejected: {refusal}"),
        }
    }
}

impl core::error::Error for DialError {}

/// Messages of failed connections to the printer, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    [
        DialError::NoSuchName,
        DialError::Itself(IpAddr::from([192, 168, 100, 200])),
        DialError::Off,
        DialError::PortClosed { port: 8883 },
        DialError::NoHandshake,
        DialError::Handshake(ConnectError::Left),
    ]
    .map(|error| alloc::format!("mqtt: {error}"))
    .into()
}
