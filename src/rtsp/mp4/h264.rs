//! H.264 in RTP (RFC 6184) as NAL units, the parameter sets, and the size of the pictures.
//!
//! Fragmentation units are not put together: a reader gets the pieces of a unit in order. Single units, STAP-A and
//! FU-A are known, which are all that packetisation modes 0 and 1 have. Other packets are skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::rtsp::rtp::each_aggregated;

/// Bytes in the longest sequence parameter set.
pub const MAX_SPS: usize = 192;

/// Bytes in the longest picture parameter set.
pub const MAX_PPS: usize = 64;

/// Types of NAL units (H.264 table 7-1).
const FIRST_SLICE: u8 = 1;
const KEY_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Bits in the FU header (RFC 6184 §5.8).
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;

/// The type of the NAL unit whose first byte this is.
const fn kind(head: u8) -> u8 {
    head & 0x1f
}

/// Whether a NAL unit with this first byte is a slice of a key frame.
pub const fn is_key_slice(head: u8) -> bool {
    kind(head) == KEY_SLICE
}

/// A NAL unit or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'p> {
    /// A unit begins.
    Begin {
        /// Its first byte.
        head: u8,
        /// What follows, in this packet.
        body: &'p [u8],
        /// Whether the next packets have more of it.
        goes_on: bool,
    },
    /// The unit that goes on has these bytes more.
    More {
        /// The bytes.
        body: &'p [u8],
        /// Whether they are the last.
        ends: bool,
    },
}

/// Calls `take` with the pieces in a packet's payload.
pub fn each_piece<'p>(payload: &'p [u8], mut take: impl FnMut(Piece<'p>)) {
    let mut whole = |unit: &'p [u8]| {
        if let Some((&head, body)) = unit.split_first() {
            take(Piece::Begin { head, body, goes_on: false });
        }
    };
    match *payload {
        [first, ref units @ ..] if kind(first) == STAP_A => each_aggregated(units, whole),
        [first, fu, ref body @ ..] if kind(first) == FU_A => take(if fu & FU_START == 0 {
            Piece::More { body, ends: fu & FU_END != 0 }
        } else {
            let head = first & 0xe0 | kind(fu);
            Piece::Begin { head, body, goes_on: fu & FU_END == 0 }
        }),
        [first, ..] if kind(first) < STAP_A => whole(payload),
        _ => {}
    }
}

/// Bytes of a unit's length in MP4.
pub const LENGTH: usize = 4;

/// Which pieces belong to slices: the only units that a sample in MP4 needs, since the parameter sets are in front
/// of all samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slices {
    /// Whether a slice goes on.
    is_open: bool,
}

impl Slices {
    /// Bytes of the next piece in MP4, with the length of the unit that begins; 0 if it belongs to no slice.
    pub const fn len_of(&mut self, piece: Piece<'_>) -> usize {
        match piece {
            Piece::Begin { head, body, goes_on } => {
                let is_slice = matches!(kind(head), FIRST_SLICE..=KEY_SLICE);
                self.is_open = is_slice && goes_on;
                if is_slice { LENGTH + 1 + body.len() } else { 0 }
            }
            Piece::More { body, ends } => {
                let is_kept = self.is_open;
                self.is_open = is_kept && !ends;
                if is_kept { body.len() } else { 0 }
            }
        }
    }

    /// Whether a slice goes on.
    pub const fn is_open(self) -> bool {
        self.is_open
    }
}

/// A sequence parameter set and a picture parameter set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// The sequence parameter set.
    pub sps: heapless::Vec<u8, MAX_SPS>,
    /// The picture parameter set.
    pub pps: heapless::Vec<u8, MAX_PPS>,
}

impl ParameterSets {
    /// Those of a description (RFC 6184 §8.2.1): `sprop-parameter-sets=`, in base64.
    pub fn of_description(text: &str) -> Self {
        let mut sets = Self::default();
        let list = text.split_once("sprop-parameter-sets=").map_or("", |(_, list)| list);
        let list = list.split([';', '\r', '\n', ' ']).next().unwrap_or_default();
        for coded in list.split(',') {
            let mut unit = [0; MAX_SPS];
            let len = STANDARD.decode_slice(coded, &mut unit).unwrap_or(0);
            if let Some((&head, body)) = unit.get(..len).and_then(<[u8]>::split_first) {
                sets.take(Piece::Begin { head, body, goes_on: false });
            }
        }
        sets
    }

    /// Keeps the piece if it is a whole parameter set that fits.
    pub fn take(&mut self, piece: Piece<'_>) {
        let Piece::Begin { head, body, goes_on: false } = piece else { return };
        match kind(head) {
            SPS => replace(&mut self.sps, head, body),
            PPS => replace(&mut self.pps, head, body),
            _ => {}
        }
    }

    /// Whether `newer` has a set that differs from this one's.
    pub fn differ_from(&self, newer: &Self) -> bool {
        let is_other = |own: &[u8], newer: &[u8]| !newer.is_empty() && own != newer;
        is_other(&self.sps, &newer.sps) || is_other(&self.pps, &newer.pps)
    }
}

/// Replaces the set by a newer one. One that does not fit counts as none.
fn replace<const N: usize>(set: &mut heapless::Vec<u8, N>, head: u8, body: &[u8]) {
    set.clear();
    let fits = set.push(head).is_ok() && set.extend_from_slice(body).is_ok();
    if !fits {
        set.clear();
    }
}

/// What a sequence parameter set says of the pictures (H.264 §7.3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Pixels in a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// The profile, its constraints, and the level: `profile_idc` and the two bytes after it.
    pub profile: [u8; 3],
    /// `chroma_format_idc`, and the bits of a sample beyond eight, of luma and of chroma, where the profile names them.
    pub extension: Option<[u8; 3]>,
}

impl Format {
    /// Parses a sequence parameter set, up to the size of the pictures.
    pub fn parse(sps: &[u8]) -> Option<Self> {
        let (&[head, first, second, third], rest) = sps.split_first_chunk::<4>()?;
        if kind(head) != SPS {
            return None;
        }
        let mut bits = Bits { bytes: rest, at: 0 };
        bits.golomb()?;
        let mut extension = None;
        let (mut chroma, mut has_planes) = (1, false);
        if matches!(first, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 134 | 135 | 138 | 139)
        {
            chroma = bits.golomb()?;
            has_planes = chroma == 3 && bits.flag()?;
            let luma = bits.golomb()?;
            let depth = [chroma, luma, bits.golomb()?];
            let [chroma, luma, depth] = depth.map(u8::try_from);
            extension = Some([chroma.ok()?, luma.ok()?, depth.ok()?]);
            bits.flag()?;
            if bits.flag()? {
                for list in 0..if chroma == Ok(3) { 12 } else { 8 } {
                    bits.scaling_list(if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        bits.golomb()?;
        match bits.golomb()? {
            0 => {
                bits.golomb()?;
            }
            1 => {
                bits.flag()?;
                bits.golomb()?;
                bits.golomb()?;
                for _ in 0..bits.golomb()?.min(255) {
                    bits.golomb()?;
                }
            }
            _ => {}
        }
        bits.golomb()?;
        bits.flag()?;
        let width = bits.golomb()?.checked_add(1)?.checked_mul(16)?;
        let map_units = bits.golomb()?.checked_add(1)?;
        let fields = if bits.flag()? { 1 } else { 2 };
        if fields == 2 {
            bits.flag()?;
        }
        bits.flag()?;
        let mut crop = [0; 4];
        if bits.flag()? {
            for side in &mut crop {
                *side = bits.golomb()?;
            }
        }
        let across = if matches!(chroma, 1 | 2) && !has_planes { 2 } else { 1 };
        let down = if chroma == 1 && !has_planes { 2 } else { 1 } * fields;
        let [left, right, top, bottom] = crop;
        let cropped = |size: u32, sides: [u32; 2], unit: u32| {
            let [one, other] = sides;
            let size = size.checked_sub(one.checked_add(other)?.checked_mul(unit)?)?;
            u16::try_from(size).ok().filter(|size| *size > 0)
        };
        Some(Self {
            width: cropped(width, [left, right], across)?,
            height: cropped(map_units.checked_mul(16 * fields)?, [top, bottom], down)?,
            profile: [first, second, third],
            extension,
        })
    }
}

/// The bits of a NAL unit, without the bytes that prevent start codes (H.264 §7.4.1).
struct Bits<'b> {
    bytes: &'b [u8],
    /// Bits read so far, those of skipped bytes included.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.at / 8;
        if self.at.is_multiple_of(8)
            && byte >= 2
            && self.bytes.get(byte - 2..=byte) == Some(&[0, 0, 3])
        {
            self.at += 8;
        }
        let byte = self.bytes.get(self.at / 8)?;
        let bit = u32::from(byte >> (7 - self.at % 8) & 1);
        self.at += 1;
        Some(bit)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.bit()? == 1)
    }

    /// An unsigned number in Exp-Golomb code (§9.1).
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut number: u32 = 1;
        for _ in 0..zeros {
            number = number << 1 | self.bit()?;
        }
        Some(number - 1)
    }

    /// Skips a scaling list (§7.3.2.1.1.1), if it is there.
    fn scaling_list(&mut self, len: usize) -> Option<()> {
        if !self.flag()? {
            return Some(());
        }
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..len {
            if next != 0 {
                let coded = i64::from(self.golomb()?);
                let delta = if coded % 2 == 1 { coded / 2 + 1 } else { -(coded / 2) };
                next = (last + delta).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
        Some(())
    }
}
