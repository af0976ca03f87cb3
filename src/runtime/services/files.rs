//! The file services in the list of services: FTPS in proxy mode or in relay mode, and the file tunnel. How they work
//! is in [`runtime::files`](crate::runtime::files).

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::ops::RangeInclusive;

use super::ftp::{AddressTrackingDialler, Files, Session};
use super::port_6000;
use super::relayed::Relayed;
use crate::board::BOARD;
use crate::config::{Config, FtpMode};
use crate::journal::{self, Kind};
use crate::memory::budget::{self, RELAY_COMMANDS, RELAY_SESSIONS};
use crate::printer::model::{FileServer, Model};
use crate::printer::status::Port6000;
use crate::runtime::files::passive::PassivePorts;
use crate::runtime::files::relay::{Counts, Relay};
use crate::runtime::files::relay_ports::Transfers;
use crate::runtime::files::transfer::{DataDialler, DataTask};
use crate::runtime::net::Net;
use crate::runtime::pacing::receive_buffer;
use crate::runtime::root::Root;
use crate::runtime::service::{Declaration, Listening, Service, Transport};
use crate::tls::ServerConfig;
use crate::trace::Protocol;
use crate::{chamber, ftp};

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

/// FTPS in the list of services, in proxy mode or in relay mode.
///
/// `FtpMode` is one or the other, so what proxy mode holds is never held beside what relay mode holds.
pub fn ftp_declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "ftp",
        without: None,
        is_enabled: |config| config.services.ftp,
        listens: |config| {
            let (transport, clients, data_ports): (_, _, &[_]) = match &config.ftp.mode {
                FtpMode::Proxy { .. } => (Transport::Tls, BOARD.clients.ftp, &[]),
                FtpMode::Relay { data_ports } => (Transport::Plain, sessions(config), data_ports),
            };
            Some(Listening { port: config.ports.ftp, transport, clients, data_ports })
        },
        start: |root| {
            journal::note(Kind::Started, format_args!("ftp: {}", root.config.ftp));
            let is_auto = root.config.port_6000 == Port6000::Auto;
            if is_auto && Model::of_serial(&root.config.serial).is_none() {
                journal::note(
                    Kind::Started,
                    format_args!(
                        "ftp: port 6000 is the chamber camera's until the printer shows a file tunnel there; \
                         the serial number is of no known model (--port-6000 tunnel forces it)"
                    ),
                );
            }
            match (&root.config.ftp.mode, root.credentials.files_tls.clone()) {
                (FtpMode::Proxy { data_ports }, Some(tls)) => {
                    Ok(start_proxy(root, data_ports, &tls))
                }
                // The credentials were made for this configuration.
                (FtpMode::Proxy { .. }, None) | (FtpMode::Relay { .. }, _) => Ok(start_relay(root)),
            }
        },
    }
}

/// The file tunnel on port 6000 in the list of services, for printers that are expected to have one. It is
/// always relayed.
pub fn tunnel_declaration<N: Net>() -> Declaration<N> {
    Declaration {
        name: "tunnel",
        without: None,
        is_enabled: |config| config.services.ftp && config.has_tunnel(),
        listens: |config| {
            Some(Listening {
                port: config.ports.tunnel,
                transport: Transport::Plain,
                clients: budget::TUNNELS,
                data_ports: &[],
            })
        },
        start: |root| {
            let camera = root.service::<chamber::Service>();
            Ok(port_6000::serve(root, camera.filter(|_| root.config.services.chamber)))
        },
    }
}

/// FTP sessions that the printer has; one if its model is unknown.
fn sessions(config: &Config) -> usize {
    Model::of_serial(&config.serial).map_or(1, |model| model.ftp_sessions)
}

fn start_proxy<N: Net>(
    root: &mut Root<'_, N>,
    data_ports: &RangeInclusive<u16>,
    tls: &Arc<ServerConfig>,
) -> Rc<dyn Service> {
    let config = root.config;
    let service = ftp::Service::new(config.code.clone(), sessions(config));
    let model = Model::of_serial(&config.serial);
    let server = model.map_or(FileServer::Vsftpd, |model| model.file_server);
    let (net, ports) = (root.net.clone(), data_ports.clone());
    let passive_ports = PassivePorts::new(net, config.bind, ports, receive_buffer(server));
    let files = Files { service: Rc::clone(&service), passive_ports };
    root.serve_tls("ftp", &files, budget::FILERS, tls);
    for printer_session in service.printer_sessions() {
        // The printer requires its data connections to resume the TLS session of their control connection.
        let trust = root.credentials.trust.with_own_sessions();
        let dialler = root.dialler_with(config.printer_ports.ftp, trust.clone());
        let at = Rc::default();
        let dialler = AddressTrackingDialler { dialler, at: Rc::clone(&at) };
        let port = root.printer_port_by(Protocol::Ftp, dialler);
        let session = Session::new(Rc::clone(&service), Rc::clone(printer_session), port);
        root.keep_connected("ftp", session);
        let task = DataTask {
            printer_session: Rc::clone(printer_session),
            printer: DataDialler { net: root.net.clone(), at },
            server,
            passive_ports: Rc::clone(&files.passive_ports),
            trust,
            tls: Arc::clone(tls),
            clock: root.clock,
        };
        root.spawn(task.run());
    }
    service
}

fn start_relay<N: Net>(root: &mut Root<'_, N>) -> Rc<dyn Service> {
    let config = root.config;
    let (printer, port) = (Rc::clone(&root.host), config.printer_ports.ftp);
    let sessions = sessions(config);
    let control = Relay::new("ftp", printer, port, sessions, RELAY_COMMANDS, Counts::FTP);
    if let Some(data_ports) = root.take_data_ports() {
        let transfers = Transfers::new(root.net.clone(), Rc::clone(&control));
        for _ in 0..budget::TRANSFERS {
            root.spawn(Rc::clone(&transfers).work(root.clock));
        }
        root.accept_by(transfers.listen(data_ports, root.clock));
    }
    serve_relay(root, "ftp", &control);
    let service = Relayed::new("ftp");
    service.set(Some(control));
    service
}

/// Accepts connections for a relay, with [`Relay::workers`] tasks.
fn serve_relay<N: Net>(root: &mut Root<'_, N>, name: &'static str, relay: &Rc<Relay>) {
    root.accept(name, relay.workers(), |root, acceptor| {
        root.spawn(Rc::clone(relay).work(root.net.clone(), acceptor, root.clock));
    });
}
