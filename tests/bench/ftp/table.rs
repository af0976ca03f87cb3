//! What was measured, as text, and which aims it meets.

use core::fmt;

use pandaproxy::board::BOARD;
use pandaproxy::memory::{KIB, budget};

use crate::ends::Direction;
use crate::{LARGE, PACED, PRINTERS_PACE};

/// What a program in between may take away of the speed of a direct connection.
const SHARE_LEFT: f64 = 0.9;

/// The same where the printer is what is slow; a hundredth is the clock's.
const PACED_LEFT: f64 = 0.99;

/// Everything.
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    pub(crate) paced: Vec<Row>,
    /// Of each way: the heap's peak after a small file and after all, and the most in memory, in KiB.
    pub(crate) memory: Vec<(&'static str, Option<u64>, Option<u64>, Option<u64>)>,
}

/// One way, one direction.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) direction: Direction,
    /// Bytes a second, and seconds of CPU for a GB.
    pub(crate) runs: Vec<(f64, f64)>,
}

impl Row {
    fn speed(&self) -> f64 {
        median(self.runs.iter().map(|run| run.0).collect())
    }

    fn cost(&self) -> f64 {
        median(self.runs.iter().map(|run| run.1).collect())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn find<'r>(rows: &'r [Row], name: &str, direction: Direction) -> Option<&'r Row> {
    rows.iter().find(|row| row.name == name && row.direction == direction)
}

/// What is left of the direct connection's speed.
fn left(rows: &[Row], row: &Row) -> f64 {
    find(rows, "direct", row.direction).map_or(f64::NAN, |direct| row.speed() / direct.speed())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = LARGE / 1_000_000;
        writeln!(f, "\nboard {}; {megabytes} MB as fast as it goes:\n", BOARD.name)?;
        writeln!(f, "| way | file goes | MB/s | of direct | CPU s/GB | alone MB/s |")?;
        writeln!(f, "|---|---|---:|---:|---:|---:|")?;
        for row in &self.rows {
            let cost = row.cost();
            write!(f, "| {} | {} ", row.name, word(row.direction))?;
            write!(f, "| {:.0} | {:.2} ", row.speed() / 1e6, left(&self.rows, row))?;
            if cost > 0.0 {
                writeln!(f, "| {cost:.2} | {:.0} |", 1000.0 / cost)?;
            } else {
                writeln!(f, "| | |")?;
            }
        }
        let (megabytes, pace) = (PACED / 1_000_000, PRINTERS_PACE / 1_000_000);
        writeln!(f, "\n{megabytes} MB to and from a printer of {pace} MB/s:\n")?;
        writeln!(f, "| way | file goes | MB/s | of direct | CPU s/GB |")?;
        writeln!(f, "|---|---|---:|---:|---:|")?;
        for row in &self.paced {
            write!(f, "| {} | {} ", row.name, word(row.direction))?;
            write!(f, "| {:.3} | {:.3} ", row.speed() / 1e6, left(&self.paced, row))?;
            writeln!(f, "| {:.2} |", row.cost())?;
        }
        writeln!(f, "\n| way | heap after 1 MB each way | heap after all | resident |")?;
        writeln!(f, "|---|---:|---:|---:|")?;
        for (name, small, all, resident) in &self.memory {
            let kib =
                |figure: &Option<u64>| figure.map_or(String::new(), |kib| format!("{kib} KiB"));
            writeln!(f, "| {name} | {} | {} | {} |", kib(small), kib(all), kib(resident))?;
        }
        self.aims(f)
    }
}

impl Table {
    fn aims(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\naims:")?;
        for direction in Direction::BOTH {
            let way = word(direction);
            if let Some(proxy) = find(&self.rows, "proxy", direction) {
                let left = left(&self.rows, proxy);
                let met = verdict(left >= SHARE_LEFT);
                writeln!(f, "  {met:6}  proxy, {way}: {SHARE_LEFT} of direct: {left:.2}")?;
            }
            if let (Some(relay), Some(haproxy)) =
                (find(&self.rows, "relay", direction), find(&self.rows, "haproxy", direction))
            {
                let (speed, cost) =
                    (relay.speed() / haproxy.speed(), relay.cost() / haproxy.cost());
                let met = verdict(speed >= 1.0);
                writeln!(f, "  {met:6}  relay, {way}: as fast as haproxy: {speed:.2}")?;
                let met = verdict(cost <= 1.0);
                writeln!(f, "  {met:6}  relay, {way}: no more CPU than haproxy: {cost:.2}")?;
            }
        }
        for row in self.paced.iter().filter(|row| ["proxy", "relay"].contains(&row.name)) {
            let left = left(&self.paced, row);
            let met = verdict(left >= PACED_LEFT);
            let way = word(row.direction);
            writeln!(f, "  {met:6}  {}, {way}: a slow printer's speed: {left:.3}", row.name)?;
        }
        let named = budget::TOTAL.div_ceil(KIB) as u64;
        for (name, _, all, _) in &self.memory {
            let Some(all) = all else { continue };
            let met = verdict(*all <= named);
            writeln!(f, "  {met:6}  {name}: a heap of at most {named} KiB: {all} KiB")?;
        }
        Ok(())
    }
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}
