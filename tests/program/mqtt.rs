//! The real program over real TLS on loopback: other programs as clients, attackers, and a printer with
//! faults.
//!
//! To *pin* is to trust what was once seen instead of an authority given beforehand. What the proxy
//! shows can be pinned in two ways: its leaf, by clients that take a leaf for an anchor (OpenSSL's
//! partial chain, which is what Python 3.13's `ssl` does by itself), or the CA, which it sends along
//! for the others. mosquitto's clients are among the others: a lone leaf is no anchor to them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use skips::is_missing;

use crate::clients::mqtt::{Client, Hello, PINGRESP, PUBACK, hello_bytes};
use crate::clients::ports::{self, Refusing};
use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, HOME, Proxy, StateDir, command, switch_on, usual};
use printer::{Event, Model, Printer};

// ---- other programs as clients -----------------------------------------------------------------

#[test]
fn mosquitto_gets_the_state_over_mqtt_3_1_and_3_1_1() {
    if is_missing("mosquitto_sub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::P1S).await;
        let ca = Program::start(command(["ca", "--state-dir"]).arg(lan.proxy.dir.path()));
        let ca = { ca }.ended().await.1.out;
        let given = lan.proxy.dir.file("given.pem");
        fs::write(&given, ca).unwrap();
        for version in ["mqttv31", "mqttv311"] {
            let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", &given, CODE);
            reader.args(["-V", version, "-t", "device/+/report", "-C", "1"]);
            let (code, said) = Program::start(&mut reader).ended().await;
            assert_eq!(code, Some(0), "{version}: {}", said.err);
            assert!(is_state(&said.out), "{version}: the state comes first");
        }
    });
}

#[test]
fn the_proxys_ca_and_leaf_can_each_be_trusted() {
    if is_missing("mosquitto_sub") || is_missing("openssl") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::X1C).await;
        let shown = served_chain(lan.proxy.address).await;
        let [leaf, ca] = [0, 1].map(|at| {
            let file = lan.proxy.dir.file(["seen-leaf.pem", "seen-ca.pem"][at]);
            fs::write(&file, &shown[at]).unwrap();
            file
        });
        assert_eq!(shown.len(), 2, "the leaf and the CA");
        let printed = Program::start(command(["ca", "--state-dir"]).arg(lan.proxy.dir.path()));
        let printed = { printed }.ended().await.1.out;
        let printed = String::from_utf8(printed).unwrap();
        assert_eq!(shown[1].trim(), printed.trim(), "it shows the CA that it prints");

        for (anchor, insecure, words) in
            [(&ca, false, ""), (&leaf, false, "TLS error"), (&leaf, true, "TLS error")]
        {
            let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", anchor, CODE);
            reader.args(["-t", "device/+/report", "-C", "1"]);
            if insecure {
                reader.arg("--insecure");
            }
            let (code, said) = Program::start(&mut reader).ended().await;
            assert_eq!(code == Some(0), words.is_empty(), "{} {}", anchor.display(), said.err);
            assert!(said.err.contains(words), "{} {}", anchor.display(), said.err);
        }
        let mut verify = Command::new("openssl");
        verify.args(["s_client", "-partial_chain", "-verify_return_error", "-CAfile"]);
        verify.arg(&leaf).args(["-connect", &lan.proxy.address.to_string()]);
        let (code, said) = Program::start(&mut verify).ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        assert!(String::from_utf8_lossy(&said.out).contains("Verify return code: 0 (ok)"));
    });
}

#[test]
fn mosquitto_reports_why_it_was_refused() {
    if is_missing("mosquitto_sub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::P1S).await;
        let ca = lan.proxy.dir.file("ca.pem");
        for (version, password, code, words) in [
            ("mqttv5", CODE, 132, "Unsupported Protocol Version"),
            ("mqttv311", "7Kq2xW9q", 5, "not authorised"),
            ("mqttv31", "7Kq2xW9q", 5, "not authorised"),
        ] {
            let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", &ca, password);
            reader.args(["-V", version, "-t", "#"]);
            let (got, said) = Program::start(&mut reader).ended().await;
            assert!(
                got == Some(code) && said.err.contains(words),
                "{version} {got:?} {}",
                said.err
            );
        }
        assert_eq!(lan.printer.ever(), 1, "none of it reached the printer");
    });
}

#[test]
fn mosquitto_publishes_arrive_once_at_any_qos() {
    if is_missing("mosquitto_pub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::P1S).await;
        let file = lan.proxy.dir.file("request");
        for qos in ["0", "1", "2"] {
            // Blanks, a NUL, invalid UTF-8, and length: a payload that was parsed and written again would lose one.
            let mut payload =
                format!("{{ \"print\" :\t{{\"command\":\"x{qos}\"}}}}\r\n").into_bytes();
            payload.extend(b"\0\xff\xfe");
            payload.resize(9000, b' ');
            fs::write(&file, &payload).unwrap();
            let mut writer =
                mosquitto(&lan.proxy, "mosquitto_pub", &lan.proxy.dir.file("ca.pem"), CODE);
            writer.args(["-q", qos, "-t", &lan.printer.request_topic(), "-f"]).arg(&file);
            let (code, said) = Program::start(&mut writer).ended().await;
            assert_eq!(code, Some(0), "qos {qos}: {}", said.err);
            let of_it = |printer: &Printer| {
                let requests = printer.requests().into_iter();
                requests.filter(|request| request.payload == payload).count()
            };
            assert!(lan.printer.until(PATIENCE, |printer| of_it(printer) > 0).await, "qos {qos}");
            // A second copy would arrive before the next request.
            lan.marked_request(&format!("after-{qos}")).await;
            assert_eq!(of_it(&lan.printer), 1, "qos {qos}");
        }
    });
}

/// bambuddy learns the slicer's AMS mapping so.
/// Guards: a bridge with mosquitto's default settings, whose first CONNECT has the level 0x84.
#[test]
fn mosquitto_bridges_at_its_first_attempt() {
    if is_missing("mosquitto") || is_missing("mosquitto_pub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::X1C).await;
        let [ca, socket, conf] =
            ["ca.pem", "socket", "bridge.conf"].map(|name| lan.proxy.dir.file(name));
        let [report, request] = [lan.printer.report_topic(), lan.printer.request_topic()];
        let text = format!(
            "listener 0 {socket}\nallow_anonymous true\nuser root\nconnection printer\naddress {}\n\
             bridge_cafile {ca}\nremote_username bblp\nremote_password {CODE}\ntopic {report} in 0\n\
             topic {request} both 1\n",
            lan.proxy.address,
            socket = socket.display(),
            ca = ca.display(),
        );
        fs::write(&conf, text).unwrap();
        let bridge = Program::start(Command::new("mosquitto").arg("-v").arg("-c").arg(&conf));
        bridge.line("Received SUBACK from").await;
        let local = |program: &str, topic: &str| {
            let mut command = Command::new(program);
            command.arg("--unix").arg(&socket).args(["-q", "1", "-t", topic]);
            command
        };
        let reader = Program::start(local("mosquitto_sub", &report).arg("-d"));
        let has = |part: &'static [u8]| move |said: &Said| holds(&said.out, part);
        assert!(reader.until(PATIENCE, has(b"SUBACK")).await);
        assert_eq!(lan.printer.report(br#"{"print":{"command":"bridged"}}"#), 1);
        assert!(reader.until(PATIENCE, has(b"bridged")).await);
        let order = r#"{"print":{"command":"order"}}"#;
        let mut writer = Program::start(local("mosquitto_pub", &request).args(["-m", order]));
        assert_eq!(writer.ended().await.0, Some(0));
        let ordered = |printer: &Printer| {
            let requests = printer.requests().into_iter();
            requests.filter(|request| request.payload == order.as_bytes()).count()
        };
        assert!(lan.printer.until(PATIENCE, |printer| ordered(printer) > 0).await);
        lan.marked_request("after").await;
        assert_eq!(ordered(&lan.printer), 1, "the request does not go round");
        assert_eq!(bridge.lines_with("sending CONNECT"), 1, "{}", bridge.log());
    });
}

#[test]
fn mosquitto_hears_the_requests_of_others() {
    if is_missing("mosquitto_sub") || is_missing("mosquitto_pub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::of(Printer::new(Model::X1C).code(CODE).quiet()).await;
        let ca = lan.proxy.dir.file("ca.pem");
        let request = lan.printer.request_topic();
        let mut listener = mosquitto(&lan.proxy, "mosquitto_sub", &ca, CODE);
        // One SUBSCRIBE with both: once the state has come, it is in force.
        listener.args(["-q", "1", "-F", "%t %q %r %p", "-t", &lan.printer.report_topic()]);
        let listener = Program::start(listener.args(["-t", &request]));
        assert!(listener.until(PATIENCE, |said| holds(&said.out, b"\"msg\"")).await);
        for qos in ["0", "1", "2"] {
            let mut writer = mosquitto(&lan.proxy, "mosquitto_pub", &ca, CODE);
            let payload = format!("{{\"print\": {{\"command\":\"project_file\",\"q\":{qos}}}}}");
            writer.args(["-q", qos, "-t", &request, "-m", &payload]);
            let (code, said) = Program::start(&mut writer).ended().await;
            assert_eq!(code, Some(0), "{}", said.err);
            let line = format!("{request} 0 0 {payload}\n");
            let heard = listener.until(PATIENCE, |said| holds(&said.out, line.as_bytes())).await;
            assert!(heard, "QoS {qos}: {}", listener.log());
        }
        let out = String::from_utf8(listener.said().out).unwrap();
        assert_eq!(out.matches(&format!("{request} ")).count(), 3, "each once: {out}");
    });
}

#[test]
fn eight_readers_and_two_writers_share_one_connection() {
    if is_missing("mosquitto_sub") || is_missing("mosquitto_pub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::of(Printer::new(Model::P1S).code(CODE).quiet()).await;
        // Ten places are taken by these ten.
        lan.good.disconnect().await;
        lan.proxy.program.line("DISCONNECT received").await;
        let ca = lan.proxy.dir.file("ca.pem");
        let readers: Vec<Program> = (0..8)
            .map(|number| {
                let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", &ca, CODE);
                reader.args(["-t", &lan.printer.report_topic(), "-k", "5"]);
                if number % 2 == 0 {
                    reader.args(["--will-topic", "device/x/report", "--will-payload", "gone"]);
                }
                Program::start(&mut reader)
            })
            .collect();
        let mut writers: Vec<Program> = (0..2)
            .map(|_| {
                let mut writer = mosquitto(&lan.proxy, "mosquitto_pub", &ca, CODE);
                writer.args(["-q", "1", "-l", "-t", &lan.printer.request_topic()]);
                Program::start(&mut writer)
            })
            .collect();
        for reader in &readers {
            assert!(reader.until(PATIENCE, |said| holds(&said.out, b"\"msg\"")).await);
        }
        let sent = |printer: &Printer| {
            let requests = printer.requests().into_iter();
            requests.filter(|it| holds(&it.payload, b"\"command\":\"w")).count()
        };
        for round in 0..10 {
            for (at, writer) in writers.iter_mut().enumerate() {
                writer.tell(&format!("{{\"print\":{{\"command\":\"w{at}r{round}\"}}}}"));
            }
            // Each answer is awaited, so a slow machine does not let them pile up.
            let here = |printer: &Printer| sent(printer) == 2 * (round + 1);
            assert!(lan.printer.until(PATIENCE, here).await, "round {round}");
            // Three at once and two answers, of the eight that a reader may be behind.
            for part in 0..3 {
                let report = format!("{{\"print\":{{\"command\":\"r{round}p{part}\"}}}}");
                assert_eq!(lan.printer.report(report.as_bytes()), 1);
            }
            let last = format!("r{round}p2");
            for reader in &readers {
                let heard = reader.until(PATIENCE, |said| holds(&said.out, last.as_bytes())).await;
                assert!(heard, "{last}: {}", reader.log());
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let wanted: Vec<String> =
            (0..10).flat_map(|r| (0..3).map(move |p| format!("\"r{r}p{p}\""))).collect();
        for reader in &readers {
            let out = text(reader.said().out);
            let got: Vec<_> = out.lines().filter_map(|line| line.split(':').nth(2)).collect();
            let got: Vec<_> = got.iter().map(|last| last.trim_end_matches('}')).collect();
            let marked: Vec<_> =
                got.into_iter().filter(|it| wanted.iter().any(|w| w == it)).collect();
            assert_eq!(marked, wanted, "each of them, once and in order");
        }
        assert_eq!(sent(&lan.printer), 20);
        assert_eq!((lan.printer.most_open(), lan.printer.ever()), (1, 1));
        assert_eq!(lan.printer.refused(), 0);
    });
}

/// A printer that reads nothing for a while must not find a megabyte of one client's requests before the
/// `stop` of another.
#[test]
fn a_flood_does_not_stand_before_anothers_command() {
    const FLOOD: usize = 10_000;
    proxy::run(async {
        let before_stop = Rc::new(Cell::new(0));
        let (counted, is_stopped) = (Rc::clone(&before_stop), Cell::new(false));
        let printer = Printer::new(Model::P1S).code(CODE).quiet().narrate(move |event| {
            if let Event::Requested(request) = event {
                is_stopped.set(is_stopped.get() || request.payload == b"stop");
                let is_before = !is_stopped.get() && request.payload.len() == FLOOD;
                counted.set(counted.get() + if is_before { FLOOD } else { 0 });
            }
        });
        let (address, _serving) = switch_on(&printer, loopback(1)).await;
        let valve = watch::Sender::new(true);
        let (address, _passing) = pass_through(address, &valve).await;
        let proxy = Proxy::before(&printer, address, &[]).await;
        proxy.live().await;
        let mut flood = proxy.reader(HOME, "flood").await;
        flood.report_where(is_state).await;
        let mut slicer = proxy.reader(HOME, "slicer").await;
        slicer.report_where(is_state).await;

        valve.send_replace(false);
        let sent = Rc::new(Cell::new(0));
        let (sending, topic) = (Rc::clone(&sent), printer.request_topic());
        let _flooding = spawn_local(async move {
            for id in 1..=400 {
                flood.publish(&topic, &[b'x'; FLOOD], 0, id).await;
                sending.set(id);
            }
        });
        // Until no more of it is taken.
        let mut last = None;
        while last.replace(sent.get()) != Some(sent.get()) {
            sleep(Duration::from_millis(300)).await;
        }
        slicer.publish(&printer.request_topic(), b"stop", 1, 1).await;
        slicer.send(&[0xc0, 0]).await.unwrap();
        // The answer means that the request before it was read.
        let read = timeout(Duration::from_secs(10), slicer.expect(PINGRESP)).await;
        valve.send_replace(true);
        slicer.expect(PUBACK).await;
        let stop = |printer: &Printer| printer.requests().iter().any(|it| it.payload == b"stop");
        assert!(printer.until(PATIENCE, stop).await);
        let before_stop = before_stop.get();
        assert!(before_stop <= 150_000, "{before_stop} bytes before it, read: {}", read.is_ok());
        assert!(before_stop > 0, "there was a flood");
        assert_eq!(printer.ever(), 1);
    });
}

/// Passes connections on to the printer at `to`; nothing is read of the proxy while the valve is closed.
async fn pass_through(to: SocketAddr, valve: &watch::Sender<bool>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(loopback(2)).await.unwrap();
    // As little as an ESP32 has; connections inherit it.
    SockRef::from(&listener).set_recv_buffer_size(8 * 1024).unwrap();
    let (address, valve) = (listener.local_addr().unwrap(), valve.subscribe());
    let passing = spawn_local(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let mut valve = valve.clone();
            spawn_local(async move {
                let (mut from_proxy, mut to_proxy) = near.into_split();
                let (mut from_printer, mut to_printer) = far.into_split();
                let there = async {
                    let mut piece = [0; 4096];
                    loop {
                        valve.wait_for(|is_open| *is_open).await.unwrap();
                        tokio::select! {
                            read = from_proxy.read(&mut piece) => match read {
                                Ok(0) | Err(_) => break,
                                Ok(len) => to_printer.write_all(&piece[..len]).await.unwrap(),
                            },
                            _closed = valve.wait_for(|is_open| !is_open) => {}
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    _ended = tokio::io::copy(&mut from_printer, &mut to_proxy) => {}
                }
            });
        }
    });
    (address, passing)
}

// ---- attackers ---------------------------------------------------------------------------------

#[test]
fn other_protocols_than_tls_are_cut_off_alone() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        let log = &lan.proxy.program;
        // This connection holds a pre-auth slot until its timeout of ten seconds; checked last.
        let mut half = lan.proxy.tcp_from(other(5)).await.unwrap();
        half.write_all(&client_hello()[..60]).await.unwrap();

        let mut http = lan.proxy.tcp_from(other(2)).await.unwrap();
        http.write_all(b"GET / HTTP/1.1\r\nHost: printer\r\n\r\n").await.unwrap();
        assert!(is_closed(&mut http).await);
        log.line("(127.0.0.2): client rejected: not a TLS connection").await;

        for (at, garbage) in [
            &[0x16, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0xff][..],
            &[0x16, 3, 3, 0xff, 0xff],
            &[0x15, 3, 3, 0, 2, 2, 40],
            &[0x17, 3, 3, 0, 1, 0],
            &[0xff; 512],
            // A CONNECT without TLS, of a client that was configured without it.
            &hello_bytes(&Hello::default()),
        ]
        .into_iter()
        .enumerate()
        {
            let mut peer = lan.proxy.tcp_from(other(3)).await.unwrap();
            // The connection may be closed before everything was sent.
            let _cut = peer.write_all(garbage).await;
            assert!(is_closed(&mut peer).await, "garbage {at}");
        }

        if !is_missing("openssl") {
            let mut old = Command::new("openssl");
            old.args(["s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect"]);
            old.arg(lan.proxy.address.to_string());
            let (code, said) = Program::start(&mut old).ended().await;
            assert_ne!(code, Some(0), "{}", said.err);
            if said.err.contains("alert") {
                log.line("no TLS version or cipher suite in common").await;
            } else {
                skips::cannot("this openssl does not speak TLS 1.1");
            }
        }
        assert!(is_closed(&mut half).await, "half a ClientHello, and then silence");
        log.line("(127.0.0.5): client rejected: TLS handshake timed out").await;
        lan.is_well().await;
    });
}

/// libmosquitto never connects again after an end without close_notify.
#[test]
fn a_refusal_is_a_connack_and_close_notify() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        let mut others = Vec::new();
        for n in 1..BOARD.clients.mqtt {
            others.push(lan.proxy.reader(HOME, &format!("client-{n}")).await);
        }
        for (code, connack) in [("7Kq2xW9q", 5), (CODE, 3)] {
            let mut stream = lan.proxy.tls_from(other(6)).await.unwrap();
            let password = Some(code.as_bytes());
            let hello = Hello { id: "newcomer", password, ..Hello::default() };
            stream.write_all(&hello_bytes(&hello)).await.unwrap();
            // With rustls an end without close_notify would be an error.
            let mut all = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap().expect("close_notify");
            assert_eq!(all, [0x20, 2, 0, connack], "{code}");
        }
        lan.is_well().await;
    });
}

#[test]
fn guessing_codes_locks_out_one_address_with_one_log_line() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        let guess = |code: String| {
            let lan = &lan;
            async move {
                let Ok(stream) = lan.proxy.tls_from(other(3)).await else { return false };
                let hello = Hello { password: Some(code.as_bytes()), ..Hello::default() };
                let mut guesser = stream;
                if guesser.write_all(&hello_bytes(&hello)).await.is_err() {
                    return false;
                }
                let mut answer = [0; 4];
                timeout(PATIENCE, guesser.read_exact(&mut answer)).await.unwrap().is_ok()
                    && answer == [0x20, 2, 0, 5]
            }
        };
        let mut answered = 0;
        for n in 10..50 {
            answered += usize::from(guess(format!("7Kq2xW{n}")).await);
        }
        assert_eq!(answered, 5);
        assert!(!guess(CODE.to_owned()).await, "the right code comes too late");
        let log = &lan.proxy.program;
        log.line("127.0.0.3: locked out for").await;
        lan.is_well().await;
        let log = &lan.proxy.program;
        assert_eq!(log.lines_with("locked out for"), 1, "{}", log.log());
        assert_eq!(
            log.lines_with("127.0.0.3"),
            3,
            "one line for the guesses, one lock, one refusal:\n{}",
            log.log()
        );
        for code in [CODE, "7Kq2xW"] {
            assert!(!log.log().contains(code), "a code is in the log:\n{}", log.log());
        }
    });
}

/// A device that keeps an old access code, at the same address as a slicer that has the right one.
#[test]
fn one_old_code_locks_nothing_and_fills_no_log() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        let old = hello_bytes(&Hello { password: Some(b"87654321"), ..Hello::default() });
        for _ in 0..20 {
            let mut device = lan.proxy.tls_from(HOME).await.unwrap();
            device.write_all(&old).await.unwrap();
            let mut answer = [0; 4];
            timeout(PATIENCE, device.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer, [0x20, 2, 0, 5]);
        }
        let _slicer = lan.proxy.reader(HOME, "slicer").await;
        lan.is_well().await;
        let log = &lan.proxy.program;
        assert_eq!(log.lines_with("wrong access code"), 1, "{}", log.log());
        assert_eq!(log.lines_with("locked out"), 0, "{}", log.log());
    });
}

/// Issue 14, B20: a hundred connections of the same address that never complete a ClientHello.
#[test]
fn mosquitto_gets_in_beside_a_hundred_silent_connections() {
    if is_missing("mosquitto_sub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::P1S).await;
        let mut silent = Vec::new();
        for n in 0..100 {
            let mut stream = lan.proxy.tcp_from(HOME).await.unwrap();
            if n % 2 == 0 {
                // A connection may be closed in favour of a newer one.
                let _closed = stream.write_all(&client_hello()[..60]).await;
            }
            silent.push(stream);
        }
        let ca = lan.proxy.dir.file("ca.pem");
        let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", &ca, CODE);
        reader.args(["-t", "device/+/report", "-C", "1"]);
        let (code, said) = Program::start(&mut reader).ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        assert!(is_state(&said.out));
        let log = &lan.proxy.program;
        assert_eq!(log.lines_with("timed out"), 0, "it waited for no timeout: {}", log.log());
        drop(silent);
    });
}

#[test]
fn parallel_guesses_count_like_sequential_ones() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        // The connections wait at the acceptor while the first of them use up the guesses.
        let mut guessers = Vec::new();
        for _ in 0..16 {
            guessers.push(lan.proxy.tcp_from(other(3)).await.unwrap());
        }
        let mut answered = 0;
        for (n, tcp) in guessers.into_iter().enumerate() {
            let code = format!("7Kq2xW{n:02}");
            let hello = Hello { password: Some(code.as_bytes()), ..Hello::default() };
            let hello = hello_bytes(&hello);
            let Ok(mut guesser) = lan.proxy.tls_over(tcp).await else { continue };
            let _cut = guesser.write_all(&hello).await;
            let mut answer = [0; 4];
            let heard = timeout(PATIENCE, guesser.read_exact(&mut answer)).await.unwrap();
            answered += usize::from(heard.is_ok() && answer == [0x20, 2, 0, 5]);
        }
        let most = 5 + BOARD.pre_auth_per_address - 1;
        assert!((5..=most).contains(&answered), "{answered} guesses");
        lan.is_well().await;
    });
}

#[test]
fn a_client_that_never_reads_is_closed_and_slows_no_other() {
    proxy::run(async {
        let mut lan = Lan::of(Printer::new(Model::P1S).code(CODE).quiet()).await;
        let tcp = lan.proxy.tcp_from(other(4)).await.unwrap();
        SockRef::from(&tcp).set_recv_buffer_size(4096).unwrap();
        let stream = lan.proxy.tls_over(tcp).await.unwrap();
        let mut deaf = Client::over(stream);
        let hello = Hello { id: "deaf", password: Some(CODE.as_bytes()), ..Hello::default() };
        assert_eq!(deaf.connect(&hello).await, 0);
        assert_eq!(deaf.subscribe(&[("#", 0)]).await, [0]);
        for number in 0..60 {
            assert_eq!(lan.printer.large(30_000), 1);
            // No wait is needed: a message has arrived before the next one is sent.
            let mark = format!("{{\"print\":{{\"command\":\"m{number}\"}}}}");
            assert_eq!(lan.printer.report(mark.as_bytes()), 1);
            let heard = lan.good.report_where(|report| report == mark.as_bytes());
            timeout(Duration::from_secs(10), heard).await.expect("others are not slowed");
        }
        lan.proxy.program.line("(127.0.0.4): client disconnected: write timed out after 5 s").await;
        let mut stream = deaf.into_stream();
        assert!(is_closed(&mut stream).await);
        lan.is_well().await;
    });
}

#[test]
fn a_client_that_violates_mqtt_is_closed_alone() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        let hello = Hello { id: "rude", password: Some(CODE.as_bytes()), ..Hello::default() };
        for (rude, words) in [
            (vec![0x30, 0xff, 0xff, 0xff, 0x7f], "packet of 268435460 bytes"),
            (vec![0x30, 0xff, 0xff, 0xff, 0xff], "malformed packet"),
            (hello_bytes(&hello), "unexpected packet type"),
            (vec![0x20, 2, 0, 0], "unexpected packet type"),
            (vec![0xf0, 0], "malformed packet"),
        ] {
            let stream = lan.proxy.tls_from(other(6)).await.unwrap();
            let mut client = Client::over(stream);
            assert_eq!(client.connect(&hello).await, 0);
            client.send(&rude).await.unwrap();
            let said = lan.proxy.program.line(words);
            assert!(client.is_closed().await, "{words}");
            assert!(said.await.contains("127.0.0.6"), "{words}");
        }
        lan.is_well().await;
    });
}

// ---- a printer that is not as it should be -----------------------------------------------------

/// Guards: bambuddy#2698: a wrong code and a printer that is off look the same.
#[test]
fn each_printer_fault_has_a_log_line_with_a_hint() {
    proxy::run(async {
        let mut lines = Vec::new();
        for (printer, more, words) in [
            (
                Printer::new(Model::P1S).code("87654321"),
                &[][..],
                ["the printer refuses the access code", "compare it with the one on the printer's"],
            ),
            (
                Printer::new(Model::X1C).code(CODE).stranger(),
                &[],
                ["the printer's certificate is rejected", "not signed by the authority it names"],
            ),
            (
                Printer::new(Model::P1S).code(CODE).certificate_of(Model::X1C),
                &[],
                ["issued to printer 00M00A2B0700218", "correct --serial-number"],
            ),
            (
                Printer::new(Model::X1C).code(CODE),
                &["--printer-ip", "no-such-printer.invalid"],
                ["the printer's name cannot be resolved", "give its address instead"],
            ),
        ] {
            let (address, _serving) = switch_on(&printer, loopback(1)).await;
            let dir = StateDir::new();
            let mut args = usual(&printer, address, &dir);
            if let [option, value] = more {
                let at = args.iter().position(|arg| arg == option).unwrap();
                args[at + 1] = (*value).to_owned();
            }
            let proxy = Proxy::start(command(args), dir).await;
            let line = proxy.program.line(words[0]).await;
            assert!(line.contains(words[1]), "{line}");
            assert!(!proxy.program.log().contains(CODE));
            lines.push(line);
        }
        let printer = Printer::new(Model::P1S).code(CODE);
        let closed = Refusing::new();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, closed.port()));
        let proxy = Proxy::before(&printer, address, &[]).await;
        let line = proxy.program.line("; it is still starting, or LAN mode is off").await;
        assert!(line.contains("LAN mode is off"), "{line}");
        lines.push(line);
        let serial = ["-s", Model::A1Mini.serial()];
        let (address, _serving) = switch_on(&printer, loopback(1)).await;
        let dir = StateDir::new();
        let mut args = usual(&printer, address, &dir);
        let at = args.iter().position(|arg| arg == serial[0]).unwrap();
        args[at + 1] = serial[1].to_owned();
        let proxy = Proxy::start(command(args), dir).await;
        let line = proxy.program.line("issued to printer 01P00A3C1200417").await;
        lines.push(line);

        let kinds = lines.len();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), kinds, "{lines:#?}");
    });
}

#[test]
fn a_printer_that_never_answers_is_logged_as_off() {
    proxy::run(async {
        // A full backlog drops new connections, as an address without a machine does.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&loopback(1).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _fills = TcpStream::connect(address).await.unwrap();
        let proxy = Proxy::before(&Printer::new(Model::P1S), address, &[]).await;
        let line = proxy.program.line("the printer does not answer").await;
        assert!(line.contains("is it switched on, and is this its address?"), "{line}");
    });
}

#[test]
fn insecure_printer_is_logged_at_each_connection() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE).stranger();
        let (address, _serving) = switch_on(&printer, loopback(1)).await;
        let proxy = Proxy::before(&printer, address, &["--insecure-printer"]).await;
        proxy.live().await;
        let mut reader = proxy.reader(HOME, "reader").await;
        reader.report().await;
        printer.reboot(Duration::from_millis(200));
        proxy.program.lines("the printer is connected", 2).await;
        assert!(proxy.program.lines_with("certificate not verified (--insecure-printer)") >= 2);
    });
}

#[test]
fn real_clients_stay_through_a_reboot_and_get_the_state_after() {
    proxy::run(async {
        let mut lan = Lan::of(Printer::new(Model::P1S).code(CODE).quiet()).await;
        lan.printer.reboot(Duration::from_millis(500));
        lan.proxy.program.lines("the printer is connected", 2).await;
        let again = lan.good.report_where(is_state);
        timeout(PATIENCE, again).await.expect("the state, unasked");
        assert_eq!(
            lan.proxy.program.lines_with("client connected"),
            1,
            "it is the same connection"
        );
        lan.is_well().await;
    });
}

#[test]
fn a_printer_switched_on_after_the_proxy_is_found() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let place = Ipv4Addr::new(127, 9, 0, 9);
        let address = SocketAddr::from((place, *ports::block(&[place]).start()));
        let proxy = Proxy::before(&printer, address, &[]).await;
        proxy.program.line("; it is still starting, or LAN mode is off").await;
        let (_, _serving) = switch_on(&printer, address).await;
        proxy.live().await;
        proxy.reader(HOME, "late").await.report().await;
    });
}

// ---- the end -----------------------------------------------------------------------------------

#[test]
fn sigterm_ends_every_connection_in_order() {
    proxy::run(async {
        let mut lan = Lan::new(Model::P1S).await;
        lan.proxy.program.signal("TERM");
        // With rustls an end without close_notify would be an error.
        let mut stream = lan.good.into_stream();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().expect("close_notify");
        let (code, said) = lan.proxy.program.ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        assert!(lan.printer.until(PATIENCE, |printer| printer.open() == 0).await);
        assert_eq!((lan.printer.orderly(), lan.printer.disorderly()), (1, 0), "DISCONNECT");
    });
}

// ---- the network -------------------------------------------------------------------------------

/// A printer, the program before it, and a client that behaves and has to be served throughout.
pub(crate) struct Lan {
    printer: Printer,
    pub(crate) proxy: Proxy,
    good: Client<TlsStream<TcpStream>>,
    marks: u32,
    _serving: JoinHandle<()>,
}

impl Lan {
    pub(crate) async fn new(model: Model) -> Self {
        Self::of(Printer::new(model).code(CODE)).await
    }

    async fn of(printer: Printer) -> Self {
        let (address, serving) = switch_on(&printer, loopback(1)).await;
        let proxy = Proxy::before(&printer, address, &[]).await;
        proxy.live().await;
        let mut good = proxy.reader(HOME, "good").await;
        // From here on a new client gets the state first.
        good.report_where(is_state).await;
        Self { printer, proxy, good, marks: 0, _serving: serving }
    }

    /// The good client still gets the printer's reports, over the one connection that there ever was,
    /// and the program holds no more than it may.
    async fn is_well(&mut self) {
        self.marks += 1;
        let mark = format!("{{\"print\":{{\"command\":\"mark-{}\"}}}}", self.marks);
        assert_eq!(self.printer.report(mark.as_bytes()), 1);
        let heard = self.good.report_where(|report| report == mark.as_bytes());
        timeout(PATIENCE, heard).await.expect("the good client is served");
        assert_eq!(self.printer.most_open(), 1);
        self.proxy.check_memory();
    }

    /// Sends a request that is like no other, and waits until the printer has it.
    async fn marked_request(&self, mark: &str) {
        let hello = Hello { id: mark, password: Some(CODE.as_bytes()), ..Hello::default() };
        let mut client = Client::over(self.proxy.tls_from(HOME).await.unwrap());
        assert_eq!(client.connect(&hello).await, 0);
        client.publish(&self.printer.request_topic(), mark.as_bytes(), 1, 1).await;
        let arrived = |printer: &Printer| {
            printer.requests().iter().any(|request| request.payload == mark.as_bytes())
        };
        assert!(self.printer.until(PATIENCE, arrived).await, "{mark}");
        client.disconnect().await;
    }
}

/// One of mosquitto's programs, on its way to the proxy.
pub(crate) fn mosquitto(proxy: &Proxy, program: &str, ca: &Path, code: &str) -> Command {
    let mut command = Command::new(program);
    let port = proxy.address.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-u", "bblp", "-P", code, "--cafile"]);
    command.arg(ca);
    command
}

/// The address of another machine: one of the loopback network.
const fn other(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

/// An address for a printer, whose port no other program takes meanwhile.
fn loopback(number: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 9, 0, number), 0))
}

/// Whether a report is a full state.
fn is_state(report: &[u8]) -> bool {
    let report: serde_json::Value = serde_json::from_slice(report).unwrap();
    report["print"]["gcode_state"].is_string() && report["print"]["msg"] == 0
}

pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether the proxy closes, whatever it sends before.
async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut piece = [0; 4096];
    let over = async { while !matches!(stream.read(&mut piece).await, Ok(0) | Err(_)) {} };
    timeout(PATIENCE, over).await.is_ok()
}

/// The certificates that are shown, each as PEM.
async fn served_chain(address: SocketAddr) -> Vec<String> {
    let mut ask = Command::new("openssl");
    ask.args(["s_client", "-showcerts", "-connect", &address.to_string()]);
    let (_, said) = Program::start(&mut ask).ended().await;
    let out = String::from_utf8_lossy(&said.out).into_owned();
    let end = "-----END CERTIFICATE-----\n";
    out.split_inclusive(end)
        .filter_map(|part| Some(part[part.find("-----BEGIN CERTIFICATE-----")?..].to_owned()))
        .filter(|part| part.ends_with(end))
        .collect()
}

/// The first record of a handshake, as rustls would send it.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3];
    hello.resize(5 + 256, 0x11);
    hello
}
