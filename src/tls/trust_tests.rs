//! Verification of certificates made by openssl, each with one fault.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::SystemTime;

use core::time::Duration;
use proptest::prelude::*;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authorities::{Authority, BAMBU_LAB};
use super::certificate::{Facts, parse};
use super::chain::{self, FLOOR, Verdict};
use super::issuers::{self, IssuersError};
use super::refusal::{Name, Refusal};
use super::trust::Basis;
use super::trust::{MAX_GIVEN, Policy, Trust, TrustError};
use crate::state_dir::Pins;
use crate::state_dir::pins::fingerprint;
use crate::state_dir::scratch::Scratch;

/// An H2D: its authority is not built in.
const SERIAL: &str = "09400C123456789";
const CA: &str = "basicConstraints=critical,CA:TRUE";
const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n";
const IDS: &str = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is needed to test what certificates are accepted");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(output.stdout)
}

fn key(arguments: &[&str]) -> String {
    let mut all = vec!["genpkey"];
    all.extend(arguments);
    String::from_utf8(openssl(&all, b"").unwrap()).unwrap()
}

fn rsa(bits: &str) -> String {
    key(&["-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")])
}

fn ec() -> String {
    key(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
}

/// A key and a certificate.
#[derive(Clone)]
struct Party {
    key: String,
    pem: String,
}

impl Party {
    fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap().to_vec()
    }

    fn sent(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.der())
    }

    fn authority(&self) -> Authority {
        Authority::of(&parse(&self.der()).unwrap()).unwrap()
    }

    /// Certifies `subject`'s `key`; v1 without `extensions`. `None` if openssl rejects the options.
    fn try_sign(&self, key: &str, subject: &str, extensions: &str, digest: &str) -> Option<Self> {
        let dir = Scratch::new("sign");
        let file = |name: &str, text: &str| {
            fs::write(dir.join(name), text).unwrap();
            dir.join(name).to_str().unwrap().to_owned()
        };
        let of = file("of.key", key);
        let request = openssl(&["req", "-new", "-key", &of, "-subj", subject], b"")?;
        let (ca, by) = (file("ca.pem", &self.pem), file("ca.key", &self.key));
        let with = file("with.cnf", extensions);
        let mut arguments = vec!["x509", "-req", "-CA", &ca, "-CAkey", &by, "-days", "36500"];
        arguments.extend(["-set_serial", "4711", digest]);
        if !extensions.is_empty() {
            arguments.extend(["-extfile", &with]);
        }
        let pem = String::from_utf8(openssl(&arguments, &request)?).unwrap();
        Some(Self { key: key.to_owned(), pem })
    }

    fn sign(&self, key: &str, subject: &str, extensions: &str) -> Self {
        self.try_sign(key, subject, extensions, "-sha256").unwrap()
    }

    fn root(key: &str, name: &str, extension: &str) -> Self {
        let dir = Scratch::new("root");
        fs::write(dir.join("key"), key).unwrap();
        fs::write(dir.join("cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
        let subject = format!("/C=CN/O=Test/CN={name}");
        let (of, config) = (dir.join("key"), dir.join("cnf"));
        let pem = openssl(
            &[
                "req",
                "-x509",
                "-new",
                "-sha256",
                "-days",
                "36500",
                "-set_serial",
                "1",
                "-subj",
                &subject,
                "-key",
                of.to_str().unwrap(),
                "-config",
                config.to_str().unwrap(),
                "-addext",
                extension,
                "-addext",
                "subjectKeyIdentifier=hash",
            ],
            b"",
        );
        Self { key: key.to_owned(), pem: String::from_utf8(pem.unwrap()).unwrap() }
    }
}

/// Two roots, one device authority under the first, and a printer's key.
struct World {
    root: Party,
    ecc: Party,
    device: Party,
    key: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = Party::root(&rsa("2048"), "Root", CA);
    let ecc = Party::root(&ec(), "Root ECC", CA);
    let device = root.sign(&rsa("2048"), "/CN=Device", &authority(",pathlen:0"));
    World { root, ecc, device, key: rsa("2048") }
});

fn authority(more: &str) -> String {
    format!("basicConstraints=critical,CA:TRUE{more}\nkeyUsage=critical,keyCertSign,cRLSign\n{IDS}")
}

fn printer(by: &Party, extensions: &str) -> Party {
    by.sign(&WORLD.key, &format!("/CN={SERIAL}"), extensions)
}

fn v3(by: &Party) -> Party {
    printer(by, &format!("{LEAF}{IDS}"))
}

fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    (since.as_secs() as i64 + 3600).max(FLOOR)
}

const CENTURY: i64 = 101 * 366 * 24 * 3600;

fn judge_at(
    now: i64,
    known: &[&Party],
    leaf: &[u8],
    sent: &[CertificateDer<'_>],
) -> Result<Verdict, Refusal> {
    let known: Vec<Authority> = known.iter().map(|party| party.authority()).collect();
    let provider = super::provider(crate::board::Suites::AesFirst);
    let algorithms = provider.signature_verification_algorithms;
    let all = known.iter().chain(&BAMBU_LAB);
    chain::judge(leaf, sent, SERIAL, all, &algorithms, now).map(|judged| judged.verdict)
}

/// The verdict on `leaf` when the two roots are known.
fn judge(leaf: &Party, sent: &[&Party]) -> Result<Verdict, Refusal> {
    let sent: Vec<_> = sent.iter().map(|party| party.sent()).collect();
    judge_at(now(), &[&WORLD.root, &WORLD.ecc], &leaf.der(), &sent)
}

fn version(party: &Party) -> u32 {
    parse(&party.der()).unwrap().version().0 + 1
}

#[test]
fn a_v1_leaf_under_a_known_root_is_verified() {
    let leaf = printer(&WORLD.root, "");
    assert_eq!(version(&leaf), 1);
    assert_eq!(judge(&leaf, &[]), Ok(Verdict::Verified));
    assert_eq!(judge(&leaf, &[&WORLD.root]), Ok(Verdict::Verified));
}

#[test]
fn a_v3_leaf_is_verified_through_a_device_authority() {
    let leaf = v3(&WORLD.device);
    assert_eq!(version(&leaf), 3);
    assert_eq!(judge(&leaf, &[&WORLD.device]), Ok(Verdict::Verified));
    assert_eq!(judge(&leaf, &[&WORLD.root, &WORLD.device]), Ok(Verdict::Verified));
    assert_eq!(judge_at(now(), &[&WORLD.device], &leaf.der(), &[]), Ok(Verdict::Verified));
    assert_eq!(judge(&leaf, &[]), Ok(Verdict::UnknownIssuer));
    assert_eq!(judge(&leaf, &[&WORLD.root]), Ok(Verdict::UnknownIssuer));
}

#[test]
fn ecdsa_keys_and_large_rsa_keys_are_verified() {
    let elliptic = WORLD.ecc.sign(&ec(), &format!("/CN={SERIAL}"), &format!("{LEAF}{IDS}"));
    assert_eq!(judge(&elliptic, &[]), Ok(Verdict::Verified));
    assert_eq!(judge(&v3(&WORLD.ecc), &[]), Ok(Verdict::Verified));
    let large = Party::root(&rsa("4096"), "Large", CA);
    let leaf = v3(&large);
    assert_eq!(judge_at(now(), &[&large], &leaf.der(), &[]), Ok(Verdict::Verified));
}

#[test]
fn another_serial_number_is_rejected_and_named() {
    for (subject, found) in
        [("/CN=01S00C987654321", "01S00C987654321"), ("/CN=09400c123456789", "09400c123456789")]
    {
        for extensions in ["", &format!("{LEAF}{IDS}")] {
            let leaf = WORLD.root.sign(&WORLD.key, subject, extensions);
            let found = Name::of(found.as_bytes());
            assert_eq!(judge(&leaf, &[]), Err(Refusal::WrongSerial { found }));
        }
    }
}

#[test]
fn the_serial_number_has_to_be_the_only_common_name() {
    let twice = WORLD.root.sign(&WORLD.key, &format!("/CN={SERIAL}/CN={SERIAL}"), "");
    assert_eq!(judge(&twice, &[]), Err(Refusal::NotOneName));
    let none = WORLD.root.sign(&WORLD.key, &format!("/O={SERIAL}"), "");
    assert_eq!(judge(&none, &[]), Err(Refusal::NotOneName));
    let elsewhere = format!("subjectAltName=DNS:{SERIAL}\n{LEAF}");
    let elsewhere = WORLD.root.sign(&WORLD.key, "/CN=x", &elsewhere);
    assert_eq!(judge(&elsewhere, &[]), Err(Refusal::WrongSerial { found: Name::of(b"x") }));
    let longer = WORLD.root.sign(&WORLD.key, &format!("/CN={SERIAL}0"), "");
    assert!(matches!(judge(&longer, &[]), Err(Refusal::WrongSerial { .. })));
}

#[test]
fn a_known_issuer_without_its_signature_is_a_bad_signature() {
    let imitation = Party::root(&rsa("2048"), "Root", CA);
    assert_eq!(judge(&v3(&imitation), &[]), Err(Refusal::BadSignature));
    assert_eq!(judge(&v3(&imitation), &[&imitation]), Err(Refusal::BadSignature));
    assert_eq!(judge(&printer(&imitation, ""), &[]), Err(Refusal::BadSignature));
    // The same without an authority key identifier.
    assert_eq!(judge(&printer(&imitation, LEAF), &[]), Err(Refusal::BadSignature));
    let device = imitation.sign(&rsa("2048"), "/CN=Device", &authority(""));
    assert_eq!(judge(&v3(&device), &[&device]), Err(Refusal::BadSignature));
    // A genuine device authority that did not sign the printer's certificate.
    assert_eq!(judge(&v3(&device), &[&WORLD.device]), Err(Refusal::BadSignature));
    // Not even with its name and its key identifier.
    let same = format!("{CA}\nsubjectKeyIdentifier=00112233\n");
    let genuine = WORLD.root.sign(&rsa("2048"), "/CN=Device 2", &same);
    let device = imitation.sign(&rsa("2048"), "/CN=Device 2", &same);
    assert_eq!(judge(&v3(&device), &[&genuine]), Err(Refusal::BadSignature));
    assert_eq!(judge(&v3(&genuine), &[&genuine]), Ok(Verdict::Verified));
}

#[test]
fn the_key_identifier_tells_authorities_of_one_name_apart() {
    let base = WORLD.ecc.sign(&WORLD.root.key, "/CN=Twin", &authority(""));
    let other = format!("{CA}\nsubjectKeyIdentifier=00112233\n");
    let twin = WORLD.ecc.sign(&WORLD.root.key, "/CN=Twin", &other);
    let leaf = v3(&twin);
    assert_eq!(judge(&leaf, &[&twin]), Ok(Verdict::Verified));
    assert_eq!(judge(&leaf, &[&base]), Err(Refusal::BadSignature));
    assert_eq!(judge(&leaf, &[&base, &twin]), Ok(Verdict::Verified));
    assert_eq!(judge_at(now(), &[&base], &leaf.der(), &[]), Err(Refusal::BadSignature));
    assert_eq!(judge_at(now(), &[&base, &twin], &leaf.der(), &[]), Ok(Verdict::Verified));
}

#[test]
fn an_unknown_issuer_can_be_pinned_unless_one_was_sent() {
    let stranger = Party::root(&rsa("2048"), "Stranger", CA);
    assert_eq!(judge(&v3(&stranger), &[]), Ok(Verdict::UnknownIssuer));
    assert_eq!(judge(&v3(&stranger), &[&stranger]), Ok(Verdict::UnknownIssuer));
    assert_eq!(judge(&printer(&stranger, ""), &[]), Err(Refusal::UnknownIssuer));
    let device = stranger.sign(&rsa("2048"), "/CN=Device of a stranger", &authority(""));
    assert_eq!(judge(&v3(&device), &[]), Ok(Verdict::UnknownIssuer));
    assert_eq!(judge(&v3(&device), &[&device]), Err(Refusal::UnknownIssuer));
    assert_eq!(judge(&v3(&device), &[&device, &stranger]), Err(Refusal::UnknownIssuer));
}

#[test]
fn a_v1_leaf_is_not_verified_through_sent_authorities() {
    let leaf = printer(&WORLD.device, "");
    assert_eq!(judge(&leaf, &[&WORLD.device]), Err(Refusal::UnknownIssuer));
    assert_eq!(judge_at(now(), &[&WORLD.device], &leaf.der(), &[]), Ok(Verdict::Verified));
}

#[test]
fn a_sent_certificate_has_to_be_allowed_to_sign() {
    let key = rsa("2048");
    for (extensions, refusal) in [
        (format!("basicConstraints=CA:FALSE\n{IDS}"), Refusal::NotAnAuthority),
        (IDS.to_owned(), Refusal::NotAnAuthority),
        (String::new(), Refusal::NotAnAuthority),
        (format!("{CA}\nkeyUsage=critical,cRLSign\n{IDS}"), Refusal::NotAnAuthority),
        (
            format!("{CA}\nnameConstraints=critical,permitted;DNS:x\n{IDS}"),
            Refusal::CriticalExtension,
        ),
    ] {
        let between = WORLD.root.sign(&key, "/CN=Between", &extensions);
        // Its own key identifier is left out: not every one of these has one.
        let leaf = printer(&between, LEAF);
        assert_eq!(judge(&leaf, &[&between]), Err(refusal), "{extensions}");
    }
    let without_usage = WORLD.root.sign(&key, "/CN=Between", &format!("{CA}\n{IDS}"));
    assert_eq!(judge(&v3(&without_usage), &[&without_usage]), Ok(Verdict::Verified));
}

#[test]
fn two_intermediate_authorities_are_the_limit() {
    let mut chain = vec![WORLD.root.clone()];
    for number in 1..=3 {
        let by = chain.last().unwrap();
        chain.push(by.sign(&rsa("2048"), &format!("/CN=Between {number}"), &authority("")));
    }
    let [_, one, two, three] = &chain[..] else { panic!() };
    assert_eq!(judge(&v3(two), &[two, one]), Ok(Verdict::Verified));
    assert_eq!(judge(&v3(two), &[one, two]), Ok(Verdict::Verified));
    assert_eq!(judge(&v3(three), &[three, two, one]), Err(Refusal::PathTooLong));
    // A device authority that certifies another one.
    let below = WORLD.device.sign(&rsa("2048"), "/CN=Below", &authority(""));
    assert_eq!(judge(&v3(&below), &[&below, &WORLD.device]), Err(Refusal::PathTooLong));
    let known = [&WORLD.device];
    let refused = judge_at(now(), &known, &v3(&below).der(), &[below.sent()]);
    assert_eq!(refused, Err(Refusal::PathTooLong));
}

#[test]
fn an_authority_is_not_a_printer() {
    let leaf = printer(&WORLD.root, &authority(""));
    assert_eq!(judge(&leaf, &[]), Err(Refusal::NotALeaf));
    assert_eq!(judge(&WORLD.device, &[]), Err(Refusal::NotALeaf));
}

#[test]
fn unknown_extensions_are_rejected_only_if_critical() {
    let private = "1.3.6.1.4.1.1666250441.1";
    let plain = printer(&WORLD.root, &format!("{LEAF}{private}=ASN1:UTF8String:v1\n"));
    assert_eq!(judge(&plain, &[]), Ok(Verdict::Verified));
    let critical = printer(&WORLD.root, &format!("{LEAF}{private}=critical,ASN1:UTF8String:v1\n"));
    assert_eq!(judge(&critical, &[]), Err(Refusal::CriticalExtension));
    let client = printer(&WORLD.root, &format!("{LEAF}extendedKeyUsage=critical,clientAuth\n"));
    assert_eq!(judge(&client, &[]), Err(Refusal::CriticalExtension));
    let server = printer(&WORLD.root, &format!("{LEAF}extendedKeyUsage=critical,serverAuth\n"));
    assert_eq!(judge(&server, &[]), Ok(Verdict::Verified));
    let broken = printer(&WORLD.root, "basicConstraints=DER:3003010101ff\n");
    assert!(judge(&broken, &[]).is_err());
}

#[test]
fn an_unsafe_digest_is_refused() {
    let mut tried = 0;
    for digest in ["-sha1", "-md5", "-sha512"] {
        let subject = format!("/CN={SERIAL}");
        let Some(leaf) = WORLD.root.try_sign(&WORLD.key, &subject, "", digest) else {
            skips::cannot(&format!("openssl does not sign with {digest}"));
            continue;
        };
        tried += 1;
        assert_eq!(judge(&leaf, &[]), Err(Refusal::WeakSignature), "{digest}");
        // Nor is one of an unknown issuer pinned.
        let stranger = Party::root(&rsa("2048"), "Stranger", CA);
        let leaf = stranger.try_sign(&WORLD.key, &subject, LEAF, digest).unwrap();
        assert_eq!(judge(&leaf, &[]), Err(Refusal::WeakSignature), "{digest}");
    }
    assert!(tried > 0);
}

/// A signature over `message` by `key`, made by openssl with these options.
fn signature(key: &str, options: &[&str], message: &[u8]) -> Vec<u8> {
    let dir = Scratch::new("signature");
    fs::write(dir.join("key"), key).unwrap();
    let mut arguments = vec!["dgst"];
    arguments.extend(options);
    let key = dir.join("key");
    arguments.extend(["-sign", key.to_str().unwrap()]);
    openssl(&arguments, message).unwrap()
}

/// Of the scheme that a certificate or a peer names, whatever other schemes the key can be used in.
#[test]
fn a_signature_counts_only_in_the_scheme_it_is_named_for() {
    const PSS: [&str; 4] = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    let provider = super::provider(crate::board::Suites::AesFirst);
    let algorithms = provider.signature_verification_algorithms;
    let rsa = [
        (SignatureScheme::RSA_PKCS1_SHA256, vec!["-sha256"]),
        (SignatureScheme::RSA_PKCS1_SHA384, vec!["-sha384"]),
        (SignatureScheme::RSA_PKCS1_SHA512, vec!["-sha512"]),
        (SignatureScheme::RSA_PSS_SHA256, [&["-sha256"], &PSS[..]].concat()),
        (SignatureScheme::RSA_PSS_SHA512, [&["-sha512"], &PSS[..]].concat()),
    ];
    let elliptic = [
        (SignatureScheme::ECDSA_NISTP256_SHA256, vec!["-sha256"]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, vec!["-sha384"]),
    ];
    for (key, ways) in [(&WORLD.key, &rsa[..]), (&WORLD.ecc.key, &elliptic[..])] {
        let spki = openssl(&["pkey", "-pubout", "-outform", "DER"], key.as_bytes()).unwrap();
        for (made, options) in ways {
            let signed = signature(key, options, b"message");
            for (named, _) in ways {
                let is_signed = chain::is_signed(&algorithms, *named, &spki, b"message", &signed);
                assert_eq!(is_signed, named == made, "{made:?} named {named:?}");
            }
        }
    }
}

/// Both algorithm fields say SHA-256, and the signature is another one by the authority's key.
#[test]
fn a_certificate_is_verified_in_the_scheme_that_it_names() {
    let good = printer(&WORLD.root, "").der();
    let certificate = parse(&good).unwrap();
    let tbs = certificate.tbs_certificate.as_ref();
    let resigned = |options: &[&str]| {
        let signed = signature(&WORLD.root.key, options, tbs);
        let mut der = good.clone();
        let at = der.len() - signed.len();
        der[at..].copy_from_slice(&signed);
        judge_at(now(), &[&WORLD.root], &der, &[])
    };
    assert_eq!(resigned(&["-sha256"]), Ok(Verdict::Verified));
    assert_eq!(resigned(&["-sha512"]), Err(Refusal::BadSignature));
    assert_eq!(resigned(&["-sha384"]), Err(Refusal::BadSignature));
    let pss = ["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    assert_eq!(resigned(&pss), Err(Refusal::BadSignature));
}

/// RFC 5280 §4.2.1.1: an identifier helps to find the key, and one of both sides may lack it.
#[test]
fn an_authority_without_a_key_identifier_may_have_signed() {
    let plain = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
                 subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n";
    let device = WORLD.root.sign(&rsa("2048"), "/CN=Plain", plain);
    assert_eq!(device.authority().key_id, None);
    // openssl names no identifier that the issuer does not have, so this one is written out.
    let leaf = printer(&device, &format!("{LEAF}authorityKeyIdentifier=DER:30068004aabbccdd\n"));
    assert_eq!(
        Facts::of(&parse(&leaf.der()).unwrap()).unwrap().issuer_key_id,
        Some(&b"\xaa\xbb\xcc\xdd"[..])
    );
    assert_eq!(judge(&leaf, &[&device]), Ok(Verdict::Verified));
    assert_eq!(judge_at(now(), &[&device], &leaf.der(), &[]), Ok(Verdict::Verified));
    // The authority has one, and the certificate names none.
    let leaf = printer(&WORLD.device, &format!("{LEAF}authorityKeyIdentifier=none\n"));
    assert_eq!(judge(&leaf, &[&WORLD.device]), Ok(Verdict::Verified));
}

#[test]
fn dates_are_checked_unless_the_clock_is_not_set() {
    let leaf = printer(&WORLD.root, "").der();
    let at = |now| judge_at(now, &[&WORLD.root], &leaf, &[]);
    assert_eq!(at(now()), Ok(Verdict::Verified));
    assert_eq!(at(now() + CENTURY), Err(Refusal::Expired));
    assert_eq!(at(0), Ok(Verdict::VerifiedUndated));
    assert_eq!(at(FLOOR - 1), Ok(Verdict::VerifiedUndated));
    let stranger = v3(&Party::root(&ec(), "Stranger", CA)).der();
    assert_eq!(judge_at(now() + CENTURY, &[], &stranger, &[]), Err(Refusal::Expired));
    assert_eq!(judge_at(0, &[], &stranger, &[]), Ok(Verdict::UnknownIssuer));
    // The dates of a sent authority are checked too; those of a known one are not.
    let leaf = v3(&WORLD.device).der();
    let sent = [WORLD.device.sent()];
    assert_eq!(judge_at(0, &[&WORLD.root], &leaf, &sent), Ok(Verdict::VerifiedUndated));
}

#[test]
fn an_expired_leaf_is_rejected_unless_the_clock_is_not_set() {
    let dir = Scratch::new("dates");
    let file = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    // `openssl ca` takes dates in every version; `openssl x509` only in new ones.
    let base = dir.to_str().unwrap();
    let config = file(
        "cnf",
        &format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={base}/db\nserial={base}/serial\nnew_certs_dir={base}\n\
             default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
        ),
    );
    file("db", "");
    file("serial", "01\n");
    let of = file("of.key", &WORLD.key);
    let subject = format!("/CN={SERIAL}");
    let request = openssl(&["req", "-new", "-key", &of, "-subj", &subject], b"").unwrap();
    let request = file("request", str::from_utf8(&request).unwrap());
    let dated_by = |by: &Party, extensions: &str, from: &str, until: &str| {
        file("db", "");
        let (ca, by) = (file("ca.pem", &by.pem), file("ca.key", &by.key));
        let with = file("with.cnf", extensions);
        let mut arguments = vec!["ca", "-batch", "-notext", "-config", &config, "-cert", &ca];
        arguments.extend(["-keyfile", &by, "-in", &request, "-startdate", from]);
        arguments.extend(["-enddate", until]);
        if !extensions.is_empty() {
            arguments.extend(["-extfile", &with]);
        }
        let pem = openssl(&arguments, b"");
        CertificateDer::from_pem_slice(&pem.unwrap()).unwrap().to_vec()
    };
    let dated = |from: &str, until: &str| dated_by(&WORLD.root, "", from, until);
    let at = |leaf: &[u8], now| judge_at(now, &[&WORLD.root], leaf, &[]);
    // 2026-11-20 to 2026-11-30, either side of 2026-12-31 (1798675200).
    let past = dated("20261120000000Z", "20261130000000Z");
    assert_eq!(at(&past, 1_798_675_200), Err(Refusal::Expired));
    assert_eq!(at(&past, 0), Ok(Verdict::VerifiedUndated));
    // Through an authority that was sent, whose own dates are right.
    let past = dated_by(&WORLD.device, LEAF, "20261120000000Z", "20261130000000Z");
    let sent = [WORLD.device.sent()];
    let through = judge_at(1_798_675_200, &[&WORLD.root], &past, &sent);
    assert_eq!(through, Err(Refusal::Expired));
    // Over before this program was made, by a clock that stands before it, too.
    let over = dated("20260101000000Z", "20260201000000Z");
    assert_eq!(at(&over, FLOOR - 1), Ok(Verdict::VerifiedUndated));
    assert_eq!(at(&over, FLOOR), Err(Refusal::Expired));
    let future = dated("20400101000000Z", "20410101000000Z");
    assert_eq!(at(&future, 1_798_675_200), Ok(Verdict::VerifiedUndated));
    assert_eq!(at(&future, 0), Ok(Verdict::VerifiedUndated));
}

#[test]
fn no_altered_byte_goes_unnoticed() {
    for leaf in [printer(&WORLD.root, ""), v3(&WORLD.ecc)] {
        let good = leaf.der();
        for at in 0..good.len() {
            for bits in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bits;
                let known = [&WORLD.root, &WORLD.ecc];
                let outcome = judge_at(now(), &known, &bad, &[]);
                // With another issuer's name it counts as of an unknown issuer, and can be pinned.
                assert_ne!(outcome, Ok(Verdict::Verified), "byte {at}");
                assert_ne!(outcome, Ok(Verdict::VerifiedUndated), "byte {at}");
            }
        }
    }
}

#[test]
fn the_two_algorithm_fields_have_to_be_equal() {
    let good = printer(&WORLD.root, "").der();
    let sha256_with_rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let places: Vec<_> =
        (0..good.len() - 9).filter(|&at| good[at..at + 9] == sha256_with_rsa).collect();
    let [inner, outer] = places[..] else { panic!("{places:?}") };
    for at in [inner, outer] {
        let mut bad = good.clone();
        bad[at + 8] = 0x0c;
        assert_eq!(judge_at(now(), &[&WORLD.root], &bad, &[]), Err(Refusal::Malformed));
    }
}

#[test]
fn truncated_or_extended_certificates_are_malformed() {
    let good = v3(&WORLD.root).der();
    for len in 0..good.len() {
        let cut = judge_at(now(), &[&WORLD.root], &good[..len], &[]);
        assert_eq!(cut, Err(Refusal::Malformed), "{len} bytes");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(judge_at(now(), &[&WORLD.root], &longer, &[]), Err(Refusal::Malformed));
    // Inside the outermost sequence, where the parser skips bytes.
    let mut inside = good.clone();
    inside.push(5);
    inside.push(0);
    let len = u16::from_be_bytes([good[2], good[3]]) + 2;
    inside[2..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(judge_at(now(), &[&WORLD.root], &inside, &[]), Err(Refusal::Malformed));
}

#[test]
fn garbage_empty_and_oversized_input_is_rejected() {
    let leaf = v3(&WORLD.device);
    let sent = |count: usize| vec![WORLD.device.sent(); count];
    let known = [&WORLD.root];
    assert_eq!(judge_at(now(), &known, &leaf.der(), &sent(chain::MAX_SENT)), Ok(Verdict::Verified));
    assert_eq!(judge_at(now(), &known, &leaf.der(), &sent(20)), Err(Refusal::TooLong));
    assert_eq!(judge_at(now(), &known, b"", &[]), Err(Refusal::Malformed));
    assert_eq!(judge_at(now(), &known, &[0x30; 4097], &[]), Err(Refusal::TooLong));
    let garbage = [CertificateDer::from(vec![0x30, 0x80, 1, 2])];
    assert_eq!(judge_at(now(), &known, &leaf.der(), &garbage), Err(Refusal::Malformed));
    // Garbage sent beside a certificate of a known authority changes nothing.
    let leaf = printer(&WORLD.root, "");
    assert_eq!(judge_at(now(), &known, &leaf.der(), &garbage), Ok(Verdict::Verified));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_comes_is_judged(leaf: Vec<u8>, sent: Vec<Vec<u8>>) {
        let sent: Vec<_> = sent.into_iter().map(CertificateDer::from).collect();
        prop_assert!(judge_at(now(), &[], &leaf, &sent).is_err());
    }

    #[test]
    fn a_certificate_with_changes_is_judged(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| v3(&WORLD.device).der());
        let mut leaf = GOOD.clone();
        for (at, byte) in changes {
            let at = at.index(leaf.len());
            leaf[at] = byte;
        }
        if leaf != *GOOD {
            let outcome = judge_at(now(), &[&WORLD.device], &leaf, &[]);
            prop_assert!(!matches!(outcome, Ok(Verdict::Verified | Verdict::VerifiedUndated)));
        }
    }
}

/// The result for a printer that shows `leaf` and has its key.
fn accept(verifier: &super::trust::Verifier, leaf: &[u8]) -> Result<(), Refusal> {
    accept_with(verifier, leaf, &[])
}

/// The same for a printer that sends other certificates along.
fn accept_with(
    verifier: &super::trust::Verifier,
    leaf: &[u8],
    sent: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    verifier.shown(leaf, sent)?;
    verifier.proved(leaf)?;
    while !verifier.pin.is_idle() {
        std::thread::sleep(Duration::from_millis(1));
    }
    verifier.pin.settled().unwrap().map_err(Refusal::from)
}

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now() as u64)
}

#[test]
fn an_unknown_issuers_leaf_is_pinned_and_must_not_change() {
    let dir = Scratch::new("trust");
    let trust = |given: Option<&str>| {
        let given = given.map(str::as_bytes);
        super::trust::verifier(SERIAL, Policy::Verify, given, Pins::in_dir(&dir), clock).unwrap()
    };
    let stranger = Party::root(&ec(), "Stranger", CA);
    let (first, second) = (v3(&stranger), v3(&stranger));
    assert_ne!(first.pem, second.pem);
    // A rejected certificate is not pinned.
    let imitation = Party::root(&ec(), "Root", CA);
    let known = trust(Some(&WORLD.root.pem));
    assert_eq!(accept(&known, &v3(&imitation).der()), Err(Refusal::BadSignature));
    assert!(!dir.join("pins").exists());

    assert_eq!(accept(&trust(None), &first.der()), Ok(()));
    assert!(fs::read_to_string(dir.join("pins")).unwrap().starts_with(SERIAL));
    assert_eq!(accept(&trust(None), &first.der()), Ok(()));
    assert_eq!(accept(&trust(None), &second.der()), Err(Refusal::PinChanged));
    // A verified certificate is accepted whatever the pin is, and replaces it.
    assert_eq!(accept(&trust(Some(&stranger.pem)), &second.der()), Ok(()));
    assert_eq!(accept(&trust(None), &second.der()), Ok(()));
    assert_eq!(accept(&trust(None), &first.der()), Err(Refusal::PinChanged));
    assert_eq!(fs::read_to_string(dir.join("pins")).unwrap().lines().count(), 1);

    fs::write(dir.join("pins"), "rubbish").unwrap();
    assert_eq!(accept(&trust(None), &first.der()), Err(Refusal::PinsUnreadable));
}

/// A self-signed certificate must not get the access code of a printer whose authority is built in.
#[test]
fn first_use_is_for_models_without_a_known_authority() {
    for (serial, outcome) in [
        ("01P00C123456789", Err(Refusal::UnknownIssuer)),
        ("03900C123456789", Err(Refusal::UnknownIssuer)),
        ("00M00C123456789", Err(Refusal::UnknownIssuer)),
        ("09400C123456789", Ok(())),
        // A model that is not in the table.
        ("ZZZ00C123456789", Ok(())),
    ] {
        let dir = Scratch::new("trust");
        let pins = Pins::in_dir(&dir);
        let trust = super::trust::verifier(serial, Policy::Verify, None, pins, clock).unwrap();
        let stranger = Party::root(&ec(), "Stranger", CA);
        let leaf = stranger.sign(&ec(), &format!("/CN={serial}"), &format!("{LEAF}{IDS}"));
        assert_eq!(accept(&trust, &leaf.der()), outcome, "{serial}");
        assert_eq!(dir.join("pins").exists(), outcome.is_ok(), "{serial}");
    }
}

/// Any host can announce the printer at an address, so nothing is pinned there.
#[test]
fn an_announced_address_is_not_trusted_on_first_use() {
    let dir = Scratch::new("trust");
    let pins = Pins::in_dir(&dir);
    let usual = super::trust::verifier(SERIAL, Policy::Verify, None, pins, clock).unwrap();
    let strict = usual.without_first_use();
    let leaf = v3(&Party::root(&ec(), "Stranger", CA)).der();
    assert_eq!(accept(&strict, &leaf), Err(Refusal::UnknownIssuer));
    assert!(!dir.join("pins").exists());
    assert_eq!(accept(&usual, &leaf), Ok(()));
    assert_eq!(accept(&strict, &leaf), Ok(()), "it is the pinned one");
    let trust = |policy| Trust::new(SERIAL, policy, None, Pins::in_dir(&dir), clock).unwrap();
    assert!(trust(Policy::Verify).without_first_use().is_some());
    assert!(trust(Policy::Insecure).without_first_use().is_none(), "nothing is verified");
}

/// A man in the middle could present a certificate of an authority that is not known.
#[test]
fn a_verified_printer_is_not_replaced_by_an_unknown_one() {
    let dir = Scratch::new("trust");
    let given = Some(WORLD.root.pem.as_bytes());
    let trust =
        super::trust::verifier(SERIAL, Policy::Verify, given, Pins::in_dir(&dir), clock).unwrap();
    let printer = v3(&WORLD.root).der();
    let imitation = v3(&Party::root(&ec(), "Stranger", CA)).der();
    assert_eq!(accept(&trust, &printer), Ok(()));
    assert_eq!(accept(&trust, &imitation), Err(Refusal::PinChanged));
    assert_eq!(accept(&trust, &printer), Ok(()));
}

#[test]
fn nothing_is_pinned_without_proof_of_the_key() {
    let dir = Scratch::new("trust");
    let pins = Pins::in_dir(&dir);
    let trust = super::trust::verifier(SERIAL, Policy::Verify, None, pins, clock).unwrap();
    let leaf = v3(&Party::root(&ec(), "Stranger", CA)).der();
    assert_eq!(trust.verify(&leaf, &[]).map(|(basis, _)| basis), Ok(Basis::FirstUse));
    assert!(!dir.join("pins").exists());
}

#[test]
fn an_unknown_issuers_leaf_needs_a_writable_pin() {
    let dir = Scratch::new("trust");
    fs::create_dir(dir.join(".pins.new")).unwrap();
    let pins = Pins::in_dir(&dir);
    let trust = super::trust::verifier(SERIAL, Policy::Verify, None, pins, clock).unwrap();
    let leaf = v3(&Party::root(&ec(), "Stranger", CA));
    assert_eq!(accept(&trust, &leaf.der()), Err(Refusal::NotPinned));
}

#[test]
fn given_authorities_have_to_be_authorities() {
    let dir = Scratch::new("given");
    let given = |pem: &str| {
        Trust::new(SERIAL, Policy::Verify, Some(pem.as_bytes()), Pins::in_dir(&dir), clock).err()
    };
    assert_eq!(given(&WORLD.root.pem), None);
    assert_eq!(given(&format!("{}{}", WORLD.root.pem, WORLD.ecc.pem)), None);
    assert_eq!(given(""), Some(TrustError::NotPem));
    assert_eq!(given("rubbish"), Some(TrustError::NotPem));
    assert_eq!(given(&WORLD.root.key), Some(TrustError::NotPem));
    assert_eq!(given(&v3(&WORLD.root).pem), Some(TrustError::NotAnAuthority));
    assert_eq!(given(&printer(&WORLD.root, "").pem), Some(TrustError::NotAnAuthority));
    assert_eq!(given(&WORLD.root.pem.repeat(MAX_GIVEN + 1)), Some(TrustError::TooMany));
    for serial in [SERIAL, "030123456789012", "with space", ""] {
        assert!(Trust::new(serial, Policy::Verify, None, Pins::in_dir(&dir), clock).is_ok());
    }
}

/// Consistency of the built-in authorities without their certificates: names and keys parse and differ, each
/// key identifier is its key's (RFC 5280 §4.2.1.2), and a device authority is below a root that outlives it.
#[test]
fn the_built_in_authorities_are_consistent() {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Name};
    let mut seen = Vec::new();
    for one in &BAMBU_LAB {
        let (rest, name) = X509Name::from_der(&one.name).unwrap();
        assert!(rest.is_empty());
        let name = name.iter_common_name().next().unwrap().as_str().unwrap();
        assert!(name.starts_with("BBL "), "{name}");
        let (rest, key) = SubjectPublicKeyInfo::from_der(&one.key).unwrap();
        assert!(rest.is_empty(), "{name}");
        let sha1 = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
        let identifier = ring::digest::digest(sha1, &key.subject_public_key.data);
        assert_eq!(one.key_id.as_deref(), Some(identifier.as_ref()), "{name}");
        assert!(one.not_before < one.not_after, "{name}");
        seen.extend([&*one.name, &*one.key]);
        let certificate = one.certificate.unwrap();
        let of = Authority::of(&parse(certificate).unwrap()).unwrap();
        assert_eq!(Authority { certificate: Some(certificate), ..of }, *one, "{name}");

        let is_device = name.starts_with("BBL Device CA ");
        assert_eq!(one.path_len, is_device.then_some(0), "{name}");
        let is_above = |root: &Authority| {
            root.path_len.is_none()
                && root.not_before <= one.not_before
                && one.not_after <= root.not_after
        };
        assert!(BAMBU_LAB.iter().any(is_above), "{name}");
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn the_built_in_authorities_match_their_certificates() {
    let files = skips::shared("ca", ".pem", 8);
    let is_there = !files.is_empty();
    let mut seen = 0;
    for file in files {
        let pem = fs::read(&file).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let parsed = parse(&der).unwrap();
        let facts = Authority::of(&parsed).unwrap();
        if file.to_str().unwrap().contains("xsigned") {
            // Another certificate for a key that is already known.
            assert!(
                BAMBU_LAB.iter().any(|known| known.key == facts.key && known.name == facts.name)
            );
        } else {
            let is_built_in = |known: &Authority| known.certificate == Some(&*der);
            assert!(BAMBU_LAB.iter().any(is_built_in), "{}", file.display());
            seen += 1;
        }
        // Each is signed by one of them, itself included.
        let provider = super::provider(crate::board::Suites::AesFirst);
        assert!(BAMBU_LAB.iter().filter(|by| *by.name == *parsed.issuer().as_raw()).any(|by| {
            [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256]
                .into_iter()
                .any(|scheme| {
                    chain::is_signed(
                        &provider.signature_verification_algorithms,
                        scheme,
                        &by.key,
                        parsed.tbs_certificate.as_ref(),
                        &parsed.signature_value.data,
                    )
                })
        }));
    }
    assert!(!is_there || seen == BAMBU_LAB.len(), "{seen}");
}

// ---- what clients of a relay are given ------------------------------------------------------------------

/// A verifier that keeps the printer's chain in `dir`.
fn keeping(dir: &Scratch, given: Option<&Party>) -> super::trust::Verifier {
    let given = given.map(|party| party.pem.as_bytes());
    let pins = Pins::in_dir(dir).keeping_chains();
    super::trust::verifier(SERIAL, Policy::Verify, given, pins, clock).unwrap()
}

/// The SHA-256 of what `pandaproxy ca` prints of the one printer in `dir`.
fn handed_over(dir: &Scratch, given: Option<&Party>) -> Result<Vec<[u8; 32]>, IssuersError> {
    let printers = issuers::printers(dir, given.map(|party| party.pem.as_bytes()), clock);
    let [printer] = &printers[..] else { panic!("{printers:?}") };
    assert_eq!(printer.serial, SERIAL);
    let issuers = printer.issuers.clone()?;
    for issuer in &issuers {
        let der = CertificateDer::from_pem_slice(issuer.pem.as_bytes()).unwrap();
        assert_eq!(fingerprint(&der), issuer.sha256);
    }
    // The page gives everybody the same, and does not name the printer.
    let text = issuers::text(dir, SERIAL, given.map(|party| party.pem.as_bytes()), clock);
    let without_marks: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(
        issuers.iter().flat_map(|issuer| issuer.pem.lines()).eq(without_marks)
            && !text.contains(SERIAL),
        "{text}"
    );
    Ok(issuers.into_iter().map(|issuer| issuer.sha256).collect())
}

fn sums(parties: &[&Party]) -> Vec<[u8; 32]> {
    parties.iter().map(|party| fingerprint(&party.der())).collect()
}

#[test]
fn clients_of_a_relay_get_the_authorities_of_the_printer() {
    let dir = Scratch::new("issuers");
    let root = Some(&WORLD.root);
    let leaf = v3(&WORLD.device);
    assert!(issuers::printers(&dir, None, clock).is_empty());
    // What is shown without a proof of the key is not kept.
    let trust = keeping(&dir, root);
    trust.shown(&leaf.der(), &[WORLD.device.sent()]).unwrap();
    assert!(trust.pin.is_idle() && issuers::printers(&dir, None, clock).is_empty());
    // The authority that was sent along, and not what else was.
    let sent = [WORLD.root.sent(), WORLD.ecc.sent(), WORLD.device.sent()];
    assert_eq!(accept_with(&trust, &leaf.der(), &sent), Ok(()));
    let both = sums(&[&WORLD.device, &WORLD.root]);
    assert_eq!(handed_over(&dir, root), Ok(both.clone()));
    // After a port that shows the printer's certificate alone, which is pinned by now, it stays.
    assert_eq!(accept(&keeping(&dir, root), &leaf.der()), Ok(()));
    assert_eq!(handed_over(&dir, root), Ok(both));
    // An authority that is not trusted any more vouches for nothing; the pinned certificate is trusted alone.
    assert_eq!(handed_over(&dir, None), Ok(sums(&[&leaf])));
    fs::remove_file(dir.join("pins")).unwrap();
    assert_eq!(handed_over(&dir, None), Err(IssuersError::Refused(Refusal::UnknownIssuer)));
    // A known device authority is the one above the printer.
    let device = Some(&WORLD.device);
    assert_eq!(accept(&keeping(&dir, device), &leaf.der()), Ok(()));
    assert_eq!(handed_over(&dir, device), Ok(sums(&[&WORLD.device])));
}

#[test]
fn clients_of_a_relay_get_a_pinned_certificate() {
    let dir = Scratch::new("issuers");
    let stranger = Party::root(&ec(), "Stranger", CA);
    let (leaf, other) = (v3(&stranger), v3(&stranger));
    assert_eq!(accept(&keeping(&dir, None), &leaf.der()), Ok(()));
    assert_eq!(handed_over(&dir, None), Ok(sums(&[&leaf])));
    // A printer that was repaired: its old certificate is not printed, and the new one once it is trusted.
    assert_eq!(accept(&keeping(&dir, None), &other.der()), Err(Refusal::PinChanged));
    assert_eq!(handed_over(&dir, None), Ok(sums(&[&leaf])), "the old one still counts");
    fs::remove_file(dir.join("pins")).unwrap();
    assert_eq!(handed_over(&dir, None), Err(IssuersError::Refused(Refusal::UnknownIssuer)));
    assert_eq!(accept(&keeping(&dir, None), &other.der()), Ok(()));
    assert_eq!(handed_over(&dir, None), Ok(sums(&[&other])));
}

/// The file is no proof: what stands in it is verified again.
#[test]
fn a_changed_chain_gives_clients_nothing_untrusted() {
    let dir = Scratch::new("issuers");
    let root = Some(&WORLD.root);
    let leaf = v3(&WORLD.device);
    assert_eq!(accept_with(&keeping(&dir, root), &leaf.der(), &[WORLD.device.sent()]), Ok(()));
    let path = dir.join(format!("{SERIAL}.chain"));
    let good = fs::read_to_string(&path).unwrap();
    let stranger = Party::root(&rsa("2048"), "Stranger", CA);
    let device = stranger.sign(&rsa("2048"), "/CN=Device", &authority(""));
    let of = |parties: &[&Party]| parties.iter().map(|party| &*party.pem).collect::<String>();
    for (text, outcome) in [
        // Another authority behind it, or before it.
        (of(&[&leaf, &WORLD.device, &stranger]), Ok(sums(&[&WORLD.device, &WORLD.root]))),
        (of(&[&leaf, &stranger, &WORLD.device]), Ok(sums(&[&WORLD.device, &WORLD.root]))),
        (of(&[&v3(&device), &device]), Err(IssuersError::Refused(Refusal::UnknownIssuer))),
        (of(&[&stranger]), Err(IssuersError::Refused(Refusal::NotALeaf))),
        (String::new(), Err(IssuersError::Damaged)),
        ("rubbish".to_owned(), Err(IssuersError::Damaged)),
        (good.replace('A', "B"), Err(IssuersError::Refused(Refusal::Malformed))),
    ] {
        fs::write(&path, &text).unwrap();
        let handed = handed_over(&dir, root);
        match outcome {
            Err(IssuersError::Refused(Refusal::Malformed)) => assert!(handed.is_err(), "{text}"),
            outcome => assert_eq!(handed, outcome, "{text}"),
        }
    }
    // It is written again after the next start.
    assert_eq!(accept_with(&keeping(&dir, root), &leaf.der(), &[WORLD.device.sent()]), Ok(()));
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
    // Looking at it changes nothing, not even a mode.
    use std::os::unix::fs::PermissionsExt;
    for file in [path, dir.join("pins")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(handed_over(&dir, root).is_ok());
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn a_chain_that_cannot_be_written_is_tried_again() {
    let dir = Scratch::new("issuers");
    let blocked = dir.join(format!(".{SERIAL}.chain.new"));
    fs::create_dir(&blocked).unwrap();
    let trust = keeping(&dir, Some(&WORLD.root));
    let leaf = v3(&WORLD.root);
    assert_eq!(accept(&trust, &leaf.der()), Ok(()), "the printer is served all the same");
    assert!(issuers::printers(&dir, None, clock).is_empty());
    fs::remove_dir(blocked).unwrap();
    assert_eq!(accept(&trust, &leaf.der()), Ok(()));
    assert_eq!(handed_over(&dir, Some(&WORLD.root)), Ok(sums(&[&WORLD.root])));
    // Where nothing is relayed nothing is kept.
    let dir = Scratch::new("issuers");
    let pins = Pins::in_dir(&dir);
    let trust = super::trust::verifier(SERIAL, Policy::Verify, None, pins, clock).unwrap();
    assert_eq!(accept(&trust, &v3(&Party::root(&ec(), "Stranger", CA)).der()), Ok(()));
    assert!(issuers::printers(&dir, None, clock).is_empty());
}
