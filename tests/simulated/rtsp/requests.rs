//! Players' requests, valid and invalid, in and out of order, and their authentication.

use pandaproxy::journal::Kind;
use pandaproxy::rtsp::answer::SESSION_TIMEOUT;
use pandaproxy::rtsp::client::{DESCRIBED_TIMEOUT, Error, LOGIN_TIMEOUT, MAX_TALK, MAX_URL};
use pandaproxy::rtsp::wire::{Fault, MAX_HEAD};
use pandaproxy::runtime::drive::End;
use pandaproxy::service::Service as _;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::clients::rtsp::{Client, Heard, Rtp, Scheme, framed, receiver_report};
use crate::lan::chamber::At;
use crate::lan::rtsp::{Player, Studio, URL, camera, showing};
use crate::lan::{self, CODE, Tally, WIRE, journal_says, ms, pass, secs};
use printer::rtsp::Media;

// ---- authentication ----------------------------------------------------------------------------

/// Issue 14, A14: a slicer's plug-in takes the first challenge, FFmpeg the last Digest, and both know MD5 only.
#[test]
fn all_but_options_is_answered_with_one_md5_challenge() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = Client::over(studio.stream(WIRE));
        let options = client.ask("OPTIONS", URL, "").await;
        assert_eq!((options.status, options.header("cseq")), (200, Some("1")));
        let public = options.header("public").unwrap();
        for method in [
            "OPTIONS",
            "DESCRIBE",
            "SETUP",
            "PLAY",
            "PAUSE",
            "GET_PARAMETER",
            "SET_PARAMETER",
            "TEARDOWN",
        ] {
            assert!(public.split(", ").any(|its| its == method), "{public}");
            if method == "OPTIONS" {
                continue;
            }
            let refused = client.ask(method, URL, "").await;
            assert_eq!(refused.status, 401, "{method}");
            let ways: Vec<_> = refused.headers("www-authenticate").collect();
            assert_eq!(ways.len(), 1, "clients take the first one, or the last: {ways:?}");
            assert!(ways[0].starts_with("Digest ") && !ways[0].contains("algorithm"));
        }
        assert_eq!((studio.admitted(), studio.service.demand().is_wanted()), (0, false));
    });
}

#[test]
fn digest_with_md5_and_basic_are_accepted() {
    for scheme in [Scheme::Md5, Scheme::Md5Qop, Scheme::Basic] {
        lan::run(async {
            let studio = Studio::before(&camera());
            let mut client = Client::over(studio.stream(WIRE)).knowing(scheme, CODE);
            client.play(URL).await;
            Player::of(client).picture().await;
            assert_eq!(studio.admitted(), 1);

            let mut wrong = Client::over(studio.stream(WIRE)).knowing(scheme, "87654321");
            let first = wrong.ask("DESCRIBE", URL, "").await;
            assert_eq!(first.status, 401, "{scheme:?}");
            let refused = wrong.request("DESCRIBE", URL, "").await;
            let refused = if refused.status == 401 {
                wrong.request("DESCRIBE", URL, "").await
            } else {
                refused
            };
            assert_eq!(refused.status, 403, "{scheme:?}");
            assert!(wrong.rest().await.is_empty(), "and is closed");
            let played = studio.ends.borrow().last().cloned().unwrap();
            assert_eq!(played.end, End::Session(Error::WrongCode));
            assert_eq!((played.wrong_codes.len(), studio.admitted()), (2, 1));
            assert!(!journal_says("87654321") && !journal_says(CODE));
        });
    }
}

#[test]
fn digest_with_qop_is_accepted_though_not_offered() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = Client::over(studio.stream(WIRE));
        let challenge = client.ask("DESCRIBE", URL, "").await;
        let offer = challenge.header("www-authenticate").unwrap().to_owned();
        let nonce = offer.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let md5 = printer::rtsp::digest::md5;
        let known = md5(&format!("bblp:PandaProxy:{CODE}"));
        let asked = md5(&format!("DESCRIBE:{URL}"));
        let response = md5(&format!("{known}:{nonce}:00000001:abc:auth:{asked}"));
        let header = format!(
            "Authorization: Digest username=\"bblp\", realm=\"PandaProxy\", nonce=\"{nonce}\", \
             uri=\"{URL}\", qop=auth, nc=00000001, cnonce=\"abc\", response=\"{response}\"\r\n"
        );
        assert_eq!(client.ask("DESCRIBE", URL, &header).await.status, 200);
    });
}

#[test]
fn a_stale_nonce_is_asked_for_again_and_not_counted() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut old = Client::over(studio.stream(WIRE)).knowing(Scheme::Md5, CODE);
        old.describe(URL).await;
        let bytes = old.written("DESCRIBE", URL, "");
        for _ in 0..5 {
            let mut client = Client::over(studio.stream(WIRE));
            client.send(&bytes).await;
            let refused = client.response().await;
            assert_eq!(refused.status, 401);
            assert!(refused.header("www-authenticate").unwrap().contains("stale=true"));
            drop(client);
            pass(ms(10)).await;
            assert_eq!(studio.end().wrong_codes.len(), 0);
        }
    });
}

#[test]
fn a_wrong_code_is_counted_unless_the_right_one_follows() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let wrong = Tally::of(Kind::WrongCode);
        let mut client = Client::over(studio.stream(WIRE)).knowing(Scheme::Basic, "87654321");
        assert_eq!(client.ask("DESCRIBE", URL, "").await.status, 401);
        let mut client = client.knowing(Scheme::Md5, CODE);
        assert_eq!(client.describe(URL).await.status, 200);
        drop(client);
        pass(ms(10)).await;
        assert_eq!(
            (studio.end().wrong_codes.len(), wrong.now()),
            (0, 0),
            "one wrong code is not reported"
        );
        let mut client = Client::over(studio.stream(WIRE)).knowing(Scheme::Basic, "87654321");
        assert_eq!(client.ask("DESCRIBE", URL, "").await.status, 401);
        drop(client);
        pass(ms(10)).await;
        assert_eq!((studio.end().wrong_codes.len(), wrong.now()), (1, 1));
        assert!(journal_says("and showed a wrong access code"));
    });
}

#[test]
fn no_code_within_ten_seconds_closes_the_connection() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let silent = Tally::of(Kind::Silent);
        let mut still = Client::over(studio.stream(WIRE));
        let mut talks = Client::over(studio.stream(WIRE));
        let began = Instant::now();
        for _ in 0..9 {
            pass(secs(1)).await;
            assert_eq!(talks.ask("OPTIONS", URL, "").await.status, 200);
        }
        assert!(still.rest().await.is_empty() && talks.rest().await.is_empty());
        assert_eq!(began.elapsed(), LOGIN_TIMEOUT);
        assert_eq!(silent.now(), 2);
        let ends: Vec<_> = studio.ends.borrow().iter().map(|its| its.end).collect();
        assert_eq!(ends, [End::Session(Error::Silent); 2]);
    });
}

#[test]
fn too_many_bytes_without_the_code_close_the_connection() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = Client::over(studio.stream(WIRE));
        let asked = client.written("OPTIONS", URL, "X: y\r\n").len();
        for _ in 0..MAX_TALK / asked - 1 {
            assert_eq!(client.ask("OPTIONS", URL, "X: y\r\n").await.status, 200);
        }
        let mut more = Vec::new();
        for _ in 0..4 {
            more.extend(client.written("OPTIONS", URL, "X: y\r\n"));
        }
        client.try_send(&more).await;
        assert!(client.rest().await.len() <= 3);
        assert_eq!(studio.end().end, End::Session(Error::NoCode));
        // Interleaved frames count as well, whatever their length field says.
        let mut client = Client::over(studio.stream(WIRE));
        client.try_send(&framed(0, &vec![7; 0xffff])).await;
        assert!(client.rest().await.is_empty());
        assert_eq!(studio.end().end, End::Session(Error::NoCode));
    });
}

// ---- invalid requests --------------------------------------------------------------------------

#[test]
fn what_is_not_rtsp_gets_400_or_505_and_is_closed() {
    let line = format!("OPTIONS {URL} RTSP/1.0\r\n");
    let long = |len: usize| [line.as_bytes(), b"X: ", &vec![b'x'; len]].concat();
    let body = |text: &str| format!("{line}CSeq: 1\r\nContent-Length: {text}\r\n\r\n").into_bytes();
    let table: [(Vec<u8>, u16, Fault); 10] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400, Fault::NotRtsp),
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), 400, Fault::NotRtsp),
        (b"options * RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_vec(), 400, Fault::NotRtsp),
        (b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n".to_vec(), 505, Fault::Version),
        (long(MAX_HEAD), 400, Fault::HeadTooLong),
        (vec![b'A'; MAX_HEAD], 400, Fault::HeadTooLong),
        (body("513"), 400, Fault::BodyTooLong),
        (body("99999999999999999999999"), 400, Fault::Malformed),
        (body("-1"), 400, Fault::Malformed),
        (format!("{line}CSeq 1\r\n\r\n").into_bytes(), 400, Fault::Malformed),
    ];
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut good = studio.player().await;
        let mut first = good.number(&camera).await;
        for (bytes, status, fault) in table {
            let lines = Tally::of(Kind::Malformed);
            let refusals = Tally::of(Kind::Refused);
            let mut client = Client::over(studio.stream(WIRE));
            client.try_send(&bytes).await;
            let heard = client.rest().await;
            let [Heard::Response(response)] = &heard[..] else { panic!("{fault:?}: {heard:?}") };
            assert_eq!((response.status, response.header("cseq")), (status, None), "{fault:?}");
            assert_eq!(studio.end().end, End::Session(Error::Fault(fault)));
            assert_eq!(lines.now() + refusals.now(), 1, "one line for {fault:?}");
            assert!(journal_says(&fault.to_string()));
            first += 1;
            assert_eq!(good.number(&camera).await, first, "other players see every picture");
        }
    });
}

/// Shows a code until the connection is closed.
async fn refused(studio: &Studio, scheme: Scheme, code: &str) {
    let mut client = Client::over(studio.stream_of_one_host()).knowing(scheme, code);
    while client.request("DESCRIBE", URL, "").await.status == 401 {}
    assert!(client.rest().await.is_empty(), "{code} is refused and the connection closed");
}

#[test]
fn the_same_wrong_code_locks_nobody_out() {
    for scheme in [Scheme::Md5, Scheme::Basic] {
        lan::run(async {
            let studio = Studio::before(&camera());
            let locked_out = Tally::of(Kind::LockedOut);
            for _ in 0..20 {
                refused(&studio, scheme, "87654321").await;
                pass(secs(7)).await;
            }
            let mut client = Client::over(studio.stream_of_one_host()).knowing(scheme, CODE);
            assert_eq!(client.describe(URL).await.status, 200, "{scheme:?}");
            assert_eq!(locked_out.now(), 0);
        });
    }
}

#[test]
fn different_wrong_codes_are_guesses_and_lock_out() {
    for scheme in [Scheme::Md5, Scheme::Basic] {
        lan::run(async {
            let studio = Studio::before(&camera());
            let locked_out = Tally::of(Kind::LockedOut);
            for guess in 0..5 {
                assert_eq!(locked_out.now(), 0, "before guess {guess}");
                refused(&studio, scheme, &format!("1111111{guess}")).await;
                pass(ms(10)).await;
            }
            assert_eq!(locked_out.now(), 1, "{scheme:?}");
        });
    }
}

#[test]
fn requests_without_cseq_or_unknown_ones_are_refused() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.describe(URL).await;
        for (bytes, status) in [
            (format!("OPTIONS {URL} RTSP/1.0\r\n\r\n"), 400),
            (format!("OPTIONS {URL} RTSP/1.0\r\nCSeq: many\r\n\r\n"), 400),
            (format!("ANNOUNCE {URL} RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 501),
            (format!("RECORD {URL} RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 501),
            (format!("\r\n\r\nOPTIONS {URL} RTSP/1.0\r\nCSeq: 1\r\n\r\n"), 200),
        ] {
            client.send(bytes.as_bytes()).await;
            assert_eq!(client.response().await.status, status, "{bytes}");
        }
        // A response from a player is ignored: the proxy sends no requests.
        client.send(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n").await;
        assert_eq!(client.request("OPTIONS", URL, "").await.status, 200);
    });
}

#[test]
fn an_unknown_method_does_not_count_as_a_wrong_code() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        assert_eq!(client.request("DESCRIBE", "", "").await.status, 200);
        let mut other = Client::over(studio.stream(WIRE)).knowing(Scheme::Md5, CODE);
        for _ in 0..3 {
            assert_eq!(other.request("ANNOUNCE", URL, "").await.status, 501);
        }
        assert_eq!(other.describe(URL).await.status, 200);
        drop(other);
        pass(ms(10)).await;
        assert_eq!(studio.end().wrong_codes.len(), 0);
    });
}

#[test]
fn a_url_that_is_too_long_gets_414() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        let url = |len: usize| format!("{URL}/{}", "x".repeat(len - URL.len() - 1));
        assert_eq!(client.describe(&url(MAX_URL + 1)).await.status, 414);
        let described = client.describe(&url(MAX_URL)).await;
        assert_eq!(described.status, 200);
        assert_eq!(described.header("content-base").unwrap(), format!("{}/", url(MAX_URL)));
        client.setup("0-1").await;
        client.request("PLAY", &url(MAX_URL), "").await;
        Player::of(client).picture().await;
    });
}

#[test]
fn split_and_joined_requests_are_answered_one_by_one() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.describe(URL).await;
        for byte in client.written("GET_PARAMETER", URL, "") {
            client.stream.write_all(&[byte]).await.unwrap();
            pass(ms(1)).await;
        }
        assert_eq!(client.response().await.status, 200);
        client.setup("0-1").await;
        let mut all = Vec::new();
        let (session, track) = (client.session.clone(), client.track.clone());
        for method in ["OPTIONS", "DESCRIBE", "GET_PARAMETER", "PLAY", "OPTIONS"] {
            all.extend(client.written(method, URL, ""));
        }
        client.send(&all).await;
        let mut last = None;
        for _ in 0..5 {
            let answer = client.response().await;
            assert_eq!(answer.status, 200);
            let cseq: u32 = answer.header("cseq").unwrap().parse().unwrap();
            assert!(last.is_none_or(|last: u32| cseq == last + 1), "in order");
            last = Some(cseq);
        }
        assert_eq!((client.session.clone(), client.track.clone()), (session, track));
        let mut player = Player::of(client);
        player.picture().await;
    });
}

// ---- sessions ----------------------------------------------------------------------------------

#[test]
fn any_path_is_accepted_and_used_in_answers() {
    lan::run(async {
        let studio = Studio::before(&camera());
        for path in ["", "/", "/stream", "/streaming/live/1/", "/a/b?c=d"] {
            let url = format!("rtsps://proxy{path}");
            let mut client = studio.client();
            let described = client.describe(&url).await;
            assert_eq!(described.status, 200, "{url}");
            let base = described.header("content-base").unwrap();
            assert_eq!(base, format!("{}/", url.trim_end_matches('/')));
            assert!(
                !described.text().contains("192.168.1.50"),
                "players do not learn the printer's address"
            );
            assert_eq!(client.setup("0-1").await.status, 200, "{url}");
            let played = client.request("PLAY", &url, "").await;
            let info = played.header("rtp-info").unwrap();
            assert!(info.starts_with(&format!("url={base}track1;seq=")), "{info}");
            Player::of(client).picture().await;
        }
    });
}

#[test]
fn requests_out_of_order_get_455() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        assert_eq!(client.request("PLAY", URL, "").await.status, 455);
        assert_eq!(client.request("PAUSE", URL, "").await.status, 455);
        assert_eq!(client.request("TEARDOWN", URL, "").await.status, 200);
        client.describe(URL).await;
        assert_eq!(client.request("PLAY", URL, "").await.status, 455);
        assert_eq!(client.setup("0-1").await.status, 200);
        assert_eq!(client.request("PLAY", URL, "").await.status, 200);
        assert_eq!(client.setup("2-3").await.status, 455, "no SETUP while playing");
        assert_eq!(
            client.request("PLAY", URL, "").await.status,
            200,
            "a repeated PLAY is accepted"
        );
        Player::of(client).picture().await;
    });
}

#[test]
fn setup_needs_the_cameras_description_but_no_describe() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.track = format!("{URL}/track1");
        let refused = client.setup("0-1").await;
        assert_eq!(refused.status, 503);
        let mut other = studio.player().await;
        other.picture().await;
        assert_eq!(client.setup("0-1").await.status, 200);
        assert_eq!(client.request("PLAY", URL, "").await.status, 200);
        Player::of(client).picture().await;
    });
}

#[test]
fn players_choose_channels_and_the_last_setup_counts() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.describe(URL).await;
        assert_eq!(client.setup("0-1").await.status, 200);
        let set_up = client.setup("98-201").await;
        assert_eq!(set_up.status, 200);
        assert!(set_up.header("transport").unwrap().contains("interleaved=98-201"));
        client.request("PLAY", URL, "").await;
        let mut seen = [0, 0];
        while seen[0] < 50 || seen[1] < 1 {
            match client.frame().await.channel {
                98 => seen[0] += 1,
                201 => seen[1] += 1,
                other => panic!("a frame on channel {other}"),
            }
        }
    });
}

#[test]
fn udp_gets_461_and_an_unknown_track_404() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.describe(URL).await;
        let track = client.track.clone();
        for transport in ["RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP/UDP;unicast", "x", ""] {
            let header = format!("Transport: {transport}\r\n");
            let refused = client.request("SETUP", &track, &header).await;
            assert_eq!(refused.status, 461, "{transport}");
        }
        assert_eq!(client.request("SETUP", &track, "").await.status, 461);
        let both = "Transport: RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast\r\n";
        let set_up = client.request("SETUP", &track, both).await;
        assert!(set_up.header("transport").unwrap().contains("interleaved=0-1"));
        for track in ["track2", "track0", "a/track3"] {
            client.track = format!("{URL}/{track}");
            assert_eq!(client.setup("4-5").await.status, 404, "{track}");
        }
    });
}

#[test]
fn another_session_gets_454_and_a_parameter_451() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        client.describe(URL).await;
        let set_up = client.setup("0-1").await;
        assert!(set_up.header("session").unwrap().ends_with(";timeout=60"));
        let own = client.session.replace("DEADBEEF".to_owned());
        for method in ["PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SETUP", "OPTIONS"] {
            assert_eq!(client.request(method, URL, "").await.status, 454, "{method}");
        }
        client.session = own;
        assert_eq!(client.request("GET_PARAMETER", URL, "").await.status, 200);
        assert_eq!(client.request("SET_PARAMETER", URL, "").await.status, 200);
        for (method, len) in [("GET_PARAMETER", 1), ("SET_PARAMETER", 512)] {
            let mut bytes = client.written(method, URL, &format!("Content-Length: {len}\r\n"));
            bytes.extend(vec![b'x'; len]);
            client.send(&bytes).await;
            assert_eq!(client.response().await.status, 451, "{method}");
        }
        assert_eq!(client.request("PLAY", URL, "").await.status, 200);
        Player::of(client).picture().await;
    });
}

#[test]
fn play_after_pause_begins_at_a_key_frame_without_a_gap() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        for round in 0..10 {
            for _ in 0..3 + round {
                player.number(&camera).await;
            }
            assert_eq!(player.client.request("PAUSE", URL, "").await.status, 200);
            while player.client.next_within(ms(0)).await.is_some() {}
            assert!(player.client.next_within(secs(1)).await.is_none(), "nothing comes");
            let played = player.client.request("PLAY", URL, "").await;
            let info = played.header("rtp-info").unwrap().to_owned();
            // After PLAY the player is like a new one: the rest of the picture before PAUSE is not sent.
            let fresh = Player::of(player.client);
            player = fresh;
            let first = player.picture().await;
            assert!(first.is_key());
            assert!(
                info.contains(&format!(";seq={};", first.sequence.0)),
                "{info}: {:?}",
                first.sequence
            );
            assert!(info.ends_with(&format!(";rtptime={}", first.timestamp)), "{info}");
        }
    });
}

#[test]
fn pause_within_a_key_frame_repeats_no_number() {
    lan::run(async {
        // A key frame each second makes most of the data; a wire with little room holds a part of one.
        let camera = showing(Media::made(1, 1, 50_000, 50_000));
        let studio = Studio::before(&camera);
        let mut client = Client::over(studio.stream(4096)).knowing(Scheme::Md5, CODE);
        client.play(URL).await;
        // The last packet's sequence number, and whether its picture continues.
        let mut last: Option<(u16, bool)> = None;
        let (mut played, mut cut) = (false, 0);
        let mut take = |frame: &crate::clients::rtsp::Frame, played: &mut bool| {
            if frame.channel != 0 {
                return;
            }
            let rtp = Rtp::of(&frame.bytes);
            if let Some((last, goes_on)) = last {
                // A truncated unit must not be taken for the beginning of the next one.
                let missing = u16::from(core::mem::take(played) && goes_on);
                cut += missing;
                assert_eq!(rtp.sequence, last.wrapping_add(1 + missing), "after {last}");
            }
            last = Some((rtp.sequence, !rtp.marker));
        };
        for _ in 0..5 {
            for _ in 0..15 {
                take(&client.frame().await, &mut played);
            }
            for method in ["PAUSE", "PLAY"] {
                let bytes = client.written(method, URL, "");
                client.send(&bytes).await;
                loop {
                    match client.next().await {
                        Heard::Frame(frame) => take(&frame, &mut played),
                        Heard::Response(response) => {
                            assert_eq!(response.status, 200);
                            break;
                        }
                        other @ (Heard::Request(_) | Heard::End) => panic!("{other:?}"),
                    }
                }
                played = method == "PLAY";
            }
        }
        assert!(cut > 2, "key frames are most of the data, and only {cut} were cut");
    });
}

#[test]
fn after_teardown_everything_can_be_set_up_again() {
    lan::run(async {
        let studio = Studio::before(&camera());
        let mut client = studio.client();
        for channels in ["0-1", "0-1", "0-1"] {
            client.describe(URL).await;
            client.setup(channels).await;
            client.request("PLAY", URL, "").await;
            while client.frame().await.channel != 0 {}
            assert_eq!(client.request("TEARDOWN", URL, "").await.status, 200);
            while client.next_within(ms(0)).await.is_some() {}
            assert!(client.next_within(secs(2)).await.is_none());
            assert_eq!(client.request("PLAY", URL, "").await.status, 455);
        }
    });
}

#[test]
fn only_a_player_that_does_not_play_is_closed_when_idle() {
    lan::run(async {
        let camera = camera().rate(2);
        let studio = Studio::before(&camera);
        let mut idle = studio.client();
        idle.describe(URL).await;
        idle.setup("0-1").await;
        let mut lives = studio.client();
        lives.describe(URL).await;
        let mut player = studio.player().await;
        let began = Instant::now();
        let playing = spawn_local(async move {
            for _ in 0..7200 {
                player.picture().await;
            }
        });
        for _ in 0..6 {
            pass(secs(30)).await;
            let asked = lives.request("GET_PARAMETER", URL, "").await;
            assert_eq!(asked.status, 200);
        }
        assert!(idle.rest().await.is_empty());
        assert_eq!(studio.end().end, End::Session(Error::Idle));
        playing.await.unwrap();
        assert!(began.elapsed() >= secs(3599));
        assert_eq!(SESSION_TIMEOUT, secs(60));
    });
}

#[test]
fn packets_from_players_are_skipped_whatever_their_length() {
    lan::run(async {
        let camera = camera();
        let studio = Studio::before(&camera);
        let mut player = studio.player().await;
        let mut last = player.number(&camera).await;
        let reports = [
            framed(1, &receiver_report(None)),
            framed(1, &receiver_report(Some((7, 7)))),
            framed(200, b""),
            framed(0, &[0xff; 5000]),
            framed(99, &vec![0; 0xffff]),
        ];
        for bytes in reports {
            player.client.send(&bytes).await;
            assert_eq!(player.client.request("GET_PARAMETER", URL, "").await.status, 200);
            last += 1;
            assert_eq!(player.number(&camera).await, last);
        }
        assert_eq!(camera.strays(), 0, "none of it is forwarded to the camera");
    });
}

#[test]
fn describe_is_held_for_fifteen_seconds() {
    lan::run(async {
        let studio = Studio::at(At::Off, At::Off);
        let mut client = studio.client();
        let asked = Instant::now();
        assert_eq!(client.describe(URL).await.status, 503);
        assert_eq!(asked.elapsed(), DESCRIBED_TIMEOUT);
        let mut client = studio.client();
        let bytes = client.written("DESCRIBE", URL, "");
        client.send(&bytes).await;
        drop(client);
        pass(secs(1)).await;
        assert_eq!(studio.service.connections(), 1);
    });
}
