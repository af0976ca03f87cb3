//! The proxy's connection to the camera, and players while the camera is unreachable, busy, switched off
//! or of another kind.

use core::cell::Cell;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::printer::camera::CameraKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::clients::rtsp::framed;
use crate::lan::chamber::{At, Script};
use crate::lan::rtsp::{Player, Studio, URL, camera, number, showing};
use crate::lan::{self, CODE, Tally, journal_says, ms, pass, secs};
use printer::camera::Camera;
use printer::rtsp::{Media, OverLimit, Quirk, Rtsp};
use printer::tunnel::Tunnel;

fn tunnel() -> At {
    At::Tunnel(Tunnel::new())
}

// ---- one connection, on demand -----------------------------------------------------------------

#[test]
fn without_a_player_the_camera_is_only_probed_once() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        pass(secs(3600)).await;
        assert_eq!((camera.ever(), camera.setups()), (1, 0), "the probe");
        assert_eq!(studio.status.camera().kind(), CameraKind::Rtsp);
    });
}

#[test]
fn the_session_is_torn_down_10_s_after_the_last_player() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        player.number(&camera).await;
        drop(player);
        pass(secs(9)).await;
        assert_eq!(camera.playing(), 1, "the session is kept for a while");
        let mut player = studio.player().await;
        player.number(&camera).await;
        assert_eq!(camera.setups(), 1, "a player that comes back uses the same session");
        pass(secs(60)).await;
        drop(player);
        pass(secs(13)).await;
        assert_eq!((camera.open(), camera.leaked()), (0, 0));
        assert_eq!(camera.asked().last().unwrap().method, "TEARDOWN");
        pass(secs(3600)).await;
        assert_eq!(camera.ever(), 2, "one probe, one session");
        studio.player().await.number(&camera).await;
        assert_eq!(camera.most_open(), 1);
    });
}

/// Guards: bambuddy#925: X1C's camera hangs after many connections.
#[test]
fn fifty_players_in_turn_share_one_camera_connection() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        for _ in 0..50 {
            let mut player = studio.player().await;
            player.number(&camera).await;
            drop(player);
            pass(secs(5)).await;
        }
        assert_eq!((camera.ever(), camera.setups()), (2, 1), "one probe, and one session for all");
        assert_eq!((camera.most_open(), camera.leaked()), (1, 0));
    });
}

#[test]
fn a_camera_may_close_or_be_silent_at_teardown() {
    for quirk in [Quirk::RudeTeardown, Quirk::Deaf] {
        lan::run(async {
            let camera = camera();
            let studio = Studio::before(&camera);
            let mut player = studio.player().await;
            player.number(&camera).await;
            drop(player);
            pass(secs(5)).await;
            camera.turn(quirk, true);
            pass(secs(20)).await;
            assert!(!studio.service.demand().is_wanted());
            assert!(
                !journal_says("retrying in"),
                "{quirk:?}: an orderly end is not logged as a loss"
            );
            camera.turn(quirk, false);
            studio.player().await.number(&camera).await;
            assert_eq!(camera.most_open(), 1, "{quirk:?}");
        });
    }
}

#[test]
fn an_x2d_never_gets_a_second_connection_by_the_probe() {
    lan::run(async {
        let camera = camera().sessions(1).over_limit(OverLimit::Closes);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut last = player.number(&camera).await;
        for round in 0..40_u64 {
            // A player comes back during the TEARDOWN, or just when the connection breaks.
            studio.status.camera().look_again();
            pass(ms(round * 37 % 500)).await;
            if round % 4 == 3 {
                camera.cut();
                pass(ms(50)).await;
                studio.status.camera().look_again();
            }
            while player.number(&camera).await <= last + 5 {}
            last = player.number(&camera).await;
        }
        assert_eq!((camera.most_open(), camera.refused()), (1, 0));
        assert!(studio.ends.borrow().is_empty());
        assert_eq!(studio.status.camera().kind(), CameraKind::Rtsp);
    });
}

#[test]
fn no_session_begins_while_the_camera_is_probed() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        player.number(&camera).await;
        // The session breaks; a player that connects before the next attempt gets no answer.
        camera.turn(Quirk::Deaf, true);
        camera.close();
        pass(ms(200)).await;
        studio.status.camera().look_again();
        pass(secs(8)).await;
        assert_eq!((camera.open(), camera.most_open()), (1, 1), "the probe only");
        camera.turn(Quirk::Deaf, false);
        for _ in 0..50 {
            player.number(&camera).await;
        }
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn an_x1c_gets_receiver_reports_and_one_session_an_hour() {
    lan::run(async {
        let camera = camera().rate(2).with(Quirk::NeedsReports);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let first = player.number(&camera).await;
        for step in 1..7200 {
            assert_eq!(player.number(&camera).await, first + step);
        }
        assert_eq!((camera.ever(), camera.setups(), camera.strays()), (2, 1, 0));
        assert!(camera.reports() >= 1700, "{} reports", camera.reports());
        let reported = camera.reported();
        let last = reported.last().unwrap();
        assert_eq!(last.lost, 0);
        assert!(last.highest > reported[0].highest);
        let kept = camera.asked().into_iter().filter(|asked| asked.method == "GET_PARAMETER");
        assert!(kept.clone().count() > 20 && kept.into_iter().all(|asked| asked.status == 200));
    });
}

#[test]
fn an_x1c_out_of_connections_is_retried_ever_more_slowly() {
    lan::run(async {
        let camera = camera().slots(2);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        player.number(&camera).await;
        camera.cut();
        let mut tried = Vec::new();
        for _ in 0..6 {
            let before = studio.port.dialled();
            for _ in 0..2 {
                assert!(player.sees_nothing(secs(300)).await, "nothing but sender reports");
            }
            tried.push(studio.port.dialled() - before);
        }
        // Each attempt takes ten seconds to fail; the next follows a minute later.
        assert!(tried.iter().skip(1).all(|tried| *tried <= 12), "{tried:?}");
        assert_eq!(studio.service.players(), 1, "players stay");
        // A restart of the printer frees its leaked sessions.
        camera.reboot(secs(1));
        let _camera = camera.clone().slots(u64::MAX);
        player.number(&camera).await;
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn players_that_come_and_go_do_not_speed_up_retries() {
    for (camera, most) in [(camera().slots(1), 75), (camera().code("87654321"), 20)] {
        lan::run(async {
            let studio = Studio::before(&camera);
            pass(secs(5)).await;
            let before = studio.port.dialled();
            let until = Instant::now() + secs(3600);
            while Instant::now() < until {
                // The player gets 503, disconnects, and returns when the demand for the camera has ended.
                assert_eq!(studio.client().describe(URL).await.status, 503);
                pass(secs(12)).await;
            }
            let dialled = studio.port.dialled() - before;
            assert!(dialled <= most, "{dialled} in an hour, not {most}");
        });
    }
}

#[test]
fn a_camera_without_packets_is_retried_ever_more_slowly() {
    lan::run(async {
        let camera = camera().with(Quirk::Silence);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut tried = Vec::new();
        for _ in 0..3 {
            let before = camera.setups();
            for _ in 0..4 {
                assert!(player.sees_nothing(secs(300)).await, "nothing but sender reports");
            }
            tried.push(camera.setups() - before);
        }
        // Each attempt takes half a minute; the next follows a minute later.
        assert!(tried[1] <= 15 && tried[2] <= 15, "{tried:?}");
        assert!(journal_says("the camera sends no packet for 30 s"));
        assert_eq!(camera.leaked(), 0, "each session ends with TEARDOWN");
        camera.turn(Quirk::Silence, false);
        player.number(&camera).await;
    });
}

#[test]
fn the_cameras_requests_are_answered() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let first = player.number(&camera).await;
        for (at, method) in
            ["OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "REDIRECT"].iter().enumerate()
        {
            assert_eq!(camera.ask(method, ""), 1);
            assert_eq!(player.number(&camera).await, first + 1 + at as u64);
        }
        // Two requests in one write get two answers.
        let two = b"OPTIONS * RTSP/1.0\r\nCSeq: 8\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n";
        camera.raw(two);
        player.number(&camera).await;
        pass(secs(1)).await;
        assert_eq!(camera.answers(), [200, 200, 200, 501, 200, 200]);
        assert_eq!(camera.goodbye(), 1);
        for _ in 0..50 {
            player.number(&camera).await;
        }
        assert_eq!((camera.setups(), camera.strays()), (1, 0));
    });
}

// ---- reconnecting ------------------------------------------------------------------------------

#[test]
fn players_stay_over_reboots_and_their_clock_goes_on() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        for _ in 1..BOARD.clients.rtsp {
            // `Player` checks that sequence numbers and SSRC continue, and that no picture is torn.
            let mut player = studio.player().await;
            drop(spawn_local(async move { while player.next().await.is_some() {} }));
        }
        let mut player = studio.player().await;
        for round in 0..8 {
            for _ in 0..33 {
                player.picture().await;
            }
            let (seen, last) = (Instant::now(), player.picture().await);
            let setups = camera.setups();
            match round % 4 {
                0 => camera.reboot(secs(20)),
                1 => camera.cut(),
                2 => camera.close(),
                _ => camera.turn(Quirk::Deaf, true),
            }
            if round % 4 == 3 {
                let deaf = camera.clone();
                drop(spawn_local(async move {
                    pass(secs(35)).await;
                    deaf.turn(Quirk::Deaf, false);
                }));
            }
            let mut picture = player.picture().await;
            for _ in 0..1000 {
                if camera.setups() > setups {
                    break;
                }
                picture = player.picture().await;
            }
            assert_eq!(camera.setups(), setups + 1);
            assert!(picture.is_key());
            let passed = u32::try_from(seen.elapsed().as_millis() * 90).unwrap();
            let ticks = picture.timestamp.wrapping_sub(last.timestamp);
            assert!(ticks.abs_diff(passed) <= 2 * 3600, "{round}: {ticks} ticks for {passed}");
        }
        assert!(studio.ends.borrow().is_empty(), "no player was disconnected");
        assert_eq!((studio.service.players(), camera.most_open()), (BOARD.clients.rtsp, 1));
    });
}

#[test]
fn a_camera_lost_within_a_picture_leaves_no_part_of_it() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        for round in 0..12 {
            // The camera fails within a key frame, after its parameter sets, or within another picture.
            let mut last = player.number(&camera).await;
            while last % 10 != if round % 2 == 0 { 9 } else { 4 } {
                last = player.number(&camera).await;
            }
            camera.cut();
            loop {
                let picture = player.picture().await;
                let next = number(&camera, &picture);
                if next != last + 1 || picture.is_key() {
                    assert!(picture.is_key(), "{next} after {last}");
                    break;
                }
                last = next;
            }
        }
        assert_eq!((camera.most_open(), camera.setups()), (1, 13));
    });
}

#[test]
fn a_camera_lost_within_a_picture_returns_with_a_key_frame() {
    lan::run(async {
        // In both cases the parameter sets were sent, and nothing follows them.
        let camera = showing(Media::made(25, 1, 20_000, 3000));
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        for round in 1..5 {
            player.number(&camera).await;
            camera.cut();
            for _ in 0..50 {
                player.number(&camera).await;
            }
            assert_eq!(camera.setups(), 1 + round);
        }
    });
}

#[test]
fn a_printer_switched_on_is_found_while_a_player_waits() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::at(At::Off, At::Off);
        pass(secs(3600)).await;
        let mut early = studio.client();
        let refused = early.describe(URL).await;
        assert_eq!(
            (refused.status, &*refused.reason),
            (503, "Service Unavailable: The Printer's Camera Does Not Answer")
        );
        studio.chamber.now(tunnel());
        studio.port.now(At::Rtsp(camera.clone()));
        let came = Instant::now();
        let mut player = loop {
            let mut client = studio.client();
            if client.describe(URL).await.status == 200 {
                client.setup("0-1").await;
                client.request("PLAY", URL, "").await;
                break Player::of(client);
            }
        };
        player.number(&camera).await;
        assert!(came.elapsed() <= secs(75), "after {:?}", came.elapsed());
    });
}

#[test]
fn a_p2s_with_stuck_timestamps_gets_running_ones() {
    lan::run(async {
        let camera = camera().with(Quirk::StuckTimestamps);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut last = player.picture().await;
        for at in 0..200 {
            let picture = player.picture().await;
            assert_eq!(number(&camera, &picture), number(&camera, &last) + 1);
            let step = picture.timestamp.wrapping_sub(last.timestamp);
            // The first jumps are taken for true.
            assert!(step == 3600 || at < 8, "{step} ticks at {at}");
            last = picture;
        }
        player.report = None;
        for _ in 0..300 {
            player.picture().await;
        }
        assert!(player.report.is_none(), "no sender report gives the time of a stuck clock");
    });
}

#[test]
fn a_first_key_frame_after_25_s_is_waited_for() {
    lan::run(async {
        let camera = camera().key_after(secs(25));
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let began = Instant::now();
        assert!(player.picture().await.is_key());
        assert!(began.elapsed() >= secs(25) && began.elapsed() <= secs(26));
        assert_eq!(camera.setups(), 1);
        let camera = camera.key_after(secs(0)).first_after(secs(25));
        camera.cut();
        let setups = camera.setups();
        while camera.setups() == setups {
            player.picture().await;
        }
        player.picture().await;
        assert_eq!(
            camera.setups(),
            setups + 1,
            "the session is not closed before its first packet"
        );
    });
}

#[test]
fn a_camera_that_sends_no_rtsp_is_connected_to_anew() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut last = player.number(&camera).await;
        let junk: [&[u8]; 4] = [
            b"\x16\x03\x01\x02\x00",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n",
            &[b'A'; 4000],
        ];
        for junk in junk {
            let setups = camera.setups();
            camera.raw(junk);
            while camera.setups() == setups {
                last = last.max(player.number(&camera).await);
            }
            while player.number(&camera).await <= last + 3 {}
        }
        assert!(journal_says("invalid response: not RTSP"));
        assert!(journal_says("invalid response: message head too long"));
        assert!(journal_says("invalid response: message body too long"));
        assert_eq!(camera.most_open(), 1);
        assert!(studio.ends.borrow().is_empty());
    });
}

#[test]
fn answers_with_long_heads_are_parsed_up_to_the_bound() {
    lan::run(async {
        let camera = camera().header_bytes(2800);
        let studio = Studio::before(&camera);
        studio.player().await.number(&camera).await;
    });
}

// ---- cameras that are off, on another port, or refuse ------------------------------------------

#[test]
fn live_view_off_is_named_and_works_once_it_is_on() {
    for off in [|rtsp: Rtsp| rtsp.live_view(false), |rtsp: Rtsp| rtsp.off_after_options()] {
        lan::run(async {
            let camera = off(camera());
            let studio = Studio::before(&camera);
            let mut client = studio.client();
            let refused = client.describe(URL).await;
            assert_eq!(refused.status, 503);
            let off = studio.status.camera().kind() == CameraKind::RtspOff;
            let reason = if off {
                "Service Unavailable: Turn On LAN Live View On The Printer"
            } else {
                // The camera answers the probe, then closes.
                "Service Unavailable: The Printer's Camera Does Not Answer"
            };
            assert_eq!(refused.reason, reason);
            assert!(journal_says("live view"), "the log names the cause");
            let _on = camera.clone().live_view(true);
            let came = Instant::now();
            while client.describe(URL).await.status != 200 {}
            assert!(came.elapsed() <= secs(75), "after {:?}", came.elapsed());
            client.setup("0-1").await;
            client.request("PLAY", URL, "").await;
            Player::of(client).number(&camera).await;
            assert_eq!(camera.most_open(), 1);
        });
    }
}

#[test]
fn live_view_off_is_probed_ever_more_slowly() {
    lan::run(async {
        let camera = camera().live_view(false);
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        let mut looked = Vec::new();
        for _ in 0..4 {
            let before = studio.port.dialled();
            let until = Instant::now() + secs(600);
            while Instant::now() < until {
                assert_eq!(client.describe(URL).await.status, 503);
            }
            looked.push(studio.port.dialled() - before);
        }
        assert!(looked.iter().skip(1).all(|looked| (1..=15).contains(looked)), "{looked:?}");
    });
}

#[test]
fn live_view_in_reports_takes_effect_at_once() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        pass(secs(5)).await;
        studio.status.set_live_view_off(true);
        let mut client = studio.client();
        let refused = client.describe(URL).await;
        assert_eq!(
            (refused.status, &*refused.reason),
            (503, "Service Unavailable: Turn On LAN Live View On The Printer")
        );
        assert_eq!(camera.setups(), 0);
        studio.status.set_live_view_off(false);
        assert_eq!(client.describe(URL).await.status, 200);
        // A player is served for as long as the camera streams.
        client.setup("0-1").await;
        client.request("PLAY", URL, "").await;
        let mut player = Player::of(client);
        player.number(&camera).await;
        studio.status.set_live_view_off(true);
        for _ in 0..100 {
            player.number(&camera).await;
        }
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn players_of_a_chamber_camera_get_404_at_once() {
    lan::run(async {
        let camera = Camera::new().code(CODE).every(ms(500));
        let studio = Studio::at(At::Camera(camera.clone()), At::Closed);
        pass(secs(5)).await;
        let mut client = studio.client();
        let asked = Instant::now();
        let refused = client.describe(URL).await;
        assert_eq!(
            (refused.status, &*refused.reason),
            (404, "Not Found: This Printer Has A Chamber Camera On Port 6000")
        );
        assert!(asked.elapsed() <= ms(100));
        assert_eq!(studio.port.dialled(), 0);
    });
}

#[test]
fn a_printer_that_refuses_the_code_is_retried_slowly() {
    lan::run(async {
        let camera = camera().code("87654321");
        let studio = Studio::before(&camera);
        let refused_by = Tally::of(Kind::PrinterRefused);
        let mut client = studio.client();
        let refused = client.describe(URL).await;
        assert_eq!(
            (refused.status, &*refused.reason),
            (503, "Service Unavailable: The Printer Refuses The Proxy's Access Code")
        );
        assert_eq!((refused_by.now(), camera.wrong_digests()), (1, 1));
        let until = Instant::now() + secs(3600);
        while Instant::now() < until {
            assert_eq!(client.describe(URL).await.status, 503);
        }
        assert!(camera.wrong_digests() <= 20, "{} in an hour", camera.wrong_digests());
        assert_eq!(refused_by.now(), 1, "the refusal is logged once");
        let _right = camera.clone().code(CODE);
        while client.describe(URL).await.status != 200 {}
    });
}

#[test]
fn a_camera_at_322_is_found_beside_a_silent_port_6000() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::at(At::Off, At::Rtsp(camera.clone()));
        pass(secs(60)).await;
        assert_eq!(studio.status.camera().kind(), CameraKind::Rtsp);
        let dialled = (studio.chamber.dialled(), studio.port.dialled());
        assert_eq!(dialled, (1, 1), "an X1C leaks what is opened");
        studio.player().await.number(&camera).await;
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn a_camera_that_calls_every_nonce_stale_refuses_the_code() {
    lan::run(async {
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let script = scripted(move |method, cseq| {
            if method == "OPTIONS" {
                return Some(granted(cseq, ""));
            }
            count.set(count.get() + 1);
            let nonce = count.get();
            let said = format!(
                "RTSP/1.0 401 No\r\nCSeq: {cseq}\r\nWWW-Authenticate: Digest realm=\"x\", \
                 nonce=\"{nonce}\", stale=true\r\n\r\n"
            );
            (nonce < 200).then(|| said.into_bytes())
        });
        let studio = Studio::at(At::Closed, At::Script(script));
        let refused = studio.client().describe(URL).await;
        assert_eq!(
            (refused.status, &*refused.reason),
            (503, "Service Unavailable: The Printer Refuses The Proxy's Access Code")
        );
        assert_eq!(asked.get(), 3, "without credentials, with them, and once more");
        assert!(journal_says("the printer refuses the access code"));
    });
}

#[test]
fn a_camera_in_use_by_another_player_is_waited_for() {
    lan::run(async {
        let camera = camera().sessions(1).over_limit(OverLimit::Hangs);
        let (other, far) = tokio::io::duplex(lan::WIRE);
        let theirs = camera.clone();
        spawn_local(async move { theirs.serve(far).await });
        pass(ms(10)).await;
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        assert_eq!(client.describe(URL).await.status, 503);
        pass(secs(1)).await;
        drop(other);
        while client.describe(URL).await.status != 200 {}
    });
}

// ---- cameras that behave unlike the printers' --------------------------------------------------

/// A camera that answers each request with what `answer` makes of its method and number.
fn scripted(answer: impl Fn(&str, &str) -> Option<Vec<u8>> + Clone + 'static) -> Script {
    Rc::new(move |mut far| {
        let answer = answer.clone();
        drop(spawn_local(async move {
            let (mut inbox, mut piece) = (Vec::new(), [0; 2048]);
            while let Ok(len @ 1..) = far.read(&mut piece).await {
                inbox.extend_from_slice(&piece[..len]);
                let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8_lossy(&inbox.drain(..end + 4).collect::<Vec<u8>>())
                    .into_owned();
                let method = head.split(' ').next().unwrap_or_default();
                let cseq = head.lines().find_map(|line| line.strip_prefix("CSeq: "));
                let Some(said) = answer(method, cseq.unwrap_or_default()) else { continue };
                if far.write_all(&said).await.is_err() {
                    return;
                }
            }
        }));
    })
}

fn described(cseq: &str, sdp: &str) -> Vec<u8> {
    format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()).into()
}

fn granted(cseq: &str, fields: &str) -> Vec<u8> {
    format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{fields}\r\n").into()
}

const VIDEO: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t1\r\n";

#[test]
fn unusable_descriptions_and_answers_are_named_and_get_503() {
    let long = format!("{VIDEO}a=x:{}\r\n", "x".repeat(3000));
    let table: [(&str, String, &str); 5] = [
        ("no media", "v=0\r\ns=x\r\n".into(), "unusable stream description: it has no media"),
        ("empty", String::new(), "unusable stream description: it has no media"),
        ("too long", long, "unusable stream description: it is too long"),
        ("no answer fits", format!("{VIDEO}a=odd\r\n"), "unexpected RTSP response"),
        ("refuses", format!("{VIDEO}a=refuses\r\n"), "the camera refuses with status 453"),
    ];
    for (what, sdp, said) in table {
        lan::run(async move {
            let refuses = sdp.contains("a=refuses");
            let setups = Rc::new(Cell::new(0));
            let count = Rc::clone(&setups);
            let script = scripted(move |method, cseq| {
                count.set(count.get() + u32::from(method == "SETUP"));
                match method {
                    "DESCRIBE" => Some(described(cseq, &sdp)),
                    "SETUP" if refuses => {
                        Some(format!("RTSP/1.0 453 No\r\nCSeq: {cseq}\r\n\r\n").into_bytes())
                    }
                    "SETUP" => Some(granted(cseq, "Session: 1\r\nTransport: RTP/AVP;unicast\r\n")),
                    _ => Some(granted(cseq, "")),
                }
            });
            let studio = Studio::at(At::Closed, At::Script(script));
            let mut client = studio.client();
            let answer = client.describe(URL).await;
            assert!(answer.status == 503 || what == "refuses" || what == "no answer fits");
            pass(secs(5)).await;
            assert!(journal_says(said), "{what}");
            let dialled = studio.port.dialled();
            assert!(dialled <= 7, "{what}: {dialled} in 20 s");
            // One probe, then at most one SETUP for each connection.
            assert!(setups.get() < dialled, "{what}: {} of {dialled}", setups.get());
            assert!(setups.get() == 0 || what == "refuses" || what == "no answer fits", "{what}");
        });
    }
}

#[test]
fn a_camera_that_sends_only_sender_reports_is_silent() {
    lan::run(async {
        let report = [&[0x80, 200, 0, 6][..], &[0; 24]].concat();
        let plays = Rc::new(Cell::new(0));
        let count = Rc::clone(&plays);
        let script: Script = Rc::new(move |far| {
            let (count, report) = (Rc::clone(&count), report.clone());
            drop(spawn_local(async move {
                let (mut from, mut to) = tokio::io::split(far);
                let (mut inbox, mut piece) = (Vec::new(), [0; 2048]);
                let mut is_playing = false;
                loop {
                    tokio::select! {
                        read = from.read(&mut piece) => match read {
                            Ok(len @ 1..) => inbox.extend_from_slice(&piece[..len]),
                            _ => return,
                        },
                        () = pass(secs(5)), if is_playing => {
                            if to.write_all(&framed(1, &report)).await.is_err() { return }
                        }
                    }
                    let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let head =
                        String::from_utf8_lossy(&inbox.drain(..end + 4).collect::<Vec<u8>>())
                            .into_owned();
                    let cseq = head.lines().find_map(|line| line.strip_prefix("CSeq: "));
                    let cseq = cseq.unwrap_or_default();
                    let said = if head.contains("DESCRIBE ") {
                        described(cseq, VIDEO)
                    } else {
                        let transport = "Transport: RTP/AVP/TCP;interleaved=0-1\r\n";
                        granted(cseq, &format!("Session: 1\r\n{transport}"))
                    };
                    if head.contains("PLAY ") {
                        is_playing = true;
                        count.set(count.get() + 1);
                    }
                    if to.write_all(&said).await.is_err() {
                        return;
                    }
                }
            }));
        });
        let studio = Studio::at(At::Closed, At::Script(script));
        let _player = studio.player().await;
        pass(secs(40)).await;
        assert_eq!(plays.get(), 2, "a new session is started");
        assert!(journal_says("the camera sends no packet for 30 s"));
    });
}

#[test]
fn the_stream_may_change_between_two_players() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        studio.player().await.number(&camera).await;
        pass(secs(30)).await;
        let camera = camera.showing(Media::made(25, 5, 10_000, 2000));
        let mut player = studio.player().await;
        assert_eq!(player.number(&camera).await % 5, 0);
        player.number(&camera).await;
        assert_eq!(camera.setups(), 2);
    });
}
