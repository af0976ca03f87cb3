//! Allocations by owner: the heap counts for the whole process, and its growth is attributed to the task that ran
//! meanwhile. Buffers of the simulated [network](crate::lan::weather) are attributed to no task.

use core::cell::Cell;
use core::future::poll_fn;
use std::env;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;

use pandaproxy::memory::heap;

use tokio::task::spawn_local;

use crate::lan::net::SimNet;
use crate::lan::weather::{most_held, put_aside};

/// Set for a process that runs one test.
const APART: &str = "PANDAPROXY_TEST_APART";

/// Whether the calling test has been run in a process of its own, and has passed there: false in that process, whose
/// heap and open files are this test's alone. A test begins with `if ran_apart() { return; }`, and is then measured
/// beside other tests as it is by itself.
///
/// # Panics
///
/// If the test fails there.
pub(crate) fn ran_apart() -> bool {
    let thread = thread::current();
    // With one thread for all tests, which is the main one, nothing runs beside this test.
    let Some(test) = thread.name().filter(|name| *name != "main") else { return false };
    if env::var_os(APART).is_some() {
        return false;
    }
    let mut process = Command::new(env::current_exe().unwrap());
    // With one thread, so that the test runner does not allocate anything meanwhile: it would say after a minute that
    // the test still runs.
    process.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(APART, "1");
    skips::record_as_caller(&mut process);
    let ended = process.stdin(Stdio::null()).output().unwrap();
    let [said, errors] = [&ended.stdout, &ended.stderr].map(|said| String::from_utf8_lossy(said));
    print!("{said}{errors}");
    assert!(ended.status.success(), "{test}: {}", ended.status);
    assert!(
        said.contains("\ntest result: ok. 1 passed; 0 failed; 0 ignored;"),
        "{test} was not run"
    );
    true
}

/// What some futures hold, of all that is held. A clone is the same share.
#[derive(Clone, Default)]
pub(crate) struct Share(Rc<Counts>);

#[derive(Default)]
struct Counts {
    /// Below zero after they dropped what others had made.
    now: Cell<isize>,
    peak: Cell<isize>,
}

impl Share {
    /// Attributes to this share what `future` allocates and frees while it runs.
    pub(crate) fn of<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let share = self.clone();
        let mut future = Box::pin(future);
        poll_fn(move |cx| share.during(|| future.as_mut().poll(cx)))
    }

    /// Attributes to this share what a function allocates and frees.
    pub(crate) fn during<T>(&self, act: impl FnOnce() -> T) -> T {
        let Counts { now, peak } = &*self.0;
        let own = || heap::held().cast_signed() - put_aside();
        let before = own();
        most_held();
        let result = act();
        // A test that has just ended may still be giving something back on its own thread.
        peak.set(peak.get().max(now.get() + (most_held() - before).max(0)));
        now.set(now.get() + own() - before);
        result
    }

    /// Attributes to this share what the tasks of a proxy on `net` allocate and free.
    #[allow(dead_code, reason = "the weather counts each task's share by itself")]
    pub(crate) fn of_tasks_on(&self, net: &SimNet) {
        let share = self.clone();
        net.spawning(move |task| spawn_local(share.of(task)));
    }

    /// Bytes held now.
    pub(crate) fn now(&self) -> usize {
        usize::try_from(self.0.now.get()).unwrap_or(0)
    }

    /// The most bytes held at once since the last [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak(&self) -> usize {
        usize::try_from(self.0.peak.get()).unwrap_or(0)
    }

    #[allow(dead_code, reason = "not everybody looks twice")]
    pub(crate) fn forget_peak(&self) {
        self.0.peak.set(self.0.now.get());
    }
}
