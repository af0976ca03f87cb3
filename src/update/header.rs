//! The header of an update file: six lines, signed, before the content.
//!
//! ```text
//! pandaproxy-update 1
//! board rpi-zero
//! version 0.2.0
//! size 2692132
//! sha256 1f9c…
//! signature BASE64
//! (empty)
//! (content, size bytes)
//! ```
//!
//! The signature is Ed25519 over the bytes of the lines before it, their line ends included. The lines have this order
//! and this form, one space between key and value and LF at the end, so that there is one header for one meaning. The
//! content is any file for that board: a program, or the image of a memory card.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the header | [`MAX_HEADER`] | the file is refused |
//! | the content | [`MAX_SIZE`] | the same |

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};

use super::keys::{Fingerprint, Keys, hexadecimal};
use super::refusal::Refusal;

/// Bytes of a header at most, its empty line included.
pub const MAX_HEADER: usize = 1024;

/// Bytes of a content at most: a memory card's image has some tens of MiB.
pub const MAX_SIZE: u64 = 1 << 30;

/// Name of a board.
pub type Board = heapless::String<32>;

/// Name of a version.
pub type Version = heapless::String<64>;

/// Bytes of an Ed25519 signature.
const SIGNATURE_LEN: usize = 64;

/// A header whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The board that the content is for.
    pub board: Board,
    /// The content's version.
    pub version: Version,
    /// Bytes of the content; never 0.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// The key that has signed.
    pub signer: Fingerprint,
}

impl Header {
    /// Reads the header at the front of `bytes`. Returns it with its length, or `None` if more bytes are needed; there
    /// are at most [`MAX_HEADER`] bytes to give. A header is returned only if its signature is good.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: what is there cannot become a header that is accepted.
    pub fn parse(bytes: &[u8], keys: &Keys) -> Result<Option<(Self, usize)>, Refusal> {
        const MAGIC: &[u8] = b"pandaproxy-update ";
        let known = bytes.len().min(MAGIC.len());
        if bytes.get(..known) != MAGIC.get(..known) {
            return Err(Refusal::NotAnUpdate);
        }
        let bytes = bytes.get(..MAX_HEADER).unwrap_or(bytes);
        let end = bytes.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
        let Some(end) = end else {
            let is_crlf = bytes.windows(2).any(|two| two == b"\r\n");
            return match (is_crlf, bytes.len() == MAX_HEADER) {
                (true, _) => Err(Refusal::CarriageReturn),
                (false, true) => Err(Refusal::HeaderTooLong),
                (false, false) => Ok(None),
            };
        };
        let header = bytes.get(..end).unwrap_or_default();
        Self::of(header, keys).map(|header| Some((header, end)))
    }

    /// A whole header, its empty line included.
    fn of(text: &[u8], keys: &Keys) -> Result<Self, Refusal> {
        const SIGNATURE: &str = "signature BASE64";
        let mut lines = Lines { text, at: 0, number: 0 };
        if lines.next() != Some(b"pandaproxy-update 1") {
            return Err(Refusal::Format);
        }
        let board = lines.value("board BOARD", b"board ", board)?;
        let version = lines.value("version VERSION", b"version ", version)?;
        let size = lines.value("size BYTES", b"size ", size)?;
        let sha256 = lines.value("sha256 HASH", b"sha256 ", |value| {
            hexadecimal(core::str::from_utf8(value).ok()?)
        })?;
        let signed = text.get(..lines.at).unwrap_or_default();
        let signature = lines.value(SIGNATURE, b"signature ", signature)?;
        if lines.next() != Some(b"") {
            return Err(Refusal::Line(lines.number, "(empty)"));
        }
        let signer = keys.verify(signed, &signature)?;
        Ok(Self { board, version, size, sha256, signer })
    }

    /// Whether the content is for this board.
    ///
    /// # Errors
    ///
    /// [`Refusal::OtherBoard`].
    pub fn check_board(&self, expected: &str) -> Result<(), Refusal> {
        if *self.board == *expected {
            return Ok(());
        }
        // A name that is too long is that of no board.
        let expected = Board::try_from(expected).unwrap_or_default();
        Err(Refusal::OtherBoard { found: self.board.clone(), expected })
    }
}

/// What the file is, in one line each as the header has them, and who has signed it.
impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { board, version, size, sha256, signer } = self;
        let sha256 = Fingerprint(*sha256);
        writeln!(f, "board {board}\nversion {version}\nsize {size}\nsha256 {sha256}")?;
        writeln!(f, "key {signer}")
    }
}

/// The lines of a header.
struct Lines<'a> {
    text: &'a [u8],
    /// Where the next one begins.
    at: usize,
    /// Number of the last one.
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its line end.
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += len + 1;
        self.number += 1;
        rest.get(..len)
    }

    /// The value of the next line, which begins with `key`.
    fn value<T>(
        &mut self,
        expected: &'static str,
        key: &[u8],
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, Refusal> {
        let line = self.next();
        if line.is_some_and(|line| line.ends_with(b"\r")) {
            return Err(Refusal::CarriageReturn);
        }
        let value = line.and_then(|line| line.strip_prefix(key)).and_then(read);
        value.ok_or(Refusal::Line(self.number, expected))
    }
}

/// Small letters, digits, `-` and `_`: the name of a folder of `boards`.
fn board(value: &[u8]) -> Option<Board> {
    let is_plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let text = core::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
    value.iter().all(is_plain).then(|| Board::try_from(text).ok())?
}

/// Letters, digits, and what stands between them in a version.
fn version(value: &[u8]) -> Option<Version> {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~' | b'-');
    let text = core::str::from_utf8(value).ok().filter(|text| !text.is_empty())?;
    value.iter().all(is_plain).then(|| Version::try_from(text).ok())?
}

/// A number without leading zeros, from 1 to [`MAX_SIZE`].
fn size(value: &[u8]) -> Option<u64> {
    let is_plain = value.iter().all(u8::is_ascii_digit) && !value.starts_with(b"0");
    let text = core::str::from_utf8(value).ok().filter(|_| is_plain)?;
    text.parse().ok().filter(|size| (1..=MAX_SIZE).contains(size))
}

fn signature(value: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
    // Base64 is decoded in groups of three bytes.
    let mut bytes = [0; SIGNATURE_LEN.div_ceil(3) * 3];
    let len = STANDARD.decode_slice(value, &mut bytes).ok()?;
    bytes.get(..len)?.try_into().ok()
}

/// The content as it comes in, in any pieces: counted and hashed.
pub struct Content {
    size: u64,
    sha256: [u8; 32],
    got: u64,
    hash: Context,
}

impl Content {
    /// The content that this header announces.
    pub fn new(header: &Header) -> Self {
        let Header { size, sha256, .. } = *header;
        Self { size, sha256, got: 0, hash: Context::new(&SHA256) }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`Refusal::Longer`].
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.got = self.got.saturating_add(piece.len() as u64);
        if self.got > self.size {
            return Err(Refusal::Longer(self.size));
        }
        self.hash.update(piece);
        Ok(())
    }

    /// The file has ended.
    ///
    /// # Errors
    ///
    /// The content is not whole, or not what was signed.
    pub fn finish(self) -> Result<(), Refusal> {
        let Self { size, sha256, got, hash } = self;
        if got < size {
            return Err(Refusal::Truncated { got, size });
        }
        if hash.finish().as_ref() == sha256 { Ok(()) } else { Err(Refusal::Hash) }
    }
}
