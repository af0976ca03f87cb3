//! Datagrams (UDP): ports that are shared with other programs, and the networks of this machine.
//!
//! A slicer, the printer's other clients and a second proxy listen on the same ports, so every socket is bound with
//! `SO_REUSEADDR` and `SO_REUSEPORT`: a broadcast reaches all of them. Nothing here waits for a datagram to leave:
//! one for which the kernel has no room is lost, as datagrams may be.
//!
//! The networks are those of the kernel's table of routes, and the address that this machine has in each is the one
//! that the kernel would send from. A datagram to a network's broadcast address leaves by that network's interface.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | bytes that wait in a socket | [`RECEIVE_BUFFER`] | the kernel drops datagrams |
//! | networks | [`MAX_SEGMENTS`](crate::segment::MAX_SEGMENTS) | the others are left out |
//! | bytes of the table of routes | [`MAX_ROUTES`] | the routes behind them are left out |

use core::future::poll_fn;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::task::{Context, Poll, ready};
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::UdpSocket as StdUdpSocket;
use std::path::Path;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::segment::{Segment, Segments};

/// Bytes that wait in a socket, as they are asked of the kernel: some thirty of a printer's datagrams.
pub const RECEIVE_BUFFER: usize = 32 * 1024;

/// Bytes of the kernel's table of routes that are read: some sixty routes.
pub const MAX_ROUTES: u64 = 8 * 1024;

/// The kernel's table of routes. `/proc/net` is hidden from the systemd unit by `ProcSubset=pid`.
const ROUTES: &str = "/proc/self/net/route";

/// Flags of an interface and of a route (netdevice(7), `linux/route.h`).
const IFF_BROADCAST: u32 = 0x2;
const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_REJECT: u32 = 0x200;

/// A UDP port, which other programs may share.
pub trait Datagrams: 'static {
    /// The next datagram, and where it came from. Bytes that `into` has no room for are lost.
    ///
    /// # Errors
    ///
    /// The socket reports an error. The next datagram may be received nevertheless.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;

    /// Sends a datagram, or loses it if the kernel has no room for it.
    ///
    /// # Errors
    ///
    /// The datagram was not sent.
    fn send(&self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()>;

    /// Receives what is sent to `group` in the network in which this machine has the address `at`.
    ///
    /// # Errors
    ///
    /// The kernel refuses, as it does for a group that was joined before.
    fn join(&self, group: Ipv4Addr, at: Ipv4Addr) -> io::Result<()>;

    /// The next datagram, and where it came from. Bytes that `into` has no room for are lost.
    ///
    /// # Errors
    ///
    /// Errors of [`poll_receive`](Self::poll_receive).
    fn receive(&self, into: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> {
        poll_fn(|cx| self.poll_receive(cx, into))
    }
}

impl Datagrams for UdpSocket {
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut into = ReadBuf::new(into);
        let from = ready!(self.poll_recv_from(cx, &mut into))?;
        Poll::Ready(Ok((into.filled().len(), from)))
    }

    fn send(&self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
        // Not tokio's, which needs to have waited for the socket before its first datagram.
        SockRef::from(self).send_to(datagram, &to.into()).map(drop)
    }

    fn join(&self, group: Ipv4Addr, at: Ipv4Addr) -> io::Result<()> {
        self.join_multicast_v4(group, at)
    }
}

/// Binds a UDP port of all addresses of this machine, and shares it with other programs.
///
/// # Errors
///
/// Another program has the port and does not share it.
pub(super) fn bind(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_broadcast(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// The networks that this machine has an address in now, without the loopback network.
pub(super) fn segments() -> Segments {
    let mut text = heapless::Vec::<u8, { MAX_ROUTES as usize }>::new();
    // Not more of it than there is room for; a system without the table has no networks that could be named.
    if let Ok(routes) = File::open(ROUTES) {
        read_up_to(routes, &mut text);
    }
    segments_of(&text, has_broadcast, source_towards)
}

/// Reads `file` until its end, or until `into` is full.
fn read_up_to<const N: usize>(mut file: File, into: &mut heapless::Vec<u8, N>) {
    let mut piece = [0; 512];
    while let Ok(len @ 1..) = file.read(&mut piece) {
        let fits = into.extend_from_slice(piece.get(..len).unwrap_or_default());
        if fits.is_err() {
            break;
        }
    }
}

/// The networks in the kernel's table of routes: one line for each route, with the interface, the destination, the
/// gateway, flags, three counts and the mask.
fn segments_of(
    routes: &[u8],
    has_broadcast: impl Fn(&str) -> bool,
    source: impl Fn(Ipv4Addr) -> Option<Ipv4Addr>,
) -> Segments {
    let mut segments = Segments::new();
    let routes = core::str::from_utf8(routes).unwrap_or_default();
    for route in routes.lines().skip(1) {
        let Some((interface, network, prefix)) = connected(route) else { continue };
        let Some(found) = Segment::new(network, prefix) else { continue };
        let is_known = segments.iter().any(|known| known.contains(network));
        if is_known || !has_broadcast(interface) {
            continue;
        }
        // The first address of the network, in use or not.
        let host = Ipv4Addr::from_bits(network.to_bits() | 1);
        let own = source(host).filter(|own| found.contains(*own));
        // More networks than there is room for are left out.
        let _full = own.and_then(|own| segments.push(found.at(own)).ok());
    }
    segments
}

/// Interface, network and prefix length of a route that needs no gateway.
fn connected(route: &str) -> Option<(&str, Ipv4Addr, u8)> {
    let mut columns = route.split_ascii_whitespace();
    let interface = columns.next()?;
    let mut number = || u32::from_str_radix(columns.next()?, 16).ok();
    let (network, _gateway, flags) = (number()?, number()?, number()?);
    let mask = columns.nth(3).and_then(|mask| u32::from_str_radix(mask, 16).ok())?;
    let is_connected = flags & (RTF_UP | RTF_GATEWAY | RTF_REJECT) == RTF_UP;
    // The kernel prints the bytes of an address as one number of this machine.
    let [network, mask] = [network, mask].map(|bytes| Ipv4Addr::from(bytes.to_ne_bytes()));
    is_connected.then_some((interface, network, mask.to_bits().leading_ones() as u8))
}

/// Whether datagrams can be broadcast by this interface. One whose flags cannot be read is tried.
fn has_broadcast(interface: &str) -> bool {
    let is_name = !interface.contains('/') && interface != "..";
    let flags = Path::new("/sys/class/net").join(interface).join("flags");
    let flags = fs::read_to_string(flags).ok().filter(|_| is_name);
    let flags = flags.as_deref().and_then(|flags| flags.trim().strip_prefix("0x"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
    flags.is_none_or(|flags| flags & IFF_BROADCAST != 0)
}

/// Files that Docker and Podman put into every container.
const CONTAINER: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Whether this is a container whose way out is one end of a virtual cable, the other end of which is in a bridge. A
/// container in the host's network, or with an address of its own in the LAN (macvlan, ipvlan), is not.
pub(super) fn is_bridged() -> bool {
    let is_container = CONTAINER.iter().any(|file| Path::new(file).exists());
    is_container
        && fs::read_to_string(ROUTES).is_ok_and(|routes| way_out(&routes).is_some_and(is_cable))
}

/// The interface of the default route.
fn way_out(routes: &str) -> Option<&str> {
    let mut columns = routes.lines().skip(1).map(str::split_ascii_whitespace);
    columns.find_map(|mut columns| {
        let interface = columns.next()?;
        (columns.next()? == "00000000").then_some(interface)
    })
}

/// Whether an interface is one end of a virtual cable (veth): it is linked to another interface than itself, and is of
/// no type that has a name.
fn is_cable(interface: &str) -> bool {
    let read = |file: &str| {
        let path = Path::new("/sys/class/net").join(interface).join(file);
        fs::read_to_string(path).unwrap_or_default()
    };
    read("iflink").trim() != read("ifindex").trim() && !read("uevent").contains("DEVTYPE=")
}

/// The address from which this machine would send to `to`.
pub(super) fn source_towards(to: Ipv4Addr) -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing; it only chooses the way. The port is any.
    let socket = StdUdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(own) => Some(*own.ip()).filter(|own| !own.is_unspecified()),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    /// An address as the kernel prints it on this machine.
    fn hex(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    fn route(interface: &str, to: [u8; 4], flags: u32, mask: [u8; 4]) -> String {
        let (to, none, mask) = (hex(to), hex([0; 4]), hex(mask));
        format!("{interface}\t{to}\t{none}\t{flags:04X}\t0\t0\t600\t{mask}\t0\t0\t0\n")
    }

    fn found(routes: &str) -> Vec<String> {
        let source = |to: Ipv4Addr| Some(Ipv4Addr::from_bits(to.to_bits() + 4));
        let segments = segments_of(routes.as_bytes(), |interface| interface != "wg0", source);
        let shown = segments.iter().map(|at| format!("{at} {} {}", at.address(), at.broadcast()));
        shown.collect()
    }

    #[test]
    fn networks_are_read_from_the_table_of_routes() {
        let table = [
            HEAD,
            &route("wlan0", [0; 4], 3, [0; 4]),
            &route("wlan0", [192, 168, 1, 0], 1, [255, 255, 255, 0]),
            &route("eth0", [192, 168, 1, 0], 1, [255, 255, 255, 0]),
            &route("eth0", [10, 2, 0, 0], 1, [255, 255, 0, 0]),
            &route("eth0", [10, 7, 0, 0], 3, [255, 255, 0, 0]),
            &route("*", [10, 8, 0, 0], 0x201, [255, 255, 0, 0]),
            &route("wg0", [10, 9, 0, 0], 1, [255, 255, 255, 0]),
            &route("ppp0", [10, 10, 0, 1], 1, [255, 255, 255, 255]),
        ];
        let expected =
            ["192.168.1.0/24 192.168.1.5 192.168.1.255", "10.2.0.0/16 10.2.0.5 10.2.255.255"];
        assert_eq!(found(&table.concat()), expected);
    }

    #[test]
    fn the_way_out_is_the_default_routes_interface() {
        let lan = route("wlan0", [192, 168, 1, 0], 1, [255, 255, 255, 0]);
        let default = route("eth0", [0; 4], 3, [0; 4]);
        assert_eq!(way_out(&[HEAD, &lan, &default].concat()), Some("eth0"));
        assert_eq!(way_out(&[HEAD, &lan].concat()), None);
        assert!(!is_cable("lo"), "the loopback interface is linked to itself");
    }

    #[test]
    fn a_table_that_is_no_table_has_no_networks() {
        for text in ["", "Iface", "Iface\neth0", "Iface\neth0\tX\tY\tZ\n", "Iface\neth0\t0\t0\t1\n"]
        {
            assert!(found(text).is_empty(), "{text}");
        }
        let many: String =
            (0..200).map(|n| route("eth0", [10, n, 0, 0], 1, [255, 255, 0, 0])).collect();
        assert_eq!(found(&format!("{HEAD}{many}")).len(), crate::segment::MAX_SEGMENTS);
    }

    #[test]
    fn a_port_is_shared_and_a_long_datagram_is_cut() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_io().build().unwrap().block_on(async {
            let (first, sender) = (bind(0).unwrap(), bind(0).unwrap());
            let port = first.local_addr().unwrap().port();
            let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let mut bytes = [0; 8];
            Datagrams::send(&sender, &[7; 9000], to).unwrap();
            let (len, from) = first.receive(&mut bytes).await.unwrap();
            assert_eq!((len, from.port()), (8, sender.local_addr().unwrap().port()));
            assert!(bind(port).is_ok(), "another program may listen on it as well");
        });
    }

    #[test]
    fn this_machine_sends_to_itself_from_its_own_address() {
        assert_eq!(source_towards(Ipv4Addr::LOCALHOST), Some(Ipv4Addr::LOCALHOST));
        for segment in segments() {
            assert!(segment.contains(segment.broadcast()), "{}", segment.to_string());
        }
    }
}
