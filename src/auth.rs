//! Login: the printer's access code, and a limit to the guesses from one origin.
//!
//! Clients log in as the user [`USER`] with the printer's own access code, as they would at the printer
//! ([`protocol`](crate::protocol#mqtt)). The code is compared in constant time, never printed, and wiped
//! when dropped.
//!
//! An eight-digit code can be guessed. [`WRONG_CODES`] guesses a minute from one origin at each of six
//! places (four services, and two of HTTP) make the average search of 10⁸ codes last three years. A device that keeps sending one old code
//! guesses nothing: the same wrong code counts once, so that others at its address can still log in.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | a code | [`MAX_CODE`] bytes | it is not accepted as a code |
//! | different wrong codes from one origin at one service | [`WRONG_CODES`] within [`WRONG_CODE_TIMEOUT`] | the origin is rejected there for [`LOCKOUT_TIMEOUT`] |
//! | origins remembered, for each service they tried | [`ADDRESSES`] | the one whose wrong code is the oldest is forgotten |
//! | connections of a locked-out origin that are answered | [`MAX_REFUSALS`] within [`REFUSALS_INTERVAL`] | closed before the TLS handshake |
//! | origins remembered after a login | [`MAX_KNOWN`], for [`KNOWN_TIMEOUT`] | the one whose login is the oldest is forgotten |

use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::time::Duration;
use std::hash::RandomState;
use std::sync::OnceLock;

use heapless::{Deque, Vec};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cause::Cause;
use crate::clock::Instant;
use crate::peer::Origin;

/// The user name of every login to a printer.
pub const USER: &str = "bblp";

/// Bytes in the longest code. Printers show eight characters; the chamber camera's login has room
/// for 32, so no service can carry more.
pub const MAX_CODE: usize = 32;

/// Different wrong codes from one origin at one service before the origin is rejected: a few typing errors.
pub const WRONG_CODES: usize = 5;

/// Wrong codes on one connection: with this one the connection ends.
pub const MAX_WRONG: usize = 2;

/// How long a wrong code counts.
pub const WRONG_CODE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an origin with too many wrong codes is rejected: short, so that a corrected code works within a minute.
pub const LOCKOUT_TIMEOUT: Duration = Duration::from_secs(60);

/// Origins whose wrong codes are remembered at once, counted for each service.
pub const ADDRESSES: usize = 32;

/// Connections of a locked-out origin to one service that are answered in the service's protocol, within
/// [`REFUSALS_INTERVAL`]. A client that tries again each second always gets its answer: libmosquitto never tries again
/// after a connection that ends during the TLS handshake.
pub const MAX_REFUSALS: u8 = 20;

/// See [`MAX_REFUSALS`].
pub const REFUSALS_INTERVAL: Duration = Duration::from_secs(10);

/// Origins that are remembered after a login.
pub const MAX_KNOWN: usize = 32;

/// How long an origin is remembered after a login.
pub const KNOWN_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The printer's access code.
#[derive(Clone)]
pub struct AccessCode {
    /// Zeros behind the first `len` bytes.
    padded: Zeroizing<[u8; MAX_CODE]>,
    len: usize,
}

impl AccessCode {
    /// Takes the code as the printer's screen shows it.
    ///
    /// # Errors
    ///
    /// The code is empty, too long, or holds something other than visible ASCII.
    pub fn new(code: &[u8]) -> Result<Self, CodeError> {
        if code.is_empty() {
            return Err(CodeError::Empty);
        }
        if code.len() > MAX_CODE {
            return Err(CodeError::TooLong);
        }
        if !code.iter().all(u8::is_ascii_graphic) {
            return Err(CodeError::Invisible);
        }
        Ok(Self { padded: padded(code), len: code.len() })
    }

    /// Whether `given` is this code. How long that takes depends on nothing but `given`'s length.
    pub fn admits(&self, given: &[u8]) -> bool {
        let same_bytes = padded(given).as_slice().ct_eq(self.padded.as_slice());
        let same_len = given.len().ct_eq(&self.len);
        (same_bytes & same_len).into()
    }

    /// Checks a login. The code is compared even if the user name is wrong, so that the time it takes does not tell
    /// whether the user name is right.
    ///
    /// # Errors
    ///
    /// The user name or the code is wrong.
    pub fn check(&self, user: &[u8], code: &[u8]) -> Result<(), LoginError> {
        let is_right = self.admits(code);
        if user != USER.as_bytes() {
            Err(LoginError::WrongUser)
        } else if !is_right {
            Err(LoginError::WrongCode(Guess::of(code)))
        } else {
            Ok(())
        }
    }

    /// The code itself, to be sent to the printer.
    pub fn reveal(&self) -> &[u8] {
        self.padded.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Debug for AccessCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessCode(…)")
    }
}

/// Why a text is not an access code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeError {
    /// The text is empty.
    Empty,
    /// More than [`MAX_CODE`] bytes.
    TooLong,
    /// A space, a control character, or a byte beyond ASCII.
    Invisible,
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty access code",
            Self::TooLong => "access code too long",
            Self::Invisible => "access code with characters other than visible ASCII",
        })
    }
}

impl core::error::Error for CodeError {}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The user name is not [`USER`].
    WrongUser,
    /// The access code is not the printer's.
    WrongCode(Guess),
    /// The client's origin is locked out. Whether its code is right is not said.
    LockedOut,
}

impl LoginError {
    /// What is counted against the client's origin: all wrong user names are the same guess.
    pub fn guess(self) -> Option<Guess> {
        match self {
            Self::WrongUser => Some(Guess::of_wrong_user()),
            Self::WrongCode(guess) => Some(guess),
            Self::LockedOut => None,
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongUser => write!(f, "wrong user name; it is `{USER}`"),
            Self::WrongCode(_) => f.write_str(Cause::CLIENT_CODE.text),
            Self::LockedOut => f.write_str("locked out after wrong access codes"),
        }
    }
}

impl core::error::Error for LoginError {}

/// A keyed hash of a wrong code or of a wrong proof of it, with a key of this process, to recognise the same one
/// again. The code cannot be computed from the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess(u64);

impl Guess {
    /// A guess in samples of messages.
    #[cfg(test)]
    pub(crate) const ANY: Self = Self(0);

    /// The guess that this code is, or this proof of one.
    pub fn of(code: impl Hash) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        Self(KEY.get_or_init(RandomState::new).hash_one(code))
    }

    /// The guess that stands for any other user name than [`USER`].
    fn of_wrong_user() -> Self {
        // Longer than any code.
        Self::of([b'u'; 2 * MAX_CODE])
    }

    /// The guess that stands for any connection that ended without a login. It counts once, like any other guess, so
    /// port scans and probes alone never lock an origin out.
    pub fn of_no_login() -> Self {
        Self::of([b'n'; 2 * MAX_CODE])
    }
}

/// The wrong codes that a client sent on one connection.
pub type WrongCodes = Vec<Guess, MAX_WRONG>;

/// Result of counting a wrong code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Lockout {
    /// The origin is at this number of different wrong codes, at most [`WRONG_CODES`].
    Counted(usize),
    /// The limit is reached: the origin is rejected from now on, for [`LOCKOUT_TIMEOUT`].
    JustLocked,
}

/// Whether connections of an origin are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// The origin's connections are served.
    Open,
    /// The origin is locked out: the service refuses the login in its protocol.
    Refused,
    /// The origin is locked out and has been answered [`MAX_REFUSALS`] times: the connection is closed.
    Closed,
}

/// The refusal of all logins from an origin that is locked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The wrong codes for which it is.
    wrong: [Option<Guess>; WRONG_CODES],
}

impl Refusal {
    /// Why this login is refused. Of a code that was not counted as wrong nothing may be learnt while the origin is locked
    /// out, or guessing could go on.
    pub fn error(&self, user: &[u8], code: &[u8]) -> LoginError {
        let error = if user == USER.as_bytes() {
            LoginError::WrongCode(Guess::of(code))
        } else {
            LoginError::WrongUser
        };
        let is_known = error.guess().is_some_and(|guess| self.wrong.contains(&Some(guess)));
        if is_known { error } else { LoginError::LockedOut }
    }
}

/// The wrong codes of each origin at each service, and the origins that logged in lately.
///
/// The acceptor asks for an [`Admission`] when a connection is accepted, and for the
/// [refusal](Self::refusal) after the TLS handshake: other connections of the same origin may have reached the limit
/// in between.
#[derive(Debug, Default)]
pub struct Limiter {
    entries: Vec<Entry, ADDRESSES>,
    /// Origins with the time of their last login, oldest first.
    known: Deque<(Origin, Instant), MAX_KNOWN>,
}

impl Limiter {
    /// A limiter without wrong codes.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), known: Deque::new() }
    }

    /// Whether a connection of `origin` to `service` is served now. One that is refused is counted.
    pub fn admission(&mut self, now: Instant, service: &'static str, origin: Origin) -> Admission {
        match self.locked(now, service, origin) {
            None => Admission::Open,
            Some(entry) => {
                if entry.take_answer(now) {
                    Admission::Refused
                } else {
                    Admission::Closed
                }
            }
        }
    }

    /// For which codes `origin` is locked out at `service` now, if it is.
    pub fn refusal(
        &mut self,
        now: Instant,
        service: &'static str,
        origin: Origin,
    ) -> Option<Refusal> {
        let entry = self.locked(now, service, origin)?;
        let mut wrong = [None; WRONG_CODES];
        for (to, (_, guess)) in wrong.iter_mut().zip(&entry.wrong) {
            *to = Some(*guess);
        }
        Some(Refusal { wrong })
    }

    fn locked(
        &mut self,
        now: Instant,
        service: &'static str,
        origin: Origin,
    ) -> Option<&mut Entry> {
        self.entries.retain(|entry| !entry.is_over(now));
        let from = (origin, service);
        self.entries.iter_mut().find(|entry| entry.from == from && entry.locked.is_some())
    }

    /// Counts a wrong code from `origin` at `service`. A code that is counted already is not counted again, nor
    /// is one that comes while the origin is rejected.
    pub fn count_wrong_code(
        &mut self,
        now: Instant,
        service: &'static str,
        origin: Origin,
        guess: Guess,
    ) -> Lockout {
        self.entries.retain(|entry| !entry.is_over(now));
        let from = (origin, service);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.from == from) {
            return entry.count(now, guess);
        }
        if self.entries.is_full() {
            self.forget_oldest();
        }
        let mut entry = Entry { from, wrong: Deque::new(), locked: None, answered: (now, 0) };
        let outcome = entry.count(now, guess);
        // Always fits: the oldest entry of a full table has been removed.
        let _ = self.entries.push(entry);
        outcome
    }

    /// Notes a login: forgets the wrong codes of `origin` at all services, and remembers the origin.
    pub fn log_in(&mut self, now: Instant, origin: Origin) {
        self.entries.retain(|entry| entry.from.0 != origin);
        self.remember(now, origin);
    }

    /// Notes a login at a service whose clients show their code with every request: forgets the wrong codes of `origin` there
    /// alone. A program that polls would undo the lockouts of others behind its address all the time.
    pub fn log_in_briefly(&mut self, now: Instant, service: &'static str, origin: Origin) {
        self.entries.retain(|entry| entry.from != (origin, service));
        self.remember(now, origin);
    }

    /// Remembers an origin that is logged in until now.
    pub fn remember(&mut self, now: Instant, origin: Origin) {
        self.known.retain(|(known, _)| *known != origin);
        if self.known.is_full() {
            self.known.pop_front();
        }
        // Always fits: the oldest of a full queue has been removed.
        let _ = self.known.push_back((origin, now));
    }

    /// Whether `origin` has logged in within [`KNOWN_TIMEOUT`].
    pub fn is_known(&self, now: Instant, origin: Origin) -> bool {
        self.known.iter().any(|(known, at)| *known == origin && now.since(*at) < KNOWN_TIMEOUT)
    }

    fn forget_oldest(&mut self) {
        let newest = |entry: &Entry| entry.wrong.back().map(|(at, _)| *at);
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| newest(entry));
        if let Some((at, _)) = oldest {
            self.entries.swap_remove(at);
        }
    }
}

/// The wrong codes of one origin at one service.
#[derive(Debug)]
struct Entry {
    from: (Origin, &'static str),
    /// When each different code was first received, oldest first. Never empty once the entry is in the table.
    wrong: Deque<(Instant, Guess), WRONG_CODES>,
    /// When the origin was locked out.
    locked: Option<Instant>,
    /// Connections that were answered, and since when they are counted.
    answered: (Instant, u8),
}

impl Entry {
    /// Whether the entry has no effect any more.
    fn is_over(&self, now: Instant) -> bool {
        match self.locked {
            Some(since) => now.since(since) >= LOCKOUT_TIMEOUT,
            None => {
                self.wrong.back().is_none_or(|(last, _)| now.since(*last) >= WRONG_CODE_TIMEOUT)
            }
        }
    }

    /// Whether one more connection is answered; it is counted.
    fn take_answer(&mut self, now: Instant) -> bool {
        let (since, times) = &mut self.answered;
        if now.since(*since) >= REFUSALS_INTERVAL {
            (*since, *times) = (now, 0);
        }
        let may = *times < MAX_REFUSALS;
        *times += u8::from(may);
        may
    }

    fn count(&mut self, now: Instant, guess: Guess) -> Lockout {
        if self.locked.is_some() {
            return Lockout::Counted(WRONG_CODES);
        }
        while self.wrong.front().is_some_and(|(first, _)| now.since(*first) >= WRONG_CODE_TIMEOUT) {
            self.wrong.pop_front();
        }
        if self.wrong.iter().any(|(_, counted)| *counted == guess) {
            return Lockout::Counted(self.wrong.len());
        }
        // Always fits: a full queue is locked out.
        let _ = self.wrong.push_back((now, guess));
        if self.wrong.is_full() {
            self.locked = Some(now);
            return Lockout::JustLocked;
        }
        Lockout::Counted(self.wrong.len())
    }
}

/// The first [`MAX_CODE`] bytes of `code`, and zeros.
fn padded(code: &[u8]) -> Zeroizing<[u8; MAX_CODE]> {
    let mut padded = Zeroizing::new([0; MAX_CODE]);
    for (to, from) in padded.iter_mut().zip(code) {
        *to = *from;
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use core::sync::atomic::{AtomicU64, Ordering};
    use proptest::prelude::*;

    fn at(secs: u64) -> Instant {
        Instant::at(Duration::from_secs(secs))
    }

    fn host(n: u8) -> Origin {
        Origin::of([10, 0, 0, n].into())
    }

    /// The limiter at one service, with a different code each time.
    trait AtMqtt {
        fn wrong_code(&mut self, now: Instant, origin: Origin) -> Lockout;
        fn refused(&mut self, now: Instant, origin: Origin) -> bool;
    }

    impl AtMqtt for Limiter {
        fn wrong_code(&mut self, now: Instant, origin: Origin) -> Lockout {
            static CODES: AtomicU64 = AtomicU64::new(0);
            let guess = Guess(CODES.fetch_add(1, Ordering::Relaxed));
            self.count_wrong_code(now, "mqtt", origin, guess)
        }

        fn refused(&mut self, now: Instant, origin: Origin) -> bool {
            self.refusal(now, "mqtt", origin).is_some()
        }
    }

    fn lock(limiter: &mut Limiter, now: Instant, origin: Origin) {
        for n in 1..WRONG_CODES {
            assert_eq!(limiter.wrong_code(now, origin), Lockout::Counted(n));
        }
        assert_eq!(limiter.wrong_code(now, origin), Lockout::JustLocked);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_code_admits_itself_and_nothing_else(
            code in "[!-~]{1,32}",
            other in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let lock = AccessCode::new(code.as_bytes()).unwrap();
            prop_assert!(lock.admits(code.as_bytes()));
            prop_assert_eq!(lock.reveal(), code.as_bytes());
            prop_assert_eq!(lock.admits(&other), other == code.as_bytes());
        }

        #[test]
        fn a_code_is_never_printed(code in "[!-~]{8,32}") {
            let lock = AccessCode::new(code.as_bytes()).unwrap();
            prop_assert_eq!(format!("{lock:?}"), "AccessCode(…)");
        }
    }

    #[test]
    fn a_shorter_or_longer_code_is_not_admitted() {
        let full = [b'7'; MAX_CODE];
        let code = AccessCode::new(b"12345678").unwrap();
        for near in [&b""[..], b"1234567", b"123456789", b"12345678\0", b"\0", b"12345679"] {
            assert!(!code.admits(near), "{near:?}");
        }
        let longest = AccessCode::new(&full).unwrap();
        assert!(longest.admits(&full));
        assert!(!longest.admits(&[b'7'; MAX_CODE + 1]));
        assert!(!longest.admits(&[b'7'; MAX_CODE - 1]));
    }

    #[test]
    fn invalid_access_codes_are_rejected() {
        let too_long = [b'1'; MAX_CODE + 1];
        for (given, why) in [
            (&b""[..], CodeError::Empty),
            (&too_long, CodeError::TooLong),
            (b"1234 678", CodeError::Invisible),
            (b"1234678\n", CodeError::Invisible),
            ("1234567ß".as_bytes(), CodeError::Invisible),
        ] {
            assert_eq!(AccessCode::new(given).unwrap_err(), why);
        }
    }

    #[test]
    fn five_wrong_codes_in_a_minute_lock_out_one_address() {
        let mut limiter = Limiter::new();
        for n in 1..WRONG_CODES {
            assert_eq!(limiter.wrong_code(at(n as u64), host(1)), Lockout::Counted(n));
            assert!(!limiter.refused(at(n as u64), host(1)));
        }
        assert_eq!(limiter.wrong_code(at(59), host(1)), Lockout::JustLocked);
        assert!(limiter.refused(at(59), host(1)));
        assert!(!limiter.refused(at(59), host(2)));
    }

    #[test]
    fn a_wrong_code_counts_for_a_minute() {
        let mut limiter = Limiter::new();
        for second in 0..100 {
            // One every 15 seconds: four in any minute, for ever.
            let outcome = limiter.wrong_code(at(15 * second), host(1));
            assert_ne!(outcome, Lockout::JustLocked, "at {second}");
        }
        let mut limiter = Limiter::new();
        for n in 1..WRONG_CODES {
            assert_eq!(limiter.wrong_code(at(0), host(1)), Lockout::Counted(n));
        }
        assert_eq!(limiter.wrong_code(at(60), host(1)), Lockout::Counted(1));
    }

    #[test]
    fn a_lockout_lasts_one_minute_whatever_comes_meanwhile() {
        let mut limiter = Limiter::new();
        lock(&mut limiter, at(10), host(1));
        for second in 10..70 {
            assert!(limiter.refused(at(second), host(1)), "at {second}");
            let late = limiter.wrong_code(at(second), host(1));
            assert_eq!(late, Lockout::Counted(WRONG_CODES));
        }
        assert!(!limiter.refused(at(70), host(1)));
        lock(&mut limiter, at(70), host(1));
        let after = limiter.wrong_code(at(130), host(1));
        assert_eq!(after, Lockout::Counted(1), "also if nothing asked in between");
    }

    #[test]
    fn the_same_wrong_code_counts_once() {
        let mut limiter = Limiter::new();
        let old = Guess::of(b"87654321");
        for second in 0..1000 {
            let outcome = limiter.count_wrong_code(at(second), "mqtt", host(1), old);
            assert_eq!(outcome, Lockout::Counted(1), "at {second}");
            assert!(!limiter.refused(at(second), host(1)), "at {second}");
        }
        for n in 2..WRONG_CODES {
            let guess = Guess::of([n as u8]);
            let outcome = limiter.count_wrong_code(at(1000), "mqtt", host(1), guess);
            assert_eq!(outcome, Lockout::Counted(n), "different codes are guesses");
        }
        let _ = limiter.count_wrong_code(at(1000), "mqtt", host(1), Guess::of(b"last"));
        assert!(limiter.refused(at(1000), host(1)));
    }

    #[test]
    fn a_lockout_applies_to_one_service() {
        let mut limiter = Limiter::new();
        lock(&mut limiter, at(0), host(1));
        assert!(limiter.refusal(at(0), "mqtt", host(1)).is_some());
        assert!(limiter.refusal(at(0), "ftp", host(1)).is_none());
        let at_ftp = limiter.count_wrong_code(at(0), "ftp", host(1), Guess::of(b"1"));
        assert_eq!(at_ftp, Lockout::Counted(1));
    }

    #[test]
    fn a_wrong_user_name_is_refused_with_any_code() {
        let code = AccessCode::new(b"12345678").unwrap();
        assert_eq!(code.check(b"bblp", b"12345678"), Ok(()));
        let wrong = LoginError::WrongCode(Guess::of(&b"1"[..]));
        assert_eq!(code.check(b"bblp", b"1"), Err(wrong));
        for given in [&b"12345678"[..], b"1"] {
            assert_eq!(code.check(b"root", given), Err(LoginError::WrongUser));
        }
        let mut limiter = Limiter::new();
        for guess in [Guess::of_wrong_user(), wrong.guess().unwrap()] {
            let _ = limiter.count_wrong_code(at(0), "mqtt", host(1), guess);
        }
        for _ in 2..WRONG_CODES {
            let _ = limiter.wrong_code(at(0), host(1));
        }
        let refusal = limiter.refusal(at(0), "mqtt", host(1)).unwrap();
        assert_eq!(refusal.error(b"root", b"12345678"), LoginError::WrongUser);
        assert_eq!(refusal.error(b"bblp", b"12345678"), LoginError::LockedOut);
    }

    #[test]
    fn an_origin_that_logs_in_often_takes_one_place() {
        let mut limiter = Limiter::new();
        limiter.log_in(at(0), host(2));
        for second in 1..=MAX_KNOWN as u64 {
            limiter.log_in(at(second), host(1));
        }
        assert!(limiter.is_known(at(100), host(2)));
    }

    #[test]
    fn a_brief_login_resets_the_count_of_its_service() {
        let mut limiter = Limiter::new();
        lock(&mut limiter, at(0), host(1));
        limiter.log_in_briefly(at(1), "http", host(1));
        assert!(limiter.refused(at(1), host(1)));
        assert!(limiter.is_known(at(1), host(1)));
        limiter.log_in_briefly(at(1), "mqtt", host(1));
        assert!(!limiter.refused(at(1), host(1)));
    }

    #[test]
    fn the_right_code_resets_the_count() {
        let mut limiter = Limiter::new();
        for _ in 1..WRONG_CODES {
            let _ = limiter.wrong_code(at(0), host(1));
        }
        limiter.log_in(at(1), host(1));
        lock(&mut limiter, at(1), host(1));
        limiter.log_in(at(1), host(1));
        assert!(!limiter.refused(at(1), host(1)));
    }

    #[test]
    fn a_full_table_forgets_the_oldest_origin() {
        let mut limiter = Limiter::new();
        lock(&mut limiter, at(0), host(0));
        for n in 1..ADDRESSES as u8 {
            let _ = limiter.wrong_code(at(1), host(n));
        }
        assert!(limiter.refused(at(2), host(0)));
        // Another wrong code: no longer the oldest.
        assert_eq!(limiter.wrong_code(at(2), host(1)), Lockout::Counted(2));
        assert_eq!(limiter.wrong_code(at(2), host(200)), Lockout::Counted(1));
        assert!(!limiter.refused(at(2), host(0)));
        for n in 201..201 + ADDRESSES as u8 - 2 {
            assert_eq!(limiter.wrong_code(at(2), host(n)), Lockout::Counted(1));
        }
        assert_eq!(limiter.wrong_code(at(3), host(1)), Lockout::Counted(3));
        assert_eq!(limiter.entries.len(), ADDRESSES);
    }

    #[test]
    fn a_locked_out_origin_gets_a_limited_number_of_answers() {
        let mut limiter = Limiter::new();
        assert_eq!(limiter.admission(at(0), "mqtt", host(1)), Admission::Open);
        lock(&mut limiter, at(0), host(1));
        for second in [0, 10, 50] {
            for _ in 0..MAX_REFUSALS {
                let admission = limiter.admission(at(second), "mqtt", host(1));
                assert_eq!(admission, Admission::Refused, "at {second}");
            }
            assert_eq!(limiter.admission(at(second + 9), "mqtt", host(1)), Admission::Closed);
        }
        assert_eq!(limiter.admission(at(50), "mqtt", host(2)), Admission::Open);
        assert_eq!(limiter.admission(at(50), "ftp", host(1)), Admission::Open);
        assert_eq!(limiter.admission(at(60), "mqtt", host(1)), Admission::Open);
    }

    #[test]
    fn connections_without_a_login_cause_no_lockout() {
        let mut limiter = Limiter::new();
        for second in 0..1000 {
            let probe = Guess::of_no_login();
            let outcome = limiter.count_wrong_code(at(second), "mqtt", host(1), probe);
            assert_eq!(outcome, Lockout::Counted(1), "at {second}");
        }
        assert_ne!(Guess::of_no_login(), Guess::of_wrong_user());
    }

    #[test]
    fn only_counted_guesses_are_known_to_be_wrong() {
        let mut limiter = Limiter::new();
        let known = |limiter: &mut Limiter, guess: &[u8]| {
            let refusal = limiter.refusal(at(1), "mqtt", host(1));
            refusal.is_some_and(|refusal| {
                refusal.error(b"bblp", guess) == LoginError::WrongCode(Guess::of(guess))
            })
        };
        for code in [&b"1"[..], b"2", b"3", b"4"] {
            let _ = limiter.count_wrong_code(at(0), "mqtt", host(1), Guess::of(code));
            assert!(!known(&mut limiter, code), "it is not locked out");
        }
        let _ = limiter.count_wrong_code(at(0), "mqtt", host(1), Guess::of(&b"5"[..]));
        assert!(known(&mut limiter, b"3"));
        assert!(!known(&mut limiter, b"6"));
    }

    #[test]
    fn an_origin_is_known_for_a_day_after_its_login() {
        let mut limiter = Limiter::new();
        limiter.log_in(at(5), host(1));
        assert!(limiter.is_known(at(5), host(1)));
        assert!(!limiter.is_known(at(5), host(2)));
        assert!(!limiter.is_known(at(5) + KNOWN_TIMEOUT, host(1)));
        for n in 2..2 + MAX_KNOWN as u8 - 1 {
            limiter.log_in(at(6), host(n));
        }
        limiter.log_in(at(7), host(1));
        limiter.log_in(at(8), host(200));
        assert!(limiter.is_known(at(9), host(1)));
        assert!(!limiter.is_known(at(9), host(2)), "the oldest is forgotten");
        assert_eq!(limiter.known.len(), MAX_KNOWN);
    }
}
