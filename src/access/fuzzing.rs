//! What the fuzzers assert of credentials and tokens.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

use super::authenticator::TokenError;
use super::authjs::AuthJs;
use super::credential::CookieNames;
use super::{Authenticator, Credential, CredentialError, Origins, Principal};
use crate::config::{self, Access, Secret};

pub use super::jwks::fuzzing::key_sets;

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
    for chunked in [false, true] {
        let names = ["__Secure-session", "session"].map(str::to_owned).to_vec();
        let known = CookieNames { names, chunked };
        for (ticket, token) in [(None, None), (Some("t"), None), (None, Some("q")), (Some("t"), Some("q"))] {
            is_the_first(&headers, ticket, token, &Credential::choose(&headers, ticket, token, &known));
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
        let own = [b"://", &*host.to_ascii_lowercase()].concat();
        let own = !host.is_empty() && origin.as_bytes().to_ascii_lowercase().ends_with(&own);
        assert!(named.next().is_none() && (origin == listed || own), "{headers:?}");
    }
}

fn is_the_first(
    headers: &HeaderMap,
    ticket: Option<&str>,
    token: Option<&str>,
    chosen: &Result<Credential<'_>, CredentialError>,
) {
    let bearer = headers.get(AUTHORIZATION);
    let queried = ticket.is_some() || token.is_some();
    match chosen {
        Ok(Credential::Bearer(text)) => {
            let value = bearer.and_then(|value| value.to_str().ok()).expect("a header of text");
            let only = headers.get_all(AUTHORIZATION).iter().count() == 1;
            assert!(!text.is_empty() && value.trim_end().ends_with(text) && only);
        }
        Ok(Credential::Ticket(text)) => assert!(bearer.is_none() && Some(*text) == ticket),
        Ok(Credential::Query(text)) => {
            assert!(bearer.is_none() && ticket.is_none() && Some(*text) == token);
        }
        Ok(Credential::Cookie(..)) => {
            assert!(bearer.is_none() && !queried && headers.contains_key(COOKIE));
        }
        Err(CredentialError::Missing) => assert!(bearer.is_none() && !queried),
        Err(CredentialError::Unusable) => {
            assert!(bearer.is_some() || (!queried && headers.contains_key(COOKIE)));
        }
    }
}

/// Any text as a token, a ticket, a session's cookie, and as the claims of a token that was signed. Nothing is accepted
/// that nobody signed, nor anything without a subject and a time at which it ends; what is refused is not quoted.
pub fn tokens(data: &[u8]) {
    static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
        let access = Access { jwt_secret: Some(Secret::new(SECRET.to_owned())), ..Access::default() };
        Authenticator::new(&access).expect("a key")
    });
    static SESSIONS: LazyLock<[AuthJs; 2]> = LazyLock::new(|| {
        [4, 5].map(|version| {
            let secret = Some(Secret::new(SECRET.to_owned()));
            AuthJs::new(&config::AuthJs { version, secret, ..config::AuthJs::default() }).0
        })
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let refused = authenticate(&AUTHENTICATOR, text).expect_err("nobody signed it");
    // What has no dot may be a piece of any sentence.
    let quoted = text.contains('.') && refused.to_string().contains(text);
    assert!(!refused.to_string().contains(SECRET) && !quoted, "{refused}");
    assert!(AUTHENTICATOR.tickets().read(text).is_err(), "a ticket that was never issued");
    for sessions in &*SESSIONS {
        assert!((0..3).all(|name| sessions.open(text, name).is_err()), "a session that nobody encrypted");
    }

    let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
    let sign = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
    };
    let Some(token) = sign(SECRET) else { return };
    let Ok(principal) = authenticate(&AUTHENTICATOR, &token) else { return };
    assert_eq!(claims.get("sub").and_then(Value::as_str), Some(&*principal.subject));
    assert!(!principal.subject.is_empty() && principal.expires_at > NOW);
    let ends = claims.get("exp").and_then(Value::as_f64).expect("a number");
    assert!((ends.trunc() - principal.expires_at as f64).abs() <= ends * 1e-15, "{ends}");
    assert!(principal.default_organization.as_ref().is_none_or(|id| !id.is_empty()));
    for other in ["another secret, as long as the first one is", ""] {
        assert!(sign(other).is_none_or(|forged| authenticate(&AUTHENTICATOR, &forged).is_err()));
    }
}

/// By keys at hand, which takes no waiting.
fn authenticate(authenticator: &Authenticator, token: &str) -> Result<Principal, TokenError> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    authenticator.authenticate_at(token, now).now_or_never().expect("no key has to be fetched")
}
