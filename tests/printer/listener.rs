//! Listening on a real address, for whatever of the simulated printer is served there.
//!
//! One local task for each connection, at most [`MAX_STREAMS`] of them; past that they are closed as
//! soon as they are accepted. A panic in one of them is the listener's own.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{HANDSHAKE_TIMEOUT, MAX_STREAMS};

/// Listens. Where, and what has to be polled (in a `LocalSet` or `LocalRuntime`) to serve it; dropping
/// that closes the listener and drops all its connections.
///
/// # Errors
///
/// The address cannot be bound.
pub(super) async fn listen<S, F>(
    address: SocketAddr,
    serve: S,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<S, F>)>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let serving = async move {
        let mut streams = JoinSet::new();
        loop {
            select! {
                Some(ended) = streams.join_next() => if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if streams.len() < MAX_STREAMS => {
                        streams.spawn_local(serve(stream));
                    }
                    Ok(_) => {}
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
            }
        }
    };
    Ok((address, serving))
}

/// Listens, and serves what has come through its TLS handshake within [`HANDSHAKE_TIMEOUT`].
///
/// # Errors
///
/// The address cannot be bound.
pub(super) async fn listen_tls<S, F>(
    address: SocketAddr,
    config: Arc<ServerConfig>,
    serve: S,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<S, F>)>
where
    S: Fn(TlsStream<TcpStream>) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    listen(address, move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                serve(stream).await;
            }
        }
    })
    .await
}

/// Pause after a failed accept, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
