//! A run's results: the first broken promise, how often each promise was checked, and the last actions. One
//! run for each thread.

use core::cell::RefCell;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::collections::{BTreeMap, VecDeque};
use std::hash::DefaultHasher;
use std::sync::Once;

use tokio::time::Instant;

/// Actions that are shown when a run fails.
const SHOWN: usize = 50;

/// Every promise, by the name it is counted under. The seeds have to check each of them.
pub(crate) const PROMISES: [&str; 32] = [
    "mqtt: one connection to the printer",
    "mqtt: a report is the printer's to the byte, and none comes twice or too late",
    "mqtt: a state that the proxy puts together is the printer's",
    "mqtt: the first report is a full state",
    "mqtt: merged reports are the printer's state",
    "mqtt: an acknowledged command was sent",
    "mqtt: a command is sent once",
    "mqtt: a command is sent on the connection that stood when it came",
    "mqtt: commands keep their order",
    "mqtt: a wrong code is refused",
    "mqtt: the right code is accepted, or refused as unavailable",
    "chamber: one connection to the camera",
    "chamber: a picture is the camera's to the byte, and newer than the one before",
    "chamber: a wrong code sees nothing",
    "rtsp: one connection to the camera",
    "rtsp: a picture is the camera's to the byte, and newer than the one before",
    "rtsp: after a loss a player continues with a key frame",
    "rtsp: a wrong code is refused",
    "without faults viewers receive pictures",
    "ftp: one session with the printer",
    "ftp: after 226 the printer has every byte",
    "ftp: what the printer believes to be whole is whole",
    "ftp: after 226 the client has every byte",
    "ftp: after 226 a listing is the printer's",
    "ftp: a command is done once",
    "ftp: a wrong code is refused",
    "detect: an answer names the printer, and only a whole request gets one",
    "a disconnected end is closed in time",
    "an end that does not read is closed in time",
    "the heap stays within the budget",
    "at the end everything is given back",
    "at the end there is as much heap as at the beginning",
];

#[derive(Default)]
struct Notes {
    broken: Option<String>,
    tested: BTreeMap<&'static str, u64>,
    last: VecDeque<String>,
    digest: DefaultHasher,
    begun: Option<Instant>,
}

thread_local! {
    static NOTES: RefCell<Notes> = RefCell::default();
}

/// A run begins.
pub(crate) fn begin() {
    NOTES.with_borrow_mut(|notes| {
        *notes = Notes { begun: Some(Instant::now()), ..Notes::default() }
    });
}

/// Records an action or an event.
pub(crate) fn note(what: fmt::Arguments<'_>) {
    NOTES.with_borrow_mut(|notes| {
        let at = notes.begun.map_or(0, |begun| begun.elapsed().as_millis());
        let line = format!("{:>7}.{:03} {what}", at / 1000, at % 1000);
        line.hash(&mut notes.digest);
        if notes.last.len() == SHOWN {
            notes.last.pop_front();
        }
        notes.last.push_back(line);
    });
}

/// Counts a check of a promise; records `why` of the first that is not kept.
pub(crate) fn promise(name: &'static str, kept: bool, why: impl FnOnce() -> String) {
    debug_assert!(PROMISES.contains(&name), "{name}");
    NOTES.with_borrow_mut(|notes| {
        *notes.tested.entry(name).or_default() += 1;
        if !kept && notes.broken.is_none() {
            notes.broken = Some(format!("{name}: {}", why()));
        }
    });
}

/// A panic in any task of a run is a broken promise.
pub(crate) fn panics_are_noted() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            NOTES.with(|notes| {
                if let Ok(mut notes) = notes.try_borrow_mut()
                    && notes.broken.is_none()
                {
                    notes.broken = Some(format!("a panic: {info}"));
                }
            });
            before(info);
        }));
    });
}

/// The first promise that was broken.
pub(crate) fn broken() -> Option<String> {
    NOTES.with_borrow(|notes| notes.broken.clone())
}

/// How often each promise was checked.
pub(crate) fn tested() -> BTreeMap<&'static str, u64> {
    NOTES.with_borrow(|notes| notes.tested.clone())
}

/// The last actions.
pub(crate) fn last() -> String {
    NOTES.with_borrow(|notes| notes.last.iter().map(|line| format!("{line}\n")).collect())
}

/// A hash of all actions.
pub(crate) fn digest() -> u64 {
    NOTES.with_borrow(|notes| notes.digest.finish())
}
