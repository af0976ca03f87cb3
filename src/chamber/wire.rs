//! The chamber camera's wire format: a login of 80 bytes from the client, pictures with heads of 16 bytes from
//! the printer ([`protocol`](crate::protocol#chamber-camera)). All numbers are little-endian.

/// Bytes in a login.
pub const LOGIN: usize = 80;

/// Bytes in the head of a picture.
pub const HEAD: usize = 16;

/// Bytes of a login's user field and of its code field, each padded with NUL.
const FIELD: usize = 32;

/// The longest picture that a head may announce, in bytes. A longer one means that the stream is
/// desynchronised; clients give up at 16 MiB.
pub const MAX_PICTURE: usize = 16 * 1024 * 1024 - 1;

/// The first four words of a login: the length of what follows, the kind, and zeros.
const LOGIN_WORDS: [u32; 4] = [0x40, 0x3000, 0, 0];

/// The low half of the second word of every message of the file tunnel
/// ([`protocol`](crate::protocol#file-tunnel)).
const TUNNEL: u32 = 0x013f;

/// A login whose code is not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user name.
    pub user: &'a [u8],
    /// The access code.
    pub code: &'a [u8],
}

/// Why bytes are not a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The head is the file tunnel's.
    Tunnel,
    /// The first four words are not those of a login.
    Words,
    /// The padding behind the user or the code is not zero.
    Padding,
}

impl<'a> Login<'a> {
    /// Parses a login.
    ///
    /// # Errors
    ///
    /// The bytes are not a login.
    pub fn parse(bytes: &'a [u8; LOGIN]) -> Result<Self, LoginFault> {
        let (head, rest) = bytes.split_at(HEAD);
        Self::check_head(head)?;
        let (user, code) = rest.split_at(FIELD);
        Ok(Self { user: unpadded(user)?, code: unpadded(code)? })
    }

    /// Checks the first [`HEAD`] bytes of a login. Bytes beyond them are ignored, and missing ones count
    /// as zero.
    ///
    /// # Errors
    ///
    /// The head is the file tunnel's ([`LoginFault::Tunnel`]) or unknown ([`LoginFault::Words`]).
    pub fn check_head(head: &[u8]) -> Result<(), LoginFault> {
        let words = words_of(head);
        let [_, kind, ..] = words;
        match words {
            LOGIN_WORDS => Ok(()),
            _ if kind & 0xffff == TUNNEL => Err(LoginFault::Tunnel),
            _ => Err(LoginFault::Words),
        }
    }

    /// The login as bytes. User and code are cut at 32 bytes each.
    pub fn bytes(&self) -> [u8; LOGIN] {
        let mut bytes = [0; LOGIN];
        let words = LOGIN_WORDS.iter().flat_map(|word| word.to_le_bytes());
        let user = self.user.iter().copied().chain(core::iter::repeat(0)).take(FIELD);
        let code = self.code.iter().copied().chain(core::iter::repeat(0)).take(FIELD);
        for (to, from) in bytes.iter_mut().zip(words.chain(user).chain(code)) {
            *to = from;
        }
        bytes
    }
}

/// A field without its padding.
fn unpadded(field: &[u8]) -> Result<&[u8], LoginFault> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(end);
    if padding.iter().all(|byte| *byte == 0) { Ok(text) } else { Err(LoginFault::Padding) }
}

/// A picture's head, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A picture of this many bytes.
    Picture(usize),
    /// A length of more than [`MAX_PICTURE`] bytes.
    BadLength(usize),
    /// A message of the file tunnel: the printer has no chamber camera.
    Tunnel,
}

impl Head {
    /// Parses a head. Only the length and the file tunnel's mark are checked; the other words carry nothing
    /// that is used.
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [len, kind, ..] = words_of(bytes);
        if kind & 0xffff == TUNNEL {
            return Self::Tunnel;
        }
        match usize::try_from(len) {
            Ok(len) if len <= MAX_PICTURE => Self::Picture(len),
            Ok(len) => Self::BadLength(len),
            Err(_) => Self::BadLength(usize::MAX),
        }
    }
}

/// The head of a picture of `len` bytes, as the printer writes it: its length, 0, 1, 0.
pub fn head(len: u32) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    let words = [len, 0, 1, 0];
    for (to, from) in bytes.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
        *to = from;
    }
    bytes
}

/// The first four words.
fn words_of(bytes: &[u8]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Why a picture is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The picture has no bytes.
    Empty,
    /// The picture does not begin with a JPEG's markers.
    NoStart,
    /// The picture does not end with a JPEG's last marker: it is cut, or followed by other bytes.
    NoEnd,
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::NoStart => "is not a JPEG",
            Self::NoEnd => "is a JPEG without its end marker",
        })
    }
}

/// What a picture's first and last markers show to be wrong with it: SOI and the next marker, and EOI (ITU-T
/// T.81, B.1.1.3). `None` if nothing is.
pub fn damage(picture: &[u8]) -> Option<Damage> {
    if picture.is_empty() {
        Some(Damage::Empty)
    } else if !picture.starts_with(&[0xff, 0xd8, 0xff]) {
        Some(Damage::NoStart)
    } else if !picture.ends_with(&[0xff, 0xd9]) {
        Some(Damage::NoEnd)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A login as Home Assistant writes it.
    fn recorded() -> [u8; LOGIN] {
        let mut bytes = [0; LOGIN];
        bytes[..8].copy_from_slice(b"\x40\0\0\0\0\x30\0\0");
        bytes[16..20].copy_from_slice(b"bblp");
        bytes[48..56].copy_from_slice(b"12345678");
        bytes
    }

    #[test]
    fn a_login_is_parsed_and_written() {
        let bytes = recorded();
        let login = Login::parse(&bytes).unwrap();
        assert_eq!(login, Login { user: b"bblp", code: b"12345678" });
        assert_eq!(login.bytes(), bytes);
    }

    #[test]
    fn a_code_may_fill_its_field() {
        let login = Login { user: b"bblp", code: &[b'7'; 32] };
        assert_eq!(Login::parse(&login.bytes()), Ok(login));
    }

    #[test]
    fn every_byte_of_a_logins_head_is_checked() {
        for at in 0..HEAD {
            let mut bytes = recorded();
            bytes[at] ^= 1;
            assert_eq!(Login::parse(&bytes), Err(LoginFault::Words), "byte {at}");
        }
    }

    #[test]
    fn padding_that_is_not_zero_is_a_fault() {
        for at in [21, 47, 57, 79] {
            let mut bytes = recorded();
            bytes[at] = b'x';
            assert_eq!(Login::parse(&bytes), Err(LoginFault::Padding), "byte {at}");
        }
    }

    #[test]
    fn the_file_tunnel_is_recognised_on_both_sides() {
        let mut bytes = recorded();
        bytes[..8].copy_from_slice(b"\x10\0\0\0\x3f\x01\x01\x01");
        assert_eq!(Login::parse(&bytes), Err(LoginFault::Tunnel));
        // An X1C's answers to a camera's login and to a tunnel's.
        for kind in [0x0003_013f_u32, 0x0001_013f] {
            let mut head = head(8);
            head[4..8].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(Head::parse(&head), Head::Tunnel);
        }
    }

    #[test]
    fn a_head_is_parsed_and_written() {
        let bytes = head(0x0001_e240);
        assert_eq!(bytes, *b"\x40\xe2\x01\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(Head::parse(&bytes), Head::Picture(123_456));
    }

    #[test]
    fn a_length_of_sixteen_mebibytes_is_bad() {
        assert_eq!(Head::parse(&head(0x00ff_ffff)), Head::Picture(MAX_PICTURE));
        assert_eq!(Head::parse(&head(0x0100_0000)), Head::BadLength(MAX_PICTURE + 1));
        assert_eq!(Head::parse(&head(u32::MAX)), Head::BadLength(0xffff_ffff));
    }

    #[test]
    fn damage_is_found_at_both_ends() {
        assert_eq!(damage(b""), Some(Damage::Empty));
        assert_eq!(damage(b"\xff\xd8\xff\xe0 \xff\xd9"), None);
        assert_eq!(damage(b"\x89PNG\xff\xd9"), Some(Damage::NoStart));
        assert_eq!(damage(b"\xff\xd8\xff\xe0 "), Some(Damage::NoEnd));
        assert_eq!(damage(b"\xff"), Some(Damage::NoStart));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in any::<[u8; LOGIN]>()) {
            if let Ok(login) = Login::parse(&bytes) {
                prop_assert_eq!(login.bytes(), bytes);
            }
            let head: &[u8; HEAD] = bytes.first_chunk().unwrap();
            let _any = Head::parse(head);
            let _any = damage(&bytes);
        }
    }
}
