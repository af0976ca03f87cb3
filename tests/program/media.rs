//! Pictures over HTTP from the real program, to clients that others wrote.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::process::Command;

use tokio::task::{JoinHandle, spawn_local};

use skips::{is_missing, is_missing_element};

use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::camera::Camera;
use printer::jpeg::picture_number;
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;

const H264: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/rtsp/camera.h264");
const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/home.py");

/// Debian's own, which knows Debian's aiohttp.
const PYTHON: &str = "/usr/bin/python3";

const LOOPBACK: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A printer's two camera ports, and the program before them.
struct Set {
    proxy: Proxy,
    _serving: [JoinHandle<()>; 2],
}

impl Set {
    async fn p1s(camera: &Camera) -> Self {
        let (chamber_at, serving) = camera.listen_tls(LOOPBACK, Model::P1S).await.unwrap();
        let (rtsp_at, closed) =
            Rtsp::new().live_view(false).listen_tls(LOOPBACK, Model::P1S).await.unwrap();
        let serving = [spawn_local(serving), spawn_local(closed)];
        Self::start(Model::P1S, chamber_at.port(), rtsp_at.port(), serving).await
    }

    async fn x1c(camera: &Rtsp) -> Self {
        let tunnel = Tunnel::new().code(CODE);
        let (tunnel_at, tunnelling) = tunnel.listen_tls(LOOPBACK, Model::X1C).await.unwrap();
        let (rtsp_at, showing) = camera.listen_tls(LOOPBACK, Model::X1C).await.unwrap();
        let serving = [spawn_local(tunnelling), spawn_local(showing)];
        Self::start(Model::X1C, tunnel_at.port(), rtsp_at.port(), serving).await
    }

    async fn start(model: Model, chamber: u16, rtsp: u16, serving: [JoinHandle<()>; 2]) -> Self {
        let dir = StateDir::new();
        let mut command =
            command(["--services", "camera,http", "--port", "chamber=0,rtsp=0,http=0"]);
        command.args(["-p", "127.0.0.1", "-a", CODE, "-s", model.serial(), "--bind", "127.0.0.1"]);
        command.args(["--printer-ca", PRINTER_CA, "--state-dir", dir.path().to_str().unwrap()]);
        command.arg("--printer-port").arg(format!("chamber={chamber},rtsp={rtsp}"));
        let proxy = Proxy::start_serving("http", command, dir).await;
        Self { proxy, _serving: serving }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy.address)
    }

    /// With user and code in it, as FFmpeg wants them.
    fn url_with_code(&self, path: &str) -> String {
        format!("http://bblp:{CODE}@{}{path}", self.proxy.address)
    }
}

fn camera() -> Camera {
    Camera::new().code(CODE).every(Duration::from_millis(200))
}

/// What a program prints that ends well.
async fn ran(command: &mut Command) -> Vec<u8> {
    let (status, said) = Program::start(command).ended().await;
    assert_eq!(status, Some(0), "{command:?}: {}", said.err);
    said.out
}

#[test]
fn curl_gets_snapshots_and_words() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let camera = camera();
        let set = Set::p1s(&camera).await;
        let curl = |path: &str, more: &[&str]| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-u", &format!("bblp:{CODE}")]).args(more).arg(set.url(path));
            curl
        };
        for path in ["/snapshot.jpg", "/?action=snapshot", "/webcam/?action=snapshot"] {
            let picture = ran(&mut curl(path, &[])).await;
            let number = picture_number(&picture).expect("one of the camera's");
            assert_eq!(picture[..], camera.picture(number)[..]);
        }
        let words = ran(&mut curl("/stream.mp4", &["-w", "%{http_code}"])).await;
        let words = String::from_utf8(words).unwrap();
        assert!(words.contains("use /stream.mjpg") && words.ends_with("501"), "{words}");
    });
}

#[test]
fn ffprobe_reads_mjpeg() {
    if is_missing("ffprobe") {
        return;
    }
    proxy::run(async {
        let set = Set::p1s(&camera()).await;
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-show_entries", "stream=codec_name:format=format_name"]);
        probe.args(["-of", "default=nw=1", "-read_intervals", "%+#5", "-count_packets"]);
        let out = ran(probe.arg(set.url_with_code("/stream.mjpg"))).await;
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("codec_name=mjpeg") && out.contains("format_name=mpjpeg"), "{out}");
    });
}

#[test]
fn ffmpeg_decodes_mp4_to_the_pictures_of_the_recording() {
    if is_missing("ffmpeg") || is_missing("ffprobe") {
        return;
    }
    proxy::run(async {
        let set = Set::x1c(&Rtsp::new().code(CODE)).await;
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-show_entries"]);
        probe.args(["stream=codec_name,codec_tag_string,width,height", "-of", "csv=p=0"]);
        let out = ran(probe.arg(set.url_with_code("/stream.mp4"))).await;
        assert_eq!(String::from_utf8(out).unwrap().trim(), "h264,avc1,640,360");
        let hashes = async |input: &str, more: &[&str]| {
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-nostdin", "-loglevel", "error", "-i", input]);
            ffmpeg.args(["-fps_mode", "passthrough"]).args(more).args(["-f", "framemd5", "-"]);
            let out = String::from_utf8(ran(&mut ffmpeg).await).unwrap();
            let lines = out.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect::<Vec<_>>()
        };
        let recorded = hashes(H264, &[]).await;
        let seen = hashes(&set.url_with_code("/stream.mp4"), &["-frames:v", "100"]).await;
        assert_eq!(seen.len(), 100);
        let first = recorded.iter().position(|own| *own == seen[0]).expect("its own");
        assert_eq!(first % 30, 0, "a key frame");
        let expected = recorded.iter().cycle().skip(first);
        assert!(seen.iter().zip(expected).all(|(seen, own)| seen == own), "from {first} on");
    });
}

#[test]
fn gstreamer_plays_both_streams() {
    let elements =
        ["souphttpsrc", "multipartdemux", "jpegdec", "qtdemux", "h264parse", "avdec_h264"];
    if is_missing_element(&elements) {
        return;
    }
    proxy::run(async {
        let mjpeg = Set::p1s(&camera()).await;
        let mp4 = Set::x1c(&Rtsp::new().code(CODE)).await;
        let decoders: [(&Set, &str, &[&str]); 2] = [
            (&mjpeg, "/stream.mjpg", &["multipartdemux", "!", "jpegdec"]),
            (&mp4, "/stream.mp4", &["qtdemux", "!", "h264parse", "!", "avdec_h264"]),
        ];
        for (set, path, decode) in decoders {
            let mut player = Command::new("gst-launch-1.0");
            player.args(["-q", "souphttpsrc", "is-live=true", "user-id=bblp"]);
            player.args([
                format!("user-pw={CODE}"),
                format!("location={}", set.url(path)),
                "!".into(),
            ]);
            player.args(decode).args(["!", "identity", "eos-after=20", "!", "checksumsink"]);
            let player = Program::start(&mut player);
            let seen = |said: &Said| said.out.iter().filter(|byte| **byte == b'\n').count() >= 10;
            let has_seen = player.until(PATIENCE, seen).await;
            assert!(has_seen, "{path}: {}{}", player.log(), set.proxy.program.log());
        }
    });
}

#[test]
fn home_assistants_mjpeg_camera_shows_pictures() {
    let mut asked = Command::new(PYTHON);
    let has_library = asked.args(["-c", "import aiohttp"]).output();
    if !has_library.is_ok_and(|output| output.status.success()) {
        skips::lacks("/usr/bin/python3 with python3-aiohttp");
        return;
    }
    proxy::run(async {
        let set = Set::p1s(&camera()).await;
        for (code, status, lines) in [(CODE, Some(0), 11), ("87654321", Some(4), 1)] {
            let mut home = Command::new(PYTHON);
            home.arg(HOME).arg(set.url("/stream.mjpg")).arg("10");
            let mut home = Program::start(&mut home);
            home.tell(code);
            let (ended, said) = home.ended().await;
            let out = String::from_utf8(said.out).unwrap();
            assert_eq!((ended, out.lines().count()), (status, lines), "{out}{}", said.err);
        }
    });
}
