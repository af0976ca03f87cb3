//! The end of the program, in order: clients are disconnected, then the connections to the printer are
//! closed.

use alloc::rc::Rc;
use core::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::service::Service;

/// Time in which clients are disconnected. Clients that accept no data are dropped after it.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which the connections to the printer are closed after that.
const PRINTER_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval at which the number of connections is checked meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Disconnects all clients, then has the `maintainers` of the printer's connections close them, each
/// within its timeout (2 s and 1 s). A request that is in flight still reaches the printer before its connection is
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::runtime::test_runtime::in_virtual_time;
    use tokio::task::spawn_local;
    use tokio::time::Instant;

    /// A service with a client that never disconnects.
    struct Stuck;

    impl Service for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }
        fn connections(&self) -> usize {
            1
        }
        fn disconnect_all(&self) {}
        fn shut_down(&self) {}
    }

    #[test]
    fn shutdown_takes_at_most_three_seconds() {
        in_virtual_time(async {
            let begun = Instant::now();
            let maintainer = spawn_local(core::future::pending());
            shut_down(&[Rc::new(Stuck) as Rc<dyn Service>], [maintainer]).await;
            assert_eq!(begun.elapsed(), CLIENTS_TIMEOUT + PRINTER_TIMEOUT);
            assert_eq!(begun.elapsed(), Duration::from_secs(3));
        });
    }
}
