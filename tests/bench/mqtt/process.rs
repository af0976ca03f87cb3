//! The two programs that are measured, as child processes, seen through `/proc`.
//!
//! CPU time is the scheduler's own account in nanoseconds (`schedstat`, summed over the threads);
//! `utime` and `stime` come in steps of ten milliseconds, which a delivery takes a hundredth of.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{AUTHORITY, CODE};

#[allow(clippy::duplicate_mod, reason = "one of the benchmarks has all clients, with their ports")]
#[path = "../../support/clients/ports.rs"]
#[allow(dead_code, reason = "not every benchmark needs a port that refuses")]
pub(crate) mod ports;

/// Where Debian has it; elsewhere it is looked for in `PATH`.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// A child; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    /// What it says on standard error.
    said: PathBuf,
}

#[allow(dead_code, reason = "not every benchmark looks at all of it")]
/// What a process has in memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    /// The most it ever had.
    pub(crate) most: u64,
}

#[allow(dead_code, reason = "not every benchmark looks at all of it")]
impl Process {
    /// Starts one that writes what it has to say into `said`.
    pub(crate) fn start(command: &mut Command, said: PathBuf) -> io::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said)?)
            .spawn()?;
        Ok(Self { child, said })
    }

    /// The proxy of this build before a printer on `printer_ports`, listening on `ports` for one service.
    pub(crate) fn proxy(
        serial: &str,
        service: &str,
        printer_ports: &str,
        ports: &str,
        state: &Path,
    ) -> io::Result<Self> {
        let mut command = Self::command(serial, service, printer_ports, ports, state);
        Self::start(command.arg("--bind=127.0.0.1"), state.join("pandaproxy.log"))
    }

    /// The same, to be given an address to listen on, and to be started.
    pub(crate) fn command(
        serial: &str,
        service: &str,
        printer_ports: &str,
        ports: &str,
        state: &Path,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pandaproxy"));
        command
            .env("ACCESS_CODE", CODE)
            .arg("--printer-ip=127.0.0.1")
            .arg(format!("--serial-number={serial}"))
            .arg(format!("--services={service}"))
            .arg(format!("--port={ports},rtsp=0"))
            .arg(format!("--printer-port={printer_ports}"))
            .arg(format!("--printer-ca={AUTHORITY}"))
            .arg(format!("--state-dir={}", state.display()));
        command
    }

    /// `mosquitto` as a bridge to a printer on `printer_port`, listening on `port` with the same
    /// certificate and key as the proxy whose state directory is `state`.
    ///
    /// # Errors
    ///
    /// It is not installed, or cannot be started.
    pub(crate) fn mosquitto(
        serial: &str,
        printer_port: u16,
        port: u16,
        state: &Path,
    ) -> io::Result<Self> {
        let given = state.join("mosquitto.conf");
        // No checks of passwords, no files, no `$SYS`, no log and no Nagle: it can be no faster.
        let text = format!(
            "user root\n\
             persistence false\n\
             log_dest none\n\
             sys_interval 0\n\
             set_tcp_nodelay true\n\
             allow_anonymous true\n\
             listener {port} 127.0.0.1\n\
             certfile {state}/ecdsa.pem\n\
             keyfile {state}/ecdsa.key\n\
             connection printer\n\
             address 127.0.0.1:{printer_port}\n\
             bridge_cafile {AUTHORITY}\n\
             bridge_insecure true\n\
             bridge_protocol_version mqttv311\n\
             remote_username bblp\n\
             remote_password {CODE}\n\
             remote_clientid bridge\n\
             try_private false\n\
             notifications false\n\
             cleansession true\n\
             restart_timeout 1\n\
             topic report in 0 device/{serial}/ device/{serial}/\n\
             topic request out 0 device/{serial}/ device/{serial}/\n",
            state = state.display(),
        );
        fs::write(&given, text)?;
        let known = if Path::new(MOSQUITTO).exists() { MOSQUITTO } else { "mosquitto" };
        Self::start(Command::new(known).arg("-c").arg(given), state.join("mosquitto.log"))
    }

    /// CPU time it ever used, in the kernel's part and its own.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(self.of("task")).into_iter().flatten().flatten();
        let spent: u64 = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum();
        Duration::from_nanos(spent)
    }

    /// What it has in memory.
    pub(crate) fn resident(&self) -> Resident {
        let status = fs::read_to_string(self.of("status")).unwrap_or_default();
        let kib = |name| number_after(&status, name).unwrap_or(0);
        Resident { now: kib("VmRSS:"), most: kib("VmHWM:") }
    }

    /// The most its heap ever held, in KiB, as the proxy tells it when asked by SIGUSR1.
    pub(crate) async fn heap_peak(&self) -> Option<u64> {
        let told = || fs::read_to_string(&self.said).unwrap_or_default();
        let before = told().len();
        let line = format!("kill -USR1 {}", self.child.id());
        Command::new("sh").arg("-c").arg(line).status().ok().filter(|status| status.success())?;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let all = told();
            let fresh = all.get(before..).unwrap_or_default();
            if let Some((_, heap)) = fresh.rsplit_once("heap: ")
                && heap.ends_with('\n')
            {
                return number_after(heap, "peak ");
            }
        }
        None
    }

    /// What it has said, for when it does not come up.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn of(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A loopback port that nothing listens on, and that no test and no other benchmark gets.
pub(crate) fn free_port() -> u16 {
    *ports::block(&[Ipv4Addr::LOCALHOST]).start()
}

/// The number that follows `name` and blanks.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
