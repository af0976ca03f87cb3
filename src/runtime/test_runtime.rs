//! Runs tests, each in a runtime of its own.

use core::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::time::timeout;

/// In virtual time, without sockets.
pub(super) fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let builder = builder.enable_time().start_paused(true);
    builder.build_local(LocalOptions::default()).unwrap().block_on(test)
}

/// In real time, over sockets. A test that waits for ever fails.
pub(super) fn over_sockets<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(100), test).await }).unwrap()
}
