//! The real program before a simulated camera, over real TLS on loopback: viewers that others wrote,
//! viewers that mean harm, and printers that are not as they should be.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;
use std::process::Command;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use skips::is_missing;

use crate::clients::ports::Refusing;
use crate::clients::programs::{PATIENCE, Program};
use crate::clients::proxy::{self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::camera::{Camera, OverLimit, login};
use printer::jpeg::picture_number;
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;

const VIEWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/viewer.py");

// ---- viewers -----------------------------------------------------------------------------------

#[test]
fn a_viewer_like_home_assistant_gets_each_head_alone() {
    if is_missing("python3") {
        return;
    }
    proxy::run(async {
        let set = Set::new(camera()).await;
        let (status, out) = set.python(CODE, 20).await;
        assert_eq!(status, Some(0), "{out}");
        assert_eq!(out.lines().count(), 20);
        set.are_own(&out);
        assert_eq!(set.camera.most_open(), 1);
    });
}

#[test]
fn a_wrong_code_is_closed_without_a_byte() {
    if is_missing("python3") {
        return;
    }
    proxy::run(async {
        let set = Set::new(camera()).await;
        let (status, out) = set.python("87654321", 1).await;
        assert_eq!((status, out.trim()), (Some(3), "closed without a byte"));
        set.proxy
            .program
            .line("chamber 1 (127.0.0.1): client disconnected: wrong access code")
            .await;
        assert_eq!(set.camera.wrong_logins(), 0, "the printer is not troubled");
        let log = set.proxy.program.log();
        assert!(!log.contains("87654321") && !log.contains(CODE), "{log}");
    });
}

/// Guards: bambuddy#2757: each viewer takes one of the camera's two places.
#[test]
fn ten_viewers_get_every_picture_over_one_connection() {
    if is_missing("python3") {
        return;
    }
    proxy::run(async {
        let set = Set::new(camera()).await;
        let mut others = Vec::new();
        for _ in 0..8 {
            let viewer = set.viewer(HOME).await;
            let camera = set.camera.clone();
            others.push(spawn_local(async move { watch(viewer, &camera, 40).await }));
        }
        let (one, two) = tokio::join!(set.python(CODE, 40), set.python(CODE, 40));
        for (status, out) in [one, two] {
            assert_eq!(status, Some(0), "{out}");
            set.are_own(&out);
        }
        for other in others {
            let numbers = other.await.unwrap();
            assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
        }
        assert_eq!((set.camera.most_open(), set.camera.wrong_logins()), (1, 0));
        set.proxy.check_memory();
    });
}

#[test]
fn hostile_clients_are_closed_and_a_viewer_goes_on() {
    proxy::run(async {
        let set = Set::new(camera()).await;
        let mut good = set.viewer(HOME).await;
        let first = picture(&mut good).await;
        let camera = set.camera.clone();
        let watching = spawn_local(async move { watch(good, &camera, 200).await });

        // No TLS; no bytes; half a login; an invalid login; data behind a login.
        let mut plain = set.proxy.tcp_from(Ipv4Addr::new(127, 0, 0, 2)).await.unwrap();
        plain.write_all(&login(CODE)).await.unwrap();
        let mut none = set.proxy.tls_from(Ipv4Addr::new(127, 0, 0, 3)).await.unwrap();
        none.write_all(&[0xff; 80]).await.unwrap();
        // In one piece: the proxy does not read a viewer while a picture waits to be taken.
        let mut talks = set.proxy.tls_from(Ipv4Addr::new(127, 0, 0, 4)).await.unwrap();
        let _closed = talks.write_all(&[&login(CODE)[..], &[7; 5000]].concat()).await;
        let mut half = set.proxy.tls_from(Ipv4Addr::new(127, 0, 0, 5)).await.unwrap();
        half.write_all(&login(CODE)[..40]).await.unwrap();
        half.flush().await.unwrap();
        let program = &set.proxy.program;
        program.line("not a chamber camera's login").await;
        program.line("unexpected data after the login").await;
        program.line("no login within 10 s").await;
        assert!(is_closed(&mut plain).await && is_closed(&mut none).await);
        assert!(is_closed(&mut talks).await && is_closed(&mut half).await);

        let numbers = watching.await.unwrap();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
        assert!(picture_number(&first).unwrap() <= numbers[0]);
        assert_eq!(set.camera.most_open(), 1);
        set.proxy.check_memory();
    });
}

#[test]
fn a_viewer_that_never_reads_is_closed() {
    proxy::run(async {
        let set = Set::new(camera().every(Duration::from_millis(20))).await;
        let still = set.viewer(Ipv4Addr::new(127, 0, 0, 2)).await;
        let good = set.viewer(HOME).await;
        let numbers = watch(good, &set.camera, 400).await;
        assert!(numbers.windows(2).all(|two| two[0] < two[1]));
        set.proxy.program.line("write timed out after 5 s").await;
        drop(still);
        set.proxy.check_memory();
    });
}

#[test]
fn viewers_stay_connected_while_the_camera_restarts() {
    proxy::run(async {
        let set = Set::new(camera()).await;
        let mut viewer = set.viewer(HOME).await;
        for _ in 0..3 {
            let seen = picture_number(&picture(&mut viewer).await).unwrap();
            set.camera.close();
            while picture_number(&picture(&mut viewer).await).unwrap() <= seen + 1 {}
        }
        assert_eq!(set.camera.most_open(), 1, "closed before it is dialled again");
    });
}

// ---- printers ----------------------------------------------------------------------------------

#[test]
fn a_printer_with_a_file_tunnel_has_its_rtsps_camera_found() {
    proxy::run(async {
        let (tunnel, rtsp) = (Tunnel::new().code("12345678"), Rtsp::new());
        let (chamber_at, _tunnel) = serve(tunnel.listen_tls(loopback(), Model::X1C).await.unwrap());
        let (rtsp_at, _rtsp) = serve(rtsp.listen_tls(loopback(), Model::X1C).await.unwrap());
        let proxy = start(Model::X1C, chamber_at.port(), rtsp_at.port()).await;
        proxy.program.line("the printer has an RTSPS camera (port 322), no chamber camera").await;
        assert_eq!((tunnel.ever(), tunnel.camera_logins(), rtsp.requests()), (1, 1, 1));
    });
}

#[test]
fn live_view_that_is_off_is_named() {
    proxy::run(async {
        let (tunnel, rtsp) = (Tunnel::new(), Rtsp::new().live_view(false));
        let (chamber_at, _tunnel) = serve(tunnel.listen_tls(loopback(), Model::X1C).await.unwrap());
        let (rtsp_at, _rtsp) = serve(rtsp.listen_tls(loopback(), Model::X1C).await.unwrap());
        let proxy = start(Model::X1C, chamber_at.port(), rtsp_at.port()).await;
        proxy.program.line("switch on LAN live view at the printer").await;
    });
}

#[test]
fn faults_of_a_printer_are_distinguished() {
    proxy::run(async {
        let refusing = Refusing::new();
        let closed = refusing.port();
        let proxy = start(Model::P1S, closed, closed).await;
        proxy.program.line("has no camera on ports 6000 and 322").await;

        let camera = Camera::new().code("87654321");
        let (at, _serving) = serve(camera.listen_tls(loopback(), Model::P1S).await.unwrap());
        let proxy = start(Model::P1S, at.port(), closed).await;
        proxy.program.line("the access code may be wrong or have changed").await;

        let camera = Camera::new().code(CODE);
        let (at, _serving) = serve(camera.listen_tls(loopback(), Model::A1Mini).await.unwrap());
        let proxy = start(Model::P1S, at.port(), closed).await;
        let line = proxy.program.line("camera: the printer's certificate is rejected").await;
        assert!(line.contains(Model::A1Mini.serial()), "it says whose it is: {line}");
        assert_eq!(camera.wrong_logins() + camera.frames(), 0, "it is told nothing");
    });
}

#[test]
fn a_camera_for_one_viewer_serves_many() {
    if is_missing("python3") {
        return;
    }
    proxy::run(async {
        let set = Set::new(camera().over_limit(OverLimit::Closes)).await;
        let (one, two) = tokio::join!(set.python(CODE, 10), set.python(CODE, 10));
        assert_eq!((one.0, two.0), (Some(0), Some(0)), "{} {}", one.1, two.1);
        assert_eq!((set.camera.most_open(), set.camera.refused()), (1, 0));
    });
}

// ---- the set -----------------------------------------------------------------------------------

/// A camera and the program; port 322 is closed.
struct Set {
    camera: Camera,
    proxy: Proxy,
    _serving: JoinHandle<()>,
    /// Port 322, which this printer has closed.
    _rtsp: Refusing,
}

impl Set {
    async fn new(camera: Camera) -> Self {
        let (at, serving) = serve(camera.listen_tls(loopback(), Model::P1S).await.unwrap());
        let refusing = Refusing::new();
        let proxy = start(Model::P1S, at.port(), refusing.port()).await;
        Self { camera, proxy, _serving: serving, _rtsp: refusing }
    }

    /// The independent viewer; how it ended, and what it printed.
    async fn python(&self, code: &str, pictures: usize) -> (Option<i32>, String) {
        let address = self.proxy.address;
        let mut viewer = Command::new("python3");
        viewer.arg(VIEWER).arg(address.ip().to_string()).arg(address.port().to_string());
        viewer.arg(pictures.to_string()).arg(self.proxy.dir.file("ca.pem"));
        let mut viewer = Program::start(&mut viewer);
        viewer.tell(code);
        let (status, said) = viewer.ended().await;
        (status, String::from_utf8(said.out).unwrap() + &said.err)
    }

    /// A viewer that has logged in.
    async fn viewer(&self, from: Ipv4Addr) -> TlsStream<TcpStream> {
        let mut stream = self.proxy.tls_from(from).await.unwrap();
        stream.write_all(&login(CODE)).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// What the independent viewer printed are this camera's pictures.
    fn are_own(&self, printed: &str) {
        let taken = u32::try_from(self.camera.frames()).unwrap() + 1;
        let own: BTreeSet<String> = (0..=taken)
            .map(|number| {
                let picture = self.camera.picture(number);
                let hash = ring::digest::digest(&ring::digest::SHA256, &picture);
                let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} {hex}", picture.len())
            })
            .collect();
        for line in printed.lines() {
            assert!(own.contains(line), "not one of {} pictures: {line}", own.len());
        }
    }
}

fn camera() -> Camera {
    Camera::new().code(CODE).every(Duration::from_millis(66))
}

fn loopback() -> SocketAddr {
    SocketAddr::from((HOME, 0))
}

/// Polls what serves something, until it is aborted.
fn serve<F: Future<Output = ()> + 'static>(
    (at, serving): (SocketAddr, F),
) -> (SocketAddr, JoinHandle<()>) {
    (at, spawn_local(serving))
}

/// The program, serving the camera of a printer at these ports. The port of the other camera is closed.
async fn start(model: Model, chamber: u16, rtsp: u16) -> Proxy {
    let dir: Rc<StateDir> = StateDir::new();
    let mut command = command(["--services", "camera", "--port", "chamber=0,rtsp=0"]);
    command.args(["-p", "127.0.0.1", "-a", CODE, "-s", model.serial(), "--bind", "127.0.0.1"]);
    command.args(["--printer-ca", PRINTER_CA, "--state-dir", dir.path().to_str().unwrap()]);
    command.arg("--printer-port").arg(format!("chamber={chamber},rtsp={rtsp}"));
    let open = if matches!(model, Model::X1C) { "rtsp" } else { "chamber" };
    Proxy::start_serving(open, command, dir).await
}

/// The next picture, at most so long awaited as anything is.
async fn picture(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let read = async {
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.unwrap();
        let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        assert!(len <= 1 << 20, "a picture of {len} bytes");
        let mut picture = vec![0; len];
        stream.read_exact(&mut picture).await.unwrap();
        picture
    };
    timeout(PATIENCE, read).await.expect("a picture")
}

/// Watches so many pictures, which have to be the camera's own to the byte; their numbers.
async fn watch(mut stream: TlsStream<TcpStream>, camera: &Camera, pictures: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..pictures {
        let picture = picture(&mut stream).await;
        let number = picture_number(&picture).expect("one of the camera's own");
        assert!(picture[..] == camera.picture(number)[..], "picture {number} is not as it was");
        numbers.push(number);
    }
    numbers
}

/// Whether the proxy closes, whatever it sends before.
async fn is_closed<S: AsyncReadExt + Unpin>(stream: &mut S) -> bool {
    let mut some = vec![0; 64 * 1024];
    let closed = async { while matches!(stream.read(&mut some).await, Ok(1..)) {} };
    timeout(PATIENCE, closed).await.is_ok()
}
