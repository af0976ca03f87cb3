//! The RTSPS camera of X1, X2, H2 and P2: H.264 over RTP, interleaved in RTSP over TLS on port 322.
//!
//! The printer serves one or two players, and an X1C leaks a connection with each session. Here up to
//! `BOARD.clients.rtsp` players share one session, which is made for the first player and ended after the last.
//! Nothing is decoded. Facts about printers are in [`protocol`](crate::protocol#rtsps-camera).
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
//! | sends `OPTIONS` | answers; everything else needs user `bblp` and the access code, by Digest (one MD5 challenge, as printers send it) or Basic |
//! | sends `DESCRIBE`, for any path | holds it for up to 15 s until the camera has described its stream, then sends that description with the proxy's URLs |
//! | sends `SETUP` | accepts `RTP/AVP/TCP;interleaved`, on channels of the player's choice; answers UDP with 461, and players fall back by themselves |
//! | sends `PLAY` | begins with a key frame: at once where the pictures since the last one are at hand, else with the next one |
//! | waits for a key frame | sends an RTCP sender report of each track every two seconds |
//! | reads too slowly | finishes the picture that is being sent and goes on at the next key frame, without a gap in the numbers; other players do not wait |
//! | plays while the printer restarts | keeps the connection and goes on at the next key frame, on the same clock |
//! | shows a wrong code | answers 401, and the second one with 403, and closes |
//! | is the last to leave | ends the session with the camera after ten seconds |
//! | connects while live view is off | answers 503, with the reason in words |
//! | connects although the printer is an A1 or P1 | refuses the connection, as the printer does; before the model is known answers 404 |
//! | is one more than `BOARD.clients.rtsp` | answers 503 |
//! | is a viewer by HTTP ([`Service::watch`]) | counts as a player; gets the pictures as [MP4](mp4) |
//!
//! ```text
//! ffplay -rtsp_transport tcp rtsps://bblp:<CODE>@<THIS_MACHINE>:322/streaming/live/1
//! ```
//!
//! Players tried over TLS (`tests/program/rtsp.rs`), with the right code and a wrong one: FFmpeg 5.1.9 and GStreamer
//! 1.22.0, whose pictures equal those of the recording bit by bit, and mpv 0.35.1. GStreamer's RTSP server stood in
//! for the printer.

pub mod answer;
pub mod client;
pub mod digest;
pub mod hub;
pub mod mp4;
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

use crate::auth::{AccessCode, Guess};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::memory::budget::{self, PLAYERS};
use crate::memory::slots::{Occupant, Slot as _, SlotGuard, Slots};
use crate::notify::Demand;
use crate::printer::status::{Login, Status};
use crate::service::{self, Bound, Connection, Visitor};
use crate::session::Handler;
use client::{Command, Player};
use digest::Nonce;
use hub::{Counts, Hub};
use mp4::Mp4;
use sdp::{TRACKS, Url};
use slot::{Dismissal, Slot, SlotState};
use stream::{StreamInfo, StreamStatus};
use upstream::Upstream;

/// Blocks that may wait for a player; with more it loses pictures.
pub const RING: usize = BOARD.rtsp.ring;

/// Blocks in the longest picture.
pub const PICTURE: usize = budget::RTSP_PICTURE;

/// Blocks since the last key frame that are kept for new players: they fill half a ring.
pub const GROUP: usize = RING / 2;

const _: () = assert!(PICTURE < GROUP, "a group holds a key frame, and what follows it");
const _: () = assert!(
    size_of::<Service>() + size_of::<StreamInfo>() + size_of::<Demand>() + size_of::<AccessCode>()
        <= budget::RTSP_HUB,
    "the hub is larger than its budget line"
);
const _: () = assert!(
    budget::RTSP_OUTBOX >= budget::RTSP_BLOCK && budget::RTSP_OUTBOX >= sdp::MAX_SDP + 2048,
    "an outbox holds a block, and the description"
);
const _: () = assert!(wire::MAX_HEAD < budget::RTSP_INBOX, "an inbox holds the longest head");

/// The service: what its players' sessions and the session with the camera share.
pub struct Service {
    hub: RefCell<Hub>,
    slots: Slots<Slot>,
    demand: Rc<Demand>,
    stream_info: Rc<StreamInfo>,
    code: Rc<AccessCode>,
    status: Rc<Status>,
    /// The URL of the camera's stream.
    url: Url,
    chance: Cell<u64>,
}

impl Service {
    /// A service without players, for the camera at `url`. `chance` is any number: SSRCs and session identifiers
    /// are made of it.
    pub fn new(code: AccessCode, status: Rc<Status>, url: Url, chance: u64) -> Rc<Self> {
        let chance = Cell::new(chance);
        let sources: [u32; TRACKS] = core::array::from_fn(|_| (draw(&chance) >> 32) as u32);
        let slots = Slots::new(PLAYERS, |_| Slot::new());
        let demand = Rc::new(Demand::default());
        let stream_info = Rc::new(StreamInfo::new(sources));
        let first = draw(&chance) as u16;
        let hub = Hub::new(slots.clone(), Rc::clone(&demand), Rc::clone(&stream_info), first);
        Rc::new(Self {
            hub: RefCell::new(hub),
            slots,
            demand,
            stream_info,
            code: Rc::new(code),
            status,
            url,
            chance,
        })
    }

    /// A session for a connection whose access code is due at `until`, and its slot. `admitted` is called once
    /// the code was shown. `None` if no slot is free.
    pub fn player<F: Fn(), G: Fn(Guess)>(
        self: &Rc<Self>,
        (now, until): (Instant, Instant),
        nonce: Nonce,
        admitted: F,
        guessed: G,
    ) -> Option<(Player, PlayerLink<F, G>)> {
        let slot = self.slots.take()?;
        let mut session = heapless::String::new();
        // Cannot fail: eight digits.
        let _fits = write!(session, "{:08X}", (draw(&self.chance) >> 32) as u32);
        let (its, stream_info) = (Rc::clone(&slot), Rc::clone(&self.stream_info));
        let player =
            Player::new(its, stream_info, Rc::clone(&self.code), nonce, session, (now, until));
        Some((player, PlayerLink { service: Rc::clone(self), slot, admitted, guessed }))
    }

    /// A slot for a viewer that has shown the access code to another service, which sends it the pictures as MP4. The
    /// slot's state says whether it may stay. `None` if no slot is free.
    pub fn watch(&self) -> Option<(SlotGuard<Slot>, Mp4)> {
        let slot = self.slots.take()?;
        let mut hub = self.hub.borrow_mut();
        hub.join(&slot);
        if slot.state() == SlotState::Active {
            hub.play(&slot);
        }
        let mp4 = Mp4::new(Rc::clone(&slot), Rc::clone(&self.stream_info));
        Some((slot, mp4))
    }

    /// A session with the camera for a connection that was just made.
    pub fn upstream(&self, now: Instant) -> Upstream {
        let (demand, code) = (Rc::clone(&self.demand), Rc::clone(&self.code));
        let ssrc = (draw(&self.chance) >> 32) as u32;
        Upstream::new(demand, code, self.url.clone(), ssrc, now)
    }

    /// The session with the camera has ended, or could not be made.
    pub fn lost(&self) {
        self.hub.borrow_mut().lost();
    }

    /// Sets the stream's status while there is no session with the camera.
    pub fn set_status(&self, stream_status: StreamStatus) {
        self.hub.borrow().set_status(stream_status);
    }

    /// Whether the session with the camera is wanted.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Players that have shown the access code.
    pub fn players(&self) -> usize {
        self.hub.borrow().players()
    }

    /// Pictures and packets since the start.
    pub fn counts(&self) -> Counts {
        self.hub.borrow().counts()
    }

    /// Blocks in use.
    pub fn blocks(&self) -> usize {
        self.hub.borrow().blocks()
    }
}

impl service::Service for Service {
    fn name(&self) -> &'static str {
        "rtsp"
    }

    fn handle_timeout(&self, now: Instant) {
        self.hub.borrow_mut().handle_timeout(now);
    }

    fn connections(&self) -> usize {
        self.slots.connections()
    }

    fn is_wanted(&self) -> Option<bool> {
        Some(self.demand.is_wanted())
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        for (index, slot, occupant) in self.slots.occupants() {
            let lost = slot.pictures.lost();
            slot.occupancy().label().with(|id| {
                visitor.connection(&Connection { index, occupant, id, lost });
            });
        }
    }

    fn bounds(&self, show: &mut dyn FnMut(Bound)) {
        let used = self.blocks();
        show(Bound { what: "blocks", used, limit: budget::RTSP_BLOCKS.count });
    }

    fn disconnect_all(&self) {
        self.hub.borrow().dismiss_all(Dismissal::Stopping);
    }

    fn shut_down(&self) {
        self.demand.leave();
    }
}

/// The next number of a generator (splitmix64). The numbers need not be hard to guess.
fn draw(chance: &Cell<u64>) -> u64 {
    let next = chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    chance.set(next);
    let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A player's slot in use. Dropping it frees the slot.
pub struct PlayerLink<F: Fn(), G: Fn(Guess)> {
    service: Rc<Service>,
    slot: SlotGuard<Slot>,
    admitted: F,
    guessed: G,
}

impl<F: Fn(), G: Fn(Guess)> PlayerLink<F, G> {
    /// Where the slot's client is kept.
    pub fn occupant(&self) -> &Cell<Option<Occupant>> {
        self.slot.occupancy().occupant()
    }
}

impl<F: Fn(), G: Fn(Guess)> Handler<Player> for PlayerLink<F, G> {
    fn handle_event(
        &self,
        _now: Instant,
        _player: &mut Player,
        event: client::Event,
    ) -> Result<(), client::Error> {
        if let Some(guess) = event.guess {
            (self.guessed)(guess);
        }
        let mut hub = self.service.hub.borrow_mut();
        if event.admitted {
            hub.join(&self.slot);
            if self.slot.state() == SlotState::Active {
                (self.admitted)();
            }
        }
        if self.slot.state() != SlotState::Active {
            return Ok(());
        }
        match event.command {
            Command::Nothing => {}
            Command::Describe => hub.want(),
            Command::Play => hub.play(&self.slot),
            Command::Pause => self.slot.pause(),
        }
        Ok(())
    }

    async fn woken(&self) {
        self.slot.notified().await;
    }
}

/// The handler of the camera's events.
impl Handler<Upstream> for Rc<Service> {
    fn handle_event(
        &self,
        now: Instant,
        upstream: &mut Upstream,
        event: upstream::Event<'_>,
    ) -> Result<(), upstream::Error> {
        let mut hub = self.hub.borrow_mut();
        match event {
            upstream::Event::Described => hub.described(now, upstream.description()),
            upstream::Event::Playing => self.status.log_in(Login::Rtsp, now),
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
        self.demand.notified().await;
    }
}

/// Each message of the service once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    use client::Error as Client;
    use hub::{Message, Skipped};
    use upstream::Error as Printer;
    use wire::Fault;

    let faults =
        [Fault::NotRtsp, Fault::Version, Fault::HeadTooLong, Fault::BodyTooLong, Fault::Malformed];
    let clients = [
        Client::WrongCode,
        Client::Silent,
        Client::NoCode,
        Client::Idle,
        Client::Dismissed(Dismissal::Stopping),
        Client::Dismissed(Dismissal::Changed),
    ];
    let printers = [
        Printer::NotWanted,
        Printer::Leaving,
        Printer::UnexpectedResponse,
        Printer::Description(sdp::Fault::NotText),
        Printer::Description(sdp::Fault::NoMedia),
        Printer::Description(sdp::Fault::TooLong),
        Printer::NoWay,
        Printer::WrongCode,
        Printer::Refused(503),
        Printer::NoAnswer,
        Printer::Silent,
    ];
    let skipped = [
        Message { skipped: Skipped::NoKeyFrame, times: 1 },
        Message { skipped: Skipped::Damaged { len: 5 }, times: 3 },
        Message { skipped: Skipped::LongPacket { len: 65_535 }, times: 1 },
        Message { skipped: Skipped::LongPicture, times: 2 },
    ];
    let mut all: alloc::vec::Vec<_> = skipped.iter().map(ToString::to_string).collect();
    all.extend(faults.iter().map(|fault| Client::Fault(*fault).to_string()));
    all.extend(faults.iter().map(|fault| Printer::Fault(*fault).to_string()));
    all.extend(clients.iter().map(ToString::to_string));
    all.extend(printers.iter().map(ToString::to_string));
    all
}
