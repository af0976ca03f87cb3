//! What any machine on the network may send: bounded work, bounded log lines, and no effect on others.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use pandaproxy::journal::Kind;
use pandaproxy::runtime::datagram::Datagrams;
use printer::ssdp::{Announcements, Announcer};

use super::{Bed, ELSEWHERE, PC, header, texts};
use crate::clients::mqtt::Client;
use crate::lan::weather::Chance;
use crate::lan::{self, PROXY, Tally, WIRE, journal_says, ms, pass, secs};

const ATTACKER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 200);

fn to(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 255), port)
}

/// Whether the proxy still announces the printer, and serves clients.
async fn is_alive(bed: &Bed) {
    let pc = bed.listener(PC, 2021);
    pass(secs(11)).await;
    let regular = |text: &String| header(text, "DevInf.bambu.com") == "panda0";
    assert!(texts(&pc).iter().filter(|text| regular(text)).count() >= 2, "still announced");
    let (near, far) = tokio::io::duplex(WIRE);
    assert!(bed.net.arrive(8883, PC.into(), far));
    drop(Client::subscribed(near, "reader", "#").await);
}

#[test]
fn noise_is_ignored_with_a_line_for_each_origin() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        pass(secs(20)).await;
        let malformed = Tally::of(Kind::Malformed);
        let mut chance = Chance(7);
        let endless = format!("NOTIFY * HTTP/1.1\r\n{}", "a: b\r\n".repeat(10_000));
        let noise: [Vec<u8>; 6] = [
            vec![b'x'; 65_507],
            endless.into_bytes(),
            (0..1400).map(|_| chance.below(256) as u8).collect(),
            vec![0; 512],
            b"NOTIFY * HTTP/1.1\r\nwithout a colon\r\n\r\n".to_vec(),
            Vec::new(),
        ];
        let attacker = bed.listener(ATTACKER, 40_000);
        for n in 0..3000 {
            attacker.send(&noise[n % noise.len()], to([2021, 1990][n % 2])).unwrap();
            if n % 20 == 0 {
                pass(ms(100)).await;
            }
        }
        assert!(malformed.now() >= 1000, "{} were counted", malformed.now());
        assert!(journal_says("ssdp: 10.1.2.200: datagram ignored: longer than 2048 bytes"));
        is_alive(&bed).await;
        proxy.stop().await;
    });
}

#[test]
fn thousands_of_printers_are_no_matter() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        pass(secs(20)).await;
        let socket = bed.listener(ATTACKER, 2021);
        let sent = bed.net.air().sent();
        let others = Tally::of(Kind::Discovery);
        for n in 0..5000_u32 {
            let address = Ipv4Addr::from_bits(0x0a01_0200 | (n & 0xff));
            let other = Announcements::new(Announcer::P2S, &format!("22E00A0000{n:05}"), address);
            socket.send(other.text().as_bytes(), to(2021)).unwrap();
            if n % 100 == 0 {
                pass(ms(100)).await;
            }
        }
        assert_eq!(others.now(), 0, "another printer's are no event");
        assert!(bed.net.air().sent() - sent <= 3, "and are not answered");
        is_alive(&bed).await;
        proxy.stop().await;
    });
}

#[test]
fn a_flood_as_the_printer_is_answered_twice_a_second() {
    lan::run(async {
        let bed = Bed::new(Announcer::P2S);
        let proxy = bed.start();
        pass(secs(20)).await;
        let socket = bed.listener(ATTACKER, 2021);
        let (events, conflicts) = (Tally::of(Kind::Discovery), Tally::of(Kind::DiscoveryConflict));
        let sent = bed.net.air().sent();
        for n in 0..2000_u32 {
            // Each time from elsewhere.
            let address = Ipv4Addr::from_bits(0x0a01_0300 | (n & 0xff));
            let fake = Announcements::new(Announcer::P2S, &bed.serial, address);
            socket.send(fake.text().as_bytes(), to(2021)).unwrap();
            pass(ms(10)).await;
        }
        // Twenty seconds: two answers in each, and a regular one in five.
        let sent = bed.net.air().sent() - sent;
        assert!((30..=46).contains(&sent), "{sent} datagrams were sent");
        assert!(events.now() <= 2 && conflicts.now() <= 2, "{} {}", events.now(), conflicts.now());
        assert_eq!(proxy.status().followed(), None);
        assert_eq!(proxy.status().announced(), None, "nothing is learnt from another address");
        is_alive(&bed).await;
        proxy.stop().await;
    });
}

#[test]
fn searches_are_no_amplifier() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        pass(secs(20)).await;
        let search = b"M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\nST: ssdp:all\r\n\r\n";
        let asker = bed.listener(ATTACKER, 40_000);
        for _ in 0..1000 {
            asker.send(search, to(1990)).unwrap();
            pass(ms(10)).await;
        }
        let answers = texts(&asker).len();
        assert!((8..=11).contains(&answers), "{answers} answers in ten seconds");
        // A hundred addresses at once, in whose names one machine may have sent.
        let askers: Vec<_> =
            (100..200).map(|n| bed.listener(Ipv4Addr::new(10, 1, 2, n), 40_000)).collect();
        pass(secs(2)).await;
        for asker in &askers {
            asker.send(search, SocketAddrV4::new(PROXY, 1990)).unwrap();
        }
        pass(secs(1)).await;
        let answers: usize = askers.iter().map(|asker| texts(asker).len()).sum();
        assert!(answers <= 8, "{answers} answers in a second");
        // An address on the internet is not answered.
        let far = bed.listener(Ipv4Addr::new(198, 51, 100, 7), 40_000);
        pass(secs(2)).await;
        far.send(search, SocketAddrV4::new(PROXY, 1990)).unwrap();
        pass(secs(1)).await;
        assert!(texts(&far).is_empty());
        proxy.stop().await;
    });
}

#[test]
fn another_proxy_of_the_same_printer_is_named() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        let spy = bed.listener(PC, 2021);
        pass(secs(20)).await;
        let conflicts = Tally::of(Kind::DiscoveryConflict);
        // What it announces, from another machine and with its address, a hundred times.
        let ours = texts(&spy).pop().unwrap();
        let theirs = ours.replace("10.1.2.3", "10.1.2.9");
        let other = bed.listener(Ipv4Addr::new(10, 1, 2, 9), 2021);
        let sent = bed.net.air().sent();
        for _ in 0..100 {
            other.send(theirs.as_bytes(), to(2021)).unwrap();
            pass(ms(100)).await;
        }
        assert!(journal_says("another proxy at 10.1.2.9 (10.1.2.9) announces this printer"));
        assert_eq!(conflicts.now(), 1, "logged once in half a minute");
        assert!(bed.net.air().sent() - sent <= 3, "two proxies do not answer each other");
        assert_eq!(proxy.status().followed(), None);
        proxy.stop().await;
    });
}

#[test]
fn its_own_datagrams_come_back_without_effect() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        let proxy = bed.start();
        let spy = bed.listener(PC, 2021);
        pass(secs(20)).await;
        let (events, conflicts) = (Tally::of(Kind::Discovery), Tally::of(Kind::DiscoveryConflict));
        let ours = texts(&spy).pop().unwrap();
        let sent = bed.net.air().sent();
        // A repeater of broadcasts between two networks sends them back.
        for _ in 0..100 {
            spy.send(ours.as_bytes(), to(2021)).unwrap();
            pass(ms(100)).await;
        }
        assert!(bed.net.air().sent() - sent <= 3);
        assert_eq!((events.now(), conflicts.now()), (0, 0));
        proxy.stop().await;
    });
}

#[test]
fn attackers_announcing_many_addresses_do_not_hide_the_printer() {
    lan::run(async {
        let bed = Bed::new(Announcer::P1S);
        for n in 0..=255 {
            bed.net.put_stranger(Ipv4Addr::new(10, 1, 3, n).into());
        }
        let proxy = bed.start();
        pass(secs(30)).await;
        bed.net.move_printer(ELSEWHERE.into());
        bed.announcements.set_address(ELSEWHERE);
        bed.announce_from(ELSEWHERE);
        bed.printer.cut();
        let socket = bed.listener(ATTACKER, 2021);
        let conflicts = Tally::of(Kind::DiscoveryConflict);
        for n in 0..1200_u32 {
            let address = Ipv4Addr::from_bits(0x0a01_0300 | (n & 0xff));
            let fake = Announcements::new(Announcer::P2S, &bed.serial, address);
            socket.send(fake.text().as_bytes(), to(2021)).unwrap();
            pass(Duration::from_secs(1)).await;
        }
        assert_eq!(proxy.status().followed(), Some(ELSEWHERE), "{}", conflicts.now());
        proxy.stop().await;
    });
}
