//! Which web pages may use the worker: the allow-list, and the rule for requests that a cookie authenticates.

use http::HeaderMap;
use http::header::{HOST, HeaderValue, ORIGIN};

/// The origins of `http.allowed_origins`, spelled as browsers send them.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    allowed: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http.allowed_origins: {0:?} is not an origin such as \"https://app.example.com\"")]
pub struct OriginsError(String);

impl Origins {
    /// # Errors
    /// When an entry is not an origin. `*` is none: answers carry credentials.
    pub fn new(origins: &[String]) -> Result<Self, OriginsError> {
        let allowed = origins
            .iter()
            .map(|text| serialized(text).ok_or_else(|| OriginsError(text.clone())));
        Ok(Self {
            allowed: allowed.collect::<Result<_, _>>()?,
        })
    }

    /// The request's origin, when it is on the list.
    #[must_use]
    pub fn listed<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.allowed
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes())
            .then_some(origin)
    }

    /// Whether a request that a cookie authenticates was made by a page that may.
    ///
    /// Its own origin is told by the authority, not the scheme: behind a proxy that ends TLS the scheme is not known.
    #[must_use]
    pub fn admits_ambient(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return headers
                .get("sec-fetch-site")
                .is_none_or(|site| site == "same-origin");
        };
        let authority = origin
            .to_str()
            .ok()
            .and_then(|text| text.split_once("://"))
            .map(|(_, authority)| authority);
        let own = authority
            .zip(headers.get(HOST))
            .is_some_and(|(authority, host)| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        origins.next().is_none() && (own || self.listed(headers).is_some())
    }
}

/// RFC 6454 section 6.2: scheme and host in lower case, no path, no default port.
fn serialized(text: &str) -> Option<Box<str>> {
    let uri: http::Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let authority = uri.authority()?;
    let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    let host = authority.host().to_ascii_lowercase();
    let port = match (scheme.as_str(), authority.port_u16()) {
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    (bare && matches!(&*scheme, "http" | "https") && !host.is_empty() && !host.contains('*'))
        .then(|| format!("{scheme}://{host}{port}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_list_holds_origins_as_browsers_send_them() {
        let list = [
            "HTTPS://App.Example.com:443/".to_owned(),
            "http://localhost:5173".to_owned(),
        ];
        let origins = Origins::new(&list).unwrap();
        assert_eq!(&*origins.allowed[0], "https://app.example.com");
        assert!(
            origins
                .listed(&headers(&[("origin", "http://localhost:5173")]))
                .is_some()
        );
        assert!(
            origins
                .listed(&headers(&[("origin", "http://localhost:51730")]))
                .is_none()
        );
        for text in [
            "*",
            "app.example.com",
            "https://a.b/path",
            "null",
            "",
            "https://u@a.b",
            "https://*.a.b",
            "ftp://a",
        ] {
            assert_eq!(
                Origins::new(&[text.to_owned()]).unwrap_err(),
                OriginsError(text.to_owned())
            );
        }
    }

    #[test]
    fn a_cookie_counts_only_from_the_own_or_a_listed_origin() {
        let origins = Origins::new(&["https://app.example.com".to_owned()]).unwrap();
        let own = ("host", "walcast.example.com");
        for (pairs, admitted) in [
            (vec![own], true),
            (vec![own, ("sec-fetch-site", "same-origin")], true),
            (vec![own, ("sec-fetch-site", "same-site")], false),
            (vec![own, ("sec-fetch-site", "none")], false),
            (vec![own, ("origin", "https://walcast.example.com")], true),
            (
                vec![
                    own,
                    ("origin", "https://app.example.com"),
                    ("sec-fetch-site", "same-site"),
                ],
                true,
            ),
            (vec![own, ("origin", "https://evil.example")], false),
            (vec![own, ("origin", "null")], false),
            (vec![("origin", "https://walcast.example.com")], false),
        ] {
            assert_eq!(origins.admits_ambient(&headers(&pairs)), admitted, "{pairs:?}");
        }
    }
}
