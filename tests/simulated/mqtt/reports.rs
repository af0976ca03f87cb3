//! From the printer to everybody.

use core::cell::RefCell;
use core::net::Ipv4Addr;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::mqtt::client::Error;
use pandaproxy::runtime::drive::End;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::MARK;
use crate::clients::mqtt::{Client, PUBACK, PUBLISH};
use crate::lan::oracle::Known;
use crate::lan::{self, PROXY, Proxy, Settings, Tally, WIRE, ms, pass, secs};
use printer::{Event, Model, Printer, Quirk};

const PUSHALL: &[u8] = br#"{"pushing":{"sequence_id":"1","command":"pushall"}}"#;
const START: &[u8] = br#"{"pushing":{"command":"start","sequence_id":"2"}}"#;
const STOP: &[u8] = br#"{"pushing":{"command":"stop","sequence_id":"3"}}"#;

fn get_version(id: &str) -> Vec<u8> {
    format!(r#"{{"info":{{"sequence_id":{id},"command":"get_version"}}}}"#).into_bytes()
}

fn indented(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let form = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut Serializer::with_formatter(&mut bytes, form)).unwrap();
    bytes
}

#[test]
fn each_client_gets_what_its_filters_cover_once() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let report = printer.report_topic();
        let table: [(&[&str], usize); 9] = [
            (&["#"], 1),
            (&["device/+/report"], 1),
            (&["device/#"], 1),
            (&["+/+/+"], 1),
            (&[&report], 1),
            (&["#", &report, "device/+/report"], 1),
            (&[&report, &report], 1),
            (&["$SYS/#", "device/+", "device/+/report/more"], 0),
            (&[], 0),
        ];
        let mut clients = Vec::new();
        for (filters, _) in &table {
            let mut client = proxy.client("client").await;
            for filter in *filters {
                assert_eq!(client.subscribe(&[(filter, 1)]).await, [1]);
            }
            clients.push(client);
        }
        pass(secs(1)).await;
        printer.report(MARK);
        for (client, (filters, expected)) in clients.iter_mut().zip(&table) {
            let heard = client.reports_within(secs(1)).await;
            let marked = heard.iter().filter(|report| *report == MARK).count();
            assert_eq!(marked, *expected, "{filters:?}");
            assert!(*expected > 0 || heard.is_empty(), "{filters:?}");
        }
    });
}

#[test]
fn unsubscribing_ends_reports_and_resubscribing_sends_the_state() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("client", "#").await;
        let _state = client.report().await;
        client.unsubscribe("#").await;
        printer.report(MARK);
        printer.delta();
        assert!(client.hears_nothing(secs(1)).await);
        assert_eq!(client.subscribe(&[("#", 0)]).await, [0]);
        let state = lan::json(&client.report().await);
        assert_eq!(state["print"]["msg"], 0);
    });
}

/// All four families: by deltas, without trays in them, by full states alone, indented.
///
/// Guards: a delta replaces the state.
#[test]
fn a_late_client_gets_the_merge_of_all_reports_first() {
    for model in Model::ALL {
        lan::run(async {
            let printer = Printer::new(model).seed(7);
            let proxy = Proxy::with(&printer, Settings { rewrites: false, ..Settings::default() });
            proxy.live().await;
            let mut known = Known::default();
            let mut witness = proxy.reader("witness", "#").await;
            for _ in 0..6 {
                for report in witness.reports_within(ms(19_300)).await {
                    known.learn(&report);
                }
                printer.report(
                    br#"{"print":{"command":"pause","sequence_id":"9","result":"success"}}"#,
                );
                let mut late = proxy.reader("late", "#").await;
                let got = late.report().await;
                for report in witness.reports_within(ms(1)).await {
                    known.learn(&report);
                }
                let first = lan::json(&got);
                assert_eq!(Some(&first), known.state(), "{model:?}");
                assert_eq!(first["print"]["msg"], 0);
                let form = if model == Model::H2D {
                    indented(&first)
                } else {
                    serde_json::to_vec(&first).unwrap()
                };
                assert!(got == form, "{model:?}: {}", got.escape_ascii());
                late.disconnect().await;
            }
        });
    }
}

#[test]
fn an_unknown_state_is_sent_once_it_is_known() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet().with(Quirk::Zombie);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("early", "#").await;
        client.publish(&printer.request_topic(), PUSHALL, 1, 1).await;
        client.expect(PUBACK).await;
        assert!(client.hears_nothing(secs(10)).await);
        printer.full();
        assert_eq!(lan::json(&client.report().await)["print"]["msg"], 0);
    });
}

/// Home Assistant's set-up needs the state within ten seconds, and asks a P1 for it as well.
#[test]
fn a_state_that_does_not_come_is_asked_for_again_with_back_off() {
    for model in [Model::P1S, Model::H2D] {
        lan::run(async {
            let (printer, asked) = pushalls(Printer::new(model).with(Quirk::Zombie));
            let proxy = Proxy::before(&printer);
            let started = Instant::now();
            proxy.live().await;
            pass(secs(140)).await;
            let seconds: Vec<u64> =
                asked.borrow().iter().map(|at| at.duration_since(started).as_secs()).collect();
            let expected = [0, 5, 15, 35, 75, 135];
            assert_eq!(seconds.len(), expected.len(), "{model:?}: {seconds:?}");
            let near = |(got, expected): (&u64, u64)| (expected..=expected + 6).contains(got);
            assert!(seconds.iter().zip(expected).all(near), "{model:?}: {seconds:?}");
            assert_eq!(printer.ever(), 1);
        });
    }
}

#[test]
fn a_clients_pushall_goes_through_while_no_state_is_known() {
    lan::run(async {
        let (printer, asked) = pushalls(Printer::new(Model::P1S).quiet().with(Quirk::Zombie));
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        // Between two questions of the proxy's own.
        pass(secs(50)).await;
        let before = asked.borrow().len();
        let mut client = proxy.reader("client", "#").await;
        printer.turn(Quirk::Zombie, false);
        client.publish(&printer.request_topic(), PUSHALL, 1, 1).await;
        client.expect(PUBACK).await;
        assert_eq!(lan::json(&client.report().await)["print"]["msg"], 0);
        assert_eq!(asked.borrow().len(), before + 1);
        for n in 2..20 {
            client.publish(&printer.request_topic(), PUSHALL, 1, n).await;
        }
        pass(secs(20)).await;
        assert_eq!(asked.borrow().len(), before + 1, "the state is known now");
    });
}

/// A printer that has just started leaves out serial numbers, versions or units.
#[test]
fn incomplete_versions_are_asked_for_again_and_not_kept() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet().with(Quirk::Zombie);
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let answer = |module: &str| {
            let info = r#"{"info":{"command":"get_version","sequence_id":"0","module":["#;
            [info, module, "]}}"].concat().into_bytes()
        };
        printer.report(&answer(r#"{"name":"ota","sn":"","sw_ver":"01.08"}"#));
        let mut client = proxy.reader("client", "#").await;
        let asked = printer.get_versions();
        client.publish(&printer.request_topic(), &get_version("\"7\""), 0, 0).await;
        assert!(client.hears_nothing(secs(1)).await, "the incomplete answer is not repeated");
        pass(secs(10)).await;
        assert!(printer.get_versions() > asked, "the printer is asked again within seconds");
        printer.report(&answer(r#"{"name":"ota","sn":"01P00A","sw_ver":"01.08"}"#));
        let got = lan::json(&client.report().await);
        assert_eq!(got["info"]["sequence_id"], "7");
        assert_eq!(got["info"]["module"][0]["sn"], "01P00A");
        let asked = printer.get_versions();
        pass(secs(50)).await;
        assert_eq!(printer.get_versions(), asked, "a complete answer is kept");
    });
}

/// Moments at which the printer was asked for its full state.
fn pushalls(printer: Printer) -> (Printer, Rc<RefCell<Vec<Instant>>>) {
    let asked: Rc<RefCell<Vec<Instant>>> = Rc::default();
    let noting = Rc::clone(&asked);
    let printer = printer.narrate(move |event| {
        if let Event::Requested(request) = event
            && request.payload.windows(9).any(|part| part == br#""pushall""#)
        {
            noting.borrow_mut().push(Instant::now());
        }
    });
    (printer, asked)
}

#[test]
fn an_hour_of_pushall_storms_is_limited_by_model() {
    for (model, least) in
        [(Model::P1S, 300), (Model::A1Mini, 300), (Model::X1C, 3), (Model::H2D, 3)]
    {
        lan::run(async {
            let (printer, asked) = pushalls(Printer::new(model).deltas_every(secs(20)));
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            let mut clients = Vec::new();
            for n in 0..2 {
                clients.push(proxy.reader(&format!("{n}"), "#").await);
            }
            let topic = printer.request_topic();
            pass(secs(1)).await;
            // A storm of five requests in four seconds, every forty seconds.
            for round in 0..450_u16 {
                let what = if round % 2 == 0 { PUSHALL } else { START };
                let client = &mut clients[usize::from(round) / 5 % 2];
                let _before = client.reports_within(ms(1)).await;
                client.publish(&topic, what, 1, round + 1).await;
                client.expect(PUBACK).await;
                let state = lan::json(&client.report().await);
                assert_eq!(state["print"]["msg"], 0, "{model:?}, {round}");
                pass(if round % 5 == 4 { ms(36_795) } else { ms(799) }).await;
            }
            let asked = asked.borrow();
            let count = asked.len();
            assert!((12..=370).contains(&count), "{model:?}: {count}");
            for pair in asked.windows(2) {
                assert!(pair[1] - pair[0] >= secs(least), "{model:?}: {:?}", pair[1] - pair[0]);
            }
        });
    }
}

/// Such a request would stop the reports on the connection that all clients share.
///
/// Guards: one client's pushing.stop blinds all.
#[test]
fn pushing_stop_is_acknowledged_and_goes_no_further() {
    lan::run(async {
        let (printer, proxy) = Proxy::connected(Model::P1S).await;
        let mut client = proxy.reader("client", "#").await;
        client.publish(&printer.request_topic(), STOP, 1, 4).await;
        assert_eq!(client.expect(PUBACK).await.body, [0, 4]);
        let heard = client.reports_within(secs(20)).await;
        assert!(heard.len() >= 10, "{}", heard.len());
        assert!(printer.requests().iter().all(|request| request.payload != STOP));
    });
}

/// Guards: an acknowledgement without its command sends a slicer round in circles.
#[test]
fn get_version_is_answered_under_the_callers_sequence_id() {
    for rewrites in [true, false] {
        lan::run(async {
            let printer = Printer::new(Model::X1C).quiet();
            let proxy = Proxy::with(&printer, Settings { rewrites, ..Settings::default() });
            proxy.live().await;
            pass(secs(1)).await;
            let mut client = proxy.reader("client", "#").await;
            let mut other = proxy.reader("other", "#").await;
            let _states = (client.report().await, other.report().await);
            for id in [json!("20017"), json!(20_018), json!(""), json!(-7), json!("0")] {
                let ask = get_version(&id.to_string());
                client.publish(&printer.request_topic(), &ask, 0, 0).await;
                let answer = lan::json(&client.report().await);
                assert_eq!(answer["info"]["sequence_id"], id, "rewrites: {rewrites}");
                assert!(answer["info"]["module"].is_array());
            }
            assert!(other.hears_nothing(secs(1)).await);
            assert_eq!(printer.get_versions(), 1);
        });
    }
}

/// Versions change when an AMS is plugged in or updated, which no report mentions.
#[test]
fn old_versions_are_asked_for_again_and_sent_to_all_clients() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("client", "#").await;
        let mut other = proxy.reader("other", "#").await;
        let _states = (client.report().await, other.report().await);
        // The proxy's own `pushall`, after a minute without reports, is not the answer to this request.
        let next = async |client: &mut Client<DuplexStream>| {
            for _ in 0..3 {
                let report = lan::json(&client.report().await);
                if report["info"]["module"].is_array() {
                    return report["info"]["sequence_id"].clone();
                }
            }
            Value::Null
        };
        for asked in 1..=3 {
            pass(secs(60)).await;
            client.publish(&printer.request_topic(), &get_version("\"7\""), 0, 0).await;
            assert_eq!(next(&mut client).await, "7");
            let printers = next(&mut client).await;
            assert_eq!(next(&mut other).await, printers);
            client.publish(&printer.request_topic(), &get_version("\"8\""), 0, 0).await;
            assert_eq!(next(&mut client).await, "8");
            pass(secs(1)).await;
            assert_eq!(printer.get_versions(), 1 + asked);
        }
    });
}

#[test]
fn asking_before_versions_are_known_gets_one_answer_each() {
    for rewrites in [true, false] {
        lan::run(async {
            let printer = Printer::new(Model::P1S).quiet().with(Quirk::Zombie);
            let proxy = Proxy::with(&printer, Settings { rewrites, ..Settings::default() });
            proxy.live().await;
            let ids = [json!("20001"), json!(77)];
            let mut clients = Vec::new();
            for id in &ids {
                let mut client = proxy.reader(&id.to_string(), "#").await;
                let ask = get_version(&id.to_string());
                client.publish(&printer.request_topic(), &ask, 1, 1).await;
                client.expect(PUBACK).await;
                clients.push(client);
            }
            let mut third = proxy.reader("third", "#").await;
            pass(secs(1)).await;
            let answer =
                br#"{"info":{"command":"get_version","sequence_id":"0","module":[{"name":"ota"}]}}"#;
            printer.report(answer);
            for (client, id) in clients.iter_mut().zip(&ids) {
                let answer = lan::json(&client.report().await);
                assert_eq!(answer["info"]["sequence_id"], *id);
                assert!(client.hears_nothing(secs(1)).await, "one answer each");
            }
            assert_eq!(third.report().await, answer);
        });
    }
}

/// A slicer that has kept another printer's serial does not notice.
///
/// Guards: a slicer that remembers another serial number is not answered.
#[test]
fn a_client_with_another_serial_is_answered_where_it_listens() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("stale", "device/01P00C999999999/report").await;
        let (topic, state) = client.expect(PUBLISH).await.published();
        assert_eq!(topic, "device/01P00C999999999/report");
        assert_eq!(lan::json(&state)["print"]["msg"], 0);
        let pause = br#"{"print":{"command":"pause","sequence_id":"5"}}"#;
        client.publish("device/01P00C999999999/request", pause, 1, 1).await;
        client.expect(PUBACK).await;
        let (topic, ack) = client.expect(PUBLISH).await.published();
        assert_eq!(topic, "device/01P00C999999999/report");
        assert_eq!(lan::json(&ack)["print"]["sequence_id"], "5");
        assert!(printer.requests().iter().any(|request| request.payload == pause));
        // The printer's own topic is used, even if another one was subscribed first.
        assert_eq!(client.subscribe(&[(&printer.report_topic(), 0)]).await, [0]);
        assert_eq!(client.expect(PUBLISH).await.published().0, printer.report_topic());
        assert_eq!(printer.ever(), 1);
    });
}

/// Where several proxies share a machine, a client that has another printer's serial number has the wrong address.
#[test]
fn a_strict_proxy_serves_its_own_serial_number_only() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let settings = Settings { strict_serial: true, ..Settings::default() };
        let proxy = Proxy::with(&printer, settings);
        proxy.live().await;
        let mut client = proxy.client("stale").await;
        let filters = [("device/01P00C999999999/report", 0), (&*printer.report_topic(), 0)];
        assert_eq!(client.subscribe(&filters).await, [0x80, 0]);
        assert_eq!(client.expect(PUBLISH).await.published().0, printer.report_topic());
        let mut all = proxy.reader("all", "device/+/report").await;
        assert_eq!(all.expect(PUBLISH).await.published().0, printer.report_topic());

        let pause = br#"{"print":{"command":"pause","sequence_id":"5"}}"#;
        client.publish("device/01P00C999999999/request", pause, 1, 1).await;
        assert_eq!(client.next().await, None, "no PUBACK for a request that is not forwarded");
        assert_eq!(proxy.end(), End::Session(Error::OtherSerial));
        pass(secs(5)).await;
        assert!(!printer.requests().iter().any(|request| request.payload == pause));
    });
}

/// What a client that reached the proxy at `here` is to read in place of `report`.
fn readdressed(report: &Value, here: Ipv4Addr) -> Value {
    let mut expected = report.clone();
    if expected.get("print").is_none() {
        return expected;
    }
    if let Some(interfaces) = expected["print"]["net"]["info"].as_array_mut() {
        for interface in interfaces {
            if interface["ip"] != 0 {
                interface["ip"] = json!(u32::from_le_bytes(here.octets()));
            }
        }
    }
    if let Some(url) = expected["print"]["ipcam"].get_mut("rtsp_url")
        && let Some(rest) = url.as_str().and_then(|url| url.strip_prefix("rtsps://"))
    {
        let path = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        *url = json!(format!("rtsps://{here}{path}"));
    }
    expected
}

/// Guards: bambuddy#757, bambuddy#1429: the printer's address leaks as an integer in net.info.
#[test]
fn each_client_reads_its_own_address_of_the_proxy() {
    for model in Model::ALL {
        lan::run(async {
            let printer = Printer::new(model).quiet().address(Ipv4Addr::new(192, 168, 7, 50));
            let proxy = Proxy::before(&printer);
            proxy.live().await;
            pass(secs(1)).await;
            let there = Ipv4Addr::new(192, 168, 255, 133);
            let mut here = proxy.reader("here", "#").await;
            let mut away =
                Client::subscribed(proxy.stream_to(Some(there), WIRE), "away", "#").await;
            let mut lost = Client::subscribed(proxy.stream_to(None, WIRE), "lost", "#").await;
            for late in [true, false] {
                if !late {
                    printer.full();
                }
                let sent = printer.last_full().unwrap();
                let value = lan::json(&sent);
                let form = if model == Model::H2D {
                    indented
                } else {
                    |v: &_| serde_json::to_vec(v).unwrap()
                };
                assert_eq!(*form(&value), *sent);
                assert_eq!(here.report().await, form(&readdressed(&value, PROXY)));
                assert_eq!(away.report().await, form(&readdressed(&value, there)));
                assert_eq!(lost.report().await, *sent, "no address is known: none is told");
                assert_ne!(readdressed(&value, PROXY), value);
            }
        });
    }
}

#[test]
fn without_rewriting_no_byte_is_changed() {
    lan::run(async {
        let printer = Printer::new(Model::H2D).quiet();
        let proxy = Proxy::with(&printer, Settings { rewrites: false, ..Settings::default() });
        proxy.live().await;
        pass(secs(1)).await;
        let mut client = proxy.reader("client", "#").await;
        assert_eq!(client.report().await, *printer.last_full().unwrap());
        printer.full();
        assert_eq!(client.report().await, *printer.last_full().unwrap());
    });
}

#[test]
fn a_signed_report_keeps_every_byte() {
    lan::run(async {
        let printer = Printer::new(Model::X1C).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("client", "#").await;
        let _state = client.report().await;
        let signed = br#"{"header":{"sign_ver":"v1.0"},"print":{"command":"push_status","msg":1,
            "net":{"info":[{"ip":50374848}]},"ipcam":{"rtsp_url":"rtsps://10.0.0.7:322/x"}}}"#;
        printer.report(signed);
        assert_eq!(client.report_where(|report| report.starts_with(b"{\"header")).await, signed);
    });
}

#[test]
fn what_is_no_json_is_handed_on_as_it_is() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let mut client = proxy.reader("client", "#").await;
        let _state = client.report().await;
        for odd in [&b""[..], b"\xff\xfe", b"{\"print\":{", b"[]", b"null", &[0; 2000]] {
            printer.report(odd);
            assert_eq!(client.report().await, odd);
        }
    });
}

/// Guards: a state that was serialised anew is refused by a slicer.
#[test]
fn recorded_reports_arrive_unchanged_but_for_their_address() {
    for path in skips::shared("traffic/reports", ".json", 14) {
        arrives_unchanged(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
}

/// Guards what the test above does, where there are no recorded reports.
#[test]
fn stated_reports_arrive_unchanged_but_for_their_address() {
    for stated in printer::stated::full_reports() {
        arrives_unchanged(stated.model, &stated.text);
    }
}

/// A report reaches a client with nothing changed but addresses, compact and indented, and a late client too; a
/// proxy that rewrites nothing passes on every byte.
fn arrives_unchanged(name: &str, recorded: &[u8]) {
    let value = lan::json(recorded);
    let expected = readdressed(&value, PROXY);
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet().with(Quirk::Zombie);
        let proxy = Proxy::before(&printer);
        let plain = Proxy::with(&printer, Settings { rewrites: false, ..Settings::default() });
        proxy.live().await;
        plain.live().await;
        let mut client = proxy.reader("client", "#").await;
        let mut untouched = plain.reader("untouched", "#").await;
        for (sent, wanted) in [
            (recorded.to_vec(), None),
            (serde_json::to_vec(&value).unwrap(), Some(serde_json::to_vec(&expected).unwrap())),
            (indented(&value), Some(indented(&expected))),
        ] {
            printer.report(&sent);
            let got = client.report().await;
            assert_eq!(lan::json(&got), expected, "{name}");
            assert!(wanted.is_none_or(|wanted| wanted == got), "{name}");
            assert!(untouched.report().await == sent, "{name}");
            // And a later client gets the same, if it is a state.
            if value["print"].is_object() {
                let mut late = proxy.reader("late", "#").await;
                assert_eq!(late.report().await, got, "{name}");
                late.disconnect().await;
            }
        }
    });
}

/// Clients send up to 20 requests at once (paho's window), and the answers come in one read.
#[test]
fn answers_that_come_in_one_read_reach_a_prompt_client() {
    lan::run(async {
        let printer = Printer::new(Model::P1S).quiet();
        let proxy = Proxy::before(&printer);
        proxy.live().await;
        let lagged = Tally::of(Kind::Lagged);
        let mut client = proxy.reader("client", "#").await;
        let _state = client.report().await;
        let answer =
            |n: usize| format!(r#"{{"print":{{"command":"answer-{n}","result":"success"}}}}"#);
        let answers = 3 * BOARD.mqtt.ring;
        for n in 0..answers {
            printer.report(answer(n).as_bytes());
        }
        pass(ms(1)).await;
        assert!(proxy.ends.borrow().is_empty(), "{:?}", proxy.ends.borrow());
        for n in 0..answers {
            assert_eq!(client.report().await, answer(n).as_bytes());
        }
        assert_eq!(lagged.now(), 0);
    });
}
