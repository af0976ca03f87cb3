//! What the program is to do, from its command line, its environment and a file.
//!
//! Two layers: `args` holds what was typed, [`Config`] what is meant. Between them `sources`
//! finds the value that counts: command line > environment > file > default.
//!
//! At a value that is no good the program exits with 2 and says in one line which option has it, where
//! it came from, what it is and what it may be. The access code is in no such line, in no `Debug` and
//! in no help.

mod args;
mod ftp;
mod sources;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use log::Level;

use self::args::{Args, Command, Typed};
pub use self::ftp::{Because, Ftp, FtpMode, PortRanges};
use self::sources::{Given, Setting, Source, Sources};
use crate::auth::AccessCode;
use crate::printer::model::{Camera, Model};

/// A printer's serial number: upper-case letters and digits, as in its topics.
pub type Serial = heapless::String<32>;

/// What the program was asked to do.
#[derive(Debug)]
pub enum Intent {
    /// Serve.
    Serve(Box<Config>),
    /// Print the certificate authority that clients are to trust (`pandaproxy ca`).
    PrintCa {
        /// Where it is kept.
        state_dir: PathBuf,
        /// The printer's serial number, if it was given.
        serial: Option<Serial>,
    },
    /// Say whether the services of this configuration answer (`pandaproxy health`).
    Health(Box<Config>),
    /// Print what this build may hold in memory.
    PrintBudget,
    /// Print this text, help or version, on standard output.
    Print(String),
}

/// What is meant. Everything in it has been checked as far as it can be without the network.
#[derive(Debug)]
pub struct Config {
    /// Where the printer is.
    pub printer: PrinterAddr,
    /// The printer's access code, and what clients have to show.
    pub code: AccessCode,
    /// The printer's serial number.
    pub serial: Serial,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The services to serve; at least one.
    pub services: Services,
    /// Where clients find them. 0 lets the system choose.
    pub ports: Ports,
    /// Where the printer has them. Never 0.
    pub printer_ports: Ports,
    /// How files are served.
    pub ftp: Ftp,
    /// Where certificates and pins are kept.
    pub state_dir: PathBuf,
    /// One more authority that may vouch for the printer, as PEM.
    pub printer_ca: Option<PathBuf>,
    /// The address clients reach this proxy at, where it cannot know.
    pub advertise: Option<Ipv4Addr>,
    /// Whether whoever answers at the printer's address is believed to be the printer.
    pub insecure_printer: bool,
    /// Whether the printer's own address stays in its reports.
    pub keep_printer_address: bool,
    /// Where and how much is recorded, if anything is.
    pub record: Option<Recording>,
    /// Whether the log says more.
    pub verbose: bool,
    /// What the log should say once there is one.
    pub notices: heapless::Vec<Notice, NOTICES>,
}

/// The notices there can be: one for the serial number and one for each service not served.
pub const NOTICES: usize = 3;

impl Config {
    /// Reads the command line, the program's name first, and what `env` knows.
    ///
    /// # Errors
    ///
    /// Something is missing or no good; the message is one line.
    pub fn from_args(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Intent, ConfigError> {
        let words: Vec<OsString> = args.into_iter().collect();
        let args = match Args::read(&words)? {
            Typed::Args(args) => args,
            Typed::Print(text) => return Ok(Intent::Print(text)),
        };
        if args.budget {
            return Ok(Intent::PrintBudget);
        }
        let sources = Sources::open(args.config.as_deref(), &env)?;
        match &args.command {
            Some(Command::Ca) => Ok(Intent::PrintCa {
                state_dir: state_dir(&args, &sources)?,
                serial: serial(&args, &sources)?.map(|(serial, _)| serial),
            }),
            Some(Command::Health) => Ok(Intent::Health(Box::new(Self::meant(&args, &sources)?))),
            Some(Command::Record { .. }) | None => {
                Ok(Intent::Serve(Box::new(Self::meant(&args, &sources)?)))
            }
        }
    }

    /// The listeners of the services that are served, by the names of [`Ports`], and where they are.
    pub fn listening(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let Self { services, ports, .. } = self;
        let has_tunnel = services.ftp && self.has_tunnel();
        [
            (services.mqtt, "mqtt", ports.mqtt),
            (services.camera || has_tunnel, "chamber", ports.chamber),
            (services.camera, "rtsp", ports.rtsp),
            (services.ftp, "ftp", ports.ftp),
        ]
        .into_iter()
        .filter_map(|(served, name, port)| served.then_some((name, port)))
    }

    /// Whether port 6000 is the file tunnel's, as far as the serial number tells: on a printer with an RTSPS
    /// camera the port can be nothing else.
    pub fn has_tunnel(&self) -> bool {
        Model::of_serial(&self.serial).is_some_and(|model| model.camera == Camera::Rtsp)
    }

    fn meant(args: &Args, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut notices = heapless::Vec::new();
        // There is room for one of each.
        let mut notice = |notice: Notice| notices.push(notice).unwrap_or_default();

        let find = |setting, typed: &Option<OsString>| sources.find(setting, typed.as_deref());
        let flag = |setting, typed| match find(setting, typed) {
            Some(given) => given.parse(truth),
            None => Ok(false),
        };

        let printer = find(&Setting::PRINTER_IP, &args.printer_ip)
            .ok_or_else(|| ConfigError::missing(&Setting::PRINTER_IP))?
            .parse(PrinterAddr::parse)?;
        let code = access_code(args, sources)?;
        let (serial, raised) =
            serial(args, sources)?.ok_or_else(|| ConfigError::missing(&Setting::SERIAL_NUMBER))?;
        if raised {
            notice(Notice::SerialRaised);
        }
        let bind = match find(&Setting::BIND, &args.bind) {
            Some(given) => given.parse(|value| value.parse().ok())?,
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };

        let all = flag(&Setting::ENABLE_ALL, &args.enable_all)?;
        let services = match find(&Setting::SERVICES, &args.services) {
            Some(given) if !all => {
                let wanted = given.parse(Services::parse)?;
                for service in Service::ALL.into_iter().filter(|it| wanted.has(*it)) {
                    if !Services::BUILT.has(service) {
                        notice(Notice::NotServed(service));
                    }
                }
                let services = wanted.and(Services::BUILT);
                if services == Services::default() {
                    return Err(ConfigError::nothing_served(&given));
                }
                services
            }
            Some(_) | None => Services::BUILT,
        };

        let ports = match sources.find(&Setting::PORTS, listed(&args.port).as_deref()) {
            Some(given) => given.parse(|value| Ports::parse(value, 0))?,
            None => Ports::default(),
        };
        let typed = listed(&args.printer_port);
        let printer_ports = match sources.find(&Setting::PRINTER_PORTS, typed.as_deref()) {
            Some(given) => given.parse(|value| Ports::parse(value, 1))?,
            None => Ports::default(),
        };
        let ftp_mode = match find(&Setting::FTP_MODE, &args.ftp_mode) {
            Some(given) => given.parse(ftp::Wanted::parse)?,
            None => ftp::Wanted::default(),
        };
        let data_ports = find(&Setting::FTP_DATA_PORTS, &args.ftp_data_ports);
        let ftp = Ftp::meant(ftp_mode, Model::of_serial(&serial), data_ports.as_ref())?;
        let printer_ca = match find(&Setting::PRINTER_CA, &args.printer_ca) {
            Some(given) => Some(given.path()?),
            None => None,
        };
        let advertise = match find(&Setting::ADVERTISE_IP, &args.advertise_ip) {
            Some(given) => Some(given.parse(reachable)?),
            None => None,
        };

        Ok(Self {
            printer,
            code,
            serial,
            bind,
            services,
            ports,
            printer_ports,
            ftp,
            state_dir: state_dir(args, sources)?,
            printer_ca,
            advertise,
            insecure_printer: flag(&Setting::INSECURE_PRINTER, &args.insecure_printer)?,
            keep_printer_address: flag(&Setting::KEEP_PRINTER_ADDRESS, &args.keep_printer_address)?,
            record: Recording::meant(args, sources)?,
            verbose: flag(&Setting::VERBOSE, &args.verbose)?,
            notices,
        })
    }
}

/// What is recorded of all conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Where to.
    pub dir: PathBuf,
    /// How much is kept, in MiB.
    pub mib: u32,
    /// Whether there is nothing else to be done if it cannot be recorded there (`pandaproxy record`).
    pub must: bool,
}

impl Recording {
    /// What is kept if nothing is said, in MiB.
    pub const MIB: u32 = 32;

    fn meant(args: &Args, sources: &Sources<'_>) -> Result<Option<Self>, ConfigError> {
        let mib = match sources.find(&Setting::RECORD_MIB, args.record_mib.as_deref()) {
            Some(given) => {
                given.parse(|value| value.parse().ok().filter(|mib| (8..=65_536).contains(mib)))?
            }
            None => Self::MIB,
        };
        let (must, out) = match &args.command {
            Some(Command::Record { out }) => (true, out.as_ref()),
            Some(Command::Ca | Command::Health) | None => (false, None),
        };
        match sources.find(&Setting::RECORD, out.or(args.record.as_ref()).map(OsString::as_os_str))
        {
            Some(given) => Ok(Some(Self { dir: given.path()?, mib, must })),
            None if must => Err(ConfigError::new(format_args!(
                "record --out (or RECORD): got nothing, takes a directory"
            ))),
            None => Ok(None),
        }
    }
}

/// Where something is in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one printer")]
pub enum PrinterAddr {
    /// At this address.
    Ip(IpAddr),
    /// Wherever this name leads, which may change.
    Name(heapless::String<253>),
}

impl PrinterAddr {
    fn parse(value: &str) -> Option<Self> {
        match value.parse::<IpAddr>() {
            // Nobody in particular is nobody's printer, and connecting to it leads back here.
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

/// A service, as the command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Both cameras.
    Camera,
    /// Reports and requests.
    Mqtt,
    /// File upload.
    Ftp,
}

impl Service {
    /// Every service there is.
    pub const ALL: [Self; 3] = [Self::Camera, Self::Mqtt, Self::Ftp];

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Mqtt => "mqtt",
            Self::Ftp => "ftp",
        }
    }
}

/// Some of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Both cameras.
    pub camera: bool,
    /// Reports and requests.
    pub mqtt: bool,
    /// File upload.
    pub ftp: bool,
}

impl Services {
    /// What this build can serve.
    pub const BUILT: Self = Self { camera: true, mqtt: true, ftp: true };

    /// Whether `service` is one of them.
    pub const fn has(self, service: Service) -> bool {
        match service {
            Service::Camera => self.camera,
            Service::Mqtt => self.mqtt,
            Service::Ftp => self.ftp,
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            camera: self.camera && other.camera,
            mqtt: self.mqtt && other.mqtt,
            ftp: self.ftp && other.ftp,
        }
    }

    fn parse(list: &str) -> Option<Self> {
        let mut services = Self::default();
        for item in list.split(',').map(str::trim) {
            let service = Service::ALL
                .into_iter()
                .find(|service| item.eq_ignore_ascii_case(service.name()))?;
            match service {
                Service::Camera => services.camera = true,
                Service::Mqtt => services.mqtt = true,
                Service::Ftp => services.ftp = true,
            }
        }
        Some(services)
    }
}

/// A TCP port for each service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// MQTT over TLS.
    pub mqtt: u16,
    /// The chamber camera of A1 and P1, the file tunnel of the others; both over TLS.
    pub chamber: u16,
    /// The RTSPS camera of X1, H2 and P2.
    pub rtsp: u16,
    /// FTPS, with TLS from the first byte; its data ports apart.
    pub ftp: u16,
}

impl Default for Ports {
    /// The printer's own ports, which is where clients look (PROTOCOL §0).
    fn default() -> Self {
        Self { mqtt: 8883, chamber: 6000, rtsp: 322, ftp: 990 }
    }
}

impl Ports {
    /// Reads `service=port,…`. What is not in the list keeps its default; none stands there twice.
    fn parse(list: &str, lowest: u16) -> Option<Self> {
        let mut ports = Self::default();
        let mut named = heapless::Vec::<&str, 4>::new();
        for item in list.split(',') {
            let (service, port) = item.split_once('=')?;
            let port = port.trim().parse().ok().filter(|port| *port >= lowest)?;
            let names = ["mqtt", "chamber", "rtsp", "ftp"];
            let name = names.into_iter().find(|name| service.trim().eq_ignore_ascii_case(name))?;
            if named.contains(&name) {
                return None;
            }
            named.push(name).ok()?;
            match name {
                "mqtt" => ports.mqtt = port,
                "chamber" => ports.chamber = port,
                "rtsp" => ports.rtsp = port,
                _ => ports.ftp = port,
            }
        }
        Some(ports)
    }
}

/// Something that was accepted but not taken as it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The serial number had lower-case letters; topics have none.
    SerialRaised,
    /// This build does not have the service.
    NotServed(Service),
}

impl Notice {
    /// How loudly the log says it.
    pub const fn level(self) -> Level {
        match self {
            Self::SerialRaised => Level::Info,
            Self::NotServed(_) => Level::Warn,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SerialRaised => {
                f.write_str("--serial-number: taken in upper case, as the printer's topics have it")
            }
            Self::NotServed(service) => {
                write!(f, "--services: {} is not served by this build", service.name())
            }
        }
    }
}

/// Why the program cannot start: one line, without the access code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(line: fmt::Arguments<'_>) -> Self {
        Self(format!("{line}"))
    }

    fn refused(setting: &Setting, source: &Source, got: Option<&str>) -> Self {
        let Setting { option, takes, .. } = setting;
        match got {
            Some(got) => Self(format!("{option} ({source}): got {}, takes {takes}", quoted(got))),
            None => Self(format!("{option} ({source}): takes {takes}")),
        }
    }

    fn missing(setting: &Setting) -> Self {
        let Setting { option, env, takes } = setting;
        Self(format!("{option} (or {env}): got nothing, takes {takes}"))
    }

    fn nothing_served(given: &Given) -> Self {
        let Given { setting, source, .. } = given;
        Self(format!(
            "{} ({source}): got nothing this build serves, takes camera,mqtt,ftp",
            setting.option
        ))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ConfigError {}

/// The code, from whichever of its two settings stands higher.
fn access_code(args: &Args, sources: &Sources<'_>) -> Result<AccessCode, ConfigError> {
    let code = sources.find(&Setting::ACCESS_CODE, args.access_code.as_deref());
    let file = sources.find(&Setting::ACCESS_CODE_FILE, args.access_code_file.as_deref());
    let read = |code: &[u8]| AccessCode::new(code).ok();
    match (code, file) {
        (None, None) => Err(ConfigError::missing(&Setting::ACCESS_CODE)),
        (Some(code), Some(file)) if code.source.is_as_high_as(&file.source) => {
            Err(ConfigError::new(format_args!(
                "--access-code-file ({}): got --access-code ({}) as well, takes one of them",
                file.source, code.source
            )))
        }
        (Some(code), Some(file)) if code.source < file.source => code.parse_secret(read),
        (Some(code), None) => code.parse_secret(read),
        (_, Some(file)) => {
            let line = file.first_line()?;
            read(line.as_bytes())
                .ok_or_else(|| ConfigError::refused(file.setting, &file.source, None))
        }
    }
}

/// The serial number in upper case, and whether it had to be raised to it.
fn serial(args: &Args, sources: &Sources<'_>) -> Result<Option<(Serial, bool)>, ConfigError> {
    let Some(given) = sources.find(&Setting::SERIAL_NUMBER, args.serial_number.as_deref()) else {
        return Ok(None);
    };
    given
        .parse(|value| {
            let is_serial = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric());
            let mut serial = Serial::try_from(value).ok().filter(|_| is_serial)?;
            serial.make_ascii_uppercase();
            let raised = serial != value;
            Some((serial, raised))
        })
        .map(Some)
}

fn state_dir(args: &Args, sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    match sources.find(&Setting::STATE_DIR, args.state_dir.as_deref()) {
        Some(given) => given.path(),
        None => Ok(default_state_dir(is_root(), &|name| sources.environment(name))),
    }
}

/// Where systemd says (`StateDirectory=`, of which the first counts), else where such programs keep
/// their state: the system's for root, the user's own for others.
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
    // The XDG specification has relative paths ignored.
    env("XDG_STATE_HOME")
        .and_then(|home| absolute(PathBuf::from(home)))
        .or_else(|| env("HOME").and_then(|home| absolute(PathBuf::from(home).join(".local/state"))))
        .map_or(system, |state| state.join("pandaproxy"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A repeatable option's values, as the one list they are in the environment.
fn listed(typed: &[OsString]) -> Option<OsString> {
    (!typed.is_empty()).then(|| typed.join(OsStr::new(",")))
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

fn reachable(value: &str) -> Option<Ipv4Addr> {
    let ip: Ipv4Addr = value.parse().ok()?;
    (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()).then_some(ip)
}

/// Labels of letters, digits, `-` and `_` (which RFC 1123 has not, but routers give out). A last
/// label of digits only would be a mistyped address.
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

/// A value for a message: on one line, and not longer than one.
fn quoted(got: &str) -> String {
    const SHOWN: usize = 64;
    match got.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", got.get(..end).unwrap_or_default()),
        None => format!("{got:?}"),
    }
}
