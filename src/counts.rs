//! What is counted of each service since the start: bytes, clients that were refused, reports and pictures. And how many
//! of its connections wait for a login, and of its data transfers there are, beside their limits.
//!
//! It is shown by `/metrics`. It belongs to the thread that serves, has a fixed size, and is never allocated.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | services | [`SERVICES`] | nothing is counted of another one |
//! | a count | `u64::MAX` | it stays there |

use core::cell::Cell;

/// The services of which something is counted, as the log names them.
pub const SERVICES: [&str; 8] =
    ["mqtt", "chamber", "rtsp", "ftp", "tunnel", "detect", "detect-tls", "http"];

/// What is counted of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Bytes received from clients, without TLS.
    FromClient,
    /// Bytes sent to clients.
    ToClient,
    /// Bytes received from the printer.
    FromPrinter,
    /// Bytes sent to the printer.
    ToPrinter,
    /// Connections refused because a limit was reached.
    Full,
    /// Connections refused because their origin is locked out.
    LockedOut,
    /// Connections closed because they did not log in in time.
    Silent,
    /// Connections closed because TLS failed or what they sent is invalid.
    Invalid,
    /// Connections closed after wrong access codes.
    WrongCode,
    /// Reports or pictures of the printer's.
    Received,
    /// Reports or pictures that a client was not sent because it is behind, counted once for each client, and pictures that
    /// cannot be sent.
    Dropped,
    /// Connections that have a slot and have not logged in, now.
    Pending,
    /// The same at most.
    PendingLimit,
    /// Connections in the accept queue, now.
    Waiting,
    /// Data connections, or their transfers, now.
    Transfers,
    /// The same at most.
    TransfersLimit,
}

/// How many there are.
const COUNTS: usize = Count::TransfersLimit as usize + 1;

/// Bytes of all counts.
pub const SIZE: usize = size_of::<Table>();

type Table = [[Cell<u64>; COUNTS]; SERVICES.len()];

std::thread_local! {
    static COUNTED: Table = const { [const { [const { Cell::new(0) }; COUNTS] }; SERVICES.len()] };
}

/// Has `then` use the count of this service, if it has one.
fn with<R>(service: &str, count: Count, then: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
    let row = SERVICES.iter().position(|its| *its == service)?;
    COUNTED.with(|all| Some(then(all.get(row)?.get(count as usize)?)))
}

/// Counts so many more.
pub fn add(service: &str, count: Count, more: u64) {
    let _counted = with(service, count, |cell| cell.set(cell.get().saturating_add(more)));
}

/// Sets how many there are now.
pub fn set(service: &str, count: Count, now: usize) {
    let _counted = with(service, count, |cell| cell.set(now as u64));
}

/// What was counted; 0 of a service that is not in [`SERVICES`].
pub fn get(service: &str, count: Count) -> u64 {
    with(service, count, Cell::get).unwrap_or(0)
}

/// One of what there is now, until it is dropped.
#[must_use]
pub struct Held(&'static str, Count);

/// Counts one more of what there is now, until the value is dropped.
pub fn hold(service: &'static str, count: Count) -> Held {
    add(service, count, 1);
    Held(service, count)
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self(service, count) = *self;
        let _counted = with(service, count, |cell| cell.set(cell.get().saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_counts_of_its_own() {
        for (more, service) in (1..).zip(SERVICES) {
            add(service, Count::FromClient, more);
            add(service, Count::FromClient, more);
            set(service, Count::TransfersLimit, 7);
        }
        for (more, service) in (1..).zip(SERVICES) {
            assert_eq!(get(service, Count::FromClient), 2 * more);
            assert_eq!(get(service, Count::ToClient), 0);
            assert_eq!(get(service, Count::TransfersLimit), 7);
        }
        add("ssdp", Count::FromClient, 1);
        assert_eq!(get("ssdp", Count::FromClient), 0);
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped_and_a_count_stays_at_its_end() {
        let (one, other) = (hold("ftp", Count::Transfers), hold("ftp", Count::Transfers));
        assert_eq!(get("ftp", Count::Transfers), 2);
        drop(one);
        assert_eq!(get("ftp", Count::Transfers), 1);
        drop(other);
        assert_eq!(get("ftp", Count::Transfers), 0);
        add("mqtt", Count::ToClient, u64::MAX);
        add("mqtt", Count::ToClient, 1);
        assert_eq!(get("mqtt", Count::ToClient), u64::MAX);
    }
}
