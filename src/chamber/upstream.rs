//! The conversation with the camera: a login, then pictures, as long as anybody watches.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | silence | [`MAX_SILENT`] | the connection is given up and made anew |
//! | a picture | [`MAX_PICTURE`](super::wire::MAX_PICTURE) bytes | we have lost count: given up as well |

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::wire::{HEAD, Head, LOGIN, Login};
use crate::auth::{AccessCode, USER};
use crate::clock::Instant;
use crate::notify::Demand;
use crate::session::{Output, Session};

/// How long the camera may say nothing. P1 shows a picture every two seconds, and the first one after
/// a cold start takes several (PROTOCOL §3.2).
pub const MAX_SILENT: Duration = Duration::from_secs(30);

/// Why the camera is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody watches.
    Watch,
    /// To find out whether there is one: the first picture's head ends it.
    Probe,
}

/// Our end of the conversation.
pub struct Upstream {
    demand: Rc<Demand>,
    code: Rc<AccessCode>,
    purpose: Purpose,
    step: Step,
    heard: Instant,
}

#[derive(Clone, Copy)]
enum Step {
    Login,
    /// Logged in; the next bytes are a head. Whether there was one before.
    Head(bool),
    /// In the middle of a picture: bytes that are missing.
    Picture(usize),
    /// The probe has found what it was looking for.
    Found,
}

/// What the hub learns from the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A picture of so many bytes comes.
    Begin(usize),
    /// More of it.
    Bytes(&'i [u8]),
}

impl Upstream {
    /// A conversation that begins now.
    pub const fn new(
        demand: Rc<Demand>,
        code: Rc<AccessCode>,
        purpose: Purpose,
        now: Instant,
    ) -> Self {
        Self { demand, code, purpose, step: Step::Login, heard: now }
    }

    /// Whether the camera has shown anything: it took our code.
    pub const fn has_answered(&self) -> bool {
        match self.step {
            Step::Login | Step::Head(false) => false,
            Step::Head(true) | Step::Picture(_) | Step::Found => true,
        }
    }
}

impl Session for Upstream {
    type Event<'i> = Event<'i>;
    type Error = Error;

    fn handle_input<'i>(
        &mut self,
        now: Instant,
        input: &'i [u8],
    ) -> Result<(usize, Option<Event<'i>>), Error> {
        self.heard = now;
        if let Step::Picture(missing) = self.step {
            let len = missing.min(input.len());
            self.step =
                if len == missing { Step::Head(true) } else { Step::Picture(missing - len) };
            return Ok((len, input.get(..len).map(Event::Bytes)));
        }
        let Some(bytes) = input.first_chunk::<HEAD>() else { return Ok((0, None)) };
        match Head::parse(bytes) {
            Head::Tunnel => Err(Error::Tunnel),
            Head::Absurd(len) => Err(Error::Absurd(len)),
            Head::Picture(_) if self.purpose == Purpose::Probe => {
                self.step = Step::Found;
                Err(Error::Found)
            }
            Head::Picture(len) => {
                self.step = if len == 0 { Step::Head(true) } else { Step::Picture(len) };
                Ok((HEAD, Some(Event::Begin(len))))
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if now.since(self.heard) >= MAX_SILENT { Err(Error::Silent) } else { Ok(()) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.heard + MAX_SILENT)
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Error> {
        if self.demand.is_leaving() {
            return Output::End(Error::Leaving);
        }
        if self.purpose == Purpose::Watch && !self.demand.is_wanted() {
            return Output::End(Error::NotWanted);
        }
        if let Step::Login = self.step
            && let Some(room) = out.get_mut(..LOGIN)
        {
            let login = Login { user: USER.as_bytes(), code: self.code.reveal() };
            room.copy_from_slice(&login.bytes());
            self.step = Step::Head(false);
            return Output::Written(LOGIN);
        }
        Output::Idle
    }
}

/// Why the conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody watches any more.
    NotWanted,
    /// The program ends.
    Leaving,
    /// It is a camera: that was the question.
    Found,
    /// It is the file tunnel, no camera.
    Tunnel,
    /// It has said nothing for [`MAX_SILENT`].
    Silent,
    /// A picture cannot have so many bytes.
    Absurd(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("nobody watches any more"),
            Self::Leaving => f.write_str("the proxy ends"),
            Self::Found => f.write_str("it is a chamber camera"),
            Self::Tunnel => f.write_str("port 6000 is this printer's file tunnel, no camera"),
            Self::Silent => write!(
                f,
                "the camera takes our login and shows nothing for {} s: live view may be switched \
                 off, other programs may hold its connections, or it is broken",
                MAX_SILENT.as_secs()
            ),
            Self::Absurd(len) => {
                write!(f, "the camera announces a picture of {len} bytes: we have lost count")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn upstream(purpose: Purpose) -> (Rc<Demand>, Upstream) {
        let demand = Rc::new(Demand::default());
        demand.want(purpose == Purpose::Watch);
        let code = Rc::new(AccessCode::new(b"12345678").unwrap());
        (Rc::clone(&demand), Upstream::new(demand, code, purpose, Instant::START))
    }

    /// Pictures as they were announced and as they came, and how it ended.
    fn hear(upstream: &mut Upstream, bytes: &[u8], cut: usize) -> (Vec<Vec<u8>>, Option<Error>) {
        let mut pictures: Vec<Vec<u8>> = Vec::new();
        let mut taken = 0;
        for end in [cut, bytes.len()] {
            while taken < end {
                match upstream.handle_input(Instant::START, &bytes[taken..end]) {
                    Ok((0, None)) => break,
                    Ok((more, event)) => {
                        taken += more;
                        match event {
                            Some(Event::Begin(_)) => pictures.push(vec![]),
                            Some(Event::Bytes(more)) => pictures.last_mut().unwrap().extend(more),
                            None => {}
                        }
                    }
                    Err(error) => return (pictures, Some(error)),
                }
            }
        }
        (pictures, None)
    }

    fn picture(bytes: &[u8]) -> Vec<u8> {
        [&wire::head(bytes.len() as u32)[..], bytes].concat()
    }

    #[test]
    fn the_login_is_the_first_thing_said_and_the_only_one() {
        let (_, mut upstream) = upstream(Purpose::Watch);
        let mut out = [0; 128];
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Written(LOGIN));
        let login = Login::parse(out.first_chunk().unwrap()).unwrap();
        assert_eq!(login, Login { user: b"bblp", code: b"12345678" });
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Idle);
        assert!(!upstream.has_answered());
    }

    #[test]
    fn pictures_come_whole_wherever_they_are_split() {
        let bytes = [picture(b"first"), picture(b""), picture(b"third one")].concat();
        let whole = [b"first".to_vec(), vec![], b"third one".to_vec()];
        for cut in 0..=bytes.len() {
            let (_, mut upstream) = upstream(Purpose::Watch);
            assert_eq!(hear(&mut upstream, &bytes, cut), (whole.to_vec(), None), "split at {cut}");
            assert!(upstream.has_answered());
        }
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_conversation() {
        for len in [17_000_000, u32::MAX] {
            let (_, mut upstream) = upstream(Purpose::Watch);
            let bytes = [picture(b"first"), wire::head(len).to_vec()].concat();
            let end = Some(Error::Absurd(len as usize));
            assert_eq!(hear(&mut upstream, &bytes, 0), (vec![b"first".to_vec()], end));
        }
    }

    #[test]
    fn the_file_tunnel_is_not_taken_for_a_camera() {
        for purpose in [Purpose::Watch, Purpose::Probe] {
            // 24 bytes, as the printers that have one answer a camera's login.
            let answer = b"\x08\0\0\0\x3f\x01\x03\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0";
            let (_, mut upstream) = upstream(purpose);
            assert_eq!(hear(&mut upstream, answer, 9), (vec![], Some(Error::Tunnel)));
            assert!(!upstream.has_answered());
        }
    }

    #[test]
    fn a_probe_ends_at_the_first_head() {
        let (_, mut upstream) = upstream(Purpose::Probe);
        assert_eq!(hear(&mut upstream, &picture(b"first"), 16), (vec![], Some(Error::Found)));
        assert!(upstream.has_answered());
    }

    #[test]
    fn silence_is_counted_from_the_last_byte() {
        let (_, mut upstream) = upstream(Purpose::Watch);
        let later = Instant::at(Duration::from_secs(20));
        upstream.handle_input(later, &wire::head(9)).unwrap();
        upstream.handle_input(later, b"p").unwrap();
        let due = upstream.poll_timeout().unwrap();
        assert_eq!(due, later + MAX_SILENT);
        assert_eq!(upstream.handle_timeout(Instant::at(MAX_SILENT)), Ok(()));
        assert_eq!(upstream.handle_timeout(due), Err(Error::Silent));
    }

    #[test]
    fn it_ends_when_nobody_watches_and_a_probe_needs_nobody() {
        let (demand, mut watching) = upstream(Purpose::Watch);
        demand.want(false);
        let mut out = [0; 128];
        let end = Output::End(Error::NotWanted);
        assert_eq!(watching.poll_output(Instant::START, &mut out), end);
        let (demand, mut probing) = upstream(Purpose::Probe);
        assert_eq!(probing.poll_output(Instant::START, &mut out), Output::Written(LOGIN));
        demand.leave();
        assert_eq!(probing.poll_output(Instant::START, &mut out), Output::End(Error::Leaving));
    }
}
