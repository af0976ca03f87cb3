//! What kind of printer a serial number belongs to, and what follows from that for its file service.
//!
//! The first three characters of a serial number are the model's (PROTOCOL §7). It is a guess that
//! only the printer can confirm, good enough to choose a default that the user can override.

use core::fmt;
use core::ops::RangeInclusive;

/// Printers that serve files in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A1 and P1: a server of its own on a microcontroller, and the chamber camera on port 6000.
    Esp32,
    /// X1, H2, P2: vsFTPd on Linux, and the file tunnel on port 6000.
    Linux,
}

/// The models by what their serial numbers begin with (PROTOCOL §7).
///
/// What the A2L serves files with is not known; it has the chamber camera of the others beside it.
const MODELS: [(&str, Family); 13] = [
    ("01S", Family::Esp32), // P1P
    ("01P", Family::Esp32), // P1S
    ("030", Family::Esp32), // A1 mini
    ("039", Family::Esp32), // A1
    ("26A", Family::Esp32), // A2L
    ("00M", Family::Linux), // X1, X1 Carbon
    ("03W", Family::Linux), // X1E
    ("20P", Family::Linux), // X2D
    ("22E", Family::Linux), // P2S
    ("093", Family::Linux), // H2S
    ("094", Family::Linux), // H2D, early H2C
    ("239", Family::Linux), // H2D Pro
    ("31B", Family::Linux), // H2C
];

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Esp32, Self::Linux];

    /// The family of the printer with this serial number, in upper case, if its model is known.
    pub fn of(serial: &str) -> Option<Self> {
        MODELS.iter().find(|(prefix, _)| serial.starts_with(prefix)).map(|(_, family)| *family)
    }

    /// Whether port 6000 is the chamber camera's; else it is the file tunnel's (PROTOCOL §3, §6.2).
    pub const fn has_chamber_camera(self) -> bool {
        match self {
            Self::Esp32 => true,
            Self::Linux => false,
        }
    }

    /// FTP sessions to have with it at once. Printers' own limits are not known, so these are choices:
    /// an ESP32 takes very few and stores one file at a time (PROTOCOL §5.4), vsFTPd serves several at
    /// once by its nature, and four is what one slicer and a few browsers of files need.
    pub const fn ftp_sessions(self) -> usize {
        match self {
            Self::Esp32 => 1,
            Self::Linux => 4,
        }
    }

    /// The ports it may name for a transfer: for the ESP32 in sequence from 2024, an inference from
    /// those that were seen; for vsFTPd as it is configured (PROTOCOL §0, §5.2).
    pub const fn data_ports(self) -> RangeInclusive<u16> {
        match self {
            Self::Esp32 => 2024..=2043,
            Self::Linux => 50_000..=50_100,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Esp32 => "A1 or P1",
            Self::Linux => "X1, H2 or P2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_tells_the_family_and_an_unknown_one_tells_nothing() {
        assert_eq!(Family::of("01P00A000000001"), Some(Family::Esp32));
        assert_eq!(Family::of("00M00A000000001"), Some(Family::Linux));
        for unknown in ["", "0", "01", "01X00A000000001", "99901P000000001"] {
            assert_eq!(Family::of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn no_model_stands_in_the_table_twice_or_hides_another() {
        for (at, (prefix, _)) in MODELS.iter().enumerate() {
            assert_eq!(prefix.len(), 3, "{prefix}");
            assert!(MODELS[..at].iter().all(|(other, _)| other != prefix), "{prefix}");
        }
    }
}
