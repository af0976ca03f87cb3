//! What is known about the printer, in one value: the services report to it what they learn, and ask it.
//!
//! | fact | reported by |
//! |---|---|
//! | reachable, certificate | every connection that is dialled |
//! | access code accepted or refused | the services that log in: MQTT, both cameras, FTP |
//! | last report, firmware version, live view | MQTT |
//! | camera, file tunnel on port 6000 | the camera probe |
//! | name | what announces the printer in the LAN |
//!
//! Every fact is bounded, nothing is allocated, and one task may wait for a change.

use core::cell::{Cell, RefCell};
use core::fmt;

use super::camera::{AtChamber, CameraKind, CameraProbe};
use super::model::{Camera, Model};
use crate::clock::Instant;
use crate::notify::Notify;

/// Bytes kept of a firmware version: the printers' have eleven, `01.09.01.00`.
pub const MAX_VERSION: usize = 24;

/// Bytes kept of the printer's name, in UTF-8.
pub const MAX_NAME: usize = 64;

/// A service of the printer that asks for the access code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// MQTT, port 8883.
    Mqtt,
    /// The chamber camera, port 6000.
    Chamber,
    /// The RTSPS camera, port 322.
    Rtsp,
    /// FTPS, port 990.
    Ftp,
}

/// How many kinds of [`Login`] there are.
const LOGINS: usize = 4;

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "mqtt",
            Self::Chamber => "chamber",
            Self::Rtsp => "rtsp",
            Self::Ftp => "ftp",
        })
    }
}

/// What the printer last said about the access code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Code {
    /// Nothing yet.
    #[default]
    Unknown,
    /// The code is right.
    Accepted {
        /// The service that was logged in to.
        by: Login,
        /// When.
        at: Instant,
    },
    /// The code is wrong.
    Refused {
        /// The service that refused it.
        by: Login,
        /// When.
        at: Instant,
    },
}

/// What is known about the printer's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// It has not been shown yet.
    #[default]
    Unknown,
    /// It was accepted in the last handshake.
    Accepted,
    /// It was rejected in the last handshake.
    Rejected,
}

/// What a printer has on its port 6000: the setting `--port-6000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Port6000 {
    /// What the port is seen to be, and before that what the printer's model has.
    #[default]
    Auto,
    /// The chamber camera.
    Chamber,
    /// The file tunnel.
    Tunnel,
}

impl Port6000 {
    /// Whether the port of a printer of this model is the file tunnel's, before the port has been seen. On a
    /// printer with an RTSPS camera it can be nothing else.
    pub fn expects_tunnel(self, model: Option<&Model>) -> bool {
        match self {
            Self::Tunnel => true,
            Self::Chamber => false,
            Self::Auto => model.is_some_and(|model| model.camera == Camera::Rtsp),
        }
    }
}

/// What is known about one printer.
pub struct Status {
    model: Option<&'static Model>,
    port_6000: Port6000,
    camera: CameraProbe,
    is_reachable: Cell<Option<bool>>,
    certificate: Cell<Certificate>,
    code: Cell<Code>,
    /// Services that the proxy is logged in to at the moment.
    logged_in: [Cell<bool>; LOGINS],
    last_report: Cell<Option<Instant>>,
    version: RefCell<heapless::String<MAX_VERSION>>,
    name: RefCell<heapless::String<MAX_NAME>>,
    /// Whether port 6000 was seen to be a file tunnel.
    has_shown_tunnel: Cell<Option<bool>>,
    changed: Notify,
}

const _: () = assert!(
    size_of::<Status>() <= crate::memory::budget::PRINTER_STATUS,
    "the printer's status is larger than its line in the budget"
);

impl Status {
    /// What the serial number and the setting say, before the printer has been dialled.
    pub fn new(serial: &str, port_6000: Port6000) -> Self {
        Self {
            model: Model::of_serial(serial),
            port_6000,
            camera: CameraProbe::new(),
            is_reachable: Cell::default(),
            certificate: Cell::default(),
            code: Cell::default(),
            logged_in: <[Cell<bool>; LOGINS]>::default(),
            last_report: Cell::default(),
            version: RefCell::default(),
            name: RefCell::default(),
            has_shown_tunnel: Cell::default(),
            changed: Notify::default(),
        }
    }

    /// The printer's model, if its serial number is of one that is known.
    pub const fn model(&self) -> Option<&'static Model> {
        self.model
    }

    /// The printer's camera.
    pub const fn camera(&self) -> &CameraProbe {
        &self.camera
    }

    /// Completes at the next change of a fact. One task may wait.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn set<T: Copy + PartialEq>(&self, fact: &Cell<T>, value: T) {
        if fact.replace(value) != value {
            self.changed.notify();
        }
    }

    /// Whether the printer answered when it was last dialled; `None` before the first time.
    pub const fn is_reachable(&self) -> Option<bool> {
        self.is_reachable.get()
    }

    /// The printer answered, if only by refusing a connection, or did not answer.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.set(&self.is_reachable, Some(is_reachable));
    }

    /// The printer's certificate, as the last handshake left it.
    pub const fn certificate(&self) -> Certificate {
        self.certificate.get()
    }

    /// The printer's certificate was accepted or rejected.
    pub fn set_certificate(&self, certificate: Certificate) {
        self.set(&self.certificate, certificate);
    }

    /// What the printer last said about the access code.
    pub const fn code(&self) -> Code {
        self.code.get()
    }

    /// Whether a service of the printer has the proxy logged in at the moment, so that the access code is
    /// known to be right.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in.iter().any(Cell::get)
    }

    /// A service accepted the access code.
    pub fn log_in(&self, by: Login, at: Instant) {
        self.set(self.login(by), true);
        self.set(&self.code, Code::Accepted { by, at });
    }

    /// A service refused the access code.
    pub fn refuse(&self, by: Login, at: Instant) {
        self.set(self.login(by), false);
        self.set(&self.code, Code::Refused { by, at });
    }

    /// The connection to a service has ended.
    pub fn log_out(&self, from: Login) {
        self.set(self.login(from), false);
    }

    const fn login(&self, of: Login) -> &Cell<bool> {
        let [mqtt, chamber, rtsp, ftp] = &self.logged_in;
        match of {
            Login::Mqtt => mqtt,
            Login::Chamber => chamber,
            Login::Rtsp => rtsp,
            Login::Ftp => ftp,
        }
    }

    /// When the printer last sent a report.
    pub const fn last_report(&self) -> Option<Instant> {
        self.last_report.get()
    }

    /// The printer sent a report. This is too frequent to count as a change.
    pub fn note_report(&self, at: Instant) {
        self.last_report.set(Some(at));
    }

    /// The printer's firmware version as `get_version` names it, such as `01.09.01.00`. Empty: unknown.
    pub fn version(&self) -> heapless::String<MAX_VERSION> {
        self.version.borrow().clone()
    }

    /// The printer's firmware has this version. Longer ones than [`MAX_VERSION`] are ignored.
    pub fn set_version(&self, version: &str) {
        self.set_text(&self.version, version);
    }

    /// The name that the user gave the printer. Empty: unknown.
    pub fn name(&self) -> heapless::String<MAX_NAME> {
        self.name.borrow().clone()
    }

    /// The printer has this name. Longer ones than [`MAX_NAME`] are ignored.
    pub fn set_name(&self, name: &str) {
        self.set_text(&self.name, name);
    }

    fn set_text<const N: usize>(&self, fact: &RefCell<heapless::String<N>>, text: &str) {
        let mut fact = fact.borrow_mut();
        if let Ok(text) = heapless::String::try_from(text)
            && *fact != text
        {
            *fact = text;
            self.changed.notify();
        }
    }

    /// Whether live view of an RTSPS camera is on, as far as the printer's reports say.
    pub const fn is_live_view_off(&self) -> bool {
        self.camera.is_live_view_off()
    }

    /// The printer reports that live view is off, or on again.
    pub fn set_live_view_off(&self, is_off: bool) {
        if self.camera.set_live_view_off(is_off) {
            self.changed.notify();
        }
    }

    /// What a camera is called in the light of what else is known about the printer.
    ///
    /// A camera whose live view the printer reports as off is off, even if it answers. A camera that closes
    /// after the login does not refuse the access code while another service has accepted it.
    pub fn judge(&self, kind: CameraKind) -> CameraKind {
        match kind {
            CameraKind::Rtsp if self.is_live_view_off() => CameraKind::RtspOff,
            CameraKind::WrongCode if self.is_logged_in() => CameraKind::ChamberBusy,
            CameraKind::Unknown
            | CameraKind::Chamber
            | CameraKind::ChamberDark
            | CameraKind::ChamberBusy
            | CameraKind::Rtsp
            | CameraKind::RtspOff
            | CameraKind::NoPort
            | CameraKind::WrongCode => kind,
        }
    }

    /// What port 6000 was seen to be.
    pub fn note_port_6000(&self, seen: AtChamber) {
        let has_tunnel = match seen {
            AtChamber::Tunnel => true,
            AtChamber::Picture => false,
            // A server that says nothing may be either.
            AtChamber::Unknown | AtChamber::Closed | AtChamber::Refused | AtChamber::Silence => {
                return;
            }
        };
        self.set(&self.has_shown_tunnel, Some(has_tunnel));
    }

    /// Whether port 6000 is to be served as the file tunnel: what the setting says, else what the port was
    /// seen to be, else what the model says.
    pub fn has_tunnel(&self) -> bool {
        let expected = self.port_6000.expects_tunnel(self.model);
        match self.port_6000 {
            Port6000::Auto => self.has_shown_tunnel.get().unwrap_or(expected),
            Port6000::Chamber | Port6000::Tunnel => expected,
        }
    }
}

impl Default for Status {
    /// A printer of no known model.
    fn default() -> Self {
        Self::new("", Port6000::Auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};
    use core::time::Duration;

    const LATER: Instant = Instant::at(Duration::from_secs(9));

    fn status(serial: &str) -> Status {
        Status::new(serial, Port6000::Auto)
    }

    fn has_changed(status: &Status) -> bool {
        let changed = pin!(status.changed());
        changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_camera_that_closes_is_busy_while_the_code_is_accepted() {
        let status = status("01P00A000000001");
        assert_eq!(status.judge(CameraKind::WrongCode), CameraKind::WrongCode);
        status.log_in(Login::Mqtt, LATER);
        assert_eq!(status.judge(CameraKind::WrongCode), CameraKind::ChamberBusy);
        assert!(!CameraKind::ChamberBusy.is_lasting(), "it is tried again soon");
        status.log_out(Login::Mqtt);
        assert_eq!(status.judge(CameraKind::WrongCode), CameraKind::WrongCode);
        assert_eq!(status.code(), Code::Accepted { by: Login::Mqtt, at: LATER });
        status.refuse(Login::Ftp, LATER);
        assert_eq!(status.code(), Code::Refused { by: Login::Ftp, at: LATER });
    }

    #[test]
    fn a_camera_is_off_while_the_printer_reports_so() {
        let status = status("00M00A000000001");
        status.set_live_view_off(true);
        assert_eq!(status.judge(CameraKind::Rtsp), CameraKind::RtspOff);
        assert_eq!(status.judge(CameraKind::Chamber), CameraKind::Chamber);
        status.set_live_view_off(false);
        assert_eq!(status.judge(CameraKind::Rtsp), CameraKind::Rtsp);
    }

    #[test]
    fn a_tunnel_is_decided_by_setting_then_port_then_model() {
        for (serial, expected) in [("01P1", false), ("2391", true), ("9991", false)] {
            let status = status(serial);
            assert_eq!(status.has_tunnel(), expected, "{serial}");
            for (seen, has_tunnel) in [
                (AtChamber::Refused, expected),
                (AtChamber::Silence, expected),
                (AtChamber::Tunnel, true),
                (AtChamber::Closed, true),
                (AtChamber::Picture, false),
                (AtChamber::Unknown, false),
            ] {
                status.note_port_6000(seen);
                assert_eq!(status.has_tunnel(), has_tunnel, "{serial} {seen:?}");
            }
            for (setting, has_tunnel) in [(Port6000::Tunnel, true), (Port6000::Chamber, false)] {
                let status = Status::new(serial, setting);
                assert_eq!(status.has_tunnel(), has_tunnel, "{serial} {setting:?}");
                status.note_port_6000(AtChamber::Tunnel);
                status.note_port_6000(AtChamber::Picture);
                assert_eq!(status.has_tunnel(), has_tunnel, "{serial} {setting:?}");
            }
        }
    }

    #[test]
    fn a_change_wakes_and_the_same_fact_again_does_not() {
        let status = status("01P00A000000001");
        assert!(!has_changed(&status));
        status.set_reachable(true);
        assert!(has_changed(&status));
        status.set_reachable(true);
        status.note_report(LATER);
        assert!(!has_changed(&status));
        status.set_version("01.09.01.00");
        assert!(has_changed(&status));
        status.set_version(&"9".repeat(MAX_VERSION + 1));
        status.set_name(&"9".repeat(MAX_NAME + 1));
        assert!(!has_changed(&status), "what is too long is ignored");
        status.set_name("Grüner Drucker");
        assert!(has_changed(&status));
        assert_eq!((&*status.version(), &*status.name()), ("01.09.01.00", "Grüner Drucker"));
        status.set_certificate(Certificate::Rejected);
        assert!(has_changed(&status));
        assert_eq!(status.last_report(), Some(LATER));
    }
}
