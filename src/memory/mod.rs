//! Memory: fixed buffers, and the budget that they add up to.
//!
//! | module | contents |
//! |---|---|
//! | [`budget`] | the sum of all allocations, computed at compile time |
//! | [`pool`] | frames: payloads that are stored once and shared by all readers |
//! | [`ring`] | a reader's queue of fixed capacity |
//! | [`slots`] | what a hub and one client's session share |
//! | [`inbox`] | input that was received and not yet parsed |
//! | [`heap`] | the global allocator, with a counter and a limit |

pub mod budget;
pub mod heap;
pub mod inbox;
pub mod pool;
pub mod ring;
pub mod slots;

/// Bytes in a KiB.
pub const KIB: usize = 1024;
/// Bytes in a MiB.
pub const MIB: usize = 1024 * KIB;
