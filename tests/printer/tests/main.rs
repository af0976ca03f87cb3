//! The simulated printer before a client of a few lines, under virtual time, and over TLS before real
//! programs.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "it is test code, and a mistake in it should stop the test"
)]

#[path = "../../support/clients/anybody.rs"]
mod anybody;
mod broker;
mod camera;
mod detection;
mod ftp;
mod quirks;
mod reports;
mod rtsp;
#[path = "../../support/clients/rtsp.rs"]
#[allow(dead_code, reason = "the tests here need a part of it")]
mod rtsp_client;
mod tls;

use core::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::timeout;

use printer::Printer;

/// The code of every printer here.
const CODE: &str = "12345678";

/// What a pipe holds, in bytes: a small one, so that a slow reader is soon noticed.
const PIPE: usize = 4096;

/// A client that knows as much MQTT as these tests need.
struct Client {
    stream: DuplexStream,
}

impl Client {
    /// Connected, nothing sent.
    fn new(printer: &Printer) -> Self {
        let (stream, far) = duplex(PIPE);
        let printer = printer.clone();
        spawn_local(async move { printer.serve(far).await });
        Self { stream }
    }

    /// Past CONNACK.
    async fn welcome(printer: &Printer) -> Self {
        let mut client = Self::new(printer);
        client.send(&hello(CODE, 30)).await;
        assert_eq!(client.packet().await, Some((0x20, vec![0, 0])));
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn request(&mut self, printer: &Printer, payload: &str) {
        self.send(&publish(&printer.request_topic(), payload.as_bytes(), 0, 0, false)).await;
    }

    /// The next packet's first byte and body; nothing when the printer has closed.
    async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut place) = (0, 0);
        loop {
            let digit = self.stream.read_u8().await.unwrap();
            length |= usize::from(digit & 0x7f) << place;
            place += 7;
            if digit < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        Some((first, body))
    }

    async fn publication(&mut self) -> (String, Vec<u8>) {
        let (first, mut body) = self.packet().await.unwrap();
        assert_eq!(first, 0x30);
        let payload = body.split_off(2 + usize::from(u16::from_be_bytes([body[0], body[1]])));
        (String::from_utf8(body.split_off(2)).unwrap(), payload)
    }

    async fn report(&mut self) -> Vec<u8> {
        self.publication().await.1
    }

    /// Whether nothing is received for this long, not even the end.
    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read_u8()).await.is_err()
    }
}

/// A client that has subscribed to the printer's reports.
async fn subscriber(printer: &Printer) -> Client {
    let mut client = Client::welcome(printer).await;
    client.send(&subscribe(1, &[&printer.report_topic()])).await;
    assert_eq!(client.packet().await, Some((0x90, vec![0, 1, 0])));
    client
}

fn hello(code: &str, keep_alive: u16) -> Vec<u8> {
    connect("MQTT", 4, "bblp", code, keep_alive)
}

fn connect(protocol: &str, level: u8, user: &str, code: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = text(protocol);
    body.extend([level, 0xc2]);
    body.extend(keep_alive.to_be_bytes());
    body.extend([text("tiny"), text(user), text(code)].concat());
    packet(0x10, &body)
}

fn subscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        body.extend(text(filter));
        body.push(0);
    }
    packet(0x82, &body)
}

fn publish(topic: &str, payload: &[u8], qos: u8, id: u16, dup: bool) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(dup) << 3, &body)
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (low, high) = (body.len() % 128, body.len() / 128);
    let low = u8::try_from(low).unwrap();
    let mut packet = match u8::try_from(high).unwrap() {
        0 => vec![first, low],
        high => vec![first, low | 0x80, high],
    };
    packet.extend(body);
    packet
}

fn pushall() -> String {
    r#"{"pushing":{"sequence_id":"0","command":"pushall","version":1,"push_target":1}}"#.to_owned()
}

fn parsed(report: &[u8]) -> Value {
    serde_json::from_slice(report).unwrap()
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs under virtual time; a minute of nothing costs nothing, and nothing may last two days.
fn simulated(test: impl AsyncFnOnce()) {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    run(&mut builder, secs(2 * 24 * 3600), test);
}

fn run(builder: &mut Builder, within: Duration, test: impl AsyncFnOnce()) {
    let runtime = builder.build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(within, test()).await.expect("it hangs") });
}
