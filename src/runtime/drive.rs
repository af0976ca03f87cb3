//! Runs any [`Session`] over any stream, for clients and printers of all services.
//!
//! ```text
//!   send the session's output ─► pass input to the session ─► wait for input, hub or deadline
//!          ▲                                                             │
//!          └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each piece of output is followed by one non-blocking read, so neither direction starves the other.

use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use alloc::vec::Vec;

use embedded_io_async::{Read, Write};
use tokio::time::timeout;

use super::Clock;
use super::stream::{StreamError, WRITE_TIMEOUT};
use crate::journal::Kind;
use crate::memory::inbox::Inbox;
use crate::session::{ClientError, Handler, Output, Session};

/// Time in which one piece of output, an outbox or a picture, has to be sent: 30 s. That is 4 kbit/s for 16 KiB
/// and 27 kbit/s for a picture of 100 KiB.
const PIECE_TIMEOUT: Duration = WRITE_TIMEOUT.saturating_mul(6);

/// A task's buffers for input and output, allocated once and used for one connection after another.
pub struct Buffers {
    inbox: Inbox,
    /// Empty until the first connection, then `capacity` bytes.
    outbox: Vec<u8>,
    capacity: usize,
}

impl Buffers {
    /// Buffers for `inbox` bytes of unparsed input and `outbox` bytes of unsent output.
    pub fn new(inbox: usize, outbox: usize) -> Self {
        Self { inbox: Inbox::new(inbox), outbox: Vec::with_capacity(outbox), capacity: outbox }
    }

    fn make_ready(&mut self) {
        self.inbox.clear();
        self.outbox.resize(self.capacity, 0);
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<E> {
    /// The session or its handler ended it.
    Session(E),
    /// The peer closed the connection.
    Closed,
    /// Reading or writing failed, or a write timed out.
    Stream(StreamError),
}

impl<E: ClientError> End<E> {
    /// How the journal counts it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Session(error) => error.kind(),
            Self::Stream(StreamError::Stalled(_)) => Kind::Stuck,
            Self::Closed | Self::Stream(StreamError::Lost(_)) => Kind::Left,
        }
    }
}

/// Runs `session` over `stream` until the session, its handler, the stream or the peer ends it. Returns which
/// one did.
///
/// The session's last output (a CONNACK with an error code, for example) is sent before this returns. The caller
/// closes the stream.
pub async fn drive<S, H, T>(
    session: &mut S,
    handler: &H,
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
        let step = step(session, handler, stream, buffers, clock).await;
        match step {
            Ok(()) => {}
            Err(end @ End::Session(_)) => {
                // The last output: for example, a CONNACK with an error code.
                let now = clock.now();
                if let Output::Written(len) = session.poll_output(now, &mut buffers.outbox) {
                    // An error changes nothing: the connection ends here.
                    let _failed = send(stream, buffers.outbox.get(..len)).await;
                }
                return end;
            }
            Err(end @ (End::Closed | End::Stream(_))) => return end,
        }
    }
}

async fn step<S, H, T>(
    session: &mut S,
    handler: &H,
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

    let mut consumed = false;
    while !buffers.inbox.waiting().is_empty() && session.reads() {
        let taken =
            offer(session, handler, buffers.inbox.waiting(), clock).map_err(End::Session)?;
        let Some(taken) = taken else { break };
        buffers.inbox.consume(taken);
        consumed = true;
        if handler.lets_others_run() {
            yield_once().await;
        }
    }

    let may_read = buffers.inbox.has_room() && session.reads();
    if wrote || consumed {
        // There may be more output. Only take input that has arrived already.
        if may_read {
            let read = read_now(stream, buffers.inbox.spare()).await;
            if let Some(read) = read {
                buffers.inbox.fill(received(read)?);
            }
        }
        return Ok(());
    }

    let deadline = session.poll_timeout();
    let spare = buffers.inbox.spare();
    tokio::select! {
        biased;
        read = stream.read(spare), if may_read => {
            let len = received(read)?;
            buffers.inbox.fill(len);
        }
        () = handler.woken() => {}
        () = until(clock, deadline) => {}
    }
    Ok(())
}

/// Yields once, so that tasks that were woken before run first. Does not allocate, unlike tokio's `yield_now`.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Passes `input` to the session. Returns how many bytes it consumed, or `None` if it needs more input first.
fn offer<S: Session, H: Handler<S>>(
    session: &mut S,
    handler: &H,
    input: &[u8],
    clock: &Clock,
) -> Result<Option<usize>, S::Error> {
    let now = clock.now();
    let (taken, event) = session.handle_input(now, input)?;
    let idle = taken == 0 && event.is_none();
    if let Some(event) = event {
        handler.handle_event(now, session, event)?;
    }
    Ok((!idle).then_some(taken))
}

/// Reads what has arrived already, without waiting. `None` if nothing has.
async fn read_now<T: Read>(stream: &mut T, room: &mut [u8]) -> Option<Result<usize, T::Error>> {
    let mut read = pin!(stream.read(room));
    poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The number of bytes that were read, or how the connection ended.
fn received<E>(read: Result<usize, StreamError>) -> Result<usize, End<E>> {
    match read {
        Ok(0) => Err(End::Closed),
        Ok(len) => Ok(len),
        Err(error) => Err(End::Stream(error)),
    }
}

/// Sends one piece of output within [`PIECE_TIMEOUT`], so that a peer that reads only a few bytes at a time
/// does not hold a frame or a slot for ever. `None`, for a session that claims to have written more than the
/// buffer holds, sends nothing.
async fn send<T: Write<Error = StreamError>>(
    stream: &mut T,
    piece: Option<&[u8]>,
) -> Result<(), StreamError> {
    let piece = async {
        stream.write_all(piece.unwrap_or_default()).await?;
        stream.flush().await
    };
    timeout(PIECE_TIMEOUT, piece).await.unwrap_or(Err(StreamError::Stalled(PIECE_TIMEOUT)))
}

/// Completes at `deadline`; never, if there is none.
async fn until(clock: &Clock, deadline: Option<crate::clock::Instant>) {
    match deadline {
        Some(deadline) => clock.reach(deadline).await,
        None => core::future::pending().await,
    }
}
