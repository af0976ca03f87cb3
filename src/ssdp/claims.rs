//! Addresses at which the printer is announced and which are not the one that it is reached at: where it may have gone.
//!
//! Any host on the network can send an announcement, so an address is not used until the machine there has shown
//! the printer's certificate. It is dialled only while the printer does not answer at the known address.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | addresses remembered | [`MAX_CLAIMS`] | the one announced most rarely is forgotten |
//! | addresses tried | one at a time, one in [`TRY_INTERVAL`] | they wait |
//! | an address without the certificate | tried once in [`REFUSED_TIMEOUT`] | it waits |

use core::net::Ipv4Addr;
use core::time::Duration;

use crate::clock::Instant;

/// Addresses that are remembered at once.
pub const MAX_CLAIMS: usize = 8;

/// The time between two addresses that are tried.
pub const TRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long an address that did not show the printer's certificate is not tried again.
pub const REFUSED_TIMEOUT: Duration = Duration::from_secs(600);

/// How long an announcement counts: printers send one every 3 to 10 s.
pub const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);

/// An address at which the printer is announced.
#[derive(Clone, Copy, Debug)]
struct Claim {
    address: Ipv4Addr,
    seen: Instant,
    /// How often it was announced since it was last tried.
    times: u32,
    /// When it may be tried.
    next: Instant,
}

/// The addresses at which the printer is announced.
#[derive(Debug, Default)]
pub struct Claims {
    claims: heapless::Vec<Claim, MAX_CLAIMS>,
    /// When the next address may be tried.
    next: Option<Instant>,
}

impl Claims {
    /// The printer is announced at `address`. Whether this is new.
    pub fn add(&mut self, now: Instant, address: Ipv4Addr) -> bool {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.address == address) {
            let was_stale = now.since(claim.seen) >= CLAIM_TIMEOUT;
            claim.times = if was_stale { 1 } else { claim.times.saturating_add(1) };
            claim.seen = now;
            return was_stale;
        }
        if self.claims.is_full() {
            let claims = self.claims.iter().enumerate();
            let rarest = claims.min_by_key(|(_, claim)| (claim.times, claim.seen));
            if let Some((rarest, _)) = rarest {
                self.claims.swap_remove(rarest);
            }
        }
        let claim = Claim { address, seen: now, times: 1, next: Instant::START };
        // There is room now.
        self.claims.push(claim).is_ok()
    }

    /// An address to be tried now: of those that were not tried lately the one that was announced most often, so that
    /// many invented ones do not hide the printer's.
    pub fn candidate(&mut self, now: Instant) -> Option<Ipv4Addr> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let valid = self.claims.iter().filter(|claim| now.since(claim.seen) < CLAIM_TIMEOUT);
        let free = valid.filter(|claim| claim.next <= now);
        let found = free.max_by_key(|claim| (claim.times, claim.seen))?.address;
        self.next = Some(now + TRY_INTERVAL);
        Some(found)
    }

    /// The machine at `address` did not show the printer's certificate, or did not answer.
    pub fn reject(&mut self, now: Instant, address: Ipv4Addr, is_refused: bool) {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.address == address) {
            claim.times = 0;
            claim.next = now + if is_refused { REFUSED_TIMEOUT } else { CLAIM_TIMEOUT };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::at(Duration::from_secs(seconds))
    }

    const fn address(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n)
    }

    #[test]
    fn addresses_are_tried_one_by_one_and_rarely() {
        let mut claims = Claims::default();
        assert_eq!(claims.candidate(at(0)), None);
        assert!(claims.add(at(0), address(1)) && claims.add(at(1), address(2)));
        assert!(!claims.add(at(1), address(2)), "it is known");
        assert_eq!(claims.candidate(at(1)), Some(address(2)));
        claims.reject(at(1), address(2), true);
        assert_eq!(claims.candidate(at(2)), None, "one in ten seconds");
        assert_eq!(claims.candidate(at(11)), Some(address(1)));
        claims.reject(at(11), address(1), false);
        let mut tried = 0;
        for second in 12..600 {
            claims.add(at(second), address(2));
            tried += u32::from(claims.candidate(at(second)).is_some());
        }
        assert_eq!(tried, 0, "neither is tried again within ten minutes");
        claims.add(at(601), address(2));
        assert_eq!(claims.candidate(at(601)), Some(address(2)));
    }

    #[test]
    fn a_flood_of_addresses_is_tried_no_faster() {
        let mut claims = Claims::default();
        let mut tried = 0;
        for n in 0..60_000_u64 {
            let now = Instant::at(Duration::from_millis(n));
            claims.add(now, Ipv4Addr::from_bits(n as u32));
            tried += u32::from(claims.candidate(now).is_some());
        }
        assert_eq!(tried, 6);
        assert!(claims.claims.is_full());
    }

    #[test]
    fn the_address_announced_most_often_is_tried_first() {
        let mut claims = Claims::default();
        for second in 0..20 {
            if second % 5 == 0 {
                claims.add(at(second), address(1));
            }
            claims.add(at(second), address(100 + second as u8));
        }
        assert_eq!(claims.candidate(at(20)), Some(address(1)));
    }

    #[test]
    fn an_address_that_is_not_announced_any_more_is_not_tried() {
        let mut claims = Claims::default();
        claims.add(at(0), address(1));
        assert_eq!(claims.candidate(at(61)), None);
        assert!(claims.add(at(61), address(1)), "as good as new");
        assert_eq!(claims.candidate(at(61)), Some(address(1)));
    }
}
