//! The services of this machine that run the program, and the service manager that restarts them.
//!
//! A service counts if its process runs the file that is replaced. Its settings are those that it was started with: its
//! arguments and its environment, as the kernel shows them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use super::failure::Failure;
use crate::config::{Config, Intent};

/// Time for an answer of the service manager, or of a program that prints something.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval at which a child process is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of a child's output that are read: the list of [`MAX_SERVICES`] units with long names, twice.
const MAX_OUTPUT: usize = 16 * 1024;

/// Bytes of a process's arguments or environment that are read.
const MAX_ARGUMENTS: u64 = 256 * 1024;

/// Services at most: one for each printer.
pub(super) const MAX_SERVICES: usize = 16;

/// How services are restarted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceManager {
    Systemd,
    /// A program that takes the service's name before the word: OpenRC's or System V's.
    Named(&'static str),
    /// The service's own script in [`SCRIPTS`].
    Script,
}

/// What ran, and what came of it.
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    /// Standard output, or standard error if that is empty.
    pub(super) text: String,
    /// Whether there may be more of it.
    is_cut: bool,
}

impl Ran {
    /// How it ended, in words.
    pub(super) fn ending(&self) -> String {
        match self.code {
            Some(code) => alloc::format!("exit status {code}"),
            None => "ended by a signal".into(),
        }
    }
}

/// Runs a program for `limit` at most. It has a process group of its own, so that a key pressed at the terminal does not
/// end it.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<Ran, ErrorKind> {
    let end = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| error.kind())?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => thread::sleep(INTERVAL),
            Ok(None) | Err(_) => {
                // It may have ended meanwhile.
                let _killed = child.kill();
                let _status = child.wait();
                return Err(ErrorKind::TimedOut);
            }
        }
    };
    let mut bytes = read(child.stdout.take());
    if bytes.trim_ascii().is_empty() {
        bytes = read(child.stderr.take());
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_string();
    Ok(Ran { code: status.code(), text, is_cut: bytes.len() == MAX_OUTPUT })
}

/// What a child that has ended has written. All of it is in the pipe: what the child has left running may keep that open, and
/// is not waited for.
fn read(from: Option<impl AsRawFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let path = alloc::format!("/proc/self/fd/{}", from.as_raw_fd());
        let mut options = OpenOptions::new();
        if let Ok(pipe) = options.read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            // What was read before an error is used.
            let _read = pipe.take(MAX_OUTPUT as u64).read_to_end(&mut bytes);
        }
    }
    bytes
}

/// Runs a command of a service manager, whose output does not matter: a service that it starts may keep it open.
fn order(program: &str, words: &[&str], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.process_group(0).spawn() else { return false };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < end => thread::sleep(INTERVAL),
            Ok(None) | Err(_) => {
                // It may have ended meanwhile.
                let _killed = child.kill();
                let _status = child.wait();
                return false;
            }
        }
    }
}

/// A service that runs the program.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) config: Config,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Service {
    /// The service of a process.
    fn of(name: &str, pid: u32) -> Result<Self, Failure> {
        let unknown = || Failure::SettingsUnknown(name.into());
        let arguments = Self::arguments(pid);
        let pair = |variable: OsString| {
            let bytes = variable.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let value = OsStr::from_bytes(bytes.get(at + 1..)?);
            Some((OsStr::from_bytes(bytes.get(..at)?).to_os_string(), value.to_os_string()))
        };
        let environment: Vec<_> = strings(pid, "environ").into_iter().filter_map(pair).collect();
        let words = ["pandaproxy", "health"].into_iter().map(OsString::from);
        let value = |key: &str| {
            let found = environment.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.clone())
        };
        match Config::from_args(words.chain(arguments.iter().cloned()), value) {
            Ok(Intent::Health(config, _)) => {
                Ok(Self { name: name.into(), config: *config, arguments, environment })
            }
            Ok(_) | Err(_) => Err(unknown()),
        }
    }

    /// What a process was started with.
    fn arguments(pid: u32) -> Vec<OsString> {
        strings(pid, "cmdline").into_iter().skip(1).collect()
    }

    /// Whether another version of the program accepts the settings; else what it says.
    pub(super) fn is_accepted_by(&self, program: &Path) -> Result<(), String> {
        const BAD_VALUE: i32 = 2;
        let mut command = Command::new(program);
        command.arg("health").args(&self.arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        match run(&mut command, ANSWER_TIMEOUT) {
            Ok(Ran { code: Some(BAD_VALUE), text, .. }) => Err(text),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A file of a process in `/proc` that holds strings with a zero behind each.
fn strings(pid: u32, file: &str) -> Vec<OsString> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(alloc::format!("/proc/{pid}/{file}")) {
        // What was read before an error is used.
        let _read = file.take(MAX_ARGUMENTS).read_to_end(&mut bytes);
    }
    let strings =
        bytes.split(|byte| *byte == 0).map(|string| OsStr::from_bytes(string).to_os_string());
    strings.filter(|string| !string.is_empty()).collect()
}

/// The services that run `bin`, and what restarts them.
#[derive(Default)]
pub(super) struct Services {
    pub(super) manager: Option<ServiceManager>,
    pub(super) all: Vec<Service>,
    /// Whether a process runs the program that is no service.
    pub(super) is_unmanaged: bool,
}

impl Services {
    /// Looks for the services that run `bin`.
    pub(super) fn find(bin: &Path) -> Result<Self, Failure> {
        let is_booted = Path::new(SYSTEMD_RUNS).is_dir();
        if let Some(units) = units(is_booted)? {
            let mut found = Self { manager: Some(ServiceManager::Systemd), ..Self::default() };
            for unit in &units {
                let name = unit.strip_suffix(".service").unwrap_or(unit);
                // One that is not known may be a service that is to be looked after.
                let Some(pid) = main_pid(unit)? else { continue };
                if Self::does_run(name, pid, bin)? {
                    found.push(name, pid)?;
                }
            }
            found.is_unmanaged = found.all.is_empty() && !processes(bin).is_empty();
            return Ok(found);
        }
        let pids = processes(bin);
        let mut found = Self::default();
        for name in scripts() {
            let conf = OsString::from(conf(&name));
            let has_conf = |pid: &&u32| strings(**pid, "cmdline").contains(&conf);
            let Some(pid) = pids.iter().find(has_conf) else { continue };
            let managers = [
                ServiceManager::Named("rc-service"),
                ServiceManager::Named("service"),
                ServiceManager::Script,
            ];
            let runs = |it: &ServiceManager| it.order(&name, "status", ANSWER_TIMEOUT);
            let Some(manager) = managers.into_iter().find(runs) else { continue };
            found.manager = Some(manager);
            found.push(&name, *pid)?;
        }
        found.is_unmanaged = found.all.is_empty() && !pids.is_empty();
        Ok(found)
    }

    /// Whether a unit's process runs `bin`. Another user's cannot be seen.
    fn does_run(unit: &str, pid: u32, bin: &Path) -> Result<bool, Failure> {
        let exe = fs::metadata(alloc::format!("/proc/{pid}/exe"));
        match exe.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            true => Err(Failure::SettingsUnknown(unit.into())),
            false => Ok(runs(pid, bin)),
        }
    }

    fn push(&mut self, name: &str, pid: u32) -> Result<(), Failure> {
        if self.all.len() == MAX_SERVICES {
            return Err(Failure::TooManyServices);
        }
        self.all.push(Service::of(name, pid)?);
        Ok(())
    }

    /// Restarts a service. Whether it starts is seen later.
    pub(super) fn restart(&self, service: &Service) {
        let name = &service.name;
        match self.manager {
            Some(ServiceManager::Systemd) => {
                // It fails where there is nothing to reset.
                let _reset = order("systemctl", &["reset-failed", name], ANSWER_TIMEOUT);
                let _asked = order("systemctl", &["restart", "--no-block", name], ANSWER_TIMEOUT);
            }
            Some(manager) => {
                let _restarted = manager.order(name, "restart", ANSWER_TIMEOUT);
            }
            None => {}
        }
    }

    /// The process of a service, if it runs `bin`.
    pub(super) fn pid(&self, service: &Service, bin: &Path) -> Option<u32> {
        match self.manager? {
            ServiceManager::Systemd => {
                let pid = main_pid(&service.name).ok().flatten();
                pid.filter(|pid| runs(*pid, bin))
            }
            ServiceManager::Named(_) | ServiceManager::Script => {
                let is_same = |pid: &u32| Service::arguments(*pid) == service.arguments;
                processes(bin).into_iter().find(is_same)
            }
        }
    }

    /// Whether the service manager has given a service up: then there is nothing to wait for.
    pub(super) fn has_given_up(&self, service: &Service) -> bool {
        self.manager == Some(ServiceManager::Systemd)
            && order("systemctl", &["is-failed", "--quiet", &service.name], ANSWER_TIMEOUT)
    }
}

impl ServiceManager {
    fn order(self, name: &str, word: &str, limit: Duration) -> bool {
        match self {
            Self::Systemd => order("systemctl", &[word, name], limit),
            Self::Named(program) => order(program, &[name, word], limit),
            Self::Script => order(&alloc::format!("{SCRIPTS}/{name}"), &[word], limit),
        }
    }
}

/// Where systemd is the service manager (`sd_booted`).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Asks systemctl. `None` where there is no systemd: no such program, or one that fails on a machine that it does not run.
fn systemctl(words: &[&str], is_booted: bool) -> Result<Option<Ran>, Failure> {
    match run(Command::new("systemctl").args(words), ANSWER_TIMEOUT) {
        Ok(ran) if ran.code == Some(0) => Ok(Some(ran)),
        Err(ErrorKind::TimedOut) => Err(Failure::ManagerSilent(ANSWER_TIMEOUT.as_secs())),
        Ok(ran) if is_booted && ran.text.is_empty() => Err(Failure::ManagerFails(ran.ending())),
        Ok(ran) if is_booted => Err(Failure::ManagerFails(ran.text)),
        Err(kind) if is_booted => Err(Failure::ManagerFails(kind.to_string())),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// The active units of this program, where systemd runs.
fn units(is_booted: bool) -> Result<Option<Vec<String>>, Failure> {
    let list = ["list-units", "--full", "--plain", "--no-legend", "--state=active"];
    let ours = ["pandaproxy.service", "pandaproxy@*.service"];
    let words: Vec<&str> = list.into_iter().chain(ours).collect();
    let Some(ran) = systemctl(&words, is_booted)? else { return Ok(None) };
    if ran.is_cut {
        return Err(Failure::TooManyServices);
    }
    let units = ran.text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(Some(units.map(String::from).collect()))
}

/// The process of a unit, if it has one.
fn main_pid(unit: &str) -> Result<Option<u32>, Failure> {
    let shown = systemctl(&["show", "--property=MainPID", "--value", unit], true)?;
    Ok(shown.and_then(|ran| ran.text.parse().ok()).filter(|pid| *pid != 0))
}

/// Whether this process runs the file that is at `bin`.
fn runs(pid: u32, bin: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = file(bin);
    own.is_some() && file(Path::new(&alloc::format!("/proc/{pid}/exe"))) == own
}

/// The processes that serve with the file at `bin`: not those of its commands, such as a health check.
fn processes(bin: &Path) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let serves = |pid: &u32| {
        let first = Service::arguments(*pid).into_iter().next();
        first.is_none_or(|word| word.as_bytes().starts_with(b"-"))
    };
    pids.filter(|pid| *pid != std::process::id() && runs(*pid, bin) && serves(pid)).collect()
}

/// Where OpenRC and System V have their scripts.
const SCRIPTS: &str = "/etc/init.d";

/// The names of this program's scripts: `pandaproxy`, and for one of several printers `pandaproxy.NAME` under OpenRC and
/// `pandaproxy-NAME` under System V.
fn scripts() -> impl Iterator<Item = String> {
    let all = fs::read_dir(SCRIPTS).into_iter().flatten().flatten();
    let names = all.filter_map(|script| script.file_name().into_string().ok());
    names.filter(|name| {
        let printer = name.strip_prefix("pandaproxy");
        printer.is_some_and(|it| it.is_empty() || it.starts_with(['.', '-']))
    })
}

/// The settings of a script's service.
fn conf(name: &str) -> String {
    let printer = name.strip_prefix("pandaproxy").unwrap_or_default();
    let printer = printer.get(1..).unwrap_or("pandaproxy");
    alloc::format!("/etc/pandaproxy/{printer}.conf")
}
