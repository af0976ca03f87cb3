//! From the printer's 150 to the last byte: the transfer begins, and is aborted if it fails.

#[cfg(test)]
mod tests;

use super::{ABORTED_TIMEOUT, COMMAND_TIMEOUT, STORED_TIMEOUT, State, Upstream};
use crate::clock::Instant;
use crate::ftp::event::Event;
use crate::ftp::printer_session::{DataCommand, DataCopy, Job, TransferError};
use crate::ftp::slot::Transfer;
use crate::ftp::wire;

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
        // The data task has a timeout of its own.
        self.until = None;
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
