//! From clients to the printer.

use std::collections::HashMap;

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::{Error, UNRELEASED};
use pandaproxy::runtime::drive::End;

use crate::clients::mqtt::{PUBACK, PUBCOMP, PUBREC, Packet, publish_bytes};
use crate::lan::{self, Proxy, Settings, Tally, ms, pass, secs};
use printer::{Model, Printer, Quirk};

/// A request that no other client sends.
fn order(number: usize) -> Vec<u8> {
    format!(r#"{{"print":{{"sequence_id":"{number}","command":"order-{number}"}}}}"#).into_bytes()
}

/// What clients asked for, as the printer got it: without what the proxy asks itself.
fn asked(printer: &Printer) -> Vec<Vec<u8>> {
    let own = |payload: &[u8]| {
        payload.starts_with(br#"{"info":{"sequence_id":"0","#)
            || payload.starts_with(br#"{"pushing":{"sequence_id":"0","#)
    };
    let payloads = printer.requests().into_iter().map(|request| request.payload);
    payloads.filter(|payload| !own(payload)).collect()
}

/// A printer's wire of so few bytes that one request fills it.
fn narrow() -> Settings {
    Settings { printer_wire: 64, ..Settings::default() }
}

#[test]
fn requests_reach_the_printer_byte_for_byte_and_in_order() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut slicer = proxy.client("slicer").await;
        let topic = printer.request_topic();
        let mut payloads: Vec<Vec<u8>> = (0..40u16)
            .map(|n| format!("{{ \"print\" : {{\"command\":\"x{n}\"}}}}\0").into_bytes())
            .collect();
        let mut large = br#"{"print":{"command":"project_file","param":""#.to_vec();
        large.extend([b'x'; 10 * 1024]);
        payloads.extend([
            large,
            b"{\"print\":{\"command\":\"caf\xe9\"}}".to_vec(),
            b"\xff\xfe\x00\x01".to_vec(),
            Vec::new(),
            br#"{"header":{"cert_id":"a","payload_len":9,"sign_alg":"RSA_SHA256","sign_string":"/+=","sign_ver":"v1.0"},"print":{"command":"stop"}}"#.to_vec(),
            // Signed and unusual requests are forwarded: the printer decides about them.
            br#"{"header":{},"pushing":{"command":"pushall"}}"#.to_vec(),
            br#"{"pushing":{"command":"pushall"},"print":{}}"#.to_vec(),
            br#"{"user_id":"7","print":{"command":"resume"}}"#.to_vec(),
        ]);
        for (n, payload) in (1u16..).zip(&payloads) {
            slicer.publish(&topic, payload, 1, n).await;
        }
        for n in (1u16..).take(payloads.len()) {
            assert_eq!(slicer.expect(PUBACK).await.body, n.to_be_bytes());
        }
        pass(secs(1)).await;
        assert_eq!(asked(&printer), payloads);
        for request in printer.requests() {
            assert_eq!((request.qos, request.dup, request.retain), (1, false, false));
        }
    });
}

#[test]
fn requests_of_two_clients_keep_their_order() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::A1Mini).await;
        let mut clients = [proxy.client("one").await, proxy.client("two").await];
        let topic = printer.request_topic();
        for n in 0..60 {
            let client = &mut clients[n % 2];
            client.publish(&topic, &order(n), (n / 2 % 2) as u8, 1 + n as u16).await;
            pass(ms(1)).await;
        }
        pass(secs(1)).await;
        assert_eq!(asked(&printer), (0..60).map(order).collect::<Vec<_>>());
    });
}

#[test]
fn each_qos_is_acknowledged_as_in_mqtt_3_1_1() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::X1C).await;
        let mut client = proxy.client("three").await;
        let topic = printer.request_topic();
        client.publish(&topic, &order(0), 0, 0).await;
        assert!(client.all_within(secs(1)).await.is_empty());
        client.publish(&topic, &order(1), 1, 7).await;
        assert_eq!(client.next().await, Some(Packet { first: 0x40, body: vec![0, 7] }));
        client.publish(&topic, &order(2), 2, 9).await;
        assert_eq!(client.next().await, Some(Packet { first: 0x50, body: vec![0, 9] }));
        client.publish_again(&topic, &order(2), 2, 9).await;
        assert_eq!(client.next().await, Some(Packet { first: 0x50, body: vec![0, 9] }));
        for _ in 0..2 {
            client.send(&[0x62, 2, 0, 9]).await.unwrap();
            assert_eq!(client.next().await, Some(Packet { first: 0x70, body: vec![0, 9] }));
        }
        // The id is free again.
        client.publish(&topic, &order(3), 2, 9).await;
        assert_eq!(client.expect(PUBREC).await.body, [0, 9]);
        pass(secs(1)).await;
        assert_eq!(asked(&printer), (0..4).map(order).collect::<Vec<_>>());
    });
}

#[test]
fn a_request_is_acknowledged_once_it_was_sent_to_the_printer() {
    for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::with(&printer, narrow());
            proxy.live().await;
            pass(secs(1)).await;
            printer.turn(Quirk::HalfOpen, true);
            let mut client = proxy.client("client").await;
            client.publish(&printer.request_topic(), &[b'x'; 500], qos, 3).await;
            assert!(client.all_within(secs(3)).await.is_empty(), "QoS {qos}");
            printer.turn(Quirk::HalfOpen, false);
            assert_eq!(client.expect(ack).await.body, [0, 3]);
            pass(secs(1)).await;
            assert_eq!(asked(&printer), [[b'x'; 500]]);
        });
    }
}

/// A client that comes back and resends has given up its old connection. What was stuck on that line
/// may arrive after all.
#[test]
fn a_resent_request_that_also_arrives_late_is_executed_once() {
    for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
        lan::run(async {
            let (printer, proxy) = Proxy::connected(Model::P1S).await;
            let topic = printer.request_topic();
            let mut old = proxy.client("client").await;
            let late = publish_bytes(&topic, &order(1), qos << 1, 7);
            let (came, stuck) = late.split_at(late.len() / 2);
            old.send(came).await.unwrap();
            pass(secs(1)).await;
            let mut again = proxy.client("client").await;
            again.publish_again(&topic, &order(1), qos, 7).await;
            assert_eq!(again.expect(ack).await.body, [0, 7]);
            let _closed = old.send(stuck).await;
            pass(secs(1)).await;
            assert_eq!(asked(&printer), [order(1)], "QoS {qos}");
            assert!(old.is_closed().await);
        });
    }
}

#[test]
fn a_resend_is_acknowledged_again_and_not_done_again() {
    for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
        lan::run(async {
            let (printer, proxy) = Proxy::connected(Model::P1S).await;
            let topic = printer.request_topic();
            let mut client = proxy.client("client").await;
            client.publish(&topic, &order(1), qos, 7).await;
            client.expect(ack).await;
            client.publish_again(&topic, &order(1), qos, 7).await;
            assert_eq!(client.expect(ack).await.body, [0, 7]);
            drop(client);

            let mut again = proxy.client("client").await;
            again.publish_again(&topic, &order(1), qos, 7).await;
            assert_eq!(again.expect(ack).await.body, [0, 7]);
            // Another client's resend, another id or another payload is another request.
            let mut other = proxy.client("other").await;
            other.publish_again(&topic, &order(1), qos, 7).await;
            other.expect(ack).await;
            again.publish_again(&topic, &order(1), qos, 8).await;
            again.expect(ack).await;
            again.publish_again(&topic, &order(2), qos, 9).await;
            again.expect(ack).await;
            // A request without DUP is forwarded as well.
            let mut third = proxy.client("client").await;
            third.publish(&topic, &order(1), qos, 7).await;
            third.expect(ack).await;
            pass(secs(1)).await;
            let expected = [1, 1, 1, 2, 1].map(order);
            assert_eq!(asked(&printer), expected, "QoS {qos}");
        });
    }
}

#[test]
fn a_resend_of_a_request_in_flight_is_acknowledged_once() {
    for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::with(&printer, narrow());
            proxy.live().await;
            pass(secs(1)).await;
            printer.turn(Quirk::HalfOpen, true);
            let topic = printer.request_topic();
            let mut client = proxy.client("client").await;
            let large = vec![b'x'; 500];
            client.publish(&topic, &large, qos, 3).await;
            client.publish_again(&topic, &large, qos, 3).await;
            assert!(client.all_within(secs(3)).await.is_empty(), "QoS {qos}");
            printer.turn(Quirk::HalfOpen, false);
            assert_eq!(client.expect(ack).await.body, [0, 3]);
            assert!(client.all_within(secs(1)).await.is_empty());
            assert_eq!(asked(&printer), [large], "QoS {qos}");
        });
    }
}

/// Whether it was done is not known yet, and a second time would be once too often.
#[test]
fn a_resend_over_a_new_connection_waits_for_the_first() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, narrow());
        proxy.live().await;
        pass(secs(1)).await;
        printer.turn(Quirk::HalfOpen, true);
        let topic = printer.request_topic();
        let large = vec![b'x'; 500];
        for (n, payload) in [(1, large.as_slice()), (2, &order(2))] {
            let mut client = proxy.client("client").await;
            client.publish(&topic, payload, 1, n).await;
            pass(ms(10)).await;
            drop(client);
            pass(ms(10)).await;
            proxy.ends.borrow_mut().clear();
            let refused = Tally::of(Kind::RequestRefused);
            let mut again = proxy.client("client").await;
            again.publish_again(&topic, payload, 1, n).await;
            assert_eq!(again.next().await, None, "no PUBACK, and the end");
            assert_eq!((proxy.end(), refused.now()), (End::Session(Error::Undecided), 1));
        }
        printer.turn(Quirk::HalfOpen, false);
        pass(ms(10)).await;
        let mut again = proxy.client("client").await;
        again.publish_again(&topic, &large, 1, 1).await;
        again.publish_again(&topic, &order(2), 1, 2).await;
        assert_eq!(again.expect(PUBACK).await.body, [0, 1]);
        assert_eq!(again.expect(PUBACK).await.body, [0, 2]);
        pass(secs(1)).await;
        assert_eq!(asked(&printer), [large, order(2)]);
    });
}

/// The printer may not have read what was written to the connection that ended.
#[test]
fn a_request_sent_before_a_reconnect_is_sent_again_when_resent() {
    for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            let topic = printer.request_topic();
            printer.turn(Quirk::HalfOpen, true);
            let mut client = proxy.client("client").await;
            client.publish(&topic, &order(1), qos, 7).await;
            assert_eq!(client.expect(ack).await.body, [0, 7]);
            printer.turn(Quirk::HalfOpen, false);
            printer.reboot(secs(1));
            assert!(client.is_closed().await, "its request may be lost");
            proxy.live().await;
            assert!(asked(&printer).is_empty(), "the printer has not read it");
            let mut again = proxy.client("client").await;
            again.publish_again(&topic, &order(1), qos, 7).await;
            assert_eq!(again.expect(ack).await.body, [0, 7]);
            pass(secs(1)).await;
            assert_eq!(asked(&printer), [order(1)], "QoS {qos}");
        });
    }
}

#[test]
fn equal_packet_ids_of_two_clients_are_kept_apart() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut one = proxy.client("one").await;
        let mut two = proxy.client("two").await;
        let topic = printer.request_topic();
        for n in 0..10 {
            one.publish(&topic, &order(2 * n), 1, 1).await;
            two.publish(&topic, &order(2 * n + 1), 1, 1).await;
            assert_eq!(one.expect(PUBACK).await.body, [0, 1]);
            assert_eq!(two.expect(PUBACK).await.body, [0, 1]);
        }
        assert!(one.all_within(secs(1)).await.is_empty());
        assert!(two.all_within(secs(1)).await.is_empty());
        assert_eq!(asked(&printer).len(), 20);
    });
}

/// The broker of the P1 series is slow with PUBACK, and delays clients that wait for it.
///
/// Guards: bambuddy#1164: waiting for PUBACK stalls after sixteen requests.
#[test]
fn a_printer_without_puback_stalls_no_client() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).with(Quirk::NoPuback);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let topic = printer.request_topic();
        let mut client = proxy.client("client").await;
        let before = tokio::time::Instant::now();
        for n in 0..240_u16 {
            client.publish(&topic, &order(n.into()), 1, 1 + n).await;
            assert_eq!(client.expect(PUBACK).await.body, (1 + n).to_be_bytes());
        }
        assert_eq!(before.elapsed().as_millis(), 0);
        pass(secs(300)).await;
        assert_eq!(asked(&printer), (0..240).map(order).collect::<Vec<_>>());
        assert!(proxy.ends.borrow().is_empty());
        assert_eq!(printer.ever(), 1);
    });
}

#[test]
fn requests_beyond_the_queue_are_read_later_and_none_is_lost() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, narrow());
        proxy.live().await;
        pass(secs(1)).await;
        let mut one = proxy.client("one").await;
        let mut two = proxy.client("two").await;
        let topic = printer.request_topic();
        printer.turn(Quirk::HalfOpen, true);
        let each = 25 * BOARD.mqtt.requests;
        for n in 0..each {
            let id = 1 + n as u16;
            one.publish(&topic, &order(n), 1, id).await;
            two.publish(&topic, &order(each + n), u8::from(n % 2 == 0), id).await;
        }
        pass(secs(3)).await;
        printer.turn(Quirk::HalfOpen, false);
        for n in 0..each {
            assert_eq!(one.expect(PUBACK).await.body, (1 + n as u16).to_be_bytes());
        }
        pass(secs(1)).await;
        let got = asked(&printer);
        let place: HashMap<&[u8], usize> =
            got.iter().enumerate().map(|(at, payload)| (payload.as_slice(), at)).collect();
        assert_eq!((got.len(), place.len()), (2 * each, 2 * each));
        for n in (1..each).chain(each + 1..2 * each) {
            assert!(place[&*order(n - 1)] < place[&*order(n)], "in the order of its sender");
        }
        assert!(proxy.ends.borrow().is_empty());
    });
}

/// A slicer's `stop` must not wait behind another program's flood.
#[test]
fn a_flood_delays_anothers_command_by_one_request() {
    for others in [1, 3] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::with(&printer, narrow());
            proxy.live().await;
            pass(secs(1)).await;
            let topic = printer.request_topic();
            printer.turn(Quirk::HalfOpen, true);
            let mut floods = Vec::new();
            for n in 0..others {
                let mut flood = proxy.client(&format!("flood-{n}")).await;
                for id in 1..=20 {
                    flood.publish(&topic, &[b'x'; 500], 0, id).await;
                }
                floods.push(flood);
            }
            pass(secs(1)).await;
            // A client that publishes nothing is served even without room.
            let mut slicer = proxy.client("slicer").await;
            assert_eq!(slicer.subscribe(&[(&printer.report_topic(), 0)]).await, [0]);
            slicer.publish(&topic, &order(1), 1, 1).await;
            pass(secs(1)).await;
            printer.turn(Quirk::HalfOpen, false);
            slicer.expect(PUBACK).await;
            pass(secs(1)).await;
            let asked = asked(&printer);
            let before = asked.iter().position(|payload| *payload == order(1)).unwrap();
            // One that is being sent, one that leaves a place free, and one of each other client.
            assert!(before <= 2 + others, "{before} of {} requests before it", asked.len());
            assert_eq!(asked.len(), 20 * others + 1, "none is lost");
        });
    }
}

/// A reconnect may abort the printer's job, and requests in flight are lost.
#[test]
fn a_printer_that_stops_reading_for_half_a_minute_is_alive() {
    for (silent, connections) in [(28, 1), (35, 2)] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::with(&printer, narrow());
            proxy.live().await;
            pass(secs(1)).await;
            printer.turn(Quirk::HalfOpen, true);
            let mut client = proxy.client("client").await;
            client.publish(&printer.request_topic(), &[b'x'; 500], 1, 3).await;
            pass(secs(silent)).await;
            printer.turn(Quirk::HalfOpen, false);
            pass(secs(10)).await;
            assert_eq!(printer.ever(), connections, "{silent} s");
            if connections == 1 {
                assert_eq!(client.expect(PUBACK).await.body, [0, 3]);
            } else {
                assert!(client.is_closed().await, "its request is lost");
            }
        });
    }
}

#[test]
fn large_requests_are_all_delivered_beside_the_reports() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, Settings { printer_wire: 4096, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let mut reader = proxy.reader("reader", "#").await;
        let mut clients = [proxy.client("one").await, proxy.client("two").await];
        let topic = printer.request_topic();
        let payload = |n: u8| vec![b'a' + n; 10 * 1024];
        for n in 0..10_u8 {
            clients[usize::from(n) % 2].publish(&topic, &payload(n), 1, 1 + u16::from(n)).await;
        }
        printer.full();
        for n in 0..10_u16 {
            let ack = clients[usize::from(n) % 2].expect(PUBACK).await;
            assert_eq!(ack.body, (1 + n).to_be_bytes());
        }
        pass(secs(1)).await;
        let mut got = asked(&printer);
        got.sort();
        assert_eq!(got, (0..10).map(payload).collect::<Vec<_>>());
        reader.reports_within(secs(1)).await;
        printer.full();
        assert_eq!(lan::json(&reader.report().await)["print"]["msg"], 0);
        assert!(printer.pushalls() <= 2, "{}", printer.pushalls());
    });
}

/// Guards: bambuddy#1042: an identifier past 2³¹ hangs the printer.
#[test]
fn identifiers_above_two_to_the_31_stay_as_they_are() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut slicer = proxy.client("slicer").await;
        let topic = printer.request_topic();
        let identifiers = ["2147483648", "4294967297", "9007199254740993", "18446744073709551616"];
        let payloads: Vec<Vec<u8>> = identifiers
            .iter()
            .flat_map(|id| [id.to_string(), format!("\"{id}\"")])
            .map(|id| {
                let print = format!(
                    r#""command":"project_file","sequence_id":{id},"task_id":{id},"subtask_id":{id}"#
                );
                format!(r#"{{"print":{{{print}}}}}"#).into_bytes()
            })
            .collect();
        for (n, payload) in (1u16..).zip(&payloads) {
            slicer.publish(&topic, payload, 1, n).await;
            assert_eq!(slicer.expect(PUBACK).await.body, n.to_be_bytes());
        }
        pass(secs(1)).await;
        assert_eq!(asked(&printer), payloads);
    });
}

#[test]
fn so_many_requests_of_qos_2_may_be_open_and_no_more() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let malformed = Tally::of(Kind::Malformed);
        let topic = printer.request_topic();
        let mut client = proxy.client("client").await;
        for n in 1..=UNRELEASED {
            client.publish(&topic, &order(n), 2, n as u16).await;
            client.expect(PUBREC).await;
        }
        client.send(&[0x62, 2, 0, 5]).await.unwrap();
        client.expect(PUBCOMP).await;
        client.publish(&topic, &order(100), 2, 100).await;
        client.expect(PUBREC).await;
        client.publish(&topic, &order(101), 2, 101).await;
        assert!(client.is_closed().await);
        assert_eq!(proxy.end(), End::Session(Error::TooManyUnreleased));
        assert_eq!(malformed.now(), 1);
        pass(secs(1)).await;
        assert_eq!(asked(&printer).len(), UNRELEASED + 1);
    });
}

#[test]
fn what_is_published_elsewhere_is_acknowledged_and_goes_nowhere() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let ignored = Tally::of(Kind::RequestIgnored);
        let mut reader = proxy.reader("reader", "#").await;
        let _state = reader.report().await;
        let mut client = proxy.client("client").await;
        for topic in
            [printer.report_topic().as_str(), "homeassistant/status", "$SYS/x", "device/request"]
        {
            client.publish(topic, &order(1), 1, 1).await;
            client.expect(PUBACK).await;
        }
        assert_eq!(ignored.now(), 4);
        assert!(reader.hears_nothing(secs(1)).await);
        assert!(asked(&printer).is_empty());
        assert_eq!(printer.ever(), 1, "the connection to the printer is still the first");
    });
}

#[test]
fn a_client_that_asks_and_leaves_at_once_is_still_heard() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.client("client").await;
        let mut all = publish_bytes(&printer.request_topic(), &order(1), 0, 0);
        all.extend(publish_bytes(&printer.request_topic(), &order(2), 2, 1));
        all.extend([0xe0, 0]);
        client.send(&all).await.unwrap();
        drop(client);
        pass(secs(1)).await;
        assert_eq!(asked(&printer), [order(1), order(2)]);
    });
}
