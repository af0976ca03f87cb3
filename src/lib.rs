//! PandaProxy: many clients on a LAN share a Bambu Lab printer's few connections.
//!
//! A printer has room for one to four connections at each of its services. This program has **one** of
//! them for each service and serves any number of clients, up to a bound of the board's, as if each of
//! them were alone with the printer.
//!
//! What matters, most first: that no print suffers; that clients are told the truth; that memory is what
//! was said; that a bad client is nobody's trouble but its own; speed; comfort.
//!
//! # The map
//!
//! ```text
//!      client ─ listen ─ tls ─ drive ─► svc::client ─event─► svc::hub ─► svc::upstream ─ drive ─ tls ─ dial ─ printer
//!         ▲                                  ▲                 │   ▲               │
//!         └────────── poll_output ◄──────────┘◄── slot, ring ──┘   └──── event ────┘
//!
//!      main → runtime → services → session → memory, auth, clock → board        imports only point right
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`runtime`] | whatever touches a socket or a timer; nothing else uses tokio |
//! | [`tls`] | certificates, and who is trusted; nothing else uses rustls |
//! | [`mqtt`] | port 8883: reports fanned out, requests forwarded |
//! | [`chamber`] | port 6000 of A1 and P1: one stream of pictures for all viewers |
//! | [`rtsp`] | port 322 of X1, H2 and P2: one stream of packets for all players |
//! | [`printer::camera`] | which camera a printer has, found out by asking on 6000 and 322 |
//! | [`ftp`] | port 990: the printer's files, its sessions shared by queueing |
//! | [`runtime::files::relay`], [`runtime::files::relay_ports`] | 990 and 6000 of X1, H2, P2: bytes as they are |
//! | [`trace`] | recordings of what is said, without what is secret |
//! | [`session`] | the contract of every conversation, whatever its protocol |
//! | [`state_dir`] | files that survive a restart: keys, certificates, pins |
//! | [`memory`] | everything that holds bytes, and the sum of it |
//! | [`health`] | asks the services of a running proxy whether they answer |
//! | [`config`], [`auth`], [`journal`], [`logger`] | what was asked for; who may come in; what happened lately |
//! | [`printer::model`] | what a serial number says about the printer |
//! | [`board`], [`clock`] | what this build may spend; moments without a date |
//!
//! A client's request is handed on towards the printer through places of fixed size, and its client is
//! not read while they are full. The other way nothing waits: a report or a picture is kept once, readers
//! have references to it, and one that is slow loses some. So no circle of waiting can come about.
//!
//! A [`Session`](session::Session) is pure: no socket, no clock, no wait. [`runtime::drive`] runs any
//! of them over any stream and is written once. A hub is borrowed between waits, never across one.
//!
//! # Life of a report: every copy
//!
//! 1. The kernel hands TLS records to rustls, which decrypts them **(1: decryption)** into its buffer.
//! 2. `drive` reads them into the upstream's inbox **(2)**, where the packet is put together: rustls
//!    gives records, MQTT needs whole packets.
//! 3. The hub stores the payload in a [frame](memory::pool) **(3)**, since the inbox has to take the next
//!    packet while clients are still being served. One pass over the JSON says what it is and where
//!    it names an address. The state keeps a reference to a full report; a delta is merged into what
//!    has changed so far, which costs its own size, not the state's.
//! 4. Each reader's ring gets a reference of 8 bytes; the places to rewrite stand in the frame's tag.
//! 5. Each reader's session copies head and payload into its outbox **(4, once a reader)**, rewriting
//!    addresses on the way: readers differ in topic and address, and several small reports leave in
//!    one TLS record.
//! 6. rustls encrypts the outbox into its send buffer **(5, once a reader)** and the kernel takes it.
//!
//! # Life of a request: every copy
//!
//! Decryption, the client's inbox, a frame (so that the client can be read further while the printer
//! is slow), the upstream's outbox, encryption. The bytes of the payload are never changed: firmware
//! checks signatures over them. The client's PUBACK leaves when the printer's connection has taken the
//! request; if that connection is lost first, the client's is closed instead.
//!
//! # Life of a picture: every copy
//!
//! 1. rustls decrypts the camera's records **(1: decryption)**.
//! 2. `drive` reads them into the upstream's inbox **(2)**, because a record knows nothing of pictures:
//!    one may end and the next begin in it.
//! 3. The hub appends them to the picture's [frame](memory::pool) **(3)**, where the picture stays. No
//!    inbox ever holds a whole one. A viewer's ring gets a reference of 8 bytes.
//! 4. Each viewer's session shows its frame ([`Output::Shared`](session::Output::Shared)), and rustls
//!    takes it from there into records and encrypts them in place **(4, once a viewer)**: each viewer
//!    has keys of its own. There is no outbox between. The head goes before it in a record of its own.
//! 5. The kernel takes the records **(5, once a viewer)**.
//!
//! There are three frames more than viewers: one for the picture that comes, two for the newest, and
//! one for the picture that each viewer may be in the middle of. So no viewer can cost another one a
//! picture, however long it takes, and nothing has to be taken away from anybody.
//!
//! # Life of a packet of the RTSPS camera: every copy
//!
//! 1. rustls decrypts the camera's records **(1: decryption)**.
//! 2. `drive` reads them into the upstream's inbox **(2)**, where the packet becomes whole: records and
//!    packets know nothing of each other.
//! 3. The hub appends it, renumbered, to a block of the picture that comes **(3)**. When the picture is
//!    whole each player's ring gets references to its blocks. No player ever has a part of a picture that
//!    others have not: that is why none is torn, whoever is slow or dies.
//! 4. Each player's session copies up to five blocks into its outbox **(4, once a player)**, where channels and
//!    numbers become its own: 16 KiB then leave in one record, in place of a record a packet.
//! 5. rustls encrypts the outbox into its send buffer **(5, once a player)** and the kernel takes it.
//!
//! # Life of an upload: every copy
//!
//! 1. The kernel hands the client's TLS records to rustls, which decrypts them **(1)** into its buffer.
//! 2. The mover reads them into its one buffer **(2)**, at most 16 KiB, and reads no more before they
//!    are gone: that is how a slow printer slows the client down.
//! 3. rustls encrypts them into its send buffer **(3)** and the kernel takes it.
//!
//! No file is stored. The client's 226 is the printer's, and comes after it.
//!
//! # Life of a relayed byte: every copy
//!
//! X1, H2 and P2 are met with their own certificate, so [`runtime::files::relay`] decrypts nothing: the kernel's
//! bytes are read into the one buffer of their direction **(1)** and written from there. Commands have 4 KiB
//! each way, files and the tunnel on port 6000 have 16 KiB. No more is read before they are gone. `splice`
//! would save that copy and was measured; the module says why it is not used.
//!
//! # Memory
//!
//! [`memory::budget`] has one line for each holder of bytes, added up at compile time against
//! `BOARD.memory`. What is ours is allocated before the first client is let in. What rustls and tokio
//! allocate is [metered](memory::heap) and has a lid. Memory that is not needed is not touched: frames
//! and buffers are written no further than they are used, first-fit, by the worker that came back last.
//!
//! There is one thread, with two exceptions, both for who knows no other way than to block. A printer
//! that is given by name is looked up by the system's resolver, on a thread that ends after it. And a
//! [recording](trace) is brought to its files by a thread of its own: a memory card may take a second for
//! a write, and nobody is to wait for it. Between the two is one ring of bytes.
#![no_std]

extern crate alloc;
extern crate std;

pub mod auth;
pub mod board;
pub mod chamber;
pub mod clock;
pub mod config;
pub mod ftp;
pub mod health;
pub mod journal;
pub mod limits;
pub mod logger;
pub mod memory;
#[cfg(test)]
mod messages;
pub mod mqtt;
pub mod notify;
pub mod peer;
pub mod printer;
#[doc = include_str!("protocol.md")]
pub mod protocol {}
pub mod rtsp;
pub mod runtime;
pub mod session;
pub mod state_dir;
pub mod tls;
pub mod trace;

#[global_allocator]
static HEAP: memory::heap::Metered = memory::heap::Metered;
