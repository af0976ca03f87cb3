//! Whoever goes, breaks or lies in the middle of something.

use super::*;

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
        printer.printer_session.report(news);
        printer.hears();
        let said = caller.hear();
        assert!(said.starts_with(code), "{said}");
        assert_eq!(printer.printer_session.job(), None);
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
        printer.printer_session.report(News::Moved);
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
    printer.printer_session.report(News::Failed(Failure::Printer));
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.printer_session.job(), None);
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
    assert_eq!(printer.printer_session.job(), None);
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
                    printer.printer_session.report(News::Connected);
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
        printer.printer_session.report(News::Failed(why));
        printer.hears();
        let said = caller.hear();
        assert!(said.starts_with(code), "{why:?}: {said}");
        assert_eq!(printer.order(), Some(Order::Drop));
        assert!(printer.printer_session.job().is_some(), "the printer has not said its word");
        printer.answers("226 All fine").unwrap();
        assert_eq!(caller.hear(), "");
        assert_eq!(printer.printer_session.job(), None);
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
        printer.printer_session.report(News::Failed(Failure::Printer));
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
    while is_ready(caller.place.slot().notified()) {}
    printer.is_lost("the printer ended the connection");
    assert!(is_ready(caller.place.slot().notified()), "it has to look at the time again");
    assert_eq!(caller.hear(), "");
    assert_eq!(caller.client.poll_timeout(), Some(at(0) + QUEUE_TIMEOUT));
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
    let printer_session = Rc::clone(&service.printer_sessions()[0]);
    printer_session.is_dialling();
    service.lost(
        at(1),
        &printer_session,
        &"the printer\r\ndoes not answer",
        Duration::from_secs(5),
    );
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
    // vsFTPd has trouble of its own with a login that is right.
    let (mut upstream, _) = service.upstream(at(0), 0).unwrap();
    upstream.handle_input(at(0), b"220 Hi\r\n").unwrap();
    let _user = upstream.poll_output(at(0), &mut out);
    let refused = upstream.handle_input(at(0), b"500 OOPS: cannot change directory\r\n");
    assert_eq!(refused, Err(upstream::Error::Busy(500)));
}

#[test]
fn a_command_that_was_answered_before_it_was_sent_is_not_sent_any_more() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut caller = Caller::ready(&service);
    caller.say("STOR a");
    printer.plays(&[("TYPE I", "200 OK"), ("PROT P", "200 OK"), ("EPSV", "229 (|||50077|)")]);
    assert!(matches!(printer.order(), Some(Order::Connect { .. })));
    // Both are there when the session looks.
    printer.printer_session.report(News::Connected);
    printer.answers("425 Data port given up").unwrap();
    assert_eq!(caller.hear(), "425 Data port given up\r\n");
    assert_eq!(printer.hears(), "");
    assert_eq!(printer.printer_session.job(), None);
}

#[test]
fn a_folder_that_is_gone_can_be_left() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let mut one = Caller::inside(&service);
    let mut two = Caller::inside(&service);
    one.say("CWD stick");
    printer.plays(&[("CWD stick", "250 OK"), ("PWD", "257 \"/stick\"")]);
    assert_eq!(one.hear(), "250 OK\r\n");
    two.say("MKD a");
    printer.plays(&[("CWD /", "250 OK"), ("MKD a", "257 \"/a\"")]);
    one.say("MKD b");
    printer.plays(&[("CWD /stick", "550 No such directory")]);
    assert_eq!(one.hear(), "550 No such directory\r\n");
    one.say("CWD /");
    printer.plays(&[("CWD /", "250 OK"), ("PWD", "257 \"/\"")]);
    assert_eq!(one.hear(), "250 OK\r\n");
    one.say("MKD b");
    printer.plays(&[("MKD b", "257 \"/b\"")]);
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
    let second = Rc::clone(&service.printer_sessions()[1]);
    second.is_dialling();
    service.lost(at(0), &second, &"no more sessions", Duration::from_secs(5));
    assert_eq!(two.hear(), "", "there is still the first");
    assert!(!service.hub.is_wanted(at(10), 1));
    printer.answers("257 \"/a\"").unwrap();
    printer.plays(&[("MKD b", "257 \"/b\"")]);
    assert_eq!(two.hear(), "257 \"/b\"\r\n");
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
