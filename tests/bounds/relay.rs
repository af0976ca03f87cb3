//! Relay mode, over loopback: all sessions, the line and all transfers full, and what that holds.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::config::Host;
use pandaproxy::memory::budget::{
    self, DATA_PORT, DATA_PORTS, INSTEAD, RELAY_COMMANDS, RELAY_FILES, RELAY_SESSIONS, TRANSFERS,
};
use pandaproxy::memory::heap;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::data_ports::{Openings, Transfers};
use pandaproxy::runtime::listen::{Door, bind};
use pandaproxy::runtime::relay::Relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::share::{Share, alone};

/// Transfers, one after the other.
const TRIES: usize = 200;

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(100), test).await }).unwrap()
}

/// What the lines allow that stand in place of those which begin so.
fn allowed(of: &str) -> usize {
    let instead = INSTEAD.iter().find(|instead| instead.of == of).unwrap();
    instead.lines.iter().map(|line| line.count * line.each).sum()
}

async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).unwrap();
    socket.connect(to).await.unwrap()
}

fn any() -> TcpListener {
    bind(SocketAddr::from((HOME, 0))).unwrap()
}

/// A relay as `runtime::files` opens it, before a printer that only takes connections.
struct Bed {
    share: Share,
    commands: TcpListener,
    data: TcpListener,
    /// Where clients come to, and where their transfers do.
    at: SocketAddr,
    data_at: SocketAddr,
}

impl Bed {
    /// With as many data ports as there can be.
    fn new() -> Self {
        let (commands, data) = (any(), any());
        let (clock, share) = (Clock::start(), Share::default());
        let port = commands.local_addr().unwrap().port();
        let data_port = data.local_addr().unwrap().port();
        let (control, transfers) = share.during(|| {
            let host = Host::Ip(HOME.into());
            let control = Relay::new("ftp", host, port, RELAY_SESSIONS, RELAY_COMMANDS);
            (Rc::clone(&control), Transfers::new(control))
        });
        let listener = any();
        let at = listener.local_addr().unwrap();
        let listeners: Vec<_> =
            share.during(|| (0..DATA_PORTS).map(|_| (any(), data_port)).collect());
        let data_at = listeners[0].0.local_addr().unwrap();
        let openings = Openings::over(listeners);
        let door = share.during(|| Door::new("ftp", Rc::default()));
        for _ in 0..control.workers() {
            spawn_local(share.of(Rc::clone(&control).work(Rc::clone(&door), clock)));
        }
        for _ in 0..TRANSFERS {
            spawn_local(share.of(Rc::clone(&transfers).work(clock)));
        }
        spawn_local(share.of(transfers.listen(openings, clock)));
        spawn_local(share.of(async move { door.listen(&listener, &clock).await }));
        Self { share, commands, data, at, data_at }
    }
}

/// Says one byte, and then as much as anybody takes without reading any.
async fn flood(stream: &mut TcpStream) {
    stream.write_all(b"x").await.unwrap();
    let flooding = async { while stream.write_all(&[b'x'; 65536]).await.is_ok() {} };
    let _full = timeout(Duration::from_millis(300), flooding).await;
}

#[test]
fn a_relay_with_all_sessions_the_line_and_all_transfers_full_stays_within_its_lines() {
    let _alone = alone();
    run(async {
        let bed = Bed::new();
        let at_start = bed.share.now();
        let mut there = Vec::new();
        // Three sessions are the most that one address may have.
        for n in 0..RELAY_SESSIONS {
            let mut near = connect(if n + 1 < RELAY_SESSIONS { 2 } else { 3 }, bed.at).await;
            near.write_all(b"x").await.unwrap();
            let mut far = bed.commands.accept().await.unwrap().0;
            flood(&mut near).await;
            flood(&mut far).await;
            there.extend([near, far]);
        }
        for n in 0..BOARD.doorstep + budget::WAITING {
            let mut waits = connect(10 + u8::try_from(n).unwrap(), bed.at).await;
            waits.write_all(b"x").await.unwrap();
            there.push(waits);
        }
        for n in 0..2 * TRANSFERS {
            let mut near =
                connect(if n < 2 * (RELAY_SESSIONS - 1) { 2 } else { 3 }, bed.data_at).await;
            if n < TRANSFERS {
                let mut far = bed.data.accept().await.unwrap().0;
                flood(&mut near).await;
                flood(&mut far).await;
                there.push(far);
            }
            there.push(near);
        }
        let lines = allowed("ftp ") + budget::WAITING * budget::ARRIVAL;
        let peak = bed.share.peak();
        println!("relay: {at_start} bytes at the start, at most {peak}; its lines allow {lines}");
        assert!(peak > at_start, "something was held");
        assert!(peak <= lines);
    });
}

#[test]
fn transfers_leave_nothing_behind() {
    let _alone = alone();
    run(async {
        let bed = Bed::new();
        let mut control = connect(2, bed.at).await;
        control.write_all(b"x").await.unwrap();
        let _far = bed.commands.accept().await.unwrap();
        let mut held = Vec::with_capacity(TRIES);
        for _ in 0..TRIES {
            let mut near = connect(2, bed.data_at).await;
            let mut far = bed.data.accept().await.unwrap().0;
            near.write_all(&[7; 50_000]).await.unwrap();
            near.shutdown().await.unwrap();
            let mut got = Vec::with_capacity(50_001);
            far.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), 50_000);
            far.shutdown().await.unwrap();
            assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
            drop((near, far, got));
            held.push(heap::held());
        }
        println!("held after each transfer: {held:?}");
        // tokio gives back what it had of sockets in batches, and not from their own tasks: of all that
        // is held here, both ends of each wire with it, the most is the same in the end as before.
        let (before, after) = held.split_at(TRIES / 2);
        assert!(after.iter().max() <= before.iter().max(), "{held:?}");
    });
}

#[test]
fn each_thing_of_a_relay_is_as_large_as_its_line_says() {
    let _alone = alone();
    run(async {
        let share = Share::default();
        let listeners: Vec<_> = share.during(|| (0..DATA_PORTS).map(|_| (any(), 0_u16)).collect());
        let each = share.now().div_ceil(DATA_PORTS);
        println!("a data port: {each} bytes of {DATA_PORT}");
        assert!(each <= DATA_PORT);
        drop(listeners);
        let share = Share::default();
        let host = Host::Ip(HOME.into());
        let tunnel = || Relay::new("tunnel", host, 6000, budget::TUNNELS, RELAY_FILES);
        let _tunnel = share.during(tunnel);
        let line = budget::TUNNELS * 2 * RELAY_FILES + budget::RELAY;
        println!("a tunnel's relay: {} bytes of {line}", share.now());
        assert!(share.now() <= line);
    });
}
