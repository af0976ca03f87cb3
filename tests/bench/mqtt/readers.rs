//! Subscribers, on threads of their own: they count what comes, and some note how long it took.

use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::anybody::Anybody;
use crate::clients::mqtt::{Client, Hello};
use crate::payload::stamp_of;

/// How long a subscriber may take to be let in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes a subscriber has not yet looked at: several times the longest report.
const INBOX: usize = 64 * 1024;

/// Latencies noted between two looks at them.
const MAX_NOTED: usize = 4096;

/// What the subscribers of one side have seen.
#[derive(Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    open: AtomicUsize,
    noted: Mutex<Vec<Duration>>,
}

impl Tally {
    /// Reports that came, each counted once a subscriber.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Subscribers that are still connected.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Takes the latencies noted so far.
    pub(crate) fn take_noted(&self) -> Vec<Duration> {
        core::mem::take(&mut *self.noted.lock().unwrap())
    }

    /// Waits for so many deliveries. False if they do not come in time.
    pub(crate) async fn reaches(&self, delivered: u64, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.delivered() < delivered {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }
}

/// One of the open connections, until it is dropped.
struct Open(Arc<Tally>);

impl Open {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Relaxed);
        Self(Arc::clone(tally))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A new subscriber.
pub(crate) struct Order {
    pub(crate) port: u16,
    pub(crate) id: String,
    pub(crate) topic: String,
    /// Whether it is the printer itself, which knows TLS 1.2 only.
    pub(crate) direct: bool,
    /// Whether it notes latencies.
    pub(crate) notes: bool,
    /// Reports up to this number are none of its business.
    pub(crate) after: u64,
    /// When the benchmark began.
    pub(crate) began: Instant,
    pub(crate) tally: Arc<Tally>,
}

/// A thread of subscribers; they leave when it is dropped.
pub(crate) struct Readers {
    orders: mpsc::Sender<(Order, oneshot::Sender<io::Result<()>>)>,
}

impl Readers {
    pub(crate) fn start() -> Self {
        let (orders, mut ordered) = mpsc::channel::<(Order, oneshot::Sender<_>)>(1);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .unwrap();
            runtime.block_on(async move {
                while let Some((order, done)) = ordered.recv().await {
                    let joined = tokio::time::timeout(JOIN_TIMEOUT, join(&order)).await;
                    let said = match joined.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    {
                        Ok(stream) => {
                            let open = Open::new(&order.tally);
                            spawn_local(async move {
                                // The observer sees that one is missing.
                                let _ended = read(stream, &order).await;
                                drop(open);
                            });
                            Ok(())
                        }
                        Err(error) => Err(error),
                    };
                    // The receiver may be gone.
                    let _gone = done.send(said);
                }
            });
        });
        Self { orders }
    }

    /// Lets one more subscriber join.
    pub(crate) async fn join(&self, order: Order) -> io::Result<()> {
        let (done, joined) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.orders.send((order, done)).await.map_err(|_| gone())?;
        joined.await.map_err(|_| gone())?
    }
}

async fn join(order: &Order) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, order.port)).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let stream = TlsConnector::from(tls(order.direct)?).connect(name, socket).await?;
    let mut client = Client::over(stream);
    let hello = Hello { id: &order.id, keep_alive: 0, ..Hello::default() };
    let refused = |code: u8| io::Error::other(format!("refused with {code}"));
    match client.connect(&hello).await {
        0 => {}
        code => return Err(refused(code)),
    }
    match client.subscribe(&[(&order.topic, 0)]).await.as_slice() {
        [0] => Ok(client.into_stream()),
        _ => Err(refused(0x80)),
    }
}

async fn read(mut stream: TlsStream<TcpStream>, order: &Order) -> io::Result<()> {
    let mut inbox = vec![0; INBOX];
    let (mut filled, mut last) = (0, order.after);
    loop {
        match stream.read(&mut inbox[filled..]).await? {
            0 => return Ok(()),
            len => filled += len,
        }
        let now = order.began.elapsed();
        let mut taken = 0;
        while let Some(packet) = first_packet(&inbox[taken..filled]) {
            taken += packet.len();
            let Some(stamp) = stamp_of(packet).filter(|stamp| stamp.number > last) else {
                continue;
            };
            last = stamp.number;
            if order.notes {
                let mut noted = order.tally.noted.lock().unwrap();
                if noted.len() < MAX_NOTED {
                    noted.push(now.saturating_sub(stamp.at));
                }
            }
            order.tally.delivered.fetch_add(1, Relaxed);
        }
        inbox.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// The packet at the front, if the whole of it is there.
fn first_packet(bytes: &[u8]) -> Option<&[u8]> {
    let mut len = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return bytes.get(..at + 1 + len);
        }
    }
    None
}

/// TLS with one version and one suite, so that everybody who is measured has the same work.
fn tls(direct: bool) -> io::Result<Arc<ClientConfig>> {
    let (suite, version) = if direct {
        (cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, &version::TLS12)
    } else {
        (cipher_suite::TLS13_AES_128_GCM_SHA256, &version::TLS13)
    };
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
