//! `pandaproxy update`: a signed file takes the place of the program, or is unpacked for another installer.
//!
//! The file has a [header] with board, version, size and hash of its content, signed with one of the publisher's [keys].
//! Nothing is written at its final place before signature, size and hash were verified. A file comes from a path
//! or from standard input: this program downloads nothing, and the signature decides, not the transport.
//!
//! This is a command of its own process: it blocks, and nothing of it runs in the service.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | memory for a file | one buffer of `PIECE` bytes | files are read in pieces |
//! | a file of keys | `MAX_KEY_FILE` bytes | it is refused |

pub mod failure;
pub mod header;
pub mod install;
pub mod keys;
pub mod refusal;
mod services;
mod source;
#[cfg(test)]
mod tests;
pub mod version;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use self::failure::Failure;
use self::header::Header;
use self::install::{Ended, Progress};
use self::keys::Keys;
use self::source::{Source, write_beside};
use crate::board::BOARD;
use crate::config::Update;

/// Bytes of a file of keys.
const MAX_KEY_FILE: usize = 16 * 1024;

/// The file of keys unless one is named.
pub const SYSTEM_KEYS: &str = "/etc/pandaproxy/update.pem";

/// The file of keys that this build has, from `boards/update.pem`; empty if that was absent.
const BUILT_IN_KEYS: &str = include_str!(concat!(env!("OUT_DIR"), "/update.pem"));

/// Verifies a file, and writes nothing.
///
/// # Errors
///
/// [`Failure`].
pub fn verify(update: &Update) -> Result<Header, Failure> {
    let mut source = open(update)?;
    source.copy(|_| Ok(()))?;
    Ok(source.header)
}

/// Verifies a file, and puts its content at `out`, which is replaced whole or not at all.
///
/// # Errors
///
/// [`Failure`]; `out` is unchanged.
pub fn extract(update: &Update, out: &Path) -> Result<Header, Failure> {
    const MODE: u32 = 0o644;
    // A device would be replaced by a file.
    let is_other = out.symlink_metadata().is_ok_and(|found| !found.is_file());
    if is_other {
        return Err(Failure::NotAFile(out.into()));
    }
    let mut source = open(update)?;
    let new = write_beside(&mut source, out, MODE)?;
    new.rename(out)?;
    Ok(source.header)
}

/// Installs a file, or says what that would do.
///
/// # Errors
///
/// [`Ended`].
pub fn install(update: &Update, is_dry: bool, progress: &mut dyn Progress) -> Result<(), Ended> {
    let source = open(update)?;
    install::install(update, source, env!("PANDAPROXY_VERSION"), is_dry, progress)
}

/// Puts the old program back where an update was interrupted. Returns what was done.
///
/// # Errors
///
/// [`Failure`].
pub fn resume() -> Result<&'static str, Failure> {
    install::resume()
}

/// Opens the update file and reads its header, which has to be signed and for the expected board.
fn open(update: &Update) -> Result<Source, Failure> {
    let keys = read_keys(update.key.as_deref(), Path::new(SYSTEM_KEYS), BUILT_IN_KEYS)?;
    let source = Source::open(&update.file, &keys)?;
    source.header.check_board(update.board.as_deref().unwrap_or(BOARD.name))?;
    Ok(source)
}

/// The keys of the file that was named, else of the system, else of this build. What this build revokes is revoked in each.
fn read_keys(named: Option<&Path>, system: &Path, built_in: &str) -> Result<Keys, Failure> {
    let of_build = match built_in {
        "" => None,
        text => Some(Keys::parse(text).map_err(|error| Failure::Keys(None, error))?),
    };
    let path = match named {
        Some(path) => path,
        // One that cannot be looked for may revoke a key: opening it says why.
        None if !matches!(system.try_exists(), Ok(false)) => system,
        None => return of_build.ok_or(Failure::NoKeys),
    };
    let unreadable = |error| Failure::io("read", path, &error);
    let mut text = alloc::string::String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_KEY_FILE as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > MAX_KEY_FILE {
        return Err(Failure::io("read", path, &std::io::ErrorKind::FileTooLarge.into()));
    }
    let keys = Keys::parse(&text).map_err(|error| Failure::Keys(Some(path.into()), error))?;
    Ok(match &of_build {
        Some(of_build) => keys.without_revoked_of(of_build),
        None => keys,
    })
}
