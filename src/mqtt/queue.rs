//! Requests on their way to the printer, and what else the hub and the printer's session exchange.
//!
//! The hub puts clients' requests in. The [session with the printer](super::upstream) takes them out, one of
//! each client in turn: the requests of one client keep their order, and a client's one request waits for at
//! most one of each other client, however many another has sent.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | requests waiting | `BOARD.mqtt.requests` | clients that publish are not read until one has left |
//! | of these, one client's | as many as places are free | the client is not read until one has left |
//! | requests remembered after they left | `RECENT`, for `REMEMBERED_TIMEOUT` | a resend is forwarded again |

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use super::address::Patches;
use super::slot::{PendingAck, Slot};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::pool::Frame;
use crate::memory::ring::{Full, Ring};
use crate::memory::slots::{Slot as _, Slots};
use crate::notify::Notify;

/// Without a report for this long, the cached state no longer counts as the printer's: even an idle
/// A1 reports every two seconds.
pub const STALE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request is remembered after it was sent. A client resends soon after it has reconnected,
/// and packet identifiers are used again.
const REMEMBERED_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests remembered after they were sent, so that a client's resend over a new connection is not
/// executed twice.
const RECENT: usize = 32;

/// What the hub and the printer's session share: requests, questions, and how fresh the state is.
pub struct RequestQueue {
    /// Slots whose clients may be waiting for room.
    slots: Slots<Slot>,
    /// Index of the slot whose turn is next.
    next: Cell<usize>,
    live: Cell<bool>,
    leaving: Cell<bool>,
    requests: RefCell<Ring<Request, { BOARD.mqtt.requests }>>,
    wants_state: Cell<bool>,
    wants_version: Cell<bool>,
    last_report: Cell<Option<Instant>>,
    /// The request that [`take`](Self::take) returned and that has not been sent in full.
    carrying: Cell<Option<u64>>,
    /// The last requests that were sent in full.
    sent: RefCell<heapless::HistoryBuf<(u64, Instant), RECENT>>,
    notify: Notify,
}

/// A client's request on its way to the printer.
pub struct Request {
    /// The payload, byte for byte.
    pub payload: Frame<Patches>,
    /// The acknowledgement that the request's sender waits for.
    pub pending_ack: PendingAck,
    /// A hash of sender, packet identifier and payload, by which a resend is recognised.
    pub mark: u64,
}

impl RequestQueue {
    /// An empty queue for the clients in `slots`, without a connection to the printer.
    pub fn new(slots: Slots<Slot>) -> Self {
        Self {
            slots,
            next: Cell::new(0),
            live: Cell::new(false),
            leaving: Cell::new(false),
            requests: RefCell::new(Ring::new()),
            wants_state: Cell::new(false),
            wants_version: Cell::new(false),
            last_report: Cell::new(None),
            carrying: Cell::new(None),
            sent: RefCell::new(heapless::HistoryBuf::new()),
            notify: Notify::default(),
        }
    }

    /// An empty queue of a program that has no clients.
    pub fn without_clients() -> Self {
        Self::new(Slots::new(0, |_| Slot::new()))
    }

    /// Requests that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Whether the printer's broker accepts requests.
    pub fn is_live(&self) -> bool {
        self.live.get()
    }

    /// The subscription to the reports is confirmed: requests are accepted, and the printer is asked
    /// for its versions and its state.
    pub(super) fn set_live(&self, now: Instant) {
        self.live.set(true);
        self.last_report.set(Some(now));
        self.wants_version.set(true);
        self.wants_state.set(true);
    }

    /// Ends the connection to the printer: DISCONNECT is sent next, and nothing after it.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.notify.notify();
    }

    /// Whether the connection to the printer is to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether the printer has reported within [`STALE_TIMEOUT`].
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.live.get()
            && self.last_report.get().is_some_and(|last| now.since(last) < STALE_TIMEOUT)
    }

    /// When the last report came; the start of the program if none came.
    pub(super) fn last_report(&self) -> Instant {
        self.last_report.get().unwrap_or(Instant::START)
    }

    /// Notes that a report came.
    pub(super) fn set_reported(&self, now: Instant) {
        self.last_report.set(Some(now));
    }

    /// Whether one more request of the client in `slot` fits. A client leaves as many places free as it has requests
    /// in the queue. So one client alone gets half of the places, and the next place that becomes free goes
    /// to a client that has none.
    pub fn has_room_for(&self, slot: &Rc<Slot>) -> bool {
        let requests = self.requests.borrow();
        let own = requests.iter().filter(|request| request.pending_ack.is_of(slot)).count();
        requests.len() + own < BOARD.mqtt.requests
    }

    /// Appends a request.
    ///
    /// # Errors
    ///
    /// The queue is full; the error returns the request.
    pub(super) fn put(&self, request: Request) -> Result<(), Full<Request>> {
        self.requests.borrow_mut().push(request)?;
        self.notify.notify();
        Ok(())
    }

    /// Takes the oldest request of the client whose turn it is. Clients that may have waited for room are woken
    /// to be read again.
    pub(super) fn take(&self) -> Option<Request> {
        let mut requests = self.requests.borrow_mut();
        let before = requests.len();
        let turn = requests.iter().map(|request| self.turns_until(request)).min()?;
        let mut taken = None;
        requests.retain(|request| {
            if taken.is_none() && self.turns_until(&request) == turn {
                taken = Some(request);
                return None;
            }
            Some(request)
        });
        drop(requests);
        self.carrying.set(taken.as_ref().map(|request| request.mark));
        let next = (self.next.get() + turn + 1) % self.slots.iter().len().max(1);
        self.next.set(next);
        // A client waits for room if its requests and all requests are as many as there are places.
        if 2 * before >= BOARD.mqtt.requests {
            // The one that is woken first gets the room.
            let (behind, first) =
                self.slots.iter().as_slice().split_at_checked(next).unwrap_or_default();
            first.iter().chain(behind).for_each(|slot| slot.notify());
        }
        taken
    }

    /// How many slots have their turn before that of the request's client.
    fn turns_until(&self, request: &Request) -> usize {
        let mut slots = self.slots.iter();
        let count = slots.len();
        let index = slots.position(|slot| request.pending_ack.has_slot(slot)).unwrap_or_default();
        (index + count - self.next.get()) % count.max(1)
    }

    /// Whether a request with this mark is queued or being sent.
    pub(super) fn is_carrying(&self, mark: u64) -> bool {
        self.carrying.get() == Some(mark)
            || self.requests.borrow().iter().any(|request| request.mark == mark)
    }

    /// Whether a request with this mark was sent within [`REMEMBERED_TIMEOUT`].
    pub(super) fn has_sent(&self, now: Instant, mark: u64) -> bool {
        let is = |(sent, at): &(u64, Instant)| *sent == mark && now.since(*at) < REMEMBERED_TIMEOUT;
        self.sent.borrow().oldest_ordered().any(is)
    }

    /// The request that was taken last has been sent in full. It goes to the other clients that subscribed to
    /// the request topic.
    pub(super) fn carried(&self, now: Instant, request: &Request) {
        if let Some(mark) = self.carrying.take() {
            self.sent.borrow_mut().write((mark, now));
        }
        let listens = |slot: &&Rc<Slot>| slot.listens() && !request.pending_ack.is_of(slot);
        for slot in self.slots.iter().filter(listens) {
            slot.put_request(now, request.payload.clone());
        }
    }

    /// Asks the printer for its full state.
    pub(super) fn ask_state(&self) {
        self.wants_state.set(true);
        self.notify.notify();
    }

    /// Whether the printer is to be asked for its full state: `true` once after each [`ask_state`](Self::ask_state).
    pub(super) fn take_state_question(&self) -> bool {
        self.wants_state.replace(false)
    }

    /// Asks the printer for its versions.
    pub(super) fn ask_version(&self) {
        self.wants_version.set(true);
        self.notify.notify();
    }

    /// Whether the printer is to be asked for its versions: `true` once after each [`ask_version`](Self::ask_version).
    pub(super) fn take_version_question(&self) -> bool {
        self.wants_version.replace(false)
    }

    /// The printer's connection is lost. Requests that were not sent are dropped, and their senders are
    /// disconnected.
    pub(super) fn lost(&self) {
        self.live.set(false);
        self.wants_state.set(false);
        self.wants_version.set(false);
        self.last_report.set(None);
        self.carrying.set(None);
        // Whether the printer executed these is no longer known: a resend is forwarded.
        self.sent.borrow_mut().clear();
        self.requests.borrow_mut().clear();
        // Clients that waited for room are read again, and their requests refused.
        self.slots.iter().for_each(|slot| slot.notify());
    }

    /// Completes when there is something to send to the printer.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::upstream::tests::{occupied, put};
    use crate::notify::tests::wakes;
    use alloc::vec::Vec;

    /// A queue, and the slots of as many clients.
    fn queue(clients: usize) -> (RequestQueue, Slots<Slot>) {
        let slots = Slots::new(clients, |_| Slot::new());
        slots.iter().for_each(|slot| occupied(slot));
        (RequestQueue::new(slots.clone()), slots)
    }

    /// The slot's index of each request, in the order in which they are taken.
    fn taken(queue: &RequestQueue, slots: &Slots<Slot>) -> Vec<usize> {
        let of = |request: Request| {
            slots.iter().position(|slot| request.pending_ack.has_slot(slot)).unwrap()
        };
        core::iter::from_fn(|| queue.take().map(of)).collect()
    }

    /// Puts requests of a client into the queue while there is room for it, and returns how many.
    fn fill(queue: &RequestQueue, slot: &Rc<Slot>) -> usize {
        (1..)
            .take_while(|id| {
                let has_room = queue.has_room_for(slot);
                if has_room {
                    put(queue, slot, b"{}", *id);
                }
                has_room
            })
            .count()
    }

    #[test]
    fn one_client_alone_gets_half_of_the_places() {
        let (queue, slots) = queue(3);
        let slot = |index| slots.get(index).unwrap();
        assert_eq!(fill(&queue, slot(0)), BOARD.mqtt.requests.div_ceil(2));
        assert!(fill(&queue, slot(1)) >= 1);
        while queue.has_room_for(slot(2)) {
            put(&queue, slot(2), b"{}", 9);
        }
        drop(queue.take());
        assert!(!queue.has_room_for(slot(0)), "a place is free for clients without a request");
    }

    #[test]
    fn each_client_has_its_turn() {
        let (queue, slots) = queue(BOARD.mqtt.requests);
        let slot = |index| slots.get(index).unwrap();
        let flood = fill(&queue, slot(1));
        put(&queue, slot(0), b"{}", 1);
        put(&queue, slot(3), b"{}", 1);
        let mut expected = alloc::vec![0, 1, 3];
        expected.resize(flood + 2, 1);
        assert_eq!(taken(&queue, &slots), expected);
        // The turn goes on from there.
        put(&queue, slot(1), b"{}", 1);
        put(&queue, slot(2), b"{}", 1);
        assert_eq!(taken(&queue, &slots), [2, 1]);
    }

    #[test]
    fn whatever_is_for_the_printer_wakes_its_session() {
        let (queue, slots) = queue(1);
        let slot = slots.get(0).unwrap();
        assert!(wakes(|| queue.notified(), || put(&queue, slot, b"{}", 1)));
        assert!(wakes(|| queue.notified(), || queue.ask_state()));
        assert!(wakes(|| queue.notified(), || queue.ask_version()));
        assert!(wakes(|| queue.notified(), || queue.leave()));
    }

    #[test]
    fn clients_that_wait_for_room_are_woken() {
        let (queue, slots) = queue(2);
        let slot = |index| slots.get(index).unwrap();
        fill(&queue, slot(0));
        assert!(!queue.has_room_for(slot(0)));
        // A request that is dropped wakes its sender for another reason.
        let mut kept = Vec::new();
        assert!(wakes(|| slot(0).notified(), || kept.push(queue.take())), "its sender");
        fill(&queue, slot(1));
        assert!(wakes(|| slot(1).notified(), || kept.push(queue.take())), "and others");
        assert!(wakes(|| slot(0).notified(), || queue.lost()));
    }

    #[test]
    fn the_next_connection_carries_no_request_of_the_last_one() {
        let (queue, slots) = queue(1);
        let slot = slots.get(0).unwrap();
        queue.set_live(Instant::START);
        for id in 1..=3 {
            put(&queue, slot, b"{}", id);
        }
        // The first is sent in full, the second in part, and the third waits.
        let sent = queue.take().unwrap();
        queue.carried(Instant::START, &sent);
        let carried = queue.take();
        assert!(queue.has_sent(Instant::START, 1));
        assert!(queue.is_carrying(2) && queue.is_carrying(3));
        queue.lost();
        drop((sent, carried));
        queue.set_live(Instant::START);
        assert!(queue.take().is_none(), "its sender sends it again");
        assert!(!queue.has_sent(Instant::START, 1), "whether it was executed is not known");
        assert!(!queue.is_carrying(2) && !queue.is_carrying(3));
        assert!(slot.is_dismissed(), "which it does only over a new connection");
    }
}
