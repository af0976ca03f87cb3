//! Listeners on several ports that take turns: in a relay the printer's data ports, each open under the same number here.

use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::task::Poll;
use std::io;

use super::net::{Listener, Net, Sockets};
use super::pacing::{RECEIVE_BUFFER, limit_unread};
use crate::journal::{self, Kind};
use crate::memory::budget::DATA_PORTS;

/// Listeners, each with the printer's port that it stands for.
pub struct DataPorts<N: Net = Sockets> {
    listeners: Vec<(N::Listener, u16)>,
    /// Index of the listener that is polled first.
    next: usize,
}

impl<N: Net> DataPorts<N> {
    /// Listens on each port of `ranges`. Ports that cannot be bound are left out and logged.
    ///
    /// # Errors
    ///
    /// No port can be bound, or there are more than [`DATA_PORTS`].
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
                    // Cannot fail: there are no more ports than that.
                    let _fits = skipped.push(port);
                }
            }
        }
        match why {
            Some(why) if listeners.is_empty() => return Err(why),
            Some(why) => journal::note(
                Kind::Refused,
                format_args!(
                    "ftp: cannot listen on data ports {}: {}; transfers for which the printer names \
                     one of them fail",
                    Runs(&skipped),
                    why.kind()
                ),
            ),
            None => {}
        }
        Ok(Self::over(listeners))
    }

    /// Data ports over listeners that are bound already, each with the port that the printer names.
    pub fn over(listeners: Vec<(N::Listener, u16)>) -> Self {
        for (listener, _) in &listeners {
            // A listener with larger buffers serves as well.
            let _larger = limit_unread(listener, RECEIVE_BUFFER);
        }
        Self { listeners, next: 0 }
    }

    /// The printer's ports that are open here.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.listeners.iter().map(|(_, port)| *port)
    }

    /// The next connection, its source, and the printer's port that it is for. Ports take turns: each call begins behind
    /// the port that was served last.
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

/// A list of ports, runs as ranges: `2024, 2030-2031`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_runtime::over_sockets;
    use alloc::format;
    use core::net::Ipv4Addr;
    use tokio::net::TcpStream;

    const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn a_data_port_in_use_is_left_out_and_logged() {
        over_sockets(async {
            // Ten ports in a row of which the first is taken; others may be, on a busy machine.
            let (taken, port) = loop {
                let taken = std::net::TcpListener::bind((HOME, 0)).unwrap();
                let port = taken.local_addr().unwrap().port();
                if port < u16::MAX - 10 {
                    break (taken, port);
                }
            };
            let data_ports = DataPorts::bind(&Sockets, HOME.into(), &[port..=port + 9]).unwrap();
            assert!(data_ports.ports().all(|open| open != port));
            assert!(data_ports.ports().count() > 0);
            let mut text = alloc::string::String::new();
            journal::write_to(&mut text).unwrap();
            assert!(text.contains(&format!("data ports {port}")), "{text}");
            assert!(
                DataPorts::bind(&Sockets, HOME.into(), &[port..=port]).is_err(),
                "none is left"
            );
            drop(taken);
        });
    }

    /// Guards: bambuddy#1646: a thousand data ports cost gigabytes.
    #[test]
    fn too_many_data_ports_are_refused() {
        let most = u16::try_from(DATA_PORTS).unwrap();
        let refused = DataPorts::bind(&Sockets, HOME.into(), &[50_000..=50_000 + most]);
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn data_ports_take_turns() {
        over_sockets(async {
            let listeners: Vec<_> = (0..101)
                .map(|n| (Sockets.bind(SocketAddr::from((HOME, 0))).unwrap(), 50_000 + n))
                .collect();
            let at = |n: usize| listeners[n].0.local_addr().unwrap();
            let (busy, last) = (at(0), at(100));
            let mut data_ports = DataPorts::<Sockets>::over(listeners);
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(TcpStream::connect(busy).await.unwrap());
            }
            clients.push(TcpStream::connect(last).await.unwrap());
            let mut ports = Vec::new();
            for _ in 0..9 {
                ports.push(data_ports.accept().await.unwrap().2);
            }
            assert_eq!(ports.iter().filter(|port| **port == 50_100).count(), 1);
            assert_ne!(ports[8], 50_100, "it came last and was not served last: {ports:?}");
        });
    }

    #[test]
    fn ports_are_listed_in_ranges() {
        assert_eq!(format!("{}", Runs(&[2024, 2030, 2031, 2032, 2040])), "2024, 2030-2032, 2040");
    }
}
