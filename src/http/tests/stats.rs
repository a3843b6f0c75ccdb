//! Who listens, as it is told to whom.

use super::bench::{Bench, EPOCH, now, sign, token};
use crate::access::NewToken;
use crate::config::Secret;

async fn stats(bench: &Bench, token: &str) -> String {
    let authorization = format!("Bearer {token}");
    let answer = bench.ask("GET", "/api/realtime/stats", &[("authorization", &authorization)]).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = body.len();
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\nvary: Origin\r\ncontent-length: {length}\r\nconnection: close\r\n\
             date: D"
        )
    );
    body.to_owned()
}

/// A token with a role in each organization.
fn with_roles(user: &str, roles: &[(&str, &str)]) -> String {
    let organizations = roles.iter().map(|(id, role)| ((*id).to_owned(), (*role).to_owned())).collect();
    let token =
        NewToken { sub: user.to_owned(), exp: now().as_secs() + 60, organizations, ..NewToken::default() };
    token.sign(&Secret::new(super::bench::SECRET.to_owned())).unwrap()
}

#[tokio::test]
async fn everybody_sees_their_own_organizations_and_overseers_see_users() {
    let bench = Bench::new().await;
    bench.publish("a", 110, "lots", &[]);
    let _all = bench.stream("").await;
    let _lots = bench.stream("&channel=lots").await;
    let issues = bench.open(&format!("/issues?token={}", token("v")), &[]).await;
    let other = sign("w", 60, &["b"], "");
    let elsewhere = format!("/api/realtime/stream?organizationId=b&channel=presence&token={other}");
    let _elsewhere = bench.open(&elsewhere, &[]).await;
    let a = "\"a\":{\"connections\":3,\"channels\":{\"custom\":2,\"issues\":2,\"lots\":2,\"presence\":1}}";
    let b = "\"b\":{\"connections\":1,\"channels\":{\"presence\":1}}";
    let tail = format!(
        "\"websocket\":{{\"totalConnections\":0,\"rooms\":0}},\"position\":\"{EPOCH}.111.0\",\"lagBytes\":0}}"
    );
    let sse = |total, issues| {
        format!("\"sse\":{{\"totalConnections\":{total},\"heatmapStreams\":0,\"issueStreams\":{issues}}}")
    };
    assert_eq!(
        stats(&bench, &with_roles("x", &[("a", "manager"), ("b", "member")])).await,
        format!(
            "{{\"totalConnections\":4,\"activeConnections\":4,\"connectionsByUser\":{{\"u\":2,\"v\":1}},\
             \"organizations\":{{{a},{b}}},{},{tail}",
            sse(4, 1)
        )
    );
    assert_eq!(
        stats(&bench, &with_roles("x", &[("b", "employee")])).await,
        format!(
            "{{\"totalConnections\":1,\"activeConnections\":1,\"organizations\":{{{b}}},{},{tail}",
            sse(1, 0)
        )
    );
    // One without streams, and the journal of everybody, which is nobody's.
    assert_eq!(
        stats(&bench, &with_roles("x", &[("c", "admin"), ("*", "admin")])).await,
        format!(
            "{{\"totalConnections\":0,\"activeConnections\":0,\"connectionsByUser\":{{}},\
             \"organizations\":{{\"c\":{{\"connections\":0,\"channels\":{{}}}}}},{},{tail}",
            sse(0, 0)
        )
    );
    assert_eq!(
        stats(&bench, &sign("ops", 60, &[], "walcast:stats")).await,
        format!(
            "{{\"totalConnections\":4,\"activeConnections\":4,\"connectionsByUser\":{{\"u\":2,\"v\":1,\"w\":1}},\
             \"organizations\":{{{a},{b}}},{},{tail}",
            sse(4, 1)
        )
    );
    drop(issues);
}

#[tokio::test]
async fn who_is_nobody_is_told_nothing() {
    let bench = Bench::new().await;
    let answer = bench.ask("GET", "/api/realtime/stats?organizationId=a", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let path = format!("/api/realtime/stats?token={}&organizationId=a", token("u"));
    let answer = bench.ask("GET", &path, &[]).await;
    assert!(
        answer.ends_with("\"organizationId: unknown parameter; allowed are token, ticket\"}"),
        "{answer}"
    );
}
