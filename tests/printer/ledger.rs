//! What a test can learn of a simulated printer afterwards. Lists forget their oldest entry.

use core::fmt;
use std::collections::VecDeque;
use std::rc::Rc;

/// How many entries each list remembers.
pub const KEPT: usize = 256;

/// A request as it arrived on the request topic.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Which connection it came by, counted from 1.
    pub connection: u64,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// 0 or 1.
    pub qos: u8,
    /// The DUP flag.
    pub dup: bool,
    /// Whether it asks to be retained.
    pub retain: bool,
    /// Its packet id, with QoS 1.
    pub id: Option<u16>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, payload, qos, dup, retain, id } = self;
        write!(f, "{connection}: qos {qos}, dup {dup}, retain {retain}, id {id:?}, ")?;
        write!(f, "{}", payload.escape_ascii())
    }
}

/// A CONNECT's fields, without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which connection it came by, counted from 1.
    pub connection: u64,
    /// The client id.
    pub client_id: String,
    /// In seconds; zero turns it off.
    pub keep_alive: u16,
    /// Whether it wants no session kept.
    pub clean_session: bool,
    /// Whether it left a will.
    pub will: bool,
    /// What CONNACK answers; zero is welcome.
    pub answer: u8,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// DISCONNECT.
    Orderly,
    /// The client closed, or the stream broke, without DISCONNECT.
    Lost,
    /// TLS failed, or took too long.
    Handshake,
    /// No CONNECT in time.
    Late,
    /// CONNACK with a return code other than zero.
    Refused(u8),
    /// A topic or a QoS that this printer answers by closing.
    Unwanted,
    /// No packet, or none in its place.
    Malformed,
    /// Its queue was full.
    Lagging,
    /// It took nothing of what was written.
    Stuck,
    /// The client was silent for too long.
    Silent,
    /// The printer rebooted.
    Rebooted,
    /// The printer closed in the middle of a packet.
    Cut,
    /// The test stopped serving it.
    Abandoned,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Orderly => "disconnected in order",
            Self::Lost => "gone without DISCONNECT",
            Self::Handshake => "no TLS",
            Self::Late => "no CONNECT in time",
            Self::Refused(code) => return write!(f, "refused by CONNACK {code}"),
            Self::Unwanted => "dropped over a topic or QoS",
            Self::Malformed => "dropped over a malformed packet",
            Self::Lagging => "dropped with a full queue",
            Self::Stuck => "dropped because it took nothing",
            Self::Silent => "dropped because it said nothing",
            Self::Rebooted => "dropped by a reboot",
            Self::Cut => "closed in the middle of a packet",
            Self::Abandoned => "no longer served",
        })
    }
}

/// Something that has just happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A connection was accepted; they are counted from 1.
    Connected(u64),
    /// A connection was refused: over the limit, or during a reboot.
    Refused,
    /// CONNECT was understood.
    Greeted(&'a Hello),
    /// A filter was asked for.
    Subscribed(u64, &'a str),
    /// A request arrived.
    Requested(&'a Request),
    /// A connection is over.
    Ended(u64, Ending),
}

/// The counts and lists behind what [`Printer`](super::Printer) shows.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) ever: u64,
    pub(super) most: usize,
    pub(super) refused: u64,
    pub(super) requests_ever: u64,
    pub(super) pushalls: u64,
    pub(super) get_versions: u64,
    pub(super) reports: u64,
    pub(super) orderly: u64,
    pub(super) disorderly: u64,
    pub(super) last_full: Option<Rc<[u8]>>,
    pub(super) hellos: VecDeque<Hello>,
    pub(super) requests: VecDeque<Request>,
    pub(super) subscriptions: VecDeque<String>,
    pub(super) endings: VecDeque<Ending>,
}

/// Adds to a list that remembers [`KEPT`].
pub(super) fn remember<T>(list: &mut VecDeque<T>, entry: T) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(entry);
}
