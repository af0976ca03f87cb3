//! The RTSPS camera's fan-out: which player gets which picture, and when the camera is wanted.
//!
//! Packets are assembled to pictures, each in blocks of a shared pool, and players get a picture when it is
//! whole. So no player ever gets a part of a picture: not when the camera's connection breaks in the middle of
//! it, and not by being slow, since a slow player loses whole pictures ([`Slot::show`]). The pictures since the
//! last key frame are kept for new players.
//!
//! No player can delay the camera or another player: there are as many blocks as all players can hold
//! ([`RTSP_BLOCKS`]).

use alloc::rc::Rc;
use core::fmt;
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
use crate::counts::{self, Count};
use crate::journal::{self, Kind, RateLimit};
use crate::memory::budget::{FRAME_SLOT, RTSP_BLOCK, RTSP_BLOCKS};
use crate::memory::pool::{Filling, Pool, Shape};
use crate::memory::slots::{Slot as _, Slots};
use crate::notify::Demand;

/// How long the session with the camera is kept after the last player has left, which is checked once a second.
/// An X1C leaks a TLS connection with each session ([`protocol`](crate::protocol#rtsps-camera)).
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long packets may arrive without a key frame before that is logged.
const KEY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes in the longest packet that is forwarded. Cameras send up to 1456.
pub const MAX_PACKET: usize = RTSP_BLOCK - FRAME_HEAD;

/// The pictures, the players' slots, and the demand for the camera.
pub struct Hub {
    slots: Slots<Slot>,
    demand: Rc<Demand>,
    stream_info: Rc<StreamInfo>,
    pool: Pool<u32>,
    coming: Coming,
    /// The pictures since the last key frame, if none is missing.
    group: Group,
    /// The index of the track that decides where pictures begin and end.
    main: usize,
    lines: [Timeline; TRACKS],
    /// The number of the picture that is arriving. A slice that arrives after a picture's marker has the same.
    number: u32,
    /// Since when there is no player, while the camera is still wanted.
    unwatched_since: Option<Instant>,
    /// When the last key frame arrived, or the session began.
    keyed: Option<Instant>,
    counts: Counts,
    damaged: RateLimit,
    too_long: RateLimit,
    keyless: RateLimit,
}

/// The picture that is arriving.
#[derive(Default)]
struct Coming {
    blocks: heapless::Vec<Block, PICTURE>,
    filling: Option<Filling<u32>>,
    /// The camera's timestamp of it, once a packet of it has arrived.
    timestamp: Option<u32>,
    content: Content,
    /// Whether the picture is too long, and is skipped.
    too_long: bool,
}

/// Pictures from a key frame on.
#[derive(Default)]
struct Group {
    blocks: heapless::Vec<Block, GROUP>,
    /// Whether none is missing.
    whole: bool,
}

/// Pictures and packets since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole pictures from the camera.
    pub shown: u32,
    /// Key frames among them.
    pub keys: u32,
    /// Packets skipped because they were not RTP.
    pub damaged: u32,
    /// Packets longer than [`MAX_PACKET`], and pictures longer than `BOARD.rtsp.picture`, skipped.
    pub too_long: u32,
}

const _: () =
    assert!(Pool::<u32>::FRAME_SLOT <= FRAME_SLOT, "a block is larger than its budget line");

impl Hub {
    /// A hub for these slots. Players' sequence numbers begin at `first`.
    pub fn new(
        slots: Slots<Slot>,
        demand: Rc<Demand>,
        stream_info: Rc<StreamInfo>,
        first: u16,
    ) -> Self {
        Self {
            slots,
            demand,
            stream_info,
            pool: Pool::new(Shape { count: 0, size: 0 }, RTSP_BLOCKS),
            coming: Coming::default(),
            group: Group::default(),
            main: 0,
            lines: core::array::from_fn(|_| Timeline::new(first)),
            number: 0,
            unwatched_since: None,
            keyed: None,
            counts: Counts::default(),
            damaged: RateLimit::default(),
            too_long: RateLimit::default(),
            keyless: RateLimit::default(),
        }
    }

    /// Admits a connection that has shown the access code, or dismisses it.
    pub fn join(&mut self, slot: &Slot) {
        if self.players() >= BOARD.clients.rtsp {
            slot.dismiss(Dismissal::Full);
        } else {
            slot.admit();
        }
    }

    /// A player wants the description, or pictures: the camera is wanted.
    pub fn want(&mut self) {
        self.unwatched_since = None;
        self.demand.want(true);
    }

    /// A player begins to play.
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
        if self.stream_info.description().text() != description.text() {
            for slot in self.slots.iter().filter(|slot| slot.is_described()) {
                slot.dismiss(Dismissal::Changed);
            }
            self.stream_info.describe(description.clone());
        }
        self.keyed = Some(now);
        self.set_status(StreamStatus::Ready);
    }

    /// Sets the stream's status, and wakes all players if it has changed.
    pub fn set_status(&self, stream_status: StreamStatus) {
        if self.stream_info.set_status(stream_status) {
            for slot in self.slots.iter() {
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
        let source = self.stream_info.source(track);
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
        self.stream_info.set_report(track, report, now);
        self.store(now, track, true, [&report.bytes(self.stream_info.source(track)), &[]]);
    }

    /// A packet of `len` bytes is too long. It is skipped, and its picture with it.
    pub fn oversized(&mut self, now: Instant, track: usize, len: usize) {
        self.coming.too_long |= track == self.main;
        self.too_long(now, Skipped::LongPacket { len });
    }

    /// The session with the camera has ended. What has arrived of a picture is dropped.
    pub fn lost(&mut self) {
        self.coming = Coming::default();
        // The dropped packets have used sequence numbers, so the next picture does not follow the last.
        self.number = self.number.wrapping_add(1);
        self.interrupt();
        self.keyed = None;
        if self.stream_info.stream_status() == StreamStatus::Ready {
            self.set_status(StreamStatus::Open);
        }
    }

    /// Housekeeping, about once a second: drops the camera after [`LINGER_TIMEOUT`], and logs a missing key frame.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.players() > 0 || !self.demand.is_wanted() {
            self.unwatched_since = None;
        } else if now.since(*self.unwatched_since.get_or_insert(now)) >= LINGER_TIMEOUT {
            self.demand.want(false);
        }
        if self.keyed.is_some_and(|keyed| now.since(keyed) >= KEY_TIMEOUT)
            && let Some(times) = self.keyless.check(now)
        {
            journal::note(
                Kind::PictureDamaged,
                format_args!("{}", Message { skipped: Skipped::NoKeyFrame, times }),
            );
        }
    }

    /// Closes all connections.
    pub fn dismiss_all(&self, why: Dismissal) {
        for slot in self.slots.iter() {
            slot.dismiss(why);
        }
    }

    /// Players that have shown the access code.
    pub fn players(&self) -> usize {
        self.slots.active()
    }

    /// Pictures and packets since the start.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Blocks in use.
    pub fn blocks(&self) -> usize {
        self.pool.in_use().1
    }

    /// Appends a packet to the picture that is arriving.
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
                self.too_long(now, Skipped::LongPicture);
                return;
            }
            // Sound without pictures: players get what has arrived.
            self.show(now);
            if !self.next_block() {
                return;
            }
        }
        let Some(filling) = &mut self.coming.filling else { return };
        // Cannot fail: `next_block` has made room.
        let _fits = filling.append(&[DOLLAR, channel, high, low]);
        for piece in pieces {
            let _fits = filling.append(piece);
        }
    }

    /// Begins the picture's next block. Returns `false` when the picture has all blocks that it may have.
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
        if let Some(block) = filling.finish(self.number) {
            // Cannot fail: no block is begun when `blocks` is full.
            let _fits = self.coming.blocks.push(block);
        }
    }

    /// The picture is whole. If it has no slice, only parameter sets for example, it belongs to the next one.
    fn end_picture(&mut self, now: Instant) {
        if self.coming.content.picture || self.coming.too_long {
            self.show(now);
        } else {
            self.coming.timestamp = None;
        }
    }

    /// Gives the picture to all players.
    fn show(&mut self, now: Instant) {
        self.close_block();
        let Coming { blocks, content, too_long, .. } = core::mem::take(&mut self.coming);
        self.number = self.number.wrapping_add(1);
        if too_long || blocks.is_empty() {
            counts::add("rtsp", Count::Dropped, too_long.into());
            self.interrupt();
            return;
        }
        // A player cannot begin with a later slice: the first one is missing.
        let is_key = content.key && content.first;
        self.counts.shown = self.counts.shown.saturating_add(u32::from(content.first));
        counts::add("rtsp", Count::Received, content.first.into());
        self.counts.keys = self.counts.keys.saturating_add(u32::from(is_key));
        if is_key {
            self.keyed = Some(now);
            self.group.begin();
        }
        self.group.add(&blocks);
        for slot in self.slots.iter() {
            if slot.state() == SlotState::Active {
                slot.show(&blocks, is_key);
            }
        }
    }

    /// A picture is missing. Those after it depend on it, so all players wait for the next key frame.
    fn interrupt(&mut self) {
        self.group = Group::default();
        for slot in self.slots.iter() {
            slot.interrupt();
        }
    }

    /// A packet of `len` bytes is not RTP. It is skipped.
    pub fn damaged(&mut self, now: Instant, len: usize) {
        self.counts.damaged = self.counts.damaged.saturating_add(1);
        match self.damaged.check(now) {
            None => journal::tally(Kind::PictureDamaged),
            Some(times) => journal::note(
                Kind::PictureDamaged,
                format_args!("{}", Message { skipped: Skipped::Damaged { len }, times }),
            ),
        }
    }

    fn too_long(&mut self, now: Instant, skipped: Skipped) {
        self.counts.too_long = self.counts.too_long.saturating_add(1);
        match self.too_long.check(now) {
            None => journal::tally(Kind::PictureTooLong),
            Some(times) => {
                journal::note(Kind::PictureTooLong, format_args!("{}", Message { skipped, times }));
            }
        }
    }
}

/// Why players are not sent something.
pub(super) enum Skipped {
    /// Packets arrive, but no key frame.
    NoKeyFrame,
    /// A packet is not RTP.
    Damaged { len: usize },
    /// A packet is too long.
    LongPacket { len: usize },
    /// A picture is too long.
    LongPicture,
}

/// The log line of something that players are not sent.
pub(super) struct Message {
    pub skipped: Skipped,
    /// How often it has occurred since the last line.
    pub times: u32,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.skipped {
            Skipped::NoKeyFrame => {
                write!(f, "rtsp: the camera sends no key frame for {} s", KEY_TIMEOUT.as_secs())?;
            }
            Skipped::Damaged { len } => {
                write!(f, "rtsp: skipped a packet of {len} bytes: it is not RTP")?;
            }
            Skipped::LongPacket { len } => write!(f, "rtsp: skipped a packet of {len} bytes")?,
            Skipped::LongPicture => f.write_str("rtsp: skipped a picture that is too long")?,
        }
        if self.times > 1 {
            write!(f, " (seen {} times)", self.times)?;
        }
        match self.skipped {
            Skipped::NoKeyFrame => f.write_str("; new players see nothing"),
            Skipped::Damaged { .. } => Ok(()),
            Skipped::LongPacket { .. } => write!(f, "; at most {MAX_PACKET} fit"),
            Skipped::LongPicture => {
                let most = BOARD.rtsp.picture;
                write!(f, "; at most {most} bytes fit (BOARD.rtsp.picture)")
            }
        }
    }
}

impl Coming {
    /// Bytes that the current block has room for.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::wakes;

    #[test]
    fn a_new_status_wakes_every_player() {
        let slots = Slots::new(2, |_| Slot::new());
        let stream_info = Rc::new(StreamInfo::new([0; TRACKS]));
        let hub = Hub::new(slots.clone(), Rc::new(Demand::default()), stream_info, 0);
        for (slot, status) in slots.iter().zip([StreamStatus::Ready, StreamStatus::Open]) {
            assert!(wakes(|| slot.notified(), || hub.set_status(status)));
            assert!(!wakes(|| slot.notified(), || hub.set_status(status)), "it is the same");
        }
    }
}
