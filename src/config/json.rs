//! A settings file that is one flat JSON object, such as a Home Assistant add-on's options.
//!
//! Keys are those of `KEY=VALUE` lines, in any case. A value is text, a whole number, `true`, `false`, or `null` for none.

use alloc::string::String;
use core::iter::FusedIterator;

use zeroize::Zeroizing;

/// What is said of any other text.
pub const EXPECTED: &str =
    "expected one JSON object of text, whole numbers, true, false and null: {\"KEY\": VALUE, …}";

/// What is said of any other value.
pub const EXPECTED_VALUE: &str = "expected text, a whole number, true, false or null";

/// A setting of the object.
#[derive(Debug)]
pub struct Member {
    /// Line in which its key stands, from 1.
    pub line: usize,
    /// Its key.
    pub key: Zeroizing<String>,
    /// Its value; empty for `null`.
    pub value: Zeroizing<String>,
}

/// A syntax error.
#[derive(Debug)]
pub struct Fault {
    /// Its line, from 1.
    pub line: usize,
    /// The key whose value it is in; `None` between members.
    pub key: Option<Zeroizing<String>>,
}

/// The members of an object, up to the first fault.
#[derive(Debug)]
pub struct Object<'a> {
    text: &'a str,
    rest: &'a str,
    is_first: bool,
    /// Whether the object, or what is read of it, has ended.
    is_over: bool,
}

impl<'a> Object<'a> {
    /// `None` where the text is not JSON, but lines.
    pub fn begun(text: &'a str) -> Option<Self> {
        let rest = text.trim_start().strip_prefix('{')?;
        Some(Self { text, rest, is_first: true, is_over: false })
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
    fn member(&mut self) -> Option<Result<Member, Fault>> {
        if self.has('}') {
            self.skip_space();
            return if self.rest.is_empty() { None } else { Some(Err(self.fault())) };
        }
        if !core::mem::take(&mut self.is_first) && !self.has(',') {
            return Some(Err(self.fault()));
        }
        Some(self.pair())
    }

    fn pair(&mut self) -> Result<Member, Fault> {
        self.skip_space();
        let line = self.line();
        let key = self.string().ok_or_else(|| self.fault())?;
        if !self.has(':') {
            return Err(self.fault());
        }
        self.skip_space();
        let value = if self.rest.starts_with('"') { self.string() } else { self.word() };
        match value {
            Some(value) => Ok(Member { line, key, value }),
            None => Err(Fault { line: self.line(), key: Some(key) }),
        }
    }

    /// A fault outside of a value.
    fn fault(&self) -> Fault {
        Fault { line: self.line(), key: None }
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
        if raw.contains(|c| c < ' ') {
            return None;
        }
        let text = unescaped(raw)?;
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
    /// A member, or the syntax error that ends the reading.
    type Item = Result<Member, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let member = self.member();
        self.is_over = !matches!(member, Some(Ok(_)));
        member
    }
}

impl FusedIterator for Object<'_> {}

/// A string's text, with its escapes replaced (RFC 8259 §7). `None`: one of them is none, or half of a surrogate pair.
fn unescaped(raw: &str) -> Option<Zeroizing<String>> {
    // The text has no more bytes than its escaped form: it is not copied while it grows.
    let mut text = Zeroizing::new(String::with_capacity(raw.len()));
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut after = escape.chars();
        let c = match after.next()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (c, behind) = utf16(after.as_str())?;
                after = behind.chars();
                c
            }
            _ => return None,
        };
        text.push(c);
        rest = after.as_str();
    }
    text.push_str(rest);
    Some(text)
}

/// The character of `XXXX`, or of `XXXX\uXXXX` where it has two units of UTF-16, and what stands behind.
fn utf16(text: &str) -> Option<(char, &str)> {
    let (first, behind) = unit(text)?;
    if let Some(c) = char::from_u32(first.into()) {
        return Some((c, behind));
    }
    let (second, behind) = unit(behind.strip_prefix("\\u")?)?;
    let c = char::decode_utf16([first, second]).next()?.ok()?;
    Some((c, behind))
}

/// Four hexadecimal digits, and what stands behind.
fn unit(text: &str) -> Option<(u16, &str)> {
    let (digits, behind) = text.split_at_checked(4)?;
    // A sign would be read as well.
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let unit = u16::from_str_radix(digits, 16).ok().filter(|_| is_plain)?;
    Some((unit, behind))
}
