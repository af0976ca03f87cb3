//! A slicer uses the proxy, however it learned of the printer and whatever the printer announces meanwhile.

use core::net::Ipv4Addr;
use core::time::Duration;

use core::cell::RefCell;

use printer::ssdp::Announcer;

use super::{Bed, PC, PRINTER, Studio};
use crate::lan::{self, PROXY, pass, secs};

/// How the slicer got to know the printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    ThroughThePrinter,
    ThroughTheProxy,
    ByAddress,
    RestoredAtStart,
}

const ALL: [Known; 4] =
    [Known::ThroughThePrinter, Known::ThroughTheProxy, Known::ByAddress, Known::RestoredAtStart];

/// Looks 8,000 times where a job for the printer `serial` would go: at how many moments one could be started, and at how
/// many of them it would go to the proxy.
async fn moments(studio: &RefCell<Studio>, serial: &str) -> (u32, u32) {
    let ours = PROXY.to_string();
    studio.borrow_mut().select(serial);
    let (mut moments, mut right) = (0, 0);
    for _ in 0..8_000 {
        // Not a divisor of any announcement's interval.
        pass(Duration::from_millis(37)).await;
        let studio = studio.borrow();
        let device = studio.device(serial).unwrap();
        if device.is_usable() {
            moments += 1;
            right += u32::from(device.address == ours);
        }
    }
    (moments, right)
}

/// Moves the printer to a network of its own, in which the proxy is as well, where it announces itself. Returns its address.
fn away(bed: &Bed) -> Ipv4Addr {
    let (printers, away) = (Ipv4Addr::new(10, 2, 0, 3), Ipv4Addr::new(10, 2, 0, 4));
    bed.net.air().set_proxy(&[PROXY, printers]);
    bed.net.move_printer(away.into());
    bed.announcements.set_address(away);
    away
}

/// Of the moments at which a job could be started, how many there were, and in how many it would go to the proxy.
async fn watch(bed: &Bed, known: Known) -> (u32, u32) {
    let studio = bed.studio(PC);
    let ours = PROXY.to_string();
    let proxy = match known {
        Known::ThroughThePrinter => {
            bed.announce();
            pass(secs(20)).await;
            let device = studio.borrow().device(&bed.serial).unwrap().clone();
            assert_eq!(device.address, PRINTER.to_string());
            let proxy = bed.start();
            pass(secs(20)).await;
            proxy
        }
        Known::ThroughTheProxy => {
            let proxy = bed.start();
            pass(secs(20)).await;
            bed.announce();
            proxy
        }
        Known::ByAddress => {
            bed.announce();
            let proxy = bed.start();
            studio.borrow_mut().add_by_address(&bed.serial, &ours);
            pass(secs(20)).await;
            proxy
        }
        Known::RestoredAtStart => {
            studio.borrow_mut().add_by_address(&bed.serial, &ours);
            let proxy = bed.start();
            pass(secs(20)).await;
            bed.announce();
            proxy
        }
    };
    let moments = moments(&studio, &bed.serial).await;
    assert_eq!((studio.borrow().resets, studio.borrow().dropped), (0, 0));
    proxy.stop().await;
    moments
}

#[test]
fn a_slicer_beside_the_printer_stays_with_the_proxy() {
    for of in Announcer::ALL {
        for known in ALL {
            lan::run(async {
                let bed = Bed::new(of);
                let (moments, right) = watch(&bed, known).await;
                println!("{of:?} {known:?}: {right} of {moments}");
                assert!(moments > 7_500, "{of:?} {known:?}: usable at {moments} moments");
                assert!(right * 100 >= moments * 99, "{of:?} {known:?}: {right} of {moments}");
            });
        }
    }
}

#[test]
fn a_slicer_away_from_the_printer_has_the_proxy_always() {
    for of in Announcer::ALL {
        for known in [Known::ThroughTheProxy, Known::ByAddress, Known::RestoredAtStart] {
            lan::run(async {
                let bed = Bed::new(of);
                let (moments, right) = watch_away(&bed, known, away(&bed)).await;
                assert!(moments > 7_500, "{of:?} {known:?}: usable at {moments} moments");
                assert_eq!(right, moments, "{of:?} {known:?}");
            });
        }
    }
}

/// Wi-Fi that loses a fifth of all datagrams. Where the slicer keeps the proxy's interface, or does not hear the printer,
/// nothing changes. Where the last datagram counts, an answer that is lost leaves the printer's address for seconds:
/// there the rule of 99 % cannot hold (seen: 79 to 95 %).
#[test]
fn a_lossy_network_costs_only_where_the_last_datagram_counts() {
    for of in Announcer::ALL {
        for known in ALL {
            lan::run(async {
                let bed = Bed::new(of);
                bed.net.air().set_loss(20, 7);
                let (moments, right) = watch(&bed, known).await;
                println!("lossy, {of:?} {known:?}: {right} of {moments}");
                let has_interface = matches!(of, Announcer::P2S | Announcer::H2D);
                let least = if has_interface && known == Known::ThroughTheProxy { 100 } else { 70 };
                assert!(moments > 7_500, "{of:?} {known:?}: usable at {moments} moments");
                assert!(right * 100 >= moments * least, "{of:?} {known:?}: {right} of {moments}");
            });
        }
        lan::run(async {
            let bed = Bed::new(of);
            bed.net.air().set_loss(20, 7);
            let (moments, right) = watch_away(&bed, Known::ByAddress, away(&bed)).await;
            assert!(moments > 7_500, "{of:?}: usable at {moments} moments");
            assert_eq!(right, moments, "{of:?}");
        });
    }
}

async fn watch_away(bed: &Bed, known: Known, away: Ipv4Addr) -> (u32, u32) {
    bed.announce_from(away);
    let studio = bed.studio(PC);
    let ours = PROXY.to_string();
    if known != Known::ThroughTheProxy {
        studio.borrow_mut().add_by_address(&bed.serial, &ours);
    }
    let proxy = bed.start();
    pass(secs(40)).await;
    let moments = moments(&studio, &bed.serial).await;
    proxy.stop().await;
    moments
}
