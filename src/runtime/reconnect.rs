//! Keeps up one connection to the printer: dial, converse, log why it ended, wait, and dial again.
//!
//! There is never a second connection: the last one is closed completely before the next is dialled. A
//! service says what is particular to it by a [`PrinterConnection`]; the loop, the waits and the log
//! lines are the same for all.
//!
//! | wait before the next attempt | first | longest |
//! |---|---|---|
//! | [`Pace::Soon`] | 1 s | 10 s |
//! | [`Pace::Usual`] | 1 s | 60 s |
//! | [`Pace::Slow`] | 60 s | 300 s |
//!
//! Each is twice the one before, and up to a quarter shorter by chance.

use alloc::rc::Rc;
use core::fmt::{self, Write};
use core::time::Duration;

use super::Clock;
use super::dial::{Dial, DialError};
use super::stream::Stream;
use crate::journal::{self, Kind};
use crate::printer::status::{Certificate, Status};
use crate::printer::upstream::Upstream;
use crate::trace::{Party, Protocol};

/// The first wait after a failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait at [`Pace::Soon`].
const SOON_LONGEST: Duration = Duration::from_secs(10);

/// The longest wait at [`Pace::Usual`].
const USUAL_LONGEST: Duration = Duration::from_secs(60);

/// The first wait at [`Pace::Slow`]: printers have been seen to lock up over many connections.
const SLOW_FIRST: Duration = Duration::from_secs(60);

/// The longest wait at [`Pace::Slow`].
const SLOW_LONGEST: Duration = Duration::from_secs(300);

/// How soon a lost connection is dialled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Without a wait.
    AtOnce,
    /// A client waits to send a print.
    Soon,
    /// The failure may pass by itself.
    Usual,
    /// The failure does not pass by itself, or no client waits.
    Slow,
}

/// The waits between attempts: each twice as long as the one before, with jitter, so that several proxies do
/// not dial in step.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    next: Duration,
    /// Whether the last wait was at [`Pace::Slow`]: such waits are no measure for others.
    is_slow: bool,
    /// State of a small generator; its quality does not matter, only that instances differ.
    seed: u32,
}

impl BackOff {
    /// A back-off before the first failure, with its jitter from `seed`.
    pub const fn new(seed: u32) -> Self {
        Self { next: FIRST, is_slow: false, seed: seed | 1 }
    }

    /// Begins again with the shortest wait.
    pub const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self, pace: Pace) -> Duration {
        let (first, longest) = match pace {
            Pace::AtOnce => return Duration::ZERO,
            Pace::Soon => (FIRST, SOON_LONGEST),
            Pace::Usual => (FIRST, USUAL_LONGEST),
            Pace::Slow => (SLOW_FIRST, SLOW_LONGEST),
        };
        let was_slow = core::mem::replace(&mut self.is_slow, pace == Pace::Slow);
        if was_slow && !self.is_slow {
            self.next = FIRST;
        }
        let base = self.next.clamp(first, longest);
        self.next = (base * 2).min(longest);
        // xorshift32; between three quarters and the whole of the base.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        base - base / 4 * (self.seed % 256) / 256
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<L> {
    /// In order, after it had served its purpose: the next is dialled as soon as it is wanted.
    InOrder,
    /// In order, before it had served its purpose: the next waits as long as this one did.
    Unused,
    /// The connection was lost, or could not be made.
    Lost {
        /// Why.
        loss: L,
        /// Whether it worked for long enough for the waits to begin again with the shortest.
        has_worked: bool,
    },
}

/// What is particular to one service's connection to the printer.
pub trait PrinterConnection {
    /// Why a connection was lost: `EVENT[: CAUSE][; HINT]`, as a log line has it.
    type Loss: Copy + PartialEq + fmt::Display;

    /// Completes with true when a connection is wanted, with false when the service shuts down.
    fn wanted(&mut self) -> impl Future<Output = bool>;

    /// Dials, and converses with the printer until the connection has ended and is closed.
    fn converse(&mut self) -> impl Future<Output = Ended<Self::Loss>>;

    /// How soon to dial again after this loss, and how the journal counts it.
    fn verdict(&self, loss: Self::Loss) -> (Pace, Kind);

    /// Waits for `wait`, or until there is a reason to dial sooner. `loss` is `None` after a connection that
    /// ended in order.
    fn rest(&mut self, loss: Option<Self::Loss>, wait: Duration) -> impl Future<Output = ()>;
}

/// One of the printer's ports, as a service dials it.
pub struct PrinterPort<D> {
    /// Connects to it.
    pub dialler: D,
    /// What is spoken there, as recordings name it.
    pub protocol: Protocol,
    /// What is known about the printer.
    pub status: Rc<Status>,
    /// The clock.
    pub clock: Clock,
}

impl<D: Dial> PrinterPort<D> {
    /// Makes a connection, and reports to the printer's status what came of it.
    ///
    /// # Errors
    ///
    /// Errors of [`Dial::dial`].
    pub async fn dial(&mut self) -> Result<Stream<D::Stream>, DialError> {
        let dialled = self.dialler.dial().await;
        note_dial(&self.status, &dialled);
        Ok(Stream::new(dialled?, self.protocol, Party::Printer, &self.clock))
    }
}

/// Reports to the printer's status what came of dialling one of its ports.
fn note_dial<T>(status: &Status, dialled: &Result<T, DialError>) {
    let (is_reachable, certificate) = match dialled {
        Ok(_) => (true, Some(Certificate::Accepted)),
        Err(DialError::Refused(_)) => (true, Some(Certificate::Rejected)),
        Err(DialError::PortClosed { .. } | DialError::NoHandshake | DialError::Handshake(_)) => {
            (true, None)
        }
        Err(DialError::NoSuchName | DialError::Itself(_) | DialError::Off) => (false, None),
    };
    status.set_dialled(dialled.is_ok());
    status.set_reachable(is_reachable);
    if let Some(certificate) = certificate {
        status.set_certificate(certificate);
    }
}

/// Keeps up a connection until its service shuts down. `service` names it in the log; what comes of it is shown in
/// `upstream`.
pub async fn keep_connected<C: PrinterConnection>(
    service: &'static str,
    mut connection: C,
    back_off: BackOff,
    upstream: Rc<Upstream>,
) {
    let mut losses = Losses { service, back_off, logged: None };
    let mut wait = Duration::ZERO;
    while connection.wanted().await {
        upstream.set_connecting();
        let loss = match connection.converse().await {
            Ended::InOrder => {
                losses.forget();
                upstream.set_idle();
                wait = Duration::ZERO;
                None
            }
            Ended::Unused => {
                upstream.set_idle();
                None
            }
            Ended::Lost { loss, has_worked } => {
                if has_worked {
                    losses.forget();
                }
                let (pace, kind) = connection.verdict(loss);
                upstream.set_failing(kind, &loss);
                wait = losses.note(loss, pace, kind);
                Some(loss)
            }
        };
        connection.rest(loss, wait).await;
    }
}

/// The losses of one connection: each reason is logged once, and the next attempt waits.
struct Losses<L> {
    service: &'static str,
    back_off: BackOff,
    logged: Option<L>,
}

impl<L: Copy + PartialEq + fmt::Display> Losses<L> {
    /// The connection worked: the next loss is logged whatever its kind, and the next attempt waits the shortest time.
    fn forget(&mut self) {
        self.back_off.reset();
        self.logged = None;
    }

    /// Logs a loss, at debug level if it is the one logged last. The wait before the next attempt.
    fn note(&mut self, loss: L, pace: Pace, kind: Kind) -> Duration {
        let wait = self.back_off.wait(pace);
        let service = self.service;
        let line = Line { loss: &loss, wait };
        if self.logged.replace(loss) == Some(loss) {
            log::debug!("{service}: {line}");
        } else {
            journal::note(kind, format_args!("{service}: {line}"));
        }
        wait
    }
}

/// Bytes of a loss that are logged.
const LINE: usize = 240;

/// A loss with the wait before the next attempt, which stands before the loss's hint.
struct Line<'l> {
    loss: &'l dyn fmt::Display,
    wait: Duration,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut loss = heapless::String::<LINE>::new();
        // A longer one is cut.
        let _cut = write!(loss, "{}", self.loss);
        let (event, hint) =
            loss.split_once("; ").map_or((&*loss, ""), |(event, hint)| (event, hint));
        f.write_str(event)?;
        if !self.wait.is_zero() {
            write!(f, "; retrying in {} s", self.wait.as_millis().div_ceil(1000))?;
        }
        if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
    }
}

#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    let line = |loss: &str, wait| alloc::format!("mqtt: {}", Line { loss: &loss, wait });
    alloc::vec![
        line("printer connection lost: closed by the printer", FIRST),
        line("the printer does not answer; is it switched on?", SLOW_LONGEST),
        line("printer connection lost: closed by the printer", Duration::ZERO),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    #[test]
    fn waits_double_up_to_a_minute_and_begin_again() {
        let mut back_off = BackOff::new(7);
        let waits: Vec<Duration> = (0..10).map(|_| back_off.wait(Pace::Usual)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 3 / 4, "{waits:?}");
        for wait in &waits[6..] {
            assert!(*wait <= USUAL_LONGEST && *wait >= USUAL_LONGEST * 3 / 4, "{waits:?}");
        }
        back_off.reset();
        assert!(back_off.wait(Pace::Usual) <= FIRST);
    }

    #[test]
    fn a_failure_that_lasts_waits_a_minute_at_once() {
        let mut back_off = BackOff::new(7);
        assert!(back_off.wait(Pace::Slow) >= SLOW_FIRST * 3 / 4);
        assert!((0..5).map(|_| back_off.wait(Pace::Slow)).all(|wait| wait <= SLOW_LONGEST));
        assert!(back_off.wait(Pace::Usual) <= FIRST, "slow waits do not count");
        assert!((0..5).map(|_| back_off.wait(Pace::Soon)).all(|wait| wait <= SOON_LONGEST));
    }

    #[test]
    fn two_proxies_do_not_dial_in_step() {
        let waits = |seed| {
            let mut back_off = BackOff::new(seed);
            (0..4).map(|_| back_off.wait(Pace::Usual)).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn a_log_line_has_the_wait_before_the_hint() {
        let line = |loss: &str, wait| format!("{}", Line { loss: &loss, wait });
        let wait = Duration::from_millis(7_400);
        assert_eq!(
            line("lost: closed; is it on?", wait),
            "lost: closed; retrying in 8 s; is it on?"
        );
        assert_eq!(line("lost: closed", wait), "lost: closed; retrying in 8 s");
        assert_eq!(line("lost; wait", Duration::ZERO), "lost; wait");
        let long = "x".repeat(2 * LINE);
        assert!(line(&long, wait).len() < LINE + 30);
    }

    /// A connection whose ends are given.
    struct Scripted<'s> {
        ends: Vec<Ended<&'static str>>,
        waits: &'s mut Vec<(Option<&'static str>, Duration)>,
    }

    impl PrinterConnection for Scripted<'_> {
        type Loss = &'static str;

        async fn wanted(&mut self) -> bool {
            !self.ends.is_empty()
        }

        async fn converse(&mut self) -> Ended<&'static str> {
            self.ends.remove(0)
        }

        fn verdict(&self, loss: &'static str) -> (Pace, Kind) {
            let pace = if loss == "slow" { Pace::Slow } else { Pace::Usual };
            (pace, Kind::PrinterLost)
        }

        async fn rest(&mut self, loss: Option<&'static str>, wait: Duration) {
            self.waits.push((loss, wait));
        }
    }

    #[test]
    fn a_connection_that_worked_begins_the_waits_again() {
        let lost = |loss, has_worked| Ended::Lost { loss, has_worked };
        let mut waits = Vec::new();
        let ends = alloc::vec![
            lost("off", false),
            lost("off", false),
            Ended::Unused,
            lost("off", true),
            lost("slow", false),
            Ended::InOrder,
        ];
        let scripted = Scripted { ends, waits: &mut waits };
        {
            let mut task = pin!(keep_connected("test", scripted, BackOff::new(1), Rc::default()));
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(()));
        }
        let losses: Vec<_> = waits.iter().map(|(loss, _)| loss.unwrap_or("-")).collect();
        assert_eq!(losses, ["off", "off", "-", "off", "slow", "-"]);
        let waits: Vec<Duration> = waits.iter().map(|(_, wait)| *wait).collect();
        assert!(waits[0] <= FIRST && waits[1] > FIRST, "{waits:?}");
        assert_eq!(waits[2], waits[1], "an attempt that was not used does not shorten the wait");
        assert!(waits[3] <= FIRST, "{waits:?}");
        assert!(waits[4] >= SLOW_FIRST * 3 / 4, "{waits:?}");
        assert_eq!(waits[5], Duration::ZERO);
    }
}
