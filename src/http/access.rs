//! Who may see what: HTTP Basic with the printer's access code or the view code, or a token.
//!
//! | shown | accepted |
//! |---|---|
//! | `Authorization: Basic` | the user `bblp` with the printer's access code; any user with the view code, so that a wrong code of any user counts as one |
//! | `Authorization: Bearer`, `?token=` | the token |
//!
//! URLs are written into logs, so the access code is not accepted in a URL. A request with a token and an
//! `Authorization` header is accepted if one of them is right: a reverse proxy may have added the header for itself. Without
//! a configured token, `?token=` is ignored.
//!
//! # What counts as a guess
//!
//! Any page in a browser on this network can have it load `<img src="http://…/snapshot.jpg?token=…">`, as a dashboard does. A
//! page with wrong tokens should lock its visitor out of as little as possible, and must not guess without end. So the
//! [limiter](crate::auth) counts wrong codes of an address at three places, and locks it out at each by itself, for a
//! minute after five different ones in a minute:
//!
//! | place | what counts there | what a lockout refuses |
//! |---|---|---|
//! | `http` | a wrong `Authorization` | logins with `Authorization`, in every request |
//! | `http-url` | a wrong `?token=` | `?token=` |
//! | `http-elsewhere` | either, in a request of which the browser says that another site's page causes it (`Sec-Fetch-Site: cross-site` or `same-site`) | the same in such requests |
//!
//! A connection that has shown the access code, and no wrong code since, goes on while its address is locked out at `http`: what
//! others behind one router guess ends no page that is open.
//!
//! A wrong one of the last kind is answered by 403, and also where no code is needed, because the page's script goes on with
//! the token of its own URL. A navigation is answered by 401 instead, so that the browser asks its user. A right code or token
//! works from any page.
//!
//! Browsers say so over HTTPS and to `localhost` alone. Elsewhere a page of another site can lock its visitor's address out at
//! `http-url`, and at `http` in Firefox 153 and WebKitGTK 2.50, which send what stands before the `@` in the URL of a picture;
//! Chromium 156 does not. That is for a minute at a time, and neither at the other place nor at another service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::wire::{Request, parameter};
use crate::auth::{AccessCode, Guess, LoginError, USER};

/// Bytes in the longest user name and code of a Basic login.
const MAX_LOGIN: usize = 96;

/// What the service's clients have to show.
pub struct Access {
    /// The printer's access code.
    pub code: AccessCode,
    /// A code that is good for this service alone.
    pub view: Option<AccessCode>,
    /// The same without a user name.
    pub token: Option<AccessCode>,
}

/// The check of a user name and a secret while the client's origin is locked out.
pub type Refuse<'a> = &'a dyn Fn(&[u8], &[u8]) -> LoginError;

/// What a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The printer's access code.
    Code,
    /// The view code, or the token.
    View,
}

/// Where wrong tokens in URLs are counted.
pub const URL: &str = "http-url";

/// Where wrong codes and tokens in requests of other sites' pages are counted.
pub const ELSEWHERE: &str = "http-elsewhere";

impl Access {
    /// Checks the token in a request's URL. `None`: there is none, or nothing that it could be. `refuse` stands for the
    /// check while the client's origin is locked out.
    pub fn check_token(
        &self,
        request: &Request<'_>,
        refuse: Option<Refuse<'_>>,
    ) -> Option<Result<Shown, LoginError>> {
        let own = self.token.as_ref()?;
        let token = parameter(request.query, "token")?.as_bytes();
        Some(match refuse {
            Some(refuse) => Err(refuse(USER.as_bytes(), token)),
            None if own.admits(token) => Ok(Shown::View),
            None => Err(LoginError::WrongCode(Guess::of(token))),
        })
    }

    /// Checks the `Authorization`. `None`: there is none that can be read. `refuse` is as above.
    pub fn check_login(
        &self,
        request: &Request<'_>,
        refuse: Option<Refuse<'_>>,
    ) -> Option<Result<Shown, LoginError>> {
        let (scheme, value) = request.authorization?.split_once(' ')?;
        let value = value.trim();
        let mut login = Zeroizing::new([0; MAX_LOGIN]);
        let (user, secret) = if scheme.eq_ignore_ascii_case("Bearer") {
            (None, value.as_bytes())
        } else if scheme.eq_ignore_ascii_case("Basic") {
            let len = STANDARD.decode_slice(value, &mut *login).ok()?;
            let login = login.get(..len)?;
            let colon = login.iter().position(|byte| *byte == b':')?;
            let (user, code) = login.split_at_checked(colon)?;
            (Some(user), code.get(1..)?)
        } else {
            return None;
        };
        Some(match refuse {
            Some(refuse) => Err(refuse(user.unwrap_or(USER.as_bytes()), secret)),
            None => self.judge(user, secret),
        })
    }

    /// Judges a user name and a secret, or a token.
    fn judge(&self, user: Option<&[u8]>, secret: &[u8]) -> Result<Shown, LoginError> {
        let admits = |code: &Option<AccessCode>| code.as_ref().is_some_and(|it| it.admits(secret));
        let Some(user) = user else {
            let is_token = admits(&self.token);
            return if is_token {
                Ok(Shown::View)
            } else {
                Err(LoginError::WrongCode(Guess::of(secret)))
            };
        };
        let (is_view, code) = (admits(&self.view), self.code.check(user, secret));
        match code {
            Ok(()) => Ok(Shown::Code),
            Err(_) if is_view => Ok(Shown::View),
            // Any user may show the view code: each wrong one is a guess at it.
            Err(LoginError::WrongUser) if self.view.is_some() && !self.code.admits(secret) => {
                Err(LoginError::WrongCode(Guess::of(secret)))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::next;
    use alloc::format;
    use alloc::string::String;

    type Checked = Option<Result<Shown, LoginError>>;

    fn access() -> Access {
        let code = |code: &[u8]| AccessCode::new(code).unwrap();
        Access { code: code(b"12345678"), view: Some(code(b"look")), token: Some(code(b"t0ken")) }
    }

    fn check(access: &Access, query: &str, authorization: &str) -> (Checked, Checked) {
        let text = format!("GET /status?{query} HTTP/1.1\r\nHost: a\r\n{authorization}\r\n\r\n");
        let (_, request) = next(text.as_bytes()).unwrap().unwrap();
        (access.check_token(&request, None), access.check_login(&request, None))
    }

    fn token(query: &str) -> Checked {
        check(&access(), query, "X: y").0
    }

    fn login(authorization: &str) -> Checked {
        check(&access(), "", authorization).1
    }

    fn basic(login: &str) -> String {
        format!("Authorization: Basic {}", STANDARD.encode(login))
    }

    fn wrong(code: &str) -> Checked {
        Some(Err(LoginError::WrongCode(Guess::of(code.as_bytes()))))
    }

    #[test]
    fn codes_and_the_token_are_accepted_where_they_belong() {
        assert_eq!(login(&basic("bblp:12345678")), Some(Ok(Shown::Code)));
        assert_eq!(login(&basic("anyone:look")), Some(Ok(Shown::View)));
        assert_eq!(login(&basic("bblp:look")), Some(Ok(Shown::View)));
        assert_eq!(token("token=t0ken"), Some(Ok(Shown::View)));
        assert_eq!(login("Authorization: bearer t0ken"), Some(Ok(Shown::View)));
        assert_eq!(login(&basic("bblp:t0ken")), wrong("t0ken"));
        assert_eq!(token("token=12345678"), wrong("12345678"), "the code is in no URL");
        assert_eq!(token("token=look"), wrong("look"));
        assert_eq!(login(&basic("root:12345678")), Some(Err(LoginError::WrongUser)));
        assert_eq!(login(&basic("root:guess")), wrong("guess"), "a guess at the view code");
        let access = Access { view: None, token: None, ..access() };
        let (token, login) = check(&access, "token=guess", &basic("root:guess"));
        assert_eq!(login, Some(Err(LoginError::WrongUser)), "there is no view code");
        assert_eq!(token, None, "there is no token");
    }

    #[test]
    fn what_is_no_login_shows_nothing() {
        for authorization in [
            "X: y",
            "Authorization: Basic",
            "Authorization: Basic !!!",
            "Authorization: Basic YWJj",
            "Authorization: Digest username=\"bblp\"",
            &basic(&"a".repeat(400)),
        ] {
            assert_eq!(login(authorization), None, "{authorization}");
            let (token, _) = check(&access(), "token=t0ken", authorization);
            assert_eq!(token, Some(Ok(Shown::View)), "{authorization}");
        }
    }
}
