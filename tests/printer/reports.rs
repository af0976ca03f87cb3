//! The simulated printers' messages: full states, deltas, versions and acks, as JSON bytes.
//!
//! The keys are those that printers of the family use (`src/protocol.md`, reports); every value is made up.
//! `state/common.json` is what all have, `state/esp32.json` and `state/linux.json` what the families
//! add. Keys come out sorted. One seed gives the same run of values each time.
//!
//! A state may be padded: first with AMS units of four trays, then with strings under `pad`.

use core::net::Ipv4Addr;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use super::model::Model;

/// How reports are put in writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// By four spaces, as several models do; or without a blank.
    pub(super) indented: bool,
    /// Full states are padded to about this many bytes; zero leaves them as they are.
    pub(super) bytes: usize,
    /// Whether a string in them is not UTF-8.
    pub(super) non_utf8: bool,
}

/// A printer's state, in the middle of a print.
pub(super) struct State {
    model: Model,
    print: Map<String, Value>,
    chance: Chance,
    sequence: u64,
}

impl State {
    /// The state of a printer at `address`; `seed` decides what it will measure.
    pub(super) fn new(model: Model, address: Ipv4Addr, seed: u64) -> Self {
        let mut print = object(include_str!("state/common.json"));
        print.extend(object(match model {
            Model::P1S | Model::A1Mini => include_str!("state/esp32.json"),
            Model::X1C | Model::H2D => include_str!("state/linux.json"),
        }));
        let mut state = Self { model, print, chance: Chance(seed), sequence: 0 };
        state.wear_address(address);
        state.print.insert("ams".to_owned(), state.ams(1));
        if model == Model::H2D {
            state.equip_h2d();
        }
        state
    }

    /// Puts its own address where printers put theirs: `net.info[].ip` as a little-endian number, and
    /// the camera's URL on models that have one (`src/protocol.md`, reports).
    pub(super) fn wear_address(&mut self, address: Ipv4Addr) {
        let own = json!({
            "ip": u32::from_le_bytes(address.octets()),
            "mask": u32::from_le_bytes([255, 255, 255, 0]),
        });
        let info = match self.model {
            Model::P1S | Model::A1Mini => json!([own]),
            Model::X1C | Model::H2D => json!([own, { "ip": 0, "mask": 0 }]),
        };
        self.print.insert("net".to_owned(), json!({ "conf": 16, "info": info }));
        if let Some(url) = self.print.get_mut("ipcam").and_then(|ipcam| ipcam.get_mut("rtsp_url")) {
            *url = json!(format!("rtsps://{address}:322/streaming/live/1"));
        }
    }

    /// The whole state, `msg` 0.
    pub(super) fn full(&mut self, form: Form) -> Vec<u8> {
        let mut print = self.print.clone();
        self.envelop(&mut print, 0);
        let fixed = written(&json!({ "print": print }), form).len();
        if fixed < form.bytes {
            self.pad(&mut print, form, form.bytes);
        }
        written(&json!({ "print": print }), form)
    }

    /// Time passes; what has changed, `msg` 1. A model that never sends deltas sends it all.
    pub(super) fn delta(&mut self, form: Form) -> Vec<u8> {
        let changed = self.advance();
        if self.model.always_full() {
            return self.full(form);
        }
        let mut print: Map<_, _> = changed
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), self.print.get(key)?.clone())))
            .collect();
        if let Some(ams) = print.get_mut("ams").and_then(Value::as_object_mut) {
            // Never the trays: P1S 01.09 and A1 mini send scalars only (`src/protocol.md`, reports).
            ams.retain(|key, _| key.starts_with("tray_") || key == "version");
        }
        if form.non_utf8 {
            print.insert("subtask_name".to_owned(), json!("bracket"));
        }
        self.envelop(&mut print, 1);
        written(&json!({ "print": print }), form)
    }

    /// The answer to `get_version`, under the caller's `sequence_id`.
    pub(super) fn version(&self, request: &Map<String, Value>, form: Form) -> Vec<u8> {
        let modules: Vec<Value> = match self.model {
            Model::P1S => vec![
                json!({ "flag": 0, "hw_ver": "OTA", "name": "ota", "project_name": "C12",
                    "sn": self.model.serial(), "sw_ver": "01.08.01.00" }),
                json!({ "flag": 0, "hw_ver": "AP04", "name": "esp32", "project_name": "C12",
                    "sn": self.model.serial(), "sw_ver": "00.06.00.14" }),
                json!({ "flag": 0, "hw_ver": "MC02", "loader_ver": "00.00.00.00", "name": "mc",
                    "project_name": "C12", "sn": "01P10B3C1000417", "sw_ver": "00.00.40.02" }),
                json!({ "flag": 0, "hw_ver": "AMS08", "loader_ver": "00.00.00.00",
                    "name": "ams/0", "project_name": "", "sn": "00600A3B0900417",
                    "sw_ver": "00.00.06.49" }),
            ],
            Model::A1Mini => vec![
                json!({ "flag": 0, "hw_ver": "OTA", "name": "ota", "project_name": "N1",
                    "sn": self.model.serial(), "sw_ver": "01.07.02.00" }),
                json!({ "flag": 0, "hw_ver": "AP05", "name": "esp32", "project_name": "N1",
                    "sn": self.model.serial(), "sw_ver": "00.07.02.11" }),
                json!({ "flag": 0, "hw_ver": "AMS_F102", "loader_ver": "00.00.00.00",
                    "name": "ams_f1/0", "project_name": "", "sn": "03C00A432100533",
                    "sw_ver": "00.00.07.94" }),
            ],
            Model::X1C => vec![
                json!({ "flag": 0, "hw_ver": "OTA", "name": "ota", "product_name": "X1 Carbon",
                    "sn": self.model.serial(), "sw_ver": "01.09.00.00", "visible": true }),
                json!({ "flag": 0, "hw_ver": "AP05", "name": "rv1126", "sn": self.model.serial(),
                    "sw_ver": "00.00.30.12", "visible": false }),
                json!({ "flag": 0, "hw_ver": "AMS08", "name": "ams/0", "product_name": "AMS (1)",
                    "sn": "00600A2B0600218", "sw_ver": "00.00.06.49", "visible": true }),
            ],
            Model::H2D => vec![
                json!({ "flag": 3, "hw_ver": "OTA", "loader_ver": "00.00.00.00", "name": "ota",
                    "product_name": "H2D", "sn": self.model.serial(), "sw_ver": "01.02.00.00",
                    "visible": true }),
                json!({ "flag": 3, "hw_ver": "N3F05", "loader_ver": "00.00.00.00",
                    "name": "n3f/0", "product_name": "AMS 2 Pro (1)", "sn": "19C00A561700109",
                    "sw_ver": "03.00.21.29", "visible": true }),
            ],
        };
        let answer = json!({ "info": {
            "command": "get_version",
            "module": modules,
            "reason": "",
            "result": "success",
            "sequence_id": sequence_of(request),
        } });
        written(&answer, form)
    }

    /// The ack of any other request of this category.
    ///
    /// `project_file` comes back whole, others as their command and `sequence_id`; in an A1's
    /// `print` without the command (`src/protocol.md`, reports).
    pub(super) fn ack(&self, category: &str, request: &Map<String, Value>, form: Form) -> Vec<u8> {
        let command = request.get("command").cloned().unwrap_or(Value::Null);
        let mut ack = Map::new();
        if command == "project_file" {
            ack.clone_from(request);
        } else if self.model != Model::A1Mini || category != "print" {
            ack.insert("command".to_owned(), command);
        }
        ack.insert("sequence_id".to_owned(), sequence_of(request));
        ack.insert("result".to_owned(), json!("success"));
        ack.insert("reason".to_owned(), json!(""));
        written(&json!({ category: ack }), Form { non_utf8: false, ..form })
    }

    /// Changes a few measurements and the print's progress; returns the keys that changed.
    fn advance(&mut self) -> Vec<&'static str> {
        let nozzle = 219.5 + f64::from(self.chance.below(32)) / 32.0;
        let bed = 59.75 + f64::from(self.chance.below(16)) / 32.0;
        let signal = 44 + self.chance.below(9);
        self.set("nozzle_temper", json!(nozzle));
        self.set("bed_temper", json!(bed));
        self.set("wifi_signal", json!(format!("-{signal}dBm")));
        let mut changed = vec!["nozzle_temper", "bed_temper", "wifi_signal"];
        if self.chance.below(4) == 0 {
            let percent = (self.number("mc_percent") + 1) % 101;
            let layer = self.number("layer_num") % 180 + 1;
            let line = self.sequence * 40 + u64::from(self.chance.below(40));
            self.set("mc_percent", json!(percent));
            self.set("mc_remaining_time", json!(100_u64.saturating_sub(percent) * 153 / 100));
            self.set("layer_num", json!(layer));
            self.set("mc_print_line_number", json!(line.to_string()));
            changed.extend([
                "mc_percent",
                "mc_remaining_time",
                "layer_num",
                "mc_print_line_number",
            ]);
        }
        if self.chance.below(6) == 0 {
            let gear = 10 + self.chance.below(6);
            self.set("cooling_fan_speed", json!(gear.to_string()));
            changed.push("cooling_fan_speed");
        }
        if self.chance.below(6) == 0 {
            let tray = self.chance.below(4).to_string();
            if let Some(ams) = self.print.get_mut("ams").and_then(Value::as_object_mut) {
                for key in ["tray_now", "tray_pre", "tray_tar"] {
                    ams.insert(key.to_owned(), json!(tray));
                }
            }
            changed.push("ams");
        }
        changed
    }

    /// Adds the fields that mark a periodic report, and its number.
    fn envelop(&mut self, print: &mut Map<String, Value>, msg: u8) {
        self.sequence += 1;
        print.insert("command".to_owned(), json!("push_status"));
        print.insert("msg".to_owned(), json!(msg));
        print.insert("sequence_id".to_owned(), json!(self.sequence.to_string()));
    }

    /// Grows a full state to about `bytes`: AMS units while they fit, strings for the rest.
    fn pad(&self, print: &mut Map<String, Value>, form: Form, bytes: usize) {
        for units in 2..=MAX_UNITS {
            let before = print.insert("ams".to_owned(), self.ams(units));
            if written(&json!({ "print": print }), form).len() > bytes {
                print.extend(before.map(|ams| ("ams".to_owned(), ams)));
                break;
            }
        }
        print.insert("pad".to_owned(), json!([]));
        let missing = bytes.saturating_sub(written(&json!({ "print": print }), form).len());
        let overhead = if form.indented { "\n            \"\",".len() } else { "\"\",".len() };
        let whole = missing / (PAD_STRING + overhead);
        let rest = (missing % (PAD_STRING + overhead)).saturating_sub(overhead);
        let mut strings = vec!["0".repeat(PAD_STRING); whole];
        strings.push("0".repeat(rest));
        print.insert("pad".to_owned(), json!(strings));
    }

    fn ams(&self, units: u64) -> Value {
        let kinds = [("PLA", "GFA00", "F7E6DEFF"), ("PETG", "GFG00", "0A2CA5FF")];
        let units: Vec<Value> = (0..units)
            .map(|unit| {
                let trays: Vec<Value> = (0..4_u64)
                    .map(|tray| {
                        let (kind, index, color) = kinds[usize::from((unit + tray) % 2 == 1)];
                        json!({
                            "bed_temp": "0",
                            "bed_temp_type": "0",
                            "cali_idx": -1,
                            "cols": [color],
                            "ctype": 0,
                            "id": tray.to_string(),
                            "nozzle_temp_max": "240",
                            "nozzle_temp_min": "190",
                            "remain": 25 * tray,
                            "state": 11,
                            "tag_uid": "0000000000000000",
                            "tray_color": color,
                            "tray_diameter": "1.75",
                            "tray_id_name": format!("A0{tray}-W1"),
                            "tray_info_idx": index,
                            "tray_sub_brands": format!("{kind} Basic"),
                            "tray_type": kind,
                            "tray_uuid": format!("{:032X}", 0xA5A5_0000 + unit * 4 + tray),
                            "tray_weight": "1000",
                            "xcam_info": "803E803EE803E803CDCC4C3F",
                        })
                    })
                    .collect();
                // A unit beyond the fourth is an AMS HT, which counts from 128 (`src/protocol.md`, reports).
                let id = if unit < 4 { unit } else { 124 + unit };
                json!({ "humidity": "4", "id": id.to_string(), "temp": "27.5", "tray": trays })
            })
            .collect();
        json!({
            "ams": units,
            "ams_exist_bits": "1",
            "insert_flag": true,
            "power_on_flag": false,
            "tray_exist_bits": "f",
            "tray_is_bbl_bits": "f",
            "tray_now": "1",
            "tray_pre": "1",
            "tray_read_done_bits": "f",
            "tray_reading_bits": "0",
            "tray_tar": "1",
            "version": 4,
        })
    }

    /// A second nozzle, and the chamber's own sections.
    fn equip_h2d(&mut self) {
        let Some(device) = self.print.get_mut("device") else { return };
        device["airduct"] = json!({
            "modeCur": 0,
            "modeList": [{ "ctrl": [16, 32], "modeId": 0, "off": [] }],
            "parts": [{ "func": 0, "id": 16, "range": 6_553_600, "state": 0 }],
        });
        device["extruder"]["state"] = json!(2);
        if let Some(extruders) = device["extruder"]["info"].as_array_mut() {
            let mut left = extruders[0].clone();
            left["id"] = json!(1);
            left["temp"] = json!(30);
            extruders.push(left);
        }
        let tray = self.print["vt_tray"].clone();
        self.print.insert("vir_slot".to_owned(), json!([tray]));
        self.print.insert("3D".to_owned(), json!({ "layer_num": 12, "total_layer_num": 180 }));
        self.print.insert("ctt".to_owned(), json!(0.0));
        self.print.insert("maintain".to_owned(), json!(3));
    }

    fn number(&self, key: &str) -> u64 {
        self.print.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    fn set(&mut self, key: &str, value: Value) {
        self.print.insert(key.to_owned(), value);
    }
}

/// AMS units that padding may add up to.
const MAX_UNITS: u64 = 12;

/// One padding string, in bytes.
const PAD_STRING: usize = 64;

/// Where a state that shall not be UTF-8 gets its bytes: the print's name.
const NAME: &[u8] = b"\"bracket";

/// Latin-1 for "é", and a byte that no encoding of text has.
const NOT_UTF8: &[u8] = b"\"brack\xe9\xff";

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("the state files are JSON objects")
}

/// The caller's `sequence_id` as it was, text or number.
fn sequence_of(request: &Map<String, Value>) -> Value {
    request.get("sequence_id").cloned().unwrap_or_else(|| json!("0"))
}

pub(super) fn written(value: &Value, form: Form) -> Vec<u8> {
    let mut bytes = Vec::new();
    if form.indented {
        let indented = PrettyFormatter::with_indent(b"    ");
        value
            .serialize(&mut Serializer::with_formatter(&mut bytes, indented))
            .expect("a Value is JSON");
    } else {
        value.serialize(&mut Serializer::new(&mut bytes)).expect("a Value is JSON");
    }
    if form.non_utf8
        && let Some(at) = bytes.windows(NAME.len()).position(|window| window == NAME)
    {
        bytes[at..at + NAME.len()].copy_from_slice(NOT_UTF8);
    }
    bytes
}

/// SplitMix64: small, and the same on every machine.
struct Chance(u64);

impl Chance {
    /// Something from 0 to `bound`, which it never reaches.
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits");
        high % bound
    }
}
