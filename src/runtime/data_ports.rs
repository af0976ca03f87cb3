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
//! | ports | [`PORTS_MOST`] | refused where they are configured |
//! | transfers carried at once | [`TRANSFERS`] | wait: [`TRANSFERS`] here, the others in the kernel |
//! | transfers of one address | two for each of its control connections | closed |
//! | a transfer of which nothing moves | [`FILE_SILENCE`](super::relay::FILE_SILENCE), [`STALL`](super::relay::STALL) | reset |

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::task::Poll;
use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::Clock;
use super::listen::{AFTER_FAILURE, bind, is_of_the_peer};
use super::relay::{Buffers, FILE_BUFFER, FILE_SILENCE, Relay, carry, dial};
use super::stream::tune_relay;
use crate::journal::{self, Kind, Seldom};
use crate::memory::ring::Ring;
use crate::session::Peer;

/// Ports at most: the 101 of the vsFTPd family, and some to spare.
pub const PORTS_MOST: usize = 128;

/// Transfers carried at once: one for each control connection that the most patient printer takes.
pub const TRANSFERS: usize = 4;

/// Listeners, each with the printer's port that it stands for.
pub struct Openings {
    listeners: Vec<(TcpListener, u16)>,
    /// Whose turn it is to be looked at first.
    next: usize,
}

impl Openings {
    /// Listens on each of `ports`. Those that cannot be had are left out, and said in the log.
    ///
    /// # Errors
    ///
    /// None of them can be had; or there are more than [`PORTS_MOST`].
    pub fn bind(address: IpAddr, ports: RangeInclusive<u16>) -> io::Result<Self> {
        if ports.len() > PORTS_MOST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut listeners = Vec::with_capacity(ports.len());
        let mut skipped = heapless::Vec::<u16, PORTS_MOST>::new();
        let mut why = None;
        for port in ports {
            match bind(SocketAddr::new(address, port)) {
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
    pub const fn over(listeners: Vec<(TcpListener, u16)>) -> Self {
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
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr, u16)> {
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
struct Arrival {
    stream: TcpStream,
    port: u16,
    peer: Peer,
    held: Held,
}

/// The transfers that belong to the control connections of one relay.
pub struct Transfers {
    control: Rc<Relay>,
    waiting: RefCell<Ring<Arrival, TRANSFERS>>,
    /// Whose transfers there are, waiting or carried.
    of: Rc<Whose>,
    came: Notify,
    taken: Notify,
    numbers: Cell<u32>,
    strangers: Seldom,
    crowds: Seldom,
    troubles: Seldom,
}

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

impl Transfers {
    /// No transfers yet, for those who are in `control`.
    pub fn new(control: Rc<Relay>) -> Rc<Self> {
        Rc::new(Self {
            control,
            waiting: RefCell::default(),
            of: Rc::default(),
            came: Notify::new(),
            taken: Notify::new(),
            numbers: Cell::new(0),
            strangers: Seldom::default(),
            crowds: Seldom::default(),
            troubles: Seldom::default(),
        })
    }

    /// Accepts transfers for ever, none while there are as many in waiting as may be: the body of one
    /// task.
    pub async fn listen(self: Rc<Self>, mut openings: Openings, clock: Clock) {
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
                    if let Some(times) = self.troubles.happened(clock.now()) {
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

    fn arrive(&self, stream: TcpStream, address: IpAddr, port: u16, clock: &Clock) {
        let controls = self.control.connections_of(address);
        let has = self.of.borrow().iter().filter(|held| **held == address).count();
        if has >= 2 * controls {
            let seldom = if controls == 0 { &self.strangers } else { &self.crowds };
            let Some(times) = seldom.happened(clock.now()) else {
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
        let mut buffers = Buffers::new(FILE_BUFFER);
        loop {
            let arrival = self.next().await;
            self.carry(arrival, &mut buffers, &clock).await;
        }
    }

    async fn next(&self) -> Arrival {
        loop {
            let arrival = self.waiting.borrow_mut().pop();
            if let Some(arrival) = arrival {
                self.taken.notify_one();
                return arrival;
            }
            self.came.notified().await;
        }
    }

    async fn carry(&self, arrival: Arrival, buffers: &mut Buffers, clock: &Clock) {
        let Arrival { mut stream, port, peer, held } = arrival;
        // A client that is gone is seen by the relay; a printer that waits for it must hear of it.
        let _gone = tune_relay(&stream);
        match dial(self.control.host(), port).await {
            Ok(mut printer) => {
                carry(&mut stream, &mut printer, peer, buffers, Some(FILE_SILENCE), clock).await;
            }
            Err(error) => {
                journal::note(Kind::PrinterLost, format_args!("{peer}: data port {port}: {error}"));
            }
        }
        drop(held);
    }
}
