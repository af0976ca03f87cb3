//! Login at the printer's broker: CONNECT, then SUBSCRIBE to the report topic.

use super::{ANSWER_TIMEOUT, Error, Event, KEEP_ALIVE, Phase, Upstream};
use crate::auth::USER;
use crate::clock::Instant;
use crate::mqtt::wire::{self, ConnectCode, Packet, Qos, SubscribeCode};

impl Upstream {
    /// Writes CONNECT or SUBSCRIBE, once each. Returns the number of bytes, or `None` if there is nothing to
    /// send in this phase.
    pub(super) fn write_login(&mut self, out: &mut [u8]) -> Option<usize> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        match self.phase {
            Phase::Connecting => {
                let keep_alive = u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
                let id = &self.topics.client_id;
                wire::connect(out, keep_alive, id, USER, self.code.reveal())
            }
            Phase::Subscribing => {
                let id = self.packet_id()?;
                wire::subscribe(out, id, &[(&self.topics.report, Qos::AtMostOnce)])
            }
            Phase::Live => None,
        }
    }

    /// Handles CONNACK and SUBACK.
    ///
    /// # Errors
    ///
    /// The printer refuses, or it answers before it was asked.
    pub(super) fn handle_login_answer<'i>(
        &mut self,
        now: Instant,
        packet: &Packet<'i>,
    ) -> Result<Option<Event<'i>>, Error> {
        // Before CONNECT or SUBSCRIBE has been sent, nothing is an answer to it.
        let asked = (!self.due).then_some(self.phase);
        match (packet, asked) {
            (Packet::ConnAck { code: ConnectCode::Accepted, .. }, Some(Phase::Connecting)) => {
                self.phase = Phase::Subscribing;
                self.due = true;
                self.until = now + ANSWER_TIMEOUT;
                Ok(None)
            }
            (Packet::ConnAck { code, .. }, Some(Phase::Connecting)) => Err(Error::Refused(*code)),
            (Packet::SubAck(suback), Some(Phase::Subscribing)) => {
                if suback.codes().any(|code| code == SubscribeCode::Refused) {
                    return Err(Error::SubscriptionRefused);
                }
                self.phase = Phase::Live;
                self.queue.set_live(now);
                Ok(Some(Event::Live))
            }
            _ => Err(Error::OutOfOrder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::{GET_VERSION, PUSH_ALL};
    use super::super::tests::{CONNACK, SUBACK, session, written};
    use super::*;
    use crate::session::Session;

    /// Guards: bambuddy#778: subscribing to requests ends the connection to P1 and A1.
    #[test]
    fn connect_then_one_subscription_then_two_questions() {
        let (mut upstream, queue, _slot) = session();
        let hello = written(&mut upstream, Instant::START);
        assert_eq!(hello[..12], *b"\x10\x32\x00\x04MQTT\x04\xc2\x00\x1e");
        assert!(hello.ends_with(b"\x00\x04bblp\x00\x0812345678"));
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        let subscribe = written(&mut upstream, Instant::START);
        assert_eq!(subscribe, b"\x82\x19\x00\x01\x00\x14device/01P00A/report\x00");
        assert!(!queue.is_live());
        upstream.handle_input(Instant::START, SUBACK).unwrap();
        assert!(queue.is_live());
        let questions = written(&mut upstream, Instant::START);
        let find = |what: &[u8]| questions.windows(what.len()).position(|at| at == what);
        assert!(find(GET_VERSION).unwrap() < find(PUSH_ALL).unwrap());
    }

    #[test]
    fn answers_may_be_split_anywhere() {
        let whole = [CONNACK, SUBACK].concat();
        for split in 0..CONNACK.len() {
            let (mut upstream, ..) = session();
            written(&mut upstream, Instant::START);
            assert_eq!(upstream.handle_input(Instant::START, &whole[..split]), Ok((0, None)));
            assert_eq!(upstream.handle_input(Instant::START, &whole), Ok((CONNACK.len(), None)));
            assert_eq!(upstream.phase(), Phase::Subscribing, "split at {split}");
        }
    }

    #[test]
    fn an_answer_before_its_question_ends_the_session() {
        let (mut upstream, ..) = session();
        assert!(upstream.handle_input(Instant::START, CONNACK).is_err(), "CONNECT was not sent");
        let (mut upstream, queue, _slot) = session();
        written(&mut upstream, Instant::START);
        upstream.handle_input(Instant::START, CONNACK).unwrap();
        assert!(upstream.handle_input(Instant::START, SUBACK).is_err(), "SUBSCRIBE was not sent");
        assert!(!queue.is_live());
    }

    #[test]
    fn a_wrong_code_is_distinguished_from_a_busy_broker() {
        for (code, wrong) in [(4, true), (5, true), (3, false), (1, false)] {
            let (mut upstream, ..) = session();
            written(&mut upstream, Instant::START);
            let connack = [0x20, 2, 0, code];
            let refused = upstream.handle_input(Instant::START, &connack);
            let Err(error @ Error::Refused(_)) = refused else { panic!("{refused:?}") };
            assert_eq!(error.is_wrong_code(), wrong, "{code}");
        }
    }
}
