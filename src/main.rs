//! `pandaproxy`: reads the settings, then serves or prints.

use core::cell::RefCell;
use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use pandaproxy::board::BOARD;
use pandaproxy::check::{Checked, Outcome, Stage};
use pandaproxy::config::{Action, Config, ConfigError, Intent, PrintCa, Update};
use pandaproxy::health;
use pandaproxy::journal::{self, Kind};
use pandaproxy::limits::Limits;
use pandaproxy::logger;
use pandaproxy::memory::{KIB, budget, heap};
use pandaproxy::runtime::check::local::ThisMachine;
use pandaproxy::runtime::check::{Check, Progress};
use pandaproxy::runtime::credentials;
use pandaproxy::runtime::launch::{self, Context, Credentials, Proxy, StartError};
use pandaproxy::runtime::net::Sockets;
use pandaproxy::runtime::supervisor;
use pandaproxy::state_dir::instance::Instance;
use pandaproxy::tls::issuers::{self, Issuer, Printer};
use pandaproxy::tls::{CaError, Identity};
use pandaproxy::update;
use pandaproxy::update::header::Header;
use pandaproxy::update::install::{Ended, Passed};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit status for invalid settings.
const BAD_VALUE: u8 = 2;

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var_os(name);
    let intent = match Config::from_args(std::env::args_os(), environment) {
        Ok(intent) => intent,
        Err(error) => {
            eprintln!("pandaproxy: {error}");
            return ExitCode::from(BAD_VALUE);
        }
    };
    let done = match intent {
        Intent::Serve(config) => return serve(&config),
        Intent::Health(config, with_printer) => {
            let printer = if with_printer { health::check_printer(&config) } else { Ok(()) };
            match printer.and_then(|()| health::check(&config)) {
                Ok(answering) => writeln!(std::io::stdout(), "healthy: {answering}"),
                Err(unhealthy) => {
                    eprintln!("pandaproxy health: {unhealthy}");
                    return ExitCode::FAILURE;
                }
            }
        }
        Intent::Status(config, is_json) => {
            let shown = health::show_status(&config, is_json, &mut std::io::stdout());
            if let Err(unhealthy) = shown {
                eprintln!("pandaproxy status: {unhealthy}");
                return ExitCode::FAILURE;
            }
            Ok(())
        }
        Intent::Check { config, is_json } => return check(config, is_json),
        Intent::Update(update) => return self::update(&update),
        Intent::PrintBudget => print_budget(),
        Intent::PrintLimits => write!(std::io::stdout(), "{Limits}"),
        Intent::Print(text) => write!(std::io::stdout(), "{text}"),
        Intent::PrintCa(ca) => match print_ca(&ca) {
            Ok(printed) => printed,
            Err(error) => {
                eprintln!("pandaproxy: state directory {}: {error}", ca.dir.display());
                return ExitCode::FAILURE;
            }
        },
    };
    // Standard output is closed.
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the proxy's authority, and behind it what vouches for the certificates of relayed printers. What each is goes to
/// standard error.
fn print_ca(ca: &PrintCa) -> Result<std::io::Result<()>, CaError> {
    let (pem, sha256) = Identity::ca_in(&ca.dir)?;
    let mut out = pem;
    eprintln!("{}, SHA-256 {}", ca.dir.join("ca.pem").display(), Hex(&sha256));
    let given = ca.printer_ca.as_deref().and_then(|path| {
        let warn = |error| eprintln!("pandaproxy: {}: {error}", path.display());
        launch::read_authorities(path).map_err(warn).ok()
    });
    let mut printed = Vec::new();
    let printers = issuers::printers(&ca.state_dir, given.as_deref(), SystemTime::now);
    for Printer { serial, issuers } in &printers {
        let issuers = match issuers {
            Ok(issuers) => issuers,
            Err(error) => {
                eprintln!("printer {serial}: {error}");
                continue;
            }
        };
        for Issuer { name, sha256, pem } in issuers {
            eprintln!("printer {serial}: {name}, SHA-256 {}", Hex(sha256));
            // Printers of one model have one issuer.
            if !printed.contains(sha256) {
                printed.push(*sha256);
                // The scripts for slicers know the mark, and remove what stands behind it with the authority.
                out.push_str(&format!("# PandaProxy: printer {serial}: {name}\n{pem}"));
            }
        }
    }
    if let Some(serial) = &ca.relayed
        && !printers.iter().any(|printer| printer.serial == **serial)
    {
        eprintln!(
            "printer {serial}: not seen yet; slicers need its certificate for files: run this again once the \
             service has connected to it"
        );
    }
    Ok(write!(std::io::stdout(), "{out}"))
}

/// Runs `pandaproxy check`: each stage's line as it ends, or all as JSON.
fn check(config: Result<Box<Config>, ConfigError>, is_json: bool) -> ExitCode {
    let mut lines = Lines { is_json, is_terminal: std::io::stderr().is_terminal(), failed: false };
    let of_settings = |error: &dyn core::fmt::Display, lines: &mut Lines| {
        let outcome = Outcome::of_settings(error);
        outcome.stages.iter().for_each(|stage| lines.end(stage));
        outcome
    };
    let outcome = match config {
        Ok(config) => match checked(&config, &mut lines) {
            Ok(outcome) => outcome,
            // A file that a setting names.
            Err(error) if error.is_bad_value() => of_settings(&error, &mut lines),
            Err(error) => {
                eprintln!("pandaproxy check: {error}");
                return ExitCode::FAILURE;
            }
        },
        Err(error) => of_settings(&error, &mut lines),
    };
    let mut out = std::io::stdout();
    let done = match is_json {
        true => writeln!(out, "{}", outcome.json()),
        false => writeln!(out, "{}", outcome.summary()),
    };
    // Standard output is closed.
    if done.is_err() || lines.failed {
        return ExitCode::FAILURE;
    }
    ExitCode::from(outcome.exit_status())
}

fn checked(config: &Config, lines: &mut Lines) -> Result<Outcome, StartError> {
    let trust = credentials::looking_trust(config)?;
    let machine = ThisMachine::look(config);
    let Context { clock, seed, .. } = Context::real();
    let check = Check { config, net: &Sockets, clock, trust, machine: &machine, seed };
    let runtime = launch::runtime()?;
    let outcome = runtime.block_on(check.run(lines));
    // Not dropped, which would wait for a name that is being looked up.
    runtime.shutdown_background();
    Ok(outcome)
}

/// Shows the stages of a check as they end, and on a terminal the one that runs.
struct Lines {
    is_json: bool,
    is_terminal: bool,
    /// Whether a line could not be written.
    failed: bool,
}

impl Progress for Lines {
    fn begin(&mut self, stage: Stage) {
        if self.is_terminal {
            eprint!("\r\x1b[K… {:>2} {}", stage.number(), stage.name());
        }
    }

    fn end(&mut self, checked: &Checked) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
        if !self.is_json {
            self.failed |= writeln!(std::io::stdout(), "{checked}").is_err();
        }
    }
}

/// Does with an update file what was asked.
fn update(asked: &Update) -> ExitCode {
    /// Exit status where the new version failed and the old one is back.
    const RETURNED: u8 = 3;
    /// Exit status where the new version failed and is still there.
    const STUCK: u8 = 4;
    let show = |header: Header| {
        // The exit status tells as well.
        let _shown = write!(std::io::stdout(), "{header}");
    };
    let mut steps = Steps { _signals: None };
    let done = match &asked.action {
        Action::Verify => update::verify(asked).map(show).map_err(Ended::from),
        Action::Extract(out) => update::extract(asked, out).map(show).map_err(Ended::from),
        Action::Check => update::install(asked, true, &mut steps),
        Action::Install => update::install(asked, false, &mut steps),
        Action::Resume => {
            update::resume().map(|done| eprintln!("pandaproxy update: {done}")).map_err(Ended::from)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => {
            eprintln!("pandaproxy update: {ended}");
            ExitCode::from(match ended {
                Ended::Good => 0,
                Ended::Failed(_) => 1,
                Ended::Returned { .. } => RETURNED,
                Ended::Stuck { .. } => STUCK,
            })
        }
    }
}

/// Shows the stages of an update as they end.
struct Steps {
    /// The runtime whose handlers catch the signals that would end the process.
    _signals: Option<(tokio::runtime::LocalRuntime, std::io::Result<Signals>)>,
}

impl update::install::Progress for Steps {
    fn passed(&mut self, passed: &Passed) {
        // The terminal may be gone; the update goes on.
        let _shown = writeln!(std::io::stdout(), "{passed}");
    }

    fn hold_signals(&mut self) {
        let Ok(runtime) = launch::runtime() else { return };
        let signals = runtime.block_on(async { Signals::new() });
        self._signals = Some((runtime, signals));
    }
}

/// A fingerprint as browsers and openssl show it.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut separator = "";
        for byte in self.0 {
            write!(f, "{separator}{byte:02X}")?;
            separator = ":";
        }
        Ok(())
    }
}

fn serve(config: &Config) -> ExitCode {
    start_log(config.verbose);
    if let Err(error) = config.check_printer() {
        log::error!("{error}");
        return ExitCode::from(BAD_VALUE);
    }
    // Before the ports, which the other one may have as well.
    let _instance = match Instance::claim(&config.state_dir, &config.serial) {
        Ok(instance) => instance,
        Err(in_use) => {
            log::error!("{in_use}");
            logger::flush(LOG_TIMEOUT);
            return ExitCode::FAILURE;
        }
    };
    for notice in &config.notices {
        log::log!(notice.level(), "{notice}");
    }
    if config.record.is_some() {
        heap::on_limit_exceeded(last_words::<{ budget::TOTAL_RECORDING }>);
        heap::set_limit(budget::TOTAL_RECORDING);
    } else {
        heap::on_limit_exceeded(last_words::<{ budget::TOTAL }>);
        heap::set_limit(budget::TOTAL);
    }
    let done = launch::runtime().and_then(|runtime| {
        let done = runtime.block_on(run(config));
        // Not dropped, which would wait for a name that is being looked up.
        runtime.shutdown_background();
        done
    });
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            if error.is_bad_value() { ExitCode::from(BAD_VALUE) } else { ExitCode::FAILURE }
        }
    };
    logger::flush(LOG_TIMEOUT);
    code
}

/// How long the program waits at its end for the log's reader.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

fn start_log(verbose: bool) {
    if let Err(error) = logger::start(verbose) {
        eprintln!("pandaproxy: cannot start the log: {error}");
    }
}

/// The signals that the program handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

thread_local! {
    /// Set once the certificates are loaded. Until then a signal ends the program by its default action, since making keys
    /// takes minutes on a slow board.
    static SIGNALS: RefCell<Option<Signals>> = const { RefCell::new(None) };
}

/// Loads the certificates, then handles signals: before the first service says that it listens.
fn load(config: &Config) -> Result<Credentials, StartError> {
    let credentials = Credentials::load(config)?;
    let signals = Signals::new().map_err(StartError::Runtime)?;
    SIGNALS.set(Some(signals));
    Ok(credentials)
}

/// Runs the proxy until SIGTERM or SIGINT. SIGUSR1 writes its status to standard error, SIGHUP is ignored.
async fn run(config: &Config) -> Result<(), StartError> {
    let context = Context { credentials: load, ..Context::real() };
    let proxy = Proxy::start(&context, config, &Sockets)?;
    let signals = SIGNALS.take().map_or_else(Signals::new, Ok);
    let Signals { mut terminate, mut interrupt, mut user, mut hang_up } =
        signals.map_err(StartError::Runtime)?;
    supervisor::ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The log takes any text.
            _ = user.recv() => drop(proxy.write_status(&mut logger::Raw::new())),
            _ = hang_up.recv() => log::warn!("SIGHUP ignored; restart to read changed settings"),
        }
    }
    journal::note(Kind::Stopping, format_args!("stopping"));
    supervisor::stopping();
    proxy.stop().await;
    Ok(())
}

/// Logs the journal when the heap limit is exceeded; the process ends after it.
fn last_words<const HEAP_LIMIT: usize>() {
    journal::record(
        Kind::HeapLimitExceeded,
        format_args!("heap limit of {} KiB exceeded", HEAP_LIMIT / KIB),
    );
    // The log takes any text.
    let _written = journal::write_to(&mut logger::Raw::new());
    logger::flush(LOG_TIMEOUT);
}

fn print_budget() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "board {}", BOARD.name)?;
    writeln!(out, "{:<34}{:>6} ×{:>10} ={:>10}", "holder", "count", "bytes", "KiB")?;
    print_lines(&mut out, &budget::LINES)?;
    writeln!(out, "{:<34}{:>30}", "sum: the most this build holds", budget::TOTAL.div_ceil(KIB))?;
    writeln!(out, "{:<34}{:>30}", "limit of the board", BOARD.memory / KIB)?;
    writeln!(out, "\nwhile recording, in addition")?;
    print_lines(&mut out, &budget::RECORDING)?;
    for alternative in budget::ALTERNATIVES {
        writeln!(
            out,
            "\nwhere {}, instead of all lines with {:?}",
            alternative.when, alternative.of
        )?;
        print_lines(&mut out, alternative.lines)?;
    }
    Ok(())
}

fn print_lines(out: &mut impl Write, lines: &[budget::Line]) -> std::io::Result<()> {
    for line in lines {
        let kib = (line.count * line.each).div_ceil(KIB);
        writeln!(out, "{:<34}{:>6} ×{:>10} ={:>10}", line.what, line.count, line.each, kib)?;
    }
    Ok(())
}
