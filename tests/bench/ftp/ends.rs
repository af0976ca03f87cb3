//! The two ends of a measured transfer: a printer that is a sink and a source, and a client.
//!
//! Both are as light as an end can be that speaks TLS: threads that block, one buffer each, nothing
//! looked at. They know of FTP what an upload and a download take.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned, version,
};

use crate::CODE;
use crate::anybody::Anybody;
use printer::Model;
use printer::tls::Shown;

/// Bytes handed to TLS, or taken from it, at once.
const PIECE: usize = 64 * 1024;

/// How long either end may be silent.
const MAX_SILENT: Duration = Duration::from_secs(120);

/// Which way a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];
}

/// A printer's file server: every file that is asked for has the length that is its name.
pub(crate) struct Printer {
    pub(crate) at: SocketAddr,
    /// Where all its data connections go.
    pub(crate) data: SocketAddr,
    pace: Arc<AtomicU64>,
}

impl Printer {
    /// Serves until the process ends.
    pub(crate) fn switch_on() -> io::Result<Self> {
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let data = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let tls = Shown::own(Model::X1C).config(Model::X1C)?;
        let pace = Arc::new(AtomicU64::new(0));
        let printer =
            Self { at: control.local_addr()?, data: data.local_addr()?, pace: Arc::clone(&pace) };
        thread::spawn(move || {
            for connection in control.incoming().flatten() {
                let server = Session {
                    tls: Arc::clone(&tls),
                    data: Arc::clone(&data),
                    pace: Arc::clone(&pace),
                };
                // A probe of the port disconnects before TLS.
                thread::spawn(move || server.converse(connection));
            }
        });
        Ok(printer)
    }

    /// From now on it takes and gives so many bytes a second.
    pub(crate) fn pace(&self, bytes_per_second: u64) {
        self.pace.store(bytes_per_second, Relaxed);
    }
}

struct Session {
    tls: Arc<ServerConfig>,
    data: Arc<TcpListener>,
    pace: Arc<AtomicU64>,
}

impl Session {
    fn converse(&self, connection: TcpStream) -> io::Result<()> {
        let mut control = BufReader::new(self.tls_over(connection)?);
        say(control.get_mut(), "220 ready")?;
        loop {
            let mut line = String::new();
            if control.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let (verb, name) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
            let control = control.get_mut();
            match verb {
                "USER" => say(control, "331 and the code")?,
                "PASS" => say(control, "230 welcome")?,
                "PWD" => say(control, "257 \"/\"")?,
                "EPSV" => say(control, &format!("229 (|||{}|)", self.data.local_addr()?.port()))?,
                "STOR" | "RETR" => {
                    let connection = self.data.accept()?.0;
                    say(control, "150 go on")?;
                    let mut data = self.tls_over(connection)?;
                    if verb == "STOR" {
                        self.takes(&mut data)?;
                    } else {
                        self.gives(&mut data, name.parse().map_err(io::Error::other)?)?;
                    }
                    drop(data);
                    say(control, "226 done")?;
                }
                "QUIT" => return say(control, "221 goodbye"),
                _ => say(control, "200 yes")?,
            }
        }
    }

    fn tls_over(&self, socket: TcpStream) -> io::Result<StreamOwned<ServerConnection, TcpStream>> {
        tune(&socket)?;
        let connection = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, socket))
    }

    fn takes(&self, data: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut due = Instant::now();
        loop {
            match data.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(len) => self.rests(&mut due, len),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn gives(&self, data: &mut impl Write, len: u64) -> io::Result<()> {
        let piece = vec![0; PIECE];
        let mut due = Instant::now();
        let mut left = len;
        while left > 0 {
            let now = left.min(PIECE as u64) as usize;
            data.write_all(&piece[..now])?;
            left -= now as u64;
            self.rests(&mut due, now);
        }
        data.flush()
    }

    /// As long as so many bytes take at its pace.
    fn rests(&self, due: &mut Instant, bytes: usize) {
        let pace = self.pace.load(Relaxed);
        if pace > 0 {
            *due += Duration::from_secs_f64(bytes as f64 / pace as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// A client, one session for each file.
pub(crate) struct Client {
    tls: Arc<ClientConfig>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut provider = default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        Self { tls: Arc::new(config) }
    }

    /// Moves a file, and says how long that took from STOR or RETR to 226.
    pub(crate) fn moves(
        &self,
        at: SocketAddr,
        direction: Direction,
        bytes: u64,
    ) -> io::Result<Duration> {
        let mut control = BufReader::new(self.tls_over(at)?);
        heard(&mut control, "220")?;
        let mut port = String::new();
        let pass = format!("PASS {CODE}");
        for (line, code) in [
            ("USER bblp", "331"),
            (&pass, "230"),
            ("PBSZ 0", "200"),
            ("PROT P", "200"),
            ("TYPE I", "200"),
            ("EPSV", "229"),
        ] {
            say(control.get_mut(), line)?;
            port = heard(&mut control, code)?;
        }
        let port = port.split('|').nth(3).and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| io::Error::other("no port in 229"))?;
        let began = Instant::now();
        let verb = if direction == Direction::Up { "STOR" } else { "RETR" };
        let data = TcpStream::connect(SocketAddr::new(at.ip(), port))?;
        say(control.get_mut(), &format!("{verb} {bytes}"))?;
        heard(&mut control, "150")?;
        let mut data = self.over(data, at)?;
        match direction {
            Direction::Up => gives(&mut data, bytes)?,
            Direction::Down => {
                let taken = takes(&mut data)?;
                if taken != bytes {
                    return Err(io::Error::other(format!("{taken} bytes of {bytes}")));
                }
            }
        }
        data.conn.send_close_notify();
        // A printer that has sent everything may be gone by now.
        let _gone = data.flush();
        let _gone = data.sock.shutdown(std::net::Shutdown::Write);
        heard(&mut control, "226")?;
        let took = began.elapsed();
        say(control.get_mut(), "QUIT")?;
        heard(&mut control, "221")?;
        Ok(took)
    }

    fn tls_over(&self, at: SocketAddr) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.over(TcpStream::connect(at)?, at)
    }

    fn over(
        &self,
        socket: TcpStream,
        at: SocketAddr,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        tune(&socket)?;
        let name = ServerName::from(at.ip());
        let connection =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, socket))
    }
}

fn gives(data: &mut impl Write, bytes: u64) -> io::Result<()> {
    let piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE as u64) as usize;
        data.write_all(&piece[..now])?;
        left -= now as u64;
    }
    data.flush()
}

fn takes(data: &mut impl Read) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut taken = 0;
    loop {
        match data.read(&mut piece) {
            Ok(0) => return Ok(taken),
            Ok(len) => taken += len as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(taken),
            Err(error) => return Err(error),
        }
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(MAX_SILENT))?;
    socket.set_write_timeout(Some(MAX_SILENT))
}

fn say(to: &mut impl Write, line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\r\n").as_bytes())?;
    to.flush()
}

/// The next answer, which has to begin so.
fn heard(from: &mut impl BufRead, code: &str) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if line.starts_with(code) {
        Ok(line)
    } else {
        Err(io::Error::other(format!("{:?} in the place of {code}", line.trim_end())))
    }
}
