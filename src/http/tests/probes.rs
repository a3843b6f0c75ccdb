//! What operators and the landing page are answered.

use std::net::SocketAddr;

use super::bench::{Bench, sign, token};
use crate::telemetry::{Phase, Reason};

#[tokio::test]
async fn probes_answer_one_word() {
    let bench = Bench::new().await;
    let plain = |status: &str, word: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nvary: Origin\r\ncontent-length: {}\r\nconnection: close\r\n\
             date: D\r\n\r\n{word}",
            word.len()
        )
    };
    bench.readiness.enter(Phase::Standby);
    assert_eq!(bench.ask("GET", "/readyz", &[]).await, plain("503 Service Unavailable", "standby"));
    bench.readiness.enter(Phase::SourceDown);
    assert_eq!(bench.ask("GET", "/readyz", &[]).await, plain("200 OK", "source_down"));
    for path in ["/health", "/healthz"] {
        assert_eq!(bench.ask("GET", path, &[]).await, plain("200 OK", "ok"));
    }
}

#[tokio::test]
async fn reasons_and_metrics_are_for_this_machine_or_a_scope() {
    let bench = Bench::new().await;
    bench.readiness.degrade("slot", Reason::new("the slot is lost").mended_by("select 1"));
    let body =
        r#"{"state":"degraded","reasons":[{"reason":"slot","message":"the slot is lost","sql":"select 1"}]}"#;
    let local = ("host", "localhost:8080");
    assert!(bench.ask("GET", "/readyz/reasons", &[local]).await.ends_with(body));
    let metrics = bench.ask("GET", "/metrics", &[local]).await;
    assert!(metrics.contains("content-type: application/openmetrics-text;") && metrics.ends_with("# EOF\n"));

    let forwarded = ("x-forwarded-for", "127.0.0.1");
    for path in ["/metrics", "/readyz/reasons"] {
        // A name may be anybody's: what resolves to this machine need not be of it.
        assert!(bench.ask("GET", path, &[]).await.starts_with("HTTP/1.1 401 "), "{path}");
        assert!(bench.ask("GET", path, &[local, forwarded]).await.starts_with("HTTP/1.1 401 "), "{path}");
        let with = async |token: String| {
            let authorization = format!("Bearer {token}");
            bench.ask("GET", path, &[local, forwarded, ("authorization", &authorization)]).await
        };
        assert!(with(token("u")).await.starts_with("HTTP/1.1 403 "), "{path}");
        assert!(with(sign("u", 60, &[], "walcast:stats")).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[tokio::test]
async fn the_admin_listener_asks_nobody_and_opens_no_streams() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut bench = Bench::with(|config| config.http.admin_listen = Some(any)).await;
    bench.address = bench.admin.unwrap();
    let answer = bench.ask("GET", "/metrics", &[("x-forwarded-for", "1.2.3.4")]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(bench.ask("GET", "/api/realtime/stream", &[]).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn the_landing_page_is_held_to_itself() {
    let bench = Bench::new().await;
    let page = bench.ask("GET", "/", &[]).await;
    for header in [
        "content-type: text/html; charset=utf-8\r\n",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "referrer-policy: no-referrer\r\n",
    ] {
        assert!(page.contains(header), "{header}");
    }
    assert!(page.ends_with(include_str!("../../../console/index.html")));
}
