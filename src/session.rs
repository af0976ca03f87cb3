//! The contract of every session, whatever its protocol.
//!
//! A [`Session`] is one end of a connection as a pure state machine. It has no socket, no clock and
//! never waits, so a test can drive it one byte at a time. The shell that runs
//! any session over any stream is [`runtime::drive`](crate::runtime::drive); what a session learns
//! goes to its [`Handler`], which is the service's hub seen from one of its slots.

use core::convert::Infallible;
use core::fmt;

use crate::auth::LoginError;
use crate::clock::Instant;
use crate::journal::Kind;
use crate::memory::slots::{Slot, SlotGuard};

/// What [`Session::handle_input`] returns: how much of the input was read, and the event if there was one.
pub type Consumed<T, E> = Result<(usize, Option<T>), E>;

/// One end of a connection.
pub trait Session {
    /// What its [`Handler`] receives. An event may borrow from the input, so that only the handler copies a
    /// payload.
    type Event<'i>;
    /// Why the session ends.
    type Error: Copy + fmt::Debug + fmt::Display + 'static;

    /// Reads from the front of `input`, up to the end of what makes one event. Says how much was read,
    /// and the event if there was one.
    ///
    /// Whatever was not read comes again in the next call, with more behind it if more has arrived;
    /// `(0, None)` means that it is too little as it is.
    ///
    /// # Errors
    ///
    /// The session ends. [`poll_output`](Self::poll_output) may still return a last message.
    fn handle_input<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Consumed<Self::Event<'i>, Self::Error>;

    /// Whether input is read now. A session that is not read is woken by its handler once it is to be read again: a full
    /// queue becomes back-pressure on the peer.
    fn reads(&self) -> bool {
        true
    }

    /// Called once [`poll_timeout`](Self::poll_timeout) is reached or past.
    ///
    /// # Errors
    ///
    /// The peer has taken too long for something.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), Self::Error>;

    /// The session's earliest deadline; `None` without one.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Writes the next bytes to send into `out`. It is not called again before they have been sent.
    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Self::Error>;

    /// The bytes of [`Output::Shared`]. They do not change until they have been sent.
    fn shared(&self) -> &[u8] {
        &[]
    }
}

/// What a session has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output<E> {
    /// Nothing to send until input or a timeout.
    Idle,
    /// The first so many bytes of `out`.
    Written(usize),
    /// The bytes of [`Session::shared`]: a large frame that many sessions send without a copy for each. It
    /// is sent in records of its own.
    Shared,
    /// The session is over, for this reason.
    End(E),
}

/// What receives a session's events: the service's hub, seen from one slot.
pub trait Handler<S: Session> {
    /// Takes an event.
    ///
    /// # Errors
    ///
    /// The session ends because of this event.
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

    /// Completes when the session has something to send, or may be [read](Session::reads) again.
    fn woken(&self) -> impl Future<Output = ()>;
}

/// What wakes a session whose handler does nothing else.
pub trait Wake {
    /// Completes when there is something for the session.
    fn notified(&self) -> impl Future<Output = ()>;
}

impl<S: Slot> Wake for SlotGuard<S> {
    fn notified(&self) -> impl Future<Output = ()> {
        (***self).notified()
    }
}

/// Nothing: the session ends by itself.
impl Wake for () {
    fn notified(&self) -> impl Future<Output = ()> {
        core::future::pending()
    }
}

/// The handler of a session without events, which `W` wakes.
pub struct NoEvents<W>(pub W);

impl<W, S> Handler<S> for NoEvents<W>
where
    W: Wake,
    S: for<'i> Session<Event<'i> = Infallible>,
{
    fn handle_event(&self, _: Instant, _: &mut S, event: Infallible) -> Result<(), S::Error> {
        match event {}
    }

    fn woken(&self) -> impl Future<Output = ()> {
        self.0.notified()
    }
}

/// Why a client's session ends.
pub trait ClientError: Copy + fmt::Debug + fmt::Display {
    /// How the journal counts the end.
    fn kind(self) -> Kind;

    /// The refused login that ended the session, if that was the cause.
    fn login_error(self) -> Option<LoginError>;
}
