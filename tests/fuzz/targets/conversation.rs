//! A session between a peer that sends arbitrary bytes and a real hub, driven as
//! [`drive`](pandaproxy::runtime::drive) does it, but without a stream: invariants are checked after
//! each step.

use core::time::Duration;

use pandaproxy::clock::Instant;
use pandaproxy::session::{Handler, Output, Session};

/// Steps without a byte from the peer, or time that passes, before a session counts as one that spins.
const STEPS: usize = 20_000;

/// Deadlines that are waited for, one after the other, after the peer's last byte.
const DEADLINES: usize = 32;

/// The longest time that passes without a call of `around` ([`Script::play`]).
const LOOK: Duration = Duration::from_secs(5);

/// What the peer does, decoded from the fuzzer's input: the length of a schedule
/// (32 bytes at most), the schedule, and then the peer's bytes.
pub(crate) struct Script<'d> {
    /// The highest two bits of the first byte.
    flags: u8,
    schedule: &'d [u8],
    said: &'d [u8],
}

/// A byte of the schedule has two indices: how many bytes arrive, and how much time passes then, in ms.
const LENS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 80, 128, 256, 512, 1024, 4096];
const TIMES: [u64; 16] = [
    0, 1, 10, 100, 1000, 1000, 2000, 5000, 6000, 10_000, 11_000, 15_000, 20_000, 31_000, 61_000,
    301_000,
];

/// Whether bytes that arrive together are offered in one piece or one by one. The outcome must be the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    Nowhere,
    Everywhere,
}

impl<'d> Script<'d> {
    pub(crate) fn of(data: &'d [u8]) -> Self {
        let (first, rest) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
        let (schedule, said) = rest.split_at((usize::from(first & 63) % 33).min(rest.len()));
        Self { flags: first >> 6, schedule, said }
    }

    /// Flag 0 or 1 of the input. Their meaning is the target's.
    pub(crate) const fn flag(&self, number: u8) -> bool {
        self.flags >> number & 1 != 0
    }

    /// All of the peer's bytes.
    pub(crate) const fn said(&self) -> &'d [u8] {
        self.said
    }

    /// Plays the whole script. `around` is called whenever the session may have acted, and returns
    /// whether it acted itself. Ends when only time could change the session's state.
    pub(crate) fn play<S: Session, H: Handler<S>>(
        &self,
        conversation: &mut Conversation<S, H>,
        cut: Cut,
        around: &mut dyn FnMut(Instant) -> bool,
    ) {
        conversation.settle(around);
        let mut rest = self.said;
        for byte in self.schedule {
            let len = LENS[usize::from(byte & 15)].min(rest.len());
            let (piece, behind) = rest.split_at(len);
            rest = behind;
            conversation.hear_at_once(piece, cut, around);
            conversation.pass(Duration::from_millis(TIMES[usize::from(byte >> 4)]), around);
        }
        for byte in rest {
            conversation.hear_at_once(&[*byte], Cut::Nowhere, around);
        }
        for _ in 0..DEADLINES {
            let Some(deadline) = conversation.deadline() else { return };
            conversation.pass(deadline.since(conversation.now), around);
        }
    }
}

/// One conversation, with the buffers that the runtime would give it.
pub(crate) struct Conversation<S: Session, H> {
    pub(crate) session: S,
    pub(crate) host: H,
    now: Instant,
    inbox: Vec<u8>,
    inbox_room: usize,
    outbox: Vec<u8>,
    /// Bytes that the session has written.
    pub(crate) said: Vec<u8>,
    /// Why the session ended, if it has.
    pub(crate) end: Option<S::Error>,
}

impl<S: Session, H: Handler<S>> Conversation<S, H> {
    pub(crate) fn new((session, host): (S, H), inbox_room: usize, outbox: usize) -> Self {
        Self {
            session,
            host,
            now: Instant::START,
            inbox: Vec::with_capacity(inbox_room),
            inbox_room,
            outbox: vec![0; outbox],
            said: Vec::new(),
            end: None,
        }
    }

    /// The conversation, starting at `now` instead of [`Instant::START`].
    pub(crate) const fn begun(mut self, now: Instant) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_over() { None } else { self.session.poll_timeout() }
    }

    /// Takes the bytes that the session has written since the last call.
    pub(crate) fn take_said(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.said)
    }

    /// The peer sends `bytes`; the session acts until it waits again.
    pub(crate) fn hear(&mut self, bytes: &[u8], around: &mut dyn FnMut(Instant) -> bool) {
        self.hear_at_once(bytes, Cut::Nowhere, around);
    }

    /// Like `hear`, without a call of `around` before all bytes have been offered.
    fn hear_at_once(&mut self, bytes: &[u8], cut: Cut, around: &mut dyn FnMut(Instant) -> bool) {
        let mut rest = bytes;
        let mut waits = 0;
        while !rest.is_empty() && !self.is_over() {
            let room = self.inbox_room - self.inbox.len();
            if room == 0 {
                self.settle(around);
                if self.is_over() || self.inbox.len() < self.inbox_room {
                    continue;
                }
                // Only the handler may refuse input, and the session has to end that.
                assert!(!self.session.reads(), "a full inbox is neither taken nor refused");
                let deadline = self.deadline();
                waits += 1;
                let Some(deadline) = deadline.filter(|_| waits < DEADLINES) else { return };
                self.pass(deadline.since(self.now), around);
                continue;
            }
            let each = if cut == Cut::Everywhere { 1 } else { room };
            let (piece, behind) = rest.split_at(each.min(rest.len()));
            self.inbox.extend_from_slice(piece);
            rest = behind;
            let offered = self.offer_all();
            self.ends_if(offered);
        }
        self.settle(around);
    }

    /// Lets time pass, calling the session at each of its deadlines.
    pub(crate) fn pass(&mut self, time: Duration, around: &mut dyn FnMut(Instant) -> bool) {
        let until = self.now + time;
        while self.now < until {
            let next = self.deadline().unwrap_or(until).min(self.now + LOOK);
            self.now = next.clamp(self.now, until);
            self.settle(around);
        }
    }

    /// Sets the clock.
    pub(crate) fn reach(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Lets the session act until it waits for bytes or time.
    pub(crate) fn settle(&mut self, around: &mut dyn FnMut(Instant) -> bool) {
        for _ in 0..STEPS {
            let moved = self.step();
            if !around(self.now) && !moved {
                let overdue = self.deadline().filter(|deadline| *deadline <= self.now);
                assert_eq!(overdue, None, "a deadline that has passed stays, and nothing happens");
                return;
            }
        }
        panic!("{STEPS} steps without a byte from the peer");
    }

    /// One round of `drive`. Returns whether the session acted.
    pub(crate) fn step(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        let step = self.try_step();
        self.ends_if(step)
    }

    /// Notes the end of the session, with its last output, if `step` is an error. Returns whether it acted.
    fn ends_if(&mut self, step: Result<bool, S::Error>) -> bool {
        step.unwrap_or_else(|error| {
            self.end = Some(error);
            // The session's last answer.
            if let Output::Written(len) = self.session.poll_output(self.now, &mut self.outbox) {
                self.said.extend_from_slice(&self.outbox[..len]);
            }
            // Displaying the error must not panic either.
            assert!(!error.to_string().is_empty());
            true
        })
    }

    fn try_step(&mut self) -> Result<bool, S::Error> {
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.session.handle_timeout(self.now)?;
        }
        let wrote = match self.session.poll_output(self.now, &mut self.outbox) {
            Output::Idle => false,
            Output::Written(len) => {
                assert_ne!(len, 0, "an output without bytes");
                self.said.extend_from_slice(&self.outbox[..len]);
                true
            }
            Output::Shared => {
                self.said.extend_from_slice(self.session.shared());
                true
            }
            Output::End(error) => return Err(error),
        };
        Ok(self.offer_all()? || wrote)
    }

    /// Offers all received bytes until the session takes no more. Returns whether it took any.
    fn offer_all(&mut self) -> Result<bool, S::Error> {
        let mut understood = false;
        while !self.inbox.is_empty() && self.session.reads() {
            let Some(taken) = self.offer()? else { break };
            assert!(taken <= self.inbox.len(), "more is taken than was there");
            self.inbox.drain(..taken);
            understood = true;
        }
        Ok(understood)
    }

    /// Offers the received bytes once. Returns how many were taken, or `None` if the session needs more.
    fn offer(&mut self) -> Result<Option<usize>, S::Error> {
        let (taken, event) = self.session.handle_input(self.now, &self.inbox)?;
        let idle = taken == 0 && event.is_none();
        if let Some(event) = event {
            self.host.handle_event(self.now, &mut self.session, event)?;
        }
        Ok((!idle).then_some(taken))
    }
}

/// Plays a script twice, with input in one piece and byte by byte, and compares the results of
/// it.
pub(crate) fn both_ways<O: PartialEq + core::fmt::Debug>(look: impl Fn(Cut) -> O) {
    let whole = look(Cut::Nowhere);
    let pieces = look(Cut::Everywhere);
    assert_eq!(whole, pieces, "the result depends on how the input is divided");
}
