//! One running program for each printer of a state directory: a second one would fight with it over the printer's few
//! connections and over the files.
//!
//! A running program holds the lock of the file `SERIAL.pid`, which has its process id. The system frees the lock at the
//! end of the process, however it ends.

use alloc::format;
use alloc::string::String;
use core::error::Error;
use core::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::{open_own, try_lock};

/// Characters of a process id that are read.
const PID: u64 = 10;

/// The right to serve one printer from a state directory, until dropped.
#[derive(Debug)]
pub struct Instance {
    /// Locked.
    _file: File,
}

/// Another process serves the printer from the same state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    dir: PathBuf,
    serial: String,
    /// Its process id, if the file has one.
    pid: Option<u32>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, serial, pid } = self;
        f.write_str("another pandaproxy ")?;
        if let Some(pid) = pid {
            write!(f, "(pid {pid}) ")?;
        }
        write!(
            f,
            "already uses {} for printer {serial}; end it, or choose another directory with --state-dir",
            dir.display()
        )
    }
}

impl Error for InUse {}

impl Instance {
    /// Takes the right to serve the printer with the serial number `serial` from the state directory `dir`. Never waits.
    ///
    /// `None` where no lock can be had, as on a file system that is read-only and new: that is no reason not to serve.
    ///
    /// # Errors
    ///
    /// Another process has it.
    pub fn claim(dir: &Path, serial: &str) -> Result<Option<Self>, InUse> {
        let path = dir.join(format!("{serial}.pid"));
        let unavailable = |error: io::Error| {
            log::debug!("cannot lock {}: {error}", path.display());
            Ok(None)
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let opened = made.and_then(|()| open_own(&path)).or_else(|_| {
            // On a read-only file system, the file that is there can be locked all the same.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            OpenOptions::new().read(true).custom_flags(flags).open(&path)
        });
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return unavailable(error),
        };
        match try_lock(&file, dir) {
            Ok(true) => {
                // The id is for messages alone.
                let _unwritten = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
                Ok(Some(Self { _file: file }))
            }
            Ok(false) => {
                let mut pid = String::new();
                let _unread = file.take(PID).read_to_string(&mut pid);
                let pid = pid.trim().parse().ok();
                Err(InUse { dir: dir.into(), serial: serial.into(), pid })
            }
            Err(error) => unavailable(error),
        }
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<String> {
    let of = |pid| {
        let dir = PathBuf::from("/var/lib/pandaproxy");
        format!("{}", InUse { dir, serial: "01P00A3C1200417".into(), pid })
    };
    alloc::vec![of(Some(4711)), of(None)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch::Scratch;
    use std::fs;

    #[test]
    fn a_printer_of_a_directory_is_served_once() {
        let dir = Scratch::new("instance");
        let state = dir.join("state");
        let first = Instance::claim(&state, "A").unwrap();
        assert!(first.is_some());
        let second = Instance::claim(&state, "A").unwrap_err();
        assert_eq!(second.pid, Some(process::id()), "{second}");
        assert!(Instance::claim(&state, "B").unwrap().is_some(), "another printer");
        assert!(Instance::claim(&dir.join("other"), "A").unwrap().is_some(), "another directory");
        drop(first);
        assert!(Instance::claim(&state, "A").unwrap().is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_obstacle() {
        let dir = Scratch::new("instance");
        fs::write(dir.join("file"), "").unwrap();
        assert!(Instance::claim(&dir.join("file"), "A").unwrap().is_none());
        std::os::unix::fs::symlink(dir.join("file"), dir.join("A.pid")).unwrap();
        assert!(Instance::claim(&dir, "A").unwrap().is_none(), "no link is followed");
    }
}
