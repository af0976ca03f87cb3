//! The pictures of the simulated camera: real baseline JPEGs, 1280×720, made here.
//!
//! A picture shows a gradient, a square that moves with the picture's number, and noise in as many
//! places as make it the size it is to have. It is coded as ITU-T T.81 has it: SOF0, one scan, three
//! components 4:2:0, the Huffman tables of its annex K.3.1 and K.3.2 (luminance) for all of them.
//! The noise comes from [`TILES`] tiles, transformed once, so that even a debug build is quick.
//!
//! An [`Album`] makes [`KINDS`] pictures and repeats them; a comment says which repetition it is, so
//! that no two pictures have the same bytes, and the same number always has.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a picture in an album | [`SMALLEST`] to [`LARGEST`] bytes | a panic |
//! | a padded picture | [`MAX_PADDED`] bytes | a panic |

use core::f32::consts::PI;
use core::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Different pictures in an album.
pub const KINDS: usize = 8;

/// The least an album's picture can be asked to have, in bytes. It comes out within one in fifty.
pub const SMALLEST: usize = 32 * 1024;

/// The most an album's picture can be asked to have, in bytes.
pub const LARGEST: usize = 160 * 1024;

/// The most a picture can be padded to, in bytes.
pub const MAX_PADDED: usize = 32 * 1024 * 1024;

/// Default size of pictures, in bytes: a fortieth to an eighth of a megabyte (`src/protocol.md`, chamber-camera).
const USUAL: RangeInclusive<usize> = 42_000..=118_000;

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

/// The pictures that a camera shows.
pub(super) struct Album {
    /// Whole pictures, but for the comment that goes in at [`COMMENT_AT`].
    kinds: Vec<Vec<u8>>,
}

impl Album {
    /// The one with usual sizes, which a process makes once.
    pub(super) fn usual() -> Arc<Self> {
        static ALBUM: OnceLock<Arc<Album>> = OnceLock::new();
        Arc::clone(ALBUM.get_or_init(|| Arc::new(Self::new(&USUAL))))
    }

    /// One whose pictures have sizes spread over this range, in bytes.
    pub(super) fn new(sizes: &RangeInclusive<usize>) -> Self {
        let (least, most) = (*sizes.start(), *sizes.end());
        assert!(SMALLEST <= least && least <= most && most <= LARGEST, "{least} to {most} bytes");
        let tiles = tiles();
        let size = |kind| least + (most - least) * ((kind * 3) % KINDS) / (KINDS - 1);
        Self { kinds: (0..KINDS).map(|kind| encoded(kind, size(kind), &tiles)).collect() }
    }

    /// The picture of this number.
    pub(super) fn picture(&self, number: u32) -> Rc<[u8]> {
        self.with(number, &comment(number))
    }

    /// The same, made to have exactly so many bytes by comments without meaning.
    pub(super) fn padded(&self, number: u32, bytes: usize) -> Rc<[u8]> {
        let bare = self.picture(number).len();
        assert!((bare + 4..=MAX_PADDED).contains(&bytes), "{bytes} bytes, without padding {bare}");
        let mut comments = comment(number).to_vec();
        let mut missing = bytes - bare;
        while missing > 0 {
            // A segment has 4 to 65537 bytes, so none may leave fewer than 4 to the next.
            let segment = if missing <= 65_537 { missing } else { 65_537.min(missing - 4) };
            comments.extend([0xff, 0xfe]);
            comments.extend(u16::try_from(segment - 2).unwrap().to_be_bytes());
            comments.resize(comments.len() + segment - 4, b'.');
            missing -= segment;
        }
        self.with(number, &comments)
    }

    fn with(&self, number: u32, comments: &[u8]) -> Rc<[u8]> {
        let (head, tail) = self.kinds[number as usize % KINDS].split_at(COMMENT_AT);
        [head, comments, tail].concat().into()
    }
}

/// Which picture this is, if it is one of an album's. Looks at its beginning only.
pub fn picture_number(picture: &[u8]) -> Option<u32> {
    let comment = picture.get(COMMENT_AT..COMMENT_AT + COMMENT)?;
    let digits = comment.strip_prefix(b"\xff\xfe\x00\x14picture ")?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Behind SOI and APP0.
const COMMENT_AT: usize = 20;

/// The comment with the number, in bytes.
const COMMENT: usize = 22;

fn comment(number: u32) -> [u8; COMMENT] {
    let mut comment = *b"\xff\xfe\x00\x14picture 0000000000";
    comment[12..].copy_from_slice(format!("{number:010}").as_bytes());
    comment
}

fn encoded(kind: usize, size: usize, tiles: &[Tile]) -> Vec<u8> {
    let mut picture = Vec::with_capacity(size + 4096);
    picture.extend(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00");
    picture.extend(b"\xff\xdb\x00\x43\x00");
    picture.extend([QUANTUM; 64]);
    picture.extend(b"\xff\xc0\x00\x11\x08");
    picture.extend((HEIGHT as u16).to_be_bytes());
    picture.extend((WIDTH as u16).to_be_bytes());
    picture.extend(b"\x03\x01\x22\x00\x02\x11\x00\x03\x11\x00"); // 4:2:0, one quantisation table
    for (class, lengths, symbols) in
        [(0x00, DC_LENGTHS, DC_SYMBOLS), (0x10, AC_LENGTHS, AC_SYMBOLS)]
    {
        picture.extend(b"\xff\xc4");
        picture.extend((19 + symbols.len() as u16).to_be_bytes());
        picture.push(class);
        picture.extend(lengths);
        picture.extend(symbols);
    }
    picture.extend(b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00");
    scan(kind, size, tiles, &mut picture);
    picture.extend(b"\xff\xd9");
    picture
}

/// The coded blocks. Wherever it is behind its size, a block is noise.
fn scan(kind: usize, size: usize, tiles: &[Tile], picture: &mut Vec<u8>) {
    const ACROSS: usize = WIDTH / 16;
    const DOWN: usize = HEIGHT / 16;
    let (dc, flat) = (codes(DC_LENGTHS, DC_SYMBOLS), Tile::flat());
    let mut random = Random(0x5eed_0000 + kind as u64);
    let mut bits = Bits { to: picture, pending: 0, count: 0 };
    let mut before = [0; 3];
    let square = kind * (ACROSS - SQUARE) / (KINDS - 1);
    for unit in 0..ACROSS * DOWN {
        let (column, row) = (unit % ACROSS, unit / ACROSS);
        let marked =
            (square..square + SQUARE).contains(&column) && (18..18 + SQUARE).contains(&row);
        let due = size * (unit + 1) / (ACROSS * DOWN);
        for block in 0..4_usize {
            let level = (column * 2 + block % 2) / 4 + (row * 2 + block / 2) / 3;
            let level = if marked { 50 } else { level as i32 - 40 };
            let jitter = random.below(256);
            let tile = if bits.to.len() + jitter < due + 128 {
                &tiles[random.below(tiles.len())]
            } else {
                &flat
            };
            bits.block(&dc, level - before[0], tile);
            before[0] = level;
        }
        let hue = [(column as i32 - 40) / 3, (row as i32 - 22) / 2];
        for (component, hue) in [1, 2].into_iter().zip(hue) {
            bits.block(&dc, hue - before[component], &flat);
            before[component] = hue;
        }
    }
    bits.finish();
}

/// The side of the square that moves, in units of 16 pixels.
const SQUARE: usize = 8;

/// Different tiles of noise.
const TILES: usize = 64;

/// What every coefficient is divided by.
const QUANTUM: u8 = 16;

/// The coded alternating part of a block of 8×8 pixels.
struct Tile(Vec<(u16, u32)>);

impl Tile {
    fn flat() -> Self {
        Self::of(&[0; 64])
    }

    /// Codes what stands behind the first of these quantised coefficients, given row by row.
    fn of(coefficients: &[i32; 64]) -> Self {
        let codes = codes(AC_LENGTHS, AC_SYMBOLS);
        let mut coded = Vec::new();
        let mut zeroes = 0;
        for &at in &ZIGZAG[1..] {
            let value = coefficients[at];
            if value == 0 {
                zeroes += 1;
                continue;
            }
            while zeroes > 15 {
                coded.push(codes[0xf0]);
                zeroes -= 16;
            }
            let (size, low) = magnitude(value);
            coded.push(codes[zeroes << 4 | size as usize]);
            coded.push((low, size));
            zeroes = 0;
        }
        if zeroes > 0 {
            coded.push(codes[0x00]);
        }
        Self(coded)
    }
}

fn tiles() -> Vec<Tile> {
    let mut random = Random(0x7113);
    let tile = |_| {
        let pixels = core::array::from_fn(|_| random.below(41) as f32 - 20.0);
        Tile::of(&transformed(&pixels))
    };
    (0..TILES).map(tile).collect()
}

/// The discrete cosine transform (T.81 A.3.3), quantised.
fn transformed(pixels: &[f32; 64]) -> [i32; 64] {
    let cosine = |at: usize, wave: usize| {
        let scale = if wave == 0 { 0.125_f32.sqrt() } else { 0.5 };
        scale * ((2 * at + 1) as f32 * wave as f32 * PI / 16.0).cos()
    };
    let rows: [f32; 64] =
        core::array::from_fn(|at| (0..8).map(|x| pixels[at / 8 * 8 + x] * cosine(x, at % 8)).sum());
    core::array::from_fn(|at| {
        let sum: f32 = (0..8).map(|y| rows[y * 8 + at % 8] * cosine(y, at / 8)).sum();
        (sum / f32::from(QUANTUM)).round() as i32
    })
}

/// How many bits a value takes, and which (T.81 F.1.2.1).
fn magnitude(value: i32) -> (u32, u16) {
    let size = 32 - value.unsigned_abs().leading_zeros();
    let low = if value < 0 { value - 1 } else { value };
    (size, (low & ((1 << size) - 1)) as u16)
}

/// Bits on their way into a scan.
struct Bits<'p> {
    to: &'p mut Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits<'_> {
    fn block(&mut self, dc: &[(u16, u32); 256], difference: i32, tile: &Tile) {
        let (size, low) = magnitude(difference);
        let (code, length) = dc[size as usize];
        self.put(code, length);
        self.put(low, size);
        for &(code, length) in &tile.0 {
            self.put(code, length);
        }
    }

    fn put(&mut self, code: u16, length: u32) {
        self.pending = self.pending << length | u32::from(code);
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.pending >> self.count) as u8;
            self.to.push(byte);
            if byte == 0xff {
                self.to.push(0); // or it would be a marker
            }
        }
    }

    fn finish(mut self) {
        self.put(0x7f, 7);
    }
}

/// The code of each symbol and its length in bits (T.81 annex C).
fn codes(lengths: &[u8; 16], symbols: &[u8]) -> [(u16, u32); 256] {
    let mut codes = [(0, 0); 256];
    let (mut code, mut symbols) = (0, symbols.iter());
    for (length, &count) in (1..).zip(lengths) {
        for &symbol in symbols.by_ref().take(count.into()) {
            codes[usize::from(symbol)] = (code, length);
            code += 1;
        }
        code <<= 1;
    }
    codes
}

/// Numbers that look random and are the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// T.81 table K.3.
const DC_LENGTHS: &[u8; 16] = &[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_SYMBOLS: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// T.81 table K.5.
const AC_LENGTHS: &[u8; 16] = &[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d];
const AC_SYMBOLS: &[u8] = b"\
    \x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\
    \x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\
    \x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\
    \x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\
    \x86\x87\x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\
    \xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\
    \xd7\xd8\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\
    \xfa";
