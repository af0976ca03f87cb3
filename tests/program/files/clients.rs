//! Programs that transfer files. They get their commands on standard input, since a command line would show the code.

use core::fmt::Write as _;
use core::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use skips::is_missing;

use crate::clients::programs::Program;
use crate::clients::proxy::CODE;

/// A program that transfers files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Bambu Studio and OrcaSlicer upload with libcurl. It uses one connection for all jobs.
    Curl,
    /// Uses GnuTLS and sends commands without waiting for replies.
    Lftp,
    /// Python's `FTP_TLS`, with data connections that resume the TLS session of the control connection.
    Ftplib,
    /// The same without resumption, which is Python's default.
    FtplibAnew,
}

/// The address that a client connects to, and the authority it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: PathBuf,
    /// The name in the certificate, if it is not the address.
    pub(crate) name: Option<&'static str>,
    /// A folder for the client's own files.
    pub(crate) home: PathBuf,
}

/// A client's task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job<'a> {
    /// Uploads a file under this name.
    Put(&'a Path, &'a str),
    /// Downloads the file of this name to this path.
    Get(&'a str, &'a Path),
    /// Lists the names of all files.
    List,
}

/// A client's output, or why it failed.
pub(crate) type Done = Result<String, String>;

impl Client {
    /// Whether this machine has no such program.
    pub(crate) fn is_missing(self) -> bool {
        is_missing(match self {
            Self::Curl => "curl",
            Self::Lftp => "lftp",
            Self::Ftplib | Self::FtplibAnew => "python3",
        })
    }

    /// Does all jobs, one after the other over one connection.
    pub(crate) async fn run(self, target: &Target, jobs: &[Job<'_>]) -> Done {
        match self {
            Self::Curl => curl(target, jobs, "").await,
            Self::Lftp => {
                lftp(target, &jobs.iter().map(|job| lftp_line(*job)).collect::<String>()).await
            }
            Self::Ftplib | Self::FtplibAnew => {
                let mut python = Python::start(target, self == Self::Ftplib);
                for job in jobs {
                    python.tell(&match *job {
                        Job::Put(from, name) => json!(["put", from, name]),
                        Job::Get(name, to) => json!(["get", name, to]),
                        Job::List => json!(["list"]),
                    });
                }
                python.ended().await
            }
        }
    }
}

/// Does the jobs with curl, with `more` lines of configuration for each.
pub(crate) async fn curl(target: &Target, jobs: &[Job<'_>], more: &str) -> Done {
    let port = target.address.port();
    let host = target.name.map_or_else(|| target.address.ip().to_string(), str::to_owned);
    let mut given = String::new();
    for (at, job) in jobs.iter().enumerate() {
        if at > 0 {
            given += "next\n";
        }
        let name = match *job {
            Job::Put(_, name) | Job::Get(name, _) => name,
            Job::List => "",
        };
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        writeln!(given, "url = \"ftps://{host}:{port}/{encoded}\"").unwrap();
        writeln!(given, "user = \"bblp:{CODE}\"\ncacert = {}", quoted(&target.authority)).unwrap();
        writeln!(given, "silent\nshow-error\nmax-time = 120\n{more}").unwrap();
        if let Some(name) = target.name {
            writeln!(given, "resolve = \"{name}:{port}:{}\"", target.address.ip()).unwrap();
        }
        match *job {
            Job::Put(from, _) => writeln!(given, "upload-file = {}", quoted(from)),
            Job::Get(_, to) => writeln!(given, "output = {}", quoted(to)),
            Job::List => writeln!(given, "list-only"),
        }
        .unwrap();
    }
    run(Command::new("curl").args(["-K", "-"]), &given).await
}

/// Runs a script of lftp's on a connection.
pub(crate) async fn lftp(target: &Target, script: &str) -> Done {
    let given = format!(
        "set cmd:fail-exit yes\n\
         set xfer:clobber yes\n\
         set net:max-retries 1\n\
         set net:timeout 60\n\
         set ssl:ca-file {ca}\n\
         set ssl:check-hostname no\n\
         set ftp:prefer-epsv yes\n\
         open -u bblp,{CODE} ftps://{address}\n\
         {script}",
        ca = quoted(&target.authority),
        address = target.address,
    );
    run(Command::new("lftp").env("HOME", &target.home), &given).await
}

fn lftp_line(job: Job<'_>) -> String {
    match job {
        Job::Put(from, name) => format!("put {} -o {}\n", quoted(from), quoted(name)),
        Job::Get(name, to) => format!("get {} -o {}\n", quoted(name), quoted(to)),
        Job::List => "cls -1\n".to_owned(),
    }
}

/// A name as both curl's configuration and lftp accept it.
pub(crate) fn quoted(name: impl AsRef<Path>) -> String {
    let name = name.as_ref().to_str().unwrap();
    assert!(!name.contains(['"', '\\', '\n']), "{name}");
    format!("\"{name}\"")
}

async fn run(command: &mut Command, given: &str) -> Done {
    let mut program = Program::start(command);
    program.tell(given);
    ended(program).await
}

async fn ended(mut program: Program) -> Done {
    let (status, output) = program.ended().await;
    let out = String::from_utf8_lossy(&output.out).into_owned();
    if status == Some(0) { Ok(out) } else { Err(format!("status {status:?}: {out}{}", output.err)) }
}

/// `files.py`, which can stop in the middle of an upload.
pub(crate) struct Python(Program);

impl Python {
    pub(crate) fn start(target: &Target, reuse: bool) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/files.py");
        let mut command = Command::new("python3");
        command
            .arg(script)
            .arg(target.address.ip().to_string())
            .arg(target.address.port().to_string());
        command.arg(&target.authority).arg(if reuse { "reuse" } else { "anew" });
        let mut program = Program::start(&mut command);
        program.tell(CODE);
        Self(program)
    }

    /// Begins to upload a file. Completes when the first half has been sent; the program waits then.
    pub(crate) async fn put_half(&mut self, from: &Path, name: &str) {
        self.tell(&json!(["put-by-halves", from, name]));
        let half = |output: &[u8]| output.windows(6).any(|word| word == b"\"half\"");
        let within = crate::clients::programs::PATIENCE;
        assert!(self.0.until(within, |output| half(&output.out)).await, "{}", self.0.log());
    }

    /// Has it send the other half.
    pub(crate) fn put_rest(&mut self) {
        self.0.tell("");
    }

    pub(crate) fn tell(&mut self, what: &Value) {
        self.0.tell(&what.to_string());
    }

    pub(crate) async fn ended(self) -> Done {
        ended(self.0).await
    }
}
