//! Settings from the command line, the environment and files, and the messages about them.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicUsize, Ordering};
use proptest::prelude::*;
use std::fs;

const SERIAL: &str = "01P00A000000001";

const NEEDED: [(&str, &str); 3] =
    [("PRINTER_IP", "10.0.0.9"), ("ACCESS_CODE", "12345678"), ("SERIAL_NUMBER", SERIAL)];

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

fn refused(result: Result<Config, ConfigError>) -> String {
    result.map(|config| format!("{config:?}")).unwrap_err().to_string()
}

/// A file that is removed at the end of its test.
struct TempFile(PathBuf);

impl TempFile {
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

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn three_settings_are_enough() {
    let config = serve(&["-p", "10.0.0.9", "-a", "12345678", "-s", SERIAL], &[]).unwrap();
    assert_eq!(config.printer, PrinterAddr::Ip("10.0.0.9".parse().unwrap()));
    assert!(config.code.admits(b"12345678"));
    assert_eq!(config.serial, SERIAL);
    assert_eq!(config.bind, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(config.services, Services::DEFAULT);
    assert_eq!((config.ports, config.printer_ports), (Ports::default(), Ports::default()));
    assert_eq!((config.advertise, config.printer_ca), (None, None));
    assert!(!config.insecure_printer && !config.keep_printer_address && !config.verbose);
    assert!(!config.strict_serial);
    assert!(config.notices.is_empty() && config.advertise_names.is_empty());
    assert_eq!(config.ca_dir, config.state_dir);
}

#[test]
fn every_option_has_a_long_form() {
    let code = TempFile::new("87654321\n");
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
            "--strict-serial",
            "--advertise-name=nas.lan, nas.lan.",
            "--advertise-name=print.lan",
            "--state-dir=/tmp/x",
            "--ca-dir=/tmp/ca",
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
    assert_eq!(config.ca_dir, PathBuf::from("/tmp/ca"));
    assert_eq!(config.advertise_names, ["nas.lan", "print.lan"]);
    assert!(config.insecure_printer && config.keep_printer_address && config.verbose);
    assert!(config.strict_serial);
}

#[test]
fn the_printers_name_is_visible_text_of_64_bytes_at_most() {
    assert_eq!(with(&[]).unwrap().name, None);
    let longest = "ü".repeat(32);
    for name in ["Workshop 2", "\u{1f5a8} \"rechts\"", &longest] {
        assert_eq!(with(&["--name", name]).unwrap().name.as_deref(), Some(name));
    }
    let too_long = format!("{longest}x");
    for name in [" ", "a\nb", "\u{7f}", &too_long] {
        let message = refused(with(&["--name", name]));
        assert!(message.ends_with("for --name: expected 1 to 64 bytes of text"), "{message}");
    }
}

#[test]
fn names_of_the_python_version_keep_working() {
    let env = [
        ("PRINTER_IP", "10.0.0.9"),
        ("ACCESS_CODE", "12345678"),
        ("SERIAL_NUMBER", SERIAL),
        ("BIND_ADDRESS", "10.0.0.1"),
        ("SERVICES", "camera,mqtt,ftp"),
        ("ENABLE_ALL", "true"),
        ("DEBUG", "1"),
    ];
    let by_env = serve(&[], &env).unwrap();
    let words = "-p 10.0.0.9 -a 12345678 -s 01P00A000000001 -b 10.0.0.1 --services camera,mqtt,ftp \
                 --enable-all -v";
    let by_flag = serve(&words.split_whitespace().collect::<Vec<_>>(), &[]).unwrap();
    for config in [by_env, by_flag] {
        assert_eq!(config.bind.to_string(), "10.0.0.1");
        assert_eq!(config.services, Services::DEFAULT);
        assert!(config.verbose && config.code.admits(b"12345678") && config.notices.is_empty());
    }
}

/// One of each error.
pub(super) fn errors() -> Vec<ConfigError> {
    let of = |words: &[&str]| serve(words, &[]).map(|_| ()).unwrap_err();
    let with = |words: &[&str]| with(words).map(|_| ()).unwrap_err();
    let in_file = |text: &str| {
        let file = TempFile::new(text);
        with(&["--config", file.name()])
    };
    let every_invalid = Setting::ALL.into_iter().filter(|setting| !setting.secret).map(|setting| {
        ConfigError::invalid(setting, &Source::CommandLine, Some("not what it takes"))
    });
    let mut errors: Vec<_> = every_invalid.collect();
    errors.extend([
        of(&[]),
        of(&["-p", "10.0.0.9", "-a", "12345678"]),
        with(&["-a", "1234 678"]),
        with(&["--access-code-file", "/nowhere"]),
        with(&["--config", "/nowhere"]),
        with(&["--printer"]),
        with(&["-x"]),
        with(&["helth"]),
        with(&["web"]),
        with(&["12345678"]),
        with(&["-v", "-v"]),
        with(&["-p"]),
        with(&["--budget=1"]),
        with(&["record"]),
        with(&["--port=mqtt=322"]),
        with(&["--port=rtsp=2030"]),
        in_file("PRINTR_IP=1"),
        in_file("12345678"),
        in_file("DEBUG=1\nDEBUG=1"),
        in_file("export DEBUG=1"),
        in_file("DEBUG=1 # one"),
        in_file("{\"DEBUG\": [1]}"),
    ]);
    errors
}

#[test]
fn an_invalid_option_is_named_with_what_was_expected() {
    const PORT: &str = "expected SERVICE=PORT; SERVICE is mqtt, chamber, rtsp, ftp, tunnel, detect, detect-tls or http, each at most once";
    const PRINTER_PORT: &str = "expected SERVICE=PORT; SERVICE is mqtt, chamber, rtsp, ftp, tunnel or detect, each at most once";
    const CODE: &str = "invalid value (not shown) for --access-code: expected the access code that the printer shows; 1 to 32 visible ASCII characters";
    let long = "x".repeat(300);
    for (words, message) in [
        (&["-p", "10.0.0"][..], r#"invalid value "10.0.0" for --printer-ip: expected the printer's IP address or host name"#.into()),
        (&["-p", ""], r#"invalid value "" for --printer-ip: expected the printer's IP address or host name"#.into()),
        (&["-p", "a\nb"], r#"invalid value "a\nb" for --printer-ip: expected the printer's IP address or host name"#.into()),
        (&["-s", "01P-1"], r#"invalid value "01P-1" for --serial-number: expected 1 to 32 letters and digits"#.into()),
        (&["-b", "lan"], r#"invalid value "lan" for --bind: expected an IP address of this machine, or 0.0.0.0 for all"#.into()),
        (&["--services", "mqtt,web"], r#"invalid value "mqtt,web" for --services: expected a list of services; mqtt, chamber, rtsp, ftp, detect, ssdp, http or camera (chamber and rtsp), with commas between"#.into()),
        (&["--enable-all=maybe"], r#"invalid value "maybe" for --enable-all: expected true or false"#.into()),
        (&["--advertise-ip", "::1"], r#"invalid value "::1" for --advertise-ip: expected an IPv4 address that clients can reach"#.into()),
        (&["--advertise-ip", "0.0.0.0"], r#"invalid value "0.0.0.0" for --advertise-ip: expected an IPv4 address that clients can reach"#.into()),
        (&["--advertise-name", "a b"], r#"invalid value "a b" for --advertise-name: expected host names, 8 at most, with commas between"#.into()),
        (&["--advertise-name", "a,b,c,d,e,f,g,h,i"], r#"invalid value "a,b,c,d,e,f,g,h,i" for --advertise-name: expected host names, 8 at most, with commas between"#.into()),
        (&["--port", "8883"], format!(r#"invalid value "8883" for --port: {PORT}, PORT is 0 (any) to 65535"#)),
        (&["--port", "mqtt=1", "--port", "mqtt=2"], format!(r#"invalid value "mqtt=1,mqtt=2" for --port: {PORT}, PORT is 0 (any) to 65535"#)),
        (&["--printer-port", "mqtt=0"], format!(r#"invalid value "mqtt=0" for --printer-port: {PRINTER_PORT}, PORT is 1 to 65535"#)),
        (&["--printer-port", "mqtt=65536"], format!(r#"invalid value "mqtt=65536" for --printer-port: {PRINTER_PORT}, PORT is 1 to 65535"#)),
        (&["--ftp-mode", "active"], r#"invalid value "active" for --ftp-mode: expected auto, proxy or relay"#.into()),
        (&["--port-6000", "ftp"], r#"invalid value "ftp" for --port-6000: expected auto, chamber or tunnel"#.into()),
        (&["--state-dir", ""], r#"invalid value "" for --state-dir: expected a directory"#.into()),
        (&["--printer-ca="], r#"invalid value "" for --printer-ca: expected a PEM file"#.into()),
        (&["-a", ""], CODE.into()),
        (&["-a", "1234 678"], CODE.into()),
        (&["-a", "--oh-a-code"], CODE.into()),
        (&["-va", "-12345"], CODE.into()),
        (&["-a", "-v"], "--access-code needs a value: the access code that the printer shows; 1 to 32 visible ASCII characters".into()),
        (&["--access-code-file", "/nowhere/code"], "cannot read the file of --access-code-file: no such file".into()),
        (&["--config", "/nowhere"], "cannot read the settings in /nowhere: no such file; name a file of settings with --config".into()),
        (&["--config", "/"], "cannot read the settings in /: is a directory; name a file of settings with --config".into()),
        (&["--printer"], "unknown option --printer; did you mean --printer-ip?".into()),
        (&["--acces-code=12345678"], "unknown option --acces-code; did you mean --access-code?".into()),
        (&["--nozzle"], "unknown option --nozzle; see pandaproxy --help".into()),
        (&["-x"], "unknown option -x; see pandaproxy --help".into()),
        (&["helth"], r#"unknown command "helth"; did you mean "health"?"#.into()),
        (&["help", "web"], r#"unknown command "web"; see pandaproxy --help"#.into()),
        (&["web"], r#"unknown command "web"; see pandaproxy --help"#.into()),
        (&["12345678"], "unexpected word (not shown: it may be the access code); see pandaproxy --help".into()),
        (&["abcdefgh"], "unexpected word (not shown: it may be the access code); see pandaproxy --help".into()),
        (&["ca", "12345678"], "unexpected word (not shown: it may be the access code); see pandaproxy --help".into()),
        (&["-p"], "--printer-ip needs a value: the printer's IP address or host name".into()),
        (&["-p", "a", "-p", "b"], "--printer-ip is given twice".into()),
        (&["-v", "-v"], "--verbose is given twice".into()),
        (&["--budget=1"], "--budget takes no value".into()),
    ] {
        let message: String = message;
        assert_eq!(refused(with(words)), message, "{words:?}");
    }
    let message = refused(with(&["-s", &long]));
    assert!(message.contains("x\"… for") && message.len() < 160, "{message}");
}

#[test]
fn an_invalid_value_is_traced_to_its_source() {
    let mut env = NEEDED.to_vec();
    env.push(("DEBUG", "loud"));
    assert_eq!(
        refused(serve(&[], &env)),
        r#"invalid value "loud" for environment variable DEBUG: expected true or false"#
    );
    let file = TempFile::new("# mine\n\nBIND_ADDRESS = everywhere\n");
    let config = ["--config", file.name()];
    assert_eq!(
        refused(with(&config)),
        format!(
            r#"{}:3: invalid value "everywhere" for BIND_ADDRESS: expected an IP address of this machine, or 0.0.0.0 for all"#,
            file.name()
        )
    );
}

#[test]
fn all_missing_required_settings_are_named_at_once() {
    for (missing, message) in [
        (
            &["PRINTER_IP"][..],
            "--printer-ip (or PRINTER_IP) is required: the printer's IP address or host name; see pandaproxy --help",
        ),
        (
            &["ACCESS_CODE"],
            "--access-code (or ACCESS_CODE) is required: the access code that the printer shows; 1 to 32 visible ASCII characters; see pandaproxy --help",
        ),
        (
            &["SERIAL_NUMBER"],
            "--serial-number (or SERIAL_NUMBER) is required: 1 to 32 letters and digits; see pandaproxy --help",
        ),
        (
            &["PRINTER_IP", "SERIAL_NUMBER"],
            "missing settings: --printer-ip (or PRINTER_IP), --serial-number (or SERIAL_NUMBER); see pandaproxy --help",
        ),
        (
            &["PRINTER_IP", "ACCESS_CODE", "SERIAL_NUMBER"],
            "missing settings: --printer-ip (or PRINTER_IP), --access-code (or ACCESS_CODE), --serial-number (or SERIAL_NUMBER); see pandaproxy --help",
        ),
    ] {
        let absent =
            NEEDED.into_iter().filter(|(name, _)| !missing.contains(name)).collect::<Vec<_>>();
        assert_eq!(refused(serve(&[], &absent)), message);
        // Compose passes on empty variables.
        let empty =
            NEEDED.map(|(name, value)| (name, if missing.contains(&name) { "" } else { value }));
        assert_eq!(refused(serve(&[], &empty)), message);
    }
    let file = TempFile::new("PRINTER_IP=10.0.0.9\nACCESS_CODE=\n");
    let message = refused(serve(&["--config", file.name()], &[]));
    assert!(message.contains("--access-code (or ACCESS_CODE), --serial-number"), "{message}");
    assert!(message.ends_with(&format!("as keys in {}", file.name())), "{message}");
}

#[test]
fn an_empty_variable_counts_as_not_given() {
    let mut env = NEEDED.to_vec();
    for setting in Setting::ALL {
        if !NEEDED.iter().any(|(name, _)| *name == setting.key) {
            env.push((setting.key, ""));
        }
    }
    let config = serve(&[], &env).unwrap();
    assert_eq!(config.bind, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

#[test]
fn command_line_before_environment_before_file_before_default() {
    for bits in 0..8 {
        let (line, env, file) = (bits & 4 != 0, bits & 2 != 0, bits & 1 != 0);
        let paper =
            TempFile::new(if file { "BIND_ADDRESS=10.0.0.3\nDEBUG=0\nPORTS=mqtt=3\n" } else { "" });
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
fn code_and_code_file_of_one_source_are_an_error() {
    let code = TempFile::new("fromfile");
    let by_env = TempFile::new(format!(
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
        refused(with(&["-a", "fromline", "--access-code-file", code.name()])),
        "both --access-code and --access-code-file are given; remove one"
    );
    let both = [env[0], env[1], env[2], NEEDED[1]];
    assert_eq!(
        refused(serve(&[], &both)),
        "both environment variable ACCESS_CODE and environment variable ACCESS_CODE_FILE are given; \
         remove one"
    );
    let both = TempFile::new(format!("ACCESS_CODE=12345678\nACCESS_CODE_FILE={}", code.name()));
    let path = both.name();
    let needed = ["-p", "10.0.0.9", "-s", "01P", "--config", path];
    assert_eq!(
        refused(serve(&needed, &[])),
        format!("{path}:2: both ACCESS_CODE and ACCESS_CODE_FILE are given; remove one")
    );
}

#[test]
fn a_code_file_from_any_editor_is_read() {
    for text in
        ["12345678", "12345678\n", "12345678\r\n", "\u{feff}12345678\r\nmore\n", " 12345678 \n"]
    {
        let code = TempFile::new(text);
        let config = with(&["--access-code-file", code.name()]).unwrap();
        assert!(config.code.admits(b"12345678"), "{text:?}");
    }
    let message = "invalid value (not shown) for --access-code-file: expected a file whose first line is the access code";
    for text in ["", "\n12345678\n", "1234 5678\n"] {
        let code = TempFile::new(text);
        assert_eq!(refused(with(&["--access-code-file", code.name()])), message, "{text:?}");
    }
    let endless = with(&["--access-code-file", "/dev/zero"]);
    assert!(refused(endless).contains("more than 64 KiB"));
}

#[test]
fn a_settings_file_from_any_editor_is_read() {
    let file = TempFile::new(
        "\u{feff}# PandaProxy\r\n\r\nPRINTER_IP = \"printer.lan\"\r\n  ACCESS_CODE='1234#678'\r\n\
         SERIAL_NUMBER=01P00A000000001\r\nDEBUG=\r\nSERVICES=\"mqtt\"\r\nPORTS=mqtt=1883",
    );
    let config = serve(&[], &[("PANDAPROXY_CONFIG", file.name())]).unwrap();
    assert_eq!(config.printer.to_string(), "printer.lan");
    assert!(config.code.admits(b"1234#678"));
    assert_eq!((config.ports.mqtt, config.verbose), (1883, false));
}

#[test]
fn the_file_may_hold_every_setting_but_its_own_name() {
    for setting in Setting::ALL {
        let file = TempFile::new(format!("{}=\n", setting.key));
        let known = with(&["--config", file.name()]).is_ok();
        assert_eq!(known, *setting != Setting::CONFIG, "{}", setting.key);
    }
}

#[test]
fn an_invalid_line_of_the_file_is_explained() {
    const COMMENT: &str = "comments need a line of their own, values with # quotes";
    for (text, end) in [
        (
            "DEBUG=1\nPRINTR_IP=1\n",
            ":2: unknown setting PRINTR_IP; did you mean PRINTER_IP?".into(),
        ),
        ("NOZZLE=1\n", ":1: unknown setting NOZZLE; see pandaproxy --help".into()),
        ("12345678=\n", ":1: unknown setting (not shown); see pandaproxy --help".into()),
        ("12345678\n", ":1: expected KEY=VALUE or a # comment".to_string()),
        ("DEBUG=1\n\nDEBUG=1\n", ":3: DEBUG is set twice, first in line 1".to_string()),
        ("export DEBUG=1\n", ":1: remove \"export\": this file is no shell script".into()),
        (
            "PRINTER_IP=10.0.0.9 # mine\n",
            format!(":1: PRINTER_IP has a comment behind its value; {COMMENT}"),
        ),
        (
            "ACCESS_CODE=\"12345678\"\t# mine\n",
            format!(":1: ACCESS_CODE has a comment behind its value; {COMMENT}"),
        ),
        (&"\n".repeat(129), ":129: more than 128 lines".to_string()),
    ] {
        let file = TempFile::new(text);
        assert_eq!(refused(with(&["--config", file.name()])), format!("{}{end}", file.name()));
    }
    let full = TempFile::new("#\n".repeat(128));
    assert!(with(&["--config", full.name()]).is_ok());
    let quoted = TempFile::new("PRINTER_CA='/a #b'\n");
    let config = with(&["--config", quoted.name()]).unwrap();
    assert_eq!(config.printer_ca, Some(PathBuf::from("/a #b")));
}

#[test]
fn a_json_object_is_read_as_a_settings_file() {
    let file = TempFile::new(
        "\n{\n  \"printer_ip\": \"printer.lan\",\n  \"ACCESS_CODE\": 12345678, \"serial_number\":\"01P00A000000001\",\n\
         \t\"debug\" : true,\"record_mib\":64,\r\n \"printer_name\": \"a \\\"b\\\" \\u00fc \\ud83d\\ude00\\/ \\\\\",\"ports\": \"\",\n\
         \"view_code\": null, \"strict_serial\": false }\n",
    );
    let config = serve(&[], &[("PANDAPROXY_CONFIG", file.name())]).unwrap();
    assert_eq!(config.printer.to_string(), "printer.lan");
    assert!(config.code.admits(b"12345678"));
    assert_eq!(
        (config.ports, config.verbose, config.strict_serial),
        (Ports::default(), true, false)
    );
    assert_eq!(config.name.as_deref(), Some("a \"b\" ü 😀/ \\"));
    assert!(config.http.view_code.is_none());
    for empty in ["{}", " { } "] {
        let file = TempFile::new(empty);
        assert!(with(&["--config", file.name()]).is_ok());
    }
}

#[test]
fn a_json_object_may_hold_every_setting() {
    for setting in Setting::ALL.into_iter().filter(|setting| setting.is_in_file()) {
        for key in [setting.key.to_owned(), setting.key.to_ascii_lowercase()] {
            let file = TempFile::new(format!("{{\"{key}\": \"\"}}"));
            assert!(with(&["--config", file.name()]).is_ok(), "{key}");
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_json_object_never_panics(
        bytes in proptest::collection::vec(proptest::sample::select(&b"\"\\{}:, \n-1ux\xc3\xbc"[..]), 0..64)
    ) {
        let text = format!("{{\"debug\": {}", String::from_utf8_lossy(&bytes));
        let members = json::Object::begun(&text).unwrap();
        // As many as it can hold at most, and behind a fault nothing.
        let read: Vec<_> = members.take(text.len()).collect();
        let faults = read.iter().filter(|it| it.is_err()).count();
        assert!(faults == 0 || faults == 1 && read.last().is_some_and(Result::is_err), "{read:?}");
    }
}

#[test]
fn an_invalid_json_object_is_explained() {
    let invalid = |line: usize| format!(":{line}: {}", json::EXPECTED);
    let value = |line: usize, key: &str| {
        format!(":{line}: invalid value for {key}: {}", json::EXPECTED_VALUE)
    };
    for (text, end) in [
        ("{", invalid(1)),
        ("{\"debug\"", invalid(1)),
        ("{\"debug\": ", value(1, "debug")),
        ("{\"debug\": true", value(1, "debug")),
        ("{\"debug\": true} x", invalid(1)),
        ("{\"debug\": true,}", invalid(1)),
        ("{,}", invalid(1)),
        ("{\n\"debug\": true\n\"ports\": \"\"}", invalid(3)),
        ("{\n\"ports\": [\"mqtt=1\"]}", value(2, "ports")),
        ("{\"ports\": {\"mqtt\": 1}}", value(1, "ports")),
        ("{debug: true}", invalid(1)),
        ("{\"debug\": yes}", value(1, "debug")),
        ("{\"record_mib\": NaN}", value(1, "record_mib")),
        ("{\"record_mib\": 64.5}", value(1, "record_mib")),
        ("{\"record_mib\": -}", value(1, "record_mib")),
        ("{\"record_mib\": }", value(1, "record_mib")),
        ("{\n\"printer_name\":\n\"a\nb\"}", value(3, "printer_name")),
        ("{\"printer_name\": \"\\x\"}", value(1, "printer_name")),
        ("{\"printer_name\": \"\\ud800\"}", value(1, "printer_name")),
        ("{\"printer_name\": \"\\ud83d\\u0041\"}", value(1, "printer_name")),
        ("{\"printer_name\": \"\\ude00\\ud83d\"}", value(1, "printer_name")),
        ("{\"printer_name\": \"\\u+12f\"}", value(1, "printer_name")),
        ("{\"printer_name\": \"\\u12\"}", value(1, "printer_name")),
        ("{\"12345678\": [1]}", value(1, "(not shown)")),
        ("{\"printer_name\": \"\\", value(1, "printer_name")),
        (
            "{\n\"printr_ip\": \"1\"}",
            ":2: unknown setting printr_ip; did you mean PRINTER_IP?".into(),
        ),
        ("{\"12345678\": 1}", ":1: unknown setting (not shown); see pandaproxy --help".into()),
        ("{\"debug\": 1,\n\n\"DEBUG\": 1}", ":3: DEBUG is set twice, first in line 1".into()),
        (
            "{\n\"ftp_mode\": \"fast\"}",
            ":2: invalid value \"fast\" for FTP_MODE: expected auto, proxy or relay".into(),
        ),
    ] {
        let file = TempFile::new(text);
        assert_eq!(refused(with(&["--config", file.name()])), format!("{}{end}", file.name()));
    }
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_rejected() {
    for (bytes, why) in [
        (vec![b'#'; sources::MAX_FILE + 1], "more than 64 KiB"),
        (b"\xff\xfeP\0R\0".to_vec(), "not UTF-8 text"),
    ] {
        let file = TempFile::new(bytes);
        let name = file.name();
        let message = format!(
            "cannot read the settings in {name}: {why}; name a file of settings with --config"
        );
        assert_eq!(refused(with(&["--config", name])), message);
    }
    let full = TempFile::new(vec![b'#'; sources::MAX_FILE]);
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

/// Guards: bambuddy#1465: a serial number in lower case is no topic.
#[test]
fn a_serial_number_is_converted_to_upper_case_with_a_notice() {
    let config = with(&["-s", "01p00a000000001"]).unwrap();
    assert_eq!((config.serial.as_str(), &*config.notices), (SERIAL, &[Notice::SerialRaised][..]));
    assert_eq!(Notice::SerialRaised.level(), Level::Info);
    assert!(with(&["-s", &"9".repeat(32)]).is_ok());
    for bad in ["", " 01P", "01P\u{e9}", &"9".repeat(33)] {
        assert!(with(&["-s", bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn an_unusual_length_of_serial_or_code_is_one_warning() {
    for (words, notice) in [
        (["-s", "01P00A00000001"], Notice::SerialLength(14)),
        (["-s", "01P00A0000000011"], Notice::SerialLength(16)),
        (["-a", "1234567"], Notice::CodeLength(7)),
    ] {
        let env: Vec<_> = NEEDED.into_iter().collect();
        let config = serve(&words, &env).unwrap();
        assert_eq!((&*config.notices, notice.level()), (&[notice][..], Level::Warn));
    }
    let message = Notice::CodeLength(7).to_string();
    assert!(message.contains('7') && !message.contains("1234567"), "{message}");
}

#[test]
fn a_port_is_given_by_service_and_the_others_keep_theirs() {
    let config = with(&["--port", "chamber=16000,FTP=1990", "--printer-port=rtsp=8322"]).unwrap();
    let moved = Ports { chamber: 16000, tunnel: 16000, ftp: 1990, ..Ports::default() };
    assert_eq!(config.ports, moved);
    assert_eq!(config.printer_ports, Ports { rtsp: 8322, ..Ports::default() });
    let of = Ports::default();
    assert_eq!((of.mqtt, of.chamber, of.rtsp, of.ftp, of.tunnel), (8883, 6000, 322, 990, 6000));
    assert_eq!((of.detect, of.detect_tls), (3000, 3002));
}

#[test]
fn the_file_tunnel_has_a_port_of_its_own() {
    let config = with(&["-s", "00M00A000000001", "--port=tunnel=16000"]).unwrap();
    assert_eq!((config.ports.chamber, config.ports.tunnel), (6000, 16000));
    let listening: Vec<_> = config.listening().collect();
    let others = [("detect", 3000), ("detect-tls", 3002)];
    assert_eq!(listening[..4], [("mqtt", 8883), ("rtsp", 322), ("ftp", 990), ("tunnel", 16000)]);
    assert_eq!(listening[4..], others);
}

#[test]
fn services_are_chosen_by_the_names_of_their_ports() {
    let none = Services::default();
    for (list, services) in [
        ("mqtt", Services { mqtt: true, ..none }),
        ("chamber,Rtsp", Services { chamber: true, rtsp: true, ..none }),
        ("camera", Services { chamber: true, rtsp: true, ..none }),
        (" FTP, mqtt,camera", Services { detect: false, ssdp: false, ..Services::DEFAULT }),
        ("detect", Services { detect: true, ..none }),
        ("ssdp", Services { ssdp: true, ..none }),
        ("mqtt,chamber,rtsp,ftp,detect,ssdp", Services::DEFAULT),
    ] {
        assert_eq!(with(&["--services", list]).unwrap().services, services, "{list}");
    }
    let listening = |services| {
        let config = with(&["--services", services]).unwrap();
        config.listening().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(listening("rtsp"), ["rtsp"]);
    assert_eq!(listening("camera,ftp"), ["chamber", "rtsp", "ftp"]);
}

#[test]
fn port_6000_is_what_the_model_has_unless_it_is_set() {
    for (serial, set, tunnel) in [
        ("01P00A000000001", "auto", false),
        ("00M00A000000001", "AUTO", true),
        ("99900A000000001", "auto", false),
        ("01P00A000000001", "tunnel", true),
        ("00M00A000000001", "chamber", false),
    ] {
        let config = with(&["-s", serial, "--port-6000", set]).unwrap();
        assert_eq!(config.has_tunnel(), tunnel, "{serial} {set}");
        let names: Vec<_> = config.listening().map(|(name, _)| name).collect();
        assert_eq!((names.contains(&"tunnel"), names.contains(&"chamber")), (tunnel, !tunnel));
    }
}

#[test]
fn relay_mode_says_how_all_ports_get_one_certificate() {
    let advice = ["--ftp-mode", "proxy", "--port-6000", "chamber"];
    let serial = "00M00A000000001";
    let config = with(&["-s", serial]).unwrap();
    let said = config.ftp.to_string();
    assert!(said.contains(&advice.join(" ")), "{said}");
    assert!(config.has_tunnel());
    let [mode, proxy, port, chamber] = advice;
    let config = with(&["-s", serial, mode, proxy, port, chamber]).unwrap();
    // Neither is relayed, so that no port shows the printer's certificate.
    assert!(matches!(config.ftp.mode, FtpMode::Proxy { .. }));
    assert!(!config.has_tunnel());
}

#[test]
fn two_services_on_one_port_are_named() {
    for (words, message) in [
        (
            "--port=mqtt=322",
            "mqtt and rtsp are both to listen on port 322; give one another port with --port",
        ),
        (
            "--port=ftp=8883",
            "mqtt and ftp are both to listen on port 8883; give one another port with --port",
        ),
        (
            "--port=rtsp=2030",
            "port 2030 of rtsp is one of the FTP data ports 2024-2043; choose others with --ftp-data-ports",
        ),
    ] {
        assert_eq!(refused(with(&[words])), message);
    }
    assert!(with(&["--port=mqtt=0,rtsp=0,ftp=0"]).is_ok());
    assert!(with(&["--port=mqtt=322", "--services=mqtt,ftp"]).is_ok());
}

#[test]
fn view_code_and_token_have_at_least_eight_characters() {
    for option in ["--view-code", "--http-token"] {
        for code in ["short-7", "", "quite long", "123456789012345678901234567890123"] {
            let message = refused(with(&[option, code]));
            assert!(message.contains("expected at least 8 characters"), "{message}");
            assert!(code.is_empty() || !message.contains(code), "{message}");
            let file = TempFile::new(code);
            let message = refused(with(&[&format!("{option}-file"), file.name()]));
            assert!(message.contains("at least 8 characters"), "{message}");
            assert!(code.is_empty() || !message.contains(code), "{message}");
        }
        assert!(with(&[option, "just-8-c"]).is_ok());
    }
}

#[test]
fn the_proxys_own_address_as_the_printer_is_rejected() {
    let own = |words: &[&str]| {
        let needed = ["-p", "127.0.0.1", "-a", "12345678", "-s", SERIAL];
        serve(&[&needed[..], words].concat(), &[]).unwrap().check_printer()
    };
    let message = own(&[]).unwrap_err().to_string();
    assert!(message.contains("127.0.0.1 is this machine"), "{message}");
    // A port that only the printer has: a printer that is simulated on this machine.
    let moved = "--printer-port=mqtt=1,chamber=2,rtsp=3,ftp=4,tunnel=5,detect=6";
    assert_eq!(own(&[moved]), Ok(()));
    assert_eq!(own(&["--bind=127.0.0.2"]), Ok(()));
    assert_eq!(with(&[]).unwrap().check_printer(), Ok(()));
}

/// Guards: a print on A1 or P1S asks for the code, because ports from 2024 on are not forwarded.
#[test]
fn the_ftp_mode_follows_from_the_model_unless_it_is_set() {
    fn relay<const N: usize>(ranges: [RangeInclusive<u16>; N]) -> FtpMode {
        FtpMode::Relay { data_ports: ranges.into_iter().collect() }
    }
    let by_default = |serial| Because::Model(Model::of_serial(serial).unwrap());
    let proxy = FtpMode::Proxy { data_ports: 2024..=2043 };
    let (small, large) = (2024..=2043, 50_000..=50_100);
    for (serial, asked, mode, because) in [
        ("01P00A1", "auto", proxy.clone(), by_default("01P")),
        ("00M00A1", "AUTO", relay([large.clone()]), by_default("00M")),
        // Relay mode would have to guess the printer's ports.
        ("99900A1", "auto", proxy.clone(), Because::UnknownModel),
        ("00M00A1", "proxy", proxy, Because::Asked),
        ("01P00A1", "relay", relay([small.clone()]), Because::Asked),
        // The ports of both families.
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
fn relayed_data_ports_are_at_most_those_that_can_be_opened() {
    let given = |ports| with(&["--ftp-mode=relay", "--ftp-data-ports", ports]);
    let FtpMode::Relay { data_ports } = given("50000-50127").unwrap().ftp.mode else { panic!() };
    assert_eq!(data_ports[..], [50_000..=50_127]);
    for ports in ["0", "50000-50128"] {
        assert_eq!(
            refused(given(ports)),
            format!(
                "invalid value {ports:?} for --ftp-data-ports: expected the printer's own ports in \
                 relay mode; FROM-TO, at most 128"
            )
        );
    }
}

#[test]
fn enable_all_goes_before_a_list_of_services() {
    for (word, enabled) in [("yes", true), ("ON", true), ("1", true), ("off", false), ("0", false)]
    {
        let env = [NEEDED[0], NEEDED[1], NEEDED[2], ("SERVICES", "ftp"), ("ENABLE_ALL", word)];
        let config = serve(&[], &env).unwrap();
        assert_eq!(config.services == Services::DEFAULT, enabled, "{word}");
    }
}

#[test]
fn short_options_may_be_run_together() {
    let config = serve(&["-vp10.0.0.9", "-a=12345678", "-s01P"], &[]).unwrap();
    assert!(config.verbose && config.code.admits(b"12345678"));
}

#[test]
fn ca_needs_no_printer() {
    for words in [&["ca", "--state-dir", "/s", "-s", "01p"][..], &["--state-dir=/s", "-s01p", "ca"]]
    {
        let Intent::PrintCa(ca) = read(words, &[]).unwrap() else { panic!() };
        let dir = ca.dir;
        assert_eq!(dir, PathBuf::from("/s"));
    }
    let file = TempFile::new("PANDAPROXY_STATE_DIR=/s");
    let words = ["ca", "--config", file.name()];
    let Intent::PrintCa(ca) = read(&words, &[]).unwrap() else { panic!() };
    let dir = ca.dir;
    assert_eq!(dir, PathBuf::from("/s"));
}

#[test]
fn options_may_stand_before_and_behind_a_command() {
    let needed = ["-p", "10.0.0.9", "-a", "12345678", "-s", SERIAL];
    for words in [[&["health"][..], &needed].concat(), [&needed[..], &["health"]].concat()] {
        let Intent::Health(config, _) = read(&words, &[]).unwrap() else { panic!() };
        assert_eq!(config.serial, SERIAL);
    }
    let config = serve(&[&["record", "--out=/o"][..], &needed].concat(), &[]).unwrap();
    assert!(config.record.is_some());
}

#[test]
fn a_system_file_is_read_where_none_is_named() {
    let file = TempFile::new("PANDAPROXY_STATE_DIR=/system\n");
    let open = |words: &[&str], env: &'static [(&str, &str)]| {
        let words: Vec<OsString> =
            core::iter::once(&"pandaproxy").chain(words).map(OsString::from).collect();
        let Ok(Typed::Args(args)) = Args::read(&words) else { panic!() };
        let environment = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let sources = Sources::open(args, &environment, Some(&file.0)).unwrap();
        state_dir(&sources).unwrap()
    };
    assert_eq!(open(&["ca"], &[]), PathBuf::from("/system"));
    assert_eq!(open(&["ca", "--state-dir=/s"], &[]), PathBuf::from("/s"));
    let other = TempFile::new("PANDAPROXY_STATE_DIR=/other\n");
    assert_eq!(open(&["ca", "--config", other.name()], &[]), PathBuf::from("/other"));
}

#[test]
fn traffic_is_recorded_only_where_it_is_asked_for() {
    let recorded = |args: &[&str], env: &[(&str, &str)]| {
        serve(args, &[&NEEDED[..], env].concat()).map(|config| config.record)
    };
    let to = |dir: &str, mib, must| Some(Recording { dir: PathBuf::from(dir), mib, must });
    assert_eq!(recorded(&[], &[]), Ok(None));
    assert_eq!(recorded(&["--record", "/r"], &[]), Ok(to("/r", 32, false)));
    assert_eq!(recorded(&[], &[("RECORD", "/r"), ("RECORD_MIB", "8")]), Ok(to("/r", 8, false)));
    assert_eq!(recorded(&["record", "--out", "/o"], &[]), Ok(to("/o", 32, true)));
    assert_eq!(recorded(&["record"], &[("RECORD", "/r")]), Ok(to("/r", 32, true)));
    let message = "record needs --out DIR: the directory of the recording";
    assert_eq!(recorded(&["record"], &[]).map_err(|error| error.to_string()), Err(message.into()));
    for mib in ["7", "65537", "many", "-8"] {
        assert!(recorded(&[], &[("RECORD_MIB", mib)]).is_err(), "{mib}");
    }
}

#[test]
fn budget_limits_help_and_version_need_no_settings() {
    assert!(matches!(read(&["--budget"], &[]), Ok(Intent::PrintBudget)));
    assert!(matches!(read(&["--limits"], &[]), Ok(Intent::PrintLimits)));
    let Ok(Intent::Print(version)) = read(&["-V"], &[]) else { panic!() };
    let expected = format!("pandaproxy {} (board {})\n", env!("PANDAPROXY_VERSION"), env!("BOARD"));
    assert_eq!(version, expected);
    for words in [&["--help"][..], &["-h"], &["help"]] {
        let Ok(Intent::Print(help)) = read(words, &NEEDED) else { panic!("{words:?}") };
        assert_eq!(help, help::program(), "{words:?}");
        assert!(!help.contains("12345678"), "{help}");
    }
    for command in &help::COMMANDS {
        for words in [["help", command.name], [command.name, "--help"]] {
            let Ok(Intent::Print(help)) = read(&words, &NEEDED) else { panic!("{words:?}") };
            assert_eq!(help, help::command(command), "{words:?}");
        }
    }
}

#[test]
fn state_is_kept_where_systemd_or_xdg_says() {
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
    let Ok(Intent::PrintCa(ca)) = read(&["ca"], &env) else { panic!() };
    let dir = ca.dir;
    assert_eq!(dir, PathBuf::from("/mine"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No message and no `Debug` repeats the access code, wherever it stands and whatever else is wrong.
    #[test]
    fn the_code_is_in_no_message_and_no_debug(
        // Any, too long, and like an option.
        code in prop_oneof!["[!-~]{8,32}", "[!-~]{33,40}", "-{1,2}[0-9a-z=]{8,30}"],
        place in 0..6usize,
        fault in 0..6usize,
    ) {
        let code_file = TempFile::new(&code);
        let file = TempFile::new(format!("ACCESS_CODE={code}\n"));
        let stray = TempFile::new(format!("{code}\n"));
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
        let text = match read(&words, &env) {
            Ok(intent) => format!("{intent:?}"),
            Err(error) => {
                prop_assert!(!error.to_string().contains('\n'));
                format!("{error} {error:?}")
            }
        };
        let escaped = format!("{code:?}");
        prop_assert!(!text.contains(&code) && !text.contains(escaped.trim_matches('"')), "{text}");
    }
}

#[test]
fn update_takes_a_file_and_one_action() {
    let update = |words: &[&str]| match read(&[&["update"], words].concat(), &[]) {
        Ok(Intent::Update(update)) => Ok((update.file, update.action)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(format!("{error}")),
    };
    for (words, action) in [
        (&["f"][..], Action::Install),
        (&["f", "--check"], Action::Check),
        (&["--verify", "f"], Action::Verify),
        (&["f", "--extract=o", "--board", "card-rpi-zero"], Action::Extract("o".into())),
    ] {
        assert_eq!(update(words), Ok(("f".into(), action)), "{words:?}");
    }
    assert_eq!(update(&["--resume"]), Ok(("".into(), Action::Resume)));
    for (words, message) in [
        (&[][..], "update needs FILE: an update file, or - for standard input"),
        (&["f", "--resume"], "update --resume takes no FILE"),
        (
            &["f", "--check", "--extract=o"],
            "--verify, --extract, --check and --resume exclude each other",
        ),
        (&["f", "--within", "0"], "--within needs a number of seconds from 1 to 900"),
        (&["f", "--within=x"], "--within needs a number of seconds from 1 to 900"),
    ] {
        assert_eq!(update(words), Err(message.into()), "{words:?}");
    }
}

#[test]
fn what_a_memory_card_tells_is_bounded() {
    let longest = "x".repeat(MAX_NOTICE);
    let config = with(&["--notice", &longest, "--machine-port", "65535"]).unwrap();
    assert_eq!(config.http.notice.as_deref(), Some(&*longest));
    assert_eq!(config.http.machine_port.map(NonZeroU16::get), Some(65535));
    for (option, value) in [("--notice", &*(longest + "x")), ("--machine-port", "0")] {
        let message = refused(with(&[option, value]));
        assert!(message.contains(&format!("for {option}: expected ")), "{message}");
    }
    // The help text has the bound as a number.
    assert!(Setting::NOTICE.expected.contains(&format!(" {MAX_NOTICE} bytes")));
}
