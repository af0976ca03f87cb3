//! A client's slot: shared by the client's session and the hub.
//!
//! It holds the client's settings, its command that is queued or runs, and the replies that were not sent yet. Slots are
//! allocated at the start and used by one client after another.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use super::PATH;
use super::wire::{LINE, Replies, Shown};
use crate::clock::Instant;
use crate::memory::slots::{self, Occupancy};
use crate::notify::Notify;
use crate::peer::Peer;

/// Time after which an unused data port is closed.
pub const PASSIVE_PORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of replies that may wait for a client: two lines of the printer and one of the proxy.
pub const OUT: usize = 3 * LINE;

/// TYPE: how bytes are represented in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `A`: text; the default (RFC 959).
    Ascii,
    /// `I`: unchanged.
    Image,
}

/// PROT: whether data connections use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prot {
    /// `C`: no TLS; the default (RFC 4217).
    Clear,
    /// `P`: TLS.
    Private,
}

/// How a command's reply is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// The reply is passed on.
    Plain,
    /// FEAT: features that the proxy does not support are removed from the reply.
    Features,
    /// ALLO: announces the size of an upload.
    Allocate,
    /// SIZE: as [`Plain`](Self::Plain), after TYPE.
    Size,
    /// CWD, CDUP: followed by PWD.
    ChangeDirectory,
    /// REST: sent again before the transfer.
    Restart,
    /// RNFR: sent again before RNTO.
    RenameFrom,
    /// RNTO: after the client's RNFR.
    RenameTo,
    /// A data transfer.
    Transfer(Transfer),
}

impl CommandKind {
    /// The data transfer, if it is one.
    pub const fn transfer(self) -> Option<Transfer> {
        match self {
            Self::Transfer(transfer) => Some(transfer),
            Self::Plain
            | Self::Features
            | Self::Allocate
            | Self::Size
            | Self::ChangeDirectory
            | Self::Restart
            | Self::RenameFrom
            | Self::RenameTo => None,
        }
    }

    /// The command as a noun.
    pub const fn word(self) -> &'static str {
        match self.transfer() {
            Some(transfer) => transfer.word(),
            None => "command",
        }
    }

    /// Whether it is an upload: uploads go first.
    pub fn is_upload(self) -> bool {
        self.transfer().is_some_and(Transfer::is_upload)
    }
}

/// A data transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// LIST, NLST, MLSD.
    List,
    /// RETR.
    Retrieve,
    /// STOR.
    Store,
    /// STOU.
    StoreUnique,
    /// APPE.
    Append,
}

impl Transfer {
    /// Whether the data go to the printer.
    pub const fn is_upload(self) -> bool {
        match self {
            Self::Store | Self::StoreUnique | Self::Append => true,
            Self::List | Self::Retrieve => false,
        }
    }

    /// The transfer as a noun, for the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::List => "listing",
            Self::Retrieve => "download",
            Self::Store | Self::StoreUnique | Self::Append => "upload",
        }
    }

    /// The transfer with its file or directory, for the log: `upload "x.3mf"`.
    pub fn of(self, name: &[u8]) -> TransferName<'_> {
        let name = if name.is_empty() && self == Self::List { b"." } else { name };
        TransferName { word: self.word(), name }
    }
}

/// A transfer with its file or directory, as the log names it.
#[derive(Clone, Copy, Debug)]
pub struct TransferName<'a> {
    word: &'static str,
    name: &'a [u8],
}

impl fmt::Display for TransferName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.word, Shown(self.name))
    }
}

/// A client's command that is queued or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The command's number: older commands have lower numbers.
    pub number: u32,
    /// How the command's reply is treated.
    pub command_kind: CommandKind,
    /// What the command waits for.
    pub stage: Stage,
    /// Whether the command was given to a printer session that turned out to be lost.
    pub tried: bool,
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client's data connection.
    Connecting {
        /// Deadline.
        until: Instant,
    },
    /// One of the printer's sessions.
    Queued {
        /// Deadline.
        until: Instant,
    },
    /// The printer's replies.
    Running {
        /// Index of the printer session.
        printer_session: usize,
    },
}

/// State of a client's slot. A client is dismissed when the program ends.
pub type SlotState = slots::SlotState<()>;

/// State of a client's data port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassivePort {
    /// Closed.
    Closed,
    /// Open, without a connection.
    Open {
        /// Deadline of the connection.
        until: Instant,
    },
    /// The client has connected; the port is closed to others.
    Connected {
        /// Time until which the connection is kept without a transfer.
        until: Instant,
    },
}

/// One client's slot.
pub struct Slot {
    pub(super) index: usize,
    occupancy: Occupancy<()>,
    pub(super) peer: Cell<Option<Peer>>,
    /// Replies that were not sent yet.
    out: RefCell<heapless::Vec<u8, OUT>>,
    /// Whether the client has got the beginning of a reply of the printer's, but not its end.
    replies: Cell<Replies>,
    /// Whether a reply will never be completed.
    torn: Cell<bool>,
    pub(super) task: Cell<Option<Task>>,
    /// The command's line, without CRLF.
    pub(super) line: RefCell<heapless::Vec<u8, LINE>>,
    /// Offset of the argument in it.
    pub(super) argument_at: Cell<usize>,
    pub(super) passive_port: Cell<PassivePort>,
    passive_port_notify: Notify,
    /// The client's TYPE and PROT.
    pub(super) kind: Cell<Type>,
    pub(super) prot: Cell<Prot>,
    /// The client's directory. Empty: the directory of the login.
    pub(super) directory: RefCell<heapless::Vec<u8, PATH>>,
    pub(super) restart: Cell<Option<u64>>,
    /// The client's RNFR line. Empty: no rename is pending.
    pub(super) renaming: RefCell<heapless::Vec<u8, LINE>>,
    /// Bytes of the next upload, if ALLO announced them.
    pub(super) announced: Cell<Option<u64>>,
    /// Hash of the name in the last SIZE, and its reply.
    pub(super) sized: Cell<Option<(u64, u64)>>,
}

impl Slot {
    pub(super) fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            occupancy: Occupancy::new(),
            peer: Cell::new(None),
            out: RefCell::new(heapless::Vec::new()),
            replies: Cell::new(Replies::default()),
            torn: Cell::new(false),
            task: Cell::new(None),
            line: RefCell::new(heapless::Vec::new()),
            argument_at: Cell::new(0),
            passive_port: Cell::new(PassivePort::Closed),
            passive_port_notify: Notify::default(),
            kind: Cell::new(Type::Ascii),
            prot: Cell::new(Prot::Clear),
            directory: RefCell::new(heapless::Vec::new()),
            restart: Cell::new(None),
            renaming: RefCell::new(heapless::Vec::new()),
            announced: Cell::new(None),
            sized: Cell::new(None),
        })
    }

    /// The slot's index, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The client, for the log.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.get()
    }

    /// The command that is queued or runs.
    pub fn task(&self) -> Option<Task> {
        self.task.get()
    }

    /// The argument of the command under way.
    pub(super) fn with_argument<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(self.line.borrow().get(self.argument_at.get()..).unwrap_or_default())
    }

    /// State of the data port.
    pub fn passive_port(&self) -> PassivePort {
        self.passive_port.get()
    }

    /// The data port was opened.
    pub fn open_passive_port(&self, now: Instant) {
        self.passive_port.set(PassivePort::Open { until: now + PASSIVE_PORT_TIMEOUT });
        self.passive_port_notify.notify();
    }

    /// The data port is not needed any more: the runtime closes it.
    pub fn close_passive_port(&self) {
        self.passive_port.set(PassivePort::Closed);
        self.passive_port_notify.notify();
    }

    /// Completes when the data port may have been opened or closed.
    pub async fn passive_port_notified(&self) {
        self.passive_port_notify.notified().await;
    }

    /// Adds a reply line of the proxy, and CRLF. In the middle of a printer's reply the client would take the line for a
    /// part of that reply: then the client is disconnected instead.
    pub fn reply(&self, line: fmt::Arguments<'_>) {
        if self.tear_if_mid_reply() {
            return self.occupancy.notify();
        }
        let mut out = self.out.borrow_mut();
        // The line fits: callers check for room.
        let _fits = out.write_fmt(line);
        let _fits = out.extend_from_slice(b"\r\n");
        self.occupancy.notify();
    }

    /// Adds a reply line of the printer, and CRLF.
    pub(super) fn forward(&self, line: &[u8]) {
        let mut replies = self.replies.get();
        let _part = replies.take(line);
        self.replies.set(replies);
        let mut out = self.out.borrow_mut();
        let _fits = out.extend_from_slice(line);
        let _fits = out.extend_from_slice(b"\r\n");
        self.occupancy.notify();
    }

    /// Whether a printer's reply has begun and not ended.
    pub(super) fn is_mid_reply(&self) -> bool {
        self.replies.get().is_open()
    }

    /// Marks a reply that has begun as one that will never be completed. Returns whether there is such a reply.
    pub(super) fn tear_if_mid_reply(&self) -> bool {
        let is_torn = self.is_mid_reply();
        self.torn.set(self.torn.get() || is_torn);
        is_torn
    }

    /// Whether a reply that has begun will never be completed.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.get()
    }

    /// Whether all replies have been sent.
    pub fn is_quiet(&self) -> bool {
        self.out.borrow().is_empty()
    }

    /// Whether there is room for a line of the printer and one of the proxy.
    pub(super) fn has_room(&self) -> bool {
        self.out.borrow().len() <= LINE
    }

    /// Moves replies into `to`. Returns how many bytes.
    pub fn take(&self, to: &mut [u8]) -> usize {
        let mut out = self.out.borrow_mut();
        let len = out.len().min(to.len());
        let (Some(to), Some(from)) = (to.get_mut(..len), out.get(..len)) else { return 0 };
        to.copy_from_slice(from);
        let rest = out.len() - len;
        out.copy_within(len.., 0);
        out.truncate(rest);
        len
    }
}

impl slots::Slot for Slot {
    type Reason = ();

    fn occupancy(&self) -> &Occupancy<()> {
        &self.occupancy
    }

    fn clear(&self) {
        self.peer.set(None);
        self.out.borrow_mut().clear();
        self.replies.set(Replies::default());
        self.torn.set(false);
        self.task.set(None);
        self.line.borrow_mut().clear();
        self.argument_at.set(0);
        self.kind.set(Type::Ascii);
        self.prot.set(Prot::Clear);
        self.directory.borrow_mut().clear();
        self.restart.set(None);
        self.renaming.borrow_mut().clear();
        self.announced.set(None);
        self.sized.set(None);
        self.close_passive_port();
    }
}
