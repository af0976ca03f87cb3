//! Parses one X.509 certificate, checks its encoding, and reads its extensions into `Facts`, for
//! [`chain`](super::chain) and [`authorities`](super::authorities).

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::refusal::Refusal;

/// Bytes of the largest certificate that is parsed. One with an RSA-4096 key has about 1500.
pub const CERTIFICATE: usize = 4096;

/// Parses one certificate, which has to be the whole of `der`.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    if der.len() > CERTIFICATE {
        return Err(Refusal::TooLong);
    }
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return Err(Refusal::Malformed);
    };
    // The parser skips bytes at the end of a sequence and does not check every tag: what it read may differ from
    // what was signed.
    if is_sound(der, certificate.tbs_certificate.as_ref().len()) {
        Ok(certificate)
    } else {
        Err(Refusal::Malformed)
    }
}

/// Version and extensions of a certificate.
pub(super) struct Facts<'a> {
    pub(super) is_v3: bool,
    /// The basic constraints say that it is an authority's (RFC 5280 §4.2.1.9).
    pub(super) is_authority: bool,
    pub(super) path_len: Option<u32>,
    pub(super) key_id: Option<&'a [u8]>,
    pub(super) issuer_key_id: Option<&'a [u8]>,
    pub(super) may_sign: bool,
}

impl<'a> Facts<'a> {
    /// # Errors
    ///
    /// [`Refusal::Malformed`] or [`Refusal::CriticalExtension`].
    pub(super) fn of(certificate: &'a X509Certificate<'_>) -> Result<Self, Refusal> {
        let mut facts = Self {
            is_v3: certificate.version() == X509Version::V3,
            is_authority: false,
            path_len: None,
            key_id: None,
            issuer_key_id: None,
            may_sign: true,
        };
        let extensions = certificate.extensions();
        if !facts.is_v3 && (certificate.version() != X509Version::V1 || !extensions.is_empty()) {
            return Err(Refusal::Malformed);
        }
        for (at, extension) in extensions.iter().enumerate() {
            if extensions.iter().take(at).any(|earlier| earlier.oid == extension.oid) {
                return Err(Refusal::Malformed);
            }
            facts.learn(extension)?;
        }
        Ok(facts)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "five of many extensions are used")]
    fn learn(&mut self, extension: &'a X509Extension<'_>) -> Result<(), Refusal> {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_authority = constraints.ca;
                self.path_len = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => self.may_sign = usage.key_cert_sign(),
            ParsedExtension::SubjectKeyIdentifier(id) => self.key_id = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.issuer_key_id = id.key_identifier.as_ref().map(|id| id.0);
            }
            // The serial number is in the common name; other names are not compared.
            ParsedExtension::SubjectAlternativeName(_) => {}
            ParsedExtension::ExtendedKeyUsage(usage) if usage.server_auth || usage.any => {}
            ParsedExtension::ParseError { .. } if is_needed(extension) => {
                return Err(Refusal::Malformed);
            }
            _ if extension.critical => return Err(Refusal::CriticalExtension),
            _ => {}
        }
        Ok(())
    }
}

/// Whether ignoring this extension could change the result of the verification.
fn is_needed(extension: &X509Extension<'_>) -> bool {
    [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    ]
    .contains(&extension.oid)
}

/// Whether `der` is one sequence of exactly three elements, the first of `tbs` bytes, and whether the algorithm in
/// the first (RFC 5280 §4.1.2.3) equals the second byte for byte.
fn is_sound(der: &[u8], tbs: usize) -> bool {
    let look = || {
        let whole = Element::first_of(der).filter(|whole| whole.tag == SEQUENCE)?;
        let first = Element::first_of(whole.content).filter(|first| first.tag == SEQUENCE)?;
        let outer = Element::first_of(first.rest)?;
        let third = Element::first_of(outer.rest).filter(|third| third.tag == BIT_STRING)?;
        // A version, unless it is 1; a serial number; the algorithm.
        let mut serial = Element::first_of(first.content)?;
        if serial.tag == VERSION {
            serial = Element::first_of(serial.rest)?;
        }
        let inner = Element::first_of(serial.rest)?;
        let is_whole = whole.rest.is_empty() && third.rest.is_empty() && first.all.len() == tbs;
        Some(is_whole && inner.all == outer.all)
    };
    look().unwrap_or(false)
}

/// The tag of a SEQUENCE.
const SEQUENCE: u8 = 0x30;
/// The tag of a primitive BIT STRING.
const BIT_STRING: u8 = 0x03;
/// The tag of a certificate's version.
const VERSION: u8 = 0xa0;

/// One DER element, and what follows it.
struct Element<'a> {
    tag: u8,
    all: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Element<'a> {
    /// The first element of `der`; `None` if it is truncated or longer than 64 KiB.
    fn first_of(der: &'a [u8]) -> Option<Self> {
        let (&[tag, short], after) = der.split_first_chunk()?;
        let (len, after) = match short {
            0..=0x7f => (usize::from(short), after),
            0x81 => after.split_first().map(|(&len, after)| (usize::from(len), after))?,
            0x82 => {
                let (&len, after) = after.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(len)), after)
            }
            _ => return None,
        };
        let (content, rest) = after.split_at_checked(len)?;
        let all = der.get(..der.len().checked_sub(rest.len())?)?;
        Some(Self { tag, all, content, rest })
    }
}
