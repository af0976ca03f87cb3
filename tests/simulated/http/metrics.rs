//! What `/metrics` shows, with every service on, in virtual time.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use pandaproxy::auth::WRONG_CODES;
use pandaproxy::board::BOARD;
use pandaproxy::runtime::launch::Proxy;
use printer::camera::{Camera, login};
use printer::tunnel::Tunnel;
use printer::{Model, Printer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::spawn_local;

use super::{Answer, HERE, basic, get};
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::start;
use crate::lan::{self, CODE, WIRE, ms, pass, secs};

/// Gauges of what has no bound.
const UNBOUNDED: [&str; 7] = [
    "uptime_seconds",
    "ready",
    "printer_reachable",
    "state_age_seconds",
    "wifi_signal_dbm",
    "build_info",
    "upstream_up",
];

/// The family that has the limits of this one.
fn limit_of(family: &str) -> String {
    match family {
        "heap_bytes" | "heap_peak_bytes" => "heap_limit_bytes".to_owned(),
        _ => format!("{family}_limit"),
    }
}

/// A printer with its proxy, all of whose services are on.
struct Bed {
    net: SimNet,
    _proxy: Proxy,
}

impl Bed {
    async fn new(model: Model) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(model).quiet());
        let camera = Camera::new().code(CODE).every(ms(500));
        let serve = move |stream| {
            let printer = printer.clone();
            spawn_local(async move { printer.serve(stream).await });
        };
        net.put(8883, Port::new(At::Script(std::rc::Rc::new(serve))));
        let port_6000 = if matches!(model, Model::P1S) {
            At::Camera(camera)
        } else {
            At::Tunnel(Tunnel::new())
        };
        net.put(6000, Port::new(port_6000));
        let services = "--services=mqtt,camera,ftp,detect,ssdp,http";
        let proxy = start(&net, model.serial(), CODE, &[services]);
        pass(secs(70)).await;
        Self { net, _proxy: proxy }
    }

    fn connect(&self, port: u16) -> DuplexStream {
        self.connect_from(port, HERE)
    }

    fn connect_from(&self, port: u16, from: IpAddr) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(port, from, far), "the port is open");
        near
    }

    async fn shown(&self, path: &str) -> String {
        let mut stream = self.connect(8080);
        stream.write_all(get(path, &basic("bblp", CODE)).as_bytes()).await.unwrap();
        Answer::read(&mut stream, false).await.text().to_owned()
    }

    async fn metrics(&self) -> Metrics {
        Metrics::of(&self.shown("/metrics").await)
    }
}

/// Kinds of the families, and the samples of each by their labels.
#[derive(Default)]
struct Metrics {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Metrics {
    fn of(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let line = line.trim_start_matches("# HELP ");
            let (name, rest) = match line.strip_prefix("# TYPE ") {
                Some(line) => {
                    let (name, kind) = line.split_once(' ').unwrap();
                    all.kinds.insert(short(name), kind.to_owned());
                    continue;
                }
                None => line.split_at(line.find(['{', ' ']).unwrap()),
            };
            let Some((labels, value)) = rest.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let family = all.samples.entry(short(name)).or_default();
            assert!(family.insert(labels.to_owned(), value).is_none(), "{line} stands twice");
        }
        all
    }

    /// The value of one sample.
    fn value(&self, family: &str, labels: &str) -> f64 {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let value = self.samples.get(family).and_then(|samples| samples.get(&labels));
        *value.unwrap_or_else(|| panic!("{family}{labels}"))
    }

    fn family(&self, name: &str) -> BTreeMap<&str, f64> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.map(|(labels, value)| (labels.as_str(), *value)).collect()
    }
}

/// The names of all values in a status.
pub(crate) fn names(status: &Value) -> BTreeSet<String> {
    fn add(names: &mut BTreeSet<String>, path: &str, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    add(names, &path, value);
                }
            }
            Value::Array(elements) => {
                elements.iter().for_each(|element| add(names, &format!("{path}[]"), element));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                names.insert(path.to_owned());
            }
        }
    }
    let mut names = BTreeSet::new();
    add(&mut names, "", status);
    names
}

/// The rows of this path's table in `boards/STATUS.md`: the first two cells, of the second one the first word.
fn rows(path: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let text = include_str!("../../../boards/STATUS.md");
    let (_, section) = text.split_once(&format!("\n## `{path}`\n")).expect("a section");
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name, rest.split(' ').next()?))
    })
}

/// The names in this path's table.
pub(crate) fn documented(path: &str) -> BTreeSet<String> {
    rows(path).map(|(name, _)| name.to_owned()).collect()
}

fn short(name: &str) -> String {
    name.strip_prefix("pandaproxy_").expect("the prefix").to_owned()
}

#[test]
fn metrics_have_every_bound_beside_its_value() {
    lan::run(async {
        for model in [Model::P1S, Model::X1C] {
            let bed = Bed::new(model).await;
            let metrics = bed.metrics().await;
            let mut bounded = 0;
            for (family, kind) in &metrics.kinds {
                let is_limit = family.ends_with("_limit") || family == "heap_limit_bytes";
                if kind == "counter" || is_limit || UNBOUNDED.contains(&family.as_str()) {
                    continue;
                }
                let values = metrics.family(family);
                let limits = metrics.family(&limit_of(family));
                for (labels, value) in &values {
                    let limit = limits.get(labels);
                    let limit = limit.unwrap_or_else(|| panic!("{family}{labels} has no limit"));
                    // The heap of a test has its printer as well.
                    let is_heap = family.starts_with("heap_");
                    assert!(is_heap || value <= limit, "{family}{labels}: {value} of {limit}");
                }
                bounded += values.len();
            }
            assert!(bounded > 20, "{bounded}");
            let in_use = metrics.family("in_use");
            let of = |service: &str| {
                let labels = in_use.keys().filter(|its| its.contains(&format!("\"{service}\"")));
                labels.map(|its| its.split('"').nth(3).unwrap()).collect::<Vec<_>>().join(", ")
            };
            assert_eq!(of("mqtt"), "accept queue, large frames, logins, requests, small frames");
            if matches!(model, Model::P1S) {
                assert_eq!(of("chamber"), "accept queue, logins, pictures");
            } else {
                assert_eq!(of("rtsp"), "accept queue, blocks, logins");
            }
            assert_eq!(of("ftp"), "accept queue, logins, transfers");
            assert_eq!((of("http").as_str(), of("ssdp").as_str()), ("accept queue, logins", ""));
            let status: Value = serde_json::from_str(&bed.shown("/status").await).unwrap();
            let limits = metrics.family("clients_limit");
            for service in status["services"].as_array().unwrap() {
                let labels = format!("{{service={}}}", service["name"]);
                let limit = service["limit"].as_f64().filter(|limit| *limit > 0.0);
                assert_eq!(limits.get(labels.as_str()), limit.as_ref(), "{labels}");
            }
        }
    });
}

/// A camera without viewers and a port that the model does not have are not failures.
#[test]
fn only_connections_that_are_needed_can_be_down() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        let is_up = |metrics: &Metrics| {
            let up = metrics.family("upstream_up");
            up.iter().map(|(labels, up)| format!("{labels}{up}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(is_up(&bed.metrics().await), "{service=\"mqtt\"}1");
        let mut viewer = bed.connect(6000);
        viewer.write_all(&login(CODE)).await.unwrap();
        viewer.read_exact(&mut [0; 16]).await.unwrap();
        let both = "{service=\"chamber\"}1 {service=\"mqtt\"}1";
        assert_eq!(is_up(&bed.metrics().await), both);
    });
}

#[test]
fn the_metrics_are_those_in_their_document() {
    lan::run(async {
        let metrics = Bed::new(Model::P1S).await.metrics().await;
        let shown: BTreeMap<_, _> =
            metrics.kinds.iter().map(|(name, kind)| (name.clone(), kind.as_str())).collect();
        let told: BTreeMap<_, _> =
            rows("/metrics").map(|(name, kind)| (short(name), kind)).collect();
        assert_eq!(shown, told);
    });
}

#[test]
fn reports_pictures_and_bytes_are_counted() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        let before = bed.metrics().await;
        assert!(before.value("reports_total", "") > 2.0);
        assert!(before.value("bytes_total", r#"service="mqtt",direction="from_printer""#) > 1000.0);
        assert_eq!(before.value("pictures_total", r#"service="chamber""#), 0.0);
        let mut viewer = bed.connect(6000);
        viewer.write_all(&login(CODE)).await.unwrap();
        viewer.read_exact(&mut [0; 16]).await.unwrap();
        // It reads no further.
        pass(secs(4)).await;
        let after = bed.metrics().await;
        let chamber = |direction: &str| {
            after.value("bytes_total", &format!(r#"service="chamber",direction="{direction}""#))
        };
        assert_eq!(chamber("from_client"), 80.0, "its login");
        assert!(chamber("to_client") >= 16.0 && chamber("from_printer") > chamber("to_client"));
        let [shown, skipped] = ["pictures_total", "pictures_skipped_total"]
            .map(|family| after.value(family, r#"service="chamber""#));
        assert!(shown >= 8.0, "{shown}");
        assert!(skipped >= 2.0 && skipped < shown, "{skipped} of {shown}");
    });
}

#[test]
fn refused_clients_are_counted_by_their_reason() {
    lan::run(async {
        let bed = Bed::new(Model::P1S).await;
        let refused = async |service: &str, reason: &str| {
            let labels = format!(r#"service="{service}",reason="{reason}""#);
            bed.metrics().await.value("clients_refused_total", &labels)
        };
        let mut viewers = Vec::new();
        for _ in 0..=BOARD.clients.chamber {
            let mut viewer = bed.connect(6000);
            viewer.write_all(&login(CODE)).await.unwrap();
            viewers.push(viewer);
            // One that reads nothing is closed after five seconds.
            pass(ms(100)).await;
        }
        assert_eq!(refused("chamber", "full").await, 1.0);
        let mut other = bed.connect(8080);
        other.write_all(b"\x16\x03\x01").await.unwrap();
        let _silent = bed.connect(8883);
        pass(secs(60)).await;
        assert_eq!(refused("http", "invalid").await, 1.0);
        assert_eq!(refused("mqtt", "silent").await, 1.0);
        let failures = async |service: &str| {
            bed.metrics().await.value("auth_failures_total", &format!("service=\"{service}\""))
        };
        for n in 0..WRONG_CODES {
            assert_eq!(failures("chamber").await, n as f64);
            let mut guesser = bed.connect_from(6000, [10, 9, 0, 66].into());
            guesser.write_all(&login(&format!("wrong-{n:02}"))).await.unwrap();
            pass(secs(1)).await;
        }
        let mut owner = bed.connect_from(6000, [10, 9, 0, 66].into());
        owner.write_all(&login(CODE)).await.unwrap();
        pass(secs(1)).await;
        assert_eq!(refused("chamber", "locked_out").await, 1.0);
        assert_eq!((failures("chamber").await, failures("mqtt").await), (WRONG_CODES as f64, 0.0));
    });
}
