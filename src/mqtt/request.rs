//! What a client asks for, as far as the proxy answers it itself.
//!
//! Everything a client publishes to the request topic is forwarded to the printer byte for byte, except
//! the questions that the proxy answers from its cache ([`protocol`](crate::protocol#mqtt)). They are
//! recognised in their plain form only: a request that is unusual, signed, cut or too long is a
//! [`Request::Command`] and left to the printer.
//!
//! # On the wire
//!
//! ```text
//! {"pushing":{"sequence_id":"0","command":"pushall","version":1,"push_target":1}}
//! {"info":{"sequence_id":"0","command":"get_version"}}
//! ```
//!
//! A `user_id` may stand beside them; blanks and a NUL may follow.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a request that is read | [`LONGEST`] | [`Request::Command`] |
//! | nesting | [`DEPTH`](json::DEPTH) | [`Request::Command`] |
//! | a `get_version`'s sequence id | [`SEQUENCE_ID`](crate::mqtt::address::SEQUENCE_ID) | [`Request::Command`] |

use serde::Deserialize;

use crate::mqtt::address::SequenceId;
use crate::mqtt::json::{self, Cursor, Kind};

/// Longest request that is parsed, in bytes. Those answered here have less than 200.
pub const LONGEST: usize = 1024;

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The full state: `pushing.pushall`, or `pushing.start`, by which Home Assistant asks for more
    /// reports after a silence.
    PushAll,
    /// No more reports: `pushing.stop`. Forwarded, it would end the reports of all clients.
    PushStop,
    /// Versions and serial numbers of the printer's parts: `info.get_version`.
    GetVersion {
        /// The id to answer with, as written: a string with its quotes, or an integer. `None` if
        /// the client gave none.
        sequence_id: Option<&'a [u8]>,
    },
    /// Anything else: forwarded to the printer.
    Command,
}

/// What `payload`, published to the request topic, asks for.
pub fn classify(payload: &[u8]) -> Request<'_> {
    plain_request(payload).unwrap_or(Request::Command)
}

/// `None` for a request that the proxy does not answer itself.
fn plain_request(payload: &[u8]) -> Option<Request<'_>> {
    if payload.len() > LONGEST {
        return None;
    }
    // serde-json-core calls itself once a level, without a limit: see that there are few first.
    let text = ours_only(payload).ok()??;
    let (head, _) = serde_json_core::from_slice::<Head<'_>>(text).ok()?;
    match (head.pushing.map(|order| order.command), head.info.map(|order| order.command)) {
        (Some("pushall" | "start"), None) => Some(Request::PushAll),
        (Some("stop"), None) => Some(Request::PushStop),
        (None, Some("get_version")) => {
            Some(Request::GetVersion { sequence_id: sequence_id(text)? })
        }
        _ => None,
    }
}

/// The text without what may follow it, if it is an object of nothing but our categories, and
/// perhaps a user.
fn ours_only(payload: &[u8]) -> Result<Option<&[u8]>, json::Error> {
    let mut cursor = Cursor::new(payload);
    cursor.enter_object()?;
    while let Some(key) = cursor.key()? {
        match key.text {
            b"user_id" => {}
            b"pushing" | b"info" if cursor.kind()? == Kind::Object => {}
            _ => return Ok(None),
        }
        cursor.pass()?;
    }
    let end = cursor.at();
    cursor.end()?;
    Ok(payload.get(..end))
}

/// The `sequence_id` of `info`, if there is one. `None` if it is none that can be answered with.
fn sequence_id(text: &[u8]) -> Option<Option<&[u8]>> {
    let info = json::members(text).flatten().find(|member| member.key.text == b"info")?;
    let mut ids = info.value.members().flatten().filter(|member| member.key.text == b"sequence_id");
    match (ids.next(), ids.next()) {
        (None, _) => Some(None),
        (Some(id), None) => SequenceId::new(id.value.text).map(|_| Some(id.value.text)),
        (Some(_), Some(_)) => None,
    }
}

/// The head of a request: its categories, as far as they are ours.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    pushing: Option<Order<'a>>,
    info: Option<Order<'a>>,
}

/// A category with its command, as written: an escape in it makes it another command.
#[derive(Deserialize)]
struct Order<'a> {
    command: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use alloc::{format, string::ToString};
    use proptest::prelude::*;

    const PUSHALL: &[u8] =
        br#"{"pushing":{"sequence_id":"0","command":"pushall","version":1,"push_target":1}}"#;

    fn get_version(id: &str) -> Vec<u8> {
        format!(r#"{{"info":{{"sequence_id":{id},"command":"get_version"}}}}"#).into_bytes()
    }

    #[test]
    fn what_slicers_ask_for_is_understood() {
        assert_eq!(classify(PUSHALL), Request::PushAll);
        assert_eq!(classify(br#"{"pushing":{"command":"start"}}"#), Request::PushAll);
        assert_eq!(classify(br#"{"pushing":{"command":"stop"}}"#), Request::PushStop);
        for id in ["\"20001\"", "\"\"", "7", "-1"] {
            assert_eq!(
                classify(&get_version(id)),
                Request::GetVersion { sequence_id: Some(id.as_bytes()) }
            );
        }
        assert_eq!(
            classify(br#"{"info":{"command":"get_version"}}"#),
            Request::GetVersion { sequence_id: None }
        );
    }

    /// Guards: bambuddy#927: OrcaSlicer's JSON ends in a NUL.
    #[test]
    fn indentation_blanks_a_trailing_nul_and_a_user_change_nothing() {
        let json: serde_json::Value = serde_json::from_slice(PUSHALL).unwrap();
        for tail in ["", "\0", "\n", " \r\n\0\0"] {
            let text = serde_json::to_string_pretty(&json).unwrap() + tail;
            assert_eq!(classify(text.as_bytes()), Request::PushAll, "{tail:?}");
        }
        let user = br#"{"user_id":"123","pushing":{"command":"pushall"}}"#;
        assert_eq!(classify(user), Request::PushAll);
    }

    #[test]
    fn whatever_is_odd_is_the_printers_business() {
        for odd in [
            r#"{"print":{"command":"pushall"}}"#,
            r#"{"pushing":{"command":"pushall"},"info":{"command":"get_version"}}"#,
            r#"{"pushing":{"command":"pushall"},"print":{"command":"stop"}}"#,
            r#"{"pushing":{"command":"pushall"},"pushing":{"command":"stop"}}"#,
            r#"{"header":{"sign_ver":"v1.0"},"pushing":{"command":"pushall"}}"#,
            r#"{"pushing":{"command":"pushall"},"header":{"sign_ver":"v1.0"}}"#,
            r#"{"pushing":{"command":"push\u0061ll"}}"#,
            r#"{"pushing":{"command":"pushall","command":"stop"}}"#,
            r#"{"pushing":{"command":1}}"#,
            r#"{"pushing":{}}"#,
            r#"{"pushing":null}"#,
            r#"{"pushing":[]}"#,
            r#"{"pushing":["pushall"]}"#,
            r#"{"pushing":{"command":"pushall"},"info":null}"#,
            r#"{"pushing":{"command":"pushall"}"#,
            r#"{"pushing":{"command":"pushall"}} {}"#,
            r#"[{"pushing":{"command":"pushall"}}]"#,
            r#"{"info":{"command":"get_version","sequence_id":"1","sequence_id":"2"}}"#,
            r#"{"user_id":"1"}"#,
            "",
            "\0",
        ] {
            assert_eq!(classify(odd.as_bytes()), Request::Command, "{odd}");
        }
        for id in ["1.5", "null", "{}", "[1]", "true", "\"a\nb\""] {
            assert_eq!(classify(&get_version(id)), Request::Command, "{id}");
        }
        for odd in [
            &b"{\"pushing\":{\"command\":\"pushall\",\"x\":\"\xff\"}}"[..],
            b"{\"pushing\":{\"command\":\"pushall\",\"\xff\":1}}",
            b"{\"user_id\":\"\xff\",\"pushing\":{\"command\":\"pushall\"}}",
            b"{\"info\":{\"command\":\"get_version\",\"sequence_id\":\"\xff\"}}",
        ] {
            assert_eq!(classify(odd), Request::Command, "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn the_longest_id_is_taken_and_a_longer_one_left_to_the_printer() {
        use crate::mqtt::address::SEQUENCE_ID;
        let digits = "1".repeat(SEQUENCE_ID);
        let id = digits.as_bytes();
        assert_eq!(classify(&get_version(&digits)), Request::GetVersion { sequence_id: Some(id) });
        assert_eq!(classify(&get_version(&("1".to_string() + &digits))), Request::Command);
    }

    #[test]
    fn nesting_never_reaches_the_parser_that_recurses() {
        assert_eq!(classify(&alloc::vec![b'['; 200_000]), Request::Command);
        let deep = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"pushing":{{"command":"pushall","x":{open}{close}}}}}"#)
        };
        assert_eq!(classify(deep(json::DEPTH - 2).as_bytes()), Request::PushAll);
        assert_eq!(classify(deep(json::DEPTH - 1).as_bytes()), Request::Command);
        assert_eq!(classify(deep(400).as_bytes()), Request::Command);
    }

    #[test]
    fn a_request_past_the_bound_is_not_looked_into() {
        let padded = |len: usize| [PUSHALL, &alloc::vec![b' '; len - PUSHALL.len()]].concat();
        assert_eq!(classify(&padded(LONGEST)), Request::PushAll);
        assert_eq!(classify(&padded(LONGEST + 1)), Request::Command);
    }

    #[test]
    fn a_cut_request_is_a_command_wherever_it_is_cut() {
        for cut in 0..PUSHALL.len() {
            assert_eq!(classify(&PUSHALL[..cut]), Request::Command, "cut at {cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_a_command(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(classify(&bytes), Request::Command);
        }

        #[test]
        fn a_damaged_request_never_panics(
            at in 0..PUSHALL.len(), byte in any::<u8>(), cut in 0..PUSHALL.len(),
        ) {
            let mut damaged = PUSHALL.to_vec();
            damaged[at] = byte;
            _ = classify(&damaged);
            damaged.drain(..cut);
            _ = classify(&damaged);
        }
    }
}
