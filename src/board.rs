//! What this build may spend: the board's profile, from `boards/<BOARD>/board.rs`.
//!
//! `BOARD` is an environment variable of the build; without it the board is `host`, which is the
//! smallest on purpose: ordinary tests then meet every limit.

use crate::memory::pool::Shape;
#[allow(unused_imports, reason = "a board counts its memory in whichever unit suits it")]
use crate::memory::{KIB, MIB};

/// A board and its capacities.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// The folder's name.
    pub name: &'static str,
    /// The most this program may hold at once on this board, in bytes.
    pub memory: usize,
    /// Cipher suites, in the order this board can afford them.
    pub suites: Suites,
    /// Connections that have not yet said who they are, at once and for each service.
    pub pre_auth: usize,
    /// Of those, how many one address may hold.
    pub pre_auth_per_address: usize,
    /// Authenticated clients of each service.
    pub clients: Clients,
    /// What the MQTT service holds.
    pub mqtt: Mqtt,
    /// What the chamber camera's service holds.
    pub chamber: Chamber,
    /// What the RTSPS camera's service holds.
    pub rtsp: Rtsp,
}

/// Authenticated clients of each service at once.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// MQTT clients: slicers, home automation, dashboards.
    pub mqtt: usize,
    /// Viewers of the chamber camera.
    pub chamber: usize,
    /// Players of the RTSPS camera.
    pub rtsp: usize,
    /// FTP clients: slicers, file managers, home automation.
    pub ftp: usize,
}

/// What the MQTT service holds.
#[derive(Clone, Copy, Debug)]
pub struct Mqtt {
    /// The largest packet a client may send, in bytes.
    pub inbox: usize,
    /// What is written to a peer in one piece, in bytes; 16 KiB fill a TLS record.
    pub outbox: usize,
    /// Reports a client may be behind before it loses them and gets the full state instead.
    pub ring: usize,
    /// Requests on their way to the printer.
    pub requests: usize,
    /// Frames for deltas and requests.
    pub small: Shape,
    /// Frames for full states; their size is the largest report there can be.
    pub large: Shape,
}

/// What the chamber camera's service holds.
#[derive(Clone, Copy, Debug)]
pub struct Chamber {
    /// Bytes in the largest picture there can be. There are three more frames of that size than
    /// viewers: each may be in the middle of a picture of its own.
    pub picture: usize,
    /// Pictures that may wait for a viewer before it loses all but the newest.
    pub ring: usize,
}

/// What the RTSPS camera's service holds. Its packets are kept in blocks of 3 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Rtsp {
    /// Bytes in the longest picture that is shown, in packets of the usual size. Each player may be in the
    /// middle of one of its own.
    pub picture: usize,
    /// Blocks that may wait for a player before it loses pictures. Half as many are kept of what came
    /// since the last key frame, so that who comes next need not wait for another.
    pub ring: usize,
}

/// Which cipher suites go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suites {
    /// ChaCha20-Poly1305: the processor has no AES instructions (every Raspberry Pi before 5).
    ChaChaFirst,
    /// AES-GCM: the processor has AES instructions.
    AesFirst,
}

/// The board of this build.
pub const BOARD: Board =
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/boards/", env!("BOARD"), "/board.rs"));
