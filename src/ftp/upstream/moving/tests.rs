//! The beginning of transfers, and how they are aborted.

use crate::ftp::tests::hostile::*;
use crate::ftp::tests::*;

#[test]
fn a_transfer_without_a_150_is_completed() {
    let (mut printer, mut client) = ready();
    client.command("NLST");
    printer.exchange(&[
        ("TYPE I", "504 Not that"),
        ("PROT P", "200 OK"),
        ("EPSV", "229 (|||50077|)"),
    ]);
    printer.connects();
    printer.exchange(&[("NLST", "226-There is\r\n226 Nothing there")]);
    let reply = client.read();
    assert!(reply.starts_with("150 ") && !reply.contains("226"), "{reply}");
    printer.copies();
    assert_eq!(client.read(), "226 Nothing there\r\n");
}

#[test]
fn an_early_226_waits_for_the_data() {
    for (news, code) in
        [(DataEvent::Copied, "226 "), (DataEvent::Failed(TransferError::Printer), "426 ")]
    {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "RETR a");
        printer.answers("226 Done").unwrap();
        assert_eq!(client.read(), "");
        printer.printer_session.report(news);
        printer.received();
        let reply = client.read();
        assert!(reply.starts_with(code), "{reply}");
        assert_eq!(printer.printer_session.job(), None);
    }
}

#[test]
fn a_full_card_ends_the_upload_at_once() {
    let (mut printer, mut client) = ready();
    printer.starts(&mut client, "STOR a");
    printer.answers("552 Disk full").unwrap();
    assert_eq!(client.read(), "552 Disk full\r\n");
    assert_eq!(printer.data_command(), Some(DataCommand::Close));
    // What the data task reports now belongs to a transfer that is over.
    printer.printer_session.report(DataEvent::Failed(TransferError::Printer));
    assert_eq!(printer.received(), "");
    assert_eq!(printer.printer_session.job(), None);
}

#[test]
fn aborting_at_any_step_frees_the_session_in_a_known_state() {
    // Replies of the printer's before the client aborts.
    for steps in 0..=5 {
        for leaves in [false, true] {
            let (mut printer, mut client) = ready();
            client.command("STOR a");
            let script = [
                ("TYPE I", "200 OK"),
                ("PROT P", "200 OK"),
                ("EPSV", "229 (|||50077|)"),
                ("", ""),
                ("STOR a", "150 Go on"),
            ];
            let mut received = String::new();
            for (expected, answer) in script.iter().take(steps) {
                if expected.is_empty() {
                    assert!(matches!(printer.data_command(), Some(DataCommand::Connect { .. })));
                    printer.printer_session.report(DataEvent::Connected);
                } else {
                    printer.exchange(&[(expected, answer)]);
                }
                received.push_str(expected);
            }
            let pending = printer.received();
            client.read();
            let mut other = TestClient::inside(&printer.service);
            other.command("MKD next");
            if leaves {
                drop(client);
            } else {
                client.aborts();
            }
            assert_eq!(printer.received(), if steps == 3 { "MKD next\r\n" } else { "" }, "{steps}");
            let next = match steps {
                0..=2 => {
                    printer.reply(if pending == "EPSV\r\n" { "229 (|||50077|)" } else { "200" })
                }
                3 => "MKD next\r\n".into(),
                4 => {
                    assert_eq!(printer.data_command(), Some(DataCommand::Close));
                    assert_eq!(printer.reply("150 Go on"), "", "the outcome has to come as well");
                    printer.reply("426 Broken")
                }
                _ => {
                    assert_eq!(printer.data_command(), Some(DataCommand::Close));
                    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + ABORTED_TIMEOUT));
                    printer.reply("426 Broken")
                }
            };
            assert_eq!(next, "MKD next\r\n", "after {received}");
            printer.answers("257 \"/next\"").unwrap();
            assert_eq!(other.read(), "257 \"/next\"\r\n");
        }
    }
}

#[test]
fn aborting_a_download_or_cwd_frees_the_session() {
    let (mut printer, mut client) = ready();
    printer.starts(&mut client, "RETR a");
    client.aborts();
    assert_eq!(printer.received(), "");
    assert_eq!(printer.data_command(), Some(DataCommand::Close));
    printer.answers("426 Broken").unwrap();
    next_upload_works(&mut printer);

    client.command("CWD cache");
    printer.exchange(&[("CWD cache", "250 OK")]);
    assert_eq!(printer.received(), "PWD\r\n");
    client.aborts();
    printer.answers("257 \"/cache\"").unwrap();
    assert_eq!(*client.link.slot().directory.borrow(), b"", "it has not got the reply");
    next_upload_works(&mut printer);
}

/// A late 226 of the transfer before comes ahead of this one's 150.
#[test]
fn a_final_reply_before_the_150_belongs_to_another_transfer() {
    let (mut printer, mut client) = ready();
    client.command("STOR a");
    printer.begin_with("STOR a", "226 Of another one");
    printer.answers("150 Go on").unwrap();
    printer.copy(1000);
    printer.copies();
    let reply = client.read();
    assert!(reply.starts_with("150 ") && !reply.contains("226"), "{reply}");
    printer.answers("552 Disk full").unwrap();
    assert_eq!(client.read(), "552 Disk full\r\n");
    drop(client);
    next_upload_works(&mut printer);
}

/// Moves `rate` bytes per second for `seconds`; what the client of the transfer was sent.
fn moves_at(printer: &mut Printer, client: &mut TestClient, rate: usize, seconds: u64) -> String {
    let mut received = String::new();
    for _ in 0..seconds / 10 {
        printer.now = printer.now + Duration::from_secs(10);
        client.now = printer.now;
        printer.copy(10 * rate);
        printer.upstream.handle_timeout(printer.now).unwrap();
        printer.received();
        received.push_str(&client.read());
    }
    received
}

#[test]
fn a_crawling_transfer_is_aborted_while_an_upload_waits() {
    for (rate, waits, aborted) in [(500, true, true), (500, false, false), (1500, true, false)] {
        let (mut printer, mut client) = ready();
        printer.starts(&mut client, "RETR a");
        let mut upload = TestClient::ready(&printer.service);
        if waits {
            assert_eq!(upload.command("STOR b"), "");
        }
        assert_eq!(moves_at(&mut printer, &mut client, rate, 110), "", "{rate}");
        let reply = moves_at(&mut printer, &mut client, rate, 30);
        assert_eq!(
            reply.starts_with("426 Transfer failed: below 1 kB/s"),
            aborted,
            "{rate}: {reply}"
        );
        if aborted {
            assert_eq!(printer.data_command(), Some(DataCommand::Close));
            assert_eq!(printer.reply("426 Broken"), "EPSV\r\n", "the upload begins");
        }
    }
}
