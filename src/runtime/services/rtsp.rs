//! The RTSPS camera's tasks: what a worker does with a player, and who keeps the camera's session.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use rand_core::{OsRng, RngCore};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::printer::camera::{CameraKind, CameraProbe};
use crate::rtsp::Service;
use crate::rtsp::client::{self, LOGIN_TIMEOUT};
use crate::rtsp::digest::{Nonce, write_hex};
use crate::rtsp::stream::StreamStatus;
use crate::rtsp::upstream::{self, ANSWER_TIMEOUT, MAX_SILENT};
use crate::runtime::Clock;
use crate::runtime::dial::{BackOff, Dial, DialError, Losses};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stream::{Stream, StreamError};
use crate::runtime::worker::{AcceptedClient, Serves};
use crate::session::Blame;
use crate::trace::{Party, Protocol};

/// How long a session has to last before the next is made without back-off: longer than one takes that
/// shows nothing at all and is given up.
const SETTLED: Duration = Duration::from_secs(60);

const _: () = assert!(
    SETTLED.as_secs() > MAX_SILENT.as_secs() + 2 * ANSWER_TIMEOUT.as_secs(),
    "a session that showed nothing is none that worked"
);

/// How long the first look at the printer's cameras holds good while somebody waits for one; each that
/// finds none holds twice as long.
const LOOKED_FIRST: Duration = Duration::from_secs(10);

/// How long any look holds good at most while somebody waits.
const LOOKED_LONGEST: Duration = Duration::from_secs(60);

impl Serves for Rc<Service> {
    const TIMEOUT: Duration = LOGIN_TIMEOUT;

    fn buffers() -> Buffers {
        Buffers::new(budget::RTSP_INBOX, budget::RTSP_OUTBOX)
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> usize {
        serve_player(self, stream, accepted_client, buffers, clock).await.wrong_codes
    }
}

impl Shutdown for Service {
    fn dismiss_all(&self) {
        self.dismiss_all();
    }

    fn connections(&self) -> usize {
        self.connections()
    }

    fn leave(&self) {
        self.leave();
    }
}

/// What came of a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// How it ended.
    pub end: End<client::Error>,
    /// Wrong codes that it had shown, if it never showed the right one.
    pub wrong_codes: usize,
}

/// Serves one player over a stream that is ready for its first request, until it ends, and says why it
/// did.
pub async fn serve_player<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    stream: T,
    accepted_client: AcceptedClient<'_>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Played {
    let party = Party::Client(accepted_client.peer.address);
    let mut stream = Stream::new(stream, Protocol::Rtsp, party, clock);
    let AcceptedClient { peer, until, admitted, reached: _ } = accepted_client;
    let slot = service.player((clock.now(), until), nonce(), admitted);
    let Some((mut player, place)) = slot else {
        // There are as many slots as workers.
        return Played { end: End::Session(client::Error::NoSlot), wrong_codes: 0 };
    };
    let end = drive(&mut player, &place, &mut stream, buffers, clock).await;
    let (sent, lost) = place.sent_and_lost();
    let wrong_codes = player.wrong_codes();
    let is_said = wrong_codes == 0 || end == End::Session(client::Error::WrongCode);
    let kind = if is_said { kind_of(&end) } else { Kind::WrongCode };
    let wrong = if is_said { "" } else { ", and showed a wrong access code" };
    journal::note(
        kind,
        format_args!("{peer}: {end}{wrong} (got {sent} pictures, lost {lost} by being slow)"),
    );
    drop(player);
    drop(place);
    stream.close().await;
    Played { end, wrong_codes }
}

/// What one player is asked to answer.
fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    let mut nonce = Nonce::new();
    write_hex(&mut nonce, &bytes);
    nonce
}

/// How the journal counts the end of a player's conversation.
const fn kind_of(end: &End<client::Error>) -> Kind {
    match end {
        End::Session(client::Error::WrongCode) => Kind::WrongCode,
        End::Session(client::Error::Silent | client::Error::Idle) => Kind::Silent,
        End::Session(error) => match error.blame() {
            Blame::Nobody | Blame::Network => Kind::Left,
            Blame::Peer => Kind::Malformed,
            Blame::Board => Kind::Refused,
        },
        End::Stream(StreamError::Stalled) => Kind::Stuck,
        End::Closed | End::Stream(StreamError::Lost(_)) => Kind::Left,
    }
}

/// Why there is no session with the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    /// It closed before it had answered anything.
    HungUp,
    Ended(End<upstream::Error>),
}

impl Loss {
    const fn is_lasting(self) -> bool {
        match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Ended(End::Session(upstream::Error::WrongCode | upstream::Error::NoWay)) => true,
            Self::HungUp | Self::Ended(_) => false,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Dial(DialError::Refused(_)) => Kind::PrinterUntrusted,
            Self::Ended(End::Session(upstream::Error::WrongCode)) => Kind::PrinterRefused,
            Self::Dial(_) | Self::HungUp | Self::Ended(_) => Kind::PrinterLost,
        }
    }

    /// Whether it may be that the camera was switched off, or is another one.
    const fn is_puzzling(self) -> bool {
        match self {
            Self::Dial(DialError::PortClosed { .. } | DialError::Handshake(_)) | Self::HungUp => {
                true
            }
            Self::Dial(_) | Self::Ended(_) => false,
        }
    }

    const fn stream_status(self) -> StreamStatus {
        match self {
            Self::Ended(End::Session(upstream::Error::WrongCode)) => StreamStatus::WrongCode,
            Self::Dial(_) | Self::HungUp | Self::Ended(_) => StreamStatus::Away,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::HungUp => f.write_str(
                "the camera closes as soon as it is spoken to: live view may be switched off, or \
                 another program may be watching",
            ),
            Self::Ended(End::Closed) => f.write_str("the camera ended the connection"),
            Self::Ended(End::Session(error)) => error.fmt(f),
            Self::Ended(End::Stream(error)) => write!(f, "the camera: {error}"),
        }
    }
}

/// What players may expect of a printer whose camera was looked at.
const fn stream_status_of(kind: CameraKind) -> StreamStatus {
    match kind {
        CameraKind::Unknown | CameraKind::Rtsp => StreamStatus::Open,
        CameraKind::NoPort => StreamStatus::Away,
        CameraKind::Chamber | CameraKind::ChamberDark => StreamStatus::Elsewhere,
        CameraKind::RtspOff => StreamStatus::Off,
        CameraKind::WrongCode => StreamStatus::WrongCode,
    }
}

/// Keeps one session with the camera while it is wanted, and never two: each is closed completely before
/// the next is dialled, and none is dialled while somebody looks which camera there is.
pub async fn maintain_stream<D: Dial>(
    service: Rc<Service>,
    camera: Rc<CameraProbe>,
    mut dialler: D,
    clock: Clock,
    back_off: BackOff,
) {
    let mut buffers = Buffers::new(budget::STREAM_INBOX, budget::STREAM_OUTBOX);
    let mut losses = Losses::new("rtsp", back_off);
    let mut looks = Looks::NONE;
    let mut wait = Duration::ZERO;
    while !service.is_leaving() {
        let kind = camera.kind();
        if kind != CameraKind::Rtsp || camera.is_due() {
            service.look(stream_status_of(kind));
        }
        if !service.is_wanted() {
            tokio::select! {
                () = service.changed() => {}
                () = camera.news() => {}
            }
            continue;
        }
        if kind != CameraKind::Rtsp || camera.is_due() {
            let now = clock.now();
            if looks.is_due(now) {
                // Somebody waits: it may have been switched on. Whoever looks may be waiting as well.
                camera.look_again();
            }
            tokio::select! {
                () = service.changed() => {}
                () = camera.news() => {}
                () = clock.reach(looks.next) => {}
            }
            continue;
        }
        looks = Looks::NONE;
        let (began, shown) = (clock.now(), service.counts().shown);
        let outcome = converse(&service, &camera, &mut dialler, &mut buffers, &clock).await;
        let has_shown = service.counts().shown != shown;
        if clock.now().since(began) >= SETTLED || (outcome.is_none() && has_shown) {
            losses.forget();
            wait = Duration::ZERO;
        }
        // To be left is no loss, but who was left before it had shown anything is not tried the sooner.
        if let Some(loss) = outcome {
            wait = losses.note(loss, loss.is_lasting(), loss.kind());
            service.look(loss.stream_status());
            if loss.is_puzzling() {
                camera.look_again();
            }
        }
        pause(&service, &clock, wait).await;
    }
}

/// When the printer's cameras are looked at again for somebody who waits.
struct Looks {
    next: Instant,
    holds: Duration,
}

impl Looks {
    /// Nobody has waited yet.
    const NONE: Self = Self { next: Instant::START, holds: Duration::ZERO };

    /// Whether that is now.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.holds = (self.holds * 2).clamp(LOOKED_FIRST, LOOKED_LONGEST);
            self.next = now + self.holds;
        }
        is_due
    }
}

/// Talks to the camera until that ends. `None` if it ended as it should.
async fn converse<D: Dial>(
    service: &Rc<Service>,
    camera: &CameraProbe,
    dialler: &mut D,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Option<Loss> {
    let _taken = camera.take_rtsp();
    let stream = match dialler.dial().await {
        Ok(stream) => stream,
        Err(error) => return Some(Loss::Dial(error)),
    };
    let mut stream = Stream::new(stream, Protocol::Rtsp, Party::Printer, clock);
    let (mut upstream, link) = service.upstream(clock.now());
    let end = drive(&mut upstream, &link, &mut stream, buffers, clock).await;
    stream.close().await;
    service.lost();
    match end {
        End::Session(upstream::Error::NotWanted | upstream::Error::Leaving) => None,
        // It was told that we leave, and closes without a word.
        End::Closed | End::Stream(_) if upstream.is_leaving() => None,
        End::Closed | End::Stream(_) if !upstream.has_answered() => Some(Loss::HungUp),
        End::Closed | End::Stream(_) | End::Session(_) => Some(Loss::Ended(end)),
    }
}

/// Waits before the next attempt, whoever comes and goes meanwhile, unless the program ends.
async fn pause(service: &Service, clock: &Clock, wait: Duration) {
    let until = clock.now() + wait;
    while clock.now() < until && !service.is_leaving() {
        tokio::select! {
            () = clock.reach(until) => {}
            () = service.changed() => {}
        }
    }
}
