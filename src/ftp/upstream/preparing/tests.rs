//! Settings before a job, its data connection, and the end of an idle session.

use crate::ftp::tests::hostile::*;
use crate::ftp::tests::*;
use crate::service::Service as _;

#[test]
fn a_clients_settings_are_restored_after_another_client() {
    let (mut printer, mut one) = ready();
    let mut two = TestClient::inside(&printer.service);

    assert_eq!(one.command("CWD cache"), "");
    printer.exchange(&[("CWD cache", "250 OK"), ("PWD", "257 \"/cache\" is it")]);
    assert_eq!(one.read(), "250 OK\r\n");

    // Where a session begins, in text, without protection.
    two.connect();
    two.command("LIST");
    printer.exchange(&[
        ("TYPE A", "200 OK"),
        ("CWD /", "250 OK"),
        ("PROT C", "200 OK"),
        ("EPSV", "229 (|||50077|)"),
    ]);
    printer.opens("LIST");
    printer.completes();

    one.command("STOR a");
    printer.exchange(&[
        ("TYPE I", "200 OK"),
        ("CWD /cache", "250 OK"),
        ("PROT P", "200 OK"),
        ("EPSV", "229 (|||50077|)"),
    ]);
    printer.opens("STOR a");
    printer.completes();

    // Nothing has changed since: nothing is sent again.
    one.command("SIZE a");
    printer.exchange(&[("SIZE a", "213 7")]);
    assert!(one.read().ends_with("213 7\r\n"));
}

#[test]
fn rest_is_sent_again_before_its_own_transfer_only() {
    let (mut printer, mut one) = ready();
    let mut two = TestClient::ready(&printer.service);
    one.asks(&mut printer, "REST 500", "350 Restarting");

    two.command("STOR b");
    printer.prepares();
    printer.connects();
    printer.exchange(&[("REST 0", "350"), ("STOR b", "150")]);
    printer.completes();

    one.command("RETR a");
    printer.exchange(&[("EPSV", "229 (|||50077|)")]);
    printer.connects();
    printer.exchange(&[("REST 500", "350"), ("RETR a", "150")]);
    printer.completes();

    one.read();
    one.connect();
    one.command("RETR a");
    printer.exchange(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("RETR a");
}

#[test]
fn a_printers_refusal_of_rest_reaches_the_client() {
    let (mut printer, mut client) = inside();
    client.asks(&mut printer, "REST 500", "502 no-REST");
    assert_eq!(client.link.slot().restart.get(), None);
}

#[test]
fn rnfr_is_sent_again_before_its_own_rnto() {
    let (mut printer, mut one) = inside();
    let mut two = TestClient::inside(&printer.service);
    one.asks(&mut printer, "RNFR a", "350 Go on");
    assert!(two.command("RNTO mine").starts_with("503 "));
    two.command("DELE c");
    printer.exchange(&[("DELE c", "250 OK")]);
    one.command("RNTO b");
    printer.exchange(&[("RNFR a", "350 Go on"), ("RNTO b", "250 Done")]);
    assert_eq!(one.read(), "250 Done\r\n");
    assert!(one.command("RNTO c").starts_with("503 "));
}

#[test]
fn epsv_is_tried_once_and_of_a_227_only_the_port_is_used() {
    let (mut printer, mut client) = ready();
    client.command("STOR a");
    printer.exchange(&[
        ("TYPE I", "200 OK"),
        ("PROT P", "200 OK"),
        ("EPSV", "502 no-EPSV"),
        ("PASV", "227 Entering Passive Mode (0,0,0,0,195,157)"),
    ]);
    printer.opens("STOR a");
    printer.completes();
    client.read();
    client.connect();
    client.command("STOR a");
    printer.exchange(&[("PASV", "227 (0,0,0,0,195,157)")]);
    printer.opens("STOR a");
}

#[test]
fn an_idle_session_sends_quit() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    assert_eq!(printer.received(), "");
    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + IDLE_TIMEOUT));
    printer.upstream.handle_timeout(at(20)).unwrap();
    assert_eq!(printer.received(), "QUIT\r\n");
    assert_eq!(printer.answers("221 Bye"), Err(upstream::Error::IdleTimeout));
    printer.lose("idle timeout");
    let mut client = TestClient::inside(&service);
    assert_eq!(client.command("MKD a"), "");
    assert!(service.hub.is_wanted(at(20), 0), "and is made again when it is needed");
}

#[test]
fn shutdown_sends_quit() {
    let (mut printer, mut client) = inside();
    let service = Rc::clone(&printer.service);
    service.disconnect_all();
    assert_eq!(client.read(), "421 Shutting down\r\n");
    service.shut_down();
    assert_eq!(printer.received(), "QUIT\r\n");
}

#[test]
fn a_command_answered_before_it_was_sent_is_not_sent() {
    let (mut printer, mut client) = ready();
    client.command("STOR a");
    printer.prepares();
    assert!(matches!(printer.data_command(), Some(DataCommand::Connect { .. })));
    // Both are there when the session looks.
    printer.printer_session.report(DataEvent::Connected);
    printer.answers("425 Data port given up").unwrap();
    assert_eq!(client.read(), "425 Data port given up\r\n");
    assert_eq!(printer.received(), "");
    assert_eq!(printer.printer_session.job(), None);
}

#[test]
fn a_deleted_directory_can_be_left() {
    let (mut printer, mut one) = inside();
    let mut two = TestClient::inside(&printer.service);
    one.command("CWD stick");
    printer.exchange(&[("CWD stick", "250 OK"), ("PWD", "257 \"/stick\"")]);
    assert_eq!(one.read(), "250 OK\r\n");
    two.command("MKD a");
    printer.exchange(&[("CWD /", "250 OK"), ("MKD a", "257 \"/a\"")]);
    one.command("MKD b");
    printer.exchange(&[("CWD /stick", "550 No such directory")]);
    assert_eq!(one.read(), "550 No such directory\r\n");
    one.command("CWD /");
    printer.exchange(&[("CWD /", "250 OK"), ("PWD", "257 \"/\"")]);
    assert_eq!(one.read(), "250 OK\r\n");
    one.command("MKD b");
    printer.exchange(&[("MKD b", "257 \"/b\"")]);
}

#[test]
fn a_changed_prot_applies_to_the_next_transfer() {
    let (mut printer, mut client) = ready();
    // The change comes while data are moved, and is not looked at before they have been.
    assert_eq!(client.command("STOR a\r\nPROT C\r\nEPSV"), "");
    printer.prepares();
    printer.connects();
    printer.exchange(&[("STOR a", "150 Go on")]);
    let slot = client.link.slot().index();
    let upload = |prot| Some(DataCommand::Copy(DataCopy { slot, upload: true, prot }));
    assert_eq!(printer.data_command(), upload(Prot::Private));
    printer.completes();
    assert!(
        client
            .read()
            .ends_with("226 Done\r\n200 OK\r\n229 Entering Extended Passive Mode (|||2024|)\r\n")
    );
    client.link.connected(at(0));
    client.command("STOR b");
    printer.exchange(&[("PROT C", "200 OK"), ("EPSV", "229 (|||50077|)")]);
    printer.connects();
    printer.exchange(&[("STOR b", "150 Go on")]);
    assert_eq!(printer.data_command(), upload(Prot::Clear));
    printer.completes();
    drop(client);
    next_upload_works(&mut printer);
}
