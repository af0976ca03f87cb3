//! RTP and RTCP as the camera writes them: packets of one unit, sender reports, BYE; and the receiver
//! reports that it reads (RFC 3550, RFC 6184, RFC 7798).

use core::time::Duration;

use super::media::{Codec, Unit};

/// The payload type of the one track.
const PAYLOAD_TYPE: u8 = 96;

/// Before a payload, in bytes.
const HEADER: usize = 12;

/// How small units leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each in a packet of its own, as live555 does it.
    Single,
    /// Parameter sets and what else is small together: STAP-A (type 24), in H.265 AP (type 48).
    Aggregated,
}

/// One session's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) ssrc: u32,
    /// Of the next packet.
    pub(super) sequence: u16,
    /// Of unit 0.
    pub(super) base: u32,
    pub(super) packets: u32,
    pub(super) octets: u32,
}

impl Track {
    /// The packets of one unit, `most` bytes each at most.
    pub(super) fn packets(
        &mut self,
        codec: Codec,
        unit: &Unit,
        timestamp: u32,
        most: usize,
        packing: Packing,
    ) -> Vec<Vec<u8>> {
        let payloads = payloads(codec, unit, most - HEADER, packing);
        let last = payloads.len() - 1;
        let packets = payloads.into_iter().enumerate();
        packets.map(|(at, payload)| self.packet(timestamp, at == last, &payload)).collect()
    }

    /// A packet of this payload.
    pub(super) fn packet(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, PAYLOAD_TYPE | u8::from(marker) << 7];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload.len()).unwrap());
        packet
    }

    /// A sender report and a CNAME, as live555 puts them together. `since` is how long the camera runs.
    pub(super) fn sender_report(&self, since: Duration, timestamp: u32) -> Vec<u8> {
        let seconds = STARTED_AT.wrapping_add(u32::try_from(since.as_secs()).unwrap());
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        let mut report = vec![0x80, SENDER_REPORT, 0, 6];
        let words = [
            self.ssrc,
            seconds,
            u32::try_from(fraction).unwrap(),
            timestamp,
            self.packets,
            self.octets,
        ];
        report.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        report.extend([0x81, DESCRIPTION, 0, 4]);
        report.extend(self.ssrc.to_be_bytes());
        report.extend(b"\x01\x07printer\0\0\0"); // CNAME, and an end on a word
        report
    }

    /// The end of a stream, behind an empty receiver report.
    pub(super) fn goodbye(&self) -> Vec<u8> {
        let ssrc = self.ssrc.to_be_bytes();
        [&[0x80, RECEIVER_REPORT, 0, 1][..], &ssrc, &[0x81, GOODBYE, 0, 1], &ssrc].concat()
    }
}

/// Sets M on the last packet of every slice of H.264, as live555 does with units that it gets slice by slice.
pub(super) fn mark_slices(packets: &mut [Vec<u8>]) {
    for packet in packets {
        let (kind, ends) = match packet[HEADER] & 0x1f {
            28 => (packet[HEADER + 1] & 0x1f, packet[HEADER + 1] & 0x40 != 0),
            kind => (kind, true),
        };
        if ends && matches!(kind, 1..=5) {
            packet[1] |= 0x80;
        }
    }
}

/// NTP seconds at which every camera began to run.
const STARTED_AT: u32 = 3_900_000_000;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;

/// A receiver report on the camera's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which connection it came by, counted from 1.
    pub connection: u64,
    /// Whom it reports about.
    pub ssrc: u32,
    /// Packets lost so far, by its account.
    pub lost: i32,
    /// The highest sequence number seen, with its cycles.
    pub highest: u32,
    /// The middle of the last sender report's NTP time.
    pub last_report: u32,
}

/// The receiver reports in a compound packet; `None` if it is not one.
pub(super) fn reports(connection: u64, compound: &[u8]) -> (Vec<Option<Report>>, bool) {
    let (mut reports, mut rest) = (Vec::new(), compound);
    while let [first, kind, high, low, body @ ..] = rest {
        let len = 4 * usize::from(u16::from_be_bytes([*high, *low]));
        if first >> 6 != 2 || len > body.len() || !(200..=207).contains(kind) {
            return (reports, false);
        }
        if *kind == RECEIVER_REPORT {
            // A report without a block is one too: nothing has been received yet.
            let word = |at: usize| body.get(at..at + 4).map(|word| word.try_into().unwrap());
            let number = |at| word(at).map(u32::from_be_bytes);
            reports.push((first & 0x1f > 0 && len >= 28).then(|| Report {
                connection,
                ssrc: number(4).unwrap(),
                lost: (number(8).unwrap() << 8).cast_signed() >> 8,
                highest: number(12).unwrap(),
                last_report: number(20).unwrap(),
            }));
        }
        rest = &body[len..];
    }
    (reports, rest.is_empty() && !compound.is_empty())
}

fn payloads(codec: Codec, unit: &Unit, most: usize, packing: Packing) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut waiting: Vec<&[u8]> = Vec::new();
    for nal in &unit.nals {
        let small = codec.is_set(codec.kind(nal)) || nal.len() < most / 4;
        let sum: usize = waiting.iter().map(|nal| nal.len() + 2).sum();
        let fits = sum + nal.len() + 4 <= most;
        if packing == Packing::Aggregated && small && fits {
            waiting.push(nal);
            continue;
        }
        together(codec, &mut waiting, &mut payloads);
        if nal.len() <= most {
            payloads.push(nal.clone());
        } else {
            fragments(codec, nal, most, &mut payloads);
        }
    }
    together(codec, &mut waiting, &mut payloads);
    payloads
}

/// One aggregation packet of those that wait; of a single one, itself.
fn together(codec: Codec, waiting: &mut Vec<&[u8]>, payloads: &mut Vec<Vec<u8>>) {
    let mut packet = match (codec, &waiting[..]) {
        (_, []) => return,
        (_, [alone]) => {
            payloads.push(alone.to_vec());
            waiting.clear();
            return;
        }
        // Its importance is the greatest of theirs.
        (Codec::H264, all) => vec![24 | all.iter().map(|nal| nal[0] & 0x60).max().unwrap()],
        (Codec::H265, _) => vec![48 << 1, 1],
    };
    for nal in waiting.drain(..) {
        packet.extend(u16::try_from(nal.len()).unwrap().to_be_bytes());
        packet.extend(nal);
    }
    payloads.push(packet);
}

/// FU-A (type 28), in H.265 FU (type 49).
fn fragments(codec: Codec, nal: &[u8], most: usize, payloads: &mut Vec<Vec<u8>>) {
    let (head, kind, body) = match codec {
        Codec::H264 => (vec![nal[0] & 0xe0 | 28], nal[0] & 0x1f, &nal[1..]),
        Codec::H265 => (vec![nal[0] & 0x81 | 49 << 1, nal[1]], codec.kind(nal), &nal[2..]),
    };
    let room = most - head.len() - 1;
    let last = body.len().div_ceil(room) - 1;
    for (at, piece) in body.chunks(room).enumerate() {
        let edges = u8::from(at == 0) << 7 | u8::from(at == last) << 6;
        payloads.push([&head[..], &[edges | kind], piece].concat());
    }
}
