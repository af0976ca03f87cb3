//! The budget against measured memory: everything allocated at the start, and boards that ask for
//! more than they have.

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pandaproxy::auth::Limiter;
use pandaproxy::board::BOARD;
use pandaproxy::memory::budget::{self, ACCEPT_QUEUE, FRAME_SLOT, LINES, SLOTS};
use pandaproxy::memory::heap;
use pandaproxy::memory::pool::{Frame, Pool};
use pandaproxy::mqtt::address::Patches;
use pandaproxy::mqtt::client::Client;
use pandaproxy::mqtt::hub::Hub;
use pandaproxy::mqtt::queue::{Request, RequestQueue};
use pandaproxy::mqtt::slot::Slot;
use pandaproxy::mqtt::state::State;
use pandaproxy::mqtt::upstream::Upstream;
use pandaproxy::mqtt::{REPORT_INBOX, Service};
use pandaproxy::runtime::accept::Acceptor;
use pandaproxy::runtime::net::Sockets;
use tokio::time::sleep;

use crate::bed::Bed;
use crate::lan::{self, WIRE};
use crate::share::{Share, ran_apart};

/// What the lines with these beginnings allow together.
fn allowed(beginnings: &[&str]) -> usize {
    LINES
        .iter()
        .filter(|line| beginnings.iter().any(|beginning| line.what.starts_with(beginning)))
        .map(|line| line.count * line.each)
        .sum()
}

#[test]
fn start_allocations_fit_the_budget() {
    if ran_apart() {
        return;
    }
    let before = heap::held();
    lan::run(async {
        let acceptor = Share::default();
        let _door = acceptor
            .during(|| Acceptor::<Sockets>::new("mqtt", std::rc::Rc::new(Limiter::new().into())));
        assert!(
            acceptor.now() <= ACCEPT_QUEUE * budget::ARRIVAL,
            "the acceptor holds {} bytes",
            acceptor.now()
        );
        let bed = Bed::new();
        sleep(Duration::from_millis(1)).await;
        let own = bed.share.now();
        let lines = allowed(&[
            "mqtt client: inbox",
            "mqtt client: outbox",
            "mqtt client: slot",
            "mqtt frames",
            "mqtt state",
            "mqtt upstream: inbox",
            "mqtt upstream: outbox",
            "mqtt hub",
        ]) + budget::LINE
            + budget::LIMITER
            + size_of::<Acceptor>();
        println!("at the start: {own} bytes; its lines allow {lines}");
        assert!(own <= lines);
        // The tasks, the runtime, and this test's own simulated ends.
        let tasks = allowed(&["mqtt client: task", "runtime"]);
        let held = heap::held() - before;
        assert!(
            held <= lines + tasks + ACCEPT_QUEUE * budget::ARRIVAL,
            "{held} bytes after the start"
        );

        // A client that connects and disconnects leaves memory as it was.
        for _ in 0..3 {
            drop(bed.wire(WIRE));
            sleep(Duration::from_secs(1)).await;
        }
        assert!(bed.share.peak() <= lines, "{} bytes", bed.share.peak());
    });
}

#[test]
fn sizes_equal_their_budget_lines() {
    if ran_apart() {
        return;
    }
    let rows = [
        ("Slot, with its ring", size_of::<Slot>(), budget::SLOT),
        (
            "RequestQueue and Upstream, with requests",
            size_of::<RequestQueue>() + size_of::<Upstream>(),
            budget::LINE,
        ),
        ("Client, in a worker's task", size_of::<Client>(), budget::TASK),
        ("Service, with its hub", size_of::<Service>(), budget::HUB),
        ("State, with its buffers", State::bytes(budget::STATE_CHANGES), budget::STATE),
        ("the printer's inbox", REPORT_INBOX, budget::REPORT_INBOX),
        ("Acceptor, with its queue", size_of::<Acceptor>(), ACCEPT_QUEUE * budget::ARRIVAL),
        (
            "Pool's frames",
            pool_bytes(),
            BOARD.mqtt.small.bytes(FRAME_SLOT) + BOARD.mqtt.large.bytes(FRAME_SLOT),
        ),
    ];
    println!("\n| what | bytes | its line |\n|---|---:|---:|");
    for (what, bytes, line) in rows {
        println!("| {what} | {bytes} | {line} |");
    }
    for (what, bytes) in [
        ("Request, of which a line has BOARD.mqtt.requests", size_of::<Request>()),
        ("Frame, of which a ring has BOARD.mqtt.ring", size_of::<Frame<Patches>>()),
        ("Hub", size_of::<Hub>()),
        ("Limiter", size_of::<Limiter>()),
    ] {
        println!("| {what} | {bytes} | |");
    }
    println!("\n| budget of {} | count | each | together |\n|---|---:|---:|---:|", BOARD.name);
    for line in &LINES {
        println!("| {} | {} | {} | {} |", line.what, line.count, line.each, line.count * line.each);
    }
    println!("| all | | | {} of {} |", budget::TOTAL, BOARD.memory);
    for (what, bytes, line) in rows {
        assert!(bytes <= line, "{what}: {bytes} bytes, {line} in the budget");
    }
    assert_eq!(SLOTS, BOARD.clients.mqtt + BOARD.pre_auth);
}

/// Measured, not computed.
fn pool_bytes() -> usize {
    let share = Share::default();
    let _pool = share.during(|| Pool::<Patches>::new(BOARD.mqtt.small, BOARD.mqtt.large));
    share.now()
}

const TOO_POOR: &str = "this board has less memory than its clients would need";

/// Compiles the real budget for each board, and for some that are not well thought out.
#[test]
fn a_board_that_cannot_afford_its_own_profile_does_not_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = Scratch::new();
    let host = fs::read_to_string(root.join("boards/host/board.rs")).unwrap();
    for (name, change, complaint) in [
        ("as-it-is", ("", ""), None),
        ("too-many", ("mqtt: 10", "mqtt: 100"), Some(TOO_POOR)),
        ("two-frames", ("count: 6", "count: 2"), Some("a board needs three large frames")),
        (
            "more-requests",
            ("requests: 4", "requests: 5"),
            Some("a board needs two large frames more than requests"),
        ),
        (
            "closed",
            ("pre_auth_per_address: 3", "pre_auth_per_address: 4"),
            Some("one address must not hold all pre-auth slots"),
        ),
    ] {
        let board = host.replace(change.0, change.1);
        assert!(change.0.is_empty() || board != host, "{name} differs from host");
        let Some(said) = scratch.compile(root, name, &board) else { return };
        assert_eq!(said.is_err(), complaint.is_some(), "{name}: {said:?}");
        if let (Some(complaint), Err(said)) = (complaint, &said) {
            assert!(said.contains(complaint), "{name}: {said}");
        }
    }
    for name in boards(root) {
        let board = fs::read_to_string(root.join("boards").join(&name).join("board.rs")).unwrap();
        assert_eq!(scratch.compile(root, &name, &board).unwrap(), Ok(()), "{name}");
        // Every one of them uses more than half of what it has.
        let poor = board.replacen(" * MIB,", " * MIB / 2,", 1);
        assert_ne!(poor, board, "{name}: memory in MiB is the first figure");
        let said = scratch.compile(root, &name, &poor).unwrap().unwrap_err();
        assert!(said.contains(TOO_POOR), "{name}: {said}");
    }
}

/// DataDialler its budget, a service holds its own file, at most 3 MiB of it, the stack, and what the system
/// keeps for its sockets.
#[test]
fn a_boards_service_limit_is_above_its_budget() {
    const BESIDE: usize = 16;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let figure = |text: &str, before: &str, behind: &str| -> usize {
        let (_, rest) = text.split_once(before).unwrap();
        rest.split_once(behind).unwrap().0.parse().unwrap()
    };
    for name in boards(root) {
        let [profile, settings] = ["board.rs", "board.env"]
            .map(|file| fs::read_to_string(root.join("boards").join(&name).join(file)).unwrap());
        let memory = figure(&profile, "    memory: ", " * MIB,");
        let service = figure(&settings, "\nSERVICE_MEMORY_MAX=", "M\n");
        assert!(service >= memory + BESIDE, "{name}: {service} MiB for {memory} MiB");
    }
}

/// The folders of boards/.
fn boards(root: &Path) -> Vec<String> {
    let folders = fs::read_dir(root.join("boards")).unwrap().flatten();
    let names: Vec<_> = folders
        .filter(|entry| entry.path().join("board.rs").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// Compiles `src/board.rs` and `src/memory/budget.rs` alone for a board in `scratch`; what the compiler
/// said, if it would not. `None` without a compiler.
fn compile(root: &Path, scratch: &Path, board: &str) -> Option<Result<(), String>> {
    let source = scratch.join("lib.rs");
    let [budget, pool, of_board] = ["src/memory/budget.rs", "src/memory/pool.rs", "src/board.rs"]
        .map(|path| root.join(path).display().to_string());
    let text = format!(
        "#![no_std]\nextern crate alloc;\n#[path = {of_board:?}] pub mod board;\n\
         pub mod memory {{\n#[path = {budget:?}] pub mod budget;\n#[path = {pool:?}] pub mod pool;\n\
         pub const KIB: usize = 1024;\npub const MIB: usize = 1024 * KIB;\n}}\n"
    );
    fs::write(&source, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut unusable = String::new();
    for library in libraries("bytes") {
        let compiled = Command::new(&rustc)
            .args(["--edition=2024", "--crate-type=lib", "--crate-name=afford", "--emit=metadata"])
            .arg("--out-dir")
            .arg(scratch)
            .arg("--extern")
            .arg(format!("bytes={}", library.display()))
            .arg(&source)
            .env("CARGO_MANIFEST_DIR", scratch)
            .env("BOARD", board)
            .output();
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                skips::lacks(&format!("rustc ({error})"));
                return None;
            }
        };
        let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
        match compiled.status.success() {
            true => return Some(Ok(())),
            // A library of another compiler version.
            false if said.contains("crate `bytes`") => {
                unusable = said;
            }
            false => return Some(Err(said)),
        }
    }
    panic!("no library of `bytes` that this compiler takes beside the test: {unusable}")
}

/// The libraries of this name beside this test: of each set of features and each compiler that built here.
fn libraries(name: &str) -> Vec<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let beside = fs::read_dir(test.parent().unwrap()).unwrap().flatten().filter(|entry| {
        let file = entry.file_name().into_string().unwrap_or_default();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
    });
    beside.map(|entry| entry.path()).collect()
}

/// A directory for this test, gone after it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("pandaproxy-afford-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Compiles the budget for a board with this text.
    fn compile(&self, root: &Path, name: &str, text: &str) -> Option<Result<(), String>> {
        let folder = self.0.join("boards").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("board.rs"), text).unwrap();
        compile(root, &self.0, name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}
