//! Who gets the printer's session, and what it is set to then.

use super::*;

#[test]
fn an_upload_is_complete_when_the_printer_says_so_and_not_before() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    assert_eq!(caller.say("STOR a b.3mf"), "");
    printer.plays(&[("TYPE I", "200 OK"), ("PROT P", "200 OK"), ("EPSV", "229 ok (|||50077|)")]);
    assert_eq!(printer.hears(), "", "nothing is asked before the data port answers");
    assert_eq!(printer.order(), Some(Order::Connect { port: 50077 }));
    printer.printer_session.report(News::Connected);
    assert_eq!(printer.hears(), "STOR a b.3mf\r\n");
    assert_eq!(caller.hear(), "");
    printer.answers("150 Ok to send data.").unwrap();
    assert_eq!(caller.hear(), "150 Ok to send data.\r\n");
    let upload = Move { slot: caller.place.slot().index(), upload: true, prot: Prot::Private };
    assert_eq!(printer.order(), Some(Order::Move(upload)));
    printer.moves(1000);
    printer.printer_session.report(News::Moved);
    assert_eq!(printer.hears(), "");
    assert_eq!(caller.hear(), "");
    assert_eq!(printer.upstream.poll_timeout(), Some(at(0) + STORED_TIMEOUT));
    assert_eq!(printer.upstream.handle_timeout(at(300)), Ok(()), "cards are slow");
    printer.answers("226 Transfer complete.").unwrap();
    assert_eq!(caller.hear(), "226 Transfer complete.\r\n");
    assert_eq!(caller.place.slot().passive_port(), PassivePort::Closed);
}

#[test]
fn a_session_is_understood_wherever_the_printers_lines_are_split() {
    let script = "257 \"/\"\r\n200 t\r\n200 p\r\n229 (|||7|)\r\n";
    for split in 0..script.len() {
        let service = service(1);
        let (upstream, _link) = service.upstream(at(0), 0).unwrap();
        let printer_session = Rc::clone(&service.printer_sessions()[0]);
        let mut printer = Printer {
            service: Rc::clone(&service),
            printer_session,
            upstream,
            input: Vec::new(),
            now: at(0),
        };
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
    printer.printer_session.report(News::Moved);
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
    printer.printer_session.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("STOR b");
}

#[test]
fn whoever_comes_while_the_first_session_is_made_gets_the_second() {
    let service = service(2);
    let first = Rc::clone(&service.printer_sessions()[0]);
    let second = Rc::clone(&service.printer_sessions()[1]);
    first.is_dialling();
    let mut one = Caller::ready(&service);
    one.say("STOR a");
    let mut two = Caller::inside(&service);
    two.say("MKD b");
    let mut wanted = pin!(service.wanted(|| at(0), &second));
    let mut is_wanted = || {
        let mut cx = Context::from_waker(Waker::noop());
        wanted.as_mut().poll(&mut cx).is_ready()
    };
    assert!(!is_wanted(), "the first may be quick");
    let mut printer = Printer::live(&service);
    assert_eq!(printer.hears(), "TYPE I\r\n");
    assert!(is_wanted(), "it has work for long");
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
    printer.printer_session.report(News::Moved);
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
    printer.printer_session.report(News::Moved);
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
    printer.printer_session.report(News::Connected);
    printer.plays(&[("REST 0", "350"), ("STOR b", "150")]);
    printer.printer_session.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();

    one.say("RETR a");
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.printer_session.report(News::Connected);
    printer.plays(&[("REST 500", "350"), ("RETR a", "150")]);
    printer.printer_session.report(News::Moved);
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
    assert_eq!(caller.place.slot().restart.get(), None);
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
    printer.printer_session.report(News::Moved);
    printer.hears();
    printer.answers("226 Done").unwrap();
    caller.hear();
    caller.connect();
    caller.say("STOR a");
    printer.plays(&[("PASV", "227 (0,0,0,0,195,157)")]);
    printer.opens("STOR a");
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
fn printers_that_begin_without_a_word_still_make_a_transfer() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("NLST");
    printer.plays(&[("TYPE I", "504 Not that"), ("PROT P", "200 OK"), ("EPSV", "229 (|||50077|)")]);
    assert_eq!(printer.hears(), "");
    printer.order();
    printer.printer_session.report(News::Connected);
    printer.plays(&[("NLST", "226-There is\r\n226 Nothing there")]);
    let said = caller.hear();
    assert!(said.starts_with("150 ") && !said.contains("226"), "{said}");
    printer.printer_session.report(News::Moved);
    printer.hears();
    assert_eq!(caller.hear(), "226 Nothing there\r\n");
}
