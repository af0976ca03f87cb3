//! What the camera's connections share: its settings, its clock, its slots and its ledger.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::super::ledger::remember;
use super::super::{MAX_HELD, MAX_STREAMS};
use super::ledger::{Ending, Event, Ledger};
use super::media::Media;
use super::rtp::{Packing, Track};
use super::{MAX_ANSWERS, OverLimit, PACKET, Quirk, STAMP};

/// An observer of the camera's events.
type Listener = Rc<dyn Fn(&Event<'_>)>;

/// What is written into a unit of this number.
type Stamp = Rc<dyn Fn(u64) -> [u8; STAMP]>;

/// Everything of one camera.
pub(super) struct Server {
    pub(super) code: RefCell<String>,
    pub(super) media: RefCell<Rc<Media>>,
    pub(super) rate: Cell<u32>,
    pub(super) packing: Cell<Packing>,
    pub(super) packet_most: Cell<usize>,
    pub(super) header_bytes: Cell<usize>,
    pub(super) sessions_most: Cell<usize>,
    pub(super) over: Cell<OverLimit>,
    pub(super) tls_slots: Cell<u64>,
    /// Of the TLS slots, those in use since the last reboot.
    slots_used: Cell<u64>,
    pub(super) live_view: Cell<bool>,
    pub(super) answers_options: Cell<bool>,
    pub(super) first_after: Cell<Duration>,
    pub(super) key_after: Cell<Duration>,
    pub(super) reports_every: Cell<Duration>,
    pub(super) stamp: RefCell<Option<Stamp>>,
    /// One bit for each [`Quirk`].
    quirks: Cell<u16>,
    pub(super) cut_next: Cell<bool>,
    down_until: Cell<Option<Instant>>,
    /// When unit 0 was due.
    began: Cell<Option<Instant>>,
    /// Challenges and sessions given out, so that no two are the same.
    given: Cell<u32>,
    pub(super) slots: RefCell<Vec<Rc<Slot>>>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) listener: RefCell<Option<Listener>>,
    /// Wakes tasks that wait for a change.
    pub(super) changed: Notify,
}

impl Server {
    pub(super) fn new(media: Media) -> Rc<Self> {
        Rc::new(Self {
            code: RefCell::new("12345678".to_owned()),
            rate: Cell::new(media.rate),
            media: RefCell::new(Rc::new(media)),
            packing: Cell::new(Packing::Single),
            packet_most: Cell::new(PACKET),
            header_bytes: Cell::new(0),
            sessions_most: Cell::new(4),
            over: Cell::new(OverLimit::Refuses),
            tls_slots: Cell::new(u64::MAX),
            slots_used: Cell::new(0),
            live_view: Cell::new(true),
            answers_options: Cell::new(false),
            first_after: Cell::new(Duration::ZERO),
            key_after: Cell::new(Duration::ZERO),
            reports_every: Cell::new(Duration::from_secs(5)),
            stamp: RefCell::default(),
            quirks: Cell::new(0),
            cut_next: Cell::new(false),
            down_until: Cell::new(None),
            began: Cell::new(None),
            given: Cell::new(0),
            slots: RefCell::default(),
            ledger: RefCell::default(),
            listener: RefCell::default(),
            changed: Notify::new(),
        })
    }

    pub(super) fn show(&self, media: Media) {
        self.rate.set(media.rate);
        self.media.replace(Rc::new(media));
        self.began.set(None);
    }

    /// Lets a connection in, to be answered or not.
    pub(super) fn admit(self: &Rc<Self>) -> Option<Occupied> {
        let down = self.down_until.get().is_some_and(|until| Instant::now() < until);
        let open = self.slots.borrow().len();
        let over = open >= self.sessions_most.get();
        if down || open >= MAX_STREAMS || (over && self.over.get() == OverLimit::Closes) {
            self.note(|ledger| ledger.refused += 1);
            self.tell(&Event::Refused);
            return None;
        }
        let number = self.ledger.borrow().ever + 1;
        self.slots_used.set(self.slots_used.get() + 1);
        let hangs = over && self.over.get() == OverLimit::Hangs;
        let answered = !hangs && self.slots_used.get() <= self.tls_slots.get();
        let slot = Rc::new(Slot { number, answered, ..Slot::default() });
        self.slots.borrow_mut().push(Rc::clone(&slot));
        self.note(|ledger| {
            ledger.ever = number;
            ledger.most = ledger.most.max(open + 1);
        });
        if self.began.get().is_none() {
            self.began.set(Some(Instant::now()));
        }
        self.tell(&Event::Connected(number));
        Some(Occupied { server: Rc::clone(self), slot, ended: Cell::new(None) })
    }

    /// How long the camera runs.
    pub(super) fn since(&self) -> Duration {
        self.began.get().map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// When a unit is due.
    pub(super) fn due(&self, unit: u64) -> Instant {
        let began = self.began.get().unwrap_or_else(Instant::now);
        began + Duration::from_nanos(unit * 1_000_000_000 / u64::from(self.rate.get()))
    }

    /// The first unit that is not due before now.
    pub(super) fn next_unit(&self) -> u64 {
        let passed = self.since().as_nanos() * u128::from(self.rate.get());
        u64::try_from(passed.div_ceil(1_000_000_000)).unwrap()
    }

    /// A session number that was not used before.
    pub(super) fn give(&self) -> u32 {
        let number = self.given.get() + 1;
        self.given.set(number);
        number.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.slots.borrow().iter().filter(|slot| slot.session.borrow().is_some()).count()
    }

    pub(super) fn turn(&self, quirk: Quirk, on: bool) {
        let (bit, quirks) = (1 << quirk as u8, self.quirks.get());
        self.quirks.set(if on { quirks | bit } else { quirks & !bit });
        for slot in self.slots.borrow().iter() {
            slot.notify.notify_waiters();
        }
    }

    pub(super) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.get() & (1 << quirk as u8) != 0
    }

    pub(super) fn put_on_all(&self, bytes: impl Fn(&Slot) -> Vec<u8>) -> usize {
        let slots = self.slots.borrow();
        let playing = slots.iter().filter(|slot| slot.is_playing());
        playing.map(|slot| slot.put(bytes(slot))).count()
    }

    pub(super) fn drop_all(&self, ending: Ending) {
        for slot in self.slots.borrow().iter() {
            slot.dropping.set(Some(ending));
            slot.gone.notify_one();
        }
    }

    pub(super) fn reboot(&self, down_for: Duration) {
        self.down_until.set(Some(Instant::now() + down_for));
        self.began.set(None);
        self.slots_used.set(0);
        self.drop_all(Ending::Rebooted);
    }

    pub(super) fn note(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.ledger.borrow_mut());
        self.changed.notify_waiters();
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }
}

/// What the camera knows of one connection.
#[derive(Default)]
pub(super) struct Slot {
    /// Counted from 1.
    pub(super) number: u64,
    /// Whether its requests are answered.
    pub(super) answered: bool,
    /// The nonce of the last challenge.
    pub(super) nonce: RefCell<String>,
    pub(super) session: RefCell<Option<Session>>,
    /// Set when nothing more will be read; what waits is still written.
    pub(super) closing: Cell<Option<Ending>>,
    /// Wakes its two tasks.
    pub(super) notify: Notify,
    waiting: RefCell<VecDeque<Vec<u8>>>,
    dropping: Cell<Option<Ending>>,
    gone: Notify,
}

/// What SETUP has made.
pub(super) struct Session {
    pub(super) id: u32,
    /// Of RTP, and of RTCP.
    pub(super) channels: (u8, u8),
    pub(super) track: Track,
    /// Since PLAY.
    pub(super) playing: Option<Playing>,
    /// When the last receiver report came, or PLAY.
    pub(super) reported: Instant,
}

/// Where a session is.
#[derive(Clone, Copy)]
pub(super) struct Playing {
    /// The next unit.
    pub(super) unit: u64,
    pub(super) since: Instant,
    /// When the next sender report is due.
    pub(super) report: Instant,
    /// Whether the client has fallen behind and gets nothing before the next key.
    pub(super) awaits_key: bool,
}

impl Slot {
    pub(super) fn is_playing(&self) -> bool {
        self.session.borrow().as_ref().is_some_and(|session| session.playing.is_some())
    }

    /// Whether nothing more should be asked for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.borrow().len() >= MAX_ANSWERS
    }

    /// Something to be written between two frames.
    pub(super) fn put(&self, bytes: Vec<u8>) {
        let mut waiting = self.waiting.borrow_mut();
        assert!(waiting.len() < MAX_ANSWERS + 1, "more than {MAX_ANSWERS} answers wait");
        waiting.push_back(bytes);
        self.notify.notify_waiters();
    }

    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let next = self.waiting.borrow_mut().pop_front();
        self.notify.notify_waiters();
        next
    }

    /// Completes when the connection is to be closed now.
    pub(super) async fn dropped(&self) -> Ending {
        loop {
            if let Some(ending) = self.dropping.get() {
                return ending;
            }
            self.gone.notified().await;
        }
    }
}

/// A connection's entry in the camera's list, removed when this is dropped.
pub(super) struct Occupied {
    server: Rc<Server>,
    pub(super) slot: Rc<Slot>,
    ended: Cell<Option<Ending>>,
}

impl Occupied {
    /// Keeps the connection and sends nothing.
    pub(super) async fn hold<S: AsyncRead + Unpin>(self, stream: &mut S) {
        let until = Instant::now() + MAX_HELD;
        let mut unread = [0; 256];
        let ending = loop {
            select! {
                read = stream.read(&mut unread) => {
                    if matches!(read, Ok(0) | Err(_)) { break Ending::Unanswered }
                }
                ending = self.slot.dropped() => break ending,
                () = sleep_until(until) => break Ending::Unanswered,
            }
        };
        self.end(ending);
    }

    /// Gives the place back, saying why.
    pub(super) fn end(self, ending: Ending) {
        self.ended.set(Some(ending));
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let ending = self.ended.get().unwrap_or(Ending::Abandoned);
        self.server.slots.borrow_mut().retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        self.server.note(|ledger| {
            ledger.leaked += u64::from(ending == Ending::Lost);
            remember(&mut ledger.endings, ending);
        });
        self.server.tell(&Event::Ended(self.slot.number, ending));
    }
}
