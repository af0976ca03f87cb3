//! Data ports of a relay: each of the printer's data ports is open under the same number on this machine.
//!
//! A relay cannot read which port the printer names for the next transfer, so all ports that it may name are open
//! ([protocol](crate::protocol#ftps)). One task accepts for all listeners; a few others carry the transfers.
//!
//! The printer has one listener for each transfer and takes the first connection to it. So a connection is passed on only
//! if its address has a session that is logged in and was used within the last minute
//! ([`Relay::has_recent_login`]); otherwise any machine could take another client's transfer away.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | ports | [`DATA_PORTS`](budget::DATA_PORTS) | refused by the configuration |
//! | transfers carried at once | [`TRANSFERS`] | wait: [`TRANSFERS`] here, more in the kernel |
//! | of those, from one [`Origin`] | all but one | wait for one of the origin's own |
//! | transfers of one origin | two for each of its sessions | closed |
//! | silence of a transfer | [`FILE_SILENCE_TIMEOUT`](super::relay::FILE_SILENCE_TIMEOUT), [`STALL_TIMEOUT`](super::relay::STALL_TIMEOUT) | reset |

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::net::IpAddr;

use tokio::sync::Notify;

use super::relay::{Buffers, Limits, Relay, Seen, carry, dial};
use crate::counts::{self, Count};
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{self, RELAY_FILES, TRANSFERS};
use crate::memory::pool::RC_COUNTS;
use crate::memory::ring::Ring;
use crate::peer::{Origin, Peer};
use crate::runtime::Clock;
use crate::runtime::accept::{RETRY_INTERVAL, is_of_the_peer};
use crate::runtime::data_ports::DataPorts;
use crate::runtime::net::{Net, Sockets};
use crate::runtime::stream::tune_relay;

/// A connection to a data port that waits for a task.
struct Arrival<N: Net> {
    stream: N::Connection,
    port: u16,
    peer: Peer,
    counted: Counted,
}

/// The transfers of one relay's sessions.
pub struct Transfers<N: Net = Sockets> {
    net: N,
    control: Rc<Relay>,
    waiting: RefCell<Ring<Arrival<N>, TRANSFERS>>,
    /// Transfers, waiting or carried.
    all: Rc<Origins>,
    /// Transfers, carried.
    carried: Rc<Origins>,
    came: Notify,
    taken: Notify,
    numbers: Cell<u32>,
    no_login_log: RateLimit,
    crowd_log: RateLimit,
    accept_log: RateLimit,
    unreachable_log: RateLimit,
}

const _: () = assert!(
    size_of::<Transfers<Sockets>>() + 2 * size_of::<Origins>() + 3 * RC_COUNTS <= budget::RELAY,
    "the transfers of a relay are larger than their budget"
);

/// Transfers that one origin may have waiting, and carried: others find a free slot.
const PER_ORIGIN: usize = if TRANSFERS > 1 { TRANSFERS - 1 } else { 1 };

/// The origin of each transfer.
type Origins = RefCell<heapless::Vec<Origin, { 2 * TRANSFERS }>>;

fn count(origins: &Origins, origin: Origin) -> usize {
    origins.borrow().iter().filter(|counted| **counted == origin).count()
}

/// Counts a transfer of an origin until it is dropped.
struct Counted {
    origins: Rc<Origins>,
    origin: Origin,
}

impl Counted {
    fn new(origins: &Rc<Origins>, origin: Origin) -> Self {
        // Cannot fail: there are never more than wait and are carried.
        let _fits = origins.borrow_mut().push(origin);
        Self { origins: Rc::clone(origins), origin }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut origins = self.origins.borrow_mut();
        if let Some(at) = origins.iter().position(|counted| *counted == self.origin) {
            origins.swap_remove(at);
        }
    }
}

impl<N: Net> Transfers<N> {
    /// No transfers yet; those of the sessions of `control` will be accepted.
    pub fn new(net: N, control: Rc<Relay>) -> Rc<Self> {
        Rc::new(Self {
            net,
            control,
            waiting: RefCell::default(),
            all: Rc::default(),
            carried: Rc::default(),
            came: Notify::new(),
            taken: Notify::new(),
            numbers: Cell::new(0),
            no_login_log: RateLimit::default(),
            crowd_log: RateLimit::default(),
            accept_log: RateLimit::default(),
            unreachable_log: RateLimit::default(),
        })
    }

    /// Accepts transfers while there is room for another that waits: the body of one task.
    pub async fn listen(self: Rc<Self>, mut data_ports: DataPorts<N>, clock: Clock) {
        loop {
            while self.waiting.borrow().is_full() {
                self.taken.notified().await;
            }
            match data_ports.accept().await {
                Ok((stream, from, port)) => {
                    self.arrive(stream, from.ip().to_canonical(), port, &clock);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if let Some(times) = self.accept_log.check(clock.now()) {
                        journal::note(
                            Kind::Refused,
                            format_args!(
                                "ftp: cannot accept a data connection: {error}{}",
                                Seen(times)
                            ),
                        );
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    fn arrive(&self, stream: N::Connection, address: IpAddr, port: u16, clock: &Clock) {
        let now = clock.now();
        if !self.control.has_recent_login(address, now) {
            counts::add("ftp", Count::Invalid, 1);
            match self.no_login_log.check(now) {
                Some(times) => journal::note(
                    Kind::Refused,
                    format_args!(
                        "ftp: {address} connected to data port {port} without being logged in: \
                         rejected{}",
                        Seen(times)
                    ),
                ),
                None => journal::tally(Kind::Refused),
            }
            return;
        }
        let origin = Origin::of(address);
        let has = count(&self.all, origin);
        let waiting = has - count(&self.carried, origin).min(has);
        if has >= 2 * self.control.connections_of(origin) || waiting >= PER_ORIGIN {
            counts::add("ftp", Count::Full, 1);
            match self.crowd_log.check(now) {
                Some(times) => journal::note(
                    Kind::Refused,
                    format_args!(
                        "ftp: data connection of {address} rejected: it has {has} already{}",
                        Seen(times)
                    ),
                ),
                None => journal::tally(Kind::Refused),
            }
            return;
        }
        let number = self.numbers.get().wrapping_add(1);
        self.numbers.set(number);
        let counted = Counted::new(&self.all, origin);
        let peer = Peer { service: "ftp data", number, address };
        // Cannot fail: nothing is accepted while there is no room.
        let _fits = self.waiting.borrow_mut().push(Arrival { stream, port, peer, counted });
        self.came.notify_one();
    }

    /// Carries one transfer after another: the body of one of [`TRANSFERS`] tasks.
    pub async fn work(self: Rc<Self>, clock: Clock) {
        let mut buffers = Buffers::new(RELAY_FILES);
        let _limit = counts::hold("ftp", Count::TransfersLimit);
        loop {
            let arrival = self.next().await;
            let _transfer = counts::hold("ftp", Count::Transfers);
            let carried = Counted::new(&self.carried, arrival.peer.origin());
            self.carry(arrival, &mut buffers, &clock).await;
            drop(carried);
        }
    }

    async fn next(&self) -> Arrival<N> {
        loop {
            if let Some(arrival) = self.take_waiting() {
                self.taken.notify_one();
                return arrival;
            }
            self.came.notified().await;
        }
    }

    /// The first transfer whose origin may have one more carried.
    fn take_waiting(&self) -> Option<Arrival<N>> {
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..waiting.len() {
            let arrival = waiting.pop()?;
            if count(&self.carried, arrival.peer.origin()) < PER_ORIGIN {
                return Some(arrival);
            }
            // Cannot fail: it was taken from there.
            let _fits = waiting.push(arrival);
        }
        None
    }

    async fn carry(&self, arrival: Arrival<N>, buffers: &mut Buffers, clock: &Clock) {
        let Arrival { mut stream, port, peer, counted } = arrival;
        // An error means that the connection is lost already. The printer is dialled nevertheless: it waits for one.
        let _lost = tune_relay(&stream);
        match dial(&self.net, self.control.host(), port).await {
            Ok(mut printer) => {
                carry(&mut stream, &mut printer, peer, buffers, Limits::DATA, |_| {}, clock).await;
            }
            Err(error) => match self.unreachable_log.check(clock.now()) {
                Some(times) => journal::note(
                    Kind::PrinterLost,
                    format_args!("{peer}: printer's data port {port}: {error}{}", Seen(times)),
                ),
                None => journal::tally(Kind::PrinterLost),
            },
        }
        drop(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrinterAddr;
    use crate::memory::budget::RELAY_COMMANDS;
    use crate::runtime::files::records::tests::{client_hello, record};
    use crate::runtime::files::relay::Counts;
    use crate::runtime::host::Host;
    use crate::runtime::pacing::tests::{MAX_AHEAD, ahead, printer};
    use crate::runtime::test_runtime::over_sockets;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use core::net::SocketAddr;
    use core::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::task::spawn_local;

    const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

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
            let control = Relay::new(
                "ftp",
                Host::of(PrinterAddr::Ip(HOME.into())),
                port,
                4,
                RELAY_COMMANDS,
                Counts::FTP,
            );
            let transfers = Transfers::new(Sockets, Rc::clone(&control));
            let data_ports =
                DataPorts::over(Vec::from([(ours, data.local_addr().unwrap().port())]));
            spawn_local(Rc::clone(&transfers).listen(data_ports, clock));
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
            near.write_all(&client_hello(b'!')).await.unwrap();
            let (relay, clock) = (Rc::clone(&self.control), self.clock);
            let peer = Peer { service: "ftp", number: 1, address: from.into() };
            spawn_local(async move { relay.serve(&Sockets, far, peer, || {}, &clock).await });
            let (printer, _) = self.commands.accept().await.unwrap();
            (near, printer)
        }

        /// The same, after a login and one command.
        async fn login_from(&self, from: Ipv4Addr) -> (TcpStream, TcpStream) {
            let (mut near, mut printer) = self.control_from(from).await;
            near.write_all(&commands(3)).await.unwrap();
            printer.write_all(&commands(4)).await.unwrap();
            let count = |has| has == self.control.has_recent_login(from.into(), self.clock.now());
            while !count(true) {
                tokio::task::yield_now().await;
            }
            (near, printer)
        }

        async fn transfer_from(&self, from: Ipv4Addr) -> TcpStream {
            connect(from, self.at).await
        }
    }

    /// TLS records from after a handshake: so many lines.
    fn commands(lines: usize) -> Vec<u8> {
        let mut records = [record(20, 1), record(22, 40)].concat();
        (0..lines).for_each(|_| records.extend(record(23, 30)));
        records
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
    fn transfers_need_a_session_of_the_same_address() {
        over_sockets(async {
            let bed = Bed::new();
            let _control = bed.login_from(HOME).await;
            let mut foreign = bed.transfer_from(AWAY).await;
            assert!(is_closed(&mut foreign).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            let mut near = bed.transfer_from(HOME).await;
            // The first to reach the printer is not the other address.
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
    fn no_transfers_after_the_session_has_ended() {
        over_sockets(async {
            let bed = Bed::new();
            drop(bed.login_from(HOME).await);
            while bed.control.connections_of(Origin::of(HOME.into())) > 0 {
                tokio::task::yield_now().await;
            }
            assert!(is_closed(&mut bed.transfer_from(HOME).await).await);
        });
    }

    #[test]
    fn an_address_has_two_transfers_for_each_session() {
        over_sockets(async {
            let bed = Bed::new();
            let _control = bed.login_from(HOME).await;
            let mut held = Vec::new();
            for _ in 0..2 {
                held.push((bed.transfer_from(HOME).await, bed.data.accept().await.unwrap()));
            }
            assert!(is_closed(&mut bed.transfer_from(HOME).await).await);
            // One ends, and there is room for another.
            held.remove(0);
            while bed.transfers.all.borrow().len() > 1 {
                tokio::task::yield_now().await;
            }
            let _another = bed.transfer_from(HOME).await;
            bed.data.accept().await.unwrap();
        });
    }

    #[test]
    fn transfers_over_the_limit_wait() {
        over_sockets(async {
            let bed = Bed::new();
            let mut controls = Vec::new();
            for _ in 0..3 {
                controls.push(bed.login_from(HOME).await);
            }
            controls.push(bed.login_from(AWAY).await);
            let mut near = Vec::new();
            for _ in 0..TRANSFERS {
                near.push(bed.transfer_from(HOME).await);
            }
            let mut far = Vec::new();
            for _ in 0..PER_ORIGIN {
                far.push(bed.data.accept().await.unwrap().0);
            }
            while bed.transfers.waiting.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            // One address never has all of them: the other one's is carried before the one that waits.
            let mut other = bed.transfer_from(AWAY).await;
            let mut carried = bed.data.accept().await.unwrap().0;
            other.write_all(b"x").await.unwrap();
            assert_eq!(carried.read_u8().await.unwrap(), b'x');
            assert_eq!(bed.transfers.waiting.borrow().len(), 1);
            drop((near.remove(0), far.remove(0)));
            far.push(bed.data.accept().await.unwrap().0);
            assert!(bed.transfers.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn an_upload_is_only_a_little_ahead_of_the_printer() {
        over_sockets(async {
            let mut bed = Bed::new();
            // A printer with the smallest buffers.
            let data = printer();
            let ours = Sockets.bind(SocketAddr::from((HOME, 0))).unwrap();
            bed.at = ours.local_addr().unwrap();
            let data_ports =
                DataPorts::over(Vec::from([(ours, data.local_addr().unwrap().port())]));
            spawn_local(Rc::clone(&bed.transfers).listen(data_ports, bed.clock));
            let _control = bed.login_from(HOME).await;
            let mut client = bed.transfer_from(HOME).await;
            let _printers_end = data.accept().await.unwrap();
            let ahead = ahead(&mut client).await;
            assert!(ahead <= MAX_AHEAD, "{ahead} bytes");
        });
    }

    #[test]
    fn a_session_without_a_login_opens_no_data_port() {
        over_sockets(async {
            let bed = Bed::new();
            let (mut near, mut printer) = bed.control_from(HOME).await;
            // As far as the reply to a wrong code.
            near.write_all(&commands(2)).await.unwrap();
            printer.write_all(&commands(3)).await.unwrap();
            near.read_exact(&mut [0; 100]).await.unwrap();
            assert!(is_closed(&mut bed.transfer_from(HOME).await).await);
            assert_eq!(journal::count(Kind::Refused), 1);
            near.write_all(&record(23, 30)).await.unwrap();
            printer.write_all(&record(23, 30)).await.unwrap();
            while !bed.control.has_recent_login(HOME.into(), bed.clock.now()) {
                tokio::task::yield_now().await;
            }
            let _transfer = bed.transfer_from(HOME).await;
            bed.data.accept().await.unwrap();
            let later = bed.clock.now() + Duration::from_secs(61);
            assert!(!bed.control.has_recent_login(HOME.into(), later), "not used for a minute");
        });
    }

    #[test]
    fn a_transfer_that_the_printer_refuses_is_reset() {
        over_sockets(async {
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
            let _control = bed.login_from(HOME).await;
            let mut near = bed.transfer_from(HOME).await;
            let error = near.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert_eq!(journal::count(Kind::PrinterLost), 1);
        });
    }
}
