//! Skipped tests, counted: what a test calls when this machine lacks what the test needs.
//!
//! libtest cannot skip a test at run time: a test that returns early is reported as `ok`. Each call of this crate
//! therefore appends one line to the file `skips` beside the test binaries' folder (`target/debug/skips`), and the
//! test target `zz_skipped` (`tests/skips/report.rs`), which `cargo test` runs last because targets run in order of
//! their names, prints the lines of its own `cargo test` and how many there are:
//!
//! ```text
//! 2 skipped: program missing (mosquitto_sub: mqtt::state_is_served; mqtt::delta_is_served)
//! 1 skipped: ../shared/ca is missing (tls::trust_tests::the_authorities_say_what_their_certificates_say)
//! ```
//!
//! A line belongs to the `cargo test` whose process id it names: each test binary is a child of that process.
//!
//! # Continuous integration
//!
//! Where the environment variable `CI` is set, a missing program is a failure of the test, because CI installs every
//! program that tests use. Folders outside of the repository are not there on a public CI, and are reported only.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use core::panic::Location;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// Why a test was skipped as a whole or in part, or what it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program, a plug-in or a library is not installed. A failure in CI.
    Program,
    /// A folder outside of the repository is missing.
    Folder,
    /// This machine cannot show what the test looks at, whatever is installed.
    Machine,
    /// The test was not skipped: it read files outside of the repository.
    Read,
}

impl Kind {
    const ALL: [(Self, &str); 4] = [
        (Self::Program, "program"),
        (Self::Folder, "folder"),
        (Self::Machine, "machine"),
        (Self::Read, "read"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Why, or that it was read.
    pub kind: Kind,
    /// The test's name, with its modules, after the name of its binary.
    pub test: String,
    /// What is missing, or what was read.
    pub what: String,
}

/// Whether `program` is in no folder of `PATH`. The calling test is recorded as skipped.
///
/// # Panics
///
/// If it is missing and `CI` is set.
#[track_caller]
pub fn is_missing(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path);
    let is_there = folders.into_iter().any(|folder| folder.join(program).is_file());
    !is_there && lacks(program)
}

/// Whether GStreamer lacks one of these elements, or is missing itself. The calling test is recorded as skipped.
///
/// # Panics
///
/// If one is missing and `CI` is set.
#[track_caller]
pub fn is_missing_element(elements: &[&str]) -> bool {
    if is_missing("gst-launch-1.0") || is_missing("gst-inspect-1.0") {
        return true;
    }
    let exists = |element: &&&str| {
        let mut asked = Command::new("gst-inspect-1.0");
        asked.args(["--exists", element]).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    };
    match elements.iter().find(|element| !exists(element)) {
        Some(element) => lacks(&format!("GStreamer element {element}")),
        None => false,
    }
}

/// Records the calling test as skipped, for want of a program, library or right that is named in `what`. True, always.
///
/// # Panics
///
/// If `CI` is set.
#[track_caller]
pub fn lacks(what: &str) -> bool {
    assert!(env::var_os("CI").is_none(), "{what} is missing, and CI has to have it");
    record(Kind::Program, what);
    true
}

/// Records the calling test as skipped, in whole or in part, for want of nothing that could be installed.
#[track_caller]
pub fn cannot(what: &str) {
    record(Kind::Machine, what);
}

/// The files in `../shared/FOLDER` whose names end with `ending`, in order; none where there is no such folder, and then
/// the calling test is recorded as skipped.
///
/// # Panics
///
/// If the folder is there and has fewer than `known` such files.
#[track_caller]
pub fn shared(folder: &str, ending: &str, known: usize) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(folder);
    let Ok(found) = fs::read_dir(&path) else {
        record(Kind::Folder, &format!("../shared/{folder}"));
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files.sort();
    assert!(
        files.len() >= known,
        "{} has {} files that end with {ending:?}, and {known} are known",
        path.display(),
        files.len()
    );
    record(Kind::Read, &format!("{} of ../shared/{folder}/*{ending}", files.len()));
    files
}

#[track_caller]
fn record(kind: Kind, what: &str) {
    let Some(path) = file() else { return };
    let (run, test) = caller(Location::caller());
    let line = format!("{run}\t{}\t{test}\t{what}\n", kind.name());
    // Tests run beside each other: one write in append mode is one whole line.
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("{}: {error}", path.display());
    }
}

/// For a process that runs one test: the `cargo test` that the test belongs to, and the test's name.
const CALLER: &str = "PANDAPROXY_SKIPS_CALLER";

/// Has `process` record what it skips as the calling test, which is run there.
#[track_caller]
pub fn record_as_caller(process: &mut Command) {
    let (run, test) = caller(Location::caller());
    process.env(CALLER, format!("{run}\t{test}"));
}

/// The process id of the `cargo test` that the calling test belongs to, and the test's name.
fn caller(at: &Location<'_>) -> (u32, String) {
    let given = env::var(CALLER).ok();
    let given = given.as_deref().and_then(|given| given.split_once('\t'));
    let given = given.and_then(|(run, test)| Some((run.parse().ok()?, test.to_owned())));
    given.unwrap_or_else(|| (parent_id(), test_name(at)))
}

/// `BINARY::MODULE::TEST`. Where libtest runs tests on its first thread, that has no test's name, and the line that
/// asked stands in for it.
fn test_name(caller: &Location<'_>) -> String {
    let binary = env::current_exe().ok();
    let binary = binary.as_deref().and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    let binary = binary.rsplit_once('-').map_or(&*binary, |(name, _)| name);
    match thread::current().name() {
        Some(name) if name != "main" => format!("{binary}::{name}"),
        Some(_) | None => format!("{binary}: {}:{}", caller.file(), caller.line()),
    }
}

/// Where it is recorded: `target/PROFILE/skips`, from `target/PROFILE/deps/BINARY`.
fn file() -> Option<PathBuf> {
    let binary = env::current_exe().ok()?;
    Some(binary.parent()?.parent()?.join("skips"))
}

/// Keeps the report in `target/PROFILE/skipped.txt`, for `.ci/run` to show at its end.
///
/// # Errors
///
/// The file cannot be written.
pub fn keep(report: &str) -> io::Result<()> {
    file().map_or(Ok(()), |file| fs::write(file.with_file_name("skipped.txt"), report))
}

/// What tests of the same `cargo test` recorded, each once, in order of the tests' names. The file is emptied.
#[must_use]
pub fn take() -> Vec<Entry> {
    let Some(path) = file() else { return Vec::new() };
    let text = fs::read_to_string(&path).unwrap_or_default();
    // There may be none, if nothing was skipped.
    let _removed = fs::remove_file(&path);
    entries(&text, parent_id())
}

fn entries(text: &str, of: u32) -> Vec<Entry> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    let entry = |line: &str| {
        let mut columns = line.splitn(4, '\t');
        let process: u32 = columns.next()?.parse().ok()?;
        let name = columns.next()?;
        let (kind, _) = Kind::ALL.iter().find(|(_, own)| *own == name)?;
        let (test, what) = (columns.next()?.to_owned(), columns.next()?.to_owned());
        (process == of).then_some(Entry { kind: *kind, test, what })
    };
    lines.into_iter().filter_map(entry).collect()
}

/// The report on these entries: one line for each reason, and one for each folder that was read.
#[must_use]
pub fn report(entries: &[Entry]) -> String {
    let mut text = String::new();
    for (kind, _) in Kind::ALL {
        let of_kind: Vec<&Entry> = entries.iter().filter(|entry| entry.kind == kind).collect();
        let mut whats: Vec<&str> = of_kind.iter().map(|entry| entry.what.as_str()).collect();
        whats.sort_unstable();
        whats.dedup();
        for what in whats {
            let tests: Vec<&str> = of_kind
                .iter()
                .filter(|entry| entry.what == what)
                .map(|entry| entry.test.as_str())
                .collect();
            let count = tests.len();
            let tests = tests.join("; ");
            text += &match kind {
                Kind::Program => format!("{count} skipped: program missing ({what}: {tests})\n"),
                Kind::Folder => format!("{count} skipped: {what} is missing ({tests})\n"),
                Kind::Machine => format!("{count} skipped: {what} ({tests})\n"),
                Kind::Read => format!("read {what} ({tests})\n"),
            };
        }
    }
    let skipped = entries.iter().filter(|entry| entry.kind != Kind::Read).count();
    text + &format!("{skipped} skipped in all\n")
}
