//! The chamber camera between simulated cameras and viewers, in virtual time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use pandaproxy::auth::{Guess, LoginError};
use pandaproxy::board::BOARD;
use pandaproxy::chamber::client::{Error, MAX_TALK};
use pandaproxy::chamber::hub::Counts;
use pandaproxy::chamber::slot::Dismissal;
use pandaproxy::chamber::upstream::SILENCE_TIMEOUT;
use pandaproxy::chamber::wire::LoginFault;
use pandaproxy::clock::Instant;
use pandaproxy::journal::Kind;
use pandaproxy::printer::camera::CameraKind;
use pandaproxy::printer::status::Login;
use pandaproxy::runtime::drive::End;
use pandaproxy::runtime::stream::StreamError;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;

use crate::lan::chamber::{At, Port, Studio};
use crate::lan::{self, CODE, Tally, journal_says, ms, pass, secs};
use printer::camera::{Camera, Ending, Quirk, login};
use printer::jpeg::picture_number;
use printer::rtsp::Rtsp;
use printer::tunnel::Tunnel;

const MOST: usize = BOARD.clients.chamber;

/// A camera that takes pictures often enough for a test.
fn camera() -> Camera {
    Camera::new().code(CODE).every(ms(500))
}

fn number(picture: &[u8]) -> u32 {
    picture_number(picture).expect("a picture of the simulated camera")
}

// ---- fan-out -----------------------------------------------------------------------------------

#[test]
fn all_viewers_get_every_picture_over_one_connection() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewers = Vec::new();
        for _ in 0..MOST {
            viewers.push(studio.viewer().await);
        }
        let mut last = None;
        for _ in 0..50 {
            for viewer in &mut viewers {
                let picture = viewer.picture().await.unwrap();
                let number = number(&picture);
                assert_eq!(picture[..], camera.picture(number)[..]);
                last = Some(number).max(last);
            }
        }
        let numbers = studio.service.counts();
        assert_eq!((numbers.lost, numbers.damaged), (0, 0));
        assert!(last > Some(45));
        assert_eq!((camera.most_open(), camera.open()), (1, 1));
    });
}

#[test]
fn pictures_arrive_in_order_and_once() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        let first = number(&viewer.picture().await.unwrap());
        for next in first + 1..first + 100 {
            assert_eq!(number(&viewer.picture().await.unwrap()), next);
        }
    });
}

/// Guards: bambuddy#2521: a late viewer sees nothing and comes back in a loop.
#[test]
fn a_late_viewer_gets_the_last_picture_if_it_is_fresh() {
    lan::run(async {
        let camera = camera().every(secs(60));
        let studio = Studio::before(&camera);
        let mut first = studio.viewer().await;
        let picture = first.picture().await.unwrap();
        pass(secs(9)).await;
        assert_eq!(studio.viewer().await.picture().await.unwrap(), picture);
        pass(secs(2)).await;
        let mut late = studio.viewer().await;
        assert!(late.sees_nothing(secs(15)).await);
    });
}

#[test]
fn a_slow_viewer_loses_pictures_and_others_do_not() {
    lan::run(async {
        let camera = camera().every(ms(100));
        let studio = Studio::before(&camera);
        let mut quick = studio.viewer().await;
        let mut slow = studio.viewer_over(4096).await;
        let reading = spawn_local(async move {
            let mut numbers = Vec::new();
            for _ in 0..20 {
                numbers.push(number(&slow.picture().await.unwrap()));
                pass(secs(1)).await;
            }
            numbers
        });
        let first = number(&quick.picture().await.unwrap());
        for next in first + 1..first + 150 {
            assert_eq!(number(&quick.picture().await.unwrap()), next, "no picture is lost");
        }
        let seen = reading.await.unwrap();
        assert!(seen.is_sorted() && seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
        assert!(
            seen.last().unwrap() - seen[0] > 100,
            "the viewer gets the newest pictures: {seen:?}"
        );
        assert!(studio.service.counts().lost > 0);
    });
}

/// Guards: bambuddy#2580: a worker that is stuck holds up all others.
#[test]
fn a_viewer_that_reads_nothing_or_a_byte_a_second_is_closed() {
    lan::run(async {
        let camera = camera().every(ms(100));
        let studio = Studio::before(&camera);
        let mut quick = studio.viewer().await;
        let stuck = Tally::of(Kind::Stuck);
        let still = studio.viewer_over(1024).await;
        let mut slow = studio.viewer_over(1024).await;
        let trickle = spawn_local(async move {
            let mut byte = [0];
            while tokio::io::AsyncReadExt::read(&mut slow.stream, &mut byte).await.unwrap() > 0 {
                pass(secs(1)).await;
            }
        });
        let first = number(&quick.picture().await.unwrap());
        for next in first + 1..first + 500 {
            assert_eq!(number(&quick.picture().await.unwrap()), next);
        }
        assert_eq!(stuck.now(), 2);
        let times = [secs(5), secs(30)];
        assert_eq!(
            *studio.ends.borrow(),
            times.map(|time| End::Stream(StreamError::Stalled(time)))
        );
        assert!(journal_says("write timed out after 5 s"));
        assert!(journal_says("write timed out after 30 s"));
        drop(still);
        trickle.abort();
    });
}

// ---- one connection, on demand -----------------------------------------------------------------

/// Guards: a viewer that has disconnected is counted until the next picture.
#[test]
fn the_camera_is_closed_after_the_last_viewer() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let viewer = studio.viewer().await;
        assert!(camera.until(secs(5), |camera| camera.watching() == 1).await);
        drop(viewer);
        pass(secs(4)).await;
        assert_eq!(camera.open(), 1, "the connection is kept for a while");
        assert!(camera.until(secs(5), |camera| camera.open() == 0).await);
        pass(secs(600)).await;
        assert_eq!(camera.open(), 0, "no client is connected");
        assert!(studio.viewer().await.picture().await.is_some());
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn a_viewer_that_leaves_before_a_picture_is_not_logged() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        pass(secs(5)).await;
        let slow = camera.clone().first_after(secs(20));
        drop(studio.viewer().await);
        pass(secs(15)).await;
        assert!(!journal_says("retrying in"));
        assert_eq!((slow.open(), slow.ever()), (0, 2), "the probe, and the abandoned connection");
        assert!(studio.viewer().await.picture().await.is_some());
    });
}

/// Guards: bambuddy#2521: a second connection to the camera before the first is closed.
#[test]
fn the_old_connection_is_closed_before_the_next_is_made() {
    lan::run(async {
        // Pitfall 30: a camera sends to an abandoned connection for twenty minutes.
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        viewer.picture().await.unwrap();
        for _ in 0..5 {
            camera.cut();
            for _ in 0..4 {
                viewer.picture().await.unwrap();
            }
        }
        assert_eq!((camera.most_open(), camera.in_line()), (1, 0));
    });
}

#[test]
fn viewers_stay_connected_while_the_printer_restarts() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewers = [studio.viewer().await, studio.viewer().await];
        for viewer in &mut viewers {
            viewer.picture().await.unwrap();
        }
        camera.reboot(secs(90));
        // Pictures in flight arrive, then no more; no client is disconnected.
        pass(secs(80)).await;
        assert_eq!(studio.service.viewers(), 2);
        let before = camera.frames();
        for viewer in &mut viewers {
            while u64::from(number(&viewer.picture().await.unwrap())) < before + 3 {}
        }
        assert!(studio.ends.borrow().is_empty());
        assert!(journal_says("camera: printer connection lost: closed by the camera"));
    });
}

#[test]
fn a_camera_in_use_by_another_program_is_retried() {
    lan::run(async {
        // A P1S answers a connection over its limit when another one ends (`src/protocol.md`, chamber-camera).
        let camera = camera();
        let (mut other, far) = tokio::io::duplex(lan::WIRE);
        let theirs = camera.clone();
        spawn_local(async move { theirs.serve(far).await });
        other.write_all(&login(CODE)).await.unwrap();
        let watching = spawn_local(async move {
            let _end = tokio::io::copy(&mut other, &mut tokio::io::sink()).await;
        });
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        pass(secs(300)).await;
        // The camera keeps abandoned attempts in its queue, so the proxy must dial rarely.
        assert!(camera.in_line() <= 8, "{} attempts in five minutes", camera.in_line());
        assert_eq!(camera.watching(), 1);
        assert!(journal_says("accepts the login and sends no picture"));
        assert_eq!(studio.service.counts().shown, 0);
        watching.abort();
        assert!(viewer.picture().await.is_some());
    });
}

#[test]
fn pictures_stay_whole_over_an_hour_of_reboots_and_cuts() {
    lan::run(async {
        let camera = camera().every(secs(2));
        let studio = Studio::before(&camera);
        let mut readers = Vec::new();
        for _ in 0..MOST {
            let mut viewer = studio.viewer().await;
            let camera = camera.clone();
            readers.push(spawn_local(async move {
                let mut numbers = Vec::new();
                let hour = tokio::time::Instant::now() + secs(3600);
                while tokio::time::Instant::now() < hour {
                    let picture = viewer.picture().await.expect("viewers stay");
                    let number = number(&picture);
                    assert_eq!(picture[..], camera.picture(number)[..]);
                    numbers.push(number);
                }
                numbers
            }));
        }
        // Each minute the camera fails in another way.
        for minute in 0..59u32 {
            pass(secs(60)).await;
            match minute % 6 {
                0 => camera.reboot(secs(20)),
                1 => camera.cut(),
                2 => camera.turn(Quirk::Silence, true),
                3 => camera.turn(Quirk::Silence, false),
                4 => camera.close(),
                _ => camera.oversized(BOARD.chamber.picture + 1),
            }
        }
        camera.turn(Quirk::Silence, false);
        for reader in readers {
            let numbers = reader.await.unwrap();
            assert!(numbers.windows(2).all(|two| two[0] < two[1]), "each picture once, in order");
            assert!(numbers.len() > 600, "{} pictures in an hour", numbers.len());
        }
        assert_eq!(camera.most_open(), 1);
        let Counts { too_long, .. } = studio.service.counts();
        assert!(too_long > 0);
    });
}

#[test]
fn shutdown_closes_viewers_and_then_the_camera() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        viewer.picture().await.unwrap();
        studio.stop().await;
        while viewer.picture().await.is_some() {}
        assert!(camera.until(secs(1), |camera| camera.open() == 0).await);
    });
}

// ---- bad input ---------------------------------------------------------------------------------

#[test]
fn wrong_logins_are_closed_and_viewers_go_on() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        let watching = spawn_local(async move {
            while viewer.picture().await.is_some() {}
            "was closed"
        });
        let wrong_words = {
            let mut bytes = login(CODE).to_vec();
            bytes[1] = 7;
            bytes
        };
        let wrong_user = {
            let mut bytes = login(CODE).to_vec();
            bytes[16..20].copy_from_slice(b"root");
            bytes
        };
        let mut talks = login(CODE).to_vec();
        talks.resize(80 + MAX_TALK + 1, b'x');
        let cases = [
            (
                login("87654321").to_vec(),
                Error::Login(LoginError::WrongCode(Guess::of(b"87654321"))),
            ),
            (wrong_words, Error::NoLogin(LoginFault::Words)),
            (wrong_user, Error::Login(LoginError::WrongUser)),
            (
                b"\x16\x03\x01 TLS in TLS, or anything else ".repeat(4),
                Error::NoLogin(LoginFault::Words),
            ),
            (printer::tunnel::login("12345678").repeat(3), Error::NoLogin(LoginFault::Tunnel)),
            (talks, Error::UnexpectedData),
            // Part of a login: nothing more follows.
            (login(CODE)[..79].to_vec(), Error::Silent),
            (Vec::new(), Error::Silent),
        ];
        for (bytes, error) in cases {
            let mut stream = studio.stream(8192);
            stream.write_all(&bytes).await.unwrap();
            let mut seen = Vec::new();
            let mut reading = tokio::io::AsyncReadExt::take(&mut stream, 1 << 20);
            // The connection ends, in order or by a reset.
            let _end = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut seen).await;
            pass(ms(1)).await;
            assert!(
                seen.is_empty() || error == Error::UnexpectedData,
                "{error}: {} bytes",
                seen.len()
            );
            let ended = studio.ends.borrow_mut().pop();
            assert_eq!(ended, Some(End::Session(error)));
            assert!(journal_says(&error.to_string()), "{error}");
        }
        let mut slow = studio.stream(8192);
        for byte in login(CODE) {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            pass(secs(1)).await;
        }
        pass(ms(1)).await;
        assert_eq!(studio.ends.borrow_mut().pop(), Some(End::Session(Error::Silent)));
        assert!(!watching.is_finished(), "other viewers are not affected");
        assert_eq!(studio.service.counts().lost, 0);
        assert_eq!((camera.most_open(), studio.service.viewers()), (1, 1));
    });
}

/// Issue 14, A8: OrcaSlicer's plug-in asks a P1S for a thumbnail this way, once a minute while it fails.
#[test]
fn a_file_tunnel_login_is_refused_at_once() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let began = tokio::time::Instant::now();
        let mut stream = studio.stream(8192);
        stream.write_all(&printer::tunnel::login(CODE)).await.unwrap();
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
        assert_eq!((answer.len(), began.elapsed()), (0, ms(0)));
        pass(ms(1)).await;
        let end = studio.ends.borrow_mut().pop();
        assert_eq!(end, Some(End::Session(Error::NoLogin(LoginFault::Tunnel))));
    });
}

#[test]
fn one_viewer_too_many_is_closed_and_the_others_stay() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewers = Vec::new();
        for _ in 0..MOST {
            let mut viewer = studio.viewer().await;
            viewer.picture().await.unwrap();
            viewers.push(viewer);
        }
        assert!(studio.viewer().await.picture().await.is_none());
        pass(ms(1)).await;
        let full = End::Session(Error::Dismissed(Dismissal::Full));
        assert_eq!(studio.ends.borrow_mut().pop(), Some(full));
        for viewer in &mut viewers {
            viewer.picture().await.unwrap();
        }
        drop(viewers.pop());
        pass(secs(1)).await;
        assert!(studio.viewer().await.picture().await.is_some(), "the slot is free again");
    });
}

#[test]
fn bad_lengths_end_the_connection_and_it_is_made_anew() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        viewer.picture().await.unwrap();
        for len in [0, 17_000_000, u32::MAX] {
            assert_eq!(camera.lie(len, b""), 1);
            let next = camera.frames() + 2;
            while u64::from(number(&viewer.picture().await.unwrap())) < next {}
        }
        assert_eq!(studio.service.counts().damaged, 1, "the empty one");
        assert!(journal_says("a picture of 17000000 bytes is announced"));
        assert!(journal_says("a picture of 4294967295 bytes is announced"));
        assert_eq!((camera.most_open(), studio.service.viewers()), (1, 1));
    });
}

#[test]
fn what_is_not_a_jpeg_is_not_sent() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        viewer.picture().await.unwrap();
        for quirk in [Quirk::Garbage, Quirk::Damaged] {
            let before = studio.service.counts().damaged;
            camera.turn(quirk, true);
            pass(secs(3)).await;
            camera.turn(quirk, false);
            let from = camera.frames() as u32;
            assert!(studio.service.counts().damaged > before + 3);
            loop {
                let picture = viewer.picture().await.unwrap();
                let number = number(&picture);
                assert_eq!(picture[..], camera.picture(number)[..]);
                if number > from {
                    break;
                }
            }
        }
        assert_eq!(camera.ever(), 2, "the probe, and one conversation since");
    });
}

#[test]
fn a_picture_cut_in_its_middle_is_not_sent() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut viewer = studio.viewer().await;
        viewer.picture().await.unwrap();
        camera.cut();
        let mut numbers = Vec::new();
        for _ in 0..6 {
            let picture = viewer.picture().await.unwrap();
            numbers.push(number(&picture));
            assert_eq!(picture[..], camera.picture(*numbers.last().unwrap())[..]);
        }
        assert!(camera.endings().contains(&Ending::Cut));
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(studio.service.counts().damaged, 0, "bytes without a head are no picture");
    });
}

// ---- which camera ------------------------------------------------------------------------------

#[test]
fn a_chamber_camera_is_found_without_a_viewer() {
    lan::run(async {
        let (chamber, rtsp) = (Port::new(At::Camera(camera())), Port::new(At::Closed));
        let studio = Studio::at(&chamber, &rtsp);
        pass(secs(3600)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Chamber);
        assert_eq!((chamber.dialled(), rtsp.dialled()), (1, 0));
        assert!(journal_says("the printer has a chamber camera (port 6000)"));
    });
}

#[test]
fn a_printer_that_is_off_is_probed_until_it_is_on() {
    lan::run(async {
        let (chamber, rtsp) = (Port::new(At::Off), Port::new(At::Off));
        let studio = Studio::at(&chamber, &rtsp);
        let mut viewer = studio.viewer().await;
        pass(secs(600)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Unknown);
        assert!(journal_says("camera: the printer does not answer; retrying in"));
        chamber.now(At::Camera(camera()));
        rtsp.now(At::Closed);
        assert!(viewer.picture().await.is_some(), "the viewer was kept waiting, not disconnected");
        assert_eq!(studio.status.camera().kind(), CameraKind::Chamber);
    });
}

/// Guards: bambuddy#1868: the camera is looked for at the wrong port.
#[test]
fn rtsps_is_found_beside_a_file_tunnel() {
    lan::run(async {
        let tunnel = Tunnel::new();
        let server = Rtsp::new();
        let (chamber, rtsp) =
            (Port::new(At::Tunnel(tunnel.clone())), Port::new(At::Rtsp(server.clone())));
        let studio = Studio::at(&chamber, &rtsp);
        pass(secs(60)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Rtsp);
        assert!(journal_says("the printer has an RTSPS camera (port 322), no chamber camera"));
        pass(secs(3600)).await;
        assert_eq!((chamber.dialled(), rtsp.dialled()), (1, 1), "an X1C leaks what is opened");
        assert_eq!((tunnel.camera_logins(), tunnel.open(), server.open()), (1, 0, 0));
    });
}

#[test]
fn viewers_of_an_x1_are_closed_with_a_logged_reason() {
    lan::run(async {
        let (chamber, rtsp) = (Port::new(At::Off), Port::new(At::Rtsp(Rtsp::new())));
        let studio = Studio::at(&chamber, &rtsp);
        let mut viewer = studio.viewer().await;
        pass(secs(10)).await;
        chamber.now(At::Tunnel(Tunnel::new()));
        assert!(viewer.picture().await.is_none());
        pass(ms(1)).await;
        let elsewhere = End::Session(Error::Dismissed(Dismissal::Elsewhere));
        assert_eq!(studio.ends.borrow_mut().pop(), Some(elsewhere));
        let mut late = studio.viewer().await;
        assert!(late.picture().await.is_none(), "a later viewer is disconnected as well");
        assert!(journal_says("use its RTSPS camera on port 322"));
    });
}

#[test]
fn live_view_that_is_off_is_named_and_found_once_it_is_on() {
    lan::run(async {
        let server = Rtsp::new().live_view(false);
        let (chamber, rtsp) =
            (Port::new(At::Tunnel(Tunnel::new())), Port::new(At::Rtsp(server.clone())));
        let studio = Studio::at(&chamber, &rtsp);
        pass(secs(3600)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::RtspOff);
        assert!(journal_says("switch on LAN live view at the printer"));
        assert!(rtsp.dialled() <= 20, "{} times in an hour", rtsp.dialled());
        let server = server.live_view(true);
        studio.status.camera().look_again();
        pass(secs(10)).await;
        assert_eq!(
            studio.status.camera().kind(),
            CameraKind::Rtsp,
            "at once when the printer comes back"
        );
        assert_eq!(server.open(), 0);
    });
}

#[test]
fn no_port_a_wrong_code_and_a_dark_camera_are_distinguished() {
    lan::run(async {
        let cases = [
            (At::Closed, CameraKind::NoPort, "LAN mode is off"),
            (
                At::Camera(camera().code("87654321")),
                CameraKind::WrongCode,
                "the access code may be wrong",
            ),
            (
                At::Camera(camera().with(Quirk::Silence)),
                CameraKind::ChamberDark,
                "sends no picture",
            ),
        ];
        for (at, kind, words) in cases {
            let studio = Studio::at(&Port::new(at), &Port::new(At::Closed));
            pass(SILENCE_TIMEOUT * 2).await;
            assert_eq!(studio.status.camera().kind(), kind);
            assert!(journal_says(words), "{words}");
            studio.stop().await;
        }
    });
}

/// Issue 14, point 9. A camera that is starting closes after the login, as it does after a wrong code.
#[test]
fn a_camera_that_closes_is_busy_while_mqtt_is_logged_in() {
    lan::run(async {
        let chamber = Port::new(At::Camera(camera().code("87654321")));
        let studio = Studio::at(&chamber, &Port::new(At::Closed));
        studio.status.log_in(Login::Mqtt, Instant::START);
        // The first probes, without a viewer.
        pass(secs(300)).await;
        let mut viewer = studio.viewer().await;
        pass(secs(5)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::ChamberBusy);
        assert!(journal_says("closes after the login"));
        assert!(!journal_says("the access code may be wrong"));
        let started = tokio::time::Instant::now();
        chamber.now(At::Camera(camera()));
        assert!(viewer.picture().await.is_some());
        assert!(started.elapsed() < secs(15), "{:?}", started.elapsed());
    });
}

#[test]
fn another_camera_is_found_after_the_printer_is_replaced() {
    lan::run(async {
        let (chamber, rtsp) = (Port::new(At::Camera(camera())), Port::new(At::Closed));
        let studio = Studio::at(&chamber, &rtsp);
        pass(secs(60)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Chamber);
        chamber.now(At::Tunnel(Tunnel::new()));
        rtsp.now(At::Rtsp(Rtsp::new()));
        studio.status.camera().look_again();
        pass(secs(60)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Rtsp);
        chamber.now(At::Camera(camera()));
        studio.status.camera().look_again();
        pass(secs(60)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Chamber);
        assert!(studio.viewer().await.picture().await.is_some());
    });
}
