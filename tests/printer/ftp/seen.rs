//! What the simulated file server has seen: counts, and the last commands.

use std::collections::VecDeque;

/// Command lines remembered. Past it the oldest is forgotten.
pub(crate) const COMMANDS_KEPT: usize = 1024;

/// Everything counted since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Control connections that have a place, now.
    pub(crate) open: usize,
    /// The most of them at once.
    pub(crate) most_open: usize,
    /// All there ever were.
    pub(crate) ever: u64,
    /// Connections over the limit: held, closed or answered 421.
    pub(crate) over: u64,
    /// Connections held until there is a place, now.
    pub(crate) held: usize,
    /// Connections turned away because it was dead.
    pub(crate) while_dead: u64,
    /// PASS answered 230.
    pub(crate) logins: u64,
    /// PASS answered 530.
    pub(crate) wrong_codes: u64,
    /// The last [`COMMANDS_KEPT`] command lines in their order, all sessions together. What follows
    /// PASS is left out.
    pub(crate) commands: VecDeque<String>,
    /// Command lines ever.
    pub(crate) commands_ever: u64,
    /// TLS records that ended before their line did.
    pub(crate) split: u64,
    /// TLS records that held more than one line.
    pub(crate) pipelined: u64,
    /// Data connections accepted.
    pub(crate) data: u64,
    /// Of those in TLS, the ones that resumed the session of their control connection.
    pub(crate) resumed: u64,
    /// Of those in TLS, the ones that resumed nothing.
    pub(crate) not_resumed: u64,
    /// Data connections whose client spoke before it was answered 150.
    pub(crate) early: u64,
    /// Data connections from another address than their control connection's, refused for that.
    pub(crate) unwanted: u64,
    /// Transfers under way, up, down and listings.
    pub(crate) transfers: usize,
    /// The most of them at once.
    pub(crate) most_transfers: usize,
    /// Uploads under way.
    pub(crate) uploads: usize,
    /// The most of them at once.
    pub(crate) most_uploads: usize,
    /// Uploads ever begun, that is, answered 150.
    pub(crate) uploads_ever: u64,
    /// Bytes of files taken, all uploads together.
    pub(crate) taken: u64,
    /// Bytes of files and listings given.
    pub(crate) given: u64,
    /// Transfers answered 226.
    pub(crate) completed: u64,
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
    pub(crate) fn count(&self, verb: &str) -> usize {
        let is = |line: &&String| line.split(' ').next().is_some_and(|it| it == verb);
        self.commands.iter().filter(is).count()
    }
}
