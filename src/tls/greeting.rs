//! Identity check of a running proxy, for `pandaproxy health`: the first half of a TLS 1.3 handshake.
//!
//! The handshake is made up to the server's Finished message (RFC 8446 §4.4.4): the proxy has then shown
//! a certificate that the authority in the state directory signed, and proved that it has its key. The
//! connection is closed there, without a login: it takes no client's slot, and no access code is sent.

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
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::chain::FLOOR;
use super::identity::{ca_there, is_issued_to};
use crate::board::BOARD;
use crate::state_dir::Cause;

/// A DNS name that each certificate of the proxy's has: asked for where the serial number is none.
const NAME: &str = "localhost";

/// Why the peer is not this proxy. `Display` is the cause, and a hint behind `; `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreetingError {
    /// There is no `ca.pem`: no proxy has started with this state directory.
    NoCa,
    /// `ca.pem` cannot be read.
    CaUnreadable(Cause),
    /// `ca.pem` does not hold a certificate.
    CaSpoilt,
    /// The peer's certificate is not signed by the authority in `ca.pem`.
    Foreign,
    /// The peer's certificate is signed by that authority, for another serial number.
    OtherPrinter,
    /// The peer's certificate is the proxy's, and has expired.
    Expired,
    /// The TLS handshake failed otherwise.
    Broken(String),
    /// The peer closed the connection during the handshake.
    Left,
    /// The peer did not answer in time.
    Silent,
    /// The connection failed.
    Io(ErrorKind),
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCa => f.write_str(
                "no ca.pem in the state directory; is it the one that the service uses?",
            ),
            Self::CaUnreadable(Cause::Denied) => f.write_str(
                "ca.pem in the state directory: permission denied; run as root or as the service's user",
            ),
            Self::CaUnreadable(cause) => {
                write!(f, "cannot read ca.pem in the state directory: {cause}")
            }
            Self::CaSpoilt => f.write_str("ca.pem in the state directory is not a certificate"),
            Self::Foreign => f.write_str(
                "certificate not signed by ca.pem in the state directory; does another program \
                 have this port, or the service another state directory?",
            ),
            Self::OtherPrinter => f.write_str(
                "certificate of another printer's proxy; does it have this port, or the service \
                 another serial number?",
            ),
            Self::Expired => {
                f.write_str("certificate expired; check the date, then restart the service")
            }
            Self::Broken(why) => write!(f, "TLS handshake failed: {why}"),
            Self::Left => f.write_str("connection closed during the TLS handshake; see the service's log"),
            Self::Silent => f.write_str("no answer to the TLS handshake in time"),
            Self::Io(kind) => write!(f, "connection failed: {kind}"),
        }
    }
}

impl Error for GreetingError {}

/// Checks that the peer of `stream` is the proxy of the printer `serial` whose authority is in the directory `dir`. Several
/// printers' proxies may have one authority.
///
/// The caller sets the stream's timeouts: [`ErrorKind::TimedOut`] or [`ErrorKind::WouldBlock`] ends the
/// check. A `clock` before [`FLOOR`] counts as [`FLOOR`], as when certificates are issued: a board without
/// a battery starts in 1970.
///
/// # Errors
///
/// [`GreetingError`]: the peer is another program, or did not answer.
pub fn greet(
    dir: &Path,
    serial: &str,
    stream: &mut (impl Read + Write),
    clock: fn() -> SystemTime,
) -> Result<(), GreetingError> {
    let mut connection = connection(dir, serial, FromFloor(clock))?;
    while connection.is_handshaking() {
        while connection.wants_write() {
            connection.write_tls(stream).map_err(|error| of_line(&error))?;
        }
        if connection.read_tls(stream).map_err(|error| of_line(&error))? == 0 {
            return Err(GreetingError::Left);
        }
        connection.process_new_packets().map_err(|error| of_tls(&error))?;
    }
    // The client's Finished is not sent: the server has proved its identity. That it is this printer's proxy is judged by
    // the certificate's subject: a serial number of digits alone is none of its DNS names.
    let leaf = connection.peer_certificates().and_then(|sent| sent.first());
    let is_of_printer = leaf.is_some_and(|leaf| is_issued_to(leaf, serial));
    if is_of_printer { Ok(()) } else { Err(GreetingError::OtherPrinter) }
}

fn connection(
    dir: &Path,
    serial: &str,
    clock: FromFloor,
) -> Result<ClientConnection, GreetingError> {
    let pem = ca_there(dir)
        .map_err(|error| GreetingError::CaUnreadable(Cause::of(&error)))?
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
    // As in the certificate: a serial number of digits alone is no DNS name.
    let name = DnsName::try_from(serial).or_else(|_| DnsName::try_from(NAME));
    let name = name.map_err(|_| GreetingError::Foreign)?.to_owned();
    let name = ServerName::DnsName(name);
    ClientConnection::new(Arc::new(config), name).map_err(broken)
}

/// A clock that is never before [`FLOOR`].
#[derive(Debug)]
struct FromFloor(fn() -> SystemTime);

impl TimeProvider for FromFloor {
    fn current_time(&self) -> Option<UnixTime> {
        let now = (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(now.max(Duration::from_secs(FLOOR.unsigned_abs()))))
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "other errors are passed on")]
fn of_line(error: &io::Error) -> GreetingError {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => GreetingError::Silent,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            GreetingError::Left
        }
        kind => GreetingError::Io(kind),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "other errors are passed on")]
fn of_tls(error: &rustls::Error) -> GreetingError {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => GreetingError::Expired,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => GreetingError::OtherPrinter,
        rustls::Error::InvalidCertificate(_) => GreetingError::Foreign,
        error => GreetingError::Broken(alloc::string::ToString::to_string(error)),
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> alloc::vec::Vec<String> {
    use alloc::string::ToString;
    let all = [
        GreetingError::NoCa,
        GreetingError::CaUnreadable(Cause::Denied),
        GreetingError::CaUnreadable(Cause::Link),
        GreetingError::CaSpoilt,
        GreetingError::Foreign,
        GreetingError::OtherPrinter,
        GreetingError::Expired,
        of_tls(&rustls::Error::DecryptError),
        GreetingError::Left,
        GreetingError::Silent,
        GreetingError::Io(ErrorKind::ConnectionReset),
    ];
    all.iter().map(ToString::to_string).collect()
}
