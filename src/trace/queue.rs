//! The queue between the serving thread and the writer's: a ring of bytes of fixed size.
//!
//! The serving thread never waits for the disk: a record that does not fit is rejected, and the caller counts it.
//! Each thread holds the lock for the time of copying one piece.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of the longest record's content; longer data is divided.
pub(super) const PIECE: usize = 16 * 1024;

/// Bytes of a record's head.
const HEAD: usize = 24;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A connection begins; the content is its protocol and peer.
    Begin = 1,
    /// Bytes received from the peer.
    Received = 2,
    /// Bytes sent to the peer.
    Sent = 3,
    /// A connection has ended.
    End = 4,
    /// An address that is to be redacted.
    Address = 5,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) what: What,
    /// The connection's slot.
    pub(super) slot: u16,
    /// Time in nanoseconds since the start of the recording.
    pub(super) at: u64,
    /// Bytes dropped before this record, in its direction (at an end: in both).
    pub(super) lost: u64,
}

impl Record {
    fn to_bytes(self, len: usize) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let parts: [&[u8]; 5] = [
            &[self.what as u8, 0],
            &self.slot.to_le_bytes(),
            &u32::try_from(len).unwrap_or_default().to_le_bytes(),
            &self.at.to_le_bytes(),
            &self.lost.to_le_bytes(),
        ];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    fn from_bytes(bytes: [u8; HEAD]) -> Option<(Self, usize)> {
        let [what, _, s0, s1, l0, l1, l2, l3, rest @ ..] = bytes;
        let what = match what {
            1 => What::Begin,
            2 => What::Received,
            3 => What::Sent,
            4 => What::End,
            5 => What::Address,
            _ => return None,
        };
        let (at, lost) = rest.split_first_chunk::<8>()?;
        let lost = lost.first_chunk::<8>()?;
        let record = Self {
            what,
            slot: u16::from_le_bytes([s0, s1]),
            at: u64::from_le_bytes(*at),
            lost: u64::from_le_bytes(*lost),
        };
        Some((record, u32::from_le_bytes([l0, l1, l2, l3]) as usize))
    }
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes reserved for ends of connections, so that none is dropped.
    kept_for_ends: usize,
}

struct State {
    bytes: Box<[u8]>,
    head: usize,
    len: usize,
    /// No further record is accepted.
    closed: bool,
    /// The writer has ended.
    done: bool,
}

impl Queue {
    /// A queue of `size` bytes, allocated at once, with room reserved for the ends of `conversations`.
    pub(super) fn new(size: usize, conversations: usize) -> Self {
        let state = State {
            bytes: vec![0; size].into_boxed_slice(),
            head: 0,
            len: 0,
            closed: false,
            done: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            kept_for_ends: conversations * (HEAD + 1),
        }
    }

    /// Queues a record. Returns false if it does not fit or the queue is closed.
    pub(super) fn push(&self, record: Record, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let kept = if record.what == What::End { 0 } else { self.kept_for_ends };
        if state.closed || state.room() < HEAD + bytes.len() + kept {
            return false;
        }
        let was_empty = state.len == 0;
        state.put(&record.to_bytes(bytes.len()));
        state.put(bytes);
        drop(state);
        // The writer waits only while the queue is empty.
        if was_empty {
            self.changed.notify_all();
        }
        true
    }

    /// Takes the oldest record, if any; its content replaces that of `into`.
    pub(super) fn pop(&self, into: &mut Vec<u8>) -> Option<Record> {
        let mut state = self.lock();
        if state.len == 0 {
            return None;
        }
        let mut head = [0; HEAD];
        state.take(&mut head);
        let (record, len) = Record::from_bytes(head)?;
        into.resize(len.min(PIECE), 0);
        state.take(into);
        Some(record)
    }

    /// Waits for a record. Returns false if the queue is closed and empty.
    pub(super) fn wait(&self) -> bool {
        let state = self.lock();
        let state = self.changed.wait_while(state, |state| state.len == 0 && !state.closed);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.len > 0
    }

    /// Marks the writer as ended.
    pub(super) fn finish(&self) {
        self.lock().done = true;
        self.changed.notify_all();
    }

    /// Closes the queue and waits for the writer's end, for `within` at most. Returns whether it has ended.
    pub(super) fn close(&self, within: Duration) -> bool {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, within, |state| !state.done);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.done
    }

    /// Whether the queue is empty.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().len == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    fn put(&mut self, bytes: &[u8]) {
        let size = self.bytes.len();
        let tail = (self.head + self.len) % size;
        let (first, second) = bytes.split_at(bytes.len().min(size - tail));
        for (at, part) in [(tail, first), (0, second)] {
            if let Some(place) = self.bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
        }
        self.len += bytes.len();
    }

    fn take(&mut self, into: &mut [u8]) {
        let size = self.bytes.len();
        let len = into.len();
        let (first, second) = into.split_at_mut(len.min(size - self.head));
        for (at, part) in [(self.head, first), (0, second)] {
            if let Some(place) = self.bytes.get(at..at + part.len()) {
                part.copy_from_slice(place);
            }
        }
        self.head = (self.head + len) % size;
        self.len -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn record(what: What, slot: u16) -> Record {
        Record { what, slot, at: 5, lost: 6 }
    }

    #[test]
    fn what_comes_out_is_what_went_in_however_the_ring_turns() {
        let queue = Queue::new(HEAD * 3 + 11, 0);
        let mut bytes = Vec::new();
        for turn in 0..500_u16 {
            let bytes_in = turn.to_le_bytes();
            let len = usize::from(turn % 3);
            assert!(queue.push(record(What::Received, turn), &bytes_in[..len]));
            assert!(queue.push(record(What::Sent, turn), &bytes_in));
            for (what, len) in [(What::Received, len), (What::Sent, 2)] {
                assert_eq!(queue.pop(&mut bytes), Some(record(what, turn)));
                assert_eq!(bytes, bytes_in[..len]);
            }
            assert_eq!(queue.pop(&mut bytes), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_an_end_always_fits() {
        // An end has one byte: how it ended.
        let queue = Queue::new(4 * HEAD + 2 + 10, 2);
        assert!(!queue.push(record(What::Sent, 0), &[7; HEAD + 11]));
        assert!(queue.push(record(What::Sent, 0), &[7; HEAD + 10]));
        assert!(!queue.push(record(What::Sent, 0), &[]));
        assert!(queue.push(record(What::End, 0), &[0]));
        assert!(queue.push(record(What::End, 1), &[0]));
        assert!(!queue.push(record(What::End, 2), &[]));
    }

    #[test]
    fn closing_waits_for_the_writer_but_not_for_ever() {
        let queue = Queue::new(100, 0);
        assert!(!queue.close(Duration::from_millis(1)));
        assert!(!queue.push(record(What::Sent, 0), b"late"));
        assert!(!queue.wait());
        queue.finish();
        assert!(queue.close(Duration::ZERO));
    }
}
