//! HTTP: requests, and a client's session.

use std::rc::Rc;
use std::sync::Arc;

use pandaproxy::auth::AccessCode;
use pandaproxy::clock::Instant;
use pandaproxy::http::access::Access;
use pandaproxy::http::client::{Client, Error, REQUEST_TIMEOUT};
use pandaproxy::http::wire::{MAX_HEAD, MAX_TARGET, next, parameter, without_port};
use pandaproxy::http::{ClientLink, Facts, Service};
use pandaproxy::memory::budget;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::service::Service as _;

use super::conversation::{Conversation, Script, both_ways};

const SERIAL: &str = "01P00A3C1200417";

/// A request. What is read of one that came whole is read of each beginning as nothing or as the same.
pub(crate) fn wire(data: &[u8]) {
    let whole = next(data);
    if let Ok(Some((len, request))) = whole {
        assert!(len <= MAX_HEAD && request.path.len() + request.query.len() <= MAX_TARGET);
        assert!(request.path.starts_with('/'));
        if let Some(host) = request.host {
            assert!(host.starts_with(without_port(host)));
        }
        assert!(parameter(request.query, "token").is_none_or(|it| request.query.contains(it)));
        assert_eq!(next(&data[..len]), whole, "what follows does not matter");
    }
    for len in 0..data.len().min(MAX_HEAD) {
        match next(&data[..len]) {
            Ok(None) => {}
            early => return assert_eq!(early, whole, "the first {len} bytes decide"),
        }
    }
}

fn service() -> Rc<Service> {
    let code = |code: &[u8]| AccessCode::new(code).unwrap();
    let access = Access {
        code: code(b"7Kq2xW9p"),
        view: Some(code(b"view-7Kq2xW9p")),
        token: Some(code(b"token-7Kq2xW9p")),
    };
    let facts = Facts {
        access,
        hosts: vec!["printer".into()],
        serial: SERIAL.try_into().unwrap(),
        notice: String::new(),
        machine_port: None,
        ca_pem: Arc::from("-----BEGIN CERTIFICATE-----\n"),
        ca_sha256: [7; 32],
        heap_limit: 1,
        limiter: Rc::default(),
    };
    Service::new(facts, Rc::new(Status::new(SERIAL, Port6000::Auto)))
}

/// What a client says: it is answered with whole answers, and shown nothing without a code.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let (nothing, until) = (|| {}, Instant::START + REQUEST_TIMEOUT);
        let ends = service.client(until, None, &nothing, &nothing, &|_| {}).unwrap();
        let (inbox, outbox) = (budget::HTTP_INBOX, budget::HTTP_OUTBOX);
        let mut client: Conversation<Client, ClientLink<'_>> =
            Conversation::new(ends, inbox, outbox);
        script.play(&mut client, cut, &mut |_| false);
        let said = client.take_said();
        let end = client.end;
        assert!(end.is_some(), "no client stays");
        assert!(!matches!(end, Some(Error::Media(_))), "pictures without a code");
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 "));
        let shown = said.windows(SERIAL.len()).any(|bytes| bytes == SERIAL.as_bytes());
        assert!(!shown, "shown without a code");
        drop(client);
        assert_eq!(service.connections(), 0);
        (said, end)
    });
}
