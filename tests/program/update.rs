//! `pandaproxy update` with real programs before a stand-in of systemctl: whatever is interrupted or fails, a program that
//! works is at its path, and the service runs it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::SocketAddr;
use core::time::Duration;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::clients::ports::block;
use crate::clients::programs::{PATIENCE, Program, executable};
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, StateDir, switch_on};
use crate::readme::readme;
use printer::{Model, Printer};
use skips::is_missing;

const BOARD: &str = env!("BOARD");

/// Stands in for systemd with one unit, or those of the file `units`: each is the same process but for those called
/// `other`, which are another program's.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -u
pid=$(cat DIR/pid 2>/dev/null || true)
lives() { grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status"; }
[ ! -e DIR/silent ] || exec sleep 600
[ ! -e DIR/failing ] || { echo 'Failed to connect to bus' >&2; exit 1; }
[ ! -e DIR/nameless ] || [ "$1" != show ] || exit 5
case $1 in
list-units) ! lives || cat DIR/units 2>/dev/null || echo 'pandaproxy.service loaded active running PandaProxy' ;;
show) case $* in *other*) echo $$ ;; *) if lives; then echo "$pid"; else echo 0; fi ;; esac ;;
is-failed) ! lives ;;
reset-failed) ;;
restart)
    while [ -e DIR/hold ]; do sleep 0.1; done
    if lives; then kill "$pid"; fi
    for _ in $(seq 100); do lives || break; sleep 0.1; done
    BEFORE >>DIR/log 2>&1
    DIR/start >>DIR/log 2>&1 </dev/null &
    echo $! >DIR/pid
    ;;
esac
"#;

/// What else starts the program: `install.sh` and the package put these in place.
const UNIT: &str = include_str!("../../boards/service/pandaproxy.service");
const OF_SEVERAL: &str = include_str!("../../boards/service/pandaproxy@.service");
const SYSTEM_V: &str = include_str!("../../boards/service/pandaproxy.init");
const OPENRC: &str = include_str!("../../boards/service/pandaproxy.openrc");

/// What a unit or script runs before the program to resume an update; `:` if nothing.
fn resumes(script: &str) -> &str {
    let line = script.lines().find(|line| line.contains(" update --resume")).unwrap_or(":");
    // As root, and whatever comes of it.
    line.strip_prefix("ExecStartPre=-+").unwrap_or(line)
}

/// A program that calls itself the new version, and does `MORE` besides.
const STUB: &str = r#"#!/bin/sh
case $1 in
--version) echo 'pandaproxy NEW (board BOARD)'; exit ;;
health) exit 1 ;;
esac
MORE
"#;

/// The version of the update: as long as this program's, and later.
fn new_version() -> String {
    let own = env!("PANDAPROXY_VERSION");
    own.replacen(|c: char| c.is_ascii_digit(), "9", 1)
}

/// A service on this machine.
struct Bed {
    dir: Rc<StateDir>,
    printer: Option<JoinHandle<()>>,
    old: Vec<u8>,
    _model: Printer,
}

impl Bed {
    /// `None` where the program does not run by itself.
    async fn new() -> Option<Self> {
        if env::var_os("PANDAPROXY_RUNNER").is_some() {
            skips::cannot("an emulated program's file is not that of its process");
            return None;
        }
        let dir = StateDir::new();
        let path = dir.path().to_str().unwrap();
        let old = fs::read(proxy::command([""; 0]).get_program()).unwrap();
        let model = Printer::new(Model::P1S).code(CODE);
        let (address, serving) = switch_on(&model, SocketAddr::from((HOME, 0))).await;
        let own = *block(&[HOME]).start();
        let port = address.port();
        let start = format!(
            "#!/bin/sh\nACCESS_CODE={CODE} exec {path}/pandaproxy -p 127.0.0.1 -s {} -b 127.0.0.1 \
             --printer-port mqtt={port} --printer-ca {PRINTER_CA} --state-dir {path} \
             --services mqtt,http --port mqtt={own},http={}\n",
            model.serial(),
            own + 1
        );
        let bed = Self { printer: Some(serving), old, _model: model, dir: Rc::clone(&dir) };
        fs::create_dir(dir.file("bin")).unwrap();
        bed.program("start", start.as_bytes());
        let before = resumes(UNIT).replace("/usr/local/bin/", "DIR/");
        let systemctl = SYSTEMCTL.replace("BEFORE", &before).replace("DIR", path);
        bed.program("bin/systemctl", systemctl.as_bytes());
        bed.program("pandaproxy", &bed.old);
        bed.restart();
        bed.becomes_ready().await;
        Some(bed)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.file(name)
    }

    fn program(&self, name: &str, content: &[u8]) {
        executable(&self.file(name), content);
    }

    /// As a boot does, or `systemctl restart`.
    fn restart(&self) {
        let done = Command::new(self.file("bin/systemctl")).arg("restart").status();
        assert!(done.unwrap().success());
    }

    async fn becomes_ready(&self) {
        for _ in 0..160 {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            let starts = log.rsplit("resume").next().unwrap_or_default();
            if starts.contains("listening on") && self.health().await {
                return;
            }
            sleep(Duration::from_millis(250)).await;
        }
        panic!("not ready: {}", fs::read_to_string(self.file("log")).unwrap_or_default());
    }

    async fn health(&self) -> bool {
        let start = fs::read_to_string(self.file("start")).unwrap();
        let health = start.replace("/pandaproxy ", "/pandaproxy health ");
        self.program("health", health.as_bytes());
        let mut program = Program::start(&mut Command::new(self.file("health")));
        program.ended().await.0 == Some(0)
    }

    /// The old program with another version.
    fn new_program(&self) -> Vec<u8> {
        let own = env!("PANDAPROXY_VERSION").replace('.', "\\.");
        let script = format!("s/{own} (board {BOARD})/{} (board {BOARD})/g", new_version());
        let mut sed = Command::new("sed");
        let done = sed.env("LC_ALL", "C").args(["-e", &script]).arg(self.file("pandaproxy"));
        let program = done.output().unwrap().stdout;
        assert!(program.len() == self.old.len() && program != self.old, "it has its version in it");
        program
    }

    /// Writes an update file and the key that it is verified with.
    fn sign(&self, board: &str, content: &[u8]) {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let hash = digest(&SHA256, content);
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (version, size) = (new_version(), content.len());
        let header = format!(
            "pandaproxy-update 1\nboard {board}\nversion {version}\nsize {size}\nsha256 {hash}\n"
        );
        let signature = STANDARD.encode(key.sign(header.as_bytes()));
        let mut file = format!("{header}signature {signature}\n\n").into_bytes();
        file.extend(content);
        fs::write(self.file("it.update"), file).unwrap();
        let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
        der.extend(key.public_key().as_ref());
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        );
        fs::write(self.file("update.pem"), pem).unwrap();
    }

    /// README's command, with another key than the publisher's.
    fn update(&self, more: &[&str]) -> Program {
        let [program, update] = ["pandaproxy", "it.update"].map(|name| self.file(name));
        let replaced = [
            ("sudo pandaproxy", program.to_str().unwrap()),
            ("FILE.update", update.to_str().unwrap()),
        ];
        let line = readme("sudo pandaproxy update", &replaced);
        let mut command = Command::new("sh");
        // As strict as a machine's umask may be.
        command.args(["-c", &format!("umask 027; exec {line} \"$@\""), "sh"]).args(more);
        command.arg("--key").arg(self.file("update.pem")).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", self.file("bin").display()));
        Program::start(&mut command)
    }

    /// Runs an update. Returns its exit status and all that it printed.
    async fn updated(&self, more: &[&str]) -> (Option<i32>, String) {
        ended(self.update(more)).await
    }

    fn is_old(&self) -> bool {
        fs::read(self.file("pandaproxy")).unwrap() == self.old
    }

    /// Nothing but the program, its old version and what the test has put there is left.
    fn is_settled(&self) -> bool {
        let parts = ["pandaproxy.new", "pandaproxy.updating", "pandaproxy.old.new"];
        parts.iter().all(|part| !self.file(part).exists())
    }
}

async fn ended(mut program: Program) -> (Option<i32>, String) {
    let (code, said) = program.ended().await;
    let shown = format!("{}{}", String::from_utf8_lossy(&said.out), said.err);
    assert!(!shown.contains(CODE), "{shown}");
    println!("exit code {code:?}\n{shown}");
    (code, shown)
}

impl Drop for Bed {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.file("pid")).unwrap_or_default();
        // It may have ended.
        if !pid.trim().is_empty() {
            let _killed = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[test]
fn an_update_takes_the_place_of_the_program() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let new = bed.new_program();
        bed.sign(BOARD, &new);
        let (code, shown) = bed.updated(&["--check"]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("would be replaced"), "{shown}");
        assert!(bed.is_old() && bed.is_settled() && !bed.file("pandaproxy.old").exists());

        let (code, shown) = bed.updated(&[]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(shown.lines().filter(|line| line.starts_with("✓ ")).count(), 6, "{shown}");
        assert!(fs::read(bed.file("pandaproxy")).unwrap() == new);
        let mode = fs::metadata(bed.file("pandaproxy")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "the service's user runs it");
        assert!(fs::read(bed.file("pandaproxy.old")).unwrap() == bed.old && bed.is_settled());
        assert!(bed.health().await);
    });
}

#[test]
fn a_file_that_is_not_for_this_machine_changes_nothing() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let stub = STUB.replace("NEW", &new_version()).replace("BOARD", BOARD);
        let refusing = stub.replace("exit 1 ;;", "echo 'no such setting' >&2; exit 2 ;;");
        for (board, content, words) in [
            ("rpi-zero", "", "for board rpi-zero, not"),
            (
                BOARD,
                "no program",
                "does not run here: it cannot be executed; is it for this machine?",
            ),
            (BOARD, "#!/bin/sh\necho pandaproxy 1", "does not call itself"),
            (BOARD, &refusing, "refused by the new version: no such setting"),
        ] {
            bed.sign(board, format!("{content}\n").as_bytes());
            let (code, shown) = bed.updated(&[]).await;
            assert_eq!(code, Some(1), "{shown}");
            assert!(shown.contains(words), "{shown}");
            assert!(bed.is_old() && bed.is_settled(), "{words}");
        }
        bed.sign(BOARD, stub.as_bytes());
        let mut file = fs::read(bed.file("it.update")).unwrap();
        file.push(b'#');
        fs::write(bed.file("it.update"), &file).unwrap();
        let (code, shown) = bed.updated(&[]).await;
        assert!(code == Some(1) && shown.contains("goes on behind"), "{shown}");
        // Whole, for this board, and a later version than this one all the same.
        file.pop();
        let version = b"\nversion 9";
        let at = file.windows(version.len()).position(|found| found == version).unwrap();
        file[at + version.len() - 1] = b'8';
        fs::write(bed.file("it.update"), &file).unwrap();
        let (code, shown) = bed.updated(&[]).await;
        assert!(code == Some(1) && shown.contains("signature not made by"), "{shown}");
        assert!(bed.is_old() && bed.is_settled() && bed.health().await);
    });
}

#[test]
fn services_that_an_update_cannot_look_after_are_not_left_out() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        bed.sign(BOARD, &bed.new_program());
        let list = |others: u32, own: u32| {
            let line = |name: String| format!("pandaproxy@{name}.service loaded active running\n");
            let others = (0..others).map(|unit| line(format!("other{unit}")));
            let units: String = others.chain((0..own).map(|unit| line(unit.to_string()))).collect();
            fs::write(bed.file("units"), units).unwrap();
        };
        // Those of other programs do not count.
        list(20, 16);
        let (code, shown) = bed.updated(&["--check"]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(shown.matches(" its printer)").count(), 16, "{shown}");
        list(0, 17);
        for more in [&["--check"][..], &[]] {
            let (code, shown) = bed.updated(more).await;
            assert!(code == Some(1) && shown.contains("more than 16 services run"), "{shown}");
            assert!(bed.is_old() && bed.is_settled());
        }
        // More of them than are read.
        list(1000, 0);
        let (code, shown) = bed.updated(&[]).await;
        assert!(code == Some(1) && shown.contains("more than 16 services run"), "{shown}");
        assert!(bed.is_old() && bed.is_settled());
    });
}

/// Without an answer it is not known whether a service runs the program, and none is not the same.
#[test]
fn a_service_manager_that_does_not_answer_ends_the_update() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        bed.sign(BOARD, &bed.new_program());
        fs::write(bed.file("silent"), "").unwrap();
        let (code, shown) = bed.updated(&[]).await;
        assert!(code == Some(1) && shown.contains("systemctl has not answered in 20 s"), "{shown}");
        fs::remove_file(bed.file("silent")).unwrap();
        assert!(bed.is_old() && bed.is_settled() && bed.health().await);
        // It lists a unit, and does not say which process that is.
        fs::write(bed.file("nameless"), "").unwrap();
        let (code, shown) = bed.updated(&[]).await;
        assert!(code == Some(1) && shown.contains("services run: exit status 5; "), "{shown}");
        fs::remove_file(bed.file("nameless")).unwrap();
        assert!(bed.is_old() && bed.is_settled());
        // Where systemd does not run, its failure says that there are no units.
        fs::write(bed.file("failing"), "").unwrap();
        let (code, shown) = bed.updated(&["--check"]).await;
        if PathBuf::from("/run/systemd/system").is_dir() {
            assert!(code == Some(1) && shown.contains("does not say which services"), "{shown}");
        } else {
            assert!(code == Some(0) && shown.contains("is no service"), "{shown}");
        }
    });
}

#[test]
fn a_user_is_told_that_services_need_root() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        bed.sign(BOARD, &bed.new_program());
        let own = fs::metadata("/proc/self").unwrap().uid();
        if own != 0 || is_missing("setpriv") {
            skips::cannot("to become another user needs root");
            return;
        }
        fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(bed.file("pandaproxy")).args(["update", "--check"]).arg(bed.file("it.update"));
        command.arg("--key").arg(bed.file("update.pem")).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", bed.file("bin").display()));
        let (code, shown) = ended(Program::start(&mut command)).await;
        assert_eq!(code, Some(1), "{shown}");
        let words = "settings of the running service pandaproxy cannot be read; run it as root";
        assert!(shown.contains(words), "{shown}");
    });
}

#[test]
fn a_service_that_does_not_tell_about_its_printer_is_said_to() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let start = fs::read_to_string(bed.file("start")).unwrap();
        bed.program("start", start.replace("mqtt,http ", "mqtt ").as_bytes());
        fs::remove_file(bed.file("log")).unwrap();
        bed.restart();
        bed.becomes_ready().await;
        bed.sign(BOARD, &bed.new_program());
        let (code, shown) = bed.updated(&[]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("without http it does not tell about its printer"), "{shown}");
        assert!(shown.contains("with the printer where that is known"), "{shown}");
    });
}

#[test]
fn a_program_that_no_service_runs_is_replaced() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let pid = fs::read_to_string(bed.file("pid")).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
        bed.sign(BOARD, &bed.new_program());
        let (code, shown) = bed.updated(&[]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("none runs this program") && shown.contains("not tried"), "{shown}");
        assert!(!shown.contains("accepts the settings"), "it was shown none: {shown}");
        assert!(!bed.is_old() && bed.is_settled());
    });
}

#[test]
fn a_new_version_that_fails_makes_place_for_the_old() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let stub = STUB.replace("NEW", &new_version()).replace("BOARD", BOARD);
        for (more, name) in [("exit 1", "does not start"), ("exec sleep 600", "is never ready")] {
            bed.sign(BOARD, stub.replace("MORE", more).as_bytes());
            let (code, shown) = bed.updated(&["--within", "3"]).await;
            assert_eq!(code, Some(3), "{name}: {shown}");
            assert!(shown.contains("the old version is back, and ready"), "{name}: {shown}");
            assert!(bed.is_old() && bed.is_settled() && bed.health().await, "{name}");
        }
    });
}

#[test]
fn an_old_version_that_cannot_return_does_at_the_next_start() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let stub = STUB.replace("NEW", &new_version()).replace("BOARD", BOARD);
        bed.sign(BOARD, stub.replace("MORE", "exit 1").as_bytes());
        fs::write(bed.file("hold"), "").unwrap();
        let update = bed.update(&["--within", "3"]);
        let replaced = |said: &crate::clients::programs::Said| {
            String::from_utf8_lossy(&said.out).contains("✓ 5 ")
        };
        assert!(update.until(PATIENCE, replaced).await, "{}", update.log());
        // The old program's copy cannot be written, as on a full disk.
        fs::create_dir(bed.file("pandaproxy.new")).unwrap();
        fs::remove_file(bed.file("hold")).unwrap();
        let (code, shown) = ended(update).await;
        assert_eq!(code, Some(4), "{shown}");
        let words = "the old version could not be put back: ";
        assert!(shown.contains(words) && shown.contains("; it is put back at the next"), "{shown}");
        assert!(!shown.contains("is back") && !bed.is_old(), "{shown}");
        fs::remove_dir(bed.file("pandaproxy.new")).unwrap();
        bed.restart();
        bed.becomes_ready().await;
        assert!(bed.is_old() && bed.is_settled());
    });
}

#[test]
fn every_start_returns_from_an_interrupted_update() {
    let before_start = |unit: &'static str| {
        unit.lines().filter(|line| line.starts_with("ExecStartPre=")).collect::<Vec<_>>()
    };
    assert_eq!(before_start(OF_SEVERAL), before_start(UNIT));
    let dir = StateDir::new();
    let path = dir.path().to_str().unwrap();
    for command in [resumes(UNIT), resumes(SYSTEM_V), resumes(OPENRC)] {
        let command = command.replace("/usr/local/bin", path);
        let old = dir.file("pandaproxy.old");
        let script = format!("#!/bin/sh\necho \"$*\" >>{path}/asked\n");
        executable(&old, script.as_bytes());
        let asked = || {
            let command = format!("set -e; binary={path}/pandaproxy; {command}");
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            let asked = fs::read_to_string(dir.file("asked")).unwrap_or_default();
            let _removed = fs::remove_file(dir.file("asked"));
            asked
        };
        assert_eq!(asked(), "", "no update was interrupted: {command}");
        fs::write(dir.file("pandaproxy.updating"), "trial\n").unwrap();
        assert_eq!(asked(), "update --resume\n", "{command}");
        fs::remove_file(dir.file("pandaproxy.updating")).unwrap();
    }
}

#[test]
fn files_are_signed_only_with_a_key_that_programs_accept() {
    let dir = StateDir::new();
    let path = dir.path().to_str().unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let sh = |script: &str| {
        let script = format!("set -e; cd {path}; {script}");
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        let shown = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&shown).into_owned())
    };
    let made = sh(&format!(
        "mkdir -p boards dist/release pandaproxy-v9-{BOARD}; cp {root}/boards/sign.sh {root}/boards/board.sh boards/
         echo program >pandaproxy-v9-{BOARD}/pandaproxy
         tar -czf dist/release/pandaproxy-v9-{BOARD}.tar.gz pandaproxy-v9-{BOARD}
         openssl genpkey -algorithm ed25519 -out key.pem"
    ));
    assert_eq!(made.0, Some(0), "{}", made.1);
    let update = dir.file(&format!("dist/release/pandaproxy-v9-{BOARD}.update"));
    let sign = "boards/sign.sh --key key.pem v9";
    let verified = || {
        let keys = dir.file("boards/update.pem");
        let mut command = proxy::command([""; 0]);
        command.args(["update", "--verify"]).arg(&update).arg("--key").arg(keys);
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };

    let (code, shown) = sh(sign);
    assert!(code == Some(1) && shown.contains("there is no boards/update.pem"), "{shown}");
    assert!(!update.exists(), "no program would accept it");
    // Other files have their programs elsewhere.
    let (code, shown) = sh("boards/sign.sh --key key.pem --content key.pem --out it v9 card");
    assert_eq!(code, Some(0), "{shown}");

    let (code, shown) =
        sh(&format!("openssl pkey -in key.pem -pubout -out boards/update.pem; {sign}"));
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(verified(), (Some(0), String::new()));
    let fingerprint = shown.lines().find_map(|line| line.strip_prefix("signed by key ")).unwrap();

    for revoked in [format!("revoked {fingerprint}"), format!("  revoked   {fingerprint} \r")] {
        let keys = dir.file("boards/update.pem");
        let before = fs::read_to_string(&keys).unwrap();
        sh(sign);
        fs::write(&keys, format!("{before}{revoked}\n")).unwrap();
        let (code, shown) = verified();
        assert!(code == Some(1) && shown.contains("revoked key"), "{shown}");
        fs::remove_file(&update).unwrap();
        let (code, shown) = sh(sign);
        assert!(code == Some(1) && shown.contains("revokes this key"), "{shown}");
        assert!(!update.exists(), "each program would refuse it");
        fs::write(&keys, before).unwrap();
    }
}

#[test]
fn a_new_version_has_to_reach_the_printer_as_the_old_did() {
    proxy::run(async {
        let Some(mut bed) = Bed::new().await else { return };
        bed.sign(BOARD, &bed.new_program());
        // The old one reaches it, the new one does not.
        for _ in 0..100 {
            let (_, shown) = bed.updated(&["--check"]).await;
            if shown.contains("(with its printer)") {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        fs::write(bed.file("hold"), "").unwrap();
        let update = bed.update(&["--within", "5"]);
        let replaced = |said: &crate::clients::programs::Said| {
            String::from_utf8_lossy(&said.out).contains("✓ 5 ")
        };
        assert!(update.until(PATIENCE, replaced).await, "{}", update.log());
        bed.printer.take().unwrap().abort();
        fs::remove_file(bed.file("hold")).unwrap();
        let (code, shown) = ended(update).await;
        assert_eq!(code, Some(3), "{shown}");
        assert!(shown.contains("the printer is not connected"), "{shown}");
        assert!(bed.is_old() && bed.is_settled());
        // Now the old one does not reach it either.
        let (code, shown) = bed.updated(&[]).await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("(without its printer)") && !bed.is_old(), "{shown}");
    });
}

#[test]
fn an_update_that_is_killed_leaves_a_service() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        let new = bed.new_program();
        bed.sign(BOARD, &new);
        for stage in 1..=6 {
            let update = bed.update(&[]);
            let line = format!("✓ {stage} ");
            let seen = |said: &crate::clients::programs::Said| {
                String::from_utf8_lossy(&said.out).contains(&line)
            };
            assert!(update.until(PATIENCE, seen).await, "stage {stage}: {}", update.log());
            if let Ok(marker) = fs::metadata(bed.file("pandaproxy.updating")) {
                assert_eq!(marker.mode() & 0o077, 0, "no other user may lock it");
            }
            update.signal("KILL");
            drop(update);
            let there = fs::read(bed.file("pandaproxy")).unwrap();
            assert!(there == bed.old || there == new, "stage {stage}: half a program");
            bed.restart();
            bed.becomes_ready().await;
            // An update that was not over is undone at the next start.
            assert!(stage == 6 || bed.is_old(), "stage {stage}");
            assert!(!bed.file("pandaproxy.updating").exists() || stage < 5, "stage {stage}");
        }
    });
}

#[test]
fn a_full_disk_keeps_the_program() {
    proxy::run(async {
        let Some(bed) = Bed::new().await else { return };
        bed.sign(BOARD, &bed.new_program());
        let path = bed.dir.path().display();
        let size = bed.old.len() * 3 / 2;
        let script = format!(
            "set -e; mkdir {path}/small; mount -t tmpfs -o size={size} none {path}/small || exit 77\n\
             cp {path}/pandaproxy {path}/small/; code=0\n\
             for more in --check '--extract {path}/small/out' ''; do\n\
             {path}/small/pandaproxy update {path}/it.update --key {path}/update.pem $more || code=$?\n\
             cmp {path}/pandaproxy {path}/small/pandaproxy; ls {path}/small\n\
             done; exit $code"
        );
        let mut command = Command::new("unshare");
        let (code, shown) = ended(Program::start(command.args(["-m", "sh", "-c", &script]))).await;
        if shown.contains("unshare:") || code == Some(77) {
            skips::cannot("a file system of a small size needs root");
            return;
        }
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("-0.new: no space is left; free some space"), "{shown}");
        // What is needed is said before anything is written, and without an update.
        assert_eq!(shown.matches(" KiB are needed; free some space: df -h").count(), 2, "{shown}");
        let left = shown.lines().filter(|line| *line == "pandaproxy").count();
        assert!(left == 3 && !shown.contains("\npandaproxy."), "{shown}");
    });
}
