//! What is shared: frames of fixed sizes, each stored once and read by as many as like.
//!
//! All frames are made by [`Pool::new`]. A frame is free when the pool holds the only reference to
//! it: there is no free list, nothing to give back, and nothing is allocated afterwards. There are
//! two sizes, so that a hundred small reports do not each occupy the room of a full one.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::ops::Deref;

use bytes::BytesMut;

/// How many frames of which size.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Frames of this shape.
    pub count: usize,
    /// Bytes in each.
    pub size: usize,
}

impl Shape {
    /// Bytes the frames of this shape take together, each with `slot` bytes beside its content.
    pub const fn bytes(self, slot: usize) -> usize {
        self.count * (self.size + slot)
    }
}

/// A fixed set of frames, small and large. What is known about a frame's content, its tag, is stored
/// beside it, once for all readers.
pub struct Pool<T = ()> {
    small: Shelf<T>,
    large: Rc<Shelf<T>>,
}

impl<T: Default> Pool<T> {
    /// What a frame costs beyond its bytes: the reference, its counts, its length and its tag.
    pub const FRAME_SLOT: usize =
        size_of::<Place<T>>() + 2 * size_of::<usize>() + size_of::<Slot<T>>();

    /// Makes all frames there will ever be.
    pub fn new(small: Shape, large: Shape) -> Self {
        Self { small: Shelf::new(small), large: Rc::new(Shelf::new(large)) }
    }

    /// Stores the pieces, one behind the other, in a free frame that holds them.
    ///
    /// `None` when no free frame is large enough.
    pub fn store(&self, pieces: &[&[u8]]) -> Option<Frame<T>> {
        self.store_tagged(pieces, T::default())
    }

    /// The same with a tag.
    pub fn store_tagged(&self, pieces: &[&[u8]], tag: T) -> Option<Frame<T>> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        self.fill(len, |mut room| {
            for piece in pieces {
                let (here, rest) = room.split_at_mut_checked(piece.len())?;
                here.copy_from_slice(piece);
                room = rest;
            }
            Some((len, tag))
        })
    }

    /// Lets `write` fill a free frame of at least `len` bytes; it says how many it wrote, and the tag.
    ///
    /// `None` when no free frame is large enough, or when `write` gives up.
    pub fn fill(
        &self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<(usize, T)>,
    ) -> Option<Frame<T>> {
        let shelf = if len <= self.small.size && self.small.any_free() {
            &self.small
        } else if len <= self.large.size {
            &*self.large
        } else {
            return None;
        };
        shelf.fill(len, write)
    }

    /// Takes a free large frame to be filled bit by bit, with `len` bytes at most.
    ///
    /// `None` when no large frame is free, or none holds `len` bytes.
    pub fn begin(&self, len: usize) -> Option<Filling<T>> {
        if len > self.large.size {
            return None;
        }
        let (place, slot) = self.large.take(len)?;
        Some(Filling { shelf: Rc::clone(&self.large), slot, place, written: 0, len })
    }

    /// Bytes in the largest frame.
    pub fn largest(&self) -> usize {
        self.large.size
    }

    /// Frames in use: small, large.
    pub fn in_use(&self) -> (usize, usize) {
        (self.small.in_use(), self.large.in_use())
    }
}

/// A filled frame. Cloning it costs a counter, not a copy.
pub struct Frame<T = ()>(Rc<Slot<T>>);

impl<T> Frame<T> {
    /// What is known about its content.
    pub fn tag(&self) -> &T {
        &self.0.tag
    }

    /// Whether both are one and the same frame.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Frame<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Frame<T> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes.get(..self.0.len).unwrap_or_default()
    }
}

impl<T> fmt::Debug for Frame<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len)
    }
}

/// A frame that is being filled. Dropping it frees the frame.
#[must_use]
pub struct Filling<T = ()> {
    shelf: Rc<Shelf<T>>,
    /// Invariant: there is no other reference to it.
    slot: Rc<Slot<T>>,
    /// Where it is kept in the shelf.
    place: usize,
    written: usize,
    len: usize,
}

impl<T> Filling<T> {
    /// Writes these bytes behind the others; `false` when they are more than was asked for.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.written.saturating_add(bytes.len());
        let slot = Rc::get_mut(&mut self.slot);
        let room = slot.and_then(|slot| slot.bytes.get_mut(self.written..end));
        let fits = end <= self.len;
        if let Some(room) = room.filter(|_| fits) {
            room.copy_from_slice(bytes);
            self.written = end;
        }
        fits
    }

    /// The frame with what was written, and its tag.
    pub fn finish(mut self, tag: T) -> Option<Frame<T>> {
        let slot = Rc::get_mut(&mut self.slot)?;
        slot.len = self.written;
        slot.tag = tag;
        Some(Frame(Rc::clone(&self.slot)))
    }

    /// Whether as many bytes are written as were asked for.
    pub const fn is_full(&self) -> bool {
        self.written == self.len
    }

    /// What is written so far.
    pub fn written(&self) -> &[u8] {
        self.slot.bytes.get(..self.written).unwrap_or_default()
    }
}

impl<T> Drop for Filling<T> {
    fn drop(&mut self) {
        if let Some(place) = self.shelf.slots.get(self.place) {
            *place.borrow_mut() = Some(Rc::clone(&self.slot));
        }
    }
}

/// A frame's place. Its bytes are allocated at the start and written no further than they are used,
/// so that memory which is never needed is never touched. All of a shape are one allocation: an allocator
/// writes beside each one it makes, and frames of less than a page would all be resident.
pub struct Slot<T> {
    /// Its part of the shelf. Invariant: never beyond the capacity it was made with.
    bytes: BytesMut,
    len: usize,
    tag: T,
}

/// Where a frame's place is kept; `None` while it is being filled.
type Place<T> = RefCell<Option<Rc<Slot<T>>>>;

struct Shelf<T> {
    size: usize,
    slots: Box<[Place<T>]>,
}

impl<T: Default> Shelf<T> {
    fn new(shape: Shape) -> Self {
        let mut rest = BytesMut::with_capacity(shape.count * shape.size);
        let mut place = || {
            let behind = rest.split_off(shape.size);
            let bytes = core::mem::replace(&mut rest, behind);
            RefCell::new(Some(Rc::new(Slot { bytes, len: 0, tag: T::default() })))
        };
        Self { size: shape.size, slots: (0..shape.count).map(|_| place()).collect() }
    }

    fn any_free(&self) -> bool {
        self.in_use() < self.slots.len()
    }

    fn in_use(&self) -> usize {
        let in_use = |slot: &&Place<T>| match &*slot.borrow() {
            Some(slot) => Rc::strong_count(slot) > 1,
            None => true,
        };
        self.slots.iter().filter(in_use).count()
    }

    /// Takes the first free slot out of its place, so that recently used memory is used again.
    fn take(&self, len: usize) -> Option<(usize, Rc<Slot<T>>)> {
        for (place, shared) in self.slots.iter().enumerate() {
            let taken = shared.borrow_mut().take_if(|slot| Rc::strong_count(slot) == 1);
            let Some(mut slot) = taken else { continue };
            if let Some(free) = Rc::get_mut(&mut slot)
                && free.bytes.len() < len
            {
                free.bytes.resize(len.min(self.size), 0);
            }
            return Some((place, slot));
        }
        None
    }

    /// Takes the first free slot: those that were used lately are used again.
    fn fill(
        &self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<(usize, T)>,
    ) -> Option<Frame<T>> {
        for slot in &self.slots {
            let mut shared = slot.borrow_mut();
            let Some(shared) = &mut *shared else { continue };
            let Some(free) = Rc::get_mut(shared) else { continue };
            if free.bytes.len() < len {
                free.bytes.resize(len.min(self.size), 0);
            }
            let (written, tag) = write(&mut free.bytes)?;
            free.len = written.min(free.bytes.len());
            free.tag = tag;
            return Some(Frame(Rc::clone(shared)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn pool() -> Pool {
        Pool::new(Shape { count: 2, size: 4 }, Shape { count: 1, size: 16 })
    }

    #[test]
    fn a_frame_is_free_again_when_its_last_reader_lets_go() {
        let pool = pool();
        let first = pool.store(&[b"ab", b"cd"]).unwrap();
        let reader = first.clone();
        let second = pool.store(&[b"x"]).unwrap();
        assert_eq!(pool.in_use(), (2, 0));
        assert_eq!((&*first, &*second), (&b"abcd"[..], &b"x"[..]));
        drop(first);
        assert_eq!(pool.in_use(), (2, 0));
        drop(reader);
        assert_eq!(pool.in_use(), (1, 0));
    }

    #[test]
    fn small_contents_use_large_frames_when_small_ones_are_taken() {
        let pool = pool();
        let held: Vec<Frame> = (0..3).map(|_| pool.store(&[b"abc"]).unwrap()).collect();
        assert_eq!(pool.in_use(), (2, 1));
        assert!(pool.store(&[b"abc"]).is_none());
        drop(held);
        assert_eq!(pool.in_use(), (0, 0));
    }

    #[test]
    fn what_no_frame_can_hold_is_refused() {
        assert!(pool().store(&[&[0; 17]]).is_none());
        assert!(pool().store(&[&[0; 16]]).is_some());
    }

    #[test]
    fn a_frame_is_filled_bit_by_bit_and_freed_when_dropped() {
        let pool = pool();
        let mut filling = pool.begin(5).unwrap();
        assert!(pool.begin(1).is_none(), "the one large frame is taken");
        assert_eq!(pool.in_use(), (0, 1));
        for bytes in [&b"ab"[..], b"", b"cde"] {
            assert!(!filling.is_full());
            assert!(filling.append(bytes));
        }
        assert!(filling.is_full() && !filling.append(b"f"), "it takes what was asked for");
        assert_eq!(filling.written(), b"abcde");
        let frame = filling.finish(()).unwrap();
        assert_eq!((&*frame, pool.in_use()), (&b"abcde"[..], (0, 1)));
        drop(frame);
        let filling = pool.begin(16).unwrap();
        assert!(pool.begin(0).is_none());
        drop(filling);
        assert_eq!(pool.in_use(), (0, 0), "dropping it frees the frame");
        assert!(pool.begin(17).is_none());
    }

    #[test]
    fn a_writer_that_gives_up_leaves_the_frame_free() {
        let pool = pool();
        assert!(pool.fill(1, |_| None).is_none());
        assert_eq!(pool.in_use(), (0, 0));
    }
}
