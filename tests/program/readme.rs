//! README's commands are run by tests; the commands, links and log lines of its further pages exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use tokio::task::{JoinHandle, spawn_local};

use crate::clients::ports::{Refusing, block};
use crate::clients::programs::{Program, Said, executable};
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, StateDir, command, switch_on};
use printer::camera::Camera;
use printer::ftp::{Family, FileServer};
use printer::{Model, Printer};
use skips::{cannot, is_missing};

/// What README may be, in bytes: a page that is read to its end.
const MAX_README: usize = 10_240;

/// Which file has the test that runs a command of README: the command that is this, or the only one that begins with it.
///
/// The test takes the command from README by this key (`tests/readme.sh`, or [`readme`] in Rust), so a changed command is
/// run as it is changed.
const RUN_BY: [(&str, &str); 40] = [
    ("cargo run --release --example demo", ".ci/run"),
    ("cargo test", ".ci/run"),
    ("cargo build --release", ".ci/run"),
    (".ci/run", ".github/workflows/ci.yml"),
    ("sudo apt install", "tests/package/guest.sh"),
    ("sudoedit", "tests/package/guest.sh"),
    ("sudo systemctl enable", "tests/package/guest.sh"),
    ("sudo systemctl restart", "tests/package/guest.sh"),
    ("journalctl", "tests/package/guest.sh"),
    ("sudo pkill", "tests/package/guest.sh"),
    ("sudo apt remove", "tests/package/guest.sh"),
    ("cp boards/service/pandaproxy.conf", "tests/flash/run.sh"),
    ("sudo ./flash.sh rpi-zero card", "tests/card/disk.sh"),
    ("./flash.sh pi@", "tests/flash/run.sh"),
    ("./flash.sh HOST --uninstall", "tests/flash/run.sh"),
    ("tar xzf", "tests/flash/run.sh"),
    ("cd pandaproxy-", "tests/flash/run.sh"),
    ("sudo ./install.sh --config", "tests/flash/run.sh"),
    ("sudo ./install.sh --uninstall", "tests/flash/run.sh"),
    ("logread", "tests/flash/run.sh"),
    ("cp .env.example", "tests/container/run.sh"),
    ("docker compose up", "tests/container/run.sh"),
    ("docker compose logs", "tests/container/run.sh"),
    ("boards/slicer/trust.sh", "tests/slicer/run.sh"),
    ("target/release/pandaproxy", "tests/program/readme.rs"),
    ("sudo pandaproxy ca > ", "tests/program/readme.rs"),
    ("sudo pandaproxy ca", "tests/program/readme.rs"),
    ("pandaproxy ca", "tests/program/readme.rs"),
    ("sudo pandaproxy check", "tests/program/readme.rs"),
    ("sudo pandaproxy status", "tests/program/readme.rs"),
    ("pandaproxy health", "tests/program/readme.rs"),
    ("pandaproxy record", "tests/program/readme.rs"),
    ("pandaproxy --help", "tests/program/readme.rs"),
    ("pandaproxy --budget", "tests/program/readme.rs"),
    ("pandaproxy --limits", "tests/program/readme.rs"),
    ("mosquitto_sub", "tests/program/readme.rs"),
    ("ACCESS_CODE=CODE cargo run --release --example viewer", "tests/program/readme.rs"),
    ("ffplay", "tests/program/rtsp.rs"),
    ("sudo pandaproxy update", "tests/program/update.rs"),
    ("http://HOST:8080/snapshot.jpg", "tests/program/readme.rs"),
];

/// What README has between back-quotes that is no command, beside paths, options, addresses, and the lines of its table
/// of the log.
const NAMES: [&str; 6] =
    ["bblp", "SHA256SUMS", "CAP_NET_BIND_SERVICE", "KEY=VALUE", "detect", "trust.ps1"];

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

/// README's command of this key, with its placeholders replaced; each of them has to be there.
pub(crate) fn readme(key: &str, replaced: &[(&str, &str)]) -> String {
    let found = Command::new("bash")
        .args(["-c", r#". tests/readme.sh; readme_line "$1""#, "bash", key])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let mut line = String::from_utf8(found.stdout).unwrap().trim_end().to_owned();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    for (from, to) in replaced {
        assert!(line.contains(from), "no {from} in {line:?}");
        line = line.replace(from, to);
    }
    line
}

/// README's lines that are said to be the log's.
fn log_lines() -> Vec<&'static str> {
    let (_, section) = README.split_once("## Troubleshooting").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let cells = section.lines().filter(|line| line.starts_with("| `"));
    cells.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
}

/// A command that no test runs fails here, and so does a test that does not take its command from README.
#[test]
fn readmes_commands_are_each_run_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = Command::new(root.join("tests/readme.sh")).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let mut run = Vec::new();
    for (key, runner) in RUN_BY {
        run.push(readme(key, &[]));
        let text = fs::read_to_string(root.join(runner)).unwrap();
        // The formatter may put the key on a line of its own.
        let text = text.split("readme(").map(str::trim_start).collect::<Vec<_>>().join("readme(");
        let in_shell = ["readme", "readme_line"].map(|word| format!("{word} '{key}'"));
        let takes_it = in_shell.iter().any(|words| text.contains(words))
            || text.contains(&format!("readme(\"{key}\""))
            || runner.ends_with(".yml") && text.contains(key)
            // It runs the commands of the paragraph on containers.
            || runner == "tests/container/run.sh" && text.contains("of_readme");
        assert!(takes_it, "{runner} does not run `{key}` of README.md");
    }
    let log = log_lines();
    let is_name = |words: &str| {
        words.starts_with(['-', '/', '?'])
            || words.starts_with("http://HOST:8080")
            || NAMES.contains(&words)
            || log.contains(&words)
            || root.join(words).exists()
    };
    for command in list.lines() {
        assert!(
            run.iter().any(|run| run == command) || is_name(command),
            "no test runs `{command}` of README.md: see RUN_BY"
        );
    }
    assert!(list.lines().count() > 60, "{list}");
}

/// Issue 12: a page that is read to its end. Details are in the pages of boards/.
#[test]
fn readme_is_short() {
    assert!(README.len() <= MAX_README, "{} bytes", README.len());
}

/// Before a simulated P1S: its proxy, and a folder to run commands in.
struct Bed {
    dir: Rc<StateDir>,
    printer: Printer,
    ports: String,
    printer_ports: String,
    own: u16,
    _closed: Refusing,
    _serving: Vec<JoinHandle<()>>,
}

impl Bed {
    async fn new() -> Self {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (mqtt, serving) = switch_on(&printer, (HOME, 0).into()).await;
        let camera = Camera::new().code(CODE);
        let (chamber, watching) = camera.listen_tls((HOME, 0).into(), Model::P1S).await.unwrap();
        let files = FileServer::new(Family::Esp32).code(CODE);
        let (ftp, filing) = files.listen_tls((HOME, 0).into(), Model::P1S).await.unwrap();
        let _serving = vec![serving, spawn_local(watching), spawn_local(filing)];
        let own = *block(&[HOME]).start();
        let closed = Refusing::new();
        let ports = format!("mqtt={own},chamber={},ftp={},http={}", own + 1, own + 2, own + 3);
        let printer_ports = format!(
            "mqtt={},chamber={},rtsp={},ftp={}",
            mqtt.port(),
            chamber.port(),
            closed.port(),
            ftp.port()
        );
        let bed = Self {
            dir: StateDir::new(),
            printer,
            ports,
            printer_ports,
            own,
            _closed: closed,
            _serving,
        };
        // What the commands call: the program as it was built for this test, and a sudo for root.
        let program = command([""; 0]);
        let words = [program.get_program()].into_iter().chain(program.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        bed.script("pandaproxy", &format!("exec {} \"$@\"", words.join(" ")));
        bed.script("sudo", "exec \"$@\"");
        bed
    }

    fn script(&self, name: &str, line: &str) {
        fs::create_dir_all(self.dir.file("bin")).unwrap();
        let path = self.dir.file("bin").join(name);
        executable(&path, format!("#!/bin/sh\n{line}\n").as_bytes());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.file(name)
    }

    /// A command of README, as a shell's child that is this printer's proxy by its environment.
    fn start(&self, line: &str) -> Program {
        let path = env::join_paths(
            [self.file("bin")].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())),
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.dir.path()).env("PATH", path.unwrap());
        shell.env("PANDAPROXY_STATE_DIR", self.dir.path()).env("PRINTER_IP", "127.0.0.1");
        shell.env("SERIAL_NUMBER", self.printer.serial()).env("BIND_ADDRESS", "127.0.0.1");
        shell.env("PRINTER_CA", PRINTER_CA).env("SERVICES", "mqtt,chamber,ftp,http");
        shell.env("PORTS", &self.ports).env("PRINTER_PORTS", &self.printer_ports);
        shell.env("FTP_MODE", "proxy").env("ACCESS_CODE_FILE", self.file("code"));
        Program::start(&mut shell)
    }

    /// The same to its end, which has to be a good one.
    async fn run(&self, line: &str) -> Said {
        let (code, said) = self.start(line).ended().await;
        let out = String::from_utf8_lossy(&said.out);
        assert_eq!(code, Some(0), "{line}:\n{out}\n{}", said.err);
        said
    }
}

#[test]
fn readmes_commands_work_with_a_printer() {
    proxy::run(async {
        let bed = Bed::new().await;
        fs::write(bed.file("code"), CODE).unwrap();
        let serial = bed.printer.serial();
        let line = readme(
            "target/release/pandaproxy",
            &[
                ("target/release/pandaproxy", "exec pandaproxy"),
                ("PRINTER_IP", "127.0.0.1"),
                ("SERIAL", serial),
                ("FILE", "code"),
            ],
        );
        let mut serving = bed.start(&line);
        serving.line("the printer is connected").await;

        // The first report comes a moment after the login: until then it is not known.
        let check = readme("sudo pandaproxy check", &[]);
        for _ in 0..40 {
            if bed.start(&check).ended().await.0 != Some(3) {
                break;
            }
        }
        let said = bed.run(&check).await;
        let out = String::from_utf8(said.out).unwrap();
        assert!(out.contains("✓ ") && !out.contains("✗ "), "{out}");
        let said = bed.run(&readme("sudo pandaproxy status", &[])).await;
        let out = String::from_utf8(said.out).unwrap();
        assert!(out.contains("P1S"), "{out}");
        assert!(!bed.run(&readme("pandaproxy health", &[])).await.out.is_empty());
        for key in ["--help", "--budget", "--limits"] {
            let line = match key {
                "--help" => readme("pandaproxy --help", &[]),
                "--budget" => readme("pandaproxy --budget", &[]),
                _ => readme("pandaproxy --limits", &[]),
            };
            assert!(bed.run(&line).await.out.len() > 500, "{key}");
        }
        bed.run(&readme("sudo pandaproxy ca > ", &[])).await;
        let authority = fs::read(bed.file("pandaproxy-ca.pem")).unwrap();
        assert_eq!(authority, fs::read(bed.file("ca.pem")).unwrap());
        for line in [readme("sudo pandaproxy ca", &[]), readme("pandaproxy ca", &[])] {
            assert_eq!(bed.run(&line).await.out, authority);
        }
        clients(&bed).await;
        assert!(!serving.log().contains(CODE));

        serving.signal("TERM");
        assert_eq!(serving.ended().await.0, Some(0));
        let mut recording =
            bed.start(&format!("exec {}", readme("pandaproxy record", &[("DIR", "rec")])));
        recording.line("the printer is connected").await;
        recording.signal("TERM");
        assert_eq!(recording.ended().await.0, Some(0));
        assert!(fs::read_dir(bed.file("rec")).unwrap().next().is_some());
    });
}

/// README's lines for other programs, each where it is installed.
async fn clients(bed: &Bed) {
    let port = bed.own.to_string();
    if !is_missing("mosquitto_sub") {
        let replaced = [("HOST", "127.0.0.1"), ("8883", port.as_str()), ("CODE", CODE)];
        let line = readme("mosquitto_sub", &replaced);
        let said = bed.run(&format!("{line} -C 1 -W 20")).await;
        assert!(String::from_utf8(said.out).unwrap().contains("\"print\""));
    }
    if !is_missing("curl") {
        let page = (bed.own + 3).to_string();
        let replaced = [("HOST", "127.0.0.1"), ("8080", page.as_str())];
        let line = readme("http://HOST:8080/snapshot.jpg", &replaced);
        let said = bed.run(&format!("curl -sSf -u bblp:{CODE} {line}")).await;
        assert!(said.out.starts_with(&[0xff, 0xd8]), "a JPEG");
    }
    // Made by `cargo test`, beside the tests themselves.
    let viewer = env::current_exe().unwrap().parent().unwrap().join("../examples/viewer");
    if viewer.exists() {
        let at = format!("127.0.0.1:{}", bed.own + 1);
        let replaced = [
            ("cargo run --release --example viewer --", viewer.to_str().unwrap()),
            ("=CODE", &format!("={CODE}")),
            ("HOST", &at),
        ];
        let line = readme("ACCESS_CODE=CODE cargo run --release --example viewer", &replaced);
        bed.run(&line).await;
        assert!(fs::read(bed.file("picture.jpg")).unwrap().starts_with(&[0xff, 0xd8]));
    } else {
        cannot("the viewer of README is not built");
    }
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
fn the_table_of_boards_is_theirs() {
    let text = include_str!("../../boards/README.md");
    let (_, section) = text.split_once("\n| board | memory limit").unwrap();
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
    let mut found = 0;
    for line in log_lines() {
        for part in line.split('…').map(str::trim).filter(|part| part.len() > 3) {
            found += 1;
            assert!(
                source.contains(part.trim_end_matches([';', ':', ')', '('])),
                "{part:?} of {line:?}"
            );
        }
    }
    assert!(found > 7, "{found} lines");
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
