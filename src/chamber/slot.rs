//! A viewer's slot: what the hub and one viewer's session share.

use alloc::rc::Rc;
use core::cell::RefCell;

use crate::board::BOARD;
use crate::memory::budget;
use crate::memory::pool::Frame;
use crate::memory::ring::{Full, Ring};
use crate::memory::slots::{self, Occupancy};
use crate::pictures::Pictures;

/// State of a viewer's slot.
pub type SlotState = slots::SlotState<Dismissal>;

/// Why the hub closes a viewer's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// The proxy is shutting down.
    Stopping,
    /// `BOARD.clients.chamber` viewers are logged in.
    Full,
    /// The printer has no chamber camera.
    Elsewhere,
}

/// One viewer's state, its pictures that wait, and how many it was sent and lost.
pub struct Slot {
    occupancy: Occupancy<Dismissal>,
    /// Oldest first; the last one is the newest there is.
    ring: RefCell<Ring<Frame, { BOARD.chamber.ring }>>,
    /// Pictures that this connection was sent and lost.
    pub pictures: Pictures,
}

const _: () = slots::assert_fits::<Slot>(budget::CHAMBER_SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            occupancy: Occupancy::new(),
            ring: RefCell::default(),
            pictures: Pictures::default(),
        })
    }

    /// The connection has shown the access code.
    pub fn admit(&self) {
        self.occupancy.activate();
    }

    /// Has the connection closed. The first of several reasons counts.
    pub fn dismiss(&self, why: Dismissal) {
        self.occupancy.dismiss(why);
    }

    /// Adds a new picture. If the ring is full, the viewer loses all pictures in it. Returns how many it lost.
    pub fn offer(&self, picture: Frame) -> u32 {
        let mut ring = self.ring.borrow_mut();
        let Err(Full(picture)) = ring.push(picture) else {
            self.occupancy.notify();
            return 0;
        };
        let lost = u32::try_from(ring.clear()).unwrap_or(u32::MAX);
        // Cannot fail: the ring is empty, and has room for one at least.
        let _fits = ring.push(picture);
        self.pictures.lose(lost);
        self.occupancy.notify();
        lost
    }

    /// The next picture to be sent.
    pub fn next(&self) -> Option<Frame> {
        self.ring.borrow_mut().pop()
    }
}

impl slots::Slot for Slot {
    type Reason = Dismissal;

    fn occupancy(&self) -> &Occupancy<Dismissal> {
        &self.occupancy
    }

    fn clear(&self) {
        self.ring.borrow_mut().clear();
        self.pictures.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};
    use crate::memory::slots::Slot as _;
    use crate::notify::tests::wakes;

    #[test]
    fn a_full_ring_keeps_the_newest_picture_only() {
        const RING: usize = BOARD.chamber.ring;
        let pool: Pool = Pool::new(Shape { count: 0, size: 0 }, Shape { count: RING + 1, size: 4 });
        let slot = Slot::new();
        slot.occupancy.take();
        let offer = |text: &[u8], lost| {
            let picture = pool.store(&[text]).unwrap();
            assert!(wakes(|| slot.notified(), || assert_eq!(slot.offer(picture), lost)));
        };
        for number in 0..RING {
            offer(&[number as u8], 0);
        }
        offer(b"new", RING as u32);
        assert_eq!(slot.next().as_deref(), Some(&b"new"[..]));
        assert!(slot.next().is_none());
        assert_eq!((slot.pictures.sent(), slot.pictures.lost()), (0, RING as u32));
        assert_eq!(pool.in_use(), (0, 0), "lost pictures free their frames");
    }
}
