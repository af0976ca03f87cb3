//! Finds out which camera the printer has, and keeps up the connection to the chamber camera.
//!
//! Both are one task, since both dial port 6000, where an A1 or P1 has room for one or two connections.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::chamber::Service;
use crate::chamber::upstream::{self, Purpose};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget;
use crate::printer::camera::probe::{Answer, Probe};
use crate::printer::camera::{AtChamber, AtRtsp, CameraKind};
use crate::printer::status::{Login, Status};
use crate::runtime::Clock;
use crate::runtime::dial::{Dial, DialError, Dialler};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::reconnect::{Ended, Pace, PrinterConnection, PrinterPort};
use crate::runtime::root::Root;
use crate::runtime::stream::Stream;
use crate::session::NoEvents;
use crate::trace::Protocol;

/// How long a connection to the camera has to last for the next to be dialled without back-off.
const SETTLED: Duration = Duration::from_secs(30);

/// Why there is no connection to the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Dial(DialError),
    Ended(End<upstream::Error>),
    /// No camera that can be watched was found.
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
            Self::Ended(End::Closed) => {
                f.write_str("printer connection lost: closed by the camera")
            }
            Self::Ended(End::Session(error)) => write!(f, "printer connection lost: {error}"),
            Self::Ended(End::Stream(error)) => write!(f, "printer connection lost: {error}"),
            Self::Found(kind) => kind.fmt(f),
        }
    }
}

/// The connection to the chamber camera while a viewer wants one, and the probes of both ports: which camera the
/// printer has is probed at the start, and each time the probe is due.
pub(super) struct Detector<D> {
    service: Rc<Service>,
    chamber: PrinterPort<D>,
    rtsp: PrinterPort<D>,
    buffers: Buffers,
    /// What the next connection is for.
    purpose: Purpose,
}

impl<N: Net> Detector<Dialler<N>> {
    pub(super) fn new(root: &Root<'_, N>, service: Rc<Service>) -> Self {
        let ports = &root.config.printer_ports;
        let chamber = root.printer_port(Protocol::Chamber, ports.chamber);
        let rtsp = root.printer_port(Protocol::Rtsp, ports.rtsp);
        let buffers = Buffers::new(budget::CAMERA_INBOX, budget::CAMERA_OUTBOX);
        Self { service, chamber, rtsp, buffers, purpose: Purpose::Probe }
    }
}

impl<D: Dial> Detector<D> {
    fn status(&self) -> &Status {
        &self.chamber.status
    }

    fn now(&self) -> Instant {
        self.chamber.clock.now()
    }

    /// What a connection is needed for now, if for anything.
    fn purpose(&self) -> Option<Purpose> {
        let kind = self.status().camera().kind();
        if self.service.demand().is_wanted() && !kind.is_elsewhere() {
            Some(Purpose::Watch)
        } else if self.status().camera().is_due() || !kind.is_settled() {
            Some(Purpose::Probe)
        } else {
            None
        }
    }

    /// Watches or probes until that ends. `None` if it ended in order.
    async fn watch(&mut self) -> Option<Loss> {
        let (loss, chamber) = self.at_chamber().await;
        self.service.lost();
        let has_left = matches!(loss, Loss::Ended(End::Session(upstream::Error::NotWanted)));
        if self.service.demand().is_leaving() || (has_left && chamber == AtChamber::Unknown) {
            // The last viewer left before the first picture: nothing is lost, and nothing learnt.
            return None;
        }
        let rtsp =
            if CameraKind::needs_rtsp(chamber) { self.at_rtsp().await } else { AtRtsp::Unknown };
        let kind = self.status().judge(CameraKind::of(chamber, rtsp));
        if kind == CameraKind::Unknown {
            // A printer that does not answer has the camera that it had.
            return Some(loss);
        }
        let is_news = self.status().note_camera(kind);
        self.service.set_elsewhere(kind.is_elsewhere());
        if kind.is_settled() {
            if is_news {
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
    async fn at_chamber(&mut self) -> (Loss, AtChamber) {
        let stream = match self.chamber.dial().await {
            Ok(stream) => stream,
            Err(error) => {
                let is_closed = matches!(error, DialError::PortClosed { .. });
                let seen = if is_closed { AtChamber::Closed } else { AtChamber::Unknown };
                return (Loss::Dial(error), seen);
            }
        };
        let Self { service, chamber: PrinterPort { status, clock, .. }, purpose, buffers, .. } =
            self;
        let (end, seen) = converse(service, *purpose, stream, buffers, clock).await;
        status.log_out(Login::Chamber);
        status.note_port_6000(seen);
        (Loss::Ended(end), seen)
    }

    /// The probe of port 322.
    async fn at_rtsp(&mut self) -> AtRtsp {
        if self.status().camera().is_rtsp_taken() {
            return AtRtsp::Speaks;
        }
        let mut stream = match self.rtsp.dial().await {
            Ok(stream) => stream,
            Err(DialError::PortClosed { .. }) => return AtRtsp::Closed,
            // A camera whose live view is off closes during the TLS handshake, or after it.
            Err(DialError::Handshake(_)) => return AtRtsp::HangsUp,
            Err(_) => return AtRtsp::Unknown,
        };
        let clock = &self.rtsp.clock;
        let mut probe = Probe::new(clock.now());
        let end = drive(&mut probe, &NoEvents(()), &mut stream, &mut self.buffers, clock).await;
        stream.close().await;
        match end {
            End::Session(Answer::Rtsp) => AtRtsp::Speaks,
            End::Session(Answer::Other) => AtRtsp::Unknown,
            End::Session(Answer::Silence) | End::Closed | End::Stream(_) => AtRtsp::HangsUp,
        }
    }
}

/// Converses with the camera over `stream` until that ends and is closed: how it ended, and what that says
/// about port 6000.
async fn converse<T: AsyncRead + AsyncWrite + Unpin>(
    service: &Rc<Service>,
    purpose: Purpose,
    mut stream: Stream<T>,
    buffers: &mut Buffers,
    clock: &Clock,
) -> (End<upstream::Error>, AtChamber) {
    let mut upstream = service.upstream(purpose, clock.now());
    let end = drive(&mut upstream, service, &mut stream, buffers, clock).await;
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
            | upstream::Error::BadLength(_),
        )
        | End::Stream(_) => AtChamber::Unknown,
    };
    (end, seen)
}

impl<D: Dial> PrinterConnection for Detector<D> {
    type Loss = Loss;

    async fn wanted(&mut self) -> bool {
        while !self.service.demand().is_leaving() {
            if let Some(purpose) = self.purpose() {
                self.purpose = purpose;
                return true;
            }
            tokio::select! {
                () = self.service.demand().notified() => {}
                () = self.status().camera().notified() => {}
            }
        }
        false
    }

    async fn converse(&mut self) -> Ended<Loss> {
        let began = self.now();
        let loss = self.watch().await;
        match loss {
            Some(loss) if !self.service.demand().is_leaving() => {
                let has_settled = self.now().since(began) >= SETTLED;
                let has_worked = matches!(loss, Loss::Ended(_)) && has_settled;
                Ended::Lost { loss, has_worked }
            }
            Some(_) | None => Ended::InOrder,
        }
    }

    fn verdict(&self, loss: Loss) -> (Pace, Kind) {
        // Without a viewer that waits there is no hurry.
        let is_slow = loss.is_lasting() || !self.service.demand().is_wanted();
        (if is_slow { Pace::Slow } else { Pace::Usual }, loss.kind())
    }

    /// Waits until the program ends, the printer has come back, or the first viewer has come.
    async fn rest(&mut self, loss: Option<Loss>, wait: Duration) {
        if loss.is_none() {
            return;
        }
        let until = self.now() + wait;
        let was_wanted = self.service.demand().is_wanted();
        while self.now() < until
            && !self.service.demand().is_leaving()
            && (was_wanted || !self.service.demand().is_wanted())
        {
            tokio::select! {
                () = self.chamber.clock.reach(until) => {}
                () = self.service.demand().notified() => {}
                () = self.status().camera().notified() => return,
            }
        }
    }
}
