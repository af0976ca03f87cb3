//! A printer's announcements in its LAN, as each model was seen to send them (`src/protocol.md`, discovery).
//!
//! It says what is sent, when and where to; who makes one brings the socket.

use core::cell::{Cell, RefCell};
use core::fmt::Write;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::rc::Rc;

use tokio::time::sleep;

/// The printers whose announcements are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcer {
    /// 01.09.01.00.
    P1S,
    /// Announces from port 1900.
    A1,
    /// 01.02.00.00.
    P2S,
    /// As a P2S, but every three to five seconds.
    H2D,
}

impl Announcer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::P1S, Self::A1, Self::P2S, Self::H2D];

    const fn code(self) -> &'static str {
        match self {
            Self::P1S => "C12",
            Self::A1 => "N2S",
            Self::P2S => "N7",
            Self::H2D => "O1D",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::P1S => "01.09.01.00",
            Self::A1 => "01.05.00.00",
            Self::P2S | Self::H2D => "01.02.00.00",
        }
    }

    /// Whether it is one of those with Linux, which name their network interface and no signal.
    const fn has_linux(self) -> bool {
        matches!(self, Self::P2S | Self::H2D)
    }

    /// The port that it sends from.
    pub const fn source_port(self) -> u16 {
        if self.has_linux() { 2021 } else { 1900 }
    }

    /// Where each announcement goes.
    pub fn destinations(self) -> Vec<SocketAddrV4> {
        let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, 2021);
        match self {
            Self::P1S => {
                vec![SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1990), broadcast]
            }
            Self::A1 | Self::P2S | Self::H2D => vec![broadcast],
        }
    }

    /// Between announcement `n` and the one after it.
    const fn pause(self, n: u64) -> Duration {
        match self {
            Self::P1S | Self::A1 | Self::P2S => Duration::from_millis(5000),
            // 3 to 5 s.
            Self::H2D => Duration::from_millis(3000 + n * 700 % 2000),
        }
    }
}

/// One printer that announces itself. Clones are the same one.
#[derive(Clone)]
pub struct Announcements(Rc<Inner>);

struct Inner {
    of: Announcer,
    serial: String,
    address: Cell<Ipv4Addr>,
    name: RefCell<String>,
    is_cloud: Cell<bool>,
    sent: Cell<u64>,
}

impl Announcements {
    /// A printer in LAN mode.
    pub fn new(of: Announcer, serial: &str, address: Ipv4Addr) -> Self {
        Self(Rc::new(Inner {
            of,
            serial: serial.to_owned(),
            address: Cell::new(address),
            name: RefCell::new("Workshop".to_owned()),
            is_cloud: Cell::new(false),
            sent: Cell::new(0),
        }))
    }

    /// It is in cloud mode, bound to an account, or is not.
    pub fn set_cloud(&self, is_cloud: bool) {
        self.0.is_cloud.set(is_cloud);
    }

    /// It has got another address.
    pub fn set_address(&self, address: Ipv4Addr) {
        self.0.address.set(address);
    }

    /// Announcements so far.
    pub fn sent(&self) -> u64 {
        self.0.sent.get()
    }

    /// The text of an announcement.
    pub fn text(&self) -> String {
        let Inner { of, serial, address, name, is_cloud, .. } = &*self.0;
        let (linux, is_cloud) = (of.has_linux(), is_cloud.get());
        let host = if linux { 1990 } else { 1900 };
        let mut text = String::from("NOTIFY * HTTP/1.1\r\n");
        let mut header = |name: &str, value: &str| write!(text, "{name}: {value}\r\n").unwrap();
        header("Host", &format!("239.255.255.250:{host}"));
        header("Server", "UPnP/1.0");
        header("Location", &address.get().to_string());
        header("NT", "urn:bambulab-com:device:3dprinter:1");
        if linux {
            header("NTS", "ssdp:alive");
        }
        header("USN", serial);
        header("Cache-Control", "max-age=1800");
        header("DevModel.bambu.com", of.code());
        header("DevName.bambu.com", &name.borrow());
        if !linux {
            header("DevSignal.bambu.com", "-41");
        }
        header("DevConnect.bambu.com", if is_cloud { "cloud" } else { "lan" });
        header("DevBind.bambu.com", if is_cloud { "occupied" } else { "free" });
        header("Devseclink.bambu.com", "secure");
        if linux {
            header("DevInf.bambu.com", "wlan0");
        }
        header("DevVersion.bambu.com", of.version());
        header("DevCap.bambu.com", "1");
        text.push_str("\r\n");
        text
    }

    /// Announces itself for ever by `send`.
    pub async fn run(self, mut send: impl FnMut(&[u8], SocketAddrV4)) {
        loop {
            let text = self.text();
            for to in self.0.of.destinations() {
                send(text.as_bytes(), to);
            }
            let n = self.0.sent.get();
            self.0.sent.set(n + 1);
            sleep(self.0.of.pause(n)).await;
        }
    }
}
