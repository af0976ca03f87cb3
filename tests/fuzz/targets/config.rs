//! Settings as one JSON object: what is read is what another parser reads, and a fault ends it.

use pandaproxy::config::json::Object;
use serde_json::{Map, Value};

/// A file of settings.
pub(crate) fn json(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Some(mut object) = Object::begun(text) else { return };
    let mut read = Map::new();
    let mut is_good = true;
    let mut is_plain = true;
    for member in object.by_ref() {
        assert!(is_good, "read on behind a fault");
        match member {
            Ok(member) => {
                // Kept as they are written: another parser refuses a 0 before a number, and rounds a long one.
                let digits = member.value.trim_start_matches('-');
                is_plain &= digits.len() < 18 && (digits.len() == 1 || !digits.starts_with('0'));
                is_plain &= member.value.as_str() != "-0";
                is_plain &= !read.contains_key(member.key.as_str());
                read.insert(member.key.to_string(), Value::from(member.value.as_str()));
            }
            Err(fault) => {
                let lines = text.matches('\n').count() + 1;
                assert!((1..=lines).contains(&fault.line), "{fault:?}");
                is_good = false;
            }
        }
    }
    assert!(object.next().is_none(), "goes on behind its end");
    // The same white space is skipped before the object, and no more.
    let Some(from) = text.find('{') else { return };
    let parsed = serde_json::from_str::<Map<String, Value>>(&text[from..]);
    match parsed {
        Ok(parsed) if parsed.values().all(is_flat) => {
            assert!(is_good, "refused");
            let parsed: Map<_, _> =
                parsed.into_iter().map(|(key, value)| (key, shown(value))).collect();
            assert!(!is_plain || parsed == read, "{parsed:?} and {read:?}");
        }
        Ok(_) => assert!(!is_good || !is_plain, "a list, an object or a fraction was accepted"),
        Err(error) => assert!(!is_good || !is_plain, "accepted: {error}"),
    }
}

/// Text, a whole number, true, false or null.
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => !number.is_f64(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn shown(value: Value) -> Value {
    match value {
        Value::Null => Value::from(""),
        Value::String(text) => Value::String(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Value::from(other.to_string())
        }
    }
}
