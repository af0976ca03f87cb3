//! The file services: FTPS in proxy mode or in relay mode, and the file tunnel.
//!
//! | printer | port 990 | port 6000 |
//! |---|---|---|
//! | A1, P1 | proxy mode | chamber camera |
//! | X1, H2, P2 | relay mode | file tunnel, relayed |
//! | unknown model | proxy mode, one session | chamber camera |
//!
//! `--ftp-mode` overrides port 990; the file tunnel is always relayed, since its clients accept only the printer's
//! certificate. For an unknown model port 6000 is the chamber camera's: the camera service makes one connection to the
//! printer however many clients there are, a relay makes one for each.

pub mod pace;
pub mod passive;
pub mod records;
pub mod relay;
pub mod relay_ports;
pub mod transfer;

/// Each message of relay mode once, with typical values.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    use self::relay::{End, FILE_SILENCE_TIMEOUT, Seen, Side};
    use alloc::format;

    let peer = crate::peer::Peer { service: "ftp", ..crate::peer::Peer::unknown() };
    let ends = [
        End::Finished,
        End::Lost(Side::Client, std::io::ErrorKind::ConnectionReset),
        End::Lost(Side::Printer, std::io::ErrorKind::ConnectionReset),
        End::Stalled(Side::Client),
        End::LeftOpen(Side::Printer),
        End::Silent(FILE_SILENCE_TIMEOUT),
        End::NoLogin,
    ];
    let mut samples: alloc::vec::Vec<_> =
        ends.iter().map(|end| format!("{peer}: {end} (10 bytes up, 20 down in 1.5 s)")).collect();
    samples.extend(relay::samples(peer));
    for times in [1, 3] {
        samples.push(format!("ftp: cannot listen on data port 2024: in use{}", Seen(times)));
    }
    samples
}
