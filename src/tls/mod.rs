//! TLS: the only folder that knows rustls, and what certificates are made of.
//!
//! [`identity`] is what we show to clients, [`trust`] what we accept from printers, and here the
//! two meet a stream. Both sides are lenient about one thing: a peer that is gone without saying
//! so (close_notify) is simply gone. Printers and most MQTT clients part that way (PROTOCOL §1.4),
//! and every protocol here knows by itself when it has everything. We always say so ourselves,
//! when a stream is shut down.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | plaintext accepted and not yet sent | [`UNSENT`] | a write waits |
//! | a record received | 16 KiB, by TLS itself | the connection ends |
//! | a handshake message | 64 KiB, by rustls | the connection ends |

use alloc::sync::Arc;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, ErrorKind};

use rustls::HandshakeKind;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite as suite, default_provider};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::board::Suites;
use crate::memory::KIB;

pub use failure::{ConnectError, HandshakeError};
pub use identity::{CaError, Identity, IdentityError, Subject};
pub use refusal::{Name, Refusal};
pub use rustls::ServerConfig;
pub use trust::{Policy, Trust, TrustError};

pub mod authorities;
pub mod certificate;
pub mod chain;
mod failure;
pub mod greeting;
pub mod identity;
mod keys;
pub mod refusal;
pub mod trust;
#[cfg(test)]
mod trust_tests;

/// Plaintext that one connection has accepted and not yet sent, in bytes: more than the largest
/// `BOARD.mqtt.outbox`, so that one piece of output leaves in one system call.
pub const UNSENT: usize = 24 * KIB;

/// ring's cryptography, with the cipher suites in the order a board can afford them.
///
/// Among AES suites the shorter key comes first: it is the cheaper, and nothing here needs more.
pub fn provider(suites: Suites) -> Arc<CryptoProvider> {
    let chacha = [
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let aes = [
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ];
    let cipher_suites = match suites {
        Suites::ChaChaFirst => chacha.into_iter().chain(aes).collect(),
        Suites::AesFirst => aes.into_iter().chain(chacha).collect(),
    };
    Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
}

/// Greets a client.
///
/// # Errors
///
/// Why there is no connection, as a clause about the client.
pub async fn accept<S>(
    config: &Arc<ServerConfig>,
    stream: S,
) -> Result<ServerStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    TlsAcceptor::from(Arc::clone(config))
        .accept_with(stream, |connection| connection.set_buffer_limit(Some(UNSENT)))
        .await
        .map(Lenient)
        .map_err(|error| HandshakeError::of(&error))
}

/// Greets a printer, and makes sure that it is the one.
///
/// # Errors
///
/// Why there is no connection, as a clause about the printer.
pub async fn connect<S>(trust: &Trust, stream: S) -> Result<ClientStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    trust.admit();
    TlsConnector::from(Arc::clone(trust.config()))
        .connect_with(trust.name().clone(), stream, |connection| {
            connection.set_buffer_limit(Some(UNSENT));
        })
        .await
        .map(Lenient)
        .map_err(|error| ConnectError::of(&error))
}

/// A connection with a client.
pub type ServerStream<S> = Lenient<server::TlsStream<S>>;

/// A connection with a printer.
pub type ClientStream<S> = Lenient<client::TlsStream<S>>;

/// A TLS stream on which a peer that leaves without close_notify has simply left.
#[derive(Debug)]
pub struct Lenient<T>(T);

impl<S> ServerStream<S> {
    /// Whether the client came back to an earlier session instead of starting a new one.
    ///
    /// With TLS 1.2 that session need not be the one of a particular other connection.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The stream below TLS.
    pub fn below(&self) -> &S {
        self.0.get_ref().0
    }

    /// Whether the client said that it has sent everything (close_notify), once it has been read to
    /// its end.
    pub fn has_said_goodbye(&mut self) -> bool {
        // Nothing is left to process at the end; this is how rustls tells its state.
        self.0.get_mut().1.process_new_packets().is_ok_and(|state| state.peer_has_closed())
    }
}

impl<S> ClientStream<S> {
    /// The stream below TLS.
    pub fn below(&self) -> &S {
        self.0.get_ref().0
    }

    /// Whether the printer let us come back to an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lenient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buffer)) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Lenient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Sends close_notify, and does not wait for the peer's.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use rustls::CipherSuite;

    #[test]
    fn a_board_gets_its_suites_first_and_all_nine_in_any_case() {
        for (suites, first) in [
            (Suites::ChaChaFirst, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
            (Suites::AesFirst, CipherSuite::TLS13_AES_128_GCM_SHA256),
        ] {
            let provider = provider(suites);
            let order: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
            assert_eq!(order[0], first);
            assert_eq!(order.len(), default_provider().cipher_suites.len());
        }
    }
}
