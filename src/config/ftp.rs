//! How files are served: by whom TLS is ended, and on which ports data come.

use core::fmt;
use core::ops::RangeInclusive;

use super::ConfigError;
use super::sources::Given;
use crate::memory::budget;
use crate::printer::model::{FileServer, Model};

/// Where FTP clients find their data in proxy mode, unless told otherwise: where they are with a P1 or
/// A1 (PROTOCOL §0).
const PROXY_PORTS: RangeInclusive<u16> = 2024..=2043;

/// Ports of the printer's; one range, or one of each [`FileServer`].
pub type PortRanges = heapless::Vec<RangeInclusive<u16>, 2>;

/// How files are served, and why so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ftp {
    /// How.
    pub mode: FtpMode,
    /// Why.
    pub because: Because,
}

/// Who ends the TLS of FTP clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FtpMode {
    /// This program. Clients share the printer's sessions, and are told one of these ports for their
    /// data; 0 is any.
    Proxy {
        /// Ports of this machine.
        data_ports: RangeInclusive<u16>,
    },
    /// The printer. Bytes are passed on as they are, on the printer's own ports, since the client reads
    /// their numbers where nobody else can.
    Relay {
        /// Ports of the printer, and of this machine; at most [`budget::DATA_PORTS`].
        data_ports: PortRanges,
    },
}

/// Why files are served as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// `--ftp-mode` says so.
    Asked,
    /// It is the default for this model.
    Model(&'static Model),
    /// The serial number belongs to no model that is known here.
    UnknownModel,
}

/// What `--ftp-mode` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    #[default]
    Auto,
    Proxy,
    Relay,
}

impl Wanted {
    pub(super) fn parse(value: &str) -> Option<Self> {
        let modes = [("auto", Self::Auto), ("proxy", Self::Proxy), ("relay", Self::Relay)];
        let mode = modes.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
        mode.map(|(_, mode)| mode)
    }
}

impl Ftp {
    /// What `wanted` means for a printer of this model, with these data ports if any were given.
    ///
    /// A printer that nobody knows gets the proxy: it speaks to both kinds of servers, takes one session
    /// at a time, and lets nobody near the printer who has not shown the code. A relay would have to
    /// guess the printer's data ports and how many sessions it can bear.
    pub(super) fn meant(
        wanted: Wanted,
        model: Option<&'static Model>,
        ports: Option<&Given>,
    ) -> Result<Self, ConfigError> {
        let (relays, because) = match (wanted, model) {
            (Wanted::Proxy, _) => (false, Because::Asked),
            (Wanted::Relay, _) => (true, Because::Asked),
            (Wanted::Auto, Some(model)) => {
                (model.file_server == FileServer::Vsftpd, Because::Model(model))
            }
            (Wanted::Auto, None) => (false, Because::UnknownModel),
        };
        let given = ports.map(|given| given.parse(port_range)).transpose()?;
        let mode = if relays {
            let data_ports = match (&given, ports, model) {
                (Some(range), Some(ports), _) if *range.start() == 0 || range.len() > MOST => {
                    return Err(ports.refused_as(format_args!(
                        "the printer's own ports in relay mode, FROM-TO and {MOST} at most"
                    )));
                }
                (Some(range), _, _) => PortRanges::from_iter([range.clone()]),
                (None, _, Some(model)) => PortRanges::from_iter([model.file_server.data_ports()]),
                (None, _, None) => {
                    FileServer::ALL.map(FileServer::data_ports).into_iter().collect()
                }
            };
            FtpMode::Relay { data_ports }
        } else {
            FtpMode::Proxy { data_ports: given.unwrap_or(PROXY_PORTS) }
        };
        Ok(Self { mode, because })
    }
}

/// Ports of the printer's that can be relayed.
const MOST: usize = budget::DATA_PORTS;

impl fmt::Display for Ftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            FtpMode::Proxy { .. } => "proxy mode (clients share the printer's sessions)",
            FtpMode::Relay { .. } => "relay mode (clients meet the printer's own certificate)",
        })?;
        match self.because {
            Because::Asked => f.write_str(", as --ftp-mode says"),
            Because::Model(model) => write!(f, ", the default for {}", model.name),
            Because::UnknownModel => f.write_str(
                ", since the serial number is of no model that is known here; a slicer that insists \
                 on the printer's own certificate needs --ftp-mode relay",
            ),
        }
    }
}

/// Reads `FROM-TO`, or one port; 0 alone is any.
fn port_range(value: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from <= to && (from > 0 || to == 0)).then_some(from..=to)
}
