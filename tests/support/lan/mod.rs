//! A local network in memory: the proxy's real client, hub and upstream between a simulated printer
//! and simulated clients, over in-memory streams and in virtual time.
//!
//! There is no TLS and no socket here, so a day takes seconds and nothing depends on the machine.
#![allow(dead_code, reason = "not every test binary uses all of it")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is test code, and a mistake in it should stop the test"
)]

pub(crate) mod chamber;
pub(crate) mod datagram;
pub(crate) mod net;
pub(crate) mod oracle;
pub(crate) mod root;
pub(crate) mod rtsp;
pub(crate) mod weather;

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::journal::{self, Kind};
use pandaproxy::mqtt::Service;
use pandaproxy::mqtt::client::Error;
use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::drive::End;
use pandaproxy::runtime::launch;
use pandaproxy::runtime::worker::Served;
use serde_json::Value;
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use self::net::SimNet;
use super::clients::mqtt::Client;
use printer::{Model, Printer};

/// Bytes that are on the way in each direction of a stream: about what a kernel keeps.
pub(crate) const WIRE: usize = 64 * 1024;

/// The address under which clients reach the proxy.
pub(crate) const PROXY: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

/// Seconds, as most tests count.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Lets time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A report as data.
pub(crate) fn json(report: &[u8]) -> Value {
    serde_json::from_slice(report)
        .unwrap_or_else(|error| panic!("{error}: {}", report.escape_ascii()))
}

/// How often something happens from here on, as the journal of this thread counts it.
pub(crate) struct Tally(Kind, u32);

impl Tally {
    pub(crate) fn of(kind: Kind) -> Self {
        Self(kind, journal::count(kind))
    }

    pub(crate) fn now(&self) -> u32 {
        journal::count(self.0) - self.1
    }
}

/// Whether the journal of this thread tells this.
pub(crate) fn journal_says(text: &str) -> bool {
    let mut all = String::new();
    journal::write_to(&mut all).unwrap();
    all.contains(text)
}

/// The port of MQTT, at the printer and at the proxy.
const PORT: u16 = 8883;

/// The code of printer and proxy.
pub(crate) const CODE: &str = "12345678";

/// Runs a test in virtual time.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(test)
}

/// A proxy before a printer.
pub(crate) struct Proxy {
    pub(crate) service: Rc<Service>,
    proxy: launch::Proxy,
    net: SimNet,
    next: Cell<u32>,
    /// How the last clients ended.
    pub(crate) ends: Rc<RefCell<Vec<End<Error>>>>,
}

/// What a test may want of a proxy that is not usual.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) rewrites: bool,
    /// Whether only the printer's own serial number is served.
    pub(crate) strict_serial: bool,
    /// The code that the proxy has; the printer may have another.
    pub(crate) code: &'static str,
    /// The serial number that the proxy has; `None` is the printer's.
    pub(crate) serial: Option<&'static str>,
    /// Bytes that are on the way to the printer at most.
    pub(crate) printer_wire: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rewrites: true, strict_serial: false, code: CODE, serial: None, printer_wire: WIRE }
    }
}

impl Proxy {
    /// A proxy with the usual settings; its first attempt to reach the printer is made at once.
    pub(crate) fn before(printer: &Printer) -> Self {
        Self::with(printer, Settings::default())
    }

    /// A printer, and the proxy once it is connected to it.
    pub(crate) async fn connected(model: Model) -> (Printer, Self) {
        let printer = Printer::new(model);
        let proxy = Self::before(&printer);
        proxy.live().await;
        (printer, proxy)
    }

    pub(crate) fn with(printer: &Printer, settings: Settings) -> Self {
        let net = SimNet::new();
        net.put(PORT, Wire { printer: printer.clone(), bytes: settings.printer_wire });
        let mut more = vec!["--services=mqtt"];
        if !settings.rewrites {
            more.push("--keep-printer-address");
        }
        if settings.strict_serial {
            more.push("--strict-serial");
        }
        let serial = settings.serial.unwrap_or(printer.serial());
        let ends = net.keep_ends(|served: &Served<Error>| served.end);
        let proxy = root::start(&net, serial, settings.code, &more);
        let service = proxy.service().unwrap();
        Self { service, proxy, net, next: Cell::new(1), ends }
    }

    /// Waits until the printer takes requests.
    pub(crate) async fn live(&self) {
        for _ in 0..600 {
            if self.service.is_live() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the printer is not there after a minute");
    }

    /// A stream to the proxy, served by a worker of its own.
    pub(crate) fn stream(&self) -> DuplexStream {
        self.stream_of(WIRE)
    }

    /// The same over a wire that holds `bytes` in each direction.
    pub(crate) fn stream_of(&self, bytes: usize) -> DuplexStream {
        self.stream_to(Some(PROXY), bytes)
    }

    /// The same for a client that reaches the proxy under this address.
    pub(crate) fn stream_to(&self, reached: Option<Ipv4Addr>, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        let number = self.next.replace(self.next.get() + 1);
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(number % 250).unwrap()));
        // Without an IPv4 address the proxy cannot know its own.
        let proxy = reached.map_or(IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4);
        assert!(self.net.arrive_at(proxy, PORT, address, far), "the port is open");
        near
    }

    /// A client that was let in and subscribed to `filter`.
    pub(crate) async fn reader(&self, id: &str, filter: &str) -> Client<DuplexStream> {
        Client::subscribed(self.stream(), id, filter).await
    }

    /// A client that was let in.
    pub(crate) async fn client(&self, id: &str) -> Client<DuplexStream> {
        Client::connected(self.stream(), id).await
    }

    /// How this client ended; panics unless one did, and only one.
    pub(crate) fn end(&self) -> End<Error> {
        let mut ends = self.ends.borrow_mut();
        let end = ends.pop().expect("a session has ended");
        assert!(ends.is_empty(), "{ends:?} and {end:?}");
        end
    }

    /// Ends it as a signal would.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// The wire to the printer.
#[derive(Clone)]
struct Wire {
    printer: Printer,
    bytes: usize,
}

impl Dial for Wire {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        let (near, far) = duplex(self.bytes);
        let printer = self.printer.clone();
        spawn_local(async move { printer.serve(far).await });
        Ok(near)
    }
}
