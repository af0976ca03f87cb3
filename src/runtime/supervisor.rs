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

/// How often it wants to hear that, if it does: twice as often as it would wait.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 2)
}

fn tell(what: &[NotifyState<'_>]) {
    // Without a supervisor there is nobody to tell.
    let _nobody = sd_notify::notify(what);
}
