//! The format of recordings: pcapng, with one interface of raw IPv4 and times in nanoseconds.
//!
//! The packets are synthetic: decrypted data is written as TCP segments between synthetic addresses, with correct
//! sequence numbers and checksums, so that Wireshark reassembles the streams.
//!
//! Source: draft-ietf-opsawg-pcapng, sections 4.1 to 4.6; RFC 791, RFC 9293.

use core::net::Ipv4Addr;
use std::io::{self, Write};

/// Bytes in the longest segment's payload: what is left of an IPv4 packet of 64 KiB is never used up.
pub const MAX_PAYLOAD: usize = 32 * 1024;

/// Bytes of an IPv4 and a TCP header without options.
const HEADERS: usize = 40;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const USER_APPLICATION: u16 = 4;
const RESOLUTION: u16 = 9;
const DROPPED: u16 = 5;

/// LINKTYPE_IPV4: the packet begins with its IPv4 header.
const LINK: u16 = 228;

/// FIN, as [`Segment::flags`] has it.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// PSH.
pub const PSH: u8 = 8;
/// ACK.
pub const ACK: u8 = 16;

/// One end of a conversation, as it is called in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// IPv4 address of this end.
    pub address: Ipv4Addr,
    /// TCP port of this end.
    pub port: u16,
}

/// A segment of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The sender.
    pub from: End,
    /// The receiver.
    pub to: End,
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgement number: the next byte expected from the other end.
    pub acknowledges: u32,
    /// Some of [`FIN`], [`SYN`], [`PSH`] and [`ACK`].
    pub flags: u8,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
    /// A comment shown by Wireshark; empty for none.
    pub comment: &'a str,
}

/// Begins a file.
///
/// # Errors
///
/// Errors of `out`.
pub fn begin(out: &mut impl Write, application: &str) -> io::Result<()> {
    let body = 16 + options_len(&[application.len()]);
    block(out, SECTION, body, |out| {
        out.write_all(&0x1a2b_3c4d_u32.to_le_bytes())?;
        out.write_all(&1_u16.to_le_bytes())?;
        out.write_all(&0_u16.to_le_bytes())?;
        // The section's length is not known.
        out.write_all(&u64::MAX.to_le_bytes())?;
        option(out, USER_APPLICATION, application.as_bytes())?;
        end_of_options(out)
    })?;
    block(out, INTERFACE, 8 + options_len(&[1]), |out| {
        out.write_all(&LINK.to_le_bytes())?;
        out.write_all(&0_u16.to_le_bytes())?;
        out.write_all(&0_u32.to_le_bytes())?;
        // Resolution: 10^-9 s.
        option(out, RESOLUTION, &[9])?;
        end_of_options(out)
    })
}

/// Writes one segment.
///
/// # Errors
///
/// Errors of `out`, and [`io::ErrorKind::InvalidInput`] for a payload that is too long.
pub fn segment(out: &mut impl Write, segment: &Segment<'_>) -> io::Result<()> {
    let Segment { at, payload, comment, .. } = segment;
    let captured = HEADERS + payload.len();
    if payload.len() > MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let options = if comment.is_empty() { 0 } else { options_len(&[comment.len()]) };
    block(out, PACKET, 20 + padded(captured) + options, |out| {
        out.write_all(&0_u32.to_le_bytes())?;
        out.write_all(&halves(*at))?;
        for _captured_and_original in 0..2 {
            out.write_all(&word(captured))?;
        }
        out.write_all(&headers(segment))?;
        out.write_all(payload)?;
        pad(out, captured)?;
        if comment.is_empty() {
            return Ok(());
        }
        option(out, COMMENT, comment.as_bytes())?;
        end_of_options(out)
    })
}

/// Writes statistics: how many pieces were dropped because the disk was too slow.
///
/// # Errors
///
/// Errors of `out`.
pub fn statistics(out: &mut impl Write, at: u64, dropped: u64) -> io::Result<()> {
    block(out, STATISTICS, 12 + options_len(&[8]), |out| {
        out.write_all(&0_u32.to_le_bytes())?;
        out.write_all(&halves(at))?;
        option(out, DROPPED, &dropped.to_le_bytes())?;
        end_of_options(out)
    })
}

fn block<W: Write>(
    out: &mut W,
    kind: u32,
    body: usize,
    write: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let total = word(body + 12);
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&total)?;
    write(out)?;
    out.write_all(&total)
}

/// A time as two words, the higher one first.
fn halves(at: u64) -> [u8; 8] {
    at.rotate_left(32).to_le_bytes()
}

/// A length, all of which are far below 4 GiB.
fn word(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn pad(out: &mut impl Write, len: usize) -> io::Result<()> {
    out.write_all([0; 3].get(..padded(len) - len).unwrap_or_default())
}

fn options_len(values: &[usize]) -> usize {
    values.iter().map(|len| 4 + padded(*len)).sum::<usize>() + 4
}

fn option(out: &mut impl Write, code: u16, value: &[u8]) -> io::Result<()> {
    out.write_all(&code.to_le_bytes())?;
    out.write_all(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes())?;
    out.write_all(value)?;
    pad(out, value.len())
}

fn end_of_options(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&END_OF_OPTIONS.to_le_bytes())?;
    out.write_all(&0_u16.to_le_bytes())
}

/// Both headers, with their checksums.
fn headers(segment: &Segment<'_>) -> [u8; HEADERS] {
    let Segment { from, to, sequence, acknowledges, flags, payload, .. } = *segment;
    let len = u16::try_from(HEADERS + payload.len()).unwrap_or(u16::MAX);
    let [from_ip, to_ip] = [from.address.octets(), to.address.octets()];

    let mut ip = [0; 20];
    put(&mut ip, 0, &[0x45, 0]);
    put(&mut ip, 2, &len.to_be_bytes());
    // "Don't fragment"; time to live 64; TCP.
    put(&mut ip, 6, &[0x40, 0, 64, 6]);
    put(&mut ip, 12, &from_ip);
    put(&mut ip, 16, &to_ip);
    let sum = checksum(&[&ip]);
    put(&mut ip, 10, &sum);

    let mut tcp = [0; 20];
    put(&mut tcp, 0, &from.port.to_be_bytes());
    put(&mut tcp, 2, &to.port.to_be_bytes());
    put(&mut tcp, 4, &sequence.to_be_bytes());
    put(&mut tcp, 8, &acknowledges.to_be_bytes());
    // Data offset: five words. The largest window.
    put(&mut tcp, 12, &[0x50, flags, 0xff, 0xff]);
    let pseudo = [0, 6];
    let sum = checksum(&[&from_ip, &to_ip, &pseudo, &(len - 20).to_be_bytes(), &tcp, payload]);
    put(&mut tcp, 16, &sum);

    let mut both = [0; HEADERS];
    put(&mut both, 0, &ip);
    put(&mut both, 20, &tcp);
    both
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in into.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

/// The Internet checksum (RFC 1071). All parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u64;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let high = pair.first().copied().unwrap_or_default();
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u64::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn example<'a>(payload: &'a [u8], comment: &'a str) -> Segment<'a> {
        Segment {
            at: 0x0000_0001_0000_0002,
            from: End { address: Ipv4Addr::new(10, 0, 1, 1), port: 40_001 },
            to: End { address: Ipv4Addr::new(10, 0, 0, 1), port: 1883 },
            sequence: 7,
            acknowledges: 9,
            flags: PSH | ACK,
            payload,
            comment,
        }
    }

    #[test]
    fn a_block_says_its_length_at_both_ends_and_is_whole_words_long() {
        for len in 0..9 {
            for comment in ["", "a", "abcd"] {
                let mut out = Vec::new();
                let payload = [7; 9];
                segment(&mut out, &example(&payload[..len], comment)).unwrap();
                assert_eq!(out.len() % 4, 0);
                let total = u32::try_from(out.len()).unwrap().to_le_bytes();
                assert_eq!(out[4..8], total);
                assert_eq!(out[out.len() - 4..], total);
                assert_eq!(out[12..20], [1, 0, 0, 0, 2, 0, 0, 0], "the higher half comes first");
                assert_eq!(out[68..68 + len], payload[..len]);
            }
        }
    }

    #[test]
    fn checksums_are_right() {
        for len in [0, 1, 2, 5] {
            let payload = &[0x81, 2, 3, 4, 0xff][..len];
            let headers = headers(&example(payload, ""));
            let (ip, tcp) = headers.split_at(20);
            assert_eq!(checksum(&[ip]), [0, 0]);
            let tcp_len = u16::try_from(20 + len).unwrap().to_be_bytes();
            let all = [&ip[12..20], &[0, 6], &tcp_len[..], tcp, payload];
            assert_eq!(checksum(&all), [0, 0]);
        }
    }

    #[test]
    fn a_segment_that_is_too_long_is_refused() {
        let mut out = Vec::new();
        let most = alloc::vec![0; MAX_PAYLOAD + 1];
        segment(&mut out, &example(&most[1..], "")).unwrap();
        assert!(segment(&mut out, &example(&most, "")).is_err());
    }
}
