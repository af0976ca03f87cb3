//! RTSP authentication: Digest with MD5 or SHA-256 (RFC 7616, and RFC 2069's form without `qop`, which live555
//! and most players use), and Basic (RFC 7617), which is as safe inside TLS.
//!
//! Printers ask for Digest with MD5, and so does the proxy.

use core::fmt::{self, Write};
use core::hash::BuildHasher;
use core::time::Duration;
use std::hash::RandomState;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::auth::{AccessCode, MAX_CODE, USER};
use crate::clock::Instant;
use crate::peer::Origin;

/// Characters in a digest: SHA-256 in hexadecimal.
const HEX: usize = 64;

/// Characters in the proxy's nonce.
pub const NONCE: usize = 32;

/// A nonce of the proxy's.
pub type Nonce = heapless::String<NONCE>;

/// How long the players of one origin are given the same nonce.
const NONCE_INTERVAL: Duration = Duration::from_secs(3600);

/// The nonce for players of this origin at this time.
///
/// A nonce stays the same for an hour, so that the same code gives the same answer to the same request: a device with
/// an old code can then be told from one that tries codes ([`auth`](crate::auth)). Nonces are computed with a key of
/// this process, so nothing is stored for an origin. Another host cannot copy an answer, since TLS encrypts it.
pub fn nonce_for(origin: Origin, now: Instant) -> Nonce {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let key = KEY.get_or_init(RandomState::new);
    let interval = now.since(Instant::START).as_secs() / NONCE_INTERVAL.as_secs();
    let mut nonce = Nonce::new();
    for half in 0..2_u8 {
        write_hex(&mut nonce, &key.hash_one((origin, interval, half)).to_be_bytes());
    }
    nonce
}

/// Characters in the longest realm of the printer's that is answered.
const MAX_REALM: usize = 64;

/// Characters in the longest nonce of the printer's that is answered.
const MAX_NONCE: usize = 128;

/// Characters in a value of Basic: base64 of user, colon and code.
const MAX_BASIC: usize = (USER.len() + 1 + MAX_CODE).div_ceil(3) * 4;

/// The realm of this proxy.
pub const REALM: &str = "PandaProxy";

/// A digest in hexadecimal.
type Hex = heapless::String<HEX>;

/// A digest's hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5, which printers and most players use.
    Md5,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// By its name; MD5 without one (RFC 2617 §3.2.1).
    fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Self::Sha256),
            Some(_) => None,
        }
    }

    /// The digest of these parts, joined by colons.
    fn of(self, parts: &[&[u8]]) -> Hex {
        let mut hex = Hex::new();
        match self {
            Self::Md5 => {
                let mut md5 = Md5::new();
                joined(parts, |bytes| md5.update(bytes));
                write_hex(&mut hex, &md5.finalize());
            }
            Self::Sha256 => {
                let mut sha = ring::digest::Context::new(&ring::digest::SHA256);
                joined(parts, |bytes| sha.update(bytes));
                write_hex(&mut hex, sha.finish().as_ref());
            }
        }
        hex
    }
}

fn joined(parts: &[&[u8]], mut take: impl FnMut(&[u8])) {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            take(b":");
        }
        take(part);
    }
}

/// Writes bytes in hexadecimal. What has no room is left out.
pub fn write_hex(out: &mut impl Write, bytes: &[u8]) {
    for byte in bytes {
        // Callers have room for it, or want it cut.
        let _cut = write!(out, "{byte:02x}");
    }
}

/// The `response` that proves `code` (RFC 7616 §3.4.1).
fn response(
    algorithm: Algorithm,
    code: &AccessCode,
    realm: &str,
    nonce: &str,
    method: &str,
    uri: &str,
    qop: Option<(&str, &str)>,
) -> Hex {
    let secret = Zeroizing::new(algorithm.of(&[USER.as_bytes(), realm.as_bytes(), code.reveal()]));
    let what = algorithm.of(&[method.as_bytes(), uri.as_bytes()]);
    let (secret, nonce, what) = (secret.as_bytes(), nonce.as_bytes(), what.as_bytes());
    match qop {
        Some((count, cnonce)) => {
            algorithm.of(&[secret, nonce, count.as_bytes(), cnonce.as_bytes(), b"auth", what])
        }
        None => algorithm.of(&[secret, nonce, what]),
    }
}

/// The result of checking an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The access code is right.
    Right,
    /// The access code is right, but the nonce or the realm is not the connection's.
    Stale,
    /// The user or the access code is wrong.
    Wrong,
    /// The header is malformed, or of an unknown scheme.
    Unusable,
}

/// Checks the `Authorization` header of a request with this method, on a connection with this nonce.
///
/// The digest is made of the header's `uri`, not of the request's, as live555 does it: players behind a relay
/// that rewrites URLs name another one.
pub fn judge(value: &str, method: &str, code: &AccessCode, nonce: &str) -> Verdict {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("Basic") {
        let is_right = same(rest.trim().as_bytes(), basic(code).as_bytes());
        return if is_right { Verdict::Right } else { Verdict::Wrong };
    }
    if !scheme.eq_ignore_ascii_case("Digest") {
        return Verdict::Unusable;
    }
    let of = |name| parameter(rest, name);
    let (Some(algorithm), Some(user), Some(its_nonce), Some(uri), Some(given)) =
        (Algorithm::named(of("algorithm")), of("username"), of("nonce"), of("uri"), of("response"))
    else {
        return Verdict::Unusable;
    };
    let qop = match (of("qop"), of("nc"), of("cnonce")) {
        (None, _, _) => None,
        (Some("auth"), Some(count), Some(cnonce)) => Some((count, cnonce)),
        (Some(_), _, _) => return Verdict::Unusable,
    };
    let realm = of("realm").unwrap_or(REALM);
    let right = response(algorithm, code, realm, its_nonce, method, uri, qop);
    // The code is checked in any case, so that timing does not tell whether the user is right.
    let is_right = same(given.as_bytes(), right.as_bytes());
    if !is_right || user != USER {
        Verdict::Wrong
    } else if realm == REALM && its_nonce == nonce {
        Verdict::Right
    } else {
        Verdict::Stale
    }
}

fn same(given: &[u8], right: &[u8]) -> bool {
    given.len() == right.len() && given.ct_eq(right).into()
}

/// The value of Basic for user and code.
fn basic(code: &AccessCode) -> Zeroizing<heapless::String<MAX_BASIC>> {
    let mut plain = Zeroizing::new(heapless::Vec::<u8, { USER.len() + 1 + MAX_CODE }>::new());
    // Cannot fail: no access code is longer than `MAX_CODE`.
    let _fits = plain.extend_from_slice(USER.as_bytes());
    let _fits = plain.push(b':');
    let _fits = plain.extend_from_slice(code.reveal());
    let mut room = Zeroizing::new([0; MAX_BASIC]);
    let len = STANDARD.encode_slice(plain.as_slice(), room.as_mut_slice()).unwrap_or_default();
    let text = core::str::from_utf8(room.get(..len).unwrap_or_default()).unwrap_or_default();
    Zeroizing::new(text.try_into().unwrap_or_default())
}

/// The value of a parameter in a list such as `a="b", c=d`.
pub fn parameter<'v>(list: &'v str, name: &str) -> Option<&'v str> {
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (its, after) = rest.split_once('=')?;
        let (value, behind) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if its.trim().eq_ignore_ascii_case(name) {
            return Some(value.trim());
        }
        rest = behind;
    }
}

/// Writes the field that asks a player for the access code: one Digest challenge with MD5 and without
/// `algorithm`, which is all that printers send ([`protocol`](crate::protocol#rtsps-camera)).
///
/// With several challenges some clients fail: some answer the first one, FFmpeg the last Digest, and many
/// know MD5 only. Basic is accepted without being offered.
///
/// # Errors
///
/// `out` has no room for the field.
pub fn write_challenge(out: &mut impl Write, nonce: &str, stale: bool) -> fmt::Result {
    let stale = if stale { ", stale=true" } else { "" };
    write!(out, "WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}\r\n")
}

/// A challenge of the printer's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one value of it")]
pub enum Challenge {
    /// Digest.
    Digest {
        /// The hash function.
        algorithm: Algorithm,
        /// The printer's realm.
        realm: heapless::String<MAX_REALM>,
        /// The printer's nonce.
        nonce: heapless::String<MAX_NONCE>,
        /// Whether the answer has `qop=auth` (RFC 7616).
        qop: bool,
        /// Whether the last answer was right but for an expired nonce.
        stale: bool,
    },
    /// Basic.
    Basic,
}

impl Challenge {
    /// The best challenge in `WWW-Authenticate` headers; `None` if none can be answered.
    pub fn best_of<'v>(values: impl Iterator<Item = &'v str>) -> Option<Self> {
        values.filter_map(Self::parse).min_by_key(|challenge| *challenge == Self::Basic)
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let is_auth = |qop: &str| qop.split(',').any(|one| one.trim() == "auth");
        // Both are sent back in quotes, where a quote would end them.
        let is_odd = |c: char| c == '"' || c.is_control();
        let quotable = |name| parameter(rest, name).filter(|value| !value.contains(is_odd));
        Some(Self::Digest {
            algorithm: Algorithm::named(parameter(rest, "algorithm"))?,
            realm: quotable("realm")?.try_into().ok()?,
            nonce: quotable("nonce")?.try_into().ok()?,
            qop: parameter(rest, "qop").is_some_and(is_auth),
            stale: parameter(rest, "stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// Whether the last answer was right but for an expired nonce.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Digest { stale: true, .. })
    }

    /// Writes the `Authorization` header that answers the challenge. `count` is how often the nonce has been
    /// answered, this time included, and `cnonce` a nonce of the proxy's.
    ///
    /// # Errors
    ///
    /// `out` has no room for it.
    pub fn write_answer(
        &self,
        out: &mut impl Write,
        code: &AccessCode,
        method: &str,
        uri: &str,
        (count, cnonce): (u32, &str),
    ) -> fmt::Result {
        let Self::Digest { algorithm, realm, nonce, qop, .. } = self else {
            return write!(out, "Authorization: Basic {}\r\n", basic(code).as_str());
        };
        let mut counted = heapless::String::<8>::new();
        write!(counted, "{count:08x}")?;
        let counted = qop.then_some((counted.as_str(), cnonce));
        let response = response(*algorithm, code, realm, nonce, method, uri, counted);
        write!(
            out,
            "Authorization: Digest username=\"{USER}\", realm=\"{realm}\", nonce=\"{nonce}\", \
             uri=\"{uri}\", response=\"{response}\""
        )?;
        if *algorithm == Algorithm::Sha256 {
            out.write_str(", algorithm=SHA-256")?;
        }
        if let Some((count, cnonce)) = counted {
            write!(out, ", qop=auth, nc={count}, cnonce=\"{cnonce}\"")?;
        }
        out.write_str("\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;

    fn code() -> AccessCode {
        AccessCode::new(b"12345678").unwrap()
    }

    /// The expected digests were computed with md5sum and sha256sum.
    #[test]
    fn digests_are_those_of_md5sum_and_sha256sum() {
        let md5 = Algorithm::Md5.of(&[b"bblp", b"LIVE555 Streaming Media", b"12345678"]);
        assert_eq!(md5, MD5);
        let sha = Algorithm::Sha256.of(&[b"bblp", b"PandaProxy", b"12345678"]);
        assert_eq!(sha, SHA);
    }

    const MD5: &str = "2ca9a30de700ca7bb14b53d71a435db1";
    const SHA: &str = "6a739c96cee0f3d1d8fb32b23cf620c10ce8c35fb934ffa1b117c8bd96290219";

    #[test]
    fn an_answer_is_right_for_its_method_nonce_and_code_only() {
        for (challenge, qop) in [
            ("Digest realm=\"PandaProxy\", nonce=\"abc\"", false),
            ("Digest realm=\"PandaProxy\", nonce=\"abc\", qop=\"auth,auth-int\"", true),
            ("Digest realm=\"PandaProxy\",nonce=\"abc\",algorithm=SHA-256, qop=\"auth\"", true),
            ("Basic realm=\"PandaProxy\"", false),
        ] {
            let asked = Challenge::best_of([challenge].into_iter()).unwrap();
            let mut line = String::new();
            asked.write_answer(&mut line, &code(), "PLAY", "rtsps://h/1", (1, "xyz")).unwrap();
            assert_eq!(line.contains("qop=auth"), qop, "{line}");
            let value = line.strip_prefix("Authorization: ").unwrap().trim();
            assert_eq!(judge(value, "PLAY", &code(), "abc"), Verdict::Right, "{challenge}");
            let other = AccessCode::new(b"12345679").unwrap();
            assert_eq!(judge(value, "PLAY", &other, "abc"), Verdict::Wrong, "{challenge}");
            if asked != Challenge::Basic {
                assert_eq!(judge(value, "PAUSE", &code(), "abc"), Verdict::Wrong, "{challenge}");
                assert_eq!(judge(value, "PLAY", &code(), "new"), Verdict::Stale, "{challenge}");
                let other_user = value.replace("\"bblp\"", "\"root\"");
                assert_eq!(judge(&other_user, "PLAY", &code(), "abc"), Verdict::Wrong);
            }
        }
    }

    #[test]
    fn malformed_and_unknown_schemes_are_unusable() {
        for value in [
            "",
            "Bearer abc",
            "Digest",
            "Digest username=\"bblp\"",
            "Digest username=\"bblp\", nonce=\"abc\", uri=\"u\", response=\"0\", algorithm=MD4",
            "Digest username=\"bblp\", nonce=\"abc\", uri=\"u\", response=\"0\", qop=auth",
            "Digest username=\"bblp, nonce=abc",
        ] {
            assert_eq!(judge(value, "PLAY", &code(), "abc"), Verdict::Unusable, "{value}");
        }
        assert_eq!(judge("Basic", "PLAY", &code(), "abc"), Verdict::Wrong);
    }

    #[test]
    fn digest_is_preferred_and_unknown_schemes_are_ignored() {
        let digest = "Digest realm=\"r\", nonce=\"n\", stale=TRUE";
        let best = Challenge::best_of(["Basic realm=\"r\"", digest].into_iter()).unwrap();
        assert!(best.is_stale());
        assert_eq!(Challenge::best_of(["Basic realm=\"r\""].into_iter()), Some(Challenge::Basic));
        let unknown = ["Negotiate", "Digest realm=\"r\", nonce=\"n\", algorithm=MD4"];
        assert_eq!(Challenge::best_of(unknown.into_iter()), None);
        let unquotable = ["Digest realm=\"r\", nonce=a\"b", "Digest realm=\"a\rb\", nonce=\"n\""];
        assert_eq!(Challenge::best_of(unquotable.into_iter()), None);
        let long = format!("Digest realm=\"r\", nonce=\"{}\"", "n".repeat(MAX_NONCE + 1));
        assert_eq!(Challenge::best_of([long.as_str()].into_iter()), None);
    }

    #[test]
    fn players_get_one_md5_challenge_without_algorithm() {
        let mut out = String::new();
        write_challenge(&mut out, "abc", true).unwrap();
        let challenge =
            "WWW-Authenticate: Digest realm=\"PandaProxy\", nonce=\"abc\", stale=true\r\n";
        assert_eq!(out, challenge);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_random_authorization_is_accepted(
            value in "(Digest |Basic |digest |)([a-z]{1,9}=\"?[ -~]{0,12}\"?,? ?){0,8}\\PC{0,20}",
        ) {
            prop_assert_ne!(judge(&value, "DESCRIBE", &code(), "abc"), Verdict::Right);
            let _any = Challenge::best_of([value.as_str()].into_iter());
        }

        #[test]
        fn any_challenge_is_answered_rightly(
            nonce in "[a-zA-Z0-9/+=]{1,128}",
            (sha, qop) in any::<(bool, bool)>(),
            url in "rtsps://[a-z0-9.]{1,20}:322/[a-z0-9/]{0,40}",
        ) {
            let algorithm = if sha { ", algorithm=SHA-256" } else { "" };
            let qop = if qop { ", qop=\"auth-int, auth\"" } else { "" };
            let asked = format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{algorithm}{qop}");
            let challenge = Challenge::best_of([asked.as_str()].into_iter()).unwrap();
            let mut answer = String::new();
            challenge.write_answer(&mut answer, &code(), "PLAY", &url, (7, "00c0ffee")).unwrap();
            let value = answer.strip_prefix("Authorization: ").unwrap().trim_end();
            prop_assert_eq!(judge(value, "PLAY", &code(), &nonce), Verdict::Right);
            prop_assert_eq!(judge(value, "PAUSE", &code(), &nonce), Verdict::Wrong);
            prop_assert_eq!(judge(value, "PLAY", &code(), "another"), Verdict::Stale);
        }
    }
}
