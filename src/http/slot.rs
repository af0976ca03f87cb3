//! A client's slot: what the service and one client's session share.

use alloc::rc::Rc;
use core::cell::Cell;

use crate::clock::Instant;
use crate::memory::budget;
use crate::memory::slots::{self, Occupancy};

/// State of a client's slot.
pub type SlotState = slots::SlotState<Dismissal>;

/// Why a client is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// The proxy is shutting down.
    Stopping,
    /// It asks for nothing, and another client has no place.
    Idle,
}

/// One client's state.
#[derive(Default)]
pub struct Slot {
    occupancy: Occupancy<Dismissal>,
    /// Since when the client, which has shown a code, has asked for nothing.
    pub(super) idle_since: Cell<Option<Instant>>,
}

const _: () = slots::assert_fits::<Slot>(budget::HTTP_SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }
}

impl slots::Slot for Slot {
    type Reason = Dismissal;

    fn occupancy(&self) -> &Occupancy<Dismissal> {
        &self.occupancy
    }

    fn clear(&self) {
        self.idle_since.set(None);
    }
}
