//! The last target of `cargo test`: prints which tests were skipped and why, and how many.

use std::{env, io};

use skips::{Entry, Kind, report, take};

fn main() -> io::Result<()> {
    // Tools that list tests ask every target.
    if env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    check();
    let report = report(&take());
    print!("\n{report}");
    skips::keep(&report)
}

/// What a report looks like, since this target has no tests of its own.
fn check() {
    let entry = |kind, test: &str, what: &str| Entry { kind, test: test.into(), what: what.into() };
    let entries = [
        entry(Kind::Folder, "pandaproxy::b", "../shared/ca"),
        entry(Kind::Program, "program::mqtt::a", "mosquitto_sub"),
        entry(Kind::Program, "program::mqtt::b", "mosquitto_sub"),
        entry(Kind::Read, "simulated::c", "14 of ../shared/traffic/reports/*.json"),
    ];
    assert_eq!(
        report(&entries),
        "2 skipped: program missing (mosquitto_sub: program::mqtt::a; program::mqtt::b)\n\
         1 skipped: ../shared/ca is missing (pandaproxy::b)\n\
         read 14 of ../shared/traffic/reports/*.json (simulated::c)\n\
         3 skipped in all\n"
    );
}
