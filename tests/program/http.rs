//! HTTP with real sockets: curl, `pandaproxy status` and `health --printer`, and Prometheus' own check of the metrics.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::task::JoinHandle;

use skips::is_missing;

use crate::clients::ports::block;
use crate::clients::programs::{PATIENCE, Program, Said};
use crate::clients::proxy::{self, CODE, HOME, Proxy, StateDir, command, switch_on, usual};
use printer::{Model, Printer};

const TOKEN: &str = "token-of-prometheus";

/// A P1S with MQTT, and the program before it.
struct Bed {
    proxy: Proxy,
    dir: Rc<StateDir>,
    http: SocketAddr,
    printer: Printer,
    _serving: JoinHandle<()>,
}

impl Bed {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With more arguments.
    async fn with(more: &[&str]) -> Self {
        Self::at("mqtt=0,http=0", more).await
    }

    /// At these ports.
    async fn at(ports: &str, more: &[&str]) -> Self {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (mqtt, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let mut args = usual(&printer, mqtt, &dir);
        // The last of two is not taken: each option is given once.
        let at = args.iter().position(|arg| arg == "--services").unwrap();
        args[at + 1] = "mqtt,http".to_owned();
        let at = args.iter().position(|arg| arg == "--port").unwrap();
        args[at + 1] = ports.to_owned();
        args.extend(["--http-token", TOKEN].map(str::to_owned));
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let proxy = Proxy::start(command(args), Rc::clone(&dir)).await;
        let line = proxy.program.line("http     listening on ").await;
        let (_, rest) = line.split_once(" listening on ").unwrap();
        let http = rest.split(',').next().unwrap().parse().unwrap();
        proxy.live().await;
        Self { proxy, dir, http, printer, _serving }
    }

    /// What curl gets, with these options.
    async fn curl(&self, path: &str, more: &[&str]) -> (Option<i32>, Said) {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20"]).args(more);
        curl.arg(format!("http://{}{path}", self.http));
        Program::start(&mut curl).ended().await
    }

    /// What the program's own command prints.
    async fn run(&self, words: &[&str]) -> (Option<i32>, Said) {
        self.run_with(self.http.port(), words).await
    }

    /// The same with another port of HTTP.
    async fn run_with(&self, http: u16, words: &[&str]) -> (Option<i32>, Said) {
        self.run_at(self.proxy.address.port(), http, words).await
    }

    /// The same with other ports.
    async fn run_at(&self, mqtt: u16, http: u16, words: &[&str]) -> (Option<i32>, Said) {
        let ports = format!("mqtt={mqtt},http={http}");
        let mut command = command(["-p", "127.0.0.1", "-s", Model::P1S.serial()]);
        command.env("ACCESS_CODE", CODE).args(["-b", "127.0.0.1"]);
        command.args(["--port", &ports, "--state-dir"]).arg(self.dir.path()).args(words);
        if !words.iter().any(|word| word.starts_with("--services")) {
            command.arg("--services=mqtt,http");
        }
        Program::start(&mut command).ended().await
    }
}

fn text(said: Said) -> String {
    String::from_utf8(said.out).unwrap()
}

#[test]
fn curl_reads_every_path() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let login = format!("bblp:{CODE}");
        for (path, begin) in [
            ("/livez", "alive"),
            ("/readyz", "ready"),
            ("/ca.pem", "-----BEGIN CERTIFICATE-----"),
            ("/trust.sh", "#!"),
            ("/", "<!doctype html>"),
        ] {
            let (code, said) = bed.curl(path, &["--fail", "--compressed"]).await;
            assert_eq!(code, Some(0), "{path}");
            assert!(text(said).starts_with(begin), "{path}");
        }
        let ca = fs::read_to_string(bed.dir.file("ca.pem")).unwrap();
        let (_, said) = bed.curl("/ca.pem", &[]).await;
        assert_eq!(text(said).trim(), ca.trim());
        let (code, _) = bed.curl("/status", &["--fail"]).await;
        assert_eq!(code, Some(22), "401");
        let (code, said) = bed.curl("/status", &["--fail", "-u", &login]).await;
        assert_eq!(code, Some(0));
        let status: Value = serde_json::from_slice(&said.out).unwrap();
        assert_eq!(status["printer"]["serial"], Model::P1S.serial());
        assert_eq!(status["proxy"]["address"], "127.0.0.1");
        // An upload is refused while curl still sends it.
        let big = bed.dir.file("big");
        fs::write(&big, vec![b'x'; 1 << 20]).unwrap();
        let put = ["-T", big.to_str().unwrap(), "-o", "/dev/null", "-w", "%{http_code}"];
        let (_, said) = bed.curl("/", &put).await;
        assert_eq!(text(said), "405");
        let (code, _) = bed.curl("/livez", &["--fail", "-H", "Host: evil.example"]).await;
        assert_eq!(code, Some(22), "421");
        let (code, _) = bed.curl("/livez", &["--fail", "--http2-prior-knowledge"]).await;
        assert_ne!(code, Some(0), "HTTP/2");
        let mut curl = Command::new("curl");
        // From another machine: lines about one are rate-limited.
        curl.args(["-sk", "--max-time", "20", "--interface", "127.0.0.9"]);
        curl.arg(format!("https://{}/", bed.http));
        assert_ne!(Program::start(&mut curl).ended().await.0, Some(0), "TLS");
        bed.proxy.program.line("TLS on the port without TLS").await;
    });
}

/// The page may be shown to one network alone.
#[test]
fn the_page_is_bound_to_an_address_of_its_own() {
    proxy::run(async {
        // Ports that no other test listens on, at either address.
        let ports = block(&[HOME, Ipv4Addr::new(127, 0, 0, 5)]);
        let ports = format!("mqtt={},http={}", ports.start(), ports.end());
        let bed = Bed::at(&ports, &["--http-address", "127.0.0.5"]).await;
        assert_eq!(bed.http.ip().to_string(), "127.0.0.5");
        let connects = |address: &str, port| {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok()
        };
        let mqtt = bed.proxy.address.port();
        assert!(connects("127.0.0.5", bed.http.port()) && connects("127.0.0.1", mqtt));
        assert!(!connects("127.0.0.1", bed.http.port()) && !connects("127.0.0.5", mqtt));
        for words in ["status", "health"] {
            let (code, said) = bed.run(&[words, "--http-address=127.0.0.5"]).await;
            assert_eq!(code, Some(0), "{words}: {}", said.err);
        }
        let (code, said) = bed.run(&["health", "--printer", "--http-address=127.0.0.5"]).await;
        assert_eq!(code, Some(0), "{}", said.err);
    });
}

#[test]
fn promtool_accepts_the_metrics() {
    if is_missing("curl") || is_missing("promtool") {
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let bearer = "Authorization: Bearer token-of-prometheus";
        let (code, said) = bed.curl("/metrics", &["--fail", "-H", bearer]).await;
        assert_eq!(code, Some(0));
        let file = bed.dir.file("metrics");
        fs::write(&file, &said.out).unwrap();
        let mut promtool = Command::new("sh");
        promtool.args(["-c", "promtool check metrics <\"$1\"", "sh"]).arg(&file);
        let (code, told) = Program::start(&mut promtool).ended().await;
        assert_eq!((code, told.err.as_str()), (Some(0), ""), "{}", text(said));
    });
}

/// Names in an expression that are metrics of this program.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pandaproxy_"))
}

#[test]
fn dashboard_and_alerts_know_each_metric() {
    const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/boards/grafana/alerts.yml");
    const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/boards/grafana/alerts.test.yml");
    if is_missing("curl") || is_missing("promtool") {
        return;
    }
    proxy::run(async {
        let mut promtool = Command::new("promtool");
        let (code, said) = Program::start(promtool.args(["check", "rules", ALERTS])).ended().await;
        assert_eq!(code, Some(0), "{}", said.err);
        let mut promtool = Command::new("promtool");
        let (code, said) = Program::start(promtool.args(["test", "rules", TESTS])).ended().await;
        assert_eq!(code, Some(0), "{}{}", said.err, text(said.clone()));
        let bed = Bed::new().await;
        let bearer = "Authorization: Bearer token-of-prometheus";
        let mut metrics = String::new();
        // The printer's first report has the signal.
        while !metrics.contains("pandaproxy_wifi_signal_dbm ") {
            let (_, said) = bed.curl("/metrics", &["-H", bearer]).await;
            metrics = text(said);
        }
        let dashboard = include_str!("../../boards/grafana/dashboard.json");
        let _dashboard: Value = serde_json::from_str(dashboard).unwrap();
        let alerts = fs::read_to_string(ALERTS).unwrap();
        let tests = fs::read_to_string(TESTS).unwrap();
        for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            let fires = format!("- alertname: {name}\n");
            assert!(tests.contains(&fires), "alerts.test.yml does not have {name} fire");
        }
        let families = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let there: BTreeSet<_> = families.filter_map(|rest| rest.split(' ').next()).collect();
        let shown: BTreeSet<_> = names(dashboard).collect();
        assert_eq!(shown, there, "the dashboard shows every metric, and no other");
        let asked: BTreeSet<_> = names(&alerts).collect();
        assert!(asked.is_subset(&there), "{asked:?}");
        for name in ["pandaproxy_ready", "pandaproxy_queue", "pandaproxy_heap_bytes"] {
            assert!(asked.contains(name), "no rule asks for {name}");
        }
    });
}

#[test]
fn the_status_command_shows_what_the_page_shows() {
    proxy::run(async {
        let bed = Bed::new().await;
        let _reader = bed.proxy.reader(HOME, "Home Assistant").await;
        bed.proxy.program.line(": client connected").await;
        let (code, said) = bed.run(&["status"]).await;
        let told = text(said);
        assert_eq!(code, Some(0), "{told}");
        for words in ["PandaProxy ", "(P1S) at 127.0.0.1: reachable, access code accepted", "1 of"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        let line = told.lines().find(|line| line.contains("127.0.0.1 Home Assistant, since "));
        assert!(line.is_some_and(|line| line.ends_with(" s, 0 lost")), "{told}");
        let (code, said) = bed.run(&["status", "--json"]).await;
        assert_eq!(code, Some(0));
        let status: Value = serde_json::from_slice(&said.out).unwrap();
        assert_eq!(status["services"][0]["connections"][0]["id"], "Home Assistant");
        let (code, said) = bed.run(&["status", "-a", "wrong123"]).await;
        assert_eq!(code, Some(1));
        assert!(said.err.contains("the running proxy has another access code"), "{}", said.err);
        for n in 0..4 {
            bed.run(&["status", "-a", &format!("wrong-{n}")]).await;
        }
        let (code, said) = bed.run(&["status"]).await;
        assert_eq!(code, Some(1));
        let words = "this machine's address is locked out after wrong access codes; wait a minute";
        assert!(said.err.contains(words), "{}", said.err);
    });
}

/// Any program may listen on the port of HTTP while the proxy does not, and it has no certificate to show.
#[test]
fn no_code_is_sent_to_another_users_program() {
    const LISTENS: &str = "import socket\n\
        s = socket.create_server(('127.0.0.1', 0))\n\
        print(s.getsockname()[1], flush=True)\n\
        while True:\n    c, _ = s.accept()\n    print(c.recv(4096), flush=True)\n    c.close()\n";
    const USER: u32 = 12345;
    // Root alone can start a program of another user's.
    if is_missing("python3") || fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let mut python = Command::new("python3");
        python.args(["-c", LISTENS]).current_dir("/").uid(USER);
        let other = Program::start(&mut python);
        assert!(other.until(PATIENCE, |said| said.out.ends_with(b"\n")).await);
        let port = String::from_utf8(other.said().out).unwrap().trim().parse().unwrap();
        let (code, said) = bed.run_with(port, &["status"]).await;
        assert_eq!(code, Some(1), "{}", said.err);
        let words = "held by a program of user 12345, not by the proxy; it is sent no access code";
        assert!(said.err.contains(words), "{}", said.err);
        let (_, said) = bed.run_with(port, &["check", "--json"]).await;
        assert!(text(said).contains("the printer is not asked a second time"));
        assert_eq!(bed.run(&["status"]).await.0, Some(0), "the proxy's own port");
        let heard = String::from_utf8(other.said().out).unwrap();
        assert!(!heard.contains("Authorization"), "{heard}");
    });
}

/// Ports of containers are held by root's `docker-proxy`, those of other containers as well.
#[test]
fn no_code_is_sent_to_roots_program_beside_the_proxy() {
    const FORWARDS: &str = "import socket, sys, threading\n\
        def pump(a, b):\n    while data := a.recv(65536):\n        b.sendall(data)\n    b.shutdown(socket.SHUT_WR)\n\
        def serve(s, to):\n    while True:\n        c, _ = s.accept()\n        t = socket.create_connection(('127.0.0.1', to))\n\
        \x20       for pair in (c, t), (t, c):\n            threading.Thread(target=pump, args=pair, daemon=True).start()\n\
        all = [(socket.create_server(('127.0.0.1', 0)), int(to)) for to in sys.argv[1:]]\n\
        print(*[s.getsockname()[1] for s, _ in all], flush=True)\n\
        for pair in all[1:]:\n    threading.Thread(target=serve, args=pair, daemon=True).start()\n\
        serve(*all[0])\n";
    const USER: u32 = 12345;
    if is_missing("python3") || fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    proxy::run(async {
        let bed = Bed::new().await;
        let to = [bed.proxy.address.port(), bed.http.port()].map(|port| port.to_string());
        let mut python = Command::new("python3");
        python.args(["-c", FORWARDS]).args(to).current_dir("/").uid(USER);
        let forwards = Program::start(&mut python);
        assert!(forwards.until(PATIENCE, |said| said.out.ends_with(b"\n")).await);
        let said = String::from_utf8(forwards.said().out).unwrap();
        let ports: Vec<u16> = said.split_whitespace().map(|port| port.parse().unwrap()).collect();
        let (code, said) = bed.run_at(ports[0], bed.http.port(), &["status"]).await;
        assert_eq!(code, Some(1));
        let words = "held by a program of user 0, not by the proxy; it is sent no access code";
        assert!(said.err.contains(words), "{}", said.err);
        let (code, said) = bed.run_at(ports[0], ports[1], &["status"]).await;
        assert_eq!(code, Some(0), "both ports are of one user: {}", said.err);
        // The proxy's user is not known while its MQTT does not answer.
        assert_eq!(bed.run_at(9, bed.http.port(), &["status"]).await.0, Some(0));
    });
}

#[test]
fn no_code_and_no_token_is_in_the_log() {
    if is_missing("curl") {
        return;
    }
    proxy::run(async {
        let (view, wrong) = ("view-of-the-wall", "wrong-code-7");
        let bed = Bed::with(&["-v", "--view-code", view]).await;
        let logins = [format!("bblp:{CODE}"), format!("x:{view}"), format!("bblp:{wrong}")];
        for path in ["/status", "/metrics", "/snapshot.jpg", "/stream.mjpg", "/nothing"] {
            for login in &logins {
                bed.curl(path, &["-u", login]).await;
            }
            for token in [TOKEN, wrong] {
                bed.curl(path, &["-H", &format!("Authorization: Bearer {token}")]).await;
                // From another machine: lines about one are rate-limited.
                let url = format!("{path}?token={token}");
                bed.curl(&url, &["--interface", "127.0.0.8"]).await;
                bed.curl(&url, &["-X", "POST"]).await;
            }
        }
        let more = ["-u", &logins[0], "--interface", "127.0.0.9", "-H", "Host: evil.example"];
        bed.curl(&format!("/status?token={TOKEN}"), &more).await;
        bed.proxy.program.line("request for another host name").await;
        let log = bed.proxy.program.log();
        for words in ["wrong access code", "wrong token in the URL", "method not allowed"] {
            assert!(log.contains(words), "{words}: {log}");
        }
        let encoded = logins.each_ref().map(|login| STANDARD.encode(login));
        let secrets = [CODE, view, wrong, TOKEN, "token=", "Authorization", "Basic ", "Bearer "];
        for secret in secrets.into_iter().chain(encoded.iter().map(String::as_str)) {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret}");
        }
    });
}

#[test]
fn health_demands_the_printer_where_it_is_asked_to() {
    proxy::run(async {
        let bed = Bed::new().await;
        for words in [&["health"][..], &["health", "--printer"]] {
            let (code, said) = bed.run(words).await;
            assert_eq!(code, Some(0), "{}", said.err);
            assert!(text(said).starts_with("healthy: mqtt on "), "{words:?}");
        }
        bed.printer.reboot(Duration::from_secs(120));
        bed.proxy.program.line("printer connection lost").await;
        let (code, said) = bed.run(&["health", "--printer"]).await;
        assert_eq!(code, Some(1));
        assert!(said.err.contains("the printer is not connected: mqtt: "), "{}", said.err);
        assert_eq!(bed.run(&["health"]).await.0, Some(0));
        let (code, said) = bed.run(&["health", "--printer", "--services=mqtt"]).await;
        assert!(said.err.contains("--services has to name http"), "{}", said.err);
        assert_eq!(code, Some(1));
    });
}
