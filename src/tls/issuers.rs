//! What vouches for the certificate of a relayed printer, for clients that meet it: `pandaproxy ca` prints it behind the
//! proxy's own authority, and the status page's `/ca.pem` has it there.
//!
//! In a [relay](crate::runtime::files::relay) a client meets the printer's certificate. Slicers know the roots of Bambu Lab,
//! and not the device authorities of newer models. So they are given
//!
//! | the printer's certificate is signed by | they are given |
//! |---|---|
//! | an authority that is built in | its certificate, and its root's |
//! | an authority of `--printer-ca` | its certificate |
//! | an authority that the printer sent along | its certificate, and those above it, as in the lines before |
//! | an unknown authority | the printer's own certificate, if it is pinned |
//!
//! The certificates come from the [file](crate::state_dir::chains) that the running proxy has written, which is verified
//! again with the same rules: what the proxy does not trust now is given to no client.

use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use std::path::Path as FilePath;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authorities::{Authority, BAMBU_LAB};
use super::certificate::parse;
use super::chain::{MAX_SENT, Path};
use super::refusal::Refusal;
use super::trust::{Policy, verifier};
use crate::state_dir::chains::Chains;
use crate::state_dir::pins::{Fingerprint, fingerprint};
use crate::state_dir::{Cause, Pins};

/// Characters of a name, at most.
const MAX_NAME: usize = 48;

/// The line before each certificate of [`text`], which `trust.sh` and `trust.ps1` recognise: their `--remove` removes the
/// certificate below it, too. Unlike the line that `pandaproxy ca` prints, it does not name the printer.
const OPEN_MARK: &str = "# PandaProxy: printer authority\n";

/// Bytes in a line of PEM (RFC 7468 §2), before they are encoded.
const PEM_LINE: usize = 48;

/// A certificate that clients of a relay may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its common name: printable characters, at most 48.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Fingerprint,
    /// The certificate in PEM, with a newline at its end.
    pub pem: String,
}

/// What there is for the clients of one printer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printer {
    /// Its serial number.
    pub serial: String,
    /// What vouches for its certificate, from the printer upwards.
    pub issuers: Result<Vec<Issuer>, IssuersError>,
}

/// Why nothing is given for a printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuersError {
    /// The file cannot be read.
    Unreadable(Cause),
    /// The file holds no certificate.
    Damaged,
    /// The certificate is not trusted now.
    Refused(Refusal),
}

impl fmt::Display for IssuersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its certificate is not printed: ")?;
        match self {
            Self::Unreadable(cause) => write!(f, "cannot read its file: {cause}"),
            Self::Damaged => f.write_str("its file is damaged; start the service again"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl Error for IssuersError {}

/// What clients need for each printer whose chain is in the state directory `dir`; `given` is the content of the file of
/// `--printer-ca`. Changes no file.
pub fn printers(dir: &FilePath, given: Option<&[u8]>, clock: fn() -> SystemTime) -> Vec<Printer> {
    let chains = Chains::in_dir(dir);
    let of = |serial: String| {
        let issuers = match chains.get(&serial) {
            Ok(Some(text)) => issuers(dir, &serial, &text, given, clock),
            Ok(None) => Err(IssuersError::Damaged),
            Err(error) => Err(IssuersError::Unreadable(Cause::of(&error))),
        };
        Printer { serial, issuers }
    };
    chains.printers().into_iter().map(of).collect()
}

/// The same for the printer `serial` alone, as PEM with a comment line before each certificate, for clients that have shown no
/// code. For a printer that was not seen yet, or whose certificate is not trusted now, it is the built-in device authorities
/// of all models with their roots, and those in `given`.
pub fn text(
    dir: &FilePath,
    serial: &str,
    given: Option<&[u8]>,
    clock: fn() -> SystemTime,
) -> String {
    let seen = printers(dir, given, clock).into_iter().find(|printer| printer.serial == serial);
    let issuers = seen.and_then(|printer| printer.issuers.ok());
    let mut text = String::new();
    for Issuer { pem, .. } in issuers.unwrap_or_else(|| of_any_model(given)) {
        text.push_str(OPEN_MARK);
        text.push_str(&pem);
    }
    text
}

/// What may vouch for a printer's certificate, each once.
fn of_any_model(given: Option<&[u8]>) -> Vec<Issuer> {
    let with_root = |device| root_of(device).map(|root| [device, root]);
    let built_in = BAMBU_LAB.iter().filter_map(|known| known.certificate).filter_map(with_root);
    let given: Vec<_> = certificates(given.unwrap_or_default()).collect();
    let all = built_in.flatten().chain(given.iter().map(|der| &**der));
    let mut found: Vec<Issuer> = Vec::new();
    for issuer in all.filter_map(issuer) {
        if !found.contains(&issuer) {
            found.push(issuer);
        }
    }
    found
}

fn issuers(
    dir: &FilePath,
    serial: &str,
    text: &str,
    given: Option<&[u8]>,
    clock: fn() -> SystemTime,
) -> Result<Vec<Issuer>, IssuersError> {
    let certificates: Vec<_> = certificates(text.as_bytes()).take(1 + MAX_SENT).collect();
    let (leaf, sent) = certificates.split_first().ok_or(IssuersError::Damaged)?;
    let pins = Pins::in_dir(dir).looking();
    // A file of `--printer-ca` that cannot be used does not keep the others' certificates back.
    let verifier = verifier(serial, Policy::Verify, given, pins.clone(), clock)
        .or_else(|_| verifier(serial, Policy::Verify, None, pins, clock))
        .map_err(|_| IssuersError::Damaged)?
        .without_first_use();
    let (path, sent) = match verifier.verify(leaf, sent) {
        Ok((_, path)) => (path, sent),
        // Alone it may be pinned.
        Err(refusal) => match verifier.verify(leaf, &[]) {
            Ok((_, path)) => (path, &[][..]),
            Err(_) => return Err(IssuersError::Refused(refusal)),
        },
    };
    let mut found: Vec<Issuer> =
        path.between.iter().filter_map(|at| sent.get(*at)).filter_map(|der| issuer(der)).collect();
    let known = path.known.and_then(|known| certificate_of(known, given));
    match &known {
        Some(known) => {
            found.extend(issuer(known));
            found.extend(root_of(known).and_then(issuer));
        }
        None => found.extend(issuer(leaf)),
    }
    Ok(found)
}

/// The certificates of a PEM text, up to the first that is damaged.
fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).map_while(Result::ok)
}

/// The certificate of an authority that is built in, or is in `given`.
fn certificate_of(authority: &Authority, given: Option<&[u8]>) -> Option<CertificateDer<'static>> {
    if let Some(built_in) = authority.certificate {
        return Some(CertificateDer::from(built_in));
    }
    certificates(given?).find(|der| {
        let parsed = parse(der).ok();
        parsed.and_then(|parsed| Authority::of(&parsed)).is_some_and(|one| one == *authority)
    })
}

/// The certificate of the built-in root that has signed a device authority. A root has none.
fn root_of(device: &[u8]) -> Option<&'static [u8]> {
    let parsed = parse(device).ok().filter(|parsed| parsed.subject() != parsed.issuer())?;
    let root = BAMBU_LAB.iter().find(|root| *root.name == *parsed.issuer().as_raw())?;
    root.certificate
}

fn issuer(der: &[u8]) -> Option<Issuer> {
    let parsed = parse(der).ok()?;
    let common = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let is_shown = |c: char| c == ' ' || c.is_ascii_graphic();
    let shown = |c| if is_shown(c) { c } else { '?' };
    let name = common.unwrap_or("unnamed").chars().take(MAX_NAME).map(shown).collect();
    let mut pem = String::new();
    encode(der, &mut pem);
    Some(Issuer { name, sha256: fingerprint(der), pem })
}

/// The text of a printer's file: its certificate, and the authorities of `sent` that vouch for it.
pub(super) fn chain(leaf: &[u8], sent: &[CertificateDer<'_>], path: &Path<'_>) -> String {
    let mut text = String::new();
    encode(leaf, &mut text);
    for between in path.between.iter().filter_map(|at| sent.get(*at)) {
        encode(between, &mut text);
    }
    text
}

/// The fingerprint of the first certificate of a printer's file.
pub(super) fn first(text: &str) -> Option<Fingerprint> {
    certificates(text.as_bytes()).next().map(|der| fingerprint(&der))
}

/// Appends a certificate in PEM.
fn encode(der: &[u8], out: &mut String) {
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(PEM_LINE) {
        let mut encoded = [0; PEM_LINE / 3 * 4];
        // It fits: three bytes become four characters.
        let len = STANDARD.encode_slice(line, &mut encoded).unwrap_or_default();
        let line = encoded.get(..len).and_then(|line| str::from_utf8(line).ok());
        out.push_str(line.unwrap_or_default());
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
}

/// Each message of this module once.
#[cfg(test)]
pub(super) fn samples() -> Vec<String> {
    use alloc::string::ToString;
    let errors = [
        IssuersError::Unreadable(Cause::Denied),
        IssuersError::Damaged,
        IssuersError::Refused(Refusal::PinChanged),
    ];
    errors.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unseen_printer_has_the_authorities_of_all_models() {
        let nowhere = FilePath::new("/nonexistent");
        let given = issuer(&certificate_of(&BAMBU_LAB[0], None).unwrap()).unwrap();
        let text = text(nowhere, "A", Some(given.pem.as_bytes()), SystemTime::now);
        let names: Vec<_> = certificates(text.as_bytes()).filter_map(|der| issuer(&der)).collect();
        let count = |of: &str| names.iter().filter(|issuer| issuer.name.starts_with(of)).count();
        assert_eq!((count("BBL Device CA "), count("BBL CA2 RSA")), (3, 1), "{names:?}");
        assert!(names.contains(&given) && names.len() <= 5, "{names:?}");
        assert_eq!(text.matches(OPEN_MARK).count(), names.len());
        assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), names.len());
    }

    #[test]
    fn a_built_in_device_authority_comes_with_its_root() {
        let mut devices = 0;
        for known in &BAMBU_LAB {
            let der = certificate_of(known, None).unwrap();
            let Issuer { name, sha256, pem } = issuer(&der).unwrap();
            assert!(name.starts_with("BBL "), "{name}");
            assert_eq!(first(&pem), Some(sha256), "{name}");
            let is_device = name.starts_with("BBL Device CA ");
            let root = root_of(&der).and_then(issuer);
            assert_eq!(root.map(|root| root.name), is_device.then(|| "BBL CA2 RSA".into()));
            devices += usize::from(is_device);
        }
        assert_eq!(devices, 3);
    }
}
