//! The log: one line an event on standard error, formatted by `env_logger` and written by a thread of its own.
//!
//! A log reader may stop reading: a full pipe, a stuck journald, a terminal on hold. The thread that serves
//! must not wait for it, so a line goes into a buffer of fixed size, and only the writer thread waits. A line
//! that does not fit is dropped and counted, and the count is logged once there is room again.
//!
//! | standard error is | a line is |
//! |---|---|
//! | a terminal or a file | `2026-11-30T15:51:02Z WARN  mqtt 3 (192.168.1.7): …`, in UTC |
//! | anything else: journald, a pipe | `WARN  mqtt 3 (192.168.1.7): …`; the reader knows the time |
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | lines that wait to be written | [`LOG_BUFFER`] bytes | the new line is dropped and counted |
//! | one line | [`MAX_LINE`] bytes | it is cut at a character and ends in `…` |

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt::{self, Write as _};
use core::time::Duration;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use env_logger::Target;
use log::LevelFilter;

use crate::clock::Utc;
use crate::journal;
use crate::memory::budget::{JOURNAL, LOG_BUFFER, LOG_STACK};

/// Bytes of the longest line. A line with an error and its hint has about 300.
pub const MAX_LINE: usize = 1024;

/// Bytes that the writer thread takes from the buffer at once.
const CHUNK: usize = 2048;

/// The pause before a write is repeated to a standard error that is set non-blocking and is full.
const RETRY: Duration = Duration::from_millis(50);

const _: () =
    assert!(journal::SIZE <= JOURNAL, "the journal is larger than its line in the budget");

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the log: from here on the macros of the crate `log` write to standard error.
///
/// `verbose` adds the level `DEBUG`. A second call changes nothing.
///
/// # Errors
///
/// The system cannot start the writer thread.
pub fn start(verbose: bool) -> io::Result<()> {
    let log = LOG.get_or_init(|| Log::new(has_no_clock(&io::stderr())));
    let has_times = log.has_times;
    let started = env_logger::Builder::new()
        .filter_level(if verbose { LevelFilter::Debug } else { LevelFilter::Info })
        // rustls logs each handshake at INFO and below.
        .filter_module("rustls", LevelFilter::Warn)
        .format(move |out, record| {
            if has_times {
                write!(out, "{} ", Utc::of(SystemTime::now()))?;
            }
            writeln!(out, "{:5} {}", record.level(), record.args())
        })
        .target(Target::Pipe(Box::new(Lines(log))))
        .try_init();
    if started.is_err() {
        return Ok(());
    }
    let writer = thread::Builder::new().name("log".into()).stack_size(LOG_STACK);
    writer.spawn(|| log.write_to(&mut io::stderr())).map(drop)
}

/// Waits until each line has been written, or until `limit` is over.
pub fn flush(limit: Duration) {
    if let Some(log) = LOG.get() {
        log.flush(limit);
    }
}

/// Whether the reader of `out` does not add the time itself.
fn has_no_clock(out: &(impl IsTerminal + AsFd)) -> bool {
    let is_file = || {
        let fd = out.as_fd().try_clone_to_owned()?;
        io::Result::Ok(File::from(fd).metadata()?.is_file())
    };
    out.is_terminal() || is_file().unwrap_or(false)
}

/// Text for the log without level and time, line by line. It allocates nothing and never waits.
pub struct Raw {
    line: Line,
}

impl Raw {
    /// Nothing written yet.
    pub const fn new() -> Self {
        Self { line: Line::new() }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.line.add(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') {
                let line = core::mem::replace(&mut self.line, Line::new());
                if let Some(log) = LOG.get() {
                    log.push(&line);
                }
            }
        }
        Ok(())
    }
}

/// Lines on their way to standard error.
struct Log {
    has_times: bool,
    buffer: Mutex<Buffer>,
    /// Notified when lines come, and when lines have been written.
    changed: Condvar,
}

struct Buffer {
    /// Allocated once, with [`LOG_BUFFER`] bytes.
    bytes: VecDeque<u8>,
    /// Lines dropped since the last line that was kept.
    dropped: u32,
    /// Whether the writer thread has a chunk in hand.
    is_writing: bool,
}

impl Log {
    fn new(has_times: bool) -> Self {
        let bytes = VecDeque::with_capacity(LOG_BUFFER);
        let buffer = Mutex::new(Buffer { bytes, dropped: 0, is_writing: false });
        Self { has_times, buffer, changed: Condvar::new() }
    }

    /// The lock is held only while bytes are copied: nothing waits for long.
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &Line) {
        self.buffer().push(line);
        self.changed.notify_all();
    }

    /// Waits for lines; the number of bytes at the front of `chunk`.
    fn take(&self, chunk: &mut [u8]) -> usize {
        let mut buffer = self.buffer();
        buffer.is_writing = false;
        self.changed.notify_all();
        loop {
            let taken = buffer.take(chunk);
            if taken > 0 {
                buffer.is_writing = true;
                return taken;
            }
            buffer = self.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write_to(&self, out: &mut impl Write) {
        let mut chunk = [0; CHUNK];
        loop {
            let taken = self.take(&mut chunk);
            let mut rest = chunk.get(..taken).unwrap_or_default();
            while !rest.is_empty() {
                match out.write(rest) {
                    Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                    // Standard error is closed: nothing else could show the line.
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }

    fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut buffer = self.buffer();
        while !buffer.bytes.is_empty() || buffer.is_writing || buffer.dropped > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(buffer, left);
            (buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Takes formatted lines from `env_logger`, which writes each with one call, and never waits.
struct Lines(&'static Log);

impl Write for Lines {
    fn write(&mut self, formatted: &[u8]) -> io::Result<usize> {
        for text in formatted.utf8_chunks() {
            for text in text.valid().lines() {
                let mut line = Line::new();
                line.add(text);
                self.0.push(&line);
            }
        }
        Ok(formatted.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn push(&mut self, line: &Line) {
        let count = self.dropped_line();
        let wanted =
            line.bytes().len() + 1 + count.as_ref().map_or(0, |count| count.bytes().len() + 1);
        if self.bytes.len() + wanted > LOG_BUFFER {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.dropped = 0;
        for line in count.iter().chain([line]) {
            self.bytes.extend(line.bytes());
            self.bytes.push_back(b'\n');
        }
    }

    /// Takes bytes from the front; the count of dropped lines, if nothing else waits.
    fn take(&mut self, chunk: &mut [u8]) -> usize {
        if self.bytes.is_empty()
            && let Some(count) = self.dropped_line()
        {
            self.dropped = 0;
            self.bytes.extend(count.bytes());
            self.bytes.push_back(b'\n');
        }
        let front = self.bytes.as_slices().0;
        let len = front.len().min(chunk.len());
        for (to, from) in chunk.iter_mut().zip(front) {
            *to = *from;
        }
        self.bytes.drain(..len);
        len
    }

    fn dropped_line(&self) -> Option<Line> {
        if self.dropped == 0 {
            return None;
        }
        let mut line = Line::new();
        let _fits = write!(line, "WARN  {}", Dropped(self.dropped));
        Some(line)
    }
}

/// The log line about lines that were dropped.
struct Dropped(u32);

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log: {} lines dropped: the reader of standard error is too slow", self.0)
    }
}

/// One line, on the stack.
struct Line {
    bytes: [u8; MAX_LINE],
    /// Invariant: the first `len` bytes are UTF-8.
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Self { bytes: [0; MAX_LINE], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Adds text; when the line is full it ends in `…`.
    fn add(&mut self, text: &str) {
        const CUT: &str = "…";
        for c in text.chars() {
            let mut encoded = [0; 4];
            let encoded = c.encode_utf8(&mut encoded).as_bytes();
            if self.len + encoded.len() + CUT.len() > MAX_LINE {
                if !self.bytes().ends_with(CUT.as_bytes()) {
                    self.put(CUT.as_bytes());
                }
                return;
            }
            self.put(encoded);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text);
        Ok(())
    }
}

/// Each message of this module, once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    alloc::vec![alloc::format!("{}", Dropped(3))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn line(text: &str) -> Line {
        let mut line = Line::new();
        line.add(text);
        line
    }

    fn taken(buffer: &mut Buffer) -> String {
        let mut all = Vec::new();
        let mut chunk = [0; 100];
        loop {
            match buffer.take(&mut chunk) {
                0 => return String::from_utf8(all).unwrap(),
                len => all.extend_from_slice(&chunk[..len]),
            }
        }
    }

    fn buffer() -> Buffer {
        Buffer { bytes: VecDeque::with_capacity(LOG_BUFFER), dropped: 0, is_writing: false }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let mut buffer = buffer();
        for round in 0..200 {
            buffer.push(&line(&format!("first {round}")));
            buffer.push(&line("second"));
            assert_eq!(taken(&mut buffer), format!("first {round}\nsecond\n"));
        }
        assert_eq!(buffer.bytes.capacity(), LOG_BUFFER, "nothing more is allocated");
    }

    #[test]
    fn dropped_lines_are_counted_and_the_count_is_logged() {
        let mut buffer = buffer();
        let text = "x".repeat(99);
        for _ in 0..LOG_BUFFER / 100 + 7 {
            buffer.push(&line(&text));
        }
        assert_eq!(buffer.dropped, 7);
        let out = taken(&mut buffer);
        assert_eq!(out.lines().filter(|line| **line == text).count(), LOG_BUFFER / 100);
        assert!(out.lines().last().unwrap().contains("7 lines dropped"), "{out}");
        assert_eq!(taken(&mut buffer), "");
    }

    #[test]
    fn the_count_of_dropped_lines_precedes_the_next_line() {
        let mut buffer = buffer();
        for _ in 0..LOG_BUFFER / 100 + 3 {
            buffer.push(&line(&"x".repeat(99)));
        }
        let mut chunk = [0; 1000];
        let _ = buffer.take(&mut chunk);
        buffer.push(&line("after"));
        let out = taken(&mut buffer);
        assert!(out.ends_with(": the reader of standard error is too slow\nafter\n"), "{out}");
        assert!(out.contains(" 3 lines dropped"), "{out}");
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let cut = line(&"é".repeat(MAX_LINE));
        let text = str::from_utf8(cut.bytes()).unwrap();
        assert!(text.len() <= MAX_LINE && text.ends_with("é…"), "{text}");
    }

    #[test]
    fn a_reader_that_stops_never_stops_a_writer() {
        struct Stuck;
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                thread::park();
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        static STUCK: OnceLock<Log> = OnceLock::new();
        let log = STUCK.get_or_init(|| Log::new(false));
        thread::spawn(|| log.write_to(&mut Stuck));
        for n in 0..10_000 {
            log.push(&line(&format!("line {n}")));
        }
        log.flush(Duration::from_millis(10));
        assert!(log.buffer().dropped > 0);
    }
}
