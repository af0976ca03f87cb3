//! The MQTT service between a simulated printer and simulated clients: what it promises while both
//! behave. `mqtt` itself is about connections; `reports` and `requests` are about what flows.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod listeners;
mod reports;
mod requests;

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::Error;
use pandaproxy::runtime::drive::End;
use pandaproxy::service::Service as _;
use tokio::time::Instant;

use crate::clients::mqtt::{
    Client, Hello, PINGRESP, PUBACK, PUBLISH, Packet, SUBACK, hello_bytes, packet, publish_bytes,
};
use crate::lan::{self, Proxy, Tally, ms, pass, secs};
use printer::{Model, Printer};

const MARK: &[u8] = br#"{"print":{"command":"test","result":"success"}}"#;

/// The printer takes four connections. Ten clients open theirs; it notices one.
#[test]
fn ten_clients_cost_the_printer_one_connection() {
    lan::run(async {
        let printer = Printer::new(Model::P1S);
        let up = Tally::of(Kind::PrinterUp);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut clients = Vec::new();
        for number in 0..10 {
            clients.push(proxy.reader(&format!("client-{number}"), "device/+/report").await);
        }
        pass(secs(60)).await;
        printer.report(MARK);
        for client in &mut clients {
            assert_eq!(client.report_where(|report| report == MARK).await, MARK);
        }
        assert_eq!((printer.most_open(), printer.ever()), (1, 1));
        assert_eq!(up.now(), 1);
        assert_eq!(printer.subscriptions(), [printer.report_topic()]);
    });
}

#[test]
fn wrong_credentials_get_connack_5() {
    lan::run(async {
        let (_printer, proxy) = Proxy::connected(Model::P1S).await;
        let wrong = Tally::of(Kind::WrongCode);
        for hello in [
            Hello { password: Some(b"12345679"), ..Hello::default() },
            Hello { password: None, ..Hello::default() },
            Hello { user: Some("admin"), ..Hello::default() },
            Hello { user: None, password: None, ..Hello::default() },
        ] {
            let mut client = Client::over(proxy.stream());
            assert_eq!(client.connect(&hello).await, 5, "{hello:?}");
            assert!(client.is_closed().await);
        }
        assert_eq!(wrong.now(), 4);
    });
}

#[test]
fn mqtt_3_1_and_mosquitto_bridges_are_served_like_3_1_1() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::X1C).await;
        for (name, level) in [("MQIsdp", 3), ("MQIsdp", 0x83), ("MQTT", 0x84)] {
            let mut client = Client::over(proxy.stream());
            assert_eq!(client.connect(&Hello { name, level, ..Hello::default() }).await, 0);
            assert_eq!(client.subscribe(&[("#", 0)]).await, [0]);
            printer.report(MARK);
            client.report_where(|report| report == MARK).await;
            // No client gets its own requests, which a bridge relies on.
            client.publish(&printer.request_topic(), MARK, 1, 1).await;
            let packets = client.all_within(secs(2)).await;
            let topics = packets.iter().filter(|packet| packet.first >> 4 == PUBLISH);
            assert!(
                topics.map(|packet| packet.published().0).all(|to| to == printer.report_topic())
            );
        }
    });
}

#[test]
fn mqtt_5_gets_its_own_connack_and_other_levels_connack_1() {
    lan::run(async {
        let (_printer, proxy) = Proxy::connected(Model::X1C).await;
        let mut client = Client::over(proxy.stream());
        client.send(&hello_bytes(&Hello { level: 5, ..Hello::default() })).await.unwrap();
        assert_eq!(client.next().await, Some(Packet { first: 0x20, body: vec![0, 0x84, 0] }));
        assert_eq!(client.next().await, None);

        let mut client = Client::over(proxy.stream());
        assert_eq!(client.connect(&Hello { level: 6, ..Hello::default() }).await, 1);
        assert!(client.is_closed().await);
    });
}

#[test]
fn a_client_without_a_name_cannot_have_its_session_kept() {
    lan::run(async {
        let (_printer, proxy) = Proxy::connected(Model::X1C).await;
        let mut client = Client::over(proxy.stream());
        let nameless = Hello { id: "", clean: false, ..Hello::default() };
        assert_eq!(client.connect(&nameless).await, 2);
        assert!(client.is_closed().await);
        let mut client = Client::over(proxy.stream());
        assert_eq!(client.connect(&Hello { id: "", ..Hello::default() }).await, 0);
    });
}

/// Printers end the connection over requests they do not know.
#[test]
fn a_will_never_reaches_the_printer() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::X1C).await;
        let mut other = proxy.reader("other", "#").await;
        let topic = printer.request_topic();
        let mut client = Client::over(proxy.stream());
        let will = Hello { will: Some((&topic, b"last words")), ..Hello::default() };
        assert_eq!(client.connect(&will).await, 0);
        drop(client);
        pass(secs(5)).await;
        assert!(printer.requests().iter().all(|request| request.payload != b"last words"));
        let heard = other.reports_within(secs(1)).await;
        assert!(heard.iter().all(|report| report != b"last words"));
        assert!(printer.hellos().iter().all(|hello| !hello.will && hello.clean_session));
    });
}

/// OrcaSlicer announces a keepalive and is then idle for hours.
///
/// Guards: bambuddy#1548: idle slicers are cut off.
#[test]
fn a_client_that_never_pings_is_never_cut() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).deltas_every(secs(20));
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut idle = proxy.client("idle").await;
        let mut reader = proxy.reader("reader", "#").await;
        let heard = reader.reports_within(secs(5 * 3600)).await;
        assert!(heard.len() >= 900, "{}", heard.len());
        idle.send(&[0xc0, 0]).await.unwrap();
        idle.expect(PINGRESP).await;
        assert!(proxy.ends.borrow().is_empty());
    });
}

#[test]
fn a_slicer_may_say_everything_at_once_or_byte_by_byte() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let topic = printer.request_topic();
        let mut all = hello_bytes(&Hello::default());
        let mut filter = vec![0, 10];
        filter.extend([0, 1, b'#', 1]);
        all.extend(packet(0x82, &filter));
        all.extend(publish_bytes(&topic, br#"{"print":{"command":"one"}}"#, 2, 1));
        all.extend([0xc0, 0]);
        for piece in [all.len(), 1, 2, 3, 7, 16] {
            let mut client = Client::over(proxy.stream());
            for piece in all.chunks(piece) {
                client.send(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert_eq!(client.expect(SUBACK).await.body, [0, 10, 1]);
            assert_eq!(client.expect(PUBACK).await.body, [0, 1]);
            client.expect(PINGRESP).await;
            let _reports = client.all_within(ms(10)).await;
            client.disconnect().await;
        }
        pass(secs(1)).await;
        assert!(proxy.ends.borrow().iter().all(|end| *end == End::Session(Error::Left)));
        assert_eq!(proxy.ends.borrow().len(), 6);
    });
}

/// A protocol error ends its own connection, is counted, and affects no other client.
#[test]
fn protocol_errors_close_only_their_own_connection() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut witness = proxy.reader("witness", "#").await;
        let hello = hello_bytes(&Hello::default());
        let long = "x".repeat(5000);
        let request = printer.request_topic();
        let zero_id = publish_bytes(&request, b"{}", 2, 0);
        let too_long = publish_bytes(&request, &vec![b' '; BOARD.mqtt.inbox], 2, 1);
        let cases: &[(&str, bool, &[u8], Kind)] = &[
            ("the first packet is PINGREQ", false, &[0xc0, 0], Kind::Malformed),
            ("it speaks HTTP", false, b"GET / HTTP/1.1\r\n\r\n", Kind::Malformed),
            ("it speaks TLS", false, &[0x16, 3, 1, 2, 0, 1, 0], Kind::Malformed),
            (
                "a CONNECT of 5 kB",
                false,
                &hello_bytes(&Hello { id: &long, ..Hello::default() }),
                Kind::TooLong,
            ),
            (
                "another protocol",
                false,
                &hello_bytes(&Hello { name: "MQTX", ..Hello::default() }),
                Kind::Malformed,
            ),
            ("a second CONNECT", true, &hello, Kind::Malformed),
            ("SUBACK from a client", true, &[0x90, 3, 0, 1, 0], Kind::Malformed),
            ("PINGRESP from a client", true, &[0xd0, 0], Kind::Malformed),
            ("a topic that is not UTF-8", true, &[0x30, 4, 0, 1, 0xff, b'x'], Kind::Malformed),
            (
                "a topic with a wildcard",
                true,
                &publish_bytes("device/+/request", b"{}", 0, 0),
                Kind::Malformed,
            ),
            ("no topic", true, &publish_bytes("", b"{}", 0, 0), Kind::Malformed),
            ("QoS 3", true, &publish_bytes(&request, b"{}", 6, 1), Kind::Malformed),
            ("packet id 0", true, &zero_id, Kind::Malformed),
            ("a SUBSCRIBE without filters", true, &[0x82, 2, 0, 1], Kind::Malformed),
            ("a filter that is none", true, &[0x82, 7, 0, 1, 0, 2, b'#', b'x', 0], Kind::Malformed),
            ("type 15", true, &[0xf0, 0], Kind::Malformed),
            ("a length of five bytes", true, &[0x30, 0xff, 0xff, 0xff, 0xff, 1], Kind::Malformed),
            ("a packet larger than its inbox", true, &too_long[..4], Kind::TooLong),
            (
                "the largest packet there can be",
                true,
                &[0x30, 0xff, 0xff, 0xff, 0x7f],
                Kind::TooLong,
            ),
        ];
        for (what, connected, bytes, kind) in cases {
            let tally = Tally::of(*kind);
            let mut client = match connected {
                true => proxy.client(what).await,
                false => Client::over(proxy.stream()),
            };
            client.send(bytes).await.unwrap();
            let before = Instant::now();
            assert!(client.is_closed().await, "{what}");
            assert_eq!(before.elapsed().as_secs(), 0, "{what}");
            assert_eq!(tally.now(), 1, "{what}: {:?}", proxy.end());
            proxy.ends.borrow_mut().clear();
            printer.report(MARK);
            witness.report_where(|report| report == MARK).await;
        }
        assert_eq!(proxy.service.connections(), 1);
        assert_eq!(printer.ever(), 1);
    });
}

#[test]
fn a_packet_as_large_as_the_inbox_is_taken() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.client("large").await;
        let topic = printer.request_topic();
        let head = 1 + 2 + 2 + topic.len() + 2;
        let payload = vec![0xff; BOARD.mqtt.inbox - head];
        assert_eq!(publish_bytes(&topic, &payload, 2, 1).len(), BOARD.mqtt.inbox);
        client.publish(&topic, &payload, 1, 1).await;
        client.expect(PUBACK).await;
        let got =
            |printer: &Printer| printer.requests().iter().any(|request| request.payload == payload);
        assert!(printer.until(secs(1), got).await);
    });
}

#[test]
fn a_connection_without_connect_is_closed_after_ten_seconds() {
    lan::run(async {
        let (_printer, proxy) = Proxy::connected(Model::P1S).await;
        let silent = Tally::of(Kind::Silent);
        let hello = hello_bytes(&Hello::default());
        let mut mute = Client::over(proxy.stream());
        let mut slow = Client::over(proxy.stream());
        let before = Instant::now();
        for byte in &hello[..9] {
            slow.send(&[*byte]).await.unwrap();
            pass(secs(1)).await;
        }
        assert!(mute.is_closed().await && slow.is_closed().await);
        assert_eq!(before.elapsed().as_secs(), 10);
        assert_eq!(silent.now(), 2);
        assert_eq!(*proxy.ends.borrow(), [End::Session(Error::Silent); 2]);
    });
}

#[test]
fn eight_filters_are_kept_and_the_others_are_refused_one_by_one() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.client("many").await;
        let names: Vec<String> = (0..40).map(|n| format!("filter/{n}")).collect();
        let filters = |from: usize, to: usize| -> Vec<(&str, u8)> {
            names[from..to].iter().map(|name| (name.as_str(), 1)).collect()
        };
        let mut expected = vec![1; 8];
        expected.extend([0x80; 2]);
        assert_eq!(client.subscribe(&filters(0, 10)).await, expected);
        assert_eq!(client.subscribe(&[("filter/0", 2), ("#", 0)]).await, [2, 0x80]);
        client.unsubscribe("filter/3").await;
        client.unsubscribe("never/heard/of").await;
        assert_eq!(client.subscribe(&[("#", 0)]).await, [0]);
        printer.report(MARK);
        client.report_where(|report| report == MARK).await;
        assert_eq!(client.subscribe(&filters(8, 40)).await, [0x80; 32]);
        assert_eq!(client.subscribe(&[(&"x".repeat(97), 0)]).await, [0x80]);

        let refused = Tally::of(Kind::Refused);
        let mut body = vec![0, 10];
        for name in &names[..33] {
            body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            body.extend(name.as_bytes());
            body.push(0);
        }
        client.send(&packet(0x82, &body)).await.unwrap();
        assert!(client.is_closed().await);
        assert_eq!(proxy.end(), End::Session(Error::TooManyFilters));
        assert_eq!(refused.now(), 1);
    });
}

#[test]
fn without_a_free_slot_connack_3_or_the_clients_older_one_goes() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut clients = Vec::new();
        for n in 0..BOARD.clients.mqtt {
            clients.push(proxy.reader(&format!("client-{n}"), "#").await);
            pass(secs(1)).await;
        }
        let refused = Tally::of(Kind::Refused);
        let mut newcomer = Client::over(proxy.stream());
        assert_eq!(newcomer.connect(&Hello { id: "newcomer", ..Hello::default() }).await, 3);
        assert!(newcomer.is_closed().await);
        assert_eq!((proxy.end(), refused.now()), (End::Session(Error::NoSlot), 1));

        let mut again = proxy.client("client-3").await;
        assert!(clients[3].is_closed().await);
        assert_eq!(proxy.end(), End::Session(Error::TakenOver));
        again.publish(&printer.request_topic(), b"{}", 1, 1).await;
        again.expect(PUBACK).await;
        printer.report(MARK);
        for (n, client) in clients.iter_mut().enumerate().filter(|(n, _)| *n != 3) {
            client.report_where(|report| report == MARK).await;
            assert_eq!(proxy.service.clients(), BOARD.clients.mqtt, "{n}");
        }
        clients.pop().unwrap().disconnect().await;
        pass(secs(1)).await;
        proxy.client("newcomer").await;
    });
}

/// An A1 mini accepts two sessions of the same name, and slicers do that.
#[test]
fn two_connections_of_one_client_id_coexist_while_slots_last() {
    lan::run(async {
        let printer = Printer::new(Model::A1Mini).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut one = proxy.reader("same", "#").await;
        let mut two = proxy.reader("same", "#").await;
        printer.report(MARK);
        one.report_where(|report| report == MARK).await;
        two.report_where(|report| report == MARK).await;
    });
}
