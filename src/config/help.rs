//! The help texts: made from the table of settings, at most [`WIDTH`] columns wide.

use alloc::format;
use alloc::string::String;

use super::settings::{Group, Kind, Setting};

/// Columns of a help text.
pub const WIDTH: usize = 80;

/// Column at which descriptions begin.
const INDENT: usize = 30;

/// A command: its name and one sentence.
pub(super) struct CommandHelp {
    /// Word on the command line.
    pub(super) name: &'static str,
    /// One sentence, without a full stop.
    pub(super) about: &'static str,
    /// Usage line, behind the program's name.
    usage: &'static str,
    /// Paragraphs.
    text: &'static str,
}

/// The commands, in the order of help texts. `help` is clap's.
pub(super) const COMMANDS: [CommandHelp; 6] = [
    CommandHelp {
        name: "check",
        about: "Find out what does not work: settings, ports, printer, camera, files",
        usage: "check [--json] [OPTIONS]",
        text: "Checks eleven stages, one line each: what works (✓), what is to be known (!), what does \
               not work (✗) and what to do, what is not known (?), what was not checked (-). The word in brackets is a heading of \
               TROUBLESHOOTING.md, which each release has (the Debian package in /usr/share/doc/pandaproxy). It reads the settings of the service; without --config and \
               PANDAPROXY_CONFIG also /etc/pandaproxy/pandaproxy.conf, if that exists.\n\
               Where the service runs, the printer is not asked a second time: the service's status is \
               shown. Else the printer is logged in to as the service does. Nothing is written; it takes a \
               minute and a half at most.\n\
               Exit status: 0 if no stage failed, 3 if none failed and the printer could not be asked \
               (run it as root, or again in a moment), 2 for invalid settings, else 10 and the number of the \
               first stage that failed: 12 ports, 13 printer, 14 certificate, 15 login, 16 report, 17 \
               camera, 18 files, 19 clients, 20 discovery, 21 resources. 1: the result could not be written.",
    },
    CommandHelp {
        name: "health",
        about: "Check that the services of a running proxy answer on this machine",
        usage: "health [--printer] [OPTIONS]",
        text: "Reads the same settings as the service that it asks about; without --config and \
               PANDAPROXY_CONFIG also /etc/pandaproxy/pandaproxy.conf, if that exists. It does not \
               log in and does not contact the printer.\n\
               Exit status: 0 if all services answer, each within 5 s and all within 20 s, 1 with the \
               reason if one does not, 2 for invalid settings.\n\
               --printer: the printer has to be connected, too. The http service tells that.",
    },
    CommandHelp {
        name: "status",
        about: "Show printer, services, clients and transfers of a running proxy",
        usage: "status [--json] [OPTIONS]",
        text: "Asks the http service of the proxy on this machine, with the access code of the same settings; \
               without --config and PANDAPROXY_CONFIG also of /etc/pandaproxy/pandaproxy.conf, if that exists.\n\
               --json: as JSON, the same as http://HOST:8080/status.",
    },
    CommandHelp {
        name: "update",
        about: "Install a signed update, and return to the old version if it fails",
        usage: "update FILE [--check | --verify | --extract OUT] [OPTIONS]",
        text: "Verifies the file (pandaproxy-VERSION-BOARD.update, - for standard input), puts its program in \
               the place of this one, and restarts the services that run it. The new version has to become \
               ready within 60 s, and to reach the printer if the old one did; else the old one returns, as it \
               does at the service's next start if the update was interrupted. It stays beside the new one as \
               pandaproxy.old.\n\
               The file may come by any way: its signature decides. Nothing is downloaded. A program of the \
               Debian package is updated by apt, a container by its image.\n\
               Exit status: 0 if it is installed or here already, 1 if nothing was changed, 2 for an invalid \
               command line, 3 if the new version failed and the old one is back, 4 if the old one could not \
               be put back yet: the next start does that.",
    },
    CommandHelp {
        name: "ca",
        about: "Print the certificates that clients import, as PEM",
        usage: "ca [--state-dir DIR] [--config FILE]",
        text: "Prints the proxy's certificate authority and, where files are relayed, what vouches for the \
               printer's own certificate, which slicers meet there. Names and fingerprints go to \
               standard error.\n\
               Run it as the user that the service runs as, or as root, with the service's \
               --state-dir. Without --config and PANDAPROXY_CONFIG it reads \
               /etc/pandaproxy/pandaproxy.conf, if that exists.",
    },
    CommandHelp {
        name: "record",
        about: "Serve, and record traffic for Wireshark; fail if that is impossible",
        usage: "record --out DIR [OPTIONS]",
        text: "Takes the settings of the service. Access code, serial number, addresses and \
               other credentials are redacted; file names, pictures and contents of files are not. \
               --record DIR does the same, and serves without recording if DIR cannot be written.",
    },
];

const ABOUT: &str = "PandaProxy lets many programs share one Bambu Lab printer on a LAN.";

const USAGE: &str = "\
Usage: pandaproxy -p IP -s SERIAL --access-code-file FILE [OPTIONS]
       pandaproxy --config FILE [OPTIONS]
       pandaproxy COMMAND [OPTIONS]

Example:
  pandaproxy -p 192.168.1.50 -s 01P00A000000000 --access-code-file code.txt
";

const PRECEDENCE: &str = "\
Names in brackets are environment variables, and keys in the file of --config. The command line goes before \
the environment, the environment before the file. An empty variable counts as absent. Other users can read the command line: prefer a file for the \
access code. Ports below 1024 (322, 990) \
need root or CAP_NET_BIND_SERVICE.";

/// The text of `pandaproxy --help`.
pub(super) fn program() -> String {
    let mut out = format!("{ABOUT}\n\n{USAGE}\nCommands:\n");
    for command in &COMMANDS {
        entry(&mut out, &format!("  {}", command.name), command.about);
    }
    entry(&mut out, "  help [COMMAND]", "Print this help, or the help of a command");
    for group in Group::ALL {
        out.push_str(&format!("\n{}:\n", group.title()));
        for setting in Setting::ALL.into_iter().filter(|it| it.group == group && !it.hidden) {
            entry(&mut out, &left(setting), &right(setting));
        }
        if group == Group::General {
            entry(&mut out, "      --budget", "Print the memory budget of this build, and exit");
            entry(&mut out, "      --limits", "Print the limits of this build, and exit");
            entry(&mut out, "  -h, --help", "Print this help, and exit");
            entry(&mut out, "  -V, --version", "Print version and board, and exit");
        }
    }
    out.push('\n');
    wrap(&mut out, PRECEDENCE, 0, 0);
    out
}

/// The text of `pandaproxy help COMMAND`.
pub(super) fn command(command: &CommandHelp) -> String {
    let mut out = format!("{}.\n\nUsage: pandaproxy {}\n\n", command.about, command.usage);
    for paragraph in command.text.split('\n') {
        wrap(&mut out, paragraph, 0, 0);
    }
    if command.name == "check" {
        out.push('\n');
        entry(&mut out, "      --json", "Print the result as JSON, in one line");
    }
    if command.name == "update" {
        out.push('\n');
        entry(&mut out, "      --check", "Change nothing, and say what would be done");
        entry(&mut out, "      --verify", "Only verify the file, and print what it is");
        entry(
            &mut out,
            "      --extract OUT",
            "Write the verified content to OUT, whole or not at all",
        );
        entry(
            &mut out,
            "      --board BOARD",
            "Board that the file is for (default: this program's)",
        );
        let keys =
            "Publisher's public keys, PEM (default: /etc/pandaproxy/update.pem, else this build's)";
        entry(&mut out, "      --key FILE", keys);
        entry(&mut out, "      --allow-downgrade", "Install an earlier version, too");
        let within = "Time for the new version to become ready (default: 60)";
        entry(&mut out, "      --within SECONDS", within);
        let resume =
            "Return to the old version after an interrupted update; done at a service's start";
        entry(&mut out, "      --resume", resume);
    }
    if command.name == "record" {
        out.push('\n');
        entry(&mut out, "      --out DIR", "Where to; the last 32 MiB are kept [RECORD]");
    }
    out.push_str("\nOptions: see pandaproxy --help\n");
    out
}

/// The option's names and the placeholder of its value.
fn left(setting: &Setting) -> String {
    let Setting { option, short, value, kind, .. } = setting;
    let short = match short {
        Some(short) => format!("-{short}, "),
        None => String::from("    "),
    };
    match kind {
        Kind::Flag => format!("  {short}{option}"),
        Kind::Value | Kind::List => format!("  {short}{option} {value}"),
    }
}

/// What the option does, its default and its name elsewhere.
fn right(setting: &Setting) -> String {
    let Setting { help, default, key, kind, .. } = setting;
    let default = match (*default, kind) {
        ("", _) | (_, Kind::Flag) => String::new(),
        (default, _) => format!(" (default: {default})"),
    };
    format!("{help}{default} [{key}]")
}

/// Appends a name and its description.
fn entry(out: &mut String, name: &str, text: &str) {
    out.push_str(name);
    let at = name.chars().count();
    if at + 2 > INDENT {
        out.push('\n');
        wrap(out, text, 0, INDENT);
    } else {
        wrap(out, text, at, INDENT);
    }
}

/// Appends `text` and a line end, broken at spaces and commas so that no line exceeds [`WIDTH`]. The first line begins
/// at column `at`; every line is indented to `indent`.
fn wrap(out: &mut String, text: &str, at: usize, indent: usize) {
    let mut column = at;
    let mut is_first = true;
    for word in text.split(' ').flat_map(split_long) {
        let (word, glued) = word;
        let len = word.chars().count();
        let space = usize::from(!glued && !is_first);
        if is_first {
            out.extend(core::iter::repeat_n(' ', indent.saturating_sub(column)));
            column = column.max(indent);
        } else if column + space + len > WIDTH {
            out.push('\n');
            out.extend(core::iter::repeat_n(' ', indent));
            column = indent;
        } else if space == 1 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
        is_first = false;
    }
    out.push('\n');
}

/// The pieces of a word that may stand on lines of their own: a long one is broken behind its commas. The second
/// value says that no space goes before the piece.
fn split_long(word: &str) -> impl Iterator<Item = (&str, bool)> {
    const LONG: usize = 32;
    let pieces =
        if word.len() > LONG { word.split_inclusive(',') } else { word.split_inclusive('\n') };
    pieces.enumerate().map(|(at, piece)| (piece, at > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health;

    #[test]
    fn the_times_of_a_health_check_are_in_its_help() {
        let health = COMMANDS.iter().find(|command| command.name == "health").unwrap();
        let [port, all] = [health::PORT_TIMEOUT, health::TIMEOUT].map(|time| time.as_secs());
        let times = format!("each within {port} s and all within {all} s");
        assert!(health.text.contains(&times), "{times}");
    }

    #[test]
    fn help_fits_eighty_columns_and_has_every_setting() {
        let mut texts = alloc::vec![program()];
        texts.extend(COMMANDS.iter().map(command));
        for text in &texts {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
                assert_eq!(line.trim_end(), line);
            }
        }
        let help = &texts[0];
        for setting in Setting::ALL {
            let shown = help.contains(&format!("{} ", setting.option))
                && help.contains(&format!("[{}]", setting.key));
            assert_eq!(shown, !setting.hidden, "{}", setting.option);
        }
    }
}
