//! `pandaproxy health`: checks that the services of a running proxy answer on their ports.
//!
//! The check runs on the proxy's machine with the proxy's configuration. The ports of MQTT and of detect over TLS have
//! to show a certificate signed by the authority in the state directory ([`greeting`](crate::tls::greeting)); the
//! other port of detect has to answer with the printer's serial number; each other port has to accept a TCP connection.
//! The proxy runs without a port of detect that another program has: that is not unhealthy, and named.
//! The check does not log in: it sends no access code, and does not contact the printer. A proxy whose printer is
//! switched off is healthy; with `--printer` it is not.
//!
//! `pandaproxy status` shows what a running proxy's HTTP service tells, with the access code of the same configuration. The
//! port has no TLS, and any program may listen on it while the proxy does not. So the code is sent only to a listener of the
//! user whose program has shown on the port of MQTT that it is this proxy. Where none has shown that, it is sent to a
//! listener of root's or of the user's own. Root's alone is not enough: its `docker-proxy` holds the ports of all containers.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a port's answer | [`PORT_TIMEOUT`] | it is reported as not answering |
//! | the whole check | [`TIMEOUT`] | the ports that are left are reported as not answering |

pub mod kernel;

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::auth::{AccessCode, MAX_CODE, USER};
use crate::bind::wire::{Answer, MAX_FRAME, Request, frame};
use crate::config::Config;
use crate::memory::KIB;
use crate::tls::greeting::{GreetingError, greet};

/// Time for each port: a small board that is busy needs seconds for a handshake. One that stalls takes none from the others.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the whole check, over all ports.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Ports that are checked at most: one for each listener.
pub const PORTS: usize = 8;

/// The services that answer, and those that the proxy does without. `Display` is
/// `mqtt on 8883, ftp on 990; without detect on 3000: CAUSE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering {
    services: heapless::Vec<(&'static str, u16), PORTS>,
    without: heapless::Vec<Unhealthy, PORTS>,
}

impl fmt::Display for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (service, port)) in self.services.iter().enumerate() {
            let before = if at == 0 { "" } else { ", " };
            write!(f, "{before}{service} on {port}")?;
        }
        for Unhealthy { service, at, why } in &self.without {
            write!(f, "; without {service} on {}: {why}", at.port())?;
        }
        Ok(())
    }
}

/// The first service that does not answer. `Display` is `SERVICE on ADDRESS: CAUSE; HINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    service: &'static str,
    at: SocketAddr,
    why: Why,
}

/// Why a service is unhealthy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// The configured port is 0, which the system replaces by a free one.
    AnyPort,
    /// The port is closed.
    Refused,
    /// The connection is not established in time.
    Silent,
    /// The connection failed otherwise.
    Io(ErrorKind),
    /// The program on the port is not this proxy.
    Greeting(GreetingError),
    /// The program on the port does not answer as this printer.
    OtherPrinter,
    /// The program on the port does not answer as this proxy's HTTP service.
    NotHttp,
    /// The HTTP service has no room for a further client.
    Busy,
    /// The HTTP service does not accept the access code.
    WrongCode,
    /// The HTTP service judges no access code of this machine's for a while.
    LockedOut,
    /// The port is of a program of this user, which is not the proxy's.
    OtherUser(u32),
    /// The port is of a program of this user, and the proxy has not shown who runs it.
    UnknownUser(u32),
    /// No program of this machine listens on the port, or those of several users.
    Unlisted,
    /// The HTTP service, which tells about the printer, is not enabled.
    NoHttp,
    /// The printer is not connected, for this reason.
    NotReady(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, at, why } = self;
        write!(f, "{service} on {at}: {why}")
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyPort => f.write_str("port is 0; the health check needs fixed ports (--port)"),
            Self::Refused => f.write_str("port is closed; has the service started?"),
            Self::Silent => f.write_str("connection timed out"),
            Self::Io(kind) => write!(f, "connection failed: {kind}"),
            Self::Greeting(error) => error.fmt(f),
            Self::OtherPrinter => {
                f.write_str("does not answer as this printer; is another program on this port?")
            }
            Self::NotHttp => {
                f.write_str("does not answer as a status page; is another program on this port?")
            }
            Self::Busy => {
                f.write_str("all its connections are in use; close a status page, or try again in a moment")
            }
            Self::WrongCode => f.write_str("the running proxy has another access code"),
            Self::LockedOut => f.write_str(
                "this machine's address is locked out after wrong access codes; wait a minute",
            ),
            Self::OtherUser(uid) => write!(
                f,
                "held by a program of user {uid}, not by the proxy; it is sent no access code, end it (ss -ltnp names it)"
            ),
            Self::UnknownUser(uid) => write!(
                f,
                "held by a program of user {uid}, perhaps not by the proxy; it is sent no access code, run this as root while the proxy runs"
            ),
            Self::Unlisted => f.write_str(
                "cannot tell which user's program listens there; no access code was sent, run this command on the proxy's machine",
            ),
            Self::NoHttp => f.write_str("the service is not enabled; --services has to name http"),
            Self::NotReady(reason) => write!(f, "the printer is not connected: {reason}"),
        }
    }
}

impl core::error::Error for Unhealthy {}

impl Unhealthy {
    /// Whether a program answers that is not this proxy.
    pub const fn is_foreign(&self) -> bool {
        matches!(self.why, Why::Greeting(_) | Why::OtherPrinter)
    }

    /// Whether a proxy answers that is not this one: that of another printer, or one with another authority.
    pub const fn is_other_proxy(&self) -> bool {
        matches!(
            self.why,
            Why::Greeting(GreetingError::Foreign | GreetingError::OtherPrinter) | Why::OtherPrinter
        )
    }

    /// Whether a program answers, and its authority cannot be read here: it may be this proxy.
    pub const fn is_uncertain(&self) -> bool {
        matches!(self.why, Why::Greeting(GreetingError::NoCa | GreetingError::CaUnreadable(_)))
    }
}

impl Unhealthy {
    /// Whether the HTTP service, which tells about the printer, is not enabled.
    pub fn is_without_http(&self) -> bool {
        self.why == Why::NoHttp
    }
}

/// Whether the proxy runs without this service's port where another program has it.
pub fn is_optional(service: &str) -> bool {
    matches!(service, "detect" | "detect-tls")
}

/// Checks each service of `config` on this machine, for [`TIMEOUT`] at most.
///
/// # Errors
///
/// [`Unhealthy`]: the first service that does not answer.
pub fn check(config: &Config) -> Result<Answering, Unhealthy> {
    let (mut services, mut without) = (heapless::Vec::new(), heapless::Vec::new());
    let mut closed = None;
    for (service, port, answer) in ports(config) {
        // There is an element for each service, so each fits.
        let _fits = match answer {
            Ok(()) => services.push((service, port)).is_ok(),
            // The printer may have shown that it has no such port.
            Err(error) if error.why == Why::Refused && config.is_open(service).is_none() => {
                closed = closed.or(Some(error));
                true
            }
            Err(error) if is_optional(service) => without.push(error).is_ok(),
            Err(error) => return Err(error),
        };
    }
    match closed.or_else(|| without.first().cloned()) {
        Some(error) if services.is_empty() => Err(error),
        Some(_) | None => Ok(Answering { services, without }),
    }
}

/// Whether the service answers at this address.
fn answer(config: &Config, service: &str, at: SocketAddr, deadline: Instant) -> Result<(), Why> {
    let mut connection = Connection::open(at, deadline)?;
    match service {
        "mqtt" | "detect-tls" => {
            greet(&config.ca_dir, &config.serial, &mut connection, SystemTime::now)
                .map_err(Why::Greeting)
        }
        "detect" => detect(&config.serial, &mut connection),
        "http" => ask(&mut connection, "/livez", None, &mut io::sink()).map(drop),
        _ => Ok(()),
    }
}

/// Each service of `config` that has its port open, and whether it answers on this machine. Each is asked as it is
/// taken, and answers within [`PORT_TIMEOUT`], all of them within [`TIMEOUT`].
pub fn ports(
    config: &Config,
) -> impl Iterator<Item = (&'static str, u16, Result<(), Unhealthy>)> + '_ {
    let end = Instant::now() + TIMEOUT;
    let open = config.listening().filter(|(service, _)| config.is_open(service) != Some(false));
    open.map(move |(service, port)| {
        let at = SocketAddr::new(own_address(config.bind_of(service)), port);
        (service, port, answers(config, service, at, deadline().min(end)))
    })
}

/// When a port that is asked now has to have answered.
pub fn deadline() -> Instant {
    Instant::now() + PORT_TIMEOUT
}

/// Whether a service shows at its port that it is this proxy's.
pub fn has_identity(service: &str) -> bool {
    matches!(service, "mqtt" | "detect" | "detect-tls")
}

/// Whether `service` answers at this address.
///
/// # Errors
///
/// [`Unhealthy`].
pub fn answers(
    config: &Config,
    service: &'static str,
    at: SocketAddr,
    deadline: Instant,
) -> Result<(), Unhealthy> {
    answer(config, service, at, deadline).map_err(|why| Unhealthy { service, at, why })
}

/// Checks that the proxy is connected to the printer, as its HTTP service tells.
///
/// # Errors
///
/// It is not, or the service does not answer.
pub fn check_printer(config: &Config) -> Result<(), Unhealthy> {
    let at = http_address(config)?;
    let unhealthy = |why| Unhealthy { service: "http", at, why };
    let mut connection = connect(at).map_err(unhealthy)?;
    let mut reason = Cut::default();
    let status = ask(&mut connection, "/readyz", None, &mut reason).map_err(unhealthy)?;
    match status {
        200 => Ok(()),
        503 => Err(unhealthy(Why::NotReady(reason.line()))),
        _ => Err(unhealthy(Why::NotHttp)),
    }
}

/// Writes what the HTTP service of the running proxy shows: for people, or as JSON.
///
/// # Errors
///
/// The service does not answer, or has another access code.
pub fn show_status(config: &Config, is_json: bool, out: &mut impl Write) -> Result<(), Unhealthy> {
    let at = http_address(config)?;
    let unhealthy = |why| Unhealthy { service: "http", at, why };
    let user = || kernel::user_at(at.ip(), at.port());
    let may_hold = |uid| check_holder(config, uid);
    let connection = connect_to_holder(user, may_hold, || connect(at));
    let mut connection = connection.map_err(unhealthy)?;
    let path = if is_json { "/status" } else { "/status.txt" };
    show(&mut connection, path, &config.code, out).map_err(unhealthy)
}

/// Writes what is at `path` for those who show the access code.
fn show(
    connection: &mut Connection,
    path: &str,
    code: &AccessCode,
    out: &mut impl Write,
) -> Result<(), Why> {
    match ask(connection, path, Some(code), out)? {
        200 => Ok(()),
        401 => Err(Why::WrongCode),
        429 => Err(Why::LockedOut),
        503 => Err(Why::Busy),
        _ => Err(Why::NotHttp),
    }
}

/// Where the proxy's HTTP service is.
fn http_address(config: &Config) -> Result<SocketAddr, Unhealthy> {
    let at = SocketAddr::new(own_address(config.bind_of("http")), config.ports.http);
    if !config.services.http {
        return Err(Unhealthy { service: "http", at, why: Why::NoHttp });
    }
    Ok(at)
}

fn connect(at: SocketAddr) -> Result<Connection, Why> {
    Connection::open(at, deadline())
}

/// Connects to a port that is of one `user` before and after, who `may_hold` it: a program may leave the port to another one in
/// between.
fn connect_to_holder<T>(
    user: impl Fn() -> Option<u32>,
    may_hold: impl FnOnce(u32) -> Result<(), Why>,
    connect: impl FnOnce() -> Result<T, Why>,
) -> Result<T, Why> {
    let Some(uid) = user() else {
        // A closed port says so itself.
        drop(connect()?);
        return Err(Why::Unlisted);
    };
    may_hold(uid)?;
    let connection = connect()?;
    match user() {
        Some(now) if now == uid => Ok(connection),
        Some(now) => Err(Why::UnknownUser(now)),
        None => Err(Why::Unlisted),
    }
}

/// Whether a program of this user, which has the port of HTTP, may be sent the access code.
fn check_holder(config: &Config, uid: u32) -> Result<(), Why> {
    let is_trusted = uid == ROOT || Some(uid) == kernel::own_user();
    if !config.services.mqtt {
        return if is_trusted { Ok(()) } else { Err(Why::UnknownUser(uid)) };
    }
    let mqtt = SocketAddr::new(own_address(config.bind_of("mqtt")), config.ports.mqtt);
    let runs_proxy = kernel::user_at(mqtt.ip(), mqtt.port());
    let is_proxy = runs_proxy.is_some() && answer(config, "mqtt", mqtt, deadline()).is_ok();
    match judge(uid, runs_proxy.filter(|_| is_proxy)) {
        Err(Why::UnknownUser(_)) if is_trusted => Ok(()),
        judged => judged,
    }
}

/// Judges the user of a port by the one that runs the proxy, if that is known.
fn judge(uid: u32, runs_proxy: Option<u32>) -> Result<(), Why> {
    match runs_proxy {
        None => Err(Why::UnknownUser(uid)),
        Some(user) if user == uid => Ok(()),
        Some(_) => Err(Why::OtherUser(uid)),
    }
}

/// The user who may do everything, and needs no access code for it.
const ROOT: u32 = 0;

/// Bytes of a reason that are shown.
const MAX_REASON: usize = 200;

/// The first bytes of an answer.
#[derive(Default)]
struct Cut(heapless::Vec<u8, MAX_REASON>);

impl Cut {
    fn line(&self) -> String {
        // The last character may be cut.
        let text = self.0.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        text.lines().next().unwrap_or_default().into()
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.capacity() - self.0.len();
        let kept = bytes.get(..room).unwrap_or(bytes);
        // It fits: that is the room there is.
        let _fits = self.0.extend_from_slice(kept);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of an answer that are read: another program may have the port. A status with every slot of the largest board in use
/// has some 30 KiB.
const MAX_ANSWER: usize = 256 * KIB;

/// Asks the HTTP service for what is at `path`, with an access code if one is given. Writes the content of a good answer
/// to `out`, and without a code that of a 503, which says why the proxy is not ready; [`MAX_ANSWER`] at most. Returns the
/// status.
fn ask(
    connection: &mut Connection,
    path: &str,
    code: Option<&AccessCode>,
    out: &mut impl Write,
) -> Result<u16, Why> {
    const LOGIN: usize = USER.len() + 1 + MAX_CODE;
    let lost = |error: io::Error| {
        let kind = error.kind();
        let is_late = matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock);
        if is_late { Why::Silent } else { Why::Io(kind) }
    };
    let mut request = Zeroizing::new(heapless::Vec::<u8, 256>::new());
    let mut add = |bytes: &[u8]| request.extend_from_slice(bytes).map_err(|_| Why::NotHttp);
    add(b"GET ")?;
    add(path.as_bytes())?;
    add(b" HTTP/1.0\r\n")?;
    if let Some(code) = code {
        let mut login = Zeroizing::new(heapless::Vec::<u8, LOGIN>::new());
        for part in [USER.as_bytes(), b":", code.reveal()] {
            login.extend_from_slice(part).map_err(|_| Why::NotHttp)?;
        }
        let mut encoded = Zeroizing::new([0; LOGIN.div_ceil(3) * 4]);
        let len = STANDARD.encode_slice(&*login, &mut *encoded).map_err(|_| Why::NotHttp)?;
        add(b"Authorization: Basic ")?;
        add(encoded.get(..len).unwrap_or_default())?;
        add(b"\r\n")?;
    }
    add(b"\r\n")?;
    connection.write_all(&request).map_err(lost)?;
    let mut bytes = [0; 4096];
    let mut filled = 0;
    // The head comes in one piece, and is read whole.
    let end = loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        let read = connection.read(room).map_err(lost)?;
        filled += read;
        let head = bytes.get(..filled).unwrap_or_default();
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if read == 0 {
            return Err(Why::NotHttp);
        }
    };
    let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
    let status: u16 = status.ok_or(Why::NotHttp)?;
    if status == 200 || status == 503 && code.is_none() {
        out.write_all(bytes.get(end..filled).unwrap_or_default()).map_err(lost)?;
        loop {
            let read = connection.read(&mut bytes).map_err(lost)?;
            if read == 0 {
                break;
            }
            filled += read;
            if filled > MAX_ANSWER {
                return Err(Why::NotHttp);
            }
            out.write_all(bytes.get(..read).unwrap_or_default()).map_err(lost)?;
        }
    }
    Ok(status)
}

/// Asks the proxy which printer it is.
fn detect(serial: &str, connection: &mut Connection) -> Result<(), Why> {
    let lost = |error: io::Error| {
        let kind = error.kind();
        let is_late = matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock);
        if is_late { Why::Silent } else { Why::Io(kind) }
    };
    let mut bytes = [0; MAX_FRAME];
    let len = Request::write_detect(&mut bytes).unwrap_or_default();
    connection.write_all(bytes.get(..len).unwrap_or_default()).map_err(lost)?;
    let mut filled = 0;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        // A frame that is complete or invalid ends this before there is no room.
        let read = connection.read(room).map_err(lost)?;
        filled += read;
        let frame = frame(bytes.get(..filled).unwrap_or_default());
        let answer = match frame {
            Ok(Some(json)) => Answer::parse(json),
            Ok(None) if read > 0 => continue,
            Ok(None) | Err(_) => return Err(Why::OtherPrinter),
        };
        return match answer {
            Ok(Answer::Detected(told)) if told.id.meant::<32>().is_some_and(|id| id == serial) => {
                Ok(())
            }
            Ok(_) | Err(_) => Err(Why::OtherPrinter),
        };
    }
}

/// The address at which a listener bound to `bind` is reached from the same machine.
const fn own_address(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => bind,
    }
}

/// A TCP connection with one deadline for all reads and writes.
struct Connection {
    stream: TcpStream,
    deadline: Instant,
}

impl Connection {
    fn open(at: SocketAddr, deadline: Instant) -> Result<Self, Why> {
        if at.port() == 0 {
            return Err(Why::AnyPort);
        }
        let left = left(deadline).map_err(|_| Why::Silent)?;
        match TcpStream::connect_timeout(&at, left) {
            Ok(stream) => Ok(Self { stream, deadline }),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(Why::Refused),
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Why::Silent),
            Err(error) => Err(Why::Io(error.kind())),
        }
    }
}

/// The time until `deadline`. Never zero, which the socket would take for no timeout.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(bytes)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<String> {
    use alloc::string::ToString;
    let causes = [
        Why::AnyPort,
        Why::Refused,
        Why::Silent,
        Why::Io(ErrorKind::HostUnreachable),
        Why::Greeting(GreetingError::Foreign),
        Why::OtherPrinter,
        Why::NotHttp,
        Why::Busy,
        Why::WrongCode,
        Why::LockedOut,
        Why::OtherUser(1000),
        Why::UnknownUser(1000),
        Why::Unlisted,
        Why::NoHttp,
        Why::NotReady("mqtt: the printer does not answer".into()),
    ];
    let at = SocketAddr::from(([127, 0, 0, 1], 8883));
    let unhealthy = causes.map(|why| Unhealthy { service: "mqtt", at, why }.to_string());
    let at = SocketAddr::from(([127, 0, 0, 1], 3000));
    let without = Unhealthy { service: "detect", at, why: Why::OtherPrinter };
    let answering = Answering {
        services: [("mqtt", 8883), ("ftp", 990)].into_iter().collect(),
        without: [without].into_iter().collect(),
    };
    unhealthy.into_iter().chain([answering.to_string()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn the_code_is_sent_to_the_user_that_runs_the_proxy() {
        assert_eq!(judge(998, Some(998)), Ok(()));
        assert_eq!(judge(1000, Some(998)), Err(Why::OtherUser(1000)));
        assert_eq!(judge(1000, None), Err(Why::UnknownUser(1000)));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        for before in 0..3 {
            let mut cut = Cut::default();
            let reason = alloc::format!("{}{}", "x".repeat(before), "€".repeat(MAX_REASON));
            cut.write_all(reason.as_bytes()).unwrap();
            let line = cut.line();
            assert!(reason.starts_with(&line) && line.len() > MAX_REASON - 3, "{line}");
        }
    }

    #[test]
    fn the_holder_of_the_port_is_looked_up_again() {
        let holders = [
            (Some(1000), Err(Why::UnknownUser(1000))),
            (None, Err(Why::Unlisted)),
            (Some(998), Ok(())),
        ];
        for (later, expected) in holders {
            let user = core::cell::Cell::new(Some(998));
            let connect = || {
                user.set(later);
                Ok(())
            };
            assert_eq!(connect_to_holder(|| user.get(), |_| Ok(()), connect), expected);
        }
        let closed = connect_to_holder(|| None, |_| Ok(()), || Err::<(), _>(Why::Refused));
        assert_eq!(closed, Err(Why::Refused));
    }

    /// What a listener answers to one request, as `show` has it.
    fn shown(answer: &'static str) -> (Result<(), Why>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 256]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let mut connection = Connection::open(at, deadline()).unwrap();
        let (code, mut out) = (AccessCode::new(b"12345678").unwrap(), Vec::new());
        let result = show(&mut connection, "/status", &code, &mut out);
        answering.join().unwrap();
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_refused_status_is_told_from_another_program() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", Ok(())),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nall clients are busy", Err(Why::Busy)),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nno", Err(Why::WrongCode)),
            ("HTTP/1.1 429 Too Many Requests\r\n\r\nno", Err(Why::LockedOut)),
            ("HTTP/1.1 404 Not Found\r\n\r\nno", Err(Why::NotHttp)),
            ("220 ready\r\n\r\n", Err(Why::NotHttp)),
        ] {
            let content = if expected.is_ok() { "{}" } else { "" };
            assert_eq!(shown(answer), (expected, content.into()), "{answer}");
        }
        let at = SocketAddr::from(([127, 0, 0, 1], 8080));
        let busy = alloc::format!("{}", Unhealthy { service: "http", at, why: Why::Busy });
        assert!(busy.contains("in use") && busy.contains("try again"), "{busy}");
    }

    #[test]
    fn an_answer_without_end_is_read_to_its_limit() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let endless = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while written.is_ok() {
                written = stream.write_all(&[b'x'; 4096]);
            }
        });
        let mut connection = Connection::open(at, deadline()).unwrap();
        let mut read = Vec::new();
        assert_eq!(ask(&mut connection, "/status", None, &mut read), Err(Why::NotHttp));
        assert!((MAX_ANSWER - 8192..=MAX_ANSWER).contains(&read.len()), "{}", read.len());
        drop(connection);
        endless.join().unwrap();
    }
}
