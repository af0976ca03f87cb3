//! Why an update file, or the keys that it is verified with, are refused.

use alloc::string::String;
use core::fmt;

use super::header::{Board, MAX_HEADER};
use super::keys::Fingerprint;

/// Why a file is not an update that may be installed here. `Display` is `EVENT; HINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The file does not begin as an update file does.
    NotAnUpdate,
    /// The file has a format of a later version.
    Format,
    /// A line of the header ends with CR LF.
    CarriageReturn,
    /// A line of the header is not the expected one: its number and what it has to be.
    Line(usize, &'static str),
    /// The header does not end.
    HeaderTooLong,
    /// The file ends in its header.
    HeaderTruncated,
    /// No accepted key has made the signature.
    Signature,
    /// The key that has made the signature is revoked.
    Revoked(Fingerprint),
    /// The file is for another board.
    OtherBoard {
        /// The file's.
        found: Board,
        /// The expected one.
        expected: Board,
    },
    /// The file ends before its content does.
    Truncated {
        /// Bytes that are there.
        got: u64,
        /// Bytes that the header states.
        size: u64,
    },
    /// The file goes on behind its content.
    Longer(u64),
    /// The content is not what was signed.
    Hash,
    /// The file has an earlier version.
    Downgrade {
        /// The file's.
        to: String,
        /// The installed one.
        from: String,
    },
    /// It cannot be told which of both versions is the later one.
    NotOrdered {
        /// The file's.
        to: String,
        /// The installed one.
        from: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnUpdate => {
                f.write_str("not an update file; releases have pandaproxy-VERSION-BOARD.update")
            }
            Self::Format => f.write_str(
                "update file of a later format; install a version in between by another way first",
            ),
            Self::CarriageReturn => f.write_str(
                "lines of the header end with CR LF; transfer the file again, as binary",
            ),
            Self::Line(number, expected) => {
                write!(
                    f,
                    "line {number} of the header is not `{expected}`; download the file again"
                )
            }
            Self::HeaderTooLong => write!(
                f,
                "header longer than {MAX_HEADER} bytes; is the file an update of pandaproxy?"
            ),
            Self::HeaderTruncated => f.write_str("file ends in its header; download it again"),
            Self::Signature => f.write_str(
                "signature not made by an accepted key; download the file again from its publisher",
            ),
            Self::Revoked(key) => {
                write!(f, "signed by the revoked key {key}; download a later file")
            }
            Self::OtherBoard { found, expected } => write!(
                f,
                "for board {found}, not {expected}; take that board's file, or name the other by --board"
            ),
            Self::Truncated { got, size } => {
                write!(f, "file has {got} of {size} bytes of content; download it again")
            }
            Self::Longer(size) => {
                write!(f, "file goes on behind its {size} bytes of content; download it again")
            }
            Self::Hash => f.write_str("content is not what was signed; download the file again"),
            Self::Downgrade { to, from } => write!(
                f,
                "version {to} is earlier than the installed {from}; --allow-downgrade installs it"
            ),
            Self::NotOrdered { to, from } => write!(
                f,
                "version {to} may be earlier than the installed {from}; --allow-downgrade installs it"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

/// Why a file of keys cannot be used. `Display` is `EVENT; HINT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKeys {
    /// The file has no key.
    Empty,
    /// This line is neither PEM, nor a comment, nor `revoked FINGERPRINT`.
    Line(usize),
    /// The block that ends in this line is no Ed25519 public key.
    NotEd25519(usize),
    /// The block that begins in this line is another one than a public key.
    NotPublic(usize),
    /// More keys, or more revoked ones, than there is room for.
    TooMany(usize),
}

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no public key in it; the publisher has the file"),
            Self::Line(number) => write!(
                f,
                "line {number} is neither PEM, nor a # comment, nor `revoked FINGERPRINT`"
            ),
            Self::NotEd25519(number) => {
                write!(f, "key that ends in line {number} is not an Ed25519 public key")
            }
            Self::NotPublic(number) => write!(
                f,
                "line {number} begins another block than a public key; `openssl pkey -pubout` writes one"
            ),
            Self::TooMany(number) => {
                write!(f, "too many keys, from line {number} on; remove those that are not used")
            }
        }
    }
}

impl core::error::Error for BadKeys {}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<String> {
    use alloc::string::ToString;
    let board = |name: &str| Board::try_from(name).unwrap_or_default();
    let version = |name: &str| name.to_string();
    let refusals = [
        Refusal::NotAnUpdate,
        Refusal::Format,
        Refusal::CarriageReturn,
        Refusal::Line(5, "sha256 HASH"),
        Refusal::HeaderTooLong,
        Refusal::HeaderTruncated,
        Refusal::Signature,
        Refusal::Revoked(Fingerprint([0xa5; 32])),
        Refusal::OtherBoard { found: board("generic-aarch64"), expected: board("rpi-zero-2w") },
        Refusal::Truncated { got: 1_000_000, size: 2_692_132 },
        Refusal::Longer(2_692_132),
        Refusal::Hash,
        Refusal::Downgrade { to: version("0.1.0"), from: version("0.2.0.dev10+g766210a") },
        Refusal::NotOrdered { to: version("nightly"), from: version("0.2.0") },
    ];
    let keys = [
        BadKeys::Empty,
        BadKeys::Line(1),
        BadKeys::NotEd25519(3),
        BadKeys::NotPublic(1),
        BadKeys::TooMany(30),
    ];
    let refusals = refusals.iter().map(ToString::to_string);
    refusals.chain(keys.iter().map(ToString::to_string)).collect()
}
