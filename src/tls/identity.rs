//! What we show to clients: a CA of our own, and two certificates signed by it.
//!
//! A client is told to trust the CA once (`pandaproxy ca` prints it). What the CA signs may then be
//! replaced without telling anybody, and is, when the printer's serial or our addresses change.
//! There are two certificates because some clients know only RSA, and a slow board would rather
//! sign with P-256: [`Identity::server_config`] gives each client the best it takes.
//!
//! # In the state directory
//!
//! | file | what | when it is missing or spoilt |
//! |---|---|---|
//! | `ca.pem` | the CA, to be trusted by clients | made if there is no CA at all; else [`IdentityError`] |
//! | `ca.key` | its key, P-256 | as above |
//! | `ecdsa.key`, `rsa.key` | the keys of the two certificates | made again |
//! | `ecdsa.pem`, `rsa.pem` | the two certificates | issued again |
//!
//! All are readable by their owner only, and replaced whole (`state`). A key that somebody
//! else made is as good: an RSA key in `rsa.key` spares a slow board the making of one.
//!
//! # Dates
//!
//! A Pi has no clock until the network gives it one. Before [`FLOOR`] it is
//! taken to be that moment, so nothing is issued in 1970, and nothing is taken to be expired.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::error::Error;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::certificate::{Facts, parse};
use super::chain::FLOOR;
use super::keys::{self, Kind, NotMade};
use crate::board::Suites;
use crate::state_dir::pins::{Fingerprint, fingerprint};
use crate::state_dir::{self, Lock};

const CA_PEM: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// What every key begins with, of whatever form.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
/// How the CA's name begins. Eight hexadecimal digits of its key follow: a client may know several.
const CA_NAME: &str = "PandaProxy CA ";
/// Addresses that a certificate names beside the loopback ones.
pub const ADDRESSES: usize = 16;

const DAY: i64 = 24 * 3600;
const YEAR: i64 = 365 * DAY + DAY / 4;
/// How long the CA is good for, at most until [`LAST`].
const CA_LIFE: i64 = 20 * YEAR;
/// How long what it signs is good for.
const LEAF_LIFE: i64 = 10 * YEAR;
/// What it signs is issued again when less than this is left.
const RENEW: i64 = YEAR;
/// 2049-12-31: the last day of a UTCTime, which is all that some clients can read.
const LAST: i64 = 2_524_521_600;

/// Who we are to clients.
#[derive(Debug)]
pub struct Identity {
    ca_pem: String,
    ca: Fingerprint,
    /// For boards without AES instructions, and with. Neither keeps sessions.
    chacha_first: ServerConfig,
    aes_first: ServerConfig,
    leaves: Arc<Leaves>,
}

/// Whom we speak for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The printer's serial number.
    pub serial: &'a str,
    /// The addresses that clients may use; [`ADDRESSES`] of them are named.
    pub addresses: &'a [IpAddr],
}

/// Why there is no identity. `Display` names the file; the caller names the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// A file cannot be read or written.
    Io {
        /// Its name.
        file: &'static str,
        /// What the system says.
        kind: ErrorKind,
    },
    /// A file is not one that pandaproxy wrote, or not any more.
    NotOurs {
        /// Its name.
        file: &'static str,
    },
    /// A key is not one that can be used, and not one that pandaproxy made.
    ForeignKey {
        /// Its name.
        file: &'static str,
    },
    /// The CA is there, and its key is not.
    KeyMissing,
    /// The key is not the CA's.
    KeyMismatch,
    /// The CA has expired.
    Expired,
    /// No key or certificate could be made.
    NotMade,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OTHERWISE: &str =
            "or move ca.pem and ca.key away for a new CA, which all clients then have to be given";
        match self {
            Self::Io { file, kind } => {
                write!(
                    f,
                    "{file} cannot be read or written: {kind}; choose a directory with --state-dir"
                )
            }
            Self::NotOurs { file } => {
                write!(f, "{file} is not what pandaproxy wrote; restore it, {OTHERWISE}")
            }
            Self::ForeignKey { file } => write!(
                f,
                "{file} holds a key that cannot be used; give it as PKCS#8 \
                 without a password (`openssl pkcs8 -topk8 -nocrypt`), RSA of 2048 bits or P-256, or \
                 move it away for a new one"
            ),
            Self::KeyMissing => {
                write!(f, "{CA_KEY} is missing beside {CA_PEM}; restore it, {OTHERWISE}")
            }
            Self::KeyMismatch => write!(
                f,
                "{CA_KEY} is not the key of {CA_PEM}; restore the right one, \
                 {OTHERWISE}"
            ),
            Self::Expired => write!(
                f,
                "{CA_PEM} has expired; check the date of this machine, \
                 {OTHERWISE}"
            ),
            Self::NotMade => f.write_str("cannot make a key: the system gives no randomness"),
        }
    }
}

impl Error for IdentityError {}

/// Why `pandaproxy ca` has nothing to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaError {
    /// The service has not made one in this state directory.
    Missing,
    /// The file system does not allow it, for this reason.
    Unreadable(ErrorKind),
    /// What the file holds is not one certificate.
    Spoilt,
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "no {CA_PEM} yet; start the service first, or name its directory with --state-dir"
            ),
            Self::Unreadable(ErrorKind::PermissionDenied) => {
                write!(f, "{CA_PEM}: permission denied; try `sudo pandaproxy ca`")
            }
            Self::Unreadable(kind) => write!(f, "{CA_PEM} cannot be read: {kind}"),
            Self::Spoilt => write!(f, "{CA_PEM} is not a certificate; restore it from a backup"),
        }
    }
}

impl Error for CaError {}

impl From<NotMade> for IdentityError {
    fn from(_: NotMade) -> Self {
        Self::NotMade
    }
}

impl From<rcgen::Error> for IdentityError {
    fn from(_: rcgen::Error) -> Self {
        Self::NotMade
    }
}

impl Identity {
    /// The identity in the state directory `dir`, made or brought up to date if need be.
    ///
    /// Waits while another process does the same. Making an RSA key can take a minute.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; a CA that is there is never replaced.
    pub fn load_or_make(
        dir: &Path,
        subject: &Subject<'_>,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let store = Store { dir, lock: Lock::take(dir) };
        let now = seconds(now);
        let ca = Ca::load_or_make(&store, now)?;
        let leaves = Arc::new(Leaves {
            ecdsa: ca.load_or_issue(&store, &ECDSA, subject, now)?,
            rsa: ca.load_or_issue(&store, &RSA, subject, now)?,
        });
        Ok(Self {
            chacha_first: config(Suites::ChaChaFirst, &[&TLS13, &TLS12], &leaves)?,
            aes_first: config(Suites::AesFirst, &[&TLS13, &TLS12], &leaves)?,
            leaves,
            ca: fingerprint(&ca.der),
            ca_pem: ca.pem,
        })
    }

    /// The CA in the state directory `dir` that clients are to trust, as PEM with a newline at its end, and
    /// its SHA-256. Nothing is made or changed.
    ///
    /// # Errors
    ///
    /// [`CaError`].
    pub fn ca_in(dir: &Path) -> Result<(String, Fingerprint), CaError> {
        let pem = ca_there(dir)
            .map_err(|error| CaError::Unreadable(error.kind()))?
            .ok_or(CaError::Missing)?;
        let pem = format!("{}\n", pem.trim());
        if pem.matches("-----BEGIN ").count() != 1 {
            return Err(CaError::Spoilt);
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaError::Spoilt)?;
        let sha256 = fingerprint(&der);
        Ok((pem, sha256))
    }

    /// The CA that clients are to trust, as PEM, with a newline at its end.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The SHA-256 of the CA, by which a person recognises it.
    pub fn ca_sha256(&self) -> &Fingerprint {
        &self.ca
    }

    /// How clients are greeted: TLS 1.2 and 1.3, the suites in this order, whatever the client's.
    ///
    /// Up to `sessions` can be resumed; the oldest is forgotten first.
    pub fn server_config(&self, suites: Suites, sessions: usize) -> Arc<ServerConfig> {
        let config = match suites {
            Suites::ChaChaFirst => &self.chacha_first,
            Suites::AesFirst => &self.aes_first,
        };
        let mut config = config.clone();
        config.session_storage = ServerSessionMemoryCache::new(sessions.max(1));
        Arc::new(config)
    }

    /// As [`server_config`](Self::server_config), with TLS 1.2 alone: what libcurl needs for files,
    /// whose end it takes for a truncation with 1.3 (PROTOCOL §5.5).
    ///
    /// # Errors
    ///
    /// rustls will not have the suites.
    pub fn server_config_tls12(
        &self,
        suites: Suites,
        sessions: usize,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = config(suites, &[&TLS12], &self.leaves)?;
        config.session_storage = ServerSessionMemoryCache::new(sessions.max(1));
        Ok(Arc::new(config))
    }
}

/// The CA in the state directory `dir` as PEM, if it is there. Nothing is made, and nothing waits.
///
/// # Errors
///
/// Whatever the file system says.
pub(super) fn ca_there(dir: &Path) -> io::Result<Option<Zeroizing<String>>> {
    state_dir::read(dir, CA_PEM)
}

fn config(
    suites: Suites,
    versions: &[&'static SupportedProtocolVersion],
    leaves: &Arc<Leaves>,
) -> Result<ServerConfig, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(super::provider(suites))
        .with_protocol_versions(versions)
        .map_err(|_| IdentityError::NotMade)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<Leaves>::clone(leaves));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.ignore_client_order = true;
    Ok(config)
}

/// The two certificates.
#[derive(Debug)]
struct Leaves {
    ecdsa: Arc<CertifiedKey>,
    rsa: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        const SUITES: [CipherSuite; 6] = [
            // TLS 1.3 leaves the kind of certificate to the signature schemes.
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ];
        let takes_ecdsa =
            hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
                && hello.cipher_suites().iter().any(|suite| SUITES.contains(suite));
        Some(Arc::clone(if takes_ecdsa { &self.ecdsa } else { &self.rsa }))
    }
}

/// The state directory. Without the lock it can be read only: the file system may be full or read-only.
struct Store<'a> {
    dir: &'a Path,
    lock: io::Result<Lock>,
}

impl Store<'_> {
    fn read(&self, file: &'static str) -> Result<Option<Zeroizing<String>>, IdentityError> {
        state_dir::read(self.dir, file).map_err(|error| failed(file, &error))
    }

    fn write(&self, file: &'static str, text: &str) -> Result<(), IdentityError> {
        let lock = self.lock.as_ref().map_err(|error| failed("lock", error))?;
        state_dir::write(lock, self.dir, file, text).map_err(|error| failed(file, &error))
    }

    /// Writes a file that can be made again. If it cannot be written, it is used until this program ends.
    fn write_if_possible(&self, file: &'static str, text: &str) {
        if let Err(error) = self.write(file, text) {
            log::warn!(
                "state directory {}: {error}; {file} is made anew at each start",
                self.dir.display()
            );
        }
    }
}

fn failed(file: &'static str, error: &io::Error) -> IdentityError {
    let kind = error.kind();
    if matches!(kind, ErrorKind::InvalidData | ErrorKind::FileTooLarge) {
        IdentityError::NotOurs { file }
    } else {
        IdentityError::Io { file, kind }
    }
}

/// The authority that signs what we show.
struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
    name: String,
    not_after: i64,
}

impl Ca {
    fn load_or_make(store: &Store<'_>, now: i64) -> Result<Self, IdentityError> {
        let key = store.read(CA_KEY)?;
        let Some(pem) = store.read(CA_PEM)? else {
            // A start that was cut short, or a certificate that was lost: the key is the authority.
            return Self::make(store, key.and_then(|key| Kind::Ecdsa.read(&key)), now);
        };
        let ca = Self::load(&pem, &key.ok_or(IdentityError::KeyMissing)?)?;
        if now >= FLOOR && now > ca.not_after { Err(IdentityError::Expired) } else { Ok(ca) }
    }

    fn make(store: &Store<'_>, key: Option<KeyPair>, now: i64) -> Result<Self, IdentityError> {
        let key = key.map_or_else(|| Kind::Ecdsa.make(), Ok)?;
        // The key's, so that a CA whose certificate was lost is made again as the same authority.
        let [a, b, c, d, ..] = fingerprint(&key.subject_public_key_info());
        let name = format!("{CA_NAME}{a:02x}{b:02x}{c:02x}{d:02x}");
        log::info!(
            "created certificate authority {name}; import it into clients that verify certificates: \
             sudo pandaproxy ca"
        );
        let start = plausible(now);
        let mut params = dated(&name, (start + CA_LIFE).min(LAST))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        store.write(CA_KEY, &keys::text(&key))?;
        store.write(CA_PEM, &pem)?;
        Self::load(&pem, &keys::text(&key))
    }

    fn load(pem: &str, key: &str) -> Result<Self, IdentityError> {
        const NOT_OURS: IdentityError = IdentityError::NotOurs { file: CA_PEM };
        // It is printed for clients: nothing else may be in it.
        if pem.matches("-----BEGIN ").count() != 1 {
            return Err(NOT_OURS);
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| NOT_OURS)?;
        let parsed = parse(&der).map_err(|_| NOT_OURS)?;
        let facts = Facts::of(&parsed).map_err(|_| NOT_OURS)?;
        let name = only_name(&parsed).filter(|name| name.starts_with(CA_NAME)).ok_or(NOT_OURS)?;
        if !facts.is_v3 || !facts.is_authority || !facts.may_sign {
            return Err(NOT_OURS);
        }
        let key = Kind::Ecdsa.read(key).ok_or(IdentityError::NotOurs { file: CA_KEY })?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self {
            pem: format!("{}\n", pem.trim()),
            name: name.into(),
            not_after: parsed.validity().not_after.timestamp(),
            key,
            der: der.clone(),
        })
    }

    /// One of the two certificates with its key, as it is or issued again.
    fn load_or_issue(
        &self,
        store: &Store<'_>,
        leaf: &Leaf,
        subject: &Subject<'_>,
        now: i64,
    ) -> Result<Arc<CertifiedKey>, IdentityError> {
        let text = tolerant(store.read(leaf.key))?;
        let key = match text.as_ref().and_then(|key| leaf.kind.read(key)) {
            Some(key) => key,
            // Somebody made an effort: it is not overwritten.
            None if text.is_some_and(|text| text.contains(PRIVATE_KEY)) => {
                return Err(IdentityError::ForeignKey { file: leaf.key });
            }
            None => {
                let key = leaf.kind.make()?;
                store.write_if_possible(leaf.key, &keys::text(&key));
                key
            }
        };
        let der = tolerant(store.read(leaf.pem))?
            .and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok());
        let names = names(subject, der.as_ref());
        let der = match self.reissue(der.as_ref(), &key, subject, &names, now) {
            None => der.ok_or(IdentityError::NotMade)?,
            Some(why) => {
                log::info!("certificate {}: {why}", leaf.pem);
                let issued = self.issue(leaf.kind, &key, subject, &names, now)?;
                store.write_if_possible(leaf.pem, &issued.pem());
                issued.der().clone()
            }
        };
        let key = PrivateKeyDer::from(key);
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| IdentityError::NotMade)?;
        Ok(Arc::new(CertifiedKey::new(vec![der, self.der.clone()], key)))
    }

    /// Why a certificate has to be issued again, if it has.
    fn reissue(
        &self,
        der: Option<&CertificateDer<'_>>,
        key: &KeyPair,
        subject: &Subject<'_>,
        names: &[Alternative],
        now: i64,
    ) -> Option<&'static str> {
        let Some(der) = der else { return Some("created") };
        let Ok(parsed) = parse(der) else { return Some("created again: the file is damaged") };
        let signature = &parsed.signature_value.data;
        let algorithms = super::provider(Suites::AesFirst).signature_verification_algorithms;
        let is_ours = only_issuer(&parsed) == Some(&self.name)
            && super::chain::is_signed(
                &algorithms,
                SignatureScheme::ECDSA_NISTP256_SHA256,
                &self.key.subject_public_key_info(),
                parsed.tbs_certificate.as_ref(),
                signature,
            );
        if !is_ours {
            Some("renewed: the authority has changed")
        } else if key.subject_public_key_info() != parsed.public_key().raw {
            Some("renewed: its key has changed")
        } else if only_name(&parsed) != Some(subject.serial) {
            Some("renewed: the printer's serial number has changed")
        } else if named(&parsed).as_deref() != Some(names) {
            Some("renewed: this machine's addresses have changed")
        } else if now >= FLOOR && parsed.validity().not_before.timestamp() > now {
            Some("it is not good yet: the clock was ahead when it was issued")
        } else if now >= FLOOR && parsed.validity().not_after.timestamp() < now + RENEW {
            Some("it ends within a year")
        } else {
            None
        }
    }

    fn issue(
        &self,
        kind: Kind,
        key: &KeyPair,
        subject: &Subject<'_>,
        names: &[Alternative],
        now: i64,
    ) -> Result<rcgen::Certificate, IdentityError> {
        let start = plausible(now);
        let mut params = dated(subject.serial, (start + LEAF_LIFE).min(self.not_after))?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = match kind {
            Kind::Ecdsa => vec![KeyUsagePurpose::DigitalSignature],
            Kind::Rsa => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
        };
        for name in names {
            params.subject_alt_names.push(match name {
                Alternative::PrinterAddr(host) => {
                    SanType::DnsName(Ia5String::try_from(host.as_str())?)
                }
                Alternative::Address(address) => SanType::IpAddress(*address),
            });
        }
        let mut ca = CertificateParams::default();
        ca.distinguished_name = common_name(&self.name);
        Ok(params.signed_by(key, &Issuer::from_params(&ca, &self.key))?)
    }
}

/// One of the two certificates: where it is kept.
struct Leaf {
    kind: Kind,
    key: &'static str,
    pem: &'static str,
}

const ECDSA: Leaf = Leaf { kind: Kind::Ecdsa, key: "ecdsa.key", pem: "ecdsa.pem" };
const RSA: Leaf = Leaf { kind: Kind::Rsa, key: "rsa.key", pem: "rsa.pem" };

/// Takes a spoilt file for none: what is in it can be made again.
fn tolerant<T>(read: Result<Option<T>, IdentityError>) -> Result<Option<T>, IdentityError> {
    match read {
        Err(IdentityError::NotOurs { .. }) => Ok(None),
        read => read,
    }
}

/// A name beside the common one, under which clients may look for us.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Alternative {
    PrinterAddr(String),
    Address(IpAddr),
}

impl Alternative {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::PrinterAddr(_) => None,
            Self::Address(address) => Some(*address),
        }
    }
}

/// The names that a certificate for `subject` has to have, in their order. Addresses that it had
/// stay as long as there is room: a start before the network is up must not cost it the one that
/// clients know.
fn names(subject: &Subject<'_>, had: Option<&CertificateDer<'_>>) -> Vec<Alternative> {
    let parsed = had.and_then(|der| parse(der).ok());
    let before = parsed.filter(|parsed| only_name(parsed) == Some(subject.serial));
    let before = before.as_ref().and_then(named).unwrap_or_default();
    let mut addresses = Vec::with_capacity(ADDRESSES);
    let given = subject.addresses.iter().copied();
    for address in given.chain(before.iter().filter_map(Alternative::address)) {
        let useless = address.is_unspecified() || address.is_loopback();
        if !useless && !addresses.contains(&address) && addresses.len() < ADDRESSES {
            addresses.push(address);
        }
    }
    addresses.sort_unstable();
    // A serial without a letter is no host name.
    let serial = DnsName::try_from(subject.serial).ok().map(|_| subject.serial);
    let hosts =
        serial.into_iter().chain(["localhost"]).map(|host| Alternative::PrinterAddr(host.into()));
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    hosts.chain(own.into_iter().chain(addresses).map(Alternative::Address)).collect()
}

/// The names that a certificate has; `None` when one of them is of no kind of ours.
fn named(certificate: &X509Certificate<'_>) -> Option<Vec<Alternative>> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().map(alternative).collect()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "of the nine there are, two are ours")]
fn alternative(name: &GeneralName<'_>) -> Option<Alternative> {
    match name {
        GeneralName::DNSName(host) => Some(Alternative::PrinterAddr((*host).into())),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(Alternative::Address)
        }
        _ => None,
    }
}

/// The common name, if the subject has nothing else.
fn only_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    only(certificate.subject())
}

fn only_issuer<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    only(certificate.issuer())
}

fn only<'a>(name: &'a x509_parser::x509::X509Name<'_>) -> Option<&'a str> {
    let mut attributes = name.iter_attributes();
    let (Some(_), None) = (attributes.next(), attributes.next()) else { return None };
    name.iter_common_name().next()?.as_str().ok()
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A certificate for `name`, good until `end`, with a serial number of its own: some clients refuse
/// two certificates of one CA that share one. It is good from before [`FLOOR`], whatever the clock
/// says: a clock that was ahead once would make it of no use for years.
fn dated(name: &str, end: i64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    let date = |at: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(at.unsigned_abs());
    params.not_before = date(FLOOR - DAY);
    params.not_after = date(end);
    let [first, rest @ ..] = random::<16>()?;
    // Positive, and of full length.
    let mut serial = vec![first & 0x7f | 0x40];
    serial.extend(rest);
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(params)
}

/// The moment to issue at when the clock says `now`.
fn plausible(now: i64) -> i64 {
    if (FLOOR..LAST - YEAR).contains(&now) { now } else { FLOOR }
}

fn seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| IdentityError::NotMade)?;
    Ok(bytes)
}
