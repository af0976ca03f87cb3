//! JSON as bytes: where the members and elements of a text lie, and nothing else.
//!
//! A [`Cursor`] walks a text once, from its first byte to its last; at each value the caller decides
//! whether to enter it or to pass over it. [`members`] and [`elements`] are the short way when one
//! level is enough. Nothing is decoded, copied or allocated, and nothing calls itself: what is open
//! is one bit a level.
//!
//! Printers and slicers deviate from the standard, so this is lenient where they are:
//!
//! - a string is any bytes up to its closing quote: some firmware sends bytes that are not UTF-8
//!   ([`protocol`](crate::protocol#mqtt)), and a backslash only protects the byte behind it;
//! - a text may end in blanks and NULs: `OrcaSlicer` on Linux sends one;
//! - keys and values are compared as written: `"\u0061"` is not `"a"` here.
//!
//! All else is RFC 8259, and values that are passed over are checked as well.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | open objects and arrays | [`DEPTH`] | [`Error::TooDeep`] |
//! | length | the caller's; offsets are right up to 4 GiB | |
//! | time | each byte is looked at once for each time it is passed | |

use core::fmt;

/// How many objects and arrays may be open at once. Printers use 8 (`print.ams.ams[].tray[]` and
/// the H2's `print.device`).
pub const DEPTH: usize = u32::BITS as usize;

/// Why a text cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not JSON, from this offset in bytes on.
    Malformed {
        /// Offset of the first byte that cannot stand where it stands; the length if one is missing.
        at: u32,
    },
    /// More than [`DEPTH`] objects and arrays are open.
    TooDeep {
        /// Offset of the bracket that is one too many.
        at: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { at } => write!(f, "not JSON at byte {at}"),
            Self::TooDeep { at } => write!(f, "JSON nested deeper than {DEPTH} at byte {at}"),
        }
    }
}

impl core::error::Error for Error {}

/// What sort of value starts with its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// `-1.5e3`
    Number,
    /// `true`, `false` or `null`
    Literal,
}

/// A value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Offset of its first byte in the text that was walked.
    pub at: usize,
    /// Its bytes, without the blanks around it.
    pub text: &'a [u8],
}

impl<'a> Value<'a> {
    /// What sort of value this is.
    pub fn kind(self) -> Kind {
        self.text.first().copied().and_then(kind_of).unwrap_or(Kind::Literal)
    }

    /// What stands between the quotes, if this is a string.
    pub fn string(self) -> Option<&'a [u8]> {
        match self.text {
            [b'"', inside @ .., b'"'] => Some(inside),
            _ => None,
        }
    }

    /// Whether this is a number without fraction and exponent.
    pub fn is_integer(self) -> bool {
        self.kind() == Kind::Number
            && !self.text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }

    /// The members of this object. Offsets go on counting from the text this was found in.
    pub const fn members(self) -> Members<'a> {
        Members(Level {
            cursor: Cursor::new(self.text),
            origin: self.at,
            position: Position::Before,
        })
    }

    /// The elements of this array. Offsets go on counting from the text this was found in.
    pub const fn elements(self) -> Elements<'a> {
        Elements(Level {
            cursor: Cursor::new(self.text),
            origin: self.at,
            position: Position::Before,
        })
    }
}

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its key.
    pub key: Key<'a>,
    /// Its value.
    pub value: Value<'a>,
}

/// The key of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Offset of its opening quote in the text that was walked.
    pub at: usize,
    /// What stands between the quotes, as written.
    pub text: &'a [u8],
}

impl Key<'_> {
    /// Offset of the byte behind its closing quote.
    pub const fn end(self) -> usize {
        self.at + self.text.len() + 2
    }
}

/// The members of the object that `text` is, in order. It ends with the first error.
pub const fn members(text: &[u8]) -> Members<'_> {
    Value { at: 0, text }.members()
}

/// The elements of the array that `text` is, in order. It ends with the first error.
pub const fn elements(text: &[u8]) -> Elements<'_> {
    Value { at: 0, text }.elements()
}

/// Passes all of `text`: one value, and nothing behind it but blanks and NULs.
///
/// # Errors
///
/// The text is something else, or nested deeper than [`DEPTH`].
pub fn check(text: &[u8]) -> Result<(), Error> {
    let mut cursor = Cursor::new(text);
    cursor.pass()?;
    cursor.end()
}

/// See [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a>(Level<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let origin = self.0.origin;
        self.0.step(Cursor::enter_object, |cursor| {
            let Some(key) = cursor.key()? else { return Ok(None) };
            let value = cursor.pass()?;
            Ok(Some(Member {
                key: Key { at: key.at + origin, ..key },
                value: Value { at: value.at + origin, ..value },
            }))
        })
    }
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a>(Level<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Value<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let origin = self.0.origin;
        self.0.step(Cursor::enter_array, |cursor| {
            if !cursor.element()? {
                return Ok(None);
            }
            let value = cursor.pass()?;
            Ok(Some(Value { at: value.at + origin, ..value }))
        })
    }
}

/// One level of a text, walked by an iterator.
#[derive(Clone, Debug)]
struct Level<'a> {
    cursor: Cursor<'a>,
    origin: usize,
    position: Position,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Position {
    Before,
    Inside,
    Behind,
}

impl<'a> Level<'a> {
    fn step<T>(
        &mut self,
        enter: impl FnOnce(&mut Cursor<'a>) -> Result<(), Error>,
        next: impl FnOnce(&mut Cursor<'a>) -> Result<Option<T>, Error>,
    ) -> Option<Result<T, Error>> {
        let entered = match self.position {
            Position::Before => enter(&mut self.cursor),
            Position::Inside => Ok(()),
            Position::Behind => return None,
        };
        self.position = Position::Inside;
        let found = entered.and_then(|()| next(&mut self.cursor)).and_then(|found| {
            if found.is_none() {
                self.cursor.end()?;
            }
            Ok(found)
        });
        if !matches!(found, Ok(Some(_))) {
            self.position = Position::Behind;
        }
        found.transpose()
    }
}

/// A place in a text. Cloning it is looking ahead.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// How many objects and arrays are open.
    depth: u32,
    /// One bit for each of them, the innermost lowest: set for an object.
    open: u32,
    /// Whether the innermost was only just entered, so that no comma is due.
    fresh: bool,
}

impl<'a> Cursor<'a> {
    /// Before the one value of `text`.
    pub const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0, open: 0, fresh: false }
    }

    /// How many bytes lie behind it.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// What sort of value comes next.
    ///
    /// # Errors
    ///
    /// None does.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind, Error> {
        self.blanks();
        self.peek().and_then(kind_of).ok_or_else(|| self.malformed())
    }

    /// Enters the object that comes next; [`key`](Self::key) then goes through its members.
    ///
    /// # Errors
    ///
    /// Something else comes next, or too much is open.
    #[inline]
    pub fn enter_object(&mut self) -> Result<(), Error> {
        self.blanks();
        self.expect(b'{')?;
        self.push(true)
    }

    /// Enters the array that comes next; [`element`](Self::element) then goes through it.
    ///
    /// # Errors
    ///
    /// Something else comes next, or too much is open.
    #[inline]
    pub fn enter_array(&mut self) -> Result<(), Error> {
        self.blanks();
        self.expect(b'[')?;
        self.push(false)
    }

    /// The key of the next member of the object entered last; the cursor then stands at its value,
    /// which is to be entered or passed before the next call. `None` leaves the object.
    ///
    /// # Errors
    ///
    /// Neither a member nor the end of the object comes next.
    #[inline]
    pub fn key(&mut self) -> Result<Option<Key<'a>>, Error> {
        if !self.continues(b'}')? {
            return Ok(None);
        }
        self.blanks();
        let at = self.at;
        self.expect(b'"')?;
        let text = self.string()?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Ok(Some(Key { at, text }))
    }

    /// Whether the array entered last has another element, at which the cursor then stands and
    /// which is to be entered or passed before the next call. `false` leaves the array.
    ///
    /// # Errors
    ///
    /// Neither an element nor the end of the array comes next.
    #[inline]
    pub fn element(&mut self) -> Result<bool, Error> {
        let more = self.continues(b']')?;
        if more {
            self.blanks();
        }
        Ok(more)
    }

    /// Passes the next value, of any type.
    ///
    /// # Errors
    ///
    /// The value is malformed, or nested deeper than [`DEPTH`].
    pub fn pass(&mut self) -> Result<Value<'a>, Error> {
        self.blanks();
        let at = self.at;
        let floor = self.depth;
        loop {
            let kind = self.kind()?;
            self.at += 1;
            match kind {
                Kind::Object => self.push(true)?,
                Kind::Array => self.push(false)?,
                Kind::String => _ = self.string()?,
                Kind::Number => self.number()?,
                Kind::Literal => self.literal()?,
            }
            // Leaves what ends here, up to where another value is due.
            loop {
                if self.depth == floor {
                    return Ok(Value { at, text: self.text.get(at..self.at).unwrap_or_default() });
                }
                let more = if self.open & 1 == 1 { self.key()?.is_some() } else { self.element()? };
                if more {
                    break;
                }
            }
        }
    }

    /// Passes the end of the text: blanks and NULs.
    ///
    /// # Errors
    ///
    /// Something else is there.
    pub fn end(&mut self) -> Result<(), Error> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | 0)) {
            self.at += 1;
        }
        if self.at < self.text.len() { Err(self.malformed()) } else { Ok(()) }
    }

    /// Passes a comma, or the opening bracket of the innermost container, and returns true; or `close`, and returns false.
    #[inline]
    fn continues(&mut self, close: u8) -> Result<bool, Error> {
        self.blanks();
        let more = match self.peek() {
            Some(b',') if !self.fresh => true,
            Some(byte) if byte == close => false,
            _ if self.fresh => {
                self.fresh = false;
                return Ok(true);
            }
            _ => return Err(self.malformed()),
        };
        self.at += 1;
        self.fresh = false;
        if !more {
            self.depth = self.depth.saturating_sub(1);
            self.open >>= 1;
        }
        Ok(more)
    }

    #[inline]
    fn push(&mut self, object: bool) -> Result<(), Error> {
        if self.depth as usize == DEPTH {
            return Err(Error::TooDeep { at: offset(self.at.saturating_sub(1)) });
        }
        self.depth += 1;
        self.open = self.open << 1 | u32::from(object);
        self.fresh = true;
        Ok(())
    }

    /// Passes a string whose opening quote lies behind; what stands before its closing one.
    #[inline]
    fn string(&mut self) -> Result<&'a [u8], Error> {
        let start = self.at;
        let mut at = start;
        loop {
            while let Some(eight) = self.text.get(at..).and_then(|rest| rest.first_chunk()) {
                let eight = u64::from_le_bytes(*eight);
                let hits = bytes_equal(eight, b'"') | bytes_equal(eight, b'\\');
                if hits != 0 {
                    at += (hits.trailing_zeros() / u8::BITS) as usize;
                    break;
                }
                at += size_of::<u64>();
            }
            match self.text.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(self.text.get(start..at).unwrap_or_default());
                }
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => return Err(Error::Malformed { at: offset(self.text.len()) }),
            }
        }
    }

    /// Passes a number whose first byte lies behind.
    #[inline]
    fn number(&mut self) -> Result<(), Error> {
        self.at -= 1;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        // RFC 8259 §6: no digit follows a leading zero.
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.malformed()) } else { Ok(()) }
    }

    /// Passes a literal whose first byte lies behind.
    #[inline]
    fn literal(&mut self) -> Result<(), Error> {
        let rest = self.text.get(self.at.saturating_sub(1)..).unwrap_or_default();
        for word in [&b"true"[..], b"false", b"null"] {
            if rest.starts_with(word) {
                self.at += word.len() - 1;
                return Ok(());
            }
        }
        Err(self.malformed())
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek() != Some(byte) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn malformed(&self) -> Error {
        Error::Malformed { at: offset(self.at) }
    }
}

#[inline]
const fn kind_of(first: u8) -> Option<Kind> {
    match first {
        b'{' => Some(Kind::Object),
        b'[' => Some(Kind::Array),
        b'"' => Some(Kind::String),
        b'-' | b'0'..=b'9' => Some(Kind::Number),
        b't' | b'f' | b'n' => Some(Kind::Literal),
        _ => None,
    }
}

/// The high bit of each of eight bytes that equals `byte`. Only the lowest one set is to be
/// trusted: a borrow may set others above it.
#[inline]
const fn bytes_equal(eight: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let zero_where_equal = eight ^ (LOW * byte as u64);
    zero_where_equal.wrapping_sub(LOW) & !zero_where_equal & HIGH
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use alloc::{format, string::String};
    use proptest::prelude::*;
    use serde_json::Value as Oracle;

    /// Any JSON value, not deeper than printers go.
    fn any_json() -> impl Strategy<Value = Oracle> {
        let leaf = prop_oneof![
            Just(Oracle::Null),
            any::<bool>().prop_map(Oracle::from),
            any::<i64>().prop_map(Oracle::from),
            (-1e12..1e12).prop_map(|number: f64| Oracle::from(number)),
            any::<String>().prop_map(Oracle::from),
            "[{}\\[\\]\",:\\\\]{0,20}".prop_map(Oracle::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Oracle::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Oracle::Object(members.into_iter().collect())),
            ]
        })
    }

    fn decoded<T: serde::de::DeserializeOwned>(text: &[u8]) -> T {
        serde_json::from_slice(text).unwrap()
    }

    /// Walks both all the way down.
    fn agree(text: &[u8], value: Value<'_>, oracle: &Oracle) {
        assert_eq!(&text[value.at..value.at + value.text.len()], value.text);
        assert_eq!(&decoded::<Oracle>(value.text), oracle);
        match oracle {
            Oracle::Object(map) => {
                assert_eq!(value.kind(), Kind::Object);
                let found: Vec<Member<'_>> = value.members().map(Result::unwrap).collect();
                for member in &found {
                    let quoted = &text[member.key.at..member.key.end()];
                    assert_eq!(quoted, [b"\"", member.key.text, b"\""].concat());
                    let key: String = decoded(quoted);
                    let last = found
                        .iter()
                        .rposition(|other| {
                            decoded::<String>(&text[other.key.at..other.key.end()]) == key
                        })
                        .unwrap();
                    agree(text, found[last].value, &map[&key]);
                }
                assert!(found.len() >= map.len());
            }
            Oracle::Array(list) => {
                assert_eq!(value.kind(), Kind::Array);
                let found: Vec<Value<'_>> = value.elements().map(Result::unwrap).collect();
                assert_eq!(found.len(), list.len());
                for (value, oracle) in found.into_iter().zip(list) {
                    agree(text, value, oracle);
                }
            }
            Oracle::String(_) => assert_eq!(value.kind(), Kind::String),
            Oracle::Number(number) => {
                assert_eq!(value.kind(), Kind::Number);
                // serde_json has no integer for this one.
                assert!(value.is_integer() != number.is_f64() || value.text == b"-0");
            }
            Oracle::Bool(_) | Oracle::Null => assert_eq!(value.kind(), Kind::Literal),
        }
    }

    fn agree_on_all(text: &[u8]) {
        let oracle: Oracle = decoded(text);
        let at = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap();
        agree(text, Cursor::new(text).pass().unwrap(), &oracle);
        assert_eq!(Cursor::new(text).pass().unwrap().at, at);
        assert_eq!(check(text), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_serde_json_writes_is_taken_apart_alike(json in any_json()) {
            agree_on_all(&serde_json::to_vec(&json).unwrap());
            agree_on_all(&serde_json::to_vec_pretty(&json).unwrap());
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            _ = check(&bytes);
            _ = members(&bytes).count();
            _ = elements(&bytes).count();
        }

        /// Text made of JSON's own characters is where a structure could be misjudged.
        #[test]
        fn what_is_nearly_json_is_judged_as_serde_json_does(
            text in "[{}\\[\\]\",:0-2.eE+\\-a\\\\ tn]{0,12}|[\\[{]?(\"a\":)?-?(0|true|1.5e0|nul|\"b\"|\\[\\]|\\{\\})?,?(\"a\":1)?[\\]}]?"
        ) {
            match serde_json::from_str::<Oracle>(&text) {
                Ok(_) => agree_on_all(text.as_bytes()),
                // Escapes and the size of numbers are all it knows better.
                Err(_) if text.contains(['\\', 'e', 'E']) => {}
                Err(_) => prop_assert!(check(text.as_bytes()).is_err(), "{text:?}"),
            }
        }

        #[test]
        fn a_cut_text_is_an_error(json in any_json(), cut in any::<prop::sample::Index>()) {
            let text = serde_json::to_vec(&serde_json::json!([json])).unwrap();
            let cut = cut.index(text.len());
            prop_assert!(check(&text[..cut]).is_err());
            prop_assert!(elements(&text[..cut]).any(|element| element.is_err()));
        }
    }

    #[test]
    fn the_deepest_text_passes_and_one_bracket_more_does_not() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(check(nested(DEPTH).as_bytes()), Ok(()));
            let at = (open.len() * DEPTH) as u32;
            assert_eq!(check(nested(DEPTH + 1).as_bytes()), Err(Error::TooDeep { at }));
        }
        assert_eq!(check(&alloc::vec![b'['; 200_000]), Err(Error::TooDeep { at: DEPTH as u32 }));
    }

    #[test]
    fn brackets_close_what_they_opened() {
        for text in ["[}", "{]", "[{]}", "[[]", "[]]", "{\"a\":[}", "[1 2]", "[1,]", "[,1]"] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        for text in
            ["{\"a\":1,}", "{,\"a\":1}", "{\"a\" 1}", "{\"a\":}", "{1:1}", "{\"a\":1 \"b\":2}"]
        {
            assert!(check(text.as_bytes()).is_err(), "{text}");
            assert!(members(text.as_bytes()).any(|member| member.is_err()), "{text}");
        }
    }

    #[test]
    fn numbers_and_literals_are_spelt_as_the_rfc_has_them() {
        for text in
            ["0", "-0", "10", "0.0", "-1.50", "1e5", "1E+05", "2.5e-3", "true", "false", "null"]
        {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        for text in [
            "00", "01", "-01", "-", "+1", ".5", "1.", "1.e1", "1e", "1e+", "0x1", "1-", "tru",
            "nul", "nan", "truE", "True",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn blanks_and_nuls_behind_the_text_are_no_part_of_it() {
        let text = b" {\"a\" : 1 } \n\0\0";
        let found: Vec<_> = members(text).map(Result::unwrap).collect();
        assert_eq!((found[0].key.text, found[0].value.text), (&b"a"[..], &b"1"[..]));
        assert_eq!(check(text), Ok(()));
        assert!(check(b"{}\0x").is_err());
        assert!(check(b"\0{}").is_err());
        assert!(check(b"{\0}").is_err());
    }

    #[test]
    fn a_string_is_any_bytes_up_to_its_closing_quote() {
        let text = b"{\"n\xff\\\"\x01\":\"\xc3\\\\\",\"m\":\"\\\\\\\"}\"}";
        let found: Vec<_> = members(text).map(Result::unwrap).collect();
        assert_eq!(found[0].key.text, b"n\xff\\\"\x01");
        assert_eq!(found[0].value.string(), Some(&b"\xc3\\\\"[..]));
        assert_eq!(found[1].value.string(), Some(&b"\\\\\\\"}"[..]));
    }

    /// The search for a closing quote goes eight bytes at a time.
    #[test]
    fn a_quote_is_found_at_every_distance_and_behind_every_byte() {
        for len in 0..40 {
            for byte in (0..=255u8).filter(|byte| !matches!(byte, b'"' | b'\\')) {
                let mut text = alloc::vec![byte; len + 2];
                text[0] = b'"';
                text[len + 1] = b'"';
                text.extend(b"   \"        ");
                assert_eq!(Cursor::new(&text).pass().unwrap().text.len(), len + 2);
            }
        }
    }

    #[test]
    fn an_iterator_ends_with_its_first_error() {
        let mut broken = members(b"{\"a\":1,\"b\":?,\"c\":2}");
        assert!(matches!(broken.next(), Some(Ok(_))));
        assert_eq!(broken.next(), Some(Err(Error::Malformed { at: 11 })));
        assert_eq!(broken.next(), None);
    }
}
