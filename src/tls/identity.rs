//! The proxy's certificates: a certificate authority (CA) of its own, and two leaves signed by it.
//!
//! Clients that verify certificates import the CA once (`pandaproxy ca` prints it). The leaves are issued
//! again when the printer's serial number or this machine's names and addresses change, without a change at the clients:
//! their keys stay, which some programs pin.
//! One leaf is ECDSA P-256, which a slow board signs with faster; the other RSA, for clients that know
//! nothing else. [`Identity::server_config`] chooses by the client's ClientHello.
//!
//! # In the state directory
//!
//! | file | content | when missing or damaged |
//! |---|---|---|
//! | `ca.pem` | the CA's certificate | made if there is no CA at all; else [`IdentityError`] |
//! | `ca.key` | the CA's key, P-256 | as above |
//!
//! These two can be in a directory of their own (`--ca-dir`), which several proxies of one machine share, so that clients
//! import one CA. Where it has none yet, the first proxy puts its own there if it has one.
//!
//! | file | content | when missing or damaged |
//! |---|---|---|
//! | `ecdsa.key`, `rsa.key` | the keys of the two leaves | made again |
//! | `ecdsa.pem`, `rsa.pem` | the two leaves | issued again |
//!
//! All files are readable by their owner only and replaced atomically ([`state_dir`]). Keys
//! made by other programs can be used: an RSA key in `rsa.key` saves a slow board from making one.
//!
//! Where nothing has to be written, no lock is taken: a read-only or full directory with good contents serves. Where it
//! cannot be written, leaves and their keys are made in memory; a new CA is not.
//!
//! # Dates
//!
//! A board without a battery starts in 1970. A clock before [`FLOOR`] counts as [`FLOOR`]: no certificate
//! is issued for 1970, and none counts as expired.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::cell::Cell;
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
use super::failure::Asked;
use super::keys::{self, Kind, NotMade};
use super::refusal::Name;
use crate::board::Suites;
use crate::state_dir::pins::{Fingerprint, fingerprint};
use crate::state_dir::{self, Cause, Lock};

const CA_PEM: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// The end of the first line of a private key in PEM, in any format (RFC 7468).
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
/// The first part of the CA's common name. Eight hexadecimal digits of its key's SHA-256 follow, so that a
/// client can hold several.
const CA_NAME: &str = "PandaProxy CA ";
/// Addresses in a leaf's subject alternative name beside 127.0.0.1 and ::1.
pub const ADDRESSES: usize = 16;
/// Host names in a leaf's subject alternative name beside the serial number and localhost.
pub const HOSTS: usize = 12;
/// The wait for another process that makes its keys in the same directory: minutes on a slow board.
const LOCK_TIMEOUT: Duration = Duration::from_secs(900);
/// The wait before that is logged.
const LOCK_QUIET: Duration = Duration::from_millis(500);

const DAY: i64 = 24 * 3600;
const YEAR: i64 = 365 * DAY + DAY / 4;
/// Validity of the CA, in seconds; it ends at [`LAST`] at the latest.
const CA_LIFE: i64 = 20 * YEAR;
/// Validity of a leaf, in seconds.
const LEAF_LIFE: i64 = 10 * YEAR;
/// A leaf is issued again when its remaining validity is less than this, in seconds.
const RENEW: i64 = YEAR;
/// 2049-12-31 in seconds since 1970: the last day of a UTCTime (RFC 5280 §4.1.2.5.1), the only form of date
/// that some clients read.
const LAST: i64 = 2_524_521_600;

/// The proxy's certificates and keys, loaded.
#[derive(Debug)]
pub struct Identity {
    ca_pem: String,
    ca: Fingerprint,
    /// With ChaCha20 first, for boards without AES instructions. Keeps no sessions.
    chacha_first: ServerConfig,
    /// With AES first. Keeps no sessions.
    aes_first: ServerConfig,
    leaves: Arc<Leaves>,
}

/// The names in a leaf.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The printer's serial number.
    pub serial: &'a str,
    /// Addresses of this machine that clients may connect to; the first [`ADDRESSES`] are used.
    pub addresses: &'a [IpAddr],
    /// Host names of this machine that clients may use; the first [`HOSTS`] valid ones are used.
    pub hosts: &'a [&'a str],
}

/// Where the files are.
#[derive(Clone, Copy, Debug)]
pub struct Directories<'a> {
    /// The CA and its key.
    pub ca: &'a Path,
    /// The leaves and their keys.
    pub leaves: &'a Path,
}

impl<'a> Directories<'a> {
    /// All in one directory.
    pub const fn one(dir: &'a Path) -> Self {
        Self { ca: dir, leaves: dir }
    }
}

/// Why the certificates cannot be loaded or made. `Display` names the file; the caller names the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The directory cannot be made, or no file can be made in it.
    Directory(Cause),
    /// A file cannot be read or written.
    Io {
        /// Its name.
        file: &'static str,
        /// Why.
        cause: Cause,
    },
    /// A file's content was not written by pandaproxy, or is damaged.
    NotOurs {
        /// Its name.
        file: &'static str,
    },
    /// A file holds a private key of a format or kind that is not supported.
    ForeignKey {
        /// Its name.
        file: &'static str,
    },
    /// `ca.pem` exists, `ca.key` does not.
    KeyMissing,
    /// `ca.key` is not the key of `ca.pem`.
    KeyMismatch,
    /// The CA has expired.
    Expired,
    /// No key or certificate could be made.
    NotMade,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OTHERWISE: &str =
            "or move ca.pem and ca.key away for a new CA, and import that into all clients";
        match self {
            Self::Directory(cause) => {
                write!(f, "cannot make files in it: {cause}; {}", cause.hint())
            }
            Self::Io { file, cause } => {
                write!(f, "cannot read or write {file}: {cause}; {}", cause.hint())
            }
            Self::NotOurs { file } => {
                write!(f, "{file} is damaged or not pandaproxy's; restore it, {OTHERWISE}")
            }
            Self::ForeignKey { file } => write!(
                f,
                "{file} holds an unsupported key; convert it to PKCS#8 without a password \
                 (`openssl pkcs8 -topk8 -nocrypt`), RSA of 2048 bits or P-256, or move it away for a new one"
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
            Self::NotMade => f.write_str("cannot make a key: no randomness or no memory"),
        }
    }
}

impl Error for IdentityError {}

/// Why `pandaproxy ca` fails. `Display` is the cause, and a hint behind `; `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaError {
    /// There is no `ca.pem`: no service has started with this state directory.
    Missing,
    /// `ca.pem` cannot be read.
    Unreadable(Cause),
    /// `ca.pem` does not hold exactly one certificate.
    Spoilt,
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "no {CA_PEM} yet; start the service first, or name its directory with --state-dir"
            ),
            Self::Unreadable(Cause::Denied) => {
                write!(f, "{CA_PEM}: permission denied; try `sudo pandaproxy ca`")
            }
            Self::Unreadable(cause) => write!(f, "cannot read {CA_PEM}: {cause}"),
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
    /// Loads the certificates and keys from the directories `dirs`, and makes or renews those that are missing,
    /// damaged or out of date.
    ///
    /// Blocks while another process does the same. Making an RSA key takes up to minutes on a slow board.
    ///
    /// # Errors
    ///
    /// [`IdentityError`], and the directory that it is about; an existing CA is never replaced.
    pub fn load_or_make<'d>(
        dirs: Directories<'d>,
        subject: &Subject<'_>,
        now: SystemTime,
    ) -> Result<Self, (&'d Path, IdentityError)> {
        let now = seconds(now);
        let former = Some(dirs.leaves).filter(|leaves| *leaves != dirs.ca);
        let ca = Store::with(dirs.ca, |store| Ca::load_or_make(store, former, now))
            .map_err(|error| (dirs.ca, error))?;
        Self::of(ca, dirs.leaves, subject, now).map_err(|error| (dirs.leaves, error))
    }

    fn of(ca: Ca, dir: &Path, subject: &Subject<'_>, now: i64) -> Result<Self, IdentityError> {
        let issue = |leaf| Store::with(dir, |store| ca.load_or_issue(store, leaf, subject, now));
        let ((ecdsa, hosts), (rsa, _)) = (issue(&ECDSA)?, issue(&RSA)?);
        let leaves = Arc::new(Leaves { ecdsa, rsa, hosts });
        Ok(Self {
            chacha_first: config(Suites::ChaChaFirst, &[&TLS13, &TLS12], &leaves)?,
            aes_first: config(Suites::AesFirst, &[&TLS13, &TLS12], &leaves)?,
            leaves,
            ca: fingerprint(&ca.der),
            ca_pem: ca.pem,
        })
    }

    /// The CA in the state directory `dir`, as PEM with a newline at its end, and its SHA-256. Changes no file.
    ///
    /// # Errors
    ///
    /// [`CaError`].
    pub fn ca_in(dir: &Path) -> Result<(String, Fingerprint), CaError> {
        let pem = ca_there(dir)
            .map_err(|error| CaError::Unreadable(Cause::of(&error)))?
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

    /// The SHA-256 of the CA's certificate.
    pub fn ca_sha256(&self) -> &Fingerprint {
        &self.ca
    }

    /// The TLS configuration for clients: TLS 1.2 and 1.3, with the proxy's order of cipher suites.
    ///
    /// Keeps up to `sessions` sessions for resumption; when exceeded, the oldest is removed.
    pub fn server_config(&self, suites: Suites, sessions: usize) -> Arc<ServerConfig> {
        let config = match suites {
            Suites::ChaChaFirst => &self.chacha_first,
            Suites::AesFirst => &self.aes_first,
        };
        let mut config = config.clone();
        config.session_storage = ServerSessionMemoryCache::new(sessions.max(1));
        Arc::new(config)
    }

    /// As [`server_config`](Self::server_config), with TLS 1.2 alone, for FTPS: with TLS 1.3, libcurl takes the end
    /// of a file without close_notify for a truncation ([`protocol`](crate::protocol#ftps)).
    ///
    /// # Errors
    ///
    /// [`IdentityError::NotMade`]: rustls rejects the cipher suites.
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

/// The CA in the state directory `dir` as PEM; `None` if there is none. Changes no file and takes no lock.
///
/// # Errors
///
/// Errors of [`state_dir::look`].
pub(super) fn ca_there(dir: &Path) -> io::Result<Option<Zeroizing<String>>> {
    state_dir::look(dir, CA_PEM)
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
    /// The host names in both.
    hosts: Vec<String>,
}

std::thread_local! {
    /// The name that the client of the handshake being polled asked for. The resolver can return a certificate only;
    /// [`accept`](super::accept) takes this after each poll.
    static ASKED: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// The name that the client of the handshake just polled asked for, if its ClientHello was read in that poll.
pub(super) fn take_asked() -> Option<Asked> {
    ASKED.take()
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map_or(Asked::Nothing, |name| {
            let is_named = self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
            if is_named { Asked::Known } else { Asked::Unknown(Name::of(name.as_bytes())) }
        });
        ASKED.set(Some(asked));
        const SUITES: [CipherSuite; 6] = [
            // In TLS 1.3 the signature schemes alone decide on the kind of certificate.
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ];
        let accepts_ecdsa =
            hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
                && hello.cipher_suites().iter().any(|suite| SUITES.contains(suite));
        Some(Arc::clone(if accepts_ecdsa { &self.ecdsa } else { &self.rsa }))
    }
}

/// A state directory. Without the lock, on a full or read-only file system, it can only be read.
struct Store<'a> {
    dir: &'a Path,
    /// `None` while it is not known yet whether something has to be written.
    lock: Option<io::Result<Lock>>,
    /// Whether something has to be written.
    is_incomplete: Cell<bool>,
}

impl<'a> Store<'a> {
    /// Does something with a directory: first without its lock, and again with it if something has to be written.
    fn with<T>(
        dir: &'a Path,
        work: impl Fn(&Self) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        let mut store = Self { dir, lock: None, is_incomplete: Cell::new(false) };
        match work(&store) {
            Err(_) if store.is_incomplete.get() => {}
            done => return done,
        }
        let mut lock = Lock::take(dir, LOCK_QUIET);
        if lock.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            log::info!("{}", Waiting(dir));
            lock = Lock::take(dir, LOCK_TIMEOUT);
        }
        store.lock = Some(lock);
        work(&store)
    }

    /// Called before something is made that has to be written.
    fn prepare(&self) -> Result<(), IdentityError> {
        if self.lock.is_some() {
            return Ok(());
        }
        self.is_incomplete.set(true);
        // Not seen by the caller of `with`.
        Err(IdentityError::NotMade)
    }

    fn read(&self, file: &'static str) -> Result<Option<Zeroizing<String>>, IdentityError> {
        state_dir::read(self.dir, file).map_err(|error| failed(file, &error))
    }

    fn write(&self, file: &'static str, text: &str) -> Result<(), IdentityError> {
        self.prepare()?;
        match &self.lock {
            Some(Ok(lock)) => {
                state_dir::write(lock, self.dir, file, text).map_err(|error| failed(file, &error))
            }
            Some(Err(error)) => Err(IdentityError::Directory(Cause::of(error))),
            None => Err(IdentityError::NotMade),
        }
    }

    /// Writes a file that can be made again. If writing fails, that is logged and the content is used until this
    /// program ends.
    fn write_if_possible(&self, file: &'static str, text: &str) {
        if let Err(error) = self.write(file, text) {
            log::warn!(
                "state directory {}: {}",
                self.dir.display(),
                NotKept { file, error: &error }
            );
        }
    }
}

/// The log line about another process that has the lock.
struct Waiting<'a>(&'a Path);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.0.display();
        write!(f, "waiting for another pandaproxy that makes its keys in {dir}")
    }
}

/// The log line about an authority that moves to a directory of its own.
struct Moved<'a>(&'a Path);

impl fmt::Display for Moved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate authority of {} copied to --ca-dir", self.0.display())
    }
}

/// The log line about a file that is made again at each start, because it cannot be written.
struct NotKept<'a> {
    file: &'static str,
    error: &'a IdentityError,
}

impl fmt::Display for NotKept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, error } = self;
        write!(f, "{file} is not kept, and made again at each start: {error}")
    }
}

/// The log line about a new certificate authority of this name.
struct Created<'a>(&'a str);

impl fmt::Display for Created<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "created certificate authority {}; import it into clients that verify certificates: \
             sudo pandaproxy ca",
            self.0
        )
    }
}

fn failed(file: &'static str, error: &io::Error) -> IdentityError {
    if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::FileTooLarge) {
        IdentityError::NotOurs { file }
    } else {
        IdentityError::Io { file, cause: Cause::of(error) }
    }
}

/// The certificate authority that signs the leaves.
struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
    name: String,
    not_after: i64,
}

impl Ca {
    /// The CA of a directory. If it has none, the one of the directory `former` is put there, or a new one.
    fn load_or_make(
        store: &Store<'_>,
        former: Option<&Path>,
        now: i64,
    ) -> Result<Self, IdentityError> {
        let key = store.read(CA_KEY)?;
        let Some(pem) = store.read(CA_PEM)? else {
            store.prepare()?;
            if let (None, Some(former)) = (&key, former)
                && let Some((pem, key)) = Self::of_former(former)
            {
                log::info!("{}", Moved(former));
                store.write(CA_KEY, &key)?;
                store.write(CA_PEM, &pem)?;
                return Self::load(&pem, &key);
            }
            // An interrupted first start, or a lost certificate: the authority is made again from its key.
            return Self::make(store, key.and_then(|key| Kind::Ecdsa.read(&key)), now);
        };
        let ca = Self::load(&pem, &key.ok_or(IdentityError::KeyMissing)?)?;
        if now >= FLOOR && now > ca.not_after { Err(IdentityError::Expired) } else { Ok(ca) }
    }

    /// Certificate and key of a sound CA in this directory.
    fn of_former(dir: &Path) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
        let read = |file| state_dir::read(dir, file).ok().flatten();
        let (pem, key) = (read(CA_PEM)?, read(CA_KEY)?);
        Self::load(&pem, &key).is_ok().then_some((pem, key))
    }

    fn make(store: &Store<'_>, key: Option<KeyPair>, now: i64) -> Result<Self, IdentityError> {
        let key = key.map_or_else(|| Kind::Ecdsa.make(), Ok)?;
        // Derived from the key, so that a CA made again from its key has the same name.
        let [a, b, c, d, ..] = fingerprint(&key.subject_public_key_info());
        let name = format!("{CA_NAME}{a:02x}{b:02x}{c:02x}{d:02x}");
        log::info!("{}", Created(&name));
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
        // `pandaproxy ca` prints the file: it must hold the certificate alone.
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

    /// Loads a leaf and its key, and makes or issues again what is missing, damaged or out of date.
    fn load_or_issue(
        &self,
        store: &Store<'_>,
        leaf: &Leaf,
        subject: &Subject<'_>,
        now: i64,
    ) -> Result<(Arc<CertifiedKey>, Vec<String>), IdentityError> {
        let text = tolerant(store.read(leaf.key))?;
        let key = match text.as_ref().and_then(|key| leaf.kind.read(key)) {
            Some(key) => key,
            // The user's own key, in a format that is not supported: it is not overwritten.
            None if text.is_some_and(|text| text.contains(PRIVATE_KEY)) => {
                return Err(IdentityError::ForeignKey { file: leaf.key });
            }
            None => {
                store.prepare()?;
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
                store.prepare()?;
                log::info!("certificate {}: {why}", leaf.pem);
                let issued = self.issue(leaf.kind, &key, subject, &names, now)?;
                store.write_if_possible(leaf.pem, &issued.pem());
                issued.der().clone()
            }
        };
        let key = PrivateKeyDer::from(key);
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| IdentityError::NotMade)?;
        let hosts = names.iter().filter_map(Alternative::host).map(String::from).collect();
        Ok((Arc::new(CertifiedKey::new(vec![der, self.der.clone()], key)), hosts))
    }

    /// Why a leaf has to be issued again; `None` if it is up to date.
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
            Some("renewed: this machine's names or addresses have changed")
        } else if now >= FLOOR && parsed.validity().not_before.timestamp() > now {
            Some("renewed: it is not valid yet by this machine's clock")
        } else if now >= FLOOR && parsed.validity().not_after.timestamp() < now + RENEW {
            Some("renewed: it expires within a year")
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
                Alternative::Host(host) => SanType::DnsName(Ia5String::try_from(host.as_str())?),
                Alternative::Address(address) => SanType::IpAddress(*address),
            });
        }
        let mut ca = CertificateParams::default();
        ca.distinguished_name = common_name(&self.name);
        Ok(params.signed_by(key, &Issuer::from_params(&ca, &self.key))?)
    }
}

/// The kind and the files of a leaf.
struct Leaf {
    kind: Kind,
    key: &'static str,
    pem: &'static str,
}

const ECDSA: Leaf = Leaf { kind: Kind::Ecdsa, key: "ecdsa.key", pem: "ecdsa.pem" };
const RSA: Leaf = Leaf { kind: Kind::Rsa, key: "rsa.key", pem: "rsa.pem" };

/// Treats a damaged file as missing: its content can be made again.
fn tolerant<T>(read: Result<Option<T>, IdentityError>) -> Result<Option<T>, IdentityError> {
    match read {
        Err(IdentityError::NotOurs { .. }) => Ok(None),
        read => read,
    }
}

/// A subject alternative name of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Alternative {
    Host(String),
    Address(IpAddr),
}

impl Alternative {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Host(_) => None,
            Self::Address(address) => Some(*address),
        }
    }

    fn host(&self) -> Option<&str> {
        match self {
            Self::Host(host) => Some(host),
            Self::Address(_) => None,
        }
    }
}

/// The subject alternative names of a leaf for `subject`, in their order. Addresses of the former leaf `had` are
/// kept as long as there is room ([`ADDRESSES`]): a start before the network is up must not remove the address that
/// clients use.
fn names(subject: &Subject<'_>, had: Option<&CertificateDer<'_>>) -> Vec<Alternative> {
    let parsed = had.and_then(|der| parse(der).ok());
    let before = parsed.filter(|parsed| only_name(parsed) == Some(subject.serial));
    let before = before.as_ref().and_then(named).unwrap_or_default();
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut addresses = Vec::with_capacity(ADDRESSES);
    let given = subject.addresses.iter().copied();
    for address in given.chain(before.iter().filter_map(Alternative::address)) {
        let useless = address.is_unspecified() || own.contains(&address);
        if !useless && !addresses.contains(&address) && addresses.len() < ADDRESSES {
            addresses.push(address);
        }
    }
    addresses.sort_unstable();
    // A serial number of digits alone is not a valid host name.
    let serial = DnsName::try_from(subject.serial).ok().map(|_| subject.serial);
    let mut hosts: Vec<&str> = serial.into_iter().chain(["localhost"]).collect();
    let most = hosts.len() + HOSTS;
    for host in subject.hosts {
        let is_there = hosts.iter().any(|there| there.eq_ignore_ascii_case(host));
        if !is_there && hosts.len() < most && DnsName::try_from(*host).is_ok() {
            hosts.push(host);
        }
    }
    let hosts = hosts.into_iter().map(|host| Alternative::Host(host.into()));
    hosts.chain(own.into_iter().chain(addresses).map(Alternative::Address)).collect()
}

/// The subject alternative names of a certificate; `None` when one is neither a DNS name nor an address.
fn named(certificate: &X509Certificate<'_>) -> Option<Vec<Alternative>> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().map(alternative).collect()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "two of nine kinds are used")]
fn alternative(name: &GeneralName<'_>) -> Option<Alternative> {
    match name {
        GeneralName::DNSName(host) => Some(Alternative::Host((*host).into())),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(Alternative::Address)
        }
        _ => None,
    }
}

/// The common name of the subject; `None` if the subject has other attributes.
fn only_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    only(certificate.subject())
}

/// Whether a certificate of the proxy's is the one of this printer.
pub(super) fn is_issued_to(certificate: &CertificateDer<'_>, serial: &str) -> bool {
    parse(certificate).is_ok_and(|parsed| only_name(&parsed) == Some(serial))
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

/// Parameters of a certificate for `name` that expires at `end`, in seconds since 1970, with a random serial number:
/// some clients reject two certificates of one CA that share one. It is valid from the day before [`FLOOR`], not from
/// now: a clock that was ahead when it was issued would make it invalid for years.
fn dated(name: &str, end: i64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    let date = |at: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(at.unsigned_abs());
    params.not_before = date(FLOOR - DAY);
    params.not_after = date(end);
    let [first, rest @ ..] = random::<16>()?;
    // Positive, without leading zeros (RFC 5280 §4.1.2.2).
    let mut serial = vec![first & 0x7f | 0x40];
    serial.extend(rest);
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(params)
}

/// The time of issue, in seconds since 1970: `now`, or [`FLOOR`] if `now` is implausible.
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

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> Vec<String> {
    use alloc::string::ToString;
    let io = IdentityError::Io { file: CA_PEM, cause: Cause::NotAFile };
    let errors = [
        io,
        IdentityError::Directory(Cause::Denied),
        IdentityError::Directory(Cause::ReadOnly),
        IdentityError::Directory(Cause::Full),
        IdentityError::Directory(Cause::InUse),
        IdentityError::Directory(Cause::NotADirectory),
        IdentityError::NotOurs { file: CA_PEM },
        IdentityError::ForeignKey { file: RSA.key },
        IdentityError::KeyMissing,
        IdentityError::KeyMismatch,
        IdentityError::Expired,
        IdentityError::NotMade,
    ];
    let of_ca = [
        CaError::Missing,
        CaError::Unreadable(Cause::Denied),
        CaError::Unreadable(Cause::Link),
        CaError::Spoilt,
    ];
    let lines = [
        NotKept { file: RSA.pem, error: &io }.to_string(),
        Created("PandaProxy CA 01234567").to_string(),
        Waiting(Path::new("/var/lib/pandaproxy")).to_string(),
        Moved(Path::new("/var/lib/pandaproxy")).to_string(),
    ];
    let errors = errors.iter().map(ToString::to_string);
    errors.chain(of_ca.iter().map(ToString::to_string)).chain(lines).collect()
}
