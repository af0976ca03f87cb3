//! Log lines about connections that have not logged in: one for each reason and origin in half a minute.
//!
//! Any machine on the network can open connections at any rate, so the log must not grow with their number. Events
//! without a line are counted, and the next line says how often the event was seen.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | lines for one reason and origin | one in [`RateLimit::INTERVAL`] | counted |
//! | reasons and origins with a limit of their own | [`MAX_LIMITS`] | the others share one limit for each reason |

use core::cell::RefCell;
use core::fmt;
use core::net::IpAddr;

use heapless::Vec;

use crate::clock::Instant;
use crate::journal::{self, Kind, RateLimit};
use crate::peer::Origin;

/// Reasons and origins that have a limit of their own at once.
pub const MAX_LIMITS: usize = 32;

std::thread_local! {
    static REJECTIONS: RefCell<Rejections> = const { RefCell::new(Rejections::new()) };
}

/// Logs why a connection from `address` that had not logged in has ended, unless the same was logged
/// lately for its origin. The event is counted in any case.
pub fn note(now: Instant, kind: Kind, address: IpAddr, what: fmt::Arguments<'_>) {
    let times = REJECTIONS.with(|rejections| {
        rejections.try_borrow_mut().map_or(Some(1), |mut all| all.check(now, kind, address))
    });
    match times {
        None => journal::tally(kind),
        Some(1) => journal::note(kind, what),
        Some(times) => journal::note(kind, format_args!("{what} (seen {times} times)")),
    }
}

struct Rejections {
    limits: Vec<Limit, MAX_LIMITS>,
    /// Without an origin, for each reason: used while `limits` is full.
    others: [RateLimit; Kind::ALL.len()],
}

struct Limit {
    of: (Origin, Kind),
    /// When the event was seen last.
    seen: Instant,
    limit: RateLimit,
}

impl Rejections {
    const fn new() -> Self {
        Self { limits: Vec::new(), others: [const { RateLimit::new() }; Kind::ALL.len()] }
    }

    /// How often the event was seen since it was last logged, if it is to be logged now.
    fn check(&mut self, now: Instant, kind: Kind, address: IpAddr) -> Option<u32> {
        let of = (Origin::of(address), kind);
        if !self.limits.iter().any(|limit| limit.of == of) {
            if self.limits.is_full() {
                self.limits.retain(|limit| now.since(limit.seen) < RateLimit::INTERVAL);
            }
            let _full = self.limits.push(Limit { of, seen: now, limit: RateLimit::new() });
        }
        match self.limits.iter_mut().find(|limit| limit.of == of) {
            Some(found) => {
                found.seen = now;
                found.limit.check(now)
            }
            None => self.others.get(kind as usize)?.check(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use core::time::Duration;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn at(seconds: u64) -> Instant {
        Instant::at(Duration::from_secs(seconds))
    }

    #[test]
    fn each_reason_and_origin_is_logged_by_itself() {
        let mut all = Rejections::new();
        assert_eq!(all.check(at(0), Kind::WrongCode, A), Some(1));
        assert_eq!(all.check(at(1), Kind::WrongCode, A), None);
        assert_eq!(all.check(at(1), Kind::Silent, A), Some(1));
        assert_eq!(all.check(at(1), Kind::WrongCode, B), Some(1));
        assert_eq!(all.check(at(30), Kind::WrongCode, A), Some(2));
    }

    #[test]
    fn many_origins_log_no_more_lines_than_the_table_has_room_for() {
        let mut all = Rejections::new();
        let mut lines = 0;
        for n in 0..10_000 {
            let address = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, 1));
            lines += usize::from(all.check(at(1), Kind::Malformed, address).is_some());
        }
        assert_eq!(lines, MAX_LIMITS + 1);
        assert_eq!(all.check(at(32), Kind::Malformed, A), Some(1), "old ones make room");
    }

    #[test]
    fn a_full_table_keeps_what_was_seen_lately_and_its_count() {
        let mut all = Rejections::new();
        for second in 0..20 {
            let first = (second == 0).then_some(1);
            assert_eq!(all.check(at(second), Kind::WrongCode, A), first);
        }
        assert_eq!(all.limits.len(), 1);
        assert_eq!(all.check(at(49), Kind::WrongCode, B), Some(1));
        assert_eq!(all.check(at(49), Kind::WrongCode, A), Some(20), "it is not forgotten yet");
        for n in 1..MAX_LIMITS as u8 {
            let _ = all.check(at(70), Kind::WrongCode, [10, 0, 1, n].into());
        }
        assert_eq!(all.check(at(70), Kind::WrongCode, A), None);
        let other = [10, 0, 2, 1].into();
        assert_eq!(all.check(at(79), Kind::WrongCode, other), Some(1), "replaces B");
        assert_eq!(all.check(at(79), Kind::WrongCode, A), Some(2));
        assert_eq!(all.check(at(79), Kind::Malformed, other), Some(1), "by reason");
        assert_eq!(all.check(at(79), Kind::Silent, other), Some(1), "by reason");
    }

    #[test]
    fn an_event_without_a_line_is_counted() {
        let before = journal::count(Kind::Silent);
        for _ in 0..3 {
            note(at(0), Kind::Silent, A, format_args!("silent"));
        }
        assert_eq!(journal::count(Kind::Silent), before + 3);
    }
}
