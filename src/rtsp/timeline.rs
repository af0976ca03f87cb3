//! One clock and one numbering of packets for players, over all sessions with the camera.
//!
//! A camera that restarts begins with other sequence numbers, timestamps and sources, which players would take
//! for another stream or a long loss. Each track goes on for them: its numbers without a gap, its timestamps
//! moved on by the time that passed.

use core::time::Duration;

use super::rtp::Packet;
use crate::clock::Instant;

/// How far a timestamp may be from the time of arrival, from one picture to the next, before it is replaced.
const MAX_DRIFT: Duration = Duration::from_secs(10);

/// Pictures in a row with the same timestamp after which the camera's clock counts as stuck (P2S 01.02.00.00,
/// [`protocol`](crate::protocol#rtsps-camera)).
const STUCK: u8 = 3;

/// The number and timestamp of a packet, as players get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The RTP sequence number.
    pub sequence: u16,
    /// The RTP timestamp.
    pub timestamp: u32,
}

/// The numbering and the clock of one track.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Ticks in a second.
    rate: u32,
    /// From the camera's values to players'; `None` before the session's first packet.
    shift: Option<Shift>,
    /// The number of the next packet.
    next: u16,
    /// Players' timestamp of the last picture, and when it arrived.
    last: Option<(u32, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Shift {
    sequence: u16,
    timestamp: u32,
    /// The camera's last timestamp, unshifted.
    seen: u32,
    /// Pictures in a row that had that timestamp.
    repeated: u8,
}

impl Timeline {
    /// A track whose first packet gets the number `first`.
    pub const fn new(first: u16) -> Self {
        Self { rate: 90_000, shift: None, next: first, last: None }
    }

    /// A session with the camera begins. `rate` is the track's clock, in ticks a second.
    pub fn begin(&mut self, rate: u32) {
        self.rate = rate;
        self.shift = None;
    }

    /// The number of the next packet.
    pub const fn next(&self) -> u16 {
        self.next
    }

    /// Whether a timestamp of the camera's differs from that of the last packet.
    pub fn is_new(&self, timestamp: u32) -> bool {
        self.shift.is_none_or(|shift| shift.seen != timestamp)
    }

    /// The stamp of a packet. `begins` says that it is the first of its picture.
    pub fn stamp(&mut self, now: Instant, packet: &Packet<'_>, begins: bool) -> Stamp {
        let elapsed = self.last.map_or(0, |(_, at)| self.ticks(now.since(at)));
        let mut shift = self.shift.unwrap_or_else(|| {
            let here =
                self.last.map_or(packet.timestamp, |(last, _)| last.wrapping_add(elapsed.max(1)));
            Shift {
                sequence: self.next.wrapping_sub(packet.sequence),
                timestamp: here.wrapping_sub(packet.timestamp),
                seen: packet.timestamp,
                repeated: 0,
            }
        });
        if begins && self.shift.is_some() {
            let step = packet.timestamp.wrapping_sub(shift.seen);
            shift.repeated = if step == 0 { shift.repeated.saturating_add(1) } else { 0 };
            // A step may go back a little: pictures need not arrive in order.
            let off = step.wrapping_sub(elapsed).cast_signed().unsigned_abs();
            if shift.repeated >= STUCK || off > self.ticks(MAX_DRIFT) {
                let last = self.last.map_or(0, |(last, _)| last);
                let here = last.wrapping_add(elapsed.max(1));
                shift.timestamp = here.wrapping_sub(packet.timestamp);
            }
        }
        if begins || self.last.is_none() {
            let timestamp = packet.timestamp.wrapping_add(shift.timestamp);
            self.last = Some((timestamp, now));
        }
        shift.seen = packet.timestamp;
        self.shift = Some(shift);
        let sequence = packet.sequence.wrapping_add(shift.sequence);
        // A late packet does not set the number back.
        if sequence.wrapping_sub(self.next) < u16::MAX / 2 {
            self.next = sequence.wrapping_add(1);
        }
        Stamp { sequence, timestamp: packet.timestamp.wrapping_add(shift.timestamp) }
    }

    /// Players' timestamp for one of the camera's; `None` before the first packet, and while its clock is stuck.
    pub fn time_of(&self, timestamp: u32) -> Option<u32> {
        let shift = self.shift.filter(|shift| shift.repeated < STUCK)?;
        Some(timestamp.wrapping_add(shift.timestamp))
    }

    /// A duration in ticks, which wrap at 32 bits as timestamps do.
    fn ticks(&self, time: Duration) -> u32 {
        let ticks = time.as_micros() * u128::from(self.rate) / 1_000_000;
        (ticks & u128::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, timestamp: u32) -> Packet<'static> {
        Packet { marker: true, sequence, timestamp, ssrc: 1, payload: b"", bytes: b"" }
    }

    fn at(millis: u64) -> Instant {
        Instant::at(Duration::from_millis(millis))
    }

    #[test]
    fn a_steady_camera_keeps_its_steps() {
        let mut line = Timeline::new(100);
        line.begin(90_000);
        for number in 0..50_u16 {
            let time = u64::from(number) * 40;
            let sequence = number.wrapping_sub(10);
            let stamp = line.stamp(at(time), &packet(sequence, 7 + u32::from(number) * 3600), true);
            let timestamp = 7 + u32::from(number) * 3600;
            assert_eq!(stamp, Stamp { sequence: 100 + number, timestamp });
        }
        assert_eq!(line.next(), 150);
        assert_eq!(line.time_of(7), Some(7));
    }

    #[test]
    fn a_gap_in_the_cameras_numbers_stays_a_gap() {
        let mut line = Timeline::new(0);
        line.begin(90_000);
        assert_eq!(line.stamp(at(0), &packet(5, 0), true).sequence, 0);
        assert_eq!(line.stamp(at(40), &packet(8, 3600), true).sequence, 3);
    }

    #[test]
    fn a_restarted_camera_goes_on_without_a_gap() {
        let mut line = Timeline::new(0);
        line.begin(90_000);
        let before = line.stamp(at(1000), &packet(65_535, 4_000_000_000), true);
        line.begin(90_000);
        assert_eq!(line.time_of(1), None, "unknown before its first packet");
        let after = line.stamp(at(61_000), &packet(7, 12), true);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1));
        assert_eq!(after.timestamp, before.timestamp.wrapping_add(60 * 90_000));
        // All packets of a picture have its time, and the next picture is a step later.
        assert_eq!(line.stamp(at(61_010), &packet(8, 12), false).timestamp, after.timestamp);
        let next = line.stamp(at(61_040), &packet(9, 3612), true);
        assert_eq!(next.timestamp, after.timestamp.wrapping_add(3600));
    }

    /// Guards: bambuddy#661, bambuddy#1395: P2S wants to renegotiate, and its time stamps are
    /// stuck.
    #[test]
    fn a_stuck_clock_is_replaced_by_the_time_of_arrival() {
        let mut line = Timeline::new(0);
        line.begin(90_000);
        let mut last = None;
        for number in 0..20_u16 {
            let time = u64::from(number) * 40;
            let stamp = line.stamp(at(time), &packet(number, 5400), true);
            if u64::from(number) > u64::from(STUCK) {
                assert_eq!(Some(stamp.timestamp), last, "picture {number}");
            }
            last = Some(stamp.timestamp.wrapping_add(3600));
        }
        assert_eq!(line.time_of(5400), None, "a stuck clock maps to no time");
    }

    #[test]
    fn a_clock_that_jumps_is_replaced() {
        let mut line = Timeline::new(0);
        line.begin(90_000);
        line.stamp(at(0), &packet(0, 0), true);
        let jumped = line.stamp(at(40), &packet(1, 90_000 * 3600), true);
        assert_eq!(jumped.timestamp, 3600);
        assert_eq!(line.stamp(at(80), &packet(2, 90_000 * 3600 + 3600), true).timestamp, 7200);
        // A pause is kept: the camera's clock went on as the time of arrival did.
        let paused = line.stamp(at(60_080), &packet(3, 90_000 * 3660 + 3600), true);
        assert_eq!(paused.timestamp, 7200 + 60 * 90_000);
    }

    #[test]
    fn pictures_out_of_order_keep_their_timestamps() {
        let mut line = Timeline::new(0);
        line.begin(90_000);
        line.stamp(at(0), &packet(0, 90_000), true);
        line.stamp(at(40), &packet(1, 100_800), true);
        assert_eq!(line.stamp(at(80), &packet(2, 93_600), true).timestamp, 93_600);
    }
}
