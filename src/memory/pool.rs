//! Frames: payloads stored once, in buffers of two fixed sizes, and shared by any number of readers.
//!
//! [`Pool::new`] allocates all frames; nothing is allocated afterwards. A frame is free when the pool holds the only
//! reference to it, so there is no free list. There are two sizes, so that a small report does not occupy the space
//! of a full one.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::ops::Deref;

use bytes::BytesMut;

/// Bytes that an `Rc` allocates beside its content: two counts.
pub const RC_COUNTS: usize = 2 * size_of::<usize>();

/// Number and size of the frames of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of frames.
    pub count: usize,
    /// Bytes in each frame.
    pub size: usize,
}

impl Shape {
    /// Bytes that all frames of this shape allocate, each with `slot` bytes beside its content.
    pub const fn bytes(self, slot: usize) -> usize {
        self.count * (self.size + slot)
    }
}

/// A fixed set of small and large frames. Each frame has a tag: facts about its content, stored once for all
/// readers.
pub struct Pool<T = ()> {
    small: Shelf<T>,
    large: Rc<Shelf<T>>,
}

impl<T: Default> Pool<T> {
    /// Bytes that a frame allocates beside its content: the reference, its counts, its length and its tag.
    pub const FRAME_SLOT: usize = size_of::<Shared<T>>() + RC_COUNTS + size_of::<Buffer<T>>();

    /// Allocates all frames.
    pub fn new(small: Shape, large: Shape) -> Self {
        Self { small: Shelf::new(small), large: Rc::new(Shelf::new(large)) }
    }

    /// Stores the concatenated pieces in a free frame, with the default tag. `None` if no free frame is large
    /// enough.
    pub fn store(&self, pieces: &[&[u8]]) -> Option<Frame<T>> {
        self.store_tagged(pieces, T::default())
    }

    /// Stores the concatenated pieces in a free frame, with `tag`. `None` if no free frame is large enough.
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

    /// Calls `write` with a free frame of at least `len` bytes. `write` returns the number of bytes that it wrote, and
    /// the tag.
    ///
    /// `None` if no free frame is large enough, or if `write` returns `None`.
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

    /// Takes a free large frame, to be filled piece by piece with at most `len` bytes.
    ///
    /// `None` if no large frame is free, or `len` is larger than a large frame.
    pub fn begin(&self, len: usize) -> Option<Filling<T>> {
        if len > self.large.size {
            return None;
        }
        let (index, buffer) = self.large.take(len)?;
        Some(Filling { shelf: Rc::clone(&self.large), buffer, index, written: 0, len })
    }

    /// Bytes in the largest frame.
    pub fn largest(&self) -> usize {
        self.large.size
    }

    /// Numbers of small and of large frames in use.
    pub fn in_use(&self) -> (usize, usize) {
        (self.small.in_use(), self.large.in_use())
    }
}

/// A filled frame. Cloning increments a reference count and copies nothing.
pub struct Frame<T = ()>(Rc<Buffer<T>>);

impl<T> Frame<T> {
    /// The facts about the content that the writer gave.
    pub fn tag(&self) -> &T {
        &self.0.tag
    }

    /// Whether both refer to the same frame.
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

/// A frame that is being filled. Dropping the value frees the frame.
#[must_use]
pub struct Filling<T = ()> {
    shelf: Rc<Shelf<T>>,
    /// Invariant: this is the only reference to the buffer.
    buffer: Rc<Buffer<T>>,
    /// Index of the buffer in the shelf.
    index: usize,
    written: usize,
    len: usize,
}

impl<T> Filling<T> {
    /// Appends `bytes`. Returns false, and appends nothing, if that would exceed the length given to
    /// [`Pool::begin`].
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.written.saturating_add(bytes.len());
        let buffer = Rc::get_mut(&mut self.buffer);
        let room = buffer.and_then(|buffer| buffer.bytes.get_mut(self.written..end));
        let fits = end <= self.len;
        if let Some(room) = room.filter(|_| fits) {
            room.copy_from_slice(bytes);
            self.written = end;
        }
        fits
    }

    /// Ends the writing: the frame with the bytes written, and `tag`.
    pub fn finish(mut self, tag: T) -> Option<Frame<T>> {
        let buffer = Rc::get_mut(&mut self.buffer)?;
        buffer.len = self.written;
        buffer.tag = tag;
        Some(Frame(Rc::clone(&self.buffer)))
    }

    /// Whether the length given to [`Pool::begin`] was written.
    pub const fn is_full(&self) -> bool {
        self.written == self.len
    }

    /// The bytes written so far.
    pub fn written(&self) -> &[u8] {
        self.buffer.bytes.get(..self.written).unwrap_or_default()
    }
}

impl<T> Drop for Filling<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shelf.buffers.get(self.index) {
            *shared.borrow_mut() = Some(Rc::clone(&self.buffer));
        }
    }
}

/// A frame's buffer. It is allocated at the start and written no further than it is used, so that memory beyond that
/// is never touched. The buffers of one shape are one allocation: an allocator writes a header beside each
/// allocation, which would make frames of less than a page resident.
pub struct Buffer<T> {
    /// Part of the shelf's allocation. Invariant: its length is at most its first capacity, so it never
    /// reallocates.
    bytes: BytesMut,
    len: usize,
    tag: T,
}

/// The shelf's reference to a buffer; `None` while the buffer is being filled.
type Shared<T> = RefCell<Option<Rc<Buffer<T>>>>;

/// All frames of one shape.
struct Shelf<T> {
    size: usize,
    buffers: Box<[Shared<T>]>,
}

impl<T: Default> Shelf<T> {
    fn new(shape: Shape) -> Self {
        let mut rest = BytesMut::with_capacity(shape.count * shape.size);
        let mut shared = || {
            let behind = rest.split_off(shape.size);
            let bytes = core::mem::replace(&mut rest, behind);
            RefCell::new(Some(Rc::new(Buffer { bytes, len: 0, tag: T::default() })))
        };
        Self { size: shape.size, buffers: (0..shape.count).map(|_| shared()).collect() }
    }

    fn any_free(&self) -> bool {
        self.in_use() < self.buffers.len()
    }

    fn in_use(&self) -> usize {
        let in_use = |shared: &&Shared<T>| match &*shared.borrow() {
            Some(buffer) => Rc::strong_count(buffer) > 1,
            None => true,
        };
        self.buffers.iter().filter(in_use).count()
    }

    /// Takes the first free buffer out of the shelf, so that recently used memory is used again. Returns its index.
    fn take(&self, len: usize) -> Option<(usize, Rc<Buffer<T>>)> {
        for (index, shared) in self.buffers.iter().enumerate() {
            let taken = shared.borrow_mut().take_if(|buffer| Rc::strong_count(buffer) == 1);
            let Some(mut buffer) = taken else { continue };
            if let Some(free) = Rc::get_mut(&mut buffer)
                && free.bytes.len() < len
            {
                free.bytes.resize(len.min(self.size), 0);
            }
            return Some((index, buffer));
        }
        None
    }

    /// Fills the first free buffer, so that recently used memory is used again.
    fn fill(
        &self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Option<(usize, T)>,
    ) -> Option<Frame<T>> {
        for shared in &self.buffers {
            let mut shared = shared.borrow_mut();
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
    fn a_frame_is_free_again_when_its_last_reader_drops_it() {
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
    fn content_larger_than_a_frame_is_not_stored() {
        assert!(pool().store(&[&[0; 17]]).is_none());
        assert!(pool().store(&[&[0; 16]]).is_some());
    }

    #[test]
    fn a_frame_is_filled_in_pieces_and_freed_when_dropped() {
        let pool = pool();
        let mut filling = pool.begin(5).unwrap();
        assert!(pool.begin(1).is_none(), "the one large frame is in use");
        assert_eq!(pool.in_use(), (0, 1));
        for bytes in [&b"ab"[..], b"", b"cde"] {
            assert!(!filling.is_full());
            assert!(filling.append(bytes));
        }
        assert!(filling.is_full() && !filling.append(b"f"), "the length is fixed at the beginning");
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
    fn a_frame_stays_free_when_its_writer_fails() {
        let pool = pool();
        assert!(pool.fill(1, |_| None).is_none());
        assert_eq!(pool.in_use(), (0, 0));
    }
}
