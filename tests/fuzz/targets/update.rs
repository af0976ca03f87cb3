//! Update files: no bytes cause a panic, and none are accepted without a signature.

use pandaproxy::update::header::{Content, Header};
use pandaproxy::update::keys::Keys;

/// A public key whose private key nobody has: it has signed the seed `good`, and was deleted.
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEACHkGnRaOnSoidcwWh4kY3KCQC+v0Cu5qShm7p9a1p/w=
-----END PUBLIC KEY-----
";

/// The seed `good`.
const GOOD: &[u8] = include_bytes!("../corpus/update_file/good");

/// A whole file. Only the one that was signed is accepted, and in pieces as in one.
pub(crate) fn file(data: &[u8]) {
    let keys = Keys::parse(KEY).expect("the key is good");
    let parsed = Header::parse(data, &keys);
    let Ok(Some((header, len))) = parsed else { return };
    assert_eq!(data[..len], GOOD[..len], "accepted without a signature");
    let mut content = Content::new(&header);
    let mut taken = Ok(());
    for piece in data[len..].chunks(3) {
        taken = taken.and_then(|()| content.take(piece));
    }
    let is_good = taken.and_then(|()| content.finish()).is_ok();
    assert_eq!(is_good, data == GOOD, "accepted with another content");
}

/// A file of keys. What it accepts does not accept the seed, unless it has the seed's key.
pub(crate) fn keys(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(keys) = Keys::parse(text) else { return };
    let parsed = Header::parse(GOOD, &keys);
    let base64 = KEY.lines().nth(1).unwrap_or_default();
    let plain: String = text.split_whitespace().collect();
    assert!(parsed.is_err() || plain.contains(base64), "accepted by another key");
}
