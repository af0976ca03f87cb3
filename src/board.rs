//! Capacities of this build: the board's profile, from `boards/<BOARD>/board.rs`.
//!
//! `BOARD` is an environment variable of the build; its default is `host`, which has the smallest capacities, so that
//! ordinary tests reach every limit.

use crate::memory::pool::Shape;
#[allow(unused_imports, reason = "not every board uses both units")]
use crate::memory::{KIB, MIB};

/// A board and its capacities.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// Name of the board's folder in `boards`.
    pub name: &'static str,
    /// Memory budget: most bytes that this program may allocate at once.
    pub memory: usize,
    /// Order of the cipher suites.
    pub suites: Suites,
    /// Pre-auth slots of each service: connections that have not shown the access code yet.
    pub pre_auth: usize,
    /// Pre-auth slots of each service that one address may hold.
    pub pre_auth_per_address: usize,
    /// Logged-in clients of each service.
    pub clients: Clients,
    /// Capacities of the MQTT service.
    pub mqtt: Mqtt,
    /// Capacities of the chamber camera's service.
    pub chamber: Chamber,
    /// Capacities of the RTSPS camera's service.
    pub rtsp: Rtsp,
}

/// Most clients of each service that are logged in at once.
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
    /// HTTP clients: browsers, wall displays, Home Assistant, Prometheus. A browser has up to six connections.
    pub http: usize,
}

/// Capacities of the MQTT service.
#[derive(Clone, Copy, Debug)]
pub struct Mqtt {
    /// The largest packet a client may send, in bytes.
    pub inbox: usize,
    /// Most bytes that are written to a client at once; 16 KiB fill a TLS record.
    pub outbox: usize,
    /// Reports that may wait for a client. A client with more loses them and is sent the full state instead.
    pub ring: usize,
    /// Requests of all clients that may wait for the printer.
    pub requests: usize,
    /// Frames for deltas and requests.
    pub small: Shape,
    /// Frames for full states; their size is that of the largest report accepted.
    pub large: Shape,
}

/// Capacities of the chamber camera's service.
#[derive(Clone, Copy, Debug)]
pub struct Chamber {
    /// Bytes in the largest picture that is passed on. There are three more frames of that size than viewers, because
    /// each viewer may be sent a different picture.
    pub picture: usize,
    /// Pictures that may wait for a viewer. A viewer with more loses all but the newest.
    pub ring: usize,
}

/// Capacities of the RTSPS camera's service. Its packets are kept in blocks of 3 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Rtsp {
    /// Bytes in the longest picture that is passed on, in packets of the usual size. Each player may be sent a
    /// different picture.
    pub picture: usize,
    /// Blocks that may wait for a player before it loses pictures. Half as many are kept of the pictures since the last
    /// key frame, so that a new player need not wait for the next one.
    pub ring: usize,
}

/// Order of the cipher suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suites {
    /// ChaCha20-Poly1305 first: the processor has no AES instructions (every Raspberry Pi before 5).
    ChaChaFirst,
    /// AES-GCM first: the processor has AES instructions.
    AesFirst,
}

/// The board of this build.
pub const BOARD: Board =
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/boards/", env!("BOARD"), "/board.rs"));
