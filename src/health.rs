//! `pandaproxy health`: do the services of a running proxy answer?
//!
//! It asks on the machine that they run on, by the configuration that they run with. MQTT's port has
//! to show a certificate of the proxy whose state directory this is; the others have to take a
//! connection. Nobody logs in, so no code is shown, no place of a client is taken, and nothing
//! reaches the printer. Whether the printer is there is not asked: a proxy whose printer is switched
//! off is well.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | all of it | [`TIMEOUT`] | what has not answered by then counts as silent |

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::tls::greeting::{GreetingError, greet};

/// How long all of it may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Ports that may be asked.
const PORTS: usize = 4;

/// What answers. `Display` names each service with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering(heapless::Vec<(&'static str, u16), PORTS>);

impl fmt::Display for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (service, port)) in self.0.iter().enumerate() {
            let before = if at == 0 { "" } else { ", " };
            write!(f, "{before}{service} on {port}")?;
        }
        Ok(())
    }
}

/// What does not, the first that was found. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    service: &'static str,
    at: SocketAddr,
    why: Why,
}

/// What is wrong with a service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// Its port is any: nobody can know where to ask.
    AnyPort,
    /// Nothing listens.
    Refused,
    /// The connection is not taken in time.
    Silent,
    /// The connection failed otherwise.
    Io(ErrorKind),
    /// What answers cannot be taken for the proxy.
    Greeting(GreetingError),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, at, why } = self;
        write!(f, "{service} on {at}: ")?;
        match why {
            Why::AnyPort => {
                f.write_str("port 0 is any port, so there is no way to know which to ask")
            }
            Why::Refused => f.write_str("nothing listens: has the service started?"),
            Why::Silent => f.write_str("no connection in time"),
            Why::Io(kind) => write!(f, "no connection: {kind}"),
            Why::Greeting(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Unhealthy {}

/// Asks each service of `config` on this machine.
///
/// # Errors
///
/// One of them does not answer.
pub fn check(config: &Config) -> Result<Answering, Unhealthy> {
    let until = Instant::now() + TIMEOUT;
    let here = own_address(config.bind);
    let mut answering = heapless::Vec::new();
    for (service, port) in config.listening() {
        let at = SocketAddr::new(here, port);
        let unhealthy = |why| Unhealthy { service, at, why };
        let mut line = Line::to(at, until).map_err(unhealthy)?;
        if service == "mqtt" {
            greet(&config.state_dir, &mut line, SystemTime::now)
                .map_err(|error| unhealthy(Why::Greeting(error)))?;
        }
        // It fits: there is one place for each port.
        let _fits = answering.push((service, port));
    }
    Ok(Answering(answering))
}

/// Where a listener that is bound to `bind` is reached from its own machine.
const fn own_address(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => bind,
    }
}

/// A connection on which everything ends at one moment.
struct Line {
    stream: TcpStream,
    until: Instant,
}

impl Line {
    fn to(at: SocketAddr, until: Instant) -> Result<Self, Why> {
        if at.port() == 0 {
            return Err(Why::AnyPort);
        }
        let left = left(until).map_err(|_| Why::Silent)?;
        match TcpStream::connect_timeout(&at, left) {
            Ok(stream) => Ok(Self { stream, until }),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(Why::Refused),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Why::Silent),
            Err(error) => Err(Why::Io(error.kind())),
        }
    }
}

/// The time that is left. It is never zero, which would be for ever.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(bytes)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
