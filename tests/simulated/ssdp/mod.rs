//! Discovery in virtual time: the proxy's reactions to announcements, its own announcements, and a slicer's view of
//! both.

mod hostile;
mod keeping;
mod studio;

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::runtime::datagram::Datagrams;
use pandaproxy::runtime::launch::Proxy;
use printer::ssdp::{Announcements, Announcer};
use printer::{Model, Printer};
use tokio::io::DuplexStream;
use tokio::task::spawn_local;

use self::studio::Studio;
use crate::lan::chamber::{At, Port};
use crate::lan::datagram::Bound;
use crate::lan::net::SimNet;
use crate::lan::{self, CODE, PROXY, journal_says, pass, root, secs};

/// The printer's address, in the proxy's network.
const PRINTER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 4);

/// Another address that the printer may get.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 77);

/// A PC in the proxy's network.
const PC: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 50);

/// A PC in another network.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 50);

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);

/// A printer with MQTT and announcements, and the proxy before it.
struct Bed {
    net: SimNet,
    printer: Printer,
    announcements: Announcements,
    serial: String,
    of: Announcer,
    more: Vec<String>,
}

impl Bed {
    fn new(of: Announcer) -> Self {
        Self::with(of, &["--announce=broadcast"])
    }

    fn with(of: Announcer, more: &[&str]) -> Self {
        let net = SimNet::new();
        net.air().set_delay(Duration::from_millis(10));
        let model = match of {
            Announcer::P1S => Model::P1S,
            Announcer::A1 => Model::A1Mini,
            Announcer::P2S => Model::X1C,
            Announcer::H2D => Model::H2D,
        };
        let printer = Printer::new(model);
        let at = Port::new(At::Script(serving(&printer)));
        net.put(8883, at);
        net.move_printer(PRINTER.into());
        let serial = printer.serial().to_owned();
        let announcements = Announcements::new(of, &serial, PRINTER);
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        Self { net, printer, announcements, serial, of, more }
    }

    fn start(&self) -> Proxy {
        let mut more = vec!["--services=mqtt,ssdp"];
        more.extend(self.more.iter().map(String::as_str));
        root::start(&self.net, &self.serial, CODE, &more)
    }

    /// Has the printer announce itself from `address`.
    fn announce_from(&self, address: Ipv4Addr) {
        let socket = self.net.air().host(address, self.of.source_port());
        let announcements = self.announcements.clone();
        spawn_local(announcements.run(move |text, to| socket.send(text, to).unwrap()));
    }

    fn announce(&self) {
        self.announce_from(PRINTER);
    }

    /// Starts a slicer on the machine with this address.
    fn studio(&self, on: Ipv4Addr) -> Rc<RefCell<Studio>> {
        let socket = self.net.air().host(on, 2021);
        let studio = Rc::<RefCell<Studio>>::default();
        let its = Rc::clone(&studio);
        spawn_local(async move {
            loop {
                let (bytes, _) = socket.next().await;
                its.borrow_mut().hear(&String::from_utf8_lossy(&bytes));
            }
        });
        studio
    }

    fn listener(&self, on: Ipv4Addr, port: u16) -> Bound {
        self.net.air().host(on, port)
    }
}

fn serving(printer: &Printer) -> Rc<dyn Fn(DuplexStream)> {
    let printer = printer.clone();
    Rc::new(move |stream| {
        let printer = printer.clone();
        spawn_local(async move { printer.serve(stream).await });
    })
}

/// What has arrived, as text.
fn texts(socket: &Bound) -> Vec<String> {
    socket.arrived().into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

/// The value of a header.
fn header<'t>(text: &'t str, name: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_default()
}

#[test]
fn a_printer_fills_what_is_known_about_it() {
    lan::run(async {
        let bed = Bed::with(Announcer::P1S, &["--announce=off"]);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        bed.announce();
        pass(secs(20)).await;
        let status = proxy.status();
        assert_eq!(status.name(), "Workshop");
        assert_eq!(status.model_code(), "C12");
        let announced = status.announced().unwrap();
        assert_eq!((announced.location, announced.signal), (PRINTER, Some(-41)));
        assert_eq!((announced.is_cloud, announced.is_bound), (Some(false), Some(false)));
        let heard = texts(&pc);
        assert!(!heard.is_empty(), "the printer's announcements arrive");
        assert!(heard.iter().all(|text| header(text, "Location") == "10.1.2.4"), "{heard:?}");
        assert_eq!(bed.net.air().sent(), 0, "--announce=off is silent");
        proxy.stop().await;
    });
}

#[test]
fn the_printer_is_announced_with_every_header() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        pass(secs(31)).await;
        let heard = texts(&pc);
        assert!((3..=7).contains(&heard.len()), "each five seconds: {}", heard.len());
        for text in &heard {
            for (name, value) in [
                ("Location", "10.1.2.3"),
                ("USN", &bed.serial),
                ("DevModel.bambu.com", "C12"),
                ("DevSignal.bambu.com", "-44"),
                ("DevConnect.bambu.com", "lan"),
                ("DevBind.bambu.com", "free"),
                ("Devseclink.bambu.com", "secure"),
                ("DevInf.bambu.com", "panda0"),
                ("DevCap.bambu.com", "1"),
                ("NT", "urn:bambulab-com:device:3dprinter:1"),
                ("NTS", "ssdp:alive"),
            ] {
                assert_eq!(header(text, name), value, "{name} in {text}");
            }
            assert!(!header(text, "DevName.bambu.com").is_empty());
            assert!(!header(text, "DevVersion.bambu.com").is_empty());
        }
        proxy.stop().await;
        pass(secs(1)).await;
        let bye = texts(&pc);
        assert_eq!(bye.len(), 1, "{bye:?}");
        assert_eq!(header(&bye[0], "NTS"), "ssdp:byebye");
        assert_eq!(header(&bye[0], "USN"), bed.serial);
    });
}

#[test]
fn named_addresses_are_announced_to_alone() {
    lan::run(async {
        let bed = Bed::with(Announcer::P1S, &["--announce=10.5.0.50"]);
        let (near, far) = (bed.listener(PC, 2021), bed.listener(FAR, 2021));
        let proxy = bed.start();
        pass(secs(31)).await;
        assert!(texts(&near).is_empty());
        let heard = texts(&far);
        assert!(
            heard.len() >= 3 && heard.iter().all(|text| header(text, "Location") == "10.1.2.3")
        );
        proxy.stop().await;
    });
}

#[test]
fn each_network_is_told_its_own_address() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        bed.net.air().set_proxy(&[PROXY, Ipv4Addr::new(10, 5, 0, 3)]);
        let (near, far) = (bed.listener(PC, 2021), bed.listener(FAR, 2021));
        let proxy = bed.start();
        pass(secs(31)).await;
        for (socket, address) in [(near, "10.1.2.3"), (far, "10.5.0.3")] {
            let heard = texts(&socket);
            assert!(heard.len() >= 3, "{heard:?}");
            assert!(heard.iter().all(|text| header(text, "Location") == address), "{heard:?}");
        }
        proxy.stop().await;
    });
}

#[test]
fn the_advertised_address_is_announced() {
    lan::run(async {
        let bed = Bed::with(Announcer::P1S, &["--announce=broadcast", "--advertise-ip=10.9.9.9"]);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        pass(secs(31)).await;
        let heard = texts(&pc);
        assert!(heard.len() >= 3, "{heard:?}");
        assert!(heard.iter().all(|text| header(text, "Location") == "10.9.9.9"), "{heard:?}");
        proxy.stop().await;
    });
}

#[test]
fn a_network_that_comes_later_is_announced_to() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        bed.net.air().set_proxy(&[]);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        pass(secs(60)).await;
        assert!(journal_says(
            "printer not announced: this machine is in no network with broadcasts"
        ));
        assert!(!journal_says("announced to"));
        bed.net.air().set_proxy(&[PROXY]);
        pass(secs(30)).await;
        assert!(texts(&pc).len() >= 3);
        assert!(journal_says("ssdp: printer announced to 10.1.2.255\n"));
        bed.net.air().set_proxy(&[]);
        pass(secs(30)).await;
        assert!(journal_says("printer not announced any more: this machine has left its network"));
        proxy.stop().await;
    });
}

#[test]
fn an_address_of_no_network_is_announced_to_none() {
    lan::run(async {
        for (bind, line) in [
            ("--bind=127.0.0.1", None),
            ("--bind=10.9.9.9", Some("this machine is in no network with the address 10.9.9.9")),
        ] {
            let bed = Bed::with(Announcer::P1S, &["--announce=broadcast", bind]);
            let pc = bed.listener(PC, 2021);
            let proxy = bed.start();
            pass(secs(60)).await;
            assert!(texts(&pc).is_empty(), "{bind}");
            assert!(!journal_says("announced to"), "{bind}");
            assert!(line.is_none_or(journal_says), "{bind}");
            proxy.stop().await;
        }
    });
}

#[test]
fn a_bridged_container_announces_only_when_told() {
    lan::run(async {
        for (announce, is_heard) in [("auto", false), ("broadcast", true)] {
            let bed = Bed::with(Announcer::P1S, &["--announce", announce]);
            bed.net.set_bridged();
            let pc = bed.listener(PC, 2021);
            let proxy = bed.start();
            pass(secs(31)).await;
            assert_eq!(!texts(&pc).is_empty(), is_heard, "{announce}");
            proxy.stop().await;
        }
    });
}

#[test]
fn searches_are_answered() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        pass(secs(20)).await;
        for (port, target) in [(1990, "ssdp:all"), (2021, "urn:bambulab-com:device:3dprinter:1")] {
            let asker = bed.listener(PC, 50_000);
            let search = format!(
                "M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
            );
            asker.send(search.as_bytes(), SocketAddrV4::new(GROUP, port)).unwrap();
            pass(secs(1)).await;
            let answers = texts(&asker);
            assert_eq!(answers.len(), 1, "{target}");
            assert!(answers[0].starts_with("HTTP/1.1 200 OK\r\n"), "{answers:?}");
            assert_eq!(header(&answers[0], "ST"), "urn:bambulab-com:device:3dprinter:1");
            assert_eq!(header(&answers[0], "Location"), "10.1.2.3");
        }
        proxy.stop().await;
    });
}

#[test]
fn a_printer_that_is_gone_is_announced_no_more() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        pass(secs(20)).await;
        assert!(!texts(&pc).is_empty());
        bed.net.move_printer(ELSEWHERE.into());
        bed.printer.cut();
        pass(secs(120)).await;
        let heard = texts(&pc);
        assert_eq!(header(heard.last().unwrap(), "NTS"), "ssdp:byebye", "{}", heard.len());
        pass(secs(60)).await;
        assert!(texts(&pc).is_empty());
        bed.net.move_printer(PRINTER.into());
        pass(secs(120)).await;
        assert!(!texts(&pc).is_empty(), "it is back");
        proxy.stop().await;
    });
}

#[test]
fn a_printer_that_refuses_the_code_is_not_announced() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let pc = bed.listener(PC, 2021);
        let printer = bed.printer.clone().code("other");
        let proxy = bed.start();
        pass(secs(60)).await;
        assert!(texts(&pc).is_empty());
        drop(printer);
        proxy.stop().await;
    });
}

#[test]
fn a_printer_in_cloud_mode_is_not_announced_beside_it() {
    lan::run(async {
        let bed = Bed::with(Announcer::P2S, &["--announce=broadcast,10.5.0.50"]);
        bed.announcements.set_cloud(true);
        let (near, far) = (bed.studio(PC), bed.listener(FAR, 2021));
        bed.announce();
        let proxy = bed.start();
        near.borrow_mut().select(&bed.serial);
        pass(secs(120)).await;
        assert!(journal_says("printer is in cloud mode; not announced on 10.1.2.0/24"));
        assert_eq!(near.borrow().resets, 0);
        let device = near.borrow().device(&bed.serial).unwrap().clone();
        assert_eq!((device.connect_type.as_str(), device.address.as_str()), ("cloud", "10.1.2.4"));
        assert!(!texts(&far).is_empty(), "the other network does not hear that");
        assert_eq!(proxy.status().announced().unwrap().is_cloud, Some(true));
        bed.announcements.set_cloud(false);
        pass(secs(30)).await;
        let device = near.borrow().device(&bed.serial).unwrap().clone();
        assert_eq!((device.connect_type.as_str(), device.address.as_str()), ("lan", "10.1.2.3"));
        proxy.stop().await;
    });
}

#[test]
fn ports_that_are_not_shared_do_not_end_the_start() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        bed.net.air().take(2021);
        bed.net.air().take(1990);
        let pc = bed.listener(PC, 2021);
        let proxy = bed.start();
        pass(secs(31)).await;
        assert!(texts(&pc).len() >= 3, "it announces from another port");
        bed.announce();
        pass(secs(10)).await;
        assert!(proxy.status().announced().is_none(), "and hears nothing");
        bed.net.air().free();
        pass(secs(20)).await;
        assert!(journal_says("ssdp: UDP port 2021 opened"));
        assert!(proxy.status().announced().is_some(), "it hears the printer now");
        proxy.stop().await;
    });
}

#[test]
fn a_printer_is_followed_to_its_new_address() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        bed.announce();
        pass(secs(30)).await;
        assert_eq!(bed.printer.subscribers(), 1);
        bed.net.move_printer(ELSEWHERE.into());
        bed.announcements.set_address(ELSEWHERE);
        bed.printer.cut();
        pass(secs(180)).await;
        assert_eq!(proxy.status().followed(), Some(ELSEWHERE));
        assert_eq!(bed.printer.subscribers(), 1, "MQTT is connected there");
        assert!(journal_says("printer found at 10.1.2.77, with its certificate"));
        // Back again, as after another lease.
        bed.net.move_printer(PRINTER.into());
        bed.announcements.set_address(PRINTER);
        bed.printer.cut();
        pass(secs(240)).await;
        assert_eq!(bed.printer.subscribers(), 1);
        proxy.stop().await;
    });
}

#[test]
fn a_printer_that_answers_is_not_left() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        bed.announcements.set_address(ELSEWHERE);
        let proxy = bed.start();
        bed.announce();
        pass(secs(600)).await;
        assert_eq!(proxy.status().followed(), None);
        assert!(journal_says("printer announced at 10.1.2.77 by 10.1.2.4"));
        assert_eq!(bed.printer.subscribers(), 1);
        proxy.stop().await;
    });
}

#[test]
fn an_address_without_the_certificate_is_never_used() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let attacker = Ipv4Addr::new(10, 1, 2, 66);
        bed.net.put_stranger(IpAddr::V4(attacker));
        let proxy = bed.start();
        pass(secs(30)).await;
        bed.net.move_printer(ELSEWHERE.into());
        bed.announcements.set_address(attacker);
        bed.announce_from(attacker);
        bed.printer.cut();
        pass(secs(1800)).await;
        assert_eq!(proxy.status().followed(), None);
        assert!(journal_says(
            "10.1.2.66 is announced as the printer and does not have its certificate"
        ));
        // The printer is found although the attacker goes on.
        let real = Announcements::new(Announcer::P1S, &bed.serial, ELSEWHERE);
        let socket = bed.net.air().host(ELSEWHERE, 2021);
        spawn_local(real.run(move |text, to| socket.send(text, to).unwrap()));
        pass(secs(240)).await;
        assert_eq!(proxy.status().followed(), Some(ELSEWHERE));
        assert_eq!(bed.printer.subscribers(), 1);
        proxy.stop().await;
    });
}
