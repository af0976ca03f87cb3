//! A client's slot: what the service and one client's session share.

use alloc::rc::Rc;

use crate::memory::budget;
use crate::memory::slots::{self, Label, Occupancy, Stopping};

/// Bytes kept of a user agent, to be shown.
pub const SHOWN_AGENT: usize = 48;

/// State of a client's slot.
pub type SlotState = slots::SlotState<Stopping>;

/// One client's state.
#[derive(Default)]
pub struct Slot {
    occupancy: Occupancy<Stopping>,
    /// The beginning of the client's user agent.
    pub agent: Label<SHOWN_AGENT>,
}

const _: () = slots::assert_fits::<Slot>(budget::HTTP_SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }
}

impl slots::Slot for Slot {
    type Reason = Stopping;

    fn occupancy(&self) -> &Occupancy<Stopping> {
        &self.occupancy
    }

    fn clear(&self) {
        self.agent.clear();
    }
}
