//! Answers to players' requests (RFC 2326 §7).

use core::fmt::{self, Write};
use core::time::Duration;

use super::digest;
use super::wire::{Channels, Method};

/// How long a player that does not play may send nothing. A player that plays may send nothing at all: writes to
/// it show whether it is still there.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// A status code, and a reason phrase that a player may show to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    code: u16,
    reason: &'static str,
}

impl Status {
    /// The request was carried out.
    pub const OK: Self = Self::new(200, "OK");
    /// The request is malformed, has no CSeq, or names a channel that is in use.
    pub const BAD_REQUEST: Self = Self::new(400, "Bad Request");
    /// The access code is needed.
    pub const UNAUTHORIZED: Self = Self::new(401, "Unauthorized");
    /// A wrong access code was shown too often.
    pub const FORBIDDEN: Self = Self::new(403, "Forbidden: Wrong Access Code");
    /// The player's origin is locked out.
    pub const LOCKED_OUT: Self =
        Self::new(403, "Forbidden: Locked Out After Wrong Access Codes, Try Again in a Minute");
    /// The printer has no RTSPS camera.
    pub const OTHER_CAMERA: Self =
        Self::new(404, "Not Found: This Printer Has A Chamber Camera On Port 6000");
    /// The URL names no track of the stream.
    pub const NO_SUCH_TRACK: Self = Self::new(404, "Not Found: No Such Track");
    /// The URL is too long.
    pub const URL_TOO_LONG: Self = Self::new(414, "Request-URI Too Large");
    /// The parameter is unknown; all are.
    pub const NO_PARAMETER: Self = Self::new(451, "Parameter Not Understood");
    /// The `Session` header names another session.
    pub const SESSION_NOT_FOUND: Self = Self::new(454, "Session Not Found");
    /// The method is not allowed before SETUP, or while playing.
    pub const NOT_IN_THIS_STATE: Self = Self::new(455, "Method Not Valid in This State");
    /// The transport is not RTP/AVP/TCP, interleaved.
    pub const TRANSPORT: Self =
        Self::new(461, "Unsupported Transport: Use RTP/AVP/TCP, Interleaved");
    /// The method is unknown.
    pub const NOT_IMPLEMENTED: Self = Self::new(501, "Not Implemented");
    /// `BOARD.clients.rtsp` players are logged in.
    pub const FULL: Self = Self::new(503, "Service Unavailable: All Player Slots Are In Use");
    /// The camera has not described its stream in time, or the proxy is shutting down.
    pub const NO_ANSWER: Self =
        Self::new(503, "Service Unavailable: The Printer's Camera Does Not Answer");
    /// Live view is off at the printer.
    pub const LIVE_VIEW_OFF: Self =
        Self::new(503, "Service Unavailable: Turn On LAN Live View On The Printer");
    /// The printer refuses the proxy's access code.
    pub const PRINTER_REFUSES: Self =
        Self::new(503, "Service Unavailable: The Printer Refuses The Proxy's Access Code");
    /// The request's version is not RTSP/1.0.
    pub const VERSION: Self = Self::new(505, "RTSP Version Not Supported");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// An answer, before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status alone.
    Plain(Status),
    /// The methods that are served.
    Options,
    /// The access code is asked for.
    Challenge {
        /// Whether the code was right, for another nonce.
        stale: bool,
    },
    /// The description of the stream.
    Described,
    /// A track is set up.
    SetUp {
        /// Its channels.
        channels: Channels,
        /// Its SSRC.
        source: u32,
    },
    /// Playing begins.
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

    /// Writes the first line and the headers that depend on the answer alone, without the empty line that ends
    /// the head.
    ///
    /// # Errors
    ///
    /// `out` has no room for them.
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
