//! The printer's files as they are opened at the start: FTPS by proxy or by relay, and the file tunnel.
//!
//! | printer | port 990 | port 6000 |
//! |---|---|---|
//! | A1, P1 | proxy | the chamber camera's |
//! | X1, H2, P2 | relay | the file tunnel's, relayed |
//! | of no known model | proxy, one session | the chamber camera's |
//!
//! `--ftp-mode` changes the first column, nothing the second: a tunnel is the printer's own TLS or none.
//! Where nobody knows, the camera has port 6000, since its service costs the printer one connection
//! whoever comes, and a relay one for each.

pub mod passive;
pub mod relay;
pub mod relay_ports;
pub mod transfer;

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::passive::PassivePorts;
use self::relay::Relay;
use self::relay_ports::{Openings, Transfers};
use self::transfer::{DataDialler, move_data};
use crate::board::BOARD;
use crate::config::{Config, FtpMode};
use crate::ftp::Service;
use crate::journal::{self, Kind};
use crate::memory::budget::{self, RELAY_COMMANDS, RELAY_FILES, RELAY_SESSIONS};
use crate::printer::model::Model;
use crate::runtime::accept::Acceptor;
use crate::runtime::dial::{BackOff, Dialler};
use crate::runtime::launch::{Context, KEEPERS, LISTENING, StartError, listen, listener, task};
use crate::runtime::services::ftp::{AddressTrackingDialler, Files, maintain_session};
use crate::tls::{Identity, ServerConfig};

const _: () = {
    let mut models: &[Model] = &Model::ALL;
    while let [model, others @ ..] = models {
        assert!(
            model.ftp_sessions <= RELAY_SESSIONS,
            "a model has more FTP sessions than the budget"
        );
        models = others;
    }
};

/// The ports of the file services, bound.
pub(super) struct Ports {
    ftp: Option<(TcpListener, SocketAddr)>,
    data: Option<Openings>,
    tunnel: Option<(TcpListener, SocketAddr)>,
}

impl Ports {
    /// Binds what this printer's files are served on.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        if !config.services.ftp {
            return Ok(Self { ftp: None, data: None, tunnel: None });
        }
        let data = match &config.ftp.mode {
            FtpMode::Proxy { .. } => None,
            FtpMode::Relay { data_ports } => {
                let bound = Openings::bind(config.bind, data_ports);
                Some(bound.map_err(StartError::DataPorts)?)
            }
        };
        let tunnel =
            config.has_tunnel().then(|| listener(config, config.ports.chamber)).transpose()?;
        Ok(Self { ftp: Some(listener(config, config.ports.ftp)?), data, tunnel })
    }

    /// Whether port 6000 is the file tunnel's.
    pub(super) const fn has_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }
}

/// What is ended when the program ends, as it is opened. There is room for all of it.
pub(super) struct Running<'r> {
    /// Listeners.
    pub(super) listening: &'r mut heapless::Vec<JoinHandle<()>, LISTENING>,
    /// Keepers of the printer's sessions.
    pub(super) keepers: &'r mut heapless::Vec<JoinHandle<()>, KEEPERS>,
}

impl Ports {
    /// Opens all of it. The service whose clients are told when the program ends, if there is one: who
    /// is relayed cannot be told anything.
    ///
    /// `FtpMode` is one or the other, so what proxy mode holds is never held beside what relay mode
    /// holds; nor are there workers of the chamber camera's beside those of a tunnel.
    pub(super) fn open(
        self,
        context: &Context<'_>,
        identity: &Identity,
        seed: u32,
        running: &mut Running<'_>,
    ) -> Result<Option<Rc<Service>>, StartError> {
        let config = context.config;
        let Self { ftp, data, tunnel } = self;
        if let Some(at) = tunnel {
            open_tunnel(context, at, running);
        }
        let Some(at) = ftp else { return Ok(None) };
        journal::note(Kind::Started, format_args!("ftp: {}", config.ftp));
        let model = Model::of_serial(&config.serial);
        if model.is_none() {
            journal::note(
                Kind::Started,
                format_args!(
                    "port 6000 is the chamber camera's, since the serial number is of no model that \
                     is known here: if the printer has a file tunnel there, it is not served"
                ),
            );
        }
        let sessions = model.map_or(1, |model| model.ftp_sessions);
        match (&config.ftp.mode, data) {
            (FtpMode::Proxy { data_ports }, _) => {
                let tls = identity
                    .server_config_tls12(BOARD.suites, budget::FILE_SESSIONS)
                    .map_err(StartError::Identity)?;
                let service = Service::new(config.code.clone(), sessions);
                let passive_ports = PassivePorts::new(config.bind, data_ports.clone());
                let files = Files { service: Rc::clone(&service), passive_ports };
                open_proxy(context, at, &files, &tls, seed, running);
                Ok(Some(service))
            }
            (FtpMode::Relay { .. }, Some(openings)) => {
                open_relay(context, at, openings, sessions, running);
                Ok(None)
            }
            // Both ports were bound, or neither.
            (FtpMode::Relay { .. }, None) => Ok(None),
        }
    }
}

fn open_proxy(
    context: &Context<'_>,
    (listener, bound): (TcpListener, SocketAddr),
    files: &Files,
    tls: &Arc<ServerConfig>,
    seed: u32,
    running: &mut Running<'_>,
) {
    let config = context.config;
    let _fits = running.listening.push(context.open("ftp", listener, tls, files, budget::FILERS));
    for printer_session in files.service.printer_sessions() {
        // The printer wants its data connections to resume the session of their control connection.
        let trust = context.trust.with_own_sessions();
        let (printer, port) = (config.printer.clone(), config.printer_ports.ftp);
        let dialler = Dialler::new(printer, port, trust.clone());
        let (service, at) = (Rc::clone(&files.service), Rc::default());
        let back_off = BackOff::new(seed.rotate_left(16));
        let (its, to) = (Rc::clone(printer_session), Rc::clone(&at));
        let keeper = maintain_session(
            service,
            its,
            AddressTrackingDialler { dialler, at: to },
            context.clock,
            back_off,
        );
        let _fits = running.keepers.push(task(keeper));
        let (passive_ports, tls) = (Rc::clone(&files.passive_ports), Arc::clone(tls));
        task(move_data(
            Rc::clone(printer_session),
            DataDialler(at),
            passive_ports,
            trust,
            tls,
            context.clock,
        ));
    }
    context.say_started("ftp", bound, BOARD.clients.ftp);
}

fn open_relay(
    context: &Context<'_>,
    (listener, bound): (TcpListener, SocketAddr),
    openings: Openings,
    sessions: usize,
    running: &mut Running<'_>,
) {
    let (printer, port) = (context.config.printer.clone(), context.config.printer_ports.ftp);
    let control = Relay::new("ftp", printer, port, sessions, RELAY_COMMANDS);
    let transfers = Transfers::new(Rc::clone(&control));
    for _ in 0..budget::TRANSFERS {
        task(Rc::clone(&transfers).work(context.clock));
    }
    let _fits = running.listening.push(task(transfers.listen(openings, context.clock)));
    let _fits = running.listening.push(open_acceptor(context, "ftp", listener, &control));
    context.say_started("ftp", bound, sessions);
}

fn open_tunnel(
    context: &Context<'_>,
    (listener, bound): (TcpListener, SocketAddr),
    running: &mut Running<'_>,
) {
    let (printer, port) = (context.config.printer.clone(), context.config.printer_ports.chamber);
    let tunnel = Relay::new("tunnel", printer, port, budget::TUNNELS, RELAY_FILES);
    let _fits = running.listening.push(open_acceptor(context, "tunnel", listener, &tunnel));
    context.say_started("tunnel", bound, budget::TUNNELS);
}

/// Opens the acceptor of a relay, with as many workers behind it as it wants.
fn open_acceptor(
    context: &Context<'_>,
    name: &'static str,
    listener: TcpListener,
    relay: &Rc<Relay>,
) -> JoinHandle<()> {
    let acceptor = Acceptor::new(name, Rc::clone(&context.limiter));
    for _ in 0..relay.workers() {
        task(Rc::clone(relay).work(Rc::clone(&acceptor), context.clock));
    }
    task(listen(acceptor, listener, context.clock))
}
