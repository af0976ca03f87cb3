//! The publisher's keys: a file of Ed25519 public keys as `openssl pkey -pubout` writes them, one or several.
//!
//! A line `revoked FINGERPRINT` takes a key back: what it has signed is refused, also where the key still stands in the
//! file. What this build's file revokes is revoked in every other file as well. The fingerprint is the SHA-256 of the key's
//! DER, in hexadecimal. Lines that begin with `#` are comments.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | keys | [`MAX_KEYS`] | the file is refused |
//! | revoked keys | [`MAX_REVOKED`] | the same |

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::refusal::{BadKeys, Refusal};

/// Keys that may sign at once.
pub const MAX_KEYS: usize = 8;

/// Keys that are revoked.
pub const MAX_REVOKED: usize = 64;

/// DER of an Ed25519 public key (RFC 8410 §4), before its 32 bytes.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Bytes of the DER of a key.
const DER_LEN: usize = SPKI.len() + 32;

/// The SHA-256 of a public key's DER. `Display` is hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(der: &[u8]) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The keys that may sign updates, and those that may no longer.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: heapless::Vec<[u8; DER_LEN], MAX_KEYS>,
    /// Those of two files at most.
    revoked: heapless::Vec<Fingerprint, { 2 * MAX_REVOKED }>,
}

impl Keys {
    /// Reads a file of keys.
    ///
    /// # Errors
    ///
    /// [`BadKeys`].
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        let mut all = Self::default();
        // The Base64 of the block that is being read.
        let mut block: Option<heapless::Vec<u8, { DER_LEN.div_ceil(3) * 4 }>> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            match &mut block {
                Some(base64) if line == END => {
                    let der = decoded(base64).ok_or(BadKeys::NotEd25519(number))?;
                    all.keys.push(der).map_err(|_| BadKeys::TooMany(number))?;
                    block = None;
                }
                Some(base64) => base64
                    .extend_from_slice(line.as_bytes())
                    .map_err(|_| BadKeys::NotEd25519(number))?,
                None if line == BEGIN => block = Some(heapless::Vec::new()),
                None if line.starts_with("-----BEGIN ") => return Err(BadKeys::NotPublic(number)),
                None if line.is_empty() || line.starts_with('#') => {}
                None => {
                    let fingerprint = line.strip_prefix("revoked ").map(str::trim_start);
                    let fingerprint = fingerprint.and_then(hexadecimal);
                    let fingerprint = fingerprint.ok_or(BadKeys::Line(number))?;
                    if all.revoked.len() == MAX_REVOKED {
                        return Err(BadKeys::TooMany(number));
                    }
                    // There is room for twice as many.
                    let _fits = all.revoked.push(Fingerprint(fingerprint));
                }
            }
        }
        if block.is_some() || all.keys.is_empty() { Err(BadKeys::Empty) } else { Ok(all) }
    }

    /// The same keys, of which those are revoked, too, that another file revokes.
    #[must_use]
    pub fn without_revoked_of(mut self, other: &Self) -> Self {
        // Each file has at most half of what there is room for.
        let _fits = self.revoked.extend_from_slice(other.revoked.as_slice());
        self
    }

    /// Finds the key that has signed `message`.
    ///
    /// # Errors
    ///
    /// [`Refusal::Signature`]: none of them; [`Refusal::Revoked`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<Fingerprint, Refusal> {
        let has_signed = |der: &&[u8; DER_LEN]| {
            let key = der.get(SPKI.len()..).unwrap_or_default();
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        };
        let signer = self.keys.iter().find(has_signed).ok_or(Refusal::Signature)?;
        let fingerprint = Fingerprint::of(signer);
        if self.revoked.contains(&fingerprint) {
            return Err(Refusal::Revoked(fingerprint));
        }
        Ok(fingerprint)
    }
}

/// The DER of an Ed25519 public key in this Base64.
fn decoded(base64: &[u8]) -> Option<[u8; DER_LEN]> {
    // Base64 is decoded in groups of three bytes.
    let mut der = [0; DER_LEN.div_ceil(3) * 3];
    let len = STANDARD.decode_slice(base64, &mut der).ok()?;
    let der: [u8; DER_LEN] = der.get(..len)?.try_into().ok()?;
    der.starts_with(&SPKI).then_some(der)
}

/// Thirty-two bytes in lower-case hexadecimal.
pub(super) fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}
