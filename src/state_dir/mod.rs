//! The state directory: small files that survive a restart, readable by their owner only.
//!
//! It holds the [certificates](crate::tls::identity) with their keys, and the [`pins`]. A file is written under a
//! temporary name in the same directory, synced, then renamed: after a crash there is the old file or the new
//! one, never a part. A file larger than `MAX_FILE` was not written by this program and is not read.

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

/// Bytes of the largest file that is read. Keys and certificates have up to 2 KiB each.
const MAX_FILE: usize = 16 * 1024;
/// File mode: readable and writable by the owner alone.
const PRIVATE: u32 = 0o600;

/// The exclusive right to change a state directory, until dropped.
pub(crate) struct Lock {
    /// Locked (flock); the system unlocks it when it is closed, at the end of the process at the latest.
    _file: File,
}

impl Lock {
    /// Makes the directory if there is none, and locks it. Blocks while another process holds the lock.
    ///
    /// # Errors
    ///
    /// The file system's error.
    pub(crate) fn take(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join("lock");
        let file = OpenOptions::new().create(true).append(true).mode(PRIVATE).open(path)?;
        match file.lock() {
            // A file system without locks: two processes at once are not kept apart.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                log::debug!("cannot lock {}: {error}", dir.display());
            }
            locked => locked?,
        }
        Ok(Self { _file: file })
    }
}

/// Reads a file; `None` if it does not exist. A file that others can read is made private, and that is logged.
///
/// # Errors
///
/// The file system's error; [`ErrorKind::FileTooLarge`] above [`MAX_FILE`] bytes; [`ErrorKind::InvalidData`] if the
/// content is not UTF-8.
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Option<Zeroizing<alloc::string::String>>> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        log::warn!("{} was readable by other users: made private", path.display());
        if let Err(error) = fs::set_permissions(&path, Permissions::from_mode(PRIVATE)) {
            log::warn!("cannot make {} private: {error}", path.display());
        }
    }
    let mut text = Zeroizing::new(alloc::string::String::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(Some(text)) }
}

/// Replaces a file, or makes it. The caller holds the [`Lock`].
///
/// # Errors
///
/// The file system's error; the file is then unchanged.
pub(crate) fn write(_lock: &Lock, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut temporary = heapless::String::<32>::new();
    write!(temporary, ".{name}.new").map_err(|_| io::Error::from(ErrorKind::InvalidFilename))?;
    let temporary = dir.join(temporary.as_str());
    // A temporary file of an interrupted write may exist, with any mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(PRIVATE).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    // The rename is on the disk once the directory is synced.
    File::open(dir)?.sync_all()
}
