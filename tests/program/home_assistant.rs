//! The Home Assistant add-on: its options are settings, and the program reads them as Home Assistant writes them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use pandaproxy::config::{Kind, Setting};

use crate::clients::programs::{Program, Said};
use crate::clients::proxy::{self, StateDir, command};

const ADD_ON: &str = include_str!("../../boards/home-assistant/config.yaml");
const NAMES: &str = include_str!("../../boards/home-assistant/translations/en.yaml");

/// The add-on's options and their types.
fn options() -> Vec<(&'static str, &'static str)> {
    let (_, schema) = ADD_ON.split_once("\nschema:\n").unwrap();
    schema.lines().filter_map(|line| line.trim().split_once(": ")).collect()
}

/// The words of `list(a|b)`.
fn words(kind: &str) -> impl Iterator<Item = &str> {
    let list = kind.strip_prefix("list(").and_then(|list| list.split(')').next());
    list.into_iter().flat_map(|list| list.split('|'))
}

#[test]
fn each_option_of_the_add_on_is_a_setting_with_a_name() {
    assert!(options().len() > 15);
    for (option, kind) in options() {
        let setting = Setting::ALL.into_iter().find(|it| it.key.to_ascii_lowercase() == option);
        let setting = setting.unwrap_or_else(|| panic!("{option}"));
        assert_eq!(setting.required, !kind.ends_with('?'), "{option}");
        // Secrets too: of each `password` option the Supervisor sends a part of the SHA-1 to a service that looks for it in
        // breaches. Among the codes of eight digits that part leaves fewer than a hundred.
        assert!(!kind.starts_with("password"), "{option}");
        assert!(!setting.secret || kind.starts_with("str"), "{option}");
        assert_eq!(setting.kind == Kind::Flag, kind.starts_with("bool"), "{option}");
        assert!(words(kind).all(|word| setting.expected.contains(word)), "{option}");
        assert!(NAMES.contains(&format!("\n  {option}:\n    name: ")), "{option}");
    }
}

#[test]
fn the_add_on_names_the_services_that_are_on() {
    let (_, services) = ADD_ON.split_once("\n  services: ").unwrap();
    let default = format!("Default: {}.", services.lines().next().unwrap());
    assert!(NAMES.contains(&default), "{default}");
}

/// What `pandaproxy health` says with these options.
async fn health(options: &str) -> (Option<i32>, Said) {
    let dir = StateDir::new();
    let file = dir.path().join("options.json");
    fs::write(&file, options).unwrap();
    let mut health = command(["health"]);
    health.env("PANDAPROXY_CONFIG", &file).env("PANDAPROXY_STATE_DIR", dir.path());
    Program::start(&mut health).ended().await
}

#[test]
fn options_of_the_add_on_are_read_as_settings() {
    let value = |option: &str, kind: &'static str| match option {
        "printer_ip" | "bind_address" | "http_address" => "\"127.0.0.1\"",
        "access_code" => "\"12345678\"",
        "serial_number" => "\"01P00A000000001\"",
        "services" => "\"mqtt\"",
        "ports" => "\"mqtt=1\"",
        "announce" => "\"off\"",
        "ftp_data_ports" => "\"2024-2043\"",
        "view_code" | "http_token" => "\"abcdefgh\"",
        "ftp_mode" => "\"proxy\"",
        "port_6000" => "\"chamber\"",
        _ if kind.starts_with("bool") => "true",
        _ => "\"garage\"",
    };
    let lines: Vec<String> = options()
        .into_iter()
        .map(|(option, kind)| format!("  \"{option}\": {}", value(option, kind)))
        .collect();
    let options = format!("{{\n{}\n}}", lines.join(",\n"));
    proxy::run(async move {
        let (code, said) = health(&options).await;
        assert!(said.err.contains("mqtt on 127.0.0.1:1: port is closed"), "{}", said.err);
        assert_eq!(code, Some(1));
        let (code, said) = health(&options.replace("\"proxy\"", "\"fast\"")).await;
        assert!(said.err.contains("invalid value \"fast\" for FTP_MODE"), "{}", said.err);
        assert!(said.err.contains("options.json:"), "{}", said.err);
        assert_eq!(code, Some(2));
    });
}
