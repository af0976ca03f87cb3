//! What the camera has to show: access units of H.264 or H.265, out of an Annex B file or made up.
//!
//! They are repeated for ever: unit [`Media::len`] is unit 0 again. The SDP that describes
//! them is written here too, as live555 writes it.

use core::fmt::Write as _;
use std::rc::Rc;

/// The recording that a camera shows by default: 640×360, 30 a second, 4 seconds.
const H264: &[u8] = include_bytes!("../../traces/rtsp/camera.h264");

/// The same in H.265: 320×180, 15 a second, 2 seconds.
const H265: &[u8] = include_bytes!("../../traces/rtsp/camera.h265");

/// How pictures are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
}

/// One picture: its network abstraction layer units, parameter sets among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Without start codes.
    pub nals: Vec<Vec<u8>>,
    /// Whether decoding may begin with it.
    pub key: bool,
}

/// A recording.
pub struct Media {
    pub(super) codec: Codec,
    /// Units a second.
    pub(super) rate: u32,
    /// At least one, the first of them a key.
    pub(super) units: Vec<Rc<Unit>>,
    /// The first of each kind of parameter set, in the order of their kinds.
    pub(super) sets: Vec<Vec<u8>>,
}

impl Media {
    /// The recording in H.264 that is kept with the tests.
    pub fn h264() -> Self {
        Self::parse(Codec::H264, H264, 30)
    }

    /// The recording in H.265 that is kept with the tests.
    pub fn h265() -> Self {
        Self::parse(Codec::H265, H265, 15)
    }

    /// What is in an Annex B file that begins with a key unit.
    pub fn parse(codec: Codec, file: &[u8], rate: u32) -> Self {
        let mut units: Vec<Unit> = Vec::new();
        let mut open = false; // whether the last unit may take more
        for nal in nals(file) {
            let (kind, picture) = (codec.kind(nal), codec.is_picture(nal));
            if !open || (codec.begins(nal) && has_picture(codec, units.last())) {
                units.push(Unit { nals: Vec::new(), key: false });
                open = true;
            }
            let unit = units.last_mut().unwrap();
            unit.key |= picture && codec.is_key(kind);
            unit.nals.push(nal.to_vec());
        }
        Self::of(codec, rate, units)
    }

    /// H.264 that no decoder accepts: `group` units after one another, the first a key, of these sizes in
    /// bytes. Every unit is one slice behind, if it is a key, the recording's parameter sets.
    pub fn made(rate: u32, group: usize, key_bytes: usize, bytes: usize) -> Self {
        assert!(
            group > 0 && key_bytes.min(bytes) >= SLICE_LEAST,
            "no group, or no room in a slice"
        );
        let sets = Self::h264().sets;
        let mut state = 0x9e37_79b9_u32;
        let units = (0..group).map(|at| {
            let (first, len) = if at == 0 { (0x65, key_bytes) } else { (0x41, bytes) };
            let mut slice = vec![first, 0x88]; // first_mb_in_slice is 0
            slice.resize_with(len, || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8 | 1 // never a start code
            });
            let mut nals = if at == 0 { sets.clone() } else { Vec::new() };
            nals.push(slice);
            Unit { nals, key: at == 0 }
        });
        Self::of(Codec::H264, rate, units.collect())
    }

    /// The same with so many slices in each picture. For what is [made](Self::made).
    pub fn sliced(mut self, slices: usize) -> Self {
        for unit in &mut self.units {
            let unit = Rc::make_mut(unit);
            let whole = unit.nals.pop().unwrap();
            let body = &whole[2..];
            for (at, piece) in body.chunks(body.len().div_ceil(slices)).enumerate() {
                assert!(piece.len() >= SLICE_LEAST, "no room in a slice");
                let macroblock = if at == 0 { 0x88 } else { 0x48 }; // first_mb_in_slice is 0, or not
                unit.nals.push([&[whole[0], macroblock], piece].concat());
            }
        }
        self
    }

    fn of(codec: Codec, rate: u32, units: Vec<Unit>) -> Self {
        assert!(units.first().is_some_and(|unit| unit.key), "it does not begin with a key unit");
        let nals = units[0].nals.iter();
        let sets = nals.filter(|nal| codec.is_set(codec.kind(nal))).cloned().collect();
        Self { codec, rate, units: units.into_iter().map(Rc::new).collect(), sets }
    }

    /// The number of units before the first one is repeated.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// The unit of this number, counted without end.
    pub fn unit(&self, number: u64) -> Rc<Unit> {
        Rc::clone(&self.units[usize::try_from(number % self.units.len() as u64).unwrap()])
    }

    /// Units a second, by default.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The parameter sets, as the SDP has them.
    pub fn sets(&self) -> &[Vec<u8>] {
        &self.sets
    }

    /// The session description: one track, of video, or of sound that there is none of.
    pub(super) fn sdp(&self, video: bool) -> String {
        let mut sdp = String::from(
            "v=0\r\no=- 1700000000000000 1 IN IP4 192.168.1.50\r\n\
             s=Session streamed by \"LIVE555 Media Server\"\r\ni=streaming/live/1\r\nt=0 0\r\n\
             a=tool:LIVE555 Streaming Media v2020.03.06\r\na=type:broadcast\r\na=control:*\r\n\
             a=range:npt=now-\r\na=x-qt-text-nam:Session streamed by \"LIVE555 Media Server\"\r\n\
             a=x-qt-text-inf:streaming/live/1\r\n",
        );
        if !video {
            sdp.push_str(
                "m=audio 0 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\nb=AS:64\r\na=control:track1\r\n",
            );
            return sdp;
        }
        sdp.push_str("m=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\nb=AS:1000\r\n");
        let sets: Vec<String> = self.sets.iter().map(|set| base64(set)).collect();
        match self.codec {
            Codec::H264 => {
                let level = &self.sets[0];
                let _ = write!(
                    sdp,
                    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=\
                     {:02X}{:02X}{:02X};sprop-parameter-sets={}\r\n",
                    level[1],
                    level[2],
                    level[3],
                    sets.join(",")
                );
            }
            Codec::H265 => {
                let _ = write!(
                    sdp,
                    "a=rtpmap:96 H265/90000\r\na=fmtp:96 sprop-vps={};sprop-sps={};sprop-pps={}\r\n",
                    sets[0], sets[1], sets[2]
                );
            }
        }
        sdp.push_str("a=control:track1\r\n");
        sdp
    }
}

/// The shortest slice that can be made, in bytes: room for a [stamp](super::STAMP).
const SLICE_LEAST: usize = 64;

impl Codec {
    /// What kind of unit this is.
    pub(super) fn kind(self, nal: &[u8]) -> u8 {
        match self {
            Self::H264 => nal[0] & 0x1f,
            Self::H265 => nal[0] >> 1 & 0x3f,
        }
    }

    /// Whether it holds a picture, or a part of one.
    fn is_picture(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => matches!(self.kind(nal), 1..=5),
            Self::H265 => self.kind(nal) < 32,
        }
    }

    fn is_key(self, kind: u8) -> bool {
        match self {
            Self::H264 => kind == 5,
            Self::H265 => (16..=21).contains(&kind),
        }
    }

    pub(super) fn is_set(self, kind: u8) -> bool {
        match self {
            Self::H264 => matches!(kind, 7 | 8),
            Self::H265 => matches!(kind, 32..=34),
        }
    }

    /// Whether a new access unit begins with it, if the last one has its picture.
    fn begins(self, nal: &[u8]) -> bool {
        if self.is_picture(nal) {
            // first_mb_in_slice is 0, or first_slice_segment_in_pic_flag is set.
            let at = if self == Self::H264 { 1 } else { 2 };
            return nal.get(at).is_some_and(|byte| byte & 0x80 != 0);
        }
        match self {
            Self::H264 => matches!(self.kind(nal), 6..=9),
            Self::H265 => matches!(self.kind(nal), 32..=35 | 39),
        }
    }
}

fn has_picture(codec: Codec, unit: Option<&Unit>) -> bool {
    unit.is_some_and(|unit| unit.nals.iter().any(|nal| codec.is_picture(nal)))
}

/// What stands between start codes, whole and without the zeros before the next one.
fn nals(file: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..file.len().saturating_sub(2))
        .filter(|at| file[*at..at + 3] == [0, 0, 1])
        .map(|at| at + 3)
        .collect();
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([file.len()]);
    let pieces = starts.iter().zip(ends).map(|(start, end)| {
        let piece = &file[*start..end];
        let zeros = piece.iter().rev().take_while(|byte| **byte == 0).count();
        &piece[..piece.len() - zeros]
    });
    pieces.filter(|piece| !piece.is_empty()).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * place) & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
