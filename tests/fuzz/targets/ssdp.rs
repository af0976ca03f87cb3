//! Discovery: no datagram causes a panic or more output than the limits allow; written datagrams can be read again.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use pandaproxy::clock::Instant;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::segment::Segment;
use pandaproxy::ssdp::hub::{Hub, MAX_OUTPUT};
use pandaproxy::ssdp::wire::{Announcement, Form, Message, Text, parse, write};
use pandaproxy::ssdp::{PORT, Plan};

/// The serial number of the seeds.
const SERIAL: &str = "01P00A3C1200417";

/// One datagram.
pub(crate) fn wire(data: &[u8]) {
    let Ok(Message::Alive(heard)) = parse(data) else { return };
    let mut text = Text::new();
    // A signal strength that was not read is written as the default.
    let heard = Announcement { signal: heard.signal.or(Some(-44)), server: "", ..heard };
    let heard =
        Announcement { location: Some(heard.location.unwrap_or(Ipv4Addr::LOCALHOST)), ..heard };
    if write(Form::Notify, &heard, &mut text).is_err() {
        return;
    }
    assert_eq!(text.lines().count(), 18, "a value began a line of its own");
    let Ok(Message::Alive(again)) = parse(text.as_bytes()) else {
        panic!("what was written is not read: {text}")
    };
    assert!(again.is_proxys());
    assert_eq!(Announcement { server: "", ..again }, heard);
}

/// Datagrams with a length of two bytes before each, one in ten milliseconds, from addresses in one network.
pub(crate) fn hub(mut data: &[u8]) {
    let serial = SERIAL.try_into().unwrap();
    let own = Ipv4Addr::new(10, 1, 2, 3);
    let plan = Plan { broadcast: true, ..Plan::default() };
    let mut hub = Hub::new(Instant::START, &serial, plan);
    hub.set_segments(Segment::new(own, 24).into_iter().collect());
    let status = Status::new(SERIAL, Port6000::Auto);
    status.set_reachable(true);
    status.set_version("01.09.01.00");
    let (mut now, mut sent, mut n) = (Instant::START, 0_u64, 0_u64);
    let mut text = Text::new();
    while let Some((len, rest)) = data.split_first_chunk() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
        data = rest;
        n += 1;
        now = now + Duration::from_millis(10);
        let from = SocketAddrV4::new(Ipv4Addr::from_bits(0x0a01_0200 | (n as u32 & 0xff)), 2021);
        hub.receive(now, &status, if n % 2 == 0 { PORT } else { 1990 }, datagram, from);
        if hub.deadline() <= now {
            hub.handle_timeout(now, &status);
        }
        let mut waiting = 0;
        while let Some(output) = hub.poll_output() {
            waiting += 1;
            sent += 1;
            assert!(hub.write(&status, output, own, &mut text).is_ok(), "it is not too long");
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
        assert!(waiting <= MAX_OUTPUT);
        let candidate = hub.candidate(now);
        assert!(candidate.is_none(), "the printer is not lost");
    }
    // The limit: the regular ones, and two answers and eight replies in each second, plus one of each.
    let seconds = now.elapsed().as_secs() + 1;
    assert!(
        sent <= seconds / 5 + 2 + 2 * (seconds + 1) + 8 * (seconds + 1),
        "{sent} in {seconds} s"
    );
}
