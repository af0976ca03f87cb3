//! Whether whoever answers on a port is this proxy: the half of a TLS handshake that shows it.
//!
//! A proxy that is asked whether it is well should not have to let anybody in for that. So only the
//! part of the handshake is made in which it proves who it is: its certificate, judged by the CA in
//! the state directory, and its signature over what was said. Then we leave. It sees a client that
//! left in the middle, and neither waits for a login nor counts a wrong one.

use alloc::string::String;
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::chain::FLOOR;
use super::identity::ca_there;
use crate::board::BOARD;

/// What a certificate of ours always names.
const NAME: &str = "localhost";

/// Why nobody at the other end can be taken for this proxy. `Display` is a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreetingError {
    /// There is no CA to judge by: this proxy has never started with this state directory.
    NoCa,
    /// The CA cannot be read, for this reason.
    CaUnreadable(ErrorKind),
    /// What is in the file of the CA is no certificate.
    CaSpoilt,
    /// Its certificate is not one of ours.
    Foreign,
    /// Its certificate is one of ours, and has expired.
    Expired,
    /// It speaks TLS, but the handshake failed.
    Broken(String),
    /// It hung up.
    Left,
    /// It did not answer in time.
    Silent,
    /// The line failed.
    Io(ErrorKind),
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCa => f.write_str(
                "there is no ca.pem in the state directory: is it the one the service uses?",
            ),
            Self::CaUnreadable(ErrorKind::PermissionDenied) => f.write_str(
                "ca.pem in the state directory may not be read: ask as the user the service runs as",
            ),
            Self::CaUnreadable(kind) => {
                write!(f, "ca.pem in the state directory cannot be read: {kind}")
            }
            Self::CaSpoilt => f.write_str("ca.pem in the state directory is no certificate"),
            Self::Foreign => f.write_str(
                "its certificate is not signed by the CA in the state directory: another program \
                 has this port, or the service uses another directory",
            ),
            Self::Expired => {
                f.write_str("its certificate has expired: check the date, and start it again")
            }
            Self::Broken(why) => write!(f, "the TLS handshake failed: {why}"),
            Self::Left => f.write_str("it hung up during the TLS handshake: its log says why"),
            Self::Silent => f.write_str("it takes connections but does not answer in time"),
            Self::Io(kind) => write!(f, "the connection failed: {kind}"),
        }
    }
}

impl Error for GreetingError {}

/// Makes whoever is at the other end of `stream` show that it is the proxy whose state is in `dir`.
///
/// How long that may take is the stream's affair: [`ErrorKind::TimedOut`] or
/// [`ErrorKind::WouldBlock`] ends it. A `clock` before [`FLOOR`] counts as that moment, as it does
/// when certificates are issued: a board's may start in 1970.
///
/// # Errors
///
/// [`GreetingError`].
pub fn greet(
    dir: &Path,
    stream: &mut (impl Read + Write),
    clock: fn() -> SystemTime,
) -> Result<(), GreetingError> {
    let mut connection = connection(dir, FromFloor(clock))?;
    while connection.is_handshaking() {
        while connection.wants_write() {
            connection.write_tls(stream).map_err(|error| of_line(&error))?;
        }
        if connection.read_tls(stream).map_err(|error| of_line(&error))? == 0 {
            return Err(GreetingError::Left);
        }
        connection.process_new_packets().map_err(|error| of_tls(&error))?;
    }
    // Our own Finished waits to be written, and never is: it has shown what we wanted to see.
    Ok(())
}

fn connection(dir: &Path, clock: FromFloor) -> Result<ClientConnection, GreetingError> {
    let pem = ca_there(dir)
        .map_err(|error| GreetingError::CaUnreadable(error.kind()))?
        .ok_or(GreetingError::NoCa)?;
    let ca = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| GreetingError::CaSpoilt)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|_| GreetingError::CaSpoilt)?;
    let broken = |error: rustls::Error| of_tls(&error);
    let mut config =
        ClientConfig::builder_with_details(super::provider(BOARD.suites), Arc::new(clock))
            .with_protocol_versions(&[&TLS13])
            .map_err(broken)?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(NAME).map_err(|_| GreetingError::Foreign)?;
    ClientConnection::new(Arc::new(config), name).map_err(broken)
}

/// A clock that starts at [`FLOOR`].
#[derive(Debug)]
struct FromFloor(fn() -> SystemTime);

impl TimeProvider for FromFloor {
    fn current_time(&self) -> Option<UnixTime> {
        let now = (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(now.max(Duration::from_secs(FLOOR.unsigned_abs()))))
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the rest says for itself what it is")]
fn of_line(error: &io::Error) -> GreetingError {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => GreetingError::Silent,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            GreetingError::Left
        }
        kind => GreetingError::Io(kind),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the rest says for itself what it is")]
fn of_tls(error: &rustls::Error) -> GreetingError {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => GreetingError::Expired,
        rustls::Error::InvalidCertificate(_) => GreetingError::Foreign,
        error => GreetingError::Broken(alloc::string::ToString::to_string(error)),
    }
}
