//! The commands, links and log lines of README and its further pages exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use crate::clients::programs::Program;
use crate::clients::proxy::{self, StateDir, command};

const README: &str = include_str!("../../README.md");
/// The pages that users and contributors read, with their folders.
const PAGES: [(&str, &str); 5] = [
    ("", README),
    (".github", include_str!("../../.github/CONTRIBUTING.md")),
    ("boards", include_str!("../../boards/SETTINGS.md")),
    ("boards", include_str!("../../boards/TROUBLESHOOTING.md")),
    ("boards/slicer", include_str!("../../boards/slicer/README.md")),
];

/// The pages' commands: indented blocks, and text between back-quotes, without comments.
fn commands() -> Vec<String> {
    let texts = || PAGES.into_iter().map(|(_, text)| text);
    let blocks = texts().flat_map(str::lines).filter_map(|line| line.strip_prefix("    "));
    let quoted = texts().flat_map(|text| text.split('`').skip(1).step_by(2));
    let mut commands = Vec::new();
    for line in blocks.chain(quoted) {
        let line = line.split(" #").next().unwrap_or_default();
        for command in line.split("&&").map(str::trim) {
            let command = command.trim_start_matches("sudo ");
            commands.push(command.split(" > ").next().unwrap_or_default().trim().to_owned());
        }
    }
    commands
}

/// The words behind a program's name, of each of the pages' commands that runs it.
fn runs_of(program: &str) -> Vec<Vec<String>> {
    let mut runs = Vec::new();
    for command in commands() {
        let mut words = command.split_whitespace().map(str::to_owned);
        if words.next().is_some_and(|first| first == program) {
            runs.push(words.collect());
        }
    }
    runs
}

#[test]
fn readmes_options_and_commands_are_accepted() {
    proxy::run(async {
        let mut runs = runs_of("pandaproxy");
        runs.extend(runs_of("target/release/pandaproxy"));
        assert!(runs.len() > 5, "{runs:?}");
        for mut words in runs {
            // Help is printed for a command line that is understood up to there.
            if !words.iter().any(|word| word == "--help") {
                words.push("--help".to_owned());
            }
            let (code, output) = Program::start(&mut command(&words)).ended().await;
            assert_eq!(code, Some(0), "{words:?}: {}", output.err);
        }
    });
}

#[test]
fn readmes_printing_commands_print() {
    proxy::run(async {
        let dir = StateDir::new();
        for words in [&["--help"][..], &["--budget"], &["--limits"]] {
            assert!(README.contains(&format!("pandaproxy {}", words.join(" "))), "{words:?}");
            let (code, output) = Program::start(&mut command(words)).ended().await;
            assert!(code == Some(0) && output.out.len() > 500, "{words:?}: {}", output.err);
        }
        let mut health =
            command(["health", "-p", "127.0.0.1", "-a", "12345678", "-s", "01P00A000000001"]);
        let (code, output) =
            Program::start(health.arg("--port=mqtt=1").arg("--state-dir").arg(dir.path()))
                .ended()
                .await;
        assert_eq!(code, Some(1), "{}", output.err);
    });
}

#[test]
fn readmes_examples_and_scripts_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut examples = 0;
    for words in runs_of("cargo") {
        if let Some(at) = words.iter().position(|word| word == "--example") {
            examples += 1;
            let name = format!("[[example]]\nname = \"{}\"", words[at + 1]);
            assert!(cargo.contains(&name), "{words:?}");
        }
    }
    assert!(examples > 2, "{examples} examples");
    let mut scripts = 0;
    for command in commands() {
        let first = command.split_whitespace().next().unwrap_or_default();
        let path = first.trim_start_matches("./");
        // Of a release, or copied to the slicer's machine.
        let is_elsewhere = ["install.sh", "trust.sh"].contains(&path);
        let is_ours = path == ".ci/run" || path.ends_with(".sh") && !is_elsewhere;
        if is_ours {
            scripts += 1;
            assert!(root.join(path).is_file(), "{command}");
        }
    }
    assert!(scripts > 2, "{scripts} scripts");
    for (folder, text) in PAGES {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // The releases are the repository's neighbours on its host.
            let is_file = !link.starts_with('#') && !link.ends_with("/releases");
            let file = link.split('#').next().unwrap_or_default();
            assert!(!is_file || root.join(folder).join(file).exists(), "{folder}: {link}");
        }
    }
}

#[test]
fn readmes_table_of_boards_is_theirs() {
    let (_, section) = README.split_once("\n| board | memory limit").unwrap();
    let mut found = 0;
    for row in section.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, boards, memory, mqtt, chamber, rtsp, ftp, http, _] = cells[..] else {
            panic!("{row}")
        };
        let memory = format!("memory: {} * MIB", memory.trim_end_matches(" MiB"));
        let clients = format!(
            "Clients {{ mqtt: {mqtt}, chamber: {chamber}, rtsp: {rtsp}, ftp: {ftp}, http: {http} }}"
        );
        for board in boards.split(", ").map(|board| board.trim_matches('`')) {
            found += 1;
            let path = format!("{}/boards/{board}/board.rs", env!("CARGO_MANIFEST_DIR"));
            let profile = fs::read_to_string(path).unwrap();
            assert!(profile.contains(&memory) && profile.contains(&clients), "{board}");
        }
    }
    assert_eq!(found, 9);
}

#[test]
fn readmes_log_lines_are_the_programs() {
    let mut source = String::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut source);
    let (_, section) = README.split_once("## Troubleshooting").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut found = 0;
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split('|').nth(1).unwrap();
        for line in cell.split('`').skip(1).step_by(2) {
            for part in line.split('…').map(str::trim).filter(|part| part.len() > 3) {
                found += 1;
                assert!(
                    source.contains(part.trim_end_matches([';', ':', ')', '('])),
                    "{part:?} of {line:?}"
                );
            }
        }
    }
    assert!(found > 10, "{found} lines");
}

/// Appends all Rust files below a folder, with string continuations joined.
fn collect(folder: &Path, source: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, source);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (at, piece) in text.split("\\\n").enumerate() {
                source.push_str(if at == 0 { piece } else { piece.trim_start() });
            }
        }
    }
}
