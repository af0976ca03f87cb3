//! The boxes of a fragmented MP4 file (ISO/IEC 14496-12 and -15) with one H.264 track.

use super::h264::{Format, ParameterSets};

/// Ticks in a second, as in RTP (RFC 6184 §8.2.1).
pub const RATE: u32 = 90_000;

/// Bytes in a fragment before its picture.
pub const FRAGMENT_HEAD: usize = MOOF + 8;

/// Bytes in a fragment's `moof`: from itself to the first byte of the picture are [`FRAGMENT_HEAD`].
const MOOF: usize = 100;

/// Bytes in the longest beginning of a file.
pub const MAX_INIT: usize = 1024;

/// The unity matrix.
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// Writes boxes one behind the other. What does not fit is left out, and [`Boxes::len`] is more than there is room for.
pub struct Boxes<'o> {
    room: &'o mut [u8],
    /// Bytes written so far.
    pub len: usize,
}

impl<'o> Boxes<'o> {
    /// No boxes yet.
    pub const fn new(room: &'o mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    /// Writes bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.room.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
    }

    /// Writes numbers of four bytes.
    fn numbers(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.put(&number.to_be_bytes());
        }
    }

    fn zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.put(&[0]);
        }
    }

    /// Begins a box; returns where it begins.
    fn begin(&mut self, name: &[u8; 4]) -> usize {
        let start = self.len;
        self.zeros(4);
        self.put(name);
        start
    }

    /// Ends the box that begins there: its length is known.
    fn end(&mut self, start: usize) {
        let len = u32::try_from(self.len - start).unwrap_or(u32::MAX);
        if let Some(room) = self.room.get_mut(start..start + 4) {
            room.copy_from_slice(&len.to_be_bytes());
        }
    }

    /// Ends several boxes, the inner ones first.
    fn end_all<const N: usize>(&mut self, starts: [usize; N]) {
        for start in starts {
            self.end(start);
        }
    }

    /// Writes a box of these numbers.
    fn whole(&mut self, name: &[u8; 4], numbers: &[u32]) {
        let start = self.begin(name);
        self.numbers(numbers);
        self.end(start);
    }
}

/// Writes the beginning of a file: `ftyp` and `moov`.
pub fn write_init(out: &mut Boxes<'_>, sets: &ParameterSets, format: &Format) {
    let ftyp = out.begin(b"ftyp");
    out.put(b"iso5\0\0\x02\0iso5iso6mp41avc1");
    out.end(ftyp);
    let moov = out.begin(b"moov");
    let mvhd = out.begin(b"mvhd");
    out.numbers(&[0, 0, 0, RATE, 0, 0x0001_0000, 0x0100_0000, 0, 0]);
    out.numbers(&MATRIX);
    out.zeros(24);
    out.numbers(&[2]);
    out.end(mvhd);
    let trak = out.begin(b"trak");
    let tkhd = out.begin(b"tkhd");
    out.numbers(&[3, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.numbers(&MATRIX);
    out.numbers(&[u32::from(format.width) << 16, u32::from(format.height) << 16]);
    out.end(tkhd);
    let mdia = out.begin(b"mdia");
    // The language is `und`.
    out.whole(b"mdhd", &[0, 0, 0, RATE, 0, 0x55c4_0000]);
    let hdlr = out.begin(b"hdlr");
    out.put(b"\0\0\0\0\0\0\0\0vide\0\0\0\0\0\0\0\0\0\0\0\0\0");
    out.end(hdlr);
    let minf = out.begin(b"minf");
    out.whole(b"vmhd", &[1, 0, 0]);
    let dinf = out.begin(b"dinf");
    let dref = out.begin(b"dref");
    out.numbers(&[0, 1]);
    out.whole(b"url ", &[1]);
    out.end_all([dref, dinf]);
    let stbl = out.begin(b"stbl");
    write_sample_entry(out, sets, format);
    out.whole(b"stts", &[0, 0]);
    out.whole(b"stsc", &[0, 0]);
    out.whole(b"stsz", &[0, 0, 0]);
    out.whole(b"stco", &[0, 0]);
    out.end_all([stbl, minf, mdia, trak]);
    let mvex = out.begin(b"mvex");
    out.whole(b"trex", &[0, 1, 1, 0, 0, 0]);
    out.end_all([mvex, moov]);
}

/// Writes `stsd` with `avc1` and `avcC`.
fn write_sample_entry(out: &mut Boxes<'_>, sets: &ParameterSets, format: &Format) {
    let stsd = out.begin(b"stsd");
    out.numbers(&[0, 1]);
    let avc1 = out.begin(b"avc1");
    out.put(b"\0\0\0\0\0\0\0\x01");
    out.zeros(16);
    out.put(&format.width.to_be_bytes());
    out.put(&format.height.to_be_bytes());
    // 72 dots an inch, one picture in a sample, no name, 24 bits, no colour table.
    out.put(b"\0\x48\0\0\0\x48\0\0\0\0\0\0\0\x01");
    out.zeros(32);
    out.put(b"\0\x18\xff\xff");
    let avcc = out.begin(b"avcC");
    out.put(&[1]);
    out.put(&format.profile);
    // Lengths of four bytes; one set of each kind.
    for (count, set) in [(&b"\xff\xe1"[..], sets.sps.as_slice()), (b"\x01", &sets.pps)] {
        out.put(count);
        out.put(&u16::try_from(set.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.put(set);
    }
    if let Some([chroma, luma, depth]) = format.extension {
        out.put(&[0xfc | chroma, 0xf8 | luma, 0xf8 | depth, 0]);
    }
    out.end_all([avcc, avc1, stsd]);
}

/// A fragment with one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its number, from 1 on.
    pub number: u32,
    /// When the picture is decoded and shown, in ticks.
    pub time: u64,
    /// How long it is shown, in ticks.
    pub duration: u32,
    /// Its bytes.
    pub size: u32,
    /// Whether it is a key frame.
    pub is_key: bool,
}

impl Fragment {
    /// Writes `moof` and the head of `mdat`: [`FRAGMENT_HEAD`] bytes.
    pub fn write_head(&self, out: &mut Boxes<'_>) {
        let moof = out.begin(b"moof");
        out.whole(b"mfhd", &[0, self.number]);
        let traf = out.begin(b"traf");
        // Offsets count from `moof`.
        out.whole(b"tfhd", &[0x0002_0000, 1]);
        out.whole(b"tfdt", &[0x0100_0000, (self.time >> 32) as u32, self.time as u32]);
        // The offset of the picture; its duration, size and flags.
        let flags = if self.is_key { 0x0200_0000 } else { 0x0101_0000 };
        let offset = FRAGMENT_HEAD as u32;
        out.whole(b"trun", &[0x0000_0701, 1, offset, self.duration, self.size, flags]);
        out.end_all([traf, moof]);
        out.numbers(&[self.size.saturating_add(8)]);
        out.put(b"mdat");
    }
}
