//! A client's slot: what the service and one client's session share.

use alloc::rc::Rc;
use core::cell::RefCell;

use crate::memory::budget;
use crate::memory::slots::{self, Occupancy};

/// Bytes kept of a user agent, to be shown.
pub const SHOWN_AGENT: usize = 48;

/// Why the service closes a connection: the proxy is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

/// State of a client's slot.
pub type SlotState = slots::SlotState<Stopping>;

/// One client's state.
#[derive(Default)]
pub struct Slot {
    occupancy: Occupancy<Stopping>,
    agent: RefCell<heapless::String<SHOWN_AGENT>>,
}

const _: () = slots::assert_fits::<Slot>(budget::HTTP_SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Keeps the beginning of the client's user agent.
    pub(super) fn set_agent(&self, agent: &str) {
        let mut kept = self.agent.borrow_mut();
        if agent.starts_with(kept.as_str()) && !kept.is_empty() {
            return;
        }
        kept.clear();
        for c in agent.chars() {
            if kept.push(c).is_err() {
                break;
            }
        }
    }

    /// Has `then` read the beginning of the client's user agent.
    pub fn with_agent<R>(&self, then: impl FnOnce(&str) -> R) -> R {
        then(&self.agent.borrow())
    }
}

impl slots::Slot for Slot {
    type Reason = Stopping;

    fn occupancy(&self) -> &Occupancy<Stopping> {
        &self.occupancy
    }

    fn clear(&self) {
        self.agent.borrow_mut().clear();
    }
}
