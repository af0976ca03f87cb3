//! Notifications to systemd (sd_notify(3)): starting, ready, watchdog, stopping. Without systemd they do nothing.

use core::time::Duration;

use sd_notify::NotifyState;

/// Time the start may take: a slow board makes its RSA keys first.
const START_TIMEOUT: Duration = Duration::from_secs(900);

/// Extends systemd's start timeout to `START_TIMEOUT` (`EXTEND_TIMEOUT_USEC`).
pub fn starting() {
    let micros = u32::try_from(START_TIMEOUT.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Notifies that all listeners are bound (`READY=1`).
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Notifies that shutdown has begun (`STOPPING=1`).
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Resets systemd's watchdog (`WATCHDOG=1`).
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Interval between two [`alive`] notifications; `None` if systemd's watchdog is off.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(interval)
}

/// Half of systemd's limit, as sd_watchdog_enabled(3) recommends.
fn interval(limit: Duration) -> Duration {
    limit / 2
}

fn notify(states: &[NotifyState<'_>]) {
    // An error changes nothing: the program runs without systemd as well.
    let _failed = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_notified_twice_within_its_limit() {
        assert_eq!(interval(Duration::from_secs(60)), Duration::from_secs(30));
    }
}
