//! What one reader still has to get: a `heapless` ring of fixed capacity.
//!
//! A writer never waits for a reader: when the ring is full the writer decides what the reader
//! loses. Nothing is allocated, ever; the ring lives inside its owner.

/// A first-in, first-out queue of at most `N` items.
pub struct Ring<T, const N: usize> {
    items: heapless::Deque<T, N>,
}

/// The ring holds `N` items; here is the one that did not fit.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T, const N: usize> Ring<T, N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self { items: heapless::Deque::new() }
    }

    /// Adds an item behind the others.
    ///
    /// # Errors
    ///
    /// [`Full`] gives the item back.
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        self.items.push_back(item).map_err(Full)
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Drops everything and says how many items that was.
    pub fn clear(&mut self) -> usize {
        let dropped = self.items.len();
        self.items.clear();
        dropped
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether one more would not fit.
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
