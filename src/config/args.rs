//! What was typed.
//!
//! Every value stays as it was given, or absent: what it means, and what stands in for it when it
//! is absent, is [`Config`](super::Config)'s business. Nothing here prints a value.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser, Subcommand};

use super::ConfigError;
use super::sources::{Setting, Source};

/// The command line.
#[derive(Parser)]
#[command(
    name = "pandaproxy",
    version = concat!(env!("PANDAPROXY_VERSION"), " (board ", env!("BOARD"), ")"),
    about = "Lets many LAN clients share a Bambu Lab printer's few connections",
    after_help = "Command line > environment > --config file > default. An empty environment \
                  variable counts as not given.",
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[arg(
        short = 'p',
        long,
        value_name = "IP",
        help = "The printer: IP address or host name [PRINTER_IP]"
    )]
    pub(super) printer_ip: Option<OsString>,

    #[arg(
        short = 'a',
        long,
        value_name = "CODE",
        help = "The printer's access code [ACCESS_CODE]"
    )]
    pub(super) access_code: Option<OsString>,

    #[arg(
        long,
        value_name = "FILE",
        help = "A file whose first line is the access code [ACCESS_CODE_FILE]"
    )]
    pub(super) access_code_file: Option<OsString>,

    #[arg(
        short = 's',
        long,
        global = true,
        value_name = "SERIAL",
        help = "The printer's serial number [SERIAL_NUMBER]"
    )]
    pub(super) serial_number: Option<OsString>,

    #[arg(
        short = 'b',
        long,
        value_name = "IP",
        help = "The address to listen on, 0.0.0.0 if not given [BIND_ADDRESS]"
    )]
    pub(super) bind: Option<OsString>,

    #[arg(
        long,
        value_name = "LIST",
        help = "Which of camera,mqtt,ftp; all this build has if not given [SERVICES]"
    )]
    pub(super) services: Option<OsString>,

    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help = "All services, whatever --services says [ENABLE_ALL]")]
    pub(super) enable_all: Option<OsString>,

    #[arg(
        long,
        value_name = "IPV4",
        help = "The address clients reach this proxy at, where it cannot know [ADVERTISE_IP]"
    )]
    pub(super) advertise_ip: Option<OsString>,

    #[arg(long, action = ArgAction::Append, value_name = "SERVICE=PORT", help = "Listen elsewhere, such as mqtt=8883; repeatable [PORTS]")]
    pub(super) port: Vec<OsString>,

    #[arg(long, action = ArgAction::Append, value_name = "SERVICE=PORT", help = "The printer listens elsewhere; repeatable [PRINTER_PORTS]")]
    pub(super) printer_port: Vec<OsString>,

    #[arg(
        long,
        value_name = "MODE",
        help = "Who ends the TLS of FTP clients: proxy (this program), relay (the printer), auto (by \
                its model) [FTP_MODE]"
    )]
    pub(super) ftp_mode: Option<OsString>,

    #[arg(
        long,
        value_name = "FROM-TO",
        help = "Data ports for FTP clients, 2024-2043 if not given; with relay those of the printer, \
                by its model if not given [FTP_DATA_PORTS]"
    )]
    pub(super) ftp_data_ports: Option<OsString>,

    #[arg(
        long,
        value_name = "FILE",
        help = "One more authority that may vouch for the printer, PEM [PRINTER_CA]"
    )]
    pub(super) printer_ca: Option<OsString>,

    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help = "Believe whoever answers at the printer's address [INSECURE_PRINTER]")]
    pub(super) insecure_printer: Option<OsString>,

    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help = "Leave the printer's own address in its reports [KEEP_PRINTER_ADDRESS]")]
    pub(super) keep_printer_address: Option<OsString>,

    #[arg(
        long,
        value_name = "DIR",
        help = "Record what is said, without what is secret, for Wireshark; a service that cannot \
                goes on without [RECORD]"
    )]
    pub(super) record: Option<OsString>,

    #[arg(
        long,
        value_name = "MIB",
        help = "Room for it, 32 if not given: 8 files, of which the oldest is removed [RECORD_MIB]"
    )]
    pub(super) record_mib: Option<OsString>,

    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help = "Where certificates are kept [PANDAPROXY_STATE_DIR]"
    )]
    pub(super) state_dir: Option<OsString>,

    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "KEY=VALUE lines with the names in brackets [PANDAPROXY_CONFIG]"
    )]
    pub(super) config: Option<OsString>,

    #[arg(short = 'v', long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help = "Say more in the log [DEBUG]")]
    pub(super) verbose: Option<OsString>,

    #[arg(long, help = "Print what this build may hold in memory, and end")]
    pub(super) budget: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Print the certificate authority that clients are to trust
    Ca,
    /// Say whether the services answer on this machine: 0 if they do, 1 with the reason if not
    #[command(after_help = "Takes the configuration of the service it asks about, from the same \
                            places; options of the command line go before the word.")]
    Health,
    /// Serve, and record what is said, without what is secret; end if that cannot be
    #[command(after_help = "Options of the service go before the word.")]
    Record {
        #[arg(long, value_name = "DIR", help = "Where to, for Wireshark [RECORD]")]
        out: Option<OsString>,
    },
}

/// What came of reading the command line.
pub(super) enum Typed {
    Args(Box<Args>),
    /// Help or version, for standard output.
    Print(String),
}

impl Args {
    /// Reads the whole command line, the program's name first.
    pub(super) fn read(words: &[OsString]) -> Result<Typed, ConfigError> {
        match Self::try_parse_from(words) {
            Ok(args) => Ok(Typed::Args(Box::new(args))),
            Err(error) if is_asked_for(&error) => Ok(Typed::Print(error.render().to_string())),
            Err(error) => Err(reduced(&error, words)),
        }
    }
}

fn is_asked_for(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// What clap has to say in a paragraph, in one line. It repeats names, never values: a word in the
/// wrong place may be the access code.
fn reduced(error: &clap::Error, words: &[OsString]) -> ConfigError {
    let kind = error.kind();
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(named)) => named.as_str(),
        Some(_) | None => "",
    };
    let unknown = kind == ErrorKind::UnknownArgument && named.starts_with('-');
    if unknown && stands_for_the_code(named, words) {
        return ConfigError::refused(&Setting::ACCESS_CODE, &Source::CommandLine, None);
    }
    let is_name = |c: char| c == '-' || c.is_ascii_alphanumeric();
    let option = named.split(|c| !is_name(c)).next().unwrap_or_default();
    if unknown {
        return ConfigError::new(format_args!("{option}: no such option, see --help"));
    }
    let setting = Setting::ALL.into_iter().find(|setting| setting.option == option);
    match (kind, setting) {
        (ErrorKind::ArgumentConflict, _) => {
            ConfigError::new(format_args!("{option} (command line): given more than once"))
        }
        (ErrorKind::TooManyValues, _) => {
            ConfigError::new(format_args!("{option} (command line): takes no value"))
        }
        (ErrorKind::InvalidValue, Some(setting)) => ConfigError::new(format_args!(
            "{option} (command line): got nothing, takes {}",
            setting.takes
        )),
        (_, _) => ConfigError::new(format_args!(
            "command line: got a word that belongs to no option, see --help"
        )),
    }
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
