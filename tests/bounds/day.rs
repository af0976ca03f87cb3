//! A day of printing leaves nothing behind: not a byte.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::heap;
use pandaproxy::service::Service as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::bed::Bed;
use crate::clients::mqtt::{Client, Hello, publish_bytes};
use crate::lan::{self, WIRE};
use crate::share::ran_apart;
use printer::{Model, Printer};

const HOURS: usize = 24;
const HOUR: Duration = Duration::from_secs(3600);

/// Time after which clients were disconnected because the printer is off, and all tasks are idle.
const QUIET: Duration = Duration::from_secs(90);

/// Each hour ends with the printer off and all clients disconnected, so that only the proxy's allocations are counted.
/// The held memory has to be the same after every hour.
#[test]
fn a_day_of_printing_leaves_nothing_behind() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let bed = Bed::new();
        let mut held = [0; HOURS];
        for held in &mut held {
            hour(&bed).await;
            assert_eq!((bed.service.connections(), bed.service.is_live()), (0, false));
            *held = heap::held();
        }
        println!("held after each hour: {held:?}");
        for kind in [
            Kind::Lagged,
            Kind::Left,
            Kind::Stuck,
            Kind::Malformed,
            Kind::WrongCode,
            Kind::PrinterLost,
            Kind::RequestForwarded,
            Kind::RequestRefused,
        ] {
            println!("{}: {}", kind.name(), journal::count(kind));
            assert!(journal::count(kind) > 0, "{} belongs to a day", kind.name());
        }
        assert_eq!(held, [held[0]; HOURS], "nothing is kept from one hour to the next");
    });
}

async fn hour(bed: &Rc<Bed>) {
    let printer = Printer::new(Model::P1S);
    bed.plug_in(&printer);
    bed.live().await;
    let end = Instant::now() + HOUR;
    let mut people = JoinSet::new();
    let topic: Rc<str> = printer.request_topic().into();
    for n in 0..3 {
        people.spawn_local(timeout_at(end, watches(Rc::clone(bed), n)));
    }
    for n in 0..2 {
        people.spawn_local(timeout_at(end, watches_slowly(Rc::clone(bed), n)));
        people.spawn_local(timeout_at(end, stares(Rc::clone(bed), n)));
    }
    for n in 0..3 {
        people.spawn_local(timeout_at(end, comes_and_goes(Rc::clone(bed), Rc::clone(&topic), n)));
    }
    people.spawn_local(timeout_at(end, guesses(Rc::clone(bed))));
    sleep(HOUR / 2).await;
    printer.reboot(Duration::from_secs(70));
    while people.join_next().await.is_some() {}
    bed.unplug();
    drop(printer);
    sleep(QUIET).await;
}

/// A dashboard: reads everything, and reconnects when it is disconnected.
async fn watches(bed: Rc<Bed>, n: usize) {
    loop {
        if let Some(client) = let_in(&bed, &format!("watches-{n}"), WIRE).await {
            drain(client.into_stream()).await;
        }
        sleep(Duration::from_secs(3)).await;
    }
}

/// A phone on weak Wi-Fi: reads 256 bytes every three seconds.
async fn watches_slowly(bed: Rc<Bed>, n: usize) {
    loop {
        if let Some(client) = let_in(&bed, &format!("slow-{n}"), 1024).await {
            let mut stream = client.into_stream();
            let mut taken = [0; 256];
            while stream.read(&mut taken).await.is_ok_and(|len| len > 0) {
                sleep(Duration::from_secs(3)).await;
            }
        }
        sleep(Duration::from_secs(3)).await;
    }
}

/// A laptop that falls asleep: subscribes and never reads again.
async fn stares(bed: Rc<Bed>, n: usize) {
    loop {
        let client = let_in(&bed, &format!("stares-{n}"), 512).await;
        sleep(Duration::from_secs(120)).await;
        drop(client);
    }
}

/// A slicer: requests the state, sends commands, and disconnects, in order or not.
async fn comes_and_goes(bed: Rc<Bed>, topic: Rc<str>, n: u16) {
    for visit in 0u16.. {
        if let Some(mut client) = let_in(&bed, &format!("slicer-{n}"), WIRE).await {
            for (id, payload) in (1..).zip([
                &br#"{"pushing":{"sequence_id":"7","command":"pushall"}}"#[..],
                br#"{"info":{"sequence_id":"8","command":"get_version"}}"#,
                br#"{"print":{"sequence_id":"9","command":"gcode_line","param":"M105"}}"#,
                br#"{"print":{"sequence_id":"10","command":"pause"}}"#,
            ]) {
                let flags = u8::try_from(((visit + id) % 3) << 1).unwrap();
                // It may have been sent away meanwhile.
                let _gone = client.send(&publish_bytes(&topic, payload, flags, id)).await;
            }
            let stay = Instant::now() + Duration::from_secs(20 + 7 * u64::from(n));
            let mut stream = client.into_stream();
            let mut more = 5;
            // An order every few seconds, also while the printer restarts.
            while timeout_at(stay.min(Instant::now() + Duration::from_secs(4)), drain(&mut stream))
                .await
                .is_err()
                && Instant::now() < stay
            {
                let order = br#"{"print":{"sequence_id":"11","command":"resume"}}"#;
                let order = publish_bytes(&topic, order, 2, more);
                if stream.write_all(&order).await.is_err() {
                    break;
                }
                more += 1;
            }
            match visit % 3 {
                0 => Client::over(stream).disconnect().await,
                1 => _ = Client::over(stream).send(b"\x00\x00").await,
                _ => drop(stream),
            }
        }
        sleep(Duration::from_secs(40)).await;
    }
}

/// A client with an old access code.
async fn guesses(bed: Rc<Bed>) {
    loop {
        let mut client = Client::over(bed.wire(WIRE));
        let hello = Hello { id: "guesses", password: Some(b"87654321"), ..Hello::default() };
        assert_eq!(client.connect(&hello).await, 5);
        sleep(Duration::from_secs(60)).await;
    }
}

/// A subscriber, unless the printer is off.
async fn let_in(bed: &Bed, id: &str, wire: usize) -> Option<Client<tokio::io::DuplexStream>> {
    let mut client = Client::over(bed.wire(wire));
    if client.connect(&Hello { id, ..Hello::default() }).await != 0 {
        return None;
    }
    client.subscribe(&[("#", 0)]).await;
    Some(client)
}

async fn drain(mut stream: impl AsyncRead + Unpin) {
    let mut taken = vec![0; WIRE];
    while stream.read(&mut taken).await.is_ok_and(|len| len > 0) {}
}
