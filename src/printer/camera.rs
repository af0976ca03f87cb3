//! Which camera a printer has: found out by asking, never by guessing.
//!
//! A1 and P1 show pictures on port 6000; X1, H2 and P2 have RTSPS on port 322, and a file tunnel on
//! 6000 that must not be taken for a camera (PROTOCOL §3, §4, §6.2). What was found is looked at again
//! whenever the printer came back: live view may have been switched on meanwhile, or another printer
//! may stand there now.

pub mod probe;

use core::cell::Cell;
use core::fmt;

use crate::notify::Notify;

/// What became of a look at port 6000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtChamber {
    /// Nothing that says anything about the camera: the printer is off, say.
    Unknown,
    /// Nobody listens there.
    Closed,
    /// It shows pictures.
    Picture,
    /// It takes our login and shows nothing.
    Silence,
    /// It took our login and closed without a word.
    Refused,
    /// It is the file tunnel.
    Tunnel,
}

/// What became of a look at port 322.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRtsp {
    /// Nothing that says anything about the camera.
    Unknown,
    /// Nobody listens there.
    Closed,
    /// RTSP is spoken there.
    Speaks,
    /// It closes as soon as it is spoken to, or says nothing.
    HangsUp,
}

/// Which camera the printer has, or what it looks like instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CameraKind {
    /// Not known yet.
    #[default]
    Unknown,
    /// The chamber camera, on port 6000.
    Chamber,
    /// The chamber camera, but it shows nothing.
    ChamberDark,
    /// RTSPS, on port 322.
    Rtsp,
    /// RTSPS, but live view is off.
    RtspOff,
    /// The printer answers on neither port.
    NoPort,
    /// The camera does not take the access code.
    WrongCode,
}

impl CameraKind {
    /// Whether port 322 has to be looked at as well before anything can be said.
    pub const fn needs_rtsp(chamber: AtChamber) -> bool {
        match chamber {
            // A firewall may let nobody through to 6000; A1 and P1 have no listener on 322.
            AtChamber::Unknown | AtChamber::Tunnel | AtChamber::Closed => true,
            AtChamber::Picture | AtChamber::Silence | AtChamber::Refused => false,
        }
    }

    /// What both looks say together.
    pub const fn of(chamber: AtChamber, rtsp: AtRtsp) -> Self {
        match (chamber, rtsp) {
            (AtChamber::Picture, _) => Self::Chamber,
            (AtChamber::Silence, _) => Self::ChamberDark,
            (AtChamber::Refused, _) => Self::WrongCode,
            (AtChamber::Unknown | AtChamber::Tunnel | AtChamber::Closed, AtRtsp::Speaks) => {
                Self::Rtsp
            }
            (AtChamber::Tunnel, AtRtsp::Closed | AtRtsp::HangsUp)
            | (AtChamber::Closed, AtRtsp::HangsUp) => Self::RtspOff,
            (AtChamber::Closed, AtRtsp::Closed) => Self::NoPort,
            (AtChamber::Unknown, AtRtsp::Unknown | AtRtsp::Closed | AtRtsp::HangsUp)
            | (AtChamber::Tunnel | AtChamber::Closed, AtRtsp::Unknown) => Self::Unknown,
        }
    }

    /// Whether the camera has been found, so that there is nothing to look for until the printer
    /// comes back.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Chamber | Self::Rtsp => true,
            Self::Unknown | Self::ChamberDark | Self::RtspOff | Self::NoPort | Self::WrongCode => {
                false
            }
        }
    }

    /// Whether only somebody at the printer can change it.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::RtspOff | Self::WrongCode => true,
            Self::Unknown | Self::Chamber | Self::ChamberDark | Self::Rtsp | Self::NoPort => false,
        }
    }

    /// Whether it is known that there is no chamber camera.
    pub const fn is_elsewhere(self) -> bool {
        matches!(self, Self::Rtsp | Self::RtspOff)
    }
}

impl fmt::Display for CameraKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "it is not known yet which camera the printer has",
            Self::Chamber => "the printer has a chamber camera (port 6000)",
            Self::ChamberDark => {
                "the printer has a chamber camera (port 6000) that takes our login and shows nothing: \
                 live view may be switched off, other programs may hold its connections, or it is \
                 broken"
            }
            Self::Rtsp => "the printer has an RTSPS camera (port 322), no chamber camera",
            Self::RtspOff => {
                "the printer has an RTSPS camera (port 322) that does not answer: switch on LAN live \
                 view at the printer"
            }
            Self::NoPort => {
                "the printer answers, but has no camera on ports 6000 and 322: it is still starting, \
                 or LAN mode is off"
            }
            Self::WrongCode => {
                "the printer's camera closes after our login: the access code may be wrong or have \
                 changed, see the printer's screen"
            }
        })
    }
}

/// What is known about the camera, and whether somebody wants it looked at again.
#[derive(Default)]
pub struct CameraProbe {
    kind: Cell<CameraKind>,
    due: Cell<bool>,
    /// Whether somebody has a connection to port 322, or is about to.
    rtsp_taken: Cell<bool>,
    /// Whether the printer says that live view is off.
    said_off: Cell<bool>,
    notify: Notify,
    news: Notify,
}

impl CameraProbe {
    /// Nothing is known; it should be looked at.
    pub fn new() -> Self {
        Self { due: Cell::new(true), ..Self::default() }
    }

    /// What was found last.
    pub fn kind(&self) -> CameraKind {
        self.kind.get()
    }

    /// Remembers what was found; whether it is something else than before.
    pub fn found(&self, kind: CameraKind) -> bool {
        self.due.set(false);
        self.news.notify();
        self.kind.replace(kind) != kind
    }

    /// The printer came back: look again.
    pub fn look_again(&self) {
        self.due.set(true);
        self.notify.notify();
    }

    /// Whether it should be looked at.
    pub fn is_due(&self) -> bool {
        self.due.get()
    }

    /// Completes when it should be looked at again.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Completes when it has been looked at.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The printer says that live view is off, or not any more: either is worth another look.
    pub fn is_said_off(&self, off: bool) {
        if self.said_off.replace(off) != off {
            self.look_again();
        }
    }

    /// What a look has found, in the light of what the printer says: a camera that is said to be off is
    /// off, whoever answers there.
    pub fn understood(&self, kind: CameraKind) -> CameraKind {
        if kind == CameraKind::Rtsp && self.said_off.get() { CameraKind::RtspOff } else { kind }
    }

    /// Somebody watches at port 322 for as long as this is kept: nobody else is to go there meanwhile,
    /// since some printers have one place (X2D, PROTOCOL §4).
    pub fn take_rtsp(&self) -> RtspTaken<'_> {
        self.rtsp_taken.set(true);
        RtspTaken(self)
    }

    /// Whether somebody watches there.
    pub fn is_rtsp_taken(&self) -> bool {
        self.rtsp_taken.get()
    }
}

/// The one place at port 322, taken.
#[must_use]
pub struct RtspTaken<'s>(&'s CameraProbe);

impl Drop for RtspTaken<'_> {
    fn drop(&mut self) {
        self.0.rtsp_taken.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_follows_from_both_ports() {
        use AtChamber as C;
        use AtRtsp as R;
        use CameraKind as F;
        let table = [
            (C::Picture, R::Unknown, F::Chamber),
            (C::Silence, R::Unknown, F::ChamberDark),
            (C::Refused, R::Unknown, F::WrongCode),
            (C::Tunnel, R::Speaks, F::Rtsp),
            (C::Tunnel, R::HangsUp, F::RtspOff),
            (C::Tunnel, R::Closed, F::RtspOff),
            (C::Tunnel, R::Unknown, F::Unknown),
            (C::Closed, R::Speaks, F::Rtsp),
            (C::Closed, R::HangsUp, F::RtspOff),
            (C::Closed, R::Closed, F::NoPort),
            (C::Closed, R::Unknown, F::Unknown),
            (C::Unknown, R::Speaks, F::Rtsp),
            (C::Unknown, R::HangsUp, F::Unknown),
            (C::Unknown, R::Closed, F::Unknown),
            (C::Unknown, R::Unknown, F::Unknown),
        ];
        for (chamber, rtsp, kind) in table {
            assert_eq!(CameraKind::of(chamber, rtsp), kind, "{chamber:?}, {rtsp:?}");
            // Nothing is concluded from a port that nobody looked at.
            let looked = CameraKind::needs_rtsp(chamber) || rtsp == R::Unknown;
            assert!(looked, "{chamber:?}, {rtsp:?}");
        }
    }

    #[test]
    fn a_camera_that_is_said_to_be_off_is_off_and_looked_at_again_when_that_changes() {
        let camera = CameraProbe::new();
        assert!(camera.found(CameraKind::Rtsp));
        camera.is_said_off(true);
        assert!(camera.is_due());
        assert_eq!(camera.understood(CameraKind::Rtsp), CameraKind::RtspOff);
        assert_eq!(camera.understood(CameraKind::Chamber), CameraKind::Chamber);
        camera.found(CameraKind::RtspOff);
        camera.is_said_off(true);
        assert!(!camera.is_due(), "it is said again and again");
        camera.is_said_off(false);
        assert!(camera.is_due());
        assert_eq!(camera.understood(CameraKind::Rtsp), CameraKind::Rtsp);
    }

    #[test]
    fn a_sight_says_what_is_new_and_forgets_that_it_was_due() {
        let camera = CameraProbe::new();
        assert!(camera.is_due());
        assert!(camera.found(CameraKind::Chamber));
        assert!(!camera.found(CameraKind::Chamber));
        assert!(!camera.is_due());
        camera.look_again();
        assert!(camera.is_due());
        assert_eq!(camera.kind(), CameraKind::Chamber);
    }
}
