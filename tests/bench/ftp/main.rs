//! What a file costs: `BOARD=generic-x86_64 cargo bench --bench ftp`.
//!
//! ```text
//!   a client ──┬───────────────────────────┬── a printer
//!              ├── pandaproxy, proxy mode ──┤
//!              ├── pandaproxy, relay mode ──┤
//!              └── haproxy, mode tcp ───────┘
//! ```
//!
//! Printer and client are in this process, on threads of their own ([`ends`]): implicit TLS 1.2, a sink
//! and a source of zeros, no disk. All programs share the machine, and what is measured is never more
//! than what is left of it: with two TLS ends beside it on two cores, a proxy that decrypts and encrypts
//! doubles the work that there is.
//!
//! # What is measured
//!
//! - MB/s: of one file of [`LARGE`] bytes, from STOR or RETR to 226, the median of [`ROUNDS`]; all ways
//!   take turns, so that they have the same weather.
//! - Through a printer that takes and gives 2 MB/s, with a smaller file.
//! - CPU: what the scheduler has charged the program in between with, for a GB, the median as well.
//! - Alone: the speed at which that CPU time would be one core's whole, which is what a machine gives
//!   whose core has nothing else to do.
//! - Memory: the most its heap ever held after [`SMALL`] bytes and after everything, and `VmHWM`.
//!
//! It takes about five minutes and judges nothing: a machine may be slow. The last lines say which aims
//! this run has met.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark that cannot go on should say so and stop"
)]

#[path = "../../support/clients/anybody.rs"]
mod anybody;
#[path = "../harness.rs"]
mod harness;
#[path = "../mqtt/process.rs"]
mod process;

mod ends;
mod table;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use ends::{Client, Direction, Printer};
use process::{Process, free_port};
use table::{Row, Table};

const CODE: &str = "12345678";
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");

/// Bytes of the file that is moved as fast as it goes.
const LARGE: u64 = 1_000_000_000;
/// Bytes of the first one: how much heap it takes may not depend on that.
const SMALL: u64 = 1_000_000;
/// Bytes of the one that is moved at [`PRINTERS_PACE`].
const PACED: u64 = 20_000_000;
/// What a printer that is not the slowest takes, in bytes a second (a P2S; see `protocol`, section `ftps`).
const PRINTERS_PACE: u64 = 2_000_000;
/// How often each way is measured.
const ROUNDS: usize = 3;
/// How long a program may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the programs listen: some have to have the printer's port numbers.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const HAPROXY: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 4), Ipv4Addr::new(127, 0, 0, 5)];

/// A way from the client to the printer.
struct Way {
    name: &'static str,
    at: SocketAddr,
    process: Option<Process>,
    /// The most its heap had held after [`SMALL`] bytes each way, in KiB.
    small: Option<u64>,
}

fn main() -> ExitCode {
    harness::run("ftp", |folder| measure(folder).map(|table| println!("{table}")))
}

fn measure(folder: &Path) -> io::Result<Table> {
    let printer = Printer::switch_on()?;
    let mut ways = vec![
        Way { name: "direct", at: printer.at, process: None, small: None },
        proxy(&printer, folder, "proxy")?,
        proxy(&printer, folder, "relay")?,
    ];
    ways.extend(haproxies(&printer, folder)?);
    let client = Client::new();
    // The first session of each is not measured.
    for way in &mut ways {
        for direction in Direction::BOTH {
            client.moves(way.at, direction, SMALL)?;
        }
        way.small = way.heap_peak()?;
    }
    let mut rows = Vec::new();
    for direction in Direction::BOTH {
        rows.extend(rounds(&client, &ways, direction, LARGE)?);
    }
    printer.pace(PRINTERS_PACE);
    let mut paced = Vec::new();
    for direction in Direction::BOTH {
        for way in &ways {
            paced.push(Row {
                runs: vec![once(&client, way, direction, PACED)?],
                ..way.row(direction)
            });
        }
    }
    let memory = ways.iter().map(|way| {
        let resident = way.process.as_ref().map(|process| process.resident().most);
        Ok((way.name, way.small, way.heap_peak()?, resident))
    });
    Ok(Table { rows, paced, memory: memory.collect::<io::Result<_>>()? })
}

/// Each way in turn, as often as it is measured.
fn rounds(client: &Client, ways: &[Way], direction: Direction, bytes: u64) -> io::Result<Vec<Row>> {
    let mut rows: Vec<Row> = ways.iter().map(|way| way.row(direction)).collect();
    for _ in 0..ROUNDS {
        for (row, way) in rows.iter_mut().zip(ways) {
            row.runs.push(once(client, way, direction, bytes)?);
        }
    }
    Ok(rows)
}

/// Bytes a second, and seconds of CPU for a GB.
fn once(client: &Client, way: &Way, direction: Direction, bytes: u64) -> io::Result<(f64, f64)> {
    let spent = || way.process.as_ref().map_or(Duration::ZERO, Process::cpu);
    let before = spent();
    let took = client.moves(way.at, direction, bytes)?;
    let spent = spent() - before;
    Ok((bytes as f64 / took.as_secs_f64(), spent.as_secs_f64() * 1e9 / bytes as f64))
}

impl Way {
    fn row(&self, direction: Direction) -> Row {
        Row { name: self.name, direction, runs: Vec::new() }
    }

    /// The most its heap ever held, if it tells.
    fn heap_peak(&self) -> io::Result<Option<u64>> {
        let Some(process) = self.process.as_ref().filter(|_| !self.name.starts_with("haproxy"))
        else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(process.heap_peak()))
    }
}

/// The program of this build, in one of its modes.
fn proxy(printer: &Printer, folder: &Path, mode: &'static str) -> io::Result<Way> {
    let state = folder.join(mode);
    fs::create_dir_all(&state)?;
    let address = if mode == "relay" { RELAY } else { PROXY };
    let at = SocketAddr::from((address, free_port()));
    let mut command = Process::command(
        printer::Model::X1C.serial(),
        "ftp",
        &format!("ftp={}", printer.at.port()),
        // The file tunnel's port, which is not used.
        &format!("ftp={},chamber=0", at.port()),
        &state,
    );
    let data = if mode == "relay" { printer.data.port() } else { 0 };
    command.arg(format!("--bind={address}")).arg(format!("--ftp-mode={mode}"));
    command.arg(format!("--ftp-data-ports={data}"));
    let process = Process::start(&mut command, state.join("pandaproxy.log"))?;
    listens(at, &process)?;
    Ok(Way { name: mode, at, process: Some(process), small: None })
}

/// haproxy on the printer's port numbers, copying and with `splice`. None if it is not installed.
fn haproxies(printer: &Printer, folder: &Path) -> io::Result<Vec<Way>> {
    let mut ways = Vec::new();
    let manners = [("haproxy", ""), ("haproxy, splice", "option splice-auto")];
    for ((name, option), address) in manners.into_iter().zip(HAPROXY) {
        let (control, data) = (printer.at.port(), printer.data.port());
        let given = folder.join(format!("{address}.cfg"));
        let text = format!(
            "global\n nbthread 1\n maxconn 64\n\
             defaults\n mode tcp\n {option}\n timeout connect 5s\n timeout client 300s\n timeout server 300s\n\
             listen control\n bind {address}:{control}\n server printer 127.0.0.1:{control}\n\
             listen data\n bind {address}:{data}\n server printer 127.0.0.1:{data}\n"
        );
        fs::write(&given, text)?;
        let known = "/usr/sbin/haproxy";
        let program = if Path::new(known).exists() { known } else { "haproxy" };
        let started = Process::start(
            Command::new(program).arg("-db").arg("-f").arg(&given),
            folder.join(format!("{address}.log")),
        );
        match started {
            Ok(process) => {
                let at = SocketAddr::from((address, control));
                listens(at, &process)?;
                ways.push(Way { name, at, process: Some(process), small: None });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("there is no haproxy here: nothing to compare with");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ways)
}

fn listens(at: SocketAddr, process: &Process) -> io::Result<()> {
    let end = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(at).is_err() {
        if Instant::now() > end {
            return Err(io::Error::other(process.said()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
