//! A network with weather: wires in memory that delay, stall, trickle, break and fall silent, as a
//! seed decides.
//!
//! A wire models TCP over a bad network. Nothing is lost or reordered within it: a lost segment is a
//! stall. Wires overtake each other, since each has its own line and its own luck. It ends as TCP
//! does: in order (FIN behind all that was written), at once (RST, and what was on its way is gone), or
//! not at all: the other end has vanished, and the kernel finds that out by itself, by its keepalive
//! ([`KEPT_ALIVE`]) or over what is not acknowledged ([`UNACKNOWLEDGED`] towards a printer).
//!
//! One end of each wire is the proxy's. The net knows how many of them it holds, and how long it has
//! been holding one whose other end has gone.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | bytes on their way, each way | the wire's room | its writer waits |
//! | wires remembered | those with an end in use | |

use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use pandaproxy::memory::heap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// When the kernel gives up an end that is not heard of any more: 60 s, and four probes 15 s apart.
pub(crate) const KEPT_ALIVE: Duration = Duration::from_secs(120);

/// When it gives up a printer that does not acknowledge what it was sent.
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below this one.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len() as u64) as usize]
    }

    /// Whether something happens that does so once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Up to so many milliseconds.
    pub(crate) fn ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }

    /// A generator of its own.
    pub(crate) fn child(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }
}

/// What a line is like now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sky {
    /// From one end to the other.
    pub(crate) delay: Duration,
    /// More of it at most, for each piece by itself.
    pub(crate) jitter: Duration,
    /// Bytes a second; 0 for no limit.
    pub(crate) pace: u64,
    /// Of a hundred pieces, those that are lost and sent again after up to three seconds.
    pub(crate) lost: u64,
    /// The first bytes of each piece are read one by one, the others in odd lots.
    pub(crate) drips: bool,
    /// Each write takes a part of what it is given.
    pub(crate) sips: bool,
}

impl Sky {
    /// Some weather.
    pub(crate) fn drawn(chance: &mut Chance) -> Self {
        let ms = Duration::from_millis;
        Self {
            delay: ms(chance.of(&[0, 0, 1, 5, 30, 200])),
            jitter: ms(chance.of(&[0, 0, 5, 100])),
            pace: chance.of(&[0, 0, 0, 200_000, 20_000, 4_000]),
            lost: chance.of(&[0, 0, 0, 2, 10]),
            drips: chance.once_in(12),
            sips: chance.once_in(4),
        }
    }
}

/// A line: what its wires have in common.
#[derive(Default)]
pub(crate) struct Line {
    sky: Cell<Sky>,
    /// Nothing passes before this.
    out_until: Cell<Option<Instant>>,
}

impl Line {
    pub(crate) fn new(sky: Sky) -> Rc<Self> {
        Rc::new(Self { sky: Cell::new(sky), out_until: Cell::new(None) })
    }

    /// Other weather from now on.
    pub(crate) fn turn(&self, sky: Sky) {
        self.sky.set(sky);
    }

    /// Nothing passes for so long; nothing is lost by it.
    pub(crate) fn out(&self, time: Duration) {
        self.out_until.set(Some(Instant::now() + time));
    }

    /// When it carries something again, if it does not now.
    pub(crate) fn out_until(&self) -> Option<Instant> {
        self.out_until.get().filter(|until| *until > Instant::now())
    }
}

/// Bytes that arrive together.
struct Piece {
    at: Instant,
    bytes: Vec<u8>,
    taken: usize,
}

/// One direction.
struct Way {
    pieces: VecDeque<Piece>,
    held: usize,
    room: usize,
    /// Arrival of the last bytes written.
    last: Instant,
    /// When its end arrives, if it has been written.
    fin: Option<Instant>,
    /// Since when its writer has been waiting, while not one byte was taken.
    stuck: Option<Instant>,
    /// Bytes are not read any more.
    deserted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn new(room: usize) -> Rc<RefCell<Self>> {
        let (pieces, last) = (VecDeque::new(), Instant::now());
        let (reader, writer) = (None, None);
        let way = Self {
            pieces,
            held: 0,
            room,
            last,
            fin: None,
            stuck: None,
            deserted: false,
            reader,
            writer,
        };
        Rc::new(RefCell::new(way))
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// How a wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Reset,
    /// Nothing passes any more, and neither end is notified.
    Dead(Instant),
}

/// What both ends have in common.
struct Rope {
    what: &'static str,
    number: u32,
    fate: Cell<Fate>,
    ways: [Rc<RefCell<Way>>; 2],
    /// Whether the proxy holds its end.
    held: Cell<bool>,
    /// When the proxy could know that the other end has gone.
    gone: Cell<Option<Instant>>,
    /// When the kernel tells it, once it is dead.
    told_after: Cell<Duration>,
}

impl Rope {
    fn end(&self, fate: Fate) {
        if self.fate.get() == Fate::Reset {
            return;
        }
        self.fate.set(fate);
        for way in &self.ways {
            let mut way = way.borrow_mut();
            let now = Instant::now();
            way.pieces.retain(|piece| fate != Fate::Reset && piece.at <= now);
            way.held = way.pieces.iter().map(|piece| piece.bytes.len() - piece.taken).sum();
            way.fin = way.fin.filter(|fin| *fin <= now);
            way.wake();
        }
    }

    fn is_gone_at(&self, at: Instant) {
        self.gone.set(Some(self.gone.get().map_or(at, |before| before.min(at))));
    }
}

/// Makes wires.
#[derive(Clone)]
pub(crate) struct Net(Rc<Inner>);

struct Inner {
    chance: RefCell<Chance>,
    ropes: RefCell<Vec<Rc<Rope>>>,
    number: Cell<u32>,
}

/// What happens on a wire, as the proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'b> {
    /// Bytes written.
    Wrote(&'b [u8]),
    /// Bytes read.
    Read(&'b [u8]),
}

type Tap = Box<dyn FnMut(Seen<'_>)>;

impl Net {
    pub(crate) fn new(chance: Chance) -> Self {
        let ropes = RefCell::default();
        Self(Rc::new(Inner { chance: RefCell::new(chance), ropes, number: Cell::new(0) }))
    }

    /// A wire over `line` that holds `room` bytes in each direction: the proxy's end and the other.
    pub(crate) fn wire(&self, what: &'static str, line: &Rc<Line>, room: usize) -> (Wire, Wire) {
        let number = self.0.number.get() + 1;
        self.0.number.set(number);
        let told_after = Cell::new(KEPT_ALIVE);
        let (fate, gone) = (Cell::new(Fate::Whole), Cell::new(None));
        let (ways, held) = ([Way::new(room), Way::new(room)], Cell::new(true));
        let rope = Rc::new(Rope { what, number, fate, ways, held, gone, told_after });
        let mut ropes = self.0.ropes.borrow_mut();
        ropes.retain(|rope| Rc::strong_count(rope) > 1);
        ropes.push(Rc::clone(&rope));
        let end = |ours: usize| {
            let end = End {
                rope: Rc::clone(&rope),
                line: Rc::clone(line),
                ours,
                sleep: Box::pin(sleep_until(Instant::now())),
                chance: self.0.chance.borrow_mut().child(),
                breaks: Cell::new(false),
                shut: false,
                tap: None,
            };
            Wire(Some(Box::new(end)))
        };
        (end(0), end(1))
    }

    /// Ends of such wires that the proxy holds.
    pub(crate) fn held(&self, what: &str) -> usize {
        let ropes = self.0.ropes.borrow();
        ropes.iter().filter(|rope| rope.what == what && rope.held.get()).count()
    }

    /// One that it has held for longer than this after it could know that the other end has gone.
    pub(crate) fn overdue(&self, within: impl Fn(&str) -> Option<Duration>) -> Option<String> {
        let ropes = self.0.ropes.borrow();
        let now = Instant::now();
        ropes.iter().filter(|rope| rope.held.get()).find_map(|rope| {
            let (gone, within) = (rope.gone.get()?, within(rope.what)?);
            let since = now.saturating_duration_since(gone);
            let Rope { what, number, fate, .. } = &**rope;
            (since > within).then(|| {
                let since = since.as_secs();
                format!(
                    "{what} {number} ({:?}): its other end has been gone for {since} s",
                    fate.get()
                )
            })
        })
    }

    /// A wire on which a writer has waited for longer than this, while the other end reads nothing.
    pub(crate) fn stuck(&self, within: impl Fn(&str) -> Duration) -> Option<String> {
        let ropes = self.0.ropes.borrow();
        ropes.iter().filter(|rope| rope.held.get()).find_map(|rope| {
            let since = rope.ways[0].borrow().stuck?.elapsed();
            let Rope { what, number, .. } = &**rope;
            (since > within(what))
                .then(|| format!("{what} {number}: nothing was taken for {} s", since.as_secs()))
        })
    }

    /// On how many wires the proxy is waiting for the other end to take something.
    pub(crate) fn waits(&self) -> usize {
        let is = |rope: &&Rc<Rope>| rope.held.get() && rope.ways[0].borrow().stuck.is_some();
        self.0.ropes.borrow().iter().filter(is).count()
    }

    /// How many wires of which the proxy holds an end have lost the other one.
    pub(crate) fn bereft(&self) -> usize {
        let now = Instant::now();
        let is = |rope: &&Rc<Rope>| rope.held.get() && rope.gone.get().is_some_and(|at| at <= now);
        self.0.ropes.borrow().iter().filter(is).count()
    }

    /// Breaks or silences all such wires.
    pub(crate) fn end_all(&self, what: &str, silently: bool) -> usize {
        let ropes: Vec<_> = self.0.ropes.borrow().clone();
        let mut ended = 0;
        for rope in ropes.iter().filter(|rope| rope.what == what && rope.held.get()) {
            rope.told_after.set(UNACKNOWLEDGED);
            end(rope, silently);
            ended += 1;
        }
        ended
    }
}

fn end(rope: &Rope, silently: bool) {
    let now = Instant::now();
    if silently {
        rope.end(Fate::Dead(now));
        rope.is_gone_at(now + rope.told_after.get());
    } else {
        rope.end(Fate::Reset);
        rope.is_gone_at(now);
    }
}

/// One end of a wire.
pub(crate) struct Wire(Option<Box<End>>);

struct End {
    rope: Rc<Rope>,
    line: Rc<Line>,
    /// Which way is written to.
    ours: usize,
    sleep: Pin<Box<Sleep>>,
    chance: Chance,
    breaks: Cell<bool>,
    shut: bool,
    tap: Option<Tap>,
}

/// Ends a wire, independently of the holders of its ends.
#[derive(Clone)]
pub(crate) struct Cutter(Rc<Rope>);

impl Cutter {
    /// Breaks it.
    pub(crate) fn reset(&self) {
        end(&self.0, false);
    }

    /// Whether the proxy holds its end.
    pub(crate) fn is_held(&self) -> bool {
        self.0.held.get()
    }

    /// Nothing passes any more, and neither end is notified.
    pub(crate) fn vanish(&self) {
        end(&self.0, true);
    }
}

impl Wire {
    /// Shows all its bytes to an observer.
    pub(crate) fn tapped(mut self, tap: impl FnMut(Seen<'_>) + 'static) -> Self {
        self.end_mut().tap = Some(Box::new(tap));
        self
    }

    /// Whether dropping this end resets the wire or ends it in order.
    pub(crate) fn set_reset_on_drop(&self, resets: bool) {
        self.end().breaks.set(resets);
    }

    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(Rc::clone(&self.end().rope))
    }

    fn end(&self) -> &End {
        self.0.as_deref().expect("it is there until it is dropped")
    }

    fn end_mut(&mut self) -> &mut End {
        self.0.as_deref_mut().expect("it is there until it is dropped")
    }
}

impl End {
    fn tell(&mut self, seen: Seen<'_>) {
        if let Some(tap) = &mut self.tap {
            tap(seen);
        }
    }

    /// Whether this end knows by now that the wire has ended.
    fn fails(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        match self.rope.fate.get() {
            Fate::Whole => None,
            Fate::Reset => Some(io::ErrorKind::ConnectionReset.into()),
            Fate::Dead(since) => {
                let until = since + self.rope.told_after.get();
                if until <= Instant::now() {
                    return Some(io::ErrorKind::TimedOut.into());
                }
                self.wake_at(cx, until);
                None
            }
        }
    }

    fn wake_at(&mut self, cx: &mut Context<'_>, at: Instant) {
        self.sleep.as_mut().reset(at);
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let way = Rc::clone(&self.rope.ways[1 - self.ours]);
        let mut way = way.borrow_mut();
        let now = Instant::now();
        let out = self.line.out_until();
        let next = way.pieces.front().map(|piece| piece.at).or(way.fin);
        let due = next.map(|at| out.map_or(at, |out| at.max(out)));
        if due.is_none_or(|due| due > now) {
            if let Some(error) = self.fails(cx) {
                return Poll::Ready(Err(error));
            }
            if let Some(due) = due {
                self.wake_at(cx, due);
            }
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.rope.fate.get() == Fate::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(piece) = way.pieces.front_mut() else { return Poll::Ready(Ok(())) };
        let most = match piece.taken {
            _ if !self.line.sky.get().drips => usize::MAX,
            0..8 => 1,
            _ => 1 + self.chance.below(1000) as usize,
        };
        let left = &piece.bytes[piece.taken..];
        let len = left.len().min(into.remaining()).min(most);
        into.put_slice(&left[..len]);
        let read = left[..len].to_vec();
        piece.taken += len;
        if piece.taken == piece.bytes.len() {
            way.pieces.pop_front();
        }
        way.held -= len;
        way.stuck = None;
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        drop(way);
        self.tell(Seen::Read(&read));
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(error) = self.fails(cx) {
            return Poll::Ready(Err(error));
        }
        let way = Rc::clone(&self.rope.ways[self.ours]);
        let mut way = way.borrow_mut();
        let dead = matches!(self.rope.fate.get(), Fate::Dead(_));
        if way.deserted && !dead {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = way.room - way.held.min(way.room);
        if room == 0 {
            way.stuck.get_or_insert_with(Instant::now);
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let sky = self.line.sky.get();
        let mut len = bytes.len().min(room);
        if sky.sips && len > 1 {
            len = 1 + self.chance.below(len as u64) as usize;
        }
        way.held += len;
        way.stuck = None;
        if !dead {
            let now = self.line.out_until().unwrap_or_else(Instant::now);
            let mut at = now + sky.delay + self.chance.ms(sky.jitter.as_millis() as u64);
            if self.chance.below(100) < sky.lost {
                at += self.chance.ms(3000);
            }
            at = at.max(way.last);
            let takes = (1_000_000 * len as u64).checked_div(sky.pace);
            at += Duration::from_micros(takes.unwrap_or(0));
            way.last = at;
            way.pieces.push_back(Piece { at, bytes: bytes[..len].to_vec(), taken: 0 });
        }
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        drop(way);
        self.tell(Seen::Wrote(&bytes[..len]));
        Poll::Ready(Ok(len))
    }

    /// Writes the end, if it has not been.
    fn shut(&mut self) {
        if core::mem::replace(&mut self.shut, true) || self.rope.fate.get() != Fate::Whole {
            return;
        }
        let mut way = self.rope.ways[self.ours].borrow_mut();
        let out = self.line.out_until().unwrap_or_else(Instant::now);
        let at = way.last.max(out + self.line.sky.get().delay);
        way.fin = Some(at);
        way.wake();
    }

    fn leave(&mut self) {
        if self.ours == 0 {
            self.rope.held.set(false);
        }
        if self.breaks.get() && self.rope.fate.get() == Fate::Whole {
            end(&self.rope, false);
        }
        self.shut();
        if self.ours == 1 && self.rope.fate.get() == Fate::Whole {
            let at = self.rope.ways[1].borrow().fin.unwrap_or_else(Instant::now);
            self.rope.is_gone_at(at);
        }
        let mut way = self.rope.ways[1 - self.ours].borrow_mut();
        way.deserted = true;
        way.wake();
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        aside(|| self.get_mut().end_mut().read(cx, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        aside(|| self.get_mut().end_mut().write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        aside(|| self.get_mut().end_mut().shut());
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        aside(|| {
            if let Some(mut end) = self.0.take() {
                end.leave();
            }
        });
    }
}

// ---- whose memory it is ------------------------------------------------------------------------

thread_local! {
    static ASIDE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(isize::MIN) };
    static IS_ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `act`, whose memory belongs to the simulated network and to no share.
pub(crate) fn aside<T>(act: impl FnOnce() -> T) -> T {
    if IS_ASIDE.replace(true) {
        return act();
    }
    let before = heap::held();
    MOST.set(most());
    let result = act();
    ASIDE.set(ASIDE.get() + heap::held().cast_signed() - before.cast_signed());
    heap::reset_peak();
    IS_ASIDE.set(false);
    result
}

fn most() -> isize {
    MOST.get().max(heap::peak().cast_signed() - ASIDE.get())
}

/// The peak of held memory since the last call, without the simulation's own.
pub(crate) fn most_held() -> isize {
    let most = most();
    MOST.set(isize::MIN);
    heap::reset_peak();
    most
}

/// Bytes that were put aside so far, on this thread.
pub(crate) fn put_aside() -> isize {
    ASIDE.get()
}
