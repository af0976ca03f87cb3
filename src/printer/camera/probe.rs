//! The question whether somebody speaks RTSP: OPTIONS, which no printer wants a code for (PROTOCOL §4),
//! and the first line of the answer.

use core::fmt;
use core::time::Duration;

use crate::clock::Instant;
use crate::memory::budget;
use crate::session::{Output, Session};

/// How long the answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// RFC 2326, 10.1.
const QUESTION: &[u8] = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: pandaproxy\r\n\r\n";

/// What an answer begins with, whatever it says.
const ANSWER: &[u8] = b"RTSP/1.";

const _: () = assert!(
    QUESTION.len() <= budget::CAMERA_OUTBOX && ANSWER.len() <= budget::CAMERA_INBOX,
    "the camera's upstream asks with its own buffers"
);

/// Our end of the conversation.
pub struct Probe {
    asked: bool,
    until: Instant,
}

impl Probe {
    /// A conversation that begins now.
    pub fn new(now: Instant) -> Self {
        Self { asked: false, until: now + ANSWER_TIMEOUT }
    }
}

/// What the answer was; every one of them ends the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// RTSP is spoken here.
    Rtsp,
    /// Something else is.
    Other,
    /// Nothing, within [`ANSWER_TIMEOUT`].
    Silence,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rtsp => "speaks RTSP",
            Self::Other => "does not speak RTSP",
            Self::Silence => "says nothing",
        })
    }
}

impl core::error::Error for Answer {}

impl Session for Probe {
    type Event<'i> = core::convert::Infallible;
    type Error = Answer;

    fn handle_input<'i>(
        &mut self,
        _now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Self::Event<'i>>), Answer> {
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
        match out.get_mut(..QUESTION.len()) {
            Some(room) if !self.asked => {
                room.copy_from_slice(QUESTION);
                self.asked = true;
                Output::Written(QUESTION.len())
            }
            Some(_) | None => Output::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once() {
        let mut probe = Probe::new(Instant::START);
        let mut out = [0; budget::CAMERA_OUTBOX];
        let Output::Written(len) = probe.poll_output(Instant::START, &mut out) else {
            unreachable!("it asks first")
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
    fn silence_is_an_answer_after_a_while() {
        let mut probe = Probe::new(Instant::START);
        assert_eq!(probe.handle_timeout(Instant::START), Ok(()));
        assert_eq!(probe.handle_timeout(probe.poll_timeout().unwrap()), Err(Answer::Silence));
    }
}
