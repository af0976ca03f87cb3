//! The end of the program, in order: clients are told, then the printer.

use core::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the end may take for clients; one that takes nothing is not waited for.
const CLIENTS_FAREWELL: Duration = Duration::from_secs(2);

/// How long it may then take for the printer.
const PRINTER_FAREWELL: Duration = Duration::from_secs(1);

/// A service, as the end of the program sees it.
pub trait Shutdown {
    /// Tells every client to go.
    fn dismiss_all(&self);
    /// Connections that are still being served.
    fn connections(&self) -> usize;
    /// Ends the conversation with the printer, in order, and begins no other.
    fn leave(&self);
}

/// Ends in order: clients are closed, then the printer hears of it from the `keepers`.
pub async fn shut_down(
    services: &[&dyn Shutdown],
    keepers: impl IntoIterator<Item = JoinHandle<()>>,
) {
    for service in services {
        service.dismiss_all();
    }
    let gone = async {
        while services.iter().any(|service| service.connections() > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The printer hears of it last: until then a request that is under way still gets there. Whoever
    // does not take leave in time is left.
    let _late = timeout(CLIENTS_FAREWELL, gone).await;
    for service in services {
        service.leave();
    }
    let left = async {
        for keeper in keepers {
            // A keeper that was ended otherwise has left as well.
            let _ended = keeper.await;
        }
    };
    let _late = timeout(PRINTER_FAREWELL, left).await;
}
