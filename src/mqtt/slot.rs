//! A client's slot: shared by the hub and one client's session.
//!
//! The hub adds reports, answers and acknowledgements; the session takes them as fast as its client reads. Slots are
//! allocated at the start, one for each worker, and used by one client after another. The generation, a counter,
//! tells a slot's clients apart.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::address::{Content, Patches, SequenceId};
use super::disconnect::Error;
use super::log::Message;
use super::wire::PacketId;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::counts::{self, Count};
use crate::journal::{self, Kind as Entry, RateLimit};
use crate::memory::budget::SLOT;
use crate::memory::pool::Frame;
use crate::memory::ring::Ring;
use crate::memory::slots::{self, Occupancy};
use crate::peer::Peer;

/// Most requests of one client that are accepted and not yet acknowledged. A client with as many is not read, which
/// becomes TCP back-pressure.
///
/// Clients commonly keep up to 20 in flight (paho's default window).
pub const MAX_DEBTS: usize = 24;

/// Most answers with a client's own `sequence_id` that wait to be sent.
const ANSWERS: usize = 2;

/// Most requests of other clients that wait for a client which subscribed to them. The other half of its ring
/// remains for reports, so that no client can crowd out another's answers.
pub const REQUESTS: usize = BOARD.mqtt.ring / 2;
const _: () = assert!(
    REQUESTS >= BOARD.mqtt.requests,
    "a client that reads at once loses requests: the queue is emptied in one turn"
);

/// A report, an answer, or the request of another client, to be sent to a client.
#[derive(Clone, Debug)]
pub struct Item {
    /// The payload as the printer or the other client sent it, stored once for all clients. Its tag has the positions of addresses and
    /// sequence numbers that are replaced for each client.
    pub report: Frame<Patches>,
    /// The client's own `sequence_id`, if this answers a request of this client.
    pub sequence: Option<SequenceId>,
}

/// The acknowledgement that a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// QoS 0: none.
    None,
    /// QoS 1: PUBACK.
    PubAck(PacketId),
    /// QoS 2: PUBREC.
    PubRec(PacketId),
}

/// State of a client's slot.
pub type SlotState = slots::SlotState<Error>;

/// One client's slot.
pub struct Slot {
    occupancy: Occupancy<Error>,
    /// Whether the client was accepted: it has shown the access code, and the printer was connected after that.
    is_admitted: Cell<bool>,
    generation: Cell<u32>,
    peer: Cell<Option<Peer>>,
    since: Cell<Instant>,
    /// A hash of the client identifier: a new connection with the same one may take over the slot.
    owner: Cell<u64>,
    /// The `sequence_id` of the client's `get_version`, while it waits for the printer's versions.
    asked_version: RefCell<Option<SequenceId>>,
    /// Whether the client subscribed to the reports.
    reads: Cell<bool>,
    /// Whether the client subscribed to the requests of others.
    listens: Cell<bool>,
    ring: RefCell<Ring<Frame<Patches>, { BOARD.mqtt.ring }>>,
    answers: RefCell<Ring<(Frame<Patches>, SequenceId), ANSWERS>>,
    /// Whether the client lost reports, and was not sent a full state since.
    missed: Cell<bool>,
    dropped: Cell<u32>,
    /// Requests of others that the client did not get.
    dropped_requests: Cell<u32>,
    /// Rate limit of the log lines about them.
    request_lags: RateLimit,
    /// Rate limit of the log lines about lost reports.
    pub(super) lags: RateLimit,
    /// Rate limit of the log lines about messages to unknown topics.
    pub(super) strays: RateLimit,
    acks: RefCell<Ring<Ack, MAX_DEBTS>>,
    /// Requests that were accepted and not yet sent to the printer. Invariant: `debts + acks.len() <= MAX_DEBTS`.
    debts: Cell<usize>,
}

const _: () = slots::assert_fits::<Slot>(SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            occupancy: Occupancy::new(),
            is_admitted: Cell::new(false),
            generation: Cell::new(0),
            peer: Cell::new(None),
            since: Cell::new(Instant::START),
            asked_version: RefCell::new(None),
            owner: Cell::new(0),
            reads: Cell::new(false),
            listens: Cell::new(false),
            ring: RefCell::new(Ring::new()),
            answers: RefCell::new(Ring::new()),
            missed: Cell::new(false),
            dropped: Cell::new(0),
            dropped_requests: Cell::new(0),
            request_lags: RateLimit::default(),
            lags: RateLimit::default(),
            strays: RateLimit::default(),
            acks: RefCell::new(Ring::new()),
            debts: Cell::new(0),
        })
    }

    /// Gives the slot to the client `peer`, connected at `now`.
    pub fn set_client(&self, now: Instant, peer: Peer) {
        self.peer.set(Some(peer));
        self.since.set(now);
    }

    /// Whether the slot's client was accepted.
    pub const fn is_admitted(&self) -> bool {
        self.occupancy.is_active() && self.is_admitted.get()
    }

    /// Whether the slot's client has shown the access code and waits for the printer to be connected.
    pub const fn is_waiting(&self) -> bool {
        self.occupancy.is_active() && !self.is_admitted.get()
    }

    /// Whether the slot's client has shown the access code: it was accepted, or waits for the printer.
    pub fn is_taken(&self) -> bool {
        self.occupancy.is_active()
    }

    /// Whether the slot's client has to be disconnected.
    pub(super) fn is_dismissed(&self) -> bool {
        matches!(self.occupancy.state(), SlotState::Dismissed(_))
    }

    /// Records that the client `owner` has shown the access code and waits for the printer.
    pub(super) fn wait(&self, owner: u64) {
        self.owner.set(owner);
        self.occupancy.activate();
    }

    /// Accepts the client.
    pub(super) fn admit(&self) {
        self.is_admitted.set(true);
        self.occupancy.notify();
    }

    /// Has the client disconnected, if it has shown the access code. The first of several reasons counts.
    pub(super) fn dismiss(&self, why: Error) {
        if self.is_taken() {
            self.occupancy.dismiss(why);
        }
    }

    /// The slot's client, for the log.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.get()
    }

    /// Records that the client waits for the printer's versions, to be answered with `sequence`.
    pub(super) fn ask_version(&self, sequence: SequenceId) {
        self.asked_version.replace(Some(sequence));
    }

    /// Takes the `sequence_id` with which the client waits for the printer's versions, if it does.
    pub(super) fn take_asked_version(&self) -> Option<SequenceId> {
        self.asked_version.take()
    }

    /// When the slot's client connected.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// The hash of the client identifier that was given to [`wait`](Self::wait).
    pub(super) fn owner(&self) -> u64 {
        self.owner.get()
    }

    /// Whether the slot's client is sent the reports.
    pub fn reads(&self) -> bool {
        self.reads.get() && self.is_admitted()
    }

    /// Sets whether the client's subscriptions include the reports.
    pub(super) fn set_reads(&self, reads: bool) {
        self.reads.set(reads);
        if !reads {
            self.remove(|content| content != Content::Request);
            self.missed.set(false);
        }
    }

    /// Whether the slot's client is sent the requests of others.
    pub fn listens(&self) -> bool {
        self.listens.get() && self.is_admitted()
    }

    /// Sets whether the client's subscriptions include the requests of others.
    pub(super) fn set_listens(&self, listens: bool) {
        self.listens.set(listens);
        if !listens {
            self.remove(|content| content == Content::Request);
        }
    }

    /// Removes the messages of some content from the ring, and returns how many there were.
    fn remove(&self, is_removed: impl Fn(Content) -> bool) -> u32 {
        let mut removed = 0;
        self.ring.borrow_mut().retain(|message| {
            let is_removed = is_removed(message.tag().content());
            removed += u32::from(is_removed);
            (!is_removed).then_some(message)
        });
        removed
    }

    /// The number of messages of this content in the ring.
    fn count(&self, content: Content) -> usize {
        self.ring.borrow().iter().filter(|message| message.tag().content() == content).count()
    }

    /// Adds a report at the end of the ring. False if the ring is full.
    pub(super) fn put(&self, report: Frame<Patches>) -> bool {
        let fits = self.ring.borrow_mut().push(report).is_ok();
        if fits {
            self.occupancy.notify();
        }
        fits
    }

    /// Adds an answer with the client's own `sequence_id`. False if there are [`ANSWERS`] already.
    pub(super) fn put_answer(&self, report: Frame<Patches>, sequence: SequenceId) -> bool {
        let fits = self.answers.borrow_mut().push((report, sequence)).is_ok();
        if fits {
            self.occupancy.notify();
        }
        fits
    }

    /// Takes the next item to be sent: answers first, then the oldest report.
    pub(super) fn take(&self) -> Option<Item> {
        if let Some((report, sequence)) = self.answers.borrow_mut().pop() {
            return Some(Item { report, sequence: Some(sequence) });
        }
        let report = self.ring.borrow_mut().pop()?;
        Some(Item { report, sequence: None })
    }

    /// Drops all waiting reports of the printer's state; answers stay. Returns
    /// how many reports the client lost since it last kept up.
    pub(super) fn drop_states(&self) -> u32 {
        let dropped = self.remove(|content| content == Content::State);
        self.dropped.set(self.dropped.get().saturating_add(dropped));
        counts::add("mqtt", Count::Dropped, dropped.into());
        if dropped > 0 {
            self.missed.set(true);
        }
        self.dropped.get()
    }

    /// Drops all reports and answers that wait: the client is about to be disconnected.
    pub(super) fn drop_all(&self) {
        self.ring.borrow_mut().clear();
        self.answers.borrow_mut().clear();
    }

    /// The number of reports that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.ring.borrow().len()
    }

    /// Whether `reports` more fit into the ring.
    pub(super) fn has_room_for(&self, reports: usize) -> bool {
        self.backlog() + reports <= BOARD.mqtt.ring
    }

    /// The number of waiting reports that are of the printer's state.
    pub(super) fn states(&self) -> usize {
        self.count(Content::State)
    }

    /// The number of waiting requests of other clients.
    pub(super) fn requests(&self) -> usize {
        self.count(Content::Request)
    }

    /// Adds the request of another client at the end of the ring. It is dropped if [`REQUESTS`] wait already or
    /// the ring is full.
    pub(super) fn put_request(&self, now: Instant, request: Frame<Patches>) {
        if self.requests() >= REQUESTS || !self.put(request) {
            self.note_dropped_requests(now, 1);
        }
    }

    /// Drops all waiting requests of other clients, and returns whether there were any.
    pub(super) fn drop_requests(&self, now: Instant) -> bool {
        let dropped = self.remove(|content| content == Content::Request);
        if dropped > 0 {
            self.note_dropped_requests(now, dropped);
        }
        dropped > 0
    }

    /// Counts requests of others that the client does not get, and logs their number.
    fn note_dropped_requests(&self, now: Instant, more: u32) {
        let dropped = self.dropped_requests.get().saturating_add(more);
        self.dropped_requests.set(dropped);
        if let (Some(peer), Some(_)) = (self.peer(), self.request_lags.check(now)) {
            let what = Message::RequestsDropped { peer, dropped };
            journal::note(Entry::Lagged, format_args!("{what}"));
        } else {
            journal::tally(Entry::Lagged);
        }
    }

    /// How many reports the client did not get because it reads too slowly.
    pub fn dropped_reports(&self) -> u32 {
        self.dropped.get()
    }

    /// How many requests of others the client did not get because it reads too slowly.
    pub fn dropped_requests(&self) -> u32 {
        self.dropped_requests.get()
    }

    /// Whether the client lost reports, and was not sent a full state since.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.get()
    }

    /// Records that the client has to be sent the full state, which is not available now.
    pub(super) fn miss(&self) {
        if self.reads() {
            self.missed.set(true);
        }
    }

    /// Records that a full state was added for the client.
    pub(super) fn caught_up(&self) {
        self.missed.set(false);
    }

    /// Accepts a request, to be acknowledged with `ack`. `None` if [`MAX_DEBTS`] requests are not acknowledged yet.
    pub(super) fn owe(self: &Rc<Self>, ack: Ack) -> Option<PendingAck> {
        if !self.has_credit() {
            return None;
        }
        self.debts.set(self.debts.get() + 1);
        Some(PendingAck {
            slot: Rc::clone(self),
            generation: self.generation.get(),
            ack,
            fate: Fate::Queued,
        })
    }

    /// Whether fewer than [`MAX_DEBTS`] requests are not acknowledged yet.
    pub fn has_credit(&self) -> bool {
        self.debts.get() + self.acks.borrow().len() < MAX_DEBTS
    }

    /// Adds an acknowledgement to be sent.
    pub(super) fn acknowledge(&self, ack: Ack) {
        if ack != Ack::None {
            // Cannot fail: `has_credit` was checked before the request was read.
            let _fits = self.acks.borrow_mut().push(ack);
            self.occupancy.notify();
        }
    }

    /// Takes the next acknowledgement to be sent.
    pub(super) fn take_ack(&self) -> Option<Ack> {
        let ack = self.acks.borrow_mut().pop();
        if ack.is_some() {
            self.occupancy.notify();
        }
        ack
    }
}

impl slots::Slot for Slot {
    type Reason = Error;

    fn occupancy(&self) -> &Occupancy<Error> {
        &self.occupancy
    }

    fn clear(&self) {
        self.is_admitted.set(false);
        self.generation.set(self.generation.get().wrapping_add(1));
        self.peer.set(None);
        self.owner.set(0);
        self.asked_version.take();
        self.reads.set(false);
        self.listens.set(false);
        self.ring.borrow_mut().clear();
        self.answers.borrow_mut().clear();
        self.missed.set(false);
        self.dropped.set(0);
        self.dropped_requests.set(0);
        self.request_lags.forget();
        self.lags.forget();
        self.strays.forget();
        self.acks.borrow_mut().clear();
        self.debts.set(0);
    }
}

#[cfg(test)]
pub(super) fn taken_by(slot: &Slot, peer: Peer) {
    slots::Slot::vacate(slot);
    slot.occupancy.take();
    slot.set_client(Instant::START, peer);
}

/// State of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// In the queue, or being sent.
    Queued,
    /// Sent to the printer and acknowledged to the client; the printer has not acknowledged it yet.
    Sent,
    /// Acknowledged by the printer, or withdrawn.
    Settled,
}

/// A client's request that is not settled yet.
///
/// Dropping the value before that disconnects the client, so that it knows that the request may be lost.
pub struct PendingAck {
    slot: Rc<Slot>,
    generation: u32,
    ack: Ack,
    fate: Fate,
}

impl PendingAck {
    /// Acknowledges the request to the client: all of it was written to the printer's connection.
    pub(super) fn sent(&mut self) {
        if self.fate == Fate::Queued {
            self.fate = Fate::Sent;
            if let Some(slot) = self.slot() {
                slot.debts.set(slot.debts.get().saturating_sub(1));
                slot.acknowledge(self.ack);
                // The client may be read again, even if no acknowledgement is sent.
                slot.occupancy.notify();
            }
        }
    }

    /// Ends the wait: the printer has acknowledged the request, or does not acknowledge it.
    pub(super) fn settle(mut self) {
        self.sent();
        self.fate = Fate::Settled;
    }

    /// Ends the wait without an acknowledgement: the request was not queued.
    pub(super) fn withdraw(mut self) {
        if let Some(slot) = self.slot() {
            slot.debts.set(slot.debts.get().saturating_sub(1));
        }
        self.fate = Fate::Settled;
    }

    /// Whether the request came from a client that had this slot.
    pub(super) fn has_slot(&self, slot: &Rc<Slot>) -> bool {
        Rc::ptr_eq(&self.slot, slot)
    }

    /// Whether the request came over the connection that has `slot` now.
    pub(super) fn is_of(&self, slot: &Rc<Slot>) -> bool {
        Rc::ptr_eq(&self.slot, slot) && self.slot().is_some()
    }

    /// The slot, if the same client still has it.
    fn slot(&self) -> Option<&Slot> {
        (self.slot.generation.get() == self.generation).then_some(&*self.slot)
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        if self.fate != Fate::Settled
            && let Some(slot) = self.slot()
        {
            slot.dismiss(Error::RequestLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};
    use crate::memory::slots::Slot as _;
    use crate::notify::tests::wakes;

    fn occupied() -> Rc<Slot> {
        let slot = Slot::new();
        taken_by(&slot, Peer::unknown());
        slot.wait(1);
        slot.admit();
        slot
    }

    fn ack(id: u16) -> Ack {
        Ack::PubAck(PacketId::new(id).unwrap())
    }

    #[test]
    fn a_request_is_acknowledged_when_it_is_sent_and_not_before() {
        let slot = occupied();
        let mut pending_ack = slot.owe(ack(7)).unwrap();
        assert_eq!(slot.take_ack(), None);
        pending_ack.sent();
        assert_eq!(slot.take_ack(), Some(ack(7)));
        pending_ack.settle();
        assert!(slot.is_admitted());
    }

    #[test]
    fn whatever_is_there_for_a_client_wakes_its_session() {
        let slot = Slot::new();
        taken_by(&slot, Peer::unknown());
        slot.wait(1);
        let pool = Pool::new(Shape { count: 4, size: 8 }, Shape { count: 1, size: 16 });
        let report = || pool.store(&[b"{}"]).unwrap();
        let mut silent = slot.owe(Ack::None).unwrap();
        assert!(!wakes(|| slot.notified(), || {}));
        assert!(wakes(|| slot.notified(), || slot.admit()));
        assert!(wakes(|| slot.notified(), || assert!(slot.put(report()))));
        let sequence = SequenceId::new(b"1").unwrap();
        assert!(wakes(|| slot.notified(), || assert!(slot.put_answer(report(), sequence))));
        assert!(wakes(|| slot.notified(), || slot.acknowledge(ack(7))));
        let taken = || assert_eq!(slot.take_ack(), Some(ack(7)));
        assert!(wakes(|| slot.notified(), taken), "there is room for a request");
        assert!(!wakes(|| slot.notified(), || assert_eq!(slot.take_ack(), None)));
        assert!(wakes(|| slot.notified(), || silent.sent()), "it may be read again");
        assert!(wakes(|| slot.notified(), || slot.dismiss(Error::PrinterAway)));
    }

    #[test]
    fn a_lost_request_disconnects_its_client() {
        let slot = occupied();
        drop(slot.owe(ack(7)).unwrap());
        assert_eq!(slot.take_ack(), None);
        assert_eq!(slot.occupancy.state(), SlotState::Dismissed(Error::RequestLost));
    }

    #[test]
    fn a_lost_request_does_not_affect_the_slots_next_client() {
        let slot = occupied();
        let pending_ack = slot.owe(ack(7)).unwrap();
        taken_by(&slot, Peer::unknown());
        slot.wait(2);
        slot.admit();
        drop(pending_ack);
        assert!(slot.is_admitted());
    }

    #[test]
    fn unacknowledged_requests_are_bounded() {
        let slot = occupied();
        let mut pending_acks: alloc::vec::Vec<PendingAck> =
            (1..=MAX_DEBTS).map(|id| slot.owe(ack(id as u16)).unwrap()).collect();
        assert!(slot.owe(ack(99)).is_none());
        for pending_ack in &mut pending_acks {
            pending_ack.sent();
        }
        assert!(slot.owe(ack(99)).is_none(), "acknowledgements not yet taken count too");
        assert!(slot.take_ack().is_some());
        assert!(slot.owe(ack(99)).is_some());
    }

    /// A pool, and a message of this content in it.
    fn message(content: Content) -> Frame<Patches> {
        let shape = Shape { count: 4, size: 16 };
        let pool = Pool::<Patches>::new(shape, shape);
        pool.store_tagged(&[b"{}"], Patches::NONE.of(content)).unwrap()
    }

    #[test]
    fn requests_of_others_take_half_of_the_ring_and_go_first() {
        let slot = occupied();
        let request = message(Content::Request);
        for _ in 0..2 * BOARD.mqtt.ring {
            slot.put_request(Instant::START, request.clone());
        }
        assert_eq!((slot.requests(), slot.backlog()), (REQUESTS, REQUESTS));
        assert_eq!(slot.dropped_requests(), (2 * BOARD.mqtt.ring - REQUESTS) as u32);
        let answer = message(Content::Answer);
        let fitting = (0..BOARD.mqtt.ring).take_while(|_| slot.put(answer.clone())).count();
        assert_eq!(fitting, BOARD.mqtt.ring - REQUESTS);
        assert_eq!(slot.drop_states(), 0);
        assert_eq!(counts::get("mqtt", Count::Dropped), 0, "no report");
        assert!(slot.drop_requests(Instant::START));
        assert!(!slot.drop_requests(Instant::START), "there are no more");
        assert_eq!(slot.dropped_requests(), 2 * BOARD.mqtt.ring as u32);
        assert!(slot.put(answer));
    }

    #[test]
    fn unsubscribing_removes_what_was_subscribed_to() {
        let slot = occupied();
        let fill = || {
            slot.set_reads(true);
            slot.set_listens(true);
            for content in [Content::State, Content::Answer, Content::Request] {
                assert!(slot.put(message(content)));
            }
        };
        fill();
        slot.drop_states();
        assert_eq!(counts::get("mqtt", Count::Dropped), 1);
        assert!(slot.put(message(Content::State)));
        slot.set_listens(false);
        assert_eq!((slot.requests(), slot.backlog(), slot.listens()), (0, 2, false));
        slot.set_reads(false);
        assert_eq!(slot.backlog(), 0);
        fill();
        slot.set_reads(false);
        assert_eq!((slot.requests(), slot.backlog(), slot.listens()), (1, 1, true));
        slots::Slot::clear(&*slot);
        assert!(!slot.listens() && slot.backlog() == 0);
    }
}
