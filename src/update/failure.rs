//! Why an update ended before anything was changed.

use alloc::string::String;
use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::SYSTEM_KEYS;
use super::refusal::{BadKeys, Refusal};
use super::services::MAX_SERVICES;
use super::source::beside;
use crate::memory::KIB;
use crate::state_dir::Cause;

/// Why an update ended before anything was changed. `Display` is `EVENT: CAUSE; HINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The file is not an update for this machine.
    Refused(Refusal),
    /// No key is known.
    NoKeys,
    /// The keys of this file, or of the build, cannot be used.
    Keys(Option<PathBuf>, BadKeys),
    /// A file cannot be read or written.
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: Cause,
    },
    /// The new program does not fit beside the old one.
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// Bytes that are free there.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The content cannot replace this: a folder, a device or a link.
    NotAFile(PathBuf),
    /// The program belongs to the Debian package.
    Package(PathBuf),
    /// The program is that of a container's image.
    Container,
    /// Another update runs.
    Busy,
    /// An update of this program was interrupted.
    Interrupted(PathBuf),
    /// The same, and the old program is gone.
    OldMissing(PathBuf),
    /// More services run the program than an update can look after.
    TooManyServices,
    /// The service manager has not answered for so many seconds.
    ManagerSilent(u64),
    /// The service manager does not say which services there are; what it says.
    ManagerFails(String),
    /// The new program does not run here.
    DoesNotRun(String),
    /// The new program is not what the file says; what that is.
    OtherProgram(String),
    /// The settings of this service cannot be read.
    SettingsUnknown(String),
    /// The new program refuses the settings of this service.
    Settings(String, String),
}

impl Failure {
    /// An error of the file system.
    pub(super) fn io(doing: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Io { doing, path: path.into(), cause: Cause::of(error) }
    }

    /// An update of the program at `bin` was interrupted.
    pub(super) fn interrupted(bin: &Path) -> Self {
        match beside(bin, ".old").try_exists() {
            Ok(false) => Self::OldMissing(bin.into()),
            Ok(true) | Err(_) => Self::Interrupted(bin.into()),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NoKeys => write!(
                f,
                "no key to verify updates with; put the publisher's into {SYSTEM_KEYS}, or name it by --key"
            ),
            Self::Keys(Some(path), error) => write!(f, "keys in {}: {error}", path.display()),
            Self::Keys(None, error) => write!(f, "keys of this build: {error}"),
            Self::Io { doing, path, cause } => {
                write!(f, "cannot {doing} {}: {cause}", path.display())?;
                match cause {
                    Cause::Full => f.write_str("; free some space"),
                    Cause::Denied => f.write_str("; run it as root"),
                    Cause::ReadOnly => f.write_str("; mount it writable"),
                    Cause::Missing
                    | Cause::NotADirectory
                    | Cause::Link
                    | Cause::NotAFile
                    | Cause::InUse
                    | Cause::Other(_) => Ok(()),
                }
            }
            Self::NoRoom { dir, free, needed } => {
                write!(
                    f,
                    "{} has {} KiB free, and {} KiB are needed; free some space: df -h shows what is full",
                    dir.display(),
                    free / KIB as u64,
                    needed.div_ceil(KIB as u64)
                )
            }
            Self::NotAFile(path) => {
                write!(f, "{} is not a regular file; name another path", path.display())
            }
            Self::Package(path) => write!(
                f,
                "{} belongs to the Debian package; `apt install ./pandaproxy_VERSION_ARCH.deb` updates it",
                path.display()
            ),
            Self::Container => f.write_str(
                "the program of a container is updated by its image; `docker compose pull`, then `up -d`",
            ),
            Self::Busy => f.write_str("another update is running; wait for its end"),
            Self::Interrupted(path) => write!(
                f,
                "an update was interrupted; `{}.old update --resume` returns to the old version first",
                path.display()
            ),
            Self::OldMissing(path) => write!(
                f,
                "an update was interrupted, and {0}.old is gone; remove {0}.updating to keep {0} as it is",
                path.display()
            ),
            Self::TooManyServices => write!(
                f,
                "more than {MAX_SERVICES} services run this program; stop the further ones until it is updated"
            ),
            Self::ManagerSilent(seconds) => write!(
                f,
                "systemctl has not answered in {seconds} s, so the service would not be looked after; try again, or restart the machine first"
            ),
            Self::ManagerFails(text) => write!(
                f,
                "systemctl does not say which services run: {text}; `systemctl list-units` has to work first"
            ),
            Self::DoesNotRun(why) => {
                write!(f, "new program does not run here: {why}; is it for this machine?")
            }
            Self::OtherProgram(expected) => {
                write!(f, "new program does not call itself `{expected}`; report that to its publisher")
            }
            Self::SettingsUnknown(service) => write!(
                f,
                "settings of the running service {service} cannot be read; run it as root"
            ),
            Self::Settings(service, text) => {
                write!(f, "settings of {service} refused by the new version: {text}")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<String> {
    use super::install;
    use alloc::string::ToString;
    let path = PathBuf::from("/usr/local/bin/pandaproxy.new");
    let failures = [
        Failure::NoKeys,
        Failure::Keys(Some(SYSTEM_KEYS.into()), BadKeys::Empty),
        Failure::Keys(None, BadKeys::Line(2)),
        Failure::Io { doing: "write", path: path.clone(), cause: Cause::Full },
        Failure::Io { doing: "read", path: path.clone(), cause: Cause::Missing },
        Failure::NoRoom {
            dir: "/usr/local/bin".into(),
            free: 1_000_000,
            needed: install::room_for(2_900_000),
        },
        Failure::NotAFile(path.clone()),
        Failure::Package(path.clone()),
        Failure::Container,
        Failure::Busy,
        Failure::Interrupted(path.clone()),
        Failure::OldMissing(path),
        Failure::TooManyServices,
        Failure::ManagerSilent(20),
        Failure::ManagerFails("Failed to connect to bus: Connection refused".into()),
        Failure::DoesNotRun("exit status 1".into()),
        Failure::OtherProgram("pandaproxy 0.2.0 (board rpi-zero)".into()),
        Failure::SettingsUnknown("pandaproxy@garage".into()),
        Failure::Settings("pandaproxy".into(), "pandaproxy: unknown option --x".into()),
    ];
    let own = failures.iter().map(ToString::to_string);
    own.chain(super::refusal::samples()).collect()
}
