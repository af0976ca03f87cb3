//! The text of datagrams: announcements, searches and answers, as printers write and slicers read them.
//!
//! A datagram is a start line and headers, as in HTTP ([`protocol`](crate::protocol#discovery)). Names of headers are
//! compared without case, and the first of a name counts. A value with a control character counts as absent: values are
//! copied into this program's own datagrams and into the log.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a datagram that is read | [`MAX_DATAGRAM`] bytes | ignored ([`Fault::TooLong`]) |
//! | its lines | [`MAX_LINES`] | ignored ([`Fault::TooManyLines`]) |
//! | a datagram that is written | [`MAX_WRITTEN`] bytes | not sent |

use core::fmt::{self, Write};
use core::net::Ipv4Addr;

/// Bytes of a datagram that are read. Printers send some 500.
pub const MAX_DATAGRAM: usize = 2048;

/// Lines of a datagram that are read. Printers send seventeen.
pub const MAX_LINES: usize = 40;

/// Bytes of a datagram that is written.
pub const MAX_WRITTEN: usize = 1024;

/// What is announced and searched for: a printer.
pub const TARGET: &str = "urn:bambulab-com:device:3dprinter:1";

/// The target of a search for every device.
const ALL: &str = "ssdp:all";

/// What this program says that it is, so that a proxy does not take another one for the printer.
const SERVER: &str = "PandaProxy";

/// A datagram that is about a printer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A printer, or a program in its place, is there.
    Alive(Announcement<'a>),
    /// The printer with this serial number leaves.
    Bye(&'a str),
    /// Printers are searched for.
    Search,
    /// The datagram is well-formed and about something else.
    Other,
}

/// An announcement of a printer, or its answer to a search. Headers that are absent are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// Serial number (`USN`).
    pub serial: &'a str,
    /// The printer's address (`Location`).
    pub location: Option<Ipv4Addr>,
    /// The program that sent it (`Server`).
    pub server: &'a str,
    /// Model code (`DevModel`).
    pub model: &'a str,
    /// The printer's name (`DevName`).
    pub name: &'a str,
    /// Strength of the printer's Wi-Fi signal in dBm (`DevSignal`).
    pub signal: Option<i16>,
    /// How the printer is reached, `lan` or `cloud` (`DevConnect`).
    pub connect: &'a str,
    /// Whether it is bound to an account, `free` or `occupied` (`DevBind`).
    pub bind: &'a str,
    /// `secure` where the printer's services have TLS (`Devseclink`).
    pub security: &'a str,
    /// The printer's network interface (`DevInf`).
    pub interface: &'a str,
    /// Firmware version (`DevVersion`).
    pub version: &'a str,
    /// Capabilities (`DevCap`).
    pub capabilities: &'a str,
}

impl Announcement<'_> {
    /// Whether a program of this kind sent it.
    pub fn is_proxys(&self) -> bool {
        self.server.contains(SERVER)
    }
}

/// Why a datagram is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The datagram is longer than [`MAX_DATAGRAM`].
    TooLong,
    /// The datagram has more than [`MAX_LINES`].
    TooManyLines,
    /// The datagram has no start line as in HTTP.
    NotHttp,
    /// A header has no colon.
    NotAHeader,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MAX_DATAGRAM} bytes"),
            Self::TooManyLines => write!(f, "more than {MAX_LINES} lines"),
            Self::NotHttp => f.write_str("no start line of HTTP"),
            Self::NotAHeader => f.write_str("a header without a colon"),
        }
    }
}

impl core::error::Error for Fault {}

/// Reads a datagram, which was received into a buffer of [`MAX_DATAGRAM`] bytes: one that fills it may have been cut.
///
/// # Errors
///
/// [`Fault`].
pub fn parse(datagram: &[u8]) -> Result<Message<'_>, Fault> {
    if datagram.len() >= MAX_DATAGRAM {
        return Err(Fault::TooLong);
    }
    let mut lines = datagram.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let start = lines.next().and_then(|line| core::str::from_utf8(line).ok()).unwrap_or_default();
    if !start.contains("HTTP/1.") {
        return Err(Fault::NotHttp);
    }
    let mut headers = Headers::default();
    let mut left = MAX_LINES;
    for line in lines.take_while(|line| !line.is_empty()) {
        left = left.checked_sub(1).ok_or(Fault::TooManyLines)?;
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::NotAHeader)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        // A value that is not text is absent.
        if let (Ok(name), Ok(value)) = (core::str::from_utf8(name), core::str::from_utf8(value)) {
            headers.set(name.trim(), value);
        }
    }
    let Headers { announcement, target, kind, .. } = headers;
    let is_printer = target.is_none_or(|target| target == TARGET);
    Ok(match start.split(' ').next().unwrap_or_default() {
        "M-SEARCH" if target.is_some_and(|target| [TARGET, ALL].contains(&target)) => {
            Message::Search
        }
        "NOTIFY" if kind == "ssdp:byebye" && is_printer => Message::Bye(announcement.serial),
        "NOTIFY" | "HTTP/1.0" | "HTTP/1.1" if is_printer && !announcement.serial.is_empty() => {
            Message::Alive(announcement)
        }
        _ => Message::Other,
    })
}

/// The headers read so far.
#[derive(Default)]
struct Headers<'a> {
    announcement: Announcement<'a>,
    /// `NT` or `ST`.
    target: Option<&'a str>,
    /// `NTS`.
    kind: &'a str,
    /// Which headers have been seen, one bit each.
    seen: u16,
}

/// The names of the headers that are read, in lower case.
const NAMES: [&str; 15] = [
    "nt",
    "st",
    "nts",
    "usn",
    "location",
    "server",
    "devmodel.bambu.com",
    "devname.bambu.com",
    "devsignal.bambu.com",
    "devconnect.bambu.com",
    "devbind.bambu.com",
    "devseclink.bambu.com",
    "devinf.bambu.com",
    "devversion.bambu.com",
    "devcap.bambu.com",
];

impl<'a> Headers<'a> {
    fn set(&mut self, name: &str, value: &'a str) {
        let Some(at) = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known)) else {
            return;
        };
        if self.seen & (1 << at) != 0 {
            return;
        }
        self.seen |= 1 << at;
        if value.contains(char::is_control) {
            return;
        }
        let of = &mut self.announcement;
        match at {
            0 | 1 => self.target = self.target.or(Some(value)),
            2 => self.kind = value,
            3 => of.serial = value,
            4 => of.location = value.parse().ok(),
            5 => of.server = value,
            6 => of.model = value,
            7 => of.name = value,
            8 => of.signal = value.parse().ok(),
            9 => of.connect = value,
            10 => of.bind = value,
            11 => of.security = value,
            12 => of.interface = value,
            13 => of.version = value,
            _ => of.capabilities = value,
        }
    }
}

/// What a datagram of this program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The printer is here.
    Notify,
    /// The same as an answer to a search.
    Answer,
    /// The printer is not here any more.
    Bye,
}

/// A datagram of this program.
pub type Text = heapless::String<MAX_WRITTEN>;

/// Writes an announcement of the printer `of`, with all the headers that slicers need.
///
/// # Errors
///
/// The announcement is longer than [`MAX_WRITTEN`].
pub fn write(form: Form, of: &Announcement<'_>, out: &mut Text) -> fmt::Result {
    out.clear();
    let location = of.location.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let serial = of.serial;
    match form {
        Form::Notify | Form::Bye => {
            out.write_str("NOTIFY * HTTP/1.1\r\nHost: 239.255.255.250:1990\r\n")?;
        }
        Form::Answer => out.write_str("HTTP/1.1 200 OK\r\n")?,
    }
    if form != Form::Bye {
        write!(out, "Server: UPnP/1.0 {SERVER}\r\nLocation: {location}\r\n")?;
    }
    match form {
        Form::Notify => write!(out, "NT: {TARGET}\r\nNTS: ssdp:alive\r\n")?,
        Form::Bye => write!(out, "NT: {TARGET}\r\nNTS: ssdp:byebye\r\n")?,
        Form::Answer => write!(out, "ST: {TARGET}\r\nEXT:\r\n")?,
    }
    write!(out, "USN: {serial}\r\n")?;
    if form != Form::Bye {
        write!(
            out,
            "Cache-Control: max-age=1800\r\n\
             DevModel.bambu.com: {}\r\n\
             DevName.bambu.com: {}\r\n\
             DevSignal.bambu.com: {}\r\n\
             DevConnect.bambu.com: {}\r\n\
             DevBind.bambu.com: {}\r\n\
             Devseclink.bambu.com: {}\r\n\
             DevInf.bambu.com: {}\r\n\
             DevVersion.bambu.com: {}\r\n\
             DevCap.bambu.com: {}\r\n",
            of.model,
            of.name,
            of.signal.unwrap_or(DEFAULT_SIGNAL),
            of.connect,
            of.bind,
            of.security,
            of.interface,
            of.version,
            of.capabilities,
        )?;
    }
    out.write_str("\r\n")
}

/// A good signal, for a printer that tells none.
const DEFAULT_SIGNAL: i16 = -44;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const P2S: &str = "NOTIFY * HTTP/1.1\r\n\
        Host: 239.255.255.250:1990\r\n\
        Server: UPnP/1.0\r\n\
        Location: 192.168.2.80\r\n\
        NT: urn:bambulab-com:device:3dprinter:1\r\n\
        NTS: ssdp:alive\r\n\
        USN: 22E00A000000001\r\n\
        Cache-Control: max-age=1800\r\n\
        DevModel.bambu.com: N7\r\n\
        DevName.bambu.com: Grüner Drucker\r\n\
        DevConnect.bambu.com: cloud\r\n\
        DevBind.bambu.com: occupied\r\n\
        Devseclink.bambu.com: secure\r\n\
        DevInf.bambu.com: wlan0\r\n\
        DevVersion.bambu.com: 01.02.00.00\r\n\
        DevCap.bambu.com: 1\r\n\r\n";

    fn alive(text: &str) -> Announcement<'_> {
        match parse(text.as_bytes()) {
            Ok(Message::Alive(announcement)) => announcement,
            other => panic!("{other:?}: {text}"),
        }
    }

    #[test]
    fn what_a_p2s_announces_is_read() {
        let heard = alive(P2S);
        let expected = Announcement {
            serial: "22E00A000000001",
            location: Some(Ipv4Addr::new(192, 168, 2, 80)),
            server: "UPnP/1.0",
            model: "N7",
            name: "Grüner Drucker",
            signal: None,
            connect: "cloud",
            bind: "occupied",
            security: "secure",
            interface: "wlan0",
            version: "01.02.00.00",
            capabilities: "1",
        };
        assert_eq!(heard, expected);
        assert!(!heard.is_proxys());
    }

    #[test]
    fn names_have_no_case_and_the_first_of_a_name_counts() {
        let heard = alive(
            "NOTIFY * HTTP/1.1\nNT: urn:bambulab-com:device:3dprinter:1\nST: other\nusn :01P1\nUSN: other\nLOCATION:  10.0.0.7\r\nDevSignal.Bambu.com: -38\nX: y\n\n",
        );
        assert_eq!((heard.serial, heard.signal), ("01P1", Some(-38)));
        assert_eq!(heard.location, Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!((heard.interface, heard.model), ("", ""));
    }

    #[test]
    fn a_datagram_replaces_the_text_before_it() {
        let mut text = Text::new();
        let of = Announcement::default();
        write(Form::Notify, &of, &mut text).unwrap();
        let first = text.clone();
        write(Form::Notify, &of, &mut text).unwrap();
        assert_eq!(text, first);
    }

    #[test]
    fn searches_for_printers_or_everything_are_told_from_others() {
        let search = |target: &str| {
            let text = format!("M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\n{target}\r\n\r\n");
            parse(text.as_bytes()).map(|message| message == Message::Search)
        };
        assert_eq!(search(&format!("ST: {TARGET}")), Ok(true));
        assert_eq!(search("ST: ssdp:all"), Ok(true));
        assert_eq!(search("ST: upnp:rootdevice"), Ok(false));
        assert_eq!(search("MX: 1"), Ok(false));
    }

    #[test]
    fn announcements_of_other_devices_are_other() {
        let tv =
            "NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:1\r\n\r\n";
        assert_eq!(parse(tv.as_bytes()), Ok(Message::Other));
        assert_eq!(parse(b"NOTIFY * HTTP/1.1\r\n\r\n"), Ok(Message::Other));
        assert_eq!(parse(b"GET / HTTP/1.1\r\nUSN: 1\r\n\r\n"), Ok(Message::Other));
    }

    #[test]
    fn what_is_no_datagram_of_this_kind_is_a_fault() {
        let long = [b"NOTIFY * HTTP/1.1\r\n".as_slice(), &[b'x'; MAX_DATAGRAM]].concat();
        assert_eq!(parse(&long[..MAX_DATAGRAM]), Err(Fault::TooLong));
        assert_eq!(parse(b""), Err(Fault::NotHttp));
        assert_eq!(parse(&[0xff; 1400]), Err(Fault::NotHttp));
        assert_eq!(parse(b"NOTIFY * HTTP/1.1\r\nno header\r\n\r\n"), Err(Fault::NotAHeader));
        let lines = |n| format!("NOTIFY * HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert_eq!(parse(lines(MAX_LINES).as_bytes()), Ok(Message::Other));
        assert_eq!(parse(lines(MAX_LINES + 1).as_bytes()), Err(Fault::TooManyLines));
        // Headers without end: what was cut off does not matter.
        assert_eq!(parse(b"NOTIFY * HTTP/1.1\r\na: b\r\na: b"), Ok(Message::Other));
    }

    #[test]
    fn a_value_with_control_characters_is_absent() {
        let text = "NOTIFY * HTTP/1.1\r\nUSN: 01P1\r\nDevName.bambu.com: a\rLocation: 1.2.3.4\r\nDevInf.bambu.com: a\x1bb\r\n\r\n";
        let heard = alive(text);
        assert_eq!((heard.name, heard.interface, heard.location), ("", "", None));
        let odd = b"NOTIFY * HTTP/1.1\r\nUSN: 01P1\r\nDevName.bambu.com: \xff\xfe\r\n\r\n";
        assert!(matches!(parse(odd), Ok(Message::Alive(Announcement { name: "", .. }))));
    }

    fn written(form: Form, of: &Announcement<'_>) -> Text {
        let mut text = Text::new();
        write(form, of, &mut text).unwrap();
        text
    }

    #[test]
    fn what_is_written_is_read_and_known_as_a_proxys() {
        let of = Announcement { signal: Some(-44), server: "UPnP/1.0 PandaProxy", ..alive(P2S) };
        for form in [Form::Notify, Form::Answer] {
            let text = written(form, &of);
            assert_eq!(alive(&text), of, "{text}");
            assert!(alive(&text).is_proxys());
            assert!(text.lines().all(|line| text.contains(&format!("{line}\r\n"))), "{text}");
            assert!(text.ends_with("\r\n\r\n"));
        }
        assert!(written(Form::Answer, &of).starts_with("HTTP/1.1 200 OK\r\n"));
        let bye = written(Form::Bye, &of);
        assert_eq!(parse(bye.as_bytes()), Ok(Message::Bye("22E00A000000001")));
        assert_eq!(bye.lines().count(), 6, "{bye}");
    }

    #[test]
    fn all_headers_that_slicers_need_are_written() {
        let text =
            written(Form::Notify, &Announcement { serial: "01P1", ..Announcement::default() });
        let names: Vec<&str> =
            text.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
        let expected = "Host Server Location NT NTS USN Cache-Control DevModel.bambu.com \
             DevName.bambu.com DevSignal.bambu.com DevConnect.bambu.com DevBind.bambu.com \
             Devseclink.bambu.com DevInf.bambu.com DevVersion.bambu.com DevCap.bambu.com";
        assert_eq!(names.join(" "), expected);
        assert!(text.contains("DevSignal.bambu.com: -44\r\n"));
    }

    #[test]
    fn the_longest_values_fit() {
        let (name, code) = ("n".repeat(64), "c".repeat(32));
        let (name, code): (&str, &str) = (&name, &code);
        let of = Announcement {
            serial: code,
            location: Some(Ipv4Addr::BROADCAST),
            server: "",
            model: code,
            name,
            signal: Some(i16::MIN),
            connect: "lan",
            bind: "free",
            security: code,
            interface: code,
            version: code,
            capabilities: code,
        };
        assert!(written(Form::Notify, &of).len() < MAX_WRITTEN - 100);
        let long = "n".repeat(MAX_WRITTEN);
        let of = Announcement { name: &long, ..of };
        assert!(write(Form::Notify, &of, &mut Text::new()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, cut in 0_usize..P2S.len()) {
            let _any = parse(&bytes);
            let mixed = [&P2S.as_bytes()[..cut], &bytes].concat();
            let _any = parse(&mixed);
        }

        #[test]
        fn no_value_begins_a_line_of_its_own(name in "\\PC{0,40}", model in ".{0,12}") {
            let text = format!("NOTIFY * HTTP/1.1\nUSN: 1\nDevName.bambu.com: {name}\nDevModel.bambu.com: {model}\n\n");
            if let Ok(Message::Alive(heard)) = parse(text.as_bytes()) {
                let again: String = written(Form::Notify, &heard).as_str().into();
                prop_assert_eq!(again.lines().count(), 18);
            }
        }
    }
}
