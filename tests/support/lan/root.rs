//! The proxy as the program starts it, by `runtime::launch`, on a [simulated network](super::net).

use core::net::IpAddr;
use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::SystemTime;

use pandaproxy::board::BOARD;
use pandaproxy::config::{Config, Intent};
use pandaproxy::memory::budget;
use pandaproxy::runtime::Clock;
use pandaproxy::runtime::launch::{Authority, Context, Credentials, Proxy, StartError, services};
use pandaproxy::runtime::service::Declaration;
use pandaproxy::state_dir::Pins;
use pandaproxy::tls::{Directories, Identity, Policy, Subject, Trust};
use printer::{CA, Model};
use tokio_rustls::TlsConnector;

use super::net::SimNet;
use super::{CODE, PROXY};
use crate::clients::proxy::{StateDir, trusting};

/// What identifiers and jitter are made from.
const SEED: u64 = 0xabcd_0000_0000_0007;

/// Virtual time, the same random number each time, and certificates that are made once a process.
pub(crate) fn context() -> Context {
    Context { clock: Clock::start(), seed: SEED, credentials }
}

/// The certificates of simulated proxies, and a client that trusts them.
struct Made {
    credentials: Credentials,
    client: TlsConnector,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let (dir, serial) = (StateDir::new(), Model::P1S.serial());
        let addresses = [IpAddr::V4(PROXY)];
        let subject = Subject { serial, addresses: &addresses, hosts: &[] };
        let dirs = Directories::one(dir.path());
        let identity = Identity::load_or_make(dirs, &subject, SystemTime::now()).unwrap();
        let files = identity.server_config_tls12(BOARD.suites, budget::FILE_SESSIONS).unwrap();
        let pins = Pins::in_dir(dir.path());
        let credentials = Credentials {
            tls: identity.server_config(BOARD.suites, budget::SESSIONS),
            files_tls: Some(files),
            trust: Trust::new(serial, Policy::Verify, Some(CA), pins, SystemTime::now).unwrap(),
            ca: Authority::of(&identity),
        };
        Made { credentials, client: trusting(&dir.file("ca.pem")) }
    })
}

fn credentials(_: &Config) -> Result<Credentials, StartError> {
    Ok(made().credentials.clone())
}

/// A TLS client that trusts the certificate of a simulated proxy. The [simulated network](SimNet) has no
/// TLS but within FTP data connections.
pub(crate) fn tls_client() -> TlsConnector {
    made().client.clone()
}

/// The configuration of this command line, for a printer with this serial number and access code.
pub(crate) fn config(serial: &str, code: &str, more: &[&str]) -> Box<Config> {
    let words = ["pandaproxy", "--printer-ip=printer", "--serial-number", serial];
    let words = words.iter().chain(more).map(OsString::from);
    let environment = |name: &str| (name == "ACCESS_CODE").then(|| code.into());
    match Config::from_args(words, environment) {
        Ok(Intent::Serve(config)) => config,
        other => panic!("not a command line to serve with: {other:?}"),
    }
}

/// Starts one service of the list with this command line, by a call whose allocations are the proxy's own.
pub(crate) fn one<'a>(
    net: &'a SimNet,
    name: &str,
    serial: &str,
    more: &[&str],
) -> impl FnOnce() -> Proxy + use<'a> {
    let mut list = Vec::from(services());
    list.retain(|service| service.name == name);
    these(net, list, serial, more)
}

/// The same for another list of services.
pub(crate) fn these<'a>(
    net: &'a SimNet,
    list: Vec<Declaration<SimNet>>,
    serial: &str,
    more: &[&str],
) -> impl FnOnce() -> Proxy + use<'a> {
    // Made before, and never given back: neither is the proxy's.
    let config: &'static Config = Box::leak(config(serial, CODE, more));
    let _made = credentials(config);
    let list: &'static [_] = list.leak();
    move || Proxy::start_these(&context(), config, net, list).unwrap()
}

/// Starts the proxy with this command line.
pub(crate) fn start(net: &SimNet, serial: &str, code: &str, more: &[&str]) -> Proxy {
    Proxy::start(&context(), &config(serial, code, more), net).unwrap()
}
