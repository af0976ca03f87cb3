//! The printer's reply to the client's command, and what the client is answered.

#[cfg(test)]
mod tests;

use core::fmt;

use super::{ANSWER_TIMEOUT, Outgoing, State, Upstream, WorkingDirectory};
use crate::clock::Instant;
use crate::ftp::event::Event;
use crate::ftp::printer_session::TransferError;
use crate::ftp::slot::{CommandKind, Transfer, Type};
use crate::ftp::wire;

impl Upstream {
    /// Finishes the job with this line of the printer's.
    pub(super) fn conclude(&mut self, now: Instant, line: &[u8]) {
        self.emit(Event::Reply(line));
        match line {
            [b'1'..=b'3', ..] => self.finish(now, Ok(())),
            _ => self.finish(now, Err(format_args!("the printer replied {}", wire::Shown(line)))),
        }
    }

    /// Finishes the job with a reply of the proxy's own, which is a failure.
    pub(super) fn answer(&mut self, now: Instant, reply: fmt::Arguments<'_>) {
        self.emit(Event::Answer(reply));
        self.finish(now, Err(reply));
    }

    /// Finishes the job with the reply that was kept.
    pub(super) fn conclude_with_held(&mut self, now: Instant) {
        let held = core::mem::take(&mut self.held);
        self.conclude(now, &held);
    }

    /// Answers the client of an aborted transfer; the session is not free before the printer has replied.
    pub(super) fn answer_aborted(&self, error: TransferError) {
        self.emit(Event::Answer(format_args!("426 Transfer failed: {error}")));
    }

    /// A line of a reply that is passed to the client as it is.
    pub(super) fn forward(&mut self, code: u16, line: &[u8]) {
        let Some(job) = self.printer_session.job() else { return };
        // A final reply before the preliminary one: see `begin`.
        if job.command_kind.transfer().is_some() && matches!(code, 200..=299) {
            return;
        }
        let features = job.command_kind == CommandKind::Features && code == 211;
        if !features || self.features.admits(line) {
            self.emit(Event::Line(line));
        }
        self.features.begun |= features;
    }

    /// The printer's reply to the client's own line.
    pub(super) fn handle_answer(&mut self, now: Instant, code: u16, line: &[u8]) {
        let Some(job) = self.printer_session.job() else { return self.set_idle(now) };
        if let Some(transfer) = job.command_kind.transfer() {
            return match code {
                100..=299 => self.begin(now, &job, transfer, code, line),
                _ => {
                    self.restart_pending = false;
                    self.close_data();
                    self.conclude(now, line);
                }
            };
        }
        if code < 200 {
            return self.emit(Event::Line(line));
        }
        match job.command_kind {
            CommandKind::ChangeDirectory if matches!(code, 200..=299) => {
                self.hold(line);
                self.directory = WorkingDirectory::Unknown;
                return self.send(now, State::Directory, Outgoing::Pwd, ANSWER_TIMEOUT);
            }
            CommandKind::Restart if code == 350 => {
                let offset = self
                    .printer_session
                    .with_argument(|argument| wire::number(argument.trim_ascii()));
                self.restart_pending = true;
                self.emit(Event::RestartOffset(offset));
            }
            CommandKind::RenameFrom if code == 350 => {
                self.printer_session.with_line(|line| self.emit(Event::Renaming(line)));
            }
            CommandKind::RenameFrom | CommandKind::RenameTo => self.emit(Event::Renaming(&[])),
            CommandKind::Size => {
                let size = wire::size_in(code, line).filter(|_| code == 213);
                self.emit(Event::Size { name: self.printer_session.argument_hash(), size });
            }
            CommandKind::Allocate => {
                let size = self.printer_session.with_argument(|argument| {
                    wire::number(argument.split(|byte| *byte == b' ').next().unwrap_or_default())
                });
                self.emit(Event::Announced(size));
            }
            CommandKind::Features if code == 211 => {
                if !self.features.begun {
                    self.emit(Event::Line(b"211-Features:"));
                }
                for feature in self.features.missing().into_iter().flatten() {
                    self.emit(Event::Line(feature));
                }
            }
            CommandKind::Plain
            | CommandKind::Features
            | CommandKind::ChangeDirectory
            | CommandKind::Restart
            | CommandKind::Transfer(_) => {}
        }
        self.conclude(now, line);
    }

    /// The final reply, after all data have been copied.
    pub(super) fn handle_outcome(&mut self, now: Instant, code: u16, line: &[u8]) {
        match code {
            100..=199 => {}
            426 if self.can_check_size() => {
                self.hold(line);
                self.send(now, State::Sizing, Outgoing::Size, ANSWER_TIMEOUT);
            }
            _ => self.conclude(now, line),
        }
    }

    /// Whether SIZE shows whether an upload is complete: the file's name and the upload's offset are known, and the
    /// bytes are stored unchanged.
    fn can_check_size(&self) -> bool {
        let store = Some(CommandKind::Transfer(Transfer::Store));
        self.printer_session.job().map(|job| job.command_kind) == store
            && self.kind == Some(Type::Image)
    }

    /// The reply to SIZE after a 426: the upload is complete if the file has all bytes.
    pub(super) fn handle_sizing(&mut self, now: Instant, code: u16, line: &[u8]) {
        let expected = self.job.offset.saturating_add(self.printer_session.bytes());
        if code == 213 && wire::size_in(code, line) == Some(expected) {
            if let Some(job) = self.printer_session.job() {
                let peer = job.peer;
                log::info!(
                    "{peer}: the printer replied 426, but its file has all {expected} bytes"
                );
            }
            self.conclude(now, b"226 Transfer complete: the printer has the whole file");
        } else {
            self.conclude_with_held(now);
        }
    }

    /// The reply to PWD after a change of directory.
    pub(super) fn handle_directory(&mut self, code: u16, line: &[u8]) {
        if code == 257 && wire::quoted(line, &mut self.here) {
            self.directory = WorkingDirectory::Known;
            self.emit(Event::Directory(&self.here));
        } else {
            self.hold(b"550 The printer does not say which directory this is");
        }
    }

    /// The final reply to an aborted transfer. If the printer's data connection broke, the printer's own reply names
    /// the cause better than what was seen here.
    pub(super) fn handle_aborted(
        &mut self,
        now: Instant,
        error: TransferError,
        code: u16,
        line: &[u8],
    ) {
        match (error, code) {
            (_, 100..=199) => {}
            (TransferError::Printer, ..200 | 300..) => self.conclude(now, line),
            (_, _) => self.answer(now, format_args!("426 Transfer failed: {error}")),
        }
    }
}
