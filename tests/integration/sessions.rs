//! Callers known by the cookies of their application: sessions that are rows, and sessions that Auth.js encrypts.

use std::time::Duration;

use serde_json::Value;
use walcast::config::{AuthJs, Config, Secret};

use crate::bench::app::TestApp;
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::proxy::{Proxy, proxied};
use crate::bench::server;
use crate::bench::sse::Stream;

/// As @auth/pg-adapter makes it.
pub const SESSIONS: &str = r#"create table sessions ("sessionToken" text primary key, "userId" text not null,
                          expires timestamptz not null);"#;

fn path(name: &str) -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn by_rows(config: &mut Config) {
    config.access.session_query = Some(path("sql/access/session.sql"));
    config.access.session_cookie = Some("sid".to_owned());
}

/// A query of the test's own, in a file that lasts as long as the test.
fn query(text: &str) -> (tempfile::NamedTempFile, impl FnOnce(&mut Config)) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("a query");
    let path = file.path().to_owned();
    let change = move |config: &mut Config| {
        by_rows(config);
        config.access.session_query = Some(path);
    };
    (file, change)
}

pub async fn login(app: &TestApp, session: &str, user: &str, lasts: &str) {
    app.sql(&format!("insert into sessions values ('{session}', '{user}', now() + interval '{lasts}')"))
        .await;
}

pub fn request(cookie: &str) -> Request {
    Request::get("/api/realtime/stream?organizationId=o1").header("Cookie", cookie)
}

/// The worker reaches the database by a proxy.
pub async fn by_rows_through_a_proxy(change: impl FnOnce(&mut Config)) -> (TestApp, Proxy) {
    let url = server::database().await;
    let (proxy, through) = proxied(&url).await;
    let app = TestApp::builder()
        .on(url)
        .before(SESSIONS)
        .config(by_rows)
        .config(|config| config.access.max_staleness = Duration::from_secs(600))
        .config(change)
        .through(through)
        .start()
        .await;
    (app, proxy)
}

/// How the session is judged, once the database has answered in time: until then it is neither good nor bad.
async fn status(app: &TestApp, cookie: &str) -> u16 {
    eventually("the session is judged", || async {
        Some(Stream::open(app.address, request(cookie)).await.head.status).filter(|status| *status != 503)
    })
    .await
}

#[tokio::test]
async fn a_session_in_the_database_opens_streams_until_it_ends() {
    let app = TestApp::builder().before(SESSIONS).config(by_rows).start().await;
    app.member("o1", "u1", "admin").await;
    login(&app, "good-session", "u1", "1 hour").await;
    login(&app, "brief-session", "u1", "3 seconds").await;
    login(&app, "old-session", "u1", "-1 second").await;
    login(&app, "strangers-session", "u9", "1 hour").await;
    login(&app, "endless-session", "u1", "100 years").await;
    let mut brief = Stream::open(app.address, request("sid=brief-session")).await;
    assert_eq!(brief.head.status, 200);
    assert_eq!(status(&app, "sid=good-session").await, 200);
    assert_eq!(status(&app, "sid=endless-session").await, 200);
    assert_eq!(status(&app, "sid=strangers-session").await, 403);
    for unknown in
        ["sid=", "sid=nothing", "sid=good-sessio", "sid=' or true --", "sid=good-session; sid=good-session"]
    {
        assert_eq!(
            request(unknown).fetch(app.address).await.error(),
            (401, "invalid_token".to_owned()),
            "{unknown}"
        );
    }
    assert_eq!(
        request("sid=old-session").fetch(app.address).await.error(),
        (401, "token_expired".to_owned())
    );
    // Without an origin of its own it is nobody's page.
    let foreign = request("sid=good-session").header("Origin", "https://evil.example.com");
    assert_eq!(foreign.fetch(app.address).await.error().0, 403);
    let last = brief.rest().await.pop().expect("a farewell");
    assert_eq!(last.event_type().as_deref(), Some("token.expired"));
    // The table is changed under the queries that were prepared.
    app.sql("alter table sessions alter \"userId\" type varchar(99), add note text").await;
    assert_eq!(status(&app, "sid=good-session").await, 200);
    // Nothing is cached: a session that is gone opens nothing more.
    app.sql("delete from sessions").await;
    assert_eq!(status(&app, "sid=good-session").await, 401);
}

#[tokio::test]
async fn a_query_may_name_the_organization_and_judge_the_values_form() {
    let text =
        "select user_id, until at time zone 'UTC', organization from logins where id = $1::uuid; -- by id";
    let (_file, change) = query(text);
    let tables =
        "create table logins (id uuid primary key, user_id text, until timestamptz, organization text);";
    let app = TestApp::builder().before(tables).config(change).start().await;
    app.member("o1", "u1", "admin").await;
    app.member("o2", "u1", "employee").await;
    let id = "7d0a3f2e-52a4-4f0c-9d8e-2f1b3c4d5e6f";
    app.sql(&format!("insert into logins values ('{id}', 'u1', now() + interval '1 hour', 'o2')")).await;
    // The order of a comment after a semicolon is none of ours: it is told.
    let refused = request(&format!("sid={id}")).fetch(app.address).await;
    assert_eq!(refused.error().0, 503);
    drop(app);

    let text =
        "select user_id, until at time zone 'UTC', organization from logins where id = $1::uuid -- by id";
    let (_file, change) = query(text);
    let app = TestApp::builder().before(tables).config(change).start().await;
    app.member("o1", "u1", "admin").await;
    app.member("o2", "u1", "employee").await;
    app.sql(&format!("insert into logins values ('{id}', 'u1', now() + interval '1 hour', 'o2')")).await;
    let preset = Request::get("/api/sse/dashboard").header("Cookie", &format!("sid={id}"));
    let mut stream = Stream::open(app.address, preset).await;
    assert_eq!(stream.data().await.json()["organizationId"], "o2");
    // What can't be cast is a bad session, not a broken query.
    assert_eq!(status(&app, "sid=no-uuid").await, 401);
    app.undegraded().await;
}

#[tokio::test]
async fn a_query_that_fails_is_told_and_sends_nobody_away_for_good() {
    let (_file, change) = query("select user_id, until from nowhere where id = $1");
    let app = TestApp::builder().config(change).start().await;
    let refused = request("sid=hidden-value").fetch(app.address).await;
    assert_eq!(refused.error(), (503, "credentials".to_owned()));
    let told = app.degraded("access.session_query").await;
    assert!(told.contains("nowhere") && !told.contains("hidden-value"), "{told}");
    // Whoever comes with a token is judged as ever.
    let member = app.member("o1", "u1", "admin").await;
    app.open(&member, "").await;
}

#[tokio::test]
async fn a_query_can_change_nothing() {
    let (_file, change) = query("select 'u1', 'infinity'::timestamptz, walcast_note($1)");
    let tables = "create table notes (text text);
        create function walcast_note(note text) returns text language sql as
          $$ insert into notes values (note) returning 'o1' $$;";
    let app = TestApp::builder().before(tables).config(change).start().await;
    assert_eq!(request("sid=x").fetch(app.address).await.error().0, 503);
    assert_eq!(app.text("select count(*) from notes").await, "0");
}

#[tokio::test]
async fn while_the_database_is_away_a_session_is_neither_good_nor_bad() {
    let (app, proxy) = by_rows_through_a_proxy(|_| {}).await;
    let member = app.member("o1", "u1", "admin").await;
    login(&app, "good-session", "u1", "1 hour").await;
    assert_eq!(status(&app, "sid=good-session").await, 200);
    for cut in [true, false] {
        if cut {
            proxy.cut();
        } else {
            proxy.black_hole();
        }
        for cookie in ["sid=good-session", "sid=unknown"] {
            let refused = request(cookie).fetch(app.address).await;
            assert_eq!(refused.error(), (503, "credentials".to_owned()), "{cookie}");
            let browser = request(cookie).header("Accept", "text/event-stream").fetch(app.address).await;
            assert_eq!(browser.head.status, 200, "a browser comes again");
            assert!(browser.body.contains("retry: ") && !browser.body.contains("data:"), "{}", browser.body);
        }
        // A token needs no database.
        assert_eq!(app.connect(&member, "").await.head.status, 200);
        proxy.restore();
        app.ready().await;
        assert_eq!(status(&app, "sid=unknown").await, 401);
        assert_eq!(status(&app, "sid=good-session").await, 200);
    }
}

#[tokio::test]
async fn cookies_that_auth_js_made_open_streams() {
    let document = std::fs::read(path("src/access/authjs/vectors.json")).expect("the vectors");
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    let vectors = document["vectors"].as_array().expect("a list").clone();
    let named = |name: &str| vectors.iter().find(|vector| vector["name"] == name).expect("a vector");
    let text = |vector: &Value, field: &str| vector[field].as_str().expect("a text").to_owned();
    let current = Secret::new(named("v4")["secrets"][0].as_str().expect("a secret").to_owned());
    let older = Secret::new(named("v5 rotated")["secrets"][1].as_str().expect("a secret").to_owned());
    for version in [4, 5] {
        let authjs =
            AuthJs { version, secret: Some(current.clone()), old_secrets: vec![older.clone()], cookie: None };
        let app = TestApp::builder().config(|config| config.access.authjs = Some(authjs)).start().await;
        app.member("o1", "u1", "admin").await;
        app.member("o1", "u2", "admin").await;
        let (v4, v5) = (text(named("v4"), "value"), text(named("v5 authjs.session-token"), "value"));
        let secure = text(named("v5 __Secure-authjs.session-token"), "value");
        let rotated = text(named("v5 rotated"), "value");
        let right = |of: u8| if of == version { 200 } else { 401 };
        for (cookie, expected) in [
            (format!("next-auth.session-token={v4}"), right(4)),
            (format!("__Secure-next-auth.session-token={v4}"), right(4)),
            (format!("authjs.session-token={v5}"), right(5)),
            (format!("__Secure-authjs.session-token={secure}"), right(5)),
            (format!("authjs.session-token={rotated}"), right(5)),
            // The one that was set over https decides, and it is none.
            (format!("__Secure-authjs.session-token=x; authjs.session-token={v5}"), 401),
            (format!("__Secure-next-auth.session-token=x; next-auth.session-token={v4}"), 401),
        ] {
            assert_eq!(status(&app, &cookie).await, expected, "{version} {cookie:.50}");
        }
        let expired = text(named(if version == 4 { "v4 expired" } else { "v5 expired" }), "value");
        let name = if version == 4 { "next-auth.session-token" } else { "authjs.session-token" };
        let refused = request(&format!("{name}={expired}")).fetch(app.address).await;
        assert_eq!(refused.error(), (401, "token_expired".to_owned()));
        if version == 5 {
            // In chunks, as a browser sends what was too long for one; their order is not that of their numbers.
            let large = text(named("v5 large, user in id"), "value");
            let chunks: Vec<&str> =
                large.as_bytes().chunks(3936).map(|c| std::str::from_utf8(c).expect("text")).collect();
            assert_eq!(chunks.len(), 3);
            let cookie = |numbers: &[usize]| {
                let pairs: Vec<_> = numbers.iter().map(|n| format!("{name}.{n}={}", chunks[*n])).collect();
                pairs.join("; ")
            };
            assert_eq!(status(&app, &cookie(&[2, 0, 1])).await, 200);
            assert_eq!(status(&app, &cookie(&[0, 1])).await, 401);
            assert_eq!(status(&app, &cookie(&[0, 2])).await, 401);
        }
    }
}
