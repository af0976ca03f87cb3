//! The service without a runtime: one request, and all of its answer.

use super::document::{Document, Source};
use super::page::Cursor;
use super::*;
use crate::auth::{AccessCode, Guess};
use crate::cause::Cause;
use crate::config::Port6000;
use crate::session::{Output, Session};
use alloc::format;
use alloc::vec;

const SERIAL: &str = "01P00A000000001";

fn service(ca_pem: &str) -> Rc<Service> {
    service_of(ca_pem, "", None)
}

fn service_of(ca_pem: &str, notice: &str, machine_port: Option<u16>) -> Rc<Service> {
    let code = AccessCode::new(b"12345678").unwrap();
    let facts = Facts {
        access: Access { code, view: None, token: None },
        hosts: Vec::new(),
        serial: heapless::String::try_from(SERIAL).unwrap(),
        notice: notice.into(),
        machine_port: machine_port.and_then(NonZeroU16::new),
        ca_pem: ca_pem.into(),
        ca_sha256: [0; 32],
        heap_limit: 1,
        limiter: Rc::default(),
    };
    Service::new(facts, Rc::new(Status::new(SERIAL, Port6000::Auto)))
}

/// What is sent for a request, and whether the connection ends then.
fn ask(service: &Rc<Service>, request: &str) -> (String, bool) {
    let (now, mut out) = (Instant::START, vec![0; budget::HTTP_OUTBOX]);
    let mut client = Client::new(Slot::new(), Rc::clone(service), now, None);
    client.handle_input(now, request.as_bytes()).unwrap();
    let mut sent = Vec::new();
    loop {
        match client.poll_output(now, &mut out) {
            Output::Written(len) => sent.extend_from_slice(&out[..len]),
            Output::Shared => sent.extend_from_slice(client.shared()),
            Output::Idle | Output::End(_) => break,
        }
    }
    (String::from_utf8(sent).unwrap(), client.error().is_some())
}

#[test]
fn content_without_length_and_chunks_ends_the_connection() {
    let login = "Authorization: Basic YmJscDoxMjM0NTY3OA==";
    for (version, ends) in [("1.0", true), ("1.1", false)] {
        let fields = format!("Host: localhost\r\nConnection: keep-alive\r\n{login}");
        let request = format!("GET /status HTTP/{version}\r\n{fields}\r\n\r\n");
        let (answer, has_ended) = ask(&service(""), &request);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(has_ended, ends, "{version}");
    }
}

#[test]
fn a_memory_cards_notice_and_port_are_told() {
    let login = "Host: localhost\r\nAuthorization: Basic YmJscDoxMjM0NTY3OA==";
    let notice = "The card's \"data\" is lost. ".repeat(21);
    for (service, json, line) in [
        (service(""), "\"machine_port\":null,\"notice\":null}", None),
        (
            service_of("", &notice, Some(8081)),
            &*format!("\"machine_port\":8081,\"notice\":\"{}\"}}", notice.replace('"', "\\\"")),
            Some(&notice),
        ),
    ] {
        let (answer, _) = ask(&service, &format!("GET /status HTTP/1.0\r\n{login}\r\n\r\n"));
        assert!(answer.contains(json), "{answer}");
        let (answer, _) = ask(&service, &format!("GET /status.txt HTTP/1.0\r\n{login}\r\n\r\n"));
        assert_eq!(line.is_some(), answer.contains(&notice.replace('"', "\\\"")), "{answer}");
    }
}

#[test]
fn readiness_names_no_serial_number_and_no_address() {
    let service = service("");
    let upstream = Rc::new(Upstream::default());
    let own = Rc::clone(&service) as Rc<dyn service::Service>;
    let (name, transport, shown) = ("mqtt", "tls", Some(Rc::clone(&upstream)));
    service.list(vec![Listed {
        name,
        port: 8883,
        transport,
        limit: 1,
        service: own,
        upstream: shown,
    }]);
    for (reason, words) in [
        (format!("{}", Cause::WRONG_SERIAL.with(SERIAL)), "correct --serial-number"),
        (format!("{}", Cause::ITSELF.with("192.168.1.9")), Cause::ITSELF.hint),
        (format!("refused by {SERIAL} at 192.168.1.9"), "mqtt: "),
    ] {
        upstream.set_failing(Kind::PrinterUntrusted, &reason);
        let (answer, _) = ask(&service, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(words), "{answer}");
        assert!(!answer.contains(SERIAL) && !answer.contains("192.168.1.9"), "{answer}");
    }
}

#[test]
fn the_authority_is_sent_without_text_before_it() {
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let service = service(&format!("{}\n{certificate}", "x".repeat(budget::HTTP_OUTBOX)));
    let (answer, _) = ask(&service, "GET /ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let len = format!("Content-Length: {}\r\n", certificate.len());
    assert!(
        answer.contains(&len) && answer.ends_with(&format!("\r\n\r\n{certificate}")),
        "{answer}"
    );
}

/// Issue 15: of a relayed printer more than one authority is handed out.
#[test]
fn authorities_are_sent_whole_that_do_not_fit_an_outbox() {
    let certificate =
        format!("-----BEGIN CERTIFICATE-----\n{}", "MIIB\n".repeat(budget::HTTP_OUTBOX));
    let service = service(&certificate);
    for method in ["GET", "HEAD"] {
        let request = format!("{method} /ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (answer, _) = ask(&service, &request);
        let len = format!("Content-Length: {}\r\n", certificate.len());
        assert!(answer.contains(&len), "{answer}");
        let (_, content) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(content, if method == "GET" { &certificate } else { "" });
    }
}

#[test]
fn metrics_have_each_family_once_while_values_appear() {
    let service = service("");
    let (mut cursor, mut all) = (Cursor::default(), String::new());
    let mut out = [0; 300];
    loop {
        let source = Source { service: &service, now: Instant::START, reached: None };
        let (len, next) = Document::Metrics.write(&source, cursor, &mut out);
        all.push_str(core::str::from_utf8(&out[..len]).unwrap());
        if all.contains("pandaproxy_heap_bytes") {
            service.status.set_reachable(true);
        }
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let families: Vec<_> = all.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    for (at, family) in families.iter().enumerate() {
        assert!(!families[at + 1..].contains(family), "{family} stands twice in {all}");
    }
    assert!(all.contains("pandaproxy_events_total"));
}

#[test]
fn metrics_are_whole_in_pieces_of_a_small_buffer() {
    let service = service("");
    let own = Rc::clone(&service) as Rc<dyn service::Service>;
    for name in ["detect-tls", "chamber"] {
        counts::set(name, counts::Count::PendingLimit, 4);
        counts::set(name, counts::Count::TransfersLimit, 4);
        counts::add(name, counts::Count::FromClient, u64::MAX);
    }
    let listed = ["detect-tls", "chamber"].map(|name| Listed {
        name,
        port: 1,
        transport: "tls",
        limit: usize::MAX,
        service: Rc::clone(&own),
        upstream: Some(Rc::default()),
    });
    service.list(listed.into());
    let source = Source { service: &service, now: Instant::START, reached: None };
    // An item that does not fit is left out.
    let [whole, pieces] = [64 * KIB, budget::HTTP_OUTBOX / 8].map(|size| {
        let (mut cursor, mut all, mut out) = (Cursor::default(), String::new(), vec![0; size]);
        loop {
            let (len, next) = Document::Metrics.write(&source, cursor, &mut out);
            all.push_str(core::str::from_utf8(&out[..len]).unwrap());
            match next {
                Some(next) => cursor = next,
                None => return all,
            }
        }
    });
    assert!(whole.len() > budget::HTTP_OUTBOX, "{}", whole.len());
    let heap = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("pandaproxy_heap_"));
        lines.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(heap(&pieces), heap(&whole));
    assert!(whole.contains("pandaproxy_events_total{kind=\"stopping\"} "));
}

/// A connection may be taken away before its session ends.
#[test]
fn a_wrong_code_counts_as_soon_as_it_is_shown() {
    let (service, now) = (service(""), Instant::START);
    let counted = RefCell::new(Vec::new());
    let guessed = |guess| counted.borrow_mut().push(guess);
    let ends = service.client(now, None, &|| {}, &|| {}, &guessed);
    let (mut client, link) = ends.unwrap();
    let request = "GET /status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n";
    let (_, event) = client.handle_input(now, request.as_bytes()).unwrap();
    link.handle_event(now, &mut client, event.unwrap()).unwrap();
    assert_eq!(*counted.borrow(), [Guess::of("wrong".as_bytes())]);
}
