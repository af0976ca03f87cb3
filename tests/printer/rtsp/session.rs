//! One connection: what it asks and is answered, and the units that it plays.

use core::fmt::Write as _;
use core::time::Duration;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::select;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::super::WRITE_TIMEOUT;
use super::super::ledger::remember;
use super::digest::{self, REALM, md5};
use super::ledger::{Ending, Event, Request as Entry};
use super::media::Unit;
use super::message::{Inbox, Malformed, Message, Request};
use super::rtp::{Track, mark_slices, reports};
use super::server::{Playing, Server, Session, Slot};
use super::{MAX_DELAY, OverLimit, PATH, Quirk, REPORT_TIMEOUT, REQUEST_TIMEOUT, STAMP};

/// Serves a connection from its first request on; how it ended.
pub(super) async fn converse<S>(server: &Server, slot: &Slot, stream: S) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !server.live_view.get() && !server.answers_options.get() {
        return Ending::Off;
    }
    let (mut from, mut to) = split(stream);
    select! {
        biased;
        ending = slot.dropped() => ending,
        ending = hear(server, slot, &mut from) => ending,
        ending = speak(server, slot, &mut to) => ending,
    }
}

/// An RTCP BYE for this connection.
pub(super) fn goodbye(slot: &Slot) -> Vec<u8> {
    let session = slot.session.borrow();
    session.as_ref().map_or(Vec::new(), |session| {
        let bye = session.track.goodbye();
        [&head(session.channels.1, bye.len())[..], &bye].concat()
    })
}

// ---- receiving ------------------------------------------------------------------------------

async fn hear<R: AsyncRead + Unpin>(server: &Server, slot: &Slot, from: &mut R) -> Ending {
    let ending = read(server, slot, from).await;
    // What it has been promised is still written.
    slot.closing.set(Some(ending));
    slot.notify.notify_waiters();
    core::future::pending().await
}

async fn read<R: AsyncRead + Unpin>(server: &Server, slot: &Slot, from: &mut R) -> Ending {
    let (mut inbox, mut piece) = (Inbox::default(), [0; 2048]);
    let mut until = Instant::now() + REQUEST_TIMEOUT;
    loop {
        while server.has(Quirk::Deaf) || slot.is_full() {
            slot.notify.notified().await;
        }
        match inbox.next() {
            Ok(Some(Message::Interleaved(channel, frame))) => {
                if is_reported(server, slot, channel, &frame) {
                    until = Instant::now() + REQUEST_TIMEOUT;
                }
                continue;
            }
            Ok(Some(Message::Answer(status))) => {
                server.note(|ledger| remember(&mut ledger.answers, status));
                continue;
            }
            Ok(Some(Message::Request(request))) => {
                until = Instant::now() + REQUEST_TIMEOUT;
                match obey(server, slot, &request) {
                    None => continue,
                    Some(ending) => return ending,
                }
            }
            Err(Malformed) => return Ending::Malformed,
            Ok(None) => {}
        }
        let room = piece.len().min(inbox.room());
        select! {
            read = timeout_at(until, from.read(&mut piece[..room])) => match read {
                Ok(Ok(len @ 1..)) => inbox.add(&piece[..len]),
                Ok(Ok(0) | Err(_)) if slot.session.borrow().is_some() => return Ending::Lost,
                Ok(_) => return Ending::Orderly,
                Err(_) => return Ending::Silent,
            },
            () = slot.notify.notified() => {}
        }
    }
}

/// Takes an interleaved frame; whether there was a receiver report in it.
fn is_reported(server: &Server, slot: &Slot, channel: u8, frame: &[u8]) -> bool {
    let mut session = slot.session.borrow_mut();
    let session = session.as_mut().filter(|session| session.channels.1 == channel);
    let (found, whole) = reports(slot.number, frame);
    let Some(session) = session.filter(|_| whole) else {
        server.note(|ledger| ledger.strays += 1);
        return false;
    };
    if found.is_empty() {
        return false;
    }
    session.reported = Instant::now();
    slot.notify.notify_waiters();
    server.note(|ledger| {
        ledger.receiver_reports += found.len() as u64;
        found.iter().flatten().for_each(|report| remember(&mut ledger.reports, *report));
    });
    true
}

/// Answers a request; an ending if the connection ends with it.
fn obey(server: &Server, slot: &Slot, request: &Request) -> Option<Ending> {
    if request.method == "TEARDOWN" && server.has(Quirk::RudeTeardown) {
        slot.session.take();
        return Some(Ending::TornDown);
    }
    let (status, headers, body) = match request.number() {
        Some(_) => answer(server, slot, request),
        None => refusal(400),
    };
    let number = request.number().map(|number| format!("CSeq: {number}\r\n"));
    let mut text =
        format!("RTSP/1.0 {status} {}\r\n{}", reason(status), number.unwrap_or_default());
    text.push_str("Date: Thu, Jan 01 2026 00:00:00 GMT\r\n");
    text.push_str(&headers);
    while text.len() < server.header_bytes.get() {
        text.push_str("X-Padding: ................................................\r\n");
    }
    if !body.is_empty() {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    let _ = write!(text, "\r\n{body}");
    slot.put(text.into_bytes());
    let entry = Entry {
        connection: slot.number,
        method: request.method.clone(),
        uri: request.uri.clone(),
        status,
    };
    server.tell(&Event::Requested(&entry));
    server.note(|ledger| {
        ledger.answered += 1;
        ledger.setups += u64::from(entry.method == "SETUP" && status == 200);
        remember(&mut ledger.requests, entry);
    });
    match status {
        400 => Some(Ending::Malformed),
        _ if !server.live_view.get() => Some(Ending::Off),
        _ => None,
    }
}

/// Status, headers, body.
type Answer = (u16, String, String);

fn refusal(status: u16) -> Answer {
    (status, String::new(), String::new())
}

fn answer(server: &Server, slot: &Slot, request: &Request) -> Answer {
    const METHODS: &str =
        "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER";
    let method = request.method.as_str();
    if !METHODS.split(", ").any(|known| known == method) {
        return (405, format!("Allow: {METHODS}\r\n"), String::new());
    }
    if method == "OPTIONS" {
        return (200, format!("Public: {METHODS}\r\n"), String::new());
    }
    if !is_known(server, slot, request) {
        let nonce = md5(&server.give().to_string());
        let header = format!("WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{nonce}\"\r\n");
        slot.nonce.replace(nonce);
        return (401, header, String::new());
    }
    let (base, path) = request.uri.split_at(path_at(&request.uri));
    let within = path.strip_prefix(PATH).map(|rest| rest.trim_end_matches('/'));
    match (method, within) {
        (_, None) | ("DESCRIBE", Some("/track1")) => refusal(404),
        ("DESCRIBE", Some("")) => {
            let sdp = server.media.borrow().sdp(!server.has(Quirk::NoVideo));
            let headers =
                format!("Content-Base: {base}{PATH}/\r\nContent-Type: application/sdp\r\n");
            (200, headers, sdp)
        }
        ("SETUP", Some("/track1")) => set_up(server, slot, request),
        ("SETUP", Some(_)) => refusal(404),
        (_, Some("" | "/track1")) => within_session(server, slot, request),
        (_, Some(_)) => refusal(404),
    }
}

fn is_known(server: &Server, slot: &Slot, request: &Request) -> bool {
    let Some(header) = request.header("authorization") else { return false };
    let nonce = slot.nonce.borrow();
    let code = server.code.borrow();
    let known = !nonce.is_empty() && digest::admits(header, &request.method, &code, &nonce);
    server.note(|ledger| ledger.wrong_digests += u64::from(!known));
    known
}

/// Where the path begins in `rtsps://host:port/path`.
fn path_at(uri: &str) -> usize {
    let host = uri.find("://").map_or(0, |at| at + 3);
    uri[host..].find('/').map_or(uri.len(), |at| host + at)
}

fn set_up(server: &Server, slot: &Slot, request: &Request) -> Answer {
    let transport = request.header("transport").unwrap_or_default();
    let Some(offer) = transport.split(',').find(|offer| offer.contains("RTP/AVP/TCP")) else {
        return refusal(461);
    };
    let channels = offer.split(';').find_map(|field| field.trim().strip_prefix("interleaved="));
    let channels = channels.unwrap_or("0-1");
    let (first, second) = channels.split_once('-').unwrap_or((channels, "1"));
    let (Ok(first), Ok(second)) = (first.parse(), second.parse()) else { return refusal(400) };
    if slot.session.borrow().is_some() {
        return refusal(459);
    }
    if server.over.get() == OverLimit::Refuses && server.sessions() >= server.sessions_most.get() {
        return refusal(453);
    }
    let (id, ssrc) = (server.give(), server.give());
    let track =
        Track { ssrc, sequence: (ssrc >> 7) as u16, base: server.give(), packets: 0, octets: 0 };
    let reported = Instant::now();
    let session = Session { id, channels: (first, second), track, playing: None, reported };
    slot.session.replace(Some(session));
    let headers = format!(
        "Transport: RTP/AVP/TCP;unicast;destination=127.0.0.1;source=127.0.0.1;\
         interleaved={first}-{second}\r\nSession: {id:08X};timeout={}\r\n",
        REQUEST_TIMEOUT.as_secs()
    );
    (200, headers, String::new())
}

fn within_session(server: &Server, slot: &Slot, request: &Request) -> Answer {
    let mut place = slot.session.borrow_mut();
    let named = request.header("session").map(|named| named.split(';').next().unwrap_or(named));
    let session = place.as_mut().filter(|session| Some(&*format!("{:08X}", session.id)) == named);
    let Some(session) = session else { return refusal(454) };
    let own = format!("Session: {:08X}\r\n", session.id);
    match request.method.as_str() {
        "PLAY" => {
            let now = Instant::now();
            let (unit, track) = (server.next_unit(), session.track);
            session.reported = now;
            session.playing.get_or_insert(Playing {
                unit,
                since: now,
                report: now + server.reports_every.get(),
                awaits_key: false,
            });
            slot.notify.notify_waiters();
            let headers = format!(
                "Range: npt=0.000-\r\n{own}RTP-Info: url={}/track1;seq={};rtptime={}\r\n",
                request.uri.trim_end_matches('/'),
                track.sequence,
                timestamp(server, &track, unit)
            );
            (200, headers, String::new())
        }
        "PAUSE" => {
            session.playing = None;
            (200, own, String::new())
        }
        "TEARDOWN" => {
            *place = None;
            (200, String::new(), String::new())
        }
        "GET_PARAMETER" => (200, own, "2020.03.06".to_owned()),
        _ => (200, own, String::new()),
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Stream Not Found",
        405 => "Method Not Allowed",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        459 => "Aggregate Operation Not Allowed",
        461 => "Unsupported Transport",
        _ => "Internal Server Error",
    }
}

// ---- sending --------------------------------------------------------------------------------

async fn speak<W: AsyncWrite + Unpin>(server: &Server, slot: &Slot, to: &mut W) -> Ending {
    let ending = loop {
        match step(server, slot, to).await {
            Ok(()) => {}
            Err(ending) => break ending,
        }
    };
    if ending != Ending::Lost {
        return ending;
    }
    // Its last request, for example TEARDOWN, may still be unread.
    let heard = async {
        loop {
            if let Some(ending) = slot.closing.get() {
                return ending;
            }
            slot.next();
            slot.notify.notified().await;
        }
    };
    timeout(WRITE_TIMEOUT, heard).await.unwrap_or(ending)
}

/// Writes the next thing that has to be written, or waits for it.
async fn step<W: AsyncWrite + Unpin>(
    server: &Server,
    slot: &Slot,
    to: &mut W,
) -> Result<(), Ending> {
    if server.has(Quirk::Deaf) {
        slot.notify.notified().await;
        return Ok(());
    }
    if let Some(bytes) = slot.next() {
        put(to, &bytes).await?;
        return flush(to).await;
    }
    if let Some(ending) = slot.closing.get() {
        return Err(ending);
    }
    let Some(due) = next_due(server, slot) else {
        slot.notify.notified().await;
        return Ok(());
    };
    select! {
        biased;
        () = slot.notify.notified() => return Ok(()),
        () = sleep_until(due) => {}
    }
    play(server, slot, to).await
}

/// When there is something to play next, if anything is to be.
fn next_due(server: &Server, slot: &Slot) -> Option<Instant> {
    let session = slot.session.borrow();
    let session = session.as_ref()?;
    let playing = session.playing.as_ref()?;
    if server.has(Quirk::Silence) {
        return None;
    }
    let starts = playing.since + server.first_after.get();
    Some(server.due(playing.unit).max(starts).min(playing.report.max(starts)))
}

/// A sender report, or one unit.
async fn play<W: AsyncWrite + Unpin>(
    server: &Server,
    slot: &Slot,
    to: &mut W,
) -> Result<(), Ending> {
    let frames = {
        let mut place = slot.session.borrow_mut();
        let Some(session) = place.as_mut() else { return Ok(()) };
        let Some(playing) = session.playing else { return Ok(()) };
        if playing.report <= Instant::now() {
            report(server, session)
        } else {
            unit(server, session)
        }
    };
    for (channel, packet) in frames {
        // live555 writes the head by itself, and so in a record of its own.
        put(to, &head(channel, packet.len())).await?;
        if server.cut_next.get() && packet.len() > 100 {
            server.cut_next.set(false);
            put(to, &packet[..packet.len() / 2]).await?;
            flush(to).await?;
            return Err(Ending::Cut);
        }
        put(to, &packet).await?;
    }
    flush(to).await
}

/// Frames to be written: their channel, and what is in them.
type Frames = Vec<(u8, Vec<u8>)>;

fn report(server: &Server, session: &mut Session) -> Frames {
    let since = server.since();
    let passed = since.as_nanos() * 90_000 / 1_000_000_000;
    let playing = session.playing.as_mut().unwrap();
    playing.report = Instant::now() + server.reports_every.get().max(Duration::from_millis(1));
    if server.has(Quirk::NoSenderReports) {
        return Vec::new();
    }
    let timestamp = session.track.base.wrapping_add(stuck(server, u64::try_from(passed).unwrap()));
    vec![(session.channels.1, session.track.sender_report(since, timestamp))]
}

fn unit(server: &Server, session: &mut Session) -> Frames {
    let media = Rc::clone(&server.media.borrow());
    let playing = session.playing.as_mut().unwrap();
    let (number, now) = (playing.unit, Instant::now());
    playing.unit += 1;
    let unit = media.unit(number);
    if server.due(number) + MAX_DELAY < now {
        playing.awaits_key = true;
    }
    if playing.awaits_key && unit.key && server.due(number) + MAX_DELAY >= now {
        playing.awaits_key = false;
    }
    let mute = server.has(Quirk::NeedsReports) && session.reported + REPORT_TIMEOUT <= now;
    let early = unit.key && playing.since + server.key_after.get() > now;
    if playing.awaits_key {
        server.note(|ledger| ledger.skipped += 1);
    }
    if playing.awaits_key || mute || early {
        return Vec::new();
    }
    let timestamp = timestamp(server, &session.track, number);
    let unit = dressed(server, &unit, number);
    let (most, packing) = (server.packet_most.get(), server.packing.get());
    let mut packets = session.track.packets(media.codec, &unit, timestamp, most, packing);
    if server.has(Quirk::Garbage) {
        for packet in &mut packets {
            packet[12..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7) | 0x1f);
        }
    }
    if server.has(Quirk::LosesPackets) && packets.len() > 2 {
        packets[1] = packets[0].clone();
    }
    if server.has(Quirk::MarksSlices) {
        mark_slices(&mut packets);
    }
    let (rtp, _) = session.channels;
    let channel = if server.has(Quirk::WrongChannel) { rtp.wrapping_add(4) } else { rtp };
    let mut frames = Vec::with_capacity(packets.len() + 1);
    if server.has(Quirk::StrayChannels) {
        frames.push((rtp.wrapping_add(9), b"a packet of no stream".to_vec()));
    }
    frames.extend(packets.into_iter().map(|packet| (channel, packet)));
    server.note(|ledger| ledger.units += 1);
    frames
}

/// The unit as it leaves: without parameter sets, or with a stamp, if that is wanted.
fn dressed(server: &Server, unit: &Rc<Unit>, number: u64) -> Rc<Unit> {
    let stamp = server.stamp.borrow().clone();
    if stamp.is_none() && !server.has(Quirk::NoSets) {
        return Rc::clone(unit);
    }
    let mut unit = Unit::clone(unit);
    if server.has(Quirk::NoSets) {
        let codec = server.media.borrow().codec;
        unit.nals.retain(|nal| !codec.is_set(codec.kind(nal)));
    }
    if let Some(stamp) = stamp {
        let slice = unit.nals.last_mut().unwrap();
        slice[8..8 + STAMP].copy_from_slice(&stamp(number));
    }
    Rc::new(unit)
}

fn timestamp(server: &Server, track: &Track, unit: u64) -> u32 {
    track.base.wrapping_add(stuck(server, unit * 90_000 / u64::from(server.rate.get())))
}

/// So many ticks of 90 kHz, or as many as the printer gets to.
fn stuck(server: &Server, ticks: u64) -> u32 {
    const STUCK_AT: u64 = 5400;
    let ticks = if server.has(Quirk::StuckTimestamps) { ticks.min(STUCK_AT) } else { ticks };
    ticks as u32 // they wrap
}

/// Before an interleaved frame.
fn head(channel: u8, len: usize) -> [u8; 4] {
    let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
    [b'$', channel, high, low]
}

async fn put<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> Result<(), Ending> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match timeout(WRITE_TIMEOUT, to.write(rest)).await {
            Ok(Ok(0) | Err(_)) => return Err(Ending::Lost),
            Ok(Ok(written)) => rest = &rest[written..],
            Err(_) => return Err(Ending::Stuck),
        }
    }
    Ok(())
}

async fn flush<W: AsyncWrite + Unpin>(to: &mut W) -> Result<(), Ending> {
    match timeout(WRITE_TIMEOUT, to.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ending::Lost),
        Err(_) => Err(Ending::Stuck),
    }
}
