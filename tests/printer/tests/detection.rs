//! What else may be on a camera's port: the file tunnel and the RTSP server, with any client.

use core::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::Instant;

use super::tls::{finished, missing, over_sockets};
use super::{CODE, PIPE, secs, simulated};
use printer::camera::{self, LOGIN_TIMEOUT};
use printer::{Detect, MAX_STREAMS, Model, Rtsp, Tunnel, Upload, WRITE_TIMEOUT, detect, tunnel};

fn dial(tunnel: &Tunnel) -> DuplexStream {
    let (near, far) = duplex(PIPE);
    let tunnel = tunnel.clone();
    spawn_local(async move { tunnel.serve(far).await });
    near
}

async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

async fn said(stream: &mut DuplexStream, bytes: usize) -> Vec<u8> {
    let mut said = vec![0; bytes];
    stream.read_exact(&mut said).await.unwrap();
    said
}

const WELCOME: &[u8] = b"\x04\0\0\0\x3f\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn a_tunnel_answers_a_cameras_login_with_24_bytes_and_an_end() {
    simulated(async || {
        let tunnel = Tunnel::new();
        let mut stream = dial(&tunnel);
        stream.write_all(&camera::login("whatever")).await.unwrap();
        let answer = rest(&mut stream).await;
        assert_eq!(answer[..8], *b"\x08\0\0\0\x3f\x01\x03\0");
        assert_eq!(answer.len(), 24);
        assert!(tunnel.until(secs(1), |tunnel| tunnel.open() == 0).await);
        assert_eq!((tunnel.ever(), tunnel.camera_logins(), tunnel.logins()), (1, 1, 0));
    });
}

#[test]
fn a_tunnel_lets_its_own_in_and_sends_back_what_they_say() {
    simulated(async || {
        let tunnel = Tunnel::new();
        let mut stream = dial(&tunnel);
        stream
            .write_all(b"\x10\0\0\0\x3f\x01\x01\x01\0\0\0\0\0\0\0\0bblp\0\0\0\x0012345678")
            .await
            .unwrap();
        assert_eq!(tunnel::login(CODE)[16..], *b"bblp\0\0\0\x0012345678");
        assert_eq!(said(&mut stream, 20).await, WELCOME);
        let sent: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8).collect();
        for piece in sent.chunks(3000) {
            stream.write_all(piece).await.unwrap();
            assert!(said(&mut stream, piece.len()).await == piece);
        }
        assert_eq!((tunnel.received(), tunnel.uploads().len()), (100_000, 0));
        drop(stream);
        assert!(tunnel.until(secs(1), |tunnel| tunnel.open() == 0).await);
        assert_eq!(tunnel.uploads(), [Upload::of(&sent)]);

        let tunnel = tunnel.echoing(false);
        let mut stream = dial(&tunnel);
        stream.write_all(&tunnel::login(CODE)).await.unwrap();
        stream.write_all(b"silently").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, WELCOME);
        assert!(tunnel.until(secs(1), |tunnel| tunnel.open() == 0).await);
        assert_eq!(tunnel.uploads().last(), Some(&Upload::of(b"silently")));
    });
}

#[test]
fn a_tunnel_closes_on_a_wrong_code_garbage_and_slow_login() {
    simulated(async || {
        let tunnel = Tunnel::new().code("87654321");
        for wrong in [&tunnel::login(CODE)[..], &[0; 32], b"GET / HTTP/1.1\r\nHost: me\r\n\r\n"] {
            let mut stream = dial(&tunnel);
            stream.write_all(wrong).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"");
        }
        for begun in [&[][..], &camera::login(CODE)[..79], &tunnel::login(CODE)[..31]] {
            let before = Instant::now();
            let mut stream = dial(&tunnel);
            stream.write_all(begun).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"");
            assert_eq!(before.elapsed(), LOGIN_TIMEOUT);
        }
        let mut stream = dial(&tunnel);
        let before = Instant::now();
        stream.write_all(&tunnel::login("87654321")).await.unwrap();
        stream.write_all(&[0; 2 * PIPE - 20]).await.unwrap(); // the echo is not read
        assert!(tunnel.until(secs(60), |tunnel| tunnel.open() == 0).await);
        assert_eq!((before.elapsed(), tunnel.logins()), (WRITE_TIMEOUT, 1));

        let held: Vec<_> = (0..MAX_STREAMS).map(|_| dial(&tunnel)).collect();
        assert!(tunnel.until(secs(1), |tunnel| tunnel.open() == MAX_STREAMS).await);
        assert_eq!(rest(&mut dial(&tunnel)).await, b"");
        drop(held);
    });
}

/// Sends the bytes of its second argument, written in hexadecimal, and prints what it receives.
const PYTHON: &str = "
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
stream = context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 60))
stream.sendall(bytes.fromhex(sys.argv[2]))
while True:
    piece = stream.recv(4096)
    if not piece:
        break
    print(piece.hex(), flush=True)
    if piece.endswith(b'\\r\\n\\r\\n'):
        break
";

async fn asked(address: SocketAddr, bytes: &[u8]) -> String {
    let mut command = Command::new("python3");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    command.args(["-c", PYTHON, &address.port().to_string(), &hex]);
    let seen = spawn_blocking(move || finished(command)).await.unwrap();
    assert!(seen.status.success(), "{}", seen.stderr.escape_ascii());
    String::from_utf8(seen.stdout).unwrap()
}

#[test]
fn both_are_there_over_tls_too() {
    if missing(&["python3"]) {
        return;
    }
    over_sockets(async || {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (tunnel, rtsp) = (Tunnel::new(), Rtsp::new());
        let (at, serving) = tunnel.listen_tls(anywhere, Model::H2D).await.unwrap();
        spawn_local(serving);
        let answer = asked(at, &camera::login(CODE)).await;
        assert_eq!(answer.trim(), format!("080000003f010300{}", "0".repeat(32)));

        let (at, serving) = rtsp.listen_tls(anywhere, Model::X1C).await.unwrap();
        spawn_local(serving);
        let options = b"OPTIONS rtsps://printer/streaming/live/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n";
        let hex: String = b"RTSP/1.0 200 OK".iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(asked(at, options).await.starts_with(&hex));
        let rtsp = rtsp.live_view(false);
        assert_eq!(asked(at, b"").await, "");
        assert_eq!((rtsp.requests(), rtsp.ever()), (1, 2));
    });
}

// ---- which printer it is ---------------------------------------------------------------------------

/// What it answers to these bytes, up to the end.
async fn told(detect: &Detect, bytes: &[u8]) -> Vec<u8> {
    let (mut near, far) = duplex(PIPE);
    let detect = detect.clone();
    spawn_local(async move { detect.serve(far).await });
    near.write_all(bytes).await.unwrap();
    rest(&mut near).await
}

#[test]
fn detect_is_answered_as_captured_from_an_a1_mini() {
    simulated(async || {
        let detect = Detect::new(Model::A1Mini).telling("name", "3DP-030-488");
        let asked = b"\xa5\xa5\x3a\x00{\"login\":{\"command\":\"detect\",\"sequence_id\":\"20004\"}}\xa7\xa7";
        assert_eq!(detect::framed(&asked[4..asked.len() - 2]), asked);
        let answer = told(&detect, asked).await;
        let json = answer[4..].strip_suffix(b"\xa7\xa7").unwrap();
        assert_eq!(detect::framed(json), answer);
        let answer: serde_json::Value = serde_json::from_slice(json).unwrap();
        let expected = serde_json::json!({"login": {
            "command": "detect", "sequence_id": "20004", "id": Model::A1Mini.serial(),
            "model": "N1", "name": "3DP-030-488", "version": "01.07.02.00", "bind": "free",
            "connect": "lan", "dev_cap": 1,
        }});
        assert_eq!(answer, expected);
        assert_eq!((detect.ever(), detect.detects(), detect.binds()), (1, 1, 0));
    });
}

#[test]
fn detect_is_refused_or_ignored_as_by_printers() {
    simulated(async || {
        let detect = Detect::new(Model::P1S).refusing(true);
        let asked = detect::framed(br#"{"login":{"command":"detect","sequence_id":7}}"#);
        let answer = String::from_utf8_lossy(&told(&detect, &asked).await).into_owned();
        assert!(answer.contains("LAN-ONLY enabled") && answer.contains("\"sequence_id\":7"));
        let binding = detect::framed(br#"{"login":{"command":"login"}}"#);
        assert!(String::from_utf8_lossy(&told(&detect, &binding).await).contains("FAILURE"));
        assert_eq!((detect.detects(), detect.binds()), (1, 1));
        let unknown = detect::framed(br#"{"login":{"command":"x"}}"#);
        let silent = detect.clone().silent(true);
        for bytes in [&unknown[..], b"GET / HTTP/1.1\r\n", b"\xa5\xa5\0\0", &asked] {
            let since = Instant::now();
            assert_eq!(told(&silent, bytes).await, b"");
            assert!(since.elapsed() <= detect::QUESTION_TIMEOUT);
        }
    });
}

#[test]
fn detect_listens_with_and_without_tls() {
    over_sockets(async || {
        let detect = Detect::new(Model::P1S);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (plain, serving) = detect.listen(any).await.unwrap();
        spawn_local(serving);
        let (tls, serving) = detect.listen_tls(any, Model::P1S).await.unwrap();
        spawn_local(serving);
        let asked = detect::framed(br#"{"login":{"command":"detect"}}"#);
        let mut stream = tokio::net::TcpStream::connect(plain).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"\xa5\xa5"));
        // A ClientHello gets an answer on one of them alone.
        assert!(tokio::net::TcpStream::connect(tls).await.is_ok());
    });
}
