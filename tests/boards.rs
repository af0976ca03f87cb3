//! Each board says all that the scripts of `boards/` ask for. What its budget comes to is looked at in
//! `tests/bounds`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// Each folder of boards/ is whole: both files, and every setting that scripts read.
#[test]
fn every_board_has_all_that_scripts_need() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    let mut seen = 0;
    for entry in fs::read_dir(boards).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("board.rs").is_file() {
            continue;
        }
        seen += 1;
        let settings = fs::read_to_string(folder.join("board.env"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for key in [
            "TARGET",
            "RUSTFLAGS_CPU",
            "QEMU_USER",
            "QEMU_CPU",
            "QEMU_MACHINE",
            "SERVICE_MEMORY_MAX",
            "UNAME_M",
            "PLATFORM",
        ] {
            let is_set = |line: &str| line.strip_prefix(key).is_some_and(|l| l.starts_with('='));
            assert!(settings.lines().any(is_set), "{}: no {key}", folder.display());
        }
    }
    assert!(seen >= 10, "{seen} boards");
}

/// Issue 14, A11: an A2L (01.01.05.00) sends pictures of 176,512 bytes. `host` is small so that tests meet
/// the limit.
#[test]
fn every_board_but_host_holds_pictures_of_320_kib() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    for entry in fs::read_dir(boards).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(board) = fs::read_to_string(folder.join("board.rs")) else { continue };
        if folder.ends_with("host") {
            continue;
        }
        let chamber = board.split("chamber: Chamber {").nth(1).unwrap();
        let picture = chamber.split("picture: ").nth(1).unwrap();
        let kib: u32 = picture.split(" * KIB").next().unwrap().parse().unwrap();
        assert!(kib >= 320, "{}: {kib} KiB", folder.display());
    }
}
