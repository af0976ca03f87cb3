//! Commands of clients and the replies they get.

use crate::auth::{Guess, LoginError};

use super::*;
use crate::service::Service as _;

#[test]
fn login_needs_the_right_user_and_code() {
    let service = service(1);
    let mut client = TestClient::new(&service);
    assert!(client.read().starts_with("220 "));
    assert!(client.command("LIST").starts_with("530 "));
    assert!(client.command("EPSV").starts_with("530 "));
    assert!(client.command("PASS 12345678").starts_with("503 "));
    assert!(client.command("USER bblp").starts_with("331 "));
    assert!(client.command("PASS 12345678").starts_with("230 "));
    assert_eq!(service.clients(), 1);
    assert!(client.command("USER bblp").starts_with("503 "));
    assert!(client.command("QUIT").starts_with("221 "));
    assert_eq!(client.ended, Some(client::Error::Quit));
    drop(client);
    assert_eq!((service.clients(), service.connections()), (0, 0));

    let mut wrong = TestClient::new(&service);
    assert!(wrong.command("USER bblp\r\nPASS 12345679").contains("\r\n530 "));
    assert_eq!(
        wrong.ended,
        Some(client::Error::Login(LoginError::WrongCode(Guess::of(b"12345679"))))
    );
    let mut other = TestClient::new(&service);
    assert!(other.command("USER root\r\nPASS 12345678").contains("\r\n530 "));
    assert_eq!(other.ended, Some(client::Error::Login(LoginError::WrongUser)));
    assert_eq!(service.clients(), 0);
}

/// RFC 4217 §12 shows them in this order.
#[test]
fn prot_is_accepted_before_the_login() {
    let service = service(1);
    let mut client = TestClient::new(&service);
    client.read();
    assert_eq!(client.command("PBSZ 0"), "200 PBSZ=0\r\n");
    assert!(client.command("PROT P").starts_with("200 "));
    assert!(client.command("USER bblp\r\nPASS 12345678").ends_with("230 Logged in\r\n"));
    assert_eq!(client.link.slot().prot.get(), Prot::Private);
}

#[test]
fn a_client_over_the_limit_gets_421() {
    let service = service(1);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| TestClient::inside(&service)).collect();
    let mut late = TestClient::new(&service);
    assert!(late.command("USER bblp\r\nPASS 12345678").contains("\r\n421 "));
    assert_eq!(late.ended, Some(client::Error::NoSlot));
    drop(late);
    drop(clients.pop());
    TestClient::inside(&service);
    let _strangers: Vec<_> =
        (0..SLOTS - clients.len()).map(|_| service.pending(Peer::unknown()).unwrap()).collect();
    assert!(service.pending(Peer::unknown()).is_none());
}

#[test]
fn a_client_without_login_is_disconnected_at_the_deadline() {
    let mut client = TestClient::new(&service(1));
    assert_eq!(client.client.poll_timeout(), Some(at(15)));
    assert_eq!(client.client.handle_timeout(at(14)), Ok(()));
    assert_eq!(client.client.handle_timeout(at(15)), Err(client::Error::Silent));
    assert!(client.read().ends_with("421 Login timeout\r\n"));
    let inside = TestClient::inside(&service(1));
    assert_eq!(inside.client.poll_timeout(), Some(at(300)));
}

#[test]
fn local_commands_are_answered_without_the_printer() {
    let mut client = TestClient::inside(&service(1));
    for (line, code) in [
        ("NOOP", "200"),
        ("noop", "200"),
        ("TYPE I", "200"),
        ("TYPE A N", "200"),
        ("TYPE L 8", "200"),
        ("TYPE E", "504"),
        ("MODE S", "200"),
        ("MODE Z", "504"),
        ("STRU F", "200"),
        ("STRU R", "504"),
        ("PBSZ 0", "200"),
        ("PROT P", "200"),
        ("PROT C", "200"),
        ("PROT S", "536"),
        ("OPTS UTF8 ON", "200"),
        ("OPTS MLST size;", "501"),
        ("PORT 10,0,0,1,7,232", "502"),
        ("EPRT |1|10.0.0.1|2024|", "502"),
        ("AUTH TLS", "503"),
        ("CCC", "503"),
        ("REIN", "502"),
        ("LPSV", "502"),
        ("SSCN ON", "502"),
        ("ABOR", "226"),
        ("RNTO b", "503"),
        ("STOR a", "425"),
        ("PASV", "227 Entering Passive Mode (10,0,0,2,7,232)."),
        ("EPSV", "229 Entering Extended Passive Mode (|||2024|)"),
        ("EPSV 1", "229"),
        ("EPSV 2", "522"),
        ("EPSV x", "501"),
        ("EPSV ALL", "200"),
        ("PASV", "501"),
        ("EPSV", "229"),
    ] {
        let reply = client.command(line);
        assert!(reply.starts_with(code), "{line}: {reply}");
        assert_eq!(reply.matches("\r\n").count(), 1, "{line}: {reply}");
        assert_eq!(client.link.slot().task(), None, "{line}");
    }
}

#[test]
fn malformed_lines_are_refused_and_too_long_ones_disconnect() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    assert!(client.send(b"NOOP\0\r\n").starts_with("501 "));
    assert!(client.send(b"NOOP\rQUIT\r\n").starts_with("501 "));
    assert!(client.send(b"\r\n").starts_with("500 "));
    assert!(client.send(b"\x16\x03\x01\r\n").starts_with("500 "));
    assert!(client.send(b"NOOP\n").starts_with("200 "));
    assert!(client.send(b"\xff\xf4\xff\xf2ABOR\r\n").starts_with("226 "));
    assert_eq!(client.ended, None);
    assert!(client.send("x".repeat(65536).as_bytes()).starts_with("500 "));
    assert_eq!(client.ended, Some(client::Error::TooLong));

    let mut longest = TestClient::inside(&service);
    let name = "x".repeat(LINE - 2 - "NOOP ".len());
    assert_eq!(longest.command(&format!("NOOP {name}")), "200 OK\r\n");
}

#[test]
fn a_clients_commands_are_parsed_at_every_split() {
    let lines = b"USER bblp\r\nPASS 12345678\r\nTYPE I\r\nPROT P\r\nEPSV\r\nNOOP\r\nQUIT\r\n";
    let mut expected = None;
    for split in 0..lines.len() {
        let service = service(1);
        let mut client = TestClient::new(&service);
        let mut reply = client.send(&lines[..split]);
        reply.push_str(&client.send(&lines[split..]));
        assert_eq!(client.ended, Some(client::Error::Quit), "split at {split}");
        assert_eq!(*expected.get_or_insert(reply.clone()), reply, "split at {split}");
    }
    assert_eq!(expected.unwrap().matches("\r\n").count(), 8);
}

#[test]
fn a_refused_transfer_keeps_its_data_connection_until_timeout() {
    let (mut printer, mut client) = ready();
    client.command("STOR a");
    printer.prepares();
    printer.connects();
    printer.exchange(&[("STOR a", "553 No card")]);
    assert_eq!(client.read(), "553 No card\r\n");
    assert_eq!(
        printer.data_command(),
        Some(DataCommand::Close),
        "the printer's data connection is closed"
    );
    assert!(matches!(client.link.slot().passive_port(), PassivePort::Connected { .. }));
    client.client.handle_timeout(at(60)).unwrap();
    assert_eq!(client.link.slot().passive_port(), PassivePort::Closed);
}

#[test]
fn a_command_is_refused_after_half_an_hour_in_the_queue() {
    let (mut printer, mut first) = inside();
    first.command("MKD one");
    printer.received();
    let mut client = TestClient::inside(&printer.service);
    client.command("MKD two");
    assert_eq!(client.client.poll_timeout(), Some(at(0) + QUEUE_TIMEOUT));
    client.client.handle_timeout(at(1799)).unwrap();
    assert_eq!(client.read(), "");
    client.client.handle_timeout(at(1800)).unwrap();
    assert!(client.read().starts_with("451 "));
    assert!(client.command("NOOP").starts_with("200 "));
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let (mut printer, mut client) = inside();
    assert_eq!(client.command("MKD one\r\nNOOP\r\nMKD two\r\nQUIT"), "");
    assert!(!client.input.is_empty(), "they are not read");
    printer.exchange(&[("MKD one", "257 \"/one\"")]);
    assert_eq!(client.read(), "257 \"/one\"\r\n200 OK\r\n");
    printer.exchange(&[("MKD two", "257 \"/two\"")]);
    assert_eq!(client.read(), "257 \"/two\"\r\n221 Goodbye\r\n");
}

#[test]
fn an_unused_data_port_is_closed_after_a_minute() {
    let service = service(1);
    let mut client = TestClient::inside(&service);
    client.command("EPSV");
    assert_eq!(client.client.poll_timeout(), Some(at(0) + PASSIVE_PORT_TIMEOUT));
    client.client.handle_timeout(at(59)).unwrap();
    assert_ne!(client.link.slot().passive_port(), PassivePort::Closed);
    client.client.handle_timeout(at(60)).unwrap();
    assert_eq!(client.link.slot().passive_port(), PassivePort::Closed);

    client.command("EPSV");
    assert_eq!(client.command("STOR a"), "", "it waits for the client's connection");
    assert!(!service.hub.is_wanted(at(0), 0), "and the printer does not");
    assert!(client.command("STAT").starts_with("211 "));
    client.client.handle_timeout(at(60)).unwrap();
    assert!(client.read().starts_with("425 "));
    client.command("EPSV");
    client.command("STOR a");
    client.link.connected(at(0));
    assert!(service.hub.is_wanted(at(0), 0));
}

#[test]
fn a_long_reply_reaches_a_slow_client_with_long_lines_cut() {
    let (mut printer, mut client) = inside();
    client.command("STAT /");
    printer.received();
    let mut answer = String::from("213-Status\r\n");
    for n in 0..100 {
        answer.push_str(&format!(" {n} {}\r\n", "x".repeat(n * 30)));
    }
    answer.push_str("213 End\r\n");
    printer.input.extend_from_slice(answer.as_bytes());
    let mut received = String::new();
    let mut rounds = 0;
    while !received.ends_with("213 End\r\n") {
        printer.reads().unwrap();
        let piece = client.read();
        assert!(piece.len() <= OUT, "{}", piece.len());
        received.push_str(&piece);
        rounds += 1;
        assert!(rounds < 1000, "{}", received.len());
    }
    assert!(rounds > 10);
    let lines: Vec<&str> = received.split("\r\n").collect();
    for (line, sent) in lines.iter().zip(answer.split("\r\n")) {
        assert_eq!(*line, &sent[..sent.len().min(LINE - 2)]);
    }
    assert_eq!(lines.len(), 103);
}
