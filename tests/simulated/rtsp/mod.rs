//! The RTSPS camera between simulated cameras and players, in virtual time: the pictures that players get,
//! and the proxy's connections to the printer. Players' requests are in [`requests`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod requests;
mod upstream;

use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::journal::Kind;
use pandaproxy::rtsp::client::{Error, LOGIN_TIMEOUT};
use pandaproxy::rtsp::slot::Dismissal;
use pandaproxy::runtime::accept::PROGRESS_TIMEOUT;
use pandaproxy::runtime::drive::End;
use pandaproxy::runtime::stream::StreamError;
use pandaproxy::service::Service as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::clients::rtsp::{Client, Rtp, Scheme};
use crate::lan::chamber::{At, Script};
use crate::lan::rtsp::{Player, Studio, URL, camera, number, showing};
use crate::lan::{self, CODE, Tally, WIRE, journal_says, ms, pass, secs};
use printer::rtsp::{Media, Packing, Quirk, Rtsp};

const MOST: usize = BOARD.clients.rtsp;

/// A wire that holds less than a key frame.
const NARROW: usize = 4096;

// ---- fan-out -----------------------------------------------------------------------------------

#[test]
fn all_players_get_every_picture_over_one_connection() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut players = Vec::new();
        for _ in 0..MOST {
            players.push(studio.player().await);
        }
        let mut firsts = Vec::new();
        for player in &mut players {
            firsts.push(player.number(&camera).await);
        }
        for step in 1..=200 {
            for (player, first) in players.iter_mut().zip(&firsts) {
                assert_eq!(
                    player.number(&camera).await,
                    first + step,
                    "each picture once, in order"
                );
            }
        }
        assert_eq!((camera.most_open(), camera.playing()), (1, 1));
        assert_eq!(studio.admitted() as usize, MOST);
        let counts = studio.service.counts();
        assert_eq!((counts.damaged, counts.too_long), (0, 0));
    });
}

#[test]
fn a_recorded_stream_is_forwarded_byte_for_byte() {
    for packing in [Packing::Single, Packing::Aggregated] {
        lan::run(async {
            let camera = Rtsp::new().code(CODE).packing(packing);
            let studio = Studio::before(&camera);
            let mut player = studio.player().await;
            let media = camera.media();
            let first = player.picture().await;
            assert!(first.is_key(), "the first picture is a key frame");
            let at = |picture: &[Vec<u8>]| {
                (0..media.len() as u64).find(|unit| media.unit(*unit).nals == picture)
            };
            let first = at(&first.nals).expect("a picture of the recording");
            for unit in first + 1..first + 2 * media.len() as u64 {
                assert_eq!(player.picture().await.nals, media.unit(unit).nals, "unit {unit}");
            }
        });
    }
}

#[test]
fn a_late_player_begins_at_once_with_the_kept_key_frame() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut first = studio.player().await;
        // The player joins 200 ms after a key frame.
        while first.number(&camera).await % 10 != 5 {}
        let came = Instant::now();
        let mut late = studio.player().await;
        let picture = late.picture().await;
        assert_eq!(came.elapsed(), ms(0), "at once");
        assert!(picture.is_key());
        let key = number(&camera, &picture);
        assert_eq!(key % 10, 0);
        for step in 1..30 {
            assert_eq!(late.number(&camera).await, key + step, "every picture since the key frame");
        }
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn a_late_player_waits_where_the_group_is_too_long() {
    lan::run(async {
        let camera = showing(Media::made(25, 50, 20_000, 5000));
        let studio = Studio::before(&camera);
        let mut first = studio.player().await;
        while first.number(&camera).await % 50 != 30 {}
        let came = Instant::now();
        let mut late = studio.player().await;
        let key = late.number(&camera).await;
        assert_eq!((key % 50, came.elapsed()), (0, ms(800)), "20 pictures later");
        assert_eq!(late.number(&camera).await, key + 1);
        // The first player has lost no picture.
        assert_eq!(first.number(&camera).await % 50, 31);
    });
}

/// Issue 14, A14: players give up after five seconds without a byte.
#[test]
fn a_player_that_waits_for_a_key_frame_gets_reports() {
    lan::run(async {
        let camera = camera().key_after(secs(25));
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        let described = client.describe(URL).await;
        assert_eq!(described.status, 200);
        let set_up = client.setup("0-1").await;
        let source =
            set_up.header("transport").unwrap().split("ssrc=").nth(1).unwrap()[..8].to_owned();
        assert_eq!(client.request("PLAY", URL, "").await.status, 200);
        let began = Instant::now();
        for seconds in 1..=12 {
            let frame = client.frame().await;
            assert_eq!((frame.channel, began.elapsed()), (1, secs(2 * seconds)));
            assert_eq!(frame.bytes[..4], [0x80, 200, 0, 6], "a sender report");
            assert_eq!(frame.bytes[4..8], u32::from_str_radix(&source, 16).unwrap().to_be_bytes());
        }
        let mut player = Player::of(client);
        assert!(player.picture().await.is_key());
        player.report = None;
        for _ in 0..100 {
            player.picture().await;
        }
    });
}

/// Issue 14, A14: the sender reports give the time of the camera's clock.
#[test]
fn reports_while_waiting_agree_with_the_pictures() {
    lan::run(async {
        let camera = showing(Media::made(25, 250, 20_000, 5000));
        let studio = Studio::before(&camera);
        let mut first = studio.player().await;
        while first.number(&camera).await % 250 != 100 {}
        let mut late = studio.player().await;
        assert!(late.sees_nothing(secs(3)).await, "the player waits for a key frame");
        let report = late.report.expect("a report while it waited");
        assert!(late.picture().await.is_key());
        let waited = report.seconds;
        while late.report.unwrap().seconds == waited {
            late.picture().await;
        }
        let later = late.report.unwrap();
        let ticks = f64::from(later.ticks.wrapping_sub(report.ticks));
        let off = ticks - (later.seconds - waited) * 90_000.0;
        assert!(off.abs() < 90.0, "{report:?} {later:?}");
    });
}

#[test]
fn a_slow_player_skips_to_key_frames_without_gaps() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut quick = studio.player().await;
        let mut slow = studio.player_over(NARROW).await;
        let theirs = camera.clone();
        // `Player` fails the test at a torn picture or a missing sequence number.
        let reading = spawn_local(async move {
            let mut seen = Vec::new();
            for _ in 0..60 {
                let picture = slow.picture().await;
                seen.push((number(&theirs, &picture), picture.is_key(), picture.timestamp));
                pass(ms(300)).await;
            }
            seen
        });
        let first = quick.number(&camera).await;
        for step in 1..500 {
            assert_eq!(quick.number(&camera).await, first + step, "other players lose no picture");
        }
        let seen = reading.await.unwrap();
        let mut skips = 0;
        for two in seen.windows(2) {
            let ((last, _, before), (next, is_key, after)) = (two[0], two[1]);
            assert!(next > last, "{seen:?}");
            let ticks = u32::try_from((next - last) * 3600).unwrap();
            assert_eq!(after.wrapping_sub(before), ticks, "timestamps follow the camera's clock");
            if next != last + 1 {
                assert!(is_key, "from {last} to {next}, which refers to a picture that was lost");
                skips += 1;
            }
        }
        assert!(skips > 2, "it is shown what is new: {seen:?}");
        assert!(seen.last().unwrap().0 - seen[0].0 > 200, "it is shown what is new: {seen:?}");
    });
}

#[test]
fn a_camera_that_marks_every_slice_is_sent_picture_by_picture() {
    lan::run(async {
        let media = Media::made(25, 5, 20_000, 3000).sliced(4);
        let camera = showing(media).with(Quirk::MarksSlices);
        let studio = Studio::before(&camera);
        let mut first = studio.client();
        first.play(URL).await;
        let pictures = by_time(&mut first, 62, ms(0)).await;
        assert!(is_whole_key(&pictures[0].1), "{:?}", slices(&pictures[0].1));
        for two in pictures.windows(2) {
            assert_eq!(
                two[1].0.wrapping_sub(two[0].0),
                3600,
                "timestamps follow the camera's clock"
            );
        }
        let mut late = studio.client();
        late.play(URL).await;
        let mut slow = Client::over(studio.stream(NARROW)).knowing(Scheme::Md5, CODE);
        slow.play(URL).await;
        let (late, slow) =
            tokio::join!(by_time(&mut late, 30, ms(0)), by_time(&mut slow, 60, ms(300)));
        for seen in [&pictures, &late, &slow] {
            assert!(is_whole_key(&seen[0].1), "the first picture is {:?}", slices(&seen[0].1));
            for (time, picture) in seen {
                let delta = slices(picture) == [(1, true), (1, false), (1, false), (1, false)];
                assert!(delta || is_whole_key(picture), "at {time}: {:?}", slices(picture));
            }
        }
        let skips = slow.windows(2).filter(|two| two[1].0.wrapping_sub(two[0].0) != 3600);
        for two in skips.clone() {
            assert!(is_whole_key(&two[1].1), "a slow player continues at a key frame");
        }
        assert!(skips.count() > 2, "the player gets the newest pictures");
    });
}

/// Payloads of the packets of this many pictures; packets of one picture have one timestamp. Waits for each picture.
async fn by_time(
    client: &mut Client<tokio::io::DuplexStream>,
    pictures: usize,
    wait: core::time::Duration,
) -> Vec<(u32, Vec<Vec<u8>>)> {
    let mut seen: Vec<(u32, Vec<Vec<u8>>)> = Vec::new();
    let mut last = None;
    while seen.len() <= pictures {
        let frame = client.frame().await;
        if frame.channel != 0 {
            continue;
        }
        let rtp = Rtp::of(&frame.bytes);
        assert!(last.is_none_or(|last: u16| rtp.sequence == last.wrapping_add(1)));
        last = Some(rtp.sequence);
        if seen.last().is_none_or(|(time, _)| *time != rtp.timestamp) {
            pass(wait).await;
            seen.push((rtp.timestamp, Vec::new()));
        }
        seen.last_mut().unwrap().1.push(frame.bytes[12..].to_vec());
    }
    seen.pop();
    seen
}

/// The H.264 units that begin in these payloads: their types, and whether they are a picture's first slice.
fn slices(payloads: &[Vec<u8>]) -> Vec<(u8, bool)> {
    let begin = payloads.iter().filter(|it| it[0] & 0x1f != 28 || it[1] & 0x80 != 0);
    let units = begin.map(|it| if it[0] & 0x1f == 28 { (it[1], it[2]) } else { (it[0], it[1]) });
    units.map(|(head, body)| (head & 0x1f, body & 0x80 != 0)).collect()
}

fn is_whole_key(payloads: &[Vec<u8>]) -> bool {
    let units = slices(payloads);
    let kinds: Vec<u8> = units.iter().map(|(kind, _)| *kind).collect();
    kinds == [7, 8, 5, 5, 5, 5]
        && units[2..].iter().map(|(_, first)| *first).eq([true, false, false, false])
}

#[test]
fn a_player_that_reads_nothing_or_a_byte_a_second_is_closed() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut quick = studio.player().await;
        let stuck = Tally::of(Kind::Stuck);
        let still = studio.player_over(NARROW).await;
        let mut slow = studio.player_over(NARROW).await;
        let trickle = spawn_local(async move {
            let mut byte = [0];
            while matches!(slow.client.stream.read(&mut byte).await, Ok(1..)) {
                pass(secs(1)).await;
            }
        });
        let first = quick.number(&camera).await;
        for step in 1..1000 {
            assert_eq!(quick.number(&camera).await, first + step, "no other player is affected");
        }
        assert_eq!(stuck.now(), 2);
        let ends: Vec<_> = studio.ends.borrow().iter().map(|played| played.end).collect();
        let stalled = [secs(5), secs(30)].map(|time| End::Stream(StreamError::Stalled(time)));
        assert_eq!(ends, stalled);
        assert_eq!(studio.service.connections(), 1);
        assert_eq!(camera.skipped(), 0, "the proxy never stops reading the camera");
        drop(still);
        trickle.abort();
    });
}

#[test]
fn h265_begins_with_a_key_frame_and_is_only_renumbered() {
    lan::run(async {
        let camera = Rtsp::new().code(CODE).showing(Media::h265());
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        let described = client.describe(URL).await;
        assert!(described.text().contains("a=rtpmap:96 H265/90000\r\n"));
        client.setup("0-1").await;
        client.request("PLAY", URL, "").await;
        let media = camera.media();
        let (mut units, mut last, mut unit) = (Vec::new(), None, Vec::new());
        while units.len() < 2 * media.len() {
            let frame = client.frame().await;
            if frame.channel != 0 {
                continue;
            }
            let rtp = Rtp::of(&frame.bytes);
            assert!(last.is_none_or(|last: u16| rtp.sequence == last.wrapping_add(1)));
            last = Some(rtp.sequence);
            unit.push(frame.bytes[12..].to_vec());
            if rtp.marker {
                units.push(core::mem::take(&mut unit));
            }
        }
        // RFC 7798: parameter sets 32 to 34 go before the first slice, which is an IDR or CRA.
        let kind = |payload: &Vec<u8>| match payload[0] >> 1 & 0x3f {
            49 => payload[2] & 0x3f,
            kind => kind,
        };
        assert!(units[0].iter().any(|payload| (16..=21).contains(&kind(payload))));
        let whole: Vec<Vec<u8>> =
            units[0].iter().filter(|payload| payload[0] >> 1 & 0x3f != 49).cloned().collect();
        let keys = (0..media.len() as u64).map(|unit| media.unit(unit)).filter(|unit| unit.key);
        assert!(keys.into_iter().any(|key| whole.iter().all(|nal| key.nals.contains(nal))));
        // The recording repeats after `len` units; units arrive in order.
        for at in 0..media.len() {
            assert_eq!(units[at], units[at + media.len()], "unit {at}");
        }
    });
}

#[test]
fn sender_reports_agree_with_packets_after_a_restart() {
    lan::run(async {
        let camera = camera().sender_reports_every(secs(1));
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut source = None;
        for restart in [false, true] {
            if restart {
                camera.reboot(secs(10));
                player.report = None;
                while player.report.is_none() {
                    player.picture().await;
                }
                player.report = None;
            }
            let mut checked = 0;
            while checked < 5 {
                let picture = player.picture().await;
                let Some(report) = player.report.take() else { continue };
                let taken = number(&camera, &picture) as f64 / 25.0;
                // The simulated camera's clock starts with its first picture.
                let since = report.seconds - 3_900_000_000.0 - taken;
                let ticks = f64::from(report.ticks.wrapping_sub(picture.timestamp).cast_signed());
                assert!((since * 90_000.0 - ticks).abs() <= 2.0, "{since} s are {ticks} ticks");
                let source = *source.get_or_insert(report.ssrc);
                assert_eq!((source, report.ssrc), (picture.ssrc, picture.ssrc));
                checked += 1;
            }
        }
    });
}

#[test]
fn tracks_use_the_players_channels_if_they_are_set_up() {
    lan::run(async {
        let script: Script = Rc::new(|far| drop(spawn_local(two_tracks(far))));
        let studio = Studio::at(At::Closed, At::Script(script));
        let mut both = studio.client();
        assert_eq!(both.describe(URL).await.status, 200);
        let base = both.track.rsplit_once('/').unwrap().0.to_owned();
        for (track, channels) in [("track1", "6-7"), ("track2", "20-31")] {
            let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={channels}\r\n");
            let set_up = both.request("SETUP", &format!("{base}/{track}"), &transport).await;
            assert_eq!(set_up.status, 200);
            assert!(set_up.header("transport").unwrap().contains(channels));
            both.session = set_up.session().map(str::to_owned);
        }
        let info = both.request("PLAY", URL, "").await.header("rtp-info").unwrap().to_owned();
        assert!(info.contains("/track1;seq=") && info.contains("/track2;seq="), "{info}");
        let mut one = studio.client();
        one.describe(URL).await;
        one.setup("2-3").await;
        one.request("PLAY", URL, "").await;
        let mut seen = (Vec::new(), Vec::new());
        while seen.0.len() < 20 || seen.1.len() < 20 {
            let frame = both.frame().await;
            match frame.channel {
                6 => seen.0.push(Rtp::of(&frame.bytes)),
                20 => seen.1.push(Rtp::of(&frame.bytes)),
                other => panic!("a frame on channel {other}"),
            }
        }
        for track in [&seen.0, &seen.1] {
            let follows = |two: &[Rtp]| two[0].sequence.wrapping_add(1) == two[1].sequence;
            assert!(track.windows(2).all(follows), "{track:?}");
            assert!(track.iter().all(|rtp| rtp.ssrc == track[0].ssrc));
        }
        assert_ne!(seen.0[0].ssrc, seen.1[0].ssrc);
        for _ in 0..20 {
            assert_eq!(one.frame().await.channel, 2, "no packets of the other track");
        }
    });
}

/// A minimal camera with sound and video: answers each request with 200, and sends a
/// packet of each track every 40 ms.
async fn two_tracks(mut far: tokio::io::DuplexStream) {
    let sdp = "v=0\r\ns=x\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:v\r\n\
               m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=control:a\r\n";
    let (mut inbox, mut number, mut plays) = (Vec::new(), 0_u16, false);
    let mut due = Instant::now();
    loop {
        let mut piece = [0; 2048];
        tokio::select! {
            read = far.read(&mut piece) => match read {
                Ok(len @ 1..) => inbox.extend_from_slice(&piece[..len]),
                _ => return,
            },
            () = tokio::time::sleep_until(due), if plays => {
                due += ms(40);
                let mut out = Vec::new();
                for (channel, source, ticks, payload) in [(0, 1, 3600, b"\x65\x88"), (2, 2, 320, b"\x01\x02")] {
                    let mut packet = vec![0x80, if channel == 0 { 0xe0 } else { 0 }];
                    packet.extend(number.to_be_bytes());
                    packet.extend((u32::from(number) * ticks).to_be_bytes());
                    packet.extend([0, 0, 0, source]);
                    packet.extend(payload);
                    out.extend(crate::clients::rtsp::framed(channel, &packet));
                }
                number += 1;
                if far.write_all(&out).await.is_err() {
                    return;
                }
            }
        }
        while inbox.first() == Some(&b'$') && inbox.len() >= 4 {
            let end = 4 + usize::from(u16::from_be_bytes([inbox[2], inbox[3]]));
            inbox.drain(..end.min(inbox.len()));
        }
        let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(inbox.drain(..end + 4).collect()).unwrap();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name));
            line.map(|line| format!("{line}\r\n")).unwrap_or_default()
        };
        let body = if head.starts_with("DESCRIBE") { sdp } else { "" };
        let answer = format!(
            "RTSP/1.0 200 OK\r\n{}{}Session: 1\r\nContent-Length: {}\r\n\r\n{body}",
            field("CSeq"),
            field("Transport"),
            body.len()
        );
        if head.starts_with("PLAY") {
            (plays, due) = (true, Instant::now());
        }
        if far.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

// ---- players' slots ----------------------------------------------------------------------------

#[test]
fn one_player_too_many_gets_503_and_a_freed_slot_is_reused() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut players = Vec::new();
        for _ in 0..MOST {
            players.push(studio.player().await);
        }
        let mut late = studio.client();
        let refused = late.describe(URL).await;
        assert_eq!(refused.status, 503);
        assert_eq!(refused.reason, "Service Unavailable: All Player Slots Are In Use");
        assert!(late.rest().await.is_empty(), "and is closed");
        assert_eq!(studio.end().end, End::Session(Error::Dismissed(Dismissal::Full)));
        assert_eq!(studio.admitted() as usize, MOST);
        drop(players.pop());
        pass(secs(1)).await;
        studio.end();
        let mut late = studio.player().await;
        let first = late.number(&camera).await;
        assert_eq!(late.number(&camera).await, first + 1);
    });
}

#[test]
fn connections_without_the_code_take_no_players_slot() {
    lan::run(async {
        // Slow enough for all unread bytes to fit the wires.
        let camera = camera().rate(1);
        let studio = Studio::before(&camera);
        let mut silent = Vec::new();
        for _ in 0..BOARD.pre_auth {
            silent.push(Client::over(studio.stream(WIRE)));
        }
        // The silent ones lose their slots to these.
        let (began, mut players) = (Instant::now(), Vec::new());
        for _ in 0..MOST {
            players.push(studio.player().await);
            let waited = began.elapsed();
            assert!(waited >= PROGRESS_TIMEOUT && waited < LOGIN_TIMEOUT, "{waited:?}");
        }
        let mut silent = Vec::new();
        for _ in 0..=BOARD.pre_auth {
            silent.push(Client::over(studio.stream(WIRE)));
        }
        pass(secs(1)).await;
        // The last one waits for a slot.
        assert_eq!(studio.service.connections(), MOST + BOARD.pre_auth);
        pass(secs(11)).await;
        assert_eq!(studio.service.connections(), MOST + 1);
        for mut player in players {
            player.number(&camera).await;
        }
    });
}

#[test]
fn shutdown_closes_players_and_tears_the_session_down() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        player.number(&camera).await;
        let ends = Rc::clone(&studio.ends);
        let reading = spawn_local(async move { while player.next().await.is_some() {} });
        let began = Instant::now();
        studio.stop().await;
        assert!(began.elapsed() <= secs(5));
        reading.await.unwrap();
        assert_eq!(ends.borrow()[0].end, End::Session(Error::Dismissed(Dismissal::Stopping)));
        assert_eq!((camera.leaked(), camera.open()), (0, 0));
        assert_eq!(camera.asked().last().unwrap().method, "TEARDOWN");
    });
}

#[test]
fn players_with_an_outdated_description_are_closed() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut told = studio.player().await;
        told.number(&camera).await;
        camera.reboot(secs(5));
        let _camera = camera.clone().showing(Media::h265());
        while told.next().await.is_some() {}
        assert_eq!(studio.end().end, End::Session(Error::Dismissed(Dismissal::Changed)));
        let mut client = studio.client();
        assert!(client.describe(URL).await.text().contains("H265"));
        assert!(journal_says("the camera's stream has changed"));
    });
}

// ---- invalid data from the camera --------------------------------------------------------------

#[test]
fn packets_of_64_kib_are_skipped_with_their_pictures() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        player.number(&camera).await;
        let too_long = Tally::of(Kind::PictureTooLong);
        for _ in 0..3 {
            pass(ms(401)).await;
            assert_eq!(camera.lie(0, 0xffff, &vec![0x55; 0xffff]), 1);
        }
        let mut skips = 0;
        let mut last = player.number(&camera).await;
        for _ in 0..60 {
            let picture = player.picture().await;
            let next = number(&camera, &picture);
            if next != last + 1 {
                assert!(picture.is_key());
                skips += 1;
            }
            last = next;
        }
        assert!((1..=3).contains(&skips), "{skips} skips");
        assert_eq!((too_long.now(), studio.service.counts().too_long), (3, 3));
        assert!(journal_says("skipped a packet of 65535 bytes; at most"));
        assert_eq!(camera.ever(), 2, "one probe, and one session that continues");
    });
}

#[test]
fn pictures_that_are_too_long_are_skipped() {
    lan::run(async {
        let camera = showing(Media::made(25, 10, BOARD.rtsp.picture * 9 / 8, 3000));
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        assert!(player.sees_nothing(secs(10)).await, "all key frames are too long");
        assert!(journal_says("skipped a picture that is too long"));
        assert!(studio.service.counts().too_long > 20);
        let camera = camera.showing(Media::made(25, 10, BOARD.rtsp.picture * 3 / 4, 3000));
        camera.reboot(secs(1));
        assert_eq!(player.number(&camera).await % 10, 0);
    });
}

#[test]
fn rtp_without_key_frames_is_not_sent_and_logged() {
    lan::run(async {
        let camera = camera().with(Quirk::Garbage);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        assert!(player.sees_nothing(secs(65)).await);
        assert!(journal_says("no key frame for 60 s"));
        camera.turn(Quirk::Garbage, false);
        player.number(&camera).await;
        assert_eq!(camera.most_open(), 1);
    });
}

#[test]
fn packets_that_are_not_rtp_are_skipped_and_logged_once() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let damaged = Tally::of(Kind::PictureDamaged);
        let first = player.number(&camera).await;
        for step in 1..20 {
            camera.lie(0, 5, b"\x40nada");
            assert_eq!(player.number(&camera).await, first + step, "no picture is lost");
        }
        assert!((18..=19).contains(&damaged.now()), "{}", damaged.now());
        assert!(journal_says("skipped a packet of 5 bytes: it is not RTP"));
    });
}

#[test]
fn packets_on_other_channels_are_ignored() {
    lan::run(async {
        let camera = camera().with(Quirk::StrayChannels);
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let first = player.number(&camera).await;
        for step in 1..50 {
            assert_eq!(player.number(&camera).await, first + step);
        }
        // With all data on another channel the camera counts as silent, and is disconnected.
        camera.turn(Quirk::WrongChannel, true);
        pass(secs(45)).await;
        assert!(journal_says("the camera sends no packet for 30 s"));
        camera.turn(Quirk::WrongChannel, false);
        while player.number(&camera).await <= first + 50 {}
    });
}

#[test]
fn packets_that_the_camera_loses_are_a_gap_for_players() {
    lan::run(async {
        let camera = camera().with(Quirk::LosesPackets);
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        client.play(URL).await;
        let (mut last, mut gaps): (Option<u16>, _) = (None, 0);
        for _ in 0..200 {
            let frame = client.frame().await;
            let rtp = Rtp::of(&frame.bytes);
            let step = last.map_or(1, |last| rtp.sequence.wrapping_sub(last));
            assert!(step <= 2, "{step}");
            gaps += u32::from(step == 2);
            last = Some(rtp.sequence);
        }
        assert!(gaps > 10, "sequence numbers show a player that packets are missing");
    });
}

#[test]
fn a_description_without_video_is_forwarded() {
    lan::run(async {
        let camera = camera().with(Quirk::NoVideo);
        let studio = Studio::before(&camera);
        let mut client = studio.client().knowing(Scheme::Md5, CODE);
        let described = client.describe(URL).await;
        assert_eq!(described.status, 200);
        assert!(described.text().contains("m=audio") && !described.text().contains("m=video"));
        let base = described.header("content-base").unwrap().to_owned();
        client.track = format!("{base}track1");
        assert_eq!(client.setup("0-1").await.status, 200);
        assert_eq!(client.request("PLAY", URL, "").await.status, 200);
        client.frame().await;
    });
}

#[test]
fn parameter_sets_in_the_description_alone_are_enough() {
    lan::run(async {
        let camera = Rtsp::new().code(CODE).with(Quirk::NoSets);
        let studio = Studio::before(&camera);
        let mut client = studio.client();
        assert!(client.describe(URL).await.text().contains("sprop-parameter-sets="));
        client.setup("0-1").await;
        client.request("PLAY", URL, "").await;
        let mut player = Player::of(client);
        let first = player.picture().await;
        assert!(first.is_key() && first.nals.iter().all(|nal| !matches!(nal[0] & 0x1f, 7 | 8)));
    });
}
