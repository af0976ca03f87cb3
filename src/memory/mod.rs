//! Everything that holds bytes.
//!
//! [`budget`] adds all of it up at compile time. [`pool`] holds what is shared, [`ring`] what one
//! reader still has to get, [`slots`] what a hub and one client's session share, [`inbox`] what a peer has said that nobody has understood yet, and
//! [`heap`] meters and lids what rustls and tokio take for themselves.

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
