//! Clients and printers that send malformed or untimely lines. Each test ends with an upload.

use super::*;
use crate::journal::{self, Kind};
use crate::service::Service as _;

/// The next client can upload a file, whatever the session was set to before.
pub(crate) fn next_upload_works(printer: &mut Printer) {
    let service = Rc::clone(&printer.service);
    let mut next = TestClient::ready(&service);
    assert_eq!(next.command("STOR next"), "");
    for _ in 0..10 {
        let received = printer.received();
        let answer = match received.split([' ', '\r']).next().unwrap() {
            "" => {
                assert_eq!(printer.data_command(), Some(DataCommand::Connect { port: 50077 }));
                printer.printer_session.report(DataEvent::Connected);
                continue;
            }
            "EPSV" => "229 (|||50077|)",
            "REST" => "350 Go on",
            "TYPE" | "PROT" | "CWD" => "200 OK",
            _ => {
                assert_eq!(received, "STOR next\r\n");
                "150 Go on"
            }
        };
        printer.answers(answer).unwrap();
        if answer == "150 Go on" {
            break;
        }
    }
    assert_eq!(next.read(), "150 Go on\r\n");
    assert!(matches!(printer.data_command(), Some(DataCommand::Copy(_))));
    printer.printer_session.report(DataEvent::Copied);
    assert_eq!((printer.received(), next.read()), (String::new(), String::new()));
    printer.answers("226 Done").unwrap();
    assert_eq!(next.read(), "226 Done\r\n");
    assert_eq!(printer.printer_session.job(), None);
}

/// Begins an upload `a` and copies all of it; the printer has not replied yet.
pub(crate) fn moved(printer: &mut Printer, client: &mut TestClient) {
    printer.starts(client, "STOR a");
    printer.copy(1000);
    printer.copies();
}

#[test]
fn a_line_of_64_kb_closes_only_its_own_client() {
    let line = "x".repeat(65_536);
    for (bytes, inside) in [
        (line.clone(), false),
        (line.clone(), true),
        (format!("STOR {line}\r\n"), true),
        (format!("{line}\r\nNOOP\r\n"), false),
    ] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut client =
            if inside { TestClient::inside(&service) } else { TestClient::new(&service) };
        client.read();
        assert_eq!(client.send(bytes.as_bytes()), "500 Line longer than 1024 bytes\r\n");
        assert_eq!(client.ended, Some(client::Error::TooLong));
        drop(client);
        assert_eq!(service.connections(), 0);
        next_upload_works(&mut printer);
    }
}

/// Lines behind a running command are not read, so the end of the connection would not be noticed.
#[test]
fn a_client_that_pipelines_more_than_its_inbox_is_closed() {
    for bytes in ["NOOP\r\n".repeat(1000), "x".repeat(65_536)] {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "STOR a");
        // What fits waits.
        assert_eq!(client.send(&bytes.as_bytes()[..budget::FTP_INBOX - 1]), "");
        assert_eq!(client.ended, None);
        let reply = client.send(&bytes.as_bytes()[budget::FTP_INBOX - 1..]);
        assert!(reply.starts_with("500 "), "{reply}");
        assert_eq!(client.ended, Some(client::Error::PipelineOverflow));
        drop(client);
        assert_eq!(printer.received(), "");
        assert_eq!(printer.data_command(), Some(DataCommand::Close));
        printer.answers("426 Broken").unwrap();
        next_upload_works(&mut printer);
    }
}

#[test]
fn malformed_lines_are_answered_and_logged_once() {
    let (mut printer, mut client) = inside();
    let before = journal::count(Kind::Malformed);
    for (bytes, code) in [
        (&b"STOR a\0b\r\n"[..], "501 "),
        (b"STOR a\rDELE b\r\n", "501 "),
        (b"\0\0\0\0\r\n", "501 "),
        (b"\r\r\r\n", "501 "),
        (b"\xff\xfe\x80\r\n", "500 "),
        (b"STOR\ta\r\n", "500 "),
        (b"\r\n", "500 "),
        (b"\n", "500 "),
    ] {
        let reply = client.send(bytes);
        assert!(
            reply.starts_with(code) && reply.matches("\r\n").count() == 1,
            "{bytes:?}: {reply}"
        );
    }
    assert_eq!(journal::count(Kind::Malformed), before + 1, "one line for all of them");
    assert_eq!((client.ended, client.link.slot().task()), (None, None));
    assert_eq!(printer.received(), "", "the printer receives nothing");
    drop(client);
    next_upload_works(&mut printer);
}

#[test]
fn paths_are_passed_to_the_printer_unchanged() {
    let (mut printer, mut client) = inside();
    for line in [
        "DELE ../../../../../../etc/passwd",
        "MKD /etc/../../root",
        "RMD ..",
        "DELE ~root/.ssh/authorized_keys",
        "DELE C:\\autoexec.bat",
        "DELE \\\\server\\share",
        "MDTM %2e%2e%2fa",
        "MLST -rf / ; |id `id` $(id)",
        "SITE CHMOD 777 /",
        "DELE \u{202e}fdp.exe",
        "DELE  a ",
    ] {
        assert_eq!(client.command(line), "");
        printer.exchange(&[(line, "550 No")]);
        assert_eq!(client.read(), "550 No\r\n", "{line}");
    }
    for line in ["STOR ../../../../tmp/x", "STOR /dev/null", "STOR C:\\x"] {
        client.connect();
        assert_eq!(client.command(line), "");
        for _ in 0..4 {
            let received = printer.received();
            match received.as_str() {
                "" => break,
                "EPSV\r\n" => printer.answers("229 (|||50077|)").unwrap(),
                _ => printer.answers("200 OK").unwrap(),
            }
        }
        assert_eq!(printer.data_command(), Some(DataCommand::Connect { port: 50077 }));
        printer.printer_session.report(DataEvent::Connected);
        printer.exchange(&[(line, "553 No")]);
        assert_eq!(client.read(), "553 No\r\n", "{line}");
    }
    drop(client);
    next_upload_works(&mut printer);
}

#[test]
fn a_second_stor_waits_and_needs_its_own_data_port() {
    let (mut printer, mut client) = ready();
    assert_eq!(client.command("STOR a\r\nSTOR b"), "");
    printer.begin("STOR a");
    assert_eq!(client.read(), "150 Go on\r\n");
    // Another client's STOR waits as well, as STAT shows.
    let mut other = TestClient::ready(&printer.service);
    assert_eq!(other.command("STOR c"), "");
    assert!(other.command("STAT").starts_with("211 Queued"));
    other.aborts();
    printer.completes();
    assert_eq!(client.read(), "226 Done\r\n425 Use PASV or EPSV first\r\n");
    assert_eq!(printer.received(), "");
    drop((client, other));
    next_upload_works(&mut printer);
}

#[test]
fn abort_before_the_data_connection_closes_the_data_port() {
    let (mut printer, mut client) = inside();
    client.command("EPSV");
    assert_eq!(client.command("STOR a"), "");
    client.aborts();
    assert_eq!(client.link.slot().passive_port(), PassivePort::Closed);
    assert_eq!(printer.received(), "");
    next_upload_works(&mut printer);
}

#[test]
fn a_thousand_idle_logins_are_bounded_and_the_next_upload_works() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..1000_usize.div_ceil(SLOTS) {
        let mut there: Vec<_> = (0..SLOTS).map(|_| TestClient::new(&service)).collect();
        assert!(service.pending(Peer::unknown()).is_none(), "all slots are taken");
        for client in &mut there {
            let reply = client.command("USER bblp\r\nPASS 12345678");
            inside += usize::from(reply.ends_with("230 Logged in\r\n"));
            refused += usize::from(reply.ends_with("421 Too many clients\r\n"));
        }
        assert_eq!(service.clients(), CLIENTS);
    }
    assert_eq!(inside + refused, 1000_usize.div_ceil(SLOTS) * SLOTS);
    assert!(inside >= CLIENTS && refused > 0);
    assert_eq!(printer.received(), "", "the printer has no connection");
    next_upload_works(&mut printer);
}

/// The printer closes idle sessions after as long (vsFTPd's default; crate::protocol#ftps).
#[test]
fn a_client_idle_for_five_minutes_is_disconnected() {
    let (mut printer, mut client) = inside();
    let service = Rc::clone(&printer.service);
    assert_eq!(client.client.poll_timeout(), Some(at(300)));
    client.now = at(200);
    client.command("NOOP");
    assert_eq!(client.client.handle_timeout(at(499)), Ok(()));
    // A command under way is not idleness, however long it takes.
    client.now = at(499);
    client.command("MKD a");
    assert_eq!(client.client.handle_timeout(at(900)), Ok(()));
    printer.now = at(900);
    printer.exchange(&[("MKD a", "257 \"/a\"")]);
    client.now = at(900);
    assert_eq!(client.read(), "257 \"/a\"\r\n");
    assert_eq!(client.client.poll_timeout(), Some(at(1200)));
    assert_eq!(client.client.handle_timeout(at(1199)), Ok(()));
    assert_eq!(client.client.handle_timeout(at(1200)), Err(client::Error::Idle));
    assert_eq!(client.read(), "421 No command for 300 s\r\n");
    drop(client);
    assert_eq!(service.clients(), 0);
    next_upload_works(&mut printer);
}

/// Anything else would be taken for more of the reply, and its end be waited for.
#[test]
fn a_reply_cut_off_in_the_middle_disconnects_the_client() {
    let (mut printer, mut client) = inside();
    let service = Rc::clone(&printer.service);
    client.command("STAT /");
    printer.exchange(&[("STAT /", "213-Status\r\n a")]);
    assert_eq!(client.command("ABOR\r\nSTAT"), "213-Status\r\n a\r\n", "they wait for its end");
    let now = client.now;
    assert_eq!(client.client.poll_output(now, &mut [0; 100]), Output::Idle);
    printer.lose("the printer ended the connection");
    let end = client.client.poll_output(now, &mut [0; 100]);
    assert_eq!(end, Output::End(client::Error::Truncated));
    drop(client);

    // The end of a change of directory depends on the printer's reply to PWD.
    let mut printer = Printer::live(&service);
    let mut client = TestClient::inside(&service);
    client.command("CWD cache");
    printer.exchange(&[("CWD cache", "250-Welcome\r\n250 OK"), ("PWD", "550 No")]);
    assert!(client.read().starts_with("250-Welcome\r\n"));
    let end = client.client.poll_output(now, &mut [0; 100]);
    assert_eq!(end, Output::End(client::Error::Truncated));
    drop(client);
    next_upload_works(&mut printer);
}
