//! What a player is sent: blocks of packets in its own channels and numbers, and sender reports while it
//! waits.

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::rtp::Packet;
use super::sdp::TRACKS;
use super::slot::{Block, Flow, Slot};
use super::stream::StreamInfo;
use super::wire::{Channels, FRAME_HEAD, Text, write_frame};
use crate::clock::Instant;

/// How often a player that waits for a key frame gets a sender report of each track. Some players give up
/// after five seconds without a byte ([`protocol`](crate::protocol#rtsps-camera)).
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// A player's tracks, and where it is in the stream.
pub struct Playback {
    slot: Rc<Slot>,
    info: Rc<StreamInfo>,
    /// The channels of each track that was set up.
    tracks: [Option<Channels>; TRACKS],
    numbers: [Numbering; TRACKS],
    /// A block that had no room in the last outbox.
    block: Option<Block>,
    /// The number of the picture that the last block belonged to.
    picture: Option<u32>,
    /// When the next sender reports are due, while the player waits for a key frame.
    report_at: Option<Instant>,
}

/// The difference between a track's sequence numbers in blocks and those of one player, which has no gap
/// where the player skipped pictures.
#[derive(Clone, Copy, Default)]
struct Numbering {
    shift: u16,
    /// One more than the number of the last packet sent.
    next: u16,
    /// Whether `shift` has to be made anew, so that the next packet gets `next`.
    is_new: bool,
}

impl Numbering {
    /// Replaces the sequence number of a packet.
    fn apply(&mut self, packet: &mut [u8]) {
        let Some([high, low]) = packet.get_mut(2..4) else { return };
        let stored = u16::from_be_bytes([*high, *low]);
        if core::mem::replace(&mut self.is_new, false) {
            self.shift = self.next.wrapping_sub(stored);
        }
        let number = stored.wrapping_add(self.shift);
        self.next = number.wrapping_add(1);
        [*high, *low] = number.to_be_bytes();
    }
}

impl Playback {
    /// A playback without tracks.
    pub fn new(slot: Rc<Slot>, info: Rc<StreamInfo>) -> Self {
        Self {
            slot,
            info,
            tracks: [None; TRACKS],
            numbers: [Numbering::default(); TRACKS],
            block: None,
            picture: None,
            report_at: None,
        }
    }

    /// Whether a track is set up.
    pub fn is_set_up(&self) -> bool {
        self.tracks.iter().any(Option::is_some)
    }

    /// Sets a track up on these channels. Returns `false`, and changes nothing, if another track has one of
    /// them.
    pub fn set_up(&mut self, track: usize, channels: Channels) -> bool {
        let mine = [channels.rtp, channels.rtcp];
        let others = self.tracks.iter().enumerate().filter(|(at, _)| *at != track);
        let mut others = others.filter_map(|(_, channels)| *channels);
        if others.any(|others| mine.contains(&others.rtp) || mine.contains(&others.rtcp)) {
            return false;
        }
        if let Some(place) = self.tracks.get_mut(track) {
            *place = Some(channels);
        }
        true
    }

    /// Forgets all tracks.
    pub const fn tear_down(&mut self) {
        self.tracks = [None; TRACKS];
    }

    /// Stops sending. A picture that is cut leaves a gap of one in the numbers, or a decoder would take what
    /// comes later for the rest of it.
    pub fn stop(&mut self) {
        let next = self.block.take().or_else(|| self.slot.first());
        let is_cut = next.is_some_and(|block| self.picture == Some(*block.tag()));
        let main = self.info.description().main();
        if let (true, Some(numbering)) = (is_cut, self.numbers.get_mut(main)) {
            numbering.next = numbering.next.wrapping_add(1);
        }
        self.picture = None;
    }

    /// When sender reports are due, while the player waits for a key frame.
    pub const fn report_at(&self) -> Option<Instant> {
        self.report_at
    }

    /// Writes `RTP-Info` (RFC 2326 §12.33): the number of each track's first packet, and its timestamp where
    /// the packet is at hand.
    ///
    /// # Errors
    ///
    /// `out` has no room for it.
    pub fn write_rtp_info(&self, base: &str, out: &mut Text<'_>) -> fmt::Result {
        let first = self.slot.first();
        let mut before = "RTP-Info: ";
        for (track, _) in self.tracks.iter().enumerate().filter(|(_, its)| its.is_some()) {
            let number = track + 1;
            let next = self.numbers.get(track).map_or(0, |numbering| numbering.next);
            write!(out, "{before}url={base}/track{number};seq={next}")?;
            let frames = first.iter().flat_map(|block| frames(block));
            let mut packets = frames.filter(|frame| frame.track == track && !frame.is_control);
            if let Some(packet) = packets.find_map(|frame| Packet::parse(frame.packet)) {
                write!(out, ";rtptime={}", packet.timestamp)?;
            }
            before = ",";
        }
        out.write_str("\r\n")
    }

    /// Writes as many blocks as wait and `out` has room for, or else the sender reports that are due. Returns
    /// the bytes written.
    pub fn write(&mut self, now: Instant, out: &mut [u8]) -> usize {
        match self.write_blocks(out) {
            0 => self.write_reports(now, out),
            len => len,
        }
    }

    fn write_blocks(&mut self, out: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(block) = self.block.take().or_else(|| self.slot.next()) {
            let Some(room) = out.get_mut(len..).filter(|room| room.len() >= block.len()) else {
                self.block = Some(block);
                break;
            };
            len += self.write_block(&block, room);
        }
        len
    }

    fn write_block(&mut self, block: &Block, out: &mut [u8]) -> usize {
        let picture = *block.tag();
        let follows = self.picture.is_some_and(|last| picture.wrapping_sub(last) <= 1);
        if !follows {
            for numbering in &mut self.numbers {
                numbering.is_new = true;
            }
        }
        self.picture = Some(picture);
        let mut len = 0;
        for frame in frames(block) {
            let Some(channels) = self.tracks.get(frame.track).copied().flatten() else { continue };
            let channel = if frame.is_control { channels.rtcp } else { channels.rtp };
            let Some(room) = out.get_mut(len..) else { break };
            let written = write_frame(channel, frame.packet, room);
            let packet = room.get_mut(FRAME_HEAD..written).unwrap_or_default();
            if let (false, Some(numbering)) = (frame.is_control, self.numbers.get_mut(frame.track))
            {
                numbering.apply(packet);
            }
            len += written;
        }
        len
    }

    fn write_reports(&mut self, now: Instant, out: &mut [u8]) -> usize {
        if !matches!(self.slot.flow(), Flow::Waits { .. }) {
            self.report_at = None;
            return 0;
        }
        let due = *self.report_at.get_or_insert(now + REPORT_INTERVAL);
        if now < due {
            return 0;
        }
        self.report_at = Some(now + REPORT_INTERVAL);
        let mut len = 0;
        for (track, channels) in self.tracks.iter().enumerate() {
            let Some(channels) = channels else { continue };
            let report = self.info.report(track, now).bytes(self.info.source(track));
            len += write_frame(channels.rtcp, &report, out.get_mut(len..).unwrap_or_default());
        }
        len
    }
}

/// An interleaved frame in a block. Its channel there is twice the track, and one more for RTCP.
pub(super) struct Frame<'b> {
    /// The index of its track.
    pub track: usize,
    /// Whether it is RTCP.
    pub is_control: bool,
    /// The packet.
    pub packet: &'b [u8],
}

/// The frames in a block.
pub(super) fn frames(block: &[u8]) -> impl Iterator<Item = Frame<'_>> + Clone {
    let mut rest = block;
    core::iter::from_fn(move || {
        let (&[_, channel, high, low], after) = rest.split_first_chunk::<FRAME_HEAD>()?;
        let (packet, behind) = after.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        rest = behind;
        Some(Frame { track: usize::from(channel / 2), is_control: channel % 2 == 1, packet })
    })
}
