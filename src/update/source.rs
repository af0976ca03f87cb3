//! An update file as it is read: header first, then the content, which is verified on its way to another file.

use alloc::format;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use super::failure::Failure;
use super::header::{Content, Header, MAX_HEADER};
use super::keys::Keys;
use super::refusal::Refusal;

/// Bytes that are read at a time.
const PIECE: usize = 16 * 1024;

/// Name of standard input.
const STDIN: &str = "-";

/// An update file whose header was verified.
pub(super) struct Source {
    pub(super) header: Header,
    path: PathBuf,
    file: Either,
    /// What was read behind the header.
    ahead: heapless::Vec<u8, MAX_HEADER>,
}

/// Where the file comes from.
enum Either {
    File(File),
    Stdin(io::Stdin),
}

impl Read for Either {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = |bytes: &mut [u8]| match self {
            Self::File(file) => file.read(bytes),
            Self::Stdin(stdin) => stdin.lock().read(bytes),
        };
        retried(read, bytes)
    }
}

/// Reads again where a signal has interrupted it.
fn retried(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    bytes: &mut [u8],
) -> io::Result<usize> {
    loop {
        match read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Source {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path, keys: &Keys) -> Result<Self, Failure> {
        let unreadable = |error: io::Error| Failure::io("read", path, &error);
        let mut file = if path.as_os_str() == STDIN {
            Either::Stdin(io::stdin())
        } else {
            Either::File(File::open(path).map_err(unreadable)?)
        };
        let mut bytes = [0; MAX_HEADER];
        let mut filled = 0;
        loop {
            let room = bytes.get_mut(filled..).unwrap_or_default();
            let read = file.read(room).map_err(unreadable)?;
            filled += read;
            let known = bytes.get(..filled).unwrap_or_default();
            match Header::parse(known, keys)? {
                Some((header, len)) => {
                    let ahead = known.get(len..).unwrap_or_default().iter().copied().collect();
                    return Ok(Self { header, path: path.into(), file, ahead });
                }
                None if read == 0 => return Err(Refusal::HeaderTruncated.into()),
                None => {}
            }
        }
    }

    /// Gives the content to `write` in pieces, and verifies it. Only after this has succeeded it is what was signed.
    pub(super) fn copy(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut content = Content::new(&self.header);
        content.take(&self.ahead)?;
        write(&self.ahead)?;
        let mut piece = [0; PIECE];
        loop {
            let read = self.file.read(&mut piece);
            let read = read.map_err(|error| Failure::io("read", &self.path, &error))?;
            if read == 0 {
                return Ok(content.finish()?);
            }
            let read = piece.get(..read).unwrap_or_default();
            content.take(read)?;
            write(read)?;
        }
    }
}

/// A verified file beside the place that it is for. Removed when dropped, unless it was renamed.
pub(super) struct New {
    pub(super) path: PathBuf,
    is_kept: bool,
}

impl New {
    /// Puts it in its place, for good once the directory is synced.
    pub(super) fn rename(mut self, to: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, to).map_err(|error| Failure::io("write", to, &error))?;
        self.is_kept = true;
        sync_dir(to).map_err(|error| Failure::io("write", to, &error))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may be gone already.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

/// Syncs the directory that a path is in.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// A path with this behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(suffix);
    name.into()
}

/// Writes the content to this path: verified and on the disk when this returns. A file that is there is replaced: it is that
/// of an update that was interrupted.
pub(super) fn write(source: &mut Source, path: PathBuf, mode: u32) -> Result<New, Failure> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::io("write", &path, &error));
        }
        Ok(()) | Err(_) => {}
    }
    let file = create(&path, mode).map_err(|error| Failure::io("write", &path, &error))?;
    fill(source, file, path, mode)
}

/// Names that are tried.
const MAX_NAMES: u32 = 100;

/// Writes the content to a file beside `out` that was not there before: verified and on the disk when this returns.
pub(super) fn write_beside(source: &mut Source, out: &Path, mode: u32) -> Result<New, Failure> {
    let mut number = 0;
    loop {
        let path = beside(out, &format!(".{}-{number}.new", process::id()));
        match create(&path, mode) {
            Ok(file) => return fill(source, file, path, mode),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MAX_NAMES => {
                number += 1;
            }
            Err(error) => return Err(Failure::io("write", &path, &error)),
        }
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

fn fill(source: &mut Source, mut file: File, path: PathBuf, mode: u32) -> Result<New, Failure> {
    let new = New { path, is_kept: false };
    let failed = |error: io::Error| Failure::io("write", &new.path, &error);
    source.copy(|piece| file.write_all(piece).map_err(failed))?;
    // Whatever the umask is: the service's user runs the program.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(new)
}
