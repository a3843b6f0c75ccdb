//! Which of the credentials that a request carries decides.
//!
//! Exactly one does: the first present of `Authorization`, `?ticket=`, `?token=`, the cookie. A present one that is
//! bad is an error: falling back to the next would let a request be somebody else than it says.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

/// The one that decides, as the request spelled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    Bearer(&'a str),
    Query(&'a str),
    Cookie(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the request carries no credential")]
    Missing,
    /// Present, deciding, and not usable.
    #[error("the request's credential can't be used")]
    Unusable,
}

impl<'a> Credential<'a> {
    /// `ticket` and `token` are the query's parameters; `cookie` is the configured cookie's name.
    ///
    /// # Errors
    /// When there is none, or the deciding one has not the form of one.
    pub fn choose(
        headers: &'a HeaderMap,
        ticket: Option<&str>,
        token: Option<&'a str>,
        cookie: Option<&str>,
    ) -> Result<Self, CredentialError> {
        if headers.contains_key(AUTHORIZATION) {
            return bearer(headers).map(Self::Bearer).ok_or(CredentialError::Unusable);
        }
        // No ticket was ever issued, so none can be good.
        if ticket.is_some() {
            return Err(CredentialError::Unusable);
        }
        if let Some(token) = token {
            return Ok(Self::Query(token));
        }
        let mut values = cookie.into_iter().flat_map(|name| cookies(headers, name));
        match (values.next(), values.next()) {
            (None, _) => Err(CredentialError::Missing),
            (Some(value), None) => value.map(Self::Cookie).ok_or(CredentialError::Unusable),
            // A second cookie of the name may have been planted by another host of the domain.
            (Some(_), Some(_)) => Err(CredentialError::Unusable),
        }
    }

    #[must_use]
    pub const fn token(self) -> &'a str {
        match self {
            Self::Bearer(token) | Self::Query(token) | Self::Cookie(token) => token,
        }
    }

    /// Browsers add it by themselves, so the request's origin has to be looked at.
    #[must_use]
    pub const fn is_ambient(self) -> bool {
        matches!(self, Self::Cookie(_))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
        .filter(|token| !token.is_empty())
}

/// Every value of the cookie `name`; None for one that is not text.
fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = Option<&'a str>> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(std::str::from_utf8(value).ok().map(|text| text.trim_matches('"')))
    })
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

    #[test]
    fn the_first_present_credential_decides() {
        let all = headers(&[("authorization", "bearer a"), ("cookie", "x=1; session=c")]);
        let cookie = headers(&[("cookie", "x=1; session=c")]);
        let choose = |headers, ticket, token| {
            Credential::choose(headers, ticket, token, Some("session")).map(|c| format!("{c:?}"))
        };
        assert_eq!(choose(&all, Some("t"), Some("q")), Ok("Bearer(\"a\")".to_owned()));
        assert_eq!(
            choose(&cookie, Some("t"), Some("q")),
            Err(CredentialError::Unusable)
        );
        assert_eq!(choose(&cookie, None, Some("q")), Ok("Query(\"q\")".to_owned()));
        assert_eq!(choose(&cookie, None, None), Ok("Cookie(\"c\")".to_owned()));
        assert_eq!(
            choose(&HeaderMap::new(), None, None),
            Err(CredentialError::Missing)
        );
    }

    #[test]
    fn a_present_but_bad_credential_never_falls_back() {
        for value in ["Basic YTpi", "Bearer", "Bearer ", "a"] {
            let map = headers(&[("authorization", value), ("cookie", "session=c")]);
            assert_eq!(
                Credential::choose(&map, None, Some("q"), Some("session")),
                Err(CredentialError::Unusable)
            );
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(
            Credential::choose(&twice, None, None, None),
            Err(CredentialError::Unusable)
        );
        // An empty token parameter is present: it decides, and it is no token.
        let cookie = headers(&[("cookie", "session=c")]);
        assert_eq!(
            Credential::choose(&cookie, None, Some(""), Some("session")),
            Ok(Credential::Query(""))
        );
    }

    #[test]
    fn two_cookies_of_one_name_are_refused() {
        let map = headers(&[("cookie", "session=a"), ("cookie", "session=b")]);
        assert_eq!(
            Credential::choose(&map, None, None, Some("session")),
            Err(CredentialError::Unusable)
        );
        let other = headers(&[("cookie", "xsession=a; sessionx=b")]);
        assert_eq!(
            Credential::choose(&other, None, None, Some("session")),
            Err(CredentialError::Missing)
        );
        assert_eq!(
            Credential::choose(&map, None, None, None),
            Err(CredentialError::Missing)
        );
    }
}
