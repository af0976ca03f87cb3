//! Ports 3000 and 3002 in virtual time: answers to slicers, requests to the printer, and clients that misbehave.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::bind::wire::{MAX_FRAME, MAX_NESTED};
use pandaproxy::bind::{CLIENTS, RETRY_INTERVAL};
use pandaproxy::board::BOARD;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::ACCEPT_QUEUE;
use pandaproxy::runtime::launch::Proxy;
use printer::detect::framed;
use printer::{Detect, Model, Printer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::clients::mqtt::{Client as MqttClient, Hello};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::start;
use crate::lan::{self, CODE, PROXY, Tally, WIRE, journal_says, ms, pass, secs};

const PORTS: [u16; 2] = [3000, 3002];

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

const SERIAL: &str = Model::P1S.serial();

/// A P1S with MQTT, something on its port 3000, and the proxy before it.
struct Bed {
    net: SimNet,
    proxy: Proxy,
    printer: Printer,
    /// The printer's port 3000.
    port: Port,
    /// Its port 8883, and what is there.
    mqtt: (Port, At),
}

impl Bed {
    fn with(at: At, more: &[&str]) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(Model::P1S).quiet());
        let port = Port::new(at);
        let serving = printer.clone();
        let mqtt = At::Script(Rc::new(move |stream| {
            let printer = serving.clone();
            spawn_local(async move { printer.serve(stream).await });
        }));
        let mqtt = (Port::new(mqtt.clone()), mqtt);
        net.put(8883, mqtt.0.clone());
        net.put(3000, port.clone());
        let args = [&["--services=mqtt,detect"], more].concat();
        let proxy = start(&net, SERIAL, CODE, &args);
        Self { net, proxy, printer, port, mqtt }
    }

    /// Switches the printer off for a minute, and waits until it is back.
    async fn restart(&self) {
        let (port, serving) = &self.mqtt;
        port.now(At::Off);
        self.printer.cut();
        pass(secs(60)).await;
        port.now(serving.clone());
        pass(secs(240)).await;
    }

    fn new(detect: &Detect) -> Self {
        Self::with(At::Detect(detect.clone()), &[])
    }

    fn connect_from(&self, from: IpAddr, port: u16) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(port, from, far), "port {port} is open");
        near
    }

    fn connect(&self, port: u16) -> DuplexStream {
        self.connect_from(HERE, port)
    }

    /// The answer to a `login` with this content.
    async fn ask(&self, port: u16, login: Value) -> Value {
        let mut stream = self.connect(port);
        ask(&mut stream, login).await
    }

    async fn detect(&self) -> Value {
        self.ask(3000, json!({ "command": "detect", "sequence_id": "20000" })).await
    }

    async fn serves_mqtt(&self) {
        serves_mqtt(&self.net, &self.printer).await;
    }
}

/// Another service works: a client gets the printer's next report at once.
pub(crate) async fn serves_mqtt(net: &SimNet, printer: &Printer) {
    let (near, far) = duplex(WIRE);
    assert!(net.arrive(8883, IpAddr::from([10, 9, 9, 9]), far));
    let mut client = MqttClient::subscribed(near, "reader", "#").await;
    let mark = br#"{"print":{"command":"test","result":"success"}}"#;
    assert_eq!(printer.report(mark), 1);
    client.report_where(|report| report == mark).await;
}

/// Everything up to the end of the connection.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(secs(60), stream.read_to_end(&mut rest)).await.expect("the proxy closes").unwrap();
    rest
}

async fn ask(stream: &mut DuplexStream, login: Value) -> Value {
    stream.write_all(&framed(json!({ "login": login }).to_string().as_bytes())).await.unwrap();
    let answer = rest(stream).await;
    let len = usize::from(u16::from_le_bytes([answer[2], answer[3]]));
    assert_eq!(len, answer.len(), "{}", answer.escape_ascii());
    let json = answer[4..].strip_suffix(b"\xa7\xa7").unwrap();
    let mut answer: Value = serde_json::from_slice(json).unwrap();
    answer["login"].take()
}

// ---- answers to slicers ----------------------------------------------------------------------------

#[test]
fn both_ports_tell_what_the_printer_tells() {
    lan::run(async {
        let detect = Detect::new(Model::P1S)
            .telling("name", "Grüner \"Drucker\"")
            .telling("model", "C12x")
            .telling("bind", "occupied");
        let bed = Bed::new(&detect);
        pass(secs(20)).await;
        for (port, id) in PORTS.into_iter().zip([json!("20004"), json!(3021)]) {
            let answer = bed.ask(port, json!({ "command": "detect", "sequence_id": id })).await;
            let expected = json!({
                "command": "detect", "sequence_id": id, "id": SERIAL, "model": "C12x",
                "name": "Grüner \"Drucker\"", "version": "01.07.02.00", "bind": "free",
                "connect": "lan", "dev_cap": 1,
            });
            assert_eq!(answer, expected);
        }
        assert_eq!(detect.ever(), 1, "clients cost the printer nothing");
        assert!(journal_says("model C12x, firmware 01.07.02.00, bound to an account"));
        bed.serves_mqtt().await;
    });
}

#[test]
fn nothing_known_is_answered_by_the_serial_number() {
    lan::run(async {
        let net = SimNet::new();
        let proxy = start(&net, SERIAL, CODE, &["--services=detect"]);
        pass(secs(1)).await;
        let (mut near, far) = duplex(WIRE);
        assert!(net.arrive(3000, HERE, far));
        let answer = ask(&mut near, json!({ "command": "detect", "sequence_id": "1" })).await;
        assert_eq!((&answer["model"], &answer["name"]), (&json!("C12"), &json!("3DP-01P-417")));
        assert_eq!((&answer["id"], &answer["version"]), (&json!(SERIAL), &json!("00.00.00.00")));
        proxy.stop().await;
    });
}

#[test]
fn the_version_is_that_of_get_version() {
    lan::run(async {
        let bed = Bed::with(At::Closed, &[]);
        pass(secs(5)).await;
        let version = bed.proxy.status().version();
        assert!(version.starts_with("01."), "{version}");
        assert_eq!(bed.detect().await["version"], *version);
    });
}

#[test]
fn the_setting_names_the_printer() {
    lan::run(async {
        let detect = Detect::new(Model::P1S);
        let bed = Bed::with(At::Detect(detect.clone()), &["--name", "Werkstatt"]);
        pass(secs(60)).await;
        assert_eq!(bed.detect().await["name"], "Werkstatt");
        assert_eq!(detect.ever(), 0, "name and version are known");
    });
}

#[test]
fn account_binding_fails_and_is_not_passed_on() {
    lan::run(async {
        let detect = Detect::new(Model::P1S);
        let bed = Bed::new(&detect);
        pass(secs(20)).await;
        let refused = Tally::of(Kind::RequestRefused);
        for port in PORTS {
            let login = json!({
                "command": "login", "sequence_id": "20001", "apix": "api.example.com",
                "iot": "iot.example.com", "emqx": "emqx.example.com", "timezone": "UTC",
            });
            let answer = bed.ask(port, login).await;
            assert_eq!(answer["command"], "login_report");
            assert_eq!(
                (&answer["status"], &answer["sequence_id"]),
                (&json!("FAILURE"), &json!("20001"))
            );
            let reason: Value = serde_json::from_str(answer["reason"].as_str().unwrap()).unwrap();
            assert_eq!(reason["err_code"], 83_902_489);
        }
        pass(secs(60)).await;
        assert_eq!((refused.now(), detect.binds()), (2, 0));
        assert!(journal_says("account binding refused"));
    });
}

#[test]
fn an_unknown_command_gets_silence_and_then_the_end() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        for port in PORTS {
            let ignored = Tally::of(Kind::RequestIgnored);
            let mut stream = bed.connect(port);
            let since = Instant::now();
            stream.write_all(&framed(br#"{"login":{"command":"wifi"}}"#)).await.unwrap();
            pass(secs(4)).await;
            // What follows is not read as a request.
            stream.write_all(&framed(br#"{"login":{"command":"detect"}}"#)).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"");
            assert!((secs(5)..secs(6)).contains(&since.elapsed()), "{:?}", since.elapsed());
            assert_eq!(ignored.now(), 1);
        }
    });
}

#[test]
fn a_client_that_has_closed_its_side_is_answered() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        let mut stream = bed.connect(3000);
        stream.write_all(&framed(br#"{"login":{"command":"detect"}}"#)).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(b"\xa5\xa5"), "{}", answer.escape_ascii());
    });
}

#[test]
fn without_the_service_the_ports_are_closed() {
    lan::run(async {
        let net = SimNet::new();
        let proxy = start(&net, SERIAL, CODE, &["--services=mqtt,camera,ftp"]);
        assert!(PORTS.iter().all(|port| !net.open().contains(port)), "{:?}", net.open());
        proxy.stop().await;
        let proxy = start(&net, SERIAL, CODE, &["--services=detect", "--port=detect=13000"]);
        assert_eq!(net.open(), [3002, 13000]);
        proxy.stop().await;
        assert!(net.open().is_empty());
    });
}

// ---- what the printer is asked ---------------------------------------------------------------------

#[test]
fn the_printer_is_asked_once_after_it_has_become_reachable() {
    lan::run(async {
        let detect = Detect::new(Model::P1S).telling("name", "Nr. 7");
        let bed = Bed::new(&detect);
        pass(secs(9)).await;
        assert_eq!(bed.port.dialled(), 0, "a printer that has just started is left alone");
        pass(secs(6)).await;
        assert_eq!((bed.port.dialled(), detect.detects()), (1, 1));
        assert_eq!(bed.proxy.status().name(), "Nr. 7");
        bed.printer.reboot(secs(60));
        pass(secs(24 * 3600)).await;
        assert_eq!(bed.port.dialled(), 1, "all is known");
    });
}

/// A user renames the printer, at its screen or in another program.
#[test]
fn a_printer_that_is_renamed_is_asked_when_it_is_back() {
    lan::run(async {
        let detect = Detect::new(Model::P1S);
        let bed = Bed::new(&detect);
        pass(secs(60)).await;
        let _renamed = detect.clone().telling("name", "Workshop");
        // It restarts within an hour: it is asked once the hour is over, and not more often for many restarts.
        for _ in 0..3 {
            bed.restart().await;
        }
        assert_eq!((detect.detects(), &*bed.proxy.status().name()), (1, "3DP-01P-417"));
        pass(RETRY_INTERVAL).await;
        assert_eq!((detect.detects(), &*bed.proxy.status().name()), (2, "Workshop"));
        pass(RETRY_INTERVAL * 3).await;
        assert_eq!(detect.detects(), 2, "it was there all the time");
        bed.restart().await;
        assert_eq!(detect.detects(), 3);
    });
    lan::run(async {
        let detect = Detect::new(Model::P1S);
        let bed = Bed::with(At::Detect(detect.clone()), &["--name=Mine"]);
        pass(secs(60)).await;
        bed.restart().await;
        pass(RETRY_INTERVAL * 2).await;
        assert_eq!(detect.detects(), 0, "the name is given");
    });
}

#[test]
fn a_printer_that_does_not_tell_is_asked_once_an_hour() {
    let tells = || Detect::new(Model::P1S);
    let other: lan::chamber::Script = Rc::new(|mut stream: DuplexStream| {
        spawn_local(async move {
            let _sent = stream.write_all(&[0x16; 5000]).await;
        });
    });
    let half: lan::chamber::Script = Rc::new(|mut stream: DuplexStream| {
        spawn_local(async move {
            let _sent = stream.write_all(b"\xa5\xa5\xff\x03{\"login\":").await;
            pass(secs(600)).await;
        });
    });
    for (at, said) in [
        (At::Closed, "port 3000 is closed"),
        (At::Detect(tells().refusing(true)), "the printer refuses to answer"),
        (At::Detect(tells().silent(true)), "no answer within 5 s"),
        (At::Detect(tells().telling("id", "01P00A3C1200418")), "another serial number"),
        (At::Detect(tells().telling("command", "whatever")), "unexpected answer"),
        (At::Script(other), "TLS on the port without TLS"),
        (At::Script(half), "no answer within 5 s"),
    ] {
        lan::run(async {
            let logged = Tally::of(Kind::Detected);
            let bed = Bed::with(at, &[]);
            pass(secs(30)).await;
            assert_eq!(bed.port.dialled(), 1, "{said}");
            assert!(journal_says(said), "{said}");
            pass(RETRY_INTERVAL - secs(60)).await;
            assert_eq!(bed.port.dialled(), 1, "{said}");
            pass(RETRY_INTERVAL * 10).await;
            assert_eq!(bed.port.dialled(), 11, "{said}");
            assert_eq!(logged.now(), 1, "the same is logged once: {said}");
            assert_eq!(bed.detect().await["name"], "3DP-01P-417", "{said}");
            bed.serves_mqtt().await;
        });
    }
}

#[test]
fn a_printer_that_cannot_be_reached_is_not_asked() {
    lan::run(async {
        let net = SimNet::new();
        let port = Port::new(At::Detect(Detect::new(Model::P1S)));
        net.put(3000, port.clone());
        net.put(8883, Port::new(At::Off));
        let proxy = start(&net, SERIAL, CODE, &["--services=mqtt,detect"]);
        pass(secs(3600)).await;
        assert_eq!(port.dialled(), 0);
        proxy.stop().await;
        // Where no other service dials the printer, it is asked all the same.
        let proxy = start(&net, SERIAL, CODE, &["--services=detect"]);
        pass(secs(40)).await;
        assert_eq!((port.dialled(), &*proxy.status().version()), (1, "01.07.02.00"));
        proxy.stop().await;
    });
}

#[test]
fn a_printer_in_cloud_mode_is_named_in_the_log() {
    lan::run(async {
        let detect = Detect::new(Model::P1S).telling("connect", "cloud");
        let bed = Bed::new(&detect);
        pass(secs(20)).await;
        assert!(journal_says("the printer is in cloud mode"));
        assert_eq!(bed.detect().await["connect"], "lan");
    });
}

#[test]
fn what_is_too_long_or_missing_is_left_out() {
    lan::run(async {
        let detect = Detect::new(Model::P1S)
            .telling("name", &"x".repeat(65))
            .telling("version", &"9".repeat(25))
            .keeping("model");
        let bed = Bed::new(&detect);
        pass(secs(20)).await;
        let answer = bed.detect().await;
        assert_eq!((&answer["name"], &answer["model"]), (&json!("3DP-01P-417"), &json!("C12")));
        assert!(answer["version"].as_str().unwrap().starts_with("01."), "that of get_version");
    });
}

#[test]
fn shutdown_waits_for_no_client_and_not_for_the_printer() {
    lan::run(async {
        let bed = Bed::new(&Detect::new(Model::P1S).silent(true));
        pass(secs(12)).await;
        assert_eq!(bed.port.dialled(), 1, "it is being asked");
        let mut there = Vec::new();
        for port in PORTS {
            let mut stream = bed.connect(port);
            stream.write_all(b"\xa5\xa5").await.unwrap();
            there.push(stream);
        }
        pass(ms(100)).await;
        let since = Instant::now();
        bed.proxy.stop().await;
        assert!(since.elapsed() < ms(100), "{:?}", since.elapsed());
        for mut stream in there {
            assert_eq!(rest(&mut stream).await, b"");
        }
    });
}

// ---- bad clients -----------------------------------------------------------------------------------

/// Invalid requests, and their log lines.
fn bad() -> Vec<(Vec<u8>, &'static str)> {
    let deep = format!(r#"{{"login":{{"command":"detect","x":{}"#, "[".repeat(MAX_NESTED));
    vec![
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), "TLS on the port without TLS"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a frame of detect"),
        (vec![0; 100_000], "not a frame of detect"),
        (vec![0xff; 100_000], "not a frame of detect"),
        (b"\xa5\xa5\0\0".to_vec(), "frame length 0"),
        (b"\xa5\xa5\xff\xff".to_vec(), "frame length 65535"),
        ([&b"\xa5\xa5\x01\x04"[..], &[b' '; 2000]].concat(), "frame length 1025"),
        (b"\xa5\xa5\x08\0{}xx".to_vec(), "frame does not end where its length says"),
        (framed(b"{\"login\":{\"command\":1}}"), "frame holds no valid message"),
        (framed(&[b'['; MAX_FRAME - 6]), "JSON with more than 32 objects and arrays"),
        (framed(deep.as_bytes()), "JSON with more than 32 objects and arrays"),
    ]
}

#[test]
fn invalid_bytes_are_closed_at_once_without_an_answer() {
    for (n, (bytes, said)) in bad().into_iter().enumerate() {
        // Lines about one address are rate-limited.
        let from = IpAddr::from([10, 9, 2, n as u8]);
        lan::run(async {
            let bed = Bed::with(At::Off, &[]);
            pass(secs(1)).await;
            for port in PORTS {
                let malformed = Tally::of(Kind::Malformed);
                let mut stream = bed.connect_from(from, port);
                let since = Instant::now();
                let _closed = stream.write_all(&bytes).await;
                assert_eq!(rest(&mut stream).await, b"", "{said}");
                assert_eq!(since.elapsed(), Duration::ZERO, "{said}");
                assert_eq!(malformed.now(), 1, "{said}");
            }
            assert!(journal_says(said), "{said}");
            bed.serves_mqtt().await;
        });
    }
}

#[test]
fn several_requests_get_one_answer() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        for port in PORTS {
            let mut stream = bed.connect(port);
            let request = framed(br#"{"login":{"command":"detect","sequence_id":7}}"#);
            stream.write_all(&request.repeat(20)).await.unwrap();
            let answer = rest(&mut stream).await;
            let len = usize::from(u16::from_le_bytes([answer[2], answer[3]]));
            assert_eq!(answer.len(), len, "one answer");
        }
    });
}

#[test]
fn data_behind_an_unknown_command_has_a_bound() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        let mut stream = bed.connect(3000);
        stream.write_all(&framed(br#"{"login":{"command":"x"}}"#)).await.unwrap();
        pass(ms(10)).await;
        let since = Instant::now();
        let _closed = stream.write_all(&[b'x'; 4 * MAX_FRAME]).await;
        assert_eq!(rest(&mut stream).await, b"");
        assert!(since.elapsed() < ms(100), "{:?}", since.elapsed());
        assert!(journal_says("unexpected data after the request"));
    });
}

#[test]
fn half_requests_hold_their_slots_for_five_seconds() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        for port in PORTS {
            let since = Instant::now();
            let mut half = Vec::new();
            for n in 0..2 * CLIENTS {
                let mut stream = bed.connect_from(IpAddr::from([10, 9, 1, n as u8]), port);
                stream.write_all(b"\xa5\xa5\x3a\0{\"login\"").await.unwrap();
                half.push(stream);
            }
            pass(ms(10)).await;
            assert_eq!(connections(&bed, port), CLIENTS);
            // The client waits in the accept queue until those before it have timed out.
            let mut stream = bed.connect(port);
            let answer = ask(&mut stream, json!({ "command": "detect" })).await;
            assert_eq!(answer["id"], SERIAL);
            assert!(since.elapsed() <= secs(11), "{:?}", since.elapsed());
            for mut stream in half {
                assert_eq!(rest(&mut stream).await, b"");
            }
        }
    });
}

/// Open connections to a port, as the operator's status has them.
fn connections(bed: &Bed, port: u16) -> usize {
    let name = if port == 3000 { "detect: " } else { "detect-tls: " };
    let mut status = String::new();
    bed.proxy.write_status(&mut status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_flood_on_both_ports_is_noticed_by_nobody_else() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        pass(secs(1)).await;
        let before = journal_lines();
        let bad = bad();
        for round in 0..60 {
            for n in 0..ACCEPT_QUEUE {
                let (bytes, _) = &bad[n % bad.len()];
                let mut stream = bed.connect(PORTS[n % 2]);
                // Three of four connections with half a request are closed at once; the others stay.
                let _sent = stream.write_all(&bytes[..bytes.len().min(4096)]).await;
                let mut half = bed.connect(PORTS[(n + 1) % 2]);
                half.write_all(b"\xa5").await.unwrap();
                if n % 4 == 0 {
                    spawn_local(async move { rest(&mut half).await });
                }
            }
            if round % 20 == 0 {
                let since = Instant::now();
                bed.serves_mqtt().await;
                assert_eq!(since.elapsed(), Duration::ZERO);
            }
            pass(secs(1)).await;
        }
        // One line for each reason in half a minute, and one in ten seconds for a full queue.
        let lines = journal_lines() - before;
        assert!(lines < 60, "{lines} lines");
        pass(secs(60)).await;
        assert_eq!(bed.detect().await["id"], SERIAL);
        assert_eq!(PORTS.map(|port| connections(&bed, port)), [0, 0]);
    });
}

/// Lines about clients of detect in the journal, of those that are kept.
fn journal_lines() -> usize {
    let mut all = String::new();
    journal::write_to(&mut all).unwrap();
    all.lines().filter(|line| line.contains("detect")).count()
}

/// The health check asks from this machine, twice a minute in a container.
#[test]
fn health_checks_displace_no_events_in_the_journal() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        // The printer has been asked by then.
        pass(secs(60)).await;
        let (before, checked) = (journal_lines(), Tally::of(Kind::Checked));
        for n in 0..100 {
            let mut stream = bed.connect_from(PROXY.into(), PORTS[n % 2]);
            let answer = ask(&mut stream, json!({ "command": "detect" })).await;
            assert_eq!(answer["id"], SERIAL);
            pass(secs(30)).await;
        }
        assert_eq!((journal_lines(), checked.now()), (before, 100));
        assert_eq!(bed.detect().await["id"], SERIAL);
        assert_eq!(journal_lines(), before + 1, "another machine's question");
    });
}

/// A client that is never asked for the code must not pass for one that has shown it.
#[test]
fn detect_does_not_forgive_wrong_codes() {
    lan::run(async {
        let bed = Bed::with(At::Off, &[]);
        pass(secs(1)).await;
        let locked = Tally::of(Kind::LockedOut);
        for n in 0..5_u32 {
            let code = format!("wrong-{n}");
            let hello = Hello { password: Some(code.as_bytes()), ..Hello::default() };
            assert_ne!(MqttClient::over(bed.connect(8883)).connect(&hello).await, 0);
            pass(secs(1)).await;
            if n < 4 {
                assert_eq!(bed.detect().await["id"], SERIAL);
            }
        }
        assert_eq!(locked.now(), 1);
        assert_eq!(bed.detect().await["id"], SERIAL, "of another service");
        const { assert!(CLIENTS <= BOARD.pre_auth, "each has a pre-auth slot") };
    });
}
