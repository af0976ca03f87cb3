//! The service without a socket: clients, hub and a printer's session as pure state machines, driven
//! by hand and by a virtual clock.

use super::*;
use crate::ftp::desk::{Failure, Move, News, Order};
use crate::ftp::hub::{GATE_WITHIN, Prot, QUEUE_WITHIN};
use crate::ftp::upstream::{ABORTED_WITHIN, IDLE, STORED_WITHIN};
use crate::session::{Output, Session};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

const CODE: &[u8] = b"12345678";
const REACHED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 2024;

fn at(seconds: u64) -> Instant {
    Instant::at(Duration::from_secs(seconds))
}

fn service(sessions: usize) -> Rc<Service> {
    Service::new(AccessCode::new(CODE).unwrap(), sessions)
}

/// A client, and what it has been told.
struct Caller {
    place: Place,
    client: Client,
    input: Vec<u8>,
    ended: Option<client::Error>,
    now: Instant,
}

struct Ports;

impl Front for Ports {
    fn admitted(&self) {}
    fn open_gate(&self) -> Option<u16> {
        Some(PORT)
    }
}

impl Caller {
    fn new(service: &Rc<Service>) -> Self {
        let place = service.knock(Peer::unknown()).unwrap();
        let client = place.client(REACHED, at(15));
        Self { place, client, input: Vec::new(), ended: None, now: at(0) }
    }

    /// A client that is logged in.
    fn inside(service: &Rc<Service>) -> Self {
        let mut caller = Self::new(service);
        let said = caller.say("USER bblp\r\nPASS 12345678");
        assert!(said.ends_with("230 Logged in\r\n"), "{said}");
        caller
    }

    /// One that moves bytes as they are, privately, and has connected to its data port.
    fn ready(service: &Rc<Service>) -> Self {
        let mut caller = Self::inside(service);
        caller.say("TYPE I\r\nPROT P");
        caller.connect();
        caller
    }

    fn connect(&mut self) {
        assert_eq!(self.say("EPSV"), "229 Entering Extended Passive Mode (|||2024|)\r\n");
        self.place.connected(self.now);
    }

    /// Says a line; what is said to it then.
    fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> String {
        self.input.extend_from_slice(bytes);
        self.hear()
    }

    /// What is said to it now, while it is given what it has sent.
    fn hear(&mut self) -> String {
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
struct Printer {
    service: Rc<Service>,
    desk: Rc<Desk>,
    upstream: Upstream,
    input: Vec<u8>,
    now: Instant,
}

impl Printer {
    /// A session that has logged in.
    fn live(service: &Rc<Service>) -> Self {
        Self::live_at(service, 0)
    }

    fn live_at(service: &Rc<Service>, desk: usize) -> Self {
        let (upstream, _link) = service.upstream(at(0), desk).unwrap();
        let desk = Rc::clone(&service.desks()[desk]);
        let service = Rc::clone(service);
        let mut printer = Self { service, desk, upstream, input: Vec::new(), now: at(0) };
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
    fn hears(&mut self) -> String {
        let mut out = [0; budget::FTP_OUTBOX];
        let mut heard = String::new();
        while let Output::Written(len) = self.upstream.poll_output(self.now, &mut out) {
            heard.push_str(core::str::from_utf8(&out[..len]).unwrap());
        }
        heard
    }

    fn answers(&mut self, lines: &str) -> Result<(), upstream::Error> {
        self.input.extend_from_slice(lines.as_bytes());
        self.input.extend_from_slice(b"\r\n");
        self.reads()
    }

    fn reads(&mut self) -> Result<(), upstream::Error> {
        loop {
            let (taken, _) = self.upstream.handle_input(self.now, &self.input)?;
            self.input.drain(..taken);
            if taken == 0 {
                return Ok(());
            }
        }
    }

    /// Answers; what it hears next.
    fn says(&mut self, lines: &str) -> String {
        self.answers(lines).unwrap();
        self.hears()
    }

    /// Hears each of the first, and answers with the second.
    fn plays(&mut self, script: &[(&str, &str)]) {
        for (hears, says) in script {
            let heard = self.hears();
            assert_eq!(heard, format!("{hears}\r\n"));
            self.answers(says).unwrap();
        }
    }

    fn order(&self) -> Option<Order> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(self.desk.order()).poll(&mut cx) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    fn moves(&self, bytes: usize) {
        self.desk.progresses(self.now, bytes);
    }

    /// Brings a transfer to where data are moved: a client that is [`ready`](Caller::ready) has said
    /// `line`.
    fn begins(&mut self, line: &str) {
        self.plays(&[("TYPE I", "200 OK"), ("PROT P", "200 OK"), ("EPSV", "229 ok (|||50077|)")]);
        self.opens(line);
    }

    fn opens(&mut self, line: &str) {
        assert_eq!(self.hears(), "");
        assert_eq!(self.order(), Some(Order::Connect { port: 50077 }));
        self.desk.report(News::Connected);
        self.plays(&[(line, "150 Go on")]);
        assert!(matches!(self.order(), Some(Order::Move(_))));
    }

    fn is_lost(&self, why: &str) {
        self.service.lost(self.now, &self.desk, &why, Duration::from_secs(5));
    }
}

#[test]
fn the_code_lets_in_and_nothing_else_does() {
    let service = service(1);
    let mut caller = Caller::new(&service);
    assert!(caller.hear().starts_with("220 "));
    assert!(caller.say("LIST").starts_with("530 "));
    assert!(caller.say("EPSV").starts_with("530 "));
    assert!(caller.say("PASS 12345678").starts_with("503 "));
    assert!(caller.say("USER bblp").starts_with("331 "));
    assert!(caller.say("PASS 12345678").starts_with("230 "));
    assert_eq!(service.clients(), 1);
    assert!(caller.say("USER bblp").starts_with("503 "));
    assert!(caller.say("QUIT").starts_with("221 "));
    assert_eq!(caller.ended, Some(client::Error::Left));
    drop(caller);
    assert_eq!((service.clients(), service.connections()), (0, 0));

    let mut wrong = Caller::new(&service);
    assert!(wrong.say("USER bblp\r\nPASS 12345679").contains("\r\n530 "));
    assert_eq!(wrong.ended, Some(client::Error::WrongCode));
    let mut other = Caller::new(&service);
    assert!(other.say("USER root\r\nPASS 12345678").contains("\r\n530 "));
    assert_eq!(other.ended, Some(client::Error::WrongUser));
    assert_eq!(service.clients(), 0);
}

#[test]
fn a_client_too_many_is_told_so_and_the_next_finds_the_free_place() {
    let service = service(1);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Caller::inside(&service)).collect();
    let mut late = Caller::new(&service);
    assert!(late.say("USER bblp\r\nPASS 12345678").contains("\r\n421 "));
    assert_eq!(late.ended, Some(client::Error::NoSeat));
    drop(late);
    drop(clients.pop());
    Caller::inside(&service);
    let _strangers: Vec<_> =
        (0..SEATS - clients.len()).map(|_| service.knock(Peer::unknown()).unwrap()).collect();
    assert!(service.knock(Peer::unknown()).is_none());
}

#[test]
fn whoever_does_not_log_in_is_let_go_at_the_deadline_and_not_before() {
    let mut caller = Caller::new(&service(1));
    assert_eq!(caller.client.poll_timeout(), Some(at(15)));
    assert_eq!(caller.client.handle_timeout(at(14)), Ok(()));
    assert_eq!(caller.client.handle_timeout(at(15)), Err(client::Error::Silent));
    assert!(caller.hear().ends_with("421 Too slow to log in\r\n"));
    let inside = Caller::inside(&service(1));
    assert_eq!(inside.client.poll_timeout(), None);
}

#[test]
fn what_needs_no_printer_is_answered_without_one() {
    let mut caller = Caller::inside(&service(1));
    for (line, code) in [
        ("NOOP", "200"),
        ("noop", "200"),
        ("TYPE I", "200"),
        ("TYPE A N", "200"),
        ("TYPE L 8", "200"),
        ("TYPE E", "504"),
        ("MODE S", "200"),
        ("MODE Z", "504"),
        ("STRU F", "200"),
        ("STRU R", "504"),
        ("PBSZ 0", "200"),
        ("PROT P", "200"),
        ("PROT C", "200"),
        ("PROT S", "536"),
        ("OPTS UTF8 ON", "200"),
        ("OPTS MLST size;", "501"),
        ("PORT 10,0,0,1,7,232", "502"),
        ("EPRT |1|10.0.0.1|2024|", "502"),
        ("AUTH TLS", "503"),
        ("CCC", "503"),
        ("REIN", "502"),
        ("LPSV", "502"),
        ("SSCN ON", "502"),
        ("ABOR", "226"),
        ("RNTO b", "503"),
        ("STOR a", "425"),
        ("PASV", "227 Entering Passive Mode (10,0,0,2,7,232)."),
        ("EPSV", "229 Entering Extended Passive Mode (|||2024|)"),
        ("EPSV 1", "229"),
        ("EPSV 2", "522"),
        ("EPSV x", "501"),
        ("EPSV ALL", "200"),
        ("PASV", "501"),
        ("EPSV", "229"),
    ] {
        let said = caller.say(line);
        assert!(said.starts_with(code), "{line}: {said}");
        assert_eq!(said.matches("\r\n").count(), 1, "{line}: {said}");
        assert_eq!(caller.place.seat().task(), None, "{line}");
    }
}

#[test]
fn bad_lines_are_refused_and_only_one_without_end_ends_the_conversation() {
    let service = service(1);
    let mut caller = Caller::inside(&service);
    assert!(caller.send(b"NOOP\0\r\n").starts_with("501 "));
    assert!(caller.send(b"NOOP\rQUIT\r\n").starts_with("501 "));
    assert!(caller.send(b"\r\n").starts_with("500 "));
    assert!(caller.send(b"\x16\x03\x01\r\n").starts_with("500 "));
    assert!(caller.send(b"NOOP\n").starts_with("200 "));
    assert!(caller.send(b"\xff\xf4\xff\xf2ABOR\r\n").starts_with("226 "));
    assert_eq!(caller.ended, None);
    assert!(caller.send("x".repeat(65536).as_bytes()).starts_with("500 "));
    assert_eq!(caller.ended, Some(client::Error::TooLong));

    let mut longest = Caller::inside(&service);
    let name = "x".repeat(LINE - 2 - "NOOP ".len());
    assert_eq!(longest.say(&format!("NOOP {name}")), "200 OK\r\n");
}

#[test]
fn a_conversation_is_understood_wherever_it_is_split() {
    let lines = b"USER bblp\r\nPASS 12345678\r\nTYPE I\r\nPROT P\r\nEPSV\r\nNOOP\r\nQUIT\r\n";
    let mut expected = None;
    for split in 0..lines.len() {
        let service = service(1);
        let mut caller = Caller::new(&service);
        let mut said = caller.send(&lines[..split]);
        said.push_str(&caller.send(&lines[split..]));
        assert_eq!(caller.ended, Some(client::Error::Left), "split at {split}");
        assert_eq!(*expected.get_or_insert(said.clone()), said, "split at {split}");
    }
    assert_eq!(expected.unwrap().matches("\r\n").count(), 8);
}

#[test]
fn an_upload_is_complete_when_the_printer_says_so_and_not_before() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    assert_eq!(caller.say("STOR a b.3mf"), "");
    printer.plays(&[("TYPE I", "200 OK"), ("PROT P", "200 OK"), ("EPSV", "229 ok (|||50077|)")]);
    assert_eq!(printer.hears(), "", "nothing is asked before the data port answers");
    assert_eq!(printer.order(), Some(Order::Connect { port: 50077 }));
    printer.desk.report(News::Connected);
    assert_eq!(printer.hears(), "STOR a b.3mf\r\n");
    assert_eq!(caller.hear(), "");
    printer.answers("150 Ok to send data.").unwrap();
    assert_eq!(caller.hear(), "150 Ok to send data.\r\n");
    let upload = Move { seat: caller.place.seat().index(), upload: true, prot: Prot::Private };
    assert_eq!(printer.order(), Some(Order::Move(upload)));
    printer.moves(1000);
    printer.desk.report(News::Moved);
    assert_eq!(printer.hears(), "");
    assert_eq!(caller.hear(), "");
    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + STORED_WITHIN));
    assert_eq!(printer.upstream.handle_timeout(at(300)), Ok(()), "cards are slow");
    printer.answers("226 Transfer complete.").unwrap();
    assert_eq!(caller.hear(), "226 Transfer complete.\r\n");
    assert_eq!(caller.place.seat().gate(), hub::Gate::Closed);
}

#[test]
fn a_session_is_understood_wherever_the_printers_lines_are_split() {
    let script = "257 \"/\"\r\n200 t\r\n200 p\r\n229 (|||7|)\r\n";
    for split in 0..script.len() {
        let service = service(1);
        let (upstream, _link) = service.upstream(at(0), 0).unwrap();
        let desk = Rc::clone(&service.desks()[0]);
        let mut printer =
            Printer { service: Rc::clone(&service), desk, upstream, input: Vec::new(), now: at(0) };
        let mut caller = Caller::ready(&service);
        caller.say("STOR a");
        let whole = format!("220-a\r\n b\r\n220 c\r\n331 u\r\n230 p\r\n200 b\r\n{script}");
        let split = split + whole.len() - script.len();
        let mut heard = String::new();
        for piece in [&whole[..split], &whole[split..]] {
            // One line at a time, since it answers in between.
            for byte in piece.bytes() {
                printer.input.push(byte);
                printer.reads().unwrap();
                heard.push_str(&printer.hears());
            }
        }
        assert_eq!(
            heard,
            "USER bblp\r\nPASS 12345678\r\nPBSZ 0\r\nPWD\r\nTYPE I\r\nPROT P\r\nEPSV\r\n"
        );
        assert_eq!(printer.order(), Some(Order::Connect { port: 7 }));
    }
}

#[test]
fn a_226_that_comes_before_all_data_have_been_moved_waits_for_them() {
    for (news, code) in [(News::Moved, "226 "), (News::Failed(Failure::Printer), "426 ")] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("RETR a");
        printer.begins("RETR a");
        caller.hear();
        printer.answers("226 Done").unwrap();
        assert_eq!(caller.hear(), "");
        printer.desk.report(news);
        printer.hears();
        let said = caller.hear();
        assert!(said.starts_with(code), "{said}");
        assert_eq!(printer.desk.job(), None);
    }
}

#[test]
fn size_decides_what_a_426_after_an_upload_means() {
    for (size, code) in [("213 1000", "226 "), ("213 999", "426 Oh"), ("550 No", "426 Oh")] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("STOR a b");
        printer.begins("STOR a b");
        caller.hear();
        printer.moves(1000);
        printer.desk.report(News::Moved);
        assert_eq!(printer.hears(), "");
        assert_eq!(printer.says("426 Oh"), "SIZE a b\r\n");
        assert_eq!(caller.hear(), "");
        printer.answers(size).unwrap();
        let said = caller.hear();
        assert!(said.starts_with(code), "{size}: {said}");
    }
}

#[test]
fn a_full_card_in_mid_upload_is_told_at_once_and_the_mover_lets_go() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.begins("STOR a");
    caller.hear();
    printer.answers("552 Disk full").unwrap();
    assert_eq!(caller.hear(), "552 Disk full\r\n");
    assert_eq!(printer.order(), Some(Order::Drop));
    // What the mover had to say meanwhile is of no more interest.
    printer.desk.report(News::Failed(Failure::Printer));
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.desk.job(), None);
}

#[test]
fn a_refusal_leaves_the_data_connection_alone_until_its_time_is_up() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.plays(&[("TYPE I", "200"), ("PROT P", "200"), ("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.desk.report(News::Connected);
    printer.plays(&[("STOR a", "553 No card")]);
    assert_eq!(caller.hear(), "553 No card\r\n");
    assert_eq!(printer.order(), Some(Order::Drop), "the printer's is let go");
    assert!(matches!(caller.place.seat().gate(), hub::Gate::Connected { .. }));
    caller.client.handle_timeout(at(60)).unwrap();
    assert_eq!(caller.place.seat().gate(), hub::Gate::Closed);
}

#[test]
fn uploads_go_before_everything_else_and_among_equals_whoever_asked_first() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut first = Caller::inside(&service);
    assert_eq!(first.say("MKD one"), "");
    assert_eq!(printer.hears(), "MKD one\r\n");
    let mut listing = Caller::inside(&service);
    assert_eq!(listing.say("MKD two"), "");
    let mut other = Caller::inside(&service);
    assert_eq!(other.say("MKD three"), "");
    let mut upload = Caller::ready(&service);
    assert_eq!(upload.say("STOR a"), "");
    printer.answers("257 \"/one\"").unwrap();
    assert_eq!(first.hear(), "257 \"/one\"\r\n");
    assert_eq!(first.say("MKD four"), "");
    printer.begins("STOR a");
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();
    assert!(upload.hear().ends_with("226 Done\r\n"));
    printer.plays(&[
        ("MKD two", "257 \"/two\""),
        ("MKD three", "257 \"/three\""),
        ("MKD four", "257 \"/four\""),
    ]);
    assert_eq!(listing.hear(), "257 \"/two\"\r\n");
    assert_eq!(other.hear(), "257 \"/three\"\r\n");
    assert_eq!(first.hear(), "257 \"/four\"\r\n");
}

#[test]
fn two_sessions_never_take_two_uploads_at_once() {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let mut one = Caller::ready(&service);
    let mut two = Caller::ready(&service);
    let mut reader = Caller::inside(&service);
    one.say("STOR a");
    printer.begins("STOR a");
    two.say("STOR b");
    assert!(!service.hub.is_wanted(at(0), 1), "nobody else may use it");
    reader.say("MDTM a");
    assert!(service.hub.is_wanted(at(0), 1));
    let mut second = Printer::live_at(&service, 1);
    second.plays(&[("MDTM a", "213 20260101000000")]);
    assert_eq!(second.hears(), "");
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("STOR b");
}

#[test]
fn what_a_client_has_set_is_set_again_when_another_has_used_the_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut one = Caller::ready(&service);
    let mut two = Caller::inside(&service);

    assert_eq!(one.say("CWD cache"), "");
    printer.plays(&[("CWD cache", "250 OK"), ("PWD", "257 \"/cache\" is it")]);
    assert_eq!(one.hear(), "250 OK\r\n");

    // Where a session begins, in text, without protection.
    two.connect();
    two.say("LIST");
    printer.plays(&[
        ("TYPE A", "200 OK"),
        ("CWD /", "250 OK"),
        ("PROT C", "200 OK"),
        ("EPSV", "229 (|||50077|)"),
    ]);
    printer.opens("LIST");
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();

    one.say("STOR a");
    printer.plays(&[
        ("TYPE I", "200 OK"),
        ("CWD /cache", "250 OK"),
        ("PROT P", "200 OK"),
        ("EPSV", "229 (|||50077|)"),
    ]);
    printer.opens("STOR a");
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();

    // Nothing has changed since: nothing is said again.
    one.say("SIZE a");
    printer.plays(&[("SIZE a", "213 7")]);
    assert!(one.hear().ends_with("213 7\r\n"));
}

#[test]
fn a_restart_is_sent_again_before_its_own_transfer_and_never_meets_anothers() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut one = Caller::ready(&service);
    let mut two = Caller::ready(&service);
    one.say("REST 500");
    printer.plays(&[("REST 500", "350 Restarting")]);
    assert_eq!(one.hear(), "350 Restarting\r\n");

    two.say("STOR b");
    printer.plays(&[("TYPE I", "200"), ("PROT P", "200"), ("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.desk.report(News::Connected);
    printer.plays(&[("REST 0", "350"), ("STOR b", "150")]);
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();

    one.say("RETR a");
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.desk.report(News::Connected);
    printer.plays(&[("REST 500", "350"), ("RETR a", "150")]);
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();

    one.hear();
    one.connect();
    one.say("RETR a");
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("RETR a");
}

#[test]
fn a_printer_that_knows_no_restart_says_so_itself() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    caller.say("REST 500");
    printer.plays(&[("REST 500", "502 no-REST")]);
    assert_eq!(caller.hear(), "502 no-REST\r\n");
    assert_eq!(caller.place.seat().restart.get(), None);
}

#[test]
fn a_rename_takes_its_own_name_whoever_renames_in_between() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut one = Caller::inside(&service);
    let mut two = Caller::inside(&service);
    one.say("RNFR a");
    printer.plays(&[("RNFR a", "350 Go on")]);
    assert_eq!(one.hear(), "350 Go on\r\n");
    assert!(two.say("RNTO mine").starts_with("503 "));
    two.say("DELE c");
    printer.plays(&[("DELE c", "250 OK")]);
    one.say("RNTO b");
    printer.plays(&[("RNFR a", "350 Go on"), ("RNTO b", "250 Done")]);
    assert_eq!(one.hear(), "250 Done\r\n");
    assert!(one.say("RNTO c").starts_with("503 "));
}

#[test]
fn a_printer_without_epsv_is_asked_once_and_its_227_is_believed_for_the_port_alone() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.plays(&[
        ("TYPE I", "200 OK"),
        ("PROT P", "200 OK"),
        ("EPSV", "502 no-EPSV"),
        ("PASV", "227 Entering Passive Mode (0,0,0,0,195,157)"),
    ]);
    printer.opens("STOR a");
    printer.desk.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();
    caller.hear();
    caller.connect();
    caller.say("STOR a");
    printer.plays(&[("PASV", "227 (0,0,0,0,195,157)")]);
    printer.opens("STOR a");
}

#[test]
fn features_are_those_that_are_true_here() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    caller.say("FEAT");
    let answer = "211-Features:\r\n AUTH TLS\r\n EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n PBSZ\r\n \
                  PROT\r\n REST STREAM\r\n SIZE\r\n211 End";
    printer.plays(&[("FEAT", answer)]);
    assert_eq!(
        caller.hear(),
        "211-Features:\r\n EPSV\r\n MDTM\r\n PASV\r\n PBSZ\r\n PROT\r\n REST STREAM\r\n \
         SIZE\r\n UTF8\r\n211 End\r\n"
    );
    caller.say("FEAT");
    printer.plays(&[("FEAT", "502 no-features")]);
    assert_eq!(caller.hear(), "502 no-features\r\n");
}

#[test]
fn a_client_that_leaves_the_queue_takes_its_ticket_with_it() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut first = Caller::inside(&service);
    first.say("MKD one");
    assert_eq!(printer.hears(), "MKD one\r\n");
    let mut gone = Caller::ready(&service);
    gone.say("STOR a");
    let mut aborts = Caller::ready(&service);
    aborts.say("STOR c");
    assert!(aborts.say("STAT").starts_with("211 "));
    assert_eq!(aborts.say("ABOR"), "426 Given up\r\n226 Aborted\r\n");
    drop(gone);
    printer.answers("257 \"/one\"").unwrap();
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.desk.job(), None);
}

#[test]
fn nobody_waits_for_longer_than_half_an_hour() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut first = Caller::inside(&service);
    first.say("MKD one");
    printer.hears();
    let mut caller = Caller::inside(&service);
    caller.say("MKD two");
    assert_eq!(caller.client.poll_timeout(), Some(at(0) + QUEUE_WITHIN));
    caller.client.handle_timeout(at(1799)).unwrap();
    assert_eq!(caller.hear(), "");
    caller.client.handle_timeout(at(1800)).unwrap();
    assert!(caller.hear().starts_with("450 "));
    assert!(caller.say("NOOP").starts_with("200 "));
}

#[test]
fn lines_behind_a_command_wait_and_are_answered_in_their_order() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    assert_eq!(caller.say("MKD one\r\nNOOP\r\nMKD two\r\nQUIT"), "");
    assert!(!caller.input.is_empty(), "they are not read");
    printer.plays(&[("MKD one", "257 \"/one\"")]);
    assert_eq!(caller.hear(), "257 \"/one\"\r\n200 OK\r\n");
    printer.plays(&[("MKD two", "257 \"/two\"")]);
    assert_eq!(caller.hear(), "257 \"/two\"\r\n221 Goodbye\r\n");
}

#[test]
fn giving_up_at_any_step_gives_the_session_back_in_a_known_state() {
    // How many answers of the printer's have come when the client gives up; what ends it then.
    for steps in 0..=5 {
        for leaves in [false, true] {
            let service = service(1);
            let mut printer = Printer::live(&service);
            let mut caller = Caller::ready(&service);
            caller.say("STOR a");
            let script = [
                ("TYPE I", "200 OK"),
                ("PROT P", "200 OK"),
                ("EPSV", "229 (|||50077|)"),
                ("", ""),
                ("STOR a", "150 Go on"),
            ];
            let mut heard = String::new();
            for (hears, says) in script.iter().take(steps) {
                if hears.is_empty() {
                    assert!(matches!(printer.order(), Some(Order::Connect { .. })));
                    printer.desk.report(News::Connected);
                } else {
                    printer.plays(&[(hears, says)]);
                }
                heard.push_str(hears);
            }
            let pending = printer.hears();
            caller.hear();
            let mut other = Caller::inside(&service);
            other.say("MKD next");
            if leaves {
                drop(caller);
            } else {
                assert_eq!(caller.say("ABOR"), "426 Given up\r\n226 Aborted\r\n");
            }
            assert_eq!(printer.hears(), if steps == 3 { "MKD next\r\n" } else { "" }, "{steps}");
            let next = match steps {
                0..=2 => {
                    printer.says(if pending == "EPSV\r\n" { "229 (|||50077|)" } else { "200" })
                }
                3 => "MKD next\r\n".into(),
                4 => {
                    assert_eq!(printer.order(), Some(Order::Drop));
                    assert_eq!(printer.says("150 Go on"), "", "the outcome has to come as well");
                    printer.says("426 Broken")
                }
                _ => {
                    assert_eq!(printer.order(), Some(Order::Drop));
                    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + ABORTED_WITHIN));
                    printer.says("426 Broken")
                }
            };
            assert_eq!(next, "MKD next\r\n", "after {heard}");
            printer.answers("257 \"/next\"").unwrap();
            assert_eq!(other.hear(), "257 \"/next\"\r\n");
        }
    }
}

#[test]
fn a_printer_that_never_says_what_became_of_an_abort_loses_its_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.begins("STOR a");
    drop(caller);
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.upstream.handle_timeout(at(29)), Ok(()));
    assert_eq!(printer.upstream.handle_timeout(at(30)), Err(upstream::Error::NoAnswer));
}

#[test]
fn what_the_mover_could_not_move_is_a_failure_whatever_the_printer_says() {
    for (why, code) in [
        (Failure::Client, "426 "),
        (Failure::ClientTls, "426 "),
        (Failure::PrinterTls, "426 "),
        (Failure::Stalled, "426 "),
    ] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("STOR a");
        printer.begins("STOR a");
        caller.hear();
        printer.desk.report(News::Failed(why));
        printer.hears();
        let said = caller.hear();
        assert!(said.starts_with(code), "{why:?}: {said}");
        assert_eq!(printer.order(), Some(Order::Drop));
        assert!(printer.desk.job().is_some(), "the printer has not said its word");
        printer.answers("226 All fine").unwrap();
        assert_eq!(caller.hear(), "");
        assert_eq!(printer.desk.job(), None);
    }
}

#[test]
fn where_the_printers_data_connection_breaks_its_own_words_are_passed_on_if_they_are_a_failure() {
    for (says, hears) in [("451 Card gone", "451 Card gone"), ("226 Fine", "426 ")] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("RETR a");
        printer.begins("RETR a");
        caller.hear();
        printer.desk.report(News::Failed(Failure::Printer));
        printer.hears();
        assert_eq!(caller.hear(), "");
        printer.answers(says).unwrap();
        let said = caller.hear();
        assert!(said.starts_with(hears), "{said}");
    }
}

#[test]
fn a_printer_that_vanishes_is_a_failure_and_the_next_command_gets_a_new_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.begins("STOR a");
    caller.hear();
    printer.is_lost("the printer ended the connection");
    assert!(caller.hear().starts_with("426 "));
    assert_eq!(printer.order(), Some(Order::Drop));
    assert!(!service.hub.is_wanted(at(0), 0));
    caller.say("MKD a");
    assert!(service.hub.is_wanted(at(0), 0));
    let mut printer = Printer::live(&service);
    printer.plays(&[("MKD a", "257 \"/a\"")]);
    assert_eq!(caller.hear(), "257 \"/a\"\r\n");
    caller.say("MKD b");
    assert_eq!(printer.hears(), "MKD b\r\n");
    printer.is_lost("the printer ended the connection");
    assert!(caller.hear().starts_with("451 "));
}

#[test]
fn a_session_that_was_gone_before_anything_was_asked_costs_its_client_nothing_once() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    assert_eq!(printer.hears(), "TYPE I\r\n");
    printer.is_lost("the printer ended the connection");
    assert_eq!(caller.hear(), "");
    assert!(service.hub.is_wanted(at(0), 0));
    let mut printer = Printer::live(&service);
    assert_eq!(printer.hears(), "TYPE I\r\n");
    printer.is_lost("the printer ended the connection");
    assert!(caller.hear().starts_with("451 "));
}

#[test]
fn while_the_printer_is_away_its_clients_are_told_why_and_it_is_not_tried_each_time() {
    let service = service(1);
    let mut caller = Caller::inside(&service);
    assert_eq!(caller.say("MKD a"), "");
    assert!(service.hub.is_wanted(at(0), 0));
    let desk = Rc::clone(&service.desks()[0]);
    desk.is_dialling();
    service.lost(at(1), &desk, &"the printer\r\ndoes not answer", Duration::from_secs(5));
    assert_eq!(caller.hear(), "450 The printer  does not answer\r\n");
    caller.now = at(5);
    assert!(caller.say("MKD a").starts_with("450 "));
    caller.now = at(6);
    assert_eq!(caller.say("MKD a"), "");
    assert!(service.hub.is_wanted(at(6), 0));
}

#[test]
fn a_wrong_code_at_the_printer_and_a_busy_printer_are_told_apart() {
    let service = service(1);
    let (mut upstream, _) = service.upstream(at(0), 0).unwrap();
    assert_eq!(upstream.handle_input(at(0), b"421 Too many\r\n"), Err(upstream::Error::Busy(421)));
    let (mut upstream, _) = service.upstream(at(0), 0).unwrap();
    let mut out = [0; budget::FTP_OUTBOX];
    upstream.handle_input(at(0), b"220 Hi\r\n").unwrap();
    let _user = upstream.poll_output(at(0), &mut out);
    upstream.handle_input(at(0), b"331 And?\r\n").unwrap();
    let _pass = upstream.poll_output(at(0), &mut out);
    let refused = upstream.handle_input(at(0), b"530 Login incorrect\r\n");
    assert_eq!(refused, Err(upstream::Error::WrongCode(530)));
    assert!(!upstream.is_settled());
}

#[test]
fn a_second_session_that_the_printer_refuses_is_not_asked_for_again_at_once() {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let mut one = Caller::inside(&service);
    let mut two = Caller::inside(&service);
    one.say("MKD a");
    printer.hears();
    two.say("MKD b");
    assert!(service.hub.is_wanted(at(0), 1));
    let second = Rc::clone(&service.desks()[1]);
    second.is_dialling();
    service.lost(at(0), &second, &"no more sessions", Duration::from_secs(5));
    assert_eq!(two.hear(), "", "there is still the first");
    assert!(!service.hub.is_wanted(at(10), 1));
    printer.answers("257 \"/a\"").unwrap();
    printer.plays(&[("MKD b", "257 \"/b\"")]);
    assert_eq!(two.hear(), "257 \"/b\"\r\n");
}

#[test]
fn a_session_rests_after_its_last_job_and_then_says_quit() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + IDLE));
    printer.upstream.handle_timeout(at(20)).unwrap();
    assert_eq!(printer.hears(), "QUIT\r\n");
    assert_eq!(printer.answers("221 Bye"), Err(upstream::Error::Rested));
    printer.is_lost("nothing to do");
    let mut caller = Caller::inside(&service);
    assert_eq!(caller.say("MKD a"), "");
    assert!(service.hub.is_wanted(at(20), 0), "and is made again when it is needed");
}

#[test]
fn leaving_says_quit() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    service.dismiss_all();
    assert_eq!(caller.hear(), "421 Shutting down\r\n");
    service.leave();
    assert_eq!(printer.hears(), "QUIT\r\n");
}

#[test]
fn a_data_port_that_nobody_uses_is_closed_after_a_minute() {
    let service = service(1);
    let mut caller = Caller::inside(&service);
    caller.say("EPSV");
    assert_eq!(caller.client.poll_timeout(), Some(at(0) + GATE_WITHIN));
    caller.client.handle_timeout(at(59)).unwrap();
    assert_ne!(caller.place.seat().gate(), hub::Gate::Closed);
    caller.client.handle_timeout(at(60)).unwrap();
    assert_eq!(caller.place.seat().gate(), hub::Gate::Closed);

    caller.say("EPSV");
    assert_eq!(caller.say("STOR a"), "", "it waits for the client's connection");
    assert!(!service.hub.is_wanted(at(0), 0), "and the printer does not");
    assert!(caller.say("STAT").starts_with("211 "));
    caller.client.handle_timeout(at(60)).unwrap();
    assert!(caller.hear().starts_with("425 "));
    caller.say("EPSV");
    caller.say("STOR a");
    caller.place.connected(at(0));
    assert!(service.hub.is_wanted(at(0), 0));
}

#[test]
fn a_reply_of_any_length_reaches_a_slow_client_whole_but_for_lines_that_are_too_long() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    caller.say("STAT /");
    printer.hears();
    let mut answer = String::from("213-Status\r\n");
    for n in 0..100 {
        answer.push_str(&format!(" {n} {}\r\n", "x".repeat(n * 30)));
    }
    answer.push_str("213 End\r\n");
    printer.input.extend_from_slice(answer.as_bytes());
    let mut heard = String::new();
    let mut rounds = 0;
    while !heard.ends_with("213 End\r\n") {
        printer.reads().unwrap();
        let piece = caller.hear();
        assert!(piece.len() <= OUT, "{}", piece.len());
        heard.push_str(&piece);
        rounds += 1;
    }
    assert!(rounds > 10);
    let lines: Vec<&str> = heard.split("\r\n").collect();
    for (line, sent) in lines.iter().zip(answer.split("\r\n")) {
        assert_eq!(*line, &sent[..sent.len().min(LINE - 2)]);
    }
    assert_eq!(lines.len(), 103);
}

#[test]
fn a_reply_without_end_and_words_out_of_place_end_the_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    assert_eq!(printer.answers("226 Nobody asked"), Err(upstream::Error::OutOfOrder));
    let mut printer = Printer::live(&service);
    assert_eq!(printer.answers("421 Timeout"), Err(upstream::Error::Ended));
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    caller.say("STAT /");
    printer.hears();
    printer.answers("213-Status").unwrap();
    let ends = (0..).find(|_| {
        caller.hear();
        printer.answers(" x").is_err()
    });
    assert_eq!(ends, Some(upstream::REPLY_LINES as usize - 1));
}

#[test]
fn a_change_of_directory_is_known_before_it_is_told() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::inside(&service);
    caller.say("CWD ../x");
    printer.plays(&[("CWD ../x", "250 OK")]);
    assert_eq!(caller.hear(), "");
    printer.plays(&[("PWD", "257 \"/y\"\"z\"")]);
    assert_eq!(caller.hear(), "250 OK\r\n");
    assert_eq!(*caller.place.seat().directory.borrow(), b"/y\"z");
    caller.say("CDUP");
    printer.plays(&[("CDUP", "250 OK"), ("PWD", "550 I do not know")]);
    assert!(caller.hear().starts_with("550 "));
    caller.say("MKD a");
    printer.plays(&[("CWD /y\"z", "250 OK"), ("MKD a", "257 \"a\"")]);
}

#[test]
fn printers_that_begin_without_a_word_still_make_a_transfer() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("NLST");
    printer.plays(&[("TYPE I", "504 Not that"), ("PROT P", "200 OK"), ("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.desk.report(News::Connected);
    printer.plays(&[("NLST", "226 Nothing there")]);
    assert!(caller.hear().starts_with("150 "));
    printer.desk.report(News::Moved);
    printer.hears();
    assert_eq!(caller.hear(), "226 Nothing there\r\n");
}

#[test]
fn a_session_is_one_for_small_servers_and_two_for_the_others() {
    assert_eq!(sessions_of("01P00A000000000"), 1);
    assert_eq!(sessions_of("03900A000000000"), 1);
    assert_eq!(sessions_of("00M00A000000000"), SESSIONS);
}
