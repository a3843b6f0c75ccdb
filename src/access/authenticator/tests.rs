use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
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
    encode(&Header::new(jsonwebtoken::Algorithm::HS256), claims, &key).expect("a token")
}

/// A token of this header and these claims, letter by letter, signed by the secret.
fn written(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn judged(access: &config::Access, token: &str) -> Result<Principal, TokenError> {
    judged_at(access, token, now())
}

/// Nothing has to be waited for where every key is at hand.
fn judged_at(access: &config::Access, token: &str, at: SystemTime) -> Result<Principal, TokenError> {
    authenticator(access).authenticate_at(token, at).now_or_never().expect("at once")
}

#[test]
fn a_principal_is_what_the_claims_say() {
    let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    let token = hs256(&claims(&json!({
        "scope": "walcast:stats other", "organizationId": "a", "organizations": {"a": "admin", "b": null},
        "aud": "anyone", "unknown": 1, "exp": 1_700_000_060,
    })));
    let principal = judged_at(&configured(true, &[]), &token, now).expect("a good token");
    assert_eq!(&*principal.subject, "u1");
    assert!(
        principal.has_scope("walcast:stats")
            && principal.has_scope("other")
            && !principal.has_scope("walcast")
    );
    assert_eq!(principal.default_organization.as_deref(), Some("a"));
    assert_eq!(principal.organizations.get("a"), Some(&Some("admin".into())));
    assert_eq!(principal.organizations.get("b"), Some(&None));
    assert_eq!(principal.remaining(now), Duration::from_millis(59_750));

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
        (jsonwebtoken::Algorithm::RS256, EncodingKey::from_rsa_pem(&key("rsa.private.pem"))),
        (jsonwebtoken::Algorithm::ES256, EncodingKey::from_ec_pem(&key("p256.private.pem"))),
        (jsonwebtoken::Algorithm::EdDSA, EncodingKey::from_ed_pem(&key("ed25519.private.pem"))),
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
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    let confused = encode(&header, &claims(&json!({})), &EncodingKey::from_secret(&public)).expect("a token");
    assert_eq!(judged(&rsa_only, &confused), Err(TokenError::Algorithm));

    // {"alg":"none"} and {"sub":"u1","exp":9999999999}
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSIsImV4cCI6OTk5OTk5OTk5OX0.";
    assert_eq!(judged(&configured(true, &["rsa.public.pem"]), none), Err(TokenError::Algorithm));
    let hs512 = encode(
        &Header::new(jsonwebtoken::Algorithm::HS512),
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
    assert_eq!(judged_at(&access, &token, at), Err(TokenError::Expired));
    assert!(judged_at(&access, &token, at - Duration::from_secs(1)).is_ok());
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
    let missing = |claim: &'static str| Err(TokenError::MissingClaim(claim));
    for (token, error) in [
        (hs256(&json!({"sub": "u1"})), TokenError::MissingClaim("exp")),
        (hs256(&json!({"exp": in_seconds(9)})), TokenError::MissingClaim("sub")),
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
    assert!(error(&configured(false, &[])).starts_with("nothing to know anybody by"));
    let secret = |text: &str| config::Access {
        jwt_secret: Some(Secret::new(text.to_owned())),
        ..config::Access::default()
    };
    assert!(error(&secret("")).starts_with("access.jwt_secret is empty"));
    assert_eq!(error(&secret("short")), "", "weak, but what another system may sign with");
    assert!(error(&configured(false, &["p384.public.pem"])).contains("is not a PEM public key"));
    assert!(error(&configured(false, &["rsa1024.public.pem"])).contains("from 2048 bits"));
    assert!(error(&configured(false, &["rsa.private.pem"])).contains("holds a private key"));
    assert!(error(&configured(false, &["missing.pem"])).contains("missing.pem"));
}

#[test]
fn a_rotated_key_verifies_beside_the_old_one() {
    let both = configured(false, &["p256-old.public.pem", "p256.public.pem"]);
    let key = std::fs::read(fixture("p256.private.pem")).expect("a fixture");
    let key = EncodingKey::from_ec_pem(&key).expect("a key");
    let token =
        encode(&Header::new(jsonwebtoken::Algorithm::ES256), &claims(&json!({})), &key).expect("a token");
    assert!(judged(&both, &token).is_ok());
    assert_eq!(judged(&configured(false, &["p256-old.public.pem"]), &token), Err(TokenError::Signature));
}

#[test]
fn only_listed_algorithms_are_accepted_where_there_is_a_list() {
    let key = std::fs::read(fixture("rsa.private.pem")).expect("a fixture");
    let key = EncodingKey::from_rsa_pem(&key).expect("a key");
    let rs256 =
        encode(&Header::new(jsonwebtoken::Algorithm::RS256), &claims(&json!({})), &key).expect("a token");
    let both = configured(true, &["rsa.public.pem"]);
    let only = |algorithms: &[Algorithm]| config::Access { algorithms: algorithms.to_vec(), ..both.clone() };
    let hs256 = hs256(&claims(&json!({})));
    for (access, by_secret, by_key) in [
        (only(&[]), true, true),
        (only(&[Algorithm::RS256]), false, true),
        (only(&[Algorithm::HS256, Algorithm::EdDSA]), true, false),
    ] {
        assert_eq!(judged(&access, &hs256).is_ok(), by_secret);
        assert_eq!(judged(&access, &rs256).is_ok(), by_key);
    }
    let none = Authenticator::new(&only(&[Algorithm::ES256])).err().map(|error| error.to_string());
    assert!(none.is_some_and(|error| error.starts_with("access.algorithms leaves no algorithm")));
}

#[test]
fn leeway_is_what_is_configured_for_both_ends() {
    let access = config::Access { leeway: Duration::from_secs(5), ..configured(true, &[]) };
    let exp = in_seconds(60);
    let token = hs256(&json!({"sub": "u1", "exp": exp, "nbf": exp - 30}));
    let at = |second: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(second).expect("after 1970"));
    assert_eq!(judged_at(&access, &token, at(exp - 36)), Err(TokenError::NotYetValid));
    assert!(judged_at(&access, &token, at(exp - 35)).is_ok());
    // A stream that is opened in it lasts as long as it does.
    let last = judged_at(&access, &token, at(exp + 4)).expect("still good");
    assert_eq!(last.remaining(at(exp + 4)), Duration::from_secs(1));
    assert_eq!(judged_at(&access, &token, at(exp + 5)), Err(TokenError::Expired));
}

#[test]
fn a_header_that_asks_for_more_than_is_understood_is_refused() {
    let access = configured(true, &["rsa.public.pem"]);
    let claims = claims(&json!({})).to_string();
    assert!(
        judged(
            &access,
            &written(r#"{"alg":"HS256","kid":"x","typ":"at+jwt","jku":"https://evil"}"#, &claims)
        )
        .is_ok()
    );
    for (header, error) in [
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, TokenError::Malformed),
        (r#"{"alg":"HS256","crit":[]}"#, TokenError::Malformed),
        (r#"{"alg":"HS256","alg":"HS256"}"#, TokenError::Malformed),
        (r#"{"alg":"none","al\u0067":"HS256"}"#, TokenError::Malformed),
        (r#"{"alg":"HS256","kid":7}"#, TokenError::Malformed),
        (r#"{"alg":["HS256"]}"#, TokenError::Malformed),
        (r#"["HS256",null,null]"#, TokenError::Malformed),
        (r#"{"typ":"JWT"}"#, TokenError::Malformed),
        (r#"{"alg":"hs256"}"#, TokenError::Algorithm),
        (r#"{"alg":"NONE"}"#, TokenError::Algorithm),
        (r#"{"alg":""}"#, TokenError::Algorithm),
        (r#"{"alg":"HS512"}"#, TokenError::Algorithm),
        (r#"{"alg":"RS256"}"#, TokenError::Signature),
    ] {
        assert_eq!(judged(&access, &written(header, &claims)), Err(error), "{header}");
    }
}

#[test]
fn a_claim_that_is_read_stands_there_once_and_numbers_are_times() {
    let access = configured(true, &[]);
    let ask = |claims: &str| judged(&access, &written(r#"{"alg":"HS256"}"#, claims));
    let exp = in_seconds(60);
    assert!(ask(&format!(r#"{{"sub":"u","exp":{exp}.75,"other":1,"other":2}}"#)).is_ok());
    // The end of time, and what lies far behind it.
    for far in [u64::MAX.to_string(), "1e15".to_owned()] {
        let token = ask(&format!(r#"{{"sub":"u","exp":{far}}}"#)).expect("good for ages");
        assert!(token.remaining(now()) > Duration::from_secs(1 << 40));
    }
    for claims in [
        format!(r#"{{"sub":"u","sub":"v","exp":{exp}}}"#),
        format!(r#"{{"sub":"u","s\u0075b":"v","exp":{exp}}}"#),
        format!(r#"{{"sub":"u","exp":1,"exp":{exp}}}"#),
        format!(r#"{{"sub":"u","exp":{exp},"organizations":{{"a":"member","a":"admin"}}}}"#),
        format!(r#"{{"sub":"u","exp":{exp},"organizationId":"a","organizationId":"b"}}"#),
        format!(r#"{{"sub":"u","exp":"{exp}"}}"#),
        format!(r#"{{"sub":"u","exp":[{exp}]}}"#),
        r#"{"sub":"u","exp":1e300}"#.to_owned(),
        r#"{"sub":"u","exp":1e999}"#.to_owned(),
        r#"{"sub":"u","exp":18446744073709551616e9}"#.to_owned(),
        r#"{"sub":"u","exp":true}"#.to_owned(),
        format!(r#"{{"sub":"u","exp":{exp},"nbf":-1}}"#),
        format!(r#"{{"sub":"u","exp":{exp}}} "#) + "x",
        format!(r#"["u",{exp}]"#),
        format!(r#"["u",null,{exp},null,null,null,"",null,[]]"#),
        "null".to_owned(),
        String::new(),
        "[".repeat(4000),
    ] {
        assert_eq!(ask(&claims), Err(TokenError::Malformed), "{claims}");
    }
    assert_eq!(ask(r#"{"sub":"u","exp":-1}"#), Err(TokenError::Malformed));
    assert_eq!(ask(r#"{"sub":"u","exp":0.5}"#), Err(TokenError::Expired));
    assert_eq!(ask(&format!(r#"{{"sub":null,"exp":{exp}}}"#)), Err(TokenError::MissingClaim("sub")));
}

#[test]
fn a_token_has_one_spelling_and_a_bounded_length() {
    let access = configured(true, &[]);
    let token = hs256(&claims(&json!({})));
    assert!(judged(&access, &token).is_ok());
    for other in [
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{token} "),
        format!(" {token}"),
        token.replacen('.', "..", 1),
        token.replacen('.', "\n.", 1),
        token.rsplit_once('.').expect("a signature").0.to_owned(),
        format!("{}.", token.rsplit_once('.').expect("a signature").0),
    ] {
        assert!(judged(&access, &other).is_err(), "{other}");
    }
    let long = hs256(&claims(&json!({"padding": "x".repeat(20_000)})));
    assert_eq!(judged(&access, &long), Err(TokenError::Malformed));
}

proptest! {
    #[test]
    fn whatever_is_done_to_a_token_it_is_no_other(at in 0usize..200, to in "[A-Za-z0-9_.=-]") {
        let access = configured(true, &["rsa.public.pem"]);
        let token = hs256(&claims(&json!({"organizations": {"a": "member"}})));
        let at = at % token.len();
        let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
        prop_assume!(changed != token);
        prop_assert!(judged(&access, &changed).is_err());
    }

    #[test]
    fn no_text_is_too_odd_to_refuse(text in ".{0,400}") {
        prop_assert!(judged(&configured(true, &["rsa.public.pem"]), &text).is_err());
    }
}
