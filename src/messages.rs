//! Every message that a user reads, in one table: each error and each log line with a wording of its own is made
//! once, and its form is checked.
//!
//! A module shows its messages by a function `samples`, compiled for tests only, and stands in [`TABLE`].

use alloc::string::String;
use alloc::vec::Vec;

/// One area's messages.
struct Area {
    name: &'static str,
    /// Each message, with typical values in it.
    samples: fn() -> Vec<String>,
}

/// The areas, one line each.
#[rustfmt::skip]
const TABLE: &[Area] = &[
    Area { name: "causes", samples: crate::cause::samples },
    Area { name: "camera", samples: crate::printer::camera::samples },
    Area { name: "chamber", samples: crate::chamber::samples },
    Area { name: "logger", samples: crate::logger::samples },
    Area { name: "launch", samples: crate::runtime::launch::samples },
    Area { name: "mqtt", samples: crate::mqtt::samples },
    Area { name: "config", samples: crate::config::samples },
    Area { name: "ftp", samples: crate::ftp::samples },
    Area { name: "files", samples: crate::runtime::files::samples },
    Area { name: "rtsp", samples: crate::rtsp::samples },
    Area { name: "bind", samples: crate::bind::samples },
    Area { name: "bind connection", samples: crate::runtime::services::bind::samples },
    Area { name: "http", samples: crate::http::samples },
    Area { name: "ssdp", samples: crate::ssdp::samples },
    Area { name: "ssdp ports", samples: crate::runtime::services::ssdp::samples },
    Area { name: "optional port", samples: crate::runtime::optional_port::samples },
    Area { name: "accept", samples: crate::runtime::accept::samples },
    Area { name: "stream", samples: crate::runtime::stream::samples },
    Area { name: "dial", samples: crate::runtime::dial_error::samples },
    Area { name: "host", samples: crate::runtime::host::samples },
    Area { name: "worker", samples: crate::runtime::worker::samples },
    Area { name: "tls", samples: crate::tls::samples },
    Area { name: "pins", samples: crate::state_dir::pin::samples },
    Area { name: "instance", samples: crate::state_dir::instance::samples },
    Area { name: "health", samples: crate::health::samples },
    Area { name: "trace", samples: crate::trace::samples },
    Area { name: "update", samples: crate::update::failure::samples },
    Area { name: "reconnect", samples: crate::runtime::reconnect::samples },
];

/// Bytes before the hint, which begins with `; ` or `: `.
const MAX_EVENT: usize = 120;

/// Words that name mechanisms by a metaphor, or say nothing.
const BANNED: &[&str] = &[
    "seat",
    "desk",
    "errand",
    "gate",
    "door",
    "knock",
    "guest",
    "doorstep",
    "bell",
    "house",
    "farewell",
    "lid",
    "blotted",
    "nobody",
    "somebody",
    "whoever",
    "whom",
    "said",
    "cannot be had",
    "is let go",
    "turned away",
    "no good",
    "is told",
    "looked in",
    "is believed",
    "takes leave",
    "seldom",
    "rung",
    "sight",
    "outlook",
    "wish",
    "homeless",
    "knocks",
    "told",
    "takes no part",
    "waiting room",
    "blot",
];

/// Why a message does not read as a log line should.
fn fault(message: &str) -> Option<String> {
    let words = || message.split(|c: char| !c.is_alphanumeric() && c != '\'');
    for banned in BANNED {
        let found = if banned.contains(' ') {
            message.contains(banned)
        } else {
            words().any(|word| word.eq_ignore_ascii_case(banned))
        };
        if found {
            return Some(alloc::format!("says `{banned}`"));
        }
    }
    let event = message.split("; ").next().unwrap_or(message);
    if event.len() > MAX_EVENT {
        return Some(alloc::format!("{} bytes before the hint, {MAX_EVENT} at most", event.len()));
    }
    if message.ends_with('.') {
        return Some("ends with a full stop".into());
    }
    let first = words().next().unwrap_or_default();
    let is_name = first.chars().skip(1).any(char::is_uppercase) || first == "PandaProxy";
    if first.chars().next().is_some_and(char::is_uppercase) && !is_name && first.len() > 1 {
        return Some("begins with a capital letter".into());
    }
    None
}

#[test]
fn every_message_is_plain() {
    let mut faults = Vec::new();
    for Area { name: area, samples } in TABLE {
        let samples = samples();
        assert!(!samples.is_empty(), "{area} shows no message");
        for message in samples {
            if let Some(fault) = fault(&message) {
                faults.push(alloc::format!("{area}: {message:?} {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_message_that_is_not_plain_is_found() {
    for bad in [
        "a seat is free",
        "port 990 cannot be had",
        "Wrong code",
        "wrong code.",
        &"long ".repeat(30),
    ] {
        assert!(fault(bad).is_some(), "{bad}");
    }
    for good in [
        "MQTT is busy",
        "TLS handshake timed out",
        "write timed out after 5 s; client disconnected",
    ] {
        assert_eq!(fault(good), None, "{good}");
    }
}
