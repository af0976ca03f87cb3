//! One connection of the simulated printer, as the rest of the printer sees it.
//!
//! What is sent to a connection goes into its queue; the connection's own
//! task writes it. A slow connection delays no other: past [`MAX_QUEUE`] or [`MAX_QUEUE_BYTES`] it is dropped.

use core::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

use super::ledger::Ending;
use super::packet;

/// Packets that may wait for one connection.
pub const MAX_QUEUE: usize = 256;

/// Bytes that may wait for one connection. Several connections share the same bytes.
pub const MAX_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// What the printer knows of one connection.
#[derive(Default)]
pub(super) struct Slot {
    /// Counted from 1.
    pub(super) number: u64,
    /// What it has subscribed to.
    pub(super) filters: RefCell<Vec<String>>,
    /// Whether it asked, by `pushing.stop`, for no more deltas.
    pub(super) stopped: Cell<bool>,
    /// Wakes its task.
    pub(super) notify: Notify,
    queue: RefCell<VecDeque<Rc<[u8]>>>,
    queued: Cell<usize>,
    closing: Cell<Option<Ending>>,
    dropping: Cell<Option<Ending>>,
    gone: Notify,
}

impl Slot {
    /// A connection of this number.
    pub(super) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Puts a packet behind the others. False when the connection is on its way out.
    pub(super) fn send(&self, packet: Rc<[u8]>) -> bool {
        if self.closing.get().is_some() || self.dropping.get().is_some() {
            return false;
        }
        let queued = self.queued.get() + packet.len();
        let mut queue = self.queue.borrow_mut();
        if queue.len() == MAX_QUEUE || queued > MAX_QUEUE_BYTES {
            drop(queue);
            self.drop_for(Ending::Lagging);
            return false;
        }
        queue.push_back(packet);
        self.queued.set(queued);
        self.notify.notify_one();
        true
    }

    /// Takes the oldest packet.
    pub(super) fn next(&self) -> Option<Rc<[u8]>> {
        let packet = self.queue.borrow_mut().pop_front()?;
        self.queued.set(self.queued.get() - packet.len());
        Some(packet)
    }

    /// Whether a packet waits.
    pub(super) fn has_next(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Ends it once everything queued is sent; nothing more is queued or read.
    pub(super) fn close_for(&self, ending: Ending) {
        if self.closing.get().is_none() {
            self.closing.set(Some(ending));
            self.notify.notify_one();
        }
    }

    /// Why it is to end once everything queued is sent.
    pub(super) fn closing(&self) -> Option<Ending> {
        self.closing.get()
    }

    /// Ends it now.
    pub(super) fn drop_for(&self, ending: Ending) {
        if self.dropping.get().is_none() {
            self.dropping.set(Some(ending));
            self.notify.notify_one();
            self.gone.notify_one();
        }
    }

    /// Why it is to end now.
    pub(super) fn dropping(&self) -> Option<Ending> {
        self.dropping.get()
    }

    /// Completes when the connection is to be closed now.
    pub(super) async fn dropped(&self) -> Ending {
        loop {
            if let Some(ending) = self.dropping.get() {
                return ending;
            }
            self.gone.notified().await;
        }
    }

    /// Whether it has subscribed to this topic.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.filters.borrow().iter().any(|filter| packet::takes(filter, topic))
    }
}
