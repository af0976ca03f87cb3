//! TLS records, counted without decrypting them (RFC 5246 section 6.2.1, RFC 8446 section 5.1).
//!
//! A relay sees only ciphertext, but a record's header is in the clear: its type tells application data from the
//! handshake. One FTP line is one record in every client and printer that is known, so the number of records in each
//! direction tells how far a login has come.

use crate::runtime::net::PEEKED;

/// Bytes of a record's header: type, version, length.
const HEADER: usize = 5;

/// Bytes of the longest record that is not encrypted (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;

/// Record types.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Handshake message type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Counts the records of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    known: usize,
    /// Bytes of the record's body that have not come.
    body: usize,
    application: u32,
    /// A ChangeCipherSpec has come, and a handshake record after it.
    changed: bool,
    finished: bool,
}

impl Records {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self {
            header: [0; HEADER],
            known: 0,
            body: 0,
            application: 0,
            changed: false,
            finished: false,
        }
    }

    /// Counts the records that begin in the next `bytes` of the stream.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.body > 0 {
                let skipped = self.body.min(bytes.len());
                self.body -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(byte) = self.header.get_mut(self.known) {
                *byte = *first;
            }
            self.known += 1;
            bytes = rest;
            if self.known == HEADER {
                let [kind, _, _, high, low] = self.header;
                self.known = 0;
                self.body = usize::from(u16::from_be_bytes([high, low]));
                self.count(kind);
            }
        }
    }

    const fn count(&mut self, kind: u8) {
        match kind {
            CHANGE_CIPHER_SPEC => self.changed = true,
            HANDSHAKE if self.changed => self.finished = true,
            APPLICATION_DATA => self.application = self.application.saturating_add(1),
            _ => {}
        }
    }

    /// Records of application data. In TLS 1.3 the last handshake message has this type as well: in the direction of
    /// the client it is one record, which is not counted.
    pub const fn application(&self) -> u32 {
        if self.finished { self.application } else { self.application.saturating_sub(1) }
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The beginning of a ClientHello.
    Partial,
    /// A whole ClientHello.
    Complete,
    /// Not TLS.
    Invalid,
}

/// Judges the first bytes that a client sent.
pub fn hello(bytes: &[u8]) -> Hello {
    let is = |at: usize, value: u8| bytes.get(at).is_none_or(|byte| *byte == value);
    if !(is(0, HANDSHAKE) && is(1, 3) && is(HEADER, CLIENT_HELLO)) {
        return Hello::Invalid;
    }
    if bytes.len() >= PEEKED {
        // A longer ClientHello counts as complete.
        return Hello::Complete;
    }
    if let Some([high, low]) = bytes.get(3..HEADER)
        && usize::from(u16::from_be_bytes([*high, *low])) > MAX_RECORD
    {
        return Hello::Invalid;
    }
    let Some([_, a, b, c]) = bytes.get(HEADER..HEADER + 4) else { return Hello::Partial };
    if *a != 0 {
        // 64 KiB or more: rustls takes no such message.
        return Hello::Invalid;
    }
    let mut missing = 4 + usize::from(*b) * 256 + usize::from(*c);
    // The message may be split into several records.
    let mut rest = bytes;
    while missing > 0 {
        let [HANDSHAKE, 3, _, high, low, body @ ..] = rest else {
            return if rest.len() < HEADER { Hello::Partial } else { Hello::Invalid };
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = body.get(len..) else { return Hello::Partial };
        if len == 0 {
            return Hello::Invalid;
        }
        missing = missing.saturating_sub(len);
        rest = next;
    }
    Hello::Complete
}

#[cfg(test)]
pub(in crate::runtime) mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A record of `kind` with `len` bytes.
    pub(crate) fn record(kind: u8, len: usize) -> Vec<u8> {
        let mut record = vec![7; HEADER + len];
        record[..HEADER].copy_from_slice(&[kind, 3, 3, (len >> 8) as u8, len as u8]);
        record
    }

    /// A ClientHello whose last byte is `name`.
    pub(crate) fn client_hello(name: u8) -> Vec<u8> {
        let mut hello = record(HANDSHAKE, 10);
        hello[HEADER..HEADER + 4].copy_from_slice(&[CLIENT_HELLO, 0, 0, 6]);
        hello[HEADER + 9] = name;
        hello
    }

    #[test]
    fn a_client_hello_is_complete_with_its_last_byte() {
        let whole = client_hello(b'x');
        for len in 0..whole.len() {
            assert_eq!(hello(&whole[..len]), Hello::Partial, "{len} bytes");
        }
        assert_eq!(hello(&whole), Hello::Complete);
        // Split into two records.
        let mut split = record(HANDSHAKE, 5);
        split[HEADER..HEADER + 4].copy_from_slice(&[CLIENT_HELLO, 0, 0, 6]);
        assert_eq!(hello(&split), Hello::Partial);
        split.extend(record(HANDSHAKE, 5));
        assert_eq!(hello(&split), Hello::Complete);
        for other in [&b"USER bblp\r\n"[..], b"\x16\x03\x01\x00\x05\x02", b"\x17\x03\x03", b"x"] {
            assert_eq!(hello(other), Hello::Invalid, "{other:?}");
        }
    }

    #[test]
    fn application_records_are_counted_at_every_split() {
        let tls12 = [record(22, 300), record(22, 80), record(20, 1), record(22, 40)].concat();
        let tls13 = [record(22, 300), record(20, 1), record(23, 60)].concat();
        for handshake in [tls12, tls13] {
            let bytes = [handshake, record(23, 30), record(23, 0), record(21, 26), record(23, 9)];
            let bytes = bytes.concat();
            for size in [1, 2, 3, 7, 100, bytes.len()] {
                let mut records = Records::new();
                bytes.chunks(size).for_each(|chunk| records.take(chunk));
                assert_eq!(records.application(), 3, "in pieces of {size}");
            }
        }
    }
}
