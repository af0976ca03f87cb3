//! What the hub and one player have between them.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::RING;
use crate::memory::budget;
use crate::memory::pool::Frame;
use crate::memory::ring::Ring;
use crate::notify::Notify;

/// Packets of one picture, or a part of them, as interleaved frames one behind the other. Its tag is the
/// picture's number.
pub type Block = Frame<u32>;

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody's.
    Vacant,
    /// Somebody's who has not shown the code yet.
    Knocking,
    /// A player's.
    Taken,
    /// Somebody's who has to go, for this reason.
    Dismissed(Dismissal),
}

/// Why a player has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// The program ends.
    Stopping,
    /// All players' places are taken.
    Full,
    /// The camera shows something else than what this player was told.
    Changed,
}

/// Whether a player is shown pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It has not asked for them, or does not want them for a while.
    Still,
    /// It has to begin at a key frame, and waits for one. Whether that is because it fell behind.
    Waits {
        /// It saw pictures before, and was too slow.
        behind: bool,
    },
    /// It is shown every picture.
    Flows,
}

/// A player's slot: the blocks that wait for it, and how many pictures it got and lost.
pub struct Slot {
    standing: Cell<SlotState>,
    flow: Cell<Flow>,
    /// Oldest first, whole pictures, but for the first one, of which some may have gone.
    ring: RefCell<Ring<Block, RING>>,
    /// The picture that the player took the last block of.
    current: Cell<Option<u32>>,
    /// Whether it was told what the camera shows.
    told: Cell<bool>,
    sent: Cell<u32>,
    lost: Cell<u32>,
    notify: Notify,
}

const _: () = assert!(
    size_of::<Slot>() + 2 * size_of::<usize>() <= budget::RTSP_SLOT,
    "a player's seat is larger than its line"
);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            standing: Cell::new(SlotState::Vacant),
            flow: Cell::new(Flow::Still),
            ring: RefCell::default(),
            current: Cell::new(None),
            told: Cell::new(false),
            sent: Cell::new(0),
            lost: Cell::new(0),
            notify: Notify::default(),
        })
    }

    /// Whose it is.
    pub fn standing(&self) -> SlotState {
        self.standing.get()
    }

    /// Whether pictures are shown here.
    pub fn flow(&self) -> Flow {
        self.flow.get()
    }

    /// Somebody sits down who has not shown the code yet.
    pub fn pending(&self) {
        self.standing.set(SlotState::Knocking);
        self.told.set(false);
        self.sent.set(0);
        self.lost.set(0);
    }

    /// The code was right.
    pub fn take(&self) {
        self.standing.set(SlotState::Taken);
    }

    /// Whoever sits here has to go, and is shown nothing more: it may be stuck, and what waits for it would
    /// be held on to, while somebody else has its place already. Of several reasons the first counts.
    pub fn dismiss(&self, why: Dismissal) {
        self.pause();
        match self.standing() {
            SlotState::Knocking | SlotState::Taken => self.standing.set(SlotState::Dismissed(why)),
            SlotState::Vacant | SlotState::Dismissed(_) => {}
        }
        self.notify.notify();
    }

    /// Whoever sat here has gone.
    pub fn vacate(&self) {
        self.standing.set(SlotState::Vacant);
        self.pause();
    }

    /// Whoever sits here was told what the camera shows, and relies on it.
    pub fn tell(&self) {
        self.told.set(true);
    }

    /// Whether they were.
    pub fn is_told(&self) -> bool {
        self.told.get()
    }

    /// Pictures are wanted: first these blocks, which begin with a key frame, or if there are none, the
    /// next key frame.
    pub fn play<'b>(&self, group: impl Iterator<Item = &'b Block>) {
        let mut ring = self.ring.borrow_mut();
        ring.clear();
        for block in group {
            // They fit: a group has no more than half of a ring.
            let _fits = ring.push(block.clone());
        }
        let flow = if ring.is_empty() { Flow::Waits { behind: false } } else { Flow::Flows };
        self.flow.set(flow);
        self.notify.notify();
    }

    /// Pictures are not wanted any more, or not for a while.
    pub fn pause(&self) {
        self.flow.set(Flow::Still);
        self.ring.borrow_mut().clear();
        self.current.set(None);
    }

    /// There is a new picture, in these blocks. A player whose ring does not hold it has fallen behind:
    /// it keeps what is left of the picture that it is in the middle of, and goes on at the next key
    /// frame, which this one may be.
    pub fn show(&self, picture: &[Block], is_key: bool) {
        let may_begin = match self.flow() {
            Flow::Still => return,
            Flow::Waits { .. } => is_key,
            Flow::Flows => true,
        };
        let mut ring = self.ring.borrow_mut();
        let fits = |ring: &Ring<Block, RING>| ring.len() + picture.len() <= RING;
        let mut shown = may_begin && fits(&ring);
        if may_begin && !shown {
            self.lose(fall_behind(&mut ring, self.current.get()));
            self.flow.set(Flow::Waits { behind: true });
            shown = is_key && fits(&ring);
        }
        if shown {
            for block in picture {
                // It fits: that was just looked at.
                let _fits = ring.push(block.clone());
            }
            self.flow.set(Flow::Flows);
            self.notify.notify();
        } else if self.flow() == (Flow::Waits { behind: true }) {
            self.lose(1);
        }
    }

    /// A picture is missing, for all: what follows leans on it, so nothing is shown before the next key
    /// frame.
    pub fn interrupt(&self) {
        if self.flow() == Flow::Flows {
            self.flow.set(Flow::Waits { behind: false });
            self.notify.notify();
        }
    }

    fn lose(&self, pictures: u32) {
        self.lost.set(self.lost.get().saturating_add(pictures));
    }

    /// The next block to be sent.
    pub fn next(&self) -> Option<Block> {
        let block = self.ring.borrow_mut().pop()?;
        if self.current.replace(Some(*block.tag())) != Some(*block.tag()) {
            self.sent.set(self.sent.get().saturating_add(1));
        }
        Some(block)
    }

    /// The first block that waits, if any does: what a player that has just begun will see first.
    pub fn first(&self) -> Option<Block> {
        self.ring.borrow().iter().next().cloned()
    }

    /// Pictures that whoever sits here was sent.
    pub fn sent(&self) -> u32 {
        self.sent.get()
    }

    /// Pictures that whoever sits here lost by being slow.
    pub fn lost(&self) -> u32 {
        self.lost.get()
    }

    /// Wakes whoever sits here: something has changed.
    pub fn notify(&self) {
        self.notify.notify();
    }

    /// Completes when there is something new.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

/// Forgets all blocks but those of the picture `current`. How many pictures that were.
fn fall_behind(ring: &mut Ring<Block, RING>, current: Option<u32>) -> u32 {
    let mut lost = 0;
    let mut last = current;
    // Once around, so that the order stays as it was.
    for _ in 0..ring.len() {
        let Some(block) = ring.pop() else { break };
        let number = Some(*block.tag());
        if number == current {
            // It fits: it was just taken from there.
            let _fits = ring.push(block);
        } else if number != last {
            lost += 1;
        }
        last = number;
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};
    use alloc::vec::Vec;

    struct Shown {
        pool: Pool<u32>,
        slot: Rc<Slot>,
    }

    impl Shown {
        fn new() -> Self {
            let shape = Shape { count: 3 * RING, size: 4 };
            let slot = Slot::new();
            slot.pending();
            slot.take();
            Self { pool: Pool::new(Shape { count: 0, size: 0 }, shape), slot }
        }

        fn picture(&self, number: u32, blocks: usize) -> Vec<Block> {
            (0..blocks).map(|_| self.pool.store_tagged(&[b"x"], number).unwrap()).collect()
        }

        fn show(&self, number: u32, blocks: usize, is_key: bool) {
            self.slot.show(&self.picture(number, blocks), is_key);
        }

        fn left(&self) -> Vec<u32> {
            core::iter::from_fn(|| self.slot.next()).map(|block| *block.tag()).collect()
        }
    }

    #[test]
    fn who_does_not_play_is_shown_nothing_and_who_begins_waits_for_a_key_frame() {
        let shown = Shown::new();
        shown.show(0, 1, true);
        assert!(shown.slot.next().is_none());
        shown.slot.play([].iter());
        shown.show(1, 1, false);
        shown.show(2, 2, true);
        shown.show(3, 1, false);
        assert_eq!(shown.left(), [2, 2, 3]);
        assert_eq!((shown.slot.sent(), shown.slot.lost()), (2, 0), "waiting is not losing");
    }

    #[test]
    fn who_begins_within_a_group_is_shown_it_from_its_key_frame() {
        let shown = Shown::new();
        let group = [shown.picture(5, 2), shown.picture(6, 1)].concat();
        shown.slot.play(group.iter());
        shown.show(7, 1, false);
        assert_eq!(shown.left(), [5, 5, 6, 7]);
    }

    #[test]
    fn who_is_behind_finishes_its_picture_and_goes_on_at_the_next_key_frame() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        shown.show(0, 3, true);
        // In the middle of the first picture.
        assert_eq!(shown.slot.next().map(|block| *block.tag()), Some(0));
        for number in 1..=RING as u32 - 2 {
            shown.show(number, 1, false);
        }
        assert_eq!(shown.slot.lost(), 0, "the ring is full, and nothing is lost yet");
        shown.show(500, 1, false);
        assert_eq!(shown.slot.flow(), Flow::Waits { behind: true });
        assert_eq!(shown.slot.lost(), RING as u32 - 1, "all that was whole, and the new one");
        shown.show(501, 1, false);
        shown.show(502, 2, true);
        shown.show(503, 1, false);
        assert_eq!(shown.left(), [0, 0, 502, 502, 503], "no picture is torn");
        assert_eq!(shown.slot.lost(), RING as u32);
    }

    #[test]
    fn who_falls_behind_at_a_key_frame_goes_on_with_it() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        for number in 0..RING as u32 {
            shown.show(number, 1, number == 0);
        }
        shown.show(700, 1, true);
        assert_eq!(shown.left(), [700]);
        assert_eq!(shown.slot.lost(), RING as u32);
    }

    #[test]
    fn who_pauses_holds_on_to_nothing() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        shown.show(0, 3, true);
        shown.slot.pause();
        assert_eq!(shown.pool.in_use(), (0, 0));
        assert!(shown.slot.next().is_none());
    }
}
