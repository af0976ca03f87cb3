//! `cargo run --example viewer -- HOST`: watches a chamber camera, or this proxy, and saves a picture to
//! look at.
//!
//! It writes its own bytes and shares no code with the proxy. The access code comes from the environment
//! (`ACCESS_CODE`) or a file, never from the command line.

#[path = "../support/clients/anybody.rs"]
mod anybody;

use core::time::Duration;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use anybody::Anybody;

/// The longest picture it takes, in bytes.
const MAX_PICTURE: usize = 16 << 20;

/// How long it waits for anything: a cold camera takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watches a chamber camera and saves a picture. The access code is taken from ACCESS_CODE, or from a file.
#[derive(Parser)]
#[command(name = "viewer")]
struct Args {
    /// Where: HOST or HOST:PORT, with port 6000 if none is given
    host: String,
    /// A file whose first line is the access code
    #[arg(long, value_name = "FILE")]
    access_code_file: Option<PathBuf>,
    /// Where the last picture is saved
    #[arg(long, value_name = "FILE", default_value = "picture.jpg")]
    output: PathBuf,
    /// Pictures to watch
    #[arg(long, value_name = "N", default_value_t = 1)]
    pictures: u32,
    /// The authority to trust (`pandaproxy ca`); without it, any certificate is accepted
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn main() -> ExitCode {
    match watch(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("viewer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn watch(args: &Args) -> Result<(), String> {
    let code = code(args)?;
    let (host, port) = match args.host.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| "the port is no number".to_owned())?),
        None => (args.host.as_str(), 6000),
    };
    let mut stream = connect(host, port, args)?;
    stream.write_all(&login(&code)).and_then(|()| stream.flush()).map_err(said)?;

    let began = Instant::now();
    let mut picture = Vec::new();
    for seen in 0..args.pictures.max(1) {
        let mut head = [0; 16];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && seen == 0 => {
                return Err("closed without a picture: the access code is wrong, or this is no \
                            chamber camera"
                    .to_owned());
            }
            read => read.map_err(said)?,
        }
        let [a, b, c, d, ..] = head;
        let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > MAX_PICTURE {
            return Err(format!("a picture of {len} bytes: this is no chamber camera"));
        }
        picture.resize(len, 0);
        stream.read_exact(&mut picture).map_err(said)?;
        println!("picture {}: {len} bytes after {:.1} s", seen + 1, began.elapsed().as_secs_f32());
    }
    fs::write(&args.output, &picture).map_err(said)?;
    println!("saved {}", args.output.display());
    Ok(())
}

fn code(args: &Args) -> Result<String, String> {
    let text = match &args.access_code_file {
        Some(file) => fs::read_to_string(file).map_err(said)?,
        None => std::env::var("ACCESS_CODE")
            .map_err(|_| "no access code: give ACCESS_CODE or --access-code-file".to_owned())?,
    };
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn connect(
    host: &str,
    port: u16,
    args: &Args,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let address = (host, port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| format!("{host} is not known here"))?;
    let socket = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| format!("no answer from {address}: {error}"))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    socket.set_write_timeout(Some(PATIENCE)).map_err(said)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(said)?;
    let config = match &args.ca {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(file).map_err(said)?).map_err(said)?;
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth(),
    };
    let name = ServerName::try_from(host.to_owned()).map_err(said)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(said)?;
    Ok(StreamOwned::new(connection, socket))
}

/// 80 bytes: four words, the user, the code.
fn login(code: &str) -> [u8; 80] {
    let mut bytes = [0; 80];
    let words = [0x40_u32, 0x3000, 0, 0].into_iter().flat_map(u32::to_le_bytes);
    let field = |text: &str| {
        let padded = text.bytes().chain(core::iter::repeat(0)).take(32);
        padded.collect::<Vec<u8>>()
    };
    let all = words.chain(field("bblp")).chain(field(code));
    for (to, from) in bytes.iter_mut().zip(all) {
        *to = from;
    }
    bytes
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn said(error: impl ToString) -> String {
    error.to_string()
}
