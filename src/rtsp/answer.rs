//! What players' requests are answered with (RFC 2326 §7).

use core::fmt::{self, Write};
use core::time::Duration;

use super::digest;
use super::wire::{Channels, Method};

/// How long a player that does not play may be silent. One that plays may be silent for ever: whether
/// it is there is seen by its taking what it is sent.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// A status, and its reason in words that a player may show to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    code: u16,
    reason: &'static str,
}

impl Status {
    /// It was done.
    pub const OK: Self = Self::new(200, "OK");
    /// It cannot be understood, has no CSeq, or wants a channel twice.
    pub const BAD_REQUEST: Self = Self::new(400, "Bad Request");
    /// The code has to be shown.
    pub const UNAUTHORIZED: Self = Self::new(401, "Unauthorized");
    /// A wrong code was shown too often.
    pub const FORBIDDEN: Self = Self::new(403, "Forbidden: Wrong Access Code");
    /// The printer has no such camera.
    pub const OTHER_CAMERA: Self =
        Self::new(404, "Not Found: This Printer's Camera Is On Port 6000");
    /// The camera has no such track.
    pub const NO_SUCH_TRACK: Self = Self::new(404, "Not Found: No Such Track");
    /// A URL is longer than there is room for.
    pub const URL_TOO_LONG: Self = Self::new(414, "Request-URI Too Large");
    /// No parameter is known here.
    pub const NO_PARAMETER: Self = Self::new(451, "Parameter Not Understood");
    /// It is not this session's name.
    pub const SESSION_NOT_FOUND: Self = Self::new(454, "Session Not Found");
    /// Not before something else, or not any more.
    pub const NOT_IN_THIS_STATE: Self = Self::new(455, "Method Not Valid in This State");
    /// Packets are sent within this connection only.
    pub const TRANSPORT: Self =
        Self::new(461, "Unsupported Transport: Use RTP/AVP/TCP, Interleaved");
    /// It is not known here.
    pub const NOT_IMPLEMENTED: Self = Self::new(501, "Not Implemented");
    /// All places are taken.
    pub const FULL: Self = Self::new(503, "Service Unavailable: All Players' Places Are Taken");
    /// The camera does not say what it shows.
    pub const NO_ANSWER: Self =
        Self::new(503, "Service Unavailable: The Printer's Camera Does Not Answer");
    /// The camera is switched off.
    pub const LIVE_VIEW_OFF: Self =
        Self::new(503, "Service Unavailable: Switch On LAN Live View At The Printer");
    /// The printer does not take our code.
    pub const PRINTER_REFUSES: Self =
        Self::new(503, "Service Unavailable: The Printer Refuses The Proxy's Access Code");
    /// It is not version 1.0.
    pub const VERSION: Self = Self::new(505, "RTSP Version Not Supported");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// An answer, before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but a status.
    Plain(Status),
    /// What may be asked for.
    Options,
    /// Who are you?
    Challenge {
        /// Whether the code was right, but shown to an old question.
        stale: bool,
    },
    /// What the camera shows.
    Described,
    /// A track will come on these channels.
    SetUp {
        /// Which.
        channels: Channels,
        /// From whom.
        source: u32,
    },
    /// It begins.
    Playing,
}

impl Answer {
    const fn status(self) -> Status {
        match self {
            Self::Plain(status) => status,
            Self::Challenge { .. } => Status::UNAUTHORIZED,
            Self::Options | Self::Described | Self::SetUp { .. } | Self::Playing => Status::OK,
        }
    }

    /// Writes the first line and the fields that depend on nothing but the answer, without the empty
    /// line that ends them.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn write_head(
        self,
        out: &mut impl Write,
        cseq: Option<u32>,
        nonce: &str,
        session: &str,
    ) -> fmt::Result {
        let Status { code, reason } = self.status();
        write!(out, "RTSP/1.0 {code} {reason}\r\n")?;
        if let Some(cseq) = cseq {
            write!(out, "CSeq: {cseq}\r\n")?;
        }
        out.write_str("Server: PandaProxy\r\n")?;
        let within = SESSION_TIMEOUT.as_secs();
        match self {
            Self::Options => {
                out.write_str("Public: ")?;
                for (at, (name, _)) in Method::NAMES.iter().enumerate() {
                    write!(out, "{}{name}", if at == 0 { "" } else { ", " })?;
                }
                out.write_str("\r\n")
            }
            Self::Challenge { stale } => digest::write_challenge(out, nonce, stale),
            Self::SetUp { channels: Channels { rtp, rtcp }, source } => write!(
                out,
                "Transport: RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};ssrc={source:08X};\
                 mode=\"PLAY\"\r\nSession: {session};timeout={within}\r\n"
            ),
            Self::Playing => {
                write!(out, "Session: {session};timeout={within}\r\nRange: npt=0.000-\r\n")
            }
            Self::Plain(_) | Self::Described => Ok(()),
        }
    }
}
