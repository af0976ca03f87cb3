//! The log of the real program, when its reader stops reading.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::clients::programs::PATIENCE;
use crate::clients::proxy::{self, HOME, StateDir, command, trusting, usual};
use printer::{Model, Printer};
use rustls::pki_types::ServerName;

/// The most that a pipe holds, in bytes (pipe(7)).
const PIPE: usize = 64 * 1024;
/// The least that one print of the journal has, in bytes.
const PRINT: usize = 512;

/// A log that is piped into a program which has stopped (`| logger`, a stuck journald).
#[test]
fn a_full_log_pipe_stops_neither_clients_nor_the_end() {
    proxy::run(async {
        let dir = StateDir::new();
        let (log, stderr) = std::io::pipe().unwrap();
        let mut command =
            command(usual(&Printer::new(Model::P1S), SocketAddr::from((HOME, 9)), &dir));
        let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        drop(command);
        // Kept open and not read any more.
        let mut log = BufReader::with_capacity(1, log);
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program has ended");
            let port = line.split("127.0.0.1:").nth(1).filter(|_| line.contains("mqtt"));
            let digits =
                |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            if let Some(port) = port.and_then(|rest| digits(rest).parse().ok()) {
                break SocketAddr::new(IpAddr::V4(HOME), port);
            }
        };
        for _ in 0..PIPE / PRINT {
            signal(child.id(), "USR1");
        }

        let served = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let tls = trusting(&dir.file("ca.pem"));
            tls.connect(ServerName::from(address.ip()), tcp).await.is_ok()
        };
        let served = timeout(PATIENCE, served).await;
        signal(child.id(), "TERM");
        let ended = async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status.code();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = timeout(PATIENCE, ended).await;
        if ended.is_err() {
            signal(child.id(), "KILL");
            child.wait().unwrap();
        }
        assert_eq!((served, ended), (Ok(true), Ok(Some(0))));
    });
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.unwrap().success(), "SIG{name}");
}
