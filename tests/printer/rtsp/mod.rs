//! The camera of a simulated X1, X2, P2 or H2: RTSP over TLS on port 322 (`src/protocol.md`, rtsps-camera), as live555
//! serves it, with its manners and its quirks.
//!
//! ```ignore
//! let rtsp = Rtsp::new().code("12345678").sessions(1);
//! let (near, far) = tokio::io::duplex(4096);
//! tokio::task::spawn_local({ let rtsp = rtsp.clone(); async move { rtsp.serve(far).await } });
//! let (address, serving) = rtsp.listen_tls((Ipv4Addr::LOCALHOST, 0).into(), Model::X1C).await?;
//! tokio::task::spawn_local(serving);
//! rtsp.turn(rtsp::Quirk::Silence, true);
//! assert!(rtsp.until(secs(5), |rtsp| rtsp.playing() == 1).await);
//! ```
//!
//! There is one camera, which runs from the first connection on: unit `n` of its [`Media`] is due `n`
//! periods after that, for everybody who plays, with the RTP timestamp that belongs to it. A session
//! begins with the next unit, be it a key or not, and with numbers of its own. A client that is slow is
//! served late, and past [`MAX_DELAY`] from the next key on.
//!
//! OPTIONS is answered without a password; everything else wants Digest, with a nonce of the
//! connection that changes with every refusal. Only interleaved transport is to be had.
//!
//! It needs what a [`Printer`](super::Printer) needs.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | sessions | [`Rtsp::sessions`] | as [`OverLimit`] says |
//! | connections, those unanswered included | [`MAX_STREAMS`](super::MAX_STREAMS) | closed |
//! | a connection unanswered | [`MAX_HELD`](super::MAX_HELD) | closed |
//! | TLS | [`HANDSHAKE_TIMEOUT`] | closed |
//! | a request, its body included, or a frame | [`MAX_REQUEST`] bytes | closed |
//! | between two requests or receiver reports | [`REQUEST_TIMEOUT`] | closed |
//! | answers waiting for one client | [`MAX_ANSWERS`] | it is not read further; by hand, a panic |
//! | a write without progress | [`WRITE_TIMEOUT`](super::WRITE_TIMEOUT) | closed |
//! | requests, reports, answers, endings remembered | [`KEPT`](super::KEPT) each | the oldest is forgotten |

pub mod digest;
mod ledger;
pub mod media;
mod message;
mod rtp;
mod server;
mod session;

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

#[allow(unused_imports, reason = "not every user of the simulated printer names all of it")]
pub use self::{
    ledger::{Ending, Event, Request},
    media::{Codec, Media, Unit},
    rtp::{Packing, Report},
};

use self::server::{Occupied, Server};
use super::model::Model;
use super::tls::Shown;
use super::{HANDSHAKE_TIMEOUT, listener, witnessed};

/// What a request may have, in bytes.
pub const MAX_REQUEST: usize = 4096;

/// Time until the next request or receiver report is due (live555 gives a session 65 seconds).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// Answers and pieces put by hand that may wait for one client.
pub const MAX_ANSWERS: usize = 16;

/// How late a unit may leave.
pub const MAX_DELAY: Duration = Duration::from_secs(2);

/// How long an X1C streams without a receiver report, with [`Quirk::NeedsReports`].
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// An RTP packet of live555, in bytes.
pub const PACKET: usize = 1456;

/// What every unit's last slice holds from its ninth byte on, with [`Rtsp::stamping`], in bytes.
pub const STAMP: usize = 24;

/// The one path it serves.
pub const PATH: &str = "/streaming/live/1";

/// A handle on a simulated RTSP server. Clones are handles on the same one.
#[derive(Clone)]
pub struct Rtsp {
    server: Rc<Server>,
}

/// What becomes of a client for whom there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// SETUP is answered 453.
    Refuses,
    /// Connections over the limit are closed as soon as they are accepted.
    Closes,
    /// Connections over the limit are accepted and never answered.
    Hangs,
}

/// A fault of the camera, until it is [turned](Rtsp::turn) off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quirk {
    /// Answers requests and sends no RTP.
    Silence,
    /// Neither reads nor writes.
    Deaf,
    /// RTP timestamps stay where they are after 0.06 s (P2S).
    StuckTimestamps,
    /// Sends no RTP to a client that has sent no receiver report for [`REPORT_TIMEOUT`] (X1C).
    NeedsReports,
    /// Sends no sender reports.
    NoSenderReports,
    /// What is in its RTP packets is neither H.264 nor H.265.
    Garbage,
    /// Sends RTP on a channel that was not set up.
    WrongChannel,
    /// Puts a frame of an unknown channel before every unit.
    StrayChannels,
    /// Describes sound and no video.
    NoVideo,
    /// Leaves parameter sets out of the stream; they stand in the SDP alone.
    NoSets,
    /// Closes on TEARDOWN without an answer.
    RudeTeardown,
    /// Sends one and the same RTP packet twice, and leaves the one after it out, in every unit.
    LosesPackets,
    /// Sets M on every slice of a picture, not on its last one alone (live555's discrete framer).
    MarksSlices,
}

/// Construction. Each of these may be called again while it runs, through a clone.
impl Rtsp {
    /// A camera with live view on and the code `12345678` that shows [`Media::h264`] to four at once.
    pub fn new() -> Self {
        Self { server: Server::new(Media::h264()) }
    }

    /// The access code. It is compared byte for byte.
    pub fn code(self, code: &str) -> Self {
        *self.server.code.borrow_mut() = code.to_owned();
        self
    }

    /// What it shows, from its first unit on.
    pub fn showing(self, media: Media) -> Self {
        self.server.show(media);
        self
    }

    /// Other units a second than its media has. Not while it plays.
    pub fn rate(self, rate: u32) -> Self {
        assert!(rate > 0, "nothing would ever be due");
        self.server.rate.set(rate);
        self
    }

    /// How small units leave. Default: each by itself.
    pub fn packing(self, packing: Packing) -> Self {
        self.server.packing.set(packing);
        self
    }

    /// The bytes of an RTP packet at most, up to 65 535. Default: [`PACKET`].
    pub fn packet_bytes(self, most: usize) -> Self {
        assert!((64..=0xffff).contains(&most), "RTP packets of {most} bytes");
        self.server.packet_most.set(most);
        self
    }

    /// Pads the head of every answer to about so many bytes.
    pub fn header_bytes(self, bytes: usize) -> Self {
        self.server.header_bytes.set(bytes);
        self
    }

    /// Maximum number of sessions at once: one on an X2D.
    pub fn sessions(self, most: usize) -> Self {
        self.server.sessions_most.set(most);
        self
    }

    /// What becomes of clients over that. Default: SETUP is answered 453.
    pub fn over_limit(self, over: OverLimit) -> Self {
        self.server.over.set(over);
        self
    }

    /// How many connections it answers in its life; later ones it accepts and never answers, until a
    /// [reboot](Self::reboot) (X1C leaks TLS slots). Default: as many as come.
    pub fn slots(self, slots: u64) -> Self {
        self.server.tls_slots.set(slots);
        self
    }

    /// Whether live view is on. If it is off, later connections are closed after the TLS handshake.
    pub fn live_view(self, on: bool) -> Self {
        self.server.live_view.set(on);
        self.server.answers_options.set(false);
        self
    }

    /// Live view is off, and later connections are closed after OPTIONS only.
    pub fn off_after_options(self) -> Self {
        self.server.live_view.set(false);
        self.server.answers_options.set(true);
        self
    }

    /// Time between PLAY and the first RTP packet. Default: 0.
    pub fn first_after(self, delay: Duration) -> Self {
        self.server.first_after.set(delay);
        self
    }

    /// Time between PLAY and the first key frame; units without one come before it (more than 20 s
    /// after a cold start). Default: when it is due.
    pub fn key_after(self, delay: Duration) -> Self {
        self.server.key_after.set(delay);
        self
    }

    /// How often it sends a sender report. Default: 5 seconds.
    pub fn sender_reports_every(self, period: Duration) -> Self {
        self.server.reports_every.set(period);
        self
    }

    /// Writes what `text` returns for a unit's number into its last slice, which is [made](Media::made).
    pub fn stamping(self, stamp: impl Fn(u64) -> [u8; STAMP] + 'static) -> Self {
        *self.server.stamp.borrow_mut() = Some(Rc::new(stamp));
        self
    }

    /// One more quirk.
    pub fn with(self, quirk: Quirk) -> Self {
        self.turn(quirk, true);
        self
    }

    /// Calls `observer` with each event, as it happens.
    pub fn narrate(self, listener: impl Fn(&Event<'_>) + 'static) -> Self {
        *self.server.listener.borrow_mut() = Some(Rc::new(listener));
        self
    }
}

/// What it can be made to do.
impl Rtsp {
    /// Takes up a quirk, or gives it up.
    pub fn turn(&self, quirk: Quirk, on: bool) {
        self.server.turn(quirk, on);
    }

    /// Puts these bytes on the connection of everybody who plays, between two frames; on how many.
    pub fn raw(&self, bytes: &[u8]) -> usize {
        self.server.put_on_all(|_| bytes.to_vec())
    }

    /// Puts the head of an interleaved frame on their connections, and these bytes behind it.
    pub fn lie(&self, channel: u8, length: u16, bytes: &[u8]) -> usize {
        let [high, low] = length.to_be_bytes();
        self.raw(&[&[b'$', channel, high, low], bytes].concat())
    }

    /// Asks everybody who plays something: OPTIONS, SET_PARAMETER, REDIRECT. `headers` is empty or ends
    /// with a line's end.
    pub fn ask(&self, method: &str, headers: &str) -> usize {
        let url = format!("rtsps://127.0.0.1{PATH}");
        self.raw(format!("{method} {url} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n").as_bytes())
    }

    /// Sends an RTCP BYE to all players, and keeps streaming.
    pub fn goodbye(&self) -> usize {
        self.server.put_on_all(session::goodbye)
    }

    /// Closes the connection in the middle of the next RTP packet, once.
    pub fn cut(&self) {
        self.server.cut_next.set(true);
    }

    /// Closes every connection now, and keeps accepting.
    pub fn close(&self) {
        self.server.drop_all(Ending::Closed);
    }

    /// Drops all connections without a word, refuses new ones for so long, and begins anew.
    pub fn reboot(&self, down_for: Duration) {
        self.server.reboot(down_for);
    }
}

/// Running it.
impl Rtsp {
    /// Serves one connection over any stream, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let Some(occupied) = self.server.admit() else { return };
        if !occupied.slot.answered {
            return occupied.hold(&mut stream).await;
        }
        self.converse(occupied, stream).await;
    }

    /// Listens for TLS, with the certificate of a model. Where, and what has to be polled (in a
    /// `LocalSet` or `LocalRuntime`) to serve it; dropping that closes the listener and drops all its
    /// connections.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let acceptor = TlsAcceptor::from(Shown::own(model).config(model)?);
        let rtsp = self.clone();
        listener::listen(address, move |stream| {
            let (rtsp, acceptor) = (rtsp.clone(), acceptor.clone());
            async move { rtsp.serve_tls(stream, &acceptor).await }
        })
        .await
    }

    async fn serve_tls(&self, mut stream: TcpStream, acceptor: &TlsAcceptor) {
        let Some(occupied) = self.server.admit() else { return };
        if !occupied.slot.answered {
            return occupied.hold(&mut stream).await;
        }
        let _ = stream.set_nodelay(true); // a packet is not held back for the one before it
        let shaken = select! {
            shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
            ending = occupied.slot.dropped() => return occupied.end(ending),
        };
        match shaken {
            Ok(Ok(stream)) => self.converse(occupied, stream).await,
            Ok(Err(_)) | Err(_) => occupied.end(Ending::Handshake),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, occupied: Occupied, stream: S) {
        let ending = session::converse(&self.server, &occupied.slot, stream).await;
        occupied.end(ending);
    }
}

/// What can be seen of it.
impl Rtsp {
    /// What it shows.
    pub fn media(&self) -> Rc<Media> {
        Rc::clone(&self.server.media.borrow())
    }

    /// Connections that are not over yet, from accept on.
    pub fn open(&self) -> usize {
        self.server.slots.borrow().len()
    }

    /// Of those, the ones that play.
    pub fn playing(&self) -> usize {
        self.server.slots.borrow().iter().filter(|slot| slot.is_playing()).count()
    }

    /// How many connections it ever accepted and did not refuse.
    pub fn ever(&self) -> u64 {
        self.server.ledger.borrow().ever
    }

    /// The most of them open at one time.
    pub fn most_open(&self) -> usize {
        self.server.ledger.borrow().most
    }

    /// Connections it refused: over the limit, or during a reboot.
    pub fn refused(&self) -> u64 {
        self.server.ledger.borrow().refused
    }

    /// Requests it has answered.
    pub fn requests(&self) -> u64 {
        self.server.ledger.borrow().answered
    }

    /// The requests that came, oldest first. The last [`KEPT`](super::KEPT).
    pub fn asked(&self) -> Vec<Request> {
        self.server.ledger.borrow().requests.iter().cloned().collect()
    }

    /// Authorization headers that were wrong.
    pub fn wrong_digests(&self) -> u64 {
        self.server.ledger.borrow().wrong_digests
    }

    /// SETUP requests answered 200.
    pub fn setups(&self) -> u64 {
        self.server.ledger.borrow().setups
    }

    /// Sessions whose client has gone without TEARDOWN.
    pub fn leaked(&self) -> u64 {
        self.server.ledger.borrow().leaked
    }

    /// Receiver reports that came, with or without a block.
    pub fn reports(&self) -> u64 {
        self.server.ledger.borrow().receiver_reports
    }

    /// The clients' requests, oldest first. The last [`KEPT`](super::KEPT) blocks.
    pub fn reported(&self) -> Vec<Report> {
        self.server.ledger.borrow().reports.iter().copied().collect()
    }

    /// Interleaved frames from clients that were no RTCP, or came on another channel.
    pub fn strays(&self) -> u64 {
        self.server.ledger.borrow().strays
    }

    /// What requests of ours were answered, oldest first. The last [`KEPT`](super::KEPT).
    pub fn answers(&self) -> Vec<u16> {
        self.server.ledger.borrow().answers.iter().copied().collect()
    }

    /// Units that went out whole, to all clients together.
    pub fn units(&self) -> u64 {
        self.server.ledger.borrow().units
    }

    /// Units left out because a client was too slow.
    pub fn skipped(&self) -> u64 {
        self.server.ledger.borrow().skipped
    }

    /// How connections ended, oldest first. The last [`KEPT`](super::KEPT).
    pub fn endings(&self) -> Vec<Ending> {
        self.server.ledger.borrow().endings.iter().copied().collect()
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.server.changed, within, || seen(self)).await
    }
}
