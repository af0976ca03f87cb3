//! The installation of an update: the new program takes the old one's place, and is judged while it serves.
//!
//! At every moment there is a program at the path of the old one that runs: the old one or the new one, which is put there
//! by one `rename` after it was verified, synced, and run. The old one stays beside it as `pandaproxy.old`.
//!
//! # An update that is interrupted
//!
//! The file `pandaproxy.updating` is there and locked while an update runs. Once the old program is kept, the file has a
//! word in it, until the new program has passed its trial or the old one is back. A file with a word that no process has
//! locked is an update that a power loss or a signal has ended, or whose old program could not be put back: before a service
//! starts, its unit or script runs `pandaproxy.old update --resume`, which puts the old program back and has the marker
//! locked meanwhile. That is the old program's work, since the new one may not even start. Services that start together
//! take turns at it, by a lock of `pandaproxy.old`: none starts before the old program is back.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the trial | `--within` | the old program is put back |
//! | the start of the old one after that | `RETURN_TIMEOUT` | reported |
//! | the wait for another `--resume` | `RETURN_TIMEOUT` | the marker alone decides |
//! | an answer of the service manager or of the new program | `ANSWER_TIMEOUT` | it counts as failed |
//! | services | `MAX_SERVICES` | the update is refused |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::failure::Failure;
use super::services::{ANSWER_TIMEOUT, Ran, Service, Services, run};
use super::source::{Source, beside, sync_dir, write};
use super::version::{self, Step};
use crate::config::Update;
use crate::health;
use crate::memory::KIB;
use crate::state_dir::Cause;
use crate::state_dir::space::Space;

/// Time for the old program to become ready again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval at which the services are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Interval at which a lock is tried again.
const TURN_INTERVAL: Duration = Duration::from_millis(20);

/// Time for which a service has to stay ready.
const STABLE_TIME: Duration = Duration::from_secs(3);

/// Word in the marker while the new program is on trial.
const TRIAL: &[u8] = b"trial\n";

/// A stage of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The file's signature, board and version.
    File,
    /// The services that run.
    Services,
    /// The new program beside the old one.
    Copy,
    /// What the new program is.
    Program,
    /// The new program in the old one's place.
    Replace,
    /// The new program as a service.
    Trial,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Services => "services",
            Self::Copy => "copy",
            Self::Program => "program",
            Self::Replace => "replace",
            Self::Trial => "trial",
        }
    }
}

/// A stage that has ended well. `Display` is its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    stage: Stage,
    /// Whether it was left out.
    is_skipped: bool,
    text: String,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, is_skipped, text } = self;
        let mark = if *is_skipped { "-" } else { "✓" };
        write!(f, "{mark} {} {:<9} {text}", *stage as u8 + 1, stage.name())
    }
}

/// What is shown and done while an update runs.
pub trait Progress {
    /// A stage has ended well.
    fn passed(&mut self, passed: &Passed);

    /// From now on signals are not to end the process.
    fn hold_signals(&mut self);
}

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The new program serves, or would.
    Good,
    /// Nothing was changed.
    Failed(Failure),
    /// The new program failed, and the old one is back.
    Returned {
        /// Why.
        why: String,
        /// How the old one is.
        old: String,
    },
    /// The new program failed and is still there: it is replaced by the old one before the next start.
    Stuck {
        /// Why it failed.
        why: String,
        /// Why the old one could not be put back.
        cause: Cause,
    },
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("updated"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::Returned { why, old } => write!(f, "{why}; the old version is back, {old}"),
            Self::Stuck { why, cause } => write!(
                f,
                "{why}; the old version could not be put back: {cause}; it is put back at the next start"
            ),
        }
    }
}

/// The path of the program, also where its kept copy runs.
fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::io("find", Path::new("the path of this program"), &error))?;
    let name = own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(match name.strip_suffix(".old") {
        Some(name) => own.with_file_name(name),
        None => own,
    })
}

/// Puts the program of a verified file in the place of `bin`, which runs as these services.
pub(super) fn install(
    update: &Update,
    mut source: Source,
    installed: &str,
    is_dry: bool,
    progress: &mut dyn Progress,
) -> Result<(), Ended> {
    let passed = |progress: &mut dyn Progress, stage, is_skipped, text: String| {
        progress.passed(&Passed { stage, is_skipped, text });
    };
    let bin = program()?;
    let header = source.header.clone();
    let (board, to) = (&header.board, &header.version);
    let step = version::step(&header, installed, update.allows_downgrade).map_err(Failure::from)?;
    let key = format!("{}", header.signer);
    let key = key.get(..16).unwrap_or_default();
    let text = format!("board {board}, version {to}, {} bytes, signed by key {key}…", header.size);
    passed(progress, Stage::File, false, text);
    if step == Step::Nothing {
        let text = format!("version {to} is installed already: nothing to do");
        passed(progress, Stage::Program, true, text);
        return Ok(());
    }
    check_place(&bin)?;

    let services = Services::find(&bin)?;
    let before: Vec<Reach> = services.all.iter().map(Reach::of).collect();
    let shown = shown(&services, &before);
    check_room(&bin, header.size)?;
    passed(progress, Stage::Services, services.all.is_empty(), shown);
    if is_dry {
        source.copy(|_| Ok(()))?;
        let text = format!("content verified; {} would be replaced", bin.display());
        passed(progress, Stage::Copy, true, text);
        return Ok(());
    }

    let marker = Marker::take(&bin)?;
    let mode = fs::metadata(&bin).map_or(0o755, |found| found.permissions().mode() & 0o777);
    let new = write(&mut source, beside(&bin, ".new"), mode | 0o500)?;
    passed(progress, Stage::Copy, false, format!("{}, SHA-256 as signed", new.path.display()));

    let text = try_out(&new.path, &format!("pandaproxy {to} (board {board})"))?;
    for service in &services.all {
        let accepted = service.is_accepted_by(&new.path);
        accepted.map_err(|text| Failure::Settings(service.name.clone(), text))?;
    }
    let shown = if services.all.is_empty() { "" } else { "; it accepts the settings" };
    passed(progress, Stage::Program, false, format!("{text}{shown}"));

    progress.hold_signals();
    let old = beside(&bin, ".old");
    let kept = keep(&bin, &old).and_then(|()| marker.begin_trial());
    kept.map_err(|error| Failure::io("write", &old, &error))?;
    if let Err(failure) = new.rename(&bin) {
        // Whether it was renamed or not: the old one is at its place after this.
        put_back(&bin, &failure)?;
        marker.end();
        return Err(failure.into());
    }
    let text = format!("{}; the old version is {}", bin.display(), old.display());
    passed(progress, Stage::Replace, false, text);

    if services.all.is_empty() {
        marker.end();
        let text = match services.is_unmanaged {
            true => "a running process is no service; restart it by hand",
            false => "no service runs it: not tried",
        };
        passed(progress, Stage::Trial, true, text.into());
        return Ok(());
    }
    match trial(&services, &before, &bin, update.within) {
        Ok(seconds) => {
            marker.end();
            let text = format!("ready after {seconds} s, {}", judged(&before));
            passed(progress, Stage::Trial, false, text);
            Ok(())
        }
        Err(why) => {
            put_back(&bin, &why)?;
            let nothing = alloc::vec![Reach::Unknown; services.all.len()];
            let old = match trial(&services, &nothing, &bin, RETURN_TIMEOUT) {
                Ok(_) => "and ready".into(),
                Err(why) => format!("and not ready either: {why}"),
            };
            marker.end();
            Err(Ended::Returned { why, old })
        }
    }
}

/// Puts the old program back. Where that fails, the marker has to stay: it has this done before the next start.
fn put_back(bin: &Path, why: &dyn fmt::Display) -> Result<(), Ended> {
    restore(bin).map_err(|error| Ended::Stuck { why: format!("{why}"), cause: Cause::of(&error) })
}

/// Whether the program is that of a container's image, which has nothing else.
pub fn is_container(bin: &Path) -> bool {
    bin == Path::new("/pandaproxy")
}

/// Bytes that an update of a program needs beside it, which has `size` of them: the new one, and the old one, which is kept.
/// Where the file system has links the old one takes no further space, and the way back needs none.
pub const fn room_for(size: u64) -> u64 {
    /// The marker, and what directories grow by.
    const FURTHER: u64 = 64 * KIB as u64;
    size.saturating_mul(2).saturating_add(FURTHER)
}

/// Whether this program is the one to update `bin`.
fn check_place(bin: &Path) -> Result<(), Failure> {
    const DPKG: &str = "/var/lib/dpkg/info/pandaproxy.list";
    if is_container(bin) {
        return Err(Failure::Container);
    }
    let owned = fs::read_to_string(DPKG).unwrap_or_default();
    if owned.lines().any(|path| Path::new(path) == bin) {
        return Err(Failure::Package(bin.into()));
    }
    Ok(())
}

/// Whether there is room for a program of `size` bytes beside `bin`.
fn check_room(bin: &Path, size: u64) -> Result<(), Failure> {
    let dir = bin.parent().unwrap_or(Path::new("/"));
    // Where that is not known, writing finds out.
    let Ok(Space { bytes: free, is_read_only: false, .. }) = Space::at(dir) else { return Ok(()) };
    let needed = room_for(size);
    match free < needed {
        true => Err(Failure::NoRoom { dir: dir.into(), free, needed }),
        false => Ok(()),
    }
}

/// How a service is with its printer before the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    With,
    Without,
    /// The service does not tell: it has no HTTP.
    Unknown,
}

impl Reach {
    fn of(service: &Service) -> Self {
        match health::check_printer(&service.config) {
            Ok(()) => Self::With,
            Err(error) if error.is_without_http() => Self::Unknown,
            Err(_) => Self::Without,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::With => "with its printer",
            Self::Without => "without its printer",
            Self::Unknown => "without http it does not tell about its printer",
        }
    }
}

/// How the services are before the update.
fn shown(services: &Services, before: &[Reach]) -> String {
    if services.all.is_empty() {
        return match services.is_unmanaged {
            true => "a process runs the program, and is no service".into(),
            false => "none runs this program".into(),
        };
    }
    let mut text = String::new();
    for (service, reach) in services.all.iter().zip(before) {
        let comma = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{comma}{} ({})", service.name, reach.words()));
    }
    text
}

/// What a trial that has ended well says about the printers.
fn judged(before: &[Reach]) -> &'static str {
    if before.contains(&Reach::Unknown) {
        "and as before with the printer where that is known"
    } else {
        "and as before with the printer"
    }
}

/// Runs the new program once.
fn try_out(program: &Path, expected: &str) -> Result<String, Failure> {
    let why = match run(Command::new(program).arg("--version"), ANSWER_TIMEOUT) {
        Ok(Ran { code: Some(0), text, .. }) if text == expected => return Ok(text),
        Ok(Ran { code: Some(0), .. }) => return Err(Failure::OtherProgram(expected.into())),
        Ok(ran) => ran.ending(),
        Err(ErrorKind::TimedOut) => "no end within 20 s".into(),
        // Of another processor, or no program at all. This error has no `ErrorKind` of its own.
        Err(kind) if kind == io::Error::from_raw_os_error(libc::ENOEXEC).kind() => {
            "it cannot be executed".into()
        }
        Err(kind) => format!("{kind}"),
    };
    Err(Failure::DoesNotRun(why))
}

/// Restarts the services, and waits until all are ready with the program at `bin`, and with their printers where they were
/// `before`. Returns the seconds that it took, or why one is not ready.
fn trial(
    services: &Services,
    before: &[Reach],
    bin: &Path,
    within: Duration,
) -> Result<u64, String> {
    let begun = Instant::now();
    services.all.iter().for_each(|service| services.restart(service));
    let end = begun + within;
    // Since when all are ready, and their processes.
    let mut since: Option<(Instant, Vec<u32>)> = None;
    loop {
        let look = |(service, before): (&Service, &Reach)| {
            look(services, service, *before == Reach::With, bin)
        };
        let looked: Result<Vec<u32>, String> = services.all.iter().zip(before).map(look).collect();
        let now = Instant::now();
        match looked {
            Ok(pids) => match &since {
                Some((first, same)) if *same == pids => {
                    if now.duration_since(*first) >= STABLE_TIME {
                        return Ok(first.duration_since(begun).as_secs());
                    }
                }
                Some(_) | None => since = Some((now, pids)),
            },
            Err(why) => {
                since = None;
                let given_up = services.all.iter().any(|service| services.has_given_up(service));
                if given_up || now >= end {
                    return Err(why);
                }
            }
        }
        if now >= end + STABLE_TIME {
            return Err("the new version is restarted again and again".into());
        }
        thread::sleep(INTERVAL);
    }
}

/// The process of a service that is ready, or why it is not.
fn look(services: &Services, service: &Service, with: bool, bin: &Path) -> Result<u32, String> {
    let name = &service.name;
    let pid = services.pid(service, bin).ok_or_else(|| format!("{name} does not run"))?;
    let unhealthy = |why| format!("{name} is not ready: {why}");
    health::check(&service.config).map_err(unhealthy)?;
    if with {
        health::check_printer(&service.config).map_err(unhealthy)?;
    }
    Ok(pid)
}

/// Gives a file a second name, which is replaced at once. Where the file system has no links it is copied.
pub(super) fn keep(from: &Path, to: &Path) -> io::Result<()> {
    let part = beside(to, ".new");
    remove(&part)?;
    let kept = double(from, &part).and_then(|()| fs::rename(&part, to));
    // It is still there after a failure, and where both were one file already: then renaming does nothing.
    let removed = remove(&part);
    kept.and(removed)?;
    sync_dir(to)
}

fn double(from: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts the old program back.
fn restore(bin: &Path) -> io::Result<()> {
    keep(&beside(bin, ".old"), bin)
}

/// The file that is there while an update runs.
pub(super) struct Marker {
    path: PathBuf,
    /// Locked (flock); the system unlocks it at the end of the process at the latest.
    file: File,
    /// Whether it has the word of an update that was interrupted.
    has_word: bool,
}

impl Marker {
    /// Begins an update.
    fn take(bin: &Path) -> Result<Self, Failure> {
        let path = beside(bin, ".updating");
        let mut options = OpenOptions::new();
        // Nobody else may lock it: that would look like an update that runs.
        options.create(true).read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(|error| Failure::io("write", &path, &error))?;
        let marker = Self::lock(file, path)?;
        match marker.has_word {
            true => Err(Failure::interrupted(bin)),
            false => Ok(marker),
        }
    }

    /// Locks the file that was opened at `path`.
    pub(super) fn lock(mut file: File, path: PathBuf) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io("write", &path, &error);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Failure::Busy),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The update that had locked it has removed it meanwhile: this is no longer the file that others find.
        if file.metadata().map_err(failed)?.nlink() == 0 {
            return Err(Failure::Busy);
        }
        let has_word = file.read(&mut [0]).map_err(failed)? > 0;
        Ok(Self { path, file, has_word })
    }

    /// From now on an interrupted update is undone.
    fn begin_trial(&self) -> io::Result<()> {
        (&self.file).write_all(TRIAL)?;
        self.file.sync_all()?;
        sync_dir(&self.path)
    }

    /// The program at its place is the one that stays.
    fn end(&self) {
        // A marker that stays brings the old program back at the next start.
        let _removed = self.remove();
    }

    fn remove(&self) -> io::Result<()> {
        remove(&self.path).and_then(|()| sync_dir(&self.path))
    }
}

/// An update that fails before its trial leaves no marker behind.
impl Drop for Marker {
    fn drop(&mut self) {
        let is_empty = self.file.metadata().is_ok_and(|found| found.len() == 0);
        if is_empty {
            self.end();
        }
    }
}

/// Puts the old program back if an update was interrupted. Returns what was done.
pub(super) fn resume() -> Result<&'static str, Failure> {
    resume_at(&program()?)
}

/// The same for the program at `bin`.
pub(super) fn resume_at(bin: &Path) -> Result<&'static str, Failure> {
    // One after another: until the last, none returns before the old program is back. An update does not lock this.
    let _turn = File::open(beside(bin, ".old")).ok().inspect(wait_for_turn);
    let path = beside(bin, ".updating");
    let mut options = OpenOptions::new();
    let file = match options.read(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok("no update was interrupted");
        }
        Err(error) => return Err(Failure::io("write", &path, &error)),
    };
    let marker = match Marker::lock(file, path.clone()) {
        // Its process looks after it.
        Err(Failure::Busy) => return Ok("an update is running"),
        other => other?,
    };
    if !marker.has_word {
        // It was ended before anything was replaced.
        for part in [beside(bin, ".new"), beside(&beside(bin, ".old"), ".new")] {
            let _removed = remove(&part);
        }
        return Ok("the update was interrupted before anything was replaced");
    }
    let restored = restore(bin);
    restored.map_err(|error| match error.kind() == ErrorKind::NotFound {
        true => Failure::interrupted(bin),
        false => Failure::io("write", bin, &error),
    })?;
    marker.remove().map_err(|error| Failure::io("write", &path, &error))?;
    Ok("the update was interrupted; the old version is back")
}

/// Locks the file when no other process has it locked any more, and goes on without after [`RETURN_TIMEOUT`].
fn wait_for_turn(file: &File) {
    let end = Instant::now() + RETURN_TIMEOUT;
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && Instant::now() < end {
        thread::sleep(TURN_INTERVAL);
    }
}
