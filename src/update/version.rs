//! Which of two versions is the later one.
//!
//! A version is `MAJOR.MINOR.PATCH` with any number of parts, as a tag has it, or behind a tag
//! `MAJOR.MINOR.PATCH.devN+gHASH`, `N` commits later (`boards/build.rs`). Other names cannot be compared.

use alloc::string::String;
use core::cmp::Ordering;

use super::header::Header;
use super::refusal::Refusal;

/// What an update would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The file has another version than the installed one.
    Change,
    /// The file has the installed version.
    Nothing,
}

/// Whether the update's version may take the place of `installed`.
///
/// # Errors
///
/// [`Refusal::Downgrade`], or [`Refusal::NotOrdered`], unless downgrades are allowed.
pub fn step(header: &Header, installed: &str, allows_downgrade: bool) -> Result<Step, Refusal> {
    let to = &header.version;
    if **to == *installed {
        return Ok(Step::Nothing);
    }
    if allows_downgrade {
        return Ok(Step::Change);
    }
    let name = || (String::from(to.as_str()), String::from(installed));
    match compare(to, installed) {
        Some(Ordering::Greater) => Ok(Step::Change),
        Some(Ordering::Less) => {
            let (to, from) = name();
            Err(Refusal::Downgrade { to, from })
        }
        // Two builds of one commit count, or names that are no versions.
        Some(Ordering::Equal) | None => {
            let (to, from) = name();
            Err(Refusal::NotOrdered { to, from })
        }
    }
}

/// How `a` stands to `b`, if both are versions.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (mut a, mut b) = (Parts::of(a)?, Parts::of(b)?);
    loop {
        match (a.next()?, b.next()?) {
            (None, None) => return Some(a.commits.cmp(&b.commits)),
            // A part that is absent is 0.
            (x, y) => match x.unwrap_or(0).cmp(&y.unwrap_or(0)) {
                Ordering::Equal => {}
                order @ (Ordering::Less | Ordering::Greater) => return Some(order),
            },
        }
    }
}

/// The parts of a version.
struct Parts<'a> {
    numbers: Option<&'a str>,
    /// Commits behind the tag.
    commits: u32,
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Option<Self> {
        let version = version.strip_prefix('v').unwrap_or(version);
        // What stands behind `+` names a build.
        let version = version.split('+').next().unwrap_or(version);
        let (numbers, commits) = match version.split_once(".dev") {
            Some((numbers, commits)) => (numbers, number(commits)?),
            None => (version, 0),
        };
        Some(Self { numbers: Some(numbers), commits })
    }

    /// The next part; `Some(None)` behind the last one, `None` if it is no number.
    fn next(&mut self) -> Option<Option<u32>> {
        let Some(numbers) = self.numbers.take() else { return Some(None) };
        let (first, rest) = match numbers.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (numbers, None),
        };
        self.numbers = rest;
        number(first).map(Some)
    }
}

fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}
