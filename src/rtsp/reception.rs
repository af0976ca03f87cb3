//! What has arrived of one track of the camera's, for the receiver reports that the camera expects.
//!
//! An X1C falls silent after about ten seconds without receiver reports
//! ([`protocol`](crate::protocol#rtsps-camera)).

use super::rtp::{Packet, ReceiverReport, SenderReport};
use super::wire::{Channels, write_frame};
use crate::clock::Instant;

/// One track's channels and counters.
#[derive(Clone, Copy, Default)]
pub struct Reception {
    /// The track's channels, once it is set up.
    pub channels: Option<Channels>,
    /// The SSRC of the last packet; 0 before the first one.
    source: u32,
    /// The extended highest sequence number (RFC 3550 §6.4.1).
    highest: u32,
    /// [`SenderReport::short_ntp`] of the last sender report, and when it arrived.
    report: Option<(u32, Instant)>,
}

impl Reception {
    /// Counts a packet.
    pub fn count(&mut self, packet: &Packet<'_>) {
        let before = self.highest as u16;
        let ahead = packet.sequence.wrapping_sub(before);
        if self.source != packet.ssrc {
            self.highest = u32::from(packet.sequence);
            self.source = packet.ssrc;
        } else if ahead < u16::MAX / 2 {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
        }
    }

    /// Remembers a sender report that has arrived now.
    pub const fn note_report(&mut self, report: &SenderReport, now: Instant) {
        self.report = Some((report.short_ntp(), now));
    }

    /// Writes the track's receiver report from `ssrc` as an interleaved frame. Returns its bytes; 0 if nothing
    /// has arrived, or `out` has no room.
    pub fn write_report(&self, now: Instant, ssrc: u32, out: &mut [u8]) -> usize {
        let (Some(channels), true) = (self.channels, self.source != 0) else { return 0 };
        let since = self.report.map_or(0, |(_, at)| {
            let fractions = now.since(at).as_micros() * 65_536 / 1_000_000;
            u32::try_from(fractions).unwrap_or(u32::MAX)
        });
        let last_report = self.report.map_or(0, |(ntp, _)| ntp);
        let (of, highest) = (self.source, self.highest);
        let report = ReceiverReport { ssrc, of, highest, last_report, since };
        write_frame(channels.rtcp, &report.bytes(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn packet(sequence: u16, ssrc: u32) -> Packet<'static> {
        Packet { marker: false, sequence, timestamp: 0, ssrc, payload: b"", bytes: b"" }
    }

    #[test]
    fn sequence_numbers_are_extended_over_their_wrap() {
        let mut reception = Reception::default();
        for sequence in [65_534, 65_535, 1, 0] {
            reception.count(&packet(sequence, 9));
        }
        assert_eq!(reception.highest, 0x0001_0001, "a late packet does not count back");
        reception.count(&packet(7, 10));
        assert_eq!((reception.highest, reception.source), (7, 10), "another source starts anew");
    }

    #[test]
    fn a_report_needs_channels_and_a_packet() {
        let mut reception = Reception::default();
        let mut out = [0; 256];
        let now = Instant::at(Duration::from_secs(1));
        assert_eq!(reception.write_report(now, 1, &mut out), 0);
        reception.channels = Some(Channels { rtp: 4, rtcp: 5 });
        assert_eq!(reception.write_report(now, 1, &mut out), 0);
        reception.count(&packet(3, 9));
        let len = reception.write_report(now, 1, &mut out);
        assert_eq!((out[1], &out[4..6]), (5, &b"\x81\xc9"[..]));
        assert_eq!(len, 4 + usize::from(u16::from_be_bytes([out[2], out[3]])));
        assert_eq!(reception.write_report(now, 1, &mut out[..len - 1]), 0);
    }
}
