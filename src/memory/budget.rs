//! How much memory this program may come to need: a line for each holder, and the compiler adds them up.
//!
//! What is ours is exact: whoever holds it asserts beside its own type that it takes no more than its
//! line says. What is rustls' and tokio's was measured, in the worst state that a peer can bring it
//! to, and rounded up; `tests/bounds.rs` brings it there again. The sum has to fit
//! `BOARD.memory`, or the build fails; the same figure is the limit of the [heap](super::heap).
//!
//! `pandaproxy --budget` prints these lines.

use super::KIB;
use super::pool::Shape;
use crate::board::BOARD;

/// What rustls holds for one connection at worst: a handshake message that is said to have 64 KiB, all
/// but its end, and 24 KiB that wait to be sent: 91 KiB. While an ordinary record of 16 KiB is put
/// together and 24 KiB wait to be sent it is 59 KiB, idle 6 to 12 KiB.
pub const TLS: usize = 96 * KIB;

/// What rustls takes on top of that while it looks at one piece of input. The worst is a handshake
/// message of 48 KiB whose last record goes on with 4000 empty ones: 305.1 KiB in all, until the first
/// of them is refused. There is one thread, so one connection at a time can be there.
pub const TLS_FLASH: usize = 224 * KIB;

/// One task: its future, with the session and the TLS connection in it, and tokio's own part.
///
/// [`runtime::launch`](crate::runtime::launch) does not compile with a larger one.
pub const TASK: usize = 12 * KIB;

/// What the hub and one client have between them, its ring of reports included.
pub const SLOT: usize = KIB + BOARD.mqtt.ring * 8;

/// What a frame costs beyond its bytes: its counts, its length, and where its readers get something
/// replaced.
pub const FRAME_SLOT: usize = 192;

/// What is kept of the printer's state besides the frames: what has changed since its last full
/// report, twice, because a merge reads one and writes the other, and the index of a merge.
pub const STATE: usize = 2 * STATE_CHANGES + 11 * KIB;

/// The printer's largest report, and that report's head.
pub const REPORT_INBOX: usize = BOARD.mqtt.large.size + KIB;

/// What has changed since the last full report, in bytes; past it a new full report is put together.
pub const STATE_CHANGES: usize = 16 * KIB;

/// Requests on their way, and those the printer has not acknowledged.
pub const LINE: usize = 3 * KIB + BOARD.mqtt.requests * 40;

/// The hub, besides its slots, frames and state: what is kept to recognise a resend, and the names.
pub const HUB: usize = 2 * KIB;

/// tokio: its scheduler, timers, signal pipe and event list.
pub const RUNTIME: usize = 64 * KIB;

/// rustls' configurations, certificates and keys, on both sides.
pub const CREDENTIALS: usize = 64 * KIB;

/// One TLS session kept so that a client which comes back need not be recognised from scratch.
pub const RESUMPTION: usize = 2 * KIB;

/// A connection that waits to be let in: a socket, and tokio's part of it.
pub const ARRIVAL: usize = KIB;

/// The configuration, the arguments it came from, and the names made of them.
pub const CONFIGURATION: usize = 96 * KIB;

/// The thread that looks up the printer's name, if it was given by name: its stack, and what the system's
/// resolver allocates.
pub const RESOLVER: usize = 224 * KIB;

/// The last events, and a count for each kind.
pub const JOURNAL: usize = 12 * KIB - PRINTER_STATUS;

/// Log lines that wait to be written to standard error; the largest print of the journal has 10 KiB.
pub const LOG_BUFFER: usize = 12 * KIB;

/// The stack of the thread that writes the log.
pub const LOG_STACK: usize = 32 * KIB;

/// What is known about the printer.
pub const PRINTER_STATUS: usize = KIB / 2;

/// What the hub and one viewer have between them: its ring of pictures, and its counts.
pub const CHAMBER_SLOT: usize = 256 + BOARD.chamber.ring * 8;

/// What a viewer may say that was not understood yet: its login is 80 bytes.
pub const CHAMBER_INBOX: usize = 256;

/// What a viewer is told besides pictures: their heads.
pub const CHAMBER_OUTBOX: usize = 64;

/// What the camera says that was not put into a frame yet.
pub const CAMERA_INBOX: usize = 16 * KIB;

/// What the camera is told: our login.
pub const CAMERA_OUTBOX: usize = 128;

/// The chamber camera's hub, besides its slots and frames.
pub const CHAMBER_HUB: usize = KIB;

/// Pictures held at once: one that comes, two that are the newest, and one that each viewer is in the
/// middle of.
pub const PICTURES: Shape = Shape { count: BOARD.clients.chamber + 3, size: BOARD.chamber.picture };

/// What the hub and one player have between them: its ring of blocks, and its counts.
pub const RTSP_SLOT: usize = 256 + BOARD.rtsp.ring * 8;

/// A request of a player's that was not understood yet, with its body.
pub const RTSP_INBOX: usize = 4 * KIB;

/// What a player is told in one piece: five blocks, which with their heads fill a TLS record.
pub const RTSP_OUTBOX: usize = 16 * KIB;

/// What the RTSPS camera says that was not understood yet: a description, or a packet.
pub const STREAM_INBOX: usize = 16 * KIB;

/// What the RTSPS camera is told in one piece: a request, or what came of its tracks.
pub const STREAM_OUTBOX: usize = KIB;

/// The RTSPS camera's hub, besides its slots and blocks: what the camera describes, and the blocks of the
/// picture that comes and of those since the last key frame.
pub const RTSP_HUB: usize = 5 * KIB + (RTSP_PICTURE + BOARD.rtsp.ring / 2) * 8;

/// Bytes of a packet of the RTSPS camera's with its head, as live555 sends them.
pub const RTSP_PACKET: usize = 1460;

/// Bytes in a block of the RTSPS camera's packets: it holds two of the usual ones. A picture between key
/// frames has two to ten, and the last block of each is half empty.
pub const RTSP_BLOCK: usize = 3 * KIB;

/// Blocks in the longest picture.
pub const RTSP_PICTURE: usize = BOARD.rtsp.picture.div_ceil(RTSP_BLOCK / RTSP_PACKET * RTSP_PACKET);

/// Blocks held at once: what waits for players, which is the same for all who keep up; a picture, and one
/// block more, that each player may be in the middle of; and the picture that comes.
pub const RTSP_BLOCKS: Shape = Shape {
    count: BOARD.rtsp.ring + BOARD.clients.rtsp * (RTSP_PICTURE + 1) + RTSP_PICTURE + 1,
    size: RTSP_BLOCK,
};

/// What the hub and one FTP client have between them: its line, its paths, what it has still to hear.
pub const FTP_SLOT: usize = 8 * KIB;

/// A line that an FTP client or server has not finished, and what comes behind it.
pub const FTP_INBOX: usize = 4 * KIB;

/// What an FTP client is told in one piece; a server gets one line.
pub const FTP_OUTBOX: usize = 3 * KIB;

/// The FTP hub, besides its slots, and the data ports.
pub const FTP_HUB: usize = 2 * KIB + FILERS * 64;

/// Sessions with the printer's FTP server at once, at most.
pub const FTP_SESSIONS: usize = 2;

/// What one of them, the hub and the mover of its data have between them.
pub const FTP_PRINTER_SESSION: usize = 2 * KIB;

/// Bytes of a file that a mover has in hand.
pub const FTP_BUFFER: usize = 16 * KIB;

/// FTP sessions of the printer's that are relayed at once, at most: see
/// [`Model::ftp_sessions`](crate::printer::model::Model::ftp_sessions).
pub const RELAY_SESSIONS: usize = 4;

/// Bytes on their way in one direction of a relayed connection that carries commands.
pub const RELAY_COMMANDS: usize = 4 * KIB;

/// Bytes on their way in one direction of a relayed connection that carries files: half a MB/s is 32
/// rounds a second.
pub const RELAY_FILES: usize = 16 * KIB;

/// A relay, besides its buffers: who is there and who is in line. The transfers of one have as much.
pub const RELAY: usize = 4 * KIB;

/// Relayed transfers at once: one for each control connection that the most patient printer takes.
pub const TRANSFERS: usize = RELAY_SESSIONS;

/// Data ports of the printer's that are open here: both families', 20 and 101, and some to spare.
pub const DATA_PORTS: usize = 128;

/// One of them: a listening socket, and tokio's part of it.
pub const DATA_PORT: usize = KIB / 2;

/// File tunnels at once: a slicer opens three or four for each job (PROTOCOL §6.2).
/// One more, so that one address cannot have them all.
pub const TUNNELS: usize = 5;

/// Connections of one service that may wait to be let in.
pub const ACCEPT_QUEUE: usize = 4 * BOARD.pre_auth;

/// MQTT connections served at once: clients, and those that have not shown the code yet.
pub const SLOTS: usize = BOARD.clients.mqtt + BOARD.pre_auth;

/// Connections to the chamber camera served at once: viewers, and those that have not shown the code.
pub const VIEWERS: usize = BOARD.clients.chamber + BOARD.pre_auth;

/// Connections to the RTSPS camera served at once: players, and those that have not shown the code.
pub const PLAYERS: usize = BOARD.clients.rtsp + BOARD.pre_auth;

/// FTP connections served at once: clients, and those that have not shown the code yet.
pub const FILERS: usize = BOARD.clients.ftp + BOARD.pre_auth;

/// Services that have a acceptor of their own.
pub const SERVICES: usize = 4;

/// TLS sessions kept.
pub const SESSIONS: usize = SLOTS + VIEWERS + PLAYERS;

/// TLS sessions kept of FTP clients, apart from the others: their data connections come back to them.
pub const FILE_SESSIONS: usize = 2 * FILERS;

/// Bytes of conversations that wait to be written to a recording.
pub const RECORDING_QUEUE: usize = 512 * KIB;

/// Conversations that can be recorded at once: with everybody who can be served, with the printer, and
/// the data connections of files.
pub const RECORDED: usize = SLOTS + VIEWERS + PLAYERS + FILERS + SERVICES - 1 + 3 * FTP_SESSIONS;

/// What is known of each of them while it is recorded.
pub const RECORDED_EACH: usize = KIB / 2 + KIB / 4;

/// The stack of the thread that writes a recording.
pub const WRITER_STACK: usize = 128 * KIB;

/// What it has in hand: a piece, a piece being redacted with its marks, what waits for one system call,
/// what is looked for and the addresses that were met.
pub const WRITER: usize = 96 * KIB;

/// One holder of memory.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// What it is.
    pub what: &'static str,
    /// How many there are.
    pub count: usize,
    /// Bytes in each.
    pub each: usize,
}

const fn line(what: &'static str, count: usize, each: usize) -> Line {
    Line { what, count, each }
}

/// Every holder there is.
pub const LINES: [Line; 46] = [
    line("mqtt client: inbox", SLOTS, BOARD.mqtt.inbox),
    line("mqtt client: outbox", SLOTS, BOARD.mqtt.outbox),
    line("mqtt client: TLS", SLOTS, TLS),
    line("mqtt client: task", SLOTS, TASK),
    line("mqtt client: slot with its ring", SLOTS, SLOT),
    line("mqtt frames: small", 1, BOARD.mqtt.small.bytes(FRAME_SLOT)),
    line("mqtt frames: large", 1, BOARD.mqtt.large.bytes(FRAME_SLOT)),
    line("mqtt state: changes", 1, STATE),
    line("mqtt hub", 1, HUB),
    line("mqtt upstream: inbox", 1, REPORT_INBOX),
    line("mqtt upstream: outbox", 1, BOARD.mqtt.outbox),
    line("mqtt upstream: TLS, task, line", 1, TLS + TASK + LINE),
    line("chamber viewer: inbox, outbox", VIEWERS, CHAMBER_INBOX + CHAMBER_OUTBOX),
    line("chamber viewer: TLS", VIEWERS, TLS),
    line("chamber viewer: task", VIEWERS, TASK),
    line("chamber viewer: slot with its ring", VIEWERS, CHAMBER_SLOT),
    line("chamber pictures", 1, PICTURES.bytes(FRAME_SLOT)),
    line("chamber hub", 1, CHAMBER_HUB),
    line("chamber upstream: inbox, outbox", 1, CAMERA_INBOX + CAMERA_OUTBOX),
    line("chamber upstream: TLS, task", 1, TLS + TASK),
    line("rtsp player: inbox, outbox", PLAYERS, RTSP_INBOX + RTSP_OUTBOX),
    line("rtsp player: TLS", PLAYERS, TLS),
    line("rtsp player: task", PLAYERS, TASK),
    line("rtsp player: slot with its ring", PLAYERS, RTSP_SLOT),
    line("rtsp blocks", 1, RTSP_BLOCKS.bytes(FRAME_SLOT)),
    line("rtsp hub", 1, RTSP_HUB),
    line("rtsp upstream: inbox, outbox", 1, STREAM_INBOX + STREAM_OUTBOX),
    line("rtsp upstream: TLS, task", 1, TLS + TASK),
    line("ftp client: inbox, outbox", FILERS, FTP_INBOX + FTP_OUTBOX),
    line("ftp client: TLS", FILERS, TLS),
    line("ftp client: task", FILERS, TASK),
    line("ftp client: slot", FILERS, FTP_SLOT),
    line("ftp hub", 1, FTP_HUB),
    line(
        "ftp upstream: inbox, outbox, session",
        FTP_SESSIONS,
        FTP_INBOX + FTP_OUTBOX + FTP_PRINTER_SESSION,
    ),
    line("ftp upstream: TLS, task", FTP_SESSIONS, TLS + TASK),
    line("ftp mover: buffer, TLS on both sides, task", FTP_SESSIONS, FTP_BUFFER + 2 * TLS + TASK),
    line("TLS: input being processed", 1, TLS_FLASH),
    line("accept queues", SERVICES * ACCEPT_QUEUE, ARRIVAL),
    line("TLS sessions kept", SESSIONS + FILE_SESSIONS, RESUMPTION),
    line("TLS credentials", 1, CREDENTIALS),
    line("runtime, listeners, housekeeping", 1, RUNTIME + (SERVICES + 2) * TASK),
    line("configuration", 1, CONFIGURATION),
    line("name resolver", 1, RESOLVER),
    line("journal", 1, JOURNAL),
    line("log: buffer, writer's stack", 1, LOG_BUFFER + LOG_STACK),
    line("printer status", 1, PRINTER_STATUS),
];

/// What is held beside all that while it is recorded (`--record`), and not at all otherwise.
pub const RECORDING: [Line; 3] = [
    line("recording: waiting to be written", 1, RECORDING_QUEUE),
    line("recording: conversations", RECORDED, RECORDED_EACH),
    line("recording: writer, its stack", 1, WRITER + WRITER_STACK),
];

/// Lines that are held in place of others, never beside them.
#[derive(Clone, Copy, Debug)]
pub struct Alternative {
    /// What those others begin with.
    pub of: &'static str,
    /// When.
    pub when: &'static str,
    /// What is held then.
    pub lines: &'static [Line],
}

/// All there are. None holds more than what it stands in for, so the sum need not count them.
pub const ALTERNATIVES: [Alternative; 2] = [
    Alternative {
        of: "ftp ",
        when: "files are relayed",
        lines: &[
            line("relay commands: buffers", RELAY_SESSIONS, 2 * RELAY_COMMANDS),
            line("relay commands: task", RELAY_SESSIONS + BOARD.pre_auth, TASK),
            line("relay transfers: buffers, task", TRANSFERS, 2 * RELAY_FILES + TASK),
            line("relay transfers: waiting", TRANSFERS, ARRIVAL),
            line("relay data ports", DATA_PORTS, DATA_PORT),
            line("relay data ports: task", 1, TASK),
            line("relay, and whose transfers there are", 2, RELAY),
        ],
    },
    Alternative {
        of: "chamber viewer: ",
        when: "port 6000 is a file tunnel",
        lines: &[
            line("tunnel: buffers", TUNNELS, 2 * RELAY_FILES),
            line("tunnel: task", TUNNELS + BOARD.pre_auth, TASK),
            line("tunnel: relay", 1, RELAY),
        ],
    },
];

/// What these lines hold together.
const fn sum(mut lines: &[Line]) -> usize {
    let mut sum = 0;
    while let [line, others @ ..] = lines {
        sum += line.count * line.each;
        lines = others;
    }
    sum
}

/// What those of [`LINES`] hold together that begin so.
const fn sum_of(beginning: &str) -> usize {
    let mut sum = 0;
    let mut lines: &[Line] = &LINES;
    while let [line, others @ ..] = lines {
        if begins_with(line.what.as_bytes(), beginning.as_bytes()) {
            sum += line.count * line.each;
        }
        lines = others;
    }
    sum
}

const fn begins_with(mut text: &[u8], mut beginning: &[u8]) -> bool {
    while let ([first, rest @ ..], [wanted, others @ ..]) = (text, beginning) {
        if *first != *wanted {
            return false;
        }
        (text, beginning) = (rest, others);
    }
    beginning.is_empty()
}

const _: () = {
    let mut all: &[Alternative] = &ALTERNATIVES;
    while let [alternative, others @ ..] = all {
        assert!(
            sum(alternative.lines) <= sum_of(alternative.of),
            "what is held in place of something else is more than that"
        );
        all = others;
    }
};

/// All lines together, in bytes, recordings apart.
pub const TOTAL: usize = sum(&LINES);

/// The same while it is recorded.
pub const TOTAL_RECORDING: usize = TOTAL + sum(&RECORDING);

const _: () =
    assert!(TOTAL <= BOARD.memory, "this board has less memory than its clients would need");
const _: () = assert!(
    TOTAL_RECORDING <= BOARD.memory,
    "this board has less memory than a recording would need"
);
// One frame is the state, one is being shown, and a merge needs a third to write into.
const _: () = assert!(BOARD.mqtt.large.count >= 3, "a board needs three large frames");
const _: () = assert!(
    BOARD.mqtt.large.count >= BOARD.mqtt.requests + 2,
    "a board needs two large frames more than requests, or senders of large ones are closed, not held back"
);
// A full state, and something behind it.
const _: () = assert!(BOARD.mqtt.ring >= 4, "a client's ring holds at least four reports");
// A report's head, a SUBACK or our own CONNECT is written in one piece.
const _: () = assert!(BOARD.mqtt.outbox >= KIB, "an outbox holds at least 1 KiB");
const _: () = assert!(BOARD.mqtt.inbox >= 4 * KIB, "an inbox holds the largest CONNECT");
const _: () = assert!(BOARD.chamber.ring >= 1, "a viewer's ring holds the newest picture");
const _: () = assert!(
    BOARD.rtsp.ring >= 2 * RTSP_PICTURE + 2,
    "half of a player's ring holds a key frame and what follows it"
);
const _: () = assert!(
    BOARD.pre_auth <= BOARD.clients.rtsp,
    "a player that was told to go and is stuck, while another has its place, holds a block"
);
const _: () = assert!(
    BOARD.pre_auth_per_address < BOARD.pre_auth,
    "one address must not keep all others from knocking"
);
