//! The RTSPS camera, with a strict client and with ffmpeg.

use core::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::tls::{finished, missing, over_sockets};
use super::{CODE, PIPE, secs, simulated};
use crate::rtsp_client::{
    Assembly, Client, Frame, Heard, Picture, Rtp, Scheme, framed, receiver_report,
};
use printer::rtsp::{
    Ending, MAX_REQUEST, Media, OverLimit, PATH, Packing, Quirk, REQUEST_TIMEOUT, digest,
};
use printer::{MAX_STREAMS, Model, Rtsp, WRITE_TIMEOUT};

const URL: &str = "rtsps://127.0.0.1:322/streaming/live/1";

fn call(rtsp: &Rtsp) -> Client<DuplexStream> {
    let (near, far) = duplex(PIPE);
    let rtsp = rtsp.clone();
    spawn_local(async move { rtsp.serve(far).await });
    Client::over(near).knowing(Scheme::Md5, CODE)
}

/// The next pictures, sender reports passed over.
async fn pictures(
    client: &mut Client<DuplexStream>,
    assembly: &mut Assembly,
    most: usize,
) -> Vec<Picture> {
    let mut pictures = Vec::new();
    while pictures.len() < most {
        let frame = client.frame().await;
        if frame.channel == 0 {
            pictures.extend(assembly.take(&frame.bytes));
        }
    }
    pictures
}

// ---- what it answers ---------------------------------------------------------------------------

#[test]
fn only_options_works_without_a_password() {
    simulated(async || {
        let rtsp = Rtsp::new();
        let mut client = call(&rtsp);
        for byte in client.written("OPTIONS", URL, "User-Agent: tiny\r\n") {
            client.stream.write_u8(byte).await.unwrap();
        }
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("cseq")), (200, Some("1")));
        assert!(answer.header("public").unwrap().contains("GET_PARAMETER"));
        let mut nonces = Vec::new();
        for method in ["DESCRIBE", "SETUP", "PLAY", "PAUSE", "GET_PARAMETER", "TEARDOWN"] {
            let answer = client.ask(method, URL, "").await;
            assert_eq!(answer.status, 401, "{method}");
            let offer = answer.header("www-authenticate").unwrap().to_owned();
            assert!(offer.starts_with("Digest realm=\"LIVE555 Streaming Media\", nonce=\""));
            nonces.push(offer);
        }
        nonces.dedup();
        assert_eq!(nonces.len(), 6, "each refusal has a nonce of its own");
        assert_eq!(client.ask("RECORD", URL, "").await.status, 405);
        assert!(rtsp.until(secs(1), |rtsp| rtsp.requests() == 8).await);
        assert_eq!((rtsp.ever(), rtsp.wrong_digests()), (1, 0));
        assert_eq!(rtsp.asked()[1].method, "DESCRIBE");
    });
}

#[test]
fn md5_is_that_of_the_standard() {
    assert_eq!(digest::md5(""), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(digest::md5("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
    let long = "1234567890".repeat(8);
    assert_eq!(digest::md5(&long), "57edf4a22be3c955ac49da2e2107b67a");
}

#[test]
fn the_password_is_compared_with_the_uri_that_the_header_names() {
    simulated(async || {
        let rtsp = Rtsp::new();
        let mut client = call(&rtsp);
        assert_eq!(client.describe(URL).await.status, 200);
        // Of another request line than the header's, as a relay may make it.
        let text = String::from_utf8(client.written("DESCRIBE", URL, "")).unwrap();
        let relayed = text.replacen(URL, "rtsps://printer:322/streaming/live/1", 1);
        client.send(relayed.as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        client.send(text.replace("response=\"", "response=\"0").as_bytes()).await;
        assert_eq!(client.response().await.status, 401);
        assert_eq!(rtsp.wrong_digests(), 1);
        // That has cost the nonce.
        client.send(text.as_bytes()).await;
        assert_eq!(client.response().await.status, 401);

        for (scheme, code) in [(Scheme::Md5, "12345679"), (Scheme::Basic, CODE)] {
            let mut wrong = call(&rtsp).knowing(scheme, code);
            assert_eq!(wrong.describe(URL).await.status, 401);
        }
        assert_eq!(rtsp.wrong_digests(), 4);
    });
}

#[test]
fn rtsp_closes_without_live_view_and_on_garbage() {
    simulated(async || {
        let rtsp = Rtsp::new().live_view(false);
        let before = Instant::now();
        assert_eq!(call(&rtsp).rest().await, []);
        assert_eq!(before.elapsed(), secs(0));
        let rtsp = rtsp.off_after_options();
        let mut client = call(&rtsp);
        assert_eq!(client.ask("OPTIONS", URL, "").await.status, 200);
        assert_eq!(client.rest().await, []);
        assert_eq!(rtsp.endings(), [Ending::Off; 2]);

        let rtsp = rtsp.live_view(true);
        for wrong in ["GET / HTTP/1.1\r\nCSeq: 1\r\n\r\n", "\r\n\r\n", "$\x01\u{7f}\u{7f}"] {
            let mut client = call(&rtsp);
            client.send(wrong.as_bytes()).await;
            assert_eq!(client.rest().await, [], "{wrong:?}");
        }
        let mut unnumbered = call(&rtsp);
        unnumbered.send(b"OPTIONS * RTSP/1.0\r\n\r\n").await;
        assert_eq!(unnumbered.response().await.status, 400);
        assert_eq!(unnumbered.rest().await, []);
        let mut long = call(&rtsp);
        long.send(&[b'x'; MAX_REQUEST]).await;
        assert_eq!(long.rest().await, []);
        let (mut silent, before) = (call(&rtsp), Instant::now());
        assert_eq!(timeout(secs(100), silent.stream.read_u8()).await.unwrap().ok(), None);
        assert_eq!(before.elapsed(), REQUEST_TIMEOUT);

        let held: Vec<_> = (0..MAX_STREAMS).map(|_| call(&rtsp)).collect();
        assert!(rtsp.until(secs(1), |rtsp| rtsp.open() == MAX_STREAMS).await);
        assert_eq!(call(&rtsp).rest().await, []);
        drop(held);
        assert!(rtsp.until(secs(1), |rtsp| rtsp.open() == 0).await);
        assert_eq!(call(&rtsp).ask("OPTIONS", URL, "").await.status, 200);
    });
}

#[test]
fn what_is_out_of_order_is_answered_so() {
    simulated(async || {
        let rtsp = Rtsp::new();
        let mut client = call(&rtsp);
        assert_eq!(client.describe("rtsps://127.0.0.1/streaming/live/2").await.status, 404);
        assert_eq!(client.request("PLAY", URL, "").await.status, 454);
        assert_eq!(client.describe(URL).await.status, 200);
        assert_eq!(client.track, format!("{URL}/track1"));
        let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n";
        let track = client.track.clone();
        assert_eq!(client.request("SETUP", &track, udp).await.status, 461);
        assert_eq!(client.setup("0-1").await.status, 200);
        assert_eq!(client.request("SETUP", &track, "Transport: RTP/AVP/TCP\r\n").await.status, 459);
        client.session = Some("0BADCAFE".to_owned());
        assert_eq!(client.request("PLAY", URL, "").await.status, 454);
    });
}

// ---- what it plays -----------------------------------------------------------------------------

#[test]
fn a_player_gets_every_unit_to_the_byte_at_its_time() {
    simulated(async || {
        for packing in [Packing::Single, Packing::Aggregated] {
            let rtsp = Rtsp::new().packing(packing);
            let media = rtsp.media();
            let mut client = call(&rtsp);
            let (began, played) = (Instant::now(), client.play(URL).await);
            let mut first = None;
            let (mut assembly, mut reports, mut units) = (Assembly::default(), 0, 0);
            while units < 400 {
                let Frame { channel, bytes } = client.frame().await;
                if channel == 1 {
                    reports += 1;
                    assert_eq!((bytes[0], bytes[1], bytes.len()), (0x80, 200, 48));
                    continue;
                }
                assert!(bytes.len() <= 1456);
                let rtp = Rtp::of(&bytes);
                let first = *first.get_or_insert(rtp);
                let Some(picture) = assembly.take(&bytes) else { continue };
                assert_eq!(picture.nals, media.unit(units).nals, "unit {units}");
                let ticks = picture.timestamp.wrapping_sub(first.timestamp);
                assert_eq!(u64::from(ticks), units * 3000);
                units += 1;
            }
            let first = first.unwrap();
            let info = format!("seq={};rtptime={}", first.sequence, first.timestamp);
            assert!(played.header("rtp-info").unwrap().contains(&info), "{played:?}");
            assert_eq!(began.elapsed().as_millis(), 399 * 1000 / 30);
            assert_eq!((reports, rtsp.units(), rtsp.skipped()), (2, 400, 0));

            let told = client.request("GET_PARAMETER", URL, "").await;
            assert_eq!((told.status, told.text()), (200, "2020.03.06"));
            assert_eq!(client.request("TEARDOWN", URL, "").await.status, 200);
            drop(client);
            assert!(rtsp.until(secs(1), |rtsp| rtsp.open() == 0).await);
            assert_eq!((rtsp.leaked(), rtsp.endings()), (0, vec![Ending::Orderly]));
        }
    });
}

#[test]
fn recordings_are_cut_into_units_and_described() {
    let media = Media::h264();
    assert_eq!((media.len(), media.rate(), media.sets().len()), (120, 30, 2));
    let keys: Vec<u64> = (0..120).filter(|at| media.unit(*at).key).collect();
    assert_eq!(keys, [0, 30, 60, 90]);
    assert!((0..120).all(|at| media.unit(at).nals.len() == if at % 30 == 0 { 3 } else { 1 }));
    let media = Media::h265();
    assert_eq!((media.len(), media.sets().len()), (30, 3));
    assert!((0..30).all(|at| media.unit(at).key == (at % 15 == 0)));
    let made = Media::made(25, 50, 40_000, 3000);
    assert_eq!((made.len(), made.unit(0).nals.len(), made.unit(51).nals[0].len()), (50, 3, 3000));
    assert!(made.unit(50).key && !made.unit(51).key);
    simulated(async || {
        let mut client = call(&Rtsp::new());
        let sdp = client.describe(URL).await.text().to_owned();
        assert!(sdp.contains("m=video 0 RTP/AVP 96\r\n") && !sdp.contains("m=audio"));
        assert!(
            sdp.contains("packetization-mode=1;profile-level-id=4D401E;sprop-parameter-sets=Z0")
        );
        let mut client = call(&Rtsp::new().showing(Media::h265()).with(Quirk::NoVideo));
        assert!(client.describe(URL).await.text().contains("m=audio 0 RTP/AVP 0\r\n"));
    });
}

#[test]
fn a_session_lasts_as_long_as_it_is_heard_of() {
    simulated(async || {
        for keeps in [0, 1, 2] {
            let rtsp = Rtsp::new();
            let mut client = call(&rtsp);
            client.play(URL).await;
            let end = Instant::now() + secs(200);
            let mut next = Instant::now() + secs(60);
            let mut ended = false;
            while Instant::now() < end && !ended {
                ended = client.next().await == Heard::End;
                if !ended && Instant::now() >= next {
                    next += secs(60);
                    match keeps {
                        0 => {}
                        1 => client.send(&framed(1, &receiver_report(None))).await,
                        _ => drop(client.request("OPTIONS", URL, "").await),
                    }
                }
            }
            assert_eq!(ended, keeps == 0);
            assert_eq!(rtsp.reports(), if keeps == 1 { 3 } else { 0 });
            if ended {
                assert_eq!((rtsp.endings(), rtsp.leaked()), (vec![Ending::Silent], 0));
            }
        }
    });
}

#[test]
fn slow_players_resume_at_a_key_frame_stuck_ones_are_closed() {
    simulated(async || {
        let rtsp = Rtsp::new();
        let mut client = call(&rtsp);
        client.play(URL).await;
        let mut assembly = Assembly::default();
        pictures(&mut client, &mut assembly, 10).await;
        sleep(secs(20)).await;
        let seen = pictures(&mut client, &mut assembly, 200).await;
        let jump = seen.windows(2).find(|two| two[1].timestamp - two[0].timestamp > 3000);
        assert!(jump.expect("units are left out")[1].is_key());
        assert!(rtsp.skipped() > 400);

        let before = Instant::now();
        assert!(rtsp.until(secs(100), |rtsp| rtsp.open() == 0).await);
        assert!(before.elapsed() >= WRITE_TIMEOUT);
        assert_eq!(rtsp.endings(), [Ending::Stuck]);
    });
}

// ---- what it does badly ------------------------------------------------------------------------

#[test]
fn whoever_finds_no_session_is_refused_closed_or_left_waiting() {
    simulated(async || {
        let rtsp = Rtsp::new().sessions(1);
        let mut first = call(&rtsp);
        first.play(URL).await;
        let mut second = call(&rtsp);
        assert_eq!(second.describe(URL).await.status, 200);
        assert_eq!(second.setup("0-1").await.status, 453);
        let rtsp = rtsp.over_limit(OverLimit::Closes);
        assert_eq!(call(&rtsp).rest().await, []);
        assert_eq!(rtsp.refused(), 1);
        let rtsp = rtsp.over_limit(OverLimit::Hangs);
        let mut third = call(&rtsp);
        let options = third.written("OPTIONS", URL, "");
        third.send(&options).await;
        assert_eq!(third.next_within(secs(20)).await, None);
        drop(first);
        assert!(rtsp.until(secs(1), |rtsp| rtsp.leaked() == 1).await);
    });
}

#[test]
fn slots_are_leaked_until_a_reboot() {
    simulated(async || {
        let rtsp = Rtsp::new().slots(2);
        for _ in 0..2 {
            assert_eq!(call(&rtsp).ask("OPTIONS", URL, "").await.status, 200);
        }
        let mut third = call(&rtsp);
        let options = third.written("OPTIONS", URL, "");
        third.send(&options).await;
        assert_eq!(third.next_within(secs(50)).await, None);
        rtsp.reboot(secs(5));
        assert_eq!(third.rest().await, []);
        assert_eq!(call(&rtsp).rest().await, []);
        sleep(secs(5)).await;
        assert_eq!(call(&rtsp).ask("OPTIONS", URL, "").await.status, 200);
        assert_eq!((rtsp.ever(), rtsp.refused()), (4, 1));
    });
}

#[test]
fn timestamps_stick_and_reports_are_needed_or_missing() {
    simulated(async || {
        let rtsp = Rtsp::new().with(Quirk::StuckTimestamps).with(Quirk::NoSenderReports);
        let mut client = call(&rtsp);
        client.play(URL).await;
        let seen = pictures(&mut client, &mut Assembly::default(), 300).await;
        assert_eq!(seen[299].timestamp.wrapping_sub(seen[0].timestamp), 5400);

        let rtsp = Rtsp::new().with(Quirk::NeedsReports).with(Quirk::NoSenderReports);
        let mut client = call(&rtsp);
        client.play(URL).await;
        let (mut assembly, before) = (Assembly::default(), Instant::now());
        pictures(&mut client, &mut assembly, 300).await;
        assert_eq!(client.next_within(secs(20)).await, None);
        assert!(before.elapsed() < secs(31));
        client.send(&framed(1, &receiver_report(Some((7, 9))))).await;
        pictures(&mut client, &mut Assembly::default(), 100).await;
        let told = rtsp.reported()[0];
        assert_eq!((told.connection, told.ssrc, told.highest), (1, 7, 9));
        client.send(&framed(0, &receiver_report(None))).await;
        client.send(&framed(1, b"no report")).await;
        assert!(rtsp.until(secs(1), |rtsp| rtsp.strays() == 2).await);
    });
}

#[test]
fn it_begins_late_stalls_and_is_deaf() {
    simulated(async || {
        let rtsp = Rtsp::new().first_after(secs(20));
        let mut client = call(&rtsp);
        client.play(URL).await;
        let before = Instant::now();
        assert!(matches!(client.next().await, Heard::Frame(_)));
        assert_eq!(before.elapsed().as_secs(), 20);

        let rtsp = Rtsp::new().key_after(secs(20));
        let mut client = call(&rtsp);
        client.play(URL).await;
        let seen = pictures(&mut client, &mut Assembly::default(), 700).await;
        let key = seen.iter().position(Picture::is_key).unwrap();
        assert_eq!(key, 600 - 20, "all but the keys of twenty seconds come before");

        rtsp.turn(Quirk::Silence, true);
        while client.next_within(secs(1)).await.is_some() {}
        assert_eq!(client.request("GET_PARAMETER", URL, "").await.status, 200);
        rtsp.turn(Quirk::Deaf, true);
        let asked = client.written("OPTIONS", URL, "");
        client.send(&asked).await;
        assert_eq!(client.next_within(secs(50)).await, None);
        rtsp.turn(Quirk::Deaf, false);
        assert_eq!(client.response().await.status, 200);
        rtsp.turn(Quirk::Silence, false);
        assert!(matches!(client.next().await, Heard::Frame(_)));
    });
}

#[test]
fn it_sends_what_nobody_wants() {
    simulated(async || {
        let rtsp = Rtsp::new().with(Quirk::Garbage).with(Quirk::StrayChannels);
        let mut client = call(&rtsp);
        client.play(URL).await;
        let (stray, garbage) = (client.frame().await, client.frame().await);
        assert_eq!((stray.channel, garbage.channel), (9, 0));
        assert_eq!(garbage.bytes[12] & 0x1f, 31);

        let rtsp = Rtsp::new().with(Quirk::WrongChannel).with(Quirk::NoSets).header_bytes(9000);
        let mut client = call(&rtsp);
        client.play(URL).await;
        let frame = client.frame().await;
        assert_eq!((frame.channel, frame.bytes[12] & 0x1f), (4, 28));

        let large = Rtsp::new().packet_bytes(0xffff).showing(Media::made(10, 5, 200_000, 100_000));
        let mut client = call(&large);
        client.play(URL).await;
        let mut assembly = Assembly::default();
        assert!(pictures(&mut client, &mut assembly, 6).await[5].is_key());
        assert_eq!(large.raw(b"$\x07\0\x02ab"), 1);
        assert_eq!(large.ask("OPTIONS", ""), 1);
        assert_eq!(large.goodbye(), 1);
        let (mut requests, mut goodbyes) = (0, 0);
        while requests + goodbyes < 2 {
            match client.next().await {
                Heard::Request(line) => requests += usize::from(line.starts_with("OPTIONS ")),
                Heard::Frame(frame) => goodbyes += usize::from(frame.bytes.get(9) == Some(&203)),
                other @ (Heard::Response(_) | Heard::End) => panic!("{other:?}"),
            }
        }
        client.send(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n").await;
        assert!(large.until(secs(1), |rtsp| rtsp.answers() == [200]).await);
        large.cut();
        let rest = client.rest().await;
        assert!(rest.iter().all(|heard| matches!(heard, Heard::Frame(_))));
        assert_eq!((large.endings(), large.leaked()), (vec![Ending::Cut], 0));

        let rude = Rtsp::new().with(Quirk::RudeTeardown);
        let mut client = call(&rude);
        client.play(URL).await;
        let teardown = client.written("TEARDOWN", URL, "");
        client.send(&teardown).await;
        assert!(client.rest().await.iter().all(|heard| matches!(heard, Heard::Frame(_))));
        assert_eq!(rude.endings(), [Ending::TornDown]);
    });
}

// ---- before ffmpeg -----------------------------------------------------------------------------

/// The checksum of each decoded picture, in order.
fn hashes(output: &[u8]) -> Vec<String> {
    let text = core::str::from_utf8(output).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

fn ffmpeg(input: &str, more: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]).args(more);
    command.args(["-i", input, "-fps_mode", "passthrough"]);
    command
}

async fn ran(mut command: Command) -> Vec<u8> {
    command.args(["-f", "framemd5", "-"]);
    let seen = spawn_blocking(move || finished(command)).await.unwrap();
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
    seen.stdout
}

#[test]
fn ffmpeg_sees_every_picture_as_it_was_recorded() {
    if missing(&["ffmpeg"]) {
        return;
    }
    over_sockets(async || {
        let kinds = [(Media::h264(), "h264", Model::X1C), (Media::h265(), "h265", Model::H2D)];
        for (media, name, model) in kinds {
            let file = format!("{}/tests/traces/rtsp/camera.{name}", env!("CARGO_MANIFEST_DIR"));
            let recorded = hashes(&ran(ffmpeg(&file, &[])).await);
            assert_eq!(recorded.len(), media.len());
            let rtsp = Rtsp::new().showing(media).rate(60).packing(Packing::Aggregated);
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let (at, serving) = rtsp.listen_tls(anywhere, model).await.unwrap();
            spawn_local(serving);
            let url = format!("rtsps://bblp:{CODE}@{at}{PATH}");
            let mut command = ffmpeg(&url, &["-rtsp_transport", "tcp"]);
            command.args(["-frames:v", "150"]);
            let seen = hashes(&ran(command).await);
            assert_eq!(seen.len(), 150);
            // It joins in the middle, and makes of that what it can: its own is what follows a key.
            let own = |hash: &String| recorded.iter().position(|own| own == hash);
            let key = seen.iter().position(|hash| own(hash).is_some()).expect("its own");
            let first = own(&seen[key]).unwrap();
            assert!(rtsp.media().unit(first as u64).key && key < 30, "{name}: {key}, {first}");
            let expected = recorded.iter().cycle().skip(first);
            assert!(seen[key..].iter().zip(expected).all(|(seen, own)| seen == own), "{name}");
            assert!(rtsp.until(secs(20), |rtsp| rtsp.open() == 0).await);
            assert_eq!((rtsp.setups(), rtsp.wrong_digests(), rtsp.leaked()), (1, 0, 0));

            let mut wrong = ffmpeg(&url.replace(CODE, "12345679"), &["-rtsp_transport", "tcp"]);
            wrong.args(["-f", "null", "-"]);
            let refused = spawn_blocking(move || finished(wrong)).await.unwrap();
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("401"), "{said}");
            assert_eq!(rtsp.setups(), 1);
        }
    });
}
