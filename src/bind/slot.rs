//! A client's slot: what the service and one client's session share.

use alloc::rc::Rc;

use crate::memory::budget;
use crate::memory::pool::RC_COUNTS;
use crate::memory::slots::{self, Occupancy};

/// Why the service closes a connection: the proxy is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

/// State of a client's slot. No client is ever active: there is no login.
pub type SlotState = slots::SlotState<Stopping>;

/// One client's state.
#[derive(Default)]
pub struct Slot {
    occupancy: Occupancy<Stopping>,
}

const _: () = assert!(
    size_of::<Slot>() + RC_COUNTS <= budget::DETECT_SLOT,
    "a slot is larger than its budget line"
);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// The slot's state.
    pub const fn state(&self) -> SlotState {
        self.occupancy.state()
    }

    /// Completes when the session is to look at the state.
    pub async fn notified(&self) {
        self.occupancy.notified().await;
    }
}

impl slots::Slot for Slot {
    type Reason = Stopping;

    fn occupancy(&self) -> &Occupancy<Stopping> {
        &self.occupancy
    }

    fn clear(&self) {}
}
