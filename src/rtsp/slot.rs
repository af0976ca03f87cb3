//! A player's slot: what the hub and one player's session share.

use alloc::rc::Rc;
use core::cell::{Cell, Ref, RefCell};

use super::RING;
use crate::counts::{self, Count};
use crate::memory::budget;
use crate::memory::pool::Frame;
use crate::memory::ring::Ring;
use crate::memory::slots::{self, Occupancy};
use crate::pictures::Pictures;

/// Packets of one picture, all or some of them, as interleaved frames one after the other. The tag is the
/// picture's number.
pub type Block = Frame<u32>;

/// State of a player's slot.
pub type SlotState = slots::SlotState<Dismissal>;

/// Why the hub closes a player's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// The proxy is shutting down.
    Stopping,
    /// `BOARD.clients.rtsp` players are logged in.
    Full,
    /// The camera describes another stream than this player was sent.
    Changed,
}

/// Whether a player is sent pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Not playing: before PLAY, or after PAUSE.
    Still,
    /// Waiting for the next key frame.
    Waits {
        /// Whether the player was too slow.
        behind: bool,
    },
    /// Every picture is sent.
    Flows,
}

/// One player's state, its blocks that wait, and how many pictures it was sent and lost.
pub struct Slot {
    occupancy: Occupancy<Dismissal>,
    flow: Cell<Flow>,
    /// Oldest first. All pictures are whole but the first, whose first blocks may have been sent.
    ring: RefCell<Ring<Block, RING>>,
    /// The number of the picture whose block was sent last.
    current: Cell<Option<u32>>,
    /// Whether the player was sent the description.
    described: Cell<bool>,
    /// Pictures that this connection was sent and lost.
    pub pictures: Pictures,
}

const _: () = slots::assert_fits::<Slot>(budget::RTSP_SLOT);

impl Slot {
    /// A vacant slot.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            occupancy: Occupancy::new(),
            flow: Cell::new(Flow::Still),
            ring: RefCell::default(),
            current: Cell::new(None),
            described: Cell::new(false),
            pictures: Pictures::default(),
        })
    }

    /// Whether pictures are sent.
    pub fn flow(&self) -> Flow {
        self.flow.get()
    }

    /// The connection has shown the access code.
    pub fn admit(&self) {
        self.occupancy.activate();
    }

    /// Has the connection closed, and frees the blocks that wait for it at once: the connection may be stuck,
    /// while another player has its place already. The first of several reasons counts.
    pub fn dismiss(&self, why: Dismissal) {
        self.pause();
        self.occupancy.dismiss(why);
    }

    /// The player was sent the description, and relies on it.
    pub fn set_described(&self) {
        self.described.set(true);
    }

    /// Whether the player was sent the description.
    pub fn is_described(&self) -> bool {
        self.described.get()
    }

    /// Begins to play: with the blocks of `group`, which begin with a key frame, or if there are none, with the
    /// next key frame.
    pub fn play<'b>(&self, group: impl Iterator<Item = &'b Block>) {
        let mut ring = self.ring.borrow_mut();
        ring.clear();
        for block in group {
            // The blocks fit: a group has at most half as many as a ring.
            let _fits = ring.push(block.clone());
        }
        let flow = if ring.is_empty() { Flow::Waits { behind: false } } else { Flow::Flows };
        self.flow.set(flow);
        self.occupancy.notify();
    }

    /// Stops playing, and frees the blocks that wait.
    pub fn pause(&self) {
        self.flow.set(Flow::Still);
        self.ring.borrow_mut().clear();
        self.current.set(None);
    }

    /// Adds a new picture. A player whose ring has no room for it is behind: it keeps the rest of the picture
    /// that is being sent, and goes on at the next key frame, which may be this picture.
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
                // Cannot fail: that was just checked.
                let _fits = ring.push(block.clone());
            }
            self.flow.set(Flow::Flows);
            self.occupancy.notify();
        } else if self.flow() == (Flow::Waits { behind: true }) {
            self.lose(1);
        }
    }

    fn lose(&self, pictures: u32) {
        self.pictures.lose(pictures);
        counts::add("rtsp", Count::Dropped, pictures.into());
    }

    /// A picture is missing for all players. Those after it depend on it, so the player waits for the next key
    /// frame.
    pub fn interrupt(&self) {
        if self.flow() == Flow::Flows {
            self.flow.set(Flow::Waits { behind: false });
            self.occupancy.notify();
        }
    }

    /// The next block to be sent.
    pub fn next(&self) -> Option<Block> {
        let block = self.ring.borrow_mut().pop()?;
        if self.current.replace(Some(*block.tag())) != Some(*block.tag()) {
            self.pictures.send();
        }
        Some(block)
    }

    /// The first block that waits.
    pub fn first(&self) -> Option<Block> {
        self.ring.borrow().iter().next().cloned()
    }

    /// The blocks that wait, oldest first. The borrow must end before the next event.
    pub fn waiting(&self) -> Ref<'_, Ring<Block, RING>> {
        self.ring.borrow()
    }
}

impl slots::Slot for Slot {
    type Reason = Dismissal;

    fn occupancy(&self) -> &Occupancy<Dismissal> {
        &self.occupancy
    }

    fn clear(&self) {
        self.pause();
        self.described.set(false);
        self.pictures.reset();
    }
}

/// Drops all blocks but those of the picture `current`. Returns how many pictures were dropped.
fn fall_behind(ring: &mut Ring<Block, RING>, current: Option<u32>) -> u32 {
    let mut lost = 0;
    let mut last = current;
    ring.retain(|block| {
        let number = Some(*block.tag());
        if number != current && number != last {
            lost += 1;
        }
        last = number;
        (number == current).then_some(block)
    });
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::pool::{Pool, Shape};
    use crate::memory::slots::Slot as _;
    use crate::notify::tests::wakes;
    use alloc::vec::Vec;

    struct Shown {
        pool: Pool<u32>,
        slot: Rc<Slot>,
    }

    impl Shown {
        fn new() -> Self {
            let shape = Shape { count: 3 * RING, size: 4 };
            let slot = Slot::new();
            slot.occupancy.activate();
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
    fn whatever_is_there_for_a_player_wakes_its_session() {
        let shown = Shown::new();
        let wakes = |act: &dyn Fn()| wakes(|| shown.slot.notified(), act);
        assert!(!wakes(&|| shown.show(0, 1, true)), "it does not play");
        assert!(wakes(&|| shown.slot.play([].iter())));
        assert!(!wakes(&|| shown.show(1, 1, false)), "it waits for a key frame");
        assert!(wakes(&|| shown.show(2, 1, true)));
        assert!(wakes(&|| shown.slot.interrupt()));
        assert!(!wakes(&|| shown.slot.interrupt()));
        assert!(wakes(&|| shown.slot.dismiss(Dismissal::Full)));
    }

    #[test]
    fn a_new_player_waits_for_a_key_frame() {
        let shown = Shown::new();
        shown.show(0, 1, true);
        assert!(shown.slot.next().is_none());
        shown.slot.play([].iter());
        shown.show(1, 1, false);
        shown.show(2, 2, true);
        shown.show(3, 1, false);
        assert_eq!(shown.left(), [2, 2, 3]);
        assert_eq!(
            (shown.slot.pictures.sent(), shown.slot.pictures.lost()),
            (2, 0),
            "pictures before the key frame do not count as lost"
        );
    }

    #[test]
    fn a_new_player_gets_the_group_from_its_key_frame() {
        let shown = Shown::new();
        let group = [shown.picture(5, 2), shown.picture(6, 1)].concat();
        shown.slot.play(group.iter());
        shown.show(7, 1, false);
        assert_eq!(shown.left(), [5, 5, 6, 7]);
    }

    #[test]
    fn a_slow_player_goes_on_at_the_next_key_frame() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        shown.show(0, 3, true);
        // In the middle of the first picture.
        assert_eq!(shown.slot.next().map(|block| *block.tag()), Some(0));
        for number in 1..=RING as u32 - 2 {
            shown.show(number, 1, false);
        }
        assert_eq!(shown.slot.pictures.lost(), 0, "the ring is full, and nothing is lost yet");
        shown.show(500, 1, false);
        assert_eq!(shown.slot.flow(), Flow::Waits { behind: true });
        assert_eq!(
            shown.slot.pictures.lost(),
            RING as u32 - 1,
            "all that was whole, and the new one"
        );
        shown.show(501, 1, false);
        shown.show(502, 2, true);
        shown.show(503, 1, false);
        assert_eq!(shown.left(), [0, 0, 502, 502, 503], "no picture is torn");
        assert_eq!(shown.slot.pictures.lost(), RING as u32);
    }

    #[test]
    fn a_player_that_falls_behind_at_a_key_frame_gets_it() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        for number in 0..RING as u32 {
            shown.show(number, 1, number == 0);
        }
        shown.show(700, 1, true);
        assert_eq!(counts::get("rtsp", Count::Dropped), RING as u64);
        assert_eq!(shown.left(), [700]);
        assert_eq!(shown.slot.pictures.lost(), RING as u32);
    }

    #[test]
    fn a_paused_player_holds_no_block() {
        let shown = Shown::new();
        shown.slot.play([].iter());
        shown.show(0, 3, true);
        shown.slot.pause();
        assert_eq!(shown.pool.in_use(), (0, 0));
        assert!(shown.slot.next().is_none());
    }
}
