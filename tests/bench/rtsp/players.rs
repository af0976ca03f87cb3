//! Players that look at RTP headers and at what the camera has written into its pictures.

use core::net::SocketAddr;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::anybody::Anybody;
use crate::rtsp::{Client, Frame, Heard, Rtp, Scheme, framed, receiver_report};
use crate::{BEGAN, CODE};
use printer::rtsp::{PATH, STAMP};

/// Latencies noted in a row; past it no more are.
const MAX_NOTED: usize = 100_000;

/// Between two receiver reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What all players of a row have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// How many have had a picture.
    pub(crate) joined: AtomicUsize,
    /// Of interleaved frames, their heads included.
    pub(crate) bytes: AtomicU64,
    pub(crate) pictures: AtomicU64,
    /// Pictures left out between two that came.
    pub(crate) lost: AtomicU64,
    /// Packets left out, by their sequence numbers.
    pub(crate) gaps: AtomicU64,
    pub(crate) over: AtomicBool,
    pub(crate) noting: AtomicBool,
    /// In microseconds.
    pub(crate) noted: Mutex<Vec<u64>>,
}

/// What the camera writes into a picture: its number, and when it was made.
pub(crate) fn stamp(number: u64) -> [u8; STAMP] {
    let text = format!("{:08}{:016}", number % 100_000_000, BEGAN.elapsed().as_micros());
    text.into_bytes().try_into().unwrap()
}

/// The stamp of the picture whose first fragment this is.
fn stamped(packet: &[u8]) -> Option<(u64, u64)> {
    // FU-A of a slice, its beginning; byte 0 of the slice is not in it.
    let [kind, edges, body @ ..] = packet.get(12..)? else { return None };
    if kind & 0x1f != 28 || edges & 0x80 == 0 || !matches!(edges & 0x1f, 1 | 5) {
        return None;
    }
    let stamp = core::str::from_utf8(body.get(7..7 + STAMP)?).ok()?;
    Some((stamp[..8].parse().ok()?, stamp[8..].parse().ok()?))
}

/// Plays until the row is over, on this thread.
pub(crate) fn watch(address: SocketAddr, players: usize, seen: &Arc<Seen>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let tls = TlsConnector::from(tls());
        let mut playing = JoinSet::new();
        for _ in 0..players {
            let (tls, seen) = (tls.clone(), Arc::clone(seen));
            playing.spawn_local(async move { play(&tls, address, &seen).await });
        }
        while let Some(played) = playing.join_next().await {
            played.unwrap().unwrap();
        }
    });
}

async fn play(tls: &TlsConnector, address: SocketAddr, seen: &Seen) -> io::Result<()> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream = tls.connect(ServerName::from(address.ip()), socket).await?;
    let mut client = Client::over(stream).knowing(Scheme::Md5, CODE);
    let url = format!("rtsps://{address}{PATH}");
    client.play(&url).await;
    let mut report = Instant::now() + REPORT_EVERY;
    let (mut sequence, mut last, mut begun) = (None, None, None);
    while !seen.over.load(Relaxed) {
        let Frame { channel, bytes } = match client.next().await {
            Heard::Frame(frame) => frame,
            Heard::Request(_) => continue,
            Heard::Response(_) | Heard::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        seen.bytes.fetch_add(bytes.len() as u64 + 4, Relaxed);
        if channel != 0 {
            continue;
        }
        let rtp = Rtp::of(&bytes);
        if let Some(last) = sequence.replace(rtp.sequence) {
            let gap = rtp.sequence.wrapping_sub(last).wrapping_sub(1);
            seen.gaps.fetch_add(u64::from(gap), Relaxed);
        }
        begun = stamped(&bytes).or(begun);
        if !rtp.marker {
            continue;
        }
        let Some((number, made)) = begun.take() else { continue };
        let now = u64::try_from(BEGAN.elapsed().as_micros()).unwrap();
        match last.replace(number) {
            Some(last) => drop(seen.lost.fetch_add(number - last - 1, Relaxed)),
            None => drop(seen.joined.fetch_add(1, Relaxed)),
        }
        seen.pictures.fetch_add(1, Relaxed);
        if seen.noting.load(Relaxed) {
            let mut noted = seen.noted.lock().unwrap();
            if noted.len() < MAX_NOTED {
                noted.push(now.saturating_sub(made));
            }
        }
        if Instant::now() >= report {
            report += REPORT_EVERY;
            let about = (rtp.ssrc, u32::from(rtp.sequence));
            client.send(&framed(1, &receiver_report(Some(about)))).await;
        }
    }
    let teardown = client.written("TEARDOWN", &url, "");
    let _sent = client.try_send(&teardown).await;
    Ok(())
}

/// TLS 1.3 with AES-128-GCM, which is what a board with AES instructions chooses; for the camera itself,
/// which does not know it, TLS 1.2.
fn tls() -> Arc<ClientConfig> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Arc::new(config)
}
