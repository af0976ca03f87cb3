//! Who may see what: HTTP Basic with the printer's access code or the view code, or a token.
//!
//! | shown | accepted |
//! |---|---|
//! | `Authorization: Basic` | the user `bblp` with the printer's access code; any user with the view code, so that a wrong code of any user counts as one |
//! | `Authorization: Bearer`, `?token=` | the token |
//!
//! URLs are written into logs, so the access code is not accepted in a URL.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::wire::{Request, parameter};
use crate::auth::{AccessCode, Guess, LoginError};

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

/// Why a request is not authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It shows nothing.
    Nothing,
    /// It shows something that is wrong.
    Wrong(LoginError),
}

impl Access {
    /// Checks what a request shows. `refuse` stands for the check while the client's origin is locked out.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn check(
        &self,
        request: &Request<'_>,
        refuse: Option<Refuse<'_>>,
    ) -> Result<Shown, Denied> {
        let (scheme, value) = match request.authorization {
            Some(authorization) => authorization.split_once(' ').ok_or(Denied::Nothing)?,
            None => match parameter(request.query, "token") {
                Some(token) => ("Bearer", token),
                None => return Err(Denied::Nothing),
            },
        };
        let value = value.trim();
        let mut login = Zeroizing::new([0; MAX_LOGIN]);
        let (user, secret) = if scheme.eq_ignore_ascii_case("Bearer") {
            (None, value.as_bytes())
        } else if scheme.eq_ignore_ascii_case("Basic") {
            let len = STANDARD.decode_slice(value, &mut *login).map_err(|_| Denied::Nothing)?;
            let login = login.get(..len).unwrap_or_default();
            let colon = login.iter().position(|byte| *byte == b':').ok_or(Denied::Nothing)?;
            let (user, code) = login.split_at_checked(colon).unwrap_or_default();
            (Some(user), code.get(1..).unwrap_or_default())
        } else {
            return Err(Denied::Nothing);
        };
        if let Some(refuse) = refuse {
            let user = user.unwrap_or(crate::auth::USER.as_bytes());
            return Err(Denied::Wrong(refuse(user, secret)));
        }
        let admits = |code: &Option<AccessCode>| code.as_ref().is_some_and(|it| it.admits(secret));
        match user {
            None if admits(&self.token) => Ok(Shown::View),
            None => Err(Denied::Wrong(LoginError::WrongCode(Guess::of(secret)))),
            Some(user) => {
                let (is_view, code) = (admits(&self.view), self.code.check(user, secret));
                match code {
                    Ok(()) => Ok(Shown::Code),
                    Err(_) if is_view => Ok(Shown::View),
                    // Any user may show the view code: each wrong one is a guess at it.
                    Err(LoginError::WrongUser)
                        if self.view.is_some() && !self.code.admits(secret) =>
                    {
                        Err(Denied::Wrong(LoginError::WrongCode(Guess::of(secret))))
                    }
                    Err(error) => Err(Denied::Wrong(error)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::next;
    use alloc::format;

    fn access() -> Access {
        let code = |code: &[u8]| AccessCode::new(code).unwrap();
        Access { code: code(b"12345678"), view: Some(code(b"look")), token: Some(code(b"t0ken")) }
    }

    fn check(query: &str, authorization: &str) -> Result<Shown, Denied> {
        let text = format!("GET /status?{query} HTTP/1.1\r\nHost: a\r\n{authorization}\r\n\r\n");
        let (_, request) = next(text.as_bytes()).unwrap().unwrap();
        access().check(&request, None)
    }

    fn basic(login: &str) -> Result<Shown, Denied> {
        check("", &format!("Authorization: Basic {}", STANDARD.encode(login)))
    }

    #[test]
    fn codes_and_the_token_are_accepted_where_they_belong() {
        assert_eq!(basic("bblp:12345678"), Ok(Shown::Code));
        assert_eq!(basic("anyone:look"), Ok(Shown::View));
        assert_eq!(basic("bblp:look"), Ok(Shown::View));
        assert_eq!(check("token=t0ken", "X: y"), Ok(Shown::View));
        assert_eq!(check("", "Authorization: bearer t0ken"), Ok(Shown::View));
        let wrong =
            |code: &str| Err(Denied::Wrong(LoginError::WrongCode(Guess::of(code.as_bytes()))));
        assert_eq!(basic("bblp:t0ken"), wrong("t0ken"));
        assert_eq!(check("token=12345678", "X: y"), wrong("12345678"), "the code is in no URL");
        assert_eq!(check("token=look", "X: y"), wrong("look"));
        assert_eq!(basic("root:12345678"), Err(Denied::Wrong(LoginError::WrongUser)));
        assert_eq!(basic("root:guess"), wrong("guess"), "a guess at the view code");
        let access = Access { view: None, ..access() };
        let login = format!("Authorization: Basic {}", STANDARD.encode("root:guess"));
        let text = format!("GET /status HTTP/1.1\r\nHost: a\r\n{login}\r\n\r\n");
        let (_, request) = next(text.as_bytes()).unwrap().unwrap();
        let denied = access.check(&request, None);
        assert_eq!(denied, Err(Denied::Wrong(LoginError::WrongUser)), "there is no view code");
    }

    #[test]
    fn what_is_no_login_shows_nothing() {
        for authorization in [
            "X: y",
            "Authorization: Basic",
            "Authorization: Basic !!!",
            "Authorization: Basic YWJj",
            "Authorization: Digest username=\"bblp\"",
            &format!("Authorization: Basic {}", STANDARD.encode("a".repeat(400))),
        ] {
            assert_eq!(check("", authorization), Err(Denied::Nothing), "{authorization}");
        }
    }
}
