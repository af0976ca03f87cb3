//! What MQTT clients share, and by which rules: the policy of the service.
//!
//! The printer's reports are stored once and queued for every client that subscribed to them. The full
//! state is cached, so that a client which connects late, or fell behind, gets the whole of it at once.
//! The frequent questions `pushall` and `get_version` are answered from the cache; every other request is
//! forwarded to the printer unchanged.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | clients | `BOARD.clients.mqtt` | CONNACK 3, unless an older connection with the same client identifier can be closed |
//! | frames | `BOARD.mqtt.small`, `BOARD.mqtt.large` | the client that is furthest behind loses its reports and gets the full state; then requests of others are dropped |
//! | a state without a frame | asked for again after [`STORE_RETRY_INTERVAL`] | clients that connect meanwhile wait for it |
//! | a state that does not come | asked for again after `RETRY`, then half as often each time | at most every `MAX_RETRY` |
//! | `pushall` to the printer for clients | one in five minutes (P1, A1), in three seconds (others) | answered from the state |
//! | `get_version` to the printer for clients | one in a minute | answered with the last answer |
//! | the printer away | [`AWAY_TIMEOUT`] | all clients are disconnected |

use alloc::rc::Rc;
use core::hash::{BuildHasher, Hash, Hasher};
use core::time::Duration;
use std::hash::RandomState;

use super::Topics;
use super::address::{Content, Patches, SequenceId};
use super::disconnect::Error;
use super::log::Message;
use super::queue::{Request, RequestQueue};
use super::report::{self, Kind, Modules};
use super::request::{self, Request as Meaning};
use super::slot::{Ack, Slot};
use super::state::{self, State};
use super::topic::Leaf;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::counts::{self, Count};
use crate::journal::{self, Kind as Entry, RateLimit};
use crate::memory::budget::{FRAME_SLOT, STATE, STATE_CHANGES};
use crate::memory::pool::{Frame, Pool};
use crate::memory::slots::{Slot as _, Slots};
use crate::printer::model::{FAST_PUSH_ALL, Model, SLOW_PUSH_ALL};

/// How long clients are kept while the printer is unreachable. After that they are disconnected, which is
/// the one signal that all clients understand.
pub const AWAY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a printer may send no report after the subscription before the log asks whether the serial
/// number is right: most printers accept a subscription to any serial number.
const MUTE_TIMEOUT: Duration = Duration::from_secs(15);

/// When a full state that found no free frame is asked for again: by then clients that read nothing have
/// been disconnected ([`WRITE_TIMEOUT`](crate::runtime::stream::WRITE_TIMEOUT)), and their frames are free.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// When the printer is asked again for a state or versions that did not come. The time doubles with each
/// question.
const RETRY: Duration = Duration::from_secs(5);

/// The longest time between two such questions.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Incomplete answers to `get_version` after which one is taken as it is: about five minutes.
const MAX_INCOMPLETE: u32 = 8;

/// How old the versions may be that a client is answered with before the printer is asked for them again:
/// an AMS that is plugged in or updated changes them, and no report mentions it.
const VERSIONS_INTERVAL: Duration = Duration::from_secs(60);

const _: () =
    assert!(Pool::<Patches>::FRAME_SLOT <= FRAME_SLOT, "a frame costs more than its queue");

/// What all clients share.
pub struct Hub {
    topics: Rc<Topics>,
    slots: Slots<Slot>,
    queue: Rc<RequestQueue>,
    pool: Pool<Patches>,
    state: State,
    /// The state as it was last sent to a client, until it changes.
    shown: Option<Frame<Patches>>,
    version: Option<Frame<Patches>>,
    push_all_every: Duration,
    push_all_last: Option<Instant>,
    push_all_retry: Duration,
    version_last: Option<Instant>,
    version_retry: Duration,
    /// Incomplete answers to `get_version` since the printer's connection was made.
    incomplete: u32,
    /// AMS units that the printer has, as far as it reported them.
    units: Option<u32>,
    /// Whether the last state that came was larger than any frame: asking again does not help.
    too_large: bool,
    /// When a state that could not be stored is asked for again.
    again_at: Option<Instant>,
    hashes: RandomState,
    away_since: Option<Instant>,
    /// Whether the printer reported that live view of its camera is off.
    live_view_off: bool,
    /// Whether the printer reported that it accepts requests without a signature.
    developer_mode: Option<bool>,
    /// Strength of the printer's Wi-Fi signal, as it was reported last.
    signal: Option<i16>,
    /// Since when the printer has accepted the subscription without sending a report.
    mute_since: Option<Instant>,
    not_merged_log: RateLimit,
    no_frame_log: RateLimit,
    oversized_log: RateLimit,
}

const _: () = assert!(State::bytes(STATE_CHANGES) <= STATE, "the state is larger than its queue");

impl Hub {
    /// A hub without clients, whose printer is unreachable since `now`.
    pub fn new(
        topics: Rc<Topics>,
        slots: Slots<Slot>,
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
            push_all_retry: RETRY,
            version_last: None,
            version_retry: RETRY,
            incomplete: 0,
            units: None,
            too_large: false,
            again_at: None,
            live_view_off: false,
            developer_mode: None,
            signal: None,
            hashes: RandomState::new(),
            away_since: Some(now),
            mute_since: None,
            not_merged_log: RateLimit::default(),
            no_frame_log: RateLimit::default(),
            oversized_log: RateLimit::default(),
        }
    }

    /// Small and large frames in use.
    pub fn frames(&self) -> (usize, usize) {
        self.pool.in_use()
    }

    /// Clients that showed the right code.
    pub fn clients(&self) -> usize {
        self.slots.active()
    }

    /// A client has logged in. Whether it is accepted is stored in its slot.
    pub fn join(&mut self, slot: &Rc<Slot>, id: &str) {
        slot.occupancy().label().set(id);
        // A client without an identifier is not the same client as any other.
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
            // The state is known and cannot be sent now: it follows with the next report.
            None if !self.state.is_stale() => slot.miss(),
            None => {}
        }
    }

    /// A client has published something.
    ///
    /// # Errors
    ///
    /// The request cannot be delivered now; the client is disconnected.
    pub fn request(
        &mut self,
        now: Instant,
        slot: &Rc<Slot>,
        topic: &str,
        payload: &[u8],
        ack: Ack,
        duplicate: bool,
    ) -> Result<(), Error> {
        // A request to another serial number is meant for this printer: a slicer may have stored the number
        // of an earlier printer at this address, and does not notice.
        if self.topics.is_of_other(topic) {
            return Err(Error::OtherSerial);
        }
        if self.topics.leaf_of(topic) != Some(Leaf::Request) {
            if let (Some(peer), Some(times)) = (slot.peer(), slot.strays.check(now)) {
                let what = Message::Ignored { peer, topic, times };
                journal::note(Entry::RequestIgnored, format_args!("{what}"));
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
                // Forwarded, it would end the reports of all clients.
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

    /// A client asks for the full state: it is answered from the cache, and the printer is asked if the
    /// last time was long enough ago.
    fn push_all(&mut self, now: Instant, slot: &Rc<Slot>) {
        self.subscribed(now, slot);
        self.refresh(now);
    }

    /// A client asks for the versions: it is answered from the cache under its own `sequence_id`, or waits
    /// for the printer's answer, which goes to all clients. The printer is asked if the cache is old.
    fn get_version(&mut self, now: Instant, slot: &Rc<Slot>, sequence: Option<SequenceId>) {
        let known = self.version.clone();
        let every = if known.is_some() { VERSIONS_INTERVAL } else { FAST_PUSH_ALL };
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
        let tag = Patches::NONE.of(Content::Request);
        let payload = self.store(now, payload, &tag).ok_or(Error::NoRoom)?;
        let pending_ack = slot.owe(ack).ok_or(Error::NoRoom)?;
        if let Err(refused) = self.queue.put(Request { payload, pending_ack, mark }) {
            refused.0.pending_ack.withdraw();
            return Err(Error::NoRoom);
        }
        journal::tally(Entry::RequestForwarded);
        Ok(())
    }

    /// A client that resends has given up its older connections. A request that still arrives over one of
    /// them is the one that is resent, and must not be executed twice: those connections are closed.
    fn supersede(&self, slot: &Rc<Slot>) {
        let older = |other: &&Rc<Slot>| {
            other.owner() == slot.owner()
                && other.since() <= slot.since()
                && !Rc::ptr_eq(other, slot)
        };
        self.slots.iter().filter(older).for_each(|other| other.dismiss(Error::TakenOver));
    }

    /// A hash by which a request is recognised when its sender resends it over a new connection.
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

    /// The printer accepts requests.
    pub fn live(&mut self, now: Instant) {
        self.away_since = None;
        self.mute_since = Some(now);
        // The queue asks for state and versions itself.
        self.push_all_last = Some(now);
        self.version_last = Some(now);
        (self.push_all_retry, self.version_retry) = (RETRY, RETRY);
        (self.incomplete, self.units, self.too_large) = (0, None, false);
        let (serial, clients) = (&self.topics.serial, self.clients());
        let what = Message::Connected { serial, clients };
        journal::note(Entry::PrinterUp, format_args!("{what}"));
        for slot in self.slots.iter().filter(|slot| slot.is_waiting()) {
            slot.admit();
        }
    }

    /// The printer's connection is lost. The cached state and versions are dropped, since they may be out of
    /// date when the printer is back.
    pub fn lost(&mut self, now: Instant) {
        self.away_since.get_or_insert(now);
        self.mute_since = None;
        self.queue.lost();
        self.forget_state();
        self.version = None;
        self.push_all_last = None;
        self.again_at = None;
    }

    /// Whether the printer reported that live view of its camera is off.
    pub const fn says_live_view_off(&self) -> bool {
        self.live_view_off
    }

    /// Whether the printer reported that it accepts requests without a signature, and the strength of its Wi-Fi signal
    /// in dBm.
    pub const fn mode_and_signal(&self) -> (Option<bool>, Option<i16>) {
        (self.developer_mode, self.signal)
    }

    /// Handles a report of the printer's.
    pub fn report(&mut self, now: Instant, payload: &[u8]) {
        self.mute_since = None;
        counts::add("mqtt", Count::Received, 1);
        let seen = report::classify(payload);
        let kind = seen.kind;
        if payload.len() > self.pool.largest() {
            self.oversized(now, payload.len(), seen.patches.content());
            return;
        }
        self.units = seen.units.or(self.units);
        if let Some(is_on) = seen.live_view {
            self.live_view_off = !is_on;
        }
        self.developer_mode = seen.developer_mode.or(self.developer_mode);
        self.signal = seen.signal.or(self.signal);
        if kind == Kind::Delta {
            self.delta(now, payload);
        }
        let kept = matches!(kind, Kind::Full | Kind::Version);
        if !kept && !self.slots.iter().any(|slot| slot.reads()) {
            return;
        }
        let mut stored = self.store(now, payload, &seen.patches);
        if stored.is_none() && kind == Kind::Full {
            // The new state replaces the cached one, so that one's frame can be freed first.
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
                (self.push_all_retry, self.too_large) = (RETRY, false);
                self.shown = Some(report.clone());
            }
            Kind::Version => self.keep_version(&report, seen.modules),
            Kind::Delta | Kind::Ack | Kind::Other => {}
        }
        let slots = self.slots.clone();
        for slot in slots.iter().filter(|slot| slot.reads()) {
            let asked = if kind == Kind::Version { slot.take_asked_version() } else { None };
            if !asked.is_some_and(|sequence| slot.put_answer(report.clone(), sequence)) {
                self.deliver(now, slot, report.clone());
            }
        }
    }

    /// Merges a delta. If the state becomes stale by it, the printer is asked for it again.
    fn delta(&mut self, now: Instant, payload: &[u8]) {
        self.shown = None;
        self.free_for_state(now);
        let Err(error) = self.state.handle_delta(payload, &self.pool) else { return };
        let (entry, limit) = match error {
            state::Error::Json(_) | state::Error::NoPrint => {
                (Entry::ReportOdd, &self.not_merged_log)
            }
            state::Error::TooWide | state::Error::NoRoom => {
                self.again_at = Some(now + STORE_RETRY_INTERVAL);
                (Entry::NoFrame, &self.no_frame_log)
            }
        };
        self.log(now, limit, entry, |times| Message::NotMerged { error, times });
    }

    /// Keeps an answer to `get_version` for later questions, unless it is incomplete: a printer that has just
    /// started leaves out serial numbers, versions or AMS units.
    fn keep_version(&mut self, report: &Frame<Patches>, modules: Option<Modules>) {
        let units = self.units.unwrap_or(0);
        let complete = modules.is_some_and(|modules| modules.complete && modules.units >= units);
        if complete || self.incomplete >= MAX_INCOMPLETE {
            self.version = Some(report.clone());
            self.version_retry = RETRY;
        } else {
            self.version = None;
            self.incomplete += 1;
        }
    }

    /// Asks the printer for its full state, unless that was done too lately. While no current state is known,
    /// that is [`RETRY`] for every model.
    fn refresh(&mut self, now: Instant) {
        let known = (!self.state.is_stale() && self.queue.is_fresh(now)) || self.too_large;
        let every = if known { self.push_all_every } else { self.push_all_every.min(RETRY) };
        let due = self.push_all_last.is_none_or(|last| now.since(last) >= every);
        if self.queue.is_live() && due {
            self.push_all_last = Some(now);
            self.queue.ask_state();
        }
    }

    /// A report was larger than any frame. If it was a report of the state, the state is stale, since it may
    /// lack a change; an answer is skipped, and that is all.
    pub fn oversized(&mut self, now: Instant, bytes: usize, content: Content) {
        if content == Content::State {
            self.forget_state();
            self.too_large = true;
        }
        let oversized = |times| Message::Oversized { bytes, content, times };
        self.log(now, &self.oversized_log, Entry::ReportTooLong, oversized);
    }

    /// Checks what depends on time alone; to be called about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.away_since.is_some_and(|since| now.since(since) >= AWAY_TIMEOUT) {
            for slot in self.slots.iter().filter(|slot| slot.is_admitted()) {
                slot.dismiss(Error::PrinterAway);
            }
        }
        if self.queue.is_live() {
            self.ask_again(now);
        }
        if self.mute_since.take_if(|since| now.since(*since) >= MUTE_TIMEOUT).is_some() {
            let what = Message::NoReports { serial: &self.topics.serial };
            journal::note(Entry::PrinterMute, format_args!("{what}"));
        }
    }

    /// Asks the printer again for what did not come: it may have ignored the first question, or have had no
    /// answer yet.
    fn ask_again(&mut self, now: Instant) {
        let retry = if self.too_large { SLOW_PUSH_ALL } else { self.push_all_retry };
        let due = match self.again_at.take_if(|at| *at <= now) {
            Some(_) => true,
            None => {
                self.again_at.is_none()
                    && self.push_all_last.is_some_and(|last| now.since(last) >= retry)
            }
        };
        if due && self.state.is_stale() {
            self.push_all_last = Some(now);
            self.push_all_retry = (self.push_all_retry * 2).min(MAX_RETRY);
            self.queue.ask_state();
        }
        let due = self.version_last.is_some_and(|last| now.since(last) >= self.version_retry);
        if due && self.version.is_none() {
            self.version_last = Some(now);
            self.version_retry = (self.version_retry * 2).min(MAX_RETRY);
            self.queue.ask_version();
        }
    }

    /// Disconnects all clients, since the program ends.
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
            self.free_for_state(now);
            self.shown = self.state.snapshot(&self.pool);
        }
        self.shown.clone()
    }

    /// Queues a report for a client. A client that is too far behind loses reports of the state and gets
    /// the full state instead. It is disconnected when an answer does not fit even then.
    fn deliver(&mut self, now: Instant, slot: &Rc<Slot>, report: Frame<Patches>) {
        if !slot.reads() {
            return;
        }
        if report.tag().content() == Content::Answer {
            if slot.has_missed() && slot.has_room_for(2) {
                // The state that could not be sent before goes before the answer, which is newer.
                self.catch_up(now, slot);
            }
            if !slot.put(report.clone()) {
                self.lag(now, slot);
                // The answer is newer than the state, so the state goes before it where both fit.
                if slot.has_room_for(2) {
                    self.catch_up(now, slot);
                }
                let fits =
                    slot.put(report.clone()) || (slot.drop_requests(now) && slot.put(report));
                if !fits {
                    disconnect_behind(slot);
                    return;
                }
            }
            if slot.has_missed() {
                self.catch_up(now, slot);
            }
            return;
        }
        if slot.has_missed() && !self.catch_up(now, slot) {
            return;
        }
        if !slot.put(report.clone()) {
            self.lag(now, slot);
            slot.miss();
            if self.catch_up(now, slot)
                && !self.shown.as_ref().is_some_and(|shown| shown.is(&report))
            {
                let _fits = slot.put(report);
            }
        }
    }

    fn lag(&self, now: Instant, slot: &Slot) {
        let dropped = slot.drop_states();
        if let (Some(peer), Some(_)) = (slot.peer(), slot.lags.check(now)) {
            let what = Message::Lagged { peer, dropped };
            journal::note(Entry::Lagged, format_args!("{what}"));
        } else {
            journal::tally(Entry::Lagged);
        }
    }

    /// Queues the full state for a client that missed reports, and returns whether it was queued.
    fn catch_up(&mut self, now: Instant, slot: &Rc<Slot>) -> bool {
        let Some(report) = self.snapshot(now) else {
            // No state is known: the reports from now on are better than nothing.
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

    /// Stores a payload. If no frame is free, the client that is furthest behind loses its reports of the
    /// state; if there are none, the one with most requests of others loses these; if there are none
    /// either, the client with most answers is disconnected.
    fn store(&mut self, now: Instant, payload: &[u8], patches: &Patches) -> Option<Frame<Patches>> {
        loop {
            if let Some(frame) = self.pool.store_tagged(&[payload], patches.clone()) {
                return Some(frame);
            }
            if payload.len() > self.pool.largest() {
                return None;
            }
            let furthest = self.slots.iter().max_by_key(|slot| slot.states())?;
            if furthest.states() > 0 {
                self.lag(now, furthest);
                continue;
            }
            if self.drop_requests(now) {
                continue;
            }
            // Only answers are left, and they are not dropped as long as their client is connected.
            let furthest = self.slots.iter().max_by_key(|slot| slot.backlog())?;
            if furthest.backlog() == 0 {
                return None;
            }
            disconnect_behind(furthest);
        }
    }

    /// Drops the requests of others that wait for the client with most of them. False if none wait.
    fn drop_requests(&self, now: Instant) -> bool {
        let furthest = self.slots.iter().max_by_key(|slot| slot.requests());
        furthest.is_some_and(|slot| slot.drop_requests(now))
    }

    /// Frees a large frame for the state, if requests that wait for slow clients occupy the last one.
    fn free_for_state(&self, now: Instant) {
        while self.pool.in_use().1 >= BOARD.mqtt.large.count && self.drop_requests(now) {}
    }

    /// Counts an event, and logs it unless it was logged lately.
    fn log<'m>(
        &self,
        now: Instant,
        limit: &RateLimit,
        entry: Entry,
        message: impl FnOnce(u32) -> Message<'m>,
    ) {
        match limit.check(now) {
            Some(times) => journal::note(entry, format_args!("{}", message(times))),
            None => journal::tally(entry),
        }
    }

    /// The state is stale until the next full report.
    fn forget_state(&mut self) {
        self.state.mark_stale();
        self.shown = None;
    }

    fn cannot_store(&mut self, now: Instant, kind: Kind, bytes: usize) {
        self.log(now, &self.no_frame_log, Entry::NoFrame, |times| Message::NoFrame {
            bytes,
            times,
        });
        if kind == Kind::Full {
            // Not at once: the answer would find no free frame either.
            self.again_at = Some(now + STORE_RETRY_INTERVAL);
        }
        for slot in self.slots.iter().filter(|slot| slot.reads()) {
            counts::add("mqtt", Count::Dropped, 1);
            match kind {
                Kind::Full | Kind::Delta => {
                    slot.drop_states();
                    slot.miss();
                }
                // Clients that take nothing hold the frames, and are closed for it within five seconds. The
                // clients that read are not closed for them: the answer is lost to all, and the log has it.
                Kind::Ack | Kind::Version | Kind::Other => slot.miss(),
            }
        }
    }
}

/// Disconnects a client that would lose an answer otherwise, and frees what it still had to get.
fn disconnect_behind(slot: &Slot) {
    slot.dismiss(Error::AnswersLost);
    slot.drop_all();
}
