//! Discovery over real sockets: printers, the proxy and a slicer, each in a network namespace of its own on one bridge.
//!
//! This needs root and `ip`. The printer and the slicer are this test binary again, started in their namespaces by the
//! two tests that are ignored otherwise.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::{AtomicU32, Ordering};
use std::net::UdpSocket as StdUdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use printer::ssdp::{Announcements, Announcer};
use printer::{Model, Printer};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::spawn_local;

use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, PRINTER_CA, StateDir, command};

/// The environment variable that tells the printer's role its address and model.
const ROLE: &str = "SSDP_TEST_ROLE";

/// A bridge, and machines on it, which are removed in the end.
pub(crate) struct Lan {
    names: Vec<String>,
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

impl Lan {
    /// `None` where this machine does not allow it.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bridge = format!("pp{}n{number}b", std::process::id());
        let lan = Self { names: vec![bridge.clone()] };
        let made = ip(&format!("netns add {bridge}"))
            && ip(&format!("-n {bridge} link add br0 type bridge"))
            && ip(&format!("-n {bridge} link set br0 up"));
        made.then_some(lan)
    }

    /// The name of a new machine with this address.
    pub(crate) fn machine(&mut self, number: u8) -> String {
        let bridge = self.names[0].clone();
        let name = format!("{bridge}{number}");
        self.names.push(name.clone());
        for words in [
            format!("netns add {name}"),
            format!("-n {name} link add eth0 type veth peer name v{number} netns {bridge}"),
            format!("-n {bridge} link set v{number} master br0 up"),
            format!("-n {name} addr add 10.77.0.{number}/24 brd + dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via 10.77.0.254"),
        ] {
            assert!(ip(&words), "ip {words}");
        }
        name
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            let _removed = ip(&format!("netns del {name}"));
        }
    }
}

/// The same command on a machine of the network.
pub(crate) fn on(machine: &str, inner: &Command) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.args(["ip", "netns", "exec", machine]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (name, value) in inner.get_envs() {
        command.envs(value.map(|value| (name, value)));
    }
    command
}

/// One of the two roles below, on a machine of the network.
pub(crate) fn role(machine: &str, test: &str, role: &str) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(ROLE, role);
    let mut command = on(machine, &command);
    command.process_group(0).stdin(Stdio::null());
    Program::start(&mut command)
}

pub(crate) fn own_role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A shared port of this machine, as slicers and printers have it.
pub(crate) fn shared(at: SocketAddrV4) -> StdUdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.into()
}

#[test]
#[ignore = "the printer's role, which the test below starts on another machine"]
fn the_printer_of_a_network() {
    let Some(role) = own_role() else { return };
    let (model, address) = role.split_once(' ').unwrap();
    let address: Ipv4Addr = address.parse().unwrap();
    let (model, of) = match model {
        "p1s" => (Model::P1S, Announcer::P1S),
        _ => (Model::H2D, Announcer::H2D),
    };
    let local = async {
        let printer = Printer::new(model).code(CODE).address(address);
        let (_, serving) = printer.listen_tls((Ipv4Addr::UNSPECIFIED, 8883).into()).await.unwrap();
        spawn_local(serving);
        let socket = shared(SocketAddrV4::new(address, of.source_port()));
        eprintln!("printer {} at {address}", printer.serial());
        let announcements = Announcements::new(of, printer.serial(), address);
        announcements.run(move |text, to| drop(socket.send_to(text, to))).await;
    };
    runtime().block_on(local);
}

#[test]
#[ignore = "the slicer's role, which the test below starts on another machine"]
fn the_slicer_of_a_network() {
    if own_role().is_none() {
        return;
    }
    runtime().block_on(async {
        let socket = shared(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 2021));
        let socket = UdpSocket::from_std(socket).unwrap();
        let mut bytes = [0; 2048];
        eprintln!("slicer listens");
        loop {
            let (len, _) = socket.recv_from(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            let header = |name: &str| {
                let found =
                    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                found.unwrap_or("-").to_owned()
            };
            eprintln!(
                "heard {} at {} by {}, {}",
                header("USN"),
                header("Location"),
                header("DevInf.bambu.com"),
                header("NTS")
            );
        }
    });
}

pub(crate) fn runtime() -> tokio::runtime::LocalRuntime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap()
}

/// Starts a proxy on `machine` for the printer at `address`.
fn proxy_on(machine: &str, serial: &str, address: &str, port: u16, dir: &StateDir) -> Program {
    let port = format!("mqtt={port}");
    let dir = dir.path().to_str().unwrap();
    let inner = command([
        "--printer-ip",
        address,
        "-a",
        CODE,
        "-s",
        serial,
        "--printer-ca",
        PRINTER_CA,
        "--state-dir",
        dir,
        "--services",
        "mqtt,ssdp",
        "--announce",
        "broadcast",
        "--port",
        &port,
    ]);
    Program::start(&mut on(machine, &inner))
}

/// What the slicer has heard so far, one line each.
fn heard(slicer: &Said) -> Vec<&str> {
    slicer.err.lines().filter(|line| line.starts_with("heard ")).collect()
}

#[test]
fn a_slicer_on_a_bridge_hears_the_proxies_last() {
    if skips::is_missing("ip") {
        return;
    }
    let Some(mut lan) = Lan::new() else {
        skips::cannot("make network namespaces and a bridge (root)");
        return;
    };
    proxy::run(async {
        let (p1s, h2d) = (lan.machine(2), lan.machine(4));
        let (proxies, pc, new) = (lan.machine(3), lan.machine(5), lan.machine(9));
        let slicer = role(&pc, "ssdp::the_slicer_of_a_network", "slicer");
        slicer.line("slicer listens").await;
        let first = role(&p1s, "ssdp::the_printer_of_a_network", "p1s 10.77.0.2");
        let second = role(&h2d, "ssdp::the_printer_of_a_network", "h2d 10.77.0.4");
        first.line("printer ").await;
        second.line("printer ").await;
        let dirs = [StateDir::new(), StateDir::new()];
        let serials = [Model::P1S, Model::H2D].map(Model::serial);
        let mut one = proxy_on(&proxies, serials[0], "10.77.0.2", 8883, &dirs[0]);
        let two = proxy_on(&proxies, serials[1], "10.77.0.4", 18883, &dirs[1]);
        // Multicast on 1990 and broadcasts reach both proxies, which share the ports.
        one.line("ssdp: printer announces itself at 10.77.0.2, in LAN mode").await;
        two.line("ssdp: printer announces itself at 10.77.0.4, in LAN mode").await;
        for (serial, own) in serials.into_iter().zip(["10.77.0.2", "10.77.0.4"]) {
            let ours =
                |interface: &str| format!("heard {serial} at 10.77.0.3 by {interface}, ssdp:alive");
            let (regular, answer) = (ours("panda0"), ours(""));
            let both = |slicer: &Said| {
                let lines = heard(slicer);
                lines.contains(&regular.as_str()) && lines.contains(&answer.as_str())
            };
            assert!(slicer.until(PATIENCE, both).await, "{}", slicer.log());
            // The printer's announcements are followed by the proxy's.
            let is_last = |slicer: &Said| {
                let its = format!("heard {serial} ");
                let lines = heard(slicer);
                let last = lines.iter().rfind(|line| line.starts_with(&its));
                last.is_some_and(|line| !line.contains(own))
            };
            assert!(slicer.until(PATIENCE, is_last).await, "{}", slicer.log());
        }
        // The first printer gets another address, and shows the same certificate there.
        drop(first);
        assert!(take_off(&p1s));
        let _moved = role(&new, "ssdp::the_printer_of_a_network", "p1s 10.77.0.9");
        one.line("ssdp: printer found at 10.77.0.9, with its certificate").await;
        one.signal("TERM");
        assert_eq!(one.ended().await.0, Some(0));
        let bye = format!("heard {} at - by -, ssdp:byebye", serials[0]);
        let said_bye = |slicer: &Said| heard(slicer).contains(&bye.as_str());
        assert!(slicer.until(PATIENCE, said_bye).await, "{}", slicer.log());
    });
}

/// Takes a machine off the network.
fn take_off(machine: &str) -> bool {
    ip(&format!("-n {machine} link set eth0 down"))
}
