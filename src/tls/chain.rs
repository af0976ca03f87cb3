//! Verification of a printer's certificate chain. What printers send is in
//! [`protocol`](crate::protocol#certificates).
//!
//! No input or output: certificates, a serial number, authorities and the time result in a [`Verdict`] or a
//! [`Refusal`]. webpki cannot be used: X1, P1 and A1 have X.509 v1 certificates, which it rejects, and no
//! printer's certificate has a subject alternative name, the only name that webpki compares.
//!
//! # What is accepted
//!
//! - version 1 or 3 with exactly one common name, which equals the serial number byte for byte;
//! - signed with SHA-256 and RSA or ECDSA, with the same algorithm in both fields (RFC 5280 §4.1.1.2);
//! - signed by a known authority, or (v3 only) through at most [`INTERMEDIATES`] intermediate authorities that
//!   the printer sent;
//! - without unknown critical extensions; not an authority itself;
//! - not expired, if the clock is not before [`FLOOR`].
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | certificates sent beside the printer's own | [`MAX_SENT`] | [`Refusal::TooLong`] |
//! | bytes of one | [`CERTIFICATE`](super::certificate::CERTIFICATE) | [`Refusal::TooLong`] |
//! | intermediate authorities | [`INTERMEDIATES`] | [`Refusal::PathTooLong`] |

use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256};

use super::authorities::Authority;
use super::certificate::{Facts, parse};
use super::refusal::{Name, Refusal};

/// Certificates that a printer may send beside its own. Printers send one or two.
pub const MAX_SENT: usize = 4;
/// Intermediate authorities that may be between a printer's certificate and a known authority.
pub const INTERMEDIATES: u32 = 2;
/// 2026-11-01, before this program's first release, in seconds since 1970: an earlier clock has not been set.
pub const FLOOR: i64 = 1_793_491_200;

/// Result for a certificate without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// A known authority signed it, directly or through intermediates.
    Verified,
    /// As `Verified`, but the dates are not checked: this machine's clock is not set.
    VerifiedUndated,
    /// The issuer's name is unknown and no certificate of the issuer was sent: the certificate can only be pinned.
    UnknownIssuer,
}

/// A certificate without a fault, and what vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// The result.
    pub verdict: Verdict,
    /// What vouches for the certificate.
    pub path: Path<'a>,
}

/// The authorities between a printer's certificate and a known authority, that one included. Empty for a certificate of
/// an unknown issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path<'a> {
    /// Positions of the intermediate authorities among the certificates that were sent, from the printer's upwards.
    pub between: heapless::Vec<usize, { INTERMEDIATES as usize }>,
    /// The known authority.
    pub known: Option<&'a Authority>,
}

/// Verifies the certificate `leaf` of the printer with the serial number `serial`, sent together with `sent`.
///
/// `now` is in seconds since 1970.
///
/// # Errors
///
/// The first fault found, in an order that helps the user: a wrong serial number before an unknown issuer.
pub fn judge<'a>(
    leaf: &[u8],
    sent: &[CertificateDer<'_>],
    serial: &str,
    authorities: impl Iterator<Item = &'a Authority> + Clone,
    algorithms: &WebPkiSupportedAlgorithms,
    now: i64,
) -> Result<Judged<'a>, Refusal> {
    if sent.len() > MAX_SENT {
        return Err(Refusal::TooLong);
    }
    let leaf = parse(leaf)?;
    let facts = Facts::of(&leaf)?;
    if facts.is_authority {
        return Err(Refusal::NotALeaf);
    }
    check_name(&leaf, serial)?;
    scheme(&leaf)?;
    let judge = Judge { sent, authorities, algorithms, now };
    let (verdict, path) = match judge.verify(&leaf, &facts, 0)? {
        Some((Dates::Checked, path)) => (Verdict::Verified, path),
        Some((Dates::Unchecked, path)) => (Verdict::VerifiedUndated, path),
        None if facts.is_v3 => {
            let _any = judge.dates(&leaf)?;
            (Verdict::UnknownIssuer, Path::default())
        }
        // A v1 certificate cannot state that it is not an authority's.
        None => return Err(Refusal::UnknownIssuer),
    };
    Ok(Judged { verdict, path })
}

/// Whether `signed` is a signature over `message` by the key `spki` (SubjectPublicKeyInfo as DER) in `scheme`.
///
/// Works on the raw key: rustls' own functions need a v3 certificate, and X1, P1 and A1 have v1.
pub(super) fn is_signed(
    algorithms: &WebPkiSupportedAlgorithms,
    scheme: SignatureScheme,
    spki: &[u8],
    message: &[u8],
    signed: &[u8],
) -> bool {
    let spki = SubjectPublicKeyInfoDer::from(spki);
    let Ok(key) = RawPublicKeyEntity::try_from(&spki) else { return false };
    algorithms
        .mapping
        .iter()
        .filter(|(of, _)| *of == scheme)
        .flat_map(|(_, ways)| ways.iter())
        .any(|way| key.verify_signature(*way, message, signed).is_ok())
}

/// Whether the dates were compared with the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dates {
    Checked,
    Unchecked,
}

/// The inputs of one verification.
struct Judge<'s, 'd, 'p, I> {
    sent: &'s [CertificateDer<'d>],
    authorities: I,
    algorithms: &'p WebPkiSupportedAlgorithms,
    now: i64,
}

impl<'a, I: Iterator<Item = &'a Authority> + Clone> Judge<'_, '_, '_, I> {
    /// Verifies `certificate`, which has `below` authorities below it in the chain.
    ///
    /// `None` when its issuer is neither known nor sent along.
    fn verify(
        &self,
        certificate: &X509Certificate<'_>,
        facts: &Facts<'_>,
        below: u32,
    ) -> Result<Option<(Dates, Path<'a>)>, Refusal> {
        let named =
            self.authorities.clone().filter(|by| *by.name == *certificate.issuer().as_raw());
        // The fault of the closest candidate: a certificate that names a known issuer without being signed by it
        // must not count as one of an unknown issuer.
        let mut miss = None;
        for authority in named {
            if !is_same_key(facts.issuer_key_id, authority.key_id.as_deref())
                || !self.is_signed_by(certificate, &authority.key)?
            {
                miss = miss.or(Some(Refusal::BadSignature));
            } else if authority.path_len.is_some_and(|most| below > most) {
                miss = Some(Refusal::PathTooLong);
            } else {
                let path = Path { known: Some(authority), ..Path::default() };
                return Ok(Some((self.dates(certificate)?, path)));
            }
        }
        for (at, der) in self.sent.iter().enumerate() {
            // A self-signed certificate that was sent along proves nothing.
            let between = parse(der)?;
            if between.subject().as_raw() != certificate.issuer().as_raw()
                || between.subject().as_raw() == between.issuer().as_raw()
            {
                continue;
            }
            match self.verify_through(certificate, facts, &between, below) {
                Ok((dates, mut path)) => {
                    // It fits: no more than INTERMEDIATES were allowed.
                    let _fits = path.between.insert(0, at);
                    return Ok(Some((dates, path)));
                }
                Err(why) => miss = miss.or(Some(why)),
            }
        }
        miss.map_or(Ok(None), Err)
    }

    /// Verifies `certificate` through the intermediate authority `between`, which was sent along.
    fn verify_through(
        &self,
        certificate: &X509Certificate<'_>,
        facts: &Facts<'_>,
        between: &X509Certificate<'_>,
        below: u32,
    ) -> Result<(Dates, Path<'a>), Refusal> {
        if !facts.is_v3 {
            return Err(Refusal::UnknownIssuer);
        }
        let issuer = Facts::of(between)?;
        if !issuer.is_authority || !issuer.may_sign {
            return Err(Refusal::NotAnAuthority);
        }
        if below >= INTERMEDIATES || issuer.path_len.is_some_and(|most| below > most) {
            return Err(Refusal::PathTooLong);
        }
        if !is_same_key(facts.issuer_key_id, issuer.key_id)
            || !self.is_signed_by(certificate, between.public_key().raw)?
        {
            return Err(Refusal::BadSignature);
        }
        match (self.verify(between, &issuer, below + 1)?, self.dates(certificate)?) {
            (None, _) => Err(Refusal::UnknownIssuer),
            (Some((Dates::Checked, path)), Dates::Checked) => Ok((Dates::Checked, path)),
            (Some((_, path)), Dates::Checked | Dates::Unchecked) => Ok((Dates::Unchecked, path)),
        }
    }

    fn is_signed_by(&self, certificate: &X509Certificate<'_>, key: &[u8]) -> Result<bool, Refusal> {
        let signature = &certificate.signature_value;
        if signature.unused_bits != 0 {
            return Err(Refusal::Malformed);
        }
        let tbs = certificate.tbs_certificate.as_ref();
        Ok(is_signed(self.algorithms, scheme(certificate)?, key, tbs, &signature.data))
    }

    /// Compares the dates with the clock, unless the clock is before [`FLOOR`] or the certificate's start.
    ///
    /// # Errors
    ///
    /// [`Refusal::Expired`].
    fn dates(&self, certificate: &X509Certificate<'_>) -> Result<Dates, Refusal> {
        let validity = certificate.validity();
        if self.now < FLOOR || self.now < validity.not_before.timestamp() {
            Ok(Dates::Unchecked)
        } else if self.now > validity.not_after.timestamp() {
            Err(Refusal::Expired)
        } else {
            Ok(Dates::Checked)
        }
    }
}

/// Checks that the certificate has exactly one common name, and that it equals `serial`.
fn check_name(certificate: &X509Certificate<'_>, serial: &str) -> Result<(), Refusal> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(Refusal::NotOneName);
    };
    if name.as_str().is_ok_and(|name| name == serial) {
        Ok(())
    } else {
        Err(Refusal::WrongSerial { found: Name::of(name.as_slice()) })
    }
}

/// The certificate's signature scheme: one of the two that printers use.
fn scheme(certificate: &X509Certificate<'_>) -> Result<SignatureScheme, Refusal> {
    let algorithm = &certificate.signature_algorithm.algorithm;
    if *algorithm == OID_PKCS1_SHA256WITHRSA {
        Ok(SignatureScheme::RSA_PKCS1_SHA256)
    } else if *algorithm == OID_SIG_ECDSA_WITH_SHA256 {
        Ok(SignatureScheme::ECDSA_NISTP256_SHA256)
    } else {
        Err(Refusal::WeakSignature)
    }
}

/// Whether the authority key identifier `wanted` can mean the key with the identifier `offered` (RFC 5280 §4.2.1.1).
/// A missing identifier matches any.
fn is_same_key(wanted: Option<&[u8]>, offered: Option<&[u8]>) -> bool {
    wanted.is_none() || offered.is_none() || wanted == offered
}
