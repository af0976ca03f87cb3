//! The simulated printers over TLS, before real programs.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::process::{Command, Output, Stdio};

use tokio::runtime::Builder;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::sleep;

use super::{CODE, run, secs};
use printer::{Model, Printer, Refusal};

/// Real clients that verify the chain (but not the name) get the full state after a pushall.
#[test]
fn mosquitto_gets_the_full_state_over_tls() {
    if missing(&["mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    over_sockets(async || {
        for model in Model::ALL {
            let printer = Printer::new(model).quiet();
            let port = listening(&printer).await;
            let topic = printer.report_topic();
            let hearing = mosquitto("mosquitto_sub", port, &["-t", &topic, "-C", "1", "-N"]);
            let hearing = spawn_blocking(move || finished(hearing));
            assert!(printer.until(secs(20), |printer| printer.subscribers() == 1).await);
            let asking = [
                "-t",
                &printer.request_topic(),
                "-q",
                "1",
                "-m",
                r#"{"pushing":{"sequence_id":"0","command":"pushall"}}"#,
            ];
            let asking = mosquitto("mosquitto_pub", port, &asking);
            let asked = spawn_blocking(move || finished(asking)).await.unwrap();
            assert!(asked.status.success(), "{asked:?}");
            let heard = hearing.await.unwrap();
            assert_eq!(Some(&*heard.stdout), printer.last_full().as_deref(), "{model:?}");
            assert!(printer.until(secs(20), |printer| printer.open() == 0).await);
            assert_eq!(printer.orderly(), 2);

            let stranger = Printer::new(model).stranger();
            let port = listening(&stranger).await;
            let refused = mosquitto("mosquitto_sub", port, &["-t", &topic, "-C", "1"]);
            let refused = spawn_blocking(move || finished(refused)).await.unwrap();
            assert!(!refused.status.success());
            assert!(stranger.until(secs(20), |printer| printer.disorderly() > 0).await);
            assert_eq!(stranger.hellos(), []);
        }
    });
}

#[test]
fn openssl_sees_the_models_certificates_and_suites() {
    if missing(&["openssl"]) {
        return;
    }
    over_sockets(async || {
        for (model, certificates) in
            [(Model::P1S, 1), (Model::X1C, 1), (Model::A1Mini, 2), (Model::H2D, 2)]
        {
            let port = listening(&Printer::new(model).quiet()).await;
            let seen = s_client(port, &["-showcerts"]).await;
            assert_eq!(seen.matches("BEGIN CERTIFICATE").count(), certificates, "{model:?}");
            assert!(seen.contains("Protocol  : TLSv1.2"), "{seen}");
            assert!(seen.contains("Peer signing digest: SHA256\nPeer signature type: RSA\n"));
            if model != Model::P1S {
                assert!(seen.contains("Cipher is ECDHE-RSA-AES256-GCM-SHA384"), "{seen}");
            }
            let text = leaf_text(&seen).await;
            assert_eq!(text.contains("Version: 1 (0x0)"), model != Model::H2D, "{text}");
            assert!(text.contains(&format!("Subject: CN = {}\n", model.serial())), "{text}");
            assert!(!text.contains("Subject Alternative Name"), "{text}");
            assert!(s_client(port, &["-tls1_3"]).await.contains("no peer certificate available"));

            let bare = Printer::new(model).leaf_only().certificate_of(Model::A1Mini);
            let port = listening(&bare).await;
            let seen = s_client(port, &["-showcerts"]).await;
            assert_eq!(seen.matches("BEGIN CERTIFICATE").count(), 1);
            assert!(leaf_text(&seen).await.contains(Model::A1Mini.serial()));
        }
    });
}

#[test]
fn over_the_limit_tls_is_closed_or_never_answered() {
    if missing(&["openssl"]) {
        return;
    }
    over_sockets(async || {
        let printer = Printer::new(Model::P1S).connection_limit(0);
        let port = listening(&printer).await;
        let seen = s_client(port, &[]).await;
        assert!(seen.contains("no peer certificate available"), "{seen}");
        assert_eq!((printer.refused(), printer.ever()), (1, 0));

        let printer = printer.refusing(Refusal::Ignores);
        let asking = spawn_local(async move { s_client(port, &[]).await });
        assert!(printer.until(secs(20), |printer| printer.refused() == 2).await);
        sleep(Duration::from_millis(300)).await;
        assert!(!asking.is_finished());
        printer.reboot(secs(1)); // lets go of it
        assert!(asking.await.unwrap().contains("no peer certificate available"));
    });
}

/// Runs in real time.
pub(super) fn over_sockets(test: impl AsyncFnOnce()) {
    run(Builder::new_current_thread().enable_all(), secs(120), test);
}

async fn listening(printer: &Printer) -> u16 {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (address, serving) = printer.listen_tls(anywhere).await.unwrap();
    spawn_local(serving);
    address.port()
}

/// Whether one of these programs is missing; the test is recorded as [skipped](skips).
pub(super) fn missing(programs: &[&str]) -> bool {
    programs.iter().any(|program| skips::is_missing(program))
}

fn mosquitto(program: &str, port: u16, more: &[&str]) -> Command {
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki/ca.pem");
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--cafile", ca, "--insecure"]);
    command.args(["-u", "bblp", "-P", CODE, "-V", "mqttv311"]).args(more);
    if program == "mosquitto_sub" {
        command.args(["-W", "20"]);
    }
    command
}

/// What `openssl s_client` prints.
async fn s_client(port: u16, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(more);
    let seen = spawn_blocking(move || finished(command)).await.unwrap();
    String::from_utf8(seen.stdout).unwrap()
}

/// The first certificate in what `s_client` printed, as text.
async fn leaf_text(seen: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    let (from, to) = (seen.find("-----BEGIN").unwrap(), seen.find(end).unwrap() + end.len());
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-text", "-in"]);
    let file = std::env::temp_dir().join(format!("simulated-printer-{}.pem", std::process::id()));
    std::fs::write(&file, &seen[from..to]).unwrap();
    command.arg(&file);
    let text = spawn_blocking(move || finished(command)).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    String::from_utf8(text.stdout).unwrap()
}

pub(super) fn finished(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}
