//! The chamber camera's fan-out: which viewer gets which picture, and when the camera is wanted.
//!
//! A picture is assembled in one frame, and each viewer's ring gets a reference to it. A viewer that is behind
//! loses all but the newest picture. No viewer can delay the camera or another viewer: there are three more
//! frames than viewers, which can hold one each.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use super::slot::{Dismissal, Slot, SlotState};
use super::wire::{self, Damage};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::counts::{self, Count};
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{FRAME_SLOT, PICTURES};
use crate::memory::pool::{Filling, Frame, Pool, Shape};
use crate::memory::slots::{Slot as _, Slots};
use crate::notify::Demand;

/// How old the last picture may be to be sent to a new viewer at once.
pub const MAX_PICTURE_AGE: Duration = Duration::from_secs(10);

/// How long the connection to the camera is kept after the last viewer has left, which is checked once a second.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pictures, the viewers' slots, and the demand for the camera.
pub struct Hub {
    slots: Slots<Slot>,
    demand: Rc<Demand>,
    pool: Pool,
    coming: Coming,
    latest: Option<(Frame, Instant)>,
    /// Whether the printer is known to have no chamber camera.
    elsewhere: bool,
    /// Since when there is no viewer, while the camera is still wanted.
    unwatched_since: Option<Instant>,
    counts: Counts,
    damaged: RateLimit,
    too_long: RateLimit,
}

/// What happens to the picture that is arriving.
enum Coming {
    /// No picture is arriving.
    Nothing,
    /// The picture is being assembled.
    Kept(Filling),
    /// The picture is being skipped: this many bytes of it have not arrived.
    Skipped(usize),
}

/// Pictures since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole and undamaged pictures from the camera.
    pub shown: u32,
    /// Pictures that viewers lost by being behind, counted once for each viewer.
    pub lost: u32,
    /// Pictures skipped because they were not whole JPEGs.
    pub damaged: u32,
    /// Pictures skipped because they were longer than `BOARD.chamber.picture`.
    pub too_long: u32,
}

const _: () =
    assert!(Pool::<()>::FRAME_SLOT <= FRAME_SLOT, "a frame is larger than its budget line");

impl Hub {
    /// A hub for these slots.
    pub fn new(slots: Slots<Slot>, demand: Rc<Demand>) -> Self {
        Self {
            slots,
            demand,
            pool: Pool::new(Shape { count: 0, size: 0 }, PICTURES),
            coming: Coming::Nothing,
            latest: None,
            elsewhere: false,
            unwatched_since: None,
            counts: Counts::default(),
            damaged: RateLimit::default(),
            too_long: RateLimit::default(),
        }
    }

    /// Admits a connection that has shown the access code, or dismisses it. A viewer gets the last picture if
    /// that is younger than `fresh`, and the camera is wanted. No picture is kept for longer than [`MAX_PICTURE_AGE`].
    pub fn join(&mut self, now: Instant, slot: &Slot, fresh: Duration) {
        if self.elsewhere {
            slot.dismiss(Dismissal::Elsewhere);
            return;
        }
        if self.viewers() >= BOARD.clients.chamber {
            slot.dismiss(Dismissal::Full);
            return;
        }
        slot.admit();
        self.unwatched_since = None;
        self.demand.want(true);
        if let Some((picture, shown)) = &self.latest
            && now.since(*shown) < fresh
        {
            slot.offer(picture.clone());
        }
    }

    /// A picture of `len` bytes begins. What has arrived of another one is dropped.
    pub fn begin(&mut self, now: Instant, len: usize) {
        self.coming = Coming::Nothing;
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

    /// The next bytes of the picture.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        match core::mem::replace(&mut self.coming, Coming::Nothing) {
            Coming::Kept(mut filling) => {
                // Cannot fail: the upstream passes on no more than was announced.
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

    /// The connection to the camera has ended. What has arrived of a picture is dropped.
    pub fn lost(&mut self) {
        self.coming = Coming::Nothing;
    }

    /// Housekeeping, about once a second: drops the camera after [`LINGER_TIMEOUT`] and the last picture after
    /// [`MAX_PICTURE_AGE`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.viewers() > 0 || !self.demand.is_wanted() {
            self.unwatched_since = None;
        } else if now.since(*self.unwatched_since.get_or_insert(now)) >= LINGER_TIMEOUT {
            self.demand.want(false);
        }
        if self.latest.as_ref().is_some_and(|(_, shown)| now.since(*shown) >= MAX_PICTURE_AGE) {
            self.latest = None;
        }
    }

    /// Closes all connections.
    pub fn dismiss_all(&self, why: Dismissal) {
        for slot in self.slots.iter() {
            slot.dismiss(why);
        }
    }

    /// Sets whether the printer is known to have no chamber camera. If so, all connections are closed, and later
    /// ones after their login.
    pub fn set_elsewhere(&mut self, elsewhere: bool) {
        self.elsewhere = elsewhere;
        if elsewhere {
            self.dismiss_all(Dismissal::Elsewhere);
        }
    }

    /// Viewers that are logged in.
    pub fn viewers(&self) -> usize {
        self.slots.active()
    }

    /// Pictures since the start.
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
            self.damaged(now, len, damage);
            return;
        }
        let Some(picture) = filling.finish(()) else { return };
        self.counts.shown = self.counts.shown.saturating_add(1);
        counts::add("chamber", Count::Received, 1);
        for slot in self.slots.iter() {
            if slot.state() == SlotState::Active {
                let lost = slot.offer(picture.clone());
                self.counts.lost = self.counts.lost.saturating_add(lost);
                counts::add("chamber", Count::Dropped, lost.into());
            }
        }
        self.latest = Some((picture, now));
    }

    fn damaged(&mut self, now: Instant, len: usize, damage: Damage) {
        self.counts.damaged = self.counts.damaged.saturating_add(1);
        counts::add("chamber", Count::Dropped, 1);
        match self.damaged.check(now) {
            None => journal::tally(Kind::PictureDamaged),
            Some(times) => journal::note(
                Kind::PictureDamaged,
                format_args!("{}", Skipped { len, damage: Some(damage), times }),
            ),
        }
    }

    fn too_long(&mut self, now: Instant, len: usize) {
        self.counts.too_long = self.counts.too_long.saturating_add(1);
        counts::add("chamber", Count::Dropped, 1);
        match self.too_long.check(now) {
            None => journal::tally(Kind::PictureTooLong),
            Some(times) => journal::note(
                Kind::PictureTooLong,
                format_args!("{}", Skipped { len, damage: None, times }),
            ),
        }
    }
}

/// The log line of a skipped picture.
pub(super) struct Skipped {
    /// Its bytes.
    pub len: usize,
    /// What is wrong with it; `None` if it is too long.
    pub damage: Option<Damage>,
    /// How many were skipped since the last line.
    pub times: u32,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, damage, times } = self;
        write!(f, "chamber: skipped a picture of {len} bytes")?;
        if let Some(damage) = damage {
            write!(f, ": it {damage}")?;
        }
        if *times > 1 {
            write!(f, " (seen {times} times)")?;
        }
        if damage.is_none() {
            write!(f, "; at most {} fit (BOARD.chamber.picture)", PICTURES.size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const MAX: usize = BOARD.clients.chamber;

    struct Context {
        hub: Hub,
        slots: Slots<Slot>,
        demand: Rc<Demand>,
    }

    impl Context {
        fn new() -> Self {
            let slots = Slots::new(MAX + 1, |_| Slot::new());
            let demand = Rc::new(Demand::default());
            Self { hub: Hub::new(slots.clone(), Rc::clone(&demand)), slots, demand }
        }

        fn join(&mut self, at: Instant, slot: usize) {
            self.slots.get(slot).unwrap().occupancy().take();
            self.hub.join(at, self.slots.get(slot).unwrap(), MAX_PICTURE_AGE);
        }

        fn picture(&mut self, at: Instant, bytes: &[u8]) {
            self.hub.begin(at, bytes.len());
            for piece in bytes.chunks(5) {
                self.hub.bytes(at, piece);
            }
        }

        /// Does the housekeeping of every second between the two.
        fn until(&mut self, from: Instant, to: Instant) {
            for second in from.elapsed().as_secs()..=to.elapsed().as_secs() {
                self.hub.handle_timeout(secs(second));
            }
        }

        fn waiting(&self, slot: usize) -> Vec<Vec<u8>> {
            core::iter::from_fn(|| self.slots.get(slot).unwrap().next())
                .map(|frame| frame.to_vec())
                .collect()
        }
    }

    fn jpeg(text: &[u8]) -> Vec<u8> {
        [&b"\xff\xd8\xff\xe0"[..], text, b"\xff\xd9"].concat()
    }

    fn secs(secs: u64) -> Instant {
        Instant::at(Duration::from_secs(secs))
    }

    #[test]
    fn a_picture_reaches_every_viewer_that_is_logged_in() {
        let mut context = Context::new();
        context.join(secs(0), 0);
        context.join(secs(0), 1);
        context.slots.get(2).unwrap().occupancy().take();
        context.picture(secs(1), &jpeg(b"one"));
        assert_eq!(context.waiting(0), [jpeg(b"one")]);
        assert_eq!(context.waiting(1), [jpeg(b"one")]);
        assert!(context.waiting(2).is_empty());
        assert_eq!(context.hub.frames(), 1, "it is stored once");
    }

    #[test]
    fn a_new_viewer_gets_the_last_picture_if_it_is_fresh() {
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
    fn the_camera_is_wanted_until_5_s_after_the_last_viewer() {
        let mut context = Context::new();
        assert!(!context.demand.is_wanted());
        context.join(secs(0), 0);
        context.join(secs(0), 1);
        context.slots.get(0).unwrap().vacate();
        context.until(secs(0), secs(20));
        assert!(context.demand.is_wanted(), "one viewer is left");
        context.slots.get(1).unwrap().vacate();
        context.until(secs(20), secs(24));
        assert!(context.demand.is_wanted());
        context.join(secs(24), 1);
        context.until(secs(24), secs(30));
        assert!(context.demand.is_wanted(), "a viewer came back");
        context.slots.get(1).unwrap().vacate();
        context.until(secs(30), secs(34));
        assert!(context.demand.is_wanted());
        context.until(secs(35), secs(35));
        assert!(!context.demand.is_wanted());
    }

    #[test]
    fn a_connection_without_login_does_not_want_the_camera() {
        let mut context = Context::new();
        context.slots.get(0).unwrap().occupancy().take();
        assert!(!context.demand.is_wanted());
        context.slots.get(0).unwrap().vacate();
        context.until(secs(0), secs(9));
        assert!(!context.demand.is_wanted());
    }

    #[test]
    fn one_viewer_more_than_the_board_allows_is_dismissed() {
        let mut context = Context::new();
        for slot in 0..=MAX {
            context.join(secs(0), slot);
        }
        assert_eq!(context.hub.viewers(), MAX);
        assert_eq!(context.slots.get(MAX).unwrap().state(), SlotState::Dismissed(Dismissal::Full));
    }

    #[test]
    fn viewers_of_different_pictures_leave_room_for_the_next() {
        let mut context = Context::new();
        let mut held = Vec::new();
        for slot in 0..MAX {
            context.join(secs(0), slot);
        }
        for number in 0..100 {
            context.picture(secs(1), &jpeg(&[number]));
            if let Some(slot) = context.slots.get(usize::from(number)).filter(|_| held.len() < MAX)
            {
                held.extend(slot.next());
            }
        }
        assert_eq!((held.len(), context.hub.counts().shown), (MAX, 100));
        // One for each viewer, the newest, and the one before it.
        assert!(context.hub.frames() <= MAX + 2, "{}", context.hub.frames());
        assert_eq!(context.waiting(0).last(), Some(&jpeg(&[99])));
    }

    #[test]
    fn a_picture_too_long_for_a_frame_is_skipped_and_counted() {
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
    fn what_is_not_a_jpeg_is_skipped_and_counted() {
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
    fn a_cut_picture_is_not_sent_and_frees_its_frame() {
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
