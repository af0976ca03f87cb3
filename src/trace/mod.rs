//! Recordings: what clients, this proxy and the printer say to each other in the clear, in files that
//! Wireshark opens, without what is secret.
//!
//! ```text
//!   Stream ─ Tap ─► queue: one fixed ring of bytes ─► writer's thread: redacts ─► pcapng ─► 8 files
//!             │                                          (redact, login)        (conversation)
//!             └─ what does not fit is dropped and counted
//! ```
//!
//! Nobody is served slower for being recorded: a tap copies what was read or written into the queue, or
//! counts it where there is no room, and a thread of its own waits for the disk. Without a recording a
//! tap is a `None`, and nothing of all this is allocated.
//!
//! Conversations are recorded on both sides of the proxy, with the times of one clock that never jumps,
//! as MQTT (1883), RTSP (554), FTP (21 and its data ports) and the chamber camera (6000) would look
//! without TLS. What is relayed with the printer's own TLS (`--ftp-mode relay`, the file tunnel) is not
//! in the clear here, and cannot be recorded.
//!
//! # Bounds
//!
//! | what | bound | past it |
//! |---|---|---|
//! | what waits for the disk | [`RECORDING_QUEUE`] bytes | the piece is dropped; the next says how many bytes are missing |
//! | conversations at once | [`RECORDED`] | as many as can be served |
//! | a camera's conversation | [`MAX_MEDIA`] bytes in each direction | the rest is left out; its end says how much |
//! | a file that is transferred | [`MAX_FILE`] bytes | the same |
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

/// Bytes of a camera's conversation that are recorded in each direction: some tens of pictures.
pub const MAX_MEDIA: u64 = 1024 * 1024;

/// Bytes that are recorded of a file or a listing.
pub const MAX_FILE: u64 = 64 * 1024;

/// How long the end of the program waits for the last of it to be written.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the log says that something is missing.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT.
    Mqtt,
    /// The chamber camera's.
    Chamber,
    /// RTSP.
    Rtsp,
    /// FTP's commands and replies.
    Ftp,
    /// What FTP transfers, on the port that was said.
    FtpData {
        /// The server's port.
        port: u16,
    },
}

impl Protocol {
    /// The server's port, as it is without TLS.
    pub const fn port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Chamber => 6000,
            Self::Rtsp => 554,
            Self::Ftp => 21,
            Self::FtpData { port } => port,
        }
    }

    /// Bytes of each direction that are recorded.
    const fn most(self) -> u64 {
        match self {
            Self::Mqtt | Self::Ftp => u64::MAX,
            Self::Chamber | Self::Rtsp => MAX_MEDIA,
            Self::FtpData { .. } => MAX_FILE,
        }
    }
}

/// Who this proxy talks to.
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
    /// Conversations that are recorded now.
    taken: Box<[Cell<bool>]>,
    numbers: Cell<u32>,
    /// Bytes that were dropped, and how many of them the log knows of.
    lost: Cell<u64>,
    said: Cell<(u64, Instant)>,
}

/// Records the conversations of this thread from `now` on, into files in `dir` of `size` bytes together.
///
/// # Errors
///
/// It cannot be recorded there, or not without showing what nobody is to see.
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
        said: Cell::new((0, now)),
    };
    RECORDER.set(Some(Rc::new(recorder)));
    Ok(())
}

/// Ends the recording of this thread's conversations; waits for the disk, two seconds at most.
pub fn stop() {
    let Some(recorder) = RECORDER.take() else { return };
    recorder.say_lost();
    if !recorder.queue.close(CLOSING_TIMEOUT) {
        log::warn!("recording: the disk is slow; the end of the last file may be missing");
    }
}

/// Looks whether there is something to say in the log. To be called now and then.
pub fn handle_timeout(now: Instant) {
    RECORDER.with_borrow(|recorder| {
        if let Some(recorder) = recorder
            && now.since(recorder.said.get().1) >= SAID_EVERY
        {
            recorder.say_lost();
            recorder.said.set((recorder.lost.get(), now));
        }
    });
}

/// An address of this network, which is not to be in a recording.
pub fn knows(address: IpAddr) {
    RECORDER.with_borrow(|recorder| {
        if let Some(recorder) = recorder {
            let record = Record { what: What::Address, slot: 0, at: 0, lost: 0 };
            // What does not fit is said again with the next connection.
            let _fits = recorder.queue.push(record, &writer::address_bytes(address));
        }
    });
}

/// Records a conversation that begins. `None` if nothing is recorded.
pub fn begin(protocol: Protocol, party: Party, now: Instant) -> Option<Tap> {
    let recorder = RECORDER.with_borrow(Clone::clone)?;
    let slot = recorder.taken.iter().position(|taken| !taken.get())?;
    recorder.numbers.set(recorder.numbers.get().wrapping_add(1));
    let number = recorder.numbers.get();
    let record = recorder.record(What::Begin, u16::try_from(slot).ok()?, now, 0);
    if !recorder.queue.push(record, &writer::begin_bytes(protocol, party, number)) {
        log::debug!("recording: no room for a conversation that begins");
        return None;
    }
    recorder.taken.get(slot)?.set(true);
    let count = || Count { left: protocol.most(), lost: 0 };
    Some(Tap {
        recorder,
        slot: record.slot,
        heard: count(),
        said: count(),
        left_out: 0,
        peer_ended: false,
        last: now,
    })
}

impl Recorder {
    const fn record(&self, what: What, slot: u16, now: Instant, lost: u64) -> Record {
        Record { what, slot, at: now.since(self.start).as_nanos() as u64, lost }
    }

    fn say_lost(&self) {
        let lost = self.lost.get() - self.said.get().0;
        if lost > 0 {
            journal::note(
                Kind::NotRecorded,
                format_args!(
                    "recording: {lost} bytes are missing, which came faster than files are written"
                ),
            );
        }
    }
}

/// Where the bytes of one conversation are recorded. Its end is, too: when it is dropped.
pub struct Tap {
    recorder: Rc<Recorder>,
    slot: u16,
    heard: Count,
    said: Count,
    /// Bytes beyond what is recorded of such a conversation.
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
    /// The peer has said this; nothing is its end.
    pub fn heard(&mut self, bytes: &[u8], now: Instant) {
        self.peer_ended |= bytes.is_empty();
        self.put(What::Heard, bytes, now);
    }

    /// The peer was told this.
    pub fn said(&mut self, bytes: &[u8], now: Instant) {
        self.put(What::Said, bytes, now);
    }

    fn put(&mut self, what: What, bytes: &[u8], now: Instant) {
        self.last = now;
        let Self { recorder, slot, left_out, .. } = self;
        let count = if what == What::Heard { &mut self.heard } else { &mut self.said };
        let most = usize::try_from(count.left).unwrap_or(usize::MAX);
        let (recorded, rest) = bytes.split_at(bytes.len().min(most));
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
        let Self { recorder, slot, heard, said, left_out, peer_ended, last } = self;
        let missing = *left_out + heard.lost + said.lost;
        let end = recorder.record(What::End, *slot, *last, missing);
        // There is always room for it, unless the recording is over.
        let _room = recorder.queue.push(end, &[u8::from(*peer_ended)]);
        if let Some(taken) = recorder.taken.get(usize::from(*slot)) {
            taken.set(false);
        }
    }
}

/// Why nothing is recorded.
#[derive(Debug)]
pub enum StartError {
    /// It cannot be written there.
    Dir {
        /// Where.
        dir: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The access code or the serial number is so short that blotting it would redact everything else.
    TooShort,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { dir, error } => write!(f, "cannot record in {}: {error}", dir.display()),
            Self::TooShort => write!(
                f,
                "cannot record: an access code or a serial number of less than {SHORTEST} characters \
                 cannot be redacted"
            ),
        }
    }
}

impl core::error::Error for StartError {}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    let dir = StartError::Dir { dir: "/recordings".into(), error: io::ErrorKind::NotFound.into() };
    alloc::vec![dir.to_string(), StartError::TooShort.to_string()]
}

#[cfg(test)]
mod tests;
