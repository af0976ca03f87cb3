//! Errors of TLS handshakes: rustls' errors, sorted by what the reader of the log can do about them.

use core::error::Error;
use core::fmt;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, InvalidMessage};

use super::refusal::{Name, Refusal};
use super::trust::refusal_of;
use crate::cause::Cause;
use crate::journal::Kind;

/// Why a TLS handshake with a client failed. `Display` is the cause, and a hint behind `; `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The client does not trust the proxy's certificate (TLS alert 42 to 46 or 48).
    Distrusts,
    /// The client asked for this name (SNI), which the proxy's certificate does not have, and rejected the certificate
    /// (TLS alert 42 or 46).
    NotNamed(Name),
    /// The client asked for no name, as one does that connects to an address, and rejected the certificate (TLS alert 42
    /// or 46): the address or the authority may be the reason.
    NotAddressed,
    /// The client's first bytes are not a TLS record.
    NotTls,
    /// Client and proxy have no TLS version or no cipher suite in common.
    NothingInCommon,
    /// The client sent another TLS alert, with this number (RFC 8446 §6).
    Alert(u8),
    /// The client violated the TLS protocol.
    Broken,
    /// The client closed the connection during the handshake.
    Left,
    /// The connection failed.
    Io(ErrorKind),
}

impl HandshakeError {
    /// `asked` is the name that the client asked for; `None` before its ClientHello.
    pub(super) fn of(error: &io::Error, asked: Option<Asked>) -> Self {
        match (Failure::of(error), asked) {
            (Failure::Alert(alert), Some(Asked::Unknown(name))) if NOT_NAMED.contains(&alert) => {
                Self::NotNamed(name)
            }
            (Failure::Alert(alert), Some(Asked::Nothing)) if NOT_NAMED.contains(&alert) => {
                Self::NotAddressed
            }
            (failure, _) => Self::from(&failure),
        }
    }

    fn from(failure: &Failure) -> Self {
        match *failure {
            // The proxy asks clients for no certificate, so `Refused` does not occur here.
            Failure::Refused(_) | Failure::Broken => Self::Broken,
            Failure::NotTls => Self::NotTls,
            Failure::NothingInCommon => Self::NothingInCommon,
            Failure::Alert(alert) if DISTRUST.contains(&alert) => Self::Distrusts,
            Failure::Alert(alert) => Self::Alert(alert.into()),
            Failure::Left => Self::Left,
            Failure::Io(kind) => Self::Io(kind),
        }
    }

    /// How the journal counts it.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Distrusts
            | Self::NotNamed(_)
            | Self::NotAddressed
            | Self::NotTls
            | Self::NothingInCommon
            | Self::Alert(_)
            | Self::Broken => Kind::Malformed,
            Self::Left | Self::Io(_) => Kind::Left,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusts => Cause::CLIENT_TRUST.fmt(f),
            Self::NotNamed(name) => Cause::CLIENT_NAME.with(name).fmt(f),
            Self::NotAddressed => write!(
                f,
                "{}; if the client has it, add the address that it connects to with --advertise-ip",
                Cause::CLIENT_TRUST
            ),
            Self::NotTls => f.write_str(
                "not a TLS connection; switch on TLS (SSL) for this port in the client's settings",
            ),
            Self::NothingInCommon => f.write_str(
                "no TLS version or cipher suite in common; update the client: it needs TLS 1.2 with \
                 ECDHE, or TLS 1.3",
            ),
            Self::Alert(alert) => {
                write!(f, "TLS alert {alert} during the handshake; see the client's log")
            }
            Self::Broken => f.write_str("TLS protocol error; update the client"),
            Self::Left => f.write_str(
                "connection closed during the TLS handshake; if this repeats, import the authority \
                 that `sudo pandaproxy ca` prints into the client",
            ),
            Self::Io(kind) => write!(f, "connection lost during the TLS handshake: {kind}"),
        }
    }
}

impl Error for HandshakeError {}

/// The name that a client asked for (SNI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A name that the certificate has.
    Known,
    /// A name that the certificate does not have.
    Unknown(Name),
    /// No name: clients ask for none when they connect to an address.
    Nothing,
}

/// Why a TLS handshake with the printer failed. `Display` is the cause, and a hint behind `; `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The printer's certificate was rejected.
    Refused(Refusal),
    /// The first bytes received are not a TLS record.
    NotTls,
    /// The printer does not offer TLS 1.2, or has no cipher suite in common with the proxy.
    NothingInCommon,
    /// The printer sent another TLS alert, with this number (RFC 5246 §7.2).
    Alert(u8),
    /// The printer violated the TLS protocol.
    Broken,
    /// The printer closed the connection during the handshake.
    Left,
    /// The connection failed.
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
            Self::Refused(refusal) => write!(f, "the printer's certificate is rejected: {refusal}"),
            Self::NotTls => f.write_str("not a TLS connection; is this address a printer?"),
            Self::NothingInCommon => f.write_str(
                "no TLS version or cipher suite in common; update the printer's firmware, or report \
                 its model",
            ),
            Self::Alert(alert) => write!(f, "TLS alert {alert} from the printer"),
            Self::Broken => f.write_str("TLS protocol error; is this address a printer?"),
            Self::Left => f.write_str(
                "connection closed by the printer; it may be starting, or have too many connections",
            ),
            Self::Io(kind) => write!(f, "connection lost: {kind}"),
        }
    }
}

impl Error for ConnectError {}

/// TLS alerts of clients that do not trust the proxy's certificate (RFC 8446 §6.2).
const DISTRUST: [AlertDescription; 6] = [
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::UnsupportedCertificate,
];

/// TLS alerts of clients that find another name or address in the certificate (RFC 8446 §6.2).
const NOT_NAMED: [AlertDescription; 2] =
    [AlertDescription::BadCertificate, AlertDescription::CertificateUnknown];

/// TLS alerts of printers that accept no version or cipher suite of the proxy's (RFC 5246 §7.2.2).
const NOTHING_IN_COMMON: [AlertDescription; 3] = [
    AlertDescription::ProtocolVersion,
    AlertDescription::HandshakeFailure,
    AlertDescription::InsufficientSecurity,
];

/// Why a handshake failed, as a client or as a server.
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

    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors are the peer's")]
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

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let kind = ErrorKind::ConnectionReset;
    let of_clients = [
        HandshakeError::Distrusts,
        HandshakeError::NotNamed(Name::of(b"printer.workshop.home.example")),
        HandshakeError::NotAddressed,
        HandshakeError::NotTls,
        HandshakeError::NothingInCommon,
        HandshakeError::Alert(80),
        HandshakeError::Broken,
        HandshakeError::Left,
        HandshakeError::Io(kind),
    ];
    let of_printers = [
        ConnectError::Refused(Refusal::Expired),
        ConnectError::NotTls,
        ConnectError::NothingInCommon,
        ConnectError::Alert(80),
        ConnectError::Broken,
        ConnectError::Left,
        ConnectError::Io(kind),
    ];
    let clients = of_clients.iter().map(ToString::to_string);
    clients.chain(of_printers.iter().map(ToString::to_string)).collect()
}
