//! The RTSPS camera's service, all slots taken by the worst players there are.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::memory::budget::{self, LINES, PLAYERS, RTSP_BLOCKS};
use pandaproxy::memory::heap;
use pandaproxy::printer::camera::CameraKind;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::rtsp::Service;
use pandaproxy::rtsp::slot::Slot;
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::service::Service as _;
use tokio::io::{DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::clients::rtsp::{Client, Scheme};
use crate::lan::net::SimNet;
use crate::lan::rtsp::{Player, URL, number, showing};
use crate::lan::{self, CODE, WIRE, root};
use crate::share::{Share, ran_apart};
use printer::Model;
use printer::rtsp::{Media, Quirk, Rtsp};

const HOURS: usize = 24;

/// Hours before that, after which the simulated camera remembers no more than it did.
const WARM: usize = 28;

/// A wire that holds less than a packet.
const NARROW: usize = 512;

/// What the lines of the budget that can be reached without sockets and TLS allow.
fn in_memory() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("rtsp"));
    lines.map(|line| line.count * line.each).sum::<usize>() - (PLAYERS + 1) * budget::TLS
}

/// A connection to a camera, allocated outside of the counted memory.
#[derive(Clone)]
struct Wire(Rtsp);

impl Dial for Wire {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        let (near, far) = duplex(WIRE);
        let camera = self.0.clone();
        spawn_local(async move { camera.serve(far).await });
        Ok(near)
    }
}

/// A service before a camera that was found, whose own heap is known but for the wires.
pub(crate) struct Studio {
    pub(crate) service: Rc<Service>,
    share: Share,
    net: SimNet,
}

impl Studio {
    pub(crate) fn before(camera: &Rtsp) -> Self {
        let (net, share) = (SimNet::new(), Share::default());
        net.put(322, Wire(camera.clone()));
        share.of_tasks_on(&net);
        let start = root::one(&net, "rtsp", Model::X1C.serial(), &["--services=camera"]);
        let proxy = share.during(start);
        // There are no probes in this test: the kind of camera stays as set.
        let probed = Rc::clone(proxy.status());
        probed.camera().found(CameraKind::Rtsp);
        spawn_local(async move {
            loop {
                probed.camera().notified().await;
                probed.camera().found(CameraKind::Rtsp);
            }
        });
        let service = proxy.service().unwrap();
        Self { service, share, net }
    }

    /// A wire to the proxy that holds `bytes`.
    fn wire(&self, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        assert!(self.net.arrive(322, self.net.next_client(), far), "the port is open");
        near
    }

    async fn player(&self, bytes: usize) -> Player {
        let mut client = Client::over(self.wire(bytes)).knowing(Scheme::Md5, CODE);
        client.play(URL).await;
        Player::of(client)
    }

    /// A wire on which pictures come.
    pub(crate) async fn stream(&self, bytes: usize) -> DuplexStream {
        let mut client = Client::over(self.wire(bytes)).knowing(Scheme::Md5, CODE);
        client.play(URL).await;
        client.stream
    }
}

/// Five pictures a second that are nearly as long as they may be, every other one a key frame.
fn camera() -> Rtsp {
    let bytes = BOARD.rtsp.picture * 3 / 4;
    showing(Media::made(5, 2, bytes, bytes))
}

#[test]
fn full_player_slots_fit_the_budget_and_cost_others_nothing() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut good = studio.player(WIRE).await;
        let theirs = camera.clone();
        let watching = spawn_local(async move {
            let (mut last, mut seen) = (None, 0_u32);
            while let Some(picture) = good.next().await {
                let next = number(&theirs, &picture);
                assert!(last.is_none_or(|last| next == last + 1 || picture.is_key()), "{next}");
                seen += u32::from(last.is_none_or(|last| next == last + 1));
                last = Some(next);
            }
            seen
        });
        let mut there = Vec::new();
        let mut most = 0;
        // Each comes at another picture and is stuck within it, over and over again.
        for _ in 0..5 {
            for _ in 1..BOARD.clients.rtsp {
                there.push(studio.player(NARROW).await);
                sleep(Duration::from_millis(400)).await;
                most = most.max(studio.service.blocks());
            }
            sleep(Duration::from_secs(8)).await;
            assert_eq!(studio.service.connections(), 1, "stuck players are disconnected");
            there.clear();
        }
        for _ in 1..BOARD.clients.rtsp {
            there.push(studio.player(NARROW).await);
            sleep(Duration::from_millis(400)).await;
        }
        most = most.max(studio.service.blocks());
        // Each slow player holds nearly a whole picture.
        assert!(most >= (BOARD.clients.rtsp - 1) * (budget::RTSP_PICTURE - 2), "{most}");
        let mut knocking = Vec::new();
        for _ in 0..BOARD.pre_auth {
            knocking.push(studio.wire(NARROW));
        }
        sleep(Duration::from_millis(100)).await;
        assert_eq!(studio.service.connections(), PLAYERS);
        let peak = studio.share.peak();
        println!(
            "all {PLAYERS} slots: {} bytes, at most {peak}; lines allow {}; at most {most} blocks of {}",
            studio.share.now(),
            in_memory(),
            RTSP_BLOCKS.count
        );
        assert!(peak <= in_memory());
        let counts = studio.service.counts();
        assert_eq!(counts.too_long, 0, "blocks never run out");
        // Players that read nothing are disconnected, and those that never send the code.
        sleep(Duration::from_secs(45)).await;
        assert_eq!(studio.service.connections(), 1);
        studio.service.disconnect_all();
        let seen = watching.await.unwrap();
        assert!(
            studio.service.counts().shown - seen <= 4,
            "{seen} of {:?}",
            studio.service.counts()
        );
        assert!(studio.service.blocks() <= BOARD.rtsp.ring);
        drop(there);
    });
}

#[test]
fn replacing_stuck_players_does_not_exhaust_blocks() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let camera = camera().rate(10);
        let studio = Studio::before(&camera);
        let mut most = 0;
        for round in 0..4 {
            // As many as may, each within another picture, with a ring behind it.
            let mut stuck = Vec::new();
            for _ in 0..BOARD.clients.rtsp {
                stuck.push(studio.player(NARROW).await);
                sleep(Duration::from_millis(200)).await;
            }
            // The camera returns with another description: all players that were sent the old one are dismissed, but a
            // write that is stuck takes seconds to be given up.
            camera.turn(Quirk::NoVideo, round % 2 == 0);
            camera.close();
            sleep(Duration::from_millis(1200)).await;
            // Slow players keep the block that is sent next, and none that will not be sent.
            let held = studio.service.blocks();
            let new = BOARD.rtsp.ring / 2 + 2 * budget::RTSP_PICTURE;
            assert!(held <= BOARD.clients.rtsp + new, "{held} blocks are held on to");
            for _ in 0..BOARD.pre_auth {
                stuck.push(studio.player(NARROW).await);
                sleep(Duration::from_millis(200)).await;
                most = most.max(studio.service.blocks());
            }
            assert!(
                studio.service.connections() > BOARD.clients.rtsp,
                "the old ones are still there"
            );
            sleep(Duration::from_secs(20)).await;
            assert_eq!(studio.service.connections(), 0);
        }
        println!("at most {most} blocks of {}", RTSP_BLOCKS.count);
        assert_eq!(studio.service.counts().too_long, 0, "blocks never run out");
    });
}

#[test]
fn a_day_of_players_and_reboots_leaves_nothing_behind() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let camera = showing(Media::made(2, 4, 20_000, 3000));
        let studio = Studio::before(&camera);
        let mut held = [0; WARM + HOURS];
        for (hour, held) in held.iter_mut().enumerate() {
            let mut players = Vec::new();
            for _ in 0..BOARD.clients.rtsp {
                players.push(studio.player(WIRE).await);
            }
            for player in &mut players {
                player.number(&camera).await;
            }
            match hour % 4 {
                0 => camera.reboot(Duration::from_secs(5)),
                1 => camera.cut(),
                2 => drop(camera.lie(0, 0xffff, &[0; 0xffff])),
                _ => camera.close(),
            }
            for player in &mut players {
                player.number(&camera).await;
            }
            drop(players);
            sleep(Duration::from_secs(3000)).await;
            assert_eq!((studio.service.connections(), camera.open()), (0, 0));
            assert_eq!(studio.service.blocks(), 0, "no block is held");
            *held = heap::held();
        }
        println!("held after each hour: {held:?}");
        let grown = held[WARM + HOURS - 1].saturating_sub(held[WARM - 1]);
        assert!(grown <= 128, "{grown} bytes are kept from one hour to the next");
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn rtsp_sizes_fit_their_budget_lines() {
    if ran_apart() {
        return;
    }
    let pointers = 2 * size_of::<usize>();
    assert!(size_of::<Slot>() + pointers <= budget::RTSP_SLOT, "{}", size_of::<Slot>());
    let share = Share::default();
    let code = AccessCode::new(CODE.as_bytes()).unwrap();
    let status = Rc::new(Status::new("", Port6000::Auto));
    let _service = share.during(|| Service::new(code, status, URL.try_into().unwrap(), 3));
    let lines =
        RTSP_BLOCKS.bytes(budget::FRAME_SLOT) + PLAYERS * budget::RTSP_SLOT + budget::RTSP_HUB;
    println!("the service: {} bytes of {lines}", share.now());
    assert!(share.now() <= lines);
}
