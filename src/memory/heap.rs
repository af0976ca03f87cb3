//! The heap that rustls and tokio take what they need from: metered, with a lid.
//!
//! What this program holds itself is proved by [`budget`](super::budget). What its libraries hold is
//! counted here, by the global allocator. Past the lid the process ends at once, after writing what
//! its [last words](on_limit_exceeded) are; a supervisor starts it again. The lid is out of a peer's reach: it
//! lies above the budget, which counts the worst that every admitted peer can cause.

#![allow(unsafe_code, reason = "a global allocator cannot be had without")]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::alloc::System;
use std::sync::OnceLock;

/// The system's allocator, counted.
pub struct Metered;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static HEAP_LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static LAST_WORDS: OnceLock<fn()> = OnceLock::new();

/// Bytes held now.
pub fn held() -> usize {
    HELD.load(Relaxed)
}

/// The most bytes ever held at once.
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Forgets the peak, so that the next one can be seen.
pub fn reset_peak() {
    PEAK.store(held(), Relaxed);
}

/// From now on the process ends when it would hold more than `bytes`.
pub fn set_limit(bytes: usize) {
    HEAP_LIMIT.store(bytes, Relaxed);
}

/// What to do when the lid is reached, before the process ends. It must not allocate.
///
/// The first call counts; later ones are ignored.
pub fn on_limit_exceeded(last_words: fn()) {
    let _already = LAST_WORDS.set(last_words);
}

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if held > PEAK.load(Relaxed) {
        PEAK.store(held, Relaxed);
        if held > HEAP_LIMIT.load(Relaxed) {
            end();
        }
    }
}

fn give_back(bytes: usize) {
    HELD.fetch_sub(bytes, Relaxed);
}

#[cold]
fn end() {
    // The last words may format numbers, which allocates nothing; should they allocate all the
    // same, there is no second end.
    set_limit(usize::MAX);
    if let Some(last_words) = LAST_WORDS.get() {
        last_words();
    }
    std::process::abort();
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory
// but its own atomics.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as for `alloc`. Passed on, so that a large buffer costs no page until it is used.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: `at` came from `alloc` with this layout, by the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        give_back(layout.size());
        // SAFETY: as for `alloc` and `dealloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Other tests run in this process at the same time, and give back what they took before this
    /// one began: only what is held in all can be said, not what was added.
    #[test]
    fn what_is_taken_is_counted() {
        let buffer = vec![0u8; 1 << 20];
        assert!(held() >= buffer.len() && peak() >= buffer.len());
    }
}
