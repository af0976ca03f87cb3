//! Port 8080 in virtual time: what each path shows to whom, and what bad clients cost.

mod media;
pub(crate) mod metrics;

use core::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pandaproxy::board::BOARD;
use pandaproxy::http::CLIENTS;
use pandaproxy::http::client::{IDLE_TIMEOUT, LINGER_TIMEOUT, REQUEST_TIMEOUT};
use pandaproxy::http::wire::{MAX_HEAD, MAX_HEADERS, MAX_TARGET};
use pandaproxy::journal::Kind;
use pandaproxy::runtime::launch::Proxy;
use pandaproxy::runtime::stream::WRITE_TIMEOUT;
use printer::{Model, Printer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::bind::serves_mqtt;
use crate::clients::mqtt::{Client as MqttClient, Hello};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::start;
use crate::lan::{self, CODE, Tally, WIRE, journal_says, ms, pass, secs};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

const SERIAL: &str = Model::P1S.serial();

const TOKEN: &str = "wall-display-7";

const VIEW: &str = "view-0815";

/// Paths that need no code.
const OPEN: [&str; 6] = ["/livez", "/readyz", "/", "/ca.pem", "/trust.sh", "/trust.ps1"];

/// Paths that need a code.
const CLOSED: [&str; 3] = ["/status", "/status.txt", "/metrics"];

/// A P1S with MQTT, and the proxy before it.
struct Bed {
    net: SimNet,
    proxy: Proxy,
    printer: Printer,
}

impl Bed {
    /// With MQTT logged in.
    async fn new() -> Self {
        let bed = Self::with(&["--services=mqtt,http"]);
        pass(secs(5)).await;
        bed
    }

    fn with(more: &[&str]) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(Model::P1S).quiet());
        let serving = printer.clone();
        let serve = move |stream| {
            let printer = serving.clone();
            spawn_local(async move { printer.serve(stream).await });
        };
        net.put(8883, Port::new(At::Script(Rc::new(serve))));
        let codes = ["--view-code", VIEW, "--http-token", TOKEN];
        let proxy = start(&net, SERIAL, CODE, &[more, &codes].concat());
        Self { net, proxy, printer }
    }

    fn connect_from(&self, from: IpAddr) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(8080, from, far), "the port is open");
        near
    }

    fn connect(&self) -> DuplexStream {
        self.connect_from(HERE)
    }

    /// The answer to a request with these header lines, on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream, request.starts_with("HEAD")).await
    }

    /// The answer to GET without a code.
    async fn get(&self, path: &str) -> Answer {
        self.ask(&get(path, "")).await
    }

    /// The answer to GET with the access code.
    async fn get_with_code(&self, path: &str) -> Answer {
        self.ask(&get(path, &basic("bblp", CODE))).await
    }

    async fn status(&self) -> Value {
        let answer = self.get_with_code("/status").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn serves_mqtt(&self) {
        serves_mqtt(&self.net, &self.printer).await;
    }
}

pub(crate) fn basic(user: &str, code: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{code}")))
}

pub(crate) fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:8080\r\n{fields}\r\n")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// Reads one answer as a browser does.
    pub(crate) async fn read(stream: &mut DuplexStream, is_head: bool) -> Self {
        timeout(secs(60), Self::take(stream, is_head)).await.expect("an answer comes")
    }

    async fn take(stream: &mut DuplexStream, is_head: bool) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head is whole"));
        }
        let head = String::from_utf8(head).unwrap();
        let mut answer = Self { status: 0, head, body: Vec::new() };
        answer.status = answer.head.split(' ').nth(1).unwrap().parse().unwrap();
        if is_head {
            return answer;
        }
        if answer.field("Transfer-Encoding") == Some("chunked") {
            loop {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    line.push(stream.read_u8().await.unwrap());
                }
                let len = core::str::from_utf8(&line).unwrap().trim();
                let mut chunk = vec![0; usize::from_str_radix(len, 16).unwrap() + 2];
                stream.read_exact(&mut chunk).await.unwrap();
                assert!(chunk.ends_with(b"\r\n"));
                if chunk.len() == 2 {
                    return answer;
                }
                answer.body.extend_from_slice(&chunk[..chunk.len() - 2]);
            }
        }
        match answer.field("Content-Length") {
            Some(len) => {
                answer.body = vec![0; len.parse().unwrap()];
                stream.read_exact(&mut answer.body).await.unwrap();
            }
            None => {
                stream.read_to_end(&mut answer.body).await.unwrap();
            }
        }
        answer
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }
}

/// Everything up to the end of the connection.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(secs(200), stream.read_to_end(&mut rest)).await.expect("the proxy closes").unwrap();
    rest
}

// ---- what is shown ---------------------------------------------------------------------------------

#[test]
fn open_paths_need_no_code_and_show_no_data() {
    lan::run(async {
        let bed = Bed::new().await;
        for path in OPEN {
            let answer = bed.get(path).await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.body.is_empty(), "{path}");
            // The page is compressed.
            let text = String::from_utf8_lossy(&answer.body);
            for secret in [CODE, SERIAL, VIEW, TOKEN] {
                assert!(!text.contains(secret), "{path}");
            }
            assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"), "{path}");
        }
        let page = bed.get("/").await;
        assert!(page.field("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
        assert_eq!(bed.get("/livez").await.text(), "alive\n");
        assert!(bed.get("/ca.pem").await.text().starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(bed.get("/trust.sh").await.text().starts_with("#!"));
        assert_eq!(bed.get("/nothing").await.status, 404);
    });
}

#[test]
fn other_paths_need_the_code_the_view_code_or_the_token() {
    lan::run(async {
        let bed = Bed::new().await;
        for path in CLOSED {
            let answer = bed.get(path).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.field("WWW-Authenticate").unwrap().starts_with("Basic realm="));
            let fields = [
                basic("bblp", CODE),
                basic("anyone", VIEW),
                format!("Authorization: Bearer {TOKEN}\r\n"),
            ];
            for field in fields {
                let answer = bed.ask(&get(path, &field)).await;
                assert_eq!(answer.status, 200, "{path} {field}");
                assert_eq!(answer.field("Cache-Control"), Some("no-store"));
                assert!(!answer.text().contains(CODE), "{path}");
            }
            assert_eq!(bed.get(&format!("{path}?token={TOKEN}")).await.status, 200, "{path}");
        }
        assert_eq!(bed.get(&format!("/status?token={CODE}")).await.status, 401, "in no URL");
        for path in ["/snapshot.jpg", "/stream.mjpg", "/stream.mp4", "/?action=stream"] {
            assert_eq!(bed.get(path).await.status, 401, "{path}");
        }
    });
}

#[test]
fn status_tells_printer_services_clients_and_events() {
    lan::run(async {
        let bed = Bed::new().await;
        let (near, far) = duplex(WIRE);
        assert!(bed.net.arrive(8883, IpAddr::from([10, 9, 0, 7]), far));
        let _reader = MqttClient::subscribed(near, "Home \"Assistant\"", "#").await;
        pass(secs(70)).await;
        let status = bed.status().await;
        assert_eq!(status["ready"], true);
        assert_eq!(status["not_ready"], json!([]));
        assert_eq!(status["board"], BOARD.name);
        assert_eq!(status["uptime_s"], 75);
        let printer = &status["printer"];
        assert_eq!((&printer["serial"], &printer["model"]), (&json!(SERIAL), &json!("P1S")));
        assert_eq!((&printer["reachable"], &printer["code"]), (&json!(true), &json!("accepted")));
        assert!(printer["firmware"].as_str().unwrap().starts_with("01."), "{printer}");
        assert!(printer["wifi_signal_dbm"].as_i64().unwrap() < 0, "{printer}");
        assert_eq!(status["proxy"]["address"], "10.1.2.3");
        assert_eq!(status["proxy"]["ca_sha256"].as_str().unwrap().len(), 95);
        let services = status["services"].as_array().unwrap();
        let names: Vec<_> = services.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["mqtt", "http"]);
        let mqtt = &services[0];
        assert_eq!((&mqtt["upstream"], &mqtt["reason"]), (&json!("connected"), &Value::Null));
        assert_eq!((&mqtt["port"], &mqtt["transport"]), (&json!(8883), &json!("tls")));
        assert_eq!((&mqtt["clients"], &mqtt["limit"]), (&json!(1), &json!(BOARD.clients.mqtt)));
        let connection = &mqtt["connections"][0];
        assert_eq!(connection["address"], "10.9.0.7");
        assert_eq!(
            (&connection["id"], &connection["since_s"]),
            (&json!("Home \"Assistant\""), &json!(70))
        );
        assert_eq!(services[1]["clients"], 1, "this one");
        assert!(status["memory"]["heap_limit_bytes"].as_u64().unwrap() > 1_000_000);
        let first = status["events"][0]["text"].as_str().unwrap();
        assert!(first.contains("mqtt 1 (10.9.0.7): client connected"), "{first}");
    });
}

#[test]
fn every_service_is_listed_with_its_clients() {
    lan::run(async {
        let services = "--services=mqtt,camera,ftp,detect,ssdp,http";
        for (model, expected) in [
            (Model::P1S, "mqtt chamber rtsp:closed ftp detect detect-tls ssdp http"),
            (Model::X1C, "mqtt rtsp ftp tunnel detect detect-tls ssdp http"),
        ] {
            let net = SimNet::new();
            let proxy = start(&net, model.serial(), CODE, &[services]);
            pass(secs(20)).await;
            let (mut near, far) = duplex(WIRE);
            assert!(net.arrive(3000, IpAddr::from([10, 9, 0, 3]), far));
            near.write_all(b"\xa5\xa5").await.unwrap();
            pass(secs(1)).await;
            let (mut stream, far) = duplex(WIRE);
            assert!(net.arrive(8080, HERE, far));
            stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            let status: Value = serde_json::from_slice(&answer.body).unwrap();
            let services = status["services"].as_array().unwrap();
            let names: Vec<_> = services
                .iter()
                .map(|service| {
                    let closed = if service["open"] == true { "" } else { ":closed" };
                    format!("{}{closed}", service["name"].as_str().unwrap())
                })
                .collect();
            assert_eq!(names.join(" "), expected);
            // Also while the printer is off, with both cameras' ports closed.
            let camera = if model == Model::P1S { "chamber" } else { "rtsp" };
            assert_eq!(status["printer"]["camera"], camera);
            let detect = services.iter().find(|service| service["name"] == "detect").unwrap();
            assert_eq!(detect["connections"][0]["address"], "10.9.0.3");
            let ssdp = services.iter().find(|service| service["name"] == "ssdp").unwrap();
            assert_eq!((&ssdp["transport"], &ssdp["limit"]), (&json!("udp"), &json!(0)));
            proxy.stop().await;
        }
    });
}

#[test]
fn ready_only_while_mqtt_is_logged_in() {
    lan::run(async {
        let bed = Bed::with(&["--services=mqtt,http"]);
        let answer = bed.get("/readyz").await;
        assert_eq!((answer.status, answer.text()), (503, "mqtt: connecting to the printer\n"));
        pass(secs(5)).await;
        let answer = bed.get("/readyz").await;
        assert_eq!((answer.status, answer.text()), (200, "ready\n"));
        bed.printer.reboot(secs(600));
        pass(secs(60)).await;
        let answer = bed.get("/readyz").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().starts_with("mqtt: "), "{}", answer.text());
        assert_eq!(bed.get("/livez").await.status, 200);
        let status = bed.status().await;
        assert_eq!(
            (&status["ready"], &status["services"][0]["upstream"]),
            (&json!(false), &json!("failing"))
        );
        assert_eq!(status["not_ready"].as_array().unwrap().len(), 1);
        assert!(status["services"][0]["reason"].is_string());
    });
}

#[test]
fn status_is_whole_with_every_slot_in_use() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut readers = Vec::new();
        for n in 0..BOARD.clients.mqtt {
            let (near, far) = duplex(WIRE);
            assert!(bed.net.arrive(8883, IpAddr::from([10, 9, 1, n as u8]), far));
            readers
                .push(MqttClient::subscribed(near, &format!("{n}{}", "\"".repeat(60)), "#").await);
        }
        let status = bed.status().await;
        let connections = status["services"][0]["connections"].as_array().unwrap();
        assert_eq!(connections.len(), BOARD.clients.mqtt);
        // HTTP/1.0 knows no chunks: the content ends with the connection.
        let request = format!("GET /status HTTP/1.0\r\n{}\r\n", basic("bblp", CODE));
        let answer = bed.ask(&request).await;
        assert_eq!(answer.field("Transfer-Encoding"), None);
        let again: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(again["services"][0]["clients"], BOARD.clients.mqtt);
    });
}

// ---- the protocol ----------------------------------------------------------------------------------

#[test]
fn head_has_the_head_of_get_alone() {
    lan::run(async {
        let bed = Bed::new().await;
        for path in OPEN.into_iter().chain(CLOSED) {
            let fields = basic("bblp", CODE);
            let whole = bed.ask(&get(path, &fields)).await;
            let mut stream = bed.connect();
            let request = get(path, &fields).replace("GET", "HEAD");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, true).await;
            assert_eq!(answer.head, whole.head, "{path}");
            // The next byte is that of the next answer.
            stream.write_all(get("/livez", "").as_bytes()).await.unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.text(), "alive\n", "{path}");
        }
    });
}

/// Also where the connection ends.
#[test]
fn no_answer_to_head_has_content() {
    lan::run(async {
        let bed = Bed::new().await;
        let foreign = "HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned();
        let origin = get("/", "Origin: http://evil.example\r\n").replace("GET", "HEAD");
        let wrong = get("/status?token=wrong-token", "").replace("GET", "HEAD");
        let picture = get("/snapshot.jpg", &basic("bblp", CODE)).replace("GET", "HEAD");
        for (request, status) in [(foreign, 421), (origin, 403), (wrong, 401), (picture, 404)] {
            let mut stream = bed.connect();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, true).await;
            assert_eq!(answer.status, status, "{request}");
            assert!(answer.field("Content-Length") > Some("0"), "{request}");
            assert_eq!(rest(&mut stream).await, b"", "{request}");
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect();
        let code = basic("bblp", CODE);
        let paths = ["/livez", "/status", "/nothing", "/metrics", "/", "/readyz"];
        let requests: String = paths.iter().map(|path| get(path, &code)).collect();
        for byte in requests.bytes() {
            stream.write_all(&[byte]).await.unwrap();
        }
        for (path, status) in paths.into_iter().zip([200, 200, 404, 200, 200, 200]) {
            assert_eq!(Answer::read(&mut stream, false).await.status, status, "{path}");
        }
    });
}

#[test]
fn connections_stay_open_for_a_while() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect();
        let since = Instant::now();
        for _ in 0..5 {
            stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.status, 200);
            pass(secs(60)).await;
        }
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(since.elapsed(), secs(240) + IDLE_TIMEOUT);
        // Without a code there is less patience.
        let (mut stream, since) = (bed.connect(), Instant::now());
        stream.write_all(get("/livez", "").as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 200);
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(since.elapsed(), REQUEST_TIMEOUT);
        let mut stream = bed.connect();
        stream.write_all(get("/livez", "Connection: close\r\n").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        assert_eq!(answer.field("Connection"), Some("close"));
        assert_eq!(rest(&mut stream).await, b"");
    });
}

/// ab and old curl ask so.
#[test]
fn http_1_0_is_told_that_its_connection_stays() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect();
        for _ in 0..3 {
            stream
                .write_all(b"GET /livez HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                .await
                .unwrap();
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(
                (answer.text(), answer.field("Connection")),
                ("alive\n", Some("keep-alive"))
            );
        }
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.field("Connection"), Some("close"));
        assert_eq!(bed.get("/livez").await.field("Connection"), None);
    });
}

#[test]
fn bad_requests_after_the_login_fill_no_log() {
    lan::run(async {
        let bed = Bed::new().await;
        let from = IpAddr::from([10, 9, 6, 1]);
        let malformed = Tally::of(Kind::Malformed);
        for _ in 0..50 {
            let mut stream = bed.connect_from(from);
            stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.status, 200);
            stream.write_all(b"\0\r\n\r\n").await.unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.status, 400);
            drop(stream);
            pass(ms(10)).await;
        }
        assert_eq!(malformed.now(), 50);
        let status = bed.status().await;
        let events = status["events"].as_array().unwrap().iter();
        let lines = events.filter(|event| event["text"].as_str().unwrap().contains("10.9.6.1"));
        assert_eq!(lines.count(), 1);
    });
}

#[test]
fn a_browser_is_shown_by_its_name() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect_from(IpAddr::from([10, 9, 6, 2]));
        let agent = "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
                     (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0\r\n";
        let fields = format!("{agent}{}", basic("bblp", CODE));
        stream.write_all(get("/status", &fields).as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(status["services"][1]["connections"][0]["id"], "Edg/140.0.0.0");
    });
}

#[test]
fn what_is_no_request_gets_its_status_and_one_line() {
    let long = get(&format!("/{}", "x".repeat(MAX_TARGET)), "");
    let endless = format!("GET /{}", "x".repeat(MAX_HEAD));
    let head = get("/", &format!("X: {}\r\n", "x".repeat(MAX_HEAD)));
    let many = get("/", &"A: b\r\n".repeat(MAX_HEADERS));
    let body = |method: &str, fields: &str| {
        format!("{method} /status HTTP/1.1\r\nHost: 10.1.2.3\r\n{fields}\r\n{}", "x".repeat(1000))
    };
    let put = body("PUT", "Content-Length: 1000\r\n");
    let post = body("POST", "Transfer-Encoding: chunked\r\n");
    let with_body = body("GET", "Content-Length: 1000\r\n");
    let chunked = body("GET", "Transfer-Encoding: chunked\r\n");
    for (n, (request, status, said)) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2 without TLS"),
        ("GET / HTTP/3.0\r\n\r\n", 505, "unsupported HTTP version"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "malformed request"),
        ("\0\0\0\0\0\0", 400, "malformed request"),
        ("DESCRIBE rtsp://x/ RTSP/1.0\r\n\r\n", 505, "unsupported HTTP version"),
        ("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unknown method"),
        (&put, 405, "method not allowed"),
        (&post, 405, "method not allowed"),
        (&with_body, 413, "request with a body"),
        (&chunked, 413, "request with a body"),
        (&long, 414, "request path too long"),
        (&endless, 414, "request path too long"),
        (&head, 431, "request head too long"),
        (&many, 431, "request head too long"),
    ]
    .into_iter()
    .enumerate()
    {
        // Lines about one address are rate-limited.
        let from = IpAddr::from([10, 9, 2, n as u8]);
        lan::run(async {
            let bed = Bed::new().await;
            let mut stream = bed.connect_from(from);
            let since = Instant::now();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(answer.status, status, "{request:?}");
            assert_eq!(answer.field("Connection"), Some("close"), "{request:?}");
            assert_eq!(answer.field("Allow").is_some(), status == 405);
            assert_eq!(rest(&mut stream).await, b"", "{request:?}");
            assert_eq!(since.elapsed(), LINGER_TIMEOUT, "{request:?}");
            assert!(journal_says(said), "{request:?}");
            bed.serves_mqtt().await;
        });
    }
}

#[test]
fn tls_on_the_port_is_named_in_the_log() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect_from(IpAddr::from([10, 9, 3, 1]));
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        assert!(journal_says("TLS on the port without TLS; the address begins with http://"));
    });
}

// ---- bad clients -----------------------------------------------------------------------------------

#[test]
fn wrong_codes_are_counted_and_lock_the_address_out() {
    lan::run(async {
        let bed = Bed::new().await;
        let (locked, wrong) = (Tally::of(Kind::LockedOut), Tally::of(Kind::WrongCode));
        // One old code locks no address out, however often it comes.
        for _ in 0..20 {
            assert_eq!(bed.ask(&get("/status", &basic("bblp", "00000000"))).await.status, 401);
        }
        pass(secs(1)).await;
        assert_eq!(locked.now(), 0);
        assert!(wrong.now() > 0);
        assert!(journal_says("wrong access code"));
        let mut answers = Vec::new();
        for n in 0..8 {
            let answer = bed.ask(&get("/status", &basic("bblp", &format!("wrong-{n}")))).await;
            answers.push(answer.status);
            pass(ms(10)).await;
        }
        assert_eq!(locked.now(), 1);
        assert_eq!((answers[0], answers[7]), (401, 429));
        let answer = bed.get_with_code("/status").await;
        assert_eq!((answer.status, answer.field("Retry-After")), (429, Some("60")));
        assert_eq!(bed.get("/livez").await.status, 200);
        let other = IpAddr::from([10, 9, 0, 77]);
        let mut stream = bed.connect_from(other);
        stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 200);
        pass(secs(61)).await;
        assert_eq!(bed.get_with_code("/status").await.status, 200);
    });
}

/// A page polls over one connection, which its browser keeps.
#[test]
fn a_lockout_ends_for_a_connection_that_stays() {
    lan::run(async {
        let bed = Bed::new().await;
        lock_out(&bed).await;
        let mut page = bed.connect();
        for _ in 0..12 {
            assert_eq!(ask_on(&mut page, &basic("bblp", CODE)).await, 429);
            pass(secs(5)).await;
        }
        pass(secs(1)).await;
        assert_eq!(ask_on(&mut page, &basic("bblp", CODE)).await, 200);
    });
}

#[test]
fn connections_from_before_a_lockout_have_no_guesses_left() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut connections = Vec::new();
        for _ in 0..6 {
            let mut stream = bed.connect();
            assert_eq!(ask_on(&mut stream, &basic("x", VIEW)).await, 200);
            connections.push(stream);
        }
        for _ in 0..BOARD.pre_auth_per_address {
            let mut stream = bed.connect();
            stream.write_all(get("/livez", "").as_bytes()).await.unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.status, 200);
            connections.push(stream);
        }
        let (mut judged, mut asked) = (0, 0);
        for stream in &mut connections {
            for _ in 0..2 {
                asked += 1;
                let guess = basic("bblp", &format!("guess-{asked}"));
                judged += usize::from(ask_on(stream, &guess).await == 401);
            }
        }
        assert_eq!((judged, asked), (5, 2 * connections.len()));
    });
}

/// Programs behind one router have one address.
#[test]
fn guesses_of_others_lock_no_signed_in_page_out() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut page = bed.connect();
        assert_eq!(ask_on(&mut page, &basic("bblp", CODE)).await, 200);
        lock_out(&bed).await;
        assert_eq!(bed.get_with_code("/status").await.status, 429);
        assert_eq!(ask_on(&mut page, &basic("bblp", CODE)).await, 200);
        // A reverse proxy may use one connection for several clients.
        assert_eq!(ask_on(&mut page, &basic("bblp", "guess-8")).await, 401);
        assert_eq!(ask_on(&mut page, &basic("bblp", "guess-9")).await, 429);
        assert_eq!(ask_on(&mut page, &basic("bblp", CODE)).await, 429);
    });
}

/// Has the address locked out.
async fn lock_out(bed: &Bed) {
    let locked = Tally::of(Kind::LockedOut);
    for n in 0..5 {
        let answer = bed.ask(&get("/status", &basic("bblp", &format!("wrong-{n}")))).await;
        assert_eq!(answer.status, 401);
    }
    assert_eq!(locked.now(), 1);
}

/// The status of the answer to GET on a connection that stays.
async fn ask_on(stream: &mut DuplexStream, login: &str) -> u16 {
    stream.write_all(get("/status", login).as_bytes()).await.unwrap();
    Answer::read(stream, false).await.status
}

/// A typing error before the view code.
#[test]
fn a_corrected_code_is_no_wrong_code_at_the_end() {
    lan::run(async {
        let bed = Bed::new().await;
        let wrong = Tally::of(Kind::WrongCode);
        let mut stream = bed.connect();
        assert_eq!(ask_on(&mut stream, &basic("x", "view-0851")).await, 401);
        for _ in 0..3 {
            assert_eq!(ask_on(&mut stream, &basic("x", VIEW)).await, 200);
            pass(secs(30)).await;
        }
        drop(stream);
        pass(secs(1)).await;
        assert_eq!(wrong.now(), 0);
    });
}

#[test]
fn a_second_wrong_code_ends_the_connection() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect();
        for (code, stays) in [("1", true), ("1", true), ("2", false)] {
            stream.write_all(get("/status", &basic("bblp", code)).as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(answer.status, 401);
            assert_eq!(answer.field("Connection").is_none(), stays, "{code}");
        }
        assert_eq!(rest(&mut stream).await, b"");
    });
}

/// Any page in a browser can have it load a picture of this service with a wrong token.
#[test]
fn a_wrong_token_in_a_url_locks_out_urls_alone() {
    lan::run(async {
        let bed = Bed::new().await;
        let locked = Tally::of(Kind::LockedOut);
        let url = |token: &str| format!("/snapshot.jpg?token={token}");
        for n in 0..8 {
            let answer = bed.get(&url(&format!("wrong-token-{n}"))).await;
            assert_eq!(answer.status, if n < 5 { 401 } else { 429 }, "{n}");
            assert_eq!(answer.field("Connection"), Some("close"), "{n}");
        }
        pass(ms(10)).await;
        assert_eq!(locked.now(), 1);
        assert!(journal_says("tokens in URLs refused for 60 s after 5 wrong ones"));
        assert_eq!(bed.get(&format!("/status?token={TOKEN}")).await.status, 429);
        assert_eq!(bed.get_with_code("/status").await.status, 200);
        let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(bed.ask(&get("/status", &bearer)).await.status, 200);
        pass(secs(61)).await;
        assert_eq!(bed.get(&format!("/status?token={TOKEN}")).await.status, 200);
    });
}

#[test]
fn pages_of_other_sites_lock_nobody_out() {
    lan::run(async {
        let bed = Bed::new().await;
        let locked = Tally::of(Kind::LockedOut);
        let image = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n";
        let dashboard = "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n";
        let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
        // A dashboard shows pictures with the right token, and links lead here.
        for fields in [image, dashboard, link] {
            for path in ["/status", "/"] {
                let answer = bed.ask(&get(&format!("{path}?token={TOKEN}"), fields)).await;
                assert_eq!(answer.status, 200, "{path} {fields}");
            }
            let code = format!("{fields}{}", basic("bblp", CODE));
            assert_eq!(bed.ask(&get("/status", &code)).await.status, 200, "{fields}");
            assert_eq!(bed.ask(&get("/", fields)).await.status, 200, "{fields}");
            assert_eq!(bed.ask(&get("/status", fields)).await.status, 401, "{fields}");
        }
        for (n, (path, fields, status)) in [
            ("/snapshot.jpg?token=guess-1", image, 403),
            // The script of this page would go on with the token.
            ("/?token=guess-2", dashboard, 403),
            ("/livez?token=guess-3", image, 403),
            ("/?token=guess-4", link, 401),
            ("/status?token=guess-5", link, 401),
            ("/status?token=guess-6", image, 429),
            ("/status?token=wall-display-7", image, 429),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = bed.ask(&get(path, fields)).await;
            assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")), "{n}");
        }
        assert_eq!(locked.now(), 1);
        assert!(journal_says("requests from other sites refused for 60 s"));
        assert!(journal_says("wrong access code or token in a request from a page of another"));
        // Those who come by themselves are served.
        assert_eq!(bed.get(&format!("/status?token={TOKEN}")).await.status, 200);
        assert_eq!(bed.get_with_code("/status").await.status, 200);
        assert_eq!(bed.ask(&get("/", link)).await.status, 200);
        let own = format!("Sec-Fetch-Site: same-origin\r\n{}", basic("bblp", "wrong"));
        assert_eq!(bed.ask(&get("/status", &own)).await.status, 401);
        pass(secs(61)).await;
        assert_eq!(bed.ask(&get("/status?token=wall-display-7", image)).await.status, 200);
    });
}

/// A reverse proxy may ask for a password of its own, and pass it on.
#[test]
fn a_token_works_beside_a_login_that_is_none_of_ours() {
    lan::run(async {
        let bed = Bed::new().await;
        for field in ["Negotiate YII", "Basic !!!", "Basic", "Basic YWRtaW46c2VjcmV0"] {
            let field = format!("Authorization: {field}\r\n");
            let answer = bed.ask(&get(&format!("/status?token={TOKEN}"), &field)).await;
            assert_eq!(answer.status, 200, "{field}");
        }
        let old = "/status?token=an-older-token";
        assert_eq!(bed.ask(&get(old, &basic("bblp", CODE))).await.status, 200);
    });
}

/// Who has the view code could try access codes without end if each login forgave the wrong ones.
#[test]
fn the_view_code_does_not_forgive_wrong_access_codes() {
    lan::run(async {
        let bed = Bed::new().await;
        let locked = Tally::of(Kind::LockedOut);
        for n in 0..6 {
            let mut stream = bed.connect();
            let fields = [basic("x", VIEW), basic("bblp", &format!("guess-{n}"))];
            for field in fields {
                let _sent = stream.write_all(get("/status", &field).as_bytes()).await;
                let _answer = Answer::read(&mut stream, false).await;
            }
            drop(stream);
            pass(ms(10)).await;
        }
        assert_eq!(locked.now(), 1);
    });
}

/// A program that polls shows the right code all the time, perhaps from behind the same router as an attacker.
#[test]
fn a_poll_does_not_undo_a_lockout_at_another_service() {
    lan::run(async {
        let bed = Bed::new().await;
        let locked = Tally::of(Kind::LockedOut);
        for n in 0..6 {
            if n == 3 {
                assert_eq!(bed.get_with_code("/status").await.status, 200);
            }
            let (near, far) = duplex(WIRE);
            assert!(bed.net.arrive(8883, HERE, far));
            let code = format!("guess-{n}");
            let hello = Hello { password: Some(code.as_bytes()), ..Hello::default() };
            assert_ne!(MqttClient::over(near).connect(&hello).await, 0);
        }
        assert_eq!(locked.now(), 1);
    });
}

#[test]
fn hosts_of_others_are_refused() {
    lan::run(async {
        let more = ["--services=mqtt,http", "--advertise-name=printer.example"];
        let bed = Bed::with(&more);
        for (host, status) in [
            ("10.1.2.3", 200),
            ("10.1.2.3:8080", 200),
            ("[fd00::1]:8080", 200),
            ("localhost", 200),
            ("Printer.Example.:8080", 200),
            ("evil.example", 421),
            ("evil.example:8080", 421),
            ("printer.example.evil.example", 421),
            ("10.1.2.3.evil.example", 421),
            ("[evil]", 421),
            ("", 421),
        ] {
            let request = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(bed.ask(&request).await.status, status, "{host}");
        }
        for (origin, status) in
            [("http://10.1.2.3:8080", 200), ("https://evil.example", 403), ("null", 403)]
        {
            let answer = bed.ask(&get("/livez", &format!("Origin: {origin}\r\n"))).await;
            assert_eq!(answer.status, status, "{origin}");
            assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
        }
        assert!(journal_says("request for another host name; --advertise-name adds one"));
    });
}

#[test]
fn slow_requests_end_after_ten_seconds() {
    lan::run(async {
        let bed = Bed::new().await;
        let (mut stream, since) = (bed.connect(), Instant::now());
        let request = get("/status", &format!("X: {}\r\n", "x".repeat(500)));
        for byte in request.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            if since.elapsed() > REQUEST_TIMEOUT {
                break;
            }
            pass(ms(100)).await;
        }
        let answer = Answer::read(&mut stream, false).await;
        assert_eq!(answer.status, 408);
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(since.elapsed(), REQUEST_TIMEOUT + LINGER_TIMEOUT);
        // One that never sends anything is closed without an answer.
        let (mut stream, since) = (bed.connect(), Instant::now());
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(since.elapsed(), REQUEST_TIMEOUT);
    });
}

#[test]
fn a_client_that_never_reads_is_disconnected() {
    lan::run(async {
        let bed = Bed::new().await;
        let (mut near, far) = duplex(256);
        assert!(bed.net.arrive(8080, HERE, far));
        near.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
        let stuck = Tally::of(Kind::Stuck);
        pass(WRITE_TIMEOUT + secs(1)).await;
        assert_eq!(stuck.now(), 1);
        assert_eq!(bed.status().await["services"][1]["clients"], 1, "its slot is free");
    });
}

#[test]
fn a_hundred_browsers_are_served_in_turn() {
    lan::run(async {
        let bed = Rc::new(Bed::new().await);
        let mut tasks = Vec::new();
        for n in 0..100_u8 {
            let bed = Rc::clone(&bed);
            tasks.push(spawn_local(async move {
                // One that is not let in tries again, as a person does.
                for _ in 0..100 {
                    let mut stream = bed.connect_from(IpAddr::from([10, 9, 4, n]));
                    let close = format!("{}Connection: close\r\n", basic("bblp", CODE));
                    let _closed = stream.write_all(get("/status", &close).as_bytes()).await;
                    let mut all = Vec::new();
                    let _ended = timeout(secs(60), stream.read_to_end(&mut all)).await;
                    if all.starts_with(b"HTTP/1.1 200") {
                        return true;
                    }
                    pass(secs(1)).await;
                }
                false
            }));
        }
        for task in tasks {
            assert!(task.await.unwrap());
        }
        bed.serves_mqtt().await;
    });
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut there = Vec::new();
        for n in 0..BOARD.clients.http {
            // One that has not read all of its answer.
            let (mut near, far) = duplex(256);
            assert!(bed.net.arrive(8080, IpAddr::from([10, 9, 5, n as u8]), far));
            near.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
            there.push(near);
        }
        pass(ms(10)).await;
        let mut stream = bed.connect();
        stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        assert_eq!((answer.status, answer.field("Retry-After")), (503, Some("5")));
        drop(stream);
        pass(ms(10)).await;
        assert!(journal_says("slots are in use"));
        assert_eq!(bed.get("/livez").await.status, 200, "there is always a slot for that");
        assert!(there.len() < CLIENTS);
        drop(there);
        pass(secs(3)).await;
        assert_eq!(bed.get_with_code("/status").await.status, 200);
    });
}

/// Browsers and programs that ask now and then keep their connections.
#[test]
fn a_client_that_asks_takes_the_place_of_the_longest_idle_one() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut idle = Vec::new();
        for n in 0..BOARD.clients.http {
            let mut stream = bed.connect_from(IpAddr::from([10, 9, 5, n as u8]));
            assert_eq!(ask_on(&mut stream, &basic("bblp", CODE)).await, 200);
            idle.push(stream);
            pass(secs(1)).await;
        }
        // The first one has asked again, and the second one is in the middle of a request.
        assert_eq!(ask_on(&mut idle[0], &basic("bblp", CODE)).await, 200);
        let request = get("/status", &basic("bblp", CODE));
        let (begin, end) = request.split_at(20);
        idle[1].write_all(begin.as_bytes()).await.unwrap();
        pass(ms(10)).await;
        let mut asks = bed.connect();
        assert_eq!(ask_on(&mut asks, &basic("bblp", CODE)).await, 200);
        assert_eq!(rest(&mut idle[2]).await, b"");
        assert_eq!(ask_on(&mut idle[0], &basic("bblp", CODE)).await, 200);
        idle[1].write_all(end.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut idle[1], false).await.status, 200);
        assert_eq!(bed.status().await["services"][1]["clients"], BOARD.clients.http);
    });
}

/// A page asks twice a minute for years, and must not displace what the journal holds.
#[test]
fn ordinary_requests_leave_no_events() {
    lan::run(async {
        let bed = Bed::new().await;
        let events = || async {
            let status = bed.status().await;
            let events = status["events"].as_array().unwrap().iter();
            events.map(|event| event["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let before = events().await;
        for _ in 0..50 {
            assert_eq!(bed.get_with_code("/status").await.status, 200);
            assert_eq!(bed.get("/livez").await.status, 200);
            pass(secs(2)).await;
        }
        assert_eq!(events().await, before);
    });
}

#[test]
fn shutdown_waits_for_no_browser() {
    lan::run(async {
        let bed = Bed::new().await;
        let mut stream = bed.connect();
        stream.write_all(get("/status", &basic("bblp", CODE)).as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 200);
        let since = Instant::now();
        bed.proxy.stop().await;
        assert!(since.elapsed() < ms(100), "{:?}", since.elapsed());
        assert_eq!(rest(&mut stream).await, b"");
    });
}

#[test]
fn the_service_is_off_unless_it_is_named() {
    lan::run(async {
        let net = SimNet::new();
        let proxy = start(&net, SERIAL, CODE, &[]);
        assert!(!net.open().contains(&8080), "{:?}", net.open());
        proxy.stop().await;
        let proxy = start(&net, SERIAL, CODE, &["--services=http", "--port=http=9090"]);
        assert_eq!(net.open(), [9090]);
        proxy.stop().await;
    });
}
