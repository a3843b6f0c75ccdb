//! Credentials appear nowhere: the worker is run at trace level, offered every kind of credential, good and bad, and
//! neither its log, nor its metrics and reasons, nor any of its answers repeats one.

use serde_json::{Value, json};

use crate::bench::app::{JWT_SECRET, token_with};
use crate::bench::eventually;
use crate::bench::http::Request;
use crate::bench::process::WorkerProcess;
use crate::bench::server;
use crate::bench::sse::Stream;

const SESSIONS: &str = r#"create table sessions ("sessionToken" text primary key, "userId" text not null,
                          expires timestamptz not null);
    insert into sessions values ('good-session-hidden', 'u1', now() + interval '1 hour');
    insert into organizations (id, name, plan) values ('o1', 'One', 'free');
    insert into users (id, email, name) values ('u1', 'u1@example.com', 'u1');
    insert into memberships (organization_id, user_id, role) values ('o1', 'u1', 'admin');"#;

const AUTHJS_SECRET: &str = "a secret of next-auth, as AUTH_SECRET holds it";

/// Asks for a stream, a ticket, metrics from afar, and control of a stream, by each way that a credential can come.
struct Prober<'a> {
    worker: &'a WorkerProcess,
    cookie: &'static str,
    /// Everything that came back, and what was offered.
    answers: Vec<String>,
    offered: Vec<String>,
}

impl Prober<'_> {
    async fn offer(&mut self, credential: &str, cookie: bool) {
        self.offered.push(credential.to_owned());
        let stream = "/api/realtime/stream?organizationId=o1";
        let bearer = format!("Bearer {credential}");
        let in_cookie = format!("{}={credential}", self.cookie);
        let mut requests = vec![
            Request::get(stream).header("Authorization", &bearer),
            Request::get(stream).header("Authorization", credential),
            Request::get(format!("{stream}&token={credential}")),
            Request::get(format!("{stream}&ticket={credential}")),
            Request::get(format!("{stream}&token={credential}&token={credential}")),
            Request::get(format!("{stream}&token={credential}&unknown=1")),
            Request::get(format!("{stream}&token={credential}&channel=none")),
            Request::get(format!("/nowhere?token={credential}")),
            Request::get(format!("/metrics?token={credential}")).header("X-Forwarded-For", "10.0.0.1"),
            Request::new("PUT", format!("/api/realtime/stream/x?token={credential}")),
            Request::new("DELETE", format!("/api/realtime/stream/x?token={credential}")),
            Request::new("PATCH", format!("{stream}&token={credential}")),
            Request::new("HEAD", format!("{stream}&token={credential}")),
            Request::get(format!("/api/realtime/stats?token={credential}")),
            Request::get("/api/realtime/stats").header("Authorization", &bearer),
            Request::new("OPTIONS", format!("{stream}&token={credential}")),
            Request::get(format!("{stream}&token={credential}")).header("Accept", "text/event-stream"),
        ];
        if cookie {
            requests.push(Request::get(stream).header("Cookie", &in_cookie));
            requests.push(
                Request::get(stream).header("Cookie", &in_cookie).header("Origin", "https://evil.example"),
            );
            requests.push(Request::get(stream).header("Cookie", &format!("{in_cookie}; {in_cookie}")));
            requests.push(Request::get("/api/sse/dashboard").header("Cookie", &in_cookie));
        }
        for request in requests {
            self.answer(request).await;
        }
    }

    /// The head and what comes with it; of a stream, its first frame.
    async fn answer(&mut self, request: Request) -> u16 {
        let mut stream = Stream::open(self.worker.address, request.header("Connection", "close")).await;
        let head = format!("{:?}", stream.head);
        assert!(head.contains("\"no-referrer\""), "{head}");
        assert!(stream.head.header("location").is_none(), "{head}");
        let body = if stream.head.header("content-type") == Some("text/event-stream") {
            format!("{:?}", stream.frame().await)
        } else {
            stream.body().await
        };
        self.answers.push(head + &body);
        stream.head.status
    }

    async fn ticket(&self, headers: &[(&str, &str)]) -> String {
        let mut request = Request::new("POST", "/api/realtime/tickets");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.fetch(self.worker.address).await;
        assert_eq!(answer.head.header("cache-control"), Some("no-store"), "{:?}", answer.head);
        answer.json()["ticket"].as_str().unwrap_or_default().to_owned()
    }

    /// None of what was offered, whole or its telling part, is anywhere.
    async fn check(mut self, secrets: &[&str]) {
        for path in ["/metrics", "/readyz/reasons", "/readyz"] {
            let text = Request::get(path).fetch(self.worker.address).await.body;
            self.answers.push(text);
        }
        let log = eventually("the log is written", || async {
            let log = self.worker.log();
            log.contains("credential refused").then_some(log)
        })
        .await;
        for witness in ["\"level\":\"TRACE\"", "\"target\":\"hyper", "\"target\":\"tokio_postgres"] {
            assert!(log.contains(witness), "the log is at trace level, {witness} included");
        }
        let all = self.answers.join("\n") + &log;
        let parts = |text: &String| -> Vec<String> {
            // The claims and the signature by themselves tell as much.
            let parts = text.split('.').skip(1).filter(|part| part.len() >= 16).map(str::to_owned);
            parts.chain([text.clone()]).collect()
        };
        let offered: Vec<String> = self.offered.iter().flat_map(parts).collect();
        assert!(offered.len() > 10, "{offered:?}");
        for text in offered.iter().map(String::as_str).chain(secrets.iter().copied()) {
            if let Some(at) = all.find(text) {
                let from = all[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
                panic!("{text:?} is told: …{}", &all[from..at + text.len()]);
            }
        }
    }
}

/// Good for an hour, expired, forged, of another organization, and not tokens at all.
fn tokens() -> Vec<String> {
    let good = token_with("u1", json!({ "jti": "hidden-good" }));
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    vec![
        forged,
        token_with("u1", json!({ "exp": 1_000_000_000, "jti": "hidden-expired" })),
        token_with("u1", json!({ "nbf": 9_999_999_999u64, "jti": "hidden-early" })),
        token_with("u9", json!({ "jti": "hidden-strangers" })),
        token_with("", json!({ "jti": "hidden-nobodys" })),
        "hidden-no-token-at-all".to_owned(),
        "hidden.no-token-at-all.either".to_owned(),
        good,
    ]
}

async fn database() -> String {
    let url = server::database().await;
    let dsn = walcast::postgres::dsn::Dsn::parse(&url).expect("its URL");
    server::session(&dsn).await.batch_execute(SESSIONS).await.expect("the test's rows");
    walcast::cli::setup::apply(&crate::bench::app::configuration(), &dsn).await.expect("setup");
    url
}

async fn probe(cookie: &'static str, environment: &[(&str, &str)], cookies: &[String]) {
    let url = database().await;
    let mut environment = environment.to_vec();
    environment.extend([
        ("WALCAST_LOG", "trace"),
        ("WALCAST_LIMITS_STREAMS_PER_USER", "0"),
        ("WALCAST_LIMITS_STREAMS_PER_ADDRESS", "0"),
        // An endpoint for keys that is not there: what it would be needed for is put off.
        ("WALCAST_ACCESS_JWKS_URL", "http://127.0.0.1:1/keys?key=hidden-in-the-url"),
    ]);
    let worker = WorkerProcess::start(&url, &environment).await;
    let mut prober = Prober { worker: &worker, cookie, answers: Vec::new(), offered: Vec::new() };
    let by_cookie = cookie == "jwt";
    for token in tokens() {
        prober.offer(&token, by_cookie).await;
    }
    let unsigned = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImhpZGRlbi1raWQifQ.eyJzdWIiOiJ1MSIsImV4cCI6OTk5OTk5OTk5OX0.aGlkZGVuLXNpZ25hdHVyZQ";
    prober.offer(unsigned, by_cookie).await;
    let good = token_with("u1", json!({ "jti": "hidden-issuers" }));
    let bearer = format!("Bearer {good}");
    prober.offered.push(good.clone());
    // A ticket that is used, and then used again; one that is forged; one that is not used.
    let ticket = prober.ticket(&[("Authorization", &bearer)]).await;
    let path = format!("/api/realtime/stream?organizationId=o1&ticket={ticket}");
    assert_eq!(prober.answer(Request::get(&path)).await, 200);
    assert_eq!(prober.answer(Request::get(&path)).await, 401);
    assert_eq!(prober.answer(Request::get(format!("{path}AAAA"))).await, 401);
    prober.offer(&ticket, by_cookie).await;
    for value in cookies {
        prober.offer(value, true).await;
        prober.ticket(&[("Cookie", &format!("{cookie}={value}"))]).await;
    }
    let statuses: Vec<_> = prober.answers.iter().map(|answer| answer[..20].to_owned()).collect();
    assert!(
        statuses.iter().any(|status| status.contains("200")) && statuses.iter().any(|s| s.contains("401"))
    );
    prober.check(&[JWT_SECRET, AUTHJS_SECRET, "hidden-old-one", "hidden-in-the-url"]).await;
}

#[tokio::test]
async fn tokens_and_tickets_are_told_nowhere() {
    probe("jwt", &[("WALCAST_ACCESS_COOKIE", "jwt")], &tokens()).await;
}

#[tokio::test]
async fn session_ids_are_told_nowhere() {
    let query = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/access/session.sql");
    let environment = [("WALCAST_ACCESS_SESSION_QUERY", query), ("WALCAST_ACCESS_SESSION_COOKIE", "sid")];
    let values = ["good-session-hidden", "bad-session-hidden"].map(str::to_owned);
    probe("sid", &environment, &values).await;
}

#[tokio::test]
async fn encrypted_sessions_are_told_nowhere() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/access/authjs/vectors.json");
    let document: Value = serde_json::from_slice(&std::fs::read(path).expect("vectors")).expect("JSON");
    let vectors = document["vectors"].as_array().expect("a list").iter();
    let values = vectors.filter_map(|vector| vector["value"].as_str()).filter(|value| value.len() < 4000);
    let environment = [
        ("WALCAST_ACCESS_AUTHJS_VERSION", "5"),
        ("WALCAST_ACCESS_AUTHJS_SECRET", AUTHJS_SECRET),
        ("WALCAST_ACCESS_AUTHJS_OLD_SECRETS", "hidden-old-one,hidden-old-two"),
    ];
    probe("authjs.session-token", &environment, &values.map(str::to_owned).collect::<Vec<_>>()).await;
}
