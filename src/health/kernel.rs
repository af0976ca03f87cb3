//! The kernel's tables of this machine: who listens on a port.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a table | [`MAX_TABLE`] bytes | the rest is not read |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// Bytes of a table that are read.
pub const MAX_TABLE: u64 = 1024 * 1024;

/// The tables of TCP sockets. `/proc/net` is hidden from the systemd unit by `ProcSubset=pid`.
const IPV4: &str = "/proc/self/net/tcp";
const IPV6: &str = "/proc/self/net/tcp6";

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The user whose program made it.
    pub uid: u32,
    /// Its number in `/proc/PID/fd`.
    pub inode: u64,
}

/// A file of the kernel, as far as it is text and no longer than [`MAX_TABLE`].
pub fn text(file: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(file) {
        // What was read before an error is used.
        let _read = file.take(MAX_TABLE).read_to_end(&mut bytes);
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// The socket that listens on `port` at `bind`, or where a socket bound there would conflict with it.
pub fn listener(bind: IpAddr, port: u16) -> Option<Listener> {
    [IPV4, IPV6]
        .into_iter()
        .find_map(|table| text(table).lines().find_map(|line| listening(line, bind, port)))
}

/// The user that runs this program.
pub fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}

/// The user whose programs get connections to `port` at `address`, which is no wildcard. `None`: nothing of this machine
/// listens there, or several users' sockets do.
pub fn user_at(address: IpAddr, port: u16) -> Option<u32> {
    user_in(&text(IPV4), &text(IPV6), address, port)
}

fn user_in(ipv4: &str, ipv6: &str, address: IpAddr, port: u16) -> Option<u32> {
    let of = |table: &str, address| -> Vec<u32> {
        table.lines().filter_map(|line| listening(line, address, port)).map(|it| it.uid).collect()
    };
    let users = match address {
        IpAddr::V4(four) => match of(ipv4, address) {
            // A socket for both families.
            none if none.is_empty() => of(ipv6, four.to_ipv6_mapped().into()),
            users => users,
        },
        IpAddr::V6(_) => of(ipv6, address),
    };
    let (first, others) = users.split_first()?;
    others.iter().all(|uid| uid == first).then_some(*first)
}

/// The socket in a line of a table, which has a number, the own address, the peer's, the state, the user as the eighth
/// field, and the inode as the tenth.
fn listening(line: &str, bind: IpAddr, port: u16) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, at) = fields.next()?.rsplit_once(':')?;
    let is_same = u16::from_str_radix(at, 16).ok()? == port && fields.nth(1)? == LISTEN;
    let any = address.bytes().all(|digit| digit == b'0');
    let conflicts = any || bind.is_unspecified() || address == hexadecimal(bind);
    if !(is_same && conflicts) {
        return None;
    }
    Some(Listener { uid: fields.nth(3)?.parse().ok()?, inode: fields.nth(1)?.parse().ok()? })
}

/// An address as the kernel prints it: in words of four bytes, each as a number of this machine.
fn hexadecimal(address: IpAddr) -> String {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(bytes))
    };
    match address {
        IpAddr::V4(address) => word(&address.octets()),
        IpAddr::V6(address) => address.octets().chunks(4).map(word).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(address: &str, port: u16, state: &str, uid: u32) -> String {
        format!(
            "   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:>5}        0 77 1 0 100 0 0 10 0\n"
        )
    }

    #[test]
    fn the_user_of_a_port_is_the_one_that_gets_its_connections() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let (own, any, any6) = (hexadecimal(loopback), "00000000", &"0".repeat(32));
        let mapped = "0000000000000000FFFF0000".to_owned() + &own;
        for (ipv4, ipv6, user) in [
            (line(&own, 8080, "0A", 998), String::new(), Some(998)),
            (line(any, 8080, "0A", 998), line(any6, 8080, "0A", 1000), Some(998)),
            (String::new(), line(any6, 8080, "0A", 998), Some(998)),
            (String::new(), line(&mapped, 8080, "0A", 998), Some(998)),
            // Established, of another port, at another address.
            (line(&own, 8080, "01", 0), String::new(), None),
            (line(&own, 8081, "0A", 0), String::new(), None),
            (line("0901A8C0", 8080, "0A", 0), String::new(), None),
            (line(any, 8080, "0A", 998) + &line(&own, 8080, "0A", 1000), String::new(), None),
        ] {
            let (ipv4, ipv6) = (format!("{HEAD}{ipv4}"), format!("{HEAD}{ipv6}"));
            assert_eq!(user_in(&ipv4, &ipv6, loopback, 8080), user, "{ipv4}{ipv6}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = socket.local_addr().unwrap();
        assert_eq!(user_at(at.ip(), at.port()), own_user());
        drop(socket);
        assert_eq!(user_at(at.ip(), at.port()), None);
    }
}
