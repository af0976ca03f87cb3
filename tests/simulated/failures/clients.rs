//! What everybody else is promised while one client misbehaves.

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::Error;
use pandaproxy::runtime::drive::End;
use pandaproxy::runtime::stream::StreamError;
use pandaproxy::service::Service as _;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::time::Instant;

use super::{MARK, is_full};
use crate::clients::mqtt::{Client, PUBACK};
use crate::lan::{self, Proxy, Tally, ms, pass, secs};
use printer::{Model, Printer};

/// A client behind a wire of 4 KiB.
async fn narrow(proxy: &Proxy, id: &str) -> Client<DuplexStream> {
    Client::subscribed(proxy.stream_of(4096), id, "#").await
}

/// Guards: bambuddy#1872: a sleeping laptop is never disconnected.
#[test]
fn a_client_that_reads_nothing_is_closed_others_are_on_time() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).state_bytes(20_000);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut quick = proxy.reader("quick", "#").await;
        let stuck = Tally::of(Kind::Stuck);
        let _deaf = narrow(&proxy, "deaf").await;
        for n in 0..30 {
            let mark = format!(r#"{{"print":{{"command":"test-{n}","result":"success"}}}}"#);
            let before = Instant::now();
            printer.report(mark.as_bytes());
            quick.report_where(|report| report == mark.as_bytes()).await;
            assert_eq!(before.elapsed(), ms(0), "report {n}");
            pass(ms(500)).await;
        }
        assert_eq!(proxy.end(), End::Stream(StreamError::Stalled(secs(5))));
        assert_eq!(stuck.now(), 1);
        assert_eq!(printer.ever(), 1);
    });
}

#[test]
fn a_slow_reader_loses_whole_reports_and_gets_the_full_state() {
    for (model, period) in [(Model::P1S, 100), (Model::X1C, 200), (Model::H2D, 100)] {
        lan::run(async {
            let printer = Printer::new(model).deltas_every(ms(period));
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            let lagged = Tally::of(Kind::Lagged);
            let mut quick = proxy.reader("quick", "#").await;
            let mut slow = narrow(&proxy, "slow").await;
            let mut known = lan::oracle::Known::default();
            for _ in 0..60 {
                // One report, which has to be JSON from its first byte to its last.
                let report = slow.report().await;
                known.learn(&report);
                let _heard = quick.reports_within(ms(500)).await;
            }
            assert!(lagged.now() > 0, "{model:?}");
            let printer = printer.quiet();
            pass(ms(10)).await;
            for report in slow.reports_within(secs(1)).await {
                known.learn(&report);
            }
            // Nothing comes after the last state it was given, so it knows what the others know.
            printer.full();
            let last = lan::json(&printer.last_full().unwrap());
            let mut seen = known.state().unwrap().clone();
            for key in ["sequence_id", "net", "ipcam"] {
                seen["print"][key] = last["print"][key].clone();
            }
            assert_eq!(seen, last, "{model:?}");
            assert!(proxy.ends.borrow().is_empty());
        });
    }
}

/// A reader that is behind gets every answer, or is disconnected with the reason.
#[test]
fn a_slow_reader_gets_all_answers_or_is_disconnected() {
    for behind in 1..=3 * BOARD.mqtt.ring {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet().state_bytes(6_000);
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            // The state alone is more than the wire holds.
            let mut slow = narrow(&proxy, "slow").await;
            pass(ms(10)).await;
            let answer = |n| format!(r#"{{"print":{{"command":"x","result":"success","n":{n}}}}}"#);
            for n in 1..=behind {
                printer.report(answer(n).as_bytes());
                pass(ms(1)).await;
            }
            let heard = slow.reports_within(secs(2)).await;
            let answers =
                heard.iter().filter(|report| report.starts_with(br#"{"print":{"command":"x""#));
            if behind <= BOARD.mqtt.ring {
                assert_eq!(answers.count(), behind);
                assert_eq!(heard.last().unwrap(), answer(behind).as_bytes(), "{behind} behind");
            } else if answers.count() < behind {
                assert_eq!(proxy.end(), End::Session(Error::AnswersLost), "{behind} behind");
            }
        });
    }
}

/// The room it takes up with reports it does not read is needed: it loses them, not its footing.
#[test]
fn a_reader_dropped_for_anothers_request_gets_the_state_after() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet().state_bytes(20_000);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(1)).await;
        let lagged = Tally::of(Kind::Lagged);
        let mut slow = narrow(&proxy, "slow").await;
        let mut other = proxy.client("other").await;
        let mut state = lan::json(&printer.last_full().unwrap());
        for percent in 1..BOARD.mqtt.large.count {
            state["print"]["mc_percent"] = percent.into();
            printer.report(state.to_string().as_bytes());
            pass(ms(10)).await;
        }
        other.publish(&printer.request_topic(), &[b'x'; 9000], 1, 1).await;
        other.expect(PUBACK).await;
        assert_eq!(lagged.now(), 1);
        let delta = br#"{"print":{"command":"push_status","msg":1,"bed_temper":33}}"#;
        printer.report(delta);
        state["print"]["bed_temper"] = 33.into();
        let mut known = lan::oracle::Known::default();
        for report in slow.reports_within(secs(1)).await {
            known.learn(&report);
        }
        let mut known = known.state().unwrap().clone();
        known["print"]["net"] = state["print"]["net"].clone();
        assert_eq!(known, state);
    });
}

#[test]
fn a_client_that_never_reads_its_acks_affects_no_other() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut quick = proxy.reader("quick", "#").await;
        let mut rude = Client::connected(proxy.stream_of(256), "rude").await;
        let topic = printer.request_topic();
        let flood = async {
            for n in 0..2000_u16 {
                let ping = crate::clients::mqtt::publish_bytes(&topic, b"{}", 2, n + 1);
                if rude.send(&ping).await.is_err() {
                    return;
                }
            }
        };
        flood.await;
        printer.report(MARK);
        quick.report_where(|report| report == MARK).await;
        assert_eq!(proxy.end(), End::Stream(StreamError::Stalled(secs(5))));
        assert_eq!(printer.ever(), 1);
    });
}

#[test]
fn large_reports_under_way_leave_room_for_the_next() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet().state_bytes(30_000);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(1)).await;
        let mut streams = Vec::new();
        let mut quick = proxy.reader("quick", "#").await;
        // Each holds the report that was the newest when it stopped reading.
        for n in 0..BOARD.clients.mqtt - 1 {
            streams.push(narrow(&proxy, &format!("{n}")).await);
            printer.full();
            pass(ms(100)).await;
        }
        let _before = quick.reports_within(ms(100)).await;
        printer.report(MARK);
        quick.report_where(|report| report == MARK).await;
        // These clients are disconnected, or read again; then memory is as before.
        pass(secs(10)).await;
        printer.full();
        quick.report_where(is_full).await;
        quick.publish(&printer.request_topic(), &[b'x'; 9000], 1, 1).await;
        quick.expect(PUBACK).await;
        assert!(printer.pushalls() <= 5, "{}", printer.pushalls());
    });
}

#[test]
fn clients_that_vanish_at_any_moment_free_their_slots() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).deltas_every(ms(100));
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut quick = proxy.reader("quick", "#").await;
        let hello = crate::clients::mqtt::hello_bytes(&crate::clients::mqtt::Hello::default());
        for n in 0..100 {
            let mut client = Client::over(proxy.stream_of(4096));
            client.send(&hello[..n % hello.len()]).await.unwrap();
            drop(client);
            let mut client = narrow(&proxy, "vanishing").await;
            if n % 3 == 0 {
                client.publish(&printer.request_topic(), b"{}", 2, 1).await;
            }
            let mut stream = client.into_stream();
            let mut some = vec![0; n * 7];
            let _some = tokio::time::timeout(ms(300), stream.read_exact(&mut some)).await;
            drop(stream);
        }
        pass(secs(10)).await;
        assert_eq!((proxy.service.clients(), proxy.service.connections()), (1, 1));
        printer.report(MARK);
        quick.report_where(|report| report == MARK).await;
    });
}

/// The full state replaces dropped reports; dropped answers cannot be replaced.
#[test]
fn a_slow_reader_loses_states_and_no_answers() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let lagged = Tally::of(Kind::Lagged);
        let mut slow = narrow(&proxy, "slow").await;
        let answer =
            |n: usize| format!(r#"{{"print":{{"command":"answer-{n}","result":"success"}}}}"#);
        for n in 0..BOARD.mqtt.ring {
            printer.report(answer(n).as_bytes());
            for _ in 0..2 * BOARD.mqtt.ring {
                printer.full();
                pass(ms(1)).await;
            }
        }
        assert!(lagged.now() > 0);
        let mut answers = 0;
        for report in slow.reports_within(secs(1)).await {
            if report == answer(answers).as_bytes() {
                answers += 1;
            }
        }
        assert_eq!(answers, BOARD.mqtt.ring);
    });
}

#[test]
fn a_client_whose_answers_no_longer_fit_is_disconnected() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut quick = proxy.reader("quick", "#").await;
        let _state = quick.report().await;
        let mut deaf = narrow(&proxy, "deaf").await;
        let large = format!(r#"{{"print":{{"command":"x","result":"{}"}}}}"#, "x".repeat(3000));
        for _ in 0..BOARD.mqtt.ring + 10 {
            printer.report(large.as_bytes());
            assert_eq!(quick.report().await, large.as_bytes());
        }
        let _read = deaf.all_within(ms(100)).await;
        assert!(deaf.is_closed().await);
        assert_eq!(proxy.end(), End::Session(Error::AnswersLost));
    });
}
