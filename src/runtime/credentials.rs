//! The proxy's certificates for its clients, and what it verifies the printer's certificate by, from the state
//! directory and the settings.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use super::start_error::StartError;
use super::{machine, supervisor};
use crate::board::BOARD;
use crate::config::{Config, FtpMode, PrinterAddr};
use crate::memory::budget::{self, MAX_AUTHORITIES};
use crate::state_dir::Pins;
use crate::state_dir::chains::Chains;
use crate::state_dir::pins::Fingerprint;
use crate::tls::identity::{ADDRESSES, HOSTS};
use crate::tls::{Directories, Identity, Policy, ServerConfig, Subject, Trust, issuers};

/// The proxy's certificates for its clients, and what it verifies the printer's certificate by.
#[derive(Clone)]
pub struct Credentials {
    /// For all services but files.
    pub tls: Arc<ServerConfig>,
    /// For files in proxy mode: TLS 1.2, whose data connections resume the control connection's session.
    pub files_tls: Option<Arc<ServerConfig>>,
    /// What the printer's certificate has to be.
    pub trust: Trust,
    /// The authority that clients are to trust.
    pub ca: Authority,
}

/// The proxy's certificate authority, as it is shown to clients.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate as PEM, and behind it what vouches for a relayed printer's.
    pub pem: Arc<str>,
    /// SHA-256 of its certificate.
    pub sha256: Fingerprint,
}

impl Authority {
    /// That of `identity`.
    pub fn of(identity: &Identity) -> Self {
        Self { pem: identity.ca_pem().into(), sha256: *identity.ca_sha256() }
    }

    /// With what clients of a relay need of the printer, as far as it is known now.
    fn with_issuers(self, config: &Config) -> Self {
        if !config.relays() || config.insecure_printer {
            return self;
        }
        let given = config.printer_ca.as_deref().and_then(|path| read_authorities(path).ok());
        let dir = &config.state_dir;
        let text = issuers::text(dir, &config.serial, given.as_deref(), SystemTime::now);
        Self { pem: format!("{}{text}", self.pem).into(), ..self }
    }
}

impl Credentials {
    /// Loads keys and certificates from the state directory, and makes those that are missing.
    ///
    /// # Errors
    ///
    /// The state directory or `--printer-ca` cannot be used.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let trust = trust(config)?;
        supervisor::starting();
        let identity = identity(config)?;
        let tls = identity.server_config(BOARD.suites, budget::SESSIONS);
        let is_proxy = config.services.ftp && matches!(config.ftp.mode, FtpMode::Proxy { .. });
        let files_tls = is_proxy
            .then(|| identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS))
            .transpose()
            .map_err(|error| StartError::Identity(config.state_dir.clone(), error))?;
        Ok(Self { tls, files_tls, trust, ca: Authority::of(&identity).with_issuers(config) })
    }
}

/// What this proxy shows to its clients.
fn identity(config: &Config) -> Result<Identity, StartError> {
    let mut addresses = heapless::Vec::<IpAddr, { ADDRESSES + 3 }>::new();
    let advertised = config.advertise.map(IpAddr::V4);
    let specific = Some(config.bind).filter(|bind| !bind.is_unspecified());
    let given = [advertised, specific, towards(&config.printer)].into_iter().flatten();
    for address in given.chain(machine::addresses(config.bind)) {
        if !addresses.contains(&address) {
            // Cannot fail: there are three, and all of the machine's.
            let _fits = addresses.push(address);
        }
    }
    let own = machine::host_names();
    let hosts = config.advertise_names.iter().map(|name| name.as_str());
    let hosts: heapless::Vec<&str, HOSTS> =
        hosts.chain(own.iter().map(|name| name.as_str())).take(HOSTS).collect();
    let subject = Subject { serial: &config.serial, addresses: &addresses, hosts: &hosts };
    let dirs = Directories { ca: &config.ca_dir, leaves: &config.state_dir };
    Identity::load_or_make(dirs, &subject, SystemTime::now())
        .map_err(|(dir, error)| StartError::Identity(dir.into(), error))
}

/// What this proxy accepts from the printer.
fn trust(config: &Config) -> Result<Trust, StartError> {
    let pins = Pins::in_dir(&config.state_dir);
    let pins = if config.relays() && !config.insecure_printer {
        pins.keeping_chains()
    } else {
        // No client meets the printer's certificate.
        Chains::in_dir(&config.state_dir).remove(&config.serial);
        pins
    };
    trust_with(config, pins)
}

/// The same for a command that changes nothing.
///
/// # Errors
///
/// `--printer-ca` cannot be used.
pub fn looking_trust(config: &Config) -> Result<Trust, StartError> {
    trust_with(config, Pins::in_dir(&config.state_dir).looking())
}

fn trust_with(config: &Config, pins: Pins) -> Result<Trust, StartError> {
    let policy = if config.insecure_printer { Policy::Insecure } else { Policy::Verify };
    let given = match &config.printer_ca {
        Some(path) => Some(
            read_authorities(path)
                .map_err(|error| StartError::PrinterCa { path: path.clone(), error })?,
        ),
        None => None,
    };
    Trust::new(&config.serial, policy, given.as_deref(), pins, SystemTime::now)
        .map_err(StartError::Trust)
}

/// Reads the file of `--printer-ca`.
///
/// # Errors
///
/// The file system's error; it is larger than a dozen certificates.
pub fn read_authorities(path: &Path) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)?.take(MAX_AUTHORITIES as u64 + 1).read_to_end(&mut pem)?;
    if pem.len() > MAX_AUTHORITIES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(pem)
}

/// Our address on the way to the printer: the one clients of its network reach us at. For a printer
/// given by name it is the one on the way out.
fn towards(printer: &PrinterAddr) -> Option<IpAddr> {
    let printer = match printer {
        PrinterAddr::Ip(address) => *address,
        // An address reserved for documentation (RFC 5737), which no host has.
        PrinterAddr::Name(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let any: IpAddr = match printer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => core::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a datagram socket sends nothing; it only chooses the way. The port is any.
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect((printer, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Intent;
    use crate::state_dir::scratch::Scratch;
    use alloc::vec;
    use std::ffi::OsString;

    /// A file tunnel is relayed beside a file service that is not.
    #[test]
    fn a_tunnels_authorities_to_download_are_in_the_budget() {
        let dir = Scratch::new("authorities");
        let words = "pandaproxy -p 10.0.0.9 -a 12345678 -s 09400A000000001 --ftp-mode proxy";
        let words = words.split(' ').chain(["--state-dir", dir.to_str().unwrap()]);
        let Ok(Intent::Serve(config)) = Config::from_args(words.map(OsString::from), |_| None)
        else {
            panic!("it serves");
        };
        assert!(matches!(config.ftp.mode, FtpMode::Proxy { .. }), "the lines of ftp are in force");
        let own = Authority { pem: "".into(), sha256: [0; 32] };
        assert!(own.with_issuers(&config).pem.contains("-----BEGIN CERTIFICATE-----"));
        let tunnel = budget::ALTERNATIVES.iter().find(|it| it.when == "port 6000 is a file tunnel");
        let lines: &[budget::Line] = tunnel.unwrap().lines;
        assert!(lines.iter().any(|line| line.count * line.each == budget::AUTHORITIES));
    }

    #[test]
    fn a_file_of_authorities_has_at_most_64_kib() {
        let dir = Scratch::new("authorities");
        let path = dir.join("printer-ca.pem");
        std::fs::write(&path, vec![b'#'; MAX_AUTHORITIES]).unwrap();
        assert_eq!(read_authorities(&path).unwrap().len(), 64 * 1024);
        std::fs::write(&path, vec![b'#'; MAX_AUTHORITIES + 1]).unwrap();
        let error = read_authorities(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
