//! Checks that the board exists, works out the version, compresses the status page and takes over the keys for updates.
//!
//! The version comes from the git tag: `v0.1.0` gives `0.1.0`, ten commits later gives
//! `0.1.0.dev10+g766210a`. Without git, or without a tag, Cargo.toml's version stands.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=BOARD");
    println!("cargo::rerun-if-env-changed=PANDAPROXY_VERSION");
    for at in [".git/HEAD", ".git/index", ".git/refs/tags", ".git/packed-refs"] {
        if Path::new(at).exists() {
            println!("cargo::rerun-if-changed={at}");
        }
    }
    println!("cargo::rerun-if-changed=boards");

    let board = env::var("BOARD").unwrap_or_default();
    if !Path::new("boards").join(&board).join("board.rs").is_file() {
        let known: Vec<String> = std::fs::read_dir("boards")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("board.rs").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        println!(
            "cargo::error=BOARD={board:?} names no folder of boards/; known: {}",
            known.join(", ")
        );
    }

    let version = env::var("PANDAPROXY_VERSION")
        .ok()
        .filter(|given| !given.is_empty())
        .or_else(described)
        .unwrap_or_else(|| env::var("CARGO_PKG_VERSION").unwrap_or_default());
    println!("cargo::rustc-env=PANDAPROXY_VERSION={version}");

    if let Err(error) = compress("src/http/page.html") {
        println!("cargo::error=src/http/page.html: {error}");
    }
    if let Err(error) = copy_keys("boards/update.pem") {
        println!("cargo::error=boards/update.pem: {error}");
    }
}

/// Copies the publisher's keys for updates into the build's folder: an empty file where there are none.
fn copy_keys(path: &str) -> std::io::Result<()> {
    let keys = if Path::new(path).exists() { std::fs::read(path)? } else { Vec::new() };
    let folder = env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&folder).join("update.pem"), keys)
}

/// Writes a file into the build's folder, in the form of `Content-Encoding: deflate`: a third of its size.
fn compress(path: &str) -> std::io::Result<()> {
    println!("cargo::rerun-if-changed={path}");
    let small = miniz_oxide::deflate::compress_to_vec_zlib(&std::fs::read(path)?, 10);
    let name = Path::new(path).file_name().unwrap_or_default();
    let folder = env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&folder).join(name).with_extension("html.deflate"), small)
}

/// What `git describe` makes of this checkout, in the form of this project.
fn described() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--tags", "--long", "--match", "v[0-9]*"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (rest, hash) = text.trim().rsplit_once('-')?;
    let (tag, ahead) = rest.rsplit_once('-')?;
    let tag = tag.strip_prefix('v')?;
    Some(if ahead == "0" { tag.to_owned() } else { format!("{tag}.dev{ahead}+{hash}") })
}
