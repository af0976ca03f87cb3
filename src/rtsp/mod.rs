//! The RTSPS camera of X1, H2 and P2: H.264 over RTP within RTSP, over TLS on port 322
//! ([`protocol`](crate::protocol#rtsps-camera)).
//!
//! Such a printer serves one or two players, and some models lose a place with each connection. Here as many players as the
//! board allows share one session with the camera. It is opened for the first player and ended after the last. Nothing
//! is decoded.
//!
//! ```text
//!   player ── client ── slot ◄── hub ◄── upstream ◄── camera
//!                        ring of references   blocks of packets, whole pictures
//! ```
//!
//! # Behaviour
//!
//! | a player | the proxy |
//! |---|---|
//! | sends OPTIONS | answers; every other method needs user `bblp` and the access code, by Digest (MD5) or Basic |
//! | sends DESCRIBE with any path | waits up to 15 s for the camera's description, then sends it with this proxy's URLs |
//! | sends SETUP | offers `RTP/AVP/TCP;interleaved` on the player's channels; UDP gets 461 |
//! | sends PLAY | starts at a key frame: at once if the pictures since the last one are kept, else at the next one |
//! | reads too slowly | lets it finish its picture and continue at the next key frame, with sequence numbers without a gap; other players are unaffected |
//! | plays while the printer restarts | keeps the connection and continues at the next key frame, on the same clock |
//! | shows a wrong code | answers 401, and the second time 403, and closes |
//! | is the last to leave | ends the camera's session ten seconds later |
//! | connects while live view is off, or to an A1 or P1 | answers 503 or 404 with the reason |
//!
//! Players that were tried over TLS (`tests/program/rtsp.rs`), with the right code and a wrong one: FFmpeg 5.1.9 and
//! GStreamer 1.22.0, whose pictures equal those of the recording bit by bit, and mpv 0.35.1. GStreamer's RTSP server stood in
//! for the printer.

pub mod answer;
pub mod client;
pub mod digest;
pub mod hub;
pub mod playback;
pub mod reception;
pub mod rtp;
pub mod sdp;
pub mod slot;
pub mod stream;
pub mod timeline;
pub mod upstream;
pub mod wire;

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt::Write;

use crate::auth::AccessCode;
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget::{self, PLAYERS};
use crate::notify::Demand;
use crate::session::Handler;
use client::{Player, Wish};
use digest::Nonce;
use hub::{Counts, Hub};
use sdp::{TRACKS, Url};
use slot::{Dismissal, Slot, SlotState};
use stream::{StreamInfo, StreamStatus};
use upstream::Upstream;

/// Blocks that may wait for a player before it loses pictures.
pub const RING: usize = BOARD.rtsp.ring;

/// Blocks in the longest picture that is shown.
pub const PICTURE: usize = budget::RTSP_PICTURE;

/// Blocks since the last key frame that are kept for whoever comes next: with them a ring is half full.
pub const GROUP: usize = RING / 2;

const _: () = assert!(PICTURE < GROUP, "a group holds a key frame, and what follows it");
const _: () = assert!(
    size_of::<Service>() + size_of::<StreamInfo>() + size_of::<Demand>() + size_of::<AccessCode>()
        <= budget::RTSP_HUB,
    "the hub is larger than its line"
);
const _: () = assert!(
    budget::RTSP_OUTBOX >= budget::RTSP_BLOCK && budget::RTSP_OUTBOX >= sdp::MAX_SDP + 2048,
    "an outbox holds a block, and what the camera describes"
);
const _: () = assert!(
    wire::MAX_HEAD < budget::RTSP_INBOX,
    "an inbox holds the longest head that is looked at"
);

/// The service: what its players and its upstream share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Rc<[Rc<Slot>]>,
    demand: Rc<Demand>,
    offer: Rc<StreamInfo>,
    code: Rc<AccessCode>,
    /// Where the camera is.
    url: Url,
    chance: Cell<u64>,
}

impl Service {
    /// A service without players, before the camera at `url`. `chance` is any number: sources, sessions
    /// and nonces are made of it.
    pub fn new(code: AccessCode, url: Url, chance: u64) -> Rc<Self> {
        let chance = Cell::new(chance);
        let sources: [u32; TRACKS] = core::array::from_fn(|_| (draw(&chance) >> 32) as u32);
        let slots: Rc<[Rc<Slot>]> = (0..PLAYERS).map(|_| Slot::new()).collect();
        let demand = Rc::new(Demand::default());
        let offer = Rc::new(StreamInfo::new(sources));
        let first = draw(&chance) as u16;
        let hub = Hub::new(Rc::clone(&slots), Rc::clone(&demand), Rc::clone(&offer), first);
        Rc::new(Self {
            hub: RefCell::new(hub),
            slots,
            demand,
            offer,
            code: Rc::new(code),
            url,
            chance,
        })
    }

    /// A session for somebody who has to show the code until then, and their place at the hub. `admitted`
    /// is called once they have. `None` if all slots are taken.
    pub fn player<F: Fn()>(
        self: &Rc<Self>,
        (now, until): (Instant, Instant),
        nonce: Nonce,
        admitted: F,
    ) -> Option<(Player, Place<F>)> {
        let slot = self.slots.iter().find(|slot| slot.standing() == SlotState::Vacant)?;
        slot.pending();
        let mut session = heapless::String::new();
        // It fits: eight digits.
        let _fits = write!(session, "{:08X}", (draw(&self.chance) >> 32) as u32);
        let (its, offer) = (Rc::clone(slot), Rc::clone(&self.offer));
        let player = Player::new(its, offer, Rc::clone(&self.code), nonce, session, (now, until));
        Some((player, Place { service: Rc::clone(self), slot: Rc::clone(slot), admitted }))
    }

    /// A session with the camera over a connection that was just made.
    pub fn upstream(self: &Rc<Self>, now: Instant) -> (Upstream, Link) {
        let (demand, code) = (Rc::clone(&self.demand), Rc::clone(&self.code));
        let ssrc = (draw(&self.chance) >> 32) as u32;
        let upstream = Upstream::new(demand, code, self.url.clone(), ssrc, now);
        (upstream, Link { service: Rc::clone(self) })
    }

    /// The conversation with the camera is over, or could not begin.
    pub fn lost(&self) {
        self.hub.borrow_mut().lost();
    }

    /// What players may expect, while nothing is shown.
    pub fn look(&self, stream_status: StreamStatus) {
        self.hub.borrow().look(stream_status);
    }

    /// Looks after what only time tells; to be called about once a second.
    pub fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    /// Tells every player to go.
    pub fn dismiss_all(&self) {
        self.hub.borrow().dismiss_all(Dismissal::Stopping);
    }

    /// Connections that are being served, whether they showed the code or not.
    pub fn connections(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() != SlotState::Vacant).count()
    }

    /// Whether the camera is to be watched.
    pub fn is_wanted(&self) -> bool {
        self.demand.is_wanted()
    }

    /// Ends the conversation with the camera, and begins no other.
    pub fn leave(&self) {
        self.demand.leave();
    }

    /// Whether the program ends.
    pub fn is_leaving(&self) -> bool {
        self.demand.is_leaving()
    }

    /// Completes when the camera is wanted, or not any more, or the program ends.
    pub async fn changed(&self) {
        self.demand.notified().await;
    }

    /// Players that showed the code.
    pub fn players(&self) -> usize {
        self.hub.borrow().players()
    }

    /// How many pictures there ever were.
    pub fn counts(&self) -> Counts {
        self.hub.borrow().counts()
    }

    /// Blocks in use.
    pub fn blocks(&self) -> usize {
        self.hub.borrow().blocks()
    }
}

/// The next of a row of numbers that nobody has to be unable to guess (splitmix64).
fn draw(chance: &Cell<u64>) -> u64 {
    let next = chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    chance.set(next);
    let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A player's place at the hub. Dropping it leaves the slot to somebody else.
pub struct Place<F: Fn()> {
    service: Rc<Service>,
    slot: Rc<Slot>,
    admitted: F,
}

impl<F: Fn()> Place<F> {
    /// Pictures that were sent, and pictures that were lost on the way.
    pub fn sent_and_lost(&self) -> (u32, u32) {
        (self.slot.sent(), self.slot.lost())
    }
}

impl<F: Fn()> Drop for Place<F> {
    fn drop(&mut self) {
        self.slot.vacate();
    }
}

impl<F: Fn()> Handler<Player> for Place<F> {
    fn admits(&self, _player: &Player) -> bool {
        true
    }

    fn handle_event(
        &self,
        _now: Instant,
        _player: &mut Player,
        event: client::Event,
    ) -> Result<(), client::Error> {
        let mut hub = self.service.hub.borrow_mut();
        if event.admitted {
            hub.join(&self.slot);
            if self.slot.standing() == SlotState::Taken {
                (self.admitted)();
            }
        }
        if self.slot.standing() != SlotState::Taken {
            return Ok(());
        }
        match event.wish {
            Wish::Nothing => {}
            Wish::Describe => hub.want(),
            Wish::Play => hub.play(&self.slot),
            Wish::Pause => self.slot.pause(),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.slot.notified().await;
    }
}

/// The upstream's link to the hub.
pub struct Link {
    service: Rc<Service>,
}

impl Handler<Upstream> for Link {
    fn admits(&self, _upstream: &Upstream) -> bool {
        true
    }

    fn handle_event(
        &self,
        now: Instant,
        upstream: &mut Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        let mut hub = self.service.hub.borrow_mut();
        match event {
            upstream::Event::Described => hub.described(now, upstream.description()),
            upstream::Event::Playing => {}
            upstream::Event::Packet { track, packet, content } => {
                hub.packet(now, track, &packet, content);
            }
            upstream::Event::Report { track, report } => hub.report(now, track, report),
            upstream::Event::Damaged { len } => hub.damaged(now, len),
            upstream::Event::Oversized { track, len } => hub.oversized(now, track, len),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.service.demand.notified().await;
    }
}
