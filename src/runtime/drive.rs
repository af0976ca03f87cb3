//! Runs any session over any stream. Written once, for clients and printers of all services.
//!
//! ```text
//!   drain what the session has to say ─► offer what the peer said ─► wait: bytes, hub or deadline
//!          ▲                                                                      │
//!          └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One piece of output is followed by one look at the input, so neither direction starves the other.

use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use alloc::vec::Vec;

use embedded_io_async::{Read, Write};
use tokio::time::timeout;

use super::Clock;
use super::stream::{STALL, StreamError};
use crate::memory::inbox::Inbox;
use crate::session::{Handler, Output, Session};

/// How long one piece of output, an outbox or a picture, may take to be sent: 16 KiB in that time are
/// 4 kbit/s, and a picture of 100 KiB 27 kbit/s.
const PIECE_TIMEOUT: Duration = STALL.saturating_mul(6);

/// What one conversation needs to have in hand: made once for a task, used for one peer after
/// another.
pub struct Buffers {
    inbox: Inbox,
    /// Empty until it is first needed, then `capacity` bytes.
    outbox: Vec<u8>,
    capacity: usize,
}

impl Buffers {
    /// Room for `inbox` bytes not yet understood and `outbox` bytes not yet sent.
    pub fn new(inbox: usize, outbox: usize) -> Self {
        Self { inbox: Inbox::new(inbox), outbox: Vec::with_capacity(outbox), capacity: outbox }
    }

    fn make_ready(&mut self) {
        self.inbox.clear();
        self.outbox.resize(self.capacity, 0);
    }
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<E> {
    /// By the session, or by its host.
    Session(E),
    /// The peer closed the connection.
    Closed,
    /// The connection broke or stalled.
    Stream(StreamError),
}

impl<E: fmt::Display> fmt::Display for End<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Closed => f.write_str("closed the connection"),
            Self::Stream(error) => error.fmt(f),
        }
    }
}

/// Runs `session` over `stream` until one of them, or the host, has had enough.
///
/// A session's last answer is sent before this returns; closing the stream is the caller's.
pub async fn drive<S, H, T>(
    session: &mut S,
    host: &H,
    stream: &mut T,
    buffers: &mut Buffers,
    clock: &Clock,
) -> End<S::Error>
where
    S: Session,
    H: Handler<S>,
    T: Read<Error = StreamError> + Write<Error = StreamError>,
{
    buffers.make_ready();
    loop {
        let step = step(session, host, stream, buffers, clock).await;
        match step {
            Ok(()) => {}
            Err(end @ End::Session(_)) => {
                // The last answer: a CONNACK that says why, say.
                let now = clock.now();
                if let Output::Written(len) = session.poll_output(now, &mut buffers.outbox) {
                    let _gone = send(stream, buffers.outbox.get(..len)).await;
                }
                return end;
            }
            Err(end @ (End::Closed | End::Stream(_))) => return end,
        }
    }
}

async fn step<S, H, T>(
    session: &mut S,
    host: &H,
    stream: &mut T,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Result<(), End<S::Error>>
where
    S: Session,
    H: Handler<S>,
    T: Read<Error = StreamError> + Write<Error = StreamError>,
{
    let now = clock.now();
    let deadline = session.poll_timeout();
    if deadline.is_some_and(|deadline| deadline <= now) {
        session.handle_timeout(now).map_err(End::Session)?;
    }

    let wrote = match session.poll_output(now, &mut buffers.outbox) {
        Output::Idle => false,
        Output::Written(len) => {
            send(stream, buffers.outbox.get(..len)).await.map_err(End::Stream)?;
            true
        }
        Output::Shared => {
            send(stream, Some(session.shared())).await.map_err(End::Stream)?;
            true
        }
        Output::End(error) => return Err(End::Session(error)),
    };

    let mut understood = false;
    while !buffers.inbox.waiting().is_empty() && host.admits(session) {
        let taken = offer(session, host, buffers.inbox.waiting(), clock).map_err(End::Session)?;
        let Some(taken) = taken else { break };
        buffers.inbox.consume(taken);
        understood = true;
        if host.lets_others_run() {
            let_others_run().await;
        }
    }

    let listens = buffers.inbox.has_room() && host.admits(session);
    if wrote || understood {
        // There may be more to say. Only look whether the peer has said something meanwhile.
        if listens {
            let seen = glance(stream, buffers.inbox.spare()).await;
            if let Some(seen) = seen {
                buffers.inbox.fill(heard(seen)?);
            }
        }
        return Ok(());
    }

    let deadline = session.poll_timeout();
    let spare = buffers.inbox.spare();
    tokio::select! {
        biased;
        seen = stream.read(spare), if listens => {
            let len = heard(seen)?;
            buffers.inbox.fill(len);
        }
        () = host.woken() => {}
        () = until(clock, deadline) => {}
    }
    Ok(())
}

/// Pending once and woken at once: tasks that were woken before run first. tokio's own `yield_now` allocates.
async fn let_others_run() {
    let mut waited = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Offers the session what the peer said. How much it took, or `None` if it wants more first.
fn offer<S: Session, H: Handler<S>>(
    session: &mut S,
    host: &H,
    input: &[u8],
    clock: &Clock,
) -> Result<Option<usize>, S::Error> {
    let now = clock.now();
    let (taken, event) = session.handle_input(now, input)?;
    let idle = taken == 0 && event.is_none();
    if let Some(event) = event {
        host.handle_event(now, session, event)?;
    }
    Ok((!idle).then_some(taken))
}

/// What the peer has said already, if anything, without waiting for it.
async fn glance<T: Read>(stream: &mut T, room: &mut [u8]) -> Option<Result<usize, T::Error>> {
    let mut read = pin!(stream.read(room));
    poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(seen) => Poll::Ready(Some(seen)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// How many bytes came, or why no more will.
fn heard<E>(seen: Result<usize, StreamError>) -> Result<usize, End<E>> {
    match seen {
        Ok(0) => Err(End::Closed),
        Ok(len) => Ok(len),
        Err(error) => Err(End::Stream(error)),
    }
}

/// Sends one piece; none is a session that wrote more than it was given room for. A peer that takes a
/// little now and then is stuck as well: it holds on to what others could use.
async fn send<T: Write<Error = StreamError>>(
    stream: &mut T,
    piece: Option<&[u8]>,
) -> Result<(), StreamError> {
    let piece = async {
        stream.write_all(piece.unwrap_or_default()).await?;
        stream.flush().await
    };
    timeout(PIECE_TIMEOUT, piece).await.unwrap_or(Err(StreamError::Stalled))
}

async fn until(clock: &Clock, deadline: Option<crate::clock::Instant>) {
    match deadline {
        Some(deadline) => clock.reach(deadline).await,
        None => core::future::pending().await,
    }
}
