//! The service without a socket: clients, hub and a printer's session as pure state machines, driven
//! by hand and by a virtual clock.

mod clients;
mod failures;
pub(crate) mod hostile;
mod jobs;

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

/// Whether it completes at once.
pub(crate) fn is_ready(future: impl Future<Output = ()>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A client, and what it has been told.
pub(crate) struct Caller {
    pub(crate) place: ClientLink,
    pub(crate) client: Client,
    pub(crate) input: Vec<u8>,
    pub(crate) ended: Option<client::Error>,
    pub(crate) now: Instant,
}

pub(crate) struct Ports;

impl Front for Ports {
    fn admitted(&self) {}
    fn open_passive_port(&self) -> Option<u16> {
        Some(PORT)
    }
}

impl Caller {
    pub(crate) fn new(service: &Rc<Service>) -> Self {
        let place = service.pending(Peer::unknown()).unwrap();
        let client = place.client(REACHED, at(15));
        Self { place, client, input: Vec::new(), ended: None, now: at(0) }
    }

    /// A client that is logged in.
    pub(crate) fn inside(service: &Rc<Service>) -> Self {
        let mut caller = Self::new(service);
        let said = caller.say("USER bblp\r\nPASS 12345678");
        assert!(said.ends_with("230 Logged in\r\n"), "{said}");
        caller
    }

    /// One that moves bytes as they are, privately, and has connected to its data port.
    pub(crate) fn ready(service: &Rc<Service>) -> Self {
        let mut caller = Self::inside(service);
        caller.say("TYPE I\r\nPROT P");
        caller.connect();
        caller
    }

    pub(crate) fn connect(&mut self) {
        assert_eq!(self.say("EPSV"), "229 Entering Extended Passive Mode (|||2024|)\r\n");
        self.place.connected(self.now);
    }

    /// Says a line; what is said to it then.
    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> String {
        self.input.extend_from_slice(bytes);
        self.hear()
    }

    /// What is said to it now, while it is given what it has sent.
    pub(crate) fn hear(&mut self) -> String {
        let mut heard = Vec::new();
        let mut out = [0; budget::FTP_OUTBOX];
        loop {
            let mut idle = true;
            if let Output::Written(len) = self.client.poll_output(self.now, &mut out) {
                heard.extend_from_slice(&out[..len]);
                idle = false;
            }
            if self.ended.is_none() {
                match self.client.handle_input(self.now, &self.input) {
                    Ok((taken, event)) => {
                        self.input.drain(..taken);
                        idle &= taken == 0;
                        if let Some(event) = event {
                            let host = self.place.attended(Ports);
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
                return String::from_utf8(heard).unwrap();
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
        assert_eq!(printer.hears(), "");
        for (answer, next) in [
            ("220-Hello\r\n220 there", "USER bblp\r\n"),
            ("331 And?", "PASS 12345678\r\n"),
            ("230 In", "PBSZ 0\r\n"),
            ("200 OK", "PWD\r\n"),
        ] {
            assert_eq!(printer.says(answer), next);
        }
        printer.answers("257 \"/\"").unwrap();
        printer
    }

    /// What the printer hears now.
    pub(crate) fn hears(&mut self) -> String {
        let mut out = [0; budget::FTP_OUTBOX];
        let mut heard = String::new();
        while let Output::Written(len) = self.upstream.poll_output(self.now, &mut out) {
            heard.push_str(core::str::from_utf8(&out[..len]).unwrap());
        }
        heard
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

    /// Answers; what it hears next.
    pub(crate) fn says(&mut self, lines: &str) -> String {
        self.answers(lines).unwrap();
        self.hears()
    }

    /// Hears each of the first, and answers with the second.
    pub(crate) fn plays(&mut self, script: &[(&str, &str)]) {
        for (hears, says) in script {
            let heard = self.hears();
            assert_eq!(heard, format!("{hears}\r\n"));
            self.answers(says).unwrap();
        }
    }

    pub(crate) fn order(&self) -> Option<DataCommand> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(self.printer_session.next_command()).poll(&mut cx) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    pub(crate) fn moves(&self, bytes: usize) {
        self.printer_session.add_progress(self.now, bytes);
    }

    /// Brings a transfer to where data are moved: a client that is [`ready`](Caller::ready) has said
    /// `line`.
    pub(crate) fn begins(&mut self, line: &str) {
        self.begins_with(line, "150 Go on");
    }

    /// The same, and the printer answers `says` in place of 150.
    pub(crate) fn begins_with(&mut self, line: &str, says: &str) {
        self.plays(&[("TYPE I", "200 OK"), ("PROT P", "200 OK"), ("EPSV", "229 ok (|||50077|)")]);
        self.opens_with(line, says);
    }

    pub(crate) fn opens(&mut self, line: &str) {
        self.opens_with(line, "150 Go on");
    }

    pub(crate) fn opens_with(&mut self, line: &str, says: &str) {
        assert_eq!(self.hears(), "");
        assert_eq!(self.order(), Some(DataCommand::Connect { port: 50077 }));
        self.printer_session.report(DataEvent::Connected);
        self.plays(&[(line, says)]);
        assert!(matches!(self.order(), Some(DataCommand::Copy(_))));
    }

    pub(crate) fn is_lost(&self, why: &str) {
        self.service.lost(self.now, &self.printer_session, &why, Duration::from_secs(5));
    }
}
