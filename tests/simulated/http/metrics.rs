//! What `/metrics` shows, with every service on, in virtual time.

use std::collections::BTreeMap;

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
        let port_6000 = match model {
            Model::P1S => At::Camera(camera),
            _ => At::Tunnel(Tunnel::new()),
        };
        net.put(6000, Port::new(port_6000));
        let services = "--services=mqtt,camera,ftp,detect,ssdp,http";
        let proxy = start(&net, model.serial(), CODE, &[services]);
        pass(secs(70)).await;
        Self { net, _proxy: proxy }
    }

    fn connect(&self, port: u16) -> DuplexStream {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(port, HERE, far), "the port is open");
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

    fn family(&self, name: &str) -> BTreeMap<&str, f64> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.map(|(labels, value)| (labels.as_str(), *value)).collect()
    }
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
            assert!(bounded > 5, "{bounded}");
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

/// A camera that nobody watches and a port that the model has not are no failures.
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
