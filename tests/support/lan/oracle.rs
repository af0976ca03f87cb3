//! A client's merge of reports, as Bambuddy and Home Assistant do it (`src/protocol.md`, reports), written a second
//! time, on data instead of text.

use serde_json::{Map, Value};

/// What a client knows.
#[derive(Default)]
pub(crate) struct Known(Option<Value>);

impl Known {
    /// The state, once a full one has come.
    pub(crate) const fn state(&self) -> Option<&Value> {
        self.0.as_ref()
    }

    /// Merges a report; acks and versions are no part of the state.
    pub(crate) fn learn(&mut self, report: &[u8]) {
        let report: Value = serde_json::from_slice(report).unwrap();
        let print = &report["print"];
        if print["command"] != "push_status" || print.get("result").is_some() {
            return;
        }
        if print["msg"] == 0 {
            self.0 = Some(report);
        } else if let Some(known) = &mut self.0 {
            for (key, new) in print.as_object().unwrap() {
                if key != "msg" && key != "command" {
                    merge_member(known["print"].as_object_mut().unwrap(), key, new);
                }
            }
        }
    }
}

fn merge_member(known: &mut Map<String, Value>, key: &str, new: &Value) {
    match (known.get_mut(key), new) {
        (Some(Value::Object(known)), Value::Object(new)) => {
            for (key, new) in new {
                merge_member(known, key, new);
            }
        }
        (Some(Value::Array(known)), Value::Array(new))
            if ["ams", "tray", "vir_slot"].contains(&key) && !new.is_empty() =>
        {
            for element in new {
                let same = |known: &&mut Value| known["id"] == element["id"];
                match known.iter_mut().find(same) {
                    Some(known) => {
                        for (key, new) in element.as_object().unwrap() {
                            merge_member(known.as_object_mut().unwrap(), key, new);
                        }
                    }
                    None => known.push(element.clone()),
                }
            }
        }
        _ => {
            known.insert(key.to_owned(), new.clone());
        }
    }
}
