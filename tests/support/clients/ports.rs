//! Ports for tests that have to know them before anything listens: blocks in a row, and ports that refuse.
//!
//! A port that is bound, dropped and bound again may be another test's by then. A block is therefore claimed by a
//! listener at an address that no test uses, which is kept until the process ends: two test processes, or two tests
//! of one, never have the same block. Blocks lie below the ports that Linux gives out by itself (32768 and up).

use core::net::{Ipv4Addr, SocketAddr};
use core::ops::RangeInclusive;
use std::net::TcpListener;
use std::sync::Mutex;

use socket2::{Domain, Socket, Type};

/// The ports of a block.
pub(crate) const BLOCK: u16 = 8;

/// The first ports of the first block and of the one behind the last.
const FROM: u16 = 16_000;
const TO: u16 = 32_000;

/// Where blocks are claimed.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 253);

/// The listeners that claim this process's blocks.
static CLAIMED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// [`BLOCK`] ports in a row that nothing listens on at any of these addresses, and that no other test gets.
pub(crate) fn block(addresses: &[Ipv4Addr]) -> RangeInclusive<u16> {
    let blocks = (TO - FROM) / BLOCK;
    // Processes that start beside each other begin at different blocks, so that few claims fail.
    let begin = std::process::id() % u32::from(blocks);
    let is_free = |port| addresses.iter().all(|at| TcpListener::bind((*at, port)).is_ok());
    let found = (0..u32::from(blocks)).find_map(|step| {
        let block = u16::try_from((begin + step) % u32::from(blocks)).ok()?;
        let first = FROM + block * BLOCK;
        let claim = TcpListener::bind((CLAIMS, first)).ok()?;
        // A block in use by another program stays claimed: it would be no better next time.
        CLAIMED.lock().unwrap().push(claim);
        let ports = first..=first + BLOCK - 1;
        ports.clone().all(is_free).then_some(ports)
    });
    found.expect("ports in a row that are free")
}

/// A loopback port that refuses connections for as long as this is kept: bound, and not listening.
pub(crate) struct Refusing(Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket().unwrap().port()
    }
}
