//! The RTSPS camera's tasks: what a worker does with a player, and who keeps the camera's session.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt::{self, Write};
use core::net::IpAddr;
use core::time::Duration;

use crate::auth::{Guess, WrongCodes};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::config::{Config, PrinterAddr};
use crate::journal::Kind;
use crate::memory::budget;
use crate::memory::slots::Occupant;
use crate::peer::Origin;
use crate::pictures::Pictures;
use crate::printer::camera::CameraKind;
use crate::printer::status::{Login, Status};
use crate::rtsp::client::{self, LOGIN_TIMEOUT};
use crate::rtsp::digest::nonce_for;
use crate::rtsp::sdp::Url;
use crate::rtsp::stream::StreamStatus;
use crate::rtsp::upstream::{self, ANSWER_TIMEOUT, SILENCE_TIMEOUT};
use crate::rtsp::{PlayerLink, Service};
use crate::runtime::accept::Acceptor;
use crate::runtime::dial::{Dial, DialError};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::optional_port::OptionalPort;
use crate::runtime::reconnect::{Ended, Pace, PrinterConnection, PrinterPort};
use crate::runtime::service::{Declaration, Listening};
use crate::runtime::worker::{AcceptedClient, ServesSessions, SessionEnd};
use crate::trace::Protocol;

/// How long a session has to last before the next is made without back-off: longer than one takes that
/// shows nothing at all and is given up.
const SETTLED: Duration = Duration::from_secs(60);

const _: () = assert!(
    SETTLED.as_secs() > SILENCE_TIMEOUT.as_secs() + 2 * ANSWER_TIMEOUT.as_secs(),
    "a session that showed nothing is none that worked"
);

/// Time from the first probe of the printer's cameras to the second while a player waits for one; it doubles
/// with each probe that finds none.
const FIRST_PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time between two probes while a player waits.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(60);

impl ServesSessions for Rc<Service> {
    const PROTOCOL: Protocol = Protocol::Rtsp;
    const TIMEOUT: Duration = LOGIN_TIMEOUT;

    type Session = client::Player;
    type Link<'a> = PlayerLink<&'a dyn Fn(), &'a dyn Fn(Guess)>;

    fn buffers() -> Buffers {
        Buffers::new(budget::RTSP_INBOX, budget::RTSP_OUTBOX)
    }

    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Self::Session, Self::Link<'a>)> {
        let AcceptedClient { peer, until, refusal, admitted, guessed, clock, .. } = client;
        let now = clock.now();
        let nonce = nonce_for(Origin::of(peer.address), now);
        let (mut player, link) = self.player((now, until), nonce, admitted, guessed)?;
        if refusal.is_some() {
            player.refuse_login();
        }
        Some((player, link))
    }

    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
        link.occupant()
    }

    fn wrong_codes(session: &client::Player, _end: SessionEnd<Self>) -> WrongCodes {
        session.wrong_codes().iter().copied().collect()
    }

    fn details(player: &client::Player, end: SessionEnd<Self>) -> impl fmt::Display {
        let ended_for_code = end == End::Session(client::Error::WrongCode);
        let has_wrong_code = !player.wrong_codes().is_empty() && !ended_for_code;
        Details { has_wrong_code, pictures: player.pictures() }
    }
}

/// What follows the cause in the log line of a player's end.
struct Details<'a> {
    /// Whether the player sent a wrong access code, and the session ended for another cause.
    has_wrong_code: bool,
    /// Pictures that the player was sent and lost.
    pictures: &'a Pictures,
}

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { has_wrong_code, pictures } = self;
        let wrong = if *has_wrong_code { ", and showed a wrong access code" } else { "" };
        write!(f, "{wrong}{pictures}")
    }
}

/// The service in the list of services.
pub fn declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "rtsp",
        without: None,
        is_enabled: |config| config.services.rtsp,
        listens: |config| Some(Listening::tls(config.ports.rtsp, BOARD.clients.rtsp)),
        start: |root| {
            let config = root.config;
            let chance = root.seed & !(u64::MAX << 48);
            let service =
                Service::new(config.code.clone(), Rc::clone(&root.status), url(config), chance);
            let acceptor = root.tls_workers("rtsp", &service, budget::PLAYERS);
            if let Some(port) = root.take_port("rtsp") {
                root.accept_by(accept_players(port, acceptor, Rc::clone(&root.status)));
            }
            let source = Source {
                service: Rc::clone(&service),
                port: root.printer_port(Protocol::Rtsp, config.printer_ports.rtsp),
                buffers: Buffers::new(budget::STREAM_INBOX, budget::STREAM_OUTBOX),
                probes: ProbeSchedule::NONE,
            };
            root.keep_connected("rtsp", source);
            Ok(service)
        },
    }
}

/// Why port 322 is closed.
pub(in crate::runtime) const NO_CAMERA: &str = "the printer has no RTSPS camera";

/// Accepts players while the printer has an RTSPS camera, or while it is not known whether it has one.
async fn accept_players<N: Net>(
    mut port: OptionalPort<N>,
    acceptor: Rc<Acceptor<N>>,
    status: Rc<Status>,
) {
    let until = async |is_open| {
        while (status.has_rtsps() != Some(false)) != is_open {
            status.camera_changed().await;
        }
    };
    loop {
        until(true).await;
        tokio::select! {
            never = port.accept(&acceptor) => match never {},
            () = until(false) => {}
        }
        port.close(&acceptor, NO_CAMERA);
    }
}

/// The URL of the printer's camera.
pub(in crate::runtime) fn url(config: &Config) -> Url {
    let mut url = Url::new();
    let (host, port, path) = (&config.printer, config.printer_ports.rtsp, upstream::PATH);
    let written = match host {
        PrinterAddr::Ip(IpAddr::V6(ip)) => write!(url, "rtsps://[{ip}]:{port}{path}"),
        PrinterAddr::Ip(IpAddr::V4(ip)) => write!(url, "rtsps://{ip}:{port}{path}"),
        // A printer ignores the host name, and a long one might not fit.
        PrinterAddr::Name(_) => write!(url, "rtsps://printer:{port}{path}"),
    };
    // Cannot fail: an address is no longer than that.
    let _fits = written;
    url
}

/// Why there is no session with the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Dial(DialError),
    /// The camera closed the connection before its first answer.
    HungUp,
    Ended(End<upstream::Error>),
}

impl Loss {
    const fn pace(self) -> Pace {
        let is_lasting = match self {
            Self::Dial(error) => error.is_lasting(),
            Self::Ended(End::Session(upstream::Error::WrongCode | upstream::Error::NoWay)) => true,
            Self::HungUp | Self::Ended(_) => false,
        };
        if is_lasting { Pace::Slow } else { Pace::Usual }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Dial(DialError::Refused(_)) => Kind::PrinterUntrusted,
            Self::Ended(End::Session(upstream::Error::WrongCode)) => Kind::PrinterRefused,
            Self::Dial(_) | Self::HungUp | Self::Ended(_) => Kind::PrinterLost,
        }
    }

    /// Whether the camera may have been switched off, or be another one.
    const fn needs_probe(self) -> bool {
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
        if let Self::Dial(error) = self {
            return error.fmt(f);
        }
        f.write_str("printer connection lost: ")?;
        match self {
            Self::Dial(_) | Self::HungUp => f.write_str(
                "closed before the camera answered; live view may be switched off, or another program \
                 may be watching",
            ),
            Self::Ended(End::Closed) => f.write_str("closed by the camera"),
            Self::Ended(End::Session(error)) => error.fmt(f),
            Self::Ended(End::Stream(error)) => error.fmt(f),
        }
    }
}

/// What players may expect of a printer whose camera was looked at.
const fn stream_status_of(kind: CameraKind) -> StreamStatus {
    match kind {
        CameraKind::Unknown | CameraKind::Rtsp => StreamStatus::Open,
        CameraKind::NoPort => StreamStatus::Away,
        CameraKind::Chamber | CameraKind::ChamberDark | CameraKind::ChamberBusy => {
            StreamStatus::Elsewhere
        }
        CameraKind::RtspOff => StreamStatus::Off,
        CameraKind::WrongCode => StreamStatus::WrongCode,
    }
}

/// When the printer's cameras are probed again for a player that waits.
struct ProbeSchedule {
    next: Instant,
    interval: Duration,
}

impl ProbeSchedule {
    /// No player has waited yet.
    const NONE: Self = Self { next: Instant::START, interval: Duration::ZERO };

    /// Whether a probe is due, which has the next one due after twice the interval.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.interval = (self.interval * 2).clamp(FIRST_PROBE_INTERVAL, MAX_PROBE_INTERVAL);
            self.next = now + self.interval;
        }
        is_due
    }
}

/// The one session with the printer's RTSPS camera, while a player wants one. None is made while the printer's
/// cameras are being probed.
struct Source<D> {
    service: Rc<Service>,
    port: PrinterPort<D>,
    buffers: Buffers,
    probes: ProbeSchedule,
}

impl<D: Dial> Source<D> {
    /// Dials and plays until the session ends. `None` if it ended in order.
    async fn play(&mut self) -> Option<Loss> {
        let status = Rc::clone(&self.port.status);
        let _taken = status.camera().take_rtsp();
        let mut stream = match self.port.dial().await {
            Ok(stream) => stream,
            Err(error) => return Some(Loss::Dial(error)),
        };
        let clock = &self.port.clock;
        let mut upstream = self.service.upstream(clock.now());
        let end = drive(&mut upstream, &self.service, &mut stream, &mut self.buffers, clock).await;
        match end {
            End::Session(upstream::Error::WrongCode) => {
                status.refuse(Login::Rtsp, clock.now());
            }
            End::Session(_) | End::Closed | End::Stream(_) => status.log_out(Login::Rtsp),
        }
        stream.close().await;
        self.service.lost();
        match end {
            End::Session(upstream::Error::NotWanted | upstream::Error::Leaving) => None,
            // A camera may answer TEARDOWN by closing.
            End::Closed | End::Stream(_) if upstream.is_leaving() => None,
            End::Closed | End::Stream(_) if !upstream.has_answered() => Some(Loss::HungUp),
            End::Closed | End::Stream(_) | End::Session(_) => Some(Loss::Ended(end)),
        }
    }
}

impl<D: Dial> PrinterConnection for Source<D> {
    type Loss = Loss;

    async fn wanted(&mut self) -> bool {
        while !self.service.demand().is_leaving() {
            let kind = self.port.status.camera().kind();
            let is_found = kind == CameraKind::Rtsp && !self.port.status.camera().is_due();
            if !is_found {
                self.service.set_status(stream_status_of(kind));
            }
            if !self.service.demand().is_wanted() {
                tokio::select! {
                    () = self.service.demand().notified() => {}
                    () = self.port.status.camera().news() => {}
                }
            } else if is_found {
                self.probes = ProbeSchedule::NONE;
                return true;
            } else {
                // A player waits: the camera may have been switched on.
                if self.probes.is_due(self.port.clock.now()) {
                    self.port.status.camera().look_again();
                }
                tokio::select! {
                    () = self.service.demand().notified() => {}
                    () = self.port.status.camera().news() => {}
                    () = self.port.clock.reach(self.probes.next) => {}
                }
            }
        }
        false
    }

    async fn converse(&mut self) -> Ended<Loss> {
        let (began, shown) = (self.port.clock.now(), self.service.counts().shown);
        let outcome = self.play().await;
        let has_shown = self.service.counts().shown != shown;
        let has_settled = self.port.clock.now().since(began) >= SETTLED;
        match outcome {
            Some(loss) => Ended::Lost { loss, has_worked: has_settled },
            None if has_settled || has_shown => Ended::InOrder,
            // The last player left before it was shown anything.
            None => Ended::Unused,
        }
    }

    fn verdict(&self, loss: Loss) -> (Pace, Kind) {
        (loss.pace(), loss.kind())
    }

    /// Waits whether players come and go meanwhile or not, unless the program ends.
    async fn rest(&mut self, loss: Option<Loss>, wait: Duration) {
        if let Some(loss) = loss {
            self.service.set_status(loss.stream_status());
            if loss.needs_probe() {
                self.port.status.camera().look_again();
            }
        }
        let until = self.port.clock.now() + wait;
        while self.port.clock.now() < until && !self.service.demand().is_leaving() {
            tokio::select! {
                () = self.port.clock.reach(until) => {}
                () = self.service.demand().notified() => {}
            }
        }
    }
}
