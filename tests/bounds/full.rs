//! Every capacity of the board reached at once, in memory: all slots taken by clients that are slow,
//! stuck or hostile.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::{self, SLOTS};
use pandaproxy::memory::heap;
use pandaproxy::mqtt::client::{FILTERS, UNRELEASED};
use pandaproxy::mqtt::slot::MAX_DEBTS;
use pandaproxy::service::Service as _;
use tokio::io::DuplexStream;
use tokio::time::sleep;

use crate::bed::Bed;
use crate::clients::mqtt::{Client, Hello, PUBACK, PUBREC, hello_bytes, publish_bytes};
use crate::lan::{self, WIRE};
use crate::share::ran_apart;
use printer::{Model, Printer, Quirk};

/// Buffer of a connection, in bytes: small, so that a client that does not read is noticed.
const NARROW: usize = 512;

/// A full state that does not fit into an outbox: a client that reads nothing holds its frame.
const HELD: usize = BOARD.mqtt.outbox + 8 * 1024;

const MOMENT: Duration = Duration::from_millis(10);

/// What the lines of the budget that can be reached without sockets and TLS allow.
fn in_memory() -> usize {
    budget::LINES
        .iter()
        .filter(|line| line.what.starts_with("mqtt"))
        .map(|line| line.count * line.each)
        .sum::<usize>()
        - (SLOTS + 1) * budget::TLS
}

async fn bed(printer: &Printer) -> Rc<Bed> {
    let bed = Bed::new();
    bed.plug_in(printer);
    bed.live().await;
    sleep(Duration::from_secs(1)).await;
    bed
}

/// A client that reads nothing after SUBACK, and so holds the report that it is being sent.
async fn stuck(bed: &Bed, id: &str) -> Client<DuplexStream> {
    let client = Client::subscribed(bed.wire(NARROW), id, "#").await;
    sleep(MOMENT).await;
    client
}

fn report_of(bytes: usize, n: usize) -> Vec<u8> {
    let mut report = format!(r#"{{"print":{{"command":"say","n":{n},"text":""#).into_bytes();
    report.resize(bytes - 3, b'x');
    report.extend(b"\"}}");
    report
}

#[test]
fn all_slots_with_hostile_clients_stay_within_the_budget() {
    if ran_apart() {
        return;
    }
    // What an earlier test has left: a backtrace of one that failed keeps 60 MB.
    let before = heap::held();
    lan::run(async {
        let printer = Printer::new(Model::P1S).with(Quirk::NoPuback);
        let bed = bed(&printer).await;
        let topic = printer.request_topic();
        let large = BOARD.mqtt.large.size - 1024;
        let mut there = Vec::new();
        let almost = publish_bytes(&topic, &vec![b'x'; BOARD.mqtt.inbox - 64], 0, 0);
        for n in 0..BOARD.clients.mqtt / 2 {
            // Stuck in a full state of its own.
            printer.full();
            there.push(stuck(&bed, &format!("stuck-{n}")).await);
            // As many requests as are watched, nothing of the answers read, and then all but a byte of
            // the largest packet there may be.
            let mut client = Client::connected(bed.wire(WIRE), &format!("writes-{n}")).await;
            for id in 1..=u16::try_from(MAX_DEBTS).unwrap() {
                client.publish(&topic, br#"{"print":{"command":"x"}}"#, 1, id).await;
            }
            client.send(&almost[..almost.len() - 1]).await.unwrap();
            there.push(client);
        }
        // The pre-auth slots: all but a byte of the largest CONNECT.
        let hello = Hello { will: Some(("t", &[0; 3900])), ..Hello::default() };
        let almost = hello_bytes(&hello);
        for _ in 0..BOARD.pre_auth {
            let mut client = Client::over(bed.wire(WIRE));
            client.send(&almost[..almost.len() - 1]).await.unwrap();
            there.push(client);
        }
        sleep(MOMENT).await;
        assert_eq!(bed.service.connections(), SLOTS);
        // Rings and frames: more reports of both sizes than there is room for.
        let mut most = 0;
        for n in 0..4 * BOARD.mqtt.ring {
            printer.report(&report_of(600, n));
            printer.report(&report_of(large, n));
            sleep(MOMENT).await;
            most = most.max(heap::held().saturating_sub(before));
        }
        println!(
            "all {SLOTS} slots: the proxy held {} bytes, at most {}; its lines allow {}; {most} with the \
             simulated ends",
            bed.share.now(),
            bed.share.peak(),
            in_memory(),
        );
        assert!(bed.share.peak() <= in_memory());
        assert!(bed.share.now() <= most && most <= budget::TOTAL, "{most} with the simulated ends");
        assert!(journal::count(Kind::Lagged) > 0);
        // The clients are disconnected one after the other; then memory is as before.
        drop(there);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.service.connections(), 0);
        let mut reader = Client::subscribed(bed.wire(WIRE), "after", "#").await;
        reader.report().await;
    });
}

/// Each large frame is held by a client that reads nothing: all clients lose the report, none is disconnected, and
/// clients that read are resynchronised once a frame is free.
#[test]
fn a_report_without_a_frame_disconnects_no_client() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let printer = Printer::new(Model::P1S).state_bytes(HELD).quiet();
        let bed = bed(&printer).await;
        let mut reader = Client::subscribed(bed.wire(WIRE), "reader", "#").await;
        reader.report().await;
        let mut holders = Vec::new();
        for n in 0..BOARD.mqtt.large.count {
            // Each report is a full state, which replaces the one that the hub keeps.
            printer.full();
            holders.push(stuck(&bed, &format!("holder-{n}")).await);
            reader.report().await;
        }
        let before = bed.service.clients();
        let large = report_of(BOARD.mqtt.large.size - 1024, 0);
        printer.report(&large);
        sleep(MOMENT).await;
        assert_eq!(journal::count(Kind::NoFrame), 1);
        assert_eq!(bed.service.clients(), before, "no client is disconnected");
        // Clients that read nothing are disconnected after five seconds, which frees their frames.
        sleep(Duration::from_secs(10)).await;
        assert_eq!(bed.service.clients(), 1);
        printer.delta();
        let state: serde_json::Value = serde_json::from_slice(&reader.report().await).unwrap();
        assert_eq!(state["print"]["msg"], 0, "the full state makes good what was lost");
        printer.report(&large);
        assert_eq!(reader.report_where(|report| report == large).await, large);
    });
}

/// Has each large frame held by a client that reads nothing; one of the frames is also the state's.
async fn hold_all_frames(bed: &Bed, printer: &Printer) -> Vec<Client<DuplexStream>> {
    let mut holders = Vec::new();
    for n in 0..BOARD.mqtt.large.count {
        printer.full();
        holders.push(stuck(bed, &format!("holder-{n}")).await);
    }
    holders
}

/// If there is no frame for the full state, the state is requested again, at intervals.
#[test]
fn a_full_state_without_a_frame_is_requested_again() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let printer = Printer::new(Model::P1S).state_bytes(HELD).quiet();
        let bed = bed(&printer).await;
        let _holders = hold_all_frames(&bed, &printer).await;
        let before = printer.pushalls();
        printer.full();
        sleep(Duration::from_secs(4)).await;
        assert_eq!(journal::count(Kind::NoFrame), 1);
        assert_eq!(printer.pushalls(), before, "there is no frame yet: it is not asked in vain");
        sleep(Duration::from_secs(8)).await;
        assert_eq!(printer.pushalls(), before + 1);
        let mut late = Client::subscribed(bed.wire(WIRE), "late", "#").await;
        let state: serde_json::Value = serde_json::from_slice(&late.report().await).unwrap();
        assert_eq!(state["print"]["msg"], 0);
    });
}

/// The buffer of changes since the last full state is full, and there is no frame to merge it into.
#[test]
fn a_delta_without_a_frame_makes_the_state_requested_again() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let printer = Printer::new(Model::P1S).state_bytes(HELD).quiet();
        let bed = bed(&printer).await;
        let _holders = hold_all_frames(&bed, &printer).await;
        let before = printer.pushalls();
        let filler = "x".repeat(700);
        for n in 0..=budget::STATE_CHANGES / filler.len() {
            printer.report(
                format!(r#"{{"print":{{"command":"push_status","msg":1,"k{n}":"{filler}"}}}}"#)
                    .as_bytes(),
            );
            sleep(MOMENT).await;
        }
        assert!(journal::count(Kind::NoFrame) > 0);
        sleep(Duration::from_secs(12)).await;
        assert_eq!(printer.pushalls(), before + 1);
        let mut late = Client::subscribed(bed.wire(WIRE), "late", "#").await;
        let state: serde_json::Value = serde_json::from_slice(&late.report().await).unwrap();
        assert_eq!(state["print"]["msg"], 0);
    });
}

/// The request queue is full while the printer reads nothing: its clients are not read, and all requests arrive in
/// order afterwards.
#[test]
fn a_full_request_queue_stops_reading_its_clients() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let bed = bed(&printer).await;
        let mut sender = Client::connected(bed.wire(NARROW), "sender").await;
        printer.turn(Quirk::HalfOpen, true);
        // More than the wire to the printer, the line and the frames hold together.
        let filler = "x".repeat(4000);
        let count = u16::try_from(MAX_DEBTS).unwrap() * 2;
        let topic = printer.request_topic();
        let sending = tokio::task::spawn_local(async move {
            for id in 1..=count {
                let payload =
                    format!(r#"{{"print":{{"command":"gcode_line","param":"{id}{filler}"}}}}"#);
                sender.publish(&topic, payload.as_bytes(), 1, id).await;
            }
            for id in 1..=count {
                assert_eq!(sender.expect(PUBACK).await.body, id.to_be_bytes());
            }
        });
        sleep(Duration::from_secs(1)).await;
        assert!(!sending.is_finished(), "it is held back");
        assert_eq!(bed.service.clients(), 1, "and not closed");
        let before = printer.requests_ever();
        printer.turn(Quirk::HalfOpen, false);
        sending.await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(printer.requests_ever() - before, u64::from(count));
    });
}

/// Bounds of one client's session, each exceeded once.
#[test]
fn a_client_at_its_bounds_costs_the_others_nothing() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let bed = bed(&printer).await;
        let topic = printer.request_topic();
        let mut bystander = Client::subscribed(bed.wire(WIRE), "bystander", "#").await;
        bystander.report().await;

        let mut collector = Client::connected(bed.wire(WIRE), "filters").await;
        for n in 0..FILTERS {
            assert_eq!(collector.subscribe(&[(&format!("filter/{n}"), 0)]).await, [0]);
        }
        assert_eq!(collector.subscribe(&[("one/more", 0)]).await, [0x80]);

        let mut hoarder = Client::connected(bed.wire(WIRE), "unreleased").await;
        for id in 1..=u16::try_from(UNRELEASED).unwrap() {
            hoarder.publish(&topic, br#"{"print":{"command":"x"}}"#, 2, id).await;
            hoarder.expect(PUBREC).await;
        }
        hoarder.publish(&topic, b"{}", 2, 99).await;
        assert!(hoarder.is_closed().await);

        let mut giant = Client::connected(bed.wire(WIRE), "giant").await;
        // The client may be disconnected before it has sent all of it.
        let _gone = giant.send(&publish_bytes(&topic, &vec![b'x'; BOARD.mqtt.inbox], 0, 0)).await;
        assert!(giant.is_closed().await);

        let mut crowd = vec![collector];
        while bed.service.clients() < BOARD.clients.mqtt {
            crowd.push(Client::connected(bed.wire(WIRE), &format!("c{}", crowd.len())).await);
        }
        let mut late = Client::over(bed.wire(WIRE));
        assert_eq!(late.connect(&Hello { id: "late", ..Hello::default() }).await, 3);

        let marked = br#"{"print":{"command":"still","result":"success"}}"#;
        printer.report(marked);
        assert_eq!(bystander.report_where(|report| report == marked).await, marked);
    });
}
