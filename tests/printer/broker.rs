//! One conversation, as the printers' broker has it: MQTT 3.1.1 on any stream (`src/protocol.md`, mqtt).
//!
//! One task reads, executes and writes. While a packet is being written it keeps reading, and the
//! other way round. It must not block the printer, so everything that is sent to a client goes
//! through the queue of its [slot](super::slot).

use core::time::Duration;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::ledger::{Ending, Event, Hello, Request, remember};
use super::machine::{Machine, Whom};
use super::model::Quirk;
use super::packet::{self, Connect, MAX_FILTERS, MAX_PACKET, Packet, Publish};
use super::slot::Slot;
use super::{CONNECT_TIMEOUT, IDLE_TIMEOUT, WRITE_TIMEOUT};

/// Talks to one client to the end.
pub(super) async fn converse<S>(machine: &Machine, slot: &Slot, stream: S) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from, mut to) = split(stream);
    let mut talk = Talk::new(machine, slot, Instant::now());
    let mut outbox = Outbox::default();
    let mut read = vec![0; READ];
    loop {
        let now = Instant::now();
        let frozen = machine.has(Quirk::HalfOpen);
        let mut wake = now + IDLE_TIMEOUT;
        wake = machine.push_if_due(now).map_or(wake, |at| wake.min(at));
        if frozen {
            talk.heard = now; // a half-open printer does not read, so the time does not count
            outbox.stuck_at = None;
        } else {
            match talk.progress(now) {
                Ok(at) => wake = wake.min(at),
                Err(ending) => slot.close_for(ending), // earlier answers are still sent
            }
        }
        if let Some(ending) = slot.dropping() {
            return ending;
        }
        let busy = outbox.is_busy(slot);
        if let Some(ending) = slot.closing()
            && !busy
        {
            return ending;
        }
        if busy && !frozen {
            let stuck_at = *outbox.stuck_at.get_or_insert(now + WRITE_TIMEOUT);
            if stuck_at <= now {
                return slot.closing().unwrap_or(Ending::Stuck);
            }
            wake = wake.min(stuck_at);
        }
        select! {
            biased;
            () = slot.notify.notified() => {}
            sent = outbox.send(slot, &mut to), if busy && !frozen => if !sent {
                return slot.closing().unwrap_or(Ending::Lost);
            },
            got = from.read(&mut read), if !frozen && talk.is_hungry() => match got {
                Ok(0) | Err(_) => return Ending::Lost,
                Ok(len) => talk.inbox.extend_from_slice(&read[..len]),
            },
            () = sleep_until(wake) => {}
        }
    }
}

/// What is read at once, in bytes.
const READ: usize = 4096;

/// The packet on its way out.
#[derive(Default)]
struct Outbox {
    packet: Option<Rc<[u8]>>,
    written: usize,
    /// Whether something written may still be on this side of the stream.
    unflushed: bool,
    /// When the client will have taken nothing for too long.
    stuck_at: Option<Instant>,
}

impl Outbox {
    fn is_busy(&self, slot: &Slot) -> bool {
        self.packet.is_some() || self.unflushed || slot.has_next()
    }

    /// Writes a piece, or flushes. False when the stream is broken. Nothing is lost by a cancellation:
    /// state changes only where nothing more is awaited.
    async fn send<W: AsyncWrite + Unpin>(&mut self, slot: &Slot, to: &mut W) -> bool {
        if self.packet.is_none() {
            self.packet = slot.next();
            self.written = 0;
        }
        let sent = match &self.packet {
            Some(packet) => to.write(&packet[self.written..]).await,
            None => to.flush().await.map(|()| 0),
        };
        match (sent, &self.packet) {
            (Ok(0), None) => self.unflushed = false,
            (Ok(0), Some(_)) | (Err(_), _) => return false,
            (Ok(len), packet) => {
                self.unflushed = true;
                self.written += len;
                if packet.as_ref().is_some_and(|packet| packet.len() == self.written) {
                    self.packet = None;
                }
            }
        }
        self.stuck_at = None;
        true
    }
}

/// A client's state.
#[derive(Clone, Copy)]
enum Stage {
    /// CONNECT is expected by then.
    Expected(Instant),
    /// CONNACK with this code is sent then.
    Pausing(Instant, u8),
    /// Connected.
    Welcome,
}

/// What one client has sent so far.
struct Talk<'m> {
    machine: &'m Machine,
    slot: &'m Slot,
    stage: Stage,
    inbox: Vec<u8>,
    /// When it last completed a packet.
    heard: Instant,
    /// How long it may be silent.
    silent_most: Duration,
}

impl<'m> Talk<'m> {
    fn new(machine: &'m Machine, slot: &'m Slot, now: Instant) -> Self {
        Self {
            machine,
            slot,
            stage: Stage::Expected(now + CONNECT_TIMEOUT),
            inbox: Vec::new(),
            heard: now,
            silent_most: IDLE_TIMEOUT,
        }
    }

    /// Whether there is room for more. Whole packets wait only behind a slow CONNACK.
    fn is_hungry(&self) -> bool {
        self.inbox.len() < MAX_PACKET && self.slot.closing().is_none()
    }

    /// Does what is due and executes received packets; returns when something is due next.
    fn progress(&mut self, now: Instant) -> Result<Instant, Ending> {
        let mut inbox = core::mem::take(&mut self.inbox);
        let mut rest = inbox.as_slice();
        let due = loop {
            let due = self.handle_time(now)?;
            let paused = matches!(self.stage, Stage::Pausing(..));
            if paused || self.slot.closing().is_some() || self.slot.dropping().is_some() {
                break due;
            }
            let length = packet::length(rest).map_err(|_| Ending::Malformed)?;
            let Some((whole, after)) = length.and_then(|length| rest.split_at_checked(length))
            else {
                break due;
            };
            rest = after;
            self.heard = now;
            self.handle_packet(packet::parse(whole).map_err(|_| Ending::Malformed)?, now)?;
        };
        let taken = inbox.len() - rest.len();
        inbox.drain(..taken);
        self.inbox = inbox;
        Ok(due)
    }

    fn handle_time(&mut self, now: Instant) -> Result<Instant, Ending> {
        match self.stage {
            Stage::Expected(by) if by <= now => return Err(Ending::Late),
            Stage::Expected(by) => return Ok(by),
            Stage::Pausing(at, _) if now < at => return Ok(at),
            Stage::Pausing(_, code) => {
                self.say(packet::connack(code));
                self.heard = now;
                self.stage = Stage::Welcome;
                if code != 0 {
                    self.slot.close_for(Ending::Refused(code));
                }
            }
            Stage::Welcome => {}
        }
        let reaps = self.machine.has(Quirk::ReapsIdle);
        let until = self.heard + if reaps { self.silent_most } else { IDLE_TIMEOUT };
        if until <= now { Err(Ending::Silent) } else { Ok(until) }
    }

    fn handle_packet(&mut self, packet: Packet<'_>, now: Instant) -> Result<(), Ending> {
        match (self.stage, packet) {
            (Stage::Expected(_), Packet::Connect(connect)) => self.handle_connect(&connect, now),
            (Stage::Expected(_), _) | (_, Packet::Connect(_)) => return Err(Ending::Malformed),
            (_, Packet::Disconnect) => return Err(Ending::Orderly),
            (_, Packet::Pingreq) => self.say(packet::pingresp()),
            (_, Packet::Puback) => {}
            (_, Packet::Subscribe { id, filters }) => self.handle_subscribe(id, &filters)?,
            (_, Packet::Unsubscribe { id, filters }) => {
                self.slot.filters.borrow_mut().retain(|filter| !filters.contains(&filter.as_str()));
                self.machine.note(|_| {});
                self.say(packet::unsuback(id));
            }
            (_, Packet::Publish(publish)) => self.handle_publish(&publish)?,
        }
        Ok(())
    }

    fn handle_connect(&mut self, connect: &Connect<'_>, now: Instant) {
        let admitted = connect.user == Some(USER)
            && connect.password == Some(self.machine.code.borrow().as_bytes());
        let answer = match (connect.protocol, connect.level) {
            ("MQTT", 4) if admitted => 0,
            ("MQTT", 4) => self.machine.wrong_code_answer.get(),
            _ => UNACCEPTABLE_LEVEL,
        };
        if connect.keep_alive > 0 {
            self.silent_most = Duration::from_secs(connect.keep_alive.into()) * 3 / 2;
        }
        let hello = Hello {
            connection: self.slot.number,
            client_id: connect.client_id.to_owned(),
            keep_alive: connect.keep_alive,
            clean_session: connect.clean_session,
            will: connect.will,
            answer,
        };
        self.machine.tell(&Event::Greeted(&hello));
        self.machine.note(|ledger| remember(&mut ledger.hellos, hello));
        self.stage = Stage::Pausing(now + self.machine.connack_after.get(), answer);
    }

    fn handle_subscribe(&self, id: u16, filters: &[(&str, u8)]) -> Result<(), Ending> {
        let mut granted = Vec::with_capacity(filters.len());
        for &(filter, qos) in filters {
            self.machine.tell(&Event::Subscribed(self.slot.number, filter));
            self.machine.note(|ledger| remember(&mut ledger.subscriptions, filter.to_owned()));
            let cause = if filter == self.machine.report_topic {
                None
            } else if is_report_topic(filter) {
                Some(Quirk::ClosesOnWrongSerial)
            } else {
                Some(Quirk::StrictTopics)
            };
            if cause.is_some_and(|quirk| self.machine.has(quirk)) {
                return Err(Ending::Unwanted);
            }
            let mut held = self.slot.filters.borrow_mut();
            if held.iter().any(|held| held == filter) {
                granted.push(qos.min(1));
            } else if held.len() < MAX_FILTERS {
                held.push(filter.to_owned());
                granted.push(qos.min(1));
            } else {
                granted.push(FAILURE);
            }
        }
        self.machine.note(|_| {});
        self.say(packet::suback(id, &granted));
        Ok(())
    }

    fn handle_publish(&self, publish: &Publish<'_>) -> Result<(), Ending> {
        let wanted = publish.topic == self.machine.request_topic;
        // Printers accept commands at QoS 0 and 1; QoS 2 was never reported, so it is counted here.
        if publish.qos == 2 || (!wanted && self.machine.has(Quirk::StrictTopics)) {
            return Err(Ending::Unwanted);
        }
        if let Some(id) = publish.id
            && !self.machine.has(Quirk::NoPuback)
        {
            self.say(packet::puback(id));
        }
        // Mosquitto has no topics of its own: others that subscribed to this one get it too.
        self.machine.publish(publish.topic, publish.payload, Whom::All);
        if wanted {
            let request = Request {
                connection: self.slot.number,
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                dup: publish.dup,
                retain: publish.retain,
                id: publish.id,
            };
            self.machine.request(self.slot, &request);
        }
        Ok(())
    }

    fn say(&self, packet: Vec<u8>) {
        self.machine.send(self.slot, packet.into());
    }
}

/// Whether it is some printer's report topic, and no wildcard.
fn is_report_topic(filter: &str) -> bool {
    let mut levels = filter.split('/');
    levels.next() == Some("device")
        && levels.next().is_some_and(|serial| serial != "+" && serial != "#")
        && levels.next() == Some("report")
        && levels.next().is_none()
}

/// The one user every printer knows.
const USER: &str = "bblp";

/// CONNACK for another version of the protocol (MQTT 3.1.1 §3.2.2.3).
const UNACCEPTABLE_LEVEL: u8 = 1;

/// SUBACK for a filter that is not granted (§3.9.3).
const FAILURE: u8 = 0x80;
