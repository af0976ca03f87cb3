//! The way to the printer: name, TCP, TLS, each with a deadline, and how long to wait before trying
//! again.
//!
//! Starting with the printer off is normal, and so is a printer that comes back under another
//! address. What is said to the user differs by what has to be done about it.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream;
use crate::config::PrinterAddr;
use crate::journal::{self, Kind};
use crate::tls::{ClientStream, ConnectError, Refusal, Trust, connect};
use crate::trace;

/// How long the printer's name may take to be found.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TCP may take to the printer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TLS may take. A P1S needs 1.4 seconds for it when it has nothing else to do.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The first wait after a failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait after a failure that may pass by itself.
const LONGEST: Duration = Duration::from_secs(60);

/// The first wait after a refusal: somebody has to do something about it, and printers have been
/// seen to lock up over many connections.
const REFUSED_FIRST: Duration = Duration::from_secs(60);

/// The longest wait after a refusal.
const REFUSED_LONGEST: Duration = Duration::from_secs(300);

/// Makes connections to one printer.
pub trait Dial {
    /// A connection.
    type Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin;

    /// Makes one.
    fn dial(&mut self) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// A printer at an address, over TLS.
pub struct Dialler {
    host: PrinterAddr,
    port: u16,
    trust: Trust,
}

impl Dialler {
    /// The way to `host`, which is believed as `trust` says.
    pub const fn new(host: PrinterAddr, port: u16, trust: Trust) -> Self {
        Self { host, port, trust }
    }
}

impl Dial for Dialler {
    type Stream = ClientStream<TcpStream>;

    async fn dial(&mut self) -> Result<Self::Stream, DialError> {
        let socket = reach(&self.host, self.port).await?;
        // A socket that cannot be tuned is a connection that is gone; TLS will say so.
        let _gone = stream::tune_upstream(&socket);
        match timeout(HANDSHAKE_TIMEOUT, connect(&self.trust, socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(ConnectError::Refused(refusal))) => Err(DialError::Refused(refusal)),
            Ok(Err(error)) => Err(DialError::Handshake(error)),
            Err(_elapsed) => Err(DialError::NoHandshake),
        }
    }
}

/// A bare connection to `port` of the printer at `host`, which may have got another address since the
/// last one.
///
/// # Errors
///
/// The name is not known, nobody answers within ten seconds, or not on this port.
pub async fn reach(host: &PrinterAddr, port: u16) -> Result<TcpStream, DialError> {
    let address = address(host, port).await?;
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => {
            trace::knows(address.ip());
            if let Ok(own) = socket.local_addr() {
                trace::knows(own.ip());
            }
            Ok(socket)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(DialError::PortClosed { port })
        }
        Ok(Err(_)) | Err(_) => Err(DialError::Off),
    }
}

/// The printer's address now.
async fn address(host: &PrinterAddr, port: u16) -> Result<SocketAddr, DialError> {
    let name = match host {
        PrinterAddr::Ip(address) => return Ok(SocketAddr::new(*address, port)),
        PrinterAddr::Name(name) => name.as_str(),
    };
    // The one place that needs a second thread: the system's resolver knows no other way.
    let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let Ok(Ok(found)) = found else { return Err(DialError::NoSuchName) };
    // Printers speak IPv4; another address of that name is a router's idea.
    let found: heapless::Vec<SocketAddr, 8> = found.take(8).collect();
    let address = found.iter().find(|found| found.is_ipv4()).or(found.first());
    address.copied().ok_or(DialError::NoSuchName)
}

/// Why there is no connection to the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The name stands for no address.
    NoSuchName,
    /// Nobody answers there.
    Off,
    /// Somebody is there, but not on this port.
    PortClosed {
        /// The port.
        port: u16,
    },
    /// TCP works, TLS does not answer.
    NoHandshake,
    /// TLS failed.
    Handshake(ConnectError),
    /// The certificate is not accepted.
    Refused(Refusal),
}

impl DialError {
    /// Whether trying again soon cannot help: somebody has to do something.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::NoSuchName
            | Self::Off
            | Self::PortClosed { .. }
            | Self::NoHandshake
            | Self::Handshake(_) => false,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => {
                f.write_str("the printer's name is not known here: give its address instead")
            }
            Self::Off => f.write_str(
                "the printer does not answer: is it switched on, and is this its address?",
            ),
            Self::PortClosed { port } => write!(
                f,
                "the printer answers, but not on port {port}: it is still starting, or LAN mode is \
                 off"
            ),
            Self::NoHandshake => f.write_str(
                "the printer takes the connection and then says nothing: other programs may hold \
                 all its connections; close them or restart the printer",
            ),
            Self::Handshake(error) => write!(f, "the printer does not speak TLS with us: {error}"),
            Self::Refused(refusal) => write!(f, "the printer's certificate is refused: {refusal}"),
        }
    }
}

impl core::error::Error for DialError {}

/// How long to wait before the next attempt: twice as long after each failure, with jitter, so that
/// several proxies do not come back in step.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    next: Duration,
    /// State of a small generator; its quality does not matter, only that instances differ.
    seed: u32,
}

impl BackOff {
    /// Nothing has failed yet.
    pub const fn new(seed: u32) -> Self {
        Self { next: FIRST, seed: seed | 1 }
    }

    /// It worked.
    pub const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now. After a `lasting` failure it is longer.
    pub fn wait(&mut self, lasting: bool) -> Duration {
        let (first, longest) =
            if lasting { (REFUSED_FIRST, REFUSED_LONGEST) } else { (FIRST, LONGEST) };
        let base = self.next.clamp(first, longest);
        self.next = (base * 2).min(longest);
        // xorshift32; between three quarters and the whole of the base.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        base - base / 4 * (self.seed % 256) / 256
    }
}

/// What becomes of lost connections: each reason is said once, and the next attempt waits.
pub struct Losses<L> {
    service: &'static str,
    back_off: BackOff,
    said: Option<L>,
}

impl<L: Copy + PartialEq + fmt::Display> Losses<L> {
    /// Nothing was lost yet.
    pub const fn new(service: &'static str, back_off: BackOff) -> Self {
        Self { service, back_off, said: None }
    }

    /// It worked: the next loss is a new one.
    pub const fn forget(&mut self) {
        self.back_off.reset();
        self.said = None;
    }

    /// Says why the connection was lost, unless that was said last; how long to wait before the next.
    pub fn note(&mut self, loss: L, lasting: bool, kind: Kind) -> Duration {
        let wait = self.back_off.wait(lasting);
        let service = self.service;
        if self.said.replace(loss) == Some(loss) {
            log::debug!("{service}: {loss}; again in {} s", wait.as_secs());
        } else {
            journal::note(kind, format_args!("{service}: {loss}; trying again"));
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printer_that_stays_off_is_tried_ever_more_seldom_and_at_least_once_a_minute() {
        let mut back_off = BackOff::new(7);
        let waits: alloc::vec::Vec<Duration> = (0..10).map(|_| back_off.wait(false)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 3 / 4, "{waits:?}");
        for wait in &waits[6..] {
            assert!(*wait <= LONGEST && *wait >= LONGEST * 3 / 4, "{waits:?}");
        }
        back_off.reset();
        assert!(back_off.wait(false) <= FIRST);
    }

    #[test]
    fn a_refusal_waits_a_minute_at_once() {
        let mut back_off = BackOff::new(7);
        assert!(back_off.wait(true) >= REFUSED_FIRST * 3 / 4);
        assert!((0..5).map(|_| back_off.wait(true)).all(|wait| wait <= REFUSED_LONGEST));
    }

    #[test]
    fn two_proxies_do_not_come_back_in_step() {
        let mut one = BackOff::new(1);
        let mut other = BackOff::new(2);
        assert_ne!(
            (0..4).map(|_| one.wait(false)).collect::<alloc::vec::Vec<_>>(),
            (0..4).map(|_| other.wait(false)).collect::<alloc::vec::Vec<_>>()
        );
    }
}
