//! Reads a recording: its own reader of pcapng, which shares nothing with what writes them. It takes what
//! `pandaproxy record` writes, and no more: raw IPv4, TCP in order, times in nanoseconds.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::fs;
use std::path::Path;

/// The proxy's and the printer's addresses in recordings.
const PROXY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PRINTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Which end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// Bytes that were sent in one piece.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) by: End,
    /// From the beginning of the recording.
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
}

/// One TCP connection.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// The server's port, which tells the protocol.
    pub(crate) port: u16,
    /// Whether it is the proxy's connection to the printer.
    pub(crate) is_printers: bool,
    pub(crate) began: Duration,
    /// When it ended, and which end closed first.
    pub(crate) ended: Option<(Duration, End)>,
    pub(crate) said: Vec<Said>,
    client: (Ipv4Addr, u16),
    server: (Ipv4Addr, u16),
    next: [u32; 2],
}

impl Conversation {
    /// All bytes that an end sent.
    pub(crate) fn all(&self, by: End) -> Vec<u8> {
        self.said.iter().filter(|said| said.by == by).flat_map(|said| said.bytes.clone()).collect()
    }
}

/// The conversations of a file, in the order in which they began.
pub(crate) fn read(path: &Path) -> Vec<Conversation> {
    let file = fs::read(path).unwrap();
    let mut conversations = Vec::new();
    let (mut at, mut first) = (0, None);
    while at < file.len() {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (kind, len) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + len - 4) as usize, len, "a block says its length twice");
        match kind {
            0x0a0d_0d0a => assert_eq!(word(at + 8), 0x1a2b_3c4d, "little-endian"),
            1 => assert_eq!(word(at + 8) & 0xffff, 228, "raw IPv4"),
            6 => {
                let nanoseconds = u64::from(word(at + 12)) << 32 | u64::from(word(at + 16));
                let time = Duration::from_nanos(nanoseconds);
                let since = time.saturating_sub(*first.get_or_insert(time));
                let captured = word(at + 20) as usize;
                take(&mut conversations, since, &file[at + 28..at + 28 + captured]);
            }
            _ => {}
        }
        at += len;
    }
    // The recorder may hold bytes back: they are written later than they were sent.
    for conversation in &mut conversations {
        conversation.said.sort_by_key(|said| said.at);
    }
    part(&mut conversations);
    conversations
}

/// Time between any two events, so that the effects of the first are over before the second: in virtual time
/// they take no time, but for the timer's resolution.
const GRAIN: Duration = Duration::from_millis(2);

/// Moves all events at least this far apart, in their order.
fn part(conversations: &mut [Conversation]) {
    let mut times: Vec<&mut Duration> = Vec::new();
    for Conversation { began, ended, said, .. } in conversations {
        times.push(began);
        times.extend(said.iter_mut().map(|said| &mut said.at));
        times.extend(ended.iter_mut().map(|(at, _)| at));
    }
    times.sort_by_key(|time| **time);
    let mut earliest = Duration::ZERO;
    for time in times {
        *time = earliest.max(*time);
        earliest = *time + GRAIN;
    }
}

fn take(conversations: &mut Vec<Conversation>, at: Duration, packet: &[u8]) {
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let number = u32::from_be_bytes(packet[24..28].try_into().unwrap());
    let (from, to) = ((address(12), port(20)), (address(16), port(22)));
    let (flags, bytes) = (packet[33], &packet[40..]);
    if flags & 2 != 0 {
        if flags & 16 == 0 {
            assert!(to.0 == PROXY || (from.0 == PROXY && to.0 == PRINTER), "{from:?} to {to:?}");
            conversations.push(Conversation {
                port: to.1,
                is_printers: to.0 == PRINTER,
                began: at,
                ended: None,
                said: Vec::new(),
                client: from,
                server: to,
                next: [1; 2],
            });
        }
        return;
    }
    let is_of = |conversation: &&mut Conversation| {
        let ends = (conversation.client, conversation.server);
        ends == (from, to) || ends == (to, from)
    };
    let conversation = conversations.iter_mut().rev().find(is_of).expect("it began before");
    let by = if conversation.client == from { End::Client } else { End::Server };
    let next = &mut conversation.next[usize::from(by == End::Server)];
    assert_eq!(number, *next, "nothing is missing, and nothing comes twice");
    *next = next.wrapping_add(u32::try_from(bytes.len()).unwrap() + u32::from(flags & 1));
    if !bytes.is_empty() {
        conversation.said.push(Said { by, at, bytes: bytes.to_vec() });
    }
    if flags & 1 != 0 && conversation.ended.is_none() {
        conversation.ended = Some((at, by));
    }
}
