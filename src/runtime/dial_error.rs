//! Why there is no connection to the printer. Each error names its remedy.

use core::fmt;
use core::net::IpAddr;

use crate::cause::Cause;
use crate::tls::{ConnectError, Refusal};

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

    /// The cause in the catalogue.
    pub const fn cause(self) -> Cause {
        match self {
            Self::NoSuchName => Cause::NO_SUCH_NAME,
            Self::Itself(_) => Cause::ITSELF,
            Self::Off => Cause::PRINTER_OFF,
            Self::PortClosed { .. } => Cause::PORT_CLOSED,
            Self::NoHandshake => Cause::NO_HANDSHAKE,
            Self::Handshake(ConnectError::Left) => Cause::SLOTS_FULL,
            Self::Handshake(_) => Cause::NOT_TLS,
            Self::Refused(refusal) => refusal.cause(),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself(address) => self.cause().with(address).fmt(f),
            Self::PortClosed { port } => self.cause().with(port).fmt(f),
            Self::NoSuchName | Self::Off | Self::NoHandshake => self.cause().fmt(f),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Name;
    use alloc::string::ToString;

    /// As the service's status has it, which `pandaproxy check` reads.
    #[test]
    fn the_message_of_each_error_leads_to_its_cause() {
        let at = IpAddr::from([192, 168, 100, 200]);
        for error in [
            DialError::NoSuchName,
            DialError::Itself(at),
            DialError::Off,
            DialError::PortClosed { port: 8883 },
            DialError::NoHandshake,
            DialError::Handshake(ConnectError::NotTls),
            DialError::Handshake(ConnectError::Alert(80)),
            DialError::Refused(Refusal::WrongSerial { found: Name::of(b"01P00A999999999") }),
            DialError::Refused(Refusal::UnknownIssuer),
            DialError::Refused(Refusal::PinChanged),
        ] {
            let message = error.to_string();
            assert_eq!(Cause::of(&message), Some(error.cause()), "{message}");
        }
    }
}
