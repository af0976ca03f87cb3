//! Random faults: seeded runs of all services at once, over a network that delays, stalls, slows down,
//! breaks and falls silent, in virtual time. Its own binary, since the heap is counted for
//! the whole process: each run is a process, and as many run at once as there are processors.
//!
//! A failed run prints its seed, the broken promise, and the last actions. `LAN_SEED=123 cargo test
//! --test weather` shows that one again; `LAN_SEEDS=50000` runs so many.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

#[path = "../support/clients/mod.rs"]
mod clients;
#[path = "../support/lan/mod.rs"]
mod lan;

#[path = "cameras.rs"]
mod cameras;
#[path = "detect.rs"]
mod detect;
#[path = "files.rs"]
mod files;
#[path = "mqtt.rs"]
mod mqtt;
#[path = "notes.rs"]
mod notes;
#[path = "proxy.rs"]
mod proxy;
#[path = "../bounds/share.rs"]
mod share;
#[path = "talk.rs"]
mod talk;
#[path = "world.rs"]
mod world;

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Stdio};

use crate::notes::{PROMISES, begin, digest, last, panics_are_noted, tested};
use crate::world::World;

/// Number of runs unless `LAN_SEEDS` sets it.
const SEEDS: u64 = 10;

/// Number of runs that check every promise; CI has as many.
const ALL_PROMISES: u64 = 300;

/// What a run prints in front of each count.
const COUNTED: &str = "counted ";

/// One run; returns the hash of its actions.
fn run(seed: u64) -> u64 {
    panics_are_noted();
    let played = std::panic::catch_unwind(|| {
        lan::run(async {
            begin();
            World::new(seed).await.run().await
        })
    });
    let broken = match played {
        Ok(Ok(())) => return digest(),
        Ok(Err(broken)) => broken,
        Err(_panicked) => "a panic, see above".to_owned(),
    };
    panic!("LAN_SEED={seed} shows it again\n{}{broken}", last());
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Every promise is kept with any faults, and each of them is checked.
#[test]
fn promises_are_kept_in_all_weathers() {
    if let Some(seed) = number("LAN_SEED") {
        if !share::ran_apart() {
            run(seed);
            println!("seed {seed}: {:#?}", tested());
        }
        return;
    }
    let seeds = number("LAN_SEEDS").unwrap_or(SEEDS);
    let at_once = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let children: Vec<_> = (0..at_once)
        .map(|first| {
            let mut child = Command::new(env::current_exe().unwrap());
            child.args(["--exact", "some_runs", "--ignored", "--nocapture"]);
            // Else the test runner's thread prints after a minute that the test still runs, and its
            // allocations are counted as the proxy's.
            child.arg("--test-threads=1");
            child.env("LAN_RUNS", format!("{first} {seeds} {at_once}"));
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = String::new();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        if !ended.status.success() {
            failed += &format!("{said}{}", String::from_utf8_lossy(&ended.stderr));
        }
        for line in said.lines().filter_map(|line| line.strip_prefix(COUNTED)) {
            let (count, name) = line.split_once(' ').unwrap();
            *counted.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
    assert!(failed.is_empty(), "{failed}");
    println!("{seeds} runs: {counted:#?}");
    if seeds >= ALL_PROMISES {
        for name in PROMISES {
            assert!(counted.contains_key(name), "no run puts to the test: {name}");
        }
    }
}

/// One process's part of the runs. Without `LAN_RUNS` it has none.
#[test]
#[ignore = "it is started by the test above, in processes of its own"]
fn some_runs() {
    let Ok(runs) = env::var("LAN_RUNS") else { return };
    let mut numbers = runs.split(' ').map(|number| number.parse::<u64>().unwrap());
    let mut number = || numbers.next().unwrap();
    let (first, seeds, step) = (number(), number(), number());
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in (first..seeds).step_by(usize::try_from(step).unwrap()) {
        run(seed);
        for (name, count) in tested() {
            *counted.entry(name).or_default() += count;
        }
    }
    // The test runner has begun this line with the test's name.
    println!();
    for (name, count) in counted {
        println!("{COUNTED}{count} {name}");
    }
}

/// A seed repeats the same run.
#[test]
fn a_seed_shows_the_same_twice() {
    if share::ran_apart() {
        return;
    }
    for seed in [3, 8, 21, 34] {
        let shows = || (run(seed), tested());
        assert_eq!(shows(), shows(), "seed {seed}");
    }
}
