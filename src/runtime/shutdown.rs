//! The end of the program, in order: clients are disconnected, then the connections to the printer are
//! closed.

use alloc::rc::Rc;
use core::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::service::Service;

/// How long clients have to be disconnected; a client that accepts no data is not waited for longer.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the connections to the printer then have to be closed.
const PRINTER_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the number of connections is looked at meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Disconnects all clients, then has the `maintainers` of the printer's connections close them, each
/// within its timeout. A request that is in flight still reaches the printer before its connection is
/// closed.
pub async fn shut_down(
    services: &[Rc<dyn Service>],
    maintainers: impl IntoIterator<Item = JoinHandle<()>>,
) {
    for service in services {
        service.disconnect_all();
    }
    let disconnected = async {
        while services.iter().any(|service| service.connections() > 0) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    // Clients that are left after the timeout are dropped with the program.
    let _late = timeout(CLIENTS_TIMEOUT, disconnected).await;
    for service in services {
        service.shut_down();
    }
    let closed = async {
        for maintainer in maintainers {
            // A task that ended otherwise has closed its connection as well.
            let _ended = maintainer.await;
        }
    };
    let _late = timeout(PRINTER_TIMEOUT, closed).await;
}
