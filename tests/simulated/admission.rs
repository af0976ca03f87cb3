//! Clients that have not logged in, at every service: lockouts are answered in the service's protocol, and log lines
//! are rate-limited. How many connections an origin may have is tested beside the acceptor.

use core::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use pandaproxy::auth::LOCKOUT_TIMEOUT;
use pandaproxy::board::BOARD;
use pandaproxy::journal;
use pandaproxy::runtime::launch::Proxy;
use printer::camera::{Camera, login};
use printer::{Model, Printer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::clients::mqtt::{Client as MqttClient, Hello, hello_bytes};
use crate::clients::rtsp::{Client as RtspClient, Scheme};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::start;
use crate::lan::rtsp::{URL, camera};
use crate::lan::{self, CODE, WIRE, journal_says, ms, pass, secs};

const MQTT: u16 = 8883;
const CHAMBER: u16 = 6000;
const RTSP: u16 = 322;
const FTP: u16 = 990;

/// Connections of one machine that have not logged in.
const EACH: usize = BOARD.pre_auth_per_address;

/// Codes that are wrong, each another one.
const WRONG: [&str; 5] = ["10000001", "10000002", "10000003", "10000004", "10000005"];

/// The proxy before a printer with a chamber camera (P1S) or an RTSPS camera (X1C), with proxied files.
struct Bed {
    net: SimNet,
    _proxy: Proxy,
}

impl Bed {
    async fn new(model: Model) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(model).quiet());
        let serial = printer.serial();
        let serve = Rc::new(move |stream: DuplexStream| {
            let printer = printer.clone();
            spawn_local(async move { printer.serve(stream).await });
        });
        net.put(MQTT, Port::new(At::Script(serve)));
        if model == Model::P1S {
            net.put(CHAMBER, Port::new(At::Camera(Camera::new().code(CODE))));
        } else {
            net.put(RTSP, Port::new(At::Rtsp(camera())));
        }
        let words = ["--services=mqtt,camera,ftp", "--ftp-mode=proxy", "--port-6000=chamber"];
        let bed = Self { _proxy: start(&net, serial, CODE, &words), net };
        pass(secs(10)).await;
        bed
    }

    /// A connection from the machine with this number.
    fn connect(&self, port: u16, from: u8) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        let from = IpAddr::V4(Ipv4Addr::new(10, 9, 0, from));
        assert!(self.net.arrive(port, from, far), "port {port} is open");
        near
    }

    /// All that a client hears that sends `bytes`, until its connection is closed.
    async fn answer(&self, port: u16, from: u8, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect(port, from);
        stream.write_all(bytes).await.unwrap();
        let mut heard = Vec::new();
        let closed = timeout(secs(100), stream.read_to_end(&mut heard)).await;
        closed.expect("it is closed").unwrap();
        pass(ms(10)).await;
        heard
    }

    async fn mqtt(&self, from: u8, code: &str) -> Vec<u8> {
        self.answer(MQTT, from, &connect_bytes(code)).await
    }

    async fn ftp(&self, from: u8, code: &str) -> String {
        let line = format!("USER bblp\r\nPASS {code}\r\nQUIT\r\n");
        String::from_utf8(self.answer(FTP, from, line.as_bytes()).await).unwrap()
    }

    async fn rtsp(&self, from: u8, code: &str) -> (u16, String) {
        let stream = self.connect(RTSP, from);
        let answer = RtspClient::over(stream).knowing(Scheme::Md5, code).describe(URL).await;
        pass(ms(10)).await;
        (answer.status, answer.reason)
    }
}

fn connect_bytes(code: &str) -> Vec<u8> {
    hello_bytes(&Hello { password: Some(code.as_bytes()), ..Hello::default() })
}

/// Issue 14, A16 and B19: the known wrong code is called wrong, any other code learns nothing and may try again.
#[test]
fn a_locked_out_mqtt_client_gets_connack_5_or_tries_again() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        for code in WRONG {
            assert_eq!(bed.mqtt(7, code).await, [0x20, 2, 0, 5]);
        }
        assert!(journal_says("10.9.0.7: locked out for 60 s"));
        assert_eq!(bed.mqtt(7, WRONG[2]).await, [0x20, 2, 0, 5], "known to be wrong");
        for code in [CODE, "99999999"] {
            assert_eq!(bed.mqtt(7, code).await, b"", "closed without a CONNACK");
        }
        assert!(journal_says("client rejected: locked out after wrong access codes"));
        let mut other = MqttClient::over(bed.connect(MQTT, 8));
        assert_eq!(other.connect(&Hello::default()).await, 0);
        pass(LOCKOUT_TIMEOUT).await;
        let mut again = MqttClient::over(bed.connect(MQTT, 7));
        assert_eq!(again.connect(&Hello::default()).await, 0);
    });
}

#[test]
fn a_lockout_at_one_service_does_not_shut_the_others() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        for code in WRONG {
            bed.mqtt(7, code).await;
        }
        assert!(bed.ftp(7, CODE).await.contains("230 "));
        let mut client = MqttClient::over(bed.connect(MQTT, 7));
        assert_eq!(
            client.connect(&Hello::default()).await,
            0,
            "the login elsewhere ends the lockout"
        );
    });
}

#[test]
fn a_locked_out_viewer_is_closed_after_its_login() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        for code in WRONG {
            assert_eq!(bed.answer(CHAMBER, 7, &login(code)).await, b"");
        }
        assert!(journal_says("10.9.0.7: locked out for 60 s"));
        assert_eq!(bed.answer(CHAMBER, 7, &login(CODE)).await, b"");
        assert!(journal_says("client rejected: locked out after wrong access codes"));
        pass(LOCKOUT_TIMEOUT).await;
        let mut viewer = bed.connect(CHAMBER, 7);
        viewer.write_all(&login(CODE)).await.unwrap();
        viewer.read_exact(&mut [0; 16]).await.expect("the head of a picture");
    });
}

#[test]
fn a_locked_out_player_gets_403_with_the_reason() {
    lan::run(async {
        let bed = Bed::new(Model::X1C).await;
        for code in WRONG {
            bed.rtsp(7, code).await;
        }
        assert!(journal_says("10.9.0.7: locked out for 60 s"));
        let (status, reason) = bed.rtsp(7, CODE).await;
        assert_eq!(status, 403, "{reason}");
        assert!(reason.contains("Locked Out"), "{reason}");
        assert_eq!(bed.rtsp(8, CODE).await.0, 200);
        pass(LOCKOUT_TIMEOUT).await;
        assert_eq!(bed.rtsp(7, CODE).await.0, 200);
    });
}

#[test]
fn a_locked_out_ftp_client_gets_421_with_the_reason() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        for code in WRONG {
            assert!(bed.ftp(7, code).await.contains("530 Wrong access code"));
        }
        let refused = bed.ftp(7, CODE).await;
        assert!(refused.starts_with("421 Locked out"), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
        pass(LOCKOUT_TIMEOUT).await;
        assert!(bed.ftp(7, CODE).await.contains("230 "));
    });
}

/// Issue 14, B19: a device that keeps an old code, beside others at its address that have the right one.
#[test]
fn one_old_code_locks_nothing_at_any_service() {
    let old = "87654321";
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        for _ in 0..50 {
            bed.mqtt(7, old).await;
            bed.ftp(7, old).await;
            bed.answer(CHAMBER, 7, &login(old)).await;
        }
        let mut viewer = bed.connect(CHAMBER, 7);
        viewer.write_all(&login(CODE)).await.unwrap();
        viewer.read_exact(&mut [0; 16]).await.expect("the head of a picture");
        let mut client = MqttClient::over(bed.connect(MQTT, 7));
        assert_eq!(client.connect(&Hello::default()).await, 0);
        assert!(bed.ftp(7, CODE).await.contains("230 "));
    });
    lan::run(async {
        let bed = Bed::new(Model::X1C).await;
        for _ in 0..50 {
            assert_eq!(bed.rtsp(7, old).await.0, 401);
        }
        assert_eq!(bed.rtsp(7, CODE).await.0, 200);
    });
    assert!(!journal_says("locked out for"));
}

/// A player that shows a wrong code may try once more; its connection may be taken away before it does.
#[test]
fn wrong_codes_of_displaced_players_count() {
    lan::run(async {
        let bed = Bed::new(Model::X1C).await;
        let mut there = Vec::new();
        for code in WRONG {
            let mut client = RtspClient::over(bed.connect(RTSP, 7)).knowing(Scheme::Basic, code);
            let status = client.ask("DESCRIBE", URL, "").await.status;
            // A connection without a login counts as well, so that the last one finds the lockout.
            assert!(matches!(status, 401 | 403), "{status}");
            // Others wait until it has lost its slot.
            let others: Vec<_> = (0..4 * EACH).map(|_| bed.connect(RTSP, 7)).collect();
            pass(secs(5)).await;
            there.push(client);
            drop(others);
            pass(ms(10)).await;
        }
        assert!(journal_says("no login within 3 s while others wait"));
        assert!(journal_says("10.9.0.7: locked out for 60 s"));
    });
}

/// Issue 14, B18: a port scan, or a health check that only connects, causes no lockout, but counts once.
#[test]
fn connections_without_a_login_count_as_one_wrong_code() {
    for (service, port) in [("mqtt", MQTT), ("chamber", CHAMBER), ("ftp", FTP)] {
        let is_locked_out = || journal_says(&format!("{service}: 10.9.0.7: locked out"));
        lan::run(async {
            let bed = Bed::new(Model::P1S).await;
            for _ in 0..100 {
                drop(bed.connect(port, 7));
                pass(secs(1)).await;
            }
            assert!(!is_locked_out(), "port {port}");
            for (at, code) in WRONG[..4].iter().enumerate() {
                assert!(!is_locked_out(), "port {port}, code {at}");
                match port {
                    MQTT => drop(bed.mqtt(7, code).await),
                    FTP => drop(bed.ftp(7, code).await),
                    _ => drop(bed.answer(port, 7, &login(code)).await),
                }
            }
            assert!(is_locked_out(), "port {port}");
        });
    }
}

/// Issue 14, B18: 800 lines a second were seen.
#[test]
fn a_flood_before_the_login_fills_no_log_at_any_service() {
    let old = connect_bytes("87654321");
    let old_login = login("87654321");
    let floods: [(u16, Model, &[u8]); 14] = [
        (MQTT, Model::P1S, b""),
        (MQTT, Model::P1S, b"\x00\x00\x00"),
        (MQTT, Model::P1S, &old),
        (MQTT, Model::P1S, b"\x10\xff\xff\xff\x7f"),
        (CHAMBER, Model::P1S, b""),
        (CHAMBER, Model::P1S, &[0xff; 80]),
        (CHAMBER, Model::P1S, &old_login),
        (RTSP, Model::X1C, b""),
        (RTSP, Model::X1C, b"GET / HTTP/1.1\r\n\r\n"),
        (RTSP, Model::X1C, b"DESCRIBE rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        (FTP, Model::P1S, b""),
        (FTP, Model::P1S, b"\0\r\n"),
        (FTP, Model::P1S, b"PASS x\0\r\nQUIT\r\n"),
        (FTP, Model::P1S, b"USER bblp\r\nPASS 87654321\r\n"),
    ];
    for (port, model, bytes) in floods {
        lan::run(async {
            let bed = Bed::new(model).await;
            let before = lines_of(7);
            for _ in 0..300 {
                let mut stream = bed.connect(port, 7);
                let _closed = stream.write_all(bytes).await;
                pass(ms(10)).await;
            }
            pass(secs(12)).await;
            let lines = lines_of(7) - before;
            assert!(lines <= 6, "{lines} lines of port {port}, {}", bytes.escape_ascii());
        });
    }
}

/// Events in this thread's journal about the machine with this number.
fn lines_of(number: u8) -> usize {
    let mut all = String::new();
    journal::write_to(&mut all).unwrap();
    let address = format!("10.9.0.{number}");
    all.lines().filter(|line| line.contains(&address)).count()
}
