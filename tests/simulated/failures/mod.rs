//! What the MQTT service promises while the printer misbehaves; `clients` is about clients that do,
//! `chance` about everything at once.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod chance;
mod clients;

use core::time::Duration;

use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::Error;
use pandaproxy::runtime::drive::End;
use tokio::time::Instant;

use crate::clients::mqtt::{CLOSED, Client, Hello, PUBACK};
use crate::lan::{self, Proxy, Settings, Tally, WIRE, journal_says, ms, pass, secs};
use printer::{Ending, GARBAGE, Model, Printer, Quirk, Refusal};

const ORDER: &[u8] = br#"{"print":{"sequence_id":"20001","command":"pause"}}"#;
const MARK: &[u8] = br#"{"print":{"command":"test","result":"success"}}"#;

fn count(printer: &Printer, payload: &[u8]) -> usize {
    printer.requests().iter().filter(|request| request.payload == payload).count()
}

/// Whether this report is a full state.
fn is_full(report: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(report)
        .is_ok_and(|report| report["print"]["msg"] == 0)
}

/// A client that connects in a quiet moment is served: printers are quiet while they parse a job.
#[test]
fn subscribing_while_the_printer_is_quiet_gets_the_state_later() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(40)).await;
        let mut late = proxy.reader("late", "#").await;
        assert!(late.hears_nothing(secs(1)).await, "what was known is too old to be shown");
        printer.delta();
        let first = late.report().await;
        assert!(is_full(&first), "a delta alone would tell it next to nothing");
        assert_eq!(printer.pushalls(), 1);
    });
}

/// Guards: bambuddy#2698: a wrong code and a printer that is off look the same.
/// Guards: a refusal while the printer is away makes Home Assistant give up.
#[test]
fn while_the_printer_is_away_connect_is_held_then_closed() {
    lan::run(async {
        let printer = Printer::new(Model::P1S);
        printer.reboot(secs(600));
        let proxy = Proxy::before(&printer);
        for _ in 0..10 {
            let mut client = Client::over(proxy.stream());
            let before = Instant::now();
            assert_eq!(client.connect(&Hello::default()).await, CLOSED);
            assert_eq!(before.elapsed().as_secs(), 5);
            assert!(client.is_closed().await);
            assert_eq!(proxy.end(), End::Session(Error::PrinterAway));
            pass(secs(7)).await;
        }
        // Wrong credentials are still refused at once.
        let mut client = Client::over(proxy.stream());
        assert_eq!(client.connect(&Hello { user: Some("x"), ..Hello::default() }).await, 5);
    });
}

#[test]
fn a_client_that_came_early_is_let_in_when_the_printer_comes() {
    lan::run(async {
        let printer = Printer::new(Model::P1S);
        printer.reboot(secs(2));
        let proxy = Proxy::before(&printer);
        let before = Instant::now();
        let mut client = proxy.reader("early", "#").await;
        assert!(before.elapsed() >= secs(2) && before.elapsed() < secs(5));
        client.report_where(is_full).await;
    });
}

/// A P1S that was just switched on takes its time.
///
/// Guards: bambuddy#1445: a slow CONNACK is taken for a failure.
#[test]
fn a_connack_that_takes_five_seconds_is_waited_for() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).slow_connack(ms(4900));
        let proxy = Proxy::before(&printer);
        let mut client = proxy.client("early").await;
        client.publish(&printer.request_topic(), ORDER, 1, 1).await;
        client.expect(PUBACK).await;
        assert_eq!((printer.ever(), printer.refused()), (1, 0));
    });
}

#[test]
fn a_mute_printer_is_redialled_one_connection_at_a_time() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).slow_connack(secs(15)).connection_limit(1);
        let proxy = Proxy::before(&printer);
        pass(secs(60)).await;
        assert!(!proxy.service.is_live());
        assert!(printer.ever() >= 3 && printer.most_open() == 1);
        let printer = printer.slow_connack(Duration::ZERO);
        pass(secs(60)).await;
        assert!(proxy.service.is_live());
        assert_eq!(printer.open(), 1);
    });
}

/// Guards: bambuddy#1136: a request is repeated after reconnecting.
#[test]
fn a_request_while_the_printer_is_away_closes_its_sender() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut sender = proxy.client("sender").await;
        let mut other = proxy.reader("other", "#").await;
        printer.reboot(secs(10));
        pass(secs(1)).await;
        let refused = Tally::of(Kind::RequestRefused);
        sender.publish(&printer.request_topic(), ORDER, 1, 1).await;
        assert_eq!(sender.next().await, None, "no PUBACK, and the end");
        assert_eq!(proxy.end(), End::Session(Error::RequestRefused));
        assert_eq!(refused.now(), 1);
        proxy.live().await;
        pass(secs(20)).await;
        other.report_where(is_full).await;
        assert_eq!(count(&printer, ORDER), 0);
        // What is answered here does not need the printer.
        printer.reboot(secs(10));
        pass(secs(1)).await;
        let pushall = br#"{"pushing":{"command":"pushall"}}"#;
        other.publish(&printer.request_topic(), pushall, 1, 2).await;
        other.expect(PUBACK).await;
    });
}

/// Guards: bambuddy#1136: a request is repeated after reconnecting.
#[test]
fn a_request_the_printer_may_have_missed_closes_its_sender_only() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, Settings { printer_wire: 64, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let topic = printer.request_topic();
        let mut under_way = proxy.client("under way").await;
        let mut queued = proxy.client("queued").await;
        let mut reader = proxy.reader("reader", "#").await;
        let mut unacknowledged = proxy.client("unacknowledged").await;
        printer.turn(Quirk::NoPuback, true);
        unacknowledged.publish(&topic, ORDER, 1, 1).await;
        unacknowledged.expect(PUBACK).await;
        printer.turn(Quirk::HalfOpen, true);
        under_way.publish(&topic, &[b'x'; 500], 1, 1).await;
        pass(ms(10)).await;
        queued.publish(&topic, &[b'y'; 500], 0, 0).await;
        pass(secs(1)).await;
        printer.turn(Quirk::HalfOpen, false);
        printer.reboot(secs(5));
        for client in [&mut under_way, &mut queued, &mut unacknowledged] {
            assert_eq!(client.next().await, None, "no PUBACK, and the end");
        }
        assert_eq!(*proxy.ends.borrow(), [End::Session(Error::RequestLost); 3]);
        proxy.live().await;
        printer.report(MARK);
        reader.report_where(|report| report == MARK).await;
        assert_eq!((count(&printer, &[b'x'; 500]), count(&printer, &[b'y'; 500])), (0, 0));
    });
}

#[test]
fn clients_waiting_behind_lost_requests_are_closed_too() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, Settings { printer_wire: 64, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let topic = printer.request_topic();
        let mut many = proxy.client("many").await;
        let mut last = proxy.client("last").await;
        printer.turn(Quirk::HalfOpen, true);
        for n in 1..=10 {
            many.publish(&topic, ORDER, 1, n).await;
        }
        pass(ms(10)).await;
        last.publish(&topic, ORDER, 1, 1).await;
        pass(ms(10)).await;
        printer.turn(Quirk::HalfOpen, false);
        printer.reboot(secs(20));
        let before = Instant::now();
        assert!(many.is_closed().await);
        assert_eq!(last.next().await, None);
        assert!(before.elapsed() < secs(3), "{:?}", before.elapsed());
    });
}

#[test]
fn a_lost_request_is_executed_when_it_is_resent() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::with(&printer, Settings { printer_wire: 64, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let topic = printer.request_topic();
        let mut sender = proxy.client("sender").await;
        printer.turn(Quirk::HalfOpen, true);
        sender.publish(&topic, &[b'x'; 500], 1, 7).await;
        pass(ms(10)).await;
        printer.turn(Quirk::HalfOpen, false);
        printer.reboot(secs(1));
        assert_eq!(sender.next().await, None);
        proxy.live().await;
        let mut sender = proxy.client("sender").await;
        sender.publish_again(&topic, &[b'x'; 500], 1, 7).await;
        sender.expect(PUBACK).await;
        pass(secs(1)).await;
        assert_eq!(count(&printer, &[b'x'; 500]), 1, "acknowledged means delivered");
    });
}

#[test]
fn clients_stay_through_a_short_reboot_and_get_the_state_after() {
    for model in Model::ALL {
        lan::run(async {
            let (printer, proxy) = Proxy::connected(model).await;
            let mut clients = Vec::new();
            for n in 0..5 {
                clients.push(proxy.reader(&format!("{n}"), "#").await);
            }
            pass(secs(10)).await;
            printer.reboot(secs(20));
            pass(secs(1)).await;
            for client in &mut clients {
                let _before = client.reports_within(ms(10)).await;
            }
            proxy.live().await;
            for client in &mut clients {
                client.report_where(is_full).await;
            }
            assert!(proxy.ends.borrow().is_empty());
        });
    }
}

#[test]
fn the_state_from_before_a_reboot_is_never_sent() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("client", "#").await;
        assert!(is_full(&client.report().await));
        let topic = printer.request_topic();
        let get_version = br#"{"info":{"sequence_id":"7","command":"get_version"}}"#;
        printer.turn(Quirk::Zombie, true);
        printer.reboot(secs(3));
        pass(secs(1)).await;
        assert_eq!(client.subscribe(&[("#", 0)]).await, [0]);
        client.publish(&topic, get_version, 1, 1).await;
        let _version = client.expect(PUBACK).await;
        assert!(client.reports_within(secs(1)).await.iter().all(|report| !is_full(report)));
        proxy.live().await;
        let mut late = proxy.reader("late", "#").await;
        late.publish(&topic, get_version, 1, 1).await;
        assert!(late.hears_nothing(secs(5)).await);
        printer.full();
        assert!(is_full(&late.report().await) && is_full(&client.report().await));
    });
}

#[test]
fn when_the_printer_stays_away_all_clients_are_closed() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut idle = proxy.client("idle").await;
        let mut reader = proxy.reader("reader", "#").await;
        pass(secs(10)).await;
        printer.reboot(secs(300));
        pass(secs(28)).await;
        assert!(proxy.ends.borrow().is_empty());
        assert!(idle.is_closed().await && reader.is_closed().await);
        assert_eq!(*proxy.ends.borrow(), [End::Session(Error::PrinterAway); 2]);
        pass(secs(350)).await;
        assert!(proxy.service.is_live(), "it is looked for at least once a minute");
        let mut reader = proxy.reader("reader", "#").await;
        reader.report_where(is_full).await;
        assert_eq!(printer.most_open(), 1);
    });
}

/// Guards: the state of a dead printer is handed out.
#[test]
fn silence_makes_the_state_stale_then_is_queried_then_given_up() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        pass(ms(9_000)).await;
        let mut reader = proxy.reader("reader", "#").await;
        printer.turn(Quirk::Silence, true);
        // The last report was at 8 s.
        pass(secs(20)).await;
        let mut soon = proxy.reader("soon", "#").await;
        assert!(is_full(&soon.report().await), "at 29 s what is known still counts");
        pass(secs(10)).await;
        let mut late = proxy.reader("late", "#").await;
        assert!(late.hears_nothing(secs(5)).await, "at 39 s it does not");
        late.publish(&printer.request_topic(), br#"{"pushing":{"command":"pushall"}}"#, 1, 1).await;
        late.expect(PUBACK).await;
        assert!(late.hears_nothing(secs(5)).await);
        let asked = (printer.pushalls(), printer.ever());
        assert_eq!(asked, (2, 1), "a client's question goes through");
        pass(secs(25)).await;
        assert_eq!(printer.pushalls(), 3, "at a minute it is asked");
        pass(secs(80)).await;
        assert_eq!((printer.pushalls(), printer.ever()), (3, 1), "and once");
        pass(secs(12)).await;
        assert_eq!(printer.ever(), 2, "at 150 s it is given up, and dialled again");
        assert_eq!(printer.most_open(), 1);
        assert!(journal_says("no report from the printer for 150 s"));
        printer.turn(Quirk::Silence, false);
        printer.full();
        reader.report_where(is_full).await;
        late.report_where(is_full).await;
        assert!(proxy.ends.borrow().is_empty());
    });
}

/// A P1P that parses a job is silent for up to 135 s, and a new connection aborts the job.
///
/// Guards: bambuddy#1150: reconnecting while a job is parsed ends it.
#[test]
fn two_minutes_of_silence_are_waited_out() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut reader = proxy.reader("reader", "#").await;
        printer.turn(Quirk::Silence, true);
        pass(secs(135)).await;
        printer.turn(Quirk::Silence, false);
        let _before = reader.reports_within(secs(10)).await;
        reader.report().await;
        assert_eq!((printer.ever(), printer.disorderly()), (1, 0));
    });
}

#[test]
fn a_zombie_is_still_good_for_its_reports() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::A1Mini).await;
        pass(secs(1)).await;
        printer.turn(Quirk::Zombie, true);
        let mut reader = proxy.reader("reader", "#").await;
        for n in 1..=20 {
            reader.publish(&printer.request_topic(), ORDER, 1, n).await;
            reader.expect(PUBACK).await;
        }
        let heard = reader.reports_within(secs(60)).await;
        assert!(heard.len() >= 29, "{}", heard.len());
        let mut late = proxy.reader("late", "#").await;
        assert!(is_full(&late.report().await));
        assert_eq!(printer.ever(), 1);
    });
}

#[test]
fn a_printer_that_ignores_the_first_question_is_asked_again() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).with(Quirk::Zombie);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(1)).await;
        printer.turn(Quirk::Zombie, false);
        pass(secs(310)).await;
        assert_eq!(printer.pushalls(), 2);
        let mut late = proxy.reader("late", "#").await;
        assert!(is_full(&late.report().await));
    });
}

#[test]
fn a_half_open_printer_connection_is_closed() {
    lan::run(async {
        // With requests on the way it is noticed within the half minute of a stalled write.
        let printer = Printer::new(Model::P1S).connection_limit(2);
        let proxy = Proxy::with(&printer, Settings { printer_wire: 512, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let mut sender = proxy.client("sender").await;
        let mut other = proxy.client("other").await;
        printer.turn(Quirk::HalfOpen, true);
        sender.publish(&printer.request_topic(), &[b'x'; 2000], 1, 1).await;
        let before = Instant::now();
        assert_eq!(sender.next().await, None);
        assert!(before.elapsed() <= secs(33), "{:?}", before.elapsed());
        printer.turn(Quirk::HalfOpen, false);
        pass(secs(15)).await;
        assert!(proxy.service.is_live());
        other.publish(&printer.request_topic(), ORDER, 1, 1).await;
        other.expect(PUBACK).await;
        // Without, by its silence.
        printer.turn(Quirk::HalfOpen, true);
        pass(secs(165)).await;
        printer.turn(Quirk::HalfOpen, false);
        pass(secs(15)).await;
        assert!(proxy.service.is_live());
        assert_eq!(printer.open(), 1);
    });
}

#[test]
fn a_report_cut_in_the_middle_reaches_no_client() {
    for model in Model::ALL {
        lan::run(async {
            let (printer, proxy) = Proxy::connected(model).await;
            let mut reader = proxy.reader("reader", "#").await;
            for n in 2..=5 {
                pass(secs(3)).await;
                printer.cut();
                pass(secs(1)).await;
                proxy.live().await;
                printer.report(MARK);
                while reader.report().await != MARK {}
                assert_eq!(printer.ever(), n);
            }
            assert_eq!(printer.most_open(), 1);
            assert!(proxy.ends.borrow().is_empty());
            assert_eq!(printer.endings(), [Ending::Cut; 4]);
        });
    }
}

#[test]
fn garbage_from_the_printer_ends_only_that_connection() {
    for bytes in [GARBAGE, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x82, 2, 0, 1], &[0x10, 0]] {
        lan::run(async {
            let (printer, proxy) = Proxy::connected(Model::P1S).await;
            let mut reader = proxy.reader("reader", "#").await;
            let lost = Tally::of(Kind::PrinterLost);
            pass(secs(3)).await;
            printer.raw(bytes);
            pass(secs(1)).await;
            assert_eq!(lost.now(), 1);
            proxy.live().await;
            printer.report(MARK);
            reader.report_where(|report| report == MARK).await;
            assert_eq!(printer.ever(), 2);
            assert!(proxy.ends.borrow().is_empty());
        });
    }
}

#[test]
fn a_report_larger_than_any_frame_is_skipped() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut reader = proxy.reader("reader", "#").await;
        let _state = reader.report().await;
        let skipped = Tally::of(Kind::ReportTooLong);
        for bytes in [300_000, 41_100, 1_000_000] {
            printer.large(bytes);
            printer.report(MARK);
            assert_eq!(reader.report_where(|report| !is_delta(report)).await, MARK, "{bytes}");
        }
        assert_eq!(skipped.now(), 3);
        assert_eq!(printer.ever(), 1);
    });
}

fn is_delta(report: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(report)
        .is_ok_and(|report| report["print"]["msg"] == 1)
}

/// Around the size of the largest frame and of the inbox, too.
#[test]
fn a_state_too_large_for_a_frame_is_not_asked_for_repeatedly() {
    use pandaproxy::board::BOARD;
    for over in [-1_i64, 0, 1, 10, 26, 27, 28, 29, 100] {
        lan::run(async {
            let size = usize::try_from(BOARD.mqtt.large.size as i64 + over).unwrap();
            let printer = Printer::new(Model::P1S).quiet();
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            let mut state = printer.last_full().unwrap().to_vec();
            let end = state.len() - 2;
            let pad = size - state.len() - br#","pad":"""#.len();
            let mut member = br#","pad":""#.to_vec();
            member.resize(member.len() + pad, b'0');
            member.push(b'"');
            state.splice(end..end, member);
            assert_eq!(state.len(), size);
            let mut reader = proxy.reader("reader", "#").await;
            let _state = reader.report().await;
            let skipped = Tally::of(Kind::ReportTooLong);
            printer.report(&state);
            pass(secs(1)).await;
            assert_eq!(skipped.now(), u32::from(over > 0), "{over}");
            assert!(printer.pushalls() <= 2, "{over}: {}", printer.pushalls());
            printer.report(MARK);
            let got = reader.report().await;
            if over <= 0 {
                assert_eq!(lan::json(&got)["print"]["msg"], 0, "{over}");
                assert_eq!(lan::json(&got)["print"]["pad"].as_str().unwrap().len(), pad);
            } else {
                assert_eq!(got, MARK, "{over}");
            }
        });
    }
}

/// extrusion_cali_get of a printer with many calibrations: 44 to 100 kB.
#[test]
fn an_oversized_answer_is_skipped_and_the_state_stays_known() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut reader = proxy.reader("reader", "#").await;
        let _state = reader.report().await;
        let skipped = Tally::of(Kind::ReportTooLong);
        for bytes in [44_000, 100_000] {
            let answer = format!(
                r#"{{ "print": {{ "command": "extrusion_cali_get", "filaments": [ "{}" ] }} }}"#,
                "x".repeat(bytes)
            );
            printer.report(answer.as_bytes());
            printer.report(MARK);
            reader.report_where(|report| report == MARK).await;
            let mut late = proxy.reader("late", "#").await;
            assert!(is_full(&late.report().await), "{bytes}");
            late.disconnect().await;
        }
        assert_eq!((skipped.now(), printer.pushalls()), (2, 1));
    });
}

#[test]
fn a_printer_with_oversized_states_does_not_count_as_silent() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).state_bytes(60_000).deltas_every(secs(20));
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        pass(secs(400)).await;
        assert_eq!(printer.ever(), 1, "it talks, if more than can be kept");
    });
}

/// Guards: bambuddy#549: a payload that is not UTF-8 is not understood.
#[test]
fn reports_that_are_not_utf_8_are_forwarded_and_merged() {
    for model in Model::ALL {
        lan::run(async {
            let printer = Printer::new(model).with(Quirk::NonUtf8);
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            let mut reader = proxy.reader("reader", "#").await;
            let heard = reader.reports_within(secs(21)).await;
            assert!(heard.len() >= 10);
            let odd = |report: &Vec<u8>| report.windows(2).any(|two| two == b"\xe9\xff");
            assert!(heard.iter().all(odd));
            let mut late = proxy.reader("late", "#").await;
            let state = late.report().await;
            assert!(odd(&state), "{model:?}");
            assert!(is_full(String::from_utf8_lossy(&state).as_bytes()));
        });
    }
}

#[test]
fn a_printer_with_one_connection_never_sees_two() {
    for refusal in [Refusal::Closes, Refusal::Ignores] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).connection_limit(1).refusing(refusal);
            let proxy = Proxy::before(&printer);
            for n in 0..20 {
                proxy.live().await;
                pass(ms(137 * n)).await;
                match n % 4 {
                    0 => printer.cut(),
                    1 => printer.raw(GARBAGE),
                    _ => printer.reboot(secs(n % 7)),
                }
                pass(ms(500)).await;
            }
            proxy.live().await;
            assert_eq!((printer.most_open(), printer.open()), (1, 1));
            assert!(printer.ever() >= 21);
            if refusal == Refusal::Closes {
                assert!(printer.disorderly() >= 20);
            }
        });
    }
}

/// Guards: the proxy takes another code than the printer.
#[test]
fn a_wrong_code_at_the_printer_is_retried_rarely_and_logged() {
    for code in [4, 5] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).code("87654321").wrong_code_answer(code);
            let proxy = Proxy::before(&printer);
            let refused = Tally::of(Kind::PrinterRefused);
            let mut client = Client::over(proxy.stream());
            assert_eq!(
                client.connect(&Hello::default()).await,
                CLOSED,
                "it is not the client's fault"
            );
            pass(secs(600)).await;
            let attempts = printer.hellos().len();
            assert!((2..=6).contains(&attempts), "{attempts}");
            assert!(refused.now() >= 1);
            assert!(journal_says("the printer refuses the access code"));
            let _printer = printer.code(lan::CODE);
            pass(secs(300)).await;
            assert!(proxy.service.is_live());
        });
    }
}

#[test]
fn a_wrong_serial_number_is_logged_closed_or_silent() {
    for (model, kind, cause) in [
        (Model::P1S, Kind::PrinterLost, "refuses the subscription"),
        (Model::X1C, Kind::PrinterMute, "serial number?"),
    ] {
        lan::run(async {
            let printer = Printer::new(model).connection_limit(1);
            let settings = Settings { serial: Some("01P00C999999999"), ..Settings::default() };
            let proxy = Proxy::with(&printer, settings);
            let said = Tally::of(kind);
            pass(secs(60)).await;
            assert!(said.now() >= 1, "{model:?}");
            assert!(journal_says(cause), "{model:?}");
            assert_eq!(proxy.service.is_live(), model == Model::X1C);
            assert!(printer.ever() <= 12, "{}", printer.ever());
        });
    }
}

#[test]
fn shutdown_closes_clients_and_sends_disconnect_to_the_printer() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut idle = proxy.client("idle").await;
        let mut reader = proxy.reader("reader", "#").await;
        idle.publish(&printer.request_topic(), ORDER, 1, 1).await;
        pass(ms(10)).await;
        let ends = proxy.ends.clone();
        proxy.stop().await;
        assert!(idle.is_closed().await && reader.is_closed().await);
        assert_eq!(*ends.borrow(), [End::Session(Error::ShuttingDown); 2]);
        pass(secs(1)).await;
        assert_eq!((printer.orderly(), printer.disorderly(), printer.open()), (1, 0, 0));
        assert_eq!(count(&printer, ORDER), 1);
        pass(secs(120)).await;
        assert_eq!(printer.ever(), 1, "and the printer is not dialled again");
    });
}

#[test]
fn pending_and_stuck_clients_do_not_delay_the_final_disconnect() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::X1C).await;
        let mut stranger = Client::over(proxy.stream());
        let _stuck = Client::subscribed(proxy.stream_of(4096), "stuck", "#").await;
        let mut early = Client::over(proxy.stream_of(WIRE));
        early.send(&[0x10]).await.unwrap();
        pass(secs(2)).await;
        let before = Instant::now();
        proxy.stop().await;
        assert!(before.elapsed() <= secs(3), "{:?}", before.elapsed());
        pass(ms(10)).await;
        assert_eq!((printer.orderly(), printer.open()), (1, 0));
        assert!(stranger.is_closed().await && early.is_closed().await);
    });
}

#[test]
fn a_proxy_that_is_ended_while_the_printer_is_away_ends_at_once() {
    lan::run(async {
        let printer = Printer::new(Model::P1S);
        printer.reboot(secs(600));
        let proxy = Proxy::before(&printer);
        pass(secs(100)).await;
        let before = Instant::now();
        proxy.stop().await;
        assert!(before.elapsed() <= secs(3), "{:?}", before.elapsed());
    });
}
