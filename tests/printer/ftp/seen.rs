//! What the simulated file server has seen: counts, and the last commands.

use std::collections::VecDeque;

/// Command lines remembered. Past it the oldest is forgotten.
pub const COMMANDS_KEPT: usize = 1024;

/// Everything counted since the start.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Control connections that have a place, now.
    pub open: usize,
    /// The most of them at once.
    pub most_open: usize,
    /// All there ever were.
    pub ever: u64,
    /// Connections over the limit: held, closed or answered 421.
    pub over: u64,
    /// Connections held until there is a place, now.
    pub held: usize,
    /// Connections turned away because it was dead.
    pub while_dead: u64,
    /// PASS answered 230.
    pub logins: u64,
    /// PASS answered 530.
    pub wrong_codes: u64,
    /// The last [`COMMANDS_KEPT`] command lines in their order, all sessions together. What follows
    /// PASS is left out.
    pub commands: VecDeque<String>,
    /// Command lines ever.
    pub commands_ever: u64,
    /// TLS records that ended before their line did.
    pub split: u64,
    /// TLS records that held more than one line.
    pub pipelined: u64,
    /// Data connections accepted.
    pub data: u64,
    /// Of those in TLS, the ones that resumed the session of their control connection.
    pub resumed: u64,
    /// Of those in TLS, the ones that resumed nothing.
    pub not_resumed: u64,
    /// Data connections whose client spoke before it was answered 150.
    pub early: u64,
    /// Data connections from another address than their control connection's, refused for that.
    pub unwanted: u64,
    /// Transfers under way, up, down and listings.
    pub transfers: usize,
    /// The most of them at once.
    pub most_transfers: usize,
    /// Uploads under way.
    pub uploads: usize,
    /// The most of them at once.
    pub most_uploads: usize,
    /// Uploads ever begun, that is, answered 150.
    pub uploads_ever: u64,
    /// Bytes of files taken, all uploads together.
    pub taken: u64,
    /// Bytes of files and listings given.
    pub given: u64,
    /// Transfers answered 226.
    pub completed: u64,
}

impl Seen {
    /// Remembers a command.
    pub(super) fn command(&mut self, line: &str) {
        if self.commands.len() == COMMANDS_KEPT {
            self.commands.pop_front();
        }
        let line = if line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case("pass ")) {
            "PASS *"
        } else {
            line
        };
        self.commands.push_back(line.to_owned());
        self.commands_ever += 1;
    }

    /// How many of the remembered commands begin with this word.
    pub fn count(&self, verb: &str) -> usize {
        let is = |line: &&String| line.split(' ').next().is_some_and(|it| it == verb);
        self.commands.iter().filter(is).count()
    }
}
