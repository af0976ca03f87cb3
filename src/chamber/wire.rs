//! What goes over the wire: an 80-byte login one way, pictures with 16-byte heads the other
//! (PROTOCOL §3.1). All numbers are little-endian.

/// Bytes in a login.
pub const LOGIN: usize = 80;

/// Bytes in the head of a picture.
pub const HEAD: usize = 16;

/// Bytes of a login's user and of its code, padded with NUL.
const FIELD: usize = 32;

/// A picture that is said to have more bytes than this is none: we have lost count (16 MiB is where
/// clients lose theirs, PROTOCOL §3.2).
pub const MAX_PICTURE: usize = 16 * 1024 * 1024 - 1;

/// The first words of a login: 64 bytes follow, and of what kind.
const LOGIN_WORDS: [u32; 4] = [0x40, 0x3000, 0, 0];

/// The low half of the second word of everything that the file tunnel says (PROTOCOL §6.2).
const TUNNEL: u32 = 0x013f;

/// A login, its code not looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// Who it says it is.
    pub user: &'a [u8],
    /// With which code.
    pub code: &'a [u8],
}

/// Why something is no login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// It is a message of the file tunnel.
    Tunnel,
    /// Its first four words are not those of a login.
    Words,
    /// Something stands behind the end of its user or its code.
    Padding,
}

impl<'a> Login<'a> {
    /// Reads a login.
    ///
    /// # Errors
    ///
    /// The bytes are none.
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

    /// Writes it. User and code have at most 32 bytes; what is more is left out.
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

/// A field without the NULs behind it.
fn unpadded(field: &[u8]) -> Result<&[u8], LoginFault> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(end);
    if padding.iter().all(|byte| *byte == 0) { Ok(text) } else { Err(LoginFault::Padding) }
}

/// What the printer announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A picture of this many bytes.
    Picture(usize),
    /// More bytes than any picture has.
    Absurd(usize),
    /// A message of the file tunnel: this is no camera.
    Tunnel,
}

impl Head {
    /// Reads a head. Only the length and the mark of the file tunnel are looked at: what the other
    /// words say has not been seen to matter.
    pub fn parse(bytes: &[u8; HEAD]) -> Self {
        let [len, kind, ..] = words_of(bytes);
        if kind & 0xffff == TUNNEL {
            return Self::Tunnel;
        }
        match usize::try_from(len) {
            Ok(len) if len <= MAX_PICTURE => Self::Picture(len),
            Ok(len) => Self::Absurd(len),
            Err(_) => Self::Absurd(usize::MAX),
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

/// What is wrong with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has no bytes.
    Empty,
    /// It does not begin as a JPEG file does.
    NoStart,
    /// It does not end as one does: something of it is missing, or something is behind it.
    NoEnd,
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::NoStart => "is no JPEG",
            Self::NoEnd => "is a JPEG without its end",
        })
    }
}

/// What can be seen to be wrong with a picture from its markers: SOI with what follows it, and EOI
/// (ITU-T T.81, B.1.1.3).
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
    fn a_login_is_read_and_written_as_clients_write_it() {
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
    fn each_word_of_a_login_counts() {
        for at in 0..HEAD {
            let mut bytes = recorded();
            bytes[at] ^= 1;
            assert_eq!(Login::parse(&bytes), Err(LoginFault::Words), "byte {at}");
        }
    }

    #[test]
    fn what_stands_behind_the_end_of_a_field_is_a_fault() {
        for at in [21, 47, 57, 79] {
            let mut bytes = recorded();
            bytes[at] = b'x';
            assert_eq!(Login::parse(&bytes), Err(LoginFault::Padding), "byte {at}");
        }
    }

    #[test]
    fn the_file_tunnel_is_told_from_the_camera_on_both_sides() {
        let mut bytes = recorded();
        bytes[..8].copy_from_slice(b"\x10\0\0\0\x3f\x01\x01\x01");
        assert_eq!(Login::parse(&bytes), Err(LoginFault::Tunnel));
        // What an X1C answers to a camera's login, and what it answers to its own.
        for kind in [0x0003_013f_u32, 0x0001_013f] {
            let mut head = head(8);
            head[4..8].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(Head::parse(&head), Head::Tunnel);
        }
    }

    #[test]
    fn a_head_is_read_and_written_as_the_printer_writes_it() {
        let bytes = head(0x0001_e240);
        assert_eq!(bytes, *b"\x40\xe2\x01\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(Head::parse(&bytes), Head::Picture(123_456));
    }

    #[test]
    fn a_length_that_clients_could_not_read_is_absurd() {
        assert_eq!(Head::parse(&head(0x00ff_ffff)), Head::Picture(MAX_PICTURE));
        assert_eq!(Head::parse(&head(0x0100_0000)), Head::Absurd(MAX_PICTURE + 1));
        assert_eq!(Head::parse(&head(u32::MAX)), Head::Absurd(0xffff_ffff));
    }

    #[test]
    fn damage_shows_at_the_ends() {
        assert_eq!(damage(b""), Some(Damage::Empty));
        assert_eq!(damage(b"\xff\xd8\xff\xe0 \xff\xd9"), None);
        assert_eq!(damage(b"\x89PNG\xff\xd9"), Some(Damage::NoStart));
        assert_eq!(damage(b"\xff\xd8\xff\xe0 "), Some(Damage::NoEnd));
        assert_eq!(damage(b"\xff"), Some(Damage::NoStart));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(bytes in any::<[u8; LOGIN]>()) {
            if let Ok(login) = Login::parse(&bytes) {
                prop_assert_eq!(login.bytes(), bytes);
            }
            let head: &[u8; HEAD] = bytes.first_chunk().unwrap();
            let _any = Head::parse(head);
            let _any = damage(&bytes);
        }
    }
}
