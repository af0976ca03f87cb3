//! Every recording in `tests/traces` is a test: what clients said and what the printer said is said again,
//! at its time, to the real client, hub and upstream code, in memory and in virtual time; what each of them
//! is told then has to be what stands beside the recording in a file that ends in `.expected`.
//!
//! A recording becomes a test by being put there. `BLESS=1 cargo test --test integration replay` writes what
//! is expected of it, which is to be read before it is committed.
//!
//! In MQTT, RTSP and the chamber camera time alone decides who speaks when; the printer's FTP server says
//! nothing before it has been asked what it was asked then. The data connections of FTP are in [`files`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "it is test code, and a mistake in it should stop the test"
)]

mod files;
mod heard;
pub(crate) mod recording;

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::memory::budget;
use pandaproxy::mqtt::Topics;
use pandaproxy::peer::Peer;
use pandaproxy::printer::status::Status;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::dial::{BackOff, Dial, DialError};
use pandaproxy::runtime::drive::Buffers;
use pandaproxy::runtime::services::camera::maintain_camera;
use pandaproxy::runtime::services::chamber::serve_viewer;
use pandaproxy::runtime::services::ftp::{Files, serve_caller};
use pandaproxy::runtime::services::mqtt::{maintain_upstream, serve_client};
use pandaproxy::runtime::services::rtsp::{maintain_stream, serve_player};
use pandaproxy::runtime::worker::{AcceptedClient, Serves};
use pandaproxy::{chamber, mqtt, rtsp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use self::files::Data;
use self::heard::Heard;
use self::recording::{Conversation, End};
use crate::clients::rtsp::answered;
use crate::lan::net::SimNet;
use crate::lan::{self, PROXY, WIRE};

/// Recordings that are here at least: joins, states and deltas of a P1 and an X1, requests, signed ones,
/// pictures, a player, and files of two programs.
const LEAST: usize = 8;

/// How long the last word of a recording may take to have its effect.
const AFTER: Duration = Duration::from_secs(2);

/// What stands in for the code of the printer in a recording, if none was shown.
const STAND_IN: &str = "11111111";

#[test]
fn every_recording_gets_what_it_got_before() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let bless = std::env::var_os("BLESS").is_some_and(|bless| bless == "1");
    let (mut replayed, mut wrong) = (0, Vec::new());
    for file in recordings(&traces) {
        let name = file.strip_prefix(&traces).unwrap().display().to_string();
        let conversations = recording::read(&file);
        let lines = lan::run(replay(conversations));
        println!("{name}: {} lines", lines.len());
        replayed += 1;
        let beside = file.with_extension("expected");
        let found = lines.join("\n") + "\n";
        if bless {
            fs::write(&beside, found).unwrap();
            continue;
        }
        match fs::read_to_string(&beside) {
            Ok(expected) => wrong.extend(difference(&name, &expected, &found)),
            Err(_) => wrong.push(format!(
                "{name}: nobody has said what is expected of it: BLESS=1 cargo test --test integration \
                 replay writes {}, to be read before it is committed",
                beside.display()
            )),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(replayed >= LEAST, "{replayed} recordings");
}

/// The first line that is not as expected.
fn difference(name: &str, expected: &str, found: &str) -> Option<String> {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    for number in 1.. {
        match (expected.next(), found.next()) {
            (None, None) => return None,
            (expected, found) if expected == found => {}
            (expected, found) => {
                let [expected, found] = [expected, found].map(|line| line.unwrap_or("nothing"));
                return Some(format!("{name}:{number}:\n  got {found}\n  not {expected}"));
            }
        }
    }
    None
}

/// The recordings below a folder, by name.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(recordings(&path));
        } else if path.extension().is_some_and(|extension| extension == "pcapng") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Says a recording again: what each of its ends is told.
async fn replay(conversations: Vec<Conversation>) -> Vec<String> {
    let of_clients = conversations.iter().find(|conversation| !conversation.is_printers);
    let port = of_clients.expect("somebody came").port;
    assert!([21, 554, 1883, 6000].contains(&port), "no service is at port {port}");
    let last = conversations.iter().flat_map(|conversation| &conversation.said);
    let over = last.map(|said| said.at).max().unwrap_or_default() + AFTER;
    // What else was recorded beside the service is another's, but for the data of FTP.
    let (own, others): (Vec<_>, Vec<_>) =
        conversations.into_iter().partition(|conversation| conversation.port == port);
    let data = (port == 21).then(|| Data::beside(&own, others));
    let (printers, clients): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|conversation| conversation.is_printers);
    let stage = Stage {
        begun: Instant::now(),
        clock: Clock::start(),
        code: code(port, &printers),
        ends: Rc::default(),
        data,
    };
    let tape = Tape { stage: stage.clone(), left: Rc::new(RefCell::new(printers.into())) };
    let service = Service::before(port, &stage, tape);
    for (number, client) in (1..).zip(clients) {
        let (service, stage) = (service.clone(), stage.clone());
        spawn_local(async move {
            sleep_until(stage.begun + client.began).await;
            let (near, far) = duplex(WIRE);
            spawn_local(service.serve(far, number, stage.clock));
            let name = format!("client {number}");
            let heard = stage.listener(&name, &client);
            if let Some(data) = stage.data.clone() {
                spawn_local(data.follow(stage.clone(), client.clone(), number, Rc::clone(&heard)));
            }
            stage.act(near, client, stage.begun, End::Client, heard).await;
        });
    }
    sleep_until(stage.begun + over).await;
    let mut lines = Vec::new();
    for Listener { name, port, is_printers, heard } in stage.ends.borrow().iter() {
        lines.push(format!("{name} is told"));
        lines.extend(heard.borrow().lines(*port, *is_printers));
    }
    lines
}

/// What stands in for the code: it is what the printer was shown.
fn code(port: u16, printers: &[Conversation]) -> String {
    let said = printers.first().map(|printer| printer.all(End::Client)).unwrap_or_default();
    let shown = match port {
        // Behind the two bytes of its length at the end of CONNECT.
        1883 if said.len() > 1 => {
            let connect = &said[..said.len().min(2 + usize::from(said[1]))];
            let user = connect.windows(4).rposition(|seen| seen == b"bblp");
            user.map(|at| connect[at + 6..].to_vec()).unwrap_or_default()
        }
        21 => {
            let pass =
                said.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"PASS "));
            pass.unwrap_or_default().trim_ascii().to_vec()
        }
        6000 if said.len() >= 80 => said[48..80].iter().copied().filter(|byte| *byte > 0).collect(),
        _ => Vec::new(),
    };
    if shown.is_empty() { STAND_IN.to_owned() } else { String::from_utf8(shown).unwrap() }
}

/// Somebody, and what it was told.
struct Listener {
    name: String,
    port: u16,
    is_printers: bool,
    heard: Rc<RefCell<Heard>>,
}

/// The address of the `number`th client.
fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(number % 250).unwrap()))
}

/// What all ends of a replay share.
#[derive(Clone)]
struct Stage {
    begun: Instant,
    clock: Clock,
    code: String,
    ends: Rc<RefCell<Vec<Listener>>>,
    /// The data connections, if it is about files.
    data: Option<Rc<Data>>,
}

impl Stage {
    /// A new end of a conversation.
    fn listener(&self, name: &str, whole: &Conversation) -> Rc<RefCell<Heard>> {
        let heard = Rc::<RefCell<Heard>>::default();
        self.ends.borrow_mut().push(Listener {
            name: name.to_owned(),
            port: whole.port,
            is_printers: whole.is_printers,
            heard: Rc::clone(&heard),
        });
        heard
    }

    /// Says what this end of a conversation has said, at its time from `zero` on, and takes down what it
    /// is told.
    async fn act<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        whole: Conversation,
        zero: Instant,
        end: End,
        heard: Rc<RefCell<Heard>>,
    ) {
        let (mut from, mut to) = split(stream);
        let speaks = async {
            for said in whole.said.iter().filter(|said| said.by == end) {
                sleep_until(zero + said.at).await;
                let bytes = match whole.port {
                    554 if end == End::Client => {
                        answered(&said.bytes, heard.borrow().bytes(), &self.code)
                    }
                    _ => said.bytes.clone(),
                };
                if let Some(data) = self.data.as_ref().filter(|_| end == End::Server) {
                    data.asked_for(&whole, said.at, &heard).await;
                }
                // Whoever is not there any more is told nothing.
                let _gone = to.write_all(&bytes).await;
                let _gone = to.flush().await;
            }
            if let Some((time, by)) = whole.ended
                && by == end
            {
                sleep_until(zero + time).await;
                let _gone = to.shutdown().await;
            }
        };
        let listens = async {
            let mut piece = vec![0; WIRE];
            loop {
                let read = from.read(&mut piece).await;
                let (mut heard, now) = (heard.borrow_mut(), self.begun.elapsed());
                match read {
                    Ok(0) => return heard.ends("closed", now),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        return heard.ends("closed without close_notify", now);
                    }
                    Err(_) => return heard.ends("broken", now),
                    Ok(len) => heard.takes(&piece[..len], now),
                }
            }
        };
        tokio::join!(speaks, listens);
    }
}

/// The printer: each time it is dialled it is as it was that time.
#[derive(Clone)]
struct Tape {
    stage: Stage,
    left: Rc<RefCell<VecDeque<Conversation>>>,
}

impl Dial for Tape {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        let next = self.left.borrow_mut().pop_front();
        let Some(next) = next else { return Err(DialError::Off) };
        // It was not reached before it was there.
        sleep_until(self.stage.begun + next.began).await;
        let (near, far) = duplex(WIRE);
        let stage = self.stage.clone();
        spawn_local(async move {
            let heard = stage.listener("the printer", &next);
            // It is dialled when it is dialled.
            let zero = Instant::now() - next.began;
            stage.act(far, next, zero, End::Server, heard).await;
        });
        Ok(near)
    }
}

/// Nobody is at this port of the printer's.
struct Nobody;

impl Dial for Nobody {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        Err(DialError::PortClosed { port: 0 })
    }
}

/// The service that a recording is of.
#[derive(Clone)]
enum Service {
    Mqtt(Rc<mqtt::Service>),
    Chamber(Rc<chamber::Service>),
    Rtsp(Rc<rtsp::Service>),
    Ftp(Files<SimNet>),
}

impl Service {
    /// The service before the printer of this tape.
    fn before(port: u16, stage: &Stage, tape: Tape) -> Self {
        let clock = stage.clock;
        let code = || AccessCode::new(stage.code.as_bytes()).unwrap();
        let serial = serial(&tape);
        let service = match port {
            1883 => {
                let topics = Topics::new(&serial, 0xabcd);
                let service = mqtt::Service::new(topics, code(), clock.now());
                let its = Rc::clone(&service);
                spawn_local(maintain_upstream(its, Rc::default(), tape, clock, BackOff::new(1)));
                Self::Mqtt(service)
            }
            6000 => {
                let service = chamber::Service::new(code());
                let (its, camera) = (Rc::clone(&service), Rc::new(Status::default()));
                spawn_local(maintain_camera(its, camera, tape, Nobody, clock, BackOff::new(1)));
                Self::Chamber(service)
            }
            21 => Self::Ftp(files::service(code(), stage, tape)),
            _ => {
                let url = "rtsps://printer:322/streaming/live/1".try_into().unwrap();
                let service = rtsp::Service::new(code(), url, 7);
                let (its, camera) = (Rc::clone(&service), Rc::new(Status::default()));
                let (viewers, seen) = (chamber::Service::new(code()), Rc::clone(&camera));
                let probed = tape.clone();
                spawn_local(maintain_camera(viewers, seen, Nobody, probed, clock, BackOff::new(1)));
                spawn_local(maintain_stream(its, camera, tape, clock, BackOff::new(2)));
                Self::Rtsp(service)
            }
        };
        let housekept = service.clone();
        spawn_local(async move {
            loop {
                match &housekept {
                    Self::Mqtt(service) => service.handle_timeout(clock.now()),
                    Self::Chamber(service) => service.handle_timeout(clock.now()),
                    Self::Rtsp(service) => service.handle_timeout(clock.now()),
                    // Its sessions have clocks of their own.
                    Self::Ftp(_) => {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        service
    }

    /// Serves the `number`th client.
    async fn serve(self, stream: DuplexStream, number: u32, clock: Clock) {
        let address = address(number);
        let until = clock.now() + Duration::from_secs(10);
        let accepted_client = |service| AcceptedClient {
            peer: Peer { service, number, address },
            reached: Some(PROXY),
            until,
            admitted: &|| {},
        };
        // How it ended is seen by whom it was told.
        match self {
            Self::Mqtt(service) => {
                let mut buffers = Buffers::new(BOARD.mqtt.inbox, BOARD.mqtt.outbox);
                let _end =
                    serve_client(&service, stream, accepted_client("mqtt"), &mut buffers, &clock)
                        .await;
            }
            Self::Chamber(service) => {
                let mut buffers = Buffers::new(budget::CHAMBER_INBOX, budget::CHAMBER_OUTBOX);
                let its = accepted_client("chamber");
                let _end = serve_viewer(&service, stream, its, &mut buffers, &clock).await;
            }
            Self::Rtsp(service) => {
                let mut buffers = Buffers::new(budget::RTSP_INBOX, budget::RTSP_OUTBOX);
                let _end =
                    serve_player(&service, stream, accepted_client("rtsp"), &mut buffers, &clock)
                        .await;
            }
            Self::Ftp(files) => {
                let mut buffers = Files::<SimNet>::buffers();
                let _end =
                    serve_caller(&files, stream, accepted_client("ftp"), &mut buffers, &clock)
                        .await;
            }
        }
    }
}

/// What stands in for the serial number: the topic that the printer's connection subscribed to has it.
fn serial(tape: &Tape) -> String {
    let left = tape.left.borrow();
    let said = left.front().map(|printer| printer.all(End::Client)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let serial = said.split("device/").nth(1).and_then(|rest| rest.split('/').next());
    serial.unwrap_or("01P00X0X0000000").to_owned()
}
