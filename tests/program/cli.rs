//! The program's commands, exit statuses and messages, apart from serving.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use pandaproxy::board::BOARD;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use skips::is_missing;

use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{
    self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, towards, usual,
};
use printer::{Model, Printer};

const SERIAL: &str = Model::P1S.serial();

// ---- refused starts ----------------------------------------------------------------------------

#[test]
fn invalid_settings_end_with_2_and_one_line_without_the_code() {
    proxy::run(async {
        let ip = ["--printer-ip", "127.0.0.1"];
        for (args, env, words) in [
            (&[][..], &[][..], "missing settings: --printer-ip (or PRINTER_IP), --access-code"),
            (&["--nozzle"], &[], "unknown option --nozzle"),
            (&["-a", CODE, CODE], &[], "unexpected word"),
            (&[ip[0], ip[1], "-s", SERIAL], &[], "--access-code"),
            (&[ip[0], "not an address", "-a", CODE, "-s", SERIAL], &[], "--printer-ip"),
            (&[ip[0], ip[1], "-a", CODE], &[], "--serial-number"),
            (&[ip[0], ip[1], "-a", CODE, "-s", "01P00A3C-12"], &[], "--serial-number"),
            (&[ip[0], ip[1], "-s", SERIAL, "-a", "7Kq2 xW9p"], &[], "--access-code"),
            (
                &[ip[0], ip[1], "-s", SERIAL, "-a", CODE, "--access-code-file", "/x"],
                &[],
                "remove one",
            ),
            (&[ip[0], ip[1], "-s", SERIAL, "-a", CODE, "--port", "mqtt=65536"], &[], "--port"),
            (
                &[ip[0], ip[1], "-s", SERIAL, "-a", CODE, "--printer-port", "mqtt=0"],
                &[],
                "--printer-port",
            ),
            (&[ip[0], ip[1], "-s", SERIAL], &[("ACCESS_CODE", "7Kq2 xW9p")], "ACCESS_CODE"),
            (&[ip[0], ip[1], "-s", SERIAL, "-a", CODE], &[("PORTS", "8883")], "PORTS"),
            (&["--config", "/no/such/file"], &[], "no such file"),
        ] {
            let mut command = command(args);
            command.envs(env.iter().copied());
            let (code, said) = Program::start(&mut command).ended().await;
            assert_eq!(code, Some(2), "{args:?}: {}", said.err);
            assert_eq!(said.err.lines().count(), 1, "{args:?}: {}", said.err);
            assert!(said.err.contains(words), "{args:?}: {}", said.err);
            assert!(said.out.is_empty(), "{args:?}");
            for secret in [CODE, "7Kq2"] {
                assert!(!said.err.contains(secret), "{args:?}: {}", said.err);
            }
        }
    });
}

#[test]
fn a_taken_port_ends_the_start_with_1_and_is_named() {
    proxy::run(async {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let (code, log) = refused_at(port, Vec::new()).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(
            log.contains(&format!("cannot bind port {port}: in use by another program")),
            "{log}"
        );
    });
}

/// After a power cut a board is up before the router is.
#[test]
fn an_address_that_this_machine_does_not_have_yet_is_waited_for() {
    proxy::run(async {
        let dir = StateDir::new();
        let mut args = usual(&Printer::new(Model::P1S), SocketAddr::from((HOME, 9)), &dir);
        let bind = args.iter().position(|word| word == "--bind").unwrap();
        // An address for documentation (RFC 5737).
        args[bind + 1] = "192.0.2.77".to_owned();
        let mut program = Program::start(&mut command(args));
        program.line("does not have the address 192.0.2.77").await;
        program.line("mqtt     listening on ").await;
        program.signal("TERM");
        assert_eq!(program.ended().await.0, Some(0));
    });
}

#[test]
fn a_low_port_without_the_right_to_it_names_the_right() {
    const LOW: u16 = 883;
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() <= LOW {
        skips::cannot("every user may bind low ports here");
        return;
    }
    if is_missing("setpriv") {
        return;
    }
    proxy::run(async {
        let without = ["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps"];
        let without = without.into_iter().chain(["-net_bind_service", "--"]);
        // A user other than root cannot give up the right, and has none.
        let root = fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
        let prefix = if root { without.collect() } else { Vec::new() };
        let (code, log) = refused_at(LOW, prefix).await;
        assert_eq!(code, Some(1), "{log}");
        for words in ["port 883", "CAP_NET_BIND_SERVICE", "--port"] {
            assert!(log.contains(words), "{log}");
        }
    });
}

/// Starts the program on a port that it cannot have; its exit code and log.
async fn refused_at(port: u16, prefix: Vec<&str>) -> (Option<i32>, String) {
    let dir = StateDir::new();
    let mut args = towards(SocketAddr::from((HOME, 9)), &dir);
    args.extend(["-a", CODE, "-s", SERIAL, "--port", &format!("mqtt={port}")].map(str::to_owned));
    let mut plain = command(args);
    let mut start = match prefix.split_first() {
        None => plain,
        Some((program, more)) => {
            let mut start = Command::new(program);
            start.args(more).arg(plain.get_program()).args(plain.get_args());
            plain.env_clear();
            start
        }
    };
    let (code, Said { err, .. }) = Program::start(&mut start).ended().await;
    (code, err)
}

// ---- commands that print -----------------------------------------------------------------------

#[test]
fn the_version_names_the_board_and_help_names_no_code() {
    proxy::run(async {
        let (code, said) = Program::start(&mut command(["--version"])).ended().await;
        let out = String::from_utf8(said.out).unwrap();
        assert_eq!(code, Some(0));
        assert!(out.starts_with("pandaproxy ") && out.contains(BOARD.name), "{out}");
        let mut help = command(["--help"]);
        help.env("ACCESS_CODE", CODE);
        let (code, said) = Program::start(&mut help).ended().await;
        assert_eq!(code, Some(0));
        assert!(!String::from_utf8(said.out).unwrap().contains(CODE));
    });
}

#[test]
fn the_lines_of_the_budget_add_up_to_the_sum_below_them() {
    proxy::run(async {
        let (code, said) = Program::start(&mut command(["--budget"])).ended().await;
        assert_eq!(code, Some(0));
        let out = String::from_utf8(said.out).unwrap();
        let last = |line: &str| line.split_whitespace().last().unwrap().parse::<usize>().unwrap();
        let find = |begin: &str| last(out.lines().find(|line| line.starts_with(begin)).unwrap());
        let mut bytes = 0;
        let mut lines = 0;
        let counted = out.lines().skip(2).take_while(|line| !line.starts_with("sum"));
        for line in counted {
            let (count, rest) = line.split_once('×').unwrap();
            let (each, kib) = rest.split_once('=').unwrap();
            let held = last(count) * last(each);
            assert_eq!(held.div_ceil(1024), last(kib), "{line}");
            bytes += held;
            lines += 1;
        }
        assert!(lines > 10, "{out}");
        assert_eq!(bytes.div_ceil(1024), find("sum"), "{out}");
        assert!(find("sum") <= find("limit of the board"), "{out}");
    });
}

/// Guards: a bundle of authorities without a last newline is spoilt by appending to it.
#[test]
fn ca_prints_the_authority_that_serves_and_makes_none() {
    if is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let dir = StateDir::new();
        let before = || fs::read_dir(dir.path()).unwrap().count();
        let files = before();
        let ca = || {
            let mut ca = command(["ca", "--state-dir"]);
            ca.arg(dir.path());
            ca
        };
        let (code, said) = Program::start(&mut ca()).ended().await;
        assert_eq!((code, said.out.len()), (Some(1), 0), "{}", said.err);
        let path = dir.path().to_str().unwrap();
        assert!(said.err.contains(path) && said.err.contains("start the service"), "{}", said.err);
        assert_eq!(before(), files, "nothing is made");

        let args = usual(&Printer::new(Model::P1S), SocketAddr::from((HOME, 9)), &dir);
        let proxy = Proxy::start(command(args), dir.clone()).await;
        let (code, said) = Program::start(&mut ca()).ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "nothing is relayed: {}", said.err);
        let mut relayed = ca();
        relayed.args(["-p", "127.0.0.1", "-a", CODE, "-s", Model::H2D.serial()]);
        let (code, more) = Program::start(&mut relayed).ended().await;
        assert_eq!((code, &more.out), (Some(0), &said.out));
        let words = format!("printer {}: not seen yet; slicers need", Model::H2D.serial());
        assert!(more.err.contains(&words), "{}", more.err);
        let printed = dir.file("printed.pem");
        fs::write(&printed, &said.out).unwrap();
        let mut openssl = Command::new("openssl");
        openssl
            .args(["x509", "-noout", "-subject", "-sha256", "-fingerprint", "-in"])
            .arg(&printed);
        let (code, shown) = Program::start(&mut openssl).ended().await;
        let shown = String::from_utf8(shown.out).unwrap();
        assert!(code == Some(0) && shown.contains("PandaProxy CA"), "{shown}");
        let sha256 = shown.trim().rsplit('=').next().unwrap();
        assert!(said.err.contains(sha256), "{shown}: {}", said.err);
        for kind in ["ECDSA+SHA256", "RSA-PSS+SHA256"] {
            let mut verify = Command::new("openssl");
            verify.args(["s_client", "-verify_return_error", "-verify_ip", "127.0.0.1"]);
            verify.args(["-sigalgs", kind, "-CAfile"]).arg(&printed);
            verify.args(["-connect", &proxy.address.to_string()]);
            let (code, said) = Program::start(&mut verify).ended().await;
            assert_eq!(code, Some(0), "{kind}: {}", said.err);
        }
    });
}

// ---- sources of settings -----------------------------------------------------------------------

#[test]
fn settings_come_from_a_file_the_environment_or_a_code_file() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let port = format!("mqtt={}", address.port());
        let settings = |dir: &StateDir| {
            [
                ("PRINTER_IP", "127.0.0.1".to_owned()),
                ("ACCESS_CODE", CODE.to_owned()),
                ("SERIAL_NUMBER", SERIAL.to_lowercase()),
                ("BIND_ADDRESS", "127.0.0.1".to_owned()),
                ("SERVICES", "mqtt".to_owned()),
                ("PORTS", "mqtt=0".to_owned()),
                ("PRINTER_PORTS", port.clone()),
                ("PRINTER_CA", PRINTER_CA.to_owned()),
                ("PANDAPROXY_STATE_DIR", dir.path().to_str().unwrap().to_owned()),
            ]
        };
        let dir = StateDir::new();
        let mut text = String::from("\u{feff}# What the printer's screen shows\r\n\r\n");
        for (name, value) in settings(&dir) {
            text += &format!("{name} = \"{value}\"\r\n");
        }
        let file = dir.file("pandaproxy.env");
        fs::write(&file, text).unwrap();
        let mut from_file = command(["--config"]);
        from_file.arg(&file);
        let from_file = Proxy::start(from_file, dir).await;
        from_file.live().await;
        from_file.reader(HOME, "of the file").await.report().await;

        let dir = StateDir::new();
        let mut environment = command(["-v"]);
        environment.envs(settings(&dir));
        let environment = Proxy::start(environment, dir).await;
        environment.live().await;
        environment.reader(HOME, "of the environment").await.report().await;

        let dir = StateDir::new();
        let file = dir.file("code");
        fs::write(&file, format!("\u{feff}{CODE}\r\nand a note\r\n")).unwrap();
        let mut args = towards(address, &dir);
        args.extend(["-s", SERIAL, "--port", "mqtt=0", "--access-code-file"].map(str::to_owned));
        let mut code_file = command(args);
        code_file.arg(&file);
        let code_file = Proxy::start(code_file, dir).await;
        code_file.live().await;
        code_file.reader(HOME, "of the code file").await.report().await;

        for proxy in [from_file, environment, code_file] {
            assert!(!proxy.program.log().contains(CODE), "{}", proxy.program.log());
        }
    });
}

#[test]
fn the_state_is_private_and_the_same_at_the_next_start() {
    proxy::run(async {
        let dir = StateDir::new();
        let nowhere = SocketAddr::from((HOME, 9));
        let printer = Printer::new(Model::P1S);
        let files = ["ca.key", "ca.pem", "ecdsa.key", "ecdsa.pem", "rsa.key", "rsa.pem"];
        let mut before = None;
        for start in 1..=2 {
            let args = usual(&printer, nowhere, &dir);
            let mut proxy = Proxy::start(command(args), std::rc::Rc::clone(&dir)).await;
            for entry in fs::read_dir(dir.path()).unwrap() {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{:?} at start {start}", entry.path());
            }
            let contents = files.map(|name| fs::read(dir.file(name)).unwrap());
            assert!(before.replace(contents.clone()).is_none_or(|before| before == contents));
            proxy.program.signal("TERM");
            assert_eq!(proxy.program.ended().await.0, Some(0));
        }
    });
}

// ---- service managers --------------------------------------------------------------------------

#[test]
fn sigusr1_prints_the_journal_and_it_goes_on_serving() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let proxy = Proxy::before(&printer, address, &[]).await;
        proxy.live().await;
        for round in 1..=2 {
            proxy.program.signal("USR1");
            proxy.program.lines("journal, the last", round).await;
            proxy.program.lines("2 started", round).await;
            proxy.program.lines("1 printer up", round).await;
            let mut reader = proxy.reader(HOME, "reader").await;
            reader.report().await;
        }
        assert!(!proxy.program.log().contains(CODE));
    });
}

/// Guards: readiness is reported too early.
#[test]
fn sighup_is_ignored_and_logged() {
    proxy::run(async {
        let dir = StateDir::new();
        let args = usual(&Printer::new(Model::P1S), SocketAddr::from((HOME, 9)), &dir);
        let mut proxy = Proxy::start(command(args), dir).await;
        proxy.program.signal("HUP");
        proxy.program.line("SIGHUP ignored; restart to read changed settings").await;
        proxy.program.signal("TERM");
        assert_eq!(proxy.program.ended().await.0, Some(0));
    });
}

#[test]
fn systemd_hears_that_it_is_ready_and_alive_and_stopping() {
    proxy::run(async {
        let dir = StateDir::new();
        let path = dir.file("n");
        let socket = UnixDatagram::bind(&path).unwrap();
        let hear = async || {
            let mut message = [0; 256];
            let len = timeout(PATIENCE, socket.recv(&mut message)).await.unwrap().unwrap();
            String::from_utf8(message[..len].to_vec()).unwrap()
        };
        let args = usual(&Printer::new(Model::P1S), SocketAddr::from((HOME, 9)), &dir);
        let mut start = command(args);
        start.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
        let mut program = Program::start(&mut start);
        // A slow board makes its keys first.
        assert!(hear().await.starts_with("EXTEND_TIMEOUT_USEC="));
        // After READY a client may connect: the port is bound by then.
        assert_eq!(hear().await.trim(), "READY=1");
        program.line("mqtt     listening on ").await;
        for _ in 0..3 {
            assert_eq!(hear().await.trim(), "WATCHDOG=1");
        }
        program.signal("TERM");
        while hear().await.trim() != "STOPPING=1" {}
        assert_eq!(program.ended().await.0, Some(0));
    });
}
