//! The table of settings: one row for each option, with its variable and file key, default and help.
//!
//! The command line, the file of settings, `--help`, the man page, the shell completions, the two example files
//! and the table in `boards/SETTINGS.md` are made from [`Setting::ALL`], or compared with it by a test.

/// One setting: an option, an environment variable and a key in the file of settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Option on the command line, with its dashes.
    pub option: &'static str,
    /// One-letter option, without its dash.
    pub short: Option<char>,
    /// Environment variable, and key in the file of settings.
    pub key: &'static str,
    /// Placeholder of the value in help texts.
    pub value: &'static str,
    /// How often the option may be given, and whether it needs a value.
    pub kind: Kind,
    /// Heading in help texts.
    pub group: Group,
    /// Value that holds when the setting is absent; empty if there is none.
    pub default: &'static str,
    /// Accepted values, as the end of an error message. The part behind `; ` is detail.
    pub expected: &'static str,
    /// One sentence for help texts, without a full stop.
    pub help: &'static str,
    /// Whether the program cannot start without it.
    pub required: bool,
    /// Whether its value may never be shown.
    pub secret: bool,
    /// Whether it is left out of help texts: one for earlier versions, or that a memory card sets by itself.
    pub hidden: bool,
}

/// How an option is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Once, with a value.
    Value,
    /// Several times, with a value each; one comma-separated list elsewhere.
    List,
    /// Once; without a value it means `true`.
    Flag,
}

/// A heading in help texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The printer and its credentials.
    Printer,
    /// Services and where they listen.
    Services,
    /// The status page.
    Http,
    /// File transfer.
    Files,
    /// Certificates.
    Certificates,
    /// Recording of traffic.
    Recording,
    /// Everything else.
    General,
}

impl Group {
    /// All groups, in the order of help texts.
    pub const ALL: [Self; 7] = [
        Self::Printer,
        Self::Services,
        Self::Http,
        Self::Files,
        Self::Certificates,
        Self::Recording,
        Self::General,
    ];

    /// Heading, as it stands in help texts.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Printer => "Printer (all three are required; the printer's screen shows them)",
            Self::Services => "Services",
            Self::Http => "Status page (the http service)",
            Self::Files => "File transfer",
            Self::Certificates => "Certificates",
            Self::Recording => "Recording",
            Self::General => "General",
        }
    }
}

const BOOL: &str = "true or false";
const FTP_MODES: &str = "auto, proxy or relay";
const PORT_LIST: &str = "SERVICE=PORT; SERVICE is mqtt, chamber, rtsp, ftp, tunnel, detect, detect-tls or http, each at most once, PORT is 0 (any) to 65535";
const PRINTER_PORT_LIST: &str = "SERVICE=PORT; SERVICE is mqtt, chamber, rtsp, ftp, tunnel or detect, each at most once, PORT is 1 to 65535";

/// A row without its particulars.
const ROW: Setting = Setting {
    option: "",
    short: None,
    key: "",
    value: "",
    kind: Kind::Value,
    group: Group::General,
    default: "",
    expected: "",
    help: "",
    required: false,
    secret: false,
    hidden: false,
};

/// A flag without its particulars.
const FLAG: Setting =
    Setting { value: "BOOL", kind: Kind::Flag, default: "false", expected: BOOL, ..ROW };

impl Setting {
    /// `--printer-ip`.
    pub const PRINTER_IP: Self = Self {
        option: "--printer-ip",
        short: Some('p'),
        key: "PRINTER_IP",
        value: "IP",
        group: Group::Printer,
        expected: "the printer's IP address or host name",
        help: "Printer's IP address or host name",
        required: true,
        ..ROW
    };
    /// `--access-code`.
    pub const ACCESS_CODE: Self = Self {
        option: "--access-code",
        short: Some('a'),
        key: "ACCESS_CODE",
        value: "CODE",
        group: Group::Printer,
        expected: "the access code that the printer shows; 1 to 32 visible ASCII characters",
        help: "Access code that the printer shows (LAN mode)",
        required: true,
        secret: true,
        ..ROW
    };
    /// `--access-code-file`.
    pub const ACCESS_CODE_FILE: Self = Self {
        option: "--access-code-file",
        key: "ACCESS_CODE_FILE",
        value: "FILE",
        group: Group::Printer,
        expected: "a file whose first line is the access code",
        help: "File whose first line is the access code",
        secret: true,
        ..ROW
    };
    /// `--serial-number`.
    pub const SERIAL_NUMBER: Self = Self {
        option: "--serial-number",
        short: Some('s'),
        key: "SERIAL_NUMBER",
        value: "SERIAL",
        group: Group::Printer,
        expected: "1 to 32 letters and digits",
        help: "Printer's serial number, 15 characters",
        required: true,
        ..ROW
    };
    /// `--services`.
    pub const SERVICES: Self = Self {
        option: "--services",
        key: "SERVICES",
        value: "LIST",
        group: Group::Services,
        default: "mqtt,chamber,rtsp,ftp,detect,ssdp",
        expected: "a list of services; mqtt, chamber, rtsp, ftp, detect, ssdp, http or camera (chamber and rtsp), with commas between",
        help: "Services to offer; camera means chamber,rtsp, ftp includes the file tunnel, detect tells slicers which printer this is, ssdp is discovery, and http is a status page with the camera's pictures",
        ..ROW
    };
    /// `--enable-all`, from the program's Python version.
    pub const ENABLE_ALL: Self = Self {
        option: "--enable-all",
        key: "ENABLE_ALL",
        group: Group::Services,
        help: "Offer all services, whatever --services lists",
        hidden: true,
        ..FLAG
    };
    /// `--bind`.
    pub const BIND: Self = Self {
        option: "--bind",
        short: Some('b'),
        key: "BIND_ADDRESS",
        value: "IP",
        group: Group::Services,
        default: "0.0.0.0",
        expected: "an IP address of this machine, or 0.0.0.0 for all",
        help: "Address to listen on",
        ..ROW
    };
    /// `--port`.
    pub const PORTS: Self = Self {
        option: "--port",
        key: "PORTS",
        value: "SERVICE=PORT",
        kind: Kind::List,
        group: Group::Services,
        default: "mqtt=8883,chamber=6000,rtsp=322,ftp=990,tunnel=6000,detect=3000,detect-tls=3002,http=8080",
        expected: PORT_LIST,
        help: "Ports to listen on; repeatable, or a comma-separated list",
        ..ROW
    };
    /// `--printer-port`.
    pub const PRINTER_PORTS: Self = Self {
        option: "--printer-port",
        key: "PRINTER_PORTS",
        value: "SERVICE=PORT",
        kind: Kind::List,
        group: Group::Services,
        default: "mqtt=8883,chamber=6000,rtsp=322,ftp=990,tunnel=6000,detect=3000",
        expected: PRINTER_PORT_LIST,
        help: "Ports of the printer, where they differ",
        ..ROW
    };
    /// `--advertise-ip`.
    pub const ADVERTISE_IP: Self = Self {
        option: "--advertise-ip",
        key: "ADVERTISE_IP",
        value: "IPV4",
        group: Group::Services,
        expected: "an IPv4 address that clients can reach",
        help: "Address at which clients reach this machine, if it cannot know: behind NAT, in a bridged container, by IPv6",
        ..ROW
    };
    /// `--advertise-name`.
    pub const ADVERTISE_NAME: Self = Self {
        option: "--advertise-name",
        key: "ADVERTISE_NAME",
        value: "NAME",
        kind: Kind::List,
        group: Group::Services,
        expected: "host names, 8 at most, with commas between",
        help: "Further names by which clients reach this machine, for the certificate; it has the host name and all addresses anyway. Repeatable, or a comma-separated list",
        ..ROW
    };
    /// `--announce`.
    pub const ANNOUNCE: Self = Self {
        option: "--announce",
        key: "ANNOUNCE",
        value: "WHERE",
        group: Group::Services,
        default: "auto",
        expected: "auto, off, broadcast, or IPv4 addresses; at most 8, with commas between",
        help: "Where the printer is announced to slicers as being at this machine: auto (in its own networks, if slicers can reach it there), off, broadcast, or addresses in other networks",
        ..ROW
    };
    /// `--keep-printer-address`.
    pub const KEEP_PRINTER_ADDRESS: Self = Self {
        option: "--keep-printer-address",
        key: "KEEP_PRINTER_ADDRESS",
        group: Group::Services,
        help: "Leave the printer's own address in its reports",
        ..FLAG
    };
    /// `--strict-serial`.
    pub const STRICT_SERIAL: Self = Self {
        option: "--strict-serial",
        key: "STRICT_SERIAL",
        group: Group::Services,
        help: "Serve MQTT topics of the printer's own serial number only, not those of an earlier printer that a program has stored; for several printers on one machine",
        ..FLAG
    };
    /// `--name`.
    pub const NAME: Self = Self {
        option: "--name",
        key: "PRINTER_NAME",
        value: "NAME",
        group: Group::Services,
        expected: "1 to 64 bytes of text",
        help: "Printer's name for slicers, in place of the one that it has",
        ..ROW
    };
    /// `--http-address`.
    pub const HTTP_ADDRESS: Self = Self {
        option: "--http-address",
        key: "HTTP_ADDRESS",
        value: "IP",
        group: Group::Http,
        expected: "an IP address of this machine",
        help: "Address that the status page listens on, such as 127.0.0.1 behind a reverse proxy. Default: --bind",
        ..ROW
    };
    /// `--view-code`.
    pub const VIEW_CODE: Self = Self {
        option: "--view-code",
        key: "VIEW_CODE",
        value: "CODE",
        group: Group::Http,
        expected: "at least 8 characters, at most 32, of visible ASCII",
        help: "Password for the status page and its pictures alone, with any user name; the access code is accepted as well",
        secret: true,
        ..ROW
    };
    /// `--view-code-file`.
    pub const VIEW_CODE_FILE: Self = Self {
        option: "--view-code-file",
        key: "VIEW_CODE_FILE",
        value: "FILE",
        group: Group::Http,
        expected: "a file whose first line is the view code: at least 8 characters, at most 32, of visible ASCII",
        help: "File whose first line is the view code",
        secret: true,
        ..ROW
    };
    /// `--http-token`.
    pub const HTTP_TOKEN: Self = Self {
        option: "--http-token",
        key: "HTTP_TOKEN",
        value: "TOKEN",
        group: Group::Http,
        expected: "at least 8 characters, at most 32: letters, digits, - and _",
        help: "The same as ?token=TOKEN in a URL, for wall displays, or as a bearer token, for Prometheus",
        secret: true,
        ..ROW
    };
    /// `--http-token-file`.
    pub const HTTP_TOKEN_FILE: Self = Self {
        option: "--http-token-file",
        key: "HTTP_TOKEN_FILE",
        value: "FILE",
        group: Group::Http,
        expected: "a file whose first line is the token: at least 8 characters, at most 32: letters, digits, - and _",
        help: "File whose first line is the token",
        secret: true,
        ..ROW
    };
    /// `--notice`: what a memory card's system has to say to its user.
    pub const NOTICE: Self = Self {
        option: "--notice",
        key: "NOTICE",
        value: "TEXT",
        group: Group::Http,
        expected: "a text of at most 600 bytes",
        help: "Text that the status page shows first",
        hidden: true,
        ..ROW
    };
    /// `--machine-port`: where a memory card's system takes updates.
    pub const MACHINE_PORT: Self = Self {
        option: "--machine-port",
        key: "MACHINE_PORT",
        value: "PORT",
        group: Group::Http,
        expected: "1 to 65535",
        help: "Port of a page about this machine, to which the status page links",
        hidden: true,
        ..ROW
    };
    /// `--ftp-mode`.
    pub const FTP_MODE: Self = Self {
        option: "--ftp-mode",
        key: "FTP_MODE",
        value: "MODE",
        group: Group::Files,
        default: "auto",
        expected: FTP_MODES,
        help: "proxy: clients share the printer's sessions and see this program's certificate. relay: they see the printer's. auto: by the printer's model",
        ..ROW
    };
    /// `--ftp-data-ports`.
    pub const FTP_DATA_PORTS: Self = Self {
        option: "--ftp-data-ports",
        key: "FTP_DATA_PORTS",
        value: "FROM-TO",
        group: Group::Files,
        default: "2024-2043",
        expected: "FROM-TO; ports of 1 to 65535, or 0 for any",
        help: "Data ports of FTP clients; in relay mode the printer's own",
        ..ROW
    };
    /// `--port-6000`.
    pub const PORT_6000: Self = Self {
        option: "--port-6000",
        key: "PORT_6000",
        value: "USE",
        group: Group::Files,
        default: "auto",
        expected: "auto, chamber or tunnel",
        help: "What the printer has on its port 6000: the chamber camera, the file tunnel, or auto for what its model has",
        ..ROW
    };
    /// `--printer-ca`.
    pub const PRINTER_CA: Self = Self {
        option: "--printer-ca",
        key: "PRINTER_CA",
        value: "FILE",
        group: Group::Certificates,
        expected: "a PEM file",
        help: "Additional certificate authority for the printer's certificate, PEM",
        ..ROW
    };
    /// `--insecure-printer`.
    pub const INSECURE_PRINTER: Self = Self {
        option: "--insecure-printer",
        key: "INSECURE_PRINTER",
        group: Group::Certificates,
        help: "Do not verify the printer's certificate",
        ..FLAG
    };
    /// `--state-dir`.
    pub const STATE_DIR: Self = Self {
        option: "--state-dir",
        key: "PANDAPROXY_STATE_DIR",
        value: "DIR",
        group: Group::Certificates,
        expected: "a directory",
        help: "Where certificates and keys are kept. Default: /var/lib/pandaproxy for root, ~/.local/state/pandaproxy for others",
        ..ROW
    };
    /// `--ca-dir`.
    pub const CA_DIR: Self = Self {
        option: "--ca-dir",
        key: "CA_DIR",
        value: "DIR",
        group: Group::Certificates,
        expected: "a directory",
        help: "Where the certificate authority is kept, for several proxies that share one; the rest stays in --state-dir. Default: --state-dir",
        ..ROW
    };
    /// `--record`.
    pub const RECORD: Self = Self {
        option: "--record",
        key: "RECORD",
        value: "DIR",
        group: Group::Recording,
        expected: "a directory",
        help: "Record traffic into DIR for Wireshark, with credentials redacted",
        ..ROW
    };
    /// `--record-mib`.
    pub const RECORD_MIB: Self = Self {
        option: "--record-mib",
        key: "RECORD_MIB",
        value: "MIB",
        group: Group::Recording,
        default: "32",
        expected: "8 to 65536, in MiB",
        help: "Size of a recording; the oldest of its eight files is replaced",
        ..ROW
    };
    /// `--config`.
    pub const CONFIG: Self = Self {
        option: "--config",
        key: "PANDAPROXY_CONFIG",
        value: "FILE",
        expected: "a file of KEY=VALUE lines, or of one JSON object",
        help: "Read settings from FILE: KEY=VALUE lines or one JSON object, with the names in brackets as keys",
        ..ROW
    };
    /// `--verbose`.
    pub const VERBOSE: Self =
        Self { option: "--verbose", short: Some('v'), key: "DEBUG", help: "Log more", ..FLAG };

    /// Every setting, group by group. All but [`CONFIG`](Self::CONFIG) may stand in the file of settings.
    pub const ALL: [&'static Self; 33] = [
        &Self::PRINTER_IP,
        &Self::ACCESS_CODE,
        &Self::ACCESS_CODE_FILE,
        &Self::SERIAL_NUMBER,
        &Self::SERVICES,
        &Self::ENABLE_ALL,
        &Self::BIND,
        &Self::PORTS,
        &Self::PRINTER_PORTS,
        &Self::ADVERTISE_IP,
        &Self::ADVERTISE_NAME,
        &Self::ANNOUNCE,
        &Self::KEEP_PRINTER_ADDRESS,
        &Self::STRICT_SERIAL,
        &Self::NAME,
        &Self::HTTP_ADDRESS,
        &Self::VIEW_CODE,
        &Self::VIEW_CODE_FILE,
        &Self::HTTP_TOKEN,
        &Self::HTTP_TOKEN_FILE,
        &Self::NOTICE,
        &Self::MACHINE_PORT,
        &Self::FTP_MODE,
        &Self::FTP_DATA_PORTS,
        &Self::PORT_6000,
        &Self::PRINTER_CA,
        &Self::INSECURE_PRINTER,
        &Self::STATE_DIR,
        &Self::CA_DIR,
        &Self::RECORD,
        &Self::RECORD_MIB,
        &Self::CONFIG,
        &Self::VERBOSE,
    ];

    /// Whether it may stand in the file of settings.
    pub fn is_in_file(&self) -> bool {
        *self != Self::CONFIG
    }

    /// Option without its dashes: the identifier in clap.
    pub fn id(&self) -> &'static str {
        self.option.trim_start_matches('-')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table_is_complete_and_unique() {
        for (at, row) in Setting::ALL.into_iter().enumerate() {
            let Setting { option, key, value, expected, help, .. } = row;
            assert!(option.starts_with("--") && !key.is_empty() && !value.is_empty(), "{option}");
            assert!(!expected.is_empty() && !help.is_empty() && !help.ends_with('.'), "{option}");
            assert!(key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
            for other in Setting::ALL.into_iter().skip(at + 1) {
                assert!(other.option != *option && other.key != *key, "{option}");
                assert!(other.short != row.short || row.short.is_none(), "{option}");
            }
        }
    }

    #[test]
    fn rows_of_a_group_stand_together() {
        let groups = Group::ALL.into_iter();
        let sorted = groups.flat_map(|group| {
            Setting::ALL.into_iter().filter(move |setting| setting.group == group)
        });
        assert!(sorted.eq(Setting::ALL));
    }
}
