//! First-in, first-out queues of fixed capacity, one for each reader.
//!
//! A writer never waits for a reader: when the ring is full, the writer decides which items the reader loses. The
//! items are stored inside the ring, so nothing is allocated.

/// A first-in, first-out queue of at most `N` items.
pub struct Ring<T, const N: usize> {
    items: heapless::Deque<T, N>,
}

/// Error of [`Ring::push`]: the ring holds `N` items already. Contains the item that did not fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T, const N: usize> Ring<T, N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self { items: heapless::Deque::new() }
    }

    /// Adds an item at the end.
    ///
    /// # Errors
    ///
    /// [`Full`], with the item, if the ring holds `N` items.
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        self.items.push_back(item).map_err(Full)
    }

    /// Takes the oldest item; `None` if the ring is empty.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Drops all items, and returns how many there were.
    pub fn clear(&mut self) -> usize {
        let dropped = self.items.len();
        self.items.clear();
        dropped
    }

    /// Passes each item, oldest first, to `keep`, which returns the items that stay. Their order does not change.
    pub fn retain(&mut self, mut keep: impl FnMut(T) -> Option<T>) {
        for _ in 0..self.items.len() {
            if let Some(item) = self.items.pop_front().and_then(&mut keep) {
                // Cannot fail: an item was just removed.
                let _fits = self.items.push_back(item);
            }
        }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether there are `N` items.
    pub fn is_full(&self) -> bool {
        self.items.is_full()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

impl<T, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retained_items_keep_their_order() {
        let mut ring = Ring::<u8, 3>::new();
        for item in [9, 0, 1, 2] {
            let _ = ring.push(item).map_err(|_| ring.pop().map(|_| ring.push(item)));
        }
        let mut removed = None;
        ring.retain(|item| {
            if item == 1 {
                removed = Some(item);
                return None;
            }
            Some(item)
        });
        assert_eq!(removed, Some(1));
        assert_eq!(ring.iter().copied().collect::<alloc::vec::Vec<_>>(), [0, 2]);
        assert_eq!(ring.push(3), Ok(()), "there is room again");
    }

    #[test]
    fn a_full_ring_gives_the_item_back_and_keeps_what_it_has() {
        let mut ring = Ring::<u8, 3>::new();
        for item in 0..3 {
            assert_eq!(ring.push(item), Ok(()));
        }
        assert!(ring.is_full());
        assert_eq!(ring.push(9), Err(Full(9)));
        assert_eq!(ring.pop(), Some(0));
        assert_eq!(ring.push(9), Ok(()));
        assert_eq!(ring.iter().copied().collect::<alloc::vec::Vec<_>>(), [1, 2, 9]);
        assert_eq!(ring.clear(), 3);
        assert!(ring.is_empty());
    }
}
