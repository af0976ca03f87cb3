//! Why a printer's certificate was not accepted, and what its owner should do about it.

use core::error::Error;
use core::fmt;

/// Why a printer was not believed to be the printer.
///
/// `Display` is a clause about "the printer"; the caller says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The certificate is another printer's.
    WrongSerial {
        /// What it says its printer's serial is.
        found: Name,
    },
    /// The certificate has no common name, or several.
    NotOneName,
    /// The certificate, or one sent along, does not follow its own form.
    Malformed,
    /// More certificates, or a longer one, than [`chain`](super::chain) looks at.
    TooLong,
    /// Its issuer is not known, and it could not be pinned (it is v1, or an authority was sent
    /// along that nobody known vouches for).
    UnknownIssuer,
    /// It names an issuer whose signature it does not carry. Nothing pins such a one.
    BadSignature,
    /// It is signed in a way that is no longer safe, or that no printer uses.
    WeakSignature,
    /// It is an authority's certificate, not a printer's.
    NotALeaf,
    /// A certificate sent along signed it, and may not.
    NotAnAuthority,
    /// More authorities stand between than one of them, or we, allow.
    PathTooLong,
    /// It has a critical extension that is not understood.
    CriticalExtension,
    /// It has ended.
    Expired,
    /// It is not the one that was pinned.
    PinChanged,
    /// The pins cannot be read, so nobody knows whether it is the one that was pinned.
    PinsUnreadable,
    /// It could not be pinned: believing it for now would be believing anybody after each start.
    NotPinned,
    /// The printer does not have the key of the certificate it shows.
    NotItsKey,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongSerial { found } => {
                return write!(
                    f,
                    "it says that it is printer {found}: give that serial number, or the right address"
                );
            }
            Self::NotOneName => {
                "its certificate does not have exactly one common name: is this address a printer?"
            }
            Self::Malformed => "its certificate is malformed: is this address a printer?",
            Self::TooLong => {
                "it sends more certificates than any printer does: is this address a printer?"
            }
            Self::UnknownIssuer => {
                "its certificate is by an authority nobody knows: give that authority with --printer-ca"
            }
            Self::BadSignature => {
                "its certificate names an authority that did not sign it: somebody may be in between; \
                 if Bambu Lab has a new authority, give it with --printer-ca"
            }
            Self::WeakSignature => {
                "its certificate is not signed with SHA-256: is this address a printer?"
            }
            Self::NotALeaf => {
                "it shows the certificate of an authority: is this address a printer?"
            }
            Self::NotAnAuthority => {
                "its certificate is signed by one that may not sign: somebody may be in between"
            }
            Self::PathTooLong => {
                "too many authorities stand between it and one that is known: give one of them with \
                 --printer-ca"
            }
            Self::CriticalExtension => {
                "its certificate demands something that this version does not understand: update \
                 pandaproxy"
            }
            Self::Expired => {
                "its certificate has expired: check the date of this machine, then update the printer"
            }
            Self::PinChanged => {
                "its certificate is not the one pinned earlier: somebody may be in between; if the \
                 printer was repaired or reset, remove its line from the file pins in the state \
                 directory"
            }
            Self::PinsUnreadable => {
                "the file pins in the state directory cannot be read: repair or remove it"
            }
            Self::NotPinned => {
                "its certificate is by an authority nobody knows and the file pins in the state \
                 directory cannot take it: make that file writable (it holds 16 printers), or give \
                 the authority with --printer-ca"
            }
            Self::NotItsKey => {
                "it does not have the key of the certificate it shows: somebody may be in between"
            }
        })
    }
}

impl Error for Refusal {}

/// The longest [`Name`], in bytes. A serial has 15.
const NAME: usize = 32;

/// A name as a stranger gave it: cut to 32 bytes, and fit to be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Invariant: printable ASCII up to `len`, zero behind it.
    bytes: [u8; NAME],
    len: usize,
}

impl Name {
    pub(super) fn of(given: &[u8]) -> Self {
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
    fn a_strangers_name_cannot_forge_a_log_line_nor_fill_it() {
        assert_eq!(Name::of(b"01S00C\n\x1b[31m\xff").to_string(), "01S00C??[31m?");
        assert_eq!(Name::of(&[b'A'; 1000]).as_str().len(), NAME);
        assert_eq!(Name::of(b"").as_str(), "");
    }
}
