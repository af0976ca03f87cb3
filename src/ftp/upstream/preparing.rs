//! From a free session to the client's own line: the next job, the settings it needs, and the data connection.

#[cfg(test)]
mod tests;

use super::{ANSWER_TIMEOUT, COMMAND_TIMEOUT, CONNECT_TIMEOUT, Outgoing, QUIT_TIMEOUT, State};
use super::{Upstream, WorkingDirectory};
use crate::clock::Instant;
use crate::ftp::printer_session::{DataCommand, Job};
use crate::ftp::slot::{CommandKind, Slot, Transfer};
use crate::ftp::wire;

impl Upstream {
    /// Takes the next job if there is one, or quits if this program ends.
    pub(super) fn start_next(&mut self, now: Instant) {
        if self.hub.is_leaving() {
            self.send(now, State::Quitting, Outgoing::Quit, QUIT_TIMEOUT);
        } else if self.hub.assign(now, &self.printer_session) {
            self.advance(now);
        }
    }

    /// Sends the next line of the job: a setting in which client and session differ, or the client's own line.
    pub(super) fn advance(&mut self, now: Instant) {
        let Some(job) = self.printer_session.job() else { return self.set_idle(now) };
        let Some(slot) = self.hub.client_of(&job).cloned() else {
            return self.finish_without_client(now);
        };
        let transfer = job.command_kind.transfer();
        let has_type = transfer.is_some() || job.command_kind == CommandKind::Size;
        if has_type && !self.job.typed && self.kind != Some(slot.kind.get()) {
            return self.send_setting(now, Outgoing::Type(slot.kind.get()));
        }
        if !self.is_independent_of_directory(&job) && !self.is_in_directory_of(&slot) {
            return self.send_setting(now, Outgoing::Directory);
        }
        if let Some(transfer) = transfer {
            if self.prot != Some(slot.prot.get()) {
                return self.send_setting(now, Outgoing::Prot(slot.prot.get()));
            }
            if !self.job.connected {
                let passive = if self.hub.is_extended() { Outgoing::Epsv } else { Outgoing::Pasv };
                return self.send(now, State::Passive, passive, ANSWER_TIMEOUT);
            }
            let offset = match transfer {
                Transfer::Retrieve | Transfer::Store | Transfer::Append => slot.restart.get(),
                Transfer::StoreUnique | Transfer::List => None,
            };
            if !self.job.restarted && (offset.is_some() || self.restart_pending) {
                self.job.offset = offset.unwrap_or(0);
                return self.send_setting(now, Outgoing::Restart(self.job.offset));
            }
        }
        if job.command_kind == CommandKind::RenameTo && !self.job.renamed {
            return self.send_setting(now, Outgoing::Renaming);
        }
        self.send(now, State::Command, Outgoing::Command, COMMAND_TIMEOUT);
    }

    fn send_setting(&mut self, now: Instant, setting: Outgoing) {
        self.send(now, State::Setting(setting), setting, ANSWER_TIMEOUT);
    }

    /// Whether a command means the same in every directory. A CWD to an absolute path must not fail because the
    /// client's present directory was deleted.
    fn is_independent_of_directory(&self, job: &Job) -> bool {
        let absolute = || self.printer_session.with_argument(|path| path.starts_with(b"/"));
        job.command_kind == CommandKind::Features
            || (job.command_kind == CommandKind::ChangeDirectory && absolute())
    }

    /// Whether the session's directory is the client's.
    fn is_in_directory_of(&self, slot: &Slot) -> bool {
        let wanted = slot.directory.borrow();
        match self.directory {
            WorkingDirectory::Unknown => false,
            WorkingDirectory::Home => wanted.is_empty() || *wanted == self.home,
            WorkingDirectory::Known if wanted.is_empty() => self.here == self.home,
            WorkingDirectory::Known => *wanted == self.here,
        }
    }

    /// The reply to a setting. A refusal is the reply to the client's command, except of TYPE before a listing.
    pub(super) fn handle_setting(
        &mut self,
        now: Instant,
        setting: Outgoing,
        code: u16,
        line: &[u8],
    ) {
        let good = matches!(code, 200..=399);
        let listing = self.printer_session.job().and_then(|job| job.command_kind.transfer())
            == Some(Transfer::List);
        match setting {
            Outgoing::Type(kind) if good => self.kind = Some(kind),
            // A listing is text whatever the type is.
            Outgoing::Type(_) if listing => self.job.typed = true,
            Outgoing::Prot(prot) if good => self.prot = Some(prot),
            Outgoing::Directory if good => {
                match self.slot().map(|slot| slot.directory.borrow().clone()) {
                    Some(directory) if !directory.is_empty() => {
                        self.here = directory;
                        self.directory = WorkingDirectory::Known;
                    }
                    Some(_) => self.directory = WorkingDirectory::Home,
                    None => self.directory = WorkingDirectory::Unknown,
                }
            }
            Outgoing::Restart(_) if good => {
                self.job.restarted = true;
                self.restart_pending = true;
            }
            Outgoing::Renaming if good => self.job.renamed = true,
            Outgoing::User
            | Outgoing::Pass
            | Outgoing::Pbsz
            | Outgoing::Pwd
            | Outgoing::Type(_)
            | Outgoing::Prot(_)
            | Outgoing::Directory
            | Outgoing::Epsv
            | Outgoing::Pasv
            | Outgoing::Restart(_)
            | Outgoing::Renaming
            | Outgoing::Command
            | Outgoing::Size
            | Outgoing::Quit => {
                self.close_data();
                return self.conclude(now, line);
            }
        }
        self.advance(now);
    }

    /// The reply to EPSV or PASV: the port to connect to. EPSV that fails is replaced by PASV from now on.
    pub(super) fn handle_passive(&mut self, now: Instant, code: u16, line: &[u8]) {
        if let Some(port) = wire::passive_port(code, line) {
            if self.slot().is_none() {
                return self.advance(now);
            }
            self.state = State::Connecting;
            self.until = Some(now + CONNECT_TIMEOUT);
            return self.printer_session.send_command(DataCommand::Connect { port });
        }
        if self.hub.is_extended() && matches!(code, 229 | 500..=599) {
            self.hub.set_not_extended();
            return self.advance(now);
        }
        match code {
            400..=599 => self.conclude(now, line),
            _ => self.answer(now, format_args!("425 The printer's reply names no data port")),
        }
    }
}
