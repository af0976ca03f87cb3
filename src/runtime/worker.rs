//! Workers: each takes one accepted connection after another, makes the TLS handshake and lets its service serve
//! the client.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::{Acceptor, PendingClient, count_refusal};
use super::drive::{Buffers, End, drive};
use super::net::{Connection, Net};
use super::stream::Stream;
use super::{Clock, stream};
use crate::auth::{Guess, LoginError, Refusal, WrongCodes};
use crate::clock::Instant;
use crate::counts::{self, Count};
use crate::journal::{self, Kind};
use crate::memory::slots::Occupant;
use crate::peer::Peer;
use crate::rejections;
use crate::session::{ClientError, Handler, Session};
use crate::tls::ServerConfig;
use crate::trace::{self, Party, Protocol};

/// A client whose connection is ready for the service's protocol.
#[derive(Clone, Copy)]
pub struct AcceptedClient<'a> {
    /// The client's name in the log.
    pub peer: Peer,
    /// The proxy's address as the client sees it; `None` if the service may not send it to the client.
    pub reached: Option<Ipv4Addr>,
    /// Deadline of the client's login.
    pub until: Instant,
    /// Whether the client runs on this machine, as the health check does.
    pub is_own: bool,
    /// If its origin is locked out: the service refuses the login, in its protocol.
    pub refusal: Option<Refusal>,
    /// Called once the client has logged in: frees its pre-auth slot.
    pub admitted: &'a dyn Fn(),
    /// Called once the client may stay although it has not shown the access code: frees its pre-auth slot alone.
    pub released: &'a dyn Fn(),
    /// Called with each wrong code, at once where the client stays after it: it counts even if the connection is taken away.
    /// The same one counts once.
    pub guessed: &'a dyn Fn(Guess),
    /// The clock.
    pub clock: &'a Clock,
}

/// What a worker needs of its service.
pub trait Serves {
    /// Time from the connection to the end of the client's login.
    const TIMEOUT: Duration;

    /// Whether clients are sent the proxy's address even with `--keep-printer-address`.
    const ALWAYS_SENDS_ADDRESS: bool = false;

    /// Whether clients come and go by the minute: that is logged at debug level, and counted.
    const IS_BRIEF: bool = false;

    /// Why the service ends a client's connection.
    type Error: 'static;

    /// Allocates the buffers of one worker.
    fn buffers() -> Buffers;

    /// Serves an accepted client until its connection ends.
    fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
    ) -> impl Future<Output = Served<Self::Error>>;
}

/// What came of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<E> {
    /// How its connection ended.
    pub end: End<E>,
    /// The wrong access codes that it sent, unless it sent the right one in the end.
    pub wrong_codes: WrongCodes,
}

/// A service whose clients each have a [`Session`] and a slot.
pub trait ServesSessions {
    /// The protocol, as recordings name it.
    const PROTOCOL: Protocol;

    /// As for [`Serves`].
    const TIMEOUT: Duration;

    /// As for [`Serves`].
    const ALWAYS_SENDS_ADDRESS: bool = false;

    /// As for [`Serves`].
    const IS_BRIEF: bool = false;

    /// A client's session.
    type Session: Session<Error: ClientError>;

    /// A client's slot, which handles the events of the session. Dropping it frees the slot.
    type Link<'a>: Handler<Self::Session>
    where
        Self: 'a;

    /// As for [`Serves`].
    fn buffers() -> Buffers;

    /// Takes a slot for `client`, whose session calls its `admitted` after the login. `None` if
    /// all slots are in use.
    fn open<'a>(&'a self, client: AcceptedClient<'a>) -> Option<(Self::Session, Self::Link<'a>)>;

    /// Where the slot's client is kept.
    fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>>;

    /// Runs the session until it ends.
    fn run<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &mut Self::Session,
        link: &Self::Link<'_>,
        stream: &mut Stream<T>,
        buffers: &mut Buffers,
        clock: &Clock,
    ) -> impl Future<Output = SessionEnd<Self>> {
        drive(session, link, stream, buffers, clock)
    }

    /// The wrong access codes that the client sent, unless it sent the right one in the end.
    fn wrong_codes(session: &Self::Session, end: SessionEnd<Self>) -> WrongCodes {
        let _ = session;
        match end {
            End::Session(error) => {
                error.login_error().and_then(LoginError::guess).into_iter().collect()
            }
            End::Closed | End::Stream(_) => WrongCodes::new(),
        }
    }

    /// How the journal counts the session's end, apart from wrong codes.
    fn kind(session: &Self::Session, end: SessionEnd<Self>) -> Kind {
        let _ = session;
        end.kind()
    }

    /// What follows the cause in the log line of the session's end.
    fn details(session: &Self::Session, end: SessionEnd<Self>) -> impl fmt::Display {
        let _ = (session, end);
        ""
    }
}

/// Why a session of the service `S` ends.
pub type SessionError<S> = <<S as ServesSessions>::Session as Session>::Error;

/// How a session of the service `S` ends.
pub type SessionEnd<S> = End<SessionError<S>>;

impl<S: ServesSessions> Serves for S {
    const TIMEOUT: Duration = S::TIMEOUT;
    const ALWAYS_SENDS_ADDRESS: bool = S::ALWAYS_SENDS_ADDRESS;
    const IS_BRIEF: bool = S::IS_BRIEF;

    type Error = SessionError<S>;

    fn buffers() -> Buffers {
        S::buffers()
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        accepted_client: AcceptedClient<'_>,
        buffers: &mut Buffers,
    ) -> Served<SessionError<S>> {
        serve_session(self, stream, accepted_client, buffers).await
    }
}

/// Serves one client over a stream that is ready for the service's protocol, until the session ends. Then the
/// end is logged, the session is freed, the slot is freed, and the stream is closed, in this order.
async fn serve_session<S: ServesSessions, T: AsyncRead + AsyncWrite + Unpin>(
    service: &S,
    stream: T,
    accepted_client: AcceptedClient<'_>,
    buffers: &mut Buffers,
) -> Served<SessionError<S>> {
    let AcceptedClient { peer, refusal, admitted, guessed, clock, .. } = accepted_client;
    let stream = Stream::new(stream, S::PROTOCOL, Party::Client(peer.address), clock);
    let mut stream = stream.of(peer.service);
    let is_logged_in = Cell::new(false);
    let admitted = || {
        is_logged_in.set(true);
        admitted();
    };
    let accepted_client = AcceptedClient { admitted: &admitted, ..accepted_client };
    let Some((mut session, link)) = service.open(accepted_client) else {
        // Rare: there are as many slots as workers, but HTTP clients take some of a camera's, and one that has to
        // leave may hold its own for some seconds.
        counts::add(peer.service, Count::Full, 1);
        return Served { end: End::Closed, wrong_codes: WrongCodes::new() };
    };
    S::occupant(&link).set(Some(Occupant { peer, since: clock.now() }));
    let end = service.run(&mut session, &link, &mut stream, buffers, clock).await;
    let wrong_codes = S::wrong_codes(&session, end);
    let kind = if wrong_codes.is_empty() { S::kind(&session, end) } else { Kind::WrongCode };
    if kind == Kind::WrongCode || !is_logged_in.get() {
        count_refusal(peer.service, kind, refusal.is_some());
    }
    {
        let details = S::details(&session, end);
        let details = format_args!("{details}");
        let ended = ClientEnd { peer, kind, end: &end, details };
        if S::IS_BRIEF && kind == Kind::Left {
            log::debug!("{ended}");
            journal::tally(kind);
        } else {
            ended.note(clock.now(), is_logged_in.get(), S::IS_BRIEF);
        }
    }
    // The connection may be taken away while it is closed.
    wrong_codes.iter().copied().for_each(guessed);
    // The session's memory is free before another client can take its slot.
    drop(session);
    drop(link);
    stream.close().await;
    Served { end, wrong_codes }
}

/// The end of a client's connection, displayed as its log line:
/// `mqtt 3 (192.168.1.7): client disconnected: write timed out after 5 s`.
struct ClientEnd<'a, E> {
    /// The client.
    peer: Peer,
    /// How the journal counts it. A client that a limit of this board kept out ([`Kind::Refused`]) was rejected.
    kind: Kind,
    /// How the connection ended.
    end: &'a End<E>,
    /// What follows the cause: figures in brackets, for example.
    details: fmt::Arguments<'a>,
}

impl<E: fmt::Display> ClientEnd<'_, E> {
    /// Logs the end. Before the login, and where clients come and go, lines of the same kind are rate-limited.
    fn note(&self, now: Instant, is_logged_in: bool, is_brief: bool) {
        if self.kind == Kind::Checked {
            // A health check comes twice a minute, and would displace all other events.
            log::debug!("{self} (health check)");
            journal::tally(self.kind);
        } else if is_logged_in && !is_brief {
            journal::note(self.kind, format_args!("{self}"));
        } else {
            rejections::note(now, self.kind, self.peer.address, format_args!("{self}"));
        }
    }
}

impl<E: fmt::Display> fmt::Display for ClientEnd<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, kind, end, details } = self;
        let event = if *kind == Kind::Refused { "rejected" } else { "disconnected" };
        write!(f, "{peer}: client {event}")?;
        match end {
            End::Closed => {}
            End::Session(error) => write!(f, ": {error}")?,
            End::Stream(error) => write!(f, ": {error}")?,
        }
        f.write_fmt(*details)
    }
}

/// Log lines of the end of a connection, for the table of messages.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use super::stream::{StreamError, WRITE_TIMEOUT};

    let line = |kind, end: End<&str>, details| {
        let (sent, dropped) = details;
        let details = format_args!(" ({sent} pictures sent, {dropped} dropped)");
        alloc::format!("{}", ClientEnd { peer: Peer::unknown(), kind, end: &end, details })
    };
    alloc::vec![
        line(Kind::Left, End::Closed, (12, 3)),
        line(Kind::Stuck, End::Stream(StreamError::Stalled(WRITE_TIMEOUT)), (12, 3)),
        line(Kind::WrongCode, End::Session("wrong access code"), (0, 0)),
        line(Kind::Refused, End::Session("all 16 slots are in use"), (0, 0)),
    ]
}

/// Serves one client after another.
pub(super) struct Worker<S, N: Net> {
    pub(super) net: N,
    pub(super) acceptor: Rc<Acceptor<N>>,
    pub(super) service: S,
    /// The address that clients are given in place of the one they connected to.
    pub(super) advertise: Option<Ipv4Addr>,
    /// Whether the proxy's address replaces the printer's in what clients are sent.
    pub(super) rewrites: bool,
    pub(super) clock: Clock,
}

impl<S: Serves, N: Net> Worker<S, N> {
    /// Serves clients over TLS, for ever.
    pub(super) async fn work_tls(self, tls: Arc<ServerConfig>) {
        let mut buffers = S::buffers();
        loop {
            let (connection, pending) = self.acceptor.next(&self.clock).await;
            let Some(accepted) = self.accept(&connection) else { continue };
            pending.begin();
            let handshake = tokio::select! {
                handshake = self.net.accept_tls(&tls, connection) => handshake,
                () = self.clock.reach(accepted.until) => {
                    pending.note_handshake_failure(self.clock.now(), None);
                    continue;
                }
                () = pending.displaced() => {
                    pending.note_displaced();
                    continue;
                }
            };
            match handshake {
                Ok(stream) => self.serve(stream, pending, accepted, &mut buffers).await,
                Err(error) => pending.note_handshake_failure(self.clock.now(), Some(error)),
            }
        }
    }

    /// Serves clients over TCP without TLS, for ever.
    pub(super) async fn work_plain(self) {
        let mut buffers = S::buffers();
        loop {
            let (connection, pending) = self.acceptor.next(&self.clock).await;
            let Some(accepted) = self.accept(&connection) else { continue };
            self.serve(connection, pending, accepted, &mut buffers).await;
        }
    }

    /// Sets the options of a new connection. `None` if the connection is lost already.
    fn accept(&self, connection: &N::Connection) -> Option<Accepted> {
        let until = self.clock.now() + S::TIMEOUT;
        let reached = self.reached(connection);
        if let Ok(own) = connection.local_addr() {
            trace::redact_address(own.ip());
        }
        stream::tune(connection).ok()?;
        Some(Accepted { until, reached })
    }

    /// The proxy's address as the client of this connection sees it; `None` if the client is not sent one.
    fn reached(&self, connection: &N::Connection) -> Option<Ipv4Addr> {
        if !(self.rewrites || S::ALWAYS_SENDS_ADDRESS) {
            return None;
        }
        self.advertise.or_else(|| match connection.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => address.to_ipv4_mapped(),
        })
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        pending: PendingClient<N>,
        Accepted { until, reached }: Accepted,
        buffers: &mut Buffers,
    ) {
        let peer = pending.peer;
        let admitted = || {
            if S::IS_BRIEF {
                log::debug!("{peer}: client connected");
                journal::tally(Kind::Admitted);
            } else {
                journal::note(Kind::Admitted, format_args!("{peer}: client connected"));
            }
            pending.pass(S::IS_BRIEF);
        };
        let released = || pending.release();
        let guessed = |guess| pending.count_wrong_code(self.clock.now(), guess);
        pending.begin();
        let (is_own, refusal) = (pending.is_own(), pending.refusal());
        let clock = &self.clock;
        let accepted_client = AcceptedClient {
            peer,
            reached,
            until,
            is_own,
            refusal,
            admitted: &admitted,
            released: &released,
            guessed: &guessed,
            clock,
        };
        let served = tokio::select! {
            biased;
            served = self.service.serve(stream, accepted_client, buffers) => served,
            () = pending.displaced() => return pending.note_displaced(),
        };
        self.net.session_ended(&served);
        if served.wrong_codes.is_empty() && !pending.is_logged_in() {
            pending.count_wrong_code(self.clock.now(), Guess::of_no_login());
        }
    }
}

/// The deadline and address of a new connection.
struct Accepted {
    /// Deadline of the client's login.
    until: Instant,
    /// The proxy's address as the client sees it.
    reached: Option<Ipv4Addr>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Consumed, Output};
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::convert::Infallible;
    use core::pin::Pin;
    use core::task::{Context, Poll};
    use std::io;
    use tokio::io::ReadBuf;
    use tokio::runtime::Builder;

    /// What happened, in order.
    type Events = Rc<RefCell<Vec<&'static str>>>;

    /// Adds its event when it is dropped.
    struct OnDrop(Events, &'static str, Cell<Option<Occupant>>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }

    impl Session for OnDrop {
        type Event<'i> = Infallible;
        type Error = Infallible;

        fn handle_input(&mut self, _: Instant, input: &[u8]) -> Consumed<Infallible, Infallible> {
            Ok((input.len(), None))
        }

        fn handle_timeout(&mut self, _: Instant) -> Result<(), Infallible> {
            Ok(())
        }

        fn poll_timeout(&self) -> Option<Instant> {
            None
        }

        fn poll_output(&mut self, _: Instant, _: &mut [u8]) -> Output<Infallible> {
            Output::Idle
        }
    }

    impl Handler<Self> for OnDrop {
        fn handle_event(
            &self,
            _: Instant,
            _: &mut Self,
            event: Infallible,
        ) -> Result<(), Infallible> {
            match event {}
        }

        async fn woken(&self) {
            core::future::pending::<()>().await;
        }
    }

    struct Recorded(Events);

    impl ClientError for Infallible {
        fn kind(self) -> Kind {
            match self {}
        }

        fn login_error(self) -> Option<LoginError> {
            match self {}
        }
    }

    impl ServesSessions for Recorded {
        const PROTOCOL: Protocol = Protocol::Mqtt;
        const TIMEOUT: Duration = Duration::from_secs(10);

        type Session = OnDrop;
        type Link<'a> = OnDrop;

        fn buffers() -> Buffers {
            Buffers::new(16, 16)
        }

        fn open<'a>(&'a self, _: AcceptedClient<'a>) -> Option<(OnDrop, OnDrop)> {
            let event = |name| OnDrop(Rc::clone(&self.0), name, Cell::default());
            Some((event("session freed"), event("slot freed")))
        }

        fn occupant<'l>(link: &'l Self::Link<'_>) -> &'l Cell<Option<Occupant>> {
            &link.2
        }

        fn details(session: &OnDrop, _: SessionEnd<Self>) -> impl fmt::Display {
            session.0.borrow_mut().push("end logged");
            ""
        }
    }

    /// A connection that the client has closed.
    struct Closed(Events);

    impl AsyncRead for Closed {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.borrow_mut().push("stream closed");
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_session_is_freed_before_its_slot_and_its_stream() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (events, clock) = (Events::default(), runtime.block_on(async { Clock::start() }));
        let accepted_client = AcceptedClient {
            peer: Peer::unknown(),
            reached: None,
            until: clock.now() + Duration::from_secs(10),
            is_own: false,
            refusal: None,
            admitted: &|| {},
            released: &|| {},
            guessed: &|_| {},
            clock: &clock,
        };
        let (service, mut buffers) = (Recorded(Rc::clone(&events)), Buffers::new(16, 16));
        let stream = Closed(Rc::clone(&events));
        let serving = service.serve(stream, accepted_client, &mut buffers);
        assert_eq!(runtime.block_on(serving).end, End::Closed);
        let expected = ["end logged", "session freed", "slot freed", "stream closed"];
        assert_eq!(*events.borrow(), expected);
    }
}
