//! Why a handshake came to nothing: what rustls says, sorted by what its reader should do.

use core::error::Error;
use core::fmt;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, InvalidMessage};

use super::refusal::Refusal;
use super::trust::refusal_of;
use crate::session::Blame;

/// Why a client's handshake came to nothing. `Display` is a clause about "the client".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// It will not have our certificate.
    Distrusts,
    /// What it sent is not TLS.
    NotTls,
    /// It wants a version or a cipher suite that we do not have.
    NothingInCommon,
    /// It gave another reason, by the number of a TLS alert (RFC 8446 §6).
    Alert(u8),
    /// It broke the protocol.
    Broken,
    /// It left in the middle.
    Left,
    /// The line failed.
    Io(ErrorKind),
}

impl HandshakeError {
    pub(super) fn of(error: &io::Error) -> Self {
        match Failure::of(error) {
            // Nobody verifies clients.
            Failure::Refused(_) | Failure::Broken => Self::Broken,
            Failure::NotTls => Self::NotTls,
            Failure::NothingInCommon => Self::NothingInCommon,
            Failure::Alert(alert) if DISTRUST.contains(&alert) => Self::Distrusts,
            Failure::Alert(alert) => Self::Alert(alert.into()),
            Failure::Left => Self::Left,
            Failure::Io(kind) => Self::Io(kind),
        }
    }

    /// Who caused it.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Distrusts
            | Self::NotTls
            | Self::NothingInCommon
            | Self::Alert(_)
            | Self::Broken => Blame::Peer,
            Self::Left | Self::Io(_) => Blame::Network,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusts => f.write_str(
                "the client does not trust this proxy's certificate: give it the CA that \
                 `pandaproxy ca` prints",
            ),
            Self::NotTls => f.write_str(
                "the client does not speak TLS: switch TLS (SSL) on in its settings for this port",
            ),
            Self::NothingInCommon => f.write_str(
                "the client offers no TLS version or cipher suite of ours: it needs TLS 1.2 with \
                 ECDHE, or 1.3; update it",
            ),
            Self::Alert(alert) => write!(
                f,
                "the client ended the handshake with TLS alert {alert}: its own log should say why"
            ),
            Self::Broken => f.write_str("the client broke the TLS protocol: update it"),
            Self::Left => f.write_str(
                "the client left during the handshake: if it does so each time, give it the CA that \
                 `pandaproxy ca` prints",
            ),
            Self::Io(kind) => write!(f, "the line to the client failed: {kind}"),
        }
    }
}

impl Error for HandshakeError {}

/// Why there is no connection with the printer. `Display` is a clause about "the printer".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// It is not who it should be.
    Refused(Refusal),
    /// What it sent is not TLS.
    NotTls,
    /// It does not speak TLS 1.2, or has no cipher suite of ours.
    NothingInCommon,
    /// It gave another reason, by the number of a TLS alert (RFC 5246 §7.2).
    Alert(u8),
    /// It broke the protocol.
    Broken,
    /// It left in the middle.
    Left,
    /// The line failed.
    Io(ErrorKind),
}

impl ConnectError {
    pub(super) fn of(error: &io::Error) -> Self {
        match Failure::of(error) {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::NotTls => Self::NotTls,
            Failure::NothingInCommon => Self::NothingInCommon,
            Failure::Alert(alert) if NOTHING_IN_COMMON.contains(&alert) => Self::NothingInCommon,
            Failure::Alert(alert) => Self::Alert(alert.into()),
            Failure::Broken => Self::Broken,
            Failure::Left => Self::Left,
            Failure::Io(kind) => Self::Io(kind),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "the printer is not believed: {refusal}"),
            Self::NotTls => f.write_str("what answers there does not speak TLS: is it the printer?"),
            Self::NothingInCommon => f.write_str(
                "the printer takes neither TLS 1.2 nor a cipher suite of ours: update its firmware, \
                 and report its model",
            ),
            Self::Alert(alert) => {
                write!(f, "the printer ended the handshake with TLS alert {alert}")
            }
            Self::Broken => f.write_str("the printer broke the TLS protocol: is it the printer?"),
            Self::Left => f.write_str(
                "the printer left during the handshake: it may be starting, or have no connection \
                 to spare",
            ),
            Self::Io(kind) => write!(f, "the line to the printer failed: {kind}"),
        }
    }
}

impl Error for ConnectError {}

/// What a client says that does not like our certificate.
const DISTRUST: [AlertDescription; 6] = [
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::UnsupportedCertificate,
];

/// What a printer says that likes none of what we offer.
const NOTHING_IN_COMMON: [AlertDescription; 3] = [
    AlertDescription::ProtocolVersion,
    AlertDescription::HandshakeFailure,
    AlertDescription::InsufficientSecurity,
];

/// A failed handshake, whoever began it.
enum Failure {
    Refused(Refusal),
    NotTls,
    NothingInCommon,
    Alert(AlertDescription),
    Broken,
    Left,
    Io(ErrorKind),
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::in_tls(error),
            None if error.kind() == ErrorKind::UnexpectedEof => Self::Left,
            None => Self::Io(error.kind()),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the rest is the peer's fault, whatever")]
    fn in_tls(error: &rustls::Error) -> Self {
        if let Some(refusal) = refusal_of(error) {
            return Self::Refused(refusal);
        }
        match error {
            rustls::Error::AlertReceived(alert) => Self::Alert(*alert),
            rustls::Error::PeerIncompatible(_) => Self::NothingInCommon,
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge,
            ) => Self::NotTls,
            _ => Self::Broken,
        }
    }
}
