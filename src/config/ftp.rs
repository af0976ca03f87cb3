//! How files are served: where TLS is terminated, and which data ports are used.

use alloc::format;
use core::fmt;
use core::ops::RangeInclusive;

use super::ConfigError;
use super::sources::Given;
use crate::memory::budget;
use crate::printer::model::{FileServer, Model};

/// Data ports of FTP clients in proxy mode unless `--ftp-data-ports` names others: those of a P1 or A1
/// ([`protocol`](crate::protocol#ftps)).
const PROXY_PORTS: RangeInclusive<u16> = 2024..=2043;

/// Data ports of the printer: one range, or one for each [`FileServer`].
pub type PortRanges = heapless::Vec<RangeInclusive<u16>, 2>;

/// How files are served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ftp {
    /// Where TLS is terminated, and the data ports.
    pub mode: FtpMode,
    /// Reason for the mode.
    pub because: Because,
}

/// Where the TLS of FTP clients is terminated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FtpMode {
    /// In this program. Clients share the printer's sessions; their data connections use these ports, 0 is any.
    Proxy {
        /// Ports of this machine.
        data_ports: RangeInclusive<u16>,
    },
    /// In the printer. Bytes are forwarded as they are, on the printer's own ports, because this program cannot read
    /// or change the port numbers in the replies.
    Relay {
        /// The same ports of printer and machine; at most [`budget::DATA_PORTS`].
        data_ports: PortRanges,
    },
}

/// Reason for a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// `--ftp-mode` names it.
    Asked,
    /// The mode is this model's default.
    Model(&'static Model),
    /// The serial number belongs to no known model.
    UnknownModel,
}

/// Value of `--ftp-mode`.
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
    /// The mode for a printer of this model, with these data ports if any were given.
    ///
    /// An unknown model gets proxy mode: it works with both kinds of FTP servers, uses one session, and accepts clients
    /// with the access code alone. Relay mode would have to guess the printer's data ports and number of sessions.
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
                (Some(range), Some(ports), _) if *range.start() == 0 || range.len() > MAX_PORTS => {
                    return Err(ports.invalid_as(&format!(
                        "the printer's own ports in relay mode; FROM-TO, at most {MAX_PORTS}"
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

/// Data ports that can be relayed.
const MAX_PORTS: usize = budget::DATA_PORTS;

impl fmt::Display for Ftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_relay = matches!(self.mode, FtpMode::Relay { .. });
        f.write_str(if is_relay {
            "relay mode (clients see the printer's certificate here, the proxy's on the MQTT port)"
        } else {
            "proxy mode (clients share the printer's sessions)"
        })?;
        match self.because {
            Because::Asked => f.write_str(", set by --ftp-mode")?,
            Because::Model(model) => write!(f, ", the default for {}", model.name)?,
            Because::UnknownModel => f.write_str(
                ", because the serial number is of an unknown model; slicers that need the printer's own \
                 certificate need --ftp-mode relay",
            )?,
        }
        if is_relay {
            f.write_str(
                "; programs that pin one certificate for all ports need --ftp-mode proxy --port-6000 chamber",
            )?;
        }
        Ok(())
    }
}

/// Reads `FROM-TO`, or one port; 0 alone means any.
fn port_range(value: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = value.split_once('-').unwrap_or((value, value));
    let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (from <= to && (from > 0 || to == 0)).then_some(from..=to)
}
