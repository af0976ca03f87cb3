//! What the composition root does with any running service, whatever its protocol.

use core::any::Any;
use core::fmt;

use crate::clock::Instant;

/// A running service.
pub trait Service: Any {
    /// Its name in the log.
    fn name(&self) -> &'static str;

    /// Lets the service's own deadlines pass; called once a second.
    fn handle_timeout(&self, now: Instant) {
        let _ = now;
    }

    /// Client connections being served.
    fn connections(&self) -> usize;

    /// Disconnects every client.
    fn disconnect_all(&self);

    /// Ends the connection to the printer in order, and starts no other.
    fn shut_down(&self);

    /// Writes what an operator asks for with SIGUSR1: one line that ends in a line feed.
    ///
    /// # Errors
    ///
    /// `out` fails.
    fn write_status(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: {} connections", self.name(), self.connections())
    }
}
