//! The beginning of transfers, and how they are aborted.

use crate::ftp::tests::hostile::*;
use crate::ftp::tests::*;

#[test]
fn a_transfer_without_a_150_is_completed() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("NLST");
    printer.plays(&[("TYPE I", "504 Not that"), ("PROT P", "200 OK"), ("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.printer_session.report(DataEvent::Connected);
    printer.plays(&[("NLST", "226-There is\r\n226 Nothing there")]);
    let said = caller.hear();
    assert!(said.starts_with("150 ") && !said.contains("226"), "{said}");
    printer.printer_session.report(DataEvent::Copied);
    printer.hears();
    assert_eq!(caller.hear(), "226 Nothing there\r\n");
}

#[test]
fn an_early_226_waits_for_the_data() {
    for (news, code) in
        [(DataEvent::Copied, "226 "), (DataEvent::Failed(TransferError::Printer), "426 ")]
    {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("RETR a");
        printer.begins("RETR a");
        caller.hear();
        printer.answers("226 Done").unwrap();
        assert_eq!(caller.hear(), "");
        printer.printer_session.report(news);
        printer.hears();
        let said = caller.hear();
        assert!(said.starts_with(code), "{said}");
        assert_eq!(printer.printer_session.job(), None);
    }
}

#[test]
fn a_full_card_ends_the_upload_at_once() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.begins("STOR a");
    caller.hear();
    printer.answers("552 Disk full").unwrap();
    assert_eq!(caller.hear(), "552 Disk full\r\n");
    assert_eq!(printer.order(), Some(DataCommand::Close));
    // What the data task reports now belongs to a transfer that is over.
    printer.printer_session.report(DataEvent::Failed(TransferError::Printer));
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.printer_session.job(), None);
}

#[test]
fn aborting_at_any_step_frees_the_session_in_a_known_state() {
    // Replies of the printer's before the client aborts.
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
                    assert!(matches!(printer.order(), Some(DataCommand::Connect { .. })));
                    printer.printer_session.report(DataEvent::Connected);
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
                assert_eq!(caller.say("ABOR"), "426 Transfer aborted\r\n226 Abort successful\r\n");
            }
            assert_eq!(printer.hears(), if steps == 3 { "MKD next\r\n" } else { "" }, "{steps}");
            let next = match steps {
                0..=2 => {
                    printer.says(if pending == "EPSV\r\n" { "229 (|||50077|)" } else { "200" })
                }
                3 => "MKD next\r\n".into(),
                4 => {
                    assert_eq!(printer.order(), Some(DataCommand::Close));
                    assert_eq!(printer.says("150 Go on"), "", "the outcome has to come as well");
                    printer.says("426 Broken")
                }
                _ => {
                    assert_eq!(printer.order(), Some(DataCommand::Close));
                    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + ABORTED_TIMEOUT));
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
fn aborting_a_download_or_cwd_frees_the_session() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("RETR a");
    printer.begins("RETR a");
    caller.hear();
    assert_eq!(caller.say("ABOR"), "426 Transfer aborted\r\n226 Abort successful\r\n");
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.order(), Some(DataCommand::Close));
    printer.answers("426 Broken").unwrap();
    next_upload_works(&mut printer);

    caller.say("CWD cache");
    printer.plays(&[("CWD cache", "250 OK")]);
    assert_eq!(printer.hears(), "PWD\r\n");
    assert_eq!(caller.say("ABOR"), "426 Transfer aborted\r\n226 Abort successful\r\n");
    printer.answers("257 \"/cache\"").unwrap();
    assert_eq!(*caller.place.slot().directory.borrow(), b"", "it never heard that it is there");
    next_upload_works(&mut printer);
}

/// A late 226 of the transfer before comes ahead of this one's 150.
#[test]
fn a_final_reply_before_the_150_belongs_to_another_transfer() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.begins_with("STOR a", "226 Of another one");
    printer.answers("150 Go on").unwrap();
    printer.moves(1000);
    printer.printer_session.report(DataEvent::Copied);
    assert_eq!(printer.hears(), "");
    let said = caller.hear();
    assert!(said.starts_with("150 ") && !said.contains("226"), "{said}");
    printer.answers("552 Disk full").unwrap();
    assert_eq!(caller.hear(), "552 Disk full\r\n");
    drop(caller);
    next_upload_works(&mut printer);
}

/// Moves `rate` bytes per second for `seconds`; what the client of the transfer was sent.
fn moves_at(printer: &mut Printer, caller: &mut Caller, rate: usize, seconds: u64) -> String {
    let mut heard = String::new();
    for _ in 0..seconds / 10 {
        printer.now = printer.now + Duration::from_secs(10);
        caller.now = printer.now;
        printer.moves(10 * rate);
        printer.upstream.handle_timeout(printer.now).unwrap();
        printer.hears();
        heard.push_str(&caller.hear());
    }
    heard
}

#[test]
fn a_crawling_transfer_is_aborted_while_an_upload_waits() {
    for (rate, waits, aborted) in [(500, true, true), (500, false, false), (1500, true, false)] {
        let service = service(1);
        let mut printer = Printer::live(&service);
        let mut caller = Caller::ready(&service);
        caller.say("RETR a");
        printer.begins("RETR a");
        caller.hear();
        let mut upload = Caller::ready(&service);
        if waits {
            assert_eq!(upload.say("STOR b"), "");
        }
        assert_eq!(moves_at(&mut printer, &mut caller, rate, 110), "", "{rate}");
        let said = moves_at(&mut printer, &mut caller, rate, 30);
        assert_eq!(
            said.starts_with("426 Transfer failed: below 1 kB/s"),
            aborted,
            "{rate}: {said}"
        );
        if aborted {
            assert_eq!(printer.order(), Some(DataCommand::Close));
            assert_eq!(printer.says("426 Broken"), "EPSV\r\n", "the upload begins");
        }
    }
}
