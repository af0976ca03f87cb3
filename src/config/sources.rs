//! Where a value comes from: the command line, the environment, or a file of `KEY=VALUE` lines or of one
//! [JSON object](super::json).
//!
//! The same file serves `--config`, systemd's `EnvironmentFile=`, compose's `env_file:` and a memory card that was
//! edited on a PC, so a byte order mark, CRLF and quotes are accepted. An unknown key is an error: a mistyped setting
//! would otherwise be ignored without notice.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a file | [`MAX_FILE`] bytes | the program ends with that message |
//! | its lines | [`MAX_LINES`] | the same |

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ConfigError;
use super::args::{Args, nearest};
use super::json::{self, Object};
use super::settings::Setting;
use super::source::Source;

/// Bytes of a file: ten times a commented example of every setting.
pub(super) const MAX_FILE: usize = 64 * 1024;

/// Lines of a file of settings.
pub(super) const MAX_LINES: usize = 128;

/// A value that was given.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) source: Source,
    value: OsString,
}

impl Given {
    /// Reads the value. The error repeats the value.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        self.value.to_str().and_then(read).ok_or_else(|| self.invalid())
    }

    /// Reads the value. The error does not repeat the value.
    pub(super) fn parse_secret<T>(
        &self,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, ConfigError> {
        read(self.value.as_encoded_bytes())
            .ok_or_else(|| ConfigError::invalid(self.setting, &self.source, None))
    }

    fn invalid(&self) -> ConfigError {
        self.invalid_as(self.setting.expected)
    }

    /// An error that repeats the value, with another expectation than the table's.
    pub(super) fn invalid_as(&self, expected: &str) -> ConfigError {
        let got = self.value.to_string_lossy();
        ConfigError::invalid_as(self.setting, &self.source, Some(&got), expected)
    }

    /// The value as a path, which may not be empty.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        if self.value.is_empty() { Err(self.invalid()) } else { Ok(PathBuf::from(&self.value)) }
    }

    /// The first line of the file that the value names, without surrounding white space. No error repeats the file's name,
    /// which may be the access code itself in the wrong place.
    pub(super) fn first_line(&self) -> Result<Zeroizing<String>, ConfigError> {
        let text = read(Path::new(&self.value)).map_err(|error| {
            let (place, name) = (self.source.prefix(), self.source.name_of(self.setting));
            ConfigError::new(format!("{place}cannot read the file of {name}: {error}"))
        })?;
        Ok(Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned()))
    }
}

/// The command line, the environment and the file of settings.
pub(super) struct Sources<'a> {
    args: Args,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    path: PathBuf,
    lines: Vec<Line>,
}

struct Line {
    number: usize,
    setting: &'static Setting,
    value: Zeroizing<String>,
}

impl<'a> Sources<'a> {
    /// Reads the file that is named on the command line or in the environment, else the file `system`.
    pub(super) fn open(
        args: Args,
        environment: &'a dyn Fn(&str) -> Option<OsString>,
        system: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut sources = Self { args, environment, path: PathBuf::new(), lines: Vec::new() };
        let path = match sources.find(&Setting::CONFIG) {
            Some(given) => given.path()?,
            None => match system {
                Some(path) => path.to_owned(),
                None => return Ok(sources),
            },
        };
        let text = read(&path).map_err(|error| {
            let (path, hint) = (path.display(), error.hint());
            ConfigError::new(format!("cannot read the settings in {path}: {error}; {hint}"))
        })?;
        sources.lines = parse(&path, &text)?;
        sources.path = path;
        Ok(sources)
    }

    /// The command line.
    pub(super) const fn args(&self) -> &Args {
        &self.args
    }

    /// The value that counts. An empty one in the environment or in the file is none: compose passes on variables
    /// that were never set.
    pub(super) fn find(&self, setting: &'static Setting) -> Option<Given> {
        if let Some(value) = self.args.value(setting) {
            return Some(Given { setting, source: Source::CommandLine, value });
        }
        if let Some(value) = self.environment(setting.key) {
            return Some(Given { setting, source: Source::Environment, value });
        }
        let line = self.lines.iter().find(|line| line.setting == setting)?;
        let source = Source::File { path: self.path.clone(), line: line.number };
        Some(Given { setting, source, value: OsString::from(line.value.as_str()) })
    }

    /// The value of `record --out`, which stands for `--record`.
    pub(super) fn out(&self) -> Option<Given> {
        let value = self.args.out()?.to_owned();
        Some(Given { setting: &Setting::RECORD, source: Source::CommandLine, value })
    }

    /// A setting without which the program cannot start.
    pub(super) fn required(&self, setting: &'static Setting) -> Result<Given, ConfigError> {
        self.find(setting).ok_or_else(|| self.missing(&[setting]))
    }

    /// Whether all required settings are there; the error names every one that is not.
    pub(super) fn check_required(&self) -> Result<(), ConfigError> {
        let has = |setting: &'static Setting| {
            let file = *setting == Setting::ACCESS_CODE;
            self.find(setting).is_some() || file && self.find(&Setting::ACCESS_CODE_FILE).is_some()
        };
        let missing: Vec<&Setting> =
            Setting::ALL.into_iter().filter(|it| it.required && !has(it)).collect();
        if missing.is_empty() { Ok(()) } else { Err(self.missing(&missing)) }
    }

    /// The error for required settings that were not given.
    pub(super) fn missing(&self, settings: &[&Setting]) -> ConfigError {
        let place = if self.path.as_os_str().is_empty() {
            "see pandaproxy --help".to_owned()
        } else {
            format!("give them as options, or as keys in {}", self.path.display())
        };
        match settings {
            [one] => ConfigError::new(format!(
                "{} (or {}) is required: {}; {place}",
                one.option, one.key, one.expected
            )),
            several => {
                let names: Vec<String> =
                    several.iter().map(|it| format!("{} (or {})", it.option, it.key)).collect();
                ConfigError::new(format!("missing settings: {}; {place}", names.join(", ")))
            }
        }
    }

    /// The value of an environment variable that is no setting.
    pub(super) fn environment(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }
}

/// Reads `KEY=VALUE` lines, or one JSON object. Settings without a value are left out.
fn parse(path: &Path, text: &str) -> Result<Vec<Line>, ConfigError> {
    let mut lines = Lines { path, lines: Vec::new() };
    match Object::begun(text) {
        Some(object) => lines.read_object(object)?,
        None => lines.read_lines(text)?,
    }
    Ok(lines.lines)
}

/// The settings of a file, as they are read.
struct Lines<'a> {
    path: &'a Path,
    lines: Vec<Line>,
}

impl Lines<'_> {
    fn error(&self, number: usize, what: &str) -> ConfigError {
        ConfigError::new(format!("{}:{number}: {what}", self.path.display()))
    }

    /// Reads `KEY=VALUE` lines, blank lines and `#` comments.
    fn read_lines(&mut self, text: &str) -> Result<(), ConfigError> {
        for (number, line) in (1..).zip(text.lines()) {
            if number > MAX_LINES {
                return Err(self.error(number, &format!("more than {MAX_LINES} lines")));
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(self.error(number, "expected KEY=VALUE or a # comment"));
            };
            let key = key.trim();
            if key.starts_with("export ") {
                let what = "remove \"export\": this file is no shell script";
                return Err(self.error(number, what));
            }
            let setting = self.setting(number, key, |known| known == key)?;
            let value = value.trim();
            let plain = unquoted(value);
            if plain.len() == value.len() && (value.contains(" #") || value.contains("\t#")) {
                let hint = "comments need a line of their own, values with # quotes";
                let what = format!("{key} has a comment behind its value; {hint}");
                return Err(self.error(number, &what));
            }
            self.add(number, setting, Zeroizing::new(plain.to_owned()));
        }
        Ok(())
    }

    /// Reads an object; each setting may be in it once, so their number is limited.
    fn read_object(&mut self, object: Object<'_>) -> Result<(), ConfigError> {
        for member in object {
            let json::Member { line, key, value } = member.map_err(|fault| self.fault(&fault))?;
            let setting = self.setting(line, &key, |known| known.eq_ignore_ascii_case(&key))?;
            self.add(line, setting, value);
        }
        Ok(())
    }

    /// What is wrong in an object. The value is not shown: its key may be mistyped, and the value a secret.
    fn fault(&self, fault: &json::Fault) -> ConfigError {
        let what = match &fault.key {
            Some(key) => format!("invalid value for{}: {}", quoted_name(key), json::EXPECTED_VALUE),
            None => json::EXPECTED.to_owned(),
        };
        self.error(fault.line, &what)
    }

    /// The setting that a key means, which no line before has.
    fn setting(
        &self,
        number: usize,
        key: &str,
        is_key: impl Fn(&str) -> bool,
    ) -> Result<&'static Setting, ConfigError> {
        let known = Setting::ALL.into_iter().filter(|setting| setting.is_in_file());
        let Some(setting) = known.clone().find(|setting| is_key(setting.key)) else {
            let hint = match nearest(&key.to_ascii_uppercase(), known.map(|setting| setting.key)) {
                Some(hint) => format!("did you mean {hint}?"),
                None => "see pandaproxy --help".to_owned(),
            };
            let what = format!("unknown setting{}; {hint}", quoted_name(key));
            return Err(self.error(number, &what));
        };
        match self.lines.iter().find(|line| line.setting == setting) {
            None => Ok(setting),
            Some(before) => {
                let what = format!("{key} is set twice, first in line {}", before.number);
                Err(self.error(number, &what))
            }
        }
    }

    fn add(&mut self, number: usize, setting: &'static Setting, value: Zeroizing<String>) {
        if !value.is_empty() {
            self.lines.push(Line { number, setting, value });
        }
    }
}

/// A key for a message, behind a space. Nothing if it cannot be a key: it may then be anything, even the access code.
fn quoted_name(key: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
    if key.chars().all(is_name) && (1..=32).contains(&key.len()) {
        format!(" {key}")
    } else {
        " (not shown)".to_owned()
    }
}

fn unquoted(value: &str) -> &str {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).unwrap_or(value)
}

/// Reads a text file of at most [`MAX_FILE`] bytes, without its byte order mark.
fn read(path: &Path) -> Result<Zeroizing<String>, Unreadable> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    let file = File::open(path).map_err(|error| Unreadable::Os(error.kind()))?;
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Unreadable::Os(error.kind()))?;
    if bytes.len() > MAX_FILE {
        return Err(Unreadable::TooLarge);
    }
    let text = core::str::from_utf8(&bytes).map_err(|_| Unreadable::NotText)?;
    Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
}

/// Why a file cannot be read.
#[derive(Clone, Copy)]
enum Unreadable {
    Os(io::ErrorKind),
    TooLarge,
    NotText,
}

impl Unreadable {
    /// What to do about a file of settings.
    const fn hint(self) -> &'static str {
        match self {
            Self::Os(io::ErrorKind::PermissionDenied) => "run it as root (sudo)",
            Self::Os(_) | Self::TooLarge | Self::NotText => "name a file of settings with --config",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(io::ErrorKind::NotFound) => f.write_str("no such file"),
            Self::Os(kind) => write!(f, "{kind}"),
            Self::TooLarge => f.write_str("more than 64 KiB"),
            Self::NotText => f.write_str("not UTF-8 text"),
        }
    }
}
