//! MQTT: packets, topics, JSON, the state that reports add up to, and both sessions.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::clock::Instant;
use pandaproxy::memory::budget::STATE_CHANGES;
use pandaproxy::memory::pool::Pool;
use pandaproxy::mqtt::client::{CONNECT_TIMEOUT, Client};
use pandaproxy::mqtt::json::{Cursor, Kind, Value, check, elements, members};
use pandaproxy::mqtt::report;
use pandaproxy::mqtt::state::State;
use pandaproxy::mqtt::topic::{device_of, is_valid_filter, matches};
use pandaproxy::mqtt::upstream::Upstream;
use pandaproxy::mqtt::wire::{self, ConnectCode, Packet, SubscribeCode};
use pandaproxy::mqtt::{ClientLink, REPORT_INBOX, Service, Topics, request};
use pandaproxy::peer::Peer;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::service::Service as _;
use serde_json::Value as Oracle;

use super::conversation::{Conversation, Script, both_ways};

/// One packet: bytes behind it and the division into pieces change nothing in how it is parsed.
pub(crate) fn wire(data: &[u8]) {
    let Ok(Some(header)) = wire::header(data) else {
        for len in 0..data.len().min(wire::MAX_HEADER) {
            // A part of an invalid header is not a valid one.
            assert!(!matches!(wire::header(&data[..len]), Ok(Some(_))));
        }
        return;
    };
    for len in 0..header.body_at() {
        assert!(matches!(wire::header(&data[..len]), Ok(None)));
    }
    let body = &data[header.body_at()..];
    let packet = wire::packet(header, body);
    let Some(own) = body.get(..header.remaining()) else {
        assert!(packet.is_err(), "less than a packet was taken for one");
        return;
    };
    assert_eq!(packet, wire::packet(header, own), "what comes behind a packet is not looked at");
    let mut room = vec![0; header.total() + 8];
    let written = match packet {
        Ok(Packet::Publish(publish)) => wire::publish(&mut room, &publish),
        Ok(Packet::PubAck(id)) => wire::puback(&mut room, id),
        Ok(Packet::PubRel(id)) => wire::pubrel(&mut room, id),
        Ok(Packet::Connect(_)) | Err(_) => None,
        Ok(Packet::Subscribe(subscribe)) => {
            let filters: Vec<_> = subscribe.filters().collect();
            filters.iter().for_each(|(filter, _)| about_filter(filter));
            wire::subscribe(&mut room, subscribe.id, &filters)
        }
        Ok(Packet::Unsubscribe(unsubscribe)) => {
            let filters: Vec<_> = unsubscribe.filters().collect();
            wire::unsubscribe(&mut room, unsubscribe.id, &filters)
        }
        Ok(Packet::SubAck(ack)) => {
            let codes: Vec<_> = ack.codes().collect();
            wire::suback(&mut room, ack.id, codes.into_iter())
        }
        Ok(_) => None,
    };
    if let Some(len) = written {
        let again = wire::header(&room[..len]).unwrap().unwrap();
        assert_eq!(again.total(), len);
        assert_eq!(wire::packet(again, &room[again.body_at()..len]), packet);
    }
}

/// A filter, NUL, and a topic.
pub(crate) fn topic(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let (filter, topic) = text.split_once('\0').unwrap_or((text, text));
    about_filter(filter);
    if is_valid_filter(filter) {
        let own = topic.starts_with('$') && filter.starts_with(['+', '#']);
        let wanted: Vec<_> = filter.split('/').collect();
        let levels: Vec<_> = topic.split('/').collect();
        assert_eq!(matches(filter, topic), !own && is_among(&wanted, &levels));
    }
    if let Some((serial, _)) = device_of(topic) {
        assert!(topic.contains(serial) && !serial.contains('/'));
    }
}

fn about_filter(filter: &str) {
    if !filter.contains(['+', '#']) && !filter.is_empty() && !filter.contains('\0') {
        assert!(is_valid_filter(filter) && matches(filter, filter));
    }
}

/// The matching rule of MQTT 3.1.1 §4.7, in its simplest form.
fn is_among(wanted: &[&str], levels: &[&str]) -> bool {
    match (wanted, levels) {
        (["#"], _) | ([], []) => true,
        ([first, wanted @ ..], [level, levels @ ..]) => {
            (*first == "+" || first == level) && is_among(wanted, levels)
        }
        _ => false,
    }
}

/// A JSON text, compared with `serde_json`, and parsed as a request and as a report.
pub(crate) fn json(data: &[u8]) {
    let checked = check(data);
    // Some printers send the NUL that ends their strings as well.
    let last = data.iter().rposition(|byte| !matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n'));
    let text = last.map_or(data, |last| &data[..=last]);
    match serde_json::from_slice::<Oracle>(text) {
        Ok(oracle) => match checked {
            Ok(()) => agree(data, Cursor::new(data).pass().unwrap(), &oracle),
            // serde_json accepts deeper nesting.
            Err(error) => {
                assert!(matches!(error, pandaproxy::mqtt::json::Error::TooDeep { .. }), "{error}");
            }
        },
        // serde_json also checks the contents of strings and numbers, which ours does not.
        Err(error) if checked.is_ok() => {
            let said = error.to_string();
            let inside =
                ["escape", "unicode", "surrogate", "out of range", "control character", "a string"];
            // serde_json takes any four bytes behind `\u`, a quote among them.
            let has_unicode = data.windows(2).any(|two| two == b"\\u");
            let knows =
                |what: &&str| said.contains(*what) && (**what != *"a string" || has_unicode);
            assert!(core::str::from_utf8(data).is_err() || inside.iter().any(knows), "{said}");
        }
        Err(_) => {}
    }
    _ = members(data).count();
    _ = elements(data).count();
    _ = request::classify(data);
    let report = report::classify(data);
    let mut before = 0;
    for patch in report.patches.as_slice() {
        let at = usize::try_from(patch.at).unwrap();
        assert!(before <= at && at + usize::from(patch.len) <= data.len(), "{patch:?}");
        before = at + usize::from(patch.len);
    }
    if report.kind != report::Kind::Other {
        assert_eq!(checked, Ok(()), "what is no JSON is no report: {report:?}");
    }
}

fn agree(text: &[u8], value: Value<'_>, oracle: &Oracle) {
    assert_eq!(&text[value.at..value.at + value.text.len()], value.text);
    match oracle {
        Oracle::Object(map) => {
            assert_eq!(value.kind(), Kind::Object);
            assert!(value.members().count() >= map.len());
            for member in value.members() {
                let member = member.unwrap();
                let key: String =
                    serde_json::from_slice(&text[member.key.at..member.key.end()]).unwrap();
                let its: Oracle = serde_json::from_slice(member.value.text).unwrap();
                // Of two members of the same name the last one counts.
                let others = value.members().map(Result::unwrap);
                let is_last = others.filter(|other| other.key.at > member.key.at).all(|other| {
                    let other = &text[other.key.at..other.key.end()];
                    serde_json::from_slice::<String>(other).unwrap() != key
                });
                assert!(!is_last || its == map[&key]);
            }
        }
        Oracle::Array(list) => {
            assert_eq!(value.kind(), Kind::Array);
            assert_eq!(value.elements().count(), list.len());
            for (value, oracle) in value.elements().zip(list) {
                agree(text, value.unwrap(), oracle);
            }
        }
        Oracle::String(_) => assert_eq!(value.kind(), Kind::String),
        Oracle::Number(_) => assert_eq!(value.kind(), Kind::Number),
        Oracle::Bool(_) | Oracle::Null => assert_eq!(value.kind(), Kind::Literal),
    }
}

/// Reports, one a line, and the state that they are merged into.
pub(crate) fn state(data: &[u8]) {
    let pool = Pool::new(BOARD.mqtt.small, BOARD.mqtt.large);
    let mut state = State::new(STATE_CHANGES);
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let report = report::classify(line);
        match report.kind {
            report::Kind::Full => {
                let Some(frame) = pool.store_tagged(&[line], report.patches) else { continue };
                state.handle_full(frame);
            }
            report::Kind::Delta => _ = state.handle_delta(line, &pool),
            report::Kind::Ack | report::Kind::Version | report::Kind::Other => {
                if let Some(full) = state.snapshot(&pool) {
                    assert_eq!(check(&full), Ok(()), "{}", full.escape_ascii());
                    assert_eq!(full.tag(), &report::classify(&full).patches);
                }
            }
        }
    }
    if let Some(full) = state.snapshot(&pool) {
        assert_eq!(check(&full), Ok(()), "{}", full.escape_ascii());
        assert_eq!(full.tag(), &report::classify(&full).patches);
    }
    drop(state);
    assert_eq!(pool.in_use(), (0, 0), "frames were kept");
}

const SERIAL: &str = "01P00A123456789";
const REPORT_TOPIC: &str = "device/01P00A123456789/report";
const PROXY: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

/// The smallest full state of a printer.
fn full() -> String {
    let members: String = (0..report::FULL_MEMBERS).map(|n| format!(",\"m{n}\":{n}")).collect();
    format!(
        r#"{{"print":{{"command":"push_status","msg":0,"net":{{"info":[{{"ip":16885952}}]}},"ipcam":{{"rtsp_url":"rtsps://192.168.1.1:322/streaming/live/1"}},"gcode_state":"IDLE"{members}}}}}"#
    )
}

fn service() -> Rc<Service> {
    let code = AccessCode::new(b"12345678").unwrap();
    let status = Rc::new(Status::new(SERIAL, Port6000::Auto));
    Service::new(Topics::new(SERIAL, 0xabcd), code, status, Instant::START)
}

type Clients = Conversation<Client, ClientLink<fn()>>;

fn client_of(service: &Rc<Service>, now: Instant) -> Clients {
    let until = now + CONNECT_TIMEOUT;
    let ends = service.client(now, until, Peer::unknown(), Some(PROXY), nothing as fn()).unwrap();
    Conversation::new(ends, BOARD.mqtt.inbox, BOARD.mqtt.outbox).begun(now)
}

const fn nothing() {}

/// The packets that one of our sessions has written: nothing else may be in it. An incomplete packet
/// stays.
fn packets(said: &mut Vec<u8>, mut each: impl FnMut(Packet<'_>)) {
    let mut at = 0;
    while let Some(header) = wire::header(&said[at..]).expect("what we say is MQTT") {
        let Some(bytes) = said.get(at..at + header.total()) else { break };
        match wire::packet(header, &bytes[header.body_at()..]) {
            Ok(packet) => each(packet),
            // A client of MQTT 5 is refused with a packet of MQTT 5, which is not parsed here.
            Err(_) => assert_eq!(bytes, b"\x20\x03\x00\x84\x00"),
        }
        at += header.total();
    }
    said.drain(..at);
}

/// A printer that obeys each request, and sends a report every second.
struct Printer {
    service: Rc<Service>,
    upstream: Conversation<Upstream, Rc<Service>>,
    said: Vec<u8>,
    /// Requests received.
    requests: Vec<Vec<u8>>,
    reported: Instant,
}

impl Printer {
    fn before(service: &Rc<Service>) -> Self {
        let (said, requests) = (Vec::new(), Vec::new());
        let upstream = Self::upstream(service, Instant::START);
        let service = Rc::clone(service);
        let mut printer = Self { service, upstream, said, requests, reported: Instant::START };
        while printer.attend(Instant::START) {}
        assert!(printer.service.is_live());
        printer
    }

    fn upstream(service: &Rc<Service>, now: Instant) -> Conversation<Upstream, Rc<Service>> {
        let ends = (service.upstream(now), Rc::clone(service));
        Conversation::new(ends, REPORT_INBOX, BOARD.mqtt.outbox).begun(now)
    }

    /// Whether the session acted.
    fn attend(&mut self, now: Instant) -> bool {
        self.service.handle_timeout(now);
        self.upstream.reach(now);
        let mut moved = self.upstream.step();
        self.said.append(&mut self.upstream.take_said());
        let mut answers = Vec::new();
        let mut put = |write: &dyn Fn(&mut [u8]) -> Option<usize>| {
            let mut room = [0; 4096];
            let len = write(&mut room).expect("it fits");
            answers.extend_from_slice(&room[..len]);
        };
        let report = |payload: &[u8], room: &mut [u8]| {
            let publish = wire::Publish {
                dup: false,
                qos: wire::Qos::AtMostOnce,
                retain: false,
                topic: REPORT_TOPIC,
                id: None,
                payload,
            };
            wire::publish(room, &publish)
        };
        let requests = &mut self.requests;
        #[expect(clippy::wildcard_enum_match_arm, reason = "what we never say is a mistake")]
        packets(&mut self.said, |packet| match packet {
            Packet::Connect(_) => put(&|room| wire::connack(room, false, ConnectCode::Accepted)),
            Packet::Subscribe(subscribe) => put(&|room| {
                let granted = [SubscribeCode::Granted(wire::Qos::AtMostOnce)];
                wire::suback(room, subscribe.id, granted.into_iter())
            }),
            Packet::PingReq => put(&|room| wire::pingresp(room)),
            Packet::Publish(publish) => {
                requests.push(publish.payload.to_vec());
                if let Some(id) = publish.id {
                    put(&|room| wire::puback(room, id));
                }
                if request::classify(publish.payload) == request::Request::PushAll {
                    put(&|room| report(full().as_bytes(), room));
                }
            }
            other => assert_eq!(other, Packet::Disconnect, "we say that to a printer"),
        });
        if now.since(self.reported) >= Duration::from_secs(1) {
            self.reported = now;
            let delta = format!(
                r#"{{"print":{{"command":"push_status","msg":1,"nozzle_temper":{}}}}}"#,
                now.elapsed().as_secs()
            );
            put(&|room| report(delta.as_bytes(), room));
        }
        if !answers.is_empty() {
            moved = true;
            self.upstream.hear(&answers, &mut |_| false);
        }
        if self.upstream.is_over() {
            self.service.lost(now);
            self.said.clear();
            self.upstream = Self::upstream(&self.service, now);
            moved = true;
        }
        moved
    }
}

/// A client's bytes. First flag: the printer is unreachable.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut printer = (!script.flag(0)).then(|| Printer::before(&service));
        let mut client = client_of(&service, Instant::START);
        script.play(&mut client, cut, &mut |now| match &mut printer {
            Some(printer) => printer.attend(now),
            None => {
                service.handle_timeout(now);
                false
            }
        });
        // Answers come in the order of the requests, with reports between them.
        let mut answers = Vec::new();
        let mut said = client.take_said();
        packets(&mut said, |packet| {
            if !matches!(packet, Packet::Publish(_)) {
                answers.push(format!("{packet:?}"));
            }
        });
        assert!(said.is_empty() || client.is_over(), "half a packet was said");
        let end = client.end;
        drop(client);
        assert_eq!(service.connections(), 0);
        (answers, end, printer.map(|printer| printer.requests))
    });
}

/// The printer's bytes. First flag: no client sends requests meanwhile.
pub(crate) fn upstream(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut printer = Printer::upstream(&service, Instant::START);
        let mut client = client_of(&service, Instant::START);
        let mut hello = [0; 256];
        let len = hello_bytes(&mut hello);
        client.hear(&hello[..len], &mut |_| false);
        let mut asked = Instant::START;
        let mut said = Vec::new();
        script.play(&mut printer, cut, &mut |now| {
            service.handle_timeout(now);
            client.reach(now);
            let mut moved = client.step();
            said.append(&mut client.take_said());
            packets(&mut said, |_| {});
            if now.since(asked) >= Duration::from_secs(5) && !script.flag(0) && !client.is_over() {
                asked = now;
                let mut room = [0; 256];
                let len = request_bytes(&mut room);
                client.hear(&room[..len], &mut |_| false);
                moved = true;
            }
            moved
        });
        let shown = (!printer.is_over()).then(|| {
            let mut late = client_of(&service, asked);
            late.hear(&hello[..len], &mut |_| false);
            late.take_said()
        });
        (printer.take_said(), printer.end, client.end, shown)
    });
}

/// CONNECT and SUBSCRIBE.
fn hello_bytes(room: &mut [u8]) -> usize {
    let connect = b"\x10\x20\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04fuzz\x00\x04bblp\x00\x0812345678";
    room[..connect.len()].copy_from_slice(connect);
    let id = wire::PacketId::new(1).unwrap();
    let filters = [("#", wire::Qos::AtMostOnce)];
    let len = wire::subscribe(&mut room[connect.len()..], id, &filters).unwrap();
    connect.len() + len
}

fn request_bytes(room: &mut [u8]) -> usize {
    let publish = wire::Publish {
        dup: false,
        qos: wire::Qos::AtLeastOnce,
        retain: false,
        topic: "device/01P00A123456789/request",
        id: wire::PacketId::new(7),
        payload: br#"{"print":{"sequence_id":"1","command":"pause"}}"#,
    };
    wire::publish(room, &publish).unwrap()
}
