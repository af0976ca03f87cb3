//! What `pandaproxy update` is to do: options of that command alone, of which none is a setting of the service.

use alloc::string::String;
use std::path::PathBuf;

use super::ConfigError;
use super::args::Args;

/// An update that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The update file, `-` for standard input.
    pub file: PathBuf,
    /// What to do with it.
    pub action: Action,
    /// File of keys, if one was named.
    pub key: Option<PathBuf>,
    /// The board that the file has to be for, if it is not this program's.
    pub board: Option<String>,
}

/// What to do with an update file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Verify it, and say what it is.
    Verify,
    /// Verify it, and write its content to this file.
    Extract(PathBuf),
}

impl Update {
    pub(super) fn meant(args: &Args) -> Result<Self, ConfigError> {
        let path = |name| args.own(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let action = match (path("extract"), args.has_own("verify")) {
            (Some(out), false) => Action::Extract(out),
            (None, true) => Action::Verify,
            (_, _) => {
                return Err(ConfigError::new("update needs either --verify or --extract OUT"));
            }
        };
        let file = path("file").ok_or_else(|| {
            ConfigError::new("update needs FILE: an update file, or - for standard input")
        })?;
        let board = args.own("board").and_then(|board| board.to_str()).map(String::from);
        Ok(Self { file, action, key: path("keys"), board })
    }
}
