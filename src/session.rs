//! The contract of every conversation.
//!
//! A [`Session`] is one end of one conversation as a pure state machine. It has no socket, no clock
//! and never waits, so a test can drive it one byte at a time, split anywhere. The shell that runs
//! any session over any stream is [`runtime::drive`](crate::runtime::drive); what a session learns
//! goes to its [`Handler`], which is the service's hub seen from one of its slots.

use core::fmt;

use crate::clock::Instant;

/// One end of a conversation.
pub trait Session {
    /// What its host is told. It may point into the input, so that a payload is copied by its host alone.
    type Event<'i>;
    /// What is wrong when it cannot go on.
    type Error: Copy + fmt::Debug + fmt::Display;

    /// Reads from the front of `input`, up to the end of what makes one event. Says how much was read,
    /// and the event if there was one.
    ///
    /// Whatever was not read comes again in the next call, with more behind it if more has arrived;
    /// `(0, None)` means that it is too little as it is.
    ///
    /// # Errors
    ///
    /// It cannot go on; a farewell may still be had from [`poll_output`](Self::poll_output).
    fn handle_input<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Self::Event<'i>>), Self::Error>;

    /// Called once [`poll_timeout`](Self::poll_timeout) is reached or past.
    ///
    /// # Errors
    ///
    /// The peer has taken too long for something.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), Self::Error>;

    /// Its earliest deadline. `None`: it has none.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Puts what is to be sent into `out`. There is no next call before that has left.
    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Self::Error>;

    /// The bytes that [`Output::Shared`] spoke of. They stay as they are until they have been sent.
    fn shared(&self) -> &[u8] {
        &[]
    }
}

/// What a session has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output<E> {
    /// There is nothing to send; input or time may change that.
    Idle,
    /// So many bytes of `out`.
    Written(usize),
    /// What [`Session::shared`] shows: something large that many conversations send, and that is not
    /// copied for each of them. It leaves apart from all other bytes.
    Shared,
    /// Nothing any more: the conversation is over, for this reason.
    End(E),
}

/// Whom a session reports to.
pub trait Handler<S: Session> {
    /// Whether the session may be offered more input now. A host that says no wakes it later: that
    /// is how a full queue reaches the peer as back-pressure.
    fn admits(&self, session: &S) -> bool;

    /// Takes an event.
    ///
    /// # Errors
    ///
    /// The conversation has to end over this event.
    fn handle_event(
        &self,
        now: Instant,
        session: &mut S,
        event: S::Event<'_>,
    ) -> Result<(), S::Error>;

    /// Whether other tasks are to run after an event and before the next one, even if that has come already.
    fn lets_others_run(&self) -> bool {
        false
    }

    /// Completes when the session has something to send, or may go on reading.
    fn woken(&self) -> impl Future<Output = ()>;
}

/// Who caused an end. The log's level and the wait before the next attempt follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody's: an orderly end.
    Nobody,
    /// The peer broke the protocol or gave a wrong code.
    Peer,
    /// The line between us: silence, a stall, a reset.
    Network,
    /// A bound of ours was met.
    Board,
}
