//! `cargo run --example generate -- WHAT`: what is made from the table of settings.
//!
//! | WHAT | made from the table |
//! |---|---|
//! | `man` | the man page, for `man -l` |
//! | `bash`, `zsh`, `fish` | completions |
//! | `env` | `.env.example` |
//! | `conf` | `boards/service/pandaproxy.conf` |
//! | `options` | the table in `boards/SETTINGS.md` |
//! | `causes` | `boards/TROUBLESHOOTING.md`, from the [catalogue of causes](pandaproxy::cause) |
//!
//! The tests of this example compare the files in the repository with it. `-- write` writes them anew.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a generator that fails says so and stops"
)]

use core::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ValueHint};
use clap_complete::Shell;
use pandaproxy::cause::Cause;
use pandaproxy::config::{Group, Kind, Setting, command};

const ENV: &str = ".env.example";
const CONF: &str = "boards/service/pandaproxy.conf";
const SETTINGS: &str = "boards/SETTINGS.md";
const CAUSES: &str = "boards/TROUBLESHOOTING.md";

/// Around the table in `boards/SETTINGS.md`.
const BEGIN: &str = "<!-- options: made by `cargo run --example generate -- write` -->\n";
const END: &str = "<!-- end of options -->\n";

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    let text = match what.as_str() {
        "man" => man(),
        "bash" => completions(Shell::Bash),
        "zsh" => completions(Shell::Zsh),
        "fish" => completions(Shell::Fish),
        "env" => settings_file(ENV).into_bytes(),
        "conf" => settings_file(CONF).into_bytes(),
        "options" => options().into_bytes(),
        "causes" => causes().into_bytes(),
        "write" => {
            for file in [ENV, CONF] {
                fs::write(root(file), settings_file(file)).unwrap();
            }
            fs::write(root(SETTINGS), settings_page()).unwrap();
            fs::write(root(CAUSES), causes()).unwrap();
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("usage: generate man|bash|zsh|fish|env|conf|options|causes|write");
            return ExitCode::from(2);
        }
    };
    io::stdout().write_all(&text).unwrap();
    ExitCode::SUCCESS
}

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn man() -> Vec<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command()).render(&mut page).unwrap();
    page
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut command =
        command().mut_args(completed).mut_subcommands(|command| command.mut_args(completed));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "pandaproxy", &mut script);
    if shell == Shell::Fish { with_values(script) } else { script }
}

/// Fish's script, which completes no value of an option before a command, since the options before the cursor are then
/// incomplete for `argparse`: it is tried again with a value.
fn with_values(script: Vec<u8>) -> Vec<u8> {
    const PARSE: &str = "argparse -s (__fish_pandaproxy_global_optspecs) -- $cmd";
    let script = String::from_utf8(script).unwrap();
    let first = format!("    {PARSE} 2>/dev/null\n");
    assert_eq!(script.matches(&first).count(), 1, "clap_complete's script for fish has changed");
    script.replace(&first, &format!("{first}    or {PARSE} value 2>/dev/null\n")).into_bytes()
}

/// An option with what its value is completed to: words, files, folders, or nothing. The program itself takes any text, for
/// errors of its own.
fn completed(arg: Arg) -> Arg {
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match name.as_deref() {
        Some("FILE") => arg.value_hint(ValueHint::FilePath),
        Some("DIR") => arg.value_hint(ValueHint::DirPath),
        Some("MODE" | "USE") => {
            let words = PossibleValuesParser::new(words(arg.get_long().unwrap_or_default()));
            arg.value_parser(words)
        }
        Some(_) => arg.value_hint(ValueHint::Other),
        None => arg,
    }
}

/// The words that an option takes, which its setting expects as `a, b or c`.
fn words(option: &str) -> impl Iterator<Item = &'static str> {
    let of = |setting: &&Setting| setting.option.trim_start_matches('-') == option;
    let expected = Setting::ALL.into_iter().find(of).map_or("", |setting| setting.expected);
    expected.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or")
}

/// What compose itself reads in `.env`.
const IMAGE: &str = "
# ---- Image

# Image that compose.yaml runs. Default: the one that a release's compose.yaml
# names; there is none in a checkout.
#PANDAPROXY_IMAGE=
";

/// An example file of settings.
fn settings_file(file: &str) -> String {
    let is_env = file == ENV;
    let place = if is_env {
        "# PandaProxy's settings for compose.yaml: copy this file to .env."
    } else {
        "# PandaProxy's settings: /etc/pandaproxy/pandaproxy.conf."
    };
    let mut text = format!(
        "{place}\n# KEY=VALUE lines. The first three are required; the others show their defaults.\n\
         # Comments need a line of their own. The command line and the environment go before this file.\n"
    );
    if is_env {
        text.push_str(IMAGE);
    }
    for group in Group::ALL {
        let settings = Setting::ALL.into_iter();
        let settings = settings.filter(|it| {
            it.group == group && it.is_in_file() && !it.hidden && !is_fixed(it, is_env)
        });
        for (at, setting) in settings.enumerate() {
            if at == 0 {
                write!(text, "\n# ---- {}\n\n", title(group)).unwrap();
            }
            for line in wrapped(&format!("{}.{}", setting.help, note(setting, is_env))) {
                writeln!(text, "# {line}").unwrap();
            }
            // An installed proxy shows its status.
            let has_http = *setting == Setting::SERVICES;
            let comment = if setting.required || has_http { "" } else { "#" };
            let value = format!("{}{}", setting.default, if has_http { ",http" } else { "" });
            writeln!(text, "{comment}{}={value}", setting.key).unwrap();
        }
    }
    text
}

/// The group's title without what stands in brackets.
fn title(group: Group) -> &'static str {
    group.title().split(" (").next().unwrap_or_default()
}

/// Whether compose.yaml sets it.
fn is_fixed(setting: &Setting, is_env: bool) -> bool {
    is_env && *setting == Setting::STATE_DIR
}

/// What else is to be known where this file is used.
fn note(setting: &Setting, is_env: bool) -> &'static str {
    if *setting == Setting::RECORD {
        if is_env {
            " A container can write below /var/lib/pandaproxy only."
        } else {
            " The service can write below /var/lib/pandaproxy only."
        }
    } else if *setting == Setting::PRINTER_CA && !is_env {
        " Put it into /etc/pandaproxy."
    } else if *setting == Setting::STATE_DIR {
        " The service has /var/lib/pandaproxy."
    } else {
        ""
    }
}

/// Lines of at most 78 characters.
fn wrapped(text: &str) -> Vec<String> {
    wrapped_at(text, 78)
}

/// Lines of at most `width` characters.
fn wrapped_at(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The table of options.
fn options() -> String {
    let mut text = String::from("| option | variable, key | default | |\n|---|---|---|---|\n");
    for setting in Setting::ALL.into_iter().filter(|it| !it.hidden) {
        let Setting { option, short, key, value, default, help, required, kind, .. } = setting;
        let short = short.map_or(String::new(), |short| format!("`-{short}`, "));
        let value = if *kind == Kind::Flag { String::new() } else { format!(" {value}") };
        let default = match (*default, kind) {
            ("", _) | (_, Kind::Flag) if *required => "required".to_owned(),
            ("", _) | (_, Kind::Flag) => String::new(),
            (default, _) => format!("`{}`", default.replace(',', ", ")),
        };
        writeln!(text, "| {short}`{option}{value}` | `{key}` | {default} | {help} |").unwrap();
    }
    text
}

/// `boards/SETTINGS.md` with its table made anew.
fn settings_page() -> String {
    let text = fs::read_to_string(root(SETTINGS)).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the page has a table of options");
    let (_, after) = rest.split_once(END).expect("the table of options ends");
    format!("{before}{BEGIN}\n{}\n{END}{after}", options())
}

/// The troubleshooting page: a heading for each cause's anchor.
fn causes() -> String {
    let mut text = String::from(CAUSES_BEGIN);
    for (Cause { anchor, text: what, hint }, page) in Cause::PAGE {
        let what = what.replace("{}", "…");
        write!(text, "\n## {anchor}\n\n> {what}; {hint}\n\n").unwrap();
        for line in wrapped_at(page, 120) {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

const CAUSES_BEGIN: &str = "\
# Troubleshooting

<!-- made from src/cause.rs by `cargo run --example generate -- write` -->

    sudo pandaproxy check

goes through everything that has to work, one line for each of eleven stages: `✓` it works, `!` it works and something is
to be known, `✗` it does not work, `?` whether it works is not known, `-` it was not checked, and need not be. The word in
brackets at the end of a line is a heading below; the log has the same texts. `--json` is for programs.

| exit status | meaning |
|---|---|
| 0 | no stage failed; there may be warnings |
| 3 | no stage failed, and the printer could not be asked: run it as root, or again in a moment |
| 2 | the settings are invalid |
| 12 to 21 | ten and the number of the first stage that failed |
| 1 | the result could not be written |
";

#[cfg(test)]
mod tests {
    use super::*;

    const HINT: &str = "run cargo run --example generate -- write";

    #[test]
    fn example_files_are_made_from_the_table_of_settings() {
        for file in [ENV, CONF] {
            assert_eq!(
                fs::read_to_string(root(file)).unwrap(),
                settings_file(file),
                "{file}: {HINT}"
            );
        }
    }

    #[test]
    fn the_settings_page_is_made_from_the_table_of_settings() {
        assert!(
            fs::read_to_string(root(SETTINGS)).unwrap() == settings_page(),
            "{SETTINGS}: {HINT}"
        );
    }

    #[test]
    fn the_troubleshooting_page_is_made_from_the_causes() {
        assert!(fs::read_to_string(root(CAUSES)).unwrap() == causes(), "{CAUSES}: {HINT}");
    }

    #[test]
    fn man_page_and_completions_name_every_setting() {
        let all =
            [man(), completions(Shell::Bash), completions(Shell::Zsh), completions(Shell::Fish)];
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(completions(shell)).unwrap();
            assert!(
                ["proxy relay", "proxy\nrelay", "relay\\t''"]
                    .iter()
                    .any(|words| text.contains(words)),
                "{shell}"
            );
        }
        for text in all {
            let text = String::from_utf8(text).unwrap().replace('\\', "");
            for setting in Setting::ALL.into_iter().filter(|it| !it.hidden) {
                assert!(
                    text.contains(setting.option.trim_start_matches('-')),
                    "{}",
                    setting.option
                );
            }
        }
    }
}
