//! One connection to the printer: its [address](super::host), TCP and TLS, each with a timeout.
//!
//! The printer may be off when the proxy starts, and may return with another address.

use alloc::rc::Rc;
use core::time::Duration;
use std::io;

use tokio::time::{sleep, timeout};

pub use super::dial_error::DialError;
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
