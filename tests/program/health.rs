//! `pandaproxy health`, asked about real programs: one that serves, and what may be there instead.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::{Ipv4Addr, SocketAddr};
use std::net::TcpListener;
use std::rc::Rc;
use std::thread;

use crate::clients::ports::Refusing;
use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{
    self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, usual,
};
use printer::{Model, Printer};

#[test]
fn a_proxy_that_serves_is_healthy_however_often_it_is_asked_and_its_log_says_nothing_of_it() {
    /// Past the wrong codes that lock an address out, and past the places on a pre-auth slots.
    const TIMES: usize = 8;
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let mut args = usual(&printer, address, &dir);
        args.extend(["-v", "--enable-all"].map(str::to_owned));
        args.extend(
            ["--port", "chamber=0,rtsp=0,ftp=0", "--ftp-data-ports", "0"].map(str::to_owned),
        );
        // Nobody is there: what the cameras and files of the printer say does not mix with the rest.
        args.extend(["--printer-port", "chamber=9,rtsp=9,ftp=9"].map(str::to_owned));
        let proxy = Proxy::start(command(args), Rc::clone(&dir)).await;
        proxy.live().await;
        let services = started(&proxy.program);
        assert!(services.len() > 2, "{services:?}");
        let ports: Vec<_> = services.iter().map(|(name, port)| format!("{name}={port}")).collect();
        let named: Vec<_> =
            services.iter().map(|(name, port)| format!("{name} on {port}")).collect();

        for _ in 0..TIMES {
            let (code, said) = health(&["--port", &ports.join(",")], &dir).await;
            assert_eq!(code, Some(0), "{}", said.err);
            assert_eq!(
                String::from_utf8(said.out).unwrap(),
                format!("healthy: {}\n", named.join(", "))
            );
            assert_eq!(said.err, "");
        }

        proxy
            .program
            .lines("closed during the TLS handshake (health check)", TIMES * services.len())
            .await;
        let mut reader = proxy.reader(HOME, "somebody who comes later").await;
        reader.report().await;
        // What it writes is read by another thread here.
        proxy.program.line(": client connected").await;
        let log = proxy.program.log();
        let told = log.lines().filter(|line| !line.starts_with("DEBUG"));
        let of_clients = |line: &&str| line.contains("(127.0.0.1)");
        assert_eq!(told.filter(of_clients).count(), 1, "but for who was admitted: {log}");
        drop(reader);
    });
}

#[test]
fn what_is_not_this_proxy_is_named_in_one_line() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S);
        let nowhere = SocketAddr::from((HOME, 9));
        let dir = StateDir::new();
        let own = Proxy::start(command(usual(&printer, nowhere, &dir)), Rc::clone(&dir)).await;
        let elsewhere = StateDir::new();
        let other =
            Proxy::start(command(usual(&printer, nowhere, &elsewhere)), Rc::clone(&elsewhere))
                .await;

        let refusing = Refusing::new();
        let closed_port = refusing.port();
        // Connections wait in its backlog, and nobody ever takes them.
        let mute = listener();
        let no_tls = says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let gone = says(b"");
        let empty = StateDir::new();
        for (dir, port, words) in [
            (&dir, closed_port, "nothing listens"),
            (&dir, other.address.port(), "not signed by the CA"),
            (&dir, port(&mute), "does not answer in time"),
            (&dir, no_tls, "the TLS handshake failed"),
            (&dir, gone, "it hung up"),
            (&dir, 0, "port 0 is any port"),
            (&empty, own.address.port(), "no ca.pem"),
        ] {
            let (code, said) =
                health(&["--services=mqtt", "--port", &format!("mqtt={port}")], dir).await;
            assert_eq!(code, Some(1), "{words}: {}", said.err);
            assert!(said.out.is_empty(), "{words}");
            assert_eq!(said.err.lines().count(), 1, "{words}: {}", said.err);
            let begin = format!("pandaproxy health: mqtt on 127.0.0.1:{port}: ");
            assert!(
                said.err.starts_with(&begin) && said.err.contains(words),
                "{words}: {}",
                said.err
            );
        }

        // MQTT answers, and something else does not.
        let ports = format!("mqtt={},chamber={closed_port}", own.address.port());
        let (code, said) = health(&["--services=mqtt,camera", "--port", &ports], &dir).await;
        assert_eq!(code, Some(1));
        assert!(said.err.contains("chamber on 127.0.0.1") && said.err.contains("nothing listens"));
    });
}

#[test]
fn a_value_that_is_no_good_is_told_as_at_a_start_and_the_code_is_not() {
    proxy::run(async {
        let dir = StateDir::new();
        let (code, said) = health(&["--services=web"], &dir).await;
        assert_eq!(code, Some(2), "{}", said.err);
        assert!(said.err.contains("--services") && said.err.lines().count() == 1, "{}", said.err);
        assert!(!said.err.contains(CODE), "{}", said.err);
    });
}

/// How `pandaproxy health` ends with these options, and what it says.
async fn health(more: &[&str], dir: &StateDir) -> (Option<i32>, Said) {
    let mut command = command(["-p", "127.0.0.1", "-s", Model::P1S.serial(), "-b", "127.0.0.1"]);
    command.env("ACCESS_CODE", CODE).args(["--printer-ca", PRINTER_CA]);
    command.args(more).arg("--state-dir").arg(dir.path()).arg("health");
    Program::start(&mut command).ended().await
}

/// The services that a program says it has started, and their ports.
fn started(program: &Program) -> Vec<(String, u16)> {
    let log = program.log();
    let service = |line: &str| {
        let (before, at) = line.split_once(" listening on ")?;
        let name = before.split_whitespace().last()?;
        let at: SocketAddr = at.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), at.port()))
    };
    log.lines().filter(|line| line.contains("up to")).filter_map(service).collect()
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// Whoever calls there first hears these words, once they have said something, and is closed.
fn says(words: &'static [u8]) -> u16 {
    use std::io::{Read as _, Write as _};
    let listener = listener();
    let port = port(&listener);
    thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        // All of a ClientHello, or closing would be a reset.
        let mut hello = [0; 4096];
        let _heard = caller.read(&mut hello).unwrap();
        caller.write_all(words).unwrap();
    });
    port
}
