//! A client's slot: what the service and one client's session share.

use alloc::rc::Rc;

use crate::memory::budget;
use crate::memory::slots::{self, Occupancy, Stopping};

/// State of a client's slot.
pub type SlotState = slots::SlotState<Stopping>;

/// One client's state.
#[derive(Default)]
pub struct Slot {
    occupancy: Occupancy<Stopping>,
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

    fn clear(&self) {}
}
