//! MQTT as `runtime::launch` starts it, on a simulated network, before a printer that can be taken away and
//! replaced.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use pandaproxy::mqtt::Service;
use pandaproxy::runtime::dial::{Dial, DialError};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::lan::net::SimNet;
use crate::lan::{WIRE, root};
use crate::share::Share;
use printer::{Model, Printer};

/// A proxy whose own allocations are counted.
pub(crate) struct Bed {
    pub(crate) service: Rc<Service>,
    /// Allocations of the proxy, without those of the simulated ends.
    pub(crate) share: Share,
    net: SimNet,
    printer: Rc<RefCell<Option<Printer>>>,
}

impl Bed {
    /// A proxy of a P1S that is not there yet.
    pub(crate) fn new() -> Rc<Self> {
        let (net, share) = (SimNet::new(), Share::default());
        let printer = Rc::new(RefCell::new(None));
        let calls = Rc::new(Queue::new());
        spawn_local(answer(Rc::clone(&printer), Rc::clone(&calls)));
        net.put(8883, Dialler { printer: Rc::clone(&printer), calls });
        share.of_tasks_on(&net);
        let start = root::one(&net, "mqtt", Model::P1S.serial(), &["--services=mqtt"]);
        let proxy = share.during(start);
        let service = proxy.service().unwrap();
        Rc::new(Self { service, share, net, printer })
    }

    /// Switches a printer on.
    pub(crate) fn plug_in(&self, printer: &Printer) {
        *self.printer.borrow_mut() = Some(printer.clone());
    }

    /// Switches the printer off, which ends its connections.
    pub(crate) fn unplug(&self) {
        if let Some(printer) = self.printer.take() {
            printer.reboot(Duration::ZERO);
        }
    }

    /// Waits until the printer accepts requests.
    pub(crate) async fn live(&self) {
        for _ in 0..1200 {
            if self.service.is_live() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the printer is not there after two minutes");
    }

    /// A connection to the proxy that buffers `bytes` in each direction.
    pub(crate) fn wire(&self, bytes: usize) -> DuplexStream {
        let (near, far) = duplex(bytes);
        assert!(self.net.arrive(8883, self.net.next_client(), far), "the port is open");
        near
    }
}

/// Connects to the printer, if there is one.
#[derive(Clone)]
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

/// The printer's end of the connection: its tasks are not the proxy's.
async fn answer(printer: Rc<RefCell<Option<Printer>>>, calls: Rc<Queue<DuplexStream>>) {
    loop {
        let far = calls.next().await;
        let printer = printer.borrow().clone();
        if let Some(printer) = printer {
            spawn_local(async move { printer.serve(far).await });
        }
    }
}

/// Connections that wait; at most [`ACCEPT_QUEUE`].
struct Queue<T> {
    waiting: RefCell<VecDeque<T>>,
    came: Notify,
}

/// Connections that may wait for a worker.
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
