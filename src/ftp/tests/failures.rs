//! Clients and printers that disconnect or fail in the middle of a command.

use super::*;
use crate::journal::{self, Kind};

#[test]
fn a_client_that_leaves_is_removed_from_the_queue() {
    let (mut printer, mut first) = inside();
    first.command("MKD one");
    assert_eq!(printer.received(), "MKD one\r\n");
    let mut lost = TestClient::ready(&printer.service);
    lost.command("STOR a");
    let mut aborts = TestClient::ready(&printer.service);
    aborts.command("STOR c");
    assert!(aborts.command("STAT").starts_with("211 "));
    aborts.aborts();
    drop(lost);
    printer.answers("257 \"/one\"").unwrap();
    assert_eq!(printer.received(), "");
    assert_eq!(printer.printer_session.job(), None);
}

#[test]
fn a_lost_session_fails_its_command_and_the_next_gets_a_new_one() {
    let (mut printer, mut client) = ready();
    let service = Rc::clone(&printer.service);
    printer.starts(&mut client, "STOR a");
    printer.lose("the printer ended the connection");
    assert!(client.read().starts_with("426 "));
    assert_eq!(printer.data_command(), Some(DataCommand::Close));
    assert!(!service.hub.is_wanted(at(0), 0));
    client.command("MKD a");
    assert!(service.hub.is_wanted(at(0), 0));
    let mut printer = Printer::live(&service);
    printer.exchange(&[("MKD a", "257 \"/a\"")]);
    assert_eq!(client.read(), "257 \"/a\"\r\n");
    client.command("MKD b");
    assert_eq!(printer.received(), "MKD b\r\n");
    printer.lose("the printer ended the connection");
    assert!(client.read().starts_with("451 "));
}

#[test]
fn a_session_lost_before_the_command_is_replaced_once() {
    let (mut printer, mut client) = ready();
    let service = Rc::clone(&printer.service);
    client.command("STOR a");
    assert_eq!(printer.received(), "TYPE I\r\n");
    while is_ready(client.link.slot().notified()) {}
    printer.lose("the printer ended the connection");
    assert!(is_ready(client.link.slot().notified()), "it has to look at the time again");
    assert_eq!(client.read(), "");
    assert_eq!(client.client.poll_timeout(), Some(at(0) + QUEUE_TIMEOUT));
    assert!(service.hub.is_wanted(at(0), 0));
    let mut printer = Printer::live(&service);
    assert_eq!(printer.received(), "TYPE I\r\n");
    printer.lose("the printer ended the connection");
    assert!(client.read().starts_with("451 "));
}

#[test]
fn an_unreachable_printer_is_reported_and_not_dialled_each_time() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    assert_eq!(client.command("MKD a"), "");
    assert!(service.hub.is_wanted(at(0), 0));
    is_refused(&service, at(1), 0, "the printer\r\ndoes not answer");
    assert_eq!(client.read(), "451 The printer  does not answer\r\n");
    client.now = at(5);
    assert!(client.command("MKD a").starts_with("451 "));
    client.now = at(6);
    assert_eq!(client.command("MKD a"), "");
    assert!(service.hub.is_wanted(at(6), 0));
}

#[test]
fn a_refused_code_and_a_busy_printer_are_distinguished() {
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
    assert!(!upstream.is_logged_in());
    // vsFTPd has trouble of its own with a login that is right.
    let (mut upstream, _) = service.upstream(at(0), 0).unwrap();
    upstream.handle_input(at(0), b"220 Hi\r\n").unwrap();
    let _user = upstream.poll_output(at(0), &mut out);
    let refused = upstream.handle_input(at(0), b"500 OOPS: cannot change directory\r\n");
    assert_eq!(refused, Err(upstream::Error::Busy(500)));
}

/// A printer that serves one of two sessions and has refused the other, and two clients: the command of the first runs,
/// that of the second waits.
fn refused_second() -> (Printer, TestClient, TestClient) {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let mut one = TestClient::inside(&service);
    let mut two = TestClient::inside(&service);
    one.command("MKD a");
    assert_eq!(printer.received(), "MKD a\r\n");
    two.command("MKD b");
    assert!(service.hub.is_wanted(at(0), 1));
    is_refused(&service, at(0), 1, "no more sessions");
    assert_eq!(two.read(), "", "there is still the first");
    (printer, one, two)
}

#[test]
fn a_refused_second_session_is_not_retried_at_once() {
    let (mut printer, _one, mut two) = refused_second();
    let service = Rc::clone(&printer.service);
    assert!(!service.hub.is_wanted(at(10), 1));
    printer.answers("257 \"/a\"").unwrap();
    printer.exchange(&[("MKD b", "257 \"/b\"")]);
    assert_eq!(two.read(), "257 \"/b\"\r\n");
}

#[test]
fn a_refused_second_session_is_tried_again_in_time() {
    let (printer, _one, _two) = refused_second();
    let service = Rc::clone(&printer.service);
    assert!(!service.hub.is_wanted(at(299), 1));
    assert!(service.hub.is_wanted(at(300), 1));
    printer.lose("reset");
    assert!(service.hub.is_wanted(at(10), 1), "it is the only one");
}

#[test]
fn a_reply_to_an_aborted_command_is_not_the_next_ones() {
    let (mut printer, mut client) = ready();
    client.command("RETR a");
    printer.begin("RETR a");
    assert!(client.command("ABOR").contains("226 Abort successful\r\n"));
    client.command("MKD b");
    printer.received();
    printer.answers("426 Aborted").unwrap();
    assert_eq!(client.read(), "");
}

/// libcurl takes a 450 to LIST for an empty directory, and reports success.
#[test]
fn a_listing_without_a_printer_is_refused_with_451_and_logged() {
    for line in ["LIST", "NLST", "MLSD /cache"] {
        let service = service(1);
        let mut client = TestClient::ready(&service);
        assert_eq!(client.command(line), "");
        let before = journal::count(Kind::TransferFailed);
        is_refused(&service, at(1), 0, "no answer");
        assert_eq!(client.read(), "451 No answer\r\n", "{line}");
        assert_eq!(journal::count(Kind::TransferFailed), before + 1, "{line}");
        let mut log = String::new();
        journal::write_to(&mut log).unwrap();
        let name = line.strip_prefix("MLSD ").unwrap_or(".");
        assert!(log.contains(&format!("listing \"{name}\": refused: no answer")), "{log}");
    }
}

#[test]
fn a_waiting_command_names_what_it_waits_for() {
    let (mut printer, mut first) = ready();
    first.command("RETR a");
    printer.begin("RETR a");
    let mut second = TestClient::ready(&printer.service);
    second.command("STOR b");
    assert_eq!(
        second.command("STAT"),
        "211 Queued: waiting for the printer's FTP session, used by mqtt 0 (0.0.0.0) for a download\r\n"
    );
    let mut third = TestClient::ready(&printer.service);
    third.command("LIST");
    assert!(third.command("STAT").ends_with("for a download; 1 before it in the queue\r\n"));
    let mut fourth = TestClient::ready(&printer.service);
    fourth.command("STOR c");
    assert!(fourth.command("STAT").ends_with("for a download; 1 before it in the queue\r\n"));
    assert!(third.command("STAT").ends_with("for a download; 2 before it in the queue\r\n"));
}

#[test]
fn a_second_upload_waits_for_the_first_beside_a_free_session() {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let mut one = TestClient::ready(&service);
    one.command("STOR a");
    printer.begin("STOR a");
    assert!(!service.hub.has_waiting_upload(), "it runs");
    let _free = Printer::live_at(&service, 1);
    let mut two = TestClient::ready(&service);
    two.command("STOR b");
    assert!(service.hub.has_waiting_upload());
    assert_eq!(
        two.command("STAT"),
        "211 Queued: waiting for the printer's FTP session, used by mqtt 0 (0.0.0.0) for an upload\r\n"
    );
}
