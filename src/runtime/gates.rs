//! Data ports towards FTP clients: of a small fixed range, opened when a client asks for one.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | ports | the range of `--ftp-data-ports` | 425 |
//! | open ports of a client | one | the next takes its place |
//! | connections to one | one, from where the control connection comes from | closed |
//! | time | [`GATE_WITHIN`](crate::ftp::seat::GATE_WITHIN) | closed |

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::io;

use tokio::net::{TcpListener, TcpStream};

use super::Clock;
use super::listen::bind;
use super::transfer::Wire;
use crate::ftp::seat::Gate as State;
use crate::ftp::{Place, SEATS};
use crate::journal::{self, Kind, Seldom};

/// How long nothing is accepted after accepting failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// A port on which a client's data connection is awaited: TCP in the program, memory in a test.
pub trait Listen: Sized {
    /// A connection.
    type Wire: Wire;

    /// Opens a port.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    fn open(address: SocketAddr) -> io::Result<Self>;

    /// Which port it is, if that is known.
    fn port(&self) -> Option<u16>;

    /// The next connection, and from where.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Wire, IpAddr)>>;
}

impl Listen for TcpListener {
    type Wire = TcpStream;

    fn open(address: SocketAddr) -> io::Result<Self> {
        bind(address)
    }

    fn port(&self) -> Option<u16> {
        self.local_addr().ok().map(|address| address.port())
    }

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, from) = Self::accept(self).await?;
        // A socket that cannot be tuned is a connection that is gone.
        let _gone = stream.set_nodelay(true);
        Ok((stream, from.ip().to_canonical()))
    }
}

/// The data ports of all clients.
pub struct Gates<L: Listen = TcpListener> {
    gates: Box<[Gate<L>]>,
    address: IpAddr,
    ports: RangeInclusive<u16>,
    /// Where to look first for a free one: a port rests for as long as there are others.
    next: Cell<u16>,
    taken: Seldom,
    strangers: Seldom,
}

struct Gate<L: Listen> {
    listener: RefCell<Option<Rc<L>>>,
    stream: RefCell<Option<L::Wire>>,
}

impl<L: Listen> Gates<L> {
    /// None is open yet.
    pub fn new(address: IpAddr, ports: RangeInclusive<u16>) -> Rc<Self> {
        Rc::new(Self {
            gates: (0..SEATS).map(|_| Gate::new()).collect(),
            address,
            next: Cell::new(*ports.start()),
            ports,
            taken: Seldom::default(),
            strangers: Seldom::default(),
        })
    }

    /// Opens a port for a seat, in the place of the one it had. `None`: all are in use.
    pub fn open(&self, seat: usize, clock: &Clock) -> Option<u16> {
        let gate = self.gates.get(seat)?;
        gate.close();
        let after = self.next.get()..=*self.ports.end();
        let before = *self.ports.start()..self.next.get();
        for port in after.chain(before) {
            match L::open(SocketAddr::new(self.address, port)) {
                Ok(listener) => {
                    let last = port == *self.ports.end();
                    self.next.set(if last { *self.ports.start() } else { port + 1 });
                    let bound = listener.port()?;
                    gate.listener.replace(Some(Rc::new(listener)));
                    return Some(bound);
                }
                Err(error) if !self.is_own(port) => {
                    if let Some(times) = self.taken.happened(clock.now()) {
                        log::info!("ftp: data port {port} cannot be had: {error} ({times})");
                    }
                }
                Err(_) => {}
            }
        }
        journal::note(
            Kind::Refused,
            format_args!(
                "ftp: no data port of {}-{} is free (--ftp-data-ports)",
                self.ports.start(),
                self.ports.end()
            ),
        );
        None
    }

    /// Whether another client has that port.
    fn is_own(&self, port: u16) -> bool {
        self.gates.iter().any(|gate| {
            let listener = gate.listener.borrow();
            listener.as_ref().and_then(|listener| listener.port()) == Some(port)
        })
    }

    /// The connection that a client has made.
    pub(super) fn take(&self, seat: usize) -> Option<L::Wire> {
        self.gates.get(seat)?.stream.take()
    }

    /// Nobody sits there any more.
    pub fn close(&self, seat: usize) {
        if let Some(gate) = self.gates.get(seat) {
            gate.close();
        }
    }

    /// Looks after the port of one client: lets it in, and nobody else, and closes it when it is not
    /// needed any more.
    pub async fn tend(&self, place: &Place, peer: IpAddr, clock: &Clock) -> Infallible {
        let Some(gate) = self.gates.get(place.seat().index()) else {
            return core::future::pending().await;
        };
        loop {
            if place.seat().gate() == State::Closed {
                gate.close();
            }
            let listener = gate.listener.borrow().clone();
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => core::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                biased;
                () = place.seat().gate_rung() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, from)) if from == peer => {
                    gate.close();
                    gate.stream.replace(Some(stream));
                    place.connected(clock.now());
                }
                Ok((_, from)) => {
                    if let Some(times) = self.strangers.happened(clock.now()) {
                        journal::note(
                            Kind::Refused,
                            format_args!(
                                "ftp: {from} connected to the data port of {peer} ({times})"
                            ),
                        );
                    }
                }
                Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
    }
}

impl<L: Listen> Gate<L> {
    const fn new() -> Self {
        Self { listener: RefCell::new(None), stream: RefCell::new(None) }
    }

    fn close(&self) {
        self.listener.take();
        self.stream.take();
    }
}
