//! Where a value comes from: the command line, the environment, a file of `KEY=VALUE` lines.
//!
//! The same file serves `--config`, systemd's `EnvironmentFile=`, compose's `env_file:` and the
//! memory card somebody edited on a PC, so a byte order mark, CRLF and quotes are tolerated. A name
//! it should not have is an error: a mistyped one would otherwise be a setting silently lost.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | a file | [`FILE_MAX`] bytes | the start ends with that message |
//! | its lines | [`LINES_MAX`] | the same |

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{ConfigError, quoted};

/// Bytes read of any file: ten times a commented example of every setting.
pub(super) const FILE_MAX: usize = 64 * 1024;

/// Lines read of a file of settings.
pub(super) const LINES_MAX: usize = 128;

/// Something that can be said on the command line, in the environment and in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// What it is called on the command line.
    pub(super) option: &'static str,
    /// What it is called in the environment and in the file.
    pub(super) env: &'static str,
    /// What it takes, as a message ends.
    pub(super) takes: &'static str,
}

const BOOL: &str = "true or false";

impl Setting {
    pub(super) const PRINTER_IP: Self =
        Self::new("--printer-ip", "PRINTER_IP", "an IP address or a host name");
    pub(super) const ACCESS_CODE: Self = Self::new(
        "--access-code",
        "ACCESS_CODE",
        "1 to 32 visible ASCII characters, as the printer shows them",
    );
    pub(super) const ACCESS_CODE_FILE: Self = Self::new(
        "--access-code-file",
        "ACCESS_CODE_FILE",
        "a file whose first line is the access code",
    );
    pub(super) const SERIAL_NUMBER: Self =
        Self::new("--serial-number", "SERIAL_NUMBER", "1 to 32 letters and digits");
    pub(super) const BIND: Self =
        Self::new("--bind", "BIND_ADDRESS", "an IP address of this machine, 0.0.0.0 for all");
    pub(super) const SERVICES: Self =
        Self::new("--services", "SERVICES", "a comma list of camera, mqtt, ftp");
    pub(super) const ENABLE_ALL: Self = Self::new("--enable-all", "ENABLE_ALL", BOOL);
    pub(super) const ADVERTISE_IP: Self =
        Self::new("--advertise-ip", "ADVERTISE_IP", "an IPv4 address that clients can reach");
    pub(super) const PORTS: Self = Self::new(
        "--port",
        "PORTS",
        "SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 0 (any) to 65535",
    );
    pub(super) const PRINTER_PORTS: Self = Self::new(
        "--printer-port",
        "PRINTER_PORTS",
        "SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 1 to 65535",
    );
    pub(super) const FTP_MODE: Self = Self::new("--ftp-mode", "FTP_MODE", "auto, proxy or relay");
    pub(super) const FTP_DATA_PORTS: Self = Self::new(
        "--ftp-data-ports",
        "FTP_DATA_PORTS",
        "FROM-TO, ports of 1 to 65535, or 0 for any",
    );
    pub(super) const PRINTER_CA: Self = Self::new("--printer-ca", "PRINTER_CA", "a PEM file");
    pub(super) const INSECURE_PRINTER: Self =
        Self::new("--insecure-printer", "INSECURE_PRINTER", BOOL);
    pub(super) const KEEP_PRINTER_ADDRESS: Self =
        Self::new("--keep-printer-address", "KEEP_PRINTER_ADDRESS", BOOL);
    pub(super) const RECORD: Self = Self::new("--record", "RECORD", "a directory");
    pub(super) const RECORD_MIB: Self =
        Self::new("--record-mib", "RECORD_MIB", "8 to 65536, in MiB");
    pub(super) const STATE_DIR: Self =
        Self::new("--state-dir", "PANDAPROXY_STATE_DIR", "a directory");
    pub(super) const VERBOSE: Self = Self::new("--verbose", "DEBUG", BOOL);
    pub(super) const CONFIG: Self =
        Self::new("--config", "PANDAPROXY_CONFIG", "a file of KEY=VALUE lines");

    /// Every setting. All but the last may stand in the file, which cannot name another.
    pub(super) const ALL: [&Self; 20] = [
        &Self::PRINTER_IP,
        &Self::ACCESS_CODE,
        &Self::ACCESS_CODE_FILE,
        &Self::SERIAL_NUMBER,
        &Self::BIND,
        &Self::SERVICES,
        &Self::ENABLE_ALL,
        &Self::ADVERTISE_IP,
        &Self::PORTS,
        &Self::PRINTER_PORTS,
        &Self::FTP_MODE,
        &Self::FTP_DATA_PORTS,
        &Self::PRINTER_CA,
        &Self::INSECURE_PRINTER,
        &Self::KEEP_PRINTER_ADDRESS,
        &Self::RECORD,
        &Self::RECORD_MIB,
        &Self::STATE_DIR,
        &Self::VERBOSE,
        &Self::CONFIG,
    ];

    const fn new(option: &'static str, env: &'static str, takes: &'static str) -> Self {
        Self { option, env, takes }
    }
}

/// Where a value was found, highest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    CommandLine,
    Environment(&'static str),
    File { path: PathBuf, line: usize },
}

impl Source {
    /// Whether a value from one hides a value from the other.
    pub(super) fn is_as_high_as(&self, other: &Self) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// A value that somebody gave.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) source: Source,
    value: OsString,
}

impl Given {
    /// What `read` makes of it; an error that repeats it where it makes nothing.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        self.value.to_str().and_then(read).ok_or_else(|| self.refused())
    }

    /// What `read` makes of it; an error that does not repeat it where it makes nothing.
    pub(super) fn parse_secret<T>(
        &self,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, ConfigError> {
        read(self.value.as_encoded_bytes())
            .ok_or_else(|| ConfigError::refused(self.setting, &self.source, None))
    }

    pub(super) fn refused(&self) -> ConfigError {
        let got = self.value.to_string_lossy();
        ConfigError::refused(self.setting, &self.source, Some(&got))
    }

    /// An error that repeats the value and says what else it has to be.
    pub(super) fn refused_as(&self, takes: fmt::Arguments<'_>) -> ConfigError {
        let Self { setting, source, value } = self;
        let got = quoted(&value.to_string_lossy());
        ConfigError::new(format_args!("{} ({source}): got {got}, takes {takes}", setting.option))
    }

    /// As the name of something in the file system, which has to have one.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        if self.value.is_empty() { Err(self.refused()) } else { Ok(PathBuf::from(&self.value)) }
    }

    /// The first line of the file it names, without what editors put around it. No error repeats
    /// the name, which may be the secret itself in the wrong place.
    pub(super) fn first_line(&self) -> Result<Zeroizing<String>, ConfigError> {
        let text = read(Path::new(&self.value)).map_err(|error| {
            let Self { setting, source, .. } = self;
            ConfigError::new(format_args!(
                "{} ({source}): {error}, takes {}",
                setting.option, setting.takes
            ))
        })?;
        Ok(Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned()))
    }
}

/// The environment and the file. The command line hands in its values one by one.
pub(super) struct Sources<'a> {
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
    /// Reads the file, if one was named on the command line or in the environment.
    pub(super) fn open(
        typed: Option<&OsStr>,
        environment: &'a dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut sources = Self { environment, path: PathBuf::new(), lines: Vec::new() };
        if let Some(given) = sources.find(&Setting::CONFIG, typed) {
            let path = given.path()?;
            let text = read(&path).map_err(|error| {
                let Given { setting, source, .. } = &given;
                let takes = setting.takes;
                ConfigError::new(format_args!(
                    "{} ({source}): got {path:?}: {error}, takes {takes}",
                    setting.option
                ))
            })?;
            sources.lines = parse(&path, &text)?;
            sources.path = path;
        }
        Ok(sources)
    }

    /// The value that counts: the highest there is. An empty one in the environment or in the file
    /// is none: compose passes on what was never set.
    pub(super) fn find(&self, setting: &'static Setting, typed: Option<&OsStr>) -> Option<Given> {
        if let Some(value) = typed {
            return Some(Given { setting, source: Source::CommandLine, value: value.to_owned() });
        }
        if let Some(value) = self.environment(setting.env) {
            return Some(Given { setting, source: Source::Environment(setting.env), value });
        }
        let line = self.lines.iter().find(|line| line.setting == setting)?;
        let source = Source::File { path: self.path.clone(), line: line.number };
        Some(Given { setting, source, value: OsString::from(line.value.as_str()) })
    }

    /// What the environment says under a name that is nobody's setting.
    pub(super) fn environment(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }
}

/// Understands `KEY=VALUE` lines, blank lines and `#` comments. Lines without a value are dropped.
fn parse(path: &Path, text: &str) -> Result<Vec<Line>, ConfigError> {
    let refused = |number: usize, got: &str, takes: &str| {
        ConfigError::new(format_args!("{}:{number}: got {got}, takes {takes}", path.display()))
    };
    let mut lines: Vec<Line> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if number > LINES_MAX {
            return Err(refused(number, "one line too many", "128 lines"));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(refused(number, "a line without =", "KEY=VALUE or a # comment"));
        };
        let key = key.trim();
        let known = Setting::ALL.into_iter().filter(|setting| **setting != Setting::CONFIG);
        let Some(setting) = known.clone().find(|setting| setting.env == key) else {
            let names: Vec<&str> = known.map(|setting| setting.env).collect();
            return Err(refused(number, &quoted_name(key), &names.join(" ")));
        };
        if let Some(before) = lines.iter().find(|line| line.setting == setting) {
            let got = format!("{key} again");
            return Err(refused(number, &got, &format!("it once, as in line {}", before.number)));
        }
        let value = Zeroizing::new(unquoted(value.trim()).to_owned());
        if !value.is_empty() {
            lines.push(Line { number, setting, value });
        }
    }
    Ok(lines)
}

/// A name for a message; nothing of what no name can be, which may be anything, even the code.
fn quoted_name(key: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_';
    if key.chars().all(is_name) && (1..=32).contains(&key.len()) {
        format!("the unknown name {key}")
    } else {
        "an unknown name".to_owned()
    }
}

fn unquoted(value: &str) -> &str {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).unwrap_or(value)
}

/// All of a text file, within its bound and without its byte order mark.
fn read(path: &Path) -> Result<Zeroizing<String>, Unreadable> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
    let file = File::open(path).map_err(|error| Unreadable::Os(error.kind()))?;
    file.take(FILE_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Unreadable::Os(error.kind()))?;
    if bytes.len() > FILE_MAX {
        return Err(Unreadable::TooLarge);
    }
    let text = core::str::from_utf8(&bytes).map_err(|_| Unreadable::NotText)?;
    Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
}

/// Why a file is of no use.
#[derive(Clone, Copy)]
enum Unreadable {
    Os(io::ErrorKind),
    TooLarge,
    NotText,
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
