//! How connections and streams begin and end.

use std::time::Duration;

use super::bench::{Bench, frame, sign, token};
use super::client::{dateless, timeless, zeroed};
use crate::catalog::OrganizationId;
use crate::hub::EndReason;

const LAST: &str = "\",\"timestamp\":0,\"data\":{}}\n\n";

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let bench = Bench::new().await;
    let mut client = loop {
        let path = format!("/api/realtime/stream?organizationId=a&token={}", sign("u", 1, &["a"], ""));
        let mut client = bench.connect().await;
        client.send("GET", &path, &[]).await;
        let head = client.until("\r\n\r\n").await;
        if head.starts_with("HTTP/1.1 200 ") {
            break client;
        }
        // Its second was over on the way.
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    };
    client.connected().await;
    assert_eq!(client.frame().await, format!("data: {{\"type\":\"token.expired{LAST}"));
    assert_eq!(client.rest().await, "");
    bench.state.streams.ended().await;
    assert!(bench.metrics.encode().contains("walcast_stream_ends_total{reason=\"expired\"} 1\n"));
}

#[tokio::test]
async fn who_ends_a_stream_has_the_last_word() {
    let bench = Bench::new().await;
    for (reason, last) in [
        (EndReason::Revoked, format!("data: {{\"type\":\"access.revoked{LAST}")),
        (EndReason::Evicted, format!("retry: 86400000\ndata: {{\"type\":\"stream.evicted{LAST}")),
        (EndReason::Closed, "retry: 86400000\n\n".to_owned()),
        (EndReason::Lagging, "retry: 0\n\n".to_owned()),
    ] {
        let mut client = bench.stream("").await;
        let handles = bench.hub.handles(&OrganizationId::new("a"));
        handles.iter().for_each(|handle| handle.end(reason));
        let rest = timeless(&client.rest().await);
        let rest = if reason == EndReason::Lagging { zeroed(&rest, "retry: ") } else { rest };
        assert_eq!(rest, last);
        bench.state.streams.ended().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_others_go_on() {
    let bench = Bench::with(|config| config.http.write_timeout = Duration::from_millis(300)).await;
    let stuck = bench.stream("").await;
    let mut well = bench.stream("").await;
    let size = 64 << 10;
    for n in 0..400u64 {
        bench.publish_sized("a", 110 + n * 10, "lots", &[], size);
        assert_eq!(well.frame().await, frame(110 + n * 10, &"x".repeat(size)));
    }
    drop(well);
    bench.state.streams.ended().await;
    let metrics = bench.metrics.encode();
    assert!(metrics.contains("walcast_stream_ends_total{reason=\"write_timeout\"} 1\n"), "{metrics}");
    assert!(metrics.contains("walcast_streams 0\n"), "{metrics}");
    drop(stuck);
}

#[tokio::test]
async fn a_stopping_server_tells_its_streams_when_to_come_back() {
    for drain in [Duration::from_millis(300), Duration::ZERO] {
        let bench = Bench::with(|config| config.http.drain = drain).await;
        let mut first = bench.stream("").await;
        let mut second = bench.stream("").await;
        let (address, metrics) = (bench.address, bench.metrics.clone());
        let stopped = bench.shut_down();
        for client in [&mut first, &mut second] {
            let rest = client.rest().await;
            let millis: u64 = rest.trim().strip_prefix("retry: ").expect(&rest).parse().unwrap();
            assert!((1000..=5000).contains(&millis), "{millis}");
            assert_eq!(zeroed(&rest, "retry: "), "retry: 0\n\n");
        }
        stopped.await.unwrap();
        assert!(metrics.encode().contains("walcast_stream_ends_total{reason=\"drained\"} 2\n"));
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn a_server_without_streams_stops_at_once_though_connections_are_open() {
    let bench = Bench::with(|config| config.http.drain = Duration::from_secs(3600)).await;
    let mut idle = bench.connect().await;
    idle.send("GET", "/healthz", &[]).await;
    idle.until("ok").await;
    let stopped = bench.shut_down();
    assert_eq!(idle.rest().await, "");
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_stream_may_follow_other_requests_on_its_connection() {
    let bench = Bench::new().await;
    let mut client = bench.connect().await;
    let stream = format!("/api/realtime/stream?organizationId=a&token={}", token("u"));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
    let pipelined = [request("/healthz"), request("/none"), request(&stream), request("/healthz")].concat();
    client.send_raw(pipelined.as_bytes()).await;
    assert!(client.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(client.until("path\"}").await.starts_with("HTTP/1.1 404 Not Found\r\n"));
    let head = dateless(&client.until("\r\n\r\n").await);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
    client.connected().await;
    // What was asked after the stream has no answer: the connection is the stream's.
    bench.publish("a", 110, "lots", &[]);
    assert_eq!(client.frame().await, frame(110, ""));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_closed() {
    let bench = Bench::new().await;
    let oversize = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(20 << 10));
    for (bytes, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", "HTTP/1.1 400 Bad Request\r\n"),
        ("GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        (&oversize, "HTTP/1.1 431 Request Header Fields Too Large\r\n"),
    ] {
        let mut client = bench.connect().await;
        client.send_raw(bytes.as_bytes()).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with(status), "{answer}");
    }
}

#[tokio::test]
async fn head_answers_as_get_would_and_opens_nothing() {
    let bench = Bench::new().await;
    let path = format!("/api/realtime/stream?organizationId=a&token={}", token("u"));
    assert_eq!(
        bench.ask("HEAD", &path, &[]).await,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\n\
         x-accel-buffering: no\r\nreferrer-policy: no-referrer\r\nconnection: close\r\nx-content-type-options: nosniff\r\nvary: Origin\r\ndate: D\r\n\r\n"
    );
    assert!(bench.ask("HEAD", "/api/realtime/stream", &[]).await.starts_with("HTTP/1.1 401 "));
    assert_eq!(bench.hub.streams(), 0);
}

#[tokio::test]
async fn a_client_that_talks_on_is_closed() {
    let bench = Bench::new().await;
    let mut client = bench.stream("").await;
    client.send_raw(b"hello").await;
    bench.publish("a", 110, "lots", &[]);
    assert_eq!(client.frame().await, frame(110, ""));
    let flood = tokio::io::AsyncWriteExt::write_all(&mut client.socket, &[0; 256 << 10]).await;
    drop(flood);
    bench.state.streams.ended().await;
}

#[test]
fn an_idle_streams_task_is_small() {
    fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(crate::http::delivery::run);
    assert!(bytes <= 1536, "{bytes}");
}

/// Nothing is accepted meanwhile: the runtime has this one thread.
#[tokio::test]
async fn a_crowd_finds_room_to_wait_until_it_is_accepted() {
    let bench = Bench::new().await;
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let most = most.and_then(|most| most.trim().parse().ok()).unwrap_or(128);
    let crowd = (0..500.min(most)).map(|_| {
        // A dropped packet is sent again after a second at the earliest.
        std::net::TcpStream::connect_timeout(&bench.address, Duration::from_millis(900)).unwrap()
    });
    let crowd: Vec<_> = crowd.collect();
    drop(crowd);
    bench.stream("").await;
}
