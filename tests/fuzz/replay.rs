//! Runs each file of `tests/fuzz/corpus` through the target that its folder names, as libFuzzer does: failures
//! that were found once are tested again, and the targets compile.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod targets;

use std::fs;
use std::path::Path;

#[test]
fn nothing_in_the_corpora_breaks_a_promise() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, _) in targets::TARGETS {
        let target = targets::named(name).unwrap();
        let files =
            fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{name} has no corpus");
        for path in &paths {
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
    }
}
