//! Why a printer's certificate is rejected, and what the user can do about it.

use core::error::Error;
use core::fmt;

use crate::cause::Cause;

/// Why a printer's certificate is rejected.
///
/// `Display` is the cause, to stand behind "the printer's certificate is rejected: ", and a hint behind `; `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The certificate is another printer's.
    WrongSerial {
        /// The serial number in the certificate.
        found: Name,
    },
    /// The certificate has no common name, or several.
    NotOneName,
    /// The certificate, or one sent along, is not valid DER or contradicts itself.
    Malformed,
    /// More certificates, or a longer one, than [`chain`](super::chain) accepts.
    TooLong,
    /// The issuer is unknown and the certificate must not be pinned: it is v1, an unknown authority was sent
    /// along, or the printer's model has a known authority.
    UnknownIssuer,
    /// The certificate names a known issuer, or one that was sent along, whose key did not sign it. It is
    /// never pinned.
    BadSignature,
    /// The signature algorithm is neither RSA nor ECDSA with SHA-256. No printer uses another one.
    WeakSignature,
    /// The certificate is an authority's, not a printer's.
    NotALeaf,
    /// The certificate is signed by one that was sent along and must not sign.
    NotAnAuthority,
    /// More intermediate authorities than one of them, or [`chain`](super::chain), allows.
    PathTooLong,
    /// The certificate has a critical extension that this program does not know.
    CriticalExtension,
    /// The certificate has expired.
    Expired,
    /// The certificate differs from the pinned one.
    PinChanged,
    /// The pins cannot be read, so the certificate cannot be compared.
    PinsUnreadable,
    /// The certificate cannot be pinned. Accepting it unpinned would accept any certificate after each start.
    NotPinned,
    /// The printer does not have the private key of its certificate.
    NotItsKey,
}

impl Refusal {
    /// The cause in the catalogue.
    pub const fn cause(self) -> Cause {
        match self {
            Self::WrongSerial { .. } => Cause::WRONG_SERIAL,
            Self::UnknownIssuer => Cause::UNKNOWN_AUTHORITY,
            Self::NotOneName
            | Self::Malformed
            | Self::TooLong
            | Self::BadSignature
            | Self::WeakSignature
            | Self::NotALeaf
            | Self::NotAnAuthority
            | Self::PathTooLong
            | Self::CriticalExtension
            | Self::Expired
            | Self::PinChanged
            | Self::PinsUnreadable
            | Self::NotPinned
            | Self::NotItsKey => Cause::CERTIFICATE,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongSerial { found } => return Cause::WRONG_SERIAL.with(found).fmt(f),
            Self::NotOneName => "not exactly one common name; is this address a printer?",
            Self::Malformed => "malformed; is this address a printer?",
            Self::TooLong => "certificate chain too long; is this address a printer?",
            Self::UnknownIssuer => return Cause::UNKNOWN_AUTHORITY.fmt(f),
            Self::BadSignature => {
                "not signed by the authority it names; possible man in the middle, or a new authority of \
                 Bambu Lab (give it with --printer-ca)"
            }
            Self::WeakSignature => "not signed with SHA-256; is this address a printer?",
            Self::NotALeaf => "an authority's certificate; is this address a printer?",
            Self::NotAnAuthority => {
                "signed by a certificate that must not sign; possible man in the middle"
            }
            Self::PathTooLong => {
                "too many intermediate authorities; give one of them with --printer-ca"
            }
            Self::CriticalExtension => "unknown critical extension; update pandaproxy",
            Self::Expired => {
                "expired; check the date of this machine, then update the printer's firmware"
            }
            Self::PinChanged => {
                "differs from the pinned certificate; possible man in the middle; if the printer was \
                 repaired or reset, remove its line from /var/lib/pandaproxy/pins (or pins in --state-dir)"
            }
            Self::PinsUnreadable => {
                "pins unreadable; repair or remove /var/lib/pandaproxy/pins (or pins in --state-dir)"
            }
            Self::NotPinned => {
                "signed by an unknown authority, and cannot be pinned; make /var/lib/pandaproxy/pins (or \
                 pins in --state-dir) writable (16 printers at most), or give the authority with --printer-ca"
            }
            Self::NotItsKey => "private key does not match; possible man in the middle",
        })
    }
}

impl Error for Refusal {}

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let all = [
        Refusal::WrongSerial { found: Name::of(b"01P00A3C1200417") },
        Refusal::NotOneName,
        Refusal::Malformed,
        Refusal::TooLong,
        Refusal::UnknownIssuer,
        Refusal::BadSignature,
        Refusal::WeakSignature,
        Refusal::NotALeaf,
        Refusal::NotAnAuthority,
        Refusal::PathTooLong,
        Refusal::CriticalExtension,
        Refusal::Expired,
        Refusal::PinChanged,
        Refusal::PinsUnreadable,
        Refusal::NotPinned,
        Refusal::NotItsKey,
    ];
    all.iter().map(ToString::to_string).collect()
}

/// Bytes of the longest [`Name`]. A serial number has 15, a host name seldom more than 40.
const NAME: usize = 48;

/// A name that a peer has sent: cut to 48 bytes, with `?` for what is not printable ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Invariant: printable ASCII up to `len`, zero behind it.
    bytes: [u8; NAME],
    len: usize,
}

impl Name {
    /// The name in these bytes.
    pub fn of(given: &[u8]) -> Self {
        let mut bytes = [0; NAME];
        for (to, &from) in bytes.iter_mut().zip(given) {
            *to = if from.is_ascii_graphic() { from } else { b'?' };
        }
        Self { bytes, len: given.len().min(NAME) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_unverified_name_is_printable_and_short() {
        assert_eq!(Name::of(b"01S00C\n\x1b[31m\xff").to_string(), "01S00C??[31m?");
        assert_eq!(Name::of(&[b'A'; 1000]).as_str().len(), NAME);
        assert_eq!(Name::of(b"").as_str(), "");
    }
}
