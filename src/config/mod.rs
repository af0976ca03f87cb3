//! What the program is to do: read from the command line, the environment and a file of settings.
//!
//! `settings` is the table of all settings ([`Setting`]). `sources` finds the value that counts: command line, then environment,
//! then file, then default; `json` reads a file that is one JSON object. [`Config`] holds the meaning of the values.
//!
//! An invalid setting ends the program with status 2 and one line that names the setting, its value and what was
//! expected. The access code appears in no such line, in no `Debug` and in no help text.

mod announce;
mod args;
mod ftp;
mod help;
pub mod json;
mod services;
mod settings;
mod source;
mod sources;
#[cfg(test)]
mod tests;
mod update;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use std::ffi::OsString;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use log::Level;

pub use self::announce::{Announce, Broadcast, MAX_ADDRESSES};
pub use self::args::command;
use self::args::{Args, Typed, Word};
pub use self::ftp::{Because, Ftp, FtpMode, PortRanges};
pub use self::help::WIDTH as HELP_WIDTH;
pub use self::services::{Ports, Service, Services};
pub use self::settings::{Group, Kind, Setting};
use self::source::Source;
use self::sources::Sources;
pub use self::update::{Action, Update};
use crate::auth::AccessCode;
use crate::printer::model::Model;
pub use crate::printer::status::Port6000;
use crate::printer::status::{Name, Status};

/// Printer's serial number: upper-case letters and digits, as in its topics.
pub type Serial = heapless::String<32>;

/// Characters in the serial number of a printer ([`protocol`](crate::protocol#models)).
const SERIAL_LEN: usize = 15;

/// Characters in an access code ([`protocol`](crate::protocol#mqtt)).
const CODE_LEN: usize = 8;

/// File of settings that `check`, `health` and `ca` read when none is named: the one that `install.sh` writes.
const SYSTEM_CONFIG: &str = "/etc/pandaproxy/pandaproxy.conf";

/// What the program was asked to do.
#[derive(Debug)]
pub enum Intent {
    /// Serve.
    Serve(Box<Config>),
    /// Print the certificates that clients import (`pandaproxy ca`).
    PrintCa(Box<PrintCa>),
    /// Check the services of this configuration (`pandaproxy health`), and with `true` the printer.
    Health(Box<Config>, bool),
    /// Show the status of the running proxy (`pandaproxy status`), with `true` as JSON.
    Status(Box<Config>, bool),
    /// Check everything that this configuration needs (`pandaproxy check`).
    Check {
        /// The configuration, or why there is none.
        config: Result<Box<Config>, ConfigError>,
        /// Whether the result is printed as JSON.
        is_json: bool,
    },
    /// Verify an update file, and do what was asked with it (`pandaproxy update`).
    Update(Box<Update>),
    /// Print the memory budget of this build.
    PrintBudget,
    /// Print the limits of this build.
    PrintLimits,
    /// Print this text, help or version, on standard output.
    Print(String),
}

/// Where the certificates are that clients import.
#[derive(Debug, PartialEq, Eq)]
pub struct PrintCa {
    /// Directory of the certificate authority.
    pub dir: PathBuf,
    /// Directory of what vouches for the printers' certificates.
    pub state_dir: PathBuf,
    /// Additional authority for the printers' certificates, as PEM.
    pub printer_ca: Option<PathBuf>,
    /// Serial number of the printer whose certificate clients meet, if the settings tell.
    pub relayed: Option<Serial>,
}

impl PrintCa {
    fn of(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        // Other settings may be missing: this command needs none of them.
        let config = Config::meant(sources).ok().filter(Config::relays);
        Ok(Self {
            dir: ca_dir(sources)?,
            state_dir: state_dir(sources)?,
            printer_ca: match sources.find(&Setting::PRINTER_CA) {
                Some(given) => Some(given.path()?),
                None => None,
            },
            relayed: config.map(|config| config.serial),
        })
    }
}

/// The meaning of all settings, checked as far as possible without the network.
#[derive(Debug)]
pub struct Config {
    /// Printer's address.
    pub printer: PrinterAddr,
    /// Printer's access code, which clients have to show too.
    pub code: AccessCode,
    /// Printer's serial number.
    pub serial: Serial,
    /// Printer's name for its clients, if it was given.
    pub name: Option<Name>,
    /// Address to listen on.
    pub bind: IpAddr,
    /// Services to offer; at least one.
    pub services: Services,
    /// Ports of this machine; 0 lets the system choose.
    pub ports: Ports,
    /// Ports of the printer; never 0.
    pub printer_ports: Ports,
    /// How files are served.
    pub ftp: Ftp,
    /// What the printer has on its port 6000.
    pub port_6000: Port6000,
    /// Directory of certificates, keys and pins.
    pub state_dir: PathBuf,
    /// Directory of the certificate authority: the same, or one that several proxies share.
    pub ca_dir: PathBuf,
    /// Additional authority for the printer's certificate, as PEM.
    pub printer_ca: Option<PathBuf>,
    /// Address at which clients reach this machine, if it was given.
    pub advertise: Option<Ipv4Addr>,
    /// Further names by which clients reach this machine.
    pub advertise_names: heapless::Vec<HostName, MAX_NAMES>,
    /// Where the printer is announced to slicers.
    pub announce: Announce,
    /// Who sees what over HTTP, and where.
    pub http: Http,
    /// Whether the printer's certificate is not verified.
    pub insecure_printer: bool,
    /// Whether the printer's own address stays in its reports.
    pub keep_printer_address: bool,
    /// Whether topics of other serial numbers are not served.
    pub strict_serial: bool,
    /// Where and how much is recorded, if anything is.
    pub record: Option<Recording>,
    /// Whether debug messages are logged.
    pub verbose: bool,
    /// Remarks for the log, once there is one.
    pub notices: heapless::Vec<Notice, MAX_NOTICES>,
}

/// Names of `--advertise-name` at most.
pub const MAX_NAMES: usize = 8;

/// A host name.
pub type HostName = heapless::String<253>;

/// Notices at once: one of each kind.
pub const MAX_NOTICES: usize = 3;

impl Config {
    /// Reads the command line, the program's name first, and the environment `env`.
    ///
    /// # Errors
    ///
    /// A required setting is missing or a value is invalid; the message is one line.
    pub fn from_args(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Intent, ConfigError> {
        let words: Vec<OsString> = args.into_iter().collect();
        let args = match Args::read(&words)? {
            Typed::Args(args) => args,
            Typed::Print(text) => return Ok(Intent::Print(text)),
        };
        if args.has("budget") {
            return Ok(Intent::PrintBudget);
        }
        if args.has("limits") {
            return Ok(Intent::PrintLimits);
        }
        let word = args.word();
        if word == Some(Word::Update) {
            return Ok(Intent::Update(Box::new(Update::meant(&args)?)));
        }
        let system = match word {
            Some(Word::Ca | Word::Check | Word::Health | Word::Status) => {
                Some(Path::new(SYSTEM_CONFIG))
            }
            Some(Word::Record | Word::Update) | None => None,
        };
        let is_json = args.has_own("json");
        let sources = Sources::open(args, &env, system.filter(|path| path.exists()));
        if word == Some(Word::Check) {
            let config = sources.and_then(|sources| Self::meant(&sources)).map(Box::new);
            return Ok(Intent::Check { config, is_json });
        }
        let sources = sources?;
        match word {
            Some(Word::Ca) => Ok(Intent::PrintCa(Box::new(PrintCa::of(&sources)?))),
            Some(Word::Health) => {
                let with_printer = sources.args().has_own("printer");
                Ok(Intent::Health(Box::new(Self::meant(&sources)?), with_printer))
            }
            Some(Word::Status) => {
                let is_json = sources.args().has_own("json");
                Ok(Intent::Status(Box::new(Self::meant(&sources)?), is_json))
            }
            Some(Word::Check | Word::Record | Word::Update) | None => {
                Ok(Intent::Serve(Box::new(Self::meant(&sources)?)))
            }
        }
    }

    /// Name and port of each listener, data ports apart.
    pub fn listening(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let Self { services, ports, .. } = self;
        let has_tunnel = self.has_tunnel();
        [
            (services.mqtt, "mqtt", ports.mqtt),
            (services.chamber && !(services.ftp && has_tunnel), "chamber", ports.chamber),
            (services.rtsp, "rtsp", ports.rtsp),
            (services.ftp, "ftp", ports.ftp),
            (services.ftp && has_tunnel, "tunnel", ports.tunnel),
            (services.detect, "detect", ports.detect),
            (services.detect, "detect-tls", ports.detect_tls),
            (services.http, "http", ports.http),
        ]
        .into_iter()
        .filter_map(|(served, name, port)| served.then_some((name, port)))
    }

    /// The address that this [listener](Self::listening) is bound to.
    pub fn bind_of(&self, listener: &str) -> IpAddr {
        self.http.address.filter(|_| listener == "http").unwrap_or(self.bind)
    }

    /// Whether the proxy has this [listener](Self::listening)'s port open: it is closed where the printer's model has no
    /// such port, unless the printer shows one. `None`: only a probe of the printer tells.
    pub fn is_open(&self, listener: &str) -> Option<bool> {
        let status = Status::new(&self.serial, self.port_6000);
        match listener {
            "rtsp" => status.has_rtsps(),
            "chamber" => status.has_chamber(),
            _ => Some(true),
        }
    }

    /// Whether this printer is expected to have the file tunnel on its port 6000, by `--port-6000` or by its model
    /// ([`protocol`](crate::protocol#file-tunnel)).
    pub fn has_tunnel(&self) -> bool {
        self.port_6000.expects_tunnel(Model::of_serial(&self.serial))
    }

    /// Whether clients of a service meet the printer's own certificate. A printer of an unknown model may show a file
    /// tunnel.
    pub fn relays(&self) -> bool {
        let is_unknown = Model::of_serial(&self.serial).is_none();
        let may_have_tunnel = self.has_tunnel() || (is_unknown && self.port_6000 == Port6000::Auto);
        let is_relay = matches!(self.ftp.mode, FtpMode::Relay { .. });
        self.services.ftp && (is_relay || may_have_tunnel)
    }

    /// Whether the printer's address is a listener of this program, so that a connection to the printer would come back
    /// here. Looks at the addresses of this machine.
    ///
    /// # Errors
    ///
    /// The printer's address is a listener of this program; the message names the address.
    pub fn check_printer(&self) -> Result<(), ConfigError> {
        match self.printer {
            PrinterAddr::Ip(ip) if self.leads_back(ip) => Err(ConfigError::new(format!(
                "--printer-ip {ip} is this machine: the proxy would connect to itself; give the printer's own address"
            ))),
            PrinterAddr::Ip(_) | PrinterAddr::Name(_) => Ok(()),
        }
    }

    /// Whether a printer at `ip` would be this program itself: `ip` is an address of this machine, and one of the
    /// printer's ports is a port that this program listens on.
    pub fn leads_back(&self, ip: IpAddr) -> bool {
        let Ports { mqtt, chamber, rtsp, ftp, tunnel, detect, .. } = self.printer_ports;
        let printer = [mqtt, chamber, rtsp, ftp, tunnel, detect];
        let own = self.own_listeners();
        printer.into_iter().any(|port| own.has(SocketAddr::new(ip, port)))
    }

    /// Where this program listens, data ports apart.
    pub fn own_listeners(&self) -> OwnListeners {
        let ports = self.listening().map(|(_, port)| port).take(MAX_LISTENERS).collect();
        OwnListeners { bind: self.bind, ports }
    }

    fn meant(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut notices = heapless::Vec::new();
        // There is room for one of each.
        let mut notice = |notice: Notice| notices.push(notice).unwrap_or_default();

        let find = |setting| sources.find(setting);
        let flag = |setting| match find(setting) {
            Some(given) => given.parse(truth),
            None => Ok(false),
        };

        sources.check_required()?;
        let printer = sources.required(&Setting::PRINTER_IP)?.parse(PrinterAddr::parse)?;
        let code = access_code(sources)?;
        if code.reveal().len() != CODE_LEN {
            notice(Notice::CodeLength(code.reveal().len()));
        }
        let (serial, is_raised) = sources.required(&Setting::SERIAL_NUMBER)?.parse(serial)?;
        if is_raised {
            notice(Notice::SerialRaised);
        }
        if serial.len() != SERIAL_LEN {
            notice(Notice::SerialLength(serial.len()));
        }
        let name = match find(&Setting::NAME) {
            Some(given) => Some(given.parse(printer_name)?),
            None => None,
        };
        let bind = match find(&Setting::BIND) {
            Some(given) => given.parse(|value| value.parse().ok())?,
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };

        let all = flag(&Setting::ENABLE_ALL)?;
        let services = match find(&Setting::SERVICES) {
            Some(given) if !all => given.parse(Services::parse)?,
            Some(_) | None => Services::DEFAULT,
        };

        let ports = match find(&Setting::PORTS) {
            Some(given) => given.parse(|value| Ports::parse(value, services::Of::Proxy))?,
            None => Ports::default(),
        };
        let printer_ports = match find(&Setting::PRINTER_PORTS) {
            Some(given) => given.parse(|value| Ports::parse(value, services::Of::Printer))?,
            None => Ports::default(),
        };
        let ftp_mode = match find(&Setting::FTP_MODE) {
            Some(given) => given.parse(ftp::Wanted::parse)?,
            None => ftp::Wanted::default(),
        };
        let port_6000 = match find(&Setting::PORT_6000) {
            Some(given) => given.parse(port_6000)?,
            None => Port6000::default(),
        };
        let data_ports = find(&Setting::FTP_DATA_PORTS);
        let ftp = Ftp::meant(ftp_mode, Model::of_serial(&serial), data_ports.as_ref())?;
        let printer_ca = match find(&Setting::PRINTER_CA) {
            Some(given) => Some(given.path()?),
            None => None,
        };
        let advertise = match find(&Setting::ADVERTISE_IP) {
            Some(given) => Some(given.parse(reachable)?),
            None => None,
        };

        let announce = match find(&Setting::ANNOUNCE) {
            Some(given) => given.parse(Announce::parse)?,
            None => Announce::default(),
        };

        let config = Self {
            printer,
            code,
            serial,
            name,
            bind,
            services,
            ports,
            printer_ports,
            ftp,
            port_6000,
            state_dir: state_dir(sources)?,
            ca_dir: ca_dir(sources)?,
            printer_ca,
            advertise,
            advertise_names: match find(&Setting::ADVERTISE_NAME) {
                Some(given) => given.parse(host_names)?,
                None => heapless::Vec::new(),
            },
            announce,
            http: Http::meant(sources)?,
            insecure_printer: flag(&Setting::INSECURE_PRINTER)?,
            keep_printer_address: flag(&Setting::KEEP_PRINTER_ADDRESS)?,
            strict_serial: flag(&Setting::STRICT_SERIAL)?,
            record: Recording::meant(sources)?,
            verbose: flag(&Setting::VERBOSE)?,
            notices,
        };
        config.check_ports()?;
        Ok(config)
    }

    /// Every listener has a port of its own, and none is a data port of FTP clients.
    fn check_ports(&self) -> Result<(), ConfigError> {
        let data = match &self.ftp.mode {
            FtpMode::Proxy { data_ports } if self.services.ftp => Some(data_ports),
            FtpMode::Proxy { .. } | FtpMode::Relay { .. } => None,
        };
        for (at, (name, port)) in self.listening().enumerate().filter(|(_, (_, port))| *port != 0) {
            if let Some((other, _)) = self.listening().take(at).find(|(_, taken)| *taken == port) {
                return Err(ConfigError::new(format!(
                    "{other} and {name} are both to listen on port {port}; give one another port with --port"
                )));
            }
            if let Some(data) = data.filter(|data| data.contains(&port)) {
                let (from, to) = (data.start(), data.end());
                return Err(ConfigError::new(format!(
                    "port {port} of {name} is one of the FTP data ports {from}-{to}; choose others with --ftp-data-ports"
                )));
            }
        }
        Ok(())
    }
}

/// Where this program listens: a connection to the printer must not come back here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnListeners {
    bind: IpAddr,
    ports: heapless::Vec<u16, MAX_LISTENERS>,
}

/// Listeners at most, data ports apart: one for each name in [`Config::listening`].
const MAX_LISTENERS: usize = 8;

impl OwnListeners {
    /// No listeners.
    pub const NONE: Self =
        Self { bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ports: heapless::Vec::new() };

    /// Whether a connection to `at` would come back to this program. Looks at the addresses of this machine.
    pub fn has(&self, at: SocketAddr) -> bool {
        let is_bound = self.bind == at.ip() || self.bind.is_unspecified();
        is_bound && self.ports.contains(&at.port()) && is_own(at.ip())
    }
}

/// Whether `ip` is an address of this machine: only then a socket can be bound to it.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Value of `--port-6000`.
fn port_6000(value: &str) -> Option<Port6000> {
    let uses =
        [("auto", Port6000::Auto), ("chamber", Port6000::Chamber), ("tunnel", Port6000::Tunnel)];
    let found = uses.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, found)| found)
}

/// Where and how much traffic is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Directory of the recording's files.
    pub dir: PathBuf,
    /// Size of the recording, in MiB.
    pub mib: u32,
    /// Whether the program ends if it cannot record (`pandaproxy record`).
    pub must: bool,
}

impl Recording {
    /// Size of a recording unless it is given, in MiB.
    pub const MIB: u32 = 32;

    fn meant(sources: &Sources<'_>) -> Result<Option<Self>, ConfigError> {
        let mib = match sources.find(&Setting::RECORD_MIB) {
            Some(given) => {
                given.parse(|value| value.parse().ok().filter(|mib| (8..=65_536).contains(mib)))?
            }
            None => Self::MIB,
        };
        let must = sources.args().word() == Some(Word::Record);
        match sources.out().or_else(|| sources.find(&Setting::RECORD)) {
            Some(given) => Ok(Some(Self { dir: given.path()?, mib, must })),
            None if must => {
                Err(ConfigError::new("record needs --out DIR: the directory of the recording"))
            }
            None => Ok(None),
        }
    }
}

/// Printer's address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one printer")]
pub enum PrinterAddr {
    /// IP address.
    Ip(IpAddr),
    /// Host name, whose address may change.
    Name(HostName),
}

impl PrinterAddr {
    fn parse(value: &str) -> Option<Self> {
        match value.parse::<IpAddr>() {
            // Connecting to 0.0.0.0 reaches this machine itself.
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => None,
            Ok(IpAddr::V4(Ipv4Addr::BROADCAST)) => None,
            Ok(ip) => Some(Self::Ip(ip)),
            Err(_) if is_host_name(value) => value.try_into().ok().map(Self::Name),
            Err(_) => None,
        }
    }
}

impl fmt::Display for PrinterAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A remark about a setting that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The serial number had lower-case letters, which topics have not.
    SerialRaised,
    /// The serial number has this many characters, not those of a printer's.
    SerialLength(usize),
    /// The access code has this many characters, not those of a printer's.
    CodeLength(usize),
}

impl Notice {
    /// Level at which it is logged.
    pub const fn level(self) -> Level {
        match self {
            Self::SerialRaised => Level::Info,
            Self::SerialLength(_) | Self::CodeLength(_) => Level::Warn,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SerialRaised => f.write_str("serial number converted to upper case"),
            Self::SerialLength(len) => {
                write!(
                    f,
                    "the serial number has {len} characters; printers have {SERIAL_LEN}: is it complete?"
                )
            }
            Self::CodeLength(len) => {
                write!(
                    f,
                    "the access code has {len} characters; printers have {CODE_LEN}: is it complete?"
                )
            }
        }
    }
}

/// Why the settings are not accepted: one line, without the access code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }

    /// A value that is not accepted; `got` is `None` where it may not be shown.
    fn invalid(setting: &Setting, source: &Source, got: Option<&str>) -> Self {
        Self::invalid_as(setting, source, got, setting.expected)
    }

    /// The same, with another expectation than the table's.
    fn invalid_as(setting: &Setting, source: &Source, got: Option<&str>, expected: &str) -> Self {
        let value = match got {
            Some(got) => format!("value {}", quoted(got)),
            None => "value (not shown)".to_owned(),
        };
        let place = source.prefix();
        let name = source.name_of(setting);
        Self(format!("{place}invalid {value} for {name}: expected {expected}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ConfigError {}

/// The access code.
fn access_code(sources: &Sources<'_>) -> Result<AccessCode, ConfigError> {
    let code = secret(sources, [&Setting::ACCESS_CODE, &Setting::ACCESS_CODE_FILE], |_| true)?;
    code.ok_or_else(|| sources.missing(&[&Setting::ACCESS_CODE]))
}

/// A code from the higher of its two settings, the code itself and the file that it is in.
fn secret(
    sources: &Sources<'_>,
    [code, file]: [&'static Setting; 2],
    is_accepted: fn(&[u8]) -> bool,
) -> Result<Option<AccessCode>, ConfigError> {
    let (code, file) = (sources.find(code), sources.find(file));
    let read = |code: &[u8]| AccessCode::new(code).ok().filter(|_| is_accepted(code));
    match (code, file) {
        (Some(code), Some(file)) if code.source.is_as_high_as(&file.source) => {
            let place = file.source.prefix();
            let (code, file) =
                (code.source.name_of(code.setting), file.source.name_of(file.setting));
            Err(ConfigError::new(format!("{place}both {code} and {file} are given; remove one")))
        }
        (Some(code), Some(file)) if code.source < file.source => code.parse_secret(read).map(Some),
        (Some(code), None) => code.parse_secret(read).map(Some),
        (_, Some(file)) => {
            let line = file.first_line()?;
            read(line.as_bytes())
                .ok_or_else(|| ConfigError::invalid(file.setting, &file.source, None))
                .map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Who sees what over HTTP, and where.
#[derive(Debug, Default)]
pub struct Http {
    /// Address to listen on, if it is not that of the other services.
    pub address: Option<IpAddr>,
    /// A code that is good for HTTP alone.
    pub view_code: Option<AccessCode>,
    /// The same without a user name, for URLs.
    pub token: Option<AccessCode>,
    /// What the status page shows first: what is wrong with a memory card. At most [`MAX_NOTICE`] bytes.
    pub notice: Option<String>,
    /// TCP port of a page about this machine, to which the status page links: where a memory card takes updates.
    pub machine_port: Option<NonZeroU16>,
}

/// Bytes of `--notice` at most. `/status` has the notice in one item, where it may be twice as long, and an item that does
/// not fit an outbox is left out.
pub const MAX_NOTICE: usize = 600;

impl Http {
    fn meant(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let address = match sources.find(&Setting::HTTP_ADDRESS) {
            Some(given) => Some(given.parse(|value| value.parse().ok())?),
            None => None,
        };
        // The user makes it up, unlike the access code: a short one would be guessed.
        let is_long = |code: &[u8]| code.len() >= 8;
        // What a URL holds as it is.
        let is_token = |token: &[u8]| {
            token.len() >= 8
                && token.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let notice = match sources.find(&Setting::NOTICE) {
            Some(given) => {
                Some(given.parse(|value| (value.len() <= MAX_NOTICE).then(|| value.into()))?)
            }
            None => None,
        };
        let machine_port = match sources.find(&Setting::MACHINE_PORT) {
            Some(given) => Some(given.parse(|value| value.parse().ok())?),
            None => None,
        };
        Ok(Self {
            notice,
            machine_port,
            address,
            view_code: secret(sources, [&Setting::VIEW_CODE, &Setting::VIEW_CODE_FILE], is_long)?,
            token: secret(sources, [&Setting::HTTP_TOKEN, &Setting::HTTP_TOKEN_FILE], is_token)?,
        })
    }
}

/// The serial number in upper case, and whether it had lower-case letters.
fn serial(value: &str) -> Option<(Serial, bool)> {
    let is_serial = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut serial = Serial::try_from(value).ok().filter(|_| is_serial)?;
    serial.make_ascii_uppercase();
    let is_raised = serial != value;
    Some((serial, is_raised))
}

fn state_dir(sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    match sources.find(&Setting::STATE_DIR) {
        Some(given) => given.path(),
        None => Ok(default_state_dir(is_root(), &|name| sources.environment(name))),
    }
}

fn ca_dir(sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    match sources.find(&Setting::CA_DIR) {
        Some(given) => given.path(),
        None => state_dir(sources),
    }
}

/// systemd's state directory (`StateDirectory=`, the first of a list), else `/var/lib/pandaproxy` for root and the
/// user's own state directory for others.
fn default_state_dir(root: bool, env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let given = env("STATE_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .filter(|first| !first.as_os_str().is_empty());
    if let Some(given) = given {
        return given;
    }
    let system = PathBuf::from("/var/lib/pandaproxy");
    if root {
        return system;
    }
    // The XDG base directory specification says to ignore relative paths.
    env("XDG_STATE_HOME")
        .and_then(|home| absolute(PathBuf::from(home)))
        .or_else(|| env("HOME").and_then(|home| absolute(PathBuf::from(home).join(".local/state"))))
        .map_or(system, |state| state.join("pandaproxy"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn truth(value: &str) -> Option<bool> {
    let is_one_of = |words: [&str; 5]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is_one_of(["true", "1", "yes", "on", "y"]) {
        Some(true)
    } else if is_one_of(["false", "0", "no", "off", "n"]) {
        Some(false)
    } else {
        None
    }
}

/// Visible text that a slicer can show.
fn printer_name(value: &str) -> Option<Name> {
    let is_text = !value.trim().is_empty() && !value.contains(char::is_control);
    Name::try_from(value).ok().filter(|_| is_text)
}

fn reachable(value: &str) -> Option<Ipv4Addr> {
    let ip: Ipv4Addr = value.parse().ok()?;
    (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()).then_some(ip)
}

/// A list of host names.
fn host_names(value: &str) -> Option<heapless::Vec<HostName, MAX_NAMES>> {
    let mut names = heapless::Vec::new();
    for name in value.split(',').map(str::trim) {
        let name = name.strip_suffix('.').unwrap_or(name);
        let name: HostName = Some(name).filter(|name| is_host_name(name))?.try_into().ok()?;
        if !names.contains(&name) {
            names.push(name).ok()?;
        }
    }
    Some(names)
}

/// Labels of letters, digits, `-` and `_` (which RFC 1123 does not allow, but routers assign). A last label of
/// digits alone would be a mistyped address.
fn is_host_name(value: &str) -> bool {
    let name = value.strip_suffix('.').unwrap_or(value);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.split('.').all(is_label) && name.rsplit('.').next().is_some_and(|last| !is_number(last))
}

/// A value for a message: in quotes, on one line, cut after 64 characters.
fn quoted(got: &str) -> String {
    const SHOWN: usize = 64;
    match got.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", got.get(..end).unwrap_or_default()),
        None => format!("{got:?}"),
    }
}

/// One of each message of this area, for the table in `messages.rs`.
#[cfg(test)]
pub(crate) fn samples() -> Vec<String> {
    let notices = [Notice::SerialRaised, Notice::SerialLength(14), Notice::CodeLength(9)];
    let ftp = |mode, because| Ftp { mode, because };
    let (proxy, relay) = (
        FtpMode::Proxy { data_ports: 2024..=2043 },
        FtpMode::Relay { data_ports: PortRanges::new() },
    );
    let modes = [
        ftp(proxy.clone(), Because::Model(&Model::ALL[0])),
        ftp(relay, Because::Asked),
        ftp(proxy, Because::UnknownModel),
    ];
    let mut samples: Vec<String> = notices.iter().map(|it| format!("{it}")).collect();
    samples.extend(modes.iter().map(|it| format!("ftp: {it}")));
    samples.extend(tests::errors().iter().map(|it| format!("{it}")));
    samples
}
