//! Clients of detect: they ask which printer this is, or send something else, over a network with faults.

use std::rc::Rc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::lan::weather::{Line, Wire};
use crate::lan::{ms, secs};
use crate::notes::promise;
use printer::detect::framed;

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Detect,
    Half,
    Garbage,
    Nothing,
}

pub(crate) const ALL: [Asks; 5] =
    [Asks::Detect, Asks::Detect, Asks::Half, Asks::Garbage, Asks::Nothing];

/// One client, from its request to the end of its connection.
pub(crate) async fn ask(
    number: u32,
    asks: Asks,
    serial: &'static str,
    line: Rc<Line>,
    mut wire: Wire,
) {
    let request = framed(br#"{"login":{"command":"detect","sequence_id":"20000"}}"#);
    let bytes = match asks {
        Asks::Detect => &request[..],
        Asks::Half => &request[..request.len() / 2],
        Asks::Garbage => b"GET / HTTP/1.1\r\n\r\n",
        Asks::Nothing => b"",
    };
    for byte in bytes.chunks(16) {
        // A wire that ends is a fault of the network.
        if !matches!(timeout(secs(60), wire.write_all(byte)).await, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(ms(1)).await;
    }
    let mut answer = Vec::new();
    let _ended = timeout(secs(600), wire.read_to_end(&mut answer)).await;
    drop(line);
    let kept = match asks {
        Asks::Detect => is_answer(&answer, serial),
        Asks::Half | Asks::Garbage | Asks::Nothing => answer.is_empty(),
    };
    promise("detect: an answer names the printer, and only a whole request gets one", kept, || {
        format!("client {number}, {asks:?}: {}", answer.escape_ascii())
    });
}

/// Whether this is the answer, or the beginning of one that a fault cut short.
fn is_answer(answer: &[u8], serial: &str) -> bool {
    let Some(head) = answer.first_chunk::<4>() else {
        return [0xa5, 0xa5].starts_with(&answer[..answer.len().min(2)]);
    };
    let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
    if answer.len() < len {
        return head[..2] == [0xa5, 0xa5];
    }
    let json = answer[4..].strip_suffix(&[0xa7, 0xa7]);
    let login = json.and_then(|json| serde_json::from_slice::<Value>(json).ok());
    login.is_some_and(|all| all["login"]["id"] == serial && all["login"]["bind"] == "free")
}
