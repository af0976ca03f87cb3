//! The proxy as `runtime::launch` makes it, without sockets and TLS: as many workers as there are slots,
//! each with its buffers, before a printer that can be taken away and replaced.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use pandaproxy::auth::AccessCode;
use pandaproxy::board::BOARD;
use pandaproxy::journal;
use pandaproxy::memory::budget::SLOTS;
use pandaproxy::mqtt::client::CONNECT_TIMEOUT;
use pandaproxy::mqtt::{Service, Topics};
use pandaproxy::peer::Peer;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::dial::{BackOff, Dial, DialError};
use pandaproxy::runtime::drive::Buffers;
use pandaproxy::runtime::services::mqtt::{maintain_upstream, serve_client};
use pandaproxy::runtime::worker::AcceptedClient;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::lan::{CODE, PROXY, WIRE};
use crate::share::Share;
use printer::{Model, Printer};

/// A proxy whose own heap is known.
pub(crate) struct Bed {
    pub(crate) service: Rc<Service>,
    /// What the proxy holds, without the simulated ends.
    pub(crate) share: Share,
    acceptor: Rc<Queue<DuplexStream>>,
    printer: Rc<RefCell<Option<Printer>>>,
}

impl Bed {
    /// A proxy before the place where a P1S will stand.
    pub(crate) fn new() -> Rc<Self> {
        let clock = Clock::start();
        let share = Share::default();
        let service = share.during(|| {
            let topics = Topics::new(Model::P1S.serial(), 0xabcd);
            Service::new(topics, AccessCode::new(CODE.as_bytes()).unwrap(), clock.now())
        });
        let acceptor = Rc::new(Queue::new());
        for number in 0..SLOTS {
            let (service, acceptor) = (Rc::clone(&service), Rc::clone(&acceptor));
            spawn_local(share.of(work(service, acceptor, number, clock)));
        }
        let printer = Rc::new(RefCell::new(None));
        let calls = Rc::new(Queue::new());
        spawn_local(answer(Rc::clone(&printer), Rc::clone(&calls)));
        let dialler = Dialler { printer: Rc::clone(&printer), calls };
        let keeper =
            maintain_upstream(Rc::clone(&service), Rc::default(), dialler, clock, BackOff::new(1));
        spawn_local(share.of(keeper));
        spawn_local(share.of(housekeep(Rc::clone(&service), clock)));
        Rc::new(Self { service, share, acceptor, printer })
    }

    /// Puts a printer there.
    pub(crate) fn plug_in(&self, printer: &Printer) {
        *self.printer.borrow_mut() = Some(printer.clone());
    }

    /// Takes the printer away, with all its connections.
    pub(crate) fn unplug(&self) {
        if let Some(printer) = self.printer.take() {
            printer.reboot(Duration::ZERO);
        }
    }

    /// Waits until the printer takes requests.
    pub(crate) async fn live(&self) {
        for _ in 0..1200 {
            if self.service.is_live() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the printer is not there after two minutes");
    }

    /// A wire to the proxy that holds `bytes` in each direction.
    pub(crate) fn wire(&self, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        self.acceptor.put(far);
        near
    }
}

async fn work(
    service: Rc<Service>,
    acceptor: Rc<Queue<DuplexStream>>,
    number: usize,
    clock: Clock,
) {
    let mut buffers = Buffers::new(BOARD.mqtt.inbox, BOARD.mqtt.outbox);
    let number = u32::try_from(number).unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
    let peer = Peer { service: "mqtt", number, address };
    loop {
        let far = acceptor.next().await;
        let until = clock.now() + CONNECT_TIMEOUT;
        let accepted_client =
            AcceptedClient { peer, reached: Some(PROXY), until, admitted: &|| {} };
        let _end = serve_client(&service, far, accepted_client, &mut buffers, &clock).await;
    }
}

async fn housekeep(service: Rc<Service>, clock: Clock) {
    loop {
        journal::set_now(clock.now());
        service.handle_timeout(clock.now());
        sleep(Duration::from_secs(1)).await;
    }
}

/// The way to the printer, if there is one.
struct Dialler {
    printer: Rc<RefCell<Option<Printer>>>,
    calls: Rc<Queue<DuplexStream>>,
}

impl Dial for Dialler {
    type Stream = DuplexStream;

    async fn dial(&mut self) -> Result<DuplexStream, DialError> {
        if self.printer.borrow().is_none() {
            return Err(DialError::Off);
        }
        let (near, far) = duplex(WIRE);
        self.calls.put(far);
        Ok(near)
    }
}

/// The printer's side of the wire: its tasks are not the proxy's.
async fn answer(printer: Rc<RefCell<Option<Printer>>>, calls: Rc<Queue<DuplexStream>>) {
    loop {
        let far = calls.next().await;
        let printer = printer.borrow().clone();
        if let Some(printer) = printer {
            spawn_local(async move { printer.serve(far).await });
        }
    }
}

/// Whoever waits; never more than [`ACCEPT_QUEUE`].
struct Queue<T> {
    waiting: RefCell<VecDeque<T>>,
    came: Notify,
}

/// Wires that may wait for a worker.
const ACCEPT_QUEUE: usize = 64;

impl<T> Queue<T> {
    fn new() -> Self {
        Self { waiting: RefCell::new(VecDeque::with_capacity(ACCEPT_QUEUE)), came: Notify::new() }
    }

    fn put(&self, item: T) {
        let mut waiting = self.waiting.borrow_mut();
        assert!(waiting.len() < ACCEPT_QUEUE, "more than {ACCEPT_QUEUE} wait");
        waiting.push_back(item);
        self.came.notify_one();
    }

    async fn next(&self) -> T {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            if let Some(next) = next {
                return next;
            }
            self.came.notified().await;
        }
    }
}
