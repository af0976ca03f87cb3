//! The printer's data ports, each behind the same port of this machine.
//!
//! In a relay nobody here reads which port the printer names for the next transfer, so all that it may
//! name are open (PROTOCOL §5.5). One task looks after all the listeners; a few others carry what
//! comes.
//!
//! A stranger who finds an open port is not let through to the printer: only an address that has a
//! control connection right now may have a transfer, and two for each such connection, since one may
//! still be ending while the next begins.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | ports | [`DATA_PORTS`] | refused where they are configured |
//! | transfers carried at once | [`TRANSFERS`] | wait: [`TRANSFERS`] here, the others in the kernel |
//! | transfers of one address | two for each of its control connections | closed |
//! | a transfer of which nothing moves | [`FILE_SILENCE`], [`STALL`](super::relay::STALL) | reset |

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::task::Poll;
use std::io;

use tokio::sync::Notify;

use super::relay::{Buffers, COUNTS, FILE_SILENCE, Relay, carry, dial};
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{self, DATA_PORTS, RELAY_FILES, TRANSFERS};
use crate::memory::ring::Ring;
use crate::peer::Peer;
use crate::runtime::Clock;
use crate::runtime::accept::{AFTER_FAILURE, is_of_the_peer};
use crate::runtime::net::{Listener, Net, Sockets};
use crate::runtime::stream::tune_relay;

/// Listeners, each with the printer's port that it stands for.
pub struct Openings<N: Net = Sockets> {
    listeners: Vec<(N::Listener, u16)>,
    /// Whose turn it is to be looked at first.
    next: usize,
}

impl<N: Net> Openings<N> {
    /// Listens on each port of `ranges`. Those that cannot be had are left out, and said in the log.
    ///
    /// # Errors
    ///
    /// None of them can be had; or there are more than [`DATA_PORTS`].
    pub fn bind(net: &N, address: IpAddr, ranges: &[RangeInclusive<u16>]) -> io::Result<Self> {
        let count = ranges.iter().map(ExactSizeIterator::len).sum();
        if count > DATA_PORTS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut listeners = Vec::with_capacity(count);
        let mut skipped = heapless::Vec::<u16, DATA_PORTS>::new();
        let mut why = None;
        for port in ranges.iter().cloned().flatten() {
            match net.bind(SocketAddr::new(address, port)) {
                Ok(listener) => listeners.push((listener, port)),
                Err(error) => {
                    why = Some(error);
                    // It fits: there are no more ports than that.
                    let _fits = skipped.push(port);
                }
            }
        }
        match why {
            Some(why) if listeners.is_empty() => return Err(why),
            Some(why) => journal::note(
                Kind::Refused,
                format_args!(
                    "ftp: data ports {} cannot be had ({}): a transfer for which the printer names \
                     one of them fails",
                    Runs(&skipped),
                    why.kind()
                ),
            ),
            None => {}
        }
        Ok(Self::over(listeners))
    }

    /// These listeners, each for a port of the printer.
    pub const fn over(listeners: Vec<(N::Listener, u16)>) -> Self {
        Self { listeners, next: 0 }
    }

    /// The printer's ports that are open here.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.listeners.iter().map(|(_, port)| *port)
    }

    /// The next connection, from whom, and for which port of the printer. No port can keep another
    /// waiting: each call begins behind the one that was served last.
    ///
    /// # Errors
    ///
    /// A connection could not be accepted.
    pub async fn accept(&mut self) -> io::Result<(N::Connection, SocketAddr, u16)> {
        poll_fn(|cx| {
            let count = self.listeners.len();
            let (first, last) = self.listeners.split_at(self.next.min(count));
            for (at, (listener, port)) in
                last.iter().chain(first).enumerate().map(|(at, one)| (self.next + at, one))
            {
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    self.next = (at + 1) % count;
                    return Poll::Ready(accepted.map(|(stream, from)| (stream, from, *port)));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Ports as a person lists them: `2024, 2030-2031`.
struct Runs<'p>(&'p [u16]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|port, next| port.checked_add(1) == Some(*next));
        for (at, run) in runs.enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            match run {
                [] => {}
                [only] => write!(f, "{only}")?,
                [first, .., last] => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A transfer that waits for somebody to carry it.
struct Arrival<N: Net> {
    stream: N::Connection,
    port: u16,
    peer: Peer,
    held: Held,
}

/// The transfers that belong to the control connections of one relay.
pub struct Transfers<N: Net = Sockets> {
    net: N,
    control: Rc<Relay>,
    waiting: RefCell<Ring<Arrival<N>, TRANSFERS>>,
    /// Whose transfers there are, waiting or carried.
    of: Rc<Whose>,
    came: Notify,
    taken: Notify,
    numbers: Cell<u32>,
    strangers: RateLimit,
    crowds: RateLimit,
    troubles: RateLimit,
    /// The printer's port did not answer.
    deaf: RateLimit,
}

const _: () = assert!(
    size_of::<Transfers<Sockets>>() + size_of::<Whose>() + 2 * COUNTS <= budget::RELAY,
    "the transfers of a relay are larger than their line"
);

/// The addresses whose transfers there are, once for each.
type Whose = RefCell<heapless::Vec<IpAddr, { 2 * TRANSFERS }>>;

/// One transfer of an address, for as long as this lives.
struct Held {
    of: Rc<Whose>,
    address: IpAddr,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut of = self.of.borrow_mut();
        if let Some(at) = of.iter().position(|held| *held == self.address) {
            of.swap_remove(at);
        }
    }
}

impl<N: Net> Transfers<N> {
    /// No transfers yet, for those who are in `control`.
    pub fn new(net: N, control: Rc<Relay>) -> Rc<Self> {
        Rc::new(Self {
            net,
            control,
            waiting: RefCell::default(),
            of: Rc::default(),
            came: Notify::new(),
            taken: Notify::new(),
            numbers: Cell::new(0),
            strangers: RateLimit::default(),
            crowds: RateLimit::default(),
            troubles: RateLimit::default(),
            deaf: RateLimit::default(),
        })
    }

    /// Accepts transfers for ever, none while there are as many in waiting as may be: the body of one
    /// task.
    pub async fn listen(self: Rc<Self>, mut openings: Openings<N>, clock: Clock) {
        loop {
            while self.waiting.borrow().is_full() {
                self.taken.notified().await;
            }
            match openings.accept().await {
                Ok((stream, from, port)) => {
                    self.arrive(stream, from.ip().to_canonical(), port, &clock);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if let Some(times) = self.troubles.check(clock.now()) {
                        journal::note(
                            Kind::Refused,
                            format_args!("ftp: cannot accept a transfer: {error} ({times})"),
                        );
                    }
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn arrive(&self, stream: N::Connection, address: IpAddr, port: u16, clock: &Clock) {
        let controls = self.control.connections_of(address);
        let has = self.of.borrow().iter().filter(|held| **held == address).count();
        if has >= 2 * controls {
            let seldom = if controls == 0 { &self.strangers } else { &self.crowds };
            let Some(times) = seldom.check(clock.now()) else {
                return journal::tally(Kind::Refused);
            };
            return match controls {
                0 => journal::note(
                    Kind::Refused,
                    format_args!(
                        "ftp: {address} comes to data port {port} and has no control connection \
                         ({times})"
                    ),
                ),
                _ => journal::note(
                    Kind::Refused,
                    format_args!(
                        "ftp: {address} has {has} transfers already, two for each control \
                         connection ({times})"
                    ),
                ),
            };
        }
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        // It fits: as many may wait as may be carried, and there is room for both.
        let _fits = self.of.borrow_mut().push(address);
        let held = Held { of: Rc::clone(&self.of), address };
        let peer = Peer { service: "ftp data", number, address };
        // It fits: nothing is accepted while it would not.
        let _fits = self.waiting.borrow_mut().push(Arrival { stream, port, peer, held });
        self.came.notify_one();
    }

    /// Carries one transfer after another: the body of one of [`TRANSFERS`] tasks.
    pub async fn work(self: Rc<Self>, clock: Clock) {
        let mut buffers = Buffers::new(RELAY_FILES);
        loop {
            let arrival = self.next().await;
            self.carry(arrival, &mut buffers, &clock).await;
        }
    }

    async fn next(&self) -> Arrival<N> {
        loop {
            let arrival = self.waiting.borrow_mut().pop();
            if let Some(arrival) = arrival {
                self.taken.notify_one();
                return arrival;
            }
            self.came.notified().await;
        }
    }

    async fn carry(&self, arrival: Arrival<N>, buffers: &mut Buffers, clock: &Clock) {
        let Arrival { mut stream, port, peer, held } = arrival;
        // A client that is gone is seen by the relay; a printer that waits for it must hear of it.
        let _gone = tune_relay(&stream);
        match dial(&self.net, self.control.host(), port).await {
            Ok(mut printer) => {
                carry(&mut stream, &mut printer, peer, buffers, Some(FILE_SILENCE), clock).await;
            }
            Err(error) => match self.deaf.check(clock.now()) {
                Some(times) => journal::note(
                    Kind::PrinterLost,
                    format_args!("{peer}: data port {port}: {error} ({times})"),
                ),
                None => journal::tally(Kind::PrinterLost),
            },
        }
        drop(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrinterAddr;
    use crate::memory::budget::RELAY_COMMANDS;
    use alloc::format;
    use core::net::Ipv4Addr;
    use core::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;
    use tokio::time::timeout;

    const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(100), test).await }).unwrap()
    }

    /// A port of the printer, and one of ours that stands for it.
    struct Bed {
        control: Rc<Relay>,
        transfers: Rc<Transfers>,
        /// Where the printer has its data port, and where its control port.
        data: TcpListener,
        commands: TcpListener,
        at: SocketAddr,
        clock: Clock,
    }

    impl Bed {
        fn new() -> Self {
            let any = || Sockets.bind(SocketAddr::from((HOME, 0))).unwrap();
            let (data, commands, ours) = (any(), any(), any());
            let at = ours.local_addr().unwrap();
            let clock = Clock::start();
            let port = commands.local_addr().unwrap().port();
            let control = Relay::new("ftp", PrinterAddr::Ip(HOME.into()), port, 4, RELAY_COMMANDS);
            let transfers = Transfers::new(Sockets, Rc::clone(&control));
            let openings = Openings::over(Vec::from([(ours, data.local_addr().unwrap().port())]));
            spawn_local(Rc::clone(&transfers).listen(openings, clock));
            for _ in 0..TRANSFERS {
                spawn_local(Rc::clone(&transfers).work(clock));
            }
            Self { control, transfers, data, commands, at, clock }
        }

        /// A control connection from `from`: the client's end and the printer's.
        async fn control_from(&self, from: Ipv4Addr) -> (TcpStream, TcpStream) {
            let acceptor = Sockets.bind(SocketAddr::from((HOME, 0))).unwrap();
            let mut near = connect(from, acceptor.local_addr().unwrap()).await;
            let (far, _) = acceptor.accept().await.unwrap();
            near.write_all(b"!").await.unwrap();
            let (relay, clock) = (Rc::clone(&self.control), self.clock);
            let peer = Peer { service: "ftp", number: 1, address: from.into() };
            spawn_local(async move { relay.serve(&Sockets, far, peer, || {}, &clock).await });
            let (printer, _) = self.commands.accept().await.unwrap();
            (near, printer)
        }

        async fn transfer_from(&self, from: Ipv4Addr) -> TcpStream {
            connect(from, self.at).await
        }
    }

    async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        matches!(stream.read(&mut [0]).await, Ok(0) | Err(_))
    }

    #[test]
    fn a_transfer_is_carried_for_an_address_with_a_control_connection_and_for_no_other() {
        run(async {
            let bed = Bed::new();
            let _control = bed.control_from(HOME).await;
            let mut foreign = bed.transfer_from(AWAY).await;
            assert!(is_closed(&mut foreign).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            let mut near = bed.transfer_from(HOME).await;
            // The first to reach the printer is not the stranger.
            let (mut printer, _) = bed.data.accept().await.unwrap();
            near.write_all(b"a picture").await.unwrap();
            near.shutdown().await.unwrap();
            let mut got = Vec::new();
            printer.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"a picture");
            drop(printer);
            assert!(is_closed(&mut near).await);
        });
    }

    #[test]
    fn once_the_control_connection_is_gone_so_is_the_right_to_a_transfer() {
        run(async {
            let bed = Bed::new();
            drop(bed.control_from(HOME).await);
            while bed.control.connections_of(HOME.into()) > 0 {
                tokio::task::yield_now().await;
            }
            assert!(is_closed(&mut bed.transfer_from(HOME).await).await);
        });
    }

    #[test]
    fn an_address_has_two_transfers_for_each_control_connection_and_is_told_of_no_third() {
        run(async {
            let bed = Bed::new();
            let _control = bed.control_from(HOME).await;
            let mut held = Vec::new();
            for _ in 0..2 {
                held.push((bed.transfer_from(HOME).await, bed.data.accept().await.unwrap()));
            }
            assert!(is_closed(&mut bed.transfer_from(HOME).await).await);
            // One ends, and there is room for another.
            held.remove(0);
            while bed.transfers.of.borrow().len() > 1 {
                tokio::task::yield_now().await;
            }
            let _another = bed.transfer_from(HOME).await;
            bed.data.accept().await.unwrap();
        });
    }

    #[test]
    fn transfers_past_those_that_are_carried_wait_and_are_carried_later() {
        run(async {
            let bed = Bed::new();
            let mut controls = Vec::new();
            for _ in 0..3 {
                controls.push(bed.control_from(HOME).await);
            }
            controls.push(bed.control_from(AWAY).await);
            let mut near = Vec::new();
            for _ in 0..TRANSFERS + 2 {
                near.push(bed.transfer_from(HOME).await);
            }
            let mut far = Vec::new();
            for _ in 0..TRANSFERS {
                far.push(bed.data.accept().await.unwrap().0);
            }
            while bed.transfers.waiting.borrow().len() < 2 {
                tokio::task::yield_now().await;
            }
            drop((near.remove(0), far.remove(0)));
            far.push(bed.data.accept().await.unwrap().0);
            assert_eq!(bed.transfers.waiting.borrow().len(), 1);
        });
    }

    #[test]
    fn a_transfer_that_the_printer_does_not_take_is_reset() {
        run(async {
            let Bed { control, transfers, data, commands, at, clock } = Bed::new();
            drop(data);
            let bed = Bed {
                control,
                transfers,
                data: Sockets.bind(SocketAddr::from((HOME, 0))).unwrap(),
                commands,
                at,
                clock,
            };
            let _control = bed.control_from(HOME).await;
            let mut near = bed.transfer_from(HOME).await;
            let error = near.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(journal::count(Kind::PrinterLost), 1);
        });
    }

    #[test]
    fn a_port_that_another_program_holds_is_left_out_and_said() {
        run(async {
            // Ten ports in a row of which the first is taken; others may be, on a busy machine.
            let (taken, port) = loop {
                let taken = std::net::TcpListener::bind((HOME, 0)).unwrap();
                let port = taken.local_addr().unwrap().port();
                if port < u16::MAX - 10 {
                    break (taken, port);
                }
            };
            let openings = Openings::bind(&Sockets, HOME.into(), &[port..=port + 9]).unwrap();
            assert!(openings.ports().all(|open| open != port));
            assert!(openings.ports().count() > 0);
            let mut text = alloc::string::String::new();
            journal::write_to(&mut text).unwrap();
            assert!(text.contains(&format!("data ports {port}")), "{text}");
            assert!(Openings::bind(&Sockets, HOME.into(), &[port..=port]).is_err(), "none is left");
            drop(taken);
        });
    }

    #[test]
    fn more_ports_than_there_may_be_are_refused() {
        let most = u16::try_from(DATA_PORTS).unwrap();
        let refused = Openings::bind(&Sockets, HOME.into(), &[50_000..=50_000 + most]);
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn every_port_has_its_turn_however_busy_another_is() {
        run(async {
            let listeners: Vec<_> = (0..101)
                .map(|n| (Sockets.bind(SocketAddr::from((HOME, 0))).unwrap(), 50_000 + n))
                .collect();
            let at = |n: usize| listeners[n].0.local_addr().unwrap();
            let (busy, last) = (at(0), at(100));
            let mut openings = Openings::<Sockets>::over(listeners);
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(connect(HOME, busy).await);
            }
            clients.push(connect(HOME, last).await);
            let mut ports = Vec::new();
            for _ in 0..9 {
                ports.push(openings.accept().await.unwrap().2);
            }
            assert_eq!(ports.iter().filter(|port| **port == 50_100).count(), 1);
            assert_ne!(ports[8], 50_100, "it came last and was not served last: {ports:?}");
        });
    }

    #[test]
    fn ports_are_listed_as_a_person_would() {
        assert_eq!(format!("{}", Runs(&[2024, 2030, 2031, 2032, 2040])), "2024, 2030-2032, 2040");
    }
}
