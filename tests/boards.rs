//! Each board says all that the scripts of `boards/` ask for. What its budget comes to is looked at in
//! `tests/bounds`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

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

/// Issue 14, B25: the service's user could have had root give it others' files, by links in its own directory.
#[test]
fn the_installer_gives_away_no_file_behind_a_link() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if !status.contains("\nUid:\t0\t") {
        skips::cannot("changing owners needs root");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/service/install.sh");
    let script = fs::read_to_string(script).unwrap();
    let begin = script.find("own_state() {").unwrap();
    let end = begin + script[begin..].find("\n}\n").unwrap() + 2;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-{}", std::process::id()));
    let state = dir.join("state");
    fs::create_dir_all(state.join("folder")).unwrap();
    for file in ["others", "state/ca.key", "state/folder/file"] {
        fs::write(dir.join(file), "").unwrap();
    }
    fs::hard_link(dir.join("others"), state.join("hard")).unwrap();
    symlink(dir.join("others"), state.join("soft")).unwrap();
    // A group of that name is not everywhere.
    let own_state = script[begin..end].replace("$NAME:$NAME", "$NAME");
    let run = format!("set -eu; NAME=nobody STATE=\"$1\"; {own_state}\nown_state");
    let done = Command::new("sh").args(["-c", &run, "sh"]).arg(&state).status().unwrap();
    let owner = |file: &str| fs::metadata(dir.join(file)).unwrap().uid();
    let owners = ["state", "state/ca.key", "state/folder/file", "others"].map(owner);
    fs::remove_dir_all(&dir).unwrap();
    assert!(done.success());
    let nobody = owners[0];
    assert!(nobody != 0, "its directory is its own");
    assert_eq!(owners, [nobody, nobody, nobody, 0]);
}
