//! From clients to the clients that subscribed to the request topic.

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::Error;
use pandaproxy::mqtt::slot::REQUESTS;
use pandaproxy::runtime::drive::End;
use tokio::io::DuplexStream;

use crate::clients::mqtt::{Client, PUBACK, PUBCOMP, PUBREC, packet};
use crate::lan::{self, Proxy, Settings, Tally, ms, pass, secs};
use printer::{Model, Printer, Quirk};

const PUSHALL: &[u8] = br#"{"pushing":{"sequence_id":"1","command":"pushall"}}"#;

/// A request like no other.
fn order(number: usize) -> Vec<u8> {
    format!(r#"{{"print": {{"command":"order-{number}","ams_mapping":[2,-1,0]}}}}"#).into_bytes()
}

/// What a client was sent on a topic within a second, in order.
async fn heard_on(client: &mut Client<DuplexStream>, topic: &str) -> Vec<Vec<u8>> {
    let packets = client.all_within(secs(1)).await;
    let published = packets.iter().filter(|packet| packet.first >> 4 == 3);
    let published = published.map(|packet| packet.published());
    published.filter(|(on, _)| on == topic).map(|(_, payload)| payload).collect()
}

/// bambuddy learns the slicer's AMS mapping so.
#[test]
fn a_listener_gets_each_forwarded_request_once() {
    for model in [Model::X1C, Model::H2D] {
        lan::run(async {
            let printer = Printer::new(model).quiet();
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            let (report, request) = (printer.report_topic(), printer.request_topic());
            let mut listener = proxy.client("bambuddy").await;
            assert_eq!(listener.subscribe(&[(&report, 1), (&request, 1)]).await, [1, 0]);
            let mut slicer = proxy.client("slicer").await;
            assert_eq!(slicer.subscribe(&[("#", 2)]).await, [0]);
            for qos in [0, 1, 2] {
                slicer.publish(&request, &order(qos.into()), qos, 7).await;
            }
            slicer.expect(PUBACK).await;
            slicer.expect(PUBREC).await;
            slicer.send(&[0x62, 2, 0, 7]).await.unwrap();
            slicer.expect(PUBCOMP).await;
            // These are answered here, and so not forwarded.
            let get_version = br#"{"info":{"sequence_id":"2","command":"get_version"}}"#;
            let stop = br#"{"pushing":{"command":"stop"}}"#;
            for answered in [PUSHALL, get_version, stop] {
                slicer.publish(&request, answered, 0, 0).await;
            }
            assert_eq!(heard_on(&mut listener, &request).await, [order(0), order(1), order(2)]);
            assert!(heard_on(&mut slicer, &request).await.is_empty(), "it sent them");
            // The listener's own requests go to others that listen, not to itself.
            listener.publish(&request, &order(3), 0, 0).await;
            assert_eq!(heard_on(&mut slicer, &request).await, [order(3)]);
            assert!(heard_on(&mut listener, &request).await.is_empty());
            assert_eq!(printer.subscriptions(), [report], "the printer's broker is not asked");
        });
    }
}

#[test]
fn filters_decide_who_gets_requests() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let request = printer.request_topic();
        let table: [(&[&str], bool); 8] = [
            (&["#"], true),
            (&["+/+/request"], true),
            (&["device/+/request", "#", &request, "device/#"], true),
            (&["+/+/+"], true),
            (&[&request, &request], true),
            (&["device/+/report"], false),
            (&["+/request", "device/request", "$SYS/#"], false),
            (&[], false),
        ];
        let mut clients = Vec::new();
        for (filters, _) in &table {
            let mut client = proxy.client("client").await;
            for filter in *filters {
                client.subscribe(&[(filter, 2)]).await;
            }
            clients.push(client);
        }
        let mut slicer = proxy.client("slicer").await;
        slicer.publish(&request, &order(1), 1, 1).await;
        slicer.expect(PUBACK).await;
        for (client, (filters, expected)) in clients.iter_mut().zip(&table) {
            let heard = heard_on(client, &request).await;
            assert_eq!(heard, vec![order(1); usize::from(*expected)], "{filters:?}");
        }
        let mut one = clients.swap_remove(0);
        one.unsubscribe("#").await;
        slicer.publish(&request, &order(2), 1, 2).await;
        assert!(heard_on(&mut one, &request).await.is_empty(), "it unsubscribed");
    });
}

/// A client that has stored the serial number of an earlier printer listens where it publishes.
#[test]
fn a_listener_with_another_serial_gets_requests_there() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut stale = proxy.reader("stale", "device/00M00C999999999/request").await;
        let mut listener = proxy.reader("listener", &printer.request_topic()).await;
        let mut slicer = proxy.client("slicer").await;
        slicer.publish("device/00M00C888888888/request", &order(1), 0, 0).await;
        let (topic, payload) = stale.expect(3).await.published();
        assert_eq!((topic.as_str(), payload), ("device/00M00C999999999/request", order(1)));
        let (topic, payload) = listener.expect(3).await.published();
        assert_eq!((topic, payload), (printer.request_topic(), order(1)));
    });
}

/// bambuddy notices, and does not try again.
#[test]
fn a1_and_p1_close_a_subscription_to_requests() {
    for model in [Model::P1S, Model::A1Mini] {
        lan::run(async {
            let printer = Printer::new(model).quiet();
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            let (report, request) = (printer.report_topic(), printer.request_topic());
            let refused = Tally::of(Kind::Malformed);
            let closed: [&[&str]; 5] = [
                &[&request],
                &["device/+/request"],
                &["+/+/request"],
                &[&report, &request],
                &["device/01P00C999999999/request"],
            ];
            for filters in closed {
                let mut client = proxy.client("client").await;
                let mut body = vec![0, 10];
                for filter in filters {
                    body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
                    body.extend(filter.as_bytes());
                    body.push(0);
                }
                client.send(&packet(0x82, &body)).await.unwrap();
                assert_eq!(client.next().await, None, "{filters:?}: no SUBACK, and the end");
                assert_eq!(proxy.end(), End::Session(Error::RequestTopic), "{filters:?}");
            }
            assert_eq!(refused.now(), 5);
            // What covers the reports as well is served with them.
            let mut slicer = proxy.client("slicer").await;
            for filter in ["#", "device/#", "+/+/+", &format!("device/{}/+", printer.serial())] {
                let mut client = proxy.reader("client", filter).await;
                slicer.publish(&request, &order(1), 0, 0).await;
                assert!(heard_on(&mut client, &request).await.is_empty(), "{filter}");
                printer.report(super::MARK);
                client.report_where(|report| report == super::MARK).await;
            }
            assert_eq!(printer.ever(), 1);
        });
    }
}

#[test]
fn a_resend_that_is_not_forwarded_is_not_heard_again() {
    lan::run(async {
        let printer = Printer::new(Model::H2D).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let request = printer.request_topic();
        let mut listener = proxy.reader("listener", &request).await;
        let mut slicer = proxy.client("slicer").await;
        slicer.publish(&request, &order(1), 1, 7).await;
        slicer.expect(PUBACK).await;
        drop(slicer);
        let mut again = proxy.client("slicer").await;
        again.publish_again(&request, &order(1), 1, 7).await;
        again.expect(PUBACK).await;
        assert_eq!(heard_on(&mut listener, &request).await, [order(1)]);
        assert_eq!(printer.requests().iter().filter(|it| it.payload == order(1)).count(), 1);
    });
}

#[test]
fn a_request_that_never_reached_the_printer_is_not_heard() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::with(&printer, Settings { printer_wire: 64, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let request = printer.request_topic();
        let mut listener = proxy.reader("listener", &request).await;
        let mut slicer = proxy.client("slicer").await;
        printer.turn(Quirk::HalfOpen, true);
        slicer.publish(&request, &[b'x'; 500], 1, 1).await;
        slicer.publish(&request, &order(2), 1, 2).await;
        pass(secs(1)).await;
        printer.reboot(ms(200));
        printer.turn(Quirk::HalfOpen, false);
        assert!(slicer.is_closed().await, "its requests are lost");
        proxy.live().await;
        let mut again = proxy.client("slicer").await;
        again.publish(&request, &order(3), 1, 3).await;
        assert_eq!(heard_on(&mut listener, &request).await, [order(3)]);
    });
}

/// Clients have up to 20 requests in flight (paho's window), and a prompt listener hears them all.
#[test]
fn a_prompt_listener_hears_a_flood_without_a_gap() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let lagged = Tally::of(Kind::Lagged);
        let request = printer.request_topic();
        let mut listener = proxy.reader("listener", "#").await;
        let mut slicer = proxy.client("slicer").await;
        let orders: Vec<Vec<u8>> = (0..40 * BOARD.mqtt.requests).map(order).collect();
        for (payload, id) in orders.iter().zip(1..) {
            slicer.publish(&request, payload, 1, id).await;
        }
        assert_eq!(heard_on(&mut listener, &request).await, orders);
        assert_eq!(lagged.now(), 0);
    });
}

/// A flood of one client's requests costs a slow listener requests, and never an answer.
#[test]
fn a_flood_costs_a_slow_listener_requests_and_no_answer() {
    for payload in [100, 4000] {
        lan::run(async {
            let printer = Printer::new(Model::X1C).quiet().state_bytes(6_000);
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            let lagged = Tally::of(Kind::Lagged);
            let (report, request) = (printer.report_topic(), printer.request_topic());
            // The state alone is more than the wire holds.
            let mut slow = Client::subscribed(proxy.stream_of(4096), "slow", "#").await;
            pass(ms(10)).await;
            let mut slicer = proxy.client("slicer").await;
            let flood = 50;
            for n in 1..=flood {
                slicer.publish(&request, &vec![b'x'; payload], 1, n).await;
                slicer.expect(PUBACK).await;
            }
            assert!(lagged.now() > 0);
            let lost = usize::from(flood) - REQUESTS;
            assert!(lan::journal_says("requests of other clients dropped"));
            let answer = |n| format!(r#"{{"print":{{"command":"x","result":"success","n":{n}}}}}"#);
            let answers: Vec<String> = (0..BOARD.mqtt.ring).map(answer).collect();
            for answer in &answers {
                printer.report(answer.as_bytes());
                pass(ms(1)).await;
            }
            pass(secs(1)).await;
            let packets = slow.all_within(secs(2)).await;
            let heard: Vec<_> =
                packets.iter().filter(|it| it.first >> 4 == 3).map(|it| it.published()).collect();
            let got: Vec<_> = heard
                .iter()
                .filter(|(on, it)| *on == report && it.starts_with(br#"{"print":{"command":"x""#))
                .collect();
            assert_eq!(got.len(), answers.len(), "{payload}");
            let requests = heard.iter().filter(|(on, _)| *on == request).count();
            assert!(requests <= usize::from(flood) - lost, "{requests} of {flood}");
            assert!(proxy.ends.borrow().is_empty(), "no client is disconnected");
            slow.disconnect().await;
            pass(secs(1)).await;
            assert!(lan::journal_says(&format!(
                "{} requests of other clients dropped)",
                usize::from(flood) - requests
            )));
        });
    }
}

/// Frames that requests occupy at slow listeners are free when a request or the printer's state needs them.
#[test]
fn requests_at_slow_listeners_cost_no_frame_that_is_needed() {
    lan::run(async {
        let printer = Printer::new(Model::H2D).quiet().state_bytes(20_000);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(1)).await;
        let request = printer.request_topic();
        let mut slow = Vec::new();
        let mut slicer = proxy.client("slicer").await;
        let mut reader = proxy.reader("reader", &printer.report_topic()).await;
        let full = |report: &[u8]| report.len() > 10_000;
        reader.report_where(full).await;
        // Each listener holds requests that the ones before it had no room for, and one more that it is being
        // sent, whose frame cannot be taken from it.
        for n in 0..2 {
            slow.push(Client::subscribed(proxy.stream_of(4096), &n.to_string(), &request).await);
            for id in 1..=BOARD.mqtt.large.count as u16 {
                slicer.publish(&request, &[b'x'; 9000], 1, id).await;
                slicer.expect(PUBACK).await;
            }
            printer.delta();
            let mut late = proxy.reader("late", &printer.report_topic()).await;
            late.report_where(full).await;
            printer.full();
            reader.report_where(full).await;
            late.disconnect().await;
        }
        for listener in &mut slow {
            assert!(!heard_on(listener, &request).await.is_empty());
        }
        slicer.publish(&request, &order(1), 0, 0).await;
        for listener in &mut slow {
            assert_eq!(heard_on(listener, &request).await, [order(1)], "it is still connected");
        }
    });
}
