//! The order in which commands get the printer's sessions.

use super::*;

#[test]
fn the_printers_replies_are_parsed_at_every_split() {
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
        assert_eq!(printer.order(), Some(DataCommand::Connect { port: 7 }));
    }
}

#[test]
fn uploads_go_first_and_equals_go_in_order() {
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
    printer.printer_session.report(DataEvent::Copied);
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

/// Guards: bambuddy#2529: two uploads at once spoil each other.
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
    assert!(!service.hub.is_wanted(at(0), 1), "only uploads wait");
    reader.say("MDTM a");
    assert!(service.hub.is_wanted(at(0), 1));
    let mut second = Printer::live_at(&service, 1);
    second.plays(&[("MDTM a", "213 20260101000000")]);
    assert_eq!(second.hears(), "");
    printer.printer_session.report(DataEvent::Copied);
    printer.hears();
    printer.answers("226 Done").unwrap();
    printer.plays(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("STOR b");
}

#[test]
fn a_second_session_is_made_when_the_first_is_taken() {
    let service = service(2);
    let first = Rc::clone(&service.printer_sessions()[0]);
    let second = Rc::clone(&service.printer_sessions()[1]);
    first.set_dialling();
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
