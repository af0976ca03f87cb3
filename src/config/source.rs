//! The place in which a value was found, as messages name it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use std::path::PathBuf;

use super::settings::Setting;

/// Where a value was found, highest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    CommandLine,
    Environment,
    File { path: PathBuf, line: usize },
}

impl Source {
    /// Whether both have the same rank, so that neither hides the other.
    pub(super) fn is_as_high_as(&self, other: &Self) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }

    /// What goes before a message: the file and its line.
    pub(super) fn prefix(&self) -> String {
        match self {
            Self::CommandLine | Self::Environment => String::new(),
            Self::File { path, line } => format!("{}:{line}: ", path.display()),
        }
    }

    /// What the setting is called there.
    pub(super) fn name_of(&self, setting: &Setting) -> String {
        match self {
            Self::CommandLine => setting.option.to_owned(),
            Self::Environment => format!("environment variable {}", setting.key),
            Self::File { .. } => setting.key.to_owned(),
        }
    }
}
