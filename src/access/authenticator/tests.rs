use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::config::Secret;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/access/authenticator/fixtures").join(name)
}

fn configured(secret: bool, keys: &[&str]) -> config::Access {
    config::Access {
        jwt_secret: secret.then(|| Secret::new(SECRET.to_owned())),
        jwt_public_keys: keys.iter().map(|name| fixture(name)).collect(),
        ..config::Access::default()
    }
}

fn authenticator(access: &config::Access) -> Authenticator {
    Authenticator::new(access).expect("usable keys")
}

fn now() -> SystemTime {
    SystemTime::now()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time") + seconds
}

fn claims(extra: &Value) -> Value {
    let mut claims = json!({"sub": "u1", "exp": in_seconds(60)});
    for (name, value) in extra.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

fn judged(access: &config::Access, token: &str) -> Result<Principal, TokenError> {
    authenticator(access).authenticate(token, now())
}

#[test]
fn a_principal_is_what_the_claims_say() {
    let token = hs256(&claims(&json!({
        "scope": "walcast:stats other", "organizationId": "a", "organizations": {"a": "admin", "b": null},
        "aud": "anyone", "unknown": 1,
    })));
    let principal = judged(&configured(true, &[]), &token).expect("a good token");
    assert_eq!(&*principal.subject, "u1");
    assert!(
        principal.has_scope("walcast:stats")
            && principal.has_scope("other")
            && !principal.has_scope("walcast")
    );
    assert_eq!(principal.default_organization.as_deref(), Some("a"));
    assert_eq!(principal.organizations.get("a"), Some(&Some("admin".into())));
    assert_eq!(principal.organizations.get("b"), Some(&None));
    assert!((59..=60).contains(&principal.remaining(now()).as_secs()));

    let list =
        judged(&configured(true, &[]), &hs256(&claims(&json!({"organizations": ["a"], "scope": ["x"]}))));
    let list = list.expect("a good token");
    assert_eq!(list.organizations.get("a"), Some(&None));
    assert!(list.has_scope("x"));
}

#[test]
fn each_kind_of_key_verifies_its_algorithm() {
    let all = configured(true, &["rsa.public.pem", "p256.public.pem", "ed25519.public.pem"]);
    let key = |name: &str| std::fs::read(fixture(name)).expect("a fixture");
    for (algorithm, signing) in [
        (Algorithm::RS256, EncodingKey::from_rsa_pem(&key("rsa.private.pem"))),
        (Algorithm::ES256, EncodingKey::from_ec_pem(&key("p256.private.pem"))),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(&key("ed25519.private.pem"))),
    ] {
        let token =
            encode(&Header::new(algorithm), &claims(&json!({})), &signing.expect("a key")).expect("a token");
        assert_eq!(judged(&all, &token).map(|p| p.subject), Ok("u1".into()), "{algorithm:?}");
        assert_eq!(judged(&configured(true, &[]), &token), Err(TokenError::Algorithm), "{algorithm:?}");
        let mut forged = token.clone();
        // The last character's low bits may be padding: change the one before it.
        let swapped = if forged.as_bytes()[forged.len() - 2] == b'A' { 'B' } else { 'A' };
        forged.replace_range(forged.len() - 2..forged.len() - 1, &swapped.to_string());
        assert_eq!(judged(&all, &forged), Err(TokenError::Signature), "{algorithm:?}");
    }
}

#[test]
fn a_public_key_is_no_hmac_secret_and_none_is_no_algorithm() {
    let rsa_only = configured(false, &["rsa.public.pem"]);
    let public = std::fs::read(fixture("rsa.public.pem")).expect("a fixture");
    let header = Header::new(Algorithm::HS256);
    let confused = encode(&header, &claims(&json!({})), &EncodingKey::from_secret(&public)).expect("a token");
    assert_eq!(judged(&rsa_only, &confused), Err(TokenError::Algorithm));

    // {"alg":"none"} and {"sub":"u1","exp":9999999999}
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSIsImV4cCI6OTk5OTk5OTk5OX0.";
    assert_eq!(judged(&configured(true, &["rsa.public.pem"]), none), Err(TokenError::Malformed));
    let hs512 = encode(
        &Header::new(Algorithm::HS512),
        &claims(&json!({})),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    );
    assert_eq!(judged(&configured(true, &[]), &hs512.expect("a token")), Err(TokenError::Algorithm));
}

#[test]
fn time_has_no_leeway() {
    let access = configured(true, &[]);
    let exp = in_seconds(60);
    let token = hs256(&json!({"sub": "u1", "exp": exp}));
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(exp).expect("after 1970"));
    assert_eq!(authenticator(&access).authenticate(&token, at), Err(TokenError::Expired));
    assert!(authenticator(&access).authenticate(&token, at - Duration::from_secs(1)).is_ok());
    assert_eq!(judged(&access, &hs256(&claims(&json!({"exp": in_seconds(-1)})))), Err(TokenError::Expired));
    assert_eq!(
        judged(&access, &hs256(&claims(&json!({"nbf": in_seconds(30)})))),
        Err(TokenError::NotYetValid)
    );
    assert!(judged(&access, &hs256(&claims(&json!({"nbf": in_seconds(-1)})))).is_ok());
}

#[test]
fn what_is_required_must_be_there() {
    let access = configured(true, &[]);
    let missing = |claim: &str| Err(TokenError::MissingClaim(claim.to_owned()));
    for (token, error) in [
        (hs256(&json!({"sub": "u1"})), TokenError::Malformed),
        (hs256(&json!({"exp": in_seconds(9)})), TokenError::Malformed),
        (hs256(&claims(&json!({"sub": ""}))), TokenError::Malformed),
        (hs256(&claims(&json!({"sub": 7}))), TokenError::Malformed),
        (hs256(&claims(&json!({"exp": "soon"}))), TokenError::Malformed),
        (hs256(&claims(&json!({"organizations": "a"}))), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("a.b.c".to_owned(), TokenError::Malformed),
    ] {
        assert_eq!(judged(&access, &token), Err(error), "{token}");
    }

    let strict = config::Access { issuer: Some("me".to_owned()), audience: Some("us".to_owned()), ..access };
    assert_eq!(judged(&strict, &hs256(&claims(&json!({"aud": "us"})))), missing("iss"));
    assert_eq!(judged(&strict, &hs256(&claims(&json!({"iss": "me"})))), missing("aud"));
    assert_eq!(
        judged(&strict, &hs256(&claims(&json!({"iss": "you", "aud": "us"})))),
        Err(TokenError::Issuer)
    );
    assert_eq!(
        judged(&strict, &hs256(&claims(&json!({"iss": "me", "aud": ["them"]})))),
        Err(TokenError::Audience)
    );
    assert!(judged(&strict, &hs256(&claims(&json!({"iss": "me", "aud": ["them", "us"]})))).is_ok());
}

#[test]
fn keys_that_would_never_verify_are_refused_at_start() {
    let error =
        |access: &config::Access| Authenticator::new(access).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error(&configured(false, &[])).starts_with("no key to verify tokens with"));
    let secret = |text: &str| config::Access {
        jwt_secret: Some(Secret::new(text.to_owned())),
        ..config::Access::default()
    };
    assert!(error(&secret("")).starts_with("access.jwt_secret is empty"));
    assert_eq!(error(&secret("short")), "", "weak, but what another system may sign with");
    assert!(error(&configured(false, &["p384.public.pem"])).contains("is not a PEM public key"));
    assert!(error(&configured(false, &["rsa.private.pem"])).contains("holds a private key"));
    assert!(error(&configured(false, &["missing.pem"])).contains("missing.pem"));
}

#[test]
fn a_rotated_key_verifies_beside_the_old_one() {
    let both = configured(false, &["p256-old.public.pem", "p256.public.pem"]);
    let key = std::fs::read(fixture("p256.private.pem")).expect("a fixture");
    let key = EncodingKey::from_ec_pem(&key).expect("a key");
    let token = encode(&Header::new(Algorithm::ES256), &claims(&json!({})), &key).expect("a token");
    assert!(judged(&both, &token).is_ok());
    assert_eq!(judged(&configured(false, &["p256-old.public.pem"]), &token), Err(TokenError::Signature));
}
