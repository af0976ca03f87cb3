//! The state directory: a few small files that survive a restart, readable by their owner only.
//!
//! The [certificates](crate::tls::identity) and their keys are kept here, and the [`pins`]. A file is written
//! under a temporary name beside its own, synced, then renamed: after a crash a reader finds the old
//! file or the new one, never a part. A file larger than `MAX_FILE` was not written by this program and is
//! not read.

use core::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

pub use pins::Pins;

pub mod pins;
#[cfg(test)]
pub(crate) mod scratch;

/// The largest file, in bytes. A key and a certificate have two KiB each.
const MAX_FILE: usize = 16 * 1024;
/// Who may read and write a file: its owner.
const PRIVATE: u32 = 0o600;

/// The exclusive right to change a state directory, until dropped.
pub(crate) struct Lock {
    /// Locked; the system lets go when it is closed, however the process ends.
    _file: File,
}

impl Lock {
    /// Makes the directory if there is none, and waits for whoever else is changing it.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub(crate) fn take(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join("lock");
        let file = OpenOptions::new().create(true).append(true).mode(PRIVATE).open(path)?;
        match file.lock() {
            // Two at once are then on their own, as they would be without a lock file.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                log::debug!("{} cannot be locked: {error}", dir.display());
            }
            locked => locked?,
        }
        Ok(Self { _file: file })
    }
}

/// Reads a file; `None` when there is none.
///
/// # Errors
///
/// Whatever the file system says; [`ErrorKind::FileTooLarge`] and [`ErrorKind::InvalidData`] for
/// what is too large or not text.
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Option<Zeroizing<alloc::string::String>>> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        log::warn!("{} could be read by others: made private", path.display());
        if let Err(error) = fs::set_permissions(&path, Permissions::from_mode(PRIVATE)) {
            log::warn!("{} could not be made private: {error}", path.display());
        }
    }
    let mut text = Zeroizing::new(alloc::string::String::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(Some(text)) }
}

/// Replaces a file, or makes it. Whoever calls holds the [`Lock`].
///
/// # Errors
///
/// Whatever the file system says; the file is then as it was.
pub(crate) fn write(_lock: &Lock, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut beside = heapless::String::<32>::new();
    write!(beside, ".{name}.new").map_err(|_| io::Error::from(ErrorKind::InvalidFilename))?;
    let beside = dir.join(beside.as_str());
    // Left behind by a process that ended in the middle; its mode may be anything.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(PRIVATE).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    // The new name is on the disk once the directory is.
    File::open(dir)?.sync_all()
}
