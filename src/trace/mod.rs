//! Recordings: the decrypted traffic between clients, the proxy and the printer, in pcapng files for Wireshark,
//! with secrets redacted.
//!
//! ```text
//!   Stream ─ Tap ─► queue: one fixed ring of bytes ─► writer's thread: redacts ─► pcapng ─► 8 files
//!             │                                          (redact, login)        (conversation)
//!             └─ what does not fit is dropped and counted
//! ```
//!
//! Recording does not delay connections: a tap copies bytes into the queue, or counts them when it is full, and a
//! separate thread writes the files. Without a recording there are no taps, and nothing is allocated.
//!
//! Connections are recorded on both sides of the proxy, with times of a monotonic clock, as MQTT (port 1883),
//! RTSP (554), FTP (21 and the data ports) and chamber camera (6000) would look without TLS. Relayed connections
//! (`--ftp-mode relay`, the file tunnel) are not recorded: only client and printer can decrypt them. Nor are detect and HTTP.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | bytes waiting for the disk | [`RECORDING_QUEUE`] | the piece is dropped; a comment in the file says how many bytes are missing |
//! | connections recorded at once | [`RECORDED`], as many as can be served | the connection is not recorded |
//! | a camera connection | [`MAX_MEDIA`] bytes in each direction | the rest is left out; a comment at its end says how much |
//! | a transferred file | [`MAX_FILE`] bytes | the same |
//! | the directory | 8 files of equal size | the oldest is removed |

pub mod conversation;
mod files;
pub mod login;
pub mod pcapng;
mod queue;
pub mod redact;
mod writer;

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread_local;
use std::time::SystemTime;

use self::queue::{PIECE, Queue, Record, What};
use self::redact::{SHORTEST, Secrets};
use crate::clock::Instant;
use crate::journal::{self, Kind};
use crate::memory::budget::{RECORDED, RECORDING_QUEUE};

/// Bytes recorded of a camera connection in each direction: some tens of pictures.
pub const MAX_MEDIA: u64 = 1024 * 1024;

/// Bytes recorded of a transferred file or a listing.
pub const MAX_FILE: u64 = 64 * 1024;

/// How long [`stop`] waits for the queue to be written.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between log lines about dropped bytes.
const LOSS_INTERVAL: Duration = Duration::from_secs(60);

/// The protocol of a recorded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT.
    Mqtt,
    /// Chamber camera.
    Chamber,
    /// RTSP.
    Rtsp,
    /// FTP control connection.
    Ftp,
    /// FTP data connection.
    FtpData {
        /// The server's port.
        port: u16,
    },
    /// Detect, which is not recorded: a request for account binding may hold credentials in any form.
    Detect,
    /// HTTP, which is not recorded: it repeats what the other connections hold, and needs no decryption to be captured.
    Http,
}

impl Protocol {
    /// The service whose traffic it is, unless a client's connection says otherwise.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Chamber => "chamber",
            Self::Rtsp => "rtsp",
            Self::Ftp | Self::FtpData { .. } => "ftp",
            Self::Detect => "detect",
            Self::Http => "http",
        }
    }

    /// The server's port in the recording: the protocol's port without TLS.
    pub const fn port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Chamber => 6000,
            Self::Rtsp => 554,
            Self::Ftp => 21,
            Self::FtpData { port } => port,
            Self::Detect => 3000,
            Self::Http => 80,
        }
    }

    /// Bytes recorded of each direction.
    const fn limit(self) -> u64 {
        match self {
            Self::Mqtt | Self::Ftp => u64::MAX,
            Self::Chamber | Self::Rtsp => MAX_MEDIA,
            Self::FtpData { .. } => MAX_FILE,
            Self::Detect | Self::Http => 0,
        }
    }
}

/// The proxy's peer in a recorded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A client at this address.
    Client(IpAddr),
    /// The printer.
    Printer,
}

impl Party {
    const fn name(self) -> &'static str {
        match self {
            Self::Client(_) => "a client and the proxy",
            Self::Printer => "the proxy and the printer",
        }
    }
}

thread_local! {
    static RECORDER: RefCell<Option<Rc<Recorder>>> = const { RefCell::new(None) };
}

struct Recorder {
    queue: Arc<Queue>,
    start: Instant,
    /// Which slots of the writer are in use.
    taken: Box<[Cell<bool>]>,
    numbers: Cell<u32>,
    /// Bytes dropped so far.
    lost: Cell<u64>,
    /// Bytes dropped until the last log line, and when that was.
    logged: Cell<(u64, Instant)>,
}

/// Starts recording the connections of this thread, into files in `dir` of at most about `size` bytes together.
///
/// # Errors
///
/// [`StartError`]: the directory cannot be written, or the secrets are too short to be redacted.
pub fn start(
    dir: &Path,
    size: u64,
    code: &[u8],
    serial: &[u8],
    now: Instant,
) -> Result<(), StartError> {
    let secrets = Secrets::new(code, serial).ok_or(StartError::TooShort)?;
    let dir_error = |error: io::Error| StartError::Dir { dir: dir.to_path_buf(), error };
    let queue = Arc::new(Queue::new(RECORDING_QUEUE, RECORDED));
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    writer::start(dir, size, secrets, Arc::clone(&queue), began).map_err(dir_error)?;
    let recorder = Recorder {
        queue,
        start: now,
        taken: (0..RECORDED).map(|_| Cell::new(false)).collect(),
        numbers: Cell::new(0),
        lost: Cell::new(0),
        logged: Cell::new((0, now)),
    };
    RECORDER.set(Some(Rc::new(recorder)));
    Ok(())
}

/// Ends the recording. Waits until the queue is written, two seconds at most.
pub fn stop() {
    let Some(recorder) = RECORDER.take() else { return };
    recorder.log_lost();
    if !recorder.queue.close(CLOSING_TIMEOUT) {
        log::warn!(
            "recording: not all data written within 2 s; the end of the last file may be missing"
        );
    }
}

/// Logs dropped bytes, once in a minute at most. Called periodically.
pub fn handle_timeout(now: Instant) {
    RECORDER.with_borrow(|recorder| {
        if let Some(recorder) = recorder
            && now.since(recorder.logged.get().1) >= LOSS_INTERVAL
        {
            recorder.log_lost();
            recorder.logged.set((recorder.lost.get(), now));
        }
    });
}

/// Has `address` redacted in the recording from now on.
pub fn redact_address(address: IpAddr) {
    RECORDER.with_borrow(|recorder| {
        if let Some(recorder) = recorder {
            let record = Record { what: What::Address, slot: 0, at: 0, lost: 0 };
            // If the queue is full, the next connection queues the address again.
            let _fits = recorder.queue.push(record, &writer::address_bytes(address));
        }
    });
}

/// Starts recording a connection. `None` without a recording, or if the queue or all slots are full.
pub fn begin(protocol: Protocol, party: Party, now: Instant) -> Option<Tap> {
    if matches!(protocol, Protocol::Detect | Protocol::Http) {
        return None;
    }
    let recorder = RECORDER.with_borrow(Clone::clone)?;
    let slot = recorder.taken.iter().position(|taken| !taken.get())?;
    recorder.numbers.set(recorder.numbers.get().wrapping_add(1));
    let number = recorder.numbers.get();
    let record = recorder.record(What::Begin, u16::try_from(slot).ok()?, now, 0);
    if !recorder.queue.push(record, &writer::begin_bytes(protocol, party, number)) {
        log::debug!("recording: queue full; a connection is not recorded");
        return None;
    }
    recorder.taken.get(slot)?.set(true);
    let count = || Count { left: protocol.limit(), lost: 0 };
    Some(Tap {
        recorder,
        slot: record.slot,
        received: count(),
        sent: count(),
        left_out: 0,
        peer_ended: false,
        last: now,
    })
}

impl Recorder {
    const fn record(&self, what: What, slot: u16, now: Instant, lost: u64) -> Record {
        Record { what, slot, at: now.since(self.start).as_nanos() as u64, lost }
    }

    fn log_lost(&self) {
        let lost = self.lost.get() - self.logged.get().0;
        if lost > 0 {
            journal::note(Kind::NotRecorded, format_args!("{}", Lost(lost)));
        }
    }
}

/// Records the bytes of one connection, and its end on drop.
pub struct Tap {
    recorder: Rc<Recorder>,
    slot: u16,
    received: Count,
    sent: Count,
    /// Bytes beyond the limit of the protocol.
    left_out: u64,
    peer_ended: bool,
    last: Instant,
}

/// Bytes of one direction.
struct Count {
    left: u64,
    lost: u64,
}

impl Tap {
    /// Records bytes received from the peer; an empty slice is the end of its data.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        self.peer_ended |= bytes.is_empty();
        self.put(What::Received, bytes, now);
    }

    /// Records bytes sent to the peer.
    pub fn sent(&mut self, bytes: &[u8], now: Instant) {
        self.put(What::Sent, bytes, now);
    }

    fn put(&mut self, what: What, bytes: &[u8], now: Instant) {
        self.last = now;
        let Self { recorder, slot, left_out, .. } = self;
        let count = if what == What::Received { &mut self.received } else { &mut self.sent };
        let limit = usize::try_from(count.left).unwrap_or(usize::MAX);
        let (recorded, rest) = bytes.split_at(bytes.len().min(limit));
        *left_out += rest.len() as u64;
        count.left -= recorded.len() as u64;
        for piece in recorded.chunks(PIECE) {
            if recorder.queue.push(recorder.record(what, *slot, now, count.lost), piece) {
                count.lost = 0;
            } else {
                let len = piece.len() as u64;
                count.lost += len;
                recorder.lost.set(recorder.lost.get() + len);
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let Self { recorder, slot, received, sent, left_out, peer_ended, last } = self;
        let missing = *left_out + received.lost + sent.lost;
        let end = recorder.record(What::End, *slot, *last, missing);
        // Always fits while the queue is open: it reserves room for ends.
        let _room = recorder.queue.push(end, &[u8::from(*peer_ended)]);
        if let Some(taken) = recorder.taken.get(usize::from(*slot)) {
            taken.set(false);
        }
    }
}

/// Why a recording cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The directory cannot be written.
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The access code or the serial number is so short that redacting it would redact unrelated data.
    TooShort,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { dir, error } => write!(f, "cannot record in {}: {error}", dir.display()),
            Self::TooShort => write!(
                f,
                "cannot record: access code or serial number has less than {SHORTEST} characters and \
                 cannot be redacted"
            ),
        }
    }
}

impl core::error::Error for StartError {}

/// The log line about this number of dropped bytes.
struct Lost(u64);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recording: {} bytes dropped: the disk is too slow", self.0)
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let dir = StartError::Dir { dir: "/recordings".into(), error: io::ErrorKind::NotFound.into() };
    let ended =
        writer::Ended { dir: "/recordings".into(), error: io::ErrorKind::StorageFull.into() };
    let errors = [dir.to_string(), StartError::TooShort.to_string()];
    errors.into_iter().chain([Lost(512).to_string(), ended.to_string()]).collect()
}

#[cfg(test)]
mod tests;
