//! The memory budget: the most memory that each part of this program can need, added up at compile time.
//!
//! The lines of this program's own types are exact: an assertion beside each type compares its size with its line.
//! The lines of rustls and tokio were measured in the worst state that a peer can cause, and rounded up; `tests/bounds`
//! measures them again. The build fails if the sum exceeds `BOARD.memory`. The sum is the limit of the
//! [heap](super::heap).
//!
//! `pandaproxy --budget` prints these lines.

use super::KIB;
use super::pool::Shape;
use crate::board::BOARD;

/// Most bytes that rustls allocates for one connection. Measured: 91 KiB with an incomplete handshake message of
/// 64 KiB and 24 KiB of unsent output; 59 KiB with an incomplete record of 16 KiB and 24 KiB of unsent output; 6 to
/// 12 KiB idle.
pub const TLS: usize = 96 * KIB;

/// Bytes that rustls allocates beyond [`TLS`] while it processes one read. The worst case measured is a handshake
/// message of 48 KiB followed by 4000 empty records: 305.1 KiB in all, until the first of them is rejected. Because
/// there is one thread, one connection at a time can be in this state.
pub const TLS_FLASH: usize = 224 * KIB;

/// One task: its future, with the session and the TLS connection in it, and tokio's own part.
///
/// [`runtime::launch`](crate::runtime::launch) does not compile with a larger one.
pub const TASK: usize = 12 * KIB;

/// One task of a client without TLS, as [`TASK`].
pub const PLAIN_TASK: usize = 6 * KIB;

/// An MQTT client's slot, with its ring of reports.
pub const SLOT: usize = KIB + BOARD.mqtt.ring * 8;

/// Bytes of a frame beside its content: its counts, its length, and the positions to be rewritten for each reader.
pub const FRAME_SLOT: usize = 192;

/// The printer's state beside the frames: the changes since its last full report, twice, because a merge reads one copy
/// and writes the other, and the index of a merge.
pub const STATE: usize = 2 * STATE_CHANGES + 11 * KIB;

/// Inbox of the MQTT upstream: the printer's largest report with its head.
pub const REPORT_INBOX: usize = BOARD.mqtt.large.size + KIB;

/// Bytes of changes since the last full report. When exceeded, a new full report is built.
pub const STATE_CHANGES: usize = 16 * KIB;

/// The request queue, and the requests that the printer has not acknowledged.
pub const LINE: usize = 3 * KIB + BOARD.mqtt.requests * 40;

/// The MQTT hub without its slots, frames and state: the topics, and what detects repeated requests.
pub const HUB: usize = 2 * KIB;

/// tokio: its scheduler, timers, signal pipe and event list.
pub const RUNTIME: usize = 64 * KIB;

/// rustls' configurations, certificates and keys, on both sides.
pub const CREDENTIALS: usize = 64 * KIB;

/// One stored TLS session, which a returning client can resume.
pub const RESUMPTION: usize = 2 * KIB;

/// What clients download to verify a relayed printer's certificate as well: the proxy's authority, those that vouch for the printer
/// or five built-in ones, and the file of `--printer-ca`, as PEM. A printer of an unknown model may turn out to have a chamber
/// camera and nothing that is relayed: the lines of the other camera, which it lacks, are larger.
pub const AUTHORITIES: usize = MAX_AUTHORITIES + 16 * KIB;

/// Bytes of the file of `--printer-ca`, at most: a dozen certificates.
pub const MAX_AUTHORITIES: usize = 64 * KIB;

/// Wrong codes of origins, and the origins that logged in lately.
pub const LIMITER: usize = 10 * KIB;

/// A connection in an accept queue: a socket, and tokio's part of it.
pub const ARRIVAL: usize = KIB;

/// The configuration, and the arguments it was read from.
pub const CONFIGURATION: usize = 96 * KIB;

/// The thread that resolves the printer's name, if the printer is given by name: its stack, and the allocations of the
/// system's resolver.
pub const RESOLVER: usize = 224 * KIB;

/// The stack of the thread that reads and writes pins.
pub const PIN_STACK: usize = 64 * KIB;

/// The file of pins, as it is read and as it is written.
pub const PIN_FILE: usize = 40 * KIB;

/// The certificates that a relayed printer has shown, as they are written.
pub const CHAIN: usize = 8 * KIB;

/// The journal: the last events, and a count of each kind.
pub const JOURNAL: usize = 12 * KIB - KIB / 2;

/// What is counted of each service.
pub const COUNTS: usize = KIB;

/// Log lines that wait to be written to standard error; the journal prints up to 10 KiB at once.
pub const LOG_BUFFER: usize = 12 * KIB;

/// The stack of the thread that writes the log.
pub const LOG_STACK: usize = 32 * KIB;

/// The facts known about the printer.
pub const PRINTER_STATUS: usize = KIB / 2;

/// A viewer's slot, with its ring of pictures.
pub const CHAMBER_SLOT: usize = 256 + BOARD.chamber.ring * 8;

/// A viewer's inbox: its login has 80 bytes.
pub const CHAMBER_INBOX: usize = 256;

/// A viewer's outbox: a picture's head.
pub const CHAMBER_OUTBOX: usize = 64;

/// The chamber camera's inbox: input that was not copied into a frame yet.
pub const CAMERA_INBOX: usize = 16 * KIB;

/// The chamber camera's outbox: the proxy's login.
pub const CAMERA_OUTBOX: usize = 128;

/// The chamber camera's hub, besides its slots and frames.
pub const CHAMBER_HUB: usize = KIB;

/// Frames for pictures: one that is being received, the two newest, and one that is being sent to each viewer.
pub const PICTURES: Shape = Shape { count: BOARD.clients.chamber + 3, size: BOARD.chamber.picture };

/// A player's slot, with its ring of blocks.
pub const RTSP_SLOT: usize = 256 + BOARD.rtsp.ring * 8;

/// A player's inbox: a request with its body.
pub const RTSP_INBOX: usize = 4 * KIB;

/// A player's outbox: five blocks, which with their heads fill a TLS record.
pub const RTSP_OUTBOX: usize = 16 * KIB;

/// The RTSPS camera's inbox: a description, or a packet.
pub const STREAM_INBOX: usize = 16 * KIB;

/// The RTSPS camera's outbox: a request, or RTCP reports of its tracks.
pub const STREAM_OUTBOX: usize = KIB;

/// The RTSPS camera's hub without its slots and blocks: the description, and references to the blocks of the picture
/// that is being received and of those since the last key frame.
pub const RTSP_HUB: usize = 5 * KIB + (RTSP_PICTURE + BOARD.rtsp.ring / 2) * 8;

/// Bytes of a packet of the RTSPS camera's with its head, as live555 sends them.
pub const RTSP_PACKET: usize = 1460;

/// Bytes in a block of the RTSPS camera's packets: it holds two of the usual ones. A picture between key
/// frames has two to ten, and the last block of each is half empty.
pub const RTSP_BLOCK: usize = 3 * KIB;

/// Blocks in the longest picture.
pub const RTSP_PICTURE: usize = BOARD.rtsp.picture.div_ceil(RTSP_BLOCK / RTSP_PACKET * RTSP_PACKET);

/// Blocks: those that wait for players, which are the same for all that keep up; for each player, one picture that is
/// being sent and one block more; and the picture that is being received.
pub const RTSP_BLOCKS: Shape = Shape {
    count: BOARD.rtsp.ring + BOARD.clients.rtsp * (RTSP_PICTURE + 1) + RTSP_PICTURE + 1,
    size: RTSP_BLOCK,
};

/// An FTP client's slot, with its command line, paths and unsent replies.
pub const FTP_SLOT: usize = 8 * KIB;

/// Inbox of an FTP client or server: an incomplete line, or one line and the beginning of the next.
pub const FTP_INBOX: usize = 4 * KIB;

/// Outbox of an FTP client or server: replies, or one command.
pub const FTP_OUTBOX: usize = 3 * KIB;

/// The FTP hub, besides its slots, and the data ports.
pub const FTP_HUB: usize = 2 * KIB + FILERS * 64;

/// Sessions with the printer's FTP server at once, at most.
pub const FTP_SESSIONS: usize = 2;

/// A printer session: shared by its upstream, the hub and its data task.
pub const FTP_PRINTER_SESSION: usize = 2 * KIB;

/// Buffer of a data task, in bytes.
pub const FTP_BUFFER: usize = 16 * KIB;

/// The pace of an upload, and the timer that it is kept with.
pub const FTP_PACE: usize = 512;

/// FTP sessions of the printer's that are relayed at once, at most: see
/// [`Model::ftp_sessions`](crate::printer::model::Model::ftp_sessions).
pub const RELAY_SESSIONS: usize = 4;

/// Buffer of one direction of a relayed control connection, in bytes.
pub const RELAY_COMMANDS: usize = 4 * KIB;

/// Buffer of one direction of a relayed data connection, in bytes: at 0.5 MB/s it is filled 32 times a second.
pub const RELAY_FILES: usize = 16 * KIB;

/// A relay without its buffers: its connections, and the queue for a session. Its transfers take as much.
pub const RELAY: usize = 4 * KIB;

/// Relayed transfers at once: one for each session of the printer with most sessions.
pub const TRANSFERS: usize = RELAY_SESSIONS;

/// Data ports of the printer that the relay listens on: 20 and 101 of the two kinds of printer, and a reserve.
pub const DATA_PORTS: usize = 128;

/// One data port: a listening socket, and tokio's part of it.
pub const DATA_PORT: usize = KIB / 2;

/// File tunnels at once: a slicer opens three or four for each job
/// ([`protocol`](crate::protocol#file-tunnel)). There is one more, so that one address cannot take all.
pub const TUNNELS: usize = 5;

/// Connections to `detect` served at once on each of its two ports.
pub const DETECT_CLIENTS: usize = 4;

/// Inbox of a client of `detect`, or of the printer: one message.
pub const DETECT_INBOX: usize = KIB;

/// Outbox of a client of `detect`, or of the printer: one message.
pub const DETECT_OUTBOX: usize = KIB;

/// A slot of `detect`.
pub const DETECT_SLOT: usize = 192;

/// `detect` on one port, without its slots.
pub const DETECT_SERVICE: usize = 256;

/// Discovery: its hub, and two sockets.
pub const DISCOVERY: usize = 4 * KIB;

/// Inbox of an HTTP client: a request's head.
pub const HTTP_INBOX: usize = 2 * KIB;

/// Outbox of an HTTP client: a head and a short content, or a piece of a document.
pub const HTTP_OUTBOX: usize = 4 * KIB;

/// A slot of an HTTP client.
pub const HTTP_SLOT: usize = 192;

/// The HTTP service without its slots: what it shows, and how each connection to the printer fares.
pub const HTTP_SERVICE: usize = 8 * KIB;

/// Connections in the accept queue of one service.
pub const ACCEPT_QUEUE: usize = 4 * BOARD.pre_auth;

/// MQTT connections served at once: clients, and those that have not shown the code yet.
pub const SLOTS: usize = BOARD.clients.mqtt + BOARD.pre_auth;

/// Connections to the chamber camera served at once: viewers, and those that have not shown the code.
pub const VIEWERS: usize = BOARD.clients.chamber + BOARD.pre_auth;

/// Connections to the RTSPS camera served at once: players, and those that have not shown the code.
pub const PLAYERS: usize = BOARD.clients.rtsp + BOARD.pre_auth;

/// FTP connections served at once: clients, and those that have not shown the code yet.
pub const FILERS: usize = BOARD.clients.ftp + BOARD.pre_auth;

/// HTTP connections served at once: clients, and those that have not shown a code.
pub const BROWSERS: usize = BOARD.clients.http + BOARD.pre_auth;

/// Services that have an acceptor of their own.
pub const SERVICES: usize = 7;

/// Services that have a connection to the printer of which no other line says how many there are: MQTT and both cameras.
const UPSTREAMS: usize = 3;

/// Stored TLS sessions of clients other than FTP clients.
pub const SESSIONS: usize = SLOTS + VIEWERS + PLAYERS;

/// Stored TLS sessions of FTP clients, apart from the others, because data connections resume them.
pub const FILE_SESSIONS: usize = 2 * FILERS;

/// Bytes of recorded traffic that wait to be written.
pub const RECORDING_QUEUE: usize = 512 * KIB;

/// Connections that can be recorded at once: those of all slots, those to the printer, and data connections.
pub const RECORDED: usize = SLOTS + VIEWERS + PLAYERS + FILERS + UPSTREAMS + 3 * FTP_SESSIONS;

/// State of one recorded connection.
pub const RECORDED_EACH: usize = KIB / 2 + KIB / 4;

/// The stack of the thread that writes a recording.
pub const WRITER_STACK: usize = 128 * KIB;

/// Buffers of that thread: a piece, the same piece redacted, the output of one system call, the secrets to be redacted,
/// and the addresses met.
pub const WRITER: usize = 96 * KIB;

/// One line of the budget.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The part of the program that needs the memory.
    pub what: &'static str,
    /// The number of these parts.
    pub count: usize,
    /// Bytes that each needs.
    pub each: usize,
}

const fn line(what: &'static str, count: usize, each: usize) -> Line {
    Line { what, count, each }
}

/// All lines of the budget, without recordings.
pub const LINES: [Line; 62] = [
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
    line(
        "ftp mover: buffer, pace, TLS on both sides, task",
        FTP_SESSIONS,
        FTP_BUFFER + FTP_PACE + 2 * TLS + TASK,
    ),
    line("detect client: inbox, outbox", DETECT_CLIENTS, DETECT_INBOX + DETECT_OUTBOX),
    line("detect client: task, slot", DETECT_CLIENTS, PLAIN_TASK + DETECT_SLOT),
    line("detect-tls client: inbox, outbox", DETECT_CLIENTS, DETECT_INBOX + DETECT_OUTBOX),
    line("detect-tls client: TLS", DETECT_CLIENTS, TLS),
    line("detect-tls client: task, slot", DETECT_CLIENTS, TASK + DETECT_SLOT),
    line("detect services", 2, DETECT_SERVICE),
    line("detect upstream: inbox, outbox, task", 1, DETECT_INBOX + DETECT_OUTBOX + TASK),
    line("http client: inbox, outbox", BROWSERS, HTTP_INBOX + HTTP_OUTBOX),
    line("http client: task, slot", BROWSERS, PLAIN_TASK + HTTP_SLOT),
    line("http service", 1, HTTP_SERVICE),
    line("ssdp: sockets, hub, task", 1, DISCOVERY + TASK),
    line("ssdp: an address that is tried: TLS, task", 1, TLS + TASK),
    line("TLS: input being processed", 1, TLS_FLASH),
    line("accept queues", SERVICES * ACCEPT_QUEUE, ARRIVAL),
    line("wrong codes, known origins", 1, LIMITER),
    line("TLS sessions kept", SESSIONS + FILE_SESSIONS, RESUMPTION),
    line("TLS credentials", 1, CREDENTIALS),
    line("runtime, listeners, housekeeping", 1, RUNTIME + (SERVICES + 2) * TASK),
    line("configuration", 1, CONFIGURATION),
    line("name resolver", 1, RESOLVER + TASK),
    line("pins: writer's stack, file", 1, PIN_STACK + PIN_FILE),
    line("relayed printer's certificates: shown, to be written", 3, CHAIN),
    line("journal", 1, JOURNAL),
    line("counts of each service", 1, COUNTS),
    line("log: buffer, writer's stack", 1, LOG_BUFFER + LOG_STACK),
    line("printer status", 1, PRINTER_STATUS),
];

/// Lines that are added while traffic is recorded (`--record`).
pub const RECORDING: [Line; 3] = [
    line("recording: waiting to be written", 1, RECORDING_QUEUE),
    line("recording: conversations", RECORDED, RECORDED_EACH),
    line("recording: writer, its stack", 1, WRITER + WRITER_STACK),
];

/// Lines that replace others in some configurations.
#[derive(Clone, Copy, Debug)]
pub struct Alternative {
    /// Beginning of the names of the lines that are replaced.
    pub of: &'static str,
    /// The configuration.
    pub when: &'static str,
    /// The lines that replace them.
    pub lines: &'static [Line],
}

/// All alternatives. None is larger than what it replaces, so the sum is without them.
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
            line("relay authorities to download", 1, AUTHORITIES),
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
            line("tunnel: authorities to download", 1, AUTHORITIES),
        ],
    },
];

/// The sum of `lines`, in bytes.
const fn sum(mut lines: &[Line]) -> usize {
    let mut sum = 0;
    while let [line, others @ ..] = lines {
        sum += line.count * line.each;
        lines = others;
    }
    sum
}

/// The sum of those of [`LINES`] whose names begin with `beginning`, in bytes.
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
            "an alternative is larger than the lines it replaces"
        );
        all = others;
    }
};

/// The sum of all lines, in bytes, without recordings.
pub const TOTAL: usize = sum(&LINES);

/// The sum of all lines, in bytes, with a recording.
pub const TOTAL_RECORDING: usize = TOTAL + sum(&RECORDING);

const _: () =
    assert!(TOTAL <= BOARD.memory, "this board has less memory than its clients would need");
const _: () = assert!(
    TOTAL_RECORDING <= BOARD.memory,
    "this board has less memory than a recording would need"
);
// One frame is the state, one is being sent, and a merge writes into a third.
const _: () = assert!(BOARD.mqtt.large.count >= 3, "a board needs three large frames");
const _: () = assert!(
    BOARD.mqtt.large.count >= BOARD.mqtt.requests + 2,
    "a board needs two large frames more than requests, or senders of large ones are closed, not held back"
);
// A full state, and the reports after it.
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
    "a dismissed player that is stuck holds a block while another one has its slot"
);
const _: () = assert!(
    BOARD.pre_auth_per_address < BOARD.pre_auth,
    "one address must not hold all pre-auth slots"
);
