//! The pace at which an upload is read from its client: as fast as a slow printer takes it, in even steps.
//!
//! A client that has handed its last byte to its system waits for the 226 until the system's send buffer is empty. Linux
//! makes that buffer as large as two to three times the congestion window ever was, and counts 2304 bytes for a segment of 1448: a
//! congestion window of 100 segments lets 440 kB wait there. Read whenever there is room, an upload comes in bursts at the
//! network's speed, several round trips long; BBR then takes the network's speed for the path's, and its congestion
//! window is 98 segments (141 at most), where without the proxy it is 20 (88 at most, in the first half second). Read in
//! even steps, it is 15 to 29 (77 at most). CUBIC does not widen a window that is not used: it makes no difference there.
//!
//! So the speed of a printer that takes less than 1 MB/s is measured, and its client is read a segment at a time, at
//! four thirds of that speed: what comes in excess waits for the printer, so that the printer never waits for the client.
//! A printer with an ESP32 is taken for a slow one from the first byte on, until it has shown otherwise.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::memory::budget::FTP_PACE;
use crate::memory::pool::RC_COUNTS;
use crate::printer::model::FileServer;
use crate::runtime::pacing::UNSENT;

/// Most bytes read at once while the pace is limited: a segment of Ethernet's.
const STEP: usize = 1460;

/// What a printer with an ESP32 is expected to take for a KiB, 205 kB/s, until its speed is known.
const ESP32: Duration = Duration::from_millis(5);

/// Time for a KiB above which a printer is slow: 1 MB/s. What may wait in the client's system for a faster one is taken within a
/// second.
const SLOW: Duration = Duration::from_millis(1);

/// The shortest time for a KiB that is remembered: after a long time at full speed, a slow printer is still recognised
/// within a few pieces.
const FASTEST: Duration = Duration::from_micros(500);

/// The longest time for a KiB, 8 kB/s: a piece is read within two seconds, also after the printer has paused for minutes.
const SLOWEST: Duration = Duration::from_millis(128);

/// Bytes over which the speed is measured: a large TLS record. Smaller ones, and what comes without TLS, are taken together.
const ROUND: usize = 16 * 1024;

/// A round whose writes took at least this long was blocked by the printer.
const BLOCKED: Duration = Duration::from_millis(5);

/// After so many bytes without a blocked write the printer may have run out of data: more than its receive buffer and the
/// kernel's send buffer hold together.
const STARVED: usize = 80 * 1024;

/// How late a step may be and still be made up for.
const LATE: Duration = Duration::from_millis(5);

const _: () = assert!(
    size_of::<Pace>() + RC_COUNTS + size_of::<Sleep>() <= FTP_PACE,
    "the pace of an upload is larger than its line in the budget"
);

// At four thirds of the printer's speed, the printer takes three quarters of a round while the next one is read. It takes them from
// what the kernel has not sent, and from its own receive buffer: four segments on an ESP32.
const _: () = assert!(
    UNSENT as usize + 4 * 1440 >= ROUND * 3 / 4,
    "a slow printer would run out of data while the next round is read"
);

/// The pace of one upload.
#[derive(Debug, Default)]
pub(super) struct Pace(Cell<Option<Measured>>);

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Average time in which the printer takes a KiB.
    per_kib: Duration,
    /// Bytes that it has taken since it last made one wait.
    unblocked: usize,
    round: Round,
}

/// What was read and given to the printer since the last measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    bytes: usize,
    lasted: Duration,
    waited: Duration,
}

impl Measured {
    fn measure(&mut self, round: Round) {
        let kib = u32::try_from(round.bytes / 1024).unwrap_or(u32::MAX).max(1);
        // One pause of the printer's is no speed.
        let measured = (round.lasted / kib).min(self.per_kib * 4);
        let mut average = (self.per_kib * 3 + measured) / 4;
        if round.waited < BLOCKED {
            self.unblocked = self.unblocked.saturating_add(round.bytes);
        } else {
            self.unblocked = 0;
        }
        if self.unblocked >= STARVED {
            average /= 2;
        }
        self.per_kib = average.clamp(FASTEST, SLOWEST);
        self.round = Round::default();
    }
}

impl Pace {
    /// An upload to a printer with this server begins.
    pub(super) fn begin(&self, server: FileServer) {
        let per_kib = match server {
            FileServer::Esp32 => ESP32,
            FileServer::Vsftpd => FASTEST,
        };
        self.0.set(Some(Measured { per_kib, unblocked: 0, round: Round::default() }));
    }

    /// A piece was read and given to the printer, which `lasted` that long, and `waited` for the printer in it.
    pub(super) fn note_taken(&self, bytes: usize, lasted: Duration, waited: Duration) {
        let Some(mut state) = self.0.get() else { return };
        let round = Round {
            bytes: state.round.bytes + bytes,
            lasted: state.round.lasted + lasted,
            waited: state.round.waited + waited,
        };
        if round.bytes >= ROUND {
            state.measure(round);
        } else {
            state.round = round;
        }
        self.0.set(Some(state));
    }

    /// The time for which nothing more is read after so many bytes. `None`: the pace is not limited.
    fn rest_after(&self, bytes: usize) -> Option<Duration> {
        let per_kib = self.0.get()?.per_kib;
        let bytes = u32::try_from(bytes).ok()?;
        (per_kib > SLOW).then(|| per_kib * bytes / 1024 * 3 / 4)
    }
}

/// A connection that is read at a pace.
pub(super) struct Paced<W> {
    wire: W,
    pace: Rc<Pace>,
    /// When it may be read next.
    next: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<W> Paced<W> {
    pub(super) fn new(wire: W, pace: &Rc<Pace>) -> Self {
        Self { wire, pace: Rc::clone(pace), next: Instant::now(), alarm: None }
    }

    /// The connection.
    pub(super) const fn wire(&self) -> &W {
        &self.wire
    }

    /// Ready when it may be read.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.next;
        if next <= Instant::now() {
            return Poll::Ready(());
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(next)));
        if alarm.deadline() != next {
            alarm.as_mut().reset(next);
        }
        alarm.as_mut().poll(cx)
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Paced<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.pace.rest_after(0).is_none() {
            return Pin::new(&mut this.wire).poll_read(cx, buffer);
        }
        ready!(this.poll_turn(cx));
        let most = buffer.remaining().min(STEP);
        let mut step = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.wire).poll_read(cx, &mut step))?;
        let read = step.filled().len();
        buffer.advance(read);
        let rest = this.pace.rest_after(read).unwrap_or_default();
        let now = Instant::now();
        this.next = this.next.max(now.checked_sub(LATE).unwrap_or(now)) + rest;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Paced<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
