//! Detect: frames, requests and answers, and both sessions.

use std::rc::Rc;

use pandaproxy::bind::client::{Client, REQUEST_TIMEOUT};
use pandaproxy::bind::upstream::{Error, Upstream};
use pandaproxy::bind::wire::{
    Answer, FRAMING, MAX_FRAME, Reply, Request, SequenceId, frame, write_refusal,
};
use pandaproxy::bind::{ClientLink, Service};
use pandaproxy::clock::Instant;
use pandaproxy::memory::budget;
use pandaproxy::printer::status::{MAX_NAME, Port6000, Status};
use pandaproxy::service::Service as _;

use super::conversation::{Conversation, Script, both_ways};

const SERIAL: &str = "01P00A3C1200417";

/// A frame. A valid request that is written again is read as the same request.
pub(crate) fn wire(data: &[u8]) {
    let Ok(Some(json)) = frame(data) else { return };
    assert!(json.len() + FRAMING <= MAX_FRAME);
    if let Ok(request) = Request::parse(json) {
        let mut out = [0; MAX_FRAME];
        let len = write_refusal(&request.sequence_id, &mut out).expect("it fits");
        let answer = frame(&out[..len]).unwrap().expect("it is complete");
        assert_eq!(Request::parse(answer).map(|it| it.sequence_id), Ok(request.sequence_id));
    }
    if let Ok(Answer::Detected(told)) = Answer::parse(json)
        && let Some(name) = told.name.meant::<MAX_NAME>()
    {
        let sequence_id = SequenceId::Number(1);
        let reply =
            Reply { sequence_id: &sequence_id, id: "", model: "", name: &name, version: "" };
        let mut out = [0; MAX_FRAME];
        let len = reply.write(&mut out).expect("it fits");
        let Ok(Some(json)) = frame(&out[..len]) else { panic!("it is complete") };
        let Ok(Answer::Detected(again)) = Answer::parse(json) else { panic!("it is an answer") };
        assert_eq!(again.name.meant::<MAX_NAME>(), Some(name));
    }
}

fn service() -> (Rc<Service>, Rc<Status>) {
    let status = Rc::new(Status::new(SERIAL, Port6000::Auto));
    (Service::new("detect", SERIAL, Rc::clone(&status)), status)
}

/// A client's bytes. First flag: the client runs on this machine.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let (service, _) = service();
        let ends = service.client(Instant::START + REQUEST_TIMEOUT, script.flag(0)).unwrap();
        let (inbox, outbox) = (budget::DETECT_INBOX, budget::DETECT_OUTBOX);
        let mut client: Conversation<Client, ClientLink> = Conversation::new(ends, inbox, outbox);
        script.play(&mut client, cut, &mut |_| false);
        let said = client.take_said();
        let end = client.end;
        assert!(end.is_some(), "no client stays");
        if !said.is_empty() {
            let json = frame(&said).unwrap().expect("a whole answer");
            assert_eq!(json.len() + FRAMING, said.len(), "one answer");
            match Answer::parse(json) {
                Ok(Answer::Detected(told)) => {
                    assert_eq!(told.id.meant::<32>().as_deref(), Some(SERIAL));
                }
                other => assert_eq!(other, Ok(Answer::Refused)),
            }
        }
        drop(client);
        assert_eq!(service.connections(), 0);
        (said, end)
    });
}

/// The printer's bytes.
pub(crate) fn upstream(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let (service, status) = service();
        let ends = (Upstream::new(Instant::START), Rc::clone(&service));
        let (inbox, outbox) = (budget::DETECT_INBOX, budget::DETECT_OUTBOX);
        let mut printer = Conversation::new(ends, inbox, outbox);
        script.play(&mut printer, cut, &mut |_| false);
        let end = printer.end.expect("it ends");
        let (name, code) = (status.name(), status.model_code());
        assert!(!name.contains(char::is_control) && !code.contains(char::is_control));
        if end != Error::Learnt {
            assert_eq!((&*name, &*code), ("3DP-01P-417", "C12"), "learnt from no answer");
        }
        (printer.take_said(), end, name, code)
    });
}
