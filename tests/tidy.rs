//! Who may name whom, and what may stand where: the rules of the house, over its text.
//!
//! The rules are the tables below. Comments and strings do not count as naming anything, so that
//! documentation may link wherever it likes; nor does what follows `#[cfg(test)]` on a `mod`.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The parts of the crate, in rows. Imports only point right: a part may name those in later rows,
/// and none beside it in its own. What lies directly in `src/` is a part as well.
const ROWS: &[&[&str]] = &[
    &["main", "lib", "messages"],
    &["limits"],
    &["runtime"],
    &["update"],
    &["health", "check"],
    &["http"],
    &["mqtt", "chamber", "rtsp", "ftp", "bind", "ssdp", "tls", "trace"],
    &["config"],
    &["printer"],
    &["session", "service", "logger", "rejections"],
    &["memory", "auth", "journal", "state_dir"],
    &["notify", "peer", "pictures", "segment", "cause", "counts"],
    &["clock"],
    &["board"],
];

/// Who may name whom nevertheless.
const EXCEPT: &[(&str, &str, &str)] =
    &[("board", "memory", "a board is written in KiB and in shapes of frames")];

/// Crates and words that only some places may name. A place ending in `/` is a folder.
const KEPT: &[Kept] = &[
    Kept {
        names: &["tokio"],
        places: &["src/runtime/", "src/main.rs"],
        except: &[(
            "src/tls/",
            &[
                "tokio::io::AsyncRead",
                "tokio::io::AsyncBufRead",
                "tokio::io::AsyncWrite",
                "tokio::io::ReadBuf",
            ],
        )],
        rule: "only src/runtime knows tokio; src/tls may name tokio::io's traits and ReadBuf, by \
               their full path",
    },
    Kept {
        names: &["rustls", "tokio_rustls", "rcgen", "x509_parser", "rsa"],
        places: &["src/tls/"],
        except: &[],
        rule: "only src/tls knows rustls and certificates",
    },
    Kept {
        names: &["clap"],
        places: &["src/config/"],
        except: &[],
        rule: "only src/config knows clap",
    },
];

/// Modules of the runtime that a folder or file may not name: the composition root starts the services, the services
/// use the transfers, and nothing leads back.
const NOT_NAMED: &[(&str, &[&str], &str)] = &[
    (
        "src/runtime/files/",
        &["launch", "root", "services"],
        "runtime/files knows neither the composition root nor the services",
    ),
    ("src/runtime/services/", &["launch"], "services know runtime::root, not runtime::launch"),
    ("src/runtime/root.rs", &["launch", "services"], "runtime::root knows no service by name"),
    (
        "src/runtime/service.rs",
        &["launch", "services"],
        "runtime::service knows no service by name",
    ),
];

/// Where `unsafe` may be written.
const UNSAFE: &str = "src/memory/heap.rs";

/// Names that say nothing about what is inside.
const GRAB_BAGS: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"];

/// Words that put something off.
const PUT_OFF: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

struct Kept {
    names: &'static [&'static str],
    places: &'static [&'static str],
    /// Places that may name these paths, written out in full, and nothing else.
    except: &'static [(&'static str, &'static [&'static str])],
    rule: &'static str,
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["boards", "src", "tests"] {
        collect(root, Path::new(folder), &mut files);
    }
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "found {} files", files.len());
    let found: Vec<String> = files.iter().flat_map(File::complaints).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Reads every Rust file below `folder`, `target` folders apart.
fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| folder.join(entry.unwrap().file_name())).collect();
    paths.sort();
    for path in paths {
        if root.join(&path).is_dir() {
            if !path.ends_with("target") {
                collect(root, &path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            files.push(File::new(path.to_str().unwrap(), &text));
        }
    }
}

struct File {
    /// Below the top level, with `/`.
    path: String,
    text: String,
    /// `text` with blanks for comments and strings, so that lines and columns agree.
    code: String,
    /// The part of `code` that goes into the program.
    shipped: usize,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let code = without_comments_and_strings(text);
        let shipped = if is_test_code(path) { 0 } else { before_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    fn complaints(&self) -> Vec<String> {
        let mut found = BTreeSet::new();
        let mut complain = |at: usize, rule: &str| {
            let line = self.text[..at].matches('\n').count() + 1;
            found.insert((line, format!("{}:{line}: {rule}", self.path)));
        };

        for part in self.path.split('/') {
            if GRAB_BAGS.contains(&part.trim_end_matches(".rs")) {
                complain(0, &format!("`{part}` does not say what is inside"));
            }
        }
        if !self.path.starts_with("boards/") && !self.text.starts_with("//!") {
            complain(0, "a file begins with `//!`: what it is for, and what it promises");
        }
        for word in PUT_OFF {
            for at in words(&self.text, word) {
                complain(
                    at,
                    &format!("`{word}`: what is put off is not done; do it or leave it out"),
                );
            }
        }
        if self.path != UNSAFE {
            for at in words(&self.code, "unsafe") {
                complain(at, &format!("`unsafe` stands in {UNSAFE} and nowhere else"));
            }
        }
        if self.path.starts_with("tests/printer/") {
            for (at, _) in paths(&self.code, "pandaproxy") {
                complain(at, "the simulated printer shares nothing with what it tests");
            }
        }
        if self.path.starts_with("src/") {
            self.check_imports(&mut complain);
            self.check_kept(&mut complain);
            self.check_not_named(&mut complain);
        }
        found.into_iter().map(|(_, complaint)| complaint).collect()
    }

    fn check_imports(&self, complain: &mut impl FnMut(usize, &str)) {
        let own = self.part();
        let Some(row) = row_of(own) else {
            return complain(0, &format!("`{own}` has no place in the ROWS of tests/tidy.rs"));
        };
        for (at, name) in self.crate_names() {
            if self.path.ends_with("/wire.rs") || self.path.contains("/wire/") {
                complain(at, &format!("`wire` sees nothing of the crate, and names {name}"));
            }
            let Some(other) = row_of(name) else {
                complain(at, &format!("`{name}` has no place in the ROWS of tests/tidy.rs"));
                continue;
            };
            let excepted = EXCEPT.iter().any(|(from, to, _)| (*from, *to) == (own, name));
            if own != name && other <= row && !excepted {
                let rule = if other == row {
                    "parts of one row never see each other"
                } else {
                    "imports only point right"
                };
                complain(at, &format!("{own} names {name}: {rule}"));
            }
        }
    }

    fn check_not_named(&self, complain: &mut impl FnMut(usize, &str)) {
        for (place, modules, rule) in NOT_NAMED {
            if is_in(&self.path, place) {
                for at in modules.iter().flat_map(|module| module_names(self.shipped(), module)) {
                    complain(at, rule);
                }
            }
        }
    }

    fn check_kept(&self, complain: &mut impl FnMut(usize, &str)) {
        for Kept { names, places, except, rule } in KEPT {
            if places.iter().any(|place| is_in(&self.path, place)) {
                continue;
            }
            let allowed = except.iter().filter(|(place, _)| is_in(&self.path, place));
            let allowed: Vec<&str> = allowed.flat_map(|(_, paths)| paths.iter().copied()).collect();
            for (at, path) in names.iter().flat_map(|name| paths(self.shipped(), name)) {
                if !path.iter().all(|path| allowed.contains(&path.as_str())) {
                    complain(at, rule);
                }
            }
        }
    }

    fn shipped(&self) -> &str {
        &self.code[..self.shipped]
    }

    /// The part of the crate this file belongs to.
    fn part(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// Everything of the crate's own that is named: after `crate::`, and after as many `super::`
    /// as lead up to it.
    fn crate_names(&self) -> Vec<(usize, &str)> {
        let code = self.shipped();
        let mut names = Vec::new();
        for at in words(code, "crate") {
            names.extend(listed(code, at + "crate".len()).into_iter().map(|name| (at, name)));
        }
        for at in words(code, "super") {
            let mut end = at + "super".len();
            let mut ups = 1;
            while code[end..].starts_with("::super") {
                end += "::super".len();
                ups += 1;
            }
            if ups == self.depth() && !code[..at].ends_with("super::") {
                names.extend(listed(code, end).into_iter().map(|name| (at, name)));
            }
        }
        names
    }

    /// How many `super` lead from this file to the crate.
    fn depth(&self) -> usize {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let module = below.trim_end_matches(".rs").trim_end_matches("/mod");
        if matches!(module, "main" | "lib") { 0 } else { module.split('/').count() }
    }
}

fn row_of(part: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&part))
}

fn is_in(path: &str, place: &str) -> bool {
    if place.ends_with('/') { path.starts_with(place) } else { path == place }
}

fn is_test_code(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Where the tests of a file begin, or its end. They are its last item.
fn before_tests(code: &str) -> usize {
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    let is_module = |at: &usize| {
        let after = code[at + "#[cfg(test)]".len()..].trim_start();
        // `mod tests;` is another file, and the code goes on below it.
        after.starts_with("mod ") && after.find('{') < after.find(';') && after.contains('{')
    };
    starts.into_iter().find(is_module).unwrap_or(code.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands by itself.
fn words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !text[..*at].ends_with(is_word)
            && (!word.ends_with(is_word) || !text[at + word.len()..].starts_with(is_word))
    })
}

/// The names right behind a path: `::a` gives one, `::{a::b, c}` gives `a` and `c`.
fn listed(code: &str, end: usize) -> Vec<&str> {
    let Some(rest) = code[end..].trim_start().strip_prefix("::") else { return Vec::new() };
    let rest = rest.trim_start();
    let first = |text: &'_ str| text.find(|c| !is_word(c)).unwrap_or(text.len());
    let Some(group) = rest.strip_prefix('{') else {
        // Nothing but punctuation, as in `::*`, names nothing.
        return Vec::from_iter(Some(&rest[..first(rest)]).filter(|name| !name.is_empty()));
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        if (c == ',' || c == '}') && depth == 0 {
            let item = group[start..at].trim();
            names.push(&item[..first(item)]);
            start = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Where the module `name` is named: in a path, or in a list of imports.
fn module_names<'t>(code: &'t str, name: &'t str) -> impl Iterator<Item = usize> + 't {
    words(code, name).filter(|at| {
        let before = code[..*at].trim_end();
        let after = code[at + name.len()..].trim_start();
        let in_list = before.ends_with(['{', ',']) && after.starts_with([',', '}']);
        before.ends_with("::") || after.starts_with("::") || in_list
    })
}

/// Where something of the crate `name` is named, and what: `name::a::{b, c}` gives two paths.
fn paths(code: &str, name: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in words(code, name) {
        let before = code[..at].trim_end();
        let imported = before.ends_with("use") || before.ends_with("extern crate");
        let mut end = at + name.len();
        let leads_on = code[end..].trim_start().starts_with("::");
        // `crate::tls::rustls` is not the crate of that name.
        if before.ends_with("::") && before[..before.len() - 2].ends_with(is_word)
            || !(leads_on || imported)
        {
            continue;
        }
        let mut path = name.to_owned();
        let each = loop {
            let next = listed(code, end);
            let tail = code[end..].trim_start().trim_start_matches("::").trim_start();
            match next.as_slice() {
                [] => break vec![path],
                [only] if !tail.starts_with('{') => {
                    path = format!("{path}::{only}");
                    end = code.len() - tail.len() + only.len();
                }
                group => break group.iter().map(|last| format!("{path}::{last}")).collect(),
            }
        };
        found.push((at, each));
    }
    found
}

/// Blanks in place of comments, strings and characters; line ends stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !code.ends_with(|c| is_word(c) && c != 'b' && c != 'c') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blank = |byte: u8| if byte == b'\n' { '\n' } else { ' ' };
            code.extend(rest[..skipped].bytes().map(blank));
            rest = &rest[skipped..];
        }
    }
    code
}

/// How long the comment at the front of `text` is, with those inside it.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let Some(inside) = text[1 + hashes..].strip_prefix('"') else { return 0 };
    let close = format!("\"{}", "#".repeat(hashes));
    let before = text.len() - inside.len();
    inside.find(&close).map_or(text.len(), |at| before + at + close.len())
}

/// A character between quotes; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn complaints(path: &str, text: &str) -> Vec<String> {
    File::new(path, &format!("//! A file.\n{text}")).complaints()
}

/// Every rule finds what breaks it, and says where.
#[test]
fn what_is_planted_is_found() {
    let put_off = concat!("// TO", "DO: later\n");
    for (path, text, expected) in [
        (
            "src/mqtt/hub.rs",
            "use crate::chamber::Hub;",
            "src/mqtt/hub.rs:2: mqtt names chamber: parts of one row never see each other",
        ),
        (
            "src/mqtt/hub.rs",
            "\nuse crate::{clock, runtime::Notify};",
            "src/mqtt/hub.rs:3: mqtt names runtime: imports only point right",
        ),
        (
            "src/mqtt/mod.rs",
            "fn f() { super::ftp::serve() }",
            "src/mqtt/mod.rs:2: mqtt names ftp: parts of one row never see each other",
        ),
        (
            "src/mqtt/state/merge.rs",
            "use super::super::super::ftp;",
            "src/mqtt/state/merge.rs:2: mqtt names ftp: parts of one row never see each other",
        ),
        (
            "src/session.rs",
            "use super::mqtt;",
            "src/session.rs:2: session names mqtt: imports only point right",
        ),
        (
            "src/memory/heap.rs",
            "use crate::session::Notify;",
            "src/memory/heap.rs:2: memory names session: imports only point right",
        ),
        (
            "src/ftp/wire.rs",
            "use crate::clock::Instant;",
            "src/ftp/wire.rs:2: `wire` sees nothing of the crate, and names clock",
        ),
        (
            "src/mqtt/wire/packet.rs",
            "use super::super::super::clock;",
            "src/mqtt/wire/packet.rs:2: `wire` sees nothing of the crate, and names clock",
        ),
        ("src/web.rs", "", "src/web.rs:1: `web` has no place in the ROWS of tests/tidy.rs"),
        (
            "src/mqtt/hub.rs",
            "use crate::web;",
            "src/mqtt/hub.rs:2: `web` has no place in the ROWS of tests/tidy.rs",
        ),
        ("src/mqtt/hub.rs", "use tokio::time;", "src/mqtt/hub.rs:2: only src/runtime knows tokio"),
        ("src/mqtt/hub.rs", "use tokio;", "src/mqtt/hub.rs:2: only src/runtime knows tokio"),
        (
            "src/tls/mod.rs",
            "use tokio::net::TcpStream;",
            "src/tls/mod.rs:2: only src/runtime knows tokio",
        ),
        (
            "src/tls/mod.rs",
            "use tokio::io::{AsyncRead, copy};",
            "src/tls/mod.rs:2: only src/runtime knows tokio",
        ),
        (
            "src/tls/mod.rs",
            "use tokio::{io::AsyncRead, net};",
            "src/tls/mod.rs:2: only src/runtime knows tokio",
        ),
        (
            "src/runtime/dial.rs",
            "use rustls::ClientConfig;",
            "src/runtime/dial.rs:2: only src/tls knows rustls",
        ),
        ("src/auth.rs", "fn f() { ::rsa::make() }", "src/auth.rs:2: only src/tls knows rustls"),
        ("src/main.rs", "use clap::Parser;", "src/main.rs:2: only src/config knows clap"),
        (
            "src/auth.rs",
            "fn f() { unsafe { g() } }",
            "src/auth.rs:2: `unsafe` stands in src/memory/heap.rs",
        ),
        (
            "tests/bounds.rs",
            "unsafe extern {}",
            "tests/bounds.rs:2: `unsafe` stands in src/memory/heap.rs",
        ),
        ("src/mqtt/util.rs", "", "src/mqtt/util.rs:1: `util.rs` does not say what is inside"),
        ("tests/common/mod.rs", "", "tests/common/mod.rs:1: `common` does not say what is inside"),
        ("src/auth.rs", put_off, "src/auth.rs:2: `TO"),
        ("tests/lan/mod.rs", concat!("fn f() { to", "do!() }"), "tests/lan/mod.rs:2: `to"),
        (
            "tests/printer/main.rs",
            "use pandaproxy::clock;",
            "tests/printer/main.rs:2: the simulated printer shares nothing",
        ),
        (
            "src/runtime/files/relay.rs",
            "use crate::runtime::launch::Root;",
            "src/runtime/files/relay.rs:2: runtime/files knows neither",
        ),
        (
            "src/runtime/files/mod.rs",
            "use super::{net::Net, services};",
            "src/runtime/files/mod.rs:2: runtime/files knows neither",
        ),
        (
            "src/runtime/services/ftp.rs",
            "use crate::{runtime::{launch::Root, net::Net}};",
            "src/runtime/services/ftp.rs:2: services know runtime::root",
        ),
        (
            "src/runtime/root.rs",
            "use super::services::mqtt;",
            "src/runtime/root.rs:2: runtime::root knows no service",
        ),
        (
            "src/config.rs",
            "#[cfg(test)]\nmod tests;\nuse crate::mqtt;",
            "src/config.rs:4: config names mqtt",
        ),
    ] {
        let found = complaints(path, text);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{text}: {found:#?}");
    }
    let bare = File::new("src/auth.rs", "use core::fmt;").complaints();
    assert_eq!(
        bare,
        ["src/auth.rs:1: a file begins with `//!`: what it is for, and what it promises"]
    );
}

/// No rule finds anything in what looks like a breach and is none.
#[test]
fn what_only_looks_planted_is_left_alone() {
    for (path, text) in [
        ("src/mqtt/hub.rs", "use crate::{clock::Instant, memory::{pool, ring}, session::Notify};"),
        (
            "src/mqtt/hub.rs",
            "//! [`drive`](crate::runtime::drive)\n/* crate::ftp /* */ crate::ftp */",
        ),
        (
            "src/mqtt/hub.rs",
            "const A: &str = \"crate::ftp \\\" unsafe\"; const B: &str = r#\"\" tokio::\"#;",
        ),
        (
            "src/mqtt/hub.rs",
            "fn f<'a>(c: char, x: &'a str) { c == '\"' || c == '\\'' } use crate::clock; // \"",
        ),
        ("src/mqtt/hub.rs", "use super::client; use super::super::session;"),
        ("src/mqtt/wire.rs", "use core::fmt; use self::flags::A;"),
        (
            "src/mqtt/wire.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n use super::*; use crate::ftp; use tokio::time;\n}",
        ),
        ("src/mqtt/tests.rs", "use crate::runtime; use tokio::time;"),
        ("src/board.rs", "use crate::memory::pool::Shape;"),
        ("src/runtime/mod.rs", "use crate::{mqtt, tls}; use tokio::net::TcpListener;"),
        ("src/runtime/files/relay.rs", "fn f(services: usize, root: u8) { g(services, root) }"),
        ("src/runtime/services/ftp.rs", "use crate::runtime::root::Root;"),
        (
            "src/tls/mod.rs",
            "use tokio::io::{AsyncRead, AsyncWrite, ReadBuf}; use tokio_rustls::Accept;",
        ),
        ("src/tls/mod.rs", "impl tokio::io::AsyncRead for S {}"),
        ("src/main.rs", "#[tokio::main]\nasync fn main() { pandaproxy::runtime::serve() }"),
        ("src/runtime/mod.rs", "let rustls = crate::tls::rustls(); let rsa = rustls;"),
        ("src/memory/heap.rs", "unsafe impl Sync for H {}"),
        ("src/lib.rs", "pub mod auth;\npub mod mqtt;"),
        (
            "src/journal.rs",
            "#![allow(unsafe_code)] macro_rules! a { () => { $crate::clock::x() } }",
        ),
        ("tests/printer/main.rs", "const NAME: &str = \"pandaproxy::x\";"),
    ] {
        assert_eq!(complaints(path, text), Vec::<String>::new(), "{text}");
    }
    assert!(File::new("boards/host/board.rs", "// The default.\nBoard {}").complaints().is_empty());
}
