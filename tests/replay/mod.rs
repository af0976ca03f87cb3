//! Each recording in `tests/traces` is a test. The replay sends what clients and printer sent, at the recorded
//! times, to a proxy that [`root`] starts on the [simulated network](SimNet) in virtual time. What each
//! client and the printer receive must be what the `.expected` file beside the recording lists.
//!
//! To add a test, put a recording there and run `BLESS=1 cargo test --test simulated replay`, which writes the
//! `.expected` file. Read the file before you commit it.
//!
//! MQTT, RTSP and the chamber camera are replayed by time alone. The printer's FTP server also waits for
//! the commands that it had received before each reply. [`files`] replays FTP data connections.
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

use pandaproxy::runtime::dial::{Dial, DialError};
use pandaproxy::runtime::launch::Proxy;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use self::files::Data;
use self::heard::Heard;
use self::recording::{Conversation, End};
use crate::clients::rtsp::answered;
use crate::lan::net::SimNet;
use crate::lan::{self, WIRE, root};
use printer::Model;

/// Minimum number of recordings: joins, states and deltas of a P1 and an X1, requests, signed ones,
/// pictures, a player, and files of two programs.
const LEAST: usize = 8;

/// How long the last message of a recording may take to have its effect.
const AFTER: Duration = Duration::from_secs(2);

/// The stand-in for the printer's code in a recording that has no login.
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
                "{name}: has no .expected file: BLESS=1 cargo test --test simulated replay writes {}, \
                 to be read before it is committed",
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

/// Replays a recording. Returns one line for each thing that a client or the printer received.
async fn replay(conversations: Vec<Conversation>) -> Vec<String> {
    let of_clients = conversations.iter().find(|conversation| !conversation.is_printers);
    let port = of_clients.expect("a client connected").port;
    assert!([21, 554, 1883, 6000].contains(&port), "no service is at port {port}");
    let last = conversations.iter().flat_map(|conversation| &conversation.said);
    let over = last.map(|said| said.at).max().unwrap_or_default() + AFTER;
    // The conversations on other ports are FTP data connections, or belong to another service.
    let (own, others): (Vec<_>, Vec<_>) =
        conversations.into_iter().partition(|conversation| conversation.port == port);
    let data = (port == 21).then(|| Data::beside(&own, others));
    let (printers, clients): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|conversation| conversation.is_printers);
    let stage = Stage {
        begun: Instant::now(),
        net: SimNet::new(),
        code: code(port, &printers),
        ends: Rc::default(),
        data,
    };
    let tape = Tape { stage: stage.clone(), left: Rc::new(RefCell::new(printers.into())) };
    let _proxy = start(port, &stage, tape);
    for (number, client) in (1..).zip(clients) {
        let stage = stage.clone();
        spawn_local(async move {
            sleep_until(stage.begun + client.began).await;
            let (near, far) = duplex(WIRE);
            assert!(stage.net.arrive(own_port(port), address(number), far), "the port is open");
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

/// The access code that the proxy is started with: the one that the printer received. A recording has a
/// stand-in for the real code.
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

/// A client or the printer, and what it received.
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

/// What all tasks of a replay share.
#[derive(Clone)]
struct Stage {
    begun: Instant,
    /// The network that the proxy is on.
    net: SimNet,
    code: String,
    ends: Rc<RefCell<Vec<Listener>>>,
    /// The data connections of an FTP recording.
    data: Option<Rc<Data>>,
}

impl Stage {
    /// Begins to list what one end of a conversation receives.
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

    /// Sends what this end of a conversation sent, at the recorded times counted from `zero`, and lists in
    /// `heard` what it receives.
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
                // Fails if the proxy has closed the connection, which `heard` lists.
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

/// A port of the printer: the nth connection replays the nth recorded conversation.
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
        // A connection is not made before its recorded time.
        sleep_until(self.stage.begun + next.began).await;
        let (near, far) = duplex(WIRE);
        let stage = self.stage.clone();
        spawn_local(async move {
            let heard = stage.listener("the printer", &next);
            // The proxy may dial later than in the recording: the conversation begins then.
            let zero = Instant::now() - next.began;
            stage.act(far, next, zero, End::Server, heard).await;
        });
        Ok(near)
    }
}

/// The port of a service at the proxy and at the printer. In a recording a service has the port of its
/// protocol without TLS.
fn own_port(recorded: u16) -> u16 {
    match recorded {
        21 => 990,
        554 => 322,
        1883 => 8883,
        other => other,
    }
}

/// Starts the proxy with the recorded service, and the printer that `tape` replays. The printer's other
/// ports are closed, except for recorded data ports.
fn start(port: u16, stage: &Stage, tape: Tape) -> Proxy {
    let serial = serial(port, &tape);
    let more: &[&str] = match port {
        21 => &["--services=ftp", "--ftp-mode=proxy", "--ftp-data-ports=50000-50009"],
        554 => &["--services=rtsp"],
        1883 => &["--services=mqtt"],
        _ => &["--services=chamber"],
    };
    stage.net.put(own_port(port), tape);
    if let Some(data) = stage.data.clone() {
        let stage = stage.clone();
        let net = stage.net.clone();
        net.put_data(move |port| core::future::ready(data.reach(&stage, port)));
    }
    root::start(&stage.net, &serial, &stage.code, more)
}

/// The serial number that the proxy is started with: the one in the topic that the proxy subscribed to, as
/// the recording has it, or that of a model with the recorded camera.
fn serial(port: u16, tape: &Tape) -> String {
    let left = tape.left.borrow();
    let said = left.front().map(|printer| printer.all(End::Client)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let serial = said.split("device/").nth(1).and_then(|rest| rest.split('/').next());
    let of_model = if port == 554 { Model::X1C } else { Model::P1S };
    serial.unwrap_or(of_model.serial()).to_owned()
}
