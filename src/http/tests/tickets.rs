//! Tickets over HTTP: who gets one, and what it opens.

use serde_json::Value;

use super::bench::{Bench, frame, sign, token};
use super::client::dateless;
use crate::telemetry::Phase;

const PATH: &str = "/api/realtime/tickets";

impl Bench {
    /// The answer to a request for a ticket, with a body if there is one.
    async fn mint(&self, headers: &[(&str, &str)], body: &str) -> String {
        let mut client = self.connect().await;
        let mut request =
            format!("POST {PATH} HTTP/1.1\r\nhost: walcast.example.com\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        client.send_raw(format!("{request}\r\n{body}").as_bytes()).await;
        dateless(&client.rest().await)
    }

    async fn ticket(&self, token: &str, body: &str) -> String {
        let bearer = format!("Bearer {token}");
        let answer =
            self.mint(&[("authorization", &bearer), ("content-type", "application/json")], body).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let body: Value = serde_json::from_str(body).unwrap();
        body["ticket"].as_str().unwrap().to_owned()
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn a_ticket_is_given_to_whom_a_token_or_a_cookie_names_and_never_kept_by_a_cache() {
    let bench = Bench::new().await;
    let bearer = format!("Bearer {}", token("u"));
    let cookie = format!("session={}", token("u"));
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("cookie", &cookie)],
        vec![("cookie", &cookie), ("origin", "https://app.example.com")],
    ] {
        let answer = bench.mint(&headers, "").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for line in
            ["content-type: application/json", "cache-control: no-store", "referrer-policy: no-referrer"]
        {
            assert!(head.lines().any(|l| l == line), "{line} in {head}");
        }
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((body.as_object().unwrap().len(), &body["expiresIn"]), (2, &30.into()));
    }
    assert_eq!(
        status(&bench.mint(&[("cookie", &cookie), ("origin", "https://evil.example")], "").await),
        "403"
    );
    assert_eq!(status(&bench.mint(&[], "").await), "401");
    assert_eq!(status(&bench.mint(&[("authorization", "Bearer x"), ("cookie", &cookie)], "").await), "401");
    assert_eq!(status(&bench.ask("GET", PATH, &[("authorization", &bearer)]).await), "405");
    let allowed = bench.ask("OPTIONS", PATH, &[]).await;
    assert!(allowed.contains("\r\nallow: POST, OPTIONS\r\n"), "{allowed}");
    let preflight = bench.ask("OPTIONS", PATH, &[("origin", "https://app.example.com")]).await;
    assert!(
        preflight.contains("\r\naccess-control-allow-methods: ") && preflight.contains("POST"),
        "{preflight}"
    );
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_nothing_else() {
    let bench = Bench::new().await;
    let ticket = bench.ticket(&sign("u", 60, &["a"], "walcast:stats"), "{}").await;
    let path = format!("/api/realtime/stream?organizationId=a&ticket={ticket}");
    // Neither another ticket, nor what else its issuer could do.
    let again = format!("{PATH}?ticket={ticket}");
    let refused = bench.ask("POST", &again, &[]).await;
    assert_eq!(status(&refused), "401");
    assert!(refused.contains("a ticket opens one stream and nothing else"), "{refused}");
    let stats = format!("/metrics?ticket={ticket}");
    assert_eq!(status(&bench.ask("GET", &stats, &[("x-forwarded-for", "10.0.0.1")]).await), "401");
    for elsewhere in [format!("token={ticket}"), format!("ticket={}", token("u")), "ticket=".to_owned()] {
        let path = format!("/api/realtime/stream?organizationId=a&{elsewhere}");
        assert_eq!(status(&bench.ask("GET", &path, &[]).await), "401");
    }
    // A look at it does not use it up, and neither does what is refused for another reason.
    assert_eq!(status(&bench.ask("HEAD", &path, &[]).await), "200");
    assert_eq!(status(&bench.ask("GET", &format!("{path}&channel=none"), &[]).await), "400");
    assert_eq!(status(&bench.ask("GET", &path.replace("=a&", "=b&"), &[]).await), "403");
    let mut stream = bench.open(&path, &[]).await;
    let connected = stream.connected().await;
    assert!(connected.contains("\"role\":\"manager\""), "{connected}");
    bench.publish("a", 110, "lots", &[]);
    assert_eq!(stream.frame().await, frame(110, ""));
    for _ in 0..2 {
        assert_eq!(status(&bench.ask("GET", &path, &[]).await), "401");
    }
    assert_eq!(
        status(&bench.ask("GET", &path, &[("authorization", &format!("Bearer {}x", token("u")))]).await),
        "401"
    );
}

#[tokio::test]
async fn a_ticket_for_one_organization_opens_no_other_and_a_preset_takes_it_for_granted() {
    let bench = Bench::new().await;
    let token = sign("u", 60, &["a", "b"], "");
    let bound = bench.ticket(&token, r#"{"organizationId":"a"}"#).await;
    let path =
        |organization: &str| format!("/api/realtime/stream?organizationId={organization}&ticket={bound}");
    assert_eq!(status(&bench.ask("GET", &path("b"), &[]).await), "403");
    assert_eq!(
        status(&bench.ask("GET", &format!("/issues?organizationId=b&ticket={bound}"), &[]).await),
        "403"
    );
    let mut preset = bench.open(&format!("/issues?ticket={bound}"), &[]).await;
    assert!(preset.connected().await.contains("\"organizationId\":\"a\""));
    let free = bench.ticket(&token, "").await;
    assert_eq!(status(&bench.ask("GET", &format!("/issues?ticket={free}"), &[]).await), "400");
    bench.open(&format!("/issues?organizationId=b&ticket={free}"), &[]).await.connected().await;
}

#[tokio::test]
async fn a_stream_under_a_ticket_ends_with_its_issuers_token() {
    let bench = Bench::new().await;
    let mut stream = loop {
        let ticket = bench.ticket(&sign("u", 2, &["a"], ""), "").await;
        let mut stream = bench.connect().await;
        stream.send("GET", &format!("/api/realtime/stream?organizationId=a&ticket={ticket}"), &[]).await;
        let head = stream.until("\r\n\r\n").await;
        if head.starts_with("HTTP/1.1 200 ") {
            break stream;
        }
        // It was over on the way.
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    };
    stream.connected().await;
    assert_eq!(stream.frame().await, "data: {\"type\":\"token.expired\",\"timestamp\":0,\"data\":{}}\n\n");
}

#[tokio::test]
async fn a_request_for_a_ticket_says_what_it_wants_in_json_or_nothing() {
    let bench = Bench::new().await;
    let bearer = format!("Bearer {}", token("u"));
    let ask = async |kind: &str, body: &str| {
        bench.mint(&[("authorization", &bearer), ("content-type", kind)], body).await
    };
    let json = "application/json; charset=utf-8";
    let long = format!(r#"{{"organizationId":"{}"}}"#, "x".repeat(5000));
    for (kind, body, expected) in [
        (json, "{}", "200"),
        (json, r#"{"organizationId":null}"#, "200"),
        (json, r#"{"organizationId":"a"}"#, "200"),
        (json, r#"{"organizationId":"b"}"#, "403"),
        (json, r#"{"organizationId":"*"}"#, "403"),
        (json, r#"{"organizationId":""}"#, "400"),
        (json, r#"{"organizationId":7}"#, "400"),
        (json, r#"{"organizationId":"a","organizationId":"b"}"#, "400"),
        (json, r#"{"organization":"a"}"#, "400"),
        (json, "[]", "400"),
        (json, "organizationId=a", "400"),
        (json, &long, "413"),
        ("text/plain", "{}", "415"),
        ("application/x-www-form-urlencoded", "organizationId=a", "415"),
    ] {
        assert_eq!(status(&ask(kind, body).await), expected, "{kind} {body:.60}");
    }
    // Known only where it can be judged; without an organization nothing has to be.
    bench.readiness.enter(Phase::Standby);
    assert_eq!(status(&ask(json, r#"{"organizationId":"a"}"#).await), "503");
    assert_eq!(status(&ask(json, "{}").await), "200");
}

#[tokio::test]
async fn who_asks_for_too_many_tickets_is_told_when_to_come_back() {
    let bench = Bench::new().await;
    let headers = [("authorization", format!("Bearer {}", token("u")))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut refused = None;
    for _ in 0..100 {
        let answer = bench.mint(&headers, "").await;
        if status(&answer) != "200" {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains("\"error\":\"too_many_tickets\""), "{refused}");
    let other = format!("Bearer {}", token("v"));
    assert_eq!(status(&bench.mint(&[("authorization", &other)], "").await), "200");
}
