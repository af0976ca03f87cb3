//! PandaProxy: many clients on a LAN share one connection to each service of a Bambu Lab printer.
//!
//! A printer accepts one to four connections to each of its services. This program has one of them and serves as many
//! clients as the [board] allows, each as if it were alone with the printer.
//!
//! Priorities, in this order: a print is never disturbed; clients are never told that something succeeded which did not;
//! memory stays within the budget; a misbehaving client affects no other client; speed; convenience.
//! What is known of printers and their clients is collected in [`protocol`].
//!
//! # Map
//!
//! ```text
//!   client ── accept ── tls ── drive ──► client.rs ──event──► hub.rs ──► upstream.rs ── drive ── tls ── dial ── printer
//!     ▲                                     ▲                 │   ▲             │
//!     └──────────── poll_output ◄───────────┘◄── slot, ring ──┘   └── event ────┘
//!
//!   main → limits → runtime → update → health, check → http → mqtt, chamber, rtsp, ftp, bind, ssdp, tls, trace → config → printer → session, service
//!        → memory, auth, journal, notify, peer, pictures, segment, counts, state_dir, cause → clock → board     imports only point right
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`config`] | the table of settings, and their meaning |
//! | [`runtime::launch`] | the composition root: the list of services, started over a network and a clock |
//! | [`runtime`] | everything that uses sockets or timers; nothing else uses tokio |
//! | [`tls`] | certificates and trust; nothing else uses rustls |
//! | [`mqtt`] | port 8883: reports to all clients, requests to the printer |
//! | [`chamber`] | port 6000 of A1 and P1: one stream of pictures for all viewers |
//! | [`rtsp`] | port 322 of X1, H2 and P2: one stream of packets for all players |
//! | [`ftp`] | port 990 in proxy mode: clients queue for the printer's sessions |
//! | [`bind`] | ports 3000 and 3002: which printer this is, for slicers that ask |
//! | [`ssdp`] | discovery: what the printer announces, and its announcement to slicers |
//! | [`http`] | port 8080: status page, camera pictures, health and metrics |
//! | [`runtime::files`] | data connections, and the relay of 990 and of the file tunnel on 6000 |
//! | [`printer`] | the table of models, the camera probe, and what is known about the printer |
//! | [`session`], [`service`] | the contracts of every conversation and of every service |
//! | [`memory`] | frames, rings, the memory budget and the heap limit |
//! | [`trace`] | recordings of traffic, with credentials redacted |
//! | [`auth`] | the access code, and the limiter of wrong codes |
//! | [`journal`], [`logger`], [`rejections`] | the last events; the log; rate limits for log lines |
//! | [`state_dir`] | files that survive a restart |
//! | [`pictures`] | how many pictures a viewer of a camera was sent and lost |
//! | [`counts`] | what is counted of each service: bytes, refused clients, reports, pictures |
//! | [`segment`] | a network that this machine has an address in |
//! | [`health`], [`limits`] | `pandaproxy health`, `pandaproxy --limits` |
//! | [`check`], [`cause`] | the stages of `pandaproxy check`, run by [`runtime::check`]; the catalogue of causes |
//! | [`update`] | `pandaproxy update`: a signed file takes the place of the program |
//! | [`board`], [`clock`] | the capacities of this build; points in time |
//!
//! A [`Session`](session::Session) is pure: it has no socket, no clock and never waits. [`runtime::drive`] runs every
//! session over a stream and exists once. A hub is borrowed between waits, never across one.
//!
//! Requests go through buffers of fixed size; a client is not read while they are full. Reports, pictures and packets are
//! stored once; clients hold references to them, and a slow client loses some. The two directions never wait for each
//! other, so there is no deadlock.
//!
//! # Adding a service
//!
//! 1. Its folder beside [`mqtt`], with the files `wire`, `client`, `hub`, `slot` and `upstream` as far as they apply:
//!    [`bind`] has no hub, since its clients share nothing but the [`printer`]'s status. Its row in `tests/tidy.rs`, its
//!    section in [`protocol`], and its lines in the map above.
//! 2. A file in [`runtime::services`] with its declaration (name, port, transport, start) and its
//!    [`Service`](runtime::service::Service). A service on two ports has two declarations.
//!    Its clients and transfers are shown by [`Service::describe`](service::Service::describe): the slot keeps who has it,
//!    and the label what the client calls itself.
//! 3. One line in [`runtime::launch::services`], and its lines in [`memory::budget`]; an acceptor more in
//!    [`SERVICES`](memory::budget::SERVICES).
//! 4. Its name and ports in `config/services.rs`, `Config::listening` and the texts of `config/settings.rs`, then
//!    `cargo run --example generate -- write`; its limits in [`limits`]; its log lines in `messages.rs`; in [`health`]
//!    the check of its port, if more than a connection is to be checked; in [`trace`] how it is recorded.
//! 5. Its side of the simulated printer (`tests/printer`), its tests in `tests/simulated` and `tests/program`, a target
//!    in `tests/fuzz`, its attackers in `tests/bounds`.
//!
//! # Life of a report
//!
//! 1. The kernel passes TLS records to rustls, which decrypts them **(1: decryption)** into its buffer.
//! 2. `runtime/drive.rs` reads them into the inbox of `mqtt/upstream` **(2)**, where the packet is completed: rustls
//!    gives records, MQTT needs whole packets.
//! 3. `mqtt/hub.rs` copies the payload into a [frame](memory::pool) **(3)**, because the inbox has to take the next packet.
//!    One pass over the JSON classifies it and finds addresses. `mqtt/state.rs` keeps a reference to a full report, and
//!    merges a delta into the changes since then, at the cost of the delta's size.
//! 4. Each client's ring gets a reference of 8 bytes; the positions to rewrite are in the frame's tag.
//! 5. `mqtt/client` copies head and payload into the client's outbox **(4, once a client)** and rewrites addresses:
//!    clients differ in topic and address, and several small reports leave in one TLS record.
//! 6. rustls encrypts the outbox into its send buffer **(5, once a client)**, and the kernel takes it.
//!
//! # Life of a request
//!
//! Decryption, the inbox of `mqtt/client`, a frame (so that the client can be read further while the printer is slow), the
//! outbox of `mqtt/upstream`, encryption. The payload is never changed, because firmware verifies signatures over
//! it. The client's PUBACK is sent when the printer's connection has taken the request; if that connection is lost
//! first, the client's connection is closed instead.
//!
//! # Life of a picture
//!
//! 1. rustls decrypts the camera's records **(1: decryption)**.
//! 2. `runtime/drive.rs` reads them into the inbox of `chamber/upstream.rs` **(2)**: a record may end one picture and begin
//!    the next.
//! 3. `chamber/hub.rs` appends them to the picture's [frame](memory::pool) **(3)**. A viewer's ring gets a reference of 8
//!    bytes.
//! 4. `chamber/client.rs` shows its frame ([`Output::Shared`](session::Output::Shared)), and rustls encrypts from there
//!    **(4, once a viewer)**. The head goes before it in a TLS record of its own.
//! 5. The kernel takes the records **(5, once a viewer)**.
//!
//! There are three frames more than viewers: one for the picture being received, two for the newest, and one for the
//! picture that each viewer may be in the middle of. So no viewer can cost another one a picture.
//!
//! # Life of an RTP packet
//!
//! 1. rustls decrypts the camera's records **(1: decryption)**.
//! 2. `runtime/drive.rs` reads them into the inbox of `rtsp/upstream.rs` **(2)**, where the packet is completed and parsed.
//! 3. `rtsp/hub.rs` appends it, renumbered, to a block of the picture being received **(3)**. When the picture is complete,
//!    each player's ring gets references to its blocks: no player has a part of a picture that others have not, so
//!    none is torn.
//! 4. `rtsp/client.rs` copies up to five blocks into its outbox **(4, once a player)**, with the player's own channels and
//!    sequence numbers: 16 KiB leave in one TLS record instead of one record a packet.
//! 5. rustls encrypts the outbox into its send buffer **(5, once a player)**, and the kernel takes it.
//!
//! # Life of an upload
//!
//! 1. `ftp/client.rs` parses STOR; `ftp/hub.rs` queues it until a session with the printer is free; `ftp/upstream` prepares
//!    that session (folder, type, protection, EPSV or PASV, STOR).
//! 2. The kernel passes the client's TLS records on the data connection to rustls, which decrypts them **(1)**.
//! 3. `runtime/files/transfer.rs` reads them into its one buffer **(2)**, at most 16 KiB, and reads no more before they are
//!    written: so a slow printer slows the client down.
//! 4. rustls encrypts them into its send buffer **(3)**, and the kernel takes it.
//!
//! No file is stored. The client's 226 follows the printer's.
//!
//! # Life of a relayed byte
//!
//! X1, H2 and P2 show their own certificate, so `runtime/files/relay` decrypts nothing: bytes are read into the one
//! buffer of their direction **(1)** and written from there. Control connections have 4 KiB each way, files and the
//! tunnel 16 KiB. No more is read before they are written.
//!
//! # Memory
//!
//! [`memory::budget`] has one line for each holder of memory, added up at compile time against `BOARD.memory`. Our own
//! buffers are allocated before the first client is accepted. The heap is [metered](memory::heap) and limited to the
//! budget. Memory that is not needed is not touched: frames and buffers are written no further than they are used.
//!
//! # Threads
//!
//! One thread serves. Others exist because their system calls block: the resolver for a printer that is given by
//! [name](runtime::host), the writer of a [recording](trace), the writer of the log, and for a moment the one that writes
//! the [pin](state_dir) of a printer's certificate.
#![no_std]

extern crate alloc;
extern crate std;

pub mod auth;
pub mod bind;
pub mod board;
pub mod cause;
pub mod chamber;
pub mod check;
pub mod clock;
pub mod config;
pub mod counts;
pub mod ftp;
pub mod health;
pub mod http;
pub mod journal;
pub mod limits;
pub mod logger;
pub mod memory;
#[cfg(test)]
mod messages;
pub mod mqtt;
pub mod notify;
pub mod peer;
pub mod pictures;
pub mod printer;
#[doc = include_str!("protocol.md")]
pub mod protocol {}
pub mod rejections;
pub mod rtsp;
pub mod runtime;
pub mod segment;
pub mod service;
pub mod session;
pub mod ssdp;
pub mod state_dir;
pub mod tls;
pub mod trace;
pub mod update;

#[global_allocator]
static HEAP: memory::heap::Metered = memory::heap::Metered;
