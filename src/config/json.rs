//! A settings file that is one flat JSON object, such as a Home Assistant add-on's options.
//!
//! Keys are those of `KEY=VALUE` lines, in any case. A value is text, a whole number, `true`, `false`, or `null` for none.

use alloc::string::String;

use serde_json_core::str::{EscapedStr, EscapedStringFragment};
use zeroize::Zeroizing;

/// What is said of any other text.
pub(super) const EXPECTED: &str =
    "expected one JSON object of text, whole numbers, true, false and null: {\"KEY\": VALUE, …}";

/// A setting of the object.
pub(super) struct Member {
    /// Line in which its key stands, from 1.
    pub(super) line: usize,
    pub(super) key: Zeroizing<String>,
    /// Empty for `null`.
    pub(super) value: Zeroizing<String>,
}

/// The members of an object, up to the first fault, whose line it has.
pub(super) struct Object<'a> {
    text: &'a str,
    rest: &'a str,
    is_first: bool,
}

impl<'a> Object<'a> {
    /// `None` where the text is not JSON, but lines.
    pub(super) fn begun(text: &'a str) -> Option<Self> {
        let rest = text.trim_start().strip_prefix('{')?;
        Some(Self { text, rest, is_first: true })
    }

    fn line(&self) -> usize {
        let read = self.text.len() - self.rest.len();
        let newlines = self.text.bytes().take(read).filter(|byte| *byte == b'\n').count();
        newlines + 1
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// Whether `mark` comes next; it is then read.
    fn has(&mut self, mark: char) -> bool {
        self.skip_space();
        let behind = self.rest.strip_prefix(mark);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// The next member; `None` at the end of the object and the text.
    fn member(&mut self) -> Option<Option<Member>> {
        if self.has('}') {
            self.skip_space();
            return if self.rest.is_empty() { None } else { Some(None) };
        }
        if !core::mem::take(&mut self.is_first) && !self.has(',') {
            return Some(None);
        }
        Some(self.pair())
    }

    fn pair(&mut self) -> Option<Member> {
        self.skip_space();
        let line = self.line();
        let key = self.string()?;
        if !self.has(':') {
            return None;
        }
        self.skip_space();
        let value = if self.rest.starts_with('"') { self.string() } else { self.word() }?;
        Some(Member { line, key, value })
    }

    /// Text between quotes, with its escapes replaced.
    fn string(&mut self) -> Option<Zeroizing<String>> {
        let inside = self.rest.strip_prefix('"')?;
        let mut is_escaped = false;
        let end = inside.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })?;
        let (raw, behind) = inside.split_at_checked(end)?;
        if raw.contains(char::is_control) {
            return None;
        }
        // The text has no more bytes than its escaped form: it is not copied while it grows.
        let mut text = Zeroizing::new(String::with_capacity(raw.len()));
        for fragment in EscapedStr(raw).fragments() {
            match fragment.ok()? {
                EscapedStringFragment::NotEscaped(part) => text.push_str(part),
                EscapedStringFragment::Escaped(c) => text.push(c),
            }
        }
        self.rest = behind.strip_prefix('"')?;
        Some(text)
    }

    /// A value without quotes, as it is written.
    fn word(&mut self) -> Option<Zeroizing<String>> {
        let end = self.rest.find([',', '}', ' ', '\t', '\r', '\n'])?;
        let (word, behind) = self.rest.split_at_checked(end)?;
        self.rest = behind;
        let digits = word.strip_prefix('-').unwrap_or(word);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match word {
            "null" => Some(Zeroizing::default()),
            "true" | "false" => Some(Zeroizing::new(word.into())),
            _ => is_number.then(|| Zeroizing::new(word.into())),
        }
    }
}

impl Iterator for Object<'_> {
    /// A member, or the line of the syntax error.
    type Item = Result<Member, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.member()?.ok_or_else(|| self.line()))
    }
}
