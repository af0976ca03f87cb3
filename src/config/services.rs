//! The services and their ports, under the names that every setting uses.

/// A service, as settings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Reports and requests.
    Mqtt,
    /// Chamber camera of A1 and P1.
    Chamber,
    /// RTSPS camera of X1, H2 and P2.
    Rtsp,
    /// Files, by FTPS and by the file tunnel.
    Ftp,
    /// Which printer this is, for slicers that ask.
    Detect,
    /// Discovery in the LAN.
    Ssdp,
    /// Status page, pictures and metrics.
    Http,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 7] =
        [Self::Mqtt, Self::Chamber, Self::Rtsp, Self::Ftp, Self::Detect, Self::Ssdp, Self::Http];

    /// Name in settings and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Chamber => "chamber",
            Self::Rtsp => "rtsp",
            Self::Ftp => "ftp",
            Self::Detect => "detect",
            Self::Ssdp => "ssdp",
            Self::Http => "http",
        }
    }
}

/// Name of both cameras together in `--services`.
const CAMERA: &str = "camera";

/// Some of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Reports and requests.
    pub mqtt: bool,
    /// Chamber camera of A1 and P1.
    pub chamber: bool,
    /// RTSPS camera of X1, H2 and P2.
    pub rtsp: bool,
    /// Files.
    pub ftp: bool,
    /// Which printer this is.
    pub detect: bool,
    /// Discovery in the LAN.
    pub ssdp: bool,
    /// Status page, pictures and metrics.
    pub http: bool,
}

impl Services {
    /// The services that are offered unless a setting lists them: those that the printer has.
    pub const DEFAULT: Self = Self {
        mqtt: true,
        chamber: true,
        rtsp: true,
        ftp: true,
        detect: true,
        ssdp: true,
        http: false,
    };

    /// Whether `service` is one of them.
    pub const fn has(self, service: Service) -> bool {
        match service {
            Service::Mqtt => self.mqtt,
            Service::Chamber => self.chamber,
            Service::Rtsp => self.rtsp,
            Service::Ftp => self.ftp,
            Service::Detect => self.detect,
            Service::Ssdp => self.ssdp,
            Service::Http => self.http,
        }
    }

    /// Whether a camera is one of them, so that the printer is asked which it has.
    pub const fn has_camera(self) -> bool {
        self.chamber || self.rtsp
    }

    const fn add(&mut self, service: Service) {
        match service {
            Service::Mqtt => self.mqtt = true,
            Service::Chamber => self.chamber = true,
            Service::Rtsp => self.rtsp = true,
            Service::Ftp => self.ftp = true,
            Service::Detect => self.detect = true,
            Service::Ssdp => self.ssdp = true,
            Service::Http => self.http = true,
        }
    }

    /// Reads a comma-separated list of at least one name, in upper or lower case.
    pub(super) fn parse(list: &str) -> Option<Self> {
        let mut services = Self::default();
        for item in list.split(',').map(str::trim) {
            if item.eq_ignore_ascii_case(CAMERA) {
                services.add(Service::Chamber);
                services.add(Service::Rtsp);
                continue;
            }
            let mut all = Service::ALL.into_iter();
            services.add(all.find(|service| item.eq_ignore_ascii_case(service.name()))?);
        }
        Some(services)
    }
}

/// A TCP port for each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// MQTT over TLS.
    pub mqtt: u16,
    /// Chamber camera of A1 and P1 over TLS.
    pub chamber: u16,
    /// RTSPS camera of X1, H2 and P2.
    pub rtsp: u16,
    /// FTPS control connections, with TLS from the first byte.
    pub ftp: u16,
    /// File tunnel of X1, H2 and P2.
    pub tunnel: u16,
    /// Detect without TLS.
    pub detect: u16,
    /// Detect over TLS.
    pub detect_tls: u16,
    /// HTTP, which the printer does not have.
    pub http: u16,
}

impl Default for Ports {
    /// The printer's own ports, which are the ones that clients use ([`protocol`](crate::protocol)).
    fn default() -> Self {
        Self {
            mqtt: 8883,
            chamber: 6000,
            rtsp: 322,
            ftp: 990,
            tunnel: 6000,
            detect: 3000,
            detect_tls: 3002,
            http: 8080,
        }
    }
}

/// Whose ports a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// This machine's; 0 lets the system choose.
    Proxy,
    /// The printer's, of which `detect-tls` is not used, and which has no HTTP.
    Printer,
}

impl Ports {
    /// Reads `SERVICE=PORT,…`, each service at most once. Services that are not in the list keep their default, except
    /// that `tunnel` follows `chamber`, as the two had one name in earlier versions.
    pub(super) fn parse(list: &str, of: Of) -> Option<Self> {
        let (mut mqtt, mut chamber, mut rtsp, mut ftp, mut tunnel) = (None, None, None, None, None);
        let (mut detect, mut detect_tls, mut http) = (None, None, None);
        for item in list.split(',') {
            let (name, port) = item.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let place = match name.as_str() {
                "mqtt" => &mut mqtt,
                "chamber" => &mut chamber,
                "rtsp" => &mut rtsp,
                "ftp" => &mut ftp,
                "tunnel" => &mut tunnel,
                "detect" => &mut detect,
                "detect-tls" if of == Of::Proxy => &mut detect_tls,
                "http" if of == Of::Proxy => &mut http,
                _ => return None,
            };
            let port: u16 = port.trim().parse().ok()?;
            if (port == 0 && of == Of::Printer) || place.replace(port).is_some() {
                return None;
            }
        }
        let default = Self::default();
        Some(Self {
            mqtt: mqtt.unwrap_or(default.mqtt),
            chamber: chamber.unwrap_or(default.chamber),
            rtsp: rtsp.unwrap_or(default.rtsp),
            ftp: ftp.unwrap_or(default.ftp),
            tunnel: tunnel.or(chamber).unwrap_or(default.tunnel),
            detect: detect.unwrap_or(default.detect),
            detect_tls: detect_tls.unwrap_or(default.detect_tls),
            http: http.unwrap_or(default.http),
        })
    }
}
