//! Which of the credentials that a request carries decides.
//!
//! Exactly one does: the first present of `Authorization`, `?ticket=`, `?token=`, the cookie. A present one that is
//! bad is an error: falling back to the next would let a request be somebody else than it says.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::cookies::{self, Unreadable};

/// The one that decides, as the request spelled it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential<'a> {
    Bearer(&'a str),
    Ticket(&'a str),
    Query(&'a str),
    /// The value, and by which of the known names it came.
    Cookie(Cow<'a, str>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the request carries no credential")]
    Missing,
    /// Present, deciding, and not usable.
    #[error("the request's credential can't be used")]
    Unusable,
}

/// The cookie that is read.
#[derive(Clone, Debug, Default)]
pub(super) struct CookieNames {
    /// The first that is there counts.
    pub(super) names: Vec<String>,
    pub(super) chunked: bool,
}

impl<'a> Credential<'a> {
    /// `ticket` and `token` are the query's parameters.
    pub(super) fn choose(
        headers: &'a HeaderMap,
        ticket: Option<&'a str>,
        token: Option<&'a str>,
        known: &CookieNames,
    ) -> Result<Self, CredentialError> {
        if headers.contains_key(AUTHORIZATION) {
            return bearer(headers).map(Self::Bearer).ok_or(CredentialError::Unusable);
        }
        if let Some(ticket) = ticket {
            return Ok(Self::Ticket(ticket));
        }
        if let Some(token) = token {
            return Ok(Self::Query(token));
        }
        for (number, name) in known.names.iter().enumerate() {
            let cookie = if known.chunked {
                cookies::joined(headers, name)
            } else {
                cookies::whole(headers, name).map(|found| found.map(Cow::Borrowed))
            };
            if let Some(value) = cookie.map_err(|Unreadable| CredentialError::Unusable)? {
                return Ok(Self::Cookie(value, number));
            }
        }
        Err(CredentialError::Missing)
    }

    /// Browsers add it by themselves, so the request's origin has to be looked at.
    #[must_use]
    pub const fn is_ambient(&self) -> bool {
        matches!(self, Self::Cookie(..))
    }
}

/// What it is, and never its text.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer",
            Self::Ticket(_) => "Ticket",
            Self::Query(_) => "Query",
            Self::Cookie(..) => "Cookie",
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a header value"));
        }
        map
    }

    fn session() -> CookieNames {
        CookieNames { names: vec!["__Secure-session".to_owned(), "session".to_owned()], chunked: false }
    }

    #[test]
    fn the_first_present_credential_decides() {
        let all = headers(&[("authorization", "bearer a"), ("cookie", "x=1; session=c")]);
        let cookie = headers(&[("cookie", "x=1; session=c")]);
        let (none, known) = (HeaderMap::new(), session());
        let choose = |headers, ticket, token| Credential::choose(headers, ticket, token, &known);
        assert!(choose(&all, Some("t"), Some("q")) == Ok(Credential::Bearer("a")));
        assert!(choose(&cookie, Some("t"), Some("q")) == Ok(Credential::Ticket("t")));
        assert!(choose(&cookie, None, Some("q")) == Ok(Credential::Query("q")));
        assert!(choose(&cookie, None, None) == Ok(Credential::Cookie("c".into(), 1)));
        assert!(choose(&none, None, None) == Err(CredentialError::Missing));
        let both = headers(&[("cookie", "session=c; __Secure-session=s")]);
        assert!(choose(&both, None, None) == Ok(Credential::Cookie("s".into(), 0)));
    }

    #[test]
    fn a_present_but_bad_credential_never_falls_back() {
        for value in ["Basic YTpi", "Bearer", "Bearer ", "a"] {
            let map = headers(&[("authorization", value), ("cookie", "session=c")]);
            assert_eq!(
                Credential::choose(&map, Some("t"), Some("q"), &session()),
                Err(CredentialError::Unusable)
            );
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        let none = CookieNames::default();
        assert_eq!(Credential::choose(&twice, None, None, &none), Err(CredentialError::Unusable));
        // An empty parameter is present: it decides, and it is no token.
        let cookie = headers(&[("cookie", "session=c")]);
        assert!(Credential::choose(&cookie, None, Some(""), &session()) == Ok(Credential::Query("")));
        assert!(Credential::choose(&cookie, Some(""), None, &session()) == Ok(Credential::Ticket("")));
        let planted = headers(&[("cookie", "__Secure-session=a; __Secure-session=b; session=c")]);
        assert_eq!(Credential::choose(&planted, None, None, &session()), Err(CredentialError::Unusable));
        assert_eq!(Credential::choose(&cookie, None, None, &none), Err(CredentialError::Missing));
    }

    #[test]
    fn no_credential_is_printed() {
        for credential in [
            Credential::Bearer("hidden"),
            Credential::Ticket("hidden"),
            Credential::Query("hidden"),
            Credential::Cookie("hidden".into(), 0),
        ] {
            assert!(!format!("{credential:?}").contains("hidden"));
        }
    }
}
