//! Recordings by the real program: what the files hold, what they never hold, and directories that cannot be
//! written. `tests/traces` has recordings of all services, made by its `make.sh`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::clients::mqtt::{Client, Hello};
use skips::is_missing;

use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{
    self, CODE, HOME, PRINTER_CA, Proxy, StateDir, command, switch_on, usual,
};
use crate::recording::{self, End};
use printer::ftp::{Family, FileServer};
use printer::{Camera, Model, Printer};

const SERIAL: &str = Model::P1S.serial();

/// A code that is not the printer's.
const WRONG: &str = "Wr0ng5C0de";

/// The code in `tests/traces/make.sh`, and the addresses there.
const MADE_WITH: [&str; 4] = ["84736251", "127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// A login, a rejected login and a request are recorded, without the secrets.
#[test]
fn a_recording_has_the_traffic_and_no_secret() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let mut arguments = usual(&printer, address, &dir);
        let out = dir.file("recording");
        arguments.extend(["record", "--out", out.to_str().unwrap()].map(str::to_owned));
        let mut proxy = Proxy::start(command(arguments), dir).await;
        proxy.live().await;
        let mut reader = proxy.reader(HOME, "reader").await;
        reader.report().await;
        let wrong = Hello { password: Some(WRONG.as_bytes()), ..Hello::default() };
        let refused = proxy.tls_from(Ipv4Addr::new(127, 0, 0, 9)).await.unwrap();
        assert_ne!(Client::over(refused).connect(&wrong).await, 0);
        let topic = format!("device/{SERIAL}/request");
        let request =
            format!("{{\"print\":{{\"command\":\"pause\",\"why\":\"{CODE} 127.0.0.9\"}}}}");
        reader.publish(&topic, request.as_bytes(), 0, 0).await;
        let came = |printer: &Printer| printer.requests_ever() > 2;
        assert!(printer.until(Duration::from_secs(20), came).await);
        proxy.program.signal("TERM");
        let (code, output) = proxy.program.ended().await;
        assert_eq!(code, Some(0), "{}", output.err);
        assert!(output.err.contains("before you share"), "{}", output.err);

        let files = recordings(&out);
        assert_eq!(files.len(), 1);
        let bytes = fs::read(&files[0]).unwrap();
        for secret in [CODE, SERIAL, WRONG, "127.0.0.1", "127.0.0.9", "7Kq2x", "3C1200417"] {
            assert!(!holds(&bytes, secret), "{secret} is in it");
        }
        for there in ["01P00X0X0000000/request", "bblp", "\"command\":\"pause\"", "MQTT"] {
            assert!(holds(&bytes, there), "{there} is not in it");
        }
        if is_missing("tshark") {
            return;
        }
        let commands = dissected(&files[0], "mqtt", "mqtt.msgtype");
        // CONNECT of three, CONNACK, SUBSCRIBE, SUBACK, PUBLISH, DISCONNECT.
        for kind in ["1", "2", "3", "8", "9", "14"] {
            assert!(commands.iter().any(|seen| seen.split(',').any(|seen| seen == kind)), "{kind}");
        }
    });
}

/// Logins at the other services with right and wrong codes, and the proxy's own at the camera.
#[test]
fn a_recording_of_every_login_has_no_secret() {
    proxy::run(async {
        let camera = Camera::new().code(CODE);
        let files = FileServer::new(Family::Esp32).code(CODE);
        let anywhere = SocketAddr::from((HOME, 0));
        // Both cameras' ports are open: one because of the model, one because of the setting.
        let (model, serial) = (Model::X1C, Model::X1C.serial());
        let (chamber_at, shows) = camera.listen_tls(anywhere, model).await.unwrap();
        let (ftp_at, stores) = files.listen_tls(anywhere, model).await.unwrap();
        let _serving = (spawn_local(shows), spawn_local(stores));
        let dir = StateDir::new();
        let out = dir.file("recording");
        let [state, recording] = [dir.path(), &out].map(|path| path.to_str().unwrap());
        let mut program = command(["-p", "127.0.0.1", "-s", serial, "--bind", "127.0.0.1"]);
        program.env("ACCESS_CODE", CODE).args(["--port-6000=chamber", "--ftp-mode=proxy"]);
        program.args(["--services", "camera,ftp", "--port", "chamber=0,rtsp=0,ftp=0"]);
        program.args(["--ftp-data-ports", "0", "--printer-ca", PRINTER_CA, "--state-dir", state]);
        let ports = format!("chamber={},ftp={}", chamber_at.port(), ftp_at.port());
        program.args(["--printer-port", &ports, "--record", recording]);
        let mut proxy = Proxy::start_serving("ftp", program, dir).await;

        for code in [WRONG, CODE] {
            let mut login = [0; 80];
            login[..8].copy_from_slice(&[0x40, 0, 0, 0, 0, 0x30, 0, 0]);
            login[16..20].copy_from_slice(b"bblp");
            login[48..48 + code.len()].copy_from_slice(code.as_bytes());
            send_to(&proxy, "chamber", &[&login]).await;
            let basic = STANDARD.encode(format!("bblp:{code}"));
            let describe = format!(
                "DESCRIBE rtsps://bblp:{code}@127.0.0.1/ RTSP/1.0\r\nCSeq: 1\r\n\
                 Authorization: Basic {basic}\r\n\r\n"
            );
            send_to(&proxy, "rtsp", &[describe.as_bytes()]).await;
            let pass = format!("PASS {code}\r\n");
            // In pieces, as slow clients do.
            let (half, rest) = pass.split_at(9);
            let commands = ["USER bblp\r\n", half, rest, "PASV\r\n"].map(str::as_bytes);
            send_to(&proxy, "ftp", &commands).await;
        }
        proxy.program.signal("TERM");
        let (_, Said { err: log, .. }) = proxy.program.ended().await;

        let bytes = fs::read(&recordings(&out)[0]).unwrap();
        let mut secrets = vec!["127.0.0.1".to_owned(), "127,0,0,1".to_owned()];
        for secret in [CODE, WRONG, serial] {
            secrets.push(secret.to_owned());
            secrets.extend((0..3).map(|before| base64(secret, before)));
        }
        let output: Vec<u8> = conversations(&out).concat();
        for secret in secrets {
            assert!(!holds(&bytes, &secret) && !holds(&output, &secret), "{secret} is in it");
        }
        // Each login was recorded.
        let login = format!("bblp{}1Xx1xX1x", "\0".repeat(28));
        for (there, times) in [
            (login.as_str(), 2),
            ("PASS 1Xx1xX1x\r\n", 1),
            ("PASS Zz9zz9Z9zz\r\n", 1),
            ("Authorization: Basic YmJscDo", 1),
            ("Authorization: Basic AAAA", 1),
            ("227 ", 1),
        ] {
            let found =
                output.windows(there.len()).filter(|seen| *seen == there.as_bytes()).count();
            assert!(found >= times, "{there}: {found} times\n{log}");
        }
    });
}

#[test]
fn an_unwritable_directory_ends_record_but_not_the_proxy() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let nowhere = "/proc/nowhere";
        let proxy = Proxy::before(&printer, address, &["--record", nowhere]).await;
        let line = proxy.program.line("cannot record in /proc/nowhere").await;
        assert!(line.contains("the proxy runs without a recording"), "{line}");
        proxy.live().await;
        proxy.reader(HOME, "reader").await.report().await;
        drop(proxy);

        let dir = StateDir::new();
        let mut arguments = usual(&printer, address, &dir);
        arguments.extend(["record", "--out", nowhere].map(str::to_owned));
        let (code, output) = Program::start(&mut command(arguments)).ended().await;
        assert_eq!(code, Some(1), "{}", output.err);
        assert!(output.err.contains("cannot record in /proc/nowhere"), "{}", output.err);
    });
}

/// A full disk ends the recording with one log line; the proxy continues to serve.
#[test]
fn a_disk_that_is_full_ends_the_recording_and_nothing_else() {
    proxy::run(async {
        let printer = Printer::new(Model::P1S).code(CODE);
        let (address, _serving) = switch_on(&printer, SocketAddr::from((HOME, 0))).await;
        let dir = StateDir::new();
        let out = dir.file("recording");
        let mut arguments = usual(&printer, address, &dir);
        arguments.extend(["--record", out.to_str().unwrap()].map(str::to_owned));
        // A file may have 40 blocks, of 512 or of 1024 bytes; a write beyond them fails as on a full disk.
        let shell = "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\"";
        let program = command(&arguments);
        let mut limited = Command::new("sh");
        limited.args(["-c", shell]).arg(program.get_program()).args(program.get_args());
        limited.env_clear();
        let proxy = Proxy::start(limited, dir).await;
        proxy.live().await;
        let mut reader = proxy.reader(HOME, "reader").await;
        for _ in 0..3 {
            printer.large(20_000);
        }
        let line = proxy.program.line("recording stopped: cannot write to").await;
        assert!(line.contains("File too large") || line.contains("file too large"), "{line}");
        printer.report(b"{\"print\":{\"command\":\"after\"}}");
        reader.report_where(|report| report.ends_with(b"\"after\"}}")).await;
        assert!(fs::metadata(&recordings(&out)[0]).unwrap().len() <= 40 * 1024);
    });
}

/// The recordings of all services in `tests/traces`, made with real programs, hold none of the secrets that they were
/// made with, and can be dissected.
#[test]
fn stored_recordings_have_no_secret_and_can_be_dissected() {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    for (service, filter, least) in
        [("mqtt", "mqtt", 20), ("rtsp", "rtsp", 10), ("ftp", "ftp", 20), ("chamber", "tcp", 20)]
    {
        let files = recordings(&traces.join(service));
        assert!(!files.is_empty(), "{service}");
        for file in files {
            let mut bytes = fs::read(&file).unwrap();
            for talk in recording::read(&file) {
                bytes.extend([End::Client, End::Server].map(|end| talk.all(end)).concat());
            }
            for secret in MADE_WITH.iter().chain(&[SERIAL, Model::X1C.serial()]) {
                for form in [*secret, &base64(secret, 0), &base64(secret, 1), &base64(secret, 2)] {
                    assert!(!holds(&bytes, form), "{} holds {form} of {secret}", file.display());
                }
            }
            assert!(!holds(&bytes, "12121212"), "{} holds a wrong code", file.display());
            assert!(!holds(&bytes, "127,0,0,"), "{} holds an address", file.display());
            if !is_missing("tshark") {
                let seen = dissected(&file, filter, "frame.number").len();
                assert!(seen >= least, "{}: {seen} packets of {service}", file.display());
                // On port 6000 it looks for X11, and finds none.
                if service == "chamber" {
                    continue;
                }
                let bad = dissected(&file, "_ws.malformed && !tcp.reassembled_in", "frame.number");
                assert_eq!(bad, [""; 0], "{}: malformed", file.display());
            }
        }
    }
}

/// Connects to a service, sends `pieces`, and reads until nothing comes for half a second.
async fn send_to(proxy: &Proxy, service: &str, pieces: &[&[u8]]) {
    let line = proxy.program.line(&format!("{service:<8} listening on ")).await;
    let address = line.split(" on ").nth(1).unwrap().split(',').next().unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut stream = proxy.tls_over(tcp).await.unwrap();
    for piece in pieces {
        // Fails after a wrong code, when the proxy has closed the connection.
        let _gone = stream.write_all(piece).await;
        let _gone = stream.flush().await;
        sleep(Duration::from_millis(20)).await;
    }
    let mut room = vec![0; 64 * 1024];
    let silence = Duration::from_millis(500);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let read = timeout(silence, stream.read(&mut room)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
    }
}

/// The characters of Base64 that depend on nothing but `secret`, behind so many other bytes.
fn base64(secret: &str, before: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
    let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let whole = (8 * before).div_ceil(6)..8 * bytes.len() / 6;
    let letter = |at: usize| (6 * at..6 * at + 6).fold(0, |bits, at| bits << 1 | bit(at));
    whole.map(|at| char::from(LETTERS[letter(at)])).collect()
}

/// The bytes that each end of each connection sent, from the first file of a folder.
fn conversations(folder: &Path) -> Vec<Vec<u8>> {
    let read = recording::read(&recordings(folder)[0]);
    let both = |talk: &recording::Conversation| [End::Client, End::Server].map(|end| talk.all(end));
    read.iter().flat_map(both).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|seen| seen == text.as_bytes())
}

/// The recordings in a folder, oldest first.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pcapng"));
    files.sort();
    files
}

/// A field of every packet of a file that this filter lets pass.
fn dissected(file: &Path, filter: &str, field: &str) -> Vec<String> {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(file)
        .args(["-Y", filter, "-T", "fields", "-e", field])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
