//! The RTSPS camera: messages, descriptions, packets, digests, and both sessions.

use core::time::Duration;
use std::rc::Rc;

use pandaproxy::auth::{AccessCode, Guess};
use pandaproxy::clock::Instant;
use pandaproxy::memory::budget;
use pandaproxy::memory::slots::Slots;
use pandaproxy::notify::Demand;
use pandaproxy::printer::status::{Port6000, Status};
use pandaproxy::rtsp::client::{LOGIN_TIMEOUT, Player};
use pandaproxy::rtsp::digest::{Challenge, Nonce, Verdict, judge, write_challenge};
use pandaproxy::rtsp::hub::{Hub, MAX_PACKET};
use pandaproxy::rtsp::mp4::{Changed, MIN_OUTBOX, Mp4};
use pandaproxy::rtsp::rtp::{Content, Packet, ReceiverReport, SenderReport};
use pandaproxy::rtsp::sdp::{Codec, Description, MAX_SDP, TRACKS, write_control};
use pandaproxy::rtsp::slot::Slot;
use pandaproxy::rtsp::stream::StreamInfo;
use pandaproxy::rtsp::upstream::Upstream;
use pandaproxy::rtsp::wire::{self, MAX_HEAD, Message, Method, Piece, Transport};
use pandaproxy::rtsp::{PlayerLink, Service};
use pandaproxy::service::Service as _;

use super::conversation::{Conversation, Script, both_ways};

/// The first message or packet, and each shorter part of it.
pub(crate) fn wire(data: &[u8]) {
    let (packet_most, body_most) = (2048, 4096);
    let mut rest = data;
    for _ in 0..64 {
        let piece = wire::next(rest, packet_most, body_most);
        let Ok((len, _)) = piece else { return };
        // No shorter part is parsed as something else.
        for shorter in (0..len.min(MAX_HEAD)).rev().step_by(1 + len / 32) {
            let less = wire::next(&rest[..shorter], packet_most, body_most);
            let is_patient = matches!(less, Ok((0, Piece::More) | (_, Piece::Oversized { .. })));
            assert!(is_patient, "{less:?} of {piece:?}");
        }
        if len > 0 {
            let own = wire::next(&rest[..len], packet_most, body_most);
            assert_eq!(own, piece, "what comes behind it is not looked at");
        }
        match piece {
            Ok((_, Piece::Message(message))) => about(&message),
            Ok((_, Piece::More)) => {
                assert!(rest.len() < MAX_HEAD + body_most, "more is wanted without end");
                return;
            }
            Ok(_) | Err(_) => {}
        }
        rest = &rest[len..];
    }
}

fn about(message: &Message<'_>) {
    _ = message.cseq();
    _ = message.status();
    if let Some((method, url)) = message.request() {
        assert!(!url.contains('\n'));
        if method != Method::Other {
            assert!(message.line.starts_with(method.name()));
        }
    }
    for value in message.fields_named("Transport") {
        if let Transport::Interleaved(channels) = Transport::parse(value) {
            assert_ne!(channels.rtp, channels.rtcp);
        }
    }
}

/// A stream description: ours, parsed again, is the same.
pub(crate) fn sdp(data: &[u8]) {
    let Ok(read) = Description::parse(data) else { return };
    assert!(read.text().len() <= MAX_SDP && read.main() < read.tracks().len());
    assert!(read.tracks().len() <= TRACKS);
    let again = Description::parse(read.text().as_bytes()).expect("we read what we write");
    assert_eq!(again.text(), read.text());
    assert_eq!((again.main(), again.tracks().len()), (read.main(), read.tracks().len()));
    for (at, (track, again)) in read.tracks().iter().zip(again.tracks()).enumerate() {
        assert_eq!((track.codec, track.rate), (again.codec, again.rate));
        assert!(track.rate > 0);
        let mut url = String::new();
        write_control(&mut url, "rtsps://10.1.2.3/streaming/live/1", &again.control).unwrap();
        assert_eq!(read.track_of(&url), Some(at));
        _ = write_control(&mut url, "rtsps://10.1.2.3/streaming/live/1", &track.control);
    }
}

/// A packet of either kind.
pub(crate) fn rtp(data: &[u8]) {
    if let Some(packet) = Packet::parse(data) {
        let mut ours = data.to_vec();
        let (head, rest) = packet.renumbered(7, 8, 9);
        ours[..head.len()].copy_from_slice(&head);
        assert_eq!(rest, &data[head.len()..]);
        let again = Packet::parse(&ours).expect("it is still one");
        assert_eq!((again.sequence, again.timestamp, again.ssrc), (7, 8, 9));
        assert_eq!((again.marker, again.payload), (packet.marker, packet.payload));
        for codec in [Codec::H264, Codec::H265, Codec::Other] {
            let content = Content::of(codec, packet.payload);
            assert!(content.picture || !content.key, "a key that is no picture");
        }
    }
    if let Some(report) = SenderReport::parse(data) {
        assert_eq!(SenderReport::parse(&report.bytes(5)), Some(report));
        _ = ReceiverReport { last_report: report.short_ntp(), ..ReceiverReport::default() }.bytes();
    }
}

/// The parameter sets of `tests/traces/rtsp/camera.h264`.
const MP4_SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z01AHtkAoC/5cBEAAAMAAQAAAwA8DxYuSA==,aOvMsg==\r\n";

/// Packets of H.264, each behind a byte that says what happens with it and the two of its length, as MP4.
pub(crate) fn mp4(data: &[u8]) {
    let slots = Slots::new(1, |_| Slot::new());
    let info = Rc::new(StreamInfo::new([7, 8]));
    let mut hub = Hub::new(slots.clone(), Rc::new(Demand::default()), Rc::clone(&info), 9);
    let mut now = Instant::START;
    let description = Description::parse(MP4_SDP.as_bytes()).unwrap();
    hub.described(now, &description);
    let slot = slots.take().unwrap();
    hub.join(&slot);
    hub.play(&slot);
    let mut mp4 = Mp4::new(Rc::clone(&slot), Rc::clone(&info));
    let (mut out, mut file) = (vec![0; MIN_OUTBOX], Vec::new());
    let (mut rest, mut sequence, mut timestamp) = (data, 0_u16, 0_u32);
    while let Some((&[flags, high, low], behind)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len()).min(MAX_PAYLOAD);
        let (payload, behind) = behind.split_at(len);
        rest = behind;
        if flags & 8 != 0 {
            hub.lost();
            hub.described(now, &description);
        }
        let mut bytes = vec![0x80, 96 | flags << 7];
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend(77_u32.to_be_bytes());
        bytes.extend(payload);
        sequence = sequence.wrapping_add(1);
        let packet = Packet::parse(&bytes).unwrap();
        let content = Content::of(Codec::H264, packet.payload);
        hub.packet(now, usize::from(flags & 16 != 0), &packet, content);
        if flags & 2 != 0 {
            timestamp = timestamp.wrapping_add(3000);
            now = now + Duration::from_millis(33);
        }
        if flags & 4 != 0 && !read_mp4(&mut mp4, &mut out, &mut file) {
            break;
        }
    }
    read_mp4(&mut mp4, &mut out, &mut file);
    // Whole boxes, and whole units in the samples.
    let mut boxes = &file[..];
    while let Some((&[a, b, c, d, ref name @ ..], _)) = boxes.split_first_chunk::<8>() {
        let (one, behind) = boxes.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
        boxes = behind;
        let mut units = if name == b"mdat" { &one[8..] } else { &[] };
        while !units.is_empty() {
            let (len, behind) = units.split_first_chunk().expect("a length");
            let (unit, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
            assert!(matches!(unit[0] & 0x1f, 1..=5), "a slice");
            units = behind;
        }
    }
    assert!(boxes.is_empty(), "a fragment is not whole");
    drop(slot);
    assert_eq!(slots.connections(), 0);
}

/// Bytes in a packet's payload at most.
const MAX_PAYLOAD: usize = MAX_PACKET - 12;

/// Whether the file can go on.
fn read_mp4(mp4: &mut Mp4, out: &mut [u8], file: &mut Vec<u8>) -> bool {
    loop {
        match mp4.write(out) {
            Err(Changed) => return false,
            Ok(0) => return true,
            Ok(len) => file.extend_from_slice(&out[..len]),
        }
    }
}

/// An `Authorization` header of a player, and a challenge of a printer: a line each.
pub(crate) fn digest(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let code = AccessCode::new(b"12345678").unwrap();
    // Both as parsed from a message's head, which is divided into lines before.
    let mut lines = text.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if judge(first, "DESCRIBE", &code, NONCE) == Verdict::Right {
        assert_eq!(
            judge(first, "DESCRIBE", &AccessCode::new(b"12345679").unwrap(), NONCE),
            Verdict::Wrong
        );
    }
    for values in [vec![first, second], vec![second, first]] {
        let Some(challenge) = Challenge::best_of(values.into_iter()) else { continue };
        let mut answer = String::new();
        let (uri, counted) = ("rtsps://10.1.2.3/", (1, "abc"));
        challenge.write_answer(&mut answer, &code, "PLAY", uri, counted).unwrap();
        assert_eq!(answer.lines().count(), 1, "an answer is one field: {answer:?}");
        let Challenge::Digest { nonce, .. } = &challenge else { continue };
        let value = answer.strip_prefix("Authorization: ").unwrap().trim_end();
        let verdict = judge(value, "PLAY", &code, nonce);
        assert!(matches!(verdict, Verdict::Right | Verdict::Stale), "{value}: {verdict:?}");
    }
    let mut challenges = String::new();
    write_challenge(&mut challenges, NONCE, false).unwrap();
}

const NONCE: &str = "0123456789abcdef0123456789abcdef";

const URL: &str = "rtsps://192.168.1.50:322/streaming/live/1";

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.168.1.50\r\ns=x\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n\
    m=audio 0 RTP/AVP 97\r\na=control:track2\r\n";

fn service() -> Rc<Service> {
    let code = AccessCode::new(b"12345678").unwrap();
    let status = Rc::new(Status::new("", Port6000::Auto));
    Service::new(code, status, URL.try_into().unwrap(), 1)
}

type Players = Conversation<Player, PlayerLink<fn(), fn(Guess)>>;

fn player_of(service: &Rc<Service>) -> Players {
    let times = (Instant::START, Instant::START + LOGIN_TIMEOUT);
    let guessed = (|_| {}) as fn(Guess);
    let nonce = Nonce::try_from(NONCE).unwrap();
    let ends = service.player(times, nonce, nothing as fn(), guessed).unwrap();
    Conversation::new(ends, budget::RTSP_INBOX, budget::RTSP_OUTBOX)
}

const fn nothing() {}

fn camera_of(service: &Rc<Service>, now: Instant) -> Conversation<Upstream, Rc<Service>> {
    let ends = (service.upstream(now), Rc::clone(service));
    Conversation::new(ends, budget::STREAM_INBOX, budget::STREAM_OUTBOX).begun(now)
}

/// The output of one of our sessions: messages and packets, separately. Nothing else may be
/// in it.
#[derive(Default, Debug, PartialEq)]
struct Said {
    messages: Vec<String>,
    packets: usize,
    /// The last one may be incomplete.
    rest: usize,
}

impl Said {
    fn of(mut bytes: &[u8]) -> Self {
        let mut said = Self::default();
        loop {
            let (len, piece) = wire::next(bytes, 65_535, 65_535).expect("what we say is RTSP");
            match piece {
                Piece::Message(message) => said.messages.push(format!("{message:?}")),
                Piece::Packet { .. } => said.packets += 1,
                Piece::More => {
                    said.rest = bytes.len();
                    return said;
                }
                Piece::Blank | Piece::Oversized { .. } => panic!("we say no such thing"),
            }
            bytes = &bytes[len..];
        }
    }
}

/// A camera that obeys each request, and sends a picture every second while it plays.
struct Camera {
    service: Rc<Service>,
    upstream: Option<Conversation<Upstream, Rc<Service>>>,
    plays: bool,
    shown: Instant,
    sequence: u16,
}

impl Camera {
    fn before(service: &Rc<Service>) -> Self {
        let service = Rc::clone(service);
        Self { service, upstream: None, plays: false, shown: Instant::START, sequence: 0 }
    }

    fn attend(&mut self, now: Instant) -> bool {
        self.service.handle_timeout(now);
        if self.upstream.is_none() {
            if !self.service.demand().is_wanted() {
                return false;
            }
            self.plays = false;
            self.upstream = Some(camera_of(&self.service, now));
        }
        let Some(upstream) = &mut self.upstream else { return false };
        upstream.reach(now);
        let mut moved = upstream.step();
        let said = upstream.take_said();
        let mut answers = Vec::new();
        let mut rest = &said[..];
        while let Ok((len, piece)) = wire::next(rest, 65_535, 65_535)
            && len > 0
        {
            if let Piece::Message(message) = piece {
                let (method, _) = message.request().expect("we ask a camera");
                self.plays |= method == Method::Play;
                answers.extend(answer(method, message.cseq().unwrap_or_default()).into_bytes());
            }
            rest = &rest[len..];
        }
        if self.plays && now.since(self.shown) >= Duration::from_secs(1) {
            self.shown = now;
            for (last, first) in [(false, 0x67), (true, 0x65)] {
                self.sequence = self.sequence.wrapping_add(1);
                answers.extend(picture_packet(self.sequence, now, last, first));
            }
        }
        if !answers.is_empty() {
            moved = true;
            upstream.hear(&answers, &mut |_| false);
        }
        if upstream.is_over() {
            self.upstream = None;
            self.service.lost();
        }
        moved
    }
}

/// A NAL unit in a packet on channel 0.
fn picture_packet(sequence: u16, now: Instant, last: bool, first: u8) -> Vec<u8> {
    let ticks = u32::try_from((now.elapsed().as_millis() * 90) & 0xffff_ffff).unwrap();
    let mut packet = vec![b'$', 0, 0, 0, 0x80, 96 | u8::from(last) << 7];
    packet.extend(sequence.to_be_bytes());
    packet.extend(ticks.to_be_bytes());
    packet.extend(77_u32.to_be_bytes());
    packet.extend([first, 0x88, 0x84, 0x21, 0xa0]);
    let len = u16::try_from(packet.len() - 4).unwrap().to_be_bytes();
    packet[2..4].copy_from_slice(&len);
    packet
}

fn answer(method: Method, cseq: u32) -> String {
    let head = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n");
    match method {
        Method::Options => {
            format!("{head}Public: OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, GET_PARAMETER\r\n\r\n")
        }
        Method::Describe => format!(
            "{head}Content-Base: {URL}/\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
            SDP.len()
        ),
        Method::Setup => {
            let first = u8::from(cseq > 3) * 2;
            format!(
                "{head}Session: 66334873;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved={first}-{}\r\n\r\n",
                first + 1
            )
        }
        Method::Play
        | Method::Pause
        | Method::GetParameter
        | Method::SetParameter
        | Method::Teardown
        | Method::Other => format!("{head}Session: 66334873\r\n\r\n"),
    }
}

/// A player's bytes. First flag: there is no camera.
pub(crate) fn client(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut player = player_of(&service);
        let mut camera = Camera::before(&service);
        script.play(&mut player, cut, &mut |now| {
            if script.flag(0) {
                service.handle_timeout(now);
                return false;
            }
            camera.attend(now)
        });
        let said = Said::of(&player.take_said());
        assert_eq!(said.rest, 0, "half of something was said");
        let (wrong, end) = (player.session.wrong_codes().len(), player.end);
        drop(player);
        assert_eq!(service.connections(), 0);
        (said.messages, wrong, end)
    });
}

/// A client that sends one request after another and then plays.
struct Watcher {
    player: Players,
    asked: usize,
    answered: usize,
    heard: Vec<u8>,
}

impl Watcher {
    /// Sends the first request.
    fn of(service: &Rc<Service>) -> Self {
        let mut watcher =
            Self { player: player_of(service), asked: 0, answered: 0, heard: Vec::new() };
        watcher.attend(Instant::START);
        assert!(service.demand().is_wanted());
        watcher
    }

    fn attend(&mut self, now: Instant) -> bool {
        self.player.reach(now);
        let moved = self.player.step();
        let mut said = self.player.take_said();
        if !said.is_empty() && self.answered < ASKED.len() {
            self.answered += Said::of(&said).messages.len();
        }
        self.heard.append(&mut said);
        let next = ASKED.get(self.asked).filter(|_| self.answered >= self.asked);
        let Some((what, fields)) = next else { return moved };
        let cseq = self.asked;
        let text = format!("{what} RTSP/1.0\r\nCSeq: {cseq}\r\n{BASIC}{fields}\r\n");
        self.asked += 1;
        self.player.hear(text.as_bytes(), &mut |_| false);
        true
    }
}

/// The camera's bytes. First flag: all players disconnect after a while.
pub(crate) fn upstream(data: &[u8]) {
    let script = Script::of(data);
    both_ways(|cut| {
        let service = service();
        let mut watcher = Some(Watcher::of(&service));
        let mut camera = camera_of(&service, Instant::START);
        let mut heard = Vec::new();
        script.play(&mut camera, cut, &mut |now| {
            service.handle_timeout(now);
            let moved = watcher.as_mut().is_some_and(|watcher| watcher.attend(now));
            if script.flag(0) && now.elapsed() >= Duration::from_secs(30) {
                heard.extend(watcher.take().into_iter().flat_map(|watcher| watcher.heard));
            }
            moved
        });
        heard.extend(watcher.into_iter().flat_map(|watcher| watcher.heard));
        assert_eq!(Said::of(&heard).rest, 0, "half of something was said");
        let said = Said::of(&camera.take_said());
        let counts = service.counts();
        (said, camera.end, counts.shown, counts.keys, counts.damaged, counts.too_long)
    });
}

const BASIC: &str = "Authorization: Basic YmJscDoxMjM0NTY3OA==\r\n";

/// A player's requests in order, with their header fields.
const ASKED: [(&str, &str); 4] = [
    ("DESCRIBE rtsps://10.1.2.3/streaming/live/1", ""),
    (
        "SETUP rtsps://10.1.2.3/streaming/live/1/track1",
        "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
    ),
    ("PLAY rtsps://10.1.2.3/streaming/live/1", ""),
    ("GET_PARAMETER rtsps://10.1.2.3/streaming/live/1", ""),
];
