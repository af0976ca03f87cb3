//! What is shown of the running proxy: as JSON (`/status`), as text (`/status.txt`) and for Prometheus (`/metrics`).
//!
//! The JSON's names are listed in the [module's documentation](super). All three are written [in pieces](super::page).

use core::fmt;
use core::net::Ipv4Addr;
use std::time::SystemTime;

use super::page::{Bare, Cursor, Hex, Page, Quoted, Text, text};
use super::{Listed, Service};
use crate::board::BOARD;
use crate::cause::Cause;
use crate::clock::{Instant, Utc};
use crate::counts::{self, Count, SERVICES};
use crate::journal::{self, Kind};
use crate::memory::budget::ACCEPT_QUEUE;
use crate::memory::heap;
use crate::printer::camera::CameraKind;
use crate::printer::status::{Certificate, Code, Login, Status};
use crate::printer::upstream::{REASONS, State};
use crate::service::{Bound, Connection, Transfer, Visitor};

/// Events shown, newest first.
const EVENTS: usize = 32;

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// `/status`.
    Json,
    /// `/status.txt`.
    Text,
    /// `/metrics`.
    Metrics,
}

/// The key of an item.
const fn key(part: u8, service: usize, sub: usize) -> u32 {
    u32::from_be_bytes([part, service as u8, 0, 0]) | (sub as u32 & 0xffff)
}

/// The last item of a service in a part.
const LAST: usize = 0xffff;

/// What the documents are made of.
pub(super) struct Source<'a> {
    pub(super) service: &'a Service,
    pub(super) now: Instant,
    /// The proxy's address as the client sees it.
    pub(super) reached: Option<Ipv4Addr>,
}

impl Document {
    /// The type of the document.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes the piece that begins at `cursor` into `out`. Its length, and where the document goes on.
    pub(super) fn write(
        self,
        source: &Source<'_>,
        cursor: Cursor,
        out: &mut [u8],
    ) -> (usize, Option<Cursor>) {
        let mut page = Page::new(out, cursor);
        match self {
            Self::Json => source.write_json(&mut page),
            Self::Text => source.write_text(&mut page),
            Self::Metrics => source.write_metrics(&mut page),
        }
        page.end()
    }
}

/// What a service logs in to at the printer.
fn login_of(listed: &Listed) -> Option<Login> {
    Login::ALL.into_iter().find(|login| login.name() == listed.name)
}

/// Whether a connection that has failed is still needed: a camera's, while it has viewers or while the model's camera is
/// being detected.
fn is_needed(listed: &Listed, status: &Status) -> bool {
    listed.service.is_wanted() != Some(false) || !status.camera().kind().is_settled()
}

/// How a service's connection to the printer is shown.
fn upstream_of(listed: &Listed, status: &Status) -> Option<&'static str> {
    let upstream = listed.upstream.as_ref()?;
    let is_connected =
        listed.service.is_connected().or_else(|| Some(status.is_logged_in_to(login_of(listed)?)));
    Some(match upstream.state() {
        _ if is_connected == Some(true) => "connected",
        State::Idle => "idle",
        State::Connecting => "connecting",
        State::Failing if !is_needed(listed, status) => "idle",
        State::Failing => "failing",
    })
}

/// Why a service's connection to the printer fails; empty if it does not.
struct Reason<'a>(&'a Listed, &'a Status);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(listed, status) = self;
        if upstream_of(listed, status) != Some("failing") {
            return Ok(());
        }
        listed
            .upstream
            .as_ref()
            .map_or(Ok(()), |upstream| upstream.with_reason(|it| f.write_str(it)))
    }
}

/// Why the proxy is not ready. `{:#}` is the cause alone, without serial numbers and addresses, for clients without a code.
pub(super) struct NotReady<'a>(pub(super) &'a Service);

impl NotReady<'_> {
    /// Whether it is not.
    pub(super) fn is_so(&self) -> bool {
        !self.0.is_ready()
    }
}

impl fmt::Display for NotReady<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(service) = self;
        let listed = service.listed.borrow();
        let Some(mqtt) = listed.iter().find(|listed| listed.name == "mqtt") else {
            return f.write_str("mqtt: the service is not enabled");
        };
        match upstream_of(mqtt, &service.status) {
            Some("failing") if f.alternate() => {
                let cause = mqtt.upstream.as_ref().and_then(|it| it.with_reason(Cause::of));
                match cause {
                    Some(cause) => write!(f, "mqtt: {cause}"),
                    None => {
                        f.write_str("mqtt: no connection to the printer; /status has the reason")
                    }
                }
            }
            Some("failing") => write!(f, "mqtt: {}", Reason(mqtt, &service.status)),
            _ => f.write_str("mqtt: connecting to the printer"),
        }
    }
}

/// Counts what a service shows.
#[derive(Default)]
struct Totals {
    clients: usize,
    lost: u64,
}

impl Totals {
    fn of(listed: &Listed) -> Self {
        let mut count = Self::default();
        listed.service.describe(&mut count);
        count
    }
}

impl Visitor for Totals {
    fn connection(&mut self, connection: &Connection<'_>) {
        self.clients += 1;
        self.lost = self.lost.saturating_add(connection.lost.into());
    }

    fn transfer(&mut self, _: &Transfer<'_>) {}
}

/// Clients that a service shows.
pub(super) fn clients_of(listed: &Listed) -> usize {
    Totals::of(listed).clients
}

/// Writes each connection or each transfer that a service shows.
struct Each<'p, 'o, F> {
    page: &'p mut Page<'o>,
    write: F,
}

/// One of the things that a service shows.
enum Shown<'a> {
    Connection(&'a Connection<'a>),
    Transfer(&'a Transfer<'a>),
}

impl<F: FnMut(&mut Page<'_>, Shown<'_>)> Visitor for Each<'_, '_, F> {
    fn connection(&mut self, connection: &Connection<'_>) {
        (self.write)(self.page, Shown::Connection(connection));
    }

    fn transfer(&mut self, transfer: &Transfer<'_>) {
        (self.write)(self.page, Shown::Transfer(transfer));
    }
}

impl Source<'_> {
    fn status(&self) -> &Status {
        &self.service.status
    }

    fn age(&self, since: Instant) -> u64 {
        self.now.since(since).as_secs()
    }

    fn write_json(&self, page: &mut Page<'_>) {
        let Self { service, now, .. } = self;
        let (version, board) = (env!("PANDAPROXY_VERSION"), BOARD.name);
        let (uptime, time) = (now.elapsed().as_secs(), Utc::of(SystemTime::now()));
        let not_ready = NotReady(service);
        let is_ready = !not_ready.is_so();
        page.item(
            key(0, 0, 0),
            format_args!(
                "{{\"version\":\"{version}\",\"board\":\"{board}\",\"uptime_s\":{uptime},\
                 \"time\":\"{time}\",\"ready\":{is_ready},\"not_ready\":["
            ),
        );
        if !is_ready {
            page.item(key(0, 0, 1), format_args!("\"{}\"", Quoted(not_ready)));
        }
        self.write_printer(page);
        page.item(
            key(2, 0, 0),
            format_args!(
                "\"proxy\":{{\"address\":{},\"hostname\":{},\"ca_sha256\":\"{}\",\
                 \"machine_port\":{},\"notice\":{}}},",
                Text(self.reached),
                Text(service.hosts.first()),
                Hex(&service.ca_sha256),
                Bare(service.machine_port),
                text(&service.notice)
            ),
        );
        page.open(key(3, 0, 0), format_args!("\"services\":["));
        for (at, listed) in service.listed.borrow().iter().enumerate() {
            self.write_service(page, at, listed);
        }
        page.open(key(5, 0, 0), format_args!("],\"transfers\":["));
        for (at, listed) in service.listed.borrow().iter().enumerate() {
            let write = |page: &mut Page<'_>, shown: Shown<'_>| {
                let Shown::Transfer(transfer) = shown else { return };
                let Transfer { index, client, kind, name, bytes, size, wait, .. } = *transfer;
                let state = if transfer.is_moving { "moving" } else { "waiting" };
                page.element(
                    key(6, at, index),
                    format_args!(
                        "{{\"service\":\"{}\",\"client\":{client},\"kind\":\"{kind}\",\
                         \"name\":{},\"bytes\":{bytes},\"size\":{},\"state\":\"{state}\",\"since_s\":{},\
                         \"position\":{},\"waits_for\":{}}}",
                        listed.name,
                        text(name),
                        Bare(size),
                        Bare(transfer.since.map(|since| self.age(since))),
                        Bare(wait.and_then(|wait| wait.position)),
                        Text(wait.map(|wait| wait.waits_for))
                    ),
                );
            };
            listed.service.describe(&mut Each { page, write });
        }
        page.open(
            key(7, 0, 0),
            format_args!(
                "],\"memory\":{{\"heap_bytes\":{},\"heap_peak_bytes\":{},\"heap_limit_bytes\":{}}},\
                 \"events\":[",
                heap::held(),
                heap::peak(),
                service.heap_limit
            ),
        );
        let mut at = 0;
        journal::newest_first(|date, event, times| {
            let more = Times(times);
            page.element(
                key(8, 0, at),
                format_args!("{{\"time\":\"{date}\",\"text\":\"{}{more}\"}}", Quoted(event)),
            );
            at += 1;
            at < EVENTS
        });
        page.item(key(9, 0, 0), format_args!("]}}\n"));
    }

    fn write_printer(&self, page: &mut Page<'_>) {
        let (status, now) = (self.status(), self.now);
        let announced = status.announced();
        let report = status.last_report().map(|at| now.since(at).as_secs());
        let code = match status.code() {
            Code::Unknown => "unknown",
            Code::Accepted { .. } => "accepted",
            Code::Refused { .. } => "refused",
        };
        let certificate = match status.certificate() {
            Certificate::Unknown => "unknown",
            Certificate::Accepted => "accepted",
            Certificate::Rejected => "rejected",
        };
        page.item(
            key(1, 0, 0),
            format_args!(
                "],\"printer\":{{\"serial\":\"{}\",\"model\":{},\"model_code\":{},\"name\":{},\
                 \"address\":{},\"reachable\":{},\"code\":\"{code}\",\"certificate\":\"{certificate}\",\
                 \"firmware\":{},\"developer_mode\":{},\"live_view\":{},\"wifi_signal_dbm\":{},\
                 \"camera\":\"{}\",\"cloud\":{},\"last_report_age_s\":{}}},",
                self.service.serial,
                Text(status.model().map(|model| model.name)),
                text(&status.model_code()),
                text(&status.name()),
                Text(status.address()),
                Bare(status.is_reachable()),
                text(&status.version()),
                Bare(status.developer_mode()),
                Bare(live_view(status)),
                Bare(status.signal()),
                camera(status),
                Bare(announced.and_then(|announced| announced.is_cloud)),
                Bare(report),
            ),
        );
    }

    fn write_service(&self, page: &mut Page<'_>, at: usize, listed: &Listed) {
        let Listed { name, port, transport, limit, .. } = listed;
        let status = self.status();
        let reason = Reason(listed, status);
        let has_reason = upstream_of(listed, status) == Some("failing");
        let comma = if at == 0 { "" } else { "," };
        page.open(
            key(4, at, 0),
            format_args!(
                "{comma}{{\"name\":\"{name}\",\"port\":{port},\"transport\":\"{transport}\",\
                 \"open\":{},\"clients\":{},\"limit\":{limit},\"upstream\":{},\"reason\":{},\
                 \"connections\":[",
                listed.is_open(status),
                listed.clients(),
                Text(upstream_of(listed, status)),
                Text(has_reason.then_some(reason)),
            ),
        );
        let write = |page: &mut Page<'_>, shown: Shown<'_>| {
            let Shown::Connection(connection) = shown else { return };
            let peer = connection.occupant.peer;
            page.element(
                key(4, at, connection.index + 1),
                format_args!(
                    "{{\"number\":{},\"address\":\"{}\",\"id\":{},\"since_s\":{},\"lost\":{}}}",
                    peer.number,
                    peer.address,
                    text(connection.id),
                    self.age(connection.occupant.since),
                    connection.lost
                ),
            );
        };
        listed.service.describe(&mut Each { page, write });
        page.item(key(4, at, LAST), format_args!("]}}"));
    }

    /// The same for people.
    fn write_text(&self, page: &mut Page<'_>) {
        let (service, status) = (self.service, self.status());
        let not_ready = NotReady(service);
        let (version, board) = (env!("PANDAPROXY_VERSION"), BOARD.name);
        let uptime = self.now.elapsed().as_secs();
        page.item(
            key(0, 0, 0),
            format_args!("PandaProxy {version} (board {board}), up {}\n", Span(uptime)),
        );
        if not_ready.is_so() {
            page.item(key(0, 0, 1), format_args!("not ready: {not_ready}\n"));
        }
        if !service.notice.is_empty() {
            page.item(key(0, 0, 2), format_args!("{}\n", Plain(&service.notice)));
        }
        let reachable = match status.is_reachable() {
            Some(true) => "reachable",
            Some(false) => "not reachable",
            None => "not dialled yet",
        };
        let code = match status.code() {
            Code::Unknown => "access code not checked yet",
            Code::Accepted { .. } => "access code accepted",
            Code::Refused { .. } => "access code refused",
        };
        page.item(
            key(1, 0, 0),
            format_args!(
                "printer {} ({}) at {}: {reachable}, {code}\n",
                status.name(),
                Or(status.model().map(|model| model.name), "unknown model"),
                Or(status.address(), "unknown address"),
            ),
        );
        for (at, listed) in service.listed.borrow().iter().enumerate() {
            let Listed { name, port, limit, .. } = listed;
            let clients = listed.clients();
            let upstream = upstream_of(listed, status);
            let before = if upstream.is_some() { ", printer " } else { "" };
            let is_failing = upstream == Some("failing");
            let closed = if listed.is_open(status) { "" } else { " (closed)" };
            page.item(
                key(2, at, 0),
                format_args!(
                    "{name:<10} port {port}{closed}: {clients} of {limit} clients{before}{}{}{}\n",
                    upstream.unwrap_or_default(),
                    if is_failing { ": " } else { "" },
                    Reason(listed, status)
                ),
            );
            let write = |page: &mut Page<'_>, shown: Shown<'_>| match shown {
                Shown::Connection(Connection { index, occupant, id, lost }) => page.item(
                    key(2, at, 2 * index + 1),
                    format_args!(
                        "  {} {} {}, since {}, {lost} lost\n",
                        occupant.peer.number,
                        occupant.peer.address,
                        Plain(id),
                        Span(self.age(occupant.since))
                    ),
                ),
                Shown::Transfer(transfer) => {
                    let key = key(2, at, 2 * transfer.index + 2);
                    page.item(key, format_args!("  {}\n", Told(transfer)));
                }
            };
            listed.service.describe(&mut Each { page, write });
        }
        let kib = crate::memory::KIB;
        page.item(
            key(4, 0, 0),
            format_args!(
                "heap {} KiB, peak {} KiB, limit {} KiB\n",
                heap::held().div_ceil(kib),
                heap::peak().div_ceil(kib),
                service.heap_limit.div_ceil(kib)
            ),
        );
    }

    fn write_metrics(&self, page: &mut Page<'_>) {
        let (service, status) = (self.service, self.status());
        let (version, board) = (env!("PANDAPROXY_VERSION"), BOARD.name);
        let mut part = 0;
        let mut optional = |page: &mut Page<'_>, name: &str, kind: &str, help: &str, is_known| {
            // One whose value is not known has its place all the same: the value may become known between two pieces.
            part += 1;
            if is_known {
                page.item(
                    key(part, 0, 0),
                    format_args!(
                        "# HELP pandaproxy_{name} {help}.\n# TYPE pandaproxy_{name} {kind}\n"
                    ),
                );
            }
            part
        };
        let mut one =
            |page: &mut Page<'_>, name: &str, kind: &str, help: &str, value: Option<u64>| {
                let part = optional(page, name, kind, help, value.is_some());
                if let Some(value) = value {
                    page.item(key(part, 0, 1), format_args!("pandaproxy_{name} {value}\n"));
                }
            };
        one(
            page,
            "uptime_seconds",
            "gauge",
            "Time since the start",
            Some(self.now.elapsed().as_secs()),
        );
        one(
            page,
            "ready",
            "gauge",
            "Whether MQTT is logged in at the printer",
            Some(service.is_ready().into()),
        );
        one(
            page,
            "printer_reachable",
            "gauge",
            "Whether the printer answered when it was last dialled",
            status.is_reachable().map(u64::from),
        );
        let age = status.last_report().map(|at| self.age(at));
        one(page, "state_age_seconds", "gauge", "Time since the printer's last report", age);
        one(page, "heap_bytes", "gauge", "Heap in use", Some(heap::held() as u64));
        one(
            page,
            "heap_peak_bytes",
            "gauge",
            "Most heap that was ever in use",
            Some(heap::peak() as u64),
        );
        one(page, "heap_limit_bytes", "gauge", "Heap limit", Some(service.heap_limit as u64));
        for (name, help, count) in REPORTS {
            one(page, name, "counter", help, Some(counts::get("mqtt", count)));
        }
        let (signal, help) = (status.signal(), "Printer's Wi-Fi signal");
        let part = optional(page, "wifi_signal_dbm", "gauge", help, signal.is_some());
        if let Some(dbm) = signal {
            page.item(key(part, 0, 1), format_args!("pandaproxy_wifi_signal_dbm {dbm}\n"));
        }
        let mut family = |page: &mut Page<'_>, name: &str, kind: &str, help: &str| {
            optional(page, name, kind, help, true)
        };
        let info = family(page, "build_info", "gauge", "Version and board of this build");
        page.item(
            key(info, 0, 1),
            format_args!("pandaproxy_build_info{{version=\"{version}\",board=\"{board}\"}} 1\n"),
        );
        let listed = service.listed.borrow();
        let each =
            |page: &mut Page<'_>, part: u8, name: &str, value: &dyn Fn(&Listed) -> Option<u64>| {
                for (at, listed) in listed.iter().enumerate() {
                    let Some(value) = value(listed) else { continue };
                    page.item(
                        key(part, at, 1),
                        format_args!("pandaproxy_{name}{{service=\"{}\"}} {value}\n", listed.name),
                    );
                }
            };
        let part = family(page, "clients", "gauge", "Clients being served");
        each(page, part, "clients", &|listed| {
            (listed.limit > 0).then_some(listed.clients() as u64)
        });
        let part = family(page, "clients_limit", "gauge", "Clients served at most");
        each(page, part, "clients_limit", &|listed| {
            (listed.limit > 0).then_some(listed.limit as u64)
        });
        let queue = |listed: &Listed| listed.service.queue();
        let part = family(page, "queue", "gauge", "Commands that wait for the printer");
        each(page, part, "queue", &|listed| Some(queue(listed)?.0 as u64));
        let part = family(page, "queue_limit", "gauge", "Commands that may wait for the printer");
        each(page, part, "queue_limit", &|listed| Some(queue(listed)?.1 as u64));
        for (limits, name, help) in [
            (false, "in_use", "Buffers and places in use, apart from clients and the queue"),
            (true, "in_use_limit", "Buffers and places that there are"),
        ] {
            let part = family(page, name, "gauge", help);
            for (at, listed) in listed.iter().enumerate() {
                bounds_of(listed, &mut |sub, Bound { what, used, limit }| {
                    let (service, value) = (listed.name, if limits { limit } else { used });
                    page.item(
                        key(part, at, sub),
                        format_args!(
                            "pandaproxy_{name}{{service=\"{service}\",what=\"{what}\"}} {value}\n"
                        ),
                    );
                });
            }
        }
        for (name, help, services, counts) in COUNTERS {
            let part = family(page, name, "counter", help);
            let its = listed.iter().enumerate().filter(|(_, it)| services.contains(&it.name));
            for (at, Listed { name: service, .. }) in its {
                for (sub, (label, count)) in counts.iter().enumerate() {
                    let count = counts::get(service, *count);
                    page.item(
                        key(part, at, sub + 1),
                        format_args!("pandaproxy_{name}{{service=\"{service}\"{label}}} {count}\n"),
                    );
                }
            }
        }
        let help = "Whether the printer has accepted the login, of services that need it now";
        let part = family(page, "upstream_up", "gauge", help);
        each(page, part, "upstream_up", &|listed| match upstream_of(listed, status)? {
            // No client needs the connection, or the printer has no such port.
            "idle" => None,
            state => {
                let has_login = login_of(listed).is_some() && listed.is_open(status);
                has_login.then_some(u64::from(state == "connected"))
            }
        });
        let part =
            family(page, "upstream_connects_total", "counter", "Logins that the printer accepted");
        each(page, part, "upstream_connects_total", &|listed| {
            Some(status.logins(login_of(listed)?).into())
        });
        let part = family(
            page,
            "upstream_failures_total",
            "counter",
            "Connections to the printer that were lost or could not be made",
        );
        for (at, listed) in listed.iter().enumerate() {
            let Some(upstream) = &listed.upstream else { continue };
            for (sub, ((reason, _), count)) in REASONS.iter().zip(upstream.failures()).enumerate() {
                page.item(
                    key(part, at, sub + 1),
                    format_args!(
                        "pandaproxy_upstream_failures_total{{service=\"{}\",reason=\"{reason}\"}} {count}\n",
                        listed.name
                    ),
                );
            }
        }
        let part =
            family(page, "events_total", "counter", "Events by their kind, as in the journal");
        for (sub, kind) in Kind::ALL.into_iter().enumerate() {
            let (name, count) = (kind.name(), journal::count(kind));
            page.item(
                key(part, 0, sub + 1),
                format_args!("pandaproxy_events_total{{kind=\"{name}\"}} {count}\n"),
            );
        }
    }
}

/// Counters of reports.
const REPORTS: [(&str, &str, Count); 2] = [
    ("reports_total", "Reports received from the printer", Count::Received),
    ("reports_dropped_total", "Reports that a client was not sent in time", Count::Dropped),
];

/// A counter of services: its name, its help, the services that have it, and its counts, each with its further label.
type Counter =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, Count)]);

/// Services whose clients log in, as far as the proxy can tell.
const WITH_LOGIN: [&str; 5] = ["mqtt", "chamber", "rtsp", "ftp", "http"];

/// Services of pictures.
const WITH_PICTURES: [&str; 2] = ["chamber", "rtsp"];

/// The counters of services.
const COUNTERS: [Counter; 5] = [
    (
        "clients_refused_total",
        "Connections refused or closed before their login, apart from wrong codes",
        &SERVICES,
        &[
            (r#",reason="full""#, Count::Full),
            (r#",reason="locked_out""#, Count::LockedOut),
            (r#",reason="silent""#, Count::Silent),
            (r#",reason="invalid""#, Count::Invalid),
        ],
    ),
    (
        "auth_failures_total",
        "Connections closed after wrong access codes",
        &WITH_LOGIN,
        &[("", Count::WrongCode)],
    ),
    (
        "bytes_total",
        "Bytes received and sent, counted within TLS where it ends here",
        &SERVICES,
        &[
            (r#",direction="from_client""#, Count::FromClient),
            (r#",direction="to_client""#, Count::ToClient),
            (r#",direction="from_printer""#, Count::FromPrinter),
            (r#",direction="to_printer""#, Count::ToPrinter),
        ],
    ),
    (
        "pictures_total",
        "Pictures received from the printer",
        &WITH_PICTURES,
        &[("", Count::Received)],
    ),
    (
        "pictures_skipped_total",
        "Pictures that a client was not sent in time, or that cannot be sent",
        &WITH_PICTURES,
        &[("", Count::Dropped)],
    ),
];

/// Shows what a service has a fixed number of, each with a number of its own that stays, from 1 on.
fn bounds_of(listed: &Listed, show: &mut dyn FnMut(usize, Bound)) {
    let count = |count| counts::get(listed.name, count) as usize;
    let (logins, transfers) = (count(Count::PendingLimit), count(Count::TransfersLimit));
    if logins > 0 {
        show(1, Bound { what: "logins", used: count(Count::Pending), limit: logins });
        let used = count(Count::Waiting);
        show(2, Bound { what: "accept queue", used, limit: ACCEPT_QUEUE });
    }
    if transfers > 0 {
        show(3, Bound { what: "transfers", used: count(Count::Transfers), limit: transfers });
    }
    let mut sub = 3;
    listed.service.bounds(&mut |bound| {
        sub += 1;
        show(sub, bound);
    });
}

/// Whether live view is on, as far as that is known.
fn live_view(status: &Status) -> Option<bool> {
    match status.judge(status.camera().kind()) {
        _ if status.is_live_view_off() => Some(false),
        CameraKind::RtspOff => Some(false),
        CameraKind::Rtsp | CameraKind::Chamber => Some(true),
        CameraKind::Unknown
        | CameraKind::ChamberDark
        | CameraKind::ChamberBusy
        | CameraKind::NoPort
        | CameraKind::WrongCode => None,
    }
}

fn camera(status: &Status) -> &'static str {
    if status.has_rtsps() == Some(true) {
        "rtsp"
    } else if status.has_chamber() == Some(true) {
        "chamber"
    } else if status.camera().kind() == CameraKind::NoPort {
        "none"
    } else {
        "unknown"
    }
}

/// How often an event was seen, if more than once.
struct Times(u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " ({} times)", self.0) } else { Ok(()) }
    }
}

/// A value, or a word in its place.
struct Or<T>(Option<T>, &'static str);

impl<T: fmt::Display> fmt::Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}

/// A text of a client's for a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("-") } else { Quoted(self.0).fmt(f) }
    }
}

/// A transfer, for a terminal.
struct Told<'a>(&'a Transfer<'a>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Transfer { client, kind, name, bytes, size, is_moving, wait, .. }) = self;
        write!(f, "{client}: {kind}")?;
        match (*kind, name.is_empty()) {
            ("command", false) => write!(f, " {}", Plain(name))?,
            (_, false) => write!(f, " of {}", Plain(name))?,
            (_, true) => {}
        }
        match wait {
            None if *is_moving => match size {
                Some(size) => write!(f, ", {bytes} of {size} bytes"),
                None => write!(f, ", {bytes} bytes"),
            },
            None => f.write_str(", about to begin"),
            Some(wait) => {
                write!(f, ", waits for {}", wait.waits_for)?;
                wait.position.map_or(Ok(()), |place| write!(f, ", place {place} in the queue"))
            }
        }
    }
}

/// Seconds as people say them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours) = (self.0 / 86_400, self.0 / 3600 % 24);
        let (minutes, seconds) = (self.0 / 60 % 60, self.0 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            (_, _, _) => write!(f, "{days} d {hours} h"),
        }
    }
}
