//! What the simulated printers say.

use core::net::Ipv4Addr;
use core::time::Duration;

use serde_json::json;
use tokio::time::{Instant, advance};

use super::{parsed, pushall, secs, simulated, subscriber};
use printer::{Model, Printer};

#[test]
fn whoever_asks_gets_the_full_state_and_so_does_everybody_else() {
    simulated(async || {
        for model in Model::ALL {
            let printer = Printer::new(model).quiet().address(Ipv4Addr::new(192, 168, 0, 3));
            let mut asking = subscriber(&printer).await;
            let mut other = subscriber(&printer).await;
            asking.request(&printer, &pushall()).await;
            let (one, two) = (asking.report().await, other.report().await);
            assert_eq!(one, two);
            assert_eq!(Some(&*one), printer.last_full().as_deref());
            let state = parsed(&one);
            let print = state["print"].as_object().unwrap();
            assert!(print.len() >= 59, "{model:?}: {} keys", print.len());
            assert_eq!((&print["msg"], &print["command"]), (&json!(0), &json!("push_status")));
            assert!(print["ams"]["ams"][0]["tray"].is_array());
            let own = json!({ "ip": 50_374_848, "mask": 0x00ff_ffff });
            match model {
                Model::P1S | Model::A1Mini => {
                    assert_eq!(print["net"]["info"], json!([own]));
                    assert_eq!(print["ipcam"].get("rtsp_url"), None);
                }
                Model::X1C | Model::H2D => {
                    assert_eq!(print["net"]["info"], json!([own, { "ip": 0, "mask": 0 }]));
                    let url = "rtsps://192.168.0.3:322/streaming/live/1";
                    assert_eq!(print["ipcam"]["rtsp_url"], url);
                }
            }
            assert_eq!((printer.pushalls(), printer.reports(), printer.most_open()), (1, 1, 2));
        }
    });
}

#[test]
fn deltas_are_timely_numbered_and_without_trays() {
    simulated(async || {
        for model in [Model::P1S, Model::A1Mini, Model::H2D] {
            let printer = Printer::new(model).deltas_every(secs(3));
            let mut client = subscriber(&printer).await;
            let (mut last, mut with_ams) = (0, 0);
            for _ in 0..60 {
                let before = Instant::now();
                let print = parsed(&client.report().await)["print"].take();
                assert_eq!(before.elapsed(), secs(3));
                assert_eq!(print["msg"], 1);
                let sequence: u64 = print["sequence_id"].as_str().unwrap().parse().unwrap();
                assert!(sequence > last);
                last = sequence;
                assert!(print["wifi_signal"].as_str().unwrap().ends_with("dBm"));
                assert!(print.as_object().unwrap().len() < 15, "{print}");
                if let Some(ams) = print.get("ams") {
                    with_ams += 1;
                    assert!(ams["tray_now"].is_string() && ams.get("ams").is_none(), "{ams}");
                }
            }
            assert!(with_ams > 0, "{model:?}");
        }
    });
}

#[test]
fn an_x1_always_sends_everything() {
    simulated(async || {
        let printer = Printer::new(Model::X1C);
        let mut client = subscriber(&printer).await;
        for _ in 0..5 {
            let state = client.report().await;
            assert_eq!(parsed(&state)["print"]["msg"], 0);
            assert_eq!(Some(&*state), printer.last_full().as_deref());
        }
    });
}

#[test]
fn the_same_seed_measures_the_same() {
    let run = |seed| {
        let mut said = Vec::new();
        simulated(async || {
            let printer = Printer::new(Model::P1S).seed(seed);
            let mut client = subscriber(&printer).await;
            for _ in 0..20 {
                said.push(client.report().await);
            }
        });
        said
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn full_states_are_padded_to_the_size_asked_for() {
    simulated(async || {
        for model in Model::ALL {
            for (indented, bytes) in
                [(false, 16_384), (true, 16_384), (false, 40_000), (true, 300_000)]
            {
                let printer = Printer::new(model).quiet().indented(indented).state_bytes(bytes);
                let mut client = subscriber(&printer).await;
                client.request(&printer, &pushall()).await;
                let state = client.report().await;
                let off = state.len().abs_diff(bytes);
                assert!(off <= 40, "{model:?} {indented} {bytes}: {}", state.len());
                assert_eq!(state.windows(6).any(|window| window == b"{\n    "), indented);
                parsed(&state);
            }
        }
    });
}

#[test]
fn acks_are_those_of_the_model() {
    let pause = r#"{"header":{"cert_id":"x"},"print":{"command":"pause","sequence_id":"7"}}"#;
    let light = r#"{"system":{"command":"ledctrl","sequence_id":"8","led_mode":"on"}}"#;
    let file = r#"{"print":{"command":"project_file","sequence_id":"9","url":"ftp:///a.3mf"}}"#;
    for model in Model::ALL {
        simulated(async || {
            let printer = Printer::new(model).quiet();
            let mut client = subscriber(&printer).await;
            client.request(&printer, pause).await;
            let mut ack = json!({ "sequence_id": "7", "result": "success", "reason": "" });
            if model != Model::A1Mini {
                ack["command"] = json!("pause");
            }
            assert_eq!(parsed(&client.report().await), json!({ "print": ack }));
            client.request(&printer, light).await;
            let ack = json!({ "command": "ledctrl", "sequence_id": "8", "result": "success",
                "reason": "" });
            assert_eq!(parsed(&client.report().await), json!({ "system": ack }));
            client.request(&printer, file).await;
            let ack = json!({ "command": "project_file", "sequence_id": "9", "result": "success",
                "reason": "", "url": "ftp:///a.3mf" });
            assert_eq!(parsed(&client.report().await), json!({ "print": ack }));
        });
    }
}

#[test]
fn versions_come_under_the_callers_sequence_id() {
    simulated(async || {
        for model in Model::ALL {
            let printer = Printer::new(model).quiet();
            let mut client = subscriber(&printer).await;
            for id in [json!("20007"), json!(3021)] {
                let ask = json!({ "info": { "command": "get_version", "sequence_id": id } });
                client.request(&printer, &ask.to_string()).await;
                let info = parsed(&client.report().await)["info"].take();
                assert_eq!((&info["sequence_id"], &info["command"]), (&id, &json!("get_version")));
                let first = &info["module"][0];
                assert_eq!((&first["name"], &first["sn"]), (&json!("ota"), &json!(model.serial())));
            }
            assert_eq!((printer.get_versions(), printer.pushalls()), (2, 0));
        }
    });
}

#[test]
fn pushing_stop_silences_one_client_until_it_asks_again() {
    simulated(async || {
        let printer = Printer::new(Model::P1S);
        let (mut one, mut two) = (subscriber(&printer).await, subscriber(&printer).await);
        one.request(&printer, r#"{"pushing":{"command":"stop","sequence_id":"0"}}"#).await;
        assert!(one.is_silent_for(secs(60)).await);
        assert_eq!(parsed(&two.report().await)["print"]["msg"], 1);
        one.request(&printer, &pushall()).await;
        assert_eq!(parsed(&one.report().await)["print"]["msg"], 0);
        assert_eq!(parsed(&one.report().await)["print"]["msg"], 1);
    });
}

#[test]
fn what_was_missed_while_nobody_was_there_is_not_made_up_for() {
    simulated(async || {
        for away in [1, 1000] {
            let printer = Printer::new(Model::P1S);
            drop(subscriber(&printer).await);
            assert!(printer.until(secs(1), |printer| printer.open() == 0).await);
            advance(secs(away)).await;
            let mut client = subscriber(&printer).await;
            assert!(client.is_silent_for(Duration::from_millis(1999)).await);
            client.report().await;
        }
    });
}
