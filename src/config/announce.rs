//! Where the printer is announced to slicers: the setting `--announce`.

use core::net::Ipv4Addr;

/// Addresses that `--announce` may name.
pub const MAX_ADDRESSES: usize = 8;

/// Whether the printer is announced in this machine's own networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broadcast {
    /// Where detect is served and the network allows it.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Not.
    Off,
}

/// Where the printer is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announce {
    /// Whether in this machine's own networks.
    pub broadcast: Broadcast,
    /// Addresses in other networks.
    pub addresses: heapless::Vec<Ipv4Addr, MAX_ADDRESSES>,
}

impl Announce {
    /// Reads `auto`, `off`, `broadcast` or `ADDRESS,…`; `auto` and `broadcast` may be among the addresses.
    pub(super) fn parse(list: &str) -> Option<Self> {
        if list.trim().eq_ignore_ascii_case("off") {
            return Some(Self { broadcast: Broadcast::Off, ..Self::default() });
        }
        let mut broadcast = None;
        let mut addresses = heapless::Vec::new();
        for item in list.split(',').map(str::trim) {
            let word = match item.to_ascii_lowercase().as_str() {
                "auto" => Some(Broadcast::Auto),
                "broadcast" => Some(Broadcast::On),
                _ => None,
            };
            match word {
                Some(word) if broadcast.replace(word).is_none() => {}
                Some(_) => return None,
                None => addresses.push(super::reachable(item)?).ok()?,
            }
        }
        Some(Self { broadcast: broadcast.unwrap_or(Broadcast::Off), addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_addresses_are_read() {
        let read = |list: &str| Announce::parse(list).map(|it| (it.broadcast, it.addresses.len()));
        assert_eq!(read("auto"), Some((Broadcast::Auto, 0)));
        assert_eq!(read(" OFF "), Some((Broadcast::Off, 0)));
        assert_eq!(read("Broadcast"), Some((Broadcast::On, 0)));
        assert_eq!(read("192.168.5.3, 10.0.0.1"), Some((Broadcast::Off, 2)));
        assert_eq!(read("broadcast,192.168.5.3"), Some((Broadcast::On, 1)));
        for bad in
            ["", "on", "off,auto", "auto,broadcast", "0.0.0.0", "255.255.255.255", "::1", "a,"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        let list = |n: usize| ["10.0.0.1"].repeat(n).join(",");
        let (fits, is_long) = (list(MAX_ADDRESSES), list(MAX_ADDRESSES + 1));
        assert_eq!(read(&fits), Some((Broadcast::Off, MAX_ADDRESSES)));
        assert_eq!(read(&is_long), None, "more than there is room for");
    }
}
