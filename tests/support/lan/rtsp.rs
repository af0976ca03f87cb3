//! The RTSPS camera's part of the in-memory network: the proxy's real players, hub and upstream, and
//! the real probe of the camera, between servers at the printer's ports 6000 and 322 and
//! simulated players.

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::journal::Kind;
use pandaproxy::printer::status::Status;
use pandaproxy::rtsp::Service;
use pandaproxy::rtsp::client::Error;
use pandaproxy::runtime::launch;
use pandaproxy::runtime::worker::Served;
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::chamber::{At, Port};
use super::net::SimNet;
use super::{CODE, Tally, WIRE, root};
use crate::clients::rtsp::{Assembly, Client, Heard, Picture, Rtp, Scheme};
use printer::Model;
use printer::rtsp::{Media, Rtsp, STAMP};
use printer::tunnel::Tunnel;

/// Where players look for the camera: any path will do.
pub(crate) const URL: &str = "rtsps://proxy:322/streaming/live/1";

/// How long a picture may be waited for: longer than the longest wait between two attempts to reach
/// the printer that are made while a player is connected.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(600);

/// A camera of 25 pictures a second with a key frame every 10, each with its number in it. What comes
/// between two key frames fits half a ring of the host's.
pub(crate) fn camera() -> Rtsp {
    showing(Media::made(25, 10, 20_000, 3000))
}

/// A camera that shows this, each picture with its number in it.
pub(crate) fn showing(media: Media) -> Rtsp {
    Rtsp::new().code(CODE).showing(media).stamping(stamp)
}

fn stamp(number: u64) -> [u8; STAMP] {
    format!("{number:024}").as_bytes().try_into().unwrap()
}

/// The number of a picture that came from such a camera, which has to be its picture to the byte.
pub(crate) fn number(camera: &Rtsp, picture: &Picture) -> u64 {
    let slice = picture.nals.last().expect("a picture has a slice");
    let number = core::str::from_utf8(&slice[8..8 + STAMP]).expect("a number").parse().unwrap();
    let mut nals = camera.media().unit(number).nals.clone();
    nals.last_mut().unwrap()[8..8 + STAMP].copy_from_slice(&stamp(number));
    assert!(picture.nals == nals, "picture {number} is not the camera's to the byte");
    number
}

/// A proxy before a printer's two camera ports.
pub(crate) struct Studio {
    pub(crate) service: Rc<Service>,
    pub(crate) status: Rc<Status>,
    /// Port 322.
    pub(crate) port: Port,
    /// Port 6000.
    pub(crate) chamber: Port,
    proxy: launch::Proxy,
    net: SimNet,
    next: Cell<u32>,
    admitted: Tally,
    /// How players ended, oldest first.
    pub(crate) ends: Rc<RefCell<Vec<Served<Error>>>>,
}

impl Studio {
    /// A proxy before a printer that has this camera, and a file tunnel on port 6000.
    pub(crate) fn before(camera: &Rtsp) -> Self {
        Self::at(At::Tunnel(Tunnel::new()), At::Rtsp(camera.clone()))
    }

    /// A proxy before these two ports.
    pub(crate) fn at(chamber: At, rtsp: At) -> Self {
        Self::knowing(CODE, chamber, rtsp)
    }

    /// The same with another code than the printer's.
    pub(crate) fn knowing(code: &str, chamber: At, rtsp: At) -> Self {
        let (chamber, port) = (Port::new(chamber), Port::new(rtsp));
        let net = SimNet::new();
        net.put(6000, chamber.clone());
        net.put(322, port.clone());
        let ends = net.keep_ends(Served::clone);
        let admitted = Tally::of(Kind::Admitted);
        let proxy = root::start(&net, Model::X1C.serial(), code, &["--services=camera"]);
        let (service, status) = (proxy.service().unwrap(), Rc::clone(proxy.status()));
        Self { service, status, port, chamber, proxy, net, next: Cell::new(1), admitted, ends }
    }

    /// A stream to the proxy that holds `wire` bytes in each direction, served by a worker of its own.
    pub(crate) fn stream(&self, wire: usize) -> DuplexStream {
        let (near, far) = duplex(wire);
        let number = self.next.replace(self.next.get() + 1);
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(number % 250).unwrap()));
        assert!(self.net.arrive(322, address, far), "the port is open");
        near
    }

    /// Another connection from one and the same host.
    pub(crate) fn stream_of_one_host(&self) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, 1, 1));
        assert!(self.net.arrive(322, address, far), "the port is open");
        near
    }

    /// A client that knows the code and has sent nothing yet.
    pub(crate) fn client(&self) -> Client<DuplexStream> {
        Client::over(self.stream(WIRE)).knowing(Scheme::Md5, CODE)
    }

    /// A player whose PLAY was answered with 200.
    pub(crate) async fn player(&self) -> Player {
        self.player_over(WIRE).await
    }

    /// The same over a wire that holds `bytes`.
    pub(crate) async fn player_over(&self, bytes: usize) -> Player {
        let mut client = Client::over(self.stream(bytes)).knowing(Scheme::Md5, CODE);
        client.play(URL).await;
        Player::of(client)
    }

    /// Players that were let in.
    pub(crate) fn admitted(&self) -> u32 {
        self.admitted.now()
    }

    /// How the only player that has ended did.
    pub(crate) fn end(&self) -> Served<Error> {
        let mut ends = self.ends.borrow_mut();
        let end = ends.pop().expect("a session has ended");
        assert!(ends.is_empty(), "{ends:?} and {end:?}");
        end
    }

    /// Ends it as a signal would.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// Contents of a sender report: the clock in seconds, and the same moment in the track's ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) ssrc: u32,
    pub(crate) seconds: f64,
    pub(crate) ticks: u32,
}

/// A player that is shown pictures on channel 0. It stops the test over a torn picture, over a number
/// that is missing, and over another source.
pub(crate) struct Player {
    pub(crate) client: Client<DuplexStream>,
    assembly: Assembly,
    source: Option<u32>,
    /// The last packet's number.
    pub(crate) sequence: Option<u16>,
    /// The last sender report.
    pub(crate) report: Option<Report>,
}

impl Player {
    /// A player on channels 0 and 1.
    pub(crate) fn of(client: Client<DuplexStream>) -> Self {
        Self { client, assembly: Assembly::default(), source: None, sequence: None, report: None }
    }

    /// The next picture, or `None` when the stream ends.
    pub(crate) async fn next(&mut self) -> Option<Picture> {
        let until = Instant::now() + PICTURE_TIMEOUT;
        loop {
            let heard = self.client.next_within(Duration::from_secs(30)).await;
            assert!(Instant::now() < until, "no picture for {} s", PICTURE_TIMEOUT.as_secs());
            let frame = match heard {
                None | Some(Heard::Request(_) | Heard::Response(_)) => continue,
                Some(Heard::End) => return None,
                Some(Heard::Frame(frame)) => frame,
            };
            if frame.channel == 1 {
                self.report = Some(report(&frame.bytes));
                continue;
            }
            assert_eq!(frame.channel, 0, "on the channel that was asked for");
            let rtp = Rtp::of(&frame.bytes);
            assert_eq!(*self.source.get_or_insert(rtp.ssrc), rtp.ssrc, "one source");
            self.sequence = Some(rtp.sequence);
            if let Some(picture) = self.assembly.take(&frame.bytes) {
                return Some(picture);
            }
        }
    }

    /// The next picture.
    pub(crate) async fn picture(&mut self) -> Picture {
        self.next().await.expect("it is still shown pictures")
    }

    /// The next picture's number at this camera.
    pub(crate) async fn number(&mut self, camera: &Rtsp) -> u64 {
        number(camera, &self.picture().await)
    }

    /// Whether no picture comes within this time.
    pub(crate) async fn sees_nothing(&mut self, within: Duration) -> bool {
        timeout(within, self.next()).await.is_err()
    }
}

fn report(bytes: &[u8]) -> Report {
    assert_eq!(bytes[..4], [0x80, 200, 0, 6], "a sender report without blocks");
    assert_eq!(bytes.get(28..30), Some(&[0x81, 202][..]), "and a name behind it");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let seconds = f64::from(word(8)) + f64::from(word(12)) / 4_294_967_296.0;
    Report { ssrc: word(4), seconds, ticks: word(16) }
}
