//! The disk, as a check looks at it: whether the state directory can be written, and what is left there and beside the
//! program, where an update goes.

use alloc::format;
use alloc::string::String;
use core::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cause::Cause;
use crate::check::Finding;
use crate::memory::KIB;
use crate::state_dir::space::Space;
use crate::state_dir::{self, MAX_FILE, PRINTERS};
use crate::update::install::{is_container, room_for};

/// Files of a state directory at most: a chain of each printer, the pins, six certificates and keys, a lock; and one that
/// takes another one's place.
const STATE_FILES: usize = PRINTERS + 16;

/// Bytes of them.
const STATE_BYTES: u64 = (STATE_FILES * MAX_FILE) as u64;

/// What is wrong with the state directory, if anything, and how it is in words. Where `may_write`, a block is written there
/// to a file without a name.
pub(super) fn state_dir(dir: &Path, may_write: bool) -> (Option<Finding>, String) {
    let shown = dir.display();
    let cannot = |why: state_dir::Cause| {
        Finding::failed(&Cause::STATE_DIR.with(&shown)).behind(format_args!("{why}: "))
    };
    let space = Space::at(dir).ok();
    let refused = if may_write && dir.is_dir() { write_unnamed(dir) } else { None };
    // Writing may have said nothing: not every file system has files without a name.
    let is_read_only = space.is_some_and(|space| space.is_read_only);
    let refused = refused.or(is_read_only.then_some(state_dir::Cause::ReadOnly));
    if let Some(why) = refused {
        return (Some(cannot(why)), String::new());
    }
    let Some(space) = space else { return (None, String::new()) };
    let found = format!("{shown} with {} free", Bytes(space.bytes));
    (lacking(&shown, space, STATE_BYTES, STATE_FILES as u64), found)
}

/// What is wrong with the program's directory, if anything: an update has to fit beside the program.
pub(super) fn program_dir() -> Option<Finding> {
    let program = std::env::current_exe().ok()?;
    let dir = program.parent()?;
    let space = Space::at(dir).ok()?;
    // A program that cannot be replaced is updated with what it is in: an image.
    if is_container(&program) || space.is_read_only {
        return None;
    }
    let needed = room_for(fs::metadata(&program).ok()?.len());
    // What is left is shown rounded down.
    let shown = Bytes(needed.next_multiple_of(MIB));
    let before = format!("an update needs {shown} in {}", dir.display());
    lacking(&before, space, needed, 0)
}

/// Whether less than that is left, of which `dir` is said.
fn lacking(dir: &dyn fmt::Display, space: Space, bytes: u64, files: u64) -> Option<Finding> {
    let cause = if space.bytes < bytes {
        Finding::warning(&Cause::DISK_SPACE.with(Bytes(space.bytes)))
    } else {
        let left = space.files.filter(|left| *left < files)?;
        Finding::warning(&Cause::DISK_FILES.with(left))
    };
    Some(cause.behind(format_args!("{dir}: ")))
}

/// Writes a block to a file without a name in `dir`, of which nothing is left. Why that fails, if it does; a file
/// system without such files counts as writable.
fn write_unnamed(dir: &Path) -> Option<state_dir::Cause> {
    let flags = libc::O_TMPFILE | libc::O_CLOEXEC;
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(dir);
    let written = opened.and_then(|mut file| file.write_all(&[0; 4096]));
    match written {
        Ok(()) => None,
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => None,
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        Err(error) => Some(state_dir::Cause::of(&error)),
    }
}

/// Bytes of a MiB.
const MIB: u64 = (KIB * KIB) as u64;

/// Bytes in KiB, or in MiB from ten on, rounded down.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / MIB {
            0..10 => write!(f, "{} KiB", self.0 / KIB as u64),
            mib => write!(f, "{mib} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_left_is_compared_with_what_is_written() {
        let space = |bytes, files| Space { bytes, files, is_read_only: false };
        let lacking = |space| {
            let found = lacking(&"/var/lib/pandaproxy", space, STATE_BYTES, STATE_FILES as u64);
            found.map(|found| (found.anchor.unwrap(), found.text))
        };
        assert_eq!(lacking(space(STATE_BYTES, Some(STATE_FILES as u64))), None);
        assert_eq!(lacking(space(STATE_BYTES, None)), None);
        assert_eq!(
            lacking(space(STATE_BYTES - 1, None)),
            Some(("disk-space", "/var/lib/pandaproxy: the disk has only 511 KiB left".into()))
        );
        assert_eq!(
            lacking(space(STATE_BYTES, Some(3))),
            Some(("disk-files", "/var/lib/pandaproxy: the disk takes only 3 more files".into()))
        );
    }

    #[test]
    fn bytes_are_shown_in_a_unit_that_fits() {
        for (bytes, shown) in
            [(0, "0 KiB"), (1023, "0 KiB"), (10_485_759, "10239 KiB"), (10_485_760, "10 MiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
    }
}
