//! What systemd is told, if it asked: ready, alive, stopping.

use core::time::Duration;

use sd_notify::NotifyState;

/// How long the start may take: a slow board makes its keys first.
const START: Duration = Duration::from_secs(900);

/// Says that the start may take long.
pub fn starting() {
    let micros = u32::try_from(START.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Says that every listener is bound.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that this program is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that this program still turns.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Interval between two [`alive`] notifications; `None` if systemd's watchdog is off.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(interval)
}

/// Half of systemd's limit, as sd_watchdog_enabled(3) recommends.
fn interval(limit: Duration) -> Duration {
    limit / 2
}

fn tell(what: &[NotifyState<'_>]) {
    // Without a supervisor there is nobody to tell.
    let _nobody = sd_notify::notify(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_notified_twice_within_its_limit() {
        assert_eq!(interval(Duration::from_secs(60)), Duration::from_secs(30));
    }
}
