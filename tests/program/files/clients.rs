//! Programs that move files, told what to do on their standard input: a code has no place in a command
//! line.

use core::fmt::Write as _;
use core::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use skips::is_missing;

use crate::clients::programs::Program;
use crate::clients::proxy::CODE;

/// A program that moves files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// libcurl is what Bambu Studio and OrcaSlicer upload with. It has one connection for all it is told.
    Curl,
    /// GnuTLS, and commands sent ahead.
    Lftp,
    /// Python's `FTP_TLS`. Its data connections come back to the TLS session of its control connection.
    Ftplib,
    /// The same, whose data connections begin TLS sessions of their own: what Python does by itself.
    FtplibAnew,
}

/// The address that a client connects to, and the authority it trusts.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) authority: PathBuf,
    /// Whom the certificate has to name, if that is not the address.
    pub(crate) name: Option<&'static str>,
    /// A folder for what the client keeps.
    pub(crate) home: PathBuf,
}

/// A client's task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job<'a> {
    /// A file, and the name it is to have there.
    Put(&'a Path, &'a str),
    /// The name of a file, and where it is to go.
    Get(&'a str, &'a Path),
    /// The names of what is there.
    List,
}

/// What a client said when it was done, or why it was not.
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

    /// Does all of it, one after the other over one connection, and says what it says.
    pub(crate) async fn does(self, way: &Way, jobs: &[Job<'_>]) -> Done {
        match self {
            Self::Curl => curl(way, jobs, "").await,
            Self::Lftp => {
                lftp(way, &jobs.iter().map(|job| lftp_line(*job)).collect::<String>()).await
            }
            Self::Ftplib | Self::FtplibAnew => {
                let mut python = Python::start(way, self == Self::Ftplib);
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

/// Does it with curl, `more` lines of its configuration with each job.
pub(crate) async fn curl(way: &Way, jobs: &[Job<'_>], more: &str) -> Done {
    let port = way.address.port();
    let host = way.name.map_or_else(|| way.address.ip().to_string(), str::to_owned);
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
        writeln!(given, "user = \"bblp:{CODE}\"\ncacert = {}", quoted(&way.authority)).unwrap();
        writeln!(given, "silent\nshow-error\nmax-time = 120\n{more}").unwrap();
        if let Some(name) = way.name {
            writeln!(given, "resolve = \"{name}:{port}:{}\"", way.address.ip()).unwrap();
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

/// Does what a script of lftp's says, once it is connected.
pub(crate) async fn lftp(way: &Way, script: &str) -> Done {
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
        ca = quoted(&way.authority),
        address = way.address,
    );
    run(Command::new("lftp").env("HOME", &way.home), &given).await
}

fn lftp_line(job: Job<'_>) -> String {
    match job {
        Job::Put(from, name) => format!("put {} -o {}\n", quoted(from), quoted(name)),
        Job::Get(name, to) => format!("get {} -o {}\n", quoted(name), quoted(to)),
        Job::List => "cls -1\n".to_owned(),
    }
}

/// A name as both curl's configuration and lftp take it.
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
    let (status, said) = program.ended().await;
    let out = String::from_utf8_lossy(&said.out).into_owned();
    if status == Some(0) { Ok(out) } else { Err(format!("status {status:?}: {out}{}", said.err)) }
}

/// `files.py`, which can be told to stop in the middle of an upload.
pub(crate) struct Python(Program);

impl Python {
    pub(crate) fn start(way: &Way, reuse: bool) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/files.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(way.address.ip().to_string()).arg(way.address.port().to_string());
        command.arg(&way.authority).arg(if reuse { "reuse" } else { "anew" });
        let mut program = Program::start(&mut command);
        program.tell(CODE);
        Self(program)
    }

    /// Begins to upload a file. Completes when it has sent the first half, and waits.
    pub(crate) async fn puts_half(&mut self, from: &Path, name: &str) {
        self.tell(&json!(["put-by-halves", from, name]));
        let half = |said: &[u8]| said.windows(6).any(|word| word == b"\"half\"");
        let within = crate::clients::programs::PATIENCE;
        assert!(self.0.until(within, |said| half(&said.out)).await, "{}", self.0.log());
    }

    /// Lets it send the other half.
    pub(crate) fn go_on(&mut self) {
        self.0.tell("");
    }

    pub(crate) fn tell(&mut self, what: &Value) {
        self.0.tell(&what.to_string());
    }

    pub(crate) async fn ended(self) -> Done {
        ended(self.0).await
    }
}
