//! Wake-ups between tasks of the one thread.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// A wake-up for one waiting task. A notification without a waiting task is kept, once.
#[derive(Default)]
pub struct Notify {
    notified: Cell<bool>,
    sleeper: RefCell<Option<Waker>>,
}

impl Notify {
    /// Wakes the task that waits, or the next one that does.
    pub fn notify(&self) {
        self.notified.set(true);
        if let Some(sleeper) = self.sleeper.borrow_mut().take() {
            sleeper.wake();
        }
    }

    /// Completes at the next notification, or at once if one is kept.
    pub async fn notified(&self) {
        poll_fn(|cx| {
            if self.notified.replace(false) {
                return Poll::Ready(());
            }
            *self.sleeper.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Whether a camera's hub needs its upstream's stream.
#[derive(Default)]
pub struct Demand {
    wanted: Cell<bool>,
    leaving: Cell<bool>,
    notify: Notify,
}

impl Demand {
    /// Sets whether at least one client watches.
    pub fn want(&self, wanted: bool) {
        if self.wanted.replace(wanted) != wanted {
            self.notify.notify();
        }
    }

    /// Whether at least one client watches.
    pub fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Tells the upstream to shut down.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.notify.notify();
    }

    /// Whether the upstream has to shut down.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Completes when one of the two has changed.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}
