//! `pandaproxy check` as a program, before simulated printers on this machine: a good case, and bad ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::rc::Rc;

use crate::clients::ports::{Refusing, block};
use crate::clients::programs::{Program, executable};
use crate::clients::proxy::{
    self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, usual,
};
use printer::camera::Camera;
use printer::ftp::{Family, FileServer};
use printer::{Model, Printer, Quirk};
use serde_json::Value;
use skips::is_missing;
use tokio::task::{JoinHandle, spawn_local};

/// A P1S with its MQTT, its camera and its files, on loopback.
struct Bed {
    printer: Printer,
    mqtt: SocketAddr,
    chamber: SocketAddr,
    ftp: SocketAddr,
    closed: Refusing,
    own: u16,
    dir: Rc<StateDir>,
    _serving: Vec<JoinHandle<()>>,
}

impl Bed {
    async fn new() -> Self {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (mqtt, serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let camera = Camera::new().code(CODE);
        let (chamber, watching) = camera.listen_tls((HOME, 0).into(), Model::P1S).await.unwrap();
        let files = FileServer::new(Family::Esp32).code(CODE);
        files.put("/plate.3mf", b"a plate");
        let (ftp, filing) = files.listen_tls((HOME, 0).into(), Model::P1S).await.unwrap();
        let _serving = vec![serving, spawn_local(watching), spawn_local(filing)];
        let own = *block(&[HOME]).start();
        let (closed, dir) = (Refusing::new(), StateDir::new());
        Self { printer, mqtt, chamber, ftp, closed, own, dir, _serving }
    }

    /// The command line but for serial number, code and state directory.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = command(["check", "-b", "127.0.0.1", "--printer-ca", PRINTER_CA]);
        command.arg("--ftp-mode=proxy").arg("--port").arg(self.own_ports()).args(more);
        command
    }

    fn own_ports(&self) -> String {
        let own = self.own;
        format!("mqtt={own},chamber={},ftp={},http={}", own + 1, own + 2, own + 3)
    }

    /// The printer's ports, some of them others.
    fn ports(&self, mqtt: u16, chamber: u16) -> String {
        let (closed, ftp) = (self.closed.port(), self.ftp.port());
        format!("mqtt={mqtt},chamber={chamber},rtsp={closed},ftp={ftp}")
    }

    /// Starts a check of the printer with other settings than the right ones.
    fn start(&self, ports: &str, serial: &str, code: &str, more: &[&str]) -> Program {
        let mut command = self.command(&["--services=mqtt,chamber,ftp"]);
        command.arg("--state-dir").arg(self.dir.path()).args(more);
        command.args(["-p", "127.0.0.1", "-s", serial, "--printer-port", ports]);
        Program::start(command.env("ACCESS_CODE", code))
    }
}

/// The exit code and the output of a check, which does not show the access code.
async fn outcome(name: &str, mut program: Program) -> (Option<i32>, String) {
    let (code, said) = program.ended().await;
    let out = String::from_utf8(said.out).unwrap();
    for shown in [&out, &said.err] {
        assert!(!shown.contains(CODE) && !shown.contains("8hXq21Lm"), "{shown}");
    }
    println!("---- {name}: exit code {code:?}\n{out}{}", said.err);
    (code, out)
}

/// The line of a stage.
fn line<'a>(out: &'a str, stage: &str) -> &'a str {
    let is_of = |line: &&str| line.split_whitespace().nth(2) == Some(stage);
    out.lines().find(is_of).unwrap_or_else(|| panic!("no {stage} in\n{out}"))
}

#[test]
fn the_printer_is_checked_from_settings_to_files() {
    const OTHER: &str = "8hXq21Lm";
    proxy::run(async {
        let bed = Bed::new().await;
        let serial = Model::P1S.serial();
        let (mqtt, chamber) = (bed.mqtt.port(), bed.chamber.port());
        let right = bed.ports(mqtt, chamber);
        let silent = Printer::new(Model::P1S).code(CODE).with(Quirk::Silence);
        let (without_reports, _serving) = switch_on(&silent, SocketAddr::from((HOME, 0))).await;

        let (code, out) = outcome("good", bed.start(&right, serial, CODE, &[])).await;
        assert_eq!(code, Some(0), "{out}");
        for stage in ["printer", "certificate", "login", "report", "camera", "files", "resources"] {
            assert!(line(&out, stage).starts_with("✓ "), "{out}");
        }
        assert_eq!(out.lines().count(), 12, "one line a stage, and a summary");
        assert!(out.ends_with("11 of 11 stages work\n"), "{out}");
        assert!(!bed.dir.file("ca.pem").exists() && !bed.dir.file("pins").exists());
        assert_eq!((bed.printer.ever(), bed.printer.orderly()), (1, 1));

        let json = bed.start(&right, serial, CODE, &["--json"]);
        let (code, json) = outcome("good, as JSON", json).await;
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((code, parsed["exit_status"].as_i64()), (Some(0), Some(0)));
        assert_eq!(parsed["stages"].as_array().unwrap().len(), 11);
        parsed_by_python(&bed.dir, &json);

        // A file that a setting names is a part of the settings.
        let mut without = command(["check", "--json", "--printer-ca=/nowhere.pem"]);
        without.args(["-p", "127.0.0.1", "-s", serial]).env("ACCESS_CODE", CODE);
        let (code, json) = outcome("no such authority", Program::start(&mut without)).await;
        let parsed: Value = serde_json::from_str(&json).unwrap();
        let first = &parsed["stages"][0];
        assert_eq!((code, first["verdict"].as_str()), (Some(2), Some("failed")));
        assert_eq!(first["text"], "--printer-ca /nowhere.pem: no such file or directory");

        // The others run beside each other.
        let taken = TcpListener::bind((HOME, bed.own)).unwrap();
        let in_use = bed.start(&right, serial, CODE, &[]);
        let closed = bed.closed.port();
        let itself = format!("mqtt={},chamber={chamber},ftp={}", bed.own, bed.ftp.port());
        let cases = [
            (
                "settings",
                "wrong serial's shape",
                bed.start(&right, "01P-00", CODE, &[]),
                2,
                "[settings]",
            ),
            ("ports", "port in use", in_use, 12, "[port-taken]"),
            ("settings", "itself", bed.start(&itself, serial, CODE, &[]), 2, "[itself]"),
        ];
        for (stage, name, program, exit, words) in cases {
            let (code, out) = outcome(name, program).await;
            assert_eq!(code, Some(exit), "{out}");
            let line = line(&out, stage);
            assert!(line.starts_with("✗ ") && line.ends_with(words), "{out}");
            assert!(
                out.ends_with("; TROUBLESHOOTING.md explains the words in brackets\n"),
                "{out}"
            );
            assert_eq!(out.contains("nothing else was checked"), out.lines().count() == 2, "{out}");
            if name == "port in use" {
                assert!(line.contains(&format!("pid {}", std::process::id())), "{out}");
            }
        }
        drop(taken);
        let start = |ports: &str, serial: &str, code: &str| bed.start(ports, serial, code, &[]);
        let cases = [
            (
                "printer",
                "MQTT closed",
                start(&bed.ports(closed, chamber), serial, CODE),
                13,
                "[port-closed]",
            ),
            (
                "certificate",
                "another printer",
                start(&right, "01P00A999999999", CODE),
                14,
                "[wrong-serial]",
            ),
            ("login", "wrong code", start(&right, serial, OTHER), 15, "[wrong-code]"),
            (
                "report",
                "no report",
                start(&bed.ports(without_reports.port(), chamber), serial, CODE),
                16,
                "[no-report]",
            ),
        ];
        for (stage, name, program, exit, words) in cases {
            let (code, out) = outcome(name, program).await;
            assert_eq!(code, Some(exit), "{out}");
            let line = line(&out, stage);
            assert!(line.starts_with("✗ ") && line.ends_with(words), "{out}");
        }
        let no_camera = start(&bed.ports(mqtt, closed), serial, CODE);
        let (code, out) = outcome("camera closed", no_camera).await;
        assert_eq!(code, Some(17), "{out}");
        assert!(line(&out, "camera").ends_with("[port-closed]"), "{out}");
    });
}

/// Python reads the JSON as this test does.
fn parsed_by_python(dir: &StateDir, json: &str) {
    if is_missing("python3") {
        return;
    }
    let file = dir.file("check.json");
    std::fs::write(&file, json).unwrap();
    let script = "import json,sys; print(len(json.load(open(sys.argv[1]))['stages']))";
    let out = Command::new("python3").args(["-c", script]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "11\n");
}

#[test]
fn a_running_services_printer_is_not_logged_in_to_again() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut args = usual(&bed.printer, bed.mqtt, &bed.dir);
        args.retain(|word| !word.starts_with("mqtt=0") && word != "--port");
        args.retain(|word| word != "mqtt" && word != "--services");
        args.extend(["--services=mqtt,http", "--port", &bed.own_ports()].map(str::to_owned));
        let service = Proxy::start(command(args), Rc::clone(&bed.dir)).await;
        service.live().await;
        let right = bed.ports(bed.mqtt.port(), bed.chamber.port());
        let check = |services: &str, dir: &StateDir| {
            let mut command = bed.command(&[services, "-p", "127.0.0.1"]);
            command.args(["-s", Model::P1S.serial(), "--printer-port", &right]);
            Program::start(command.arg("--state-dir").arg(dir.path()).env("ACCESS_CODE", CODE))
        };
        let (code, out) =
            outcome("beside the running service", check("--services=mqtt", &bed.dir)).await;
        assert_eq!(code, Some(3), "it is not known whether the printer works: {out}");
        assert!(line(&out, "printer").starts_with("? "), "{out}");
        let behind = ["certificate", "login", "report", "camera", "files"];
        for stage in behind {
            assert!(line(&out, stage).starts_with("- "), "{out}");
        }
        let last = out.lines().last().unwrap();
        assert!(last.ends_with("; whether the printer can be used is not known"), "{out}");
        assert!(line(&out, "ports").contains("held by the running service"), "{out}");
        assert!(line(&out, "clients").contains("reached at 127.0.0.1"), "{out}");
        // Where it cannot be seen whose service it is, its printer is left alone as well.
        let elsewhere = StateDir::new();
        let (code, out) =
            outcome("with another state directory", check("--services=mqtt", &elsewhere)).await;
        assert_eq!(code, Some(3), "{out}");
        for stage in behind {
            assert!(line(&out, stage).starts_with("- "), "{out}");
        }
        // Over HTTP the service says how the printer is.
        let (code, out) = outcome("with HTTP", check("--services=mqtt,http", &bed.dir)).await;
        assert_eq!(code, Some(0), "{out}");
        for stage in ["printer", "certificate", "login", "report"] {
            assert!(line(&out, stage).starts_with("✓ "), "{out}");
        }
        assert!(line(&out, "report").contains("firmware 01."), "{out}");
        let of_printer = (bed.printer.ever(), bed.printer.open());
        assert_eq!(of_printer, (1, 1), "the service's connection is the only one");
    });
}

/// On a file system of its own: without space, without files, and read-only.
#[test]
fn a_full_disk_is_named_before_something_fails_to_be_written() {
    proxy::run(async {
        let bed = Bed::new().await;
        let (dir, own) = (bed.dir.path().display(), bed.dir.file("state"));
        std::fs::create_dir(&own).unwrap();
        let ports = bed.ports(bed.mqtt.port(), bed.chamber.port());
        for (options, exit, mark, words) in [
            ("size=16m", 0, "✓ ", format!("{dir}/state with 16 MiB free")),
            ("size=100k", 0, "! ", "the disk has only 100 KiB left; free some space".into()),
            ("size=16m,nr_inodes=8", 0, "! ", "the disk takes only 7 more files".into()),
            ("size=16m,ro", 21, "✗ ", "the file system is read-only: the state directory".into()),
        ] {
            let mut check = bed.command(&["--services=mqtt,chamber,ftp", "-p", "127.0.0.1"]);
            check.args(["-s", Model::P1S.serial(), "--printer-port", &ports, "--state-dir"]);
            let mount =
                format!("mount -t tmpfs -o {options} none '{dir}/state' || exit 77; exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(check.get_program());
            command.args(check.get_args()).arg(&own).env("ACCESS_CODE", CODE);
            let (code, out) = outcome(options, Program::start(&mut command)).await;
            if code == Some(77) || out.is_empty() {
                skips::cannot("a file system of a small size needs root");
                return;
            }
            assert_eq!(code, Some(exit), "{out}");
            let line = line(&out, "resources");
            assert!(line.starts_with(mark) && line.contains(&words), "{out}");
        }
    });
}

/// An update puts the new program beside the old one.
#[test]
fn a_disk_without_room_for_an_update_is_named() {
    if std::env::var_os("PANDAPROXY_RUNNER").is_some() {
        skips::cannot("an emulated program's file is not that of its process");
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let (ports, small) =
            (bed.ports(bed.mqtt.port(), bed.chamber.port()), bed.dir.file("small"));
        std::fs::create_dir(&small).unwrap();
        let mut check = bed.command(&["--services=mqtt,chamber,ftp", "-p", "127.0.0.1", "-s"]);
        check.args([Model::P1S.serial(), "--printer-port", &ports, "--state-dir"]);
        check.arg(bed.dir.path());
        let len = std::fs::metadata(check.get_program()).unwrap().len();
        let (size, small) = (len.next_multiple_of(4096) + (1 << 20), small.display());
        let script = format!(
            "mount -t tmpfs -o size={size} none '{small}' || exit 77; cp \"$1\" '{small}/program'; shift\n\
             exec '{small}/program' \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(check.get_program());
        command.args(check.get_args()).env("ACCESS_CODE", CODE);
        let (code, out) = outcome("without room", Program::start(&mut command)).await;
        if code == Some(77) || out.is_empty() {
            skips::cannot("a file system of a small size needs root");
            return;
        }
        assert_eq!(code, Some(0), "{out}");
        let line = line(&out, "resources");
        let needed = (2 * len + 64 * 1024).div_ceil(1 << 20);
        // Some 1024 KiB: a part of the file may have no blocks.
        let words = format!("an update needs {needed} MiB in {small}: the disk has only 10");
        assert!(line.starts_with("! ") && line.contains(&words), "{out}");
        assert!(line.ends_with(" [disk-space]"), "{out}");
    });
}

/// None of these services shows at its port which proxy it is.
#[test]
fn a_running_service_without_mqtt_is_recognised() {
    const SERVICES: &str = "--services=chamber,ftp,http";
    proxy::run(async {
        let bed = Bed::new().await;
        let ports = bed.ports(bed.mqtt.port(), bed.chamber.port());
        let mut service = command(["-b", "127.0.0.1", "--printer-ca", PRINTER_CA, "-a", CODE]);
        service.args(["-p", "127.0.0.1", "-s", Model::P1S.serial(), SERVICES, "--ftp-mode=proxy"]);
        service.args(["--port", &bed.own_ports(), "--printer-port", &ports, "--state-dir"]);
        service.arg(bed.dir.path());
        let _service = Proxy::start_serving("http", service, Rc::clone(&bed.dir)).await;
        let check = |serial: &str| {
            let mut command = bed.command(&[SERVICES, "-p", "127.0.0.1", "-s", serial]);
            command.args(["--printer-port", &ports, "--state-dir"]).arg(bed.dir.path());
            Program::start(command.env("ACCESS_CODE", CODE))
        };
        let (code, out) = outcome("without mqtt", check(Model::P1S.serial())).await;
        assert_eq!(code, Some(3), "the service has not dialled the printer: {out}");
        assert!(line(&out, "ports").contains("held by the running service: chamber"), "{out}");
        assert!(line(&out, "files").contains("the service connects when a client needs"), "{out}");
        assert_eq!(bed.printer.ever(), 0, "it is not logged in to");
        // Another printer's has the ports.
        let (code, out) = outcome("of another printer", check("01P00A999999999")).await;
        assert_eq!(code, Some(12), "{out}");
        let line = line(&out, "ports");
        assert!(
            line.contains("is in use by another proxy of this machine (chamber): pid "),
            "{out}"
        );
        assert!(line.ends_with("of its own (BIND_ADDRESS) [one-address]"), "{out}");
    });
}

/// A service that hangs shows no identity. That of another printer shows another one.
#[test]
fn a_service_that_hangs_is_not_called_another_proxy() {
    proxy::run(async {
        let bed = Bed::new().await;
        let mut args = usual(&bed.printer, bed.mqtt, &bed.dir);
        args.retain(|word| !word.starts_with("mqtt=0") && word != "--port");
        args.extend(["--port", &bed.own_ports()].map(str::to_owned));
        let service = Proxy::start(command(args), Rc::clone(&bed.dir)).await;
        service.live().await;
        let ports = bed.ports(bed.mqtt.port(), bed.chamber.port());
        let check = |serial: &str| {
            let mut command = bed.command(&["--services=mqtt", "-p", "127.0.0.1", "-s", serial]);
            command.args(["--printer-port", &ports, "--state-dir"]).arg(bed.dir.path());
            Program::start(command.env("ACCESS_CODE", CODE))
        };
        let pid = format!("pid {};", service.program.id());
        for (name, serial, words) in [
            ("of another printer", "01P00A999999999", "[one-address]"),
            ("that hangs", Model::P1S.serial(), "[port-taken]"),
        ] {
            if words == "[port-taken]" {
                service.program.signal("STOP");
            }
            let (code, out) = outcome(name, check(serial)).await;
            assert_eq!(code, Some(12), "{out}");
            let line = line(&out, "ports");
            assert!(line.contains(&pid) && line.ends_with(words), "{out}");
        }
    });
}

/// The address is another machine's, whose program answers: a mistyped one, or the printer's own.
#[test]
fn a_program_of_another_machine_is_not_taken_for_the_service() {
    const SCRIPT: &str = r#"ip link set lo up || exit 77
unshare --net sleep 60 & other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
trap 'kill $other $listener' EXIT
ip link add here type veth peer name there netns $other || exit 77
ip addr add 10.9.9.1/24 dev here && ip link set here up
nsenter -t $other -n sh -c 'ip addr add 10.9.9.2/24 dev there && ip link set there up && exec python3 -c "
import socket, time
listener = socket.create_server((\"10.9.9.2\", 28883))
while True: listener.accept()[0].send(b\"hello\")"' & listener=$!
for _ in $(seq 100); do (exec 3<>/dev/tcp/10.9.9.2/28883) 2>/dev/null && break; sleep 0.1; done
"$@" check -b 10.9.9.2 -p 10.9.9.9 -s 01P00A3C1200417 --services mqtt --port mqtt=28883 --state-dir /nowhere
"#;
    for program in ["ip", "unshare", "nsenter", "python3", "bash"] {
        if is_missing(program) {
            return;
        }
    }
    proxy::run(async {
        let plain = command([""; 0]);
        let mut check = Command::new("unshare");
        check.args(["--net", "bash", "-c", SCRIPT, "bash"]).arg(plain.get_program());
        check.args(plain.get_args()).env("ACCESS_CODE", CODE);
        let (code, out) = outcome("at another machine's address", Program::start(&mut check)).await;
        if code == Some(77) || out.is_empty() {
            skips::cannot("networks of their own need root");
            return;
        }
        assert_eq!(code, Some(13), "{out}");
        assert!(line(&out, "ports").ends_with("[no-address]"), "{out}");
        assert!(line(&out, "printer").starts_with("✗ "), "{out}");
    });
}

#[test]
fn another_users_service_is_left_alone_and_root_asked_for() {
    if is_missing("setpriv") || std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        skips::cannot("to become another user needs root");
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let mut args = usual(&bed.printer, bed.mqtt, &bed.dir);
        args.retain(|word| !word.starts_with("mqtt=0") && word != "--port");
        args.extend(["--port", &bed.own_ports()].map(str::to_owned));
        let service = Proxy::start(command(args), Rc::clone(&bed.dir)).await;
        service.live().await;
        // Where another user may run it; behind an emulator, if there is one.
        let plain = command([""; 0]);
        let mut words: Vec<_> =
            core::iter::once(plain.get_program()).chain(plain.get_args()).collect();
        let program = words.pop().unwrap();
        let own = std::env::temp_dir().join(format!("pandaproxy-check-{}", std::process::id()));
        executable(&own, &std::fs::read(program).unwrap());
        let mut check = Command::new("setpriv");
        check.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words).arg(&own);
        check.args(["check", "-b", "127.0.0.1", "-p", "127.0.0.1", "-s", Model::P1S.serial()]);
        check.args(["--services=mqtt", "--port", &bed.own_ports()]).env("ACCESS_CODE", CODE);
        check.arg("--state-dir").arg(bed.dir.path()).current_dir("/");
        let (code, out) = outcome("as another user", Program::start(&mut check)).await;
        std::fs::remove_file(&own).unwrap();
        assert_eq!(code, Some(3), "{out}");
        for (stage, mark) in [("ports", "! "), ("printer", "? ")] {
            let line = line(&out, stage);
            assert!(line.starts_with(mark) && line.ends_with("[hidden]"), "{out}");
            assert!(line.contains("run pandaproxy check with sudo"), "{out}");
        }
        assert!(line(&out, "clients").contains("authority not readable by this user"), "{out}");
        assert_eq!(bed.printer.ever(), 1, "the service's connection is the only one");
    });
}
