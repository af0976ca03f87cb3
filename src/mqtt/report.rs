//! What a report of the printer's is: one pass over its JSON.
//!
//! What a printer publishes on its report topic has one of these forms
//! ([`protocol`](crate::protocol#reports)):
//!
//! | report | recognised by | merged into the state |
//! |---|---|---|
//! | full state | `print.command` is `push_status`, no `result`, `msg` 0 or absent, more than [`FULL_MEMBERS`] members | replaces it, byte for byte |
//! | delta | the same, otherwise | yes |
//! | acknowledgement | anything else under `print` | no: it would be repeated to clients that connect later |
//! | versions | `info.command` is `get_version`, with `module` | no |
//!
//! A report with a `header` is signed over its bytes: it is neither merged nor rewritten.

use crate::mqtt::address::{Content, Patches, What};
use crate::mqtt::json::{self, Cursor, Value};

/// A full state has more members under `print` than this. The smallest on record has 59 (P1P), the
/// largest delta some 20; other implementations draw the line at 30, too.
pub const FULL_MEMBERS: usize = 30;

/// What a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole state.
    Full,
    /// What changed in it.
    Delta,
    /// An answer to a client's command.
    Ack,
    /// The answer to `get_version`.
    Version,
    /// Anything else, also what is signed or no JSON.
    Other,
}

/// The result of one pass over a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kind of the report.
    pub kind: Kind,
    /// What is replaced before the report is sent to a client.
    pub patches: Patches,
    /// The modules of an answer to `get_version`.
    pub modules: Option<Modules>,
    /// AMS units that the printer has, if the report has `print.ams.ams_exist_bits`.
    pub units: Option<u32>,
    /// Whether live view of an RTSPS camera is on, if the report has `ipcam.rtsp_url`
    /// ([`protocol`](crate::protocol#reports)).
    pub live_view: Option<bool>,
    /// Whether the printer accepts requests that are not signed, if the report has `fun`.
    pub developer_mode: Option<bool>,
    /// Strength of the Wi-Fi signal in dBm, if the report has it.
    pub signal: Option<i16>,
}

impl Report {
    /// A report that is not recognised.
    fn other() -> Self {
        Self {
            kind: Kind::Other,
            patches: Patches::NONE.of(Content::Answer),
            modules: None,
            units: None,
            live_view: None,
            developer_mode: None,
            signal: None,
        }
    }
}

/// Reads a report, once.
pub fn classify(payload: &[u8]) -> Report {
    let report = read(payload).unwrap_or_else(|_error| Report::other());
    let content = match report.kind {
        Kind::Full | Kind::Delta => Content::State,
        Kind::Ack | Kind::Version | Kind::Other => Content::Answer,
    };
    Report { patches: report.patches.of(content), ..report }
}

fn read(payload: &[u8]) -> Result<Report, json::Error> {
    let mut patches = Patches::NONE;
    let mut status = Status::default();
    let mut print = None;
    let mut version = None;
    let mut signed = false;
    let mut cursor = Cursor::new(payload);
    cursor.enter_object()?;
    while let Some(key) = cursor.key()? {
        let object = cursor.kind()? == json::Kind::Object;
        match key.text {
            b"print" if object => {
                print = Some(read_print(&mut cursor, &mut patches, &mut status)?);
            }
            b"info" if object => version = read_info(&mut cursor)?,
            _ => {
                signed |= key.text == b"header";
                cursor.pass()?;
            }
        }
    }
    cursor.end()?;
    Ok(match (print, version) {
        _ if signed => Report::other(),
        (Some(kind), _) => {
            let Status { live_view, units, developer_mode, signal } = status;
            Report { kind, patches, live_view, units, developer_mode, signal, ..Report::other() }
        }
        (None, Some(Version { sequence_id, modules })) => {
            if let Some(id) = sequence_id {
                patches.note(id, What::SequenceId);
            }
            Report { kind: Kind::Version, patches, modules: Some(modules), ..Report::other() }
        }
        (None, None) => Report { patches, ..Report::other() },
    })
}

/// What a report of the state shows besides its kind.
#[derive(Default)]
struct Status {
    live_view: Option<bool>,
    units: Option<u32>,
    developer_mode: Option<bool>,
    signal: Option<i16>,
}

fn read_print(
    cursor: &mut Cursor<'_>,
    patches: &mut Patches,
    status: &mut Status,
) -> Result<Kind, json::Error> {
    let mut members = 0;
    let mut push_status = false;
    let mut whole = true;
    let mut answers = false;
    cursor.enter_object()?;
    while let Some(key) = cursor.key()? {
        members += 1;
        match key.text {
            b"net" => patches.find_in_net(cursor)?,
            b"ipcam" => status.live_view = patches.find_in_ipcam(cursor)?,
            b"fun" => status.developer_mode = read_fun(cursor.pass()?),
            b"wifi_signal" => status.signal = read_signal(cursor.pass()?),
            b"ams" if cursor.kind()? == json::Kind::Object => status.units = read_ams(cursor)?,
            b"command" => push_status = cursor.pass()?.text == b"\"push_status\"",
            // Printers write numbers with and without quotes.
            b"msg" => whole = matches!(cursor.pass()?.text, b"0" | b"\"0\""),
            name => {
                answers |= name == b"result";
                cursor.pass()?;
            }
        }
    }
    Ok(if !push_status || answers {
        Kind::Ack
    } else if whole && members > FULL_MEMBERS {
        Kind::Full
    } else {
        Kind::Delta
    })
}

/// The bit of `fun` that says that requests have to be signed.
const SIGNED: u32 = 29;

/// Whether requests need no signature, by `fun`: a hexadecimal number.
fn read_fun(value: Value<'_>) -> Option<bool> {
    let text = core::str::from_utf8(value.string()?).ok()?;
    u64::from_str_radix(text, 16).ok().map(|bits| bits >> SIGNED & 1 == 0)
}

/// The strength of a signal, `-52dBm`.
fn read_signal(value: Value<'_>) -> Option<i16> {
    let text = core::str::from_utf8(value.string()?).ok()?;
    text.strip_suffix("dBm")?.trim().parse().ok()
}

/// The number of AMS units by `ams_exist_bits`, if it is there: a hexadecimal number, one bit for each.
fn read_ams(cursor: &mut Cursor<'_>) -> Result<Option<u32>, json::Error> {
    let mut units = None;
    cursor.enter_object()?;
    while let Some(key) = cursor.key()? {
        let value = cursor.pass()?;
        if key.text == b"ams_exist_bits" {
            let text = value.string().and_then(|text| core::str::from_utf8(text).ok());
            let bits = text.and_then(|text| u32::from_str_radix(text, 16).ok());
            units = bits.map(u32::count_ones);
        }
    }
    Ok(units)
}

/// The modules of an answer to `get_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modules {
    /// Whether each has a serial number and a version.
    pub complete: bool,
    /// AMS units among them: `ams/0`, `ams_f1/0`, `n3f/0`, `n3s/128`.
    pub units: u32,
}

/// What an oversized report is, by its beginning. `None` if the beginning does not tell, or is too short.
pub fn peek(beginning: &[u8]) -> Option<Content> {
    let mut cursor = Cursor::new(beginning);
    cursor.enter_object().ok()?;
    let key = cursor.key().ok()??;
    if key.text != b"print" {
        return Some(Content::Answer);
    }
    cursor.enter_object().ok()?;
    while let Some(key) = cursor.key().ok()? {
        let value = cursor.pass().ok()?;
        match key.text {
            b"command" if value.text == b"\"push_status\"" => return Some(Content::State),
            b"command" | b"result" => return Some(Content::Answer),
            _ => {}
        }
    }
    None
}

/// An answer to `get_version`.
struct Version<'a> {
    sequence_id: Option<Value<'a>>,
    modules: Modules,
}

fn read_modules(list: Value<'_>) -> Result<Modules, json::Error> {
    let mut modules = Modules { complete: true, units: 0 };
    let mut any = false;
    for module in list.elements() {
        let (mut serial, mut version) = (false, false);
        for member in module?.members() {
            let member = member?;
            let text = member.value.string().unwrap_or_default();
            match member.key.text {
                b"sn" => serial = !text.is_empty(),
                b"sw_ver" => version = !text.is_empty(),
                b"name" => modules.units += u32::from(text.contains(&b'/')),
                _ => {}
            }
        }
        any = true;
        modules.complete &= serial && version;
    }
    modules.complete &= any;
    Ok(modules)
}

fn read_info<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Version<'a>>, json::Error> {
    let mut get_version = false;
    let mut modules = None;
    let mut sequence_id = None;
    cursor.enter_object()?;
    while let Some(key) = cursor.key()? {
        let value = cursor.pass()?;
        match key.text {
            b"command" => get_version = value.text == b"\"get_version\"",
            b"module" if value.kind() == json::Kind::Array => modules = Some(read_modules(value)?),
            b"sequence_id" if value.string().is_some() || value.is_integer() => {
                sequence_id = Some(value);
            }
            _ => {}
        }
    }
    Ok(modules.filter(|_| get_version).map(|modules| Version { sequence_id, modules }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mqtt::state::merge::tests::written;
    use alloc::string::String;
    use alloc::vec::Vec;
    use alloc::{borrow::ToOwned, format};
    use proptest::prelude::*;
    use serde_json::{Value as Oracle, json};

    pub(in crate::mqtt) fn value(text: &[u8]) -> Oracle {
        serde_json::from_slice(text).unwrap()
    }

    /// A full state, as small as one can be.
    pub(in crate::mqtt) fn full() -> Oracle {
        let mut full = json!({"print": {"command": "push_status", "msg": 0, "sequence_id": "1"}});
        for key in 0..FULL_MEMBERS {
            full["print"][format!("key_{key}")] = json!(key);
        }
        full
    }

    pub(in crate::mqtt) fn kind(report: &Oracle) -> Kind {
        let kinds = [false, true].map(|indented| classify(&written(report, indented)).kind);
        assert_eq!(kinds[0], kinds[1]);
        kinds[0]
    }

    #[test]
    fn developer_mode_and_signal_are_read() {
        for (fun, mode) in [
            (json!("3EC1AFFF9CFF"), Some(false)),
            (json!("3EC18FFF9CFF"), Some(true)),
            (json!("0"), Some(true)),
            (json!("x"), None),
            (json!(7), None),
        ] {
            let report = delta(&json!({"fun": fun}));
            assert_eq!(classify(&written(&report, false)).developer_mode, mode, "{fun}");
        }
        for (text, signal) in
            [("-52dBm", Some(-52)), ("-5 dBm", Some(-5)), ("dBm", None), ("-52", None)]
        {
            let report = delta(&json!({"wifi_signal": text}));
            assert_eq!(classify(&written(&report, false)).signal, signal, "{text}");
        }
    }

    pub(in crate::mqtt) fn delta(members: &Oracle) -> Oracle {
        let mut delta = json!({"print": {"command": "push_status", "msg": 1}});
        for (key, value) in members.as_object().unwrap() {
            delta["print"][key] = value.clone();
        }
        delta
    }

    /// Full reports of the eight models that the simulated printer states, and of real printers where the folder
    /// with them exists: name and text, each compact and indented.
    pub(in crate::mqtt) fn full_reports() -> Vec<(String, Vec<u8>)> {
        let mut found = recorded(".pushall.json");
        for stated in printer::stated::full_reports() {
            for is_indented in [false, true] {
                let name = format!("{}, indented: {is_indented}", stated.model);
                found.push((name, written(&value(&stated.text), is_indented)));
            }
            found.push((stated.model.to_owned(), stated.text));
        }
        found
    }

    /// Reports of real printers (name, text), each compact and indented. Empty, and recorded as skipped, where
    /// the folder with them does not exist.
    fn recorded(form: &str) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for path in skips::shared("traffic/reports", form, 7) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read(&path).unwrap();
            found.push((format!("{name}, indented"), written(&value(&text), true)));
            found.push((name, text));
        }
        found
    }

    #[test]
    fn a_full_state_is_msg_0_or_none_and_many_members() {
        let mut report = full();
        assert_eq!(kind(&report), Kind::Full);
        for (msg, is) in [
            (json!(0), Kind::Full),
            (json!("0"), Kind::Full),
            (json!(1), Kind::Delta),
            (json!("1"), Kind::Delta),
            (json!(null), Kind::Delta),
        ] {
            report["print"]["msg"] = msg;
            assert_eq!(kind(&report), is);
        }
        let few = delta(&json!({"msg": 0, "nozzle_temper": 20}));
        assert_eq!(kind(&few), Kind::Delta);
    }

    #[test]
    fn the_line_between_full_and_delta_lies_above_thirty_members() {
        let mut report = json!({"print": {"command": "push_status"}});
        for key in 1..FULL_MEMBERS {
            report["print"][format!("key_{key}")] = json!(key);
        }
        assert_eq!(kind(&report), Kind::Delta);
        report["print"]["one_more"] = json!(1);
        assert_eq!(kind(&report), Kind::Full);
    }

    /// Guards: acknowledgements get into the state.
    #[test]
    fn acks_are_not_merged() {
        for ack in [
            // P1S: echoes the command.
            json!({"print": {"command": "gcode_line", "sequence_id": "7", "result": "success"}}),
            // A1: has no command.
            json!({"print": {"sequence_id": "7", "result": "SUCCESS", "reason": ""}}),
            // P1S 01.10: has neither result nor reason.
            json!({"print": {"command": "ams_filament_setting", "sequence_id": "7"}}),
            json!({"print": {"command": "push_status", "msg": 1, "result": "fail"}}),
            json!({"print": {"sequence_id": "7"}}),
            json!({"print": {}}),
        ] {
            assert_eq!(kind(&ack), Kind::Ack, "{ack}");
        }
        let mut echo = full();
        echo["print"]["result"] = json!("success");
        assert_eq!(kind(&echo), Kind::Ack);
    }

    #[test]
    fn versions_are_recognised_and_unknown_reports_are_not() {
        let answer = json!({"info": {"command": "get_version", "sequence_id": "0", "module": []}});
        assert_eq!(kind(&answer), Kind::Version);
        for other in [
            json!({"info": {"command": "get_version", "sequence_id": "0"}}),
            json!({"info": {"command": "other", "module": []}}),
            json!({"info": 1, "print": 2}),
            json!({"system": {"command": "ledctrl", "result": "success"}}),
            json!({"mc_print": {"command": "push_info"}}),
            json!({}),
        ] {
            assert_eq!(kind(&other), Kind::Other, "{other}");
        }
        for broken in [&b""[..], b"\0", b"[]", b"push_status", b"{\"print\":{\"command\":", b"{}{}"]
        {
            assert_eq!(classify(broken).kind, Kind::Other);
        }
    }

    #[test]
    fn an_answer_without_serials_or_versions_is_incomplete() {
        let modules = |list: &Oracle| {
            let answer = json!({"info": {"command": "get_version", "module": list}});
            classify(&written(&answer, true)).modules.unwrap()
        };
        let ota = json!({"name": "ota", "sn": "01P00A", "sw_ver": "01.08"});
        let unit = json!({"name": "n3s/128", "sn": "1", "sw_ver": "2", "hw_ver": ""});
        assert_eq!(modules(&json!([ota, unit])), Modules { complete: true, units: 1 });
        for (key, value) in [("sn", json!("")), ("sw_ver", json!("")), ("sn", json!(null))] {
            let mut starting = ota.clone();
            starting[key] = value;
            assert!(!modules(&json!([unit, starting])).complete, "{key}");
        }
        assert!(!modules(&json!([{"name": "ota"}])).complete);
        assert!(!modules(&json!([])).complete);
        let state = json!({"print": {"command": "push_status", "ams": {"ams_exist_bits": "17"}}});
        assert_eq!(classify(&written(&state, false)).units, Some(4));
    }

    #[test]
    fn the_beginning_of_a_report_tells_a_state_from_an_answer() {
        for (beginning, content) in [
            (r#"{"print":{"bed":1,"command":"push_status","x":["#, Some(Content::State)),
            (r#"{ "print": { "command": "extrusion_cali_get", "x": [ {"#, Some(Content::Answer)),
            (r#"{"print":{"sequence_id":"1","result":"success","x":"#, Some(Content::Answer)),
            (r#"{"info":{"#, Some(Content::Answer)),
            (r#"{"header":{},"#, Some(Content::Answer)),
            (r#"{"print":{"ams":{"ams":["#, None),
            (r#"{"print":{"command":"push_sta"#, None),
            ("", None),
        ] {
            assert_eq!(peek(beginning.as_bytes()), content, "{beginning}");
        }
    }

    #[test]
    fn a_signed_report_is_no_state() {
        let mut report = full();
        report["header"] = json!({"sign_ver": "v1.0"});
        assert_eq!(kind(&report), Kind::Other);
    }

    #[test]
    fn stated_reports_have_all_their_addresses_found() {
        let reports = printer::stated::full_reports();
        assert_eq!(reports.len(), 8);
        for stated in reports {
            let report = classify(&stated.text);
            assert_eq!(report.kind, Kind::Full, "{}", stated.model);
            let addresses = stated.interfaces + usize::from(stated.shows_camera);
            assert_eq!(report.patches.as_slice().len(), addresses, "{}", stated.model);
        }
    }

    #[test]
    fn recorded_reports_are_what_they_are() {
        for (name, text) in full_reports() {
            let report = classify(&text);
            assert_eq!(report.kind, Kind::Full, "{name}");
            let print = &value(&text)["print"];
            let ips = print["net"]["info"].as_array().unwrap();
            let ips = ips.iter().filter(|interface| interface["ip"] != 0).count();
            let url =
                print["ipcam"]["rtsp_url"].as_str().is_some_and(|url| url.starts_with("rtsp"));
            assert_eq!(report.patches.as_slice().len(), ips + usize::from(url), "{name}");
        }
        for (name, text) in recorded(".get_version.json") {
            let report = classify(&text);
            assert_eq!(report.kind, Kind::Version, "{name}");
            let what: Vec<What> =
                report.patches.as_slice().iter().map(|patch| patch.what).collect();
            assert_eq!(what, [What::SequenceId], "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_classified_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(classify(&bytes).kind, Kind::Other);
        }
    }
}
