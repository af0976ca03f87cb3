//! `pandaproxy check`: what is checked, stage by stage, and what came of it, for a terminal and for programs.
//!
//! The stages are data; [`runtime::check`](crate::runtime::check) runs them. Each has one line: `✓` it works, `!` it works
//! and something is to be known, `✗` it does not work, `?` whether it works is not known, `-` it was not checked, and need
//! not be. A line that is not `✓` has its [cause](crate::cause), and the heading of the troubleshooting page in brackets.
//!
//! # Exit status
//!
//! | status | meaning |
//! |---|---|
//! | 0 | no stage failed; there may be warnings |
//! | 1 | the result could not be written |
//! | 2 | stage 1: invalid settings, as of every command |
//! | 3 | no stage failed, and of one it is not known whether it works: the running service could not be asked about the printer, or does not know yet |
//! | 12 to 21 | ten and the number of the first stage that failed |

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::{self, Display, Write};

use crate::cause::{Cause, With};

pub mod status;

/// What is checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Settings and secrets are readable and have the right shape.
    Settings,
    /// This machine's addresses and ports.
    Ports,
    /// The printer's name, address and ports.
    Printer,
    /// The printer's certificate.
    Certificate,
    /// The login at the printer's broker.
    Login,
    /// A report, firmware, Developer Mode, live view.
    Report,
    /// A picture, or the description of a stream.
    Camera,
    /// The login at the file server, and a listing.
    Files,
    /// How clients reach this machine.
    Clients,
    /// Who announces the printer in this network.
    Discovery,
    /// Memory, disk, and limits of the kernel.
    Resources,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 11] = [
        Self::Settings,
        Self::Ports,
        Self::Printer,
        Self::Certificate,
        Self::Login,
        Self::Report,
        Self::Camera,
        Self::Files,
        Self::Clients,
        Self::Discovery,
        Self::Resources,
    ];

    /// The stages for which the printer is connected to.
    pub const AT_PRINTER: [Self; 6] =
        [Self::Printer, Self::Certificate, Self::Login, Self::Report, Self::Camera, Self::Files];

    /// Its number, from 1.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Ports => "ports",
            Self::Printer => "printer",
            Self::Certificate => "certificate",
            Self::Login => "login",
            Self::Report => "report",
            Self::Camera => "camera",
            Self::Files => "files",
            Self::Clients => "clients",
            Self::Discovery => "discovery",
            Self::Resources => "resources",
        }
    }

    /// The program's exit status where this is the first stage that failed.
    pub const fn exit_status(self) -> u8 {
        if matches!(self, Self::Settings) { 2 } else { 10 + self.number() }
    }
}

/// The program's exit status where no stage failed, and of one it is not known whether it works. Monitoring plugins have the
/// same number for "unknown".
pub const NOT_KNOWN: u8 = 3;

/// What came of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not checked: it need not be, or an earlier stage says why.
    Skipped,
    /// It works.
    Good,
    /// Whether it works could not be found out.
    Unknown,
    /// It works, and there is something to know.
    Warning,
    /// It does not work.
    Failed,
}

impl Verdict {
    const fn mark(self) -> &'static str {
        match self {
            Self::Skipped => "-",
            Self::Good => "✓",
            Self::Unknown => "?",
            Self::Warning => "!",
            Self::Failed => "✗",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Good => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What came of a stage, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What came of it.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// Heading in the troubleshooting page.
    pub anchor: Option<&'static str>,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    /// It works.
    pub fn good(text: impl Display) -> Self {
        Self { verdict: Verdict::Good, text: text.to_string(), anchor: None, hint: None }
    }

    /// It was not checked.
    pub fn skipped(text: impl Display) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::good(text) }
    }

    /// Whether it works could not be found out.
    pub fn unknown(text: impl Display) -> Self {
        Self { verdict: Verdict::Unknown, ..Self::good(text) }
    }

    /// It works, and there is something to know.
    pub fn warning<T: Display>(why: &With<T>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::failed(why) }
    }

    /// It does not work.
    pub fn failed<T: Display>(why: &With<T>) -> Self {
        let Cause { anchor, hint, .. } = why.cause;
        Self {
            verdict: Verdict::Failed,
            text: format!("{why:#}"),
            anchor: Some(anchor),
            hint: Some(hint.into()),
        }
    }

    /// It does not work: a message of `TEXT; HINT`, whose cause is `cause`.
    pub fn message(cause: Cause, message: impl Display) -> Self {
        let message = message.to_string();
        let (text, hint) = message.split_once("; ").unwrap_or((&message, cause.hint));
        Self {
            verdict: Verdict::Failed,
            text: text.into(),
            anchor: Some(cause.anchor),
            hint: Some(hint.into()),
        }
    }

    /// The same with this before its text.
    #[must_use]
    pub fn behind(self, before: impl Display) -> Self {
        Self { text: format!("{before}{}", self.text), ..self }
    }

    /// The one of both that is worse; the first of two that are equal.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        if other.verdict > self.verdict { other } else { self }
    }
}

/// A stage with what came of it. `Display` is its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The stage.
    pub stage: Stage,
    /// What came of it.
    pub finding: Finding,
}

impl Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, finding: Finding { verdict, text, anchor, hint } } = self;
        write!(f, "{} {:>2} {:<12}{text}", verdict.mark(), stage.number(), stage.name())?;
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        match anchor {
            Some(anchor) => write!(f, " [{anchor}]"),
            None => Ok(()),
        }
    }
}

/// All stages that were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Each stage, in order.
    pub stages: heapless::Vec<Checked, { Stage::ALL.len() }>,
}

impl Outcome {
    /// A check that ended at the settings.
    pub fn of_settings(error: impl Display) -> Self {
        let finding = Finding::message(Cause::SETTINGS, error);
        Self { stages: [Checked { stage: Stage::Settings, finding }].into_iter().collect() }
    }

    /// What came of a stage.
    pub fn of(&self, stage: Stage) -> Option<&Finding> {
        self.stages.iter().find(|checked| checked.stage == stage).map(|checked| &checked.finding)
    }

    /// The finding of a further stage, as it is shown. Where an earlier stage has failed for the same cause, with the same text or
    /// at the printer's ports as a whole, the finding only names that stage.
    #[must_use]
    pub fn without_repetition(&self, finding: Finding) -> Finding {
        let has_told = |it: &&Checked| {
            it.finding.verdict == Verdict::Failed
                && it.finding.anchor == finding.anchor
                && (it.finding.text == finding.text || it.stage.number() <= Stage::Printer.number())
        };
        let first = match finding.verdict {
            Verdict::Failed => self.stages.iter().find(has_told),
            Verdict::Skipped | Verdict::Good | Verdict::Unknown | Verdict::Warning => None,
        };
        match first {
            Some(Checked { stage, .. }) => {
                let text = format!("see {} {}", stage.number(), stage.name());
                Finding { text, hint: None, ..finding }
            }
            None => finding,
        }
    }

    /// The program's exit status.
    pub fn exit_status(&self) -> u8 {
        let first = |verdict| self.stages.iter().find(|it| it.finding.verdict == verdict);
        match (first(Verdict::Failed), first(Verdict::Unknown)) {
            (Some(failed), _) => failed.stage.exit_status(),
            (None, Some(_)) => NOT_KNOWN,
            (None, None) => 0,
        }
    }

    /// One line: how many stages are how.
    pub const fn summary(&self) -> Summary<'_> {
        Summary(self)
    }

    /// The same as JSON, in one line.
    pub const fn json(&self) -> Json<'_> {
        Json(self)
    }
}

/// How many stages are how. `Display` is one line.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a>(&'a Outcome);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = &self.0.stages;
        let count = |verdict| stages.iter().filter(|it| it.finding.verdict == verdict).count();
        let counts = [
            (Verdict::Failed, "failed"),
            (Verdict::Warning, "with warnings"),
            (Verdict::Unknown, "not known"),
            (Verdict::Skipped, "not checked"),
        ];
        if stages.len() < Stage::ALL.len() {
            f.write_str("nothing else was checked")?;
        } else {
            write!(f, "{} of {} stages work", count(Verdict::Good), stages.len())?;
            for (number, words) in counts.map(|(verdict, words)| (count(verdict), words)) {
                if number > 0 {
                    write!(f, ", {number} {words}")?;
                }
            }
        }
        if stages.iter().any(|it| it.finding.anchor.is_some()) {
            f.write_str("; TROUBLESHOOTING.md explains the words in brackets")?;
        }
        match self.0.exit_status() {
            NOT_KNOWN => f.write_str("; whether the printer can be used is not known"),
            _ => Ok(()),
        }
    }
}

/// All stages for a program. `Display` is JSON, in one line.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(&'a Outcome);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"version\":{},\"stages\":[", Quoted(env!("PANDAPROXY_VERSION")))?;
        for (at, Checked { stage, finding }) in self.0.stages.iter().enumerate() {
            let Finding { verdict, text, anchor, hint } = finding;
            let comma = if at == 0 { "" } else { "," };
            let (number, name) = (stage.number(), stage.name());
            write!(f, "{comma}{{\"number\":{number},\"name\":{},", Quoted(name))?;
            write!(f, "\"verdict\":{},\"text\":{}", Quoted(verdict.name()), Quoted(text))?;
            write!(f, ",\"hint\":{}", OrNull(hint.as_deref()))?;
            write!(f, ",\"cause\":{}}}", OrNull(*anchor))?;
        }
        write!(f, "],\"exit_status\":{}}}", self.0.exit_status())
    }
}

/// A JSON string, or null.
struct OrNull<'a>(Option<&'a str>);

impl Display for OrNull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => Quoted(text).fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// A JSON string (RFC 8259 §7).
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
