//! What the hub and one viewer have between them.

use core::cell::{Cell, RefCell};

use alloc::rc::Rc;

use crate::board::BOARD;
use crate::memory::budget;
use crate::memory::pool::Frame;
use crate::memory::ring::{Full, Ring};
use crate::session::Bell;

/// Whose a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
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

/// A viewer's seat: the pictures that wait for it, and how many it got and lost.
pub struct Seat {
    standing: Cell<Standing>,
    /// Oldest first; the last one is the newest there is.
    ring: RefCell<Ring<Frame, { BOARD.chamber.ring }>>,
    sent: Cell<u32>,
    lost: Cell<u32>,
    bell: Bell,
}

const _: () = assert!(
    size_of::<Seat>() + 2 * size_of::<usize>() <= budget::CHAMBER_SEAT,
    "a viewer's seat is larger than its line"
);

impl Seat {
    /// A vacant seat.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            standing: Cell::new(Standing::Vacant),
            ring: RefCell::default(),
            sent: Cell::new(0),
            lost: Cell::new(0),
            bell: Bell::default(),
        })
    }

    /// Whose it is.
    pub fn standing(&self) -> Standing {
        self.standing.get()
    }

    /// Somebody sits down who has not shown the code yet.
    pub fn knock(&self) {
        self.standing.set(Standing::Knocking);
        self.sent.set(0);
        self.lost.set(0);
    }

    /// The code was right.
    pub fn take(&self) {
        self.standing.set(Standing::Taken);
    }

    /// Whoever sits here has to go. Of several reasons the first counts.
    pub fn dismiss(&self, why: Dismissal) {
        match self.standing() {
            Standing::Knocking | Standing::Taken => self.standing.set(Standing::Dismissed(why)),
            Standing::Vacant | Standing::Dismissed(_) => {}
        }
        self.bell.ring();
    }

    /// Whoever sat here has gone.
    pub fn vacate(&self) {
        self.standing.set(Standing::Vacant);
        self.ring.borrow_mut().clear();
    }

    /// There is a new picture. If the ring is full the viewer is behind: it loses all but this one.
    /// How many it lost.
    pub fn offer(&self, picture: Frame) -> u32 {
        let mut ring = self.ring.borrow_mut();
        let Err(Full(picture)) = ring.push(picture) else {
            self.bell.ring();
            return 0;
        };
        let lost = u32::try_from(ring.clear()).unwrap_or(u32::MAX);
        // It fits: the ring is empty, and holds one at least.
        let _fits = ring.push(picture);
        self.lost.set(self.lost.get().saturating_add(lost));
        self.bell.ring();
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
    pub async fn rung(&self) {
        self.bell.rung().await;
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
        let seat = Seat::new();
        seat.knock();
        for number in 0..RING {
            assert_eq!(seat.offer(pool.store(&[&[number as u8]]).unwrap()), 0);
        }
        assert_eq!(seat.offer(pool.store(&[b"new"]).unwrap()), RING as u32);
        assert_eq!(seat.next().as_deref(), Some(&b"new"[..]));
        assert!(seat.next().is_none());
        assert_eq!((seat.sent(), seat.lost()), (0, RING as u32));
        assert_eq!(pool.in_use(), (0, 0), "what was lost is free again");
    }
}
