//! Real programs transfer files through the real program, to and from simulated printers and a real vsFTPd, over TLS on
//! loopback. Files are compared by SHA-256.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bed;
mod clients;
mod vsftpd;

use std::fs;

use bed::{Bed, Kind, Mode, Server, sum};
use clients::{Client, Job, Python, curl, lftp, quoted};

use crate::clients::proxy;

// ---- every client, every printer ---------------------------------------------------------------

#[test]
fn curl_moves_files_to_and_from_a_p1s() {
    check_client(Client::Curl, Kind::P1s, Mode::Proxy);
}

#[test]
fn curl_moves_files_to_and_from_an_x1c() {
    check_client(Client::Curl, Kind::X1c, Mode::Proxy);
}

#[test]
fn curl_moves_files_to_and_from_vsftpd() {
    check_client(Client::Curl, Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn lftp_moves_files_to_and_from_a_p1s() {
    check_client(Client::Lftp, Kind::P1s, Mode::Proxy);
}

#[test]
fn lftp_moves_files_to_and_from_an_x1c() {
    check_client(Client::Lftp, Kind::X1c, Mode::Proxy);
}

#[test]
fn lftp_moves_files_to_and_from_vsftpd() {
    check_client(Client::Lftp, Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn ftplib_moves_files_to_and_from_a_p1s() {
    check_client(Client::Ftplib, Kind::P1s, Mode::Proxy);
}

#[test]
fn ftplib_moves_files_to_and_from_an_x1c() {
    check_client(Client::Ftplib, Kind::X1c, Mode::Proxy);
}

#[test]
fn ftplib_moves_files_to_and_from_vsftpd() {
    check_client(Client::Ftplib, Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn ftplib_without_session_reuse_moves_files_to_and_from_a_p1s() {
    check_client(Client::FtplibAnew, Kind::P1s, Mode::Proxy);
}

#[test]
fn ftplib_without_session_reuse_moves_files_of_an_x1c() {
    check_client(Client::FtplibAnew, Kind::X1c, Mode::Proxy);
}

#[test]
fn ftplib_without_session_reuse_moves_files_of_vsftpd() {
    check_client(Client::FtplibAnew, Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn curl_moves_files_to_and_from_an_x1c_by_relay() {
    check_client(Client::Curl, Kind::X1c, Mode::Relay);
}

#[test]
fn curl_moves_files_to_and_from_vsftpd_by_relay() {
    check_client(Client::Curl, Kind::Vsftpd, Mode::Relay);
}

#[test]
fn lftp_moves_files_to_and_from_an_x1c_by_relay() {
    check_client(Client::Lftp, Kind::X1c, Mode::Relay);
}

#[test]
fn lftp_moves_files_to_and_from_vsftpd_by_relay() {
    check_client(Client::Lftp, Kind::Vsftpd, Mode::Relay);
}

/// Python reports an error for a data connection that ends without close_notify, although all data have arrived. The proxy
/// sends close_notify in the printer's place; a relay cannot.
#[test]
fn ftplib_by_relay_fails_without_close_notify_as_directly() {
    if Client::Ftplib.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Kind::X1c, Mode::Relay).await;
        for (name, len, target) in
            [("direct.3mf", 300_007, bed.direct()), ("relay.3mf", 300_008, bed.target())]
        {
            let (path, given) = bed.given(name, len);
            let result = Client::Ftplib.run(&target, &[Job::Put(&path, name)]).await;
            assert!(result.is_err_and(|why| why.contains("UNEXPECTED_EOF")), "{name}");
            assert_eq!(bed.server.sum(&format!("/{name}")), Some(given), "{name}");
        }
    });
}

#[test]
fn ftplib_moves_files_to_and_from_vsftpd_by_relay() {
    check_client(Client::Ftplib, Kind::Vsftpd, Mode::Relay);
}

/// A relay changes nothing: a client that does not resume is refused by the printer, as without the relay.
#[test]
fn ftplib_without_session_reuse_is_refused_by_relay() {
    for kind in [Kind::X1c, Kind::Vsftpd] {
        if Client::FtplibAnew.is_missing() || Client::Curl.is_missing() || kind.is_missing() {
            continue;
        }
        proxy::run(async {
            let bed = Bed::new(kind, Mode::Relay).await;
            let (path, _) = bed.given("plate.3mf", 300_007);
            let result =
                Client::FtplibAnew.run(&bed.target(), &[Job::Put(&path, "plate.3mf")]).await;
            assert!(result.is_err(), "{kind:?}: {result:?}");
            let (len, _) = bed.server.sum("/plate.3mf").expect("the file exists and is empty");
            assert_eq!(len, 0, "{kind:?}");
            // The next client is not affected.
            let result = Client::Curl.run(&bed.target(), &[Job::Put(&path, "plate.3mf")]).await;
            assert!(result.is_ok(), "{kind:?}: {result:?}\n{}", bed.log());
        });
    }
}

/// Uploads three files, lists them and downloads them twice over one connection.
fn check_client(client: Client, kind: Kind, mode: Mode) {
    const FILES: [(&str, usize); 3] =
        [("zero.3mf", 0), ("one.3mf", 1), ("ü und Leer.3mf", 300_007)];
    if client.is_missing() || kind.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(kind, mode).await;
        let given = FILES.map(|(name, len)| (name, bed.given(name, len)));
        let puts = given.each_ref().map(|(name, (path, _))| Job::Put(path, name));
        let result = client.run(&bed.target(), &puts).await;
        assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        for (name, (_, sum)) in &given {
            assert_eq!(bed.server.sum(&format!("/{name}")), Some(*sum), "{name}");
        }
        let taken = FILES.map(|(name, _)| (name, bed.taken(&format!("taken/{name}"))));
        let mut jobs = vec![Job::List];
        jobs.extend(taken.each_ref().map(|(name, path)| Job::Get(name, path)));
        jobs.extend(taken.each_ref().map(|(name, path)| Job::Get(name, path)));
        let listed = client.run(&bed.target(), &jobs).await;
        let listed = listed.unwrap_or_else(|why| panic!("{why}\n{}", bed.log()));
        for ((name, (_, given)), (_, taken)) in given.iter().zip(&taken) {
            let escaped = serde_json::to_string(name).unwrap();
            let ascii: String = escaped.chars().flat_map(as_json).collect();
            assert!(listed.contains(name) || listed.contains(&ascii), "{name} in {listed}");
            assert_eq!(sum(taken), *given, "{name}");
        }
    });
}

/// A character as Python writes it.
fn as_json(c: char) -> Vec<char> {
    if c.is_ascii() { vec![c] } else { format!("\\u{:04x}", u32::from(c)).chars().collect() }
}

// ---- features of one client ------------------------------------------------------------------

#[test]
fn lftp_mirrors_a_folder_to_a_p1s_and_back() {
    mirror(Kind::P1s, Mode::Proxy);
}

#[test]
fn lftp_mirrors_a_folder_to_an_x1c_and_back() {
    mirror(Kind::X1c, Mode::Proxy);
}

#[test]
fn lftp_mirrors_a_folder_to_vsftpd_and_back() {
    mirror(Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn lftp_mirrors_a_folder_to_an_x1c_and_back_by_relay() {
    mirror(Kind::X1c, Mode::Relay);
}

#[test]
fn lftp_mirrors_a_folder_to_vsftpd_and_back_by_relay() {
    mirror(Kind::Vsftpd, Mode::Relay);
}

fn mirror(kind: Kind, mode: Mode) {
    const FILES: [(&str, usize); 4] =
        [("a.3mf", 0), ("b b.3mf", 1), ("c/ü.3mf", 70_000), ("c/d/e.3mf", 5000)];
    if Client::Lftp.is_missing() || kind.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(kind, mode).await;
        let given = FILES.map(|(name, len)| (name, bed.given(&format!("mirrored/{name}"), len).1));
        let (from, to) = (bed.taken("mirrored"), bed.taken("back"));
        let script =
            format!("mirror -R {} /plates\nmirror /plates {}\n", quoted(from), quoted(&to));
        let result = lftp(&bed.target(), &script).await;
        assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        for (name, given) in given {
            assert_eq!(bed.server.sum(&format!("/plates/{name}")), Some(given), "{name}");
            assert_eq!(sum(&to.join(name)), given, "{name}");
        }
    });
}

#[test]
fn curl_resumes_a_download_and_an_upload_where_the_printer_can() {
    for (kind, mode) in [
        (Kind::X1c, Mode::Proxy),
        (Kind::Vsftpd, Mode::Proxy),
        (Kind::X1c, Mode::Relay),
        (Kind::Vsftpd, Mode::Relay),
    ] {
        if Client::Curl.is_missing() || kind.is_missing() {
            continue;
        }
        proxy::run(async {
            let bed = Bed::new(kind, mode).await;
            let (path, given) = bed.given("plate.3mf", 500_000);
            let whole = fs::read(&path).unwrap();

            bed.server.put("/down.3mf", 500_000);
            let half = bed.taken("half.3mf");
            fs::write(&half, &whole[..123_456]).unwrap();
            let result =
                curl(&bed.target(), &[Job::Get("down.3mf", &half)], "continue-at = -").await;
            assert!(result.is_ok(), "{result:?}\n{}", bed.log());
            assert_eq!(sum(&half), given, "{kind:?} {mode:?}: the first part and the rest");

            let first = bed.taken("first.3mf");
            fs::write(&first, &whole[..200_001]).unwrap();
            let result = curl(&bed.target(), &[Job::Put(&first, "up.3mf")], "").await;
            assert!(result.is_ok(), "{result:?}\n{}", bed.log());
            let result = curl(&bed.target(), &[Job::Put(&path, "up.3mf")], "continue-at = -").await;
            assert!(result.is_ok(), "{result:?}\n{}", bed.log());
            assert_eq!(bed.server.sum("/up.3mf"), Some(given), "{kind:?} {mode:?}");
        });
    }
}

#[test]
fn curl_cannot_resume_at_a_p1s_and_its_file_is_unchanged() {
    if Client::Curl.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Kind::P1s, Mode::Proxy).await;
        let (path, _) = bed.given("plate.3mf", 500_000);
        let before = bed.server.put("/plate.3mf", 1000);
        let result = curl(&bed.target(), &[Job::Put(&path, "plate.3mf")], "continue-at = -").await;
        assert!(result.is_err(), "{result:?}");
        assert_eq!(bed.server.sum("/plate.3mf"), Some(before));
        let half = bed.taken("half.3mf");
        fs::write(&half, [0; 10]).unwrap();
        let result = curl(&bed.target(), &[Job::Get("plate.3mf", &half)], "continue-at = -").await;
        assert!(result.is_err(), "{result:?}");
        assert_eq!(fs::read(&half).unwrap(), [0; 10]);
    });
}

// ---- many, large, and broken -------------------------------------------------------------------

#[test]
fn three_programs_upload_through_one_printer_session() {
    const CLIENTS: [Client; 3] = [Client::Curl, Client::Lftp, Client::Ftplib];
    if CLIENTS.into_iter().any(Client::is_missing) {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Kind::P1s, Mode::Proxy).await;
        let Server::Simulated(server) = &bed.server else { unreachable!() };
        let _slow = server.clone().rate(1_000_000);
        let target = bed.target();
        let given = [("curl.3mf", 400_000), ("lftp.3mf", 400_001), ("ftplib.3mf", 400_002)]
            .map(|(name, len)| (name, bed.given(name, len)));
        let [one, two, three] = given.each_ref().map(|(name, (path, _))| [Job::Put(path, name)]);
        let result = tokio::join!(
            Client::Curl.run(&target, &one),
            Client::Lftp.run(&target, &two),
            Client::Ftplib.run(&target, &three),
        );
        for result in [result.0, result.1, result.2] {
            assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        }
        for (name, (_, sum)) in given {
            assert_eq!(bed.server.sum(&format!("/{name}")), Some(sum), "{name}");
        }
        assert_eq!(server.look(|seen| (seen.most_open, seen.most_uploads)), (1, 1));
    });
}

/// Bytes in a large file.
const LARGE: usize = 100_000_000;

#[test]
fn a_hundred_megabytes_arrive_at_a_p1s() {
    large_up(Kind::P1s, Mode::Proxy);
}

#[test]
fn a_hundred_megabytes_arrive_at_an_x1c_by_relay() {
    large_up(Kind::X1c, Mode::Relay);
}

fn large_up(kind: Kind, mode: Mode) {
    if Client::Curl.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(kind, mode).await;
        let (path, given) = bed.given("large.3mf", LARGE);
        let result = Client::Curl.run(&bed.target(), &[Job::Put(&path, "large.3mf")]).await;
        assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        assert_eq!(bed.server.sum("/large.3mf"), Some(given));
    });
}

#[test]
fn a_hundred_megabytes_come_from_vsftpd() {
    large_down(Mode::Proxy);
}

#[test]
fn a_hundred_megabytes_come_from_vsftpd_by_relay() {
    large_down(Mode::Relay);
}

fn large_down(mode: Mode) {
    if Client::Curl.is_missing() || Kind::Vsftpd.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(Kind::Vsftpd, mode).await;
        let put = bed.server.put("/large.mp4", LARGE);
        let taken = bed.taken("large.mp4");
        let result = Client::Curl.run(&bed.target(), &[Job::Get("large.mp4", &taken)]).await;
        assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        assert_eq!(sum(&taken), put);
    });
}

#[test]
fn a_p1s_lost_in_mid_upload_fails_only_that_upload() {
    lose_server(Kind::P1s, Mode::Proxy);
}

#[test]
fn vsftpd_lost_in_mid_upload_fails_only_that_upload() {
    lose_server(Kind::Vsftpd, Mode::Proxy);
}

#[test]
fn vsftpd_lost_in_mid_upload_by_relay_fails_only_that_upload() {
    lose_server(Kind::Vsftpd, Mode::Relay);
}

fn lose_server(kind: Kind, mode: Mode) {
    if Client::Ftplib.is_missing() || Client::Curl.is_missing() || kind.is_missing() {
        return;
    }
    proxy::run(async {
        let bed = Bed::new(kind, mode).await;
        // More bytes than all buffers on the way can hold.
        let (path, given) = bed.given("plate.3mf", 20_000_000);
        let mut python = Python::start(&bed.target(), true);
        python.put_half(&path, "plate.3mf").await;
        bed.server.kill();
        python.put_rest();
        let result = python.ended().await;
        assert!(result.is_err(), "never a false 226: {result:?}\n{}", bed.log());
        let result = Client::Curl.run(&bed.target(), &[Job::Put(&path, "plate.3mf")]).await;
        assert!(result.is_ok(), "{result:?}\n{}", bed.log());
        assert_eq!(bed.server.sum("/plate.3mf"), Some(given));
    });
}
