//! What MQTT clients share, and by which rules: the service's one policy file.
//!
//! The printer's reports are stored once and offered to every client that subscribed to them. Its full
//! state is kept, so that a client which comes late, or fell behind, gets the whole of it at once.
//! What clients ask the printer for all the time (`pushall`, `get_version`) is answered from here;
//! every other request goes to the printer as it came.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | clients | `BOARD.clients.mqtt` | CONNACK 3, unless the newcomer's own older connection can go |
//! | frames | `BOARD.mqtt.small`, `BOARD.mqtt.large` | whoever is furthest behind loses its reports and gets the full state |
//! | a state without a frame | asked for again after [`AGAIN`] | late clients wait for it |
//! | `pushall` to the printer for clients | one in five minutes (P1, A1), in three seconds (others) | answered from the state |
//! | `get_version` to the printer for clients | one in a minute | answered with what it said last |
//! | the printer away | [`AWAY`] | all clients are closed, so that they know |

use alloc::rc::Rc;
use core::hash::{BuildHasher, Hash, Hasher};
use core::time::Duration;
use std::hash::RandomState;

use super::Topics;
use super::address::{Patches, SequenceId};
use super::disconnect::Error;
use super::queue::{Request, RequestQueue};
use super::report::{self, Kind};
use super::request::{self, Request as Meaning};
use super::slot::{Ack, Slot, SlotState};
use super::state::{self, State};
use super::topic::{self, Leaf};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::{self, Kind as Entry, RateLimit};
use crate::memory::budget::{FRAME_SLOT, STATE, STATE_CHANGES};
use crate::memory::pool::{Frame, Pool};
use crate::printer::model::{FAST_PUSH_ALL, Model, SLOW_PUSH_ALL};

/// How long clients are kept while the printer is away. A short loss is nobody's business; after a
/// long one, closing is the one signal that all of them understand.
pub const AWAY: Duration = Duration::from_secs(30);

/// How long a printer that was asked for its full state may say nothing at all before it looks as if
/// it were another printer: most accept a subscription to any serial number.
const MUTE: Duration = Duration::from_secs(15);

/// When a full state that found no frame is asked for again: by then whoever takes nothing has been
/// let go ([`STALL`](crate::runtime::stream::STALL)), and what was kept for it is free.
pub const AGAIN: Duration = Duration::from_secs(10);

/// How old the versions may be that a client is answered with before the printer is asked for them again:
/// an AMS that is plugged in or updated changes them, and nothing says so.
const VERSIONS_EVERY: Duration = Duration::from_secs(60);

const _: () =
    assert!(Pool::<Patches>::FRAME_SLOT <= FRAME_SLOT, "a frame costs more than its queue");

/// What all clients share.
pub struct Hub {
    topics: Rc<Topics>,
    slots: Rc<[Rc<Slot>]>,
    queue: Rc<RequestQueue>,
    pool: Pool<Patches>,
    state: State,
    /// The state as it was last shown to somebody, until it changes.
    shown: Option<Frame<Patches>>,
    version: Option<Frame<Patches>>,
    push_all_every: Duration,
    push_all_last: Option<Instant>,
    version_last: Option<Instant>,
    /// When a state that could not be kept is asked for again.
    again_at: Option<Instant>,
    hashes: RandomState,
    away_since: Option<Instant>,
    /// Whether the printer has said that live view of its camera is off.
    live_view_off: bool,
    /// Since when the printer has taken our subscription without a single report.
    mute_since: Option<Instant>,
    /// Deltas that could not be merged, reports that found no frame, and those that fit in none.
    odd: RateLimit,
    homeless: RateLimit,
    oversized: RateLimit,
}

const _: () = assert!(State::bytes(STATE_CHANGES) <= STATE, "the state is larger than its queue");

impl Hub {
    /// A hub without clients, whose printer is away since `now`.
    pub fn new(
        topics: Rc<Topics>,
        slots: Rc<[Rc<Slot>]>,
        queue: Rc<RequestQueue>,
        now: Instant,
    ) -> Self {
        let model = Model::of_serial(&topics.serial);
        let push_all_every = model.map_or(SLOW_PUSH_ALL, |model| model.push_all_interval);
        Self {
            topics,
            slots,
            queue,
            pool: Pool::new(BOARD.mqtt.small, BOARD.mqtt.large),
            state: State::new(STATE_CHANGES),
            shown: None,
            version: None,
            push_all_every,
            push_all_last: None,
            version_last: None,
            again_at: None,
            live_view_off: false,
            hashes: RandomState::new(),
            away_since: Some(now),
            mute_since: None,
            odd: RateLimit::default(),
            homeless: RateLimit::default(),
            oversized: RateLimit::default(),
        }
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_taken()).count()
    }

    /// A client has shown the right code. The verdict is left in its slot.
    pub fn join(&mut self, slot: &Rc<Slot>, id: &str) {
        // Whoever has no name is nobody else.
        let owner = match (id, slot.peer()) {
            ("", Some(peer)) => self.hashes.hash_one(peer.number),
            (id, _) => self.hashes.hash_one(id),
        };
        if self.clients() >= BOARD.clients.mqtt {
            let own_older = self
                .slots
                .iter()
                .filter(|other| other.is_taken() && other.owner() == owner && !id.is_empty())
                .min_by_key(|other| other.since());
            match own_older {
                Some(other) => other.dismiss(Error::TakenOver),
                None => {
                    slot.wait(owner);
                    slot.dismiss(Error::NoSlot);
                    return;
                }
            }
        }
        slot.wait(owner);
        if self.queue.is_live() {
            slot.admit();
        }
    }

    /// A client has subscribed to the reports: it gets the full state, if that is known.
    pub fn subscribed(&mut self, now: Instant, slot: &Rc<Slot>) {
        match self.snapshot(now) {
            Some(report) => self.deliver(now, slot, report),
            // It is known and cannot be shown now: it comes with the next report.
            None if !self.state.is_stale() => slot.miss(),
            None => {}
        }
    }

    /// A client has published something.
    ///
    /// # Errors
    ///
    /// The request cannot be delivered now; the client learns it by being closed.
    pub fn request(
        &mut self,
        now: Instant,
        slot: &Rc<Slot>,
        topic: &str,
        payload: &[u8],
        ack: Ack,
        duplicate: bool,
    ) -> Result<(), Error> {
        // A request to another serial number is meant for this printer: the client has kept it from
        // another one, and a slicer does not notice (PROTOCOL 8.14).
        if !matches!(topic::device_of(topic), Some((_, Leaf::Request))) {
            if let (Some(peer), Some(times)) = (slot.peer(), slot.strays.check(now)) {
                let what =
                    format_args!("{peer}: published to {topic:.60}, which is ignored ({times})");
                journal::note(Entry::RequestIgnored, what);
            } else {
                journal::tally(Entry::RequestIgnored);
            }
            slot.acknowledge(ack);
            return Ok(());
        }
        match request::classify(payload) {
            Meaning::PushAll => {
                slot.acknowledge(ack);
                self.push_all(now, slot);
                Ok(())
            }
            Meaning::PushStop => {
                // It would silence the one session that all clients share.
                slot.acknowledge(ack);
                Ok(())
            }
            Meaning::GetVersion { sequence_id } => {
                slot.acknowledge(ack);
                self.get_version(now, slot, sequence_id.and_then(SequenceId::new));
                Ok(())
            }
            Meaning::Command => self.command(now, slot, payload, ack, duplicate),
        }
    }

    /// A client wants the full state: it gets it from here, and the printer is asked when that was
    /// last done long enough ago.
    fn push_all(&mut self, now: Instant, slot: &Rc<Slot>) {
        self.subscribed(now, slot);
        self.refresh(now);
    }

    /// A client wants the versions: it gets them from here under its own `sequence_id`, or waits for
    /// the answer that the printer gives to all. If what is here is old, that comes as well.
    fn get_version(&mut self, now: Instant, slot: &Rc<Slot>, sequence: Option<SequenceId>) {
        let known = self.version.clone();
        let every = if known.is_some() { VERSIONS_EVERY } else { FAST_PUSH_ALL };
        match (known, sequence) {
            (Some(report), sequence) => {
                let own = |sequence| slot.reads() && slot.put_answer(report.clone(), sequence);
                if !sequence.is_some_and(own) {
                    self.deliver(now, slot, report);
                }
            }
            (None, Some(sequence)) => slot.ask_version(sequence),
            (None, None) => {}
        }
        let due = self.version_last.is_none_or(|last| now.since(last) >= every);
        if self.queue.is_live() && due {
            self.version_last = Some(now);
            self.queue.ask_version();
        }
    }

    fn command(
        &mut self,
        now: Instant,
        slot: &Rc<Slot>,
        payload: &[u8],
        ack: Ack,
        duplicate: bool,
    ) -> Result<(), Error> {
        let mark = self.mark(slot, payload, ack);
        if duplicate {
            self.supersede(slot);
        }
        if duplicate && self.queue.has_sent(now, mark) {
            slot.acknowledge(ack);
            return Ok(());
        }
        if duplicate && self.queue.is_carrying(mark) {
            return Err(Error::Undecided);
        }
        if !self.queue.is_live() {
            return Err(Error::RequestRefused);
        }
        let payload = self.store(now, payload, &Patches::NONE).ok_or(Error::NoRoom)?;
        let pending_ack = slot.owe(ack).ok_or(Error::NoRoom)?;
        if let Err(refused) = self.queue.put(Request { payload, pending_ack, mark }) {
            refused.0.pending_ack.withdraw();
            return Err(Error::NoRoom);
        }
        journal::tally(Entry::RequestForwarded);
        Ok(())
    }

    /// Whoever resends has given up its older connections. What is still on its way over one of them is
    /// what it resends, and must not be done as well.
    fn supersede(&self, slot: &Rc<Slot>) {
        let older = |other: &&Rc<Slot>| {
            other.owner() == slot.owner()
                && other.since() <= slot.since()
                && !Rc::ptr_eq(other, slot)
        };
        self.slots.iter().filter(older).for_each(|other| other.dismiss(Error::TakenOver));
    }

    /// What a request is recognised by when its sender sends it again over a new connection.
    fn mark(&self, slot: &Slot, payload: &[u8], ack: Ack) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        slot.owner().hash(&mut hasher);
        match ack {
            Ack::None => {}
            Ack::PubAck(id) | Ack::PubRec(id) => id.get().hash(&mut hasher),
        }
        payload.hash(&mut hasher);
        hasher.finish()
    }

    /// The printer takes requests.
    pub fn live(&mut self, now: Instant) {
        self.away_since = None;
        self.mute_since = Some(now);
        // The queue asks for state and versions by itself.
        self.push_all_last = Some(now);
        self.version_last = Some(now);
        let (serial, clients) = (&self.topics.serial, self.clients());
        let what = format_args!(
            "mqtt: the printer is connected, serial number {serial}; {clients} clients share it"
        );
        journal::note(Entry::PrinterUp, what);
        for slot in self.slots.iter().filter(|slot| slot.standing() == SlotState::Waiting) {
            slot.admit();
        }
    }

    /// The printer is away. What is known of it may be out of date when it is back.
    pub fn lost(&mut self, now: Instant) {
        self.away_since.get_or_insert(now);
        self.mute_since = None;
        self.queue.lost();
        self.forget_state();
        self.version = None;
        self.push_all_last = None;
        self.again_at = None;
    }

    /// Whether the printer has said that live view of its camera is off.
    pub const fn says_live_view_off(&self) -> bool {
        self.live_view_off
    }

    /// The printer has reported something.
    pub fn report(&mut self, now: Instant, payload: &[u8]) {
        self.mute_since = None;
        if payload.len() > self.pool.largest() {
            self.oversized(now, payload.len());
            return;
        }
        let seen = report::classify(payload);
        let kind = seen.kind;
        if let Some(is_on) = seen.live_view {
            self.live_view_off = !is_on;
        }
        if kind == Kind::Delta {
            self.delta(now, payload);
        }
        let kept = matches!(kind, Kind::Full | Kind::Version);
        if !kept && !self.slots.iter().any(|slot| slot.reads()) {
            return;
        }
        let mut stored = self.store(now, payload, &seen.patches);
        if stored.is_none() && kind == Kind::Full {
            // It replaces what is known of the state, and that has a frame of its own.
            self.forget_state();
            stored = self.store(now, payload, &seen.patches);
        }
        let Some(report) = stored else {
            self.cannot_store(now, kind, payload.len());
            return;
        };
        match kind {
            Kind::Full => {
                self.state.handle_full(report.clone());
                self.shown = Some(report.clone());
            }
            Kind::Version => self.version = Some(report.clone()),
            Kind::Delta | Kind::Ack | Kind::Other => {}
        }
        let slots = Rc::clone(&self.slots);
        for slot in slots.iter().filter(|slot| slot.reads()) {
            let asked = if kind == Kind::Version { slot.take_asked_version() } else { None };
            if !asked.is_some_and(|sequence| slot.put_answer(report.clone(), sequence)) {
                self.deliver(now, slot, report.clone());
            }
        }
    }

    /// Merges what has changed. A state that was lost over it is asked for again.
    fn delta(&mut self, now: Instant, payload: &[u8]) {
        self.shown = None;
        let Err(error) = self.state.handle_delta(payload, &self.pool) else { return };
        let (entry, seldom) = match error {
            state::Error::Json(_) | state::Error::NoPrint => (Entry::ReportOdd, &self.odd),
            state::Error::TooWide | state::Error::NoRoom => {
                self.again_at = Some(now + AGAIN);
                (Entry::NoFrame, &self.homeless)
            }
        };
        match seldom.check(now) {
            Some(times) => {
                let what =
                    format_args!("mqtt: a delta is passed on but not kept: {error} ({times})");
                journal::note(entry, what);
            }
            None => journal::tally(entry),
        }
    }

    /// Asks the printer for its full state, unless that was done too lately.
    fn refresh(&mut self, now: Instant) {
        let due = self.push_all_last.is_none_or(|last| now.since(last) >= self.push_all_every);
        if self.queue.is_live() && due {
            self.push_all_last = Some(now);
            self.queue.ask_state();
        }
    }

    /// A report was larger than any frame. What misses a change is not the state.
    pub fn oversized(&mut self, now: Instant, bytes: usize) {
        self.forget_state();
        match self.oversized.check(now) {
            Some(times) => {
                let what = format_args!(
                    "mqtt: a report of {bytes} bytes was skipped ({times}); {} fit \
                     (BOARD.mqtt.large.size)",
                    BOARD.mqtt.large.size
                );
                journal::note(Entry::ReportTooLong, what);
            }
            None => journal::tally(Entry::ReportTooLong),
        }
    }

    /// Looks after what only time tells.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.away_since.is_some_and(|since| now.since(since) >= AWAY) {
            for slot in self.slots.iter().filter(|slot| slot.standing() == SlotState::Occupied) {
                slot.dismiss(Error::PrinterAway);
            }
        }
        if self.again_at.take_if(|at| *at <= now).is_some() && self.state.is_stale() {
            self.push_all_last = Some(now);
            self.queue.ask_state();
        }
        // The printer may have ignored the first question.
        let long_ago = |last: Instant| now.since(last) >= SLOW_PUSH_ALL;
        if self.state.is_stale() && self.push_all_last.is_some_and(long_ago) {
            self.refresh(now);
        }
        if self.mute_since.take_if(|since| now.since(*since) >= MUTE).is_some() {
            journal::note(
                Entry::PrinterMute,
                format_args!(
                    "mqtt: the printer says nothing about {}: is this its serial number?",
                    self.topics.serial
                ),
            );
        }
    }

    /// Everybody has to go.
    pub fn dismiss_all(&mut self) {
        for slot in self.slots.iter() {
            slot.dismiss(Error::ShuttingDown);
        }
    }

    /// The full state, if it is known.
    fn snapshot(&mut self, now: Instant) -> Option<Frame<Patches>> {
        if !self.queue.is_fresh(now) {
            return None;
        }
        if self.shown.is_none() {
            self.shown = self.state.snapshot(&self.pool);
        }
        self.shown.clone()
    }

    /// Puts something into a client's ring. A client that is too far behind loses what is there and
    /// gets the full state in its place.
    fn deliver(&mut self, now: Instant, slot: &Rc<Slot>, report: Frame<Patches>) {
        if !slot.reads() {
            return;
        }
        if slot.has_missed() && !self.catch_up(now, slot) {
            return;
        }
        if !slot.put(report.clone()) {
            self.lag(now, slot);
            // What it did not have room for may be news that no state tells: an answer, say.
            if self.catch_up(now, slot)
                && !self.shown.as_ref().is_some_and(|shown| shown.is(&report))
            {
                let _fits = slot.put(report);
            }
        }
    }

    fn lag(&self, now: Instant, slot: &Slot) {
        let dropped = slot.drop_backlog();
        if let (Some(peer), Some(_)) = (slot.peer(), slot.lags.check(now)) {
            let what = format_args!(
                "{peer}: too slow, {dropped} reports dropped so far; it gets the full state"
            );
            journal::note(Entry::Lagged, what);
        } else {
            journal::tally(Entry::Lagged);
        }
    }

    /// Gives a client that missed something the full state. Whether it has it now.
    fn catch_up(&mut self, now: Instant, slot: &Rc<Slot>) -> bool {
        let Some(report) = self.snapshot(now) else {
            // There is no state to be had; what comes from now on is better than nothing.
            if self.state.is_stale() {
                slot.caught_up();
            }
            return self.state.is_stale();
        };
        let caught_up = slot.put(report);
        if caught_up {
            slot.caught_up();
        }
        caught_up
    }

    /// Stores a payload, at the expense of whoever is furthest behind if need be.
    fn store(&mut self, now: Instant, payload: &[u8], patches: &Patches) -> Option<Frame<Patches>> {
        loop {
            if let Some(frame) = self.pool.store_tagged(&[payload], patches.clone()) {
                return Some(frame);
            }
            if payload.len() > self.pool.largest() {
                return None;
            }
            let furthest = self.slots.iter().max_by_key(|slot| slot.backlog())?;
            if furthest.backlog() == 0 {
                return None;
            }
            self.lag(now, furthest);
        }
    }

    /// Nothing is known of the state until the next full report.
    fn forget_state(&mut self) {
        self.state.mark_stale();
        self.shown = None;
    }

    fn cannot_store(&mut self, now: Instant, kind: Kind, bytes: usize) {
        match self.homeless.check(now) {
            Some(times) => {
                let what = format_args!(
                    "mqtt: no frame for a report of {bytes} bytes ({times}); readers get the full \
                     state"
                );
                journal::note(Entry::NoFrame, what);
            }
            None => journal::tally(Entry::NoFrame),
        }
        if kind == Kind::Full {
            // Not at once: the answer would find no frame either, and be asked for again.
            self.again_at = Some(now + AGAIN);
        }
        for slot in self.slots.iter().filter(|slot| slot.reads()) {
            slot.drop_backlog();
        }
    }
}
