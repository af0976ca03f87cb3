//! Interoperability with openssl: the proxy's certificates with `openssl s_client`, and printers' certificates
//! with `openssl s_server`, over loopback, on ports that the system picks.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use pandaproxy::board::Suites;
use pandaproxy::state_dir::{Cause, Pins};
use pandaproxy::tls::greeting::{GreetingError, greet};
use pandaproxy::tls::{
    CaError, ConnectError, Directories, HandshakeError, Identity, IdentityError, Policy, Refusal,
    Subject, Trust, accept, connect, provider,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

const SERIAL: &str = "01S00C123456789";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
const SUBJECT: Subject<'_> =
    Subject { serial: SERIAL, addresses: &[ADDRESS], hosts: &["pi", "pi.local"] };
/// 2026-11-01: an earlier clock counts as not set.
const FLOOR: Duration = Duration::from_secs(1_793_491_200);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

// ---- the proxy's certificates ----------------------------------------------------------------

#[test]
fn certificates_are_made_once_and_files_are_private() {
    let dir = Scratch::with_rsa_key();
    let first = load(&dir.0, &SUBJECT).unwrap();
    let files = contents(&dir.0);
    assert_eq!(load(&dir.0, &SUBJECT).unwrap().ca_pem(), first.ca_pem());
    assert_eq!(contents(&dir.0), files);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    let all = ["ca.key", "ca.pem", "ecdsa.key", "ecdsa.pem", "lock", "rsa.key", "rsa.pem"];
    assert_eq!(names, all);
    for name in all {
        assert_eq!(mode(&dir.0.join(name)), 0o600, "{name}");
    }
    // A file that others can read, as after a copy, is made private.
    fs::set_permissions(dir.0.join("rsa.key"), Permissions::from_mode(0o644)).unwrap();
    load(&dir.0, &SUBJECT).unwrap();
    assert_eq!(mode(&dir.0.join("rsa.key")), 0o600);
    assert!(first.ca_pem().ends_with("-----END CERTIFICATE-----\n"));
    assert!(!first.ca_pem().contains("PRIVATE"));
}

#[test]
fn certificates_have_the_fields_that_clients_need() {
    let dir = Scratch::with_rsa_key();
    let identity = load(&dir.0, &SUBJECT).unwrap();
    let ca = text(&dir.0.join("ca.pem"));
    let name = ca.split("Subject: CN=PandaProxy CA ").nth(1).unwrap().lines().next().unwrap();
    assert!(name.len() == 8 && name.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    assert!(ca.contains("CA:TRUE, pathlen:0") && ca.contains("Certificate Sign"));
    for (file, key) in [("rsa.pem", "Public-Key: (2048 bit)"), ("ecdsa.pem", "NIST CURVE: P-256")] {
        let leaf = text(&dir.0.join(file));
        for part in [
            "Version: 3 (0x2)",
            &format!("Subject: CN={SERIAL}"),
            &format!(
                "DNS:{SERIAL}, DNS:localhost, DNS:pi, DNS:pi.local, IP Address:127.0.0.1, \
                 IP Address:0:0:0:0:0:0:0:1, IP Address:10.0.0.7"
            ),
            "TLS Web Server Authentication",
            "Digital Signature",
            "CA:FALSE",
            "ecdsa-with-SHA256",
            key,
        ] {
            assert!(leaf.contains(part), "{file} without {part}:\n{leaf}");
        }
        let (ca, leaf) = (dir.0.join("ca.pem"), dir.0.join(file));
        for name in [
            ["-verify_ip", "10.0.0.7"],
            ["-verify_ip", "127.0.0.1"],
            ["-verify_hostname", "localhost"],
            ["-verify_hostname", "pi.local"],
            ["-verify_hostname", SERIAL],
        ] {
            let mut verify = Command::new("openssl");
            verify.args(["verify", "-x509_strict", "-purpose", "sslserver"]).args(name);
            let output = verify.arg("-CAfile").args([&ca, &leaf]).output().unwrap();
            assert!(output.status.success(), "{file} {name:?}: {output:?}");
        }
    }
    assert_eq!(identity.ca_sha256().len(), 32);
}

/// Guards: the authority is new and the certificate old, or two make one at once.
#[test]
fn a_new_address_serial_or_ca_reissues_only_the_leaves() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    let other = [ADDRESS, "fe80::1".parse().unwrap()];
    for subject in [
        Subject { addresses: &other, ..SUBJECT },
        Subject { serial: "030123456789012", addresses: &other, ..SUBJECT },
    ] {
        let before = contents(&dir.0);
        load(&dir.0, &subject).unwrap();
        assert_eq!(changed(&before, &contents(&dir.0)), ["ecdsa.pem", "rsa.pem"]);
        // Another order of the addresses is not a change.
        let before = contents(&dir.0);
        let again = [other[1], other[0], other[1]];
        load(&dir.0, &Subject { addresses: &again, ..subject }).unwrap();
        assert_eq!(contents(&dir.0), before);
    }
    // A loopback address that the proxy is bound to.
    let bound = [other[0], other[1], IpAddr::from([127, 0, 0, 9])];
    load(&dir.0, &Subject { serial: "030123456789012", addresses: &bound, ..SUBJECT }).unwrap();
    assert!(text(&dir.0.join("ecdsa.pem")).contains("IP Address:127.0.0.9"));
    // A serial number of digits alone is not a host name; it is the common name all the same.
    let leaf = text(&dir.0.join("rsa.pem"));
    assert!(
        leaf.contains("CN=030123456789012")
            && leaf.contains("DNS:localhost, DNS:pi, DNS:pi.local, IP"),
        "{leaf}"
    );
    let before = contents(&dir.0);
    fs::remove_file(dir.0.join("ca.pem")).unwrap();
    fs::remove_file(dir.0.join("ca.key")).unwrap();
    load(&dir.0, &Subject { serial: "030123456789012", addresses: &other, ..SUBJECT }).unwrap();
    assert_eq!(changed(&before, &contents(&dir.0)), ["ca.key", "ca.pem", "ecdsa.pem", "rsa.pem"]);
}

#[test]
fn a_damaged_or_missing_leaf_or_key_is_made_again() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    for (file, expected) in [
        ("ecdsa.pem", vec!["ecdsa.pem"]),
        ("rsa.pem", vec!["rsa.pem"]),
        ("ecdsa.key", vec!["ecdsa.key", "ecdsa.pem"]),
    ] {
        for spoil in
            ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let before = contents(&dir.0);
            fs::write(dir.0.join(file), spoil).unwrap();
            load(&dir.0, &SUBJECT).unwrap();
            assert_eq!(changed(&before, &contents(&dir.0)), expected, "{file}");
        }
        let before = contents(&dir.0);
        fs::remove_file(dir.0.join(file)).unwrap();
        load(&dir.0, &SUBJECT).unwrap();
        assert_eq!(changed(&before, &contents(&dir.0)), expected, "{file}");
    }
}

#[test]
fn a_ca_is_never_replaced_and_the_error_names_the_file() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    let good = contents(&dir.0);
    let foreign = Scratch::new();
    let printer = Printer::under_a_root(&foreign.0);
    let other = Scratch::with_rsa_key();
    load(&other.0, &SUBJECT).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let with_key = format!("{}{}", read(dir.0.join("ca.pem")), read(dir.0.join("ca.key")));
    let ours = |file| IdentityError::NotOurs { file };
    for (file, content, error) in [
        ("ca.pem", "rubbish".to_owned(), ours("ca.pem")),
        ("ca.pem", String::new(), ours("ca.pem")),
        ("ca.pem", "x".repeat(20_000), ours("ca.pem")),
        ("ca.pem", read(printer.root), ours("ca.pem")),
        ("ca.pem", read(dir.0.join("ecdsa.pem")), ours("ca.pem")),
        ("ca.pem", with_key, ours("ca.pem")),
        ("ca.key", "rubbish".to_owned(), ours("ca.key")),
        ("ca.key", read(other.0.join("ca.key")), IdentityError::KeyMismatch),
    ] {
        fs::write(dir.0.join(file), &content).unwrap();
        let refused = load(&dir.0, &SUBJECT).unwrap_err();
        assert_eq!(refused, error);
        assert!(refused.to_string().contains(file), "{refused}");
        assert_eq!(fs::read_to_string(dir.0.join(file)).unwrap(), content);
        restore(&dir.0, &good);
    }
    fs::remove_file(dir.0.join("ca.key")).unwrap();
    assert_eq!(load(&dir.0, &SUBJECT).unwrap_err(), IdentityError::KeyMissing);
    restore(&dir.0, &good);
    fs::remove_file(dir.0.join("ca.key")).unwrap();
    fs::create_dir(dir.0.join("ca.key")).unwrap();
    let refused = load(&dir.0, &SUBJECT).unwrap_err();
    assert!(matches!(refused, IdentityError::Io { file: "ca.key", .. }), "{refused:?}");
}

#[test]
fn a_lost_ca_certificate_is_made_again_from_its_key() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    let before = contents(&dir.0);
    fs::remove_file(dir.0.join("ca.pem")).unwrap();
    load(&dir.0, &SUBJECT).unwrap();
    // The leaves stay valid, and so do the clients' copies of the CA.
    assert_eq!(changed(&before, &contents(&dir.0)), ["ca.pem"]);
}

#[test]
fn a_key_of_another_format_is_an_error_and_is_kept() {
    let dir = Scratch::with_rsa_key();
    let brought = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    fs::write(dir.0.join("rsa.key"), brought).unwrap();
    let refused = load(&dir.0, &SUBJECT).unwrap_err();
    assert_eq!(refused, IdentityError::ForeignKey { file: "rsa.key" });
    assert_eq!(fs::read_to_string(dir.0.join("rsa.key")).unwrap(), brought);
}

#[test]
fn a_start_without_a_network_keeps_the_addresses() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    let before = contents(&dir.0);
    load(&dir.0, &Subject { addresses: &[], ..SUBJECT }).unwrap();
    assert_eq!(changed(&before, &contents(&dir.0)), [""; 0]);
}

#[test]
fn a_health_check_identifies_the_proxy_even_in_1970() {
    let clocks: [(fn() -> SystemTime, _, _); 5] = [
        (|| UNIX_EPOCH, SERIAL, Ok(())),
        (|| UNIX_EPOCH + FLOOR + YEAR, SERIAL, Ok(())),
        (|| UNIX_EPOCH + FLOOR + 100 * YEAR, SERIAL, Err(GreetingError::Expired)),
        // Of another printer with the same authority; digits alone are no DNS name.
        (|| UNIX_EPOCH, "01P00A000000002", Err(GreetingError::OtherPrinter)),
        (|| UNIX_EPOCH, "030123456789012", Err(GreetingError::OtherPrinter)),
    ];
    for suites in [Suites::AesFirst, Suites::ChaChaFirst] {
        let (address, served) = serve(suites, clocks.len());
        for (clock, serial, seen) in &clocks {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            assert_eq!(&greet(&OURS.0, serial, &mut stream, *clock), seen);
        }
        let left = |outcome: &Result<bool, _>| *outcome == Err(HandshakeError::Left);
        assert!(served.join().unwrap().iter().all(left));
    }
}

#[test]
fn printers_with_numbers_of_digits_alone_are_told_apart() {
    let dir = Scratch::with_rsa_key();
    let identity = load(&dir.0, &Subject { serial: "030123456789012", ..SUBJECT }).unwrap();
    let other = Err(GreetingError::OtherPrinter);
    let asked = [("030123456789012", Ok(())), ("030123456789013", other.clone()), (SERIAL, other)];
    let (address, served) = serve_as(identity.server_config(Suites::AesFirst, 4), asked.len());
    for (serial, seen) in &asked {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(&greet(&dir.0, serial, &mut stream, SystemTime::now), seen, "{serial}");
    }
    served.join().unwrap();
}

#[test]
fn a_clock_in_1970_counts_as_the_day_of_release() {
    let dir = Scratch::with_rsa_key();
    let dirs = Directories::one(&dir.0);
    let at = |now| {
        let made = Identity::load_or_make(dirs, &SUBJECT, UNIX_EPOCH + now);
        made.map_err(|(_, error)| error)
    };
    at(Duration::ZERO).unwrap();
    for file in ["ca.pem", "rsa.pem", "ecdsa.pem"] {
        assert!(text(&dir.0.join(file)).contains("Not Before: Oct 31 00:00:00 2026 GMT"), "{file}");
    }
    let before = contents(&dir.0);
    at(FLOOR).unwrap();
    at(FLOOR + 8 * YEAR).unwrap();
    at(Duration::ZERO).unwrap();
    assert_eq!(contents(&dir.0), before);
    at(FLOOR + 9 * YEAR + YEAR / 100).unwrap();
    assert_eq!(changed(&before, &contents(&dir.0)), ["ecdsa.pem", "rsa.pem"]);
    assert!(text(&dir.0.join("rsa.pem")).contains("2045 GMT"));
    assert_eq!(at(FLOOR + 21 * YEAR).unwrap_err(), IdentityError::Expired);
    at(Duration::ZERO).unwrap();
}

/// A full or read-only card: existing files are used, and missing ones are made for this start.
#[test]
fn a_read_only_state_directory_is_enough_to_serve() {
    let dir = Scratch::with_rsa_key();
    let ca = load(&dir.0, &SUBJECT).unwrap().ca_pem().to_owned();
    let files = contents(&dir.0);
    // Root can write anywhere, so a directory takes the lock file's name.
    fs::remove_file(dir.0.join("lock")).unwrap();
    fs::create_dir(dir.0.join("lock")).unwrap();
    assert_eq!(load(&dir.0, &SUBJECT).unwrap().ca_pem(), ca);
    let addresses = [IpAddr::from([10, 9, 8, 7])];
    let moved = Subject { addresses: &addresses, ..SUBJECT };
    assert_eq!(load(&dir.0, &moved).unwrap().ca_pem(), ca, "a new certificate is made in memory");
    fs::remove_dir(dir.0.join("lock")).unwrap();
    fs::write(dir.0.join("lock"), "").unwrap();
    assert_eq!(changed(&files, &contents(&dir.0)), [] as [&str; 0]);

    let empty = Scratch::new();
    fs::create_dir(empty.0.join("lock")).unwrap();
    let refused = load(&empty.0, &SUBJECT).unwrap_err();
    assert_eq!(refused, IdentityError::Directory(Cause::NotAFile));
}

/// A pipe, or a link to what others may not read, in the place of a file.
#[test]
fn a_check_follows_no_link_and_repairs_nothing() {
    let dir = Scratch::with_rsa_key();
    let ca = load(&dir.0, &SUBJECT).unwrap().ca_pem().to_owned();
    let pem = dir.0.join("ca.pem");
    fs::set_permissions(&pem, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Identity::ca_in(&dir.0).unwrap().0, ca);
    assert_eq!(mode(&pem), 0o644, "a reader changes nothing");
    let elsewhere = dir.0.join("elsewhere.pem");
    fs::rename(&pem, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &pem).unwrap();
    let refused = Identity::ca_in(&dir.0).unwrap_err();
    assert_eq!(refused, CaError::Unreadable(Cause::Link));
    let mut none = std::io::Cursor::new(Vec::new());
    let refused = greet(&dir.0, SERIAL, &mut none, SystemTime::now).unwrap_err();
    assert_eq!(refused, GreetingError::CaUnreadable(Cause::Link));
    fs::remove_file(&pem).unwrap();
    assert!(Command::new("mkfifo").arg(&pem).status().unwrap().success());
    assert_eq!(Identity::ca_in(&dir.0).unwrap_err(), CaError::Unreadable(Cause::NotAFile));
    let refused = load(&dir.0, &SUBJECT).unwrap_err();
    assert_eq!(refused, IdentityError::Io { file: "ca.pem", cause: Cause::NotAFile });
}

/// Good contents need no lock, so that a disk that hangs and another process' lock do not stop a start.
#[test]
fn a_start_that_changes_nothing_takes_no_lock() {
    let dir = Scratch::with_rsa_key();
    load(&dir.0, &SUBJECT).unwrap();
    let lock = fs::File::open(dir.0.join("lock")).unwrap();
    lock.lock().unwrap();
    load(&dir.0, &SUBJECT).unwrap();
}

// ---- one authority for several proxies ---------------------------------------------------------

/// Two proxies of one machine, started at once for the first time.
#[test]
fn proxies_that_share_a_ca_dir_have_one_authority() {
    let (shared, one, other) = (Scratch::new(), Scratch::with_rsa_key(), Scratch::with_rsa_key());
    let start = |leaves: &Path| {
        let (ca, leaves) = (shared.0.join("ca"), leaves.to_owned());
        thread::spawn(move || {
            let dirs = Directories { ca: &ca, leaves: &leaves };
            let now = SystemTime::now().max(UNIX_EPOCH + FLOOR);
            Identity::load_or_make(dirs, &SUBJECT, now).unwrap().ca_pem().to_owned()
        })
    };
    let two = [start(&one.0), start(&other.0)];
    let [first, second] = two.map(|start| start.join().unwrap());
    assert_eq!(first, second);
    let ca = shared.0.join("ca/ca.pem");
    for dir in [&one.0, &other.0] {
        assert!(!dir.join("ca.key").exists() && !dir.join("ca.pem").exists());
        let leaf = dir.join("ecdsa.pem");
        let mut verify = Command::new("openssl");
        let output = verify.arg("verify").arg("-CAfile").args([&ca, &leaf]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let names: Vec<_> = contents(&shared.0.join("ca")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ca.key", "ca.pem", "lock"]);
}

/// Clients have imported the authority that a proxy had before it was given a `--ca-dir`.
#[test]
fn an_authority_moves_to_an_empty_ca_dir() {
    let (shared, own) = (Scratch::new(), Scratch::with_rsa_key());
    let before = load(&own.0, &SUBJECT).unwrap().ca_pem().to_owned();
    let files = contents(&own.0);
    let dirs = Directories { ca: &shared.0, leaves: &own.0 };
    let now = SystemTime::now().max(UNIX_EPOCH + FLOOR);
    assert_eq!(Identity::load_or_make(dirs, &SUBJECT, now).unwrap().ca_pem(), before);
    assert_eq!(Identity::ca_in(&shared.0).unwrap().0, before);
    assert_eq!(changed(&files, &contents(&own.0)), [""; 0], "the leaves stay");
}

/// A client that refuses the name has no use for the authority.
#[test]
fn a_refused_name_is_told_from_a_missing_authority() {
    let no_ca = Scratch::new();
    let other = Printer::under_a_root(&no_ca.0);
    let ours = OURS.0.join("ca.pem");
    let name = "nas.example";
    for (version, ca, asked, expected) in [
        ("-tls1_2", &ours, name, true),
        ("-tls1_3", &ours, name, true),
        ("-tls1_3", &ours, "pi.local", false),
        ("-tls1_3", &other.root, name, false),
    ] {
        let (address, served) = serve(Suites::AesFirst, 1);
        let mut client = Command::new("openssl");
        client.args(["s_client", version, "-verify_return_error", "-verify_hostname", name]);
        client.args(["-servername", asked, "-connect", &address.to_string()]);
        let _output = client.arg("-CAfile").arg(ca).stdin(Stdio::null()).output().unwrap();
        let outcome = served.join().unwrap().remove(0).unwrap_err();
        let is_named = matches!(outcome, HandshakeError::NotNamed(asked) if asked.as_str() == name);
        assert_eq!(is_named, expected, "{version} {asked}: {outcome:?}");
        assert!(is_named || outcome == HandshakeError::Distrusts, "{outcome:?}");
        assert_eq!(outcome.to_string().contains("--advertise-name"), expected, "{outcome}");
    }
}

/// A client that connects to an address sends no name, and finds the address missing in the certificate.
#[test]
fn a_refused_address_is_told_from_a_missing_authority() {
    let no_ca = Scratch::new();
    let other = Printer::under_a_root(&no_ca.0);
    let ours = OURS.0.join("ca.pem");
    for (version, ca, expected) in [
        ("-tls1_2", &ours, HandshakeError::NotAddressed),
        ("-tls1_3", &ours, HandshakeError::NotAddressed),
        ("-tls1_3", &other.root, HandshakeError::Distrusts),
    ] {
        let (address, served) = serve(Suites::AesFirst, 1);
        let mut client = Command::new("openssl");
        client.args(["s_client", version, "-verify_return_error", "-verify_ip", "192.0.2.77"]);
        client.args(["-connect", &address.to_string(), "-CAfile"]).arg(ca);
        let _output = client.stdin(Stdio::null()).output().unwrap();
        let outcome = served.join().unwrap().remove(0).unwrap_err();
        assert_eq!(outcome, expected, "{version}");
        let is_hinted = outcome.to_string().contains("--advertise-ip");
        assert_eq!(is_hinted, expected == HandshakeError::NotAddressed, "{outcome}");
    }
}

/// Guards: the authority is new and the certificate old, or two make one at once.
#[test]
fn two_that_start_at_once_have_one_ca() {
    let dir = Scratch::new();
    let start =
        |path: PathBuf| thread::spawn(move || load(&path, &SUBJECT).unwrap().ca_pem().to_owned());
    // The directory does not exist yet.
    let two = [start(dir.0.join("state")), start(dir.0.join("state"))];
    let [one, other] = two.map(|start| start.join().unwrap());
    assert_eq!(one, other);
    assert_eq!(mode(&dir.0.join("state")), 0o700);
}

// ---- openssl as a client ---------------------------------------------------------------------

#[test]
fn each_client_gets_a_certificate_of_a_kind_it_knows() {
    for (arguments, cipher, key) in [
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "2048 bit"),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "2048 bit"),
        (
            "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "256 bit",
        ),
        ("-tls1_2 -sigalgs RSA+SHA256", "ECDHE-RSA-", "2048 bit"),
        ("-tls1_2", "ECDHE-ECDSA-", "256 bit"),
        ("-tls1_3", "TLS_", "256 bit"),
        ("-tls1_3 -sigalgs rsa_pss_rsae_sha256", "TLS_", "2048 bit"),
        ("", "TLS_", "256 bit"),
    ] {
        let output = one_client(Suites::ChaChaFirst, arguments);
        assert!(output.contains(&format!("Cipher is {cipher}")), "{arguments}:\n{output}");
        assert!(output.contains(&format!("Server public key is {key}")), "{arguments}:\n{output}");
        assert!(output.contains("Verify return code: 0 (ok)"), "{arguments}:\n{output}");
        // The CA is sent along, so that a client can show it.
        assert!(output.contains("\n 1 s:"), "{arguments}:\n{output}");
    }
}

#[test]
fn cipher_suites_follow_the_boards_order() {
    let aes_first =
        "-ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
    for (suites, arguments, cipher) in [
        (Suites::ChaChaFirst, aes_first, "TLS_CHACHA20_POLY1305_SHA256"),
        (Suites::AesFirst, aes_first, "TLS_AES_128_GCM_SHA256"),
        (Suites::ChaChaFirst, "-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (Suites::AesFirst, "-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (Suites::AesFirst, "-tls1_2 -sigalgs RSA+SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    ] {
        let output = one_client(suites, arguments);
        assert!(output.contains(&format!("Cipher is {cipher}\n")), "{arguments}:\n{output}");
    }
}

#[test]
fn a_client_resumes_its_session_and_gets_close_notify() {
    for version in ["-tls1_2", "-tls1_3"] {
        let (address, served) = serve(Suites::AesFirst, 2);
        let dir = Scratch::new();
        let session = dir.0.join("session").to_str().unwrap().to_owned();
        let out = client(address, &format!("{version} -msg -sess_out {session}"));
        assert!(out.contains("close_notify"), "{out}");
        assert!(out.contains("good day"), "{out}");
        let back = client(address, &format!("{version} -sess_in {session}"));
        assert!(back.contains("Reused, "), "{back}");
        assert_eq!(served.join().unwrap(), [Ok(false), Ok(true)], "{version}");
    }
}

#[test]
fn handshake_errors_of_clients_are_told_apart() {
    let foreign = Scratch::new();
    let other = Printer::under_a_root(&foreign.0).root;
    let distrusting = format!("-verify_return_error -CAfile {}", other.display());
    for (arguments, error) in [
        (format!("-tls1_2 {distrusting}"), HandshakeError::Distrusts),
        (format!("-tls1_3 {distrusting}"), HandshakeError::Distrusts),
        ("-tls1_2 -cipher AES256-GCM-SHA384".to_owned(), HandshakeError::NothingInCommon),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-SHA".to_owned(), HandshakeError::NothingInCommon),
    ] {
        let (address, served) = serve(Suites::AesFirst, 1);
        s_client(address, &arguments);
        assert_eq!(served.join().unwrap(), [Err(error)], "{arguments}");
    }
    for (bytes, error) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], HandshakeError::NotTls),
        (b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06slicer", HandshakeError::NotTls),
        (b"USER bblp\r\n", HandshakeError::NotTls),
        (b"", HandshakeError::Left),
        (b"\x16\x03\x01", HandshakeError::Left),
    ] {
        let (address, served) = serve(Suites::AesFirst, 1);
        TcpStream::connect(address).unwrap().write_all(bytes).unwrap();
        assert_eq!(served.join().unwrap(), [Err(error)], "{bytes:?}");
    }
    assert_eq!(
        HandshakeError::Distrusts.to_string(),
        "proxy's certificate not trusted; import the authority that `sudo pandaproxy ca` \
         prints into the client"
    );
}

// ---- openssl as a printer --------------------------------------------------------------------

#[test]
fn a_v1_printer_is_accepted_and_its_session_resumed() {
    let dir = Scratch::new();
    let printer = Printer::under_a_root(&dir.0);
    assert!(text(&printer.certificate).contains("Version: 1 (0x0)"));
    let trust = printer.trust(SERIAL, Policy::Verify);
    let running = printer.run("-tls1_2 -rev");
    assert_eq!(talk(&trust, running.address), Ok(false));
    assert_eq!(talk(&trust, running.address), Ok(true));
    // A session cache of its own: empty, and the first cache keeps its session.
    let own = trust.with_own_sessions();
    assert_eq!(talk(&own, running.address), Ok(false));
    assert_eq!(talk(&own, running.address), Ok(true));
    assert_eq!(talk(&trust, running.address), Ok(true));
}

#[test]
fn another_printer_is_rejected_before_any_data_is_sent() {
    let dir = Scratch::new();
    let printer = Printer::under_a_root(&dir.0);
    let running = printer.run("-tls1_2 -rev");
    let trust = printer.trust("01S00C000000000", Policy::Verify);
    let error = talk(&trust, running.address).unwrap_err();
    let ConnectError::Refused(Refusal::WrongSerial { found }) = error else { panic!("{error:?}") };
    assert_eq!(found.as_str(), SERIAL);
    assert!(error.to_string().contains(SERIAL), "{error}");
    // Unless `--insecure-printer` is given.
    let trust = printer.trust("01S00C000000000", Policy::Insecure);
    assert_eq!(talk(&trust, running.address), Ok(false));
}

#[test]
fn a_printer_of_an_unknown_authority_is_rejected() {
    let dir = Scratch::new();
    let printer = Printer::under_a_root(&dir.0);
    let running = printer.run("-tls1_2 -rev");
    let pins = Pins::in_dir(&dir.0);
    let trust = Trust::new(SERIAL, Policy::Verify, None, pins, SystemTime::now).unwrap();
    let refused = Err(ConnectError::Refused(Refusal::UnknownIssuer));
    assert_eq!(talk(&trust, running.address), refused);
}

#[test]
fn a_printer_without_a_common_version_or_suite_is_named() {
    let dir = Scratch::new();
    let printer = Printer::under_a_root(&dir.0);
    let trust = printer.trust(SERIAL, Policy::Verify);
    for arguments in ["-tls1_3", "-tls1_2 -cipher AES256-GCM-SHA384"] {
        let running = printer.run(arguments);
        assert_eq!(
            talk(&trust, running.address),
            Err(ConnectError::NothingInCommon),
            "{arguments}"
        );
    }
}

#[test]
fn a_certificate_without_its_key_is_rejected() {
    let dir = Scratch::new();
    let printer = Printer::under_a_root(&dir.0);
    let certificate = CertificateDer::from_pem_file(&printer.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.0.join("root.key")).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let imitation = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let config = ServerConfig::builder_with_provider(provider(Suites::AesFirst))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(imitation));
    let config = Arc::new(config);
    for policy in [Policy::Verify, Policy::Insecure] {
        let trust = printer.trust(SERIAL, policy);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let both =
            async { tokio::join!(connect(&trust, near), accept(&config, far)).0.map(|_| ()) };
        assert_eq!(block_on(both), Err(ConnectError::Refused(Refusal::NotItsKey)));
    }
}

#[test]
fn peers_that_are_not_printers_are_told_apart() {
    let dir = Scratch::new();
    let trust = Printer::under_a_root(&dir.0).trust(SERIAL, Policy::Verify);
    for (answer, error) in [
        (&b"220 (vsFTPd 3.0.5)\r\n"[..], ConnectError::NotTls),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectError::NotTls),
        (b"", ConnectError::Left),
    ] {
        let outcome = block_on(async {
            let (near, mut far) = tokio::io::duplex(4096);
            let answering = async move {
                let _ = far.read(&mut [0; 4096]).await;
                let _ = far.write_all(answer).await;
            };
            tokio::join!(connect(&trust, near), answering).0.map(|_| ())
        });
        assert_eq!(outcome, Err(error));
    }
}

// ---- the program at both ends ----------------------------------------------------------------

/// Guards: bambuddy#1896: an end without close_notify loses what came before it.
#[test]
fn an_end_without_close_notify_is_an_orderly_end() {
    let identity = &OURS.1;
    let dir = Scratch::new();
    let ca = Some(identity.ca_pem().as_bytes());
    let pins = Pins::in_dir(&dir.0);
    let trust = Trust::new(SERIAL, Policy::Verify, ca, pins, SystemTime::now).unwrap();
    let config = identity.server_config(Suites::AesFirst, 4);
    block_on(async {
        for printer_leaves in [true, false] {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (printer, client) = tokio::join!(accept(&config, far), connect(&trust, near));
            let (mut printer, mut client) = (printer.unwrap(), client.unwrap());
            let mut heard = Vec::new();
            if printer_leaves {
                printer.write_all(b"226").await.unwrap();
                printer.flush().await.unwrap();
                drop(printer);
                assert_eq!(client.read_to_end(&mut heard).await.unwrap(), 3);
                assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
            } else {
                client.write_all(b"STOR").await.unwrap();
                client.flush().await.unwrap();
                drop(client);
                assert_eq!(printer.read_to_end(&mut heard).await.unwrap(), 4);
                assert_eq!(printer.read(&mut [0; 8]).await.unwrap(), 0);
            }
        }
    });
}

// ---- support ---------------------------------------------------------------------------------

/// Certificates for all tests that need any, and their directory.
static OURS: LazyLock<(PathBuf, Identity)> = LazyLock::new(|| {
    // Kept from run to run, so that no key has to be made and loading is tested.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("identity");
    let identity = load(&dir, &SUBJECT).unwrap();
    (dir, identity)
});

fn load(dir: &Path, subject: &Subject<'_>) -> Result<Identity, IdentityError> {
    let now = SystemTime::now().max(UNIX_EPOCH + FLOOR);
    Identity::load_or_make(Directories::one(dir), subject, now).map_err(|(_, error)| error)
}

/// A directory for one test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// With an RSA key in it: making one is slow.
    fn with_rsa_key() -> Self {
        let dir = Self::new();
        fs::copy(OURS.0.join("rsa.key"), dir.0.join("rsa.key")).unwrap();
        dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn restore(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
}

fn changed(before: &[(String, Vec<u8>)], after: &[(String, Vec<u8>)]) -> Vec<String> {
    after.iter().filter(|file| !before.contains(file)).map(|(name, _)| name.clone()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl is needed to test certificates");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(certificate: &Path) -> String {
    let path = certificate.to_str().unwrap();
    openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", path])
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("it hangs")
    })
}

/// Serves `clients` clients, sends a greeting to each, and returns whether each resumed a session.
type Served = JoinHandle<Vec<Result<bool, HandshakeError>>>;

fn serve(suites: Suites, clients: usize) -> (SocketAddr, Served) {
    serve_as(OURS.1.server_config(suites, 4), clients)
}

fn serve_as(config: Arc<ServerConfig>, clients: usize) -> (SocketAddr, Served) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let mut outcomes = Vec::new();
            for _ in 0..clients {
                let (stream, _) = listener.accept().await.unwrap();
                outcomes.push(match accept(&config, stream).await {
                    Ok(mut stream) => {
                        stream.write_all(b"good day\n").await.unwrap();
                        stream.flush().await.unwrap();
                        stream.shutdown().await.unwrap();
                        // Until the client has read it and closed.
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                        Ok(stream.is_resumed())
                    }
                    Err(error) => Err(error),
                });
            }
            outcomes
        })
    });
    (address, served)
}

/// Runs openssl as a client until the server closes; returns its output.
fn s_client(address: SocketAddr, arguments: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its input stays open: openssl would end at its end.
    let _input = child.stdin.take();
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&output).into_owned()
}

/// A client that trusts the proxy's CA alone.
fn client(address: SocketAddr, arguments: &str) -> String {
    let ca = OURS.0.join("ca.pem");
    let trusting = format!("-CAfile {} -verify_return_error -verify_ip 127.0.0.1", ca.display());
    s_client(address, &format!("{trusting} {arguments}"))
}

fn one_client(suites: Suites, arguments: &str) -> String {
    let (address, served) = serve(suites, 1);
    let output = client(address, arguments);
    assert_eq!(served.join().unwrap(), [Ok(false)], "{arguments}:\n{output}");
    output
}

/// A printer's key and certificate: v1, signed by a root of its own.
struct Printer {
    root: PathBuf,
    key: PathBuf,
    certificate: PathBuf,
    dir: PathBuf,
}

impl Printer {
    fn under_a_root(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (root, root_key, key) = (at("root.pem"), at("root.key"), at("printer.key"));
        let (request, certificate) = (at("printer.csr"), at("printer.pem"));
        let subject = format!("/CN={SERIAL}");
        for key in [&root_key, &key] {
            openssl(&["genpkey", "-algorithm", "RSA", "-out", key]);
        }
        openssl(&[
            "req",
            "-x509",
            "-new",
            "-key",
            &root_key,
            "-days",
            "3650",
            "-subj",
            "/C=CN/O=Test/CN=Root",
            "-out",
            &root,
        ]);
        openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &root,
            "-CAkey",
            &root_key,
            "-set_serial",
            "1",
            "-sha256",
            "-days",
            "3650",
            "-out",
            &certificate,
        ]);
        Self {
            root: root.into(),
            key: key.into(),
            certificate: certificate.into(),
            dir: dir.into(),
        }
    }

    fn trust(&self, serial: &str, policy: Policy) -> Trust {
        let root = fs::read(&self.root).unwrap();
        let pins = Pins::in_dir(&self.dir);
        Trust::new(serial, policy, Some(&root), pins, SystemTime::now).unwrap()
    }

    fn run(&self, arguments: &str) -> Running {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .arg("-cert")
            .arg(&self.certificate)
            .arg("-key")
            .arg(&self.key)
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned))
            .expect("openssl s_server says where it listens");
        // Its further output is read and dropped, so that it does not block.
        thread::spawn(move || lines.for_each(drop));
        Running { address: address.parse().unwrap(), child }
    }
}

/// A printer that answers, until dropped.
struct Running {
    address: SocketAddr,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a word to a printer that answers it reversed; returns whether an earlier session was resumed.
fn talk(trust: &Trust, address: SocketAddr) -> Result<bool, ConnectError> {
    block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut stream = connect(trust, stream).await?;
        stream.write_all(b"panda\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = [0; 6];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"adnap\n");
        stream.shutdown().await.unwrap();
        Ok(stream.is_resumed())
    })
}
