//! Update files that are good, and every way in which one is not.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::cmp::Ordering;
use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::failure::Failure;
use super::header::{Content, Header, MAX_HEADER, MAX_SIZE};
use super::install::{Marker, keep, resume_at};
use super::keys::{Fingerprint, Keys, MAX_KEYS, MAX_REVOKED};
use super::refusal::{BadKeys, Refusal};
use super::services::{ANSWER_TIMEOUT, run};
use super::source::beside;
use super::version::{Step, compare, step};
use super::{extract, read_keys, verify};
use crate::config::{Action, Update};
use crate::state_dir::Cause;
use crate::state_dir::scratch::Scratch;

const CONTENT: &[u8] = b"a program";

/// The publisher's key pair number `seed`.
fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// The DER of its public key.
fn der(seed: u8) -> Vec<u8> {
    let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    der.extend(pair(seed).public_key().as_ref());
    der
}

/// Its public key as `openssl pkey -pubout` writes it.
fn pem(seed: u8) -> String {
    let base64 = STANDARD.encode(der(seed));
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

fn fingerprint(seed: u8) -> Fingerprint {
    Fingerprint(digest(&SHA256, &der(seed)).as_ref().try_into().unwrap())
}

fn keys() -> Keys {
    Keys::parse(&pem(1)).unwrap()
}

/// The lines before the signature.
fn lines(board: &str, version: &str, content: &[u8]) -> String {
    let hash = Fingerprint(digest(&SHA256, content).as_ref().try_into().unwrap());
    let size = content.len();
    format!("pandaproxy-update 1\nboard {board}\nversion {version}\nsize {size}\nsha256 {hash}\n")
}

/// These lines with a signature by key `seed`.
fn signed(seed: u8, lines: &str) -> String {
    let signature = STANDARD.encode(pair(seed).sign(lines.as_bytes()));
    format!("{lines}signature {signature}\n\n")
}

/// A whole file.
fn file() -> Vec<u8> {
    let mut file = signed(1, &lines("rpi-zero", "0.2.0", CONTENT)).into_bytes();
    file.extend(CONTENT);
    file
}

fn parse(text: &str) -> Result<Option<(Header, usize)>, Refusal> {
    Header::parse(text.as_bytes(), &keys())
}

/// What came of a header that is complete.
fn refusal(text: &str) -> Refusal {
    parse(text).unwrap_err()
}

/// The file is verified as a whole.
fn whole(bytes: &[u8]) -> Result<Header, Refusal> {
    let (header, len) = Header::parse(bytes, &keys())?.ok_or(Refusal::HeaderTruncated)?;
    let mut content = Content::new(&header);
    for piece in bytes[len..].chunks(4) {
        content.take(piece)?;
    }
    content.finish().map(|()| header)
}

#[test]
fn a_signed_file_is_read() {
    let header = whole(&file()).unwrap();
    assert_eq!((&*header.board, &*header.version, header.size), ("rpi-zero", "0.2.0", 9));
    assert_eq!(header.signer, fingerprint(1));
    assert_eq!(header.check_board("rpi-zero"), Ok(()));
    let shown = header.to_string();
    assert!(shown.starts_with("board rpi-zero\nversion 0.2.0\nsize 9\nsha256 "), "{shown}");
}

#[test]
fn a_header_in_pieces_is_read_when_it_is_whole() {
    let file = file();
    let whole = Header::parse(&file, &keys()).unwrap().unwrap();
    for end in 0..whole.1 {
        assert_eq!(Header::parse(&file[..end], &keys()), Ok(None), "{end}");
    }
    assert_eq!(Header::parse(&file[..whole.1], &keys()), Ok(Some(whole)));
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let file = file();
    for at in 0..file.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= bit;
            assert!(whole(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let of_other = signed(2, &lines("rpi-zero", "0.2.0", CONTENT));
    assert_eq!(refusal(&of_other), Refusal::Signature);
    let without = format!("{}\n", lines("rpi-zero", "0.2.0", CONTENT));
    assert_eq!(refusal(&without), Refusal::Line(6, "signature BASE64"));
    let short = STANDARD.encode([0; 63]);
    let short = format!("{}signature {short}\n\n", lines("rpi-zero", "0.2.0", CONTENT));
    assert_eq!(refusal(&short), Refusal::Line(6, "signature BASE64"));
}

#[test]
fn keys_are_replaced_and_revoked() {
    let header = signed(2, &lines("rpi-zero", "0.2.0", CONTENT));
    let header = header.as_bytes();
    let both = format!("# both of 2026\n{}\n{}", pem(1), pem(2).replace('\n', "\r\n"));
    let found = Header::parse(header, &Keys::parse(&both).unwrap()).unwrap().unwrap();
    assert_eq!(found.0.signer, fingerprint(2));
    let revoked = Keys::parse(&format!("{both}\nrevoked {}\n", fingerprint(2))).unwrap();
    assert_eq!(Header::parse(header, &revoked), Err(Refusal::Revoked(fingerprint(2))));
    let of_first = signed(1, &lines("rpi-zero", "0.2.0", CONTENT));
    assert!(Header::parse(of_first.as_bytes(), &revoked).is_ok());
}

#[test]
fn a_file_of_keys_that_is_malformed_is_refused() {
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let unended = pem(1).replace("-----END PUBLIC KEY-----", "");
    let x25519 = STANDARD.encode([0; 44]);
    let x25519 = format!("-----BEGIN PUBLIC KEY-----\n{x25519}\n-----END PUBLIC KEY-----\n");
    let rsa = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
        "A".repeat(64),
        "A".repeat(64)
    );
    let many = pem(1).repeat(MAX_KEYS + 1);
    let revoked = format!("revoked {}\n", fingerprint(1)).repeat(MAX_REVOKED + 1);
    for (text, expected) in [
        ("", BadKeys::Empty),
        ("# none\n", BadKeys::Empty),
        (&unended, BadKeys::Empty),
        ("ssh-ed25519 AAAA\n", BadKeys::Line(1)),
        ("revoked abc\n", BadKeys::Line(1)),
        (&format!("revoked {}\n", "A5".repeat(32)), BadKeys::Line(1)),
        (private, BadKeys::NotPublic(1)),
        (&x25519, BadKeys::NotEd25519(3)),
        (&rsa, BadKeys::NotEd25519(2)),
        (&many, BadKeys::TooMany(27)),
        (&revoked, BadKeys::TooMany(65)),
    ] {
        assert_eq!(Keys::parse(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn a_header_of_another_form_is_refused() {
    let good = lines("rpi-zero", "0.2.0", CONTENT);
    let crlf = signed(1, &good).replace('\n', "\r\n");
    let later = good.replace("update 1", "update 2");
    let without_size: String = good
        .lines()
        .filter(|line| !line.starts_with("size"))
        .map(|line| format!("{line}\n"))
        .collect();
    let twice = good.replace("version 0.2.0\n", "version 0.2.0\nversion 0.3.0\n");
    let long = format!("{good}signature {}", "A".repeat(MAX_HEADER));
    let (size, version, board) = (
        Refusal::Line(4, "size BYTES"),
        Refusal::Line(3, "version VERSION"),
        Refusal::Line(2, "board BOARD"),
    );
    let sized = |size: &str| signed(1, &good.replace("size 9", &format!("size {size}")));
    let more = signed(1, &good).replace("\n\n", "\nmore 1\n\n");
    for (text, expected) in [
        ("\x7fELF", Refusal::NotAnUpdate),
        (" pandaproxy-update 1", Refusal::NotAnUpdate),
        (&signed(1, &later), Refusal::Format),
        (&crlf, Refusal::CarriageReturn),
        (&signed(1, &good.replace("0.2.0\n", "0.2.0\r\n")), Refusal::CarriageReturn),
        (&signed(1, &without_size), size.clone()),
        (&signed(1, &twice), size.clone()),
        (&long, Refusal::HeaderTooLong),
        (&sized("0"), size.clone()),
        (&sized("09"), size.clone()),
        (&sized("+9"), size.clone()),
        (&sized("-9"), size.clone()),
        (&sized(&(MAX_SIZE + 1).to_string()), size.clone()),
        (&sized("99999999999999999999"), size),
        (&signed(1, &good.replace("0.2.0", "0.2 0")), version.clone()),
        (&signed(1, &good.replace("0.2.0", "")), version.clone()),
        (&signed(1, &good.replace("0.2.0", &"1".repeat(65))), version),
        (&signed(1, &good.replace("rpi-zero", "../rpi")), board.clone()),
        (&signed(1, &good.replace("rpi-zero", &"b".repeat(33))), board),
        (&more, Refusal::Line(7, "(empty)")),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn content_of_another_length_or_hash_is_refused() {
    let mut file = file();
    let last = file.pop().unwrap();
    assert_eq!(whole(&file), Err(Refusal::Truncated { got: 8, size: 9 }));
    file.push(last + 1);
    assert_eq!(whole(&file), Err(Refusal::Hash));
    file.pop();
    file.extend([last, b'\n']);
    assert_eq!(whole(&file), Err(Refusal::Longer(9)));
}

#[test]
fn a_file_for_another_board_is_refused() {
    let header = whole(&file()).unwrap();
    for other in ["rpi-zero-2w", "rpi", "", "card-rpi-zero"] {
        let refusal = header.check_board(other).unwrap_err();
        assert!(refusal.to_string().starts_with(&format!("for board rpi-zero, not {other}")));
    }
}

#[test]
fn an_earlier_version_is_installed_only_if_allowed() {
    let header = whole(&file()).unwrap();
    assert_eq!(step(&header, "0.1.9", false), Ok(Step::Change));
    assert_eq!(step(&header, "0.2.0", false), Ok(Step::Nothing));
    assert_eq!(step(&header, "0.2.0", true), Ok(Step::Nothing));
    let downgrade = step(&header, "0.2.0.dev1+gabc", false).unwrap_err();
    assert!(matches!(downgrade, Refusal::Downgrade { .. }));
    let unknown = step(&header, "nightly", false).unwrap_err();
    assert!(matches!(unknown, Refusal::NotOrdered { .. }));
    for from in ["0.2.0.dev1+gabc", "nightly", "1.0"] {
        assert_eq!(step(&header, from, true), Ok(Step::Change), "{from}");
    }
}

#[test]
fn versions_are_compared_by_number() {
    use Ordering::{Equal, Greater, Less};
    for (a, b, order) in [
        ("0.2.0", "0.1.9", Some(Greater)),
        ("0.10.0", "0.9.0", Some(Greater)),
        ("v1.0", "1.0.0", Some(Equal)),
        ("1.0", "1.0.1", Some(Less)),
        ("0.1.0.dev10+g766210a", "0.1.0", Some(Greater)),
        ("0.1.0.dev10+g766210a", "0.1.0.dev9+gffffff1", Some(Greater)),
        ("0.1.0.dev10+g766210a", "0.1.1", Some(Less)),
        ("0.1.0.dev1+ga", "0.1.0.dev1+gb", Some(Equal)),
        ("nightly", "0.1.0", None),
        ("0.1.0-rc1", "0.1.0", None),
        ("1.-1", "1.0", None),
        ("", "1", None),
        ("4294967296", "1", None),
    ] {
        assert_eq!(compare(a, b), order, "{a} {b}");
        assert_eq!(compare(b, a), order.map(Ordering::reverse), "{b} {a}");
    }
}

/// An update of the file that a test has written.
fn asked(dir: &Scratch, board: &str) -> Update {
    let (file, key) = (dir.join("it.update"), Some(dir.join("update.pem")));
    fs::write(dir.join("update.pem"), pem(1)).unwrap();
    let (board, action) = (Some(board.into()), Action::Verify);
    let within = Duration::from_secs(60);
    Update { file, action, key, board, allows_downgrade: false, within }
}

#[test]
fn verified_content_is_written_whole_or_not_at_all() {
    let dir = Scratch::new("update");
    let asked = asked(&dir, "rpi-zero");
    let (out, new) = (dir.join("out"), beside(&dir.join("out"), ".new"));
    // Larger than what is read at a time, and more than a multiple of it.
    let content: Vec<u8> = (0..100_003_u32).map(|n| n as u8).collect();
    let mut file = signed(1, &lines("rpi-zero", "0.2.0", &content)).into_bytes();
    file.extend(&content);
    fs::write(&asked.file, &file[..file.len() - 1]).unwrap();
    fs::write(&out, "before").unwrap();
    fs::write(&new, "another program's file").unwrap();
    let files = || fs::read_dir(&*dir).unwrap().count();
    let before = files();
    let truncated = Refusal::Truncated { got: 100_002, size: 100_003 };
    assert_eq!(verify(&asked), Err(truncated.clone().into()));
    assert_eq!(extract(&asked, &out), Err(truncated.into()));
    assert_eq!(fs::read(&out).unwrap(), b"before");
    assert_eq!(files(), before, "the part is removed");
    fs::write(&asked.file, &file).unwrap();
    assert_eq!(verify(&asked), extract(&asked, &out));
    assert_eq!(fs::read(&out).unwrap(), content);
    assert_eq!(files(), before);
    assert_eq!(fs::read(&new).unwrap(), b"another program's file");
    // Names that are taken, by a process of the same number.
    let taken = |number: u32| beside(&out, &format!(".{}-{number}.new", std::process::id()));
    for number in 0..=1 {
        symlink(&new, taken(number)).unwrap();
    }
    assert!(extract(&asked, &out).is_ok() && !taken(2).exists());
    assert_eq!(fs::read(&new).unwrap(), b"another program's file");
}

#[test]
fn what_cannot_be_read_or_replaced_is_named() {
    let dir = Scratch::new("update");
    let mut asked = asked(&dir, "rpi-zero");
    let missing = verify(&asked).unwrap_err();
    assert!(matches!(missing, Failure::Io { doing: "read", cause: Cause::Missing, .. }));
    fs::write(&asked.file, file()).unwrap();
    assert_eq!(extract(&asked, &dir), Err(Failure::NotAFile(dir.to_path_buf())));
    assert_eq!(extract(&asked, "/dev/null".as_ref()), Err(Failure::NotAFile("/dev/null".into())));
    let nowhere = extract(&asked, &dir.join("no/out")).unwrap_err();
    assert!(matches!(nowhere, Failure::Io { doing: "write", cause: Cause::Missing, .. }));
    fs::write(&asked.file, &file()[..100]).unwrap();
    assert_eq!(verify(&asked), Err(Refusal::HeaderTruncated.into()));
    fs::write(dir.join("update.pem"), vec![b'#'; 17 * 1024]).unwrap();
    assert!(matches!(verify(&asked), Err(Failure::Io { doing: "read", .. })));
    fs::write(dir.join("update.pem"), "none").unwrap();
    assert!(matches!(verify(&asked), Err(Failure::Keys(Some(_), BadKeys::Line(1)))));
    asked.board = None;
    fs::write(dir.join("update.pem"), pem(1)).unwrap();
    fs::write(&asked.file, file()).unwrap();
    assert!(matches!(verify(&asked), Err(Failure::Refused(Refusal::OtherBoard { .. }))));
}

/// Where this process may not look, it cannot know that there is none: the same for root with a link to itself.
#[test]
fn a_key_file_that_cannot_be_looked_for_is_not_absent() {
    let dir = Scratch::new("update");
    let system = dir.join("update.pem");
    symlink(&system, &system).unwrap();
    let unreadable = Failure::Io { doing: "read", path: system.clone(), cause: Cause::Link };
    assert_eq!(read_keys(None, &system, "").unwrap_err(), unreadable);
}

/// A file of keys that was put here goes before the build's, and does not bring a key back.
#[test]
fn a_key_that_the_build_revokes_is_revoked_in_every_file() {
    let dir = Scratch::new("update");
    let (system, absent) = (dir.join("update.pem"), dir.join("absent"));
    let header = signed(2, &lines("rpi-zero", "0.2.0", CONTENT));
    let of = |keys: &Keys| Header::parse(header.as_bytes(), keys).map(|found| found.is_some());
    let revoked = |seed: u8| format!("revoked {}\n", fingerprint(seed));
    let revokes = pem(1) + &revoked(2);
    for full in ["".into(), revoked(3).repeat(MAX_REVOKED)] {
        fs::write(&system, pem(2) + &full).unwrap();
        for (named, system) in [(None, &system), (Some(system.as_path()), &absent)] {
            assert_eq!(of(&read_keys(named, system, "").unwrap()), Ok(true));
            assert_eq!(of(&read_keys(named, system, &pem(1)).unwrap()), Ok(true));
            let refused = Err(Refusal::Revoked(fingerprint(2)));
            assert_eq!(of(&read_keys(named, system, &revokes).unwrap()), refused);
        }
    }
    assert_eq!(read_keys(None, &absent, "").unwrap_err(), Failure::NoKeys);
    let of_first = signed(1, &lines("rpi-zero", "0.2.0", CONTENT));
    let keys = read_keys(None, &absent, &revokes).unwrap();
    assert!(Header::parse(of_first.as_bytes(), &keys).is_ok());
}

/// The update that had locked the marker has removed it, and another one may have made its own.
#[test]
fn a_marker_that_was_removed_before_it_was_locked_is_busy() {
    let dir = Scratch::new("update");
    let path = dir.join("pandaproxy.updating");
    let file = File::create(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let taken = Marker::lock(file, path);
    assert_eq!(taken.err(), Some(Failure::Busy));
}

/// Services that start together each ask for it.
#[test]
fn an_old_program_is_put_back_by_one_process_at_a_time() {
    const AT_ONCE: usize = 4;
    let dir = Scratch::new("update");
    let bin = dir.join("pandaproxy");
    fs::write(beside(&bin, ".old"), "old").unwrap();
    for round in 0..200 {
        fs::write(dir.join("new"), "new").unwrap();
        fs::rename(dir.join("new"), &bin).unwrap();
        fs::write(beside(&bin, ".updating"), "trial\n").unwrap();
        let begin = Barrier::new(AT_ONCE);
        let resume = || {
            begin.wait();
            let done = resume_at(&bin);
            (done, fs::read(&bin).unwrap())
        };
        let ended: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(resume)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let back = |it: &Result<&str, Failure>| it.as_ref().is_ok_and(|it| it.contains("is back"));
        let by = ended.iter().filter(|(done, _)| back(done)).count();
        assert_eq!(by, 1, "round {round}: {ended:?}");
        let none = Ok("no update was interrupted");
        let is_good =
            |(done, there): &(_, Vec<u8>)| (back(done) || *done == none) && there == b"old";
        assert!(ended.iter().all(is_good), "round {round}: {ended:?}");
        assert!(!beside(&bin, ".new").exists() && !beside(&bin, ".updating").exists());
    }
}

#[test]
fn an_update_that_runs_is_not_undone() {
    let dir = Scratch::new("update");
    let [bin, marker] = ["pandaproxy", "pandaproxy.updating"].map(|name| dir.join(name));
    for (file, content) in [(&bin, "new"), (&beside(&bin, ".old"), "old"), (&marker, "trial\n")] {
        fs::write(file, content).unwrap();
    }
    let update = File::open(&marker).unwrap();
    update.lock().unwrap();
    assert_eq!(resume_at(&bin), Ok("an update is running"));
    assert_eq!(fs::read(&bin).unwrap(), b"new");
    drop(update);
    assert_eq!(resume_at(&bin), Ok("the update was interrupted; the old version is back"));
    assert_eq!(fs::read(&bin).unwrap(), b"old");
    // Ended before its trial.
    let parts = [marker, beside(&bin, ".new"), beside(&bin, ".old.new")];
    parts.iter().for_each(|part| fs::write(part, "").unwrap());
    assert_eq!(resume_at(&bin), Ok("the update was interrupted before anything was replaced"));
    assert!(parts.iter().all(|part| !part.exists()));
}

#[test]
fn an_interrupted_update_without_its_old_program_says_what_to_do() {
    let dir = Scratch::new("update");
    let bin = dir.join("pandaproxy");
    fs::write(&bin, "new").unwrap();
    fs::write(beside(&bin, ".updating"), "trial\n").unwrap();
    assert_eq!(resume_at(&bin), Err(Failure::OldMissing(bin.clone())));
    assert_eq!(fs::read(&bin).unwrap(), b"new");
}

/// The file system has no links between these two, and the copy ends with an error, as on a full disk.
#[test]
fn a_copy_that_fails_leaves_no_part() {
    let dir = Scratch::new("update");
    let old = dir.join("pandaproxy.old");
    keep(Path::new("/proc/self/mem"), &old).unwrap_err();
    assert_eq!(fs::read_dir(&*dir).unwrap().count(), 0);
}

#[test]
fn what_a_child_leaves_running_is_not_waited_for() {
    let dir = Scratch::new("update");
    let over = dir.join("over");
    let script = format!("(sleep 15; : >'{}') & echo $!", over.display());
    let ran = run(Command::new("sh").args(["-c", &script]), ANSWER_TIMEOUT).unwrap();
    assert!(!over.exists(), "it was waited for until its end");
    assert_eq!(ran.code, Some(0));
    // What the child has written is there.
    assert!(Command::new("kill").arg(&ran.text).status().unwrap().success(), "{}", ran.text);
}
