//! What a peer has said that nobody has understood yet: a fixed buffer that never grows.

use alloc::vec::Vec;

/// What is made ready for one read, in bytes: memory that is never needed is never touched.
const STEP: usize = 4096;

/// A fixed buffer, filled at its end and emptied at its front.
pub struct Inbox {
    /// Invariant: never beyond the capacity it was made with.
    bytes: Vec<u8>,
    capacity: usize,
    /// Invariant: `start <= end <= bytes.len()`; both are 0 when nothing is waiting.
    start: usize,
    end: usize,
}

impl Inbox {
    /// An empty inbox for `capacity` bytes. The only allocation it ever makes.
    pub fn new(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), capacity, start: 0, end: 0 }
    }

    /// What is waiting.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Where the next bytes go; empty when the inbox is full of what is waiting.
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

    /// Counts `len` bytes, written into [`spare`](Self::spare), as waiting.
    pub fn fill(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.bytes.len());
    }

    /// Forgets the first `len` bytes of what is waiting.
    pub fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Whether there is room for more without anything being consumed first.
    pub fn has_room(&self) -> bool {
        self.start > 0 || self.end < self.capacity
    }

    /// Forgets everything.
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
    fn what_goes_in_comes_out_in_order_whatever_the_steps() {
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
