//! TLS: the only module that uses rustls and X.509 certificates.
//!
//! [`identity`] makes the proxy's certificates, [`trust`] verifies the printer's, and this file makes TLS
//! streams of connections. An end of TCP without close_notify counts as an orderly end in both directions:
//! printers and most clients close that way ([`protocol`](crate::protocol#certificates)), and each protocol here
//! knows by itself whether a message is complete. The proxy itself sends close_notify when a stream is shut down.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | plaintext accepted and not yet sent | [`UNSENT`] | a write waits |
//! | a record received | 16 KiB, by TLS itself | the connection ends |
//! | a handshake message | 64 KiB, by rustls | the connection ends |

use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::{Pin, pin};
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
pub use identity::{CaError, Directories, Identity, IdentityError, Subject};
pub use refusal::{Name, Refusal};
pub use rustls::ServerConfig;
pub use trust::{Policy, Trust, TrustError};

pub mod authorities;
pub mod certificate;
pub mod chain;
mod failure;
pub mod greeting;
pub mod identity;
pub mod issuers;
mod keys;
pub mod refusal;
pub mod trust;
#[cfg(test)]
mod trust_tests;

/// Plaintext that one connection has accepted and not yet sent, in bytes: more than the largest
/// `BOARD.mqtt.outbox`, so that one piece of output leaves in one system call.
pub const UNSENT: usize = 24 * KIB;

/// ring's cryptography provider, with the cipher suites in the board's order of preference.
///
/// AES-128 comes before AES-256, which is slower.
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

/// Makes the TLS handshake with a client. No timeout: the caller sets one.
///
/// # Errors
///
/// [`HandshakeError`].
pub async fn accept<S>(
    config: &Arc<ServerConfig>,
    stream: S,
) -> Result<ServerStream<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut accepting = pin!(
        TlsAcceptor::from(Arc::clone(config))
            .accept_with(stream, |connection| connection.set_buffer_limit(Some(UNSENT)))
    );
    let mut asked = None;
    let accepted = poll_fn(|cx| {
        let polled = accepting.as_mut().poll(cx);
        asked = identity::take_asked().or(asked);
        polled
    });
    accepted.await.map(Lenient).map_err(|error| HandshakeError::of(&error, asked))
}

/// Makes the TLS handshake with the printer and verifies its certificate as `trust` demands. No timeout: the
/// caller sets one.
///
/// # Errors
///
/// [`ConnectError`].
pub async fn connect<S>(trust: &Trust, stream: S) -> Result<ClientStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    trust.warn_if_insecure();
    TlsConnector::from(Arc::clone(trust.config()))
        .connect_with(trust.name().clone(), stream, |connection| {
            connection.set_buffer_limit(Some(UNSENT));
        })
        .await
        .map(Lenient)
        .map_err(|error| ConnectError::of(&error))
}

/// A TLS connection to a client.
pub type ServerStream<S> = Lenient<server::TlsStream<S>>;

/// A TLS connection to a printer.
pub type ClientStream<S> = Lenient<client::TlsStream<S>>;

/// A TLS stream on which an end of TCP without close_notify is read as an orderly end.
#[derive(Debug)]
pub struct Lenient<T>(T);

impl<S> ServerStream<S> {
    /// Whether the client resumed an earlier TLS session.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The connection below TLS.
    pub fn below(&self) -> &S {
        self.0.get_ref().0
    }

    /// Whether the client has sent close_notify. Meaningful after reading to the end.
    pub fn has_sent_close_notify(&mut self) -> bool {
        // Processes nothing at the end; rustls reports its state this way.
        self.0.get_mut().1.process_new_packets().is_ok_and(|state| state.peer_has_closed())
    }
}

impl<S> ClientStream<S> {
    /// The connection below TLS.
    pub fn below(&self) -> &S {
        self.0.get_ref().0
    }

    /// Whether an earlier TLS session with the printer was resumed.
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

    /// Sends close_notify. Does not wait for the peer's.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    let modules = [
        failure::samples(),
        greeting::samples(),
        identity::samples(),
        issuers::samples(),
        refusal::samples(),
        trust::samples(),
    ];
    modules.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use rustls::CipherSuite;

    #[test]
    fn suites_are_in_the_boards_order_and_complete() {
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
