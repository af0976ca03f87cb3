//! A service of one idea: it sends back what a client sends, over TCP without TLS. It shows what it takes
//! to add one: this folder, and its declaration in a list of services.

use core::cell::Cell;
use core::convert::Infallible;
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::WrongCodes;
use pandaproxy::clock::Instant;
use pandaproxy::config::Config;
use pandaproxy::runtime::drive::{Buffers, End};
use pandaproxy::runtime::net::Net;
use pandaproxy::runtime::root::Root;
use pandaproxy::runtime::service::{Declaration, Listening, Service, Transport};
use pandaproxy::runtime::start_error::StartError;
use pandaproxy::runtime::worker::{AcceptedClient, Served, Serves};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// The port it listens on.
pub(crate) const PORT: u16 = 7;

/// Connections it serves at once.
const SLOTS: usize = 2;

/// The service.
#[derive(Default)]
pub(crate) struct Echo {
    connections: Cell<usize>,
    is_ending: Cell<bool>,
    ending: Notify,
    /// How often its deadlines were looked at.
    pub(crate) ticks: Cell<u32>,
}

/// The service in a list of services.
pub(crate) fn declaration<N: Net>() -> Declaration<N> {
    Declaration { name: "echo", without: None, is_enabled: |_| true, listens, start }
}

fn listens(_: &Config) -> Option<Listening<'_>> {
    let (transport, data_ports) = (Transport::Plain, &[]);
    Some(Listening { port: PORT, transport, clients: SLOTS, data_ports })
}

fn start<N: Net>(root: &mut Root<'_, N>) -> Result<Rc<dyn Service>, StartError> {
    let service = Rc::<Echo>::default();
    root.serve_plain("echo", &Clients(Rc::clone(&service)), SLOTS);
    Ok(service)
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn handle_timeout(&self, _: Instant) {
        self.ticks.set(self.ticks.get() + 1);
    }

    fn connections(&self) -> usize {
        self.connections.get()
    }

    fn disconnect_all(&self) {
        self.is_ending.set(true);
        self.ending.notify_waiters();
    }

    fn shut_down(&self) {}
}

/// What serves its clients.
#[derive(Clone)]
struct Clients(Rc<Echo>);

impl Serves for Clients {
    type Error = Infallible;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn buffers() -> Buffers {
        Buffers::new(0, 0)
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: T,
        client: AcceptedClient<'_>,
        _: &mut Buffers,
    ) -> Served<Infallible> {
        (client.admitted)();
        let Self(service) = self;
        service.connections.set(service.connections.get() + 1);
        let echoing = async {
            let mut bytes = [0; 64];
            while let Ok(len @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..len]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = echoing => {}
            () = service.ending.notified(), if !service.is_ending.get() => {}
        }
        service.connections.set(service.connections.get() - 1);
        Served { end: End::Closed, wrong_codes: WrongCodes::new() }
    }
}
