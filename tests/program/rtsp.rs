//! The real program before an RTSPS camera, over real TLS on loopback, with players and a camera that
//! others wrote.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::process::Command;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use tokio::task::{JoinHandle, spawn_local};

use skips::{is_missing, is_missing_element};

use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, PRINTER_CA, Proxy, StateDir, command};
use printer::Model;
use printer::rtsp::{Media, Packing, Rtsp};
use printer::tunnel::Tunnel;

const H264: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/rtsp/camera.h264");
const H265: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/rtsp/camera.h265");
const CAMERA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/camera.py");

const LOOPBACK: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

// ---- players -----------------------------------------------------------------------------------

#[test]
fn ffmpeg_decodes_every_picture_in_both_codecs() {
    if is_missing("ffmpeg") {
        return;
    }
    proxy::run(async {
        for (media, file, pictures) in [(Media::h264(), H264, 150), (Media::h265(), H265, 60)] {
            let set = Set::new(Rtsp::new().showing(media).packing(Packing::Aggregated)).await;
            let recorded = hashes(&ran(ffmpeg(file, &[], &[])).await);
            let seen = set.ffmpeg(CODE, pictures).await;
            set.are_own(&recorded, &seen);
            assert_eq!(seen.len(), pictures);
        }
    });
}

#[test]
fn ffmpeg_joins_late_and_begins_at_a_key_frame() {
    if is_missing("ffmpeg") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let recorded = hashes(&ran(ffmpeg(H264, &[], &[])).await);
        let first = async { set.ffmpeg(CODE, 120).await };
        let late = async {
            assert!(set.rtsp.until(Duration::from_secs(30), |rtsp| rtsp.units() > 40).await);
            set.ffmpeg(CODE, 45).await
        };
        let (first, late) = tokio::join!(first, late);
        set.are_own(&recorded, &first);
        set.are_own(&recorded, &late);
        assert_eq!(set.rtsp.setups(), 1, "the camera has one session");
    });
}

#[test]
fn all_players_cost_the_printer_one_connection() {
    if is_missing("ffmpeg") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new().sessions(1)).await;
        let mut players: Vec<Program> = (0..BOARD.clients.rtsp.min(8))
            .map(|_| {
                let mut copying = set.command(CODE);
                copying.args(["-c", "copy", "-frames:v", "60", "-f", "framemd5", "-"]);
                Program::start(&mut copying)
            })
            .collect();
        for player in &mut players {
            let (status, said) = player.ended().await;
            assert_eq!(status, Some(0), "{}", said.err);
            assert_eq!(hashes(&said.out).len(), 60);
        }
        assert_eq!((set.rtsp.setups(), set.rtsp.most_open()), (1, 1));
    });
}

#[test]
fn ffmpeg_gets_401_for_a_wrong_code() {
    if is_missing("ffmpeg") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let mut wrong = set.command("12345679");
        wrong.args(["-f", "null", "-"]);
        let (status, said) = Program::start(&mut wrong).ended().await;
        assert!(status != Some(0) && said.err.contains("401 Unauthorized"), "{}", said.err);
        set.proxy.program.line("showed a wrong access code").await;
        let log = set.proxy.program.log();
        assert!(!log.contains("12345679") && !log.contains(CODE), "{log}");
        assert_eq!((set.rtsp.setups(), set.rtsp.wrong_digests()), (0, 0));
    });
}

#[test]
fn ffmpeg_goes_on_after_a_restart_of_the_printer() {
    if is_missing("ffmpeg") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let recorded = hashes(&ran(ffmpeg(H264, &[], &[])).await);
        let playing = async { set.ffmpeg(CODE, 150).await };
        let restarting = async {
            assert!(set.rtsp.until(Duration::from_secs(30), |rtsp| rtsp.units() > 60).await);
            set.rtsp.reboot(Duration::from_millis(500));
        };
        let (seen, ()) = tokio::join!(playing, restarting);
        assert_eq!(seen.len(), 150);
        let own = |hash: &String| recorded.iter().position(|own| own == hash);
        let at: Vec<usize> =
            seen.iter().map(|hash| own(hash).expect("no picture is torn")).collect();
        let gaps: Vec<usize> = (1..at.len())
            .filter(|next| at[*next] != (at[*next - 1] + 1) % recorded.len())
            .collect();
        assert_eq!(gaps.len(), 1, "one gap, where the camera was away: {at:?}");
        let after = at[gaps[0]];
        assert!(set.rtsp.media().unit(after as u64).key, "{after} is a key frame");
        assert_eq!(set.rtsp.most_open(), 1, "the old connection was closed first");
    });
}

/// README's line for players, at a screen that does not exist.
#[test]
fn ffplay_plays_as_readme_says() {
    if is_missing("ffplay") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let at = set.proxy.address.to_string();
        let line = crate::readme::readme("ffplay", &[("HOST:322", &at), ("CODE", CODE)]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {line} -stats")]);
        shell.env("SDL_VIDEODRIVER", "dummy").env("SDL_AUDIODRIVER", "dummy");
        let player = Program::start(&mut shell);
        // Its clock stands still at "nan" until pictures are shown.
        let second = |line: &str| line.split(" M-V:").next()?.trim().parse::<f64>().ok();
        let plays = |said: &Said| said.err.split('\r').filter_map(second).any(|at| at > 1.5);
        assert!(player.until(PATIENCE, plays).await, "{}", player.log());
    });
}

#[test]
fn gstreamer_decodes_every_picture_and_falls_back_to_tcp() {
    let source = ["rtspsrc", "rtph264depay", "filesrc", "identity"];
    if is_missing_element(&source)
        || is_missing_element(&["h264parse", "avdec_h264", "checksumsink"])
    {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let decode = ["!", "h264parse", "!", "avdec_h264", "!", "identity", "eos-after=200"];
        let mut file = Command::new("gst-launch-1.0");
        file.args(["-q", "filesrc", &format!("location={H264}")]).args(decode).args(SUMS);
        let recorded = sums(&ran(file).await);
        assert_eq!(recorded.len(), set.rtsp.media().len());
        for protocols in ["tcp", "udp+tcp"] {
            let mut player = set.gstreamer(CODE, protocols);
            player.args(["!", "rtph264depay", "!", "h264parse", "!", "avdec_h264"]);
            // Killed instead of interrupted: gst-launch-1.0 interrupts its own PAUSE then, and calls that an error.
            let player = Program::start(player.args(SUMS));
            let seen = |said: &Said| said.out.iter().filter(|byte| **byte == b'\n').count() >= 60;
            let all = player.until(PATIENCE, seen).await;
            assert!(all, "by {protocols}: {}{}", player.log(), set.proxy.program.log());
            // The last line may be half written.
            let seen = &sums(&player.said().out)[..60];
            set.are_own(&recorded, seen);
        }
    });
}

#[test]
fn gstreamer_gets_403_for_a_wrong_code() {
    if is_missing_element(&["rtspsrc", "fakesink"]) {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        let mut player = set.gstreamer("12345679", "tcp");
        player.args(["!", "fakesink"]);
        let (status, said) = Program::start(&mut player).ended().await;
        assert!(status != Some(0) && said.err.contains("Wrong Access Code (403)"), "{}", said.err);
    });
}

#[test]
fn mpv_plays_with_the_right_code_and_not_with_a_wrong_one() {
    if is_missing("mpv") {
        return;
    }
    proxy::run(async {
        let set = Set::new(Rtsp::new()).await;
        for (code, status) in [(CODE, Some(0)), ("12345679", Some(2))] {
            let mut player = Command::new("mpv");
            player.args([
                "--no-config",
                "--vo=null",
                "--ao=null",
                "--frames=60",
                "--tls-verify=no",
            ]);
            player.arg(set.url(code));
            let (ended, said) = Program::start(&mut player).ended().await;
            assert_eq!(ended, status, "{}{}", said.err, String::from_utf8_lossy(&said.out));
        }
        let line = set.proxy.program.line("client disconnected (").await;
        let (_, got) = line.split_once("disconnected (").unwrap();
        let got: usize = got.split(' ').next().unwrap().parse().unwrap();
        assert!(got >= 60, "{line}");
    });
}

// ---- a camera that others wrote ------------------------------------------------------------------

#[test]
fn a_foreign_camera_and_a_foreign_player_work_together() {
    if is_missing_element(&["h264parse", "rtph264pay"]) || is_missing("ffmpeg") {
        return;
    }
    // Debian's own, which knows Debian's GStreamer.
    const PYTHON: &str = "/usr/bin/python3";
    let library = "import gi; gi.require_version('GstRtspServer', '1.0')";
    let mut asked = Command::new(PYTHON);
    if !asked.args(["-c", library]).output().is_ok_and(|output| output.status.success()) {
        skips::lacks("/usr/bin/python3 with gir1.2-gst-rtsp-server-1.0");
        return;
    }
    proxy::run(async {
        let pki = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki");
        let dir = StateDir::new();
        let file = dir.file("camera.mkv");
        let mut wrap = Command::new("ffmpeg");
        wrap.args(["-nostdin", "-loglevel", "error", "-r", "30", "-i", H264, "-c", "copy"]);
        wrap.arg(&file);
        ran(wrap).await;
        let mut camera = Command::new(PYTHON);
        camera.arg(CAMERA).arg(&file);
        camera.arg(format!("{pki}/x1c.pem")).arg(format!("{pki}/x1c.key"));
        let mut camera = Program::start(&mut camera);
        camera.tell(CODE);
        let line = camera.line("listening on ").await;
        let port: u16 = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let tunnel = Tunnel::new();
        let (tunnel_at, serving) = tunnel.listen_tls(LOOPBACK, Model::X1C).await.unwrap();
        let _serving = spawn_local(serving);
        let proxy = start(Model::X1C, tunnel_at.port(), port).await;
        let recorded = hashes(&ran(ffmpeg(H264, &[], &[])).await);
        let url = format!("rtsps://bblp:{CODE}@{}/streaming/live/1", proxy.address);
        let seen = ran(ffmpeg(&url, &["-rtsp_transport", "tcp"], &["-frames:v", "60"])).await;
        let seen = hashes(&seen);
        assert_eq!(seen.len(), 60, "{}", proxy.program.log());
        let first = recorded.iter().position(|own| *own == seen[0]).expect("its own");
        let expected = recorded.iter().cycle().skip(first);
        assert!(seen.iter().zip(expected).all(|(seen, own)| seen == own), "from {first} on");
    });
}

// ---- the set -----------------------------------------------------------------------------------

/// Prints the checksum of every picture.
const SUMS: [&str; 2] = ["!", "checksumsink"];

/// A camera, a file tunnel beside it, and the program before them.
struct Set {
    rtsp: Rtsp,
    proxy: Proxy,
    _serving: [JoinHandle<()>; 2],
}

impl Set {
    async fn new(rtsp: Rtsp) -> Self {
        let rtsp = rtsp.code(CODE);
        let tunnel = Tunnel::new().code(CODE);
        let (tunnel_at, tunnelling) = tunnel.listen_tls(LOOPBACK, Model::X1C).await.unwrap();
        let (rtsp_at, showing) = rtsp.listen_tls(LOOPBACK, Model::X1C).await.unwrap();
        let serving = [spawn_local(tunnelling), spawn_local(showing)];
        let proxy = start(Model::X1C, tunnel_at.port(), rtsp_at.port()).await;
        Self { rtsp, proxy, _serving: serving }
    }

    fn url(&self, code: &str) -> String {
        format!("rtsps://bblp:{code}@{}/streaming/live/1", self.proxy.address)
    }

    /// ffmpeg as far as its input. It checks no certificate: its RTSP hands TLS no option.
    fn command(&self, code: &str) -> Command {
        ffmpeg(&self.url(code), &["-rtsp_transport", "tcp"], &[])
    }

    /// Hashes of this many decoded pictures.
    async fn ffmpeg(&self, code: &str, pictures: usize) -> Vec<String> {
        let mut player = self.command(code);
        player.args(["-frames:v", &pictures.to_string(), "-f", "framemd5", "-"]);
        hashes(&ran(player).await)
    }

    /// `gst-launch` as far as its source.
    fn gstreamer(&self, code: &str, protocols: &str) -> Command {
        let mut player = Command::new("gst-launch-1.0");
        player.args(["-q", "rtspsrc", "tls-validation-flags=0", "user-id=bblp"]);
        player.arg(format!("location=rtsps://{}/streaming/live/1", self.proxy.address));
        player.args([format!("user-pw={code}"), format!("protocols={protocols}")]);
        player
    }

    /// Asserts that these are the recording's pictures, from a key frame on and without a gap.
    fn are_own(&self, recorded: &[String], seen: &[String]) {
        let first = recorded.iter().position(|own| *own == seen[0]).expect("its own");
        assert!(self.rtsp.media().unit(first as u64).key, "it begins at picture {first}");
        let expected = recorded.iter().cycle().skip(first);
        let differs = seen.iter().zip(expected).position(|(seen, own)| seen != own);
        assert_eq!(differs, None, "of {} pictures from {first} on", seen.len());
    }
}

/// The program, serving the camera of a printer at these ports.
async fn start(model: Model, chamber: u16, rtsp: u16) -> Proxy {
    let dir: Rc<StateDir> = StateDir::new();
    let mut command = command(["--services", "camera", "--port", "chamber=0,rtsp=0"]);
    command.args(["-p", "127.0.0.1", "-a", CODE, "-s", model.serial(), "--bind", "127.0.0.1"]);
    command.args(["--printer-ca", PRINTER_CA, "--state-dir", dir.path().to_str().unwrap()]);
    command.arg("--printer-port").arg(format!("chamber={chamber},rtsp={rtsp}"));
    Proxy::start_serving("rtsp", command, dir).await
}

fn ffmpeg(input: &str, before: &[&str], after: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]).args(before);
    command.args(["-i", input, "-fps_mode", "passthrough"]).args(after);
    if before.is_empty() || !after.is_empty() {
        command.args(["-f", "framemd5", "-"]);
    }
    command
}

/// What a program prints that ends well.
async fn ran(mut command: Command) -> Vec<u8> {
    let (status, said) = Program::start(&mut command).ended().await;
    assert_eq!(status, Some(0), "{command:?}: {}", said.err);
    said.out
}

/// What each picture comes to in ffmpeg's `framemd5`.
fn hashes(output: &[u8]) -> Vec<String> {
    let text = core::str::from_utf8(output).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

/// What each picture comes to in GStreamer's `checksumsink`.
fn sums(output: &[u8]) -> Vec<String> {
    let text = core::str::from_utf8(output).unwrap();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(_, sum)| sum.to_owned()).collect()
}
