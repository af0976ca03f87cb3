//! The chamber camera's tasks: what a worker does with a viewer, and who keeps the camera's connection
//! and finds out which camera there is.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::chamber::Service;
use crate::chamber::client::{self, LOGIN_TIMEOUT};
use crate::chamber::upstream::{self, Purpose};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::printer::camera::probe::{Answer, Probe};
use crate::printer::camera::{AtChamber, AtRtsp, CameraKind, CameraProbe};
use crate::runtime::Clock;
use crate::runtime::dial::{BackOff, Dial, DialError, Losses};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stream::{Stream, StreamError};
use crate::runtime::worker::{AcceptedClient, Serves};
use crate::session::{Blame, Handler};
use crate::trace::{Party, Protocol};

/// How long a conversation with the camera has to last before the next is dialled without back-off.
const SETTLED: Duration = Duration::from_secs(30);

impl Serves for Rc<Service> {
    const TIMEOUT: Duration = LOGIN_TIMEOUT;

    fn buffers() -> Buffers {
        Buffers::new(budget::CHAMBER_INBOX, budget::CHAMBER_OUTBOX)
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> usize {
        let end = serve_viewer(self, stream, accepted_client, buffers, clock).await;
        usize::from(end == End::Session(client::Error::WrongCode))
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

/// Serves one viewer over a stream that is ready for its login, until it ends, and says why it did.
pub async fn serve_viewer<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    stream: T,
    accepted_client: AcceptedClient<'_>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> End<client::Error> {
    let party = Party::Client(accepted_client.peer.address);
    let mut stream = Stream::new(stream, Protocol::Chamber, party, clock);
    let AcceptedClient { peer, until, admitted, reached: _ } = accepted_client;
    let Some((mut viewer, place)) = service.viewer(until, admitted) else {
        // There are as many slots as workers.
        return End::Session(client::Error::NoSlot);
    };
    let end = drive(&mut viewer, &place, &mut stream, buffers, clock).await;
    let (sent, lost) = place.sent_and_lost();
    journal::note(
        kind_of(&end),
        format_args!("{peer}: {end} (got {sent} pictures, lost {lost} by being slow)"),
    );
    // What it was in the middle of is free before its slot is.
    drop(viewer);
    drop(place);
    stream.close().await;
    end
}

/// How the journal counts the end of a viewer's conversation.
const fn kind_of(end: &End<client::Error>) -> Kind {
    match end {
        End::Session(client::Error::WrongCode | client::Error::WrongUser) => Kind::WrongCode,
        End::Session(client::Error::Silent) => Kind::Silent,
        End::Session(error) => match error.blame() {
            Blame::Nobody | Blame::Network => Kind::Left,
            Blame::Peer => Kind::Malformed,
            Blame::Board => Kind::Refused,
        },
        End::Stream(StreamError::Stalled) => Kind::Stuck,
        End::Closed | End::Stream(StreamError::Lost(_)) => Kind::Left,
    }
}

/// Why there is no conversation with the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>),
    /// What was found, which has been said.
    Found(CameraKind),
}

impl Loss {
    const fn is_lasting(self) -> bool {
        match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Found(kind) => kind.is_lasting(),
            Self::Ended(_) => false,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Dial(DialError::Refused(_)) => Kind::PrinterUntrusted,
            Self::Found(CameraKind::WrongCode) => Kind::PrinterRefused,
            Self::Dial(_) | Self::Ended(_) | Self::Found(_) => Kind::PrinterLost,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Ended(End::Closed) => f.write_str("the camera ended the connection"),
            Self::Ended(End::Session(error)) => error.fmt(f),
            Self::Ended(End::Stream(error)) => write!(f, "the camera: {error}"),
            Self::Found(kind) => kind.fmt(f),
        }
    }
}

/// Keeps one conversation with the camera while it is wanted, and never two: each is closed completely
/// before the next is dialled. Finds out which camera there is, at the start and when it is asked to.
pub async fn maintain_camera<D: Dial, R: Dial>(
    service: Rc<Service>,
    camera: Rc<CameraProbe>,
    dialler: D,
    rtsp: R,
    clock: Clock,
    back_off: BackOff,
) {
    let mut keeper = Keeper {
        service,
        camera,
        dialler,
        rtsp,
        clock,
        buffers: Buffers::new(budget::CAMERA_INBOX, budget::CAMERA_OUTBOX),
    };
    let mut losses = Losses::new("camera", back_off);
    while !keeper.service.is_leaving() {
        let Some(purpose) = keeper.purpose() else {
            tokio::select! {
                () = keeper.service.changed() => {}
                () = keeper.camera.notified() => {}
            }
            continue;
        };
        let began = clock.now();
        let outcome = keeper.converse(purpose).await;
        if keeper.service.is_leaving() {
            return;
        }
        let Some(loss) = outcome else {
            losses.forget();
            continue;
        };
        if matches!(loss, Loss::Ended(_)) && clock.now().since(began) >= SETTLED {
            losses.forget();
        }
        // Nobody waits for it: there is no hurry.
        let lasting = loss.is_lasting() || !keeper.service.is_wanted();
        let wait = losses.note(loss, lasting, loss.kind());
        keeper.pause(wait).await;
    }
}

struct Keeper<D, R> {
    service: Rc<Service>,
    camera: Rc<CameraProbe>,
    dialler: D,
    rtsp: R,
    clock: Clock,
    buffers: Buffers,
}

impl<D: Dial, R: Dial> Keeper<D, R> {
    /// What is to be done now, if anything.
    fn purpose(&self) -> Option<Purpose> {
        let kind = self.camera.kind();
        if self.service.is_wanted() && !kind.is_elsewhere() {
            Some(Purpose::Watch)
        } else if self.camera.is_due() || !kind.is_settled() {
            Some(Purpose::Probe)
        } else {
            None
        }
    }

    /// Talks to the camera until that ends. `None` if it ended as it should.
    async fn converse(&mut self, purpose: Purpose) -> Option<Loss> {
        let (loss, chamber) = self.at_chamber(purpose).await;
        self.service.lost();
        let has_left = matches!(loss, Loss::Ended(End::Session(upstream::Error::NotWanted)));
        if self.service.is_leaving() || (has_left && chamber == AtChamber::Unknown) {
            // Whoever wanted it has gone before it had shown anything: nothing is lost, or learnt.
            return None;
        }
        let rtsp =
            if CameraKind::needs_rtsp(chamber) { self.at_rtsp().await } else { AtRtsp::Unknown };
        let kind = self.camera.understood(CameraKind::of(chamber, rtsp));
        if kind == CameraKind::Unknown {
            // A printer that is away has the camera it had.
            return Some(loss);
        }
        let news = self.camera.found(kind);
        self.service.elsewhere(kind.is_elsewhere());
        if kind.is_settled() {
            if news {
                journal::note(Kind::CameraFound, format_args!("camera: {kind}"));
            }
            let is_done = match loss {
                Loss::Ended(End::Session(
                    upstream::Error::Found | upstream::Error::NotWanted | upstream::Error::Leaving,
                )) => true,
                Loss::Ended(_) | Loss::Dial(_) | Loss::Found(_) => kind == CameraKind::Rtsp,
            };
            return (!is_done).then_some(loss);
        }
        Some(Loss::Found(kind))
    }

    /// The conversation on port 6000: how it ended, and what that says.
    async fn at_chamber(&mut self, purpose: Purpose) -> (Loss, AtChamber) {
        let stream = match self.dialler.dial().await {
            Ok(stream) => stream,
            Err(error) => {
                let closed = matches!(error, DialError::PortClosed { .. });
                let seen = if closed { AtChamber::Closed } else { AtChamber::Unknown };
                return (Loss::Dial(error), seen);
            }
        };
        let mut stream = Stream::new(stream, Protocol::Chamber, Party::Printer, &self.clock);
        let (mut upstream, link) = self.service.upstream(purpose, self.clock.now());
        let watched = Watched { link, camera: &self.camera };
        let end = drive(&mut upstream, &watched, &mut stream, &mut self.buffers, &self.clock).await;
        stream.close().await;
        let seen = match end {
            _ if upstream.has_answered() => AtChamber::Picture,
            End::Session(upstream::Error::Silent) => AtChamber::Silence,
            End::Session(upstream::Error::Tunnel) => AtChamber::Tunnel,
            End::Closed => AtChamber::Refused,
            End::Session(
                upstream::Error::NotWanted
                | upstream::Error::Leaving
                | upstream::Error::Found
                | upstream::Error::Absurd(_),
            )
            | End::Stream(_) => AtChamber::Unknown,
        };
        (Loss::Ended(end), seen)
    }

    /// The question on port 322.
    async fn at_rtsp(&mut self) -> AtRtsp {
        if self.camera.is_rtsp_taken() {
            // We are there already.
            return AtRtsp::Speaks;
        }
        let stream = match self.rtsp.dial().await {
            Ok(stream) => stream,
            Err(DialError::PortClosed { .. }) => return AtRtsp::Closed,
            // Live view that is off closes before TLS stands, or after it.
            Err(DialError::Handshake(_)) => return AtRtsp::HangsUp,
            Err(_) => return AtRtsp::Unknown,
        };
        let mut stream = Stream::new(stream, Protocol::Rtsp, Party::Printer, &self.clock);
        let mut probe = Probe::new(self.clock.now());
        let buffers = &mut self.buffers;
        let end = drive(&mut probe, &Nobody, &mut stream, buffers, &self.clock).await;
        stream.close().await;
        match end {
            End::Session(Answer::Rtsp) => AtRtsp::Speaks,
            End::Session(Answer::Other) => AtRtsp::Unknown,
            End::Session(Answer::Silence) | End::Closed | End::Stream(_) => AtRtsp::HangsUp,
        }
    }

    /// Waits before the next attempt, unless the program ends, the printer has just come back, or the
    /// first viewer has just come.
    async fn pause(&self, wait: Duration) {
        let until = self.clock.now() + wait;
        let was_wanted = self.service.is_wanted();
        while self.clock.now() < until
            && !self.service.is_leaving()
            && (was_wanted || !self.service.is_wanted())
        {
            tokio::select! {
                () = self.clock.reach(until) => {}
                () = self.service.changed() => {}
                () = self.camera.notified() => return,
            }
        }
    }
}

/// The upstream's link to the hub, which also tells at the first picture that there is a camera.
struct Watched<'a> {
    link: crate::chamber::Link,
    camera: &'a CameraProbe,
}

impl Handler<upstream::Upstream> for Watched<'_> {
    fn admits(&self, upstream: &upstream::Upstream) -> bool {
        self.link.admits(upstream)
    }

    fn handle_event(
        &self,
        now: Instant,
        upstream: &mut upstream::Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        if matches!(event, upstream::Event::Begin(_)) && self.camera.found(CameraKind::Chamber) {
            journal::note(Kind::CameraFound, format_args!("camera: {}", CameraKind::Chamber));
        }
        self.link.handle_event(now, upstream, event)
    }

    async fn woken(&self) {
        self.link.woken().await;
    }
}

/// Whom the probe reports to: its answer is how it ends.
struct Nobody;

impl Handler<Probe> for Nobody {
    fn admits(&self, _probe: &Probe) -> bool {
        true
    }

    fn handle_event(
        &self,
        _now: Instant,
        _probe: &mut Probe,
        event: core::convert::Infallible,
    ) -> Result<(), Answer> {
        match event {}
    }

    async fn woken(&self) {
        core::future::pending::<()>().await;
    }
}
