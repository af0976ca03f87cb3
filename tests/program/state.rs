//! The state directory of the real program: its owner, messages when it cannot be used, and the effect of a slow disk
//! stops.

use core::net::SocketAddr;
use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use tokio::task::spawn_local;
use tokio::time::sleep;

use printer::{Model, Printer};
use skips::is_missing;

use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{self, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, usual};

/// No printer.
fn nowhere() -> SocketAddr {
    SocketAddr::from((HOME, 9))
}

/// The same program within namespaces of its own, after this script; `None` where that is not allowed.
pub(crate) fn inside(script: &str, command: &Command) -> Option<Command> {
    if is_missing("unshare") || is_missing("ip") {
        return None;
    }
    let unshare = |words: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "--mount"]).args(words);
        unshare
    };
    let tried = unshare(&["true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        skips::cannot("namespaces are not allowed here");
        return None;
    }
    let script = format!("set -e; {script}; exec \"$@\"");
    let mut inside = unshare(&["sh", "-c", &script, "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    Some(inside)
}

#[test]
fn a_second_instance_names_the_first_and_ends() {
    proxy::run(async {
        let (dir, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let args = usual(&printer, nowhere(), &dir);
        let mut first = Proxy::start(command(&args), dir.clone()).await;
        let (code, said) = Program::start(&mut command(&args)).ended().await;
        assert_eq!(code, Some(1), "{}", said.err);
        let words = format!(
            "another pandaproxy (pid {}) already uses {} for printer {}; end it",
            first.program.id(),
            dir.path().display(),
            printer.serial()
        );
        assert!(said.err.contains(&words), "{}", said.err);
        // With a directory of its own it serves.
        let other = StateDir::new();
        let args = usual(&printer, nowhere(), &other);
        let _other = Proxy::start(command(args), other).await;
        // After its end the directory is free.
        first.program.signal("TERM");
        assert_eq!(first.program.ended().await.0, Some(0));
        let args = usual(&printer, nowhere(), &dir);
        Proxy::start(command(args), dir).await;
    });
}

#[test]
fn an_unusable_state_directory_is_named_with_the_cause() {
    proxy::run(async {
        let dir = StateDir::new();
        fs::write(dir.file("file"), "").unwrap();
        fs::create_dir_all(dir.file("taken/ca.key")).unwrap();
        for (path, words) in [
            ("file", "a part of the path is not a directory"),
            ("file/state", "a part of the path is not a directory"),
            ("taken", "ca.key: it is not a regular file"),
        ] {
            let mut args = usual(&Printer::new(Model::P1S), nowhere(), &dir);
            let path = dir.file(path).to_str().unwrap().to_owned();
            let at = args.iter().position(|word| word == "--state-dir").unwrap();
            args[at + 1].clone_from(&path);
            let (code, said) = Program::start(&mut command(args)).ended().await;
            assert_eq!(code, Some(1), "{}", said.err);
            let named = format!("state directory {path}: cannot ");
            assert!(said.err.contains(&named) && said.err.contains(words), "{}", said.err);
            assert!(said.err.contains("choose another with --state-dir"), "{}", said.err);
        }
    });
}

/// A disk may hang while the printer's certificate is being pinned.
#[test]
fn a_lock_that_is_held_stops_neither_the_printer_nor_the_log() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(proxy::CODE);
        let (address, serving) = printer.listen_tls(SocketAddr::from((HOME, 0))).await.unwrap();
        let proxy = Proxy::before(&printer, address, &[]).await;
        let lock = File::create(proxy.dir.file("lock")).unwrap();
        lock.lock().unwrap();
        // Up to here the kernel has taken the connection, and the printer has not answered.
        spawn_local(serving);
        proxy.live().await;
        proxy.program.signal("USR1");
        proxy.program.line("journal, the last").await;
        assert!(!proxy.dir.file("pins").exists());
        drop(lock);
        while !proxy.dir.file("pins").exists() {
            sleep(Duration::from_millis(10)).await;
        }
        let pins = fs::read_to_string(proxy.dir.file("pins")).unwrap();
        assert!(pins.starts_with(printer.serial()), "{pins}");
    });
}

/// A card that has become read-only or is full: the certificate for a new name is made in memory.
#[test]
fn a_read_only_or_full_state_directory_serves_a_new_name() {
    if is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let (dir, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let args = usual(&printer, nowhere(), &dir);
        let mut first = Proxy::start(command(&args), dir.clone()).await;
        first.program.signal("TERM");
        assert_eq!(first.program.ended().await.0, Some(0));
        let mut again = command(&args);
        again.args(["--advertise-name", "nas.example"]);
        let path = dir.path().display();
        let read_only = format!("mount --bind {path} {path}; mount -o remount,bind,ro {path}");
        let full = format!(
            "cp -a {path} /mnt/state; mount -t tmpfs -o size=64k none {path}; \
             cp -a /mnt/state/. {path}; cat /dev/zero >{path}/rest 2>/dev/null || true"
        );
        for (state, cause) in
            [(read_only, "the file system is read-only"), (full, "no space is left")]
        {
            let script = format!("ip link set lo up; mount -t tmpfs none /mnt; {state}");
            let Some(mut again) = inside(&script, &again) else { return };
            let program = Program::start(&mut again);
            let line = program.line("mqtt     listening on ").await;
            let log = program.log();
            assert!(log.contains("ecdsa.pem is not kept") && log.contains(cause), "{log}");
            let (code, said) =
                verified(&program, &line, &dir, ["-verify_hostname", "nas.example"]).await;
            assert_eq!(code, Some(0), "{}", said.err);
        }
    });
}

/// Has openssl verify a program in its own namespaces, at the address of its line about listening.
async fn verified(
    program: &Program,
    line: &str,
    dir: &StateDir,
    name: [&str; 2],
) -> (Option<i32>, Said) {
    let at = line.split_once(" on ").unwrap().1.split(',').next().unwrap();
    let mut verify = Command::new("nsenter");
    verify.args(["--target", &program.id().to_string(), "--net", "--user", "openssl"]);
    verify.args(["s_client", "-verify_return_error"]).args(name).args(["-connect", at]);
    verify.arg("-CAfile").arg(dir.file("ca.pem"));
    Program::start(&mut verify).ended().await
}

#[test]
fn the_certificate_has_every_address_of_the_machine() {
    if is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let (dir, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let addresses = "ip link set lo up; ip address add 198.51.100.7/24 dev lo; \
                         ip address add 203.0.113.9/32 dev lo";
        let args = usual(&printer, nowhere(), &dir);
        let Some(mut start) = inside(addresses, &command(args)) else { return };
        let program = Program::start(&mut start);
        let line = program.line("mqtt     listening on ").await;
        for address in ["198.51.100.7", "203.0.113.9", "127.0.0.1"] {
            let (code, said) = verified(&program, &line, &dir, ["-verify_ip", address]).await;
            assert_eq!(code, Some(0), "{address}: {}", said.err);
        }
    });
}

/// A client that verifies names may use any of this machine's.
#[test]
fn the_certificate_has_all_names_and_a_refused_one_is_logged() {
    if is_missing("openssl") || is_missing("hostname") {
        return;
    }
    proxy::run(async {
        let (dir, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let mut args = usual(&printer, nowhere(), &dir);
        args.extend(["--advertise-name", "NAS.example,print.example"].map(str::to_owned));
        let proxy = Proxy::start(command(args), dir.clone()).await;
        let (_, said) = Program::start(&mut Command::new("hostname")).ended().await;
        let host = String::from_utf8(said.out).unwrap().trim().to_ascii_lowercase();
        let local = format!("{}.local", host.split('.').next().unwrap());
        let mut names = vec!["nas.example", "print.example", "localhost", printer.serial()];
        if host != "localhost" {
            names.extend([host.as_str(), local.as_str()]);
        }
        let verify = async |name: &str| {
            let mut verify = Command::new("openssl");
            verify.args(["s_client", "-verify_return_error", "-verify_hostname", name]);
            verify.args(["-servername", name, "-connect", &proxy.address.to_string()]);
            verify.arg("-CAfile").arg(dir.file("ca.pem"));
            Program::start(&mut verify).ended().await.0
        };
        for name in names {
            assert_eq!(verify(name).await, Some(0), "{name}");
        }
        assert_ne!(verify("elsewhere.example").await, Some(0));
        let line = proxy.program.line("it asks for elsewhere.example").await;
        assert!(line.contains("add it with --advertise-name"), "{line}");
        assert!(!proxy.program.log().contains("certificate not trusted"), "{line}");
    });
}

#[test]
fn proxies_with_one_ca_dir_print_and_show_one_authority() {
    proxy::run(async {
        let (shared, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let ca = shared.path().to_str().unwrap();
        let mut running = Vec::new();
        for _ in 0..2 {
            let dir = StateDir::new();
            let mut start = command(usual(&printer, nowhere(), &dir));
            let program = Program::start(start.args(["--ca-dir", ca]));
            let line = program.line("mqtt     listening on ").await;
            let at: SocketAddr =
                line.split_once(" on ").unwrap().1.split(',').next().unwrap().parse().unwrap();
            let mut health = command(["-p", "127.0.0.1", "-s", printer.serial(), "health"]);
            health.args(["-b", "127.0.0.1", "--services=mqtt", "--printer-ca", PRINTER_CA]);
            health.args(["--port", &format!("mqtt={}", at.port()), "--ca-dir", ca]);
            health.env("ACCESS_CODE", proxy::CODE);
            let (code, said) = Program::start(&mut health).ended().await;
            assert_eq!(code, Some(0), "{}", said.err);
            assert!(!dir.file("ca.key").exists());
            running.push((program, dir));
        }
        let (code, said) = Program::start(&mut command(["ca", "--ca-dir", ca])).ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        assert_eq!(said.out, fs::read(shared.file("ca.pem")).unwrap());
        // Root may be asked to print what the service's user put there.
        fs::rename(shared.file("ca.pem"), shared.file("moved.pem")).unwrap();
        symlink(shared.file("moved.pem"), shared.file("ca.pem")).unwrap();
        let (code, said) = Program::start(&mut command(["ca", "--ca-dir", ca])).ended().await;
        assert_eq!((code, said.out.len()), (Some(1), 0));
        assert!(said.err.contains("it is a symbolic link"), "{}", said.err);
    });
}

/// The system's resolver waits for a router that does not answer; systemd waits ten seconds for the end.
#[test]
fn a_name_that_is_being_looked_up_does_not_delay_the_end() {
    proxy::run(async {
        let (dir, printer) = (StateDir::new(), Printer::new(Model::P1S));
        let mut args = usual(&printer, nowhere(), &dir);
        let ip = args.iter().position(|word| word == "--printer-ip").unwrap();
        args[ip + 1] = "printer.example".to_owned();
        let resolver = dir.file("resolv.conf");
        fs::write(&resolver, "nameserver 192.0.2.53\noptions timeout:30 attempts:3\n").unwrap();
        let names = dir.file("nsswitch.conf");
        fs::write(&names, "hosts: dns\n").unwrap();
        let silent = format!(
            "mount --bind {} /etc/resolv.conf; \
             [ ! -e /etc/nsswitch.conf ] || mount --bind {} /etc/nsswitch.conf; \
             ip link set lo up; ip route add 192.0.2.0/24 dev lo",
            resolver.display(),
            names.display()
        );
        let Some(mut start) = inside(&silent, &command(args)) else { return };
        let mut program = Program::start(&mut start);
        program.line("mqtt     listening on ").await;
        // The thread of the resolver is there.
        let threads = format!("/proc/{}/task", program.id());
        while fs::read_dir(&threads).unwrap().count() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        program.signal("TERM");
        assert_eq!(program.ended().await.0, Some(0));
    });
}

/// Guards: the journal's times are those of the log.
#[test]
fn the_journal_has_the_dates_that_the_clock_shows() {
    proxy::run(async {
        let date = async || {
            let mut date = Command::new("date");
            let (_, said) = Program::start(date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])).ended().await;
            String::from_utf8(said.out).unwrap().trim().to_owned()
        };
        let printer = Printer::new(Model::P1S).code(proxy::CODE);
        let before = date().await;
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let proxy = Proxy::before(&printer, address, &[]).await;
        proxy.live().await;
        // Events have the time of the second that they fall into.
        sleep(Duration::from_secs(2)).await;
        proxy.program.signal("USR1");
        proxy.program.line("heap: held").await;
        let after = date().await;
        for words in [" started: PandaProxy", " printer up: "] {
            let line = proxy.program.line(words).await;
            let at = line.split(words).next().unwrap().rsplit(' ').next().unwrap().to_owned();
            assert!(before <= at && at <= after, "{before} {at} {after}: {line}");
        }
    });
}
