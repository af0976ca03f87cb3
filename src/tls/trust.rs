//! What we accept from printers: TLS 1.2, and the certificate of the printer that was named.
//!
//! Only TLS 1.2 is offered. Every printer speaks it; some never answer when they are offered 1.3,
//! others cut their file transfers short with it (PROTOCOL §1.3). Who the printer is, [`chain`]
//! decides from its certificate, and [`pins`](crate::state_dir::pins) where no authority can; that it has the
//! key of that certificate is checked here. `ServerName` plays no part in it: it only keys the
//! sessions to resume.
//!
//! | what | bound | past it |
//! |---|---|---|
//! | sessions to resume | one | a full handshake |
//! | authorities given | [`GIVEN`] | [`TrustError::TooMany`] |

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
use super::chain::{self, Verdict};
use super::refusal::Refusal;
use crate::board::BOARD;
use crate::printer::model::Model;
use crate::state_dir::pins::{Fingerprint, PinError, Pins, fingerprint};

/// Authorities that `--printer-ca` may give.
pub const GIVEN: usize = 8;

/// What it takes for a printer to be believed. Cloning it costs a few counters.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    policy: Policy,
    serial: Arc<str>,
}

/// Whether certificates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A printer has to be the one that was named.
    Verify,
    /// Anybody will do: `--insecure-printer`. Said in the log at each connection.
    Insecure,
}

/// Why there can be no [`Trust`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// The authorities given are not PEM, or hold no certificate.
    NotPem,
    /// One of them cannot be read, or may not sign certificates.
    NotAnAuthority,
    /// There are more than [`GIVEN`].
    TooMany,
    /// rustls will not have the board's cipher suites.
    Suites,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem => f.write_str("no certificate in it: give authorities as PEM"),
            Self::NotAnAuthority => f.write_str(
                "a certificate in it is not an authority's: give the one that signed the printer's",
            ),
            Self::TooMany => write!(f, "more than {GIVEN} certificates in it"),
            Self::Suites => f.write_str("no cipher suites for TLS 1.2"),
        }
    }
}

impl Error for TrustError {}

impl Trust {
    /// Trust in the printer `serial`, by Bambu Lab's authorities and those in `given` (PEM).
    ///
    /// `clock` is asked at each full handshake.
    ///
    /// # Errors
    ///
    /// [`TrustError`], about `given` but for the last.
    pub fn new(
        serial: &str,
        policy: Policy,
        given: Option<&[u8]>,
        pins: Pins,
        clock: fn() -> SystemTime,
    ) -> Result<Self, TrustError> {
        let verifier = verifier(serial, policy, given, pins, clock)?;
        let serial = Arc::clone(&verifier.serial);
        let mut config = ClientConfig::builder_with_provider(super::provider(BOARD.suites))
            .with_protocol_versions(&[&TLS12])
            .map_err(|_| TrustError::Suites)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = sessions();
        // No printer wants a server name; one that equals the common name cannot hurt. A serial
        // without a letter is no host name: an address stands in for it, and none is sent.
        let name = DnsName::try_from(String::from(&*serial))
            .map_or_else(|_| ServerName::from(Ipv4Addr::UNSPECIFIED), ServerName::DnsName);
        Ok(Self { config: Arc::new(config), name, policy, serial })
    }

    /// The same trust with sessions of its own.
    ///
    /// An FTPS data connection has to resume the session of its control connection (PROTOCOL §1.4);
    /// another connection to the printer in between must not have put its own in that place.
    pub fn with_own_sessions(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = sessions();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// How the connections are to be made.
    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// What to call the printer while a connection is made.
    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Says in the log what has to be said at each connection.
    pub(super) fn admit(&self) {
        if self.policy == Policy::Insecure {
            log::warn!(
                "printer {}: its certificate is not checked (--insecure-printer): anybody on this \
                 network can be it, and learn the access code",
                self.serial
            );
        }
    }
}

/// Room for one session: there is one name to keep it under.
fn sessions() -> Resumption {
    Resumption::in_memory_sessions(1)
}

/// The authorities that the user gave.
fn authorities(pem: &[u8]) -> Result<Vec<Authority>, TrustError> {
    let mut given = Vec::with_capacity(GIVEN);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|_| TrustError::NotPem)?;
        if given.len() == GIVEN {
            return Err(TrustError::TooMany);
        }
        let parsed = parse(&der).map_err(|_| TrustError::NotAnAuthority)?;
        given.push(Authority::of(&parsed).ok_or(TrustError::NotAnAuthority)?);
    }
    if given.is_empty() { Err(TrustError::NotPem) } else { Ok(given) }
}

/// What [`Trust::new`] makes, before rustls has it.
pub(super) fn verifier(
    serial: &str,
    policy: Policy,
    given: Option<&[u8]>,
    pins: Pins,
    clock: fn() -> SystemTime,
) -> Result<Verifier, TrustError> {
    Ok(Verifier {
        serial: serial.into(),
        policy,
        given: given.map_or_else(|| Ok(Vec::new()), authorities)?,
        pins,
        may_pin: Model::of_serial(serial).is_none_or(|model| model.needs_pin),
        clock,
        algorithms: super::provider(BOARD.suites).signature_verification_algorithms,
        met: Mutex::new(None),
    })
}

/// Trust, as rustls asks for it.
#[derive(Debug)]
pub(super) struct Verifier {
    serial: Arc<str>,
    policy: Policy,
    given: Vec<Authority>,
    pins: Pins,
    /// Whether a certificate of an unknown authority may be trusted on first use: for models whose
    /// authority is not built in, and for models that are not in the table.
    may_pin: bool,
    clock: fn() -> SystemTime,
    algorithms: WebPkiSupportedAlgorithms,
    /// Whose certificate was believed last, until it has proved that it is its own. rustls shares a
    /// verifier between threads, whether there are any or not.
    met: Mutex<Option<(Fingerprint, Belief)>>,
}

/// Why a certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// An authority vouches for it.
    Vouched,
    /// It is the one that is pinned.
    Known,
    /// Nobody vouches for it, and none is pinned: it is the first.
    Stranger,
}

impl Verifier {
    fn met(&self) -> MutexGuard<'_, Option<(Fingerprint, Belief)>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the printer that shows `leaf`, and `sent` with it, is the one that was named.
    ///
    /// Nothing is remembered yet: it has not proved that the certificate is its own.
    pub(super) fn verify(
        &self,
        leaf: &[u8],
        sent: &[CertificateDer<'_>],
    ) -> Result<Belief, Refusal> {
        let now = (self.clock)()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let authorities = BAMBU_LAB.iter().chain(&self.given);
        match chain::judge(leaf, sent, &self.serial, authorities, &self.algorithms, now)? {
            Verdict::Vouched => Ok(Belief::Vouched),
            Verdict::VouchedUndated => {
                log::warn!(
                    "printer {}: the clock here is not set, so whether its certificate has expired \
                     cannot be checked",
                    self.serial
                );
                Ok(Belief::Vouched)
            }
            // Its authority is built in: another issuer is not the printer's.
            Verdict::Unknown if !self.may_pin => Err(Refusal::UnknownIssuer),
            Verdict::Unknown => match self.pins.get(&self.serial)? {
                Some(pinned) if pinned == fingerprint(leaf) => Ok(Belief::Known),
                Some(_) => Err(Refusal::PinChanged),
                None => Ok(Belief::Stranger),
            },
        }
    }

    /// Remembers the certificate of a printer that has proved that it is its own.
    ///
    /// One that was vouched for is remembered too: from then on nobody can pass for that printer by a
    /// certificate that nobody vouches for.
    pub(super) fn keep(&self, leaf: &[u8], belief: Belief) -> Result<(), Refusal> {
        match belief {
            Belief::Known => Ok(()),
            Belief::Vouched => {
                // Believed all the same; whoever looks after the pins has said why they cannot be.
                let _kept = self.pins.replace(&self.serial, fingerprint(leaf));
                Ok(())
            }
            Belief::Stranger => {
                let shown = fingerprint(leaf);
                if self.pins.add(&self.serial, shown)? != shown {
                    return Err(Refusal::PinChanged);
                }
                log::warn!(
                    "printer {}: nobody known vouches for its certificate; it is believed this first \
                     time and pinned in the state directory, and has to be the same from now on",
                    self.serial
                );
                Ok(())
            }
        }
    }

    /// Whether `message` was signed with the key of the certificate `leaf`.
    fn is_owner(&self, message: &[u8], leaf: &[u8], signed: &DigitallySignedStruct) -> bool {
        let Ok(certificate) = parse(leaf) else {
            // Nobody looked at it before either.
            return self.policy == Policy::Insecure;
        };
        let key = certificate.public_key().raw;
        chain::is_signed(&self.algorithms, signed.scheme, key, message, signed.signature())
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
            Policy::Verify => {
                let belief = self.verify(leaf, sent).map_err(carried)?;
                *self.met() = Some((fingerprint(leaf), belief));
            }
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
        let met = self.met().take_if(|(shown, _)| *shown == fingerprint(leaf));
        if let Some((_, belief)) = met {
            self.keep(leaf, belief).map_err(carried)?;
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Never asked: TLS 1.3 is not offered. If it were, a signature would mean the same.
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

/// A refusal on its way through rustls.
fn carried(refusal: Refusal) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

/// The refusal that a rustls error carries, if it does.
pub(super) fn refusal_of(error: &rustls::Error) -> Option<Refusal> {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(carried))) = error {
        carried.downcast_ref().copied()
    } else {
        None
    }
}
