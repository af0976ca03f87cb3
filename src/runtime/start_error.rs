//! Why the program cannot start, with what to do about it.

use core::fmt;
use std::io;
use std::path::PathBuf;

use crate::state_dir::Cause;
use crate::trace;

/// Why the program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The operating system does not provide what every program needs.
    Runtime(io::Error),
    /// A port cannot be bound.
    Bind {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// None of the printer's data ports can be bound.
    DataPorts(io::Error),
    /// The proxy's certificates cannot be loaded from the state directory, or made there.
    Identity(PathBuf, crate::tls::IdentityError),
    /// The file of `--printer-ca` cannot be read.
    PrinterCa {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The certificates of `--printer-ca` cannot be used.
    Trust(crate::tls::TrustError),
    /// The recording cannot be started.
    Record(trace::StartError),
}

impl StartError {
    /// Whether a setting has an invalid value.
    pub const fn is_bad_value(&self) -> bool {
        match self {
            Self::PrinterCa { .. } | Self::Trust(_) => true,
            Self::Runtime(_)
            | Self::Bind { .. }
            | Self::DataPorts(_)
            | Self::Identity(..)
            | Self::Record(_) => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
            Self::Bind { port, error } if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "cannot bind port {port}: permission denied; ports below 1024 need \
                     CAP_NET_BIND_SERVICE: start as a service that has it, or choose another port with \
                     --port"
                )
            }
            Self::Bind { port, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot bind port {port}: in use by another program; end it, choose another port (--port) or \
                 address (--bind), or leave its service out of --services"
            ),
            Self::Bind { port, error } => write!(f, "cannot bind port {port}: {error}"),
            Self::DataPorts(error) => write!(
                f,
                "cannot bind any of the printer's data ports: {error}; end the program that has them, or \
                 choose --ftp-mode proxy"
            ),
            Self::Identity(dir, error) => write!(f, "state directory {}: {error}", dir.display()),
            Self::PrinterCa { path, error } => {
                write!(f, "--printer-ca {}: {}", path.display(), Cause::of(error))
            }
            Self::Trust(error) => write!(f, "--printer-ca: {error}"),
            Self::Record(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}

/// Each message once, with typical values.
#[cfg(test)]
pub(super) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use alloc::string::ToString;
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, OutOfMemory, PermissionDenied};
    let bind = |kind: io::ErrorKind| StartError::Bind { port: 990, error: kind.into() };
    [
        bind(PermissionDenied),
        bind(AddrInUse),
        bind(AddrNotAvailable),
        StartError::Runtime(OutOfMemory.into()),
        StartError::DataPorts(AddrInUse.into()),
        StartError::PrinterCa { path: PathBuf::from("ca.pem"), error: NotFound.into() },
    ]
    .map(|error| error.to_string())
    .into()
}
