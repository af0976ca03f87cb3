//! Input that was received and not yet parsed: a buffer of fixed capacity.

use alloc::vec::Vec;

/// Bytes by which the buffer is extended for a read, so that memory beyond what is used is never touched.
const STEP: usize = 4096;

/// A buffer of fixed capacity, filled at its end and emptied at its front.
pub struct Inbox {
    /// Invariant: its length is at most `capacity`, so it never reallocates.
    bytes: Vec<u8>,
    capacity: usize,
    /// Invariant: `start <= end <= bytes.len()`; both are 0 when no input is waiting.
    start: usize,
    end: usize,
}

impl Inbox {
    /// Allocates an empty inbox for `capacity` bytes. Nothing is allocated later.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), capacity, start: 0, end: 0 }
    }

    /// The input that is waiting to be parsed.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The free space for the next read; empty if the inbox is full of waiting input.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.capacity && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < STEP {
            self.bytes.resize((self.end + STEP).min(self.capacity), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Adds the first `len` bytes of [`spare`](Self::spare) to the waiting input.
    pub fn fill(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.bytes.len());
    }

    /// Removes the first `len` bytes of the waiting input.
    pub fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Whether [`spare`](Self::spare) has room for at least one byte.
    pub fn has_room(&self) -> bool {
        self.start > 0 || self.end < self.capacity
    }

    /// Removes all input.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, bytes: &[u8]) -> usize {
        let spare = inbox.spare();
        let len = bytes.len().min(spare.len());
        spare[..len].copy_from_slice(&bytes[..len]);
        inbox.fill(len);
        len
    }

    #[test]
    fn bytes_come_out_in_order_whatever_the_step() {
        for step in 1..=7 {
            let mut inbox = Inbox::new(8);
            let mut next = 0u8;
            let mut seen = 0u8;
            while seen < 200 {
                while next < 200 && inbox.waiting().len() < step && put(&mut inbox, &[next]) == 1 {
                    next += 1;
                }
                let taken = inbox.waiting().len().min(step);
                for at in 0..taken {
                    assert_eq!(inbox.waiting()[at], seen + at as u8, "step {step}");
                }
                seen += taken as u8;
                inbox.consume(taken);
            }
        }
    }

    #[test]
    fn a_full_inbox_has_room_again_after_one_consumed_byte() {
        let mut inbox = Inbox::new(4);
        assert_eq!(put(&mut inbox, b"abcdef"), 4);
        assert!(!inbox.has_room());
        assert!(inbox.spare().is_empty());
        inbox.consume(1);
        assert!(inbox.has_room());
        assert_eq!(inbox.spare().len(), 1);
        assert_eq!(inbox.waiting(), b"bcd");
    }
}
