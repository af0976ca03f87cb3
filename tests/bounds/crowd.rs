//! A day with every slot of MQTT and of both cameras taken all the time by clients that are slow, stuck or come
//! and go, all in one process and in virtual time. By default the day has six hours; CI has 24 (`CROWD_HOURS`).

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget;
use pandaproxy::memory::heap;
use pandaproxy::service::Service as _;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::sleep;

use crate::bed::Bed;
use crate::clients::mqtt::{Client, Hello};
use crate::lan::{self, CODE, WIRE};
use crate::share::ran_apart;
use crate::{chamber, rtsp};
use printer::camera::Camera;
use printer::rtsp::Media;
use printer::{Model, Printer};

/// Hours unless `CROWD_HOURS` sets them.
const HOURS: usize = 6;

/// Hours before that, after which the simulated ends remember no more than they did.
const WARM: usize = 2;

/// A wire that holds less than a picture, and less than a full state.
const NARROW: usize = 512;

/// How a client behaves.
#[derive(Clone, Copy)]
enum Way {
    /// Reads nothing until it is disconnected, and reconnects.
    Stares,
    /// Reads a little every few seconds.
    Sips,
    /// Reads all of it.
    Drains,
    /// Reads for a minute, and closes the connection without a message.
    ComesAndGoes,
}

const WAYS: [Way; 4] = [Way::Stares, Way::Sips, Way::Drains, Way::ComesAndGoes];

impl Way {
    const fn wire(self) -> usize {
        match self {
            Self::Stares | Self::Sips => NARROW,
            Self::Drains | Self::ComesAndGoes => WIRE,
        }
    }

    /// Reads until it is disconnected, or its time is over.
    async fn take(self, mut stream: DuplexStream) {
        let mut room = vec![0; WIRE];
        match self {
            // A closed connection is noticed at the next write.
            Self::Stares => sleep(Duration::from_secs(120)).await,
            Self::Sips => {
                while stream.read(&mut room[..256]).await.is_ok_and(|len| len > 0) {
                    sleep(Duration::from_secs(4)).await;
                }
            }
            Self::Drains => while stream.read(&mut room).await.is_ok_and(|len| len > 0) {},
            Self::ComesAndGoes => {
                let all = async { while stream.read(&mut room).await.is_ok_and(|len| len > 0) {} };
                let _over = tokio::time::timeout(Duration::from_secs(60), all).await;
            }
        }
    }
}

#[test]
fn a_day_with_all_slots_taken_stays_within_the_budget() {
    if ran_apart() {
        return;
    }
    // What an earlier test has left: a backtrace of one that failed keeps 60 MB.
    let before = heap::held();
    lan::run(async {
        let printer = Printer::new(Model::P1S).deltas_every(Duration::from_secs(2));
        let bed = Bed::new();
        bed.plug_in(&printer);
        bed.live().await;
        let camera = Camera::new().code(CODE).every(Duration::from_secs(10));
        let studio = Rc::new(chamber::Studio::before(&camera));
        let film = lan::rtsp::showing(Media::made(1, 4, 6000, 2000));
        let theatre = Rc::new(rtsp::Studio::before(&film));
        // The buffers of simulated connections belong to neither end, so the whole process is measured.
        let most = Rc::new(Cell::new(0));
        let seen = Rc::clone(&most);
        spawn_local(async move {
            loop {
                seen.set(seen.get().max(heap::held().saturating_sub(before)));
                sleep(Duration::from_millis(100)).await;
            }
        });
        let hours = std::env::var("CROWD_HOURS").ok().map(|hours| hours.parse().unwrap());
        let hours: usize = hours.unwrap_or(HOURS);
        let mut held: Vec<usize> = Vec::with_capacity(WARM + hours);
        for _ in 0..WARM + hours {
            let mut there = JoinSet::new();
            for number in 0..BOARD.clients.mqtt {
                let (bed, way) = (Rc::clone(&bed), WAYS[number % WAYS.len()]);
                there.spawn_local(async move {
                    loop {
                        let mut client = Client::over(bed.wire(way.wire()));
                        let id = format!("crowd-{number}");
                        if client.connect(&Hello { id: &id, ..Hello::default() }).await == 0 {
                            client.subscribe(&[("#", 0)]).await;
                            way.take(client.into_stream()).await;
                        }
                        sleep(Duration::from_secs(1)).await;
                    }
                });
            }
            for number in 0..BOARD.clients.chamber {
                let (studio, way) = (Rc::clone(&studio), WAYS[number % WAYS.len()]);
                there.spawn_local(async move {
                    loop {
                        way.take(studio.viewer(way.wire()).await).await;
                        sleep(Duration::from_secs(1)).await;
                    }
                });
            }
            for number in 0..BOARD.clients.rtsp {
                let (theatre, way) = (Rc::clone(&theatre), WAYS[number % WAYS.len()]);
                there.spawn_local(async move {
                    loop {
                        way.take(theatre.stream(way.wire()).await).await;
                        sleep(Duration::from_secs(1)).await;
                    }
                });
            }
            sleep(Duration::from_secs(600)).await;
            let taken =
                [bed.service.clients(), studio.service.viewers(), theatre.service.players()];
            let places = [BOARD.clients.mqtt, BOARD.clients.chamber, BOARD.clients.rtsp];
            for (taken, places) in taken.into_iter().zip(places) {
                assert!(taken > places / 2, "{taken} of {places} slots are in use");
            }
            sleep(Duration::from_secs(2880)).await;
            there.shutdown().await;
            sleep(Duration::from_secs(120)).await;
            assert_eq!((studio.service.connections(), theatre.service.connections()), (0, 0));
            held.push(heap::held());
        }
        let (most, named) = (most.get(), budget::TOTAL);
        println!("{}: at most {most} bytes in {hours} hours, {named} are named", BOARD.name);
        println!("held after each hour: {held:?}");
        println!("stuck {}, lagged {}", journal::count(Kind::Stuck), journal::count(Kind::Lagged));
        assert!(most <= named);
        assert!(journal::count(Kind::Stuck) > 100, "stuck clients are disconnected");
        let day = &held[WARM..];
        let [least, most] = [day.iter().min(), day.iter().max()].map(Option::unwrap);
        assert!(most - least <= 1024, "{held:?}");
    });
}
