//! The command line: clap's description of it, made from the table of settings, and its errors.
//!
//! Values stay as they were given. No message repeats a value, and none repeats a word that may be the access code.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::ffi::{OsStr, OsString};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::ConfigError;
use super::help::{self, COMMANDS};
use super::settings::{Kind, Setting};
use super::source::Source;

/// Describes the command line, for parsing and for the generators of man page and completions.
pub fn command() -> Command {
    let mut command = Command::new("pandaproxy")
        .version(concat!(env!("PANDAPROXY_VERSION"), " (board ", env!("BOARD"), ")"))
        .about("Lets many programs share one Bambu Lab printer on a LAN")
        .override_help(help::program())
        .arg(printing("budget", "Print the memory budget of this build, and exit"))
        .arg(printing("limits", "Print the limits of this build, and exit"));
    for setting in Setting::ALL {
        command = command.arg(argument(setting));
    }
    for about in &COMMANDS {
        let mut sub =
            Command::new(about.name).about(about.about).override_help(help::command(about));
        let flag = match about.name {
            "health" => Some(printing("printer", "The printer has to be connected, too")),
            "check" | "status" => Some(printing("json", "Print JSON")),
            _ => None,
        };
        sub = sub.args(flag);
        if about.name == "record" {
            sub = sub.arg(
                Arg::new("out")
                    .long("out")
                    .value_name("DIR")
                    .help("Where to write")
                    .value_parser(ValueParser::os_string()),
            );
        }
        if about.name == "update" {
            sub = update(sub);
        }
        command = command.subcommand(sub);
    }
    command
}

/// The options of `update`.
fn update(command: Command) -> Command {
    let given = |name: &'static str, value: &'static str, help: &'static str| {
        let parser = ValueParser::os_string();
        Arg::new(name).value_name(value).help(help).value_parser(parser)
    };
    let option = |name, value, help| given(name, value, help).long(name);
    command
        .arg(given("file", "FILE", "The update file, or - for standard input"))
        .arg(printing("verify", "Only verify the file, and print what it is"))
        .arg(option("extract", "OUT", "Write the verified content to OUT"))
        .arg(printing("check", "Only say what would be done"))
        .arg(printing("resume", "Return to the old version after an interrupted update"))
        .arg(printing("allow-downgrade", "Install an earlier version, too"))
        .arg(option("within", "SECONDS", "Time for the new version to become ready"))
        .arg(option("board", "BOARD", "The board that the file has to be for"))
        .arg(option("key", "FILE", "The publisher's public keys").id("keys"))
}

fn printing(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn argument(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.id())
        .long(setting.id())
        .value_name(setting.value)
        .help(format!("{} [{}]", setting.help, setting.key))
        .hide(setting.hidden)
        .global(true)
        .value_parser(ValueParser::os_string());
    let arg = match setting.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match setting.kind {
        Kind::Value => arg.action(ArgAction::Set),
        Kind::List => arg.action(ArgAction::Append),
        Kind::Flag => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

/// A command line that was understood.
#[derive(Default)]
pub(super) struct Args {
    matches: ArgMatches,
}

/// What to do instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ca,
    Check,
    Health,
    Record,
    Status,
    Update,
}

/// What came of reading the command line.
pub(super) enum Typed {
    Args(Args),
    /// Help or version, for standard output.
    Print(String),
}

impl Args {
    /// Reads the whole command line, the program's name first.
    pub(super) fn read(words: &[OsString]) -> Result<Typed, ConfigError> {
        match command().try_get_matches_from(words) {
            Ok(matches) => Ok(Typed::Args(Self { matches })),
            Err(error) if is_asked_for(&error) => Ok(Typed::Print(error.render().to_string())),
            Err(error) => Err(explained(&error, words)),
        }
    }

    /// The command, if there is one.
    pub(super) fn word(&self) -> Option<Word> {
        match self.matches.subcommand_name()? {
            "ca" => Some(Word::Ca),
            "check" => Some(Word::Check),
            "health" => Some(Word::Health),
            "record" => Some(Word::Record),
            "status" => Some(Word::Status),
            "update" => Some(Word::Update),
            _ => None,
        }
    }

    /// Whether an option that prints something was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    /// Whether the command's own flag was given.
    pub(super) fn has_own(&self, name: &str) -> bool {
        let flag = self.matches.subcommand();
        flag.is_some_and(|(_, of)| matches!(of.try_get_one::<bool>(name), Ok(Some(true))))
    }

    /// The value of `record --out`.
    pub(super) fn out(&self) -> Option<&OsStr> {
        let (_, record) = self.matches.subcommand()?;
        record.try_get_one::<OsString>("out").ok().flatten().map(OsString::as_os_str)
    }

    /// The value of an option of the command's own.
    pub(super) fn own(&self, name: &str) -> Option<&OsStr> {
        let (_, own) = self.matches.subcommand()?;
        own.try_get_one::<OsString>(name).ok().flatten().map(OsString::as_os_str)
    }

    /// The value of a setting; of a list, all values with commas between.
    pub(super) fn value(&self, setting: &Setting) -> Option<OsString> {
        let values = self.matches.get_many::<OsString>(setting.id())?;
        let values: Vec<&OsStr> = values.map(OsString::as_os_str).collect();
        Some(values.join(OsStr::new(",")))
    }
}

fn is_asked_for(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// Clap's paragraph as one line.
fn explained(error: &clap::Error, words: &[OsString]) -> ConfigError {
    let kind = error.kind();
    let context = |context| match error.get(context) {
        Some(ContextValue::String(named)) => Some(named.as_str()),
        Some(_) | None => None,
    };
    let named = context(ContextKind::InvalidArg)
        .or_else(|| context(ContextKind::InvalidSubcommand))
        .unwrap_or_default();
    let is_unknown = matches!(kind, ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
    if is_unknown && !named.starts_with('-') {
        return unknown_word(named);
    }
    if is_unknown && stands_for_the_code(named, words) {
        return ConfigError::invalid(&Setting::ACCESS_CODE, &Source::CommandLine, None);
    }
    let is_name = |c: char| c == '-' || c.is_ascii_alphanumeric();
    let option = named.split(|c| !is_name(c)).next().unwrap_or_default();
    let options = Setting::ALL.into_iter().map(|setting| setting.option);
    if is_unknown {
        let others = ["--budget", "--limits", "--help", "--version"].into_iter();
        let hint = nearest(option, options.chain(others));
        return ConfigError::new(match hint {
            Some(hint) => format!("unknown option {option}; did you mean {hint}?"),
            None => format!("unknown option {option}; see pandaproxy --help"),
        });
    }
    let setting = Setting::ALL.into_iter().find(|setting| setting.option == option);
    ConfigError::new(match (kind, setting) {
        (ErrorKind::ArgumentConflict, _) => format!("{option} is given twice"),
        (ErrorKind::TooManyValues, _) => format!("{option} takes no value"),
        (ErrorKind::InvalidValue, Some(setting)) => {
            format!("{option} needs a value: {}", setting.expected)
        }
        (ErrorKind::InvalidValue, None) => format!("{option} needs a value"),
        (_, _) => "invalid command line; see pandaproxy --help".to_string(),
    })
}

/// A word that is neither an option nor a command. It is repeated only if it cannot be an access code, which has eight
/// characters.
fn unknown_word(word: &str) -> ConfigError {
    const CODE: usize = 8;
    let is_plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let commands = COMMANDS.iter().map(|command| command.name).chain(["help"]);
    ConfigError::new(match (is_plain, nearest(word, commands)) {
        (true, Some(hint)) => format!("unknown command \"{word}\"; did you mean \"{hint}\"?"),
        (true, None) if word.len() != CODE && word.len() < 2 * CODE => {
            format!("unknown command \"{word}\"; see pandaproxy --help")
        }
        (_, _) => "unexpected word (not shown: it may be the access code); see pandaproxy --help"
            .to_string(),
    })
}

/// Whether what clap takes for the unknown option `named` was meant as the access code.
fn stands_for_the_code(named: &str, words: &[OsString]) -> bool {
    let asks = |word: &str| {
        word == "--access-code"
            || word == "--access-code-file"
            || (word.starts_with('-') && !word.starts_with("--") && word.ends_with('a'))
    };
    words.iter().zip(words.iter().skip(1)).any(|(before, word)| {
        asks(&before.to_string_lossy()) && word.to_string_lossy().starts_with(named)
    })
}

/// The candidate that `word` was probably meant to be: at most two edits away, or one that begins with it.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    const EDITS: usize = 2;
    const BEGINNING: usize = 5;
    let close = candidates.clone().map(|candidate| (edits(word, candidate), candidate));
    let (distance, candidate) = close.min_by_key(|(distance, _)| *distance)?;
    if distance <= EDITS && 2 * distance < word.len() {
        return Some(candidate);
    }
    let mut longer =
        candidates.filter(|candidate| word.len() >= BEGINNING && candidate.starts_with(word));
    longer.next()
}

/// Edits between two words: insertions, deletions and replacements of a byte (Levenshtein distance). Words longer than
/// 40 bytes count as different.
fn edits(a: &str, b: &str) -> usize {
    const LONGEST: usize = 40;
    if a.len() > LONGEST || b.len() > LONGEST {
        return LONGEST;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_its_own_description() {
        command().debug_assert();
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("--prot", "--port", 2)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }

    #[test]
    fn a_typo_finds_the_word_that_was_meant() {
        let words = ["--port", "--printer-ip", "--printer-port", "ca", "health"].into_iter();
        for (word, meant) in [
            ("--prot", Some("--port")),
            ("--printer", Some("--printer-ip")),
            ("helth", Some("health")),
            ("web", None),
            ("c", None),
            ("--nozzle", None),
        ] {
            assert_eq!(nearest(word, words.clone()), meant, "{word}");
        }
    }
}
