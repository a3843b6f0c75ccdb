//! Where no table says who is a member, the token does: on the native path and on presets, signed by keys that somebody
//! else publishes.

use std::sync::{Arc, Mutex};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use walcast::config::Config;

use crate::bench::app::{TestApp, token_with};
use crate::bench::http::Request;
use crate::bench::sse::Stream;

pub const SET: &str = include_str!("../../src/access/authenticator/fixtures/jwks.json");

fn without_tables(config: &mut Config) {
    config.access.memberships = None;
    config.access.organizations = None;
}

pub fn key(name: &str) -> Vec<u8> {
    let folder =
        std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/access/authenticator/fixtures");
    std::fs::read(folder.join(name)).expect("a fixture")
}

pub fn signed(algorithm: Algorithm, id: &str, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).expect("a token")
}

/// Publishes what it is given, and counts who asks.
struct Publisher {
    url: String,
    document: Arc<Mutex<String>>,
    asked: Arc<Mutex<usize>>,
}

impl Publisher {
    async fn start(document: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks", listener.local_addr().expect("its address"));
        let (document, asked) = (Arc::new(Mutex::new(document.to_owned())), Arc::new(Mutex::new(0)));
        let (served, counted) = (Arc::clone(&document), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n")
                    && socket.read_buf(&mut head).await.is_ok_and(|read| read > 0)
                {}
                *counted.lock().expect("a count") += 1;
                let body = served.lock().expect("a document").clone();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, document, asked }
    }
}

async fn ask(app: &TestApp, path: &str, token: &str) -> (u16, Stream) {
    let stream = Stream::open(app.address, Request::get(path).bearer(token)).await;
    (stream.head.status, stream)
}

const NATIVE: &str = "/api/realtime/stream?organizationId=o1";

#[tokio::test]
async fn a_token_says_who_is_a_member_and_with_which_role() {
    let app = TestApp::builder().config(without_tables).start().await;
    let admin = token_with("u1", json!({ "organizations": { "o1": "admin", "o2": null } }));
    let listed = token_with("u2", json!({ "organizations": ["o1"] }));
    let default = token_with(
        "u3",
        json!({ "organizations": { "o1": "admin", "o2": "member" }, "organizationId": "o1" }),
    );
    let foreign = token_with("u4", json!({ "organizations": { "o1": "admin" }, "organizationId": "o2" }));
    let nobody = token_with("u5", json!({}));
    let every = token_with("u6", json!({ "organizations": { "*": "admin" }, "organizationId": "*" }));
    for (path, token, expected) in [
        (NATIVE, &admin, 200),
        (NATIVE, &listed, 200),
        (NATIVE, &nobody, 403),
        (NATIVE, &every, 403),
        ("/api/realtime/stream?organizationId=o3", &admin, 403),
        ("/api/realtime/stream?organizationId=*", &every, 403),
        // The default is for presets alone, and is one of the organizations or none.
        ("/api/realtime/stream", &default, 400),
        ("/api/sse/dashboard", &default, 200),
        ("/api/sse/dashboard", &listed, 200),
        ("/api/sse/dashboard", &admin, 400),
        ("/api/sse/dashboard", &foreign, 403),
        ("/api/sse/dashboard", &every, 403),
        ("/api/sse/dashboard?organizationId=o2", &admin, 200),
        ("/api/sse/dashboard?organizationId=o1", &foreign, 200),
    ] {
        assert_eq!(ask(&app, path, token).await.0, expected, "{path}");
    }
    // The role decides what is seen.
    app.sql("insert into organizations (id, name, plan) values ('o1', 'One', 'free')").await;
    let (_, mut with_role) = ask(&app, &format!("{NATIVE}&channel=activity-log,custom"), &admin).await;
    let (_, mut without) = ask(&app, &format!("{NATIVE}&channel=activity-log,custom"), &listed).await;
    let connected = with_role.data().await.json();
    assert_eq!(connected["organization"], json!({ "id": "o1", "name": null, "role": "admin" }));
    assert_eq!(without.data().await.json()["organization"]["role"], Value::Null);
    app.sql("insert into user_activity (organization_id, user_id, action) values ('o1', 'u1', 'login')")
        .await;
    app.sql("select walcast.emit('o1', 'after', '1')").await;
    assert_eq!(with_role.event().await.event_type().as_deref(), Some("user.activity"));
    assert_eq!(without.event().await.event_type().as_deref(), Some("after"));
}

#[tokio::test]
async fn published_keys_are_rotated_under_a_running_worker() {
    let publisher = Publisher::start(SET).await;
    let url = publisher.url.clone();
    let app = TestApp::builder()
        .config(without_tables)
        .config(|config| config.access.jwks_url = Some(url))
        .start()
        .await;
    let exp = jsonwebtoken::get_current_timestamp() + 600;
    let claims = json!({ "sub": "u1", "exp": exp, "organizations": ["o1"] });
    let rsa = EncodingKey::from_rsa_pem(&key("rsa.private.pem")).expect("a key");
    let p256 = EncodingKey::from_ec_pem(&key("p256.private.pem")).expect("a key");
    let ed25519 = EncodingKey::from_ed_pem(&key("ed25519.private.pem")).expect("a key");
    let public = EncodingKey::from_secret(&key("rsa.public.pem"));
    let modulus =
        serde_json::from_str::<Value>(SET).expect("JSON")["keys"][0]["n"].as_str().expect("n").to_owned();
    let modulus = EncodingKey::from_secret(modulus.as_bytes());
    for (why, token, expected) in [
        ("RS256", signed(Algorithm::RS256, "rsa", &rsa, &claims), 200),
        ("ES256", signed(Algorithm::ES256, "p256", &p256, &claims), 200),
        ("EdDSA", signed(Algorithm::EdDSA, "ed25519", &ed25519, &claims), 200),
        ("another key's id", signed(Algorithm::RS256, "p256", &rsa, &claims), 401),
        ("an id of no key", signed(Algorithm::RS256, "none", &rsa, &claims), 401),
        ("the public key as a secret", signed(Algorithm::HS256, "rsa", &public, &claims), 401),
        ("the modulus as a secret", signed(Algorithm::HS256, "rsa", &modulus, &claims), 401),
        ("another algorithm of the key", signed(Algorithm::RS512, "rsa", &rsa, &claims), 401),
        ("by the static secret", token_with("u1", json!({ "organizations": ["o1"] })), 200),
    ] {
        assert_eq!(ask(&app, NATIVE, &token).await.0, expected, "{why}");
    }
    // What is unknown was asked for once at most, and no more for a while.
    let asked = || *publisher.asked.lock().expect("a count");
    let before = asked();
    for number in 0..20 {
        let made_up = signed(Algorithm::RS256, &format!("made up {number}"), &rsa, &claims);
        assert_eq!(ask(&app, NATIVE, &made_up).await.0, 401);
    }
    assert!(asked() <= before + 1, "{} after {before}", asked());
    // The key is renamed; until the worker may ask again its tokens are refused, then they are good.
    *publisher.document.lock().expect("a document") = SET.replace("\"kid\":\"rsa\"", "\"kid\":\"next\"");
    let (old, next) = ["rsa", "next"].map(|id| signed(Algorithm::RS256, id, &rsa, &claims)).into();
    crate::bench::eventually("the new key is fetched", || async {
        (ask(&app, NATIVE, &next).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(ask(&app, NATIVE, &old).await.0, 401);
    app.undegraded().await;
}
