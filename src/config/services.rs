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
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 4] = [Self::Mqtt, Self::Chamber, Self::Rtsp, Self::Ftp];

    /// Name in settings and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Chamber => "chamber",
            Self::Rtsp => "rtsp",
            Self::Ftp => "ftp",
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
}

impl Services {
    /// All services.
    pub const ALL: Self = Self { mqtt: true, chamber: true, rtsp: true, ftp: true };

    /// Whether `service` is one of them.
    pub const fn has(self, service: Service) -> bool {
        match service {
            Service::Mqtt => self.mqtt,
            Service::Chamber => self.chamber,
            Service::Rtsp => self.rtsp,
            Service::Ftp => self.ftp,
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
}

impl Default for Ports {
    /// The printer's own ports, which are the ones that clients use ([`protocol`](crate::protocol)).
    fn default() -> Self {
        Self { mqtt: 8883, chamber: 6000, rtsp: 322, ftp: 990, tunnel: 6000 }
    }
}

impl Ports {
    /// Reads `SERVICE=PORT,…`, each service at most once, no port below `lowest`. Services that are not in the list keep
    /// their default, except that `tunnel` follows `chamber`, as the two had one name in earlier versions.
    pub(super) fn parse(list: &str, lowest: u16) -> Option<Self> {
        let (mut mqtt, mut chamber, mut rtsp, mut ftp, mut tunnel) = (None, None, None, None, None);
        for item in list.split(',') {
            let (name, port) = item.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let place = match name.as_str() {
                "mqtt" => &mut mqtt,
                "chamber" => &mut chamber,
                "rtsp" => &mut rtsp,
                "ftp" => &mut ftp,
                "tunnel" => &mut tunnel,
                _ => return None,
            };
            let port: u16 = port.trim().parse().ok()?;
            if port < lowest || place.replace(port).is_some() {
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
        })
    }
}
