//! The faults of the simulated printers, when they are switched on.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::{CODE, Client, PIPE, hello, parsed, pushall, secs, simulated, subscribe, subscriber};
use printer::{Ending, GARBAGE, IDLE_TIMEOUT, MAX_HELD, Model, Printer, Quirk, Refusal};

#[test]
fn connections_over_the_limit_are_closed() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).connection_limit(2).quiet();
        let (first, _second) = (subscriber(&printer).await, subscriber(&printer).await);
        let mut third = Client::new(&printer);
        assert_eq!(third.packet().await, None);
        assert_eq!((printer.open(), printer.ever(), printer.refused()), (2, 2, 1));
        drop(first);
        assert!(printer.until(secs(1), |printer| printer.open() == 1).await);
        subscriber(&printer).await;
        assert_eq!(printer.most_open(), 2);
    });
}

#[test]
fn connections_over_the_limit_may_be_ignored_instead() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).connection_limit(0).refusing(Refusal::Ignores);
        let mut client = Client::new(&printer);
        client.send(&hello(CODE, 30)).await;
        assert!(client.is_silent_for(MAX_HELD - secs(1)).await);
        assert_eq!(client.packet().await, None);

        let mut client = Client::new(&printer);
        client.send(&hello(CODE, 30)).await;
        assert!(client.is_silent_for(secs(1)).await);
        printer.reboot(secs(1));
        assert_eq!(client.packet().await, None);
    });
}

#[test]
fn a_slow_connack_loses_no_packet_behind_connect() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet().slow_connack(secs(5));
        let mut client = Client::new(&printer);
        client.send(&hello(CODE, 30)).await;
        client.send(&subscribe(1, &[&printer.report_topic()])).await;
        let before = Instant::now();
        assert_eq!(client.packet().await, Some((0x20, vec![0, 0])));
        assert_eq!(before.elapsed(), secs(5));
        assert_eq!(client.packet().await, Some((0x90, vec![0, 1, 0])));
    });
}

#[test]
fn a_reboot_drops_everybody_and_takes_its_time() {
    simulated(async || {
        let printer = Printer::new(Model::P1S);
        let (mut one, mut two) = (subscriber(&printer).await, Client::new(&printer));
        assert!(printer.until(secs(1), |printer| printer.ever() == 2).await);
        printer.reboot(secs(60));
        assert_eq!((one.packet().await, two.packet().await), (None, None));
        sleep(secs(59)).await;
        assert_eq!(Client::new(&printer).packet().await, None);
        sleep(secs(1)).await;
        let mut back = subscriber(&printer).await;
        assert_eq!(printer.endings(), [Ending::Rebooted; 2]);
        back.request(&printer, r#"{"system":{"command":"reboot","sequence_id":"1"}}"#).await;
        assert_eq!(back.packet().await, None);
        assert_eq!(printer.disorderly(), 3);
    });
}

#[test]
fn a_silent_printer_answers_pings_and_nothing_else() {
    simulated(async || {
        let printer = Printer::new(Model::P1S);
        let mut client = subscriber(&printer).await;
        client.report().await;
        printer.turn(Quirk::Silence, true);
        client.request(&printer, &pushall()).await;
        assert!(client.is_silent_for(secs(300)).await);
        client.send(b"\xc0\x00").await;
        assert_eq!(client.packet().await, Some((0xd0, vec![])));
        assert_eq!(printer.pushalls(), 1);
        printer.turn(Quirk::Silence, false);
        assert_eq!(parsed(&client.report().await)["print"]["msg"], 1);
    });
}

#[test]
fn a_zombie_goes_on_pushing_and_ignores_requests() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).with(Quirk::Zombie);
        let mut client = subscriber(&printer).await;
        client.request(&printer, &pushall()).await;
        for _ in 0..10 {
            assert_eq!(parsed(&client.report().await)["print"]["msg"], 1);
        }
        assert_eq!(printer.pushalls(), 1);
        assert_eq!(printer.last_full(), None);
    });
}

#[test]
fn a_half_open_printer_takes_and_gives_nothing_until_it_wakes() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = subscriber(&printer).await;
        printer.turn(Quirk::HalfOpen, true);
        client.send(b"\xc0\x00").await;
        assert_eq!(printer.report(b"{}"), 0);
        assert!(client.is_silent_for(secs(3600)).await);
        let full = timeout(secs(60), client.stream.write_all(&[0; PIPE + 1])).await;
        assert!(full.is_err(), "it is still reading");
        assert_eq!(printer.open(), 1);
        printer.turn(Quirk::HalfOpen, false);
        assert_eq!(client.packet().await, Some((0xd0, vec![])));
        assert_eq!(client.packet().await, None); // the zeros were no packet

        printer.turn(Quirk::HalfOpen, true);
        let mut client = Client::new(&printer);
        client.send(&hello(CODE, 30)).await;
        assert!(client.is_silent_for(secs(60)).await);
        printer.reboot(secs(1));
        assert_eq!(client.packet().await, None);
    });
}

#[test]
fn a_report_can_be_cut_in_the_middle() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = subscriber(&printer).await;
        printer.cut();
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).await.unwrap();
        let announced = usize::from(rest[1] & 0x7f) + 128 * usize::from(rest[2]);
        assert_eq!(rest[0], 0x30);
        assert!(rest.len() > 40 && rest.len() < announced, "{} of {announced}", rest.len());
        assert_eq!(printer.endings(), [Ending::Cut]);
    });
}

#[test]
fn garbage_large_reports_and_any_payload_go_out_as_they_are() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = subscriber(&printer).await;
        assert_eq!(printer.report(b"\0\xff any"), 1);
        assert_eq!(client.report().await, b"\0\xff any");
        assert_eq!(printer.large(300 * 1024), 1);
        assert!(client.report().await.len().abs_diff(300 * 1024) <= 40);
        assert_eq!(printer.large(usize::MAX), 1);
        assert!(client.report().await.len() > 1_000_000);
        printer.turn(Quirk::NonUtf8, true);
        printer.full();
        assert!(str::from_utf8(&client.report().await).is_err());
        printer.delta();
        assert!(str::from_utf8(&client.report().await).is_err());
        printer.raw(GARBAGE);
        let mut garbage = vec![0; GARBAGE.len()];
        client.stream.read_exact(&mut garbage).await.unwrap();
        assert_eq!(garbage, GARBAGE);
    });
}

#[test]
fn an_idle_client_stays_unless_the_printer_reaps() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = subscriber(&printer).await;
        assert!(client.is_silent_for(IDLE_TIMEOUT - secs(1)).await);
        assert_eq!(client.packet().await, None);
        printer.turn(Quirk::ReapsIdle, true);
        let mut client = subscriber(&printer).await;
        assert!(client.is_silent_for(secs(44)).await);
        client.send(b"\xc0\x00").await;
        assert_eq!(client.packet().await, Some((0xd0, vec![])));
        assert!(client.is_silent_for(secs(44)).await);
        assert!(timeout(secs(2), client.packet()).await.unwrap().is_none());
        assert_eq!(printer.endings(), [Ending::Silent; 2]);
    });
}
