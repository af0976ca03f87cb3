//! What the hub and one viewer have between them.

use core::cell::{Cell, RefCell};

use alloc::rc::Rc;

use crate::board::BOARD;
use crate::memory::budget;
use crate::memory::pool::Frame;
use crate::memory::ring::{Full, Ring};
use crate::notify::Notify;

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody's.
    Vacant,
    /// Somebody's who has not shown the code yet.
    Knocking,
    /// A viewer's.
    Taken,
    /// Somebody's who has to go, for this reason.
    Dismissed(Dismissal),
}

/// Why a viewer has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// The program ends.
    Stopping,
    /// All viewers' places are taken.
    Full,
    /// This printer's camera is elsewhere.
    Elsewhere,
}

/// A viewer's slot: the pictures that wait for it, and how many it got and lost.
pub struct Slot {
    standing: Cell<SlotState>,
    /// Oldest first; the last one is the newest there is.
    ring: RefCell<Ring<Frame, { BOARD.chamber.ring }>>,
    sent: Cell<u32>,
    lost: Cell<u32>,
    notify: Notify,
}

const _: () = assert!(
    size_of::<Slot>() + 2 * size_of::<usize>() <= budget::CHAMBER_SLOT,
    "a viewer's seat is larger than its line"
);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            standing: Cell::new(SlotState::Vacant),
            ring: RefCell::default(),
            sent: Cell::new(0),
            lost: Cell::new(0),
            notify: Notify::default(),
        })
    }

    /// Whose it is.
    pub fn standing(&self) -> SlotState {
        self.standing.get()
    }

    /// Somebody sits down who has not shown the code yet.
    pub fn pending(&self) {
        self.standing.set(SlotState::Knocking);
        self.sent.set(0);
        self.lost.set(0);
    }

    /// The code was right.
    pub fn take(&self) {
        self.standing.set(SlotState::Taken);
    }

    /// Whoever sits here has to go. Of several reasons the first counts.
    pub fn dismiss(&self, why: Dismissal) {
        match self.standing() {
            SlotState::Knocking | SlotState::Taken => self.standing.set(SlotState::Dismissed(why)),
            SlotState::Vacant | SlotState::Dismissed(_) => {}
        }
        self.notify.notify();
    }

    /// Whoever sat here has gone.
    pub fn vacate(&self) {
        self.standing.set(SlotState::Vacant);
        self.ring.borrow_mut().clear();
    }

    /// There is a new picture. If the ring is full the viewer is behind: it loses all but this one.
    /// How many it lost.
    pub fn offer(&self, picture: Frame) -> u32 {
        let mut ring = self.ring.borrow_mut();
        let Err(Full(picture)) = ring.push(picture) else {
            self.notify.notify();
            return 0;
        };
        let lost = u32::try_from(ring.clear()).unwrap_or(u32::MAX);
        // It fits: the ring is empty, and holds one at least.
        let _fits = ring.push(picture);
        self.lost.set(self.lost.get().saturating_add(lost));
        self.notify.notify();
        lost
    }

    /// The next picture to be sent.
    pub fn next(&self) -> Option<Frame> {
        self.ring.borrow_mut().pop()
    }

    /// A picture was sent.
    pub fn sent_one(&self) {
        self.sent.set(self.sent.get().saturating_add(1));
    }

    /// Pictures that whoever sits here was sent.
    pub fn sent(&self) -> u32 {
        self.sent.get()
    }

    /// Pictures that whoever sits here lost.
    pub fn lost(&self) -> u32 {
        self.lost.get()
    }

    /// Completes when there is something new.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};

    #[test]
    fn a_viewer_that_is_behind_loses_all_but_the_newest() {
        const RING: usize = BOARD.chamber.ring;
        let pool: Pool = Pool::new(Shape { count: 0, size: 0 }, Shape { count: RING + 1, size: 4 });
        let slot = Slot::new();
        slot.pending();
        for number in 0..RING {
            assert_eq!(slot.offer(pool.store(&[&[number as u8]]).unwrap()), 0);
        }
        assert_eq!(slot.offer(pool.store(&[b"new"]).unwrap()), RING as u32);
        assert_eq!(slot.next().as_deref(), Some(&b"new"[..]));
        assert!(slot.next().is_none());
        assert_eq!((slot.sent(), slot.lost()), (0, RING as u32));
        assert_eq!(pool.in_use(), (0, 0), "what was lost is free again");
    }
}
