//! A client's or printer's end of a connection: how it reads, what it sends, and how it disconnects. The
//! protocol is its [`Party`]'s.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::lan::weather::Wire;

/// Between two reads of a slow reader.
const SIP_EVERY: Duration = Duration::from_millis(100);

/// How long an abandoned connection stays.
const FORGOTTEN_FOR: Duration = Duration::from_secs(60);

/// The protocol of one end of a connection.
pub(crate) trait Party {
    /// Handles received bytes; appends bytes to send to `says`.
    fn hears(&mut self, bytes: &[u8], says: &mut VecDeque<u8>);
}

/// How it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Keen,
    /// This many bytes each tenth of a second.
    Slow(usize),
    /// Nothing.
    Deaf,
}

/// How it disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// When everything is sent.
    Said,
    /// At once, by a FIN.
    Closes,
    /// By a RST.
    Resets,
    /// Without a FIN or RST.
    Vanishes,
    /// The party has another connection and has abandoned this one, which stays for a while: bytes in flight
    /// arrives.
    Abandons,
}

/// One connection.
pub(crate) struct Talk<P> {
    pub(crate) party: RefCell<P>,
    says: RefCell<VecDeque<u8>>,
    mood: Cell<Mood>,
    leaving: Cell<Option<Leave>>,
    notify: Notify,
    over: Cell<bool>,
}

impl<P: Party + 'static> Talk<P> {
    /// Begins on `wire`, with these bytes to send.
    pub(crate) fn begin(party: P, first: &[u8], mood: Mood, wire: Wire) -> Rc<Self> {
        let talk = Rc::new(Self {
            party: RefCell::new(party),
            says: RefCell::new(first.iter().copied().collect()),
            mood: Cell::new(mood),
            leaving: Cell::new(None),
            notify: Notify::new(),
            over: Cell::new(false),
        });
        let own = Rc::clone(&talk);
        spawn_local(async move {
            own.attend(wire).await;
            own.over.set(true);
        });
        talk
    }

    /// Sends this as soon as it can.
    pub(crate) fn say(&self, bytes: &[u8]) {
        self.says.borrow_mut().extend(bytes);
        self.notify.notify_one();
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.mood.set(mood);
        self.notify.notify_one();
    }

    pub(crate) fn leave(&self, how: Leave) {
        self.leaving.set(Some(how));
        self.notify.notify_one();
    }

    /// Whether it is over at either end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether it reads everything and has sent everything.
    pub(crate) fn is_keen(&self) -> bool {
        !self.is_over() && self.leaving.get().is_none() && self.mood.get() == Mood::Keen
    }

    async fn attend(&self, wire: Wire) {
        let cutter = wire.cutter();
        let (mut from, mut to) = split(wire);
        let mut room = [0; 4096];
        let mut sip = 0;
        loop {
            match self.leaving.get() {
                Some(Leave::Closes) => return,
                Some(Leave::Said) if self.says.borrow().is_empty() => return,
                Some(Leave::Resets) => return cutter.reset(),
                Some(Leave::Vanishes) => return cutter.vanish(),
                Some(Leave::Abandons) => {
                    self.over.set(true);
                    return sleep(FORGOTTEN_FOR).await;
                }
                Some(Leave::Said) | None => {}
            }
            let piece: Vec<u8> = self.says.borrow().iter().take(4096).copied().collect();
            let (reads, rests) = match self.mood.get() {
                Mood::Keen => (room.len(), false),
                Mood::Slow(bytes) => {
                    if sip == 0 {
                        sip = bytes.min(room.len());
                    }
                    (sip, false)
                }
                Mood::Deaf => (0, true),
            };
            select! {
                biased;
                () = self.notify.notified() => {}
                wrote = to.write(&piece), if !piece.is_empty() => match wrote {
                    Ok(len) => drop(self.says.borrow_mut().drain(..len)),
                    Err(_) => return,
                },
                read = from.read(&mut room[..reads]), if !rests => match read {
                    Ok(0) | Err(_) => return,
                    Ok(len) => {
                        self.party.borrow_mut().hears(&room[..len], &mut self.says.borrow_mut());
                        if matches!(self.mood.get(), Mood::Slow(_)) {
                            sip = 0;
                            sleep(SIP_EVERY).await;
                        }
                    }
                },
            }
        }
    }
}
