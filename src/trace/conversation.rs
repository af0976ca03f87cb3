//! One connection as it is written: as TCP between synthetic addresses, with secrets redacted.
//!
//! | end | address | port |
//! |---|---|---|
//! | clients | 10.0.1.1 to 10.0.1.250, one for each address | 20000 + the connection's number |
//! | the proxy | 10.0.0.1 | the protocol's without TLS; towards the printer as a client's |
//! | the printer | 10.0.0.2 | the protocol's without TLS |

use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr};
use std::io::{self, Write};

use super::login::Login;
use super::pcapng::{self, ACK, End, FIN, PSH, SYN, Segment};
use super::redact::{Scanner, Secrets, Work};
use super::{Party, Protocol};

/// The end that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The end that opened the connection.
    Client,
    /// The end that accepted the connection.
    Server,
}

/// A connection that is being written.
pub struct Conversation {
    client: Side,
    server: Side,
}

/// One end of a connection, as a sender.
struct Side {
    end: End,
    /// TCP sequence number of the next byte.
    sequence: u32,
    scanner: Scanner,
    login: Login,
    /// When the first byte that is held back was sent.
    held_since: u64,
    /// Bytes dropped before the next one.
    missing: u64,
}

impl Conversation {
    /// Begins connection `number`: writes the TCP handshake.
    ///
    /// # Errors
    ///
    /// Errors of `out`.
    pub fn begin(
        out: &mut impl Write,
        secrets: &mut Secrets,
        (protocol, party): (Protocol, Party),
        number: u32,
        at: u64,
    ) -> io::Result<Self> {
        let proxy = Ipv4Addr::new(10, 0, 0, 1);
        let (from, to) = match party {
            Party::Client(address) => (caller(secrets, address), proxy),
            Party::Printer => (proxy, Ipv4Addr::new(10, 0, 0, 2)),
        };
        let port = 20_000 + u16::try_from(number % 40_000).unwrap_or_default();
        let side = |address, port, login| Side {
            end: End { address, port },
            sequence: 0,
            scanner: Scanner::new(protocol == Protocol::Ftp),
            login,
            held_since: at,
            missing: 0,
        };
        let login = match protocol {
            Protocol::Mqtt => Login::mqtt(),
            Protocol::Chamber => Login::chamber(),
            Protocol::Rtsp => Login::rtsp(),
            Protocol::Ftp => Login::ftp(),
            Protocol::FtpData { .. } | Protocol::Detect | Protocol::Http => Login::none(),
        };
        let mut begun = Self {
            client: side(from, port, login),
            server: side(to, protocol.port(), Login::none()),
        };
        let comment = format!("conversation {number}: {}", party.name());
        begun.send(out, From::Client, at, SYN, &comment)?;
        begun.client.sequence = 1;
        begun.send(out, From::Server, at, SYN | ACK, "")?;
        begun.server.sequence = 1;
        begun.send(out, From::Client, at, ACK, "")?;
        Ok(begun)
    }

    /// Writes `piece`, sent by one end, behind what was held back of it; `lost` bytes before it were dropped.
    ///
    /// # Errors
    ///
    /// Errors of `out`.
    pub fn send_piece(
        &mut self,
        (out, secrets, work): (&mut impl Write, &mut Secrets, &mut Work),
        from: From,
        at: u64,
        lost: u64,
        piece: &[u8],
    ) -> io::Result<()> {
        if lost > 0 {
            self.release((out, secrets, work), from, at, &[], true)?;
            let side = self.side(from);
            side.sequence = side.sequence.wrapping_add(lost as u32);
            side.login.misses();
            side.missing += lost;
        }
        self.release((out, secrets, work), from, at, piece, false)
    }

    /// Ends the connection: writes what is held back, and a FIN of each end. `left_out` bytes were not recorded.
    ///
    /// # Errors
    ///
    /// Errors of `out`.
    pub fn end(
        &mut self,
        (out, secrets, work): (&mut impl Write, &mut Secrets, &mut Work),
        first: From,
        at: u64,
        left_out: u64,
    ) -> io::Result<()> {
        for from in [From::Client, From::Server] {
            self.release((out, secrets, work), from, at, &[], true)?;
        }
        let comment = match left_out {
            0 => String::new(),
            _ => format!("{left_out} bytes before this were left out"),
        };
        let second = match first {
            From::Client => From::Server,
            From::Server => From::Client,
        };
        for (from, comment) in [(first, comment.as_str()), (second, "")] {
            self.send(out, from, at, FIN | ACK, comment)?;
            let side = self.side(from);
            side.sequence = side.sequence.wrapping_add(1);
        }
        self.send(out, first, at, ACK, "")
    }

    /// Writes what was held back and `piece`, up to what may be the beginning of a secret; with `over`, everything.
    fn release(
        &mut self,
        (out, secrets, work): (&mut impl Write, &mut Secrets, &mut Work),
        from: From,
        at: u64,
        piece: &[u8],
        over: bool,
    ) -> io::Result<()> {
        let side = self.side(from);
        let held = side.scanner.held();
        let rewrite = |byte, redacted| side.login.next(byte, redacted);
        let len = side.scanner.scan(secrets, piece, over, work, rewrite);
        let bytes = work.released(len);
        // Bytes that were held back keep their time.
        let (before, now) = bytes.split_at(held.min(len));
        let held_since = side.held_since;
        if len >= held {
            side.held_since = at;
        }
        for (bytes, at) in [(before, held_since), (now, at)] {
            if !bytes.is_empty() {
                self.send_bytes(out, from, at, bytes)?;
            }
        }
        Ok(())
    }

    fn send(
        &self,
        out: &mut impl Write,
        from: From,
        at: u64,
        flags: u8,
        comment: &str,
    ) -> io::Result<()> {
        let (own, other) = self.ends(from);
        let acknowledges = if flags & ACK == 0 { 0 } else { other.sequence };
        let segment = Segment {
            at,
            from: own.end,
            to: other.end,
            sequence: own.sequence,
            acknowledges,
            flags,
            payload: &[],
            comment,
        };
        pcapng::segment(out, &segment)
    }

    fn send_bytes(
        &mut self,
        out: &mut impl Write,
        from: From,
        at: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        let comment = match core::mem::take(&mut self.side(from).missing) {
            0 => String::new(),
            lost => format!(
                "{lost} bytes before this are missing: they came faster than files are written"
            ),
        };
        let (own, other) = self.ends(from);
        let segment = Segment {
            at,
            from: own.end,
            to: other.end,
            sequence: own.sequence,
            acknowledges: other.sequence,
            flags: PSH | ACK,
            payload,
            comment: &comment,
        };
        pcapng::segment(out, &segment)?;
        let side = self.side(from);
        side.sequence = side.sequence.wrapping_add(payload.len() as u32);
        Ok(())
    }

    const fn ends(&self, from: From) -> (&Side, &Side) {
        match from {
            From::Client => (&self.client, &self.server),
            From::Server => (&self.server, &self.client),
        }
    }

    const fn side(&mut self, from: From) -> &mut Side {
        match from {
            From::Client => &mut self.client,
            From::Server => &mut self.server,
        }
    }
}

fn caller(secrets: &mut Secrets, address: IpAddr) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, secrets.address(address))
}
