//! Discovery: listens for the printer's announcements, and announces it to slicers in its place.
//!
//! What the printer announces fills [`Status`](crate::printer::status::Status). Where the printer has another address
//! than before, it is followed there once the machine at that address has shown the printer's certificate
//! ([`claims`]). [`hub`] says when the printer is announced and how a slicer is kept with this program, [`wire`]
//! reads and writes the datagrams.
//!
//! Port 1900, that of UPnP, is not listened on: printers send nothing there, slicers do not search, and every search and
//! announcement of routers, televisions and media servers would arrive. A program that shares the port with this one
//! would lose unicast datagrams to it.
//!
//! There is no login: what is announced is what the printer itself tells everybody on its network.

pub mod claims;
pub mod hub;
pub mod wire;

use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

pub use crate::config::MAX_ADDRESSES;
use crate::config::{Announce, Broadcast, Config, PrinterAddr};
use crate::notify::Notify;
use crate::service;

/// The port that slicers listen on.
pub const PORT: u16 = 2021;

/// The other port of printers' announcements.
pub const OTHER_PORT: u16 = 1990;

/// The group that announcements and searches are sent to.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);

/// Where and as what the printer is announced, decided at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether it is announced in the networks of this machine.
    pub broadcast: bool,
    /// Addresses in other networks that it is announced to.
    pub addresses: heapless::Vec<Ipv4Addr, MAX_ADDRESSES>,
    /// The address that clients reach this machine at, if it was given.
    pub advertise: Option<Ipv4Addr>,
    /// The one address that this program listens on, if it does not listen on all.
    pub bind: Option<Ipv4Addr>,
    /// The printer's configured address, if it is not given by name.
    pub printer: Option<Ipv4Addr>,
}

/// Why the printer is not announced although nothing switched it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPlanned {
    /// A broadcast does not leave a container with a network of its own.
    Bridged,
    /// Detect is not served, which slicers use after they have heard an announcement.
    NoDetect,
    /// The one address that this program listens on is of no network.
    Loopback,
}

impl fmt::Display for NotPlanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssdp: printer not announced: ")?;
        f.write_str(match self {
            Self::Bridged => {
                "broadcasts do not leave this container's network; use the host's network, or name \
                 addresses with --announce"
            }
            Self::NoDetect => {
                "the detect service is off; to announce it all the same, use --announce broadcast"
            }
            Self::Loopback => {
                "only this machine reaches its loopback address; set another BIND_ADDRESS, or name addresses \
                 with --announce"
            }
        })
    }
}

impl Plan {
    /// Broadcasts alone.
    #[cfg(test)]
    pub(crate) fn broadcast() -> Self {
        Self { broadcast: true, ..Self::default() }
    }

    /// What the configuration asks for, in a container with a network of its own or elsewhere; and why the printer is
    /// not announced, where that was not asked for.
    pub fn of(config: &Config, is_bridged: bool) -> (Self, Option<NotPlanned>) {
        let Announce { broadcast, addresses } = &config.announce;
        let obstacle = match broadcast {
            Broadcast::Auto | Broadcast::On if config.bind.is_loopback() => {
                Some(NotPlanned::Loopback)
            }
            Broadcast::Auto if !config.services.detect => Some(NotPlanned::NoDetect),
            Broadcast::Auto if is_bridged => Some(NotPlanned::Bridged),
            Broadcast::Auto | Broadcast::On | Broadcast::Off => None,
        };
        let bind = match config.bind {
            IpAddr::V4(bind) if !bind.is_unspecified() => Some(bind),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        let printer = match config.printer {
            PrinterAddr::Ip(IpAddr::V4(printer)) => Some(printer),
            PrinterAddr::Ip(IpAddr::V6(_)) | PrinterAddr::Name(_) => None,
        };
        let plan = Self {
            broadcast: *broadcast != Broadcast::Off && obstacle.is_none(),
            addresses: addresses.clone(),
            advertise: config.advertise,
            bind,
            printer,
        };
        let is_announced = plan.is_on();
        (plan, obstacle.filter(|_| !is_announced))
    }

    /// Whether the printer is announced at all.
    pub fn is_on(&self) -> bool {
        self.broadcast || !self.addresses.is_empty()
    }
}

/// The service, as the composition root knows it.
#[derive(Default)]
pub struct Service {
    is_leaving: Cell<bool>,
    /// Whether the printer is being announced.
    is_announced: Cell<bool>,
    announcer: Notify,
    follower: Notify,
}

impl Service {
    /// Ends both tasks.
    pub fn leave(&self) {
        self.is_leaving.set(true);
        self.announcer.notify();
        self.follower.notify();
    }

    /// Whether the program ends.
    pub const fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// Completes when the program ends, for the task that announces.
    pub async fn until_leaving(&self) {
        while !self.is_leaving() {
            self.announcer.notified().await;
        }
    }

    /// The same for the task that follows the printer.
    pub async fn until_follower_leaves(&self) {
        while !self.is_leaving() {
            self.follower.notified().await;
        }
    }

    /// Whether the printer is being announced.
    pub const fn is_announced(&self) -> bool {
        self.is_announced.get()
    }

    /// The printer is being announced, or is not.
    pub fn set_announced(&self, is_announced: bool) {
        self.is_announced.set(is_announced);
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "ssdp"
    }

    fn connections(&self) -> usize {
        0
    }

    fn disconnect_all(&self) {}

    fn shut_down(&self) {
        self.leave();
    }

    fn write_status(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let state = if self.is_announced() { "announced" } else { "not announced" };
        writeln!(out, "ssdp: printer {state}")
    }
}

/// Each message of this service once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let mut samples = hub::samples();
    let all = [NotPlanned::Bridged, NotPlanned::NoDetect, NotPlanned::Loopback];
    samples.extend(all.map(|why| why.to_string()));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Intent;
    use crate::notify::tests::wakes;

    #[test]
    fn a_plan_without_announcements_says_why() {
        let planned = |words: &[&str], is_bridged| {
            let required = ["pandaproxy", "--printer-ip=10.0.0.9", "--serial-number=S"];
            let line = required.iter().chain(words).map(std::ffi::OsString::from);
            let code = |name: &str| (name == "ACCESS_CODE").then(|| "12345678".into());
            let Ok(Intent::Serve(config)) = Config::from_args(line, code) else {
                panic!("not a command line to serve with: {words:?}")
            };
            let (plan, why) = Plan::of(&config, is_bridged);
            (plan.is_on(), why)
        };
        let of = |words: &[&str]| planned(words, false);
        assert_eq!(of(&[]), (true, None));
        assert_eq!(of(&["--announce=off"]), (false, None));
        assert_eq!(of(&["--bind=127.0.0.1"]), (false, Some(NotPlanned::Loopback)));
        assert_eq!(
            of(&["--bind=::1", "--announce=broadcast"]),
            (false, Some(NotPlanned::Loopback))
        );
        assert_eq!(of(&["--bind=127.0.0.1", "--announce=auto,10.5.0.50"]), (true, None));
        assert_eq!(planned(&[], true), (false, Some(NotPlanned::Bridged)));
    }

    #[test]
    fn the_end_wakes_both_tasks() {
        for follows in [false, true] {
            let service = Service::default();
            let woken = || async {
                if follows {
                    service.until_follower_leaves().await;
                } else {
                    service.until_leaving().await;
                }
            };
            assert!(wakes(woken, || service.leave()), "{follows}");
        }
    }
}
