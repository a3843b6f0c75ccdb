//! What the fuzzers assert of credentials and tokens.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

use super::{Authenticator, Credential, CredentialError, Origins};
use crate::config::{Access, Secret};

const SECRET: &str = "a secret of the fuzzer, long enough for HS256";

/// Seconds since 1970.
const NOW: u64 = 1_000_000_000;

/// A header's name and value on each line; lines that are none are left out.
pub(crate) fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        // As hyper does it: white space around a value is none of it.
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Any headers. The credential that decides is the first present one, and no other; a cookie counts only for pages of
/// its own or a listed origin.
pub fn credentials(data: &[u8]) {
    let headers = headers(data);
    for (ticket, token) in
        [(None, None), (Some("t"), None), (None, Some("from the query")), (Some("t"), Some("q"))]
    {
        let chosen = Credential::choose(&headers, ticket, token, Some("session"));
        let bearer = headers.get(AUTHORIZATION);
        match chosen {
            Ok(Credential::Bearer(text)) => {
                let value = bearer.and_then(|value| value.to_str().ok()).expect("a header of text");
                assert!(
                    !text.is_empty()
                        && value.ends_with(text)
                        && headers.get_all(AUTHORIZATION).iter().count() == 1
                );
            }
            Ok(Credential::Query(text)) => {
                assert!(bearer.is_none() && ticket.is_none() && Some(text) == token);
            }
            Ok(Credential::Cookie(_)) => {
                assert!(
                    bearer.is_none() && ticket.is_none() && token.is_none() && headers.contains_key(COOKIE)
                );
            }
            Err(CredentialError::Missing) => assert!(bearer.is_none() && ticket.is_none() && token.is_none()),
            Err(CredentialError::Unusable) => {
                assert!(
                    bearer.is_some() || ticket.is_some() || (token.is_none() && headers.contains_key(COOKIE))
                );
            }
        }
    }

    let listed = "https://app.example.com";
    let origins = Origins::new(&[listed.to_owned()]).expect("an origin");
    assert!(origins.listed(&headers).is_none_or(|origin| origin == listed));
    let mut named = headers.get_all(ORIGIN).iter();
    if let Some(origin) = named.next()
        && origins.admits_ambient(&headers)
    {
        let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        let own =
            origin.as_bytes().to_ascii_lowercase().ends_with(&[b"://", &*host.to_ascii_lowercase()].concat());
        assert!(named.next().is_none() && (origin == listed || (own && !host.is_empty())), "{headers:?}");
    }
}

/// Any text as a token, and as the claims of one that was signed. Nothing is accepted that nobody signed, nor anything
/// without a subject and a time at which it ends; what is refused is not quoted.
pub fn tokens(data: &[u8]) {
    static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
        let access = Access { jwt_secret: Some(Secret::new(SECRET.to_owned())), ..Access::default() };
        Authenticator::new(&access).expect("a key")
    });
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let refused = AUTHENTICATOR.authenticate(text, now).expect_err("nobody signed it");
    assert!(
        !refused.to_string().contains(SECRET) && (text.len() < 20 || !refused.to_string().contains(text))
    );

    let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let Ok(token) = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key) else { return };
    let Ok(principal) = AUTHENTICATOR.authenticate(&token, now) else { return };
    assert_eq!(claims.get("sub").and_then(Value::as_str), Some(&*principal.subject));
    assert!(!principal.subject.is_empty() && principal.expires_at > NOW);
    let ends = claims.get("exp").and_then(Value::as_f64).expect("a number");
    assert!(ends > NOW as f64 && (ends.trunc() - principal.expires_at as f64).abs() <= ends * 1e-15);
    assert!(!principal.default_organization.as_ref().is_some_and(|id| id.is_empty()));
    for other in ["another secret, as long as the first one is", ""] {
        let key = EncodingKey::from_secret(other.as_bytes());
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
        assert!(
            forged.is_err() || forged.is_ok_and(|token| AUTHENTICATOR.authenticate(&token, now).is_err())
        );
    }
}
