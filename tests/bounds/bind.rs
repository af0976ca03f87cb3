//! Detect with all slots of both ports taken by clients that send half a request.

use core::time::Duration;

use pandaproxy::bind::CLIENTS;
use pandaproxy::journal::{self, Kind};
use pandaproxy::memory::budget::{self, LINES};
use pandaproxy::runtime::launch::services;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use crate::lan::net::SimNet;
use crate::lan::{self, WIRE, root};
use crate::share::{Share, ran_apart};
use printer::Model;
use printer::detect::framed;

/// What the lines of the budget that can be reached without sockets and TLS allow.
fn in_memory() -> usize {
    let lines = LINES.iter().filter(|line| line.what.starts_with("detect"));
    lines.map(|line| line.count * line.each).sum::<usize>() - CLIENTS * budget::TLS
}

#[test]
fn full_detect_slots_fit_the_budget_and_are_free_again() {
    if ran_apart() {
        return;
    }
    lan::run(async {
        let (net, share) = (SimNet::new(), Share::default());
        share.of_tasks_on(&net);
        let mut list = Vec::from(services());
        list.retain(|service| service.name.starts_with("detect"));
        assert_eq!(list.len(), 2);
        let start = root::these(&net, list, Model::P1S.serial(), &["--services=detect"]);
        let _proxy = share.during(start);
        let connect = |port| {
            let (near, far) = duplex(WIRE);
            assert!(net.arrive(port, net.next_client(), far), "the port is open");
            near
        };
        for _ in 0..3 {
            let silent = journal::count(Kind::Silent);
            let mut there: Vec<DuplexStream> = Vec::new();
            for port in [3000, 3002] {
                for _ in 0..CLIENTS {
                    let mut half = connect(port);
                    half.write_all(&framed(&[b' '; 1000])[..1000]).await.unwrap();
                    there.push(half);
                }
            }
            sleep(Duration::from_secs(1)).await;
            let (now, peak) = (share.now(), share.peak());
            println!("all slots: {now} bytes, at most {peak}; lines allow {}", in_memory());
            assert!(peak <= in_memory());
            sleep(Duration::from_secs(10)).await;
            assert!(journal::count(Kind::Silent) > silent);
            for mut half in there {
                let mut rest = Vec::new();
                half.read_to_end(&mut rest).await.unwrap();
                assert!(rest.is_empty());
            }
        }
        let mut stream = connect(3000);
        stream.write_all(&framed(br#"{"login":{"command":"detect"}}"#)).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"\xa5\xa5"));
    });
}
