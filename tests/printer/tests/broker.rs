//! How the simulated broker treats its clients.

use tokio::io::{AsyncReadExt, BufStream, duplex};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::{
    CODE, Client, PIPE, connect, hello, publish, pushall, secs, simulated, subscribe, subscriber,
};
use printer::{
    CONNECT_TIMEOUT, Ending, GARBAGE, KEPT, MAX_PACKET, MAX_QUEUE, Model, Printer, Quirk,
    WRITE_TIMEOUT,
};

#[test]
fn packets_are_understood_wherever_they_are_split() {
    let topic = format!("device/{}", Model::P1S.serial());
    let mut bytes = hello(CODE, 30);
    bytes.extend(subscribe(1, &[&format!("{topic}/report")]));
    bytes.extend(publish(&format!("{topic}/request"), pushall().as_bytes(), 1, 9, false));
    for split in 0..=bytes.len() {
        let (early, late) = bytes.split_at(split);
        simulated(async || {
            let printer = Printer::new(Model::P1S).quiet();
            let mut client = Client::new(&printer);
            client.send(early).await;
            sleep(secs(1)).await;
            client.send(late).await;
            let kinds: Vec<_> = [
                client.packet().await,
                client.packet().await,
                client.packet().await,
                client.packet().await,
            ]
            .into_iter()
            .map(|packet| packet.unwrap().0)
            .collect();
            assert_eq!(kinds, [0x20, 0x90, 0x40, 0x30], "split at {split}");
        });
    }
}

#[test]
fn a_wrong_code_is_refused_and_never_remembered() {
    simulated(async || {
        let printer = Printer::new(Model::P1S);
        for code in ["1234567", "123456789", "12345679", ""] {
            let mut client = Client::new(&printer);
            client.send(&hello(code, 30)).await;
            assert_eq!(client.packet().await, Some((0x20, vec![0, 5])));
            assert_eq!(client.packet().await, None);
        }
        let printer = printer.wrong_code_answer(4);
        let mut client = Client::new(&printer);
        client.send(&connect("MQTT", 4, "other", CODE, 30)).await;
        assert_eq!(client.packet().await, Some((0x20, vec![0, 4])));
        let mut client = Client::new(&printer);
        client.send(&connect("MQTT", 5, "bblp", CODE, 30)).await;
        assert_eq!(client.packet().await, Some((0x20, vec![0, 1])));
        assert_eq!(client.packet().await, None);
        assert_eq!(printer.endings().last(), Some(&Ending::Refused(1)));
        assert!(!format!("{:?}", printer.hellos()).contains("123456"));
        assert_eq!(printer.open(), 0);
    });
}

#[test]
fn a_p1s_closes_on_any_topic_but_its_own() {
    let own = "device/01P00A3C1200417/report";
    for filters in [
        &["device/01P00A3C1200417/request"][..],
        &["#"],
        &["device/+/report"],
        &["device/01P00A3C1200418/report"],
        &[own, "device/01P00A3C1200417/request"],
    ] {
        simulated(async || {
            let printer = Printer::new(Model::P1S).quiet();
            let mut client = Client::welcome(&printer).await;
            client.send(&subscribe(1, filters)).await;
            assert_eq!(client.packet().await, None, "{filters:?}");
            assert_eq!(printer.endings(), [Ending::Unwanted]);

            let mut client = subscriber(&printer).await;
            client.send(&subscribe(2, &[own])).await; // again is no other topic
            assert_eq!(client.packet().await, Some((0x90, vec![0, 2, 0])));
            client.send(&publish("device/01P00A3C1200417/elsewhere", b"{}", 0, 0, false)).await;
            assert_eq!(client.packet().await, None);
        });
    }
}

#[test]
fn an_a1_ignores_a_wrong_serial_and_closes_on_other_topics() {
    simulated(async || {
        let printer = Printer::new(Model::A1Mini);
        let mut client = Client::welcome(&printer).await;
        client.send(&subscribe(1, &["device/03000A432500534/report"])).await;
        assert_eq!(client.packet().await, Some((0x90, vec![0, 1, 0])));
        assert!(client.is_silent_for(secs(600)).await);
        client.send(&subscribe(2, &["device/03000A432500533/request"])).await;
        assert_eq!(client.packet().await, None);
        assert_eq!(printer.subscriptions().len(), 2);
    });
}

#[test]
fn an_x1_accepts_wildcards_and_forwards_requests() {
    simulated(async || {
        let printer = Printer::new(Model::X1C).quiet();
        let mut curious = Client::welcome(&printer).await;
        curious.send(&subscribe(1, &["device/+/report", "device/00M00A2B0700218/#"])).await;
        assert_eq!(curious.packet().await, Some((0x90, vec![0, 1, 0, 0])));
        let mut other = Client::welcome(&printer).await;
        other.request(&printer, &pushall()).await;
        let (topic, payload) = curious.publication().await;
        assert_eq!((&*topic, &*payload), (&*printer.request_topic(), pushall().as_bytes()));
        assert_eq!(curious.publication().await.0, printer.report_topic());
        curious.send(b"\xa2\x13\x00\x03\x00\x0fdevice/+/report").await;
        assert_eq!(curious.packet().await, Some((0xb0, vec![0, 3])));
    });
}

#[test]
fn whoever_does_not_say_connect_in_time_or_first_is_dropped() {
    simulated(async || {
        let printer = Printer::new(Model::P1S);
        let mut client = Client::new(&printer);
        client.send(&hello(CODE, 30)[..10]).await;
        assert!(client.is_silent_for(CONNECT_TIMEOUT - secs(1)).await);
        assert_eq!(client.packet().await, None);
        let mut client = Client::new(&printer);
        client.send(b"\xc0\x00").await;
        assert_eq!(client.packet().await, None);
        let mut client = Client::welcome(&printer).await;
        client.send(&hello(CODE, 30)).await;
        assert_eq!(client.packet().await, None);
        assert_eq!(printer.endings(), [Ending::Late, Ending::Malformed, Ending::Malformed]);
    });
}

#[test]
fn what_is_no_packet_ends_the_connection() {
    let most = u32::try_from(MAX_PACKET - 4).unwrap();
    let mut too_long = vec![0x30];
    too_long.extend((0..4).map(|place| {
        let digit = u8::try_from(most >> (7 * place) & 0x7f).unwrap();
        if place < 3 { digit | 0x80 } else { digit }
    }));
    let many: Vec<String> = (0..33).map(|number| format!("t/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        GARBAGE.to_vec(),
        too_long,
        b"\x30\xff\xff\xff\xff\x01".to_vec(),
        b"\x32\x05\x00\x01a\x00\x00".to_vec(), // QoS 1 with packet id 0
        b"\x36\x05\x00\x01a\x00\x01".to_vec(), // QoS 3
        b"\x30\x03\x00\x02a".to_vec(),         // a topic longer than its packet
        b"\x30\x03\x00\x01#".to_vec(),
        b"\x82\x02\x00\x01".to_vec(), // no filter
        b"\x80\x06\x00\x01\x00\x01a\x00".to_vec(),
        b"\x00\x00".to_vec(),
        subscribe(1, &many),
    ];
    for case in cases {
        simulated(async || {
            let printer = Printer::new(Model::X1C).quiet();
            let mut client = Client::welcome(&printer).await;
            client.send(&case).await;
            assert_eq!(client.packet().await, None, "{}", case.escape_ascii());
            assert_eq!(printer.endings(), [Ending::Malformed], "{}", case.escape_ascii());
        });
    }
}

#[test]
fn a_request_is_acknowledged_and_seen_as_it_came() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = Client::welcome(&printer).await;
        let payload = b"{\"print\":{\"command\":\"pause\"}}\0";
        client.send(&publish(&printer.request_topic(), payload, 1, 77, true)).await;
        assert_eq!(client.packet().await, Some((0x40, vec![0, 77])));
        let requests = printer.requests();
        let [request] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(request.payload, payload);
        assert_eq!((request.qos, request.dup, request.id), (1, true, Some(77)));

        printer.turn(Quirk::NoPuback, true);
        client.send(&publish(&printer.request_topic(), b"not JSON", 1, 78, false)).await;
        assert!(client.is_silent_for(secs(60)).await);
        client.send(&publish(&printer.request_topic(), b"{}", 0, 0, false)).await;
        client.send(&publish(&printer.request_topic(), b"{}", 2, 5, false)).await;
        assert_eq!(client.packet().await, None);
        assert_eq!(printer.requests_ever(), 3);
    });
}

#[test]
fn only_the_last_requests_are_remembered() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = Client::welcome(&printer).await;
        for number in 0..KEPT + 10 {
            client.request(&printer, &number.to_string()).await;
        }
        assert!(printer.until(secs(1), |printer| printer.requests_ever() == 266).await);
        assert_eq!(printer.requests().len(), KEPT);
        assert_eq!(printer.requests()[0].payload, b"10");
    });
}

#[test]
fn an_orderly_end_is_told_from_a_loss() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut polite = subscriber(&printer).await;
        polite.send(b"\xe0\x00").await;
        assert_eq!(polite.packet().await, None);
        drop(subscriber(&printer).await);
        assert!(printer.until(secs(1), |printer| printer.ever() == 2 && printer.open() == 0).await);
        assert_eq!(printer.endings(), [Ending::Orderly, Ending::Lost]);
        assert_eq!((printer.orderly(), printer.disorderly()), (1, 1));
        let hello = &printer.hellos()[0];
        assert_eq!((&*hello.client_id, hello.keep_alive, hello.answer), ("tiny", 30, 0));
        assert!(hello.clean_session && !hello.will);
    });
}

#[test]
fn a_slow_subscriber_is_dropped_and_holds_up_nobody() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let (mut slow, mut quick) = (subscriber(&printer).await, subscriber(&printer).await);
        let report = vec![b'x'; 2000];
        for _ in 0..2 * MAX_QUEUE {
            printer.report(&report);
            assert_eq!(quick.report().await, report);
        }
        assert_eq!(printer.endings(), [Ending::Lagging]);
        let got = slow.stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(got < PIPE + report.len(), "{got}");
        assert_eq!((printer.open(), printer.reports()), (1, 512));

        let _stuck = subscriber(&printer).await;
        printer.report(&vec![b'x'; 2 * PIPE]);
        quick.report().await;
        sleep(WRITE_TIMEOUT + secs(1)).await;
        assert_eq!(printer.endings(), [Ending::Lagging, Ending::Stuck]);
    });
}

#[test]
fn whoever_takes_a_little_now_and_then_is_not_stuck() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let mut client = subscriber(&printer).await;
        printer.report(&vec![b'x'; 4 * PIPE]);
        for _ in 0..4 {
            sleep(WRITE_TIMEOUT - secs(1)).await;
            client.stream.read_exact(&mut [0; 100]).await.unwrap();
        }
        // While it is half-open itself, it disconnects no client.
        printer.turn(Quirk::HalfOpen, true);
        sleep(10 * WRITE_TIMEOUT).await;
        printer.turn(Quirk::HalfOpen, false);
        client.stream.read_exact(&mut [0; 4 * PIPE - 400]).await.unwrap();
        assert_eq!(printer.open(), 1);
    });
}

#[test]
fn what_is_said_is_flushed_through_a_stream_that_gathers() {
    simulated(async || {
        let printer = Printer::new(Model::P1S).quiet();
        let (stream, far) = duplex(PIPE);
        let gathering = BufStream::new(far);
        spawn_local({
            let printer = printer.clone();
            async move { printer.serve(gathering).await }
        });
        let mut client = Client { stream };
        client.send(&hello(CODE, 30)).await;
        assert_eq!(client.packet().await, Some((0x20, vec![0, 0])));
    });
}
