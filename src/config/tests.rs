//! What is typed, and what is meant by it.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicUsize, Ordering};
use proptest::prelude::*;
use std::fs;

const NEEDED: [(&str, &str); 3] =
    [("PRINTER_IP", "10.0.0.9"), ("ACCESS_CODE", "12345678"), ("SERIAL_NUMBER", "01P00A1")];

/// Reads a command line, without the program's name, and an environment.
fn read(words: &[&str], env: &[(&str, &str)]) -> Result<Intent, ConfigError> {
    let words = core::iter::once("pandaproxy").chain(words.iter().copied()).map(OsString::from);
    Config::from_args(words.collect::<Vec<_>>(), |name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    })
}

fn serve(words: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let intent = read(words, env)?;
    let Intent::Serve(config) = intent else { panic!("{intent:?}") };
    Ok(*config)
}

/// With everything needed in the environment.
fn with(words: &[&str]) -> Result<Config, ConfigError> {
    serve(words, &NEEDED)
}

fn said(result: Result<Config, ConfigError>) -> String {
    result.map(|config| format!("{config:?}")).unwrap_err().to_string()
}

/// A file that goes when its test does.
struct Paper(PathBuf);

impl Paper {
    fn new(text: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pandaproxy-{}-{n}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn three_values_are_enough() {
    let config = serve(&["-p", "10.0.0.9", "-a", "12345678", "-s", "01P00A1"], &[]).unwrap();
    assert_eq!(config.printer, PrinterAddr::Ip("10.0.0.9".parse().unwrap()));
    assert!(config.code.admits(b"12345678"));
    assert_eq!(config.serial, "01P00A1");
    assert_eq!(config.bind, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(config.services, Services::BUILT);
    assert_eq!((config.ports, config.printer_ports), (Ports::default(), Ports::default()));
    assert_eq!((config.advertise, config.printer_ca), (None, None));
    assert!(!config.insecure_printer && !config.keep_printer_address && !config.verbose);
    assert!(config.notices.is_empty());
}

#[test]
fn everything_can_be_said_in_full_on_the_command_line() {
    let code = Paper::new("87654321\n");
    let config = serve(
        &[
            "--printer-ip=printer.lan",
            "--access-code-file",
            code.name(),
            "--serial-number=00M09A",
            "--bind=::1",
            "--services=mqtt",
            "--advertise-ip=192.168.1.2",
            "--port=mqtt=0",
            "--printer-port",
            "mqtt=18883",
            "--printer-ca=/etc/ca.pem",
            "--insecure-printer",
            "--keep-printer-address",
            "--state-dir=/tmp/x",
            "--verbose",
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.printer.to_string(), "printer.lan");
    assert!(config.code.admits(b"87654321"));
    assert_eq!(config.bind.to_string(), "::1");
    assert_eq!(config.advertise, Some(Ipv4Addr::new(192, 168, 1, 2)));
    assert_eq!((config.ports.mqtt, config.printer_ports.mqtt), (0, 18883));
    assert_eq!(config.printer_ca, Some(PathBuf::from("/etc/ca.pem")));
    assert_eq!(config.state_dir, PathBuf::from("/tmp/x"));
    assert!(config.insecure_printer && config.keep_printer_address && config.verbose);
}

#[test]
fn the_names_of_the_python_original_keep_working() {
    let env = [
        ("PRINTER_IP", "10.0.0.9"),
        ("ACCESS_CODE", "12345678"),
        ("SERIAL_NUMBER", "01P00A1"),
        ("BIND_ADDRESS", "10.0.0.1"),
        ("SERVICES", "camera,mqtt,ftp"),
        ("ENABLE_ALL", "true"),
        ("DEBUG", "1"),
    ];
    let by_env = serve(&[], &env).unwrap();
    let words = "-p 10.0.0.9 -a 12345678 -s 01P00A1 -b 10.0.0.1 --services camera,mqtt,ftp \
                 --enable-all -v";
    let by_flag = serve(&words.split_whitespace().collect::<Vec<_>>(), &[]).unwrap();
    for config in [by_env, by_flag] {
        assert_eq!(config.bind.to_string(), "10.0.0.1");
        assert_eq!(config.services, Services::BUILT);
        assert!(config.verbose && config.code.admits(b"12345678") && config.notices.is_empty());
    }
}

#[test]
fn a_bad_value_is_named_with_what_it_got_and_what_it_takes() {
    let long = "x".repeat(300);
    for (words, message) in [
        (
            &["-p", "10.0.0"][..],
            r#"--printer-ip (command line): got "10.0.0", takes an IP address or a host name"#,
        ),
        (&["-p", ""], r#"--printer-ip (command line): got "", takes an IP address or a host name"#),
        (
            &["-p", "a\nb"],
            r#"--printer-ip (command line): got "a\nb", takes an IP address or a host name"#,
        ),
        (
            &["-s", "01P-1"],
            r#"--serial-number (command line): got "01P-1", takes 1 to 32 letters and digits"#,
        ),
        (
            &["-b", "lan"],
            r#"--bind (command line): got "lan", takes an IP address of this machine, 0.0.0.0 for all"#,
        ),
        (
            &["--services", "mqtt,web"],
            r#"--services (command line): got "mqtt,web", takes a comma list of camera, mqtt, ftp"#,
        ),
        (
            &["--enable-all=maybe"],
            r#"--enable-all (command line): got "maybe", takes true or false"#,
        ),
        (
            &["--advertise-ip", "::1"],
            r#"--advertise-ip (command line): got "::1", takes an IPv4 address that clients can reach"#,
        ),
        (
            &["--advertise-ip", "0.0.0.0"],
            r#"--advertise-ip (command line): got "0.0.0.0", takes an IPv4 address that clients can reach"#,
        ),
        (
            &["--port", "8883"],
            r#"--port (command line): got "8883", takes SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 0 (any) to 65535"#,
        ),
        (
            &["--port", "mqtt=1", "--port", "mqtt=2"],
            r#"--port (command line): got "mqtt=1,mqtt=2", takes SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 0 (any) to 65535"#,
        ),
        (
            &["--printer-port", "mqtt=0"],
            r#"--printer-port (command line): got "mqtt=0", takes SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 1 to 65535"#,
        ),
        (
            &["--printer-port", "mqtt=65536"],
            r#"--printer-port (command line): got "mqtt=65536", takes SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 1 to 65535"#,
        ),
        (
            &["--ftp-mode", "active"],
            r#"--ftp-mode (command line): got "active", takes auto, proxy or relay"#,
        ),
        (&["--state-dir", ""], r#"--state-dir (command line): got "", takes a directory"#),
        (&["--printer-ca="], r#"--printer-ca (command line): got "", takes a PEM file"#),
        (
            &["-a", ""],
            "--access-code (command line): takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            &["-a", "1234 678"],
            "--access-code (command line): takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            &["-a", "--oh-a-code"],
            "--access-code (command line): takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            &["-va", "-12345"],
            "--access-code (command line): takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            &["-a", "-v"],
            "--access-code (command line): got nothing, takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            &["--access-code-file", "/nowhere/code"],
            "--access-code-file (command line): no such file, takes a file whose first line is the access code",
        ),
        (
            &["--config", "/nowhere"],
            r#"--config (command line): got "/nowhere": no such file, takes a file of KEY=VALUE lines"#,
        ),
        (
            &["--config", "/"],
            r#"--config (command line): got "/": is a directory, takes a file of KEY=VALUE lines"#,
        ),
        (&["--printer"], "--printer: no such option, see --help"),
        (&["--acces-code=12345678"], "--acces-code: no such option, see --help"),
        (&["-x"], "-x: no such option, see --help"),
        (&["12345678"], "command line: got a word that belongs to no option, see --help"),
        (&["ca", "12345678"], "command line: got a word that belongs to no option, see --help"),
        (&["-p"], "--printer-ip (command line): got nothing, takes an IP address or a host name"),
        (
            &["--port"],
            "--port (command line): got nothing, takes SERVICE=PORT of mqtt, chamber, rtsp, ftp, each once, with a port of 0 (any) to 65535",
        ),
        (&["-p", "a", "-p", "b"], "--printer-ip (command line): given more than once"),
        (&["-v", "-v"], "--verbose (command line): given more than once"),
        (&["--budget=1"], "--budget (command line): takes no value"),
    ] {
        assert_eq!(said(with(words)), message, "{words:?}");
    }
    let message = said(with(&["-s", &long]));
    assert!(message.contains("x\"…, takes") && message.len() < 160, "{message}");
}

#[test]
fn a_bad_value_is_traced_to_where_it_came_from() {
    let mut env = NEEDED.to_vec();
    env.push(("DEBUG", "loud"));
    assert_eq!(
        said(serve(&[], &env)),
        r#"--verbose (environment variable DEBUG): got "loud", takes true or false"#
    );
    let file = Paper::new("# mine\n\nBIND_ADDRESS = everywhere\n");
    let config = ["--config", file.name()];
    assert_eq!(
        said(with(&config)),
        format!(
            r#"--bind ({}:3): got "everywhere", takes an IP address of this machine, 0.0.0.0 for all"#,
            file.name()
        )
    );
}

#[test]
fn what_is_needed_and_missing_is_named() {
    for (missing, message) in [
        (
            "PRINTER_IP",
            "--printer-ip (or PRINTER_IP): got nothing, takes an IP address or a host name",
        ),
        (
            "ACCESS_CODE",
            "--access-code (or ACCESS_CODE): got nothing, takes 1 to 32 visible ASCII characters, as the printer shows them",
        ),
        (
            "SERIAL_NUMBER",
            "--serial-number (or SERIAL_NUMBER): got nothing, takes 1 to 32 letters and digits",
        ),
    ] {
        let absent = NEEDED.into_iter().filter(|(name, _)| *name != missing).collect::<Vec<_>>();
        assert_eq!(said(serve(&[], &absent)), message);
        // Compose passes on empty variables.
        let empty = NEEDED.map(|(name, value)| (name, if name == missing { "" } else { value }));
        assert_eq!(said(serve(&[], &empty)), message);
    }
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let mut env = NEEDED.to_vec();
    for setting in Setting::ALL {
        if !NEEDED.iter().any(|(name, _)| *name == setting.env) {
            env.push((setting.env, ""));
        }
    }
    let config = serve(&[], &env).unwrap();
    assert_eq!(config.bind, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

#[test]
fn the_command_line_hides_the_environment_which_hides_the_file_which_hides_the_default() {
    for bits in 0..8 {
        let (line, env, file) = (bits & 4 != 0, bits & 2 != 0, bits & 1 != 0);
        let paper =
            Paper::new(if file { "BIND_ADDRESS=10.0.0.3\nDEBUG=0\nPORTS=mqtt=3\n" } else { "" });
        let mut words = vec!["--config", paper.name()];
        let mut vars = NEEDED.to_vec();
        if line {
            words.extend(["-b", "10.0.0.1", "-v", "--port", "mqtt=1"]);
        }
        if env {
            vars.extend([("BIND_ADDRESS", "10.0.0.2"), ("DEBUG", "no"), ("PORTS", "mqtt=2")]);
        }
        let (bind, port) = match (line, env, file) {
            (true, _, _) => ("10.0.0.1", 1),
            (_, true, _) => ("10.0.0.2", 2),
            (_, _, true) => ("10.0.0.3", 3),
            _ => ("0.0.0.0", 8883),
        };
        let config = serve(&words, &vars).unwrap();
        assert_eq!((config.bind.to_string().as_str(), config.ports.mqtt), (bind, port));
        assert_eq!(config.verbose, line);
    }
}

#[test]
fn of_the_code_and_its_file_the_higher_counts_and_both_at_one_height_are_an_error() {
    let code = Paper::new("fromfile");
    let by_env = Paper::new(format!(
        "PRINTER_IP=10.0.0.9\nSERIAL_NUMBER=01P\nACCESS_CODE_FILE={}\n",
        code.name()
    ));
    let needed = ["--config", by_env.name()];
    assert!(serve(&needed, &[]).unwrap().code.admits(b"fromfile"));
    assert!(serve(&needed, &[("ACCESS_CODE", "fromenvi")]).unwrap().code.admits(b"fromenvi"));
    assert!(with(&["--access-code-file", code.name()]).unwrap().code.admits(b"fromfile"));
    let line = ["-a", "fromline"];
    let env = [NEEDED[0], NEEDED[2], ("ACCESS_CODE_FILE", code.name())];
    assert!(serve(&line, &env).unwrap().code.admits(b"fromline"));
    assert_eq!(
        said(with(&["-a", "fromline", "--access-code-file", code.name()])),
        "--access-code-file (command line): got --access-code (command line) as well, takes one of them"
    );
    let both = [env[0], env[1], env[2], NEEDED[1]];
    assert_eq!(
        said(serve(&[], &both)),
        "--access-code-file (environment variable ACCESS_CODE_FILE): got --access-code \
         (environment variable ACCESS_CODE) as well, takes one of them"
    );
    let both = Paper::new(format!("ACCESS_CODE=12345678\nACCESS_CODE_FILE={}", code.name()));
    let path = both.name();
    let needed = ["-p", "10.0.0.9", "-s", "01P", "--config", path];
    assert_eq!(
        said(serve(&needed, &[])),
        format!(
            "--access-code-file ({path}:2): got --access-code ({path}:1) as well, takes one of them"
        )
    );
}

#[test]
fn a_code_file_may_come_from_any_editor() {
    for text in
        ["12345678", "12345678\n", "12345678\r\n", "\u{feff}12345678\r\nmore\n", " 12345678 \n"]
    {
        let code = Paper::new(text);
        let config = with(&["--access-code-file", code.name()]).unwrap();
        assert!(config.code.admits(b"12345678"), "{text:?}");
    }
    let message =
        "--access-code-file (command line): takes a file whose first line is the access code";
    for text in ["", "\n12345678\n", "1234 5678\n"] {
        let code = Paper::new(text);
        assert_eq!(said(with(&["--access-code-file", code.name()])), message, "{text:?}");
    }
    let endless = with(&["--access-code-file", "/dev/zero"]);
    assert!(said(endless).contains("more than 64 KiB"));
}

#[test]
fn a_file_may_come_from_any_editor() {
    let file = Paper::new(
        "\u{feff}# PandaProxy\r\n\r\nPRINTER_IP = \"printer.lan\"\r\n  ACCESS_CODE='1234#678'\r\n\
         SERIAL_NUMBER=01P00A1\r\nDEBUG=\r\nSERVICES=\"mqtt\"\r\nPORTS=mqtt=1883",
    );
    let config = serve(&[], &[("PANDAPROXY_CONFIG", file.name())]).unwrap();
    assert_eq!(config.printer.to_string(), "printer.lan");
    assert!(config.code.admits(b"1234#678"));
    assert_eq!((config.ports.mqtt, config.verbose), (1883, false));
}

#[test]
fn every_setting_may_stand_in_the_file_but_the_files_own_name() {
    for setting in Setting::ALL {
        let file = Paper::new(format!("{}=\n", setting.env));
        let known = with(&["--config", file.name()]).is_ok();
        assert_eq!(known, *setting != Setting::CONFIG, "{}", setting.env);
    }
}

#[test]
fn a_line_of_the_file_that_means_nothing_is_named() {
    let names = "PRINTER_IP ACCESS_CODE ACCESS_CODE_FILE SERIAL_NUMBER BIND_ADDRESS SERVICES \
                 ENABLE_ALL ADVERTISE_IP PORTS PRINTER_PORTS FTP_MODE FTP_DATA_PORTS PRINTER_CA \
                 INSECURE_PRINTER KEEP_PRINTER_ADDRESS RECORD RECORD_MIB PANDAPROXY_STATE_DIR DEBUG";
    for (text, end) in [
        ("DEBUG=1\nPRINTR_IP=1\n", format!(":2: got the unknown name PRINTR_IP, takes {names}")),
        ("12345678=\n", format!(":1: got an unknown name, takes {names}")),
        ("12345678\n", ":1: got a line without =, takes KEY=VALUE or a # comment".to_string()),
        ("DEBUG=1\n\nDEBUG=1\n", ":3: got DEBUG again, takes it once, as in line 1".to_string()),
        (&"\n".repeat(129), ":129: got one line too many, takes 128 lines".to_string()),
    ] {
        let file = Paper::new(text);
        assert_eq!(said(with(&["--config", file.name()])), format!("{}{end}", file.name()));
    }
    let full = Paper::new("#\n".repeat(128));
    assert!(with(&["--config", full.name()]).is_ok());
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused() {
    for (bytes, why) in [
        (vec![b'#'; sources::FILE_MAX + 1], "more than 64 KiB"),
        (b"\xff\xfeP\0R\0".to_vec(), "not UTF-8 text"),
    ] {
        let file = Paper::new(bytes);
        let name = file.name();
        let message = format!(
            "--config (command line): got {name:?}: {why}, takes a file of KEY=VALUE lines"
        );
        assert_eq!(said(with(&["--config", name])), message);
    }
    let full = Paper::new(vec![b'#'; sources::FILE_MAX]);
    assert!(with(&["--config", full.name()]).is_ok());
}

#[test]
fn a_printer_is_an_address_or_a_name() {
    let long = format!("{}.lan", [&*"a".repeat(62); 4].join("."));
    assert_eq!(long.len(), 255);
    for good in
        ["10.0.0.9", "fe80::1", "printer", "bambu-p1s.fritz.box", "a_b.lan.", "3d.lan", &long[2..]]
    {
        assert_eq!(PrinterAddr::parse(good).unwrap().to_string(), good);
    }
    for bad in [
        "",
        ".",
        "10.0.0",
        "10.0.0.256",
        "192.168.001.5",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "http://printer",
        "printer:8883",
        "-a.lan",
        "a-.lan",
        "a..lan",
        "my printer",
        "dröcker.lan",
        "12345678",
        &"a".repeat(64),
        &long,
    ] {
        assert_eq!(PrinterAddr::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_serial_number_is_taken_in_upper_case_and_that_is_said() {
    let config = with(&["-s", "01p00a"]).unwrap();
    assert_eq!((config.serial.as_str(), &*config.notices), ("01P00A", &[Notice::SerialRaised][..]));
    assert_eq!(Notice::SerialRaised.level(), Level::Info);
    assert!(with(&["-s", &"9".repeat(32)]).is_ok());
    for bad in ["", " 01P", "01P\u{e9}", &"9".repeat(33)] {
        assert!(with(&["-s", bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn a_port_is_given_by_service_and_the_others_keep_theirs() {
    let config = with(&["--port", "chamber=16000,FTP=1990", "--printer-port=rtsp=8322"]).unwrap();
    assert_eq!(config.ports, Ports { chamber: 16000, ftp: 1990, ..Ports::default() });
    assert_eq!(config.printer_ports, Ports { rtsp: 8322, ..Ports::default() });
    let of = Ports::default();
    assert_eq!((of.mqtt, of.chamber, of.rtsp, of.ftp), (8883, 6000, 322, 990));
}

#[test]
fn every_service_there_is_is_served() {
    let config = with(&["--services", " FTP, mqtt,camera"]).unwrap();
    assert_eq!(config.services, Services { mqtt: true, camera: true, ftp: true });
    assert_eq!(config.services, Services::BUILT);
    assert!(config.notices.is_empty());
}

#[test]
fn who_ends_tls_follows_from_the_model_unless_it_is_said() {
    fn relay<const N: usize>(ranges: [RangeInclusive<u16>; N]) -> FtpMode {
        FtpMode::Relay { data_ports: ranges.into_iter().collect() }
    }
    let by_default = |serial| Because::Model(Model::of_serial(serial).unwrap());
    let proxy = FtpMode::Proxy { data_ports: 2024..=2043 };
    let (small, large) = (2024..=2043, 50_000..=50_100);
    for (serial, asked, mode, because) in [
        ("01P00A1", "auto", proxy.clone(), by_default("01P")),
        ("00M00A1", "AUTO", relay([large.clone()]), by_default("00M")),
        // Nobody near the printer without the code, and no guess at its ports.
        ("99900A1", "auto", proxy.clone(), Because::UnknownModel),
        ("00M00A1", "proxy", proxy, Because::Asked),
        ("01P00A1", "relay", relay([small.clone()]), Because::Asked),
        // Both, as long as nobody knows better.
        ("99900A1", "relay", relay([small, large]), Because::Asked),
    ] {
        let ftp = with(&["-s", serial, "--ftp-mode", asked]).unwrap().ftp;
        assert_eq!(ftp, Ftp { mode, because }, "{serial} {asked}");
        assert!(asked != "auto" || with(&["-s", serial]).unwrap().ftp == ftp, "{serial}");
    }
    let env = [NEEDED[0], NEEDED[1], NEEDED[2], ("FTP_MODE", "relay")];
    assert_eq!(serve(&[], &env).unwrap().ftp.because, Because::Asked);
}

#[test]
fn data_ports_are_a_range_or_one_or_any() {
    for (given, range) in [("50000-50100", 50000..=50100), ("2024", 2024..=2024), ("0", 0..=0)] {
        let mode = with(&["--ftp-data-ports", given]).unwrap().ftp.mode;
        assert_eq!(mode, FtpMode::Proxy { data_ports: range });
    }
    for given in ["", "2043-2024", "0-9", "1-65536", "x", "1-2-3"] {
        assert!(with(&["--ftp-data-ports", given]).is_err(), "{given}");
    }
}

#[test]
fn in_relay_mode_data_ports_are_the_printers_and_no_more_than_can_be_opened() {
    let given = |ports| with(&["--ftp-mode=relay", "--ftp-data-ports", ports]);
    let FtpMode::Relay { data_ports } = given("50000-50127").unwrap().ftp.mode else { panic!() };
    assert_eq!(data_ports[..], [50_000..=50_127]);
    for ports in ["0", "50000-50128"] {
        assert_eq!(
            said(given(ports)),
            format!(
                "--ftp-data-ports (command line): got {ports:?}, takes the printer's own ports in \
                 relay mode, FROM-TO and 128 at most"
            )
        );
    }
}

#[test]
fn enabling_all_goes_before_a_list_of_services() {
    for (word, enabled) in [("yes", true), ("ON", true), ("1", true), ("off", false), ("0", false)]
    {
        let env = [NEEDED[0], NEEDED[1], NEEDED[2], ("SERVICES", "ftp"), ("ENABLE_ALL", word)];
        let config = serve(&[], &env).unwrap();
        assert_eq!(config.services == Services::BUILT, enabled, "{word}");
    }
}

#[test]
fn short_options_may_be_run_together() {
    let config = serve(&["-vp10.0.0.9", "-a=12345678", "-s01P"], &[]).unwrap();
    assert!(config.verbose && config.code.admits(b"12345678"));
}

#[test]
fn the_ca_is_printed_without_a_printer() {
    for words in [&["ca", "--state-dir", "/s", "-s", "01p"][..], &["--state-dir=/s", "-s01p", "ca"]]
    {
        let Intent::PrintCa { state_dir, serial } = read(words, &[]).unwrap() else { panic!() };
        assert_eq!((state_dir, serial.as_deref()), (PathBuf::from("/s"), Some("01P")));
    }
    let file = Paper::new("PANDAPROXY_STATE_DIR=/s");
    let Intent::PrintCa { state_dir, serial } =
        read(&["ca", "--config", file.name()], &[]).unwrap()
    else {
        panic!()
    };
    assert_eq!((state_dir, serial), (PathBuf::from("/s"), None));
    assert!(read(&["ca", "-s", "no-serial"], &[]).is_err());
}

#[test]
fn it_is_recorded_where_it_was_asked_for_and_only_then() {
    let recorded = |args: &[&str], env: &[(&str, &str)]| {
        serve(args, &[&NEEDED[..], env].concat()).map(|config| config.record)
    };
    let to = |dir: &str, mib, must| Some(Recording { dir: PathBuf::from(dir), mib, must });
    assert_eq!(recorded(&[], &[]), Ok(None));
    assert_eq!(recorded(&["--record", "/r"], &[]), Ok(to("/r", 32, false)));
    assert_eq!(recorded(&[], &[("RECORD", "/r"), ("RECORD_MIB", "8")]), Ok(to("/r", 8, false)));
    assert_eq!(recorded(&["record", "--out", "/o"], &[]), Ok(to("/o", 32, true)));
    assert_eq!(recorded(&["record"], &[("RECORD", "/r")]), Ok(to("/r", 32, true)));
    let message = "record --out (or RECORD): got nothing, takes a directory";
    assert_eq!(recorded(&["record"], &[]).map_err(|error| error.to_string()), Err(message.into()));
    for mib in ["7", "65537", "many", "-8"] {
        assert!(recorded(&[], &[("RECORD_MIB", mib)]).is_err(), "{mib}");
    }
}

#[test]
fn the_budget_help_and_version_need_nothing() {
    assert!(matches!(read(&["--budget"], &[]), Ok(Intent::PrintBudget)));
    let Ok(Intent::Print(version)) = read(&["-V"], &[]) else { panic!() };
    let expected = format!("pandaproxy {} (board {})\n", env!("PANDAPROXY_VERSION"), env!("BOARD"));
    assert_eq!(version, expected);
    let Ok(Intent::Print(help)) = read(&["--help"], &NEEDED) else { panic!() };
    for setting in Setting::ALL {
        assert!(help.contains(setting.option) && help.contains(&format!("[{}]", setting.env)));
    }
    assert!(!help.contains("12345678"), "{help}");
}

#[test]
fn state_is_kept_where_systemd_or_custom_has_it() {
    type Env = &'static [(&'static str, &'static str)];
    let home: Env = &[("HOME", "/home/pi")];
    for (root, env, expected) in [
        (true, home, "/var/lib/pandaproxy"),
        (false, home, "/home/pi/.local/state/pandaproxy"),
        (false, &[("XDG_STATE_HOME", "/x"), ("HOME", "/home/pi")], "/x/pandaproxy"),
        (
            false,
            &[("XDG_STATE_HOME", "x"), ("HOME", "/home/pi")],
            "/home/pi/.local/state/pandaproxy",
        ),
        (false, &[], "/var/lib/pandaproxy"),
        (true, &[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")], "/var/lib/a"),
        (false, &[("STATE_DIRECTORY", "/var/lib/a"), ("HOME", "/home/pi")], "/var/lib/a"),
    ] {
        let find = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(default_state_dir(root, &find), PathBuf::from(expected), "{root} {env:?}");
    }
    let env = [("PANDAPROXY_STATE_DIR", "/mine"), ("STATE_DIRECTORY", "/systemds")];
    let Ok(Intent::PrintCa { state_dir, .. }) = read(&["ca"], &env) else { panic!() };
    assert_eq!(state_dir, PathBuf::from("/mine"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Wherever the code stands, whatever else is wrong, good or too long: nothing repeats it.
    #[test]
    fn the_code_is_in_no_message_and_no_debug(
        // Any, too long, and like an option.
        code in prop_oneof!["[!-~]{8,32}", "[!-~]{33,40}", "-{1,2}[0-9a-z=]{8,30}"],
        place in 0..6usize,
        fault in 0..6usize,
    ) {
        let code_file = Paper::new(&code);
        let file = Paper::new(format!("ACCESS_CODE={code}\n"));
        let stray = Paper::new(format!("{code}\n"));
        let (words, env) = match place {
            0 => (vec!["-a", &code], vec![]),
            1 => (vec![], vec![("ACCESS_CODE", &*code)]),
            2 => (vec!["--config", file.name()], vec![]),
            3 => (vec!["--access-code-file", code_file.name()], vec![]),
            // In the wrong place.
            4 => (vec!["--access-code-file", &code], vec![]),
            _ => (vec!["--config", stray.name()], vec![]),
        };
        let needed = vec!["-p", "10.0.0.9", "-s", "01P"];
        let more = match fault {
            0 => vec![],
            1 => vec!["-b", "lan"],
            2 => vec!["--nonsense"],
            3 => vec!["-v", "-v"],
            4 => vec!["stray"],
            _ => vec!["--services", "web"],
        };
        let words = [needed, words, more].concat();
        let said = match read(&words, &env) {
            Ok(intent) => format!("{intent:?}"),
            Err(error) => {
                prop_assert!(!error.to_string().contains('\n'));
                format!("{error} {error:?}")
            }
        };
        let escaped = format!("{code:?}");
        prop_assert!(!said.contains(&code) && !said.contains(escaped.trim_matches('"')), "{said}");
    }
}
