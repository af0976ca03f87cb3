//! A client's slot: what the hub, the printer's sessions and one client's own session have between them.
//!
//! It holds what the client has set, the command it has under way, and what it has still to hear. Seats
//! are made at the start and taken by one client after another.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use super::PATH;
use super::wire::{LINE, Replies, Shown};
use crate::clock::Instant;
use crate::notify::Notify;
use crate::peer::Peer;

/// How long a data port that was announced stays open, unused.
pub const PASSIVE_PORT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client has still to hear: a line of the printer's, one more of it, and one of ours.
pub const OUT: usize = 3 * LINE;

/// How bytes are represented in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `A`: text. What a session begins with (RFC 959).
    Ascii,
    /// `I`: as they are.
    Image,
}

/// Whether data connections are under TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prot {
    /// `C`: they are not. What a session begins with (RFC 4217).
    Clear,
    /// `P`: they are.
    Private,
}

/// What a command wants of the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// An answer, whatever it is.
    Plain,
    /// FEAT: an answer from which is taken what is not had here.
    Features,
    /// ALLO.
    Allocate,
    /// SIZE: as [`Plain`](Self::Plain), in the client's type.
    Size,
    /// CWD, CDUP: and then to know where that is.
    ChangeDirectory,
    /// REST: an honest answer; it is sent again before the transfer.
    Restart,
    /// RNFR: as REST.
    RenameFrom,
    /// RNTO.
    RenameTo,
    /// Data.
    Transfer(Transfer),
}

impl CommandKind {
    /// Which data are to be moved, if any.
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

    /// Whether it goes before what is none.
    pub fn is_upload(self) -> bool {
        self.transfer().is_some_and(Transfer::is_upload)
    }
}

/// Data that are to be moved.
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

/// A command that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its ticket.
    pub number: u32,
    /// What it wants.
    pub command_kind: CommandKind,
    /// How far it is.
    pub stage: Stage,
    /// Whether it was tried on a session that turned out to be gone.
    pub tried: bool,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client has not connected to its data port yet.
    Connecting {
        /// How long it may take.
        until: Instant,
    },
    /// It waits for a session.
    Queued {
        /// How long it may take.
        until: Instant,
    },
    /// It has one.
    Running {
        /// Which.
        printer_session: usize,
    },
}

/// How a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody sits here.
    Vacant,
    /// Somebody is at the acceptor.
    Knocking,
    /// A client.
    Occupied,
    /// A client that has to go: this program ends.
    Dismissed,
}

/// A client's data port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassivePort {
    /// There is none.
    Closed,
    /// It is open, and nobody has come.
    Open {
        /// How long.
        until: Instant,
    },
    /// The client has connected.
    Connected {
        /// How long that may stay unused.
        until: Instant,
    },
}

/// One client's slot: what the hub, the printer's sessions and the client's own have between them.
pub struct Slot {
    pub(super) index: usize,
    pub(super) standing: Cell<SlotState>,
    pub(super) peer: Cell<Option<Peer>>,
    /// What the client has still to hear.
    out: RefCell<heapless::Vec<u8, OUT>>,
    /// Whether the printer is in the middle of a reply to it.
    replies: Cell<Replies>,
    /// Something else had to be said in the middle of one.
    torn: Cell<bool>,
    pub(super) task: Cell<Option<Task>>,
    /// The line of the command under way, without its end.
    pub(super) line: RefCell<heapless::Vec<u8, LINE>>,
    /// Where the argument begins in it.
    pub(super) argument_at: Cell<usize>,
    pub(super) passive_port: Cell<PassivePort>,
    passive_port_notify: Notify,
    /// What the client has set.
    pub(super) kind: Cell<Type>,
    pub(super) prot: Cell<Prot>,
    /// Its directory; empty: where a session begins.
    pub(super) directory: RefCell<heapless::Vec<u8, PATH>>,
    pub(super) restart: Cell<Option<u64>>,
    /// What it is about to rename; empty: nothing.
    pub(super) renaming: RefCell<heapless::Vec<u8, LINE>>,
    /// How large its next upload will be, if it said so.
    pub(super) announced: Cell<Option<u64>>,
    /// The file whose size it asked for last, as a hash, and that size.
    pub(super) sized: Cell<Option<(u64, u64)>>,
    notify: Notify,
}

impl Slot {
    pub(super) fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            standing: Cell::new(SlotState::Vacant),
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
            notify: Notify::default(),
        })
    }

    pub(super) fn forget(&self) {
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

    /// Which one it is, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How its client stands.
    pub fn standing(&self) -> SlotState {
        self.standing.get()
    }

    /// Who sits here.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.get()
    }

    /// The command under way.
    pub fn task(&self) -> Option<Task> {
        self.task.get()
    }

    /// The argument of the command under way.
    pub(super) fn with_argument<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        then(self.line.borrow().get(self.argument_at.get()..).unwrap_or_default())
    }

    /// Its data port.
    pub fn passive_port(&self) -> PassivePort {
        self.passive_port.get()
    }

    /// The data port is open.
    pub fn open_passive_port(&self, now: Instant) {
        self.passive_port.set(PassivePort::Open { until: now + PASSIVE_PORT_TIMEOUT });
        self.passive_port_notify.notify();
    }

    /// The data port is not needed any more; the runtime closes it.
    pub fn close_passive_port(&self) {
        self.passive_port.set(PassivePort::Closed);
        self.passive_port_notify.notify();
    }

    /// Completes when the data port may have been opened or closed.
    pub async fn passive_port_notified(&self) {
        self.passive_port_notify.notified().await;
    }

    /// Adds one line for the client; its end is added here. In the middle of a reply of the printer's it
    /// would be taken for more of that: the conversation is over then.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        if self.tear_if_mid_reply() {
            return self.notify.notify();
        }
        let mut out = self.out.borrow_mut();
        // It fits: whoever speaks has looked for room. If not, a cut line is better than none.
        let _fits = out.write_fmt(line);
        let _fits = out.extend_from_slice(b"\r\n");
        self.notify.notify();
    }

    /// Adds one line of the printer's.
    pub(super) fn forward(&self, line: &[u8]) {
        let mut replies = self.replies.get();
        let _part = replies.take(line);
        self.replies.set(replies);
        let mut out = self.out.borrow_mut();
        let _fits = out.extend_from_slice(line);
        let _fits = out.extend_from_slice(b"\r\n");
        self.notify.notify();
    }

    /// Whether the client has heard the beginning of a reply of the printer's, and not its end.
    pub(super) fn is_mid_reply(&self) -> bool {
        self.replies.get().is_open()
    }

    /// Nothing will bring a reply that has begun to its end. Whether there is one.
    pub(super) fn tear_if_mid_reply(&self) -> bool {
        let is_torn = self.is_mid_reply();
        self.torn.set(self.torn.get() || is_torn);
        is_torn
    }

    /// Whether a reply will never come to its end.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.get()
    }

    /// Whether the client has heard everything.
    pub fn is_quiet(&self) -> bool {
        self.out.borrow().is_empty()
    }

    /// Whether a line of the printer's fits, and one of ours behind it.
    pub(super) fn has_room(&self) -> bool {
        self.out.borrow().len() <= LINE
    }

    /// Moves what the client has to hear into `to`: how much of it.
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

    /// Rings the client's notify.
    pub fn notify(&self) {
        self.notify.notify();
    }

    /// Completes when there is something for the client.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}
