//! `pandaproxy check` in virtual time: each stage good and bad, before the simulated printer.

use core::cell::Cell;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;
use std::time::SystemTime;

use pandaproxy::check::{Checked, Finding, NOT_KNOWN, Outcome, Stage, Verdict};
use pandaproxy::config::Config;
use pandaproxy::mqtt::upstream::QUIET_TIMEOUT;
use pandaproxy::runtime::check::local::{Machine, NoStatus, PortState};
use pandaproxy::runtime::check::{Check, Progress, TIMEOUT};
use pandaproxy::runtime::datagram::Datagrams;
use pandaproxy::runtime::launch::Context;
use pandaproxy::state_dir::pins::Fingerprint;
use pandaproxy::tls::{Name, Refusal};
use printer::camera::{Camera, OverLimit};
use printer::ftp::{Family, FileServer};
use printer::ssdp::{Announcements, Announcer};
use printer::tunnel::Tunnel;
use printer::{Model, Printer, Quirk};
use tokio::io::DuplexStream;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::lan::chamber::{At, Port};
use crate::lan::net::SimNet;
use crate::lan::root::{config, context};
use crate::lan::rtsp::camera;
use crate::lan::{self, CODE, PROXY, pass, secs};

/// The printer's address, in the proxy's network.
const PRINTER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 4);

/// Another machine in it.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 9);

/// The machine of a check, as a test wants it.
#[derive(Default)]
struct Fake {
    is_running: bool,
    status: Option<Result<String, NoStatus>>,
    taken: Option<u16>,
    hidden: Option<u16>,
    answers: Option<Result<(), bool>>,
    time: Option<SystemTime>,
}

impl Machine for Fake {
    fn is_running(&self) -> bool {
        self.is_running
    }

    fn status(&self) -> Result<String, NoStatus> {
        self.status.clone().unwrap_or(Err(NoStatus::Off))
    }

    fn port(&self, _: &Config, _: &str, port: u16) -> PortState {
        match (self.taken == Some(port), self.is_running) {
            (true, _) => PortState::Taken("mosquitto, pid 812".to_owned()),
            (false, _) if self.hidden == Some(port) => PortState::Hidden,
            (false, true) => PortState::Own,
            (false, false) => PortState::Free,
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(PROXY)
    }

    fn authority(&self, _: &Config) -> Option<Fingerprint> {
        Some([0xab; 32])
    }

    fn answers_at(&self, _: &Config, _: IpAddr) -> Option<Result<(), bool>> {
        self.answers
    }

    fn time(&self) -> SystemTime {
        self.time.unwrap_or_else(SystemTime::now)
    }

    fn resources(&self, _: &Config) -> Finding {
        Finding::good("300 MiB of memory available")
    }
}

/// Prints the stages, which a failed test shows.
struct Printed;

impl Progress for Printed {
    fn begin(&mut self, _: Stage) {}

    fn end(&mut self, checked: &Checked) {
        println!("{checked}");
    }
}

/// A printer with all its ports, and the machine that is checked.
struct Bed {
    net: SimNet,
    printer: Printer,
    model: Model,
    mqtt: Port,
    chamber: Port,
    rtsp: Port,
    ftp: Port,
    files: FileServer,
    machine: Fake,
    code: &'static str,
    serial: &'static str,
    more: Vec<&'static str>,
    announces: Cell<bool>,
}

impl Bed {
    fn new(model: Model) -> Self {
        let (net, printer) = (SimNet::new(), Printer::new(model));
        let family = if model == Model::P1S { Family::Esp32 } else { Family::Vsftpd };
        let files = FileServer::new(family).code(CODE);
        files.put("/plate.3mf", b"a plate");
        let (chamber, rtsp) = match model {
            Model::P1S | Model::A1Mini => (At::Camera(Camera::new().code(CODE)), At::Closed),
            Model::X1C | Model::H2D => (At::Tunnel(Tunnel::new()), At::Rtsp(camera())),
        };
        let serving = printer.clone();
        let mqtt = Port::new(script(move |stream| {
            let printer = serving.clone();
            spawn_local(async move { printer.serve(stream).await });
        }));
        let control = files.clone();
        let ftp = Port::new(script(move |stream| {
            let files = control.clone();
            spawn_local(async move { files.serve(stream).await });
        }));
        let (chamber, rtsp) = (Port::new(chamber), Port::new(rtsp));
        for (port, at) in [(8883, &mqtt), (6000, &chamber), (322, &rtsp), (990, &ftp)] {
            net.put(port, at.clone());
        }
        let data = files.clone();
        net.put_data(move |port| core::future::ready(data.dial(port)));
        let (machine, more) = (Fake::default(), Vec::new());
        let announces = Cell::new(true);
        Self {
            net,
            printer,
            model,
            mqtt,
            chamber,
            rtsp,
            ftp,
            files,
            machine,
            code: CODE,
            serial: model.serial(),
            more,
            announces,
        }
    }

    fn announce(&self, from: Ipv4Addr, at: Ipv4Addr) -> Announcements {
        let of = if self.model == Model::P1S { Announcer::P1S } else { Announcer::P2S };
        let announcements = Announcements::new(of, self.model.serial(), at);
        let socket = self.net.air().host(from, of.source_port());
        let its = announcements.clone();
        spawn_local(its.run(move |text, to| socket.send(text, to).unwrap()));
        announcements
    }

    async fn check(&self) -> Outcome {
        if self.announces.get() {
            self.announce(PRINTER, PRINTER);
        }
        let config = config(self.serial, self.code, &self.more);
        let Context { clock, seed, credentials } = context();
        let trust = credentials(&config).unwrap().trust;
        let check =
            Check { config: &config, net: &self.net, clock, trust, machine: &self.machine, seed };
        let since = Instant::now();
        let outcome = check.run(&mut Printed).await;
        let took = since.elapsed();
        println!("{} after {took:?}", outcome.summary());
        assert!(took <= TIMEOUT + secs(10), "{took:?}");
        assert_eq!(outcome.stages.len(), Stage::ALL.len());
        assert!(!outcome.json().to_string().contains(self.code), "the code is not shown");
        outcome
    }
}

fn script(serve: impl Fn(DuplexStream) + 'static) -> At {
    At::Script(Rc::new(serve))
}

/// Asserts that a stage failed, and is the first one, for this cause.
#[track_caller]
fn failed(outcome: &Outcome, stage: Stage, anchor: &str, words: &str) {
    let finding = outcome.of(stage).unwrap();
    assert_eq!((finding.verdict, finding.anchor), (Verdict::Failed, Some(anchor)), "{finding:?}");
    assert!(finding.text.contains(words), "{finding:?}");
    assert!(finding.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{finding:?}");
    assert_eq!(outcome.exit_status(), stage.exit_status(), "{stage:?}");
}

#[track_caller]
fn warned(outcome: &Outcome, stage: Stage, anchor: &str) {
    let finding = outcome.of(stage).unwrap();
    assert_eq!((finding.verdict, finding.anchor), (Verdict::Warning, Some(anchor)), "{finding:?}");
    assert_eq!(outcome.exit_status(), 0);
}

/// Asserts that the printer was not asked, which is neither good nor bad.
#[track_caller]
fn not_known(outcome: &Outcome) {
    verdicts(outcome, &[Stage::Printer], Verdict::Unknown);
    verdicts(outcome, &Stage::AT_PRINTER[1..], Verdict::Skipped);
    assert_eq!(outcome.exit_status(), NOT_KNOWN);
    assert!(outcome.summary().to_string().ends_with("can be used is not known"));
    let json = outcome.json().to_string();
    assert!(json.contains(r#""name":"printer","verdict":"unknown""#), "{json}");
    assert!(json.ends_with(r#""exit_status":3}"#), "{json}");
}

/// Asserts that these stages failed for what an earlier one has told.
#[track_caller]
fn told_before(outcome: &Outcome, stages: &[Stage], anchor: &str, words: &str) {
    verdicts(outcome, stages, Verdict::Failed);
    for stage in stages {
        let Finding { text, hint, anchor: found, .. } = outcome.of(*stage).unwrap();
        assert_eq!((&**text, hint.as_deref(), *found), (words, None, Some(anchor)), "{stage:?}");
    }
}

#[track_caller]
fn verdicts(outcome: &Outcome, stages: &[Stage], verdict: Verdict) {
    for stage in stages {
        assert_eq!(outcome.of(*stage).unwrap().verdict, verdict, "{stage:?}");
    }
}

#[test]
fn each_stage_of_each_printer_is_good() {
    for model in Model::ALL {
        lan::run(async {
            let bed = Bed::new(model);
            let outcome = bed.check().await;
            verdicts(&outcome, &Stage::ALL, Verdict::Good);
            assert_eq!(outcome.exit_status(), 0);
            pass(secs(5)).await;
            assert_eq!((bed.printer.orderly(), bed.printer.open()), (1, 0), "left in order");
            // Each port is connected to twice: to see that it is open, and to use it.
            let dialled = [&bed.mqtt, &bed.ftp].map(Port::dialled);
            assert_eq!(dialled, [1, 2]);
        });
    }
}

#[test]
fn a_printer_that_is_off_ends_the_stages_at_it() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        for port in [&bed.mqtt, &bed.chamber, &bed.rtsp, &bed.ftp] {
            port.now(At::Off);
        }
        bed.announces.set(false);
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "printer-off", "mqtt 8883 filtered");
        verdicts(&outcome, &Stage::AT_PRINTER[1..], Verdict::Skipped);
        let finding = outcome.of(Stage::Discovery).unwrap();
        assert_eq!(finding.anchor, Some("unheard"));
    });
}

#[test]
fn closed_and_filtered_ports_are_told_apart() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        bed.mqtt.now(At::Closed);
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "port-closed", "the printer's port 8883 is closed");
        let bed = Bed::new(Model::P1S);
        for port in [&bed.mqtt, &bed.chamber, &bed.ftp] {
            port.now(At::Closed);
        }
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "port-closed", "chamber 6000 closed, ftp 990 closed");
        told_before(&outcome, &[Stage::Camera, Stage::Files], "port-closed", "see 3 printer");
        let bed = Bed::new(Model::P1S);
        bed.ftp.now(At::Off);
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "port-filtered", "no answer from the printer's port 990");
        verdicts(&outcome, &[Stage::Login, Stage::Report, Stage::Camera], Verdict::Good);
        told_before(&outcome, &[Stage::Files], "port-filtered", "see 3 printer");
        // A camera's port is judged with the camera. The printer has answered at the others.
        for (model, port) in [(Model::P1S, 6000), (Model::X1C, 322)] {
            let bed = Bed::new(model);
            for camera in [&bed.chamber, &bed.rtsp] {
                camera.now(At::Off);
            }
            let outcome = bed.check().await;
            let words = format!("no answer from the printer's port {port}");
            failed(&outcome, Stage::Camera, "port-filtered", &words);
        }
    });
}

#[test]
fn another_printer_is_named_and_gets_no_code() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        let found = Name::of(b"01P00A999999999");
        bed.net.refuse_certificate(Refusal::WrongSerial { found });
        let outcome = bed.check().await;
        failed(&outcome, Stage::Certificate, "wrong-serial", "issued to printer 01P00A999999999");
        verdicts(&outcome, &Stage::AT_PRINTER[2..], Verdict::Skipped);
        assert!(bed.printer.hellos().is_empty() && bed.files.seen().logins == 0);
    });
}

#[test]
fn a_wrong_code_is_shown_once() {
    lan::run(async {
        let bed = Bed { code: "87654321", ..Bed::new(Model::P1S) };
        let outcome = bed.check().await;
        failed(&outcome, Stage::Login, "wrong-code", "the printer refuses the access code");
        verdicts(&outcome, &[Stage::Report, Stage::Camera, Stage::Files], Verdict::Skipped);
        assert_eq!(bed.printer.hellos().len(), 1);
    });
}

#[test]
fn a_printer_without_free_connections_is_seen() {
    lan::run(async {
        // Closed at once, as by a P1S.
        let bed = Bed::new(Model::P1S);
        bed.mqtt.now(script(drop));
        failed(&bed.check().await, Stage::Login, "slots-full", "closed before");
        // Never answered.
        let bed = Bed::new(Model::P1S);
        bed.mqtt.now(script(|stream| {
            spawn_local(async move {
                let _held = stream;
                pass(secs(600)).await;
            });
        }));
        let outcome = bed.check().await;
        failed(&outcome, Stage::Login, "no-connack", "no answer from the printer's broker");
        verdicts(&outcome, &[Stage::Camera, Stage::Files], Verdict::Good);
    });
}

#[test]
fn a_printer_that_does_not_report_is_seen() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        bed.printer.turn(Quirk::Silence, true);
        let outcome = bed.check().await;
        failed(&outcome, Stage::Report, "no-report", "no report came in 10 s");
        pass(secs(5)).await;
        assert_eq!(bed.printer.orderly(), 1);
    });
}

#[test]
fn a_camera_that_shows_nothing_is_explained() {
    lan::run(async {
        let bed = Bed::new(Model::X1C);
        bed.rtsp.now(At::Closed);
        failed(&bed.check().await, Stage::Camera, "rtsps-off", "does not answer");
        let bed = Bed::new(Model::P1S);
        bed.chamber.now(At::Camera(Camera::new().code(CODE).first_after(secs(3600))));
        failed(&bed.check().await, Stage::Camera, "chamber-dark", "sends no picture");
        let bed = Bed::new(Model::P1S);
        let busy = Camera::new().code(CODE).viewers(0).over_limit(OverLimit::Closes);
        bed.chamber.now(At::Camera(busy));
        failed(&bed.check().await, Stage::Camera, "chamber-busy", "closes after the login");
        let bed = Bed::new(Model::P1S);
        bed.chamber.now(At::Closed);
        failed(&bed.check().await, Stage::Camera, "port-closed", "port 6000 is closed");
    });
}

#[test]
fn a_file_server_that_refuses_is_explained() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        let other = FileServer::new(Family::Esp32).code("87654321");
        bed.ftp.now(script(move |stream| {
            let files = other.clone();
            spawn_local(async move { files.serve(stream).await });
        }));
        failed(&bed.check().await, Stage::Files, "wrong-code", "refuses the access code");
        let bed = Bed::new(Model::P1S);
        bed.net.put_data(|_| core::future::ready(None::<DuplexStream>));
        failed(&bed.check().await, Stage::Files, "files", "does not answer");
        let bed = Bed::new(Model::P1S);
        bed.ftp.now(script(drop));
        failed(&bed.check().await, Stage::Files, "slots-full", "closed before");
    });
}

#[test]
fn own_address_as_the_printers_is_found() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        bed.net.resolving(|| core::future::ready(Some(Ipv4Addr::LOCALHOST.into())));
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "itself", "127.0.0.1 is this machine");
        assert_eq!(bed.mqtt.dialled(), 0);
    });
}

#[test]
fn a_name_without_an_address_is_found() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        bed.net.resolving(|| core::future::ready(None));
        let outcome = bed.check().await;
        failed(&outcome, Stage::Printer, "no-such-name", "cannot be resolved");
        verdicts(&outcome, &Stage::AT_PRINTER[1..], Verdict::Skipped);
        let bed = Bed::new(Model::P1S);
        bed.net.resolving(|| core::future::ready(None));
        bed.announces.set(false);
        verdicts(&bed.check().await, &[Stage::Discovery], Verdict::Skipped);
    });
}

#[test]
fn another_program_on_a_port_is_named() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.taken = Some(8883);
        let outcome = bed.check().await;
        failed(&outcome, Stage::Ports, "port-taken", "(mqtt): mosquitto, pid 812");
        verdicts(&outcome, &Stage::AT_PRINTER, Verdict::Good);
    });
}

#[test]
fn who_announces_the_printer_is_heard() {
    lan::run(async {
        let bed = Bed::new(Model::P1S);
        let socket = bed.net.air().host(OTHER, 2021);
        let text = Announcements::new(Announcer::P1S, Model::P1S.serial(), OTHER).text();
        let text = text.replace("Server: UPnP/1.0", "Server: UPnP/1.0 PandaProxy");
        spawn_local(async move {
            loop {
                let to = core::net::SocketAddrV4::new(Ipv4Addr::BROADCAST, 2021);
                socket.send(text.as_bytes(), to).unwrap();
                pass(secs(5)).await;
            }
        });
        let outcome = bed.check().await;
        warned(&outcome, Stage::Discovery, "other-proxy");
        assert!(outcome.of(Stage::Discovery).unwrap().text.contains("10.1.2.9"));

        let bed = Bed::new(Model::P1S);
        bed.announces.set(false);
        bed.announce(PRINTER, PRINTER).set_cloud(true);
        warned(&bed.check().await, Stage::Discovery, "cloud-mode");

        let bed = Bed::new(Model::P1S);
        bed.announces.set(false);
        bed.announce(OTHER, OTHER);
        warned(&bed.check().await, Stage::Discovery, "announced-elsewhere");
    });
}

#[test]
fn shapes_of_settings_are_warned_of() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.serial = "01P00A3C12004";
        bed.net.refuse_certificate(Refusal::WrongSerial { found: Name::of(b"01P00A3C1200417") });
        let outcome = bed.check().await;
        let finding = outcome.of(Stage::Settings).unwrap();
        assert_eq!((finding.verdict, finding.anchor), (Verdict::Warning, Some("serial-shape")));
    });
}

#[test]
fn a_clock_that_is_not_set_is_warned_of() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        warned(&bed.check().await, Stage::Certificate, "clock");
    });
}

#[test]
fn a_running_service_keeps_its_printer_to_itself() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.is_running = true;
        bed.machine.answers = Some(Ok(()));
        let outcome = bed.check().await;
        not_known(&outcome);
        assert_eq!(outcome.of(Stage::Printer).unwrap().anchor, Some("status-off"));
        verdicts(&outcome, &[Stage::Ports, Stage::Clients], Verdict::Good);
        let dialled = [&bed.mqtt, &bed.chamber, &bed.rtsp, &bed.ftp].map(Port::dialled);
        assert_eq!(dialled, [0; 4], "the printer is not connected to");
        for (is_foreign, anchor) in [(true, "not-ours"), (false, "not-reached")] {
            bed.machine.answers = Some(Err(is_foreign));
            let outcome = bed.check().await;
            failed(&outcome, Stage::Clients, anchor, "10.1.2.3");
        }
    });
}

#[test]
fn the_address_that_clients_are_given_is_named_or_why_it_is_not_known() {
    const NEITHER: &str = "no address is known at which clients reach this machine";
    for (own, way_out, more, words) in [
        (&[PROXY][..], true, &[][..], "10.1.2.3, authority"),
        // A network without a router, and a printer whose name was not resolved.
        (&[PROXY], false, &[], "10.1.2.3, authority"),
        (&[], false, &["--advertise-ip=10.9.9.9"], "10.9.9.9, authority"),
        (&[], false, &[], NEITHER),
    ] {
        lan::run(async {
            let mut bed = Bed::new(Model::P1S);
            bed.net.resolving(|| core::future::ready(None));
            bed.net.air().set_proxy(own);
            bed.net.air().set_way_out(way_out);
            bed.more.extend(more);
            let outcome = bed.check().await;
            assert_eq!(outcome.of(Stage::Printer).unwrap().anchor, Some("no-such-name"));
            let finding = outcome.of(Stage::Clients).unwrap();
            assert!(finding.text.starts_with(words), "{finding:?}");
            let anchor = (words == NEITHER).then_some("no-own-address");
            assert_eq!(finding.anchor, anchor, "{finding:?}");
            assert!(!outcome.json().to_string().contains("(none)"));
        });
    }
}

#[test]
fn services_without_a_port_have_none_to_check() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.more.push("--services=ssdp");
        let finding = bed.check().await.of(Stage::Ports).unwrap().clone();
        assert_eq!(finding, Finding::skipped("no service listens for clients"));
    });
}

#[test]
fn a_status_that_is_not_known_is_explained() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.is_running = true;
        // Another user's program, which this user cannot look at.
        bed.machine.status = Some(Err(NoStatus::Hidden(8883)));
        bed.machine.hidden = Some(8883);
        let outcome = bed.check().await;
        assert_eq!(outcome.of(Stage::Ports).unwrap().verdict, Verdict::Warning);
        for stage in [Stage::Ports, Stage::Printer] {
            let finding = outcome.of(stage).unwrap();
            assert!(finding.text.contains("port 8883 is held by a program of another user"));
            assert!(finding.hint.as_ref().is_some_and(|hint| hint.contains("with sudo")));
        }
        not_known(&outcome);
        let why = "http on 127.0.0.1:8080: the running proxy has another access code; correct it";
        bed.machine.status = Some(Err(NoStatus::Failed(why.to_owned())));
        let outcome = bed.check().await;
        not_known(&outcome);
        let finding = outcome.of(Stage::Printer).unwrap();
        assert!(finding.text.ends_with("the running proxy has another access code"), "{finding:?}");
        assert_eq!(finding.hint.as_deref(), Some("correct it"));
    });
}

#[test]
fn a_printer_that_went_away_is_not_shown_as_it_was() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.is_running = true;
        let before = r#""reachable":true,"certificate":"accepted","code":"accepted","camera":"chamber",
            "last_report_age_s":47,"firmware":"01.07.00.00","developer_mode":true,"live_view":null"#;
        for (reason, stage, anchor) in [
            ("the printer's port 8883 is closed; wait", Stage::Printer, "port-closed"),
            ("the printer does not answer the TLS handshake", Stage::Certificate, "no-handshake"),
            (
                "the printer's certificate is rejected: issued to printer 01P00A999999999; correct it",
                Stage::Certificate,
                "wrong-serial",
            ),
            ("logged out", Stage::Login, "broker"),
        ] {
            let text = status(before, "failing", &format!("\"{reason}\""));
            bed.machine.status = Some(Ok(text));
            let outcome = bed.check().await;
            let words = reason.split("; ").next().unwrap();
            failed(&outcome, stage, anchor, words);
            let of_reports = [Stage::Certificate, Stage::Login, Stage::Report];
            let behind = of_reports.into_iter().filter(|it| it.number() > stage.number());
            verdicts(&outcome, &behind.collect::<Vec<_>>(), Verdict::Skipped);
            if anchor != "broker" {
                // The camera's connection fails for the same.
                let camera = r#""port":6000,"open":true,"upstream":"idle","reason":null"#;
                let failing =
                    format!(r#""port":6000,"open":true,"upstream":"failing","reason":"{reason}""#);
                let text = status(before, "failing", &format!("\"{reason}\""));
                let text = text.replace(camera, &failing);
                bed.machine.status = Some(Ok(text));
                let see = format!("see {} {}", stage.number(), stage.name());
                told_before(&bed.check().await, &[Stage::Camera], anchor, &see);
            }
        }
        // Connected, and silent. After a minute the service asks, and the printer has time to answer.
        let longest = QUIET_TIMEOUT.as_secs();
        for (age, verdict) in
            [(62, Verdict::Good), (longest, Verdict::Good), (longest + 1, Verdict::Failed)]
        {
            let text =
                before.replace("\"last_report_age_s\":47", &format!("\"last_report_age_s\":{age}"));
            bed.machine.status = Some(Ok(status(&text, "connected", "null")));
            verdicts(&bed.check().await, &[Stage::Report], verdict);
        }
    });
}

/// A service's status with these values of its printer and of its MQTT connection.
fn status(printer: &str, upstream: &str, reason: &str) -> String {
    format!(
        r#"{{"version":"0.1.0","ready":true,"printer":{{{printer},"address":"10.1.2.4"}},"services":[
        {{"name":"mqtt","port":8883,"open":true,"upstream":"{upstream}","reason":{reason}}},
        {{"name":"chamber","port":6000,"open":true,"upstream":"idle","reason":null}},
        {{"name":"ftp","port":990,"open":true,"upstream":"idle","reason":null}}]}}"#
    )
}

#[test]
fn a_running_services_status_stands_for_the_printer() {
    lan::run(async {
        let mut bed = Bed::new(Model::P1S);
        bed.machine.is_running = true;
        let good = r#""reachable":true,"certificate":"accepted","code":"accepted","camera":"chamber",
            "last_report_age_s":2,"firmware":"01.07.00.00","developer_mode":true,"live_view":null"#;
        bed.machine.status = Some(Ok(status(good, "connected", "null")));
        let outcome = bed.check().await;
        // What connects when a client needs it was not tried.
        let idle = [Stage::Camera, Stage::Files];
        verdicts(&outcome, &idle, Verdict::Skipped);
        let others = Stage::ALL.into_iter().filter(|stage| !idle.contains(stage));
        verdicts(&outcome, &others.collect::<Vec<_>>(), Verdict::Good);
        let report = outcome.of(Stage::Report).unwrap();
        assert!(report.text.contains("01.07.00.00"), "{report:?}");

        let ftp = r#""port":990,"open":true,"upstream":"#;
        let relayed = status(good, "connected", "null")
            .replace(&format!("{ftp}\"idle\""), &format!("{ftp}null"));
        bed.machine.status = Some(Ok(relayed));
        let outcome = bed.check().await;
        let files = outcome.of(Stage::Files).unwrap();
        assert_eq!(files.verdict, Verdict::Skipped);
        assert_eq!(files.text, "relayed: clients log in to the printer themselves");

        let bad =
            r#""reachable":true,"certificate":"accepted","code":"refused","camera":"chamber""#;
        let reason = r#""the printer refuses the access code; compare it with the screen""#;
        bed.machine.status = Some(Ok(status(bad, "failing", reason)));
        failed(&bed.check().await, Stage::Login, "wrong-code", "refuses the access code");

        let off = r#""reachable":false"#;
        bed.machine.status = Some(Ok(status(off, "failing", r#""the printer does not answer""#)));
        failed(&bed.check().await, Stage::Printer, "printer-off", "does not answer");
        // What is no status says nothing, and breaks nothing.
        for odd in ["", "null", "[]", "{\"printer\":3,\"services\":{}}", "{\"services\":[1,{}]"] {
            bed.machine.status = Some(Ok(odd.to_owned()));
            let outcome = bed.check().await;
            let unknown = [Stage::Printer, Stage::Report];
            verdicts(&outcome, &unknown, Verdict::Unknown);
            let others = Stage::AT_PRINTER.into_iter().filter(|stage| !unknown.contains(stage));
            verdicts(&outcome, &others.collect::<Vec<_>>(), Verdict::Skipped);
            assert_eq!(outcome.exit_status(), NOT_KNOWN);
        }
        // It dials just now.
        bed.machine.status = Some(Ok(status(r#""reachable":null"#, "connecting", "null")));
        let outcome = bed.check().await;
        verdicts(&outcome, &[Stage::Printer, Stage::Login, Stage::Report], Verdict::Unknown);
        assert_eq!(outcome.exit_status(), NOT_KNOWN);
        assert_eq!(bed.mqtt.dialled(), 0);
    });
}
