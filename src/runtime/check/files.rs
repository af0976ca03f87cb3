//! The printer's file server: the login by the services' own session, then a listing over a data connection.

use alloc::format;
use alloc::rc::Rc;
use core::cell::Cell;
use core::convert::Infallible;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::local::Machine;
use super::{ANSWER_TIMEOUT, Run, Secured, refused_at};
use crate::cause::Cause;
use crate::check::Finding;
use crate::clock::Instant;
use crate::ftp::Service;
use crate::ftp::upstream::{self, Upstream};
use crate::ftp::wire::{self, Part, Replies, Shown, Taken};
use crate::memory::budget;
use crate::notify::Notify;
use crate::runtime::dial::Dialler;
use crate::runtime::drive::{Buffers, End, drive};
use crate::runtime::net::Net;
use crate::session::{Consumed, NoEvents, Output, Session};
use crate::tls::Trust;
use crate::trace::Protocol;

/// Bytes of a listing that are read at most: it is enough that it comes.
const MAX_LISTING: usize = 64 * 1024;

impl<N: Net, M: Machine> Run<'_, N, M> {
    /// Login and listing.
    pub(super) async fn files(&mut self) -> Finding {
        let config = self.check.config;
        // Data connections resume the sessions of the control connection.
        let trust = self.check.trust.with_own_sessions();
        let port = config.printer_ports.ftp;
        let dialler =
            Dialler::new(self.check.net.clone(), Rc::clone(&self.host), port, trust.clone());
        let mut stream = match self.dial_by(dialler, Protocol::Ftp).await {
            Ok(stream) => stream,
            Err(error) => return refused_at(port, error),
        };
        let clock = self.check.clock;
        let mut buffers = Buffers::new(budget::FTP_INBOX, budget::FTP_OUTBOX);
        let service = Service::new(config.code.clone(), 1);
        let Some((session, _link)) = service.upstream(self.now(), 0) else {
            return Finding::skipped("not served");
        };
        let mut login = Login(session);
        let limit = self.within(ANSWER_TIMEOUT);
        let driven = drive(&mut login, &NoEvents(()), &mut stream, &mut buffers, &clock);
        let end = timeout(limit, driven).await;
        let finding = match end {
            Ok(End::Session(Ended::LoggedIn)) => {
                let mut control = Control { stream: &mut stream, buffers: &mut buffers, run: self };
                let listed = control.list(&trust).await;
                let _left = control.ask("QUIT").await;
                listed
            }
            Ok(End::Session(Ended::Failed(error))) if error.is_wrong_code() => {
                Finding::failed(&Cause::WRONG_CODE.with(""))
            }
            Ok(End::Session(Ended::Failed(error))) => Finding::message(Cause::FILES_BUSY, error),
            Ok(End::Closed | End::Stream(_)) => Finding::failed(&Cause::SLOTS_FULL.with("")),
            Err(_elapsed) => Finding::message(Cause::FILES_BUSY, upstream::Error::NoAnswer),
        };
        stream.close().await;
        finding
    }
}

/// The session with the file server up to the end of its login.
struct Login(Upstream);

/// How the login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    LoggedIn,
    Failed(upstream::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedIn => f.write_str("logged in"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Session for Login {
    type Event<'i> = Infallible;
    type Error = Ended;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Consumed<Infallible, Ended> {
        let taken = self.0.handle_input(now, input).map_err(Ended::Failed)?;
        if self.0.is_logged_in() { Err(Ended::LoggedIn) } else { Ok(taken) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Ended> {
        self.0.handle_timeout(now).map_err(Ended::Failed)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Ended> {
        if self.0.is_logged_in() {
            return Output::Idle;
        }
        match self.0.poll_output(now, out) {
            Output::Idle => Output::Idle,
            Output::Shared => Output::Shared,
            Output::Written(len) => Output::Written(len),
            Output::End(error) => Output::End(Ended::Failed(error)),
        }
    }
}

/// The control connection, logged in.
struct Control<'c, 'r, N: Net, M: Machine> {
    stream: &'c mut Secured<N>,
    buffers: &'c mut Buffers,
    run: &'c Run<'r, N, M>,
}

impl<N: Net, M: Machine> Control<'_, '_, N, M> {
    /// Asks for a listing, and reads it.
    async fn list(&mut self, trust: &Trust) -> Finding {
        let fault = |what: &str, reply: &Reply| {
            Finding::message(Cause::FILES, format_args!("{what}: {reply}"))
        };
        let reply = self.ask("PROT P").await;
        if !reply.is_good() {
            return fault("PROT is refused", &reply);
        }
        let mut reply = self.ask("EPSV").await;
        if reply.port().is_none() {
            reply = self.ask("PASV").await;
        }
        let Some(port) = reply.port() else {
            return fault("no data port", &reply);
        };
        let Some(at) = self.run.status.address() else { return fault("no data port", &reply) };
        let Some(connection) = self.connect(at, port).await else {
            return Finding::message(Cause::FILES, format!("data port {port} does not answer"));
        };
        let transfer = Transfer::default();
        let limit = self.run.within(ANSWER_TIMEOUT);
        let net = self.run.check.net;
        let read = async {
            transfer.begun().await?;
            let mut data = net.connect_tls(trust, connection).await.ok()?;
            read_lines(&mut data).await
        };
        let control = async {
            let reply = self.reply_to("LIST", Some(&transfer)).await;
            transfer.end();
            reply
        };
        let (reply, entries) = tokio::join!(control, timeout(limit, read));
        match entries {
            Ok(Some(entries)) if reply.is_good() => {
                Finding::good(format!("logged in, {entries} entries listed"))
            }
            _ if reply.code != 0 && !reply.is_good() => fault("LIST is refused", &reply),
            _ => Finding::message(Cause::FILES, "no listing came over the data connection"),
        }
    }

    async fn connect(&self, at: IpAddr, port: u16) -> Option<N::Connection> {
        let limit = self.run.within(super::CONNECT_TIMEOUT);
        timeout(limit, self.run.check.net.connect(SocketAddr::new(at, port))).await.ok()?.ok()
    }

    async fn ask(&mut self, line: &'static str) -> Reply {
        self.reply_to(line, None).await
    }

    /// The reply to a line; of one that begins a transfer the reply at its end.
    async fn reply_to(&mut self, line: &'static str, transfer: Option<&Transfer>) -> Reply {
        let until = self.run.now() + self.run.within(ANSWER_TIMEOUT);
        let replies = Replies::default();
        let mut exchange = Exchange { line: Some(line), until, replies, transfer };
        let clock = &self.run.check.clock;
        let end = drive(&mut exchange, &NoEvents(()), self.stream, self.buffers, clock).await;
        match end {
            End::Session(reply) => reply,
            End::Closed | End::Stream(_) => Reply::NONE,
        }
    }
}

/// Whether the server has begun a transfer.
#[derive(Default)]
struct Transfer {
    has_begun: Cell<bool>,
    changed: Notify,
}

impl Transfer {
    fn begin(&self) {
        self.has_begun.set(true);
        self.changed.notify();
    }

    /// There is nothing more to wait for.
    fn end(&self) {
        self.changed.notify();
    }

    /// Completes once the transfer has begun; `None` if it was refused.
    async fn begun(&self) -> Option<()> {
        self.changed.notified().await;
        self.has_begun.get().then_some(())
    }
}

/// Reads a listing. How many lines it has.
async fn read_lines(data: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<usize> {
    let (mut lines, mut read) = (0, 0);
    let mut piece = [0; 1024];
    while read < MAX_LISTING {
        // The end of TCP without close_notify is an orderly one of printers.
        let Ok(len @ 1..) = data.read(&mut piece).await else { break };
        read += len;
        lines += piece.get(..len)?.iter().filter(|byte| **byte == b'\n').count();
    }
    Some(lines)
}

/// Bytes of a reply that are kept.
const SHOWN: usize = 96;

/// The last line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reply {
    code: u16,
    line: [u8; SHOWN],
    len: usize,
}

impl Reply {
    /// The connection was lost, or no reply came in time.
    const NONE: Self = Self { code: 0, line: [0; SHOWN], len: 0 };

    fn new(code: u16, line: &[u8]) -> Self {
        let mut reply = Self { code, len: line.len().min(SHOWN), ..Self::NONE };
        for (to, from) in reply.line.iter_mut().zip(line) {
            *to = *from;
        }
        reply
    }

    fn line(&self) -> &[u8] {
        self.line.get(..self.len).unwrap_or_default()
    }

    const fn is_good(&self) -> bool {
        matches!(self.code, 100..=299)
    }

    fn port(&self) -> Option<u16> {
        wire::passive_port(self.code, self.line())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            0 => f.write_str("no reply"),
            _ => Shown(self.line()).fmt(f),
        }
    }
}

/// The session of one line and its reply, by which it ends.
struct Exchange<'t> {
    line: Option<&'static str>,
    until: Instant,
    replies: Replies,
    /// The transfer that the line asks for: its preliminary reply does not end the session.
    transfer: Option<&'t Transfer>,
}

impl Session for Exchange<'_> {
    type Event<'i> = Infallible;
    type Error = Reply;

    fn handle_input(&mut self, _now: Instant, input: &[u8]) -> Consumed<Infallible, Reply> {
        let (text, len) = match wire::line(input) {
            Taken::Partial => return Ok((0, None)),
            Taken::Line(text, len) => (text, len),
            Taken::TooLong => return Err(Reply::NONE),
        };
        match self.replies.take(text) {
            Some(Part::More(_)) => Ok((len, None)),
            Some(Part::Last(code)) => match self.transfer.filter(|_| code < 200) {
                Some(transfer) => {
                    transfer.begin();
                    Ok((len, None))
                }
                None => Err(Reply::new(code, text)),
            },
            None => Err(Reply::NONE),
        }
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), Reply> {
        Err(Reply::NONE)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.until)
    }

    fn poll_output(&mut self, _now: Instant, out: &mut [u8]) -> Output<Reply> {
        let Some(line) = self.line.take() else { return Output::Idle };
        let len = line.len() + 2;
        match out.get_mut(..len) {
            Some(room) => {
                for (to, from) in room.iter_mut().zip(line.bytes().chain(*b"\r\n")) {
                    *to = from;
                }
                Output::Written(len)
            }
            None => Output::End(Reply::NONE),
        }
    }
}
