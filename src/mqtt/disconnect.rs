//! Why a client's connection ends: the reasons that the client's session, its slot and the hub share.
//!
//! The session finds protocol errors, the hub decides on what the printer does and on who has to make
//! room, and the [slot](super::slot) carries the hub's reason to the session.

use core::fmt;
use core::time::Duration;

use super::wire::WireError;
use crate::auth::LoginError;
use crate::board::BOARD;
use crate::journal::Kind;
use crate::session::ClientError;

/// How long a connection may take to send its CONNECT, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to receive one report. It is checked between pieces of at most
/// `BOARD.mqtt.outbox` bytes, each of which has 30 s of its own.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const FILTERS_PER_PACKET: usize = 32;

/// QoS 2 requests whose PUBREL has not come. A client that sends its whole window at once, 20 with
/// paho, sends the first PUBREL behind it.
pub const UNRELEASED: usize = 32;

/// Why a client's connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The client sent DISCONNECT.
    Left,
    /// No CONNECT within [`CONNECT_TIMEOUT`].
    Silent,
    /// The first packet is not CONNECT.
    NotConnect,
    /// A second CONNECT, or a packet that only a server sends.
    OutOfOrder,
    /// A packet that violates MQTT 3.1.1.
    Malformed(WireError),
    /// A topic filter that violates MQTT 3.1.1 §4.7.
    BadFilter,
    /// A subscription to the request topic of a model that does not allow it.
    RequestTopic,
    /// A request to another serial number, where only the printer's own is served.
    OtherSerial,
    /// A packet larger than the inbox.
    TooLong {
        /// Bytes that the packet's header announces.
        announced: usize,
        /// Bytes that are accepted.
        bound: usize,
    },
    /// A protocol that is not supported; the client may fall back to 3.1.1.
    Protocol {
        /// The protocol level in CONNECT.
        level: u8,
    },
    /// No client identifier, and a session that should be kept.
    NoIdentifier,
    /// The user name or the access code is wrong.
    Login(LoginError),
    /// All slots are in use.
    NoSlot,
    /// More than [`FILTERS_PER_PACKET`] filters in one packet.
    TooManyFilters,
    /// More than [`UNRELEASED`] QoS 2 requests without PUBREL.
    TooManyUnreleased,
    /// A report was not received within [`REPORT_TIMEOUT`].
    TooSlow,
    /// The client reads so slowly that answers to requests no longer fit into its ring.
    AnswersLost,
    /// The printer is unreachable.
    PrinterAway,
    /// A request while the printer is unreachable.
    RequestRefused,
    /// The printer's connection was lost with this client's request under way.
    RequestLost,
    /// A resend of a request that an older connection of the same client has still under way.
    Undecided,
    /// No frame is free for the client's request.
    NoRoom,
    /// A newer connection of the same client took the slot.
    TakenOver,
    /// The program ends.
    ShuttingDown,
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::Login(LoginError::LockedOut) => Kind::Refused,
            Self::Login(_) => Kind::WrongCode,
            Self::TooLong { .. } => Kind::TooLong,
            Self::Silent => Kind::Silent,
            Self::TooSlow => Kind::Stuck,
            Self::RequestRefused | Self::RequestLost | Self::Undecided => Kind::RequestRefused,
            Self::Left
            | Self::ShuttingDown
            | Self::TakenOver
            | Self::AnswersLost
            | Self::PrinterAway => Kind::Left,
            Self::NotConnect
            | Self::OutOfOrder
            | Self::Malformed(_)
            | Self::BadFilter
            | Self::RequestTopic
            | Self::Protocol { .. }
            | Self::NoIdentifier
            | Self::TooManyUnreleased => Kind::Malformed,
            Self::OtherSerial | Self::NoSlot | Self::NoRoom | Self::TooManyFilters => Kind::Refused,
        }
    }

    fn login_error(self) -> Option<LoginError> {
        if let Self::Login(error) = self { Some(error) } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("DISCONNECT received"),
            Self::Silent => write!(f, "no login within {} s", CONNECT_TIMEOUT.as_secs()),
            Self::NotConnect => f.write_str("the first packet is not CONNECT"),
            Self::OutOfOrder => f.write_str("unexpected packet type"),
            Self::Malformed(error) => write!(f, "malformed packet: {error}"),
            Self::BadFilter => f.write_str("invalid topic filter"),
            Self::RequestTopic => {
                f.write_str("subscribed to the request topic, which A1 and P1 do not allow")
            }
            Self::OtherSerial => f.write_str(
                "a request to another printer's serial number; that printer has another address",
            ),
            Self::TooLong { announced, bound } => {
                write!(f, "packet of {announced} bytes; at most {bound} (BOARD.mqtt.inbox)")
            }
            Self::Protocol { level } => {
                write!(f, "unsupported MQTT protocol level {level}; use MQTT 3.1.1")
            }
            Self::NoIdentifier => f.write_str("no client identifier and clean session not set"),
            Self::Login(error) => error.fmt(f),
            Self::NoSlot => {
                write!(f, "all {} slots are in use (BOARD.clients.mqtt)", BOARD.clients.mqtt)
            }
            Self::TooManyFilters => {
                write!(f, "more than {FILTERS_PER_PACKET} topic filters in one packet")
            }
            Self::TooManyUnreleased => {
                write!(f, "more than {UNRELEASED} QoS 2 requests without PUBREL")
            }
            Self::TooSlow => {
                write!(f, "one report took longer than {} s", REPORT_TIMEOUT.as_secs())
            }
            Self::AnswersLost => f.write_str(
                "reads too slowly, its answers no longer fit; is the network slow? (BOARD.mqtt.ring)",
            ),
            Self::PrinterAway => f.write_str("the printer is unreachable"),
            Self::RequestRefused => f.write_str("request while the printer is unreachable"),
            Self::RequestLost => f.write_str("printer connection lost with a request under way"),
            Self::Undecided => f.write_str("duplicate of a request still in flight"),
            Self::NoRoom => f.write_str("out of buffers for its request (BOARD.mqtt.large)"),
            Self::TakenOver => f.write_str("replaced by a newer connection of the same client"),
            Self::ShuttingDown => f.write_str("shutting down"),
        }
    }
}

impl core::error::Error for Error {}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Malformed(error)
    }
}
