//! FTP lines: commands, replies, and the addresses in them (RFC 959, 2389, 2428, 3659, 4217).
//!
//! # On the wire
//!
//! ```text
//!   command   VERB [SP argument] CRLF          the argument is the rest of the line: names have spaces
//!   reply     ddd SP text CRLF
//!             ddd-text CRLF … ddd SP text CRLF  any text on the lines between
//! ```
//!
//! Nothing is copied or allocated, and no input panics. LF alone ends a line as well. Telnet commands before ABOR are
//! skipped.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a command line | [`LINE`] bytes, CRLF included | [`Taken::TooLong`] |
//! | a reply line | [`LINE`] bytes, CRLF included | [`Taken::TooLong`]; the caller cuts it |
//! | a verb | 16 letters | [`Fault::Verb`] |

use core::fmt::{self, Write};
use core::net::Ipv4Addr;

/// Bytes in the longest line, CRLF included: room for a path of 255 characters of three bytes each.
pub const LINE: usize = 1024;

/// Letters in the longest verb.
const VERB: usize = 16;

/// Telnet's "interpret as command", and the first of the commands it introduces.
const IAC: u8 = 0xff;
const IAC_FIRST: u8 = 0xf0;

/// The first line of the bytes that a peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'i> {
    /// No whole line yet.
    Partial,
    /// A line without its end, and its bytes with the end.
    Line(&'i [u8], usize),
    /// More than [`LINE`] bytes without an end.
    TooLong,
}

/// The first line of `input`.
pub fn line(input: &[u8]) -> Taken<'_> {
    let looked_at = input.get(..LINE).unwrap_or(input);
    match looked_at.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let text = looked_at.get(..end).unwrap_or_default();
            Taken::Line(text.strip_suffix(b"\r").unwrap_or(text), end + 1)
        }
        None if input.len() >= LINE => Taken::TooLong,
        None => Taken::Partial,
    }
}

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The line does not begin with a word of letters.
    Verb,
    /// The line has a NUL.
    Nul,
    /// The line has a CR that is not followed by LF.
    BareCr,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verb => "line without a command",
            Self::Nul => "line with a NUL",
            Self::BareCr => "line with a bare CR",
        })
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'i> {
    /// Its verb.
    pub verb: Verb,
    /// The rest of the line; empty if there is none.
    pub argument: &'i [u8],
    /// The whole line, without telnet commands.
    pub line: &'i [u8],
}

/// Parses a line that [`line()`] gave.
///
/// # Errors
///
/// The line is not a command; the [`Fault`] says why.
pub fn command(line: &[u8]) -> Result<Command<'_>, Fault> {
    let line = after_telnet(line);
    if line.contains(&0) {
        return Err(Fault::Nul);
    }
    if line.contains(&b'\r') {
        return Err(Fault::BareCr);
    }
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    if word.is_empty() || word.len() > VERB || !word.iter().all(u8::is_ascii_alphabetic) {
        return Err(Fault::Verb);
    }
    Ok(Command { verb: Verb::of(word), argument: rest.strip_prefix(b" ").unwrap_or(rest), line })
}

/// The line without the telnet commands before it: IP and DM precede ABOR (RFC 959 section 4.1.3), and DM is lost if it was
/// sent as urgent data.
fn after_telnet(mut line: &[u8]) -> &[u8] {
    loop {
        line = match line {
            [IAC, IAC, ..] | [IAC] => line.get(1..).unwrap_or_default(),
            [IAC, IAC_FIRST..=0xfe, rest @ ..] => rest,
            [IAC, rest @ ..] => rest,
            _ => return line,
        };
    }
}

/// A command's verb. Verbs without a treatment of their own are [`Other`](Self::Other).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the standards")]
pub enum Verb {
    User,
    Pass,
    Quit,
    Noop,
    Type,
    Mode,
    Stru,
    Pbsz,
    Prot,
    Pasv,
    Epsv,
    Opts,
    Abor,
    Stat,
    Cwd,
    Cdup,
    Rest,
    Rnfr,
    Rnto,
    Allo,
    Size,
    Feat,
    List,
    Nlst,
    Mlsd,
    Retr,
    Stor,
    Stou,
    Appe,
    /// PORT, EPRT, LPRT: active mode.
    Port,
    /// AUTH, ADAT, CCC and other verbs that change how the connection is protected.
    Auth,
    /// REIN, ACCT, LPSV, CPSV, SSCN, HOST, LANG: not supported.
    Unserved,
    Other,
}

impl Verb {
    fn of(word: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 50] = [
            (b"USER", Verb::User),
            (b"PASS", Verb::Pass),
            (b"QUIT", Verb::Quit),
            (b"NOOP", Verb::Noop),
            (b"TYPE", Verb::Type),
            (b"MODE", Verb::Mode),
            (b"STRU", Verb::Stru),
            (b"PBSZ", Verb::Pbsz),
            (b"PROT", Verb::Prot),
            (b"PASV", Verb::Pasv),
            (b"EPSV", Verb::Epsv),
            (b"OPTS", Verb::Opts),
            (b"ABOR", Verb::Abor),
            (b"STAT", Verb::Stat),
            (b"CWD", Verb::Cwd),
            (b"XCWD", Verb::Cwd),
            (b"CDUP", Verb::Cdup),
            (b"XCUP", Verb::Cdup),
            (b"REST", Verb::Rest),
            (b"RNFR", Verb::Rnfr),
            (b"RNTO", Verb::Rnto),
            (b"ALLO", Verb::Allo),
            (b"SIZE", Verb::Size),
            (b"FEAT", Verb::Feat),
            (b"LIST", Verb::List),
            (b"NLST", Verb::Nlst),
            (b"MLSD", Verb::Mlsd),
            (b"RETR", Verb::Retr),
            (b"STOR", Verb::Stor),
            (b"STOU", Verb::Stou),
            (b"APPE", Verb::Appe),
            (b"PORT", Verb::Port),
            (b"EPRT", Verb::Port),
            (b"LPRT", Verb::Port),
            (b"AUTH", Verb::Auth),
            (b"ADAT", Verb::Auth),
            (b"CCC", Verb::Auth),
            (b"CDC", Verb::Auth),
            (b"MIC", Verb::Auth),
            (b"CONF", Verb::Auth),
            (b"ENC", Verb::Auth),
            (b"REIN", Verb::Unserved),
            (b"ACCT", Verb::Unserved),
            (b"SMNT", Verb::Unserved),
            (b"LPSV", Verb::Unserved),
            (b"CPSV", Verb::Unserved),
            (b"SPSV", Verb::Unserved),
            (b"SSCN", Verb::Unserved),
            (b"HOST", Verb::Unserved),
            (b"LANG", Verb::Unserved),
        ];
        VERBS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map_or(Self::Other, |(_, verb)| *verb)
    }
}

/// One line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLine {
    /// Its code, if it begins with one.
    pub code: Option<u16>,
    /// Whether more lines of the reply follow.
    pub goes_on: bool,
}

/// Parses the beginning of a reply's line.
pub fn reply_line(line: &[u8]) -> ReplyLine {
    let (code, goes_on) = match line {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
            let digit = |byte: &u8| u16::from(*byte - b'0');
            let code = 100 * digit(a) + 10 * digit(b) + digit(c);
            match rest {
                [b'-', ..] => (Some(code), true),
                [] | [b' ', ..] => (Some(code), false),
                _ => (None, true),
            }
        }
        _ => (None, true),
    };
    ReplyLine { code, goes_on }
}

/// Finds the last line of each reply of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// The code of the reply whose last line has not come.
    open: Option<u16>,
}

/// A line's position in its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More lines of the reply of this code follow.
    More(u16),
    /// The last line, or the only one.
    Last(u16),
}

impl Replies {
    /// Whether a reply has begun whose last line has not come.
    pub const fn is_open(self) -> bool {
        self.open.is_some()
    }

    /// The position of `line`. `None`: it does not belong to a reply.
    pub fn take(&mut self, line: &[u8]) -> Option<Part> {
        let ReplyLine { code, goes_on } = reply_line(line);
        match (self.open, code) {
            (Some(open), Some(code)) if open == code && !goes_on => {
                self.open = None;
                Some(Part::Last(code))
            }
            (Some(open), _) => Some(Part::More(open)),
            (None, Some(code)) if goes_on => {
                self.open = Some(code);
                Some(Part::More(code))
            }
            (None, Some(code)) => Some(Part::Last(code)),
            (None, None) => None,
        }
    }
}

/// The port in a 227 or 229. The address in a 227 is ignored: printers send wrong ones ([protocol](crate::protocol#ftps)).
pub fn passive_port(code: u16, line: &[u8]) -> Option<u16> {
    match code {
        229 => extended_port(line),
        227 => six_numbers(line),
        _ => None,
    }
}

/// `229 Entering Extended Passive Mode (|||50077|)`, with any sign in place of `|`.
fn extended_port(line: &[u8]) -> Option<u16> {
    let open = line.iter().rposition(|byte| *byte == b'(')?;
    let inside = line.get(open + 1..)?;
    let sign = inside.first()?;
    let rest = inside.strip_prefix(&[*sign, *sign, *sign])?;
    let end = rest.iter().position(|byte| byte == sign)?;
    number(rest.get(..end)?).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// `227 Entering Passive Mode (0,0,0,0,7,232)`; some servers leave the parentheses out.
fn six_numbers(line: &[u8]) -> Option<u16> {
    let text = line.get(3..)?;
    let start = text.iter().position(u8::is_ascii_digit)?;
    let mut numbers = text.get(start..)?.splitn(6, |byte| *byte == b',');
    let mut next = || {
        let piece = numbers.next()?.trim_ascii();
        let end = piece.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(piece.len());
        number(piece.get(..end)?).and_then(|number| u8::try_from(number).ok())
    };
    for _ in 0..4 {
        next()?;
    }
    let port = u16::from_be_bytes([next()?, next()?]);
    (port > 0).then_some(port)
}

/// A decimal number without sign or spaces.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// The size in a 213, or in `150 Opening BINARY mode data connection for a (1234 bytes).`.
pub fn size_in(code: u16, line: &[u8]) -> Option<u64> {
    let text = line.get(4..)?;
    match code {
        213 => number(text.trim_ascii()),
        _ => {
            let end = text.windows(6).rposition(|word| word.eq_ignore_ascii_case(b" bytes"))?;
            let before = text.get(..end)?;
            let start = before.iter().rposition(|byte| !byte.is_ascii_digit())?;
            (before.get(start) == Some(&b'('))
                .then(|| before.get(start + 1..))
                .flatten()
                .and_then(number)
        }
    }
}

/// Writes the path of a 257 into `into`: the path is in quotes, and a quote in it is doubled. `false`: there is none, or it
/// does not fit.
pub fn quoted<const N: usize>(line: &[u8], into: &mut heapless::Vec<u8, N>) -> bool {
    into.clear();
    let Some(start) = line.iter().position(|byte| *byte == b'"') else { return false };
    let mut rest = line.get(start + 1..).unwrap_or_default();
    loop {
        rest = match rest {
            [b'"', b'"', rest @ ..] => {
                if into.push(b'"').is_err() {
                    return false;
                }
                rest
            }
            [b'"', ..] => return !into.is_empty(),
            [byte, rest @ ..] => {
                if into.push(*byte).is_err() {
                    return false;
                }
                rest
            }
            [] => return false,
        };
    }
}

/// Writes a 227 reply.
///
/// # Errors
///
/// Errors of `out`.
pub fn write_227(out: &mut impl Write, address: Ipv4Addr, port: u16) -> fmt::Result {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    write!(out, "227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
}

/// Writes a 229 reply.
///
/// # Errors
///
/// Errors of `out`.
pub fn write_229(out: &mut impl Write, port: u16) -> fmt::Result {
    write!(out, "229 Entering Extended Passive Mode (|||{port}|)")
}

/// A name from the wire for the log: control characters escaped, at most 80 characters.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

/// Most characters that are shown.
const SHOWN: usize = 80;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = SHOWN;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if left == 0 {
                    return f.write_char('…');
                }
                left -= 1;
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                if left == 0 {
                    return f.write_char('…');
                }
                left -= 1;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn verb(line: &[u8]) -> Result<Verb, Fault> {
        command(line).map(|command| command.verb)
    }

    #[test]
    fn a_line_is_found_wherever_it_is_split_and_whatever_ends_it() {
        for end in [&b"\r\n"[..], b"\n"] {
            let bytes = [b"STOR a b.3mf", end, b"NOOP\r\n"].concat();
            let whole = 12 + end.len();
            for split in 0..whole {
                assert_eq!(line(&bytes[..split]), Taken::Partial, "split at {split}");
            }
            for split in whole..bytes.len() {
                assert_eq!(line(&bytes[..split]), Taken::Line(b"STOR a b.3mf", whole));
            }
        }
    }

    #[test]
    fn the_longest_line_is_taken_and_one_byte_more_is_not() {
        let mut bytes = [b'x'; LINE + 1];
        bytes[LINE - 2..LINE].copy_from_slice(b"\r\n");
        assert_eq!(line(&bytes[..LINE]), Taken::Line(&bytes[..LINE - 2], LINE));
        let mut bytes = [b'x'; LINE + 1];
        assert_eq!(line(&bytes[..LINE - 1]), Taken::Partial);
        bytes[LINE] = b'\n';
        assert_eq!(line(&bytes), Taken::TooLong);
    }

    #[test]
    fn verbs_ignore_case_and_the_argument_is_the_rest_of_the_line() {
        let stor = command("stOr  übung 1.3mf ".as_bytes()).unwrap();
        assert_eq!((stor.verb, stor.argument), (Verb::Stor, " übung 1.3mf ".as_bytes()));
        assert_eq!(command(b"CDUP").unwrap().argument, b"");
        assert_eq!(verb(b"xcwd a"), Ok(Verb::Cwd));
        assert_eq!(verb(b"AVBL"), Ok(Verb::Other));
        assert_eq!(verb(b"eprt |1|10.0.0.1|5|"), Ok(Verb::Port));
    }

    #[test]
    fn telnet_before_abor_is_skipped_even_without_its_urgent_byte() {
        for before in [&b"\xff\xf4\xff\xf2"[..], b"\xff\xf4\xff", b"\xff\xf2", b"\xff", b""] {
            assert_eq!(verb(&[before, b"ABOR"].concat()), Ok(Verb::Abor), "{before:?}");
        }
    }

    #[test]
    fn malformed_commands_are_rejected() {
        assert_eq!(verb(b""), Err(Fault::Verb));
        assert_eq!(verb(b" NOOP"), Err(Fault::Verb));
        assert_eq!(verb(b"GET / HTTP/1.1"), Ok(Verb::Other));
        assert_eq!(verb(b"\x16\x03\x01\x02"), Err(Fault::Verb));
        assert_eq!(verb(b"ABCDEFGHIJKLMNOPQ"), Err(Fault::Verb));
        assert_eq!(verb(b"STOR a\0b"), Err(Fault::Nul));
        assert_eq!(verb(b"STOR a\rDELE b"), Err(Fault::BareCr));
    }

    #[test]
    fn a_reply_ends_where_its_own_code_comes_back_without_a_dash() {
        let mut replies = Replies::default();
        assert_eq!(replies.take(b"220-welcome"), Some(Part::More(220)));
        assert_eq!(replies.take(b" 220 not yet"), Some(Part::More(220)));
        assert_eq!(replies.take(b"221 nor this"), Some(Part::More(220)));
        assert_eq!(replies.take(b"220-nor this"), Some(Part::More(220)));
        assert_eq!(replies.take(b""), Some(Part::More(220)));
        assert_eq!(replies.take(b"220 now"), Some(Part::Last(220)));
        assert_eq!(replies.take(b"226"), Some(Part::Last(226)));
        for odd in [&b"hello"[..], b"", b"22", b"2201 x", b"990 x"] {
            assert_eq!(replies.take(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn passive_ports_are_read_however_they_are_put() {
        for (text, port) in [
            ("229 Entering Extended Passive Mode (|||50077|)", Some(50077)),
            ("229 ok (!!!2024!)", Some(2024)),
            ("229 (a) then (|||7|).", Some(7)),
            ("229 (|||0|)", None),
            ("229 (|||65536|)", None),
            ("229 (||50077|)", None),
            ("229 (|||", None),
            ("227 Entering Passive Mode (0,0,0,0,7,232).", Some(2024)),
            ("227 Entering Passive Mode 192,168,0,9,195,157", Some(50077)),
            ("227 (1, 2, 3, 4, 0, 21)", Some(21)),
            ("227 (1,2,3,4,256,1)", None),
            ("227 (1,2,3,4,1)", None),
            ("227 (1,2,3,4,0,0)", None),
            ("227", None),
            ("200 (|||50077|)", None),
        ] {
            let code = text[..3].parse().unwrap();
            assert_eq!(passive_port(code, text.as_bytes()), port, "{text}");
        }
    }

    #[test]
    fn quoted_paths_are_unquoted() {
        let mut path = heapless::Vec::<u8, 8>::new();
        assert!(quoted(b"257 \"/a\"\"b\" is it", &mut path));
        assert_eq!(path, b"/a\"b");
        assert!(quoted(b"257 \"12345678\"", &mut path));
        for odd in [&b"257 /a"[..], b"257 \"/a", b"257 \"123456789\"", b"257 \"\" x"] {
            assert!(!quoted(odd, &mut path), "{odd:?}");
        }
    }

    #[test]
    fn sizes_are_found_where_servers_put_them() {
        assert_eq!(size_in(213, b"213 104857600"), Some(104_857_600));
        assert_eq!(size_in(213, b"213 x"), None);
        assert_eq!(size_in(150, b"150 Opening BINARY mode for a (1).3mf (77 bytes)."), Some(77));
        assert_eq!(size_in(150, b"150 Ok to send data."), None);
        assert_eq!(size_in(150, b"150 77 bytes"), None);
        assert_eq!(size_in(150, b"150"), None);
    }

    #[test]
    fn a_name_in_the_log_is_one_line_and_ends() {
        assert_eq!(format!("{}", Shown("übung 1.3mf".as_bytes())), "übung 1.3mf");
        assert_eq!(format!("{}", Shown(b"a\"\x1b[2J\n\xff")), "a\\\"\\u{1b}[2J\\n\\xff");
        assert_eq!(format!("{}", Shown(&[b'x'; 200])).chars().count(), SHOWN + 1);
    }

    #[test]
    fn addresses_are_written_as_clients_read_them() {
        let mut out = String::new();
        write_227(&mut out, Ipv4Addr::new(10, 0, 0, 7), 2024).unwrap();
        assert_eq!(out, "227 Entering Passive Mode (10,0,0,7,7,232).");
        assert_eq!(passive_port(227, out.as_bytes()), Some(2024));
        let mut out = String::new();
        write_229(&mut out, 2043).unwrap();
        assert_eq!(passive_port(229, out.as_bytes()), Some(2043));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            if let Taken::Line(text, len) = line(&bytes) {
                prop_assert!(len <= LINE && text.len() < len);
                let _any = command(text);
                let _any = Replies::default().take(text);
            }
            let _any = command(&bytes);
            for code in [213, 150, 227, 229] {
                let _any = passive_port(code, &bytes);
                let _any = size_in(code, &bytes);
            }
            let _any = quoted(&bytes, &mut heapless::Vec::<u8, 64>::new());
            let shown = format!("{}", Shown(&bytes));
            prop_assert!(!shown.contains(char::is_control));
        }

        #[test]
        fn a_path_that_a_server_quotes_comes_back(path in "[ -~]{1,60}") {
            let line = format!("257 \"{}\" is current", path.replace('"', "\"\""));
            let mut read = heapless::Vec::<u8, 64>::new();
            prop_assert!(quoted(line.as_bytes(), &mut read));
            prop_assert_eq!(read.as_slice(), path.as_bytes());
        }

        #[test]
        fn splits_do_not_change_which_lines_there_are(
            lines in proptest::collection::vec("[ -~]{0,20}", 1..6),
        ) {
            let bytes = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat());
            let bytes: Vec<u8> = bytes.collect();
            let mut seen = Vec::new();
            let (mut start, mut end) = (0, 0);
            while end <= bytes.len() {
                match line(&bytes[start..end]) {
                    Taken::Line(text, len) => {
                        seen.push(String::from_utf8(text.to_vec()).unwrap());
                        start += len;
                    }
                    Taken::Partial => end += 1,
                    Taken::TooLong => unreachable!(),
                }
            }
            prop_assert_eq!(seen, lines);
        }
    }
}
