//! The data connections of FTP: between the ends of a recording and the real mover, over wires in memory.
//!
//! A recording has what was said within TLS. So these connections have TLS of their own, the mover's on
//! its side and rustls on the test's, and PROT P stays what it is. Of a client's connection the recording
//! does not say when it was made, only when the mover took it up: here it is made as soon as its port is
//! named. The proxy's ports are others than in the recording, and the same each time; which is which is
//! known from the replies that name them.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::ftp;
use pandaproxy::memory::budget;
use pandaproxy::runtime::dial::BackOff;
use pandaproxy::runtime::files::passive::PassivePorts;
use pandaproxy::runtime::files::transfer::{DataDialler, move_data};
use pandaproxy::runtime::services::ftp::{Files, maintain_session};
use pandaproxy::state_dir::Pins;
use pandaproxy::tls::{Identity, Policy, ServerConfig, Subject, Trust};
use rustls::pki_types::ServerName;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::heard::Heard;
use super::recording::{Conversation, End};
use super::{Stage, Tape, address};
use crate::clients::proxy::{StateDir, trusting};
use crate::lan::net::{PRINTER, SimNet};
use crate::lan::weather::{Chance, Line, Net, Sky, Wire};
use crate::lan::{PROXY, WIRE};
use printer::tls::Shown;
use printer::{CA, Model};

/// What a recorder keeps of a transfer.
const KEPT: usize = 64 * 1024;

/// How often it is looked whether somebody may speak. The end of the replay ends that.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The data connections of a recording.
pub(crate) struct Data {
    net: Net,
    /// The network that the proxy is on.
    own: SimNet,
    line: Rc<Line>,
    left: RefCell<Vec<Conversation>>,
    /// When the printer's ended then, and how many of them have ended now.
    ended: Vec<Duration>,
    over: Cell<usize>,
    tls: Tls,
}

/// The mover's two sides of TLS, and the other ends of both.
struct Tls {
    trust: Trust,
    server: Arc<ServerConfig>,
    client: TlsConnector,
    printer: TlsAcceptor,
}

impl Tls {
    fn new() -> Self {
        let (dir, serial) = (StateDir::new(), Model::P1S.serial());
        let subject = Subject { serial, addresses: &[PROXY.into()] };
        let identity = Identity::load_or_make(dir.path(), &subject, SystemTime::now()).unwrap();
        let pins = Pins::in_dir(dir.path());
        Self {
            trust: Trust::new(serial, Policy::Verify, Some(CA), pins, SystemTime::now).unwrap(),
            server: identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS).unwrap(),
            client: trusting(&dir.file("ca.pem")),
            printer: TlsAcceptor::from(Shown::own(Model::P1S).config(Model::P1S).unwrap()),
        }
    }
}

impl Data {
    /// What was recorded beside these conversations with the file service.
    pub(crate) fn beside(own: &[Conversation], conversations: Vec<Conversation>) -> Rc<Self> {
        let clear =
            |whole: &Conversation| whole.all(End::Client).windows(6).any(|six| six == b"PROT C");
        assert!(!own.iter().any(clear), "data without TLS are not replayed");
        for whole in &conversations {
            let most = [End::Client, End::Server].map(|end| whole.all(end).len());
            assert!(
                most.iter().all(|len| *len < KEPT),
                "a part of what was transferred is missing"
            );
        }
        let printers = conversations.iter().filter(|whole| whole.is_printers);
        let ended = printers.filter_map(|whole| Some(whole.ended?.0)).collect();
        Rc::new(Self {
            net: Net::new(Chance(1)),
            own: SimNet::new(),
            line: Line::new(Sky::default()),
            left: RefCell::new(conversations),
            ended,
            over: Cell::new(0),
            tls: Tls::new(),
        })
    }

    /// The next conversation over this port of the printer's or of the proxy's.
    fn take(&self, is_printers: bool, port: u16) -> Option<Conversation> {
        let mut left = self.left.borrow_mut();
        let is = |whole: &Conversation| whole.is_printers == is_printers && whole.port == port;
        let at = left.iter().position(is)?;
        Some(left.remove(at))
    }

    fn wire(&self, what: &'static str) -> (Wire, Wire) {
        self.net.wire(what, &self.line, WIRE)
    }

    /// Completes when the printer may say on `whole` what it said at that time: it has been told as many
    /// lines as then, and as many of its data connections have ended.
    pub(crate) async fn asked_for(
        &self,
        whole: &Conversation,
        at: Duration,
        heard: &RefCell<Heard>,
    ) {
        if whole.port != 21 {
            return;
        }
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let before = whole.said.iter().filter(|said| said.by == End::Client && said.at < at);
        let asked: usize = before.map(|said| lines(&said.bytes)).sum();
        let ended = self.ended.iter().filter(|ended| **ended < at).count();
        while lines(heard.borrow().bytes()) < asked || self.over.get() < ended {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Makes the data connections of a client: each when its port is named.
    pub(crate) async fn follow(
        self: Rc<Self>,
        stage: Stage,
        control: Conversation,
        number: u32,
        heard: Rc<RefCell<Heard>>,
    ) {
        for (nth, then) in named(&control.all(End::Server)).into_iter().enumerate() {
            let now = loop {
                if let Some(port) = named(heard.borrow().bytes()).get(nth) {
                    break *port;
                }
                sleep(LOOK_EVERY).await;
            };
            let Some(whole) = self.take(false, then) else { continue };
            let name = format!("client {number} on a data connection");
            let its = stage.listener(&name, &whole);
            let (near, wire) = self.net.wire("ftp: data of a client", &self.line, 16 * 1024);
            if !self.own.arrive(now, address(number), near) {
                continue;
            }
            let (stage, own) = (stage.clone(), Rc::clone(&self));
            spawn_local(async move {
                let connected =
                    own.tls.client.connect(ServerName::from(IpAddr::from(PROXY)), wire).await;
                match connected {
                    Ok(stream) => stage.act(stream, whole, stage.begun, End::Client, its).await,
                    Err(_) => its.borrow_mut().ends("broken", stage.begun.elapsed()),
                }
            });
        }
    }
}

/// The ports that these replies to PASV and EPSV name.
fn named(replies: &[u8]) -> Vec<u16> {
    let port = |line: &str| {
        let numbers: Vec<u16> =
            line[4..].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        match (&line[..4], &numbers[..]) {
            ("227 ", [.., high, low]) => Some(256 * high + low),
            ("229 ", [port]) => Some(*port),
            _ => None,
        }
    };
    let replies = String::from_utf8_lossy(replies).into_owned();
    replies.split_terminator("\r\n").filter(|line| line.len() > 4).filter_map(port).collect()
}

impl Data {
    /// A connection to a data port of the recorded printer.
    fn reach(self: &Rc<Self>, stage: &Stage, port: u16) -> Option<Wire> {
        let data = self;
        let whole = data.take(true, port)?;
        let (near, far) = data.wire("data of the printer");
        let (stage, data) = (stage.clone(), Rc::clone(data));
        spawn_local(async move {
            let heard = stage.listener("the printer on a data connection", &whole);
            match data.tls.printer.accept(far).await {
                Ok(stream) => stage.act(stream, whole, stage.begun, End::Server, heard).await,
                Err(_) => heard.borrow_mut().ends("broken", stage.begun.elapsed()),
            }
            data.over.set(data.over.get() + 1);
        });
        Some(near)
    }
}

/// The service before the printer of this tape, and the one session that a P1 has to give.
pub(crate) fn service(code: AccessCode, stage: &Stage, tape: Tape) -> Files<SimNet> {
    let data = stage.data.clone().unwrap();
    let service = ftp::Service::new(code, 1);
    let passive_ports = PassivePorts::new(data.own.clone(), PROXY.into(), 50_000..=50_009);
    let printer_session = Rc::clone(&service.printer_sessions()[0]);
    let keeper = maintain_session(
        Rc::clone(&service),
        Rc::clone(&printer_session),
        Rc::default(),
        tape,
        stage.clock,
        BackOff::new(3),
    );
    spawn_local(keeper);
    let (trust, tls) = (data.tls.trust.clone(), Arc::clone(&data.tls.server));
    let net = data.own.clone();
    let stage = stage.clone();
    let clock = stage.clock;
    net.put_data(move |port| core::future::ready(data.reach(&stage, port)));
    let ports = DataDialler { net, at: Rc::new(Cell::new(Some(PRINTER))) };
    spawn_local(move_data(printer_session, ports, Rc::clone(&passive_ports), trust, tls, clock));
    Files { service, passive_ports }
}
