//! MQTT in the weather: the traffic between printer and proxy, read from the wire, and
//! clients that hold what they hear against it.

use core::cell::{Cell, RefCell};
use core::hash::{Hash, Hasher};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::DefaultHasher;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::{self, Kind};
use serde_json::Value;
use tokio::time::Instant;

use crate::clients::mqtt::{
    CONNACK, Hello, PUBACK, PUBCOMP, PUBLISH, PUBREC, SUBACK, hello_bytes, packet, publish_bytes,
};
use crate::lan::oracle::Known;
use crate::lan::secs;
use crate::lan::weather::{Cutter, Seen, Wire};
use crate::notes::{note, promise};
use crate::talk::Party;

/// Packets out of bytes as they come.
#[derive(Default)]
struct Packets(Vec<u8>);

impl Packets {
    fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next whole packet: its first byte and its body.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = *self.0.first()?;
        let (mut len, mut at) = (0_usize, 1);
        loop {
            let byte = *self.0.get(at)?;
            len |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            assert!(at < 5, "a length of five bytes");
        }
        let body = self.0.get(at..at + len)?.to_vec();
        self.0.drain(..at + len);
        Some((first, body))
    }
}

/// The payload of a PUBLISH, behind its topic and its packet id.
fn payload(first: u8, body: &[u8]) -> &[u8] {
    let id = if first & 6 == 0 { 0 } else { 2 };
    &body[2 + usize::from(u16::from_be_bytes([body[0], body[1]])) + id..]
}

/// A report that has come to the proxy.
struct Said {
    payload: Rc<[u8]>,
    /// What is known of the printer after it, on this connection, and without its numbers.
    state: Option<u64>,
    /// Whether anything was known on this connection before it.
    known_before: bool,
}

/// All traffic of the proxy's connections to the printer.
#[derive(Default)]
pub(crate) struct Truth {
    said: RefCell<Vec<Said>>,
    known: RefCell<Known>,
    /// Each command that was sent: when last, on which connection, and how many were sent before it.
    sent: RefCell<HashMap<Vec<u8>, (Instant, u32, usize)>>,
    sendings: Cell<usize>,
    /// Commands that their clients have resent.
    resent: RefCell<HashSet<Vec<u8>>>,
    /// The number of the last command of each client.
    order: RefCell<HashMap<u32, u32>>,
    /// Connections to the printer so far, and which of them stood when a command came, and over what.
    connections: Cell<u32>,
    came: RefCell<HashMap<Vec<u8>, (u32, Cutter)>>,
    /// How often the state had been lost over a report when this connection began.
    lost: Cell<u32>,
}

impl Truth {
    /// Listens to a connection that was just made.
    pub(crate) fn overhears(self: &Rc<Self>, wire: Wire) -> Wire {
        *self.known.borrow_mut() = Known::default();
        self.lost.set(states_lost());
        self.connections.set(self.connections.get() + 1);
        let (mut up, mut down) = (Packets::default(), Packets::default());
        let truth = Rc::clone(self);
        wire.tapped(move |seen| match seen {
            Seen::Read(bytes) => {
                down.take(bytes);
                while let Some((first, body)) = down.next() {
                    if first >> 4 == PUBLISH {
                        truth.heard(payload(first, &body));
                    }
                }
            }
            Seen::Wrote(bytes) => {
                up.take(bytes);
                while let Some((first, body)) = up.next() {
                    if first >> 4 == PUBLISH {
                        truth.sent(payload(first, &body));
                    }
                }
            }
        })
    }

    /// Reads a client's bytes from the wire.
    pub(crate) fn overhears_a_client(self: &Rc<Self>, wire: Wire) -> Wire {
        let (truth, mut packets) = (Rc::clone(self), Packets::default());
        let its = wire.cutter();
        wire.tapped(move |seen| {
            let Seen::Read(bytes) = seen else { return };
            packets.take(bytes);
            while let Some((first, body)) = packets.next() {
                if first >> 4 == PUBLISH {
                    let command = payload(first, &body).to_vec();
                    let now = truth.connections.get();
                    truth.came.borrow_mut().insert(command, (now, its.clone()));
                }
            }
        })
    }

    fn heard(&self, payload: &[u8]) {
        let mut known = self.known.borrow_mut();
        let known_before = known.state().is_some();
        if payload.len() > BOARD.mqtt.large.size {
            // A skipped change leaves a state that is not the printer's.
            *known = Known::default();
        } else if serde_json::from_slice::<Value>(payload).is_ok() {
            known.learn(payload);
        }
        let state = known.state().map(fingerprint);
        self.said.borrow_mut().push(Said { payload: payload.into(), state, known_before });
    }

    fn sent(&self, payload: &[u8]) {
        let Some((client, number)) = Command::read(payload) else { return };
        let sendings = self.sendings.get();
        self.sendings.set(sendings + 1);
        let this = (Instant::now(), self.connections.get(), sendings);
        let before = self.sent.borrow_mut().insert(payload.to_vec(), this);
        let resent = self.resent.borrow().contains(payload);
        // The outcome of what was sent over a lost connection is unknown. Of the others the last
        // 32 are remembered, for a minute.
        let known = before.is_some_and(|(at, connection, before)| {
            connection == this.1 && at.elapsed() < secs(60) && sendings - before < 32
        });
        let kept = before.is_none() || (resent && !known);
        promise("mqtt: a command is sent once", kept, || {
            format!("command {number} of client {client} was sent before, resent: {resent}")
        });
        let came = self.came.borrow().get(payload).cloned();
        let now = self.connections.get();
        promise(
            "mqtt: a command is sent on the connection that stood when it came",
            // Or the proxy had not read it, and has not told its sender of the loss.
            came.as_ref().is_some_and(|(then, its)| *then == now || its.is_held()),
            || {
                let came = came.as_ref().map(|(then, _)| then);
                format!("command {number} of client {client} came on {came:?}, is sent on {now}")
            },
        );
        let mut order = self.order.borrow_mut();
        let last = order.insert(client, number);
        if resent {
            return;
        }
        promise("mqtt: commands keep their order", last.is_none_or(|last| last < number), || {
            format!("command {number} of client {client} was sent after {last:?}")
        });
    }

    /// What is known of the printer's state now.
    pub(crate) fn state(&self) -> Option<u64> {
        self.known.borrow().state().map(fingerprint)
    }

    /// Whether the proxy has lost the state over a report on this connection.
    fn is_excused(&self) -> bool {
        states_lost() != self.lost.get()
    }
}

/// Reports that found no frame or fit in none: over such a one the state is lost.
fn states_lost() -> u32 {
    journal::count(Kind::NoFrame) + journal::count(Kind::ReportTooLong)
}

/// A state without the number of its report.
fn fingerprint(state: &Value) -> u64 {
    let mut state = state.clone();
    if let Some(print) = state["print"].as_object_mut() {
        print.remove("sequence_id");
    }
    let mut hasher = DefaultHasher::new();
    state.to_string().hash(&mut hasher);
    hasher.finish()
}

/// A version without the number under which it was asked for.
fn version(payload: &[u8]) -> Option<String> {
    let mut report: Value = serde_json::from_slice(payload).ok()?;
    if report["info"]["command"] != "get_version" {
        return None;
    }
    report["info"]["sequence_id"].take();
    Some(report.to_string())
}

/// Commands that name their sender and their number.
pub(crate) struct Command;

impl Command {
    fn written(client: u32, number: u32, size: usize) -> Vec<u8> {
        let mut payload = format!(
            r#"{{"print":{{"sequence_id":"{client}{number:04}","command":"weather","param":"{client}-{number}"}}}}"#
        )
        .into_bytes();
        payload.resize(payload.len() + size, b' ');
        payload
    }

    fn read(payload: &[u8]) -> Option<(u32, u32)> {
        let text = core::str::from_utf8(payload).ok()?;
        let (client, number) =
            text.split_once("\"param\":\"")?.1.split_once('"')?.0.split_once('-')?;
        text.contains("\"command\":\"weather\"").then_some(())?;
        Some((client.parse().ok()?, number.parse().ok()?))
    }
}

/// What is expected of the answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Right,
    Wrong,
}

/// A client that reads all reports.
pub(crate) struct Reader {
    pub(crate) number: u32,
    code: Code,
    truth: Rc<Truth>,
    packets: Packets,
    /// Which of the printer's reports it may hear next.
    next: usize,
    known: Known,
    heard: u32,
    is_in: bool,
    subscribed: bool,
    commands: u32,
    packet_id: u16,
    /// What it has sent and waits to see acknowledged: packet id, payload.
    waiting: Vec<(u16, u8, Vec<u8>)>,
    /// Whether the client was connected before, and resends requests that were not acknowledged.
    resends: bool,
    request_topic: String,
}

impl Reader {
    /// A new client, and the bytes that it begins with.
    pub(crate) fn new(
        number: u32,
        code: Code,
        truth: &Rc<Truth>,
        request_topic: String,
    ) -> (Self, Vec<u8>) {
        let id = format!("weather-{number}");
        let password: &[u8] = if code == Code::Right { b"12345678" } else { b"87654321" };
        let hello = Hello { id: &id, keep_alive: 60, password: Some(password), ..Hello::default() };
        let reader = Self {
            number,
            code,
            truth: Rc::clone(truth),
            packets: Packets::default(),
            next: 0,
            known: Known::default(),
            heard: 0,
            is_in: false,
            subscribed: false,
            commands: 0,
            packet_id: 0,
            waiting: Vec::new(),
            resends: false,
            request_topic,
        };
        (reader, hello_bytes(&hello))
    }

    /// The same client, if it has sent something that was not acknowledged: how it begins again.
    pub(crate) fn again(&self) -> Option<(Self, Vec<u8>)> {
        if self.waiting.is_empty() {
            return None;
        }
        let topic = self.request_topic.clone();
        let (reader, first) = Self::new(self.number, self.code, &self.truth, topic);
        let (waiting, commands, packet_id) = (self.waiting.clone(), self.commands, self.packet_id);
        Some((Self { waiting, commands, packet_id, resends: true, ..reader }, first))
    }

    fn resend(&self, says: &mut VecDeque<u8>) {
        for (id, qos, payload) in &self.waiting {
            self.truth.resent.borrow_mut().insert(payload.clone());
            says.extend(publish_bytes(&self.request_topic, payload, 0x08 | qos << 1, *id));
        }
    }

    /// Whether it has been let in and has subscribed.
    pub(crate) const fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// What it knows of the printer.
    pub(crate) fn state(&self) -> Option<u64> {
        self.known.state().map(fingerprint)
    }

    /// How many reports it has heard.
    pub(crate) const fn heard(&self) -> u32 {
        self.heard
    }

    /// One more command.
    pub(crate) fn command(&mut self, qos: u8, size: usize) -> Vec<u8> {
        if !self.is_in {
            return Vec::new();
        }
        self.commands += 1;
        let payload = Command::written(self.number, self.commands, size);
        if qos > 0 {
            self.packet_id += 1;
            self.waiting.push((self.packet_id, qos, payload.clone()));
        }
        publish_bytes(&self.request_topic, &payload, qos << 1, self.packet_id)
    }

    /// A question that the proxy answers.
    pub(crate) fn asks(&mut self, what: &str) -> Vec<u8> {
        if !self.is_in {
            return Vec::new();
        }
        publish_bytes(&self.request_topic, what.as_bytes(), 0, 0)
    }

    fn acknowledged(&mut self, id: u16) {
        let at = self.waiting.iter().position(|(own, ..)| *own == id);
        let payload = at.map(|at| self.waiting.remove(at).2);
        let sent = payload.as_ref().is_some_and(|sent| self.truth.sent.borrow().contains_key(sent));
        promise("mqtt: an acknowledged command was sent", sent, || {
            format!("client {}: packet {id} was acknowledged and not sent", self.number)
        });
    }

    fn told(&mut self, payload: &[u8]) {
        let said = self.truth.said.borrow();
        let own =
            said.iter().enumerate().skip(self.next).find(|(_, said)| *said.payload == *payload);
        let is_state = is_full(payload);
        if self.heard == 0 {
            // Unless the printer has sent no state since it was connected.
            let last = said.iter().rfind(|said| *said.payload == *payload);
            let known = self.truth.known.borrow().state().is_some();
            let unknown = !last.map_or(known, |said| said.known_before);
            // An answer with versions is no part of the state.
            if is_state || !(unknown || self.truth.is_excused() || version(payload).is_some()) {
                promise("mqtt: the first report is a full state", is_state, || {
                    format!("client {}: {}", self.number, shortened(payload))
                });
            }
        }
        self.heard += 1;
        if let Some((at, _)) = own {
            promise(REPORT, true, String::new);
            self.next = at + 1;
        } else if is_state {
            let mut made = Known::default();
            made.learn(payload);
            let made = made.state().map(fingerprint);
            let from = self.next.saturating_sub(1);
            let at = said.iter().skip(from).position(|said| said.state == made);
            promise(
                "mqtt: a state that the proxy puts together is the printer's",
                at.is_some(),
                || format!("client {}: {}", self.number, shortened(payload)),
            );
            // The report that it was put together over may still come: it may be more than news.
            self.next = at.map_or(self.next, |at| from + at);
        } else {
            let version = version(payload);
            let known = version.is_some()
                && said.iter().any(|said| self::version(&said.payload) == version);
            promise(REPORT, known, || {
                let ever = said.iter().position(|said| *said.payload == *payload);
                let (next, all) = (self.next, said.len());
                let what = shortened(payload);
                format!("client {}: next is {next} of {all}, this is {ever:?}: {what}", self.number)
            });
        }
        drop(said);
        self.known.learn(payload);
    }
}

const REPORT: &str =
    "mqtt: a report is the printer's to the byte, and none comes twice or too late";

fn is_full(payload: &[u8]) -> bool {
    serde_json::from_slice::<Value>(payload).is_ok_and(|report| {
        report["print"]["command"] == "push_status" && report["print"]["msg"] == 0
    })
}

fn shortened(payload: &[u8]) -> String {
    payload[..payload.len().min(200)].escape_ascii().to_string()
}

impl Party for Reader {
    fn hears(&mut self, bytes: &[u8], says: &mut VecDeque<u8>) {
        self.packets.take(bytes);
        while let Some((first, body)) = self.packets.next() {
            match first >> 4 {
                CONNACK => {
                    let code = body[1];
                    note(format_args!("client {}: CONNACK {code}", self.number));
                    match self.code {
                        Code::Wrong => promise("mqtt: a wrong code is refused", code == 5, || {
                            format!("client {}: CONNACK {code}", self.number)
                        }),
                        Code::Right => promise(
                            "mqtt: the right code is accepted, or refused as unavailable",
                            matches!(code, 0 | 3),
                            || format!("client {}: CONNACK {code}", self.number),
                        ),
                    }
                    self.is_in = code == 0;
                    if code == 0 {
                        let topic = b"\0\x0a\0\x0fdevice/+/report\0";
                        says.extend(packet(0x82, topic));
                        if core::mem::take(&mut self.resends) {
                            self.resend(says);
                        }
                    }
                }
                SUBACK => {
                    self.subscribed = true;
                }
                PUBLISH => {
                    let payload = payload(first, &body).to_vec();
                    self.told(&payload);
                }
                PUBACK | PUBREC => {
                    let id = [body[0], body[1]];
                    self.acknowledged(u16::from_be_bytes(id));
                    if first >> 4 == PUBREC {
                        says.extend(packet(0x62, &id));
                    }
                }
                PUBCOMP => {}
                _ => promise(REPORT, false, || format!("a packet that begins with {first:#x}")),
            }
        }
    }
}
