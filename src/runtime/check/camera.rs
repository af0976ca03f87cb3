//! The printer's camera: the first picture of a chamber camera, or the description of an RTSPS stream.

use alloc::format;
use alloc::rc::Rc;

use tokio::time::timeout;

use super::local::Machine;
use super::{ANSWER_TIMEOUT, Run, Secured, refused_at};
use crate::cause::Cause;
use crate::chamber::upstream as chamber;
use crate::check::Finding;
use crate::clock::Instant;
use crate::memory::budget;
use crate::notify::Demand;
use crate::rtsp::upstream as rtsp;
use crate::runtime::dial::{Dial as _, DialError, Dialler};
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::runtime::services::rtsp::url;
use crate::runtime::stream::Stream;
use crate::session::{Handler, Session};
use crate::trace::{Party, Protocol};

impl<N: Net, M: Machine> Run<'_, N, M> {
    /// The camera that the printer's model has; of an unknown model the one that answers.
    pub(super) async fn camera(&mut self) -> Finding {
        if self.status.has_rtsps() == Some(true) {
            return self.rtsps_camera().await;
        }
        let found = self.chamber_camera().await;
        match found {
            Some(found) => found,
            None => self.rtsps_camera().await,
        }
    }

    /// The first picture. `None`: there is another camera, if any.
    async fn chamber_camera(&mut self) -> Option<Finding> {
        let config = self.check.config;
        let is_known = self.status.has_chamber() == Some(true);
        let mut stream = match self.dial(config.printer_ports.chamber, Protocol::Chamber).await {
            Ok(stream) => stream,
            Err(DialError::PortClosed { .. }) if !is_known => return None,
            Err(error) => return Some(refused_at(config.printer_ports.chamber, error)),
        };
        let (demand, code) = (Rc::<Demand>::default(), Rc::new(config.code.clone()));
        let mut camera = chamber::Upstream::new(demand, code, chamber::Purpose::Probe, self.now());
        let mut buffers = Buffers::new(budget::CAMERA_INBOX, budget::CAMERA_OUTBOX);
        let limit = self.within(ANSWER_TIMEOUT);
        let clock = &self.check.clock;
        let driven = drive(&mut camera, &FirstEvent, &mut stream, &mut buffers, clock);
        let end = timeout(limit, driven).await;
        stream.close().await;
        Some(match end {
            Ok(End::Session(chamber::Error::Found)) => {
                Finding::good("the chamber camera (port 6000) sends pictures")
            }
            Ok(End::Session(chamber::Error::Tunnel)) if !is_known => return None,
            Ok(End::Closed) if self.is_accepted => Finding::failed(&Cause::CHAMBER_BUSY.with("")),
            Ok(End::Closed) => Finding::message(Cause::CHAMBER_CODE, Cause::CHAMBER_CODE),
            Ok(End::Session(chamber::Error::Silent)) | Err(_) => {
                Finding::failed(&Cause::CHAMBER_DARK.with(""))
            }
            Ok(End::Session(error)) => Finding::message(Cause::CAMERA, error),
            Ok(End::Stream(error)) => Finding::message(Cause::CAMERA, error),
        })
    }

    /// The description of the stream.
    async fn rtsps_camera(&mut self) -> Finding {
        let config = self.check.config;
        let off = || Finding::failed(&Cause::LIVE_VIEW.with(""));
        let mut stream = match self.dial(config.printer_ports.rtsp, Protocol::Rtsp).await {
            Ok(stream) => stream,
            Err(DialError::PortClosed { .. }) if self.status.has_rtsps().is_none() => {
                return Finding::failed(&Cause::NO_CAMERA.with(""));
            }
            // A camera whose live view is off is closed, or closes during the TLS handshake or after it.
            Err(DialError::PortClosed { .. } | DialError::Handshake(_)) => return off(),
            Err(error) => return refused_at(config.printer_ports.rtsp, error),
        };
        let demand = Rc::<Demand>::default();
        demand.want(true);
        let code = Rc::new(config.code.clone());
        let ssrc = self.check.seed as u32;
        let mut camera = rtsp::Upstream::new(demand, code, url(config), ssrc, self.now());
        let mut buffers = Buffers::new(budget::STREAM_INBOX, budget::STREAM_OUTBOX);
        let limit = self.within(ANSWER_TIMEOUT);
        let clock = &self.check.clock;
        let driven = drive(&mut camera, &FirstEvent, &mut stream, &mut buffers, clock);
        let end = timeout(limit, driven).await;
        stream.close().await;
        match end {
            Ok(End::Session(rtsp::Error::NotWanted)) => {
                let tracks = camera.description().tracks();
                let codec = tracks.first().map(|track| track.codec);
                Finding::good(match codec {
                    Some(codec) => {
                        format!("the RTSPS camera (port 322) describes its stream: {codec:?}")
                    }
                    None => "the RTSPS camera (port 322) describes its stream".into(),
                })
            }
            Ok(End::Session(rtsp::Error::WrongCode)) => {
                Finding::failed(&Cause::WRONG_CODE.with(""))
            }
            Ok(End::Closed | End::Stream(_)) if !camera.has_answered() => off(),
            Ok(End::Closed) => Finding::message(Cause::CAMERA, "closed by the camera"),
            Ok(End::Session(error)) => Finding::message(Cause::CAMERA, error),
            Ok(End::Stream(error)) => Finding::message(Cause::CAMERA, error),
            Err(_elapsed) => Finding::message(Cause::CAMERA, rtsp::Error::NoAnswer),
        }
    }

    /// Connects to one of the printer's ports as its service does.
    pub(super) async fn dial(
        &self,
        port: u16,
        protocol: Protocol,
    ) -> Result<Secured<N>, DialError> {
        self.dial_by(self.dialler(port), protocol).await
    }

    /// The same with a dialler.
    pub(super) async fn dial_by(
        &self,
        mut dialler: Dialler<N>,
        protocol: Protocol,
    ) -> Result<Secured<N>, DialError> {
        let limit = self.within(2 * ANSWER_TIMEOUT);
        let secured =
            timeout(limit, dialler.dial()).await.unwrap_or(Err(DialError::NoHandshake))?;
        Ok(Stream::new(secured, protocol, Party::Printer, &self.check.clock))
    }
}

/// A handler that ends the session at its first event.
pub(super) struct FirstEvent;

impl Handler<chamber::Upstream> for FirstEvent {
    fn handle_event(
        &self,
        _now: Instant,
        _camera: &mut chamber::Upstream,
        _event: chamber::Event<'_>,
    ) -> Result<(), chamber::Error> {
        Err(chamber::Error::Found)
    }

    async fn woken(&self) {
        core::future::pending::<()>().await;
    }
}

impl Handler<rtsp::Upstream> for FirstEvent {
    fn handle_event(
        &self,
        _now: Instant,
        _camera: &mut rtsp::Upstream,
        _event: <rtsp::Upstream as Session>::Event<'_>,
    ) -> Result<(), rtsp::Error> {
        Err(rtsp::Error::NotWanted)
    }

    async fn woken(&self) {
        core::future::pending::<()>().await;
    }
}
