//! Whoever talks to the proxy: reads as it feels like, says what it is told to, and leaves as it is
//! told to. What it says and makes of what it hears is its [`Party`]'s.

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

/// Between two sips of a slow reader.
const SIP_EVERY: Duration = Duration::from_millis(100);

/// How long a connection stands that nobody looks after.
const FORGOTTEN_FOR: Duration = Duration::from_secs(60);

/// What one side of a conversation makes of the other.
pub(crate) trait Party {
    /// Takes what has come; what there is to say to it goes behind what is in `says`.
    fn hears(&mut self, bytes: &[u8], says: &mut VecDeque<u8>);
}

/// How it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Keen,
    /// So many bytes each tenth of a second.
    Slow(usize),
    /// Nothing.
    Deaf,
}

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// When all has been said.
    Said,
    /// At once, by a FIN.
    Closes,
    /// By a RST.
    Resets,
    /// Without a word.
    Vanishes,
    /// It has gone elsewhere and has forgotten this one, which stands for a while: what is on its way
    /// arrives.
    Abandons,
}

/// One conversation.
pub(crate) struct Talk<P> {
    pub(crate) party: RefCell<P>,
    says: RefCell<VecDeque<u8>>,
    mood: Cell<Mood>,
    leaving: Cell<Option<Leave>>,
    notify: Notify,
    over: Cell<bool>,
}

impl<P: Party + 'static> Talk<P> {
    /// Begins to talk over `wire`, with these words.
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

    /// Says this as soon as it can.
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

    /// Whether it is over, on whoever's side.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether it hears what there is to hear, and has said what it wanted to say.
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
