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
            "MODELS",
        ] {
            let is_set = |line: &str| line.strip_prefix(key).is_some_and(|l| l.starts_with('='));
            assert!(settings.lines().any(is_set), "{}: no {key}", folder.display());
        }
    }
    assert!(seen >= 10, "{seen} boards");
}

/// Which board `flash.sh` takes for a host: by its model, its kernel (`uname -m`), and the programs it is made of (class
/// and machine in their ELF header). "none" where no binary runs.
const HOSTS: [(&str, &str, &str, &str); 30] = [
    ("Raspberry Pi Model B Rev 2", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Model A Plus Rev 1.1", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Compute Module Rev 1.0", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Zero Rev 1.3", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Zero W Rev 1.1", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi 2 Model B Rev 1.1", "armv7l", ARM, "rpi-2"),
    ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    ("Raspberry Pi Zero 2 Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    // 512 MB, as the Zero 2 W has.
    ("Raspberry Pi 3 Model A Plus Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    ("Raspberry Pi 3 Model B Rev 1.2", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi 3 Model B Plus Rev 1.3", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi 400 Rev 1.0", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi Compute Module 4 Rev 1.1", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi Compute Module 4S Rev 1.0", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi 5 Model B Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    ("Raspberry Pi 500 Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    ("Raspberry Pi Compute Module 5 Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    // 32-bit systems, under a 64-bit kernel and under one of 32 bits.
    ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", ARM, "generic-armv7"),
    ("Raspberry Pi Zero 2 W Rev 1.0", "armv7l", ARM, "generic-armv7"),
    ("Raspberry Pi 3 Model B Rev 1.2", "armv7l", ARM, "generic-armv7"),
    // Others' boards, and machines without a model.
    ("Raspberry Pi 2 Model B Rev 1.2", "aarch64", AARCH64, "generic-aarch64"),
    ("Orange Pi Zero2", "aarch64", AARCH64, "generic-aarch64"),
    ("LeMaker Banana Pi", "armv7l", ARM, "generic-armv7"),
    ("", "armv6l", ARM, "rpi-zero"),
    ("", "armv8l", ARM, "generic-armv7"),
    ("DS920+", "x86_64", "023e00", "generic-x86_64"),
    ("", "i686", "010300", "none"),
    ("", "armv5tel", ARM, "none"),
];
const ARM: &str = "012800";
const AARCH64: &str = "02b700";

#[test]
fn every_host_gets_the_board_of_its_model() {
    const FIND: &str = r#". boards/board.sh; while IFS=, read -r model kernel elf; do
find_boards "$model" "$kernel" "$elf"; echo "${found:-none}"; done <<<"$1""#;
    let hosts = HOSTS.map(|(model, kernel, elf, _)| format!("{model},{kernel},{elf}")).join("\n");
    let found = Command::new("bash")
        .args(["-c", FIND, "bash", &hosts])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let boards = String::from_utf8(found.stdout).unwrap();
    assert_eq!(boards.lines().count(), HOSTS.len(), "{}", String::from_utf8_lossy(&found.stderr));
    for ((model, kernel, elf, board), found) in HOSTS.iter().zip(boards.lines()) {
        assert_eq!(found, *board, "{model}, {kernel}, {elf}");
    }
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
