//! What `pandaproxy update` is to do: options of that command alone, of which none is a setting of the service.

use alloc::string::String;
use core::time::Duration;
use std::path::PathBuf;

use super::ConfigError;
use super::args::Args;

/// An update that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The update file, `-` for standard input. Empty where none is needed.
    pub file: PathBuf,
    /// What to do with it.
    pub action: Action,
    /// File of keys, if one was named.
    pub key: Option<PathBuf>,
    /// The board that the file has to be for, if it is not this program's.
    pub board: Option<String>,
    /// Whether an earlier version is installed.
    pub allows_downgrade: bool,
    /// Time in which the new version has to become ready.
    pub within: Duration,
}

/// What to do with an update file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Verify it, and say what it is.
    Verify,
    /// Verify it, and write its content to this file.
    Extract(PathBuf),
    /// Say what an installation would do.
    Check,
    /// Install it.
    Install,
    /// Return to the old version after an installation that was interrupted.
    Resume,
}

impl Update {
    /// Time in which the new version has to become ready, unless it is given.
    const WITHIN: Duration = Duration::from_secs(60);

    pub(super) fn meant(args: &Args) -> Result<Self, ConfigError> {
        const EXCLUSIVE: &str = "--verify, --extract, --check and --resume exclude each other";
        let path = |name| args.own(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let flags =
            [("verify", Action::Verify), ("check", Action::Check), ("resume", Action::Resume)];
        let flags = flags.into_iter().filter(|(name, _)| args.has_own(name));
        let mut asked = flags.map(|(_, action)| action).chain(path("extract").map(Action::Extract));
        let action = asked.next().unwrap_or(Action::Install);
        if asked.next().is_some() {
            return Err(ConfigError::new(EXCLUSIVE));
        }
        let file = path("file").unwrap_or_default();
        if file.as_os_str().is_empty() != (action == Action::Resume) {
            return Err(ConfigError::new(match action {
                Action::Resume => "update --resume takes no FILE",
                Action::Verify | Action::Extract(_) | Action::Check | Action::Install => {
                    "update needs FILE: an update file, or - for standard input"
                }
            }));
        }
        let within = match args.own("within").map(|value| value.to_str()) {
            None => Self::WITHIN,
            Some(value) => {
                let seconds = value.and_then(|value| value.parse().ok());
                let seconds = seconds.filter(|seconds| (1..=900).contains(seconds));
                let invalid =
                    || ConfigError::new("--within needs a number of seconds from 1 to 900");
                Duration::from_secs(seconds.ok_or_else(invalid)?)
            }
        };
        let board = args.own("board").and_then(|board| board.to_str()).map(String::from);
        let allows_downgrade = args.has_own("allow-downgrade");
        Ok(Self { file, action, key: path("keys"), board, allows_downgrade, within })
    }
}
