//! The writer before a real hub, with the recording of the simulated camera's and with made-up packets. What it
//! writes is read by a parser of its own.

use super::*;
use crate::clock::Instant;
use crate::memory::budget::RTSP_OUTBOX;
use crate::memory::slots::{SlotGuard, Slots};
use crate::notify::Demand;
use crate::rtsp::hub::Hub;
use crate::rtsp::rtp::Content;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core::time::Duration;
use proptest::prelude::*;

/// 640×360, with parameter sets before each key frame.
const RECORDING: &[u8] = include_bytes!("../../../tests/traces/rtsp/camera.h264");

/// Ticks between two pictures.
const STEP: u32 = 3000;

/// The NAL units of each picture in the recording.
fn recording() -> Vec<Vec<&'static [u8]>> {
    let mut pictures: Vec<Vec<&[u8]>> = Vec::new();
    let starts: Vec<usize> =
        (0..RECORDING.len() - 3).filter(|at| RECORDING[*at..at + 3] == [0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([RECORDING.len()]);
    let mut is_open = false;
    for (start, end) in starts.iter().zip(ends) {
        let nal = &RECORDING[start + 3..end];
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        let nal = &nal[..nal.len() - zeros];
        if !is_open {
            pictures.push(Vec::new());
        }
        pictures.last_mut().unwrap().push(nal);
        is_open = !matches!(nal[0] & 0x1f, 1..=5);
    }
    pictures
}

fn is_slice(nal: &&[u8]) -> bool {
    matches!(nal[0] & 0x1f, 1..=5)
}

fn sdp(codec: &str, sets: &[&[u8]]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| STANDARD.encode(set)).collect();
    format!(
        "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 {codec}/90000\r\n\
         a=fmtp:96 packetization-mode=1;sprop-parameter-sets={};profile-level-id=4D001E\r\n",
        sets.join(",")
    )
}

/// A hub with viewers, and the camera before it.
struct Stage {
    hub: Hub,
    slots: Slots<Slot>,
    info: Rc<StreamInfo>,
    now: Instant,
    sequence: u16,
    timestamp: u32,
    /// Bytes of a fragment of a NAL unit.
    fragment: usize,
    /// Whether small units share a packet.
    aggregates: bool,
    /// Whether each unit is marked as the last of its picture.
    marks_all: bool,
}

impl Stage {
    fn new(description: &str) -> Self {
        let slots = Slots::new(2, |_| Slot::new());
        let info = Rc::new(StreamInfo::new([7, 8]));
        let hub = Hub::new(slots.clone(), Rc::new(Demand::default()), Rc::clone(&info), 9);
        let mut stage = Self {
            hub,
            slots,
            info,
            now: Instant::START,
            sequence: 100,
            timestamp: 0xffff_0000,
            fragment: 1400,
            aggregates: false,
            marks_all: false,
        };
        stage.describe(description);
        stage
    }

    fn describe(&mut self, description: &str) {
        self.hub.described(self.now, &Description::parse(description.as_bytes()).unwrap());
    }

    fn viewer(&mut self) -> Viewer {
        let slot = self.slots.take().unwrap();
        self.hub.join(&slot);
        self.hub.play(&slot);
        let mp4 = Mp4::new(Rc::clone(&slot), Rc::clone(&self.info));
        Viewer { mp4, _slot: slot, file: Vec::new(), outbox: RTSP_OUTBOX }
    }

    fn packet(&mut self, payload: &[u8], marker: bool) {
        let mut bytes = vec![0x80, 96 | u8::from(marker) << 7];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(5_u32.to_be_bytes());
        bytes.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        let codec = codec(&self.info.description());
        let packet = Packet::parse(&bytes).unwrap();
        self.hub.packet(self.now, 0, &packet, Content::of(codec, packet.payload));
    }

    /// A picture of these units, and time for the next one.
    fn show(&mut self, nals: &[&[u8]]) {
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        let mut small: Vec<&[u8]> = Vec::new();
        for nal in nals {
            if self.aggregates && nal.len() < 200 {
                small.push(nal);
            } else if nal.len() <= self.fragment {
                payloads.push(nal.to_vec());
            } else {
                let pieces = nal[1..].chunks(self.fragment);
                let last = pieces.len() - 1;
                payloads.extend(pieces.enumerate().map(|(at, piece)| {
                    let ends = u8::from(at == 0) << 7 | u8::from(at == last) << 6;
                    [&[nal[0] & 0xe0 | 28, nal[0] & 0x1f | ends], piece].concat()
                }));
            }
        }
        if !small.is_empty() {
            let units = small
                .iter()
                .map(|nal| [&u16::try_from(nal.len()).unwrap().to_be_bytes()[..], nal].concat());
            payloads.insert(0, [vec![24], units.flatten().collect()].concat());
        }
        let last = payloads.len() - 1;
        for (at, payload) in payloads.iter().enumerate() {
            let ends_unit = payload[0] & 0x1f != 28 || payload[1] & 0x40 != 0;
            self.packet(payload, at == last || self.marks_all && ends_unit);
        }
        self.pass(STEP);
    }

    fn pass(&mut self, ticks: u32) {
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.now = self.now + Duration::from_micros(u64::from(ticks) * 100 / 9);
    }
}

/// A viewer, and the file that it has been sent so far.
struct Viewer {
    mp4: Mp4,
    _slot: SlotGuard<Slot>,
    file: Vec<u8>,
    outbox: usize,
}

impl Viewer {
    fn read(&mut self) -> Result<(), Changed> {
        let mut out = vec![0; self.outbox];
        loop {
            match self.mp4.write(&mut out)? {
                0 => return Ok(()),
                len => self.file.extend(&out[..len]),
            }
        }
    }

    fn file(&mut self) -> File {
        self.read().unwrap();
        File::parse(&self.file)
    }
}

/// A file, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct File {
    /// `moov`.
    init: Vec<u8>,
    fragments: Vec<(Fragment, Vec<Vec<u8>>)>,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The boxes in `bytes`, which have to be whole.
fn boxes_in(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (one, rest) = bytes.split_at(usize::try_from(number(bytes, 0)).unwrap());
        all.push((&one[4..8], &one[8..]));
        bytes = rest;
    }
    all
}

fn child<'b>(bytes: &'b [u8], name: &[u8; 4]) -> &'b [u8] {
    boxes_in(bytes).iter().find(|(its, _)| its == name).expect("it is there").1
}

impl File {
    fn parse(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        let mut head = None;
        for (name, content) in boxes_in(bytes) {
            match name {
                b"ftyp" => assert!(content.starts_with(b"iso5") && file.init.is_empty()),
                b"moov" => file.init = content.to_vec(),
                b"moof" => {
                    let traf = child(content, b"traf");
                    let (tfdt, trun) = (child(traf, b"tfdt"), child(traf, b"trun"));
                    assert_eq!((number(trun, 4), number(trun, 8)), (1, content.len() as u32 + 16));
                    head = Some(Fragment {
                        number: number(child(content, b"mfhd"), 4),
                        time: u64::from(number(tfdt, 4)) << 32 | u64::from(number(tfdt, 8)),
                        duration: number(trun, 12),
                        size: number(trun, 16),
                        is_key: number(trun, 20) == 0x0200_0000,
                    });
                }
                b"mdat" => {
                    let head = head.take().expect("`moof` is in front");
                    assert_eq!(head.size as usize, content.len());
                    file.fragments.push((head, units_in(content)));
                }
                other => panic!("a box {other:?}"),
            }
        }
        assert_eq!(head, None, "it ends in the middle of a fragment");
        for (at, pair) in file.fragments.windows(2).enumerate() {
            let [(one, _), (next, _)] = pair else { unreachable!() };
            assert_eq!(one.number as usize, at + 1);
            assert_eq!(next.time, one.time + u64::from(one.duration), "times add up");
        }
        file
    }

    /// Width and height.
    fn size(&self) -> (u32, u32) {
        let tkhd = child(child(&self.init, b"trak"), b"tkhd");
        (number(tkhd, 76) >> 16, number(tkhd, 80) >> 16)
    }
}

fn units_in(mut sample: &[u8]) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    while !sample.is_empty() {
        let (unit, rest) = sample[4..].split_at(usize::try_from(number(sample, 0)).unwrap());
        units.push(unit.to_vec());
        sample = rest;
    }
    units
}

fn slices(nals: &[&[u8]]) -> Vec<Vec<u8>> {
    nals.iter().filter(|nal| is_slice(nal)).map(|nal| nal.to_vec()).collect()
}

#[test]
fn a_recording_keeps_its_slices_and_its_times() {
    for (fragment, aggregates) in [(1400, false), (1400, true), (50, false)] {
        let mut stage = Stage::new(&sdp("H264", &[]));
        (stage.fragment, stage.aggregates) = (fragment, aggregates);
        let mut viewer = stage.viewer();
        let pictures = recording();
        for nals in &pictures {
            stage.show(nals);
            viewer.read().unwrap();
        }
        let file = viewer.file();
        assert_eq!((file.size(), file.fragments.len()), ((640, 360), pictures.len() - 1));
        for (at, ((head, units), nals)) in file.fragments.iter().zip(&pictures).enumerate() {
            assert_eq!(*units, slices(nals), "picture {at}");
            assert_eq!((head.duration, head.is_key), (STEP, at % 30 == 0), "picture {at}");
        }
    }
}

#[test]
fn the_file_is_the_same_with_the_smallest_outbox() {
    let files = [MIN_OUTBOX, RTSP_OUTBOX].map(|outbox| {
        let mut stage = Stage::new(&sdp("H264", &[]));
        let mut viewer = stage.viewer();
        viewer.outbox = outbox;
        for nals in &recording()[..40] {
            stage.show(nals);
            viewer.read().unwrap();
        }
        viewer.file()
    });
    assert_eq!(files[0], files[1]);
    assert_eq!(files[0].fragments.len(), 39);
}

#[test]
fn nothing_is_written_before_a_key_frame_is_whole() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    let mut viewer = stage.viewer();
    for nals in &pictures[5..31] {
        assert_eq!(viewer.mp4.readiness(), Readiness::Waits);
        viewer.read().unwrap();
        stage.show(nals);
    }
    assert_eq!((viewer.mp4.readiness(), viewer.file.len()), (Readiness::Waits, 0));
    stage.show(&pictures[31]);
    assert_eq!(viewer.mp4.readiness(), Readiness::Ready);
    let file = viewer.file();
    assert_eq!(file.fragments.len(), 1);
    assert!(file.fragments[0].0.is_key);
}

#[test]
fn parameter_sets_may_stand_in_the_description_alone() {
    let pictures = recording();
    let sets: Vec<&[u8]> =
        pictures[0].iter().copied().filter(|nal| matches!(nal[0] & 0x1f, 7 | 8)).collect();
    for (given, expected) in [(&sets[..], Readiness::Ready), (&sets[..1], NO_SETS), (&[], NO_SETS)]
    {
        let mut stage = Stage::new(&sdp("H264", given));
        let mut viewer = stage.viewer();
        for nals in &pictures[..2] {
            let bare: Vec<&[u8]> = nals.iter().copied().filter(is_slice).collect();
            stage.show(&bare);
        }
        assert_eq!(viewer.mp4.readiness(), expected);
        match viewer.read() {
            Ok(()) => assert_eq!(viewer.file().size(), (640, 360)),
            Err(Changed) => assert_eq!(expected, NO_SETS),
        }
    }
}

const NO_SETS: Readiness = Readiness::Unusable(Unusable::ParameterSets);

#[test]
fn another_codec_is_not_usable() {
    let mut stage = Stage::new(&sdp("H265", &[]));
    let viewer = stage.viewer();
    assert_eq!(viewer.mp4.readiness(), Readiness::Unusable(Unusable::Codec));
}

/// A camera may mark each slice as the last of its picture.
#[test]
fn slices_after_the_marker_belong_to_their_picture() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    stage.marks_all = true;
    let mut viewer = stage.viewer();
    let mut shown = Vec::new();
    for nals in &pictures[..10] {
        // Three slices, of which two do not begin with macroblock 0.
        let mut nals = nals.clone();
        let second = [&[nals[nals.len() - 1][0], 0x48][..], &[7; 3000]].concat();
        nals.extend([&second[..], &second[..100]]);
        stage.show(&nals);
        viewer.read().unwrap();
        shown.push(slices(&nals));
    }
    let file = viewer.file();
    let units: Vec<_> = file.fragments.iter().map(|(_, units)| units.clone()).collect();
    assert_eq!(units, shown[..9]);
    assert!(file.fragments.iter().all(|(head, _)| head.duration == STEP));
}

#[test]
fn the_time_goes_on_over_a_restart_of_the_camera() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    let mut viewer = stage.viewer();
    for nals in &pictures[..10] {
        stage.show(nals);
    }
    // In the middle of a picture.
    stage.packet(&[0x7c, 0x81, 0x88, 1, 2, 3], false);
    stage.hub.lost();
    stage.pass(90_000 * 40);
    (stage.timestamp, stage.sequence) = (77, 1);
    stage.describe(&sdp("H264", &[]));
    for nals in &pictures[25..35] {
        stage.show(nals);
    }
    let file = viewer.file();
    let durations: Vec<u32> = file.fragments.iter().map(|(head, _)| head.duration).collect();
    assert_eq!(durations[..9], [STEP; 9]);
    assert_eq!(durations[9], MAX_DURATION, "the player does not wait for 40 s");
    assert_eq!(durations[10..], [STEP; 4]);
    assert!(file.fragments[10].0.is_key);
    assert_eq!(file.fragments[10].1, slices(&pictures[30]));
}

#[test]
fn a_slow_viewer_goes_on_at_a_key_frame_with_whole_pictures() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    let mut viewer = stage.viewer();
    stage.show(&pictures[0]);
    stage.show(&pictures[1]);
    // In the middle of the first picture.
    let mut out = vec![0; MIN_OUTBOX];
    let len = viewer.mp4.write(&mut out).unwrap();
    viewer.file.extend(&out[..len]);
    for nals in pictures[2..].iter().chain(&pictures).chain(&pictures).chain(&pictures[..10]) {
        stage.show(nals);
    }
    let file = viewer.file();
    let at = |units: &Vec<Vec<u8>>| pictures.iter().position(|nals| slices(nals) == *units);
    let seen: Vec<usize> = file.fragments.iter().map(|(_, units)| at(units).unwrap()).collect();
    let gaps: Vec<usize> = (1..seen.len()).filter(|it| seen[*it] != seen[*it - 1] + 1).collect();
    assert_eq!(gaps.iter().filter(|gap| !seen[**gap].is_multiple_of(30)).count(), 0, "{seen:?}");
    assert!(!gaps.is_empty(), "{seen:?}");
}

#[test]
fn pictures_at_hand_before_the_viewer_came_are_shown_quickly() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    let _first = stage.viewer();
    for nals in &pictures[..5] {
        stage.show(nals);
    }
    let mut late = stage.viewer();
    for nals in &pictures[5..10] {
        stage.show(nals);
    }
    let file = late.file();
    let durations: Vec<u32> = file.fragments.iter().map(|(head, _)| head.duration).collect();
    assert_eq!(durations[..5], [KEPT_DURATION; 5]);
    assert_eq!(durations[5..], [STEP; 4]);
}

#[test]
fn other_parameter_sets_end_the_file() {
    let pictures = recording();
    let mut stage = Stage::new(&sdp("H264", &[]));
    let mut viewer = stage.viewer();
    for nals in pictures[..30].iter().chain([&pictures[0]]) {
        stage.show(nals);
        assert_eq!(viewer.read(), Ok(()));
    }
    let mut other = pictures[0].clone();
    let sps = b"\x67\x42\xc0\x1f\xd9\x00\x50\x05\xbb\x01\x10";
    *other.iter_mut().find(|nal| nal[0] & 0x1f == 7).unwrap() = sps;
    stage.show(&other);
    stage.show(&pictures[1]);
    assert_eq!(viewer.read(), Err(Changed));
    File::parse(&viewer.file);
}

#[test]
fn sequence_parameter_sets_of_x264_are_read() {
    /// A unit, the width and height that it says, and its profile's bits for chroma and depth.
    type Row = (&'static [u8], u16, u16, Option<[u8; 3]>);
    let table: [Row; 6] = [
        (
            b"\x67\x64\x00\x28\xac\xd9\x40\x78\x02\x27\xe5\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\x50\x3c\x60\xc6\x58",
            1920,
            1080,
            Some([1, 0, 0]),
        ),
        (
            b"\x67\x42\xc0\x1f\xd9\x00\x50\x05\xbb\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x01\x40\xf1\x83\x24\x80",
            1280,
            720,
            None,
        ),
        // Interlaced.
        (
            b"\x67\x64\x00\x28\xac\xd9\x40\x78\x04\x4f\xde\x02\x20\x00\x00\x03\x00\x20\x00\x00\x03\x02\x83\xe2\xc5\xb2\xc0",
            1920,
            1080,
            Some([1, 0, 0]),
        ),
        // 4:4:4, 4:2:2, and ten bits.
        (
            b"\x67\xf4\x00\x0c\x91\x9b\x28\x2a\x33\xc7\xc7\xe0\x22\x00\x00\x03\x00\x02\x00\x00\x03\x00\x28\x1e\x28\x53\x2c",
            322,
            178,
            Some([3, 0, 0]),
        ),
        (
            b"\x67\x7a\x00\x0c\xbc\xd9\x41\x41\x9f\x8d\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\x50\x3c\x50\xa6\x58",
            320,
            180,
            Some([2, 0, 0]),
        ),
        (
            b"\x67\x6e\x00\x0c\xa6\xcd\x94\x14\x19\xf9\xf0\x11\x00\x00\x03\x00\x01\x00\x00\x03\x00\x14\x0f\x14\x29\x96",
            320,
            180,
            Some([1, 2, 2]),
        ),
    ];
    for (sps, width, height, extension) in table {
        let format = Format::parse(sps).unwrap();
        assert_eq!((format.width, format.height, format.extension), (width, height, extension));
        assert_eq!(format.profile, sps[1..4]);
        for len in 0..8 {
            assert_eq!(Format::parse(&sps[..len]), None);
        }
    }
}

#[test]
fn the_longest_beginning_of_a_file_fits() {
    let sets = ParameterSets {
        sps: [7; h264::MAX_SPS].into_iter().collect(),
        pps: [8; h264::MAX_PPS].into_iter().collect(),
    };
    let format = Format { width: 1, height: 2, profile: [3; 3], extension: Some([1; 3]) };
    let mut out = [0; MAX_INIT];
    let mut boxes = Boxes::new(&mut out);
    boxes::write_init(&mut boxes, &sets, &format);
    assert!(boxes.len <= MAX_INIT, "{}", boxes.len);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_packets_make_whole_fragments(
        packets in proptest::collection::vec(
            (
                prop_oneof![Just(0x65_u8), Just(0x41), Just(0x78), Just(0x7c), Just(0x67), any::<u8>()],
                proptest::collection::vec(any::<u8>(), 0..2000),
                any::<bool>(),
                any::<bool>(),
            ),
            0..60,
        ),
        outbox in MIN_OUTBOX..RTSP_OUTBOX,
    ) {
        let mut stage = Stage::new(&sdp("H264", &[]));
        stage.show(&recording()[0]);
        let mut viewer = stage.viewer();
        viewer.outbox = outbox;
        for (first, rest, marker, reads) in packets {
            stage.packet(&[&[first], &rest[..]].concat(), marker);
            if marker {
                stage.pass(STEP);
            }
            if reads {
                let _may_change = viewer.read();
            }
        }
        let _may_change = viewer.read();
        File::parse(&viewer.file);
    }
}
