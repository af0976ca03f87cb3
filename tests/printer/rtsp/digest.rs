//! Digest as live555 has it: MD5, no `qop`, and the `uri` taken from the Authorization header.

use core::fmt::Write as _;

/// What it calls itself.
pub(super) const REALM: &str = "LIVE555 Streaming Media";

/// The user and the code that are accepted.
const USER: &str = "bblp";

/// Whether an Authorization header answers this challenge, for this method.
pub(super) fn admits(header: &str, method: &str, code: &str, nonce: &str) -> bool {
    let Some(fields) = header.trim().strip_prefix("Digest ") else { return false };
    let field = |name| fields.split(',').find_map(|field| quoted(field, name));
    let (Some(user), Some(realm), Some(given), Some(uri), Some(response)) =
        (field("username"), field("realm"), field("nonce"), field("uri"), field("response"))
    else {
        return false;
    };
    let known = md5(&format!("{USER}:{REALM}:{code}"));
    let asked = md5(&format!("{method}:{uri}"));
    let right = md5(&format!("{known}:{nonce}:{asked}"));
    (user, realm, given, response) == (USER, REALM, nonce, right.as_str())
}

/// The value of `name="value"`.
fn quoted<'f>(field: &'f str, name: &str) -> Option<&'f str> {
    let (key, value) = field.trim().split_once('=')?;
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    key.trim().eq_ignore_ascii_case(name).then_some(value)
}

/// MD5 (RFC 1321) in hexadecimal digits.
pub fn md5(text: &str) -> String {
    let mut message = text.as_bytes().to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((text.len() as u64 * 8).to_le_bytes());
    let mut sum = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476_u32];
    for block in message.chunks(64) {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        let [mut a, mut b, mut c, mut d] = sum;
        for step in 0..64 {
            let (mixed, word) = match step / 16 {
                0 => (b & c | !b & d, step),
                1 => (d & b | !d & c, 5 * step + 1),
                2 => (b ^ c ^ d, 3 * step + 5),
                _ => (c ^ (b | !d), 7 * step),
            };
            // The integer part of 2^32 times the absolute sine of the step, counted from 1.
            let sine = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let turned = a.wrapping_add(mixed).wrapping_add(sine).wrapping_add(words[word % 16]);
            let turned = turned.rotate_left(TURNS[step / 16][step % 4]);
            (a, b, c, d) = (d, b.wrapping_add(turned), b, c);
        }
        for (sum, more) in sum.iter_mut().zip([a, b, c, d]) {
            *sum = sum.wrapping_add(more);
        }
    }
    sum.iter().flat_map(|word| word.to_le_bytes()).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
