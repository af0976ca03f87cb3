//! HTTP with all slots taken: by clients that ask and do not read and by half requests, and for hours beside a print and
//! uploads, by all kinds of clients.

use core::cell::Cell;
use core::net::IpAddr;
use core::time::Duration;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pandaproxy::board::BOARD;
use pandaproxy::http::wire::MAX_HEAD;
use pandaproxy::http::{CLIENTS, Service};
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::{LINES, TOTAL};
use pandaproxy::memory::heap;
use pandaproxy::service::Service as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::clients::mqtt::{Client, Hello};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::{self, CODE, WIRE, root};
use crate::share::{Share, ran_apart};
use printer::camera::Camera;
use printer::ftp::{Family, FileServer};
use printer::rtsp::Media;
use printer::{Model, Printer};

/// Bytes on the way to a client that does not read: less than an answer.
const NARROW: usize = 512;

/// What the lines of the budget allow that have no sockets.
fn in_memory() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("http"));
    lines.map(|line| line.count * line.each).sum()
}

#[test]
fn full_http_slots_fit_the_budget_and_are_free_again() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let (net, share) = (SimNet::new(), Share::default());
        share.of_tasks_on(&net);
        let start = root::one(&net, "http", Model::P1S.serial(), &["--services=http"]);
        let _proxy = share.during(start);
        let connect = || {
            let (near, far) = duplex(NARROW);
            assert!(net.arrive(8080, net.next_client(), far), "the port is open");
            near
        };
        let login = STANDARD.encode(format!("bblp:{CODE}"));
        let request = format!(
            "GET /status HTTP/1.1\r\nHost: 10.1.2.3\r\nAuthorization: Basic {login}\r\n\r\n"
        );
        for _ in 0..3 {
            let (stuck, silent) = (journal::count(Kind::Stuck), journal::count(Kind::Silent));
            let mut there: Vec<DuplexStream> = Vec::new();
            for _ in 0..BOARD.clients.http {
                let mut reads_nothing = connect();
                reads_nothing.write_all(request.as_bytes()).await.unwrap();
                there.push(reads_nothing);
            }
            for _ in BOARD.clients.http..CLIENTS {
                let mut half = connect();
                let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
                half.write_all(&head.as_bytes()[..MAX_HEAD - 1]).await.unwrap();
                there.push(half);
            }
            sleep(Duration::from_secs(1)).await;
            // What the proxy has written into a pipe counts as its own, and is freed by the test: up to NARROW bytes a
            // connection and round.
            let (now, peak) = (share.now(), share.peak());
            println!("all slots: {now} bytes, at most {peak}; lines allow {}", in_memory());
            assert!(peak <= in_memory());
            sleep(Duration::from_secs(20)).await;
            assert!(journal::count(Kind::Stuck) > stuck && journal::count(Kind::Silent) > silent);
        }
        let mut stream = connect();
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"alive\n"));
    });
}

/// Hours unless `CROWD_HOURS` sets them, after one in which the simulated ends get what they keep. Reports, pictures and
/// files are few and small, so that a day of them takes half a minute.
const HOURS: usize = 1;

const HOUR: Duration = Duration::from_secs(3600);

/// How a client behaves.
#[derive(Clone, Copy)]
enum Way {
    /// Asks for the status every five seconds, as a page does.
    Polls,
    /// Watches the camera for ten minutes.
    Watches,
    /// Watches it over a connection that takes 64 bytes a second.
    Sips,
    /// Asks for the status, and reads nothing.
    Stares,
    /// Sends a byte of its request each second.
    Drips,
    /// Guesses from another site's page.
    Guesses,
}

const WAYS: [Way; 6] = [Way::Polls, Way::Watches, Way::Sips, Way::Stares, Way::Drips, Way::Guesses];

/// What people have before them.
struct Home {
    net: SimNet,
    /// The camera's path.
    camera: &'static str,
    /// Answers, uploads and bytes of reports.
    answers: Cell<usize>,
    uploads: Cell<usize>,
    reports: Cell<usize>,
    guesses: Cell<usize>,
}

fn asking(path: &str, more: &str) -> String {
    let login = STANDARD.encode(format!("bblp:{CODE}"));
    format!("GET {path} HTTP/1.0\r\nAuthorization: Basic {login}\r\n{more}\r\n")
}

impl Home {
    fn connect(&self, port: u16, wire: usize) -> DuplexStream {
        let (near, far) = duplex(wire);
        assert!(self.net.arrive(port, self.net.next_client(), far), "the port is open");
        near
    }

    /// What is answered to a request on a connection of its own.
    async fn ask(&self, request: &str) -> Vec<u8> {
        let (mut stream, mut answer) = (self.connect(8080, WIRE), Vec::new());
        let _closed = stream.write_all(request.as_bytes()).await;
        let _ended = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        answer
    }

    async fn browse(&self, way: Way) {
        let mut room = vec![0; WIRE];
        match way {
            Way::Polls => {
                let answer = self.ask(&asking("/status", "")).await;
                self.answers.update(|n| n + usize::from(answer.starts_with(b"HTTP/1.1 200 ")));
                sleep(Duration::from_secs(5)).await;
            }
            Way::Watches => {
                let mut stream = self.connect(8080, WIRE);
                let _closed = stream.write_all(asking(self.camera, "").as_bytes()).await;
                let all = async { while stream.read(&mut room).await.is_ok_and(|len| len > 0) {} };
                let _over = timeout(Duration::from_secs(600), all).await;
            }
            Way::Sips => {
                let mut stream = self.connect(8080, NARROW);
                let _closed = stream.write_all(asking(self.camera, "").as_bytes()).await;
                while stream.read(&mut room[..256]).await.is_ok_and(|len| len > 0) {
                    sleep(Duration::from_secs(4)).await;
                }
            }
            Way::Stares => {
                let mut stream = self.connect(8080, NARROW);
                let _closed = stream.write_all(asking("/status", "").as_bytes()).await;
                sleep(Duration::from_secs(120)).await;
            }
            Way::Drips => {
                let mut stream = self.connect(8080, NARROW);
                for byte in asking("/status", "X: y\r\n").bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Way::Guesses => {
                let number = self.guesses.get();
                self.guesses.set(number + 1);
                let login = STANDARD.encode(format!("bblp:guess-{number}"));
                let request = format!(
                    "GET / HTTP/1.0\r\nSec-Fetch-Site: cross-site\r\nAuthorization: Basic {login}\r\n\r\n"
                );
                let (mut near, far) = duplex(WIRE);
                assert!(self.net.arrive(8080, IpAddr::from([10, 9, 1, 1]), far));
                let _closed = near.write_all(request.as_bytes()).await;
                let mut answer = Vec::new();
                let read = near.read_to_end(&mut answer);
                let _ended = timeout(Duration::from_secs(60), read).await;
            }
        }
        // Those who find no place come again.
        sleep(Duration::from_secs(5)).await;
    }

    /// Reads reports without end.
    async fn reads(&self) {
        let mut client = Client::over(self.connect(8883, WIRE));
        let hello = Hello { keep_alive: 0, password: Some(CODE.as_bytes()), ..Hello::default() };
        assert_eq!(client.connect(&hello).await, 0);
        client.subscribe(&[("#", 0)]).await;
        let (mut stream, mut room) = (client.into_stream(), vec![0; WIRE]);
        loop {
            let len = stream.read(&mut room).await.unwrap();
            assert!(len > 0, "a client that reads stays");
            self.reports.update(|n| n + len);
        }
    }

    /// Uploads a file, which has to be taken.
    async fn uploads(&self) {
        let from = self.net.next_client();
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(990, from, far));
        let mut control = BufReader::new(near);
        let mut line = String::new();
        control.read_line(&mut line).await.unwrap();
        for (command, code) in [
            ("USER bblp", "331 "),
            (&format!("PASS {CODE}"), "230 "),
            ("PBSZ 0", "200 "),
            ("PROT C", "200 "),
            ("TYPE I", "200 "),
            ("EPSV", "229 "),
            ("STOR plate.3mf", "150 "),
            ("", "226 "),
        ] {
            let mut data = None;
            if code == "150 " {
                let port = line.split('|').nth(3).unwrap().parse().unwrap();
                let (near, far) = duplex(WIRE);
                assert!(self.net.arrive(port, from, far));
                data = Some(near);
            }
            if !command.is_empty() {
                control.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
            }
            line.clear();
            let told = timeout(Duration::from_secs(120), control.read_line(&mut line)).await;
            assert!(told.is_ok() && line.starts_with(code), "{command}: {line}");
            if let Some(mut data) = data {
                data.write_all(&[b'x'; 100_000]).await.unwrap();
                data.shutdown().await.unwrap();
            }
        }
        self.uploads.update(|n| n + 1);
    }
}

/// Each model's camera has its own path.
#[test]
fn hours_with_all_http_slots_taken_harm_no_print() {
    if ran_apart() {
        return;
    }
    // What an earlier test has left.
    let left = heap::held();
    let hours = std::env::var("CROWD_HOURS").ok().map(|hours| hours.parse().unwrap());
    let hours: usize = hours.unwrap_or(HOURS);
    for (model, camera) in [(Model::P1S, "/stream.mjpg"), (Model::X1C, "/stream.mp4")] {
        lan::run(async {
            let net = SimNet::new();
            let printer = Printer::new(model).deltas_every(Duration::from_secs(20));
            let serving = printer.clone();
            let serve = move |stream| {
                let printer = serving.clone();
                spawn_local(async move { printer.serve(stream).await });
            };
            net.put(8883, Port::new(At::Script(Rc::new(serve))));
            if camera == "/stream.mjpg" {
                let camera = Camera::new().code(CODE).every(Duration::from_secs(10));
                net.put(6000, Port::new(At::Camera(camera)));
            } else {
                let film = lan::rtsp::showing(Media::made(1, 4, 3000, 500));
                net.put(322, Port::new(At::Rtsp(film)));
            }
            let files = FileServer::new(Family::Esp32).code(CODE);
            let (control, printers_files) = (files.clone(), files.clone());
            let serve = move |stream| {
                let files = control.clone();
                spawn_local(async move { files.serve(stream).await });
            };
            net.put(990, Port::new(At::Script(Rc::new(serve))));
            net.put_data(move |port| {
                let (near, far) = duplex(WIRE);
                core::future::ready(files.take(port, far).then_some(near))
            });
            let more = ["--services=mqtt,camera,ftp,http", "--ftp-mode=proxy"];
            // The buffers of simulated connections belong to neither end, so the whole process is measured.
            let most = Rc::new(Cell::new(0));
            let seen = Rc::clone(&most);
            spawn_local(async move {
                loop {
                    seen.set(seen.get().max(heap::held().saturating_sub(left)));
                    sleep(Duration::from_millis(250)).await;
                }
            });
            let proxy = root::start(&net, model.serial(), CODE, &more);
            sleep(Duration::from_secs(30)).await;
            let http: Rc<Service> = proxy.service().unwrap();
            let zero = || Cell::new(0);
            let home = Home {
                net,
                camera,
                answers: zero(),
                uploads: zero(),
                reports: zero(),
                guesses: zero(),
            };
            let home = Rc::new(home);
            let reader = Rc::clone(&home);
            let reader = spawn_local(async move { reader.reads().await });
            let mut held = Vec::with_capacity(1 + hours);
            for _ in 0..1 + hours {
                let before = [&home.answers, &home.uploads, &home.reports].map(Cell::get);
                let mut there = JoinSet::new();
                for number in 0..2 * CLIENTS {
                    let (home, way) = (Rc::clone(&home), WAYS[number % WAYS.len()]);
                    there.spawn_local(async move {
                        loop {
                            home.browse(way).await;
                        }
                    });
                }
                let uploading = Rc::clone(&home);
                there.spawn_local(async move {
                    loop {
                        uploading.uploads().await;
                        sleep(Duration::from_secs(300)).await;
                    }
                });
                sleep(HOUR / 2).await;
                let taken = http.connections();
                assert!(taken > CLIENTS / 2, "{taken} of {CLIENTS} slots are in use");
                assert!(home.ask("GET /livez HTTP/1.0\r\n\r\n").await.ends_with(b"alive\n"));
                sleep(HOUR / 2).await;
                there.shutdown().await;
                sleep(Duration::from_secs(120)).await;
                let after = [&home.answers, &home.uploads, &home.reports].map(Cell::get);
                let [answers, uploads, reports] = [0, 1, 2].map(|at| after[at] - before[at]);
                println!("{answers} answers, {uploads} uploads, {reports} bytes of reports");
                assert!(answers > 100 && uploads >= 11 && reports > 30_000);
                assert!(!reader.is_finished(), "who reads stays");
                assert_eq!(http.connections(), 0);
                printers_files.forget_commands();
                held.push(heap::held());
            }
            let most = most.get();
            println!(
                "{}: at most {most} bytes of {TOTAL}; after each hour {held:?}",
                model.serial()
            );
            assert!(most <= TOTAL);
            // Thousands of connections came and went meanwhile.
            assert!(held[0].abs_diff(held[hours]) <= 16 * 1024, "{held:?}");
            for kind in [Kind::Stuck, Kind::Silent, Kind::RequestRefused, Kind::LockedOut] {
                assert!(journal::count(kind) > 0, "{}", kind.name());
            }
            assert_eq!(journal::count(Kind::Lagged), 0, "a reader that keeps up loses nothing");
        });
    }
}
