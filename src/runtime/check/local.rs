//! This machine, as a check looks at it: who has a port, whether the service runs, and what the kernel allows.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the check of the service's ports | [`health::TIMEOUT`] | they count as another program's |
//! | a table of the kernel | [`MAX_TABLE`](crate::health::kernel::MAX_TABLE) | the rest is not read |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use std::fs;
use std::net::UdpSocket;
use std::time::SystemTime;

use super::disk;
use crate::board::BOARD;
use crate::cause::Cause;
use crate::check::Finding;
use crate::check::status::Status;
use crate::config::Config;
use crate::health::kernel::{listener, text};
use crate::health::{self, Unhealthy};
use crate::memory::{KIB, budget};
use crate::state_dir::pins::Fingerprint;
use crate::tls::Identity;

/// Who has a port of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nothing.
    Free,
    /// The running service.
    Own,
    /// Another program: its name, if it can be read.
    Taken(String),
    /// Another proxy, that of another printer: its process.
    OfOther(u32),
    /// Nothing, and this program may not bind it.
    Privileged,
    /// Another user's program, which may be the running service.
    Hidden,
}

/// Why the running service does not say how the printer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoStatus {
    /// It has no HTTP.
    Off,
    /// Another user's program has this port, and may be the service.
    Hidden(u16),
    /// It did not answer: why, with a hint.
    Failed(String),
}

/// This machine. A test has another one.
pub trait Machine {
    /// Whether the service of this configuration runs here.
    fn is_running(&self) -> bool;

    /// What the running service says about itself, as JSON.
    ///
    /// # Errors
    ///
    /// [`NoStatus`].
    fn status(&self) -> Result<String, NoStatus>;

    /// Who has this port, on which `service` is to listen.
    fn port(&self, config: &Config, service: &str, port: u16) -> PortState;

    /// Whether this machine has this address.
    fn has_address(&self, address: IpAddr) -> bool;

    /// The SHA-256 of the authority of the proxy's certificates, if it has been made.
    fn authority(&self, config: &Config) -> Option<Fingerprint>;

    /// Whether the service is reached at this address; `Err(true)`: another program answers there. `None`: it has no
    /// port that shows who it is.
    fn answers_at(&self, config: &Config, address: IpAddr) -> Option<Result<(), bool>>;

    /// The time.
    fn time(&self) -> SystemTime;

    /// Memory, disk, and limits of the kernel.
    fn resources(&self, config: &Config) -> Finding;
}

/// The machine that this program runs on.
#[derive(Clone, Debug)]
pub struct ThisMachine {
    /// Ports of the running service that have shown that they are its.
    own: heapless::Vec<u16, { health::PORTS }>,
    is_running: bool,
    status: Result<String, NoStatus>,
    /// Whether another user's program has a port, and may be the service.
    is_hidden: bool,
    /// Whether a program has shown that it is not the service of this configuration. One that hangs shows nothing.
    has_other: bool,
}

impl ThisMachine {
    /// Looks whether the service of this configuration runs, for [`health::TIMEOUT`] at most.
    pub fn look(config: &Config) -> Self {
        let mut own = heapless::Vec::new();
        let mut hidden = None;
        let mut has_other = false;
        let is_shown = config.listening().any(|(service, _)| health::has_identity(service));
        for (service, port, answers) in health::ports(config) {
            has_other |= answers.as_ref().is_err_and(Unhealthy::is_other_proxy);
            let is_own = match answers {
                Ok(()) if health::has_identity(service) => true,
                Ok(()) if is_shown => false,
                Err(error) if !error.is_uncertain() => false,
                // No port shows whose it is, or what it shows cannot be judged. To be on the safe side, the printer of a
                // service that may run is not connected to.
                Ok(()) | Err(_) => match listener(config.bind_of(service), port) {
                    // Another machine's, which has the address.
                    None => false,
                    Some(listener) => match holder(listener.inode) {
                        Some((_, name)) => name == own_name(),
                        None => {
                            hidden = hidden.or(Some(port));
                            false
                        }
                    },
                },
            };
            if is_own {
                // It fits: there is an element for each port.
                let _fits = own.push(port);
            }
        }
        let is_running = !own.is_empty() || hidden.is_some();
        let status = if is_running { ask_status(config) } else { Err(NoStatus::Off) };
        let is_other =
            |text: &String| Status::new(text).serial() != Some(config.serial.to_string());
        if !is_shown && status.as_ref().is_ok_and(is_other) {
            // That of another printer.
            let status = Err(NoStatus::Off);
            let own = heapless::Vec::new();
            return Self { own, is_running: false, status, is_hidden: false, has_other: true };
        }
        let is_hidden = hidden.is_some();
        let status = status.map_err(|why| hidden.map_or(why, NoStatus::Hidden));
        Self { own, is_running, status, is_hidden, has_other }
    }
}

/// What the HTTP service of this configuration says about itself.
fn ask_status(config: &Config) -> Result<String, NoStatus> {
    if !config.services.http {
        return Err(NoStatus::Off);
    }
    let mut status = Vec::new();
    let shown = health::show_status(config, true, &mut status);
    shown.map_err(|error| NoStatus::Failed(format!("{error}")))?;
    String::from_utf8(status).map_err(|_| NoStatus::Failed("its status is no text".into()))
}

impl Machine for ThisMachine {
    fn is_running(&self) -> bool {
        self.is_running
    }

    fn status(&self) -> Result<String, NoStatus> {
        self.status.clone()
    }

    fn port(&self, config: &Config, service: &str, port: u16) -> PortState {
        if self.own.contains(&port) {
            return PortState::Own;
        }
        let Some(listener) = listener(config.bind_of(service), port) else {
            let is_denied = port < first_free_port() && !self.is_running() && !may_bind_any();
            return if is_denied { PortState::Privileged } else { PortState::Free };
        };
        match holder(listener.inode) {
            // Of a port that does not show whose it is, the program's name tells.
            Some((_, name))
                if self.is_running() && name == own_name() && !health::has_identity(service) =>
            {
                PortState::Own
            }
            None if self.is_hidden => PortState::Hidden,
            None if self.is_running() && !health::has_identity(service) => PortState::Own,
            Some((pid, name)) if self.has_other && name == own_name() => PortState::OfOther(pid),
            Some((pid, name)) => PortState::Taken(format!("{name}, pid {pid}")),
            None => PortState::Taken("run as root to see which".into()),
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        // Only then a socket can be bound to it.
        UdpSocket::bind((address, 0)).is_ok()
    }

    fn authority(&self, config: &Config) -> Option<Fingerprint> {
        Identity::ca_in(&config.ca_dir).ok().map(|(_, sha256)| sha256)
    }

    fn answers_at(&self, config: &Config, address: IpAddr) -> Option<Result<(), bool>> {
        let mut shown = config
            .listening()
            .filter(|(service, port)| health::has_identity(service) && self.own.contains(port));
        let (service, port) = shown.next()?;
        match health::answers(config, service, (address, port).into(), health::deadline()) {
            // What it should show cannot be read here.
            Err(error) if error.is_uncertain() => None,
            answer => Some(answer.map_err(|error| error.is_foreign())),
        }
    }

    fn time(&self) -> SystemTime {
        SystemTime::now()
    }

    fn resources(&self, config: &Config) -> Finding {
        let mut found = Vec::new();
        let mut finding: Option<Finding> = None;
        let mut note = |worse: Finding| {
            finding = Some(finding.take().map_or(worse.clone(), |before| before.or_worse(worse)));
        };
        let needed = budget::TOTAL;
        if let Some(available) = available_memory() {
            let mib = format!("{} MiB", available / KIB / KIB);
            if !self.is_running() && available < needed {
                note(Finding::warning(&Cause::MEMORY.with(&mib)));
            }
            let needed = needed.div_ceil(KIB * KIB);
            found.push(format!("{mib} of memory available, at most {needed} MiB needed"));
        }
        if let Some(open) = max_open_files() {
            let clients = BOARD.clients;
            // A file transfer has four: control and data, on both sides.
            let connections =
                clients.mqtt + clients.chamber + clients.rtsp + clients.http + 4 * clients.ftp;
            if open < 2 * connections + FURTHER_FILES {
                note(Finding::warning(&Cause::OPEN_FILES.with(open)));
            }
            found.push(format!("{open} open files allowed"));
        }
        // Another user's service writes there itself.
        let (wrong, words) = disk::state_dir(&config.state_dir, !self.is_hidden);
        if let Some(wrong) = wrong {
            note(wrong);
        } else if !words.is_empty() {
            found.push(words);
        }
        if let Some(wrong) = disk::program_dir() {
            note(wrong);
        }
        finding.unwrap_or_else(|| Finding::good(found.join(", ")))
    }
}

/// This program's name in the kernel's table: the service's as well, also where the binary was renamed or is emulated.
fn own_name() -> String {
    program_name("self")
}

/// The name of a process in the kernel's table.
fn program_name(process: impl fmt::Display) -> String {
    let name = text(&format!("/proc/{process}/comm"));
    name.trim().chars().filter(|c| !c.is_control()).collect()
}

/// Open files beside connections: listeners, the log, epoll.
const FURTHER_FILES: usize = 48;

/// The process that has this socket, and its name, where `/proc` lets this program see it.
fn holder(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| link.as_os_str() == wanted.as_str()) {
            return Some((pid, program_name(pid)));
        }
    }
    None
}

/// The lowest port that every program may bind.
fn first_free_port() -> u16 {
    text("/proc/sys/net/ipv4/ip_unprivileged_port_start").trim().parse().unwrap_or(1024)
}

/// Whether this program may bind every port: `CAP_NET_BIND_SERVICE`, which root has.
fn may_bind_any() -> bool {
    const CAP_NET_BIND_SERVICE: u32 = 10;
    let status = text("/proc/self/status");
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set >> CAP_NET_BIND_SERVICE & 1 == 1)
}

/// Bytes of memory that programs can have, of this machine or of this container.
fn available_memory() -> Option<usize> {
    let table = text("/proc/meminfo");
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    let limit = text("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(usize::MAX);
    Some((kib * KIB).min(limit))
}

/// Files that this process may have open.
fn max_open_files() -> Option<usize> {
    let table = text("/proc/self/limits");
    let line = table.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
