//! Certificate pins: the SHA-256 of each printer's certificate, one line for each printer, in the file `pins`.
//!
//! Newer models have certificates of device authorities that are not published
//! ([`protocol`](crate::protocol#certificates)). Such a certificate is trusted on first use, pinned, and must not
//! change afterwards. A certificate of a known authority is pinned as well and replaces the former pin: from then
//! on the printer's certificate is not trusted on first use.
//!
//! ```text
//! 01P00C000000000 0f3a…64 hexadecimal digits: the SHA-256 of the certificate…
//! ```
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | printers | [`PRINTERS`] | [`PinError::NotKept`]: no further printer is pinned |

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::chains::Chains;
use super::{self as state_dir, LOCK_TIMEOUT, Lock, PRINTERS};

/// The file's name.
const FILE: &str = "pins";

/// The SHA-256 of a certificate as DER.
pub type Fingerprint = [u8; 32];

/// The fingerprint of a certificate as DER.
pub fn fingerprint(certificate: &[u8]) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

/// The pins of a state directory. Each call reads or writes the file, and may block: a `Pin` keeps what is known of one
/// printer in memory.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
    /// Whether nothing is changed, not even the mode of a file that is read: what is pinned is lost with the program.
    only_looks: bool,
    keeps_chains: bool,
}

/// Why the pins cannot be used. The file's path and the system's error are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinError {
    /// The file cannot be read, or a line of it is not a pin.
    Unreadable,
    /// The file cannot be written, or holds [`PRINTERS`] pins already.
    NotKept,
}

impl Pins {
    /// The pins in the state directory `dir`. Reads and writes nothing.
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.into(), only_looks: false, keeps_chains: false }
    }

    /// The same, for a command beside a running service: it changes nothing and follows no symbolic link.
    #[must_use]
    pub fn looking(self) -> Self {
        Self { only_looks: true, ..self }
    }

    /// The same, with the [chain](Chains) of each printer beside its pin.
    #[must_use]
    pub fn keeping_chains(self) -> Self {
        Self { keeps_chains: true, ..self }
    }

    /// The chains of the printers, if they are kept.
    pub(crate) fn chains(&self) -> Option<Chains> {
        self.keeps_chains.then(|| Chains::in_dir(&self.dir))
    }

    /// The pin of the printer with the serial number `serial`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`PinError::Unreadable`].
    pub fn get(&self, serial: &str) -> Result<Option<Fingerprint>, PinError> {
        Ok(find(&self.read()?, serial))
    }

    /// Pins `serial` to `fingerprint` unless it has a pin; returns its pin.
    ///
    /// # Errors
    ///
    /// [`PinError::Unreadable`] or [`PinError::NotKept`]; the pins are then unchanged.
    pub fn add(&self, serial: &str, fingerprint: Fingerprint) -> Result<Fingerprint, PinError> {
        if self.only_looks {
            return Ok(self.get(serial)?.unwrap_or(fingerprint));
        }
        let lock = Lock::take(&self.dir, LOCK_TIMEOUT).map_err(|error| self.not_kept(&error))?;
        let text = self.read()?;
        match find(&text, serial) {
            Some(pinned) => Ok(pinned),
            None => self.write(&lock, &text, serial, fingerprint).map(|()| fingerprint),
        }
    }

    /// Pins `serial` to `fingerprint` in place of its former pin. Writes nothing if it is pinned to that already.
    ///
    /// # Errors
    ///
    /// Errors of [`add`](Self::add).
    pub fn replace(&self, serial: &str, fingerprint: Fingerprint) -> Result<(), PinError> {
        if self.get(serial)? == Some(fingerprint) || self.only_looks {
            return Ok(());
        }
        let lock = Lock::take(&self.dir, LOCK_TIMEOUT).map_err(|error| self.not_kept(&error))?;
        let others = self.read()?;
        let of_another = |line: &&str| parse(line.trim()).is_none_or(|(of, _)| of != serial);
        let kept: Vec<&str> = others.lines().filter(of_another).collect();
        self.write(&lock, &kept.join("\n"), serial, fingerprint)
    }

    /// Writes the lines `others`, and the pin of `serial` behind them.
    fn write(
        &self,
        lock: &Lock,
        others: &str,
        serial: &str,
        fingerprint: Fingerprint,
    ) -> Result<(), PinError> {
        if lines(others).count() >= PRINTERS {
            return Err(self.not_kept(&ErrorKind::QuotaExceeded.into()));
        }
        let mut text = String::from(others);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(serial);
        text.push(' ');
        for byte in fingerprint {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        state_dir::write(lock, &self.dir, FILE, &text).map_err(|error| self.not_kept(&error))
    }

    fn not_kept(&self, error: &io::Error) -> PinError {
        log::error!("cannot write {}: {error}", self.dir.join(FILE).display());
        PinError::NotKept
    }

    /// The file's text, each line of which is a pin, empty, or a comment.
    fn read(&self) -> Result<String, PinError> {
        let read = if self.only_looks { state_dir::look } else { state_dir::read };
        let text = read(&self.dir, FILE).map_err(|error| {
            log::error!("cannot read {}: {error}", self.dir.join(FILE).display());
            PinError::Unreadable
        })?;
        let text = text.map_or_else(String::new, |text| String::from(text.as_str()));
        if lines(&text).count() > PRINTERS || !lines(&text).all(|line| parse(line).is_some()) {
            return Err(PinError::Unreadable);
        }
        Ok(text)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn find(text: &str, serial: &str) -> Option<Fingerprint> {
    lines(text).filter_map(parse).find(|(of, _)| *of == serial).map(|(_, fingerprint)| fingerprint)
}

fn parse(line: &str) -> Option<(&str, Fingerprint)> {
    let (serial, digits) = line.split_once(char::is_whitespace)?;
    let digits = digits.trim_start();
    if digits.len() != 2 * size_of::<Fingerprint>() {
        return None;
    }
    let mut fingerprint = Fingerprint::default();
    for (byte, pair) in fingerprint.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((serial, fingerprint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch::Scratch;
    use alloc::format;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pin_survives_a_restart_and_add_keeps_the_first() {
        let dir = Scratch::new("pins");
        let pins = Pins::in_dir(&dir.join("state"));
        assert_eq!(pins.get("A"), Ok(None));
        assert_eq!(pins.add("A", [7; 32]), Ok([7; 32]));
        assert_eq!(pins.add("B", [9; 32]), Ok([9; 32]));
        assert_eq!(pins.add("A", [8; 32]), Ok([7; 32]));
        let again = Pins::in_dir(&dir.join("state"));
        assert_eq!(again.get("A"), Ok(Some([7; 32])));
        assert_eq!(again.get("B"), Ok(Some([9; 32])));
        let mode = fs::metadata(dir.join("state/pins")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(dir.join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_malformed_file_is_an_error_and_is_left_unchanged() {
        let dir = Scratch::new("pins");
        let pins = Pins::in_dir(&dir);
        let good = "a".repeat(64);
        let long = format!("A {good}\n").repeat(PRINTERS + 1);
        for bad in ["A", "A 12", &format!("A {}", "g".repeat(64)), &format!("A {good}0"), &long] {
            fs::write(dir.join(FILE), bad).unwrap();
            assert_eq!(pins.get("A"), Err(PinError::Unreadable), "{bad}");
            assert_eq!(pins.add("A", [1; 32]), Err(PinError::Unreadable), "{bad}");
            assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), bad);
        }
        fs::write(dir.join(FILE), [0xff; 8]).unwrap();
        assert_eq!(pins.get("A"), Err(PinError::Unreadable));
        fs::write(dir.join(FILE), "# nothing yet\n\n").unwrap();
        assert_eq!(pins.get("A"), Ok(None));
    }

    #[test]
    fn a_full_file_takes_no_further_pin() {
        let dir = Scratch::new("pins");
        let pins = Pins::in_dir(&dir);
        for printer in 0..PRINTERS {
            assert_eq!(pins.add(&format!("P{printer}"), [1; 32]), Ok([1; 32]));
        }
        assert_eq!(pins.add("Q", [1; 32]), Err(PinError::NotKept));
        assert_eq!(pins.get("P0"), Ok(Some([1; 32])));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let dir = Scratch::new("pins");
        fs::write(dir.join("file"), "").unwrap();
        let pins = Pins::in_dir(&dir.join("file"));
        assert_eq!(pins.add("A", [1; 32]), Err(PinError::NotKept));
    }
}
