//! The stream as fragmented MP4 for one viewer, without decoding: browsers play that, and not RTSP.
//!
//! Each picture becomes a fragment. A picture is written once the next one has begun to arrive: only then is it
//! known that no slice of it is missing, and how long it is shown. Its packets are written out of their
//! [blocks](super::slot::Block): nothing is stored here.
//!
//! # Time
//!
//! The timestamps of RTP are replaced by the sum of the durations so far, so that the time never goes back, whatever the
//! camera's clock does. A picture is shown for `MAX_DURATION` at most: after a restart of the camera, or pictures lost
//! by slow reading, a player goes on with the next key frame instead of waiting as long as the gap was. Pictures that
//! were at hand before the viewer came are shown for `KEPT_DURATION` each, so that the viewer sees what is
//! happening now, and not some seconds later.
//!
//! Pictures are shown in the order in which they arrive. Cameras send none that are shown in another order.

pub mod boxes;
pub mod h264;

use alloc::rc::Rc;

use super::playback::{Frame, frames};
use super::rtp::Packet;
use super::sdp::{Codec, Description};
use super::slot::{Block, Slot};
use super::stream::{StreamInfo, StreamStatus};
use super::wire::FRAME_HEAD;
use crate::memory::budget::RTSP_BLOCK;
use boxes::{Boxes, FRAGMENT_HEAD, Fragment, MAX_INIT, RATE};
use h264::{Format, LENGTH, ParameterSets, Piece, Slices, each_piece, is_key_slice};

/// How long a picture is shown at most, in ticks: one second.
const MAX_DURATION: u32 = RATE;

/// How long a picture is shown that was at hand before the viewer came, in ticks: one millisecond.
const KEPT_DURATION: u32 = RATE / 1000;

/// Pictures that are kept for new viewers, at most.
const GROUP: u32 = super::GROUP as u32;

/// Bytes in the smallest outbox: it holds the longest packet, and the beginning of a file with that of a picture.
pub const MIN_OUTBOX: usize = RTSP_BLOCK + LENGTH + 1;

const _: () = assert!(MAX_INIT + FRAGMENT_HEAD <= MIN_OUTBOX, "an outbox is too small");

/// One viewer's place in the stream.
pub struct Mp4 {
    slot: Rc<Slot>,
    info: Rc<StreamInfo>,
    /// The parameter sets in the beginning of the file, once that is written.
    sets: Option<ParameterSets>,
    /// The number of the last picture that was at hand before the viewer came, until it is written.
    kept: Option<u32>,
    /// Fragments written so far.
    fragments: u32,
    /// When the next picture is shown, in ticks.
    time: u64,
    /// The number of the picture that is being written.
    picture: Option<u32>,
    /// The block that is being written, and how much of it is written.
    block: Option<(Block, Written)>,
    slices: Slices,
}

/// Whether the stream can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet: no key frame has arrived.
    Waits,
    /// [`Mp4::write`] writes it.
    Ready,
    /// Never.
    Unusable(Unusable),
}

/// Why a stream cannot be repackaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The camera sends another codec than H.264.
    Codec,
    /// The camera sends no parameter sets, or none that can be read.
    ParameterSets,
}

/// How much of a block is written.
#[derive(Clone, Copy, Default)]
struct Written {
    /// Where the packet begins that is being written.
    at: usize,
    /// Pieces of units in that packet that are written.
    pieces: usize,
}

/// The camera's pictures have become others: the file that was begun cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed;

/// A picture that has arrived.
#[derive(Default)]
struct Picture {
    number: u32,
    /// The camera's timestamp.
    timestamp: Option<u32>,
    /// The timestamp of the next one.
    next: u32,
    /// Its bytes in MP4.
    size: u32,
    is_key: bool,
    /// Parameter sets in front of it.
    sets: ParameterSets,
}

impl Mp4 {
    /// For the viewer in this slot, which has begun to play.
    pub fn new(slot: Rc<Slot>, info: Rc<StreamInfo>) -> Self {
        let kept = slot.waiting().iter().last().map(|block| *block.tag());
        Self {
            slot,
            info,
            sets: None,
            kept,
            fragments: 0,
            time: 0,
            picture: None,
            block: None,
            slices: Slices::default(),
        }
    }

    /// Whether there is a stream, or why not.
    pub fn stream_status(&self) -> StreamStatus {
        self.info.stream_status()
    }

    /// Whether the stream can begin.
    pub fn readiness(&self) -> Readiness {
        if self.sets.is_some() {
            return Readiness::Ready;
        }
        let description = self.info.description();
        let is_known = self.info.stream_status() == StreamStatus::Ready;
        if is_known && codec(&description) != Codec::H264 {
            return Readiness::Unusable(Unusable::Codec);
        }
        match first_picture(&self.slot, description.main()) {
            None => Readiness::Waits,
            Some(picture) => match beginning(&picture, &description) {
                None => Readiness::Unusable(Unusable::ParameterSets),
                Some(_) => Readiness::Ready,
            },
        }
    }

    /// Writes as much as has arrived and `out` has room for, [`MIN_OUTBOX`] at least. Returns the bytes written.
    ///
    /// # Errors
    ///
    /// The stream cannot be continued.
    pub fn write(&mut self, out: &mut [u8]) -> Result<usize, Changed> {
        let main = self.info.description().main();
        let room = out.len();
        let mut out = Boxes::new(out);
        loop {
            if self.picture.is_none() {
                let Some(picture) = first_picture(&self.slot, main) else { break };
                if room - out.len < MAX_INIT + FRAGMENT_HEAD {
                    break;
                }
                let may_begin = self.sets.is_some() || picture.is_key;
                match picture.timestamp.filter(|_| may_begin) {
                    Some(timestamp) => match self.begin_picture(&picture, timestamp, &mut out) {
                        Ok(()) => {}
                        // What was written before is whole.
                        Err(Changed) if out.len > 0 => break,
                        Err(Changed) => return Err(Changed),
                    },
                    // Sound alone, for example.
                    None => {
                        while self.next_block_of(picture.number).is_some() {}
                        continue;
                    }
                }
                self.picture = Some(picture.number);
            }
            let begun = self.block.take();
            let next = || self.picture.and_then(|number| self.next_block_of(number));
            let Some((block, written)) = begun.or_else(next) else {
                self.picture = None;
                continue;
            };
            if let Some(written) = self.write_block(&block, written, main, room, &mut out) {
                self.block = Some((block, written));
                break;
            }
        }
        Ok(out.len)
    }

    /// Writes what precedes a picture.
    fn begin_picture(
        &mut self,
        picture: &Picture,
        timestamp: u32,
        out: &mut Boxes<'_>,
    ) -> Result<(), Changed> {
        match &self.sets {
            Some(sets) if sets.differ_from(&picture.sets) => return Err(Changed),
            Some(_) => {}
            None => {
                let description = self.info.description();
                let (sets, format) = beginning(picture, &description).ok_or(Changed)?;
                boxes::write_init(out, &sets, &format);
                self.sets = Some(sets);
                // From now on another description ends the connection.
                self.slot.set_described();
            }
        }
        self.slices = Slices::default();
        let step = picture.next.wrapping_sub(timestamp);
        self.kept = self.kept.filter(|kept| kept.wrapping_sub(picture.number) <= GROUP);
        let duration = match self.kept {
            Some(_) => KEPT_DURATION,
            // A step back is none.
            None if step > u32::MAX / 2 => 1,
            None => step.clamp(1, MAX_DURATION),
        };
        self.fragments = self.fragments.wrapping_add(1);
        let (number, time, is_key) = (self.fragments, self.time, picture.is_key);
        Fragment { number, time, duration, size: picture.size, is_key }.write_head(out);
        self.time += u64::from(duration);
        Ok(())
    }

    /// The next block of this picture, of which nothing is written.
    fn next_block_of(&self, number: u32) -> Option<(Block, Written)> {
        let first = self.slot.waiting().iter().next().map(|block| *block.tag());
        let block = (first == Some(number)).then(|| self.slot.next()).flatten()?;
        Some((block, Written::default()))
    }

    /// Writes the slices of a block, as far as there is room. Returns how much is written, if it is not all.
    fn write_block(
        &mut self,
        block: &Block,
        mut written: Written,
        main: usize,
        room: usize,
        out: &mut Boxes<'_>,
    ) -> Option<Written> {
        let mut rest = frames(block.get(written.at..).unwrap_or_default());
        while let Some(frame) = rest.next() {
            let mut slices = self.slices;
            let (mut pieces, mut is_full) = (0, false);
            each_piece(payload(&frame, main), |piece| {
                pieces += 1;
                if is_full || pieces <= written.pieces {
                    return;
                }
                let mut after = slices;
                let mut len = after.len_of(piece);
                if len > room - out.len {
                    is_full = true;
                    return;
                }
                slices = after;
                written.pieces = pieces;
                if len == 0 {
                    return;
                }
                let (Piece::Begin { body, .. } | Piece::More { body, .. }) = piece;
                if let Piece::Begin { head, .. } = piece {
                    if slices.is_open() {
                        len += self.rest_of_slice(slices, rest.clone(), main);
                    }
                    out.put(&u32::try_from(len - LENGTH).unwrap_or(u32::MAX).to_be_bytes());
                    out.put(&[head]);
                }
                out.put(body);
            });
            self.slices = slices;
            if is_full {
                return Some(written);
            }
            written = Written { at: written.at + FRAME_HEAD + frame.packet.len(), pieces: 0 };
        }
        None
    }

    /// Bytes of the slice that goes on: in the frames behind it, and in the picture's next blocks.
    fn rest_of_slice<'b>(
        &self,
        mut slices: Slices,
        behind: impl Iterator<Item = Frame<'b>>,
        main: usize,
    ) -> usize {
        let mut len = 0;
        let mut add = |frame: &Frame<'_>| {
            each_piece(payload(frame, main), |piece| match piece {
                Piece::More { .. } => len += slices.len_of(piece),
                Piece::Begin { .. } => slices = Slices::default(),
            });
            slices.is_open()
        };
        for frame in behind {
            if !add(&frame) {
                return len;
            }
        }
        let waiting = self.slot.waiting();
        for block in waiting.iter().take_while(|block| self.picture == Some(*block.tag())) {
            if !frames(block).all(|frame| add(&frame)) {
                break;
            }
        }
        len
    }
}

/// The payload of a frame, if it is a packet of the track `main`.
fn payload<'b>(frame: &Frame<'b>, main: usize) -> &'b [u8] {
    let is_main = frame.track == main && !frame.is_control;
    let packet = if is_main { Packet::parse(frame.packet) } else { None };
    packet.map_or(&[], |packet| packet.payload)
}

/// The codec of the track that is shown.
fn codec(description: &Description) -> Codec {
    description.tracks().get(description.main()).map_or(Codec::Other, |track| track.codec)
}

/// The first picture that waits, if all of it has arrived: if a packet of another one follows.
fn first_picture(slot: &Slot, main: usize) -> Option<Picture> {
    let waiting = slot.waiting();
    let number = *waiting.iter().next()?.tag();
    let mut picture = Picture { number, ..Picture::default() };
    let mut slices = Slices::default();
    for block in waiting.iter() {
        for frame in frames(block).filter(|frame| frame.track == main && !frame.is_control) {
            let Some(packet) = Packet::parse(frame.packet) else { continue };
            if *block.tag() != number {
                picture.next = packet.timestamp;
                return Some(picture);
            }
            each_piece(packet.payload, |piece| {
                picture.sets.take(piece);
                let len = slices.len_of(piece);
                if let Piece::Begin { head, .. } = piece
                    && len > 0
                {
                    picture.is_key |= is_key_slice(head);
                    picture.timestamp.get_or_insert(packet.timestamp);
                }
                // It fits: blocks that wait have a few megabytes at most.
                picture.size = picture.size.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
            });
        }
    }
    None
}

/// What the beginning of a file says: the parameter sets in front of the first picture, or else those of the
/// description.
fn beginning(picture: &Picture, description: &Description) -> Option<(ParameterSets, Format)> {
    let mut sets = ParameterSets::of_description(description.text());
    let ParameterSets { sps, pps } = &picture.sets;
    if !sps.is_empty() {
        sets.sps.clone_from(sps);
    }
    if !pps.is_empty() {
        sets.pps.clone_from(pps);
    }
    let format = Format::parse(&sets.sps)?;
    (!sets.pps.is_empty()).then_some((sets, format))
}

#[cfg(test)]
mod tests;
