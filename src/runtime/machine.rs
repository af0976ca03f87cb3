//! What this machine is called, and its addresses: clients may connect to any of them, and expect it in the certificate.
//!
//! Read from the kernel's tables as text, since systemd's sandbox denies the service a netlink socket. What cannot be
//! read is left out.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | bytes of one table | `MAX_TABLE` | the rest is not read |
//! | addresses | [`ADDRESSES`] | further ones are left out |

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fs::File;
use std::io::Read;

use crate::tls::identity::ADDRESSES;

/// Bytes of a table that are read: some thousand routes.
const MAX_TABLE: u64 = 256 * 1024;

/// The addresses of this machine's interfaces but for loopback ones, link-local ones and IPv6 addresses that
/// change within days (RFC 8981): IPv4 first. A program that listens on `bind`, an IPv4 address, has no IPv6 address: a
/// provider's prefix may be another one each day, and the certificate is to stay.
pub fn addresses(bind: IpAddr) -> heapless::Vec<IpAddr, ADDRESSES> {
    let four = text("/proc/self/net/fib_trie");
    let six = if bind.is_ipv6() { text("/proc/self/net/if_inet6") } else { String::new() };
    let mut found = heapless::Vec::new();
    for address in ipv4(&four).chain(ipv6(&six)) {
        if !found.contains(&address) && found.push(address).is_err() {
            break;
        }
    }
    found
}

/// The machine's host name, in full and in short, and its name in multicast DNS. Empty if it has none.
pub fn host_names() -> Vec<String> {
    let names = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    names
        .into_iter()
        .map(|file| names_of(&text(file)))
        .find(|names| !names.is_empty())
        .unwrap_or_default()
}

fn names_of(text: &str) -> Vec<String> {
    let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(name) = name.filter(|name| *name != "localhost" && *name != "(none)") else {
        return Vec::new();
    };
    let full = name.to_ascii_lowercase();
    let short = full.split('.').next().unwrap_or(&full);
    let mut names = alloc::vec![alloc::format!("{short}.local"), short.into()];
    if !names.contains(&full) {
        names.push(full);
    }
    names.reverse();
    names
}

/// A line of the routing table `local` is `|-- ADDRESS`, and the next one says what it is:
/// `/32 host LOCAL` for an address of this machine.
fn ipv4(table: &str) -> impl Iterator<Item = IpAddr> {
    let mut last = None;
    table.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
            return None;
        }
        let own = last.filter(|_| line == "/32 host LOCAL")?;
        (!own.is_loopback() && !own.is_link_local()).then_some(IpAddr::V4(own))
    })
}

/// Fields of a line: address, interface's number, length of the prefix, scope, flags (all hexadecimal), interface's name.
fn ipv6(table: &str) -> impl Iterator<Item = IpAddr> {
    const GLOBAL: u8 = 0x00;
    const TEMPORARY: u32 = 0x01;
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let scope = u8::from_str_radix(fields.nth(2)?, 16).ok()?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let is_kept = scope == GLOBAL && flags & TEMPORARY == 0;
        is_kept.then_some(IpAddr::V6(Ipv6Addr::from_bits(address)))
    })
}

fn text(file: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(file) {
        // What was read before an error is used.
        let _read = file.take(MAX_TABLE).read_to_end(&mut bytes);
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_addresses_from_the_kernels_tables() {
        let four = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    Local:\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n\
                    \x20    |-- 10.0.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                    \x20    |-- 169.254.3.4\n        /32 host LOCAL\n     |-- 192.168.1.9\n        /32 host LOCAL\n";
        let found: Vec<_> = ipv4(four).collect();
        assert_eq!(found, [IpAddr::from([10, 0, 0, 7]), IpAddr::from([192, 168, 1, 9])]);
        let six = "00000000000000000000000000000001 01 80 10 80       lo\n\
                   fe80000000000000021122fffe334455 02 40 20 80     eth0\n\
                   20010db8000000000000000000000007 02 40 00 80     eth0\n\
                   20010db800000000a1b2c3d4e5f60718 02 40 00 01     eth0\n\
                   fd000000000000000000000000000007 02 40 00 80     eth0\nrubbish\n";
        let found: Vec<_> = ipv6(six).map(|address| alloc::format!("{address}")).collect();
        assert_eq!(found, ["2001:db8::7", "fd00::7"]);
    }

    #[test]
    fn a_host_has_its_full_name_its_short_one_and_local() {
        assert_eq!(names_of("Pi-Zero\n"), ["pi-zero", "pi-zero.local"]);
        assert_eq!(names_of("# name\npi.lan\n"), ["pi.lan", "pi", "pi.local"]);
        for none in ["", "\n", "localhost\n", "(none)\n"] {
            assert!(names_of(none).is_empty(), "{none:?}");
        }
    }
}
