//! RTP packets and RTCP reports (RFC 3550), as far as a fan-out needs them: where a picture ends, and where a
//! player may begin.

use core::time::Duration;

use super::sdp::Codec;

/// Bytes in an RTP head without extension and contributing sources.
pub const HEAD: usize = 12;

/// Bytes in a receiver report with one block, followed by SDES with our name.
pub const RECEIVER_REPORT: usize = 32 + NAME.len();

/// Bytes in a sender report without blocks, followed by SDES with our name.
pub const SENDER_REPORT: usize = 28 + NAME.len();

/// SDES with a CNAME, which every compound RTCP packet needs (RFC 3550 §6.1). The SSRC is patched in.
const NAME: [u8; 24] = *b"\x81\xca\0\x05\0\0\0\0\x01\x0apandaproxy\0\0\0\0";

/// The first byte: version 2, no padding, and no report block or one.
const NO_BLOCKS: u8 = 0x80;
const ONE_BLOCK: u8 = 0x81;

/// The start bit in the FU header (RFC 6184 §5.8, RFC 7798 §4.4.3).
const FU_START: u8 = 0x80;

/// Packet types (RFC 3550 §12.1).
const SR: u8 = 200;
const RR: u8 = 201;

/// A parsed RTP packet (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'i> {
    /// The marker bit: the last packet of a picture (RFC 6184 §5.1).
    pub marker: bool,
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp, in ticks of the track's clock.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    /// The payload, without head, extension and padding.
    pub payload: &'i [u8],
    /// The whole packet, as it arrived.
    pub bytes: &'i [u8],
}

impl<'i> Packet<'i> {
    /// Parses a packet; `None` if its version is not 2, or it is shorter than its head says.
    pub fn parse(bytes: &'i [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let &[first, second, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = head;
        if first >> 6 != 2 {
            return None;
        }
        let mut payload = rest.get(usize::from(first & 0x0f) * 4..)?;
        if first & 0x10 != 0 {
            let (&[_, _, high, low], after) = payload.split_first_chunk::<4>()?;
            payload = after.get(usize::from(u16::from_be_bytes([high, low])) * 4..)?;
        }
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([r0, r1, r2, r3]),
            payload,
            bytes,
        })
    }

    /// The packet with another number, timestamp and source: its new head, and what follows the head.
    pub fn renumbered(&self, sequence: u16, timestamp: u32, ssrc: u32) -> ([u8; HEAD], &'i [u8]) {
        let (head, rest) = self.bytes.split_first_chunk::<HEAD>().unwrap_or((&[0; HEAD], &[]));
        let mut head = *head;
        let [_, _, s0, s1, t0, t1, t2, t3, r0, r1, r2, r3] = &mut head;
        [*s0, *s1] = sequence.to_be_bytes();
        [*t0, *t1, *t2, *t3] = timestamp.to_be_bytes();
        [*r0, *r1, *r2, *r3] = ssrc.to_be_bytes();
        (head, rest)
    }
}

/// The kinds of NAL units in a packet, or in a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// A slice of a key frame (IDR or IRAP).
    pub key: bool,
    /// A slice of any picture.
    pub picture: bool,
    /// The beginning of a picture's first slice.
    pub first: bool,
}

impl Content {
    /// The kinds of NAL units in a packet's payload.
    pub fn of(codec: Codec, payload: &[u8]) -> Self {
        let mut found = Self::default();
        match codec {
            Codec::H264 => found.h264(payload),
            Codec::H265 => found.h265(payload),
            Codec::Other => found = Self { key: true, picture: true, first: true },
        }
        found
    }

    /// What is in either of the two.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            key: self.key || other.key,
            picture: self.picture || other.picture,
            first: self.first || other.first,
        }
    }

    /// RFC 6184 §5.2: single units 1 to 23, STAP-A 24, STAP-B 25, FU-A 28, FU-B 29.
    fn h264(&mut self, payload: &[u8]) {
        let Some((first, rest)) = payload.split_first() else { return };
        match first & 0x1f {
            24 => each_aggregated(rest, |unit| self.h264_unit(unit)),
            25 => {
                let units = rest.get(2..).unwrap_or_default();
                each_aggregated(units, |unit| self.h264_unit(unit));
            }
            28 | 29 => {
                if let Some((header, body)) = rest.split_first() {
                    let body = if header & FU_START == 0 { &[] } else { body };
                    self.h264_slice(*header, body);
                }
            }
            _ => self.h264_slice(*first, rest),
        }
    }

    fn h264_unit(&mut self, unit: &[u8]) {
        if let Some((header, body)) = unit.split_first() {
            self.h264_slice(*header, body);
        }
    }

    /// H.264 table 7-1. A slice begins with the number of its first macroblock, and 0 is a set bit (§9.1).
    fn h264_slice(&mut self, header: u8, body: &[u8]) {
        let kind = header & 0x1f;
        self.picture |= matches!(kind, 1..=5);
        self.key |= kind == 5;
        self.first |= matches!(kind, 1 | 2 | 5) && begins_with_one(body);
    }

    /// RFC 7798 §4.4: aggregation 48, fragmentation 49.
    fn h265(&mut self, payload: &[u8]) {
        let Some((&[first, _], rest)) = payload.split_first_chunk::<2>() else { return };
        match first >> 1 & 0x3f {
            48 => each_aggregated(rest, |unit| {
                if let Some((&[first, _], body)) = unit.split_first_chunk::<2>() {
                    self.h265_slice(first >> 1 & 0x3f, body);
                }
            }),
            49 => {
                if let Some((header, body)) = rest.split_first() {
                    let body = if header & FU_START == 0 { &[] } else { body };
                    self.h265_slice(header & 0x3f, body);
                }
            }
            kind => self.h265_slice(kind, rest),
        }
    }

    /// H.265 table 7-1. A slice begins with `first_slice_segment_in_pic_flag`.
    fn h265_slice(&mut self, kind: u8, body: &[u8]) {
        self.picture |= kind < 32;
        self.key |= matches!(kind, 16..=23);
        self.first |= kind < 32 && begins_with_one(body);
    }
}

/// Whether the first bit is set.
fn begins_with_one(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| byte & 0x80 != 0)
}

/// Calls `take` with each unit of an aggregation packet: units follow each other, each after its 16-bit length.
pub fn each_aggregated<'b>(mut bytes: &'b [u8], mut take: impl FnMut(&'b [u8])) {
    while let Some((&[high, low], rest)) = bytes.split_first_chunk::<2>() {
        let Some((unit, behind)) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())
        else {
            return;
        };
        take(unit);
        bytes = behind;
    }
}

/// A sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderReport {
    /// The sender's wall clock, in 2⁻³² s since 1900; 0 if unknown.
    pub ntp: u64,
    /// The same moment in ticks of the track.
    pub timestamp: u32,
    /// Packets sent since the start.
    pub packets: u32,
    /// Bytes of payload in them.
    pub bytes: u32,
}

impl SenderReport {
    /// Parses the first report of an RTCP packet; `None` if it is not a sender report.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, kind, _, _], rest) = bytes.split_first_chunk::<4>()?;
        if first >> 6 != 2 || kind != SR {
            return None;
        }
        let (_ssrc, rest) = rest.split_first_chunk::<4>()?;
        let (ntp, rest) = rest.split_first_chunk::<8>()?;
        let (timestamp, rest) = rest.split_first_chunk::<4>()?;
        let (packets, rest) = rest.split_first_chunk::<4>()?;
        let (bytes, _blocks) = rest.split_first_chunk::<4>()?;
        Some(Self {
            ntp: u64::from_be_bytes(*ntp),
            timestamp: u32::from_be_bytes(*timestamp),
            packets: u32::from_be_bytes(*packets),
            bytes: u32::from_be_bytes(*bytes),
        })
    }

    /// The middle 32 bits of the clock, by which a receiver report names a sender report (LSR).
    pub const fn short_ntp(&self) -> u32 {
        (self.ntp >> 16) as u32
    }

    /// The same report `time` later, at `rate` ticks a second. Both clocks wrap.
    #[must_use]
    pub fn after(self, time: Duration, rate: u32) -> Self {
        let micros = time.as_micros();
        let ntp = ((micros << 32) / 1_000_000) as u64;
        let ticks = (micros * u128::from(rate) / 1_000_000) as u32;
        let timestamp = self.timestamp.wrapping_add(ticks);
        Self { ntp: self.ntp.wrapping_add(ntp), timestamp, ..self }
    }

    /// The report as an RTCP packet from `ssrc`, with our name.
    pub fn bytes(&self, ssrc: u32) -> [u8; SENDER_REPORT] {
        let mut out = [0; SENDER_REPORT];
        let length = 6_u16.to_be_bytes();
        let head = [NO_BLOCKS, SR];
        fill(
            &mut out,
            &[
                &head,
                &length,
                &ssrc.to_be_bytes(),
                &self.ntp.to_be_bytes(),
                &self.timestamp.to_be_bytes(),
                &self.packets.to_be_bytes(),
                &self.bytes.to_be_bytes(),
                &named(ssrc),
            ],
        );
        out
    }
}

/// A receiver report with one block (RFC 3550 §6.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverReport {
    /// The SSRC of the receiver.
    pub ssrc: u32,
    /// The SSRC of the sender.
    pub of: u32,
    /// The extended highest sequence number.
    pub highest: u32,
    /// [`SenderReport::short_ntp`] of the last sender report; 0 if there was none.
    pub last_report: u32,
    /// The time since then, in 2⁻¹⁶ s.
    pub since: u32,
}

impl ReceiverReport {
    /// The report as an RTCP packet, with our name. Loss is 0, since TCP loses nothing, and jitter is not measured.
    pub fn bytes(&self) -> [u8; RECEIVER_REPORT] {
        let mut out = [0; RECEIVER_REPORT];
        let length = 7_u16.to_be_bytes();
        let head = [ONE_BLOCK, RR];
        let nothing = [0; 4];
        fill(
            &mut out,
            &[
                &head,
                &length,
                &self.ssrc.to_be_bytes(),
                &self.of.to_be_bytes(),
                &nothing,
                &self.highest.to_be_bytes(),
                &nothing,
                &self.last_report.to_be_bytes(),
                &self.since.to_be_bytes(),
                &named(self.ssrc),
            ],
        );
        out
    }
}

fn named(ssrc: u32) -> [u8; NAME.len()] {
    let mut name = NAME;
    if let Some(source) = name.get_mut(4..8) {
        source.copy_from_slice(&ssrc.to_be_bytes());
    }
    name
}

/// Writes the pieces one behind the other.
fn fill(mut room: &mut [u8], pieces: &[&[u8]]) {
    for piece in pieces {
        let Some((here, rest)) = room.split_at_mut_checked(piece.len()) else { return };
        here.copy_from_slice(piece);
        room = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: Content = Content { key: true, picture: true, first: true };
    const KEY_GOES_ON: Content = Content { first: false, ..KEY };
    const DELTA: Content = Content { key: false, ..KEY };
    const DELTA_GOES_ON: Content = Content { first: false, ..DELTA };
    const NEITHER: Content = Content { key: false, picture: false, first: false };

    #[test]
    fn sources_extension_and_padding_are_skipped() {
        let plain = b"\x80\xe0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0ahello";
        let packet = Packet::parse(plain).unwrap();
        assert!(packet.marker);
        assert_eq!((packet.sequence, packet.timestamp), (0x0102, 0x0304_0506));
        assert_eq!((packet.ssrc, packet.payload), (0x0708_090a, &b"hello"[..]));
        let full = b"\xb1\x60\0\0\0\0\0\0\0\0\0\0srce\xbe\xde\0\x01ext.hello\0\0\x03";
        let packet = Packet::parse(full).unwrap();
        assert_eq!((packet.marker, packet.payload), (false, &b"hello"[..]));
        for len in 0..HEAD {
            assert_eq!(Packet::parse(&plain[..len]), None);
        }
        assert_eq!(Packet::parse(b"\x40\xe0\0\0\0\0\0\0\0\0\0\0"), None, "version 1");
        assert_eq!(
            Packet::parse(b"\xa0\xe0\0\0\0\0\0\0\0\0\0\0\x02"),
            None,
            "padding longer than the packet"
        );
        assert_eq!(
            Packet::parse(b"\x8f\xe0\0\0\0\0\0\0\0\0\0\0"),
            None,
            "sources longer than the packet"
        );
    }

    #[test]
    fn a_renumbered_packet_keeps_everything_else() {
        let packet = Packet::parse(b"\x80\xe0\0\0\0\0\0\0\0\0\0\0rest").unwrap();
        let (head, rest) = packet.renumbered(0x0102, 0x0304_0506, 0x0708_090a);
        assert_eq!(head, *b"\x80\xe0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a");
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn h264_key_frames_are_found_in_all_packetisations() {
        let table: [(&[u8], Content); 15] = [
            (b"\x65\x88", KEY),
            (b"\x65\x48", KEY_GOES_ON),
            (b"\x65", KEY_GOES_ON),
            (b"\x41\x9a", DELTA),
            (b"\x41\x5a", DELTA_GOES_ON),
            (b"\x67\x4d", NEITHER),
            (b"\x68\xee", NEITHER),
            (b"\x06\x05", NEITHER),
            (b"\x78\0\x02\x67\x4d\0\x02\x68\xee", NEITHER),
            (b"\x78\0\x02\x67\x4d\0\x02\x65\x88", KEY),
            (b"\x7c\x85\x88", KEY),
            (b"\x7c\x05\x88", KEY_GOES_ON),
            (b"\x7c\x81\x5a", DELTA_GOES_ON),
            (b"\x7c\x41\x9a", DELTA_GOES_ON),
            (b"\x78\0\x09\x67", NEITHER),
        ];
        for (payload, content) in table {
            assert_eq!(Content::of(Codec::H264, payload), content, "{}", payload.escape_ascii());
        }
        assert_eq!(Content::of(Codec::H264, b""), NEITHER);
    }

    #[test]
    fn h265_key_frames_are_found_in_all_packetisations() {
        let table: [(&[u8], Content); 9] = [
            (b"\x26\x01\xaf", KEY),
            (b"\x26\x01\x2f", KEY_GOES_ON),
            (b"\x02\x01\xd0", DELTA),
            (b"\x40\x01\x0c", NEITHER),
            (b"\x4e\x01\x05", NEITHER),
            (b"\x60\x01\0\x02\x42\x01\0\x03\x28\x01\xaf", KEY),
            (b"\x62\x01\x93\xaf", KEY),
            (b"\x62\x01\x13\xaf", KEY_GOES_ON),
            (b"\x62\x01\x41\xd0", DELTA_GOES_ON),
        ];
        for (payload, content) in table {
            assert_eq!(Content::of(Codec::H265, payload), content, "{}", payload.escape_ascii());
        }
    }

    #[test]
    fn players_of_another_codec_may_begin_anywhere() {
        assert_eq!(Content::of(Codec::Other, b"anything"), KEY);
    }

    #[test]
    fn a_sender_report_is_written_and_parsed() {
        let report = SenderReport { ntp: 1 << 40 | 7 << 16, timestamp: 9, packets: 10, bytes: 11 };
        let bytes = report.bytes(0x0102_0304);
        assert_eq!(SenderReport::parse(&bytes), Some(report));
        assert_eq!(bytes[..8], *b"\x80\xc8\0\x06\x01\x02\x03\x04");
        // Our name follows, padded to four bytes.
        assert_eq!(bytes[28..36], *b"\x81\xca\0\x05\x01\x02\x03\x04");
        assert_eq!(bytes.len() % 4, 0);
        for len in 0..28 {
            assert_eq!(SenderReport::parse(&bytes[..len]), None);
        }
        assert_eq!(
            SenderReport::parse(b"\x81\xc9\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            None
        );
    }

    #[test]
    fn a_later_sender_report_has_both_clocks_moved_on() {
        let report = SenderReport { ntp: 7 << 32, timestamp: u32::MAX, packets: 1, bytes: 2 };
        let later = report.after(Duration::from_millis(1500), 90_000);
        let ntp = 8 << 32 | 1 << 31;
        assert_eq!(later, SenderReport { ntp, timestamp: 134_999, ..report });
    }

    #[test]
    fn a_receiver_report_has_one_block_and_our_name() {
        let bytes = ReceiverReport { ssrc: 1, of: 2, highest: 3, last_report: 4, since: 5 }.bytes();
        assert_eq!(bytes[..12], *b"\x81\xc9\0\x07\0\0\0\x01\0\0\0\x02");
        assert_eq!(bytes[12..32], *b"\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05");
        assert_eq!(bytes[32..], *b"\x81\xca\0\x05\0\0\0\x01\x01\x0apandaproxy\0\0\0\0");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_packet_is_parsed_without_a_panic(
            first in prop_oneof![any::<u8>(), 0x80..=0xbf_u8],
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [&[first][..], &rest].concat();
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEAD <= bytes.len());
                for codec in [Codec::H264, Codec::H265, Codec::Other] {
                    let content = Content::of(codec, packet.payload);
                    let is_picture = content.key || content.first;
                    prop_assert!(content.picture || !is_picture, "a key frame is a picture");
                }
            }
            prop_assert_eq!(SenderReport::parse(&bytes).is_some(), bytes.len() >= 28 && first >> 6 == 2 && bytes[1] == SR);
        }
    }
}
