//! The outcome of an upload through the proxy: whether the client or the printer takes a part of a file for the whole.
//! The network is simulated, and there is no TLS: an end of TCP without close_notify is a plain end here.

use core::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::runtime::launch::Proxy;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::http;
use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::weather::{Chance, Line, Net, Sky, Wire};
use crate::lan::{self, CODE, WIRE, ms, pass, root, secs};
use printer::Model;
use printer::ftp::{Family, FileServer};

/// The printers, and the file servers that they have.
const PRINTERS: [(Model, Family); 2] = [(Model::P1S, Family::Esp32), (Model::X1C, Family::Vsftpd)];

/// A client's FTP control connection.
pub(crate) struct Control(BufReader<DuplexStream>);

impl Control {
    /// One that has logged in as a slicer does, without TLS for data.
    pub(crate) async fn log_in(stream: DuplexStream) -> Self {
        let mut control = Self(BufReader::new(stream));
        assert!(control.reply().await.starts_with("220 "));
        for (line, code) in [
            ("USER bblp", "331 "),
            (&format!("PASS {CODE}"), "230 "),
            ("PBSZ 0", "200 "),
            ("PROT C", "200 "),
            ("TYPE I", "200 "),
        ] {
            let reply = control.command(line).await;
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
        control
    }

    pub(crate) async fn reply(&mut self) -> String {
        let mut line = String::new();
        timeout(secs(300), self.0.read_line(&mut line)).await.expect("a reply").unwrap();
        line
    }

    pub(crate) async fn command(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }

    pub(crate) async fn data_port(&mut self) -> u16 {
        let reply = self.command("EPSV").await;
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("{reply}"))
    }
}

/// A printer's file server, and the proxy before it. Data connections can be reset.
struct Bed {
    net: SimNet,
    wires: Net,
    line: Rc<Line>,
    files: FileServer,
    proxy: Proxy,
}

impl Bed {
    async fn new((model, family): (Model, Family)) -> Self {
        let (net, wires, line) = (SimNet::new(), Net::new(Chance(1)), Line::new(Sky::default()));
        let files = FileServer::new(family).code(CODE);
        let control = files.clone();
        let script = At::Script(Rc::new(move |stream| {
            let files = control.clone();
            spawn_local(async move { files.serve(stream).await });
        }));
        net.put(990, Port::new(script));
        let data = (wires.clone(), Rc::clone(&line), files.clone());
        net.put_data(move |port| {
            let (wires, line, files) = &data;
            let (near, far) = wires.wire("data of the printer", line, WIRE);
            core::future::ready(files.take(port, far).then_some(near))
        });
        let more = ["--services=ftp,http", "--ftp-mode=proxy"];
        let proxy = root::start(&net, model.serial(), CODE, &more);
        pass(secs(1)).await;
        Self { net, wires, line, files, proxy }
    }

    fn client() -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1))
    }

    async fn log_in(&self) -> Control {
        let (near, far) = duplex(WIRE);
        assert!(self.net.arrive(990, Self::client(), far));
        Control::log_in(near).await
    }

    /// Begins an upload: the client's data connection, after the printer's 150.
    async fn begin(&self, control: &mut Control, name: &str) -> Wire {
        let port = control.data_port().await;
        let (far, near) = self.wires.wire("data of the client", &self.line, WIRE);
        assert!(self.net.arrive(port, Self::client(), far));
        let reply = control.command(&format!("STOR {name}")).await;
        assert!(reply.starts_with("150 "), "{reply}");
        near
    }

    /// What the status page's port has at this path.
    async fn shown(&self, path: &str) -> String {
        let (mut near, far) = duplex(WIRE);
        assert!(self.net.arrive(8080, Self::client(), far));
        near.write_all(http::get(path, &http::basic("bblp", CODE)).as_bytes()).await.unwrap();
        http::Answer::read(&mut near, false).await.text().to_owned()
    }

    /// How many uploads the printer takes for whole.
    fn completed(&self) -> u64 {
        self.files.look(|seen| seen.completed)
    }
}

#[test]
fn the_clients_226_follows_the_printers() {
    for printer in PRINTERS {
        lan::run(async {
            let bed = Bed::new(printer).await;
            // Printers with slow cards take up to five minutes.
            let files = bed.files.clone().late(secs(200));
            let mut control = bed.log_in().await;
            let mut data = bed.begin(&mut control, "plate.3mf").await;
            let plate = b"a sliced plate ".repeat(10_000);
            data.write_all(&plate).await.unwrap();
            data.shutdown().await.unwrap();
            let early = timeout(secs(199), control.reply()).await;
            assert_eq!((early.ok(), bed.completed()), (None, 0), "{printer:?}");
            let reply = control.reply().await;
            assert_eq!((reply.as_str(), bed.completed()), ("226 Transfer complete.\r\n", 1));
            assert_eq!(files.file("/plate.3mf").unwrap().content.as_deref(), Some(&*plate));
            bed.proxy.stop().await;
        });
    }
}

/// The beginning of a file, and another file.
static PART: [u8; 50_000] = [b'x'; 50_000];
static WHOLE: [u8; 50_000] = [b'y'; 50_000];

/// A client that has sent the printer [`PART`] of a file.
async fn uploading_part(printer: (Model, Family)) -> (Bed, Control, Wire) {
    let bed = Bed::new(printer).await;
    let mut control = bed.log_in().await;
    let mut data = bed.begin(&mut control, "part").await;
    data.write_all(&PART).await.unwrap();
    assert!(bed.files.until(secs(5), |seen| seen.taken == 50_000).await);
    (bed, control, data)
}

#[test]
fn who_waits_is_shown_with_its_place_in_the_queue() {
    lan::run(async {
        let (bed, mut control, mut data) = uploading_part(PRINTERS[0]).await;
        let mut waiting = bed.log_in().await;
        let port = waiting.data_port().await;
        let (far, _data) = bed.wires.wire("data of the client", &bed.line, WIRE);
        assert!(bed.net.arrive(port, Bed::client(), far));
        waiting.0.write_all(b"STOR next.3mf\r\n").await.unwrap();
        let mut browsing = bed.log_in().await;
        browsing.0.write_all(b"CWD /cache\r\n").await.unwrap();
        pass(secs(20)).await;
        let status: Value = serde_json::from_str(&bed.shown("/status").await).unwrap();
        let told = |at: usize| {
            let it = &status["transfers"][at];
            let words = ["client", "kind", "name", "state", "since_s", "position"];
            words.map(|word| it[word].to_string()).join(" ") + " " + &it["waits_for"].to_string()
        };
        assert_eq!(told(0), r#"1 "upload" "part" "moving" 20 null null"#);
        let behind = r#""the upload of client 1""#;
        assert_eq!(told(1), format!(r#"2 "upload" "next.3mf" "waiting" 20 1 {behind}"#));
        assert_eq!(told(2), format!(r#"3 "command" "CWD /cache" "waiting" 20 2 {behind}"#));
        let text = bed.shown("/status.txt").await;
        for line in [
            "  1: upload of part, 50000 bytes\n",
            "  2: upload of next.3mf, waits for the upload of client 1, place 1 in the queue\n",
            "  3: command CWD /cache, waits for the upload of client 1, place 2 in the queue\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let metrics = bed.shown("/metrics").await;
        let limit = format!("pandaproxy_queue_limit{{service=\"ftp\"}} {}", BOARD.clients.ftp);
        for line in ["pandaproxy_queue{service=\"ftp\"} 2", &limit] {
            assert!(metrics.lines().any(|its| its == line), "{line}");
        }
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
        assert!(waiting.reply().await.starts_with("150 "));
        let metrics = bed.shown("/metrics").await;
        assert!(metrics.contains("pandaproxy_queue{service=\"ftp\"} 1"), "the directory");
    });
}

/// The status has something in every list.
#[test]
fn the_names_of_status_are_those_in_its_document() {
    lan::run(async {
        let (bed, _control, _data) = uploading_part(PRINTERS[0]).await;
        let status = serde_json::from_str(&bed.shown("/status").await).unwrap();
        assert_eq!(http::metrics::names(&status), http::metrics::documented("/status"));
    });
}

#[test]
fn a_transfer_and_its_bytes_are_in_the_metrics() {
    lan::run(async {
        let (bed, mut control, mut data) = uploading_part(PRINTERS[0]).await;
        let metrics = bed.shown("/metrics").await;
        for direction in ["from_client", "to_printer"] {
            let name =
                format!("pandaproxy_bytes_total{{service=\"ftp\",direction=\"{direction}\"}} ");
            let counted = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
            let counted: usize = counted.parse().unwrap();
            assert!((PART.len()..PART.len() + 1000).contains(&counted), "{direction}: {counted}");
        }
        let moving = |text: &str, many: usize| {
            let name = "pandaproxy_in_use{service=\"ftp\",what=\"transfers\"}";
            assert!(text.lines().any(|line| line == format!("{name} {many}")), "{text}");
        };
        moving(&metrics, 1);
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
        pass(secs(60)).await;
        moving(&bed.shown("/metrics").await, 0);
    });
}

#[test]
fn a_transfer_whose_size_was_told_is_shown_with_it() {
    lan::run(async {
        let (bed, mut control, mut data) = uploading_part(PRINTERS[1]).await;
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
        assert_eq!(control.command("SIZE part").await, "213 50000\r\n");
        let port = control.data_port().await;
        // A client that does not read.
        let (far, _data) = bed.wires.wire("data of the client", &bed.line, 512);
        assert!(bed.net.arrive(port, Bed::client(), far));
        assert!(control.command("RETR part").await.starts_with("150 "));
        pass(secs(1)).await;
        let status: Value = serde_json::from_str(&bed.shown("/status").await).unwrap();
        let shown = &status["transfers"][0];
        assert_eq!((&shown["kind"], &shown["size"]), (&"download".into(), &50_000.into()));
        let text = bed.shown("/status.txt").await;
        assert!(
            text.contains("  1: download of part, ") && text.contains(" of 50000 bytes\n"),
            "{text}"
        );
    });
}

/// The printer is not waited for before the client has connected for its data.
#[test]
fn a_command_without_its_data_connection_has_no_place_in_the_queue() {
    lan::run(async {
        let bed = Bed::new(PRINTERS[0]).await;
        let mut control = bed.log_in().await;
        for (command, told, line) in [
            ("STOR plate.3mf", r#""upload" "plate.3mf""#, "upload of plate.3mf"),
            ("RETR plate.3mf", r#""download" "plate.3mf""#, "download of plate.3mf"),
            ("LIST /cache", r#""listing" "/cache""#, "listing of /cache"),
            ("LIST", r#""listing" null"#, "listing"),
        ] {
            control.data_port().await;
            control.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
            pass(secs(1)).await;
            let status: Value = serde_json::from_str(&bed.shown("/status").await).unwrap();
            let it = &status["transfers"][0];
            let words = ["kind", "name", "state", "position", "waits_for"];
            let words = words.map(|word| it[word].to_string()).join(" ");
            assert_eq!(words, format!(r#"{told} "waiting" null "the client's data connection""#));
            let text = bed.shown("/status.txt").await;
            let line = format!("  1: {line}, waits for the client's data connection\n");
            assert!(text.contains(&line), "{line}: {text}");
            let metrics = bed.shown("/metrics").await;
            assert!(metrics.contains("pandaproxy_queue{service=\"ftp\"} 0\n"), "{command}");
            assert!(control.command("ABOR").await.starts_with("426 "));
            assert!(control.reply().await.starts_with("226 "));
        }
        // One that has connected is in the queue, or served.
        let port = control.data_port().await;
        control.0.write_all(b"STOR plate.3mf\r\n").await.unwrap();
        let (far, mut data) = bed.wires.wire("data of the client", &bed.line, WIRE);
        assert!(bed.net.arrive(port, Bed::client(), far));
        assert!(control.reply().await.starts_with("150 "));
        let status: Value = serde_json::from_str(&bed.shown("/status").await).unwrap();
        assert_eq!(status["transfers"][0]["state"], "moving");
        data.shutdown().await.unwrap();
        assert!(control.reply().await.starts_with("226 "));
    });
}

#[test]
fn an_upload_whose_data_connection_is_reset_is_not_complete() {
    for printer in PRINTERS {
        lan::run(async {
            let (bed, mut control, data) = uploading_part(printer).await;
            data.cutter().reset();
            let reply = control.reply().await;
            assert!(reply.starts_with("426 "), "{printer:?}: {reply}");
            assert!(bed.files.until(secs(5), |seen| seen.uploads == 0).await);
            pass(secs(60)).await;
            assert_eq!(bed.completed(), 0, "{printer:?}: the printer takes it for whole");
            // There is no second reply, and the next upload is not affected.
            let mut data = bed.begin(&mut control, "whole").await;
            data.write_all(&WHOLE).await.unwrap();
            data.shutdown().await.unwrap();
            let reply = control.reply().await;
            assert!(reply.starts_with("226 "), "{printer:?}: {reply}");
            assert_eq!(bed.completed(), 1);
            bed.proxy.stop().await;
        });
    }
}

/// The kernel ends the connections of a program that was killed in order, so the end of its data connection looks like
/// that of a whole file.
#[test]
fn an_upload_of_a_client_that_was_killed_is_not_complete() {
    for printer in PRINTERS {
        lan::run(async {
            let (bed, control, data) = uploading_part(printer).await;
            // The ends arrive one after the other.
            drop(data);
            pass(ms(100)).await;
            drop(control);
            assert!(bed.files.until(secs(5), |seen| seen.uploads == 0).await);
            pass(secs(60)).await;
            assert_eq!(bed.completed(), 0, "{printer:?}: the printer takes it for whole");
            bed.proxy.stop().await;
        });
    }
}
