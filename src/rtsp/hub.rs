//! The RTSPS camera's policy: who is shown which picture, and when the camera is wanted.
//!
//! Packets are put together to pictures, each in blocks of a shared pool, and a picture is shown to all
//! players when it is whole. So nobody ever has a part of one: not from a camera that dies in the
//! middle of it, and not by being slow, since a player that loses pictures loses whole ones
//! ([`Slot::show`]). The pictures since the last key frame are kept for those who come next.
//!
//! Nothing that a player does or leaves undone reaches the camera or another player: there are as many
//! blocks as they can hold on to together ([`RTSP_BLOCKS`]).

use alloc::rc::Rc;
use core::time::Duration;

use super::rtp::{Content, Packet, SenderReport};
use super::sdp::{Description, TRACKS};
use super::slot::{Block, Dismissal, Slot, SlotState};
use super::stream::{StreamInfo, StreamStatus};
use super::timeline::Timeline;
use super::wire::{DOLLAR, FRAME_HEAD};
use super::{GROUP, PICTURE};
use crate::board::BOARD;
use crate::clock::Instant;
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{FRAME_SLOT, RTSP_BLOCK, RTSP_BLOCKS};
use crate::memory::pool::{Filling, Pool, Shape};
use crate::notify::Demand;

/// How long the camera is kept after its last player was seen to have gone, which is looked at every
/// second. A session is dear to make: an X1C loses a TLS place with each (PROTOCOL §4).
pub const LINGER: Duration = Duration::from_secs(10);

/// How long there may be packets without a key frame before that is said.
const KEY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes in the longest packet that is shown. Cameras send up to 1456.
pub const MAX_PACKET: usize = RTSP_BLOCK - FRAME_HEAD;

/// What the service's players and its upstream meet at.
pub struct Hub {
    slots: Rc<[Rc<Slot>]>,
    demand: Rc<Demand>,
    offer: Rc<StreamInfo>,
    pool: Pool<u32>,
    coming: Coming,
    /// The pictures since the last key frame, if they are all there.
    group: Group,
    /// The index of the track that decides where pictures begin and end.
    main: usize,
    lines: [Timeline; TRACKS],
    /// The number of the picture that comes; a slice that comes behind a picture's mark has its number.
    number: u32,
    /// Since when nobody was seen to watch, while the camera is still wanted.
    deserted: Option<Instant>,
    /// When the last key frame came, or the camera began to show pictures.
    keyed: Option<Instant>,
    counts: Counts,
    damaged: RateLimit,
    too_long: RateLimit,
    keyless: RateLimit,
}

/// The picture that comes.
#[derive(Default)]
struct Coming {
    blocks: heapless::Vec<Block, PICTURE>,
    filling: Option<Filling<u32>>,
    /// The camera's time of it, once there is something of it.
    timestamp: Option<u32>,
    content: Content,
    /// It has more than can be held: nothing of it is shown.
    too_long: bool,
}

/// Pictures from a key frame on.
#[derive(Default)]
struct Group {
    blocks: heapless::Vec<Block, GROUP>,
    /// Whether it has all of them.
    whole: bool,
}

/// How many pictures there ever were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That the camera showed.
    pub shown: u32,
    /// Of those, key frames.
    pub keys: u32,
    /// Packets that were none.
    pub damaged: u32,
    /// Packets and pictures that no block, or not enough of them, can hold.
    pub too_long: u32,
}

const _: () =
    assert!(Pool::<u32>::FRAME_SLOT <= FRAME_SLOT, "a block costs more than its line says");

impl Hub {
    /// A hub for these slots. Numbers of packets begin at `first`.
    pub fn new(
        slots: Rc<[Rc<Slot>]>,
        demand: Rc<Demand>,
        offer: Rc<StreamInfo>,
        first: u16,
    ) -> Self {
        Self {
            slots,
            demand,
            offer,
            pool: Pool::new(Shape { count: 0, size: 0 }, RTSP_BLOCKS),
            coming: Coming::default(),
            group: Group::default(),
            main: 0,
            lines: core::array::from_fn(|_| Timeline::new(first)),
            number: 0,
            deserted: None,
            keyed: None,
            counts: Counts::default(),
            damaged: RateLimit::default(),
            too_long: RateLimit::default(),
            keyless: RateLimit::default(),
        }
    }

    /// Somebody showed the right code.
    pub fn join(&mut self, slot: &Slot) {
        if self.players() >= BOARD.clients.rtsp {
            slot.dismiss(Dismissal::Full);
        } else {
            slot.take();
        }
    }

    /// A player wants to know what the camera shows, or to see it.
    pub fn want(&mut self) {
        self.deserted = None;
        self.demand.want(true);
    }

    /// A player wants pictures.
    pub fn play(&mut self, slot: &Slot) {
        self.want();
        let group = if self.group.whole { self.group.blocks.as_slice() } else { &[] };
        slot.play(group.iter());
    }

    /// The camera has described its stream. Players that rely on another description are disconnected.
    pub fn described(&mut self, now: Instant, description: &Description) {
        for (line, track) in self.lines.iter_mut().zip(description.tracks()) {
            line.begin(track.rate);
        }
        self.main = description.main();
        if self.offer.description().text() != description.text() {
            for slot in self.slots.iter().filter(|slot| slot.is_told()) {
                slot.dismiss(Dismissal::Changed);
            }
            self.offer.describe(description.clone());
        }
        self.keyed = Some(now);
        self.look(StreamStatus::Ready);
    }

    /// What players may expect now.
    pub fn look(&self, stream_status: StreamStatus) {
        if self.offer.set_outlook(stream_status) {
            for slot in &*self.slots {
                slot.notify();
            }
        }
    }

    /// A packet of a track has arrived, with these kinds of NAL units in it.
    pub fn packet(&mut self, now: Instant, track: usize, packet: &Packet<'_>, content: Content) {
        let is_main = track == self.main;
        if is_main && self.coming.timestamp.is_some_and(|time| time != packet.timestamp) {
            self.end_picture(now);
        }
        let Some(line) = self.lines.get_mut(track) else { return };
        let begins = if is_main {
            let is_next = self.coming.timestamp.replace(packet.timestamp).is_none();
            // Some cameras mark each slice as the last of its picture (live555's discrete framer).
            let goes_on = content.picture && !content.first && !line.is_new(packet.timestamp);
            if is_next && goes_on {
                self.number = self.number.wrapping_sub(1);
            }
            is_next && !goes_on
        } else {
            line.is_new(packet.timestamp)
        };
        let stamp = line.stamp(now, packet, begins);
        if is_main {
            self.coming.content = self.coming.content.and(content);
        }
        let source = self.offer.source(track);
        let (head, rest) = packet.renumbered(stamp.sequence, stamp.timestamp, source);
        self.store(now, track, false, [&head, rest]);
        if is_main && packet.marker {
            self.end_picture(now);
        }
    }

    /// A sender report of a track has arrived. Players get it with their timestamps, and nothing else of RTCP.
    pub fn report(&mut self, now: Instant, track: usize, report: SenderReport) {
        let time = self.lines.get(track).and_then(|line| line.time_of(report.timestamp));
        let Some(timestamp) = time else { return };
        let report = SenderReport { timestamp, ..report };
        self.offer.set_report(track, report, now);
        self.store(now, track, true, [&report.bytes(self.offer.source(track)), &[]]);
    }

    /// A packet of so many bytes is passed over, and the picture that it belongs to with it.
    pub fn oversized(&mut self, now: Instant, track: usize, len: usize) {
        self.coming.too_long |= track == self.main;
        self.too_long(now, format_args!("a packet of {len} bytes is longer than {MAX_PACKET}"));
    }

    /// The conversation with the camera is over, perhaps in the middle of a picture.
    pub fn lost(&mut self) {
        self.give_up();
        // What there was of it has numbers that nobody is shown: the next picture does not follow.
        self.number = self.number.wrapping_add(1);
        self.interrupt();
        self.keyed = None;
        if self.offer.stream_status() == StreamStatus::Ready {
            self.look(StreamStatus::Open);
        }
    }

    /// Looks after what only time tells; to be called about once a second.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.players() > 0 || !self.demand.is_wanted() {
            self.deserted = None;
        } else if now.since(*self.deserted.get_or_insert(now)) >= LINGER {
            self.demand.want(false);
        }
        if self.keyed.is_some_and(|keyed| now.since(keyed) >= KEY_TIMEOUT)
            && let Some(times) = self.keyless.check(now)
        {
            journal::note(
                Kind::PictureDamaged,
                format_args!(
                    "rtsp: packets, but no key frame for {} s: nobody who comes can see them ({times})",
                    KEY_TIMEOUT.as_secs()
                ),
            );
        }
    }

    /// Everybody has to go.
    pub fn dismiss_all(&self, why: Dismissal) {
        for slot in &*self.slots {
            slot.dismiss(why);
        }
    }

    /// Those who showed the right code.
    pub fn players(&self) -> usize {
        self.slots.iter().filter(|slot| slot.standing() == SlotState::Taken).count()
    }

    /// How many pictures there ever were.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Blocks in use.
    pub fn blocks(&self) -> usize {
        self.pool.in_use().1
    }

    /// Writes a packet behind what has come of the picture.
    fn store(&mut self, now: Instant, track: usize, is_control: bool, pieces: [&[u8]; 2]) {
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let channel = u8::try_from(track * 2 + usize::from(is_control)).unwrap_or(u8::MAX);
        let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        if self.coming.too_long {
            return;
        }
        if self.coming.room() < FRAME_HEAD + len && !self.next_block() {
            if self.coming.timestamp.is_some() {
                self.coming.too_long = true;
                let most = BOARD.rtsp.picture;
                self.too_long(
                    now,
                    format_args!("a picture is longer than {most} bytes (BOARD.rtsp.picture)"),
                );
                return;
            }
            // Sound without pictures: what there is of it is shown.
            self.show(now);
            if !self.next_block() {
                return;
            }
        }
        let Some(filling) = &mut self.coming.filling else { return };
        // It fits: there is room for all of it.
        let _fits = filling.append(&[DOLLAR, channel, high, low]);
        for piece in pieces {
            let _fits = filling.append(piece);
        }
    }

    /// Begins the next block of the picture; `false` when it has as many as it may have.
    fn next_block(&mut self) -> bool {
        self.close_block();
        if self.coming.blocks.is_full() {
            return false;
        }
        self.coming.filling = self.pool.begin(RTSP_BLOCK);
        self.coming.filling.is_some()
    }

    fn close_block(&mut self) {
        let Some(filling) = self.coming.filling.take() else { return };
        if let Some(block) = self.pool.finish(filling, self.number) {
            // It fits: none is begun when it is full.
            let _fits = self.coming.blocks.push(block);
        }
    }

    /// The picture is whole. If it is none, but what a decoder has to know before the next one, it belongs
    /// to that.
    fn end_picture(&mut self, now: Instant) {
        if self.coming.content.picture || self.coming.too_long {
            self.show(now);
        } else {
            self.coming.timestamp = None;
        }
    }

    /// Everybody is shown what has come.
    fn show(&mut self, now: Instant) {
        self.close_block();
        let Coming { blocks, content, too_long, .. } = core::mem::take(&mut self.coming);
        self.number = self.number.wrapping_add(1);
        if too_long || blocks.is_empty() {
            self.interrupt();
            return;
        }
        // Nobody can begin with a later slice: what stands before the first is missing.
        let is_key = content.key && content.first;
        self.counts.shown = self.counts.shown.saturating_add(u32::from(content.first));
        self.counts.keys = self.counts.keys.saturating_add(u32::from(is_key));
        if is_key {
            self.keyed = Some(now);
            self.group.begin();
        }
        self.group.add(&blocks);
        for slot in &*self.slots {
            if slot.standing() == SlotState::Taken {
                slot.show(&blocks, is_key);
            }
        }
    }

    /// A picture is missing. What follows leans on it: nobody is shown it, and nobody begins with it.
    fn interrupt(&mut self) {
        self.group = Group::default();
        for slot in &*self.slots {
            slot.interrupt();
        }
    }

    fn give_up(&mut self) {
        if let Some(filling) = core::mem::take(&mut self.coming).filling {
            self.pool.give_up(filling);
        }
    }

    /// A packet of so many bytes was not RTP, and is skipped.
    pub fn damaged(&mut self, now: Instant, len: usize) {
        self.counts.damaged = self.counts.damaged.saturating_add(1);
        match self.damaged.check(now) {
            None => journal::tally(Kind::PictureDamaged),
            Some(times) => journal::note(
                Kind::PictureDamaged,
                format_args!("rtsp: a packet of {len} bytes is no RTP: passed over ({times})"),
            ),
        }
    }

    fn too_long(&mut self, now: Instant, what: core::fmt::Arguments<'_>) {
        self.counts.too_long = self.counts.too_long.saturating_add(1);
        match self.too_long.check(now) {
            None => journal::tally(Kind::PictureTooLong),
            Some(times) => journal::note(
                Kind::PictureTooLong,
                format_args!("rtsp: {what}: passed over ({times})"),
            ),
        }
    }
}

impl Coming {
    /// Bytes that the block at hand still has room for.
    fn room(&self) -> usize {
        self.filling.as_ref().map_or(0, |filling| RTSP_BLOCK - filling.written().len())
    }
}

impl Group {
    fn begin(&mut self) {
        self.blocks.clear();
        self.whole = true;
    }

    fn add(&mut self, blocks: &[Block]) {
        if self.whole && self.blocks.extend_from_slice(blocks).is_err() {
            self.blocks.clear();
            self.whole = false;
        }
    }
}
