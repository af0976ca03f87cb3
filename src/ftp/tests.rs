//! The service without a socket: clients, hub and a printer's session as pure state machines, driven
//! by hand and by a virtual clock.

mod clients;
mod failures;
pub(crate) mod hostile;
mod jobs;
mod waking;

pub(crate) use super::*;
pub(crate) use crate::ftp::hub::QUEUE_TIMEOUT;
pub(crate) use crate::ftp::printer_session::{DataCommand, DataCopy, DataEvent, TransferError};
pub(crate) use crate::ftp::slot::{PASSIVE_PORT_TIMEOUT, PassivePort, Prot};
pub(crate) use crate::ftp::upstream::{ABORTED_TIMEOUT, IDLE_TIMEOUT, STORED_TIMEOUT};
pub(crate) use crate::session::{Output, Session};
pub(crate) use alloc::format;
pub(crate) use alloc::string::String;
pub(crate) use alloc::vec::Vec;
pub(crate) use core::net::Ipv4Addr;
pub(crate) use core::pin::pin;
pub(crate) use core::task::{Context, Poll, Waker};

pub(crate) const CODE: &[u8] = b"12345678";
pub(crate) const REACHED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(crate) const PORT: u16 = 2024;

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

pub(crate) fn service(sessions: usize) -> Rc<Service> {
    Service::new(AccessCode::new(CODE).unwrap(), sessions)
}

/// A service with one session of the printer's, which is logged in, and a client that is logged in.
pub(crate) fn inside() -> (Printer, TestClient) {
    let service = service(1);
    (Printer::live(&service), TestClient::inside(&service))
}

/// The same, where the client is [`ready`](TestClient::ready) for a transfer.
pub(crate) fn ready() -> (Printer, TestClient) {
    let service = service(1);
    (Printer::live(&service), TestClient::ready(&service))
}

/// Whether it completes at once.
pub(crate) fn is_ready(future: impl Future<Output = ()>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A client's session, driven by hand.
pub(crate) struct TestClient {
    pub(crate) link: ClientLink,
    pub(crate) client: Client,
    pub(crate) input: Vec<u8>,
    pub(crate) ended: Option<client::Error>,
    pub(crate) now: Instant,
}

pub(crate) struct Ports;

impl ClientRuntime for Ports {
    fn admitted(&self) {}
    fn open_passive_port(&self) -> Option<u16> {
        Some(PORT)
    }
}

impl TestClient {
    pub(crate) fn new(service: &Rc<Service>) -> Self {
        let link = service.pending(Peer::unknown()).unwrap();
        let client = link.client(REACHED, at(15));
        Self { link, client, input: Vec::new(), ended: None, now: at(0) }
    }

    /// A client that is logged in.
    pub(crate) fn inside(service: &Rc<Service>) -> Self {
        let mut client = Self::new(service);
        let reply = client.command("USER bblp\r\nPASS 12345678");
        assert!(reply.ends_with("230 Logged in\r\n"), "{reply}");
        client
    }

    /// A client with TYPE I and PROT P that has connected to its data port.
    pub(crate) fn ready(service: &Rc<Service>) -> Self {
        let mut client = Self::inside(service);
        client.command("TYPE I\r\nPROT P");
        client.connect();
        client
    }

    pub(crate) fn connect(&mut self) {
        assert_eq!(self.command("EPSV"), "229 Entering Extended Passive Mode (|||2024|)\r\n");
        self.link.connected(self.now);
    }

    /// Sends a line. Returns the replies so far.
    pub(crate) fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes())
    }

    /// Sends a line that the printer receives, and gets its answer.
    pub(crate) fn asks(&mut self, printer: &mut Printer, line: &str, answer: &str) {
        assert_eq!(self.command(line), "");
        printer.exchange(&[(line, answer)]);
        assert_eq!(self.read(), format!("{answer}\r\n"));
    }

    /// Aborts its command.
    pub(crate) fn aborts(&mut self) {
        assert_eq!(self.command("ABOR"), "426 Transfer aborted\r\n226 Abort successful\r\n");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> String {
        self.input.extend_from_slice(bytes);
        self.read()
    }

    /// The replies to the lines that it has sent, so far.
    pub(crate) fn read(&mut self) -> String {
        let mut received = Vec::new();
        let mut out = [0; budget::FTP_OUTBOX];
        loop {
            let mut idle = true;
            if let Output::Written(len) = self.client.poll_output(self.now, &mut out) {
                received.extend_from_slice(&out[..len]);
                idle = false;
            }
            if self.ended.is_none() {
                match self.client.handle_input(self.now, &self.input) {
                    Ok((taken, event)) => {
                        self.input.drain(..taken);
                        idle &= taken == 0;
                        if let Some(event) = event {
                            let host = self.link.handler(Ports);
                            host.handle_event(self.now, &mut self.client, event).unwrap();
                        }
                    }
                    Err(error) => {
                        self.ended = Some(error);
                        idle = false;
                    }
                }
            }
            if idle {
                return String::from_utf8(received).unwrap();
            }
        }
    }
}

/// The printer's end of a session.
pub(crate) struct Printer {
    pub(crate) service: Rc<Service>,
    pub(crate) printer_session: Rc<PrinterSession>,
    pub(crate) upstream: Upstream,
    pub(crate) input: Vec<u8>,
    pub(crate) now: Instant,
}

impl Printer {
    /// A session that has logged in.
    pub(crate) fn live(service: &Rc<Service>) -> Self {
        Self::live_at(service, 0)
    }

    pub(crate) fn live_at(service: &Rc<Service>, printer_session: usize) -> Self {
        let (upstream, _link) = service.upstream(at(0), printer_session).unwrap();
        let printer_session = Rc::clone(&service.printer_sessions()[printer_session]);
        let service = Rc::clone(service);
        let mut printer =
            Self { service, printer_session, upstream, input: Vec::new(), now: at(0) };
        assert_eq!(printer.received(), "");
        for (answer, next) in [
            ("220-Hello\r\n220 there", "USER bblp\r\n"),
            ("331 And?", "PASS 12345678\r\n"),
            ("230 In", "PBSZ 0\r\n"),
            ("200 OK", "PWD\r\n"),
        ] {
            assert_eq!(printer.reply(answer), next);
        }
        printer.answers("257 \"/\"").unwrap();
        printer
    }

    /// The lines that the printer receives now.
    pub(crate) fn received(&mut self) -> String {
        let mut out = [0; budget::FTP_OUTBOX];
        let mut received = String::new();
        while let Output::Written(len) = self.upstream.poll_output(self.now, &mut out) {
            received.push_str(core::str::from_utf8(&out[..len]).unwrap());
        }
        received
    }

    pub(crate) fn answers(&mut self, lines: &str) -> Result<(), upstream::Error> {
        self.input.extend_from_slice(lines.as_bytes());
        self.input.extend_from_slice(b"\r\n");
        self.reads()
    }

    pub(crate) fn reads(&mut self) -> Result<(), upstream::Error> {
        loop {
            let (taken, _) = self.upstream.handle_input(self.now, &self.input)?;
            self.input.drain(..taken);
            if taken == 0 {
                return Ok(());
            }
        }
    }

    /// Sends a reply. Returns the lines that the printer receives next.
    pub(crate) fn reply(&mut self, lines: &str) -> String {
        self.answers(lines).unwrap();
        self.received()
    }

    /// Expects each command, and sends the reply beside it.
    pub(crate) fn exchange(&mut self, script: &[(&str, &str)]) {
        for (expected, answer) in script {
            let received = self.received();
            assert_eq!(received, format!("{expected}\r\n"));
            self.answers(answer).unwrap();
        }
    }

    pub(crate) fn data_command(&self) -> Option<DataCommand> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(self.printer_session.next_command()).poll(&mut cx) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    pub(crate) fn copy(&self, bytes: usize) {
        self.printer_session.add_progress(self.now, bytes);
    }

    /// Begins a transfer, up to the copying: a client that is [`ready`](TestClient::ready) has sent `line`.
    pub(crate) fn begin(&mut self, line: &str) {
        self.begin_with(line, "150 Go on");
    }

    /// Begins a transfer whose 150 is `answer`.
    pub(crate) fn begin_with(&mut self, line: &str, answer: &str) {
        self.prepares();
        self.opens_with(line, answer);
    }

    /// Has `client`, which is [`ready`](TestClient::ready), begin a transfer, up to the copying.
    pub(crate) fn starts(&mut self, client: &mut TestClient, line: &str) {
        assert_eq!(client.command(line), "");
        self.begin(line);
        assert_eq!(client.read(), "150 Go on\r\n");
    }

    /// Answers the settings before a client's first transfer.
    pub(crate) fn prepares(&mut self) {
        self.exchange(&[
            ("TYPE I", "200 OK"),
            ("PROT P", "200 OK"),
            ("EPSV", "229 ok (|||50077|)"),
        ]);
    }

    /// The printer's data port accepts the connection, before which nothing is asked.
    pub(crate) fn connects(&mut self) {
        assert_eq!(self.received(), "");
        assert_eq!(self.data_command(), Some(DataCommand::Connect { port: 50077 }));
        self.printer_session.report(DataEvent::Connected);
    }

    /// All data are copied.
    pub(crate) fn copies(&mut self) {
        self.printer_session.report(DataEvent::Copied);
        assert_eq!(self.received(), "");
    }

    /// All data are copied, and the printer confirms it.
    pub(crate) fn completes(&mut self) {
        self.copies();
        self.answers("226 Done").unwrap();
    }

    pub(crate) fn opens(&mut self, line: &str) {
        self.opens_with(line, "150 Go on");
    }

    pub(crate) fn opens_with(&mut self, line: &str, answer: &str) {
        self.connects();
        self.exchange(&[(line, answer)]);
        assert!(matches!(self.data_command(), Some(DataCommand::Copy(_))));
    }

    pub(crate) fn lose(&self, why: &str) {
        self.service.lost(self.now, &self.printer_session, &why, Duration::from_secs(5));
    }
}

/// The printer refuses the connection of its session `index`, because of `why`.
pub(crate) fn is_refused(service: &Service, now: Instant, index: usize, why: &str) {
    let printer_session = Rc::clone(&service.printer_sessions()[index]);
    printer_session.set_dialling();
    service.lost(now, &printer_session, &why, Duration::from_secs(5));
}
