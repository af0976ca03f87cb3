//! Whether a printer's certificate is what it should be (PROTOCOL §1.6).
//!
//! Pure: bytes, a serial, authorities and the time go in, a [`Verdict`] or a [`Refusal`] comes out.
//! webpki will not do: the X1, P1 and A1 show X.509 v1 certificates, which it refuses, and no
//! printer's certificate has a subject alternative name, which is all it looks at.
//!
//! # What is accepted
//!
//! - v1 or v3; exactly one common name, and it is the serial, byte for byte;
//! - signed with SHA-256 and RSA or ECDSA, and the two places that say so agree;
//! - by an authority, or (v3 only) by one of at most [`INTERMEDIATES`] authorities that the printer
//!   sent and that an authority signed in turn;
//! - no critical extension that is not understood; not an authority itself;
//! - not past its end, by a clock that can be right.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | certificates sent beside the printer's own | [`SENT`] | [`Refusal::TooLong`] |
//! | bytes of one | [`CERTIFICATE`](super::certificate::CERTIFICATE) | [`Refusal::TooLong`] |
//! | authorities between the printer and one we know | [`INTERMEDIATES`] | [`Refusal::PathTooLong`] |

use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256};

use super::authorities::Authority;
use super::certificate::{Facts, parse};
use super::refusal::{Name, Refusal};

/// Certificates a printer may send beside its own. One or two is what they do.
pub const SENT: usize = 4;
/// Authorities that may stand between a printer and one we know.
pub const INTERMEDIATES: u32 = 2;
/// Earlier than this program, in seconds since 1970: a clock that says so has not been set.
pub const FLOOR: i64 = 1_793_491_200;

/// What to make of a certificate that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// An authority vouches for it.
    Vouched,
    /// An authority vouches for it; its dates could not be checked, for the clock here is not set.
    VouchedUndated,
    /// Nobody known is even named as its issuer: it can only be recognised when it comes again.
    Unknown,
}

/// Judges the certificate `leaf`, sent along with `sent`, of the printer that should be `serial`.
///
/// `now` is in seconds since 1970.
///
/// # Errors
///
/// The first thing found wrong, the most telling first: a wrong serial before an unknown issuer.
pub fn judge<'a>(
    leaf: &[u8],
    sent: &[CertificateDer<'_>],
    serial: &str,
    authorities: impl Iterator<Item = &'a Authority> + Clone,
    algorithms: &WebPkiSupportedAlgorithms,
    now: i64,
) -> Result<Verdict, Refusal> {
    if sent.len() > SENT {
        return Err(Refusal::TooLong);
    }
    let leaf = parse(leaf)?;
    let facts = Facts::of(&leaf)?;
    if facts.is_authority {
        return Err(Refusal::NotALeaf);
    }
    is_named(&leaf, serial)?;
    scheme(&leaf)?;
    let judge = Judge { sent, authorities, algorithms, now };
    match judge.vouch(&leaf, &facts, 0)? {
        Some(Dates::Checked) => Ok(Verdict::Vouched),
        Some(Dates::Unchecked) => Ok(Verdict::VouchedUndated),
        None if facts.is_v3 => judge.dates(&leaf).map(|_| Verdict::Unknown),
        // Nothing in a v1 certificate says that it is no authority.
        None => Err(Refusal::UnknownIssuer),
    }
}

/// Whether the signature `signed` is over `message` and by the key `spki`, in the way `scheme` says.
///
/// From the raw key: rustls' own helpers want a v3 certificate around it (PROTOCOL §1.5).
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

/// Whether a certificate's dates could be held against it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dates {
    Checked,
    Unchecked,
}

/// What does not change while one chain is followed.
struct Judge<'s, 'd, 'p, I> {
    sent: &'s [CertificateDer<'d>],
    authorities: I,
    algorithms: &'p WebPkiSupportedAlgorithms,
    now: i64,
}

impl<'a, I: Iterator<Item = &'a Authority> + Clone> Judge<'_, '_, '_, I> {
    /// Finds who vouches for `certificate`, which has `below` authorities below it.
    ///
    /// `None` when nobody it names as its issuer is known or was sent.
    fn vouch(
        &self,
        certificate: &X509Certificate<'_>,
        facts: &Facts<'_>,
        below: u32,
    ) -> Result<Option<Dates>, Refusal> {
        let named =
            self.authorities.clone().filter(|by| *by.name == *certificate.issuer().as_raw());
        // Why the nearest miss was one. Whoever names somebody known and is not theirs is never
        // merely unknown.
        let mut miss = None;
        for authority in named {
            if !is_same_key(facts.issuer_key_id, authority.key_id.as_deref())
                || !self.is_signed_by(certificate, &authority.key)?
            {
                miss = miss.or(Some(Refusal::BadSignature));
            } else if authority.path_len.is_some_and(|most| below > most) {
                miss = Some(Refusal::PathTooLong);
            } else {
                return self.dates(certificate).map(Some);
            }
        }
        for der in self.sent {
            // A root that was sent along proves nothing that its absence would not.
            let between = parse(der)?;
            if between.subject().as_raw() != certificate.issuer().as_raw()
                || between.subject().as_raw() == between.issuer().as_raw()
            {
                continue;
            }
            match self.vouch_through(certificate, facts, &between, below) {
                Ok(dates) => return Ok(Some(dates)),
                Err(why) => miss = miss.or(Some(why)),
            }
        }
        miss.map_or(Ok(None), Err)
    }

    /// Finds who vouches for `certificate` by way of an authority that was sent along.
    fn vouch_through(
        &self,
        certificate: &X509Certificate<'_>,
        facts: &Facts<'_>,
        between: &X509Certificate<'_>,
        below: u32,
    ) -> Result<Dates, Refusal> {
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
        match (self.vouch(between, &issuer, below + 1)?, self.dates(certificate)?) {
            (None, _) => Err(Refusal::UnknownIssuer),
            (Some(Dates::Checked), Dates::Checked) => Ok(Dates::Checked),
            (Some(Dates::Checked | Dates::Unchecked), Dates::Checked | Dates::Unchecked) => {
                Ok(Dates::Unchecked)
            }
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

    /// Holds the dates against the clock, if the clock can be right at all.
    ///
    /// A Pi starts in 1970, and so it may before a printer's certificate was made.
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

/// Whether the certificate has one common name, and it is `serial`.
fn is_named(certificate: &X509Certificate<'_>, serial: &str) -> Result<(), Refusal> {
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

/// How the certificate is signed: one of the two ways printers are.
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

/// Whether a certificate that says by which key it is signed can mean this one.
fn is_same_key(wanted: Option<&[u8]>, offered: Option<&[u8]>) -> bool {
    wanted.is_none() || offered.is_none() || wanted == offered
}
