//! What the client is answered.

use crate::ftp::tests::hostile::*;
use crate::ftp::tests::*;
use crate::service::Service as _;

#[test]
fn an_upload_is_complete_only_after_the_printers_226() {
    let (mut printer, mut client) = ready();
    assert_eq!(client.command("STOR a b.3mf"), "");
    printer.prepares();
    printer.connects();
    assert_eq!(printer.received(), "STOR a b.3mf\r\n");
    assert_eq!(client.read(), "");
    printer.answers("150 Ok to send data.").unwrap();
    assert_eq!(client.read(), "150 Ok to send data.\r\n");
    let upload = DataCopy { slot: client.link.slot().index(), upload: true, prot: Prot::Private };
    assert_eq!(printer.data_command(), Some(DataCommand::Copy(upload)));
    printer.copy(1000);
    printer.copies();
    assert_eq!(client.read(), "");
    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + STORED_TIMEOUT));
    assert_eq!(printer.upstream.handle_timeout(at(300)), Ok(()), "cards are slow");
    printer.answers("226 Transfer complete.").unwrap();
    assert_eq!(client.read(), "226 Transfer complete.\r\n");
    assert_eq!(client.link.slot().passive_port(), PassivePort::Closed);
}

/// Guards: bambuddy#1417: 426 is taken for a success, or for a failure.
#[test]
fn size_decides_whether_a_426_after_an_upload_is_true() {
    for (size, code) in [("213 1000", "226 "), ("213 999", "426 Oh"), ("550 No", "426 Oh")] {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "STOR a b");
        printer.copy(1000);
        printer.copies();
        assert_eq!(printer.reply("426 Oh"), "SIZE a b\r\n");
        assert_eq!(client.read(), "");
        printer.answers(size).unwrap();
        let reply = client.read();
        assert!(reply.starts_with(code), "{size}: {reply}");
    }
}

#[test]
fn an_abort_that_is_never_confirmed_ends_the_session() {
    let (mut printer, mut client) = ready();
    client.command("STOR a");
    printer.begin("STOR a");
    drop(client);
    assert_eq!(printer.received(), "");
    assert_eq!(printer.upstream.handle_timeout(at(29)), Ok(()));
    assert_eq!(printer.upstream.handle_timeout(at(30)), Err(upstream::Error::NoAnswer));
}

#[test]
fn an_incomplete_copy_is_a_failure_despite_a_226() {
    for (why, code) in [
        (TransferError::Client, "426 "),
        (TransferError::ClientTls, "426 "),
        (TransferError::PrinterTls, "426 "),
        (TransferError::Stalled, "426 "),
    ] {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "STOR a");
        printer.printer_session.report(DataEvent::Failed(why));
        printer.received();
        let reply = client.read();
        assert!(reply.starts_with(code), "{why:?}: {reply}");
        assert_eq!(printer.data_command(), Some(DataCommand::Close));
        assert!(printer.printer_session.job().is_some(), "the printer has not replied");
        printer.answers("226 All fine").unwrap();
        assert_eq!(client.read(), "");
        assert_eq!(printer.printer_session.job(), None);
    }
}

#[test]
fn the_printers_own_failure_reply_is_passed_on() {
    for (answer, expected) in [("451 Card lost", "451 Card lost"), ("226 Fine", "426 ")] {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "RETR a");
        printer.printer_session.report(DataEvent::Failed(TransferError::Printer));
        printer.received();
        assert_eq!(client.read(), "");
        printer.answers(answer).unwrap();
        let reply = client.read();
        assert!(reply.starts_with(expected), "{reply}");
    }
}

#[test]
fn endless_and_unexpected_replies_end_the_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    assert_eq!(printer.answers("226 Unexpected"), Err(upstream::Error::UnexpectedReply));
    let mut printer = Printer::live(&service);
    assert_eq!(printer.answers("421 Timeout"), Err(upstream::Error::ServiceClosing));
    let mut printer = Printer::live(&service);
    let mut client = TestClient::inside(&service);
    client.command("STAT /");
    printer.received();
    printer.answers("213-Status").unwrap();
    let ends = (0..).find(|_| {
        client.read();
        printer.answers(" x").is_err()
    });
    assert_eq!(ends, Some(upstream::MAX_REPLY_LINES as usize - 1));
}

#[test]
fn abort_after_the_last_byte_waits_for_the_printers_reply() {
    for (code, asks) in [("226 Done", false), ("426 Oh", true)] {
        let (mut printer, mut client) = ready();
        moved(&mut printer, &mut client);
        if asks {
            // It was just being asked for the size.
            assert_eq!(printer.reply(code), "SIZE a\r\n");
        }
        client.aborts();
        let mut other = TestClient::inside(&printer.service);
        other.command("MKD b");
        assert_eq!(printer.received(), "", "its answer would be taken for the next one's");
        assert_eq!(printer.reply(if asks { "213 1000" } else { code }), "MKD b\r\n");
        printer.answers("257 \"/b\"").unwrap();
        assert_eq!((client.read().as_str(), other.read().as_str()), ("", "257 \"/b\"\r\n"));
        next_upload_works(&mut printer);
    }
}

/// A late reply to one transfer is never taken for the reply to another command. A command that was not sent yet gets a
/// new session; one that was sent fails with 451.
#[test]
fn a_stray_transfer_reply_ends_the_session() {
    for stray in ["226 Aborted", "426 Broken", "150 Go on"] {
        let (mut printer, mut client) = ready();
        let service = Rc::clone(&printer.service);
        client.command("STOR a");
        assert_eq!(printer.received(), "TYPE I\r\n");
        let answered = printer.answers(stray);
        assert_eq!(answered, Err(upstream::Error::UnexpectedReply), "{stray}");
        printer.lose("reply out of order");
        assert_eq!(client.read(), "", "it waits for the next session");
        assert!(service.hub.is_wanted(at(0), 0));
        client.aborts();

        let mut printer = Printer::live(&service);
        client.command("DELE a");
        assert_eq!(printer.received(), "DELE a\r\n");
        assert_eq!(printer.answers(stray), Err(upstream::Error::UnexpectedReply), "{stray}");
        printer.lose("reply out of order");
        assert!(client.read().starts_with("451 "), "{stray}");
        next_upload_works(&mut Printer::live(&service));
    }
}

#[test]
fn feat_lists_what_the_proxy_supports() {
    let (mut printer, mut client) = inside();
    client.command("FEAT");
    let answer = "211-Features:\r\n AUTH TLS\r\n EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n PBSZ\r\n \
                  PROT\r\n REST STREAM\r\n SIZE\r\n211 End";
    printer.exchange(&[("FEAT", answer)]);
    assert_eq!(
        client.read(),
        "211-Features:\r\n EPSV\r\n MDTM\r\n PASV\r\n PBSZ\r\n PROT\r\n REST STREAM\r\n \
         SIZE\r\n UTF8\r\n211 End\r\n"
    );
    client.command("FEAT");
    printer.exchange(&[("FEAT", "211 None")]);
    assert_eq!(
        client.read(),
        "211-Features:\r\n EPSV\r\n PASV\r\n PBSZ\r\n PROT\r\n UTF8\r\n211 None\r\n"
    );
    client.asks(&mut printer, "FEAT", "502 no-features");
}

#[test]
fn cwd_is_confirmed_by_pwd_before_the_client_is_answered() {
    let (mut printer, mut client) = inside();
    client.command("CWD ../x");
    printer.exchange(&[("CWD ../x", "250 OK")]);
    assert_eq!(client.read(), "");
    printer.exchange(&[("PWD", "257 \"/y\"\"z\"")]);
    assert_eq!(client.read(), "250 OK\r\n");
    assert_eq!(*client.link.slot().directory.borrow(), b"/y\"z");
    client.command("CDUP");
    printer.exchange(&[("CDUP", "250 OK"), ("PWD", "550 I do not know")]);
    assert!(client.read().starts_with("550 "));
    client.command("MKD a");
    printer.exchange(&[("CWD /y\"z", "250 OK"), ("MKD a", "257 \"a\"")]);
}

#[test]
fn a_transfer_cut_off_by_the_shutdown_is_logged() {
    let (mut printer, mut client) = ready();
    let service = Rc::clone(&printer.service);
    client.command("STOR a");
    printer.begin("STOR a");
    printer.copy(1000);
    printer.copies();
    service.disconnect_all();
    assert!(client.read().ends_with("421 Shutting down\r\n"));
    drop(client);
    service.shut_down();
    assert_eq!(printer.received(), "", "the printer's last reply is awaited");
    // The program does not wait for it longer than a few seconds.
    drop(printer);
    let mut log = String::new();
    crate::journal::write_to(&mut log).unwrap();
    let line = "upload \"a\": failed: shutting down before the printer confirmed it; 1000 bytes";
    assert!(log.contains(line), "{log}");
}
