//! The simulated camera before a viewer of a few lines, and its pictures before ffmpeg.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::process::{Command, Stdio};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::tls::{finished, missing, over_sockets};
use super::{CODE, PIPE, secs, simulated};
use printer::camera::{
    Ending, LOGIN, LOGIN_TIMEOUT, MAX_RAW, ORPHAN_TIMEOUT, Quirk, TRICKLE, header, login,
};
use printer::{
    Camera, KEPT, MAX_HELD, MAX_STREAMS, Model, OverLimit, WRITE_TIMEOUT, picture_number,
};

/// What a login looks like, written out by hand.
const WRITTEN_OUT: [u8; LOGIN] = *b"\
    \x40\0\0\0\x00\x30\0\0\0\0\0\0\0\0\0\0\
    bblp\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    12345678\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A viewer that knows as much as these tests need.
struct Viewer {
    stream: DuplexStream,
}

impl Viewer {
    /// Connected, nothing sent.
    fn new(camera: &Camera) -> Self {
        let (stream, far) = duplex(PIPE);
        let camera = camera.clone();
        spawn_local(async move { camera.serve(far).await });
        Self { stream }
    }

    /// Connected and logged in.
    async fn hopeful(camera: &Camera) -> Self {
        let mut viewer = Self::new(camera);
        viewer.stream.write_all(&WRITTEN_OUT).await.unwrap();
        viewer
    }

    /// The next picture, whatever it is; nothing when the camera has closed before its end.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_le_bytes(head[..4].try_into().unwrap());
        assert_eq!(head, header(length));
        let mut picture = vec![0; length as usize];
        self.stream.read_exact(&mut picture).await.ok()?;
        Some(picture)
    }

    /// The number of the next picture, which is the camera's own, byte for byte.
    async fn number(&mut self, camera: &Camera) -> u32 {
        let picture = self.frame().await.unwrap();
        let number = picture_number(&picture).unwrap();
        assert!(*picture == *camera.picture(number), "picture {number} is not the camera's");
        number
    }

    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read_u8()).await.is_err()
    }

    async fn is_closed_without_a_byte(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap() == 0
    }
}

#[test]
fn a_viewer_gets_a_header_and_a_picture_at_each_tick() {
    simulated(async || {
        assert_eq!(login(CODE), WRITTEN_OUT);
        assert_eq!(header(0x0201), *b"\x01\x02\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        let camera = Camera::new().every(secs(2));
        let mut viewer = Viewer::hopeful(&camera).await;
        for number in 0..20 {
            let picture = viewer.number(&camera).await;
            assert_eq!(picture, number);
            assert!(camera.until(secs(1), |camera| camera.frames() == u64::from(number) + 1).await);
        }
        assert_eq!((camera.open(), camera.watching(), camera.ever()), (1, 1, 1));
        let before = Instant::now();
        viewer.number(&camera).await;
        assert_eq!(before.elapsed(), secs(2));
        drop(viewer);
        assert!(camera.until(secs(1), |camera| camera.endings() == [Ending::Lost]).await);
        assert_eq!((camera.open(), camera.most_open(), camera.refused()), (0, 1, 0));
    });
}

#[test]
fn the_rate_can_change_and_zero_is_unlimited() {
    simulated(async || {
        let camera = Camera::new().every(secs(100)).first_after(secs(7));
        let mut viewer = Viewer::hopeful(&camera).await;
        let before = Instant::now();
        assert!(viewer.is_silent_for(secs(6)).await);
        viewer.number(&camera).await;
        assert_eq!(before.elapsed(), secs(7));
        let before = Instant::now();
        let camera = camera.every(Duration::from_millis(500));
        viewer.number(&camera).await;
        viewer.number(&camera).await;
        assert_eq!(before.elapsed(), secs(1));
        let camera = camera.every(Duration::ZERO);
        for _ in 0..100 {
            viewer.number(&camera).await;
        }
        assert!(before.elapsed() <= secs(1));

        // Who is late gets the next at once, and none that it has missed.
        let camera = camera.every(secs(1));
        sleep(secs(20)).await; // one is in the pipe, begun
        let (late, before) = (viewer.number(&camera).await, Instant::now());
        assert_eq!(viewer.number(&camera).await, late + 1);
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(viewer.number(&camera).await, late + 2);
        assert_eq!(before.elapsed(), secs(1));
    });
}

#[test]
fn a_wrong_login_word_closes_without_a_byte() {
    simulated(async || {
        let camera = Camera::new();
        for at in 0..LOGIN {
            let mut wrong = WRITTEN_OUT;
            wrong[at] ^= 0x20;
            let mut viewer = Viewer::new(&camera);
            viewer.stream.write_all(&wrong).await.unwrap();
            assert!(viewer.is_closed_without_a_byte().await, "byte {at}");
        }
        assert_eq!(camera.wrong_logins(), LOGIN as u64);
        assert_eq!(camera.endings(), [Ending::WrongLogin; LOGIN]);

        let mut slow = Viewer::new(&camera);
        for &byte in &WRITTEN_OUT {
            sleep(Duration::from_millis(200)).await;
            slow.stream.write_u8(byte).await.unwrap();
        }
        slow.number(&camera).await;
        drop(slow);

        let mut short = Viewer::new(&camera);
        let before = Instant::now();
        short.stream.write_all(&WRITTEN_OUT[..LOGIN - 1]).await.unwrap();
        assert!(short.is_closed_without_a_byte().await);
        assert_eq!(before.elapsed(), LOGIN_TIMEOUT);
        assert_eq!(camera.endings().last(), Some(&Ending::Late));

        let other = Camera::new().code("87654321");
        assert!(Viewer::hopeful(&other).await.is_closed_without_a_byte().await);
    });
}

#[test]
fn what_a_viewer_says_after_its_login_is_passed_over() {
    simulated(async || {
        let camera = Camera::new();
        let mut viewer = Viewer::hopeful(&camera).await;
        viewer.number(&camera).await;
        viewer.stream.write_all(&vec![0x55; 64 * 1024]).await.unwrap();
        viewer.number(&camera).await;
    });
}

#[test]
fn a_third_viewer_waits_until_one_of_two_leaves() {
    simulated(async || {
        let camera = Camera::new().viewers(2);
        let mut first = Viewer::hopeful(&camera).await;
        let mut second = Viewer::hopeful(&camera).await;
        first.number(&camera).await;
        second.number(&camera).await;
        let mut third = Viewer::hopeful(&camera).await;
        assert!(third.is_silent_for(secs(15)).await);
        let abandoned = Viewer::hopeful(&camera).await;
        assert!(camera.until(secs(1), |camera| camera.in_line() == 2).await);
        drop(abandoned);
        let mut fifth = Viewer::hopeful(&camera).await;
        assert!(fifth.is_silent_for(secs(10)).await);
        // Waiting connections are not read, so the one that has disconnected is still there.
        assert_eq!((camera.open(), camera.in_line(), camera.watching()), (5, 3, 2));
        drop(first);
        third.number(&camera).await;
        assert_eq!((camera.open(), camera.in_line()), (4, 2));
        drop(second);
        fifth.number(&camera).await;
        // It was served before, login included, without a client to see a picture.
        assert_eq!(camera.endings(), [Ending::Lost; 3]);
        assert_eq!((camera.ever(), camera.most_open(), camera.refused()), (5, 5, 0));
        assert_eq!((camera.open(), camera.watching()), (2, 2));
    });
}

#[test]
fn a_place_more_seats_whoever_waits_and_nobody_waits_for_ever() {
    simulated(async || {
        let camera = Camera::new().viewers(0);
        let mut one = Viewer::hopeful(&camera).await;
        assert!(one.is_silent_for(MAX_HELD - secs(1)).await);
        let mut two = Viewer::hopeful(&camera).await;
        assert!(one.is_closed_without_a_byte().await);
        assert_eq!(camera.endings(), [Ending::Unserved]);
        let camera = camera.viewers(1);
        two.number(&camera).await;
    });
}

#[test]
fn a_viewer_too_many_is_closed_when_the_camera_is_of_that_kind() {
    simulated(async || {
        let camera = Camera::new().over_limit(OverLimit::Closes);
        let mut first = Viewer::hopeful(&camera).await;
        first.number(&camera).await;
        let mut second = Viewer::new(&camera);
        assert!(second.is_closed_without_a_byte().await);
        assert_eq!((camera.open(), camera.ever(), camera.refused()), (1, 1, 1));
    });
}

#[test]
fn the_queue_and_the_list_of_endings_are_bounded() {
    simulated(async || {
        let camera = Camera::new().viewers(0);
        let held: Vec<_> = (0..MAX_STREAMS).map(|_| Viewer::new(&camera)).collect();
        assert!(camera.until(secs(1), |camera| camera.open() == MAX_STREAMS).await);
        assert!(Viewer::new(&camera).is_closed_without_a_byte().await);
        assert_eq!((camera.refused(), camera.most_open()), (1, MAX_STREAMS));
        camera.close();
        assert!(camera.until(secs(1), |camera| camera.open() == 0).await);
        drop(held);
        let camera = camera.viewers(1);
        for _ in 0..KEPT {
            let mut viewer = Viewer::new(&camera);
            viewer.stream.write_all(&[0; LOGIN]).await.unwrap();
            assert!(viewer.is_closed_without_a_byte().await);
        }
        assert_eq!(camera.endings(), [Ending::WrongLogin; KEPT]);
    });
}

#[test]
fn a_dead_camera_takes_logins_and_says_nothing_until_it_wakes() {
    simulated(async || {
        let camera = Camera::new().with(Quirk::Silence);
        let mut viewer = Viewer::hopeful(&camera).await;
        assert!(viewer.is_silent_for(secs(3600)).await);
        assert_eq!((camera.watching(), camera.frames()), (1, 0));
        camera.turn(Quirk::Silence, false);
        viewer.number(&camera).await;
        camera.turn(Quirk::Silence, true);
        assert!(viewer.is_silent_for(secs(3600)).await);
    });
}

#[test]
fn a_picture_can_be_cut_in_the_middle_once() {
    simulated(async || {
        let camera = Camera::new();
        let mut viewer = Viewer::hopeful(&camera).await;
        viewer.number(&camera).await;
        camera.cut();
        let mut rest = Vec::new();
        viewer.stream.read_to_end(&mut rest).await.unwrap();
        let whole = camera.picture(1);
        assert_eq!(rest[..16], header(u32::try_from(whole.len()).unwrap()));
        assert!(rest[16..] == whole[..whole.len() / 2]);
        assert_eq!((camera.endings(), camera.frames()), (vec![Ending::Cut], 1));
        assert_eq!(Viewer::hopeful(&camera).await.number(&camera).await, 2);
    });
}

#[test]
fn garbage_and_damaged_pictures_come_under_right_headers() {
    simulated(async || {
        let camera = Camera::new().with(Quirk::Garbage);
        let mut viewer = Viewer::hopeful(&camera).await;
        let garbage = viewer.frame().await.unwrap();
        assert_eq!(garbage.len(), camera.picture(0).len());
        assert!(!garbage.starts_with(b"\xff\xd8") && !garbage.ends_with(b"\xff\xd9"));
        camera.turn(Quirk::Garbage, false);
        camera.turn(Quirk::Damaged, true);
        let damaged = viewer.frame().await.unwrap();
        assert!(*damaged == camera.picture(1)[..damaged.len()] && !damaged.ends_with(b"\xff\xd9"));
        assert_eq!(damaged.len() + 2, camera.picture(1).len());
        camera.turn(Quirk::Damaged, false);
        assert_eq!(viewer.number(&camera).await, 2);
    });
}

#[test]
fn any_length_and_any_bytes_can_be_put_between_pictures() {
    simulated(async || {
        let camera = Camera::new().with(Quirk::Silence);
        let mut viewer = Viewer::hopeful(&camera).await;
        assert!(camera.until(secs(1), |camera| camera.watching() == 1).await);
        for length in [0, 17 << 20, u32::MAX] {
            assert_eq!(camera.lie(length, b"no picture"), 1);
            let mut got = [0; 26];
            viewer.stream.read_exact(&mut got).await.unwrap();
            assert_eq!(got[..16], header(length));
            assert_eq!(got[16..], *b"no picture");
        }
        assert_eq!(camera.raw(b"bare"), 1);
        let mut got = [0; 4];
        viewer.stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"bare");
        camera.turn(Quirk::Silence, false);
        viewer.number(&camera).await;
        assert_eq!(Camera::new().raw(b"without a viewer"), 0);
    });
}

#[test]
#[should_panic(expected = "pieces wait")]
fn no_more_pieces_wait_than_there_is_room_for() {
    simulated(async || {
        let camera = Camera::new().with(Quirk::Silence);
        let _viewer = Viewer::hopeful(&camera).await;
        assert!(camera.until(secs(1), |camera| camera.watching() == 1).await);
        for _ in 0..=MAX_RAW {
            camera.raw(b"?");
        }
    });
}

#[test]
fn a_picture_can_be_of_exactly_any_size_once() {
    simulated(async || {
        let camera = Camera::new();
        let mut viewer = Viewer::hopeful(&camera).await;
        viewer.number(&camera).await;
        let bare = camera.picture(1).len();
        for (number, bytes) in (1..)
            .zip([4, 65_537, 65_538, 65_541, 1 << 20].map(|more| bare + (120_000 - bare) + more))
        {
            camera.oversized(bytes);
            let picture = viewer.frame().await.unwrap();
            assert_eq!((picture.len(), picture_number(&picture)), (bytes, Some(number)));
            assert!(picture.ends_with(b"\xff\xd9"));
        }
        assert_eq!(viewer.number(&camera).await, 6);
    });
}

#[test]
fn a_slow_camera_trickles() {
    simulated(async || {
        let camera = Camera::new().every(Duration::ZERO).with(Quirk::Slow);
        let mut viewer = Viewer::hopeful(&camera).await;
        let before = Instant::now();
        viewer.number(&camera).await;
        let pieces = 1 + camera.picture(0).len().div_ceil(TRICKLE.0);
        assert_eq!(before.elapsed(), TRICKLE.1 * u32::try_from(pieces).unwrap());
        camera.turn(Quirk::Slow, false);
        let before = Instant::now();
        viewer.number(&camera).await;
        assert!(before.elapsed() <= TRICKLE.1);
    });
}

#[test]
fn an_orphan_keeps_its_place_until_it_is_noticed() {
    simulated(async || {
        let camera = Camera::new().with(Quirk::Orphans);
        let mut orphan = Viewer::hopeful(&camera).await;
        orphan.number(&camera).await;
        let before = Instant::now();
        drop(orphan);
        let mut next = Viewer::hopeful(&camera).await;
        assert!(next.is_silent_for(MAX_HELD - secs(1)).await);
        assert_eq!((camera.open(), camera.endings()), (2, vec![]));
        assert!(next.is_closed_without_a_byte().await);
        assert!(camera.until(ORPHAN_TIMEOUT, |camera| camera.endings().len() == 2).await);
        assert_eq!(camera.endings(), [Ending::Unserved, Ending::Orphaned]);
        // It is noticed this long after the first picture that was not taken, two seconds after the last.
        assert_eq!(before.elapsed(), ORPHAN_TIMEOUT + secs(2));
        Viewer::hopeful(&camera).await.number(&camera).await;

        let camera = Camera::new().with(Quirk::Orphans);
        drop(Viewer::hopeful(&camera).await);
        let mut next = Viewer::hopeful(&camera).await;
        assert!(next.is_silent_for(secs(300)).await);
        camera.turn(Quirk::Orphans, false);
        next.number(&camera).await;
    });
}

#[test]
fn a_viewer_that_takes_nothing_is_closed_and_an_orphan_later() {
    simulated(async || {
        for (camera, after) in [
            (Camera::new(), WRITE_TIMEOUT),
            (Camera::new().with(Quirk::Orphans), ORPHAN_TIMEOUT * 2), // given up, and then noticed
        ] {
            let before = Instant::now();
            let _stalled = Viewer::hopeful(&camera).await;
            assert!(camera.until(after * 2, |camera| camera.endings().len() == 1).await);
            assert_eq!(before.elapsed(), after);
        }
    });
}

#[test]
fn a_reboot_drops_all_connections_and_takes_its_time() {
    simulated(async || {
        let camera = Camera::new();
        let mut watching = Viewer::hopeful(&camera).await;
        watching.number(&camera).await;
        let mut in_line = Viewer::hopeful(&camera).await;
        assert!(camera.until(secs(1), |camera| camera.in_line() == 1).await);
        camera.reboot(secs(60));
        assert!(watching.is_closed_without_a_byte().await);
        assert!(in_line.is_closed_without_a_byte().await);
        assert_eq!(camera.endings(), [Ending::Rebooted; 2]);
        sleep(secs(59)).await;
        assert!(Viewer::new(&camera).is_closed_without_a_byte().await);
        sleep(secs(1)).await;
        Viewer::hopeful(&camera).await.number(&camera).await;
        assert_eq!((camera.refused(), camera.ever()), (1, 3));
    });
}

#[test]
fn pictures_are_distinct_numbered_and_of_the_given_size() {
    let camera = Camera::new();
    let mut seen = Vec::new();
    for number in (0..10).chain([u32::MAX - 1, u32::MAX]) {
        let picture = camera.picture(number);
        assert!((40_000..=120_000).contains(&picture.len()), "{} bytes", picture.len());
        assert!(picture.starts_with(b"\xff\xd8\xff\xe0") && picture.ends_with(b"\xff\xd9"));
        assert_eq!(picture_number(&picture), Some(number));
        assert!(picture == camera.picture(number));
        assert!(!seen.contains(&picture));
        seen.push(picture);
    }
    for bytes in [32 * 1024, 160 * 1024] {
        let camera = Camera::new().picture_bytes(bytes..=bytes);
        for number in 0..8 {
            assert!(camera.picture(number).len().abs_diff(bytes) < bytes / 50, "{number}");
        }
    }
    assert_eq!(picture_number(b"\xff\xd8\xff\xe0"), None);
}

#[test]
fn ffmpeg_decodes_every_picture_and_a_padded_one() {
    if missing(&["ffmpeg", "ffprobe"]) {
        return;
    }
    let (camera, padded) = (Camera::new(), padded());
    let pictures = (0..9).map(|number| camera.picture(number)).chain([padded]);
    for (number, picture) in pictures.enumerate() {
        let name = format!("simulated-camera-{}-{number}.jpg", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, &picture).unwrap();
        let mut probe = Command::new("ffprobe");
        probe.args(["-v", "error", "-of", "csv=p=0", "-show_entries"]);
        probe.arg("stream=codec_name,profile,width,height,pix_fmt").arg(&file);
        let probed = probe.stdin(Stdio::null()).output().unwrap();
        let mut decode = Command::new("ffmpeg");
        decode.args(["-v", "error", "-xerror", "-i"]).arg(&file).args(["-f", "null", "-"]);
        let decoded = decode.stdin(Stdio::null()).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        let said = String::from_utf8_lossy(&decoded.stderr);
        assert!(decoded.status.success() && said.is_empty(), "picture {number}: {said}");
        let probed = String::from_utf8_lossy(&probed.stdout);
        assert_eq!(probed.trim(), "mjpeg,Baseline,1280,720,yuvj420p", "picture {number}");
    }
}

/// One of 300 000 bytes, as a viewer gets it.
fn padded() -> Rc<[u8]> {
    let mut padded = None;
    simulated(async || {
        let camera = Camera::new();
        camera.oversized(300_000);
        padded = Viewer::hopeful(&camera).await.frame().await;
    });
    padded.unwrap().into()
}

/// A viewer that, as Home Assistant's does, reads up to 4096 bytes and takes what is exactly 16 of
/// them for a header. It ends with an error unless headers come alone and pictures end where records
/// do; it prints the version of TLS, the largest record, and the numbers of the pictures.
const PYTHON: &str = r#"
import socket, ssl, sys
port, code, count = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 60))
stream.sendall(b"\x40\0\0\0\0\x30\0\0" + bytes(8) + b"bblp".ljust(32, b"\0") + code.ljust(32, b"\0"))
largest, numbers = 0, []
for _ in range(count):
    header = stream.recv(16384)
    if not header:
        sys.exit("closed without a byte")
    assert len(header) == 16, len(header)
    assert header[4:] == b"\0\0\0\0\1\0\0\0\0\0\0\0", header
    length, picture = int.from_bytes(header[:4], "little"), b""
    while len(picture) < length:
        record = stream.recv(16384)
        assert record
        largest = max(largest, len(record))
        picture += record
    assert len(picture) == length and picture[:4] == b"\xff\xd8\xff\xe0" and picture[-2:] == b"\xff\xd9"
    numbers.append(int(picture[32:42]))
print(stream.version(), largest, *numbers)
"#;

fn python(port: u16, code: &str, pictures: u32) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON, &port.to_string(), code, &pictures.to_string()]);
    command
}

async fn listening(camera: &Camera, model: Model) -> SocketAddr {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (address, serving) = camera.listen_tls(anywhere, model).await.unwrap();
    spawn_local(serving);
    address
}

#[test]
fn tls_records_are_those_of_an_esp32() {
    if missing(&["python3"]) {
        return;
    }
    over_sockets(async || {
        for model in [Model::P1S, Model::A1Mini] {
            let camera = Camera::new().every(Duration::from_millis(1));
            let port = listening(&camera, model).await.port();
            let seen = spawn_blocking(move || finished(python(port, CODE, 6))).await.unwrap();
            let (said, wrong) = (String::from_utf8_lossy(&seen.stdout), &seen.stderr);
            assert_eq!(said.trim(), "TLSv1.2 4096 0 1 2 3 4 5", "{}", wrong.escape_ascii());

            let seen = spawn_blocking(move || finished(python(port, "00000000", 1))).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&seen.stderr).trim(), "closed without a byte");
            assert!(camera.until(secs(20), |camera| camera.wrong_logins() == 1).await);
        }
    });
}

#[test]
fn over_tls_one_too_many_hears_nothing_until_there_is_a_place() {
    if missing(&["python3"]) {
        return;
    }
    over_sockets(async || {
        let camera = Camera::new().every(Duration::from_millis(1));
        let address = listening(&camera, Model::P1S).await;
        let first = TcpStream::connect(address).await.unwrap();
        assert!(camera.until(secs(20), |camera| camera.open() == 1).await);
        let port = address.port();
        let second = spawn_blocking(move || finished(python(port, CODE, 2)));
        assert!(camera.until(secs(20), |camera| camera.in_line() == 1).await);
        assert_eq!((camera.open(), camera.watching(), second.is_finished()), (2, 0, false));
        drop(first);
        let seen = second.await.unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "TLSv1.2 4096 0 1");
        assert!(camera.until(secs(20), |camera| camera.endings().len() == 2).await);
        assert_eq!(camera.endings()[0], Ending::Handshake);
    });
}
