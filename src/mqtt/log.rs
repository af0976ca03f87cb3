//! The log lines of the MQTT service, one wording for each event.

use core::fmt;

use super::address::Content;
use super::state;
use crate::board::BOARD;
use crate::peer::Peer;

/// Something that is logged.
pub(super) enum Message<'a> {
    /// The printer accepts requests.
    Connected { serial: &'a str, clients: usize },
    /// The printer accepted the subscription and sends no report.
    NoReports { serial: &'a str },
    /// A delta was forwarded and not merged.
    NotMerged { error: state::Error, times: u32 },
    /// A report that is larger than any frame was skipped.
    Oversized { bytes: usize, content: Content, times: u32 },
    /// No frame was free for a report.
    NoFrame { bytes: usize, times: u32 },
    /// A client did not read its reports in time.
    Lagged { peer: Peer, dropped: u32 },
    /// A client did not read the requests of others in time.
    RequestsDropped { peer: Peer, dropped: u32 },
    /// A client published to a topic that is not a request topic.
    Ignored { peer: Peer, topic: &'a str, times: u32 },
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Connected { serial, clients } => {
                write!(f, "mqtt: the printer is connected ({serial}); {clients} clients connected")
            }
            Self::NoReports { serial } => {
                write!(
                    f,
                    "mqtt: the printer sends no reports for {serial}; is this the printer's serial number?"
                )
            }
            Self::NotMerged { error, times } => {
                write!(f, "mqtt: delta forwarded but not merged into the cached state: {error}")?;
                seen(f, times)
            }
            Self::Oversized { bytes, content, times } => {
                let most = BOARD.mqtt.large.size;
                let what = match content {
                    Content::State => "state report",
                    Content::Answer | Content::Request => "answer",
                };
                write!(f, "mqtt: skipped one {what} of {bytes} bytes")?;
                seen(f, times)?;
                write!(f, "; at most {most} fit (BOARD.mqtt.large.size)")
            }
            Self::NoFrame { bytes, times } => {
                write!(f, "mqtt: no buffer is free for a report of {bytes} bytes")?;
                seen(f, times)?;
                f.write_str("; readers get the full state instead (BOARD.mqtt.large.count)")
            }
            Self::Lagged { peer, dropped } => {
                write!(f, "{peer}: reads too slowly, {dropped} reports dropped; full state follows")
            }
            Self::RequestsDropped { peer, dropped } => {
                write!(f, "{peer}: reads too slowly, {dropped} requests of other clients dropped")
            }
            Self::Ignored { peer, topic, times } => {
                write!(f, "{peer}: ignored a message to topic {topic:.60}")?;
                seen(f, times)
            }
        }
    }
}

/// Writes how often a message that is logged rarely has occurred, if more than once.
fn seen(f: &mut fmt::Formatter<'_>, times: u32) -> fmt::Result {
    if times > 1 { write!(f, " (seen {times} times)") } else { Ok(()) }
}

/// Each message of the service once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use super::disconnect::Error as Client;
    use super::json;
    use super::upstream::Error as Printer;
    use super::wire::{ConnectCode, Fault, WireError};
    use crate::auth::LoginError;
    use alloc::string::ToString;

    let wire = WireError { at: 12, fault: Fault::Utf8 };
    let peer = Peer::unknown();
    let messages = [
        Message::Connected { serial: "01P00A000000000", clients: 3 },
        Message::NoReports { serial: "01P00A000000000" },
        Message::NotMerged { error: state::Error::NoPrint, times: 1 },
        Message::NotMerged { error: state::Error::Json(json::Error::TooDeep { at: 7 }), times: 3 },
        Message::NotMerged { error: state::Error::TooWide, times: 1 },
        Message::NotMerged { error: state::Error::NoRoom, times: 1 },
        Message::Oversized { bytes: 120_000, content: Content::State, times: 2 },
        Message::Oversized { bytes: 43_800, content: Content::Answer, times: 1 },
        Message::NoFrame { bytes: 30_000, times: 2 },
        Message::Lagged { peer, dropped: 12 },
        Message::RequestsDropped { peer, dropped: 3 },
        Message::Ignored { peer, topic: "homeassistant/status", times: 2 },
    ];
    let clients = [
        Client::Left,
        Client::Silent,
        Client::NotConnect,
        Client::OutOfOrder,
        Client::Malformed(wire),
        Client::BadFilter,
        Client::RequestTopic,
        Client::OtherSerial,
        Client::TooLong { announced: 70_000, bound: BOARD.mqtt.inbox },
        Client::Protocol { level: 5 },
        Client::NoIdentifier,
        Client::Login(LoginError::WrongUser),
        Client::Login(LoginError::WrongCode(crate::auth::Guess::of(b""))),
        Client::NoSlot,
        Client::TooManyFilters,
        Client::TooManyUnreleased,
        Client::TooSlow,
        Client::AnswersLost,
        Client::PrinterAway,
        Client::RequestRefused,
        Client::RequestLost,
        Client::Undecided,
        Client::NoRoom,
        Client::TakenOver,
        Client::ShuttingDown,
    ];
    let printers = [
        Printer::Refused(ConnectCode::NotAuthorized),
        Printer::Refused(ConnectCode::ServerUnavailable),
        Printer::SubscriptionRefused,
        Printer::NoAnswer,
        Printer::Silent,
        Printer::Malformed(wire),
        Printer::OutOfOrder,
        Printer::ShuttingDown,
    ];
    let mut all: alloc::vec::Vec<_> = messages.iter().map(ToString::to_string).collect();
    all.extend(clients.iter().map(ToString::to_string));
    all.extend(printers.iter().map(ToString::to_string));
    all
}
