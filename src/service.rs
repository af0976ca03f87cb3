//! What the composition root does with any running service, whatever its protocol, and what a service shows of itself.

use core::any::Any;
use core::fmt;

use crate::clock::Instant;
use crate::memory::slots::Occupant;

/// A running service.
pub trait Service: Any {
    /// Its name in the log.
    fn name(&self) -> &'static str;

    /// Lets the service's own deadlines pass; called once a second.
    fn handle_timeout(&self, now: Instant) {
        let _ = now;
    }

    /// Client connections being served.
    fn connections(&self) -> usize;

    /// Disconnects every client.
    fn disconnect_all(&self);

    /// Ends the connection to the printer in order, and starts no other.
    fn shut_down(&self);

    /// Whether the printer has accepted the service's login and its connection is up. `None`: the service does not know,
    /// or has no such connection.
    fn is_connected(&self) -> Option<bool> {
        None
    }

    /// Whether a client needs the connection to the printer now: while none does, a failed connection is shown as idle.
    /// `None`: a failed connection is always shown.
    fn is_wanted(&self) -> Option<bool> {
        None
    }

    /// Shows the clients and the transfers that there are now. A service shows each of them once, in an order that stays
    /// while they do.
    fn describe(&self, visitor: &mut dyn Visitor) {
        let _ = visitor;
    }

    /// Shows what it has a fixed number of, apart from clients.
    fn bounds(&self, show: &mut dyn FnMut(Bound)) {
        let _ = show;
    }

    /// Length and limit of the queue for the printer. `None`: the service has none.
    fn queue(&self) -> Option<(usize, usize)> {
        None
    }

    /// Writes what an operator asks for with SIGUSR1: one line that ends in a line feed.
    ///
    /// # Errors
    ///
    /// `out` fails.
    fn write_status(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: {} connections", self.name(), self.connections())
    }
}

/// Something that a service has a fixed number of.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// What it is, in words.
    pub what: &'static str,
    /// How many are in use.
    pub used: usize,
    /// How many there are.
    pub limit: usize,
}

/// What is shown the clients of a service.
pub trait Visitor {
    /// A client's connection.
    fn connection(&mut self, connection: &Connection<'_>);

    /// A file that is being transferred, or waits for that.
    fn transfer(&mut self, transfer: &Transfer<'_>);
}

/// A client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// A number that the connection alone has at its service while it lasts, below 30,000.
    pub index: usize,
    /// The client, and when it connected.
    pub occupant: Occupant,
    /// How the client calls itself: a client identifier, a user agent. Empty: unknown.
    pub id: &'a str,
    /// Reports, pictures or requests that were dropped because the client reads too slowly.
    pub lost: u32,
}

/// A file transfer of a client.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// As for a [`Connection`].
    pub index: usize,
    /// The client's number in the log.
    pub client: u32,
    /// `upload`, `download`, `listing`, or `command`: one without data, which waits all the same.
    pub kind: &'static str,
    /// The file or folder, as the client names it; of a command its whole line. Empty: none, or no UTF-8.
    pub name: &'a str,
    /// Bytes transferred.
    pub bytes: u64,
    /// Bytes in all, if the client or the printer has told them.
    pub size: Option<u64>,
    /// Whether it has begun; else it waits for the printer.
    pub is_moving: bool,
    /// When it was asked for, or began.
    pub since: Option<Instant>,
    /// What it waits for, if it does.
    pub wait: Option<Waiting>,
}

/// What a transfer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the queue for the printer: the next one is the first. `None`: it is not in the queue yet.
    pub position: Option<usize>,
    /// What has to end or to come first.
    pub waits_for: Awaited,
}

/// What a transfer that waits needs. `Display` is what it waits for, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A client's, which the printer serves now.
    Client {
        /// What it is.
        what: &'static str,
        /// The client's number in the log.
        client: u32,
    },
    /// The printer, which is being connected to, or is to answer.
    Printer,
    /// The client itself, which is to connect for the file.
    DataConnection,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { what, client } => write!(f, "the {what} of client {client}"),
            Self::Printer => f.write_str("the printer"),
            Self::DataConnection => f.write_str("the client's data connection"),
        }
    }
}
