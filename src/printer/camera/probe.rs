//! The probe of port 322: OPTIONS, which printers answer without an access code, and the beginning of the
//! answer (see [`protocol`](crate::protocol#rtsps-camera)).

use core::convert::Infallible;
use core::fmt;
use core::time::Duration;

use crate::clock::Instant;
use crate::memory::budget;
use crate::session::{Consumed, Output, Session};

/// How long the answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The request (RFC 2326, 10.1).
const REQUEST: &[u8] = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: pandaproxy\r\n\r\n";

/// The beginning of every RTSP response.
const ANSWER: &[u8] = b"RTSP/1.";

const _: () = assert!(
    REQUEST.len() <= budget::CAMERA_OUTBOX && ANSWER.len() <= budget::CAMERA_INBOX,
    "the probe uses the buffers of the chamber camera's upstream"
);

/// The session of one probe.
pub struct Probe {
    is_sent: bool,
    until: Instant,
}

impl Probe {
    /// A probe over a connection that was just made.
    pub fn new(now: Instant) -> Self {
        Self { is_sent: false, until: now + ANSWER_TIMEOUT }
    }
}

/// What the server is; each ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An RTSP server.
    Rtsp,
    /// Another server.
    Other,
    /// No answer within [`ANSWER_TIMEOUT`].
    Silence,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtsp => "an RTSP server",
            Self::Other => "not an RTSP server",
            Self::Silence => "no answer",
        })
    }
}

impl Session for Probe {
    type Event<'i> = Infallible;
    type Error = Answer;

    fn handle_input(&mut self, _now: Instant, input: &[u8]) -> Consumed<Infallible, Answer> {
        let same = input.iter().zip(ANSWER).take_while(|(got, wanted)| got == wanted).count();
        if same == ANSWER.len() {
            Err(Answer::Rtsp)
        } else if same == input.len() {
            Ok((0, None))
        } else {
            Err(Answer::Other)
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Answer> {
        if self.until <= now { Err(Answer::Silence) } else { Ok(()) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.until)
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Answer> {
        match out.get_mut(..REQUEST.len()) {
            Some(room) if !self.is_sent => {
                room.copy_from_slice(REQUEST);
                self.is_sent = true;
                Output::Written(REQUEST.len())
            }
            Some(_) | None => Output::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_sent_once() {
        let mut probe = Probe::new(Instant::START);
        let mut out = [0; budget::CAMERA_OUTBOX];
        let Output::Written(len) = probe.poll_output(Instant::START, &mut out) else {
            unreachable!("the request comes first")
        };
        assert!(out[..len].starts_with(b"OPTIONS ") && out[..len].ends_with(b"\r\n\r\n"));
        assert_eq!(probe.poll_output(Instant::START, &mut out), Output::Idle);
    }

    #[test]
    fn an_answer_is_recognised_by_its_first_bytes_and_not_before() {
        let answers = [
            (&b"RTSP/1.0 200 OK\r\n"[..], Answer::Rtsp),
            (b"RTSP/1.0 401 Unauthorized\r\n", Answer::Rtsp),
            (b"HTTP/1.1 400 Bad Request\r\n", Answer::Other),
            (b"RTSP/2.0 200 OK\r\n", Answer::Other),
        ];
        for (bytes, answer) in answers {
            let heard = (1..=bytes.len()).find_map(|len| {
                Probe::new(Instant::START).handle_input(Instant::START, &bytes[..len]).err()
            });
            assert_eq!(heard, Some(answer));
        }
    }

    #[test]
    fn no_answer_ends_the_probe() {
        let mut probe = Probe::new(Instant::START);
        assert_eq!(probe.handle_timeout(Instant::START), Ok(()));
        assert_eq!(probe.handle_timeout(probe.poll_timeout().unwrap()), Err(Answer::Silence));
    }
}
