//! The writer's thread: takes records from the queue, redacts them and writes them to the files.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::Builder;

use super::conversation::{Conversation, From};
use super::files::{BUFFER, FILES, Files};
use super::queue::{PIECE, Queue, Record, What};
use super::redact::{HELD, Secrets, Work};
use super::{Party, Protocol, pcapng};
use crate::memory::KIB;
use crate::memory::budget::{RECORDED, RECORDED_EACH, WRITER, WRITER_STACK};

/// Bytes of the patterns that are searched for: eleven patterns of at most 96 characters.
const PATTERNS: usize = 4 * KIB;

const _: () = {
    assert!(size_of::<Option<Talk>>() <= RECORDED_EACH, "more than its line in the budget");
    let in_hand = BUFFER + PIECE + 2 * (HELD + PIECE);
    assert!(in_hand + size_of::<Writer>() + PATTERNS <= WRITER, "more than its line in the budget");
};

/// Begins the first file and starts the thread. `began` is the start of the recording, since 1970.
///
/// # Errors
///
/// The directory or the first file cannot be written, or there is no thread.
pub(super) fn start(
    dir: &Path,
    size: u64,
    secrets: Secrets,
    queue: Arc<Queue>,
    began: Duration,
) -> io::Result<()> {
    let files = Files::begin(dir, size / u64::from(FILES))?;
    let mut writer = Writer {
        files,
        secrets,
        work: Work::new(PIECE),
        talks: (0..RECORDED).map(|_| None).collect(),
        began: u64::try_from(began.as_nanos()).unwrap_or_default(),
        now: 0,
        dropped: 0,
    };
    writer.begin()?;
    let place = dir.to_path_buf();
    let write = move || {
        let mut piece = Vec::with_capacity(PIECE);
        if let Err(error) = writer.write(&queue, &mut piece) {
            writer.files.cut();
            log::error!("{}", Ended { dir: place, error });
            // Later records are dropped.
            while queue.wait() {
                while queue.pop(&mut piece).is_some() {}
            }
        }
        queue.finish();
    };
    let thread = Builder::new().name("recorder".into()).stack_size(WRITER_STACK).spawn(write)?;
    // The thread ends when the queue is closed; `Queue::close` waits for that.
    drop(thread);
    Ok(())
}

/// The log line about a recording that has ended because writing failed.
pub(super) struct Ended {
    pub(super) dir: PathBuf,
    pub(super) error: io::Error,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, error } = self;
        write!(f, "recording stopped: cannot write to {}: {error}", dir.display())
    }
}

/// A connection that is being written.
struct Talk {
    conversation: Conversation,
    /// The proxy's peer: client or server.
    peer: From,
}

struct Writer {
    files: Files,
    secrets: Secrets,
    work: Work,
    talks: Box<[Option<Talk>]>,
    /// Start of the recording, in nanoseconds since 1970.
    began: u64,
    /// Time of the last record, in nanoseconds since 1970.
    now: u64,
    /// Gaps so far.
    dropped: u64,
}

impl Writer {
    fn begin(&mut self) -> io::Result<()> {
        pcapng::begin(&mut self.files, concat!("pandaproxy ", env!("PANDAPROXY_VERSION")))
    }

    /// Writes all records until the queue is closed and empty.
    fn write(&mut self, queue: &Queue, piece: &mut Vec<u8>) -> io::Result<()> {
        while queue.wait() {
            while let Some(record) = queue.pop(piece) {
                self.put(record, piece)?;
                if self.files.is_full() {
                    self.statistics()?;
                    self.files.next()?;
                    self.begin()?;
                }
            }
            self.files.complete()?;
        }
        for slot in 0..self.talks.len() {
            self.end(slot, self.now, 0, false)?;
        }
        self.statistics()?;
        self.files.complete()
    }

    fn statistics(&mut self) -> io::Result<()> {
        pcapng::statistics(&mut self.files, self.now, self.dropped)
    }

    fn put(&mut self, record: Record, bytes: &[u8]) -> io::Result<()> {
        let Record { what, slot, at, lost } = record;
        let slot = usize::from(slot);
        let at = self.began.saturating_add(at);
        if what != What::Address {
            self.now = at;
        }
        match what {
            What::Address => {
                if let Some(address) = address_from(bytes) {
                    self.secrets.address(address);
                }
                Ok(())
            }
            What::Begin => self.begins(slot, at, bytes),
            What::Received | What::Sent => {
                self.dropped += u64::from(lost > 0);
                let Self { files, secrets, work, talks, .. } = self;
                let Some(Some(talk)) = talks.get_mut(slot) else { return Ok(()) };
                let from = if what == What::Received { talk.peer } else { other(talk.peer) };
                talk.conversation.send_piece((files, secrets, work), from, at, lost, bytes)
            }
            What::End => self.end(slot, at, lost, bytes == [1]),
        }
    }

    fn begins(&mut self, slot: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some((protocol, party, number)) = begin_from(bytes) else { return Ok(()) };
        let Self { files, secrets, talks, .. } = self;
        let Some(place) = talks.get_mut(slot) else { return Ok(()) };
        let peer = match party {
            Party::Client(_) => From::Client,
            Party::Printer => From::Server,
        };
        let conversation = Conversation::begin(files, secrets, (protocol, party), number, at)?;
        *place = Some(Talk { conversation, peer });
        Ok(())
    }

    fn end(&mut self, slot: usize, at: u64, missing: u64, by_peer: bool) -> io::Result<()> {
        let Self { files, secrets, work, talks, .. } = self;
        let Some(mut talk) = talks.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        let first = if by_peer { talk.peer } else { other(talk.peer) };
        talk.conversation.end((files, secrets, work), first, at, missing)
    }
}

const fn other(end: From) -> From {
    match end {
        From::Client => From::Server,
        From::Server => From::Client,
    }
}

/// Bytes of an address in the queue.
const ADDRESS: usize = 16;

/// An address as it stands in the queue: IPv6, or IPv4-mapped.
pub(super) fn address_bytes(address: IpAddr) -> [u8; ADDRESS] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; ADDRESS] = bytes.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
}

/// The begin of a connection as it stands in the queue.
pub(super) fn begin_bytes(protocol: Protocol, party: Party, number: u32) -> [u8; 24] {
    let kind = match protocol {
        Protocol::Mqtt => 0,
        Protocol::Chamber => 1,
        Protocol::Rtsp => 2,
        Protocol::Ftp => 3,
        Protocol::FtpData { .. } => 4,
        // Never written: neither is recorded.
        Protocol::Detect | Protocol::Http => 5,
    };
    let (is_client, address) = match party {
        Party::Client(address) => (1, address),
        Party::Printer => (0, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let mut bytes = [0; 24];
    let parts: [&[u8]; 4] = [
        &[kind, is_client],
        &protocol.port().to_le_bytes(),
        &number.to_le_bytes(),
        &address_bytes(address),
    ];
    for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    bytes
}

fn begin_from(bytes: &[u8]) -> Option<(Protocol, Party, u32)> {
    let [kind, is_client, p0, p1, n0, n1, n2, n3, address @ ..] = bytes else { return None };
    let protocol = match kind {
        0 => Protocol::Mqtt,
        1 => Protocol::Chamber,
        2 => Protocol::Rtsp,
        3 => Protocol::Ftp,
        _ => Protocol::FtpData { port: u16::from_le_bytes([*p0, *p1]) },
    };
    let party =
        if *is_client == 1 { Party::Client(address_from(address)?) } else { Party::Printer };
    Some((protocol, party, u32::from_le_bytes([*n0, *n1, *n2, *n3])))
}
