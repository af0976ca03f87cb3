//! The chamber camera of a simulated A1 or P1: port 6000 (`src/protocol.md`, chamber-camera), with its
//! faults.
//!
//! ```ignore
//! let camera = Camera::new().code("12345678").viewers(2).every(Duration::from_secs(2));
//! let (near, far) = tokio::io::duplex(4096);
//! tokio::task::spawn_local({ let camera = camera.clone(); async move { camera.serve(far).await } });
//! let (address, serving) = camera.listen_tls((Ipv4Addr::LOCALHOST, 0).into(), Model::P1S).await?;
//! tokio::task::spawn_local(serving);
//! camera.turn(camera::Quirk::Silence, true);
//! assert!(camera.until(secs(5), |camera| camera.frames() == 10).await);
//! ```
//!
//! A viewer sends [80 bytes](login), which are compared as a whole, and gets pictures: a
//! [header](header) of 16 bytes by itself, then a JPEG. Pictures are numbered through all viewers, so
//! that each goes out once; the first comes at once after the login by default.
//! What a viewer sends after its login is ignored.
//!
//! A viewer that finds no place waits unanswered until one is free; waiting connections are not read,
//! so one that has left is served all the same, and found out then.
//!
//! It needs what a [`Printer`](super::Printer) needs.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | viewers with a place | [`Camera::viewers`] | as [`OverLimit`] says |
//! | connections, those in line included | [`MAX_STREAMS`] | closed |
//! | time in line | [`MAX_HELD`] | closed |
//! | TLS, then the login | [`HANDSHAKE_TIMEOUT`], [`LOGIN_TIMEOUT`] | closed |
//! | a write without progress | [`WRITE_TIMEOUT`] | closed |
//! | a viewer that has left, with [`Quirk::Orphans`] | [`ORPHAN_TIMEOUT`] | closed |
//! | bytes put on one connection by hand | [`MAX_RAW`] pieces | a panic |
//! | a picture | [`LARGEST`](super::jpeg::LARGEST), by hand [`MAX_PADDED`](super::jpeg::MAX_PADDED) | a panic |
//! | endings remembered | [`KEPT`](super::KEPT) | the oldest is forgotten |

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::pending;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::jpeg::Album;
use super::ledger::remember;
use super::model::Model;
use super::tls::Shown;
use super::{HANDSHAKE_TIMEOUT, MAX_HELD, MAX_STREAMS, WRITE_TIMEOUT, listener, witnessed};

/// The time for the login, from when the camera listens to it.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a viewer that has left keeps its place with [`Quirk::Orphans`] (on printers about twenty minutes).
pub const ORPHAN_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Pieces that may wait to be put on one connection.
pub const MAX_RAW: usize = 16;

/// What goes out at a time, in bytes, and the pause before each, with [`Quirk::Slow`]: 8 KB/s.
pub const TRICKLE: (usize, Duration) = (512, Duration::from_millis(64));

/// A login, in bytes.
pub const LOGIN: usize = 80;

/// The 80 bytes that this code's viewers have to send.
pub fn login(code: &str) -> [u8; LOGIN] {
    let mut login = [0; LOGIN];
    login[0..4].copy_from_slice(&0x40_u32.to_le_bytes());
    login[4..8].copy_from_slice(&0x3000_u32.to_le_bytes());
    login[16..20].copy_from_slice(b"bblp");
    login[48..48 + code.len()].copy_from_slice(code.as_bytes());
    login
}

/// What stands before a picture of this length, or of another.
pub fn header(length: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&1_u32.to_le_bytes());
    header
}

/// A handle on a simulated chamber camera. Clones are handles on the same one.
#[derive(Clone)]
pub struct Camera {
    lens: Rc<Lens>,
}

/// What becomes of connections over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// Accepted and not answered until a place is free, then served first come, first served (P1S).
    Hangs,
    /// Closed as soon as they are accepted.
    Closes,
}

/// A fault of the camera, until it is [turned](Camera::turn) off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quirk {
    /// Accepts logins and sends no pictures: a dead camera, or one that has stopped.
    Silence,
    /// Sends data that is no JPEG, under a right header.
    Garbage,
    /// Sends pictures without their end marker, under a right header.
    Damaged,
    /// Sends a [little](TRICKLE) at a time.
    Slow,
    /// Does not notice a viewer that has left, and keeps its place for [`ORPHAN_TIMEOUT`].
    Orphans,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The viewer closed, or the stream broke.
    Lost,
    /// TLS failed, or took too long.
    Handshake,
    /// No whole login in time.
    Late,
    /// The login was wrong.
    WrongLogin,
    /// It was in line for too long.
    Unserved,
    /// It took nothing of what was written.
    Stuck,
    /// It had left, and that was noticed at last.
    Orphaned,
    /// The camera closed in the middle of a picture.
    Cut,
    /// The camera closed after a whole picture, or between two.
    Closed,
    /// The printer rebooted.
    Rebooted,
    /// The test stopped serving it.
    Abandoned,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "gone",
            Self::Handshake => "no TLS",
            Self::Late => "no login in time",
            Self::WrongLogin => "closed over a wrong login",
            Self::Unserved => "closed after too long in line",
            Self::Stuck => "closed because it took nothing",
            Self::Orphaned => "closed long after it had gone",
            Self::Cut => "closed in the middle of a picture",
            Self::Closed => "closed",
            Self::Rebooted => "dropped by a reboot",
            Self::Abandoned => "no longer served",
        })
    }
}

/// Something that has just happened. Connections are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    Connected(u64),
    /// A connection was refused: over the limit, or during a reboot.
    Refused,
    /// The login was right.
    Watching(u64),
    /// A connection is over.
    Ended(u64, Ending),
}

/// Construction. Each of these may be called again while it runs, through a clone.
impl Camera {
    /// A camera for one viewer with the code `12345678` that takes a picture every two seconds.
    pub fn new() -> Self {
        Self {
            lens: Rc::new(Lens {
                code: RefCell::new("12345678".to_owned()),
                viewers: Cell::new(1),
                over: Cell::new(OverLimit::Hangs),
                every: Cell::new(Duration::from_secs(2)),
                first_after: Cell::new(Duration::ZERO),
                album: RefCell::new(Album::usual()),
                quirks: Cell::new(0),
                cut_next: Cell::new(false),
                pad_next: Cell::new(None),
                down_until: Cell::new(None),
                number: Cell::new(0),
                slots: RefCell::default(),
                ledger: RefCell::default(),
                listener: RefCell::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// The access code, of at most 32 bytes.
    pub fn code(self, code: &str) -> Self {
        assert!(code.len() <= 32, "a code of {} bytes", code.len());
        *self.lens.code.borrow_mut() = code.to_owned();
        self
    }

    /// How many viewers it serves at once.
    pub fn viewers(self, viewers: usize) -> Self {
        self.lens.viewers.set(viewers);
        self.lens.seat_those_in_line();
        self
    }

    /// What happens to connections over that limit. Default: they wait.
    pub fn over_limit(self, over: OverLimit) -> Self {
        self.lens.over.set(over);
        self
    }

    /// How often it takes a picture; zero takes the next as soon as the viewer has the last.
    pub fn every(self, period: Duration) -> Self {
        self.lens.every.set(period);
        self.lens.ring_all();
        self
    }

    /// Time between the login and the first picture (on printers seconds after a cold start). Default: 0.
    pub fn first_after(self, delay: Duration) -> Self {
        self.lens.first_after.set(delay);
        self
    }

    /// Other sizes for its pictures, in bytes, between [`SMALLEST`](super::jpeg::SMALLEST) and
    /// [`LARGEST`](super::jpeg::LARGEST). Default: 42 000 to 118 000.
    pub fn picture_bytes(self, sizes: RangeInclusive<usize>) -> Self {
        *self.lens.album.borrow_mut() = Arc::new(Album::new(&sizes));
        self
    }

    /// One more quirk.
    pub fn with(self, quirk: Quirk) -> Self {
        self.turn(quirk, true);
        self
    }

    /// Calls `observer` with each event, as it happens.
    pub fn narrate(self, listener: impl Fn(Event) + 'static) -> Self {
        *self.lens.listener.borrow_mut() = Some(Rc::new(listener));
        self
    }
}

/// What it can be made to do.
impl Camera {
    /// Takes up a quirk, or gives it up.
    pub fn turn(&self, quirk: Quirk, on: bool) {
        let (bit, quirks) = (1 << quirk as u8, self.lens.quirks.get());
        self.lens.quirks.set(if on { quirks | bit } else { quirks & !bit });
        self.lens.ring_all();
    }

    /// Closes the connection in the middle of the next picture, once.
    pub fn cut(&self) {
        self.lens.cut_next.set(true);
    }

    /// Makes the next picture exactly this many bytes long, once.
    pub fn oversized(&self, bytes: usize) {
        self.lens.pad_next.set(Some(bytes));
    }

    /// Puts these bytes on the connection of everybody who watches, between two pictures; on how many.
    pub fn raw(&self, bytes: &[u8]) -> usize {
        let bytes: Rc<[u8]> = bytes.into();
        let slots = self.lens.slots.borrow();
        let watching = slots.iter().filter(|slot| slot.watching.get());
        watching.map(|slot| slot.put(Rc::clone(&bytes))).count()
    }

    /// Sends a header with this length on all connections, and these bytes behind it.
    pub fn lie(&self, length: u32, bytes: &[u8]) -> usize {
        self.raw(&[&header(length), bytes].concat())
    }

    /// Closes every connection now, and keeps accepting.
    pub fn close(&self) {
        self.lens.drop_all(Ending::Closed);
    }

    /// Drops all connections without a word and refuses new ones for so long.
    pub fn reboot(&self, down_for: Duration) {
        self.lens.down_until.set(Some(Instant::now() + down_for));
        self.lens.drop_all(Ending::Rebooted);
    }
}

/// Running it.
impl Camera {
    /// Serves one connection over any stream, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let Some(occupied) = self.lens.admit() else { return };
        let mut early = Vec::with_capacity(LOGIN);
        let seated = select! {
            biased;
            seated = occupied.slot.seated() => seated,
            () = take_early(&mut stream, &mut early) => unreachable!("it waits for ever"),
        };
        match seated {
            Ok(()) => self.converse(occupied, stream, early).await,
            Err(ending) => occupied.end(ending),
        }
    }

    /// Listens for TLS, with the certificate and the manners of a model. Where, and what has to be
    /// polled (in a `LocalSet` or `LocalRuntime`) to serve it; dropping that closes the listener and
    /// drops all its connections.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let acceptor = TlsAcceptor::from(Shown::own(model).config(model)?);
        let camera = self.clone();
        listener::listen(address, move |stream| {
            let (camera, acceptor) = (camera.clone(), acceptor.clone());
            async move { camera.serve_tls(stream, &acceptor).await }
        })
        .await
    }

    async fn serve_tls(&self, stream: TcpStream, acceptor: &TlsAcceptor) {
        let Some(occupied) = self.lens.admit() else { return };
        if let Err(ending) = occupied.slot.seated().await {
            return occupied.end(ending);
        }
        let _ = stream.set_nodelay(true); // a picture is not held back for its header
        let shaken = select! {
            shaken = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
            ending = occupied.slot.dropped() => return occupied.end(ending),
        };
        match shaken {
            Ok(Ok(stream)) => self.converse(occupied, stream, Vec::new()).await,
            Ok(Err(_)) | Err(_) => occupied.end(Ending::Handshake),
        }
    }

    /// Serves a connection that has a place. `early` is what was received already.
    async fn converse<S>(&self, occupied: Occupied, stream: S, mut early: Vec<u8>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (lens, slot) = (&*self.lens, &*occupied.slot);
        let (mut from, mut to) = split(stream);
        let served = async {
            lens.receive_login(&mut from, &mut early).await?;
            slot.watching.set(true);
            lens.note(|_| {});
            lens.tell(Event::Watching(slot.number));
            select! {
                ended = lens.show(slot, &mut to) => ended,
                ended = lens.ignore(&mut from) => ended,
            }
        };
        let ending = select! {
            biased;
            ending = slot.dropped() => ending,
            Err(ending) = served => ending,
        };
        let ending = match ending {
            Ending::Lost | Ending::Stuck if lens.has(Quirk::Orphans) => lens.mourn(slot).await,
            ending => ending,
        };
        drop((from, to));
        occupied.end(ending);
    }
}

/// What can be seen of it.
impl Camera {
    /// The picture of this number, as it has been sent or would be.
    pub fn picture(&self, number: u32) -> Rc<[u8]> {
        self.lens.album.borrow().picture(number)
    }

    /// Connections that are not over yet, from accept on: in line, in their handshake, or watching.
    pub fn open(&self) -> usize {
        self.lens.slots.borrow().len()
    }

    /// Of those, the ones that wait for a place.
    pub fn in_line(&self) -> usize {
        self.lens.slots.borrow().iter().filter(|slot| !slot.placed.get()).count()
    }

    /// Of those, the ones whose login was right.
    pub fn watching(&self) -> usize {
        self.lens.slots.borrow().iter().filter(|slot| slot.watching.get()).count()
    }

    /// Connections it ever accepted and did not refuse.
    pub fn ever(&self) -> u64 {
        self.lens.ledger.borrow().ever
    }

    /// The most of them open at one time.
    pub fn most_open(&self) -> usize {
        self.lens.ledger.borrow().most
    }

    /// Connections it refused: over the limit, or while it rebooted.
    pub fn refused(&self) -> u64 {
        self.lens.ledger.borrow().refused
    }

    /// Logins that were wrong.
    pub fn wrong_logins(&self) -> u64 {
        self.lens.ledger.borrow().wrong_logins
    }

    /// Pictures that went out whole, to all viewers together, good and bad.
    pub fn frames(&self) -> u64 {
        self.lens.ledger.borrow().frames
    }

    /// How connections ended, oldest first. The last [`KEPT`](super::KEPT).
    pub fn endings(&self) -> Vec<Ending> {
        self.lens.ledger.borrow().endings.iter().copied().collect()
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.lens.changed, within, || seen(self)).await
    }
}

/// An observer of the camera's events.
type Listener = Rc<dyn Fn(Event)>;

/// Everything of one camera that its connections share.
struct Lens {
    code: RefCell<String>,
    viewers: Cell<usize>,
    over: Cell<OverLimit>,
    every: Cell<Duration>,
    first_after: Cell<Duration>,
    album: RefCell<Arc<Album>>,
    /// One bit for each [`Quirk`].
    quirks: Cell<u8>,
    cut_next: Cell<bool>,
    pad_next: Cell<Option<usize>>,
    down_until: Cell<Option<Instant>>,
    /// Of the next picture.
    number: Cell<u32>,
    /// In the order of arrival, waiting ones included.
    slots: RefCell<VecDeque<Rc<Slot>>>,
    ledger: RefCell<Ledger>,
    listener: RefCell<Option<Listener>>,
    /// Wakes tasks that wait for a change.
    changed: Notify,
}

#[derive(Default)]
struct Ledger {
    ever: u64,
    most: usize,
    refused: u64,
    wrong_logins: u64,
    frames: u64,
    endings: VecDeque<Ending>,
}

impl Lens {
    /// Lets a connection in, with a place or in line.
    fn admit(self: &Rc<Self>) -> Option<Occupied> {
        let down = self.down_until.get().is_some_and(|until| Instant::now() < until);
        let open = self.slots.borrow().len();
        let full = match self.over.get() {
            OverLimit::Closes => open >= self.viewers.get().min(MAX_STREAMS),
            OverLimit::Hangs => open >= MAX_STREAMS,
        };
        if down || full {
            self.note(|ledger| ledger.refused += 1);
            self.tell(Event::Refused);
            return None;
        }
        let number = self.ledger.borrow().ever + 1;
        let slot = Rc::new(Slot { number, ..Slot::default() });
        self.slots.borrow_mut().push_back(Rc::clone(&slot));
        self.note(|ledger| {
            ledger.ever = number;
            ledger.most = ledger.most.max(open + 1);
        });
        self.seat_those_in_line();
        self.tell(Event::Connected(number));
        Some(Occupied { lens: Rc::clone(self), slot, ended: Cell::new(None) })
    }

    /// Gives free places to those who have waited longest.
    fn seat_those_in_line(&self) {
        let slots = self.slots.borrow();
        for slot in slots.iter().take(MAX_STREAMS) {
            let taken = slots.iter().filter(|slot| slot.placed.get()).count();
            if taken >= self.viewers.get() {
                break;
            }
            if !slot.placed.replace(true) {
                slot.notify.notify_one();
            }
        }
    }

    /// Reads the rest of a login and judges all of it.
    async fn receive_login<R>(&self, from: &mut R, login: &mut Vec<u8>) -> Result<(), Ending>
    where
        R: AsyncRead + Unpin,
    {
        let mut rest = [0; LOGIN];
        let rest = &mut rest[login.len()..];
        match timeout(LOGIN_TIMEOUT, from.read_exact(rest)).await {
            Ok(Ok(_)) => login.extend_from_slice(rest),
            Ok(Err(_)) => return Err(Ending::Lost),
            Err(_) => return Err(Ending::Late),
        }
        if *login != self::login(&self.code.borrow()) {
            self.note(|ledger| ledger.wrong_logins += 1);
            return Err(Ending::WrongLogin);
        }
        Ok(())
    }

    /// Ignores what a viewer sends, until it disconnects.
    async fn ignore<R: AsyncRead + Unpin>(&self, from: &mut R) -> Result<(), Ending> {
        let mut unread = [0; 256];
        loop {
            if matches!(from.read(&mut unread).await, Ok(0) | Err(_)) {
                if self.has(Quirk::Orphans) {
                    return pending().await; // a failed write will end it
                }
                return Err(Ending::Lost);
            }
        }
    }

    /// Sends a viewer its pictures, and what is put between them.
    async fn show<W: AsyncWrite + Unpin>(&self, slot: &Slot, to: &mut W) -> Result<(), Ending> {
        let mut due = Instant::now() + self.first_after.get();
        let mut last = None;
        loop {
            let notify = slot.notify.notified();
            if let Some(bytes) = slot.next() {
                self.put(to, &bytes).await?;
                continue;
            }
            if self.has(Quirk::Silence) {
                notify.await;
                continue;
            }
            if let Some(last) = last {
                due = last + self.every.get();
            }
            let now = Instant::now();
            if now < due {
                select! {
                    () = sleep_until(due) => {}
                    () = notify => {}
                }
                continue;
            }
            // In step as long as the viewer is; what it was too late for is not made up.
            last = Some(if now - due < self.every.get() { due } else { now });
            self.show_one(to).await?;
        }
    }

    async fn show_one<W: AsyncWrite + Unpin>(&self, to: &mut W) -> Result<(), Ending> {
        let number = self.number.get();
        self.number.set(number.wrapping_add(1));
        let mut picture = match self.pad_next.take() {
            Some(bytes) => self.album.borrow().padded(number, bytes),
            None => self.album.borrow().picture(number),
        };
        if self.has(Quirk::Garbage) {
            picture = picture.iter().rev().map(|byte| byte ^ 0x55).collect();
        } else if self.has(Quirk::Damaged) {
            picture = picture[..picture.len() - 2].into();
        }
        self.put(to, &header(u32::try_from(picture.len()).unwrap())).await?;
        if self.cut_next.take() {
            self.put(to, &picture[..picture.len() / 2]).await?;
            return Err(Ending::Cut);
        }
        self.put(to, &picture).await?;
        self.note(|ledger| ledger.frames += 1);
        Ok(())
    }

    /// Writes and flushes, so that what follows begins a record of its own.
    async fn put<W: AsyncWrite + Unpin>(&self, to: &mut W, bytes: &[u8]) -> Result<(), Ending> {
        let mut rest = bytes;
        loop {
            let mut piece = rest;
            if self.has(Quirk::Slow) {
                sleep(TRICKLE.1).await;
                piece = &rest[..rest.len().min(TRICKLE.0)];
            }
            let patience = if self.has(Quirk::Orphans) { ORPHAN_TIMEOUT } else { WRITE_TIMEOUT };
            let written = timeout(patience, async {
                let written = if piece.is_empty() { 0 } else { to.write(piece).await? };
                if piece.len() < rest.len() || written == rest.len() {
                    to.flush().await?;
                }
                io::Result::Ok(written)
            });
            match written.await {
                Ok(Ok(0)) if !piece.is_empty() => return Err(Ending::Lost),
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(_)) => return Err(Ending::Lost),
                Err(_) => return Err(Ending::Stuck),
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Keeps the place of a viewer that has left, until that is noticed.
    async fn mourn(&self, slot: &Slot) -> Ending {
        let noticed = async {
            while self.has(Quirk::Orphans) {
                slot.notify.notified().await;
            }
        };
        select! {
            ending = slot.dropped() => ending,
            () = noticed => Ending::Orphaned,
            () = sleep(ORPHAN_TIMEOUT) => Ending::Orphaned,
        }
    }

    fn has(&self, quirk: Quirk) -> bool {
        self.quirks.get() & (1 << quirk as u8) != 0
    }

    fn drop_all(&self, ending: Ending) {
        for slot in self.slots.borrow().iter() {
            slot.dropping.set(Some(ending));
            slot.gone.notify_one();
            slot.notify.notify_one();
        }
    }

    fn ring_all(&self) {
        for slot in self.slots.borrow().iter() {
            slot.notify.notify_one();
        }
    }

    fn note(&self, entry: impl FnOnce(&mut Ledger)) {
        entry(&mut self.ledger.borrow_mut());
        self.changed.notify_waiters();
    }

    fn tell(&self, event: Event) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }
}

/// What the camera knows of one connection.
#[derive(Default)]
struct Slot {
    /// Counted from 1.
    number: u64,
    /// Whether it is served, not waiting.
    placed: Cell<bool>,
    /// Whether its login was right.
    watching: Cell<bool>,
    /// Wakes its task.
    notify: Notify,
    queue: RefCell<VecDeque<Rc<[u8]>>>,
    dropping: Cell<Option<Ending>>,
    gone: Notify,
}

impl Slot {
    /// Completes when it has a place, or will get none.
    async fn seated(&self) -> Result<(), Ending> {
        let until = Instant::now() + MAX_HELD;
        loop {
            if let Some(ending) = self.dropping.get() {
                return Err(ending);
            }
            if self.placed.get() {
                return Ok(());
            }
            select! {
                () = self.notify.notified() => {}
                () = sleep_until(until) => return Err(Ending::Unserved),
            }
        }
    }

    /// Completes when the connection is to be closed now.
    async fn dropped(&self) -> Ending {
        loop {
            if let Some(ending) = self.dropping.get() {
                return ending;
            }
            self.gone.notified().await;
        }
    }

    fn put(&self, bytes: Rc<[u8]>) {
        let mut queue = self.queue.borrow_mut();
        assert!(queue.len() < MAX_RAW, "more than {MAX_RAW} pieces wait");
        queue.push_back(bytes);
        self.notify.notify_one();
    }

    fn next(&self) -> Option<Rc<[u8]>> {
        self.queue.borrow_mut().pop_front()
    }
}

/// Reads up to a login's length from a waiting connection, as the kernel's receive buffer does.
async fn take_early<R: AsyncRead + Unpin>(from: &mut R, early: &mut Vec<u8>) {
    let mut rest = [0; LOGIN];
    while early.len() < LOGIN {
        match from.read(&mut rest[early.len()..]).await {
            Ok(0) | Err(_) => break,
            Ok(len) => {
                let at = early.len();
                early.extend_from_slice(&rest[at..at + len]);
            }
        }
    }
    pending::<()>().await;
}

/// A connection's entry in the camera's list, removed when this is dropped.
struct Occupied {
    lens: Rc<Lens>,
    slot: Rc<Slot>,
    ended: Cell<Option<Ending>>,
}

impl Occupied {
    /// Gives the place back, saying why.
    fn end(self, ending: Ending) {
        self.ended.set(Some(ending));
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let ending = self.ended.get().unwrap_or(Ending::Abandoned);
        self.lens.slots.borrow_mut().retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        self.lens.seat_those_in_line();
        self.lens.note(|ledger| remember(&mut ledger.endings, ending));
        self.lens.tell(Event::Ended(self.slot.number, ending));
    }
}
