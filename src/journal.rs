//! The last events, and a count of each kind of event since the start.
//!
//! A log may be lost: it scrolls away, and a board with a read-only card keeps none. The journal holds the
//! last [`EVENTS`] events in memory and one count for each [`Kind`]. It is printed on SIGUSR1 and when the
//! heap limit is exceeded.
//!
//! Events have monotonic times, to the second, and become dates when they are printed, by what the system's clock says
//! then: a clock that was set after an event (a board without a battery starts in 1970) dates it right.
//!
//! It belongs to the thread that serves, and all its memory is allocated before that thread starts. Neither
//! [`record`] nor [`write_to`] allocates, so both work when the heap limit is exceeded.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | events | [`EVENTS`] | the oldest is dropped; its kind stays counted |
//! | one event's text | [`TEXT`] bytes | it is cut at a character and ends in `…` |
//! | a count | `u32::MAX` | it stays there |

use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;
use std::time::SystemTime;

use log::Level;

use crate::clock::{Instant, Utc};

/// Events kept: a few minutes of a busy proxy.
pub const EVENTS: usize = 64;

/// Bytes of one event's text: service, session number, address and event fit.
pub const TEXT: usize = 120;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service listens.
    Started,
    /// A service runs without a port that another program has.
    PortInUse,
    /// A client logged in.
    Admitted,
    /// A client disconnected.
    Left,
    /// A client was rejected because a limit was reached.
    Refused,
    /// A client sent a wrong access code or user name.
    WrongCode,
    /// An origin was locked out after several wrong codes.
    LockedOut,
    /// A client sent data that is invalid in its protocol.
    Malformed,
    /// A client sent a message larger than its inbox.
    TooLong,
    /// A write to a client timed out.
    Stuck,
    /// A client was disconnected or resynchronised because it read too slowly.
    Lagged,
    /// A client timed out before or after its login.
    Silent,
    /// A connection to the printer is ready.
    PrinterUp,
    /// A connection to the printer ended.
    PrinterLost,
    /// The printer did not accept the access code.
    PrinterRefused,
    /// The printer's certificate was rejected.
    PrinterUntrusted,
    /// A request was forwarded to the printer.
    RequestForwarded,
    /// A request was not delivered, and its sender was disconnected.
    RequestRefused,
    /// A client asked for something that is not served, and got no answer.
    RequestIgnored,
    /// A report could not be parsed and was forwarded unchanged.
    ReportOdd,
    /// A report larger than any frame was skipped.
    ReportTooLong,
    /// No frame was free for a report; its readers were resynchronised.
    NoFrame,
    /// The printer accepts the subscription and sends no report.
    PrinterMute,
    /// The camera probe has a result.
    CameraFound,
    /// The printer was asked what it is.
    Detected,
    /// A health check was answered.
    Checked,
    /// The camera sent data that is not a picture; it was skipped.
    PictureDamaged,
    /// A picture larger than any frame was skipped.
    PictureTooLong,
    /// The printer was discovered, or is announced.
    Discovery,
    /// An announcement contradicts what is known, or the printer cannot be announced.
    DiscoveryConflict,
    /// A file or a listing was transferred completely.
    Transferred,
    /// The transfer of a file or a listing failed.
    TransferFailed,
    /// Part of a recording is missing, or recording failed.
    NotRecorded,
    /// The heap limit was exceeded; the process ends.
    HeapLimitExceeded,
    /// The program shuts down.
    Stopping,
}

impl Kind {
    /// Every kind, in the order in which they are printed.
    pub const ALL: [Self; 35] = [
        Self::Started,
        Self::PortInUse,
        Self::Admitted,
        Self::Left,
        Self::Refused,
        Self::WrongCode,
        Self::LockedOut,
        Self::Malformed,
        Self::TooLong,
        Self::Stuck,
        Self::Lagged,
        Self::Silent,
        Self::PrinterUp,
        Self::PrinterLost,
        Self::PrinterRefused,
        Self::PrinterUntrusted,
        Self::RequestForwarded,
        Self::RequestRefused,
        Self::RequestIgnored,
        Self::ReportOdd,
        Self::ReportTooLong,
        Self::NoFrame,
        Self::PrinterMute,
        Self::CameraFound,
        Self::Detected,
        Self::Checked,
        Self::PictureDamaged,
        Self::PictureTooLong,
        Self::Discovery,
        Self::DiscoveryConflict,
        Self::Transferred,
        Self::TransferFailed,
        Self::NotRecorded,
        Self::HeapLimitExceeded,
        Self::Stopping,
    ];

    /// Its name in the printed journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::PortInUse => "port in use",
            Self::Admitted => "admitted",
            Self::Left => "left",
            Self::Refused => "refused",
            Self::WrongCode => "wrong code",
            Self::LockedOut => "locked out",
            Self::Malformed => "malformed",
            Self::TooLong => "too long",
            Self::Stuck => "stuck",
            Self::Lagged => "lagged",
            Self::Silent => "silent",
            Self::PrinterUp => "printer up",
            Self::PrinterLost => "printer lost",
            Self::PrinterRefused => "printer refused",
            Self::PrinterUntrusted => "printer untrusted",
            Self::RequestForwarded => "request forwarded",
            Self::RequestRefused => "request refused",
            Self::RequestIgnored => "request ignored",
            Self::ReportOdd => "report not parsed",
            Self::ReportTooLong => "report too long",
            Self::NoFrame => "no frame",
            Self::PrinterMute => "printer sends no reports",
            Self::CameraFound => "camera found",
            Self::Detected => "printer detected",
            Self::Checked => "health checked",
            Self::PictureDamaged => "picture damaged",
            Self::PictureTooLong => "picture too long",
            Self::Discovery => "discovery",
            Self::DiscoveryConflict => "discovery conflict",
            Self::Transferred => "transferred",
            Self::TransferFailed => "transfer failed",
            Self::NotRecorded => "not recorded",
            Self::HeapLimitExceeded => "heap limit exceeded",
            Self::Stopping => "stopping",
        }
    }

    /// The level of its log line.
    pub const fn level(self) -> Level {
        match self {
            Self::PrinterRefused | Self::PrinterUntrusted | Self::HeapLimitExceeded => Level::Error,
            Self::PortInUse
            | Self::Refused
            | Self::WrongCode
            | Self::LockedOut
            | Self::Malformed
            | Self::TooLong
            | Self::Stuck
            | Self::PrinterLost
            | Self::ReportOdd
            | Self::ReportTooLong
            | Self::NoFrame
            | Self::PrinterMute
            | Self::PictureDamaged
            | Self::PictureTooLong
            | Self::DiscoveryConflict
            | Self::TransferFailed
            | Self::NotRecorded
            | Self::RequestRefused => Level::Warn,
            Self::Started
            | Self::Admitted
            | Self::Left
            | Self::Lagged
            | Self::Silent
            | Self::PrinterUp
            | Self::CameraFound
            | Self::Detected
            | Self::Discovery
            | Self::RequestIgnored
            | Self::Transferred
            | Self::Stopping => Level::Info,
            Self::RequestForwarded | Self::Checked => Level::Debug,
        }
    }
}

/// Records an event and logs it.
///
/// The text must not contain the access code.
pub fn note(kind: Kind, what: fmt::Arguments<'_>) {
    record(kind, what);
    log::log!(target: "pandaproxy", kind.level(), "{}", OneLine(what));
}

/// Records an event without logging it.
pub fn record(kind: Kind, what: fmt::Arguments<'_>) {
    // Written before the journal is borrowed: `what` may be anything, even something that notes.
    let text = Text::of(what);
    JOURNAL.with(|journal| {
        if let Ok(mut journal) = journal.try_borrow_mut() {
            journal.add(kind, text);
        }
    });
}

/// Counts an event without recording or logging it.
pub fn tally(kind: Kind) {
    JOURNAL.with(|journal| {
        if let Ok(mut journal) = journal.try_borrow_mut() {
            journal.tally(kind);
        }
    });
}

/// Sets the time of the events recorded from here on, and the date that it is now.
pub fn set_now(now: Instant, date: SystemTime) {
    JOURNAL.with(|journal| {
        if let Ok(mut journal) = journal.try_borrow_mut() {
            journal.now = now;
            journal.date = date;
        }
    });
}

/// The number of events of `kind` since the start.
pub fn count(kind: Kind) -> u32 {
    JOURNAL.with(|journal| journal.try_borrow().map_or(0, |journal| journal.count(kind)))
}

/// Prints the counts, then the events, oldest first, one a line.
///
/// Events that `out` itself notes meanwhile are not recorded.
///
/// # Errors
///
/// Errors of `out`.
pub fn write_to(out: &mut impl Write) -> fmt::Result {
    JOURNAL.with(|journal| match journal.try_borrow() {
        Ok(journal) => journal.write_to(out),
        Err(_) => Ok(()),
    })
}

/// Shows the last events, newest first, until `show` returns false: its date, its text, and how often it was seen.
pub(crate) fn newest_first(mut show: impl FnMut(Utc, &str, u32) -> bool) {
    JOURNAL.with(|journal| {
        let Ok(journal) = journal.try_borrow() else { return };
        for event in journal.newest_first() {
            if !show(journal.date(event.last), event.text.as_str(), event.times) {
                return;
            }
        }
    });
}

/// Rate limiter for log lines about one event that may happen often.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// When the event was last logged.
    logged: Cell<Option<Instant>>,
    /// How often it happened since then.
    since: Cell<u32>,
}

impl RateLimit {
    /// The event is logged at most once in this time.
    pub const INTERVAL: Duration = Duration::from_secs(30);

    /// A limiter for an event that has not happened yet.
    pub const fn new() -> Self {
        Self { logged: Cell::new(None), since: Cell::new(0) }
    }

    /// Counts the event. `Some` if it is to be logged now: how often it happened since it was last
    /// logged, this time included.
    pub fn check(&self, now: Instant) -> Option<u32> {
        let times = self.since.get().saturating_add(1);
        if self.logged.get().is_some_and(|logged| now.since(logged) < Self::INTERVAL) {
            self.since.set(times);
            return None;
        }
        self.logged.set(Some(now));
        self.since.set(0);
        Some(times)
    }

    /// Forgets that the event ever happened.
    pub fn forget(&self) {
        self.logged.set(None);
        self.since.set(0);
    }
}

std::thread_local! {
    static JOURNAL: RefCell<Journal> = const { RefCell::new(Journal::new()) };
}

/// Bytes that the journal takes.
pub const SIZE: usize = size_of::<Journal>();

// Something to drop would have to be registered with the thread, and that allocates.
const _: () = assert!(!core::mem::needs_drop::<Journal>());

struct Journal {
    now: Instant,
    /// What the system's clock said at `now`.
    date: SystemTime,
    counts: [u32; Kind::ALL.len()],
    events: [Event; EVENTS],
    /// How many of `events` have been used. The rest mean nothing.
    used: usize,
    /// Where the newest event is, if any.
    newest: usize,
}

impl Journal {
    const fn new() -> Self {
        Self {
            now: Instant::START,
            date: SystemTime::UNIX_EPOCH,
            counts: [0; Kind::ALL.len()],
            events: [Event::NONE; EVENTS],
            used: 0,
            newest: EVENTS - 1,
        }
    }

    fn tally(&mut self, kind: Kind) {
        if let Some(count) = self.counts.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn add(&mut self, kind: Kind, text: Text) {
        self.tally(kind);
        if self.used > 0
            && let Some(last) = self.events.get_mut(self.newest)
            && last.kind == kind
            && last.text.as_str() == text.as_str()
        {
            last.times = last.times.saturating_add(1);
            last.last = self.now;
            return;
        }
        self.newest = (self.newest + 1) % EVENTS;
        self.used = (self.used + 1).min(EVENTS);
        if let Some(slot) = self.events.get_mut(self.newest) {
            *slot = Event { kind, text, times: 1, first: self.now, last: self.now };
        }
    }

    fn count(&self, kind: Kind) -> u32 {
        self.counts.get(kind as usize).copied().unwrap_or(0)
    }

    fn oldest_first(&self) -> impl Iterator<Item = &Event> {
        let (newer, older) = self.events.split_at_checked(self.newest + 1).unwrap_or_default();
        older.iter().chain(newer).skip(EVENTS - self.used)
    }

    fn newest_first(&self) -> impl Iterator<Item = &Event> {
        let (newer, older) = self.events.split_at_checked(self.newest + 1).unwrap_or_default();
        newer.iter().rev().chain(older.iter().rev()).take(self.used)
    }

    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        let (now, up) = (self.date(self.now), self.now.elapsed().as_secs());
        writeln!(out, "journal at {now}, {up} s after the start, how often:")?;
        for kind in Kind::ALL.into_iter().filter(|kind| self.count(*kind) > 0) {
            writeln!(out, "{:>10} {}", self.count(kind), kind.name())?;
        }
        let mut separator = "     never ";
        for kind in Kind::ALL.into_iter().filter(|kind| self.count(*kind) == 0) {
            write!(out, "{separator}{}", kind.name())?;
            separator = ", ";
        }
        writeln!(out, "\njournal, the last {} events:", self.used)?;
        for event in self.oldest_first() {
            write!(
                out,
                "{} {}: {}",
                self.date(event.first),
                event.kind.name(),
                event.text.as_str()
            )?;
            if event.times > 1 {
                write!(out, " ({} times until {})", event.times, self.date(event.last))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// The date of a moment up to now, by the clock as it is set now.
    fn date(&self, at: Instant) -> Utc {
        let date = self.date.checked_sub(self.now.since(at));
        Utc::of(date.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

#[derive(Clone, Copy)]
struct Event {
    kind: Kind,
    text: Text,
    /// How often, in a row and word for word.
    times: u32,
    first: Instant,
    last: Instant,
}

impl Event {
    const NONE: Self = Self {
        kind: Kind::Started,
        text: Text::EMPTY,
        times: 0,
        first: Instant::START,
        last: Instant::START,
    };
}

/// A fixed line of text. Not a `heapless::String`, which has something to drop.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; TEXT],
    /// Invariant: the first `len` bytes are UTF-8.
    len: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; TEXT], len: 0 };

    fn of(what: fmt::Arguments<'_>) -> Self {
        let mut text = Self::EMPTY;
        if write!(text, "{}", OneLine(what)).is_err() {
            text.end_in_ellipsis();
        }
        text
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    fn push(&mut self, c: char) -> fmt::Result {
        let mut encoded = [0; 4];
        let encoded = c.encode_utf8(&mut encoded).as_bytes();
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let Some(room) = room.get_mut(..encoded.len()) else { return Err(fmt::Error) };
        room.copy_from_slice(encoded);
        self.len += encoded.len();
        Ok(())
    }

    fn end_in_ellipsis(&mut self) {
        while let Some(last) = self.as_str().chars().next_back() {
            if self.push('…').is_ok() {
                return;
            }
            self.len -= last.len_utf8();
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        piece.chars().try_for_each(|c| self.push(c))
    }
}

/// Text in which nothing can begin a new line or speak to a terminal: a peer may have chosen it.
struct OneLine<'a>(fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Tame(f), "{}", self.0)
    }
}

struct Tame<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Tame<'_, '_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        piece.chars().try_for_each(|c| self.0.write_char(if c.is_control() { '?' } else { c }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::time::Duration;
    use proptest::prelude::*;

    impl Journal {
        fn hear(&mut self, kind: Kind, what: &str) {
            self.add(kind, Text::of(format_args!("{what}")));
        }

        fn texts(&self) -> Vec<&str> {
            self.oldest_first().map(|event| event.text.as_str()).collect()
        }
    }

    fn printed(journal: &Journal) -> String {
        let mut out = String::new();
        journal.write_to(&mut out).unwrap();
        out
    }

    #[test]
    fn frequent_events_are_logged_rarely_and_counted() {
        let seldom = RateLimit::default();
        let at = |seconds| Instant::at(Duration::from_secs(seconds));
        assert_eq!(seldom.check(at(0)), Some(1));
        assert!((1..30).all(|second| seldom.check(at(second)).is_none()));
        assert_eq!(seldom.check(at(30)), Some(30));
        seldom.forget();
        assert_eq!(seldom.check(at(31)), Some(1));
    }

    #[test]
    fn the_last_events_stay_in_order_however_many_there_were() {
        let mut journal = Journal::new();
        assert!(journal.texts().is_empty());
        for n in 0..3 * EVENTS {
            journal.hear(Kind::Admitted, &format!("client {n}"));
            let oldest = (n + 1).saturating_sub(EVENTS);
            let expected: Vec<String> = (oldest..=n).map(|n| format!("client {n}")).collect();
            assert_eq!(journal.texts(), expected);
        }
        assert_eq!(journal.count(Kind::Admitted), 3 * EVENTS as u32);
    }

    #[test]
    fn what_has_left_the_ring_is_still_counted() {
        let mut journal = Journal::new();
        journal.hear(Kind::LockedOut, "10.0.0.7");
        for n in 0..EVENTS {
            journal.hear(Kind::Left, &format!("client {n}"));
        }
        assert!(!journal.texts().contains(&"10.0.0.7"));
        assert_eq!(journal.count(Kind::LockedOut), 1);
        let out = printed(&journal);
        assert!(out.contains("         1 locked out\n"), "{out}");
        assert!(out.contains("     never started, port in use, admitted,"), "{out}");
    }

    #[test]
    fn a_repeat_of_the_same_kind_takes_no_second_place() {
        let mut journal = Journal::new();
        journal.hear(Kind::Refused, "10.0.0.7");
        for second in 1..=4 {
            journal.now = Instant::at(Duration::from_secs(second));
            journal.date = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            journal.hear(Kind::Refused, "10.0.0.7");
        }
        journal.hear(Kind::WrongCode, "10.0.0.7");
        journal.hear(Kind::Refused, "10.0.0.7");
        assert_eq!(journal.texts().len(), 3);
        assert_eq!(journal.count(Kind::Refused), 6);
        let out = printed(&journal);
        let (_, events) = out.split_once("the last 3 events:\n").unwrap();
        assert_eq!(
            events,
            "1970-01-01T00:00:00Z refused: 10.0.0.7 (5 times until 1970-01-01T00:00:04Z)\n\
             1970-01-01T00:00:04Z wrong code: 10.0.0.7\n\
             1970-01-01T00:00:04Z refused: 10.0.0.7\n"
        );
    }

    #[test]
    fn the_first_event_is_not_taken_for_a_repeat_of_nothing() {
        let mut journal = Journal::new();
        journal.hear(Kind::Started, "");
        assert_eq!(journal.texts(), [""]);
    }

    #[test]
    fn longer_text_is_cut_with_a_mark() {
        let full = "x".repeat(TEXT);
        assert_eq!(Text::of(format_args!("{full}")).as_str(), full);
        let cut = Text::of(format_args!("{full}y"));
        assert_eq!(cut.as_str(), format!("{}…", "x".repeat(TEXT - 3)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn text_is_cut_between_characters_wherever_that_falls(
            head in "[a-zé€🖨]{0,60}",
            tail in "[é€🖨]{0,60}",
        ) {
            let whole = format!("{head}{tail}");
            // Two pieces, as a format string hands them over.
            let text = Text::of(format_args!("{head}{tail}"));
            match text.as_str().strip_suffix('…') {
                Some(kept) if whole.len() > TEXT => {
                    prop_assert!(whole.starts_with(kept));
                    prop_assert!(text.len > TEXT - 4, "no more than one character is lost");
                }
                _ => prop_assert_eq!(text.as_str(), whole),
            }
        }
    }

    #[test]
    fn a_peer_cannot_write_lines_of_its_own() {
        let text = Text::of(format_args!("client \"a\r\n+9.000s started: \u{1b}[2J\u{85}\""));
        assert_eq!(text.as_str(), "client \"a??+9.000s started: ?[2J?\"");
    }

    #[test]
    fn every_kind_is_listed_once_in_its_place() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{}", kind.name());
        }
    }

    #[test]
    fn a_note_made_while_formatting_a_note_is_kept() {
        struct Nested;
        impl fmt::Display for Nested {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                note(Kind::Malformed, format_args!("inner"));
                f.write_str("outer")
            }
        }
        let before = count(Kind::Stuck);
        set_now(Instant::at(Duration::from_millis(1_234)), SystemTime::UNIX_EPOCH);
        record(Kind::Stuck, format_args!("{Nested}"));
        assert_eq!(count(Kind::Stuck), before + 1);
        let mut out = String::new();
        write_to(&mut out).unwrap();
        assert!(out.contains("00Z malformed: inner\n1970-01-01T00:00:00Z stuck: outer\n"), "{out}");
    }

    /// A board without a battery starts in 1970, and its clock is set once it has the network.
    #[test]
    fn an_event_before_the_clock_was_set_has_its_true_date() {
        let mut journal = Journal::new();
        journal.hear(Kind::Started, "a");
        journal.now = Instant::at(Duration::from_secs(90));
        journal.date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_491_200);
        journal.hear(Kind::Admitted, "b");
        let out = printed(&journal);
        assert!(out.starts_with("journal at 2026-11-01T00:00:00Z, 90 s after the start,"), "{out}");
        assert!(out.contains("2026-10-31T23:58:30Z started: a\n"), "{out}");
        assert!(out.contains("2026-11-01T00:00:00Z admitted: b\n"), "{out}");
    }

    #[test]
    fn an_out_that_fails_ends_the_printing() {
        struct Full;
        impl Write for Full {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert!(write_to(&mut Full).is_err());
    }
}
