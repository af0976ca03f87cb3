//! How one service's connection to the printer fares: what is shown of it, apart from the log.
//!
//! The loop that keeps the connection up reports to it. Whether the printer has accepted the login is in the printer's
//! [status](super::status::Status::is_logged_in_to).

use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};

use crate::journal::Kind;

/// Bytes kept of the reason of a loss; a longer one is cut.
pub const MAX_REASON: usize = 160;

/// What a service does about its connection to the printer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No client needs one.
    #[default]
    Idle,
    /// It is being made, or there is one.
    Connecting,
    /// The last one was lost or could not be made.
    Failing,
}

/// Why connections were lost, as far as it is counted.
pub const REASONS: [(&str, Kind); 3] = [
    ("lost", Kind::PrinterLost),
    ("refused", Kind::PrinterRefused),
    ("untrusted", Kind::PrinterUntrusted),
];

/// A service's connection to the printer.
#[derive(Default)]
pub struct Upstream {
    state: Cell<State>,
    reason: RefCell<heapless::String<MAX_REASON>>,
    failures: [Cell<u32>; REASONS.len()],
}

impl Upstream {
    /// What the service does about it.
    pub const fn state(&self) -> State {
        self.state.get()
    }

    /// A connection is being made. One that follows a failure still counts as failing.
    pub fn set_connecting(&self) {
        if self.state.get() == State::Idle {
            self.state.set(State::Connecting);
        }
    }

    /// The connection has ended in order.
    pub fn set_idle(&self) {
        self.state.set(State::Idle);
        self.reason.borrow_mut().clear();
    }

    /// The connection was lost, or could not be made.
    pub fn set_failing(&self, kind: Kind, reason: &dyn fmt::Display) {
        self.state.set(State::Failing);
        let mut kept = self.reason.borrow_mut();
        kept.clear();
        // A longer one is cut.
        let _cut = write!(kept, "{reason}");
        for (count, (_, its)) in self.failures.iter().zip(REASONS) {
            if its == kind {
                count.set(count.get().saturating_add(1));
            }
        }
    }

    /// Has `then` read why the last connection failed; empty if it did not.
    pub fn with_reason<R>(&self, then: impl FnOnce(&str) -> R) -> R {
        then(&self.reason.borrow())
    }

    /// How often a connection failed, in the order of [`REASONS`].
    pub fn failures(&self) -> [u32; REASONS.len()] {
        self.failures.each_ref().map(Cell::get)
    }
}
