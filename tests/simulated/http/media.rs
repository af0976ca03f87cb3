//! Pictures over HTTP between simulated cameras and browsers, in virtual time.

use pandaproxy::board::BOARD;
use pandaproxy::chamber;
use pandaproxy::http::media::FIRST_TIMEOUT;
use pandaproxy::rtsp;
use pandaproxy::runtime::launch::Proxy;
use pandaproxy::runtime::stream::WRITE_TIMEOUT;
use pandaproxy::service::Service as _;
use printer::Model;
use printer::camera::{Camera, Quirk, login};
use printer::jpeg::picture_number;
use printer::rtsp::{Media, Packing, Rtsp};
use printer::tunnel::Tunnel;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use super::{Answer, basic, get, rest};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::start;
use crate::lan::{self, CODE, WIRE, ms, pass, secs};

/// A wire that holds less than a picture.
const NARROW: usize = 4096;

/// All names of one picture, and of pictures one after the other.
const SNAPSHOTS: [&str; 5] = [
    "/snapshot.jpg",
    "/snapshot",
    "/?action=snapshot",
    "/webcam/?action=snapshot",
    "/webcam?action=snapshot",
];
const STREAMS: [&str; 5] = [
    "/stream.mjpg",
    "/stream",
    "/?action=stream",
    "/webcam/?action=stream",
    "/webcam?action=stream",
];

/// A proxy before a printer's two camera ports, which knows by now what is there.
struct Bed {
    net: SimNet,
    proxy: Proxy,
}

impl Bed {
    async fn new(model: Model, chamber: At, rtsp: At) -> Self {
        let net = SimNet::new();
        net.put(6000, Port::new(chamber));
        net.put(322, Port::new(rtsp));
        let proxy = start(&net, model.serial(), CODE, &["--services=camera,http"]);
        pass(secs(20)).await;
        Self { net, proxy }
    }

    async fn p1s(camera: &Camera) -> Self {
        Self::new(Model::P1S, At::Camera(camera.clone()), At::Closed).await
    }

    async fn x1c(camera: &Rtsp) -> Self {
        Self::new(Model::X1C, At::Tunnel(Tunnel::new()), At::Rtsp(camera.clone())).await
    }

    fn stream_to(&self, port: u16, wire: usize) -> DuplexStream {
        let (near, far) = duplex(wire);
        assert!(self.net.arrive(port, self.net.next_client(), far), "the port is open");
        near
    }

    /// A connection that has asked for this.
    async fn asking(&self, method: &str, path: &str, wire: usize) -> DuplexStream {
        let mut stream = self.stream_to(8080, wire);
        let fields = format!("User-Agent: curl/8.5.0\r\n{}", basic("bblp", CODE));
        let request = get(path, &fields).replace("GET", method);
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// How a service's connection to the printer is shown, and whether with a reason.
    async fn upstream(&self, name: &str) -> (String, bool) {
        let status: Value = serde_json::from_slice(&self.get("/status").await.body).unwrap();
        let services = status["services"].as_array().unwrap();
        let service = services.iter().find(|service| service["name"] == name).unwrap();
        (service["upstream"].as_str().unwrap().to_owned(), service["reason"].is_string())
    }

    /// The answer, once it has ended.
    async fn get(&self, path: &str) -> Answer {
        Answer::read(&mut self.asking("GET", path, WIRE).await, false).await
    }

    /// JPEGs one after the other.
    async fn jpegs(&self, path: &str, wire: usize) -> Jpegs {
        let mut stream = self.asking("GET", path, wire).await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let line = "\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n";
        assert!(head.contains(line) && head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
        assert!(head.contains("\r\nX-Accel-Buffering: no\r\n"), "{head}");
        let mut jpegs = Jpegs { stream };
        jpegs.reads("--frame\r\n").await;
        jpegs
    }

    async fn mp4(&self) -> Mp4 {
        let mut stream = self.asking("GET", "/stream.mp4", WIRE).await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("\r\nContent-Type: video/mp4\r\n"), "{head}");
        let mut mp4 = Mp4 { stream, time: 0, picture: 0 };
        assert_eq!(mp4.next_box().await.unwrap().0, *b"ftyp");
        assert_eq!(mp4.next_box().await.unwrap().0, *b"moov");
        mp4
    }

    fn chamber(&self) -> std::rc::Rc<chamber::Service> {
        self.proxy.service().unwrap()
    }

    fn rtsp(&self) -> std::rc::Rc<rtsp::Service> {
        self.proxy.service().unwrap()
    }
}

/// The head of an answer.
async fn head(stream: &mut DuplexStream) -> String {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head is whole"));
        }
        String::from_utf8(head).unwrap()
    };
    timeout(secs(60), read).await.expect("an answer comes")
}

struct Jpegs {
    stream: DuplexStream,
}

impl Jpegs {
    async fn reads(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        self.stream.read_exact(&mut read).await.unwrap();
        assert_eq!(read, text.as_bytes());
    }

    /// The number of the next picture, which is the camera's to the byte, with what has to be around it.
    async fn number(&mut self, camera: &Camera) -> u32 {
        let head = head(&mut self.stream).await;
        let len = head.strip_prefix("Content-Type: image/jpeg\r\nContent-Length: ").expect(&head);
        let mut picture = vec![0; len.trim().parse().unwrap()];
        self.stream.read_exact(&mut picture).await.unwrap();
        // The boundary comes at once: browsers wait for it.
        self.reads("\r\n--frame\r\n").await;
        let number = picture_number(&picture).expect("one of the camera's own");
        assert_eq!(picture[..], camera.picture(number)[..]);
        number
    }
}

struct Mp4 {
    stream: DuplexStream,
    /// When the next picture is shown.
    time: u64,
    /// The number of the next fragment, less one.
    picture: u32,
}

/// A picture in MP4.
struct Sample {
    is_key: bool,
    duration: u32,
    units: Vec<Vec<u8>>,
}

impl Mp4 {
    /// The next box; `None` at the end.
    async fn next_box(&mut self) -> Option<([u8; 4], Vec<u8>)> {
        let read = async {
            let len = self.stream.read_u32().await.ok()?;
            let mut content = vec![0; len as usize - 4];
            self.stream.read_exact(&mut content).await.expect("a box is whole");
            Some((content[..4].try_into().unwrap(), content.split_off(4)))
        };
        timeout(secs(200), read).await.expect("something comes")
    }

    async fn sample(&mut self) -> Option<Sample> {
        let (name, moof) = self.next_box().await?;
        assert_eq!(name, *b"moof");
        let number = |at: usize| u32::from_be_bytes(moof[at..at + 4].try_into().unwrap());
        // As the fields lie in a fragment with one picture.
        assert_eq!((number(12), &moof[44..48]), (self.picture + 1, &b"tfdt"[..]));
        let time = u64::from(number(52)) << 32 | u64::from(number(56));
        let (duration, flags) = (number(80), number(88));
        assert_eq!(time, self.time, "times add up");
        let (name, mut sample) = self.next_box().await?;
        assert_eq!(name, *b"mdat");
        let mut units = Vec::new();
        while !sample.is_empty() {
            let len = u32::from_be_bytes(sample[..4].try_into().unwrap()) as usize;
            units.push(sample[4..4 + len].to_vec());
            sample.drain(..4 + len);
        }
        self.time += u64::from(duration);
        self.picture += 1;
        Some(Sample { is_key: flags == 0x0200_0000, duration, units })
    }

    /// The number of the next picture of a recording, and the sample.
    async fn of(&mut self, media: &Media) -> (u64, Sample) {
        let sample = self.sample().await.expect("it goes on");
        let number = (0..media.len() as u64).find(|number| {
            let unit = media.unit(*number);
            unit.nals.iter().filter(|nal| matches!(nal[0] & 0x1f, 1..=5)).eq(&sample.units)
        });
        (number.expect("one of the recording's"), sample)
    }
}

fn camera() -> Camera {
    Camera::new().code(CODE).every(ms(500))
}

// ---- JPEG --------------------------------------------------------------------------------------

/// The failed connection of a camera is shown as idle while the camera has no viewers.
#[test]
fn a_failed_camera_without_viewers_is_idle() {
    lan::run(async {
        let beds = [
            ("chamber", "/stream.mjpg", Bed::p1s(&camera()).await),
            ("rtsp", "/stream.mp4", Bed::x1c(&Rtsp::new().code(CODE)).await),
        ];
        for (name, path, bed) in beds {
            assert_eq!(bed.upstream(name).await, ("idle".to_owned(), false));
            for port in [6000, 322] {
                bed.net.put(port, Port::new(At::Off));
            }
            let viewer = bed.asking("GET", path, WIRE).await;
            pass(secs(12)).await;
            assert_eq!(bed.upstream(name).await, ("failing".to_owned(), true));
            drop(viewer);
            // One that has had no picture yet is seen to have left at the end of its wait.
            pass(FIRST_TIMEOUT).await;
            assert_eq!(bed.upstream(name).await, ("idle".to_owned(), false), "{name}");
        }
    });
}

#[test]
fn a_snapshot_wakes_the_camera_and_its_picture_is_kept() {
    lan::run(async {
        let camera = camera().every(secs(10)).first_after(secs(3));
        let bed = Bed::p1s(&camera).await;
        assert_eq!(camera.open(), 0, "it sleeps");
        let began = Instant::now();
        let first = bed.get("/snapshot.jpg").await;
        assert_eq!((first.status, began.elapsed()), (200, secs(3)));
        assert_eq!(first.field("Content-Type"), Some("image/jpeg"));
        assert_eq!(first.field("Cache-Control"), Some("no-store"));
        let number = picture_number(&first.body).unwrap();
        assert_eq!(first.body[..], camera.picture(number)[..]);
        pass(secs(4)).await;
        let kept = bed.get("/snapshot.jpg").await;
        assert_eq!((kept.body == first.body, began.elapsed()), (true, secs(7)), "at once");
        pass(secs(2)).await;
        let next = bed.get("/snapshot.jpg").await;
        assert_eq!(picture_number(&next.body), Some(number + 1), "six seconds are too old");
        assert_eq!(began.elapsed(), secs(13));
        pass(secs(10)).await;
        assert_eq!((camera.open(), camera.most_open()), (0, 1), "it sleeps again");
        assert_eq!(bed.chamber().connections(), 0);
    });
}

#[test]
fn every_alias_of_mjpg_streamer_and_ustreamer_shows_pictures() {
    lan::run(async {
        let camera = camera();
        let bed = Bed::p1s(&camera).await;
        for path in SNAPSHOTS {
            let answer = bed.get(path).await;
            assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("image/jpeg")));
        }
        for path in STREAMS {
            bed.jpegs(path, WIRE).await.number(&camera).await;
        }
        for path in ["/snapshot.jpg", "/stream.mjpg"] {
            let mut stream = bed.asking("HEAD", path, WIRE).await;
            let answer = rest(&mut stream).await;
            assert!(
                answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\n"),
                "{path}"
            );
        }
        pass(secs(1)).await;
        assert_eq!(bed.chamber().connections(), 0);
    });
}

#[test]
fn a_stream_shows_every_picture_whole_and_in_order() {
    lan::run(async {
        let camera = camera();
        let bed = Bed::p1s(&camera).await;
        let mut jpegs = bed.jpegs("/stream.mjpg", WIRE).await;
        let first = jpegs.number(&camera).await;
        for number in first + 1..first + 30 {
            assert_eq!(jpegs.number(&camera).await, number);
        }
        camera.reboot(secs(20));
        assert!(jpegs.number(&camera).await > first + 29, "it goes on after a restart");
    });
}

#[test]
fn a_slow_reader_of_a_stream_loses_pictures_and_others_do_not() {
    lan::run(async {
        let camera = camera().every(ms(200));
        let bed = Bed::p1s(&camera).await;
        let mut slow = bed.jpegs("/stream.mjpg", NARROW).await;
        let mut quick = bed.jpegs("/stream.mjpg", WIRE).await;
        let (mut skipped, mut last) = (0, slow.number(&camera).await);
        let mut expected = quick.number(&camera).await;
        for _ in 0..10 {
            for _ in 0..10 {
                expected += 1;
                assert_eq!(quick.number(&camera).await, expected);
            }
            let number = slow.number(&camera).await;
            skipped += number - last - 1;
            last = number;
        }
        assert!(skipped > 50, "{skipped}");
    });
}

#[test]
fn a_stream_that_is_never_read_is_closed() {
    lan::run(async {
        let camera = camera();
        let bed = Bed::p1s(&camera).await;
        let stream = bed.asking("GET", "/stream.mjpg", NARROW).await;
        pass(WRITE_TIMEOUT + secs(2)).await;
        assert_eq!(bed.chamber().connections(), 0);
        let mp4_camera = Rtsp::new().code(CODE);
        let other = Bed::x1c(&mp4_camera).await;
        let mp4 = other.asking("GET", "/stream.mp4", NARROW).await;
        pass(WRITE_TIMEOUT + secs(3)).await;
        assert_eq!(other.rtsp().connections(), 0);
        drop((stream, mp4));
    });
}

#[test]
fn http_clients_and_viewers_share_the_cameras_slots() {
    lan::run(async {
        let camera = camera();
        let bed = Bed::p1s(&camera).await;
        let most = BOARD.clients.chamber;
        let browsers = most.min(BOARD.clients.http - 1);
        let mut streams = Vec::new();
        for _ in 0..browsers {
            streams.push(bed.jpegs("/stream.mjpg", WIRE).await);
        }
        let mut viewers = Vec::new();
        for _ in browsers..most {
            let mut viewer = bed.stream_to(6000, WIRE);
            viewer.write_all(&login(CODE)).await.unwrap();
            viewers.push(viewer);
        }
        pass(secs(1)).await;
        assert_eq!(bed.chamber().viewers(), most);
        let answer = bed.get("/snapshot.jpg").await;
        assert_eq!((answer.status, answer.field("Retry-After")), (503, Some("5")));
        assert!(answer.text().contains("all places at the camera are taken"), "{}", answer.text());
        let mut viewer = bed.stream_to(6000, WIRE);
        viewer.write_all(&login(CODE)).await.unwrap();
        assert_eq!(viewer.read(&mut [0; 16]).await.unwrap(), 0, "closed");
        drop(streams.pop());
        pass(secs(2)).await;
        assert_eq!(bed.get("/snapshot.jpg").await.status, 200);
        let status: Value = serde_json::from_slice(&bed.get("/status").await.body).unwrap();
        let services = status["services"].as_array().unwrap();
        let chamber = services.iter().find(|service| service["name"] == "chamber").unwrap();
        assert_eq!(chamber["connections"].as_array().unwrap().len(), most - 1);
        assert_eq!(chamber["connections"][0]["id"], "curl/8.5.0");
    });
}

#[test]
fn a_camera_without_a_picture_is_503_after_15_s() {
    lan::run(async {
        for path in ["/snapshot.jpg", "/stream.mjpg", "/stream.mp4"] {
            let silent = camera().with(Quirk::Silence);
            let dark = Rtsp::new().code(CODE).key_after(secs(60));
            let bed = match path {
                "/stream.mp4" => Bed::x1c(&dark).await,
                _ => Bed::p1s(&silent).await,
            };
            pass(secs(60)).await;
            let began = Instant::now();
            let answer = bed.get(path).await;
            assert_eq!((answer.status, began.elapsed()), (503, FIRST_TIMEOUT), "{path}");
            assert_eq!(answer.field("Retry-After"), Some("5"));
            assert!(answer.text().contains("no picture in 15 s"), "{}", answer.text());
            assert_eq!(bed.chamber().connections() + bed.rtsp().connections(), 0);
        }
    });
}

#[test]
fn a_format_that_the_camera_does_not_send_is_501_with_another_path() {
    lan::run(async {
        let bed = Bed::p1s(&camera()).await;
        let answer = bed.get("/stream.mp4").await;
        assert_eq!(answer.status, 501);
        assert!(answer.text().contains("/stream.mjpg"), "{}", answer.text());
        let bed = Bed::x1c(&Rtsp::new().code(CODE)).await;
        for path in SNAPSHOTS.iter().chain(&STREAMS) {
            let answer = bed.get(path).await;
            assert_eq!(answer.status, 501, "{path}");
            assert!(answer.text().contains("/stream.mp4"), "{}", answer.text());
        }
        let bed = Bed::x1c(&Rtsp::new().code(CODE).showing(Media::h265())).await;
        let answer = bed.get("/stream.mp4").await;
        assert_eq!(answer.status, 501);
        assert!(answer.text().contains("does not send H.264"), "{}", answer.text());
        assert_eq!(bed.rtsp().connections(), 0);
    });
}

#[test]
fn no_camera_and_live_view_off_are_told() {
    lan::run(async {
        let net = SimNet::new();
        let proxy = start(&net, Model::P1S.serial(), CODE, &["--services=mqtt,http"]);
        let bed = Bed { net, proxy };
        for path in ["/snapshot.jpg", "/stream.mjpg", "/stream.mp4"] {
            assert_eq!(bed.get(path).await.status, 404, "{path}");
        }
        let bed = Bed::x1c(&Rtsp::new().code(CODE).live_view(false)).await;
        let answer = bed.get("/stream.mp4").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("live view is off"), "{}", answer.text());
    });
}

#[test]
fn a_shutdown_ends_streams() {
    lan::run(async {
        let camera = camera();
        let bed = Bed::p1s(&camera).await;
        let mut jpegs = bed.jpegs("/stream.mjpg", WIRE).await;
        jpegs.number(&camera).await;
        let began = Instant::now();
        bed.proxy.stop().await;
        rest(&mut jpegs.stream).await;
        assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    });
}

// ---- MP4 ---------------------------------------------------------------------------------------

#[test]
fn mp4_begins_with_a_key_frame_and_has_every_picture() {
    for packing in [Packing::Single, Packing::Aggregated] {
        lan::run(async {
            let camera = Rtsp::new().code(CODE).packing(packing);
            let bed = Bed::x1c(&camera).await;
            let media = camera.media();
            let mut mp4 = bed.mp4().await;
            let (first, sample) = mp4.of(&media).await;
            assert!(sample.is_key && media.unit(first).key);
            for number in first + 1..first + 2 * media.len() as u64 {
                let (own, sample) = mp4.of(&media).await;
                assert_eq!(own, number % media.len() as u64);
                assert_eq!((sample.is_key, sample.duration), (own % 30 == 0, 3000), "{own}");
            }
            assert_eq!(camera.most_open(), 1);
        });
    }
}

#[test]
fn a_late_viewer_of_mp4_begins_at_once_with_the_kept_key_frame() {
    lan::run(async {
        let camera = Rtsp::new().code(CODE);
        let bed = Bed::x1c(&camera).await;
        let media = camera.media();
        let mut first = bed.mp4().await;
        while first.of(&media).await.0 % 30 != 15 {}
        let began = Instant::now();
        let mut late = bed.mp4().await;
        let (number, sample) = late.of(&media).await;
        assert_eq!((number % 30, sample.duration, began.elapsed()), (0, 90, secs(0)));
        let mut time = 0;
        while late.of(&media).await.1.duration < 3000 {
            time += 90;
        }
        assert!((10 * 90..30 * 90).contains(&time), "what it has missed is shown in {time} ticks");
    });
}

#[test]
fn mp4_goes_on_after_a_restart_of_the_printer() {
    lan::run(async {
        let camera = Rtsp::new().code(CODE);
        let bed = Bed::x1c(&camera).await;
        let media = camera.media();
        let mut mp4 = bed.mp4().await;
        for _ in 0..40 {
            mp4.of(&media).await;
        }
        camera.reboot(secs(20));
        let mut gaps = 0;
        let mut follows_gap = false;
        for _ in 0..90 {
            let (_, sample) = mp4.of(&media).await;
            assert!(sample.is_key || !follows_gap, "it goes on with a key frame");
            follows_gap = sample.duration != 3000;
            if follows_gap {
                gaps += 1;
                assert_eq!(sample.duration, 90_000, "no player waits for 20 s");
            }
        }
        assert_eq!(gaps, 1);
        assert_eq!(bed.rtsp().players(), 1);
    });
}

#[test]
fn mp4_and_players_share_the_cameras_slots() {
    lan::run(async {
        let camera = Rtsp::new().code(CODE);
        let bed = Bed::x1c(&camera).await;
        let rtsp = bed.rtsp();
        let browsers = BOARD.clients.rtsp.min(BOARD.clients.http - 1);
        let mut streams = Vec::new();
        for _ in 0..browsers {
            streams.push(bed.mp4().await);
        }
        // Players, as the service has them.
        let players: Vec<_> =
            (browsers..BOARD.clients.rtsp).map(|_| rtsp.watch().unwrap()).collect();
        assert_eq!(rtsp.players(), BOARD.clients.rtsp);
        let answer = bed.get("/stream.mp4").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("all places at the camera are taken"), "{}", answer.text());
        for stream in &mut streams {
            assert!(stream.sample().await.is_some(), "others are unharmed");
        }
        drop((streams, players));
        pass(secs(20)).await;
        assert_eq!((rtsp.connections(), rtsp.blocks(), camera.open()), (0, 0, 0));
    });
}
