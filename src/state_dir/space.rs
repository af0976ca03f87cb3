//! What a file system has left: bytes, files, and whether it can be written at all.

use std::io;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

/// What the file system of a directory has left for a user who is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Further files; `None` where the file system has no limit of its own for them.
    pub files: Option<u64>,
    /// Whether it is mounted read-only.
    pub is_read_only: bool,
}

impl Space {
    /// That of the directory, or of the nearest one above it that exists: it will be made there.
    ///
    /// # Errors
    ///
    /// The file system's error.
    pub fn at(dir: &Path) -> io::Result<Self> {
        let exists = |dir: &&Path| dir.exists();
        let dir = dir.ancestors().find(exists).unwrap_or(Path::new("."));
        let found = statvfs(dir)?;
        Ok(Self {
            bytes: found.f_bavail.saturating_mul(found.f_frsize),
            files: (found.f_files > 0).then_some(found.f_favail),
            is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::scratch::Scratch;

    #[test]
    fn a_directory_that_does_not_exist_has_its_parents_space() {
        let dir = Scratch::new("space");
        let here = Space::at(&dir).unwrap();
        assert!(here.bytes > 0 && !here.is_read_only);
        let file_system = |space: Space| space.files.is_some();
        let missing = Space::at(&dir.join("no/such")).unwrap();
        assert_eq!(file_system(missing), file_system(here));
        assert!(Space::at(Path::new("no-such-directory")).is_ok(), "a relative path");
    }

    #[test]
    fn a_file_system_without_blocks_has_no_space() {
        let proc = Space::at(Path::new("/proc/self")).unwrap();
        assert_eq!((proc.bytes, proc.files), (0, None));
    }
}
