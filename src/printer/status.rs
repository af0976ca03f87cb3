//! What is known about the printer, in one value: the services report to it what they learn, and ask it.
//!
//! | fact | reported by |
//! |---|---|
//! | reachable, certificate | every connection that is dialled |
//! | access code accepted or refused | the services that log in: MQTT, both cameras, FTP |
//! | last report, firmware version, live view | MQTT |
//! | camera, file tunnel on port 6000 | the camera probe |
//! | address, signal, LAN or cloud mode | its announcements in the LAN |
//! | name, model code, firmware version | the printer's answer to `detect`, and its announcements in the LAN |
//!
//! Every fact is bounded, nothing is allocated, and one task may wait for a change.

use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv4Addr};

use super::camera::{AtChamber, CameraKind, CameraProbe};
use super::model::{Camera, Model};
use crate::clock::Instant;
use crate::notify::Notify;

/// Bytes kept of a firmware version: the printers' have eleven, `01.09.01.00`.
pub const MAX_VERSION: usize = 24;

/// Bytes kept of the printer's name, in UTF-8.
pub const MAX_NAME: usize = 64;

/// Bytes kept of the printer's model code: the longest known has seven, `BL-P001`.
pub const MAX_CODE: usize = 16;

/// The printer's name.
pub type Name = heapless::String<MAX_NAME>;

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

impl Login {
    /// Every kind.
    pub const ALL: [Self; LOGINS] = [Self::Mqtt, Self::Chamber, Self::Rtsp, Self::Ftp];

    /// The name of the service, in settings and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Chamber => "chamber",
            Self::Rtsp => "rtsp",
            Self::Ftp => "ftp",
        }
    }
}

/// How many kinds of [`Login`] there are.
const LOGINS: usize = 4;

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
    /// There has been no handshake yet.
    #[default]
    Unknown,
    /// The certificate was accepted in the last handshake.
    Accepted,
    /// The certificate was rejected in the last handshake.
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

/// What the printer's last announcement in the LAN says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The printer's address.
    pub location: Ipv4Addr,
    /// Strength of its Wi-Fi signal in dBm, if it tells it.
    pub signal: Option<i16>,
    /// Whether it is in cloud mode, not in LAN mode.
    pub is_cloud: Option<bool>,
    /// Whether it is bound to an account.
    pub is_bound: Option<bool>,
    /// When.
    pub at: Instant,
}

/// What is known about one printer.
pub struct Status {
    model: Option<&'static Model>,
    port_6000: Port6000,
    camera: CameraProbe,
    is_reachable: Cell<Option<bool>>,
    /// Whether the last attempt to dial the printer failed, for any reason.
    is_dial_failing: Cell<bool>,
    /// The address of the last connection to the printer.
    address: Cell<Option<IpAddr>>,
    /// Where the printer was found, if not at its configured address.
    followed: Cell<Option<Ipv4Addr>>,
    announced: Cell<Option<Announced>>,
    certificate: Cell<Certificate>,
    code: Cell<Code>,
    /// Whether requests need no signature, and the strength of the Wi-Fi signal in dBm, as reported.
    mode_and_signal: Cell<(Option<bool>, Option<i16>)>,
    /// Services that the proxy is logged in to at the moment.
    logged_in: [Cell<bool>; LOGINS],
    /// How often each accepted the access code.
    logins: [Cell<u32>; LOGINS],
    last_report: Cell<Option<Instant>>,
    version: RefCell<heapless::String<MAX_VERSION>>,
    name: RefCell<Name>,
    /// Whether the name is a setting, which goes before what the printer says.
    is_name_set: bool,
    /// Whether the name is the one that the printer had when it left the factory, which may have been changed.
    is_name_guessed: Cell<bool>,
    model_code: RefCell<heapless::String<MAX_CODE>>,
    /// Whether port 6000 was seen to be a file tunnel.
    has_shown_tunnel: Cell<Option<bool>>,
    changed: Notify,
    camera_changed: Notify,
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
            is_dial_failing: Cell::default(),
            address: Cell::default(),
            followed: Cell::default(),
            announced: Cell::default(),
            certificate: Cell::default(),
            code: Cell::default(),
            mode_and_signal: Cell::default(),
            logged_in: <[Cell<bool>; LOGINS]>::default(),
            logins: <[Cell<u32>; LOGINS]>::default(),
            last_report: Cell::default(),
            version: RefCell::default(),
            name: RefCell::new(factory_name(serial)),
            is_name_set: false,
            is_name_guessed: Cell::new(true),
            model_code: RefCell::default(),
            has_shown_tunnel: Cell::default(),
            changed: Notify::default(),
            camera_changed: Notify::default(),
        }
    }

    /// With this name, whatever the printer says. `None` keeps what the printer says.
    pub fn named(self, name: Option<&Name>) -> Self {
        let Some(name) = name else { return self };
        Self {
            name: RefCell::new(name.clone()),
            is_name_set: true,
            is_name_guessed: Cell::new(false),
            ..self
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

    /// Keeps what a camera probe found. Whether that differs from before.
    pub fn note_camera(&self, kind: CameraKind) -> bool {
        let is_news = self.camera.found(kind);
        if is_news {
            self.camera_changed.notify();
            self.changed.notify();
        }
        is_news
    }

    /// Completes when a probe has found another camera than before. One task may wait.
    pub async fn camera_changed(&self) {
        self.camera_changed.notified().await;
    }

    /// Whether the printer has an RTSPS camera on port 322: its model has one, or a probe found one. `None` while that is
    /// not known.
    pub fn has_rtsps(&self) -> Option<bool> {
        self.has_camera(Camera::Rtsp)
    }

    /// Whether the printer has a chamber camera on port 6000: by the setting, else its model has one, or a probe found
    /// one. `None` while that is not known.
    pub fn has_chamber(&self) -> Option<bool> {
        match self.port_6000 {
            Port6000::Auto => self.has_camera(Camera::Chamber),
            Port6000::Chamber => Some(true),
            Port6000::Tunnel => Some(false),
        }
    }

    fn has_camera(&self, camera: Camera) -> Option<bool> {
        let found = match self.camera.kind() {
            CameraKind::Chamber => Some(Camera::Chamber),
            CameraKind::Rtsp | CameraKind::RtspOff => Some(Camera::Rtsp),
            CameraKind::Unknown
            | CameraKind::ChamberDark
            | CameraKind::ChamberBusy
            | CameraKind::NoPort
            | CameraKind::WrongCode => None,
        };
        let expected = self.model.map(|model| model.camera);
        match (expected, found) {
            (None, None) => None,
            (expected, found) => Some([expected, found].contains(&Some(camera))),
        }
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

    /// Dialling the printer succeeded, or failed.
    pub fn set_dialled(&self, is_connected: bool) {
        self.is_dial_failing.set(!is_connected);
    }

    /// Whether the printer cannot be connected to at its known address, as far as the last attempt tells.
    pub fn is_lost(&self) -> bool {
        self.is_dial_failing.get() && !self.is_logged_in()
    }

    /// The address of the last connection to the printer.
    pub const fn address(&self) -> Option<IpAddr> {
        self.address.get()
    }

    /// A connection to the printer was made at this address.
    pub fn set_address(&self, address: IpAddr) {
        self.address.set(Some(address));
    }

    /// Where the printer was found by its serial number and certificate, if not at its configured address.
    pub const fn followed(&self) -> Option<Ipv4Addr> {
        self.followed.get()
    }

    /// The printer was found at this address, and showed its certificate there.
    pub fn follow(&self, address: Ipv4Addr) {
        self.set(&self.followed, Some(address));
    }

    /// The printer does not answer where it was found: its configured address is used again. Not while a service is
    /// logged in there.
    pub fn unfollow(&self) {
        if !self.is_logged_in() {
            self.set(&self.followed, None);
        }
    }

    /// Whether the printer accepts requests without a signature (Developer mode), as far as its reports say.
    pub const fn developer_mode(&self) -> Option<bool> {
        self.mode_and_signal.get().0
    }

    /// Strength of the printer's Wi-Fi signal in dBm: what it reports, else what it announces.
    pub fn signal(&self) -> Option<i16> {
        self.mode_and_signal.get().1.or_else(|| self.announced()?.signal)
    }

    /// The printer reported these. This is too frequent to count as a change.
    pub fn set_mode_and_signal(&self, reported: (Option<bool>, Option<i16>)) {
        self.mode_and_signal.set(reported);
    }

    /// What the printer's last announcement says.
    pub const fn announced(&self) -> Option<Announced> {
        self.announced.get()
    }

    /// The printer announced itself. This is too frequent to count as a change.
    pub fn set_announced(&self, announced: Announced) {
        self.announced.set(Some(announced));
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

    /// Whether this service of the printer has the proxy logged in at the moment.
    pub const fn is_logged_in_to(&self, service: Login) -> bool {
        self.login(service).get()
    }

    /// How often a service of the printer accepted the access code.
    pub const fn logins(&self, to: Login) -> u32 {
        of(&self.logins, to).get()
    }

    /// A service accepted the access code.
    pub fn log_in(&self, by: Login, at: Instant) {
        if !self.login(by).get() {
            let logins = of(&self.logins, by);
            logins.set(logins.get().saturating_add(1));
        }
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

    const fn login(&self, service: Login) -> &Cell<bool> {
        of(&self.logged_in, service)
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

    /// The printer's firmware has this version. An empty one and a longer one than [`MAX_VERSION`] are ignored.
    pub fn set_version(&self, version: &str) {
        if !version.is_empty() {
            self.set_text(&self.version, version);
        }
    }

    /// The printer's name: the setting, else what the printer says, else the name that it has from the factory.
    pub fn name(&self) -> Name {
        self.name.borrow().clone()
    }

    /// Whether the name is neither set nor reported by the printer, so that it is worth asking for.
    pub const fn is_name_guessed(&self) -> bool {
        self.is_name_guessed.get()
    }

    /// Whether the name is that of the setting, whatever the printer says.
    pub const fn is_name_given(&self) -> bool {
        self.is_name_set
    }

    /// The printer says that it has this name. An empty one, a longer one than [`MAX_NAME`] and one with control
    /// characters are ignored.
    pub fn set_name(&self, name: &str) {
        let is_name =
            !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control);
        if !self.is_name_set && is_name {
            self.is_name_guessed.set(false);
            self.set_text(&self.name, name);
        }
    }

    /// The code of the printer's model, such as `C12`: what the printer says, else that of its serial number. Empty:
    /// unknown.
    pub fn model_code(&self) -> heapless::String<MAX_CODE> {
        let said = self.model_code.borrow();
        match self.model {
            // Cannot fail: no code in the table is longer.
            Some(model) if said.is_empty() => model.code.try_into().unwrap_or_default(),
            Some(_) | None => said.clone(),
        }
    }

    /// The printer says that its model has this code. An empty one, as an A2L sends, and a longer one than
    /// [`MAX_CODE`] are ignored.
    pub fn set_model_code(&self, code: &str) {
        if !code.is_empty() {
            self.set_text(&self.model_code, code);
        }
    }

    fn set_text<const N: usize>(&self, fact: &RefCell<heapless::String<N>>, text: &str) {
        let mut fact = fact.borrow_mut();
        // The text is written into answers, datagrams and log lines, so it must be one line.
        let is_line = !text.contains(char::is_control);
        if let Ok(text) = heapless::String::try_from(text)
            && is_line
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

/// The element that belongs to `login`.
const fn of<T>(all: &[T; LOGINS], login: Login) -> &T {
    let [mqtt, chamber, rtsp, ftp] = all;
    match login {
        Login::Mqtt => mqtt,
        Login::Chamber => chamber,
        Login::Rtsp => rtsp,
        Login::Ftp => ftp,
    }
}

/// The name that a printer has from the factory: `3DP`, and the first and the last three characters of its serial
/// number.
fn factory_name(serial: &str) -> Name {
    let first = serial.get(..3).unwrap_or_default();
    let last = serial.len().checked_sub(3).and_then(|at| serial.get(at..)).unwrap_or_default();
    let mut name = Name::new();
    // Cannot fail: these are eleven bytes.
    let _fits = write!(name, "3DP-{first}-{last}");
    name
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
    use crate::notify::tests::wakes;
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
    fn the_printers_name_goes_before_the_factorys() {
        let of = status("01P00A3C1200417");
        assert_eq!(of.name(), "3DP-01P-417");
        assert!(of.is_name_guessed());
        of.set_name("");
        of.set_name(&"9".repeat(MAX_NAME + 1));
        of.set_name("a\r\nLocation: 10.0.0.9");
        assert!(of.is_name_guessed());
        of.set_name("Grüner Drucker");
        assert_eq!((&*of.name(), of.is_name_guessed()), ("Grüner Drucker", false));
        for serial in ["", "0", "01P"] {
            assert!(status(serial).name().starts_with("3DP-"), "{serial}");
        }
    }

    #[test]
    fn a_name_that_is_set_goes_before_the_printers() {
        let name = Name::try_from("Workshop").unwrap();
        let of = status("01P00A3C1200417").named(Some(&name));
        assert_eq!((&*of.name(), of.is_name_guessed()), ("Workshop", false));
        of.set_name("3DP-01P-417");
        assert_eq!(of.name(), "Workshop");
        assert_eq!(status("01P00A3C1200417").named(None).name(), "3DP-01P-417");
    }

    #[test]
    fn the_printers_model_code_goes_before_the_serials() {
        let of = status("31B00A3C1200417");
        assert_eq!(of.model_code(), "O1C2");
        for ignored in ["", "x23456789abcdef01", "C12\n"] {
            of.set_model_code(ignored);
            assert_eq!(of.model_code(), "O1C2", "{ignored}");
        }
        of.set_model_code("O1C");
        assert_eq!(of.model_code(), "O1C");
        assert_eq!(status("99900A3C1200417").model_code(), "");
        assert!(Model::ALL.iter().all(|model| model.code.len() <= MAX_CODE));
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
        status.set_version("");
        status.set_name(&"9".repeat(MAX_NAME + 1));
        assert!(!has_changed(&status), "what is too long is ignored");
        status.set_name("Grüner Drucker");
        assert!(has_changed(&status));
        assert_eq!((&*status.version(), &*status.name()), ("01.09.01.00", "Grüner Drucker"));
        status.set_certificate(Certificate::Rejected);
        assert!(has_changed(&status));
        assert_eq!(status.last_report(), Some(LATER));
    }

    #[test]
    fn what_is_known_of_the_camera_wakes_those_who_wait_for_it() {
        let status = status("01P00A000000001");
        let found = || assert!(status.note_camera(CameraKind::Chamber));
        assert!(wakes(|| status.changed(), found));
        let again = || assert!(!status.note_camera(CameraKind::Chamber));
        assert!(!wakes(|| status.changed(), again));
        let lost = || assert!(status.note_camera(CameraKind::NoPort));
        assert!(wakes(|| status.camera_changed(), lost));
        assert!(wakes(
            || status.camera().news(),
            || assert!(!status.note_camera(CameraKind::NoPort))
        ));
        assert!(wakes(|| status.camera().notified(), || status.camera().look_again()));
        assert!(wakes(|| status.changed(), || status.set_live_view_off(true)));
        assert!(!wakes(|| status.changed(), || status.set_live_view_off(true)));
        assert!(wakes(|| status.camera().notified(), || status.set_live_view_off(false)));
    }
}
