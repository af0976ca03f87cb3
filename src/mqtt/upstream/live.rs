//! Requests to the printer, and their acknowledgements, once the subscription is confirmed.

use super::{Event, KEEP_ALIVE, PUBACK_TIMEOUT, Phase, Upstream};
use crate::clock::Instant;
use crate::mqtt::queue::Request;
use crate::mqtt::slot::PendingAck;
use crate::mqtt::wire::{self, PacketId, Publish, Qos};

/// The question for the versions of the printer's parts.
pub(super) const GET_VERSION: &[u8] = br#"{"info":{"sequence_id":"0","command":"get_version"}}"#;

/// The question for the full state.
pub(super) const PUSH_ALL: &[u8] =
    br#"{"pushing":{"sequence_id":"0","command":"pushall","version":1,"push_target":1}}"#;

/// A client's request that is being written.
pub(super) struct Sending {
    request: Request,
    id: PacketId,
    written: usize,
}

/// A request that was sent and has no PUBACK yet.
pub(super) struct InFlight {
    id: PacketId,
    pending_ack: PendingAck,
    since: Instant,
}

impl Upstream {
    /// Handles a message of the printer's. Messages on other topics than the report topic are ignored.
    pub(super) fn handle_publish<'i>(
        &mut self,
        now: Instant,
        publish: &Publish<'i>,
    ) -> Option<Event<'i>> {
        if publish.qos == Qos::AtLeastOnce {
            self.to_acknowledge = publish.id;
        }
        if publish.topic != self.topics.report.as_str() {
            return None;
        }
        self.set_reported(now);
        Some(Event::Report { payload: publish.payload })
    }

    /// Handles the printer's PUBACK. One for an unknown packet identifier is ignored.
    pub(super) fn handle_puback(&mut self, id: PacketId) {
        // Acknowledgements come in the order of the requests (MQTT 3.1.1 §4.6), so this is the first
        // or close to it.
        for _ in 0..self.in_flight.len() {
            let Some(oldest) = self.in_flight.pop_front() else { return };
            if oldest.id == id {
                oldest.pending_ack.settle();
            } else {
                let _fits = self.in_flight.push_back(oldest);
            }
        }
    }

    /// Gives up waiting for PUBACKs that are older than [`PUBACK_TIMEOUT`].
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.in_flight.front().is_some_and(|oldest| now.since(oldest.since) >= PUBACK_TIMEOUT)
        {
            if let Some(oldest) = self.in_flight.pop_front() {
                oldest.pending_ack.settle();
            }
        }
    }

    /// Writes the proxy's own questions, or PINGREQ. Returns the number of bytes, or `None` if none is due.
    pub(super) fn write_question(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.queue.take_version_question() {
            return self.write_own(out, GET_VERSION);
        }
        if self.queue.take_state_question() {
            return self.write_own(out, PUSH_ALL);
        }
        if now.since(self.last_sent) >= KEEP_ALIVE {
            return wire::pingreq(out);
        }
        None
    }

    /// Writes a request of the proxy's own.
    fn write_own(&mut self, out: &mut [u8], payload: &[u8]) -> Option<usize> {
        let id = self.packet_id()?;
        wire::publish(out, &self.request(id, payload))
    }

    /// A message to the printer's request topic.
    fn request<'a>(&'a self, id: PacketId, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: &self.topics.request,
            id: Some(id),
            payload,
        }
    }

    /// Writes the head of the next client's request. Returns the number of bytes, or `None` if none
    /// waits.
    pub(super) fn begin_request(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.phase != Phase::Live {
            return None;
        }
        let request = self.queue.take()?;
        let id = self.packet_id()?;
        let head = wire::publish_head(out, &self.request(id, &[]), request.payload.len())?;
        self.sending = Some(Sending { request, id, written: 0 });
        Some(head)
    }

    /// Writes more of the request that is being sent. Returns the number of bytes.
    pub(super) fn write_request(&mut self, out: &mut [u8]) -> usize {
        let Some(sending) = &mut self.sending else { return 0 };
        let rest = sending.request.payload.get(sending.written..).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        sending.written += len;
        len
    }

    /// Acknowledges the request that was written in full to its sender: to be called when its bytes have
    /// been sent.
    pub(super) fn finish_request(&mut self, now: Instant) {
        let all = |sending: &mut Sending| sending.written == sending.request.payload.len();
        if let Some(sending) = self.sending.take_if(all) {
            self.await_puback(now, sending.id, sending.request);
        }
    }

    /// Waits for the printer's PUBACK to a request that was sent.
    fn await_puback(&mut self, now: Instant, id: PacketId, mut request: Request) {
        request.pending_ack.sent();
        self.queue.carried(now, &request);
        let Request { pending_ack, .. } = request;
        if self.in_flight.is_full()
            && let Some(oldest) = self.in_flight.pop_front()
        {
            oldest.pending_ack.settle();
        }
        // Cannot fail: there is room for one now.
        let _fits = self.in_flight.push_back(InFlight { id, pending_ack, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{live, occupied, put, written};
    use super::*;
    use crate::memory::KIB;
    use crate::memory::slots::Slot as _;
    use crate::mqtt::disconnect;
    use crate::mqtt::queue::RequestQueue;
    use crate::mqtt::slot::{Ack, Slot, SlotState};
    use crate::session::{Output, Session};
    use alloc::rc::Rc;

    #[test]
    fn a_request_is_acknowledged_once_its_last_byte_was_sent() {
        let (mut upstream, queue, slot) = live();
        occupied(&slot);
        put(&queue, &slot, &[b'x'; 3000], 7);
        let mut out = [0; KIB];
        let mut pieces = 0;
        let mut payload = 0;
        while let Output::Written(len) = upstream.poll_output(Instant::START, &mut out) {
            assert_eq!(slot.take_ack(), None, "after {pieces} pieces");
            payload += out[..len].iter().filter(|byte| **byte == b'x').count();
            pieces += 1;
        }
        assert_eq!((pieces, payload), (3, 3000));
        assert_eq!(slot.take_ack(), Some(Ack::PubAck(PacketId::new(7).unwrap())));
    }

    /// A session that has sent a client's request of QoS 1, which waits for its PUBACK.
    fn unacknowledged() -> (Upstream, Rc<RequestQueue>, Rc<Slot>) {
        let (mut upstream, queue, slot) = live();
        occupied(&slot);
        put(&queue, &slot, b"{}", 7);
        written(&mut upstream, Instant::START);
        (upstream, queue, slot)
    }

    #[test]
    fn losing_a_request_without_puback_disconnects_its_sender() {
        let (upstream, _queue, slot) = unacknowledged();
        drop(upstream);
        let lost = disconnect::Error::RequestLost;
        assert_eq!(slot.state(), SlotState::Dismissed(lost));
    }

    #[test]
    fn a_request_with_puback_is_not_lost_with_the_connection() {
        let (mut upstream, _queue, slot) = unacknowledged();
        // Packet identifiers so far: SUBSCRIBE 1, get_version 2, pushall 3.
        upstream.handle_input(Instant::START, b"\x40\x02\x00\x04").unwrap();
        drop(upstream);
        assert!(slot.is_admitted());
    }

    #[test]
    fn a_missing_puback_is_waited_for_a_minute_and_not_longer() {
        let (mut upstream, queue, slot) = unacknowledged();
        queue.set_reported(Instant::at(PUBACK_TIMEOUT));
        upstream.handle_timeout(Instant::at(PUBACK_TIMEOUT)).unwrap();
        drop(upstream);
        assert!(slot.is_admitted());
    }
}
