//! What was measured, as one table, and which aims that meets.

use core::fmt;
use core::time::Duration;

use pandaproxy::board::BOARD;
use pandaproxy::memory::{KIB, budget};

use crate::{Kind, MOSQUITTO, PROXY};

/// The most that the proxy may add to half of all deliveries.
const MAX_ADDED: Duration = Duration::from_micros(200);

/// What the proxy may have in memory before any client comes, in KiB.
const MAX_IDLE: u64 = 4 * 1024;

/// Subscribers at which the proxy is to need less CPU than the bridge.
const COMPARED: [usize; 3] = [1, 8, 64];

/// Everything.
pub(crate) struct Table {
    /// Bytes in a full state, and in a delta.
    pub(crate) bytes: [usize; 2],
    /// What the proxy has in memory before any client comes, in KiB; and the bridge.
    pub(crate) idle: u64,
    pub(crate) idle_mosquitto: Option<u64>,
    pub(crate) crowds: Vec<Crowd>,
    pub(crate) slots: Slots,
}

/// One number of subscribers.
pub(crate) struct Crowd {
    pub(crate) subscribers: usize,
    pub(crate) rows: Vec<Row>,
    /// Of each program: the most it ever had, and the most in its heap, in KiB.
    pub(crate) memory: Vec<(&'static str, u64, Option<u64>)>,
}

/// One kind of report on one side.
pub(crate) struct Row {
    pub(crate) side: &'static str,
    pub(crate) kind: Kind,
    /// CPU time for one delivery.
    pub(crate) cost: Option<Duration>,
    pub(crate) latency: Latency,
    pub(crate) lost: u64,
}

/// How long reports were on their way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Latency {
    p50: Duration,
    p99: Duration,
}

impl Latency {
    pub(crate) fn of(mut noted: Vec<Duration>) -> Self {
        noted.sort_unstable();
        let at =
            |percent: usize| noted.get(noted.len() * percent / 100).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99) }
    }
}

/// The proxy with all its slots taken.
pub(crate) struct Slots {
    /// Clients still connected after the burst.
    pub(crate) open: usize,
    /// Whether all of them got the report after it.
    pub(crate) served: bool,
    /// The most its heap ever held, in KiB.
    pub(crate) heap: Option<u64>,
    /// The most it ever had in memory, in KiB.
    pub(crate) resident: u64,
}

impl Crowd {
    fn row(&self, side: &str, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.side == side && row.kind == kind)
    }

    /// What a side adds at half of its reports, and at all but one in a hundred, in microseconds.
    fn added(&self, row: &Row) -> Option<(i64, i64)> {
        let direct = self.row("direct", row.kind)?.latency;
        let over = |through: Duration, without: Duration| micros(through) - micros(without);
        Some((over(row.latency.p50, direct.p50), over(row.latency.p99, direct.p99)))
    }

    /// The proxy's cost as a part of the bridge's.
    fn ratio(&self, kind: Kind) -> Option<f64> {
        let cost = |side| self.row(side, kind)?.cost;
        Some(cost(PROXY)?.as_secs_f64() / cost(MOSQUITTO)?.as_secs_f64())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [full, delta] = self.bytes;
        writeln!(f, "\nboard {}; a full state has {full} bytes, a delta {delta}", BOARD.name)?;
        writeln!(
            f,
            "\n{:>4}  {:5}  {:10}  {:>8}  {:>10}  {:>8}  {:>8}  {:>9}  {:>9}  {:>4}  {:>8}  {:>8}",
            "subs",
            "what",
            "through",
            "CPU µs",
            "deliveries",
            "p50 µs",
            "p99 µs",
            "added p50",
            "added p99",
            "lost",
            "heap KiB",
            "RSS KiB",
        )?;
        writeln!(
            f,
            "{:>4}  {:5}  {:10}  {:>8}  {:>10}  {:>8}  {:>8}  {:>9}  {:>9}  {:>4}  {:>8}  {:>8}",
            "", "", "", "each", "per CPU s", "", "", "", "", "", "peak", "peak",
        )?;
        for crowd in &self.crowds {
            for row in &crowd.rows {
                write_row(f, crowd, row)?;
            }
        }
        self.aims(f)
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, crowd: &Crowd, row: &Row) -> fmt::Result {
    let memory = crowd.memory.iter().find(|(side, _, _)| *side == row.side);
    let added = crowd.added(row).filter(|_| memory.is_some());
    writeln!(
        f,
        "{:>4}  {:5}  {:10}  {:>8}  {:>10}  {:>8}  {:>8}  {:>9}  {:>9}  {:>4}  {:>8}  {:>8}",
        // Directly, there is one whatever the others have.
        if memory.is_some() { crowd.subscribers } else { 1 },
        name(row.kind),
        row.side,
        or_dash(row.cost.map(|cost| format!("{:.1}", cost.as_secs_f64() * 1e6))),
        or_dash(row.cost.map(|cost| format!("{:.0}", 1.0 / cost.as_secs_f64()))),
        row.latency.p50.as_micros(),
        row.latency.p99.as_micros(),
        or_dash(added.map(|added| added.0)),
        or_dash(added.map(|added| added.1)),
        row.lost,
        or_dash(memory.and_then(|memory| memory.2)),
        or_dash(memory.map(|memory| memory.1)),
    )
}

impl Table {
    fn aims(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\naims:")?;
        for kind in [Kind::Full, Kind::Delta] {
            for crowd in self.crowds.iter().filter(|crowd| COMPARED.contains(&crowd.subscribers)) {
                let at = format!("{}, {} subscribers", name(kind), crowd.subscribers);
                match crowd.ratio(kind) {
                    Some(ratio) => writeln!(
                        f,
                        "  {:6}  less CPU than mosquitto ({at}): {:.0} % of it",
                        verdict(ratio < 1.0),
                        ratio * 100.0
                    )?,
                    None => writeln!(f, "  {:6}  less CPU than mosquitto ({at})", "?")?,
                }
            }
        }
        for kind in [Kind::Full, Kind::Delta] {
            for crowd in &self.crowds {
                let Some(row) = crowd.row(PROXY, kind) else { continue };
                let Some((added, _)) = crowd.added(row) else { continue };
                writeln!(
                    f,
                    "  {:6}  added p50 under {} µs ({}, {} subscribers): {added} µs",
                    verdict(added < micros(MAX_ADDED)),
                    MAX_ADDED.as_micros(),
                    name(kind),
                    crowd.subscribers,
                )?;
            }
        }
        writeln!(
            f,
            "  {:6}  idle RSS under {MAX_IDLE} KiB: {} KiB (mosquitto: {})",
            verdict(self.idle < MAX_IDLE),
            self.idle,
            or_dash(self.idle_mosquitto),
        )?;
        let (slots, budget) = (&self.slots, budget::TOTAL.div_ceil(KIB) as u64);
        let within = slots.heap.is_some_and(|heap| heap <= budget);
        writeln!(
            f,
            "  {:6}  all {} slots busy within {budget} KiB: {} clients, heap {} KiB, RSS {} KiB",
            verdict(slots.open == BOARD.clients.mqtt && slots.served && within),
            BOARD.clients.mqtt,
            slots.open,
            or_dash(slots.heap),
            slots.resident,
        )
    }
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Full => "full",
        Kind::Delta => "delta",
    }
}

fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
