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
        let mut client = TestClient::ready(&service);
        client.command("STOR a");
        let whole = format!("220-a\r\n b\r\n220 c\r\n331 u\r\n230 p\r\n200 b\r\n{script}");
        let split = split + whole.len() - script.len();
        let mut received = String::new();
        for piece in [&whole[..split], &whole[split..]] {
            // One line at a time, since it answers in between.
            for byte in piece.bytes() {
                printer.input.push(byte);
                printer.reads().unwrap();
                received.push_str(&printer.received());
            }
        }
        assert_eq!(
            received,
            "USER bblp\r\nPASS 12345678\r\nPBSZ 0\r\nPWD\r\nTYPE I\r\nPROT P\r\nEPSV\r\n"
        );
        assert_eq!(printer.data_command(), Some(DataCommand::Connect { port: 7 }));
    }
}

#[test]
fn uploads_go_first_and_equals_go_in_order() {
    let (mut printer, mut first) = inside();
    assert_eq!(first.command("MKD one"), "");
    assert_eq!(printer.received(), "MKD one\r\n");
    let mut listing = TestClient::inside(&printer.service);
    assert_eq!(listing.command("MKD two"), "");
    let mut other = TestClient::inside(&printer.service);
    assert_eq!(other.command("MKD three"), "");
    let mut upload = TestClient::ready(&printer.service);
    assert_eq!(upload.command("STOR a"), "");
    printer.answers("257 \"/one\"").unwrap();
    assert_eq!(first.read(), "257 \"/one\"\r\n");
    assert_eq!(first.command("MKD four"), "");
    printer.begin("STOR a");
    printer.completes();
    assert!(upload.read().ends_with("226 Done\r\n"));
    printer.exchange(&[
        ("MKD two", "257 \"/two\""),
        ("MKD three", "257 \"/three\""),
        ("MKD four", "257 \"/four\""),
    ]);
    assert_eq!(listing.read(), "257 \"/two\"\r\n");
    assert_eq!(other.read(), "257 \"/three\"\r\n");
    assert_eq!(first.read(), "257 \"/four\"\r\n");
}

/// Guards: bambuddy#2529: two uploads at once spoil each other.
#[test]
fn two_sessions_never_take_two_uploads_at_once() {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let mut one = TestClient::ready(&service);
    let mut two = TestClient::ready(&service);
    let mut reader = TestClient::inside(&service);
    one.command("STOR a");
    printer.begin("STOR a");
    two.command("STOR b");
    assert!(!service.hub.is_wanted(at(0), 1), "only uploads wait");
    reader.command("MDTM a");
    assert!(service.hub.is_wanted(at(0), 1));
    let mut second = Printer::live_at(&service, 1);
    second.exchange(&[("MDTM a", "213 20260101000000")]);
    assert_eq!(second.received(), "");
    printer.completes();
    printer.exchange(&[("EPSV", "229 (|||50077|)")]);
    printer.opens("STOR b");
}

#[test]
fn a_second_session_is_made_when_the_first_is_taken() {
    let service = service(2);
    let first = Rc::clone(&service.printer_sessions()[0]);
    let second = Rc::clone(&service.printer_sessions()[1]);
    first.set_dialling();
    let mut one = TestClient::ready(&service);
    one.command("STOR a");
    let mut two = TestClient::inside(&service);
    two.command("MKD b");
    let mut wanted = pin!(service.wanted(|| at(0), &second));
    let mut is_wanted = || {
        let mut cx = Context::from_waker(Waker::noop());
        wanted.as_mut().poll(&mut cx).is_ready()
    };
    assert!(!is_wanted(), "the first may be quick");
    let mut printer = Printer::live(&service);
    assert_eq!(printer.received(), "TYPE I\r\n");
    assert!(is_wanted(), "it has work for long");
}
