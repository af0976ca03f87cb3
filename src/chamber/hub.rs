//! The chamber camera's policy: who gets which picture, and when the camera is wanted.
//!
//! A picture is put together in one frame; each viewer's ring gets a reference to it. The newest wins:
//! a viewer that is behind loses what lies between. Nothing that a viewer does or leaves undone
//! reaches the camera or another viewer: there are as many frames as viewers can hold, and three more.

use alloc::rc::Rc;
use core::time::Duration;

use super::slot::{Dismissal, Slot, SlotState};
use super::wire::{self, Damage};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{FRAME_SLOT, PICTURES};
use crate::memory::pool::{Filling, Frame, Pool, Shape};
use crate::notify::Demand;

/// How old a picture may be that a viewer is shown first, before the next one comes.
pub const FRESH: Duration = Duration::from_secs(10);

/// How long the camera is kept after its last viewer was seen to have gone, which is looked at every
/// second.
pub const LINGER: Duration = Duration::from_secs(5);

/// What the service's viewers and its upstream meet at.
pub struct Hub {
    slots: Rc<[Rc<Slot>]>,
    demand: Rc<Demand>,
    pool: Pool,
    coming: Coming,
    latest: Option<(Frame, Instant)>,
    /// Whether this printer's camera is known to be elsewhere.
    elsewhere: bool,
    /// Since when nobody was seen to watch, while the camera is still wanted.
    deserted: Option<Instant>,
    counts: Counts,
    damaged: RateLimit,
    too_long: RateLimit,
}

/// What becomes of the picture that is coming.
enum Coming {
    /// None is.
    Nothing,
    /// It is put together.
    Kept(Filling),
    /// It is passed over: so many bytes of it are missing.
    Skipped(usize),
}

/// How many pictures there ever were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That the camera showed, whole and undamaged.
    pub shown: u32,
    /// That viewers lost, because they were behind: one for each viewer that lost it.
    pub lost: u32,
    /// That were no pictures.
    pub damaged: u32,
    /// That no frame of this board can hold.
    pub too_long: u32,
}

const _: () =
    assert!(Pool::<()>::FRAME_SLOT <= FRAME_SLOT, "a frame costs more than its line says");

impl Hub {
    /// A hub for these slots.
    pub fn new(slots: Rc<[Rc<Slot>]>, demand: Rc<Demand>) -> Self {
        Self {
            slots,
            demand,
            pool: Pool::new(Shape { count: 0, size: 0 }, PICTURES),
            coming: Coming::Nothing,
            latest: None,
            elsewhere: false,
            deserted: None,
            counts: Counts::default(),
            damaged: RateLimit::default(),
            too_long: RateLimit::default(),
        }
    }

    /// Somebody showed the right code. They are shown the last picture if it is fresh, and keep the
    /// camera wanted.
    pub fn join(&mut self, now: Instant, slot: &Slot) {
        if self.elsewhere {
            slot.dismiss(Dismissal::Elsewhere);
            return;
        }
        if self.viewers() >= BOARD.clients.chamber {
            slot.dismiss(Dismissal::Full);
            return;
        }
        slot.take();
        self.deserted = None;
        self.demand.want(true);
        if let Some((picture, shown)) = &self.latest
            && now.since(*shown) < FRESH
        {
            slot.offer(picture.clone());
        }
    }

    /// The camera begins a picture of so many bytes.
    pub fn begin(&mut self, now: Instant, len: usize) {
        self.give_up();
        if len == 0 {
            self.damaged(now, len, Damage::Empty);
            return;
        }
        self.coming = match self.pool.begin(len) {
            Some(filling) => Coming::Kept(filling),
            None => {
                self.too_long(now, len);
                Coming::Skipped(len)
            }
        };
    }

    /// More of the picture that was begun.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        match core::mem::replace(&mut self.coming, Coming::Nothing) {
            Coming::Kept(mut filling) => {
                // The upstream hands over what was announced, and no more.
                let _fits = filling.append(bytes);
                if filling.is_full() {
                    self.show(now, filling);
                } else {
                    self.coming = Coming::Kept(filling);
                }
            }
            Coming::Skipped(missing) if bytes.len() < missing => {
                self.coming = Coming::Skipped(missing - bytes.len());
            }
            Coming::Skipped(_) | Coming::Nothing => {}
        }
    }

    /// The conversation with the camera is over, perhaps in the middle of a picture.
    pub fn lost(&mut self) {
        self.give_up();
    }

    /// Looks after what only time tells; to be called about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.viewers() > 0 || !self.demand.is_wanted() {
            self.deserted = None;
        } else if now.since(*self.deserted.get_or_insert(now)) >= LINGER {
            self.demand.want(false);
        }
        if self.latest.as_ref().is_some_and(|(_, shown)| now.since(*shown) >= FRESH) {
            self.latest = None;
        }
    }

    /// Everybody has to go.
    pub fn dismiss_all(&self, why: Dismissal) {
        for slot in &*self.slots {
            slot.dismiss(why);
        }
    }

    /// This printer's camera is known to be elsewhere, or not any more. If it is, everybody has to go,
    /// and whoever comes as well.
    pub fn elsewhere(&mut self, elsewhere: bool) {
        self.elsewhere = elsewhere;
        if elsewhere {
            self.dismiss_all(Dismissal::Elsewhere);
        }
    }

    /// Those who showed the right code.
    pub fn viewers(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() == SlotState::Taken).count()
    }

    /// How many pictures there ever were.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Frames in use.
    pub fn frames(&self) -> usize {
        self.pool.in_use().1
    }

    fn show(&mut self, now: Instant, filling: Filling) {
        if let Some(damage) = wire::damage(filling.written()) {
            let len = filling.written().len();
            self.pool.give_up(filling);
            self.damaged(now, len, damage);
            return;
        }
        let Some(picture) = self.pool.finish(filling, ()) else { return };
        self.counts.shown = self.counts.shown.saturating_add(1);
        for slot in &*self.slots {
            if slot.standing() == SlotState::Taken {
                let lost = slot.offer(picture.clone());
                self.counts.lost = self.counts.lost.saturating_add(lost);
            }
        }
        self.latest = Some((picture, now));
    }

    fn give_up(&mut self) {
        if let Coming::Kept(filling) = core::mem::replace(&mut self.coming, Coming::Nothing) {
            self.pool.give_up(filling);
        }
    }

    fn damaged(&mut self, now: Instant, len: usize, damage: Damage) {
        self.counts.damaged = self.counts.damaged.saturating_add(1);
        match self.damaged.check(now) {
            None => journal::tally(Kind::PictureDamaged),
            Some(times) => journal::note(
                Kind::PictureDamaged,
                format_args!("chamber: a picture of {len} bytes {damage}: skipped ({times})"),
            ),
        }
    }

    fn too_long(&mut self, now: Instant, len: usize) {
        self.counts.too_long = self.counts.too_long.saturating_add(1);
        match self.too_long.check(now) {
            None => journal::tally(Kind::PictureTooLong),
            Some(times) => journal::note(
                Kind::PictureTooLong,
                format_args!(
                    "chamber: a picture of {len} bytes is larger than {} (BOARD.chamber.picture): \
                     skipped ({times})",
                    PICTURES.size
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const MOST: usize = BOARD.clients.chamber;

    struct Context {
        hub: Hub,
        slots: Rc<[Rc<Slot>]>,
        demand: Rc<Demand>,
    }

    impl Context {
        fn new() -> Self {
            let slots: Rc<[Rc<Slot>]> = (0..MOST + 1).map(|_| Slot::new()).collect();
            let demand = Rc::new(Demand::default());
            Self { hub: Hub::new(Rc::clone(&slots), Rc::clone(&demand)), slots, demand }
        }

        fn join(&mut self, at: Instant, slot: usize) {
            self.slots[slot].pending();
            self.hub.join(at, &self.slots[slot]);
        }

        fn picture(&mut self, at: Instant, bytes: &[u8]) {
            self.hub.begin(at, bytes.len());
            for piece in bytes.chunks(5) {
                self.hub.bytes(at, piece);
            }
        }

        /// Looks around every second from one moment to the other.
        fn until(&mut self, from: Instant, to: Instant) {
            for second in from.elapsed().as_secs()..=to.elapsed().as_secs() {
                self.hub.handle_timeout(secs(second));
            }
        }

        fn waiting(&self, slot: usize) -> Vec<Vec<u8>> {
            core::iter::from_fn(|| self.slots[slot].next()).map(|frame| frame.to_vec()).collect()
        }
    }

    fn jpeg(text: &[u8]) -> Vec<u8> {
        [&b"\xff\xd8\xff\xe0"[..], text, b"\xff\xd9"].concat()
    }

    fn secs(secs: u64) -> Instant {
        Instant::at(Duration::from_secs(secs))
    }

    #[test]
    fn a_picture_reaches_all_viewers_and_nobody_who_has_not_logged_in() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        context.join(secs(0), 1);
        context.slots[2].pending();
        context.picture(secs(1), &jpeg(b"one"));
        assert_eq!(context.waiting(0), [jpeg(b"one")]);
        assert_eq!(context.waiting(1), [jpeg(b"one")]);
        assert!(context.waiting(2).is_empty());
        assert_eq!(context.hub.frames(), 1, "it is there once, whoever has it");
    }

    #[test]
    fn a_newcomer_is_shown_the_last_picture_if_it_is_fresh() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        context.picture(secs(1), &jpeg(b"one"));
        context.join(secs(10), 1);
        assert_eq!(context.waiting(1), [jpeg(b"one")]);
        context.join(secs(11), 2);
        assert!(context.waiting(2).is_empty());
        context.waiting(0);
        context.hub.handle_timeout(secs(11));
        assert_eq!(context.hub.frames(), 0);
    }

    #[test]
    fn the_camera_is_wanted_from_the_first_viewer_until_five_seconds_after_the_last() {
        let mut context = Context::new();
        assert!(!context.demand.is_wanted());
        context.join(secs(0), 0);
        context.join(secs(0), 1);
        context.slots[0].vacate();
        context.until(secs(0), secs(20));
        assert!(context.demand.is_wanted(), "one is still there");
        context.slots[1].vacate();
        context.until(secs(20), secs(24));
        assert!(context.demand.is_wanted());
        context.join(secs(24), 1);
        context.until(secs(24), secs(30));
        assert!(context.demand.is_wanted(), "somebody came back");
        context.slots[1].vacate();
        context.until(secs(30), secs(34));
        assert!(context.demand.is_wanted());
        context.until(secs(35), secs(35));
        assert!(!context.demand.is_wanted());
    }

    #[test]
    fn who_never_logged_in_neither_wants_the_camera_nor_keeps_it() {
        let mut context = Context::new();
        context.slots[0].pending();
        assert!(!context.demand.is_wanted());
        context.slots[0].vacate();
        context.until(secs(0), secs(9));
        assert!(!context.demand.is_wanted());
    }

    #[test]
    fn one_viewer_more_than_the_board_has_places_for_is_sent_away() {
        let mut context = Context::new();
        for slot in 0..=MOST {
            context.join(secs(0), slot);
        }
        assert_eq!(context.hub.viewers(), MOST);
        assert_eq!(context.slots[MOST].standing(), SlotState::Dismissed(Dismissal::Full));
    }

    #[test]
    fn all_viewers_in_the_middle_of_different_pictures_leave_room_for_the_next() {
        let mut context = Context::new();
        let mut held = Vec::new();
        for slot in 0..MOST {
            context.join(secs(0), slot);
        }
        for number in 0..100 {
            context.picture(secs(1), &jpeg(&[number]));
            if let Some(slot) = context.slots.get(usize::from(number)).filter(|_| held.len() < MOST)
            {
                held.extend(slot.next());
            }
        }
        assert_eq!((held.len(), context.hub.counts().shown), (MOST, 100));
        // What they hold, what is newest, and the one before that.
        assert!(context.hub.frames() <= MOST + 2, "{}", context.hub.frames());
        assert_eq!(context.waiting(0).last(), Some(&jpeg(&[99])));
    }

    #[test]
    fn a_picture_that_no_frame_holds_is_skipped_and_counted_and_the_next_one_shown() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        context.picture(secs(1), &vec![0; PICTURES.size + 1]);
        let mut largest = jpeg(&vec![7; PICTURES.size - 6]);
        context.picture(secs(2), &largest);
        assert_eq!(context.waiting(0), [largest.clone()]);
        let counts = Counts { shown: 1, too_long: 1, ..Counts::default() };
        assert_eq!(context.hub.counts(), counts);
        assert_eq!(journal::count(Kind::PictureTooLong), 1);
        largest.clear();
    }

    #[test]
    fn what_is_no_picture_is_skipped_and_counted() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        for (at, damaged) in [&b"GIF89a"[..], b"", b"\xff\xd8\xff\xe0 cut"].iter().enumerate() {
            context.picture(secs(at as u64), damaged);
        }
        context.picture(secs(4), &jpeg(b"good"));
        assert_eq!(context.waiting(0), [jpeg(b"good")]);
        assert_eq!(context.hub.counts(), Counts { shown: 1, damaged: 3, ..Counts::default() });
        assert_eq!(journal::count(Kind::PictureDamaged), 3);
    }

    #[test]
    fn a_picture_that_breaks_off_is_nobodys_and_its_frame_is_free() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        context.hub.begin(secs(1), 100);
        context.hub.bytes(secs(1), &[0xff; 60]);
        assert_eq!(context.hub.frames(), 1);
        context.hub.lost();
        assert_eq!(context.hub.frames(), 0);
        context.picture(secs(2), &jpeg(b"next"));
        assert_eq!(context.waiting(0), [jpeg(b"next")]);
    }
}
