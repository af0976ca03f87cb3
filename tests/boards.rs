//! Each board says all that the scripts of `boards/` ask for. What its budget comes to is looked at in
//! `tests/bounds`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

/// Each folder of boards/ is whole: both files, and every setting that scripts read.
#[test]
fn every_board_has_all_that_scripts_need() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    let mut seen = 0;
    for entry in fs::read_dir(boards).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("board.rs").is_file() {
            continue;
        }
        seen += 1;
        let settings = fs::read_to_string(folder.join("board.env"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for key in [
            "TARGET",
            "RUSTFLAGS_CPU",
            "QEMU_USER",
            "QEMU_CPU",
            "QEMU_MACHINE",
            "SERVICE_MEMORY_MAX",
            "UNAME_M",
            "PLATFORM",
            "MODELS",
        ] {
            let is_set = |line: &str| line.strip_prefix(key).is_some_and(|l| l.starts_with('='));
            assert!(settings.lines().any(is_set), "{}: no {key}", folder.display());
        }
    }
    assert!(seen >= 10, "{seen} boards");
}

/// Which board `flash.sh` takes for a host: by its model, its kernel (`uname -m`), and the programs it is made of (class
/// and machine in their ELF header). "none" where no binary runs.
const HOSTS: [(&str, &str, &str, &str); 30] = [
    ("Raspberry Pi Model B Rev 2", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Model A Plus Rev 1.1", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Compute Module Rev 1.0", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Zero Rev 1.3", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi Zero W Rev 1.1", "armv6l", ARM, "rpi-zero"),
    ("Raspberry Pi 2 Model B Rev 1.1", "armv7l", ARM, "rpi-2"),
    ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    ("Raspberry Pi Zero 2 Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    // 512 MB, as the Zero 2 W has.
    ("Raspberry Pi 3 Model A Plus Rev 1.0", "aarch64", AARCH64, "rpi-zero-2w"),
    ("Raspberry Pi 3 Model B Rev 1.2", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi 3 Model B Plus Rev 1.3", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "aarch64", AARCH64, "rpi-3"),
    ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi 400 Rev 1.0", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi Compute Module 4 Rev 1.1", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi Compute Module 4S Rev 1.0", "aarch64", AARCH64, "rpi-4"),
    ("Raspberry Pi 5 Model B Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    ("Raspberry Pi 500 Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    ("Raspberry Pi Compute Module 5 Rev 1.0", "aarch64", AARCH64, "rpi-5"),
    // 32-bit systems, under a 64-bit kernel and under one of 32 bits.
    ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", ARM, "generic-armv7"),
    ("Raspberry Pi Zero 2 W Rev 1.0", "armv7l", ARM, "generic-armv7"),
    ("Raspberry Pi 3 Model B Rev 1.2", "armv7l", ARM, "generic-armv7"),
    // Others' boards, and machines without a model.
    ("Raspberry Pi 2 Model B Rev 1.2", "aarch64", AARCH64, "generic-aarch64"),
    ("Orange Pi Zero2", "aarch64", AARCH64, "generic-aarch64"),
    ("LeMaker Banana Pi", "armv7l", ARM, "generic-armv7"),
    ("", "armv6l", ARM, "rpi-zero"),
    ("", "armv8l", ARM, "generic-armv7"),
    ("DS920+", "x86_64", "023e00", "generic-x86_64"),
    ("", "i686", "010300", "none"),
    ("", "armv5tel", ARM, "none"),
];
const ARM: &str = "012800";
const AARCH64: &str = "02b700";

#[test]
fn every_host_gets_the_board_of_its_model() {
    const FIND: &str = r#". boards/board.sh; while IFS=, read -r model kernel elf; do
find_boards "$model" "$kernel" "$elf"; echo "${found:-none}"; done <<<"$1""#;
    let hosts = HOSTS.map(|(model, kernel, elf, _)| format!("{model},{kernel},{elf}")).join("\n");
    let found = Command::new("bash")
        .args(["-c", FIND, "bash", &hosts])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let boards = String::from_utf8(found.stdout).unwrap();
    assert_eq!(boards.lines().count(), HOSTS.len(), "{}", String::from_utf8_lossy(&found.stderr));
    for ((model, kernel, elf, board), found) in HOSTS.iter().zip(boards.lines()) {
        assert_eq!(found, *board, "{model}, {kernel}, {elf}");
    }
}

/// Issue 14, A11: an A2L (01.01.05.00) sends pictures of 176,512 bytes. `host` is small so that tests meet
/// the limit.
#[test]
fn every_board_but_host_holds_pictures_of_320_kib() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
    for entry in fs::read_dir(boards).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(board) = fs::read_to_string(folder.join("board.rs")) else { continue };
        if folder.ends_with("host") {
            continue;
        }
        let chamber = board.split("chamber: Chamber {").nth(1).unwrap();
        let picture = chamber.split("picture: ").nth(1).unwrap();
        let kib: u32 = picture.split(" * KIB").next().unwrap().parse().unwrap();
        assert!(kib >= 320, "{}: {kib} KiB", folder.display());
    }
}

/// Issue 14, B25: the service's user could have had root give it others' files, by links in its own directory.
#[test]
fn the_installer_gives_away_no_file_behind_a_link() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if !status.contains("\nUid:\t0\t") {
        skips::cannot("changing owners needs root");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/service/install.sh");
    let script = fs::read_to_string(script).unwrap();
    let begin = script.find("own_state() {").unwrap();
    let end = begin + script[begin..].find("\n}\n").unwrap() + 2;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-{}", std::process::id()));
    let state = dir.join("state");
    fs::create_dir_all(state.join("folder")).unwrap();
    for file in ["others", "state/ca.key", "state/folder/file"] {
        fs::write(dir.join(file), "").unwrap();
    }
    fs::hard_link(dir.join("others"), state.join("hard")).unwrap();
    symlink(dir.join("others"), state.join("soft")).unwrap();
    // A group of that name is not everywhere.
    let own_state = script[begin..end].replace("$NAME:$NAME", "$NAME");
    let run = format!("set -eu; NAME=nobody STATE=\"$1\"; {own_state}\nown_state");
    let done = Command::new("sh").args(["-c", &run, "sh"]).arg(&state).status().unwrap();
    let owner = |file: &str| fs::metadata(dir.join(file)).unwrap().uid();
    let owners = ["state", "state/ca.key", "state/folder/file", "others"].map(owner);
    fs::remove_dir_all(&dir).unwrap();
    assert!(done.success());
    let nobody = owners[0];
    assert!(nobody != 0, "its directory is its own");
    assert_eq!(owners, [nobody, nobody, nobody, 0]);
}

/// A script of this repository, between these two texts.
fn part_of(script: &str, begin: &str, end: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let script = fs::read_to_string(path).unwrap();
    let at = script.find(begin).unwrap();
    let to = at + begin.len() + script[at + begin.len()..].find(end).unwrap();
    script[at..to].to_string()
}

/// A power cut behind an unsynced rename leaves an empty file on XFS, F2FS and UBIFS.
#[test]
fn the_installer_syncs_a_file_before_its_rename() {
    let functions = part_of("boards/service/install.sh", "# Replaces a file", "\nwrite_limits");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sync-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let run = format!(
        "set -eu; cd \"$1\"; CONF=/none KEPT=kept; mode() {{ echo 644; }}; echo new >from
         sync() {{ echo \"sync $*\" >>done; }}; mv() {{ echo \"mv $*\" >>done; command mv \"$@\"; }}
         {functions}\nplace from to; cat to"
    );
    let shown = Command::new("sh").args(["-c", &run, "sh"]).arg(&dir).output().unwrap();
    let done = fs::read_to_string(dir.join("done")).unwrap_or_default();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "new\n");
    assert_eq!(done, "sync to.new\nmv to.new to\n");
    // Every other rename of a file is by the same function. One of a folder comes after its files are synced.
    let all = part_of("boards/service/install.sh", "#!/bin/sh", "do_package; else");
    let renames = all.lines().filter(|line| line.contains("mv ") && line.contains(".new\""));
    let (folders, files): (Vec<_>, Vec<_>) = renames.partition(|line| line.contains("/trying.new"));
    assert_eq!((folders.len(), files.len()), (1, 1));
    let kept = part_of("boards/service/install.sh", "keep_files() {", folders[0]);
    assert!(kept.trim_end().ends_with("-type f -exec sync {} +\n    )"), "{kept}");
}

/// The package's programs are elsewhere than those of `install.sh`, on every line that names one.
#[test]
fn the_units_of_the_package_name_its_own_programs() {
    let change = part_of("boards/package.sh", "sed 's|/usr/local", " \"$unit\"");
    for unit in ["pandaproxy.service", "pandaproxy@.service"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/service").join(unit);
        let run = format!("{change} \"$1\"");
        let made = Command::new("sh").args(["-c", &run, "sh"]).arg(unit).output().unwrap();
        let made = String::from_utf8(made.stdout).unwrap();
        assert!(made.contains("ExecStart=/usr/bin/pandaproxy ") && !made.contains("/usr/local/"));
    }
}

/// dpkg runs postinst again whenever a package is not configured: with the old binary that must not end well.
#[test]
fn a_package_whose_old_binary_is_back_is_not_installed() {
    const STUBS: &str = r#"#!/bin/sh
case ${0##*/}/$* in
systemctl/*is-failed*) exit 1 ;;
systemctl/*is-active*) ! grep -q bad usr/bin/pandaproxy ;;
systemctl/list-units*) echo 'pandaproxy.service loaded active running' ;;
deb-systemd-invoke/*) echo "$*" >>restarts ;;
esac
"#;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deb-{}", std::process::id()));
    for folder in ["stubs", "usr/bin", "etc/pandaproxy", "var/lib", "run/systemd/system"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    for stub in ["systemctl", "deb-systemd-invoke", "getent", "dpkg-statoverride"] {
        program(&dir.join("stubs").join(stub), STUBS);
    }
    let binary = dir.join("usr/bin/pandaproxy");
    let script = |name: &str, words: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/package").join(name);
        let mut text = fs::read_to_string(path).unwrap();
        for folder in ["usr/bin/", "etc/", "var/lib/", "run/"] {
            text = text.replace(&format!("/{folder}"), folder);
        }
        text = text.replace("TIMEOUT=60", "TIMEOUT=1");
        program(&dir.join(name), &text);
        let run = format!("PATH=\"$PWD/stubs:$PATH\" ./{name} {words} 2>&1");
        let done = Command::new("sh").args(["-c", &run]).current_dir(&dir).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let is_old = || fs::read_to_string(&binary).unwrap().contains("old");

    program(&binary, "#!/bin/sh\n# old\n");
    assert_eq!(script("preinst", "upgrade 1.1.1 1.2.0").0, Some(0));
    program(&binary, "#!/bin/sh\n# bad\n");
    let (code, shown) = script("postinst", "configure 1.1.1");
    assert!(code == Some(1) && is_old(), "{shown}");
    for _ in 0..2 {
        let (code, shown) = script("postinst", "configure 1.1.1");
        assert!(code == Some(1) && is_old(), "{shown}");
        assert!(shown.contains("the binary is still that of version 1.1.1"), "{shown}");
    }
    // The same version once more, and the next one.
    assert_eq!(script("preinst", "upgrade 1.1.1 1.2.0").0, Some(0));
    program(&binary, "#!/bin/sh\n# good\n");
    let (code, shown) = script("postinst", "configure 1.1.1");
    assert!(code == Some(0) && !is_old(), "{shown}");
    assert!(!dir.join("var/lib/pandaproxy-upgrade").exists());

    // One is interrupted when it is unpacked, and the next is bad as well: what worked last returns.
    program(&binary, "#!/bin/sh\n# old\n");
    for version in ["1.2.1", "1.2.2"] {
        assert_eq!(script("preinst", &format!("upgrade 1.1.1 {version}")).0, Some(0));
        program(&binary, "#!/bin/sh\n# bad\n");
    }
    let (code, shown) = script("postinst", "configure 1.1.1");
    assert!(code == Some(1) && is_old(), "{shown}");
    // dpkg gives the next one up, which makes nothing of this good.
    assert_eq!(script("preinst", "upgrade 1.2.2 1.3.0").0, Some(0));
    assert_eq!(script("postinst", "abort-upgrade 1.3.0").0, Some(1));
    let (code, shown) = script("postinst", "configure 1.1.1");
    assert!(code == Some(1) && shown.contains("the binary is still that of version 1.1.1"));
    // One that is given up with nothing before it leaves nothing.
    fs::remove_dir_all(dir.join("var/lib/pandaproxy-upgrade")).unwrap();
    assert_eq!(script("preinst", "upgrade 1.1.1 1.3.0").0, Some(0));
    assert_eq!(script("postinst", "abort-upgrade 1.3.0").0, Some(0));
    assert!(!dir.join("var/lib/pandaproxy-upgrade").exists());
    fs::remove_dir_all(&dir).unwrap();
}

/// One line says which word of a command line is wrong and where help is; the help itself is for `--help`.
#[test]
fn a_script_says_what_is_wrong_without_its_help() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("boards"), root.join("tests"), root.join(".ci")];
    let mut scripts = vec![root.join("flash.sh")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if kind.is_file()
                && path.extension().map_or(path.ends_with("run"), |it| it == "sh")
            {
                scripts.push(path);
            }
        }
    }
    // Others are sourced, or run in a guest.
    scripts.retain(|script| fs::read_to_string(script).unwrap().contains("\nusage() {"));
    assert!(scripts.len() >= 25, "{} scripts", scripts.len());
    for script in scripts {
        let run = |word: &str| {
            let done = Command::new(&script).arg(word).output().unwrap();
            let [stdout, stderr] =
                [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
            (done.status.code(), stdout, stderr)
        };
        let (code, stdout, stderr) = run("--help");
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{}", script.display());
        assert!(
            stdout.starts_with("usage: ") && stdout.lines().count() > 2,
            "{}",
            script.display()
        );
        let (code, stdout, stderr) = run("--no-such-option");
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{}", script.display());
        let is_told =
            stderr.contains("--no-such-option") && stderr.ends_with("--help shows the options\n");
        assert!(is_told && stderr.lines().count() == 1, "{}: {stderr}", script.display());
    }
}

/// A program of its own writes it: the children of other tests have what is open here until their `exec`, and no file
/// that is open for writing is run ("Text file busy").
fn program(path: &Path, text: &str) {
    let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
    let done = Command::new("sh").args(["-c", write]).arg(path).arg(text).status().unwrap();
    assert!(done.success(), "{}", path.display());
}
