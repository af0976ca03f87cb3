//! Points in time on a monotonic clock, without a date.
//!
//! Sessions and hubs are given the time as an [`Instant`]; only [`runtime`](crate::runtime) has a real
//! clock, and tests choose the time themselves.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A point in time, counted from the start of the program or of the test.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// The start.
    pub const START: Self = Self(Duration::ZERO);

    /// The point in time that lies `elapsed` after [`START`](Self::START).
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long it has been since `earlier`; zero if that is yet to come.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it has been since [`START`](Self::START).
    pub const fn elapsed(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:?}", self.0)
    }
}
