//! FTP: lines, commands and replies, and both sessions.

use core::net::{IpAddr, Ipv4Addr};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::clock::Instant;
use pandaproxy::ftp::client::{Client, LOGIN_TIMEOUT};
use pandaproxy::ftp::printer_session::{DataCommand, DataEvent, PrinterSession, TransferError};
use pandaproxy::ftp::slot::{PassivePort, Slot};
use pandaproxy::ftp::upstream::Upstream;
use pandaproxy::ftp::wire::{self, LINE, Part, Replies, Shown, Taken};
use pandaproxy::ftp::{ClientHandler, ClientLink, ClientRuntime, Link, Service};
use pandaproxy::memory::budget::{FTP_INBOX, FTP_OUTBOX};
use pandaproxy::peer::Peer;
use pandaproxy::service::Service as _;

use super::conversation::{Conversation, Script, both_ways};

/// Lines, as commands and as replies.
pub(crate) fn wire(data: &[u8]) {
    let mut rest = data;
    let mut replies = Replies::default();
    loop {
        let (text, len) = match wire::line(rest) {
            Taken::Line(text, len) => (text, len),
            Taken::Partial => return assert!(rest.len() < LINE),
            Taken::TooLong => return assert!(rest.len() >= LINE),
        };
        assert!(text.len() < len && len <= LINE && !text.contains(&b'\n'));
        if let Ok(command) = wire::command(text) {
            assert!(text.ends_with(command.line) && command.line.ends_with(command.argument));
            assert!(!command.line.iter().any(|byte| b"\r\n\0".contains(byte)));
        }
        let was_open = replies.is_open();
        match replies.take(text) {
            Some(Part::More(_)) => assert!(replies.is_open()),
            Some(Part::Last(code)) => {
                assert!(!replies.is_open() && (100..700).contains(&code));
                _ = wire::size_in(code, text);
                if let Some(port) = wire::passive_port(code, text) {
                    let mut written = String::new();
                    wire::write_229(&mut written, port).unwrap();
                    assert_eq!(wire::passive_port(229, written.as_bytes()), Some(port));
                    written.clear();
                    wire::write_227(&mut written, Ipv4Addr::new(10, 1, 2, 3), port).unwrap();
                    assert_eq!(wire::passive_port(227, written.as_bytes()), Some(port));
                }
            }
            None => assert!(!was_open),
        }
        let mut path = heapless::Vec::<u8, 64>::new();
        if wire::quoted(text, &mut path) {
            assert!(!path.is_empty() && path.len() < text.len());
        }
        let shown = Shown(text).to_string();
        assert!(!shown.contains(char::is_control) && shown.len() < 1024, "{shown:?}");
        rest = &rest[len..];
    }
}

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

fn service() -> Rc<Service> {
    Service::new(AccessCode::new(b"12345678").unwrap(), 1)
}

/// The runtime's part for a client: a data port is always free.
struct PassivePorts {
    slot: Rc<Slot>,
}

impl ClientRuntime for PassivePorts {
    fn admitted(&self) {}

    fn open_passive_port(&self) -> Option<u16> {
        self.slot.open_passive_port(Instant::START + Duration::from_secs(3600));
        Some(2024)
    }
}

fn client_at(link: &ClientLink) -> Conversation<Client, ClientHandler<'_, PassivePorts>> {
    let client = link.client(PROXY, Instant::START + LOGIN_TIMEOUT);
    let front = PassivePorts { slot: Rc::clone(link.slot()) };
    Conversation::new((client, link.handler(front)), FTP_INBOX, FTP_OUTBOX)
}

/// Whether the future is ready at once.
fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Moves a transfer's data at once: all of it, or, if `fails`, none.
fn mover(printer_session: &PrinterSession, now: Instant, fails: bool) -> Option<DataEvent> {
    let news = match now_or_never(printer_session.next_command())? {
        DataCommand::Connect { .. } => DataEvent::Connected,
        DataCommand::Copy(_) if fails => DataEvent::Failed(TransferError::Printer),
        DataCommand::Copy(_) => {
            printer_session.add_progress(now, 1000);
            DataEvent::Copied
        }
        DataCommand::Close => return None,
    };
    printer_session.report(news);
    Some(news)
}

/// A printer that obeys each command.
struct Printer {
    service: Rc<Service>,
    upstream: Option<Conversation<Upstream, Link>>,
    heard: Vec<u8>,
    /// Every command received.
    lines: Vec<String>,
}

impl Printer {
    fn attend(&mut self, now: Instant, fails: bool) -> bool {
        let printer_session = Rc::clone(&self.service.printer_sessions()[0]);
        if self.upstream.is_none() {
            if now_or_never(self.service.wanted(|| now, &printer_session)).is_none() {
                return false;
            }
            let ends = self.service.upstream(now, 0).expect("there is one printer session");
            let mut upstream = Conversation::new(ends, FTP_INBOX, FTP_OUTBOX).begun(now);
            upstream.hear(b"220 (vsFTPd 3.0.3)\r\n", &mut |_| false);
            self.upstream = Some(upstream);
        }
        let Some(upstream) = &mut self.upstream else { return false };
        upstream.reach(now);
        let mut moved = upstream.step();
        self.heard.append(&mut upstream.take_said());
        while let Taken::Line(line, len) = wire::line(&self.heard) {
            let line = String::from_utf8_lossy(line).into_owned();
            self.heard.drain(..len);
            upstream.hear(answer(&line).as_bytes(), &mut |_| false);
            self.lines.push(line);
            moved = true;
        }
        match mover(&printer_session, now, fails) {
            Some(DataEvent::Copied) => upstream.hear(b"226 Transfer complete.\r\n", &mut |_| false),
            Some(DataEvent::Failed(_)) => upstream.hear(b"426 Failure.\r\n", &mut |_| false),
            Some(DataEvent::Connected | DataEvent::Unreachable) => {}
            None => {
                if let Some(end) = upstream.end {
                    self.service.lost(now, &printer_session, &end, Duration::ZERO);
                    self.upstream = None;
                    self.heard.clear();
                }
                return moved;
            }
        }
        true
    }
}

/// vsFTPd's reply to this command.
fn answer(line: &str) -> &'static str {
    match line.split(' ').next().unwrap_or_default() {
        "USER" => "331 Please specify the password.\r\n",
        "PASS" => "230 Login successful.\r\n",
        "FEAT" => "211-Features:\r\n EPSV\r\n SIZE\r\n UTF8\r\n REST STREAM\r\n211 End\r\n",
        "PWD" => "257 \"/timelapse\" is the current directory\r\n",
        "EPSV" => "229 Entering Extended Passive Mode (|||2025|)\r\n",
        "PASV" => "227 Entering Passive Mode (0,0,0,0,7,233).\r\n",
        "SIZE" => "213 1000\r\n",
        "REST" | "RNFR" => "350 Ready.\r\n",
        "STOR" | "APPE" | "STOU" | "RETR" | "LIST" | "NLST" | "MLSD" => "150 Ok to send data.\r\n",
        "QUIT" => "221 Goodbye.\r\n",
        _ => "250 Done.\r\n",
    }
}

/// A client's bytes. First flag: it never connects to its data port. Second: each transfer fails.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let link = service.pending(Peer::unknown()).unwrap();
        let mut client = client_at(&link);
        let (heard, lines) = (Vec::new(), Vec::new());
        let mut printer = Printer { service: Rc::clone(&service), upstream: None, heard, lines };
        script.play(&mut client, cut, &mut |now| {
            let mut moved = printer.attend(now, script.flag(1));
            if matches!(link.slot().passive_port(), PassivePort::Open { .. }) && !script.flag(0) {
                link.connected(now);
                moved = true;
            }
            moved
        });
        let said = client.take_said();
        assert!(said.is_empty() || said.ends_with(b"\r\n"), "half a line was said");
        let mut replies = Replies::default();
        for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            assert!(replies.take(line).is_some(), "{}", said.escape_ascii());
        }
        let end = client.end;
        drop(client);
        drop(link);
        assert_eq!((service.connections(), service.clients()), (0, 0));
        (String::from_utf8_lossy(&said).into_owned(), printer.lines, end)
    });
}

/// The printer's bytes. First flag: its data port does not answer. Second: each transfer fails.
pub(crate) fn upstream(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let link = service.pending(Peer::unknown()).unwrap();
        let mut client = client_at(&link);
        client.hear(b"USER bblp\r\n", &mut |_| false);
        client.hear(b"PASS 12345678\r\n", &mut |_| false);
        let printer_session = Rc::clone(&service.printer_sessions()[0]);
        let ends = service.upstream(Instant::START, 0).expect("there is one printer session");
        let mut printer = Conversation::new(ends, FTP_INBOX, FTP_OUTBOX);
        let mut asked = 0;
        script.play(&mut printer, cut, &mut |now| {
            client.reach(now);
            let mut moved = client.step();
            if matches!(link.slot().passive_port(), PassivePort::Open { .. }) {
                link.connected(now);
                moved = true;
            }
            if link.slot().task().is_none() && link.slot().is_quiet() && asked < ASKED.len() {
                client.hear(ASKED[asked], &mut |_| false);
                asked += 1;
                moved = true;
            }
            if script.flag(0) {
                if let Some(DataCommand::Connect { .. }) =
                    now_or_never(printer_session.next_command())
                {
                    printer_session.report(DataEvent::Unreachable);
                    moved = true;
                }
                return moved;
            }
            moved | mover(&printer_session, now, script.flag(1)).is_some()
        });
        let said = client.take_said();
        (
            String::from_utf8_lossy(&printer.take_said()).into_owned(),
            printer.end,
            String::from_utf8_lossy(&said).into_owned(),
            client.end,
        )
    });
}

/// The client's commands; each is sent when the one before has been answered.
const ASKED: [&[u8]; 16] = [
    b"FEAT\r\n",
    b"CWD /cache\r\n",
    b"EPSV\r\n",
    b"LIST\r\n",
    b"SIZE /a.3mf\r\n",
    b"TYPE I\r\n",
    b"PROT P\r\n",
    b"PASV\r\n",
    b"STOR /a.3mf\r\n",
    b"REST 10\r\n",
    b"EPSV\r\n",
    b"RETR /a.3mf\r\n",
    b"RNFR /a.3mf\r\n",
    b"RNTO /b.3mf\r\n",
    b"DELE /b.3mf\r\n",
    b"QUIT\r\n",
];
