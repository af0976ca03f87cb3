//! The chamber camera's service, all slots taken by the worst viewers there are.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::chamber::Service;
use pandaproxy::chamber::slot::Slot;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::{self, LINES, PICTURES, VIEWERS};
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::service::Service as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::lan::net::SimNet;
use crate::lan::{self, CODE, WIRE, root};
use crate::share::{Share, ran_apart};
use printer::Model;
use printer::camera::{Camera, Quirk, login};

const HOURS: usize = 24;

/// What the lines of the budget that can be reached without sockets and TLS allow.
fn in_memory() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("chamber"));
    lines.map(|line| line.count * line.each).sum::<usize>() - (VIEWERS + 1) * budget::TLS
}

/// A connection to a camera, allocated outside of the counted memory.
#[derive(Clone)]
struct Wire(Camera);

impl Dial for Wire {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        let (near, far) = duplex(WIRE);
        let camera = self.0.clone();
        spawn_local(async move { camera.serve(far).await });
        Ok(near)
    }
}

/// A service before a camera, whose own heap is known but for the wires.
pub(crate) struct Studio {
    pub(crate) service: Rc<Service>,
    share: Share,
    net: SimNet,
}

impl Studio {
    pub(crate) fn before(camera: &Camera) -> Self {
        let (net, share) = (SimNet::new(), Share::default());
        net.put(6000, Wire(camera.clone()));
        share.of_tasks_on(&net);
        let start = root::one(&net, "chamber", Model::P1S.serial(), &["--services=camera"]);
        let proxy = share.during(start);
        let service = proxy.service().unwrap();
        Self { service, share, net }
    }

    /// A wire to the proxy that holds `bytes`.
    fn wire(&self, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        assert!(self.net.arrive(6000, self.net.next_client(), far), "the port is open");
        near
    }

    pub(crate) async fn viewer(&self, bytes: usize) -> DuplexStream {
        let mut stream = self.wire(bytes);
        stream.write_all(&login(CODE)).await.unwrap();
        stream
    }
}

async fn picture(stream: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await.ok()?;
    let mut picture = vec![0; u32::from_le_bytes(head[..4].try_into().unwrap()) as usize];
    stream.read_exact(&mut picture).await.ok()?;
    Some(picture)
}

#[test]
fn full_viewer_slots_fit_the_budget_and_cost_others_nothing() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let camera = Camera::new().code(CODE).every(Duration::from_millis(67));
        let studio = Studio::before(&camera);
        let mut good = studio.viewer(WIRE).await;
        let first = picture(&mut good).await.unwrap();
        let watching = spawn_local(async move {
            let mut seen = 1;
            while picture(&mut good).await.is_some() {
                seen += 1;
            }
            seen
        });
        let mut there = Vec::new();
        // Each comes at another picture, and holds on to it.
        for _ in 1..BOARD.clients.chamber {
            there.push(studio.viewer(64).await);
            sleep(Duration::from_millis(100)).await;
        }
        for _ in 0..BOARD.pre_auth {
            let mut half = studio.wire(64);
            half.write_all(&login(CODE)[..64]).await.unwrap();
            there.push(half);
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(studio.service.connections(), VIEWERS);
        let (now, peak) = (studio.share.now(), studio.share.peak());
        println!("all {VIEWERS} slots: {now} bytes, at most {peak}; lines allow {}", in_memory());
        assert!(peak <= in_memory());
        // Viewers that read nothing and those that never log in are disconnected.
        let stuck = journal::count(Kind::Stuck);
        sleep(Duration::from_secs(15)).await;
        assert_eq!(studio.service.connections(), 1);
        assert!(journal::count(Kind::Stuck) > stuck || stuck > 0);
        let counts = studio.service.counts();
        assert!(counts.shown > 200, "{counts:?}");
        // The good one has had every one of them.
        camera.turn(Quirk::Silence, true);
        sleep(Duration::from_secs(1)).await;
        studio.service.disconnect_all();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watching.await.unwrap(), studio.service.counts().shown);
        assert!(!first.is_empty());
        drop(there);
    });
}

#[test]
fn a_day_of_viewers_and_reboots_leaves_nothing_behind() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let camera = Camera::new().code(CODE).every(Duration::from_secs(2));
        let studio = Studio::before(&camera);
        sleep(Duration::from_secs(60)).await;
        let mut held = [0; HOURS];
        for (hour, held) in held.iter_mut().enumerate() {
            let mut viewers = Vec::new();
            for _ in 0..BOARD.clients.chamber {
                viewers.push(studio.viewer(WIRE).await);
            }
            match hour % 4 {
                0 => camera.reboot(Duration::from_secs(30)),
                1 => camera.cut(),
                2 => camera.oversized(PICTURES.size + 1),
                _ => camera.turn(Quirk::Garbage, true),
            }
            for viewer in &mut viewers {
                if hour % 4 != 3 {
                    picture(viewer).await.unwrap();
                }
            }
            camera.turn(Quirk::Garbage, false);
            drop(viewers);
            sleep(Duration::from_secs(3000)).await;
            assert_eq!((studio.service.connections(), camera.open()), (0, 0));
            *held = pandaproxy::memory::heap::held();
        }
        println!("held after each hour: {held:?}");
        // The simulated camera remembers how connections ended; a frame or a task would be more.
        let grown = held[HOURS - 1] - held[0];
        assert!(grown <= 128, "{grown} bytes are kept from one hour to the next");
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn chamber_sizes_fit_their_budget_lines() {
    if ran_apart() {
        return;
    }
    assert!(size_of::<Slot>() <= budget::CHAMBER_SLOT, "{}", size_of::<Slot>());
    assert!(size_of::<Service>() <= budget::CHAMBER_HUB, "{}", size_of::<Service>());
    let share = Share::default();
    let code = AccessCode::new(CODE.as_bytes()).unwrap();
    let status = Rc::new(Status::new("", Port6000::Auto));
    let _service = share.during(|| Service::new(code, status));
    let lines =
        PICTURES.bytes(budget::FRAME_SLOT) + VIEWERS * budget::CHAMBER_SLOT + budget::CHAMBER_HUB;
    println!("the service: {} bytes of {lines}", share.now());
    assert!(share.now() <= lines);
    assert_eq!(PICTURES.count, BOARD.clients.chamber + 3);
}
