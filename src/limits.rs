//! `pandaproxy --limits`: what this build admits, and what happens when a limit is exceeded.
//!
//! The figures are the constants of the services and of the board, not copies of them.

use core::fmt;
use core::time::Duration;

use crate::auth::{LOCKOUT_TIMEOUT, MAX_WRONG, WRONG_CODE_TIMEOUT, WRONG_CODES};
use crate::board::{BOARD, Mqtt};
use crate::memory::{KIB, budget};
use crate::runtime::accept::{HELLO_TIMEOUT, PROGRESS_TIMEOUT};
use crate::runtime::files::relay;
use crate::runtime::services::ssdp as discovery;
use crate::runtime::stream;
use crate::segment::MAX_SEGMENTS;
use crate::{bind, chamber, ftp, http, mqtt, rtsp, ssdp};

/// Prints all limits, one table a service.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

/// One limit.
struct Limit<'a> {
    what: &'a str,
    bound: fmt::Arguments<'a>,
    exceeded: &'a str,
}

/// Widths of the first two columns.
const WHAT: usize = 35;
const BOUND: usize = 14;

/// Prints the rows of a service.
fn table(f: &mut fmt::Formatter<'_>, title: &str, limits: &[Limit<'_>]) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    for Limit { what, bound, exceeded } in limits {
        // `Arguments` does not pad.
        let bound = alloc::format!("{bound}");
        writeln!(f, "  {what:<WHAT$}{bound:<BOUND$}{exceeded}")?;
    }
    Ok(())
}

/// A row of a table.
macro_rules! limit {
    ($what:expr, $exceeded:expr, $($bound:tt)+) => {
        Limit { what: $what, bound: format_args!($($bound)+), exceeded: $exceeded }
    };
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = Duration::as_secs;
        writeln!(f, "board {}", BOARD.name)?;
        writeln!(f, "  {:<WHAT$}{:<BOUND$}when exceeded", "limit", "bound")?;
        table(
            f,
            "all services",
            &[
                limit!("clients before login", "they wait", "{}", BOARD.pre_auth),
                limit!("of these, per address", "they wait", "{}", BOARD.pre_auth_per_address),
                limit!(
                    "connections that wait",
                    "a waiting one is closed",
                    "{}",
                    budget::ACCEPT_QUEUE
                ),
                limit!("a whole TLS ClientHello", "closed", "{} s", s(&HELLO_TIMEOUT)),
                limit!(
                    "handshake, login, if others wait",
                    "closed",
                    "{} s each",
                    s(&PROGRESS_TIMEOUT)
                ),
                limit!(
                    "wrong codes of an address",
                    "locked out (next)",
                    "{WRONG_CODES} in {} s",
                    s(&WRONG_CODE_TIMEOUT)
                ),
                limit!("lockout", "ends", "{} s", s(&LOCKOUT_TIMEOUT)),
                limit!(
                    "a write without progress",
                    "the client is disconnected",
                    "{} s",
                    s(&stream::WRITE_TIMEOUT)
                ),
                limit!("memory", "the program ends", "{} KiB", budget::TOTAL.div_ceil(KIB)),
            ],
        )?;
        let Mqtt { inbox, ring, requests, .. } = BOARD.mqtt;
        table(
            f,
            "mqtt",
            &[
                limit!("clients", "CONNACK 3", "{}", BOARD.clients.mqtt),
                limit!("time to log in", "disconnected", "{} s", s(&mqtt::client::CONNECT_TIMEOUT)),
                limit!("packet from a client", "disconnected", "{} KiB", inbox / KIB),
                limit!(
                    "subscriptions of a client",
                    "SUBACK 0x80",
                    "{} of {} bytes",
                    mqtt::client::FILTERS,
                    mqtt::client::FILTER
                ),
                limit!(
                    "unacknowledged requests a client",
                    "not read until acknowledged",
                    "{}",
                    mqtt::slot::MAX_DEBTS
                ),
                limit!("requests towards the printer", "clients are not read", "{requests}"),
                limit!(
                    "a write to the printer",
                    "it is dialled again",
                    "{} s",
                    s(&stream::PRINTER_WRITE_TIMEOUT)
                ),
                limit!("reports that wait for a client", "dropped, then the full state", "{ring}"),
                limit!(
                    "others' requests that wait",
                    "dropped and counted",
                    "{}",
                    mqtt::slot::REQUESTS
                ),
                limit!(
                    "time to take one report",
                    "disconnected",
                    "{} s",
                    s(&mqtt::client::REPORT_TIMEOUT)
                ),
                limit!("report", "skipped and logged", "{} KiB", BOARD.mqtt.large.size / KIB),
                limit!(
                    "the printer is away",
                    "clients are disconnected",
                    "{} s",
                    s(&mqtt::hub::AWAY_TIMEOUT)
                ),
            ],
        )?;
        table(
            f,
            "chamber",
            &[
                limit!("viewers", "disconnected", "{}", BOARD.clients.chamber),
                limit!(
                    "time to log in",
                    "disconnected",
                    "{} s",
                    s(&chamber::client::LOGIN_TIMEOUT)
                ),
                limit!("picture", "skipped and logged", "{} KiB", BOARD.chamber.picture / KIB),
                limit!(
                    "pictures that wait for a viewer",
                    "all but the newest dropped",
                    "{}",
                    BOARD.chamber.ring
                ),
                limit!(
                    "silent camera",
                    "reconnected after 1 to 60 s",
                    "{} s",
                    s(&chamber::upstream::SILENCE_TIMEOUT)
                ),
            ],
        )?;
        table(
            f,
            "rtsp",
            &[
                limit!("players", "503", "{}", BOARD.clients.rtsp),
                limit!("time to log in", "disconnected", "{} s", s(&rtsp::client::LOGIN_TIMEOUT)),
                limit!("wrong codes of a connection", "403, disconnected", "{}", MAX_WRONG),
                limit!("request", "400, disconnected", "{} bytes", rtsp::wire::MAX_HEAD),
                limit!(
                    "a player that does not play",
                    "disconnected",
                    "{} s",
                    s(&rtsp::answer::SESSION_TIMEOUT)
                ),
                limit!("packet", "skipped with its picture", "{} bytes", rtsp::hub::MAX_PACKET),
                limit!("picture", "skipped and logged", "{} KiB", BOARD.rtsp.picture / KIB),
                limit!(
                    "pictures that wait for a player",
                    "dropped to a key frame",
                    "{} KiB",
                    rtsp::RING * budget::RTSP_BLOCK / KIB
                ),
                limit!("silent camera", "reconnected", "{} s", s(&rtsp::upstream::SILENCE_TIMEOUT)),
            ],
        )?;
        table(
            f,
            "ftp, proxy mode",
            &[
                limit!("clients", "421", "{}", BOARD.clients.ftp),
                limit!(
                    "time to log in",
                    "421, disconnected",
                    "{} s",
                    s(&ftp::client::LOGIN_TIMEOUT)
                ),
                limit!("command line", "500, disconnected", "{} bytes", ftp::wire::LINE),
                limit!("idle client", "421, disconnected", "{} s", s(&ftp::client::IDLE_TIMEOUT)),
                limit!(
                    "wait for the printer's session",
                    "451",
                    "{} s",
                    s(&ftp::hub::QUEUE_TIMEOUT)
                ),
                limit!(
                    "unused data port",
                    "closed; 425",
                    "{} s",
                    s(&ftp::slot::PASSIVE_PORT_TIMEOUT)
                ),
                limit!(
                    "printer's reply after an upload",
                    "426, new session",
                    "{} s",
                    s(&ftp::upstream::STORED_TIMEOUT)
                ),
            ],
        )?;
        table(
            f,
            "ftp, relay mode, and the file tunnel",
            &[
                limit!("control connections", "they wait", "{}", budget::RELAY_SESSIONS),
                limit!("transfers", "they wait", "{}", budget::TRANSFERS),
                limit!("file tunnels", "they wait", "{}", budget::TUNNELS),
                limit!(
                    "a write without progress",
                    "both sides are reset",
                    "{} s",
                    s(&relay::STALL_TIMEOUT)
                ),
                limit!(
                    "silent transfer",
                    "both sides are reset",
                    "{} s",
                    s(&relay::FILE_SILENCE_TIMEOUT)
                ),
            ],
        )?;
        table(
            f,
            "detect",
            &[
                limit!("connections, on each port", "they wait", "{}", bind::CLIENTS),
                limit!(
                    "of these, per address",
                    "they wait",
                    "{}",
                    BOARD.pre_auth_per_address.min(bind::CLIENTS - 1)
                ),
                limit!("time for a request", "closed", "{} s", s(&bind::client::REQUEST_TIMEOUT)),
                limit!("request", "closed", "{} bytes", bind::wire::MAX_FRAME),
                limit!(
                    "questions to the printer",
                    "asked later",
                    "1 in {} s",
                    s(&bind::RETRY_INTERVAL)
                ),
            ],
        )?;
        table(
            f,
            "http",
            &[
                limit!("clients", "503", "{}", BOARD.clients.http),
                limit!("wrong codes of a connection", "401, disconnected", "{}", MAX_WRONG),
                limit!(
                    "wrong tokens in URLs of an address",
                    "429 for such URLs",
                    "{WRONG_CODES} in {} s",
                    s(&WRONG_CODE_TIMEOUT)
                ),
                limit!(
                    "time for a request",
                    "408, closed",
                    "{} s",
                    s(&http::client::REQUEST_TIMEOUT)
                ),
                limit!("time between requests", "closed", "{} s", s(&http::client::IDLE_TIMEOUT)),
                limit!("request head", "431, closed", "{} bytes", http::wire::MAX_HEAD),
                limit!("path", "414, closed", "{} bytes", http::wire::MAX_TARGET),
                limit!("body", "413, closed", "none"),
                limit!(
                    "time until the first picture",
                    "503",
                    "{} s",
                    s(&http::media::FIRST_TIMEOUT)
                ),
            ],
        )?;
        table(
            f,
            "ssdp",
            &[
                limit!("datagram", "ignored", "{} bytes", ssdp::wire::MAX_DATAGRAM),
                limit!(
                    "datagrams read",
                    "they wait, or are lost",
                    "{} in {} ms",
                    discovery::MAX_READ,
                    discovery::READ_INTERVAL.as_millis()
                ),
                limit!("networks announced to", "left out", "{}", MAX_SEGMENTS),
                limit!("named addresses", "refused at the start", "{}", ssdp::MAX_ADDRESSES),
                limit!(
                    "answers to the printer's packets",
                    "the next follows when it may",
                    "{} in {} s",
                    ssdp::hub::ANSWERS,
                    s(&ssdp::hub::ANSWERS_INTERVAL)
                ),
                limit!(
                    "replies to searches of an address",
                    "ignored",
                    "1 in {} s",
                    s(&ssdp::hub::SEARCH_INTERVAL)
                ),
                limit!(
                    "replies to all searches",
                    "ignored",
                    "{} in {} s",
                    ssdp::hub::MAX_SEARCHERS,
                    s(&ssdp::hub::SEARCH_INTERVAL)
                ),
                limit!(
                    "addresses tried for the printer",
                    "they wait",
                    "1 in {} s",
                    s(&ssdp::claims::TRY_INTERVAL)
                ),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn limits_fit_eighty_columns_and_name_the_boards_figures() {
        let text = Limits.to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let clients = BOARD.clients;
        for (section, figure) in
            [("mqtt", clients.mqtt), ("chamber", clients.chamber), ("http", clients.http)]
        {
            let (_, rest) = text.split_once(&alloc::format!("\n{section}\n")).unwrap();
            let first = rest.lines().next().unwrap();
            assert_eq!(
                first.split_whitespace().nth(1),
                Some(figure.to_string().as_str()),
                "{first}"
            );
        }
    }
}
