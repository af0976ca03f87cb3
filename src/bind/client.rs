//! A client's session: one request, and one answer.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a whole conversation | [`REQUEST_TIMEOUT`] | closed |
//! | a request | [`MAX_FRAME`] bytes | closed |
//! | data behind a request that is not answered | [`MAX_FRAME`] bytes, ignored | closed |

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::wire::{Command, FRAMING, Fault, MAX_FRAME, Request, frame};
use super::{Service, Slot};
use crate::auth::LoginError;
use crate::clock::Instant;
use crate::journal::Kind;
use crate::memory::slots::SlotState;
use crate::session::{ClientError, Consumed, Output, Session};

/// Time for the request, from the connection on.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxy's end of a client's connection.
pub struct Client {
    slot: Rc<Slot>,
    service: Rc<Service>,
    until: Instant,
    is_own: bool,
    step: Step,
}

enum Step {
    /// The request has not arrived.
    Request,
    /// The answer to this request has not been sent.
    Answer(Request),
    /// The answer has been sent, and the session is over.
    Over(Error),
    /// The command has no answer. So many bytes arrived behind it.
    Unanswered(usize),
}

impl Client {
    /// A session whose request is due at `until`. `is_own`: the client runs on this machine.
    pub const fn new(slot: Rc<Slot>, service: Rc<Service>, until: Instant, is_own: bool) -> Self {
        Self { slot, service, until, is_own, step: Step::Request }
    }

    /// Whether the client runs on this machine.
    pub const fn is_own(&self) -> bool {
        self.is_own
    }
}

impl Session for Client {
    type Event<'i> = core::convert::Infallible;
    type Error = Error;

    fn handle_input(&mut self, _now: Instant, input: &[u8]) -> Consumed<Self::Event<'_>, Error> {
        match &mut self.step {
            Step::Request => {
                let Some(json) = frame(input).map_err(Error::Malformed)? else {
                    return Ok((0, None));
                };
                let len = json.len() + FRAMING;
                let request = Request::parse(json).map_err(Error::Malformed)?;
                self.step = match request.command {
                    Command::Detect | Command::Login => Step::Answer(request),
                    Command::Other => Step::Unanswered(0),
                };
                Ok((len, None))
            }
            Step::Unanswered(excess) => {
                *excess = excess.saturating_add(input.len());
                if *excess > MAX_FRAME {
                    return Err(Error::UnexpectedData);
                }
                Ok((input.len(), None))
            }
            Step::Answer(_) | Step::Over(_) => Ok((0, None)),
        }
    }

    /// Not between a request and its answer: a client that has closed its side is answered all the same.
    fn reads(&self) -> bool {
        matches!(self.step, Step::Request | Step::Unanswered(_))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        match self.step {
            Step::Request if self.until <= now => Err(Error::Silent),
            Step::Unanswered(_) if self.until <= now => Err(Error::Unknown),
            Step::Request | Step::Answer(_) | Step::Over(_) | Step::Unanswered(_) => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.step {
            Step::Request | Step::Unanswered(_) => Some(self.until),
            Step::Answer(_) | Step::Over(_) => None,
        }
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Error> {
        if let SlotState::Dismissed(_) = self.slot.state() {
            return Output::End(Error::Stopping);
        }
        match &self.step {
            Step::Answer(request) => {
                let (len, end) = self.service.answer(request, out);
                self.step = Step::Over(end);
                Output::Written(len)
            }
            Step::Over(end) => Output::End(*end),
            Step::Request | Step::Unanswered(_) => Output::Idle,
        }
    }
}

/// Why a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The client was told which printer this is.
    Answered,
    /// The client asked for account binding, and was told that it failed.
    Binding,
    /// The command has no answer.
    Unknown,
    /// The first bytes are no request.
    Malformed(Fault),
    /// No request arrived within [`REQUEST_TIMEOUT`].
    Silent,
    /// More than [`MAX_FRAME`] bytes arrived behind a request that has no answer.
    UnexpectedData,
    /// The proxy is shutting down.
    Stopping,
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::Answered | Self::Stopping => Kind::Left,
            Self::Binding => Kind::RequestRefused,
            Self::Unknown => Kind::RequestIgnored,
            Self::Malformed(_) | Self::UnexpectedData => Kind::Malformed,
            Self::Silent => Kind::Silent,
        }
    }

    fn login_error(self) -> Option<LoginError> {
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("request for detect answered"),
            Self::Binding => f.write_str(
                "account binding refused; bind the printer to an account without the proxy",
            ),
            Self::Unknown => f.write_str("unknown command"),
            Self::Malformed(fault) => fault.fmt(f),
            Self::Silent => write!(f, "no request within {} s", REQUEST_TIMEOUT.as_secs()),
            Self::UnexpectedData => f.write_str("unexpected data after the request"),
            Self::Stopping => f.write_str("proxy is shutting down"),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::status::{Port6000, Status};
    use alloc::vec;

    const UNTIL: Instant = Instant::at(REQUEST_TIMEOUT);
    const BEFORE: Instant = Instant::at(Duration::from_millis(4999));

    fn client() -> Client {
        let status = Rc::new(Status::new("01P00A000000001", Port6000::Auto));
        let service = Service::new("detect", "01P00A000000001", status);
        let (client, _slot) = service.client(UNTIL, false).unwrap();
        client
    }

    #[test]
    fn a_client_without_a_request_is_disconnected_at_its_deadline() {
        let mut client = client();
        assert_eq!(client.poll_timeout(), Some(UNTIL));
        assert!(matches!(client.handle_input(BEFORE, b"\xa5\xa5"), Ok((0, None))));
        assert_eq!(client.handle_timeout(BEFORE), Ok(()));
        assert_eq!(client.handle_timeout(UNTIL), Err(Error::Silent));
    }

    #[test]
    fn an_unknown_command_is_not_answered_and_ends_at_its_deadline() {
        let mut client = client();
        let json = br#"{"login":{"command":"greet"}}"#;
        let len = u8::try_from(json.len() + FRAMING).unwrap();
        let request = [&[0xa5, 0xa5, len, 0][..], json, &[0xa7, 0xa7]].concat();
        let taken = client.handle_input(BEFORE, &request).map(|(taken, _)| taken);
        assert_eq!(taken, Ok(request.len()));
        assert!(matches!(client.poll_output(BEFORE, &mut [0; 64]), Output::Idle));
        assert_eq!(client.poll_timeout(), Some(UNTIL));
        assert_eq!(client.handle_timeout(BEFORE), Ok(()));
        assert_eq!(client.handle_timeout(UNTIL), Err(Error::Unknown));
        // What comes behind it is ignored, up to a bound.
        let most = vec![0; MAX_FRAME];
        assert!(matches!(client.handle_input(BEFORE, &most), Ok((MAX_FRAME, None))));
        assert!(matches!(client.handle_input(BEFORE, &[0]), Err(Error::UnexpectedData)));
    }
}
