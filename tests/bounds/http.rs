//! HTTP with all slots taken: by clients that ask and do not read, and by half requests.

use core::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pandaproxy::board::BOARD;
use pandaproxy::http::CLIENTS;
use pandaproxy::http::wire::MAX_HEAD;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::LINES;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use crate::lan::net::SimNet;
use crate::lan::{self, CODE, root};
use crate::share::{Share, alone};
use printer::Model;

/// Bytes on the way to a client that does not read: less than an answer.
const NARROW: usize = 512;

/// What the lines of the budget allow that have no sockets.
fn in_memory() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("http"));
    lines.map(|line| line.count * line.each).sum()
}

#[test]
fn full_http_slots_fit_the_budget_and_are_free_again() {
    let _alone = alone();
    lan::run(async {
        let (net, share) = (SimNet::new(), Share::default());
        share.of_tasks_on(&net);
        let start = root::one(&net, "http", Model::P1S.serial(), &["--services=http"]);
        let _proxy = share.during(start);
        let connect = || {
            let (near, far) = duplex(NARROW);
            assert!(net.arrive(8080, net.next_client(), far), "the port is open");
            near
        };
        let login = STANDARD.encode(format!("bblp:{CODE}"));
        let request = format!(
            "GET /status HTTP/1.1\r\nHost: 10.1.2.3\r\nAuthorization: Basic {login}\r\n\r\n"
        );
        for _ in 0..3 {
            let (stuck, silent) = (journal::count(Kind::Stuck), journal::count(Kind::Silent));
            let mut there: Vec<DuplexStream> = Vec::new();
            for _ in 0..BOARD.clients.http {
                let mut reads_nothing = connect();
                reads_nothing.write_all(request.as_bytes()).await.unwrap();
                there.push(reads_nothing);
            }
            for _ in BOARD.clients.http..CLIENTS {
                let mut half = connect();
                let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
                half.write_all(&head.as_bytes()[..MAX_HEAD - 1]).await.unwrap();
                there.push(half);
            }
            sleep(Duration::from_secs(1)).await;
            // What the proxy has written into a pipe counts as its own, and is freed by the test: up to NARROW bytes a
            // connection and round.
            let (now, peak) = (share.now(), share.peak());
            println!("all slots: {now} bytes, at most {peak}; lines allow {}", in_memory());
            assert!(peak <= in_memory());
            sleep(Duration::from_secs(20)).await;
            assert!(journal::count(Kind::Stuck) > stuck && journal::count(Kind::Silent) > silent);
        }
        let mut stream = connect();
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"alive\n"));
    });
}
