//! The full report of each of eight models, in this printer's own words.
//!
//! Which members a report has, of which types, in which form and of about which size follows from what real printers
//! of the model send (`src/protocol.md`, section `reports`); every value is made up. Tests of what happens to a
//! report (merging, rewriting addresses, forwarding unchanged) run over all of them:
//!
//! | model | what sets it apart |
//! |---|---|
//! | A1 mini | one interface, no second fan |
//! | A1 | an empty tray, which has no members but its number and state, among three full ones |
//! | P1P | no AMS unit, no `xcam` |
//! | P1S | a task's number above 2³¹ as text, a negative `home_flag` |
//! | X1C | two interfaces with an address, four AMS units, the camera's address with its port |
//! | P2S | `vir_slot` in place of `vt_tray`, the live view `disable` |
//! | H2D | no `msg`, two extruders, indented, the camera's address without a port |
//! | H2C | a rack of nozzles, two AMS units and an AMS HT (number 128), indented |

use core::net::Ipv4Addr;

use serde_json::{Value, json};

use super::model::Model;
use super::reports::{Form, State, written};

/// Where each of these printers is.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// What one model sends in answer to `pushall`.
#[derive(Clone, Debug)]
pub struct Stated {
    /// The model's name.
    pub model: &'static str,
    /// The report, in the form the model sends: compact, or indented by four spaces.
    pub text: Vec<u8>,
    /// The non-zero numbers in `net.info[].ip`.
    pub interfaces: usize,
    /// Whether `ipcam.rtsp_url` is an address.
    pub shows_camera: bool,
}

/// All eight.
pub fn full_reports() -> Vec<Stated> {
    vec![a1_mini(), a1(), p1p(), p1s(), x1c(), p2s(), h2d(), h2c()]
}

fn stated(
    model: &'static str,
    from: Model,
    indented: bool,
    shape: impl FnOnce(&mut Value),
) -> Stated {
    let mut state = State::new(from, ADDRESS, 7);
    let compact = Form { indented: false, bytes: 0, non_utf8: false };
    let mut report: Value =
        serde_json::from_slice(&state.full(compact)).expect("a full state is JSON");
    shape(&mut report["print"]);
    let print = &report["print"];
    let interfaces = print["net"]["info"].as_array().expect("interfaces");
    let interfaces = interfaces.iter().filter(|interface| interface["ip"] != 0).count();
    let shows_camera =
        print["ipcam"]["rtsp_url"].as_str().is_some_and(|url| url.starts_with("rtsps://"));
    let text = written(&report, Form { indented, ..compact });
    Stated { model, text, interfaces, shows_camera }
}

/// Removes members that the model does not have.
fn without(print: &mut Value, names: &[&str]) {
    let members = print.as_object_mut().expect("members");
    for name in names {
        members.remove(*name).unwrap_or_else(|| panic!("there is no {name}"));
    }
}

/// Another unit of the AMS, after the first one.
fn unit(print: &Value, id: u32, trays: usize) -> Value {
    let mut unit = print["ams"]["ams"][0].clone();
    unit["id"] = json!(id.to_string());
    unit["tray"].as_array_mut().expect("trays").truncate(trays);
    unit
}

fn a1_mini() -> Stated {
    stated("A1 mini", Model::A1Mini, false, |print| {
        without(print, &["big_fan2_speed"]);
        print["ams"]["ams"][0]["humidity"] = json!("5");
        print["ams_status"] = json!(0);
    })
}

fn a1() -> Stated {
    stated("A1", Model::A1Mini, false, |print| {
        // A tray that is empty says its number, and nothing that it holds.
        print["ams"]["ams"][0]["tray"][2] = json!({ "id": "2", "state": 10 });
        print["ams"]["tray_exist_bits"] = json!("b");
        print["nozzle_type"] = json!("hardened_steel");
    })
}

fn p1p() -> Stated {
    stated("P1P", Model::P1S, false, |print| {
        without(print, &["xcam", "k", "flag3", "filam_bak"]);
        print["ams"] = json!({
            "ams": [],
            "ams_exist_bits": "0",
            "insert_flag": false,
            "power_on_flag": false,
            "tray_exist_bits": "0",
            "tray_is_bbl_bits": "0",
            "tray_now": "255",
            "tray_pre": "255",
            "tray_read_done_bits": "0",
            "tray_reading_bits": "0",
            "tray_tar": "255",
            "version": 0,
        });
    })
}

fn p1s() -> Stated {
    stated("P1S", Model::P1S, false, |print| {
        print["task_id"] = json!("684512377409");
        print["home_flag"] = json!(-1_067_130_505);
    })
}

fn x1c() -> Stated {
    stated("X1C", Model::X1C, false, |print| {
        let units = (0..4).map(|id| unit(print, id, 4)).collect();
        print["ams"]["ams"] = Value::Array(units);
        print["ams"]["ams_exist_bits"] = json!("f");
        // Both of its interfaces are in use, with one address.
        let own = print["net"]["info"][0].clone();
        print["net"]["info"][1] = own;
    })
}

fn p2s() -> Stated {
    stated("P2S", Model::X1C, false, |print| {
        print["vir_slot"] = json!([print["vt_tray"]]);
        without(print, &["vt_tray"]);
        print["ipcam"]["rtsp_url"] = json!("disable");
        print["3D"] = json!({ "layer_num": 12, "total_layer_num": 180 });
        print["info"] = json!({ "temp": 31 });
    })
}

fn h2d() -> Stated {
    stated("H2D", Model::H2D, true, |print| {
        without(print, &["msg"]);
        print["ipcam"]["rtsp_url"] = json!(format!("rtsps://{ADDRESS}/streaming/live/1"));
        print["2D"] = json!({ "bs": { "total_time": 0 }, "cond": 0, "state": 0 });
    })
}

fn h2c() -> Stated {
    stated("H2C", Model::H2D, true, |print| {
        let units = vec![unit(print, 0, 4), unit(print, 1, 4), unit(print, 128, 1)];
        print["ams"]["ams"] = Value::Array(units);
        // Bits 0 and 1, and bit 4 for unit 128, as in an X1C's report.
        print["ams"]["ams_exist_bits"] = json!("13");
        let nozzles = (0..7).map(|id| {
            json!({ "diameter": 0.4, "id": 16 + id, "stat": 0, "tm": 300, "type": "HS01", "wear": id })
        });
        print["device"]["nozzle"]["info"] = nozzles.collect();
        print["device"]["nozzle"]["exist"] = json!(127);
    })
}
