//! Credentials that are nobody's.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::native;
use crate::bench::app::{JWT_SECRET, TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::process::command;
use crate::bench::{PATIENCE, eventually};

/// Far away.
const EXP: u64 = 4_102_444_800;

/// Asserts that the token opens nothing, however it is sent, and that it is not said back.
async fn refused(app: &TestApp, token: &str, why: &str) {
    // What can't stand in a header is tried in the query alone.
    let by_header = (!token.contains(['\r', '\n', '\0'])).then(|| native("organizationId=o1").bearer(token));
    let by_query = native(&format!("organizationId=o1&token={}", super::encoded(token)));
    for request in by_header.into_iter().chain([by_query]) {
        let answer = request.fetch(app.address).await;
        assert_eq!(answer.error().0, 401, "{why}: {token:?}");
        assert!(token.len() < 8 || !answer.body.contains(token), "{why}: {}", answer.body);
        assert_eq!(answer.head.header("www-authenticate"), Some("Bearer"), "{why}");
    }
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[tokio::test]
async fn a_token_with_any_part_changed_cut_or_swapped_opens_nothing() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    let good = member.token.as_str();
    let other = token_with("u2", json!({ "organizations": ["o1"] }));

    // One character at a time; each of the alphabet's neighbours is another value of at least one bit.
    for (at, byte) in good.bytes().enumerate().step_by(3) {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = match byte {
            b'A' => b'B',
            b'.' => b'_',
            _ => b'A',
        };
        refused(&app, std::str::from_utf8(&bytes).unwrap(), "one character").await;
    }
    // The last character of a signature has bits that mean nothing: only one spelling is right.
    let last = good.chars().last().unwrap();
    for spelled in
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().filter(|c| *c != last)
    {
        refused(&app, &format!("{}{spelled}", &good[..good.len() - 1]), "another spelling").await;
    }
    for end in (0..good.len()).step_by(17).chain([good.len() - 1]) {
        refused(&app, &good[..end], "cut").await;
    }
    for more in ["=", "==", ".", ".x", "%00", "\0", "\n", " x", "\u{feff}", "A"] {
        refused(&app, &format!("{good}{more}"), "longer").await;
    }
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (parts(good), parts(&other));
    for swapped in [
        format!("{}.{}.{}", one[0], two[1], one[2]),
        format!("{}.{}.{}", one[0], one[1], two[2]),
        format!("{}.{}.{}", one[1], one[0], one[2]),
        format!("{}.{}.", one[0], one[1]),
        format!("{}..{}", one[0], one[2]),
        format!(".{}.{}", one[1], one[2]),
        format!("{}.{}.{}.{}", one[0], one[1], one[2], one[2]),
        format!("{good}.{good}"),
        format!("{good},{good}"),
    ] {
        refused(&app, &swapped, "swapped").await;
    }
}

#[tokio::test]
async fn no_header_of_a_token_chooses_its_own_key_or_algorithm() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    let claims = json!({ "sub": "u1", "exp": EXP });
    for name in ["none", "None", "NONE", "nOnE", "", "HS1", "hs256", "HS256\0", "HS257"] {
        let unsigned = format!("{}.{}", part(&json!({ "alg": name, "typ": "JWT" })), part(&claims));
        refused(&app, &format!("{unsigned}."), name).await;
        refused(&app, &format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode("x")), name).await;
    }
    let own = EncodingKey::from_secret(b"a key that the sender brought along, long enough");
    let own_jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode("a key that the sender brought along, long enough") });
    for header in [
        json!({ "alg": "HS256", "jwk": own_jwk }),
        json!({ "alg": "HS256", "jku": "http://127.0.0.1:9/keys.json" }),
        json!({ "alg": "HS256", "x5u": "http://127.0.0.1:9/cert.pem" }),
        json!({ "alg": "HS256", "x5c": ["MIIB"] }),
        json!({ "alg": "HS256", "kid": "../../../../dev/null" }),
        json!({ "alg": "HS256", "kid": "' union select 'x" }),
        json!({ "alg": "HS256", "kid": { "a": 1 } }),
        json!({ "alg": ["HS256", "none"] }),
        json!({ "alg": { "HS256": 1 } }),
        json!({}),
    ] {
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &own, Algorithm::HS256).expect("signed");
        refused(&app, &format!("{message}.{signature}"), "a key of its own").await;
    }
    // The empty key is what /dev/null or an unset variable would be.
    let empty = encode(&Header::default(), &claims, &EncodingKey::from_secret(b"")).expect("a token");
    refused(&app, &empty, "an empty key").await;
    let right = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(&Header::new(algorithm), &claims, &right).expect("a token");
        refused(&app, &token, "an algorithm that nobody configured").await;
    }
}

#[tokio::test]
async fn claims_of_the_wrong_kind_are_a_refusal_and_never_a_crash() {
    let app = TestApp::start().await;
    app.member("o1", "u1", "admin").await;
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let sign = |claims: &Value| encode(&Header::default(), claims, &key).expect("a token");
    for exp in
        [json!("4102444800"), json!(null), json!([EXP]), json!(true), json!(-1), json!({ "a": 1 }), json!(0)]
    {
        refused(&app, &sign(&json!({ "sub": "u1", "exp": exp })), "exp").await;
    }
    for sub in [json!(1), json!(null), json!(["u1"]), json!({ "u1": 1 }), json!("")] {
        refused(&app, &sign(&json!({ "sub": sub, "exp": EXP })), "sub").await;
    }
    for claims in [json!([]), json!("u1"), json!(null), json!(1)] {
        refused(&app, &sign(&claims), "no object").await;
    }
    let deep = format!("{}1{}", "[".repeat(3000), "]".repeat(3000));
    let text = format!("{}.{}", part(&json!({ "alg": "HS256" })), URL_SAFE_NO_PAD.encode(&deep));
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).expect("signed");
    refused(&app, &format!("{text}.{signature}"), "deep").await;
}

#[tokio::test]
async fn of_two_credentials_neither_is_a_fall_back_for_the_other() {
    let app =
        TestApp::builder().config(|config| config.access.cookie = Some("session".to_owned())).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let good = &member.token;
    let get = |query: &str, headers: &[(&str, &str)]| {
        let request = native(&format!("organizationId=o1{query}"));
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    let bearer = format!("Bearer {good}");
    let cookie = format!("session={good}");
    for (why, request, status) in [
        ("two headers", get("", &[("Authorization", &bearer), ("Authorization", &bearer)]), 401),
        ("a list", get("", &[("Authorization", &format!("{bearer}, {bearer}"))]), 401),
        ("another scheme", get("", &[("Authorization", "Basic dTE6dTE="), ("Cookie", &cookie)]), 401),
        ("an empty header", get(&format!("&token={good}"), &[("Authorization", "")]), 401),
        ("two tokens", get(&format!("&token={good}&token={good}"), &[]), 400),
        ("a token spelled otherwise", get(&format!("&token={good}&%74oken={good}"), &[]), 400),
        ("a ticket beside a token", get(&format!("&ticket=x&token={good}"), &[]), 401),
        ("an empty token", get("&token=", &[("Cookie", &cookie)]), 401),
        ("two cookies", get("", &[("Cookie", &format!("{cookie}; {cookie}"))]), 401),
        ("two cookie headers", get("", &[("Cookie", &cookie), ("Cookie", "session=x")]), 401),
        ("another name", get("", &[("Cookie", &format!("Session={good}; xsession={good}"))]), 401),
    ] {
        let answer = request.fetch(app.address).await;
        assert_eq!(answer.error().0, status, "{why}: {}", answer.body);
        assert!(!answer.body.contains(good), "{why}: {}", answer.body);
    }
}

#[tokio::test]
async fn no_line_of_the_log_has_a_token_or_the_secret() {
    let mut app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.stop().await;
    let address = crate::bench::programs::free_port();
    let mut command = command(&app.url);
    command.args(["run", "--reference"]);
    command.env("WALCAST_LOG", "debug").env("WALCAST_HTTP_LISTEN", address.to_string());
    command.env("WALCAST_ACCESS_COOKIE", "session");
    let mut worker = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary");
    let mut stderr = worker.stderr.take().expect("its log");
    let log = tokio::spawn(async move {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text).await;
        text
    });
    eventually("the worker is ready", || async {
        tokio::net::TcpStream::connect(address).await.ok()?;
        (Request::get("/readyz").fetch(address).await.head.status == 200).then_some(())
    })
    .await;
    let forged = format!("{}x", member.token);
    let expired = token_with("u1", json!({ "exp": 1 }));
    for token in [&member.token, &forged, &expired] {
        for request in [
            native("organizationId=o1").bearer(token),
            native(&format!("organizationId=o1&token={token}")),
            native(&format!("organizationId=o1&ticket={token}")),
            native("organizationId=o1").header("Cookie", &format!("session={token}")),
            native(&format!("organizationId=o1&token={token}&token={token}")),
            native(&format!("organizationId=o1&{token}=1")).bearer(&member.token),
            Request::get(format!("/{token}?token={token}"))
                .header("Referer", &format!("http://x/?token={token}")),
            Request::get(format!("/metrics?token={token}")).header("X-Forwarded-For", "9.9.9.9"),
        ] {
            let (socket, _, _) = request.send(address).await;
            drop(socket);
        }
    }
    let metrics = Request::get("/metrics").fetch(address).await.body;
    worker.start_kill().expect("it runs");
    let text = tokio::time::timeout(PATIENCE, log).await.expect("the log ends").expect("a log");
    let stdout = worker.wait_with_output().await.expect("it ended").stdout;
    let all = format!("{text}{metrics}{}", String::from_utf8_lossy(&stdout));
    assert!(text.contains("\"level\":\"DEBUG\"") || text.contains("DEBUG"), "the log is whole: {text:.500}");
    for secret in [&member.token, &forged, &expired, &JWT_SECRET.to_owned()] {
        assert!(!all.contains(secret.as_str()), "{secret} in {all}");
    }
    // A signature is as good as its token to who has the rest.
    let signature = member.token.rsplit('.').next().expect("signed");
    assert!(!all.contains(signature), "{all}");
}
