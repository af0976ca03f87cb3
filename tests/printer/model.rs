//! The printers that can be simulated, and their faults.

use core::time::Duration;

/// A printer's model. Its manners are those of its family (`src/protocol.md`, models).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// ESP32, deltas, closes on any topic but its own, four connections.
    P1S,
    /// ESP32 like the P1S, but its acks have no `command` and its deltas no trays.
    A1Mini,
    /// Linux with mosquitto: full states only, any topic.
    X1C,
    /// Linux like the X1C, but deltas; indented, and with certificates of the second generation.
    H2D,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::P1S, Self::A1Mini, Self::X1C, Self::H2D];

    /// The serial number of the one simulated printer of this model, as in its certificate.
    pub const fn serial(self) -> &'static str {
        match self {
            Self::P1S => "01P00A3C1200417",
            Self::A1Mini => "03000A432500533",
            Self::X1C => "00M00A2B0700218",
            Self::H2D => "09400A561800109",
        }
    }

    /// Connections at once (`src/protocol.md`, mqtt; not known for X1 and H2 except that it is more).
    pub(super) const fn connections(self) -> usize {
        match self {
            Self::P1S | Self::A1Mini => 4,
            Self::X1C | Self::H2D => 16,
        }
    }

    /// Between two reports sent unasked.
    pub(super) const fn period(self) -> Duration {
        match self {
            Self::P1S | Self::A1Mini => Duration::from_secs(2),
            Self::X1C | Self::H2D => Duration::from_secs(1),
        }
    }

    /// What it always does badly.
    pub(super) const fn quirks(self) -> &'static [Quirk] {
        match self {
            Self::P1S => &[Quirk::StrictTopics, Quirk::ClosesOnWrongSerial],
            Self::A1Mini => &[Quirk::StrictTopics],
            Self::X1C | Self::H2D => &[],
        }
    }

    /// Whether its deltas are full states.
    pub(super) const fn always_full(self) -> bool {
        matches!(self, Self::X1C)
    }

    /// Whether its JSON is indented.
    pub(super) const fn indented(self) -> bool {
        matches!(self, Self::H2D)
    }
}

/// A fault of a printer, until it is [turned](super::Printer::turn) off.
///
/// What it does badly once is a method of [`Printer`](super::Printer): `reboot`, `cut`, `raw`, `large`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quirk {
    /// Closes on a subscription or publication to anything but its own two topics, each in its
    /// direction (P1 and A1; `src/protocol.md`, mqtt). Off: any topic, as mosquitto has it.
    StrictTopics,
    /// Closes on a subscription to another serial's report topic (P1). Off: SUBACK, then silence.
    ClosesOnWrongSerial,
    /// Never sends PUBACK; requests are obeyed all the same.
    NoPuback,
    /// Sends nothing of its own and answers no request, but PINGREQ, SUBSCRIBE and PUBLISH (with
    /// PUBACK) as ever.
    Silence,
    /// Pushes as ever and ignores requests; PUBACK as ever.
    Zombie,
    /// Neither reads nor writes, and so does not notice a peer that leaves. Reports are lost.
    HalfOpen,
    /// A string in its full states and deltas is not UTF-8.
    NonUtf8,
    /// Drops a client that was silent for one and a half times its keep alive.
    ReapsIdle,
}

/// What becomes of a connection that a printer does not want: over its limit, or while it reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Closed as soon as it is accepted.
    Closes,
    /// Accepted and never answered, not even by TLS.
    Ignores,
}
