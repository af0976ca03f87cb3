//! Whom the hub wakes: sessions with the printer, the tasks that keep them connected, and clients. A wake-up that is
//! missing shows as a wait for the next timeout.

use super::*;
use crate::notify::tests::wakes;
use crate::service::Service as _;

/// Takes the notifications that a session and the task that keeps it have not seen.
fn take_notifications(session: &PrinterSession) {
    while is_ready(session.notified()) {}
    while is_ready(session.keeper_notified()) {}
}

/// Whether a session and the task that keeps it are both woken.
fn is_woken(session: &PrinterSession) -> bool {
    let (session_is, keeper_is) =
        (is_ready(session.notified()), is_ready(session.keeper_notified()));
    assert_eq!(session_is, keeper_is, "both look at the queue");
    session_is
}

#[test]
fn the_end_wakes_every_session_with_the_printer() {
    let service = service(2);
    let sessions = service.printer_sessions();
    sessions.iter().for_each(|session| take_notifications(session));
    assert!(!sessions.iter().any(|session| is_woken(session)));
    service.shut_down();
    assert!(service.is_leaving());
    assert!(sessions.iter().all(|session| is_woken(session)));
    assert_eq!(sessions.len(), 2);
}

#[test]
fn a_command_wakes_every_session_and_its_taker_the_others() {
    let service = service(2);
    let mut printer = Printer::live(&service);
    let _second = Printer::live_at(&service, 1);
    let [first, second] = service.printer_sessions() else { panic!("there are two") };
    let mut client = TestClient::inside(&service);
    take_notifications(first);
    take_notifications(second);
    assert_eq!(client.command("MKD a"), "");
    assert!(is_woken(first) && is_woken(second));
    assert_eq!(printer.received(), "MKD a\r\n");
    assert!(is_woken(second), "it may take the next command");
}

#[test]
fn a_data_connection_wakes_the_sessions_and_its_client() {
    let service = service(1);
    let mut printer = Printer::live(&service);
    let session = Rc::clone(&printer.printer_session);
    let mut client = TestClient::inside(&service);
    client.command("TYPE I\r\nPROT P\r\nEPSV");
    assert_eq!(client.command("STOR a"), "");
    assert_eq!(printer.received(), "", "its data connection is missing");
    take_notifications(&session);
    while is_ready(client.link.slot().notified()) {}
    client.link.connected(client.now);
    assert!(is_woken(&session));
    assert!(is_ready(client.link.slot().notified()), "it has another deadline");
    assert_eq!(printer.received(), "TYPE I\r\n");
}

#[test]
fn a_data_connection_to_a_closed_port_is_none() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    client.link.connected(client.now);
    assert_eq!(client.link.slot().passive_port(), PassivePort::Closed);
    assert_eq!(client.command("LIST"), "425 Use PASV or EPSV first\r\n");
}

#[test]
fn a_command_that_is_given_up_wakes_the_session_that_runs_it() {
    for is_dropped in [true, false] {
        let (mut printer, mut client) = inside();
        client.command("MKD a");
        assert_eq!(printer.received(), "MKD a\r\n");
        take_notifications(&printer.printer_session);
        if is_dropped {
            drop(client);
        } else {
            assert!(client.command("ABOR").starts_with("426 "));
        }
        assert!(is_woken(&printer.printer_session));
    }
}

#[test]
fn a_client_that_takes_its_replies_wakes_the_session() {
    let (mut printer, mut client) = inside();
    client.command("HELP");
    assert_eq!(printer.received(), "HELP\r\n");
    printer.answers("214-first").unwrap();
    take_notifications(&printer.printer_session);
    assert_eq!(client.read(), "214-first\r\n");
    assert!(is_woken(&printer.printer_session), "there is room for the next line");
}

#[test]
fn an_answer_to_an_earlier_command_is_not_the_next_ones() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    assert_eq!(client.command("MKD a"), "");
    let earlier = client.link.slot().task().unwrap().number;
    client.command("ABOR");
    assert_eq!(client.command("MKD b"), "");
    let task = client.link.slot().task();
    service.hub.conclude(client.link.slot(), earlier, format_args!("421 Stale"));
    service.hub.refuse(client.link.slot(), earlier, format_args!("Stale"));
    assert_eq!(client.read(), "");
    assert_eq!(client.link.slot().task(), task);
    service.hub.refuse(client.link.slot(), task.unwrap().number, format_args!("Now"));
    assert_eq!(client.read(), "451 Now\r\n");
    assert_eq!(client.link.slot().task(), None);
}

#[test]
fn an_announced_size_is_that_of_one_upload() {
    let (mut printer, mut client) = ready();
    client.command("ALLO 1000");
    printer.exchange(&[("ALLO 1000", "200 OK")]);
    assert_eq!(client.link.slot().announced.get(), Some(1000));
    client.command("STOR a");
    printer.begin("STOR a");
    printer.completes();
    assert!(client.read().ends_with("226 Done\r\n"));
    assert_eq!(client.link.slot().announced.get(), None);
}

#[test]
fn a_login_at_the_printer_ends_the_refusals() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    client.command("MKD a");
    let session = Rc::clone(&service.printer_sessions()[0]);
    session.set_dialling();
    service.lost(at(1), &session, &"no answer", Duration::from_secs(60));
    assert_eq!(client.read(), "451 No answer\r\n");
    client.now = at(2);
    assert_eq!(client.command("MKD a"), "451 No answer\r\n");
    // The printer is there, and closes the idle session.
    let printer = Printer::live(&service);
    printer.lose("closed");
    client.now = at(3);
    assert_eq!(client.command("MKD a"), "");
    assert!(service.hub.is_wanted(at(3), 0));
}

#[test]
fn there_is_a_session_however_few_a_printer_has() {
    assert_eq!(service(0).printer_sessions().len(), 1);
}

#[test]
fn replies_wake_the_clients_session() {
    let (mut printer, mut client) = inside();
    let service = Rc::clone(&printer.service);
    client.command("HELP");
    assert_eq!(printer.received(), "HELP\r\n");
    let slot = Rc::clone(client.link.slot());
    assert!(wakes(|| slot.notified(), || printer.answers("214-first").unwrap()));
    // The rest of the reply is missing: the client is disconnected.
    assert!(wakes(|| slot.notified(), || printer.lose("reset")));
    assert!(client.read().starts_with("214-first\r\n"));
    let other = TestClient::inside(&service);
    let slot = Rc::clone(other.link.slot());
    assert!(wakes(|| slot.notified(), || slot.reply(format_args!("200 OK"))));
}

#[test]
fn the_task_of_the_data_port_is_woken() {
    let service = service(1);
    let client = TestClient::inside(&service);
    let slot = client.link.slot();
    assert!(wakes(|| slot.passive_port_notified(), || slot.open_passive_port(client.now)));
    assert!(wakes(|| slot.passive_port_notified(), || slot.close_passive_port()));
}

#[test]
fn commands_and_events_of_the_data_task_wake_the_other_side() {
    let service = service(1);
    let session = Rc::clone(&service.printer_sessions()[0]);
    let commanded = || session.send_command(DataCommand::Connect { port: 7 });
    let interrupted = || {
        let taken =
            pin!(session.next_command()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let _earlier = taken;
        session.interrupted()
    };
    assert!(wakes(interrupted, commanded));
    assert!(wakes(|| session.notified(), || session.report(DataEvent::Connected)));
}
