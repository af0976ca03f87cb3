//! A printer that is given by name: how often the name is resolved, and the use of the result.

use core::cell::Cell;
use core::net::IpAddr;
use std::rc::Rc;

use pandaproxy::runtime::host::MAX_AGE;
use pandaproxy::runtime::launch::Proxy;
use printer::{Model, Printer};
use tokio::io::DuplexStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::lan::chamber::{At, Port};
use crate::lan::net::{PRINTER, SimNet};
use crate::lan::root::start;
use crate::lan::{self, CODE, journal_says, pass, secs};

/// A P1S, the ports that are dialled, and a resolver that counts.
struct Bed {
    net: SimNet,
    printer: Printer,
    mqtt: Port,
    looked_up: Rc<Cell<u32>>,
    at_once: Rc<Cell<u32>>,
    /// Address of the name; `None` if it cannot be resolved.
    address: Rc<Cell<Option<IpAddr>>>,
}

impl Bed {
    /// A look-up takes this many seconds.
    fn new(takes: u64) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(Model::P1S).quiet());
        let serving = {
            let printer = printer.clone();
            Rc::new(move |stream: DuplexStream| {
                let printer = printer.clone();
                spawn_local(async move { printer.serve(stream).await });
            })
        };
        let mqtt = Port::new(At::Script(serving));
        net.put(8883, mqtt.clone());
        net.put(6000, Port::new(At::Closed));
        net.put(322, Port::new(At::Closed));
        let (looked_up, at_once) = (Rc::<Cell<u32>>::default(), Rc::<Cell<u32>>::default());
        let address = Rc::new(Cell::new(Some(PRINTER)));
        let (count, now, found) = (Rc::clone(&looked_up), Rc::clone(&at_once), Rc::clone(&address));
        net.resolving(move || {
            let (now, found) = (Rc::clone(&now), Rc::clone(&found));
            count.set(count.get() + 1);
            async move {
                now.set(now.get() + 1);
                assert_eq!(now.get(), 1, "one look-up at a time");
                pass(secs(takes)).await;
                now.set(now.get() - 1);
                found.get()
            }
        });
        Self { net, printer, mqtt, looked_up, at_once, address }
    }

    fn proxy(&self, services: &str) -> Proxy {
        start(&self.net, Model::P1S.serial(), CODE, &[services])
    }
}

#[test]
fn one_look_up_serves_all_services_for_half_a_minute() {
    lan::run(async {
        let bed = Bed::new(4);
        let _proxy = bed.proxy("--services=mqtt,camera,ftp");
        pass(secs(3)).await;
        assert_eq!((bed.looked_up.get(), bed.at_once.get()), (1, 1), "all wait for one");
        pass(secs(10)).await;
        assert_eq!(bed.printer.subscribers(), 1);
        for _ in 0..3 {
            bed.printer.reboot(secs(1));
            pass(secs(5)).await;
        }
        assert!(bed.mqtt.dialled() > 3, "{} times dialled", bed.mqtt.dialled());
        assert_eq!(bed.looked_up.get(), 1, "the address is kept");
        pass(MAX_AGE).await;
        bed.printer.reboot(secs(1));
        pass(secs(20)).await;
        assert_eq!(bed.printer.subscribers(), 1);
        assert_eq!(bed.looked_up.get(), 2, "an old address is looked up again");
    });
}

#[test]
fn a_name_that_fails_later_keeps_its_last_address() {
    lan::run(async {
        for takes in [0, 3600] {
            let bed = Bed::new(takes);
            let quick = Rc::new(Cell::new(true));
            if takes > 0 {
                // The first look-up is answered, the later ones are not.
                let (first, found) = (Rc::clone(&quick), Rc::clone(&bed.address));
                bed.net.resolving(move || {
                    let (is_first, found) = (first.replace(false), Rc::clone(&found));
                    async move {
                        if !is_first {
                            pass(secs(3600)).await;
                        }
                        found.get()
                    }
                });
            }
            let _proxy = bed.proxy("--services=mqtt");
            pass(secs(5)).await;
            assert_eq!(bed.printer.subscribers(), 1);
            bed.address.set(None);
            pass(MAX_AGE).await;
            bed.printer.reboot(secs(1));
            pass(secs(20)).await;
            assert_eq!(bed.printer.subscribers(), 1, "look-ups take {takes} s");
        }
    });
}

#[test]
fn a_name_of_this_machine_is_refused_at_dial() {
    lan::run(async {
        let bed = Bed::new(0);
        bed.address.set(Some(IpAddr::from([127, 0, 0, 1])));
        let _proxy = bed.proxy("--services=mqtt");
        pass(secs(5)).await;
        assert!(journal_says("127.0.0.1 is this machine: the proxy would connect to itself"));
        assert_eq!(bed.mqtt.dialled(), 0, "nothing is dialled");
        // The name was corrected.
        bed.address.set(Some(PRINTER));
        pass(secs(90)).await;
        assert_eq!(bed.printer.subscribers(), 1);
    });
}

#[test]
fn an_unresolved_name_does_not_delay_the_end() {
    lan::run(async {
        let bed = Bed::new(3600);
        let proxy = bed.proxy("--services=mqtt,camera,ftp");
        pass(secs(1)).await;
        let since = Instant::now();
        proxy.stop().await;
        assert!(since.elapsed() <= secs(3), "{:?}", since.elapsed());
    });
}
