//! The session with the printer: the proxy asks it what it is, once.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | the answer | [`MAX_FRAME`](super::wire::MAX_FRAME) bytes | closed |
//! | time for the answer | [`ANSWER_TIMEOUT`] | closed |

use core::fmt;
use core::time::Duration;

use super::wire::{Answer, Fault, Request, frame};
use crate::clock::Instant;
use crate::session::{Consumed, Output, Session};

/// Time in which the printer has to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxy's end of a connection to the printer.
pub struct Upstream {
    is_sent: bool,
    until: Instant,
}

impl Upstream {
    /// A session over a connection that was just made.
    pub fn new(now: Instant) -> Self {
        Self { is_sent: false, until: now + ANSWER_TIMEOUT }
    }
}

impl Session for Upstream {
    type Event<'i> = Answer<'i>;
    type Error = Error;

    fn handle_input<'i>(&mut self, _now: Instant, input: &'i [u8]) -> Consumed<Answer<'i>, Error> {
        let Some(json) = frame(input).map_err(Error::Malformed)? else { return Ok((0, None)) };
        let answer = Answer::parse(json).map_err(Error::Malformed)?;
        Ok((input.len(), Some(answer)))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.until <= now { Err(Error::Silent) } else { Ok(()) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.until)
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Error> {
        if core::mem::replace(&mut self.is_sent, true) {
            return Output::Idle;
        }
        Request::write_detect(out).map_or(Output::Idle, Output::Written)
    }
}

/// Why the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The printer has told what it is.
    Learnt,
    /// The printer does not tell: a P1 in LAN mode.
    Refused,
    /// The answer has another serial number.
    OtherPrinter,
    /// The answer is to another question.
    Unexpected,
    /// The answer is no frame of detect.
    Malformed(Fault),
    /// No answer arrived within [`ANSWER_TIMEOUT`].
    Silent,
    /// The proxy is shutting down.
    Leaving,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learnt => f.write_str("the printer has answered"),
            Self::Refused => f.write_str("the printer refuses to answer"),
            Self::OtherPrinter => f.write_str("the answer has another serial number"),
            Self::Unexpected => f.write_str("unexpected answer"),
            Self::Malformed(fault) => fault.fmt(f),
            Self::Silent => write!(f, "no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            Self::Leaving => f.write_str("proxy is shutting down"),
        }
    }
}

impl core::error::Error for Error {}
