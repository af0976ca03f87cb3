//! An MQTT 3.1.1 client that writes its own bytes, over any stream.
//!
//! The client does nothing by itself: no PINGREQ, no reconnection, no acknowledgement that the test did not
//! ask for. Packets are at most 1 MiB; every wait is bounded.

use core::time::Duration;
use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long it waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PACKET: usize = 1 << 20;
/// Packets that arrived while another one was waited for.
const MAX_ASIDE: usize = 4096;

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The first byte: type and flags.
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    pub(crate) const fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Topic and payload of a QoS 0 PUBLISH.
    pub(crate) fn published(&self) -> (String, Vec<u8>) {
        assert_eq!(self.first, 0x30, "a PUBLISH with QoS 0: {self:?}");
        let len = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let topic = String::from_utf8(self.body[2..2 + len].to_vec()).unwrap();
        (topic, self.body[2 + len..].to_vec())
    }
}

pub(crate) const CONNACK: u8 = 2;
/// In place of a return code: the connection was closed before CONNACK.
pub(crate) const CLOSED: u8 = 0xff;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBACK: u8 = 9;
pub(crate) const UNSUBACK: u8 = 11;
pub(crate) const PINGRESP: u8 = 13;

/// Fields of CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) name: &'a str,
    pub(crate) level: u8,
    pub(crate) id: &'a str,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<(&'a str, &'a [u8])>,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            name: "MQTT",
            level: 4,
            id: "tester",
            clean: true,
            keep_alive: 5,
            will: None,
            user: Some("bblp"),
            password: Some(b"12345678"),
        }
    }
}

/// A client over one stream.
pub(crate) struct Client<T> {
    stream: T,
    aside: VecDeque<Packet>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    pub(crate) fn over(stream: T) -> Self {
        Self { stream, aside: VecDeque::new() }
    }

    /// Connects with `id` and the usual code; panics unless it is let in.
    pub(crate) async fn connected(stream: T, id: &str) -> Self {
        let mut client = Self::over(stream);
        assert_eq!(client.connect(&Hello { id, ..Hello::default() }).await, 0, "{id} is let in");
        client
    }

    /// Connects and subscribes to one filter.
    pub(crate) async fn subscribed(stream: T, id: &str, filter: &str) -> Self {
        let mut client = Self::connected(stream, id).await;
        assert_eq!(client.subscribe(&[(filter, 0)]).await, [0]);
        client
    }

    /// Sends CONNECT; the return code of CONNACK, [`CLOSED`] if the connection ends before it.
    pub(crate) async fn connect(&mut self, hello: &Hello<'_>) -> u8 {
        self.send(&hello_bytes(hello)).await.unwrap();
        let Some(packet) = self.next().await else { return CLOSED };
        assert_eq!(packet.first >> 4, CONNACK, "{packet:?}");
        assert_eq!((packet.body.len(), packet.body[0]), (2, 0), "no session is ever present");
        packet.body[1]
    }

    /// Subscribes; the codes of SUBACK.
    pub(crate) async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let mut body = vec![0, 10];
        for (filter, qos) in filters {
            string(&mut body, filter.as_bytes());
            body.push(*qos);
        }
        self.send(&packet(0x82, &body)).await.unwrap();
        let packet = self.expect(SUBACK).await;
        assert_eq!(packet.body[..2], [0, 10]);
        packet.body[2..].to_vec()
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) {
        let mut body = vec![0, 11];
        string(&mut body, filter.as_bytes());
        self.send(&packet(0xa2, &body)).await.unwrap();
        assert_eq!(self.expect(UNSUBACK).await.body, [0, 11]);
    }

    /// Sends a PUBLISH and waits for nothing.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16) {
        self.publish_flagged(topic, payload, qos << 1, id).await;
    }

    /// The same with DUP set.
    pub(crate) async fn publish_again(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16) {
        self.publish_flagged(topic, payload, 0x08 | qos << 1, id).await;
    }

    async fn publish_flagged(&mut self, topic: &str, payload: &[u8], flags: u8, id: u16) {
        self.send(&publish_bytes(topic, payload, flags, id)).await.unwrap();
    }

    /// Sends any bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .expect("the proxy reads within half a minute")
    }

    /// The next packet of this kind; others are kept for later.
    pub(crate) async fn expect(&mut self, kind: u8) -> Packet {
        if let Some(at) = self.aside.iter().position(|packet| packet.kind() == kind) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let packet = self.read().await.expect("a packet, not the end");
            if packet.kind() == kind {
                return packet;
            }
            assert!(self.aside.len() < MAX_ASIDE, "too many unexpected packets");
            self.aside.push_back(packet);
        }
    }

    /// The payload of the next report.
    pub(crate) async fn report(&mut self) -> Vec<u8> {
        self.expect(PUBLISH).await.published().1
    }

    /// The next report that `wanted` likes; the others are dropped.
    pub(crate) async fn report_where(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            let report = self.report().await;
            if wanted(&report) {
                return report;
            }
        }
    }

    /// The next packet, in order, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        match self.aside.pop_front() {
            Some(packet) => Some(packet),
            None => self.read().await,
        }
    }

    /// Whether no report comes within this time. What else comes is kept.
    pub(crate) async fn hears_nothing(&mut self, within: Duration) -> bool {
        self.reports_within(within).await.is_empty()
    }

    /// The payloads of all reports that come within this time. What else comes is kept.
    pub(crate) async fn reports_within(&mut self, within: Duration) -> Vec<Vec<u8>> {
        let packets = self.all_within(within).await;
        let (reports, others): (Vec<_>, Vec<_>) =
            packets.into_iter().partition(|packet| packet.kind() == PUBLISH);
        self.aside.extend(others);
        reports.iter().map(|packet| packet.published().1).collect()
    }

    /// Everything that comes within `within`, in order.
    pub(crate) async fn all_within(&mut self, within: Duration) -> Vec<Packet> {
        let end = tokio::time::Instant::now() + within;
        let mut packets: Vec<Packet> = self.aside.drain(..).collect();
        while let Ok(Some(packet)) = tokio::time::timeout_at(end, self.read()).await {
            assert!(packets.len() < MAX_ASIDE, "too many packets");
            packets.push(packet);
        }
        packets
    }

    /// Whether the proxy closes within half a minute, whatever it sends before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let closed = async { while self.read().await.is_some() {} };
        timeout(PATIENCE, closed).await.is_ok()
    }

    /// The next packet, or `None` when the stream ends.
    async fn read(&mut self) -> Option<Packet> {
        // A packet is a few reads; over a paused clock an idle proxy costs nothing.
        let read = async {
            let first = self.stream.read_u8().await.ok()?;
            let mut len = 0usize;
            for shift in [0, 7, 14, 21] {
                let byte = self.stream.read_u8().await.ok()?;
                len |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            assert!(len <= MAX_PACKET, "a packet of {len} bytes");
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(Packet { first, body })
        };
        timeout(Duration::from_secs(3600), read).await.expect("something within the hour")
    }

    /// Ends in order.
    pub(crate) async fn disconnect(mut self) {
        let _gone = self.send(&[0xe0, 0]).await;
        let _gone = self.stream.shutdown().await;
    }

    pub(crate) fn into_stream(self) -> T {
        self.stream
    }
}

/// A CONNECT.
pub(crate) fn hello_bytes(hello: &Hello<'_>) -> Vec<u8> {
    let mut flags = u8::from(hello.clean) << 1;
    let mut rest = Vec::new();
    string(&mut rest, hello.id.as_bytes());
    if let Some((topic, message)) = hello.will {
        flags |= 0x04;
        string(&mut rest, topic.as_bytes());
        string(&mut rest, message);
    }
    if let Some(user) = hello.user {
        flags |= 0x80;
        string(&mut rest, user.as_bytes());
    }
    if let Some(password) = hello.password {
        flags |= 0x40;
        string(&mut rest, password);
    }
    let mut body = Vec::new();
    string(&mut body, hello.name.as_bytes());
    body.extend([hello.level, flags]);
    body.extend(hello.keep_alive.to_be_bytes());
    if hello.level == 5 {
        body.push(0);
    }
    body.extend(rest);
    packet(0x10, &body)
}

/// A PUBLISH.
pub(crate) fn publish_bytes(topic: &str, payload: &[u8], flags: u8, id: u16) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, topic.as_bytes());
    if flags & 0x06 != 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// A packet of any kind.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = len > 0x7f;
        bytes.push((len & 0x7f) as u8 | u8::from(more) << 7);
        len >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    to.extend(bytes);
}
