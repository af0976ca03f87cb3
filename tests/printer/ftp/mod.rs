//! The simulated printer's FTPS server: a P1's or A1's own one, or the vsFTPd of an X1, H2 or P2.
//!
//! ```ignore
//! let files = FileServer::new(Family::Esp32).code("12345678").rate(100_000);
//! let (address, serving) = files.listen_tls((Ipv4Addr::LOCALHOST, 0).into(), Model::P1S).await?;
//! tokio::task::spawn_local(serving);
//! files.turn(Some(Quirk::CutsControl(50_000)));
//! assert!(files.until(secs(5), |seen| seen.uploads == 1).await);
//! assert_eq!(files.file("/cache/plate.3mf").unwrap().len, 1_000_000);
//! ```
//!
//! # The two families (`src/protocol.md`, ftps)
//!
//! | | [`Esp32`](Family::Esp32) | [`Vsftpd`](Family::Vsftpd) |
//! |---|---|---|
//! | sessions at once | 1; others get nothing until it is over | 8; others get 421 |
//! | a command | is one TLS record; the rest of it is lost | is a line |
//! | passive | PASV, with 0.0.0.0 in its reply | EPSV and PASV |
//! | `PROT C` | yes | 522 to the transfer command |
//! | TLS on data | resumes nothing | resumes its control connection's session, or 522 |
//! | FEAT REST STAT MLSD APPE | 502 | all but MLSD |
//! | PASS without a code | 332 | 530 |
//! | NLST | as they were made | by name |
//!
//! Both: TLS 1.2 only, TLS on data only after 150, no close_notify, one data connection for one PASV.
//!
//! # In memory
//!
//! [`FileServer::connect`] and [`FileServer::dial`] are control and data connections without sockets
//! and without TLS, for virtual time; [`FileServer::serve`] and [`FileServer::take`] are the same over
//! any streams.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections, held ones with them | [`MAX_CONNECTIONS`] | closed |
//! | files, folders | [`MAX_FILES`], [`MAX_FOLDERS`] | 553, 550 |
//! | a file kept whole | [`MAX_WHOLE`] | its length, hash and pattern only |
//! | a command line | [`MAX_LINE`] | 500 and closed |
//! | a silent control connection | [`IDLE_TIMEOUT`] | closed without a word |
//! | a passive port unused | [`PASSIVE_TIMEOUT`] | closed, 425 |
//! | a data connection without progress | [`DATA_TIMEOUT`] | 426 |
//! | commands remembered | [`COMMANDS_KEPT`] | the oldest is forgotten |

mod data;
mod seen;
mod session;
mod store;

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::pin::pin;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

#[allow(unused_imports, reason = "not every user of the simulated printer names all of it")]
pub use self::{
    seen::{COMMANDS_KEPT, Seen},
    store::{MAX_FILES, MAX_FOLDERS, MAX_WHOLE, Pattern, Stored, sha256},
};

use self::data::Io;
use self::session::{Peer, Session};
use self::store::{Incoming, Store};
use super::model::Model;
use super::tls::Shown;

/// Connections that are served, held or in their handshake at once.
pub const MAX_CONNECTIONS: usize = 64;

/// Bytes of a command line.
pub const MAX_LINE: usize = 4096;

/// How long a control connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a passive port waits for its connection.
pub const PASSIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a data connection may stand still, while nothing holds it up on our side.
pub const DATA_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a connection over the limit is held.
const MAX_HELD: Duration = Duration::from_secs(600);

/// The time for a TLS handshake, and for a client to take an answer.
const PROMPTLY: Duration = Duration::from_secs(30);

/// Pause after a failed accept, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Whose ways it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// P1 and A1.
    Esp32,
    /// X1, H2, P2.
    Vsftpd,
}

/// What becomes of a control connection over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// Accepted and not answered, not even with TLS, until a session is free.
    Waits,
    /// Closed as soon as it is accepted.
    Closes,
    /// It gets TLS, 421 and its end.
    Says421,
}

/// What it may do badly to transfers, one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Drops control and data connection once an upload has this many bytes.
    CutsControl(u64),
    /// Drops the data connection once a transfer has this many bytes, and answers 426.
    CutsData(u64),
    /// Neither reads nor writes once a transfer has this many bytes.
    Stalls(u64),
    /// Keeps the whole upload and answers 426 (P2S; SIZE shows it).
    FailsThoughComplete,
    /// Reads the whole upload, keeps so many bytes and answers 426.
    Truncates(u64),
    /// Answers an upload 552 once it has this many bytes.
    NoSpace(u64),
    /// Answers 553 to STOR.
    BadName,
    /// Answers 550 to STOR, RETR and DELE.
    Locked,
    /// Answers 425 to whatever needs a data connection.
    RefusesData,
    /// Never answers a transfer that is over.
    NeverFinal,
}

/// A handle on a simulated file server. Clones are handles on the same one.
#[derive(Clone)]
pub struct FileServer {
    inner: Rc<Inner>,
}

struct Inner {
    family: Family,
    code: RefCell<String>,
    limit: Cell<usize>,
    over: Cell<OverLimit>,
    rate: Cell<u64>,
    late: Cell<Duration>,
    idle: Cell<Duration>,
    hashing: Cell<bool>,
    close_notify: Cell<bool>,
    space: Cell<u64>,
    ports: RefCell<Option<RangeInclusive<u16>>>,
    next_port: Cell<u16>,
    quirk: Cell<Option<(Quirk, u32)>>,
    store: RefCell<Store>,
    seen: RefCell<Seen>,
    /// Notified of every change that an observer can see.
    changed: Notify,
    deaths: Cell<u64>,
    dead_until: Cell<Option<Instant>>,
    /// Passive ports in memory.
    doors: RefCell<BTreeMap<u16, mpsc::Sender<Box<dyn Io>>>>,
}

/// Construction. Each of these may be called again while it runs, through a clone.
impl FileServer {
    /// One with its family's manners, the code `12345678` and four empty folders.
    pub fn new(family: Family) -> Self {
        let (limit, over) = match family {
            Family::Esp32 => (1, OverLimit::Waits),
            Family::Vsftpd => (8, OverLimit::Says421),
        };
        let inner = Inner {
            family,
            code: RefCell::new("12345678".to_owned()),
            limit: Cell::new(limit),
            over: Cell::new(over),
            rate: Cell::new(0),
            late: Cell::new(Duration::ZERO),
            idle: Cell::new(IDLE_TIMEOUT),
            hashing: Cell::new(true),
            close_notify: Cell::new(false),
            space: Cell::new(u64::MAX),
            ports: RefCell::new(None),
            next_port: Cell::new(0),
            quirk: Cell::new(None),
            store: RefCell::new(Store::new()),
            seen: RefCell::default(),
            changed: Notify::new(),
            deaths: Cell::new(0),
            dead_until: Cell::new(None),
            doors: RefCell::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// The access code. It is compared byte for byte.
    pub fn code(self, code: &str) -> Self {
        *self.inner.code.borrow_mut() = code.to_owned();
        self
    }

    /// How many sessions it has room for, from accept on, and what becomes of the others.
    pub fn sessions(self, limit: usize, over: OverLimit) -> Self {
        self.inner.limit.set(limit);
        self.inner.over.set(over);
        self.inner.changed.notify_waiters();
        self
    }

    /// How fast its disk is, in bytes a second; 0 for as fast as it goes. Socket buffers of data ports
    /// opened while this is set are small, so that a sender notices.
    pub fn rate(self, bytes_per_second: u64) -> Self {
        self.inner.rate.set(bytes_per_second);
        self
    }

    /// Time between the last byte of an upload and its 226 (printers: 30 to 300 seconds).
    pub fn late(self, delay: Duration) -> Self {
        self.inner.late.set(delay);
        self
    }

    /// How long a silent control connection lives, instead of [`IDLE_TIMEOUT`].
    pub fn idle(self, limit: Duration) -> Self {
        self.inner.idle.set(limit);
        self
    }

    /// Whether uploads are hashed. Without, a benchmark measures less of us.
    pub fn hashing(self, hashing: bool) -> Self {
        self.inner.hashing.set(hashing);
        self
    }

    /// Whether data connections end with a close_notify. No printer's do.
    pub fn close_notify(self, close_notify: bool) -> Self {
        self.inner.close_notify.set(close_notify);
        self
    }

    /// The largest file that fits, in bytes. Past it: 552.
    pub fn space(self, bytes: u64) -> Self {
        self.inner.space.set(bytes);
        self
    }

    /// The ports of data connections, taken in turn. Default: any that is free.
    pub fn data_ports(self, ports: RangeInclusive<u16>) -> Self {
        self.inner.next_port.set(*ports.start());
        *self.inner.ports.borrow_mut() = Some(ports);
        self
    }
}

/// What it can be made to do.
impl FileServer {
    /// Takes up a quirk for good, or gives up the one it has.
    pub fn turn(&self, quirk: Option<Quirk>) {
        self.inner.quirk.set(quirk.map(|quirk| (quirk, u32::MAX)));
    }

    /// Takes up a quirk for the next so many transfers.
    pub fn turn_for(&self, quirk: Quirk, transfers: u32) {
        self.inner.quirk.set((transfers > 0).then_some((quirk, transfers)));
    }

    /// Dies: all connections are dropped, and new ones are for so long.
    pub fn die(&self, down_for: Duration) {
        self.inner.dead_until.set(Some(Instant::now() + down_for));
        self.inner.deaths.set(self.inner.deaths.get() + 1);
        self.inner.changed.notify_waiters();
    }

    /// Lives again before its time.
    pub fn revive(&self) {
        self.inner.dead_until.set(None);
    }

    /// Puts a file there, up to [`MAX_WHOLE`] bytes.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        assert!(bytes.len() <= MAX_WHOLE, "{path} is too large to be kept whole");
        let mut incoming = Incoming::new(true);
        incoming.push(bytes);
        assert!(self.inner.store.borrow_mut().put(path, incoming.finish()), "no room for {path}");
    }

    /// Puts a file of any size there that is a [`Pattern`]. Its hash is its pattern's.
    pub fn put_pattern(&self, path: &str, len: u64, seed: u64) {
        let pattern = Pattern::new(seed);
        let stored = Stored { len, hash: pattern.hash(len), content: None, pattern: Some(pattern) };
        assert!(self.inner.store.borrow_mut().put(path, stored), "no room for {path}");
    }
}

/// What can be seen of it.
impl FileServer {
    /// A file it has.
    pub fn file(&self, path: &str) -> Option<Stored> {
        self.inner.store.borrow().file(path).cloned()
    }

    /// The names in a folder, as they were made.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let store = self.inner.store.borrow();
        store.children(folder).map(|(name, _)| name.to_owned()).collect()
    }

    /// What it has counted.
    pub fn seen(&self) -> Seen {
        self.inner.seen.borrow().clone()
    }

    /// A figure of what it has counted.
    pub fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.inner.seen.borrow())
    }

    /// Forgets the command lines that it has seen, for tests that measure memory.
    pub fn forget_commands(&self) {
        self.inner.count(|seen| seen.commands = VecDeque::new());
    }

    /// Waits until it has seen what is wanted. False when it has not within this time.
    pub async fn until(&self, within: Duration, is: impl Fn(&Seen) -> bool) -> bool {
        let met = self.inner.until(|inner| is(&inner.seen.borrow()));
        timeout(within, met).await.is_ok()
    }
}

/// Running it.
impl FileServer {
    /// Listens with implicit TLS and the certificate of a model. Where, and what has to be polled (in a
    /// `LocalSet` or `LocalRuntime`) to serve it; dropping that drops listener and connections.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let config = Shown { model, stranger: false, leaf_only: false }.config(model)?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let inner = Rc::clone(&self.inner);
        let serving = async move {
            let mut streams = JoinSet::new();
            loop {
                select! {
                    Some(ended) = streams.join_next() => if let Err(error) = ended
                        && let Ok(panic) = error.try_into_panic()
                    {
                        std::panic::resume_unwind(panic);
                    },
                    accepted = listener.accept() => match accepted {
                        Ok(_) if inner.is_dead() => {
                            inner.count(|seen| seen.while_dead += 1);
                        }
                        Ok((stream, _)) if streams.len() < MAX_CONNECTIONS => {
                            let (inner, config) = (Rc::clone(&inner), Arc::clone(&config));
                            streams.spawn_local(async move {
                                let deaths = inner.deaths.get();
                                select! {
                                    () = serve_tls(&inner, stream, &config) => {}
                                    () = inner.until(|inner| inner.deaths.get() != deaths) => {}
                                }
                            });
                        }
                        Ok(_) => {}
                        Err(_) => sleep(ACCEPT_AGAIN).await,
                    },
                }
            }
        };
        Ok((address, serving))
    }

    /// A control connection in memory, without TLS: its client's end. Spawns a local task.
    pub fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(MAX_LINE);
        let server = self.clone();
        spawn_local(async move { server.serve(far).await });
        near
    }

    /// Serves a control connection over any stream, without TLS, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S) {
        let inner = &self.inner;
        let deaths = inner.deaths.get();
        let serving = async {
            let Some(place) = inner.place().await else { return };
            let peer = Peer { ours: None, theirs: None, tls: None };
            let control = Box::new(BufReader::new(stream));
            Session::new(inner, control, peer).converse(place.over).await;
        };
        if inner.is_dead() {
            return inner.count(|seen| seen.while_dead += 1);
        }
        select! {
            () = serving => {}
            () = inner.until(|inner| inner.deaths.get() != deaths) => {}
        }
    }

    /// A data connection in memory to a port it has named: its client's end.
    pub fn dial(&self, port: u16) -> Option<DuplexStream> {
        let (near, far) = duplex(16 * 1024);
        self.take(port, far).then_some(near)
    }

    /// Takes a data connection over any stream to a port that it has named. False: the port is not open.
    pub fn take<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, port: u16, stream: S) -> bool {
        let doors = self.inner.doors.borrow();
        doors.get(&port).is_some_and(|door| door.try_send(Box::new(stream)).is_ok())
    }
}

async fn serve_tls(inner: &Rc<Inner>, stream: TcpStream, config: &ServerConfig) {
    let Ok((ours, theirs)) = stream.local_addr().and_then(|ours| Ok((ours, stream.peer_addr()?)))
    else {
        return;
    };
    let Some(place) = inner.place().await else { return };
    // A store for each control connection: a session resumed from it is that connection's.
    let mut config = config.clone();
    config.session_storage = match inner.family {
        Family::Esp32 => Arc::new(NoServerSessionStorage {}),
        Family::Vsftpd => ServerSessionMemoryCache::new(SESSIONS_KEPT),
    };
    let config = Arc::new(config);
    let _answers_are_small = stream.set_nodelay(true);
    let accepting = TlsAcceptor::from(Arc::clone(&config)).accept(stream);
    let Ok(Ok(stream)) = timeout(PROMPTLY, accepting).await else { return };
    let peer = Peer { ours: Some(ours.ip()), theirs: Some(theirs.ip()), tls: Some(config) };
    Session::new(inner, Box::new(stream), peer).converse(place.over).await;
}

/// TLS sessions of one control connection that can be resumed.
const SESSIONS_KEPT: usize = 32;

/// One of the sessions, or a connection that is refused since all sessions are in use.
struct Place {
    inner: Rc<Inner>,
    over: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.over {
            self.inner.count(|seen| seen.open -= 1);
        }
    }
}

/// Counts one as long as it lives.
struct Counted<'a> {
    inner: &'a Inner,
    down: fn(&mut Seen),
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.inner.count(self.down);
    }
}

impl Inner {
    fn count(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.borrow_mut());
        self.changed.notify_waiters();
    }

    fn counted(&self, up: fn(&mut Seen), down: fn(&mut Seen)) -> Counted<'_> {
        self.count(up);
        Counted { inner: self, down }
    }

    async fn until(&self, is: impl Fn(&Self) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable(); // before looking, or a change between would be missed
            if is(self) {
                return;
            }
            changed.await;
        }
    }

    fn is_dead(&self) -> bool {
        self.dead_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// A place, when there is one or as soon as there is; none for who is to be closed at once.
    async fn place(self: &Rc<Self>) -> Option<Place> {
        let has_room = |inner: &Self| inner.seen.borrow().open < inner.limit.get();
        if !has_room(self) {
            self.count(|seen| seen.over += 1);
            match self.over.get() {
                OverLimit::Closes => return None,
                OverLimit::Says421 => return Some(Place { inner: Rc::clone(self), over: true }),
                OverLimit::Waits => {
                    let _held = self.counted(|seen| seen.held += 1, |seen| seen.held -= 1);
                    let until = Instant::now() + MAX_HELD;
                    timeout_at(until, self.until(has_room)).await.ok()?;
                }
            }
        }
        self.count(|seen| {
            seen.ever += 1;
            seen.open += 1;
            seen.most_open = seen.most_open.max(seen.open);
        });
        Some(Place { inner: Rc::clone(self), over: false })
    }

    /// The quirk for the transfer that begins.
    fn quirk(&self, upload: bool, listing: bool) -> Option<Quirk> {
        let (quirk, left) = self.quirk.get()?;
        let concerned = match quirk {
            Quirk::CutsControl(_)
            | Quirk::FailsThoughComplete
            | Quirk::Truncates(_)
            | Quirk::NoSpace(_)
            | Quirk::BadName => upload,
            Quirk::Locked => !listing,
            Quirk::CutsData(_) | Quirk::Stalls(_) | Quirk::RefusesData | Quirk::NeverFinal => true,
        };
        if !concerned {
            return None;
        }
        self.quirk.set(match left {
            u32::MAX => Some((quirk, left)),
            0 | 1 => None,
            _ => Some((quirk, left - 1)),
        });
        Some(quirk)
    }

    /// A listener for one data connection, where the control connection came to.
    fn open_port(&self, at: IpAddr) -> io::Result<TcpListener> {
        let range = self.ports.borrow().clone();
        let Some(range) = range else { return self.listener(SocketAddr::new(at, 0)) };
        let mut last = io::Error::other("no data port");
        for _ in range.clone() {
            let port = self.next_port.get();
            self.next_port.set(if port == *range.end() { *range.start() } else { port + 1 });
            match self.listener(SocketAddr::new(at, port)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn listener(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        if self.rate.get() > 0 {
            socket.set_recv_buffer_size(SLOW_BUFFER)?;
            socket.set_send_buffer_size(SLOW_BUFFER)?;
        }
        socket.bind(address)?;
        socket.listen(4)
    }

    /// A port in memory.
    fn open_door(&self) -> (u16, mpsc::Receiver<Box<dyn Io>>) {
        let port = self.next_port.get().max(2024);
        self.next_port.set(if port < 60_000 { port + 1 } else { 2024 });
        let (sender, receiver) = mpsc::channel(4);
        self.doors.borrow_mut().insert(port, sender);
        (port, receiver)
    }

    fn close_door(&self, port: u16) {
        self.doors.borrow_mut().remove(&port);
    }
}

/// What the system buffers for a slow disk, in bytes.
const SLOW_BUFFER: u32 = 16 * 1024;
