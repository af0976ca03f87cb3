//! A board that asks for more than its memory does not compile, and says so in a sentence.
//!
//! The compiler is given the real `src/board.rs` and `src/memory/budget.rs`, and boards that are in no
//! repository.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What the build of a crate is missing that has a board and its budget, and nothing else.
const CRATE: &str = r#"
#![allow(dead_code)]
extern crate alloc;
pub mod memory {
    pub const KIB: usize = 1024;
    pub const MIB: usize = 1024 * KIB;
    #[path = "@/src/memory/pool.rs"]
    pub mod pool;
    #[path = "@/src/memory/budget.rs"]
    pub mod budget;
}
#[path = "@/src/board.rs"]
pub mod board;
"#;

/// Whether the board `host` compiles with this memory instead of its own, and what the compiler said.
fn compiled_with(memory: &str) -> (bool, String) {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boards-{memory}"));
    let board = folder.join("boards/planted");
    fs::create_dir_all(&board).unwrap();
    let profile = fs::read_to_string(Path::new(root).join("boards/host/board.rs")).unwrap();
    let (before, rest) = profile.split_once("    memory: ").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    fs::write(board.join("board.rs"), format!("{before}    memory: {memory},{after}")).unwrap();
    fs::write(folder.join("lib.rs"), CRATE.replace('@', root)).unwrap();
    let compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "lib.rs"])
        .env("CARGO_MANIFEST_DIR", &folder)
        .env("BOARD", "planted")
        .current_dir(&folder)
        .output()
        .expect("the compiler runs");
    fs::remove_dir_all(&folder).unwrap();
    (compiler.status.success(), String::from_utf8_lossy(&compiler.stderr).into_owned())
}

#[test]
fn a_board_that_cannot_afford_its_own_profile_does_not_compile_and_says_so() {
    let (compiles, said) = compiled_with("1048576");
    assert!(!compiles && said.contains("this board cannot afford its own profile"), "{said}");

    let (compiles, said) = compiled_with("1073741824");
    assert!(compiles, "the same board with enough memory: {said}");
}

/// Each folder of boards/ is whole: both files, and every setting that scripts read.
#[test]
fn every_board_says_all_that_scripts_ask_for() {
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
