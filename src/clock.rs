//! Points in time on a monotonic clock, without a date.
//!
//! Sessions and hubs are given the time as an [`Instant`]; only [`runtime`](crate::runtime) has a real
//! clock, and tests choose the time themselves. `Utc` shows a date.

use core::fmt;
use core::ops::Add;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

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

/// A date and time in UTC, to the second (RFC 3339).
#[derive(Clone, Copy)]
pub(crate) struct Utc {
    /// Days since 1970-01-01.
    days: u64,
    /// Seconds since midnight.
    seconds: u64,
}

impl Utc {
    /// A clock before 1970 counts as 1970.
    pub(crate) fn of(now: SystemTime) -> Self {
        const DAY: u64 = 24 * 60 * 60;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { days: seconds / DAY, seconds: seconds % DAY }
    }

    /// Year, month and day in the proleptic Gregorian calendar, counted in eras of 400 years from
    /// 0000-03-01, so that a leap day is the last day of a year.
    const fn date(&self) -> (u64, u64, u64) {
        const ERA: u64 = 146_097;
        let days = self.days + 719_468;
        let (era, day_of_era) = (days / ERA, days % ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = 400 * era + year_of_era + (month <= 2) as u64;
        (year, month, day)
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (hour, minute, second) =
            (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |seconds| Utc::of(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_793_491_200), "2026-11-01T00:00:00Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
