//! The table of printer models: what the first three characters of a serial number say about a printer.
//!
//! Sources: Bambu Studio's `resources/printers/*.json` for prefixes and model codes, and
//! [`protocol`](crate::protocol#models) for the rest. The row is a default: what the printer itself shows
//! ([`Status`](super::status::Status)) and what the user configures go before it.

use core::ops::RangeInclusive;
use core::time::Duration;

/// Full states that a P1 or A1 may be asked for: one in five minutes. Composing one stops its motion
/// control for a moment.
pub const SLOW_PUSH_ALL: Duration = Duration::from_secs(300);

/// Full states that any other printer may be asked for: as often as Bambu Studio asks.
pub const FAST_PUSH_ALL: Duration = Duration::from_secs(3);

/// The interface of a printer's camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Camera {
    /// JPEG pictures on port 6000.
    Chamber,
    /// RTSP over TLS on port 322.
    Rtsp,
}

/// A printer's FTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileServer {
    /// The server of A1 and P1, on an ESP32.
    Esp32,
    /// vsFTPd on Linux.
    Vsftpd,
}

impl FileServer {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Esp32, Self::Vsftpd];

    /// Ports that the server names for transfers. vsFTPd's are its configuration's; an ESP32 counts up from
    /// 2024, and 20 ports are more than it has been seen to use.
    pub const fn data_ports(self) -> RangeInclusive<u16> {
        match self {
            Self::Esp32 => 2024..=2043,
            Self::Vsftpd => 50_000..=50_100,
        }
    }
}

/// One model of printer.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The first three characters of its serial numbers.
    pub prefix: &'static str,
    /// Its code: `DevModel` in SSDP, `model` in an answer to `detect`.
    pub code: &'static str,
    /// Its name in the shops.
    pub name: &'static str,
    /// Its camera.
    pub camera: Camera,
    /// Its FTP server.
    pub file_server: FileServer,
    /// FTP sessions to have with it at once. The printers' own limits are not documented: an ESP32 stores one
    /// file at a time, and four are what one slicer and a few file browsers need of a vsFTPd.
    pub ftp_sessions: usize,
    /// The shortest time between two requests for its full state.
    pub push_all_interval: Duration,
    /// Whether slicers use its file tunnel on port 6000 in the LAN unless it says otherwise
    /// (`ipcam.file.local` in its reports). X1 and X1E have it for remote use.
    pub has_tunnel: bool,
    /// Whether its broker delivers what clients publish to the request topic to others that subscribed to it. The
    /// broker of the other models closes the connection of a client that subscribes to that topic.
    pub shows_requests: bool,
    /// Whether its certificate is issued by an authority that is not [built in](crate::tls) and that
    /// the printer does not always send, so that it can only be trusted on first use.
    pub needs_pin: bool,
}

impl Model {
    /// Every model that is known.
    pub const ALL: [Self; 15] = [
        Self::esp32("01S", "C11", "P1P"),
        Self::esp32("01P", "C12", "P1S"),
        Self::esp32("030", "N1", "A1 mini"),
        Self::esp32("039", "N2S", "A1"),
        // What its file server is has not been seen; it shows its camera as an A1 does.
        Self::esp32("26A", "N9", "A2L").pinned(),
        Self::linux("00M", "BL-P001", "X1 Carbon").without_tunnel(),
        Self::linux("00W", "BL-P002", "X1").without_tunnel(),
        Self::linux("03W", "C13", "X1E").without_tunnel(),
        Self::linux("20P", "N6", "X2D"),
        Self::linux("22E", "N7", "P2S"),
        Self::linux("093", "O1S", "H2S").pinned(),
        // Early H2C have this prefix too.
        Self::linux("094", "O1D", "H2D").pinned(),
        Self::linux("239", "O1E", "H2D Pro").pinned(),
        Self::linux("31B", "O1C2", "H2C"),
        // A model with a laser, named in Bambu Studio's table by its code alone.
        Self::linux("35F", "N8", "N8").pinned(),
    ];

    const fn esp32(prefix: &'static str, code: &'static str, name: &'static str) -> Self {
        Self {
            prefix,
            code,
            name,
            camera: Camera::Chamber,
            file_server: FileServer::Esp32,
            ftp_sessions: 1,
            push_all_interval: SLOW_PUSH_ALL,
            has_tunnel: false,
            shows_requests: false,
            needs_pin: false,
        }
    }

    const fn linux(prefix: &'static str, code: &'static str, name: &'static str) -> Self {
        Self {
            prefix,
            code,
            name,
            camera: Camera::Rtsp,
            file_server: FileServer::Vsftpd,
            ftp_sessions: 4,
            push_all_interval: FAST_PUSH_ALL,
            has_tunnel: true,
            shows_requests: true,
            needs_pin: false,
        }
    }

    const fn without_tunnel(self) -> Self {
        Self { has_tunnel: false, ..self }
    }

    const fn pinned(self) -> Self {
        Self { needs_pin: true, ..self }
    }

    /// The model with this serial number, which is in upper case. `None` if its prefix is not in the table.
    pub fn of_serial(serial: &str) -> Option<&'static Self> {
        const ALL: &[Model] = &Model::ALL;
        ALL.iter().find(|model| serial.starts_with(model.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_stands_in_the_table_twice() {
        for (at, model) in Model::ALL.iter().enumerate() {
            assert_eq!(model.prefix.len(), 3, "{model:?}");
            assert!(Model::ALL[..at].iter().all(|other| other.prefix != model.prefix), "{model:?}");
        }
    }

    #[test]
    fn an_unknown_serial_number_has_no_model() {
        for unknown in ["", "0", "01", "01X00A000000001", "99901P000000001"] {
            assert_eq!(Model::of_serial(unknown), None, "{unknown}");
        }
    }

    /// The rows as [`protocol`](crate::protocol#models) states them, written a second time by column.
    #[test]
    fn each_row_states_the_facts_of_its_model() {
        let rows = [
            ("01S", "C11", "P1P"),
            ("01P", "C12", "P1S"),
            ("030", "N1", "A1 mini"),
            ("039", "N2S", "A1"),
            ("26A", "N9", "A2L"),
            ("00M", "BL-P001", "X1 Carbon"),
            ("00W", "BL-P002", "X1"),
            ("03W", "C13", "X1E"),
            ("20P", "N6", "X2D"),
            ("22E", "N7", "P2S"),
            ("093", "O1S", "H2S"),
            ("094", "O1D", "H2D"),
            ("239", "O1E", "H2D Pro"),
            ("31B", "O1C2", "H2C"),
            ("35F", "N8", "N8"),
        ];
        assert_eq!(rows.len(), Model::ALL.len());
        let chamber = ["01S", "01P", "030", "039", "26A"];
        let pinned = ["26A", "093", "094", "239", "35F"];
        let tunnel = ["20P", "22E", "093", "094", "239", "31B", "35F"];
        for (prefix, code, name) in rows {
            let serial = alloc::format!("{prefix}00A000000001");
            let model = Model::of_serial(&serial).unwrap();
            assert_eq!((model.code, model.name), (code, name));
            let is_small = chamber.contains(&prefix);
            assert_eq!(model.camera == Camera::Chamber, is_small, "{prefix}");
            assert_eq!(model.file_server == FileServer::Esp32, is_small, "{prefix}");
            assert_eq!(model.ftp_sessions, if is_small { 1 } else { 4 }, "{prefix}");
            let interval = if is_small { 300 } else { 3 };
            assert_eq!(model.push_all_interval.as_secs(), interval, "{prefix}");
            assert_eq!(model.shows_requests, !is_small, "{prefix}");
            assert_eq!(model.has_tunnel, tunnel.contains(&prefix), "{prefix}");
            assert_eq!(model.needs_pin, pinned.contains(&prefix), "{prefix}");
        }
    }
}
