//! The relay over streams in memory and in virtual time, and over loopback where TCP itself matters.

use super::*;
use crate::config::PrinterAddr;
use crate::memory::MIB;
use crate::memory::budget::{RELAY_COMMANDS, RELAY_FILES};
use crate::runtime::files::records::tests::{client_hello, record};
use crate::runtime::net::Sockets;
use crate::runtime::test_runtime::{in_virtual_time, over_sockets};
use core::net::{Ipv4Addr, SocketAddr};
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

/// Bytes that are on the way in each direction of a wire.
const WIRE: usize = 1024;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// The client's end, the printer's end, and the relay between them.
fn wired(silence: Option<Duration>) -> (DuplexStream, DuplexStream, JoinHandle<Report>) {
    let (client, mut near) = duplex(WIRE);
    let (printer, mut far) = duplex(WIRE);
    let limits = Limits { silence, login: Counts::NONE, service: "ftp" };
    let relaying = spawn_local(async move {
        relay(&mut near, &mut far, &mut Buffers::new(WIRE), limits, |_| {}).await
    });
    (client, printer, relaying)
}

async fn exchange(speaker: &mut DuplexStream, listener: &mut DuplexStream, bytes: &[u8]) {
    speaker.write_all(bytes).await.unwrap();
    let mut received = vec![0; bytes.len()];
    listener.read_exact(&mut received).await.unwrap();
    assert_eq!(received, bytes);
}

#[test]
fn a_fin_is_passed_on_and_the_other_direction_stays_open() {
    in_virtual_time(async {
        for client_first in [true, false] {
            let (mut client, mut printer, relaying) = wired(None);
            let counted = || {
                [Count::FromClient, Count::ToPrinter, Count::FromPrinter, Count::ToClient]
                    .map(|count| counts::get("ftp", count))
            };
            let before = counted();
            exchange(&mut client, &mut printer, b"USER bblp\r\n").await;
            exchange(&mut printer, &mut client, b"331\r\n").await;
            let added = counted().into_iter().zip(before).map(|(now, before)| now - before);
            assert_eq!(added.collect::<Vec<_>>(), [11, 11, 5, 5]);
            let (first, last) = match client_first {
                true => (&mut client, &mut printer),
                false => (&mut printer, &mut client),
            };
            first.shutdown().await.unwrap();
            assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
            exchange(last, first, b"more").await;
            assert!(!relaying.is_finished());
            last.shutdown().await.unwrap();
            assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
            let (up, down) = if client_first { (11, 9) } else { (15, 5) };
            assert_eq!(relaying.await.unwrap(), Report { up, down, end: End::Finished });
        }
    });
}

#[test]
fn an_idle_session_is_never_closed() {
    in_virtual_time(async {
        let (mut client, mut printer, relaying) = wired(None);
        for _ in 0..7 {
            sleep(DAY).await;
            exchange(&mut client, &mut printer, b"NOOP\r\n").await;
            exchange(&mut printer, &mut client, b"200\r\n").await;
        }
        assert!(!relaying.is_finished());
    });
}

#[test]
fn a_silent_transfer_is_reset_at_its_timeout() {
    in_virtual_time(async {
        let (mut client, mut printer, relaying) = wired(Some(FILE_SILENCE_TIMEOUT));
        for _ in 0..3 {
            sleep(FILE_SILENCE_TIMEOUT - SECOND).await;
            exchange(&mut printer, &mut client, b"x").await;
        }
        let silent_since = Instant::now();
        let end = relaying.await.unwrap().end;
        assert_eq!(end, End::Silent(FILE_SILENCE_TIMEOUT));
        assert_eq!(silent_since.elapsed().as_secs(), FILE_SILENCE_TIMEOUT.as_secs());
    });
}

#[test]
fn a_peer_that_takes_nothing_for_a_minute_is_reset() {
    in_virtual_time(async {
        for stuck in [Side::Printer, Side::Client] {
            let (mut client, mut printer, relaying) = wired(None);
            let (speaker, listener) = match stuck {
                Side::Printer => (&mut client, &mut printer),
                Side::Client => (&mut printer, &mut client),
            };
            for _ in 0..3 {
                speaker.write_all(&[7; WIRE]).await.unwrap();
            }
            for _ in 0..5 {
                sleep(STALL_TIMEOUT - SECOND).await;
                assert!(!relaying.is_finished());
                // As a slow card does.
                listener.read_exact(&mut [0; 100]).await.unwrap();
            }
            let since = Instant::now();
            let report = relaying.await.unwrap();
            assert_eq!(report.end, End::Stalled(stuck));
            assert!(since.elapsed() <= STALL_TIMEOUT + SECOND, "{:?}", since.elapsed());
        }
    });
}

#[test]
fn a_half_closed_connection_is_reset_at_its_timeout() {
    in_virtual_time(async {
        for open in [Side::Printer, Side::Client] {
            let (mut client, mut printer, relaying) = wired(None);
            let closes = if open == Side::Printer { &mut client } else { &mut printer };
            closes.shutdown().await.unwrap();
            sleep(HALF_CLOSED_TIMEOUT - SECOND).await;
            assert!(!relaying.is_finished());
            assert_eq!(relaying.await.unwrap().end, End::LeftOpen(open));
        }
    });
}

#[test]
fn a_fast_sender_waits_for_a_slow_receiver() {
    in_virtual_time(async {
        let (mut client, mut printer, relaying) = wired(None);
        let mut sent = 0;
        while let Ok(written) = timeout(SECOND, client.write(&[7; 100])).await {
            sent += written.unwrap();
        }
        assert_eq!(sent, 3 * WIRE, "two wires and a buffer are full");
        let mut got = vec![0; sent];
        printer.read_exact(&mut got).await.unwrap();
        assert!(client.write(b"x").await.is_ok());
        assert!(!relaying.is_finished());
    });
}

// Over loopback.

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A relay before a printer that accepts whatever comes.
struct Bed {
    relay: Rc<Relay>,
    printer: TcpListener,
    acceptor: TcpListener,
}

impl Bed {
    fn new(sessions: usize) -> Self {
        let any = || Sockets.bind(SocketAddr::new(HOME, 0)).unwrap();
        let (printer, acceptor) = (any(), any());
        let port = printer.local_addr().unwrap().port();
        let relay = Relay::new(
            "ftp",
            Host::of(PrinterAddr::Ip(HOME)),
            port,
            sessions,
            RELAY_FILES,
            Counts::FTP,
        );
        Self { relay, printer, acceptor }
    }

    /// A client that has sent nothing: its end of the connection, and the task that serves it.
    async fn silent(&self, from: IpAddr) -> (TcpStream, JoinHandle<Outcome>) {
        let near = TcpStream::connect(self.acceptor.local_addr().unwrap()).await.unwrap();
        let (far, _) = self.acceptor.accept().await.unwrap();
        let relay = Rc::clone(&self.relay);
        let peer = Peer { service: "ftp", number: 1, address: from };
        let clock = Clock::start();
        (near, spawn_local(async move { relay.serve(&Sockets, far, peer, || {}, &clock).await }))
    }

    /// A client that has sent a ClientHello that ends with this name.
    async fn client(&self, from: IpAddr, name: u8) -> (TcpStream, JoinHandle<Outcome>) {
        let (mut near, serving) = self.silent(from).await;
        near.write_all(&client_hello(name)).await.unwrap();
        (near, serving)
    }

    /// The same, once the relay has put it into the queue.
    async fn queued(&self, from: IpAddr, name: u8) -> (TcpStream, JoinHandle<Outcome>) {
        let ticket = self.relay.tickets.get();
        let client = self.client(from, name).await;
        while self.relay.tickets.get() == ticket {
            tokio::task::yield_now().await;
        }
        client
    }

    /// The next client that reaches the printer, by its name.
    async fn at_printer(&self) -> (TcpStream, u8) {
        let (mut stream, _) = self.printer.accept().await.unwrap();
        let name = name_of(&mut stream).await;
        (stream, name)
    }
}

/// The name in a ClientHello that arrives.
async fn name_of(stream: &mut TcpStream) -> u8 {
    let mut hello = client_hello(0);
    stream.read_exact(&mut hello).await.unwrap();
    hello[hello.len() - 1]
}

fn is_reset(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn fifty_megabytes_in_each_direction_arrive_unchanged() {
    over_sockets(async {
        let bed = Bed::new(1);
        let mut state = 1_u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let (one, other): (Vec<u8>, Vec<u8>) =
            ((0..50 * MIB).map(|_| random()).collect(), (0..50 * MIB).map(|_| random()).collect());
        let sums = [digest(&SHA256, &one), digest(&SHA256, &other)];
        let (near, serving) = bed.client(HOME, b'x').await;
        let (far, first) = bed.at_printer().await;
        assert_eq!(first, b'x');
        let carry = async |stream: TcpStream, out: &[u8]| {
            let (mut from, mut to) = stream.into_split();
            let mut got = Vec::new();
            let say = async {
                to.write_all(out).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let ((), received) = tokio::join!(say, from.read_to_end(&mut got));
            received.unwrap();
            got
        };
        let (at_client, at_printer) = tokio::join!(carry(near, &one), carry(far, &other));
        assert_eq!(digest(&SHA256, &at_client).as_ref(), sums[1].as_ref());
        assert_eq!(at_printer, one);
        let (up, down) = ((one.len() + client_hello(0).len()) as u64, other.len() as u64);
        let report = Report { up, down, end: End::Finished };
        assert_eq!(serving.await.unwrap(), Outcome::Relayed(report));
    });
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    over_sockets(async {
        for by in [Side::Client, Side::Printer] {
            let bed = Bed::new(1);
            let (near, serving) = bed.client(HOME, b'x').await;
            let (far, _) = bed.at_printer().await;
            let (breaks, mut other) = if by == Side::Client { (near, far) } else { (far, near) };
            breaks.set_zero_linger().unwrap();
            drop(breaks);
            let mut got = vec![0; WIRE];
            let mut end = Ok(1);
            while matches!(end, Ok(more) if more > 0) {
                end = other.read(&mut got).await;
            }
            assert!(is_reset(end), "{by:?}");
            let Outcome::Relayed(report) = serving.await.unwrap() else { panic!() };
            assert_eq!(report.end, End::Lost(by, io::ErrorKind::ConnectionReset));
        }
    });
}

#[test]
fn the_end_of_the_program_resets_both_ends() {
    over_sockets(async {
        let bed = Bed::new(1);
        let (mut near, serving) = bed.client(HOME, b'a').await;
        let (mut far, _) = bed.at_printer().await;
        serving.abort();
        assert!(is_reset(near.read(&mut [0]).await));
        assert!(is_reset(far.read(&mut [0]).await));
    });
}

#[test]
fn a_client_without_a_hello_never_reaches_the_printer() {
    over_sockets(async {
        let mut bed = Bed::new(1);
        Rc::get_mut(&mut bed.relay).unwrap().hello_timeout = Duration::from_millis(50);
        let (_near, serving) = bed.silent(HOME).await;
        assert_eq!(serving.await.unwrap(), Outcome::Silent);
        Rc::get_mut(&mut bed.relay).unwrap().hello_timeout = HELLO_TIMEOUT;
        let _client = bed.client(HOME, b'b').await;
        assert_eq!(bed.at_printer().await.1, b'b', "the first that reaches the printer");
    });
}

#[test]
fn clients_over_the_limit_wait_and_are_served_in_order() {
    over_sockets(async {
        let bed = Bed::new(1);
        let mut clients = Vec::new();
        for name in b"abc" {
            clients.push(bed.queued(HOME, *name).await);
        }
        for name in b"abc" {
            let (far, first) = bed.at_printer().await;
            assert_eq!(first, *name);
            assert_eq!(bed.relay.connections_of(Origin::of(HOME)), 1);
            let (near, serving) = clients.remove(0);
            drop((near, far));
            serving.await.unwrap();
        }
        assert_eq!(bed.relay.connections_of(Origin::of(HOME)), 0);
        assert_eq!(bed.relay.buffers.borrow().len(), 1);
        assert!(bed.relay.queue.borrow().is_empty());
    });
}

#[test]
fn a_client_that_leaves_the_queue_never_reaches_the_printer() {
    over_sockets(async {
        let bed = Bed::new(1);
        let (near, serving) = bed.queued(HOME, b'a').await;
        let (far, _) = bed.at_printer().await;
        let (leaves, left) = bed.queued(HOME, b'b').await;
        let _stays = bed.queued(HOME, b'c').await;
        drop(leaves);
        assert_eq!(left.await.unwrap(), Outcome::Left);
        drop((near, far));
        serving.await.unwrap();
        assert_eq!(bed.at_printer().await.1, b'c');
    });
}

#[test]
fn one_address_cannot_have_all_sessions() {
    over_sockets(async {
        let bed = Bed::new(3);
        let mut there = Vec::new();
        for name in b"ab" {
            there.push((bed.queued(HOME, *name).await, bed.at_printer().await));
        }
        let _waits = bed.queued(HOME, b'c').await;
        let _overtakes = bed.queued(AWAY, b'd').await;
        assert_eq!(bed.at_printer().await.1, b'd');
        let ((near, _serving), (far, _)) = there.remove(0);
        drop((near, far));
        assert_eq!(bed.at_printer().await.1, b'c');
    });
}

#[test]
fn an_unreachable_printer_frees_the_session() {
    over_sockets(async {
        let Bed { relay, printer, acceptor } = Bed::new(1);
        let port = printer.local_addr().unwrap().port();
        drop(printer);
        let bed = Bed { relay, printer: Sockets.bind(SocketAddr::new(HOME, 0)).unwrap(), acceptor };
        for _ in 0..3 {
            let (mut near, serving) = bed.client(HOME, b'a').await;
            let outcome = Outcome::Unreachable(DialError::PortClosed { port });
            assert_eq!(serving.await.unwrap(), outcome);
            assert!(is_reset(near.read(&mut [0]).await));
        }
        assert_eq!(journal::count(Kind::PrinterLost), 3);
        assert_eq!(bed.relay.buffers.borrow().len(), 1);
        assert_eq!(bed.relay.connections_of(Origin::of(HOME)), 0);
    });
}

#[test]
fn silent_clients_leave_room_for_another_address() {
    over_sockets(async {
        let bed = Bed::new(1);
        let acceptor = Acceptor::new("ftp", Rc::default());
        let clock = Clock::start();
        for _ in 0..bed.relay.workers() {
            spawn_local(Rc::clone(&bed.relay).work(Sockets, Rc::clone(&acceptor), clock));
        }
        let at = bed.acceptor.local_addr().unwrap();
        let Bed { relay: _relay, printer, acceptor: listener } = bed;
        spawn_local(async move { acceptor.listen(&listener, &clock).await });
        let mut silent = Vec::new();
        for _ in 0..2 * BOARD.pre_auth {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(AWAY, 0)).unwrap();
        let mut speaks = socket.connect(at).await.unwrap();
        speaks.write_all(&client_hello(b'x')).await.unwrap();
        let (mut far, _) = printer.accept().await.unwrap();
        assert_eq!(name_of(&mut far).await, b'x');
    });
}

#[test]
fn a_relayed_client_frees_its_pre_auth_slot() {
    over_sockets(async {
        let sessions = BOARD.pre_auth_per_address + 2;
        let Bed { relay, printer, acceptor: listener } = Bed::new(sessions);
        let acceptor = Acceptor::new("tunnel", Rc::default());
        let clock = Clock::start();
        for _ in 0..relay.workers() {
            spawn_local(Rc::clone(&relay).work(Sockets, Rc::clone(&acceptor), clock));
        }
        let at = listener.local_addr().unwrap();
        spawn_local(async move { acceptor.listen(&listener, &clock).await });
        let mut there = Vec::new();
        // All that one address may have: more than it may have on the pre-auth slots.
        for _ in 0..sessions - 1 {
            let mut near = TcpStream::connect(at).await.unwrap();
            near.write_all(&client_hello(b'x')).await.unwrap();
            there.push((near, printer.accept().await.unwrap()));
        }
        assert_eq!(relay.connections_of(Origin::of(HOME)), sessions - 1);
    });
}

#[test]
fn a_relays_tasks_fit_their_budget() {
    let relay =
        Relay::new("ftp", Host::of(PrinterAddr::Ip(HOME)), 990, 1, RELAY_COMMANDS, Counts::FTP);
    let clock = in_virtual_time(async { Clock::start() });
    let work = Rc::clone(&relay).work(Sockets, Acceptor::new("ftp", Rc::default()), clock);
    let transfers = crate::runtime::files::relay_ports::Transfers::new(Sockets, relay);
    let carry = Rc::clone(&transfers).work(clock);
    let listens = transfers.listen(crate::runtime::data_ports::DataPorts::over(Vec::new()), clock);
    let sizes = [size_of_val(&work), size_of_val(&carry), size_of_val(&listens)];
    std::println!("{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= budget::TASK), "{sizes:?}");
}

#[test]
fn a_new_client_does_not_overtake_the_queue() {
    let relay =
        Relay::new("ftp", Host::of(PrinterAddr::Ip(HOME)), 990, 1, RELAY_COMMANDS, Counts::FTP);
    let peer = Peer { service: "ftp", number: 1, address: HOME };
    let clock = in_virtual_time(async { Clock::start() });
    let mut cx = Context::from_waker(core::task::Waker::noop());
    let (mut has, mut waits) =
        (pin!(relay.session(peer, &clock)), pin!(relay.session(peer, &clock)));
    let Poll::Ready(session) = has.as_mut().poll(&mut cx) else { panic!("it is free") };
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    drop(session);
    let mut newcomer = pin!(relay.session(peer, &clock));
    assert!(newcomer.as_mut().poll(&mut cx).is_pending());
    assert!(waits.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_client_with_half_a_hello_never_reaches_the_printer() {
    over_sockets(async {
        let mut bed = Bed::new(1);
        Rc::get_mut(&mut bed.relay).unwrap().hello_timeout = Duration::from_millis(50);
        let hello = client_hello(b'a');
        let (mut near, serving) = bed.silent(HOME).await;
        near.write_all(&hello[..hello.len() - 1]).await.unwrap();
        assert_eq!(serving.await.unwrap(), Outcome::Silent, "half a hello");
        let (mut near, serving) = bed.silent(HOME).await;
        near.write_all(b"USER bblp\r\n").await.unwrap();
        assert_eq!(serving.await.unwrap(), Outcome::Silent, "not TLS");
        let (mut near, serving) = bed.silent(HOME).await;
        near.write_all(&hello[..1]).await.unwrap();
        drop(near);
        assert_eq!(serving.await.unwrap(), Outcome::Left);
        Rc::get_mut(&mut bed.relay).unwrap().hello_timeout = HELLO_TIMEOUT;
        let (mut near, _serving) = bed.silent(HOME).await;
        for byte in hello {
            near.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(bed.at_printer().await.1, b'a');
    });
}

#[test]
fn a_session_without_a_login_is_reset() {
    in_virtual_time(async {
        for (up, down, is_login) in [(0, 0, false), (1, 3, false), (2, 2, false), (2, 3, true)] {
            let (mut client, mut near) = duplex(WIRE);
            let (mut printer, mut far) = duplex(WIRE);
            let relaying = spawn_local(async move {
                let limits = Limits { silence: None, login: Counts::FTP, service: "ftp" };
                relay(&mut near, &mut far, &mut Buffers::new(WIRE), limits, |_| {}).await
            });
            let lines = |lines| {
                let mut bytes = [record(20, 1), record(22, 40)].concat();
                (0..lines).for_each(|_| bytes.extend(record(23, 30)));
                bytes
            };
            exchange(&mut client, &mut printer, &lines(up)).await;
            exchange(&mut printer, &mut client, &lines(down)).await;
            sleep(LOGIN_TIMEOUT - SECOND).await;
            assert!(!relaying.is_finished());
            sleep(2 * SECOND).await;
            assert_eq!(relaying.is_finished(), !is_login, "{up} and {down} records");
            if !is_login {
                assert_eq!(relaying.await.unwrap().end, End::NoLogin);
            }
        }
    });
}

#[test]
fn a_full_relay_names_the_addresses_in_its_log_line() {
    let since = crate::clock::Instant::START;
    let active = [HOME, AWAY].map(|address| {
        let occupant = Occupant { peer: Peer { address, ..Peer::unknown() }, since };
        Active { ticket: 1, occupant, counts: Counts::NONE, active_at: since }
    });
    let line = alloc::format!("{}", Full { active: &active, times: 3 });
    assert_eq!(line, "waiting: all sessions are in use by 127.0.0.1, 127.0.0.2 (seen 3 times)");
}
