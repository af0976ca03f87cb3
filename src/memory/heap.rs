//! The global allocator: the system's allocator with a counter and a limit.
//!
//! [`budget`](super::budget) adds up at compile time what this program allocates itself. What its libraries (rustls,
//! tokio) allocate is counted here. When the heap limit is exceeded, the process calls the function given to
//! [`on_limit_exceeded`] and aborts; a supervisor starts it again. No peer can cause that: the limit is above the
//! budget, which includes the most that all admitted peers can make the libraries hold.
//!
//! A static arena (`talc`) in place of the system's allocator was measured on an emulated Pi Zero, and not taken:
//! it made the binary 350 KiB larger, which is more than the 3 MiB of a board's binary, and saved one processor
//! tick in twenty; see `boards/README.md`.

#![allow(unsafe_code, reason = "implementing `GlobalAlloc` is unsafe")]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::alloc::System;
use std::sync::OnceLock;

/// The system's allocator, with every allocation counted against the heap limit.
pub struct Metered;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static HEAP_LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static ON_LIMIT_EXCEEDED: OnceLock<fn()> = OnceLock::new();

/// Bytes that are allocated now.
pub fn held() -> usize {
    HELD.load(Relaxed)
}

/// Most bytes that were allocated at once, since the start or [`reset_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Sets the peak to the bytes allocated now.
pub fn reset_peak() {
    PEAK.store(held(), Relaxed);
}

/// Sets the heap limit in bytes. An allocation beyond it ends the process.
pub fn set_limit(bytes: usize) {
    HEAP_LIMIT.store(bytes, Relaxed);
}

/// Sets the function that is called once before the process ends because the heap limit is exceeded. It must not
/// allocate. Only the first call of `on_limit_exceeded` has an effect.
pub fn on_limit_exceeded(report: fn()) {
    let _already = ON_LIMIT_EXCEEDED.set(report);
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
    // Without a limit from here on, so that an allocation in the report cannot end up here again.
    set_limit(usize::MAX);
    if let Some(report) = ON_LIMIT_EXCEEDED.get() {
        report();
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

    /// Other tests allocate and free at the same time, so only the total is certain, not the difference.
    #[test]
    fn allocated_bytes_are_counted() {
        let buffer = vec![0u8; 1 << 20];
        assert!(held() >= buffer.len() && peak() >= buffer.len());
    }
}
