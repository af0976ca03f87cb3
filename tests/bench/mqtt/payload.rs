//! Reports with a place for their number and the moment they were written.
//!
//! The stamp is a member of the report's own object, of fixed length and near its front, so that a
//! subscriber finds it without understanding JSON, and a broker has the same work with every report.

use core::time::Duration;

/// A report, again and again.
pub(crate) struct Payload {
    bytes: Vec<u8>,
    /// Where the stamp's digits begin.
    at: usize,
}

/// What a report says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Counted from 1 over the whole benchmark.
    pub(crate) number: u64,
    /// When it was written, since the benchmark's start.
    pub(crate) at: Duration,
}

/// What stands before the digits.
const MARK: &[u8] = b"\"bench\":\"";

/// Digits of the number, and of the nanoseconds behind it.
const DIGITS: usize = 16;

/// How far into a report its mark is at most, topic included.
const NEAR: usize = 256;

impl Payload {
    /// The report `like`, which has a `print` object, with a stamp as its first member.
    pub(crate) fn like(like: &[u8]) -> Self {
        let print = find(like, b"\"print\"").expect("a report of the print");
        let open = print + find(&like[print..], b"{").expect("an object") + 1;
        let mut bytes = like[..open].to_vec();
        bytes.extend(MARK);
        let at = bytes.len();
        bytes.extend([b'0'; 2 * DIGITS]);
        bytes.extend(b"\",");
        bytes.extend(&like[open..]);
        Self { bytes, at }
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The report with this stamp.
    pub(crate) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        let text = format!("{:016}{:016}", stamp.number, stamp.at.as_nanos());
        self.bytes[self.at..][..2 * DIGITS].copy_from_slice(text.as_bytes());
        &self.bytes
    }
}

/// The stamp of a packet, if it is a report of ours.
pub(crate) fn stamp_of(packet: &[u8]) -> Option<Stamp> {
    let near = packet.get(..NEAR).unwrap_or(packet);
    let at = find(near, MARK)? + MARK.len();
    let number = |from: usize| -> Option<u64> {
        core::str::from_utf8(packet.get(from..from + DIGITS)?).ok()?.parse().ok()
    };
    let (count, nanos) = (number(at)?, number(at + DIGITS)?);
    Some(Stamp { number: count, at: Duration::from_nanos(nanos) })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What a P1 or A1 says between full states, with about 300 bytes once it is stamped.
pub(crate) const DELTA: &[u8] = br#"{"print":{"nozzle_temper":219.65625,"bed_temper":59.96875,"wifi_signal":"-48dBm","mc_percent":43,"mc_remaining_time":87,"layer_num":78,"mc_print_line_number":"16384","cooling_fan_speed":"12","command":"push_status","msg":1,"sequence_id":"2021"}}"#;
