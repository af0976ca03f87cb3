//! The connection to the camera: login, then pictures, while a viewer is logged in.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | silence | [`SILENCE_TIMEOUT`] | the connection is closed and made anew |
//! | a picture | [`MAX_PICTURE`](super::wire::MAX_PICTURE) bytes | the stream is desynchronised: closed and made anew |

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::wire::{HEAD, Head, LOGIN, Login};
use crate::auth::{AccessCode, USER};
use crate::clock::Instant;
use crate::notify::Demand;
use crate::session::{Consumed, Output, Session};

/// How long the camera may send nothing. P1 sends a picture every two seconds; the first one after a start takes
/// several ([`protocol`](crate::protocol#chamber-camera)).
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the camera is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A viewer is logged in.
    Watch,
    /// To find out whether the printer has one: the first picture's head ends the connection.
    Probe,
}

/// The proxy's end of the connection.
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
    /// Logged in; the next bytes are a head. Whether a head has arrived before.
    Head(bool),
    /// In the middle of a picture: its bytes that have not arrived.
    Picture(usize),
    /// The probe has seen a head.
    Found,
}

/// What has arrived from the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A picture of this many bytes begins.
    Begin(usize),
    /// The next bytes of the picture.
    Bytes(&'i [u8]),
}

impl Upstream {
    /// A connection that begins now.
    pub const fn new(
        demand: Rc<Demand>,
        code: Rc<AccessCode>,
        purpose: Purpose,
        now: Instant,
    ) -> Self {
        Self { demand, code, purpose, step: Step::Login, heard: now }
    }

    /// Whether a picture's head has arrived, so that the camera has accepted the access code.
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

    fn handle_input<'i>(&mut self, now: Instant, input: &'i [u8]) -> Consumed<Event<'i>, Error> {
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
            Head::BadLength(len) => Err(Error::BadLength(len)),
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
        if now.since(self.heard) >= SILENCE_TIMEOUT { Err(Error::Silent) } else { Ok(()) }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.heard + SILENCE_TIMEOUT)
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

/// Why the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No viewer is left.
    NotWanted,
    /// The proxy is shutting down.
    Leaving,
    /// The probe has found a camera.
    Found,
    /// The port is the file tunnel's.
    Tunnel,
    /// Nothing has arrived for [`SILENCE_TIMEOUT`].
    Silent,
    /// A head announces more than [`MAX_PICTURE`](super::wire::MAX_PICTURE) bytes.
    BadLength(usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("no viewer is left"),
            Self::Leaving => f.write_str("shutting down"),
            Self::Found => f.write_str("chamber camera found"),
            Self::Tunnel => f.write_str("port 6000 is the printer's file tunnel, not a camera"),
            Self::Silent => write!(
                f,
                "the camera accepts the login but sends no picture for {} s; is live view off, does \
                 another program use the camera, or is it broken?",
                SILENCE_TIMEOUT.as_secs()
            ),
            Self::BadLength(len) => {
                write!(f, "stream desynchronised: a picture of {len} bytes is announced")
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

    /// The pictures in `bytes`, offered in two pieces, and the error that ended the session.
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
    fn the_login_is_all_that_is_sent() {
        let (_, mut upstream) = upstream(Purpose::Watch);
        let mut out = [0; 128];
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Written(LOGIN));
        let login = Login::parse(out.first_chunk().unwrap()).unwrap();
        assert_eq!(login, Login { user: b"bblp", code: b"12345678" });
        assert_eq!(upstream.poll_output(Instant::START, &mut out), Output::Idle);
        assert!(!upstream.has_answered());
    }

    #[test]
    fn pictures_are_whole_wherever_they_are_split() {
        let bytes = [picture(b"first"), picture(b""), picture(b"third one")].concat();
        let whole = [b"first".to_vec(), vec![], b"third one".to_vec()];
        for cut in 0..=bytes.len() {
            let (_, mut upstream) = upstream(Purpose::Watch);
            assert_eq!(hear(&mut upstream, &bytes, cut), (whole.to_vec(), None), "split at {cut}");
            assert!(upstream.has_answered());
        }
    }

    #[test]
    fn a_bad_length_ends_the_connection() {
        for len in [17_000_000, u32::MAX] {
            let (_, mut upstream) = upstream(Purpose::Watch);
            let bytes = [picture(b"first"), wire::head(len).to_vec()].concat();
            let end = Some(Error::BadLength(len as usize));
            assert_eq!(hear(&mut upstream, &bytes, 0), (vec![b"first".to_vec()], end));
        }
    }

    #[test]
    fn the_file_tunnel_is_recognised() {
        for purpose in [Purpose::Watch, Purpose::Probe] {
            // The 24 bytes that a file tunnel answers to a camera's login.
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
        assert_eq!(due, later + SILENCE_TIMEOUT);
        assert_eq!(upstream.handle_timeout(Instant::at(SILENCE_TIMEOUT)), Ok(()));
        assert_eq!(upstream.handle_timeout(due), Err(Error::Silent));
    }

    #[test]
    fn it_ends_without_a_viewer_unless_it_is_a_probe() {
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
