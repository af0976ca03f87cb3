//! The printer's address: as it was given, or looked up from its name, or where it was found since by
//! [discovery](crate::ssdp).
//!
//! All services share one [`Host`]. The system's resolver blocks, for half a minute where the router does not answer: it
//! runs on a thread of its own, once at a time, in a task that no service waits for longer than it wants to.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | look-ups at once | one | others wait for the outcome of that one |
//! | age of an address | [`MAX_AGE`] | it is looked up again |
//! | the wait for a look-up | [`LOOK_UP_TIMEOUT`] | the last address is used; without one the dial fails |

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::dial_error::DialError;
use super::net::{Net, spawn};
use crate::config::{Config, OwnListeners, PrinterAddr};
use crate::printer::status::Status;

/// How long an address is used before its name is looked up again.
pub const MAX_AGE: Duration = Duration::from_secs(30);

/// Timeout of a look-up for a printer whose address is not known yet.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of a look-up for a printer whose last address is known.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the printer is.
pub struct Host {
    printer: PrinterAddr,
    own: OwnListeners,
    status: Rc<Status>,
    /// The last address of the name, and when it was found or last used in place of a new one.
    found: Cell<Option<(IpAddr, Instant)>>,
    is_looking: Cell<bool>,
    /// Whether the last look-up failed, which is logged once.
    has_failed: Cell<bool>,
    ended: Notify,
}

impl Host {
    /// The printer of this configuration.
    pub fn new(config: &Config, status: &Rc<Status>) -> Rc<Self> {
        Self::at(config.printer.clone(), config.own_listeners(), Rc::clone(status))
    }

    /// The printer at this address, which is none of this program's.
    pub fn of(printer: PrinterAddr) -> Rc<Self> {
        Self::at(printer, OwnListeners::NONE, Rc::default())
    }

    fn at(printer: PrinterAddr, own: OwnListeners, status: Rc<Status>) -> Rc<Self> {
        Rc::new(Self {
            printer,
            own,
            status,
            found: Cell::new(None),
            is_looking: Cell::new(false),
            has_failed: Cell::new(false),
            ended: Notify::new(),
        })
    }

    /// The address of the printer's `port` now.
    ///
    /// # Errors
    ///
    /// [`DialError::NoSuchName`], or [`DialError::Itself`] if a connection would come back to this program.
    pub async fn address<N: Net>(
        self: &Rc<Self>,
        net: &N,
        port: u16,
    ) -> Result<SocketAddr, DialError> {
        let address = match (self.status.followed(), &self.printer) {
            (Some(followed), _) => IpAddr::V4(followed),
            (None, PrinterAddr::Ip(address)) => *address,
            (None, PrinterAddr::Name(_)) => self.resolve(net).await?,
        };
        let at = SocketAddr::new(address, port);
        if self.own.has(at) { Err(DialError::Itself(address)) } else { Ok(at) }
    }

    /// A connection was made to the printer at `address`.
    pub fn set_reached(&self, address: IpAddr) {
        self.status.set_address(address);
    }

    /// The printer does not answer at `address`. If it was found there by discovery, its configured address is used
    /// again.
    pub fn set_unreached(&self, address: IpAddr) {
        if self.status.followed().map(IpAddr::V4) == Some(address) {
            self.status.unfollow();
        }
    }

    async fn resolve<N: Net>(self: &Rc<Self>, net: &N) -> Result<IpAddr, DialError> {
        let last = self.found.get();
        if let Some((address, since)) = last
            && since.elapsed() < MAX_AGE
        {
            return Ok(address);
        }
        let ended = self.ended.notified();
        if !self.is_looking.replace(true) {
            let (host, its) = (Rc::clone(self), net.clone());
            spawn(net, async move { host.look_up(&its).await });
        }
        let limit = if last.is_some() { REFRESH_TIMEOUT } else { LOOK_UP_TIMEOUT };
        // After the timeout the look-up goes on, and the next dial has its outcome.
        let _late = timeout(limit, ended).await;
        self.found.get().map(|(address, _)| address).ok_or(DialError::NoSuchName)
    }

    /// Looks the name up once. A failure keeps the last address for another [`MAX_AGE`].
    async fn look_up<N: Net>(&self, net: &N) {
        if let PrinterAddr::Name(name) = &self.printer {
            let now = Instant::now;
            match net.resolve(name, 0).await {
                Ok(address) => {
                    self.has_failed.set(false);
                    self.found.set(Some((address.ip(), now())));
                }
                Err(_) => {
                    if let Some((last, _)) = self.found.get() {
                        self.found.set(Some((last, now())));
                        if !self.has_failed.replace(true) {
                            log::warn!("{}", LastUsed { name, last });
                        }
                    }
                }
            }
        }
        self.is_looking.set(false);
        self.ended.notify_waiters();
    }
}

/// The log line about a name that can no longer be resolved.
struct LastUsed<'a> {
    name: &'a str,
    last: IpAddr,
}

impl fmt::Display for LastUsed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, last } = self;
        write!(f, "the printer's name {name} cannot be resolved; its last address {last} is used")
    }
}

/// Log lines of the printer's address, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    let last = IpAddr::from([192, 168, 1, 7]);
    alloc::vec![alloc::format!("{}", LastUsed { name: "printer.lan", last })]
}
