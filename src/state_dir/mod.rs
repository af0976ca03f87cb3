//! The state directory: small files that survive a restart, readable by their owner only.
//!
//! The directory holds the [certificates](crate::tls::identity) with their keys, the [`pins`], and the [`chains`] of
//! relayed printers. A file is written under a temporary name in the same directory, synced, then renamed: after a crash
//! there is the old file or the new
//! one, never a part. A file larger than [`MAX_FILE`] was not written by this program and is not read.
//!
//! Commands that root runs beside a service of another user (`ca`, `health`) only read: they follow no
//! symbolic link, wait for no pipe, and change nothing.

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use zeroize::Zeroizing;

pub use pins::Pins;

pub mod chains;
pub mod instance;
pub(crate) mod pin;
pub mod pins;
#[cfg(test)]
pub(crate) mod scratch;
pub mod space;

/// Bytes of the largest file that is read. Keys and certificates have up to 2 KiB each.
pub const MAX_FILE: usize = 16 * 1024;
/// File mode: readable and writable by the owner alone.
const PRIVATE: u32 = 0o600;
/// Printers of one state directory at most.
pub const PRINTERS: usize = 16;
/// Timeout of the lock of a state directory, whose holder writes a small file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which a lock that another process holds is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Why a file or directory cannot be used, in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The user of this process may not use it.
    Denied,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The file system, or the user's part of it, is full.
    Full,
    /// The file does not exist.
    Missing,
    /// A part of the path is a file.
    NotADirectory,
    /// The file is a symbolic link, which is not followed here.
    Link,
    /// The file is a directory, a pipe or a device.
    NotAFile,
    /// Another process holds the lock.
    InUse,
    /// Another error.
    Other(ErrorKind),
}

impl Cause {
    /// The cause of an error of the file system.
    #[allow(clippy::wildcard_enum_match_arm, reason = "other errors are shown as they are")]
    pub fn of(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ELOOP) {
            return Self::Link;
        }
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::NotADirectory => Self::NotADirectory,
            ErrorKind::IsADirectory => Self::NotAFile,
            ErrorKind::WouldBlock => Self::InUse,
            kind => Self::Other(kind),
        }
    }

    /// What the user can do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Denied => {
                "give it to the user that runs pandaproxy, or choose another with --state-dir or --ca-dir"
            }
            Self::ReadOnly => "mount it writable, or choose another with --state-dir or --ca-dir",
            Self::Full => "free some space, or choose another with --state-dir or --ca-dir",
            Self::InUse => {
                "another pandaproxy uses it; end that one, or choose another with --state-dir or --ca-dir"
            }
            Self::Missing | Self::NotADirectory | Self::Link | Self::NotAFile | Self::Other(_) => {
                "choose another with --state-dir or --ca-dir"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied => "permission denied",
            Self::ReadOnly => "the file system is read-only",
            Self::Full => "no space is left",
            Self::Missing => "no such file or directory",
            Self::NotADirectory => "a part of the path is not a directory",
            Self::Link => "it is a symbolic link",
            Self::NotAFile => "it is not a regular file",
            Self::InUse => "it is in use",
            Self::Other(kind) => return kind.fmt(f),
        })
    }
}

/// The exclusive right to change a state directory, until dropped.
pub(crate) struct Lock {
    /// Locked (flock); the system unlocks it when it is closed, at the end of the process at the latest.
    _file: File,
}

impl Lock {
    /// Makes the directory if there is none, and locks it. Waits for `limit` while another process holds the lock.
    ///
    /// # Errors
    ///
    /// The file system's error; [`ErrorKind::WouldBlock`] after `limit`.
    pub(crate) fn take(dir: &Path, limit: Duration) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = open_own(&dir.join("lock"))?;
        let end = Instant::now() + limit;
        while !try_lock(&file, dir)? {
            if Instant::now() >= end {
                return Err(ErrorKind::WouldBlock.into());
            }
            thread::sleep(LOCK_INTERVAL);
        }
        Ok(Self { _file: file })
    }
}

/// Opens a lock file, and makes it if there is none.
fn open_own(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true).mode(PRIVATE).custom_flags(flags).open(path)
}

/// Locks a file if no other process has locked it.
fn try_lock(file: &File, dir: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        // A file system without locks: two processes at once are not kept apart.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
            log::debug!("cannot lock {}: {error}", dir.display());
            Ok(true)
        }
        Err(TryLockError::Error(error)) => Err(error),
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
    let Some(file) = open(&path, 0)? else { return Ok(None) };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        log::warn!("{} was readable by other users: made private", path.display());
        if let Err(error) = file.set_permissions(Permissions::from_mode(PRIVATE)) {
            log::warn!("cannot make {} private: {error}", path.display());
        }
    }
    content(file).map(Some)
}

/// Reads a file as [`read`] does, but changes nothing and follows no symbolic link.
///
/// # Errors
///
/// Errors of [`read`]; the file is a symbolic link.
pub(crate) fn look(dir: &Path, name: &str) -> io::Result<Option<Zeroizing<alloc::string::String>>> {
    open(&dir.join(name), libc::O_NOFOLLOW)?.map(content).transpose()
}

/// Opens a regular file to read it; `None` if it does not exist. Does not wait for the other end of a pipe.
fn open(path: &Path, flags: i32) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    match options.read(true).custom_flags(flags | libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(ErrorKind::IsADirectory.into()),
    }
}

/// The text of a file.
fn content(file: File) -> io::Result<Zeroizing<alloc::string::String>> {
    let mut text = Zeroizing::new(alloc::string::String::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// Replaces a file, or makes it. The caller holds the [`Lock`].
///
/// # Errors
///
/// The file system's error; the file is then unchanged.
pub(crate) fn write(_lock: &Lock, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut temporary = heapless::String::<64>::new();
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
