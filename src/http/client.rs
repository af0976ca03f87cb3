//! A client's session: one request after another, each with its answer.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | time for a request, from the connection on or from its first byte | [`REQUEST_TIMEOUT`] | 408, closed |
//! | a connection without a request | [`IDLE_TIMEOUT`]; without a code shown [`REQUEST_TIMEOUT`] | closed |
//! | a request | as in [`wire`] | 400, 405, 413, 414, 431, 501 or 505, closed |
//! | what is read behind a request that ends the connection | [`MAX_EXCESS`] bytes in [`LINGER_TIMEOUT`] | closed |
//! | wrong codes on one connection | [`MAX_WRONG`](crate::auth::MAX_WRONG); one token in a URL, one code from another site's page | 401 or 403, closed |
//! | wrong codes from one address | as in [`super::access`] | 429 for a while |
//! | clients that have shown a code | `BOARD.clients.http` | the connection that has asked for nothing for the longest time is closed; is there none, 503, closed |
//! | time to take a piece of an answer | that of [`runtime::drive`](crate::runtime::drive) | closed |

use alloc::rc::Rc;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::access::{self, Refuse, Shown};
use super::agent;
use super::answer::{Answer, Content, Head, Status, write};
use super::document::{Document, NotReady, Source};
use super::media;
use super::page::Cursor;
use super::slot::{Dismissal, Slot, SlotState};
use super::wire::{self, Fault, Request};
use super::{FILES, Service};
use crate::auth::{Guess, LoginError, Refusal, WrongCodes};
use crate::clock::Instant;
use crate::journal::Kind;
use crate::memory::slots::Slot as _;
use crate::peer::Peer;
use crate::session::{ClientError, Consumed, Output, Session};

/// Time for a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that has shown a code may wait before its next request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long what follows the last request is read: a connection that is closed with unread bytes loses its answer.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes read behind the last request.
pub const MAX_EXCESS: usize = 64 * 1024;

/// Bytes of a file that are sent at once.
const PIECE: usize = 16 * 1024;

/// Bytes around a chunk: its length in four digits, and two line ends.
const CHUNK_HEAD: usize = 6;
const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The proxy's end of a client's connection.
pub struct Client {
    slot: Rc<Slot>,
    service: Rc<Service>,
    /// The proxy's address as the client sees it.
    reached: Option<Ipv4Addr>,
    wrong: WrongCodes,
    /// Whether the last code that the client has shown is a wrong one.
    is_wrong: bool,
    /// Whether the client has shown a code.
    is_known: bool,
    /// Whether it has shown the access code, and no wrong code since: a lockout of its address leaves it as it is.
    is_exempt: bool,
    step: Step,
    /// Deadline of the step.
    until: Instant,
    /// Whether the next request has begun to arrive.
    has_begun: bool,
    /// Whether the last request asks for the head of its answer alone.
    is_head: bool,
    /// The piece of a file that is being sent.
    piece: &'static [u8],
}

#[derive(Clone, Copy)]
enum Step {
    /// The next request has not arrived.
    Request,
    /// The request has been answered so, and the session ends with this error unless it stays.
    Answer(Answer, Error),
    /// What follows the last request is being read: so many bytes more.
    Linger(usize, Error),
    /// The session is over.
    Over(Error),
}

/// What a client's session reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has shown the printer's access code, or something else that is accepted.
    Shown(Shown),
    /// The client has shown a wrong code.
    Guessed(Guess),
}

/// Pictures of the printer's camera, as a client asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// One JPEG.
    Snapshot,
    /// JPEGs, one after the other (`multipart/x-mixed-replace`).
    Mjpeg,
    /// H.264 in fragmented MP4.
    Mp4,
}

/// A request for pictures. The session leaves its connection to the [runtime](crate::runtime::services::http), which may
/// have it [go on](Client::answer_media).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaRequest {
    /// What is asked for.
    pub media: Media,
    /// Whether the head alone is asked for.
    pub is_head: bool,
    /// Whether the client knows chunks (HTTP/1.1).
    pub is_1_1: bool,
}

/// What is at a path.
enum Place {
    /// Something that needs no code.
    Open(Content),
    /// The same, with another status.
    Readiness,
    /// Something for those who show a code.
    Closed(Document),
    /// Pictures, for the same.
    Media(Media),
    Nowhere,
}

impl Place {
    /// Whether it needs a code.
    const fn is_closed(&self) -> bool {
        match self {
            Self::Closed(_) | Self::Media(_) => true,
            Self::Open(_) | Self::Readiness | Self::Nowhere => false,
        }
    }

    fn of(path: &str, query: &str) -> Self {
        let action = wire::parameter(query, "action");
        let base = path.strip_prefix("/webcam").filter(|rest| rest.is_empty() || *rest == "/");
        match action {
            Some("stream") if path == "/" || base.is_some() => return Self::Media(Media::Mjpeg),
            Some("snapshot") if path == "/" || base.is_some() => {
                return Self::Media(Media::Snapshot);
            }
            Some(_) | None => {}
        }
        match path {
            "/livez" => Self::Open(Content::Line("alive\n")),
            "/readyz" => Self::Readiness,
            "/ca.pem" => Self::Open(Content::Authority(0)),
            "/status" => Self::Closed(Document::Json),
            "/status.txt" => Self::Closed(Document::Text),
            "/metrics" => Self::Closed(Document::Metrics),
            "/snapshot.jpg" | "/snapshot" => Self::Media(Media::Snapshot),
            "/stream.mjpg" | "/stream" => Self::Media(Media::Mjpeg),
            "/stream.mp4" => Self::Media(Media::Mp4),
            _ => match FILES.iter().find(|file| file.path == path) {
                Some(file) => Self::Open(Content::File(file, 0)),
                None => Self::Nowhere,
            },
        }
    }
}

impl Client {
    /// A session whose first request is due at `until`.
    pub const fn new(
        slot: Rc<Slot>,
        service: Rc<Service>,
        until: Instant,
        reached: Option<Ipv4Addr>,
    ) -> Self {
        Self {
            slot,
            service,
            reached,
            wrong: WrongCodes::new(),
            is_wrong: false,
            is_known: false,
            is_exempt: false,
            step: Step::Request,
            until,
            has_begun: false,
            is_head: false,
            piece: &[],
        }
    }

    /// Wrong codes that the client has shown; none if it has shown a right one since.
    pub fn wrong_codes(&self) -> WrongCodes {
        if self.is_wrong { self.wrong.clone() } else { WrongCodes::new() }
    }

    /// Why the session ends if the client closes now: what it was answered last.
    pub fn error(&self) -> Option<Error> {
        match self.step {
            Step::Linger(_, error) => Some(error),
            Step::Request | Step::Answer(..) | Step::Over(_) => {
                self.is_wrong.then_some(Error::WrongCode)
            }
        }
    }

    /// The client has shown a code, and all places of those that have are taken.
    pub(super) const fn refuse_full(&mut self) {
        self.is_known = false;
        let line = "all places are taken; close another browser, or try again later\n";
        self.end(Status::Unavailable, line, Error::Full);
    }

    /// Goes on after a [request for pictures](Error::Media) that has none: with this answer, which ends the connection.
    pub const fn answer_media(&mut self, status: Status, line: &'static str) {
        self.end(status, line, Error::Answered);
    }

    /// Answers, and ends the connection.
    const fn end(&mut self, status: Status, line: &'static str, error: Error) {
        let content = Content::Line(line);
        let answer = Answer {
            status,
            content,
            is_head: self.is_head,
            is_1_1: true,
            keeps_alive: false,
            has_begun: false,
        };
        self.step = Step::Answer(answer, error);
    }

    /// Answers a request that is none.
    const fn end_for(&mut self, fault: Fault) {
        let (status, line) = match fault {
            // The client would not understand an answer.
            Fault::Tls => {
                self.step = Step::Over(Error::Fault(fault));
                return;
            }
            Fault::Http2 => (Status::VersionNotSupported, "only HTTP/1.1 is spoken here\n"),
            Fault::Version => (Status::VersionNotSupported, "only HTTP/1.1 is spoken here\n"),
            Fault::Malformed => (Status::BadRequest, "this is no request of HTTP/1.1\n"),
            Fault::HeadTooLong => (Status::HeadTooLarge, "the headers are too long\n"),
            Fault::TargetTooLong => (Status::UriTooLong, "the path is too long\n"),
            Fault::Method => (Status::MethodNotAllowed, "only GET and HEAD are allowed\n"),
            Fault::UnknownMethod => (Status::NotImplemented, "only GET and HEAD are known\n"),
            Fault::Body => (Status::ContentTooLarge, "no request has a body here\n"),
        };
        self.end(status, line, Error::Fault(fault));
    }

    /// Decides how a request is answered. The event, if the client has just shown a code.
    fn answer(&mut self, now: Instant, request: &Request<'_>) -> Option<Event> {
        let Request { is_head, is_1_1, keeps_alive, .. } = *request;
        self.is_head = is_head;
        if let Some(agent) = request.agent {
            self.slot.occupancy().label().set(agent::product(agent));
        }
        if !self.service.is_own_host(request.host) {
            let line = "this machine has another name; use its address, or give the name with --advertise-name\n";
            self.end(Status::Misdirected, line, Error::ForeignHost);
            return None;
        }
        if !self.service.is_own_origin(request.origin) {
            let line = "this is for pages of this machine alone\n";
            self.end(Status::Forbidden, line, Error::ForeignOrigin);
            return None;
        }
        let say = |status, content| Answer {
            status,
            content,
            is_head,
            is_1_1,
            keeps_alive,
            has_begun: false,
        };
        let done = |answer| Step::Answer(answer, Error::Answered);
        let place = Place::of(request.path, request.query);
        if !place.is_closed() && request.is_from_elsewhere {
            // The page's script would repeat this token in same-origin requests, which are counted as the user's own.
            if let Err(Denied { line, status, why: Some(error), .. }) = self.authorise(now, request)
            {
                self.end(status, line, error);
                return None;
            }
        }
        match place {
            Place::Open(content) => self.step = done(say(Status::Ok, content)),
            Place::Readiness => {
                let is_ready = self.service.is_ready();
                let status = if is_ready { Status::Ok } else { Status::Unavailable };
                self.step = done(say(status, Content::Readiness));
            }
            Place::Nowhere => {
                let content = Content::Line("there is nothing at this path\n");
                self.step = done(say(Status::NotFound, content));
            }
            place @ (Place::Closed(_) | Place::Media(_)) => match self.authorise(now, request) {
                Err(Denied { line, status, why, guess }) => {
                    let is_last = self.wrong.is_full();
                    let answer = say(status, Content::Line(line));
                    let keeps_alive = keeps_alive && !is_last && why.is_none();
                    let last = if is_last { Error::WrongCode } else { Error::Answered };
                    let answer = Answer { keeps_alive, ..answer };
                    self.step = Step::Answer(answer, why.unwrap_or(last));
                    return guess.map(Event::Guessed);
                }
                Ok(shown) => {
                    self.is_wrong = false;
                    if shown == Shown::Code {
                        self.wrong.clear();
                        self.is_exempt = true;
                    }
                    self.step = match place {
                        Place::Media(media) => {
                            let asked = MediaRequest { media, is_head, is_1_1 };
                            Step::Over(Error::Media(asked))
                        }
                        Place::Closed(document) => {
                            let content = Content::Document(document, Cursor::default());
                            let answer = say(Status::Ok, content);
                            // Without chunks the content ends with the connection.
                            done(Answer { keeps_alive: keeps_alive && is_1_1, ..answer })
                        }
                        Place::Open(_) | Place::Readiness | Place::Nowhere => self.step,
                    };
                    if !core::mem::replace(&mut self.is_known, true) {
                        return Some(Event::Shown(shown));
                    }
                }
            },
        }
        None
    }

    /// Checks what the request shows, and counts what is wrong.
    fn authorise(&mut self, now: Instant, request: &Request<'_>) -> Result<Shown, Denied> {
        let Self { service, wrong, is_wrong, is_exempt, slot, .. } = self;
        let peer = slot.occupancy().occupant().get().map_or_else(Peer::unknown, |it| it.peer);
        let (access, is_from_elsewhere) = (&service.access, request.is_from_elsewhere);
        let mut denied = None;
        let place = if is_from_elsewhere { access::ELSEWHERE } else { access::URL };
        let refused = service.refusal(now, place, peer);
        match access
            .check_token(request, as_check(refused.as_ref()).as_ref().map(|it| it as Refuse<'_>))
        {
            Some(Ok(shown)) => return Ok(shown),
            Some(Err(error)) => {
                service.count(now, place, peer, error.guess());
                let why = if is_from_elsewhere { Error::Elsewhere } else { Error::WrongToken };
                denied = Some((error, Some(why)));
            }
            None => {}
        }
        let refused = if is_from_elsewhere {
            refused
        } else if *is_exempt {
            None
        } else {
            service.refusal(now, peer.service, peer)
        };
        let mut guess = None;
        match access
            .check_login(request, as_check(refused.as_ref()).as_ref().map(|it| it as Refuse<'_>))
        {
            Some(Ok(shown)) => return Ok(shown),
            Some(Err(error)) if is_from_elsewhere => {
                service.count(now, place, peer, error.guess());
                denied = Some((error, Some(Error::Elsewhere)));
            }
            Some(Err(error)) => {
                guess = error.guess();
                *is_exempt = false;
                *is_wrong |= guess.is_some();
                if let Some(guess) = guess
                    && !wrong.contains(&guess)
                {
                    // It fits: a full list ends the connection.
                    let _fits = wrong.push(guess);
                }
                let why = denied.and_then(|(_, why)| why);
                denied = Some((error, why));
            }
            None => {}
        }
        let (line, why) = match denied {
            None => ("user bblp, and the printer's access code as the password\n", None),
            Some((LoginError::LockedOut, why)) => (LOCKED_OUT, why),
            Some((LoginError::WrongUser, why)) => ("wrong user name; it is bblp\n", why),
            Some((LoginError::WrongCode(_), why @ Some(Error::WrongToken))) => {
                ("wrong token\n", why)
            }
            Some((LoginError::WrongCode(_), why)) => ("wrong access code\n", why),
        };
        let status = match denied {
            Some((LoginError::LockedOut, _)) => Status::TooManyRequests,
            Some((_, Some(Error::Elsewhere))) if !request.navigates => Status::Forbidden,
            Some(_) | None => Status::Unauthorized,
        };
        Err(Denied { line, status, why, guess })
    }

    /// Writes the next piece of an answer. `None`: there is none left.
    fn write(
        &mut self,
        now: Instant,
        answer: &mut Answer,
        out: &mut [u8],
    ) -> Option<Output<Error>> {
        let service = &self.service;
        let Answer { status, is_head, is_1_1, keeps_alive, .. } = *answer;
        let is_chunked = is_1_1 && matches!(answer.content, Content::Document(..));
        let mut len = 0;
        if !core::mem::replace(&mut answer.has_begun, true) {
            let mut words = [0; 512];
            let line: &[u8] = match answer.content {
                Content::Line(line) => line.as_bytes(),
                Content::Readiness => {
                    let not_ready = NotReady(service);
                    let len = if not_ready.is_so() {
                        // This is shown without a code.
                        write(&mut words, format_args!("{not_ready:#}\n"))
                    } else {
                        write(&mut words, format_args!("ready\n"))
                    };
                    words.get(..len).unwrap_or_default()
                }
                Content::Authority(_) | Content::File(..) | Content::Document(..) => &[],
            };
            let (content_type, content_len) = match answer.content {
                Content::Line(_) | Content::Readiness => {
                    ("text/plain; charset=utf-8", Some(line.len()))
                }
                Content::Authority(_) => {
                    ("application/x-pem-file", Some(service.authority().len()))
                }
                Content::File(file, _) => (file.content_type, Some(file.bytes.len())),
                Content::Document(document, _) => (document.content_type(), None),
            };
            let is_deflated = matches!(answer.content, Content::File(file, _) if file.is_deflated);
            let head = Head {
                status,
                content_type,
                is_deflated,
                len: content_len,
                is_chunked,
                keeps_alive,
                is_1_1,
            };
            len = write(out, format_args!("{head}"));
            if is_head {
                answer.content = Content::Line("");
                return Some(Output::Written(len));
            }
            if let Some(room) = out.get_mut(len..).and_then(|out| out.get_mut(..line.len())) {
                room.copy_from_slice(line);
                len += line.len();
            }
            match answer.content {
                Content::Line(_) | Content::Readiness => {
                    answer.content = Content::Line("");
                    return Some(Output::Written(len));
                }
                Content::File(..) => return Some(Output::Written(len)),
                Content::Authority(_) | Content::Document(..) => {}
            }
        }
        match answer.content {
            Content::Line(_) | Content::Readiness => None,
            Content::Authority(at) => {
                let rest = service.authority().as_bytes().get(at..).unwrap_or_default();
                let room = out.get_mut(len..).unwrap_or_default();
                let most = rest.len().min(room.len());
                for (to, byte) in room.iter_mut().zip(rest) {
                    *to = *byte;
                }
                answer.content = match most < rest.len() {
                    true => Content::Authority(at + most),
                    false => Content::Line(""),
                };
                Some(Output::Written(len + most))
            }
            Content::File(file, at) => {
                let rest = file.bytes.get(at..).unwrap_or_default();
                self.piece = rest.get(..PIECE).unwrap_or(rest);
                answer.content = Content::File(file, at + self.piece.len());
                (!self.piece.is_empty()).then_some(Output::Shared)
            }
            Content::Document(document, cursor) => {
                let source = Source { service, now, reached: self.reached };
                let room = out.get_mut(len..).unwrap_or_default();
                let around =
                    if is_chunked { CHUNK_HEAD + CHUNK_END.len() + LAST_CHUNK.len() } else { 0 };
                let most = room.len().saturating_sub(around);
                let begin = if is_chunked { CHUNK_HEAD } else { 0 };
                let place = room.get_mut(begin..).and_then(|room| room.get_mut(..most));
                let (mut written, next) =
                    document.write(&source, cursor, place.unwrap_or_default());
                if is_chunked {
                    written = frame_chunk(room, written, next.is_none());
                }
                answer.content = match next {
                    Some(next) => Content::Document(document, next),
                    None => Content::Line(""),
                };
                Some(Output::Written(len + written))
            }
        }
    }

    /// The answer has been sent.
    fn answered(&mut self, now: Instant, answer: &Answer, error: Error) {
        self.has_begun = false;
        if answer.keeps_alive {
            let time = if self.is_known { IDLE_TIMEOUT } else { REQUEST_TIMEOUT };
            self.slot.idle_since.set(self.is_known.then_some(now));
            self.until = now + time;
            self.step = Step::Request;
        } else {
            self.until = now + LINGER_TIMEOUT;
            self.step = Step::Linger(MAX_EXCESS, error);
        }
    }
}

/// Why a request is not authorised, and how it is answered.
struct Denied {
    line: &'static str,
    status: Status,
    /// Why the connection ends, if it does at once.
    why: Option<Error>,
    /// A guess that counts at the service itself.
    guess: Option<Guess>,
}

/// The check that stands for the real one while an origin is locked out.
fn as_check(refusal: Option<&Refusal>) -> Option<impl Fn(&[u8], &[u8]) -> LoginError> {
    refusal.map(|refusal| |user: &[u8], code: &[u8]| refusal.error(user, code))
}

/// What a client reads whose origin is locked out.
const LOCKED_OUT: &str = "locked out after wrong access codes; wait a minute\n";

/// Puts the length before a chunk of `len` bytes, a line end behind it, and the last chunk behind that. Bytes in all.
fn frame_chunk(room: &mut [u8], len: usize, is_last: bool) -> usize {
    let mut end = 0;
    if len > 0 {
        write(room, format_args!("{len:04x}\r\n"));
        end = CHUNK_HEAD + len;
    }
    let ends = [if len > 0 { CHUNK_END } else { &[] }, if is_last { LAST_CHUNK } else { &[] }];
    for bytes in ends {
        if let Some(place) = room.get_mut(end..).and_then(|room| room.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
            end += bytes.len();
        }
    }
    end
}

impl Session for Client {
    type Event<'i> = Event;
    type Error = Error;

    fn handle_input(&mut self, now: Instant, input: &[u8]) -> Consumed<Event, Error> {
        match self.step {
            Step::Request => {
                self.slot.idle_since.set(None);
                if !core::mem::replace(&mut self.has_begun, true) && self.is_known {
                    self.until = now + REQUEST_TIMEOUT;
                }
                match wire::next(input) {
                    Ok(None) => Ok((0, None)),
                    Ok(Some((len, request))) => Ok((len, self.answer(now, &request))),
                    Err(fault) => {
                        self.is_head = false;
                        self.end_for(fault);
                        Ok((input.len(), None))
                    }
                }
            }
            Step::Linger(left, error) => match left.checked_sub(input.len()) {
                Some(left) => {
                    self.step = Step::Linger(left, error);
                    Ok((input.len(), None))
                }
                None => Err(error),
            },
            Step::Answer(..) | Step::Over(_) => Ok((0, None)),
        }
    }

    /// Not between a request and its answer.
    fn reads(&self) -> bool {
        matches!(self.step, Step::Request | Step::Linger(..))
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if now < self.until {
            return Ok(());
        }
        match self.step {
            Step::Request if self.has_begun => {
                self.is_head = false;
                self.end(Status::RequestTimeout, "the request takes too long\n", Error::Silent);
                Ok(())
            }
            Step::Request => Err(Error::Idle),
            Step::Linger(_, error) => Err(error),
            Step::Answer(..) | Step::Over(_) => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.reads().then_some(self.until)
    }

    fn poll_output(&mut self, now: Instant, out: &mut [u8]) -> Output<Error> {
        if let SlotState::Dismissed(why) = self.slot.state() {
            return Output::End(match why {
                Dismissal::Stopping => Error::Stopping,
                Dismissal::Idle => Error::Idle,
            });
        }
        match self.step {
            Step::Answer(mut answer, error) => match self.write(now, &mut answer, out) {
                Some(output) => {
                    self.step = Step::Answer(answer, error);
                    output
                }
                None => {
                    self.answered(now, &answer, error);
                    Output::Idle
                }
            },
            Step::Over(error) => Output::End(error),
            Step::Request | Step::Linger(..) => Output::Idle,
        }
    }

    fn shared(&self) -> &[u8] {
        self.piece
    }
}

/// Why a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The last request has been answered.
    Answered,
    /// The client has no further request.
    Idle,
    /// A request has not arrived whole within [`REQUEST_TIMEOUT`].
    Silent,
    /// What arrived is no request that is served.
    Fault(Fault),
    /// The client has shown [`MAX_WRONG`](crate::auth::MAX_WRONG) wrong codes.
    WrongCode,
    /// A URL has a wrong token.
    WrongToken,
    /// A page of another site has shown a wrong code or token.
    Elsewhere,
    /// The request names another host.
    ForeignHost,
    /// The request comes from a page of another site.
    ForeignOrigin,
    /// `BOARD.clients.http` clients have shown a code.
    Full,
    /// The client asks for pictures: the runtime goes on.
    Media(MediaRequest),
    /// The client was sent pictures.
    MediaEnded(media::Error),
    /// The proxy is shutting down.
    Stopping,
}

impl ClientError for Error {
    fn kind(self) -> Kind {
        match self {
            Self::Answered | Self::Idle | Self::Media(_) | Self::Stopping => Kind::Left,
            Self::MediaEnded(media::Error::UnexpectedData) => Kind::Malformed,
            Self::MediaEnded(_) => Kind::Left,
            Self::Silent => Kind::Silent,
            Self::Fault(Fault::HeadTooLong | Fault::TargetTooLong) => Kind::TooLong,
            Self::Fault(_) => Kind::Malformed,
            Self::WrongCode | Self::WrongToken => Kind::WrongCode,
            Self::Elsewhere | Self::ForeignHost | Self::ForeignOrigin => Kind::RequestRefused,
            Self::Full => Kind::Refused,
        }
    }

    fn login_error(self) -> Option<LoginError> {
        (self == Self::WrongCode).then(|| LoginError::WrongCode(Guess::of_no_login()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("request answered"),
            Self::Idle => f.write_str("no further request"),
            Self::Silent => write!(f, "no whole request within {} s", REQUEST_TIMEOUT.as_secs()),
            Self::Fault(fault) => fault.fmt(f),
            Self::WrongCode => f.write_str("wrong access code"),
            Self::WrongToken => f.write_str("wrong token in the URL"),
            Self::Elsewhere => {
                f.write_str("wrong access code or token in a request from a page of another site")
            }
            Self::ForeignHost => {
                f.write_str("request for another host name; --advertise-name adds one")
            }
            Self::ForeignOrigin => f.write_str("request from a page of another site"),
            Self::Full => write!(f, "all {} slots are in use", crate::board::BOARD.clients.http),
            Self::Media(_) => f.write_str("pictures asked for"),
            Self::MediaEnded(error) => error.fmt(f),
            Self::Stopping => f.write_str("proxy is shutting down"),
        }
    }
}

impl core::error::Error for Error {}
