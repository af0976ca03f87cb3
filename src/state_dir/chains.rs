//! The certificates that a relayed printer has shown: its own, and the authorities behind it, in the file `SERIAL.chain`.
//!
//! Clients of a [relay](crate::runtime::files::relay) meet the printer's certificate, and may not know the authority that
//! signed it. `pandaproxy ca` gives them what they need of it, after it has [verified](crate::tls::issuers) the file again:
//! the file itself proves nothing.
//!
//! ```text
//! -----BEGIN CERTIFICATE-----
//! …the printer's certificate, then each authority that it sent along and that vouches for it, upwards…
//! ```
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | bytes of the file | [`MAX_CHAIN`] | it is not written |
//! | printers whose file is read | [`PRINTERS`] | the others are left out |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{self as state_dir, LOCK_TIMEOUT, Lock, PRINTERS};

/// Bytes of one file: a printer's certificate and two authorities with RSA-4096 keys have about 6 KiB.
pub const MAX_CHAIN: usize = 8 * 1024;

/// The end of a file's name.
const EXTENSION: &str = "chain";

/// The chains in a state directory. Each call reads or writes a file, and may block.
#[derive(Clone, Debug)]
pub struct Chains {
    dir: PathBuf,
}

impl Chains {
    /// The chains in the state directory `dir`. Reads and writes nothing.
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }

    /// The chain of the printer with the serial number `serial`; `None` if there is none. Changes no file.
    ///
    /// # Errors
    ///
    /// Those of `state_dir::look`.
    pub fn get(&self, serial: &str) -> io::Result<Option<String>> {
        let text = state_dir::look(&self.dir, &name(serial))?;
        Ok(text.map(|text| String::from(text.as_str())))
    }

    /// Serial numbers of the printers whose chains are there, in order.
    pub fn printers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let serial = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|end| end == EXTENSION)
                && let Some(serial) = serial.filter(|serial| is_serial(serial))
                && found.len() < PRINTERS
            {
                found.push(String::from(serial));
            }
        }
        found.sort_unstable();
        found
    }

    /// Replaces the chain of a printer, or makes it.
    ///
    /// # Errors
    ///
    /// The file system's error; the file is then unchanged.
    pub fn set(&self, serial: &str, text: &str) -> io::Result<()> {
        if text.len() > MAX_CHAIN {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let lock = Lock::take(&self.dir, LOCK_TIMEOUT)?;
        state_dir::write(&lock, &self.dir, &name(serial), text)
    }

    /// Removes the chain of a printer, if there is one: nothing is relayed any more.
    pub fn remove(&self, serial: &str) {
        let path = self.dir.join(name(serial));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::debug!("cannot remove {}: {error}", path.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// The name of a printer's file.
fn name(serial: &str) -> String {
    format!("{serial}.{EXTENSION}")
}

/// Whether this may be a serial number, as in the settings.
fn is_serial(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_chain_survives_and_belongs_to_one_printer() {
        let dir = Scratch::new("chains");
        let chains = Chains::in_dir(&dir.join("state"));
        assert_eq!((chains.get("A").unwrap(), chains.printers()), (None, Vec::new()));
        chains.set("B", "two").unwrap();
        chains.set("A", "one").unwrap();
        assert_eq!(chains.get("A").unwrap().as_deref(), Some("one"));
        assert_eq!(chains.printers(), ["A", "B"]);
        let mode = fs::metadata(dir.join("state/A.chain")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        chains.remove("A");
        chains.remove("A");
        assert_eq!(chains.printers(), ["B"]);
        // The longest serial number that settings may have.
        chains.set(&"9".repeat(32), "three").unwrap();
        assert_eq!(chains.printers().len(), 2);
    }

    #[test]
    fn a_chain_that_is_too_long_is_not_written() {
        let dir = Scratch::new("chains");
        let chains = Chains::in_dir(&dir);
        chains.set("A", &"x".repeat(MAX_CHAIN)).unwrap();
        let error = chains.set("A", &"y".repeat(MAX_CHAIN + 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(chains.get("A").unwrap().unwrap().starts_with('x'));
    }

    #[test]
    fn links_and_other_files_are_not_read() {
        let dir = Scratch::new("chains");
        let chains = Chains::in_dir(&dir);
        fs::write(dir.join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.join("secret"), dir.join("A.chain")).unwrap();
        assert!(chains.get("A").is_err());
        for other in ["A.chain.new", "pins", "..chain", "a-b.chain", ".chain"] {
            fs::write(dir.join(other), "").unwrap();
        }
        for n in 0..2 * PRINTERS {
            fs::write(dir.join(format!("P{n}.chain")), "").unwrap();
        }
        assert_eq!(chains.printers().len(), PRINTERS);
    }
}
