//! Wake-ups between tasks of the one thread.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Rings one sleeper's notify. Ringing before anybody sleeps is remembered, once.
#[derive(Default)]
pub struct Notify {
    notified: Cell<bool>,
    sleeper: RefCell<Option<Waker>>,
}

impl Notify {
    /// Wakes whoever waits, now or next.
    pub fn notify(&self) {
        self.notified.set(true);
        if let Some(sleeper) = self.sleeper.borrow_mut().take() {
            sleeper.wake();
        }
    }

    /// Completes at the next ring, or at once if one was missed.
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

/// Whether the other end is wanted: what a camera's hub tells its upstream.
#[derive(Default)]
pub struct Demand {
    wanted: Cell<bool>,
    leaving: Cell<bool>,
    notify: Notify,
}

impl Demand {
    /// Somebody watches, or nobody does any more.
    pub fn want(&self, wanted: bool) {
        if self.wanted.replace(wanted) != wanted {
            self.notify.notify();
        }
    }

    /// Whether somebody watches.
    pub fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// The program ends.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.notify.notify();
    }

    /// Whether the program ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Completes when something of this has changed.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}
