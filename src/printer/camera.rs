//! Which camera a printer has: what was found by probing it.
//!
//! A1 and P1 show pictures on port 6000; X1, H2 and P2 have RTSPS on port 322, and a file tunnel on 6000
//! that must not be taken for a camera (see [`protocol`](crate::protocol#detect)). The camera is probed again
//! each time the printer comes back: live view may have been switched on meanwhile, or another printer may
//! have the address.

pub mod probe;

use core::cell::Cell;
use core::fmt;

use crate::cause::Cause;
use crate::notify::Notify;

/// What a probe of port 6000 found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtChamber {
    /// Nothing about the camera: the printer may be off.
    Unknown,
    /// The port is closed.
    Closed,
    /// Pictures.
    Picture,
    /// The login was accepted, and no picture came.
    Silence,
    /// The connection was closed after the login, without an answer.
    Refused,
    /// The file tunnel.
    Tunnel,
}

/// What a probe of port 322 found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRtsp {
    /// Nothing about the camera.
    Unknown,
    /// The port is closed.
    Closed,
    /// An RTSP server.
    Speaks,
    /// The connection was closed before an answer, or none came.
    HangsUp,
}

/// Which camera the printer has, and whether it works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CameraKind {
    /// Not known yet.
    #[default]
    Unknown,
    /// The chamber camera, on port 6000.
    Chamber,
    /// The chamber camera, which sends no pictures.
    ChamberDark,
    /// The chamber camera, which closes after a login with the right code: it is starting or busy.
    ChamberBusy,
    /// RTSPS, on port 322.
    Rtsp,
    /// RTSPS, with live view switched off.
    RtspOff,
    /// Both ports are closed.
    NoPort,
    /// The camera closes after the login, and no other service is logged in with the access code.
    WrongCode,
}

impl CameraKind {
    /// Whether port 322 has to be probed as well.
    pub const fn needs_rtsp(chamber: AtChamber) -> bool {
        match chamber {
            // A firewall may drop packets to 6000; A1 and P1 have port 322 closed.
            AtChamber::Unknown | AtChamber::Tunnel | AtChamber::Closed => true,
            AtChamber::Picture | AtChamber::Silence | AtChamber::Refused => false,
        }
    }

    /// What both probes say together.
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

    /// Whether the camera works, so that it need not be probed until the printer comes back.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Chamber | Self::Rtsp => true,
            Self::Unknown
            | Self::ChamberDark
            | Self::ChamberBusy
            | Self::RtspOff
            | Self::NoPort
            | Self::WrongCode => false,
        }
    }

    /// Whether it stays so until a user changes a setting.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::RtspOff | Self::WrongCode => true,
            Self::Unknown
            | Self::Chamber
            | Self::ChamberDark
            | Self::ChamberBusy
            | Self::Rtsp
            | Self::NoPort => false,
        }
    }

    /// Whether the printer is known to have no chamber camera.
    pub const fn is_elsewhere(self) -> bool {
        matches!(self, Self::Rtsp | Self::RtspOff)
    }
}

impl CameraKind {
    /// The cause in the catalogue, if the camera shows nothing.
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Self::Unknown | Self::Chamber | Self::Rtsp => None,
            Self::ChamberDark => Some(Cause::CHAMBER_DARK),
            Self::ChamberBusy => Some(Cause::CHAMBER_BUSY),
            Self::RtspOff => Some(Cause::LIVE_VIEW),
            Self::NoPort => Some(Cause::NO_CAMERA),
            Self::WrongCode => Some(Cause::CHAMBER_CODE),
        }
    }
}

impl fmt::Display for CameraKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = self.cause() {
            return cause.fmt(f);
        }
        f.write_str(match self {
            Self::Unknown => "the printer's camera is not known yet",
            Self::Chamber => "the printer has a chamber camera (port 6000)",
            Self::Rtsp => "the printer has an RTSPS camera (port 322), no chamber camera",
            Self::ChamberDark
            | Self::ChamberBusy
            | Self::RtspOff
            | Self::NoPort
            | Self::WrongCode => "",
        })
    }
}

/// The camera as it was found last, and whether to probe it again.
#[derive(Default)]
pub struct CameraProbe {
    kind: Cell<CameraKind>,
    is_due: Cell<bool>,
    /// Whether a connection to port 322 is open, or about to be.
    is_rtsp_taken: Cell<bool>,
    /// Whether the printer reports that live view is off.
    is_live_view_off: Cell<bool>,
    due: Notify,
    probed: Notify,
}

impl CameraProbe {
    /// No camera is known; the first probe is due.
    pub fn new() -> Self {
        Self { is_due: Cell::new(true), ..Self::default() }
    }

    /// The camera as it was found last.
    pub const fn kind(&self) -> CameraKind {
        self.kind.get()
    }

    /// Keeps what a probe found. Whether that differs from before.
    pub fn found(&self, kind: CameraKind) -> bool {
        self.is_due.set(false);
        self.probed.notify();
        self.kind.replace(kind) != kind
    }

    /// Requests another probe.
    pub fn look_again(&self) {
        self.is_due.set(true);
        self.due.notify();
    }

    /// Whether a probe is requested.
    pub const fn is_due(&self) -> bool {
        self.is_due.get()
    }

    /// Completes when another probe is requested. One task may wait.
    pub async fn notified(&self) {
        self.due.notified().await;
    }

    /// Completes when the camera has been probed. One task may wait.
    pub async fn news(&self) {
        self.probed.notified().await;
    }

    /// Whether the printer reports that live view is off.
    pub const fn is_live_view_off(&self) -> bool {
        self.is_live_view_off.get()
    }

    /// The printer reports that live view is off, or on again. A change requests another probe. Whether it is
    /// one.
    pub fn set_live_view_off(&self, is_off: bool) -> bool {
        let is_change = self.is_live_view_off.replace(is_off) != is_off;
        if is_change {
            self.look_again();
        }
        is_change
    }

    /// Has port 322 left alone by probes for as long as the result is kept: an X2D has room for one connection
    /// there.
    pub fn take_rtsp(&self) -> RtspTaken<'_> {
        self.is_rtsp_taken.set(true);
        RtspTaken(self)
    }

    /// Whether port 322 is taken.
    pub const fn is_rtsp_taken(&self) -> bool {
        self.is_rtsp_taken.get()
    }
}

/// The connection to port 322 is in use.
#[must_use]
pub struct RtspTaken<'s>(&'s CameraProbe);

impl Drop for RtspTaken<'_> {
    fn drop(&mut self) {
        self.0.is_rtsp_taken.set(false);
    }
}

/// Each [`CameraKind`] as it is logged.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    [
        CameraKind::Unknown,
        CameraKind::Chamber,
        CameraKind::ChamberDark,
        CameraKind::ChamberBusy,
        CameraKind::Rtsp,
        CameraKind::RtspOff,
        CameraKind::NoPort,
        CameraKind::WrongCode,
    ]
    .map(|kind| alloc::format!("camera: {kind}"))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_camera_follows_from_both_ports() {
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
            // Nothing is concluded from a port that was not probed.
            let looked = CameraKind::needs_rtsp(chamber) || rtsp == R::Unknown;
            assert!(looked, "{chamber:?}, {rtsp:?}");
        }
    }

    #[test]
    fn a_change_of_live_view_requests_a_probe() {
        let camera = CameraProbe::new();
        assert!(camera.found(CameraKind::Rtsp));
        assert!(camera.set_live_view_off(true));
        assert!(camera.is_due());
        camera.found(CameraKind::RtspOff);
        assert!(!camera.set_live_view_off(true));
        assert!(!camera.is_due(), "the same report again requests none");
        assert!(camera.set_live_view_off(false));
        assert!(camera.is_due());
    }

    #[test]
    fn a_probe_reports_what_is_new_and_is_not_due_any_more() {
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
