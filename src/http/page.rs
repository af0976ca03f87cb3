//! A long text written piece by piece into a buffer of fixed size, although what it shows may change between two pieces.
//!
//! A text is a sequence of items, each with a key that says where it stands. An item is written whole or not at all. The next
//! piece begins with the first item that has no smaller key than the one that did not fit: a client that has left
//! meanwhile is missing, one that has come is there or not, and the text keeps its form.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | an item | the buffer | left out |

use core::fmt::{self, Write};

/// Where a text goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The smallest key that has not been written.
    next: u32,
    /// Whether the next element of a list has one before it.
    has_before: bool,
}

/// One piece of a text.
pub struct Page<'o> {
    out: &'o mut [u8],
    len: usize,
    cursor: Cursor,
    is_full: bool,
}

impl<'o> Page<'o> {
    /// The piece that begins at `cursor` and fits `out`.
    pub const fn new(out: &'o mut [u8], cursor: Cursor) -> Self {
        Self { out, len: 0, cursor, is_full: false }
    }

    /// Bytes written, and where the text goes on; `None`: it is complete.
    pub const fn end(self) -> (usize, Option<Cursor>) {
        (self.len, if self.is_full { Some(self.cursor) } else { None })
    }

    /// An item of its own.
    pub fn item(&mut self, key: u32, text: fmt::Arguments<'_>) {
        self.write(key, "", text);
    }

    /// The item that opens a list.
    pub fn open(&mut self, key: u32, text: fmt::Arguments<'_>) {
        if self.write(key, "", text) {
            self.cursor.has_before = false;
        }
    }

    /// An element of a list, behind a comma unless it is the first.
    pub fn element(&mut self, key: u32, text: fmt::Arguments<'_>) {
        let comma = if self.cursor.has_before { "," } else { "" };
        if self.write(key, comma, text) {
            self.cursor.has_before = true;
        }
    }

    /// Writes an item if its turn has come. Whether it is written.
    fn write(&mut self, key: u32, before: &str, text: fmt::Arguments<'_>) -> bool {
        if self.is_full || key < self.cursor.next {
            return false;
        }
        let mut room = Room { out: self.out.get_mut(self.len..).unwrap_or_default(), len: 0 };
        let written = room.write_str(before).and_then(|()| room.write_fmt(text)).is_ok();
        if written {
            self.len += room.len;
        } else if self.len > 0 {
            self.is_full = true;
            self.cursor.next = key;
            return false;
        }
        self.cursor.next = key.saturating_add(1);
        written
    }
}

/// Text that is written into bytes, and fails when they are full.
pub(super) struct Room<'o> {
    pub(super) out: &'o mut [u8],
    pub(super) len: usize,
}

impl Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.out.get_mut(self.len..).and_then(|room| room.get_mut(..text.len()));
        place.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// A value as a JSON string, without its quotes; a label of Prometheus has the same form.
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                c if c.is_control() => self.0.write_char('?')?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A value as JSON: a string, or `null`.
pub struct Text<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "\"{}\"", Quoted(text)),
            None => f.write_str("null"),
        }
    }
}

/// A value as JSON: a number, a truth value, or `null`.
pub struct Bare<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for Bare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// A text as JSON, `null` if it is empty.
pub fn text(text: &str) -> Text<&str> {
    Text(Some(text).filter(|text| !text.is_empty()))
}

/// Bytes as browsers and openssl show a fingerprint.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for byte in self.0 {
            write!(f, "{separator}{byte:02X}")?;
            separator = ":";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    /// A list of these numbers, in pieces of so many bytes.
    fn pieces(size: usize, lists: &[&[u32]]) -> String {
        let (mut cursor, mut all) = (Cursor::default(), String::new());
        let mut out = vec![0; size];
        for round in 0.. {
            let mut page = Page::new(&mut out, cursor);
            let list = lists.get(round).or(lists.last()).unwrap();
            page.open(0, format_args!("["));
            for n in *list {
                page.element(1 + n, format_args!("{n}"));
            }
            page.item(1000, format_args!("]"));
            let (len, next) = page.end();
            all.push_str(core::str::from_utf8(&out[..len]).unwrap());
            match next {
                Some(next) => cursor = next,
                None => return all,
            }
        }
        unreachable!("it ends")
    }

    #[test]
    fn a_text_is_the_same_in_pieces_of_any_size() {
        for size in 4..20 {
            assert_eq!(pieces(size, &[&[1, 22, 33]]), "[1,22,33]", "{size}");
        }
    }

    #[test]
    fn a_text_keeps_its_form_while_it_changes() {
        assert_eq!(pieces(4, &[&[1, 22, 33], &[33, 44]]), "[1,33,44]");
        assert_eq!(pieces(4, &[&[11, 22, 33], &[]]), "[11]");
    }

    #[test]
    fn an_item_that_never_fits_is_left_out() {
        assert_eq!(pieces(3, &[&[1, 22, 333]]), "[1,22]");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(alloc::format!("{}", Text(Some("a\"\\\n\u{7f}é"))), "\"a\\\"\\\\??é\"");
        assert_eq!(alloc::format!("{} {}", text(""), Bare::<u32>(None)), "null null");
    }
}
