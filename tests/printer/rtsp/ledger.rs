//! What can be learnt of the camera afterwards. Lists forget their oldest entry.

use core::fmt;
use std::collections::VecDeque;

use super::rtp::Report;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which connection it came by, counted from 1.
    pub connection: u64,
    /// OPTIONS, DESCRIBE and so on.
    pub method: String,
    /// As the request line has it.
    pub uri: String,
    /// What it was answered.
    pub status: u16,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed, without a session or after TEARDOWN.
    Orderly,
    /// The client closed with a session, or the stream broke.
    Lost,
    /// TLS failed, or took too long.
    Handshake,
    /// Neither a request nor a receiver report in time.
    Silent,
    /// No request, or one that was too long.
    Malformed,
    /// It took nothing of what was written.
    Stuck,
    /// It was never answered.
    Unanswered,
    /// Live view is off.
    Off,
    /// The printer closed in the middle of a packet.
    Cut,
    /// The printer closed between two packets.
    Closed,
    /// The printer closed on TEARDOWN.
    TornDown,
    /// The printer rebooted.
    Rebooted,
    /// The test stopped serving it.
    Abandoned,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Orderly => "gone in order",
            Self::Lost => "gone without TEARDOWN",
            Self::Handshake => "no TLS",
            Self::Silent => "closed because it said nothing",
            Self::Malformed => "closed over a malformed request",
            Self::Stuck => "closed because it took nothing",
            Self::Unanswered => "never answered",
            Self::Off => "closed because live view is off",
            Self::Cut => "closed in the middle of a packet",
            Self::Closed => "closed",
            Self::TornDown => "closed on TEARDOWN",
            Self::Rebooted => "dropped by a reboot",
            Self::Abandoned => "no longer served",
        })
    }
}

/// Something that has just happened. Connections are counted from 1.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A connection was accepted.
    Connected(u64),
    /// A connection was refused: over the limit, or during a reboot.
    Refused,
    /// A request was answered.
    Requested(&'a Request),
    /// A connection is over.
    Ended(u64, Ending),
}

/// The counts and lists behind what [`Rtsp`](super::Rtsp) shows.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) ever: u64,
    pub(super) most: usize,
    pub(super) refused: u64,
    pub(super) answered: u64,
    pub(super) wrong_digests: u64,
    pub(super) setups: u64,
    pub(super) leaked: u64,
    pub(super) receiver_reports: u64,
    pub(super) strays: u64,
    pub(super) units: u64,
    pub(super) skipped: u64,
    pub(super) requests: VecDeque<Request>,
    pub(super) reports: VecDeque<Report>,
    pub(super) answers: VecDeque<u16>,
    pub(super) endings: VecDeque<Ending>,
}
