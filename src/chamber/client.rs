//! A viewer's session: login, then pictures.
//!
//! The only answer to a login is the first picture; a wrong login is answered by closing, as by the printer.
//! Each picture's head is sent in a TLS record of its own, because ha-bambulab and OctoEverywhere read it with
//! one `recv`, and no record has bytes of two pictures ([`protocol`](crate::protocol#chamber-camera)). A viewer
//! without pictures stays connected: the printer may be restarting.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time to log in | [`LOGIN_TIMEOUT`] | disconnected |
//! | data after the login | [`MAX_TALK`] bytes, ignored | disconnected |
//! | time to take one picture | that of [`runtime::drive`](crate::runtime::drive) for one write | disconnected |

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::slot::{Dismissal, Slot, SlotState};
use super::wire::{self, HEAD, LOGIN, Login, LoginFault};
use crate::auth::{AccessCode, LoginError};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::Kind;
use crate::memory::pool::Frame;
use crate::memory::slots::Slot as _;
use crate::pictures::Pictures;
use crate::session::{ClientError, Consumed, Output, Session};

/// Time for the login, from the end of the TLS handshake.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that a viewer may send after its login. They are ignored.
pub const MAX_TALK: usize = 4096;

/// The proxy's end of a viewer's connection.
pub struct Viewer {
    slot: Rc<Slot>,
    code: Rc<AccessCode>,
    until: Instant,
    step: Step,
    /// Whether the viewer's origin is locked out.
    is_locked_out: bool,
    /// Bytes received after the login.
    excess: usize,
}

enum Step {
    /// The login has not arrived.
    Login,
    /// No picture is being sent.
    Waits,
    /// The head of this picture was sent.
    Headed(Frame),
    /// This picture is being sent.
    Shown(Frame),
}

/// What a viewer's session reports to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login has the right access code.
    LoggedIn,
}

impl Viewer {
    /// A session whose login is due at `until`.
    pub fn new(slot: Rc<Slot>, code: Rc<AccessCode>, until: Instant) -> Self {
        Self { slot, code, until, step: Step::Login, is_locked_out: false, excess: 0 }
    }

    /// Pictures that the viewer was sent and lost.
    pub fn pictures(&self) -> &Pictures {
        &self.slot.pictures
    }

    /// Has the login refused, since the viewer's origin is locked out.
    pub const fn refuse_login(&mut self) {
        self.is_locked_out = true;
    }

    fn login(&self, bytes: &[u8; LOGIN]) -> Result<(), Error> {
        let login = Login::parse(bytes).map_err(Error::NoLogin)?;
        if self.is_locked_out {
            return Err(Error::Login(LoginError::LockedOut));
        }
        self.code.check(login.user, login.code).map_err(Error::Login)
    }
}

impl Session for Viewer {
    type Event<'i> = Event;
    type Error = Error;

    fn handle_input(&mut self, _now: Instant, input: &[u8]) -> Consumed<Event, Error> {
        if let Step::Login = self.step {
            if let Some(head) = input.get(..HEAD) {
                Login::check_head(head).map_err(Error::NoLogin)?;
            }
            let Some(bytes) = input.first_chunk() else { return Ok((0, None)) };
            self.login(bytes)?;
            self.step = Step::Waits;
            return Ok((LOGIN, Some(Event::LoggedIn)));
        }
        self.excess = self.excess.saturating_add(input.len());
        if self.excess > MAX_TALK { Err(Error::UnexpectedData) } else { Ok((input.len(), None)) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        match self.step {
            Step::Login if self.until <= now => Err(Error::Silent),
            Step::Login | Step::Waits | Step::Headed(_) | Step::Shown(_) => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.step {
            Step::Login => Some(self.until),
            Step::Waits | Step::Headed(_) | Step::Shown(_) => None,
        }
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Error> {
        if let SlotState::Dismissed(why) = self.slot.state() {
            return Output::End(Error::Dismissed(why));
        }
        match core::mem::replace(&mut self.step, Step::Waits) {
            Step::Login => {
                self.step = Step::Login;
                return Output::Idle;
            }
            Step::Headed(picture) => {
                self.step = Step::Shown(picture);
                return Output::Shared;
            }
            Step::Shown(_) => self.slot.pictures.send(),
            Step::Waits => {}
        }
        let Some(picture) = self.slot.next() else { return Output::Idle };
        let len = u32::try_from(picture.len()).unwrap_or_default();
        let Some(room) = out.get_mut(..HEAD) else { return Output::Idle };
        room.copy_from_slice(&wire::head(len));
        self.step = Step::Headed(picture);
        Output::Written(HEAD)
    }

    fn shared(&self) -> &[u8] {
        match &self.step {
            Step::Shown(picture) => picture,
            Step::Login | Step::Waits | Step::Headed(_) => &[],
        }
    }
}

/// Why a viewer's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are not a login.
    NoLogin(LoginFault),
    /// The user name or the access code is wrong.
    Login(LoginError),
    /// No login arrived within [`LOGIN_TIMEOUT`].
    Silent,
    /// More than [`MAX_TALK`] bytes arrived after the login.
    UnexpectedData,
    /// The hub dismissed the viewer.
    Dismissed(Dismissal),
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::Login(LoginError::LockedOut) => Kind::Refused,
            Self::Login(_) => Kind::WrongCode,
            Self::NoLogin(_) | Self::UnexpectedData => Kind::Malformed,
            Self::Silent => Kind::Silent,
            Self::Dismissed(Dismissal::Full | Dismissal::Elsewhere) => Kind::Refused,
            Self::Dismissed(Dismissal::Stopping) => Kind::Left,
        }
    }

    fn login_error(self) -> Option<LoginError> {
        if let Self::Login(error) = self { Some(error) } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLogin(LoginFault::Tunnel) => {
                "login for the file tunnel; this is a chamber camera"
            }
            Self::NoLogin(LoginFault::Words) => "not a chamber camera's login",
            Self::NoLogin(LoginFault::Padding) => "login padding is not zero",
            Self::Login(error) => return error.fmt(f),
            Self::Silent => return write!(f, "no login within {} s", LOGIN_TIMEOUT.as_secs()),
            Self::UnexpectedData => "unexpected data after the login",
            Self::Dismissed(Dismissal::Full) => {
                let slots = BOARD.clients.chamber;
                return write!(f, "all {slots} slots are in use (BOARD.clients.chamber)");
            }
            Self::Dismissed(Dismissal::Elsewhere) => {
                "the printer has no chamber camera; use its RTSPS camera on port 322"
            }
            Self::Dismissed(Dismissal::Stopping) => "shutting down",
        })
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Guess;
    use crate::memory::pool::{Pool, Shape};
    use alloc::vec;
    use alloc::vec::Vec;

    fn viewer() -> (Rc<Slot>, Viewer) {
        let slot = Slot::new();
        slot.occupancy().take();
        let code = Rc::new(AccessCode::new(b"12345678").unwrap());
        (Rc::clone(&slot), Viewer::new(slot, code, Instant::at(LOGIN_TIMEOUT)))
    }

    fn pool() -> Pool {
        Pool::new(Shape { count: 0, size: 0 }, Shape { count: 4, size: 64 })
    }

    fn login(user: &[u8], code: &[u8]) -> [u8; LOGIN] {
        Login { user, code }.bytes()
    }

    /// Offers `bytes` in two pieces, cut at `cut`, as an inbox would.
    fn hear(viewer: &mut Viewer, bytes: &[u8], cut: usize) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let mut taken = 0;
        for end in [cut, bytes.len()] {
            while taken < end {
                let (more, event) = viewer.handle_input(Instant::START, &bytes[taken..end])?;
                events.extend(event);
                if more == 0 {
                    break;
                }
                taken += more;
            }
        }
        Ok(events)
    }

    /// What is written to the viewer now, one entry for each piece.
    fn shown(viewer: &mut Viewer) -> Vec<Vec<u8>> {
        let mut out = vec![0; 64];
        let mut pieces = Vec::new();
        loop {
            match viewer.poll_output(Instant::START, &mut out) {
                Output::Written(len) => pieces.push(out[..len].to_vec()),
                Output::Shared => pieces.push(viewer.shared().to_vec()),
                Output::Idle | Output::End(_) => return pieces,
            }
        }
    }

    #[test]
    fn a_login_is_accepted_wherever_it_is_split() {
        let bytes = login(b"bblp", b"12345678");
        for cut in 0..=LOGIN {
            let (_, mut viewer) = viewer();
            assert_eq!(hear(&mut viewer, &bytes, cut), Ok(vec![Event::LoggedIn]), "split at {cut}");
            assert_eq!(shown(&mut viewer).len(), 0, "nothing answers a login");
            assert_eq!(viewer.poll_timeout(), None, "a viewer may wait without limit");
        }
    }

    #[test]
    fn a_wrong_login_is_closed_without_a_byte() {
        let mut words = login(b"bblp", b"12345678");
        words[4] = 1;
        let cases = [
            (
                login(b"bblp", b"12345679"),
                Error::Login(LoginError::WrongCode(Guess::of(b"12345679"))),
            ),
            (login(b"bblp", b""), Error::Login(LoginError::WrongCode(Guess::of(b"")))),
            (login(b"root", b"12345678"), Error::Login(LoginError::WrongUser)),
            (words, Error::NoLogin(LoginFault::Words)),
        ];
        for (bytes, error) in cases {
            for cut in 0..=LOGIN {
                let (slot, mut viewer) = viewer();
                assert_eq!(hear(&mut viewer, &bytes, cut), Err(error));
                slot.offer(pool().store(&[b"picture"]).unwrap());
                assert!(shown(&mut viewer).is_empty());
            }
        }
    }

    #[test]
    fn a_tunnel_login_is_refused_at_its_sixteenth_byte() {
        let tunnel = b"\x10\0\0\0\x3f\x01\x01\x01\0\0\0\0\0\0\0\0bblp\0\0\0\x0012345678";
        let (_, mut viewer) = viewer();
        assert_eq!(hear(&mut viewer, &tunnel[..HEAD - 1], 0), Ok(vec![]));
        let error = Error::NoLogin(LoginFault::Tunnel);
        assert_eq!(hear(&mut viewer, &tunnel[..HEAD], 0), Err(error));
    }

    #[test]
    fn no_login_in_time_is_closed() {
        let (_, mut viewer) = viewer();
        let bytes = login(b"bblp", b"12345678");
        assert_eq!(hear(&mut viewer, &bytes[..LOGIN - 1], 3), Ok(vec![]));
        let due = viewer.poll_timeout().unwrap();
        assert_eq!(viewer.handle_timeout(Instant::at(LOGIN_TIMEOUT / 2)), Ok(()));
        assert_eq!(viewer.handle_timeout(due), Err(Error::Silent));
    }

    #[test]
    fn a_picture_is_written_as_two_pieces_head_and_jpeg() {
        let (slot, mut viewer) = viewer();
        let pool = pool();
        hear(&mut viewer, &login(b"bblp", b"12345678"), 0).unwrap();
        for picture in [b"first", b"other"] {
            slot.offer(pool.store(&[picture]).unwrap());
        }
        let pieces = shown(&mut viewer);
        let head = wire::head(5).to_vec();
        assert_eq!(pieces, [head.clone(), b"first".to_vec(), head, b"other".to_vec()]);
        assert_eq!((slot.pictures.sent(), pool.in_use()), (2, (0, 0)));
    }

    #[test]
    fn a_picture_keeps_its_frame_until_it_is_sent() {
        let (slot, mut viewer) = viewer();
        let pool = pool();
        hear(&mut viewer, &login(b"bblp", b"12345678"), 0).unwrap();
        slot.offer(pool.store(&[b"first"]).unwrap());
        let mut out = [0; HEAD];
        assert_eq!(viewer.poll_output(Instant::START, &mut out), Output::Written(HEAD));
        assert_eq!(viewer.poll_output(Instant::START, &mut out), Output::Shared);
        assert_eq!((viewer.shared(), pool.in_use().1), (&b"first"[..], 1));
        assert_eq!(viewer.poll_output(Instant::START, &mut out), Output::Idle);
        assert_eq!((viewer.shared(), pool.in_use().1), (&b""[..], 0));
    }

    #[test]
    fn data_after_the_login_is_ignored_up_to_its_bound() {
        let (_, mut viewer) = viewer();
        let mut bytes = login(b"bblp", b"12345678").to_vec();
        bytes.resize(LOGIN + MAX_TALK, 7);
        assert_eq!(hear(&mut viewer, &bytes, 100), Ok(vec![Event::LoggedIn]));
        assert_eq!(viewer.handle_input(Instant::START, b"x"), Err(Error::UnexpectedData));
    }

    #[test]
    fn the_first_dismissal_ends_the_session() {
        let (slot, mut viewer) = viewer();
        hear(&mut viewer, &login(b"bblp", b"12345678"), 0).unwrap();
        slot.admit();
        slot.dismiss(Dismissal::Elsewhere);
        slot.dismiss(Dismissal::Stopping);
        let end = viewer.poll_output(Instant::START, &mut [0; HEAD]);
        assert_eq!(end, Output::End(Error::Dismissed(Dismissal::Elsewhere)));
    }
}
