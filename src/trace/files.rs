//! The recording's files: at most `FILES` in one directory; when the newest is full, the oldest is removed.
//!
//! Numbers continue from those of existing files, so that names sort by age and a restart does not exceed the size.

use alloc::format;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files kept at once.
pub(super) const FILES: u32 = 8;

/// Bytes of the write buffer: one system call writes as much.
pub(super) const BUFFER: usize = 32 * 1024;

const BEFORE: &str = "pandaproxy-";
const BEHIND: &str = ".pcapng";

/// The directory, and the file that is being written.
pub(super) struct Files {
    dir: PathBuf,
    size: u64,
    file: BufWriter<File>,
    number: u32,
    /// Bytes of the file up to the end of the last complete block.
    whole: u64,
    written: u64,
}

impl Files {
    /// Begins a file in `dir`, which is made if missing. Each file will have about `size` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be written there.
    pub(super) fn begin(dir: &Path, size: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let number = numbers(dir)?.max().unwrap_or_default().saturating_add(1);
        let file = open(dir, number)?;
        let files = Self { dir: dir.to_path_buf(), size, file, number, whole: 0, written: 0 };
        files.make_room()?;
        Ok(files)
    }

    /// Whether the file has its size.
    pub(super) const fn is_full(&self) -> bool {
        self.written >= self.size
    }

    /// Begins the next file.
    ///
    /// # Errors
    ///
    /// It cannot be written there.
    pub(super) fn next(&mut self) -> io::Result<()> {
        self.complete()?;
        self.number += 1;
        self.make_room()?;
        self.file = open(&self.dir, self.number)?;
        (self.whole, self.written) = (0, 0);
        Ok(())
    }

    /// Writes the buffer to the file. The caller has written complete blocks.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.whole = self.written;
        Ok(())
    }

    /// Truncates the file to its last complete block, after writing has failed.
    pub(super) fn cut(&mut self) {
        let file = self.file.get_mut();
        // If this fails too, the file ends with a truncated block.
        let _left = file.set_len(self.whole).and_then(|()| file.rewind());
    }

    /// Removes all but the newest [`FILES`] files.
    fn make_room(&self) -> io::Result<()> {
        for number in numbers(&self.dir)? {
            if number.saturating_add(FILES) <= self.number {
                fs::remove_file(path(&self.dir, number))?;
            }
        }
        Ok(())
    }
}

impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The numbers of the existing files.
fn numbers(dir: &Path) -> io::Result<impl Iterator<Item = u32>> {
    let number = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix(BEFORE)?.strip_suffix(BEHIND)?.parse().ok()
    };
    Ok(fs::read_dir(dir)?.filter_map(number))
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{BEFORE}{number:06}{BEHIND}"))
}

fn open(dir: &Path, number: u32) -> io::Result<BufWriter<File>> {
    // Readable by the owner alone: not everything private is redacted.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(dir, number))?;
    Ok(BufWriter::with_capacity(BUFFER, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_number_of_files_is_bounded_across_restarts() {
        let dir = std::env::temp_dir().join(format!("pandaproxy-trace-{}", std::process::id()));
        for begun in 0..3 {
            let mut files = Files::begin(&dir, 10).unwrap();
            for _ in 0..5 {
                assert!(!files.is_full());
                files.write_all(&[7; 10]).unwrap();
                assert!(files.is_full());
                files.next().unwrap();
                assert!(names(&dir).len() <= FILES as usize + usize::from(begun > 0));
            }
            fs::write(dir.join("not-ours.pcapng"), b"stays").unwrap();
            assert!(begun < 1 || names(&dir).len() == FILES as usize + 1);
        }
        let names = names(&dir);
        assert_eq!(names.first().map(String::as_str), Some("not-ours.pcapng"));
        assert_eq!(names.last().map(String::as_str), Some("pandaproxy-000018.pcapng"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_incomplete_block_is_cut_off() {
        let dir = std::env::temp_dir().join(format!("pandaproxy-cut-{}", std::process::id()));
        let mut files = Files::begin(&dir, 100).unwrap();
        files.write_all(b"whole").unwrap();
        files.complete().unwrap();
        files.write_all(b"half").unwrap();
        files.flush().unwrap();
        files.cut();
        assert_eq!(fs::read(path(&dir, 1)).unwrap(), b"whole");
        fs::remove_dir_all(dir).unwrap();
    }
}
