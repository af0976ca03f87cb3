//! The printer behind the connections: which it admits, what it sends to which, which commands it executes.

use core::cell::{Cell, RefCell};
use core::net::Ipv4Addr;
use core::time::Duration;
use std::rc::Rc;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::{Ending, Event, Ledger, Request, remember};
use super::model::{Model, Quirk, Refusal};
use super::packet::{self, MAX_PACKET};
use super::reports::{Form, State};
use super::slot::Slot;
use super::tls::Shown;
use super::{MAX_STREAMS, REBOOT_TAKES};

/// Everything of one printer that its connections share.
pub(super) struct Machine {
    pub(super) model: Model,
    pub(super) report_topic: String,
    pub(super) request_topic: String,
    pub(super) code: RefCell<String>,
    pub(super) limit: Cell<usize>,
    pub(super) refusal: Cell<Refusal>,
    pub(super) indented: Cell<bool>,
    pub(super) bytes: Cell<usize>,
    pub(super) connack_after: Cell<Duration>,
    pub(super) wrong_code_answer: Cell<u8>,
    pub(super) shown: Cell<Shown>,
    pub(super) state: RefCell<State>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) listener: RefCell<Option<Rc<Listener>>>,
    /// Wakes tasks that wait for a change.
    pub(super) changed: Notify,
    /// Wakes the connections that are held unanswered.
    pub(super) rebooted: Notify,
    /// One bit for each [`Quirk`].
    quirks: Cell<u16>,
    /// Zero: nothing is pushed unasked.
    period: Cell<Duration>,
    /// When the next periodic report is due. The connection task that wakes first sends it.
    push_at: Cell<Option<Instant>>,
    down_until: Cell<Option<Instant>>,
    slots: RefCell<Vec<Rc<Slot>>>,
    held: Cell<usize>,
}

/// An observer of the printer's events.
pub(super) type Listener = dyn Fn(&Event<'_>);

/// Whether a connection is admitted.
pub(super) enum Admission {
    Admitted(Occupied),
    Refused(Refusal),
}

impl Machine {
    pub(super) fn new(model: Model) -> Self {
        let machine = Self {
            model,
            report_topic: format!("device/{}/report", model.serial()),
            request_topic: format!("device/{}/request", model.serial()),
            code: RefCell::new("12345678".to_owned()),
            limit: Cell::new(model.connections()),
            refusal: Cell::new(Refusal::Closes),
            indented: Cell::new(model.indented()),
            bytes: Cell::new(0),
            connack_after: Cell::new(Duration::ZERO),
            wrong_code_answer: Cell::new(5),
            shown: Cell::new(Shown::own(model)),
            state: RefCell::new(State::new(model, ADDRESS, SEED)),
            ledger: RefCell::default(),
            listener: RefCell::default(),
            changed: Notify::new(),
            rebooted: Notify::new(),
            quirks: Cell::new(0),
            period: Cell::new(model.period()),
            push_at: Cell::new(None),
            down_until: Cell::new(None),
            slots: RefCell::default(),
            held: Cell::new(0),
        };
        for &quirk in model.quirks() {
            machine.turn(quirk, true);
        }
        machine
    }

    pub(super) fn reseed(&self, seed: u64) {
        *self.state.borrow_mut() = State::new(self.model, ADDRESS, seed);
    }

    pub(super) fn show(&self, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.shown.get();
        change(&mut shown);
        self.shown.set(shown);
    }

    pub(super) fn turn(&self, quirk: Quirk, on: bool) {
        let bit = 1 << quirk as u8;
        self.quirks.set(if on { self.quirks.get() | bit } else { self.quirks.get() & !bit });
        self.ring_all();
    }

    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.get() & (1 << quirk as u8) != 0
    }

    pub(super) fn push_every(&self, period: Duration) {
        self.period.set(period);
        self.push_at.set(None);
        self.ring_all();
    }

    /// Admits a connection, or says how it is refused.
    pub(super) fn admit(self: &Rc<Self>) -> Admission {
        let down = self.down_until.get().is_some_and(|until| Instant::now() < until);
        if down || self.open() >= self.limit.get() {
            self.note(|ledger| ledger.refused += 1);
            self.tell(&Event::Refused);
            return Admission::Refused(self.refusal.get());
        }
        if self.open() == 0 {
            self.push_at.set(None); // reports due while no client was connected are not sent later
        }
        let number = self.ledger.borrow().ever + 1;
        let slot = Rc::new(Slot::new(number));
        self.slots.borrow_mut().push(Rc::clone(&slot));
        let open = self.open();
        self.note(|ledger| {
            ledger.ever = number;
            ledger.most = ledger.most.max(open);
        });
        self.tell(&Event::Connected(number));
        Admission::Admitted(Occupied { machine: Rc::clone(self), slot, ended: Cell::new(None) })
    }

    /// A place for a connection that is held unanswered, if there is one.
    pub(super) fn hold(&self, refusal: Refusal) -> Option<Held<'_>> {
        (refusal == Refusal::Ignores && self.held.get() < MAX_STREAMS).then(|| {
            self.held.set(self.held.get() + 1);
            Held(self)
        })
    }

    pub(super) fn open(&self) -> usize {
        self.slots.borrow().len()
    }

    pub(super) fn subscribers(&self) -> usize {
        self.slots.borrow().iter().filter(|slot| slot.wants(&self.report_topic)).count()
    }

    /// Completes when the printer is not half-open, or the slot is dropped.
    pub(super) async fn awake(&self, slot: &Slot) {
        while self.has(Quirk::HalfOpen) && slot.dropping().is_none() {
            slot.notify.notified().await;
        }
    }

    /// Sends the periodic reports that are due; returns when the next one is.
    pub(super) fn push_if_due(&self, now: Instant) -> Option<Instant> {
        let period = self.period.get();
        if period.is_zero() {
            return None;
        }
        let mut at = self.push_at.get().unwrap_or(now + period);
        if at <= now {
            at = now + period;
            self.push_at.set(Some(at));
            if !self.has(Quirk::Silence) {
                self.push();
            }
        }
        self.push_at.set(Some(at));
        Some(at)
    }

    /// A delta, or what the model has instead.
    pub(super) fn push(&self) -> usize {
        let delta: Rc<[u8]> = self.state.borrow_mut().delta(self.form(self.bytes.get())).into();
        let reached = self.publish(&self.report_topic, &delta, Whom::NotStopped);
        if reached > 0 {
            self.note(|ledger| {
                ledger.reports += 1;
                if self.model.always_full() {
                    ledger.last_full = Some(delta);
                }
            });
        }
        reached
    }

    pub(super) fn push_full(&self, bytes: usize) -> usize {
        let full: Rc<[u8]> = self.state.borrow_mut().full(self.form(bytes)).into();
        let reached = self.report(&full);
        if reached > 0 {
            self.note(|ledger| ledger.last_full = Some(full));
        }
        reached
    }

    pub(super) fn report(&self, payload: &[u8]) -> usize {
        let reached = self.publish(&self.report_topic, payload, Whom::All);
        if reached > 0 {
            self.note(|ledger| ledger.reports += 1);
        }
        reached
    }

    pub(super) fn raw(&self, bytes: &[u8]) {
        let bytes: Rc<[u8]> = bytes.into();
        self.each(|slot| {
            self.send(slot, Rc::clone(&bytes));
        });
    }

    pub(super) fn cut(&self) {
        let delta = self.state.borrow_mut().delta(self.form(0));
        let whole = packet::publication(&self.report_topic, &delta);
        let half: Rc<[u8]> = whole[..whole.len() / 2].into();
        self.each(|slot| {
            if slot.wants(&self.report_topic) && self.send(slot, Rc::clone(&half)) {
                slot.close_for(Ending::Cut);
            }
        });
    }

    pub(super) fn reboot(&self, down_for: Duration) {
        self.down_until.set(Some(Instant::now() + down_for));
        self.each(|slot| slot.drop_for(Ending::Rebooted));
        self.rebooted.notify_waiters();
    }

    /// Handles a request from this slot's client.
    pub(super) fn request(&self, slot: &Slot, request: &Request) {
        // OrcaSlicer on Linux ends its JSON with a NUL, which printers ignore.
        let text = request.payload.strip_suffix(b"\0").unwrap_or(&request.payload);
        let understood = serde_json::from_slice::<Map<String, Value>>(text).ok();
        let asked = understood.as_ref().and_then(|request| {
            // Siblings such as `header` and `user_id` have no command.
            request.iter().find_map(|(category, body)| {
                let body = body.as_object()?;
                Some((category.as_str(), body.get("command")?.as_str()?, body))
            })
        });
        let kind = asked.map(|(category, command, _)| (category, command));
        self.tell(&Event::Requested(request));
        self.note(|ledger| {
            ledger.requests_ever += 1;
            match kind {
                Some(("pushing", "pushall")) => ledger.pushalls += 1,
                Some(("info", "get_version")) => ledger.get_versions += 1,
                Some(_) | None => {}
            }
            remember(&mut ledger.requests, request.clone());
        });
        if let Some((category, command, body)) = asked
            && !self.has(Quirk::Zombie)
            && !self.has(Quirk::Silence)
        {
            self.obey(slot, category, command, body);
        }
    }

    fn obey(&self, slot: &Slot, category: &str, command: &str, body: &Map<String, Value>) {
        let form = self.form(0);
        match (category, command) {
            ("pushing", "pushall" | "start") => {
                slot.stopped.set(false);
                self.push_full(self.bytes.get());
            }
            ("pushing", "stop") => slot.stopped.set(true),
            ("info", "get_version") => {
                let answer = self.state.borrow().version(body, form);
                self.report(&answer);
            }
            ("system", "reboot") => self.reboot(REBOOT_TAKES),
            _ => {
                let ack = self.state.borrow().ack(category, body, form);
                self.report(&ack);
            }
        }
    }

    /// Sends a payload to the subscribers of its topic; returns their number.
    pub(super) fn publish(&self, topic: &str, payload: &[u8], whom: Whom) -> usize {
        let packet: Rc<[u8]> = packet::publication(topic, payload).into();
        assert!(packet.len() <= MAX_PACKET, "a report of {} bytes", payload.len());
        let mut reached = 0;
        self.each(|slot| {
            let told = whom == Whom::All || !slot.stopped.get();
            if told && slot.wants(topic) && self.send(slot, Rc::clone(&packet)) {
                reached += 1;
            }
        });
        reached
    }

    /// Queues a packet; a half-open printer loses it.
    pub(super) fn send(&self, slot: &Slot, packet: Rc<[u8]>) -> bool {
        !self.has(Quirk::HalfOpen) && slot.send(packet)
    }

    pub(super) fn note(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.ledger.borrow_mut());
        self.changed.notify_waiters();
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    fn form(&self, bytes: usize) -> Form {
        Form { indented: self.indented.get(), bytes, non_utf8: self.has(Quirk::NonUtf8) }
    }

    fn ring_all(&self) {
        self.each(|slot| slot.notify.notify_one());
    }

    fn each(&self, mut act: impl FnMut(&Slot)) {
        for slot in self.slots.borrow().iter() {
            act(slot);
        }
    }
}

/// Who gets a publication, of those subscribed to its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Everybody.
    All,
    /// Everybody who has not asked for silence by `pushing.stop`.
    NotStopped,
}

/// A connection's slot, freed when this is dropped.
pub(super) struct Occupied {
    pub(super) slot: Rc<Slot>,
    machine: Rc<Machine>,
    ended: Cell<Option<Ending>>,
}

impl Occupied {
    /// Gives the place back, saying why.
    pub(super) fn end(self, ending: Ending) {
        self.ended.set(Some(ending));
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let ending = self.ended.get().unwrap_or(Ending::Abandoned);
        self.machine.slots.borrow_mut().retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        self.machine.note(|ledger| {
            match ending {
                Ending::Orderly => ledger.orderly += 1,
                _ => ledger.disorderly += 1,
            }
            remember(&mut ledger.endings, ending);
        });
        self.machine.tell(&Event::Ended(self.slot.number, ending));
    }
}

/// A connection that is held unanswered, freed when this is dropped.
pub(super) struct Held<'m>(&'m Machine);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get() - 1);
    }
}

/// The printer's own address by default.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);

/// The measurements' default seed.
const SEED: u64 = 1;
