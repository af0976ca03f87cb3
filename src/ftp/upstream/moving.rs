//! From the printer's 150 to the last byte: the transfer begins, is watched, and is aborted if it fails or if it is so
//! slow that a waiting upload would never begin.

#[cfg(test)]
mod tests;

use core::time::Duration;

use super::{ABORTED_TIMEOUT, COMMAND_TIMEOUT, STORED_TIMEOUT, State, Upstream};
use crate::clock::Instant;
use crate::ftp::event::Event;
use crate::ftp::printer_session::{DataCommand, DataCopy, Job, TransferError};
use crate::ftp::slot::Transfer;
use crate::ftp::wire;

/// How often the progress of a transfer is measured.
const PACE_INTERVAL: Duration = Duration::from_secs(30);

/// Bytes in one [`PACE_INTERVAL`] below which a transfer is slow: 1 kB/s.
const MIN_PACE: u64 = 30_000;

/// Slow intervals in a row after which a transfer is aborted while an upload waits: two minutes.
const MAX_SLOW: u32 = 4;

/// How fast the current transfer is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Bytes copied at the beginning of the interval.
    bytes: u64,
    /// Slow intervals in a row.
    slow: u32,
}

impl Upstream {
    /// The printer begins the transfer, with a 150 or, if it skips that, with the final reply.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        job: &Job,
        transfer: Transfer,
        code: u16,
        line: &[u8],
    ) {
        self.restart_pending = false;
        let Some(slot) = self.hub.client_of(job).cloned() else {
            return self.abort(now, TransferError::Client);
        };
        let size = match transfer {
            Transfer::Retrieve => wire::size_in(code, line).or_else(|| {
                let (name, size) = slot.sized.get()?;
                (name == self.printer_session.argument_hash())
                    .then(|| size.saturating_sub(self.job.offset))
            }),
            Transfer::Store | Transfer::Append => slot.announced.get(),
            Transfer::StoreUnique | Transfer::List => None,
        };
        self.printer_session.set_started(now, size);
        if code < 200 {
            self.emit(Event::Line(line));
        } else {
            // The client needs a preliminary reply before the final one.
            self.emit(Event::Line(b"150 Opening the data connection"));
            self.hold(line);
        }
        let upload = transfer.is_upload();
        let prot = slot.prot.get();
        let copy = DataCopy { slot: job.slot, upload, prot };
        self.printer_session.send_command(DataCommand::Copy(copy));
        self.state = State::Moving;
        self.pace = Pace::default();
        self.until = Some(now + PACE_INTERVAL);
    }

    /// Aborts a transfer that moved less than 1 kB/s for two minutes, if an upload waits for the session. A transfer
    /// of which nothing moves at all is aborted by the data connection's own timeout.
    pub(super) fn check_pace(&mut self, now: Instant) {
        let bytes = self.printer_session.bytes();
        let is_slow = bytes.saturating_sub(self.pace.bytes) < MIN_PACE;
        self.pace = Pace { bytes, slow: if is_slow { self.pace.slow + 1 } else { 0 } };
        self.until = Some(now + PACE_INTERVAL);
        if self.pace.slow >= MAX_SLOW && self.hub.has_waiting_upload() {
            self.abort(now, TransferError::TooSlow);
        }
    }

    /// All data have been copied: the final reply is awaited, unless the printer sent it before.
    pub(super) fn handle_copied(&mut self, now: Instant) {
        if !self.held.is_empty() {
            return self.conclude_with_held(now);
        }
        let upload = self.printer_session.job().is_some_and(|job| job.command_kind.is_upload());
        let within = if upload { STORED_TIMEOUT } else { COMMAND_TIMEOUT };
        self.state = State::Outcome;
        self.until = Some(now + within);
    }

    /// The printer sends a reply while data are being copied.
    pub(super) fn handle_early_outcome(&mut self, now: Instant, code: u16, line: &[u8]) {
        match code {
            // The transfer begins only now: the reply before was about another one.
            100..=199 => self.held.clear(),
            200..=299 => self.hold(line),
            _ => {
                self.close_data();
                self.conclude(now, line);
            }
        }
    }

    /// Aborts the transfer. The printer's final reply is still awaited, so that it is not taken for the reply to the
    /// next command.
    pub(super) fn abort(&mut self, now: Instant, error: TransferError) {
        self.close_data();
        if self.held.is_empty() {
            self.state = State::Aborting(error);
            self.until = Some(now + ABORTED_TIMEOUT);
            if error != TransferError::Printer {
                self.answer_aborted(error);
            }
        } else {
            // The printer has sent its final reply already, and it is wrong.
            self.answer(now, format_args!("426 Transfer failed: {error}"));
        }
    }
}
