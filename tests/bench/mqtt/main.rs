//! What a delivery costs: `BOARD=generic-x86_64 cargo bench --bench mqtt`.
//!
//! ```text
//!                    ┌─ a subscriber                                          (direct)
//!   this process ────┼─ pandaproxy ─── 1, 8, 32, 64 subscribers               (the binary of this build)
//!   three printers   └─ mosquitto ──── as many, of the same kind              (as a bridge)
//! ```
//!
//! The simulated printers and the subscribers are in this process, on three threads. The proxy is the
//! real binary, and `mosquitto` (a Debian package) a bridge between the same ends. Without it, half of
//! the table is missing.
//!
//! # What is the same for both
//!
//! The reports, their number and their pace; the subscribers, with TLS 1.3, AES-128-GCM and one P-256
//! certificate; the printer, an A1 mini, with TLS 1.2, AES-256-GCM and records of 4 KiB. Runs take
//! turns, and what is shown is their median, so that a busy machine is busy for both.
//!
//! # What is measured
//!
//! - CPU: what the scheduler has charged the process with, from before the first report until the last
//!   delivery, over the deliveries. Reports are spaced: none has to wait for the one before.
//! - Latency: from before the printer writes until a subscriber has read, one report at a time. That
//!   subscriber is in the middle of the others by age, and alone on its thread. What is *added* is
//!   what remains over a subscriber that is connected to the printer itself, which goes in turn with
//!   the others.
//! - Memory: the most the process ever had (`VmHWM`), and the most that the proxy's heap ever held.
//!
//! It takes less than three minutes and judges nothing: a machine may be slow. At the end it says which
//! aims this run has met.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | starting, joining | half a minute each | it ends and says what the program said |
//! | the deliveries of one run | two seconds after its last report | counted as lost |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot go on should say so and stop"
)]

#[path = "../../support/clients/anybody.rs"]
mod anybody;
#[path = "../../support/clients/mod.rs"]
mod clients;
#[path = "../harness.rs"]
mod harness;
mod payload;
mod process;
mod readers;
mod table;

use core::cell::Cell;
use core::fmt::Display;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use pandaproxy::board::BOARD;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

use payload::{DELTA, Payload, Stamp};
use printer::{Model, Printer};
use process::{Process, Resident, free_port};
use readers::{Order, Readers, Tally};
use table::{Crowd, Latency, Row, Slots, Table};

const CODE: &str = "12345678";

/// Who signed the printers' certificates.
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");

/// Subscribers, and how their reports are spaced: the deliveries of a run stay about the same.
const CROWDS: [Load; 4] = [
    Load { subscribers: 1, reports: 400, gap: Duration::from_millis(2) },
    Load { subscribers: 8, reports: 160, gap: Duration::from_millis(5) },
    Load { subscribers: 32, reports: 60, gap: Duration::from_millis(15) },
    Load { subscribers: 64, reports: 40, gap: Duration::from_millis(25) },
];

/// One run.
#[derive(Clone, Copy)]
struct Load {
    subscribers: usize,
    reports: u32,
    gap: Duration,
}

/// Runs of each kind for each program.
const ROUNDS: usize = 5;

/// Reports of each kind whose way is timed, for each program.
const TIMED: usize = 250;

/// Bytes in a full state.
const FULL: usize = 16 * 1024;

/// Reports sent at once when all slots are busy, of each kind.
const BURST: usize = 40;

/// How long the last deliveries of a run may take.
const LATE: Duration = Duration::from_secs(2);

/// How long a program may take to start; the proxy makes its RSA key first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the programs are left alone before their memory is looked at.
const SETTLE: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    harness::run("mqtt", |folder| {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(measure(folder)).map(|table| println!("{table}"))
    })
}

/// A way from a printer to subscribers.
struct Side {
    name: &'static str,
    printer: Printer,
    /// Where its subscribers connect.
    port: u16,
    process: Option<Process>,
    tally: Arc<Tally>,
    joined: Cell<usize>,
}

impl Side {
    fn is_direct(&self) -> bool {
        self.process.is_none()
    }

    fn cpu(&self) -> Duration {
        self.process.as_ref().map_or(Duration::ZERO, Process::cpu)
    }

    fn resident(&self) -> Resident {
        self.process.as_ref().map_or(Resident { now: 0, most: 0 }, Process::resident)
    }
}

/// What all measurements share.
struct Bench {
    began: Instant,
    /// The last report's number.
    number: u64,
    /// How often subscribers were assembled.
    crowds: u32,
    /// The one subscriber of each side whose latency is noted.
    probes: Readers,
    others: Readers,
    full: Payload,
    delta: Payload,
}

/// A full state or a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    Delta,
}

async fn measure(folder: &Path) -> io::Result<Table> {
    let direct = simulated().await?;
    let direct = side("direct", direct, None).await?;
    let (proxy, mosquitto) = start_both(folder).await?;
    sleep(SETTLE).await;
    let idle = proxy.resident().now;
    let idle_mosquitto = mosquitto.as_ref().map(|side| side.resident().now);

    let state = proxy.printer.last_full().expect("the proxy has asked for the full state");
    let mut bench = Bench {
        began: Instant::now(),
        number: 0,
        crowds: 0,
        probes: Readers::start(),
        others: Readers::start(),
        full: Payload::like(&state),
        delta: Payload::like(DELTA),
    };
    let bytes = [bench.full.len(), bench.delta.len()];
    let sides: Vec<&Side> =
        [Some(&direct), Some(&proxy), mosquitto.as_ref()].into_iter().flatten().collect();
    let mut crowds = Vec::new();
    for load in CROWDS.into_iter().filter(|load| load.subscribers <= BOARD.clients.mqtt) {
        bench.assemble(&sides, load.subscribers).await?;
        eprintln!("{} subscribers", load.subscribers);
        crowds.push(bench.crowd(&sides, load).await);
    }
    let slots = bench.fill(&proxy).await?;
    Ok(Table { bytes, idle, idle_mosquitto, crowds, slots })
}

impl Bench {
    /// One more subscriber of a side.
    async fn join(&self, side: &Side, notes: bool) -> io::Result<()> {
        let joined = side.joined.get() + 1;
        let order = Order {
            port: side.port,
            id: format!("subscriber-{}-{joined}", self.crowds),
            topic: side.printer.report_topic(),
            direct: side.is_direct(),
            notes,
            after: self.number,
            began: self.began,
            tally: Arc::clone(&side.tally),
        };
        let readers = if notes { &self.probes } else { &self.others };
        let what = |error| said(side, format_args!("subscriber {joined} cannot join: {error}"));
        readers.join(order).await.map_err(what)?;
        side.joined.set(joined);
        Ok(())
    }

    /// Lets everybody leave, and gives each side new subscribers; the direct one has but one.
    async fn assemble(&mut self, sides: &[&Side], subscribers: usize) -> io::Result<()> {
        (self.probes, self.others) = (Readers::start(), Readers::start());
        self.crowds += 1;
        for side in sides {
            side.joined.set(0);
            while side.tally.open() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        // They have left; it takes the programs a moment to notice.
        sleep(Duration::from_millis(200)).await;
        for side in sides {
            self.gather(side, if side.is_direct() { 1 } else { subscribers }).await?;
        }
        Ok(())
    }

    /// Gives a side more subscribers, up to so many. The one in their middle is timed.
    async fn gather(&self, side: &Side, subscribers: usize) -> io::Result<()> {
        for joined in side.joined.get()..subscribers {
            self.join(side, joined == subscribers / 2).await?;
        }
        Ok(())
    }

    fn send(&mut self, side: &Side, kind: Kind) {
        self.number += 1;
        let payload = match kind {
            Kind::Full => &mut self.full,
            Kind::Delta => &mut self.delta,
        };
        let stamp = Stamp { number: self.number, at: self.began.elapsed() };
        side.printer.report(payload.stamped(stamp));
    }

    /// Everything about one number of subscribers.
    async fn crowd(&mut self, sides: &[&Side], load: Load) -> Crowd {
        let mut rows = Vec::new();
        for kind in [Kind::Full, Kind::Delta] {
            let mut costs = vec![Vec::new(); sides.len()];
            let mut lost = vec![0; sides.len()];
            for _ in 0..ROUNDS {
                for (at, side) in sides.iter().enumerate().filter(|(_, side)| !side.is_direct()) {
                    let run = self.run(side, kind, load).await;
                    costs[at].push(run.0);
                    lost[at] += run.1;
                }
            }
            let latencies = self.time(sides, kind).await;
            for (at, side) in sides.iter().enumerate() {
                let (latency, missing) = &latencies[at];
                rows.push(Row {
                    side: side.name,
                    kind,
                    cost: median(&mut costs[at]),
                    latency: *latency,
                    lost: lost[at] + missing,
                });
            }
        }
        let mut memory = Vec::new();
        for side in sides.iter().filter(|side| !side.is_direct()) {
            let heap = match &side.process {
                Some(process) if side.name == PROXY => process.heap_peak().await,
                Some(_) | None => None,
            };
            memory.push((side.name, side.resident().most, heap));
        }
        Crowd { subscribers: load.subscribers, rows, memory }
    }

    /// CPU time for a delivery, and deliveries that did not come.
    async fn run(&mut self, side: &Side, kind: Kind, load: Load) -> (Duration, u64) {
        let (before, cpu) = (side.tally.delivered(), side.cpu());
        let start = tokio::time::Instant::now();
        for n in 0..load.reports {
            sleep_until(start + load.gap * n).await;
            self.send(side, kind);
        }
        let due = u64::from(load.reports) * side.joined.get() as u64;
        side.tally.reaches(before + due, LATE).await;
        let spent = side.cpu() - cpu;
        let delivered = side.tally.delivered() - before;
        (spent / u32::try_from(delivered.max(1)).unwrap(), due.saturating_sub(delivered))
    }

    /// How long reports are on their way on each side, which take turns; and deliveries that did not
    /// come.
    async fn time(&mut self, sides: &[&Side], kind: Kind) -> Vec<(Latency, u64)> {
        let mut lost = vec![0; sides.len()];
        for side in sides {
            side.tally.take_noted();
        }
        for _ in 0..TIMED {
            for (at, side) in sides.iter().enumerate() {
                let due = side.tally.delivered() + side.joined.get() as u64;
                self.send(side, kind);
                if !side.tally.reaches(due, LATE).await {
                    lost[at] += due - side.tally.delivered();
                }
                // Everybody is asleep again before the next one.
                sleep(Duration::from_millis(1)).await;
            }
        }
        sides
            .iter()
            .zip(lost)
            .map(|(side, lost)| (Latency::of(side.tally.take_noted()), lost))
            .collect()
    }

    /// Takes every slot of the proxy, then sends more at once than anybody can read at once.
    async fn fill(&mut self, proxy: &Side) -> io::Result<Slots> {
        self.gather(proxy, BOARD.clients.mqtt).await?;
        for kind in [Kind::Full, Kind::Delta] {
            for _ in 0..BURST {
                self.send(proxy, kind);
            }
        }
        // A slow reader gets the state instead; all of them receive what follows.
        sleep(SETTLE).await;
        let due = proxy.tally.delivered() + proxy.joined.get() as u64;
        self.send(proxy, Kind::Delta);
        let served = proxy.tally.reaches(due, LATE).await;
        let heap = match &proxy.process {
            Some(process) => process.heap_peak().await,
            None => None,
        };
        Ok(Slots { open: proxy.tally.open(), served, heap, resident: proxy.resident().most })
    }
}

const PROXY: &str = "pandaproxy";
const MOSQUITTO: &str = "mosquitto";

/// A printer that says nothing unasked, and where it listens.
async fn simulated() -> io::Result<(Printer, u16)> {
    let printer = Printer::new(Model::A1Mini).code(CODE).state_bytes(FULL).quiet();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (at, serving) = printer.listen_tls(any).await?;
    spawn_local(serving);
    Ok((printer, at.port()))
}

/// Starts the proxy, and the bridge if there is one.
async fn start_both(folder: &Path) -> io::Result<(Side, Option<Side>)> {
    let printer = simulated().await?;
    let port = free_port();
    let (to, at) = (format!("mqtt={}", printer.1), format!("mqtt={port}"));
    let process = Process::proxy(printer.0.serial(), "mqtt", &to, &at, folder)?;
    let proxy = side(PROXY, (printer.0, port), Some(process)).await?;

    let printer = simulated().await?;
    let port = free_port();
    // It shows the proxy's certificate, so it comes second.
    let mosquitto = match Process::mosquitto(printer.0.serial(), printer.1, port, folder) {
        Ok(process) => Some(side(MOSQUITTO, (printer.0, port), Some(process)).await?),
        Err(error) => {
            println!("mosquitto cannot be had ({error}), so there is nothing to compare with");
            None
        }
    };
    Ok((proxy, mosquitto))
}

/// A side that is ready: its printer is subscribed to, and its port is open.
async fn side(
    name: &'static str,
    (printer, port): (Printer, u16),
    process: Option<Process>,
) -> io::Result<Side> {
    let tally = Arc::new(Tally::default());
    let side = Side { name, printer, port, process, tally, joined: Cell::new(0) };
    if side.is_direct() {
        return Ok(side);
    }
    let ready = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let open = timeout(START_TIMEOUT, ready).await.is_ok();
    if !open || !side.printer.until(START_TIMEOUT, |printer| printer.subscribers() == 1).await {
        return Err(said(&side, "it does not come up"));
    }
    Ok(side)
}

/// An error, with what the program itself has said.
fn said(side: &Side, what: impl Display) -> io::Error {
    let said = side.process.as_ref().map(Process::said).unwrap_or_default();
    io::Error::other(format!("{}: {what}\n{said}", side.name))
}

fn median(values: &mut [Duration]) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
