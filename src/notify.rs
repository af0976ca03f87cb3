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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::pin::pin;
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use core::task::Context;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn is_ready(future: impl Future<Output = ()>, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        pin!(future).poll(&mut Context::from_waker(&waker)).is_ready()
    }

    /// Whether `act` wakes a task that waits for the future of `wait`.
    pub(crate) fn wakes<F: Future>(wait: impl Fn() -> F, act: impl FnOnce()) -> bool {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        // At first, what is kept of earlier notifications.
        while pin!(wait()).poll(&mut cx).is_ready() {}
        let mut waiting = pin!(wait());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        act();
        count.0.load(Relaxed) > 0 && waiting.poll(&mut cx).is_ready()
    }

    #[test]
    fn a_waiting_task_is_woken_once() {
        let (notify, count) = (Notify::default(), Arc::new(Count::default()));
        assert!(!is_ready(notify.notified(), &count));
        notify.notify();
        notify.notify();
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(is_ready(notify.notified(), &count));
        assert!(!is_ready(notify.notified(), &count), "two notifications are one");
        notify.notify();
        assert_eq!(count.0.load(Relaxed), 2, "it waits again");
    }

    #[test]
    fn a_notification_without_a_waiting_task_is_kept_once() {
        let (notify, count) = (Notify::default(), Arc::new(Count::default()));
        notify.notify();
        notify.notify();
        assert!(is_ready(notify.notified(), &count));
        assert!(!is_ready(notify.notified(), &count));
        assert_eq!(count.0.load(Relaxed), 0);
    }

    #[test]
    fn demand_wakes_at_each_change_and_at_the_end() {
        let (demand, count) = (Demand::default(), Arc::new(Count::default()));
        for (wanted, is_change) in [(false, false), (true, true), (true, false), (false, true)] {
            demand.want(wanted);
            assert_eq!(is_ready(demand.notified(), &count), is_change, "{wanted}");
            assert_eq!(demand.is_wanted(), wanted);
        }
        assert!(!demand.is_leaving());
        demand.leave();
        assert!(demand.is_leaving() && is_ready(demand.notified(), &count));
    }
}
