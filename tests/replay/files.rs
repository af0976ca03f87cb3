//! FTP data connections: between the ends of a recording and the proxy's transfers, over wires in memory.
//!
//! A recording has the plaintext. The data connections are encrypted all the same, with the proxy's TLS at one
//! end and rustls in the test at the other, so that PROT P stays as recorded. The recording does not have the
//! time at which a client made its data connection: the replay makes the connection as soon as a reply names its
//! port. The proxy's data ports differ from the recorded ones; the replies name both.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::time::Duration;
use std::rc::Rc;

use rustls::pki_types::ServerName;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::heard::Heard;
use super::recording::{Conversation, End};
use super::{Stage, address};
use crate::lan::root;
use crate::lan::weather::{Chance, Line, Net, Sky, Wire};
use crate::lan::{PROXY, WIRE};
use printer::Model;
use printer::tls::Shown;

/// Bytes of one direction of a data connection that a recording keeps.
const KEPT: usize = 64 * 1024;

/// How often a task checks whether it may send. The end of the replay ends the task.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The data connections of a recording.
pub(crate) struct Data {
    /// Makes the wires of data connections.
    wires: Net,
    line: Rc<Line>,
    left: RefCell<Vec<Conversation>>,
    /// When the printer's data connections ended in the recording.
    ended: Vec<Duration>,
    /// How many of the printer's data connections have ended in the replay.
    over: Cell<usize>,
    /// The clients' TLS.
    client: TlsConnector,
    /// The printer's TLS.
    printer: TlsAcceptor,
}

impl Data {
    /// The data connections among `conversations`; `own` are the control connections.
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
            wires: Net::new(Chance(1)),
            line: Line::new(Sky::default()),
            left: RefCell::new(conversations),
            ended,
            over: Cell::new(0),
            client: root::tls_client(),
            printer: TlsAcceptor::from(Shown::own(Model::P1S).config(Model::P1S).unwrap()),
        })
    }

    /// The next conversation on this port of the printer or of the proxy.
    fn take(&self, is_printers: bool, port: u16) -> Option<Conversation> {
        let mut left = self.left.borrow_mut();
        let is = |whole: &Conversation| whole.is_printers == is_printers && whole.port == port;
        let at = left.iter().position(is)?;
        Some(left.remove(at))
    }

    fn wire(&self, what: &'static str) -> (Wire, Wire) {
        self.wires.wire(what, &self.line, WIRE)
    }

    /// Completes when the printer may send on `whole` what it sent at time `at`: the printer has received as
    /// many lines as it had then, and as many of its data connections have ended.
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

    /// Makes the data connections of a client, each when a reply names its port.
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
            let (near, wire) = self.wires.wire("ftp: data of a client", &self.line, 16 * 1024);
            if !stage.net.arrive(now, address(number), near) {
                continue;
            }
            let (stage, data) = (stage.clone(), Rc::clone(&self));
            spawn_local(async move {
                let connected =
                    data.client.connect(ServerName::from(IpAddr::from(PROXY)), wire).await;
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
    /// A connection to a data port of the recorded printer. `None`: none was made to this port then.
    pub(crate) fn reach(self: &Rc<Self>, stage: &Stage, port: u16) -> Option<Wire> {
        let data = self;
        let whole = data.take(true, port)?;
        let (near, far) = data.wire("data of the printer");
        let (stage, data) = (stage.clone(), Rc::clone(data));
        spawn_local(async move {
            let heard = stage.listener("the printer on a data connection", &whole);
            match data.printer.accept(far).await {
                Ok(stream) => stage.act(stream, whole, stage.begun, End::Server, heard).await,
                Err(_) => heard.borrow_mut().ends("broken", stage.begun.elapsed()),
            }
            data.over.set(data.over.get() + 1);
        });
        Some(near)
    }
}
