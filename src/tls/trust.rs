//! TLS towards the printer: the configuration, and the check of the printer's certificate and key.
//!
//! Only TLS 1.2 is offered: all printers have it, X1C and H2D nothing newer, and a P2S truncates files with
//! TLS 1.3 ([`protocol`](crate::protocol#certificates)). [`chain`] verifies the certificate; a certificate
//! of an unknown authority is compared with its [pin](crate::state_dir::pins), which is in memory and written by a
//! thread of its own: no handshake waits for a disk. This module checks that the
//! printer has the certificate's key. The `ServerName` is not compared: it is the key of the session cache alone.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | sessions kept for resumption | one | the older one is replaced; a full handshake is made |
//! | authorities given by `--printer-ca` | [`MAX_GIVEN`] | [`TrustError::TooMany`] |

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::version::TLS12;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};

use super::authorities::{Authority, BAMBU_LAB};
use super::certificate::parse;
use super::chain::{self, Path, Verdict};
use super::issuers;
use super::refusal::Refusal;
use crate::board::BOARD;
use crate::memory::budget;
use crate::printer::model::Model;
use crate::state_dir::chains::MAX_CHAIN;
use crate::state_dir::pin::{Chain, PIN_STACK, Pin};
use crate::state_dir::pins::{Fingerprint, PinError, Pins, fingerprint};

/// Authorities that `--printer-ca` may give at most.
pub const MAX_GIVEN: usize = 8;

const _: () =
    assert!(PIN_STACK == budget::PIN_STACK, "the budget names the stack that writes pins");

const _: () = assert!(MAX_CHAIN <= budget::CHAIN, "a chain is larger than its line in the budget");

/// How connections to one printer are authenticated. Clones share the session cache.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    /// The same, but no certificate is trusted on first use.
    strict: Arc<ClientConfig>,
    name: ServerName<'static>,
    policy: Policy,
    serial: Arc<str>,
    pin: Pin,
}

/// Whether the printer's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The certificate has to be the printer's with the configured serial number.
    Verify,
    /// Any certificate is accepted (`--insecure-printer`). Logged as a warning at each connection.
    Insecure,
}

/// Why a [`Trust`] cannot be made. `Display` is a cause, and a hint behind `; `, about the file of `--printer-ca`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// The file is not PEM, or holds no certificate.
    NotPem,
    /// A certificate in the file is malformed, or must not sign certificates.
    NotAnAuthority,
    /// The file holds more than [`MAX_GIVEN`] certificates.
    TooMany,
    /// rustls rejects the board's cipher suites.
    Suites,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem => f.write_str("no certificate found; expected authorities as PEM"),
            Self::NotAnAuthority => f.write_str(
                "a certificate is not an authority's; give the one that signed the printer's",
            ),
            Self::TooMany => write!(f, "more than {MAX_GIVEN} certificates"),
            Self::Suites => f.write_str("no cipher suites for TLS 1.2"),
        }
    }
}

impl Error for TrustError {}

impl Trust {
    /// Trust in the printer with the serial number `serial`, by Bambu Lab's authorities and those in `given`
    /// (PEM, the content of the file of `--printer-ca`).
    ///
    /// Reads the file of pins. `clock` is read at each full handshake.
    ///
    /// # Errors
    ///
    /// [`TrustError::Suites`] is about the board; all others are about `given`.
    pub fn new(
        serial: &str,
        policy: Policy,
        given: Option<&[u8]>,
        pins: Pins,
        clock: fn() -> SystemTime,
    ) -> Result<Self, TrustError> {
        let verifier = verifier(serial, policy, given, pins, clock)?;
        let serial = Arc::clone(&verifier.serial);
        let pin = verifier.pin.clone();
        let strict = Arc::new(client_config(verifier.without_first_use())?);
        let config = client_config(verifier)?;
        // Printers need no server name (SNI); the serial number, their common name, does no harm. A serial number
        // of digits alone is not a valid host name: an address is used instead, and no SNI is sent.
        let name = DnsName::try_from(String::from(&*serial))
            .map_or_else(|_| ServerName::from(Ipv4Addr::UNSPECIFIED), ServerName::DnsName);
        Ok(Self { config: Arc::new(config), strict, name, policy, serial, pin })
    }

    /// The same trust with a session cache of its own.
    ///
    /// An X1C wants each FTPS data connection to resume the TLS session of its control connection
    /// ([`protocol`](crate::protocol#ftps)): another connection to the printer must not replace that session.
    pub fn with_own_sessions(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = sessions();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The same trust for an address that any host may have named: no certificate is trusted on first use. `None` if
    /// certificates are not verified at all.
    pub fn without_first_use(&self) -> Option<Self> {
        let strict = || Self { config: Arc::clone(&self.strict), ..self.clone() };
        (self.policy == Policy::Verify).then(strict)
    }

    /// Begins to read the pins again if the printer's certificate was rejected by its pin: the user may have changed them.
    pub fn refresh_pin(&self) {
        self.pin.refresh();
    }

    /// Whether the printer's certificate is pinned, if it has to be; `None` while the pins are being read or written. Until
    /// then nothing that is secret may be sent to the printer.
    pub fn pinned(&self) -> Option<Result<(), Refusal>> {
        Some(self.pin.settled()?.map_err(Refusal::from))
    }

    /// Whether the printer's certificate was trusted on first use by this program.
    pub fn has_trusted_first_use(&self) -> bool {
        self.pin.has_added()
    }

    /// The TLS client configuration.
    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The server name: the serial number, or an unspecified address.
    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Logs a warning if certificates are not verified. Called at each connection.
    pub(super) fn warn_if_insecure(&self) {
        if self.policy == Policy::Insecure {
            log::warn!("{}", Warning { serial: &self.serial, about: About::NotVerified });
        }
    }
}

/// The TLS client configuration with this verifier.
fn client_config(verifier: Verifier) -> Result<ClientConfig, TrustError> {
    let mut config = ClientConfig::builder_with_provider(super::provider(BOARD.suites))
        .with_protocol_versions(&[&TLS12])
        .map_err(|_| TrustError::Suites)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = sessions();
    Ok(config)
}

/// A session cache with one element, since there is one server name.
fn sessions() -> Resumption {
    Resumption::in_memory_sessions(1)
}

/// The authorities in `pem`, the content of the file of `--printer-ca`.
fn authorities(pem: &[u8]) -> Result<Vec<Authority>, TrustError> {
    let mut given = Vec::with_capacity(MAX_GIVEN);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|_| TrustError::NotPem)?;
        if given.len() == MAX_GIVEN {
            return Err(TrustError::TooMany);
        }
        let parsed = parse(&der).map_err(|_| TrustError::NotAnAuthority)?;
        given.push(Authority::of(&parsed).ok_or(TrustError::NotAnAuthority)?);
    }
    if given.is_empty() { Err(TrustError::NotPem) } else { Ok(given) }
}

/// The verifier of [`Trust::new`].
pub(super) fn verifier(
    serial: &str,
    policy: Policy,
    given: Option<&[u8]>,
    pins: Pins,
    clock: fn() -> SystemTime,
) -> Result<Verifier, TrustError> {
    let chains = pins.chains();
    let pin = Pin::load(pins, serial);
    Ok(Verifier {
        serial: serial.into(),
        policy,
        given: given.map_or_else(|| Ok(Vec::new()), authorities)?,
        pin: match chains {
            Some(chains) => pin.keeping(chains, issuers::first),
            None => pin,
        },
        may_pin: Model::of_serial(serial).is_none_or(|model| model.needs_pin),
        trusts_first_use: true,
        clock,
        algorithms: super::provider(BOARD.suites).signature_verification_algorithms,
        accepted: Mutex::new(None),
    })
}

/// Verifies the printer's certificate and key for rustls.
#[derive(Debug)]
pub(super) struct Verifier {
    serial: Arc<str>,
    policy: Policy,
    given: Vec<Authority>,
    pub(super) pin: Pin,
    /// Whether a certificate of an unknown authority may be trusted on first use: for models whose
    /// authority is not built in, and for models that are not in the table.
    may_pin: bool,
    /// Whether it is trusted without a pin.
    trusts_first_use: bool,
    clock: fn() -> SystemTime,
    algorithms: WebPkiSupportedAlgorithms,
    /// The last accepted certificate, until the printer has proved that it has its key. rustls requires `Sync`.
    accepted: Mutex<Option<Accepted>>,
}

/// A certificate that is accepted once the printer has proved that it has its key.
#[derive(Debug)]
struct Accepted {
    shown: Fingerprint,
    basis: Basis,
    /// What is kept of it, if it is.
    chain: Option<Chain>,
}

/// Why a certificate is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// A known authority signed it.
    Verified,
    /// The certificate equals the pinned one.
    Pinned,
    /// Its authority is unknown and the printer has no pin yet: it is trusted on first use.
    FirstUse,
}

impl Verifier {
    /// The same verifier with the same pin, which trusts no certificate on first use.
    pub(super) fn without_first_use(&self) -> Self {
        Self {
            serial: Arc::clone(&self.serial),
            policy: self.policy,
            given: self.given.clone(),
            pin: self.pin.clone(),
            may_pin: self.may_pin,
            trusts_first_use: false,
            clock: self.clock,
            algorithms: self.algorithms,
            accepted: Mutex::new(None),
        }
    }

    fn accepted(&self) -> MutexGuard<'_, Option<Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies the certificate `leaf`, sent together with `sent`, and returns what vouches for it.
    ///
    /// Pins nothing: the printer has not proved yet that it has the certificate's key.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub(super) fn verify(
        &self,
        leaf: &[u8],
        sent: &[CertificateDer<'_>],
    ) -> Result<(Basis, Path<'_>), Refusal> {
        let now = (self.clock)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let authorities = BAMBU_LAB.iter().chain(&self.given);
        let judged = chain::judge(leaf, sent, &self.serial, authorities, &self.algorithms, now)?;
        let basis = match judged.verdict {
            Verdict::Verified => Basis::Verified,
            Verdict::VerifiedUndated => {
                log::warn!("{}", Warning { serial: &self.serial, about: About::Undated });
                Basis::Verified
            }
            // This model's authority is built in: a certificate of another issuer is not the printer's.
            Verdict::UnknownIssuer if !self.may_pin => return Err(Refusal::UnknownIssuer),
            Verdict::UnknownIssuer => match self.pin.get() {
                Ok(Some(pinned)) if pinned == fingerprint(leaf) => Basis::Pinned,
                Ok(Some(_)) => return Err(self.doubted(Refusal::PinChanged)),
                Ok(None) if !self.trusts_first_use => return Err(Refusal::UnknownIssuer),
                Ok(None) => Basis::FirstUse,
                Err(error) => return Err(self.doubted(error.into())),
            },
        };
        Ok((basis, judged.path))
    }

    /// A rejection by the pin, after which the file of pins is read again.
    fn doubted(&self, refusal: Refusal) -> Refusal {
        self.pin.doubt();
        refusal
    }

    /// Pins the certificate of a printer that has proved that it has its key.
    ///
    /// A certificate of a known authority is pinned too: from then on a certificate of an unknown authority is
    /// rejected for this printer. The pin is written later ([`Trust::pinned`]).
    ///
    /// # Errors
    ///
    /// [`Refusal`]: another certificate is pinned.
    pub(super) fn keep(&self, leaf: &[u8], basis: Basis) -> Result<(), Refusal> {
        match basis {
            Basis::Pinned => Ok(()),
            Basis::Verified => {
                self.pin.replace(fingerprint(leaf));
                Ok(())
            }
            Basis::FirstUse => {
                let shown = fingerprint(leaf);
                if self.pin.add(shown)? != shown {
                    return Err(Refusal::PinChanged);
                }
                log::warn!("{}", Warning { serial: &self.serial, about: About::FirstUse });
                Ok(())
            }
        }
    }

    /// The printer has shown `leaf`, together with `sent`.
    ///
    /// # Errors
    ///
    /// Those of [`verify`](Self::verify).
    pub(super) fn shown(&self, leaf: &[u8], sent: &[CertificateDer<'_>]) -> Result<(), Refusal> {
        let (basis, path) = self.verify(leaf, sent)?;
        let shown = fingerprint(leaf);
        let chain = self.pin.keeps_chain().then(|| Chain {
            of: shown,
            is_vouched_for: basis == Basis::Verified,
            text: issuers::chain(leaf, sent, &path),
        });
        *self.accepted() = Some(Accepted { shown, basis, chain });
        Ok(())
    }

    /// The printer has proved that it has the key of `leaf`.
    ///
    /// # Errors
    ///
    /// Those of [`keep`](Self::keep).
    pub(super) fn proved(&self, leaf: &[u8]) -> Result<(), Refusal> {
        let accepted = self.accepted().take_if(|accepted| accepted.shown == fingerprint(leaf));
        if let Some(Accepted { basis, chain, .. }) = accepted {
            self.keep(leaf, basis)?;
            if let Some(chain) = chain {
                self.pin.show(chain);
            }
        }
        Ok(())
    }

    /// Whether `message` was signed with the key of the certificate `leaf`.
    fn is_owner(&self, message: &[u8], leaf: &[u8], signed: &DigitallySignedStruct) -> bool {
        let Ok(certificate) = parse(leaf) else {
            // `verify` has rejected it before, unless nothing is verified.
            return self.policy == Policy::Insecure;
        };
        let key = certificate.public_key().raw;
        chain::is_signed(&self.algorithms, signed.scheme, key, message, signed.signature())
    }
}

/// A log line about the certificate of the printer with this serial number.
struct Warning<'a> {
    serial: &'a str,
    about: About,
}

/// What a [`Warning`] is about.
enum About {
    /// `--insecure-printer`.
    NotVerified,
    /// The clock is not set.
    Undated,
    /// The certificate has just been pinned.
    FirstUse,
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "printer {}: ", self.serial)?;
        f.write_str(match self.about {
            About::NotVerified => {
                "certificate not verified (--insecure-printer); any device on this network can pose as \
                 the printer and learn the access code"
            }
            About::Undated => "this machine's clock is not set: expiry of the certificate not checked",
            About::FirstUse => {
                "unknown certificate authority: trusting this certificate from now on (pinned)"
            }
        })
    }
}

impl From<PinError> for Refusal {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Unreadable => Self::PinsUnreadable,
            PinError::NotKept => Self::NotPinned,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.policy {
            Policy::Verify => self.shown(leaf, sent).map_err(carried)?,
            Policy::Insecure => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.is_owner(message, leaf, signed) {
            return Err(carried(Refusal::NotItsKey));
        }
        self.proved(leaf).map_err(carried)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Not called, since TLS 1.3 is not offered; checks the signature all the same.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A rustls error that carries `refusal`.
fn carried(refusal: Refusal) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

/// The refusal that a rustls error carries, if any.
pub(super) fn refusal_of(error: &rustls::Error) -> Option<Refusal> {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(carried))) = error {
        carried.downcast_ref().copied()
    } else {
        None
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> Vec<String> {
    use alloc::string::ToString;
    let errors =
        [TrustError::NotPem, TrustError::NotAnAuthority, TrustError::TooMany, TrustError::Suites];
    let about = [About::NotVerified, About::Undated, About::FirstUse];
    let warnings = about.map(|about| Warning { serial: "01P00A3C1200417", about }.to_string());
    errors.iter().map(ToString::to_string).chain(warnings).collect()
}
