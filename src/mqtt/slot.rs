//! A client's slot: what the hub and one client's session have between them.
//!
//! The hub puts reports and verdicts in, the session takes them out at its own pace. Seats are made
//! at the start, one for each task that can serve a client, and taken by one client after another;
//! the generation tells them apart.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::address::{Content, Patches, SequenceId};
use super::disconnect::Error;
use super::wire::PacketId;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::RateLimit;
use crate::memory::budget::SLOT;
use crate::memory::pool::Frame;
use crate::memory::ring::Ring;
use crate::memory::slots::{self, Occupancy, RC_COUNTS};
use crate::peer::Peer;

/// Requests of one client that are accepted and not yet acknowledged. At the bound the client is
/// not read further, which is the back-pressure TCP gives it.
///
/// Clients commonly keep up to 20 in flight (paho's default window).
pub const DEBTS: usize = 24;

/// Answers under a client's own `sequence_id` that it still has to get.
const ANSWERS: usize = 2;

/// Something a client still has to get.
#[derive(Clone, Debug)]
pub struct Item {
    /// The payload, byte for byte as the printer sent it, stored once for all; its tag says where it
    /// names an address or a sequence number that readers get replaced.
    pub report: Frame<Patches>,
    /// The caller's own `sequence_id`, when this answers a request of this client alone.
    pub sequence: Option<SequenceId>,
}

/// An acknowledgement a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// QoS 0: it does not wait.
    None,
    /// QoS 1.
    PubAck(PacketId),
    /// QoS 2, the first half.
    PubRec(PacketId),
}

/// State of a client's slot.
pub type SlotState = slots::SlotState<Error>;

/// One slot.
pub struct Slot {
    occupancy: Occupancy<Error>,
    /// Whether the printer has been connected since the client showed the code, so that it can be accepted.
    is_admitted: Cell<bool>,
    generation: Cell<u32>,
    peer: Cell<Option<Peer>>,
    since: Cell<Instant>,
    /// A hash of the client identifier: who may take over a slot that nobody uses any more.
    owner: Cell<u64>,
    /// The `sequence_id` under which it waits for the printer's versions.
    asked_version: RefCell<Option<SequenceId>>,
    /// Whether it subscribed to the reports.
    reads: Cell<bool>,
    ring: RefCell<Ring<Frame<Patches>, { BOARD.mqtt.ring }>>,
    answers: RefCell<Ring<(Frame<Patches>, SequenceId), ANSWERS>>,
    /// Whether it lost reports and the full state did not fit then either.
    missed: Cell<bool>,
    dropped: Cell<u32>,
    /// Its lags, and its messages to topics that are nobody's.
    pub(super) lags: RateLimit,
    pub(super) strays: RateLimit,
    acks: RefCell<Ring<Ack, DEBTS>>,
    /// Requests accepted whose fate is not known yet. Invariant: `debts + acks.len() <= DEBTS`.
    debts: Cell<usize>,
}

const _: () =
    assert!(size_of::<Slot>() + RC_COUNTS <= SLOT, "a slot is larger than its line in the budget");

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
            ring: RefCell::new(Ring::new()),
            answers: RefCell::new(Ring::new()),
            missed: Cell::new(false),
            dropped: Cell::new(0),
            lags: RateLimit::default(),
            strays: RateLimit::default(),
            acks: RefCell::new(Ring::new()),
            debts: Cell::new(0),
        })
    }

    /// A client takes the slot, at `now`.
    pub fn set_client(&self, now: Instant, peer: Peer) {
        self.peer.set(Some(peer));
        self.since.set(now);
    }

    /// The slot's state.
    pub const fn state(&self) -> SlotState {
        self.occupancy.state()
    }

    /// Whether its client is accepted.
    pub const fn is_admitted(&self) -> bool {
        self.occupancy.is_active() && self.is_admitted.get()
    }

    /// Whether its client has shown the code and waits for the printer to be connected.
    pub const fn is_waiting(&self) -> bool {
        self.occupancy.is_active() && !self.is_admitted.get()
    }

    /// Whether it counts as a client: occupied, or waiting for the printer.
    pub fn is_taken(&self) -> bool {
        self.occupancy.is_active()
    }

    /// Whether somebody sits here who has to go.
    pub(super) fn is_dismissed(&self) -> bool {
        matches!(self.state(), SlotState::Dismissed(_))
    }

    /// The code was right.
    pub(super) fn wait(&self, owner: u64) {
        self.owner.set(owner);
        self.occupancy.activate();
    }

    /// The client is in.
    pub(super) fn admit(&self) {
        self.is_admitted.set(true);
        self.occupancy.notify();
    }

    /// The client has to go.
    pub(super) fn dismiss(&self, why: Error) {
        if self.is_taken() {
            self.occupancy.dismiss(why);
        }
    }

    /// Who sits here.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.get()
    }

    /// It waits for the printer's versions.
    pub(super) fn ask_version(&self, sequence: SequenceId) {
        self.asked_version.replace(Some(sequence));
    }

    /// The `sequence_id` under which it waits for the printer's versions, if it does.
    pub(super) fn take_asked_version(&self) -> Option<SequenceId> {
        self.asked_version.take()
    }

    /// When its client came.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// Whose it is, as given to [`wait`](Self::wait).
    pub(super) fn owner(&self) -> u64 {
        self.owner.get()
    }

    /// Whether its client gets the reports.
    pub fn reads(&self) -> bool {
        self.reads.get() && self.is_admitted()
    }

    /// Says whether the client's subscriptions cover the reports.
    pub(super) fn set_reads(&self, reads: bool) {
        self.reads.set(reads);
        if !reads {
            self.ring.borrow_mut().clear();
            self.missed.set(false);
        }
    }

    /// Adds a report behind the others. Whether it fits: a client at the bound is as far behind as it
    /// may be.
    pub(super) fn put(&self, report: Frame<Patches>) -> bool {
        let fits = self.ring.borrow_mut().push(report).is_ok();
        if fits {
            self.occupancy.notify();
        }
        fits
    }

    /// Adds an answer under the client's own `sequence_id`. Whether it fits.
    pub(super) fn put_answer(&self, report: Frame<Patches>, sequence: SequenceId) -> bool {
        let fits = self.answers.borrow_mut().push((report, sequence)).is_ok();
        if fits {
            self.occupancy.notify();
        }
        fits
    }

    /// Takes what the client is to get next: answers, then the oldest report.
    pub(super) fn take(&self) -> Option<Item> {
        if let Some((report, sequence)) = self.answers.borrow_mut().pop() {
            return Some(Item { report, sequence: Some(sequence) });
        }
        let report = self.ring.borrow_mut().pop()?;
        Some(Item { report, sequence: None })
    }

    /// Drops all reports of the printer's state that the client still has to get; answers stay. Returns
    /// how many reports the client lost since it last kept up.
    pub(super) fn drop_states(&self) -> u32 {
        let mut ring = self.ring.borrow_mut();
        let mut dropped = 0;
        ring.retain(|report| {
            let is_state = report.tag().content() == Content::State;
            dropped += u32::from(is_state);
            (!is_state).then_some(report)
        });
        self.dropped.set(self.dropped.get().saturating_add(dropped));
        if dropped > 0 {
            self.missed.set(true);
        }
        self.dropped.get()
    }

    /// Drops everything that the client still has to get: it is about to be disconnected.
    pub(super) fn drop_all(&self) {
        self.ring.borrow_mut().clear();
        self.answers.borrow_mut().clear();
    }

    /// How many reports the client still has to get.
    pub fn backlog(&self) -> usize {
        self.ring.borrow().len()
    }

    /// Whether so many more reports fit.
    pub(super) fn has_room_for(&self, reports: usize) -> bool {
        self.backlog() + reports <= BOARD.mqtt.ring
    }

    /// How many of them are reports of the printer's state.
    pub(super) fn states(&self) -> usize {
        let is_state = |report: &&Frame<Patches>| report.tag().content() == Content::State;
        self.ring.borrow().iter().filter(is_state).count()
    }

    /// Whether reports were lost that no full state has made good yet.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.get()
    }

    /// It waits for the full state, which cannot be had at the moment.
    pub(super) fn miss(&self) {
        if self.reads() {
            self.missed.set(true);
        }
    }

    /// A full state is on its way: nothing is missed any more.
    pub(super) fn caught_up(&self) {
        self.missed.set(false);
    }

    /// Takes on a request whose fate is to be told. `None` at the bound.
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

    /// Whether one more request may be accepted.
    pub fn has_credit(&self) -> bool {
        self.debts.get() + self.acks.borrow().len() < DEBTS
    }

    /// Acknowledges something that went no further than here.
    pub(super) fn acknowledge(&self, ack: Ack) {
        if ack != Ack::None {
            // It fits: `has_credit` was asked before the request was read.
            let _fits = self.acks.borrow_mut().push(ack);
            self.occupancy.notify();
        }
    }

    /// Takes the next acknowledgement the client is to get.
    pub(super) fn take_ack(&self) -> Option<Ack> {
        let ack = self.acks.borrow_mut().pop();
        if ack.is_some() {
            self.occupancy.notify();
        }
        ack
    }

    /// Wakes the client's session.
    pub(super) fn notify(&self) {
        self.occupancy.notify();
    }

    /// Completes when there is something for the client, or it may be read further.
    pub async fn notified(&self) {
        self.occupancy.notified().await;
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
        self.ring.borrow_mut().clear();
        self.answers.borrow_mut().clear();
        self.missed.set(false);
        self.dropped.set(0);
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

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way.
    Queued,
    /// With the printer's connection, and acknowledged to the client; the printer has not said so.
    Sent,
    /// Known, or no longer asked for.
    Settled,
}

/// Somebody waits to hear what became of a request.
///
/// Dropping it unsettled closes the sender's connection, from which it sees that the request may be
/// lost.
pub struct PendingAck {
    slot: Rc<Slot>,
    generation: u32,
    ack: Ack,
    fate: Fate,
}

impl PendingAck {
    /// The request has been handed to the printer's connection in full.
    pub(super) fn sent(&mut self) {
        if self.fate == Fate::Queued {
            self.fate = Fate::Sent;
            if let Some(slot) = self.slot() {
                slot.debts.set(slot.debts.get().saturating_sub(1));
                slot.acknowledge(self.ack);
                // Even without an acknowledgement to send, it may go on reading.
                slot.notify();
            }
        }
    }

    /// The printer has acknowledged it, or is not going to.
    pub(super) fn settle(mut self) {
        self.sent();
        self.fate = Fate::Settled;
    }

    /// The request was not taken: there is nothing to wait for.
    pub(super) fn withdraw(mut self) {
        if let Some(slot) = self.slot() {
            slot.debts.set(slot.debts.get().saturating_sub(1));
        }
        self.fate = Fate::Settled;
    }

    /// The slot, if its client still sits there.
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
    fn a_request_that_is_lost_costs_its_sender_the_connection() {
        let slot = occupied();
        drop(slot.owe(ack(7)).unwrap());
        assert_eq!(slot.take_ack(), None);
        assert_eq!(slot.state(), SlotState::Dismissed(Error::RequestLost));
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
    fn a_client_may_be_owed_so_many_answers_and_no_more() {
        let slot = occupied();
        let mut pending_acks: alloc::vec::Vec<PendingAck> =
            (1..=DEBTS).map(|id| slot.owe(ack(id as u16)).unwrap()).collect();
        assert!(slot.owe(ack(99)).is_none());
        for pending_ack in &mut pending_acks {
            pending_ack.sent();
        }
        assert!(slot.owe(ack(99)).is_none(), "acknowledgements not yet taken count too");
        assert!(slot.take_ack().is_some());
        assert!(slot.owe(ack(99)).is_some());
    }
}
