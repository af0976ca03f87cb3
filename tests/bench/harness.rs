//! What every benchmark begins and ends with.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Runs `measure` with a folder for keys. Only `cargo bench --bench NAME` measures: `cargo test --all-targets` runs
/// benchmarks too.
pub(crate) fn run(name: &str, measure: impl FnOnce(&Path) -> io::Result<()>) -> ExitCode {
    if !std::env::args().any(|word| word == "--bench") {
        println!("skipped: it is `cargo bench --bench {name}` that measures");
        return ExitCode::SUCCESS;
    }
    let folder = format!("bench-{name}-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("a folder for the keys");
    let measured = measure(&folder);
    // A folder of temporary files that stays is no reason to fail.
    let _gone = fs::remove_dir_all(&folder);
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
