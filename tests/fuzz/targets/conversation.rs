//! A session between a peer that says anything and a hub that is real, driven as
//! [`drive`](pandaproxy::runtime::drive) does it, but without a stream: what it promises is looked at after
//! each step.

use core::time::Duration;

use pandaproxy::clock::Instant;
use pandaproxy::session::{Handler, Output, Session};

/// Steps without a byte from the peer, or time that passes, before a session counts as one that spins.
const STEPS: usize = 20_000;

/// Deadlines that are waited for, one after the other, after the peer's last byte.
const DEADLINES: usize = 32;

/// The longest time that passes without a look at what is [around](Script::play).
const LOOK: Duration = Duration::from_secs(5);

/// What the peer does, as it stands in the bytes that are made up: how many bytes there are of a schedule
/// (32 at most), the schedule, and then what the peer says.
pub(crate) struct Script<'d> {
    /// What the first two bits say.
    flags: u8,
    schedule: &'d [u8],
    said: &'d [u8],
}

/// How many bytes come before time passes, and how much of it, by the halves of a byte of the schedule.
const LENS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 80, 128, 256, 512, 1024, 4096];
const TIMES: [u64; 16] = [
    0, 1, 10, 100, 1000, 1000, 2000, 5000, 6000, 10_000, 11_000, 15_000, 20_000, 31_000, 61_000,
    301_000,
];

/// Whether what arrives at once is offered in one piece, or byte by byte. It must not matter.
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

    /// Whether something is otherwise than usual; what, is the target's to say. There are two of them.
    pub(crate) const fn flag(&self, number: u8) -> bool {
        self.flags >> number & 1 != 0
    }

    /// All that the peer says.
    pub(crate) const fn said(&self) -> &'d [u8] {
        self.said
    }

    /// Lets the peer do all it does; `around` is called whenever something may have come of it, and says
    /// whether it did anything. The session is left where it is once nothing but time could move it.
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
    /// What the session has said.
    pub(crate) said: Vec<u8>,
    /// How it ended, if it has.
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

    /// The same, which begins later than [`Instant::START`].
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

    /// What it has said since it was last asked.
    pub(crate) fn take_said(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.said)
    }

    /// The peer says something, and everything happens that can.
    pub(crate) fn hear(&mut self, bytes: &[u8], around: &mut dyn FnMut(Instant) -> bool) {
        self.hear_at_once(bytes, Cut::Nowhere, around);
    }

    /// The same. No other conversation continues before all of it has been offered.
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
                // Back-pressure is the host's to have, and the session's to end.
                assert!(
                    !self.host.admits(&self.session),
                    "a full inbox is neither taken nor refused"
                );
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

    /// So much time passes, and whatever has a deadline in it happens in time.
    pub(crate) fn pass(&mut self, time: Duration, around: &mut dyn FnMut(Instant) -> bool) {
        let until = self.now + time;
        while self.now < until {
            let next = self.deadline().unwrap_or(until).min(self.now + LOOK);
            self.now = next.clamp(self.now, until);
            self.settle(around);
        }
    }

    /// The clock says that it is later now.
    pub(crate) fn reach(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Everything happens that can without another byte and without time.
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

    /// One round of the runtime's; whether anything happened.
    pub(crate) fn step(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        let step = self.try_step();
        self.ends_if(step)
    }

    /// What happened, which may be the end.
    fn ends_if(&mut self, step: Result<bool, S::Error>) -> bool {
        step.unwrap_or_else(|error| {
            self.end = Some(error);
            // The last answer.
            if let Output::Written(len) = self.session.poll_output(self.now, &mut self.outbox) {
                self.said.extend_from_slice(&self.outbox[..len]);
            }
            // How it is said must not panic either.
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
                assert_ne!(len, 0, "nothing is said as if it were something");
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

    /// Offers all that has come, as far as it is taken; whether any of it was.
    fn offer_all(&mut self) -> Result<bool, S::Error> {
        let mut understood = false;
        while !self.inbox.is_empty() && self.host.admits(&self.session) {
            let Some(taken) = self.offer()? else { break };
            assert!(taken <= self.inbox.len(), "more is taken than was there");
            self.inbox.drain(..taken);
            understood = true;
        }
        Ok(understood)
    }

    /// Offers what the peer said: how much was taken, or `None` if more is wanted first.
    fn offer(&mut self) -> Result<Option<usize>, S::Error> {
        let (taken, event) = self.session.handle_input(self.now, &self.inbox)?;
        let idle = taken == 0 && event.is_none();
        if let Some(event) = event {
            self.host.handle_event(self.now, &mut self.session, event)?;
        }
        Ok((!idle).then_some(taken))
    }
}

/// Plays a script twice, what arrives at once in one piece and byte by byte, and compares what `look` makes of
/// it.
pub(crate) fn both_ways<O: PartialEq + core::fmt::Debug>(look: impl Fn(Cut) -> O) {
    let whole = look(Cut::Nowhere);
    let pieces = look(Cut::Everywhere);
    assert_eq!(whole, pieces, "how it was cut made a difference");
}
