use serde_json::Value;

use super::*;

/// Made by the packages themselves: the cookies, the secrets, and the claims that went in.
fn vectors() -> Vec<Value> {
    let document: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    document["vectors"].as_array().unwrap().clone()
}

fn configured(version: u64, secrets: &[&str], cookie: Option<&str>) -> config::AuthJs {
    let mut secrets = secrets.iter().map(|&secret| Secret::new(secret.to_owned()));
    config::AuthJs {
        version: u8::try_from(version).unwrap(),
        secret: secrets.next(),
        old_secrets: secrets.collect(),
        cookie: cookie.map(str::to_owned),
    }
}

fn of(vector: &Value) -> (AuthJs, &str) {
    let secrets: Vec<&str> =
        vector["secrets"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let configured = configured(vector["version"].as_u64().unwrap(), &secrets, vector["cookie"].as_str());
    (AuthJs::new(&configured).0, vector["value"].as_str().unwrap())
}

fn named(name: &str) -> Value {
    vectors().into_iter().find(|vector| vector["name"] == name).unwrap()
}

#[test]
fn what_the_packages_encrypted_is_read() {
    for vector in vectors().iter().filter(|vector| !vector["cookie"].is_null()) {
        let (authjs, cookie) = of(vector);
        let claims: Value = serde_json::from_slice(&authjs.open(cookie, 0).unwrap()).unwrap();
        for (name, value) in vector["claims"].as_object().unwrap() {
            assert_eq!(&claims[name], value, "{}", vector["name"]);
        }
        assert!(claims["exp"].is_u64(), "{claims}");
    }
}

#[test]
fn the_default_names_are_the_packages_and_the_secure_one_goes_first() {
    let names = |version| AuthJs::new(&configured(version, &["s"], None)).1;
    assert_eq!(names(4), ["__Secure-next-auth.session-token", "next-auth.session-token"]);
    assert_eq!(names(5), ["__Secure-authjs.session-token", "authjs.session-token"]);
    assert_eq!(AuthJs::new(&configured(5, &["s"], Some("own"))).1, ["own"]);
    // The name is part of version 5's key.
    let secret = named("v5 authjs.session-token")["secrets"][0].as_str().unwrap().to_owned();
    let (authjs, _) = AuthJs::new(&configured(5, &[&secret], None));
    for (name, of) in [(0, "v5 __Secure-authjs.session-token"), (1, "v5 authjs.session-token")] {
        let cookie = named(of)["value"].as_str().unwrap().to_owned();
        assert!(authjs.open(&cookie, name).is_ok(), "{of}");
        assert_eq!(authjs.open(&cookie, 1 - name), Err(TokenError::Signature), "{of}");
    }
}

#[test]
fn another_key_opens_nothing() {
    let salted = named("v4 salted, as callers of encode may");
    let (plain, _) = of(&named("v4"));
    assert_eq!(plain.open(salted["value"].as_str().unwrap(), 0), Err(TokenError::Signature));
    for (of, version) in [("v4", 4), ("v5 authjs.session-token", 5)] {
        let vector = named(of);
        let cookie = vector["value"].as_str().unwrap();
        let (other, _) = AuthJs::new(&configured(version, &["another"], vector["cookie"].as_str()));
        assert_eq!(other.open(cookie, 0), Err(TokenError::Signature), "{of}");
        let secret = vector["secrets"][0].as_str().unwrap();
        let (wrong_version, _) = AuthJs::new(&configured(9 - version, &[secret], vector["cookie"].as_str()));
        assert!(wrong_version.open(cookie, 0).is_err(), "{of}");
        assert_eq!(
            AuthJs::new(&configured(version, &[secret], None)).0.open(cookie, 9),
            Err(TokenError::Algorithm)
        );
    }
}

#[test]
fn nothing_of_a_cookie_can_be_changed() {
    for of_vector in ["v4", "v5 authjs.session-token"] {
        let vector = named(of_vector);
        let (authjs, cookie) = of(&vector);
        let parts: Vec<&str> = cookie.split('.').collect();
        for changed in 0..parts.len() {
            for to in ["", "AAAA", "A", "not base64!"] {
                let mut all = parts.clone();
                if all[changed] == to {
                    continue;
                }
                all[changed] = to;
                assert!(authjs.open(&all.join("."), 0).is_err(), "{of_vector} {changed} {to}");
            }
            // One bit of it.
            let Ok(mut bytes) = decode(parts[changed]) else { panic!("{changed}") };
            let Some(last) = bytes.last_mut() else { continue };
            *last ^= 1;
            let flipped = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &bytes);
            let mut all = parts.clone();
            all[changed] = &flipped;
            assert!(authjs.open(&all.join("."), 0).is_err(), "{of_vector} {changed}");
        }
        for other in [format!("{cookie}."), parts[..4].join("."), String::new(), "....".to_owned()] {
            assert!(authjs.open(&other, 0).is_err(), "{other}");
        }
    }
}

#[test]
fn a_header_that_asks_for_something_else_is_refused() {
    let vector = named("v5 authjs.session-token");
    let (authjs, cookie) = of(&vector);
    let rest = cookie.split_once('.').unwrap().1;
    for (header, error) in [
        (r#"{"alg":"dir","enc":"A128GCM"}"#, TokenError::Algorithm),
        (r#"{"alg":"A256KW","enc":"A256GCM"}"#, TokenError::Algorithm),
        (r#"{"alg":"dir","enc":"A256CBC-HS512","zip":"DEF"}"#, TokenError::Algorithm),
        (r#"{"alg":"dir","enc":"A256CBC-HS512","crit":["exp"]}"#, TokenError::Algorithm),
        (r#"{"alg":"dir","enc":"A256CBC-HS512","enc":"A256GCM"}"#, TokenError::Malformed),
        (r#"{"alg":"dir","enc":"A256CBC-HS512"}"#, TokenError::Signature),
    ] {
        let header = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
        assert_eq!(authjs.open(&format!("{header}.{rest}"), 0), Err(error), "{header}");
    }
}
